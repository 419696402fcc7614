# SPDX-License-Identifier: Apache-2.0
"""What a Linux guest is asked to do: its test cases, as the parameters that guest/linux/init reads.

Law: the host knows every case before the guest starts, in order and by name; the guest adds none and leaves none out.
What a kernel lacks, the guest finds out: it skips the case by the name of what is lacking.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.choice import comment_above
from vhost_iommu.guest.devicetree import node_name
from vhost_iommu.guest.platform import CAN_STALL, PASID_BITS, Placed, Platform
from vhost_iommu.guest.share import share

DISK, ENGINE = "virtio,mmio", "arm,smmute"
#: What the cases use, where a kernel has it as a module; each brings what it depends on.
SMMU_MODULES = ("arm_smmu_v3",)
DISK_MODULES = ("virtio_mmio", "virtio_blk")
#: Any of these serves; with vfat go character sets, of which a kernel's configuration says which it uses.
FILESYSTEMS = ("ext4", "ext2", "vfat")
VFAT_MODULES = ("nls_ascii", "nls_cp437", "nls_iso8859_1", "nls_utf8")
#: The second PL011, on which a live guest is asked for things.
AGENT_PORT = "/dev/ttyAMA1"
#: Functions of guest/linux/init whose last argument is a test of guest/kmod/vt_engine.c.
OF_THE_MODULE = ("engine", "engines")


@dataclass(frozen=True)
class Case:
    """One test: its name, a function of guest/linux/init, that function's arguments, and a case that must precede."""

    name: str
    function: str
    arguments: tuple[str, ...] = ()
    needs: str = ""

    def __str__(self) -> str:
        return " ".join((self.name, self.function, *map(shlex.quote, self.arguments)))

    @property
    def about(self) -> str:
        """What it does, in a line: what its source says of it."""
        if self.function == "shell":
            return self.arguments[0]
        if self.function in OF_THE_MODULE:
            return comment_above(share("kmod/vt_engine.c").read_text(), self.arguments[-1])
        return comment_above(share("linux/init").read_text(), self.function)


#: Inserts the kernel's own modules, where there are any; whatever is chosen needs it.
LOADS = Case("modules_load", "modules_load")


def module_case(name: str) -> Case:
    """A module of the operator's is inserted."""
    return Case(f"module_{name}_loads", "own_module", (name,))


def shell_case(text: str) -> Case:
    """The case NAME=LINE: a line for the guest's shell, whose exit status is the verdict."""
    name, mark, line = text.partition("=")
    if not mark or not re.fullmatch(r"[\w.:-]+", name, re.ASCII) or not line.strip():
        raise UsageError(f"{text!r} is no case; write it as NAME='line for the guest's shell', NAME without spaces")
    if "\n" in line:
        raise UsageError(f"the case {name} has several lines; write one, or bring a script with --initrd-extra")
    return Case(name, "shell", (line,))


def device_name(placed: Placed) -> str:
    """What Linux calls the platform device."""
    return f"{placed.window.base:x}.{node_name(placed.master.compatible)}"


def cases(platform: Platform, lacking: str = "", own: Sequence[Case] = ()) -> list[Case]:
    """All that the machine's parts can show. ``lacking``: why there is no kernel module to drive the engines with.

    What makes events on purpose comes after the case that wants none. The operator's ``own`` cases come before it, and
    before the disks', which leave each disk as the host then compares it.
    """
    found = []
    engines = []
    for smmu, registers, function in platform.smmus:
        told = (f"{registers.base:x}", smmu.binding.driver, smmu.binding.sysfs)
        found.append(Case(f"{smmu.name}_probes", "smmu_probes", told))
        for placed in function.masters:
            behind = Case(f"{placed.master.name}_is_behind_{smmu.name}", "behind_smmu",
                          (*told, device_name(placed)))  # fmt: skip
            if placed.master.compatible == DISK:
                # Without its driver it is in no group.
                found.append(replace(behind, arguments=(*behind.arguments, "virtio-mmio")))
            elif placed.master.compatible == ENGINE:
                engines.append((placed, behind))
    revoking = []
    for placed, behind in engines:
        engine = EngineCases(placed, lacking)
        # Linux puts a device into a group when a driver is bound to it for the first time.
        found += [*engine.working(), engine.checked(replace(behind, needs=engine.first))]
        if len({each.master.smmu for each, _ in engines}) > 1:
            found += engine.tests("", "refuses_a_foreign_domain")
        revoking += engine.revoking()
    if len(engines) > 1:
        every = EngineCases(engines[0][0], lacking)
        found += [
            every.checked(Case(f"engines_{name}", "engines", (name,))) for name in ("copy_at_once", "share_an_address")
        ]
    found += own
    found += disk_cases([placed.master.name for placed in platform.masters if placed.master.compatible == DISK])
    drivers = dict.fromkeys(smmu.binding.driver for smmu, _, _ in platform.smmus)
    found.append(Case("no_smmu_warnings", "no_smmu_warnings", tuple(drivers)))
    if revoking and not lacking:
        revoking.append(Case("no_other_warnings", "no_other_warnings", needs=revoking[-1].name))
    return [*found, *revoking]


