# SPDX-License-Identifier: Apache-2.0
"""Masters that are wrong on purpose: what their transactions come to, with the core and without, and that no byte moves
where the SMMU has said no.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.smmu_builder import RAM_BASE, Bench
from vhost_iommu.errors import UsageError
from vhost_iommu.lab.faults import Fault, Lab, injection
from vhost_iommu.lab.faults.injection import Injection
from vhost_iommu.lab.faults.kinds import FAULTS
from vhost_iommu.lab.faults.lab import Astray
from vhost_iommu.masters.atc import Atc, AtsUser
from vhost_iommu.masters.engine import TestEngine
from vhost_iommu.masters.port import Abort, Attributes, Port, Stray
from vhost_iommu.smmu.transaction import Transaction
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, GERROR, CommandError
from vhost_iommu.watch import Noted, Watch, Watches

IOVA, PA, SIZE = 0x1000, RAM_BASE + 0x10_0000, 0x1000
BEFORE = bytes(range(256)) * 16


@pytest.fixture(params=["reference", "core"])
def pure(request: pytest.FixtureRequest) -> bool:
    if request.param == "core":
        request.getfixturevalue("core_is_built")
    return bool(request.param == "reference")


class World:
    """A master of which something is wrong, behind an SMMU that has mapped a page for it; what is to be done later."""

    def __init__(self, fault: str, pure: bool, ats: bool = False) -> None:
        self.bench = Bench({"substream_id_bits": 4, "ats": ats}, pure=pure)
        self.table = self.bench.stream(EATS=1) if ats else self.bench.stream()
        self.table.map(IOVA, PA)
        self.bench.ram.put(PA, BEFORE)
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.lab = Lab([Fault.parse(fault)], later=lambda seconds, call: self.later.append((seconds, call)))
        self.port = Port("m", self.bench.ram.memory, self.bench.smmu, [0])
        self.stray = Stray(self.port)
        self.wrong = self.lab.master("m", self.stray)
        self.port.rewrite, self.port.on_reset = self.wrong.rewrite, self.wrong.on_reset

    @property
    def struck(self) -> int:
        return self.lab.account()[0][2]

    @property
    def events(self) -> list[str]:
        return [type(event).__name__ for event in self.bench.events()]

    @property
    def memory(self) -> bytes:
        return self.bench.ram.get(PA, SIZE)

    def unmap(self) -> None:
        self.table.unmap(IOVA)
        self.bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0), c.CMD_SYNC.of())

    def pass_time(self) -> float:
        seconds, call = self.later.pop(0)
        call()
        return seconds


@pytest.mark.parametrize("fault", ["wrong-stream sid=9", "wrong-stream ssid=3", "wrong-address"])
def test_what_goes_astray_moves_no_byte(fault: str, pure: bool) -> None:
    world = World(fault, pure)
    assert isinstance(world.port.write(IOVA, bytes(SIZE)), Abort)
    assert (world.memory, world.port.bytes_written, len(world.events)) == (BEFORE, 0, 1)
    assert world.port.write(IOVA, bytes(SIZE)) is None
    assert world.memory == bytes(SIZE)


def test_a_stale_write_of_what_is_unmapped_is_a_fault_and_moves_no_byte(pure: bool) -> None:
    world = World("stale-dma seconds=0.5 least=64", pure)
    world.port.write(IOVA, b"short")
    assert world.later == []
    world.port.write(IOVA, BEFORE)
    world.unmap()
    assert (world.struck, world.pass_time()) == (0, 0.5), "it has struck once it is made"
    assert (world.struck, world.events, world.stray.moved, world.memory) == (1, ["F_TRANSLATION"], 0, BEFORE)


def test_a_stale_write_of_what_is_mapped_does_what_is_to_be_feared(pure: bool) -> None:
    world = World("stale-dma", pure)
    world.port.write(IOVA, BEFORE)
    world.pass_time()
    assert (world.stray.moved, world.memory, world.events) == (SIZE, b"\x5a" * SIZE, [])


def test_a_stale_access_comes_as_often_as_it_was_asked_for(pure: bool) -> None:
    world = World("stale-dma seconds=0.25 times=3", pure)
    world.port.read(IOVA, SIZE)
    assert [world.pass_time() for _ in range(3)] == [0.25] * 3
    assert (world.later, world.struck, world.stray.port.bytes_read) == ([], 3, 3 * SIZE)


def test_a_stale_access_without_end_leaves_others_their_time(pure: bool) -> None:
    world = World("stale-dma seconds=0 times=0", pure)
    world.port.read(IOVA, SIZE)
    for _ in range(100):
        assert world.pass_time() > 0
    assert len(world.later) == 1


def test_after_a_reset_the_last_transaction_is_made_again(pure: bool) -> None:
    world = World("dma-after-reset", pure)
    engine = TestEngine("m", world.port)
    engine.reset()
    assert world.later == [], "there was none before"
    world.port.write(IOVA, BEFORE)
    world.unmap()
    engine.reset()
    world.pass_time()
    assert (world.struck, world.events, world.stray.moved, world.memory) == (1, ["F_TRANSLATION"], 0, BEFORE)


# -- the ATC -------------------------------------------------------------------------------------------------------


class Cached(World):
    """The page is in the master's ATC, and no longer mapped; its invalidation is wrong."""

    def __init__(self, fault: str, pure: bool) -> None:
        super().__init__(fault, pure, ats=True)
        self.atc = Atc("m", self.bench.smmu, [0])
        self.port.atc = self.atc
        self.atc.invalidation = self.wrong.invalidation
        assert self.reads()
        self.unmap()
        self.bench.submit(c.CMD_ATC_INV.of(SID=0, Size=52), c.CMD_SYNC.of())

    def reads(self) -> bool:
        return self.port.read(IOVA, 8, Attributes(ats=AtsUser())) == BEFORE[:8]

    @property
    def synced(self) -> bool:
        return self.bench[CMDQ_CONS].RD == self.bench[CMDQ_PROD].WR


