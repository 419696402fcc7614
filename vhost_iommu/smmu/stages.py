# SPDX-License-Identifier: Apache-2.0
"""From an address and its context to a physical address: both stages, their TLBs, their walks (IHI 0070 §3.3, §3.4).

Law: stage 1 outputs and stage 2 outputs are cached apart, so each invalidation drops exactly what it names; what a
walk of stage 1 reads goes through stage 2. Addresses of faults are values all the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol

from ..memory import MemoryLike
from ..sealed import Sealed, declared
from ..watch import Watch
from .context import Context, HalfContext, Stage1, Stage2
from .descriptors import S1LeafDescriptor
from .memory_type import MemoryType, combine, combine_forced, override
from .seams import fetch
from .tlb import Space, StrictTlb, Tlb, TlbCounters
from .transaction import Begun, Piece
from .walk import Access, Cause, Fault, FaultKind, Mapping, permitted1, permitted2

#: World of stage 2 entries, which are tagged by VMID alone.
STAGE2_WORLD = 0

#: A guest CPU that wins every race for a descriptor's dirty state gets no write.
MOST_TRIES = 16

_READ = Access(privileged=True)
_WRITE = Access(write=True, privileged=True)
_TOP_BYTE = 0xFF << 56
_NT = S1LeafDescriptor.nT.mask  # stage 2 has it in the same place


class Output(NamedTuple):
    """Where an address goes, and what is known of the way: ``size`` bytes from it on go along."""

    pa: int
    size: int
    stage1: Mapping | None = None
    stage2: Mapping | None = None


class Pieces(NamedTuple):
    """Where consecutive addresses go, ``size`` of them: up to the first fault, or to where there is no more room."""

    pieces: list[Piece]
    memory: list[MemoryType]  #: with which each piece's access leaves
    size: int
    fault: Fault | None


class Counts(Protocol):
    """Whoever counts what stages do."""

    translations_made: int
    missed_made: int
    walks_made: int
    descriptors_made: int


class StageTlb(Protocol):
    """The TLB of a stage, as those see it who invalidate and look."""

    @property
    def capacity(self) -> int: ...

    @property
    def counters(self) -> TlbCounters: ...

    @property
    def searched(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Space, Mapping]]: ...

    def clear(self) -> None: ...

    def invalidate_spaces(
        self, world: int, *, vmid: int | None = None, vmid_mask: int = 0xFFFF, asid: int | None = None
    ) -> None: ...

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
    ) -> None: ...


class Stages(Protocol):
    """Both stages of one SMMU, with their TLBs."""

    @property
    def tlb(self) -> StageTlb:
        """Stage 1's."""

    @property
    def tlb2(self) -> StageTlb: ...

    def translate(self, context: Context, address: int, access: Access) -> Output | Fault:
        """Translate ``address`` through the stages that ``context`` has."""

    def pieces(
        self, context: Context, address: int, size: int, access: Access, incoming: MemoryType, begun: Begun | None
    ) -> Pieces:
        """Translate ``size`` bytes from ``address`` on, which come as ``incoming``: the rest of what was ``begun``."""

    def read_ipa(self, context: Context, ipa: int, size: int, kind: str) -> bytes | Fault | int:
        """``size`` bytes of a ``kind`` of structure that stage 2 translates; the physical address where that aborts."""

    def seams_changed(self) -> None:
        """Nobody goes past a seam any more who began before it was set."""


