# SPDX-License-Identifier: Apache-2.0
"""VMSAv8-64 translation table walks (Arm ARM D8): one stage, one address, to a leaf or a fault.

Law: geometry is derived from granule and level, never tabulated; bounded by the number of levels whatever the
guest wrote; touches memory through ``fetch`` only. Not modelled: stage 2, hardware updates, VMSAv8-32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .descriptors import S1LeafDescriptor as Leaf64
from .descriptors import TableDescriptor as Table64


class FaultKind(Enum):
    """What a walk or a permission check can end with, in no programming model's numbers."""

    TRANSLATION = "translation"
    ADDR_SIZE = "address size"
    ACCESS = "access flag"
    PERMISSION = "permission"
    WALK_EABT = "external abort"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a stage did not translate. ``fetch`` is the descriptor's physical address (WALK_EABT only)."""

    kind: FaultKind
    level: int = 0
    fetch: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A translation table as its configuration describes it (CD.TTBx with TxSZ, TGx, IPS …)."""

    base: int  #: address of the start level's table, aligned
    granule_bits: int  #: 12, 14 or 16
    input_bits: int  #: 64 - TxSZ
    output_bits: int  #: effective output address size
    wide: bool = False  #: 64K descriptors carry OA[51:48] in bits [15:12]
    big_endian: bool = False
    hierarchical: bool = True  #: table descriptors' permissions count (HADx is 0)
    access_fault: bool = True  #: AF 0 is a fault (AFFD is 0)
    blocks_at_1: bool = True  #: level 1 blocks exist (not with 16K; with 64K only if 52-bit)

    @property
    def stride(self) -> int:
        """Address bits that a level resolves: a table fills one granule with 8-byte descriptors."""
        return self.granule_bits - 3

    @property
    def start_level(self) -> int:
        return 3 - (self.input_bits - 1 - self.granule_bits) // self.stride

    def shift(self, level: int) -> int:
        """log2 of the bytes that one descriptor of ``level`` covers."""
        return self.granule_bits + self.stride * (3 - level)

    @classmethod
    def aligned(cls, base: int, granule_bits: int, input_bits: int, output_bits: int) -> int:
        """``base`` aligned down as the architecture does: to the start table's size, 64 bytes if 52-bit."""
        stride = granule_bits - 3
        start = 3 - (input_bits - 1 - granule_bits) // stride
        bits = input_bits - (granule_bits + stride * (3 - start)) + 3
        return base & ~((1 << max(bits, 6 if output_bits > 48 else 4)) - 1)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A leaf as the TLB holds it: 2^shift bytes from ``base`` translate to ``output``."""

    base: int
    shift: int
    output: int
    granule_bits: int
    level: int
    user: bool  #: AP[1], after APTable
    read_only: bool  #: AP[2], after APTable
    uxn: bool
    pxn: bool
    not_global: bool
    attr_index: int
    shareability: int

    def translate(self, address: int) -> int:
        return self.output | address & ((1 << self.shift) - 1)


#: Reads the 8-byte descriptor at an address of the stage's output space; None is an external abort.
Fetch = Callable[[int], int | None]

_NEXT = ((1 << 48) - 1) & ~0xFFF
_VALID, _TABLE_OR_PAGE = 1, 2
_AF, _NG = Leaf64.AF.mask, Leaf64.nG.mask
_UXN, _PXN, _AP, _SH, _ATTR = Leaf64.UXN, Leaf64.PXN, Leaf64.AP, Leaf64.SH, Leaf64.AttrIndx
_APTABLE, _UXNTABLE, _PXNTABLE = Table64.APTable, Table64.UXNTable.mask, Table64.PXNTable.mask


def walk(table: Table, address: int, fetch: Fetch) -> Mapping | Fault:
    """Walk ``table`` for ``address``, whose bits above ``input_bits`` the caller has checked.

    Faults come in the order of IHI 0070 §7.3.22: per level external abort, translation, address size; then access.
    """
    granule_bits = table.granule_bits
    stride = granule_bits - 3
    level = table.start_level
    offset = address & ((1 << table.input_bits) - 1)
    base = table.base
    no_user = read_only = uxn = pxn = False
    granule_mask = ~((1 << granule_bits) - 1)
    while True:
        shift = granule_bits + stride * (3 - level)
        # Only the start level can be shorter than a granule, and there the bits above are zero.
        index = offset >> shift & ((1 << stride) - 1) if level > table.start_level else offset >> shift
        at = base + index * 8
        descriptor = fetch(at)
        if descriptor is None:
            return Fault(FaultKind.WALK_EABT, level, at)
        if table.big_endian:
            descriptor = int.from_bytes(descriptor.to_bytes(8, "little"), "big")
        if not descriptor & _VALID:
            return Fault(FaultKind.TRANSLATION, level)
        output = descriptor & _NEXT & granule_mask
        if table.wide:
            output |= (descriptor >> 12 & 0xF) << 48
        if level < 3 and descriptor & _TABLE_OR_PAGE:
            if output >> table.output_bits:
                return Fault(FaultKind.ADDR_SIZE, level)
            if table.hierarchical:
                ap = _APTABLE.decode(descriptor)
                no_user |= bool(ap & 1)
                read_only |= bool(ap & 2)
                uxn |= bool(descriptor & _UXNTABLE)
                pxn |= bool(descriptor & _PXNTABLE)
            base = output
            level += 1
            continue
        is_page = bool(descriptor & _TABLE_OR_PAGE)
        if is_page != (level == 3) or (level < 3 and not _block_allowed(table, level)):
            return Fault(FaultKind.TRANSLATION, level)
        output &= ~((1 << shift) - 1)
        if output >> table.output_bits:
            return Fault(FaultKind.ADDR_SIZE, level)
        if not descriptor & _AF and table.access_fault:
            return Fault(FaultKind.ACCESS, level)
        ap = _AP.decode(descriptor)
        return Mapping(
            base=address & ~((1 << shift) - 1),
            shift=shift,
            output=output,
            granule_bits=granule_bits,
            level=level,
            user=bool(ap & 1) and not no_user,
            read_only=bool(ap & 2) or read_only,
            uxn=uxn or bool(descriptor & _UXN.mask),
            pxn=pxn or bool(descriptor & _PXN.mask),
            not_global=bool(descriptor & _NG),
            attr_index=_ATTR.decode(descriptor),
            shareability=_SH.decode(descriptor),
        )


def _block_allowed(table: Table, level: int) -> bool:
    return level == 2 or (level == 1 and table.blocks_at_1)


@dataclass(frozen=True, slots=True)
class Regime:
    """What the configuration adds to a leaf's permissions (CD.WXN, CD.PAN; §5.4)."""

    unprivileged: bool = True  #: the regime has unprivileged accesses (not so in EL2 without E2H)
    wxn: bool = False
    pan: bool = False


def permitted(mapping: Mapping, regime: Regime, *, write: bool, privileged: bool, instruction: bool) -> bool:
    """Whether stage 1 permits the access (Arm ARM D8.4, direct permissions)."""
    writable = not mapping.read_only
    if not regime.unprivileged:
        # One privilege level: AP[1] counts as 1 and a single XN, in UXN's place, forbids execution.
        if instruction:
            return not (mapping.uxn or (regime.wxn and writable))
        return writable or not write
    if instruction:
        if privileged:
            # What the unprivileged can write, the privileged never execute.
            return not (mapping.pxn or (writable and (mapping.user or regime.wxn)))
        return not (mapping.uxn or (regime.wxn and writable and mapping.user))
    if privileged:
        return not (regime.pan and mapping.user) and (writable or not write)
    return mapping.user and (writable or not write)
