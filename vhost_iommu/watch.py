# SPDX-License-Identifier: Apache-2.0
"""Who looks on: what models tell, as values in one order for each instance, and those who are told (docs/watching.md).

Law: to look changes nothing. A model tells with one test while nobody looks on; watchers are called by one thread at a
time, in the order of numbers, with no lock of a model held, and what they are told is theirs to keep.
"""

from __future__ import annotations

import functools
import heapq
import re
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import IntFlag
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from .layout import Layout
from .sealed import Sealed


class Kind(IntFlag):
    """What may be told; a watcher names those that it wants. In C: enum vi_kind (watch.h), by bit number."""

    TOLD = 1 << 0  #: in the core's ring, the place of what Python tells
    ACCESSED = 1 << 1
    COMMAND = 1 << 2
    FETCHED = 1 << 3
    FILLED = 1 << 4
    USED = 1 << 5
    DROPPED = 1 << 6
    TRANSLATED = 1 << 7
    REPORTED = 1 << 8
    INTERRUPTED = 1 << 9
    MOVED = 1 << 10
    STALLED = 1 << 11
    SERVED = 1 << 12
    NOTED = 1 << 13
    GAP = 1 << 14
    SNAPSHOT = 1 << 15
    FOUND = 1 << 16


ALL = Kind((1 << 17) - 1)
#: What the core tells by itself, so that somebody has to fetch it.
BY_CORE = (
    Kind.ACCESSED | Kind.COMMAND | Kind.FILLED | Kind.USED | Kind.DROPPED | Kind.TRANSLATED | Kind.MOVED
    | Kind.INTERRUPTED | Kind.SERVED | Kind.FOUND
)  # fmt: skip


# -- what is told ------------------------------------------------------------------------------------------------
#
# ``number``: of the instance; ``time``: nanoseconds of CLOCK_MONOTONIC; ``who``: an SMMU's name or a master's.


class Accessed(NamedTuple):
    """A register access."""

    number: int
    time: int
    who: str
    register: str
    offset: int
    size: int
    value: int
    write: bool


class Commanded(NamedTuple):
    """A command; numbered before it was carried out, but a CMD_SYNC after the readers were waited for."""

    number: int
    time: int
    who: str
    command: Layout
    error: str  #: "CERROR_NONE" where there is none


class Fetched(NamedTuple):
    """A structure of the configuration, such as an STE, that was read."""

    number: int
    time: int
    who: str
    sid: int
    ssid: int | None
    structure: Layout
    pa: int


class Filled(NamedTuple):
    """An entry of a TLB that is there from now on, and the leaf that it is of."""

    number: int
    time: int
    who: str
    sid: int | None  #: None: of an entry that was there before, nobody knows
    ssid: int | None
    stage: int
    world: int
    vmid: int
    asid: int | None  #: None: global
    aset: int
    base: int
    shift: int  #: log2 of its bytes
    output: int
    level: int
    granule_bits: int
    descriptor: int
    descriptor_at: int
    flags: int  #: as VI_USER … of the core (core.h)

    def covers(self, address: int) -> bool:
        return self.base <= address < self.base + (1 << self.shift)


class Used(NamedTuple):
    """``size`` bytes at ``iova`` that a request found at ``pa``, by entries of the TLBs."""

    number: int
    time: int
    who: str
    sid: int
    ssid: int | None
    iova: int
    size: int
    pa: int
    write: bool


class Dropped(NamedTuple):
    """What an invalidation dropped; numbered before it was carried out."""

    number: int
    time: int
    who: str
    what: str  #: "TLB", "TLB of stage 2", or "contexts"
    entries: int
    scope: Mapping[str, int | None]  #: what it names; None: any


class Translated(NamedTuple):
    """How a transaction was answered."""

    number: int
    time: int
    who: str
    sid: int
    ssid: int | None
    iova: int
    size: int
    write: bool
    pa: int | None  #: of its first byte
    outcome: str
    partid: int = 0
    pmg: int = 0
    since: int = 0  #: when it began, as ``time``; 0: not known


class Reported(NamedTuple):
    """An event record, or a global error; ``kept``: it reached the event queue."""

    number: int
    time: int
    who: str
    record: Layout
    kept: bool


class Interrupted(NamedTuple):
    """An interrupt: a message, or the pulse of a wire (``address`` None)."""

    number: int
    time: int
    who: str
    source: str
    address: int | None
    data: int | None


class Moved(NamedTuple):
    """A master's transfer; ``done`` of its bytes were moved, and ``why`` it ended there if it did."""

    number: int
    time: int
    who: str
    iova: int
    size: int
    write: bool
    done: int
    why: str | None
    since: int = 0  #: when it began, as ``time``; 0: not known


