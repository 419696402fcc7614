# SPDX-License-Identifier: Apache-2.0
"""The compiled core in the reference's clothes: configuration, translation and TLBs of one SMMU.

Law: holds no meaning of its own. What the core answers becomes the reference's own values, so everything around a
translation (events, stalls, ATS, commands) is the same code over both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ... import _core
from ...memory import Buffer, Memory, Window
from ...mmio import Mirror
from ...register_file import RegisterFile
from ..context import Context, Response
from ..memory_type import MemoryType
from ..stages import STAGE2_WORLD, Output, Stages
from ..tlb import Space, Tlb, TlbCounters
from ..transaction import Mpam, Transaction
from ..walk import Access, Cause, Fault, FaultKind, Mapping
from . import events
from .configuration import CdFault, Configuration, Refusal
from .counters import Counters
from .registers import (
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0ACK,
    CR2,
    GBPA,
    GERROR,
    GERRORN,
    IDR0,
    IDR1,
    IDR3,
    IDR5,
    MPAMIDR,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
)
from .structures import CD, STE
from .validity import StreamWorld, Validity

if TYPE_CHECKING:
    from ..._core import door

#: Contexts that are cached; more than the reference has, as each is small and none is made in a hurry.
CONTEXTS = 4096

#: How a request ended (enum vi_end of core.h).
DISABLED, NO_CONTEXT = 1, 2

#: Told of CMDQ_PROD and CMDQ_CONS as a doorbell has left them, and whether the MSI of a CMD_SYNC was aborted.
Rung = Callable[[int, int, bool], None]

#: Registers from which the core's parameters come.
PARAMETERS = (IDR0, IDR1, IDR3, IDR5, MPAMIDR, CR2, STRTAB_BASE, STRTAB_BASE_CFG, CR0ACK, GBPA)

#: By enum vi_fault_kind and by vi_memory_type (core.h).
_KINDS = (None, *FaultKind)
_TYPES = tuple(MemoryType(packed >> 2 & 3, packed & 3, packed >> 4) for packed in range(64))

#: By VI_ABORTS, VI_RECORDS and VI_STALLS.
RESPONSES = tuple(Response(bool(bits & 1), bool(bits & 2), bool(bits & 4)) for bits in range(8))

_USER, _WRITABLE, _READABLE, _CLEAN, _NOT_GLOBAL, _PXN, _UXN = 1, 2, 4, 8, 32, 64, 128


def access_bits(access: Access | Transaction) -> int:
    """VI_WRITE, VI_PRIVILEGED, VI_INSTRUCTION."""
    return access.write | access.privileged << 1 | access.instruction << 2


def packed_type(memory: MemoryType) -> int:
    """A memory type as core.h has it."""
    return memory.shareability << 4 | memory.outer << 2 | memory.inner


def memory_type(packed: int) -> MemoryType:
    return _TYPES[packed]


def fault_of(raw: door.RawFault) -> Fault:
    kind, level, stage, cause, ipa, fetch, table_write = raw
    known = _KINDS[kind]
    assert known is not None
    return Fault(known, level, stage, Cause(cause), ipa, fetch, table_write)


def _mapping(raw: door.RawMapping) -> Mapping:
    base, shift, output, granule_bits, level, descriptor, at, flags, attributes, shareability, memory = raw
    return Mapping(
        base=base,
        shift=shift,
        output=output,
        granule_bits=granule_bits,
        level=level,
        descriptor=descriptor,
        descriptor_at=at,
        readable=bool(flags & _READABLE),
        writable=bool(flags & _WRITABLE),
        clean=bool(flags & _CLEAN),
        user=bool(flags & _USER),
        uxn=bool(flags & _UXN),
        pxn=bool(flags & _PXN),
        not_global=bool(flags & _NOT_GLOBAL),
        attributes=attributes,
        shareability=shareability,
        memory=_TYPES[memory],
    )


def refusal(sid: int, kind: int, ssid: int | None, fetch: int) -> Refusal:
    """What the core refused, with its record."""
    if not kind:
        return Refusal()
    values = {"FetchAddr": fetch} if fetch else {}
    if ssid is not None:
        values["SSID"] = ssid  # which C_BAD_SUBSTREAMID has without SSV
    return Refusal(events.record(events.EVENTS[kind], sid, ssid, **values))


class CompiledConfiguration(Configuration):
    """Configuration lookup by the core."""

    def __init__(self, core: door.Core, registers: RegisterFile, validity: Validity) -> None:
        self._core = core
        self.registers = registers
        self.validity = validity

    @property
    def hits(self) -> int:  # type: ignore[override]
        return self._core.counts()[7]

    @property
    def misses(self) -> int:  # type: ignore[override]
        return self._core.counts()[8]

    def invalidate_all(self) -> None:
        self._core.invalidate_configuration()

    def invalidate_stes(self, first: int, count: int, *, leaf: bool = False) -> None:
        self._core.invalidate_stes(first, count, leaf)

    def invalidate_cd(self, sid: int, ssid: int, *, leaf: bool = False) -> None:
        self._core.invalidate_cd(sid, ssid, leaf)

    def invalidate_cds(self, sid: int) -> None:
        self._core.invalidate_cds(sid)

    def invalidate_partid_map(self, vmid: int) -> None:
        self._core.invalidate_partid_map(vmid)

    def lookup(self, sid: int, ssid: int | None) -> Context | Refusal | CdFault:
        _, kind, named, fetch, fault, held = self._core.lookup(sid, ssid)
        if held is None:
            return refusal(sid, kind, named, fetch)
        context = self.context(held)
        return CdFault(context, fault_of(fault)) if fault[0] else context

    def legal_ste(self, sid: int, ssid: int | None) -> STE | Refusal:
        ste, kind, named, fetch = self._core.legal_ste(sid, ssid)
        return refusal(sid, kind, named, fetch) if ste is None else STE(ste)

    def bare_context(self, ste: STE) -> Context:
        return replace(super().bare_context(ste), held=self._core.bare_context(ste.raw))

    def context(self, held: door.Held) -> Context:
        """The reference's view of a context of the core."""
        ste, cd = STE(held.ste), held.cd
        base = super().bare_context(ste)
        stage1 = None if cd is None else self._stage1(ste, CD(cd))
        return replace(base, stage1=stage1, mpam=Mpam(*held.mpam), held=held)


