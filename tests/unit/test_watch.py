# SPDX-License-Identifier: Apache-2.0
"""Who looks on at an instance: what is told, in which order, when there is room, and that looking changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.conftest import missing
from tests.smmu_builder import Bench, Ram
from vhost_iommu import _core
from vhost_iommu.masters.port import Abort, Port
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, CR0, IDR0
from vhost_iommu.watch import (
    ALL,
    RECORD,
    Accessed,
    Batch,
    Commanded,
    Dropped,
    Fetched,
    Filled,
    Found,
    Gap,
    Interrupted,
    Kind,
    Moved,
    Noted,
    Recording,
    Reported,
    Snapshot,
    Translated,
    Used,
    Value,
    Watch,
    Watcher,
)

SID = 3
IOVA = 0x40_0000


@pytest.fixture(params=["core", "reference"])
def pure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "core":
        if _core.built() is None:
            missing("the compiled core")
        monkeypatch.delenv(_core.PURE, raising=False)
    else:
        monkeypatch.setenv(_core.PURE, "1")
    return bool(request.param == "reference")


class World:
    """A port behind an SMMU of which a page is mapped."""

    def __init__(self, pages: int = 1, **options: Any) -> None:
        self.bench = Bench(**options)
        self.table = self.bench.stream(SID)
        self.data = self.bench.ram.alloc(0x1000 * pages)
        for page in range(pages):
            self.table.map(IOVA + 0x1000 * page, self.data + 0x1000 * page)
        self.port = Port("engine", self.bench.ram.memory, self.bench.smmu, (SID,))
        self.watch = self.bench.smmu.watch


@pytest.fixture
def world(pure: bool) -> World:
    return World()


@pytest.fixture
def pumped(monkeypatch: pytest.MonkeyPatch) -> World:
    """With a doorbell that is armed."""
    if _core.built() is None:
        missing("the compiled core")
    monkeypatch.delenv(_core.PURE, raising=False)
    made = World(pumped=True, interrupt=None)
    made.bench.invalidate()
    return made


def kinds(values: Iterable[Value]) -> list[str]:
    return [type(value).__name__ for value in values]


# -- what is told ----------------------------------------------------------------------------------------------------


def test_a_request_is_told_from_its_structures_to_its_bytes(world: World) -> None:
    with world.watch.recording() as seen:
        world.port.read(IOVA + 8, 16)
    assert kinds(seen) == ["Snapshot", "Fetched", "Fetched", "Filled", "Used", "Translated", "Moved"]
    ste, cd = seen.of(Fetched)
    assert (type(ste.structure).__name__, type(cd.structure).__name__, ste.sid) == ("STE", "CD", SID)
    (entry,) = seen.of(Filled)
    assert (entry.sid, entry.stage, entry.base, entry.shift, entry.output) == (SID, 1, IOVA, 12, world.data)
    assert entry.descriptor & ~0xFFF & (1 << 48) - 1 == world.data
    (used,) = seen.of(Used)
    assert (used.iova, used.size, used.pa, used.write) == (IOVA + 8, 16, world.data + 8, False)
    (translated,) = seen.translations
    assert (translated.pa, translated.outcome) == (world.data + 8, "ok")
    (moved,) = seen.of(Moved)
    assert (moved.who, moved.iova, moved.done, moved.why) == ("engine", IOVA + 8, 16, None)


def test_what_is_cached_is_used_and_not_filled_again(world: World) -> None:
    world.port.read(IOVA, 1)
    world.port.read(IOVA, 1)  # from here on by the core alone, if there is one
    with world.watch.recording() as seen:
        world.port.write(IOVA + 4, b"1234")
    assert kinds(seen)[1:] == ["Used", "Translated", "Moved"]
    assert [each.write for each in seen.of(Moved)] == [True]


def test_many_pages_are_told_one_by_one(pure: bool) -> None:
    world = World(pages=40)
    world.port.read(IOVA, 1)
    with world.watch.recording() as seen:
        world.port.read(IOVA, 40 << 12)
    assert [each.iova for each in seen.of(Used)] == [IOVA + (page << 12) for page in range(40)]
    assert [each.pa for each in seen.of(Used)] == [world.data + (page << 12) for page in range(40)]
    entries = [(each.base, each.output, each.descriptor_at & 0xFFF) for each in seen.of(Filled)]
    expected = [(IOVA + (page << 12), world.data + (page << 12), 8 * page) for page in range(1, 40)]
    assert entries == expected
    held = {(m.base, m.output, m.descriptor, m.descriptor_at) for _, m in world.bench.smmu.tlb}
    told = {(each.base, each.output, each.descriptor, each.descriptor_at) for each in seen.of(Filled)}
    assert told <= held
    assert len(held) == 40


def test_what_a_run_copies_is_told_page_by_page(pumped: World) -> None:
    world = World(pages=64)
    world.bench.know(SID)
    for _ in range(2):
        world.port.copy(IOVA, IOVA + (32 << 12), 32 << 12, 4096)
    with world.watch.recording() as seen:
        world.port.copy(IOVA, IOVA + (32 << 12), 32 << 12, 4096)
    assert len(seen.of(Used)) == len(seen.translations) == len(seen.of(Moved)) == 64
    assert sorted(each.iova for each in seen.of(Moved)) == [IOVA + (page << 12) for page in range(64)]
    assert {each.iova for each in seen.of(Moved) if each.write} == {IOVA + (page << 12) for page in range(32, 64)}


def test_a_fault_is_told_with_its_record_and_how_the_transfer_ended(world: World) -> None:
    with world.watch.recording() as seen:
        assert isinstance(world.port.read(IOVA + 0xFFF, 2), Abort)
    (event,) = seen.events
    assert (type(event.record).__name__, event.kept) == ("F_TRANSLATION", True)
    (moved,) = seen.of(Moved)
    assert (moved.done, moved.why) == (1, "terminated")
    assert [each.outcome for each in seen.translations] == ["abort"]


def test_a_command_is_numbered_before_it_is_carried_out_and_a_sync_after(world: World) -> None:
    world.port.read(IOVA, 1)
    with world.watch.recording() as seen:
        world.bench.invalidate(c.CMD_TLBI_NH_VAA.of(Address=IOVA))
    commands = {type(each.command).__name__: each.number for each in seen.commands}
    (dropped,) = [each for each in seen.of(Dropped) if each.what == "TLB"]
    assert commands["CMD_TLBI_NH_VAA"] < dropped.number < commands["CMD_SYNC"]
    assert dropped.entries == 1
    assert {"start": IOVA, "vmid": 0, "asid": None}.items() <= dropped.scope.items()
    (stored,) = [each for each in seen.accesses if each.write]
    assert stored.register == "CMDQ_PROD"
    assert stored.number < commands["CMD_TLBI_NH_VAA"]


def test_configuration_that_is_dropped_is_told(world: World) -> None:
    world.port.read(IOVA, 1)
    world.port.read(IOVA, 1)
    with world.watch.recording() as seen:
        world.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID, Leaf=1))
        world.bench.translate(IOVA, 1, SID)
    dropped = [each for each in seen.of(Dropped) if each.what == "configuration" and each.entries]
    assert [dict(each.scope) for each in dropped] == [{"first": SID, "last": SID}]


def test_a_command_that_is_illegal_is_told_with_its_error(world: World) -> None:
    with world.watch.recording() as seen:
        world.bench.submit(0x7F)
    assert [(type(each.command).__name__, each.error) for each in seen.commands] == [("Command", "CERROR_ILL")]


# -- the pump's ways -------------------------------------------------------------------------------------------------


def test_a_write_that_the_doorbell_carries_out_is_told_with_what_follows(pumped: World) -> None:
    bench = pumped.bench
    assert bench.mirror is not None
    at = bench.ram.alloc(4)
    sync = c.CMD_SYNC.of(CS=c.CompletionSignal.SIG_IRQ, MSIAddress=at, MSIData=7)
    with pumped.watch.recording() as seen:
        assert bench.mirror.carry_out(CMDQ_PROD.at, bench.place(c.CMD_TLBI_NSNH_ALL.of(), sync))
    values = [value for value in seen if not isinstance(value, (Snapshot, Dropped))]
    assert [getattr(each, "write", True) for each in values if isinstance(each, Accessed)] == [False, True]
    assert kinds(values)[1:] == ["Accessed", "Commanded", "Commanded", "Interrupted"]
    (told,) = seen.interrupts
    assert (told.source, told.address, told.data) == ("cmdq-sync", at, 7)


def test_a_write_that_the_doorbell_begins_and_leaves_is_told_once(pumped: World) -> None:
    with pumped.watch.recording(Kind.ACCESSED | Kind.COMMAND) as seen:
        pumped.bench.submit(c.CMD_TLBI_NH_ALL.of(), c.CMD_PREFETCH_CONFIG.of(), c.CMD_SYNC.of())
    assert [each.register for each in seen.accesses if each.write] == ["CMDQ_PROD"]
    assert [type(each.command).__name__ for each in seen.commands] == [
        "CMD_TLBI_NH_ALL",
        "CMD_PREFETCH_CONFIG",
        "CMD_SYNC",
    ]
    assert [each.number for each in seen] == sorted(each.number for each in seen)


def test_a_read_that_the_mirror_answers_is_told(pumped: World) -> None:
    assert pumped.bench.mirror is not None
    with pumped.watch.recording() as seen:
        value = pumped.bench.mirror.load(IDR0.at, 4)
    assert [(each.register, each.size, each.value, each.write) for each in seen.accesses] == [("IDR0", 4, value, False)]


# -- looking changes nothing -----------------------------------------------------------------------------------------


def test_a_watched_instance_runs_the_same_code(pumped: World) -> None:
    bench = pumped.bench
    with pumped.watch.recording():
        for _ in range(3):
            pumped.port.read(IOVA, 64)
        bench.invalidate(c.CMD_TLBI_NH_ALL.of())
        assert bench.smmu.direct is bench.smmu.core
    assert bench.smmu.counters.by_doorbell()[1] >= 2
    assert bench.smmu.counters.reads_mirrored() > 0
    assert bench.smmu.counters.transactions_made == 1, "the first, which asks the model for its context"


def test_counters_are_the_same_watched_or_not(pure: bool) -> None:
    def counted(watched: bool) -> object:
        world = World(pages=24, tlb_entries=16)
        if watched:
            world.watch.attach(Recording())
        for size in (1, 4096, 24 << 12, 24 << 12):
            world.port.read(IOVA, size)
        world.bench.invalidate(c.CMD_TLBI_NH_ALL.of())
        world.port.write(IOVA + 100, bytes(9000))
        world.port.read(IOVA - 1, 2)
        counters = world.bench.smmu.counters
        return (
            counters.transactions,
            counters.translations,
            counters.walks,
            counters.faults,
            world.bench.smmu.tlb.counters,
        )

    assert counted(True) == counted(False)


# -- room ------------------------------------------------------------------------------------------------------------


def fill(world: World) -> None:
    """So that there is no room in the core's ring for what comes next."""
    ring: Any = world.watch.ring
    ring.gather = None
    while ring.claim() >= 0:
        pass
    world.watch._values.update(dict.fromkeys(range(1 << 16)))
    ring.gather = world.watch._take