class Stalled(NamedTuple):
    """A transaction that waits for software, or (``ended``) does so no more; ``key`` tells it from others."""

    number: int
    time: int
    who: str
    key: int
    sid: int
    iova: int
    size: int
    write: bool
    stag: int | None  #: None: not told to software yet
    waits: str  #: for what, in words
    ended: bool


class Served(NamedTuple):
    """A request to a device that is a master, such as a disk's read, which took ``duration`` nanoseconds."""

    number: int
    time: int
    who: str
    request: str
    status: str
    duration: int
    fields: Mapping[str, int | str]


class Noted(NamedTuple):
    """What else there is to tell, such as a fault that struck; ``topic`` is a kind of trace records."""

    number: int
    time: int
    who: str
    topic: str
    name: str
    fields: Mapping[str, float | str]


class Found(NamedTuple):
    """What a check has found wrong, before bytes moved; ``rule`` is the check's own number of what it goes by."""

    number: int
    time: int
    who: str
    rule: int
    sid: int
    ssid: int | None
    iova: int
    write: bool
    cached: int | None  #: the descriptor of which the entry was made that was used; None: there was no entry
    now: int | None  #: what is there now in memory; None: that could not be read
    synced: int  #: the number of the last CMD_SYNC that had completed


class Gap(NamedTuple):
    """Records for which there was no room: how many of each kind, whose numbers would be in [first, number)."""

    number: int
    time: int
    who: str
    first: int
    lost: Mapping[Kind, int]


class Snapshot(NamedTuple):
    """How an instance stood when a watcher joined: told to it alone, and first."""

    number: int
    time: int
    who: str
    registers: Mapping[str, int]
    contexts: tuple[tuple[int, int | None, Any], ...]  #: (StreamID, SubstreamID, Context) that were cached
    entries: tuple[Filled, ...]


Value: TypeAlias = (
    Accessed | Commanded | Fetched | Filled | Used | Dropped | Translated | Reported | Interrupted | Moved | Stalled
    | Served | Noted | Found | Gap | Snapshot
)  # fmt: skip

V = TypeVar("V", bound=Value)

_KINDS: dict[type[Any], tuple[Kind, str]] = {
    Accessed: (Kind.ACCESSED, "accessed"),
    Commanded: (Kind.COMMAND, "command"),
    Fetched: (Kind.FETCHED, "fetched"),
    Filled: (Kind.FILLED, "filled"),
    Used: (Kind.USED, "used"),
    Dropped: (Kind.DROPPED, "dropped"),
    Translated: (Kind.TRANSLATED, "translated"),
    Reported: (Kind.REPORTED, "reported"),
    Interrupted: (Kind.INTERRUPTED, "interrupted"),
    Moved: (Kind.MOVED, "moved"),
    Stalled: (Kind.STALLED, "stalled"),
    Served: (Kind.SERVED, "served"),
    Noted: (Kind.NOTED, "noted"),
    Found: (Kind.FOUND, "found"),
    Gap: (Kind.GAP, "gap"),
    Snapshot: (Kind.SNAPSHOT, "snapshot"),
}


def kind_of(value: type[Any]) -> Kind:
    """The kind of a type of values."""
    return _KINDS[value][0]


# -- those who are told --------------------------------------------------------------------------------------------


class Watcher:
    """Derive, and override what is wanted; by ``wants`` models leave out what nobody wants.

    Called by one thread at a time, with no lock of a model held. Whoever is slow has others wait to be told, and no
    model. ``gap`` and ``snapshot`` are told to all.
    """

    wants: Kind = ALL

    def accessed(self, it: Accessed) -> None: ...

    def command(self, it: Commanded) -> None: ...

    def fetched(self, it: Fetched) -> None: ...

    def filled(self, it: Filled) -> None: ...

    def used(self, it: Used) -> None: ...

    def dropped(self, it: Dropped) -> None: ...

    def translated(self, it: Translated) -> None: ...

    def reported(self, it: Reported) -> None: ...

    def interrupted(self, it: Interrupted) -> None: ...

    def moved(self, it: Moved) -> None: ...

    def stalled(self, it: Stalled) -> None: ...

    def served(self, it: Served) -> None: ...

    def noted(self, it: Noted) -> None: ...

    def found(self, it: Found) -> None: ...

    def gap(self, it: Gap) -> None: ...

    def snapshot(self, it: Snapshot) -> None: ...

    def batch(self, batches: Sequence[Batch]) -> None:
        """All of the above, in bulk: of each instance what comes next."""
        for value in in_order(batches, int(self.wants)):
            self.tell(value)

    def tell(self, value: Value) -> None:
        """One of the above, whichever it is."""
        getattr(self, _KINDS[type(value)][1])(value)

    def joined(self, watch: Watch) -> None:
        """It is told of ``watch`` from now on."""


