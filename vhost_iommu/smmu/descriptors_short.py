# SPDX-License-Identifier: Apache-2.0
"""Short descriptors, of 32 bits (VMSAv7; Arm DDI 0487 G5.4), and the registers' bits that say what a type of memory is.

Law: declarations, and what follows from bits and level alone. Bits 3 (C) and 2 (B) and TEX[0] choose of PRRR and NMRR
where TEX remap is on; domains are not declared further, since an SMMU takes all for Client.
"""

from __future__ import annotations

from ..layout import Layout, address, bit, field

#: AP[2:0], as the two fields AP_2 and AP_1_0 hold it, without the access flag.
AP_TEXT = {
    0: "no access",
    1: "privileged RW",
    2: "privileged RW, unprivileged RO",
    3: "RW",
    4: "reserved",
    5: "privileged RO",
    6: "RO",
    7: "RO",
}
LEVEL1_TYPES = {0: "invalid", 1: "table", 2: "section", 3: "section, privileged execute-never"}
LEVEL2_TYPES = {0: "invalid", 1: "large page", 2: "small page", 3: "small page, execute-never"}


class ShortDescriptor(Layout, size=4):
    """Any descriptor: only its type is known."""

    TYPE = field(1, 0, doc="0: invalid; what else depends on the level")


class InvalidShort(ShortDescriptor):
    """No translation; everything but the type is software's."""

    Ignored = field(31, 2, doc="For software")


class ShortTable1(ShortDescriptor):
    """Level 1: where the table of a megabyte's pages is."""

    PXN = bit(2, doc="No privileged execution in what it maps")
    NS = bit(3, doc="Secure streams: the output is Non-secure")
    Domain = field(8, 5, doc="Not used by an SMMU")
    NextTable = address(31, 10, doc="The table of level 2, of 1 KiB")


class Section(ShortDescriptor):
    """Level 1: a megabyte, or with Supersection the sixteenth of 16 MiB."""

    PXN = bit(0, view="section", doc="No privileged execution")
    B = bit(2, doc="With C and TEX: the type of memory")
    C = bit(3, doc="With B and TEX: the type of memory")
    XN = bit(4, doc="No execution")
    Domain = field(8, 5, doc="Not used by an SMMU")
    AP_1_0 = field(11, 10, doc="Permissions; bit 10 is the access flag with SCTLR.AFE")
    TEX = field(14, 12, doc="With C and B: the type of memory; with remap TEX[0] alone")
    AP_2 = bit(15, doc="No writes")
    S = bit(16, doc="Shareable")
    nG = bit(17, doc="The translation is of one ASID only")
    Supersection = bit(18, doc="16 MiB, said sixteen times")
    NS = bit(19, doc="Secure streams: the output is Non-secure")
    OA = address(31, 20, doc="Output address")
    OA_39_36 = field(8, 5, view="supersection", doc="Bits [39:36] of the output address")
    OA_35_32 = field(23, 20, view="supersection", doc="Bits [35:32] of the output address")


class LargePage(ShortDescriptor):
    """Level 2: the sixteenth of 64 KiB."""

    B = bit(2, doc="With C and TEX: the type of memory")
    C = bit(3, doc="With B and TEX: the type of memory")
    AP_1_0 = field(5, 4, doc="Permissions; bit 4 is the access flag with SCTLR.AFE")
    AP_2 = bit(9, doc="No writes")
    S = bit(10, doc="Shareable")
    nG = bit(11, doc="The translation is of one ASID only")
    TEX = field(14, 12, doc="With C and B: the type of memory; with remap TEX[0] alone")
    XN = bit(15, doc="No execution")
    OA = address(31, 16, doc="Output address")


class SmallPage(ShortDescriptor):
    """Level 2: 4 KiB."""

    XN = bit(0, view="small page", doc="No execution")
    B = bit(2, doc="With C and TEX: the type of memory")
    C = bit(3, doc="With B and TEX: the type of memory")
    AP_1_0 = field(5, 4, doc="Permissions; bit 4 is the access flag with SCTLR.AFE")
    TEX = field(8, 6, doc="With C and B: the type of memory; with remap TEX[0] alone")
    AP_2 = bit(9, doc="No writes")
    S = bit(10, doc="Shareable")
    nG = bit(11, doc="The translation is of one ASID only")
    OA = address(31, 12, doc="Output address")


LAYOUTS: tuple[type[ShortDescriptor], ...] = (InvalidShort, ShortTable1, Section, LargePage, SmallPage)


def decode(raw: int, level: int) -> ShortDescriptor:
    """The descriptor ``raw`` as it counts at ``level``, 1 or 2."""
    kind = raw & 3
    if kind == 0:
        return InvalidShort(raw)
    if level == 1:
        return ShortTable1(raw) if kind == 1 else Section(raw)
    return LargePage(raw) if kind == 1 else SmallPage(raw)
