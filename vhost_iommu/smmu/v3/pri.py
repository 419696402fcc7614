# SPDX-License-Identifier: Apache-2.0
"""The PRI queue: page requests in, overflow, automatic responses (IHI 0070 chapter 8).

Law: while an overflow is unacknowledged nothing is written; each request that software will never see is answered
as §8.1 and §8.2 say, a stop marker never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...memory import MemoryLike
from ...register_file import RegisterFile
from ...sealed import Sealed
from ..ats import Endpoint, PageRequest, PageResponse, PrgResponse
from ..queue import Ring
from ..seams import Seams
from . import events
from .ats import Ats
from .configuration import Configuration, Refusal
from .counters import Counters
from .registers import (
    CR0ACK,
    GERROR,
    IDR1,
    IDR3,
    IRQ_CTRLACK,
    PRIQ_BASE,
    PRIQ_CONS,
    PRIQ_IRQ_CFG0,
    PRIQ_IRQ_CFG1,
    PRIQ_IRQ_CFG2,
    PRIQ_PROD,
)
from .reports import Reports
from .validity import Validity


class PriQueue(Sealed):
    """Page requests of one SMMU."""

    def __init__(
        self,
        registers: RegisterFile,
        validity: Validity,
        memory: MemoryLike,
        configuration: Configuration,
        reports: Reports,
        ats: Ats,
        endpoints: Mapping[int, Endpoint],
        counters: Counters,
        seams: Seams,
    ) -> None:
        self.registers = registers
        self.validity = validity
        self.memory = memory
        self.configuration = configuration
        self.reports = reports
        self.ats = ats
        self.endpoints = endpoints
        self.counters = counters
        self.seams = seams

    def ring(self) -> Ring:
        base = self.registers[PRIQ_BASE]
        address = base.ADDR & (1 << self.validity.output_bits) - 1
        return Ring.at(address, min(base.LOG2SIZE, self.registers[IDR1].PRIQS), events.PRIEntry.size)

    @property
    def enabled(self) -> bool:
        """The effective PRIQEN (§6.3.9.5)."""
        cr0 = self.registers[CR0ACK]
        return bool(cr0.PRIQEN and cr0.SMMUEN)

    def request(self, request: PageRequest) -> None:
        """Take a page request or a stop marker."""
        registers = self.registers
        self.counters.page_requests += 1
        if self.reports.failed:
            return
        if not registers[IDR1].SSIDSIZE:
            request = replace(request, ssid=None)
        if not self.enabled or self.reports.error_active(GERROR.PRIQ_ABT_ERR.mask):
            self._answer(request, PrgResponse.FAILURE, None)
            return
        ring = self.ring()
        prod, cons = registers[PRIQ_PROD], registers[PRIQ_CONS]
        overflowed = prod.OVFLG != cons.OVACKFLG
        crowded = self.seams.room is not None and not self.seams.room("priq")
        if overflowed or crowded or ring.full(prod.WR, cons.RD):
            if not overflowed:
                registers[PRIQ_PROD] = prod.replace(OVFLG=prod.OVFLG ^ 1)
            if request.last and not request.stop_marker:
                self._answer_overflow(request)
            if request.last and registers[PRIQ_IRQ_CFG2].LO:
                self._interrupt()
            return
        if not self.memory.write(ring.slot(prod.WR), _entry(request).to_bytes()):
            self.reports.raise_error(GERROR.PRIQ_ABT_ERR.mask)
            self._answer(request, PrgResponse.FAILURE, None)
            return
        was_empty = ring.empty(prod.WR, cons.RD)
        registers[PRIQ_PROD] = prod.replace(WR=ring.next(prod.WR & ring.index_mask))
        due = request.last if registers[PRIQ_IRQ_CFG2].LO else was_empty
        if due:
            self._interrupt()

    def _interrupt(self) -> None:
        if self.registers[IRQ_CTRLACK].PRIQ_IRQEN:
            self.reports.interrupt_by("priq", PRIQ_IRQ_CFG0, PRIQ_IRQ_CFG1, GERROR.MSI_PRIQ_ABT_ERR.mask)

    def _answer_overflow(self, request: PageRequest) -> None:
        """Success, so that the endpoint tries again; with its PASID where that is wanted (§8.1)."""
        ssid = request.ssid
        if ssid is not None and not self.registers[IDR3].PPS:
            ste = self.configuration.legal_ste(request.sid, None)
            if isinstance(ste, Refusal):
                if ste.event is not None:
                    self.ats.maybe_record(ste.event, [], recinvsid=True)
                self._answer(request, PrgResponse.FAILURE, None)
                return
            if not ste.PPAR:
                ssid = None
        self._answer(request, PrgResponse.SUCCESS, ssid)

    def _answer(self, request: PageRequest, code: PrgResponse, ssid: int | None) -> None:
        if not request.stop_marker:
            self.respond(PageResponse(request.sid, request.prgi, code, ssid))

    def respond(self, response: PageResponse) -> None:
        """Send a response to the endpoint, if there is one."""
        endpoint = self.endpoints.get(response.sid)
        if endpoint is not None:
            endpoint.page_response(response)


def _entry(request: PageRequest) -> events.PRIEntry:
    with_pasid = request.ssid is not None
    return events.PRIEntry.of(
        SID=request.sid,
        SSID=request.ssid or 0,
        SSV=with_pasid,
        Priv=request.privileged and with_pasid,
        X=request.execute and with_pasid,
        R=request.read,
        W=request.write,
        Last=request.last,
        PRGIndex=request.prgi & 0x1FF,
        Address=request.address & ~0xFFF,
    )
