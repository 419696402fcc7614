# SPDX-License-Identifier: Apache-2.0
"""Memory types: what descriptors, MAIR and overrides say, and what combining two of them gives (IHI 0070 §13)."""

from __future__ import annotations

import pytest

from vhost_iommu.smmu.memory_type import (
    INCOMING,
    NC,
    WB,
    WT,
    MemoryType,
    Shareability,
    combine,
    combine_forced,
    from_mair,
    from_memattr,
    override,
)

NON, OUTER, INNER = Shareability.NON, Shareability.OUTER, Shareability.INNER


@pytest.mark.parametrize(
    ("byte", "expected"),
    [
        (0x00, (0, 0, OUTER)),  # Device-nGnRnE
        (0x04, (0, 1, OUTER)),  # Device-nGnRE
        (0x0C, (0, 3, OUTER)),  # Device-GRE
        (0x44, (NC, NC, OUTER)),
        (0xFF, (WB, WB, INNER)),
        (0xBB, (WT, WT, INNER)),
        (0x4F, (NC, WB, INNER)),
        (0x77, (WB, WB, INNER)),  # transient
        (0x33, (WT, WT, INNER)),  # transient
    ],
)
def test_a_mair_byte_names_device_kinds_and_cacheabilities(byte: int, expected: tuple[int, int, int]) -> None:
    assert from_mair(byte, INNER) == expected


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0b0001, (0, 1, OUTER)),
        (0b0101, (NC, NC, OUTER)),
        (0b0111, (NC, WB, INNER)),
        (0b1010, (WT, WT, INNER)),
        (0b1111, (WB, WB, INNER)),
    ],
)
def test_a_stage_2_memattr_names_outer_and_inner(bits: int, expected: tuple[int, int, int]) -> None:
    assert from_memattr(bits, INNER) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # The two examples of §13.1.5.1 that are about types.
        (MemoryType(NC, WB, INNER), MemoryType(0, 1, OUTER), MemoryType(0, 1, OUTER)),
        (MemoryType(0, 1, OUTER), MemoryType(0, 0, OUTER), MemoryType(0, 0, OUTER)),
        (MemoryType(NC, WB, INNER), MemoryType(WT, WT, OUTER), MemoryType(NC, WT, OUTER)),
        (MemoryType(WB, WB, NON), MemoryType(WB, WB, INNER), MemoryType(WB, WB, INNER)),
        (MemoryType(WB, NC, NON), MemoryType(NC, WB, NON), MemoryType(NC, NC, OUTER)),
    ],
)
def test_combining_takes_the_stronger_of_each(first: MemoryType, second: MemoryType, expected: MemoryType) -> None:
    assert combine(first, second) == combine(second, first) == expected


def test_a_forced_write_back_hides_what_stage_1_said() -> None:
    assert combine_forced(MemoryType(NC, NC, OUTER), 0b110, INNER)[:2] == (WB, WB)
    assert combine_forced(MemoryType(0, 0, OUTER), 0b110, INNER)[:2] == (WB, WB)
    assert combine_forced(MemoryType(WT, WT, INNER), 0b111, INNER) == (WT, WT, INNER)
    assert combine_forced(MemoryType(WB, WB, INNER), 0b101, INNER) == (NC, NC, OUTER)
    assert combine_forced(MemoryType(WB, WB, INNER), 0b001, INNER) == (0, 1, OUTER)


def test_an_override_replaces_type_and_shareability_each_by_itself() -> None:
    assert override(INCOMING, replace_type=False, memattr=0, shcfg=1) == INCOMING
    assert override(INCOMING, replace_type=False, memattr=0, shcfg=3) == (WB, WB, INNER)
    assert override(INCOMING, replace_type=True, memattr=0b1010, shcfg=1) == (WT, WT, NON)
    # Device memory is outer shareable whatever SHCFG says.
    assert override(INCOMING, replace_type=True, memattr=0b0001, shcfg=3) == (0, 1, OUTER)


def test_a_memory_type_reads_as_the_architecture_writes_it() -> None:
    assert MemoryType(WB, WB, INNER).text == "Normal oWB iWB, inner shareable"
    assert MemoryType(0, 1, OUTER).text == "Device-nGnRE, outer shareable"
