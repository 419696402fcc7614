# SPDX-License-Identifier: Apache-2.0
"""What can be asked of an SMMU without its noticing, whatever its programming model: typed values, and who answers.

Law: a ``State`` is taken once and never changes; all else follows from it and from memory that is only read. What is
answered is bounded, and goes on from where it says. Guest memory that changes meanwhile is a value like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..layout import Layout
from .context import Context
from .stages import Output
from .tlb import Space
from .transaction import Transaction
from .walk import Descriptors, Fault, FaultKind, Table
from .walk import Mapping as Leaf

#: Walks of one answer about a table, and the runs it may have.
MOST_WALKS, MOST_RUNS = 8192, 1024
_PAGE = 4096
#: Bytes of a table of short descriptors, which several may share a page.
_SHORTEST = 1024


class Reader(Protocol):
    """Memory that is only read: a guest's, or what is kept of it."""

    def read(self, pa: int, size: int) -> bytes | None:
        """None: nothing answers there, or it is not known what does."""

    def lacks(self, pa: int) -> bool:
        """Whether it is not known what is at ``pa``."""


# -- what is taken of an instance ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CachedStructure:
    """A configuration structure as it is cached: of a stream, and by what tells several of one apart."""

    kind: str
    sid: int  #: of an L1STD: its index
    key: int | None
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CachedTranslation:
    """An entry of a TLB."""

    stage: int
    space: Space
    leaf: Leaf


@dataclass(frozen=True, slots=True)
class Stalled:
    """A transaction that waits for software."""

    sid: int
    ssid: int | None
    iova: int
    write: bool
    seconds: float  #: since it stalled
    waits: str


@dataclass(frozen=True, slots=True)
class State:
    """One instance at one moment."""

    name: str
    model: str
    registers: Mapping[str, int]
    counters: Mapping[str, int]
    commands: Mapping[str, int]  #: executed, by kind
    events: Mapping[str, int]  #: made, by kind
    reports: tuple[tuple[int, ...], ...]  #: the first of each kind
    stalls: tuple[Stalled, ...]
    tlb_capacity: int
    failed: bool  #: it is in service failure mode
    structures: tuple[CachedStructure, ...] = ()
    translations: tuple[CachedTranslation, ...] = ()


# -- what is answered ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue in memory, by its registers."""

    name: str
    enabled: bool
    base: int
    size: int  #: in entries
    producer: int  #: without the wrap flag
    consumer: int
    waiting: int  #: entries between the two
    error: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a queue; ``entry`` None: nothing answers at its address."""

    index: int
    at: int
    waiting: bool  #: it is to be consumed yet
    entry: Layout | None


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream as its structure in memory has it."""

    sid: int
    at: int
    structure: Layout
    does: str  #: in words
    wrong: tuple[str, ...] = ()  #: why it cannot be used, and what would mend that


@dataclass(frozen=True, slots=True)
class Streams:
    streams: tuple[Stream, ...]
    next: int | None  #: go on from here; None: these were all


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """What one stream, or substream, sees through one stage; ``half`` 1 is the upper of stage 1's two."""

    sid: int
    ssid: int | None
    stage: int
    half: int
    base: int  #: of the table
    start: int  #: first input address
    size: int
    tags: str  #: of what is cached of it


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive input addresses that go to consecutive outputs alike; ``output`` None: they fault, as ``access``
    says.
    """

    start: int
    size: int
    output: int | None
    access: str
    memory: str
    levels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    runs: tuple[Run, ...]
    next: int | None  #: go on from here; None: these were all


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a translation comes by."""

    what: str  #: such as "STE", "stage 1 level 2"
    at: int | None  #: physical
    text: str
    value: Layout | None = None


@dataclass(frozen=True, slots=True)
class End:
    """What becomes of an access."""

    outcome: str
    text: str
    pa: int | None = None
    memory: str = ""
    event: Layout | None = None
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """A translation step by step, as the tables are in memory, and where the caches would have it otherwise."""

    transaction: Transaction
    steps: tuple[Step, ...]
    end: End
    causes: tuple[str, ...] = ()  #: what its event most likely comes from
    differs: tuple[str, ...] = ()  #: what is cached otherwise than it is in memory
    cached: End | None = None  #: by the caches, where that is another end
    missing: tuple[int, ...] = ()  #: pages of memory that are not known


