# SPDX-License-Identifier: Apache-2.0
"""Faults of registers whose stores are acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...smmu.seams import NEVER
from .injection import Bare, Injection, Seen, parameter


@dataclass
class LateAcknowledge(Injection):
    """A store to a register with an acknowledgement is acknowledged, and takes effect, late or never."""

    KIND = "late-acknowledge"
    SECTION = "6.3.9"
    LINUX = (
        Seen(
            "register=CR0",
            ("failed to enable command queue", "probe with driver arm-smmu-v3 failed with error -110"),
            "After a second there is no SMMU: what is behind it has no driver.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "register=IRQ_CTRL",
            ("failed to enable irqs",),
            "It goes on, as if they were enabled.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "register=CR0 reads=5",
            (),
            "It waits.",
            machine="smmuv3-pasid",
            boot="permitted",
        ),
    )
    BARE = (
        Bare("register=GBPA reads=5", "events", "an_smmu_that_is_off_lets_all_pass_or_aborts", "It waits."),
        Bare(
            "register=GBPA",
            "events",
            "an_smmu_that_is_off_lets_all_pass_or_aborts",
            "Stock Linux stores no GBPA, but where it finds an SMMU enabled.",
            passes=False,
        ),
    )

    register: Literal["CR0", "IRQ_CTRL", "GBPA"] = parameter("which")
    reads: int = parameter("register reads that find it as before; 0: all", 0)

    def acknowledge(self, register: str) -> int | None:
        when = f"after {self.reads} reads" if self.reads else "never"
        late = register == self.register and self.strikes(f"a store to {register} is acknowledged {when}")
        return (self.reads or NEVER) if late else None


KINDS = (LateAcknowledge,)
