# SPDX-License-Identifier: Apache-2.0
"""Faults of queues that software reads."""

from __future__ import annotations

from dataclasses import dataclass

from .injection import Injection, Seen


@dataclass
class FullEventQueue(Injection):
    """The event queue has no room for a record: it is lost, and the queue overflows."""

    KIND = "full-event-queue"
    SECTION = "7.4"
    LINUX = (
        Seen(
            "",
            ("EVTQ overflow detected -- events lost",),
            "It says so with the next event that finds room; all goes on.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
        ),
    )

    def room(self, queue: str) -> bool:
        return not (queue == "eventq" and self.strikes("a record found no room in the event queue"))


KINDS = (FullEventQueue,)
