# SPDX-License-Identifier: Apache-2.0
"""The tables in memory that configure an SMMUv3: L1STD, STE, L1CD, CD and VMS (IHI 0070 chapter 5).

Law: declarations only; ``problems()`` knows reserved values and bits, while what makes an STE or CD ILLEGAL on a
given SMMU is the model's to say. Bits are counted over the whole structure.
"""

from __future__ import annotations

from enum import IntEnum

from ...layout import Layout, address, array, bit, field
from ..attributes import MEMATTR, SHAREABILITY
from .registers import ADDRESS_SIZES, INSTCFG, PRIVCFG, S2_PERMISSIONS, SHCFG


class STE_CONFIG(IntEnum):
    """STE.Config; 1 to 3 are reserved and abort like 0."""

    ABORT = 0
    BYPASS = 4
    S1 = 5
    S2 = 6
    NESTED = 7


class S1Fmt(IntEnum):
    """STE.S1Fmt: what S1ContextPtr points at; 3 is reserved and acts as LINEAR."""

    LINEAR = 0
    TWO_LEVEL_4K = 1  #: leaves of 64 CDs
    TWO_LEVEL_64K = 2  #: leaves of 1024 CDs


class S1DSS(IntEnum):
    """STE.S1DSS: transactions without SubstreamID, when there are substreams; 3 is reserved and acts as TERMINATE."""

    TERMINATE = 0
    BYPASS = 1
    SSID0 = 2


class STRW(IntEnum):
    """STE.STRW in a Non-secure STE; 1 and 3 are ILLEGAL where the field counts."""

    EL1 = 0
    EL2 = 2


class EATS(IntEnum):
    """STE.EATS."""

    ABORT = 0
    FULL = 1
    SPLIT = 2
    FULL_DPT = 3


class TG0(IntEnum):
    """CD.TG0 and STE.S2TG: the granule. CD.TG1 counts differently."""

    KB4 = 0
    KB64 = 1
    KB16 = 2

    @property
    def shift(self) -> int:
        """log2 of the granule's bytes."""
        return (12, 16, 14)[self]


class TG1(IntEnum):
    """CD.TG1: the granule. CD.TG0 counts differently."""

    KB16 = 1
    KB4 = 2
    KB64 = 3

    @property
    def shift(self) -> int:
        """log2 of the granule's bytes."""
        return (0, 14, 12, 16)[self]


TG0_VALUES = {int(granule): f"{1 << granule.shift - 10}KB" for granule in TG0}
#: 0 is reserved too, but what every CD holds whose TTB1 is off.
TG1_VALUES = {0: "none", **{int(granule): f"{1 << granule.shift - 10}KB" for granule in TG1}}
#: Cacheability of accesses to CDs.
CD_CACHE = {0: "non-cacheable", 1: "write-back, RA", 2: "write-through, RA", 3: "write-back, no RA"}
#: Cacheability of table walks, as in a TCR.
WALK_CACHE = {0: "non-cacheable", 1: "write-back, RA WA", 2: "write-through, RA", 3: "write-back, RA no WA"}
NSCFG = {0: "use incoming", 2: "Secure or Realm", 3: "Non-secure"}
SKIP_LEVELS = {0: "0 levels", 1: "1 level", 2: "2 levels", 3: "3 levels"}
S1_PERMISSIONS = {0: "no access", 1: "R", 2: "X", 3: "RX", 5: "RW", 7: "RWX"}
ENDIAN = {0: "little", 1: "big"}
STE_AA64 = {0: "VMSAv8-32 LPAE, or VMSAv9-128 with IDR5.D128", 1: "VMSAv8-64"}


class L1STD(Layout, size=8, section="5.1"):
    """First level of a 2-level stream table: where a leaf of STEs is."""

    Span = field(
        4,
        0,
        values={0: "no leaf", **{n: f"{1 << n - 1} STE{'s' if n > 1 else ''}" for n in range(1, 12)}},
        doc="The leaf holds 2^(Span-1) STEs, at most 2^SPLIT; reserved values act as 0",
    )
    L2Ptr = address(55, 6, doc="Physical address of the leaf; bits below its size are taken as 0")


