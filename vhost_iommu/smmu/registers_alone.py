# SPDX-License-Identifier: Apache-2.0
"""What models share that software drives by registers alone: no queues, no messages, no ATS, nothing left for later."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..mmio import MmioDevice
from ..register_file import RegisterFile
from ..sealed import Sealed
from ..watch import Watch
from .ats import AtsCompletion, AtsRequest, AtsStatus, Endpoint, PageRequest
from .counters import StoreCounters
from .transaction import PageHint


class RegistersAlone(Sealed):
    """The bus side of one instance; derive, and make the parts that are named here."""

    counters: StoreCounters
    lock: AbstractContextManager[Any]
    registers: RegisterFile
    watch: Watch
    #: Masters on the ATS interface, which is not there: they are answered so.
    endpoints: dict[int, Endpoint]
    companions: Sequence[tuple[int, MmioDevice]] = ()

    def read(self, offset: int, size: int) -> int:
        """A register read of ``size`` bytes at ``offset``."""
        self.counters.mmio_reads += 1
        # One word is read whole without the lock, so a CPU that polls never waits behind a master.
        value = self.registers.read(offset, size)
        if self.watch.on:
            self.watch.accessed(self.registers.named(offset), offset, size, value, write=False)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """A register write; read-only bits keep what they hold."""
        with self.lock:
            if self.watch.on:
                self.watch.accessed(self.registers.named(offset), offset, size, value, write=True)
            self.counters.mmio_writes += 1
            self.registers.write(offset, size, value)

    def work(self) -> bool:
        """Nothing is ever left for later."""
        return False

    def page_hint(self, hint: PageHint) -> None:
        """There is nobody to tell."""

    def ats_request(self, request: AtsRequest) -> AtsCompletion:
        """There is no ATS."""
        return AtsCompletion(AtsStatus.UR)

    def page_request(self, request: PageRequest) -> None:
        """There is no PRI."""
