# SPDX-License-Identifier: Apache-2.0
"""The Non-secure registers of an SMMUv2: global spaces 0 and 1, context banks (IHI 0062D chapters 9, 10, 16, 17).

Law: what the specification says of bits, nothing of what they do. Offsets count within a frame; where frames are
follows from IDR1. Not here: Secure registers, Performance Monitors, extended stream matching, compressed indices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from ...layout import Access, address, bit, field
from ...layout import Register as AnyRegister

RO, WO, W1C = Access.RO, Access.WO, Access.W1C

#: Groups and banks that the architecture has room for.
MOST = 128
#: Offsets of a 4-byte register's copies in a global space, and of context banks with the smallest pages.
_EACH, _BANK = 4, 0x1000

SIZES = {0: "32 bits", 1: "36 bits", 2: "40 bits", 3: "42 bits", 4: "44 bits", 5: "48 bits"}
#: Of IDR2.OAS and IAS, and of PASize, in which values from 6 on count as 5.
SIZE_BITS = (32, 36, 40, 42, 44, 48)
#: Of IDR2.UBS.
BUS_BITS = {0: 32, 1: 36, 2: 40, 3: 42, 4: 44, 5: 49, 15: 64}
#: Of TCR2.SEP, but for 7 (and 6, which is taken for it): the width of the bus decides.
SIGN_BITS = (31, 35, 39, 41, 43, 47)

SHCFG = {0: "use incoming", 1: "outer shareable", 2: "inner shareable", 3: "non-shareable"}
ALLOCATE = {0: "use incoming", 2: "allocate", 3: "no allocate"}
BSU = {0: "no effect", 1: "inner shareable", 2: "outer shareable", 3: "full system"}
_FORMATS = {0: "AArch32 short", 1: "AArch32 long", 2: "AArch64", 3: "AArch64"}
_LEVELS = {level: f"level {level}" for level in range(4)}


class Register(AnyRegister, specification="IHI 0062D"):
    """A register of an SMMUv2."""


class StreamType(IntEnum):
    """S2CR.TYPE; 3 is taken as FAULT."""

    TRANSLATE = 0
    BYPASS = 1
    FAULT = 2


class BankType(IntEnum):
    """CBAR.TYPE."""

    S2 = 0
    S1_S2_BYPASS = 1
    S1_S2_FAULT = 2
    NESTED = 3


# -- global register space 0 -----------------------------------------------------------------------------------


class CR0(Register, at=0x000, section="9.6.3"):
    """Top-level control."""

    CLIENTPD = bit(0, reset=1, doc="Client port disable: transactions pass as they are")
    GFRE = bit(1, doc="Global faults abort")
    GFIE = bit(2, doc="Global faults interrupt")
    EXIDENABLE = bit(3, needs="IDR0.EXIDS", doc="SMRs have the extended format, of 16 bits")
    TRANSIENTCFG = field(7, 6, doc="Transient hint of transactions that bypass the stream mapping table")
    STALLD = bit(8, needs="stall", doc="No context stalls")
    USFCFG = bit(10, doc="Streams that match nothing fault, else they pass")
    VMIDPNE = bit(11, doc="VMIDs are not those of the wider system")
    PTM = bit(12, doc="TLBs take no part in broadcast maintenance")
    FB = bit(13, doc="Force broadcast of bypassing transactions' maintenance")
    BSU = field(15, 14, values=BSU, doc="Barrier shareability upgrade of bypassing transactions")
    MemAttr = field(19, 16, doc="Memory type of bypassing transactions, if MTCFG")
    MTCFG = bit(20, doc="Bypassing transactions have MemAttr")
    SMCFCFG = bit(21, doc="Streams that match several groups fault, else they pass")
    SHCFG = field(23, 22, values=SHCFG, doc="Shareability of bypassing transactions")
    RACFG = field(25, 24, values=ALLOCATE, doc="Read-allocate hint of bypassing transactions")
    WACFG = field(27, 26, values=ALLOCATE, doc="Write-allocate hint of bypassing transactions")
    VMID16EN = bit(31, needs="IDR2.VMID16S", doc="VMIDs have 16 bits, in CBA2R")


class CR2(Register, at=0x008, section="9.6.4"):
    """More control."""

    BPVMID = field(7, 0, doc="VMID of bypassing transactions; without effect")


class ACR(Register, at=0x010, section="9.6.2"):
    """Auxiliary control: implementation defined, and without effect here."""

    IMPDEF = field(31, 0)


class IDR0(Register, at=0x020, access=RO, section="9.6.1"):
    """Features."""

    NUMSMRG = field(7, 0, doc="Stream mapping register groups")
    EXIDS = bit(8, doc="Extended StreamIDs, of 16 bits")
    NUMSIDB = field(12, 9, doc="Bits of a StreamID; 15 with EXIDS")
    BTM = bit(13, doc="Broadcast TLB maintenance")
    CTTW = bit(14, doc="Coherent translation table walks")
    EXSMRGS = bit(15, doc="Extended stream matching")
    NUMIRPT = field(23, 16, doc="Context interrupts; 1: each bank has its own")
    PTFS = field(25, 24, values={0: "short and long", 1: "long", 2: "none"}, doc="AArch32 translation table formats")
    ATOSNS = bit(26, doc="Address translation operations are *not* supported")
    SMS = bit(27, doc="Streams are matched; else their StreamIDs are indices")
    NTS = bit(28, doc="Stage 1 followed by stage 2")
    S2TS = bit(29, doc="Stage 2")
    S1TS = bit(30, doc="Stage 1")
    SES = bit(31, doc="Two Security states; 0 to Non-secure reads")


class IDR1(Register, at=0x024, access=RO, section="9.6.1"):
    """More features."""

    NUMCB = field(7, 0, doc="Context banks")
    NUMSSDNDXB = field(11, 8, doc="Bits of an SSD_Index")
    SSDTP = field(13, 12, doc="SSD table present")
    SMCD = bit(15, doc="All stream match conflicts are detected")
    NUMS2CB = field(23, 16, doc="Context banks, from 0 on, of stage 2 alone")
    HAFDBS = field(25, 24, doc="Hardware updates of access flags and dirty state")
    NUMPAGENDXB = field(30, 28, doc="The global space, and the context banks', are 2^(this + 1) pages")
    PAGESIZE = bit(31, values={0: "4K", 1: "64K"}, doc="Pages of the register map")


class IDR2(Register, at=0x028, access=RO, section="9.6.1"):
    """Sizes."""

    IAS = field(3, 0, values=SIZES, doc="Intermediate physical addresses")
    OAS = field(7, 4, values=SIZES, doc="Physical addresses")
    UBS = field(
        11,
        8,
        values={code: f"{bits} bits" for code, bits in BUS_BITS.items()},
        doc="Upstream bus: addresses that come in",
    )
    PTFSv8_4kB = bit(12, doc="AArch64 tables of 4K")
    PTFSv8_16kB = bit(13, doc="AArch64 tables of 16K")
    PTFSv8_64kB = bit(14, doc="AArch64 tables of 64K")
    VMID16S = bit(15, doc="VMIDs of 16 bits")
    EXNUMSMRG = field(26, 16, doc="Extended stream match register groups")
    E2HS = bit(27, doc="EL2-Host contexts")
    HADS = bit(28, doc="Hierarchical attribute disable")
    COMPINDEXS = bit(29, doc="Compressed StreamID indexing")
    DIPANS = bit(30, doc="Privileged access never, for data and instructions")


class IDR7(Register, at=0x03C, access=RO, section="9.6.1"):
    """The implementation's version."""

    MINOR = field(3, 0)
    MAJOR = field(7, 4)


