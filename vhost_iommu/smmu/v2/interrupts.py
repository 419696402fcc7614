# SPDX-License-Identifier: Apache-2.0
"""The interrupt lines of one SMMUv2: global faults', and each context bank's (IHI 0062D §3.6).

Law: a line is a level that follows from registers; all of them together are the function's one, and each fault that is
recorded is told besides, for lines that can only pulse.
"""

from __future__ import annotations

from collections.abc import Callable

from ...register_file import RegisterFile
from ...sealed import Sealed
from ...watch import Watch
from ..counters import StoreCounters
from ..seams import Seams, Verdict
from .registers import CB_FSR, CB_SCTLR, CR0, FAULTS, GFSR

GLOBAL = "global"


def context_line(bank: int) -> str:
    return f"context{bank}"


class Interrupts(Sealed):
    """The lines."""

    OPEN = frozenset({"pulse", "line", "_level"})

    def __init__(
        self, registers: RegisterFile, banks: int, counters: StoreCounters, watch: Watch, seams: Seams
    ) -> None:
        self.registers = registers
        self._banks = banks
        self._counters = counters
        self._watch = watch
        self._seams = seams
        #: Told of a line by name each time when a fault is recorded that it is asserted for.
        self.pulse: Callable[[str], None] = lambda line: None
        #: Told of the level of all lines together, when it changes.
        self.line: Callable[[bool], None] = lambda level: None
        self._level = False

    def asserted(self, line: str) -> bool:
        registers = self.registers
        if line == GLOBAL:
            return bool(registers[CR0].GFIE) and bool(registers.raw(GFSR))
        bank = int(line.removeprefix("context"))
        return bool(registers[CB_SCTLR, bank].CFIE) and bool(registers.raw(CB_FSR, bank) & FAULTS)

    def recorded(self, line: str) -> None:
        """A fault was recorded that is the line's."""
        if self.asserted(line):
            self._counters.interrupts += 1
            self._send(line, lambda: self._rise(line))

    def enabled(self, line: str) -> None:
        """The line's interrupt is enabled, or its faults restored, and it may be asserted by that."""
        if self.asserted(line):
            self.pulse(line)

    def _rise(self, line: str) -> None:
        if self._watch.on:
            self._watch.interrupted(line, None, None)
        self.pulse(line)
        self.settle()

    def _send(self, line: str, send: Callable[[], None]) -> None:
        wire = self._seams.wire
        if wire is None or wire(line, send) is Verdict.EXECUTE:
            send()

    def settle(self) -> None:
        """Registers may have changed that lines follow from."""
        level = self.asserted(GLOBAL) or any(self.asserted(context_line(bank)) for bank in range(self._banks))
        if level != self._level:
            self._level = level
            self.line(level)
