# SPDX-License-Identifier: Apache-2.0
"""A translation cache that is honest: an entry stays until it is invalidated or capacity evicts it.

Law: knows tags and addresses only. Nothing is dropped that the invalidation did not name, so that a driver's
missing invalidation shows as a stale translation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from ..sealed import Sealed, declared
from ..watch import Watch


class Space(NamedTuple):
    """An address space: entries of equal tags translate alike. ``asid`` None holds the global entries of an ASET."""

    world: int
    vmid: int
    asid: int | None
    aset: int = 0  #: of global entries; that of others does not matter


class Spanned(Protocol):
    """What an entry must tell about itself."""

    @property
    def base(self) -> int: ...  # first input address

    @property
    def shift(self) -> int: ...  # log2 of the bytes it covers

    @property
    def granule_bits(self) -> int: ...

    @property
    def level(self) -> int: ...


E = TypeVar("E", bound=Spanned)


@dataclass(slots=True)
class TlbCounters:
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    invalidated: int = 0


@declared
class Tlb(Sealed, Generic[E]):
    """Entries by space and input address."""

    OPEN = frozenset({"searched", "_count"})

    def __init__(self, capacity: int = 4096, name: str = "TLB", watch: Watch | None = None) -> None:
        """``capacity``: entries, at least one; ``watch``: where it tells, by its ``name``, what is dropped."""
        self.name = name
        self.watch = watch
        self.capacity = max(capacity, 1)
        self.counters = TlbCounters()
        #: Spaces looked at by invalidations that name no single one: what such a command costs.
        self.searched = 0
        self._spaces: dict[Space, dict[int, dict[int, E]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Space, E]]:
        for space, sizes in self._spaces.items():
            for pages in sizes.values():
                for entry in pages.values():
                    yield space, entry

    def lookup(self, world: int, vmid: int, asid: int, address: int, aset: int = 0) -> E | None:
        """The entry that translates ``address``: of the space itself, else a global one of its ASET."""
        for space in (Space(world, vmid, asid), Space(world, vmid, None, aset)):
            for shift, pages in self._spaces.get(space, {}).items():
                entry = pages.get(address >> shift)
                if entry is not None:
                    self.counters.hits += 1
                    return entry
        self.counters.misses += 1
        return None

    def conflict(self, world: int, vmid: int, asid: int, address: int, aset: int = 0) -> bool:
        """Whether a lookup finds nothing because too much matches: not here, where the first match is used."""
        return False

    def insert(self, space: Space, entry: E) -> None:
        """Add ``entry``, in place of one of the same page; at capacity the oldest of the oldest space goes."""
        page = entry.base >> entry.shift
        if page not in self._spaces.get(space, {}).get(entry.shift, {}):
            if self._count >= self.capacity:
                self._evict()
            self._count += 1
        sizes = self._spaces.setdefault(space, {})
        if entry.shift not in sizes:
            sizes[entry.shift] = {}
            # Of several that match, each of which may be used, it is the smallest.
            self._spaces[space] = sizes = dict(sorted(sizes.items()))
        sizes[entry.shift][page] = entry

    def _evict(self) -> None:
        space, sizes = next(iter(self._spaces.items()))
        shift, pages = next(iter(sizes.items()))
        del pages[next(iter(pages))]
        self._count -= 1
        self.counters.evictions += 1
        self._prune(space, shift)

    def _prune(self, space: Space, shift: int) -> None:
        sizes = self._spaces[space]
        if not sizes[shift]:
            del sizes[shift]
        if not sizes:
            del self._spaces[space]

    # -- invalidation ----------------------------------------------------------------------------------------

    @contextmanager
    def _telling(self, **scope: int | None) -> Iterator[None]:
        """What is dropped meanwhile is told, numbered before it."""
        if self.watch is None or not self.watch.on:
            yield
            return
        number, before = self.watch.begin(), self.counters.invalidated
        try:
            yield
        finally:
            self.watch.dropped(number, self.name, self.counters.invalidated - before, scope)

    def clear(self) -> None:
        with self._telling():
            self.counters.invalidated += self._count
            self._spaces.clear()
            self._count = 0

    def invalidate_spaces(
        self, world: int, *, vmid: int | None = None, vmid_mask: int = 0xFFFF, asid: int | None = None
    ) -> None:
        """Drop whole spaces of ``world``: of one VMID or all, and of one ASID (its global entries stay) or all."""
        with self._telling(world=world, vmid=vmid, vmid_mask=vmid_mask, asid=asid):
            for space in self._matching(world, vmid, vmid_mask, asid):
                if asid is None or space.asid == asid:
                    dropped = sum(len(pages) for pages in self._spaces.pop(space).values())
                    self._count -= dropped
                    self.counters.invalidated += dropped

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
        """Drop entries that overlap [start, start + size): of one ASID and the global ones, or of all ASIDs.

        ``granule_bits`` and ``level``, when given, leave entries of another granule or level alone.
        """
        scope = {"world": world, "start": start, "size": size, "vmid": vmid, "vmid_mask": vmid_mask, "asid": asid}
        with self._telling(**scope, granule_bits=granule_bits, level=level):
            self._invalidate_range(world, start, size, vmid, vmid_mask, asid, granule_bits, level)

    def _invalidate_range(
        self,
        world: int,
        start: int,
        size: int,
        vmid: int | None,
        vmid_mask: int,
        asid: int | None,
        granule_bits: int,
        level: int | None,
    ) -> None:
        for space in self._matching(world, vmid, vmid_mask, asid):
            if asid is not None and space.asid is not None and space.asid != asid:
                continue
            for shift, pages in list(self._spaces[space].items()):
                first, last = start >> shift, (start + size - 1) >> shift
                if last - first < len(pages):
                    hit = [page for page in range(first, last + 1) if page in pages]
                else:
                    hit = [page for page in pages if first <= page <= last]
                for page in hit:
                    entry = pages[page]
                    if granule_bits and entry.granule_bits != granule_bits:
                        continue
                    if level is not None and entry.level != level:
                        continue
                    del pages[page]
                    self._count -= 1
                    self.counters.invalidated += 1
                self._prune(space, shift)

    def _matching(self, world: int, vmid: int | None, mask: int, asid: int | None) -> list[Space]:
        """The spaces that an invalidation may touch; of one VMID and ASID they are known without a search."""
        if vmid is not None and mask == 0xFFFF and asid is not None:
            known = (Space(world, vmid, asid), Space(world, vmid, None), Space(world, vmid, None, 1))
            return [space for space in known if space in self._spaces]
        self.searched += len(self._spaces)
        return [s for s in self._spaces if s.world == world and (vmid is None or not (s.vmid ^ vmid) & mask)]


class StrictTlb(Tlb[E]):
    """A cache that finds out where several entries match, and then uses none of them (IHI 0070 §3.20.1)."""

    def __init__(
        self, capacity: int = 4096, name: str = "TLB", watch: Watch | None = None, *, resolves_sizes: bool
    ) -> None:
        """``resolves_sizes``: entries of several sizes in one space are no conflict (§3.21.1.3, level 2)."""
        super().__init__(capacity, name, watch)
        self._resolves_sizes = resolves_sizes

    def lookup(self, world: int, vmid: int, asid: int, address: int, aset: int = 0) -> E | None:
        if self.conflict(world, vmid, asid, address, aset):
            return None
        return super().lookup(world, vmid, asid, address, aset)

    def conflict(self, world: int, vmid: int, asid: int, address: int, aset: int = 0) -> bool:
        spaces = (Space(world, vmid, asid), Space(world, vmid, None, aset))
        matches = [
            sum(address >> shift in pages for shift, pages in self._spaces.get(space, {}).items()) for space in spaces
        ]
        return all(matches) or (not self._resolves_sizes and max(matches) > 1)
