# SPDX-License-Identifier: Apache-2.0
"""The trace as Chrome's JSON events, which ui.perfetto.dev and chrome://tracing open.

Law: what is written at once can be read without what follows, but for the closing bracket, which readers of this format
do without. Times are of one clock; slices of a track nest; each step of a flow is inside of a slice.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..watch import (
    Accessed,
    Commanded,
    Dropped,
    Fetched,
    Filled,
    Gap,
    Interrupted,
    Kind,
    Moved,
    Noted,
    Reported,
    Served,
    Snapshot,
    Stalled,
    Translated,
    Used,
    Value,
    Watch,
)
from . import names
from .form import KINDS
from .slices import Args, Lanes, Slice
from .text import fields, is_event, stream

#: Parts that are held until their whole is known; then it is written in pieces.
_MOST = 4096
#: Nanoseconds after which a translation is no longer taken for one of a request that is under way.
_PATIENCE = 1_000_000_000
#: In this order a viewer shows what a process has.
_TRACKS = ("cases", "console", "requests", "DMA", "commands", "faults", "stalls", "registers", "interrupts", "caches")
#: Numbers of processes; 0 is nobody's, in a viewer's eyes.
_TRACE_PID, _GUEST_PID = 1, 2
_GUEST, _TRACE = "guest", "trace"
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


@dataclass
class _Queue:
    """What of a queue in memory its registers say."""

    there: bool = False  #: not all models have it
    bits: int = 0
    prod: int = 0
    cons: int = 0

    @property
    def depth(self) -> int:
        return (self.prod - self.cons) % (2 << self.bits)

    def register(self, name: str, value: int) -> None:
        if name == "BASE":
            self.there, self.bits = True, value & 0x1F
        elif name == "PROD":
            self.prod = value & 0xF_FFFF
        elif name == "CONS":
            self.cons = value & 0xF_FFFF


@dataclass
class _Burst:
    """Commands from a store to PROD until CONS has reached it."""

    begin: int
    prod: int | None = None
    commands: list[Slice] = field(default_factory=list)
    error: str = ""

    @property
    def latest(self) -> int:
        return self.commands[-1].end if self.commands else self.begin


@dataclass
class _Smmu:
    """What is remembered of an SMMU."""

    queues: Mapping[str, _Queue] = field(default_factory=lambda: {"CMDQ": _Queue(), "EVENTQ": _Queue()})
    burst: _Burst | None = None
    entries: int = 0
    stalls: dict[int, Stalled] = field(default_factory=dict)
    #: Masters behind it by StreamID.
    masters: Mapping[int, str] = field(default_factory=dict)
    #: By stream, fills whose transaction is under way.
    fills: dict[tuple[int | None, int | None], list[Filled]] = field(default_factory=dict)


class Chrome:
    """Events of one file: a process for the guest, each SMMU and each master; tracks are its threads."""

    kinds: Mapping[str, Kind] = {
        **KINDS,
        "command": Kind.COMMAND | Kind.ACCESSED,
        "counter": Kind.ACCESSED | Kind.COMMAND | Kind.FILLED | Kind.DROPPED | Kind.STALLED | Kind.REPORTED,
    }

    def __init__(self, began: int) -> None:
        """``began``: when times are counted from, in nanoseconds of the values' clock."""
        self.only: frozenset[str] | None = None
        self._began = self._latest = began
        self._events: list[Mapping[str, Any]] = []  # of what is told now
        self._processes: dict[str, int] = {}
        self._threads: dict[tuple[str, str, int], int] = {}
        self._lanes: dict[tuple[str, str], Lanes] = {}
        self._counted: dict[tuple[str, str], tuple[int, int]] = {}  # the latest of each counter, and when
        self._instants: dict[int, int] = {}  # when the latest of each thread was
        self._flows = 0
        self._smmus: dict[str, _Smmu] = {}
        #: By master, translations of a request that is under way: on which track, and what.
        self._held: dict[str, deque[tuple[str, str, Slice]]] = {}
        self._tells: Mapping[type[Any], Callable[[Any], None]] = {
            Accessed: self._accessed,
            Commanded: self._command,
            Fetched: self._fetched,
            Filled: self._filled,
            Used: self._used,
            Dropped: self._dropped,
            Translated: self._translated,
            Reported: self._reported,
            Interrupted: self._interrupted,
            Moved: self._moved,
            Stalled: self._stalled,
            Served: self._served,
            Noted: self._noted,
            Gap: self._gap,
            Snapshot: self._snapshot,
        }

    # -- as a file has it ----------------------------------------------------------------------------------------

    def joined(self, watch: Watch) -> None:
        self._smmu(watch.name).masters = watch.masters

    def begin(self) -> bytes:
        first = {"ph": "M", "name": "process_name", "pid": _TRACE_PID, "args": {"name": _TRACE}}
        return b"[\n" + _bytes(first)

    def tell(self, value: Value) -> Iterable[bytes]:
        self._latest = max(self._latest, value.time)
        self._tells[type(value)](value)
        yield from self._told()

    def rest(self) -> Iterable[bytes]:
        for who, smmu in self._smmus.items():
            self._end_burst(who, smmu)
            for fills in smmu.fills.values():
                self._walks(who, fills)
            smmu.fills.clear()
            for stall in smmu.stalls.values():
                self._slice(who, "stalls", _stall(stall, self._latest, {"answered": "not yet"}))
            smmu.stalls.clear()
        for held in self._held.values():
            self._release(held)
        yield from self._told()

    def last(self, name: str, why: str) -> bytes:
        args = {"why": why, "lost": "all that follows"}
        place = {"pid": _TRACE_PID, "tid": _TRACE_PID, "ts": self._ts(self._latest)}
        return b",\n" + _bytes({"ph": "i", "s": "g", "name": name, "cat": "trace", **place, "args": args})

    def end(self) -> bytes:
        return b"\n]\n"

    def _told(self) -> Iterator[bytes]:
        if self._events:
            yield b"".join(b",\n" + _bytes(event) for event in self._events)
            self._events.clear()

    # -- what is told --------------------------------------------------------------------------------------------

    def _accessed(self, it: Accessed) -> None:
        smmu = self._smmu(it.who)
        name, _, which = it.register.rpartition("_")
        queue = smmu.queues.get(name) if it.write else None
        if queue is not None:
            busy = queue.depth
            queue.register(which, it.value)
            if name == "CMDQ" and which == "PROD":
                self._rung(it, smmu, busy=bool(busy))
            self._depth(it.who, it.time, name, queue)
        shown = f"{it.register} = {it.value:#x}" if it.write else f"read {it.register}: {it.value:#x}"
        args: Args = {"offset": hex(it.offset), "size": it.size, "value": hex(it.value), "access": names.way(it.write)}
        self._instant("mmio", shown, it, "registers", args)

    def _rung(self, it: Accessed, smmu: _Smmu, *, busy: bool) -> None:
        """There is more for CONS to reach; what comes while it is on its way is of the same burst."""
        if busy and smmu.burst is not None and not smmu.burst.error:
            smmu.burst.prod = it.value
        elif smmu.queues["CMDQ"].depth:
            self._end_burst(it.who, smmu)
            smmu.burst = _Burst(it.time, it.value)

    def _command(self, it: Commanded) -> None:
        smmu = self._smmu(it.who)
        queue = smmu.queues["CMDQ"]
        burst, long = smmu.burst, smmu.burst is not None and len(smmu.burst.commands) >= _MOST
        if burst is None or long or burst.error or (burst.commands and not queue.depth):
            # One that goes on, or is resumed; or nobody has seen its store.
            self._end_burst(it.who, smmu)
            burst = smmu.burst = _Burst(burst.latest if burst is not None and long else it.time)
        failed = it.error if it.error not in ("", "CERROR_NONE") else ""
        what = type(it.command).__name__
        args = {"command": what, **names.hexed(fields(it.command)), "result": it.error}
        name = names.of_command(it.command) + (f": {failed}" if failed else "")
        burst.commands.append(Slice("command", name, burst.latest, it.time, args))
        burst.error = failed
        if not failed and queue.depth:
            queue.cons += 1
            self._depth(it.who, it.time, "CMDQ", queue)

    def _end_burst(self, who: str, smmu: _Smmu) -> None:
        burst, smmu.burst = smmu.burst, None
        if burst is None or not burst.commands:
            return
        kinds = [str(each.args["command"]) for each in burst.commands]
        args: dict[str, float | str] = {"commands": len(kinds), "each": names.of_burst(kinds)}
        if burst.prod is not None:
            args["PROD"] = hex(burst.prod)
        name = names.of_burst(kinds) + (f": {burst.error}" if burst.error else "")
        self._slice(who, "commands", Slice("command", name, burst.begin, burst.latest, args, burst.commands))

    def _dropped(self, it: Dropped) -> None:
        smmu = self._smmu(it.who)
        if it.what.startswith("TLB"):
            smmu.entries = max(0, smmu.entries - it.entries)
            self._count(it.who, it.time, "TLB", "entries", smmu.entries)
        burst = smmu.burst
        if burst is not None and burst.commands and self._writes("command") and self._writes("drop"):
            last = burst.commands[-1]
            last.args = {**last.args, f"dropped of {it.what}": it.entries}
            return
        scope = {name: "any" if value is None else value for name, value in it.scope.items()}
        args = {"entries": it.entries, **names.hexed(scope)}
        self._instant("drop", f"{it.entries} dropped of {it.what}", it, "caches", args)

    def _fetched(self, it: Fetched) -> None:
        whose = names.hexed({**stream(it.sid, it.ssid), "pa": it.pa})
        shown = {name: value for name, value in it.structure.values().items() if value}
        self._instant("structure", names.of_structure(it), it, "caches", {**whose, **names.hexed(shown)})

    def _filled(self, it: Filled) -> None:
        smmu = self._smmu(it.who)
        smmu.entries += 1
        self._count(it.who, it.time, "TLB", "entries", smmu.entries)
        if not self._writes("translation"):
            self._walks(it.who, [it])
            return
        fills = smmu.fills.setdefault((it.sid, it.ssid), [])
        fills.append(it)
        if len(fills) > _MOST:
            self._walks(it.who, fills)
            fills.clear()

    def _walks(self, who: str, fills: Sequence[Filled]) -> None:
        """On a track of their own: of what they are part nobody has told."""
        for it in fills:
            self._slice(who, self._track(who, it.sid), _walk(it, it.time))

    def _used(self, it: Used) -> None:
        args = {**names.hexed({**stream(it.sid, it.ssid), "pa": it.pa}), "size": it.size}
        name = f"{names.way(it.write)} {it.iova:#x} is {it.pa:#x}"
        self._instant("use", name, it, f"uses: {self._master(it.who, it.sid)}", args)

    def _translated(self, it: Translated) -> None:
        if not self._writes("translation"):
            return
        fills = self._smmu(it.who).fills.pop((it.sid, it.ssid), [])
        since = min(it.since or (fills[0].time if fills else it.time), it.time)
        self._walks(it.who, [fill for fill in fills if fill.time < since])
        where = {} if it.pa is None else {"pa": it.pa}
        if it.partid or it.pmg:
            where |= {"partid": it.partid, "pmg": it.pmg}
        args = {**names.hexed({**stream(it.sid, it.ssid), "iova": it.iova, **where}), "size": it.size}
        made = Slice("translation", names.of_translation(it), since, it.time, {**args, "outcome": it.outcome})
        at = since
        for fill in fills:
            if fill.time >= since and self._writes("fill"):
                made.parts.append(_walk(fill, at))
                at = fill.time
        master = self._master(it.who, it.sid)
        if not self._writes("request"):
            self._slice(it.who, self._track(it.who, it.sid), made)
            return
        held = self._held.setdefault(master, deque())
        held.append((it.who, self._track(it.who, it.sid), made))
        while len(held) > _MOST or held[0][2].end < it.time - _PATIENCE:
            self._slice(*held.popleft())

    def _served(self, it: Served) -> None:
        begun = it.time - it.duration
        made = Slice("request", names.of_request(it), begun, it.time, {**it.fields, "status": it.status})
        held = self._held.get(it.who, deque())
        mine: list[tuple[str, str, Slice]] = []
        while held and held[0][2].begin <= it.time:
            who, track, each = held.popleft()
            if each.begin >= begun:
                mine.append((who, track, each))
                self._flow(made, each)
            else:
                self._slice(who, track, each)
        self._slice(it.who, "requests", made)
        for part in mine:
            self._slice(*part)

    def _flow(self, request: Slice, translation: Slice) -> None:
        """From a request to what it asked for, and on to the first walk of that."""
        self._flows += 1
        request.flows.append(("s", self._flows, translation.begin))
        steps = [translation, *translation.parts[:1]]
        for each in steps:
            each.flows.append(("f" if each is steps[-1] else "t", self._flows, each.begin))

    def _release(self, held: deque[tuple[str, str, Slice]]) -> None:
        while held:
            self._slice(*held.popleft())

    def _reported(self, it: Reported) -> None:
        if is_event(it.record):
            queue = self._smmu(it.who).queues["EVENTQ"]
            queue.prod += it.kept
            self._depth(it.who, it.time, "EVENTQ", queue)
            args = names.hexed(fields(it.record))
        else:
            args = {"value": hex(it.record.raw)}
        self._fault(it, names.of_event(it), args)

    def _interrupted(self, it: Interrupted) -> None:
        if it.address is None:
            name = f"wire {it.source}".rstrip()
            args: Args = {} if it.data is None else {"intid": it.data}
        else:
            name, args = f"MSI {it.source}", names.hexed({"address": it.address, "data": it.data or 0})
        self._instant("interrupt", name, it, "interrupts", args)

    def _moved(self, it: Moved) -> None:
        args: Args = {"iova": hex(it.iova), "size": it.size}
        if it.why is not None:
            self._fault(it, names.of_transfer(it), {**args, "done": it.done, "why": it.why})
        elif self._writes("dma"):
            begin = min(it.since or it.time, it.time)
            self._slice(it.who, "DMA", Slice("dma", names.of_transfer(it), begin, it.time, args))

    def _stalled(self, it: Stalled) -> None:
        stalls = self._smmu(it.who).stalls
        if not it.ended:
            first = stalls.get(it.key)  # told anew: software has answered, in vain
            stalls[it.key] = it if first is None else it._replace(time=first.time)
        elif (begun := stalls.pop(it.key, None)) is not None:
            self._slice(it.who, "stalls", _stall(begun, it.time, {}))
        self._count(it.who, it.time, "stalls", "outstanding", len(stalls))

    def _noted(self, it: Noted) -> None:
        if it.topic == "console":
            self._instant("console", it.name, it, "console", {})
        elif it.topic == "case":
            outcome, took = it.fields["outcome"], int(it.fields["took"])
            name = it.name if outcome == "passed" else f"{it.name}: {outcome}"
            self._slice(it.who, "cases", Slice("case", name, it.time - took, it.time, {"outcome": outcome}))
        elif it.topic == "fault":
            self._fault(it, names.of_note(it.name, it.fields), names.hexed(it.fields))
        else:
            track = "requests" if it.topic == "request" else it.topic
            self._instant(it.topic, names.of_note(it.name, it.fields), it, track, names.hexed(it.fields))

    def _gap(self, it: Gap) -> None:
        lost = {f"lost {kind.name or '?'}": count for kind, count in it.lost.items()}
        self._instant("trace", "GAP: there was no room to tell of all", it, "faults", lost, everywhere=True)

    def _snapshot(self, it: Snapshot) -> None:
        """Of an instance that is at work already; of one that is new there is little to tell."""
        smmu = self._smmu(it.who)
        for name, value in it.registers.items():
            queue, _, which = name.rpartition("_")
            if queue in smmu.queues:
                smmu.queues[queue].register(which, value)
        smmu.entries = len(it.entries)
        for queue in smmu.queues:
            self._depth(it.who, it.time, queue, smmu.queues[queue])
        self._count(it.who, it.time, "TLB", "entries", smmu.entries)
        self._count(it.who, it.time, "stalls", "outstanding", 0)
        if it.entries or it.contexts:
            name = f"watched from here: {len(it.entries)} entries, {len(it.contexts)} contexts are cached"
            self._instant("mmio", name, it, "registers", names.hexed(it.registers))

    # -- tracks --------------------------------------------------------------------------------------------------

    def _writes(self, kind: str) -> bool:
        return self.only is None or kind in self.only

    def _smmu(self, who: str) -> _Smmu:
        if who not in self._smmus:
            self._smmus[who] = _Smmu()
        return self._smmus[who]

    def _master(self, who: str, sid: int | None) -> str:
        return "nobody" if sid is None else self._smmu(who).masters.get(sid, f"stream {sid:#x}")

    def _track(self, who: str, sid: int | None) -> str:
        return f"translations: {self._master(who, sid)}"

    def _ts(self, time: int) -> float:
        return max(time - self._began, 0) / 1000

    def _process(self, who: str) -> int:
        pid = self._processes.get(who)
        if pid is None:
            others = sum(each != _GUEST for each in self._processes)
            pid = self._processes[who] = _GUEST_PID if who == _GUEST else _GUEST_PID + 1 + others
            self._meta("process_name", {"pid": pid}, name=who)
            self._meta("process_sort_index", {"pid": pid}, sort_index=pid)
        return pid

    def _thread(self, who: str, track: str, lane: int = 0) -> tuple[int, int]:
        pid = self._process(who)
        tid = self._threads.get((who, track, lane))
        if tid is None:
            # A number of its own in the whole file, and none that is a process's.
            tid = self._threads[who, track, lane] = 1000 + len(self._threads)
            order = _TRACKS.index(track) if track in _TRACKS else len(_TRACKS)
            place = {"pid": pid, "tid": tid}
            self._meta("thread_name", place, name=track if not lane else f"{track} ({lane + 1})")
            self._meta("thread_sort_index", place, sort_index=order * 100 + lane)
        return pid, tid

    def _meta(self, what: str, place: Mapping[str, int], **args: int | str) -> None:
        self._events.append({"ph": "M", "name": what, **place, "args": args})

    def _slice(self, who: str, track: str, made: Slice) -> None:
        if not self._writes(made.kind):
            return
        made.begin, made.end = max(made.begin, self._began), max(made.end, self._began)
        lane = self._lanes.setdefault((who, track), Lanes()).place(made)
        pid, tid = self._thread(who, track, lane)
        for each in made.all():
            place = {"cat": each.kind, "pid": pid, "tid": tid}
            took = {"ts": self._ts(each.begin), "dur": (each.end - each.begin) / 1000}
            self._events.append({"ph": "X", "name": each.name, **place, **took, "args": each.args})
            for phase, number, at in each.flows:
                time = self._ts(min(max(at, each.begin), each.end - 1))
                flow = {"ph": phase, "id": number, "name": "request", **place, "cat": "flow", "ts": time}
                self._events.append({**flow, "bp": "e"} if phase == "f" else flow)

    def _instant(self, kind: str, name: str, it: Value, track: str, args: Args, *, everywhere: bool = False) -> None:
        """``everywhere``: it is to be seen beside all tracks."""
        if kind != "trace" and not self._writes(kind):
            return
        pid, tid = self._thread(it.who, track)
        time = self._instants[tid] = max(it.time, self._instants.get(tid, 0))
        place = {"pid": pid, "tid": tid, "s": "g" if everywhere else "t"}
        self._events.append({"ph": "i", "name": name, "cat": kind, "ts": self._ts(time), **place, "args": args})

    def _fault(self, it: Value, name: str, args: Args) -> None:
        self._instant("fault", f"{it.who}: {name}", it, "faults", args, everywhere=True)

    def _depth(self, who: str, time: int, name: str, queue: _Queue) -> None:
        if queue.there:
            self._count(who, time, name, "depth", queue.depth)

    def _count(self, who: str, time: int, name: str, unit: str, value: int) -> None:
        if not self._writes("counter"):
            return
        before, at = self._counted.get((who, name), (None, 0))
        if value != before:
            at = max(time, at)
            self._counted[who, name] = value, at
            place = {"pid": self._process(who), "ts": self._ts(at)}
            self._events.append({"ph": "C", "name": name, "cat": "counter", **place, "args": {unit: value}})


def _walk(it: Filled, begin: int) -> Slice:
    return Slice("fill", names.of_walk(it), min(begin, it.time), it.time, names.walk_args(it))


def _stall(it: Stalled, end: int, more: Args) -> Slice:
    args = {**names.hexed({"sid": it.sid, "iova": it.iova}), "size": it.size, "waits": it.waits, **more}
    return Slice("fault", names.of_stall(it), it.time, end, args)


def _bytes(event: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(event).encode()


def load(text: str) -> list[dict[str, Any]]:
    """The events of a Chrome JSON trace, also of one that was cut off anywhere."""
    with suppress(ValueError):
        whole: list[dict[str, Any]] = json.loads(text)
        return whole
    return list(_whole_events(text))


def _whole_events(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        line = line.rstrip(",")
        if line.startswith("{"):
            with suppress(ValueError):
                yield json.loads(line)