def test_a_late_answer_holds_up_a_sync_and_the_entry_stays_in_use(pure: bool) -> None:
    world = Cached("atc-invalidation answer=late seconds=3", pure)
    assert (world.synced, world.reads(), world.atc.held, world.struck) == (False, True, 1, 1)
    assert world.pass_time() == 3
    assert (world.synced, world.reads(), world.atc.held) == (True, False, 0)


def test_a_held_answer_comes_with_the_masters_reset(pure: bool) -> None:
    world = Cached("atc-invalidation answer=held", pure)
    assert (world.synced, world.reads(), world.later) == (False, True, [])
    world.atc.reset()
    assert (world.synced, world.reads()) == (True, False)


def test_an_answer_after_the_smmus_reset_is_nothing_to_it(pure: bool) -> None:
    world = Cached("atc-invalidation answer=late", pure)
    world.bench.smmu.reset()
    world.pass_time()
    assert (world.atc.held, len(world.atc)) == (0, 0)


def test_a_time_out_is_cerror_atc_inv_sync_and_the_entry_stays_in_use(pure: bool) -> None:
    world = Cached("atc-invalidation answer=time-out", pure)
    assert world.bench[CMDQ_CONS].ERR == CommandError.CERROR_ATC_INV_SYNC
    assert world.bench.active_errors == GERROR.CMDQ_ERR.mask
    assert world.reads()
    world.bench.acknowledge()
    assert world.synced


def test_no_more_invalidations_are_held_than_a_queue_takes(pure: bool) -> None:
    world = Cached("atc-invalidation answer=held count=0", pure)
    for _ in range(40):
        world.bench.smmu.ats.invalidate(0, None, 0, 52, everywhere=False)
    assert world.atc.held == 32
    assert world.bench.smmu.ats.timed_out


def test_a_transaction_carries_all_else_that_it_had(pure: bool) -> None:
    world = World("stale-dma least=1", pure)
    asked: list[Transaction] = []
    seen: list[Transaction] = []
    rewrite = world.wrong.rewrite
    assert rewrite is not None

    def noted(transaction: Transaction) -> Transaction:
        asked.append(transaction)
        return rewrite(transaction)

    def strayed(transaction: Transaction) -> Transaction:
        seen.append(transaction)
        return transaction

    world.port.rewrite = noted
    world.port.read(IOVA, 8, Attributes(privileged=True))
    world.stray.port.rewrite = strayed
    world.pass_time()
    assert seen == [dataclasses.replace(asked[0])]


