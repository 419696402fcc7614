# SPDX-License-Identifier: Apache-2.0
"""An SMMUv2 with a guest's memory around it: what a driver would set up, in one line each.

Law: software's side only. It writes tables and registers as a guest does, and looks into the model nowhere.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from tests.smmu_builder import PageTable, Ram
from vhost_iommu.layout import Register
from vhost_iommu.smmu.transaction import Answer, Transaction
from vhost_iommu.smmu.v2 import Features, Smmu
from vhost_iommu.smmu.v2 import registers as r

R = TypeVar("R", bound=Register)

SID = 5
IOVA = 0x7_1234_5000
#: What Linux makes of MAIR: attribute 0 non-cacheable, 1 write-back, 2 Device.
MAIR = 0x0004_FF44
GRANULES = {12: (0, 2), 14: (2, 1), 16: (1, 3)}  # TG0, TG1


class Bench:
    """An enabled SMMUv2, on which unknown streams fault; ``pure`` as of ``Smmu``."""

    def __init__(self, features: Features | None = None, *, pure: bool | None = True, **more: Any) -> None:
        self.ram = Ram()
        self.pulses: list[str] = []
        self.levels: list[bool] = []
        self.smmu = Smmu(self.ram.memory, features, pure=pure, interrupt=self.pulses.append, **more)
        self.smmu.on_level(self.levels.append)
        self.enable()

    def enable(self, **values: int) -> None:
        self.set(r.CR0, **{"GFRE": 1, "GFIE": 1, "USFCFG": 1, "SMCFCFG": 1, **values})

    # -- registers -------------------------------------------------------------------------------------------

    def offset(self, register: type[Register], index: int = 0) -> int:
        return self.smmu.registers.offset(register, index)

    def write(self, register: type[Register], value: int = 0, index: int = 0) -> None:
        self.smmu.write(self.offset(register, index), register.size, value)

    def set(self, register: type[Register], index: int = 0, **values: int) -> None:
        self.write(register, register.of(**values).raw, index)

    def read(self, register: type[R], index: int = 0) -> R:
        return register(self.smmu.read(self.offset(register, index), register.size))

    # -- streams and banks -----------------------------------------------------------------------------------

    def stream(self, sid: int = SID, bank: int = 0, group: int = 0, mask: int = 0, **values: int) -> None:
        """Group ``group`` matches ``sid`` and leads to ``bank``, unless ``values`` of S2CR say otherwise."""
        self.set(r.SMR, group, ID=sid, MASK=mask, VALID=1)
        self.set(r.S2CR, group, **{"CBNDX": bank, **values})

    def table(self, granule_bits: int = 12, input_bits: int = 39, **more: Any) -> PageTable:
        return PageTable(self.ram, granule_bits, input_bits, **more)

    def stage1(
        self, table: PageTable, bank: int = 0, *, asid: int = 0x11, vmid: int = 1, second: int | None = None,
        tcr: dict[str, int] | None = None, tcr2: dict[str, int] | None = None, **sctlr: int,
    ) -> None:  # fmt: skip
        """A bank of AArch64 stage 1, by TTBR0; ``second``: the bank of stage 2."""
        self.set(r.CBA2R, bank, VA64=1)
        if second is None:
            self.set(r.CBAR, bank, TYPE=1, VMID=vmid, MemAttr=0xF, BPSHCFG=3)
        else:
            self.write(r.CBAR, r.CBAR.of(TYPE=3, VMID=vmid).raw | second << 8, bank)
        tg0, _ = GRANULES[table.granule_bits]
        self.set(r.CB_TCR2, bank, **{"SEP": 7, "AS": 1, "PASize": 5, **(tcr2 or {})})
        self.set(r.CB_TCR, bank, **{"T0SZ": 64 - table.input_bits, "TG0": tg0, "EPD1": 1, **(tcr or {})})
        self.write(r.CB_TTBR0, table.at | asid << 48, bank)
        self.write(r.CB_MAIR0, MAIR, bank)
        self.set(r.CB_SCTLR, bank, **{"M": 1, "CFRE": 1, "CFIE": 1, "AFE": 1, "TRE": 1, **sctlr})

    def stage2(self, table: PageTable, bank: int = 0, *, vmid: int = 1, **sctlr: int) -> None:
        """A bank of AArch64 stage 2."""
        tg0, _ = GRANULES[table.granule_bits]
        self.set(r.CBA2R, bank, VA64=1)
        self.set(r.CBAR, bank, TYPE=0, VMID=vmid)
        sl0 = (2 if table.granule_bits == 12 else 3) - table.start_level
        tcr = r.CB_TCR.of(T0SZ=64 - table.input_bits, TG0=tg0).raw | sl0 << 6 | 5 << 16
        self.write(r.CB_TCR, tcr, bank)
        self.write(r.CB_TTBR0, table.at, bank)
        self.set(r.CB_SCTLR, bank, **{"M": 1, "CFRE": 1, "CFIE": 1, **sctlr})

    # -- transactions ----------------------------------------------------------------------------------------

    def translate(self, iova: int = IOVA, size: int = 4, **more: Any) -> Answer:
        return self.smmu.translate(Transaction(more.pop("sid", SID), iova, size, **more))

    def pa(self, iova: int = IOVA, **more: Any) -> int | None:
        """Where an access goes; None: it ended otherwise."""
        answer = self.translate(iova, **more)
        return answer.pieces[0].pa if answer.pieces else None

    def page(self, size: int = 4096) -> int:
        return self.ram.alloc(size)


Way = Literal["reference", "core"]
