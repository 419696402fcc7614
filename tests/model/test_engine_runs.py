# SPDX-License-Identifier: Apache-2.0
"""Runs of the engine's transfers, in one call of the core: nobody can tell them from transfers one by one.

The law of all: memory, the frame's registers, events, and what the port and the SMMU count are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.smmu_builder import RAM_BASE, Bench, Ram
from vhost_iommu.layout import Register
from vhost_iommu.masters.engine import (
    EXTENSION_REGISTERS,
    FRAME,
    USER_REGISTERS,
    Cmd,
    ExtensionFrame,
    TestEngine,
    UserFrame,
)
from vhost_iommu.masters.port import Attributes, Port
from vhost_iommu.smmu.transaction import Run
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import F_PERMISSION, F_TRANSLATION, Event

pytestmark = pytest.mark.usefixtures("core_is_built")

SID = 5
IOVA = 0x12_3456_7000
PAGES = 40  # of the engine's IOVAs, 4 KiB each
SPAN = PAGES << 12
DATA = RAM_BASE + (1 << 20)


class Watched(Port):
    """A port that keeps account of its runs, or makes none."""

    OPEN = Port.OPEN | {"runs", "moved"}
    runs: bool
    moved = 0

    def copy(self, *args: Any, **kwargs: Any) -> Run | None:
        return self._account(super().copy(*args, **kwargs) if self.runs else None)

    def sum64(self, *args: Any, **kwargs: Any) -> Run | None:
        return self._account(super().sum64(*args, **kwargs) if self.runs else None)

    def fill(self, *args: Any, **kwargs: Any) -> Run | None:
        return self._account(super().fill(*args, **kwargs) if self.runs else None)

    def _account(self, run: Run | None) -> Run | None:
        self.moved += 0 if run is None else run.done
        return run


@dataclass(frozen=True)
class World:
    """What the pages of the engine map to, as (page of memory, or none, or none that there is; whether read-only)."""

    pages: tuple[tuple[int | None, bool], ...]
    stalls: bool = False
    resumed: int = 0  #: of a stall's ends: 0 retry after mapping the page, 1 abort, 2 silently
    known: bool = True  #: requests find the stream's context from the first one on

    def table(self) -> dict[int, tuple[int, bool]]:
        return {at: (page, only) for at, (page, only) in enumerate(self.pages) if page is not None}


class Machine:
    """An engine behind an SMMU with the core; ``runs``: in runs, or transfer by transfer."""

    def __init__(self, world: World, *, runs: bool) -> None:
        self.world = world
        ram = Ram(size=(1 << 20) + SPAN)
        self.bench = Bench({"stall_model": "both"}, ram=ram, pure=False)
        self.table = self.bench.stream(SID, cd={"A": 1, "R": 1, "S": int(world.stalls)})
        for at, (page, only) in world.table().items():
            self.table.map(IOVA + (at << 12), DATA + (page << 12), AP=3 if only else 1)
        ram.put(DATA, Random(3).randbytes(SPAN))
        if world.known:
            self.bench.know(SID)
        self.port = Watched("engine", ram.memory, self.bench.smmu, (SID,))
        self.port.runs = runs
        self.engine = TestEngine("engine", self.port, frames=2)

    def store(self, register: type[Register], value: int, index: int = 0, frame: int = 0) -> None:
        base = self.engine.extension if register in EXTENSION_REGISTERS else 0
        self.engine.write(base + FRAME * frame + register.at + 8 * index, register.size, value)

    def load(self, register: type[Register], index: int = 0, frame: int = 0) -> int:
        base = self.engine.extension if register in EXTENSION_REGISTERS else 0
        return self.engine.read(base + FRAME * frame + register.at + 8 * index, register.size)

    def start(self, cmd: Cmd, begin: int, end_incl: int, to: int, *, stride: int = 1, seed: int = 0) -> None:
        self.store(UserFrame.begin, begin)
        self.store(UserFrame.end_incl, end_incl)
        self.store(UserFrame.stride, stride)
        self.store(UserFrame.seed, seed)
        self.store(UserFrame.udata, to)
        self.store(UserFrame.cmd, cmd)

    def warm(self) -> None:
        """Have the TLB have each page that there is, in order."""
        for page in self.world.table():
            self.port.read(IOVA + (page << 12), 8, Attributes(SID))
        self.bench.events()

    def finish(self) -> list[Event]:
        """Answer stalls until the command ends; all events that came."""
        found = []
        while new := self.bench.events():
            found += new
            for event in new:
                if not isinstance(event, F_TRANSLATION | F_PERMISSION) or not event.STALL:
                    continue
                if self.world.resumed == 0:
                    page = event.InputAddr - IOVA >> 12
                    self.table.map(IOVA + (page << 12), DATA + (page << 12))
                    self.bench.submit(c.CMD_TLBI_NH_ALL())
                how = ({"Ac": 1}, {"Ab": 1}, {"Ac": 0})[self.world.resumed]
                self.bench.submit(c.CMD_RESUME.of(SID=SID, STAG=event.STAG, **how))
        return found

    def outcome(self) -> object:
        """All that is to be the same."""
        events, port, smmu = self.finish(), self.port, self.bench.smmu
        frames = [
            self.load(register, index)
            for register in (*USER_REGISTERS, *EXTENSION_REGISTERS)
            for index in range(register.count or 1)
        ]
        counts = port.transactions, port.bytes_read, port.bytes_written, port.stalls, port.aborts
        counters, contexts = smmu.counters, smmu.configuration
        counted = counters.transactions, counters.translations, counters.walks, contexts.hits, contexts.misses
        return self.bench.ram.get(DATA, SPAN), frames, events, counts, counted, asdict(smmu.tlb.counters)


def twins(world: World, start: Callable[[Machine], None]) -> Machine:
    """The machine with runs, after both had the same."""
    machines = [Machine(world, runs=runs) for runs in (True, False)]
    outcomes = []
    for machine in machines:
        start(machine)
        outcomes.append(machine.outcome())
    assert outcomes[0] == outcomes[1]
    return machines[0]


WHOLE = World(tuple((page, False) for page in range(PAGES)))
offsets = st.integers(0, SPAN - 1) | st.integers(0, PAGES - 1).map(lambda page: page << 12)
pages = st.tuples(
    st.one_of(st.integers(0, PAGES - 1), st.integers(0, PAGES - 1), st.none(), st.just(1 << 20)), st.just(False)
) | st.tuples(st.integers(0, PAGES - 1), st.booleans())
mostly_whole = st.dictionaries(st.integers(0, PAGES - 1), pages, max_size=4).map(
    lambda bad: tuple(bad.get(page, (page, False)) for page in range(PAGES))
)
worlds = st.builds(World, mostly_whole, st.booleans(), st.integers(0, 2), st.booleans())


@settings(max_examples=150, deadline=None)
@given(
    world=worlds,
    cmd=st.sampled_from([Cmd.MEMCPY, Cmd.RAND48, Cmd.SUM64]),
    begin=offsets,
    size=st.integers(1, SPAN),
    to=offsets,
    whole_words=st.booleans(),
    stride=st.sampled_from([1, 1, 1, 1, 8, 4096, 0x3008]),
    seed=st.sampled_from([0, 0, 0, 0xFFFFFFFF, 77]),
    inflight=st.sampled_from([1, 1, 3]),
    warm=st.booleans(),
)
def test_a_run_is_what_its_transfers_are(
    world: World,
    cmd: Cmd,
    begin: int,
    size: int,
    to: int,
    whole_words: bool,
    stride: int,
    seed: int,
    inflight: int,
    warm: bool,
) -> None:
    if whole_words or cmd is Cmd.SUM64:
        begin, size = begin & ~7, -(-size // 8) * 8
    size = min(size, SPAN - begin, SPAN - to if cmd is Cmd.MEMCPY else SPAN)
    if cmd is Cmd.SUM64:
        size = max(8, size & ~7)

    def start(machine: Machine) -> None:
        if warm:
            machine.warm()
        machine.store(ExtensionFrame.inflight, inflight)
        machine.start(cmd, IOVA + begin, IOVA + begin + max(size, 1) - 1, IOVA + to, stride=stride, seed=seed)

    twins(world, start)


@pytest.mark.parametrize("cmd", [Cmd.MEMCPY, Cmd.RAND48, Cmd.SUM64])
def test_ascending_transfers_are_done_in_runs(cmd: Cmd) -> None:
    size = SPAN // 2 - 0x1234 if cmd is not Cmd.SUM64 else SPAN // 2
    first = 0x1234 - 0x234 * (cmd is Cmd.SUM64)
    machine = twins(WHOLE, lambda m: m.start(cmd, IOVA + first, IOVA + size - 1, IOVA + SPAN // 2 + 0x777))
    assert machine.load(UserFrame.cmd) == Cmd.HALTED
    assert machine.port.moved == size - first


@pytest.mark.parametrize(("stride", "seed"), [(1, 0xFFFFFFFF), (1, 9), (8, 0)])
def test_what_is_in_another_order_is_done_one_by_one(stride: int, seed: int) -> None:
    machine = twins(WHOLE, lambda m: m.start(Cmd.MEMCPY, IOVA, IOVA + 0x7FFF, IOVA + 0x9000, stride=stride, seed=seed))
    assert machine.port.moved == 0


@pytest.mark.parametrize("shift", [-0x1800, -0x800, -8, -1, 1, 8, 0x800, 0x1000, 0x1800])
def test_a_copy_onto_itself_is_one_of_bursts(shift: int) -> None:
    begin = IOVA + 0x2000
    machine = twins(WHOLE, lambda m: m.start(Cmd.MEMCPY, begin, begin + 0x7FFF, begin + shift))
    assert machine.port.moved == 0x8000


def test_a_burst_is_read_whole_before_it_is_written_whatever_its_pages_are() -> None:
    """The target's first page is the source's, so that the burst's first part overwrites what the second one reads."""
    world = World(tuple((page if page != 9 else 0, False) for page in range(PAGES)))
    machine = twins(world, lambda m: m.start(Cmd.MEMCPY, IOVA, IOVA + 0x1FFF, IOVA + (9 << 12) + 0x400))
    assert machine.port.moved == 0x2000


