# SPDX-License-Identifier: Apache-2.0
"""Translation table walks, VMSAv8-64 and VMSAv8-32 LPAE: one stage, one address, to a leaf or a fault.

Law: geometry is derived from granule and level, never tabulated; bounded by the number of levels whatever the
guest wrote; reaches memory through ``Descriptors`` only, so that stage 1 of a nested walk goes through stage 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import ClassVar, Protocol

from ..sealed import declared
from . import memory_type
from .descriptors import S1LeafDescriptor, S2LeafDescriptor, TableDescriptor
from .memory_type import MemoryType


class FaultKind(Enum):
    """What a walk or a permission check can end with, in no programming model's numbers."""

    TRANSLATION = "translation"
    ADDR_SIZE = "address size"
    ACCESS = "access flag"
    PERMISSION = "permission"
    WALK_EABT = "external abort"
    TLB_CONFLICT = "several cached translations"  #: found by who caches, not by a walk


class Cause(IntEnum):
    """What a stage was asked to translate for; the numbers are an event's CLASS (IHI 0070 §7.3)."""

    CD = 0
    TT = 1
    IN = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a stage did not translate."""

    kind: FaultKind
    level: int = 0
    stage: int = 1
    cause: Cause = Cause.IN
    ipa: int = 0  #: what stage 2 was asked for
    fetch: int = 0  #: physical address of the descriptor (WALK_EABT only)
    table_write: bool = False  #: a descriptor's update was refused, not its read (cause TT only)

    def of_walk(self, level: int) -> Fault:
        """As a walk of stage 1 that was at ``level`` passes it on: an abort of its own read was at that level."""
        own = self.kind is FaultKind.WALK_EABT and self.stage == 1
        return replace(self, level=level) if own else self


class Wide(Enum):
    """Where a descriptor carries address bits above 47."""

    NONE = 0
    KB64 = 1  #: [51:48] in bits [15:12], with the 64K granule
    LPA2 = 2  #: [49:48] in place, [51:50] in bits [9:8], with the 4K and 16K granules


@dataclass(frozen=True, slots=True)
class Mapping:
    """A leaf as the TLB holds it: 2^shift bytes from ``base`` translate to ``output``.

    Stage 1: ``readable`` is true but of short descriptors, ``user`` is AP[1], ``writable`` not AP[2], both after
    APTable. Stage 2: ``readable`` and ``writable`` are S2AP, ``user`` is meaningless. ``uxn`` and ``pxn`` forbid
    execution to the unprivileged and the privileged.
    """

    base: int
    shift: int
    output: int
    granule_bits: int
    level: int
    descriptor: int
    descriptor_at: int  #: address of the descriptor, in the output space of the stage above
    readable: bool
    writable: bool
    clean: bool  #: not writable only because a write has yet to mark it dirty (DBM)
    user: bool
    uxn: bool
    pxn: bool
    not_global: bool
    attributes: int  #: stage 1: AttrIndx; stage 2: MemAttr
    shareability: int
    memory: MemoryType  #: what these make; with S2FWB meaningless
    user_reads: bool = False  #: the unprivileged may read it alone, whoever may write (short descriptors, AP 0b010)

    def translate(self, address: int) -> int:
        return self.output | address & ((1 << self.shift) - 1)


class Descriptors(Protocol):
    """How a walk reaches its descriptors; ``address`` is in the stage's output space."""

    def fetch(self, address: int, size: int = 8) -> int | Fault | None:
        """The ``size`` bytes, 4 or 8, at ``address``; None: external abort; a Fault: the next stage's."""

    def update(self, address: int, old: int, new: int) -> bool | Fault | None:
        """Replace ``old`` by ``new`` atomically: whether it was still there; None and Fault as for ``fetch``."""


class Table(Protocol):
    """A translation table of any format, which walks itself."""

    @property
    def input_bits(self) -> int: ...

    @property
    def start_level(self) -> int: ...

    @property
    def stage(self) -> int: ...

    @property
    def big_endian(self) -> bool: ...

    @property
    def descriptor_size(self) -> int:
        """In bytes."""

    def shift(self, level: int) -> int:
        """log2 of the bytes that one descriptor of ``level`` covers."""

    def walk(self, address: int, descriptors: Descriptors) -> Mapping | Fault:
        """The leaf that translates ``address``, whose bits above ``input_bits`` the caller has checked."""

    def mark_dirty(self, mapping: Mapping, descriptors: Descriptors) -> Mapping | Fault | None:
        """Make a clean mapping writable, in its descriptor too; None: the descriptor has changed, walk again."""


