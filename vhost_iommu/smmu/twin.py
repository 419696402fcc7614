# SPDX-License-Identifier: Apache-2.0
"""What models share of being asked: how a ``State`` is taken, and a twin's memory, steps and explanations.

Law: a twin writes nothing; each descriptor that its walks read is a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..errors import UsageError
from ..layout import Layout, Register
from ..memory import Ended
from ..register_file import RegisterFile
from . import descriptors, descriptors_short
from .inspection import (
    CachedStructure,
    CachedTranslation,
    DescriptorRead,
    End,
    Entry,
    Explanation,
    Queue,
    Reader,
    Stalled,
    State,
    Step,
    Streams,
    fault_text,
    observed,
)
from .stages import StageTlb
from .tlb import Tlb
from .transaction import Stall, Transaction
from .walk import LongTable, Table

#: What an instance is counted by.
_COUNTED = (
    "transactions", "translations", "walks", "faults", "stalls", "commands", "command_errors", "syncs",
    "page_requests", "events", "events_lost", "interrupts", "mmio_reads", "mmio_writes",
)  # fmt: skip


def taken(
    smmu: Any,
    model: str,
    registers: Mapping[str, int],
    stalls: Iterable[Stall],
    now: float,
    tlbs: Mapping[str, StageTlb],
    *,
    caches: bool,
    failed: bool = False,
    structures: tuple[CachedStructure, ...] = (),
    **counts: int,
) -> State:
    """What ``smmu`` holds; its caller holds the lock. ``tlbs``, by the names they are counted by, stage 1 first."""
    counters = smmu.counters
    for name, tlb in tlbs.items():
        found = tlb.counters
        counts |= {f"{name}_hits": found.hits, f"{name}_misses": found.misses, f"{name}_entries": len(tlb)}
    return State(
        smmu.name,
        model,
        registers,
        {name: getattr(counters, name) for name in _COUNTED} | counts,
        counters.commands_by_kind,
        counters.events_by_kind,
        tuple(record.words() for record in counters.first_events),
        tuple(
            Stalled(t.sid, t.ssid, t.iova, t.write, now - each.since, each.waits)
            for each in stalls
            for t in (each.transaction,)
        ),
        smmu.tlb.capacity,
        failed,
        structures,
        tuple(
            CachedTranslation(stage, space, leaf)
            for stage, of in enumerate(tlbs.values(), 1)
            for space, leaf in (of if caches else ())
        ),
    )


def stalls_said(state: State) -> Iterator[str]:
    """The sentence of an instance's stalled transactions, if any is."""
    if state.stalls:
        longest = max(each.seconds for each in state.stalls)
        yield f"{len(state.stalls)} transactions stalled, the longest for {longest:.1f} s"


class Twin:
    """Memory of an instance of the same registers; ``steps`` is what its translations came by."""

    def __init__(self, state: State, reader: Reader) -> None:
        self.steps: list[Step] = []
        self.missing: list[int] = []
        self._state = state
        self._reader = reader
        self._at = 0

    def ids(self, names: Iterable[str]) -> dict[str, int]:
        """Of the registers that an instance is made of, those that were taken."""
        return {name: self._state.registers[name] for name in names if name in self._state.registers}

    def cache(self, *tlbs: StageTlb) -> None:
        """Fill the TLBs of the stages with what was cached."""
        for entry in self._state.translations:
            tlb = tlbs[entry.stage - 1]
            assert isinstance(tlb, Tlb)  # a twin has no core
            tlb.insert(entry.space, entry.leaf)

    # -- memory --------------------------------------------------------------------------------------------------

    def read(self, pa: int, size: int) -> bytes | None:
        data = self._reader.read(pa, size)
        self._at = pa
        if data is None and self._reader.lacks(pa):
            self.missing.append(pa & ~0xFFF)
        return data

    def write(self, pa: int, data: bytes) -> bool:
        return True

    def compare_and_swap_u64(self, pa: int, expected: int, new: int) -> bool | None:
        return None if self._reader.read(pa, 8) is None else True

    def post(self, pa: int, data: bytes, ended: Ended) -> None:
        ended(False)

    # -- steps ---------------------------------------------------------------------------------------------------

    def observed(self, table: Any) -> Any:
        """``table``, whose walks are told of."""
        return observed(table, lambda read: self._walked(table, read))

    def _walked(self, table: Table, read: DescriptorRead) -> None:
        at = self._at if read.raw is not None else None
        via = f", read at IPA {read.address:#x}" if at is not None and at != read.address else ""
        what = f"stage {read.stage} level {read.level}"
        if read.fault is not None:
            self.steps.append(Step(what, None, f"not read: {fault_text(read.fault)}"))
        elif read.raw is None:
            self.steps.append(Step(what, self._at, f"nothing answers here{via}"))
        else:
            value = (
                descriptors.decode(read.raw, read.stage, read.level, table.granule_bits, table.wide.value > 0)
                if isinstance(table, LongTable)
                else descriptors_short.decode(read.raw, read.level)
            )
            text = value.text()
            if read.update is not None:
                text = f"hardware would write {read.update:#018x} here ({value.text()} before)"
            self.steps.append(Step(what, at, f"{text}{via}", value))


def not_zero(registers: RegisterFile, by_name: Mapping[str, type[Register]]) -> tuple[Layout, ...]:
    """Each register that is not zero, decoded."""
    held = ((by_name.get(name.partition("[")[0]), value) for name, value in registers.held().items())
    return tuple(register(value) for register, value in held if value and register is not None)


class NoQueues:
    """Of an ``Inspection``, what a model answers that has neither queues nor structures nor substreams."""

    #: What a record of so many words is.
    RECORDS: Mapping[int, type[Layout]]
    state: State

    def queues(self) -> tuple[Queue, ...]:
        return ()

    def entries(self, queue: str, limit: int) -> tuple[Entry, ...]:
        raise UsageError(f"there is no queue {queue!r:.40}: model {self.state.model!r} has none")

    def substreams(self, sid: int, first: int, limit: int) -> Streams:
        return Streams((), None)

    def reports(self) -> tuple[Layout, ...]:
        records = self.RECORDS
        return tuple(records[len(words)].from_words(words) for words in self.state.reports if len(words) in records)

    def structures(self) -> tuple[tuple[CachedStructure, Layout], ...]:
        return ()


def explanation(
    transaction: Transaction,
    twin: Twin,
    before: Iterable[Step],
    end: End,
    cached: End | None,
    differs: Iterable[str],
    causes_of: Callable[[Any], tuple[str, ...]],
) -> Explanation:
    """What ``twin`` came by after the steps ``before``; ``cached`` is the end by the caches, if there were any."""
    return Explanation(
        transaction,
        (*before, *twin.steps),
        end,
        causes_of(end.event) if end.event is not None else (),
        tuple(differs),
        cached if cached is not None and _comes_to(cached) != _comes_to(end) else None,
        tuple(dict.fromkeys(twin.missing)),
    )


def _comes_to(end: End) -> tuple[object, ...]:
    return end.outcome, end.pa, type(end.event)
