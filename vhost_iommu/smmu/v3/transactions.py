# SPDX-License-Identifier: Apache-2.0
"""What becomes of a transaction: its context, its pages, and how a fault ends it (IHI 0070 §3.12, §7.3).

Law: a fault is a value until it is a record; whoever calls holds the instance's lock.
"""

from __future__ import annotations

from dataclasses import replace

from ...register_file import RegisterFile
from ...sealed import Sealed, declared
from ...watch import Watch
from ..context import Context, Response
from ..memory_type import MemoryType, override
from ..seams import Seams
from ..stages import Stages
from ..transaction import Answer, Begun, Outcome, Piece, Transaction
from ..walk import Access, Cause, Fault, FaultKind
from . import events
from .ats import Ats
from .configuration import CdFault, Configuration, Refusal
from .counters import Counters
from .enables import Enables
from .registers import CR0ACK, CR2, IDR1, IDR3
from .reports import Reports
from .stalls import Stalls
from .validity import Validity

#: Which event a walk's fault becomes.
FAULT_EVENTS: dict[FaultKind, type[events.Event]] = {
    FaultKind.TRANSLATION: events.F_TRANSLATION,
    FaultKind.ADDR_SIZE: events.F_ADDR_SIZE,
    FaultKind.ACCESS: events.F_ACCESS,
    FaultKind.PERMISSION: events.F_PERMISSION,
    FaultKind.WALK_EABT: events.F_WALK_EABT,
    FaultKind.TLB_CONFLICT: events.F_TLB_CONFLICT,
}


#: Faults that are errors of the tables or of software: they abort and are recorded, whatever the stream says.
_ERRORS = (FaultKind.WALK_EABT, FaultKind.TLB_CONFLICT)


