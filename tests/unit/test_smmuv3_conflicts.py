# SPDX-License-Identifier: Apache-2.0
"""Caches of which several entries match: F_TLB_CONFLICT and F_CFG_CONFLICT, where an SMMU finds that out (§3.20)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.smmu_builder import Bench, PageTable
from vhost_iommu.config import parse_machine
from vhost_iommu.layout import Layout
from vhost_iommu.machine import Machine
from vhost_iommu.smmu.ats import AtsCompletion, AtsRequest, AtsStatus
from vhost_iommu.smmu.transaction import Outcome
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import F_CFG_CONFLICT, F_TLB_CONFLICT, F_TRANSL_FORBIDDEN
from vhost_iommu.smmu.v3.registers import CR0, CR2
from vhost_iommu.smmu.v3.structures import EATS, STE, STE_CONFIG

BLOCK, PA = 0x20_0000, 0x8000_0000
PAGE = BLOCK + 0x3000


def broken(level: int = 0, **features: Any) -> Bench:
    """An SMMU that finds conflicts out, whose BBML is ``level``."""
    return Bench({"bbm_level": level, **features}, tlb_conflicts=True)


def merge(bench: Bench, table: PageTable, at: int = BLOCK, sid: int = 0, **leaf: int) -> None:
    """Have a page cached, then the block that took its place without break-before-make."""
    table.map(at + 0x3000, PA + 0x3000)
    assert bench.pa(at + 0x3000, sid) == PA + 0x3000
    table.unmap(at, level=2)
    table.map(at, PA, level=2, **leaf)
    assert bench.pa(at, sid) == PA


def recording(bench: Bench, record: int) -> None:
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, REC_CFG_ATS=record)
    bench.set(CR0, SMMUEN=1, ATSCHK=1)


# -- translations (§3.20.1, §3.21.1) -------------------------------------------------------------------------


def test_a_page_and_its_block_conflict_until_one_is_invalidated() -> None:
    bench = broken()
    merge(bench, bench.stream())
    assert bench.events() == []
    answer = bench.translate(PAGE + 5, 4, write=True, privileged=True)
    assert (answer.outcome, answer.pieces) == (Outcome.ABORT, [])
    assert answer.events == bench.events() == [F_TLB_CONFLICT.of(PnU=1, RnW=0, InputAddr=PAGE + 5)]
    assert bench.pa(PAGE + 0x1000) == PA + 0x4000, "the block alone"
    bench.invalidate(c.CMD_TLBI_NH_VA.of(ASID=1, Address=PAGE))
    assert bench.pa(PAGE) == PA + 0x3000


@pytest.mark.parametrize(("cd", "features"), [({"S": 1}, {"stall_model": "both"}), ({"A": 0, "R": 0}, {})])
def test_a_conflict_always_aborts_and_is_recorded(cd: dict[str, int], features: dict[str, Any]) -> None:
    bench = broken(**features)
    merge(bench, bench.stream(cd=cd))
    answer = bench.translate(PAGE)
    assert answer.outcome is Outcome.ABORT
    assert bench.events() == [F_TLB_CONFLICT.of(RnW=1, InputAddr=PAGE)]


@pytest.mark.parametrize(("option", "level"), [(False, 0), (True, 2)])
def test_sizes_do_not_conflict_where_nobody_looks_or_the_smmu_resolves_them(option: bool, level: int) -> None:
    bench = Bench({"bbm_level": level}, tlb_conflicts=option)
    merge(bench, bench.stream())
    assert bench.pa(PAGE) == PA + 0x3000
    assert bench.events() == []


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("nt", [0, 1])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_block_with_nt_conflicts_at_level_0_only(level: int, nt: int, stage: int) -> None:
    bench = broken(level, stage2=True)
    merge(bench, bench.stream() if stage == 1 else bench.stage2(), nT=nt)
    assert (bench.pa(PAGE) is None) == (level == 0 or (level == 1 and not nt))


def test_pages_have_no_nt() -> None:
    """The bit is the address's there, so they are cached whatever it is."""
    bench = broken(1)
    table = bench.stream()
    table.map(PAGE, PA | 1 << 16)
    assert bench.pa(PAGE) == PA | 1 << 16
    table.unmap(PAGE)
    assert bench.pa(PAGE) == PA | 1 << 16


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_page_that_became_global_conflicts_whatever_the_level(level: int) -> None:
    bench = broken(level)
    table = bench.stream(0)
    bench.ste(1, Config=STE_CONFIG.S1, S1ContextPtr=bench.cd(None, table, None, ASID=2))
    table.map(PAGE, PA)
    assert bench.pa(PAGE) == PA
    table.map(PAGE, PA, nG=0)
    assert bench.pa(PAGE, 1) == PA
    assert bench.pa(PAGE) is None
    assert [type(event) for event in bench.events()] == [F_TLB_CONFLICT]


