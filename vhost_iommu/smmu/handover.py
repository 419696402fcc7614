# SPDX-License-Identifier: Apache-2.0
"""Both stages by the compiled core, and by the reference while somebody decides of each access of a walk.

Law: who is at work has all entries of both TLBs, and the other none: what is handed over is cached as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..sealed import Sealed
from .context import Context
from .memory_type import MemoryType
from .native import NativePublished, NativeStages, NativeTlb
from .seams import Seams
from .stages import Output, Pieces, PlainStages
from .tlb import Space, Tlb, TlbCounters
from .transaction import Begun
from .walk import Access, Fault, Mapping


class SharedTlb(Sealed):
    """A TLB of the core's, and of the reference's in its place."""

    OPEN = frozenset({"now", "_carried"})

    def __init__(self, native: NativeTlb, plain: Tlb[Mapping]) -> None:
        self._native = native
        self._plain = plain
        self.now: NativeTlb | Tlb[Mapping] = native  #: whose entries count
        self._carried = 0  #: entries that were carried over, and so count as invalidated where they had been

    def carry_over(self, plain: bool) -> None:
        """To the reference or to the core, if they are not there."""
        to: NativeTlb | Tlb[Mapping] = self._plain if plain else self._native
        if to is self.now:
            return
        to.clear()
        for space, entry in self.now:
            to.insert(space, entry)
        self._carried += len(self.now)
        self.now.clear()
        self.now = to

    @property
    def capacity(self) -> int:
        return self.now.capacity

    @property
    def searched(self) -> int:
        return self._native.searched + self._plain.searched

    @property
    def counters(self) -> TlbCounters:
        a, b = self._native.counters, self._plain.counters
        invalidated = a.invalidated + b.invalidated - self._carried
        return TlbCounters(a.hits + b.hits, a.misses + b.misses, a.evictions + b.evictions, invalidated)

    def __len__(self) -> int:
        return len(self.now)

    def __iter__(self) -> Iterator[tuple[Space, Mapping]]:
        return iter(self.now)

    def clear(self) -> None:
        self.now.clear()

    def invalidate_spaces(
        self, world: int, *, vmid: int | None = None, vmid_mask: int = 0xFFFF, asid: int | None = None
    ) -> None:
        self.now.invalidate_spaces(world, vmid=vmid, vmid_mask=vmid_mask, asid=asid)

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
        self.now.invalidate_range(
            world,
            start,
            size,
            vmid=vmid,
            vmid_mask=vmid_mask,
            asid=asid,
            granule_bits=granule_bits,
            level=level,
        )


class SharedStages(Sealed):
    """Both stages by the core, or by the reference while the seam ``walk`` is set."""

    OPEN = frozenset({"_plain_works", "_walks"})

    def __init__(self, native: NativeStages, plain: PlainStages, published: NativePublished, seams: Seams) -> None:
        self._native = native
        self._plain = plain
        self._published = published
        self._seams = seams
        self._plain_works = False
        self._walks = False  #: the reference, now
        self.tlb = SharedTlb(native.tlb, plain.tlb)
        self.tlb2 = SharedTlb(native.tlb2, plain.tlb2)

    def seams_changed(self) -> None:
        """Nobody goes past a seam any more who began before it was set. A walk that is asked ends as it began."""
        if not self._walks:
            self._settle()

    def _settle(self) -> None:
        """Have the one at work who may be."""
        plain = self._seams.walk is not None
        withheld = plain or self._seams.translation is not None
        if withheld:
            self._published.withhold(True)
        self.tlb.carry_over(plain)
        self.tlb2.carry_over(plain)
        self._plain_works = plain
        if not withheld:
            self._published.withhold(False)

    @contextmanager
    def _walking(self) -> Iterator[PlainStages]:
        self._walks = True
        try:
            yield self._plain
        finally:
            self._walks = False
            self._settle()

    def translate(self, context: Context, address: int, access: Access) -> Output | Fault:
        if not self._plain_works:
            return self._native.translate(context, address, access)
        with self._walking() as plain:
            return plain.translate(context, address, access)

    def pieces(
        self, context: Context, address: int, size: int, access: Access, incoming: MemoryType, begun: Begun | None
    ) -> Pieces:
        if not self._plain_works:
            return self._native.pieces(context, address, size, access, incoming, begun)
        with self._walking() as plain:
            return plain.pieces(context, address, size, access, incoming, None)

    def read_ipa(self, context: Context, ipa: int, size: int, kind: str) -> bytes | Fault | int:
        if self._plain_works:
            with self._walking() as plain:
                return plain.read_ipa(context, ipa, size, kind)
        found, aborts = self._native.read_ipa(context, ipa, size, kind), self._seams.memory
        if aborts is not None and isinstance(found, bytes):
            # The core has read it by itself.
            at = self._native.translate(replace(context, stage1=None), ipa, Access(privileged=True))
            if isinstance(at, Output) and aborts(kind, at.pa):
                return at.pa
        return found
