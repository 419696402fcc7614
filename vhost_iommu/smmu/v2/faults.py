# SPDX-License-Identifier: Apache-2.0
"""Faults: how they are recorded, how they end, and transactions that wait (IHI 0062D chapter 3).

Law: whoever calls holds the instance's lock. A status register has the first fault whole, and of those that follow
only MULTI, until software clears it. A bank has one stalled transaction that is recorded; others wait behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...register_file import RegisterFile
from ...watch import Watch
from ..counters import StoreCounters
from ..seams import Seams
from ..transaction import Answer, Outcome, Stall, Transaction
from ..waiting import Waiting
from ..walk import Access, Cause, Fault, FaultKind
from .configuration import Banks, Configuration, Refusal
from .interrupts import GLOBAL, Interrupts, context_line
from .records import ContextFault, GlobalFault
from .registers import (
    CB_FAR,
    CB_FSR,
    CB_FSYNR0,
    CB_FSYNR1,
    CB_IPAFAR,
    CB_SCTLR,
    CBA2R,
    CBAR,
    CBFRSYNRA,
    CR0,
    GFAR,
    GFSR,
    GFSYNR0,
    GFSYNR1,
    GFSYNR2,
    BankType,
)

#: Which bit of FSR a fault sets.
STATUS = {
    FaultKind.TRANSLATION: CB_FSR.TF.mask,
    FaultKind.ADDR_SIZE: CB_FSR.ASF.mask,
    FaultKind.ACCESS: CB_FSR.AFF.mask,
    FaultKind.PERMISSION: CB_FSR.PF.mask,
    FaultKind.WALK_EABT: CB_FSR.EF.mask,
    FaultKind.TLB_CONFLICT: CB_FSR.TLBMCF.mask,
}

_OTHERS_WAIT = "another of its context bank is stalled, and has no RESUME"


class Faults(Waiting):
    """The faults of one SMMU."""

    OPEN = frozenset({"_begun", "_retrying", "waiting"})

    def __init__(
        self,
        registers: RegisterFile,
        configuration: Configuration,
        interrupts: Interrupts,
        counters: StoreCounters,
        clock: Callable[[], float],
        retranslate: Callable[[Transaction], Answer],
        watch: Watch,
        seams: Seams,
    ) -> None:
        """``retranslate`` translates a transaction once more."""
        self.registers = registers
        self.configuration = configuration
        self.interrupts = interrupts
        self.counters = counters
        self._clock = clock
        self._retranslate = retranslate
        self.watch = watch
        self._seams = seams
        self._begun = 0
        self._retrying: Stall | None = None
        #: By bank, those that wait for its RESUME; the first is the one that is recorded, if the bank is stalled.
        self.waiting: dict[int, list[Stall]] = {}

    def now(self) -> float:
        """By the clock that stalls are dated with."""
        return self._clock()

    def stalled(self) -> list[Stall]:
        return [stall for waiting in self.waiting.values() for stall in waiting]

    # -- global faults (§3.8) --------------------------------------------------------------------------------

    def refuse(self, t: Transaction, refused: Refusal, answer: Answer) -> None:
        """A transaction that has no context bank to record what is wrong."""
        self.counters.faults += 1
        answer.outcome = Outcome.ABORT if self.registers[CR0].GFRE else Outcome.RAZ_WI
        syndrome = GFSYNR0.of(Nested=refused.nested, WNR=t.write, PNU=t.privileged, IND=t.instruction and not t.write)
        self._record_global(refused.status, syndrome, t.sid, t.iova, answer)

    def _record_global(self, status: int, syndrome: GFSYNR0, sid: int, address: int, answer: Answer) -> None:
        registers = self.registers
        kept = not registers.raw(GFSR)
        raw = status if kept else status | GFSR.MULTI.mask
        sid &= 0xFFFF
        record = GlobalFault(raw | syndrome.raw << 32 | sid << 64 | (address & 2**64 - 1) << 128)
        if kept:
            registers[GFSR] = status
            registers[GFSYNR0] = syndrome
            registers[GFSYNR1] = sid
            registers[GFSYNR2] = 0
            registers[GFAR] = address & 2**64 - 1
        else:
            registers[GFSR] = registers.raw(GFSR) | GFSR.MULTI.mask
        self._tell(record, kept, answer)
        self.interrupts.recorded(GLOBAL)

    def refuse_operation(self, refused: Refusal) -> None:
        """An address translation operation whose second bank is none (§4.2.4): whose it was is not recorded."""
        self.counters.faults += 1
        syndrome = GFSYNR0.of(Nested=1, ATS=1)
        self._record_global(refused.status, syndrome, 0, 0, Answer())

    # -- context faults (§3.7) -------------------------------------------------------------------------------

    def in_the_way(self, banks: Banks, t: Transaction, answer: Answer) -> bool:
        """Whether a fault that a bank has recorded already decides of ``t`` (CheckForFaultsInBank of §3.7.3)."""
        for bank in (banks.first,) if banks.second is None else (banks.first, banks.second):
            if not self.configuration.fault_set(bank) or self.registers[CB_SCTLR, bank].HUPCF:
                continue
            if self.registers[CB_FSR, bank].SS:
                self._wait(bank, t, _OTHERS_WAIT, answer)
            else:
                self.end(bank, answer)
            return True
        return False

    def fault(
        self, banks: Banks, t: Transaction, done: int, access: Access, fault: Fault, level: int, answer: Answer
    ) -> None:
        """``t`` faulted behind its first ``done`` bytes."""
        # With two stages, external faults are of the second one's bank as well (§3.10).
        in_second = fault.stage == 2 or (banks.second is not None and fault.kind is FaultKind.WALK_EABT)
        bank = banks.last if in_second else banks.first
        self.context_fault(banks, bank, STATUS[fault.kind], t, done, access, level, answer, fault)

    def context_fault(
        self,
        banks: Banks,
        bank: int,
        status: int,
        t: Transaction,
        done: int,
        access: Access,
        level: int,
        answer: Answer,
        fault: Fault | None = None,
    ) -> None:
        """A fault of ``bank``, of ``t`` behind its first ``done`` bytes."""
        self.counters.faults += 1
        registers = self.registers
        left = t if not done else replace(t, iova=t.iova + done & 2**64 - 1, size=t.size - done)
        fsr = registers[CB_FSR, bank]
        control = registers[CB_SCTLR, bank]
        if self.configuration.fault_set(bank):
            if fsr.SS:
                self._wait(bank, left, _OTHERS_WAIT, answer)
                return
            if control.HUPCF:
                registers[CB_FSR, bank] = fsr.raw | CB_FSR.MULTI.mask
                record = self._record(banks, bank, status | CB_FSR.MULTI.mask, left, access, level, fault)
                self._tell(record, False, answer)
                self.interrupts.recorded(context_line(bank))
            self.end(bank, answer)
            return
        stalls = bool(control.CFCFG) and not registers[CR0].STALLD
        record = self._record(banks, bank, status | (CB_FSR.SS.mask if stalls else 0), left, access, level, fault)
        self._keep(bank, record)
        self._tell(record, True, answer)
        if not control.HUPCF:
            self.configuration.forget()  # requests find their contexts no more, and come here
        if stalls:
            self._wait(bank, left, f"context bank {bank} has no RESUME", answer, record)
        else:
            self.end(bank, answer)
        self.interrupts.recorded(context_line(bank))

    def operation_fault(
        self, banks: Banks, bank: int, t: Transaction, access: Access, fault: Fault, level: int, answer: Answer
    ) -> None:
        """A fault of stage 2's ``bank`` that an address translation operation met; it never stalls."""
        self.counters.faults += 1
        record = self._record(banks, bank, STATUS[fault.kind], t, access, level, fault).replace(ATOF=1)
        kept = not self.configuration.fault_set(bank)
        if kept:
            self._keep(bank, record)
            if not self.registers[CB_SCTLR, bank].HUPCF:
                self.configuration.forget()
        else:
            self.registers[CB_FSR, bank] = self.registers.raw(CB_FSR, bank) | CB_FSR.MULTI.mask
            record = record.replace(MULTI=1)
        self._tell(record, kept, answer)
        self.interrupts.recorded(context_line(bank))

    def end(self, bank: int, answer: Answer) -> None:
        answer.outcome = Outcome.ABORT if self.registers[CB_SCTLR, bank].CFRE else Outcome.RAZ_WI

    def _record(
        self, banks: Banks, bank: int, status: int, t: Transaction, access: Access, level: int, fault: Fault | None
    ) -> ContextFault:
        nested = banks.second is not None and bank == banks.second
        of_stage2 = nested or banks.stage2_first
        external = fault is not None and fault.kind is FaultKind.WALK_EABT
        ipa = 0
        if of_stage2:
            ipa = fault.ipa if fault is not None and nested else t.iova
        return ContextFault(
            status
            | self.format(bank) << CB_FSR.FORMAT.lsb
            | ContextFault.of(
                PLVL=level,
                NESTED=nested,
                S1PTWF=nested and fault is not None and (fault.cause is Cause.TT or fault.stage == 1),
                WNR=access.write,
                PNU=access.privileged,
                IND=access.instruction,
                NSATTR=of_stage2,
                PTWF=external,
                S1CBNDX=banks.first if nested else 0,
                FADDR=t.iova,
                SID=t.sid & 0xFFFF,
                CBNDX=bank,
                TYPE=self.registers[CBAR, bank].TYPE,
                IPA=ipa & 2**64 - 1,
            ).raw
        )

    def _keep(self, bank: int, record: ContextFault) -> None:
        registers = self.registers
        registers[CB_FSR, bank] = record.raw & 0xFFFF_FFFF
        registers[CB_FSYNR0, bank] = record.raw >> 32 & 0xFFFF_FFFF
        registers[CB_FSYNR1, bank] = 0
        registers[CB_FAR, bank] = record.FADDR
        registers[CBFRSYNRA, bank] = record.SID
        if record.TYPE == BankType.S2:
            registers[CB_IPAFAR, bank] = record.IPA

    def format(self, bank: int) -> int:
        """FSR.FORMAT: of the bank's tables as it is set up now."""
        if self.registers[CBA2R, bank].VA64:
            return 2
        cbar = self.registers[CBAR, bank]
        hypervisor = cbar.TYPE == BankType.S1_S2_BYPASS and bool(cbar.HYPC)
        return int(cbar.TYPE == BankType.S2 or self.configuration.long(bank, hypervisor, False))

    def _tell(self, record: ContextFault | GlobalFault, kept: bool, answer: Answer) -> None:
        self.counters.fault_made(record, kept=kept)
        answer.events.append(record)
        if self.watch.on:
            self.watch.reported(record, kept=kept)

    # -- stalls (§3.7.3, §16.5.28) ---------------------------------------------------------------------------

    def _wait(self, bank: int, t: Transaction, waits: str, answer: Answer, record: ContextFault | None = None) -> None:
        stall = self._retrying
        if stall is None:
            self._begun += 1
            stall = Stall(t, record or ContextFault(), self._clock(), key=self._begun)
        else:
            stall.transaction = t
            if record is not None:
                stall.event = record
        stall.waits = waits
        stall.stag = bank
        answer.outcome = Outcome.STALLED
        answer.stall = stall
        self.counters.stalls += 1
        self.waiting.setdefault(bank, []).append(stall)
        if self.watch.on:
            self._tell_stall(stall)

    def resume(self, bank: int, *, terminate: bool) -> None:
        """What is recorded ends, or is tried again, and so is all that waits behind it; nothing, if none is stalled."""
        fsr = self.registers[CB_FSR, bank]
        if not fsr.SS:
            return
        self.registers[CB_FSR, bank] = fsr.raw & ~CB_FSR.SS.mask
        waiting = self.waiting.pop(bank, [])
        if terminate and waiting:
            answer = Answer()
            self.end(bank, answer)
            self._finish(waiting.pop(0), answer)
        for stall in self._ordered("resume", waiting):
            self._retry(stall)
        self.interrupts.settle()

    def terminate(self) -> None:
        """All that waits aborts: a reset."""
        waiting, self.waiting = self.stalled(), {}
        for stall in self._ordered("terminate", waiting):
            self._finish(stall, Answer(Outcome.ABORT))