def test_a_burst_without_room_is_declined_and_nothing_of_it_is_lost(pumped: World) -> None:
    bench = pumped.bench
    assert bench.mirror is not None
    recording = Recording()
    pumped.watch.attach(recording)
    fill(pumped)
    prod = bench.place(c.CMD_TLBI_NH_ALL.of(), c.CMD_SYNC.of())
    assert not bench.mirror.carry_out(CMDQ_PROD.at, prod), "as for a lock that is taken"
    bench.smmu.write(CMDQ_PROD.at, 4, prod)
    assert prod == bench[CMDQ_CONS].RD
    assert [type(each.command).__name__ for each in recording.commands] == ["CMD_TLBI_NH_ALL", "CMD_SYNC"]
    assert bench.mirror.carry_out(CMDQ_PROD.at, bench.place(c.CMD_SYNC.of())), "there is room again"


def test_a_request_without_room_is_the_models_and_is_counted_once(pumped: World) -> None:
    pumped.port.read(IOVA, 1)
    pumped.port.read(IOVA, 1)
    counters = pumped.bench.smmu.counters
    before = counters.transactions, counters.translations
    recording = Recording()
    pumped.watch.attach(recording)
    fill(pumped)
    core = pumped.bench.smmu.core
    assert core is not None
    ended = core.read(1, SID, 0xFFFF_FFFF, IOVA, 8, 0)
    assert not isinstance(ended, bytes)
    assert not ended.counted
    assert pumped.port.read(IOVA, 8) == bytes(8)
    assert (counters.transactions, counters.translations) == (before[0] + 1, before[1] + 1)
    assert [each.iova for each in recording.of(Used)] == [IOVA]


