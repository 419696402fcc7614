# SPDX-License-Identifier: Apache-2.0
"""Machines that a stock kernel uses as servers are used: many CPUs and queues, many PASIDs, several masters at once."""

from __future__ import annotations

import pytest

from tests.boot.guests import Run, Way, all_passed
from tests.boot.linux import Boot, both_tell_the_same, bytes_are_the_same_on_both_sides
from tests.conftest import need_kernel
from vhost_iommu.config import parse_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Wishes
from vhost_iommu.machine import Machine
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3.registers import STRTAB_BASE, STRTAB_BASE_CFG
from vhost_iommu.smmu.v3.structures import L1STD, STE, STE_CONFIG, S1Fmt


@pytest.fixture(autouse=True)
def kernel(assets: Assets) -> None:
    need_kernel(assets, "6.12")


# -- a disk with a queue for each CPU --------------------------------------------------------------------------------

CPUS = 4
FOUR_QUEUES = f"""
[guest]
kind = "linux"
smp = {CPUS}
[[smmu]]
name = "smmu0"
[[master]]
name = "disk0"
kind = "virtio-blk"
smmu = "smmu0"
stream_ids = [0x20]
size = "4M"
queues = {CPUS}
"""
#: Each CPU, all at once, writes a part of the disk and reads it again, past the page cache; /sys tells CPUs and queues.
EACH_CPU = (
    "w() { m=$((1 << $1)); dd if=/dev/urandom of=/tmp/w$1 bs=4096 count=64 2>/dev/null && "
    "taskset $m dd if=/tmp/w$1 of=/dev/vda bs=4096 seek=$((64 * $1)) oflag=direct conv=notrunc 2>/dev/null && "
    "taskset $m dd if=/dev/vda of=/tmp/r$1 bs=4096 skip=$((64 * $1)) count=64 iflag=direct 2>/dev/null && "
    "cmp /tmp/w$1 /tmp/r$1; }; "
    'for q in /sys/block/vda/mq/*; do echo "# queue number=${q##*/} cpus=$(cat $q/cpu_list)"; done; '
    'p=; for c in 0 1 2 3; do w $c & p="$p $!"; done; for each in $p; do wait $each || exit 1; done'
)


@pytest.mark.parametrize("way", [Way.USERS, Way.TRACED])
def test_each_queue_of_a_disk_serves_its_cpu(assets: Assets, way: Way) -> None:
    served: dict[str, tuple[int, ...]] = {}

    def on_line(machine: Machine, line: str) -> None:
        disk = machine.masters["disk0"]
        assert isinstance(disk, VirtioBlk)
        if line.startswith("ok ") and (case := line.split()[2]) in ("disk0_reads_back", "each_cpu_works"):
            served[case] = disk.completed

    run = Run(assets, parse_machine(FOUR_QUEUES), Wishes(own_cases=(f"each_cpu_works={EACH_CPU}",)), way, on_line)
    all_passed(run.report)
    assert {fact["number"]: fact["cpus"] for fact in run.ktap.facts("queue")} == {str(n): str(n) for n in range(CPUS)}
    assert len(served) == 2
    for before, after in zip(served["disk0_reads_back"], served["each_cpu_works"], strict=True):
        assert after - before & 0xFFFF >= 2 * 64, "its own CPU's writes and reads, page by page"


# -- more context descriptors than one table holds --------------------------------------------------------------------

MANY_PASIDS = """
[guest]
kind = "linux"
[[smmu]]
name = "smmu0"
substream_id_bits = 16
[[master]]
name = "engine0"
kind = "engine"
smmu = "smmu0"
stream_ids = [0x30]
pasid_bits = 16
"""


def stream_entry(smmu: Smmu, sid: int) -> STE:
    """The entry of a two-level stream table as it is now in the guest's memory."""
    split = smmu.registers[STRTAB_BASE_CFG].SPLIT
    level1 = smmu.memory.read(smmu.registers[STRTAB_BASE].ADDR + (sid >> split) * L1STD.size, L1STD.size)
    assert level1 is not None
    at = L1STD.from_bytes(level1).L2Ptr + (sid & (1 << split) - 1) * STE.size
    entry = smmu.memory.read(at, STE.size)
    assert entry is not None
    return STE.from_bytes(entry)


@pytest.mark.parametrize("way", [Way.USERS, Way.TRACED])
def test_a_driver_of_many_pasids_has_tables_of_two_levels(assets: Assets, way: Way) -> None:
    entries: list[STE] = []

    def on_line(machine: Machine, line: str) -> None:
        if line.startswith("ok ") and line.endswith("engine0_keeps_pasids_apart"):
            smmu = machine.smmus["smmu0"]
            assert isinstance(smmu, Smmu)
            entries.append(stream_entry(smmu, 0x30))

    boot = Boot(assets, parse_machine(MANY_PASIDS), None, way, on_line)
    all_passed(boot.report)
    (entry,) = entries
    assert (entry.V, entry.Config, entry.S1CDMax) == (1, STE_CONFIG.S1, 16), "more than 1024 context descriptors"
    assert entry.S1Fmt == S1Fmt.TWO_LEVEL_64K
    if way is Way.TRACED:
        both_tell_the_same(boot)
        beyond = boot.faults("engine0_strict_revokes_pasids")[-1]
        assert (beyond.name, beyond.args["SSID"]) == ("C_BAD_SUBSTREAMID", 1 << 16)
    else:
        bytes_are_the_same_on_both_sides(boot)
