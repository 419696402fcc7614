# SPDX-License-Identifier: Apache-2.0
"""What a reader of Chrome's JSON demands of a trace, from the format's description alone: no code of the writer's."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

Event = dict[str, Any]


def nanoseconds(value: float) -> int:
    """Microseconds as JSON has them, which are whole nanoseconds."""
    exact = Fraction(repr(value)) * 1000
    assert exact.denominator == 1, f"{value} is no whole number of nanoseconds"
    return int(exact)


def slices(events: Sequence[Event]) -> dict[tuple[int, int], list[tuple[int, int, Event]]]:
    """By thread, (begin, end, event)."""
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            begin = nanoseconds(event["ts"])
            found[event["pid"], event["tid"]].append((begin, begin + nanoseconds(event["dur"]), event))
    return found


def check(events: Sequence[Event]) -> None:
    """AssertionError: a viewer would drop something of it, or draw it wrongly."""
    named = {(e["pid"], e.get("tid")) for e in events if e["name"] in ("thread_name", "process_name")}
    tids = [event["tid"] for event in events if event["name"] == "thread_name"]
    assert len(tids) == len(set(tids)), "viewers take a thread's number for one of the whole file's"
    assert not set(tids) & {event["pid"] for event in events}, "a thread of its process's number is the main one"
    for event in events:
        assert isinstance(event["name"], str), event
        assert event["pid"] > 0, f"process 0 is nobody: {event}"
        assert set(event) <= {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args", "s", "id", "bp"}, event
        if event["ph"] == "M":
            continue
        assert nanoseconds(event["ts"]) >= 0, event
        assert (event["pid"], None) in named, event
        assert event["ph"] in "XiCstf", event
        if event["ph"] in "Xstf" or event.get("s") == "t":
            assert (event["pid"], event["tid"]) in named, event
        if event["ph"] == "i":
            assert event["s"] in ("t", "g"), event
        if event["ph"] == "C":
            assert event["args"], event
            assert all(type(value) is int and value >= 0 for value in event["args"].values()), event
    _nest(events)
    _bind(events)
    _grow(events)


def _nest(events: Sequence[Event]) -> None:
    for thread, found in slices(events).items():
        around: list[tuple[int, int]] = []
        # As a viewer sorts them: by time, and where that is equal as they stand in the file.
        for begin, end, event in sorted(found, key=lambda each: each[0]):
            assert end > begin, f"{event['name']} takes no time"
            while around and around[-1][1] <= begin:
                around.pop()
            assert not around or end <= around[-1][1], f"{event['name']} of {thread} ends after what it is in"
            around.append((begin, end))


def _bind(events: Sequence[Event]) -> None:
    outermost = {thread: _outermost(found) for thread, found in slices(events).items()}
    steps: dict[int, list[tuple[int, int, Event]]] = defaultdict(list)
    for at, event in enumerate(events):
        if event["ph"] in "stf":
            steps[event["id"]].append((nanoseconds(event["ts"]), at, event))
    for number, flow in steps.items():
        phases = "".join(event["ph"] for _, _, event in sorted(flow, key=lambda each: each[:2]))
        assert phases[0] == "s", f"flow {number} goes {phases}"
        assert phases[-1] == "f", f"flow {number} goes {phases}"
        assert set(phases[1:-1]) <= {"t"}, f"flow {number} goes {phases}"
        for time, _, event in flow:
            track = outermost[event["pid"], event["tid"]]
            at = bisect_right(track, time, key=lambda bounds: bounds[0]) - 1
            assert at >= 0, f"a step of flow {number} is before all slices"
            assert time < track[at][1], f"a step of flow {number} is in no slice"
            assert event["ph"] != "f" or event["bp"] == "e"


def _outermost(found: Sequence[tuple[int, int, Event]]) -> list[tuple[int, int]]:
    """Bounds of those that are in no other, in order; they nest."""
    kept: list[tuple[int, int]] = []
    for begin, end, _ in sorted(found, key=lambda each: (each[0], -each[1])):
        if not kept or begin >= kept[-1][1]:
            kept.append((begin, end))
    return kept


def _grow(events: Sequence[Event]) -> None:
    """What is of one track, and no slice that is known only when it ends, stands in the order of time."""
    latest: dict[tuple[Any, ...], int] = {}
    for event in events:
        if event["ph"] in "iC":
            track = event["ph"], event["pid"], event.get("tid"), event["name"] if event["ph"] == "C" else ""
            time = nanoseconds(event["ts"])
            assert time >= latest.get(track, 0), event
            latest[track] = time