def test_reads_for_which_there_is_no_room_are_a_gap(pumped: World) -> None:
    assert pumped.bench.mirror is not None
    recording = Recording()
    pumped.watch.attach(recording)
    fill(pumped)
    for _ in range(5):
        pumped.bench.mirror.load(IDR0.at, 4)
    (gap,) = recording.gaps
    assert gap.lost == {Kind.ACCESSED: 5}
    assert gap.first <= gap.number


# -- live ------------------------------------------------------------------------------------------------------------


def test_who_joins_is_told_first_how_the_instance_stands(world: World) -> None:
    world.port.read(IOVA, 1)
    with world.watch.recording() as seen:
        world.port.read(IOVA, 1)
    first, *rest = list(seen)
    assert isinstance(first, Snapshot)
    assert first.registers["CR0"] == world.bench[CR0].raw
    assert [(sid, ssid) for sid, ssid, _ in first.contexts] == [(SID, None)]
    assert [(entry.base, entry.output) for entry in first.entries] == [(IOVA, world.data)]
    assert all(first.number < each.number for each in rest)


def test_several_look_on_and_each_is_told_what_it_was_there_for(world: World) -> None:
    with world.watch.recording() as whole:
        world.bench[CR0]
        with world.watch.recording() as part:
            world.bench[IDR0]
        world.bench[CMDQ_CONS]
    assert [each.register for each in whole.accesses] == ["CR0", "IDR0", "CMDQ_CONS"]
    assert [each.register for each in part.accesses] == ["IDR0"]
    assert [each.number for each in part.accesses] == [whole.accesses[1].number]
    assert not world.watch.on


