# SPDX-License-Identifier: Apache-2.0
"""PCIe ATS: translation requests, translated transactions, invalidations of endpoints' caches (IHI 0070 §3.9.1, §4.5).

Law: what a request is denied is never an event, but for those of §3.9.1.2 and, with CR2.REC_CFG_ATS, configuration
errors. Not modelled: the device permission table (EATS 3), T, TE and XT bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from ...layout import Layout
from ...register_file import RegisterFile
from ...sealed import Sealed
from ..ats import AtsCompletion, AtsEntry, AtsInvalidation, AtsRequest, AtsStatus, Endpoint
from ..context import Context
from ..stages import Stages
from ..transaction import Answer, Outcome, Piece, Transaction
from ..walk import Access, Cause, Fault, FaultKind
from . import events
from .configuration import CdFault, Configuration, Refusal
from .enables import Enables
from .registers import CR0ACK, CR2, IDR0, IDR1, IDR3, IDR5
from .reports import Reports
from .structures import EATS, S1DSS, STE, STE_CONFIG
from .validity import Validity

#: Entries of one completion: what fits in the smallest read completion boundary, 64 bytes of 8 each.
MOST_ENTRIES = 8

#: Faults that end a request with Completer Abort: they say nothing of what the tables permit.
_ERRORS = (FaultKind.WALK_EABT, FaultKind.TLB_CONFLICT)


class Ats(Sealed):
    """The ATS interface of one SMMU."""

    OPEN = frozenset({"timed_out"})

    def __init__(
        self,
        registers: RegisterFile,
        validity: Validity,
        configuration: Configuration,
        stages: Stages,
        reports: Reports,
        enables: Enables,
        endpoints: Mapping[int, Endpoint],
        lock: AbstractContextManager[Any],
        completed: Callable[[], None],
    ) -> None:
        """``completed`` is told, with the lock held, once no invalidation is pending."""
        self.registers = registers
        self.validity = validity
        self.configuration = configuration
        self.stages = stages
        self.reports = reports
        self.enables = enables
        self.endpoints = endpoints
        self.lock = lock
        self._completed = completed
        #: Invalidations that no CMD_SYNC has waited for yet and that have not completed.
        self.pending: set[AtsInvalidation] = set()
        self.timed_out = False

    # -- translation requests (§3.9.1.2) ---------------------------------------------------------------------

    def request(self, r: AtsRequest) -> AtsCompletion:
        completion = AtsCompletion()
        if self.reports.failed:
            completion.status = AtsStatus.CA
            return completion
        if not self.registers[CR0ACK].SMMUEN:
            return self._refused(r, completion)
        ste = self.configuration.valid_ste(r.sid, r.ssid)
        if isinstance(ste, Refusal):
            return self._configuration_error(ste, completion, recinvsid=True)
        if ste.Config == STE_CONFIG.BYPASS or self.eats(ste) == EATS.ABORT:
            return self._refused(r, completion)
        context = self.configuration.lookup(r.sid, r.ssid)
        if isinstance(context, Refusal):
            return self._configuration_error(context, completion, recinvsid=True)
        if isinstance(context, CdFault):
            if context.fault.kind in _ERRORS:
                return self._error(context.context, r, r.iova, context.fault)
            # Stage 2 denies the CD: no access, whatever the address.
            completion.entries.append(self._denied(r.iova))
            return completion
        split = self.eats(ste) == EATS.SPLIT
        address, end = r.iova, min(r.iova + r.size, 1 << 64)
        while address < end and len(completion.entries) < MOST_ENTRIES:
            entry = self._entry(context, r, address, split)
            if isinstance(entry, Fault):
                return self._error(context, r, address, entry)
            completion.entries.append(entry)
            if not (entry.read or entry.write):
                break
            address = entry.iova + entry.size
        return completion

    def eats(self, ste: STE) -> int:
        """The effective STE.EATS: nothing where ATS is absent, and split-stage only with CR0.ATSCHK."""
        registers = self.registers
        if not registers[IDR0].ATS or ste.Config <= STE_CONFIG.BYPASS:
            return EATS.ABORT
        if ste.EATS == EATS.FULL:
            return EATS.FULL
        if ste.EATS == EATS.SPLIT and registers[CR0ACK].ATSCHK:
            return EATS.SPLIT
        return EATS.ABORT

    def _entry(self, context: Context, r: AtsRequest, address: int, split: bool) -> AtsEntry | Fault:
        """What the endpoint may do at ``address`` (§13.7.1); a Fault: one of _ERRORS."""
        privileged = self._privileged(context, r)
        wants_execution = r.execute and r.ssid is not None
        # Where no stage translates all is granted, asked for or not (§3.9.1.2, §13.6.4).
        wants_writing = not r.no_write or (context.stage1 is None and context.stage2 is None)
        translate = self.stages.translate
        found = None
        granted = []
        for wanted, access in (
            # With STE.INSTCFG all reads are instruction fetches, or none is.
            (True, Access(privileged=privileged, instruction=context.instruction is True)),
            (wants_writing, Access(write=True, privileged=privileged)),
            (wants_execution, Access(privileged=privileged, instruction=context.instruction is not False)),
        ):
            output = translate(context, address, access) if wanted else None
            if isinstance(output, Fault):
                if output.kind in _ERRORS:
                    return output
                # Stage 2 has no part in the permissions of what stage 1's walk accesses.
                if output.kind is not FaultKind.PERMISSION or output.cause is not Cause.IN:
                    return self._denied(address)
                output = None
            granted.append(output is not None)
            found = output or found
        # A page that may be executed but not read cannot be told to an endpoint.
        if found is None or not (granted[0] or granted[1]):
            return self._denied(address)
        shift = min((m.shift for m in (found.stage1, found.stage2) if m is not None), default=self._stu())
        base = address & -1 << shift
        pa = found.pa
        if split and found.stage1 is not None:
            pa = found.stage1.translate(address)
        elif split:
            pa = address
        return AtsEntry(base, 1 << shift, pa & -1 << shift, granted[0], granted[1], granted[2] and granted[0])

    def _denied(self, address: int) -> AtsEntry:
        """No access; the entry is as large as the smallest translation unit."""
        stu = self._stu()
        return AtsEntry(address & -1 << stu, 1 << stu, 0, False, False)

    def _stu(self) -> int:
        """log2 of the smallest translation unit: of the smallest granule."""
        idr5 = self.registers[IDR5]
        return 12 if idr5.GRAN4K else 14 if idr5.GRAN16K else 16

    @staticmethod
    def _privileged(context: Context, r: AtsRequest) -> bool:
        """Privilege comes with the PASID; STE.PRIVCFG overrides both."""
        if context.privileged is not None:
            return context.privileged
        return r.privileged and r.ssid is not None

    def _error(self, context: Context, r: AtsRequest, address: int, fault: Fault) -> AtsCompletion:
        """CA, and an event if errors of ATS are recorded."""
        completion = AtsCompletion(AtsStatus.CA)
        values = {"PnU": self._privileged(context, r), "RnW": 1, "InputAddr": address, "S2": fault.stage - 1}
        if fault.kind is FaultKind.WALK_EABT:
            cause = Cause.TT if fault.stage == 1 else fault.cause
            event = events.record(events.F_WALK_EABT, r.sid, r.ssid, **values, CLASS=cause, FetchAddr=fault.fetch)
        else:
            event = events.record(events.F_TLB_CONFLICT, r.sid, r.ssid, **values, IPA=fault.ipa & ~0xFFF)
        self.maybe_record(event, completion.events, recinvsid=True)
        return completion

    def _refused(self, r: AtsRequest, completion: AtsCompletion) -> AtsCompletion:
        event = events.record(events.F_BAD_ATS_TREQ, r.sid, r.ssid, InputAddr=r.iova & ~0xFFF)
        completion.status = AtsStatus.UR
        completion.events.append(event)
        self.reports.write(event)
        return completion

    def _configuration_error(self, refusal: Refusal, completion: AtsCompletion, *, recinvsid: bool) -> AtsCompletion:
        """CA, or UR where STE.Config aborts without an event."""
        if refusal.event is None:
            completion.status = AtsStatus.UR
            return completion
        completion.status = AtsStatus.CA
        self.maybe_record(refusal.event, completion.events, recinvsid=recinvsid)
        return completion

    def maybe_record(self, event: events.Event, kept: list[Layout], *, recinvsid: bool) -> None:
        cr2 = self.registers[CR2]
        hidden = recinvsid and isinstance(event, events.C_BAD_STREAMID) and not cr2.RECINVSID
        if cr2.REC_CFG_ATS and not hidden:
            kept.append(event)
            self.reports.write(event)

    # -- translated transactions (§3.9.1.3) ------------------------------------------------------------------

    def translated(self, t: Transaction, answer: Answer) -> Context | CdFault | None:
        """Handle what says that its address is translated already; without IDR3.PASIDTT ``t`` has no SubstreamID.

        None: ``answer`` is final. A context: stage 2 has yet to translate it (split-stage ATS). A CdFault: stage 2
        did not translate the address of its CD.
        """
        registers = self.registers
        answer.outcome = Outcome.ABORT
        if not registers[IDR0].ATS:
            return None
        if not registers[CR0ACK].SMMUEN:
            self._forbidden(t, answer)
            return None
        mpam = self.enables.bypass_mpam
        if registers[CR0ACK].ATSCHK:
            ste = self.configuration.valid_ste(t.sid, t.ssid)
            if isinstance(ste, Refusal):
                self._terminated(ste, answer)
                return None
            effective = self.eats(ste)
            if effective == EATS.ABORT:
                self._forbidden(t, answer)
                return None
            substream = self._substream(t, ste) if registers[IDR3].PASIDTT else None
            if isinstance(substream, Refusal):
                self._terminated(substream, answer)
                return None
            if substream is not None:
                return substream
            if effective == EATS.SPLIT:
                answer.outcome = Outcome.OK
                # The STE's memory type is not for them (table 13.5).
                return replace(self.configuration.bare_context(ste), overrides=(False, 0, 1))
            mpam = self.validity.mpam(ste.PARTID, ste.PMG)
        if not (t.iova + t.size - 1) >> self.validity.output_bits:
            answer.outcome = Outcome.OK
            answer.mpam = mpam
            answer.pieces.append(Piece(t.iova, t.size))
            answer.memory.append(t.memory.consistent())
        return None

    def _substream(self, t: Transaction, ste: STE) -> Refusal | CdFault | None:
        """What is wrong with the SubstreamID, or its CD, where translated transactions may have one; None: nothing."""
        if t.ssid is not None:
            found = self.configuration.lookup(t.sid, t.ssid)
            return None if isinstance(found, Context) else found
        substreams = ste.Config & 1 and ste.S1CDMax and self.registers[IDR1].SSIDSIZE
        if substreams and ste.S1DSS not in (S1DSS.BYPASS, S1DSS.SSID0):
            return Refusal(events.record(events.F_STREAM_DISABLED, t.sid, None))
        return None

    def _terminated(self, refusal: Refusal, answer: Answer) -> None:
        if refusal.event is not None:
            self.maybe_record(refusal.event, answer.events, recinvsid=False)

    def _forbidden(self, t: Transaction, answer: Answer) -> None:
        event = events.F_TRANSL_FORBIDDEN.of(SID=t.sid, RnW=not t.write, InputAddr=t.iova)
        answer.events.append(event)
        self.reports.write(event)

    # -- invalidations (§4.5.1, §3.9.1.4) --------------------------------------------------------------------

    def invalidate(self, sid: int, ssid: int | None, address: int, size_bits: int, *, everywhere: bool) -> None:
        """Send CMD_ATC_INV's request; an endpoint that is not there has nothing to forget."""
        endpoint = self.endpoints.get(sid)
        if endpoint is None:
            return
        size = 1 << min(12 + size_bits, 64)
        request = AtsInvalidation(sid, ssid, address & -size, size, everywhere, self._ended)
        self.pending.add(request)
        endpoint.invalidate(request)

    def reset(self) -> None:
        """What endpoints still owe an answer to is forgotten."""
        self.pending.clear()
        self.timed_out = False

    def _ended(self, invalidation: AtsInvalidation, completed: bool) -> None:
        with self.lock:
            if invalidation not in self.pending:
                return
            self.pending.discard(invalidation)
            self.timed_out = self.timed_out or not completed
            if not self.pending:
                self._completed()
