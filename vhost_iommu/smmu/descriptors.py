# SPDX-License-Identifier: Apache-2.0
"""VMSAv8-64 translation table descriptors of both stages (Arm DDI 0487, chapter D8).

Law: declarations, and what follows from bits, level and granule alone. A VMSAv8-32 LPAE descriptor has the same
fields, with addresses of 40 bits. Not declared: VMSAv9-128, and the scattered bits of PIIndex and POIndex.
"""

from __future__ import annotations

from enum import IntEnum

from ..layout import Layout, address, bit, field
from .attributes import MEMATTR, SHAREABILITY


class DescriptorType(IntEnum):
    """Bits [1:0]; 2 is as invalid as 0."""

    INVALID = 0
    BLOCK = 1
    TABLE_OR_PAGE = 3


class AP(IntEnum):
    """Stage 1 AP[2:1], where there is an unprivileged level; elsewhere bit 6 counts as 1."""

    PRIV_RW = 0
    RW = 1
    PRIV_RO = 2
    RO = 3


class S2AP(IntEnum):
    """Stage 2 S2AP."""

    NONE = 0
    RO = 1
    WO = 2
    RW = 3


TYPE_VALUES = {0: "invalid", 1: "block", 2: "invalid", 3: "table or page"}
AP_TABLE = {0: "no effect", 1: "no unprivileged access", 2: "no writes", 3: "no unprivileged access, no writes"}
#: With IDR3.XNX; without, only bit 54 counts.
S2_XN = {0: "all execute", 1: "only EL0 executes", 2: "none executes", 3: "only EL1 executes"}
S2_MEMATTR_FWB = {
    0: "Device-nGnRnE",
    1: "Device-nGnRE",
    2: "Device-nGRE",
    3: "Device-GRE",
    5: "Normal NC",
    6: "Normal WB",
    7: "as stage 1",
}


class Descriptor(Layout, size=8):
    """Any descriptor: only its type is known."""

    TYPE = field(1, 0, values=TYPE_VALUES, doc="Bit 0: valid. A page has the type of a table")


class InvalidDescriptor(Descriptor):
    """No translation; everything but bit 0 is software's."""

    Ignored = field(63, 2, doc="For software")


class TableDescriptor(Descriptor):
    """Stage 1, levels 0 to 2: where the next table is, and what it takes from all below it."""

    Ignored_2 = field(9, 2, doc="For software, unless LPA2")
    AF = bit(10, doc="Access flag, with CD.HAFT; for software otherwise")
    Ignored_11 = bit(11, doc="For software")
    NextTable = address(47, 12, doc="The next table; bits below its size are taken as 0")
    Ignored_51 = field(58, 51, doc="For software")
    PXNTable = bit(59, doc="No privileged execution below")
    UXNTable = bit(60, doc="No unprivileged execution below (XNTable: no execution)")
    APTable = field(62, 61, values=AP_TABLE, doc="Permissions taken from all below")
    NSTable = bit(63, doc="Secure streams: all below is Non-secure")
    NextTable_51_48 = field(15, 12, view="64KB, 52-bit", doc="Bits [51:48] of the next table's address")
    NextTable_49_48 = field(49, 48, view="LPA2", doc="Bits [49:48] of the next table's address")
    NextTable_51_50 = field(9, 8, view="LPA2", doc="Bits [51:50] of the next table's address")


class S2TableDescriptor(Descriptor):
    """Stage 2, levels 0 to 2: where the next table is."""

    Ignored_2 = field(9, 2, doc="For software, unless LPA2")
    AF = bit(10, doc="Access flag, with STE.S2HAFT; for software otherwise")
    Ignored_11 = bit(11, doc="For software")
    NextTable = address(47, 12, doc="The next table; bits below its size are taken as 0")
    Ignored_51 = field(58, 51, doc="For software")
    NextTable_51_48 = field(15, 12, view="64KB, 52-bit", doc="Bits [51:48] of the next table's address")
    NextTable_49_48 = field(49, 48, view="LPA2", doc="Bits [49:48] of the next table's address")
    NextTable_51_50 = field(9, 8, view="LPA2", doc="Bits [51:50] of the next table's address")


