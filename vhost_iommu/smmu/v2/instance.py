# SPDX-License-Identifier: Apache-2.0
"""One SMMUv2: registers, stream mapping, context banks, faults and interrupts (IHI 0062).

Law: all state is in the instance; any number live side by side. Not modelled: Secure state, E2H and monitor contexts,
global translation operations, extended stream matching, compressed indices, configuration access faults, global stalls,
hardware updates of descriptors, Performance Monitors, broadcast TLBIs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ... import _core
from ...layout import Register
from ...memory import MemoryLike
from ...register_file import on_load, on_store
from ...sealed import declared, refuse_replaced
from ...watch import Watch
from ..counters import StoreCounters
from ..registers_alone import RegistersAlone
from ..seams import Seams
from ..standing import Standing
from ..transaction import Answer, Begun, Requests, Transaction
from .faults import Faults
from .features import Features
from .identity import register_file
from .interrupts import GLOBAL, Interrupts, context_line
from .invalidation import Invalidation
from .operations import Operations
from .provoked import Provoked
from .records import kind_of
from .registers import (
    CB_CONTEXTIDR,
    CB_FSR,
    CB_FSRRESTORE,
    CB_MAIR0,
    CB_MAIR1,
    CB_RESUME,
    CB_SCTLR,
    CB_TCR,
    CB_TCR2,
    CB_TTBR0,
    CB_TTBR1,
    CBA2R,
    CBAR,
    CR0,
    FAULTS,
    GFSR,
    GFSRRESTORE,
    S2CR,
    SMR,
)
from .transactions import Transactions
from .translator import choose

if TYPE_CHECKING:
    from ..._core.door import Core


@declared
class Smmu(RegistersAlone):
    """An SMMUv2 over ``memory``, made from named ``features`` or from raw ID-register values.

    ``id_registers`` ({"IDR0": 0x…}) replaces what the features give, register by register; what they claim beyond the
    model (see above) is not there. ``stall``: contexts may; None: as the features say. ``interrupt(line)`` is told of
    each fault for which a line is asserted: "global", "context0" and so on; ``line`` of the level of all together.
    ``lock`` guards the instance where several threads use it (re-entrant). ``pure`` has the reference do what the
    compiled core could; None: as the environment says (VHOST_IOMMU_PURE).
    """

    OPEN = frozenset({"wake"})

    def __init__(
        self,
        memory: MemoryLike,
        features: Features | None = None,
        *,
        id_registers: Mapping[str, int] | None = None,
        stall: bool | None = None,
        name: str = "smmu0",
        tlb_entries: int = 4096,
        interrupt: Callable[[str], None] | None = None,
        lock: AbstractContextManager[Any] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        watch: Watch | None = None,
        seams: Seams | None = None,
        pure: bool | None = None,
    ) -> None:
        self.name = name
        self.memory = memory
        #: Where it tells what it does, to whoever looks on.
        self.watch = watch = Watch(name, _core.ring(pure)) if watch is None else watch
        watch.register_named = lambda offset: self.registers.named(offset)
        self.lock = nullcontext() if lock is None else lock
        self.wake: Callable[[], None] | None = None
        #: Where somebody may decide that this SMMU is wrong.
        self.seams = seams = Seams() if seams is None else seams
        self.counters = counters = StoreCounters(kind_of=kind_of)
        may_stall = (features or Features()).stall if stall is None else stall
        registers, frames = register_file(features, id_registers, may_stall)
        self.registers = registers
        self.size = frames.size
        self.may_stall = may_stall
        how = choose(memory, registers, counters, tlb_entries, seams, pure, watch)
        self.core: Core | None = how.core
        self.stages, self.configuration = how.stages, how.configuration
        self.tlb, self.tlb2 = self.stages.tlb, self.stages.tlb2
        self.endpoints = {}
        self.interrupts = Interrupts(registers, frames.banks, counters, watch, seams)
        if interrupt is not None:
            self.interrupts.pulse = interrupt
        self.faults = Faults(
            registers, self.configuration, self.interrupts, counters, clock,
            lambda stalled: self.transactions.translate(stalled), watch, seams,
        )  # fmt: skip
        self.transactions = Transactions(self.configuration, self.stages, self.faults, counters, watch, seams)
        standing = Standing(registers, self.configuration, self.stages, how.core)
        self.invalidation = Invalidation(
            registers, self.configuration, self.stages, counters, watch, seams, standing.waited_for
        )
        self.operations = Operations(registers, self.configuration, self.stages, self.faults, self.transactions.level)
        registers.attach(self.operations)
        registers.attach(self.invalidation)
        registers.attach(self)
        if how.core is not None:
            refuse_replaced(Smmu)
            # Streams are looked up even while the client port is disabled: what passes then is truncated.
            how.core.set_parameters(output_bits=self.configuration.oas, enabled=True, aborts=False)
        seams.bind(Provoked(self.lock, registers, self.stages, self.invalidation, self.interrupts))
        watch.bind(standing, self.lock)
        self.seal()

    @property
    def direct(self) -> Requests | None:
        """For requests in one call."""
        return self.core

    @property
    def stalls(self) -> list[Any]:
        """The transactions that wait for software."""
        return self.faults.stalled()

    def on_level(self, changed: Callable[[bool], None]) -> None:
        """Have ``changed`` told of the level of all lines together."""
        self.interrupts.line = changed

    # -- the bus side ----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Registers take their reset values, where the architecture has none 0, and the caches are empty."""
        with self.lock:
            self.registers.reset()
            self.configuration.forget()
            self.tlb.clear()
            self.tlb2.clear()
            self.faults.terminate()
            self.interrupts.settle()

    # -- stores and loads --------------------------------------------------------------------------------------

    @on_store(SMR, S2CR, CBAR, CBA2R, CB_TCR, CB_TCR2, CB_TTBR0, CB_TTBR1, CB_CONTEXTIDR, CB_MAIR0, CB_MAIR1)
    def _context_stored(self, index: int, old: Register, new: Register) -> None:
        if old != new:
            self.configuration.forget()

    @on_store(CR0)
    def _cr0_stored(self, old: CR0, new: CR0) -> None:
        self.configuration.forget()
        if new.GFIE and not old.GFIE:
            self.interrupts.enabled(GLOBAL)
        self.interrupts.settle()

    @on_store(CB_SCTLR)
    def _sctlr_stored(self, bank: int, old: CB_SCTLR, new: CB_SCTLR) -> None:
        if old != new:
            self.configuration.forget()
        if new.CFIE and not old.CFIE:
            self.interrupts.enabled(context_line(bank))
        self.interrupts.settle()

    @on_store(GFSR)
    def _gfsr_stored(self, old: GFSR, new: GFSR) -> None:
        self.interrupts.settle()

    @on_store(GFSRRESTORE)
    def _gfsr_restored(self, old: GFSRRESTORE, new: GFSRRESTORE) -> None:
        self.registers[GFSR] = new.raw
        self.interrupts.enabled(GLOBAL)
        self.interrupts.settle()

    @on_load(CB_FSR)
    def _fsr_loaded(self, bank: int) -> int:
        return self.registers.raw(CB_FSR, bank) & FAULTS | self.faults.format(bank) << CB_FSR.FORMAT.lsb

    @on_store(CB_FSR)
    def _fsr_stored(self, bank: int, old: CB_FSR, new: CB_FSR) -> None:
        self.interrupts.settle()

    @on_store(CB_FSRRESTORE)
    def _fsr_restored(self, bank: int, old: CB_FSRRESTORE, new: CB_FSRRESTORE) -> None:
        kept = self.registers.raw(CB_FSR, bank) & CB_FSR.SS.mask
        self.registers[CB_FSR, bank] = kept | new.raw & FAULTS & ~CB_FSR.SS.mask
        self.configuration.forget()  # a fault may be in the way of requests now
        self.interrupts.enabled(context_line(bank))
        self.interrupts.settle()

    @on_store(CB_RESUME)
    def _resumed(self, bank: int, old: CB_RESUME, new: CB_RESUME) -> None:
        self.faults.resume(bank, terminate=bool(new.TnR))

    # -- translation -----------------------------------------------------------------------------------------

    def translate(self, transaction: Transaction, begun: Begun | None = None) -> Answer:
        """Translate ``transaction`` page by page up to its first fault, and record what is to be recorded.

        ``begun``: it is the rest of what ``direct`` began. A SubstreamID has no meaning here.
        """
        with self.lock:
            return self.transactions.translate(transaction, begun)

    def unsupported(self, transaction: Transaction) -> Answer:
        """Abort a transaction of a type that is not supported."""
        with self.lock:
            return self.transactions.unsupported(transaction)