@pytest.mark.parametrize("cmd", [Cmd.MEMCPY, Cmd.RAND48, Cmd.SUM64])
def test_a_fault_in_the_middle_is_told_to_the_byte(cmd: Cmd) -> None:
    world = World(tuple((None if page == 23 else page, False) for page in range(PAGES)))
    to = IOVA + 0x80 if cmd is Cmd.MEMCPY else 0
    machine = twins(world, lambda m: m.start(cmd, IOVA + (3 << 12), IOVA + SPAN - 1, to))
    assert machine.load(UserFrame.cmd) == Cmd.ERROR
    assert machine.load(UserFrame.udata, 2) == IOVA + (23 << 12)
    assert machine.port.moved == 20 << 12


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("offset", [0, 0x80])
def test_a_write_that_faults_in_the_middle_is_told_once(warm: bool, offset: int) -> None:
    world = World(tuple((None if page == 25 else page, False) for page in range(PAGES)))

    def start(machine: Machine) -> None:
        if warm:
            machine.warm()
        machine.start(Cmd.MEMCPY, IOVA, IOVA + (16 << 12) - 1, IOVA + (20 << 12) + offset)

    machine = twins(world, start)
    assert machine.load(UserFrame.cmd) == Cmd.ERROR


@pytest.mark.parametrize("outside", [3, 4, 23, 24, 25, 26])
def test_pages_that_the_tlb_has_are_copied_up_to_one_that_is_outside_of_ram(outside: int) -> None:
    world = World(tuple((1 << 20 if page == outside else page, False) for page in range(PAGES)))

    def start(machine: Machine) -> None:
        machine.warm()
        machine.start(Cmd.MEMCPY, IOVA, IOVA + (16 << 12) - 1, IOVA + (20 << 12))

    machine = twins(world, start)
    # What is written outside is posted.
    assert machine.load(UserFrame.cmd) == (Cmd.ERROR if outside < 16 else Cmd.HALTED)


