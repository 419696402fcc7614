# SPDX-License-Identifier: Apache-2.0
"""MPAM: with which identifiers a transaction leaves, their registers, the VMS and its caches (IHI 0070 §5.6, §17)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.smmu_builder import Bench, Ram
from vhost_iommu.layout import Register
from vhost_iommu.masters.atc import Atc, AtsUser
from vhost_iommu.memory import Window
from vhost_iommu.smmu.ats import AtsRequest, AtsStatus
from vhost_iommu.smmu.transaction import NO_MPAM, Mpam, Outcome, Transaction
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3 import configuration
from vhost_iommu.smmu.v3.events import C_BAD_CD, C_BAD_STE, F_VMS_FETCH, decode
from vhost_iommu.smmu.v3.features import Features
from vhost_iommu.smmu.v3.registers import (
    CMDQ_CONS,
    CR0,
    CR2,
    GBPA,
    GBPMPAM,
    GMPAM,
    IDR3,
    MPAMIDR,
    CommandError,
)
from vhost_iommu.smmu.v3.structures import CD, EATS, S1DSS, STE_CONFIG, VMS
from vhost_iommu.trace import Trace

#: Neither largest value is one less than a power of two.
PARTID_MAX, PMG_MAX = 100, 5
MPAM: dict[str, Any] = {"mpam_partid_max": PARTID_MAX, "mpam_pmg_max": PMG_MAX}
BOTH: dict[str, Any] = {"stage2": True, **MPAM}
ATS: dict[str, Any] = {"ats": "split", "ats_errors": True, **BOTH}
IOVA, IPA, PA = 0x1000, 0x8000_1000, 0x9000_2000
NOWHERE = 0x2000_0000
STE_S: dict[str, Any] = {"PARTID": 40, "PMG": 1}
CD_S = {"PARTID": 7, "PMG": 2}
OF_STE, OF_CD = Mpam(40, 1), Mpam(7, 2)


def mpam(bench: Bench, sid: int = 0, **transaction: Any) -> Mpam:
    """The identifiers with which an access that is translated leaves."""
    answer = bench.translate(IOVA, 1, sid, **transaction)
    assert (answer.outcome, answer.events) == (Outcome.OK, [])
    return answer.mpam


def vms(bench: Bench, at: int | None = None, **partids: int) -> int:
    """Write a VMS whose entry N is the keyword ``vN``, or 0. Its address."""
    at = bench.ram.alloc(VMS.size) if at is None else at
    values = [partids.get(f"v{n}", 0) for n in range(32)]
    bench.ram.put(at, VMS.of(PARTID_MAP=sum(value << 16 * n for n, value in enumerate(values))))
    return at


def nested(bench: Bench, sid: int = 0, cd: dict[str, int] | None = None, **ste: int) -> None:
    """A stream of both stages whose CDs give the identifiers; IOVA goes somewhere."""
    first, second = bench.nested(sid, cd=CD_S if cd is None else cd, **{"S1MPAM": 1, **STE_S, **ste})
    first.map(IOVA, IPA)
    second.map(IPA, PA)


# -- discovery (§17.1) ---------------------------------------------------------------------------------------


def test_features_tell_the_largest_identifiers() -> None:
    bench = Bench(MPAM)
    assert bench[IDR3].MPAM == 1
    assert bench[MPAMIDR] == MPAMIDR.of(PARTID_MAX=PARTID_MAX, PMG_MAX=PMG_MAX)
    bench[MPAMIDR] = 0
    assert bench[MPAMIDR] == MPAMIDR.of(PARTID_MAX=PARTID_MAX, PMG_MAX=PMG_MAX)


@pytest.mark.parametrize(("features", "there"), [({}, 0), ({"mpam_pmg_max": 1}, 1), ({"mpam_partid_max": 1}, 1)])
def test_either_identifier_is_enough_for_mpam(features: dict[str, Any], there: int) -> None:
    assert there == IDR3(Features(**features).id_registers()[IDR3]).MPAM


# -- client transactions (§17.2) -----------------------------------------------------------------------------


@pytest.mark.parametrize("s1mpam", [0, 1])
def test_a_bypassing_stream_has_its_stes_identifiers(s1mpam: int) -> None:
    bench = Bench(MPAM)
    bench.ste(0, Config=STE_CONFIG.BYPASS, S1MPAM=s1mpam, **STE_S)
    assert mpam(bench) == OF_STE


@pytest.mark.parametrize("s1mpam", [0, 1])
def test_stage_2_alone_has_the_stes_identifiers(s1mpam: int) -> None:
    bench = Bench(BOTH)
    bench.stage2(S1MPAM=s1mpam, VMSPtr=NOWHERE, **STE_S).map(IOVA, PA)
    assert mpam(bench) == OF_STE


@pytest.mark.parametrize(("s1mpam", "expected"), [(0, OF_STE), (1, OF_CD)])
def test_s1mpam_lets_the_cd_give_the_identifiers(s1mpam: int, expected: Mpam) -> None:
    bench = Bench(BOTH)
    bench.stream(cd=CD_S, S1MPAM=s1mpam, VMSPtr=NOWHERE, **STE_S).map(IOVA, PA)
    assert mpam(bench) == expected


def test_of_both_stages_the_vms_translates_the_cds_partid_and_the_pmg_stays() -> None:
    bench = Bench(BOTH)
    nested(bench, VMSPtr=vms(bench, v6=16, v7=17, v8=18))
    assert mpam(bench) == Mpam(17, 2)


def test_without_s1mpam_no_vms_is_read() -> None:
    bench = Bench(BOTH)
    nested(bench, S1MPAM=0, VMSPtr=NOWHERE)
    assert mpam(bench) == OF_STE


@pytest.mark.parametrize("partid", [0, 31])
def test_a_virtual_partid_has_five_bits(partid: int) -> None:
    bench = Bench(BOTH)
    nested(bench, cd={"PARTID": partid | 0xFFE0}, VMSPtr=vms(bench, v0=20, v31=21))
    assert mpam(bench) == Mpam(21 if partid else 20, 0)


def test_where_s1dss_bypasses_stage_1_the_ste_gives_the_identifiers_and_no_vms_is_read() -> None:
    bench = Bench({**BOTH, "substream_id_bits": 4})
    bench.stream(cd=CD_S, S1MPAM=1, S1CDMax=1, S1DSS=S1DSS.BYPASS, **STE_S)
    assert mpam(bench) == OF_STE
    table = bench.stage2(1)
    table.map(IOVA, PA)
    fields = {**bench.stage2_fields(table), "S1MPAM": 1, "S1CDMax": 1, "S1DSS": S1DSS.BYPASS, "VMSPtr": NOWHERE}
    bench.ste(1, Config=STE_CONFIG.NESTED, **fields, **STE_S)
    assert mpam(bench, 1) == OF_STE


def test_each_substream_has_the_identifiers_of_its_own_cd() -> None:
    bench = Bench({**MPAM, "substream_id_bits": 4})
    table = bench.stream()
    table.map(IOVA, PA)
    at = bench.ram.alloc(2 * CD.size)
    for n in range(2):
        bench.cd(at + n * CD.size, table, PARTID=10 + n, PMG=n)  # of one ASID
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=at, S1CDMax=1, S1DSS=S1DSS.BYPASS, S1MPAM=1, **STE_S)
    assert [mpam(bench), mpam(bench, ssid=0), mpam(bench, ssid=1)] == [OF_STE, Mpam(10, 0), Mpam(11, 1)]
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=at, S1CDMax=1, S1DSS=S1DSS.SSID0, S1MPAM=1, **STE_S)
    bench.invalidate(c.CMD_CFGI_STE.of(SID=0))
    assert [mpam(bench), mpam(bench, ssid=1)] == [Mpam(10, 0), Mpam(11, 1)]


def test_identifiers_are_no_part_of_a_cached_translation() -> None:
    bench = Bench(MPAM)
    table = bench.stream(0, **STE_S)
    bench.stream(1, table=table, PARTID=41, PMG=3)
    table.map(IOVA, PA)
    assert mpam(bench, 0) == OF_STE
    walks = bench.smmu.counters.walks
    assert mpam(bench, 1) == Mpam(41, 3)
    assert bench.smmu.counters.walks == walks


def test_without_mpam_nothing_has_identifiers() -> None:
    bench = Bench({"stage2": True})
    nested(bench, VMSPtr=NOWHERE)
    bench.stream(1, cd=CD_S, S1MPAM=1, **STE_S).map(IOVA, PA)
    bench.ste(2, Config=STE_CONFIG.BYPASS, **STE_S)
    assert [mpam(bench, sid) for sid in range(3)] == [NO_MPAM] * 3


def test_raw_registers_without_idr3_mpam_have_none_whatever_mpamidr_says() -> None:
    ids = {register.__name__: value for register, value in Features(**BOTH).id_registers().items()}
    bench = Bench(id_registers={**ids, "IDR3": IDR3(ids["IDR3"]).replace(MPAM=0).raw})
    nested(bench, VMSPtr=NOWHERE)
    assert mpam(bench) == NO_MPAM
    assert bench[MPAMIDR].raw == 0


def test_the_answer_of_a_fault_that_stalled_has_the_identifiers_in_the_end() -> None:
    bench = Bench({**MPAM, "stall_model": "both"})
    table = bench.stream(cd={"S": 1}, **STE_S)
    answer = bench.translate(IOVA)
    assert answer.stall is not None
    assert answer.stall.stag is not None
    table.map(IOVA, PA)
    bench.invalidate(c.CMD_RESUME.of(SID=0, STAG=answer.stall.stag, Ac=1))
    assert answer.stall.answer is not None
    assert answer.stall.answer.mpam == OF_STE


def test_a_trace_tells_the_identifiers() -> None:
    trace = Trace.memory()
    bench = Bench(MPAM)
    bench.smmu.watch.attach(trace)
    bench.ste(0, Config=STE_CONFIG.BYPASS, **STE_S)
    assert mpam(bench) == OF_STE
    (told,) = [record.args for record in trace.records if record.kind == "translation"]
    assert (told["partid"], told["pmg"]) == OF_STE


# -- what is too large (§5.2, §5.4, §5.6, §6.3.42) -----------------------------------------------------------

#: (given, what it comes to); an UNKNOWN identifier is 0 here.
LIMITS = [
    ((PARTID_MAX, PMG_MAX), Mpam(PARTID_MAX, PMG_MAX)),
    ((PARTID_MAX + 1, PMG_MAX), Mpam(0, PMG_MAX)),
    ((PARTID_MAX, PMG_MAX + 1), Mpam(PARTID_MAX, 0)),
    ((0xFFFF, 0xFF), NO_MPAM),
]


@pytest.mark.parametrize(("given", "expected"), LIMITS)
def test_an_identifier_that_is_too_large_counts_as_zero(given: tuple[int, int], expected: Mpam) -> None:
    partid, pmg = given
    bench = Bench(BOTH)
    bench.ste(0, Config=STE_CONFIG.BYPASS, PARTID=partid, PMG=pmg)
    bench.stream(1, cd={"PARTID": partid, "PMG": pmg}, S1MPAM=1).map(IOVA, PA)
    nested(bench, 2, cd={"PARTID": 3, "PMG": pmg}, VMSPtr=vms(bench, v3=partid))
    assert [mpam(bench, sid) for sid in range(3)] == [expected] * 3


def test_where_software_has_no_partids_there_is_no_vms() -> None:
    bench = Bench({"stage2": True, "mpam_pmg_max": PMG_MAX})
    nested(bench, VMSPtr=1 << 51)
    assert mpam(bench) == Mpam(0, 2)


# -- registers (§6.3.42, §6.3.43) ----------------------------------------------------------------------------

IDENTIFIERS = pytest.mark.parametrize("register", [GMPAM, GBPMPAM], ids=lambda r: r.__name__)
#: Both registers have the same fields.
VALUE = GMPAM.of(SO_PARTID=40, SO_PMG=1).raw
OTHER = GMPAM.of(SO_PARTID=41, SO_PMG=2).raw
UPDATE = GMPAM.Update.mask


def in_effect(bench: Bench, register: type[Register]) -> Mpam:
    if register is GMPAM:
        return bench.smmu.enables.own_mpam
    answer = bench.translate(0x5000, 1)
    assert answer.pieces[0].pa == 0x5000
    return answer.mpam


@IDENTIFIERS
def test_identifiers_change_only_together_with_update_which_reads_as_zero_when_it_is_done(
    register: type[Register],
) -> None:
    bench = Bench(MPAM, start=False)
    assert (bench[register].raw, in_effect(bench, register)) == (0, NO_MPAM)
    bench[register] = VALUE
    assert (bench[register].raw, in_effect(bench, register)) == (0, NO_MPAM)
    bench[register] = VALUE | UPDATE
    assert (bench[register].raw, in_effect(bench, register)) == (VALUE, OF_STE)
    bench[register] = OTHER
    assert (bench[register].raw, in_effect(bench, register)) == (VALUE, OF_STE)


@IDENTIFIERS
def test_a_late_update_reads_as_written_and_counts_when_it_is_done(register: type[Register]) -> None:
    bench = Bench(MPAM, start=False, acknowledge_after=2)
    bench[register] = VALUE | UPDATE
    bench[register] = OTHER | UPDATE  # one is under way: ignored
    assert in_effect(bench, register) == NO_MPAM
    assert bench[register].raw == VALUE | UPDATE
    assert in_effect(bench, register) == NO_MPAM
    bench[CR2]
    assert (bench[register].raw, in_effect(bench, register)) == (VALUE, OF_STE)


def test_each_of_several_updates_counts_when_it_is_done_itself() -> None:
    bench = Bench(MPAM, start=False, acknowledge_after=3)
    bench[GMPAM] = VALUE | UPDATE
    bench[CR2]
    bench[GBPA] = GBPA.of(Update=1, SHCFG=1)
    bench[CR2]
    bench[GBPMPAM] = OTHER | UPDATE
    seen = []
    for _ in range(3):
        bench[CR2]
        seen.append((in_effect(bench, GMPAM), in_effect(bench, GBPMPAM)))
    assert seen == [(OF_STE, NO_MPAM), (OF_STE, NO_MPAM), (OF_STE, Mpam(41, 2))]


@IDENTIFIERS
def test_bits_above_the_width_of_the_largest_identifier_read_as_zero(register: type[Register]) -> None:
    bench = Bench(MPAM, start=False)
    bench[register] = 0xFFFF_FFFF
    assert bench[register].raw == GMPAM.of(SO_PARTID=127, SO_PMG=7).raw
    assert in_effect(bench, register) == NO_MPAM  # too large both


@IDENTIFIERS
def test_a_reset_takes_the_identifiers_back(register: type[Register]) -> None:
    bench = Bench(MPAM, start=False)
    bench[register] = VALUE | UPDATE
    bench.smmu.reset()
    assert (bench[register].raw, in_effect(bench, register)) == (0, NO_MPAM)


@pytest.mark.parametrize("register", [MPAMIDR, GMPAM, GBPMPAM], ids=lambda r: r.__name__)
def test_without_mpam_its_registers_are_res0(register: type[Register]) -> None:
    bench = Bench(start=False)
    bench[register] = 0xFFFF_FFFF
    assert bench[register].raw == 0


def test_gbpmpam_is_of_a_disabled_smmu_only() -> None:
    bench = Bench(MPAM)
    bench.ste(0, Config=STE_CONFIG.BYPASS, **STE_S)
    bench[GBPMPAM] = OTHER | UPDATE
    assert mpam(bench) == OF_STE
    bench.set(CR0, SMMUEN=0)
    assert mpam(bench) == Mpam(41, 2)


# -- the VMS (§5.6) ------------------------------------------------------------------------------------------

#: The OAS is 48 bits: (what, features, STE fields, ILLEGAL)
VMSPTR: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("beyond the OAS", BOTH, {}, True),
    ("S1MPAM = 0", BOTH, {"S1MPAM": 0}, False),
    ("stage 2 alone", BOTH, {"Config": STE_CONFIG.S2}, False),
    ("no MPAM", {"stage2": True}, {}, False),
    ("no PARTIDs", {"stage2": True, "mpam_pmg_max": 1}, {}, False),
]


@pytest.mark.parametrize(("features", "ste", "illegal"), [row[1:] for row in VMSPTR], ids=[row[0] for row in VMSPTR])
def test_a_vms_beyond_the_oas_makes_the_ste_illegal_where_it_is_enabled(
    features: dict[str, Any], ste: dict[str, Any], illegal: bool
) -> None:
    bench = Bench(features)
    nested(bench, VMSPtr=1 << 48, **ste)
    assert [type(event) for event in bench.translate(IOVA).events if isinstance(event, C_BAD_STE)] == [
        C_BAD_STE
    ] * illegal


def test_a_vms_beyond_the_oas_is_ignored_in_bypass_and_with_stage_1_alone() -> None:
    bench = Bench(BOTH)
    bench.stream(0, S1MPAM=1, VMSPtr=1 << 48).map(IOVA, PA)
    bench.ste(1, Config=STE_CONFIG.BYPASS, S1MPAM=1, VMSPtr=1 << 48)
    assert [bench.pa(IOVA, sid) for sid in range(2)] == [PA, IOVA]


def test_an_aborted_vms_is_f_vms_fetch_at_its_address_and_ends_the_transaction() -> None:
    bench = Bench(BOTH)
    nested(bench, VMSPtr=NOWHERE)
    answer = bench.translate(IOVA)
    assert (answer.outcome, answer.pieces) == (Outcome.ABORT, [])
    assert answer.events == bench.events() == [F_VMS_FETCH.of(SID=0, FetchAddr=NOWHERE)]


def test_f_vms_fetch_tells_the_substream_word_by_word() -> None:
    bench = Bench({**BOTH, "substream_id_bits": 4})
    nested(bench, 5, VMSPtr=NOWHERE, S1CDMax=1)
    bench.translate(IOVA, sid=5, ssid=0)
    raw = bench.ram.get(bench.eventq, 32)
    assert [int.from_bytes(raw[n : n + 8], "little") for n in range(0, 32, 8)] == [
        0x25 | 1 << 11 | 5 << 32,
        0,
        0,
        NOWHERE,
    ]
    assert isinstance(decode(raw), F_VMS_FETCH)


def test_neither_a_faults_stall_nor_its_silence_is_of_f_vms_fetch() -> None:
    bench = Bench({**BOTH, "stall_model": "both"})
    nested(bench, cd={"S": 1, "R": 0, "A": 0}, VMSPtr=NOWHERE, S2S=1, S2R=0)
    answer = bench.translate(IOVA)
    assert (answer.outcome, answer.stall) == (Outcome.ABORT, None)
    assert [type(event) for event in bench.events()] == [F_VMS_FETCH]


def test_f_vms_fetch_comes_after_every_other_configuration_error() -> None:
    """§7.3.22 has it after C_BAD_STE; the rest is our choice."""
    bench = Bench(BOTH)
    seen = []
    for cd, ste in (({"V": 0}, {"S2TG": 3}), ({"V": 0}, {}), ({}, {})):
        nested(bench, cd=cd, VMSPtr=NOWHERE, **ste)
        bench.invalidate(c.CMD_CFGI_STE.of(SID=0), c.CMD_TLBI_NSNH_ALL.of())
        seen += [type(event) for event in bench.translate(IOVA).events]
    assert seen == [C_BAD_STE, C_BAD_CD, F_VMS_FETCH]


def test_f_vms_fetch_comes_before_faults_of_the_address() -> None:
    bench = Bench(BOTH)
    nested(bench, VMSPtr=NOWHERE)
    assert [type(event) for event in bench.translate(1 << 50).events] == [F_VMS_FETCH]


def test_a_vms_is_at_a_physical_address_and_only_its_map_is_read() -> None:
    ram = Ram(size=(4 << 20) + 64)
    bench = Bench(BOTH, ram=ram)
    at = ram.base + (4 << 20)
    ram.put(at, VMS.of(PARTID_MAP=33 << 7 * 16).to_bytes()[:64])
    nested(bench, VMSPtr=at)
    assert mpam(bench) == Mpam(33, 2)


def test_a_vms_that_was_not_fetched_is_fetched_again() -> None:
    bench = Bench(BOTH)
    nested(bench, VMSPtr=NOWHERE)
    assert [type(event) for event in bench.translate(IOVA).events] == [F_VMS_FETCH]
    bench.ram.memory.add(Window(NOWHERE, 0x1000, bytearray(VMS.of(PARTID_MAP=17 << 7 * 16).to_bytes())))
    assert mpam(bench) == Mpam(17, 2)


def test_a_prefetch_records_no_aborted_vms() -> None:
    bench = Bench(BOTH)
    nested(bench, VMSPtr=NOWHERE)
    bench.invalidate(c.CMD_PREFETCH_CONFIG.of(SID=0), c.CMD_PREFETCH_ADDR.of(SID=0, Address=IOVA))
    assert bench.events() == []


# -- caches of the VMS (§5.6.2, §4.3) ------------------------------------------------------------------------

STE_0, STE_1 = c.CMD_CFGI_STE.of(SID=0), c.CMD_CFGI_STE.of(SID=1)
RANGE = c.CMD_CFGI_STE_RANGE.of(SID=0, Range=0)
CDS = c.CMD_CFGI_CD_ALL.of(SID=0)
VM_1, VM_2 = c.CMD_CFGI_VMS_PIDM.of(VMID=1), c.CMD_CFGI_VMS_PIDM.of(VMID=2)
OLD, NEW = Mpam(17, 2), Mpam(18, 2)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((), OLD),
        ((VM_1,), OLD),
        ((STE_0,), OLD),
        ((CDS,), OLD),
        ((VM_1, CDS), OLD),
        ((VM_2, STE_0), OLD),
        ((VM_1, STE_1), OLD),
        ((c.CMD_TLBI_NSNH_ALL.of(), c.CMD_TLBI_S12_VMALL.of(VMID=1)), OLD),
        ((VM_1, STE_0), NEW),
        ((STE_0, VM_1), NEW),
        ((VM_1, RANGE), NEW),
        ((VM_1, c.CMD_CFGI_STE.of(SID=0, Leaf=1)), NEW),
        ((c.CMD_CFGI_STE_RANGE.everything(),), NEW),
    ],
)
def test_a_partid_map_stays_cached_until_both_its_stream_and_its_vmid_are_named(
    named: tuple[c.Command, ...], expected: Mpam
) -> None:
    bench = Bench(BOTH)
    at = vms(bench, v7=17)
    nested(bench, VMSPtr=at)
    assert mpam(bench) == OLD
    vms(bench, at, v7=18)
    bench.invalidate(*named)
    assert mpam(bench) == expected


def test_a_stream_that_is_used_between_the_two_keeps_the_old_map() -> None:
    bench = Bench(BOTH)
    at = vms(bench, v7=17)
    nested(bench, VMSPtr=at)
    assert mpam(bench) == OLD
    vms(bench, at, v7=18)
    bench.invalidate(STE_0)
    assert mpam(bench) == OLD
    bench.invalidate(VM_1)
    assert mpam(bench) == OLD
    bench.invalidate(STE_0)
    assert mpam(bench) == NEW


def test_streams_of_one_vmid_share_a_map_and_those_of_another_have_their_own() -> None:
    bench = Bench(BOTH)
    nested(bench, 0, VMSPtr=vms(bench, v7=17))
    nested(bench, 1, VMSPtr=NOWHERE)  # must be the same; which counts is open (§5.6)
    nested(bench, 2, VMSPtr=vms(bench, v7=18), S2VMID=2)
    assert [mpam(bench, sid) for sid in range(3)] == [OLD, OLD, NEW]


def test_vmw_does_not_widen_what_is_forgotten_of_partid_maps() -> None:
    bench = Bench({**BOTH, "vmid_wildcards": True})
    bench.set(CR0, VMW=1)
    at = vms(bench, v7=17)
    nested(bench, VMSPtr=at)
    assert mpam(bench) == OLD
    vms(bench, at, v7=18)
    bench.invalidate(c.CMD_CFGI_VMS_PIDM.of(VMID=0), STE_0)
    assert mpam(bench) == OLD


def test_a_reset_forgets_partid_maps() -> None:
    bench = Bench(BOTH)
    at = vms(bench, v7=17)
    nested(bench, VMSPtr=at)
    assert mpam(bench) == OLD
    vms(bench, at, v7=18)
    bench.smmu.reset()
    bench.start()
    bench.events()
    assert mpam(bench) == NEW


def test_partid_maps_take_no_more_memory_than_their_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "CAPACITY", 2)
    bench = Bench(BOTH, pure=True)
    at = vms(bench, v7=17)
    for n in range(4):
        nested(bench, n, VMSPtr=at, S2VMID=n)
        assert mpam(bench, n) == OLD
    vms(bench, at, v7=18)
    assert [mpam(bench, n) for n in (3, 0)] == [OLD, NEW]


# -- CMD_CFGI_VMS_PIDM (§4.3.5) ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "legal"),
    [
        ({}, False),
        ({"stage2": True}, False),
        (MPAM, False),  # without stage 2 there is no VMS
        ({**BOTH, "stage1": False}, False),
        ({"stage2": True, "mpam_pmg_max": PMG_MAX}, False),
        ({"stage2": True, "mpam_partid_max": 1}, True),
        (BOTH, True),
    ],
)
def test_forgetting_a_partid_map_is_legal_where_there_is_a_vms(features: dict[str, Any], legal: bool) -> None:
    bench = Bench(features)
    bench.submit(c.CMD_CFGI_VMS_PIDM.of(VMID=0xFFFF))
    assert CommandError(bench[CMDQ_CONS].ERR) is (CommandError.CERROR_NONE if legal else CommandError.CERROR_ILL)


def test_partid_maps_of_the_secure_state_cannot_be_named() -> None:
    bench = Bench(BOTH)
    bench.submit(c.CMD_CFGI_VMS_PIDM.of(SSec=1))
    assert CommandError(bench[CMDQ_CONS].ERR) is CommandError.CERROR_ILL


# -- ATS (§3.9.1, §17.3) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [0, 1])
def test_an_aborted_vms_answers_a_request_with_ca_and_is_recorded_if_asked_for(recorded: int) -> None:
    bench = Bench(ATS)
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, REC_CFG_ATS=recorded)
    bench.set(CR0, SMMUEN=1, ATSCHK=1)
    nested(bench, VMSPtr=NOWHERE, EATS=EATS.SPLIT)
    completion = bench.smmu.ats_request(AtsRequest(0, IOVA))
    assert (completion.status, completion.entries) == (AtsStatus.CA, [])
    assert bench.events() == completion.events == [F_VMS_FETCH.of(SID=0, FetchAddr=NOWHERE)] * recorded


def test_a_translated_transaction_has_gbpmpams_identifiers_without_atschk() -> None:
    bench = Bench({**MPAM, "ats": "full"})
    bench[GBPMPAM] = OTHER | UPDATE
    bench.stream(EATS=EATS.FULL, S1MPAM=1, cd=CD_S, **STE_S)
    assert mpam(bench, translated=True) == Mpam(41, 2)


def test_a_translated_transaction_has_its_stes_identifiers_with_atschk() -> None:
    """Its PASID, and so a CD, is not known without IDR3.PASIDTT."""
    bench = Bench({**MPAM, "ats": "full"})
    bench.set(CR0, ATSCHK=1)
    bench[GBPMPAM] = OTHER | UPDATE
    bench.stream(EATS=EATS.FULL, S1MPAM=1, cd=CD_S, **STE_S)
    assert mpam(bench, translated=True) == OF_STE


def test_a_masters_cached_translation_leaves_with_the_streams_identifiers() -> None:
    bench = Bench({**MPAM, "ats": "full"})
    bench.set(CR0, ATSCHK=1)
    bench.stream(EATS=EATS.FULL, **STE_S).map(IOVA, PA)
    atc = Atc("engine", bench.smmu, [0])
    for _ in range(2):
        assert atc.translate(Transaction(0, IOVA), AtsUser()).mpam == OF_STE
    assert (atc.hits, atc.misses) == (1, 1)


def test_a_translated_ipa_has_the_stes_identifiers_and_needs_no_vms() -> None:
    bench = Bench(ATS)
    bench.set(CR0, ATSCHK=1)
    nested(bench, VMSPtr=NOWHERE, EATS=EATS.SPLIT)
    answer = bench.translate(IPA, 1, translated=True)
    assert (answer.pieces[0].pa, answer.mpam) == (PA, OF_STE)
