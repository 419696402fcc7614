# SPDX-License-Identifier: Apache-2.0
"""One SMMUv3: registers, command and event queues, translation, errors and interrupts (IHI 0070).

Law: all state is in the instance, so any number live side by side; a guest's mistake is a value. Not modelled:
ATOS, DPT, enhanced command queues, permission indirection, 128-bit descriptors, Secure state.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from ... import _core
from ...errors import UsageError
from ...layout import Layout, Register
from ...memory import Memory, MemoryLike
from ...mmio import Mirror
from ...trace import Trace
from ..ats import AtsCompletion, AtsRequest, Endpoint, PageRequest
from ..context import Context
from ..memory_type import MemoryType, override
from ..queue import Ring
from ..register_file import RegisterFile
from ..stages import Stages
from ..transaction import NO_MPAM, Answer, Direct, Mpam, Outcome, PageHint, Piece, Transaction
from ..walk import Access, Cause, Fault, FaultKind
from . import events
from .ats import Ats
from .command_queue import CommandQueue
from .compiled import (
    CONTEXTS,
    DOORBELL_REGISTERS,
    NO_CONTEXT,
    PARAMETERS,
    CompiledConfiguration,
    CompiledCounters,
    CompiledStages,
    access_bits,
    doorbell,
    fault_of,
    memory_type,
    packed_type,
    refusal,
    windows_of,
)
from .configuration import CdFault, Configuration, Refusal, StrictConfiguration
from .counters import Counters
from .features import Features
from .pri import PriQueue
from .registers import (
    BY_NAME,
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR0ACK,
    CR2,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1,
    EVENTQ_PROD,
    GBPA,
    GBPMPAM,
    GERROR,
    GERROR_IRQ_CFG0,
    GERROR_IRQ_CFG1,
    GERRORN,
    GMPAM,
    IDR0,
    IDR1,
    IDR3,
    IDR5,
    IRQ_CTRL,
    IRQ_CTRLACK,
    PRIQ_BASE,
    PRIQ_IRQ_CFG0,
    PRIQ_PROD,
    REGISTERS,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
    Guard,
    met,
)
from .stalls import Stalls
from .validity import Validity

if TYPE_CHECKING:
    from ..._core.door import Core, Doorbell

#: Commands consumed before the bus may have the instance back; the rest follows from ``work``. The costliest, an
#: invalidation in a TLB of as many address spaces as entries, takes some milliseconds.
COMMAND_BURST = 128

#: Every access there is, made once.
_ACCESSES = {key: Access(*key) for key in product((False, True), repeat=3)}

#: Who sends the MSIs that a field of IRQ_CTRL enables.
MSI_SOURCES = {"gerror": IRQ_CTRL.GERROR_IRQEN, "priq": IRQ_CTRL.PRIQ_IRQEN, "eventq": IRQ_CTRL.EVENTQ_IRQEN}

#: Which event a walk's fault becomes.
FAULT_EVENTS: dict[FaultKind, type[events.Event]] = {
    FaultKind.TRANSLATION: events.F_TRANSLATION,
    FaultKind.ADDR_SIZE: events.F_ADDR_SIZE,
    FaultKind.ACCESS: events.F_ACCESS,
    FaultKind.PERMISSION: events.F_PERMISSION,
    FaultKind.WALK_EABT: events.F_WALK_EABT,
    FaultKind.TLB_CONFLICT: events.F_TLB_CONFLICT,
}


def _ones(value: int) -> int:
    """As many low bits as ``value`` has."""
    return (1 << value.bit_length()) - 1


@dataclass(slots=True)
class Update:
    """Fields of ``register`` that software has altered, and the register reads until that is acknowledged."""

    register: type[Register]
    mask: int
    reads: int


class Smmu:
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
        interrupt: Callable[[str], None] | None = None,
        lock: AbstractContextManager[Any] | None = None,
        wake: Callable[[], None] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        trace: Trace | None = None,
        pure: bool | None = None,
    ) -> None:
        self.name = name
        self.memory = memory
        self.trace = trace
        self._mirror: Mirror | None = None
        self._doorbell: Doorbell | None = None
        self.lock: AbstractContextManager[Any] = nullcontext() if lock is None else lock
        self.wake = wake
        self._epoch = 0  #: counts resets
        self._acknowledge_after = acknowledge_after
        #: What stores have asked for and is not in effect yet, in order.
        self._updates: deque[Update] = deque()
        #: MSIs that were sent and have neither been written nor aborted yet, by source.
        self.unanswered: Counter[str] = Counter()
        self._gbpa = GBPA(0)  #: what counts while GBPA.Update is 1
        #: GBPMPAM, and GMPAM (of L1STDs, STEs, VMSs, queues and MSIs), as far as they are in effect (§17.2, §17.4).
        self.bypass_mpam = self.own_mpam = NO_MPAM
        self.clock = clock
        self.interrupt = interrupt
        self.counters = Counters()
        ids: dict[type[Register], int] = {}
        if features is not None or id_registers is None:
            ids.update((features or Features()).id_registers())
        for register_name, value in (id_registers or {}).items():
            if register_name not in BY_NAME:
                known = "IDR0 to IDR5, MPAMIDR, IIDR and AIDR"
                raise UsageError(f"there is no register {register_name}; ID registers are {known}")
            ids[BY_NAME[register_name]] = value
        self.registers = RegisterFile(
            REGISTERS,
            implemented=lambda needs: met(needs, lambda register: ids.get(register, 0)),
            guards=self._guards(),
        )
        for register, value in ids.items():
            self.registers.set_reset(register, value)
        self.registers.on_store(CR0, self._enables_stored)
        self.registers.on_store(IRQ_CTRL, self._enables_stored)
        self.registers.on_store(GBPA, self._gbpa_stored)
        self.registers.on_store(GMPAM, self._mpam_stored)
        self.registers.on_store(GBPMPAM, self._mpam_stored)
        self.registers.on_store(GERRORN, self._gerrorn_stored)
        self.registers.on_store(CMDQ_PROD, self._cmdq_prod_stored)
        for base_or_index in (CMDQ_BASE, CMDQ_CONS, EVENTQ_BASE, EVENTQ_PROD, PRIQ_BASE, PRIQ_PROD):
            self.registers.on_store(base_or_index, self._index_stored)
        self.registers.on_store(EVENTQ_CONS, self._eventq_cons_stored)
        self.validity = Validity(self.registers)
        door = _core.chosen() if pure is None else None if pure else _core.built()
        strict = tlb_conflicts or configuration_conflicts
        #: The compiled core, which needs memory that it can reach by itself.
        core = None if door is None or strict or type(memory) is not Memory else door.Core(tlb_entries, CONTEXTS)
        self.core: Core | None = core
        self.stages: Stages
        self.configuration: Configuration
        if core is None:
            level = self.registers[IDR3].BBML if tlb_conflicts else None
            self.stages = Stages(memory, self.counters, tlb_entries, conflict_level=level)
            lookup = StrictConfiguration if configuration_conflicts else Configuration
            self.configuration = lookup(self.registers, self.validity, memory, self.stages.read_ipa)
        else:
            assert isinstance(memory, Memory)
            self.counters = CompiledCounters(core)
            self.stages = CompiledStages(core, memory, self.counters)
            self.configuration = CompiledConfiguration(core, self.registers, self.validity)
            memory.watch(lambda windows: core.set_windows(windows_of(windows)))
            self.registers.watch(PARAMETERS, self._parameters_changed)
            self.registers.watch(DOORBELL_REGISTERS, self.disarm)
        self.tlb, self.tlb2 = self.stages.tlb, self.stages.tlb2
        self.stalls = Stalls(self)
        self.ats, self.pri = Ats(self), PriQueue(self)
        #: Masters on the ATS interface by StreamID: who is told to forget translations, and of page responses.
        self.endpoints: dict[int, Endpoint] = {}
        self.commands = CommandQueue(self)

    def _parameters_changed(self) -> None:
        """Tell the core; returns when no request of masters is under way that began before."""
        assert self.core is not None
        registers, validity = self.registers, self.validity
        self.core.set_parameters(
            idr0=registers.raw(IDR0),
            idr1=registers.raw(IDR1),
            idr3=registers.raw(IDR3),
            idr5=registers.raw(IDR5),
            mpamidr=validity.mpamidr.raw,
            cr2=registers.raw(CR2),
            strtab_base=registers.raw(STRTAB_BASE),
            strtab_base_cfg=registers.raw(STRTAB_BASE_CFG),
            enabled=bool(registers.raw(CR0ACK) & CR0ACK.SMMUEN.mask),
            gbpa=self.gbpa().raw,
        )

    @property
    def direct(self) -> Direct | None:
        """For requests in one call; a trace needs each translation."""
        return self.core if self.trace is None else None

    # -- the bus side ----------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A register read of ``size`` bytes at ``offset`` in the 128 KiB of pages 0 and 1."""
        self.counters.reads_seen += 1
        if self._doorbell is not None and self._doorbell.rung:
            with self.lock:  # which has us told
                pass
        # One word is read whole without the lock, so a CPU that polls never waits behind a master.
        value = self.registers.read(offset, size)
        if self._updates:
            with self.lock:
                self._count_read()
        if self.trace is not None:
            name = self.registers.named(offset)
            self.trace.emit(self.name, "mmio", f"read {name}", offset=offset, size=size, value=value)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """A register write; guarded and read-only bits keep what they hold."""
        if self.trace is not None:
            name = self.registers.named(offset)
            self.trace.emit(self.name, "mmio", f"write {name}", offset=offset, size=size, value=value)
        with self.lock:
            self.counters.writes_seen += 1
            self.registers.write(offset, size, value)

    def mirror(self, make: Callable[[int], Mirror]) -> Mirror | None:
        """What register reads return, while they have no effect on updates that are under way; None when traced."""
        if self.trace is not None:
            return None
        with self.lock:
            if self._mirror is None:
                self._mirror = made = make(self.size)
                self.registers.mirror(made)
                self.counters.reads_mirrored = lambda: made.reads
                self._gate_mirror()
                if self.core is not None:
                    self._doorbell = doorbell(self.lock, self.core, made, COMMAND_BURST, self._rung)
                    if self._doorbell is not None:
                        assert isinstance(self.counters, CompiledCounters)
                        self.counters.by_doorbell = counts = self._doorbell.counts
                        self.counters.writes_carried_out = lambda: counts()[0]
            return self._mirror

    def _rung(self, prod: int, cons: int, aborted: bool) -> None:
        """The core has carried out writes of CMDQ_PROD; ``aborted``: a CMD_SYNC's MSI was."""
        self.registers[CMDQ_PROD] = prod
        self.registers[CMDQ_CONS] = cons
        if aborted:
            self.raise_error(GERROR.MSI_CMDQ_ABT_ERR.mask)

    def disarm(self) -> None:
        """Have writes of CMDQ_PROD come here again."""
        if self._doorbell is not None:
            self._doorbell.disarm()

    def arm(self) -> None:
        """For who has consumed all commands: let the core carry out writes of CMDQ_PROD, if it may."""
        bell, registers, commands = self._doorbell, self.registers, self.commands
        if bell is None or not (commands.running() and commands.may_sync()):
            return
        ring = commands.ring()
        bell.arm(
            registers.raw(CMDQ_PROD),
            CMDQ_PROD.write_mask,
            registers.raw(CMDQ_CONS),
            ring.base,
            ring.bits,
            commands.vmid_mask(),
            self.interrupt is None,
        )

    def _gate_mirror(self) -> None:
        """While updates are under way each read counts, and must be seen."""
        if self._mirror is not None:
            self._mirror.plain = not self._updates

    def reset(self) -> None:
        """Registers take their reset values and the caches are empty, as after power-on."""
        with self.lock:
            self._epoch += 1
            self.registers.reset()
            self._updates.clear()
            self._gate_mirror()
            self.bypass_mpam = self.own_mpam = NO_MPAM
            self.unanswered.clear()
            self.configuration.invalidate_all()
            self.tlb.clear()
            self.tlb2.clear()
            self.ats.reset()
            self.stalls.terminate()

    def work(self) -> bool:
        """Go on with commands that a store left for later; whether more are left, for another call."""
        with self.lock:
            return self.commands.consume(COMMAND_BURST)

    # -- stores with a meaning (§6.3) ------------------------------------------------------------------------

    def _guards(self) -> dict[str, Callable[[int, int], bool]]:
        """Which guards are open (§6.3; those of features that are absent never matter)."""

        def enabled(mask: int) -> bool:
            return bool((self.registers.raw(CR0) | self.registers.raw(CR0ACK)) & mask)

        def irq_enabled(mask: int) -> bool:
            return bool((self.registers.raw(IRQ_CTRL) | self.registers.raw(IRQ_CTRLACK)) & mask)

        queues = CR0.CMDQEN.mask | CR0.EVENTQEN.mask | CR0.PRIQEN.mask
        return {
            Guard.SMMUEN: lambda old, new: not enabled(CR0.SMMUEN.mask),
            Guard.CMDQEN: lambda old, new: not enabled(CR0.CMDQEN.mask),
            Guard.EVENTQEN: lambda old, new: not enabled(CR0.EVENTQEN.mask),
            Guard.PRIQEN: lambda old, new: not enabled(CR0.PRIQEN.mask),
            Guard.QUEUES: lambda old, new: not enabled(queues),
            Guard.IRQ_GERROR: lambda old, new: not irq_enabled(IRQ_CTRL.GERROR_IRQEN.mask),
            Guard.IRQ_EVENTQ: lambda old, new: not irq_enabled(IRQ_CTRL.EVENTQ_IRQEN.mask),
            Guard.IRQ_PRIQ: lambda old, new: not irq_enabled(IRQ_CTRL.PRIQ_IRQEN.mask),
            Guard.UPDATE: lambda old, new: bool(new & GBPA.Update.mask) and not old & GBPA.Update.mask,
        }

    def _in_effect(self, register: type[Register], mask: int) -> None:
        """Have a store to fields take effect: now, or after as many register reads as the machine wants."""
        self._updates.append(Update(register, mask, self._acknowledge_after))
        self._acknowledge_due()

    def _count_read(self) -> None:
        for update in self._updates:
            update.reads -= 1
        self._acknowledge_due()

    def _acknowledge_due(self) -> None:
        """Acknowledge what is due, in order, but for MSIs that are being disabled before they were answered."""
        for update in [each for each in self._updates if each.reads <= 0]:
            waits = self._unanswered_enables() if update.register is IRQ_CTRL else 0
            due, update.mask = update.mask & ~waits, update.mask & waits
            if due:
                self._acknowledge(update.register, due)
        self._updates = deque(each for each in self._updates if each.mask or each.reads > 0)
        self._gate_mirror()

    def _unanswered_enables(self) -> int:
        """Fields of IRQ_CTRL that are to fall and whose MSIs' aborts may not be visible yet (§3.18.1)."""
        falling = self.registers.raw(IRQ_CTRLACK) & ~self.registers.raw(IRQ_CTRL)
        return sum(field.mask for source, field in MSI_SOURCES.items() if self.unanswered[source]) & falling

    def _acknowledge(self, register: type[Register], mask: int) -> None:
        """Fields of CR0, IRQ_CTRL or a register with Update are in effect as they are stored."""
        registers = self.registers
        if register in (GBPA, GMPAM, GBPMPAM):
            registers[register] = registers.raw(register) & ~GBPA.Update.mask
            if register is GMPAM:
                own = registers[GMPAM]
                self.own_mpam = self.validity.mpam(own.SO_PARTID, own.SO_PMG)
            elif register is GBPMPAM:
                bypass = registers[GBPMPAM]
                self.bypass_mpam = self.validity.mpam(bypass.GBP_PARTID, bypass.GBP_PMG)
            return
        ack = CR0ACK if register is CR0 else IRQ_CTRLACK
        old = registers.raw(ack)
        registers[ack] = old & ~mask | registers.raw(register) & mask
        if register is CR0:
            self._cr0_in_effect(CR0(old), CR0(registers.raw(ack)))

    def _enables_stored(self, old: CR0 | IRQ_CTRL, new: CR0 | IRQ_CTRL) -> None:
        """Each field is updated by itself, once at a time (§6.3.9).

        A field that gets its former value again while it is being updated ceases to be; another value is ignored.
        """
        register, registers = type(new), self.registers
        acked = registers.raw(CR0ACK if register is CR0 else IRQ_CTRLACK)
        altered = 0
        for each in register.fields:
            if not (old.raw ^ new.raw) & each.mask:
                continue
            under_way = next((u for u in self._updates if u.register is register and u.mask & each.mask), None)
            if under_way is None:
                altered |= each.mask
            elif not (new.raw ^ acked) & each.mask:
                under_way.mask &= ~each.mask
            else:
                registers[register] = registers.raw(register) & ~each.mask | old.raw & each.mask
        if altered:
            self._in_effect(register, altered)

    def _cr0_in_effect(self, old: CR0, new: CR0) -> None:
        if old.SMMUEN and not new.SMMUEN:
            self.stalls.terminate()
        if new.EVENTQEN and not old.EVENTQEN:
            self.stalls.retry_unrecorded()
        if new.CMDQEN and not old.CMDQEN:
            self.consume_commands()

    def _gbpa_stored(self, old: GBPA, new: GBPA) -> None:
        if new.Update:
            self._gbpa = old
            self._in_effect(GBPA, GBPA.write_mask)

    def _mpam_stored(self, old: GMPAM | GBPMPAM, new: GMPAM | GBPMPAM) -> None:
        """As GBPA; an identifier has as many bits as its largest value (§6.3.42, §6.3.43)."""
        register, most = type(new), self.validity.mpamidr
        widths = GMPAM.of(SO_PARTID=_ones(most.PARTID_MAX), SO_PMG=_ones(most.PMG_MAX), Update=1)
        self.registers[register] = new.raw & widths.raw
        self._in_effect(register, register.write_mask)

    def gbpa(self) -> GBPA:
        """What transactions go by; while an update is under way, what was there before (§6.3.14.1)."""
        gbpa = self.registers[GBPA]
        return self._gbpa if gbpa.Update else gbpa

    def _gerrorn_stored(self, old: GERRORN, new: GERRORN) -> None:
        if (old.CMDQ_ERR ^ new.CMDQ_ERR) and not self.error_active(GERROR.CMDQ_ERR.mask):
            self.consume_commands()
        if (old.EVENTQ_ABT_ERR ^ new.EVENTQ_ABT_ERR) and not self.error_active(GERROR.EVENTQ_ABT_ERR.mask):
            self.stalls.retry_unrecorded()

    def _eventq_cons_stored(self, old: EVENTQ_CONS, new: EVENTQ_CONS) -> None:
        self.stalls.retry_unrecorded()

    def _cmdq_prod_stored(self, old: CMDQ_PROD, new: CMDQ_PROD) -> None:
        self.consume_commands()

    def _index_stored(self, old: Register, new: Register) -> None:
        """Of our own indices, bits above the wrap flag read as zero (§6.3.28, §6.3.95)."""
        registers = self.registers
        registers[CMDQ_CONS] = registers.raw(CMDQ_CONS) & ~(CMDQ_CONS.RD.mask & ~self.commands.ring().index_mask)
        registers[EVENTQ_PROD] = registers.raw(EVENTQ_PROD) & ~(EVENTQ_PROD.WR.mask & ~self.event_ring().index_mask)
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

    def translate(self, transaction: Transaction) -> Answer:
        """Translate ``transaction`` page by page up to its first fault, and record what is to be recorded."""
        with self.lock:
            return self.retranslate(transaction)

    def unsupported(self, transaction: Transaction) -> Answer:
        """Abort a transaction of a type that is not supported; recorded even while translation is off (§7.3.2)."""
        t, answer = transaction, Answer(Outcome.ABORT)
        with self.lock:
            self.counters.transactions += 1
            self.counters.faults += 1
            if not t.translated:
                attributes = {"PnU": t.privileged, "InD": t.instruction, "RnW": not t.write}
                self._record(events.record(events.F_UUT, t.sid, t.ssid, **attributes, InputAddr=t.iova), answer)
            if self.trace is not None:
                self._trace_answer(t, answer)
        return answer

    def page_hint(self, hint: PageHint) -> None:
        """Pass a device's hint on to software; while translation is off there is none (§3.12.4.1, §7.3.19)."""
        level = "p" if hint.privileged else "u"
        wanted = {f"{level}R": hint.read, f"{level}W": hint.write, f"{level}X": hint.execute}
        with self.lock:
            if self.registers[CR0ACK].SMMUEN:
                where = {"InputAddr": hint.address & ~0xFFF, "Span": hint.npages}
                self.write_event(events.record(events.E_PAGE_REQUEST, hint.sid, hint.ssid, **wanted, **where))

    def ats_request(self, request: AtsRequest) -> AtsCompletion:
        """Answer a PCIe ATS translation request (§3.9.1.2)."""
        with self.lock:
            return self.ats.request(request)

    def page_request(self, request: PageRequest) -> None:
        """Take a PCIe page request or stop marker (chapter 8)."""
        with self.lock:
            self.pri.request(request)

    def retranslate(self, transaction: Transaction) -> Answer:
        """``translate`` for a stalled transaction's retry; the caller holds the lock."""
        answer = self._translate(transaction)
        if self.trace is not None:
            self._trace_answer(transaction, answer)
        return answer

    def _translate(self, t: Transaction) -> Answer:
        answer = Answer()
        registers = self.registers
        if self.core is None or t.translated:  # the core counts its own
            self.counters.transactions += 1
        if t.translated:
            if t.ssid is None or not registers[IDR3].PASIDTT:
                # Without a PASID such a transaction is unprivileged data (§3.9.1.3).
                t = replace(t, ssid=None, privileged=False, instruction=False)
            split = self.ats.translated(t, answer)
            if isinstance(split, CdFault):
                self._fault(split.context, t, t.iova, self._access(split.context, t), split.fault, answer)
                return answer
            return answer if split is None else self._pages(split, t, answer)
        if self.core is not None:
            return self._translate_compiled(t, answer)
        if not registers.raw(CR0ACK) & CR0ACK.SMMUEN.mask:
            if self.gbpa().ABORT or (t.iova + t.size - 1) >> self.validity.output_bits:
                answer.outcome = Outcome.ABORT
            else:
                answer.pieces.append(Piece(t.iova, t.size))
                answer.memory.append(self._bypass_memory(t))
                answer.mpam = self.bypass_mpam
            return answer
        context = self.configuration.lookup(t.sid, t.ssid)
        if isinstance(context, Refusal):
            return self._refused(context, answer)
        if isinstance(context, CdFault):
            self._fault(context.context, t, t.iova, self._access(context.context, t), context.fault, answer)
            return answer
        return self._pages(context, t, answer)

    def _refused(self, refused: Refusal, answer: Answer) -> Answer:
        self.counters.faults += 1
        answer.outcome = Outcome.ABORT
        hidden = isinstance(refused.event, events.C_BAD_STREAMID) and not self.registers[CR2].RECINVSID
        if refused.event is not None and not hidden:
            self._record(refused.event, answer)
        return answer

    def _translate_compiled(self, t: Transaction, answer: Answer) -> Answer:
        """The same by the core: its pieces, and what it says of a fault."""
        assert self.core is not None
        assert isinstance(self.configuration, CompiledConfiguration)
        pieces, mpam, ended = self.core.pieces(t.sid, t.ssid, t.iova, t.size, access_bits(t), packed_type(t.memory))
        answer.pieces = [Piece(pa, size) for pa, size, _ in pieces]
        answer.memory = [memory_type(packed) for _, _, packed in pieces]
        answer.mpam = Mpam(*mpam) if self.registers.raw(CR0ACK) & CR0ACK.SMMUEN.mask else self.bypass_mpam
        if ended is None:
            return answer
        _, done, access, event, ssid, fetch, fault, held = ended
        if fault is not None:
            assert held is not None
            context = self.configuration.context(held)
            values = _ACCESSES[bool(access & 1), bool(access & 2), bool(access & 4)]
            self._fault(context, t, t.iova + done & 2**64 - 1, values, fault_of(fault), answer)
            return answer
        if event or ended[0] == NO_CONTEXT:
            return self._refused(refusal(t.sid, event, ssid, fetch), answer)
        answer.outcome = Outcome.ABORT
        answer.mpam = NO_MPAM
        return answer

    def _bypass_memory(self, t: Transaction) -> MemoryType:
        """What GBPA makes of a memory type while the SMMU is disabled (§13.2)."""
        if not self.registers[IDR1].ATTR_TYPES_OVR:
            return t.memory.consistent()
        gbpa = self.gbpa()
        return override(t.memory, replace_type=bool(gbpa.MTCFG), memattr=gbpa.MemAttr, shcfg=gbpa.SHCFG)

    def _pages(self, context: Context, t: Transaction, answer: Answer) -> Answer:
        """Translate page by page up to the first fault."""
        answer.mpam = context.mpam
        access = self._access(context, t)
        address, left = t.iova, t.size
        while left > 0:
            self.counters.translations += 1
            found = self.stages.translate(context, address, access)
            if isinstance(found, Fault):
                self._fault(context, t, address, access, found, answer)
                return answer
            size = min(found.size, left)
            memory = self.stages.memory_of(context, found, t.memory)
            last = answer.pieces[-1] if answer.pieces else None
            if last is not None and last.pa + last.size == found.pa and answer.memory[-1] == memory:
                answer.pieces[-1] = Piece(last.pa, last.size + size)
            else:
                answer.pieces.append(Piece(found.pa, size))
                answer.memory.append(memory)
            address = (address + size) & 2**64 - 1
            left -= size
        return answer

    @staticmethod
    def _access(context: Context, t: Transaction) -> Access:
        """What is asked, after STE.PRIVCFG and INSTCFG (§13.1.2); a write is always data."""
        privileged = t.privileged if context.privileged is None else context.privileged
        instruction = t.instruction if context.instruction is None else context.instruction
        return _ACCESSES[t.write, privileged, instruction and not t.write]

    def _fault(
        self, context: Context, t: Transaction, address: int, access: Access, fault: Fault, answer: Answer
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
        answer.outcome = Outcome.ABORT
        recorded, stalls = True, False
        if fault.kind is FaultKind.WALK_EABT:
            # A stage 1 walk is the cause of its own abort (§7.3.12).
            values.update(CLASS=Cause.TT if fault.stage == 1 else fault.cause, FetchAddr=fault.fetch)
        elif fault.kind is FaultKind.TLB_CONFLICT:
            del values["CLASS"]
            values["IPA"] = fault.ipa & ~0xFFF
        else:
            if fault.stage == 2:
                values["IPA"] = fault.ipa & ~0xFFF
                if fault.kind is FaultKind.PERMISSION and fault.cause is Cause.TT:
                    values["TTRnW"] = int(not fault.table_write)
            # Only a stage that translates says how its faults end; a bypassed stage 1 aborts and records.
            if fault.stage == 2 and context.stage2 is not None:
                recorded, stalls = context.stage2.record, context.stage2.stall
            elif fault.stage == 1 and context.stage1 is not None:
                recorded, stalls = context.stage1.record, context.stage1.stall
                answer.outcome = Outcome.ABORT if context.stage1.abort else Outcome.RAZ_WI
        kind = FAULT_EVENTS[fault.kind]
        if stalls:
            self.stalls.add(t, address, events.record(kind, t.sid, t.ssid, **values, STALL=1), answer)
        elif recorded:
            self._record(events.record(kind, t.sid, t.ssid, **values), answer)

    def _trace_answer(self, t: Transaction, answer: Answer) -> None:
        assert self.trace is not None
        who = {"sid": t.sid} if t.ssid is None else {"sid": t.sid, "ssid": t.ssid}
        what = {**who, "iova": t.iova, "size": t.size}
        where = {"pa": answer.pieces[0].pa} if answer.pieces else {}
        if answer.mpam != NO_MPAM:
            where.update(partid=answer.mpam.partid, pmg=answer.mpam.pmg)
        name = "write" if t.write else "read"
        self.trace.emit(self.name, "translation", name, **what, **where, outcome=answer.outcome.value)

    # -- events (§7.2, §7.4) ---------------------------------------------------------------------------------

    def event_ring(self) -> Ring:
        base = self.registers[EVENTQ_BASE]
        address = base.ADDR & (1 << self.validity.output_bits) - 1
        return Ring.at(address, min(base.LOG2SIZE, self.registers[IDR1].EVENTQS), events.Event.size)

    def event_queue_writable(self) -> bool:
        """Whether a record can be written now (§7.2.1)."""
        registers = self.registers
        if not registers[CR0ACK].EVENTQEN or self.error_active(GERROR.EVENTQ_ABT_ERR.mask):
            return False
        return not self.event_ring().full(registers.raw(EVENTQ_PROD), registers.raw(EVENTQ_CONS))

    def _record(self, event: events.Event, answer: Answer) -> None:
        answer.events.append(event)
        self.write_event(event)

    def write_event(self, event: Layout) -> None:
        """Put ``event`` into the queue, or lose it (§7.2.1, §7.4)."""
        if self.trace is not None:
            shown = {name: value for name, value in event.values().items() if name != "TYPE"}
            self.trace.emit(self.name, "fault", type(event).__name__, **shown)
        registers = self.registers
        prod, cons = registers[EVENTQ_PROD], registers[EVENTQ_CONS]
        if not self.event_queue_writable():
            self.counters.events_lost += 1
            full = self.event_ring().full(prod.WR, cons.RD)
            aborted = self.error_active(GERROR.EVENTQ_ABT_ERR.mask)
            if registers[CR0ACK].EVENTQEN and full and not aborted and prod.OVFLG == cons.OVACKFLG:
                registers[EVENTQ_PROD] = prod.replace(OVFLG=prod.OVFLG ^ 1)
            return
        ring = self.event_ring()
        if not self.memory.write(ring.slot(prod.WR), event.to_bytes()):
            self.raise_error(GERROR.EVENTQ_ABT_ERR.mask)
            return
        self.counters.events += 1
        was_empty = ring.empty(prod.WR, cons.RD)
        registers[EVENTQ_PROD] = prod.replace(WR=ring.next(prod.WR & ring.index_mask))
        if was_empty and registers[IRQ_CTRLACK].EVENTQ_IRQEN:
            self.interrupt_by("eventq", EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, GERROR.MSI_EVENTQ_ABT_ERR.mask)

    # -- global errors and interrupts (§7.5, §3.18) ----------------------------------------------------------

    def error_active(self, mask: int) -> bool:
        return bool((self.registers.raw(GERROR) ^ self.registers.raw(GERRORN)) & mask)

    def raise_error(self, mask: int) -> None:
        """Activate a global error unless it is active already."""
        with self.lock:
            if self.error_active(mask):
                return
            self.registers[GERROR] = self.registers.raw(GERROR) ^ mask
            if self.trace is not None:
                self.trace.emit(self.name, "fault", "GERROR", value=self.registers.raw(GERROR))
            # Telling of an aborted GERROR MSI by another one would only abort again.
            if mask != GERROR.MSI_GERROR_ABT_ERR.mask and self.registers[IRQ_CTRLACK].GERROR_IRQEN:
                self.interrupt_by("gerror", GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR.MSI_GERROR_ABT_ERR.mask)

    def interrupt_by(
        self,
        source: str,
        cfg0: type[GERROR_IRQ_CFG0 | EVENTQ_IRQ_CFG0 | PRIQ_IRQ_CFG0],
        cfg1: type[Register],
        abort: int,
    ) -> None:
        """An MSI where one is configured, and the wire; each only where it exists."""
        self.counters.interrupts += 1
        address = self.registers[cfg0].ADDR
        if self.registers[IDR0].MSI and address:
            self.send_msi(source, address, self.registers.raw(cfg1), abort)
        self.wire(source)

    def send_msi(self, source: str, address: int, data: int, abort: int) -> None:
        """Write an MSI; ``abort`` is the global error that follows if the write aborts, now or later.

        What waits for the MSI goes on when it has been written, or when its abort is visible in GERROR (§3.18.1).
        """
        if self.trace is not None:
            self.trace.emit(self.name, "interrupt", f"MSI {source}", address=address, data=data)
        address &= (1 << self.validity.output_bits) - 1
        epoch = self._epoch
        self.unanswered[source] += 1

        def ended(aborted: bool) -> None:
            with self.lock:
                # What a reset has made past is nobody's error any more.
                if epoch != self._epoch:
                    return
                if aborted:
                    self.raise_error(abort)
                self.unanswered[source] -= 1
                if self.unanswered[source]:
                    return
                if source in MSI_SOURCES:
                    self._acknowledge_due()
                else:
                    self.consume_commands()

        self.memory.post(address, data.to_bytes(4, "little"), ended)

    def wire(self, source: str) -> None:
        """Pulse the wired interrupt of ``source``, where the machine has wires."""
        if self.interrupt is not None:
            if self.trace is not None:
                self.trace.emit(self.name, "interrupt", f"wire {source}")
            self.interrupt(source)