_VALID, _TABLE_OR_PAGE = 1, 2
_LOW_OUTPUT = (1 << 48) - 1 & ~0xFFF
_AF = S1LeafDescriptor.AF.mask
_AP, _SH = S1LeafDescriptor.AP, S1LeafDescriptor.SH
_AP_READ_ONLY = _AP.encode(2)
_ATTR_INDEX, _MEMATTR = S1LeafDescriptor.AttrIndx, S2LeafDescriptor.MemAttr
_NG, _UXN, _PXN = S1LeafDescriptor.nG.mask, S1LeafDescriptor.UXN.mask, S1LeafDescriptor.PXN.mask
_DBM = S1LeafDescriptor.DBM.mask
_S2AP, _XN = S2LeafDescriptor.S2AP, S2LeafDescriptor.XN
_S2_WRITE = _S2AP.encode(2)
_APTABLE = TableDescriptor.APTable
_UXNTABLE, _PXNTABLE = TableDescriptor.UXNTable.mask, TableDescriptor.PXNTable.mask
_TABLE_AF = TableDescriptor.AF.mask

#: Another agent can win the race for a descriptor's update; a guest that always does gets no translation.
_UPDATE_TRIES = 16


def start_level(granule_bits: int, input_bits: int) -> int:
    """The level at which stage 1 starts: the highest-numbered one whose one table covers the input."""
    return 3 - (input_bits - 1 - granule_bits) // (granule_bits - 3)


def aligned_base(base: int, granule_bits: int, input_bits: int, level: int, output_bits: int) -> int:
    """``base`` aligned down as the architecture does: to the start table's size, at least 64 bytes if 52-bit."""
    bits = input_bits - (granule_bits + (granule_bits - 3) * (3 - level)) + 3
    return base & ~((1 << max(bits, 6 if output_bits > 48 else 4)) - 1)


