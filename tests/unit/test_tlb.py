# SPDX-License-Identifier: Apache-2.0
"""The TLB: what is found, and that an invalidation drops what it names and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vhost_iommu.smmu.tlb import Space, StrictTlb, Tlb

EL1, EL2 = 1, 2
GLOBAL = None


@dataclass(frozen=True)
class Entry:
    base: int
    shift: int = 12
    granule_bits: int = 12
    level: int = 3

    @property
    def end(self) -> int:
        return self.base + (1 << self.shift)


BLOCK = Entry(0x20_0000, 21, 12, 2)


@pytest.fixture
def tlb() -> Tlb[Entry]:
    return Tlb()


def fill(tlb: Tlb[Entry], *tags: tuple[int, int, int | None], entry: Entry | None = None) -> None:
    for world, vmid, asid in tags:
        tlb.insert(Space(world, vmid, asid), entry or Entry(0x1000))


def spaces(tlb: Tlb[Entry]) -> set[tuple[int, int, int | None]]:
    return {(space.world, space.vmid, space.asid) for space, _ in tlb}


def bases(tlb: Tlb[Entry]) -> set[int]:
    return {entry.base for _, entry in tlb}


# -- lookup --------------------------------------------------------------------------------------------------


def test_an_entry_is_found_by_every_address_that_it_covers_and_by_no_other(tlb: Tlb[Entry]) -> None:
    fill(tlb, (EL1, 0, 1), entry=BLOCK)
    assert tlb.lookup(EL1, 0, 1, 0x20_0000) is BLOCK
    assert tlb.lookup(EL1, 0, 1, 0x3F_FFFF) is BLOCK
    assert tlb.lookup(EL1, 0, 1, 0x1F_FFFF) is None
    assert tlb.lookup(EL1, 0, 1, 0x40_0000) is None


@pytest.mark.parametrize("tag", [(EL2, 0, 1), (EL1, 1, 1), (EL1, 0, 2)])
def test_an_entry_of_another_space_is_not_found(tlb: Tlb[Entry], tag: tuple[int, int, int]) -> None:
    fill(tlb, (EL1, 0, 1))
    assert tlb.lookup(*tag, 0x1000) is None


def test_a_global_entry_is_found_by_every_asid_of_its_world_and_vmid(tlb: Tlb[Entry]) -> None:
    fill(tlb, (EL1, 5, GLOBAL))
    assert tlb.lookup(EL1, 5, 1, 0x1000) is not None
    assert tlb.lookup(EL1, 5, 2, 0x1000) is not None
    assert tlb.lookup(EL1, 6, 1, 0x1000) is None
    assert tlb.lookup(EL2, 5, 1, 0x1000) is None


def test_a_global_entry_is_found_by_its_own_aset_only_and_dropped_with_any(tlb: Tlb[Entry]) -> None:
    tlb.insert(Space(EL1, 0, None, 1), BLOCK)
    assert tlb.lookup(EL1, 0, 7, BLOCK.base, 1) is BLOCK
    assert tlb.lookup(EL1, 0, 7, BLOCK.base, 0) is None
    tlb.invalidate_range(EL1, BLOCK.base, 1, vmid=0, asid=7)
    assert len(tlb) == 0


def test_an_entry_of_an_asid_is_found_whatever_the_aset(tlb: Tlb[Entry]) -> None:
    fill(tlb, (EL1, 0, 7), entry=BLOCK)
    assert tlb.lookup(EL1, 0, 7, BLOCK.base, 0) is BLOCK
    assert tlb.lookup(EL1, 0, 7, BLOCK.base, 1) is BLOCK


def test_an_asids_own_entry_comes_before_a_global_one(tlb: Tlb[Entry]) -> None:
    own = Entry(0x1000, level=2)
    fill(tlb, (EL1, 0, GLOBAL))
    fill(tlb, (EL1, 0, 1), entry=own)
    assert tlb.lookup(EL1, 0, 1, 0x1000) is own


def test_of_several_entries_that_match_the_smallest_is_used(tlb: Tlb[Entry]) -> None:
    page = Entry(BLOCK.base)
    fill(tlb, (EL1, 0, 1), entry=BLOCK)
    fill(tlb, (EL1, 0, 1), entry=page)
    assert tlb.lookup(EL1, 0, 1, BLOCK.base) is page


def test_hits_misses_and_invalidated_entries_are_counted(tlb: Tlb[Entry]) -> None:
    fill(tlb, (EL1, 0, 1))
    tlb.lookup(EL1, 0, 1, 0x1000)
    tlb.lookup(EL1, 0, 1, 0x2000)
    tlb.clear()
    counters = tlb.counters
    assert (counters.hits, counters.misses, counters.invalidated, len(tlb)) == (1, 1, 1, 0)


# -- capacity ------------------------------------------------------------------------------------------------


def test_at_capacity_the_oldest_entry_goes() -> None:
    tlb: Tlb[Entry] = Tlb(3)
    for page in range(5):
        fill(tlb, (EL1, 0, 1), entry=Entry(page << 12))
    assert bases(tlb) == {2 << 12, 3 << 12, 4 << 12}
    assert (len(tlb), tlb.counters.evictions) == (3, 2)


def test_an_entry_in_the_place_of_another_takes_no_room(tlb: Tlb[Entry]) -> None:
    again = Entry(0x1000, level=2)
    fill(tlb, (EL1, 0, 1), (EL1, 0, 1))
    fill(tlb, (EL1, 0, 1), entry=again)
    assert len(tlb) == 1
    assert tlb.lookup(EL1, 0, 1, 0x1000) is again


# -- whole spaces --------------------------------------------------------------------------------------------

EVERY = {(EL1, 0, 1), (EL1, 0, 2), (EL1, 0, GLOBAL), (EL1, 1, 1), (EL1, 9, 1), (EL2, 0, 1), (EL2, 0, GLOBAL)}


def test_a_world_is_dropped_without_the_other_worlds(tlb: Tlb[Entry]) -> None:
    fill(tlb, *EVERY)
    tlb.invalidate_spaces(EL1)
    assert spaces(tlb) == {(EL2, 0, 1), (EL2, 0, GLOBAL)}


def test_a_vmid_is_dropped_with_its_global_entries(tlb: Tlb[Entry]) -> None:
    fill(tlb, *EVERY)
    tlb.invalidate_spaces(EL1, vmid=0)
    assert spaces(tlb) == {(EL1, 1, 1), (EL1, 9, 1), (EL2, 0, 1), (EL2, 0, GLOBAL)}


def test_an_asid_is_dropped_without_the_global_entries(tlb: Tlb[Entry]) -> None:
    fill(tlb, *EVERY)
    tlb.invalidate_spaces(EL1, vmid=0, asid=1)
    assert EVERY - spaces(tlb) == {(EL1, 0, 1)}


def test_a_mask_leaves_vmid_bits_out_of_the_match(tlb: Tlb[Entry]) -> None:
    fill(tlb, *EVERY)
    tlb.invalidate_spaces(EL1, vmid=0, vmid_mask=0xFFFE, asid=1)
    assert EVERY - spaces(tlb) == {(EL1, 0, 1), (EL1, 1, 1)}


# -- ranges --------------------------------------------------------------------------------------------------


def test_a_range_drops_of_the_asid_and_of_the_global_entries(tlb: Tlb[Entry]) -> None:
    fill(tlb, *EVERY)
    tlb.invalidate_range(EL1, 0x1000, 1, vmid=0, asid=1)
    assert EVERY - spaces(tlb) == {(EL1, 0, 1), (EL1, 0, GLOBAL)}


def test_a_range_without_an_asid_drops_of_all(tlb: Tlb[Entry]) -> None:
    fill(tlb, *EVERY)
    tlb.invalidate_range(EL1, 0x1000, 1, vmid=0)
    assert EVERY - spaces(tlb) == {(EL1, 0, 1), (EL1, 0, 2), (EL1, 0, GLOBAL)}


@pytest.mark.parametrize(
    ("start", "size", "dropped"),
    [
        (0x3000, 1, {0x3000}),
        (0x3FFF, 1, {0x3000}),
        (0x3FFF, 2, {0x3000, 0x4000}),
        (0x2000, 0x2000, {0x2000, 0x3000}),
        (0, 0x1000, set()),
        (0x6000, 1 << 80, set()),
        (0, 1 << 80, {0x1000, 0x2000, 0x3000, 0x4000, 0x5000}),
    ],
)
def test_a_range_drops_the_entries_that_it_touches(tlb: Tlb[Entry], start: int, size: int, dropped: set[int]) -> None:
    every = {0x1000, 0x2000, 0x3000, 0x4000, 0x5000}
    for base in every:
        fill(tlb, (EL1, 0, 1), entry=Entry(base))
    tlb.invalidate_range(EL1, start, size)
    assert every - bases(tlb) == dropped
    assert len(tlb) == len(bases(tlb))


def test_one_address_drops_the_whole_block_that_covers_it(tlb: Tlb[Entry]) -> None:
    fill(tlb, (EL1, 0, 1), entry=BLOCK)
    tlb.invalidate_range(EL1, 0x3F_F000, 1)
    assert len(tlb) == 0


def test_a_granule_hint_leaves_entries_of_another_granule(tlb: Tlb[Entry]) -> None:
    fill(tlb, (EL1, 0, 1))
    fill(tlb, (EL1, 0, 1), entry=Entry(0, 14, 14))
    tlb.invalidate_range(EL1, 0x1000, 1, granule_bits=14)
    assert bases(tlb) == {0x1000}


def test_a_level_hint_leaves_entries_of_another_level(tlb: Tlb[Entry]) -> None:
    fill(tlb, (EL1, 0, 1), entry=Entry(0x20_0000))
    fill(tlb, (EL1, 0, 1), entry=BLOCK)
    tlb.invalidate_range(EL1, 0x20_0000, 1, granule_bits=12, level=2)
    assert [entry for _, entry in tlb] == [Entry(0x20_0000)]


def test_a_range_as_wide_as_the_address_space_costs_no_more_than_the_entries_there_are(tlb: Tlb[Entry]) -> None:
    """Were it counted page by page, this would not end."""
    for page in range(64):
        fill(tlb, (EL1, 0, 1), entry=Entry(page << 13))
    tlb.invalidate_range(EL1, 0, 32 << 39 << 16)
    assert len(tlb) == 0


# -- conflicts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolves_sizes", [False, True])
def test_entries_of_several_sizes_conflict_unless_they_are_resolved(resolves_sizes: bool) -> None:
    tlb = StrictTlb[Entry](resolves_sizes=resolves_sizes)
    page = Entry(0x20_1000)
    fill(tlb, (EL1, 0, 1), entry=page)
    fill(tlb, (EL1, 0, 1), (EL1, 0, 2), entry=BLOCK)
    found = tlb.lookup(EL1, 0, 1, 0x20_1000)
    assert found in (page, BLOCK) if resolves_sizes else found is None
    assert tlb.conflict(EL1, 0, 1, 0x20_1000) != resolves_sizes
    assert tlb.lookup(EL1, 0, 1, 0x20_2000) is BLOCK, "the page is elsewhere"
    assert tlb.lookup(EL1, 0, 2, 0x20_1000) is BLOCK, "the page is another space's"
    tlb.invalidate_range(EL1, 0x20_1000, 1)
    assert not tlb.conflict(EL1, 0, 1, 0x20_1000)


@pytest.mark.parametrize("resolves_sizes", [False, True])
def test_a_global_entry_and_another_conflict(resolves_sizes: bool) -> None:
    tlb = StrictTlb[Entry](resolves_sizes=resolves_sizes)
    fill(tlb, (EL1, 0, 1), (EL1, 0, GLOBAL))
    assert tlb.lookup(EL1, 0, 1, 0x1000) is None
    assert tlb.conflict(EL1, 0, 1, 0x1000)
    assert tlb.lookup(EL1, 0, 2, 0x1000) is not None
    assert tlb.lookup(EL1, 0, 1, 0x1000, 1) is not None, "the global entry is of another ASET"
    assert not tlb.conflict(EL1, 1, 1, 0x1000)


def test_an_ordinary_cache_has_no_conflicts(tlb: Tlb[Entry]) -> None:
    fill(tlb, (EL1, 0, 1), (EL1, 0, GLOBAL))
    assert tlb.lookup(EL1, 0, 1, 0x1000) is not None
    assert not tlb.conflict(EL1, 0, 1, 0x1000)


# -- against a list ------------------------------------------------------------------------------------------

WORLDS, VMIDS, ASIDS = st.sampled_from([EL1, EL2]), st.integers(0, 2), st.integers(0, 2)
ADDRESSES = st.integers(0, 0xFF).map(lambda n: n << 12)
SHAPES = st.sampled_from([(12, 12, 3), (14, 14, 3), (16, 16, 3), (21, 12, 2)])
MAYBE_ASIDS = st.none() | ASIDS
MAYBE_VMIDS = st.none() | VMIDS


class TlbAgainstAList(RuleBasedStateMachine):
    """The same requests to the TLB and to a list of all that was inserted."""

    def __init__(self) -> None:
        super().__init__()
        self.tlb: Tlb[Entry] = Tlb(1 << 20)
        self.list: list[tuple[Space, Entry]] = []

    def keep(self, stays: object) -> None:
        assert callable(stays)
        self.list = [pair for pair in self.list if stays(*pair)]

    @rule(world=WORLDS, vmid=VMIDS, asid=MAYBE_ASIDS, address=ADDRESSES, shape=SHAPES)
    def insert(self, world: int, vmid: int, asid: int | None, address: int, shape: tuple[int, int, int]) -> None:
        shift, granule_bits, level = shape
        entry = Entry(address >> shift << shift, shift, granule_bits, level)
        space = Space(world, vmid, asid)
        self.keep(lambda s, e: (s, e.base, e.shift) != (space, entry.base, shift))
        self.list.append((space, entry))
        self.tlb.insert(space, entry)

    @rule(world=WORLDS, vmid=VMIDS, asid=ASIDS, address=ADDRESSES)
    def lookup(self, world: int, vmid: int, asid: int, address: int) -> None:
        covering = [(s, e) for s, e in self.list if e.base <= address < e.end and s[:2] == (world, vmid)]
        own = {e for s, e in covering if s.asid == asid}
        found = self.tlb.lookup(world, vmid, asid, address)
        expected = own or {e for s, e in covering if s.asid is GLOBAL}
        assert (found in expected) if expected else found is None

    @rule(world=WORLDS, vmid=MAYBE_VMIDS, mask=st.sampled_from([0xFFFF, 0xFFFE]), asid=MAYBE_ASIDS)
    def invalidate_spaces(self, world: int, vmid: int | None, mask: int, asid: int | None) -> None:
        self.tlb.invalidate_spaces(world, vmid=vmid, vmid_mask=mask, asid=asid)
        self.keep(
            lambda s, e: (
                s.world != world
                or (vmid is not None and s.vmid & mask != vmid & mask)
                or (asid is not None and s.asid != asid)
            )
        )

    @rule(
        world=WORLDS,
        vmid=MAYBE_VMIDS,
        asid=MAYBE_ASIDS,
        start=ADDRESSES,
        size=st.sampled_from([1, 0x1000, 0x4000, 0x10000, 1 << 21, 1 << 60]),
        granule_bits=st.sampled_from([0, 12, 14, 16]),
        level=st.sampled_from([None, 2, 3]),
    )
    def invalidate_range(
        self,
        world: int,
        vmid: int | None,
        asid: int | None,
        start: int,
        size: int,
        granule_bits: int,
        level: int | None,
    ) -> None:
        self.tlb.invalidate_range(world, start, size, vmid=vmid, asid=asid, granule_bits=granule_bits, level=level)
        self.keep(
            lambda s, e: (
                s.world != world
                or (vmid is not None and s.vmid != vmid)
                or (asid is not None and s.asid not in (asid, GLOBAL))
                or e.end <= start
                or e.base >= start + size
                or (granule_bits and e.granule_bits != granule_bits)
                or (level is not None and e.level != level)
            )
        )

    @rule()
    def clear(self) -> None:
        self.tlb.clear()
        self.list.clear()

    @invariant()
    def they_hold_the_same(self) -> None:
        assert len(self.tlb) == len(self.list)
        assert set(self.tlb) == set(self.list)


TestTlbAgainstAList = TlbAgainstAList.TestCase
TestTlbAgainstAList.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_an_entry_in_place_of_its_like_evicts_nothing() -> None:
    tlb: Tlb[Entry] = Tlb(capacity=1)
    space = Space(1, 0, 1)
    tlb.insert(space, Entry(0x1000))
    tlb.insert(space, Entry(0x1000))
    assert (len(tlb), tlb.counters.evictions) == (1, 0)


def test_naming_one_space_searches_none() -> None:
    tlb: Tlb[Entry] = Tlb()
    for asid in range(100):
        tlb.insert(Space(1, 0, asid), Entry(0x1000))
    tlb.invalidate_range(1, 0x1000, 1, vmid=0, asid=5)
    tlb.invalidate_spaces(1, vmid=0, asid=6)
    assert (len(tlb), tlb.searched) == (98, 0)
    tlb.invalidate_range(1, 0x1000, 1, vmid=0)
    assert (len(tlb), tlb.searched) == (0, 98)
