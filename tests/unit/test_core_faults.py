# SPDX-License-Identifier: Apache-2.0
"""A fault that the compiled core finds in a master's request: translated once, and told as if it had been found now."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest

from tests.smmu_builder import RAM_BASE, Bench, Ram
from vhost_iommu.masters.port import Abort, Port, Waiting, Why
from vhost_iommu.memory import Memory, Window
from vhost_iommu.smmu.transaction import Outcome, Piece, Transaction
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.configuration import Configuration
from vhost_iommu.smmu.v3.events import C_BAD_STE, C_BAD_STREAMID, F_TRANSLATION, F_WALK_EABT
from vhost_iommu.smmu.v3.registers import CR0, STRTAB_BASE_CFG

pytestmark = pytest.mark.usefixtures("core_is_built")

IOVA, PA, SID, NO_STREAM = 0x8000, RAM_BASE + 0x40_0000, 1, 77

#: Another page, by which the core comes to know the stream's context.
FIRST = 0x100_0000


class Turnstile:
    """A lock for one thread: whoever takes it next finds that ``meanwhile`` has happened."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        happens, self.meanwhile = self.meanwhile, lambda: None
        happens()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Rig:
    """A stream of a 4 KiB table, a master's port of it, and what happens between the core and the lock.

    ``known``: the stream has made a request before, which does not count.
    """

    def __init__(self, sid: int = SID, *, known: bool = True, **cd: int) -> None:
        self.lock = Turnstile()
        self.bench = Bench({"stall_model": "both"}, ram=Ram(size=8 << 20), lock=self.lock, pure=False)
        self.table = self.bench.stream(SID, cd=cd)
        self.port = Port("master", self.bench.ram.memory, self.bench.smmu, [sid])
        self.before: tuple[int, ...] = (0,) * 5
        if known and sid == SID:
            self.table.map(FIRST, PA)
            assert self.port.read(FIRST, 8) == bytes(8)
            self.before, self.port._done.bytes_read = self.counts(), 0

    def read(self, meanwhile: Callable[[], None] = lambda: None, size: int = 8) -> bytes | Abort | Waiting[bytes]:
        self.lock.meanwhile = meanwhile
        return self.port.read(IOVA, size)

    def counts(self) -> tuple[int, ...]:
        """(transactions, translations, walks, TLB misses, context lookups)."""
        counters, found = self.bench.smmu.counters, self.bench.smmu.configuration
        misses = self.bench.smmu.tlb.counters.misses
        now = counters.transactions, counters.translations, counters.walks, misses, found.hits + found.misses
        return tuple(count - before for count, before in zip(now, self.before, strict=True))


@pytest.mark.parametrize("known", [True, False])
def test_a_fault_is_translated_once(known: bool) -> None:
    rig = Rig(known=known)
    assert rig.read() == Abort(IOVA, 0, Why.TERMINATED)
    assert rig.bench.events() == [F_TRANSLATION.of(SID=SID, RnW=1, CLASS=2, InputAddr=IOVA)]
    assert rig.counts() == (1, 1, 1, 1, 1)


def test_a_stream_that_is_not_there_is_looked_up_once() -> None:
    rig = Rig(NO_STREAM)
    assert rig.read() == Abort(IOVA, 0, Why.TERMINATED)
    assert rig.bench.events() == [C_BAD_STREAMID.of(SID=NO_STREAM)]
    assert rig.counts() == (1, 0, 0, 0, 1)


def test_what_was_read_before_a_fault_is_kept_and_not_translated_again() -> None:
    rig = Rig()
    rig.table.map(IOVA, PA)
    assert rig.read(size=0x1008) == Abort(IOVA + 0x1000, 0x1000, Why.TERMINATED)
    assert rig.counts() == (1, 2, 2, 2, 1)
    assert rig.port.bytes_read == 0x1000


@pytest.mark.parametrize("known", [True, False])
def test_a_page_where_nothing_answers_is_translated_once(known: bool) -> None:
    rig = Rig(known=known)
    rig.table.map(IOVA, 0x2000_0000)
    assert rig.read() == Abort(IOVA, 0, Why.EXTERNAL)
    assert (rig.counts(), rig.bench.events()) == ((1, 1, 1, 1, 1), [])


