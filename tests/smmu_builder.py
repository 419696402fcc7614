# SPDX-License-Identifier: Apache-2.0
"""An SMMUv3 with a guest's memory around it: what a driver would set up, in one line each.

Law: software's side only. It writes tables, queues and registers as a guest does, and looks into the model nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from tests.pumped import Pumped
from vhost_iommu import _core
from vhost_iommu.layout import Layout, Register
from vhost_iommu.memory import Ended, Memory, Outside
from vhost_iommu.smmu.context import Context
from vhost_iommu.smmu.descriptors import (
    DescriptorType,
    S1LeafDescriptor,
    S2LeafDescriptor,
    TableDescriptor,
    span_shift,
)
from vhost_iommu.smmu.transaction import Answer, Outcome, Transaction
from vhost_iommu.smmu.v3 import Features, Smmu, events
from vhost_iommu.smmu.v3.commands import CMD_SYNC, Command
from vhost_iommu.smmu.v3.registers import (
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR2,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_PROD,
    GERROR,
    GERRORN,
    IDR5,
    IRQ_CTRL,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
)
from vhost_iommu.smmu.v3.structures import CD, STE, STE_CONFIG, TG0, TG1

R = TypeVar("R", bound=Register)

RAM_BASE = 0x4000_0000

#: How much higher RAM lies in the IPA space that ``Bench.nested`` makes, and where that has single pages beside it:
#: the CD's and the stage 1 start table's.
IPA_OFFSET = 1 << 36
IPA_OF_CD = 1 << 37
IPA_OF_TABLE = IPA_OF_CD + 0x10000


class Ram:
    """``size`` bytes of guest RAM at ``base``, given out piece by piece and never taken back."""

    def __init__(self, base: int = RAM_BASE, size: int = 4 << 20) -> None:
        self.base = base
        self.bytes = bytearray(size)
        self.memory = Memory((base, self.bytes))
        self._next = base

    def alloc(self, size: int, align: int | None = None) -> int:
        """Address of ``size`` zero bytes, by default aligned to their size rounded up to a power of two."""
        align = align or 1 << (size - 1).bit_length()
        at = -(-self._next // align) * align
        self._next = at + size
        assert self._next <= self.base + len(self.bytes), "the test's RAM is too small"
        return at

    def put(self, pa: int, value: Layout | bytes) -> None:
        data = value if isinstance(value, bytes) else value.to_bytes()
        assert self.memory.write(pa, data), f"{pa:#x} is no RAM"

    def get(self, pa: int, size: int) -> bytes:
        data = self.memory.read(pa, size)
        assert data is not None, f"{pa:#x} is no RAM"
        return data

    def put_u64(self, pa: int, value: int) -> None:
        self.put(pa, value.to_bytes(8, "little"))

    def get_u64(self, pa: int) -> int:
        return int.from_bytes(self.get(pa, 8), "little")


class PageTable:
    """A table of either stage in ``ram``; addresses of stage 1's upper half count like the lower half's.

    A stage 2 table may start at any ``start_level`` whose up to 16 concatenated tables cover the input, by default
    at the last such. With ``seen_at`` its addresses are IPAs: RAM lies that much higher there. ``lpa2`` says that
    leaves hold 52 bits.
    """

    def __init__(
        self,
        ram: Ram,
        granule_bits: int = 12,
        input_bits: int = 48,
        *,
        stage: Literal[1, 2] = 1,
        start_level: int | None = None,
        big_endian: bool = False,
        lpa2: bool = False,
        seen_at: int = 0,
    ) -> None:
        self.ram = ram
        self.granule_bits = granule_bits
        self.input_bits = input_bits
        self.stage = stage
        self.lpa2 = lpa2
        self.seen_at = seen_at
        self.byteorder: Literal["big", "little"] = "big" if big_endian else "little"
        # One level per stride of address bits, counted up from the page (Arm ARM D8.2).
        resolved = input_bits - granule_bits - (4 if stage == 2 else 0)
        last = min(4 - -(-resolved // (granule_bits - 3)), 3)
        self.start_level = last if start_level is None else start_level
        top = input_bits - span_shift(granule_bits, self.start_level)
        self.at = ram.alloc(8 << top, max(8 << top, 64))

    @property
    def root(self) -> int:
        """The start level's table, as whoever walks it sees it."""
        return self.at + self.seen_at

    def map(self, iova: int, pa: int, size: int | None = None, level: int = 3, **leaf: int) -> None:
        """Map ``size`` bytes (by default one leaf) in leaves of ``level``: readable and writable by all unless
        ``leaf`` says otherwise."""
        span = 1 << span_shift(self.granule_bits, level)
        kind = DescriptorType.TABLE_OR_PAGE if level == 3 else DescriptorType.BLOCK
        for offset in range(0, size or span, span):
            values: dict[str, int] = {"TYPE": kind, "AF": 1, "SH": 3}
            if self.stage == 1:
                raw = S1LeafDescriptor.of(**{**values, "AP": 1, "nG": 1, **leaf}).raw
            else:
                raw = S2LeafDescriptor.of(**{**values, "S2AP": 3, "MemAttr": 0b1111, **leaf}).raw
            self.write(self.entry(iova + offset, level), self.with_address(raw, pa + offset))

    def with_address(self, raw: int, output: int) -> int:
        """``raw`` with the 52 bits of ``output`` where this table's descriptors keep them."""
        if self.lpa2:
            return raw & ~0x300 | output & (1 << 50) - 1 | (output >> 50 & 3) << 8
        return raw | output & (1 << 48) - 1 | (output >> 48) << 12

    def unmap(self, iova: int, level: int = 3) -> None:
        self.write(self.entry(iova, level), 0)

    def entry(self, iova: int, level: int = 3) -> int:
        """Where in RAM the descriptor for ``iova`` at ``level`` is; the tables on the way are made if need be."""
        table = self.at
        offset = iova & (1 << self.input_bits) - 1
        for at_level in range(self.start_level, 4):
            shift = span_shift(self.granule_bits, at_level)
            index = offset >> shift
            if at_level > self.start_level:
                index &= (1 << self.granule_bits - 3) - 1
            at = table + 8 * index
            if at_level == level:
                return at
            found = self.read(at)
            if not found & 1:
                below = self.ram.alloc(1 << self.granule_bits) + self.seen_at
                found = TableDescriptor.of(TYPE=3, NextTable=below).raw
                self.write(at, found)
            table = (found & (1 << 48) - (1 << self.granule_bits)) - self.seen_at
        raise AssertionError(f"level {level} is above the start level {self.start_level}")

    def change(self, iova: int, level: int, **fields: int) -> None:
        """Change fields of the descriptor at ``level``: a leaf's, or a table's (APTable, UXNTable, PXNTable)."""
        at = self.entry(iova, level)
        raw = self.read(at)
        leaf = S1LeafDescriptor if self.stage == 1 else S2LeafDescriptor
        table = level < 3 and raw & 2
        self.write(at, (TableDescriptor(raw) if table else leaf(raw)).replace(**fields).raw)

    def read(self, at: int) -> int:
        return int.from_bytes(self.ram.get(at, 8), self.byteorder)

    def write(self, at: int, raw: int) -> None:
        self.ram.put(at, raw.to_bytes(8, self.byteorder))