@declared
class Transactions(Sealed):
    """The bus side of one SMMU."""

    def __init__(
        self,
        name: str,
        registers: RegisterFile,
        validity: Validity,
        configuration: Configuration,
        stages: Stages,
        reports: Reports,
        enables: Enables,
        stalls: Stalls,
        ats: Ats,
        counters: Counters,
        watch: Watch,
        seams: Seams,
    ) -> None:
        self.name = name
        self.registers = registers
        self.validity = validity
        self.configuration = configuration
        self.stages = stages
        self.reports = reports
        self.enables = enables
        self.stalls = stalls
        self.ats = ats
        self.counters = counters
        self.watch = watch
        self.seams = seams

    def translate(self, transaction: Transaction, begun: Begun | None = None) -> Answer:
        """Translate page by page up to the first fault, and record what is to be recorded.

        ``begun``: it is the rest of what the core began.
        """
        since = self.watch.now()
        if since:
            self.watch.of_stream(transaction.sid, transaction.ssid)
        answer = self._translate(transaction, begun)
        if since:
            self._tell(transaction, answer, since)
        return answer

    def unsupported(self, t: Transaction) -> Answer:
        """Abort a transaction of a type that is not supported; recorded even while translation is off (§7.3.2)."""
        answer = Answer(Outcome.ABORT)
        self.counters.transactions_made += 1
        self.counters.faults += 1
        if not t.translated:
            attributes = {"PnU": t.privileged, "InD": t.instruction, "RnW": not t.write}
            self._record(events.record(events.F_UUT, t.sid, t.ssid, **attributes, InputAddr=t.iova), answer)
        if self.watch.on:
            self._tell(t, answer)
        return answer

    def _translate(self, t: Transaction, begun: Begun | None) -> Answer:
        answer = Answer()
        registers = self.registers
        if begun is None or not begun.counted:
            self.counters.transactions_made += 1
        if self.reports.failed:
            answer.outcome = Outcome.ABORT
            return answer
        if t.translated:
            self.counters.ats_translated += 1
            if t.ssid is None or not registers[IDR3].PASIDTT:
                # Without a PASID such a transaction is unprivileged data (§3.9.1.3).
                t = replace(t, ssid=None, privileged=False, instruction=False)
            split = self.ats.translated(t, answer)
            if isinstance(split, CdFault):
                self._fault_of(split.context, t, t.iova, split.fault, answer)
                return answer
            return answer if split is None else self._pages(split, t, None, answer)
        if not registers[CR0ACK].SMMUEN:
            if self.enables.gbpa().ABORT or (t.iova + t.size - 1) >> self.validity.output_bits:
                answer.outcome = Outcome.ABORT
            else:
                answer.pieces.append(Piece(t.iova, t.size))
                answer.memory.append(self._bypass_memory(t))
                answer.mpam = self.enables.bypass_mpam
            return answer
        if self._conflict("F_CFG_CONFLICT", t):
            return self._refused(Refusal(events.record(events.F_CFG_CONFLICT, t.sid, t.ssid)), answer)
        context = self._context(t, begun)
        if isinstance(context, Refusal):
            return self._refused(context, answer)
        if isinstance(context, CdFault):
            self._fault_of(context.context, t, t.iova, context.fault, answer)
            return answer
        if (context.stage1 or context.stage2) and self._conflict("F_TLB_CONFLICT", t):
            stage, ipa = (1, 0) if context.stage1 else (2, t.iova)
            self._fault_of(context, t, t.iova, Fault(FaultKind.TLB_CONFLICT, stage=stage, ipa=ipa), answer)
            return answer
        return self._pages(context, t, begun, answer)

    def _conflict(self, event: str, t: Transaction) -> bool:
        return self.seams.translation is not None and self.seams.translation(event, t)

    def _context(self, t: Transaction, begun: Begun | None) -> Context | Refusal | CdFault:
        """The context of ``t``, which requests find by themselves from now on if this one did not."""
        if begun is not None and begun.counted:
            kept = self.configuration.kept(t.sid, t.ssid)
            return self.configuration.lookup(t.sid, t.ssid) if kept is None else kept
        found = self.configuration.lookup(t.sid, t.ssid)
        if begun is not None and isinstance(found, Context):
            self.configuration.publish(t.sid, t.ssid, found)
        return found

    def _refused(self, refused: Refusal, answer: Answer) -> Answer:
        self.counters.faults += 1
        answer.outcome = Outcome.ABORT
        hidden = isinstance(refused.event, events.C_BAD_STREAMID) and not self.registers[CR2].RECINVSID
        if refused.event is not None and not hidden:
            self._record(refused.event, answer)
        return answer

    def _bypass_memory(self, t: Transaction) -> MemoryType:
        """What GBPA makes of a memory type while the SMMU is disabled (§13.2)."""
        if not self.registers[IDR1].ATTR_TYPES_OVR:
            return t.memory.consistent()
        gbpa = self.enables.gbpa()
        return override(t.memory, replace_type=bool(gbpa.MTCFG), memattr=gbpa.MemAttr, shcfg=gbpa.SHCFG)

    def _pages(self, context: Context, t: Transaction, begun: Begun | None, answer: Answer) -> Answer:
        """Translate page by page up to the first fault."""
        answer.mpam = context.mpam
        found = self.stages.pieces(context, t.iova, t.size, self.access(context, t), t.memory, begun)
        answer.pieces, answer.memory = found.pieces, found.memory
        if found.fault is not None:
            self._fault_of(context, t, t.iova + found.size & 2**64 - 1, found.fault, answer)
        elif found.size < t.size:
            answer.outcome = Outcome.ABORT  # more pieces than any master's transaction has
        return answer

    @staticmethod
    def access(context: Context, t: Transaction) -> Access:
        """What is asked, after STE.PRIVCFG and INSTCFG (§13.1.2); a write is always data."""
        privileged = t.privileged if context.privileged is None else context.privileged
        instruction = t.instruction if context.instruction is None else context.instruction
        return Access(t.write, privileged, instruction and not t.write)

    def _fault_of(self, context: Context, t: Transaction, address: int, fault: Fault, answer: Answer) -> None:
        self._fault(context.response(fault.stage), t, address, self.access(context, t), fault, answer)

    def _fault(
        self, response: Response, t: Transaction, address: int, access: Access, fault: Fault, answer: Answer
    ) -> None:
        """How a faulting transaction ends, and its record (§3.12, §5.5, §7.3)."""
        self.counters.faults += 1
        values = {
            "PnU": int(access.privileged),
            "InD": int(access.instruction),
            "RnW": int(not access.write),
            "InputAddr": address,
            "S2": fault.stage - 1,
            "CLASS": fault.cause,
        }
        if fault.kind is FaultKind.WALK_EABT:
            # A stage 1 walk is the cause of its own abort (§7.3.12).
            values.update(CLASS=Cause.TT if fault.stage == 1 else fault.cause, FetchAddr=fault.fetch)
        elif fault.kind is FaultKind.TLB_CONFLICT:
            del values["CLASS"]
            values["IPA"] = fault.ipa & ~0xFFF
        elif fault.stage == 2:
            values["IPA"] = fault.ipa & ~0xFFF
            if fault.kind is FaultKind.PERMISSION and fault.cause is Cause.TT:
                values["TTRnW"] = int(not fault.table_write)
        kind = FAULT_EVENTS[fault.kind]
        if fault.kind in _ERRORS:
            response = Response()
        answer.outcome = Outcome.ABORT if response.abort else Outcome.RAZ_WI
        if response.stall:
            self.stalls.add(t, address, events.record(kind, t.sid, t.ssid, **values, STALL=1), answer)
        elif response.record:
            self._record(events.record(kind, t.sid, t.ssid, **values), answer)

    def _tell(self, t: Transaction, answer: Answer, since: int = 0) -> None:
        pa, outcome = answer.pieces[0].pa if answer.pieces else None, answer.outcome.value
        self.watch.translated(t.sid, t.ssid, t.iova, t.size, pa, outcome, answer.mpam, write=t.write, since=since)

    def _record(self, event: events.Event, answer: Answer) -> None:
        answer.events.append(event)
        self.reports.write(event)
