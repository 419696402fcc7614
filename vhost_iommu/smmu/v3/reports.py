# SPDX-License-Identifier: Apache-2.0
"""What an SMMU tells software: event records, global errors, and the interrupts of both (IHI 0070 §7.2 to §7.5, §3.18).

Law: a record that finds no room is lost and counted, and a global error is raised once until it is acknowledged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ...layout import Layout, Register
from ...memory import MemoryLike
from ...register_file import RegisterFile
from ...sealed import Sealed, declared
from ...watch import Watch
from ..queue import Ring
from ..seams import Seams, Verdict
from . import events
from .counters import Counters
from .registers import (
    CR0ACK,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1,
    EVENTQ_PROD,
    GERROR,
    GERROR_IRQ_CFG0,
    GERROR_IRQ_CFG1,
    GERRORN,
    IDR0,
    IDR1,
    IRQ_CTRLACK,
    PRIQ_IRQ_CFG0,
)
from .validity import Validity


@declared
class Reports(Sealed):
    """The event queue, global errors and interrupts of one SMMU."""

    OPEN = frozenset({"_epoch", "failed"})

    def __init__(
        self,
        name: str,
        registers: RegisterFile,
        validity: Validity,
        memory: MemoryLike,
        counters: Counters,
        lock: AbstractContextManager[Any],
        watch: Watch,
        seams: Seams,
    ) -> None:
        self.name = name
        self.registers = registers
        self.validity = validity
        self.memory = memory
        self.counters = counters
        self.lock = lock
        self.watch = watch
        self.seams = seams
        #: Pulses the wired interrupt of a source, where the machine has wires.
        self.interrupt: Callable[[str], None] | None = None
        #: Told of a source, with the lock held, once all its MSIs were written or their aborts are visible.
        self.answered: Callable[[str], None] = lambda source: None
        #: MSIs that were sent and have neither been written nor aborted yet, by source.
        self.unanswered: Counter[str] = Counter()
        self._epoch = 0  #: counts resets
        self.failed = False  #: service failure mode (§12.3)

    def reset(self) -> None:
        """What was sent before is nobody's any more."""
        self._epoch += 1
        self.unanswered.clear()
        self.failed = False

    # -- events (§7.2, §7.4) ---------------------------------------------------------------------------------

    def ring(self) -> Ring:
        base = self.registers[EVENTQ_BASE]
        address = base.ADDR & (1 << self.validity.output_bits) - 1
        return Ring.at(address, min(base.LOG2SIZE, self.registers[IDR1].EVENTQS), events.Event.size)

    def writable(self) -> bool:
        """Whether a record can be written now (§7.2.1)."""
        registers = self.registers
        if self.failed or not registers[CR0ACK].EVENTQEN or self.error_active(GERROR.EVENTQ_ABT_ERR.mask):
            return False
        return not self.ring().full(registers.raw(EVENTQ_PROD), registers.raw(EVENTQ_CONS))

    def write(self, event: Layout, *, stalls: bool = False) -> None:
        """Put ``event`` into the queue, or lose it (§7.2.1, §7.4); ``stalls``: of a stall, which is never lost."""
        if self.failed:
            return
        self.counters.event_made(event)
        number = self.watch.begin() if self.watch.on else None
        kept = self._put(event, stalls)
        if number is not None:
            self.watch.reported(event, kept=kept, number=number)

    def _put(self, event: Layout, stalls: bool) -> bool:
        """Whether it reached the queue."""
        registers = self.registers
        prod, cons = registers[EVENTQ_PROD], registers[EVENTQ_CONS]
        crowded = not stalls and self.seams.room is not None and not self.seams.room("eventq")
        if crowded or not self.writable():
            self.counters.events_lost += 1
            full = crowded or self.ring().full(prod.WR, cons.RD)
            aborted = self.error_active(GERROR.EVENTQ_ABT_ERR.mask)
            if registers[CR0ACK].EVENTQEN and full and not aborted and prod.OVFLG == cons.OVACKFLG:
                registers[EVENTQ_PROD] = prod.replace(OVFLG=prod.OVFLG ^ 1)
            return False
        ring = self.ring()
        if not self.memory.write(ring.slot(prod.WR), event.to_bytes()):
            self.raise_error(GERROR.EVENTQ_ABT_ERR.mask)
            return False
        self.counters.events += 1
        was_empty = ring.empty(prod.WR, cons.RD)
        registers[EVENTQ_PROD] = prod.replace(WR=ring.next(prod.WR & ring.index_mask))
        if was_empty and registers[IRQ_CTRLACK].EVENTQ_IRQEN:
            self.interrupt_by("eventq", EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, GERROR.MSI_EVENTQ_ABT_ERR.mask)
        return True

    # -- global errors and interrupts (§7.5, §3.18) ----------------------------------------------------------

    def error_active(self, mask: int) -> bool:
        return bool((self.registers.raw(GERROR) ^ self.registers.raw(GERRORN)) & mask)

    def raise_error(self, mask: int) -> None:
        """Activate a global error unless it is active already."""
        with self.lock:
            if self.error_active(mask):
                return
            self.registers[GERROR] = self.registers.raw(GERROR) ^ mask
            if self.watch.on:
                self.watch.reported(self.registers[GERROR], kept=True)
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
            self.send_msi(source, address, self.registers.raw(cfg1), partial(self.raise_error, abort))
        self.wire(source)

    def send_msi(self, source: str, address: int, data: int, abort: Callable[[], None]) -> None:
        """Write an MSI; ``abort`` makes it visible that the write has aborted, now or later.

        What waits for the MSI goes on when it has been written, or when its abort is visible (§3.18.1).
        """
        if self.watch.on:
            self.watch.interrupted(source, address, data)
        address &= (1 << self.validity.output_bits) - 1
        epoch = self._epoch
        self.unanswered[source] += 1

        def ended(aborted: bool) -> None:
            with self.lock:
                # What a reset has made past is nobody's error any more.
                if epoch != self._epoch:
                    return
                if aborted:
                    abort()
                self.unanswered[source] -= 1
                if not self.unanswered[source]:
                    self.answered(source)

        post = partial(self.memory.post, address, data.to_bytes(4, "little"), ended)
        verdict = Verdict.EXECUTE if self.seams.message is None else self.seams.message(source, post)
        if verdict is Verdict.EXECUTE:
            post()
        elif verdict is Verdict.IGNORE:
            ended(False)

    def wire(self, source: str) -> None:
        """Pulse the wired interrupt of ``source``, where the machine has wires."""
        if self.interrupt is not None:
            if self.watch.on:
                self.watch.interrupted(source, None, None)
            pulse = partial(self.interrupt, source)
            if self.seams.wire is None or self.seams.wire(source, pulse) is Verdict.EXECUTE:
                pulse()
