# SPDX-License-Identifier: Apache-2.0
"""AArch32 LPAE tables of stage 1: ranges of TTB0 and TTB1, sizes, what is ignored or ILLEGAL (IHI 0070 §3.4, §5.4)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.smmu_builder import Bench, PageTable
from vhost_iommu.layout import Layout
from vhost_iommu.smmu.transaction import Outcome
from vhost_iommu.smmu.v3.events import C_BAD_CD, F_ACCESS, F_ADDR_SIZE, F_PERMISSION, F_TRANSLATION
from vhost_iommu.smmu.v3.registers import CR0, CR2
from vhost_iommu.smmu.v3.structures import STE_CONFIG, STRW

AA32: dict[str, Any] = {"aarch32_tables": True}
LOW, HIGH = 0x8000_0000, 0x9000_0000


def outcome(bench: Bench, iova: int, sid: int = 0, **transaction: Any) -> type[Layout] | int | None:
    """Where a byte goes, or which event its transaction makes."""
    answer = bench.translate(iova, 1, sid, **transaction)
    if answer.outcome is Outcome.OK:
        return answer.pieces[0].pa
    return type(answer.events[0]) if answer.events else None


def lpae(features: dict[str, Any] | None = None, *, t0sz: int = 0, t1sz: int = 0, **cd: int) -> tuple[Bench, PageTable]:
    """A bench whose stream has AArch32 tables, both full of pages at LOW and HIGH; the low one."""
    bench = Bench({**AA32, **(features or {})})
    low = PageTable(bench.ram, input_bits=32 - t0sz)
    high = PageTable(bench.ram, input_bits=32 - t1sz)
    fields = {"AA64": 0, "T0SZ": t0sz, "T1SZ": t1sz, "TG0": 3, "TG1": 0, "TTB1": high.root, **cd}
    at = bench.cd(None, low, None, **{"EPD1": 0, **fields})
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=at)
    for iova in (0, 0x1000_0000, 0x3FFF_F000, 0x4000_0000, 0x7FFF_F000, 0x8000_0000, 0xBFFF_F000, 0xC000_0000):
        low.map(iova, LOW)
        high.map(iova, HIGH)
    low.map(0xFFFF_F000, LOW)
    high.map(0xFFFF_F000, HIGH)
    return bench, low


#: T0SZ, T1SZ → which table translates; None: neither (Arm ARM G5.7.1).
RANGES = [
    (0, 0, {0: LOW, 0x7FFF_F000: LOW, 0x8000_0000: LOW, 0xFFFF_F000: LOW}),
    (1, 0, {0: LOW, 0x7FFF_F000: LOW, 0x8000_0000: HIGH, 0xFFFF_F000: HIGH}),
    (2, 0, {0: LOW, 0x3FFF_F000: LOW, 0x4000_0000: HIGH, 0xFFFF_F000: HIGH}),
    (1, 1, {0: LOW, 0x7FFF_F000: LOW, 0x8000_0000: HIGH, 0xFFFF_F000: HIGH}),
    (2, 2, {0x3FFF_F000: LOW, 0x4000_0000: None, 0xBFFF_F000: None, 0xC000_0000: HIGH, 0xFFFF_F000: HIGH}),
    (0, 1, {0: LOW, 0x7FFF_F000: LOW, 0x8000_0000: HIGH, 0xFFFF_F000: HIGH}),
    (0, 2, {0: LOW, 0x8000_0000: LOW, 0xBFFF_F000: LOW, 0xC000_0000: HIGH}),
]


@pytest.mark.parametrize(("t0sz", "t1sz", "expected"), RANGES)
def test_t0sz_and_t1sz_divide_32_bits_and_may_leave_a_gap(
    t0sz: int, t1sz: int, expected: dict[int, int | None]
) -> None:
    bench, _ = lpae(t0sz=t0sz, t1sz=t1sz)
    for iova, pa in expected.items():
        assert outcome(bench, iova) == (pa or F_TRANSLATION), hex(iova)


def test_a_table_that_is_off_translates_nothing() -> None:
    bench, _ = lpae(t0sz=1, EPD0=1)
    assert outcome(bench, 0) is F_TRANSLATION
    assert outcome(bench, 0x8000_0000) == HIGH


@pytest.mark.parametrize("iova", [1 << 32, 1 << 55, 1 << 56, 1 << 63])
def test_addresses_have_32_bits_and_no_top_byte_is_ignored(iova: int) -> None:
    bench, _ = lpae(TBI0=1, TBI1=1)
    assert outcome(bench, iova) is F_TRANSLATION


@pytest.mark.parametrize("ips", [0, 5])
def test_outputs_have_40_bits_whatever_ips_says(ips: int) -> None:
    bench, table = lpae(IPS=ips)
    table.map(0x5000, (1 << 40) - 0x1000)
    table.map(0x6000, 1 << 40)
    assert outcome(bench, 0x5000) == (1 << 40) - 0x1000
    assert outcome(bench, 0x6000) is F_ADDR_SIZE


def test_the_upper_bits_of_txsz_do_not_count() -> None:
    bench, _ = lpae(t0sz=1, T0SZ=0b111_001, T1SZ=0b101_000)
    assert [outcome(bench, iova) for iova in (0, 0x8000_0000)] == [LOW, HIGH]


def test_updates_by_hardware_are_ignored_and_not_illegal() -> None:
    for features in ({}, {"hardware_updates": "dirty"}):
        bench, table = lpae(features, HA=1, HD=1)
        assert outcome(bench, 0) == LOW
        table.map(0x5000, LOW, AF=0)
        table.map(0x6000, LOW, AP=3, DBM=1)
        assert outcome(bench, 0x5000) is F_ACCESS
        assert outcome(bench, 0x6000, write=True) is F_PERMISSION


@pytest.mark.parametrize("uwxn", [0, 1])
def test_uwxn_counts_here(uwxn: int) -> None:
    bench, table = lpae(UWXN=uwxn)
    table.map(0x5000, LOW, AP=1)
    assert outcome(bench, 0x5000, privileged=True, instruction=True) == (F_PERMISSION if uwxn else LOW)


@pytest.mark.parametrize(
    ("features", "cd", "illegal"),
    [
        (AA32, {}, False),
        ({"aarch32_tables": False}, {}, True),
        (AA32, {"TTB0": 1 << 40}, True),
        (AA32, {"TTB1": 1 << 40}, True),
        (AA32, {"TTB1": 1 << 40, "EPD1": 1}, False),
        (AA32, {"TTB0": (1 << 40) - 0x1000}, False),
        (AA32, {"ENDI": 1}, True),
    ],
)
def test_a_cd_with_aarch32_tables_is_illegal_by_the_rules_of_5_4_2(
    features: dict[str, Any], cd: dict[str, int], illegal: bool
) -> None:
    bench, _ = lpae(features, **cd)
    assert (outcome(bench, 0) is C_BAD_CD) == illegal


@pytest.mark.parametrize("e2h", [0, 1])
def test_el2_has_aarch32_tables_but_el2_with_e2h_has_not(e2h: int) -> None:
    bench = Bench({**AA32, "stage2": True, "hyp": True})
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, E2H=e2h)
    bench.set(CR0, SMMUEN=1)
    low = PageTable(bench.ram, input_bits=32)
    low.map(0, LOW)
    at = bench.cd(None, low, None, AA64=0, T0SZ=0)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=at, STRW=STRW.EL2)
    assert outcome(bench, 0) == (C_BAD_CD if e2h else LOW)
