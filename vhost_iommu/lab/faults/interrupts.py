# SPDX-License-Identifier: Apache-2.0
"""Faults of interrupts, as messages or on wires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...smmu.seams import Verdict
from .injection import Injection, Seen, parameter

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
            ("events 0x10",),
            "It tells of all events, later.",
            machine="smmuv3-pasid",
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
