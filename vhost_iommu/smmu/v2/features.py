# SPDX-License-Identifier: Apache-2.0
"""Named features of one SMMUv2, and the ID registers that they make.

Law: the model reads ID registers only, but for whether contexts can stall, of which they say nothing. A combination
that no SMMUv2 can have, or that this model cannot serve, is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import UsageError
from ...layout import Register
from .registers import BUS_BITS, IDR0, IDR1, IDR2, IDR7, MOST, SIZE_BITS

GRANULES = ("4K", "16K", "64K")
_AARCH32 = {"short": 0, "long": 1, "none": 2}


@dataclass(frozen=True, slots=True)
class Features:
    """What the machine file's ``features`` table may say.

    The defaults are an SMMU that Linux's driver takes for nobody's in particular.
    """

    #: AArch64 table granules; none: AArch32 tables alone.
    granules: tuple[str, ...] = GRANULES
    #: AArch32 tables: "none", "long" descriptors (LPAE), or "short" ones as well.
    aarch32: Literal["none", "long", "short"] = "short"
    #: Stages that contexts may have.
    stage1: bool = True
    stage2: bool = True
    #: Stage 1 followed by stage 2; needs both.
    nested: bool = True
    #: Bits of physical and of intermediate physical addresses: 32, 36, 40, 42, 44 or 48.
    oas: int = 48
    ias: int = 48
    #: Bits of the addresses that come in: 32, 36, 40, 42, 44, 49 (48 and a sign) or 64.
    bus_bits: int = 49
    #: Context banks, and how many of them, the first, have stage 2 alone.
    context_banks: int = 8
    stage2_banks: int = 0
    #: Groups of streams that are matched by StreamID and mask; false: StreamIDs are the groups' numbers.
    stream_matching: bool = True
    stream_groups: int = 32
    stream_id_bits: int = 15
    #: StreamIDs of 16 bits, if software asks for them (needs stream_matching and 15 bits).
    extended_ids: bool = False
    vmid16: bool = False
    #: Address translation operations: ATS1PR and its like, PAR. Linux unmaps slower with them.
    translation_operations: bool = False
    #: Contexts may stall on faults.
    stall: bool = True
    #: Table walks are coherent (IDR0.CTTW). They are without it, too: guest memory is shared with QEMU.
    coherent: bool = True
    #: Pages of the register map: "4K" or "64K".
    page_size: Literal["4K", "64K"] = "4K"
    #: Of the product, as IDR7 has it.
    version: str = "0.0"

    def __post_init__(self) -> None:
        def need(condition: bool, name: str, mend: str) -> None:
            if not condition:
                value = getattr(self, name)
                shown = str(value).lower() if isinstance(value, bool) else value
                raise UsageError(f"{name} is {shown}: {mend}")

        need(set(self.granules) <= set(GRANULES), "granules", f"granules are {', '.join(GRANULES)}")
        need(
            bool(self.granules) or self.aarch32 != "none", "granules",
            'no table format is left; give it granules, or aarch32 = "long"',
        )  # fmt: skip
        need(self.stage1 or self.stage2, "stage1", "one stage at least must be there; set stage1 or stage2 to true")
        need(
            not self.nested or (self.stage1 and self.stage2),
            "nested",
            "this needs both stages; add them, or leave it out",
        )
        for name in ("oas", "ias"):
            need(getattr(self, name) in SIZE_BITS, name, f"choose one of {', '.join(map(str, SIZE_BITS))}")
        need(self.bus_bits in BUS_BITS.values(), "bus_bits", f"choose one of {', '.join(map(str, BUS_BITS.values()))}")
        need(self.ias <= self.oas, "ias", "intermediate addresses wider than physical ones are not modelled; lower it")
        need(self.stage2 or self.ias == self.oas, "ias", "without stage 2 it equals oas")
        need(
            self.stage1 or min(self.bus_bits, 48) == self.ias,
            "bus_bits", "without stage 1 it equals ias (49, where that is 48); set both alike",
        )  # fmt: skip
        need(1 <= self.context_banks <= MOST, "context_banks", f"choose 1 to {MOST}")
        need(0 <= self.stage2_banks <= self.context_banks, "stage2_banks", "choose no more than context_banks")
        need(not self.stage2_banks or self.stage2, "stage2_banks", "these need stage 2; set stage2 to true")
        need(1 <= self.stream_groups <= MOST, "stream_groups", f"choose 1 to {MOST}")
        need(0 <= self.stream_id_bits <= 15, "stream_id_bits", "choose 0 to 15; extended_ids are 16")
        need(
            self.stream_matching or 1 << self.stream_id_bits <= self.stream_groups,
            "stream_id_bits", "StreamIDs are indices of stream_groups; have a group for each of them",
        )  # fmt: skip
        need(
            not self.extended_ids or (self.stream_matching and self.stream_id_bits == 15),
            "extended_ids", "this needs stream_matching and stream_id_bits = 15",
        )  # fmt: skip
        need(self.page_size in ("4K", "64K"), "page_size", 'choose "4K" or "64K"')
        major, dot, minor = self.version.partition(".")
        need(
            bool(dot) and major.isdecimal() and minor.isdecimal() and max(int(major), int(minor)) < 16,
            "version", "write it as MAJOR.MINOR, each from 0 to 15",
        )  # fmt: skip

    @property
    def page_bits(self) -> int:
        return 12 if self.page_size == "4K" else 16

    def id_registers(self) -> dict[type[Register], int]:
        """The ID registers' values."""
        major, _, minor = self.version.partition(".")
        codes = {bits: code for code, bits in BUS_BITS.items()}
        # Enough pages for global spaces 0 and 1 and what Linux takes to be there, and for all banks.
        pages = max(self.context_banks, 4)
        return {
            IDR0: IDR0.of(
                NUMSMRG=self.stream_groups,
                EXIDS=self.extended_ids,
                NUMSIDB=self.stream_id_bits,
                CTTW=self.coherent,
                NUMIRPT=1,
                PTFS=_AARCH32[self.aarch32],
                ATOSNS=self.stage1 and not self.translation_operations,
                SMS=self.stream_matching,
                NTS=self.nested,
                S2TS=self.stage2,
                S1TS=self.stage1,
            ).raw,
            IDR1: IDR1.of(
                NUMCB=self.context_banks,
                SMCD=self.stream_matching,
                NUMS2CB=self.stage2_banks,
                NUMPAGENDXB=(pages - 1).bit_length() - 1,
                PAGESIZE=self.page_size == "64K",
            ).raw,
            IDR2: IDR2.of(
                IAS=SIZE_BITS.index(self.ias),
                OAS=SIZE_BITS.index(self.oas),
                UBS=codes[self.bus_bits],
                PTFSv8_4kB="4K" in self.granules,
                PTFSv8_16kB="16K" in self.granules,
                PTFSv8_64kB="64K" in self.granules,
                VMID16S=self.vmid16,
            ).raw,
            IDR7: IDR7.of(MAJOR=int(major), MINOR=int(minor)).raw,
        }


#: Named beginnings of a feature table. Those of real parts are what their manuals describe, as far as the model goes.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # What Linux's driver takes for nobody's in particular: the defaults.
    "linux": {},
    "everything": {
        "context_banks": 16,
        "stage2_banks": 2,
        "stream_groups": 128,
        "extended_ids": True,
        "bus_bits": 64,
        "vmid16": True,
        "translation_operations": True,
    },
    # The least that is still an SMMUv2: one stage, one granule, one context, StreamIDs as indices.
    "minimal": {
        "granules": ("4K",),
        "aarch32": "none",
        "stage2": False,
        "nested": False,
        "oas": 32,
        "ias": 32,
        "bus_bits": 32,
        "context_banks": 1,
        "stream_matching": False,
        "stream_groups": 1,
        "stream_id_bits": 0,
        "stall": False,
        "coherent": False,
    },
    "mmu-500": {
        "context_banks": 16,
        "stream_groups": 48,
        "version": "2.4",
    },
}