def test_a_watcher_is_told_the_kinds_that_it_wants(world: World) -> None:
    with world.watch.recording(Kind.REPORTED) as seen:
        world.port.read(IOVA + 0xFFF, 2)
    assert kinds(seen) == ["Snapshot", "Reported"]


class Few(Watcher):
    wants = Kind.STALLED


def test_what_no_watcher_wants_is_made_for_none(pumped: World) -> None:
    """A recording of everything beside a watchdog: each record as a value, for nobody, took most of a guest's time."""
    made: list[bytes] = []
    watch = pumped.bench.smmu.watch
    command_of = watch.command_of

    def counted(data: bytes) -> Any:
        made.append(data)
        return command_of(data)

    watch.command_of = counted
    everything = Recording()
    watch.attach(Few())
    watch.attach(everything)
    pumped.bench.submit(c.CMD_TLBI_NH_ALL.of(), c.CMD_SYNC.of())
    watch.flush()
    assert not made
    assert [type(each.command).__name__ for each in everything.commands] == ["CMD_TLBI_NH_ALL", "CMD_SYNC"]
    assert len(made) == 2


def test_nothing_is_told_once_it_has_ended(world: World) -> None:
    with world.watch.recording() as seen:
        world.bench[CR0]
    world.bench[IDR0]
    assert [each.register for each in seen.accesses] == ["CR0"]


class Asking(Watcher):
    """Which looks at the instance while it is told."""

    wants = Kind.ACCESSED

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[str] = []

    def accessed(self, it: Accessed) -> None:
        self.heard.append(it.register)
        if it.register == "CR0":
            with self.world.bench.smmu.lock:  # no lock is held
                self.world.bench[IDR0]
            self.world.watch.flush()


def test_a_watcher_may_use_the_instance_and_is_told_of_that_next(world: World) -> None:
    watcher = Asking(world)
    world.watch.attach(watcher)
    world.bench[CR0]
    world.watch.flush()
    world.watch.flush()
    assert watcher.heard == ["CR0", "IDR0"]


