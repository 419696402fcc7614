# SPDX-License-Identifier: Apache-2.0
"""The guest's map: nothing overlaps, nothing moves, and what cannot be is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.platform import (
    ECAM,
    PCI_MEMORY,
    V2M_INTIDS,
    WINDOW_ALIGNMENT,
    GuestMaster,
    GuestSmmu,
    Platform,
)


def enough_interrupts(sizes: list[list[int]]) -> bool:
    """Three MSIs for each SMMU, a wire for each master."""
    return 3 * len(sizes) + sum(map(len, sizes)) <= len(V2M_INTIDS)


machines = st.lists(st.lists(st.integers(1, 1 << 20), max_size=6), min_size=1, max_size=8).filter(enough_interrupts)


def machine(sizes: list[list[int]]) -> Platform:
    """A machine with one SMMU for each list, and one master for each size in it."""
    smmus = [GuestSmmu(f"smmu{n}") for n in range(len(sizes))]
    masters = [
        GuestMaster(f"m{n}-{k}", "virtio,mmio", f"smmu{n}", (k,), size=size)
        for n, each in enumerate(sizes)
        for k, size in enumerate(each)
    ]
    return Platform(smmus, masters)


@given(machines)
def test_no_two_windows_share_a_page_of_64K(sizes: list[list[int]]) -> None:
    platform = machine(sizes)
    windows = [registers for _, registers, _ in platform.smmus]
    windows += [placed.window for placed in platform.masters]
    spans = sorted((window.base // WINDOW_ALIGNMENT, (window.end - 1) // WINDOW_ALIGNMENT) for window in windows)
    assert all(last < first for (_, last), (first, _) in pairwise(spans))


@given(machines)
def test_bars_are_naturally_aligned_and_inside_the_pci_window(sizes: list[list[int]]) -> None:
    for function in machine(sizes).functions:
        for bar in (function.bar0, function.bar2):
            if bar is not None:
                assert bar.base % bar.size == 0
                assert bar.size & (bar.size - 1) == 0
                assert PCI_MEMORY.start <= bar.base < bar.end <= PCI_MEMORY.stop


@given(machines)
def test_wired_interrupts_and_msis_are_different_numbers(sizes: list[list[int]]) -> None:
    platform = machine(sizes)
    wired = [placed.intid for placed in platform.masters]
    assert len(set(wired)) == len(wired)
    for intid in wired:
        assert intid in V2M_INTIDS
        assert intid not in platform.msi_intids


def test_the_map_of_a_small_machine_is_this() -> None:
    platform = Platform([GuestSmmu("smmu0")], [GuestMaster("disk0", "virtio,mmio", "smmu0", (1,))])
    assert platform.writes() == [
        (ECAM + 0xF_8010, 0x1000_0000),
        (ECAM + 0xF_8018, 0x1002_0000),
        (ECAM + 0xF_8004, 6),
    ]
    assert platform.placed("disk0").window.base == 0x1002_0000
    assert platform.intid("disk0") == 143
    assert platform.msi_intids == range(80, 143)


def test_an_smmu_with_wires_has_a_number_for_each() -> None:
    platform = Platform([GuestSmmu("smmu0", wired=("gerror", "eventq"))])
    assert dict(platform.function("smmu0").intids) == {"gerror": 142, "eventq": 143}
    assert platform.intid("smmu0", "priq") is None


def test_a_master_may_choose_its_offset() -> None:
    platform = Platform(
        [GuestSmmu("smmu0")],
        [GuestMaster("a", "x", "smmu0", (1,), offset=0x3_0000), GuestMaster("b", "x", "smmu0", (2,))],
    )
    assert [placed.offset for placed in platform.masters] == [0x3_0000, 0x4_0000]


@pytest.mark.parametrize(
    ("smmus", "masters", "mend"),
    [
        ([GuestSmmu("a"), GuestSmmu("a")], [], "rename"),
        ([GuestSmmu("a")], [GuestMaster("m", "x", "b", (1,))], "name an SMMU"),
        ([GuestSmmu("a")], [GuestMaster("m", "x", "a", (1,), offset=0x1000)], "multiple of 64 KiB"),
        ([GuestSmmu("a", wired=("gerrors",))], [], "take eventq"),
        ([GuestSmmu(f"s{n}") for n in range(32)], [], "take fewer"),
        ([GuestSmmu("a")], [GuestMaster("m", "x", "a", (1,), size=1 << 30)], "smaller"),
        ([GuestSmmu("a")], [GuestMaster(f"m{n}", "x", "a", (n,)) for n in range(65)], "take fewer"),
        (
            [GuestSmmu("a")],
            [GuestMaster("m", "x", "a", (1,), offset=0), GuestMaster("n", "x", "a", (2,), offset=0)],
            "overlap",
        ),
    ],
)
def test_a_machine_that_cannot_be_is_refused(smmus: list[GuestSmmu], masters: list[GuestMaster], mend: str) -> None:
    with pytest.raises(UsageError, match=mend):
        Platform(smmus, masters)


def test_a_kernel_whose_pages_an_smmu_lacks_is_refused() -> None:
    platform = Platform([GuestSmmu("a"), GuestSmmu("b", granules=frozenset({65536}))])
    platform.require_granule(65536, "kernel")
    with pytest.raises(UsageError, match="b only translates 64K"):
        platform.require_granule(4096, "kernel")
