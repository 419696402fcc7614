# SPDX-License-Identifier: Apache-2.0
"""The trace as Chrome's JSON events, which ui.perfetto.dev and chrome://tracing open.

Law: a request, a burst, a translation or a stall is written when it has ended, with all that is in it; so the file can
be read wherever it ends, and lacks nothing but the closing bracket, which readers of this format do without.
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
    Found,
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
from .slices import Args, Slice
from .text import fields, finding, is_event, stream
from .tracks import Tracks

#: Parts that are held until their whole is known; then it is written in pieces.
_MOST = 4096
#: Nanoseconds after which a translation is no longer taken for one of a request that is under way.
_PATIENCE = 1_000_000_000


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
        self._out = Tracks(began)
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
            Found: self._finding,
            Gap: self._gap,
            Snapshot: self._snapshot,
        }

    @property
    def only(self) -> frozenset[str] | None:
        return self._out.only

    @only.setter
    def only(self, kinds: frozenset[str] | None) -> None:
        self._out.only = kinds

    # -- as a file has it ----------------------------------------------------------------------------------------

    def joined(self, watch: Watch) -> None:
        self._smmu(watch.name).masters = watch.masters

    def begin(self) -> bytes:
        return b"[\n" + self._out.begin()

    def tell(self, value: Value) -> Iterable[bytes]:
        self._out.latest = max(self._out.latest, value.time)
        self._tells[type(value)](value)
        yield from self._out.taken()

    def rest(self) -> Iterable[bytes]:
        for who, smmu in self._smmus.items():
            self._end_burst(who, smmu)
            for fills in smmu.fills.values():
                self._walks(who, fills)
            smmu.fills.clear()
            for stall in smmu.stalls.values():
                self._out.slice(who, "stalls", _stall(stall, self._out.latest, {"answered": "not yet"}))
            smmu.stalls.clear()
        for held in self._held.values():
            self._release(held)
        yield from self._out.taken()

    def last(self, name: str, why: str) -> bytes:
        return self._out.last(name, why)

    def end(self) -> bytes:
        return b"\n]\n"

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
        self._out.instant("mmio", shown, it, "registers", args)

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
        self._out.slice(who, "commands", Slice("command", name, burst.begin, burst.latest, args, burst.commands))

    def _dropped(self, it: Dropped) -> None:
        smmu = self._smmu(it.who)
        if it.what.startswith("TLB"):
            smmu.entries = max(0, smmu.entries - it.entries)
            self._out.count(it.who, it.time, "TLB", "entries", smmu.entries)
        burst = smmu.burst
        if burst is not None and burst.commands and self._out.writes("command") and self._out.writes("drop"):
            last = burst.commands[-1]
            last.args = {**last.args, f"dropped of {it.what}": it.entries}
            return
        scope = {name: "any" if value is None else value for name, value in it.scope.items()}
        args = {"entries": it.entries, **names.hexed(scope)}
        self._out.instant("drop", f"{it.entries} dropped of {it.what}", it, "caches", args)

    def _fetched(self, it: Fetched) -> None:
        whose = names.hexed({**stream(it.sid, it.ssid), "pa": it.pa})
        shown = {name: value for name, value in it.structure.values().items() if value}
        self._out.instant("structure", names.of_structure(it), it, "caches", {**whose, **names.hexed(shown)})

    def _filled(self, it: Filled) -> None:
        smmu = self._smmu(it.who)
        smmu.entries += 1
        self._out.count(it.who, it.time, "TLB", "entries", smmu.entries)
        if not self._out.writes("translation"):
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
            self._out.slice(who, self._track(who, it.sid), _walk(it, it.time))

    def _used(self, it: Used) -> None:
        args = {**names.hexed({**stream(it.sid, it.ssid), "pa": it.pa}), "size": it.size}
        name = f"{names.way(it.write)} {it.iova:#x} is {it.pa:#x}"
        self._out.instant("use", name, it, f"uses: {self._master(it.who, it.sid)}", args)

    def _translated(self, it: Translated) -> None:
        if not self._out.writes("translation"):
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
            if fill.time >= since and self._out.writes("fill"):
                made.parts.append(_walk(fill, at))
                at = fill.time
        master = self._master(it.who, it.sid)
        if not self._out.writes("request"):
            self._out.slice(it.who, self._track(it.who, it.sid), made)
            return
        held = self._held.setdefault(master, deque())
        held.append((it.who, self._track(it.who, it.sid), made))
        while len(held) > _MOST or held[0][2].end < it.time - _PATIENCE:
            self._out.slice(*held.popleft())

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
                self._out.slice(who, track, each)
        self._out.slice(it.who, "requests", made)
        for part in mine:
            self._out.slice(*part)

    def _flow(self, request: Slice, translation: Slice) -> None:
        """From a request to what it asked for, and on to the first walk of that."""
        self._flows += 1
        request.flows.append(("s", self._flows, translation.begin))
        steps = [translation, *translation.parts[:1]]
        for each in steps:
            each.flows.append(("f" if each is steps[-1] else "t", self._flows, each.begin))

    def _release(self, held: deque[tuple[str, str, Slice]]) -> None:
        while held:
            self._out.slice(*held.popleft())

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
        self._out.instant("interrupt", name, it, "interrupts", args)

    def _moved(self, it: Moved) -> None:
        args: Args = {"iova": hex(it.iova), "size": it.size}
        if it.why is not None:
            self._fault(it, names.of_transfer(it), {**args, "done": it.done, "why": it.why})
        elif self._out.writes("dma"):
            begin = min(it.since or it.time, it.time)
            self._out.slice(it.who, "DMA", Slice("dma", names.of_transfer(it), begin, it.time, args))

    def _stalled(self, it: Stalled) -> None:
        stalls = self._smmu(it.who).stalls
        if not it.ended:
            first = stalls.get(it.key)  # told anew: software has answered, in vain
            stalls[it.key] = it if first is None else it._replace(time=first.time)
        elif (begun := stalls.pop(it.key, None)) is not None:
            self._out.slice(it.who, "stalls", _stall(begun, it.time, {}))
        self._out.count(it.who, it.time, "stalls", "outstanding", len(stalls))

    def _noted(self, it: Noted) -> None:
        if it.topic == "console":
            self._out.instant("console", it.name, it, "console", {})
        elif it.topic == "case":
            outcome, took = it.fields["outcome"], int(it.fields["took"])
            name = it.name if outcome == "passed" else f"{it.name}: {outcome}"
            self._out.slice(it.who, "cases", Slice("case", name, it.time - took, it.time, {"outcome": outcome}))
        elif it.topic == "fault":
            self._fault(it, names.of_note(it.name, it.fields), names.hexed(it.fields))
        else:
            track = "requests" if it.topic == "request" else it.topic
            self._out.instant(it.topic, names.of_note(it.name, it.fields), it, track, names.hexed(it.fields))

    def _finding(self, it: Found) -> None:
        self._out.instant("finding", f"rule {it.rule}", it, "faults", names.hexed(finding(it)), everywhere=True)

    def _gap(self, it: Gap) -> None:
        lost = {f"lost {kind.name or '?'}": count for kind, count in it.lost.items()}
        self._out.instant("trace", "GAP: there was no room to tell of all", it, "faults", lost, everywhere=True)

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
        self._out.count(it.who, it.time, "TLB", "entries", smmu.entries)
        self._out.count(it.who, it.time, "stalls", "outstanding", 0)
        if it.entries or it.contexts:
            name = f"watched from here: {len(it.entries)} entries, {len(it.contexts)} contexts are cached"
            self._out.instant("mmio", name, it, "registers", names.hexed(it.registers))

    # -- whose --------------------------------------------------------------------------------------------------

    def _smmu(self, who: str) -> _Smmu:
        if who not in self._smmus:
            self._smmus[who] = _Smmu()
        return self._smmus[who]

    def _master(self, who: str, sid: int | None) -> str:
        return "nobody" if sid is None else self._smmu(who).masters.get(sid, f"stream {sid:#x}")

    def _track(self, who: str, sid: int | None) -> str:
        return f"translations: {self._master(who, sid)}"

    def _fault(self, it: Value, name: str, args: Args) -> None:
        self._out.instant("fault", f"{it.who}: {name}", it, "faults", args, everywhere=True)

    def _depth(self, who: str, time: int, name: str, queue: _Queue) -> None:
        if queue.there:
            self._out.count(who, time, name, "depth", queue.depth)


def _walk(it: Filled, begin: int) -> Slice:
    return Slice("fill", names.of_walk(it), min(begin, it.time), it.time, names.walk_args(it))


def _stall(it: Stalled, end: int, more: Args) -> Slice:
    args = {**names.hexed({"sid": it.sid, "iova": it.iova}), "size": it.size, "waits": it.waits, **more}
    return Slice("fault", names.of_stall(it), it.time, end, args)


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
