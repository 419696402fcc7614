# SPDX-License-Identifier: Apache-2.0
"""The Non-secure registers of an SMMUv3: pages 0 and 1, the VATOS page and an enhanced command queue.

Law: declarations only. What a write does beyond its mask, and whether a guard is open, is the model's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, StrEnum

from ...layout import Access, Register, address, bit, field
from ..attributes import MEMATTR, SHAREABILITY

RO = Access.RO
RW = Access.RW

#: Page 1 holds the indices that a guest's driver touches most, apart from the rest (IHI 0070 §6.2.2).
PAGE1 = 0x10000


class Guard(StrEnum):
    """Conditions under which a write is ignored (those of SMMUv3.2 and later, IHI 0070 §6.3)."""

    SMMUEN = "SMMUEN"
    CMDQEN = "CMDQEN"
    EVENTQEN = "EVENTQEN"
    PRIQEN = "PRIQEN"
    QUEUES = "QUEUES"
    IRQ_GERROR = "IRQ_GERROR"
    IRQ_EVENTQ = "IRQ_EVENTQ"
    IRQ_PRIQ = "IRQ_PRIQ"
    UPDATE = "UPDATE"
    ATOS_START = "ATOS_START"
    GATOS_RUN = "GATOS_RUN"
    VATOS_RUN = "VATOS_RUN"
    DPT_WALK_EN = "DPT_WALK_EN"
    DPT_WALK_ACK = "DPT_WALK_ACK"
    DPT_FAULT = "DPT_FAULT"
    ECMDQ_EN = "ECMDQ_EN"
    ECMDQ_ACK = "ECMDQ_ACK"

    @property
    def doc(self) -> str:
        """When writes are ignored, as a clause."""
        return _GUARD_DOCS[self]


_GUARD_DOCS = {
    Guard.SMMUEN: "while CR0.SMMUEN or CR0ACK.SMMUEN is 1, and for ever if IDR1.TABLES_PRESET is 1 (stream table)",
    Guard.CMDQEN: "while CR0.CMDQEN or CR0ACK.CMDQEN is 1; the base also for ever if IDR1.QUEUES_PRESET is 1",
    Guard.EVENTQEN: "while CR0.EVENTQEN or CR0ACK.EVENTQEN is 1; the base also for ever if IDR1.QUEUES_PRESET is 1",
    Guard.PRIQEN: "while CR0.PRIQEN or CR0ACK.PRIQEN is 1, whatever SMMUEN is; the base as EVENTQ_BASE",
    Guard.QUEUES: "while any of CMDQEN, EVENTQEN and PRIQEN is 1 in CR0 or CR0ACK, or any ECMDQ is enabled",
    Guard.IRQ_GERROR: "while IRQ_CTRL.GERROR_IRQEN or IRQ_CTRLACK.GERROR_IRQEN is 1",
    Guard.IRQ_EVENTQ: "while IRQ_CTRL.EVENTQ_IRQEN or IRQ_CTRLACK.EVENTQ_IRQEN is 1",
    Guard.IRQ_PRIQ: "while IRQ_CTRL.PRIQ_IRQEN or IRQ_CTRLACK.PRIQ_IRQEN is 1",
    Guard.UPDATE: "while the register's own Update bit is 1, or if the value written has Update 0",
    Guard.ATOS_START: "while RUN is 1, or if CR0.SMMUEN or CR0ACK.SMMUEN is 0",
    Guard.GATOS_RUN: "while GATOS_CTRL.RUN is 1",
    Guard.VATOS_RUN: "while VATOS_CTRL.RUN is 1",
    Guard.DPT_WALK_EN: "while CR0.DPT_WALK_EN or CR0ACK.DPT_WALK_EN is 1",
    Guard.DPT_WALK_ACK: "while CR0.DPT_WALK_EN differs from CR0ACK.DPT_WALK_EN",
    Guard.DPT_FAULT: "unless the value written has FAULT 0; such a write clears the whole register",
    Guard.ECMDQ_EN: "while ECMDQ_PROD.EN or ECMDQ_CONS.ENACK of the same queue is 1",
    Guard.ECMDQ_ACK: "while ECMDQ_PROD.EN differs from ECMDQ_CONS.ENACK of the same queue",
}

# -- encodings used by several registers ---------------------------------------------------------------------

#: CR1's own encoding; a TCR's differs.
CACHEABILITY = {0: "non-cacheable", 1: "write-back", 2: "write-through"}
SHCFG = {0: "non-shareable", 1: "use incoming", 2: "outer shareable", 3: "inner shareable"}
INSTCFG = {0: "use incoming", 2: "data", 3: "instruction"}
PRIVCFG = {0: "use incoming", 2: "unprivileged", 3: "privileged"}
VMW = {
    0: "VMIDs match exactly",
    1: "VMID[0] ignored",
    2: "VMID[1:0] ignored",
    3: "VMID[2:0] ignored",
    4: "VMID[3:0] ignored",
}


class AddressSize(IntEnum):
    """IDR5.OAS, CD.IPS, STE.S2PS: how many bits an output address has."""

    BITS_32 = 0
    BITS_36 = 1
    BITS_40 = 2
    BITS_42 = 3
    BITS_44 = 4
    BITS_48 = 5
    BITS_52 = 6
    BITS_56 = 7

    @property
    def bits(self) -> int:
        return (32, 36, 40, 42, 44, 48, 52, 56)[self]


ADDRESS_SIZES = {int(size): f"{size.bits} bits" for size in AddressSize}


class StallModel(IntEnum):
    """IDR0.STALL_MODEL."""

    STALL_AND_TERMINATE = 0
    TERMINATE_ONLY = 1
    STALL_FORCED = 2


class HTTU(IntEnum):
    """IDR0.HTTU: which descriptor bits the SMMU updates by itself."""

    NONE = 0
    ACCESS = 1
    ACCESS_DIRTY = 2
    ACCESS_DIRTY_TABLE = 3


class TTEndian(IntEnum):
    """IDR0.TTENDIAN."""

    MIXED = 0
    LITTLE = 2
    BIG = 3


class StreamTableFormat(IntEnum):
    """STRTAB_BASE_CFG.FMT."""

    LINEAR = 0
    TWO_LEVEL = 1


class CommandError(IntEnum):
    """CMDQ_CONS.ERR (IHI 0070 §7.1)."""

    CERROR_NONE = 0
    CERROR_ILL = 1
    CERROR_ABT = 2
    CERROR_ATC_INV_SYNC = 3


class AtosType(IntEnum):
    """GATOS_ADDR.TYPE; a VATOS request is always STAGE1."""

    STAGE1 = 1
    STAGE2 = 2
    BOTH = 3


# -- page 0: identification ----------------------------------------------------------------------------------


class IDR0(Register, at=0x00, access=RO, section="6.3.1"):
    """Features of the Non-secure programming interface."""

    S2P = bit(0, doc="Stage 2 translation")
    S1P = bit(1, doc="Stage 1 translation")
    TTF = field(
        3, 2, values={1: "AArch32 LPAE", 2: "AArch64", 3: "AArch32 LPAE and AArch64"}, doc="Translation table formats"
    )
    COHACC = bit(4, doc="Structures, queues, walks and MSIs can be accessed coherently")
    BTM = bit(5, doc="Takes part in broadcast TLB maintenance")
    HTTU = field(7, 6, values=HTTU, doc="Hardware update of access flag and dirty state")
    DORMHINT = bit(8, doc="STATUSR.DORMANT is implemented")
    Hyp = bit(9, doc="EL2 and EL2-E2H stage 1 contexts; RES0 without both stages")
    ATS = bit(10, doc="PCIe ATS")
    NS1ATS = bit(11, doc="Split-stage ATS is *not* supported")
    ASID16 = bit(12, doc="16-bit ASIDs; else ASID[15:8] must be 0")
    MSI = bit(13, doc="Message signalled interrupts")
    SEV = bit(14, doc="Wake-up events for WFE")
    ATOS = bit(15, doc="Address translation operations (GATOS_*)")
    PRI = bit(16, doc="Page request interface (PRIQ_*)")
    VMW = bit(17, doc="VMID wildcards in TLB invalidation (CR0.VMW)")
    VMID16 = bit(18, doc="16-bit VMIDs; else VMID[15:8] must be 0")
    CD2L = bit(19, doc="2-level context descriptor tables")
    VATOS = bit(20, doc="VATOS page")
    TTENDIAN = field(22, 21, values=TTEndian, doc="Endianness of translation table walks")
    ATSRECERR = bit(23, doc="CR2.REC_CFG_ATS is implemented")
    STALL_MODEL = field(25, 24, values=StallModel, doc="Which fault models there are")
    TERM_MODEL = bit(26, values={0: "CD.A chooses abort or RAZ/WI", 1: "always abort; CD.A must be 1"}, doc="Terminate")
    ST_LEVEL = field(28, 27, values={0: "linear", 1: "linear and 2-level"}, doc="Stream table formats")
    RME_IMPL = bit(30, doc="RME features; events can carry GPCF")


class IDR1(Register, at=0x04, access=RO, section="6.3.2"):
    """Sizes and presets."""

    SIDSIZE = field(5, 0, doc="Bits of a StreamID, 0 to 32; 7 or more need ST_LEVEL")
    SSIDSIZE = field(10, 6, doc="Bits of a SubstreamID, 0 to 20")
    PRIQS = field(15, 11, doc="Largest PRI queue, log2 of entries, at most 19")
    EVENTQS = field(20, 16, doc="Largest event queue, log2 of entries, at most 19")
    CMDQS = field(25, 21, doc="Largest command queue, log2 of entries, at most 19")
    ATTR_PERMS_OVR = bit(26, doc="Instruction, privilege and NS attributes can be overridden")
    ATTR_TYPES_OVR = bit(27, doc="Memory type, shareability and allocation hints can be overridden")
    REL = bit(28, doc="Preset base addresses are offsets from page 0")
    QUEUES_PRESET = bit(29, doc="Queue bases are fixed")
    TABLES_PRESET = bit(30, doc="Stream table base is fixed")
    ECMDQ = bit(31, doc="Enhanced command queues, described by IDR6")


class IDR2(Register, at=0x08, access=RO, section="6.3.3"):
    """Where the VATOS page is."""

    BA_VATOS = field(9, 0, needs="IDR0.VATOS", doc="The page is at 0x20000 + this * 0x10000")


class IDR3(Register, at=0x0C, access=RO, section="6.3.4"):
    """Features added since version 3.0."""

    HAD = bit(2, doc="Hierarchical attribute disable (CD.HAD0, CD.HAD1)")
    PBHA = bit(3, doc="Page based hardware attributes")
    XNX = bit(4, doc="Stage 2 XN is two bits, one each for EL0 and EL1")
    PPS = bit(5, doc="Automatic PRI responses carry the request's PASID; STE.PPAR is ignored")
    MPAM = bit(7, doc="Memory partitioning and monitoring")
    FWB = bit(8, doc="STE.S2FWB")
    STT = bit(9, doc="Small translation tables: TxSZ up to 48 (47 with 64KB)")
    RIL = bit(10, doc="Range invalidation and level hints in CMD_TLBI_*")
    BBML = field(12, 11, values={0: "level 0", 1: "level 1", 2: "level 2"}, doc="Break-before-make level")
    E0PD = bit(13, doc="CD.E0PD0, CD.E0PD1")
    PTWNNC = bit(14, doc="With STE.S2PTW 0, walks of Device memory are made as Normal Non-cacheable")
    DPT = bit(15, doc="Device permission table, STE.EATS 3")
    PASIDTT = bit(16, doc="PASIDs on ATS translated transactions")
    EPAN = bit(17, doc="CD.EPAN")
    S1PI = bit(18, doc="Stage 1 permission indirection")
    S2PI = bit(19, doc="Stage 2 permission indirection")
    S2PO = bit(20, doc="Stage 2 permission overlays")
    THE = bit(21, doc="Translation hardening")
    MTEPERM = bit(22, doc="Stage 2 NoTagAccess encodings")
    AIE = bit(23, doc="Attribute index extension (CD.AIE)")


class IDR4(Register, at=0x10, access=RO, section="6.3.5"):
    """Implementation defined."""

    IMPDEF = field(31, 0, doc="Implementation defined")


class IDR5(Register, at=0x14, access=RO, section="6.3.6"):
    """Address sizes, granules and stalls."""

    OAS = field(2, 0, values=ADDRESS_SIZES, doc="Output address size")
    GRAN4K = bit(4, doc="4KB granule")
    GRAN16K = bit(5, doc="16KB granule")
    GRAN64K = bit(6, doc="64KB granule")
    DS = bit(7, doc="52-bit addresses with the 4KB and 16KB granules")
    D128 = bit(8, doc="VMSAv9-128 descriptors")
    VAX = field(11, 10, values={0: "48 bits", 1: "52 bits", 2: "56 bits"}, doc="Virtual address size per TTBx")
    STALL_MAX = field(31, 16, doc="Most stalled transactions at a time")


class IIDR(Register, at=0x18, access=RO, section="6.3.7"):
    """Who made this SMMU."""

    Implementer = field(11, 0, doc="JEP106: continuation code [11:8], identity code [6:0]")
    Revision = field(15, 12, doc="Minor revision")
    Variant = field(19, 16, doc="Variant or major revision")
    ProductID = field(31, 20, doc="Part")


class AIDR(Register, at=0x1C, access=RO, section="6.3.8"):
    """Version of the architecture."""

    ArchMinorRev = field(
        3, 0, values={0: "SMMUv3.0", 1: "SMMUv3.1", 2: "SMMUv3.2", 3: "SMMUv3.3", 4: "SMMUv3.4"}, doc="Minor version"
    )
    ArchMajorRev = field(7, 4, values={0: "SMMUv3.x"}, doc="Major version")


# -- page 0: control -----------------------------------------------------------------------------------------


class CR0(Register, at=0x20, section="6.3.9"):
    """Enables; each field is acknowledged by itself in CR0ACK."""

    SMMUEN = bit(0, doc="Translate; while 0, GBPA decides")
    PRIQEN = bit(1, needs="IDR0.PRI", doc="Write page requests to the PRI queue; counts as 0 while SMMUEN is 0")
    EVENTQEN = bit(2, doc="Write events to the event queue")
    CMDQEN = bit(3, doc="Process commands")
    ATSCHK = bit(4, needs="IDR0.ATS", doc="Check translated ATS traffic against STE.EATS")
    VMW = field(8, 6, needs="IDR0.VMW", values=VMW, doc="Which VMIDs an invalidation matches; reserved values act as 0")
    DPT_WALK_EN = bit(10, needs="IDR3.DPT", guard=Guard.DPT_WALK_ACK, doc="Walk the device permission table")


class CR0ACK(Register, at=0x24, access=RO, section="6.3.10"):
    """What has taken effect of CR0; fields reserved there read as 0 here."""

    SMMUEN = bit(0, doc="CR0.SMMUEN in effect")
    PRIQEN = bit(1, needs="IDR0.PRI", doc="CR0.PRIQEN in effect")
    EVENTQEN = bit(2, doc="CR0.EVENTQEN in effect")
    CMDQEN = bit(3, doc="CR0.CMDQEN in effect")
    ATSCHK = bit(4, needs="IDR0.ATS", doc="CR0.ATSCHK in effect")
    VMW = field(8, 6, needs="IDR0.VMW", values=VMW, doc="CR0.VMW in effect")
    DPT_WALK_EN = bit(10, needs="IDR3.DPT", doc="CR0.DPT_WALK_EN in effect")


class CR1(Register, at=0x28, section="6.3.11"):
    """Memory attributes of accesses to tables and queues."""

    QUEUE_IC = field(1, 0, values=CACHEABILITY, guard=Guard.QUEUES, doc="Queues, inner cacheability")
    QUEUE_OC = field(3, 2, values=CACHEABILITY, guard=Guard.QUEUES, doc="Queues, outer cacheability")
    QUEUE_SH = field(5, 4, values=SHAREABILITY, guard=Guard.QUEUES, doc="Queues, shareability")
    TABLE_IC = field(7, 6, values=CACHEABILITY, guard=Guard.SMMUEN, doc="Stream table and VMS, inner cacheability")
    TABLE_OC = field(9, 8, values=CACHEABILITY, guard=Guard.SMMUEN, doc="Stream table and VMS, outer cacheability")
    TABLE_SH = field(11, 10, values=SHAREABILITY, guard=Guard.SMMUEN, doc="Stream table and VMS, shareability")


class CR2(Register, at=0x2C, guard=Guard.SMMUEN, section="6.3.12"):
    """Controls that may change only while translation is off."""

    E2H = bit(0, needs="IDR0.Hyp", doc="STE.STRW 2 selects EL2-E2H, tagged by ASID, rather than EL2")
    RECINVSID = bit(1, doc="Record C_BAD_STREAMID")
    PTM = bit(2, needs="IDR0.BTM", doc="Ignore broadcast TLB maintenance")
    REC_CFG_ATS = bit(3, needs="IDR0.ATSRECERR", doc="Record configuration errors of ATS and PRI requests too")


S2_PERMISSIONS = {
    0: "no access",
    2: "MRO",
    3: "MRO-TL1",
    4: "WO",
    6: "MRO-TL0",
    7: "MRO-TL01",
    8: "RO",
    9: "RO+uX",
    10: "RO+pX",
    11: "RO+puX",
    12: "RW",
    13: "RW+uX",
    14: "RW+pX",
    15: "RW+puX",
}


class S2PII(Register, at=0x30, size=8, needs="IDR3.S2PI", section="6.3.17"):
    """Stage 2 permissions by PIIndex."""

    S2PII0 = field(3, 0, values=S2_PERMISSIONS, doc="Permission of PIIndex 0; reserved values give no access")
    S2PII1 = field(7, 4, values=S2_PERMISSIONS, doc="Permission of PIIndex 1")
    S2PII2 = field(11, 8, values=S2_PERMISSIONS, doc="Permission of PIIndex 2")
    S2PII3 = field(15, 12, values=S2_PERMISSIONS, doc="Permission of PIIndex 3")
    S2PII4 = field(19, 16, values=S2_PERMISSIONS, doc="Permission of PIIndex 4")
    S2PII5 = field(23, 20, values=S2_PERMISSIONS, doc="Permission of PIIndex 5")
    S2PII6 = field(27, 24, values=S2_PERMISSIONS, doc="Permission of PIIndex 6")
    S2PII7 = field(31, 28, values=S2_PERMISSIONS, doc="Permission of PIIndex 7")
    S2PII8 = field(35, 32, values=S2_PERMISSIONS, doc="Permission of PIIndex 8")
    S2PII9 = field(39, 36, values=S2_PERMISSIONS, doc="Permission of PIIndex 9")
    S2PII10 = field(43, 40, values=S2_PERMISSIONS, doc="Permission of PIIndex 10")
    S2PII11 = field(47, 44, values=S2_PERMISSIONS, doc="Permission of PIIndex 11")
    S2PII12 = field(51, 48, values=S2_PERMISSIONS, doc="Permission of PIIndex 12")
    S2PII13 = field(55, 52, values=S2_PERMISSIONS, doc="Permission of PIIndex 13")
    S2PII14 = field(59, 56, values=S2_PERMISSIONS, doc="Permission of PIIndex 14")
    S2PII15 = field(63, 60, values=S2_PERMISSIONS, doc="Permission of PIIndex 15")


class STATUSR(Register, at=0x40, access=RO, section="6.3.13"):
    """Status of the component."""

    DORMANT = bit(0, needs="IDR0.DORMHINT", doc="Nothing is cached and no prefetch is under way")


class GBPA(Register, at=0x44, guard=Guard.UPDATE, section="6.3.14"):
    """What becomes of transactions while CR0.SMMUEN is 0."""

    MemAttr = field(3, 0, values=MEMATTR, doc="Memory type that replaces the incoming one if MTCFG is 1")
    MTCFG = bit(4, doc="Replace the incoming memory type by MemAttr")
    ALLOCCFG = field(11, 8, doc="0b1RWT: replace the read, write and transient hints; 0b0xxx: use incoming")
    SHCFG = field(13, 12, values=SHCFG, reset=1, doc="Shareability")
    PRIVCFG = field(17, 16, values=PRIVCFG, doc="Privilege")
    INSTCFG = field(19, 18, values=INSTCFG, doc="Instruction or data, of reads only")
    ABORT = bit(20, doc="Abort every transaction rather than let it pass")
    Update = bit(31, doc="Written as 1 with the new value; reads as 1 until that is in effect")


class AGBPA(Register, at=0x48, section="6.3.15"):
    """Implementation defined attributes of bypassing transactions."""

    IMPDEF = field(31, 0, access=RO, doc="Implementation defined; RES0 here")


class IRQ_CTRL(Register, at=0x50, section="6.3.16"):
    """Interrupt enables, of wires and MSIs alike; acknowledged in IRQ_CTRLACK."""

    GERROR_IRQEN = bit(0, doc="Global errors")
    PRIQ_IRQEN = bit(1, needs="IDR0.PRI", doc="PRI queue")
    EVENTQ_IRQEN = bit(2, doc="Event queue")


class IRQ_CTRLACK(Register, at=0x54, access=RO, section="6.3.18"):
    """What has taken effect of IRQ_CTRL."""

    GERROR_IRQEN = bit(0, doc="IRQ_CTRL.GERROR_IRQEN in effect")
    PRIQ_IRQEN = bit(1, needs="IDR0.PRI", doc="IRQ_CTRL.PRIQ_IRQEN in effect")
    EVENTQ_IRQEN = bit(2, doc="IRQ_CTRL.EVENTQ_IRQEN in effect")


class GERROR(Register, at=0x60, access=RO, section="6.3.19"):
    """Global errors; one is active while its bit differs from GERRORN's."""

    CMDQ_ERR = bit(0, doc="Command queue stopped; CMDQ_CONS.ERR says why")
    EVENTQ_ABT_ERR = bit(2, doc="An access to the event queue was aborted")
    PRIQ_ABT_ERR = bit(3, needs="IDR0.PRI", doc="An access to the PRI queue was aborted")
    MSI_CMDQ_ABT_ERR = bit(4, needs="IDR0.MSI", doc="A CMD_SYNC's MSI was aborted")
    MSI_EVENTQ_ABT_ERR = bit(5, needs="IDR0.MSI", doc="An event queue MSI was aborted")
    MSI_PRIQ_ABT_ERR = bit(6, needs="IDR0.MSI and IDR0.PRI", doc="A PRI queue MSI was aborted")
    MSI_GERROR_ABT_ERR = bit(7, needs="IDR0.MSI", doc="A GERROR MSI was aborted; raises no interrupt")
    SFM_ERR = bit(8, doc="Service failure mode; acknowledging does not leave it")
    CMDQP_ERR = bit(9, needs="IDR1.ECMDQ", doc="An error on an enhanced command queue")
    DPT_ERR = bit(10, needs="IDR3.DPT", doc="A device permission table lookup failed; see DPT_CFG_FAR")