@declared
class PlainStages(Sealed):
    """The same by the walks and TLBs of this package, which say what is right."""

    def __init__(
        self,
        memory: MemoryLike,
        counters: Counts,
        tlb_entries: int,
        watch: Watch,
        *,
        conflict_level: int | None = None,
    ) -> None:
        """``conflict_level``: overlapping entries are found out, as far as this level of BBM lets them conflict."""
        self.memory = memory
        self.counters = counters
        self.watch = watch

        def made(name: str) -> Tlb[Mapping]:
            return (
                Tlb(tlb_entries, name, watch)
                if conflict_level is None
                else StrictTlb(tlb_entries, name, watch, resolves_sizes=conflict_level == 2)
            )

        self.tlb = made("TLB")  #: stage 1
        self.tlb2 = made("TLB of stage 2")  #: stage 2
        #: At level 1 a block with nT must make no conflict: it is not cached.
        self._minds_nt = conflict_level == 1

    def seams_changed(self) -> None:
        """All that is here asks each time."""

    def translate(self, context: Context, address: int, access: Access) -> Output | Fault:
        """Translate ``address`` through the stages that ``context`` has."""
        walks = self.counters.walks_made
        found = self._translate(context, address, access)
        self.counters.missed_made += self.counters.walks_made != walks
        return found

    def _translate(self, context: Context, address: int, access: Access) -> Output | Fault:
        stage1 = None
        if context.stage1 is None:
            # A bypassed stage 1 still checks the size of the address.
            if address >> context.bypass_bits:
                return Fault(FaultKind.ADDR_SIZE)
            if context.stage2 is None:
                pa = _truncated(context, address)
                return Output(pa, (1 << context.output_bits) - pa)
            ipa, size = address, (1 << context.bypass_bits) - address
        else:
            found = self._stage1(context, context.stage1, address, access)
            if isinstance(found, Fault):
                return found
            stage1, ipa, size = found
            if context.stage2 is None:
                return Output(_truncated(context, ipa), size, stage1)
        stage2 = self._stage2(context, context.stage2, ipa, access, Cause.IN)
        if isinstance(stage2, Fault):
            return stage2
        return Output(_truncated(context, stage2.translate(ipa)), min(size, _left(stage2, ipa)), stage1, stage2)

    def pieces(
        self, context: Context, address: int, size: int, access: Access, incoming: MemoryType, begun: Begun | None
    ) -> Pieces:
        assert begun is None, "nothing else began it"
        pieces: list[Piece] = []
        memory: list[MemoryType] = []
        done = 0
        while done < size:
            self.counters.translations_made += 1
            found = self.translate(context, address + done & 2**64 - 1, access)
            if isinstance(found, Fault):
                return Pieces(pieces, memory, done, found)
            here = min(found.size, size - done)
            if self.watch.on:
                self.watch.used(address + done & 2**64 - 1, here, found.pa, write=access.write)
            leaves = self.memory_of(context, found, incoming)
            last = pieces[-1] if pieces else None
            if last is not None and last.pa + last.size == found.pa and memory[-1] == leaves:
                pieces[-1] = Piece(last.pa, last.size + here)
            else:
                pieces.append(Piece(found.pa, here))
                memory.append(leaves)
            done += here
        return Pieces(pieces, memory, done, None)

    def read_ipa(self, context: Context, ipa: int, size: int, kind: str) -> bytes | Fault | int:
        assert context.stage2 is not None
        found = self._stage2(context, context.stage2, ipa, _READ, Cause.CD)
        if isinstance(found, Fault):
            return found
        pa = _truncated(context, found.translate(ipa))
        data = fetch(self.memory, kind, pa, size)
        return pa if data is None else data

    def memory_of(self, context: Context, output: Output, incoming: MemoryType) -> MemoryType:
        """The memory type with which an access leaves (§13.4); stage 1 replaces it, stage 2 combines."""
        stage1, stage2 = output.stage1, output.stage2
        if stage1 is not None and stage2 is None:
            return stage1.memory
        replace_type, memattr, shcfg = context.overrides
        first = stage1.memory if stage1 is not None else None
        if first is None:
            first = override(incoming, replace_type=replace_type, memattr=memattr, shcfg=shcfg)
        if stage2 is None:
            return first
        assert context.stage2 is not None
        if context.stage2.forced_writeback:
            return combine_forced(first, stage2.attributes, stage2.shareability)
        return combine(first, stage2.memory)

    # -- stage 1 ---------------------------------------------------------------------------------------------

    def _stage1(
        self, context: Context, stage1: Stage1, address: int, access: Access
    ) -> tuple[Mapping, int, int] | Fault:
        """The mapping, the output address, and how many bytes from there on it covers."""
        high = select32(stage1, address) if stage1.aarch32 else address >> 55 & 1
        half = None if high is None else stage1.halves[high]
        if half is None or (half.no_unprivileged and not access.privileged):
            return Fault(FaultKind.TRANSLATION)
        canonical = address if stage1.aarch32 else _canonical(half, address)
        if canonical is None:
            return Fault(FaultKind.TRANSLATION)
        mapping = self.tlb.lookup(context.world, context.vmid, stage1.asid, canonical, stage1.aset)
        for _ in range(MOST_TRIES):
            if mapping is None:
                if self.tlb.conflict(context.world, context.vmid, stage1.asid, canonical, stage1.aset):
                    return Fault(FaultKind.TLB_CONFLICT)
                self.counters.walks_made += 1
                found = half.table.walk(canonical, _Descriptors(self, context, context.stage2))
                if isinstance(found, Fault):
                    return found
                mapping = found
                self._insert(context, stage1, mapping)
            if not permitted1(mapping, stage1.regime, access):
                return Fault(FaultKind.PERMISSION, mapping.level)
            if not (access.write and mapping.clean and not mapping.writable):
                return mapping, mapping.translate(canonical), _left(mapping, canonical)
            marked = half.table.mark_dirty(mapping, _Descriptors(self, context, context.stage2))
            if isinstance(marked, Fault):
                return marked
            mapping = marked
            if mapping is not None:
                self._insert(context, stage1, mapping)
        return Fault(FaultKind.PERMISSION)

    def _insert(self, context: Context, stage1: Stage1, mapping: Mapping) -> None:
        if mapping.not_global and stage1.regime.unprivileged:
            space = Space(context.world, context.vmid, stage1.asid)
        else:
            space = Space(context.world, context.vmid, None, stage1.aset)
        self._keep(self.tlb, space, mapping)

    def _keep(self, tlb: Tlb[Mapping], space: Space, mapping: Mapping) -> None:
        if not (self._minds_nt and mapping.level < 3 and mapping.descriptor & _NT):
            if self.watch.on:
                self.watch.filled(1 if tlb is self.tlb else 2, space, mapping)
            tlb.insert(space, mapping)

    # -- stage 2 ---------------------------------------------------------------------------------------------

    def _stage2(self, context: Context, stage2: Stage2, ipa: int, access: Access, cause: Cause) -> Mapping | Fault:
        found = self._stage2_found(context, stage2, ipa, access, cause)
        if isinstance(found, Fault):
            return replace(found, stage=2, cause=cause, ipa=ipa, table_write=cause is Cause.TT and access.write)
        return found

    def _stage2_found(
        self, context: Context, stage2: Stage2, ipa: int, access: Access, cause: Cause
    ) -> Mapping | Fault:
        if ipa >> stage2.table.input_bits:
            return Fault(FaultKind.TRANSLATION, stage2.table.start_level)
        space = Space(STAGE2_WORLD, context.vmid, None)
        mapping = self.tlb2.lookup(STAGE2_WORLD, context.vmid, 0, ipa)
        for _ in range(MOST_TRIES):
            if mapping is None:
                if self.tlb2.conflict(STAGE2_WORLD, context.vmid, 0, ipa):
                    return Fault(FaultKind.TLB_CONFLICT)
                self.counters.walks_made += 1
                found = stage2.table.walk(ipa, _Descriptors(self, context, None))
                if isinstance(found, Fault):
                    return found
                mapping = found
                self._keep(self.tlb2, space, mapping)
            protected = cause is not Cause.IN and stage2.protected_walks and _is_device(mapping, stage2)
            readable = stage2.execute_needs_read
            if protected or not permitted2(mapping, access, two_bit_xn=stage2.two_bit_xn, execute_needs_read=readable):
                return Fault(FaultKind.PERMISSION, mapping.level)
            if not (access.write and mapping.clean and not mapping.writable):
                return mapping
            marked = stage2.table.mark_dirty(mapping, _Descriptors(self, context, None))
            if isinstance(marked, Fault):
                return marked
            mapping = marked
            if mapping is not None:
                self._keep(self.tlb2, space, mapping)
        return Fault(FaultKind.PERMISSION)


