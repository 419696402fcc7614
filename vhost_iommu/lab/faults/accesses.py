# SPDX-License-Identifier: Apache-2.0
"""Faults of memory: accesses of the SMMU itself that abort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .injection import Injection, Seen, parameter


@dataclass
class AbortAccess(Injection):
    """An access of the SMMU itself to memory is aborted."""

    KIND = "abort-access"
    SECTION = "7.2"
    LINUX = (
        Seen(
            "access=STE count=2",
            ("event 0x03 received:",),
            "F_STE_FETCH of the first DMA, which fails (the first abort is a CMD_PREFETCH_CONFIG's, without an event).",
            ("engine0_copies_coherent_memory",),
            machine="smmuv3-pasid",
        ),
        Seen(
            "access=CD count=2",
            ("event 0x09 received:",),
            "F_CD_FETCH; likewise.",
            ("engine0_copies_coherent_memory",),
            machine="smmuv3-pasid",
        ),
        Seen(
            "access=descriptor after=50",
            ("event 0x0b received:",),
            "F_WALK_EABT; the disk's request ends in an I/O error.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "access=command after=20",
            ("Abort on command fetch", "retrying command fetch"),
            "The command is fetched again.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "access=event",
            ("EVTQ write aborted -- events may have been lost",),
            "The event is lost, and all goes on.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
        ),
    )

    access: Literal["STE", "L1STD", "CD", "L1CD", "descriptor", "command", "event", "PRI", "MSI"] = parameter(
        "of which kind"
    )

    def memory(self, kind: str, pa: int) -> bool:
        return kind == self.access and self.strikes(f"an access to {_article(kind)} at {pa:#x} was aborted")


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiouSLM' else 'a'} {kind}"


KINDS = (AbortAccess,)
