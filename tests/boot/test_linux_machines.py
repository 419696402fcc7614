# SPDX-License-Identifier: Apache-2.0
"""Machines that a stock kernel uses as servers are used: many CPUs and queues, many PASIDs, several masters at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.boot.guests import Run, Way, all_passed
from tests.boot.linux import Boot, both_tell_the_same, bytes_are_the_same_on_both_sides
from tests.conftest import need_kernel
from vhost_iommu.config import load_machine, parse_machine
from vhost_iommu.guest import kmod
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Wishes
from vhost_iommu.guest.mapping import platform_of
from vhost_iommu.machine import Machine
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3.registers import CR0, STRTAB_BASE, STRTAB_BASE_CFG
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
        if line.startswith("ok ") and (case := line.split()[2]) in ("disk0_is_behind_smmu0", "each_cpu_works"):
            served[case] = disk.completed

    run = Run(assets, parse_machine(FOUR_QUEUES), Wishes(own_cases=(f"each_cpu_works={EACH_CPU}",)), way, on_line)
    all_passed(run.report)
    assert {fact["number"]: fact["cpus"] for fact in run.ktap.facts("queue")} == {str(n): str(n) for n in range(CPUS)}
    assert len(served) == 2
    for before, after in zip(served["disk0_is_behind_smmu0"], served["each_cpu_works"], strict=True):
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


# -- an SMMU that is taken from its driver, and given back ------------------------------------------------------------

#: The first one is away while the second one's disk is read, all the time, and what is read is as before.
AWAY = """
p=/sys/module/vt_away/parameters/device; b=/sys/bus/platform/drivers
sum() {{ dd if=$1 bs=64k iflag=direct 2>/dev/null | sha256sum; }}
own=$(sum /dev/vda); other=$(sum /dev/vdb); d=$(basename $(readlink -f /sys/block/vda/device/..))
(while [ ! -e /tmp/stop ]; do [ "$(sum /dev/vdb)" = "$other" ] || exit 1; echo >>/tmp/rounds; done) & load=$!
count() {{ wc -l </tmp/rounds; }}
rounds() {{ end=$(($(count) + 3)); while [ $(count) -lt $end ]; do kill -0 $load || exit 1; done; }}
touch /tmp/rounds; rounds
echo $d >$b/virtio-mmio/unbind && echo {smmu} >$p || exit 1
[ ! -e $b/arm-smmu-v3/{smmu} ] || exit 1
rounds; echo "# away device=$(cat $p)"
echo >$p && [ -e $b/arm-smmu-v3/{smmu} ] || exit 1
rounds; touch /tmp/stop; wait $load || exit 1
echo $d >$b/virtio-mmio/bind && [ "$(sum /dev/vda)" = "$own" ]
"""


@pytest.mark.parametrize("way", [Way.USERS, Way.TRACED])
def test_an_smmu_is_taken_from_its_driver_and_given_back_while_another_works(
    assets: Assets, tmp_path: Path, way: Way
) -> None:
    config = parse_machine(
        load_machine("two-smmus").path.read_text().replace("16M", "2M").replace("8M", "2M")
        + "".join(
            f'[[master]]\nname = "engine{n}"\nkind = "engine"\nsmmu = "smmu{n}"\nstream_ids = [0x30]\n' for n in (0, 1)
        )
    )
    smmu = f"{next(iter(platform_of(config).smmus))[1].base:x}.iommu"
    case = "; ".join(AWAY.format(smmu=smmu).strip().splitlines())
    module = tmp_path / "vt_away.ko"
    shutil.copy(kmod.Modules(assets, assets.headers("6.12")).module(module.stem), module)
    boot = Boot(assets, config, Wishes(modules=(module,), own_cases=(f"smmu0_is_given_back={case}",)), way)
    all_passed(boot.report)
    assert boot.ktap.facts("away") == [{"device": smmu}]
    # Engines behind both have worked before, and work after it.
    bytes_are_the_same_on_both_sides(boot)
    if way is Way.TRACED:
        enables = [
            (index, CR0(int(record.args["value"])).SMMUEN)
            for index, record in enumerate(boot.trace.records)
            if (record.track, record.name) == ("smmu0", "write CR0")
        ]
        on = [index for index, enabled in enables if enabled]
        assert len(on) == 2, "once for each time that the driver was bound"
        off = next(index for index, enabled in enables if index > on[0] and not enabled)
        outcomes = {
            (record.track, record.args["outcome"])
            for record in boot.trace.records[off : on[1]]
            if record.kind == "translation"
        }
        assert outcomes == {("smmu1", "ok")}, "all that was translated while the first was off"


# -- several engines behind one SMMU --------------------------------------------------------------------------------

TWO_ENGINES = """
[guest]
kind = "linux"
smp = 2
[[smmu]]
name = "smmu0"
[[master]]
name = "engine0"
kind = "engine"
smmu = "smmu0"
stream_ids = [0x30]
[[master]]
name = "engine1"
kind = "engine"
smmu = "smmu0"
stream_ids = [0x31]
"""


@pytest.mark.parametrize("way", [Way.USERS, Way.TRACED])
def test_two_engines_behind_one_smmu_work_at_once(assets: Assets, way: Way) -> None:
    boot = Boot(assets, parse_machine(TWO_ENGINES), None, way)
    all_passed(boot.report)
    (met,) = boot.facts("engines_copy_at_once", "met")
    assert (met["engines"], met["times"]) == (2, 4)
    first, second = boot.facts("engines_share_an_address", "wrote")
    assert first["iova"] == second["iova"]
    assert first["pa"] != second["pa"]
    if way is Way.TRACED:
        both_tell_the_same(boot)
        assert {each.args["sid"] for each in boot.trace.records if each.kind == "translation"} == {0x30, 0x31}
    else:
        bytes_are_the_same_on_both_sides(boot)
