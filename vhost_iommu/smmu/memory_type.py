# SPDX-License-Identifier: Apache-2.0
"""Memory types with their shareability: decoding, combining, overriding (IHI 0070 chapter 13).

Law: values only. A number that is smaller is stronger, for Device kinds and cacheabilities alike, so combining is
taking the smaller. Not modelled: allocation and transient hints.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from .attributes import MEMATTR, SHAREABILITY

NC, WT, WB = 1, 2, 3


class Shareability(IntEnum):
    """As descriptors encode it; 1 is reserved and taken as NON."""

    NON = 0
    OUTER = 2
    INNER = 3


#: From the weakest to the strongest.
_STRENGTH = (Shareability.NON, Shareability.INNER, Shareability.OUTER)


class MemoryType(NamedTuple):
    """``outer`` 0: Device, of the kind ``inner`` (0 nGnRnE to 3 GRE); else cacheabilities NC, WT or WB."""

    outer: int
    inner: int
    shareability: int = Shareability.NON

    @property
    def is_device(self) -> bool:
        return self.outer == 0

    @property
    def text(self) -> str:
        """``Normal oWB iWB, inner shareable``."""
        return f"{MEMATTR.get(self.outer << 2 | self.inner, 'reserved')}, {SHAREABILITY[self.shareability]}"

    def consistent(self) -> MemoryType:
        """Device and non-cacheable memory are outer shareable, whatever was said (§13.1.7)."""
        if self.outer == 0 or (self.outer, self.inner) == (NC, NC):
            return self._replace(shareability=int(Shareability.OUTER))
        return self


#: What a master that says nothing of it asks for (§13.1.3).
INCOMING = MemoryType(WB, WB, Shareability.NON)


def _shareability(bits: int) -> int:
    return bits if bits != 1 else Shareability.NON


def from_mair(byte: int, shareability: int) -> MemoryType:
    """Stage 1: the byte of CD.MAIR that AttrIndx chooses, and SH."""
    if byte >> 4 == 0:
        return MemoryType(0, byte >> 2 & 3, Shareability.OUTER)
    return MemoryType(_cacheability(byte >> 4), _cacheability(byte & 0xF), _shareability(shareability)).consistent()


def _cacheability(nibble: int) -> int:
    """0b0100 is non-cacheable; else bits [3:2] say WT transient, WB transient, WT, WB."""
    if nibble == 0b0100:
        return NC
    return (WT, WB, WT, WB)[nibble >> 2]


def from_memattr(bits: int, shareability: int) -> MemoryType:
    """Stage 2 without FWB, and STE or GBPA.MemAttr: 0b00dd Device, else outer and inner cacheability."""
    outer, inner = bits >> 2, bits & 3
    if outer == 0:
        return MemoryType(0, inner, Shareability.OUTER)
    return MemoryType(outer, inner or NC, _shareability(shareability)).consistent()


def combine(first: MemoryType, second: MemoryType) -> MemoryType:
    """The stronger of each (§13.1.5)."""
    stronger = max(first.shareability, second.shareability, key=lambda sh: _STRENGTH.index(Shareability(sh)))
    if first.is_device or second.is_device:
        kinds = [each.inner for each in (first, second) if each.is_device]
        return MemoryType(0, min(kinds), Shareability.OUTER)
    return MemoryType(min(first.outer, second.outer), min(first.inner, second.inner), stronger).consistent()


def combine_forced(first: MemoryType, memattr: int, shareability: int) -> MemoryType:
    """Stage 2 with STE.S2FWB: MemAttr[2:0] chooses Device, non-cacheable, write-back, or what stage 1 said."""
    match memattr & 7:
        case 0b111:
            return combine(first, MemoryType(WB, WB, _shareability(shareability)))
        case 0b110:
            sh = combine(first._replace(outer=WB, inner=WB), MemoryType(WB, WB, _shareability(shareability)))
            return sh.consistent()
        case 0b101 | 0b100:
            return combine(first, MemoryType(NC, NC, Shareability.OUTER))
        case kind:
            return combine(first, MemoryType(0, kind, Shareability.OUTER))


def override(incoming: MemoryType, *, replace_type: bool, memattr: int, shcfg: int) -> MemoryType:
    """STE and GBPA: MTCFG with MemAttr, and SHCFG, of which 1 uses what came (§13.1.4)."""
    if not memattr & 3:
        memattr = 0  # what is reserved there behaves as Device-nGnRnE (§5.2 STE.MemAttr)
    kind = from_memattr(memattr, incoming.shareability) if replace_type else incoming
    shareability = incoming.shareability if shcfg == 1 else shcfg
    return kind._replace(shareability=shareability).consistent()