class _Descriptors:
    """A walk's way to memory: physical, or through ``stage2``, for stage 1 of a context that has both."""

    __slots__ = ("_context", "_stage2", "_stages")

    def __init__(self, stages: PlainStages, context: Context, stage2: Stage2 | None) -> None:
        self._stages = stages
        self._context = context
        self._stage2 = stage2

    def fetch(self, address: int, size: int = 8) -> int | Fault | None:
        pa = self._physical(address, _READ)
        if isinstance(pa, Fault):
            return pa
        self._stages.counters.descriptors_made += 1
        data = self._stages.memory.read(pa, size)
        if data is None:
            return None if pa == address else self._abort(pa)
        return int.from_bytes(data, "little")

    def update(self, address: int, old: int, new: int) -> bool | Fault | None:
        pa = self._physical(address, _WRITE)
        if isinstance(pa, Fault):
            return pa
        self._stages.counters.descriptors_made += 1
        swapped = self._stages.memory.compare_and_swap_u64(pa, old, new)
        return self._abort(pa) if swapped is None and pa != address else swapped

    def _physical(self, address: int, access: Access) -> int | Fault:
        if self._stage2 is not None:
            found = self._stages._stage2(self._context, self._stage2, address, access, Cause.TT)
            if isinstance(found, Fault):
                return found
            address = found.translate(address)
        # AArch32 tables may be beyond the physical addresses, which truncates the fetch (§7.3.12).
        return _truncated(self._context, address)

    @staticmethod
    def _abort(pa: int) -> Fault:
        """The stage 1 walk's own access aborted at a physical address that is not its IPA."""
        return Fault(FaultKind.WALK_EABT, cause=Cause.TT, fetch=pa)


