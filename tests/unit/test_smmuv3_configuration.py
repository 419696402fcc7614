# SPDX-License-Identifier: Apache-2.0
"""Stream tables, CD tables, what makes an STE or CD ILLEGAL, and what a configuration selects (IHI 0070 §3.3, §5)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.smmu_builder import Bench, PageTable, Ram
from vhost_iommu.layout import Layout
from vhost_iommu.smmu.transaction import Outcome
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3 import configuration
from vhost_iommu.smmu.v3.events import (
    C_BAD_CD,
    C_BAD_STE,
    C_BAD_STREAMID,
    C_BAD_SUBSTREAMID,
    F_CD_FETCH,
    F_STE_FETCH,
    F_STREAM_DISABLED,
    F_TRANSLATION,
    Event,
)
from vhost_iommu.smmu.v3.features import Features
from vhost_iommu.smmu.v3.registers import CR0, CR2, IDR0, IDR3, IDR5, STRTAB_BASE, STRTAB_BASE_CFG
from vhost_iommu.smmu.v3.structures import CD, L1STD, S1DSS, STE, STE_CONFIG, STRW, S1Fmt

PA = 0x8000_0000
IOVA = 0x1000
NOWHERE = 0x2000_0000


def with_ids(features: dict[str, Any] | None = None, **ids: dict[str, int]) -> Bench:
    """A bench of raw ID registers: those of ``features`` with some fields changed, ``IDR0={"Hyp": 1}``."""
    raw = Features(**features or {}).id_registers()
    registers = {kind.__name__: kind(value) for kind, value in raw.items()}
    changed = {name: registers[name].replace(**ids.get(name, {})).raw for name in registers}
    return Bench(id_registers=changed)


def outcome(bench: Bench, sid: int = 0, iova: int = IOVA, **transaction: Any) -> type[Layout] | int | None:
    """Where a byte goes, or which event its transaction makes; None: it ends without one."""
    answer = bench.translate(iova, 1, sid, **transaction)
    if answer.outcome is Outcome.OK:
        assert answer.events == []
        return answer.pieces[0].pa
    return type(answer.events[0]) if answer.events else None


# -- stream tables (§3.3.1) ----------------------------------------------------------------------------------


def retable(bench: Bench, base: int, **config: int) -> None:
    """Let the SMMU have another stream table."""
    bench.set(CR0, SMMUEN=0)
    bench[STRTAB_BASE] = STRTAB_BASE.of(ADDR=base)
    bench[STRTAB_BASE_CFG] = STRTAB_BASE_CFG.of(**config)
    bench.invalidate(c.CMD_CFGI_STE_RANGE.everything())
    bench.set(CR0, SMMUEN=1)


def bypassing(bench: Bench, at: int) -> None:
    bench.ram.put(at, STE.of(V=1, Config=STE_CONFIG.BYPASS))


@pytest.mark.parametrize("bits", [0, 1, 5, 8])
def test_a_linear_table_has_as_many_streams_as_its_size_says(bits: int) -> None:
    bench = Bench()
    base = bench.ram.alloc(64 << bits)
    retable(bench, base, LOG2SIZE=bits)
    last = (1 << bits) - 1
    bypassing(bench, base + 64 * last)
    assert outcome(bench, last) == IOVA
    assert outcome(bench, last + 1) is C_BAD_STREAMID
    assert outcome(bench, 0xFFFF_FFFF) is C_BAD_STREAMID


def test_a_linear_tables_base_is_aligned_down_to_its_size() -> None:
    bench = Bench()
    base = bench.ram.alloc(64 << 8)
    bypassing(bench, base + 64 * 3)
    retable(bench, base + 0x1FC0, LOG2SIZE=8)
    assert outcome(bench, 3) == IOVA


def test_no_table_has_more_streams_than_the_smmu() -> None:
    bench = Bench({"stream_id_bits": 4, "stream_table_levels": 1})
    retable(bench, bench.strtab, LOG2SIZE=6)
    bypassing(bench, bench.strtab + 64 * 15)
    assert outcome(bench, 15) == IOVA
    assert outcome(bench, 16) is C_BAD_STREAMID


@pytest.mark.parametrize("log2size", [0, 6, 32, 63])
@pytest.mark.parametrize("fmt", [0, 1, 2, 3])
def test_a_table_of_any_claimed_size_raises_nothing(log2size: int, fmt: int) -> None:
    bench = Bench({"stream_id_bits": 32})
    retable(bench, (1 << 52) - 64, LOG2SIZE=log2size, FMT=fmt, SPLIT=31)
    assert outcome(bench, 0) is F_STE_FETCH
    assert outcome(bench, 0xFFFF_FFFF) in (F_STE_FETCH, C_BAD_STREAMID)


@pytest.mark.parametrize("split", [6, 8, 10])
def test_a_two_level_table_finds_a_leaf_and_in_it_the_ste(split: int) -> None:
    bench = Bench()
    base, leaf = bench.ram.alloc(8 << 16 - split), bench.ram.alloc(64 << split)
    sid = (3 << split) + (1 << split) - 1
    bench.ram.put(base + 8 * 3, L1STD.of(Span=split + 1, L2Ptr=leaf))
    bypassing(bench, leaf + 64 * ((1 << split) - 1))
    retable(bench, base, LOG2SIZE=16, FMT=1, SPLIT=split)
    assert outcome(bench, sid) == IOVA
    assert outcome(bench, sid - 1) is C_BAD_STE
    assert outcome(bench, sid + 1) is C_BAD_STREAMID  # its L1STD is zero


@pytest.mark.parametrize(
    ("split", "span", "low", "found"),
    [
        (8, 0, 0, False),
        (8, 1, 0, True),
        (8, 1, 1, False),
        (8, 4, 7, True),
        (8, 4, 8, False),
        (8, 9, 255, True),
        (8, 10, 0, False),  # more than SPLIT + 1
        (8, 11, 0, False),
        (10, 11, 1023, True),
        (10, 12, 0, False),  # reserved
        (10, 31, 0, False),
    ],
)
def test_a_leaf_has_2_to_the_span_minus_1_streams(split: int, span: int, low: int, found: bool) -> None:
    bench = Bench()
    base, leaf = bench.ram.alloc(8 << 16 - split), bench.ram.alloc(64 << split)
    bench.ram.put(base, L1STD.of(Span=span, L2Ptr=leaf))
    bypassing(bench, leaf + 64 * low)
    retable(bench, base, LOG2SIZE=16, FMT=1, SPLIT=split)
    assert outcome(bench, low) == (IOVA if found else C_BAD_STREAMID)


def test_a_reserved_split_acts_as_6() -> None:
    bench = Bench()
    base, leaf = bench.ram.alloc(8 << 10), bench.ram.alloc(64 << 6)
    bench.ram.put(base + 8, L1STD.of(Span=7, L2Ptr=leaf))
    bypassing(bench, leaf + 64)
    retable(bench, base, LOG2SIZE=16, FMT=1, SPLIT=7)
    assert outcome(bench, 65) == IOVA


def test_a_leafs_pointer_is_aligned_down_to_its_span() -> None:
    bench = Bench()
    base, leaf = bench.ram.alloc(8 << 8), bench.ram.alloc(64 << 8)
    bench.ram.put(base, L1STD.of(Span=9, L2Ptr=leaf + 0x40))
    bypassing(bench, leaf + 64 * 2)
    retable(bench, base, LOG2SIZE=16, FMT=1, SPLIT=8)
    assert outcome(bench, 2) == IOVA


def test_the_first_levels_base_is_aligned_down_to_its_size_but_64_bytes_at_least() -> None:
    bench = Bench()
    base, leaf = bench.ram.alloc(4096), bench.ram.alloc(64 << 8)
    bench.ram.put(base, L1STD.of(Span=9, L2Ptr=leaf))
    bypassing(bench, leaf)
    retable(bench, base + 0x7C0, LOG2SIZE=16, FMT=1, SPLIT=8)  # 256 L1STDs: 2 KiB
    assert outcome(bench, 0) == IOVA
    retable(bench, base, LOG2SIZE=8, FMT=1, SPLIT=8)  # one
    assert outcome(bench, 0) == IOVA


@pytest.mark.parametrize("pointer", [NOWHERE, 1 << 48])
def test_a_leaf_in_no_memory_is_f_ste_fetch(pointer: int) -> None:
    bench = Bench()
    base = bench.ram.alloc(8 << 8)
    bench.ram.put(base, L1STD.of(Span=9, L2Ptr=pointer))
    retable(bench, base, LOG2SIZE=16, FMT=1, SPLIT=8)
    assert outcome(bench, 1) is F_STE_FETCH
    retable(bench, NOWHERE, LOG2SIZE=16, FMT=1, SPLIT=8)
    assert outcome(bench, 1) is F_STE_FETCH


def test_without_the_feature_every_table_is_linear() -> None:
    bench = Bench({"stream_table_levels": 1, "stream_id_bits": 6})
    retable(bench, bench.strtab, LOG2SIZE=6, FMT=1, SPLIT=6)
    bypassing(bench, bench.strtab + 64 * 5)
    assert outcome(bench, 5) == IOVA


# -- CD tables (§3.3.2) --------------------------------------------------------------------------------------


def context(bench: Bench, at: int, pa: int) -> None:
    """A CD at ``at`` through which IOVA goes to ``pa``."""
    table = PageTable(bench.ram, 12, 25)
    table.map(IOVA, pa)
    bench.cd(at, table, ASID=pa >> 12 & 0xFF)


@pytest.mark.parametrize("fmt", [S1Fmt.LINEAR, 3])
def test_a_linear_cd_table_is_indexed_by_the_substreamid(fmt: int) -> None:
    bench = Bench({"substream_id_bits": 8})
    cds = bench.ram.alloc(64 << 4)
    context(bench, cds + 64 * 5, PA)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=cds, S1CDMax=4, S1Fmt=fmt)
    assert outcome(bench, ssid=5) == PA
    assert outcome(bench, ssid=6) is C_BAD_CD
    assert outcome(bench, ssid=16) is C_BAD_SUBSTREAMID


@pytest.mark.parametrize(("fmt", "leaf_bits"), [(S1Fmt.TWO_LEVEL_4K, 6), (S1Fmt.TWO_LEVEL_64K, 10)])
def test_a_two_level_cd_table_finds_a_leaf_and_in_it_the_cd(fmt: S1Fmt, leaf_bits: int) -> None:
    bench = Bench({"substream_id_bits": 12})
    first, leaf = bench.ram.alloc(8 << 12 - leaf_bits), bench.ram.alloc(64 << leaf_bits)
    bench.ram.put_u64(first + 8, leaf | 1)
    ssid = (2 << leaf_bits) - 1
    context(bench, leaf + 64 * ((1 << leaf_bits) - 1), PA)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=first, S1CDMax=12, S1Fmt=fmt)
    assert outcome(bench, ssid=ssid) == PA
    assert outcome(bench, ssid=ssid - 1) is C_BAD_CD
    assert outcome(bench, ssid=ssid + 1) is C_BAD_SUBSTREAMID


def test_an_l1cd_beyond_the_output_size_is_c_bad_substreamid_and_one_in_no_memory_f_cd_fetch() -> None:
    bench = Bench({"substream_id_bits": 12})
    first = bench.ram.alloc(512)
    bench.ram.put_u64(first, 1 << 48 | 1)
    bench.ram.put_u64(first + 8, NOWHERE | 1)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=first, S1CDMax=12, S1Fmt=S1Fmt.TWO_LEVEL_4K)
    assert outcome(bench, ssid=1) is C_BAD_SUBSTREAMID
    assert outcome(bench, ssid=65) is F_CD_FETCH


@pytest.mark.parametrize(
    ("s1dss", "without", "zero", "one"),
    [
        (S1DSS.TERMINATE, F_STREAM_DISABLED, PA, PA + 0x1000),
        (S1DSS.BYPASS, IOVA, PA, PA + 0x1000),
        (S1DSS.SSID0, PA, F_STREAM_DISABLED, PA + 0x1000),
        (3, F_STREAM_DISABLED, PA, PA + 0x1000),  # reserved
    ],
)
def test_s1dss_says_what_becomes_of_transactions_without_a_substream(
    s1dss: int, without: object, zero: object, one: object
) -> None:
    bench = Bench({"substream_id_bits": 8})
    cds = bench.ram.alloc(128)
    context(bench, cds, PA)
    context(bench, cds + 64, PA + 0x1000)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=cds, S1CDMax=1, S1DSS=s1dss)
    assert [outcome(bench, ssid=ssid) for ssid in (None, 0, 1)] == [without, zero, one]


@pytest.mark.parametrize("s1dss", range(4))
def test_s1dss_means_nothing_where_there_are_no_substreams(s1dss: int) -> None:
    bench = Bench({"substream_id_bits": 8})
    bench.stream(S1DSS=s1dss, S1Fmt=S1Fmt.TWO_LEVEL_4K).map(IOVA, PA)
    assert outcome(bench) == PA
    assert outcome(bench, ssid=0) is C_BAD_SUBSTREAMID


def test_s1cdmax_means_nothing_to_an_smmu_without_substreams() -> None:
    bench = Bench()
    bench.stream(S1CDMax=31, S1DSS=0).map(IOVA, PA)
    assert outcome(bench) == PA
    assert outcome(bench, ssid=0) is C_BAD_SUBSTREAMID


def test_the_order_of_errors_is_that_of_the_lookup() -> None:
    """§7.3.22: C_BAD_STREAMID, F_STE_FETCH, C_BAD_STE, C_BAD_SUBSTREAMID, F_STREAM_DISABLED, F_CD_FETCH, C_BAD_CD."""
    bench = Bench({"substream_id_bits": 4})
    ste: dict[str, int] = {"V": 0, "Config": STE_CONFIG.S1, "S1CDMax": 2, "S1ContextPtr": NOWHERE, "S1DSS": S1DSS.SSID0}
    steps: list[tuple[dict[str, int], int, type[Event]]] = [
        ({}, 4, C_BAD_STE),
        ({"V": 1}, 4, C_BAD_SUBSTREAMID),
        ({}, 0, F_STREAM_DISABLED),
        ({}, 1, F_CD_FETCH),
        ({"S1ContextPtr": bench.ram.alloc(256)}, 1, C_BAD_CD),
    ]
    assert outcome(bench, 64) is C_BAD_STREAMID
    for fields, ssid, expected in steps:
        ste |= fields
        bench.ste(0, **ste)
        bench.invalidate(c.CMD_CFGI_STE.of(SID=0))
        assert outcome(bench, ssid=ssid) is expected


# -- which STE is ILLEGAL (§5.2.2) ---------------------------------------------------------------------------

HYP = {"IDR0": {"Hyp": 1}}
S2P = {"IDR0": {"S2P": 1}}
ATS = {"IDR0": {"ATS": 1}}
STALLS = {"IDR0": {"STALL_MODEL": 0}}
SUBSTREAMS = {"IDR1": {"SSIDSIZE": 4}}

#: (section or rule, ID registers, STE fields, ILLEGAL)
STE_RULES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("V = 0", {}, {"V": 0}, True),
    ("V = 0 whatever Config", {}, {"V": 0, "Config": 0}, True),
    ("§5.2 stage 2 is not there", {}, {"Config": STE_CONFIG.S2}, True),
    ("§5.2 nor are both", {}, {"Config": STE_CONFIG.NESTED}, True),
    ("stage 1 not implemented", {"IDR0": {"S1P": 0}}, {}, True),
    ("stage 1 not implemented but bypassed", {"IDR0": {"S1P": 0}}, {"Config": STE_CONFIG.BYPASS}, False),
    ("EATS split-stage without both stages", ATS, {"EATS": 2}, True),
    ("EATS split-stage ignored without ATS", {}, {"EATS": 2}, False),
    ("EATS split-stage ignored in bypass", ATS, {"EATS": 2, "Config": STE_CONFIG.BYPASS}, False),
    ("EATS full", ATS, {"EATS": 1}, False),
    ("STRW EL2", HYP, {"STRW": 2}, False),
    ("STRW 1 is reserved", HYP, {"STRW": 1}, True),
    ("STRW 3 is reserved", HYP, {"STRW": 3}, True),
    ("STRW ignored without Hyp", {}, {"STRW": 3}, False),
    ("STRW ignored in bypass", HYP, {"STRW": 3, "Config": STE_CONFIG.BYPASS}, False),
    ("S1STALLD without stalls", {}, {"S1STALLD": 1}, True),
    ("S1STALLD without stalls in bypass", {}, {"S1STALLD": 1, "Config": STE_CONFIG.BYPASS}, False),
    ("S1STALLD with stalls", STALLS, {"S1STALLD": 1}, False),
    ("S1STALLD with stalls forced", {"IDR0": {"STALL_MODEL": 2}}, {"S1STALLD": 1}, True),
    ("S1CDMax beyond SSIDSIZE", SUBSTREAMS, {"S1CDMax": 5, "S1DSS": 1}, True),
    ("S1CDMax of SSIDSIZE", SUBSTREAMS, {"S1CDMax": 4, "S1DSS": 2}, False),
    ("S1CDMax ignored without substreams", {}, {"S1CDMax": 31}, False),
    ("S1Fmt 1 without CD2L", {"IDR0": {"CD2L": 0}, **SUBSTREAMS}, {"S1CDMax": 1, "S1Fmt": 1, "S1DSS": 1}, True),
    ("S1Fmt 2 without CD2L", {"IDR0": {"CD2L": 0}, **SUBSTREAMS}, {"S1CDMax": 1, "S1Fmt": 2, "S1DSS": 1}, True),
    ("S1Fmt 3 acts as linear", {"IDR0": {"CD2L": 0}, **SUBSTREAMS}, {"S1CDMax": 1, "S1Fmt": 3, "S1DSS": 2}, False),
    ("S1Fmt ignored with one CD", {"IDR0": {"CD2L": 0}, **SUBSTREAMS}, {"S1Fmt": 1}, False),
    ("S1ContextPtr beyond OAS", {}, {"S1ContextPtr": 1 << 48}, True),
    ("S1ContextPtr beyond OAS in bypass", {}, {"S1ContextPtr": 1 << 48, "Config": STE_CONFIG.BYPASS}, False),
    ("S2VMID of 16 bits without VMID16", S2P, {"S2VMID": 0x100}, True),
    ("S2VMID of 16 bits with VMID16", {"IDR0": {"S2P": 1, "VMID16": 1}}, {"S2VMID": 0x100}, False),
    ("S2VMID ignored without stage 2", {}, {"S2VMID": 0x100}, False),
    ("S2VMID ignored in EL2", {"IDR0": {"S2P": 1, "Hyp": 1}}, {"S2VMID": 0x100, "STRW": 2}, False),
    ("what only software reads", {}, {"SW_RESERVED": 15, "IMPDEF_116": 0xFFF, "MEV": 1, "CONT": 15}, False),
]


@pytest.mark.parametrize(("ids", "fields", "illegal"), [rule[1:] for rule in STE_RULES], ids=[r[0] for r in STE_RULES])
def test_an_ste_is_illegal_by_the_rules_of_5_2_2(ids: dict[str, Any], fields: dict[str, Any], illegal: bool) -> None:
    bench = with_ids(**ids)
    bench.stream(**{"S1DSS": 2, **fields}).map(IOVA, PA)
    expected = C_BAD_STE if illegal else IOVA if fields.get("Config") == STE_CONFIG.BYPASS else PA
    assert outcome(bench, privileged=True) == expected


# -- which CD is ILLEGAL (§5.4.2) ----------------------------------------------------------------------------

OFF = {"EPD0": 1}  # no table is walked: the fields of TTB0 are ignored
#: (rule, ID registers, STE fields, CD fields, ILLEGAL)
CD_RULES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, int], bool]] = [
    ("V = 0", {}, {}, {"V": 0}, True),
    ("S without stalls", {}, {}, {"S": 1}, True),
    ("S with S1STALLD", STALLS, {"S1STALLD": 1}, {"S": 1}, True),
    ("S = 0 with stalls forced", {"IDR0": {"STALL_MODEL": 2}}, {}, {}, True),
    ("A = 0 where only abort is", {"IDR0": {"TERM_MODEL": 1}}, {}, {"A": 0}, True),
    ("A = 1 where only abort is", {"IDR0": {"TERM_MODEL": 1}}, {}, {"A": 1}, False),
    ("ENDI with little endian", {}, {}, {"ENDI": 1}, True),
    ("ENDI ignored without a table", {}, {}, {"ENDI": 1, **OFF}, False),
    ("ENDI = 0 with big endian", {"IDR0": {"TTENDIAN": 3}}, {}, {}, True),
    ("AArch32 tables", {}, {}, {"AA64": 0}, True),
    ("AArch64 tables not implemented", {"IDR0": {"TTF": 1}}, {}, {}, True),
    ("HA without HTTU", {}, {}, {"HA": 1}, True),
    ("HD without HTTU", {}, {}, {"HD": 1}, True),
    ("HAFT ignored without HTTU", {}, {}, {"HAFT": 1}, False),
    ("HD with HTTU of the access flag", {"IDR0": {"HTTU": 1}}, {}, {"HA": 1, "HD": 1}, True),
    ("HAFT without HA", {"IDR0": {"HTTU": 3}}, {}, {"HAFT": 1}, True),
    ("ASID of 16 bits without ASID16", {"IDR0": {"ASID16": 0}}, {}, {"ASID": 0x100}, True),
    ("ASID of 8 bits without ASID16", {"IDR0": {"ASID16": 0}}, {}, {"ASID": 0xFF}, False),
    ("ASID of 16 bits", {}, {}, {"ASID": 0xFFFF}, False),
    ("ASID ignored in EL2", {"IDR0": {"ASID16": 0, "Hyp": 1}}, {"STRW": 2}, {"ASID": 0x100}, False),
    ("T0SZ 15", {}, {}, {"T0SZ": 15}, True),
    ("T0SZ 40 without STT", {}, {}, {"T0SZ": 40}, True),
    ("T0SZ 48 with STT", {"IDR3": {"STT": 1}}, {}, {"T0SZ": 49}, True),
    ("T0SZ ignored without a table", {}, {}, {"T0SZ": 0, **OFF}, False),
    ("T0SZ counts in EL2 whatever EPD0", HYP, {"STRW": 2}, {"T0SZ": 0, **OFF}, True),
    ("TG0 reserved", {}, {}, {"TG0": 3}, True),
    ("TG0 not implemented", {"IDR5": {"GRAN16K": 0}}, {}, {"TG0": 2}, True),
    ("TG0 ignored without a table", {}, {}, {"TG0": 3, **OFF}, False),
    ("TTB0 beyond IPS", {}, {}, {"IPS": 0, "TTB0": 1 << 32}, True),
    ("TTB0 beyond OAS", {}, {}, {"IPS": 7, "TTB0": 1 << 48}, True),
    ("TTB0 ignored without a table", {}, {}, {"IPS": 0, "TTB0": 1 << 32, **OFF}, False),
    ("TG1 of 0 is reserved", {}, {}, {"EPD1": 0, "T1SZ": 25}, True),
    ("TG1 of 0 without a table", {}, {}, {"EPD1": 1}, False),
    ("T1SZ 15", {}, {}, {"EPD1": 0, "TG1": 2, "T1SZ": 15}, True),
    ("TTB1 beyond IPS", {}, {}, {"EPD1": 0, "TG1": 2, "T1SZ": 25, "IPS": 0, "TTB1": 1 << 32}, True),
    ("TTB1 ignored in EL2", HYP, {"STRW": 2}, {"EPD1": 0, "T1SZ": 1}, False),
    ("IPS reserved acts as the OAS", {}, {}, {"IPS": 7}, False),
]


@pytest.mark.parametrize(
    ("ids", "ste", "fields", "illegal"), [rule[1:] for rule in CD_RULES], ids=[rule[0] for rule in CD_RULES]
)
def test_a_cd_is_illegal_by_the_rules_of_5_4_2(
    ids: dict[str, Any], ste: dict[str, Any], fields: dict[str, int], illegal: bool
) -> None:
    bench = with_ids(**ids)
    bench.stream(cd=fields, **ste).map(IOVA, PA)
    expected = C_BAD_CD if illegal else F_TRANSLATION if fields.get("EPD0") else PA
    assert outcome(bench, privileged=True) == expected


SIZES = [
    # granule, STT, VAX: smallest and largest TxSZ
    (12, 0, 0, 16, 39),
    (14, 0, 0, 16, 39),
    (16, 0, 0, 16, 39),
    (12, 1, 0, 16, 48),
    (14, 1, 0, 16, 48),
    (16, 1, 0, 16, 47),
    (12, 0, 1, 16, 39),
    (16, 0, 1, 12, 39),
    (16, 1, 2, 12, 47),
]


@pytest.mark.parametrize(("granule", "stt", "vax", "smallest", "largest"), SIZES)
def test_txsz_has_limits_by_granule_and_feature(granule: int, stt: int, vax: int, smallest: int, largest: int) -> None:
    ids = {"IDR3": {"STT": stt}, "IDR5": {"VAX": vax}}
    for size in (smallest - 1, smallest, largest, largest + 1):
        bench = with_ids(**ids)
        table = PageTable(bench.ram, granule, 64 - min(max(size, smallest), largest))
        table.map(0, PA)
        bench.stream(table=table, cd={"T0SZ": size})
        assert outcome(bench, iova=0) == (PA if smallest <= size <= largest else C_BAD_CD)


# -- what a configuration selects ----------------------------------------------------------------------------


@pytest.mark.parametrize("granule", [12, 14, 16])
def test_both_halves_of_the_address_space_have_their_table(granule: int) -> None:
    bench = Bench()
    low, high = PageTable(bench.ram, granule, 39), PageTable(bench.ram, granule, 42)
    low.map(0, PA)
    top = (1 << 64) - (1 << granule)
    high.map(top, PA + 0x10_0000)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=bench.cd(None, low, high))
    assert outcome(bench, iova=5) == PA + 5
    assert outcome(bench, iova=top + 5) == PA + 0x10_0005
    for outside in (1 << 39, (1 << 64) - (1 << 42) - 1, 1 << 63, (1 << 55) - 1):
        assert outcome(bench, iova=outside) is F_TRANSLATION


@pytest.mark.parametrize("tbi", [0, 1])
def test_tbi_ignores_the_top_byte_and_bit_55_chooses_the_half(tbi: int) -> None:
    bench = Bench()
    low, high = PageTable(bench.ram), PageTable(bench.ram)
    low.map(IOVA, PA)
    high.map(IOVA, PA + 0x1000)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=bench.cd(None, low, high, TBI0=tbi, TBI1=tbi))
    low_tagged, high_tagged = 0x5A << 56 | IOVA, 0x5AFF << 48 | IOVA
    assert outcome(bench, iova=0xFFFF << 48 | IOVA) == PA + 0x1000
    assert outcome(bench, iova=low_tagged) == (PA if tbi else F_TRANSLATION)
    assert outcome(bench, iova=high_tagged) == (PA + 0x1000 if tbi else F_TRANSLATION)
    (event,) = bench.translate(0x5A << 56 | 0x9000).events
    assert event.values()["InputAddr"] == 0x5A << 56 | 0x9000


def test_big_endian_tables_are_walked_where_the_smmu_can() -> None:
    bench = with_ids(IDR0={"TTENDIAN": 0})
    bench.stream(table=PageTable(bench.ram, big_endian=True), cd={"ENDI": 1}).map(IOVA, PA)
    assert outcome(bench) == PA


def test_affd_makes_the_access_flag_mean_nothing() -> None:
    bench = Bench()
    bench.stream(cd={"AFFD": 1}).map(IOVA, PA, AF=0)
    assert outcome(bench) == PA


@pytest.mark.parametrize(("had", "feature", "writes"), [(0, True, False), (1, True, True), (1, False, False)])
def test_had_ignores_hierarchical_permissions_where_it_is_implemented(had: int, feature: bool, writes: bool) -> None:
    bench = Bench({"hierarchical_disable": feature})
    table = bench.stream(cd={"HAD0": had})
    table.map(IOVA, PA)
    table.change(IOVA, 1, APTable=2)
    assert (outcome(bench, write=True) == PA) == writes


@pytest.mark.parametrize(("e0pd", "feature", "found"), [(0, True, True), (1, True, False), (1, False, True)])
def test_e0pd_keeps_the_unprivileged_out_of_a_half(e0pd: int, feature: bool, found: bool) -> None:
    bench = Bench({"e0pd": feature})
    bench.stream(cd={"E0PD0": e0pd}).map(IOVA, PA)
    assert outcome(bench, privileged=True) == PA
    assert outcome(bench) == (PA if found else F_TRANSLATION)


def test_wxn_and_pan_come_from_the_cd() -> None:
    bench = Bench()
    bench.stream(cd={"PAN": 1, "WXN": 1}).map(IOVA, PA)
    assert outcome(bench) == PA
    assert outcome(bench, privileged=True) != PA
    assert outcome(bench, instruction=True) != PA


def test_el2_has_one_table_one_privilege_level_and_no_asid() -> None:
    bench = with_ids(IDR0={"Hyp": 1}, IDR3={"E0PD": 1})
    table = bench.stream(STRW=STRW.EL2, cd={"PAN": 1, "E0PD0": 1, "ASID": 7})
    table.map(IOVA, PA, AP=0)
    assert outcome(bench) == PA
    assert outcome(bench, privileged=True) == PA
    assert outcome(bench, iova=0xFFFF << 48 | IOVA) is F_TRANSLATION
    assert {space.asid for space, _ in bench.smmu.tlb} == {None}


def test_el2_with_e2h_has_both() -> None:
    bench = with_ids(IDR0={"Hyp": 1})
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, E2H=1)
    bench.set(CR0, SMMUEN=1)
    bench.stream(STRW=STRW.EL2, cd={"ASID": 7}).map(IOVA, PA, AP=0)
    assert outcome(bench, privileged=True) == PA
    assert outcome(bench) != PA
    assert {space.asid for space, _ in bench.smmu.tlb} == {7}


def test_52_bit_addresses_need_64k_pages() -> None:
    bench = Bench({"oas": 52})
    pa = 0xA_0000_8000_0000
    wide = PageTable(bench.ram, 16, 52)
    wide.map(1 << 51, pa)
    bench.stream(table=wide)
    assert outcome(bench, iova=1 << 51) == pa
    bench.ste(1, Config=STE_CONFIG.S1, S1ContextPtr=bench.cd(None, PageTable(bench.ram), TTB0=1 << 48))
    assert outcome(bench, sid=1) is C_BAD_CD


def test_a_bypassing_stream_translates_nothing() -> None:
    bench = Bench()
    bench.ste(3, Config=STE_CONFIG.BYPASS)
    assert outcome(bench, 3, 0x1234) == 0x1234
    assert len(bench.smmu.tlb) == 0


def test_what_linux_writes_into_an_ste_and_cd_is_legal() -> None:
    """Captured from 6.12: stage 1 only, 48-bit, 4K, ASID 1, no substreams; S1DSS says SSID0 nonetheless."""
    bench = Bench()
    for base in (0x4500_0000, 0x4600_0000):
        bench.ram.memory.add(Ram(base, 4096).memory.windows[0])
    table = PageTable(bench.ram)
    table.map(IOVA, PA)
    bench.ram.put(bench.strtab, STE.from_words([0x0000_0000_4500_000B, 0x0000_0000_0000_00D6]))
    linux = CD.from_words([0x0001_E205_C000_3510, 0x0000_0000_4600_0000, 0, 0x0000_0000_F404_FF44])
    bench.ram.put(0x4500_0000, linux)
    bench.ram.put(0x4600_0000, bench.ram.get(table.root, 4096))
    assert outcome(bench) == PA


# -- caches --------------------------------------------------------------------------------------------------


def test_an_invalid_ste_stays_cached_until_it_is_invalidated() -> None:
    bench = Bench()
    assert outcome(bench) is C_BAD_STE
    bench.ste(0, Config=STE_CONFIG.BYPASS)
    assert outcome(bench) is C_BAD_STE
    bench.invalidate(c.CMD_CFGI_STE.of(SID=0))
    assert outcome(bench) == IOVA


def test_an_invalid_cd_stays_cached_until_it_is_invalidated() -> None:
    bench = Bench()
    table = bench.stream(cd={"V": 0})
    table.map(IOVA, PA)
    assert outcome(bench) is C_BAD_CD
    at = STE.from_bytes(bench.ram.get(bench.strtab, 64)).S1ContextPtr
    bench.cd(at, table)
    assert outcome(bench) is C_BAD_CD
    bench.invalidate(c.CMD_CFGI_CD.of(SID=0, SSID=0, Leaf=1))
    assert outcome(bench) == PA


def test_an_invalid_l1std_stays_cached_until_more_than_the_leaf_is_invalidated() -> None:
    bench = Bench()
    base, leaf = bench.ram.alloc(8 << 8), bench.ram.alloc(64 << 8)
    retable(bench, base, LOG2SIZE=16, FMT=1, SPLIT=8)
    assert outcome(bench, 3) is C_BAD_STREAMID
    bench.ram.put(base, L1STD.of(Span=9, L2Ptr=leaf))
    bypassing(bench, leaf + 64 * 3)
    bench.invalidate(c.CMD_CFGI_STE.of(SID=3, Leaf=1))
    assert outcome(bench, 3) is C_BAD_STREAMID
    bench.invalidate(c.CMD_CFGI_STE.of(SID=4))
    assert outcome(bench, 3) == IOVA


def test_an_aborted_fetch_is_not_cached() -> None:
    bench = Bench()
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=NOWHERE)
    assert outcome(bench) is F_CD_FETCH
    late = Ram(NOWHERE, 0x1_0000)
    bench.ram.memory.add(late.memory.windows[0])
    table = PageTable(bench.ram)
    table.map(IOVA, PA)
    bench.cd(NOWHERE, table)
    assert outcome(bench) == PA


def test_turning_translation_off_and_on_invalidates_nothing() -> None:
    bench = Bench()
    bench.stream().map(IOVA, PA)
    assert outcome(bench) == PA
    bench.ste(0, V=0)
    bench.set(CR0, SMMUEN=0)
    assert outcome(bench) == IOVA
    bench.set(CR0, SMMUEN=1)
    assert outcome(bench) == PA


def test_an_invalid_descriptor_is_not_cached() -> None:
    bench = Bench()
    table = bench.stream()
    assert outcome(bench) is F_TRANSLATION
    table.map(IOVA, PA)
    assert outcome(bench) == PA


def test_at_capacity_the_oldest_configuration_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest with many SubstreamIDs chooses neither our memory nor the time of an invalidation."""
    monkeypatch.setattr(configuration, "CAPACITY", 4)
    bench = Bench({"substream_id_bits": 8}, pure=True)
    cds = bench.ram.alloc(64 << 3)
    for ssid in range(1, 8):
        context(bench, cds + 64 * ssid, PA + 0x1000 * ssid)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=cds, S1CDMax=3)
    assert [outcome(bench, ssid=ssid) for ssid in range(1, 8)] == [PA + 0x1000 * ssid for ssid in range(1, 8)]
    bench.ram.put(cds, bytes(64 << 3))
    # Newest first, so that none is evicted before it was looked at.
    found = {ssid for ssid in range(7, 0, -1) if outcome(bench, ssid=ssid) is not C_BAD_CD}
    assert found == {4, 5, 6, 7}