class Inspection(Protocol):
    """One SMMU at one moment, as it can be asked of."""

    @property
    def state(self) -> State: ...

    @property
    def enabled(self) -> bool:
        """Whether it translates."""

    def said(self) -> tuple[str, ...]:
        """The instance in sentences: what is on, what is wrong."""

    def registers(self) -> tuple[Layout, ...]:
        """Each that is not zero, decoded."""

    def queues(self) -> tuple[Queue, ...]: ...

    def entries(self, queue: str, limit: int) -> tuple[Entry, ...]:
        """The last of a queue that were consumed, and the first that wait."""

    def streams(self, first: int, limit: int) -> Streams:
        """Those that have a structure, from ``first`` on."""

    def substreams(self, sid: int, first: int, limit: int) -> Streams:
        """Likewise a stream's; ``sid`` of each is the SubstreamID."""

    def context(self, sid: int, ssid: int | None) -> Context | None:
        """All that translating takes, as the structures in memory have it; None: they have none."""

    def spaces(self, sid: int, ssid: int | None) -> tuple[AddressSpace, ...]:
        """The stages of a stream; none where it is bypassed or cannot be used."""

    def tables(self, space: AddressSpace, first: int, limit: int) -> Runs:
        """What a space maps, from the address ``first`` on."""

    def reports(self) -> tuple[Layout, ...]:
        """The first events of each kind."""

    def structures(self) -> tuple[tuple[CachedStructure, Layout], ...]:
        """The configuration caches."""

    def explain(self, transaction: Transaction) -> Explanation: ...


# -- for models ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DescriptorRead:
    """A descriptor that a walk has read, or why it could not."""

    stage: int
    level: int
    address: int  #: in the stage's output space
    raw: int | None
    fault: Fault | None = None
    update: int | None = None  #: what hardware would make of it


@dataclass(frozen=True, slots=True)
class Observed:
    """A table that tells of each descriptor that its walks read."""

    table: Table
    note: Callable[[DescriptorRead], None]

    @property
    def input_bits(self) -> int:
        return self.table.input_bits

    @property
    def start_level(self) -> int:
        return self.table.start_level

    @property
    def stage(self) -> int:
        return self.table.stage

    @property
    def big_endian(self) -> bool:
        return self.table.big_endian

    @property
    def descriptor_size(self) -> int:
        return self.table.descriptor_size

    def shift(self, level: int) -> int:
        return self.table.shift(level)

    def walk(self, address: int, descriptors: Descriptors) -> Leaf | Fault:
        return self.table.walk(address, _Noted(self, descriptors, self.table.start_level))

    def mark_dirty(self, mapping: Leaf, descriptors: Descriptors) -> Leaf | Fault | None:
        return self.table.mark_dirty(mapping, _Noted(self, descriptors, mapping.level + 1))


def observed(table: Table, note: Callable[[DescriptorRead], None]) -> Table:
    return Observed(table, note)


class _Noted:
    def __init__(self, observed: Observed, descriptors: Descriptors, level: int) -> None:
        self._observed = observed
        self._descriptors = descriptors
        self._level = level

    def fetch(self, address: int, size: int = 8) -> int | Fault | None:
        found = self._descriptors.fetch(address, size)
        fault = found if isinstance(found, Fault) else None
        self._note(address, None if isinstance(found, Fault) else found, fault)
        self._level += 1
        return found

    def update(self, address: int, old: int, new: int) -> bool | Fault | None:
        found = self._descriptors.update(address, old, new)
        self._level -= 1
        self._note(address, old, found if isinstance(found, Fault) else None, new)
        self._level += 1
        return found

    def _note(self, address: int, raw: int | None, fault: Fault | None, update: int | None = None) -> None:
        table = self._observed.table
        if table.big_endian:
            raw, update = (_swapped(each, table.descriptor_size) for each in (raw, update))
        self._observed.note(DescriptorRead(table.stage, self._level, address, raw, fault, update))


def _swapped(raw: int | None, size: int) -> int | None:
    return None if raw is None else int.from_bytes(raw.to_bytes(size, "little"), "big")


@dataclass
class _Pages:
    """How ``runs`` reaches descriptors: by pages, of which the last few are kept."""

    read: Callable[[int, int], bytes | Fault | None]
    count: int = 0  #: descriptors of this walk
    failed: bool = False  #: the last of them was not read
    zeros: int = 0  #: words of zero that follow the last in its page
    _kept: dict[int, bytes] = field(default_factory=dict)

    def fetch(self, address: int, size: int = 8) -> int | Fault | None:
        self.count += 1
        self.zeros = 0
        base, offset = address & -_PAGE, address & _PAGE - 1
        page = self._kept.get(base)
        if page is None:
            found = self.read(base, _PAGE)
            if not isinstance(found, bytes):
                found = self.read(address, size)  # the guest's memory ends within the page, or before it
                self.failed = not isinstance(found, bytes)
                return int.from_bytes(found, "little") if isinstance(found, bytes) else found
            if len(self._kept) > 16:
                del self._kept[next(iter(self._kept))]
            page = self._kept[base] = found
        table = offset | (_SHORTEST if size == 4 else _PAGE) - 1  # its last byte, as far as it is in this page
        rest = page[offset + size : table + 1]
        self.zeros = (len(rest) - len(rest.lstrip(b"\0"))) // size
        return int.from_bytes(page[offset : offset + size], "little")

    def update(self, address: int, old: int, new: int) -> bool | Fault | None:
        return True


