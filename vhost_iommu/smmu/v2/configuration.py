# SPDX-License-Identifier: Apache-2.0
"""From StreamID to what becomes of it: stream mapping, context banks, and the contexts that they make (IHI 0062D §2).

Law: registers take effect at once, so what is made of them is kept only until one of them is written. What has no
meaning in the architecture has the one that is said here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ...register_file import RegisterFile
from ...sealed import Sealed, declared
from ..context import Context, HalfContext, Published, Response, Stage1, Stage2
from ..memory_type import MemoryType, Shareability, from_memattr
from ..walk import Descriptors, Fault, FaultKind, LongTable, Mapping, Regime, Table, aligned_base, start_level
from ..walk_short import Remap, ShortTable
from .identity import stream_bits
from .registers import (
    BUS_BITS,
    CB_CONTEXTIDR,
    CB_FSR,
    CB_MAIR0,
    CB_MAIR1,
    CB_SCTLR,
    CB_TCR,
    CB_TCR2,
    CB_TTBR0,
    CB_TTBR1,
    CBA2R,
    CBAR,
    CR0,
    FAULTS,
    GFSR,
    IDR0,
    IDR1,
    IDR2,
    S2CR,
    SIGN_BITS,
    SIZE_BITS,
    SMR,
    BankType,
    StreamType,
)

#: Worlds of TLB entries: that of stage 2 is stages.STAGE2_WORLD.
NON_SECURE, HYPERVISOR = 1, 2

#: Streams that are kept, so that memory is not the guest's to choose.
CAPACITY = 1024

_GRANULES0, _GRANULES1 = {0: 12, 1: 16, 2: 14}, {1: 14, 2: 12, 3: 16}
_SIZES = (16, 39)  # of AArch64's TxSZ
#: S2CR.SHCFG, CR0.SHCFG and SCTLR.SHCFG as ``Context.overrides`` has them.
_OVERRIDES = {0: 1, 1: 2, 2: 3, 3: 0}
_SHAREABILITY = {0: Shareability.NON, 1: Shareability.OUTER, 2: Shareability.INNER, 3: Shareability.NON}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A global fault: which bit of GFSR, and whether it is one of a context bank."""

    status: int
    nested: bool = False


@dataclass(frozen=True, slots=True)
class Bypass:
    """The address passes, and attributes are what ``context`` makes of them."""

    context: Context


@dataclass(frozen=True, slots=True)
class Banks:
    """A translation: its context, and the banks that it was made of."""

    context: Context
    first: int
    second: int | None  #: stage 2's, if the first is stage 1's and there is one
    stage2_first: bool  #: the first is stage 2's
    aarch64: bool  #: of the first
    sign: int | None  #: addresses are extended from this bit
    published: bool  #: requests may find it by themselves
    after: MemoryType | None  #: what a bypassed, or disabled, stage 2 makes of the memory type

    @property
    def last(self) -> int:
        """The bank of stage 2's faults, and of external ones."""
        return self.first if self.second is None else self.second


Found: TypeAlias = Refusal | Bypass | Banks


@dataclass(frozen=True, slots=True)
class Faulty:
    """A table that faults whatever is asked of it."""

    kind: FaultKind
    stage: int
    input_bits: int

    start_level: ClassVar[int] = 0
    big_endian: ClassVar[bool] = False
    descriptor_size: ClassVar[int] = 8

    def shift(self, level: int) -> int:
        return self.input_bits

    def walk(self, address: int, descriptors: Descriptors) -> Mapping | Fault:
        return Fault(self.kind, 0, self.stage)

    def mark_dirty(self, mapping: Mapping, descriptors: Descriptors) -> Mapping | Fault | None:
        return None