class GERRORN(Register, at=0x64, section="6.3.20"):
    """Acknowledges GERROR: software makes the bit equal."""

    CMDQ_ERR = bit(0, doc="Acknowledges GERROR.CMDQ_ERR and restarts the command queue")
    EVENTQ_ABT_ERR = bit(2, doc="Acknowledges GERROR.EVENTQ_ABT_ERR")
    PRIQ_ABT_ERR = bit(3, needs="IDR0.PRI", doc="Acknowledges GERROR.PRIQ_ABT_ERR")
    MSI_CMDQ_ABT_ERR = bit(4, needs="IDR0.MSI", doc="Acknowledges GERROR.MSI_CMDQ_ABT_ERR")
    MSI_EVENTQ_ABT_ERR = bit(5, needs="IDR0.MSI", doc="Acknowledges GERROR.MSI_EVENTQ_ABT_ERR")
    MSI_PRIQ_ABT_ERR = bit(6, needs="IDR0.MSI and IDR0.PRI", doc="Acknowledges GERROR.MSI_PRIQ_ABT_ERR")
    MSI_GERROR_ABT_ERR = bit(7, needs="IDR0.MSI", doc="Acknowledges GERROR.MSI_GERROR_ABT_ERR")
    SFM_ERR = bit(8, doc="Acknowledges GERROR.SFM_ERR")
    CMDQP_ERR = bit(9, needs="IDR1.ECMDQ", doc="Acknowledges GERROR.CMDQP_ERR")
    DPT_ERR = bit(10, needs="IDR3.DPT", doc="Acknowledges GERROR.DPT_ERR")