def test_other_asids_are_not_concerned() -> None:
    bench = broken()
    table = bench.stream(0)
    bench.ste(1, Config=STE_CONFIG.S1, S1ContextPtr=bench.cd(None, table, None, ASID=2))
    merge(bench, table)
    assert bench.pa(PAGE) is None
    assert bench.pa(PAGE, 1) == PA + 0x3000


def test_a_conflict_in_stage_2_tells_the_ipa() -> None:
    bench = broken(stage2=True, stall_model="both")
    merge(bench, bench.stage2(0, S2S=1, S2R=0))
    bench.translate(PAGE + 0x123)
    assert bench.events() == [F_TLB_CONFLICT.of(S2=1, RnW=1, InputAddr=PAGE + 0x123, IPA=PAGE)]


@pytest.mark.parametrize("what", ["cd", "table"])
def test_a_conflict_on_the_way_to_a_cd_or_table_is_stage_2s(what: str) -> None:
    """RAM's IPAs are what they are as physical addresses, in one block; before, its page was there alone."""
    bench = broken(stage2=True)
    first = PageTable(bench.ram)
    at = bench.cd(None, first)
    page = (at if what == "cd" else first.at) & ~0xFFF
    block = page & ~0x1F_FFFF
    second = bench.stage2(1)
    second.map(page, page)
    assert bench.pa(page, 1) == page
    second.unmap(block, level=2)
    for each in (0, 0x20_0000):
        second.map(bench.ram.base + each, bench.ram.base + each, level=2)
    assert bench.pa(block + 0x1F_F000, 1) == block + 0x1F_F000
    bench.ste(0, Config=STE_CONFIG.NESTED, S1ContextPtr=at, **bench.stage2_fields(second))
    answer = bench.translate(0x1234)
    assert answer.events == bench.events() == [F_TLB_CONFLICT.of(S2=1, RnW=1, InputAddr=0x1234, IPA=page)]


@pytest.mark.parametrize("record", [0, 1])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_request_that_meets_a_conflict_is_ca_and_recorded_if_asked_for(record: int, stage: int) -> None:
    bench = broken(ats="full", ats_errors=True, stage2=True)
    recording(bench, record)
    merge(bench, bench.stream(EATS=EATS.FULL) if stage == 1 else bench.stage2(EATS=EATS.FULL))
    completion = bench.smmu.ats_request(AtsRequest(0, PAGE))
    assert (completion.status, completion.entries) == (AtsStatus.CA, [])
    where = {"S2": 1, "IPA": PAGE} if stage == 2 else {}
    assert completion.events == bench.events() == [F_TLB_CONFLICT.of(RnW=1, InputAddr=PAGE, **where)] * record


# -- STEs (§3.20.2, §5.2 CONT) -------------------------------------------------------------------------------


@pytest.fixture
def bench() -> Bench:
    """Streams 4 to 7 bypass, alike."""
    bench = Bench({"ats": "full", "ats_errors": True, "substream_id_bits": 4}, configuration_conflicts=True)
    for sid in range(4, 8):
        bench.ste(sid, Config=STE_CONFIG.BYPASS, CONT=2)
    return bench


def ends(bench: Bench, *sids: int) -> list[type[Layout] | None]:
    """Which event a transaction of each stream makes."""
    return [type(events[0]) if (events := bench.translate(PA, sid=sid).events) else None for sid in sids]


def test_alike_stes_of_a_span_do_not_conflict(bench: Bench) -> None:
    bench.ste(6, Config=STE_CONFIG.BYPASS, CONT=0)
    assert ends(bench, 4, 5, 6, 7, 4) == [None] * 5