class STE(Layout, size=64, section="5.2"):
    """Stream table entry: what becomes of a stream's transactions."""

    V = bit(0, doc="Valid; otherwise C_BAD_STE")
    Config = field(3, 1, values=STE_CONFIG, doc="Stages that translate")
    S1Fmt = field(5, 4, values=S1Fmt, doc="What S1ContextPtr points at; ignored if S1CDMax is 0")
    S1ContextPtr = address(55, 6, doc="The CD or table of CDs; an IPA if stage 2 translates")
    S1CDMax = field(63, 59, doc="log2 of the number of CDs; 0: no substreams")

    S1DSS = field(65, 64, values=S1DSS, doc="Transactions without SubstreamID; ignored if S1CDMax is 0")
    S1CIR = field(67, 66, values=CD_CACHE, doc="Access to CDs, inner cacheability")
    S1COR = field(69, 68, values=CD_CACHE, doc="Access to CDs, outer cacheability")
    S1CSH = field(71, 70, values=SHAREABILITY, doc="Access to CDs, shareability")
    S2HWU59 = bit(72, needs="IDR3.PBHA", doc="Hardware uses bit 59 of stage 2 leaf descriptors")
    S2HWU60 = bit(73, needs="IDR3.PBHA", doc="Hardware uses bit 60 of stage 2 leaf descriptors")
    S2HWU61 = bit(74, needs="IDR3.PBHA", doc="Hardware uses bit 61 of stage 2 leaf descriptors")
    S2HWU62 = bit(75, needs="IDR3.PBHA", doc="Hardware uses bit 62 of stage 2 leaf descriptors")
    DRE = bit(76, doc="Permit destructive reads")
    CONT = field(80, 77, doc="Hint: 2^CONT neighbouring STEs are equal")
    DCP = bit(81, doc="Permit directed cache prefetches")
    PPAR = bit(82, needs="IDR0.PRI", doc="Automatic PRI responses carry the request's PASID")
    MEV = bit(83, doc="Events may be merged")
    SW_RESERVED = field(87, 84, doc="For software")
    S1PIE = bit(88, needs="IDR3.S1PI", doc="CDs may enable stage 1 permission indirection")
    S2FWB = bit(89, needs="IDR3.FWB", doc="Stage 2 decides the memory type")
    S1MPAM = bit(90, needs="IDR3.MPAM", doc="CDs give the MPAM identifiers")
    S1STALLD = bit(91, needs="IDR0.S1P", doc="CDs must not stall; ILLEGAL unless IDR0.STALL_MODEL is 0")
    EATS = field(93, 92, values=EATS, needs="IDR0.ATS", doc="ATS translation requests and translated traffic")
    STRW = field(95, 94, values=STRW, needs="IDR0.Hyp", doc="Translation regime; ignored unless Config is 5")
    MemAttr = field(99, 96, values=MEMATTR, doc="Memory type that replaces the incoming one if MTCFG is 1")
    MTCFG = bit(100, needs="IDR1.ATTR_TYPES_OVR", doc="Replace the incoming memory type by MemAttr")
    ALLOCCFG = field(
        104, 101, needs="IDR1.ATTR_TYPES_OVR", doc="0b1RWT: replace the allocation hints; 0b0xxx: use incoming"
    )
    SHCFG = field(109, 108, values=SHCFG, doc="Shareability")
    NSCFG = field(111, 110, values=NSCFG, doc="NS attribute of Secure and Realm streams")
    PRIVCFG = field(113, 112, values=PRIVCFG, doc="Privilege")
    INSTCFG = field(115, 114, values=INSTCFG, doc="Instruction or data, of reads only")
    IMPDEF_116 = field(127, 116, doc="Implementation defined")

    S2VMID = field(143, 128, doc="Virtual machine; [15:8] must be 0 without IDR0.VMID16")
    IMPDEF_144 = field(159, 144, doc="Implementation defined")
    S2T0SZ = field(165, 160, doc="The IPA space is 2^(64-S2T0SZ) bytes")
    S2SL0 = field(167, 166, doc="Level at which the walk starts, by granule")
    S2IR0 = field(169, 168, values=WALK_CACHE, doc="Walks, inner cacheability")
    S2OR0 = field(171, 170, values=WALK_CACHE, doc="Walks, outer cacheability")
    S2SH0 = field(173, 172, values=SHAREABILITY, doc="Walks, shareability")
    S2TG = field(175, 174, values=TG0_VALUES, doc="Granule")
    S2PS = field(178, 176, values=ADDRESS_SIZES, doc="Output address size, capped at IDR5.OAS")
    S2AA64 = bit(179, values=STE_AA64, doc="Format of the tables")
    S2ENDI = bit(180, values=ENDIAN, doc="Endianness of the tables")
    S2AFFD = bit(181, doc="Access flag 0 is no fault; ignored if S2HA is 1")
    S2PTW = bit(182, doc="Stage 1 walks and CD fetches must not touch Device memory")
    S2HD = bit(183, doc="Update dirty state; needs S2HA")
    S2HA = bit(184, doc="Update access flags")
    S2S = bit(185, doc="Stall on a stage 2 fault, else abort")
    S2R = bit(186, doc="Record stage 2 faults")
    S2HAFT = bit(187, doc="Update access flags of table descriptors; needs S2HA and IDR0.HTTU 3")
    S2PIE = bit(188, needs="IDR3.S2PI", doc="Stage 2 permission indirection")
    S2POE = bit(189, needs="IDR3.S2PO", doc="Stage 2 permission overlay")
    DPT_VMATCH = field(
        191,
        190,
        values={0: "VMID or AC=2", 1: "VMID or AC=1,2", 2: "any VMID"},
        needs="IDR3.DPT",
        doc="Whose device permission table entries match",
    )

    S2NSW = bit(192, doc="Secure streams: NS of walks for Non-secure IPAs")
    S2NSA = bit(193, doc="Secure streams: NS of the output for Non-secure IPAs")
    S2SL0_2 = bit(194, needs="IDR5.DS", doc="Bit 2 of S2SL0")
    S2DS = bit(195, needs="IDR5.DS", doc="52-bit addresses with the 4KB and 16KB granules")
    S2TTB = address(247, 196, low=4, doc="Stage 2 table, aligned down to its size before use")
    S2SKL = field(254, 253, values=SKIP_LEVELS, needs="IDR5.D128", doc="Levels skipped, with VMSAv9-128")

    IMPDEF_256 = field(271, 256, doc="Implementation defined")
    PARTID = field(287, 272, needs="IDR3.MPAM", doc="MPAM PARTID")
    S_S2T0SZ = field(293, 288, doc="Secure streams: as S2T0SZ, for Secure IPAs")
    S_S2SL0 = field(295, 294, doc="Secure streams: as S2SL0, for Secure IPAs")
    S_S2TG = field(303, 302, values=TG0_VALUES, doc="Secure streams: as S2TG, for Secure IPAs")
    MECID = field(319, 304, doc="Realm streams: memory encryption context")

    PMG = field(327, 320, needs="IDR3.MPAM", doc="MPAM PMG")
    MPAM_NS = bit(328, needs="IDR3.MPAM", doc="Secure and Realm streams: use the Non-secure PARTID space")
    AssuredOnly = bit(329, needs="IDR3.THE", doc="Check AssuredOnly permissions")
    TL0 = bit(330, needs="IDR3.THE", doc="Check TopLevel 0")
    TL1 = bit(331, needs="IDR3.THE", doc="Check TopLevel 1")
    VMSPtr = address(375, 332, low=12, needs="IDR3.MPAM", doc="VMS of the virtual machine")

    S2SW = bit(384, doc="Secure streams: NS of walks for Secure IPAs")
    S2SA = bit(385, doc="Secure streams: NS of the output for Secure IPAs")
    S_S2SL0_2 = bit(386, needs="IDR5.DS", doc="Bit 2 of S_S2SL0")
    S_S2TTB = address(439, 388, low=4, doc="Secure streams: stage 2 table for Secure IPAs")
    S_S2SKL = field(446, 445, values=SKIP_LEVELS, needs="IDR5.D128", doc="Secure streams: as S2SKL, for Secure IPAs")
    S2POI = array(
        511, 448, each=4, values=S2_PERMISSIONS, needs="IDR3.S2PO", doc="S2POI<p>: overlay permission of POIndex p"
    )


