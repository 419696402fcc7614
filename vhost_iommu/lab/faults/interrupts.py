# SPDX-License-Identifier: Apache-2.0
"""Faults of interrupts, as messages or on wires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...smmu.seams import Verdict
from .injection import Bare, Injection, Seen, parameter

#: Lines that give an SMMU page requests, and with them all of the errors that there are.
PRI = ('ats = "full"', "pri = true")
#: Lines that give an SMMU wires in place of MSIs.
WIRED = ("msi = false", 'interrupts = "wired"')

#: Sources of interrupts, as a device tree names them.
Source = Literal["eventq", "gerror", "priq", "cmdq-sync"]


@dataclass
class LoseInterrupt(Injection):
    """An interrupt, as a message or on a wire, is not sent."""

    KIND = "lose-interrupt"
    SECTION = "3.18"
    LINUX = (
        Seen(
            "source=cmdq-sync after=20",
            ("CMD_SYNC timeout at",),
            "It goes on after a second.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "source=eventq",
            (),
            "No event is told of any more: the next interrupt comes when the queue was empty.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
        ),
        Seen(
            "source=eventq",
            (),
            "Likewise, of a wire.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
            features=WIRED,
            boot="lost wires",
        ),
        Seen(
            "source=gerror",
            ("unexpected global error reported (0x00000005)",),
            "The error is told with the next one.",
            machine="smmuv3-pasid",
            boot="conflicts",
        ),
        Seen(
            "source=gerror",
            ("unexpected global error reported (0x00000005)",),
            "Likewise, of a wire.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
            features=WIRED,
            boot="wires",
        ),
    )
    BARE = (
        Bare(
            "source=priq", "ats", "a_page_request_interrupts", "The MSI of a page request does not come.", passes=False
        ),
        Bare(
            "source=cmdq-sync",
            "faults",
            "a_sync_whose_wire_is_silent_completes",
            "A CMD_SYNC completes, which its wire does not say; the next one's does.",
            features=WIRED,
        ),
    )

    source: Source = parameter("whose")  # noqa: RUF009

    def message(self, source: str, send: Callable[[], None]) -> Verdict | None:
        lost = source == self.source and self.strikes(f"an interrupt of {source} was lost")
        return Verdict.IGNORE if lost else None

    wire = message


@dataclass
class LateInterrupt(Injection):
    """An interrupt, as a message or on a wire, is sent late."""

    KIND = "late-interrupt"
    SECTION = "3.18"
    LINUX = (
        Seen(
            "source=cmdq-sync after=20 seconds=2",
            ("CMD_SYNC timeout at",),
            "It goes on after a second.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "source=eventq seconds=0.1",
            ("event 0x10 received:",),
            "It tells of all events, later.",
            machine="smmuv3-pasid",
            features=WIRED,
            boot="wires",
        ),
        Seen(
            "source=gerror seconds=0.1",
            ("CMDQ error (cons",),
            "Meanwhile the queue stands still.",
            machine="smmuv3-pasid",
            features=WIRED,
            boot="wires",
        ),
        Seen(
            "source=gerror seconds=0.5",
            ("CMDQ error (cons",),
            "A queue that has stopped stands still meanwhile.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
    )
    BARE = (
        Bare("source=priq seconds=0.5", "ats", "a_page_request_interrupts", "The MSI of a page request comes later."),
        Bare(
            "source=cmdq-sync seconds=2",
            "faults",
            "a_sync_whose_wire_is_late_is_told_later",
            "A CMD_SYNC completes, and its wire says so later.",
            features=WIRED,
        ),
    )
    LATER = True

    source: Source = parameter("whose")  # noqa: RUF009
    seconds: float = parameter("how late", 2.0)

    def message(self, source: str, send: Callable[[], None]) -> Verdict | None:
        if source != self.source or not self.strikes(f"an interrupt of {source} is {self.seconds:g} s late"):
            return None
        assert self.lab.later is not None
        self.lab.later(self.seconds, send)
        return Verdict.HOLD

    wire = message


KINDS = (
    LoseInterrupt,
    LateInterrupt,
)
