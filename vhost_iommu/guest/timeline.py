# SPDX-License-Identifier: Apache-2.0
"""When what happened in a run: the guest's tests, and what the models did and reported meanwhile.

Law: it looks on and takes notes, a bounded number of them; nothing waits for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vhost_iommu.guest.ktap import Ktap, Result
from vhost_iommu.watch import Kind, Noted, Reported, Stalled, Watcher

#: Moments that are noted; further ones are counted.
MOST = 500
#: What is counted beside commands and events.
_COUNTED = ("translations", "walks", "faults", "stalls")


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened ``seconds`` after the beginning."""

    seconds: float
    who: str
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A guest's test, or a live one's command: when its result came, and what each SMMU did since the one before."""

    seconds: float
    result: Result
    counts: Mapping[str, Counter[str]]


@dataclass(eq=False)
class Timeline(Watcher):
    """Notes of one run. ``counters`` are those of each SMMU by its name, as they are when they are asked for."""

    counters: Callable[[], Mapping[str, Any]] = dict
    clock: Callable[[], int] = time.monotonic_ns
    moments: list[Moment] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    left_out: int = 0

    wants = Kind.REPORTED | Kind.STALLED | Kind.NOTED

    def __post_init__(self) -> None:
        self._ktap = Ktap()
        self.begin()

    def begin(self) -> None:
        """Time is counted from now on."""
        #: When the test that runs began, as far as is known: when the result of the one before it came.
        self._began = self.told = self.clock()
        self._before: dict[str, Counter[str]] = {}

    def line(self, text: str) -> Result | None:
        """The guest's console says this; the test's result that it is."""
        if not self._ktap.announced:
            self.told = self.clock()  # no test has begun before this
        result = self._ktap.feed(text)
        if result is not None and not result.parent:
            self.did(result)
        return result

    def did(self, result: Result) -> None:
        """The guest has done this."""
        self.told = self.clock()
        now = {name: _counts(each) for name, each in self.counters().items()}
        since = {name: counts - self._before.get(name, Counter()) for name, counts in now.items()}
        self._before = now
        self.operations.append(Operation(self._seconds(self.told), result, since))

    def reported(self, it: Reported) -> None:
        self._note(it.time, it.who, it.record.text() + ("" if it.kept else " (lost)"))

    def stalled(self, it: Stalled) -> None:
        if not it.ended:
            self._note(it.time, it.who, f"stalled: stream {it.sid:#x} at {it.iova:#x}")

    def noted(self, it: Noted) -> None:
        self._note(it.time, it.who, f"{it.name} {it.fields.get('what', '')}".rstrip())

    def _seconds(self, nanoseconds: int) -> float:
        return (nanoseconds - self._began) / 1e9

    def _note(self, at: int, who: str, text: str) -> None:
        if len(self.moments) < MOST:
            self.moments.append(Moment(self._seconds(at), who, text))
        else:
            self.left_out += 1


def _counts(counters: Any) -> Counter[str]:
    """Commands and events by kind, and some more."""
    found = Counter(counters.commands_by_kind)
    found.update(counters.events_by_kind)
    found.update({name: getattr(counters, name) for name in _COUNTED})
    return found