_ALWAYS = int(Kind.GAP | Kind.SNAPSHOT)
_NUMBERS: dict[type[Any], int] = {value: int(kind) for value, (kind, _) in _KINDS.items()}
# As plain numbers: to combine flags takes longer than to tell.
_ACCESSED, _FETCHED, _FILLED, _USED = (int(kind) for kind in (Kind.ACCESSED, Kind.FETCHED, Kind.FILLED, Kind.USED))
_TRANSLATED, _INTERRUPTED, _MOVED = int(Kind.TRANSLATED), int(Kind.INTERRUPTED), int(Kind.MOVED)
_STALLED, _SERVED = int(Kind.STALLED), int(Kind.SERVED)


class Recording(Watcher):
    """Keeps all that it is told, raw until it is looked at."""

    def __init__(self, wants: Kind = ALL) -> None:
        self.wants = wants
        self._batches: list[Batch] = []
        self._watches: list[Watch] = []

    def batch(self, batches: Sequence[Batch]) -> None:
        self._batches += batches

    def joined(self, watch: Watch) -> None:
        self._watches.append(watch)

    def __iter__(self) -> Iterator[Value]:
        """Of one instance in the order of numbers; of several, as their clock says."""
        deliver(self._watches)
        streams: dict[Watch, list[Batch]] = {}
        for batch in tuple(self._batches):
            streams.setdefault(batch.watch, []).append(batch)
        wants = int(self.wants)
        return heapq.merge(*(_chain(stream, wants) for stream in streams.values()), key=_time)

    def of(self, kind: type[V], who: str | None = None) -> list[V]:
        """All values of one type, of one device or of all."""
        return [value for value in self if isinstance(value, kind) and who in (None, value.who)]

    @property
    def raw_bytes(self) -> int:
        """How much the core has told."""
        deliver(self._watches)
        return sum(len(batch.raw) for batch in self._batches)

    @property
    def accesses(self) -> list[Accessed]:
        return self.of(Accessed)

    @property
    def commands(self) -> list[Commanded]:
        return self.of(Commanded)

    @property
    def events(self) -> list[Reported]:
        return self.of(Reported)

    @property
    def translations(self) -> list[Translated]:
        return self.of(Translated)

    @property
    def interrupts(self) -> list[Interrupted]:
        return self.of(Interrupted)

    @property
    def requests(self) -> list[Served]:
        return self.of(Served)

    @property
    def gaps(self) -> list[Gap]:
        return self.of(Gap)


# -- the order of one instance ---------------------------------------------------------------------------------------


class Ring(Protocol):
    """Where an instance's numbers come from, and what the core has told (``_core/watch.h``)."""

    def claim(self) -> int:
        """The next number, whose value Python has; -1: there is no room before ``take``."""

    def take(self) -> tuple[int, bytes, list[int]]:
        """What has been told since: the first number, RECORD after RECORD, and which numbers Python has."""

    def watch(self, kinds: int) -> None:
        """Tell of these kinds from now on."""

    def synced(self, number: int) -> None:
        """A CMD_SYNC of this number has completed."""

    def look_at(self, mirror: Any) -> None:
        """Tell of reads that are answered from a mirror."""

    def call(self, eventfd: int) -> None:
        """Have this told when there is much to take; -1: nobody."""

    @property
    def crowded(self) -> bool:
        """Whether it is time to take."""

    #: Called where room is wanted.
    gather: Callable[[], None] | None


#: A record of the core (struct vi_record): number + 1, time, StreamID, SubstreamID, kind, flags, small, size, words.
RECORD = struct.Struct("<QQIIBBHI4Q")
_KIND_AT = 24  #: where in a record its kind is
_NOBODY = 0xFFFF_FFFF
_NOWHERE = 0xFFFF_FFFF_FFFF_FFFF  #: of a transaction without bytes


#: Bytes that are kept for who has still to say what a number means, before the ring is left to fill up.
MOST_KEPT = 64 << 20