# -- a recording -----------------------------------------------------------------------------------------------------


def test_a_recording_keeps_what_the_core_tells_raw(pumped: World) -> None:
    pumped.port.read(IOVA, 1)
    with pumped.watch.recording() as seen:
        for _ in range(100):
            pumped.port.read(IOVA, 1)
    assert seen.raw_bytes >= 64 * 300
    assert len(seen.of(Moved)) == 100


def test_a_finding_of_the_core_is_a_value_with_its_evidence() -> None:
    watch = Watch("smmu0")
    raw = RECORD.pack(6, 99, SID, 0xFFFF_FFFF, int(Kind.FOUND).bit_length() - 1, 1, 0b01, 7, IOVA, 0x703, 0, 42)
    (told,) = Batch(watch, 5, raw, [], {}).of(int(Kind.FOUND))
    assert told == Found(5, 99, "smmu0", 7, SID, None, IOVA, True, 0x703, None, 42)
    assert not list(Batch(watch, 5, raw, [], {}).of(int(Kind.USED)))


def test_every_type_of_value_has_a_kind_and_a_call() -> None:
    types = (Accessed, Commanded, Fetched, Filled, Gap, Interrupted, Moved, Reported, Snapshot, Translated, Used)
    for each in types:
        with_kind = [kind for kind in Kind if kind.name and kind.name.lower()[:5] == each.__name__.lower()[:5]]
        assert with_kind, each
    assert int(ALL) == sum(int(kind) for kind in Kind)


def test_numbers_are_taken_once_each(world: World) -> None:
    def told() -> Iterator[Value]:
        with world.watch.recording() as seen:
            for _ in range(50):
                world.port.read(IOVA, 1)
                world.bench.invalidate(c.CMD_TLBI_NH_ALL.of())
        yield from seen

    numbers = [value.number for value in told()]
    assert numbers == sorted(set(numbers))


@pytest.mark.timeout(60)
def test_who_takes_records_and_fails_is_heard_of_where_room_is_wanted() -> None:
    if _core.built() is None:
        missing("the compiled core")
    bench = Bench(pure=False)

    def fails() -> None:
        raise RuntimeError("nothing is taken")

    def fill() -> None:
        for _ in range(1 << 16):
            bench.smmu.tlb.clear()

    with bench.smmu.watch.recording():
        taken = bench.smmu.watch.ring.gather
        bench.smmu.watch.ring.gather = fails
        with pytest.raises(RuntimeError, match="nothing is taken"):
            fill()
        bench.smmu.watch.ring.gather = taken


def test_what_waits_for_a_number_to_be_told_has_a_bound_and_all_of_it_is_accounted_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if _core.built() is None:
        missing("the compiled core")
    monkeypatch.setattr("vhost_iommu.watch.MOST_KEPT", 64 * 30_000)
    made = World(pure=False)
    watch, reads = made.watch, 80_000
    with watch.recording(Kind.USED | Kind.NOTED) as seen:
        held = watch.begin()
        for _ in range(reads):
            assert made.port.read(IOVA, 8) == bytes(8)
        watch.flush()
        assert 64 * 30_000 <= sum(len(raw) for _, raw, _ in watch._taken) <= 64 * (30_000 + 16_384)
        watch.noted("test", "test", "in time")  # who must tell does
        watch.void(held)
        told = len(seen.of(Used)), sum(gap.lost.get(Kind.USED, 0) for gap in seen.gaps)
    assert sum(told) == reads
    assert min(told) > 0
    assert [note.name for note in seen.of(Noted)] == ["in time"]


def test_what_a_request_tells_is_in_the_order_of_its_clock_too(pure: bool) -> None:
    made = World(pages=64, ram=Ram(size=8 << 20))
    with made.watch.recording() as seen:
        before = time.monotonic_ns()
        for _ in range(3):
            assert made.port.read(IOVA, 64 << 12) == bytes(64 << 12)
        after = time.monotonic_ns()
        times = [value.time for value in seen if not isinstance(value, Snapshot)]
    assert len(times) > 3 * 64
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after
