# SPDX-License-Identifier: Apache-2.0
"""The declared positions against a table of their own, taken from the text and figures of IHI 0070 issue G.b.

The table is written down a second time on purpose: a slip in a declaration then shows as a difference.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vhost_iommu.layout import Access, Field, Layout, Register
from vhost_iommu.register_file import RegisterFile, RegisterMap
from vhost_iommu.smmu import descriptors
from vhost_iommu.smmu.v3 import commands, events, registers, structures
from vhost_iommu.smmu.v3.registers import Guard

# Name: offset, bytes, fields and their bits. CoreSight identification registers are apart, below.
REGISTERS: dict[str, tuple[int, int, str]] = {
    "IDR0": (
        0x0,
        4,
        (
            "S2P=0 S1P=1 TTF=3:2 COHACC=4 BTM=5 HTTU=7:6 DORMHINT=8 Hyp=9 ATS=10 NS1ATS=11 ASID16=12 MSI=13 "
            "SEV=14 ATOS=15 PRI=16 VMW=17 VMID16=18 CD2L=19 VATOS=20 TTENDIAN=22:21 ATSRECERR=23 "
            "STALL_MODEL=25:24 TERM_MODEL=26 ST_LEVEL=28:27 RME_IMPL=30"
        ),
    ),
    "IDR1": (
        0x4,
        4,
        (
            "SIDSIZE=5:0 SSIDSIZE=10:6 PRIQS=15:11 EVENTQS=20:16 CMDQS=25:21 ATTR_PERMS_OVR=26 "
            "ATTR_TYPES_OVR=27 REL=28 QUEUES_PRESET=29 TABLES_PRESET=30 ECMDQ=31"
        ),
    ),
    "IDR2": (0x8, 4, "BA_VATOS=9:0"),
    "IDR3": (
        0xC,
        4,
        (
            "HAD=2 PBHA=3 XNX=4 PPS=5 MPAM=7 FWB=8 STT=9 RIL=10 BBML=12:11 E0PD=13 PTWNNC=14 DPT=15 "
            "PASIDTT=16 EPAN=17 S1PI=18 S2PI=19 S2PO=20 THE=21 MTEPERM=22 AIE=23"
        ),
    ),
    "IDR4": (0x10, 4, "IMPDEF=31:0"),
    "IDR5": (0x14, 4, "OAS=2:0 GRAN4K=4 GRAN16K=5 GRAN64K=6 DS=7 D128=8 VAX=11:10 STALL_MAX=31:16"),
    "IIDR": (0x18, 4, "Implementer=11:0 Revision=15:12 Variant=19:16 ProductID=31:20"),
    "AIDR": (0x1C, 4, "ArchMinorRev=3:0 ArchMajorRev=7:4"),
    "CR0": (0x20, 4, "SMMUEN=0 PRIQEN=1 EVENTQEN=2 CMDQEN=3 ATSCHK=4 VMW=8:6 DPT_WALK_EN=10"),
    "CR0ACK": (0x24, 4, "SMMUEN=0 PRIQEN=1 EVENTQEN=2 CMDQEN=3 ATSCHK=4 VMW=8:6 DPT_WALK_EN=10"),
    "CR1": (0x28, 4, "QUEUE_IC=1:0 QUEUE_OC=3:2 QUEUE_SH=5:4 TABLE_IC=7:6 TABLE_OC=9:8 TABLE_SH=11:10"),
    "CR2": (0x2C, 4, "E2H=0 RECINVSID=1 PTM=2 REC_CFG_ATS=3"),
    "STATUSR": (0x40, 4, "DORMANT=0"),
    "GBPA": (0x44, 4, ("MemAttr=3:0 MTCFG=4 ALLOCCFG=11:8 SHCFG=13:12 PRIVCFG=17:16 INSTCFG=19:18 ABORT=20 Update=31")),
    "AGBPA": (0x48, 4, "IMPDEF=31:0"),
    "IRQ_CTRL": (0x50, 4, "GERROR_IRQEN=0 PRIQ_IRQEN=1 EVENTQ_IRQEN=2"),
    "S2PII": (
        0x30,
        8,
        (
            "S2PII0=3:0 S2PII1=7:4 S2PII2=11:8 S2PII3=15:12 S2PII4=19:16 S2PII5=23:20 S2PII6=27:24 "
            "S2PII7=31:28 S2PII8=35:32 S2PII9=39:36 S2PII10=43:40 S2PII11=47:44 S2PII12=51:48 S2PII13=55:52 "
            "S2PII14=59:56 S2PII15=63:60"
        ),
    ),
    "IRQ_CTRLACK": (0x54, 4, "GERROR_IRQEN=0 PRIQ_IRQEN=1 EVENTQ_IRQEN=2"),
    "GERROR": (
        0x60,
        4,
        (
            "CMDQ_ERR=0 EVENTQ_ABT_ERR=2 PRIQ_ABT_ERR=3 MSI_CMDQ_ABT_ERR=4 MSI_EVENTQ_ABT_ERR=5 "
            "MSI_PRIQ_ABT_ERR=6 MSI_GERROR_ABT_ERR=7 SFM_ERR=8 CMDQP_ERR=9 DPT_ERR=10"
        ),
    ),
    "GERRORN": (
        0x64,
        4,
        (
            "CMDQ_ERR=0 EVENTQ_ABT_ERR=2 PRIQ_ABT_ERR=3 MSI_CMDQ_ABT_ERR=4 MSI_EVENTQ_ABT_ERR=5 "
            "MSI_PRIQ_ABT_ERR=6 MSI_GERROR_ABT_ERR=7 SFM_ERR=8 CMDQP_ERR=9 DPT_ERR=10"
        ),
    ),
    "GERROR_IRQ_CFG0": (0x68, 8, "ADDR=55:2"),
    "GERROR_IRQ_CFG1": (0x70, 4, "DATA=31:0"),
    "GERROR_IRQ_CFG2": (0x74, 4, "MemAttr=3:0 SH=5:4"),
    "STRTAB_BASE": (0x80, 8, "ADDR=55:6 RA=62"),
    "STRTAB_BASE_CFG": (0x88, 4, "LOG2SIZE=5:0 SPLIT=10:6 FMT=17:16"),
    "CMDQ_BASE": (0x90, 8, "LOG2SIZE=4:0 ADDR=55:5 RA=62"),
    "CMDQ_PROD": (0x98, 4, "WR=19:0"),
    "CMDQ_CONS": (0x9C, 4, "RD=19:0 ERR=30:24"),
    "EVENTQ_BASE": (0xA0, 8, "LOG2SIZE=4:0 ADDR=55:5 WA=62"),
    "EVENTQ_IRQ_CFG0": (0xB0, 8, "ADDR=55:2"),
    "EVENTQ_IRQ_CFG1": (0xB8, 4, "DATA=31:0"),
    "EVENTQ_IRQ_CFG2": (0xBC, 4, "MemAttr=3:0 SH=5:4"),
    "PRIQ_BASE": (0xC0, 8, "LOG2SIZE=4:0 ADDR=55:5 WA=62"),
    "PRIQ_IRQ_CFG0": (0xD0, 8, "ADDR=55:2"),
    "PRIQ_IRQ_CFG1": (0xD8, 4, "DATA=31:0"),
    "PRIQ_IRQ_CFG2": (0xDC, 4, "MemAttr=3:0 SH=5:4 LO=31"),
    "GATOS_CTRL": (0x100, 4, "RUN=0"),
    "GATOS_SID": (0x108, 8, "STREAMID=31:0 SUBSTREAMID=51:32 SSID_VALID=52"),
    "GATOS_ADDR": (0x110, 8, "HTTUI=6 InD=7 RnW=8 PnU=9 TYPE=11:10 ADDR=63:12"),
    "GATOS_PAR": (
        0x118,
        8,
        ("FAULT=0 REASON=2:1 FAULTCODE=11:4 SH=9:8 Size=11 ADDR=55:12 FADDR=55:12 ATTR=63:56 IMPDEF=63:60"),
    ),
    "MPAMIDR": (0x130, 4, "PARTID_MAX=15:0 PMG_MAX=23:16"),
    "GMPAM": (0x138, 4, "SO_PARTID=15:0 SO_PMG=23:16 Update=31"),
    "GBPMPAM": (0x13C, 4, "GBP_PARTID=15:0 GBP_PMG=23:16 Update=31"),
    "VATOS_SEL": (0x180, 4, "VMID=15:0"),
    "IDR6": (0x190, 4, "CMDQ_CONTROL_PAGE_LOG2NUMQ=19:16 CMDQ_CONTROL_PAGE_LOG2NUMP=27:24"),
    "DPT_BASE": (0x200, 8, "BADDR=55:12 RA=62"),
    "DPT_BASE_CFG": (0x208, 4, "DPTPS=2:0 DPTGS=15:14 L0DPTSZ=23:20"),
    "DPT_CFG_FAR": (0x210, 8, "FAULT=0 LEVEL=1 DPT_FAULTCODE=7:4 FADDR=55:12"),
    "CMDQ_CONTROL_PAGE_BASE": (0x4000, 8, "CMDQ_CONTROL_PAGE_PRESET=0 CMDQGS=2:1 ADDR=55:16"),
    "CMDQ_CONTROL_PAGE_CFG": (0x4008, 4, "EN=0"),
    "CMDQ_CONTROL_PAGE_STATUS": (0x400C, 4, "ENACK=0"),
    "EVENTQ_PROD": (0x100A8, 4, "WR=19:0 OVFLG=31"),
    "EVENTQ_CONS": (0x100AC, 4, "RD=19:0 OVACKFLG=31"),
    "PRIQ_PROD": (0x100C8, 4, "WR=19:0 OVFLG=31"),
    "PRIQ_CONS": (0x100CC, 4, "RD=19:0 OVACKFLG=31"),
    "VATOS_CTRL": (0xA00, 4, "RUN=0"),
    "VATOS_SID": (0xA08, 8, "STREAMID=31:0 SUBSTREAMID=51:32 SSID_VALID=52"),
    "VATOS_ADDR": (0xA10, 8, "HTTUI=6 InD=7 RnW=8 PnU=9 TYPE=11:10 ADDR=63:12"),
    "VATOS_PAR": (
        0xA18,
        8,
        ("FAULT=0 REASON=2:1 FAULTCODE=11:4 SH=9:8 Size=11 ADDR=55:12 FADDR=55:12 ATTR=63:56 IMPDEF=63:60"),
    ),
    "ECMDQ_BASE": (0x0, 8, "LOG2SIZE=4:0 ADDR=55:5 RA=62"),
    "ECMDQ_PROD": (0x8, 4, "WR=19:0 ERRACK=23 EN=31"),
    "ECMDQ_CONS": (0xC, 4, "RD=19:0 ERR=23 ERR_REASON=26:24 ENACK=31"),
}

STRUCTURES: dict[str, str] = {
    "L1STD": "Span=4:0 L2Ptr=55:6",
    "STE": (
        "V=0 Config=3:1 S1Fmt=5:4 S1ContextPtr=55:6 S1CDMax=63:59 S1DSS=65:64 S1CIR=67:66 S1COR=69:68 "
        "S1CSH=71:70 S2HWU59=72 S2HWU60=73 S2HWU61=74 S2HWU62=75 DRE=76 CONT=80:77 DCP=81 PPAR=82 MEV=83 "
        "SW_RESERVED=87:84 S1PIE=88 S2FWB=89 S1MPAM=90 S1STALLD=91 EATS=93:92 STRW=95:94 MemAttr=99:96 "
        "MTCFG=100 ALLOCCFG=104:101 SHCFG=109:108 NSCFG=111:110 PRIVCFG=113:112 INSTCFG=115:114 "
        "IMPDEF_116=127:116 S2VMID=143:128 IMPDEF_144=159:144 S2T0SZ=165:160 S2SL0=167:166 S2IR0=169:168 "
        "S2OR0=171:170 S2SH0=173:172 S2TG=175:174 S2PS=178:176 S2AA64=179 S2ENDI=180 S2AFFD=181 S2PTW=182 "
        "S2HD=183 S2HA=184 S2S=185 S2R=186 S2HAFT=187 S2PIE=188 S2POE=189 DPT_VMATCH=191:190 S2NSW=192 "
        "S2NSA=193 S2SL0_2=194 S2DS=195 S2TTB=247:196 S2SKL=254:253 IMPDEF_256=271:256 PARTID=287:272 "
        "S_S2T0SZ=293:288 S_S2SL0=295:294 S_S2TG=303:302 MECID=319:304 PMG=327:320 MPAM_NS=328 "
        "AssuredOnly=329 TL0=330 TL1=331 VMSPtr=375:332 S2SW=384 S2SA=385 S_S2SL0_2=386 S_S2TTB=439:388 "
        "S_S2SKL=446:445 S2POI=511:448"
    ),
    "L1CD": "V=0 L2Ptr=55:12",
    "CD": (
        "T0SZ=5:0 TG0=7:6 IR0=9:8 OR0=11:10 SH0=13:12 EPD0=14 ENDI=15 T1SZ=21:16 TG1=23:22 IR1=25:24 "
        "OR1=27:26 SH1=29:28 EPD1=30 V=31 IPS=34:32 AFFD=35 WXN=36 UWXN=37 TBI0=38 TBI1=39 PAN=40 AA64=41 "
        "HD=42 HA=43 S=44 R=45 A=46 ASET=47 ASID=63:48 NSCFG0=64 DisCH0=65 HAD0=65 E0PD0=66 HAFT=67 "
        "TTB0=119:68 PnCH=122 EPAN=123 HWU059=124 HWU060=125 SKL0=127:126 HWU061=126 HWU062=127 "
        "NSCFG1=128 DisCH1=129 HAD1=129 E0PD1=130 AIE=131 TTB1=183:132 DS=186 PIE=187 HWU159=188 "
        "HWU160=189 SKL1=191:190 HWU161=190 HWU162=191 MAIR0=223:192 MAIR1=255:224 AMAIR0=287:256 "
        "AMAIR1=319:288 IMPDEF_320=351:320 PARTID=367:352 PMG=375:368 PIIU=431:384 PIIP=495:448"
    ),
    "VMS": "PARTID_MAP=511:0",
}

CORESIGHT = {
    "PIDR4": (0xFD0, "DES_2=3:0 SIZE=7:4", 0x00),
    "PIDR5": (0xFD4, "", 0x00),
    "PIDR6": (0xFD8, "", 0x00),
    "PIDR7": (0xFDC, "", 0x00),
    "PIDR0": (0xFE0, "PART_0=7:0", 0x00),
    "PIDR1": (0xFE4, "PART_1=3:0 DES_0=7:4", 0x00),
    "PIDR2": (0xFE8, "DES_1=2:0 JEDEC=3 REVISION=7:4", 0x08),
    "PIDR3": (0xFEC, "CMOD=3:0 REVAND=7:4", 0x00),
    "CIDR0": (0xFF0, "PRMBL_0=7:0", 0x0D),
    "CIDR1": (0xFF4, "PRMBL_1=3:0 CLASS=7:4", 0xF0),
    "CIDR2": (0xFF8, "PRMBL_2=7:0", 0x05),
    "CIDR3": (0xFFC, "PRMBL_3=7:0", 0xB1),
}

_SID = "SID=63:32"
_SUB = "SSV=11 SSID=31:12"
_RANGE = "NUM=16:12 SCALE=25:20 Leaf=64 TTL128=71 TTL=73:72 TG=75:74"

# Opcode: name and fields besides the opcode.
COMMANDS = {
    0x01: ("CMD_PREFETCH_CONFIG", f"SSec=10 {_SUB} {_SID}"),
    0x02: ("CMD_PREFETCH_ADDR", f"SSec=10 {_SUB} {_SID} Size=68:64 Stride=73:69 NS=74 Address=127:76"),
    0x03: ("CMD_CFGI_STE", f"SSec=10 {_SID} Leaf=64"),
    0x04: ("CMD_CFGI_STE_RANGE", f"SSec=10 {_SID} Range=68:64"),
    0x05: ("CMD_CFGI_CD", f"SSec=10 SSID=31:12 {_SID} Leaf=64"),
    0x06: ("CMD_CFGI_CD_ALL", f"SSec=10 {_SID}"),
    0x07: ("CMD_CFGI_VMS_PIDM", "SSec=10 VMID=47:32"),
    0x10: ("CMD_TLBI_NH_ALL", "VMID=47:32"),
    0x11: ("CMD_TLBI_NH_ASID", "VMID=47:32 ASID=63:48"),
    0x12: ("CMD_TLBI_NH_VA", f"{_RANGE} VMID=47:32 ASID=63:48 Address=127:76"),
    0x13: ("CMD_TLBI_NH_VAA", f"{_RANGE} VMID=47:32 Address=127:76"),
    0x18: ("CMD_TLBI_EL3_ALL", ""),
    0x1A: ("CMD_TLBI_EL3_VA", f"{_RANGE} Address=127:76"),
    0x20: ("CMD_TLBI_EL2_ALL", ""),
    0x21: ("CMD_TLBI_EL2_ASID", "ASID=63:48"),
    0x22: ("CMD_TLBI_EL2_VA", f"{_RANGE} ASID=63:48 Address=127:76"),
    0x23: ("CMD_TLBI_EL2_VAA", f"{_RANGE} Address=127:76"),
    0x28: ("CMD_TLBI_S12_VMALL", "VMID=47:32"),
    0x2A: ("CMD_TLBI_S2_IPA", f"{_RANGE} VMID=47:32 Address=119:76"),
    0x30: ("CMD_TLBI_NSNH_ALL", ""),
    0x40: ("CMD_ATC_INV", f"Global=9 {_SUB} {_SID} Size=69:64 Address=127:76"),
    0x41: ("CMD_PRI_RESP", f"{_SUB} {_SID} PRGIndex=72:64 Resp=77:76"),
    0x44: ("CMD_RESUME", f"SSec=10 Ac=12 Ab=13 {_SID} STAG=79:64"),
    0x45: ("CMD_STALL_TERM", f"SSec=10 {_SID}"),
    0x46: ("CMD_SYNC", "CS=13:12 MSH=23:22 MSIAttr=27:24 MSIData=63:32 MSIAddress=119:66"),
    0x50: ("CMD_TLBI_S_EL2_ALL", ""),
    0x51: ("CMD_TLBI_S_EL2_ASID", "ASID=63:48"),
    0x52: ("CMD_TLBI_S_EL2_VA", f"{_RANGE} ASID=63:48 Address=127:76"),
    0x53: ("CMD_TLBI_S_EL2_VAA", f"{_RANGE} Address=127:76"),
    0x58: ("CMD_TLBI_S_S12_VMALL", "VMID=47:32"),
    0x5A: ("CMD_TLBI_S_S2_IPA", f"{_RANGE} NS=65 VMID=47:32 Address=119:76"),
    0x60: ("CMD_TLBI_SNH_ALL", ""),
    0x70: ("CMD_DPTI_ALL", ""),
    0x73: ("CMD_DPTI_PA", "Address=119:76"),
}

_FETCH = f"{_SUB} Reason=79:64 GPCF=80 FetchAddr=247:195"
_ACCESS = f"{_SUB} PnU=97 InD=98 RnW=99 InputAddr=191:128"
_FAULT = f"{_ACCESS} STAG=79:64 STALL=95 NSIPA=100 S2=103 CLASS=105:104 IPA=247:204"

# Type: name and fields besides the type and the StreamID.
EVENTS = {
    0x01: ("F_UUT", f"{_ACCESS} Reason=79:64"),
    0x02: ("C_BAD_STREAMID", _SUB),
    0x03: ("F_STE_FETCH", _FETCH),
    0x04: ("C_BAD_STE", _SUB),
    0x05: ("F_BAD_ATS_TREQ", f"{_SUB} InputAddr=191:140"),
    0x06: ("F_STREAM_DISABLED", ""),
    0x07: ("F_TRANSL_FORBIDDEN", "RnW=99 InputAddr=191:128"),
    0x08: ("C_BAD_SUBSTREAMID", "SSID=31:12"),
    0x09: ("F_CD_FETCH", _FETCH),
    0x0A: ("C_BAD_CD", _SUB),
    0x0B: ("F_WALK_EABT", f"{_ACCESS} Reason=79:64 GPCF=80 S2=103 CLASS=105:104 FetchAddr=247:195"),
    0x10: ("F_TRANSLATION", _FAULT),
    0x11: ("F_ADDR_SIZE", _FAULT),
    0x12: ("F_ACCESS", _FAULT),
    0x13: ("F_PERMISSION", f"{_FAULT} TTRnW=108"),
    0x20: ("F_TLB_CONFLICT", f"{_ACCESS} Reason=79:64 S2=103 IPA=247:204"),
    0x21: ("F_CFG_CONFLICT", f"{_SUB} Reason=79:64"),
    0x24: ("E_PAGE_REQUEST", f"{_SUB} uX=97 uW=98 uR=99 pX=101 pW=102 pR=103 Span=115:108 InputAddr=191:140"),
    0x25: ("F_VMS_FETCH", _FETCH),
}

PRI = "SID=31:0 SSID=51:32 Priv=58 X=59 R=60 W=61 Last=62 SSV=63 PRGIndex=72:64 Address=127:76"

_TABLE = "TYPE=1:0 Ignored_2=9:2 AF=10 Ignored_11=11 NextTable=47:12 Ignored_51=58:51"
_TABLE_VIEWS = "NextTable_51_50=9:8 NextTable_51_48=15:12 NextTable_49_48=49:48"
_LEAF = "TYPE=1:0 SH=9:8 AF=10 OA=47:12 DBM=51 Contiguous=52 PBHA=62:59 AMEC=63"
_LEAF_VIEWS = "OA_51_50=9:8 OA_51_48=15:12 nT=16 OA_49_48=49:48"

DESCRIPTORS = {
    "InvalidDescriptor": "TYPE=1:0 Ignored=63:2",
    "TableDescriptor": f"{_TABLE} PXNTable=59 UXNTable=60 APTable=62:61 NSTable=63 {_TABLE_VIEWS}",
    "S2TableDescriptor": f"{_TABLE} {_TABLE_VIEWS}",
    "S1LeafDescriptor": f"{_LEAF} AttrIndx=4:2 NS=5 AP=7:6 nG=11 GP=50 PXN=53 UXN=54 Software=58:55 {_LEAF_VIEWS} "
    "AttrIndx_3=59",
    "S2LeafDescriptor": f"{_LEAF} MemAttr=5:2 S2AP=7:6 FnXS=11 XN=54:53 NS=55 Software=58:56 {_LEAF_VIEWS} "
    "MemAttr_FWB=4:2",
}

# Fields whose value is an address: the lowest address bit that they hold.
ADDRESSES = {
    "STRTAB_BASE.ADDR": 6,
    "CMDQ_BASE.ADDR": 5,
    "EVENTQ_BASE.ADDR": 5,
    "PRIQ_BASE.ADDR": 5,
    "ECMDQ_BASE.ADDR": 5,
    "GERROR_IRQ_CFG0.ADDR": 2,
    "EVENTQ_IRQ_CFG0.ADDR": 2,
    "PRIQ_IRQ_CFG0.ADDR": 2,
    "GATOS_ADDR.ADDR": 12,
    "GATOS_PAR.ADDR": 12,
    "GATOS_PAR.FADDR": 12,
    "VATOS_ADDR.ADDR": 12,
    "VATOS_PAR.ADDR": 12,
    "VATOS_PAR.FADDR": 12,
    "DPT_BASE.BADDR": 12,
    "DPT_CFG_FAR.FADDR": 12,
    "CMDQ_CONTROL_PAGE_BASE.ADDR": 16,
    "L1STD.L2Ptr": 6,
    "STE.S1ContextPtr": 6,
    "STE.S2TTB": 4,
    "STE.S_S2TTB": 4,
    "STE.VMSPtr": 12,
    "L1CD.L2Ptr": 12,
    "CD.TTB0": 4,
    "CD.TTB1": 4,
    "CMD_SYNC.MSIAddress": 2,
    "F_BAD_ATS_TREQ.InputAddr": 12,
    "E_PAGE_REQUEST.InputAddr": 12,
    "PRIEntry.Address": 12,
    **{f"{name}.Address": 12 for name, fields in COMMANDS.values() if " Address=" in f" {fields}"},
    **{f"{name}.IPA": 12 for name, fields in EVENTS.values() if "IPA=247" in fields},
    **{f"{name}.FetchAddr": 3 for name, fields in EVENTS.values() if "FetchAddr" in fields},
    **{f"{name}.NextTable": 12 for name in ("TableDescriptor", "S2TableDescriptor")},
    **{f"{name}.OA": 12 for name in ("S1LeafDescriptor", "S2LeafDescriptor")},
}

BY_NAME: dict[str, type[Layout]] = {
    cls.__name__: cls for module in (registers, structures, commands, events, descriptors) for cls in module.LAYOUTS
}
ALL = sorted(BY_NAME.values(), key=lambda cls: cls.__name__)


def pinned(text: str) -> dict[str, str]:
    return dict(item.split("=") for item in text.split())


def declared(cls: type[Layout], without: Iterable[str] = ()) -> dict[str, str]:
    return {f.name: f.bits[1:-1] for f in cls.fields if f.name not in set(without)}


# -- positions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTERS)
def test_a_register_is_where_the_architecture_puts_it(name: str) -> None:
    at, size, fields = REGISTERS[name]
    register = registers.BY_NAME[name]
    assert (register.at, register.size) == (at, size)
    assert declared(register) == pinned(fields)


@pytest.mark.parametrize("name", CORESIGHT)
def test_a_coresight_register_holds_what_the_architecture_fixes(name: str) -> None:
    at, fields, reset = CORESIGHT[name]
    register = registers.BY_NAME[name]
    assert (register.at, register.size, register.reset, register.access) == (at, 4, reset, Access.RO)
    assert declared(register) == pinned(fields)


def test_no_register_is_left_out_of_the_table() -> None:
    assert set(registers.BY_NAME) == set(REGISTERS) | set(CORESIGHT)


def test_registers_are_listed_by_offset_without_overlap() -> None:
    taken: set[int] = set()
    for at, register in registers.BY_OFFSET.items():
        span = set(range(at, at + register.size))
        assert not span & taken
        taken |= span
    singles = [register.at for register in registers.REGISTERS]
    assert singles == sorted(singles)


def test_control_page_registers_repeat_every_32_bytes() -> None:
    assert registers.BY_OFFSET[0x4000 + 32 * 255] is registers.CMDQ_CONTROL_PAGE_BASE
    assert registers.BY_OFFSET[0x400C + 32] is registers.CMDQ_CONTROL_PAGE_STATUS


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_has_the_fields_of_the_architecture(name: str) -> None:
    assert declared(BY_NAME[name]) == pinned(STRUCTURES[name])


def test_structures_have_their_sizes() -> None:
    assert {cls.__name__: cls.size for cls in structures.LAYOUTS} == {
        "L1STD": 8,
        "STE": 64,
        "L1CD": 8,
        "CD": 64,
        "VMS": 4096,
    }


@pytest.mark.parametrize("opcode", COMMANDS)
def test_a_command_has_the_fields_of_the_architecture(opcode: int) -> None:
    name, fields = COMMANDS[opcode]
    cls = commands.COMMANDS[opcode]
    assert cls.__name__ == commands.Opcode(opcode).name == name
    assert declared(cls) == {"OPCODE": "7:0", **pinned(fields)}
    assert cls.size == 16
    assert cls.of().raw == opcode


def test_no_command_is_left_out_of_the_table() -> None:
    assert set(commands.COMMANDS) == set(COMMANDS) == set(commands.Opcode)


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_has_exactly_the_fields_of_the_architecture(kind: int) -> None:
    name, fields = EVENTS[kind]
    cls = events.EVENTS[kind]
    assert cls.__name__ == events.EventType(kind).name == name
    assert declared(cls) == {"TYPE": "7:0", "SID": "63:32", **pinned(fields)}
    assert cls.size == 32
    assert cls.of().raw == kind


def test_no_event_is_left_out_of_the_table() -> None:
    assert set(events.EVENTS) == set(EVENTS) == set(events.EventType)


def test_event_fields_lie_in_linux_words() -> None:
    event = events.F_PERMISSION.of(STAG=0x1234, STALL=1, PnU=1, InD=1, RnW=1, S2=1, CLASS=2, TTRnW=1)
    assert event.words()[1] == 0x1234 | 1 << 31 | 1 << 33 | 1 << 34 | 1 << 35 | 1 << 39 | 2 << 40 | 1 << 44
    assert events.F_TRANSLATION.of(InputAddr=0xABCD).words()[2] == 0xABCD
    assert events.F_TRANSLATION.of(IPA=0xF_FFFF_FFFF_F000).words()[3] == 0xF_FFFF_FFFF_F000
    assert events.F_CD_FETCH.of(FetchAddr=0x1238).words()[3] == 0x1238


def test_a_pri_entry_has_the_fields_of_the_architecture() -> None:
    assert declared(events.PRIEntry) == pinned(PRI)


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_a_descriptor_has_the_fields_of_the_architecture(name: str) -> None:
    assert declared(BY_NAME[name]) == pinned(DESCRIPTORS[name])


def test_address_fields_read_as_addresses_and_no_other_field_does() -> None:
    found = {f"{cls.__name__}.{f.name}": f.low for cls in ALL for f in cls.fields if f.low}
    assert found == ADDRESSES


def test_a_table_pointer_above_bit_63_reads_as_the_address() -> None:
    assert structures.CD.from_words([0, 0x1234_5670]).TTB0 == 0x1234_5670
    assert structures.CD.from_words([0, 0, 0x1234_5670]).TTB1 == 0x1234_5670
    assert structures.STE.from_words([0, 0, 0, 0x1234_5670]).S2TTB == 0x1234_5670


# -- access, guards, presence --------------------------------------------------------------------------------


def written(register: type[Register], before: int, value: int) -> int:
    """What ``register`` holds after a write of ``value``, where all features are there and no guard is closed."""
    file = RegisterFile(RegisterMap((register,)))
    file[register] = before
    file.write(register.at, register.size, value)
    return file.raw(register)


@pytest.mark.parametrize(
    "register",
    [
        *(getattr(registers, f"IDR{n}") for n in range(7)),
        registers.IIDR,
        registers.AIDR,
        registers.CR0ACK,
        registers.STATUSR,
        registers.IRQ_CTRLACK,
        registers.GERROR,
        registers.GATOS_PAR,
        registers.VATOS_PAR,
        registers.MPAMIDR,
    ],
    ids=lambda register: register.__name__,
)
def test_a_read_only_register_ignores_writes(register: type[Register]) -> None:
    ones = (1 << register.size * 8) - 1
    assert written(register, 0, ones) == 0
    assert written(register, ones, 0) == ones


@pytest.mark.parametrize(
    ("register", "bits"),
    [
        (registers.CR0, 0x5DF),
        (registers.CR1, 0xFFF),
        (registers.CR2, 0xF),
        (registers.GBPA, 0x801F_3F1F),
        (registers.IRQ_CTRL, 0x7),
        (registers.GERRORN, 0x7FD),
        (registers.STRTAB_BASE, 0x40FF_FFFF_FFFF_FFC0),
        (registers.STRTAB_BASE_CFG, 0x307FF),
        (registers.CMDQ_BASE, 0x40FF_FFFF_FFFF_FFFF),
        (registers.CMDQ_PROD, 0xF_FFFF),
        (registers.CMDQ_CONS, 0xF_FFFF),
        (registers.EVENTQ_PROD, 0x800F_FFFF),
        (registers.EVENTQ_CONS, 0x800F_FFFF),
        (registers.PRIQ_IRQ_CFG2, 0x8000_003F),
        (registers.GERROR_IRQ_CFG0, 0x00FF_FFFF_FFFF_FFFC),
        (registers.DPT_CFG_FAR, 0x1),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_write_of_ones_sets_the_writable_bits_only(register: type[Register], bits: int) -> None:
    assert written(register, 0, (1 << register.size * 8) - 1) == bits


GUARDS = {
    "CR0": {Guard.DPT_WALK_ACK: 0x400},
    "CR1": {Guard.QUEUES: 0x3F, Guard.SMMUEN: 0xFC0},
    "CR2": {Guard.SMMUEN: 0xF},
    "GBPA": {Guard.UPDATE: 0x801F_3F1F},
    "STRTAB_BASE": {Guard.SMMUEN: 0x40FF_FFFF_FFFF_FFC0},
    "STRTAB_BASE_CFG": {Guard.SMMUEN: 0x307FF},
    "CMDQ_BASE": {Guard.CMDQEN: 0x40FF_FFFF_FFFF_FFFF},
    "CMDQ_CONS": {Guard.CMDQEN: 0x7F0F_FFFF},
    "EVENTQ_BASE": {Guard.EVENTQEN: 0x40FF_FFFF_FFFF_FFFF},
    "EVENTQ_PROD": {Guard.EVENTQEN: 0x800F_FFFF},
    "PRIQ_BASE": {Guard.PRIQEN: 0x40FF_FFFF_FFFF_FFFF},
    "PRIQ_PROD": {Guard.PRIQEN: 0x800F_FFFF},
    **{f"{q}_IRQ_CFG0": {Guard(f"IRQ_{q}"): 0x00FF_FFFF_FFFF_FFFC} for q in ("GERROR", "EVENTQ", "PRIQ")},
    **{f"{q}_IRQ_CFG1": {Guard(f"IRQ_{q}"): 0xFFFF_FFFF} for q in ("GERROR", "EVENTQ", "PRIQ")},
    "GERROR_IRQ_CFG2": {Guard.IRQ_GERROR: 0x3F},
    "EVENTQ_IRQ_CFG2": {Guard.IRQ_EVENTQ: 0x3F},
    "PRIQ_IRQ_CFG2": {Guard.IRQ_PRIQ: 0x8000_003F},
    "GATOS_CTRL": {Guard.ATOS_START: 1},
    "GATOS_SID": {Guard.GATOS_RUN: 0x001F_FFFF_FFFF_FFFF},
    "GATOS_ADDR": {Guard.GATOS_RUN: 0xFFFF_FFFF_FFFF_FFC0},
    "GMPAM": {Guard.UPDATE: 0x80FF_FFFF},
    "GBPMPAM": {Guard.UPDATE: 0x80FF_FFFF},
    "VATOS_SEL": {Guard.VATOS_RUN: 0xFFFF},
    "VATOS_CTRL": {Guard.ATOS_START: 1},
    "VATOS_SID": {Guard.VATOS_RUN: 0x001F_FFFF_FFFF_FFFF},
    "VATOS_ADDR": {Guard.VATOS_RUN: 0xFFFF_FFFF_FFFF_FFC0},
    "DPT_BASE": {Guard.DPT_WALK_EN: 0x40FF_FFFF_FFFF_F000},
    "DPT_BASE_CFG": {Guard.DPT_WALK_EN: 0x00F0_C007},
    "DPT_CFG_FAR": {Guard.DPT_FAULT: 0x00FF_FFFF_FFFF_F0F3},
    "ECMDQ_BASE": {Guard.ECMDQ_EN: 0x40FF_FFFF_FFFF_FFFF},
    "ECMDQ_PROD": {Guard.ECMDQ_ACK: 0x808F_FFFF},
    "ECMDQ_CONS": {Guard.ECMDQ_EN: 0x878F_FFFF},
}


def test_guards_cover_what_the_architecture_guards_and_no_more() -> None:
    assert {r.__name__: dict(r.guards) for r in registers.LAYOUTS if r.guards} == GUARDS


def test_every_guard_says_when_it_is_closed() -> None:
    assert all(len(guard.doc) > 20 for guard in Guard)


def ids(**values: int) -> dict[str, int]:
    """ID registers by name, from ``IDR0_MSI=1`` and the like."""
    raw = dict.fromkeys(("IDR0", "IDR1", "IDR3", "IDR5"), 0)
    for key, value in values.items():
        name, _, feature = key.partition("_")
        raw[name] |= registers.BY_NAME[name].field_named(feature).encode(value)
    return raw


def implemented(register: type[Register], raw: dict[str, int]) -> int:
    """The bits that are left of ``register`` when the ID registers are ``raw``."""

    def met(needs: str) -> bool:
        return registers.met(needs, lambda idr: raw[idr.__name__])

    return sum(f.mask for f in register.fields if met(register.needs) and met(f.needs))


@pytest.mark.parametrize(
    ("register", "features", "bits"),
    [
        (registers.CR0, {}, 0xD),
        (registers.CR0, {"IDR0_PRI": 1, "IDR0_ATS": 1}, 0x1F),
        (registers.CR0, {"IDR0_VMW": 1, "IDR3_DPT": 1}, 0x5CD),
        (registers.CR0ACK, {"IDR0_PRI": 1}, 0xF),
        (registers.CR2, {}, 0x2),
        (registers.CR2, {"IDR0_BTM": 1, "IDR0_Hyp": 1, "IDR0_ATSRECERR": 1}, 0xF),
        (registers.GERROR, {}, 0x105),
        (registers.GERROR, {"IDR0_MSI": 1}, 0x1B5),
        (registers.GERROR, {"IDR0_PRI": 1}, 0x10D),
        (registers.GERROR, {"IDR0_MSI": 1, "IDR0_PRI": 1}, 0x1FD),
        (registers.IRQ_CTRL, {}, 0x5),
        (registers.IRQ_CTRL, {"IDR0_PRI": 1}, 0x7),
        (registers.GERROR_IRQ_CFG1, {}, 0),
        (registers.GERROR_IRQ_CFG1, {"IDR0_MSI": 1}, 0xFFFF_FFFF),
        (registers.PRIQ_IRQ_CFG1, {"IDR0_MSI": 1}, 0),
        (registers.PRIQ_IRQ_CFG2, {"IDR0_PRI": 1}, 0x8000_0000),
        (registers.PRIQ_BASE, {}, 0),
        (registers.STRTAB_BASE_CFG, {}, 0x3F),
        (registers.STRTAB_BASE_CFG, {"IDR0_ST_LEVEL": 1}, 0x307FF),
        (registers.GATOS_SID, {"IDR0_ATOS": 1}, 0x000F_FFFF_FFFF_FFFF),
        (registers.GATOS_SID, {"IDR0_ATOS": 1, "IDR1_SSIDSIZE": 16}, 0x001F_FFFF_FFFF_FFFF),
        (registers.S2PII, {}, 0),
        (registers.S2PII, {"IDR3_S2PI": 1}, 0xFFFF_FFFF_FFFF_FFFF),
    ],
)
def test_a_feature_that_is_absent_makes_its_bits_res0(
    register: type[Register], features: dict[str, int], bits: int
) -> None:
    assert implemented(register, ids(**features)) == bits


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_what_a_layout_needs_are_features_that_exist(cls: type[Layout]) -> None:
    for needs in [f.needs for f in cls.fields] + [getattr(cls, "needs", "")]:
        registers.met(needs, lambda idr: 0)


# -- encodings -----------------------------------------------------------------------------------------------


def test_the_two_granule_encodings_of_a_cd_differ() -> None:
    assert {granule.shift: int(granule) for granule in structures.TG0} == {12: 0, 16: 1, 14: 2}
    assert {granule.shift: int(granule) for granule in structures.TG1} == {14: 1, 12: 2, 16: 3}
    assert structures.CD.TG0.text(1) == "1(64KB)"
    assert structures.CD.TG1.text(1) == "1(16KB)"


def test_address_sizes_have_their_bits() -> None:
    assert [size.bits for size in registers.AddressSize] == [32, 36, 40, 42, 44, 48, 52, 56]


def test_span_names_how_many_stes_a_leaf_holds() -> None:
    assert structures.L1STD.Span.text(9) == "9(256 STEs)"
    assert structures.L1STD(12).problems() == ["Span[4:0] = 12 is reserved"]


@pytest.mark.parametrize("config", [1, 2, 3])
def test_a_reserved_ste_config_is_named(config: int) -> None:
    assert structures.STE.of(V=1, Config=config).problems() == [f"Config[3:1] = {config} is reserved"]


def test_a_cd_without_granule_for_ttb1_is_a_problem_only_if_ttb1_is_on() -> None:
    assert structures.CD.of(V=1, EPD1=1).problems() == []
    assert structures.CD.of(V=1).problems() == ["TG1[23:22] = 0 is reserved while EPD1 is 0"]


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (commands.CMD_SYNC, {"CS": 3}),
        (commands.CMD_PRI_RESP, {"Resp": 3}),
        (structures.STE, {"S1Fmt": 3}),
        (structures.STE, {"S1DSS": 3}),
        (structures.STE, {"STRW": 1}),
        (structures.STE, {"S2TG": 3}),
        (structures.STE, {"MemAttr": 4}),
        (registers.CR1, {"TABLE_OC": 3}),
        (registers.CR0, {"VMW": 5}),
        (registers.STRTAB_BASE_CFG, {"FMT": 2, "SPLIT": 6}),
        (events.F_TRANSLATION, {"CLASS": 3}),
    ],
)
def test_a_reserved_value_is_a_problem(cls: type[Layout], values: dict[str, int]) -> None:
    name, value = next(iter(values.items()))
    assert cls.of(**values).problems() == [f"{name}{cls.field_named(name).bits} = {value} is reserved"]


def test_cfgi_all_is_a_range_of_31() -> None:
    assert commands.CMD_CFGI_STE_RANGE.everything().words() == (0x04, 0x1F)
    assert commands.CMD_CFGI_STE_RANGE.everything().all
    assert not commands.CMD_CFGI_STE_RANGE.of(Range=30).all


def test_a_stop_marker_is_a_last_request_without_permissions_but_with_a_pasid() -> None:
    assert events.PRIEntry.of(SSV=1, Last=1).stop_marker
    assert not events.PRIEntry.of(Last=1).stop_marker
    assert not events.PRIEntry.of(SSV=1, Last=1, R=1).stop_marker
    assert not events.PRIEntry.of(SSV=1, Last=1, W=1).stop_marker


def test_an_unknown_opcode_or_type_decodes_to_the_plain_layout() -> None:
    assert type(commands.decode(0x8F)) is commands.Command
    assert type(events.decode(0xE0)) is events.Event
    assert 0xE0 in events.IMPDEF_EVENTS
    assert 0xF0 not in events.IMPDEF_EVENTS


# -- what a stock Linux guest writes -------------------------------------------------------------------------


def test_linux_ste_reads_as_stage_1_with_its_cd() -> None:
    ste = structures.STE.from_words([0x0000_0000_4500_000B, 0xD6])
    shown = {name: value for name, value in ste.values().items() if value}
    assert shown == {
        "V": 1,
        "Config": structures.STE_CONFIG.S1,
        "S1ContextPtr": 0x4500_0000,
        "S1DSS": structures.S1DSS.SSID0,
        "S1CIR": 1,
        "S1COR": 1,
        "S1CSH": 3,
    }
    assert ste.problems() == []


def test_linux_cd_reads_as_48_bits_of_4k_pages() -> None:
    cd = structures.CD.from_words([0x0001_E205_C000_3510, 0x4600_0000, 0, 0xF404_FF44])
    shown = {name: value for name, value in cd.values().items() if value}
    assert shown == {
        "T0SZ": 16,
        "IR0": 1,
        "OR0": 1,
        "SH0": 3,
        "EPD1": 1,
        "V": 1,
        "IPS": 5,
        "AA64": 1,
        "R": 1,
        "A": 1,
        "ASET": 1,
        "ASID": 1,
        "TTB0": 0x4600_0000,
        "MAIR0": 0xF404_FF44,
    }
    assert cd.problems() == []


LINUX_COMMANDS = [
    ((0x04, 0x1F), commands.CMD_CFGI_STE_RANGE.of(Range=31)),
    ((0x30, 0), commands.CMD_TLBI_NSNH_ALL.of()),
    ((0x20, 0), commands.CMD_TLBI_EL2_ALL.of()),
    ((0x0FC0_2046, 0), commands.CMD_SYNC.of(CS=2, MSH=3, MSIAttr=15)),
    ((0x0FC0_1046, 0x4700_0000), commands.CMD_SYNC.of(CS=1, MSH=3, MSIAttr=15, MSIAddress=0x4700_0000)),
    (
        (0x0001_0000_0000_0012, 0xFFE0_0701),
        commands.CMD_TLBI_NH_VA.of(ASID=1, Leaf=1, TTL=3, TG=1, Address=0xFFE0_0000),
    ),
    (
        (0x0001_0000_0040_0012, 0xFFE0_0701),
        commands.CMD_TLBI_NH_VA.of(ASID=1, SCALE=4, Leaf=1, TTL=3, TG=1, Address=0xFFE0_0000),
    ),
    (
        (0x0001_0000_0050_0012, 0xFFE0_1701),
        commands.CMD_TLBI_NH_VA.of(ASID=1, SCALE=5, Leaf=1, TTL=3, TG=1, Address=0xFFE0_1000),
    ),
    (
        (0x0001_0000_0090_0012, 0xFFE0_0701),
        commands.CMD_TLBI_NH_VA.of(ASID=1, SCALE=9, Leaf=1, TTL=3, TG=1, Address=0xFFE0_0000),
    ),
]


@pytest.mark.parametrize(("words", "command"), LINUX_COMMANDS)
def test_linux_commands_decode_and_encode_as_known(words: tuple[int, int], command: commands.Command) -> None:
    assert commands.decode(struct.pack("<2Q", *words)) == command
    assert commands.decode(words[0] | words[1] << 64) == command
    assert command.words() == words
    assert command.problems() == []


def test_linux_cr1_is_write_back_inner_shareable_throughout() -> None:
    assert set(registers.CR1(0xD75).values().items()) == {
        ("QUEUE_IC", 1),
        ("QUEUE_OC", 1),
        ("QUEUE_SH", 3),
        ("TABLE_IC", 1),
        ("TABLE_OC", 1),
        ("TABLE_SH", 3),
    }


# -- descriptors ---------------------------------------------------------------------------------------------


def test_a_descriptor_of_type_3_is_a_page_at_level_3_and_a_table_above() -> None:
    assert type(descriptors.decode(0x4000_0403, level=3)) is descriptors.S1LeafDescriptor
    assert type(descriptors.decode(0x4000_0403, level=2)) is descriptors.TableDescriptor
    assert type(descriptors.decode(0x4000_0403, stage=2, level=3)) is descriptors.S2LeafDescriptor
    assert type(descriptors.decode(0x4000_0403, stage=2, level=2)) is descriptors.S2TableDescriptor


def test_without_a_level_the_access_flag_tells_a_page_from_a_table() -> None:
    assert type(descriptors.decode(0x4000_0403)) is descriptors.S1LeafDescriptor
    assert type(descriptors.decode(0x4000_0003)) is descriptors.TableDescriptor


@pytest.mark.parametrize(
    ("granule", "wide", "levels"),
    [
        (12, False, {1, 2}),
        (14, False, {2}),
        (16, False, {2}),
        (12, True, {0, 1, 2}),
        (14, True, {1, 2}),
        (16, True, {1, 2}),
    ],
)
def test_blocks_stand_only_where_the_granule_lets_them(granule: int, wide: bool, levels: set[int]) -> None:
    found = {
        level
        for level in range(4)
        if type(descriptors.decode(1, 1, level, granule, wide)) is descriptors.S1LeafDescriptor
    }
    assert found == levels


@pytest.mark.parametrize("raw", [0, 2, 0xFFFF_FFFF_FFFF_FFFE])
def test_a_descriptor_without_bit_0_is_invalid_and_all_software_s(raw: int) -> None:
    found = descriptors.decode(raw, level=3)
    assert type(found) is descriptors.InvalidDescriptor
    assert found.problems() == []


@pytest.mark.parametrize(
    ("granule", "level", "wide", "raw", "address"),
    [
        (12, 3, False, 0x0060_8765_4321_0F43, 0x8765_4321_0000),
        (12, 2, False, 0x0060_8765_4321_0F41, 0x8765_4320_0000),
        (12, 1, False, 0x0060_8765_4321_0F41, 0x8765_4000_0000),
        (14, 3, False, 0x0060_8765_4321_7F43, 0x8765_4321_4000),
        (16, 3, False, 0x0060_8765_4321_AF43, 0x8765_4321_0000),
        (16, 3, True, 0x0060_8765_4321_AF43, 0xA_8765_4321_0000),
        (12, 3, True, 0x0063_8765_4321_0E43, 0xB_8765_4321_0000),
        (12, 3, True, 0x0060_8765_4321_0143, 0x4_8765_4321_0000),
    ],
)
def test_the_output_address_is_put_together_as_granule_and_form_say(
    granule: int, level: int, wide: bool, raw: int, address: int
) -> None:
    assert descriptors.output_address(raw, granule, level, wide) == address


def test_span_follows_from_granule_and_level() -> None:
    assert [descriptors.span_shift(12, level) for level in range(4)] == [39, 30, 21, 12]
    assert [descriptors.span_shift(14, level) for level in (1, 2, 3)] == [36, 25, 14]
    assert [descriptors.span_shift(16, level) for level in (1, 2, 3)] == [42, 29, 16]


# -- round trips ---------------------------------------------------------------------------------------------


def stored(cls: type[Layout]) -> list[Field]:
    return [f for f in cls.fields if not f.view]


# Few examples each: the layouts are many, and a wrong shift or mask shows in nearly any word.
SMALL = [cls for cls in ALL if cls.size <= 64]


@pytest.mark.parametrize("cls", SMALL, ids=lambda cls: cls.__name__)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_values_survive_encoding(cls: type[Layout], data: st.DataObject) -> None:
    values = {f.name: f.decode(data.draw(st.integers(0, (1 << f.width) - 1), f.name) << f.lsb) for f in stored(cls)}
    made = cls.of(**values)
    assert {name: made.values()[name] for name in values} == values
    assert made.raw & cls.reserved == 0


@pytest.mark.parametrize("cls", SMALL, ids=lambda cls: cls.__name__)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_bytes_survive_every_codec(cls: type[Layout], data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=cls.size, max_size=cls.size))
    value = cls.from_bytes(raw)
    assert value.to_bytes() == raw
    assert cls.from_words(value.words()) == value
    assert cls.codec().build(cls.codec().parse(raw)) == raw
    assert cls.codec().parse(raw) == value
    parsed = cls.bits().parse(raw)
    assert cls.bits().build(parsed) == raw
    assert value.shown() == value.values()  # views too
    assert {f.name: parsed[f.name] << f.lsb & f.mask for f in stored(cls)} == {
        f.name: value.raw & f.mask for f in stored(cls)
    }


def test_a_vms_survives_its_codec() -> None:
    raw = bytes(range(256)) * 16
    assert structures.VMS.codec().build(structures.VMS.codec().parse(raw)) == raw
    assert structures.VMS.PARTID_MAP.elements(structures.VMS.from_bytes(raw).PARTID_MAP)[:2] == (0x0100, 0x0302)
