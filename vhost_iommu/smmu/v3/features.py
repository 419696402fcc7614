# SPDX-License-Identifier: Apache-2.0
"""Named features of one SMMUv3, and the ID registers that they make.

Law: the model reads ID registers only, so an instance made from raw values needs nothing of this. A
combination that no SMMUv3 can have, or that this model cannot serve, is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import UsageError
from ...layout import Register
from .registers import AIDR, HTTU, IDR0, IDR1, IDR3, IDR5, IIDR, MPAMIDR, AddressSize, StallModel, TTEndian

GRANULES = ("4K", "16K", "64K")
ENDIANS = {"little": TTEndian.LITTLE, "big": TTEndian.BIG, "mixed": TTEndian.MIXED}
STALL_MODELS = {
    "terminate": StallModel.TERMINATE_ONLY,
    "both": StallModel.STALL_AND_TERMINATE,
    "stall": StallModel.STALL_FORCED,
}
HTTU_LEVELS = {
    "none": HTTU.NONE,
    "access": HTTU.ACCESS,
    "dirty": HTTU.ACCESS_DIRTY,
    "tables": HTTU.ACCESS_DIRTY_TABLE,
}
OUTPUT_SIZES = {size.bits: size for size in AddressSize if size.bits <= 52}


@dataclass(frozen=True, slots=True)
class Features:
    """What the machine file's ``features`` table may say; sizes of spaces and queues are log2.

    The defaults are an SMMU that every Linux since 5.0 drives without a warning.
    """

    #: Architecture version: "3.0" to "3.3".
    version: str = "3.2"
    #: Translation granules.
    granules: tuple[str, ...] = GRANULES
    #: Output address bits: 32, 36, 40, 42, 44, 48 or 52.
    oas: int = 48
    #: Stages that streams may have translated.
    stage1: bool = True
    stage2: bool = False
    #: Table formats: VMSAv8-64, and VMSAv8-32 LPAE as well if true.
    aarch32_tables: bool = False
    #: Endianness of table walks.
    endianness: Literal["little", "big", "mixed"] = "little"
    stream_id_bits: int = 16
    substream_id_bits: int = 0
    #: 1: linear stream tables only; 2: two-level as well (needed for more than 64 streams).
    stream_table_levels: int = 2
    #: Two-level context descriptor tables.
    cd_two_level: bool = True
    asid16: bool = True
    vmid16: bool = False
    #: VMID wildcards in invalidations (CR0.VMW).
    vmid_wildcards: bool = False
    #: EL2 and EL2-E2H streams; needs both stages.
    hyp: bool = False
    #: Which ways a faulting transaction may end: "both" lets CD.S and STE.S2S choose.
    stall_model: Literal["terminate", "both", "stall"] = "terminate"
    #: Most stalled transactions that software is told of at a time; the others wait for their turn.
    stall_max: int = 32
    #: False: CD.A chooses between abort and RAZ/WI; True: always abort.
    abort_only: bool = False
    #: Hardware updates of descriptors: "access" flags, "dirty" state too, or "tables" (flags of tables too).
    hardware_updates: Literal["none", "access", "dirty", "tables"] = "none"
    #: PCIe ATS; "split" is split-stage ATS as well, where both stages are there.
    ats: Literal["none", "full", "split"] = "none"
    #: PASIDs count on translated transactions too; needs ats and substreams.
    ats_pasid: bool = False
    #: PCIe page requests; needs ats.
    pri: bool = False
    #: Configuration errors that ATS meets are recorded if CR2.REC_CFG_ATS asks for it.
    ats_errors: bool = False
    #: Automatic page responses carry the request's PASID whatever STE.PPAR says.
    pri_pasid: bool = False
    #: Message signalled interrupts, also for CMD_SYNC.
    msi: bool = True
    #: Wake-up events; a CMD_SYNC that asks for one completes silently.
    sev: bool = True
    #: Table walks, queues and MSIs are coherent (IDR0.COHACC). They are without it, too: guest memory is shared with
    #: QEMU, so a driver's missing cache maintenance never shows.
    coherent: bool = True
    #: Range invalidation and level hints.
    range_invalidation: bool = True
    #: Small translation tables.
    small_tables: bool = False
    #: 52-bit addresses with the 4K and 16K granules (LPA2); needs oas = 52.
    lpa2: bool = False
    #: 52-bit virtual addresses.
    va52: bool = False
    #: Hierarchical attribute disable.
    hierarchical_disable: bool = True
    #: E0PD: CD.E0PD0 and CD.E0PD1.
    e0pd: bool = False
    #: CD.EPAN: PAN counts user-executable pages too.
    epan: bool = False
    #: Stage 2 execute-never for EL0 and EL1 apart.
    xnx: bool = False
    #: STE.S2FWB.
    forced_writeback: bool = False
    #: Level of break-before-make support told to software: 0, 1 or 2.
    bbm_level: int = 2
    #: STE.PRIVCFG and STE.INSTCFG override a transaction's attributes.
    permission_overrides: bool = True
    #: Largest PARTID and PMG that software may give out, 65535 and 255 at most; both 0: no MPAM.
    mpam_partid_max: int = 0
    mpam_pmg_max: int = 0
    command_queue_bits: int = 10
    event_queue_bits: int = 10
    page_request_queue_bits: int = 10

    def __post_init__(self) -> None:
        for name, problem in self._problems():
            raise UsageError(f"features.{name}: {problem}")

    def _problems(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []

        def need(condition: bool, name: str, problem: str) -> None:
            if not condition:
                found.append((name, problem))

        need(self.version in ("3.0", "3.1", "3.2", "3.3"), "version", 'choose "3.0", "3.1", "3.2" or "3.3"')
        need(bool(self.granules) and set(self.granules) <= set(GRANULES), "granules", f"choose from {GRANULES}")
        need(self.oas in OUTPUT_SIZES, "oas", f"choose one of {sorted(OUTPUT_SIZES)}")
        need(self.stage1 or self.stage2, "stage1", "an SMMU translates at one stage at least; set stage1 or stage2")
        need(0 <= self.stream_id_bits <= 32, "stream_id_bits", "choose 0 to 32")
        need(0 <= self.substream_id_bits <= 20, "substream_id_bits", "choose 0 to 20")
        need(self.stream_table_levels in (1, 2), "stream_table_levels", "choose 1 or 2")
        need(
            self.stream_table_levels == 2 or self.stream_id_bits <= 6,
            "stream_table_levels",
            "more than 6 StreamID bits need two-level stream tables (IHI 0070 §3.3.1.2); choose 2",
        )
        need(not self.hyp or (self.stage1 and self.stage2), "hyp", "EL2 streams need both stages; set stage2 = true")
        need(self.stage2 or not self.vmid16, "vmid16", "VMIDs are stage 2's; set stage2 = true")
        need(self.stage2 or not self.vmid_wildcards, "vmid_wildcards", "VMIDs are stage 2's; set stage2 = true")
        need(self.stage2 or not self.xnx, "xnx", "this is stage 2's; set stage2 = true")
        need(self.stage2 or not self.forced_writeback, "forced_writeback", "this is stage 2's; set stage2 = true")
        need(not self.lpa2 or self.oas == 52, "lpa2", "52-bit addresses need a 52-bit output; set oas = 52")
        need(not self.epan or self.version == "3.3", "epan", 'this came with version 3.3; set version = "3.3"')
        need(
            not self.lpa2 or {"4K", "16K"} & set(self.granules) != set(),
            "lpa2",
            "this is of the 4K and 16K granules; add one",
        )
        need(not self.va52 or self.version != "3.0", "va52", "52-bit addresses came with version 3.1")
        need(
            self.hardware_updates != "tables" or self.version == "3.3",
            "hardware_updates",
            '"tables" came after version 3.2; set version = "3.3"',
        )
        need(not self.pri or self.ats != "none", "pri", 'page requests need ATS; set ats = "full"')
        need(self.ats != "split" or (self.stage1 and self.stage2), "ats", "split-stage ATS needs both stages; add them")
        need(not self.ats_errors or self.ats != "none", "ats_errors", 'this is of ATS; set ats = "full"')
        need(not self.ats_pasid or self.ats != "none", "ats_pasid", 'this is of ATS; set ats = "full"')
        need(not self.ats_pasid or self.substream_id_bits > 0, "ats_pasid", "PASIDs need substream_id_bits above 0")
        need(not self.pri_pasid or self.pri, "pri_pasid", "this is of page requests; set pri = true")
        need(0 <= self.page_request_queue_bits <= 19, "page_request_queue_bits", "choose 0 to 19")
        need(1 <= self.stall_max <= 0xFFFF, "stall_max", "choose 1 to 65535")
        need(0 <= self.bbm_level <= 2, "bbm_level", "choose 0, 1 or 2")
        need(0 <= self.command_queue_bits <= 19, "command_queue_bits", "choose 0 to 19")
        need(0 <= self.event_queue_bits <= 19, "event_queue_bits", "choose 0 to 19")
        for name, value, most in (
            ("mpam_partid_max", self.mpam_partid_max, 0xFFFF),
            ("mpam_pmg_max", self.mpam_pmg_max, 0xFF),
        ):
            need(0 <= value <= most, name, f"choose 0 to {most}")
            need(not value or self.version in ("3.2", "3.3"), name, 'MPAM came with version 3.2; set version = "3.2"')
        need(self.oas < 52 or self.version != "3.0", "oas", "52-bit addresses came with version 3.1; choose 48 or less")
        need(
            self.version in ("3.0", "3.1") or self.range_invalidation,
            "range_invalidation",
            "range invalidation is mandatory from version 3.2 on; choose version 3.1 to go without",
        )
        return found

    def id_registers(self) -> dict[type[Register], int]:
        """The ID registers' values."""
        minor = int(self.version[2:])
        return {
            IDR0: IDR0.of(
                S2P=self.stage2,
                S1P=self.stage1,
                TTF=3 if self.aarch32_tables else 2,
                COHACC=self.coherent,
                HTTU=HTTU_LEVELS[self.hardware_updates],
                Hyp=self.hyp,
                ATS=self.ats != "none",
                NS1ATS=self.ats == "full",
                ASID16=self.asid16 and self.stage1,
                MSI=self.msi,
                SEV=self.sev,
                PRI=self.pri,
                ATSRECERR=self.ats_errors,
                VMW=self.vmid_wildcards,
                VMID16=self.vmid16,
                CD2L=self.cd_two_level,
                TTENDIAN=ENDIANS[self.endianness],
                STALL_MODEL=STALL_MODELS[self.stall_model],
                TERM_MODEL=self.abort_only,
                ST_LEVEL=self.stream_table_levels - 1,
            ).raw,
            IDR1: IDR1.of(
                SIDSIZE=self.stream_id_bits,
                SSIDSIZE=self.substream_id_bits,
                PRIQS=self.page_request_queue_bits if self.pri else 0,
                EVENTQS=self.event_queue_bits,
                CMDQS=self.command_queue_bits,
                ATTR_PERMS_OVR=self.permission_overrides,
                ATTR_TYPES_OVR=1,
            ).raw,
            IDR3: IDR3.of(
                HAD=self.hierarchical_disable,
                XNX=self.xnx,
                PPS=self.pri_pasid,
                MPAM=self.mpam_partid_max > 0 or self.mpam_pmg_max > 0,
                FWB=self.forced_writeback,
                STT=self.small_tables,
                PASIDTT=self.ats_pasid,
                RIL=self.range_invalidation,
                E0PD=self.e0pd,
                EPAN=self.epan,
                BBML=self.bbm_level,
            ).raw,
            IDR5: IDR5.of(
                OAS=OUTPUT_SIZES[self.oas],
                GRAN4K="4K" in self.granules,
                GRAN16K="16K" in self.granules,
                GRAN64K="64K" in self.granules,
                DS=self.lpa2,
                VAX=self.va52 or self.lpa2 or self.oas == 52,
                STALL_MAX=0 if self.stall_model == "terminate" else self.stall_max,
            ).raw,
            MPAMIDR: MPAMIDR.of(PARTID_MAX=self.mpam_partid_max, PMG_MAX=self.mpam_pmg_max).raw,
            # Any implementer but Arm's own number, whose parts' errata Linux works around.
            IIDR: IIDR.of(Implementer=0x7F).raw,
            AIDR: AIDR.of(ArchMinorRev=minor).raw,
        }