@declared
@dataclass(frozen=True, slots=True)
class LongTable:
    """A table of long descriptors, as configuration describes it (CD.TTBx, TxSZ, TGx …; STE.S2TTB, S2T0SZ …)."""

    base: int  #: address of the start level's table, aligned
    granule_bits: int  #: 12, 14 or 16
    input_bits: int  #: 64 - TxSZ
    output_bits: int  #: effective output address size
    start_level: int  #: -1 to 3
    stage: int = 1
    wide: Wide = Wide.NONE
    big_endian: bool = False
    hierarchical: bool = True  #: table descriptors' permissions count (HADx is 0)
    access_fault: bool = True  #: AF 0 is a fault (AFFD is 0)
    update_access: bool = False  #: HA
    update_dirty: bool = False  #: HD
    update_tables: bool = False  #: HAFT
    first_block_level: int = 1  #: the lowest level number at which blocks exist
    mair: int = 0  #: stage 1: MAIR1:MAIR0
    shareability: int | None = None  #: of all leaves, where their SH bits hold address bits (LPA2)

    descriptor_size: ClassVar[int] = 8

    @property
    def stride(self) -> int:
        """Address bits that a level resolves: a table fills one granule with 8-byte descriptors."""
        return self.granule_bits - 3

    def shift(self, level: int) -> int:
        return self.granule_bits + self.stride * (3 - level)

    def walk(self, address: int, descriptors: Descriptors) -> Mapping | Fault:
        """As ``Table.walk``.

        Faults come in the order of IHI 0070 §7.3.22: per level external abort, translation, address size; then access.
        An update that loses its race starts the walk again.
        """
        for _ in range(_UPDATE_TRIES):
            found = self._walk_once(address, descriptors)
            if found is not None:
                return found
        return Fault(FaultKind.TRANSLATION, stage=self.stage)

    def _walk_once(self, address: int, descriptors: Descriptors) -> Mapping | Fault | None:
        granule_bits, stride, stage = self.granule_bits, self.stride, self.stage
        level = self.start_level
        offset = address & ((1 << self.input_bits) - 1)
        base = self.base
        # Only the start level can be longer (concatenated) or shorter than a granule; bits above it are zero.
        index_mask = -1
        hierarchy = 0
        while True:
            shift = granule_bits + stride * (3 - level)
            at = base + (offset >> shift & index_mask) * 8
            index_mask = (1 << stride) - 1
            raw = descriptors.fetch(at)
            if raw is None:
                return Fault(FaultKind.WALK_EABT, level, stage, fetch=at)
            if isinstance(raw, Fault):
                return raw.of_walk(level)
            descriptor = _swapped(raw) if self.big_endian else raw
            if not descriptor & _VALID:
                return Fault(FaultKind.TRANSLATION, level, stage)
            output = self._output(descriptor)
            if level < 3 and descriptor & _TABLE_OR_PAGE:
                if output >> self.output_bits:
                    return Fault(FaultKind.ADDR_SIZE, level, stage)
                if self.update_tables and not descriptor & _TABLE_AF:
                    updated = self._update(descriptors, at, level, descriptor, descriptor | _TABLE_AF)
                    if isinstance(updated, Fault):
                        return updated
                    if not updated:
                        return None
                hierarchy |= descriptor
                base = output
                level += 1
                continue
            if bool(descriptor & _TABLE_OR_PAGE) != (level == 3) or level < self.first_block_level:
                return Fault(FaultKind.TRANSLATION, level, stage)
            output &= -1 << shift
            if output >> self.output_bits:
                return Fault(FaultKind.ADDR_SIZE, level, stage)
            if not descriptor & _AF:
                if self.update_access:
                    updated = self._update(descriptors, at, level, descriptor, descriptor | _AF)
                    if isinstance(updated, Fault):
                        return updated
                    if not updated:
                        return None
                    descriptor |= _AF
                elif self.access_fault:
                    return Fault(FaultKind.ACCESS, level, stage)
            make = self._stage1_leaf if stage == 1 else self._stage2_leaf
            return make(address & (-1 << shift), shift, output, level, descriptor, at, hierarchy)

    def _update(self, descriptors: Descriptors, at: int, level: int, old: int, new: int) -> bool | Fault:
        """Whether the descriptor was replaced; False: somebody else was faster."""
        if self.big_endian:
            old, new = _swapped(old), _swapped(new)
        result = descriptors.update(at, old, new)
        if result is None:
            return Fault(FaultKind.WALK_EABT, level, self.stage, fetch=at)
        return result.of_walk(level) if isinstance(result, Fault) else result

    def _output(self, descriptor: int) -> int:
        """The address in a descriptor, down to the granule."""
        output = descriptor & _LOW_OUTPUT & (-1 << self.granule_bits)
        if self.wide is Wide.KB64:
            output |= (descriptor >> 12 & 0xF) << 48
        elif self.wide is Wide.LPA2:
            output |= (descriptor >> 48 & 3) << 48 | (descriptor >> 8 & 3) << 50
        return output

    def _leaf_shareability(self, descriptor: int) -> int:
        return _SH.decode(descriptor) if self.shareability is None else self.shareability

    def _stage1_leaf(
        self, base: int, shift: int, output: int, level: int, descriptor: int, at: int, hierarchy: int
    ) -> Mapping:
        if not self.hierarchical:
            hierarchy = 0
        index, shareability = _ATTR_INDEX.decode(descriptor), self._leaf_shareability(descriptor)
        ap, ap_table = _AP.decode(descriptor), _APTABLE.decode(hierarchy)
        table_read_only = bool(ap_table & 2)
        writable = not ap & 2 and not table_read_only
        return Mapping(
            base=base,
            shift=shift,
            output=output,
            granule_bits=self.granule_bits,
            level=level,
            descriptor=descriptor,
            descriptor_at=at,
            readable=True,
            writable=writable,
            clean=not writable and not table_read_only and self.update_dirty and bool(descriptor & _DBM),
            user=bool(ap & 1) and not ap_table & 1,
            uxn=bool(descriptor & _UXN or hierarchy & _UXNTABLE),
            pxn=bool(descriptor & _PXN or hierarchy & _PXNTABLE),
            not_global=bool(descriptor & _NG),
            attributes=index,
            shareability=shareability,
            memory=memory_type.from_mair(self.mair >> 8 * index & 0xFF, shareability),
        )

    def _stage2_leaf(
        self, base: int, shift: int, output: int, level: int, descriptor: int, at: int, hierarchy: int
    ) -> Mapping:
        memattr, shareability = _MEMATTR.decode(descriptor), self._leaf_shareability(descriptor)
        s2ap, xn = _S2AP.decode(descriptor), _XN.decode(descriptor)
        return Mapping(
            base=base,
            shift=shift,
            output=output,
            granule_bits=self.granule_bits,
            level=level,
            descriptor=descriptor,
            descriptor_at=at,
            readable=bool(s2ap & 1),
            writable=bool(s2ap & 2),
            clean=not s2ap & 2 and self.update_dirty and bool(descriptor & _DBM),
            user=True,
            # XN[1] is bit 54. Without IDR3.XNX, bit 53 reads as 0 here (the configuration says so by stage2_xn).
            uxn=xn in (2, 3),
            pxn=xn in (1, 2),
            not_global=True,
            attributes=memattr,
            shareability=shareability,
            memory=memory_type.from_memattr(memattr, shareability),
        )

    def mark_dirty(self, mapping: Mapping, descriptors: Descriptors) -> Mapping | Fault | None:
        """Make a clean mapping writable, in its descriptor too; None: the descriptor has changed, walk again."""
        old = mapping.descriptor
        new = (old & ~_AP_READ_ONLY if self.stage == 1 else old | _S2_WRITE) | _AF
        updated = self._update(descriptors, mapping.descriptor_at, mapping.level, old, new)
        if isinstance(updated, Fault):
            return updated
        if not updated:
            return None
        return replace(mapping, descriptor=new, writable=True, clean=False)


