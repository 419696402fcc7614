# SPDX-License-Identifier: Apache-2.0
"""What a fault most likely comes from, the likeliest first."""

from __future__ import annotations

from collections.abc import Mapping

from ...layout import Layout
from .records import ContextFault, GlobalError, kind_of

#: By the kind of a fault.
CAUSES: Mapping[str, tuple[str, ...]] = {
    "FSR.TF": (
        "the address was never mapped, or was unmapped while the device still used it",
        "the domain is attached to another IOMMU too: Linux' driver makes each attach a table of its own",
        "the address is a physical one, or beyond 32 bits",
    ),
    "FSR.AFF": ("the descriptor's access flag (AP[0]) is 0, and SCTLR.AFE has it count",),
    "FSR.APF": ("a write to what is mapped for reading, or an access of a kind that the mapping does not permit",),
    "FSR.HTWDEEF": (
        "a table's address is none of RAM: TTBRn or a descriptor of level 1 is wrong",
        "the table was freed, and its pages are gone",
    ),
    "ESR.CFG": (
        "M2VCBR of the machine id names a context that is not there, or one of another VMID (CBACR.CBVMID)",
        "the device sends another machine id than firmware's description (iommus) says",
    ),
    "ESR.BYPASS": ("no driver has attached the device, and M2VCBR.BYPASSD lets nothing pass untranslated",),
}


def causes_of(event: Layout) -> tuple[str, ...]:
    return CAUSES.get(kind_of(event), ()) if isinstance(event, ContextFault | GlobalError) else ()