_EVERYTHING: Mapping[str, Any] = {
    "version": "3.3",
    "oas": 52,
    "stage2": True,
    "aarch32_tables": True,
    "endianness": "mixed",
    "substream_id_bits": 20,
    "vmid16": True,
    "vmid_wildcards": True,
    "hyp": True,
    "stall_model": "both",
    "hardware_updates": "tables",
    "ats": "split",
    "ats_pasid": True,
    "pri": True,
    "ats_errors": True,
    "pri_pasid": True,
    "small_tables": True,
    "lpa2": True,
    "va52": True,
    "e0pd": True,
    "epan": True,
    "xnx": True,
    "forced_writeback": True,
    "mpam_partid_max": 63,
    "mpam_pmg_max": 3,
}

#: Named beginnings of a feature table. Those of real parts are what their manuals describe, as far as the model goes.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # What every Linux since 5.0 drives without a warning: the defaults.
    "linux": {},
    # What Arm's base system architecture asks of a server's SMMU.
    "bsa": {
        "version": "3.2",
        "stage2": True,
        "vmid16": True,
        "substream_id_bits": 16,
        "hardware_updates": "dirty",
        "hyp": True,
        "xnx": True,
        "forced_writeback": True,
    },
    "everything": _EVERYTHING,
    # The least that is still an SMMUv3: one stage, one granule, one queue entry, no substreams, no MSIs.
    "minimal": {
        "version": "3.0",
        "granules": ("4K",),
        "oas": 32,
        "stream_id_bits": 6,
        "stream_table_levels": 1,
        "cd_two_level": False,
        "asid16": False,
        "abort_only": True,
        "msi": False,
        "sev": False,
        "coherent": False,
        "range_invalidation": False,
        "hierarchical_disable": False,
        "bbm_level": 0,
        "permission_overrides": False,
        "command_queue_bits": 0,
        "event_queue_bits": 0,
    },
    "mmu-600": {
        "version": "3.1",
        "stage2": True,
        "substream_id_bits": 20,
        "stream_id_bits": 24,
        "vmid16": True,
        "stall_model": "both",
        "hardware_updates": "dirty",
        "ats": "full",
        "pri": True,
        "range_invalidation": False,
        "hyp": True,
        "xnx": True,
        "bbm_level": 0,
        "command_queue_bits": 19,
        "event_queue_bits": 19,
        "page_request_queue_bits": 19,
    },
    "mmu-700": {
        "version": "3.2",
        "oas": 52,
        "stage2": True,
        "substream_id_bits": 20,
        "stream_id_bits": 24,
        "vmid16": True,
        "stall_model": "both",
        "hardware_updates": "dirty",
        "ats": "full",
        "pri": True,
        "hyp": True,
        "xnx": True,
        "forced_writeback": True,
        "e0pd": True,
        "bbm_level": 2,
        "command_queue_bits": 19,
        "event_queue_bits": 19,
        "page_request_queue_bits": 19,
    },
}