def _swapped(descriptor: int) -> int:
    return int.from_bytes(descriptor.to_bytes(8, "little"), "big")


@dataclass(frozen=True, slots=True)
class Regime:
    """What the configuration adds to a stage 1 leaf's permissions (CD.WXN, CD.PAN …; IHI 0070 §5.4)."""

    unprivileged: bool = True  #: the regime has unprivileged accesses (not so in EL2 without E2H)
    wxn: bool = False
    uwxn: bool = True  #: CD.UWXN of AArch32; in AArch64 it is always so
    pan: bool = False
    epan: bool = False
    execute_needs_read: bool = False  #: AArch32
    xn_for_all: bool = False  #: AArch32: XN, in UXN's place, forbids execution to the privileged too


@dataclass(frozen=True, slots=True)
class Access:
    """What is asked of a translation."""

    write: bool = False
    privileged: bool = False
    instruction: bool = False


def permitted1(mapping: Mapping, regime: Regime, access: Access) -> bool:
    """Whether stage 1 permits ``access`` (Arm ARM D8.4, direct permissions). A clean page counts as writable."""
    writable = mapping.writable or mapping.clean
    if not mapping.readable:
        return False
    if not regime.unprivileged:
        # One privilege level: AP[1] counts as 1 and a single XN, in UXN's place, forbids execution.
        if access.instruction:
            return not (mapping.uxn or (regime.wxn and writable))
        return writable or not access.write
    user_write = mapping.user and writable and not mapping.user_reads
    if access.privileged:
        if access.instruction:
            # What the unprivileged can write, the privileged never execute.
            never = mapping.pxn or (regime.xn_for_all and mapping.uxn)
            return not (never or (regime.wxn and writable) or (regime.uwxn and user_write))
        if regime.pan and (mapping.user or (regime.epan and not mapping.uxn)):
            return False
        return writable or not access.write
    if access.instruction:
        readable = mapping.user or not regime.execute_needs_read
        return readable and not (mapping.uxn or (regime.wxn and user_write))
    return user_write if access.write else mapping.user


def permitted2(mapping: Mapping, access: Access, *, two_bit_xn: bool, execute_needs_read: bool = False) -> bool:
    """Whether stage 2 permits ``access``; ``two_bit_xn`` is IDR3.XNX. A clean page counts as writable."""
    if access.instruction:
        if execute_needs_read and not mapping.readable:
            return False
        if not two_bit_xn:
            return not mapping.descriptor & _XN_HIGH
        return not (mapping.pxn if access.privileged else mapping.uxn)
    if access.write:
        return mapping.writable or mapping.clean
    return mapping.readable


_XN_HIGH = _XN.encode(2)