# -- several instances ---------------------------------------------------------------------------------------


def test_two_instances_share_no_cache_no_register_and_no_table() -> None:
    ram = Ram()
    first, second = Bench(ram=ram), Bench(ram=ram)
    first.stream().map(IOVA, PA)
    second.stream().map(IOVA, PA + 0x1000)
    assert (outcome(first), outcome(second)) == (PA, PA + 0x1000)
    second.ste(0, V=0)
    hits = second.smmu.tlb.counters.hits
    first.invalidate(c.CMD_CFGI_STE_RANGE.everything(), c.CMD_TLBI_NSNH_ALL.of())
    first[CR0] = 0
    assert outcome(second) == PA + 0x1000
    assert second.smmu.tlb.counters.hits == hits + 1
    assert (len(first.smmu.tlb), len(second.smmu.tlb)) == (0, 1)
    first.smmu.reset()
    assert outcome(second) == PA + 0x1000


def test_instances_of_different_features_live_side_by_side() -> None:
    ram = Ram()
    small, large = Bench({"oas": 40, "granules": ("4K",)}, ram=ram), Bench({"oas": 52}, ram=ram)
    assert (small[IDR5].GRAN64K, large[IDR5].GRAN64K) == (0, 1)
    for bench in (small, large):
        bench.stream(table=PageTable(ram, 16)).map(0, PA)
    assert outcome(small, iova=0) is C_BAD_CD
    assert outcome(large, iova=0) == PA
    assert small[IDR0] == large[IDR0]
    assert small[IDR3] == large[IDR3]
