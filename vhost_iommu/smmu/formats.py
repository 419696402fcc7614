# SPDX-License-Identifier: Apache-2.0
"""Stages for an SMMU whose tables are of several formats, of which the compiled core walks some.

Law: a context has one of two, by its tables, and each of the two has its own TLBs; what is invalidated is so in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..sealed import Sealed
from .context import Context
from .memory_type import MemoryType
from .stages import Output, Pieces, PlainStages, Stages, StageTlb
from .tlb import Space, Tlb, TlbCounters
from .transaction import Begun
from .walk import Access, Fault, Mapping


class BothTlbs(Sealed):
    """Two TLBs as one."""

    def __init__(self, first: StageTlb, second: Tlb[Mapping]) -> None:
        self._first = first
        self._second = second

    @property
    def capacity(self) -> int:
        return self._first.capacity

    @property
    def counters(self) -> TlbCounters:
        a, b = self._first.counters, self._second.counters
        return TlbCounters(
            a.hits + b.hits, a.misses + b.misses, a.evictions + b.evictions, a.invalidated + b.invalidated
        )

    @property
    def searched(self) -> int:
        return self._first.searched + self._second.searched

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __iter__(self) -> Iterator[tuple[Space, Mapping]]:
        yield from self._first
        yield from self._second

    def _each(self) -> tuple[StageTlb, ...]:
        """Those that hold anything, and the first, which tells that something was dropped."""
        return (self._first, self._second) if len(self._second) else (self._first,)

    def clear(self) -> None:
        for each in self._each():
            each.clear()

    def invalidate_spaces(
        self, world: int, *, vmid: int | None = None, vmid_mask: int = 0xFFFF, asid: int | None = None
    ) -> None:
        for each in self._each():
            each.invalidate_spaces(world, vmid=vmid, vmid_mask=vmid_mask, asid=asid)

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
        for each in self._each():
            each.invalidate_range(
                world,
                start,
                size,
                vmid=vmid,
                vmid_mask=vmid_mask,
                asid=asid,
                granule_bits=granule_bits,
                level=level,
            )


class FormatStages(Sealed):
    """``first`` for contexts that are ``suited`` to it, the reference for others."""

    def __init__(self, first: Stages, others: PlainStages, suited: Callable[[Context], bool]) -> None:
        self._first = first
        self._others = others
        self._suited = suited
        self.tlb = BothTlbs(first.tlb, others.tlb)
        self.tlb2 = BothTlbs(first.tlb2, others.tlb2)

    def _of(self, context: Context) -> Stages:
        return self._first if self._suited(context) else self._others

    def seams_changed(self) -> None:
        self._first.seams_changed()

    def translate(self, context: Context, address: int, access: Access) -> Output | Fault:
        return self._of(context).translate(context, address, access)

    def pieces(
        self, context: Context, address: int, size: int, access: Access, incoming: MemoryType, begun: Begun | None
    ) -> Pieces:
        stages = self._of(context)
        return stages.pieces(context, address, size, access, incoming, begun if stages is self._first else None)

    def read_ipa(self, context: Context, ipa: int, size: int, kind: str) -> bytes | Fault | int:
        return self._of(context).read_ipa(context, ipa, size, kind)
