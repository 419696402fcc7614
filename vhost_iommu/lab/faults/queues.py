# SPDX-License-Identifier: Apache-2.0
"""Faults of queues that software reads."""

from __future__ import annotations

from dataclasses import dataclass

from .injection import Bare, Injection, Seen


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


@dataclass
class FullPageRequestQueue(Injection):
    """The page request queue has no room for a request: it overflows, and the endpoint is answered Success."""

    KIND = "full-page-request-queue"
    SECTION = "8.1"
    BARE = (
        Bare(
            "",
            "ats",
            "a_page_request_is_answered_by_a_page",
            "The request is answered Success and made again, which PRIQ_PROD.OVFLG lets nobody see.",
            passes=False,
        ),
    )

    def room(self, queue: str) -> bool:
        return not (queue == "priq" and self.strikes("a request found no room in the page request queue"))


KINDS = (FullEventQueue, FullPageRequestQueue)