def test_frames_have_their_turns_as_without_runs() -> None:
    """The longer command of frame 0 has not ended when frame 1's has, which began later and is as long as a turn."""
    machine = Machine(WHOLE, runs=True)
    machine.engine.wake = lambda: None
    machine.start(Cmd.SUM64, IOVA, IOVA + SPAN - 1, 0)
    for register, value in (UserFrame.begin, IOVA), (UserFrame.end_incl, IOVA + 0xFFFF), (UserFrame.stride, 1):
        machine.store(register, value, frame=1)
    machine.store(UserFrame.cmd, Cmd.SUM64, frame=1)
    ended: list[tuple[int, int]] = []
    machine.engine.interrupt = lambda: ended.append(
        (machine.load(UserFrame.cmd), machine.load(UserFrame.count_of_transactions_returned))
    )
    machine.engine.work()
    assert ended == [(Cmd.SUM64, 16), (Cmd.HALTED, PAGES)]


def test_transactions_that_no_smmu_supports_make_no_run() -> None:
    machine = Machine(WHOLE, runs=True)
    run = machine.port.copy(IOVA, IOVA + 0x2000, 0x2000, 4096)
    assert run is not None
    assert run.done == 0x2000
    assert machine.port.copy(IOVA, IOVA + 0x2000, 0x2000, 4096, Attributes(unsupported=True)) is None
