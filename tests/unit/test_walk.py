# SPDX-License-Identifier: Apache-2.0
"""Walks of VMSAv8-64 and LPAE tables (Arm ARM D8, G5): geometry, faults, attributes and permissions."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smmu_builder import PageTable, Ram
from vhost_iommu.smmu.memory_type import INCOMING
from vhost_iommu.smmu.walk import (
    Access,
    Fault,
    FaultKind,
    LongTable,
    Mapping,
    Regime,
    Wide,
    aligned_base,
    permitted1,
    permitted2,
    start_level,
)

MiB, GiB, TiB = 1 << 20, 1 << 30, 1 << 40

#: (granule bits, input bits, start level), from Arm ARM D8.2.
GEOMETRY = [
    (12, 48, 0), (12, 40, 0), (12, 39, 1), (12, 31, 1), (12, 30, 2), (12, 25, 2), (12, 21, 3), (12, 16, 3),
    (14, 48, 0), (14, 47, 1), (14, 37, 1), (14, 36, 2), (14, 26, 2), (14, 25, 3), (14, 16, 3),
    (16, 52, 1), (16, 48, 1), (16, 43, 1), (16, 42, 2), (16, 30, 2), (16, 29, 3), (16, 17, 3),
]  # fmt: skip
#: (granule bits, level, bytes) of every leaf that 48-bit addresses know.
LEAVES = [
    (12, 3, 4096), (12, 2, 2 * MiB), (12, 1, GiB),
    (14, 3, 16384), (14, 2, 32 * MiB),
    (16, 3, 65536), (16, 2, 512 * MiB),
]  # fmt: skip


def table_of(base: int, granule_bits: int, input_bits: int, output_bits: int = 48, **rest: Any) -> LongTable:
    """A stage 1 table that starts where its input size says; with the 4K granule level 1 has blocks."""
    values = {"first_block_level": 1 if granule_bits == 12 else 2, **rest}
    level = start_level(granule_bits, input_bits)
    return LongTable(base, granule_bits, input_bits, output_bits, level, **values)


class Walker:
    """Walks a page table in RAM and counts what it fetches."""

    def __init__(self, granule_bits: int = 12, input_bits: int = 48, **table: Any) -> None:
        self.ram = Ram(size=1 << 20)
        big_endian, lpa2 = bool(table.get("big_endian")), table.get("wide") is Wide.LPA2
        self.pages = PageTable(self.ram, granule_bits, input_bits, big_endian=big_endian, lpa2=lpa2)
        self.table = table_of(self.pages.root, granule_bits, input_bits, **table)
        self.fetched: list[int] = []
        self.aborting: set[int] = set()

    def fetch(self, at: int, size: int = 8) -> int | None:
        self.fetched.append(at)
        return None if at in self.aborting else self.ram.get_u64(at)

    def update(self, at: int, old: int, new: int) -> bool:
        raise AssertionError("nothing was to be updated")

    def __call__(self, address: int) -> Mapping | Fault:
        self.fetched.clear()
        return self.table.walk(address, self)

    def leaf(self, address: int) -> Mapping:
        found = self(address)
        assert isinstance(found, Mapping), found
        return found


# -- geometry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("granule_bits", "input_bits", "start"), GEOMETRY)
def test_a_page_is_found_from_the_start_level_in_one_fetch_per_level(
    granule_bits: int, input_bits: int, start: int
) -> None:
    walker = Walker(granule_bits, input_bits)
    assert walker.pages.start_level == start
    page = 1 << granule_bits
    for address in (0, (1 << input_bits) - page, (1 << input_bits - 1) + 3 * page & -page):
        walker.pages.map(address, 0x8000_0000 + page)
        leaf = walker.leaf(address + page - 1)
        assert (leaf.base, leaf.shift, leaf.level) == (address, granule_bits, 3)
        assert leaf.translate(address + 0xABC) == 0x8000_0000 + page + 0xABC
        assert len(walker.fetched) == 4 - start


@pytest.mark.parametrize(("granule_bits", "level", "size"), LEAVES)
def test_a_leaf_covers_what_its_level_says(granule_bits: int, level: int, size: int) -> None:
    walker = Walker(granule_bits)
    at, pa = 6 * size, 3 * size
    walker.pages.map(at, pa, level=level)
    leaf = walker.leaf(at + size - 1)
    assert (leaf.base, 1 << leaf.shift, leaf.output, leaf.level) == (at, size, pa, level)
    assert leaf.granule_bits == granule_bits
    assert leaf.translate(at + size - 1) == pa + size - 1
    assert walker(at + size) == Fault(FaultKind.TRANSLATION, level)
    assert len(walker.fetched) == level - walker.pages.start_level + 1


@pytest.mark.parametrize(("granule_bits", "level"), [(12, 0), (14, 0), (14, 1), (16, 1)])
def test_a_block_where_there_may_be_none_is_a_translation_fault(granule_bits: int, level: int) -> None:
    walker = Walker(granule_bits)
    walker.pages.map(0, 0, level=level)
    assert walker(0) == Fault(FaultKind.TRANSLATION, level)


def test_a_level_1_block_of_64k_exists_with_52_bits() -> None:
    walker = Walker(16, 52, output_bits=52, wide=Wide.KB64, first_block_level=1)
    walker.pages.map(4 * TiB, 8 * TiB, level=1)
    leaf = walker.leaf(5 * TiB)
    assert (leaf.base, leaf.shift, leaf.output) == (4 * TiB, 42, 8 * TiB)


@pytest.mark.parametrize("kind", [0b00, 0b10])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_descriptor_without_its_valid_bit_is_a_translation_fault(level: int, kind: int) -> None:
    walker = Walker()
    walker.pages.write(walker.pages.entry(0, level), kind | 0x4000_0000)
    assert walker(0) == Fault(FaultKind.TRANSLATION, level)


def test_a_block_at_level_3_is_a_translation_fault() -> None:
    walker = Walker()
    walker.pages.map(0, 0, TYPE=1)
    assert walker(0) == Fault(FaultKind.TRANSLATION, 3)


def test_addresses_of_the_upper_half_are_walked_by_their_low_bits() -> None:
    walker = Walker(12, 39)
    high = (1 << 64) - (1 << 39) + 0x5000
    walker.pages.map(high, 0x8000_0000)
    leaf = walker.leaf(high + 4)
    assert leaf.base == high
    assert leaf.translate(high + 4) == 0x8000_0004


@pytest.mark.parametrize(
    ("granule_bits", "input_bits", "output_bits", "aligned"),
    [
        (12, 48, 48, 0x1_2345_6000),  # a whole table of 512
        (12, 40, 48, 0x1_2345_67F0),  # two entries: 16 bytes
        (12, 42, 48, 0x1_2345_67C0),  # eight entries: 64 bytes
        (12, 39, 48, 0x1_2345_6000),
        (16, 43, 48, 0x1_2345_67F0),  # level 1 of two entries
        (16, 52, 52, 0x1_2345_6000),  # 1024 entries: 8 KiB
        (16, 43, 52, 0x1_2345_67C0),  # 52-bit: at least 64 bytes
    ],
)
def test_the_table_base_is_aligned_down_to_the_start_tables_size(
    granule_bits: int, input_bits: int, output_bits: int, aligned: int
) -> None:
    level = start_level(granule_bits, input_bits)
    assert aligned_base(0x1_2345_67F0, granule_bits, input_bits, level, output_bits) == aligned


@given(
    geometry=st.sampled_from(GEOMETRY),
    words=st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=8),
    address=st.integers(0, (1 << 64) - 1),
    table_everywhere=st.booleans(),
)
def test_a_walk_ends_within_its_levels_whatever_the_guest_wrote(
    geometry: tuple[int, int, int], words: list[int], address: int, table_everywhere: bool
) -> None:
    granule_bits, input_bits, start = geometry
    fetched: list[int] = []

    class Hostile:
        def fetch(self, at: int, size: int = 8) -> int:
            fetched.append(at)
            assert at % 8 == 0
            assert at >> 48 == 0
            return words[len(fetched) % len(words)] | (3 if table_everywhere else 0)

        def update(self, at: int, old: int, new: int) -> bool:
            raise AssertionError("nothing was to be updated")

    found = table_of(0, granule_bits, input_bits).walk(address, Hostile())
    assert 1 <= len(fetched) <= 4 - start
    if isinstance(found, Mapping):
        assert found.base <= address < found.base + (1 << found.shift)
        assert found.translate(address) >> 48 == 0


# -- faults and their order ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_an_aborted_fetch_names_the_descriptor(level: int) -> None:
    walker = Walker()
    walker.pages.map(0x1234_5000, 0)
    at = walker.pages.entry(0x1234_5000, level)
    walker.aborting.add(at)
    assert walker(0x1234_5000) == Fault(FaultKind.WALK_EABT, level, fetch=at)


@pytest.mark.parametrize("output_bits", [32, 36, 40, 42, 44])
def test_an_output_beyond_the_output_size_is_an_address_size_fault(output_bits: int) -> None:
    walker = Walker(output_bits=output_bits)
    walker.pages.map(0x1000, (1 << output_bits) - 0x1000)
    walker.pages.map(0x2000, 1 << output_bits)
    assert isinstance(walker(0x1000), Mapping)
    assert walker(0x2000) == Fault(FaultKind.ADDR_SIZE, 3)


def test_a_next_table_beyond_the_output_size_is_an_address_size_fault_and_is_not_fetched() -> None:
    walker = Walker(output_bits=36)
    walker.pages.map(0, 0)
    walker.pages.change(0, 1, NextTable=1 << 36)
    assert walker(0) == Fault(FaultKind.ADDR_SIZE, 1)
    assert len(walker.fetched) == 2


def test_a_clear_access_flag_faults_after_the_address_size_and_only_when_asked_to() -> None:
    walker = Walker(output_bits=40)
    walker.pages.map(0x1000, 1 << 40, AF=0)
    walker.pages.map(0x2000, 0, AF=0)
    assert walker(0x1000) == Fault(FaultKind.ADDR_SIZE, 3)
    assert walker(0x2000) == Fault(FaultKind.ACCESS, 3)
    indifferent = Walker(access_fault=False)
    indifferent.pages.map(0x2000, 0, AF=0)
    assert isinstance(indifferent(0x2000), Mapping)


def test_address_bits_51_48_of_64k_descriptors_count_only_if_wide() -> None:
    pa = 0xF_8000_0001_0000
    wide = Walker(16, 52, output_bits=52, wide=Wide.KB64)
    wide.pages.map(0x10000, pa)
    assert wide.leaf(0x10000).output == pa
    narrow = Walker(16, 48)
    narrow.pages.map(0x10000, pa)
    assert narrow.leaf(0x10000).output == pa & (1 << 48) - 1


def test_a_wide_output_is_checked_against_the_output_size() -> None:
    walker = Walker(16, 48, output_bits=48, wide=Wide.KB64)
    walker.pages.map(0x10000, 1 << 48)
    assert walker(0x10000) == Fault(FaultKind.ADDR_SIZE, 3)


def test_output_bits_below_the_leafs_size_are_not_part_of_the_address() -> None:
    walker = Walker()
    walker.pages.map(0, 0x4000_0000, level=2)
    walker.pages.change(0, 2, OA=0x4000_0000 + 0x1F_F000)
    assert walker.leaf(0).output == 0x4000_0000


@pytest.mark.parametrize("granule_bits", [12, 14, 16])
def test_big_endian_tables_are_read_byte_reversed(granule_bits: int) -> None:
    walker = Walker(granule_bits, big_endian=True)
    walker.pages.map(0, 0x8000_0000, AttrIndx=5)
    assert walker.leaf(0).output == 0x8000_0000
    assert walker.leaf(0).attributes == 5
    little = table_of(walker.pages.root, granule_bits, 48).walk(0, walker)
    assert isinstance(little, Fault)


# -- attributes ----------------------------------------------------------------------------------------------


def test_a_leafs_attributes_come_through() -> None:
    walker = Walker()
    walker.pages.map(0, 0, AttrIndx=6, SH=2, nG=0, AP=0, UXN=1, PXN=0)
    walker.pages.map(0x1000, 0, AttrIndx=1, SH=3, nG=1, AP=3, UXN=0, PXN=1)
    first, second = walker.leaf(0), walker.leaf(0x1000)
    assert (first.attributes, first.shareability, first.not_global) == (6, 2, False)
    assert (first.user, first.writable, first.uxn, first.pxn) == (False, True, True, False)
    assert (second.attributes, second.shareability, second.not_global) == (1, 3, True)
    assert (second.user, second.writable, second.uxn, second.pxn) == (True, False, False, True)


HIERARCHY = [
    ({"APTable": 1}, {"user": False}),
    ({"APTable": 2}, {"writable": False}),
    ({"APTable": 3}, {"user": False, "writable": False}),
    ({"UXNTable": 1}, {"uxn": True}),
    ({"PXNTable": 1}, {"pxn": True}),
]


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(("table", "taken"), HIERARCHY)
def test_a_table_descriptor_takes_permissions_from_all_below(
    level: int, table: dict[str, int], taken: dict[str, bool]
) -> None:
    walker = Walker()
    walker.pages.map(0, 0)
    walker.pages.change(0, level, **table)
    leaf = walker.leaf(0)
    generous = {"user": True, "writable": True, "uxn": False, "pxn": False}
    assert {name: getattr(leaf, name) for name in generous} == {**generous, **taken}


@pytest.mark.parametrize(("table", "taken"), HIERARCHY)
def test_with_had_table_descriptors_take_nothing(table: dict[str, int], taken: dict[str, bool]) -> None:
    walker = Walker(hierarchical=False)
    walker.pages.map(0, 0)
    walker.pages.change(0, 1, **table)
    leaf = walker.leaf(0)
    assert (leaf.user, leaf.writable, leaf.uxn, leaf.pxn) == (True, True, False, False)


def test_a_table_descriptor_gives_nothing_back() -> None:
    walker = Walker()
    walker.pages.map(0, 0, AP=2, UXN=1, PXN=1)
    walker.pages.change(0, 0, APTable=1)
    leaf = walker.leaf(0)
    assert (leaf.user, leaf.writable, leaf.uxn, leaf.pxn) == (False, False, True, True)


# -- permissions (Arm ARM D8.4) ------------------------------------------------------------------------------

#: What AP[2:1] lets privileged and unprivileged data accesses do.
DATA = {
    0: ("rw", ""),
    1: ("rw", "rw"),
    2: ("r", ""),
    3: ("r", "r"),
}
#: By (AP[2:1], UXN, PXN): who may execute, without WXN.
EXECUTE = {
    (0, 0, 0): "pu", (0, 0, 1): "u", (0, 1, 0): "p", (0, 1, 1): "",
    (1, 0, 0): "u", (1, 0, 1): "u", (1, 1, 0): "", (1, 1, 1): "",
    (2, 0, 0): "pu", (2, 0, 1): "u", (2, 1, 0): "p", (2, 1, 1): "",
    (3, 0, 0): "pu", (3, 0, 1): "u", (3, 1, 0): "p", (3, 1, 1): "",
}  # fmt: skip
#: The same with WXN: what one may write, one may not execute.
EXECUTE_WXN = {
    **EXECUTE,
    (0, 0, 0): "u", (0, 1, 0): "",
    (1, 0, 0): "", (1, 0, 1): "",
}  # fmt: skip


def mapping(ap: int, uxn: int = 0, pxn: int = 0) -> Mapping:
    return Mapping(
        base=0,
        shift=12,
        output=0,
        granule_bits=12,
        level=3,
        descriptor=0,
        descriptor_at=0,
        readable=True,
        writable=not ap & 2,
        clean=False,
        user=bool(ap & 1),
        uxn=bool(uxn),
        pxn=bool(pxn),
        not_global=True,
        attributes=0,
        shareability=3,
        memory=INCOMING,
    )


def permitted(leaf: Mapping, regime: Regime, *, write: bool, privileged: bool, instruction: bool) -> bool:
    return permitted1(leaf, regime, Access(write, privileged, instruction))


@pytest.mark.parametrize(("ap", "privileged", "write"), list(product(range(4), (False, True), (False, True))))
def test_data_accesses_are_permitted_by_ap(ap: int, privileged: bool, write: bool) -> None:
    allowed = DATA[ap][0 if privileged else 1]
    # Whether it may be executed has no say.
    for uxn, pxn, wxn in product((0, 1), (0, 1), (False, True)):
        got = permitted(mapping(ap, uxn, pxn), Regime(wxn=wxn), write=write, privileged=privileged, instruction=False)
        assert got == (("w" if write else "r") in allowed)


@pytest.mark.parametrize("wxn", [False, True])
@pytest.mark.parametrize(("ap", "uxn", "pxn"), list(EXECUTE))
@pytest.mark.parametrize("who", ["p", "u"])
def test_instruction_fetches_are_permitted_by_xn_ap_and_wxn(ap: int, uxn: int, pxn: int, wxn: bool, who: str) -> None:
    expected = who in (EXECUTE_WXN if wxn else EXECUTE)[ap, uxn, pxn]
    regime = Regime(wxn=wxn)
    assert permitted(mapping(ap, uxn, pxn), regime, write=False, privileged=who == "p", instruction=True) == expected


@pytest.mark.parametrize("ap", range(4))
@pytest.mark.parametrize("write", [False, True])
def test_pan_keeps_the_privileged_from_data_of_users(ap: int, write: bool) -> None:
    plain = permitted(mapping(ap), Regime(), write=write, privileged=True, instruction=False)
    with_pan = permitted(mapping(ap), Regime(pan=True), write=write, privileged=True, instruction=False)
    assert with_pan == (plain and not ap & 1)


@pytest.mark.parametrize("ap", range(4))
def test_pan_concerns_neither_users_nor_instructions(ap: int) -> None:
    for privileged, instruction in ((False, False), (False, True), (True, True)):
        access = {"write": False, "privileged": privileged, "instruction": instruction}
        assert permitted(mapping(ap), Regime(pan=True), **access) == permitted(mapping(ap), Regime(), **access)


@pytest.mark.parametrize(("ap", "xn", "wxn"), list(product(range(4), (0, 1), (False, True))))
@pytest.mark.parametrize("privileged", [False, True])
def test_a_regime_of_one_privilege_level_knows_read_only_and_one_xn(
    ap: int, xn: int, wxn: bool, privileged: bool
) -> None:
    regime = Regime(unprivileged=False, wxn=wxn, pan=True)
    for pxn in (0, 1):  # has no meaning here
        leaf = mapping(ap, xn, pxn)
        access = {"privileged": privileged}
        assert permitted(leaf, regime, write=False, instruction=False, **access)
        assert permitted(leaf, regime, write=True, instruction=False, **access) == (not ap & 2)
        executable = not xn and not (wxn and not ap & 2)
        assert permitted(leaf, regime, write=False, instruction=True, **access) == executable


# -- 52 bits with 4K and 16K pages (LPA2) --------------------------------------------------------------------

LPA2: dict[str, object] = {"output_bits": 52, "wide": Wide.LPA2, "shareability": 2}


@pytest.mark.parametrize(
    ("granule_bits", "input_bits", "start"),
    [(12, 52, -1), (12, 49, -1), (12, 48, 0), (14, 52, 0), (14, 48, 0), (14, 47, 1)],
)
def test_lpa2_has_a_level_more_for_52_bits(granule_bits: int, input_bits: int, start: int) -> None:
    walker = Walker(granule_bits, input_bits, **LPA2)
    page = 1 << granule_bits
    top = (1 << input_bits) - page
    walker.pages.map(top, 0xF_0000_8000_0000)
    leaf = walker.leaf(top + page - 1)
    assert (leaf.base, leaf.output, leaf.shift) == (top, 0xF_0000_8000_0000, granule_bits)
    assert (walker.table.start_level, len(walker.fetched)) == (start, 4 - start)


@pytest.mark.parametrize("output", [1 << 48, 1 << 49, 1 << 50, 1 << 51, 0xF_FFFF_FFFF_C000])
@pytest.mark.parametrize("granule_bits", [12, 14])
def test_lpa2_descriptors_hold_bits_49_and_48_in_place_and_51_and_50_in_9_and_8(granule_bits: int, output: int) -> None:
    walker = Walker(granule_bits, 40, **LPA2)
    walker.pages.map(0, 0)
    raw = output & (1 << 50) - 1 | (output >> 50) << 8
    at = walker.pages.entry(0)
    walker.pages.write(at, raw | 0x403)
    leaf = walker.leaf(0)
    assert leaf.output == output
    # These bits are no shareability, which is that of the whole table.
    assert leaf.shareability == 2
    # Of a table's address they are the same bits.
    walker.pages.write(walker.pages.entry(0, 2), raw | 3)
    walker.aborting.add(output)
    assert walker(0) == Fault(FaultKind.WALK_EABT, 3, fetch=output)


@pytest.mark.parametrize(("granule_bits", "level", "size"), [(12, 0, 512 * GiB), (14, 1, 64 * GiB)])
def test_lpa2_has_blocks_of_a_level_more(granule_bits: int, level: int, size: int) -> None:
    with_lpa2 = Walker(granule_bits, 48, **LPA2, first_block_level=level)
    with_lpa2.pages.map(size, 3 * size, level=level)
    leaf = with_lpa2.leaf(2 * size - 1)
    assert (leaf.base, leaf.output, 1 << leaf.shift) == (size, 3 * size, size)


def test_an_lpa2_output_is_checked_against_the_output_size() -> None:
    walker = Walker(12, 40, **{**LPA2, "output_bits": 48})
    walker.pages.map(0, 1 << 48)
    walker.pages.map(0x1000, 1 << 50)
    walker.pages.map(0x2000, (1 << 48) - 0x1000)
    assert walker(0) == walker(0x1000) == Fault(FaultKind.ADDR_SIZE, 3)
    assert walker.leaf(0x2000).output == (1 << 48) - 0x1000


def test_a_table_of_52_bit_outputs_is_aligned_to_64_bytes_at_least() -> None:
    assert aligned_base(0x1FF0, 12, 40, 1, 52) == aligned_base(0x1FF0, 12, 40, 1, 48) == 0
    assert (aligned_base(0x10F0, 12, 39, 0, 52), aligned_base(0x10F0, 12, 39, 0, 48)) == (0x10C0, 0x10F0)


# -- VMSAv8-32 LPAE ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("input_bits", "start"), [(32, 1), (31, 1), (30, 2), (28, 2), (25, 2)])
def test_an_lpae_table_starts_at_level_1_or_2(input_bits: int, start: int) -> None:
    walker = Walker(12, input_bits, output_bits=40)
    top = (1 << input_bits) - 0x1000
    walker.pages.map(top, (1 << 40) - 0x1000)
    assert walker.leaf(top + 5).translate(top + 5) == (1 << 40) - 0x1000 + 5
    assert (walker.table.start_level, len(walker.fetched)) == (start, 4 - start)
    walker.pages.map(0, 1 << 40)
    assert walker(0) == Fault(FaultKind.ADDR_SIZE, 3)


def test_the_unprivileged_execute_of_lpae_tables_only_what_they_may_read() -> None:
    regime = Regime(execute_needs_read=True)
    for ap in range(4):
        allowed = permitted(mapping(ap), regime, write=False, privileged=False, instruction=True)
        assert allowed == bool(ap & 1)


@pytest.mark.parametrize("uwxn", [False, True])
def test_uwxn_keeps_the_privileged_from_executing_what_users_write(uwxn: bool) -> None:
    regime = Regime(uwxn=uwxn)
    for ap in range(4):
        allowed = permitted(mapping(ap), regime, write=False, privileged=True, instruction=True)
        assert allowed == (not (uwxn and ap == 1))


# -- stage 2 -------------------------------------------------------------------------------------------------


class Walker2(Walker):
    """Walks a stage 2 table that starts with concatenated tables where its input needs them."""

    def __init__(self, granule_bits: int, input_bits: int, **table: Any) -> None:
        super().__init__(granule_bits, min(input_bits, 42))
        self.ram = Ram()
        self.pages = PageTable(self.ram, granule_bits, input_bits, stage=2)
        level = self.pages.start_level
        values = {"first_block_level": 1 if granule_bits == 12 else 2, **table}
        self.table = LongTable(self.pages.root, granule_bits, input_bits, 48, level, 2, **values)


@pytest.mark.parametrize(
    ("granule_bits", "input_bits", "start"),
    [(12, 43, 1), (12, 40, 1), (12, 34, 2), (12, 44, 0), (14, 40, 2), (14, 41, 1), (16, 33, 3), (16, 46, 2)],
)
def test_concatenated_tables_are_indexed_as_one(granule_bits: int, input_bits: int, start: int) -> None:
    walker = Walker2(granule_bits, input_bits)
    page = 1 << granule_bits
    for at in (0, (1 << input_bits - 1) + page, (1 << input_bits) - page):
        walker.pages.map(at, 0x8000_0000 + page)
        assert walker.leaf(at + 1).translate(at + 1) == 0x8000_0000 + page + 1
        assert len(walker.fetched) == 4 - start
    missing = 1 << input_bits - 2
    assert walker(missing) == Fault(FaultKind.TRANSLATION, start, 2)


@pytest.mark.parametrize("s2ap", range(4))
@pytest.mark.parametrize("dbm", [0, 1])
@pytest.mark.parametrize("dirty", [False, True])
def test_a_stage_2_leaf_is_read_and_written_by_s2ap_and_clean_by_dbm(s2ap: int, dbm: int, dirty: bool) -> None:
    walker = Walker2(12, 40, update_dirty=dirty)
    walker.pages.map(0, 0x8000_0000, S2AP=s2ap, DBM=dbm)
    leaf = walker.leaf(0)
    assert (leaf.readable, leaf.writable) == (bool(s2ap & 1), bool(s2ap & 2))
    assert leaf.clean == (bool(dbm) and dirty and not s2ap & 2)
    assert permitted2(leaf, Access(), two_bit_xn=False) == leaf.readable
    assert permitted2(leaf, Access(write=True), two_bit_xn=False) == (leaf.writable or leaf.clean)


def test_stage_2_tables_take_no_permissions_from_what_is_below() -> None:
    walker = Walker2(12, 40)
    walker.pages.map(0, 0x8000_0000)
    at = walker.pages.entry(0, 2)
    walker.pages.write(at, walker.pages.read(at) | 0x1F << 59)
    leaf = walker.leaf(0)
    assert (leaf.readable, leaf.writable, leaf.uxn, leaf.pxn) == (True, True, False, False)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_stage_2_faults_say_so(level: int) -> None:
    walker = Walker2(12, 40)
    walker.pages.map(0, 0x8000_0000)
    walker.pages.unmap(0, level)
    assert walker(0) == Fault(FaultKind.TRANSLATION, level, 2)
