# SPDX-License-Identifier: Apache-2.0
"""A crash with DMA in flight: a stock capture kernel takes over, and what the SMMU sees from first to last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.boot.guests import Run
from tests.conftest import missing, need_kernel
from vhost_iommu.config import load_machine
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import kdump
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Wishes
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.lab.faults import Fault
from vhost_iommu.machine import Machine
from vhost_iommu.smmu.v3.registers import CR0ACK, EVENTQ_PROD, GBPA

#: A word of the disk's ring, which stays mapped, is read for as long as the daemon runs.
ROGUE = Fault("stale-dma", master="disk0", least=1, seconds=0.02, times=0)
SCRIPT = """
[ -e /proc/vmcore ] && echo "kdump: there is a vmcore"
ls /sys/class/iommu | sed 's/^/kdump: /'
sleep 1
"""
#: What the driver says before it resets an SMMU that is on.
TAKES_OVER = "SMMU currently enabled! Resetting..."


@dataclass(frozen=True)
class Seen:
    """What the SMMU and the rogue had seen when a line of the console came."""

    line: str
    transactions: int
    moved: int
    aborts: int
    events: int
    recording: int  #: CR0ACK.EVENTQEN
    event_prod: int
    gbpa_aborts: int


def seen(machine: Machine, line: str) -> Seen:
    stray, smmu = machine.strays["disk0"], machine.smmus["smmu0"]
    return Seen(
        line,
        stray.port.transactions,
        stray.moved,
        stray.port.aborts,
        smmu.counters.events,
        smmu.registers[CR0ACK].EVENTQEN,
        smmu.registers[EVENTQ_PROD].WR,
        smmu.registers[GBPA].ABORT,
    )


@pytest.fixture(scope="module")
def run(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[Seen]]:
    need_kernel(assets, "6.12")
    extra: Path = tmp_path_factory.mktemp("kdump") / "extra.cpio"
    try:
        extra.write_bytes(kdump.archive(assets, assets.kernel("6.12"), SCRIPT))
    except UsageError as why:
        missing(str(why))
    machine = load_machine("smmuv3-linux")
    machine = replace(machine, guest=replace(machine.guest, memory=kdump.MEMORY))
    wishes = Wishes(
        append=kdump.APPEND, initrd_extra=(extra,), own_cases=(kdump.CASE,), cases=("crashes",), success=kdump.ENDS,
        faults=(ROGUE,), timeout=300,
    )  # fmt: skip
    lines: list[Seen] = []
    return Run(assets, machine, wishes, on_line=lambda made, line: lines.append(seen(made, line))), lines


def at(lines: list[Seen], text: str) -> Seen:
    return next(each for each in lines if text in each.line)


def test_the_capture_kernel_takes_over_and_has_its_smmu(run: tuple[Run, list[Seen]]) -> None:
    booted, lines = run
    assert booted.report.verdict is Verdict.PASSED, (booted.report.why, booted.report.folder)
    for text in (TAKES_OVER, kdump.BEGINS, "kdump: there is a vmcore", "kdump: smmu3.0x"):
        assert at(lines, text)


def test_dma_goes_on_by_the_tables_of_the_kernel_that_crashed_until_the_capture_kernel_resets_the_smmu(
    run: tuple[Run, list[Seen]],
) -> None:
    _, lines = run
    first = at(lines, "KTAP version")
    crossed, before = (
        [each for each in lines if text in each.line][-1]
        for text in ("Booting Linux on physical CPU", "Default domain type")  # the latter while no driver is there yet
    )
    assert first.moved <= crossed.moved < before.moved, "bytes move after the crash, too"
    assert (before.aborts, before.gbpa_aborts, before.recording) == (0, 0, 1)


def test_from_then_on_each_access_is_aborted_and_no_event_is_recorded(run: tuple[Run, list[Seen]]) -> None:
    booted, lines = run
    here, done = at(lines, kdump.BEGINS), at(lines, kdump.ENDS)
    made, aborted = done.transactions - here.transactions, done.aborts - here.aborts
    assert made > 10
    assert here.gbpa_aborts == 1, "nothing passed between the two tables, either"
    assert done.moved == here.moved, "no byte moves"
    assert abs(aborted - made) <= 1, "one may be under way when a line comes"
    assert (done.recording, done.events, done.event_prod) == (0, here.events, 0)
    assert [fault.struck > 10 for fault in booted.report.account.faults] == [True]
