# SPDX-License-Identifier: Apache-2.0
"""Named features of one MSM IOMMU, and the ID registers that they make.

Law: the model reads ID registers only. What no such IOMMU can have is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ...layout import Register
from .registers import IDR, MOST_CONTEXTS, MOST_MIDS, REV


@dataclass(frozen=True, slots=True)
class Features:
    """What the machine file's table may say."""

    #: Contexts ('qcom,ncb'), each a table of its own.
    contexts: int = 4
    #: Machine ids: each has a register that says which context is its.
    machine_ids: int = 32
    #: Of the implementation, as REV has it.
    version: str = "1.0"

    def __post_init__(self) -> None:
        if not 1 <= self.contexts <= MOST_CONTEXTS:
            raise UsageError(f"contexts is {self.contexts}: choose 1 to {MOST_CONTEXTS}")
        # IDR.NM2VCBMT has room for one less than there are registers.
        if not 1 <= self.machine_ids < MOST_MIDS:
            raise UsageError(f"machine_ids is {self.machine_ids}: choose 1 to {MOST_MIDS - 1}")
        major, dot, minor = self.version.partition(".")
        if not (dot and major.isdecimal() and minor.isdecimal() and max(int(major), int(minor)) < 16):
            raise UsageError(f"version is {self.version}: write it as MAJOR.MINOR, each from 0 to 15")

    def id_registers(self) -> dict[type[Register], int]:
        """The ID registers' values."""
        major, _, minor = self.version.partition(".")
        return {
            IDR: IDR.of(NM2VCBMT=self.machine_ids, HTW=1, TLBSIZE=_TLB_BITS, NCB=self.contexts, NIRPT=1).raw,
            REV: REV.of(MAJOR=int(major), MINOR=int(minor)).raw,
        }


#: log2 of the entries that a TLB has.
_TLB_BITS = 12

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # As the binding's example has them.
    "apq8064": {},
    "minimal": {"contexts": 1, "machine_ids": 1},
    "everything": {"contexts": MOST_CONTEXTS, "machine_ids": MOST_MIDS - 1},
}
