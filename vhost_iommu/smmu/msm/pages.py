# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/reference that the MSM IOMMU's declarations fill."""

from __future__ import annotations

from ..model import Group, Page
from . import records, registers

PAGES = (
    Page(
        "msm-registers.md",
        "MSM IOMMU registers",
        """
The registers of Qualcomm's IOMMU of 2010, as Linux' header for it spells them; no manual of it is public. Bits that a
table leaves out are RES0: they read as zero and a write does not change them.
""",
        groups=(
            Group("Contexts", "Offsets count from the context's frame: context n is at n x 0x1000.",
                  registers.CONTEXT_REGISTERS),
            Group("Global registers", "Offsets count from the IOMMU's base.", registers.GLOBAL_REGISTERS),
        ),
    ),
    Page(
        "msm-faults.md",
        "MSM IOMMU faults",
        """
What a fault leaves in the registers, as records of this project, not of the hardware: in recordings, accounts and
traces. Bits count over the whole record.
""",
        layouts=records.LAYOUTS,
    ),
)  # fmt: skip
