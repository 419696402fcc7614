# SPDX-License-Identifier: Apache-2.0
"""Walks of short descriptors: what maps what, who may do what there, which type of memory it is, where it faults."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from vhost_iommu.smmu import descriptors_short as d
from vhost_iommu.smmu.memory_type import NC, WB, WT, MemoryType, Shareability
from vhost_iommu.smmu.walk import Access, Fault, FaultKind, Mapping, Regime, permitted1
from vhost_iommu.smmu.walk_short import Remap, ShortTable, memory_of

TABLE, LEVEL2 = 0x4000_0000, 0x4001_0400
AARCH32 = Regime(execute_needs_read=True, xn_for_all=True)
#: As Linux's driver of 2010 writes them.
REMAP = Remap(prrr=0x800B_8204, nmrr=0x4000_4000)


class Ram:
    def __init__(self, words: dict[int, int], big_endian: bool = False) -> None:
        self.words = words
        self.order: Literal["big", "little"] = "big" if big_endian else "little"

    def fetch(self, address: int, size: int = 8) -> int | Fault | None:
        assert size == 4
        word = self.words.get(address)
        return None if word is None else int.from_bytes(word.to_bytes(4, self.order), "little")

    def update(self, address: int, old: int, new: int) -> bool | Fault | None:
        raise AssertionError("no walk of short descriptors writes")


def walk(words: dict[int, int], va: int, **table: Any) -> Mapping | Fault:
    big = bool(table.get("big_endian"))
    found = {TABLE + 4 * index: 0 for index in range(4096)} | {LEVEL2 + 4 * index: 0 for index in range(256)} | words
    return ShortTable(TABLE, **{"input_bits": 32, **table}).walk(va, Ram(found, big))


def mapped(words: dict[int, int], va: int, **table: Any) -> Mapping:
    found = walk(words, va, **table)
    assert isinstance(found, Mapping), found
    return found


def small(pa: int, **fields: int) -> dict[int, int]:
    """A page of 4 KiB about VA 0x0010_3000."""
    return {TABLE + 4: LEVEL2 | 1, LEVEL2 + 4 * 3: d.SmallPage.of(TYPE=2, OA=pa, **fields).raw}


@pytest.mark.parametrize(
    ("words", "va", "pa", "shift", "level"),
    [
        (small(0x8765_4000), 0x0010_3ABC, 0x8765_4ABC, 12, 2),
        (
            {TABLE + 4: LEVEL2 | 1, LEVEL2 + 4 * 0x47: d.LargePage.of(TYPE=1, OA=0x9876_0000).raw},
            0x0014_7ABC,
            0x9876_7ABC,
            16,
            2,
        ),
        ({TABLE + 4 * 0x123: d.Section.of(TYPE=2, OA=0x4560_0000).raw}, 0x1234_5678, 0x4564_5678, 20, 1),
        (
            {TABLE + 4 * 0x123: d.Section.of(TYPE=2, OA=0x7800_0000, Supersection=1).raw},
            0x1234_5678,
            0x7834_5678,
            24,
            1,
        ),
    ],
    ids=["4K", "64K", "1M", "16M"],
)
def test_each_size_maps_what_it_covers(words: dict[int, int], va: int, pa: int, shift: int, level: int) -> None:
    found = mapped(words, va)
    assert (found.translate(va), found.shift, found.level) == (pa, shift, level)
    assert found.base == va >> shift << shift


def test_a_supersection_has_forty_bits_of_address_where_they_are_there() -> None:
    words = {TABLE: d.Section.of(TYPE=2, OA=0x7800_0000, Supersection=1).raw | 0xA << 20 | 0x5 << 5}
    assert mapped(words, 0).output == 0x5A_7800_0000
    assert mapped(words, 0, output_bits=32).output == 0x7800_0000


def test_ttbr0_with_n_has_a_smaller_table() -> None:
    words = {TABLE + 4 * 0x7F: d.Section.of(TYPE=2, OA=0x4560_0000).raw}
    assert mapped(words, 0x07F1_2345, input_bits=27).translate(0x07F1_2345) == 0x4561_2345


@pytest.mark.parametrize(
    ("words", "va", "fault"),
    [
        ({}, 0x1234_5678, Fault(FaultKind.TRANSLATION, 1)),
        ({TABLE + 4: LEVEL2 | 1}, 0x0010_0000, Fault(FaultKind.TRANSLATION, 2)),
        ({TABLE + 4: 0x7000_0000 | 1}, 0x0010_3000, Fault(FaultKind.WALK_EABT, 2, fetch=0x7000_000C)),
    ],
    ids=["level 1", "level 2", "a table that is nowhere"],
)
def test_what_is_not_there_faults_with_its_level(words: dict[int, int], va: int, fault: Fault) -> None:
    assert walk(words, va) == fault


def test_the_access_flag_is_ap_0_where_it_is_on() -> None:
    clear = small(0x8765_4000, AP_1_0=2)
    assert walk(clear, 0x0010_3000, access_flag=True) == Fault(FaultKind.ACCESS, 2)
    assert isinstance(walk(clear, 0x0010_3000, access_flag=True, access_fault=False), Mapping)
    section = {TABLE: d.Section.of(TYPE=2, AP_1_0=0).raw}
    assert walk(section, 0, access_flag=True) == Fault(FaultKind.ACCESS, 1)


def permissions(found: Mapping) -> str:
    """Of the privileged, then of the others: read, write, execute."""
    return " ".join(
        "".join(
            letter if permitted1(found, AARCH32, Access(write, privileged, instruction)) else "-"
            for letter, write, instruction in (("r", False, False), ("w", True, False), ("x", False, True))
        )
        for privileged in (True, False)
    )


@pytest.mark.parametrize(
    ("ap", "expected"),
    [
        (0, "--- ---"), (1, "rwx ---"), (2, "rwx r-x"), (3, "rw- rwx"),
        (4, "--- ---"), (5, "r-x ---"), (6, "r-x r-x"), (7, "r-x r-x"),
    ],
)  # fmt: skip
def test_ap_says_who_may_do_what(ap: int, expected: str) -> None:
    """G5.7.1; what the unprivileged can write, the privileged do not execute."""
    assert permissions(mapped(small(0, AP_1_0=ap & 3, AP_2=ap >> 2), 0x0010_3000)) == expected


@pytest.mark.parametrize(("ap", "expected"), [(1, "rwx ---"), (3, "rw- rwx"), (5, "r-x ---"), (7, "r-x r-x")])
def test_with_the_access_flag_ap_has_two_bits(ap: int, expected: str) -> None:
    found = mapped(small(0, AP_1_0=ap & 3, AP_2=ap >> 2), 0x0010_3000, access_flag=True)
    assert permissions(found) == expected


def test_execution_is_forbidden_by_xn_to_all_and_by_pxn_to_the_privileged() -> None:
    xn = small(0, AP_1_0=2)
    xn[LEVEL2 + 4 * 3] |= 1
    assert permissions(mapped(xn, 0x0010_3000)) == "rw- r--"
    pxn = small(0, AP_1_0=2)
    pxn[TABLE + 4] |= 1 << 2
    assert permissions(mapped(pxn, 0x0010_3000)) == "rw- r-x"
    section = {TABLE: d.Section.of(TYPE=3, AP_1_0=2).raw}
    assert permissions(mapped(section, 0)) == "rw- r-x"


def test_a_table_may_be_big_endian() -> None:
    assert mapped(small(0x8765_4000), 0x0010_3000, big_endian=True).output == 0x8765_4000


@pytest.mark.parametrize(
    ("tex", "c", "b", "expected"),
    [
        (0, 0, 0, MemoryType(0, 0, Shareability.OUTER)),
        (0, 0, 1, MemoryType(0, 1, Shareability.OUTER)),
        (0, 1, 0, MemoryType(WT, WT)),
        (0, 1, 1, MemoryType(WB, WB)),
        (1, 0, 0, MemoryType(NC, NC, Shareability.OUTER)),
        (1, 1, 1, MemoryType(WB, WB)),
        (6, 0, 1, MemoryType(WT, WB)),
        (5, 1, 0, MemoryType(WB, WT)),
    ],
)
def test_without_remap_tex_c_and_b_are_the_type_of_memory(tex: int, c: int, b: int, expected: MemoryType) -> None:
    assert memory_of(tex, c, b, shareable=False) == expected


def test_with_remap_prrr_and_nmrr_are() -> None:
    """As Linux sets them: 1 is device, 7 write-back with S as NS1 says, and what is not listed strongly ordered."""
    assert REMAP.memory(1, shareable=False) == MemoryType(0, 1, Shareability.OUTER)
    assert REMAP.memory(7, shareable=True) == MemoryType(WB, WB, Shareability.INNER)
    assert REMAP.memory(7, shareable=False) == MemoryType(WB, WB, Shareability.NON)
    assert REMAP.memory(4, shareable=True) == MemoryType(NC, NC, Shareability.OUTER)
    assert REMAP.memory(0, shareable=True) == MemoryType(0, 0, Shareability.OUTER)
    leaf = small(0, TEX=1, C=1, B=1, S=1)
    assert mapped(leaf, 0x0010_3000, remap=REMAP).memory == MemoryType(WB, WB, Shareability.INNER)
    assert mapped(leaf, 0x0010_3000, remap=REMAP).attributes == 7
