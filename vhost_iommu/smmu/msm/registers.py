# SPDX-License-Identifier: Apache-2.0
"""The registers of an MSM IOMMU: of its contexts, 4 KiB each from 0 on, and the global ones from 0xFF000 on.

Law: offsets and bits are those of Linux's header for it, spelled as there (no manual is public); what none tells is
"chosen" where it is used. Not here: the RPU's access control and the test bus beyond their bits.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...layout import Access, Register, address, array, bit, field

RO, WO = Access.RO, Access.WO

#: Contexts that there is room for below the global registers, and machine ids (M2VCBR_N) between those and CBACR_N.
MOST_CONTEXTS, MOST_MIDS = 128, 512
_CONTEXT = 0x1000


# -- of each context -------------------------------------------------------------------------------------------


class SCTLR(Register, at=0x00, count=MOST_CONTEXTS, stride=_CONTEXT):
    """System control."""

    M = bit(0, doc="Translate; else addresses pass as they are")
    TRE = bit(1, doc="TEX remap: PRRR and NMRR say what memory is")
    AFE = bit(2, doc="AP[0] is the access flag")
    HAF = bit(3, doc="Hardware sets the access flag; without effect here")
    BE = bit(4, doc="Tables are big-endian")
    AFFD = bit(5, doc="An access flag of 0 is no fault")


class ACTLR(Register, at=0x04, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Auxiliary control: faults, and what walks and hits are like."""

    CFERE = bit(0, doc="Faulting transactions abort, else they read as zero and write nothing")
    CFEIE = bit(1, doc="Faults interrupt")
    PTSHCFG = field(3, 2, doc="Shareability of walks")
    RCOSH = bit(4, doc="Redirect outer shareable accesses to the cache")
    RCISH = bit(5, doc="Redirect inner shareable accesses to the cache")
    RCNSH = bit(6, doc="Redirect non-shareable accesses to the cache")
    PRIVCFG = field(9, 8, values={0: "as it comes", 2: "unprivileged", 3: "privileged"}, doc="Privilege")
    DNA = bit(10, doc="Device memory is never aligned")
    DNLV2PA = bit(11, doc="V2P operations lock no entry")
    TLBMCFG = field(13, 12, doc="TLB matching")
    CFCFG = bit(14, doc="Faulting transactions stall")
    TIPCF = bit(15, doc="Transactions go on while a fault is pending")
    V2PCFG = field(17, 16, doc="V2P operations")
    HUME = bit(18, doc="Hits under misses")
    PTMTCFG = field(20, 19, doc="Memory type of walks")
    PTMEMTYPE = field(23, 21, doc="Memory type of walks")