class GFAR(Register, at=0x040, size=8, section="9.6.14"):
    """Global fault address: that of the faulting access."""

    FADDR = field(63, 0)


class _GlobalFaults(Register):
    """Bits of GFSR; each is a fault, and MULTI says that one came while there was another."""

    ICF = bit(0, doc="Invalid context fault")
    USF = bit(1, doc="Unidentified stream fault")
    SMCF = bit(2, doc="Stream match conflict fault")
    UCBF = bit(3, doc="Unimplemented context bank fault")
    UUT = bit(8, doc="Unsupported upstream transaction fault")
    MULTI = bit(31, doc="Another fault came, and is not recorded")


class GFSR(_GlobalFaults, at=0x048, access=W1C, section="9.6.15"):
    """Global fault status."""


class GFSRRESTORE(_GlobalFaults, at=0x04C, access=WO, section="9.6.16"):
    """A store makes GFSR what it is."""


class GFSYNR0(Register, at=0x050, section="9.6.17"):
    """Global fault syndrome: of the faulting access."""

    Nested = bit(0, doc="The fault is one of the context bank, or of the second one; not of the stream's mapping")
    WNR = bit(1, doc="A write")
    PNU = bit(2, doc="Privileged")
    IND = bit(3, doc="An instruction")
    ATS = bit(6, doc="An address translation operation of a context bank")