class Bench:
    """An SMMU that a driver has just enabled: queues, a linear stream table of invalid STEs, translation on.

    ``features`` are keywords of ``Features``; ``options`` go to ``Smmu``. ``start=False`` leaves every register at
    its reset value; ``start()`` does the rest. ``pumped``: registers are accessed as the compiled pump has it.
    """

    def __init__(
        self,
        features: Mapping[str, Any] | None = None,
        *,
        ram: Ram | None = None,
        start: bool = True,
        sid_bits: int = 6,
        command_bits: int = 8,
        event_bits: int = 4,
        pumped: bool = False,
        **options: Any,
    ) -> None:
        if pumped:
            door = _core.built()
            assert door is not None
            options["lock"] = door.Lock()
        self.ram = ram or Ram()
        #: Wired interrupts by source, in order; and posted writes that left RAM (such as MSIs): (address, data).
        self.wires: list[str] = []
        self.posted: list[tuple[int, bytes]] = []
        #: What becomes of a posted write: None aborts it at once.
        self.doorbell: Outside | None = self._posted
        self.ram.memory.outside = lambda pa, data, ended: self.doorbell is not None and self.doorbell(pa, data, ended)
        options.setdefault("interrupt", self.wires.append)
        self.smmu = Smmu(self.ram.memory, None if features is None else Features(**features), **options)
        self.mirror: Pumped | None = None
        if pumped:
            self.mirror = Pumped(self.smmu)
        self.sid_bits, self.command_bits, self.event_bits = sid_bits, command_bits, event_bits
        self.strtab = self.ram.alloc(STE.size << sid_bits)
        self.cmdq = self.ram.alloc(max(Command.size << command_bits, 32))
        self.eventq = self.ram.alloc(events.Event.size << event_bits)
        if start:
            self.start()

    def _posted(self, pa: int, data: bytes, ended: Ended) -> bool:
        self.posted.append((pa, data))
        ended(False)
        return True

    # -- registers -------------------------------------------------------------------------------------------

    def __getitem__(self, register: type[R]) -> R:
        """The register as software reads it."""
        value = None if self.mirror is None else self.mirror.load(register.at, register.size)
        return register(self.smmu.read(register.at, register.size) if value is None else value)

    def __setitem__(self, register: type[Register], value: Register | int) -> None:
        """Write the register as software does, in one access."""
        if self.mirror is None or register.size != 4 or not self.mirror.carry_out(register.at, int(value)):
            self.smmu.write(register.at, register.size, int(value))

    def start(self, **enable: int) -> None:
        """What Linux does at probe; ``enable`` are further fields of CR0, such as SMMUEN=0."""
        self[CR2] = CR2.of(RECINVSID=1)
        self[STRTAB_BASE] = STRTAB_BASE.of(ADDR=self.strtab)
        self[STRTAB_BASE_CFG] = STRTAB_BASE_CFG.of(LOG2SIZE=self.sid_bits)
        self[CMDQ_BASE] = CMDQ_BASE.of(ADDR=self.cmdq, LOG2SIZE=self.command_bits)
        self[CMDQ_PROD] = self[CMDQ_CONS] = 0
        self[EVENTQ_BASE] = EVENTQ_BASE.of(ADDR=self.eventq, LOG2SIZE=self.event_bits)
        self[EVENTQ_PROD] = self[EVENTQ_CONS] = 0
        self[CR0] = CR0.of(**{"SMMUEN": 1, "EVENTQEN": 1, "CMDQEN": 1, **enable})

    def set(self, register: type[Register], **fields: int) -> None:
        """Read, change ``fields``, write."""
        self[register] = self[register].replace(**fields)

    def interrupts_on(self) -> None:
        self[IRQ_CTRL] = IRQ_CTRL.of(GERROR_IRQEN=1, EVENTQ_IRQEN=1)

    @property
    def active_errors(self) -> int:
        """GERROR bits that software has not acknowledged."""
        return self[GERROR].raw ^ self[GERRORN].raw

    def acknowledge(self) -> None:
        """Acknowledge all global errors."""
        self[GERRORN] = self[GERROR].raw

    # -- structures ------------------------------------------------------------------------------------------

    def ste(self, sid: int, **fields: int) -> int:
        """Write the STE of ``sid`` into the linear table: valid unless ``fields`` say otherwise. Its address."""
        at = self.strtab + sid * STE.size
        self.ram.put(at, STE.of(**{"V": 1, **fields}))
        return at

    def cd(
        self, at: int | None = None, table: PageTable | None = None, high: PageTable | None = None, **fields: int
    ) -> int:
        """Write a CD that walks ``table`` (TTB0) and ``high`` (TTB1), as far as given. Its address."""
        values: dict[str, int] = {"V": 1, "AA64": 1, "A": 1, "R": 1, "ASID": 1, "EPD0": 1, "EPD1": 1}
        values["IPS"] = self[IDR5].OAS
        if table is not None:
            granule = next(each for each in TG0 if each.shift == table.granule_bits)
            values |= {"EPD0": 0, "TTB0": table.root, "T0SZ": 64 - table.input_bits, "TG0": granule}
        if high is not None:
            granule1 = next(each for each in TG1 if each.shift == high.granule_bits)
            values |= {"EPD1": 0, "TTB1": high.root, "T1SZ": 64 - high.input_bits, "TG1": granule1}
        at = self.ram.alloc(CD.size) if at is None else at
        self.ram.put(at, CD.of(**{**values, **fields}))
        return at

    def stream(
        self, sid: int = 0, *, table: PageTable | None = None, cd: Mapping[str, int] | None = None, **ste: int
    ) -> PageTable:
        """Let ``sid`` translate by ``table``, by default an empty one of 4 KiB pages, and return that."""
        table = table or PageTable(self.ram)
        at = self.cd(None, table, None, **(cd or {}))
        self.ste(sid, **{"Config": STE_CONFIG.S1, "S1ContextPtr": at, **ste})
        return table

    def stage2_fields(self, table: PageTable, **ste: int) -> dict[str, int]:
        """The fields of an STE whose stage 2 walks ``table`` and records its faults."""
        sl0 = (2 - table.start_level) & 3 if table.granule_bits == 12 else 3 - table.start_level
        values: dict[str, int] = {
            "S2TTB": table.root,
            "S2T0SZ": 64 - table.input_bits,
            "S2SL0": sl0,
            "S2TG": next(each for each in TG0 if each.shift == table.granule_bits),
            "S2PS": self[IDR5].OAS,
            "S2AA64": 1,
            "S2R": 1,
            "S2DS": table.lpa2,
            "S2VMID": 1,
        }
        if table.granule_bits == 12 and table.start_level == -1:
            values |= {"S2SL0": 0, "S2SL0_2": 1}
        return {**values, **ste}

    def stage2(self, sid: int = 0, *, table: PageTable | None = None, **ste: int) -> PageTable:
        """Let ``sid`` translate by stage 2 alone, by default an empty table of 4 KiB pages, and return that."""
        table = table or PageTable(self.ram, input_bits=40, stage=2)
        self.ste(sid, **{"Config": STE_CONFIG.S2, **self.stage2_fields(table, **ste)})
        return table

    def nested(
        self, sid: int = 0, *, cd: Mapping[str, int] | None = None, writable: bool = True, **ste: int
    ) -> tuple[PageTable, PageTable]:
        """Let ``sid`` translate by both stages, and return their tables.

        IPAs are RAM's addresses plus IPA_OFFSET (in blocks; stage 1 tables are there), but the CD's page is at
        IPA_OF_CD and the stage 1 start table's at IPA_OF_TABLE, in pages of their own.
        """
        second = PageTable(self.ram, input_bits=40, stage=2)
        first = PageTable(self.ram, input_bits=39, seen_at=IPA_OFFSET)
        ram = self.ram
        second.map(ram.base + IPA_OFFSET, ram.base, len(ram.bytes), level=2, S2AP=3 if writable else 1)
        second.map(IPA_OF_TABLE, first.at)
        at = ram.alloc(0x1000)
        second.map(IPA_OF_CD, at)
        self.cd(at, first, None, **{"TTB0": IPA_OF_TABLE, **(cd or {})})
        fields = self.stage2_fields(second, **{"Config": STE_CONFIG.NESTED, "S1ContextPtr": IPA_OF_CD, **ste})
        self.ste(sid, **fields)
        return first, second

    # -- use -------------------------------------------------------------------------------------------------

    def know(self, sid: int) -> None:
        """Have requests find the stream's context by themselves, as they do after its first one."""
        context = self.smmu.configuration.lookup(sid, None)
        assert isinstance(context, Context)
        self.smmu.configuration.publish(sid, None, context)

    def translate(self, iova: int, size: int = 1, sid: int = 0, **transaction: Any) -> Answer:
        return self.smmu.translate(Transaction(sid, iova, size, **transaction))

    def pa(self, iova: int, sid: int = 0, **transaction: Any) -> int | None:
        """Where one byte goes; None when it does not."""
        answer = self.translate(iova, 1, sid, **transaction)
        return answer.pieces[0].pa if answer.outcome is Outcome.OK else None

    def place(self, *commands: Command | int) -> int:
        """Write commands behind those submitted and return the new PROD, which the SMMU is not told of."""
        prod = self[CMDQ_PROD].WR
        for command in commands:
            slot = prod & (1 << self.command_bits) - 1
            self.ram.put(self.cmdq + Command.size * slot, int(command).to_bytes(Command.size, "little"))
            prod = prod + 1 & (2 << self.command_bits) - 1
        return prod

    def submit(self, *commands: Command | int) -> None:
        """Queue commands and tell the SMMU of them."""
        self[CMDQ_PROD] = self.place(*commands)

    def invalidate(self, *commands: Command | int) -> None:
        """Submit commands and a CMD_SYNC, all of which must be consumed without an error."""
        self.submit(*commands, CMD_SYNC.of())
        assert self[CMDQ_CONS].RD == self[CMDQ_PROD].WR, f"the queue stopped: {self[CMDQ_CONS]}"

    def events(self) -> list[events.Event]:
        """Take all records from the event queue."""
        found = []
        prod, cons = self[EVENTQ_PROD].WR, self[EVENTQ_CONS]
        rd = cons.RD
        while rd != prod:
            slot = self.eventq + events.Event.size * (rd & (1 << self.event_bits) - 1)
            found.append(events.decode(self.ram.get(slot, events.Event.size)))
            rd = rd + 1 & (2 << self.event_bits) - 1
        self[EVENTQ_CONS] = cons.replace(RD=rd)
        return found