class CONTEXTIDR(Register, at=0x08, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Which address space it is."""

    ASID = field(7, 0, doc="Of which its entries are")
    PROCID = field(31, 8, doc="For software")


class TTBR0(Register, at=0x10, count=MOST_CONTEXTS, stride=_CONTEXT):
    """The table of low addresses."""

    IRGNH = bit(0, doc="Inner cacheability of walks")
    SH = bit(1, doc="Walks are shareable")
    ORGN = field(4, 3, doc="Outer cacheability of walks")
    NOS = bit(5, doc="Walks are inner shareable")
    IRGNL = bit(6, doc="Inner cacheability of walks")
    PA = address(31, 7, doc="The table; bits below its size are taken as 0")


class TTBR1(TTBR0, at=0x14, count=MOST_CONTEXTS, stride=_CONTEXT):
    """The table of high addresses."""


class TTBCR(Register, at=0x18, count=MOST_CONTEXTS, stride=_CONTEXT):
    """How addresses are divided."""

    N = field(
        2, 0, doc="TTBR0's are those with so many zeros at the top (the header has them elsewhere; Linux writes 0)"
    )
    PD0 = bit(4, doc="No walks by TTBR0")
    PD1 = bit(5, doc="No walks by TTBR1")


class PAR(Register, at=0x1C, count=MOST_CONTEXTS, stride=_CONTEXT):
    """What a V2P operation has found."""

    FAULT = bit(0, doc="It has found none: the other bits are as FSR has them")
    SS = bit(1, view="no fault", doc="A supersection: only PA[31:24] is there")
    MT = field(6, 4, view="no fault", doc="Memory type")
    SH = bit(7, view="no fault", doc="Shareable")
    NS = bit(9, view="no fault", doc="Non-secure")
    NOS = bit(10, view="no fault", doc="Inner shareable")
    PA = address(31, 12, view="no fault", doc="The physical address")
    FAULT_TF = bit(1, view="fault", doc="Translation fault")
    FAULT_AFF = bit(2, view="fault", doc="Access flag fault")
    FAULT_APF = bit(3, view="fault", doc="Permission fault")
    FAULT_TLBMF = bit(4, view="fault", doc="TLB match fault")
    FAULT_HTWDEEF = bit(5, view="fault", doc="A walk's decode error")
    FAULT_HTWSEEF = bit(6, view="fault", doc="A walk's slave error")
    FAULT_MHF = bit(7, view="fault", doc="Multiple hits")
    FAULT_SL = bit(16, view="fault", doc="Of level 2")
    FAULT_SS = bit(30, view="fault", doc="Stalled")
    Rest = field(31, 1, doc="As FAULT says")


class FSR(Register, at=0x20, access=Access.W1C, count=MOST_CONTEXTS, stride=_CONTEXT):
    """The fault."""

    TF = bit(1, doc="Translation fault")
    AFF = bit(2, doc="Access flag fault")
    APF = bit(3, doc="Permission fault")
    TLBMF = bit(4, doc="TLB match fault")
    HTWDEEF = bit(5, doc="Nothing answered a walk")
    HTWSEEF = bit(6, doc="A walk ended in an error")
    MHF = bit(7, doc="Multiple hits")
    SL = bit(16, doc="Of level 2")
    SS = bit(30, doc="The transaction is stalled")
    MULTI = bit(31, doc="Another fault came, and is not recorded")


class FSRRESTORE(Register, at=0x24, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """What is stored here, FSR holds."""

    FSR = field(31, 0)


class FAR(Register, at=0x28, count=MOST_CONTEXTS, stride=_CONTEXT):
    """The address that faulted."""

    FADDR = field(31, 0)


class FSYNR0(Register, at=0x2C, access=RO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Who asked."""

    AMID = field(7, 0, doc="Machine id")
    APID = field(12, 8, doc="Port")
    ABID = field(15, 13, doc="Bus")
    ATID = field(31, 24, doc="Transaction")


class FSYNR1(Register, at=0x30, access=RO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """What was asked for."""

    AMEMTYPE = field(2, 0, doc="Memory type")
    ASHARED = bit(3, doc="Shareable")
    AINNERSHARED = bit(4, doc="Inner shareable")
    APRIV = bit(5, doc="Privileged")
    APROTNS = bit(6, doc="Non-secure")
    AINST = bit(7, doc="An instruction")
    AWRITE = bit(8, doc="A write")
    ABURST = bit(10, doc="A burst")
    ALEN = field(15, 12, doc="Of so many beats more than one")
    ASIZE = field(18, 16, doc="log2 of a beat's bytes")
    ALOCK = field(21, 20, doc="Exclusive or locked")
    AFULL = bit(24, doc="All bytes of it")


class PRRR(Register, at=0x34, count=MOST_CONTEXTS, stride=_CONTEXT):
    """TEX remap: kinds of memory and their shareability."""

    MTC = array(15, 0, each=2, doc="Of each index: 0 strongly ordered, 1 device, 2 normal")
    SHDSH0 = bit(16, doc="Device memory with S = 0 is shareable")
    SHDSH1 = bit(17, doc="Device memory with S = 1 is shareable")
    SHNMSH0 = bit(18, doc="Normal memory with S = 0 is shareable")
    SHNMSH1 = bit(19, doc="Normal memory with S = 1 is shareable")
    NOS = array(31, 24, each=1, doc="Of each index: what is shareable is inner shareable")


class NMRR(Register, at=0x38, count=MOST_CONTEXTS, stride=_CONTEXT):
    """TEX remap: cacheability of normal memory."""

    ICPC = array(15, 0, each=2, doc="Inner, of each index")
    OCPC = array(31, 16, each=2, doc="Outer, of each index")


class TLBLKCR(Register, at=0x3C, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Locked entries, of which there are none here."""

    LKE = bit(0)
    TLBIALLCFG = bit(1)
    TLBIASIDCFG = bit(2)
    TLBIVAACFG = bit(3)
    FLOOR = field(15, 8)
    VICTIM = field(23, 16)


class V2PSR(Register, at=0x40, access=RO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Where a V2P operation found its entry."""

    HIT = bit(0, doc="In the TLB")
    INDEX = field(15, 8, doc="Of the entry; 0 here")


class TLBFLPTER(Register, at=0x44, count=MOST_CONTEXTS, stride=_CONTEXT):
    """A descriptor of level 1 that was read; without effect."""

    VALUE = field(31, 0)


class TLBSLPTER(Register, at=0x48, count=MOST_CONTEXTS, stride=_CONTEXT):
    """A descriptor of level 2 that was read; without effect."""

    VALUE = field(31, 0)


class BFBCR(Register, at=0x4C, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Buffers of descriptors, of which there are none here."""

    BFBDFE = bit(0)
    BFBSFE = bit(1)
    SFVS = bit(2)
    FLVIC = field(15, 8)
    SLVIC = field(19, 16)


class CTX_TLBIALL(Register, at=0x800, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Drop all of the context's VMID."""

    VALUE = field(31, 0)


class TLBIASID(Register, at=0x804, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Drop what is of an ASID."""

    ASID = field(7, 0)


class TLBIVA(Register, at=0x808, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Drop what maps an address for an ASID, global entries too."""

    ASID = field(7, 0)
    VA = address(31, 12)


class TLBIVAA(Register, at=0x80C, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Drop what maps an address for any ASID."""

    VA = address(31, 12)


class V2PPR(Register, at=0x810, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Translate as a privileged read would be, into PAR."""

    INDEX = field(7, 0)
    VA = address(31, 12)


class V2PPW(V2PPR, at=0x814, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Translate as a privileged write would be, into PAR."""


class V2PUR(V2PPR, at=0x818, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Translate as an unprivileged read would be, into PAR."""


class V2PUW(V2PPR, at=0x81C, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """Translate as an unprivileged write would be, into PAR."""


class RESUME(Register, at=0x820, access=WO, count=MOST_CONTEXTS, stride=_CONTEXT):
    """What becomes of the stalled transaction."""

    TNR = bit(0, doc="It is terminated, else tried again")


# -- global ----------------------------------------------------------------------------------------------------


class M2VCBR_N(Register, at=0xFF000, count=MOST_MIDS):
    """Of a machine id: its VMID and its context."""

    VMID = field(4, 0)
    CBNDX = field(15, 8, doc="The context")
    BYPASSD = bit(16, doc="It may not pass untranslated")
    BPRCOSH = bit(17)
    BPRCISH = bit(18)
    BPRCNSH = bit(19)
    BPSHCFG = field(21, 20, doc="Shareability of what passes untranslated")
    NSCFG = field(23, 22, doc="Security; without effect here")
    BPMTCFG = bit(24, doc="What passes untranslated has BPMEMTYPE")
    BPMEMTYPE = field(27, 25)


class CBACR_N(Register, at=0xFF800, count=MOST_CONTEXTS):
    """Of a context: whose it is, and its interrupt."""

    RWVMID = field(4, 0)
    RWE = bit(8)
    RWGE = bit(9)
    CBVMID = field(20, 16, doc="The VMID that may use it")
    IRPTNDX = field(31, 24, doc="Its interrupt")


class TLBRSW(Register, at=0xFFE00):
    """Debugging of TLBs; without effect."""

    INDEX = field(15, 8)
    TLBBFBS = field(17, 16)


class TLBTR0(Register, at=0xFFE80):
    """Debugging of TLBs; without effect."""

    VALUE = field(31, 0)


class TLBTR1(Register, at=0xFFE84):
    """Debugging of TLBs; without effect."""

    VALUE = field(31, 0)


class TLBTR2(Register, at=0xFFE88):
    """Debugging of TLBs; without effect."""

    VALUE = field(31, 0)


class TESTBUSCR(Register, at=0xFFE8C):
    """The test bus; without effect."""

    VALUE = field(31, 0)


class GLOBAL_TLBIALL(Register, at=0xFFF00, access=WO):
    """Drop all."""

    VALUE = field(31, 0)


class TLBIVMID(Register, at=0xFFF04, access=WO):
    """Drop what is of a VMID."""

    VMID = field(4, 0)


class CR(Register, at=0xFFF80):
    """Top-level control."""

    RPUE = bit(0, doc="Access control; without effect here")
    RPUERE = bit(1, doc="Global errors abort")
    RPUEIE = bit(2, doc="Global errors interrupt")
    DCDEE = bit(3, doc="Accesses to no register are errors; without effect here")
    CLIENTPD = bit(4, doc="All transactions pass as they are")
    STALLD = bit(5, doc="No context stalls")
    TLBLKCRWE = bit(6, doc="TLBLKCR may be written; without effect here")
    TLBIALLCFG = bit(7)
    TLBIVMIDCFG = bit(8)
    HUME = bit(9, doc="Hits under misses")


class EAR(Register, at=0xFFF84, access=RO):
    """The address of a global error."""

    ADDR = field(31, 0)


class ESR(Register, at=0xFFF88, access=Access.W1C):
    """A global error."""

    CFG = bit(0, doc="A machine id without a context, or with one of another VMID")
    BYPASS = bit(1, doc="A machine id that may not pass untranslated would have")
    MULTI = bit(31, doc="Another error came, and is not recorded")


class ESRRESTORE(Register, at=0xFFF8C, access=WO):
    """What is stored here, ESR holds."""

    ESR = field(31, 0)


class ESYNR0(Register, at=0xFFF90, access=RO):
    """Who asked."""

    AMID = field(7, 0, doc="Machine id")
    APID = field(12, 8, doc="Port")
    ABID = field(15, 13, doc="Bus")
    AVMID = field(20, 16, doc="VMID")
    ATID = field(31, 24, doc="Transaction")


class ESYNR1(FSYNR1, at=0xFFF94, access=RO):
    """What was asked for."""


class REV(Register, at=0xFFFF4, access=RO):
    """The implementation's version."""

    MINOR = field(3, 0)
    MAJOR = field(7, 4)


class IDR(Register, at=0xFFFF8, access=RO):
    """Features."""

    NM2VCBMT = field(8, 0, doc="Machine ids")
    HTW = bit(9, doc="Walks are the hardware's")
    HUM = bit(10, doc="Hits under misses")
    TLBSIZE = field(15, 12, doc="log2 of the TLB's entries")
    NCB = field(23, 16, doc="Contexts")
    NIRPT = field(31, 24, doc="Interrupts of contexts")


class RPU_ACR(Register, at=0xFFFFC):
    """Access control of the access control; without effect."""

    VALUE = field(31, 0)


CONTEXT_REGISTERS: tuple[type[Register], ...] = (
    SCTLR, ACTLR, CONTEXTIDR, TTBR0, TTBR1, TTBCR, PAR, FSR, FSRRESTORE, FAR, FSYNR0, FSYNR1, PRRR, NMRR, TLBLKCR,
    V2PSR, TLBFLPTER, TLBSLPTER, BFBCR, CTX_TLBIALL, TLBIASID, TLBIVA, TLBIVAA, V2PPR, V2PPW, V2PUR, V2PUW, RESUME,
)  # fmt: skip
GLOBAL_REGISTERS: tuple[type[Register], ...] = (
    M2VCBR_N, CBACR_N, TLBRSW, TLBTR0, TLBTR1, TLBTR2, TESTBUSCR, GLOBAL_TLBIALL, TLBIVMID, CR, EAR, ESR, ESRRESTORE,
    ESYNR0, ESYNR1, REV, IDR, RPU_ACR,
)  # fmt: skip
REGISTERS = (*CONTEXT_REGISTERS, *GLOBAL_REGISTERS)
LAYOUTS = REGISTERS
BY_NAME: Mapping[str, type[Register]] = {register.__name__: register for register in REGISTERS}