class GFSYNR1(Register, at=0x054, section="9.6.18"):
    """Global fault syndrome: whose access it was."""

    StreamID = field(15, 0)


class GFSYNR2(Register, at=0x058, section="9.6.19"):
    """Global fault syndrome: implementation defined; nothing is recorded here."""

    IMPDEF = field(31, 0)


class TLBIVMID(Register, at=0x064, access=WO, section="9.6.35"):
    """Invalidate all, of either stage, of a VMID."""

    VMID = field(15, 0)


class TLBIALLNSNH(Register, at=0x068, access=WO, section="9.6.29"):
    """Invalidate all that is no hypervisor's."""

    ANY = field(31, 0)


class TLBIALLH(Register, at=0x06C, access=WO, section="9.6.28"):
    """Invalidate all of hypervisor contexts."""

    ANY = field(31, 0)


class TLBGSYNC(Register, at=0x070, access=WO, section="9.6.22"):
    """Begin to wait for all invalidations that were accepted."""

    ANY = field(31, 0)


class TLBGSTATUS(Register, at=0x074, access=RO, section="9.6.21"):
    """Whether the wait that TLBGSYNC began goes on."""

    GSACTIVE = bit(0)


class TLBIVAH(Register, at=0x078, access=WO, needs="aarch32", section="9.6.32"):
    """Invalidate a 32-bit address of hypervisor contexts."""

    Address = address(31, 12)


class _Address64(Register, size=8):
    """The address is sign-extended from bit 55."""

    Address = address(43, 0, low=12, doc="Bits [55:12]")


class TLBIVALH64(_Address64, at=0x0B0, access=WO, zero_extended=True, section="9.6.34"):
    """Invalidate a 64-bit address of hypervisor contexts, last level."""


class TLBIVMIDS1(Register, at=0x0B8, access=WO, section="9.6.36"):
    """Invalidate all that stage 1 contributed to, of a VMID."""

    VMID = field(15, 0)


class TLBIVAH64(_Address64, at=0x0C0, access=WO, zero_extended=True, section="9.6.33"):
    """Invalidate a 64-bit address of hypervisor contexts."""


class SMR(Register, at=0x800, count=MOST, stride=_EACH, needs="IDR0.SMS", section="9.6.25"):
    """Stream match register: StreamIDs of a group."""

    ID = field(14, 0, doc="The StreamID")
    MASK = field(30, 16, doc="Bits of it that do not matter")
    VALID = bit(31, doc="The group is searched")
    EXID_15 = bit(15, needs="IDR0.EXIDS", doc="With the extended format, the uppermost bit of EXID")
    EXID = field(15, 0, view="CR0.EXIDENABLE", doc="The StreamID")
    EXMASK = field(31, 16, view="CR0.EXIDENABLE", doc="Bits of it that do not matter")