def test_a_stall_goes_on_from_the_fault_that_the_core_found() -> None:
    rig = Rig(S=1, A=0)
    waiting = rig.read()
    assert isinstance(waiting, Waiting)
    assert rig.counts() == (1, 1, 1, 1, 1)
    assert [type(event) for event in rig.bench.events()] == [F_TRANSLATION]
    rig.table.map(IOVA, PA)
    rig.bench.submit(c.CMD_RESUME.of(SID=SID, STAG=0, Ac=1))
    assert waiting.go_on() == bytes(8)


def test_after_a_sync_meanwhile_it_is_no_fault_any_more() -> None:
    rig = Rig()

    def mapped() -> None:
        rig.table.map(IOVA, PA)
        rig.bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())

    assert rig.read(mapped) == bytes(8)
    assert rig.bench.events() == []


def test_after_a_sync_meanwhile_it_is_the_fault_that_it_is_now() -> None:
    rig = Rig()

    def broken() -> None:
        rig.table.write(rig.table.entry(IOVA, 0), 0x2000_0003)
        rig.bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())

    assert rig.read(broken) == Abort(IOVA, 0, Why.TERMINATED)
    assert [type(event) for event in rig.bench.events()] == [F_WALK_EABT]


def test_a_stream_that_was_made_meanwhile_is_there_after_its_sync() -> None:
    rig = Rig(2)
    rig.bench.ste(2, V=0)

    def made() -> None:
        rig.bench.stream(2, table=rig.table).map(IOVA, PA)
        rig.bench.invalidate(c.CMD_CFGI_STE.of(SID=2, Leaf=1))

    assert rig.read(made) == bytes(8)
    assert rig.bench.events() == []


def test_a_fault_is_none_where_the_smmu_was_turned_off_meanwhile() -> None:
    rig = Rig()

    def turned_off() -> None:
        rig.bench.set(CR0, SMMUEN=0)

    assert rig.read(turned_off) == Abort(IOVA, 0, Why.EXTERNAL)  # by its physical address
    assert rig.bench.events() == []


def test_without_a_sync_a_fault_may_be_told_though_it_is_mended() -> None:
    rig = Rig()
    assert rig.read(lambda: rig.table.map(IOVA, PA)) == Abort(IOVA, 0, Why.TERMINATED)
    assert len(rig.bench.events()) == 1


def test_the_end_of_a_piece_is_not_looked_for_twice() -> None:
    """A request that crosses from one window into the next, whose core has to know where its pieces end."""
    low, high = bytearray(0x1000), bytearray(0x1000)
    rig = Rig()
    memory = rig.bench.ram.memory
    assert isinstance(memory, Memory)
    for base, buffer in ((0x8000_0000, low), (0x9000_0000, high)):
        memory.add(Window(base, len(buffer), buffer))
    rig.table.map(IOVA, 0x8000_0000)
    rig.table.map(IOVA + 0x1000, 0x9000_0000)
    assert rig.read(size=0x2000) == bytes(0x2000)
    assert rig.counts() == (1, 2, 2, 2, 1)


@pytest.mark.parametrize("write", [False, True])
def test_a_stream_that_was_refused_is_the_cores_again_once_it_means_something(write: bool) -> None:
    """The core is not asked meanwhile; of what it does, the lock is not taken."""
    rig = Rig(2)
    locked: list[None] = []

    def access() -> object:
        rig.lock.meanwhile = lambda: locked.append(None)
        return rig.port.write(IOVA, bytes(8)) if write else rig.port.read(IOVA, 8)

    for _ in range(3):
        assert isinstance(access(), Abort)
        assert rig.bench.events()
    rig.bench.stream(2, table=rig.table)
    rig.table.map(IOVA, PA)
    rig.bench.invalidate(c.CMD_CFGI_STE.of(SID=2))
    answers = [access() for _ in range(5)]
    assert answers == [None if write else bytes(8)] * 5
    assert len(locked) == 3 + 2
    assert not rig.bench.events()