def test_another_ste_within_a_cached_span_is_a_conflict(bench: Bench) -> None:
    for sid in (3, 5, 8):
        bench.ste(sid, Config=STE_CONFIG.BYPASS, SHCFG=1)
    assert ends(bench, 4) == [None]
    answer = bench.translate(PA, sid=5)
    assert answer.outcome is Outcome.ABORT
    assert answer.events == [F_CFG_CONFLICT.of(SID=5)]
    assert ends(bench, 3, 4, 5, 6, 8) == [None, None, F_CFG_CONFLICT, None, None]
    bench.invalidate(c.CMD_CFGI_STE.of(SID=4), c.CMD_CFGI_STE.of(SID=6))
    assert ends(bench, 5) == [None], "nobody else matches it any more"


def test_a_conflict_is_found_before_the_substream_is_looked_at(bench: Bench) -> None:
    bench.ste(5, Config=STE_CONFIG.BYPASS, SHCFG=1)
    ends(bench, 4)
    assert bench.translate(PA, sid=5, ssid=3).events == [F_CFG_CONFLICT.of(SID=5, SSV=1, SSID=3)]


def test_a_span_that_comes_later_conflicts_with_what_is_cached(bench: Bench) -> None:
    bench.ste(5, Config=STE_CONFIG.BYPASS, SHCFG=1)
    assert ends(bench, 5, 5, 4, 5, 4) == [None, None, None, F_CFG_CONFLICT, None]


def test_an_invalid_ste_within_a_span_conflicts_and_has_no_span_itself(bench: Bench) -> None:
    bench.ste(5, V=0, CONT=2)
    assert ends(bench, 4, 5) == [None, F_CFG_CONFLICT]
    bench.invalidate(c.CMD_CFGI_STE_RANGE.everything())
    assert ends(bench, 5)[0] is not F_CFG_CONFLICT
    assert ends(bench, 4) == [None]


def test_without_the_option_each_ste_is_used_as_it_is() -> None:
    bench = Bench()
    bench.ste(4, Config=STE_CONFIG.BYPASS, CONT=2)
    bench.ste(5, Config=STE_CONFIG.BYPASS, SHCFG=1)
    assert ends(bench, 4, 5, 4) == [None] * 3


@pytest.mark.parametrize("record", [0, 1])
def test_conflicts_of_ats_are_recorded_if_asked_for(bench: Bench, record: int) -> None:
    recording(bench, record)
    bench.ste(5, Config=STE_CONFIG.BYPASS, SHCFG=1)
    ends(bench, 4)
    conflict = [F_CFG_CONFLICT.of(SID=5)] * record
    completion = bench.smmu.ats_request(AtsRequest(5, PA))
    assert completion == AtsCompletion(AtsStatus.CA, [], list(conflict))
    assert bench.translate(PA, sid=5, translated=True).events == conflict
    assert type(bench.translate(PA, sid=4, translated=True).events[0]) is F_TRANSL_FORBIDDEN


def test_cont_is_the_only_field_in_which_stes_of_a_span_may_differ() -> None:
    for each in STE.fields:
        if each.name not in ("V", "CONT", "Config"):
            made = Bench(configuration_conflicts=True)
            made.ste(0, Config=STE_CONFIG.ABORT, CONT=1)
            made.ram.put(made.strtab + STE.size, STE(STE.of(V=1).raw | each.mask & -each.mask))
            assert ends(made, 0, 1) == [None, F_CFG_CONFLICT], each.name


# -- machines ------------------------------------------------------------------------------------------------


def test_a_machine_file_says_whether_conflicts_are_found_out() -> None:
    text = '[guest]\nkind = "linux"\n[[smmu]]\nname = "smmu0"\nbbm_level = 0\nstream_id_bits = 6\n'
    for keys, found in (("", False), ("tlb_conflicts = true\nconfiguration_conflicts = true\n", True)):
        smmu = Machine(parse_machine(text + keys)).smmus["smmu0"]
        kinds = (type(smmu.tlb).__name__, type(smmu.configuration).__name__)
        assert (kinds == ("StrictTlb", "StrictConfiguration")) == found