class PlainRing:
    """The same without the core: numbers alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = self._taken = 0

    def claim(self) -> int:
        with self._lock:
            number = self._next
            self._next += 1
        return number

    def take(self) -> tuple[int, bytes, list[int]]:
        with self._lock:
            first, self._taken = self._taken, self._next
        return first, b"", list(range(first, self._taken))

    def watch(self, kinds: int) -> None:
        pass

    def synced(self, number: int) -> None:
        pass

    def look_at(self, mirror: Any) -> None:
        pass

    def call(self, eventfd: int) -> None:
        pass

    crowded = False
    gather: Callable[[], None] | None = None


class Batch:
    """What one instance told, in order, as it came; its values are made when it is looked at."""

    __slots__ = ("first", "raw", "told", "values", "watch")

    def __init__(self, watch: Watch, first: int, raw: bytes, told: Sequence[int], values: Mapping[int, Value]) -> None:
        """``raw``: of the core, with a place for each number of Python's; empty where Python alone tells."""
        self.watch = watch
        self.first = first
        self.raw = raw
        self.told = told
        self.values = values

    def of(self, kinds: int) -> Iterator[Value]:
        """Those of these kinds, and of those that all are told; no other is made."""
        kinds |= _ALWAYS
        watch, values, first, raw = self.watch, self.values, self.first, self.raw
        if not raw:
            found = (values[number] for number in self.told if number in values)
            yield from (value for value in found if _NUMBERS[type(value)] & kinds)
            return
        for match in _places(kinds).finditer(raw[_KIND_AT :: RECORD.size]):
            at = match.start()
            decode = _DECODERS.get(raw[at * RECORD.size + _KIND_AT])
            if decode is not None:
                yield decode(watch, first + at, RECORD.unpack_from(raw, at * RECORD.size))
            else:
                value = values.get(first + at)
                if value is not None and _NUMBERS[type(value)] & kinds:
                    yield value


@functools.cache
def _places(kinds: int) -> re.Pattern[bytes]:
    """Finds in the kinds of records those that are wanted, and the places of what Python tells."""
    kinds |= Kind.TOLD
    return re.compile(b"[" + b"".join(re.escape(bytes([bit])) for bit in range(17) if kinds >> bit & 1) + b"]")


def _chain(batches: Iterable[Batch], kinds: int) -> Iterator[Value]:
    for batch in batches:
        yield from batch.of(kinds)


def _time(value: Value) -> int:
    return value.time


def in_order(batches: Sequence[Batch], kinds: int) -> Iterator[Value]:
    """What is of these kinds: of one instance in the order of numbers; what several told, as their clock says."""
    streams: dict[Watch, list[Batch]] = {}
    for batch in batches:
        streams.setdefault(batch.watch, []).append(batch)
    if len(streams) == 1:
        return _chain(batches, kinds)
    return heapq.merge(*(_chain(stream, kinds) for stream in streams.values()), key=_time)


class _Joins(NamedTuple):
    number: int
    watcher: Watcher
    snapshot: Snapshot


class _Leaves(NamedTuple):
    number: int
    watcher: Watcher


class Watched(Protocol):
    """What an instance gives of itself to who begins to look on; its locks are held."""

    def look(self, ring: Any, on: bool) -> None:
        """Have the core tell there, or not."""

    def of_stream(self, sid: int, ssid: int | None) -> None:
        """Have the core tell of this stream what is done under the lock."""

    def waited_for(self) -> None:
        """Return when no request is under way that began before."""

    def registers(self) -> Mapping[str, int]:
        """By name."""

    def contexts(self) -> Iterable[tuple[int, int | None, Any]]:
        """(StreamID, SubstreamID, Context) of those that are cached."""

    def entries(self) -> Iterable[tuple[int, Any, Any]]:
        """(stage, space, mapping) of each entry of the TLBs."""


def _no_register(offset: int) -> str:
    return f"{offset:#x}"


def _no_command(data: bytes) -> Layout:
    raise LookupError("there are no commands here")