@dataclass(frozen=True)
class EngineCases:
    """The cases of one DMA engine; the tests are those of guest/kmod/vt_engine.c."""

    placed: Placed
    lacking: str = ""

    @property
    def first(self) -> str:
        """The case that binds a driver for the first time."""
        return f"{self.placed.master.name}_copies_coherent_memory"

    def working(self) -> list[Case]:
        """Without a fault: with the kernel's default domain, in bypass, and with lazy invalidation."""
        pasids = (
            ("keeps_pasids_apart", "streams_while_pasids_change") if PASID_BITS in self.placed.master.properties else ()
        )
        return [
            *self.tests("", "copies_coherent_memory", "copies_odd_buffers", "gathers_odd_segments",
                        "fills_scattered_pages", "switches_domains", *pasids),
            *self.kind("bypassed", "identity"),
            *self.tests("bypassed", "copies_coherent_memory", *pasids),
            *self.kind("lazy", "DMA-FQ"),
            *self.tests("lazy", "fills_scattered_pages"),
        ]  # fmt: skip

    def revoking(self) -> list[Case]:
        """With faults that the kernel logs. Where they stall, the first is the last that the engine does."""
        if CAN_STALL in self.placed.master.properties:
            return [*self.kind("strict", "DMA"), *self.tests("strict", "stalls_for_good")]
        pasids = ("revokes_pasids",) if PASID_BITS in self.placed.master.properties else ()
        # The driver prints ten events in five seconds: those of each kind come before many of one.
        return [
            *self.tests("lazy", "loses_what_is_unmapped"),
            *self.kind("strict", "DMA"),
            *self.tests("strict", "loses_what_is_unmapped", *pasids, "loses_all_of_a_range"),
        ]

    def tests(self, kind: str, *names: str) -> list[Case]:
        """Tests of the module, after the group's default domain became of this ``kind``."""
        master = self.placed.master.name
        prefix, needs = (f"{master}_{kind}_", f"{master}_becomes_{kind}") if kind else (f"{master}_", "")
        device = device_name(self.placed)
        return [self.checked(Case(f"{prefix}{name}", "engine", (device, name), needs)) for name in names]

    def kind(self, kind: str, group: str) -> list[Case]:
        """Its group's default domain becomes of another kind."""
        name = f"{self.placed.master.name}_becomes_{kind}"
        return [self.checked(Case(name, "becomes", (device_name(self.placed), group), self.first))]

    def checked(self, case: Case) -> Case:
        return replace(case, function="cannot", arguments=(self.lacking,)) if self.lacking else case


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


def with_needed(chosen: Iterable[str], every: Sequence[Case]) -> tuple[Case, ...]:
    """Of ``every`` case those that are chosen, and those that must precede them; insertions of modules always do."""
    names = {each.name for each in every if each is LOADS or each.function == "own_module"}
    by_name = {each.name: each for each in every}
    waiting = list(chosen)
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += filter(None, [by_name[name].needs])
    return tuple(each for each in every if each.name in names)


def parameters(chosen: Iterable[Case]) -> dict[str, str]:
    """Files of /etc/vt."""
    return {"cases": "".join(f"{case}\n" for case in chosen)}


def live() -> dict[str, str]:
    """The same of a guest that does what it is asked while it runs."""
    return {"live": AGENT_PORT}
