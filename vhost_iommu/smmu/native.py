# SPDX-License-Identifier: Apache-2.0
"""The stages and their TLBs by the compiled core, and the contexts that its requests find.

Law: holds no meaning of its own and knows no programming model. A context takes the core's form in one place, ``held``;
what the core answers becomes the reference's own values, so everything around a translation is the same code over both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..memory import Buffer, Window
from ..sealed import Sealed
from .context import Context, HalfContext, Stage1, Stage2
from .memory_type import MemoryType
from .stages import Output, Pieces
from .tlb import Space, TlbCounters
from .transaction import Begun, Piece
from .walk import Access, Cause, Fault, FaultKind, LongTable, Mapping, Table

if TYPE_CHECKING:
    from .._core.door import Core, Held, RawFault, RawMapping, RawStage1, RawStage2, RawTable

#: Contexts that are published at a time, and refusals that are remembered.
CONTEXTS = 4096

#: By enum vi_fault_kind and by vi_memory_type (core.h).
_KINDS = {
    1: FaultKind.TRANSLATION,
    2: FaultKind.ADDR_SIZE,
    3: FaultKind.ACCESS,
    4: FaultKind.PERMISSION,
    5: FaultKind.WALK_EABT,
}
_TYPES = tuple(MemoryType(packed >> 2 & 3, packed & 3, packed >> 4) for packed in range(64))

_SH_OF_LEAF = 0xFF
_USER, _WRITABLE, _READABLE, _CLEAN, _NOT_GLOBAL, _PXN, _UXN = 1, 2, 4, 8, 32, 64, 128


# -- counts --------------------------------------------------------------------------------------------------------


class CoreCounts(NamedTuple):
    """What the compiled core has counted, in its order."""

    transactions: int = 0
    translations: int = 0
    walks: int = 0
    tlb_hits: int = 0
    tlb_misses: int = 0
    tlb2_hits: int = 0
    tlb2_misses: int = 0
    contexts: int = 0
    walks_more: int = 0  #: beyond the first of a translation
    descriptors: int = 0

    @property
    def missed(self) -> int:
        """Translations that needed a walk."""
        return self.walks - self.walks_more


# -- contexts ---------------------------------------------------------------------------------------------------


def held(core: Core, context: Context) -> Held:
    """The core's form of ``context``, made once."""
    if context.held is None:
        made = core.hold(
            world=context.world,
            vmid=context.vmid,
            output_bits=context.output_bits,
            bypass_bits=context.bypass_bits,
            privileged=context.privileged,
            instruction=context.instruction,
            overrides=context.overrides,
            stage1=None if context.stage1 is None else _stage1(context.stage1),
            stage2=None if context.stage2 is None else _stage2(context.stage2),
        )
        object.__setattr__(context, "held", made)  # which is no part of its value
    found: Held = context.held
    return found


def _stage1(stage1: Stage1) -> RawStage1:
    low, high = (None if half is None else _half(half) for half in stage1.halves)
    r = stage1.regime
    regime = (r.unprivileged, r.wxn, r.uwxn, r.pan, r.epan, r.execute_needs_read, r.xn_for_all)
    return low, high, stage1.asid, stage1.aset, stage1.aarch32, *stage1.sizes32, regime


def _stage2(stage2: Stage2) -> RawStage2:
    return (
        _table(stage2.table),
        stage2.protected_walks,
        stage2.forced_writeback,
        stage2.execute_needs_read,
        stage2.two_bit_xn,
    )


def _half(half: HalfContext) -> RawTable:
    return _table(half.table, half.top_byte_ignored, half.no_unprivileged)


def _table(t: Table, top_byte_ignored: bool = False, no_unprivileged: bool = False) -> RawTable:
    assert isinstance(t, LongTable), "the core walks no other"
    return (
        t.stage,
        t.base,
        t.granule_bits,
        t.input_bits,
        t.output_bits,
        t.start_level,
        t.first_block_level,
        t.wide.value,
        t.mair,
        _SH_OF_LEAF if t.shareability is None else t.shareability,
        t.big_endian,
        t.hierarchical,
        t.access_fault,
        t.update_access,
        t.update_dirty,
        t.update_tables,
        top_byte_ignored,
        no_unprivileged,
    )