class L1CD(Layout, size=8, section="5.3"):
    """First level of a 2-level CD table: where a leaf of CDs is."""

    V = bit(0, doc="Valid; otherwise C_BAD_SUBSTREAMID")
    L2Ptr = address(55, 12, doc="The leaf; an IPA if stage 2 translates")


class CD(Layout, size=64, section="5.4"):
    """Context descriptor: stage 1 of a stream or substream."""

    T0SZ = field(5, 0, doc="TTB0 covers 2^(64-T0SZ) bytes")
    TG0 = field(7, 6, values=TG0_VALUES, doc="Granule of TTB0; encoded unlike TG1")
    IR0 = field(9, 8, values=WALK_CACHE, doc="Walks through TTB0, inner cacheability")
    OR0 = field(11, 10, values=WALK_CACHE, doc="Walks through TTB0, outer cacheability")
    SH0 = field(13, 12, values=SHAREABILITY, doc="Walks through TTB0, shareability")
    EPD0 = bit(14, doc="TTB0 is off: F_TRANSLATION; its other fields are ignored")
    ENDI = bit(15, values=ENDIAN, doc="Endianness of the tables")
    T1SZ = field(21, 16, doc="TTB1 covers 2^(64-T1SZ) bytes")
    TG1 = field(23, 22, values=TG1_VALUES, doc="Granule of TTB1; encoded unlike TG0")
    IR1 = field(25, 24, values=WALK_CACHE, doc="Walks through TTB1, inner cacheability")
    OR1 = field(27, 26, values=WALK_CACHE, doc="Walks through TTB1, outer cacheability")
    SH1 = field(29, 28, values=SHAREABILITY, doc="Walks through TTB1, shareability")
    EPD1 = bit(30, doc="TTB1 is off: F_TRANSLATION; its other fields are ignored")
    V = bit(31, doc="Valid; otherwise C_BAD_CD")
    IPS = field(34, 32, values=ADDRESS_SIZES, doc="Output address size, capped at IDR5.OAS")
    AFFD = bit(35, doc="Access flag 0 is no fault; ignored if HA is 1")
    WXN = bit(36, doc="Writable pages are not executable")
    UWXN = bit(37, doc="User-writable pages are not executable by the privileged; ignored with AArch64 tables")
    TBI0 = bit(38, doc="Ignore the top byte of TTB0 addresses")
    TBI1 = bit(39, doc="Ignore the top byte of TTB1 addresses")
    PAN = bit(40, doc="The privileged may not access user pages")
    AA64 = bit(41, values=STE_AA64, doc="Format of the tables")
    HD = bit(42, doc="Update dirty state; needs HA")
    HA = bit(43, doc="Update access flags")
    S = bit(44, doc="Stall on a fault")
    R = bit(45, doc="Record faults that do not stall")
    A = bit(46, values={0: "RAZ/WI", 1: "abort"}, doc="How a fault that does not stall ends")
    ASET = bit(47, doc="The ASID is not shared with the processors")
    ASID = field(63, 48, doc="Address space; [15:8] must be 0 without IDR0.ASID16")

    NSCFG0 = bit(64, doc="Secure streams: NS of the first access through TTB0")
    HAD0 = bit(65, needs="IDR3.HAD", doc="Ignore hierarchical attributes of TTB0's table descriptors")
    DisCH0 = bit(65, view="VMSAv9-128", needs="IDR5.D128", doc="Ignore Contiguous at the first level of TTB0")
    E0PD0 = bit(66, needs="IDR3.E0PD", doc="Unprivileged access through TTB0 is a translation fault")
    HAFT = bit(67, doc="Update access flags of table descriptors; needs HA and IDR0.HTTU 3")
    TTB0 = address(119, 68, low=4, doc="Table of the low addresses, aligned down to its size before use")
    PnCH = bit(122, needs="IDR3.THE", doc="Stage 1 Protected attribute")
    EPAN = bit(123, needs="IDR3.EPAN", doc="PAN counts user execute permission too")
    HWU059 = bit(124, needs="IDR3.PBHA", doc="Hardware uses bit 59 of TTB0's leaf descriptors")
    HWU060 = bit(125, needs="IDR3.PBHA", doc="Hardware uses bit 60 of TTB0's leaf descriptors")
    HWU061 = bit(126, needs="IDR3.PBHA", doc="Hardware uses bit 61 of TTB0's leaf descriptors")
    HWU062 = bit(127, needs="IDR3.PBHA", doc="Hardware uses bit 62 of TTB0's leaf descriptors")
    SKL0 = field(127, 126, values=SKIP_LEVELS, view="VMSAv9-128", needs="IDR5.D128", doc="Levels skipped through TTB0")

    NSCFG1 = bit(128, doc="Secure streams: NS of the first access through TTB1")
    HAD1 = bit(129, needs="IDR3.HAD", doc="Ignore hierarchical attributes of TTB1's table descriptors")
    DisCH1 = bit(129, view="VMSAv9-128", needs="IDR5.D128", doc="Ignore Contiguous at the first level of TTB1")
    E0PD1 = bit(130, needs="IDR3.E0PD", doc="Unprivileged access through TTB1 is a translation fault")
    AIE = bit(131, needs="IDR3.AIE", doc="AttrIndx has four bits")
    TTB1 = address(183, 132, low=4, doc="Table of the high addresses, aligned down to its size before use")
    DS = bit(186, needs="IDR5.DS", doc="52-bit addresses with the 4KB and 16KB granules")
    PIE = bit(187, needs="IDR3.S1PI", doc="Stage 1 permission indirection")
    HWU159 = bit(188, needs="IDR3.PBHA", doc="Hardware uses bit 59 of TTB1's leaf descriptors")
    HWU160 = bit(189, needs="IDR3.PBHA", doc="Hardware uses bit 60 of TTB1's leaf descriptors")
    HWU161 = bit(190, needs="IDR3.PBHA", doc="Hardware uses bit 61 of TTB1's leaf descriptors")
    HWU162 = bit(191, needs="IDR3.PBHA", doc="Hardware uses bit 62 of TTB1's leaf descriptors")
    SKL1 = field(191, 190, values=SKIP_LEVELS, view="VMSAv9-128", needs="IDR5.D128", doc="Levels skipped through TTB1")

    MAIR0 = field(223, 192, doc="Memory attributes of AttrIndx 0 to 3, eight bits each")
    MAIR1 = field(255, 224, doc="Memory attributes of AttrIndx 4 to 7, eight bits each")

    AMAIR0 = field(287, 256, doc="Auxiliary memory attributes, implementation defined")
    AMAIR1 = field(319, 288, doc="Auxiliary memory attributes, implementation defined")

    IMPDEF_320 = field(351, 320, doc="Implementation defined")
    PARTID = field(367, 352, needs="IDR3.MPAM", doc="MPAM PARTID; virtual, of five bits, if stage 2 translates")
    PMG = field(375, 368, needs="IDR3.MPAM", doc="MPAM PMG")

    PIIU = array(
        431, 384, each=3, values=S1_PERMISSIONS, needs="IDR3.S1PI", doc="PIIU<p>: unprivileged permission of PIIndex p"
    )
    PIIP = array(
        495, 448, each=3, values=S1_PERMISSIONS, needs="IDR3.S1PI", doc="PIIP<p>: privileged permission of PIIndex p"
    )

    def problems(self) -> list[str]:
        found = super().problems()
        if not self.EPD1 and not self.TG1:
            found.append("TG1[23:22] = 0 is reserved while EPD1 is 0")
        return found


class VMS(Layout, size=4096, section="5.6"):
    """Virtual machine structure: what STEs of one virtual machine share."""

    PARTID_MAP = array(511, 0, each=16, doc="Physical PARTID of each of 32 virtual ones")


LAYOUTS: tuple[type[Layout], ...] = (L1STD, STE, L1CD, CD, VMS)
