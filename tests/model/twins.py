# SPDX-License-Identifier: Apache-2.0
"""The reference and the compiled core side by side: the same software does the same to two instances.

Law: nothing is drawn here and nothing is known of what is right; two sides that were made alike and told the same must
stay alike. A side is anything with an SMMU, its memory, and steps that give values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, Generic, Protocol, TypeVar

from vhost_iommu.masters.port import Abort, Port, Waiting
from vhost_iommu.memory import Memory
from vhost_iommu.smmu.ats import AtsCompletion
from vhost_iommu.smmu.tlb import Space
from vhost_iommu.smmu.transaction import Answer, Stall
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3.counters import Counters
from vhost_iommu.smmu.v3.registers import REGISTERS
from vhost_iommu.smmu.walk import Mapping


class Side(Protocol):
    smmu: Smmu
    memory: Memory

    def step(self, kind: str, number: int) -> object: ...


S = TypeVar("S", bound=Side)


class Twins(Generic[S]):
    """Two sides, made by ``make(pure)``."""

    def __init__(self, make: Callable[[bool], S]) -> None:
        self.reference, self.core = make(True), make(False)
        assert self.reference.smmu.core is None
        assert self.core.smmu.core is not None
        self.check("made")

    def run(self, steps: Iterable[tuple[str, int]]) -> None:
        for kind, number in steps:
            self.step(kind, number)

    def step(self, kind: str, number: int) -> object:
        """Do one step on both sides; what both say of it."""
        wanted = self.reference.step(kind, number)
        got = self.core.step(kind, number)
        assert got == wanted, f"{kind} {number}: the core says\n  {got}\nand the reference\n  {wanted}"
        self.check(f"{kind} {number}")
        return got

    def check(self, step: str) -> None:
        """All that can be seen of both sides is alike."""
        wanted, got = self.reference, self.core
        for ours, theirs in zip(got.memory.windows, wanted.memory.windows, strict=True):
            assert ours.buffer == theirs.buffer, f"{step}: memory at {_difference(ours, theirs)}"
        registers, expected = _registers(got.smmu), _registers(wanted.smmu)
        assert registers == expected, f"{step}: registers {set(registers.items()) ^ set(expected.items())}"
        for tlb in ("tlb", "tlb2"):
            ours_held, theirs_held = _entries(getattr(got.smmu, tlb)), _entries(getattr(wanted.smmu, tlb))
            only = ours_held ^ theirs_held
            assert not only, f"{step}: {tlb} differs by {[(each in ours_held, each) for each in only]}"
        counts, counted = _counts(got.smmu), _counts(wanted.smmu)
        assert counts == counted, f"{step}: counters {set(counts.items()) ^ set(counted.items())}"


def _entries(tlb: Iterable[tuple[Space, Mapping]]) -> set[tuple[Space, Mapping]]:
    return set(tlb)


def _registers(smmu: Smmu) -> dict[str, int]:
    with smmu.lock:
        return {register.__name__: smmu.registers.raw(register) for register in REGISTERS}


def _counts(smmu: Smmu) -> dict[str, int]:
    counts = {each.name: getattr(smmu.counters, each.name) for each in fields(Counters) if each.type == "int"}
    shared = {"transactions_made", "translations_made", "walks_made", "commands_consumed", "syncs_consumed"}
    shared |= {"missed_made", "descriptors_made"}
    for name in shared | {"reads_seen", "writes_seen"}:
        del counts[name]
    for name in ("transactions", "translations", "walks", "missed", "descriptors", "commands", "syncs"):
        counts[name] = getattr(smmu.counters, name)
    counts["mmio_reads"], counts["mmio_writes"] = smmu.counters.mmio_reads, smmu.counters.mmio_writes
    for tlb, suffix in ((smmu.tlb, ""), (smmu.tlb2, " 2")):
        counters = tlb.counters
        counts["hits" + suffix], counts["misses" + suffix] = counters.hits, counters.misses
        counts["invalidated" + suffix], counts["evictions" + suffix] = counters.invalidated, counters.evictions
    counts["contexts"], counts["new contexts"] = smmu.configuration.hits, smmu.configuration.misses
    counts["structures read"] = smmu.configuration.accesses
    return counts


def _difference(ours: Any, theirs: Any) -> str:
    at = next(at for at in range(ours.size) if ours.buffer[at] != theirs.buffer[at]) & ~7
    return (
        f"{ours.base + at:#x}: {bytes(ours.buffer[at : at + 8]).hex()}, not {bytes(theirs.buffer[at : at + 8]).hex()}"
    )


class WatchedPort(Port):
    """A port that keeps the requests that wait, and shows what became of each."""

    OPEN = Port.OPEN | {"waiting"}

    def __init__(self, name: str, memory: Memory, smmu: Smmu, sids: Sequence[int]) -> None:
        super().__init__(name, memory, smmu, sids)
        self.waiting: list[Waiting[Any]] = []

    def done(self, found: object) -> object:
        """What became of a request, shown; it is kept if it waits."""
        if isinstance(found, Waiting):
            self.waiting.append(found)
        return show_dma(found), self.transactions, self.bytes_read, self.bytes_written, self.stalls, self.aborts

    def go_on(self) -> list[object]:
        """Have those go on that waited and need not any more."""
        waiting, self.waiting = self.waiting, []
        self.waiting = [each for each in waiting if each.stall.answer is None]
        return [self.done(each.go_on()) for each in waiting if each.stall.answer is not None]


# -- what a step answered, as values that compare --------------------------------------------------------------


def show(answer: Answer) -> tuple[object, ...]:
    events = [event.to_bytes().hex() for event in answer.events]
    stall = None if answer.stall is None else show_stall(answer.stall)
    return answer.outcome.value, list(answer.pieces), list(answer.memory), tuple(answer.mpam), events, stall


def show_stall(stall: Stall) -> tuple[object, ...]:
    ended = None if stall.answer is None else show(stall.answer)
    return stall.transaction, stall.stag, stall.event.to_bytes().hex(), list(stall.done), ended


def show_completion(completion: AtsCompletion) -> tuple[object, ...]:
    return completion.status.value, completion.entries, [event.to_bytes().hex() for event in completion.events]


def show_dma(found: object) -> object:
    if isinstance(found, Abort):
        return "abort", hex(found.iova), found.done, found.why.value
    if isinstance(found, Waiting):
        assert isinstance(found.stall, Stall)
        return "waits", show_stall(found.stall)
    return found


class Choices:
    """Picks that a number makes, one after the other: 0 makes the first of each, so what shrinks becomes plain."""

    def __init__(self, number: int) -> None:
        self._left = number

    def below(self, count: int) -> int:
        self._left, found = divmod(self._left, count)
        return found

    def of(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def rarely(self, one_in: int = 8) -> bool:
        return self.below(one_in) == one_in - 1
