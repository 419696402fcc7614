# SPDX-License-Identifier: Apache-2.0
"""PCIe ATS: translation requests, translated transactions, invalidations of endpoints (IHI 0070 §3.9.1, §4.5.1)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.smmu_builder import IPA_OF_CD, IPA_OF_TABLE, Bench, PageTable
from vhost_iommu.layout import Layout
from vhost_iommu.smmu.ats import AtsCompletion, AtsEntry, AtsInvalidation, AtsRequest, AtsStatus, PageResponse
from vhost_iommu.smmu.descriptors import S1LeafDescriptor, S2LeafDescriptor
from vhost_iommu.smmu.transaction import Outcome, Piece
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import (
    C_BAD_CD,
    C_BAD_STE,
    C_BAD_STREAMID,
    C_BAD_SUBSTREAMID,
    F_ADDR_SIZE,
    F_BAD_ATS_TREQ,
    F_CD_FETCH,
    F_PERMISSION,
    F_STE_FETCH,
    F_STREAM_DISABLED,
    F_TRANSL_FORBIDDEN,
    F_TRANSLATION,
    F_WALK_EABT,
    EventClass,
)
from vhost_iommu.smmu.v3.features import Features
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, CR0, CR2, GERROR, STRTAB_BASE, CommandError
from vhost_iommu.smmu.v3.structures import EATS, S1DSS, STE_CONFIG

FULL: dict[str, Any] = {"ats": "full", "ats_errors": True, "substream_id_bits": 4}
SPLIT: dict[str, Any] = {"ats": "split", "ats_errors": True, "stage2": True}
IOVA, IPA, PA = 0x1000, 0x8000_1000, 0x9000_2000
NOWHERE = 0x2000_0000
NO_ACCESS = AtsEntry(IOVA, 0x1000, 0, False, False)


@pytest.fixture
def bench() -> Bench:
    return Bench(FULL)


def ask(bench: Bench, iova: int = IOVA, sid: int = 0, **request: Any) -> AtsCompletion:
    return bench.smmu.ats_request(AtsRequest(sid, iova, **request))


def entry(bench: Bench, iova: int = IOVA, **request: Any) -> AtsEntry:
    """The one entry of a completion without events."""
    completion = ask(bench, iova, **request)
    assert (completion.status, completion.events, bench.events()) == (AtsStatus.SUCCESS, [], [])
    (found,) = completion.entries
    return found


def ats_stream(bench: Bench, **ste: Any) -> PageTable:
    return bench.stream(**{"EATS": EATS.FULL, **ste})


def translated(bench: Bench, address: int = PA, size: int = 1, **transaction: Any) -> type[Layout] | int | None:
    """Where a translated transaction goes, or which event it makes; None: it is aborted without one."""
    answer = bench.translate(address, size, translated=True, **transaction)
    assert bench.events() == answer.events
    if answer.outcome is Outcome.OK:
        return answer.pieces[0].pa
    assert answer.outcome is Outcome.ABORT
    return type(answer.events[0]) if answer.events else None


# -- translation requests (§3.9.1.2) -------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "size"), [(3, 0x1000), (2, 0x20_0000), (1, 0x4000_0000)])
def test_a_request_is_answered_with_the_page_that_the_tables_have(bench: Bench, level: int, size: int) -> None:
    ats_stream(bench).map(size, 3 * size, level=level)
    assert entry(bench, size + 0x345) == AtsEntry(size, size, 3 * size, True, True)


def test_a_request_for_more_is_answered_page_by_page_up_to_what_is_denied(bench: Bench) -> None:
    table = ats_stream(bench)
    for page in (0, 1, 3):
        table.map(IOVA + page * 0x1000, PA + page * 0x2000)
    entries = ask(bench, size=0x4000).entries
    assert [(each.iova, each.pa, each.read) for each in entries] == [
        (IOVA, PA, True),
        (IOVA + 0x1000, PA + 0x2000, True),
        (IOVA + 0x2000, 0, False),
    ]


@pytest.mark.parametrize("size", [0x100_0000, 1 << 70])
def test_a_completion_has_an_end_however_much_was_asked_for(bench: Bench, size: int) -> None:
    table = ats_stream(bench)
    table.map(0, 0x8000_0000, 0x40_0000)
    assert 1 <= len(ask(bench, 0, size=size).entries) <= 8


def test_the_last_page_of_all_addresses_is_answered(bench: Bench) -> None:
    high = PageTable(bench.ram)
    at = bench.cd(None, None, high)
    high.map((1 << 64) - 0x1000, PA)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=at, EATS=EATS.FULL)
    completion = ask(bench, (1 << 64) - 0x1000, size=0x3000)
    assert completion.entries[0] == AtsEntry((1 << 64) - 0x1000, 0x1000, PA, True, True)
    assert not any(each.read for each in completion.entries[1:])


def test_a_disabled_smmu_refuses_and_tells_software(bench: Bench) -> None:
    ats_stream(bench).map(IOVA, PA)
    bench.set(CR0, SMMUEN=0)
    completion = ask(bench, IOVA + 0x123, ssid=3)
    assert (completion.status, completion.entries) == (AtsStatus.UR, [])
    assert bench.events() == [F_BAD_ATS_TREQ.of(SSV=1, SSID=3, InputAddr=IOVA)] == completion.events


@pytest.mark.parametrize(
    ("ste", "status", "recorded"),
    [
        ({"EATS": EATS.FULL}, AtsStatus.SUCCESS, False),
        ({"EATS": EATS.ABORT}, AtsStatus.UR, True),
        ({"EATS": EATS.FULL_DPT}, AtsStatus.UR, True),
        ({"EATS": EATS.FULL, "Config": STE_CONFIG.BYPASS}, AtsStatus.UR, True),
        ({"EATS": EATS.FULL, "Config": STE_CONFIG.ABORT}, AtsStatus.UR, False),
        ({"EATS": EATS.FULL, "Config": 3}, AtsStatus.UR, False),
    ],
)  # fmt: skip
def test_eats_and_config_say_whether_requests_are_served(
    bench: Bench, ste: dict[str, int], status: AtsStatus, recorded: bool
) -> None:
    ats_stream(bench, **ste).map(IOVA, PA)
    completion = ask(bench)
    assert completion.status is status
    assert [type(event) for event in bench.events()] == [F_BAD_ATS_TREQ] * recorded


@pytest.mark.parametrize(("atschk", "status"), [(0, AtsStatus.UR), (1, AtsStatus.SUCCESS)])
def test_split_stage_ats_is_off_without_atschk(atschk: int, status: AtsStatus) -> None:
    bench = Bench(SPLIT)
    bench.set(CR0, ATSCHK=atschk)
    first, second = bench.nested(EATS=EATS.SPLIT)
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    assert ask(bench).status is status


def error(bench: Bench, kind: str) -> tuple[int, type[Layout], dict[str, Any]]:
    """Make a configuration that gives the error; (sid, event, further parts of a request)."""
    match kind:
        case "sid":
            return 1 << 20, C_BAD_STREAMID, {}
        case "ste fetch":
            bench.set(CR0, SMMUEN=0)
            bench[STRTAB_BASE] = STRTAB_BASE.of(ADDR=NOWHERE)
            bench.invalidate(c.CMD_CFGI_STE_RANGE.everything())
            bench.set(CR0, SMMUEN=1)
            return 0, F_STE_FETCH, {}
        case "ste":
            bench.ste(0, V=0)
            return 0, C_BAD_STE, {}
        case "ssid":
            ats_stream(bench)
            return 0, C_BAD_SUBSTREAMID, {"ssid": 1}
        case "disabled":
            ats_stream(bench, S1CDMax=4, S1DSS=0)
            return 0, F_STREAM_DISABLED, {}
        case "cd fetch":
            bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=NOWHERE, EATS=EATS.FULL)
            return 0, F_CD_FETCH, {}
        case "walk":
            table = ats_stream(bench)
            table.write(table.entry(IOVA, 1), NOWHERE | 3)
            return 0, F_WALK_EABT, {}
        case _:
            ats_stream(bench, cd={"V": 0})
            return 0, C_BAD_CD, {}


@pytest.mark.parametrize("record", [0, 1])
@pytest.mark.parametrize("kind", ["sid", "ste fetch", "ste", "ssid", "disabled", "cd fetch", "cd", "walk"])
def test_a_configuration_error_is_ca_and_recorded_if_asked_for(bench: Bench, kind: str, record: int) -> None:
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, REC_CFG_ATS=record, RECINVSID=1)
    bench.set(CR0, SMMUEN=1)
    sid, event, request = error(bench, kind)
    completion = ask(bench, sid=sid, **request)
    assert (completion.status, completion.entries) == (AtsStatus.CA, [])
    assert [type(each) for each in bench.events()] == [event] * record
    assert [type(each) for each in completion.events] == [event] * record


def test_a_bad_streamid_of_a_request_is_recorded_only_with_recinvsid_too(bench: Bench) -> None:
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, REC_CFG_ATS=1, RECINVSID=0)
    bench.set(CR0, SMMUEN=1)
    assert ask(bench, sid=1 << 20).status is AtsStatus.CA
    assert bench.events() == []


@pytest.mark.parametrize(
    "page", [{"TYPE": 0}, {"AF": 0}, {"OA": 0, "OA_51_48": 0}], ids=["translation", "access", "address size"]
)
def test_a_fault_of_the_page_is_a_success_that_grants_nothing(page: dict[str, int]) -> None:
    bench = Bench({**FULL, "oas": 40})
    table = ats_stream(bench, cd={"S": 0, "A": 0, "R": 1})
    table.map(IOVA, 1 << 40 if "OA" in page else PA)
    if "OA" not in page:
        table.change(IOVA, 3, **page)
    assert entry(bench, IOVA + 0x10) == NO_ACCESS


def test_a_fault_never_stalls_a_request() -> None:
    bench = Bench({**FULL, "stall_model": "both"})
    ats_stream(bench, cd={"S": 1})
    assert entry(bench) == NO_ACCESS


@pytest.mark.parametrize(("granules", "size"), [(("4K", "64K"), 0x1000), (("16K", "64K"), 0x4000), (("64K",), 0x10000)])
def test_what_is_denied_is_one_smallest_translation_unit(granules: tuple[str, ...], size: int) -> None:
    bench = Bench({**FULL, "granules": granules})
    ats_stream(bench, table=PageTable(bench.ram, 16))
    assert entry(bench, 0x12_3456) == AtsEntry(0x12_3456 & -size, size, 0, False, False)


@pytest.mark.parametrize(
    ("where", "fields"),
    [(IPA, {}), (IPA_OF_TABLE, {}), (IPA_OF_CD, {}), (IPA_OF_TABLE, {"S2AP": 2}), (IPA_OF_CD, {"S2AP": 2})],
)
@pytest.mark.parametrize("eats", [EATS.FULL, EATS.SPLIT])
def test_stage_2_denying_cd_table_or_page_grants_nothing(eats: EATS, where: int, fields: dict[str, int]) -> None:
    bench = Bench(SPLIT)
    bench.set(CR0, ATSCHK=1)
    first, second = bench.nested(EATS=eats)
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    second.change(where, 3, **(fields or {"TYPE": 0}))
    assert entry(bench) == NO_ACCESS


def test_stage_2_denying_the_update_of_stage_1_grants_nothing() -> None:
    bench = Bench({**SPLIT, "hardware_updates": "dirty"})
    first, second = bench.nested(cd={"HA": 1, "HD": 1}, EATS=EATS.FULL)
    first.map(0, 0x8000_0000, level=1, AP=3, DBM=1)
    second.map(0x8000_0000, PA)
    second.change(IPA_OF_TABLE, 3, S2AP=1)
    assert entry(bench, 0, no_write=True) == AtsEntry(0, 0x1000, PA, True, False)
    assert entry(bench, 0) == AtsEntry(0, 0x1000, 0, False, False)


@pytest.mark.parametrize("ipa", [IPA_OF_CD, IPA_OF_TABLE, IPA])
def test_an_abort_on_the_way_through_stage_2_is_ca(ipa: int) -> None:
    bench = Bench(SPLIT)
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, REC_CFG_ATS=1)
    bench.set(CR0, SMMUEN=1)
    first, second = bench.nested(EATS=EATS.FULL)
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    if ipa == IPA_OF_TABLE:  # the CD shares its stage 2 table, so that it must be known before
        assert ask(bench).status is AtsStatus.SUCCESS
        bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())
    second.write(second.entry(ipa, 2), NOWHERE | 3)
    assert ask(bench).status is AtsStatus.CA
    kind = {IPA_OF_CD: EventClass.CD, IPA_OF_TABLE: EventClass.TT, IPA: EventClass.IN}[ipa]
    fetch = NOWHERE + (ipa >> 12 & 0x1FF) * 8
    assert bench.events() == [F_WALK_EABT.of(S2=1, CLASS=kind, RnW=1, InputAddr=IOVA, FetchAddr=fetch)]


# -- what is granted (§13.7) ---------------------------------------------------------------------------------


#: (request, page) → R, W, Exe: the examples of §13.7.
EXAMPLES = [
    ({"no_write": True}, {"AP": 1}, (True, False, False)),
    ({}, {"AP": 1}, (True, True, False)),
    ({}, {"AP": 3}, (True, False, False)),
    ({"privileged": True}, {"AP": 0}, (True, True, False)),
    ({}, {"AP": 0}, (False, False, False)),
    ({"execute": True, "no_write": True}, {"AP": 1, "UXN": 1}, (True, False, False)),
    ({"execute": True}, {"AP": 1}, (True, True, True)),
    ({"execute": True}, {"AP": 0}, (False, False, False)),  # execution alone
    ({}, {"TYPE": 0}, (False, False, False)),
]


@pytest.mark.parametrize(("request_", "page", "granted"), EXAMPLES)
def test_what_the_page_permits_of_what_was_asked_for_is_granted(
    bench: Bench, request_: dict[str, bool], page: dict[str, int], granted: tuple[bool, bool, bool]
) -> None:
    at = bench.ram.alloc(64 << 4)
    table = PageTable(bench.ram)
    bench.cd(at + 64 * 3, table)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=at, S1CDMax=4, S1DSS=2, EATS=EATS.FULL)
    table.map(IOVA, PA, **page)
    found = entry(bench, ssid=3, **request_)
    assert (found.read, found.write, found.execute) == granted


def test_without_a_pasid_a_request_is_for_unprivileged_data(bench: Bench) -> None:
    table = ats_stream(bench)
    table.map(IOVA, PA, AP=1)
    assert not entry(bench, execute=True, privileged=True).execute
    table.map(IOVA + 0x1000, PA, AP=0)
    assert not entry(bench, IOVA + 0x1000, execute=True, privileged=True).read


@pytest.mark.parametrize(("privcfg", "read"), [(0, False), (2, False), (3, True)])
def test_privcfg_says_for_whom_permissions_are_granted(bench: Bench, privcfg: int, read: bool) -> None:
    ats_stream(bench, PRIVCFG=privcfg).map(IOVA, PA, AP=0)
    assert entry(bench).read == read


@pytest.mark.parametrize(
    ("instcfg", "page", "execute", "granted"),
    [
        (3, {"AP": 1}, True, (True, True, True)),
        (3, {"AP": 1}, False, (True, True, False)),
        (3, {"AP": 3, "UXN": 1}, True, (False, False, False)),  # all reads are instruction fetches
        (3, {"AP": 0}, True, (True, False, True)),
        (2, {"AP": 3, "UXN": 1}, True, (True, False, True)),  # none is
        (2, {"AP": 3, "UXN": 1}, False, (True, False, False)),
        (2, {"AP": 0}, True, (False, False, False)),
    ],
)
def test_instcfg_says_what_reading_means(
    bench: Bench, instcfg: int, page: dict[str, int], execute: bool, granted: tuple[bool, bool, bool]
) -> None:
    at = bench.ram.alloc(64 << 4)
    table = PageTable(bench.ram)
    bench.cd(at + 64, table)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=at, S1CDMax=4, EATS=EATS.FULL, INSTCFG=instcfg)
    table.map(IOVA, PA, **page)
    found = entry(bench, ssid=1, execute=execute)
    assert (found.read, found.write, found.execute) == granted


@pytest.mark.parametrize("eats", [EATS.FULL, EATS.SPLIT])
@pytest.mark.parametrize("s2ap", [0, 1, 2, 3])
def test_of_two_stages_what_both_permit_is_granted(s2ap: int, eats: EATS) -> None:
    bench = Bench(SPLIT)
    bench.set(CR0, ATSCHK=1)
    first, second = bench.nested(EATS=eats)
    first.map(IOVA, IPA)
    second.map(IPA, PA, S2AP=s2ap)
    found = entry(bench)
    assert (found.read, found.write) == (bool(s2ap & 1), bool(s2ap & 2))


def test_the_smaller_of_both_stages_pages_is_the_entrys_size() -> None:
    bench = Bench(SPLIT)
    first, second = bench.nested(EATS=EATS.FULL)
    first.map(0x20_0000, 0x8000_0000, level=2)
    second.map(0x8000_3000, PA)
    assert entry(bench, 0x20_3123) == AtsEntry(0x20_3000, 0x1000, PA, True, True)


def test_a_bypassed_stage_1_is_answered_one_to_one(bench: Bench) -> None:
    ats_stream(bench, S1CDMax=4, S1DSS=1)
    found = entry(bench, PA + 0x10)
    assert (found.pa, found.iova, found.read, found.write, found.execute) == (PA, PA, True, True, False)


@pytest.mark.parametrize("ste", [{}, {"INSTCFG": 3}, {"PRIVCFG": 3}])
def test_where_nothing_is_translated_reading_and_writing_are_granted_whatever_was_asked_for(
    built: bool, ste: dict[str, int]
) -> None:
    bench = Bench({**FULL, "permission_overrides": True}, pure=not built)
    ats_stream(bench, S1CDMax=4, S1DSS=1, **ste)
    assert entry(bench, PA, no_write=True) == AtsEntry(PA, 0x1000, PA, True, True, False)


@pytest.mark.parametrize("eats", [EATS.FULL, EATS.SPLIT])
def test_a_bypassed_stage_1_grants_what_stage_2_has_and_was_asked_for(built: bool, eats: EATS) -> None:
    bench = Bench({**SPLIT, "substream_id_bits": 4}, pure=not built)
    bench.set(CR0, ATSCHK=1)
    _, second = bench.nested(EATS=eats, S1CDMax=4, S1DSS=1)
    second.map(IPA, PA)
    pa = PA if eats == EATS.FULL else IPA
    assert entry(bench, IPA, no_write=True) == AtsEntry(IPA, 0x1000, pa, True, False, False)
    assert entry(bench, IPA) == AtsEntry(IPA, 0x1000, pa, True, True, False)


# -- updates of descriptors (§3.13.7) ------------------------------------------------------------------------


@pytest.mark.parametrize("no_write", [False, True])
def test_a_request_for_writing_makes_a_clean_page_dirty_and_one_for_reading_does_not(no_write: bool) -> None:
    bench = Bench({**FULL, "hardware_updates": "dirty"})
    table = ats_stream(bench, cd={"HA": 1, "HD": 1})
    table.map(IOVA, PA, AF=0, AP=3, DBM=1)
    found = entry(bench, no_write=no_write)
    page = S1LeafDescriptor(table.read(table.entry(IOVA)))
    assert (found.read, found.write, page.AF, page.AP) == (True, not no_write, 1, 3 if no_write else 1)


def test_without_updates_of_dirty_state_a_clean_page_is_granted_for_reading() -> None:
    bench = Bench({**FULL, "hardware_updates": "access"})
    table = ats_stream(bench, cd={"HA": 1})
    table.map(IOVA, PA, AF=0, AP=3, DBM=1)
    found = entry(bench)
    assert (found.read, found.write) == (True, False)


def test_a_page_that_stage_1_holds_read_only_stays_clean_in_stage_2() -> None:
    bench = Bench({**SPLIT, "hardware_updates": "dirty"})
    first, second = bench.nested(EATS=EATS.FULL, S2HA=1, S2HD=1)
    first.map(IOVA, IPA, AP=3)
    second.map(IPA, PA, S2AP=1, DBM=1)
    assert not entry(bench).write
    assert S2LeafDescriptor(second.read(second.entry(IPA))).S2AP == 1


# -- translated transactions (§3.9.1.3) ----------------------------------------------------------------------


@pytest.mark.parametrize("eats", [EATS.ABORT, EATS.FULL])
def test_without_atschk_translated_transactions_pass_whatever_the_stream_is(bench: Bench, eats: EATS) -> None:
    ats_stream(bench, EATS=eats)
    assert translated(bench) == PA
    assert translated(bench, sid=1 << 20) == PA
    answer = bench.translate(PA, 0x5000, translated=True)
    assert answer.pieces == [Piece(PA, 0x5000)]


@pytest.mark.parametrize("atschk", [0, 1])
def test_a_translated_address_beyond_the_output_size_is_aborted_without_an_event(atschk: int) -> None:
    bench = Bench({**FULL, "oas": 40})
    bench.set(CR0, ATSCHK=atschk)
    ats_stream(bench)
    assert translated(bench, (1 << 40) - 1) == (1 << 40) - 1
    assert translated(bench, 1 << 40) is None
    assert translated(bench, (1 << 40) - 1, 2) is None


def test_a_disabled_smmu_forbids_translated_transactions(bench: Bench) -> None:
    bench.set(CR0, SMMUEN=0)
    answer = bench.translate(PA + 5, translated=True, write=True, ssid=3)
    assert answer.outcome is Outcome.ABORT
    assert bench.events() == [F_TRANSL_FORBIDDEN.of(RnW=0, InputAddr=PA + 5)]


def test_without_ats_nothing_passes_as_translated() -> None:
    bench = Bench()
    bench.stream()
    assert translated(bench) is None


@pytest.mark.parametrize(
    ("ste", "found"),
    [
        ({"EATS": EATS.FULL}, PA),
        ({"EATS": EATS.ABORT}, F_TRANSL_FORBIDDEN),
        ({"EATS": EATS.FULL_DPT}, F_TRANSL_FORBIDDEN),
        ({"EATS": EATS.FULL, "Config": STE_CONFIG.BYPASS}, F_TRANSL_FORBIDDEN),
        ({"EATS": EATS.FULL, "Config": STE_CONFIG.ABORT}, None),
        ({"V": 0}, None),
    ],
)  # fmt: skip
def test_with_atschk_the_stream_says_whether_translated_transactions_pass(
    bench: Bench, ste: dict[str, int], found: Any
) -> None:
    bench.set(CR0, ATSCHK=1)
    ats_stream(bench, **ste)
    assert translated(bench) == found


@pytest.mark.parametrize("kind", ["sid", "ste fetch", "ste"])
@pytest.mark.parametrize("record", [0, 1])
def test_a_configuration_error_of_a_translated_transaction_is_recorded_if_asked_for(
    bench: Bench, record: int, kind: str
) -> None:
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, REC_CFG_ATS=record, RECINVSID=0)  # which does not count here
    bench.set(CR0, SMMUEN=1, ATSCHK=1)
    sid, event, _ = error(bench, kind)
    assert translated(bench, sid=sid) == (event if record else None)


def split(**ste: Any) -> tuple[Bench, PageTable, PageTable]:
    bench = Bench(SPLIT)
    bench.set(CR0, ATSCHK=1)
    return bench, *bench.nested(EATS=EATS.SPLIT, **ste)


def test_split_stage_ats_tells_the_ipa_and_translates_it_later() -> None:
    bench, first, second = split()
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    assert entry(bench, IOVA + 0x44) == AtsEntry(IOVA, 0x1000, IPA, True, True)
    assert translated(bench, IPA + 0x44) == PA + 0x44


def test_a_translated_ipa_faults_at_stage_2_as_any_other() -> None:
    bench, _, second = split()
    second.map(IPA, PA, S2AP=1)
    assert translated(bench, IPA, write=True) is F_PERMISSION
    answer = bench.translate(IPA + 0x1001, translated=True)
    assert answer.events == [
        F_TRANSLATION.of(S2=1, CLASS=EventClass.IN, RnW=1, InputAddr=IPA + 0x1001, IPA=IPA + 0x1000)
    ]


def test_a_translated_ipa_beyond_the_ias_is_stage_1s_address_size_fault() -> None:
    bench, _, _ = split()
    answer = bench.translate(1 << 48, translated=True)
    assert answer.events == [F_ADDR_SIZE.of(CLASS=EventClass.IN, RnW=1, InputAddr=1 << 48)]


def test_a_translated_ipa_is_unprivileged_data_without_substream() -> None:
    bench = Bench({**SPLIT, "xnx": True})
    bench.set(CR0, ATSCHK=1)
    _, second = bench.nested(EATS=EATS.SPLIT)
    second.map(IPA, PA, XN=2)
    assert translated(bench, IPA, instruction=True, privileged=True, ssid=5) == PA
    second.map(IPA + 0x1000, PA, S2AP=0)
    answer = bench.translate(IPA + 0x1000, translated=True, instruction=True, privileged=True, ssid=5)
    assert answer.events == [
        F_PERMISSION.of(S2=1, CLASS=EventClass.IN, RnW=1, InputAddr=IPA + 0x1000, IPA=IPA + 0x1000)
    ]


# With IDR3.PASIDTT.

TAGGED: dict[str, Any] = {**FULL, "ats_pasid": True}
SUBSTREAMS: dict[str, Any] = {"S1CDMax": 4, "S1DSS": S1DSS.SSID0}


def tagged(features: dict[str, Any] = TAGGED, record: int = 1) -> Bench:
    """Translated transactions may have PASIDs, and are checked."""
    bench = Bench(features, start=False)
    bench.start(SMMUEN=0)
    bench.set(CR2, REC_CFG_ATS=record)
    bench.set(CR0, SMMUEN=1, ATSCHK=1)
    return bench


def substreams(bench: Bench, **ste: Any) -> int:
    """CDs of 16 SubstreamIDs, all invalid but that of 1. Their address."""
    table = PageTable(bench.ram)
    at = bench.ram.alloc(16 * 64)
    bench.cd(at + 64, table)
    bench.ste(0, **{"Config": STE_CONFIG.S1, "S1ContextPtr": at, "EATS": EATS.FULL, **SUBSTREAMS, **ste})
    return at


@pytest.mark.parametrize("record", [0, 1])
@pytest.mark.parametrize(
    ("ste", "ssid", "event"),
    [
        ({}, 1, PA),
        ({"EATS": EATS.ABORT}, 16, F_TRANSL_FORBIDDEN),  # before what is wrong with the SubstreamID
        ({}, 16, C_BAD_SUBSTREAMID),
        ({"S1CDMax": 0}, 1, C_BAD_SUBSTREAMID),
        ({}, 0, F_STREAM_DISABLED),
        ({}, 2, C_BAD_CD),
        ({"S1ContextPtr": NOWHERE}, 1, F_CD_FETCH),
        # Without a SubstreamID no CD counts.
        ({"S1ContextPtr": NOWHERE}, None, PA),
        ({"S1DSS": S1DSS.BYPASS}, None, PA),
        ({"S1DSS": S1DSS.TERMINATE}, None, F_STREAM_DISABLED),
        ({"S1DSS": 3}, None, F_STREAM_DISABLED),
        ({"S1DSS": S1DSS.TERMINATE, "S1CDMax": 0}, None, PA),
    ],
)
def test_the_pasid_of_a_translated_transaction_is_checked_in_the_order_of_errors(
    ste: dict[str, Any], ssid: int | None, event: Any, record: int
) -> None:
    bench = tagged(record=record)
    substreams(bench, **ste)
    answered = translated(bench, ssid=ssid)
    assert answered == (event if record or event in (PA, F_TRANSL_FORBIDDEN) else None)


@pytest.mark.parametrize("ssid", [None, 0, 2, 16])
def test_without_pasidtt_or_without_atschk_no_pasid_is_checked(ssid: int | None) -> None:
    for features, atschk in ((FULL, 1), (TAGGED, 0)):
        bench = tagged(features)
        bench.set(CR0, ATSCHK=atschk)
        substreams(bench, S1DSS=S1DSS.TERMINATE)
        assert translated(bench, ssid=ssid) == PA


def test_stage_2_faults_of_the_cd_of_a_translated_transaction_are_recorded_anyway() -> None:
    bench = tagged({**TAGGED, "stage2": True}, record=0)
    _, second = bench.nested(EATS=EATS.FULL, **SUBSTREAMS)
    second.unmap(IPA_OF_CD)
    answer = bench.translate(PA, translated=True, ssid=1, write=True)
    assert answer.outcome is Outcome.ABORT
    at = IPA_OF_CD + 64
    expected = F_TRANSLATION.of(SSV=1, SSID=1, S2=1, CLASS=EventClass.CD, InputAddr=PA, IPA=at & ~0xFFF)
    assert answer.events == bench.events() == [expected]


@pytest.mark.parametrize(
    ("ste", "privileged", "instruction", "ssid", "faults"),
    [
        ({}, True, True, 1, {"PnU": 1, "InD": 1}),
        ({}, False, True, 1, {"InD": 1}),
        ({}, True, False, 1, None),
        ({}, True, True, None, None),  # without a PASID: unprivileged data
        ({"INSTCFG": 3}, False, False, 1, {"InD": 1}),
        ({"INSTCFG": 2}, True, True, 1, None),
        ({"PRIVCFG": 3}, False, True, 1, {"PnU": 1, "InD": 1}),
    ],
)  # fmt: skip
def test_a_translated_ipa_with_a_pasid_is_what_it_says_unless_the_ste_says_otherwise(
    ste: dict[str, int], privileged: bool, instruction: bool, ssid: int | None, faults: dict[str, int] | None
) -> None:
    bench = tagged({**TAGGED, **SPLIT, "xnx": True})
    first, second = bench.nested(EATS=EATS.SPLIT, **{**SUBSTREAMS, **ste})
    at = bench.ram.alloc(0x1000)
    second.map(IPA_OF_CD, at)
    bench.cd(at + 64, first, None, TTB0=IPA_OF_TABLE)
    second.map(IPA, PA, XN=2)  # not to be executed
    answer = bench.translate(IPA, translated=True, privileged=privileged, instruction=instruction, ssid=ssid)
    expected = {"SSV": 1, "SSID": 1, "S2": 1, "CLASS": EventClass.IN, "RnW": 1, "InputAddr": IPA, "IPA": IPA & ~0xFFF}
    assert answer.events == bench.events() == ([F_PERMISSION.of(**expected, **faults)] if faults else [])
    assert (answer.outcome is Outcome.OK) == (faults is None)


def test_an_stes_memory_type_is_not_for_translated_ipas() -> None:
    bench, _, second = split(MTCFG=1, MemAttr=0, SHCFG=0)
    second.map(IPA, PA, MemAttr=0b1111)
    answer = bench.translate(IPA, translated=True)
    bench.stage2(1, MTCFG=0, SHCFG=1).map(IPA, PA, MemAttr=0b1111)
    assert answer.memory == bench.translate(IPA, sid=1).memory


@pytest.mark.parametrize(("ste", "illegal"), [({}, False), ({"S2S": 1}, True), ({"Config": STE_CONFIG.S2}, True)])
def test_split_stage_ats_needs_both_stages_and_no_stalls(ste: dict[str, Any], illegal: bool) -> None:
    bench = Bench({**SPLIT, "stall_model": "both"})
    bench.set(CR0, ATSCHK=1)
    _, second = bench.nested(EATS=EATS.SPLIT, **ste)
    second.map(IPA, PA)
    answer = bench.translate(IPA)
    assert (type(answer.events[0]) is C_BAD_STE) == illegal


def test_split_stage_ats_is_illegal_where_only_full_ats_is() -> None:
    values = {**Features(**{**SPLIT, "ats": "full"}).id_registers()}
    bench = Bench(id_registers={kind.__name__: value for kind, value in values.items()})
    bench.nested(EATS=EATS.SPLIT)
    assert type(bench.translate(IOVA).events[0]) is C_BAD_STE


# -- invalidations (§4.5.1, §3.9.1.4) ------------------------------------------------------------------------


class Device:
    """An endpoint that keeps what it is told."""

    def __init__(self) -> None:
        self.invalidations: list[AtsInvalidation] = []
        self.responses: list[PageResponse] = []

    def invalidate(self, invalidation: AtsInvalidation) -> None:
        self.invalidations.append(invalidation)

    def page_response(self, response: PageResponse) -> None:
        self.responses.append(response)


@pytest.fixture
def device(bench: Bench) -> Device:
    device = Device()
    bench.smmu.endpoints[7] = device
    return device


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Address": 0x5000}, (None, 0x5000, 0x1000, False)),
        ({"Address": 0x5000, "Size": 2}, (None, 0x4000, 0x4000, False)),
        ({"Address": 1 << 63, "Size": 52}, (None, 0, 1 << 64, False)),
        ({"Address": 0x5000, "SSV": 1, "SSID": 9}, (9, 0x5000, 0x1000, False)),
        ({"Address": 0x5000, "SSV": 1, "SSID": 9, "Global": 1}, (9, 0x5000, 0x1000, True)),
        ({"Address": 0x5000, "SSV": 0, "SSID": 9, "Global": 1}, (None, 0x5000, 0x1000, False)),
    ],
)
def test_an_invalidation_reaches_its_endpoint_with_an_aligned_span(
    bench: Bench, device: Device, fields: dict[str, int], expected: tuple[Any, ...]
) -> None:
    bench.submit(c.CMD_ATC_INV.of(SID=7, **fields))
    (told,) = device.invalidations
    assert (told.sid, told.ssid, told.address, told.size, told.everywhere) == (7, *expected)


def test_without_substreams_an_invalidation_has_no_pasid_whatever_ssv_says(built: bool) -> None:
    bench, device = Bench({**FULL, "substream_id_bits": 0}, pure=not built), Device()
    bench.smmu.endpoints[7] = device
    bench.submit(c.CMD_ATC_INV.of(SID=7, SSV=1, SSID=9, Global=1, Address=0x5000))
    (told,) = device.invalidations
    assert (told.ssid, told.everywhere, told.address, told.size) == (None, False, 0x5000, 0x1000)


def test_an_endpoint_that_is_not_there_has_nothing_to_forget(bench: Bench, device: Device) -> None:
    bench.invalidate(c.CMD_ATC_INV.of(SID=8, Size=52))
    assert device.invalidations == []


def test_a_sync_waits_until_every_endpoint_has_forgotten(bench: Bench, device: Device) -> None:
    bench.submit(c.CMD_ATC_INV.of(SID=7), c.CMD_ATC_INV.of(SID=7, Address=0x1000), c.CMD_SYNC.of(), c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 2
    device.invalidations[1].complete()
    assert bench[CMDQ_CONS].RD == 2
    device.invalidations[0].complete()
    assert bench[CMDQ_CONS].RD == 4


def test_other_commands_do_not_wait_for_endpoints(bench: Bench, device: Device) -> None:
    bench.submit(c.CMD_ATC_INV.of(SID=7), c.CMD_TLBI_NSNH_ALL.of(), c.CMD_ATC_INV.of(SID=7))
    assert bench[CMDQ_CONS].RD == 3
    assert len(device.invalidations) == 2


def test_an_invalidation_that_completes_twice_counts_once(bench: Bench, device: Device) -> None:
    bench.submit(c.CMD_ATC_INV.of(SID=7), c.CMD_ATC_INV.of(SID=7), c.CMD_SYNC.of())
    device.invalidations[0].complete()
    device.invalidations[0].complete()
    assert bench[CMDQ_CONS].RD == 2


def test_a_timeout_is_the_syncs_error_and_the_next_sync_is_well(bench: Bench, device: Device) -> None:
    bench.submit(c.CMD_ATC_INV.of(SID=7), c.CMD_SYNC.of())
    device.invalidations[0].time_out()
    assert bench[CMDQ_CONS].RD == 1
    assert bench[CMDQ_CONS].ERR == CommandError.CERROR_ATC_INV_SYNC
    assert bench.active_errors == GERROR.CMDQ_ERR.mask
    bench.acknowledge()
    assert bench[CMDQ_CONS].RD == 2


def test_a_timeout_without_a_sync_is_kept_for_it(bench: Bench, device: Device) -> None:
    bench.submit(c.CMD_ATC_INV.of(SID=7))
    device.invalidations[0].time_out()
    assert bench.active_errors == 0
    bench.submit(c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].ERR == CommandError.CERROR_ATC_INV_SYNC


def test_a_disabled_smmu_sends_no_invalidation(bench: Bench, device: Device) -> None:
    bench.set(CR0, SMMUEN=0)
    bench.invalidate(c.CMD_ATC_INV.of(SID=7, Size=52))
    assert device.invalidations == []


@pytest.mark.parametrize(("features", "size"), [({}, 0), (FULL, 53), (FULL, 63)])
def test_an_invalidation_is_illegal_without_ats_and_beyond_the_address_space(
    features: dict[str, Any], size: int
) -> None:
    bench = Bench(features)
    bench.submit(c.CMD_ATC_INV.of(SID=7, Size=size))
    assert bench.active_errors == GERROR.CMDQ_ERR.mask
    assert bench[CMDQ_PROD].WR == 1