class S2CR(Register, at=0xC00, count=MOST, stride=_EACH, section="9.6.23"):
    """Stream-to-context register: what becomes of a group's streams."""

    CBNDX = field(7, 0, doc="Context bank")
    SHCFG = field(9, 8, values=SHCFG, doc="Shareability")
    EXIDVALID = bit(10, needs="IDR0.EXIDS", doc="The group is searched, with the extended format")
    MTCFG = bit(11, doc="Transactions have MemAttr")
    MemAttr = field(15, 12, doc="Memory type, if MTCFG")
    TYPE = field(17, 16, values={0: "translate", 1: "bypass", 2: "fault", 3: "fault"})
    RACFG = field(21, 20, values=ALLOCATE, doc="Read-allocate hint")
    WACFG = field(23, 22, values=ALLOCATE, doc="Write-allocate hint")
    PRIVCFG = field(
        25, 24, values={0: "use incoming", 1: "unprivileged", 2: "unprivileged", 3: "privileged"}, doc="Privilege"
    )
    INSTCFG = field(27, 26, values={0: "use incoming", 1: "instruction", 2: "data", 3: "instruction"}, doc="Of reads")
    TRANSIENTCFG = field(29, 28, doc="Transient hint")


# -- global register space 1 -----------------------------------------------------------------------------------


class CBAR(Register, at=0x000, count=MOST, stride=_EACH, section="10.2.1"):
    """Context bank attributes; what a bank's bits mean follows from TYPE."""

    VMID = field(7, 0, doc="Unless CR0.VMID16EN")
    BPSHCFG = field(9, 8, values=SHCFG, doc="Shareability of the bypassed stage 2")
    HYPC = bit(10, doc="A hypervisor's context")
    FB = bit(11, doc="Force broadcast")
    MemAttr = field(15, 12, doc="Memory type of the bypassed stage 2")
    TYPE = field(
        17,
        16,
        values={0: "stage 2", 1: "stage 1, stage 2 bypassed", 2: "stage 1, stage 2 faults", 3: "stage 1 and stage 2"},
    )
    BSU = field(19, 18, values=BSU, doc="Barrier shareability upgrade")
    RACFG = field(21, 20, values=ALLOCATE, doc="Read-allocate hint")
    WACFG = field(23, 22, values=ALLOCATE, doc="Write-allocate hint")
    CBNDX = field(15, 8, view="TYPE is 3", doc="The bank of stage 2")


class CBFRSYNRA(Register, at=0x400, count=MOST, stride=_EACH, section="10.2.3"):
    """Of the fault that a context bank has recorded: whose access it was."""

    StreamID = field(15, 0)


class CBA2R(Register, at=0x800, count=MOST, stride=_EACH, section="10.2.2"):
    """More context bank attributes."""

    VA64 = bit(0, needs="aarch64", doc="AArch64 tables, else AArch32")
    MONC = bit(1, doc="Monitor context; ignored in a Non-secure bank")
    VMID16 = field(31, 16, needs="IDR2.VMID16S", doc="If CR0.VMID16EN")


# -- context banks ---------------------------------------------------------------------------------------------


class CB_SCTLR(Register, at=0x000, count=MOST, stride=_BANK, section="16.5.29"):
    """A context bank's control."""

    M = bit(0, doc="It translates")
    TRE = bit(1, doc="Short descriptors: TEX remap")
    AFE = bit(2, doc="Short descriptors: AP[0] is the access flag")
    AFFD = bit(3, doc="Access flags of 0 do not fault")
    E = bit(4, doc="Tables are big-endian")
    CFRE = bit(5, doc="Faults abort, else accesses are RAZ/WI")
    CFIE = bit(6, doc="Faults interrupt")
    CFCFG = bit(7, needs="stall", doc="Faults stall, else they terminate")
    HUPCF = bit(8, doc="Transactions are processed while there is a fault")
    WXN = bit(9, doc="What can be written cannot be executed")
    UWXN = bit(10, doc="AArch32: what the unprivileged can write the privileged cannot execute")
    ASIDPNE = bit(12, doc="ASIDs are not those of the wider system")
    PTW = bit(13, doc="Stage 2: walks of stage 1 may not read Device memory")
    TRANSIENTCFG = field(15, 14, doc="Transient hint, while M is 0")
    MemAttr = field(19, 16, doc="Memory type while M is 0, if MTCFG; of stage 2, always")
    MTCFG = bit(20, doc="Accesses have MemAttr while M is 0")
    FB = bit(21, doc="Stage 2: force broadcast")
    SHCFG = field(23, 22, values=SHCFG, doc="Shareability while M is 0; of stage 2, 0 is non-shareable")
    RACFG = field(25, 24, values=ALLOCATE, doc="Read-allocate hint while M is 0")
    WACFG = field(27, 26, values=ALLOCATE, doc="Write-allocate hint while M is 0")
    UCI = bit(30, doc="Cache maintenance by the unprivileged")