class Watch(Sealed):
    """The seam of one instance and its masters, where they tell: ``if watch.on: watch.accessed(…)``."""

    OPEN = frozenset({
        "on", "kinds", "by_core", "stream", "register_named", "command_of", "wake", "_watched", "_taken", "_delivering",
    })  # fmt: skip

    def __init__(self, name: str, ring: Ring | None = None) -> None:
        self.name = name
        self.ring: Ring = PlainRing() if ring is None else ring
        self.ring.gather = self._take
        #: Whether anybody looks on: asked before anything is told, and all that is asked while nobody does.
        self.on = False
        self.kinds = 0  #: that somebody wants
        self.by_core = False  #: whether the core tells some of them by itself
        #: What is told belongs to this stream, while the instance's lock is held.
        self.stream: tuple[int, int | None] = (0, None)
        #: Of the instance, for what the core tells.
        self.register_named: Callable[[int], str] = _no_register
        self.command_of: Callable[[bytes], Layout] = _no_command
        #: Masters by StreamID, likewise.
        self.masters: dict[int, str] = {}
        #: Called, from any thread, when there is something to deliver.
        self.wake: Callable[[], None] | None = None
        self._watched: Watched | None = None
        #: In the order in which they are taken: masters', then the instance's.
        self._locks: list[AbstractContextManager[Any]] = []
        self._values: dict[int, Any] = {}
        self._taking = threading.Lock()  # guards what was taken from the ring
        self._taken: list[tuple[int, bytes, list[int]]] = []
        self._turn = threading.RLock()  # held by who delivers
        self._delivering = False
        self._watchers: list[Watcher] = []  # who is told
        self._joining = threading.Lock()  # guards who is to be
        self._members: list[Watcher] = []

    # -- for the instance and its masters ------------------------------------------------------------------------

    def bind(self, watched: Watched, lock: AbstractContextManager[Any]) -> None:
        """It is ``watched`` that tells, under this lock."""
        self._watched = watched
        self._locks.append(lock)
        if isinstance(watched, Sealed):
            watched.seal()

    def master(self, name: str, sids: Sequence[int]) -> None:
        self.masters.update(dict.fromkeys(sids, name))

    def master_lock(self, lock: AbstractContextManager[Any]) -> None:
        """A master's, which it holds before it asks the instance."""
        self._locks.insert(0, lock)

    def mirrored(self, mirror: Any) -> None:
        """Reads are answered from ``mirror``, if it is of the core."""
        if type(self.ring) is not PlainRing:
            self.ring.look_at(mirror)

    def of_stream(self, sid: int, ssid: int | None) -> None:
        """What is told from now on, while the instance's lock is held, is of this stream."""
        self.stream = sid, ssid
        if self._watched is not None:
            self._watched.of_stream(sid, ssid)

    def relieve(self) -> None:
        """For who is about to have the core do much: room is made before it is scarce."""
        if self.ring.crowded and self._may_take():
            self._take()

    def synced(self) -> int:
        """A number for a CMD_SYNC, once the readers were waited for."""
        number = self.begin()
        self.ring.synced(number)
        return number

    def begin(self) -> int:
        """A number for what is told later, by ``void`` at the least."""
        while (number := self.ring.claim()) < 0:
            self._take()
        return number

    def void(self, number: int) -> None:
        """Nothing is told by this number."""
        self._values[number] = None

    def _put(self, number: int, value: Any) -> None:
        self._values[number] = value
        if self.wake is not None:
            self.wake()

    def accessed(self, register: str, offset: int, size: int, value: int, *, write: bool, who: str = "") -> None:
        if not self.kinds & _ACCESSED:
            return
        n = self.begin()
        self._put(n, Accessed(n, time.monotonic_ns(), who or self.name, register, offset, size, value, write))

    def command(self, number: int, command: Layout, error: str) -> None:
        self._put(number, Commanded(number, time.monotonic_ns(), self.name, command, error))

    def fetched(self, structure: Layout, pa: int) -> None:
        if not self.kinds & _FETCHED:
            return
        n = self.begin()
        sid, ssid = self.stream
        self._put(n, Fetched(n, time.monotonic_ns(), self.name, sid, ssid, structure, pa))

    def filled(self, stage: int, space: Any, mapping: Any) -> None:
        if not self.kinds & _FILLED:
            return
        n = self.begin()
        sid, ssid = self.stream
        self._put(n, _filled(n, time.monotonic_ns(), self.name, sid, ssid, stage, space, mapping))

    def used(self, iova: int, size: int, pa: int, *, write: bool) -> None:
        if not self.kinds & _USED:
            return
        n = self.begin()
        sid, ssid = self.stream
        self._put(n, Used(n, time.monotonic_ns(), self.name, sid, ssid, iova, size, pa, write))

    def dropped(self, number: int, what: str, entries: int, scope: Mapping[str, int | None]) -> None:
        self._put(number, Dropped(number, time.monotonic_ns(), self.name, what, entries, scope))

    def translated(
        self, sid: int, ssid: int | None, iova: int, size: int, pa: int | None, outcome: str, mpam: tuple[int, int],
        *, write: bool, since: int = 0,
    ) -> None:  # fmt: skip
        if not self.kinds & _TRANSLATED:
            return
        n = self.begin()
        now = time.monotonic_ns()
        self._put(n, Translated(n, now, self.name, sid, ssid, iova, size, write, pa, outcome, *mpam, since))

    def reported(self, record: Layout, *, kept: bool, number: int | None = None) -> None:
        n = self.begin() if number is None else number
        self._put(n, Reported(n, time.monotonic_ns(), self.name, record, kept))

    def interrupted(self, source: str, address: int | None, data: int | None, *, who: str = "") -> None:
        if not self.kinds & _INTERRUPTED:
            return
        n = self.begin()
        self._put(n, Interrupted(n, time.monotonic_ns(), who or self.name, source, address, data))

    def moved(self, who: str, iova: int, size: int, done: int, why: str | None = None, *, write: bool) -> None:
        if not self.kinds & _MOVED:
            return
        n = self.begin()
        self._put(n, Moved(n, time.monotonic_ns(), who, iova, size, write, done, why))

    def stalled(
        self, key: int, sid: int, iova: int, size: int, stag: int | None, waits: str, *, write: bool, ended: bool
    ) -> None:
        if not self.kinds & _STALLED:
            return
        n = self.begin()
        self._put(n, Stalled(n, time.monotonic_ns(), self.name, key, sid, iova, size, write, stag, waits, ended))

    def now(self) -> int:
        """When what is told later has begun; 0 while nobody looks on."""
        return time.monotonic_ns() if self.on else 0

    def served(self, who: str, request: str, status: str, begun: int, **fields: int | str) -> None:
        """``begun``: what ``now`` said then."""
        if not self.kinds & _SERVED:
            return
        n = self.begin()
        now = time.monotonic_ns()
        self._put(n, Served(n, now, who, request, status, now - (begun or now), fields))

    def noted(self, who: str, topic: str, name: str, **fields: float | str) -> None:
        n = self.begin()
        self._put(n, Noted(n, time.monotonic_ns(), who, topic, name, fields))

    # -- for who looks on ------------------------------------------------------------------------------------------

    def attach(self, watcher: Watcher) -> None:
        """``watcher`` is told of all that begins from now on, a Snapshot first. The instance may be at work."""
        with self._joining, self._held():
            self._members.append(watcher)
            self._want()
            number = self.begin()
            self._values[number] = _Joins(number, watcher, self._snapshot(number))
        self.flush()

    def detach(self, watcher: Watcher) -> None:
        """``watcher`` has been told of all that happened until now, when this returns, and is told no more."""
        with self._joining, self._held():
            self._members.remove(watcher)
            self._want()
            number = self.begin()
            self._values[number] = _Leaves(number, watcher)
        self.flush()

    @contextmanager
    def recording(self, wants: Kind = ALL) -> Iterator[Recording]:
        """All that happens meanwhile."""
        made = Recording(wants)
        self.attach(made)
        try:
            yield made
        finally:
            self.detach(made)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Nothing of the instance is under way, and nothing begins."""
        with ExitStack() as stack:
            for lock in self._locks:
                stack.enter_context(lock)
            if self._watched is not None:
                self._watched.waited_for()
            yield

    def _want(self) -> None:
        kinds = 0
        for watcher in self._members:
            kinds |= watcher.wants
        self.ring.watch(int(kinds))
        self.kinds = int(kinds)
        self.on = bool(self._members)
        self.by_core = bool(kinds & BY_CORE)
        if self._watched is not None:
            self._watched.look(self.ring, self.by_core)
            self._watched.waited_for()  # for those who began before

    def _snapshot(self, number: int) -> Snapshot:
        now = time.monotonic_ns()
        if self._watched is None:
            return Snapshot(number, now, self.name, {}, (), ())
        entries = tuple(
            _filled(number, now, self.name, None, None, stage, space, mapping)
            for stage, space, mapping in self._watched.entries()
        )
        return Snapshot(number, now, self.name, self._watched.registers(), tuple(self._watched.contexts()), entries)

    # -- delivery ----------------------------------------------------------------------------------------------------

    def _may_take(self) -> bool:
        """Whether to take before anybody must, while something that is on its way keeps all that follows here."""
        return sum(len(raw) for _, raw, _ in self._taken) < MOST_KEPT

    def _take(self) -> None:
        """Make room: what the ring has is kept here from now on."""
        with self._taking:
            for _ in range(2):  # what was lost is told once there is room
                first, raw, told = self.ring.take()
                if raw or told:
                    self._taken.append((first, raw, told))

    def flush(self) -> None:
        """Tell all watchers what was told until now; in the library, where no drainer does."""
        deliver([self])

    def batches(self) -> list[tuple[Batch, tuple[Watcher, ...]]]:
        """What there is to deliver, and to whom; for ``deliver``, whose turn it is."""
        found = [] if self._may_take() else self._deliverable()
        if self._may_take():
            self._take()
            found += self._deliverable()
        return found

    def _deliverable(self) -> list[tuple[Batch, tuple[Watcher, ...]]]:
        """Of what was taken, up to the first number of which nothing is said yet."""
        with self._taking:
            taken, self._taken = self._taken, []
        found: list[tuple[Batch, tuple[Watcher, ...]]] = []
        while taken:
            first, raw, told = taken.pop(0)
            values: dict[int, Value] = {}
            begin = 0
            for at, number in enumerate(told):
                if number not in self._values:  # it is on its way: what follows waits for it
                    taken.insert(0, _from(first, raw, told, at, number))
                    break
                value = self._values.pop(number)
                if isinstance(value, (_Joins, _Leaves)):
                    found += self._batch(first, raw, told[begin:at], number, values)
                    first, raw, _ = _from(first, raw, told, at + 1, number + 1)
                    begin, values = at + 1, {}
                    found += self._change(value)
                elif value is not None:
                    values[number] = value
            else:
                found += self._batch(first, raw, told[begin:], None, values)
                continue
            upto = taken[0][0]
            found += self._batch(first, raw, told[begin:at], upto, values)
            break
        if taken:
            with self._taking:
                self._taken[:0] = taken
        return found

    def _batch(
        self, first: int, raw: bytes, told: Sequence[int], end: int | None, values: dict[int, Value]
    ) -> list[tuple[Batch, tuple[Watcher, ...]]]:
        part = raw if end is None else raw[: max(0, end - first) * RECORD.size]
        if not part and not values:
            return []
        return [(Batch(self, first, part, told, values), tuple(self._watchers))]

    def _change(self, value: _Joins | _Leaves) -> list[tuple[Batch, tuple[Watcher, ...]]]:
        if isinstance(value, _Leaves):
            self._watchers.remove(value.watcher)
            return []
        self._watchers.append(value.watcher)
        value.watcher.joined(self)
        first = Batch(self, value.number, b"", [value.number], {value.number: value.snapshot})
        return [(first, (value.watcher,))]


def _from(first: int, raw: bytes, told: list[int], at: int, number: int) -> tuple[int, bytes, list[int]]:
    """What was taken, from ``number`` on; ``told[at]`` is the first of Python's that is left."""
    return number, raw[(number - first) * RECORD.size :], told[at:]


