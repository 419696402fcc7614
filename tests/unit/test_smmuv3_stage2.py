# SPDX-License-Identifier: Apache-2.0
"""Stage 2 of the SMMUv3: tables, faults, stage 1 and CDs through it, illegal STEs, VMIDs (IHI 0070 §3.4, §5.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.smmu_builder import IPA_OF_CD, IPA_OF_TABLE, IPA_OFFSET, RAM_BASE, Bench, PageTable
from vhost_iommu.layout import Layout
from vhost_iommu.smmu.transaction import Outcome
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import (
    C_BAD_CD,
    C_BAD_STE,
    F_ACCESS,
    F_ADDR_SIZE,
    F_CD_FETCH,
    F_PERMISSION,
    F_STREAM_DISABLED,
    F_TRANSLATION,
    F_WALK_EABT,
    Event,
    EventClass,
)
from vhost_iommu.smmu.v3.features import Features
from vhost_iommu.smmu.v3.registers import CR0, AddressSize
from vhost_iommu.smmu.v3.structures import EATS, L1CD, STE_CONFIG, STRW, TG0, S1Fmt

BOTH: dict[str, Any] = {"stage2": True}
IPA, PA = 0x8000_1000, 0x9000_2000
IOVA = 0x1000
NOWHERE = 0x2000_0000


def with_ids(features: dict[str, Any] | None = None, **ids: dict[str, int]) -> Bench:
    """A bench of raw ID registers: those of ``features`` with some fields changed, ``IDR0={"Hyp": 1}``."""
    raw = Features(**{**BOTH, **(features or {})}).id_registers()
    registers = {kind.__name__: kind(value) for kind, value in raw.items()}
    return Bench(id_registers={name: registers[name].replace(**ids.get(name, {})).raw for name in registers})


def fault(bench: Bench, iova: int = IPA, sid: int = 0, **transaction: Any) -> Layout:
    """The one event of a transaction that is aborted; it is in the queue as it is in the answer."""
    answer = bench.translate(iova, 1, sid, **transaction)
    assert answer.outcome is Outcome.ABORT
    assert bench.events() == answer.events
    (event,) = answer.events
    return event


def outcome(bench: Bench, iova: int = IPA, sid: int = 0, **transaction: Any) -> type[Layout] | int | None:
    """Where a byte goes, or which event its transaction makes; None: it ends without one."""
    answer = bench.translate(iova, 1, sid, **transaction)
    if answer.outcome is Outcome.OK:
        return answer.pieces[0].pa
    return type(answer.events[0]) if answer.events else None


@pytest.fixture
def bench() -> Bench:
    return Bench(BOTH)


# -- stage 2 alone -------------------------------------------------------------------------------------------


def test_stage_2_alone_translates_by_the_table_of_the_ste(bench: Bench) -> None:
    bench.stage2().map(IPA, PA)
    assert bench.pa(IPA + 0x123) == PA + 0x123
    assert bench.pa(IPA + 0x123, write=True) == PA + 0x123


#: (log2 of the granule, IPA bits, start level, concatenated tables): Arm ARM D8.2, tables of VTCR_EL2.
CONCATENATED = [
    (12, 48, 0, 1), (12, 43, 1, 16), (12, 41, 1, 4), (12, 40, 1, 2), (12, 39, 1, 1), (12, 34, 2, 16),
    (12, 31, 2, 2), (12, 31, 1, 1), (12, 30, 2, 1), (12, 25, 2, 1),
    (14, 47, 1, 1), (14, 40, 2, 16), (14, 38, 2, 4), (14, 37, 1, 1), (14, 36, 2, 1), (14, 29, 3, 16), (14, 26, 2, 1),
    (14, 25, 3, 1),
    (16, 48, 1, 1), (16, 46, 2, 16), (16, 43, 1, 1), (16, 42, 2, 1), (16, 33, 3, 16), (16, 30, 2, 1), (16, 29, 3, 1),
]  # fmt: skip


@pytest.mark.parametrize(("granule_bits", "input_bits", "start", "tables"), CONCATENATED)
def test_up_to_16_tables_stand_one_behind_the_other_at_the_start_level(
    granule_bits: int, input_bits: int, start: int, tables: int
) -> None:
    bench = Bench(BOTH)
    table = PageTable(bench.ram, granule_bits, input_bits, stage=2, start_level=start)
    entries = 1 << input_bits - (granule_bits + (granule_bits - 3) * (3 - start))
    assert max(1, entries >> granule_bits - 3) == tables
    bench.stage2(table=table)
    page = 1 << granule_bits
    for ipa, pa in ((0, PA & -page), ((1 << input_bits) - page, (PA & -page) + page)):
        table.map(ipa, pa)
        assert bench.pa(ipa + page - 1) == pa + page - 1
    if input_bits < 48:  # the IAS, where stage 1 comes first
        event = fault(bench, 1 << input_bits)
        beyond = 1 << input_bits
        assert event == F_TRANSLATION.of(S2=1, CLASS=EventClass.IN, RnW=1, InputAddr=beyond, IPA=beyond)


@pytest.mark.parametrize(
    ("granule_bits", "level", "size"),
    [(12, 1, 1 << 30), (12, 2, 1 << 21), (14, 2, 1 << 25), (16, 2, 1 << 29)],
)
def test_a_stage_2_block_covers_what_its_level_says(granule_bits: int, level: int, size: int) -> None:
    bench = Bench(BOTH)
    table = bench.stage2(table=PageTable(bench.ram, granule_bits, 40, stage=2))
    table.map(size, 3 * size, level=level)
    assert bench.pa(2 * size - 1) == 4 * size - 1
    assert outcome(bench, 2 * size) is F_TRANSLATION


def test_big_endian_stage_2_tables_are_walked_where_the_smmu_can() -> None:
    bench = Bench({**BOTH, "endianness": "mixed"})
    bench.stage2(table=PageTable(bench.ram, input_bits=40, stage=2, big_endian=True), S2ENDI=1).map(IPA, PA)
    assert bench.pa(IPA) == PA


def test_the_table_of_the_ste_is_aligned_down_to_its_size(bench: Bench) -> None:
    table = PageTable(bench.ram, input_bits=40, stage=2)
    table.map(IPA, PA)
    bench.stage2(table=table, S2TTB=table.root + 0x1FF0)
    assert bench.pa(IPA) == PA


# -- address sizes (§3.4) ------------------------------------------------------------------------------------


def test_an_input_beyond_the_ias_is_stage_1s_fault_that_neither_stalls_nor_is_hidden() -> None:
    bench = Bench({**BOTH, "oas": 40, "stall_model": "both"})
    bench.stage2(S2R=0, S2S=1)
    event = fault(bench, 1 << 40)
    assert isinstance(event, F_ADDR_SIZE)
    assert (event.S2, event.CLASS, event.InputAddr, event.STALL) == (0, EventClass.IN, 1 << 40, 0)


def test_an_input_within_the_ias_but_beyond_s2t0sz_is_stage_2s_fault(bench: Bench) -> None:
    bench.stage2()
    event = fault(bench, 0xFFFF_FFFF_F123)
    assert isinstance(event, F_TRANSLATION)
    assert (event.S2, event.InputAddr, event.IPA) == (1, 0xFFFF_FFFF_F123, 0xFFFF_FFFF_F000)


def test_with_aarch32_tables_the_ias_is_40_bits_though_the_oas_is_less() -> None:
    bench = Bench({**BOTH, "oas": 36, "aarch32_tables": True})
    bench.stage2().map((1 << 40) - 0x1000, PA)
    assert bench.pa((1 << 40) - 1) == PA + 0xFFF
    assert outcome(bench, 1 << 40) is F_ADDR_SIZE


@pytest.mark.parametrize("level", [1, 2, 3])
def test_an_output_beyond_s2ps_is_an_address_size_fault_of_stage_2(bench: Bench, level: int) -> None:
    table = bench.stage2(S2PS=AddressSize.BITS_36)
    table.map(IPA, 1 << 36, level=level) if level < 3 else table.map(IPA, (1 << 36) + 0x5000)
    event = fault(bench, IPA + 0x456)
    assert isinstance(event, F_ADDR_SIZE)
    assert (event.S2, event.CLASS, event.IPA) == (1, EventClass.IN, IPA)


def test_a_next_table_beyond_s2ps_is_an_address_size_fault_of_stage_2(bench: Bench) -> None:
    table = bench.stage2(S2PS=AddressSize.BITS_36)
    table.map(IPA, PA)
    at = table.entry(IPA, 2)
    table.write(at, table.read(at) | 1 << 36)
    assert outcome(bench) is F_ADDR_SIZE


@pytest.mark.parametrize("size", [AddressSize.BITS_48, AddressSize.BITS_52, 7])
def test_s2ps_is_capped_at_the_oas(size: int) -> None:
    bench = Bench({**BOTH, "oas": 40})
    table = bench.stage2(S2PS=size)
    table.map(IPA, (1 << 40) - 0x1000)
    table.map(IPA + 0x1000, 1 << 40)
    assert bench.pa(IPA) == (1 << 40) - 0x1000
    assert outcome(bench, IPA + 0x1000) is F_ADDR_SIZE


@pytest.mark.parametrize(("low", "output"), [(True, (1 << 36) + 0x1000), (False, 0x1000)])
def test_the_40_bits_of_aarch32_stage_2_are_truncated_to_a_smaller_oas(low: bool, output: int) -> None:
    oas = 40 if low else 36
    bench = Bench({**BOTH, "oas": oas, "aarch32_tables": True})
    table = PageTable(bench.ram, input_bits=40, stage=2, start_level=1)
    bench.stage2(table=table, S2AA64=0, S2T0SZ=0b1000, S2SL0=1, S2PS=0)
    table.map(IPA, (1 << 36) + 0x1000)
    assert bench.pa(IPA) == output


def test_where_s1dss_bypasses_all_stages_the_ias_counts_and_the_output_is_truncated() -> None:
    bench = Bench({"oas": 36, "aarch32_tables": True, "substream_id_bits": 4})
    bench.stream(0, S1CDMax=4, S1DSS=1)
    bench.ste(1, Config=STE_CONFIG.BYPASS)
    assert bench.pa((1 << 36) + 0x5000) == 0x5000
    assert outcome(bench, 1 << 40) is F_ADDR_SIZE
    assert bench.pa((1 << 36) - 1, 1) == (1 << 36) - 1
    assert outcome(bench, 1 << 36, 1) is F_ADDR_SIZE


def test_cds_and_tables_beyond_a_smaller_oas_are_truncated_with_aarch32_stage_2() -> None:
    bench = Bench({**BOTH, "oas": 36, "aarch32_tables": True})
    second = PageTable(bench.ram, input_bits=40, stage=2)
    first = PageTable(bench.ram, input_bits=32)
    at = bench.cd(None, first, None, AA64=0, T0SZ=0)
    second.map(RAM_BASE, RAM_BASE + (1 << 36), len(bench.ram.bytes), level=2)
    second.map(IPA, PA)
    first.map(IOVA, IPA)
    fields = bench.stage2_fields(second, S2AA64=0, S2T0SZ=0b1000, S2SL0=1)
    bench.ste(0, Config=STE_CONFIG.NESTED, S1ContextPtr=at, **fields)
    assert bench.pa(IOVA) == PA


# -- faults, permissions and their records (§5.5, §7.3) ------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3])
def test_an_invalid_stage_2_descriptor_is_a_translation_fault_with_the_ipa(bench: Bench, level: int) -> None:
    table = bench.stage2()
    table.map(IPA, PA)
    table.unmap(IPA, level)
    event = fault(bench, IPA + 0x789, write=True, ssid=None, privileged=True)
    assert event == F_TRANSLATION.of(
        SID=0, S2=1, CLASS=EventClass.IN, InputAddr=IPA + 0x789, IPA=IPA, RnW=0, PnU=1, InD=0
    )


def test_an_aborted_stage_2_fetch_names_the_descriptor(bench: Bench) -> None:
    table = bench.stage2(S2R=0)  # which hides no aborts
    table.map(IPA, PA)
    at = table.entry(IPA, 2)
    table.write(at, NOWHERE | 3)
    event = fault(bench, IPA)
    assert event == F_WALK_EABT.of(
        S2=1, CLASS=EventClass.IN, RnW=1, InputAddr=IPA, FetchAddr=NOWHERE + (IPA >> 12 & 0x1FF) * 8
    )


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("s2ap", [0, 1, 2, 3])
def test_s2ap_permits_reads_and_writes_apart(bench: Bench, s2ap: int, write: bool) -> None:
    bench.stage2().map(IPA, PA, S2AP=s2ap)
    allowed = bool(s2ap & (2 if write else 1))
    assert outcome(bench, write=write) == (PA if allowed else F_PERMISSION)


@pytest.mark.parametrize("privileged", [False, True])
@pytest.mark.parametrize("xn", [0, 1, 2, 3])
@pytest.mark.parametrize("xnx", [False, True])
def test_xn_has_two_bits_with_xnx_and_one_without(xnx: bool, xn: int, privileged: bool) -> None:
    """XN[1:0]: none, EL1 only, both, EL0 only (Arm ARM D8.4); bit 53 is XN[0]."""
    bench = Bench({**BOTH, "xnx": xnx})
    bench.stage2().map(IPA, PA, XN=xn)
    forbidden = xn >= 2 if not xnx else xn == 2 or xn == (1 if privileged else 3)
    assert outcome(bench, instruction=True, privileged=privileged) == (F_PERMISSION if forbidden else PA)
    assert outcome(bench, privileged=privileged) == PA


@pytest.mark.parametrize("aarch64", [False, True])
def test_only_aarch64_stage_2_knows_pages_for_execution_alone(aarch64: bool) -> None:
    bench = Bench({**BOTH, "aarch32_tables": True})
    table = PageTable(bench.ram, input_bits=40, stage=2, start_level=1)
    fields = {} if aarch64 else {"S2AA64": 0, "S2T0SZ": 0b1000, "S2SL0": 1}
    bench.stage2(table=table, **fields).map(IPA, PA, S2AP=2)
    assert outcome(bench, instruction=True) == (PA if aarch64 else F_PERMISSION)
    assert outcome(bench) is F_PERMISSION


@pytest.mark.parametrize("affd", [0, 1])
def test_a_clear_access_flag_of_stage_2_faults_unless_s2affd(bench: Bench, affd: int) -> None:
    bench.stage2(S2AFFD=affd).map(IPA, PA, AF=0, S2AP=1)
    assert outcome(bench) == (PA if affd else F_ACCESS)
    # The access flag comes before the permission (§3.13.1).
    assert outcome(bench, write=True) is (F_PERMISSION if affd else F_ACCESS)


@pytest.mark.parametrize("s2r", [0, 1])
def test_a_stage_2_fault_always_aborts_and_is_recorded_as_s2r_says(bench: Bench, s2r: int) -> None:
    bench.stage2(S2R=s2r)
    answer = bench.translate(IPA)
    assert answer.outcome is Outcome.ABORT
    assert [type(event) for event in bench.events()] == [F_TRANSLATION] * s2r


# -- two stages (§3.3.2, §7.3.13) ----------------------------------------------------------------------------


@pytest.fixture
def nested(bench: Bench) -> tuple[Bench, PageTable, PageTable]:
    return bench, *bench.nested()


Nested = tuple[Bench, PageTable, PageTable]


def test_both_stages_translate_one_behind_the_other(nested: Nested) -> None:
    bench, first, second = nested
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    assert bench.pa(IOVA + 0x21) == PA + 0x21
    assert bench.pa(IOVA + 0x21, write=True) == PA + 0x21


def test_a_transaction_goes_on_as_far_as_the_smaller_of_both_pages(nested: Nested) -> None:
    bench, first, second = nested
    first.map(0x20_0000, 0x8000_0000, level=2)
    for page in range(3):
        second.map(0x8000_0000 + page * 0x1000, PA + page * 0x2000)
    answer = bench.translate(0x20_0FF0, 0x1020)
    assert [tuple(piece) for piece in answer.pieces] == [(PA + 0xFF0, 16), (PA + 0x2000, 0x1000), (PA + 0x4000, 16)]


def test_a_stage_2_fault_of_the_output_of_stage_1_is_of_class_in(nested: Nested) -> None:
    bench, first, _ = nested
    first.map(IOVA, IPA)
    event = fault(bench, IOVA + 0x20)
    assert event == F_TRANSLATION.of(S2=1, CLASS=EventClass.IN, RnW=1, InputAddr=IOVA + 0x20, IPA=IPA)


def test_a_stage_2_fault_of_a_stage_1_descriptor_is_of_class_tt_with_the_descriptors_ipa(nested: Nested) -> None:
    bench, first, second = nested
    first.map(IOVA, IPA)
    second.unmap(IPA_OF_TABLE)
    event = fault(bench, IOVA + 0x20, write=True)
    assert event == F_TRANSLATION.of(S2=1, CLASS=EventClass.TT, RnW=0, InputAddr=IOVA + 0x20, IPA=IPA_OF_TABLE)


def test_a_stage_2_fault_of_the_cd_is_of_class_cd_with_the_cds_ipa(nested: Nested) -> None:
    bench, _, second = nested
    second.unmap(IPA_OF_CD)
    event = fault(bench, IOVA, write=True)
    assert event == F_TRANSLATION.of(S2=1, CLASS=EventClass.CD, RnW=0, InputAddr=IOVA, IPA=IPA_OF_CD)


def test_a_first_level_of_cds_is_read_through_stage_2() -> None:
    bench = Bench({**BOTH, "substream_id_bits": 8})
    first, second = bench.nested(S1CDMax=8, S1Fmt=S1Fmt.TWO_LEVEL_4K, S1ContextPtr=IPA_OF_CD + 0x1000, S1DSS=2)
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    level1 = bench.ram.alloc(0x1000)
    event = fault(bench, IOVA, ssid=0x41)
    assert isinstance(event, F_TRANSLATION)
    assert (event.S2, event.CLASS, event.IPA, event.SSV, event.SSID) == (1, EventClass.CD, IPA_OF_CD + 0x1000, 1, 0x41)
    second.map(IPA_OF_CD + 0x1000, level1)
    bench.ram.put(level1 + 8, L1CD.of(V=1, L2Ptr=IPA_OF_CD))
    page = second.read(second.entry(IPA_OF_CD)) & 0xFFFF_FFFF_F000
    bench.ram.put(page + 64, bench.ram.get(page, 64))  # SubstreamID 0x41 has the second CD of its leaf
    assert bench.pa(IOVA, ssid=0x41) == PA


@pytest.mark.parametrize("where", ["cd", "table"])
def test_reading_a_cd_or_table_needs_stage_2s_permission_to_read(nested: Nested, where: str) -> None:
    bench, first, second = nested
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    second.change(IPA_OF_CD if where == "cd" else IPA_OF_TABLE, 3, S2AP=2)
    event = fault(bench, IOVA, write=True)
    assert isinstance(event, F_PERMISSION)
    assert (event.S2, event.RnW) == (1, 0)
    if where == "cd":
        assert (event.CLASS, event.IPA) == (EventClass.CD, IPA_OF_CD)
    else:
        assert (event.CLASS, event.IPA, event.TTRnW) == (EventClass.TT, IPA_OF_TABLE, 1)


@pytest.mark.parametrize("where", ["cd", "table"])
def test_cds_and_tables_are_read_as_data_whatever_the_transaction_is(nested: Nested, where: str) -> None:
    bench, first, second = nested
    first.map(IOVA, IPA, AP=3)
    second.map(IPA, PA)
    second.change(IPA_OF_CD if where == "cd" else IPA_OF_TABLE, 3, XN=2, S2AP=1)
    assert bench.pa(IOVA, instruction=True) == PA


def test_an_aborted_cd_is_f_cd_fetch_at_the_physical_address(nested: Nested) -> None:
    bench, _, second = nested
    second.map(IPA_OF_CD, NOWHERE)
    event = fault(bench, IOVA)
    assert isinstance(event, F_CD_FETCH)
    assert event.FetchAddr == NOWHERE


def test_an_aborted_stage_1_descriptor_is_stage_1s_fault_at_the_physical_address(nested: Nested) -> None:
    bench, _, second = nested
    second.map(IPA_OF_TABLE, NOWHERE)
    event = fault(bench, IOVA)
    assert event == F_WALK_EABT.of(S2=0, CLASS=EventClass.TT, RnW=1, InputAddr=IOVA, FetchAddr=NOWHERE)


@pytest.mark.parametrize(
    ("ipa", "kind"), [(IPA_OF_CD, EventClass.CD), (IPA_OF_TABLE, EventClass.TT), (IPA, EventClass.IN)]
)
def test_an_aborted_stage_2_descriptor_is_stage_2s_fault_of_its_class(nested: Nested, ipa: int, kind: int) -> None:
    bench, first, second = nested
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    # The CD's and the table's pages share their stage 2 table, so the CD must have been read before.
    if kind is EventClass.TT:
        assert bench.pa(IOVA) == PA
        bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())
    at = second.entry(ipa, 2)
    second.write(at, NOWHERE | 3)
    event = fault(bench, IOVA)
    assert event == F_WALK_EABT.of(S2=1, CLASS=kind, RnW=1, InputAddr=IOVA, FetchAddr=NOWHERE + (ipa >> 12 & 0x1FF) * 8)


def test_each_stage_says_how_its_own_faults_end(bench: Bench) -> None:
    first, second = bench.nested(cd={"A": 0, "R": 0}, S2R=1)
    first.map(IOVA, IPA)
    answer = bench.translate(0x5000)
    assert (answer.outcome, answer.events) == (Outcome.RAZ_WI, [])
    assert outcome(bench, IOVA) is F_TRANSLATION  # stage 2's
    second.map(IPA, PA)
    assert bench.pa(IOVA) == PA


def test_stage_1_denies_before_stage_2_is_asked(nested: Nested) -> None:
    bench, first, _ = nested
    first.map(IOVA, IPA, AP=3)
    event = fault(bench, IOVA, write=True)
    assert isinstance(event, F_PERMISSION)
    assert event.S2 == 0


def test_what_both_stages_permit_is_permitted(nested: Nested) -> None:
    bench, first, second = nested
    first.map(IOVA, IPA)
    second.map(IPA, PA, S2AP=1)
    assert bench.pa(IOVA) == PA
    event = fault(bench, IOVA, write=True)
    assert isinstance(event, F_PERMISSION)
    assert (event.S2, event.CLASS, event.IPA) == (1, EventClass.IN, IPA)


def test_the_output_of_stage_1_is_checked_against_ips_before_stage_2(bench: Bench) -> None:
    first, _ = bench.nested(cd={"IPS": AddressSize.BITS_40})
    first.map(IOVA, 1 << 40)
    event = fault(bench, IOVA)
    assert isinstance(event, F_ADDR_SIZE)
    assert event.S2 == 0


@pytest.mark.parametrize(("s1dss", "found"), [(0, F_STREAM_DISABLED), (1, PA)])
def test_a_bypassed_stage_1_leaves_stage_2(s1dss: int, found: Any) -> None:
    bench = Bench({**BOTH, "substream_id_bits": 4})
    _, second = bench.nested(S1CDMax=4, S1DSS=s1dss)
    second.map(IPA, PA)
    assert outcome(bench, IPA) == found


# -- S2PTW (§5.2) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memattr", range(16))
@pytest.mark.parametrize("ipa", [IPA_OF_CD, IPA_OF_TABLE])
def test_s2ptw_keeps_cds_and_tables_out_of_device_memory(ipa: int, memattr: int) -> None:
    bench = Bench(BOTH)
    first, second = bench.nested(S2PTW=1)
    first.map(IOVA, IPA)
    second.map(IPA, PA, MemAttr=0)  # data may be there
    second.change(ipa, 3, MemAttr=memattr)
    if memattr >> 2:
        assert bench.pa(IOVA) == PA
        return
    event = fault(bench, IOVA)
    kind = EventClass.CD if ipa == IPA_OF_CD else EventClass.TT
    rest = {"RnW": 1, "InputAddr": IOVA, "IPA": ipa, "TTRnW": kind is EventClass.TT}
    assert event == F_PERMISSION.of(S2=1, CLASS=kind, **rest)


@pytest.mark.parametrize("memattr", [0, 1, 2, 3, 5, 6, 7])
def test_with_s2fwb_device_memory_has_another_encoding(memattr: int) -> None:
    bench = Bench({**BOTH, "forced_writeback": True})
    first, second = bench.nested(S2PTW=1, S2FWB=1)
    first.map(IOVA, IPA)
    second.map(IPA, PA, MemAttr=6)
    second.change(IPA_OF_TABLE, 3, MemAttr=memattr)
    second.change(IPA_OF_CD, 3, MemAttr=6)
    for at in (RAM_BASE, RAM_BASE + 0x20_0000):
        second.change(at + IPA_OFFSET, 2, MemAttr=6)
    assert outcome(bench, IOVA) == (F_PERMISSION if memattr < 4 else PA)


def test_without_s2ptw_cds_and_tables_may_be_in_device_memory(nested: Nested) -> None:
    bench, first, second = nested
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    second.change(IPA_OF_CD, 3, MemAttr=0)
    second.change(IPA_OF_TABLE, 3, MemAttr=0)
    assert bench.pa(IOVA) == PA


# -- what makes an STE ILLEGAL (§5.2, §5.2.2, §5.5) ----------------------------------------------------------

AA32: dict[str, Any] = {"aarch32_tables": True}
LPAE = {"S2AA64": 0, "S2T0SZ": 0, "S2SL0": 1}
STALLS: dict[str, Any] = {"stall_model": "both"}
TABLES: dict[str, Any] = {"version": "3.3", "hardware_updates": "tables"}

#: (rule, features, changed ID fields, STE fields, whether it is ILLEGAL).
RULES: list[tuple[str, dict[str, Any], dict[str, dict[str, int]], dict[str, int], bool]] = [
    ("§5.2 Config: stage 2 is there", {}, {}, {}, False),
    ("§5.2 Config: stage 2 is absent", {}, {"IDR0": {"S2P": 0}}, {}, True),
    ("§5.2 Config: both, stage 1 is absent", {}, {"IDR0": {"S1P": 0}}, {"Config": STE_CONFIG.NESTED}, True),
    ("§5.2 Config: stage 2 alone, stage 1 is absent", {}, {"IDR0": {"S1P": 0}}, {}, False),
    ("§5.2 Config: abort whatever else", {}, {"IDR0": {"S2P": 0}}, {"Config": 3, "S2TG": 3}, False),
    ("§5.2 V", {}, {}, {"V": 0}, True),
    ("§5.2 EATS: split-stage of stage 2 alone", {"ats": "split"}, {}, {"EATS": EATS.SPLIT}, True),
    ("§5.2 EATS: full", {"ats": "split"}, {}, {"EATS": EATS.FULL}, False),
    ("§5.2 EATS: full, stalling", {"ats": "split", **STALLS}, {}, {"EATS": EATS.FULL, "S2S": 1}, True),
    ("§5.2 EATS: ignored without ATS", STALLS, {}, {"EATS": EATS.FULL, "S2S": 1}, False),
    ("§5.2 EATS: 3 is reserved without DPT", {"ats": "full"}, {}, {"EATS": EATS.FULL_DPT}, False),
    ("§5.2 STRW: unused with stage 2", {"hyp": True}, {}, {"STRW": 3}, False),
    ("§5.2 S1STALLD: unused without stage 1", {}, {}, {"S1STALLD": 1}, False),
    ("§5.2 S2AA64: no AArch32 tables", {}, {}, LPAE, True),
    ("§5.2 S2AA64: AArch32 tables", AA32, {}, LPAE, False),
    ("§5.2 S2AA64: no AArch64 tables", AA32, {"IDR0": {"TTF": 1}}, {}, True),
    ("§5.2 S2FWB: AArch32", {**AA32, "forced_writeback": True}, {}, {**LPAE, "S2FWB": 1}, True),
    ("§5.2 S2FWB: absent", AA32, {}, {**LPAE, "S2FWB": 1}, False),
    ("§5.5 S2S: no stalls", {}, {}, {"S2S": 1}, True),
    ("§5.5 S2S: both models", STALLS, {}, {"S2S": 1}, False),
    ("§5.5 S2S: both models, 0", STALLS, {}, {}, False),
    ("§5.5 S2S: stall only", {"stall_model": "stall"}, {}, {"S2S": 1}, False),
    ("§5.5 S2S: stall only, 0", {"stall_model": "stall"}, {}, {"S2S": 0}, True),
    ("§5.2 S2HA: no HTTU", {}, {}, {"S2HA": 1}, True),
    ("§5.2 S2HD: no HTTU", {}, {}, {"S2HD": 1}, True),
    ("§5.2 S2HA: access", {"hardware_updates": "access"}, {}, {"S2HA": 1}, False),
    ("§5.2 S2HD: access", {"hardware_updates": "access"}, {}, {"S2HA": 1, "S2HD": 1}, True),
    ("§5.2 S2HD: dirty", {"hardware_updates": "dirty"}, {}, {"S2HA": 1, "S2HD": 1}, False),
    ("§5.2 S2HD: without S2HA is nothing", {"hardware_updates": "dirty"}, {}, {"S2HD": 1}, False),
    ("§5.2 S2HA: AArch32", {**AA32, "hardware_updates": "dirty"}, {}, {**LPAE, "S2HA": 1}, True),
    ("§5.2 S2HD: AArch32", {**AA32, "hardware_updates": "dirty"}, {}, {**LPAE, "S2HD": 1}, True),
    ("§5.2 S2HAFT: without S2HA", TABLES, {}, {"S2HAFT": 1}, True),
    ("§5.2 S2HAFT: with S2HA", TABLES, {}, {"S2HAFT": 1, "S2HA": 1}, False),
    ("§5.2 S2HAFT: RES0", {"hardware_updates": "dirty"}, {}, {"S2HAFT": 1}, False),
    ("§5.2 S2TG: reserved", {}, {}, {"S2TG": 3}, True),
    ("§5.2 S2TG: 64K is absent", {"granules": ("4K",)}, {}, {"S2TG": TG0.KB64, "S2SL0": 1, "S2T0SZ": 24}, True),
    ("§5.2 S2TG: 64K", {}, {}, {"S2TG": TG0.KB64, "S2SL0": 1, "S2T0SZ": 24}, False),
    ("§5.2 S2TG: ignored with AArch32", AA32, {}, {**LPAE, "S2TG": 3}, False),
    ("§5.2 S2TTB: beyond the OAS", {"oas": 40}, {}, {"S2TTB": 1 << 40}, True),
    ("§5.2 S2TTB: beyond S2PS", {}, {}, {"S2PS": 0, "S2TTB": 1 << 32}, True),
    ("§5.2 S2TTB: within S2PS", {}, {}, {"S2PS": 0, "S2TTB": (1 << 32) - 0x2000}, False),
    ("§5.2 S2TTB: 52 bits with 4K", {"oas": 52}, {}, {"S2TTB": 1 << 48}, True),
    ("§5.2 S2TTB: 52 bits with 64K", {"oas": 52}, {}, {"S2TTB": 1 << 48, "S2TG": TG0.KB64, "S2SL0": 1}, False),
    ("§5.2 S2TTB: 52 bits with LPA2", {"oas": 52, "lpa2": True}, {}, {"S2TTB": 1 << 48, "S2DS": 1}, False),
    ("§5.2 S2TTB: S2DS is RES0", {"oas": 52}, {}, {"S2TTB": 1 << 48, "S2DS": 1}, True),
    ("§5.2 S2TTB: AArch32 has 40 bits", AA32, {}, {**LPAE, "S2TTB": 1 << 40}, True),
    ("§5.2 S2ENDI: little", {}, {}, {"S2ENDI": 1}, True),
    ("§5.2 S2ENDI: big", {"endianness": "big"}, {}, {"S2ENDI": 0}, True),
    ("§5.2 S2ENDI: big, 1", {"endianness": "big"}, {}, {"S2ENDI": 1}, False),
    ("§5.2 S2ENDI: mixed", {"endianness": "mixed"}, {}, {"S2ENDI": 1}, False),
    ("§5.2 S2VMID: 8 bits", {}, {}, {"S2VMID": 0x100}, True),
    ("§5.2 S2VMID: 16 bits", {"vmid16": True}, {}, {"S2VMID": 0xFFFF}, False),
    ("§5.2 S2VMID: of stage 1 alone, too", {}, {}, {"Config": STE_CONFIG.S1, "S2VMID": 0x100}, True),
    ("§5.2 S2VMID: not of bypass", {}, {}, {"Config": STE_CONFIG.BYPASS, "S2VMID": 0x100}, False),
    ("§5.2 S2VMID: not of EL2", {"hyp": True}, {}, {"Config": STE_CONFIG.S1, "STRW": STRW.EL2, "S2VMID": 0x100}, False),
    ("§5.2 S1ContextPtr: beyond IAS", {"oas": 40}, {}, {"Config": STE_CONFIG.NESTED, "S1ContextPtr": 1 << 40}, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("features", "ids", "ste", "illegal"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES]
)
def test_an_ste_with_stage_2_is_illegal_by_the_rules_of_the_specification(
    features: dict[str, Any], ids: dict[str, dict[str, int]], ste: dict[str, int], illegal: bool
) -> None:
    bench = with_ids(features, **ids)
    table = PageTable(bench.ram, input_bits=40, stage=2)
    bench.ste(0, **{"Config": STE_CONFIG.S2, **bench.stage2_fields(table), **ste})
    assert (outcome(bench, IPA) is C_BAD_STE) == illegal


#: (features, granule, S2T0SZ, S2SL0, STE fields) → whether they go together; S2SL0 3 is level 3 (4K, small tables).
GEOMETRY: list[tuple[dict[str, Any], TG0, int, int, dict[str, int], bool]] = [
    # A start level must have at least one bit to resolve, and at most 16 tables (Arm ARM D8.2).
    ({}, TG0.KB4, 21, 1, {}, True), ({}, TG0.KB4, 20, 1, {}, False), ({}, TG0.KB4, 33, 1, {}, True),
    ({}, TG0.KB4, 34, 1, {}, False), ({}, TG0.KB4, 30, 0, {}, True), ({}, TG0.KB4, 29, 0, {}, False),
    ({}, TG0.KB4, 39, 0, {}, True), ({}, TG0.KB4, 16, 2, {}, True), ({}, TG0.KB4, 24, 2, {}, True),
    ({}, TG0.KB4, 25, 2, {}, False), ({}, TG0.KB4, 24, 3, {}, False),
    ({}, TG0.KB16, 17, 2, {}, True), ({}, TG0.KB16, 16, 2, {}, True), ({}, TG0.KB16, 24, 1, {}, True),
    ({}, TG0.KB16, 23, 1, {}, False), ({}, TG0.KB16, 27, 2, {}, True), ({}, TG0.KB16, 28, 2, {}, False),
    ({}, TG0.KB16, 35, 0, {}, True), ({}, TG0.KB16, 34, 0, {}, False), ({}, TG0.KB16, 38, 1, {}, True),
    ({}, TG0.KB16, 39, 1, {}, False), ({}, TG0.KB16, 20, 3, {}, False),
    ({}, TG0.KB64, 16, 2, {}, True), ({}, TG0.KB64, 21, 2, {}, True), ({}, TG0.KB64, 22, 2, {}, False),
    ({}, TG0.KB64, 18, 1, {}, True), ({}, TG0.KB64, 17, 1, {}, False), ({}, TG0.KB64, 31, 0, {}, True),
    ({}, TG0.KB64, 30, 0, {}, False), ({}, TG0.KB64, 34, 1, {}, True), ({}, TG0.KB64, 35, 1, {}, False),
    ({}, TG0.KB64, 24, 3, {}, False),
    # S2T0SZ has limits of its own (§5.2).
    ({}, TG0.KB4, 40, 0, {}, False), ({"small_tables": True}, TG0.KB4, 40, 0, {}, True),
    ({"small_tables": True}, TG0.KB4, 42, 0, {}, True), ({"small_tables": True}, TG0.KB4, 43, 0, {}, False),
    ({"small_tables": True}, TG0.KB4, 48, 3, {}, True), ({"small_tables": True}, TG0.KB4, 49, 3, {}, False),
    ({"small_tables": True}, TG0.KB64, 47, 0, {}, True), ({"small_tables": True}, TG0.KB64, 48, 0, {}, False),
    ({}, TG0.KB4, 15, 2, {}, False), ({"oas": 52}, TG0.KB4, 15, 2, {}, False),
    ({"oas": 52}, TG0.KB64, 12, 2, {}, True), ({"oas": 52}, TG0.KB64, 11, 2, {}, False),
    ({"oas": 44}, TG0.KB4, 20, 2, {}, True), ({"oas": 44}, TG0.KB4, 19, 2, {}, False),
    # Start levels need output addresses of some size (Arm ARM, S2InvalidSL).
    ({"oas": 42}, TG0.KB4, 24, 2, {}, False), ({"oas": 42}, TG0.KB4, 24, 1, {}, True),
    ({"oas": 40}, TG0.KB16, 26, 2, {}, False), ({"oas": 42}, TG0.KB16, 24, 2, {}, True),
    ({"oas": 42}, TG0.KB64, 24, 2, {}, False), ({"oas": 42}, TG0.KB64, 24, 1, {}, True),
    # LPA2: level -1 by S2SL0_2 with 4K, level 0 with 16K.
    ({"oas": 52, "lpa2": True}, TG0.KB4, 12, 0, {"S2DS": 1, "S2SL0_2": 1}, True),
    ({"oas": 52, "lpa2": True}, TG0.KB4, 12, 1, {"S2DS": 1, "S2SL0_2": 1}, False),
    ({"oas": 52, "lpa2": True}, TG0.KB4, 12, 2, {"S2DS": 1}, True),
    ({"oas": 52, "lpa2": True}, TG0.KB4, 11, 2, {"S2DS": 1}, False),
    ({"oas": 52, "lpa2": True}, TG0.KB4, 12, 2, {}, False),
    ({"oas": 52, "lpa2": True}, TG0.KB16, 12, 3, {"S2DS": 1}, True),
    ({"oas": 52, "lpa2": True}, TG0.KB16, 16, 3, {}, False),
    ({}, TG0.KB4, 24, 1, {"S2SL0_2": 1}, True),  # RES0
]  # fmt: skip


@pytest.mark.parametrize(("features", "granule", "t0sz", "sl0", "ste", "legal"), GEOMETRY)
def test_s2t0sz_s2sl0_and_s2tg_go_together(
    features: dict[str, Any], granule: TG0, t0sz: int, sl0: int, ste: dict[str, int], legal: bool
) -> None:
    bench = Bench({**BOTH, **features})
    table = PageTable(bench.ram, input_bits=40, stage=2)
    fields = bench.stage2_fields(table, S2TTB=0, S2T0SZ=t0sz, S2SL0=sl0, S2TG=granule, **ste)
    bench.ste(0, Config=STE_CONFIG.S2, **fields)
    assert (outcome(bench, 0) is not C_BAD_STE) == legal


@pytest.mark.parametrize("t0sz", range(-8, 8))
@pytest.mark.parametrize("sl0", [0, 1, 2, 3])
def test_of_aarch32_stage_2_level_1_resolves_31_to_40_bits_and_level_2_25_to_34(t0sz: int, sl0: int) -> None:
    bench = Bench({**BOTH, **AA32})
    table = PageTable(bench.ram, input_bits=40, stage=2)
    # The upper two bits of S2T0SZ are ignored.
    fields = bench.stage2_fields(table, S2AA64=0, S2T0SZ=t0sz & 15 | 0x30, S2SL0=sl0)
    bench.ste(0, Config=STE_CONFIG.S2, **fields)
    low, high = {0: (25, 34), 1: (31, 40)}.get(sl0, (1, 0))
    assert (outcome(bench, 0) is not C_BAD_STE) == (low <= 32 - t0sz <= high)


def test_aarch32_stage_2_takes_40_bits_and_goes_behind_aarch32_stage_1_only() -> None:
    bench = Bench({**BOTH, **AA32})
    second = PageTable(bench.ram, input_bits=40, stage=2, start_level=1)
    fields = bench.stage2_fields(second, S2AA64=0, S2T0SZ=0b1000, S2SL0=1)
    first = PageTable(bench.ram, input_bits=32)
    at = bench.cd(None, first, None, AA64=0, T0SZ=0)
    second.map(RAM_BASE, RAM_BASE, len(bench.ram.bytes), level=2)
    second.map((1 << 40) - 0x1000, PA)
    first.map(IOVA, (1 << 40) - 0x1000)
    bench.ste(0, Config=STE_CONFIG.NESTED, S1ContextPtr=at, **fields)
    assert bench.pa(IOVA) == PA
    bench.cd(at, first, None, AA64=1)
    bench.invalidate(c.CMD_CFGI_CD_ALL.of())
    assert outcome(bench, IOVA) is C_BAD_CD


# -- VMIDs and invalidation (§3.17, §4.4) --------------------------------------------------------------------


def test_translations_of_one_vmid_are_no_others(bench: Bench) -> None:
    for sid in (0, 1):
        bench.stage2(sid, S2VMID=sid + 1).map(IPA, PA + sid * 0x1000)
    assert [bench.pa(IPA, sid) for sid in (0, 1, 0, 1)] == [PA, PA + 0x1000] * 2


def test_streams_of_one_vmid_share_their_translations(bench: Bench) -> None:
    table = bench.stage2(0)
    bench.ste(1, Config=STE_CONFIG.S2, **bench.stage2_fields(table))
    table.map(IPA, PA)
    assert bench.pa(IPA, 0) == PA
    table.map(IPA, PA + 0x1000)
    assert bench.pa(IPA, 1) == PA


def test_stage_1_translations_are_tagged_by_vmid_even_without_stage_2() -> None:
    bench = Bench({**BOTH, "vmid16": True})
    for sid, vmid in ((0, 0x12), (1, 0x8012)):
        bench.stream(sid, S2VMID=vmid).map(IOVA, PA + sid * 0x1000)
    assert [bench.pa(IOVA, sid) for sid in (0, 1, 0, 1)] == [PA, PA + 0x1000] * 2


class World:
    """Streams of many kinds whose translations are cached; then all tables say something else."""

    def __init__(self) -> None:
        self.bench = bench = Bench({**BOTH, "hyp": True, "vmid_wildcards": True})
        self.streams: dict[str, tuple[int, int]] = {}
        tables: list[tuple[PageTable, int]] = []
        for sid, vmid in ((0, 1), (1, 2)):
            tables.append((bench.stage2(sid, S2VMID=vmid), IPA))
            self.streams[f"S2 {vmid}"] = (sid, IPA)
        for sid, vmid, asid in ((2, 1, 7), (3, 1, 8), (4, 2, 7)):
            table = bench.stream(sid, cd={"ASID": asid}, S2VMID=vmid)
            tables.append((table, IOVA))
            self.streams[f"S1 {vmid} {asid}"] = (sid, IOVA)
            if asid == 7:
                tables.append((table, IOVA + 0x8000))
                self.streams[f"S1 {vmid} global"] = (sid, IOVA + 0x8000)
        tables.append((bench.stream(5, STRW=STRW.EL2), IOVA))
        self.streams["EL2"] = (5, IOVA)
        for table, at in tables:
            table.map(at, PA, **({"nG": at == IOVA} if table.stage == 1 else {}))
        assert {bench.pa(at, sid) for sid, at in self.streams.values()} == {PA}
        for table, at in tables:
            table.map(at, PA + 0x1000, **({"nG": at == IOVA} if table.stage == 1 else {}))

    def gone(self) -> set[str]:
        return {name for name, (sid, at) in self.streams.items() if self.bench.pa(at, sid) != PA}


S1_OF_1 = {"S1 1 7", "S1 1 8", "S1 1 global"}
S1_OF_2 = {"S1 2 7", "S1 2 global"}
S2 = {"S2 1", "S2 2"}


@pytest.mark.parametrize(
    ("command", "gone"),
    [
        (c.CMD_TLBI_NSNH_ALL.of(), S1_OF_1 | S1_OF_2 | S2),
        (c.CMD_TLBI_NH_ALL.of(VMID=1), S1_OF_1),
        (c.CMD_TLBI_NH_ALL.of(VMID=2), S1_OF_2),
        (c.CMD_TLBI_NH_ALL.of(VMID=0), set()),
        (c.CMD_TLBI_NH_ASID.of(VMID=1, ASID=7), {"S1 1 7"}),
        (c.CMD_TLBI_NH_VA.of(VMID=1, ASID=7, Address=IOVA), {"S1 1 7"}),
        (c.CMD_TLBI_NH_VA.of(VMID=1, ASID=9, Address=IOVA + 0x8000), {"S1 1 global"}),
        (c.CMD_TLBI_NH_VAA.of(VMID=1, Address=IOVA), {"S1 1 7", "S1 1 8"}),
        (c.CMD_TLBI_NH_VAA.of(VMID=2, Address=IOVA + 0x8000), {"S1 2 global"}),
        (c.CMD_TLBI_S12_VMALL.of(VMID=1), S1_OF_1 | {"S2 1"}),
        (c.CMD_TLBI_S12_VMALL.of(VMID=3), set()),
        (c.CMD_TLBI_S2_IPA.of(VMID=2, Address=IPA), {"S2 2"}),
        (c.CMD_TLBI_S2_IPA.of(VMID=2, Address=IPA, Leaf=1), {"S2 2"}),
        (c.CMD_TLBI_S2_IPA.of(VMID=2, Address=IPA + 0x1000), set()),
        (c.CMD_TLBI_S2_IPA.of(VMID=1, Address=IPA - 0x1000, TG=1, NUM=1), {"S2 1"}),
        (c.CMD_TLBI_S2_IPA.of(VMID=1, Address=IPA - 0x2000, TG=1, NUM=1), set()),
        (c.CMD_TLBI_EL2_ALL.of(), {"EL2"}),
    ],
    ids=lambda each: str(each) if isinstance(each, c.Command) else "",
)
def test_an_invalidation_drops_what_it_names_and_nothing_else(command: c.Command, gone: set[str]) -> None:
    world = World()
    world.bench.invalidate(command)
    assert world.gone() == gone


@pytest.mark.parametrize(
    "command", [c.CMD_TLBI_S12_VMALL.of(VMID=1), c.CMD_TLBI_S2_IPA.of(VMID=1, Address=IPA, TG=1, TTL=3)]
)
def test_stage_2_invalidations_are_illegal_without_stage_2(command: c.Command) -> None:
    bench = Bench()
    bench.submit(command)
    assert bench.active_errors == 1
    Bench({"stage1": False, "stage2": True}).invalidate(command)


@pytest.mark.parametrize("command", [c.CMD_TLBI_NH_ALL.of(), c.CMD_TLBI_NH_VAA.of(), c.CMD_TLBI_NH_ASID.of()])
def test_stage_1_invalidations_are_illegal_without_stage_1(command: c.Command) -> None:
    bench = Bench({"stage1": False, "stage2": True})
    bench.submit(command)
    assert bench.active_errors == 1


def test_an_invalidation_by_ipa_is_enough_for_both_stages_here(nested: Nested) -> None:
    """Stages are cached apart, so a nested translation follows stage 2 alone; §4.4.3.1 asks for less."""
    bench, first, second = nested
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    assert bench.pa(IOVA) == PA
    second.map(IPA, PA + 0x1000)
    assert bench.pa(IOVA) == PA
    bench.invalidate(c.CMD_TLBI_S2_IPA.of(VMID=1, Address=IPA))
    assert bench.pa(IOVA) == PA + 0x1000


def test_a_stage_2_invalidation_leaves_the_translations_of_stage_1(nested: Nested) -> None:
    bench, first, second = nested
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    second.map(IPA + 0x1000, PA + 0x1000)
    assert bench.pa(IOVA) == PA
    first.map(IOVA, IPA + 0x1000)
    bench.invalidate(c.CMD_TLBI_S2_IPA.of(VMID=1, Address=IPA))
    assert bench.pa(IOVA) == PA
    bench.invalidate(c.CMD_TLBI_NH_VAA.of(VMID=1, Address=IOVA))
    assert bench.pa(IOVA) == PA + 0x1000


@pytest.mark.parametrize(("vmw", "gone"), [(0, {5}), (1, {4, 5}), (2, {4, 5, 6, 7}), (3, {0, 4, 5, 6, 7}), (5, {5})])
@pytest.mark.parametrize(
    "command",
    [
        c.CMD_TLBI_S12_VMALL.of(VMID=5),
        c.CMD_TLBI_S2_IPA.of(VMID=5, Address=IPA),
    ],
)
def test_vmw_leaves_low_bits_of_the_vmid_out_of_an_invalidations_match(
    command: c.Command, vmw: int, gone: set[int]
) -> None:
    bench = Bench({**BOTH, "vmid_wildcards": True})
    bench.set(CR0, VMW=vmw)
    vmids = [0, 4, 5, 6, 7, 13]
    tables = {vmid: bench.stage2(vmid, S2VMID=vmid) for vmid in vmids}
    for vmid, table in tables.items():
        table.map(IPA, PA + vmid * 0x1000)
    # Wildcards are for invalidations, never for lookups.
    assert [bench.pa(IPA, vmid) for vmid in vmids] == [PA + vmid * 0x1000 for vmid in vmids]
    for table in tables.values():
        table.unmap(IPA)
    bench.invalidate(command)
    assert {vmid for vmid in vmids if bench.pa(IPA, vmid) is None} == gone


def test_vmw_concerns_stage_1_invalidations_too() -> None:
    bench = Bench({**BOTH, "vmid_wildcards": True})
    bench.set(CR0, VMW=1)
    tables = [bench.stream(vmid, S2VMID=vmid) for vmid in range(4)]
    for table in tables:
        table.map(IOVA, PA)
    assert {bench.pa(IOVA, vmid) for vmid in range(4)} == {PA}
    for table in tables:
        table.unmap(IOVA)
    bench.invalidate(c.CMD_TLBI_NH_VA.of(VMID=2, ASID=1, Address=IOVA))
    assert [bench.pa(IOVA, vmid) is None for vmid in range(4)] == [False, False, True, True]


def test_without_the_feature_vmw_does_not_stick(bench: Bench) -> None:
    bench.set(CR0, VMW=1)
    assert bench[CR0].VMW == 0


#: Ways to change a record that are no event's: kept last, where it is easy to see that all classes have a case.
CLASSES: dict[int, Callable[[PageTable, PageTable], object]] = {
    EventClass.CD: lambda first, second: second.unmap(IPA_OF_CD),
    EventClass.TT: lambda first, second: second.unmap(IPA_OF_TABLE),
    EventClass.IN: lambda first, second: second.unmap(IPA),
}


@pytest.mark.parametrize("s2r", [0, 1])
@pytest.mark.parametrize("kind", list(CLASSES))
def test_s2r_hides_stage_2_faults_of_every_class(kind: int, s2r: int) -> None:
    bench = Bench(BOTH)
    first, second = bench.nested(S2R=s2r, cd={"A": 0, "R": 1})
    first.map(IOVA, IPA)
    CLASSES[kind](first, second)
    answer = bench.translate(IOVA)
    assert answer.outcome is Outcome.ABORT
    found = [event.CLASS for event in answer.events if isinstance(event, F_TRANSLATION)]
    assert found == [kind] * s2r
    assert all(isinstance(event, Event) for event in bench.events())
