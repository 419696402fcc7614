# SPDX-License-Identifier: Apache-2.0
"""Registers that take effect when they are acknowledged: CR0, IRQ_CTRL, GBPA, GMPAM, GBPMPAM (IHI 0070 §6.3.9).

Law: each field is updated by itself, once at a time, and is without effect until it is acknowledged.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from ...layout import Register
from ...register_file import GuardCheck, RegisterFile, on_store
from ...sealed import Sealed
from ..seams import Seams
from ..transaction import NO_MPAM
from .registers import CR0, CR0ACK, GBPA, GBPMPAM, GMPAM, IRQ_CTRL, IRQ_CTRLACK, Guard
from .validity import Validity

#: Who sends the MSIs that a field of IRQ_CTRL enables.
MSI_SOURCES = {"gerror": IRQ_CTRL.GERROR_IRQEN, "priq": IRQ_CTRL.PRIQ_IRQEN, "eventq": IRQ_CTRL.EVENTQ_IRQEN}


def _ones(value: int) -> int:
    """As many low bits as ``value`` has."""
    return (1 << value.bit_length()) - 1


@dataclass(slots=True)
class Update:
    """Fields of ``register`` that software has altered, and the register reads until that is acknowledged."""

    register: type[Register]
    mask: int
    reads: int


def guards(raw: Callable[[type[Register]], int]) -> dict[str, GuardCheck]:
    """Which guards are open, by what ``raw`` says of a register (§6.3; those of absent features never matter)."""

    def enabled(mask: int) -> bool:
        return bool((raw(CR0) | raw(CR0ACK)) & mask)

    def irq_enabled(mask: int) -> bool:
        return bool((raw(IRQ_CTRL) | raw(IRQ_CTRLACK)) & mask)

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


class Enables(Sealed):
    """The updates of one SMMU that are under way, and what is in effect meanwhile."""

    OPEN = frozenset({"updates", "_gbpa", "bypass_mpam", "own_mpam"})

    def __init__(
        self, registers: RegisterFile, validity: Validity, unanswered: Counter[str], after: int, seams: Seams
    ) -> None:
        """``after`` register reads find an update not acknowledged yet; ``unanswered``: MSIs by source, see Reports."""
        self.registers = registers
        self.validity = validity
        self._unanswered = unanswered
        self._after = after
        self.seams = seams
        #: What stores have asked for and is not in effect yet, in order.
        self.updates: deque[Update] = deque()
        self._gbpa = GBPA(0)  #: what counts while GBPA.Update is 1
        #: GBPMPAM, and GMPAM (of L1STDs, STEs, VMSs, queues and MSIs), as far as they are in effect (§17.2, §17.4).
        self.bypass_mpam = self.own_mpam = NO_MPAM
        #: Told of CR0ACK's former and new value.
        self.in_effect: Callable[[CR0, CR0], None] = lambda old, new: None
        #: Told whether register reads may go unseen, since none is counted.
        self.gate: Callable[[bool], None] = lambda plain: None

    def reset(self) -> None:
        """Nothing is under way, as after power-on."""
        self.updates.clear()
        self.gate(True)
        self.bypass_mpam = self.own_mpam = NO_MPAM

    def _update(self, register: type[Register], mask: int) -> None:
        """Have a store to fields take effect: now, or after as many register reads as the machine wants."""
        after = None if self.seams.acknowledge is None else self.seams.acknowledge(register.__name__)
        self.updates.append(Update(register, mask, self._after if after is None else after))
        self.acknowledge_due()

    def count_read(self) -> None:
        for update in self.updates:
            update.reads -= 1
        self.acknowledge_due()

    def acknowledge_due(self) -> None:
        """Acknowledge what is due, in order, but for MSIs that are being disabled before they were answered."""
        for update in [each for each in self.updates if each.reads <= 0]:
            waits = self._unanswered_enables() if update.register is IRQ_CTRL else 0
            due, update.mask = update.mask & ~waits, update.mask & waits
            if due:
                self._acknowledge(update.register, due)
        self.updates = deque(each for each in self.updates if each.mask or each.reads > 0)
        self.gate(not self.updates)

    def _unanswered_enables(self) -> int:
        """Fields of IRQ_CTRL that are to fall and whose MSIs' aborts may not be visible yet (§3.18.1)."""
        falling = self.registers.raw(IRQ_CTRLACK) & ~self.registers.raw(IRQ_CTRL)
        return sum(field.mask for source, field in MSI_SOURCES.items() if self._unanswered[source]) & falling

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
            self.in_effect(CR0(old), CR0(registers.raw(ack)))

    @on_store(CR0, IRQ_CTRL)
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
            under_way = next((u for u in self.updates if u.register is register and u.mask & each.mask), None)
            if under_way is None:
                altered |= each.mask
            elif not (new.raw ^ acked) & each.mask:
                under_way.mask &= ~each.mask
            else:
                registers[register] = registers.raw(register) & ~each.mask | old.raw & each.mask
        if altered:
            self._update(register, altered)

    @on_store(GBPA)
    def _gbpa_stored(self, old: GBPA, new: GBPA) -> None:
        if new.Update:
            self._gbpa = old
            self._update(GBPA, GBPA.write_mask)

    @on_store(GMPAM, GBPMPAM)
    def _mpam_stored(self, old: GMPAM | GBPMPAM, new: GMPAM | GBPMPAM) -> None:
        """As GBPA; an identifier has as many bits as its largest value (§6.3.42, §6.3.43)."""
        register, most = type(new), self.validity.mpamidr
        widths = GMPAM.of(SO_PARTID=_ones(most.PARTID_MAX), SO_PMG=_ones(most.PMG_MAX), Update=1)
        self.registers[register] = new.raw & widths.raw
        self._update(register, register.write_mask)

    def gbpa(self) -> GBPA:
        """What transactions go by; while an update is under way, what was there before (§6.3.14.1)."""
        gbpa = self.registers[GBPA]
        return self._gbpa if gbpa.Update else gbpa
