# SPDX-License-Identifier: Apache-2.0
"""Faults of stalled transactions: which comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...smmu.transaction import Stall
from .injection import Bare, Injection, parameter


@dataclass
class StallOrder(Injection):
    """Of several stalled transactions another than the oldest comes first: where software resumes them (those of one
    burst of commands, up to a CMD_SYNC), where it terminates them, or where those that waited for room are reported.
    """

    KIND = "stall-order"
    SECTION = "3.12.2"
    BARE = (
        Bare(
            "of=resume",
            "faults",
            "stalls_resumed_at_once_end_in_reverse",
            "Of three retries that fault again, the events come in reverse.",
        ),
        Bare(
            "of=terminate",
            "faults",
            "stalls_terminated_in_reverse_are_all_aborted",
            "Each is aborted, the last first.",
        ),
        Bare(
            "of=report",
            "faults",
            "of_stalls_that_wait_the_newest_is_told_first",
            "Once there is room, the newest of those that wait is told of.",
        ),
    )

    of: Literal["resume", "terminate", "report"] = parameter("where")
    order: str = parameter(
        "'reversed', 'random', or places, as in '2,0,1': the third first, then the first two, then all others",
        "reversed",
        r"reversed|random|\d{1,5}(,\d{1,5})*",
    )

    def stalls(self, what: str, stalls: Sequence[Stall]) -> Sequence[Stall] | None:
        if what != self.of or [*(wanted := self._wanted(stalls))] == [*stalls]:
            return None
        places = ", ".join(str(stalls.index(each)) for each in wanted[:8])
        return wanted if self.strikes(f"of {len(stalls)} stalls, {what} comes in the order {places}") else None

    def _wanted(self, stalls: Sequence[Stall]) -> Sequence[Stall]:
        if self.order == "reversed":
            return stalls[::-1]
        if self.order == "random":
            return self.random.sample(stalls, len(stalls))
        wanted = [place for place in map(int, str(self.order).split(",")) if place < len(stalls)]
        return [stalls[place] for place in dict.fromkeys((*wanted, *range(len(stalls))))]


KINDS = (StallOrder,)
