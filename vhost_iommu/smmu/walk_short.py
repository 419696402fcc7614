# SPDX-License-Identifier: Apache-2.0
"""Walks of short descriptors: two levels, pages of 4K and 64K, sections of 1M and 16M (Arm DDI 0487 G5.4).

Law: as ``walk.py``: bounded, and memory is reached through ``Descriptors`` alone. All domains count as Client, since an
SMMU has no DACR. Not modelled: hardware updates of the access flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..sealed import declared
from .descriptors_short import LargePage, Section, ShortTable1, SmallPage
from .memory_type import NC, WB, WT, MemoryType, Shareability
from .walk import Descriptors, Fault, FaultKind, Mapping

_SUPERSECTION, _SECTION, _LARGE, _SMALL = 24, 20, 16, 12
_TYPE_TABLE = 1

#: What a MemoryType's cacheability is, by IRn and ORn of NMRR and by the two bits of TEX, C and B.
_CACHEABILITY = (NC, WB, WT, WB)
_STRONGLY_ORDERED = MemoryType(0, 0, Shareability.OUTER)
_DEVICE = MemoryType(0, 1, Shareability.OUTER)
_REMAP_DEVICE, _REMAP_NORMAL = 1, 2


@dataclass(frozen=True, slots=True)
class Remap:
    """TEX remap: PRRR and NMRR (G8.2.123, G8.2.110)."""

    prrr: int
    nmrr: int

    def memory(self, index: int, shareable: bool) -> MemoryType:
        """The type that TEX[0], C and B choose, of a descriptor whose S is ``shareable``."""
        kind = self.prrr >> 2 * index & 3
        if kind == _REMAP_DEVICE:
            return _DEVICE
        if kind != _REMAP_NORMAL:
            return _STRONGLY_ORDERED  # a reserved type is taken for the strongest
        inner, outer = _CACHEABILITY[self.nmrr >> 2 * index & 3], _CACHEABILITY[self.nmrr >> 16 + 2 * index & 3]
        if not self.prrr >> 18 + shareable & 1:
            return MemoryType(outer, inner, Shareability.NON).consistent()
        within = self.prrr >> 24 + index & 1
        return MemoryType(outer, inner, Shareability.INNER if within else Shareability.OUTER).consistent()


def memory_of(tex: int, c: int, b: int, shareable: bool) -> MemoryType:
    """The type by TEX, C and B where there is no remap (G5.8.2); what is reserved is taken for the strongest."""
    sharing = Shareability.OUTER if shareable else Shareability.NON
    if tex & 4:
        return MemoryType(_CACHEABILITY[tex & 3], _CACHEABILITY[c << 1 | b], sharing).consistent()
    found = {
        (0, 0, 1): _DEVICE,
        (2, 0, 0): _DEVICE,
        (0, 1, 0): MemoryType(WT, WT, sharing),
        (0, 1, 1): MemoryType(WB, WB, sharing),
        (1, 0, 0): MemoryType(NC, NC, sharing),
        (1, 1, 1): MemoryType(WB, WB, sharing),
    }.get((tex, c, b), _STRONGLY_ORDERED)
    return found.consistent()


@declared
@dataclass(frozen=True, slots=True)
class ShortTable:
    """A table of short descriptors, as configuration describes it (TTBRx, TTBCR.N, SCTLR, PRRR, NMRR)."""

    base: int  #: address of the table of level 1, aligned
    input_bits: int  #: 32, or of TTBR0 32 - TTBCR.N
    output_bits: int = 40  #: of a supersection; 32: its higher bits are not there
    big_endian: bool = False
    access_flag: bool = False  #: SCTLR.AFE: AP[0] is the access flag
    access_fault: bool = True  #: with it: a flag of 0 is a fault (AFFD is 0)
    remap: Remap | None = None  #: SCTLR.TRE

    start_level: ClassVar[int] = 1
    stage: ClassVar[int] = 1
    descriptor_size: ClassVar[int] = 4

    def shift(self, level: int) -> int:
        return _SECTION if level == 1 else _SMALL

    def walk(self, address: int, descriptors: Descriptors) -> Mapping | Fault:
        """As ``Table.walk``."""
        offset = address & (1 << self.input_bits) - 1
        at = self.base + (offset >> _SECTION) * 4
        raw = self._fetch(descriptors, at, 1)
        if isinstance(raw, Fault):
            return raw
        kind = raw & 3
        if kind == 0:
            return Fault(FaultKind.TRANSLATION, 1)
        if kind != _TYPE_TABLE:
            return self._section(address, Section(raw), at)
        table = ShortTable1(raw)
        at = table.NextTable + (offset >> _SMALL & 0xFF) * 4
        raw = self._fetch(descriptors, at, 2)
        if isinstance(raw, Fault):
            return raw
        kind = raw & 3
        if kind == 0:
            return Fault(FaultKind.TRANSLATION, 2)
        pxn = bool(table.PXN)
        if kind == 1:
            large = LargePage(raw)
            return self._leaf(address, _LARGE, large.OA, 2, large, at, xn=bool(large.XN), pxn=pxn)
        small = SmallPage(raw)
        return self._leaf(address, _SMALL, small.OA, 2, small, at, xn=bool(small.XN), pxn=pxn)

    def mark_dirty(self, mapping: Mapping, descriptors: Descriptors) -> Mapping | Fault | None:
        raise AssertionError("no short descriptor is clean")

    def _fetch(self, descriptors: Descriptors, at: int, level: int) -> int | Fault:
        raw = descriptors.fetch(at, 4)
        if raw is None:
            return Fault(FaultKind.WALK_EABT, level, fetch=at)
        if isinstance(raw, Fault):
            return raw.of_walk(level)
        if not self.big_endian:
            return raw
        return int.from_bytes(raw.to_bytes(4, "little"), "big")

    def _section(self, address: int, section: Section, at: int) -> Mapping | Fault:
        shift, output = _SECTION, section.OA
        if section.Supersection:
            shift, output = _SUPERSECTION, section.OA >> _SUPERSECTION << _SUPERSECTION
            if self.output_bits > 32:
                output |= section.OA_35_32 << 32 | section.OA_39_36 << 36
        return self._leaf(address, shift, output, 1, section, at, xn=bool(section.XN), pxn=bool(section.PXN))

    def _leaf(
        self,
        address: int,
        shift: int,
        output: int,
        level: int,
        leaf: Section | LargePage | SmallPage,
        at: int,
        *,
        xn: bool,
        pxn: bool,
    ) -> Mapping | Fault:
        ap, shareable = leaf.AP_2 << 2 | leaf.AP_1_0, bool(leaf.S)
        if self.access_flag:
            if not ap & 1 and self.access_fault:
                return Fault(FaultKind.ACCESS, level)
            readable, writable, user, user_reads = True, not ap & 4, bool(ap & 2), False
        else:
            readable, writable, user, user_reads = ap not in (0, 4), ap in (1, 2, 3), bool(ap & 2), ap == 2
        index = (leaf.TEX & 1) << 2 | leaf.C << 1 | leaf.B
        if self.remap is None:
            memory = memory_of(leaf.TEX, leaf.C, leaf.B, shareable)
        else:
            memory = self.remap.memory(index, shareable)
        return Mapping(
            base=address >> shift << shift,
            shift=shift,
            output=output,
            granule_bits=_SMALL,
            level=level,
            descriptor=leaf.raw,
            descriptor_at=at,
            readable=readable,
            writable=writable,
            clean=False,
            user=user,
            uxn=xn,
            pxn=pxn,
            not_global=bool(leaf.nG),
            attributes=index,
            shareability=memory.shareability,
            memory=memory,
            user_reads=user_reads,
        )