class GERROR_IRQ_CFG0(Register, at=0x68, size=8, guard=Guard.IRQ_GERROR, needs="IDR0.MSI", section="6.3.21"):
    """Where the GERROR MSI goes."""

    ADDR = address(55, 2, doc="Physical address; 0 sends no MSI")


class GERROR_IRQ_CFG1(Register, at=0x70, guard=Guard.IRQ_GERROR, needs="IDR0.MSI", section="6.3.22"):
    """What the GERROR MSI says."""

    DATA = field(31, 0, doc="The word written")


class GERROR_IRQ_CFG2(Register, at=0x74, guard=Guard.IRQ_GERROR, needs="IDR0.MSI", section="6.3.23"):
    """How the GERROR MSI is written."""

    MemAttr = field(3, 0, values=MEMATTR, doc="Memory type")
    SH = field(5, 4, values=SHAREABILITY, doc="Shareability")


# -- page 0: stream table and queues -------------------------------------------------------------------------


class STRTAB_BASE(Register, at=0x80, size=8, guard=Guard.SMMUEN, section="6.3.24"):
    """Where the stream table is."""

    ADDR = address(55, 6, doc="Physical address, aligned down to the table's size (at least 64 bytes) before use")
    RA = bit(62, doc="Read-allocate hint")


