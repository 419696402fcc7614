# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/reference that SMMUv2's declarations fill."""

from __future__ import annotations

from ..model import Group, Page
from . import records, registers

PAGES = (
    Page(
        "smmuv2-registers.md",
        "SMMUv2 registers",
        """
The registers of the Non-secure programming interface. Bits that a table leaves out are RES0: they read as zero
and a write does not change them. *Reset* is what the model starts with; where the architecture leaves a field
UNKNOWN that is 0. *Needs* names what an SMMU must have for a register or field not to be RES0: fields of ID
registers, `aarch32` and `aarch64` tables, `atos` (address translation operations), or `stall`.
""",
        groups=(
            Group("Global register space 0", "Offsets count from the SMMU's base.", registers.GLOBAL0),
            Group(
                "Global register space 1",
                "Offsets count from the second page; a page is IDR1.PAGESIZE.",
                registers.GLOBAL1,
            ),
            Group(
                "Context banks",
                "Offsets count from the bank's page: bank n is page 2^(IDR1.NUMPAGENDXB + 1) + n.",
                registers.CONTEXT,
            ),
        ),
    ),
    Page(
        "smmuv2-faults.md",
        "SMMUv2 faults",
        """
What a fault leaves in the registers, as records of this project, not of the architecture: in recordings, accounts and
traces. Bits count over the whole record.
""",
        layouts=(records.ContextFault, records.GlobalFault),
    ),
)
