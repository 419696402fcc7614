# SPDX-License-Identifier: Apache-2.0
"""One SMMUv3: registers, command and event queues, translation, errors and interrupts (IHI 0070).

Law: all state is in the instance, so any number live side by side; a guest's mistake is a value. Not modelled:
ATOS, DPT, enhanced command queues, permission indirection, 128-bit descriptors, Secure state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ... import _core
from ...layout import Register
from ...memory import MemoryLike
from ...mmio import Mirror, MmioDevice
from ...register_file import RegisterFile, on_store
from ...sealed import Sealed, declared, refuse_replaced
from ...watch import Watch
from ..ats import AtsCompletion, AtsRequest, Endpoint, PageRequest
from ..seams import Seams
from ..standing import Standing
from ..transaction import Answer, Begun, PageHint, Requests, Transaction
from . import events
from .activity import Ledger
from .ats import Ats
from .command_queue import CommandQueue
from .commands import decode
from .counters import Counters
from .enables import MSI_SOURCES, Enables
from .execution import Execution
from .features import Features
from .identity import register_file
from .pmcg import SOURCE, CounterGroup, Later
from .pri import PriQueue
from .prompt import Prompt
from .provoked import Provoked
from .registers import (
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR0ACK,
    CR2,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_PROD,
    GBPA,
    GERROR,
    GERRORN,
    IDR0,
    IDR3,
    IDR5,
    PRIQ_BASE,
    PRIQ_PROD,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
)
from .reports import Reports
from .stalls import Stalls
from .transactions import Transactions
from .translator import Strictness, choose
from .validity import Validity

if TYPE_CHECKING:
    from ..._core.door import Core

#: Registers from which the core's parameters come.
PARAMETERS = (IDR0, IDR3, IDR5, CR2, CR0ACK, GBPA)

#: Commands consumed before the bus may have the instance back; the rest follows from ``work``. The costliest, an
#: invalidation in a TLB of as many address spaces as entries, takes some milliseconds.
COMMAND_BURST = 128


#: Registers that tell what it is doing.
_TELLING = (
    CR0, CR0ACK, CR2, GBPA, GERROR, GERRORN, STRTAB_BASE, STRTAB_BASE_CFG, CMDQ_BASE, CMDQ_PROD, CMDQ_CONS,
    EVENTQ_BASE, EVENTQ_PROD, EVENTQ_CONS,
)  # fmt: skip


@declared
class Smmu(Sealed):
    """An SMMUv3 over ``memory``, made from named ``features`` or from raw ID-register values.

    ``id_registers`` ({"IDR0": 0x…}) replaces what the features give, register by register; what they claim
    beyond the model (see above) is not there. ``interrupt(source)`` is told of each wired interrupt: "eventq",
    "gerror", "cmdq-sync". ``lock`` guards the instance where several threads use it (re-entrant). ``wake`` asks
    for a later call of ``work``, which goes on with a long command queue; without it all is done at once.
    ``pure`` has the reference do what the compiled core could; None: as the environment says (VHOST_IOMMU_PURE).
    ``acknowledge_after`` register reads find CR0, IRQ_CTRL, GBPA, GMPAM and GBPMPAM not acknowledged yet; until then
    they are without effect. ``tlb_conflicts`` and ``configuration_conflicts``: a lookup that several cached
    translations, or STEs of which one has a CONT hint, match is F_TLB_CONFLICT or F_CFG_CONFLICT, instead of using
    one (§3.20); such an instance has the reference alone.
    """

    size = 0x20000
    OPEN = frozenset({"wake"})

    def __init__(
        self,
        memory: MemoryLike,
        features: Features | None = None,
        *,
        id_registers: Mapping[str, int] | None = None,
        name: str = "smmu0",
        tlb_entries: int = 4096,
        acknowledge_after: int = 0,
        tlb_conflicts: bool = False,
        configuration_conflicts: bool = False,
        counter_group: bool = False,
        interrupt: Callable[[str], None] | None = None,
        lock: AbstractContextManager[Any] | None = None,
        wake: Callable[[], None] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        watch: Watch | None = None,
        seams: Seams | None = None,
        later: Later | None = None,
        pure: bool | None = None,
    ) -> None:
        self.name = name
        self.memory = memory
        #: Where it tells what it does, to whoever looks on.
        self.watch = watch = Watch(name, _core.ring(pure)) if watch is None else watch
        watch.register_named = lambda offset: self.registers.named(offset)
        watch.command_of = decode
        self.lock: AbstractContextManager[Any] = nullcontext() if lock is None else lock
        self.wake = wake
        #: Where somebody may decide that this SMMU is wrong.
        self.seams = seams = Seams() if seams is None else seams
        self.counters = counters = Counters()
        self.registers: RegisterFile = register_file(features, id_registers)
        self.validity = validity = Validity(self.registers)
        strict = Strictness(tlb_conflicts, configuration_conflicts)
        how = choose(memory, self.registers, self.validity, self.counters, tlb_entries, strict, seams, pure, watch)
        self.core: Core | None = how.core
        self.stages, self.configuration = how.stages, how.configuration
        core, compiled, around, registers = how.core, how.compiled, seams.around, self.registers
        self.tlb, self.tlb2 = self.stages.tlb, self.stages.tlb2
        #: Masters on the ATS interface by StreamID: who is told to forget translations, and of page responses.
        self.endpoints: dict[int, Endpoint] = {}
        self.reports = Reports(name, registers, validity, around(memory, "event"), counters, self.lock, watch, seams)
        self.reports.interrupt = interrupt
        self.reports.answered = self._msis_answered
        self.enables = Enables(registers, validity, self.reports.unanswered, acknowledge_after, seams)
        self.prompt = Prompt(registers, counters, self.lock, compiled, self._sync_msi_aborted, watch)
        self.enables.in_effect = self._cr0_in_effect
        self.enables.gate = self.prompt.gate
        self.stalls = Stalls(
            registers, self.reports, counters, clock, lambda stalled: self.transactions.translate(stalled), watch,
            seams,
        )  # fmt: skip
        self.ats = Ats(
            registers, validity, self.configuration, self.stages, self.reports, self.enables, self.endpoints,
            self.lock, self.consume_commands,
        )  # fmt: skip
        self.pri = PriQueue(
            registers, validity, around(memory, "PRI"), self.configuration, self.reports, self.ats, self.endpoints,
            counters, seams,
        )  # fmt: skip
        self.execution = Execution(
            registers, validity, self.configuration, self.stages, self.stalls, self.ats, self.pri, core, compiled
        )
        self.commands = CommandQueue(
            name, registers, validity, around(memory, "command"), self.execution, self.stages, self.ats,
            self.reports, counters, self.prompt, compiled, watch, seams,
        )  # fmt: skip
        self.transactions = Transactions(
            name, registers, validity, self.configuration, self.stages, self.reports, self.enables, self.stalls,
            self.ats, counters, watch, seams,
        )  # fmt: skip
        self.ledger = Ledger(counters, self.configuration, core)
        self.counter_group = CounterGroup(name, registers[IDR0], self.ledger, self.reports, self.lock, clock, later)
        self.companions: Sequence[tuple[int, MmioDevice]] = ((self.size, self.counter_group),) if counter_group else ()
        registers.attach(self.enables)
        registers.attach(self)
        self._compiled = compiled
        if core is not None:
            refuse_replaced(Smmu)
        registers.watch(PARAMETERS, self._parameters_changed)
        seams.bind(
            Provoked(
                self.lock, registers, self.prompt, self.stages, self.reports, self.stalls, self.execution,
                self.consume_commands, self._parameters_changed,
            )
        )  # fmt: skip
        watch.bind(Standing(registers, self.configuration, self.stages, core, _TELLING), self.lock)
        self.seal()

    def _parameters_changed(self) -> None:
        """Tell the core; returns when no request of masters is under way that began before."""
        if self.core is None or self._compiled is None:
            return
        raw = self.registers.raw
        self._compiled.set_registers(idr0=raw(IDR0), idr3=raw(IDR3), idr5=raw(IDR5), cr2=raw(CR2))
        self.core.set_parameters(
            output_bits=self.validity.output_bits,
            enabled=bool(raw(CR0ACK) & CR0ACK.SMMUEN.mask) and not self.reports.failed,
            aborts=bool(self.enables.gbpa().ABORT) or self.reports.failed,
        )

    @property
    def direct(self) -> Requests | None:
        """For requests in one call."""
        return self.core

    # -- the bus side ----------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A register read of ``size`` bytes at ``offset`` in the 128 KiB of pages 0 and 1."""
        self.counters.reads_seen += 1
        self.prompt.catch_up()
        # One word is read whole without the lock, so a CPU that polls never waits behind a master.
        value = self.registers.read(offset, size)
        if self.enables.updates:
            with self.lock:
                self.enables.count_read()
        if self.watch.on:
            self.watch.accessed(self.registers.named(offset), offset, size, value, write=False)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """A register write; guarded and read-only bits keep what they hold."""
        with self.lock:
            if self.watch.on and not self.prompt.was_told():
                self.watch.accessed(self.registers.named(offset), offset, size, value, write=True)
            self.counters.writes_seen += 1
            self.registers.write(offset, size, value)

    def mirror(self, make: Callable[[int], Mirror]) -> Mirror | None:
        """What register reads return, while they have no effect on updates that are under way."""
        with self.lock:
            return self.prompt.mirror(make, self.size, COMMAND_BURST)

    def reset(self) -> None:
        """Registers take their reset values and the caches are empty, as after power-on."""
        with self.lock:
            self.reports.reset()
            self.registers.reset()
            self.enables.reset()
            self.configuration.invalidate_all()
            self.tlb.clear()
            self.tlb2.clear()
            self.ats.reset()
            self.stalls.terminate()

    def work(self) -> bool:
        """Go on with commands that a store left for later; whether more are left, for another call."""
        with self.lock:
            return self.commands.consume(COMMAND_BURST)

    # -- stores that concern several parts (§6.3) ---------------------------------------------------------------

    def _msis_answered(self, source: str) -> None:
        """No MSI of ``source`` is under way any more: what waited for that goes on (§3.18.1)."""
        if source == SOURCE:
            self.counter_group.acknowledge_due()
        elif source in MSI_SOURCES:
            self.enables.acknowledge_due()
        else:
            self.consume_commands()

    def _sync_msi_aborted(self) -> None:
        self.reports.raise_error(GERROR.MSI_CMDQ_ABT_ERR.mask)

    def _cr0_in_effect(self, old: CR0, new: CR0) -> None:
        if old.SMMUEN and not new.SMMUEN:
            self.stalls.terminate()
        if new.EVENTQEN and not old.EVENTQEN:
            self.stalls.retry_unrecorded()
        if new.CMDQEN and not old.CMDQEN:
            self.consume_commands()

    @on_store(GERRORN)
    def _gerrorn_stored(self, old: GERRORN, new: GERRORN) -> None:
        if (old.CMDQ_ERR ^ new.CMDQ_ERR) and not self.reports.error_active(GERROR.CMDQ_ERR.mask):
            self.consume_commands()
        if (old.EVENTQ_ABT_ERR ^ new.EVENTQ_ABT_ERR) and not self.reports.error_active(GERROR.EVENTQ_ABT_ERR.mask):
            self.stalls.retry_unrecorded()

    @on_store(EVENTQ_CONS)
    def _eventq_cons_stored(self, old: EVENTQ_CONS, new: EVENTQ_CONS) -> None:
        self.stalls.retry_unrecorded()

    @on_store(CMDQ_PROD)
    def _cmdq_prod_stored(self, old: CMDQ_PROD, new: CMDQ_PROD) -> None:
        self.consume_commands()

    @on_store(CMDQ_BASE, CMDQ_CONS, EVENTQ_BASE, EVENTQ_PROD, PRIQ_BASE, PRIQ_PROD)
    def _index_stored(self, old: Register, new: Register) -> None:
        """Of our own indices, bits above the wrap flag read as zero (§6.3.28, §6.3.95)."""
        registers = self.registers
        registers[CMDQ_CONS] = registers.raw(CMDQ_CONS) & ~(CMDQ_CONS.RD.mask & ~self.commands.ring().index_mask)
        registers[EVENTQ_PROD] = registers.raw(EVENTQ_PROD) & ~(EVENTQ_PROD.WR.mask & ~self.reports.ring().index_mask)
        registers[PRIQ_PROD] = registers.raw(PRIQ_PROD) & ~(PRIQ_PROD.WR.mask & ~self.pri.ring().index_mask)

    def consume_commands(self) -> None:
        """Commands are handled as they come; a long queue must not keep the bus waiting."""
        if self.commands.consume(COMMAND_BURST):
            if self.wake is not None:
                self.wake()
            else:
                while self.commands.consume(COMMAND_BURST):
                    pass

    # -- translation -----------------------------------------------------------------------------------------

    def translate(self, transaction: Transaction, begun: Begun | None = None) -> Answer:
        """Translate ``transaction`` page by page up to its first fault, and record what is to be recorded.

        ``begun``: it is the rest of what ``direct`` began.
        """
        with self.lock, self.ledger.of(transaction.sid):
            return self.transactions.translate(transaction, begun)

    def unsupported(self, transaction: Transaction) -> Answer:
        """Abort a transaction of a type that is not supported."""
        with self.lock:
            return self.transactions.unsupported(transaction)

    def page_hint(self, hint: PageHint) -> None:
        """Pass a device's hint on to software; while translation is off there is none (§3.12.4.1, §7.3.19)."""
        level = "p" if hint.privileged else "u"
        wanted = {f"{level}R": hint.read, f"{level}W": hint.write, f"{level}X": hint.execute}
        with self.lock:
            if self.registers[CR0ACK].SMMUEN:
                where = {"InputAddr": hint.address & ~0xFFF, "Span": hint.npages}
                self.reports.write(events.record(events.E_PAGE_REQUEST, hint.sid, hint.ssid, **wanted, **where))

    def ats_request(self, request: AtsRequest) -> AtsCompletion:
        """Answer a PCIe ATS translation request (§3.9.1.2)."""
        with self.lock, self.ledger.of(request.sid):
            self.counters.ats_requests += 1
            return self.ats.request(request)

    def page_request(self, request: PageRequest) -> None:
        """Take a PCIe page request or stop marker (chapter 8)."""
        with self.lock:
            self.pri.request(request)