class CB_ACTLR(Register, at=0x004, count=MOST, stride=_BANK, section="16.5.1"):
    """Auxiliary control: implementation defined, and without effect here."""

    IMPDEF = field(31, 0)


class CB_RESUME(Register, at=0x008, count=MOST, stride=_BANK, access=WO, needs="stall", section="16.5.28"):
    """Go on with the transaction that is stalled."""

    TnR = bit(0, values={0: "retry", 1: "terminate"})


class CB_TCR2(Register, at=0x010, count=MOST, stride=_BANK, section="16.5.39"):
    """AArch64 stage 1: more translation control."""

    PASize = field(2, 0, values=SIZES, doc="Output addresses; from 6 on: 48 bits")
    AS = bit(4, doc="ASIDs have 16 bits")
    TBI0 = bit(5, doc="The top byte of addresses is ignored, with a bus of 64 bits; of TTBR0's")
    TBI1 = bit(6, doc="The same of TTBR1's")
    HAD0 = bit(8, needs="IDR2.HADS", doc="Permissions of TTBR0's table descriptors do not count")
    HAD1 = bit(9, needs="IDR2.HADS", doc="The same of TTBR1's")
    SEP = field(
        17, 15, values={**{at: f"bit {SIGN_BITS[at]}" for at in range(6)}, 6: "by the bus", 7: "by the bus"},
        doc="Where addresses' sign is",
    )  # fmt: skip


class CB_TTBR0(Register, at=0x020, count=MOST, stride=_BANK, size=8, section="16.5.40"):
    """Table of low addresses, or of stage 2; in short format bits [31:0] are what they are in an Armv7 CPU's."""

    ADDR = address(47, 0, doc="The table; low bits that its alignment does not leave are ignored")
    ASID = field(63, 48)


class CB_TTBR1(Register, at=0x028, count=MOST, stride=_BANK, size=8, section="16.5.40"):
    """Table of high addresses."""

    ADDR = address(47, 0, doc="The table; low bits that its alignment does not leave are ignored")
    ASID = field(63, 48)


class CB_TCR(Register, at=0x030, count=MOST, stride=_BANK, section="16.5.38"):
    """Translation control. Fields are AArch64's; views are other formats'."""

    T0SZ = field(5, 0, doc="2^(64 - this) bytes, of TTBR0's")
    SL0_0 = bit(6, doc="Stage 2: the lower bit of SL0")
    EPD0 = bit(7, doc="No walks of TTBR0's table")
    IRGN0 = field(9, 8, doc="Inner cacheability of walks")
    ORGN0 = field(11, 10, doc="Outer cacheability of walks")
    SH0 = field(13, 12, doc="Shareability of walks")
    TG0 = field(15, 14, values={0: "4K", 1: "64K", 2: "16K"}, doc="Granule of TTBR0's")
    T1SZ = field(21, 16, doc="2^(64 - this) bytes, of TTBR1's")
    A1 = bit(22, values={0: "TTBR0", 1: "TTBR1"}, doc="Whose ASID counts")
    EPD1 = bit(23, doc="No walks of TTBR1's table")
    IRGN1 = field(25, 24, doc="Inner cacheability of walks")
    ORGN1 = field(27, 26, doc="Outer cacheability of walks")
    SH1 = field(29, 28, doc="Shareability of walks")
    TG1 = field(31, 30, values={1: "16K", 2: "4K", 3: "64K"}, doc="Granule of TTBR1's")
    EAE = bit(31, view="AArch32 stage 1", doc="Long descriptors, else short ones")
    T0SZ32 = field(2, 0, view="AArch32 stage 1", doc="2^(32 - this) bytes; N of short descriptors")
    T1SZ32 = field(18, 16, view="AArch32 long descriptors", doc="2^(32 - this) bytes")
    PD0 = bit(4, view="short descriptors", doc="No walks of TTBR0's table")
    PD1 = bit(5, view="short descriptors", doc="No walks of TTBR1's table")
    S2T0SZ32 = field(3, 0, view="AArch32 stage 2", doc="2^(32 - this) bytes, signed")
    SL0 = field(7, 6, view="stage 2", doc="Where walks start")
    PASize = field(18, 16, values=SIZES, view="AArch64 stage 2", doc="Output addresses; from 6 on: 48 bits")


