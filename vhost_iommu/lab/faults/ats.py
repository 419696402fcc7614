# SPDX-License-Identifier: Apache-2.0
"""Faults of a master's address translation cache (ATC)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...smmu.seams import Verdict
from .injection import Bare, Injection, parameter


@dataclass
class AtcInvalidation(Injection):
    """An invalidation of a master's ATC is answered late, held until the master is reset, or times out; until it is
    answered, what it names stays in use. A CMD_SYNC waits for it, and after a time-out is CERROR_ATC_INV_SYNC.
    """

    KIND = "atc-invalidation"
    TARGET = "master"
    SECTION = "4.5.1"
    LATER = True
    BARE = (
        Bare(
            "answer=late seconds=1",
            "faults",
            "sync_waits_for_a_late_answer",
            "CMD_SYNC waits for the answer; until then the master uses what is unmapped.",
        ),
        Bare(
            "answer=held",
            "faults",
            "sync_never_completes_where_no_answer_comes",
            "CMD_SYNC never completes, and there is no error.",
        ),
        Bare(
            "answer=time-out",
            "faults",
            "a_time_out_stops_the_queue_until_it_is_acknowledged",
            "CERROR_ATC_INV_SYNC; the queue goes on once that is acknowledged, and the master uses what is unmapped "
            "until its next invalidation.",
        ),
    )

    answer: Literal["late", "held", "time-out"] = parameter("what becomes of it")
    seconds: float = parameter("how late a late answer is", 2.0)

    def invalidation(self, what: str, complete: Callable[[], None]) -> Verdict | None:
        how = {"late": f"is answered {self.seconds:g} s late", "held": "is held", "time-out": "times out"}[self.answer]
        if not self.strikes(f"an invalidation of {what} {how}"):
            return None
        if self.answer == "late":
            assert self.lab.later is not None
            self.lab.later(self.seconds, complete)
        return Verdict.IGNORE if self.answer == "time-out" else Verdict.HOLD


KINDS = (AtcInvalidation,)
