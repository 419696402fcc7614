# SPDX-License-Identifier: Apache-2.0
"""Linux's own driver of counter groups binds to ours, and counts what we have counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import need_kernel
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.build import Toolchain
from vhost_iommu.guest.live import Guest
from vhost_iommu.pytest_plugin import Bench
from vhost_iommu.smmu.v3.pmcg_registers import PMCG_EVCNTR, MonitorEvent

MACHINE = Path(__file__).parents[2] / "qemu-configs" / "smmuv3-pmu.toml"
#: config1: bit 33 has bits 31:0 filter, bit 32 as a span.
DISK, OTHER, SPAN = 0x100, 0x180, 1 << 32
FILTERED = 1 << 33


@pytest.fixture
def program(assets: Assets) -> Path:
    return Toolchain(assets).alone(Path(__file__).with_name("perf_count.c"))


def begin(guest: Guest, *events: tuple[MonitorEvent, int]) -> None:
    """Have perf count ``events``, each with its filter."""
    chosen = " ".join(f"{int(event):x}:{filters:x}" for event, filters in events)
    guest.run(
        "type=$(printf %x $(cat /sys/bus/event_source/devices/smmuv3_pmcg_*/type)); rm -f /tmp/go; mkfifo /tmp/go; "
        f"(/tmp/perf_count $type {chosen} </tmp/go >/tmp/counts &); (sleep 10000 >/tmp/go & echo $! >/tmp/holds); "
        "until grep -q counting /tmp/counts; do sleep 0.1; done"
    )


def end(guest: Guest) -> list[int]:
    """What it has counted."""
    line = "kill $(cat /tmp/holds); until [ $(wc -l </tmp/counts) = 2 ]; do sleep 0.1; done; tail -n 1 /tmp/counts"
    return [int(number) for number in guest.run(line).output.split()]


def counted(guest: Guest, work: str, *events: tuple[MonitorEvent, int]) -> list[int]:
    """What perf counts while the guest does ``work``."""
    begin(guest, *events)
    guest.run(work)
    return end(guest)


def interrupts(guest: Guest) -> int:
    """How many of the counters' the guest has taken."""
    (line,) = guest.run("grep smmuv3-pmu /proc/interrupts").output.splitlines()
    return int(line.split()[1])


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7"])
def test_the_stock_driver_counts_what_we_count(vhost_iommu: Bench, assets: Assets, program: Path, kernel: str) -> None:
    need_kernel(assets, kernel)
    every = [MonitorEvent(number) for number in range(1, 6)]
    with vhost_iommu.boot(MACHINE, kernel=kernel) as guest:
        assert "smmuv3_pmcg_10020" in guest.run("ls /sys/bus/event_source/devices").output
        guest.put(program.read_bytes(), "/tmp/perf_count")
        guest.run("chmod +x /tmp/perf_count")
        smmu = guest.machine.smmus["smmu0"]
        before = smmu.ledger.whole()
        read = "dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct"
        transactions, misses, _, accesses, _ = seen = counted(guest, read, *((event, 0) for event in every))
        done = smmu.ledger.whole().since(before)
        # Nothing but the two disks makes DMA, and neither is at work before or after.
        assert seen == list(done[:5])
        assert 256 <= misses <= transactions
        assert accesses >= 2 * misses
        disk, other, both, all_others = counted(
            guest,
            read,
            (MonitorEvent.TRANSACTION, FILTERED | DISK),
            (MonitorEvent.TRANSACTION, FILTERED | OTHER),
            (MonitorEvent.TRANSACTION, FILTERED | SPAN | 0x17F),
            (MonitorEvent.TRANSACTION, FILTERED | SPAN | 0x27F),
        )
        assert disk == both >= 256
        assert (other, all_others) == (0, 0)
        # A counter that passes its end interrupts, and the driver goes on from what it had counted until then. It
        # begins in the middle of its range, from where it takes until nobody waits, so it is put near the end.
        assert interrupts(guest) == 0
        begin(guest, (MonitorEvent.TRANSACTION, 0))
        group, near = smmu.counter_group, (1 << 64) - 8
        moved = near - group.registers.raw(PMCG_EVCNTR, 0)
        before = smmu.ledger.whole()
        group.write(PMCG_EVCNTR.at, 8, near)
        guest.run("dd if=/dev/vda of=/dev/null bs=64k count=1 iflag=direct")
        taken = "until [ $(awk '/smmuv3-pmu/ { print $2 }' /proc/interrupts) -ge 1 ]; do sleep 0.1; done"
        guest.run(taken)
        (passed,) = end(guest)
        done = smmu.ledger.whole().since(before)[0]
        assert done > 8
        # What comes between the driver's load of a counter and its store is lost, of any PMCG.
        assert 0 <= moved + done - passed < done - 8
        assert interrupts(guest) == 1