# -- while the machine runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["stale-dma times=0", "dma-after-reset", "wrong-stream sid=9"])
def test_a_masters_fault_that_is_taken_back_strikes_no_more(fault: str, pure: bool) -> None:
    world = World(fault, pure)
    engine = TestEngine("m", world.port)
    if "wrong" not in fault:
        world.port.write(IOVA, BEFORE)
        engine.reset()
    world.lab.disarm(world.lab.injection(0))
    for _, call in world.later:
        call()
    assert world.port.write(IOVA, bytes(SIZE)) is None
    engine.reset()
    assert (world.struck, world.stray.moved, len(world.later)) == (0, 0, 0 if "wrong" in fault else 1)


@pytest.mark.parametrize("fault", ["slow-daemon", "dead-daemon"])
def test_what_must_be_there_from_the_begin_is_refused_later(fault: str) -> None:
    lab = Lab(later=lambda seconds, call: None)
    Bench(seams=lab.seams("smmu0"))
    with pytest.raises(UsageError, match="cannot begin while the machine runs"):
        lab.arm(Fault.parse(fault))


@pytest.mark.parametrize("fault", ["wrong-stream sid=9", "wrong-address", "stale-dma", "dma-after-reset"])
def test_a_master_goes_astray_while_it_is_at_work_until_that_is_over(fault: str, pure: bool) -> None:
    world = World("wrong-address after=1000", pure)
    engine = TestEngine("m", world.port)

    def befall(wrong: Astray) -> None:
        world.port.rewrite, world.port.on_reset = wrong.rewrite, wrong.on_reset

    world.lab.master("m", world.stray, befall=befall)
    assert world.port.write(IOVA, BEFORE) is None
    with world.lab.armed(Fault.parse(f"{fault} count=0")) as injection:
        found = world.port.write(IOVA, BEFORE)
        engine.reset()
        for _, call in world.later:
            call()
        assert (injection.struck, isinstance(found, Abort)) == (1, "wrong" in fault)
    assert world.port.write(IOVA, BEFORE) is None
    engine.reset()
    assert injection.struck == 1
    assert world.lab.account()[0][2] == 0, "what was there before is there still"


def test_a_master_that_is_not_there_is_named() -> None:
    lab = Lab(later=lambda seconds, call: None)
    with pytest.raises(UsageError, match="'master' is 'disk9'; the machine has none"):
        lab.arm(Fault.parse("stale-dma master=disk9"))


def _of_each_kind() -> Iterator[str]:
    for name, kind in FAULTS.items():
        fault = next(iter([*(each.fault for each in kind.LINUX), *(each.fault for each in kind.BARE)]))
        yield f"{name} {fault}"


@pytest.mark.parametrize("fault", list(_of_each_kind()))
def test_each_fault_says_in_log_and_watch_when_it_struck(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    asked = Fault.parse(fault)
    watches = Watches()
    watches.add(Watch("here"), "here")
    lab = Lab(later=lambda seconds, call: None, watches=watches)
    injection = FAULTS[asked.kind](asked, lab, "here", **asked.parameters)
    with watches.recording() as seen:
        for _ in range(asked.after):
            assert not injection.strikes("a chance that passes")
        assert caplog.records == []
        assert injection.strikes("its chance")
    assert f"here: {asked.kind} struck" in caplog.text
    assert caplog.text.rstrip().endswith("its chance")
    assert [(each.name, each.fields["what"]) for each in seen.of(Noted)] == [(asked.kind, "its chance")]


def test_no_fault_counts_a_strike_that_it_does_not_tell() -> None:
    package = Path(injection.__file__).parent
    counts = [
        (each.name, line.strip())
        for each in package.glob("*.py")
        for line in each.read_text().splitlines()
        if "struck +=" in line or "struck =" in line
    ]
    assert counts == [("injection.py", "self.struck += 1")]
    for kind in FAULTS.values():
        assert kind.strike is Injection.strike
        assert kind.strikes is Injection.strikes
        source = Path(sys.modules[kind.__module__].__file__ or "").read_text()
        assert re.search(r"self\.strikes?\(", source)


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "86401", "1e300"])
def test_a_time_that_no_clock_takes_is_refused(seconds: str) -> None:
    with pytest.raises(UsageError, match=r"'seconds' is .*; it is a number, 0 to 86400"):
        Fault.parse(f"stale-dma seconds={seconds}")
