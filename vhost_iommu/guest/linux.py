# SPDX-License-Identifier: Apache-2.0
"""What a Linux guest is asked to do: its test cases, as the parameters that guest/linux/init reads.

Law: the host knows every case before the guest starts, in order and by name; the guest adds none and leaves none out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vhost_iommu.guest.devicetree import node_name
from vhost_iommu.guest.platform import Placed, Platform

#: What the cases use, where a kernel has it as a module; each brings what it depends on.
MODULES = ("virtio_mmio", "virtio_blk", "ext4", "vfat", "nls_ascii", "nls_cp437")


@dataclass(frozen=True)
class Case:
    """One test: its name, a function of guest/linux/init, and that function's arguments."""

    name: str
    function: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.name, self.function, *map(shlex.quote, self.arguments)))


def device_name(placed: Placed) -> str:
    """What Linux calls the platform device."""
    return f"{placed.window.base:x}.{node_name(placed.master.compatible)}"


def cases(platform: Platform) -> list[Case]:
    """All that the machine's parts can show."""
    found = [Case("modules_load", "modules_load")]
    for function in platform.functions:
        base = f"{function.bar0.base:x}"
        found.append(Case(f"{function.smmu.name}_probes", "smmu_probes", (base,)))
        found += [
            Case(f"{placed.master.name}_is_behind_{function.smmu.name}", "behind_smmu", (base, device_name(placed)))
            for placed in function.masters
            if placed.master.compatible == "virtio,mmio"
        ]
    disks = [placed.master.name for placed in platform.masters if placed.master.compatible == "virtio,mmio"]
    return [*found, *disk_cases(disks), Case("no_smmu_warnings", "no_smmu_warnings")]


def disk_cases(disks: Sequence[str]) -> list[Case]:
    """What is done with each disk, and with all at once; the last two leave the disk as their checksums say."""
    found = []
    for disk in disks:
        found += [
            Case(f"{disk}_appears", "disk_appears", (disk,)),
            Case(f"{disk}_holds_files", "holds_files", (disk,)),
            Case(f"{disk}_discards", "discards", (disk,)),
            Case(f"{disk}_writes_directly", "writes_directly", (disk,)),
        ]
    if len(disks) > 1:
        found.append(Case("disks_work_at_once", "work_at_once", tuple(disks)))
    found += [Case(f"{disk}_reads_back", "reads_back", (disk,)) for disk in disks]
    return found


def parameters(chosen: Iterable[Case]) -> dict[str, str]:
    """Files of /etc/vt."""
    return {"cases": "".join(f"{case}\n" for case in chosen)}