def deliver(watches: Sequence[Watch]) -> None:
    """Have the watchers of these instances told what there is; who is told already is not told from within."""
    with ExitStack() as stack:
        for watch in watches:
            stack.enter_context(watch._turn)
        mine = [watch for watch in watches if not watch._delivering]
        for watch in mine:
            watch._delivering = True
        try:
            batches: dict[Watcher, list[Batch]] = {}
            for watch in mine:
                for batch, watchers in watch.batches():
                    for watcher in watchers:
                        batches.setdefault(watcher, []).append(batch)
            for watcher, theirs in batches.items():
                watcher.batch(theirs)
        finally:
            for watch in mine:
                watch._delivering = False


class Watches:
    """The watches of one machine, in the order in which its devices were made."""

    def __init__(self) -> None:
        self.all: list[Watch] = []
        self._by_name: dict[str, Watch] = {}

    def add(self, watch: Watch, *names: str) -> Watch:
        """``names``: of devices that tell there."""
        self.all.append(watch)
        for name in names:
            self._by_name[name] = watch
        return watch

    def of(self, name: str) -> Watch:
        """Where the device of this name tells."""
        return self._by_name[name]

    def attach(self, watcher: Watcher) -> None:
        for watch in self.all:
            watch.attach(watcher)

    def detach(self, watcher: Watcher) -> None:
        for watch in self.all:
            watch.detach(watcher)

    @contextmanager
    def recording(self, wants: Kind = ALL) -> Iterator[Recording]:
        """All that happens meanwhile in the machine."""
        made = Recording(wants)
        self.attach(made)
        try:
            yield made
        finally:
            self.detach(made)

    @property
    def by_core(self) -> bool:
        """Whether anybody wants to hear what the core tells by itself."""
        return any(watch.by_core for watch in self.all)

    def call(self, eventfd: int) -> None:
        """Have this told when there is much to deliver; -1: nobody."""
        for watch in self.all:
            watch.ring.call(eventfd)

    def flush(self) -> bool:
        """Deliver; the drainer's work, of which there is never more."""
        deliver(self.all)
        return False


