# SPDX-License-Identifier: Apache-2.0
"""A Performance Monitor Counter Group of one SMMUv3: counters of what its ledger knows (IHI 0070 chapter 10).

Law: nothing is counted here; a counter is a difference of numbers that grow anyway, taken when software looks. Not
modelled: Secure and Realm state, MPAM, filters by PARTID and PMG, implementation defined events.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ...layout import Register
from ...register_file import RegisterFile, RegisterMap, on_store
from ...sealed import Sealed
from .activity import Followed, Ledger, Streams
from .pmcg_registers import (
    BITS,
    COUNTERS,
    LAYOUTS,
    PAGE1,
    PMCG_CAPR,
    PMCG_CEID0,
    PMCG_CFGR,
    PMCG_CNTENCLR0,
    PMCG_CNTENSET0,
    PMCG_CR,
    PMCG_EVCNTR,
    PMCG_EVTYPER,
    PMCG_INTENCLR0,
    PMCG_INTENSET0,
    PMCG_IRQ_CFG0,
    PMCG_IRQ_CFG1,
    PMCG_IRQ_CTRL,
    PMCG_IRQ_CTRLACK,
    PMCG_IRQ_STATUS,
    PMCG_OVSCLR0,
    PMCG_OVSSET0,
    PMCG_SMR,
    PMCG_SVR,
    MonitorEvent,
    PmcgGuard,
)
from .registers import IDR0
from .reports import Reports

SOURCE = "pmcg"  #: of its interrupt
CYCLES = 1_000_000_000  #: a second
#: No event comes more often in a second, so that an overflow can be awaited; the shortest wait, and what is no wait.
FASTEST, SHORTEST, LONGEST = 1_000_000_000, 0.01, 1 << 32
_FULL = 1 << BITS

#: Has a function called after so many seconds.
Later = Callable[[float, Callable[[], None]], None]


class CounterGroup(Sealed):
    """Counters, each with an event and the streams of which it counts it."""

    size = 2 * PAGE1
    OPEN = frozenset({"_marks", "_due"})

    def __init__(
        self,
        smmu: str,
        idr0: IDR0,
        ledger: Ledger,
        reports: Reports,
        lock: AbstractContextManager[Any],
        clock: Callable[[], float],
        later: Later | None = None,
    ) -> None:
        """``idr0``: the SMMU's; ``later`` None: an overflow is found when software looks."""
        self.name = f"{smmu}-{SOURCE}"
        self.ledger = ledger
        self.reports = reports
        self.lock = lock
        self.clock = clock
        self.later = later
        self.registers = RegisterFile(
            RegisterMap(LAYOUTS, lambda needs: bool(idr0.MSI) or not needs), guards={PmcgGuard.IRQEN: self._unguarded}
        )
        events = [event for event in MonitorEvent if idr0.ATS or event < MonitorEvent.ATS_REQUEST]
        self.registers.set_reset(PMCG_CFGR, int(PMCG_CFGR(PMCG_CFGR.reset).replace(MSI=idr0.MSI)))
        self.registers.set_reset(PMCG_CEID0, sum(1 << event for event in events))
        #: Of each counter that counts: what its event's number was when the counter was as its register says.
        self._marks: dict[int, int] = {}
        self._followed: dict[int, Followed] = {}
        #: When it looks by itself, if it does.
        self._due: float | None = None
        self.registers.attach(self)

    # -- the bus side ----------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        with self.lock:
            self._settle()
            return self.registers.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        with self.lock:
            self._settle()
            self.registers.write(offset, size, value)
            self._begin()

    def reset(self) -> None:
        with self.lock:
            self.registers.reset()
            self._begin()

    # -- counting --------------------------------------------------------------------------------------------

    def _count(self, counter: int) -> int:
        """The number of a counter's event, of its streams."""
        event = self.registers[PMCG_EVTYPER, counter].EVENT
        if event == MonitorEvent.CYCLE:
            return int(self.clock() * CYCLES)
        followed = self._followed.get(counter)
        return (self.ledger.whole() if followed is None else followed.activity())[event - 1]

    def _counting(self) -> list[int]:
        registers = self.registers
        enabled = registers[PMCG_CNTENSET0].CNTEN if registers[PMCG_CR].E else 0
        known = registers[PMCG_CEID0].N
        return [n for n in range(COUNTERS) if enabled >> n & known >> registers[PMCG_EVTYPER, n].EVENT & 1]

    def _begin(self) -> None:
        """Count from now on as registers say; those of filters that stay as they are lose nothing."""
        wanted: dict[int, Streams] = {}
        counting = self._counting()
        for n in counting:
            kind = self.registers[PMCG_EVTYPER, n]
            streams = Streams.of(self.registers.raw(PMCG_SMR, n), bool(kind.FILTER_SID_SPAN))
            if kind.EVENT != MonitorEvent.CYCLE and streams.mask:
                wanted[n] = streams
        for n, followed in list(self._followed.items()):
            if wanted.get(n) != followed.streams:
                self.ledger.unfollow(self._followed.pop(n))
        for n, streams in wanted.items():
            if n not in self._followed:
                self._followed[n] = self.ledger.follow(streams)
        self._marks = {n: self._count(n) for n in counting}
        self._await()

    def _settle(self) -> None:
        """Counters' registers say what has been counted until now, and overflows take place."""
        overflown = 0
        for n, mark in self._marks.items():
            now = self._count(n)
            held = self.registers.raw(PMCG_EVCNTR, n) + now - mark
            self._marks[n] = now
            self.registers[PMCG_EVCNTR, n] = held % _FULL
            overflown |= (held >= _FULL) << n
        if overflown:
            self._overflow(overflown)

    def _overflow(self, counters: int) -> None:
        """The interrupt comes last (§10.2.1)."""
        registers = self.registers
        self._set(PMCG_OVSSET0, PMCG_OVSCLR0, registers.raw(PMCG_OVSSET0) | counters)
        if any(registers[PMCG_EVTYPER, n].OVFCAP for n in range(COUNTERS) if counters >> n & 1):
            self._capture()
        if counters & registers.raw(PMCG_INTENSET0) and registers[PMCG_IRQ_CTRLACK].IRQEN:
            address = registers[PMCG_IRQ_CFG0].ADDR
            if address:
                self.reports.send_msi(SOURCE, address, registers.raw(PMCG_IRQ_CFG1), self._aborted)
            self.reports.wire(SOURCE)

    def _await(self) -> None:
        """Look again before a counter that may interrupt can have overflowed."""
        if self.later is None:
            return
        registers = self.registers
        enabled = registers.raw(PMCG_INTENSET0) if registers[PMCG_IRQ_CTRLACK].IRQEN else 0
        left = [_FULL - registers.raw(PMCG_EVCNTR, n) for n in self._marks if enabled >> n & 1]
        if not left or min(left) > FASTEST * LONGEST:
            return
        after = max(SHORTEST, min(left) / FASTEST)
        due = self.clock() + after
        if self._due is None or due < self._due:
            self._due = due
            self.later(after, self._look)

    def _look(self) -> None:
        with self.lock:
            self._due = None
            self._settle()
            self._await()

    # -- what stores do ----------------------------------------------------------------------------------------

    def _set(self, one: type[Register], other: type[Register], value: int) -> None:
        """Two registers by which software sets and clears the same bits."""
        self.registers[one] = self.registers[other] = value

    @on_store(PMCG_CNTENSET0)
    def _enabled(self, old: PMCG_CNTENSET0, new: PMCG_CNTENSET0) -> None:
        self._set(PMCG_CNTENSET0, PMCG_CNTENCLR0, old.raw | new.raw)

    @on_store(PMCG_CNTENCLR0)
    def _disabled(self, old: PMCG_CNTENCLR0, new: PMCG_CNTENCLR0) -> None:
        self._set(PMCG_CNTENSET0, PMCG_CNTENCLR0, new.raw)

    @on_store(PMCG_INTENSET0)
    def _interrupts_enabled(self, old: PMCG_INTENSET0, new: PMCG_INTENSET0) -> None:
        self._set(PMCG_INTENSET0, PMCG_INTENCLR0, old.raw | new.raw)

    @on_store(PMCG_INTENCLR0)
    def _interrupts_disabled(self, old: PMCG_INTENCLR0, new: PMCG_INTENCLR0) -> None:
        self._set(PMCG_INTENSET0, PMCG_INTENCLR0, new.raw)

    @on_store(PMCG_OVSSET0)
    def _overflows_set(self, old: PMCG_OVSSET0, new: PMCG_OVSSET0) -> None:
        self._set(PMCG_OVSSET0, PMCG_OVSCLR0, old.raw | new.raw)

    @on_store(PMCG_OVSCLR0)
    def _overflows_cleared(self, old: PMCG_OVSCLR0, new: PMCG_OVSCLR0) -> None:
        self._set(PMCG_OVSSET0, PMCG_OVSCLR0, new.raw)

    @on_store(PMCG_CAPR)
    def _captured(self, old: PMCG_CAPR, new: PMCG_CAPR) -> None:
        self.registers[PMCG_CAPR] = 0
        if new.CAPTURE:
            self._capture()

    def _capture(self) -> None:
        for n in range(COUNTERS):
            self.registers[PMCG_SVR, n] = self.registers.raw(PMCG_EVCNTR, n)

    @on_store(PMCG_IRQ_CTRL)
    def _irqs_enabled(self, old: PMCG_IRQ_CTRL, new: PMCG_IRQ_CTRL) -> None:
        self.acknowledge_due()

    def acknowledge_due(self) -> None:
        """IRQEN is acknowledged, but for a fall while an MSI may still abort (§10.5.2.19)."""
        wanted, acked = self.registers[PMCG_IRQ_CTRL].IRQEN, self.registers[PMCG_IRQ_CTRLACK].IRQEN
        if wanted == acked or (not wanted and self.reports.unanswered[SOURCE]):
            return
        if wanted:
            self.registers[PMCG_IRQ_STATUS] = 0
        self.registers[PMCG_IRQ_CTRLACK] = PMCG_IRQ_CTRLACK.of(IRQEN=wanted)

    def _aborted(self) -> None:
        self.registers[PMCG_IRQ_STATUS] = PMCG_IRQ_STATUS.of(IRQ_ABT=1)

    def _unguarded(self, old: int, new: int) -> bool:
        return not (self.registers[PMCG_IRQ_CTRL].IRQEN or self.registers[PMCG_IRQ_CTRLACK].IRQEN)
