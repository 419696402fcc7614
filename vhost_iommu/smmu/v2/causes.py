# SPDX-License-Identifier: Apache-2.0
"""What a fault most likely comes from, the likeliest first."""

from __future__ import annotations

from collections.abc import Mapping

from ...layout import Layout
from .records import ContextFault, GlobalFault, kind_of

#: By the kind of a fault.
CAUSES: Mapping[str, tuple[str, ...]] = {
    "FSR.TF": (
        "the address was never mapped, or was unmapped while the device still used it",
        "the device uses an address of another domain, or a physical one",
        "the address is beyond TCR.TxSZ, or TCR.EPDx disables the table that it belongs to",
    ),
    "FSR.AFF": ("the descriptor's access flag is 0, and nobody sets it: SCTLR.AFFD is 0",),
    "FSR.PF": (
        "a write to what is mapped for reading, or an access of a kind that the mapping does not permit",
        "an unprivileged access to what is mapped for the privileged alone, or S2CR.PRIVCFG makes it one",
    ),
    "FSR.EF": (
        "a table's address is none of RAM: TTBRn or a table descriptor is wrong",
        "the table was freed, and its pages are gone",
    ),
    "FSR.TLBMCF": ("a mapping was replaced by one of another size without an invalidation between",),
    "FSR.ASF": ("a descriptor's, or TTBRn's, address has more bits than PASize, IDR2.IAS or IDR2.OAS let it have",),
    "FSR.UUT": (
        "an address has more bits than the bus (IDR2.UBS), or a transaction is of a type that is not supported",
    ),
    "GFSR.ICF": (
        "the stream's S2CR.TYPE is fault: no driver has attached the device, or it was detached while it still worked",
        "CBAR.TYPE of the context bank is one that this SMMU, or this bank, does not have",
        "the bank of stage 2 is not set up as one, or has AArch32 tables under AArch64's of stage 1",
    ),
    "GFSR.USF": (
        "no stream mapping group matches the StreamID: firmware's description (iommus) has another",
        "the device is used before its driver has attached it",
    ),
    "GFSR.SMCF": ("several stream mapping groups match the StreamID: their masks overlap",),
    "GFSR.UCBF": ("S2CR.CBNDX, or CBAR.CBNDX, names a context bank that is not there",),
    "GFSR.UUT": ("a transaction is of a type that is not supported",),
}

_NESTED_WALK = "stage 2 does not map the page that the table of stage 1 is in"


def causes_of(event: Layout) -> tuple[str, ...]:
    if not isinstance(event, ContextFault | GlobalFault):
        return ()
    found = CAUSES.get(kind_of(event), ())
    if isinstance(event, ContextFault) and event.S1PTWF:
        return (_NESTED_WALK, *found)
    return found