class CB_CONTEXTIDR(Register, at=0x034, count=MOST, stride=_BANK, section="16.5.7"):
    """Context identification."""

    ASID = field(7, 0, doc="Of short descriptors")
    PROCID = field(31, 8)


class CB_MAIR0(Register, at=0x038, count=MOST, stride=_BANK, section="16.5.12"):
    """Memory attributes 0 to 3; PRRR of short descriptors."""

    Attr = field(31, 0, doc="A byte for each")


class CB_MAIR1(Register, at=0x03C, count=MOST, stride=_BANK, section="16.5.12"):
    """Memory attributes 4 to 7; NMRR of short descriptors."""

    Attr = field(31, 0, doc="A byte for each")


class CB_PAR(Register, at=0x050, count=MOST, stride=_BANK, size=8, needs="atos", section="16.5.14"):
    """What an address translation operation came to."""

    F = bit(0, doc="It failed")
    SH = field(8, 7, doc="Shareability")
    RES1 = bit(11, doc="1, of long descriptors")
    PA = address(47, 12)
    ATTR = field(63, 56, doc="Memory attributes, as in MAIR")
    TF = bit(1, view="F", doc="Translation fault")
    AFF = bit(2, view="F", doc="Access flag fault")
    PF = bit(3, view="F", doc="Permission fault")
    EF = bit(4, view="F", doc="External fault")
    TLBMCF = bit(5, view="F", doc="TLB match conflict fault")
    ASF = bit(7, view="F", doc="Address size fault")
    FORMAT = field(9, 8, values=_FORMATS, view="F")
    ICF = bit(29, view="F", doc="Invalid context fault")
    ATOT = bit(31, view="F", doc="The operation was terminated")
    PLVL = field(33, 32, values=_LEVELS, view="F", doc="Level")
    STAGE = bit(35, view="F", values={0: "stage 1", 1: "stage 2"})


class _ContextFaults(Register):
    """Bits of FSR; each is a fault, and MULTI says that one came while there was another."""

    TF = bit(1, doc="Translation fault")
    AFF = bit(2, doc="Access flag fault")
    PF = bit(3, doc="Permission fault")
    EF = bit(4, doc="External fault")
    TLBMCF = bit(5, doc="TLB match conflict fault")
    ASF = bit(7, doc="Address size fault")
    UUT = bit(8, doc="Unsupported upstream transaction fault")
    FORMAT = field(10, 9, values=_FORMATS, access=RO, doc="Of the bank's tables, as it is set up now")
    SS = bit(30, access=RO, doc="A transaction is stalled")
    MULTI = bit(31, doc="Another fault came, and is not recorded")


class CB_FSR(_ContextFaults, at=0x058, count=MOST, stride=_BANK, access=W1C, section="16.5.9"):
    """Fault status."""


class CB_FSRRESTORE(_ContextFaults, at=0x05C, count=MOST, stride=_BANK, access=WO, section="16.5.10"):
    """A store makes FSR what it is, but for FORMAT and SS."""


class CB_FAR(Register, at=0x060, count=MOST, stride=_BANK, size=8, section="16.5.8"):
    """Fault address: as it came in."""

    FADDR = field(63, 0)


class CB_FSYNR0(Register, at=0x068, count=MOST, stride=_BANK, section="17.3.1"):
    """Fault syndrome; bits [3:2], [9:8] and [23:16] are of stage 2's banks alone."""

    PLVL = field(1, 0, values=_LEVELS, doc="Level")
    NESTED = bit(2, doc="Of a stage 1 followed by stage 2: FAR has the first's address, IPAFAR the second's")
    S1PTWF = bit(3, doc="On a walk of stage 1")
    WNR = bit(4, doc="A write")
    PNU = bit(5, doc="Privileged")
    IND = bit(6, doc="An instruction")
    NSATTR = bit(8, doc="Non-secure")
    ATOF = bit(9, doc="Of an address translation operation")
    PTWF = bit(10, doc="The external fault came on a walk")
    AFR = bit(11, doc="Recorded asynchronously; never here")
    S1CBNDX = field(23, 16, doc="The bank of stage 1")


