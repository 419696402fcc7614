# SPDX-License-Identifier: Apache-2.0
"""Faults of memory: accesses of the SMMU itself that abort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...smmu.seams import DESCRIPTOR
from .injection import Bare, Injection, Seen, parameter

#: Lines by which Linux makes a table of context descriptors of two levels.
TWO_LEVELS = ("substream_id_bits = 12", "pasid_bits = 12")


@dataclass
class AbortAccess(Injection):
    """An access of the SMMU itself to memory is aborted."""

    KIND = "abort-access"
    SECTION = "7.2"
    LINUX = (
        Seen(
            "access=L1STD count=2",
            ("event 0x03 received:",),
            "F_STE_FETCH of the first DMA, which fails (the first abort is a CMD_PREFETCH_CONFIG's, without an event).",
            ("engine0_copies_coherent_memory",),
            machine="smmuv3-pasid",
            features=TWO_LEVELS,
            boot="structures",
        ),
        Seen(
            "access=STE",
            ("event 0x03 received:",),
            "F_STE_FETCH; likewise.",
            machine="smmuv3-pasid",
            features=TWO_LEVELS,
            boot="structures",
        ),
        Seen(
            "access=L1CD",
            ("event 0x09 received:",),
            "F_CD_FETCH; likewise.",
            ("engine0_strict_loses_what_is_unmapped",),
            machine="smmuv3-pasid",
            features=TWO_LEVELS,
            boot="structures",
        ),
        Seen(
            "access=CD",
            ("event 0x09 received:",),
            "F_CD_FETCH; likewise.",
            machine="smmuv3-pasid",
            features=TWO_LEVELS,
            boot="structures",
        ),
        Seen(
            "access=descriptor after=50",
            ("event 0x0b received:",),
            "F_WALK_EABT; the disk's request ends in an I/O error.",
            ("disk0_writes_directly", "no_smmu_warnings"),
            boot="accesses",
        ),
        Seen(
            "access=command after=20",
            ("Abort on command fetch", "retrying command fetch"),
            "The command is fetched again.",
            ("no_smmu_warnings",),
            boot="accesses",
        ),
        Seen(
            "access=MSI after=30",
            ("CMD_SYNC timeout at", "CMDQ MSI write aborted"),
            "A CMD_SYNC's; it goes on after a second.",
            ("no_smmu_warnings",),
            boot="accesses",
        ),
        Seen(
            "access=event",
            ("EVTQ write aborted -- events may have been lost",),
            "The event is lost, and all goes on.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
        ),
    )
    BARE = (
        Bare(
            "access=PRI",
            "ats",
            "a_page_request_is_answered_by_a_page",
            "PRIQ_ABT_ERR, and the request is answered Failure.",
            passes=False,
        ),
        Bare(
            "access=VMS",
            "faults",
            "an_abort_of_a_vms_fails_one_transaction",
            "F_VMS_FETCH; one transaction is aborted, and the next one is translated.",
        ),
    )

    access: Literal["L1STD", "STE", "L1CD", "CD", "VMS", "descriptor", "command", "event", "PRI", "MSI"] = parameter(
        "to which kind of thing"
    )

    def asks(self, seam: str) -> bool:
        return seam == ("walk" if self.access == DESCRIPTOR else "memory")

    def memory(self, kind: str, pa: int) -> bool:
        return kind == self.access and self.strikes(f"an access to {_article(kind)} at {pa:#x} was aborted")

    walk = memory


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiouSLM' else 'a'} {kind}"


KINDS = (AbortAccess,)