class CompiledTlb(Tlb[Mapping]):
    """One of the core's TLBs, as those see it who invalidate and look."""

    #: No invalidation searches.
    searched = 0

    def __init__(self, core: door.Core, stage: int) -> None:
        self._core = core
        self._stage = stage

    @property
    def capacity(self) -> int:  # type: ignore[override]
        return self._core.tlb(self._stage)[0]

    @property
    def counters(self) -> TlbCounters:  # type: ignore[override]
        counts, (_, evictions, invalidated) = self._core.counts(), self._core.tlb(self._stage)
        at = 1 + 2 * self._stage
        return TlbCounters(counts[at], counts[at + 1], evictions, invalidated)

    def __len__(self) -> int:
        return len(self._core.entries(self._stage))

    def __iter__(self) -> Iterator[tuple[Space, Mapping]]:
        for world, vmid, asid, aset, raw in self._core.entries(self._stage):
            yield Space(world, vmid, asid, aset), _mapping(raw)

    def clear(self) -> None:
        for world in (STAGE2_WORLD,) if self._stage == 2 else StreamWorld:
            self._core.invalidate_spaces(world, None, 0xFFFF, None)

    def invalidate_spaces(
        self, world: int, *, vmid: int | None = None, vmid_mask: int = 0xFFFF, asid: int | None = None
    ) -> None:
        self._core.invalidate_spaces(world, vmid, vmid_mask, asid)

    def invalidate_range(
        self,
        world: int,
        start: int,
        size: int,
        *,
        vmid: int | None = None,
        vmid_mask: int = 0xFFFF,
        asid: int | None = None,
        granule_bits: int = 0,
        level: int | None = None,
    ) -> None:
        self._core.invalidate_range(world, start, min(size, 2**64 - 1), vmid, vmid_mask, asid, granule_bits, level)


class CompiledStages(Stages):
    """Single translations by the core; whole requests go past this."""

    def __init__(self, core: door.Core, memory: Memory, counters: Counters) -> None:
        self._core = core
        self.memory = memory
        self.counters = counters
        self.tlb = CompiledTlb(core, 1)
        self.tlb2 = CompiledTlb(core, 2)

    def translate(self, context: Context, address: int, access: Access) -> Output | Fault:
        found = self._core.translate(context.held, address, access_bits(access))
        if found[0] is not None:
            return fault_of(found[0])
        _, pa, size, stage1, stage2 = found
        return Output(
            pa, size, None if stage1 is None else _mapping(stage1), None if stage2 is None else _mapping(stage2)
        )


class CompiledCounters(Counters):
    """Counters of which the core has a share."""

    def __init__(self, core: door.Core) -> None:
        self._core = core
        #: (Writes of CMDQ_PROD, commands, CMD_SYNCs) that a doorbell has carried out.
        self.by_doorbell: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
        self._own = dict.fromkeys(_SHARED, 0)
        super().__init__(executed_compiled=core.commands)


#: Counters that are the sum of the core's and of what is counted here, and the core's share.
_SHARED: dict[str, Callable[[CompiledCounters], int]] = {
    "transactions": lambda c: c._core.counts()[0],
    "translations": lambda c: c._core.counts()[1],
    "walks": lambda c: c._core.counts()[2],
    "commands": lambda c: c.by_doorbell()[1],
    "syncs": lambda c: c.by_doorbell()[2],
}


def _shared(name: str, share: Callable[[CompiledCounters], int]) -> property:
    def get(self: CompiledCounters) -> int:
        return self._own[name] + share(self)

    def put(self: CompiledCounters, value: int) -> None:
        self._own[name] = value - share(self)

    return property(get, put)


for _name, _share in _SHARED.items():
    setattr(CompiledCounters, _name, _shared(_name, _share))


#: What the doorbell's queue depends on, but for CMDQ_PROD, whose stores are followed by consumption at once.
DOORBELL_REGISTERS = (CMDQ_BASE, CMDQ_CONS, CR0ACK, GERROR, GERRORN)


def doorbell(lock: object, core: door.Core, mirror: Mirror, burst: int, told: Rung) -> door.Doorbell | None:
    """What carries out writes of CMDQ_PROD where the core's lock and mirror are used; not armed yet."""
    compiled = _core.built()
    if compiled is None or not isinstance(lock, compiled.Lock) or not compiled.is_mirror(mirror):
        return None
    made: door.Doorbell = compiled.Doorbell(lock, core, mirror, CMDQ_PROD.at, CMDQ_CONS.at, burst, told)
    return made


def windows_of(table: tuple[Window, ...]) -> list[tuple[int, int, Buffer | None, bool, bool, object | None]]:
    """Memory's windows as the door takes them."""
    return [(w.base, w.size, w.buffer, w.readable, w.writable, w.guard) for w in table]
