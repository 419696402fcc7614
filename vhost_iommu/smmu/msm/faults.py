# SPDX-License-Identifier: Apache-2.0
"""Faults: how they are recorded, how they end, transactions that wait, and the line that tells of all of it.

Law: whoever calls holds the instance's lock. FSR and ESR have the first fault whole, and of those that follow MULTI
alone, until software clears them. Chosen: SS is cleared with the rest (Linux clears it so, and never resumes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...layout import Layout
from ...register_file import RegisterFile
from ...watch import Watch
from ..context import Context, Response
from ..counters import StoreCounters
from ..seams import Seams, Verdict
from ..transaction import Answer, Outcome, Stall, Transaction
from ..waiting import Waiting
from ..walk import Access, Fault, FaultKind
from .configuration import Refusal
from .records import ContextFault, GlobalError
from .registers import ACTLR, CR, EAR, ESR, ESYNR0, ESYNR1, FAR, FSR, FSYNR0, FSYNR1, IDR

STATUS = {
    FaultKind.TRANSLATION: FSR.TF.mask,
    FaultKind.ADDR_SIZE: FSR.TF.mask,
    FaultKind.ACCESS: FSR.AFF.mask,
    FaultKind.PERMISSION: FSR.APF.mask,
    FaultKind.WALK_EABT: FSR.HTWDEEF.mask,
    FaultKind.TLB_CONFLICT: FSR.TLBMF.mask,
}
#: The only line.
WIRE = "iommu"
_OTHERS = "another of its context has faulted"


class Faults(Waiting):
    """The faults of one instance."""

    OPEN = frozenset({"interrupt", "line", "_begun", "_retrying", "_level", "waiting"})

    def __init__(
        self,
        registers: RegisterFile,
        counters: StoreCounters,
        clock: Callable[[], float],
        retranslate: Callable[[Transaction], Answer],
        watch: Watch,
        seams: Seams,
    ) -> None:
        """``retranslate`` translates a transaction once more."""
        self.registers = registers
        self.counters = counters
        self._clock = clock
        self._retranslate = retranslate
        self.watch = watch
        self._seams = seams
        #: Told of each fault that is recorded and interrupts; and of the line's level, when it changes.
        self.interrupt: Callable[[str], None] | None = None
        self.line: Callable[[bool], None] = lambda level: None
        self._level = False
        self._begun = 0
        self._retrying: Stall | None = None
        #: By context, those that wait for its RESUME, the one that is recorded first.
        self.waiting: dict[int, list[Stall]] = {}

    def now(self) -> float:
        """By the clock that stalls are dated with."""
        return self._clock()

    def stalled(self) -> list[Stall]:
        return [stall for waiting in self.waiting.values() for stall in waiting]

    # -- global errors ---------------------------------------------------------------------------------------

    def refuse(self, t: Transaction, refused: Refusal, answer: Answer) -> None:
        """A transaction without a context."""
        self.counters.faults += 1
        registers = self.registers
        answer.outcome = Outcome.ABORT if registers[CR].RPUERE else Outcome.RAZ_WI
        kept = not registers.raw(ESR)
        status = refused.status if kept else refused.status | ESR.MULTI.mask
        syndrome = _syndrome(t.write, t.privileged, t.instruction and not t.write)
        record = GlobalError(
            status | (t.sid & 0xFF) << 32 | refused.vmid << 48 | syndrome << 64 | (t.iova & 0xFFFF_FFFF) << 96
        )
        if kept:
            registers[ESR] = status
            registers[ESYNR0] = ESYNR0.of(AMID=t.sid & 0xFF, AVMID=refused.vmid)
            registers[ESYNR1] = syndrome
            registers[EAR] = t.iova & 0xFFFF_FFFF
        else:
            registers[ESR] = registers.raw(ESR) | ESR.MULTI.mask
        self._tell(record, kept, answer)
        if registers[CR].RPUEIE:
            self._rise()
        self.settle()

    # -- faults of contexts ----------------------------------------------------------------------------------

    def in_the_way(self, number: int, context: Context, t: Transaction, answer: Answer) -> bool:
        """Whether a fault that the context has recorded decides of ``t`` (ACTLR.TIPCF)."""
        if not self.registers.raw(FSR, number) or self.registers[ACTLR, number].TIPCF:
            return False
        response = context.response(1)
        if response.stall and self.waiting.get(number):
            self._wait(number, t, _OTHERS, answer)
        else:
            answer.outcome = _end(response)
        return True

    def fault(
        self, number: int, context: Context, t: Transaction, done: int, access: Access, fault: Fault, answer: Answer
    ) -> None:
        """``t`` faulted behind its first ``done`` bytes."""
        self.counters.faults += 1
        registers, response = self.registers, context.response(1)
        left = t if not done else replace(t, iova=t.iova + done, size=t.size - done)
        kept = not registers.raw(FSR, number)
        stalls = response.stall and fault.kind is not FaultKind.WALK_EABT
        status = STATUS[fault.kind] | (FSR.SL.mask if fault.level == 2 else 0) | (FSR.SS.mask if stalls else 0)
        if not kept:
            status |= FSR.MULTI.mask
        syndrome = _syndrome(access.write, access.privileged, access.instruction)
        record = ContextFault(
            status | (t.sid & 0xFF) << 32 | syndrome << 64 | (left.iova & 0xFFFF_FFFF) << 96 | number << 128
        )
        if kept:
            registers[FSR, number] = status
            registers[FSYNR0, number] = FSYNR0.of(AMID=t.sid & 0xFF)
            registers[FSYNR1, number] = syndrome
            registers[FAR, number] = left.iova & 0xFFFF_FFFF
        else:
            registers[FSR, number] = registers.raw(FSR, number) | FSR.MULTI.mask | (FSR.SS.mask if stalls else 0)
        self._tell(record, kept, answer)
        if stalls:
            self._wait(number, left, f"context {number} has no RESUME", answer, record)
        else:
            answer.outcome = _end(response)
        if registers[ACTLR, number].CFEIE:
            self._rise()
        self.settle()

    def _tell(self, record: Layout, kept: bool, answer: Answer) -> None:
        self.counters.fault_made(record, kept=kept)
        answer.events.append(record)
        if self.watch.on:
            self.watch.reported(record, kept=kept)

    # -- the line --------------------------------------------------------------------------------------------

    def asserted(self) -> bool:
        registers = self.registers
        if registers[CR].RPUEIE and registers.raw(ESR):
            return True
        return any(registers[ACTLR, n].CFEIE and registers.raw(FSR, n) for n in range(registers[IDR].NCB))

    def settle(self) -> None:
        """Registers may have changed that the line follows from."""
        level = self.asserted()
        if level != self._level:
            self._level = level
            self.line(level)

    def _rise(self) -> None:
        self.counters.interrupts += 1

        def send() -> None:
            if self.watch.on:
                self.watch.interrupted(WIRE, None, None)
            if self.interrupt is not None:
                self.interrupt(WIRE)

        wire = self._seams.wire
        if wire is None or wire(WIRE, send) is Verdict.EXECUTE:
            send()

    # -- stalls ----------------------------------------------------------------------------------------------

    def _wait(
        self, number: int, t: Transaction, waits: str, answer: Answer, record: ContextFault | None = None
    ) -> None:
        stall = self._retrying
        if stall is None:
            self._begun += 1
            stall = Stall(t, record or ContextFault(), self._clock(), key=self._begun)
        else:
            stall.transaction = t
            stall.event = record or stall.event
        stall.waits, stall.stag = waits, number
        answer.outcome, answer.stall = Outcome.STALLED, stall
        self.counters.stalls += 1
        self.waiting.setdefault(number, []).append(stall)
        if self.watch.on:
            self._tell_stall(stall)

    def resume(self, number: int, response: Response, *, terminate: bool) -> None:
        """What is recorded ends or is tried again, and so is all that waits behind it."""
        self.registers[FSR, number] = self.registers.raw(FSR, number) & ~FSR.SS.mask
        waiting = self.waiting.pop(number, [])
        if terminate and waiting:
            self._finish(waiting.pop(0), Answer(_end(response)))
        for stall in self._ordered("resume", waiting):
            self._retry(stall)
        self.settle()

    def terminate(self) -> None:
        """All that waits aborts: a reset."""
        waiting, self.waiting = self.stalled(), {}
        for stall in self._ordered("terminate", waiting):
            self._finish(stall, Answer(Outcome.ABORT))


def _syndrome(write: bool, privileged: bool, instruction: bool) -> int:
    """FSYNR1 and ESYNR1."""
    return FSYNR1.of(APRIV=privileged, AINST=instruction, AWRITE=write).raw


def _end(response: Response) -> Outcome:
    return Outcome.ABORT if response.abort else Outcome.RAZ_WI