def runs(
    table: Table,
    read: Callable[[int, int], bytes | Fault | None],
    access: Callable[[Leaf], str],
    start: int,
    first: int,
    limit: int,
) -> Runs:
    """What ``table``, whose input begins at ``start``, maps from ``first`` on; ``read`` reads what walks read."""
    pages = _Pages(read)
    found: list[Run] = []
    address, end = max(first, start), start + (1 << table.input_bits)
    for _ in range(MOST_WALKS):
        if address >= end:
            return Runs(tuple(found), None)
        pages.count, pages.failed = 0, False
        leaf = table.walk(address, pages)
        if isinstance(leaf, Fault):
            # A table that cannot be read leaves all without translation that the descriptor above it covers.
            level = table.start_level + pages.count - 1 - pages.failed
            size = 1 << (table.shift(level) if level >= table.start_level else table.input_bits)
            base = address & -size
            if leaf.stage == table.stage and leaf.kind is FaultKind.TRANSLATION and pages.zeros:
                size *= 1 + pages.zeros
                address = base + size
                continue
            run = None
            if leaf.stage != table.stage or leaf.kind is not FaultKind.TRANSLATION:
                run = Run(base, size, None, fault_text(leaf), "", (leaf.level,))
        else:
            base, size = leaf.base, 1 << leaf.shift
            run = Run(base, size, leaf.output, access(leaf), leaf.memory.text, (leaf.level,))
        if run is not None:
            joined = _joined(found[-1], run) if found else None
            if joined is not None:
                found[-1] = joined
            elif len(found) >= limit:
                return Runs(tuple(found), address)
            else:
                found.append(run)
        address = base + size
    return Runs(tuple(found), address if address < end else None)


def _joined(last: Run, run: Run) -> Run | None:
    """Both as one, if ``run`` goes on where ``last`` ends."""
    if last.output is None or run.output is None:
        follows = last.output is run.output
    else:
        follows = last.output + last.size == run.output
    if last.start + last.size != run.start or not follows or (last.access, last.memory) != (run.access, run.memory):
        return None
    levels = last.levels if run.levels[0] in last.levels else (*last.levels, *run.levels)
    return replace(last, size=last.size + run.size, levels=levels)


def fault_text(fault: Fault) -> str:
    """For people."""
    where = f"stage {fault.stage} level {fault.level}"
    if fault.kind is FaultKind.WALK_EABT:
        return f"nothing answers at the descriptor's address {fault.fetch:#x} ({where})"
    if fault.kind is FaultKind.PERMISSION:
        return f"stage {fault.stage} does not permit it (level {fault.level})"
    meant = {
        FaultKind.TRANSLATION: "no valid descriptor",
        FaultKind.ADDR_SIZE: "the descriptor's address is beyond the output size",
        FaultKind.ACCESS: "the access flag is 0",
        FaultKind.TLB_CONFLICT: "several cached translations match",
    }
    ipa = f", of IPA {fault.ipa:#x}" if fault.stage == 2 else ""
    return f"{meant[fault.kind]} ({where}{ipa})"


def access1(leaf: Leaf) -> str:
    """What a leaf of stage 1 permits, for people."""
    write = "rw" if leaf.writable else "rd" if leaf.clean else "r-"
    user = f"user {write}{'-' if leaf.uxn else 'x'}" if leaf.user else "user ---"
    return f"{user}, privileged {write}{'-' if leaf.pxn else 'x'}{'' if leaf.not_global else ', global'}"


def access2(leaf: Leaf) -> str:
    """What a leaf of stage 2 permits, for people."""
    write = "w" if leaf.writable else "d" if leaf.clean else "-"
    return f"{'r' if leaf.readable else '-'}{write}{'-' if leaf.uxn and leaf.pxn else 'x'}"


def leaves_differ(found: Output | Fault | None, kept: Output | Fault | None, why: str) -> Iterator[str]:
    """Translations that are cached and would not be made again of the tables; ``why`` that is so."""
    if not isinstance(kept, Output):
        return
    for stage in (1, 2):
        old = kept.stage1 if stage == 1 else kept.stage2
        new = None if not isinstance(found, Output) else found.stage1 if stage == 1 else found.stage2
        if old is None or (new is not None and old.descriptor == new.descriptor and old.output == new.output):
            continue
        where = f"stage {stage}: the TLB has {old.base:#x} at {old.output:#x} (descriptor {old.descriptor:#018x})"
        now = "none is there now" if new is None else f"it is {new.descriptor:#018x} now"
        yield f"{where}; {now}: {why}"
