# SPDX-License-Identifier: Apache-2.0
"""One MSM IOMMU: machine ids, contexts with tables of short descriptors, faults that stall, and V2P operations.

Law: all state is in the instance; a guest's mistake is a value. What its driver and its binding leave open is "chosen"
where it is decided. Not modelled: access control (RPU), locked entries, hardware access flags, prefetching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ... import _core
from ...errors import UsageError
from ...layout import Register
from ...memory import MemoryLike
from ...mmio import Mirror
from ...register_file import Copies, RegisterFile, RegisterMap, as_declared, on_store
from ...sealed import Sealed
from ...watch import Watch
from ..context import Context
from ..counters import StoreCounters
from ..memory_type import MemoryType, Shareability
from ..registers_alone import RegistersAlone
from ..seams import DESCRIPTOR, Seams
from ..stages import PlainStages
from ..standing import Standing
from ..tlb import Tlb
from ..transaction import Answer, Begun, Outcome, Piece, Requests, Transaction
from ..walk import Access, Fault
from ..walk import Mapping as Leaf
from .configuration import ADDRESS_BITS, WORLD, Configuration, Refusal
from .faults import STATUS, Faults
from .features import Features
from .records import kind_of
from .registers import (
    ACTLR,
    BY_NAME,
    CBACR_N,
    CONTEXT_REGISTERS,
    CONTEXTIDR,
    CR,
    CTX_TLBIALL,
    ESR,
    ESRRESTORE,
    FSR,
    FSRRESTORE,
    GLOBAL_TLBIALL,
    IDR,
    M2VCBR_N,
    NMRR,
    PAR,
    PRRR,
    REGISTERS,
    RESUME,
    SCTLR,
    TLBIASID,
    TLBIVA,
    TLBIVAA,
    TLBIVMID,
    TTBCR,
    TTBR0,
    TTBR1,
    V2PPR,
    V2PPW,
    V2PSR,
    V2PUR,
    V2PUW,
)  # fmt: skip

_SUPERSECTION = 24


class MsmIommu(RegistersAlone):
    """An MSM IOMMU over ``memory``, made from named ``features``, or from ID registers, which outweigh them.

    ``interrupt`` is told of each fault that interrupts, who asks by ``on_level`` of the level of its one line.
    """

    size = 0x100000
    OPEN = frozenset({"wake"})

    def __init__(
        self,
        memory: MemoryLike,
        features: Features | None = None,
        *,
        id_registers: Mapping[str, int] | None = None,
        name: str = "iommu0",
        interrupt: Callable[[str], None] | None = None,
        lock: AbstractContextManager[Any] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        watch: Watch | None = None,
        seams: Seams | None = None,
    ) -> None:
        self.name = name
        self.memory = memory
        self.watch = watch = Watch(name, _core.ring(True)) if watch is None else watch
        watch.register_named = lambda offset: self.registers.named(offset)
        self.lock = nullcontext() if lock is None else lock
        self.wake: Callable[[], None] | None = None
        self.seams = seams = Seams() if seams is None else seams
        self.counters = counters = StoreCounters(kind_of=kind_of)
        self.registers = registers = register_file(features, id_registers)
        self.configuration = Configuration(registers)
        entries = 1 << registers[IDR].TLBSIZE
        self.stages = PlainStages(seams.around(memory, DESCRIPTOR), counters, entries, watch)
        self.tlb = self.stages.tlb
        self.faults = Faults(registers, counters, clock, self._translate, watch, seams)
        self.faults.interrupt = interrupt
        self.endpoints = {}
        registers.attach(self)
        seams.bind(_Provoked())
        watch.bind(Standing(registers, self.configuration, self.stages), self.lock)
        self.seal()

    @property
    def direct(self) -> Requests | None:
        """The core walks no short descriptors."""
        return None

    @property
    def stalls(self) -> list[Any]:
        """The transactions that wait for software."""
        return self.faults.stalled()

    @property
    def tlb2(self) -> Tlb[Leaf]:
        """Always empty: there is no stage 2."""
        return self.stages.tlb2

    def on_level(self, changed: Callable[[bool], None]) -> None:
        """Have ``changed`` told of the level of its line."""
        self.faults.line = changed

    # -- the bus side ----------------------------------------------------------------------------------------

    def mirror(self, make: Callable[[int], Mirror]) -> Mirror | None:
        """What register reads return: no read has an effect."""
        return None

    def reset(self) -> None:
        """Registers take their reset values and the TLB is empty, as after power-on."""
        with self.lock:
            self.registers.reset()
            self.configuration.forget()
            self.tlb.clear()
            self.faults.terminate()
            self.faults.settle()

    # -- what stores do --------------------------------------------------------------------------------------

    @on_store(CR)
    def _control_stored(self, old: CR, new: CR) -> None:
        self.configuration.forget()
        self.faults.settle()

    @on_store(M2VCBR_N, CBACR_N, SCTLR, CONTEXTIDR, TTBR0, TTBR1, TTBCR, PRRR, NMRR)
    def _configuration_stored(self, index: int, old: Register, new: Register) -> None:
        self.configuration.forget()

    @on_store(ACTLR)
    def _actlr_stored(self, index: int, old: ACTLR, new: ACTLR) -> None:
        self.configuration.forget()
        self.faults.settle()

    @on_store(FSR)
    def _fsr_stored(self, index: int, old: FSR, new: FSR) -> None:
        self.faults.settle()

    @on_store(FSRRESTORE)
    def _fsr_restored(self, index: int, old: FSRRESTORE, new: FSRRESTORE) -> None:
        self.registers[FSR, index] = new.raw & FSR.clear_mask
        self.faults.settle()

    @on_store(ESR)
    def _esr_stored(self, old: ESR, new: ESR) -> None:
        self.faults.settle()

    @on_store(ESRRESTORE)
    def _esr_restored(self, old: ESRRESTORE, new: ESRRESTORE) -> None:
        self.registers[ESR] = new.raw & ESR.clear_mask
        self.faults.settle()

    @on_store(RESUME)
    def _resumed(self, index: int, old: RESUME, new: RESUME) -> None:
        response = self.configuration.context(index).response(1)
        self.faults.resume(index, response, terminate=bool(new.TNR))

    # -- invalidation; what a context names is of its VMID ---------------------------------------------------

    @on_store(GLOBAL_TLBIALL)
    def _all(self, old: GLOBAL_TLBIALL, new: GLOBAL_TLBIALL) -> None:
        self._count(GLOBAL_TLBIALL)
        self.tlb.clear()

    @on_store(TLBIVMID)
    def _vmid(self, old: TLBIVMID, new: TLBIVMID) -> None:
        self._count(TLBIVMID)
        self.tlb.invalidate_spaces(WORLD, vmid=new.VMID)

    @on_store(CTX_TLBIALL)
    def _context(self, index: int, old: CTX_TLBIALL, new: CTX_TLBIALL) -> None:
        """Chosen: of the context's VMID, whatever its ASID."""
        self._count(CTX_TLBIALL)
        self.tlb.invalidate_spaces(WORLD, vmid=self._vmid_of(index))

    @on_store(TLBIASID)
    def _asid(self, index: int, old: TLBIASID, new: TLBIASID) -> None:
        self._count(TLBIASID)
        self.tlb.invalidate_spaces(WORLD, vmid=self._vmid_of(index), asid=new.ASID)

    @on_store(TLBIVA)
    def _address(self, index: int, old: TLBIVA, new: TLBIVA) -> None:
        self._count(TLBIVA)
        self.tlb.invalidate_range(WORLD, new.VA, 1 << 12, vmid=self._vmid_of(index), asid=new.ASID)

    @on_store(TLBIVAA)
    def _address_of_all(self, index: int, old: TLBIVAA, new: TLBIVAA) -> None:
        self._count(TLBIVAA)
        self.tlb.invalidate_range(WORLD, new.VA, 1 << 12, vmid=self._vmid_of(index))

    def _vmid_of(self, index: int) -> int:
        return self.registers[CBACR_N, index].CBVMID

    def _count(self, register: type[Register]) -> None:
        self.counters.executed[register.__name__] += 1

    # -- V2P operations --------------------------------------------------------------------------------------

    @on_store(V2PPR)
    def _privileged_read(self, index: int, old: V2PPR, new: V2PPR) -> None:
        self._look_up(index, new.VA, Access(privileged=True))

    @on_store(V2PPW)
    def _privileged_write(self, index: int, old: V2PPW, new: V2PPW) -> None:
        self._look_up(index, new.VA, Access(write=True, privileged=True))

    @on_store(V2PUR)
    def _unprivileged_read(self, index: int, old: V2PUR, new: V2PUR) -> None:
        self._look_up(index, new.VA, Access())

    @on_store(V2PUW)
    def _unprivileged_write(self, index: int, old: V2PUW, new: V2PUW) -> None:
        self._look_up(index, new.VA, Access(write=True))

    def _look_up(self, index: int, va: int, access: Access) -> None:
        """PAR as an access of the context would have it; nothing is recorded."""
        registers = self.registers
        hits = self.tlb.counters.hits
        found = self.stages.translate(self.configuration.context(index), va, access)
        registers[V2PSR, index] = V2PSR.of(HIT=self.tlb.counters.hits > hits)
        if isinstance(found, Fault):
            level = FSR.SL.mask if found.level == 2 else 0
            # FSR's bits of kinds are where PAR's are, and bit 0 tells the two forms apart.
            registers[PAR, index] = PAR.FAULT.mask | STATUS[found.kind] | level
            return
        leaf = found.stage1
        if leaf is not None and leaf.shift == _SUPERSECTION:
            raw = found.pa >> _SUPERSECTION << _SUPERSECTION | PAR.SS.mask
        else:
            raw = found.pa & ~0xFFF
        registers[PAR, index] = raw | (0 if leaf is None else _attributes(leaf.memory))

    # -- translation -----------------------------------------------------------------------------------------

    def translate(self, transaction: Transaction, begun: Begun | None = None) -> Answer:
        """Translate ``transaction`` page by page up to its first fault, and record what is to be recorded."""
        with self.lock:
            return self._translate(transaction)

    def unsupported(self, transaction: Transaction) -> Answer:
        """Abort a transaction of a type that is not supported; there is no record of that."""
        with self.lock:
            self.counters.transactions_made += 1
            self.counters.faults += 1
            answer = Answer(Outcome.ABORT)
            self._tell(transaction, answer)
            return answer

    def _translate(self, t: Transaction) -> Answer:
        if self.watch.on:
            self.watch.of_stream(t.sid, t.ssid)
        answer = Answer()
        self.counters.transactions_made += 1
        found = self.configuration.lookup(t.sid)
        if isinstance(found, Refusal):
            self.faults.refuse(t, found, answer)
        elif found is None:
            if t.iova + t.size - 1 >> ADDRESS_BITS:
                self.faults.refuse(t, Refusal(ESR.CFG.mask, 0), answer)  # chosen: there are no such addresses
            else:
                answer.pieces.append(Piece(t.iova, t.size))
                answer.memory.append(t.memory.consistent())
        elif not self.faults.in_the_way(found.number, found.context, t, answer):
            self._pages(found.number, found.context, t, answer)
        self._tell(t, answer)
        return answer

    def _pages(self, number: int, context: Context, t: Transaction, answer: Answer) -> None:
        privileged = t.privileged if context.privileged is None else context.privileged
        access = Access(t.write, privileged, t.instruction and not t.write)
        pieces = self.stages.pieces(context, t.iova, t.size, access, t.memory, None)
        answer.pieces, answer.memory = pieces.pieces, pieces.memory
        if pieces.fault is not None:
            self.faults.fault(number, context, t, pieces.size, access, pieces.fault, answer)

    def _tell(self, t: Transaction, answer: Answer) -> None:
        if self.watch.on:
            pa = answer.pieces[0].pa if answer.pieces else None
            self.watch.translated(t.sid, t.ssid, t.iova, t.size, pa, answer.outcome.value, (0, 0), write=t.write)


