# SPDX-License-Identifier: Apache-2.0
"""Slices, and tracks on which they lie so that a viewer can draw them.

Law: on a track slices are within each other or apart. What overlaps otherwise, as requests may that stall, gets a track
beside the first; what clocks say of a part beyond its whole is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Args = Mapping[str, float | str]


@dataclass(eq=False, slots=True)
class Slice:
    """Something that took from ``begin`` to ``end``, in nanoseconds, and its parts in their order."""

    kind: str
    name: str
    begin: int
    end: int
    args: Args = field(default_factory=dict)
    parts: list[Slice] = field(default_factory=list)
    #: Steps of flows: "s", "t" or "f", the flow's number, and when.
    flows: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def least(self) -> int:
        """Nanoseconds that it takes to draw: in the first there is none of its parts, so that a flow finds it."""
        return 1 + sum(part.least for part in self.parts)

    def laid(self, begin: int, end: int) -> None:
        """Have it and its parts within these bounds, which have room for it."""
        least = self.least
        self.begin = min(max(self.begin, begin), end - least)
        self.end = min(max(self.end, self.begin + least), end)
        at, left = self.begin + 1, least - 1
        for part in self.parts:
            left -= part.least
            part.laid(at, self.end - left)
            at = part.end

    def all(self) -> Iterator[Slice]:
        """It, and all its parts, from the outermost on."""
        yield self
        for part in self.parts:
            yield from part.all()


@dataclass
class Lanes:
    """Tracks of one name, and when the last slice of each ends."""

    ends: list[int] = field(default_factory=list)

    def place(self, each: Slice) -> int:
        """The number of the track for it, which from now on has it."""
        each.laid(each.begin, max(each.end, each.begin + each.least))
        for at, end in enumerate(self.ends):
            if end <= each.begin:
                self.ends[at] = each.end
                return at
        self.ends.append(each.end)
        return len(self.ends) - 1