# -- what the core tells -----------------------------------------------------------------------------------------------


def _filled(
    number: int, now: int, who: str, sid: int | None, ssid: int | None, stage: int, space: Any, mapping: Any
) -> Filled:
    """``space`` and ``mapping`` are as a TLB has them."""
    flags = mapping.user | mapping.writable << 1 | mapping.readable << 2 | mapping.clean << 3
    flags |= mapping.not_global << 5 | mapping.pxn << 6 | mapping.uxn << 7
    return Filled(
        number, now, who, sid, ssid, stage, space.world, space.vmid, space.asid, space.aset, mapping.base,
        mapping.shift, mapping.output, mapping.level, mapping.granule_bits, mapping.descriptor, mapping.descriptor_at,
        flags,
    )  # fmt: skip


_Record: TypeAlias = tuple[int, ...]
_WRITE = 1


def _ssid(ssid: int) -> int | None:
    return None if ssid == _NOBODY else ssid


def _accessed(watch: Watch, n: int, r: _Record) -> Accessed:
    return Accessed(n, r[1], watch.name, watch.register_named(r[8]), r[8], r[7], r[9], bool(r[5] & _WRITE))


def _command(watch: Watch, n: int, r: _Record) -> Commanded:
    data = r[8].to_bytes(8, "little") + r[9].to_bytes(8, "little")
    return Commanded(n, r[1], watch.name, watch.command_of(data), "CERROR_NONE")