class CB_FSYNR1(Register, at=0x06C, count=MOST, stride=_BANK, section="16.5.11"):
    """Fault syndrome: implementation defined; nothing is recorded here."""

    IMPDEF = field(31, 0)


class CB_IPAFAR(Register, at=0x070, count=MOST, stride=_BANK, size=8, needs="IDR0.S2TS", section="17.3.2"):
    """The address that stage 2 did not translate."""

    FADDR = field(63, 0)


class _ByAddress(Register, size=8):
    """By an address; as AArch64 has it, views are AArch32's."""

    Address = address(43, 0, low=12, doc="Bits [55:12], sign-extended from bit 55")
    ASID = field(63, 48)
    VA = address(31, 12, view="AArch32")
    ASID32 = field(7, 0, view="AArch32")


class CB_TLBIVA(
    _ByAddress, at=0x600, count=MOST, stride=_BANK, zero_extended=True, access=WO, needs="IDR0.S1TS", section="16.5.32"
):
    """Invalidate an address of one ASID, and global."""


class CB_TLBIVAA(
    _ByAddress, at=0x608, count=MOST, stride=_BANK, zero_extended=True, access=WO, needs="IDR0.S1TS", section="16.5.33"
):
    """Invalidate an address of all ASIDs."""


class CB_TLBIASID(Register, at=0x610, count=MOST, stride=_BANK, access=WO, needs="IDR0.S1TS", section="16.5.31"):
    """Invalidate all of one ASID that is not global."""

    ASID = field(15, 0)


class CB_TLBIALL(Register, at=0x618, count=MOST, stride=_BANK, access=WO, needs="IDR0.S1TS", section="16.5.30"):
    """Invalidate all of the bank's VMID, or of hypervisor contexts."""

    ANY = field(31, 0)


class CB_TLBIVAL(
    _ByAddress, at=0x620, count=MOST, stride=_BANK, zero_extended=True, access=WO, needs="IDR0.S1TS", section="16.5.35"
):
    """Invalidate an address of one ASID, and global, last level."""


class CB_TLBIVAAL(
    _ByAddress, at=0x628, count=MOST, stride=_BANK, zero_extended=True, access=WO, needs="IDR0.S1TS", section="16.5.34"
):
    """Invalidate an address of all ASIDs, last level."""


class CB_TLBIIPAS2(
    Register, at=0x630, count=MOST, stride=_BANK, size=8, zero_extended=True, access=WO, needs="IDR0.S2TS",
    section="17.3.4",
):  # fmt: skip
    """Invalidate an IPA of stage 2."""

    Address = address(35, 0, low=12, doc="Bits [47:12]")


class CB_TLBIIPAS2L(
    Register, at=0x638, count=MOST, stride=_BANK, size=8, zero_extended=True, access=WO, needs="IDR0.S2TS",
    section="17.3.5",
):  # fmt: skip
    """Invalidate an IPA of stage 2, last level."""

    Address = address(35, 0, low=12, doc="Bits [47:12]")


class CB_TLBSYNC(Register, at=0x7F0, count=MOST, stride=_BANK, access=WO, section="16.5.37"):
    """Begin to wait for the bank's invalidations that were accepted."""

    ANY = field(31, 0)


class CB_TLBSTATUS(Register, at=0x7F4, count=MOST, stride=_BANK, access=RO, section="16.5.36"):
    """Whether the wait that TLBSYNC began goes on."""

    SACTIVE = bit(0)


class _Operation(Register, size=8):
    """Translate an address by stage 1 into PAR."""

    ADDR = address(63, 12)


class CB_ATS1PR(
    _Operation, at=0x800, count=MOST, stride=_BANK, zero_extended=True, access=WO, needs="atos", section="16.5.2"
):
    """As a privileged read."""