def _truncated(context: Context, pa: int) -> int:
    """AArch32 tables and bypassed IPAs may be wider than physical addresses: no fault (§3.4)."""
    return pa & (1 << context.output_bits) - 1


def _left(mapping: Mapping, address: int) -> int:
    """Bytes from ``address`` to the end of ``mapping``."""
    return (1 << mapping.shift) - (address & (1 << mapping.shift) - 1)


def _is_device(mapping: Mapping, stage2: Stage2) -> bool:
    """Whether stage 2 alone makes the page Device memory (MemAttr[3:2] is 0; with FWB, MemAttr[2] is 0 as well)."""
    if stage2.forced_writeback:
        return not mapping.attributes & 0b100
    return not mapping.attributes >> 2


def _canonical(half: HalfContext, address: int) -> int | None:
    """``address`` with an ignored top byte as the sign makes it; None outside of the half's range (§3.4.1)."""
    high = address >> 55 & 1
    if half.top_byte_ignored:
        address = address | _TOP_BYTE if high else address & ~_TOP_BYTE
    rest = address >> half.table.input_bits
    expected = (1 << 64 - half.table.input_bits) - 1 if high else 0
    return address if rest == expected else None


def select32(stage1: Stage1, address: int) -> int | None:
    """Which TTB translates a 32-bit VA (Arm ARM G5.7.1), enabled or not; None: outside of both ranges."""
    if address >> 32:
        return None
    t0sz, t1sz = stage1.sizes32
    in_low = not address >> 32 - t0sz
    in_high = not in_low if t1sz == 0 else address >> 32 - t1sz == (1 << t1sz) - 1
    if in_high:
        return 1
    return 0 if in_low else None