def _filled_by_core(watch: Watch, n: int, r: _Record) -> Filled:
    small, packed, output = r[6], r[7], r[9]
    return Filled(
        n, r[1], watch.name, r[2], _ssid(r[3]), 1 + (small >> 10 & 1), small >> 6 & 3, packed >> 16,
        None if small >> 9 & 1 else packed & 0xFFFF, small >> 8 & 1, r[8] & ~0xFFF, r[8] & 0xFFF, output & ~0xFFF,
        (output & 7) - 1, output >> 4 & 0x1F, r[10], r[11], r[5],
    )  # fmt: skip


def _used(watch: Watch, n: int, r: _Record) -> Used:
    return Used(n, r[1], watch.name, r[2], _ssid(r[3]), r[8], r[9], r[10], bool(r[5] & _WRITE))


def _dropped(watch: Watch, n: int, r: _Record) -> Dropped:
    how, world = r[5], r[7] & 0xFF
    if how == _CONTEXTS:
        ssid = None if r[2] == _NOBODY else r[2]
        return Dropped(n, r[1], watch.name, "contexts", r[10], {"first": r[8], "last": r[9], "ssid": ssid})
    what = "TLB" if world else "TLB of stage 2"
    if how == _ALL:
        return Dropped(n, r[1], watch.name, what, r[10], {})
    vmid = None if r[7] & 0x100 else r[6]
    scope = {"world": world, "vmid": vmid, "vmid_mask": r[3] >> 16, "asid": None if r[2] == _NOBODY else r[2]}
    if how == _RANGE:
        level = r[3] & 0xFF
        scope |= {"start": r[8], "size": r[9], "granule_bits": r[3] >> 8 & 0xFF}
        scope["level"] = None if level == _ANY_LEVEL else level
    return Dropped(n, r[1], watch.name, what, r[10], scope)


#: enum vi_dropped, and VI_ANY_LEVEL.
_RANGE, _ALL, _CONTEXTS = 1, 2, 3
_ANY_LEVEL = 127


def _translated(watch: Watch, n: int, r: _Record) -> Translated:
    pa = None if r[10] == _NOWHERE else r[10]
    return Translated(n, r[1], watch.name, r[2], _ssid(r[3]), r[8], r[9], bool(r[5] & _WRITE), pa, "ok", 0, 0, r[11])


def _interrupted(watch: Watch, n: int, r: _Record) -> Interrupted:
    return Interrupted(n, r[1], watch.name, "cmdq-sync", r[8], r[9])


def _moved(watch: Watch, n: int, r: _Record) -> Moved:
    who = watch.masters.get(r[2], watch.name)
    return Moved(n, r[1], who, r[8], r[9], bool(r[5] & _WRITE), r[9], None, r[11])


def _served(watch: Watch, n: int, r: _Record) -> Served:
    who, name = watch.masters.get(r[2], watch.name), "OUT" if r[7] else "IN"
    return Served(n, r[1], who, name, "OK", r[1] - r[10], {"sector": r[8], "size": r[9]})


def _found(watch: Watch, n: int, r: _Record) -> Found:
    cached, now = r[9] if r[6] & 1 else None, r[10] if r[6] & 2 else None
    return Found(n, r[1], watch.name, r[7], r[2], _ssid(r[3]), r[8], bool(r[5] & _WRITE), cached, now, r[11])


def _gap(watch: Watch, n: int, r: _Record) -> Gap:
    lost = struct.unpack("<4I", struct.pack("<2Q", r[9], r[10]))
    kinds = (Kind.ACCESSED, Kind.USED, Kind.TRANSLATED, Kind.MOVED)
    return Gap(n, r[1], watch.name, r[8], {kind: count for kind, count in zip(kinds, lost, strict=True) if count})


def _bit(kind: Kind) -> int:
    return int(kind).bit_length() - 1


#: By enum vi_kind.
_DECODERS: dict[int, Callable[[Watch, int, _Record], Value]] = {
    _bit(Kind.ACCESSED): _accessed,
    _bit(Kind.COMMAND): _command,
    _bit(Kind.FILLED): _filled_by_core,
    _bit(Kind.USED): _used,
    _bit(Kind.DROPPED): _dropped,
    _bit(Kind.TRANSLATED): _translated,
    _bit(Kind.INTERRUPTED): _interrupted,
    _bit(Kind.MOVED): _moved,
    _bit(Kind.SERVED): _served,
    _bit(Kind.FOUND): _found,
    _bit(Kind.GAP): _gap,
}