# -- why a stream has no context is found out once, too ------------------------------------------------------------


def refused_three_times(bench: Bench, sid: int) -> Port:
    """A port of a stream of which all that there is to know is known: the third time is the first that goes by it."""
    port = Port("master", bench.ram.memory, bench.smmu, [sid])
    for _ in range(3):
        assert port.read(IOVA, 8) == Abort(IOVA, 0, Why.TERMINATED)
    return port


def found_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The streams whose STE is looked for from now on."""
    asked: list[int] = []
    found = type(bench.smmu.configuration)._ste

    def looked_for(self: Configuration, sid: int, event: Any) -> Any:
        asked.append(sid)
        return found(self, sid, event)

    monkeypatch.setattr(type(bench.smmu.configuration), "_ste", looked_for)
    return asked


@pytest.mark.parametrize("sid", [NO_STREAM, SID], ids=["no stream", "a bad STE"])
def test_a_refusal_is_found_out_once_and_told_and_counted_each_time(sid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(pure=False, event_bits=4)
    port = refused_three_times(bench, sid)
    asked = found_out(bench, monkeypatch)
    assert port.read(IOVA, 8) == Abort(IOVA, 0, Why.TERMINATED)
    kind = C_BAD_STREAMID if sid == NO_STREAM else C_BAD_STE
    assert bench.events() == [kind.of(SID=sid)] * 4
    assert (asked, bench.smmu.configuration.misses, bench.smmu.counters.transactions) == ([], 4, 4)


@pytest.mark.parametrize("pumped", [False, True])
def test_a_bad_ste_counts_until_its_invalidation_and_not_after_it(pumped: bool) -> None:
    bench = Bench(pure=False, pumped=pumped, ram=Ram(size=8 << 20), event_bits=4)
    port = refused_three_times(bench, SID)
    bench.stream(SID).map(IOVA, PA)
    assert port.read(IOVA, 8) == Abort(IOVA, 0, Why.TERMINATED)
    bench.invalidate(c.CMD_CFGI_STE.of(SID=SID, Leaf=1))
    assert port.read(IOVA, 8) == bytes(8)


def test_a_larger_stream_table_has_streams_that_were_refused() -> None:
    bench = Bench(pure=False, ram=Ram(size=8 << 20), sid_bits=7, start=False)
    bench.sid_bits = 6
    bench.start()
    port = refused_three_times(bench, NO_STREAM)
    bench.stream(NO_STREAM).map(IOVA, PA)
    bench.set(CR0, SMMUEN=0)
    bench.set(STRTAB_BASE_CFG, LOG2SIZE=7)
    bench.set(CR0, SMMUEN=1)
    assert port.read(IOVA, 8) == bytes(8)


def test_an_aborted_read_of_an_ste_is_tried_again() -> None:
    bench = Bench(pure=False, ram=Ram(size=8 << 20))
    aborted: list[str] = []

    def aborts(kind: str, pa: int) -> bool:
        aborted.append(kind)
        return kind == "STE"

    bench.smmu.seams.memory = aborts
    refused_three_times(bench, SID)
    assert aborted.count("STE") == 3


def test_what_the_model_asks_of_lent_memory_that_may_be_cut_short_is_answered_too() -> None:
    """The interpreter is not in hand while the core is inside: whoever it is may have to wait for the client."""
    bench = Bench(pure=False, ram=Ram(size=8 << 20))
    memory = bench.ram.memory
    assert isinstance(memory, Memory)
    fd = os.memfd_create("lent")
    os.truncate(fd, 0x10000)
    memory.map_fd(0x8000_0000, 0x10000, fd)
    os.close(fd)
    bench.stream(SID).map(IOVA, 0x8000_0000)
    with bench.smmu.watch.recording():
        assert bench.translate(IOVA, 8, SID).pieces == [Piece(0x8000_0000, 8)]
        assert bench.smmu.translate(Transaction(SID, IOVA, 0x2000)).outcome is Outcome.ABORT
    assert Port("master", memory, bench.smmu, [SID]).read(IOVA, 8) == bytes(8)