class STRTAB_BASE_CFG(Register, at=0x88, guard=Guard.SMMUEN, section="6.3.25"):
    """What the stream table looks like."""

    LOG2SIZE = field(5, 0, doc="log2 of the StreamIDs covered; uses other than alignment cap it at IDR1.SIDSIZE")
    SPLIT = field(
        10,
        6,
        values={6: "4KB leaves", 8: "16KB leaves", 10: "64KB leaves"},
        needs="IDR0.ST_LEVEL",
        doc="StreamID bits resolved by a leaf; ignored if linear; other values act as 6",
    )
    FMT = field(17, 16, values=StreamTableFormat, needs="IDR0.ST_LEVEL", doc="Format; reserved values act as linear")


class CMDQ_BASE(Register, at=0x90, size=8, guard=Guard.CMDQEN, section="6.3.26"):
    """Where the command queue is; written before PROD and CONS."""

    LOG2SIZE = field(4, 0, doc="log2 of the entries (16 bytes each), capped at IDR1.CMDQS")
    ADDR = address(55, 5, doc="Physical address, aligned down to the queue's size (at least 32 bytes) before use")
    RA = bit(62, doc="Read-allocate hint")


class CMDQ_PROD(Register, at=0x98, section="6.3.27"):
    """Software's index of the command queue; a write makes the SMMU look for commands."""

    WR = field(19, 0, doc="Index [LOG2SIZE-1:0] and above it the wrap flag; higher bits have no effect")


