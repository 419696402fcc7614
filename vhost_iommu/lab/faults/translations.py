# SPDX-License-Identifier: Apache-2.0
"""Faults of translations: what a lookup in a cache finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...smmu.transaction import Transaction
from .injection import Injection, Seen, parameter


@dataclass
class Conflict(Injection):
    """A lookup matches several cached translations, or several cached STEs: the transaction is aborted."""

    KIND = "conflict"
    SECTION = "3.20"
    LINUX = (
        Seen(
            "event=F_TLB_CONFLICT",
            ("event 0x20 received:",),
            "The DMA fails.",
            ("engine0_copies_coherent_memory",),
            machine="smmuv3-pasid",
            boot="conflicts",
        ),
        Seen(
            "event=F_CFG_CONFLICT after=3",
            ("event 0x21 received:",),
            "Likewise.",
            ("engine0_bypassed_copies_coherent_memory",),
            machine="smmuv3-pasid",
            boot="conflicts",
        ),
    )

    event: Literal["F_TLB_CONFLICT", "F_CFG_CONFLICT"] = parameter("which, by its event")

    def translation(self, event: str, transaction: Transaction) -> bool:
        what = f"{event} at {transaction.iova:#x} of stream {transaction.sid:#x}"
        return event == self.event and self.strikes(what)


KINDS = (Conflict,)
