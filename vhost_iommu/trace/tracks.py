# SPDX-License-Identifier: Apache-2.0
"""Events as viewers of timelines have them: processes, their tracks, and what lies on these.

Law: times are of one clock; slices of a track nest; each step of a flow is inside of a slice; what is taken at once can
be read without what follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..watch import Value
from .slices import Args, Lanes, Slice

#: In this order a viewer shows what a process has.
_TRACKS = ("cases", "console", "requests", "DMA", "commands", "faults", "stalls", "registers", "interrupts", "caches")
#: Numbers of processes; 0 is nobody's, in a viewer's eyes.
_TRACE_PID, _GUEST_PID = 1, 2
_GUEST, _TRACE = "guest", "trace"
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class Tracks:
    """Of one file: whoever has a track is a process, and its tracks are threads."""

    def __init__(self, began: int) -> None:
        """``began``: when times are counted from, in nanoseconds of the values' clock."""
        self.only: frozenset[str] | None = None  #: kinds to write; None: all
        self.latest = self._began = began
        self._events: list[Mapping[str, Any]] = []  # not yet taken
        self._processes: dict[str, int] = {}
        self._threads: dict[tuple[str, str, int], int] = {}
        self._lanes: dict[tuple[str, str], Lanes] = {}
        self._counted: dict[tuple[str, str], tuple[int, int]] = {}  # the latest of each counter, and when
        self._instants: dict[int, int] = {}  # when the latest of each thread was

    def begin(self) -> bytes:
        return _bytes({"ph": "M", "name": "process_name", "pid": _TRACE_PID, "args": {"name": _TRACE}})

    def taken(self) -> Iterator[bytes]:
        """What there is, which belongs together; each event has its separator before it."""
        if self._events:
            yield b"".join(b",\n" + _bytes(event) for event in self._events)
            self._events.clear()

    def last(self, name: str, why: str) -> bytes:
        """At the end of what was told, whatever was taken."""
        args = {"why": why, "lost": "all that follows"}
        place = {"pid": _TRACE_PID, "tid": _TRACE_PID, "ts": self._ts(self.latest)}
        return b",\n" + _bytes({"ph": "i", "s": "g", "name": name, "cat": "trace", **place, "args": args})

    # -- what lies on tracks -------------------------------------------------------------------------------------

    def writes(self, kind: str) -> bool:
        return self.only is None or kind in self.only

    def slice(self, who: str, track: str, made: Slice) -> None:
        if not self.writes(made.kind):
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

    def instant(self, kind: str, name: str, it: Value, track: str, args: Args, *, everywhere: bool = False) -> None:
        """``everywhere``: it is to be seen beside all tracks."""
        if kind != "trace" and not self.writes(kind):
            return
        pid, tid = self._thread(it.who, track)
        time = self._instants[tid] = max(it.time, self._instants.get(tid, 0))
        place = {"pid": pid, "tid": tid, "s": "g" if everywhere else "t"}
        self._events.append({"ph": "i", "name": name, "cat": kind, "ts": self._ts(time), **place, "args": args})

    def count(self, who: str, time: int, name: str, unit: str, value: int) -> None:
        if not self.writes("counter"):
            return
        before, at = self._counted.get((who, name), (None, 0))
        if value != before:
            at = max(time, at)
            self._counted[who, name] = value, at
            place = {"pid": self._process(who), "ts": self._ts(at)}
            self._events.append({"ph": "C", "name": name, "cat": "counter", **place, "args": {unit: value}})

    # -- numbers and times ---------------------------------------------------------------------------------------

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


def _bytes(event: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(event).encode()