class CMDQ_CONS(Register, at=0x9C, guard=Guard.CMDQEN, section="6.3.28"):
    """The SMMU's index of the command queue."""

    RD = field(19, 0, doc="Index [LOG2SIZE-1:0] and above it the wrap flag; higher bits read as 0")
    ERR = field(
        30, 24, values=CommandError, access=RO, doc="Why the queue stopped; valid while GERROR.CMDQ_ERR is active"
    )


class EVENTQ_BASE(Register, at=0xA0, size=8, guard=Guard.EVENTQEN, section="6.3.29"):
    """Where the event queue is."""

    LOG2SIZE = field(4, 0, doc="log2 of the entries (32 bytes each), capped at IDR1.EVENTQS")
    ADDR = address(55, 5, doc="Physical address, aligned down to the queue's size before use")
    WA = bit(62, doc="Write-allocate hint")


class EVENTQ_IRQ_CFG0(Register, at=0xB0, size=8, guard=Guard.IRQ_EVENTQ, needs="IDR0.MSI", section="6.3.30"):
    """Where the event queue MSI goes."""

    ADDR = address(55, 2, doc="Physical address; 0 sends no MSI")


class EVENTQ_IRQ_CFG1(Register, at=0xB8, guard=Guard.IRQ_EVENTQ, needs="IDR0.MSI", section="6.3.31"):
    """What the event queue MSI says."""

    DATA = field(31, 0, doc="The word written")


class EVENTQ_IRQ_CFG2(Register, at=0xBC, guard=Guard.IRQ_EVENTQ, needs="IDR0.MSI", section="6.3.32"):
    """How the event queue MSI is written."""

    MemAttr = field(3, 0, values=MEMATTR, doc="Memory type")
    SH = field(5, 4, values=SHAREABILITY, doc="Shareability")


class PRIQ_BASE(Register, at=0xC0, size=8, guard=Guard.PRIQEN, needs="IDR0.PRI", section="6.3.33"):
    """Where the PRI queue is."""

    LOG2SIZE = field(4, 0, doc="log2 of the entries (16 bytes each), capped at IDR1.PRIQS")
    ADDR = address(55, 5, doc="Physical address, aligned down to the queue's size (at least 32 bytes) before use")
    WA = bit(62, doc="Write-allocate hint")


class PRIQ_IRQ_CFG0(Register, at=0xD0, size=8, guard=Guard.IRQ_PRIQ, needs="IDR0.MSI and IDR0.PRI", section="6.3.34"):
    """Where the PRI queue MSI goes."""

    ADDR = address(55, 2, doc="Physical address; 0 sends no MSI")


class PRIQ_IRQ_CFG1(Register, at=0xD8, guard=Guard.IRQ_PRIQ, needs="IDR0.MSI and IDR0.PRI", section="6.3.35"):
    """What the PRI queue MSI says."""

    DATA = field(31, 0, doc="The word written")


class PRIQ_IRQ_CFG2(Register, at=0xDC, guard=Guard.IRQ_PRIQ, needs="IDR0.PRI", section="6.3.36"):
    """When the PRI queue interrupts, and how its MSI is written."""

    MemAttr = field(3, 0, values=MEMATTR, needs="IDR0.MSI", doc="Memory type")
    SH = field(5, 4, values=SHAREABILITY, needs="IDR0.MSI", doc="Shareability")
    LO = bit(
        31,
        values={0: "when the queue becomes non-empty", 1: "on a request with Last set"},
        doc="When to interrupt, by wire or MSI",
    )


# -- page 0: address translation operations, MPAM, DPT -------------------------------------------------------


class GATOS_CTRL(Register, at=0x100, guard=Guard.ATOS_START, needs="IDR0.ATOS", section="6.3.37"):
    """Starts a translation."""

    RUN = bit(0, doc="Written as 1 to start; the SMMU clears it when GATOS_PAR holds the result")


