# SPDX-License-Identifier: Apache-2.0
"""Named features of one SMMUv3, and the ID registers that they make.

Law: the model reads ID registers only, so an instance made from raw values needs nothing of this. A
combination that no SMMUv3 can have, or that this model cannot serve, is refused with a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import UsageError
from ...layout import Register
from .registers import AIDR, IDR0, IDR1, IDR3, IDR5, IIDR, AddressSize, StallModel

GRANULES = ("4K", "16K", "64K")
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
    #: Stage 1, the only stage that this model translates so far.
    stage1: bool = True
    stream_id_bits: int = 16
    substream_id_bits: int = 0
    #: 1: linear stream tables only; 2: two-level as well (needed for more than 64 streams).
    stream_table_levels: int = 2
    #: Two-level context descriptor tables.
    cd_two_level: bool = True
    asid16: bool = True
    #: Which way a faulting transaction may end; stalling is not modelled so far.
    stall_model: Literal["terminate"] = "terminate"
    #: False: CD.A chooses between abort and RAZ/WI; True: always abort.
    abort_only: bool = False
    #: Message signalled interrupts, also for CMD_SYNC.
    msi: bool = True
    #: Wake-up events; a CMD_SYNC that asks for one completes silently.
    sev: bool = True
    #: Table walks, queues and MSIs are coherent (IDR0.COHACC).
    coherent: bool = True
    #: Range invalidation and level hints.
    range_invalidation: bool = True
    #: Small translation tables.
    small_tables: bool = False
    #: Hierarchical attribute disable.
    hierarchical_disable: bool = True
    #: E0PD: CD.E0PD0 and CD.E0PD1.
    e0pd: bool = False
    #: Level of break-before-make support told to software: 0, 1 or 2.
    bbm_level: int = 2
    #: STE.PRIVCFG and STE.INSTCFG override a transaction's attributes.
    permission_overrides: bool = True
    command_queue_bits: int = 10
    event_queue_bits: int = 10

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
        need(self.stage1, "stage1", "an SMMU without stage 1 needs stage 2, which this model does not have yet")
        need(0 <= self.stream_id_bits <= 32, "stream_id_bits", "choose 0 to 32")
        need(0 <= self.substream_id_bits <= 20, "substream_id_bits", "choose 0 to 20")
        need(self.stream_table_levels in (1, 2), "stream_table_levels", "choose 1 or 2")
        need(
            self.stream_table_levels == 2 or self.stream_id_bits <= 6,
            "stream_table_levels",
            "more than 6 StreamID bits need two-level stream tables (IHI 0070 §3.3.1.2); choose 2",
        )
        need(self.stall_model == "terminate", "stall_model", 'only "terminate" is modelled so far')
        need(0 <= self.bbm_level <= 2, "bbm_level", "choose 0, 1 or 2")
        need(0 <= self.command_queue_bits <= 19, "command_queue_bits", "choose 0 to 19")
        need(0 <= self.event_queue_bits <= 19, "event_queue_bits", "choose 0 to 19")
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
                S1P=self.stage1,
                TTF=2,
                COHACC=self.coherent,
                ASID16=self.asid16,
                MSI=self.msi,
                SEV=self.sev,
                CD2L=self.cd_two_level,
                TTENDIAN=2,
                STALL_MODEL=StallModel.TERMINATE_ONLY,
                TERM_MODEL=self.abort_only,
                ST_LEVEL=self.stream_table_levels - 1,
            ).raw,
            IDR1: IDR1.of(
                SIDSIZE=self.stream_id_bits,
                SSIDSIZE=self.substream_id_bits,
                EVENTQS=self.event_queue_bits,
                CMDQS=self.command_queue_bits,
                ATTR_PERMS_OVR=self.permission_overrides,
                ATTR_TYPES_OVR=1,
            ).raw,
            IDR3: IDR3.of(
                HAD=self.hierarchical_disable,
                STT=self.small_tables,
                RIL=self.range_invalidation,
                E0PD=self.e0pd,
                BBML=self.bbm_level,
            ).raw,
            IDR5: IDR5.of(
                OAS=OUTPUT_SIZES[self.oas],
                GRAN4K="4K" in self.granules,
                GRAN16K="16K" in self.granules,
                GRAN64K="64K" in self.granules,
                VAX=1 if self.oas == 52 else 0,
            ).raw,
            # Any implementer but Arm's own number, whose parts' errata Linux works around.
            IIDR: IIDR.of(Implementer=0x7F).raw,
            AIDR: AIDR.of(ArchMinorRev=minor).raw,
        }