class NativePublished(Sealed):
    """Contexts that requests of masters find in the core, unless they are withheld; refusals, which Python asks for."""

    OPEN = frozenset({"_withheld"})

    def __init__(self, core: Core) -> None:
        self._core = core
        self._withheld = False
        self._refusals: dict[tuple[int, int | None], Any] = {}

    def withhold(self, withheld: bool) -> None:
        """``withheld``: each request asks the model, whoever began it; none that did not is under way."""
        if withheld and not self._withheld:
            self._core.withdraw_streams(0, (1 << 32) - 1)
            self._core.quiesce()
        self._withheld = withheld

    @property
    def found(self) -> int:
        return self._core.counts()[7]

    def publish(self, sid: int, ssid: int | None, context: Context) -> None:
        if not self._withheld:
            self._core.publish(sid, ssid, held(self._core, context))

    def withdraw(self, sid: int, ssid: int | None) -> None:
        self.forget_refusals()
        self._core.withdraw(sid, ssid)

    def withdraw_streams(self, first: int, last: int) -> None:
        self.forget_refusals()
        self._core.withdraw_streams(first, last)

    def refuse(self, sid: int, ssid: int | None, why: Any) -> None:
        if len(self._refusals) == CONTEXTS:
            self.forget_refusals()
        self._refusals[sid, ssid] = why

    def refusal(self, sid: int, ssid: int | None) -> Any:
        return self._refusals.get((sid, ssid))

    def forget_refusals(self) -> None:
        self._refusals.clear()


# -- what the core answers ------------------------------------------------------------------------------------------


def _access(access: Access) -> int:
    """VI_WRITE, VI_PRIVILEGED, VI_INSTRUCTION."""
    return access.write | access.privileged << 1 | access.instruction << 2


def _fault(raw: RawFault) -> Fault:
    kind, level, stage, cause, ipa, fetch, table_write = raw
    return Fault(_KINDS[kind], level, stage, Cause(cause), ipa, fetch, table_write)


def _mapping(raw: RawMapping) -> Mapping:
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


def _raw(m: Mapping) -> RawMapping:
    flags = (
        m.user * _USER
        | m.writable * _WRITABLE
        | m.readable * _READABLE
        | m.clean * _CLEAN
        | m.not_global * _NOT_GLOBAL
        | m.pxn * _PXN
        | m.uxn * _UXN
    )
    memory = m.memory.shareability << 4 | m.memory.outer << 2 | m.memory.inner
    return (
        m.base,
        m.shift,
        m.output,
        m.granule_bits,
        m.level,
        m.descriptor,
        m.descriptor_at,
        flags,
        m.attributes,
        m.shareability,
        memory,
    )


class NativeTlb(Sealed):
    """One of the core's TLBs."""

    #: No invalidation searches.
    searched = 0

    def __init__(self, core: Core, stage: int) -> None:
        self._core = core
        self._stage = stage

    @property
    def capacity(self) -> int:
        return self._core.tlb(self._stage)[0]

    @property
    def counters(self) -> TlbCounters:
        counts, (_, evictions, invalidated) = self._core.counts(), self._core.tlb(self._stage)
        at = 1 + 2 * self._stage
        return TlbCounters(counts[at], counts[at + 1], evictions, invalidated)

    def __len__(self) -> int:
        return len(self._core.entries(self._stage))

    def __iter__(self) -> Iterator[tuple[Space, Mapping]]:
        for world, vmid, asid, aset, raw in self._core.entries(self._stage):
            yield Space(world, vmid, asid, aset), _mapping(raw)

    def insert(self, space: Space, entry: Mapping) -> None:
        self._core.fill(self._stage, space.world, space.vmid, space.asid, space.aset, _raw(entry))

    def clear(self) -> None:
        self._core.clear_tlb(self._stage)

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


class NativeStages(Sealed):
    """Both stages by the core; requests that find their contexts go past this."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.tlb = NativeTlb(core, 1)
        self.tlb2 = NativeTlb(core, 2)

    def translate(self, context: Context, address: int, access: Access) -> Output | Fault:
        found = self._core.translate(held(self._core, context), address, _access(access))
        if found[0] is not None:
            return _fault(found[0])
        _, pa, size, stage1, stage2 = found
        return Output(
            pa, size, None if stage1 is None else _mapping(stage1), None if stage2 is None else _mapping(stage2)
        )

    def pieces(
        self, context: Context, address: int, size: int, access: Access, incoming: MemoryType, begun: Begun | None
    ) -> Pieces:
        memory = incoming.shareability << 4 | incoming.outer << 2 | incoming.inner
        found = self._core.pieces(held(self._core, context), address, size, _access(access), memory, begun)
        return Pieces(
            [Piece(each.pa, each.size) for each in found.pieces],
            [_TYPES[each.memory] for each in found.pieces],
            found.done,
            None if found.fault is None else _fault(found.fault),
        )

    def read_ipa(self, context: Context, ipa: int, size: int, kind: str) -> bytes | Fault | int:
        found = self._core.read_ipa(held(self._core, context), ipa, size)
        return _fault(found) if isinstance(found, tuple) else found


def windows_of(table: tuple[Window, ...]) -> list[tuple[int, int, Buffer | None, bool, bool, object | None]]:
    """Memory's windows as the door takes them."""
    return [(w.base, w.size, w.buffer, w.readable, w.writable, w.guard) for w in table]