@declared
class Configuration(Sealed):
    """What becomes of the streams of one SMMU."""

    OPEN = frozenset({"hits", "misses", "_found"})

    def __init__(self, registers: RegisterFile, published: Published | None = None) -> None:
        self.registers = registers
        self._published = published
        self.idr0, self.idr1, self.idr2 = registers[IDR0], registers[IDR1], registers[IDR2]
        self.oas = SIZE_BITS[min(self.idr2.OAS, 5)]
        self.ias = min(SIZE_BITS[min(self.idr2.IAS, 5)], self.oas)
        self.bus = BUS_BITS.get(self.idr2.UBS, 64)
        self.banks, self.groups = min(self.idr1.NUMCB, 128), min(self.idr0.NUMSMRG, 128)
        have = ((12, self.idr2.PTFSv8_4kB), (14, self.idr2.PTFSv8_16kB), (16, self.idr2.PTFSv8_64kB))
        self.granules = tuple(bits for bits, there in have if there)
        self.hits = 0
        self.misses = 0
        self._found: dict[int, Found] = {}

    def forget(self) -> None:
        """A register was written that contexts are made of."""
        self._found.clear()
        if self._published is not None:
            self._published.withdraw_streams(0, (1 << 32) - 1)

    def contexts(self) -> Iterator[tuple[int, None, Context]]:
        """Each that is kept."""
        for sid, found in self._found.items():
            if not isinstance(found, Refusal):
                yield sid, None, found.context

    def lookup(self, sid: int) -> Found:
        found = self._found.get(sid)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        if len(self._found) >= CAPACITY:
            del self._found[next(iter(self._found))]
        found = self._found[sid] = self._lookup(sid)
        return found

    def publish(self, sid: int, ssid: int | None, found: Found) -> None:
        """Have requests find it, unless faults of its banks are in their way."""
        if self._published is None or isinstance(found, Refusal):
            return
        if isinstance(found, Banks):
            if not found.published:
                return
            for bank in {found.first, found.last}:
                if self.fault_set(bank) and not self.registers[CB_SCTLR, bank].HUPCF:
                    return
        self._published.publish(sid, ssid, found.context)

    def fault_set(self, bank: int) -> bool:
        """Whether the bank has recorded a fault (§3.7.3)."""
        return bool(self.registers.raw(CB_FSR, bank) & FAULTS)

    # -- streams (§2.3) --------------------------------------------------------------------------------------

    def matches(self, sid: int) -> list[int]:
        """The groups that match; one that does not exist is none."""
        if not self.idr0.SMS:
            return [sid] if sid < self.groups else []
        sid &= (1 << stream_bits(self.idr0)) - 1
        return [group for group in range(self.groups) if self._matches(group, sid)]

    def _matches(self, group: int, sid: int) -> bool:
        smr = self.registers[SMR, group]
        if self.registers[CR0].EXIDENABLE:
            return bool(self.registers[S2CR, group].EXIDVALID) and not (sid ^ smr.EXID) & ~smr.EXMASK
        return bool(smr.VALID) and not (sid ^ smr.ID) & ~smr.MASK

    def _lookup(self, sid: int) -> Found:
        cr0 = self.registers[CR0]
        if cr0.CLIENTPD:
            return self.bypassed()
        groups = self.matches(sid)
        if not groups:
            return Refusal(GFSR.USF.mask) if cr0.USFCFG else self.bypassed()
        if len(groups) > 1:
            return Refusal(GFSR.SMCF.mask) if cr0.SMCFCFG else self.bypassed()
        s2cr = self.registers[S2CR, groups[0]]
        if s2cr.TYPE == StreamType.BYPASS:
            return Bypass(self._context(NON_SECURE, 0, overrides=(bool(s2cr.MTCFG), s2cr.MemAttr, s2cr.SHCFG)))
        if s2cr.TYPE != StreamType.TRANSLATE:
            return Refusal(GFSR.ICF.mask)
        return self.bank(s2cr.CBNDX, s2cr)

    def bypassed(self) -> Bypass:
        """What bypasses the stream mapping table."""
        cr0 = self.registers[CR0]
        return Bypass(self._context(NON_SECURE, 0, overrides=(bool(cr0.MTCFG), cr0.MemAttr, cr0.SHCFG)))

    # -- banks (§2.6, §3.8.4) --------------------------------------------------------------------------------

    def bank(self, first: int, s2cr: S2CR) -> Refusal | Banks:
        """The translation that begins with a bank, in the order of §3.8.4's checks."""
        registers, idr0 = self.registers, self.idr0
        if first >= self.banks:
            return Refusal(GFSR.UCBF.mask)
        cbar = registers[CBAR, first]
        kind = cbar.TYPE
        supported = {BankType.S2: idr0.S2TS, BankType.S1_S2_BYPASS: idr0.S1TS, BankType.NESTED: idr0.NTS}
        if not supported.get(BankType(kind), 0) or (first < self.idr1.NUMS2CB and kind != BankType.S2):
            return Refusal(GFSR.ICF.mask, nested=True)
        second = None
        aarch64 = bool(registers[CBA2R, first].VA64)
        if kind == BankType.NESTED:
            second = cbar.CBNDX
            if second >= self.banks:
                return Refusal(GFSR.UCBF.mask, nested=True)
            if registers[CBAR, second].TYPE != BankType.S2 or (aarch64 and not registers[CBA2R, second].VA64):
                return Refusal(GFSR.ICF.mask, nested=True)
        return self._banks(first, second, cbar, s2cr, aarch64)

    def _banks(self, first: int, second: int | None, cbar: CBAR, s2cr: S2CR, aarch64: bool) -> Banks:
        sctlr = self.registers[CB_SCTLR, first]
        stage2_first = cbar.TYPE == BankType.S2
        hypervisor = cbar.TYPE == BankType.S1_S2_BYPASS and bool(cbar.HYPC)
        overrides = (bool(s2cr.MTCFG), s2cr.MemAttr, s2cr.SHCFG)
        stage1 = stage2 = after = None
        if stage2_first:
            second = None
        elif sctlr.M:
            stage1 = self._stage1(first, hypervisor, aarch64)
        else:
            overrides = _then(overrides, (bool(sctlr.MTCFG), sctlr.MemAttr, sctlr.SHCFG))
        if cbar.TYPE == BankType.S1_S2_BYPASS:
            after = from_memattr(_memattr(cbar.MemAttr), _SHAREABILITY[cbar.BPSHCFG or 1])
        else:
            last = first if second is None else second
            control = self.registers[CB_SCTLR, last]
            if control.M:
                stage2 = self._stage2(last)
            else:
                after = from_memattr(_memattr(control.MemAttr), _SHAREABILITY[control.SHCFG])
        sign = self._sign(first) if stage1 is not None and aarch64 and not hypervisor else None
        bypass_bits = self.oas if stage2_first else self.ias if aarch64 else min(32, self.ias)
        context = self._context(
            HYPERVISOR if hypervisor else NON_SECURE,
            0 if hypervisor else self.vmid(first if second is None else second),
            bypass_bits=bypass_bits,
            stage1=stage1,
            stage2=stage2,
            privileged=(None, False, False, True)[s2cr.PRIVCFG],
            instruction=(None, True, False, True)[s2cr.INSTCFG],
            overrides=overrides,
        )
        # A request that the core translates comes with the address that the bus would make of it.
        plain = sign in (None, 48) and (self.bus >= 49 or stage1 is None or stage1.halves[1] is None)
        return Banks(
            context, first, second, stage2_first, aarch64, sign, plain and walks_by_core(context), after
        )  # fmt: skip

    def vmid(self, bank: int) -> int:
        wide = self.registers[CR0].VMID16EN
        return self.registers[CBA2R, bank].VMID16 if wide else self.registers[CBAR, bank].VMID

    def _sign(self, bank: int) -> int | None:
        """Where the sign is; None: addresses are zero-extended, or come with 64 bits (§16.5.39)."""
        sep = self.registers[CB_TCR2, bank].SEP
        if sep < len(SIGN_BITS):
            return SIGN_BITS[sep] if SIGN_BITS[sep] < self.bus else None
        return 48 if self.bus == 49 else None

    def _context(
        self,
        world: int,
        vmid: int,
        *,
        overrides: tuple[bool, int, int],
        bypass_bits: int | None = None,
        stage1: Stage1 | None = None,
        stage2: Stage2 | None = None,
        privileged: bool | None = None,
        instruction: bool | None = None,
    ) -> Context:
        replaced, memattr, shcfg = overrides
        return Context(
            world,
            self.oas,
            self.oas if bypass_bits is None else bypass_bits,
            vmid=vmid,
            stage1=stage1,
            stage2=stage2,
            privileged=privileged,
            instruction=instruction,
            overrides=(replaced, _memattr(memattr), _OVERRIDES[shcfg]),
        )

    # -- stage 1 (chapter 16) --------------------------------------------------------------------------------

    def long(self, bank: int, hypervisor: bool, aarch64: bool) -> bool:
        """Whether a bank of stage 1 has long descriptors: the effective value of TCR.EAE."""
        return aarch64 or hypervisor or bool(self.registers[CB_TCR, bank].EAE)

    def _stage1(self, bank: int, hypervisor: bool, aarch64: bool) -> Stage1:
        registers = self.registers
        tcr, sctlr = registers[CB_TCR, bank], registers[CB_SCTLR, bank]
        return Stage1(
            halves=(
                self._half(bank, 0, hypervisor, aarch64),
                None if hypervisor else self._half(bank, 1, hypervisor, aarch64),
            ),
            regime=Regime(
                unprivileged=not hypervisor,
                wxn=bool(sctlr.WXN),
                uwxn=aarch64 or bool(sctlr.UWXN),
                execute_needs_read=not aarch64,
                xn_for_all=not aarch64,
            ),
            asid=0 if hypervisor else self.asid(bank, aarch64),
            aset=0,
            aarch32=not aarch64,
            sizes32=(tcr.T0SZ32, tcr.T1SZ32 if self.long(bank, False, aarch64) and not hypervisor else 0),
            response=Response(abort=bool(sctlr.CFRE)),
        )

    def asid(self, bank: int, aarch64: bool) -> int:
        """Of a bank's stage 1."""
        registers = self.registers
        tcr = registers[CB_TCR, bank]
        if not self.long(bank, False, aarch64):
            return registers[CB_CONTEXTIDR, bank].ASID
        asid = registers[CB_TTBR1, bank].ASID if tcr.A1 else registers[CB_TTBR0, bank].ASID
        return asid if aarch64 and registers[CB_TCR2, bank].AS else asid & 0xFF

    def _half(self, bank: int, high: int, hypervisor: bool, aarch64: bool) -> HalfContext | None:
        registers = self.registers
        tcr, tcr2, sctlr = registers[CB_TCR, bank], registers[CB_TCR2, bank], registers[CB_SCTLR, bank]
        if not self.long(bank, hypervisor, aarch64):
            return self._short_half(bank, high)
        if tcr.EPD1 if high else tcr.EPD0:
            return None
        ttbr = registers[CB_TTBR1, bank].ADDR if high else registers[CB_TTBR0, bank].ADDR
        if aarch64:
            txsz = tcr.T1SZ if high else tcr.T0SZ
            size, output = 64 - txsz, min(_pa_size(tcr2.PASize), self.ias)
            granule = self._granule(_GRANULES1.get(tcr.TG1) if high else _GRANULES0.get(tcr.TG0))
            if not _SIZES[0] <= txsz <= _SIZES[1]:
                return HalfContext(Faulty(FaultKind.TRANSLATION, 1, min(size, 56)), False, False)
        else:
            size, granule, output = 32 - (tcr.T1SZ32 if high else tcr.T0SZ32), 12, min(40, self.ias)
            ttbr &= (1 << 40) - 1
        level = start_level(granule, size)
        table: Table = LongTable(
            base=aligned_base(ttbr, granule, size, level, output),
            granule_bits=granule,
            input_bits=size,
            output_bits=output,
            start_level=level,
            big_endian=bool(sctlr.E),
            hierarchical=not (aarch64 and not hypervisor and (tcr2.HAD1 if high else tcr2.HAD0)),
            access_fault=not sctlr.AFFD,
            first_block_level=_first_block_level(granule),
            mair=registers.raw(CB_MAIR0, bank) | registers.raw(CB_MAIR1, bank) << 32,
        )
        if ttbr >> output:
            table = Faulty(FaultKind.ADDR_SIZE, 1, size)
        ignored = aarch64 and self.bus == 64 and bool(tcr2.TBI1 if high else tcr2.TBI0)
        return HalfContext(table, ignored, False)

    def _short_half(self, bank: int, high: int) -> HalfContext | None:
        """A table of short descriptors (§16.5.40); TTBR1's is always of 32 bits."""
        registers = self.registers
        tcr, sctlr = registers[CB_TCR, bank], registers[CB_SCTLR, bank]
        if tcr.PD1 if high else tcr.PD0:
            return None
        size = 32 if high else 32 - tcr.T0SZ32
        ttbr = registers.raw(CB_TTBR1 if high else CB_TTBR0, bank) & 0xFFFF_FFFF
        table = ShortTable(
            base=ttbr >> size - 18 << size - 18,
            input_bits=size,
            output_bits=min(40, self.ias),
            big_endian=bool(sctlr.E),
            access_flag=bool(sctlr.AFE),
            access_fault=not sctlr.AFFD,
            remap=Remap(registers.raw(CB_MAIR0, bank), registers.raw(CB_MAIR1, bank)) if sctlr.TRE else None,
        )
        return HalfContext(table, False, False)

    def _granule(self, bits: int | None) -> int:
        """The granule asked for; the smallest that there is in place of one that is reserved or not implemented."""
        return bits if bits in self.granules and bits is not None else min(self.granules, default=12)

    # -- stage 2 (chapter 17) --------------------------------------------------------------------------------

    def _stage2(self, bank: int) -> Stage2:
        registers = self.registers
        tcr, sctlr = registers[CB_TCR, bank], registers[CB_SCTLR, bank]
        aarch64 = bool(registers[CBA2R, bank].VA64)
        if aarch64:
            granule = self._granule(_GRANULES0.get(tcr.TG0))
            size, output = 64 - tcr.T0SZ, min(_pa_size(tcr.PASize), self.oas)
            legal = _SIZES[0] <= tcr.T0SZ <= _SIZES[1] and tcr.SL0 < 3
        else:
            granule, output = 12, min(40, self.oas)
            size = 32 - (tcr.S2T0SZ32 - 16 if tcr.S2T0SZ32 & 8 else tcr.S2T0SZ32)
            legal = tcr.SL0 < 2
        level = (2 if granule == 12 else 3) - tcr.SL0
        resolved = size - (granule + (granule - 3) * (3 - level))  # by the first table, or up to 16 of them
        ttbr = registers[CB_TTBR0, bank].ADDR & (1 << (48 if aarch64 else 40)) - 1
        table: Table
        if not legal or not 1 <= resolved <= granule - 3 + 4:
            table = Faulty(FaultKind.TRANSLATION, 2, min(size, 56))
        elif ttbr >> output:
            table = Faulty(FaultKind.ADDR_SIZE, 2, size)
        else:
            table = LongTable(
                base=aligned_base(ttbr, granule, size, level, output),
                granule_bits=granule,
                input_bits=size,
                output_bits=output,
                start_level=level,
                stage=2,
                big_endian=bool(sctlr.E),
                access_fault=not sctlr.AFFD,
                first_block_level=_first_block_level(granule),
            )
        return Stage2(
            table,
            protected_walks=bool(sctlr.PTW),
            forced_writeback=False,
            two_bit_xn=False,
            response=Response(abort=bool(sctlr.CFRE)),
            execute_needs_read=not aarch64,
        )


def walks_by_core(context: Context) -> bool:
    """Whether the compiled core walks all of a context's tables."""
    halves = () if context.stage1 is None else context.stage1.halves
    tables = [half.table for half in halves if half is not None]
    if context.stage2 is not None:
        tables.append(context.stage2.table)
    return all(isinstance(table, LongTable) for table in tables)


def _then(before: tuple[bool, int, int], after: tuple[bool, int, int]) -> tuple[bool, int, int]:
    """One override behind another."""
    replaced, memattr = after[:2] if after[0] else before[:2]
    return replaced, memattr, after[2] or before[2]


def _memattr(bits: int) -> int:
    """MemAttr, of which what is reserved is Device-nGnRnE (§2.4.1)."""
    return bits if bits & 3 or not bits >> 2 else 0


def _pa_size(code: int) -> int:
    return SIZE_BITS[min(code, 5)]


def _first_block_level(granule: int) -> int:
    return 1 if granule == 12 else 2