class GATOS_SID(Register, at=0x108, size=8, guard=Guard.GATOS_RUN, needs="IDR0.ATOS", section="6.3.38"):
    """Whose address to translate."""

    STREAMID = field(31, 0, doc="StreamID; bits above IDR1.SIDSIZE are RES0")
    SUBSTREAMID = field(51, 32, doc="SubstreamID; bits above IDR1.SSIDSIZE are RES0")
    SSID_VALID = bit(52, needs="IDR1.SSIDSIZE", doc="SUBSTREAMID is meant")


class GATOS_ADDR(Register, at=0x110, size=8, guard=Guard.GATOS_RUN, needs="IDR0.ATOS", section="6.3.39"):
    """The address to translate, and as what access."""

    HTTUI = bit(6, doc="Do not update descriptors")
    InD = bit(7, values={0: "data", 1: "instruction"}, doc="Ignored for writes")
    RnW = bit(8, values={0: "write", 1: "read"}, doc="Read or write")
    PnU = bit(9, values={0: "unprivileged", 1: "privileged"}, doc="Privilege")
    TYPE = field(11, 10, values=AtosType, doc="Stages to translate")
    ADDR = address(63, 12, doc="Input address")


PAR_REASON = {
    0: "stage 1, or no stage",
    1: "CD: stage 2, fetching the CD",
    2: "TT: stage 2, on a stage 1 table walk",
    3: "IN: stage 2, of the input address",
}
PAR_FAULTCODE = {
    0x02: "C_BAD_STREAMID",
    0x03: "F_STE_FETCH",
    0x04: "C_BAD_STE",
    0x06: "F_STREAM_DISABLED",
    0x08: "C_BAD_SUBSTREAMID",
    0x09: "F_CD_FETCH",
    0x0A: "C_BAD_CD",
    0x0B: "F_WALK_EABT",
    0x10: "F_TRANSLATION",
    0x11: "F_ADDR_SIZE",
    0x12: "F_ACCESS",
    0x13: "F_PERMISSION",
    0x20: "F_TLB_CONFLICT",
    0x21: "F_CFG_CONFLICT",
    0x25: "F_VMS_FETCH",
    0xFD: "INTERNAL_ERR",
    0xFE: "INV_STAGE",
    0xFF: "INV_REQ",
}


class GATOS_PAR(Register, at=0x118, size=8, access=RO, needs="IDR0.ATOS", section="6.3.40"):
    """The result: an address and its attributes, or a fault."""

    FAULT = bit(0, doc="The translation failed")
    SH = field(9, 8, doc="Shareability: 0 non, 2 outer, 3 inner")
    Size = bit(11, doc="1: the lowest bit set in ADDR, N, says that the translation is 2^(N+1) bytes; 0: 4KB")
    ADDR = address(55, 12, doc="Output address")
    ATTR = field(63, 56, doc="Memory attributes as in MAIR")
    REASON = field(2, 1, values=PAR_REASON, view="FAULT=1", doc="Stage and class of the fault")
    FAULTCODE = field(11, 4, values=PAR_FAULTCODE, view="FAULT=1", doc="Kind of fault")
    FADDR = address(55, 12, view="FAULT=1", doc="IPA page of a stage 2 fault")
    IMPDEF = field(63, 60, view="FAULT=1", doc="Implementation defined")


class MPAMIDR(Register, at=0x130, access=RO, needs="IDR3.MPAM", section="6.3.41"):
    """Largest MPAM identifiers."""

    PARTID_MAX = field(15, 0, doc="Largest PARTID")
    PMG_MAX = field(23, 16, doc="Largest PMG")


class GMPAM(Register, at=0x138, guard=Guard.UPDATE, needs="IDR3.MPAM", section="6.3.42"):
    """MPAM identifiers of the SMMU's own accesses."""

    SO_PARTID = field(15, 0, doc="PARTID")
    SO_PMG = field(23, 16, doc="PMG")
    Update = bit(31, doc="As GBPA.Update")


class GBPMPAM(Register, at=0x13C, guard=Guard.UPDATE, needs="IDR3.MPAM", section="6.3.43"):
    """MPAM identifiers of transactions that bypass."""

    GBP_PARTID = field(15, 0, doc="PARTID")
    GBP_PMG = field(23, 16, doc="PMG")
    Update = bit(31, doc="As GBPA.Update")


class VATOS_SEL(Register, at=0x180, guard=Guard.VATOS_RUN, needs="IDR0.VATOS", section="6.3.44"):
    """Which virtual machine uses the VATOS page."""

    VMID = field(15, 0, doc="Must equal STE.S2VMID of the stream asked about")


class IDR6(Register, at=0x190, access=RO, needs="IDR1.ECMDQ", section="6.3.45"):
    """Enhanced command queues."""

    CMDQ_CONTROL_PAGE_LOG2NUMQ = field(19, 16, doc="log2 of the queues in a control page, at most 8")
    CMDQ_CONTROL_PAGE_LOG2NUMP = field(27, 24, doc="log2 of the control pages, at most 8")


class DPT_BASE(Register, at=0x200, size=8, guard=Guard.DPT_WALK_EN, needs="IDR3.DPT", section="6.3.46"):
    """Where the device permission table is."""

    BADDR = address(55, 12, doc="Physical address of level 0, aligned down to the larger of 4KB and its size")
    RA = bit(62, doc="Read-allocate hint")


class DPT_BASE_CFG(Register, at=0x208, guard=Guard.DPT_WALK_EN, needs="IDR3.DPT", section="6.3.47"):
    """What the device permission table looks like."""

    DPTPS = field(
        2,
        0,
        values={0: "32 bits", 1: "36 bits", 2: "40 bits", 3: "42 bits", 4: "44 bits", 5: "48 bits", 6: "52 bits"},
        doc="Size of the memory that it protects",
    )
    DPTGS = field(15, 14, values={0: "4KB", 1: "64KB", 2: "16KB"}, doc="Granule")
    L0DPTSZ = field(23, 20, values={0: "1GB", 4: "16GB", 6: "64GB", 9: "512GB"}, doc="Memory per level 0 entry")


class DPT_CFG_FAR(Register, at=0x210, size=8, access=RO, guard=Guard.DPT_FAULT, needs="IDR3.DPT", section="6.3.48"):
    """The first failed lookup of the device permission table."""

    FAULT = bit(0, access=RW, doc="A lookup failed; only a write of 0 counts, and it clears the register")
    LEVEL = bit(1, doc="Level of the fault")
    DPT_FAULTCODE = field(
        7, 4, values={0: "DPT_DISABLED", 1: "DPT_WALK_FAULT", 2: "DPT_GPC_FAULT", 3: "DPT_EABT"}, doc="Kind of fault"
    )
    FADDR = address(55, 12, doc="Physical address that was checked")


