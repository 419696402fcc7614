# SPDX-License-Identifier: Apache-2.0
"""Hardware updates of descriptors: access flags, dirty state, both stages, races (IHI 0070 §3.13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.smmu_builder import IPA_OF_CD, IPA_OF_TABLE, Bench, PageTable, Ram
from vhost_iommu.layout import Layout
from vhost_iommu.memory import Memory, Window
from vhost_iommu.smmu.descriptors import S1LeafDescriptor, S2LeafDescriptor, TableDescriptor
from vhost_iommu.smmu.transaction import Outcome
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import (
    C_BAD_CD,
    F_ACCESS,
    F_ADDR_SIZE,
    F_PERMISSION,
    F_TRANSLATION,
    F_WALK_EABT,
    EventClass,
)
from vhost_iommu.smmu.v3.registers import CR0

DIRTY: dict[str, Any] = {"hardware_updates": "dirty"}
TABLES: dict[str, Any] = {"hardware_updates": "tables", "version": "3.3"}
NESTED: dict[str, Any] = {"stage2": True, **DIRTY}
IOVA, IPA, PA = 0x1000, 0x8000_1000, 0x9000_2000
HA = {"HA": 1}
HA_HD = {"HA": 1, "HD": 1}

#: AP[2:1] of a page that is not writable, for all and for the privileged.
RO, PRIV_RO = 3, 2


def outcome(bench: Bench, iova: int = IOVA, **transaction: Any) -> type[Layout] | int | None:
    """Where a byte goes, or which event its transaction makes."""
    answer = bench.translate(iova, 1, **transaction)
    if answer.outcome is Outcome.OK:
        return answer.pieces[0].pa
    return type(answer.events[0]) if answer.events else None


def leaf(table: PageTable, iova: int = IOVA, level: int = 3) -> S1LeafDescriptor:
    return S1LeafDescriptor(table.read(table.entry(iova, level)))


def leaf2(table: PageTable, ipa: int = IPA, level: int = 3) -> S2LeafDescriptor:
    return S2LeafDescriptor(table.read(table.entry(ipa, level)))


# -- the access flag (§3.13.2) -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("write", [False, True])
def test_an_access_sets_the_flag_in_memory_and_nothing_else(level: int, write: bool) -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd=HA)
    table.map(0, 0x4000_0000, level=level, AF=0, Software=0b1010, PBHA=5)
    before = leaf(table, 0, level)
    assert bench.pa(0, write=write) == 0x4000_0000
    assert leaf(table, 0, level) == before.replace(AF=1)


def test_without_ha_a_clear_flag_faults_and_stays_clear() -> None:
    bench = Bench(DIRTY)
    table = bench.stream()
    table.map(IOVA, PA, AF=0)
    assert outcome(bench) is F_ACCESS
    assert leaf(table).AF == 0


@pytest.mark.parametrize("ha", [0, 1])
def test_affd_is_ignored_where_the_flag_is_updated(ha: int) -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd={"AFFD": 1, "HA": ha})
    table.map(IOVA, PA, AF=0)
    before = leaf(table)
    assert bench.pa(IOVA) == PA
    assert leaf(table) == before.replace(AF=ha)


@pytest.mark.parametrize("cd", [HA, {"HD": 1}, HA_HD])
def test_without_the_feature_updates_make_a_cd_illegal(cd: dict[str, int]) -> None:
    bench = Bench()
    bench.stream(cd=cd)
    assert outcome(bench) is C_BAD_CD


def test_the_flag_of_a_page_that_faults_for_its_address_stays_clear() -> None:
    bench = Bench({**DIRTY, "oas": 40})
    table = bench.stream(cd=HA)
    table.map(IOVA, 1 << 40, AF=0)
    assert outcome(bench) is F_ADDR_SIZE
    assert leaf(table).AF == 0


def test_nothing_is_updated_while_the_smmu_is_disabled() -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd=HA_HD)
    table.map(IOVA, PA, AF=0, AP=RO, DBM=1)
    before = leaf(table)
    bench.set(CR0, SMMUEN=0)
    assert bench.pa(IOVA, write=True) == IOVA
    bench.invalidate(c.CMD_PREFETCH_ADDR.of(Address=IOVA))
    assert leaf(table) == before


def test_a_big_endian_table_is_updated_in_its_byte_order() -> None:
    bench = Bench({**DIRTY, "endianness": "mixed"})
    table = bench.stream(table=PageTable(bench.ram, big_endian=True), cd={**HA_HD, "ENDI": 1})
    table.map(IOVA, PA, AF=0, AP=RO, DBM=1)
    before = leaf(table)
    assert bench.pa(IOVA, write=True) == PA
    assert leaf(table) == before.replace(AF=1, AP=1)


# -- dirty state (§3.13.3) -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ap", "after"), [(RO, 1), (PRIV_RO, 0)])
@pytest.mark.parametrize("flag", [0, 1])
@pytest.mark.parametrize("level", [2, 3])
def test_a_write_makes_a_clean_page_dirty_by_its_ap(level: int, flag: int, ap: int, after: int) -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd=HA_HD)
    table.map(0, 0x4000_0000, level=level, AP=ap, DBM=1, AF=flag, Software=3)
    before = leaf(table, 0, level)
    assert bench.pa(0, write=True, privileged=True) == 0x4000_0000
    assert leaf(table, 0, level) == before.replace(AP=after, AF=1)


def test_a_read_leaves_a_clean_page_clean_and_a_later_write_does_not() -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd=HA_HD)
    table.map(IOVA, PA, AP=RO, DBM=1)
    assert bench.pa(IOVA) == PA
    assert leaf(table).AP == RO
    # The translation is cached by now, and nobody invalidates it.
    assert bench.pa(IOVA, write=True) == PA
    assert (leaf(table).AP, leaf(table).DBM) == (1, 1)


@pytest.mark.parametrize(
    ("cd", "page"),
    [
        (HA_HD, {"DBM": 0}),
        (HA, {"DBM": 1}),
        ({"HD": 1}, {"DBM": 1}),
        ({}, {"DBM": 1}),
    ],
)
def test_only_dbm_with_hd_and_ha_makes_a_page_writable(cd: dict[str, int], page: dict[str, int]) -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd=cd)
    table.map(IOVA, PA, AP=RO, **page)
    before = leaf(table)
    assert outcome(bench, write=True) is F_PERMISSION
    assert leaf(table) == before


def test_an_smmu_that_updates_access_flags_only_writes_no_dirty_state() -> None:
    bench = Bench({"hardware_updates": "access"})
    table = bench.stream(cd=HA)
    table.map(IOVA, PA, AP=RO, DBM=1, AF=0)
    assert outcome(bench, write=True) is F_PERMISSION
    assert leaf(table).AP == RO


def test_a_page_that_its_table_made_read_only_does_not_become_dirty() -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd=HA_HD)
    table.map(IOVA, PA, AP=RO, DBM=1)
    table.change(IOVA, 2, APTable=2)
    assert outcome(bench, write=True) is F_PERMISSION
    assert leaf(table).AP == RO


@pytest.mark.parametrize(
    ("cd", "page", "access"),
    [
        ({}, {"AP": PRIV_RO}, {"privileged": False}),
        ({"PAN": 1}, {"AP": RO}, {"privileged": True}),
    ],
)
def test_who_may_not_write_for_another_reason_makes_nothing_dirty(
    cd: dict[str, int], page: dict[str, int], access: dict[str, bool]
) -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd={**HA_HD, **cd})
    table.map(IOVA, PA, DBM=1, **page)
    before = leaf(table)
    assert outcome(bench, write=True, **access) is F_PERMISSION
    assert leaf(table) == before


def test_an_access_fault_comes_before_a_permission_fault() -> None:
    bench = Bench(DIRTY)
    bench.stream().map(IOVA, PA, AF=0, AP=RO, DBM=1)
    assert outcome(bench, write=True) is F_ACCESS


@pytest.mark.parametrize(("cd", "executes"), [(HA_HD, False), (HA, True)])
def test_a_clean_page_counts_as_writable_for_wxn(cd: dict[str, int], executes: bool) -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd={**cd, "WXN": 1})
    table.map(IOVA, PA, AP=RO, DBM=1)
    assert outcome(bench, instruction=True) == (PA if executes else F_PERMISSION)
    assert leaf(table).AP == RO


def test_a_prefetch_makes_nothing_dirty() -> None:
    bench = Bench(DIRTY)
    table = bench.stream(cd=HA_HD)
    table.map(IOVA, PA, AP=RO, DBM=1)
    bench.invalidate(c.CMD_PREFETCH_ADDR.of(Address=IOVA))
    assert leaf(table).AP == RO


# -- access flags of tables (§3.13.6) ------------------------------------------------------------------------


@pytest.mark.parametrize(("cd", "flag"), [(HA, 0), ({"HA": 1, "HAFT": 1}, 1)])
def test_haft_sets_the_flag_of_every_table_on_the_way(cd: dict[str, int], flag: int) -> None:
    bench = Bench(TABLES)
    table = bench.stream(cd=cd)
    table.map(IOVA, PA, AF=0)
    assert bench.pa(IOVA) == PA
    assert [TableDescriptor(table.read(table.entry(IOVA, level))).AF for level in (0, 1, 2)] == [flag] * 3
    assert leaf(table).AF == 1


def test_haft_needs_ha_and_is_reserved_without_the_feature() -> None:
    bench = Bench(TABLES)
    bench.stream(cd={"HAFT": 1})
    assert outcome(bench) is C_BAD_CD
    bench = Bench(DIRTY)
    table = bench.stream(cd={"HA": 1, "HAFT": 1})
    table.map(IOVA, PA)
    assert bench.pa(IOVA) == PA
    assert TableDescriptor(table.read(table.entry(IOVA, 2))).AF == 0


def test_s2haft_does_the_same_for_stage_2() -> None:
    bench = Bench({**TABLES, "stage2": True})
    table = bench.stage2(S2HA=1, S2HAFT=1)
    table.map(IPA, PA, AF=0)
    assert bench.pa(IPA) == PA
    assert [TableDescriptor(table.read(table.entry(IPA, level))).AF for level in (1, 2)] == [1, 1]


# -- stage 2, and stage 1 through it (§3.13.5) ---------------------------------------------------------------


@pytest.mark.parametrize(("s2ap", "after"), [(1, 3), (0, 2)])
def test_a_write_makes_a_clean_page_of_stage_2_dirty(s2ap: int, after: int) -> None:
    bench = Bench(NESTED)
    table = bench.stage2(S2HA=1, S2HD=1)
    table.map(IPA, PA, S2AP=s2ap, DBM=1, AF=0)
    before = leaf2(table)
    assert bench.pa(IPA, write=True) == PA
    assert leaf2(table) == before.replace(S2AP=after, AF=1)


def test_a_read_makes_no_page_of_stage_2_dirty() -> None:
    bench = Bench(NESTED)
    table = bench.stage2(S2HA=1, S2HD=1)
    table.map(IPA, PA, S2AP=1, DBM=1, AF=0)
    assert bench.pa(IPA) == PA
    assert (leaf2(table).S2AP, leaf2(table).AF) == (1, 1)


@pytest.mark.parametrize("ha", [0, 1])
def test_s2affd_is_ignored_where_the_flag_is_updated(ha: int) -> None:
    bench = Bench(NESTED)
    table = bench.stage2(S2AFFD=1, S2HA=ha)
    table.map(IPA, PA, AF=0)
    before = leaf2(table)
    assert bench.pa(IPA) == PA
    assert leaf2(table) == before.replace(AF=ha)


@pytest.mark.parametrize("ipa", [IPA_OF_CD, IPA_OF_TABLE])
def test_reading_a_cd_or_table_sets_the_flag_of_stage_2_but_makes_nothing_dirty(ipa: int) -> None:
    bench = Bench(NESTED)
    first, second = bench.nested(S2HA=1, S2HD=1)
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    second.change(ipa, 3, AF=0, S2AP=1, DBM=1)
    assert bench.pa(IOVA, write=True) == PA
    assert (leaf2(second, ipa).AF, leaf2(second, ipa).S2AP) == (1, 1)


def test_one_write_may_update_descriptors_of_both_stages() -> None:
    bench = Bench(NESTED)
    first, second = bench.nested(cd=HA_HD, S2HA=1, S2HD=1)
    first.map(IOVA, IPA, AF=0, AP=RO, DBM=1)
    second.map(IPA, PA, AF=0, S2AP=1, DBM=1)
    assert bench.pa(IOVA, write=True) == PA
    assert (leaf(first).AF, leaf(first).AP) == (1, 1)
    assert (leaf2(second).AF, leaf2(second).S2AP) == (1, 3)


@pytest.mark.parametrize(
    ("page", "write"), [({"AF": 0}, False), ({"AF": 0}, True), ({"AP": RO, "DBM": 1}, True)], ids=str
)
def test_an_update_of_stage_1_is_a_write_to_stage_2_which_may_forbid_it(page: dict[str, int], write: bool) -> None:
    bench = Bench(NESTED)
    # A table of one level, which is in the page at IPA_OF_TABLE.
    first, second = bench.nested(cd=HA_HD)
    first.map(0, 0x8000_0000, level=1, **page)
    second.map(0x8000_0000, PA)
    second.change(IPA_OF_TABLE, 3, S2AP=1)
    before = leaf(first, 0, 1)
    answer = bench.translate(0x40, write=write)
    assert answer.outcome is Outcome.ABORT
    assert answer.events == [
        F_PERMISSION.of(S2=1, CLASS=EventClass.TT, TTRnW=0, RnW=not write, InputAddr=0x40, IPA=IPA_OF_TABLE)
    ]
    assert leaf(first, 0, 1) == before


def test_an_update_of_stage_1_makes_its_clean_page_of_stage_2_dirty() -> None:
    bench = Bench(NESTED)
    first, second = bench.nested(cd=HA, S2HA=1, S2HD=1)
    first.map(0, 0x8000_0000, level=1, AF=0)
    second.map(0x8000_0000, PA)
    second.change(IPA_OF_TABLE, 3, S2AP=1, DBM=1)
    assert bench.pa(0) == PA
    assert leaf(first, 0, 1).AF == 1
    assert leaf2(second, IPA_OF_TABLE).S2AP == 3


def test_a_write_that_only_stage_1_forbids_leaves_stage_2_clean() -> None:
    bench = Bench(NESTED)
    first, second = bench.nested(cd=HA_HD, S2HA=1, S2HD=1)
    first.map(IOVA, IPA, AP=RO)
    second.map(IPA, PA, S2AP=1, DBM=1)
    assert outcome(bench, write=True) is F_PERMISSION
    assert leaf2(second).S2AP == 1


# -- aborts and races ----------------------------------------------------------------------------------------


def test_an_aborted_update_is_an_aborted_walk() -> None:
    bench = Bench(DIRTY)
    rom = bytearray(0x1000)
    bench.ram.memory.add(Window(0x2000_0000, len(rom), rom, writable=False))
    table = bench.stream(cd=HA)
    table.map(IOVA, PA, AF=0)
    at = table.entry(IOVA)
    rom[at & 0xFFF : (at & 0xFFF) + 8] = bench.ram.get(at, 8)
    table.write(table.entry(IOVA, 2), 0x2000_0003)
    answer = bench.translate(IOVA)
    assert answer.events == [
        F_WALK_EABT.of(CLASS=EventClass.TT, RnW=1, InputAddr=IOVA, FetchAddr=0x2000_0000 + (at & 0xFFF))
    ]


class Contended(Memory):
    """Memory in which another agent is faster: it calls ``rival`` before each compare and swap."""

    rival: Callable[[int], None] = staticmethod(lambda pa: None)
    swaps = 0

    def compare_and_swap_u64(self, pa: int, expected: int, new: int) -> bool | None:
        self.swaps += 1
        self.rival(pa)
        return super().compare_and_swap_u64(pa, expected, new)


def contended(features: dict[str, Any]) -> tuple[Bench, Contended]:
    ram = Ram()
    ram.memory = memory = Contended((ram.base, ram.bytes))
    return Bench(features, ram=ram), memory


@pytest.mark.parametrize("page", [{"AF": 0}, {"AP": RO, "DBM": 1}], ids=str)
@pytest.mark.parametrize("losses", [1, 3])
def test_a_lost_race_is_run_again_and_loses_nothing(losses: int, page: dict[str, int]) -> None:
    bench, memory = contended(DIRTY)
    table = bench.stream(cd=HA_HD)
    table.map(IOVA, PA, **page)

    def rival(pa: int) -> None:
        if memory.swaps <= losses:
            table.change(IOVA, 3, Software=memory.swaps)

    memory.rival = rival
    assert bench.pa(IOVA, write=True) == PA
    assert (leaf(table).Software, leaf(table).AF, leaf(table).AP) == (losses, 1, 1)
    assert memory.swaps == losses + 1


def test_what_another_agent_unmapped_meanwhile_is_not_written() -> None:
    bench, memory = contended(DIRTY)
    table = bench.stream(cd=HA_HD)
    table.map(IOVA, PA, AP=RO, DBM=1)
    assert bench.pa(IOVA) == PA  # cached as clean
    memory.rival = lambda pa: table.unmap(IOVA)
    assert outcome(bench, write=True) is F_TRANSLATION
    assert table.read(table.entry(IOVA)) == 0


def test_what_another_agent_made_dirty_meanwhile_is_dirty_for_us_too() -> None:
    bench, memory = contended(DIRTY)
    table = bench.stream(cd=HA_HD)
    table.map(IOVA, PA, AP=RO, DBM=1)
    memory.rival = lambda pa: table.change(IOVA, 3, AP=1)
    assert bench.pa(IOVA, write=True) == PA
    assert memory.swaps == 1


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("page", [{"AF": 0}, {"DBM": 1}], ids=str)
def test_an_agent_that_is_always_faster_does_not_keep_us_for_ever(page: dict[str, int], stage: int) -> None:
    bench, memory = contended(NESTED)
    if stage == 1:
        table = bench.stream(cd=HA_HD)
        table.map(IOVA, PA, **({"AP": RO} | page))
    else:
        table = bench.stage2(S2HA=1, S2HD=1)
        table.map(IOVA, PA, **({"S2AP": 1} | page))

    def rival(pa: int) -> None:
        assert memory.swaps < 1000
        table.change(IOVA, 3, Software=memory.swaps & 7)

    memory.rival = rival
    answer = bench.translate(IOVA, write=True)
    assert answer.outcome is Outcome.ABORT
    assert len(answer.events) == 1