class CB_ATS1PW(
    _Operation, at=0x808, count=MOST, stride=_BANK, zero_extended=True, access=WO, needs="atos", section="16.5.3"
):
    """As a privileged write."""


class CB_ATS1UR(
    _Operation, at=0x810, count=MOST, stride=_BANK, zero_extended=True, access=WO, needs="atos", section="16.5.4"
):
    """As an unprivileged read."""


class CB_ATS1UW(
    _Operation, at=0x818, count=MOST, stride=_BANK, zero_extended=True, access=WO, needs="atos", section="16.5.5"
):
    """As an unprivileged write."""


class CB_ATSR(Register, at=0x8F0, count=MOST, stride=_BANK, access=RO, needs="atos", section="16.5.6"):
    """Whether an address translation operation goes on."""

    ACTIVE = bit(0)


GLOBAL0: tuple[type[Register], ...] = (
    CR0, CR2, ACR, IDR0, IDR1, IDR2, IDR7, GFAR, GFSR, GFSRRESTORE, GFSYNR0, GFSYNR1, GFSYNR2, TLBIVMID, TLBIALLNSNH,
    TLBIALLH, TLBGSYNC, TLBGSTATUS, TLBIVAH, TLBIVALH64, TLBIVMIDS1, TLBIVAH64, SMR, S2CR,
)  # fmt: skip
GLOBAL1: tuple[type[Register], ...] = (CBAR, CBFRSYNRA, CBA2R)
CONTEXT: tuple[type[Register], ...] = (
    CB_SCTLR, CB_ACTLR, CB_RESUME, CB_TCR2, CB_TTBR0, CB_TTBR1, CB_TCR, CB_CONTEXTIDR, CB_MAIR0, CB_MAIR1, CB_PAR,
    CB_FSR, CB_FSRRESTORE, CB_FAR, CB_FSYNR0, CB_FSYNR1, CB_IPAFAR, CB_TLBIVA, CB_TLBIVAA, CB_TLBIASID, CB_TLBIALL,
    CB_TLBIVAL, CB_TLBIVAAL, CB_TLBIIPAS2, CB_TLBIIPAS2L, CB_TLBSYNC, CB_TLBSTATUS, CB_ATS1PR, CB_ATS1PW, CB_ATS1UR,
    CB_ATS1UW, CB_ATSR,
)  # fmt: skip
REGISTERS = (*GLOBAL0, *GLOBAL1, *CONTEXT)
LAYOUTS = REGISTERS
BY_NAME: Mapping[str, type[Register]] = {register.__name__: register for register in REGISTERS}
#: A store to one of these is an invalidation.
INVALIDATIONS: tuple[type[Register], ...] = (
    TLBIVMID, TLBIALLNSNH, TLBIALLH, TLBIVAH, TLBIVALH64, TLBIVMIDS1, TLBIVAH64, CB_TLBIVA, CB_TLBIVAA, CB_TLBIASID,
    CB_TLBIALL, CB_TLBIVAL, CB_TLBIVAAL, CB_TLBIIPAS2, CB_TLBIIPAS2L,
)  # fmt: skip

#: What FSR says of faults: all but FORMAT, in which there is none.
FAULTS = (1 << 32) - 1 & ~CB_FSR.FORMAT.mask

_NEEDS: Mapping[str, Callable[[Any], bool]] = {
    "aarch32": lambda read: read(IDR0).PTFS < 2,
    "aarch64": lambda read: bool(read(IDR2).PTFSv8_4kB | read(IDR2).PTFSv8_16kB | read(IDR2).PTFSv8_64kB),
    "atos": lambda read: bool(read(IDR0).S1TS and not read(IDR0).ATOSNS),
}


def met(needs: str, read: Callable[[type[Register]], Any], stall: bool) -> bool:
    """Whether what a register or field ``needs`` is there; ``read`` gives ID registers, ``stall``: contexts may."""
    if not needs:
        return True
    if needs == "stall":
        return stall
    if needs in _NEEDS:
        return _NEEDS[needs](read)
    register, _, name = needs.partition(".")
    return bool(read(BY_NAME[register]).values()[name])