# -- page 0: CoreSight identification ------------------------------------------------------------------------


class PIDR4(Register, at=0xFD0, access=RO, section="6.3.170"):
    """Peripheral ID 4."""

    DES_2 = field(3, 0, doc="JEP106 continuation code of the designer")
    SIZE = field(7, 4, doc="0")


class PIDR5(Register, at=0xFD4, access=RO, section="6.3.170"):
    """Peripheral ID 5: RES0."""


class PIDR6(Register, at=0xFD8, access=RO, section="6.3.170"):
    """Peripheral ID 6: RES0."""


class PIDR7(Register, at=0xFDC, access=RO, section="6.3.170"):
    """Peripheral ID 7: RES0."""


class PIDR0(Register, at=0xFE0, access=RO, section="6.3.170"):
    """Peripheral ID 0."""

    PART_0 = field(7, 0, doc="Part number [7:0]")


class PIDR1(Register, at=0xFE4, access=RO, section="6.3.170"):
    """Peripheral ID 1."""

    PART_1 = field(3, 0, doc="Part number [11:8]")
    DES_0 = field(7, 4, doc="JEP106 identity code of the designer [3:0]")


class PIDR2(Register, at=0xFE8, access=RO, section="6.3.170"):
    """Peripheral ID 2."""

    DES_1 = field(2, 0, doc="JEP106 identity code of the designer [6:4]")
    JEDEC = bit(3, reset=1, doc="The designer's code is JEDEC's")
    REVISION = field(7, 4, doc="Revision")


class PIDR3(Register, at=0xFEC, access=RO, section="6.3.170"):
    """Peripheral ID 3."""

    CMOD = field(3, 0, doc="Customer modification")
    REVAND = field(7, 4, doc="Manufacturer's revision")


class CIDR0(Register, at=0xFF0, access=RO, section="6.3.170"):
    """Component ID 0."""

    PRMBL_0 = field(7, 0, reset=0x0D, doc="Preamble")


class CIDR1(Register, at=0xFF4, access=RO, section="6.3.170"):
    """Component ID 1."""

    PRMBL_1 = field(3, 0, doc="Preamble")
    CLASS = field(7, 4, reset=0xF, doc="Component class")


class CIDR2(Register, at=0xFF8, access=RO, section="6.3.170"):
    """Component ID 2."""

    PRMBL_2 = field(7, 0, reset=0x05, doc="Preamble")


class CIDR3(Register, at=0xFFC, access=RO, section="6.3.170"):
    """Component ID 3."""

    PRMBL_3 = field(7, 0, reset=0xB1, doc="Preamble")


# -- page 0: enhanced command queue control pages ------------------------------------------------------------


class CMDQ_CONTROL_PAGE_BASE(
    Register, at=0x4000, size=8, access=RO, needs="IDR1.ECMDQ", count=256, stride=32, section="6.3.49"
):
    """Where control page n is."""

    CMDQ_CONTROL_PAGE_PRESET = bit(0, reset=1, doc="The interfaces are registers of the SMMU")
    CMDQGS = field(2, 1, values={1: "64KB"}, reset=1, doc="Size of the page")
    ADDR = address(55, 16, doc="Offset from page 0")


class CMDQ_CONTROL_PAGE_CFG(Register, at=0x4008, access=RO, needs="IDR1.ECMDQ", count=256, stride=32, section="6.3.50"):
    """Control of control page n."""

    EN = bit(0, reset=1, doc="Enabled: RES1")


class CMDQ_CONTROL_PAGE_STATUS(
    Register, at=0x400C, access=RO, needs="IDR1.ECMDQ", count=256, stride=32, section="6.3.51"
):
    """Status of control page n."""

    ENACK = bit(0, reset=1, doc="Enabled: RES1")


# -- page 1 --------------------------------------------------------------------------------------------------


class EVENTQ_PROD(Register, at=PAGE1 + 0xA8, guard=Guard.EVENTQEN, section="6.3.95"):
    """The SMMU's index of the event queue."""

    WR = field(19, 0, doc="Index [LOG2SIZE-1:0] and above it the wrap flag; higher bits read as 0")
    OVFLG = bit(31, doc="Toggled when a record is lost while it equals EVENTQ_CONS.OVACKFLG")


class EVENTQ_CONS(Register, at=PAGE1 + 0xAC, section="6.3.96"):
    """Software's index of the event queue."""

    RD = field(19, 0, doc="Index [LOG2SIZE-1:0] and above it the wrap flag; higher bits have no effect")
    OVACKFLG = bit(31, doc="Made equal to EVENTQ_PROD.OVFLG to acknowledge an overflow")


class PRIQ_PROD(Register, at=PAGE1 + 0xC8, guard=Guard.PRIQEN, needs="IDR0.PRI", section="6.3.97"):
    """The SMMU's index of the PRI queue."""

    WR = field(19, 0, doc="Index [LOG2SIZE-1:0] and above it the wrap flag; higher bits read as 0")
    OVFLG = bit(31, doc="Toggled when a request is lost; while it differs from OVACKFLG nothing is written")


class PRIQ_CONS(Register, at=PAGE1 + 0xCC, needs="IDR0.PRI", section="6.3.98"):
    """Software's index of the PRI queue."""

    RD = field(19, 0, doc="Index [LOG2SIZE-1:0] and above it the wrap flag; higher bits have no effect")
    OVACKFLG = bit(31, doc="Made equal to PRIQ_PROD.OVFLG to acknowledge an overflow")


# -- the VATOS page; offsets are from its start (IDR2.BA_VATOS) ----------------------------------------------


class VATOS_CTRL(Register, at=0xA00, guard=Guard.ATOS_START, needs="IDR0.VATOS", section="6.3.99"):
    """Starts a translation for a virtual machine."""

    RUN = bit(0, doc="Written as 1 to start; the SMMU clears it when VATOS_PAR holds the result")


class VATOS_SID(Register, at=0xA08, size=8, guard=Guard.VATOS_RUN, needs="IDR0.VATOS", section="6.3.100"):
    """Whose address to translate."""

    STREAMID = field(31, 0, doc="StreamID")
    SUBSTREAMID = field(51, 32, doc="SubstreamID")
    SSID_VALID = bit(52, needs="IDR1.SSIDSIZE", doc="SUBSTREAMID is meant")