class S1LeafDescriptor(Descriptor):
    """Stage 1, a block or a page: where the address is, and who may do what there."""

    AttrIndx = field(4, 2, doc="Which byte of CD.MAIR1:MAIR0 gives the memory type")
    NS = bit(5, doc="Secure streams: the output is Non-secure")
    AP = field(7, 6, values=AP, doc="AP[2:1]: bit 7 read-only, bit 6 unprivileged access")
    SH = field(9, 8, values=SHAREABILITY, doc="Shareability, unless LPA2")
    AF = bit(10, doc="Access flag; 0 faults, or is set")
    nG = bit(11, doc="The translation is of one ASID only")
    OA = address(47, 12, doc="Output address; bits below the block's size are not part of it")
    GP = bit(50, doc="Guarded page; not used by an SMMU")
    DBM = bit(51, doc="Read-only becomes writable by a write, with CD.HD")
    Contiguous = bit(52, doc="One of a run of alike descriptors")
    PXN = bit(53, doc="No privileged execution")
    UXN = bit(54, doc="No unprivileged execution (XN: no execution)")
    Software = field(58, 55, doc="For software")
    PBHA = field(62, 59, doc="For hardware if CD.HWUxxx says so, else for software")
    AMEC = bit(63, doc="Realm EL2: alternative memory encryption context; for software otherwise")
    nT = bit(16, view="block", doc="Do not cache while changing the size of a block")
    OA_51_48 = field(15, 12, view="64KB, 52-bit", doc="Bits [51:48] of the output address")
    OA_49_48 = field(49, 48, view="LPA2", doc="Bits [49:48] of the output address")
    OA_51_50 = field(9, 8, view="LPA2", doc="Bits [51:50] of the output address; shareability is CD.SHx")
    AttrIndx_3 = bit(59, view="CD.AIE=1", doc="Bit 3 of AttrIndx")


class S2LeafDescriptor(Descriptor):
    """Stage 2, a block or a page: where the address is, and who may do what there."""

    MemAttr = field(5, 2, values=MEMATTR, doc="Memory type, unless STE.S2FWB")
    S2AP = field(7, 6, values=S2AP, doc="Bit 6 permits reads, bit 7 writes")
    SH = field(9, 8, values=SHAREABILITY, doc="Shareability, unless LPA2")
    AF = bit(10, doc="Access flag; 0 faults, or is set")
    FnXS = bit(11, doc="Which barriers wait; not used by an SMMU")
    OA = address(47, 12, doc="Output address; bits below the block's size are not part of it")
    DBM = bit(51, doc="Read-only becomes writable by a write, with STE.S2HD")
    Contiguous = bit(52, doc="One of a run of alike descriptors")
    XN = field(54, 53, values=S2_XN, doc="Execution; bit 53 counts only with IDR3.XNX")
    NS = bit(55, doc="Realm streams: the output is Non-secure; for software otherwise")
    Software = field(58, 56, doc="For software")
    PBHA = field(62, 59, doc="For hardware if STE.S2HWUxx says so, else for software")
    AMEC = bit(63, doc="Realm: alternative memory encryption context; for software otherwise")
    nT = bit(16, view="block", doc="Do not cache while changing the size of a block")
    MemAttr_FWB = field(4, 2, values=S2_MEMATTR_FWB, view="STE.S2FWB=1", doc="Memory type; bit 5 is RES0")
    OA_51_48 = field(15, 12, view="64KB, 52-bit", doc="Bits [51:48] of the output address")
    OA_49_48 = field(49, 48, view="LPA2", doc="Bits [49:48] of the output address")
    OA_51_50 = field(9, 8, view="LPA2", doc="Bits [51:50] of the output address; shareability is STE.S2SH0")


LAYOUTS: tuple[type[Descriptor], ...] = (
    InvalidDescriptor,
    TableDescriptor,
    S1LeafDescriptor,
    S2TableDescriptor,
    S2LeafDescriptor,
)

#: Lowest level at which a block may stand, by log2 of the granule: with addresses of 48 bits, and of 52.
FIRST_BLOCK_LEVEL = {12: (1, 0), 14: (2, 1), 16: (2, 1)}


def span_shift(granule: int, level: int) -> int:
    """log2 of the bytes that one descriptor of a table at ``level`` covers; ``granule`` is log2 of its bytes."""
    return granule + (3 - level) * (granule - 3)


def output_address(raw: int, granule: int, level: int = 3, wide: bool = False) -> int:
    """The address that a valid descriptor holds: a leaf's, or (``level`` 3) that of the next table.

    ``granule`` is log2 of its bytes; ``wide`` says that descriptors hold addresses of 52 bits (64KB granule with
    a 52-bit output size, LPA2 with the others).
    """
    found = raw & ((1 << 48) - (1 << span_shift(granule, level)))
    if wide and granule == 16:
        found |= (raw >> 12 & 0xF) << 48
    elif wide:
        found |= raw & 0x3 << 48 | (raw >> 8 & 0x3) << 50
    return found


def decode(raw: int, stage: int = 1, level: int | None = None, granule: int = 12, wide: bool = False) -> Descriptor:
    """The descriptor ``raw`` as it counts at ``level`` of a walk.

    Without a level a block may stand anywhere, and of the two that look alike a page is assumed where AF is set,
    a table where it is not.
    """
    table, leaf = (TableDescriptor, S1LeafDescriptor) if stage == 1 else (S2TableDescriptor, S2LeafDescriptor)
    kind = raw & 3
    if kind == DescriptorType.TABLE_OR_PAGE:
        page = level == 3 if level is not None else bool(raw >> 10 & 1)
        return leaf(raw) if page else table(raw)
    if kind == DescriptorType.BLOCK and (level is None or FIRST_BLOCK_LEVEL[granule][wide] <= level < 3):
        return leaf(raw)
    return InvalidDescriptor(raw)