def register_file(features: Features | None, id_registers: Mapping[str, int] | None) -> RegisterFile:
    """Registers of ``features``, or of ID registers as they read, which outweigh them. UsageError: there is no such."""
    ids: dict[type[Register], int] = {}
    if features is not None or id_registers is None:
        ids.update((features or Features()).id_registers())
    for name, value in (id_registers or {}).items():
        if name not in BY_NAME:
            raise UsageError(f"there is no register {name}; ID registers are IDR and REV")
        ids[BY_NAME[name]] = value
    idr = IDR(ids.get(IDR, 0))

    def copies(register: type[Register]) -> Copies:
        at, count, stride = as_declared(register)
        if register is M2VCBR_N:
            count = idr.NM2VCBMT
        elif register is CBACR_N or register in CONTEXT_REGISTERS:
            count = idr.NCB
        return Copies(at, count, stride)

    made = RegisterFile(RegisterMap(REGISTERS, copies=copies))
    for register, value in ids.items():
        made.set_reset(register, value)
    return made


def _attributes(memory: MemoryType) -> int:
    """PAR's: MT as inner cacheability has it (0 strongly ordered, 1 device, 4 + …), chosen; SH and NOS."""
    kind = memory.inner if memory.is_device else 4 | memory.inner
    shareable = memory.shareability != Shareability.NON
    return PAR.of(MT=kind, SH=shareable, NOS=memory.shareability == Shareability.INNER).raw


class _Provoked(Sealed):
    """What it does for who sets its seams: it has no commands and no error registers that could be raised alone."""

    def seams_changed(self) -> None:
        """All that is here asks each time."""

    def proceed(self) -> None:
        """No command is held."""

    def raise_error(self, error: str) -> None:
        raise UsageError(f"an MSM IOMMU has no error {error!r}; leave that fault out")

    def may_raise(self, error: str) -> bool:
        return False

    def execute(self, command: Any) -> None:
        raise UsageError("an MSM IOMMU has no commands; leave that fault out")

    def refuses(self, command: Any) -> bool:
        return False