class VATOS_ADDR(Register, at=0xA10, size=8, guard=Guard.VATOS_RUN, needs="IDR0.VATOS", section="6.3.101"):
    """The address to translate, and as what access."""

    HTTUI = bit(6, doc="Do not update descriptors")
    InD = bit(7, values={0: "data", 1: "instruction"}, doc="Ignored for writes")
    RnW = bit(8, values={0: "write", 1: "read"}, doc="Read or write")
    PnU = bit(9, values={0: "unprivileged", 1: "privileged"}, doc="Privilege")
    TYPE = field(11, 10, values={1: "STAGE1"}, doc="Stages to translate")
    ADDR = address(63, 12, doc="Input address")


class VATOS_PAR(Register, at=0xA18, size=8, access=RO, needs="IDR0.VATOS", section="6.3.102"):
    """The result: an address and its attributes, or a fault."""

    FAULT = bit(0, doc="The translation failed")
    SH = field(9, 8, doc="Shareability: 0 non, 2 outer, 3 inner")
    Size = bit(11, doc="As GATOS_PAR.Size")
    ADDR = address(55, 12, doc="Output address")
    ATTR = field(63, 56, doc="Memory attributes as in MAIR")
    REASON = field(2, 1, values={0: PAR_REASON[0]}, view="FAULT=1", doc="Always 0")
    FAULTCODE = field(11, 4, values=PAR_FAULTCODE, view="FAULT=1", doc="Kind of fault")
    FADDR = address(55, 12, view="FAULT=1", doc="Always 0")
    IMPDEF = field(63, 60, view="FAULT=1", doc="Implementation defined")


# -- one enhanced command queue; offsets are from its start within a control page ----------------------------


class ECMDQ_BASE(Register, at=0x00, size=8, guard=Guard.ECMDQ_EN, needs="IDR1.ECMDQ", section="6.3.107"):
    """Where the queue is."""

    LOG2SIZE = field(4, 0, doc="log2 of the entries, capped at IDR1.CMDQS")
    ADDR = address(55, 5, doc="Physical address, aligned down to the queue's size (at least 32 bytes) before use")
    RA = bit(62, doc="Read-allocate hint")


class ECMDQ_PROD(Register, at=0x08, guard=Guard.ECMDQ_ACK, needs="IDR1.ECMDQ", section="6.3.108"):
    """Software's index of the queue."""

    WR = field(19, 0, doc="Index and wrap flag")
    ERRACK = bit(23, doc="Made equal to ECMDQ_CONS.ERR to acknowledge an error")
    EN = bit(31, doc="Enable the queue")


class ECMDQ_CONS(Register, at=0x0C, guard=Guard.ECMDQ_EN, needs="IDR1.ECMDQ", section="6.3.109"):
    """The SMMU's index of the queue."""

    RD = field(19, 0, doc="Index and wrap flag")
    ERR = bit(23, doc="An error is active while this differs from ECMDQ_PROD.ERRACK")
    ERR_REASON = field(26, 24, values=CommandError, doc="Why the queue stopped")
    ENACK = bit(31, access=RO, doc="ECMDQ_PROD.EN in effect")


# -- listings ------------------------------------------------------------------------------------------------

#: Pages 0 and 1, in the order of their offsets.
REGISTERS: tuple[type[Register], ...] = (
    IDR0,
    IDR1,
    IDR2,
    IDR3,
    IDR4,
    IDR5,
    IIDR,
    AIDR,
    CR0,
    CR0ACK,
    CR1,
    CR2,
    S2PII,
    STATUSR,
    GBPA,
    AGBPA,
    IRQ_CTRL,
    IRQ_CTRLACK,
    GERROR,
    GERRORN,
    GERROR_IRQ_CFG0,
    GERROR_IRQ_CFG1,
    GERROR_IRQ_CFG2,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
    CMDQ_BASE,
    CMDQ_PROD,
    CMDQ_CONS,
    EVENTQ_BASE,
    EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1,
    EVENTQ_IRQ_CFG2,
    PRIQ_BASE,
    PRIQ_IRQ_CFG0,
    PRIQ_IRQ_CFG1,
    PRIQ_IRQ_CFG2,
    GATOS_CTRL,
    GATOS_SID,
    GATOS_ADDR,
    GATOS_PAR,
    MPAMIDR,
    GMPAM,
    GBPMPAM,
    VATOS_SEL,
    IDR6,
    DPT_BASE,
    DPT_BASE_CFG,
    DPT_CFG_FAR,
    PIDR4,
    PIDR5,
    PIDR6,
    PIDR7,
    PIDR0,
    PIDR1,
    PIDR2,
    PIDR3,
    CIDR0,
    CIDR1,
    CIDR2,
    CIDR3,
    CMDQ_CONTROL_PAGE_BASE,
    CMDQ_CONTROL_PAGE_CFG,
    CMDQ_CONTROL_PAGE_STATUS,
    EVENTQ_PROD,
    EVENTQ_CONS,
    PRIQ_PROD,
    PRIQ_CONS,
)

#: The VATOS page; ``at`` counts from the page's start.
VATOS_REGISTERS: tuple[type[Register], ...] = (VATOS_CTRL, VATOS_SID, VATOS_ADDR, VATOS_PAR)

#: One enhanced command queue; ``at`` counts from the queue's start.
ECMDQ_REGISTERS: tuple[type[Register], ...] = (ECMDQ_BASE, ECMDQ_PROD, ECMDQ_CONS)

LAYOUTS: tuple[type[Register], ...] = (*REGISTERS, *VATOS_REGISTERS, *ECMDQ_REGISTERS)

#: Pages 0 and 1 by offset; a register with copies is there once for each.
BY_OFFSET: dict[int, type[Register]] = {r.at + n * r.stride: r for r in REGISTERS for n in range(r.count)}

BY_NAME: dict[str, type[Register]] = {r.__name__: r for r in LAYOUTS}


def met(needs: str, raw: Callable[[type[Register]], int]) -> bool:
    """Whether ``needs`` ("IDR0.MSI and IDR0.PRI") holds; ``raw`` gives an ID register's value."""
    for term in needs.split(" and ") if needs else ():
        name, _, feature = term.partition(".")
        register = BY_NAME[name]
        if not register.field_named(feature).decode(raw(register)):
            return False
    return True
