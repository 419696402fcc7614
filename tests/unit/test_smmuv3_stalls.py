# SPDX-License-Identifier: Apache-2.0
"""Stalled transactions: records, CMD_RESUME, CMD_STALL_TERM, full queues, limits (IHI 0070 §3.12, §4.7, §7.2.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.smmu_builder import IPA_OF_CD, IPA_OF_TABLE, Bench, PageTable
from vhost_iommu.layout import Layout
from vhost_iommu.smmu.transaction import Answer, Outcome, Piece, Stall
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import (
    C_BAD_CD,
    C_BAD_STE,
    F_ACCESS,
    F_ADDR_SIZE,
    F_PERMISSION,
    F_TRANSLATION,
    F_WALK_EABT,
    Event,
    EventClass,
)
from vhost_iommu.smmu.v3.registers import CR0, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD, GERROR
from vhost_iommu.smmu.v3.structures import STE_CONFIG

BOTH: dict[str, Any] = {"stall_model": "both"}
NESTED: dict[str, Any] = {"stall_model": "both", "stage2": True}
IOVA, IPA, PA = 0x1000, 0x8000_1000, 0x9000_2000
NOWHERE = 0x2000_0000
S = {"S": 1}


@pytest.fixture
def bench() -> Bench:
    return Bench(BOTH, event_bits=3)


def stalled(bench: Bench, iova: int = IOVA, sid: int = 0, size: int = 1, **transaction: Any) -> Stall:
    """The stall that a transaction becomes."""
    answer = bench.translate(iova, size, sid, **transaction)
    assert answer.outcome is Outcome.STALLED
    assert answer.stall is not None
    assert answer.stall.answer is None
    return answer.stall


def ended(stall: Stall) -> Answer:
    assert stall.answer is not None
    return stall.answer


def stags(bench: Bench) -> list[int]:
    """The STAGs of the queue's records, which must all be of stalls."""
    found = []
    for event in bench.events():
        assert isinstance(event, F_TRANSLATION)
        assert event.STALL == 1
        found.append(event.STAG)
    return found


def retry(stag: int, sid: int = 0) -> c.CMD_RESUME:
    return c.CMD_RESUME.of(SID=sid, STAG=stag, Ac=1)


def terminate(stag: int, sid: int = 0, abort: int = 1) -> c.CMD_RESUME:
    return c.CMD_RESUME.of(SID=sid, STAG=stag, Ab=abort)


# -- what stalls (§3.12, §5.5) -------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [0, 1])
@pytest.mark.parametrize("a", [0, 1])
def test_a_stall_is_always_recorded_whatever_r_and_a_say(bench: Bench, a: int, r: int) -> None:
    bench.stream(cd={**S, "R": r, "A": a})
    answer = bench.translate(IOVA + 0x10, write=True, privileged=True)
    assert (answer.outcome, answer.pieces) == (Outcome.STALLED, [])
    (event,) = bench.events()
    assert isinstance(event, F_TRANSLATION)
    expected = F_TRANSLATION.of(STALL=1, CLASS=EventClass.IN, InputAddr=IOVA + 0x10, RnW=0, PnU=1)
    assert event == expected.replace(STAG=event.STAG)
    assert answer.events == [event]


CAUSES: list[tuple[type[Layout], Callable[[PageTable], None]]] = [
    (F_TRANSLATION, lambda table: None),
    (F_ADDR_SIZE, lambda table: table.map(IOVA, 1 << 40)),
    (F_ACCESS, lambda table: table.map(IOVA, PA, AF=0)),
    (F_PERMISSION, lambda table: table.map(IOVA, PA, AP=0)),
]


@pytest.mark.parametrize(("kind", "cause"), CAUSES, ids=[kind.__name__ for kind, _ in CAUSES])
def test_each_of_the_four_translation_faults_stalls_and_a_retry_goes_on(
    kind: type[Layout], cause: Callable[[PageTable], None]
) -> None:
    bench = Bench({**BOTH, "oas": 40})
    table = bench.stream(cd=S)
    cause(table)
    stall = stalled(bench)
    (event,) = bench.events()
    assert type(event) is kind
    table.map(IOVA, PA)
    bench.invalidate(c.CMD_TLBI_NSNH_ALL.of(), retry(event.values()["STAG"]))
    assert ended(stall).outcome is Outcome.OK
    assert ended(stall).pieces == [Piece(PA, 1)]


def test_an_aborted_walk_never_stalls(bench: Bench) -> None:
    table = bench.stream(cd=S)
    table.map(IOVA, PA)
    table.write(table.entry(IOVA, 2), NOWHERE | 3)
    answer = bench.translate(IOVA)
    assert answer.outcome is Outcome.ABORT
    assert [type(event) for event in bench.events()] == [F_WALK_EABT]


def test_a_configuration_error_never_stalls(bench: Bench) -> None:
    bench.stream(cd={**S, "V": 0})
    assert bench.translate(IOVA).outcome is Outcome.ABORT
    assert [type(event) for event in bench.events()] == [C_BAD_CD]


@pytest.mark.parametrize(
    ("model", "s", "s1stalld", "found"),
    [
        ("both", 0, 0, F_TRANSLATION), ("both", 1, 0, F_TRANSLATION), ("both", 0, 1, F_TRANSLATION),
        ("both", 1, 1, C_BAD_CD),
        ("terminate", 0, 0, F_TRANSLATION), ("terminate", 1, 0, C_BAD_CD), ("terminate", 0, 1, C_BAD_STE),
        ("stall", 0, 0, C_BAD_CD), ("stall", 1, 0, F_TRANSLATION), ("stall", 1, 1, C_BAD_STE),
    ],
)  # fmt: skip
def test_the_stall_model_says_what_cd_s_and_s1stalld_may_be(
    model: str, s: int, s1stalld: int, found: type[Layout]
) -> None:
    bench = Bench({"stall_model": model})
    bench.stream(cd={"S": s}, S1STALLD=s1stalld)
    answer = bench.translate(IOVA)
    (event,) = answer.events
    assert type(event) is found
    stalls = found is F_TRANSLATION and s == 1
    assert answer.outcome is (Outcome.STALLED if stalls else Outcome.ABORT)


@pytest.mark.parametrize("s", [0, 1])
@pytest.mark.parametrize("s2s", [0, 1])
@pytest.mark.parametrize("stage", [1, 2])
def test_of_two_stages_the_one_that_faults_decides(stage: int, s2s: int, s: int) -> None:
    bench = Bench(NESTED)
    first, _ = bench.nested(cd={"S": s}, S2S=s2s)
    if stage == 2:
        first.map(IOVA, IPA)
    answer = bench.translate(IOVA)
    (event,) = bench.events()
    assert isinstance(event, F_TRANSLATION)
    stalls = bool(s if stage == 1 else s2s)
    assert event == F_TRANSLATION.of(
        STALL=stalls, STAG=event.STAG, S2=stage - 1, CLASS=EventClass.IN, RnW=1, InputAddr=IOVA, IPA=event.IPA
    )
    assert answer.outcome is (Outcome.STALLED if stalls else Outcome.ABORT)


@pytest.mark.parametrize(
    ("ipa", "kind"), [(IPA_OF_CD, EventClass.CD), (IPA_OF_TABLE, EventClass.TT), (IPA, EventClass.IN)]
)
def test_stage_2_faults_of_cds_and_tables_stall_too_and_are_retried_from_the_beginning(ipa: int, kind: int) -> None:
    bench = Bench(NESTED)
    first, second = bench.nested(S2S=1)
    first.map(IOVA, IPA)
    second.map(IPA, PA)
    was = second.read(second.entry(ipa))
    second.unmap(ipa)
    stall = stalled(bench)
    (event,) = bench.events()
    assert event == F_TRANSLATION.of(
        STALL=1, STAG=event.values()["STAG"], S2=1, CLASS=kind, RnW=1, InputAddr=IOVA, IPA=ipa
    )
    second.write(second.entry(ipa), was)
    bench.invalidate(retry(event.values()["STAG"]))
    assert ended(stall).pieces == [Piece(PA, 1)]


def test_other_transactions_of_the_stream_go_on(bench: Bench) -> None:
    table = bench.stream(cd=S)
    table.map(IOVA + 0x1000, PA)
    stall = stalled(bench)
    assert bench.pa(IOVA + 0x1000) == PA
    assert stall.answer is None


def test_a_stalled_stream_stalls_no_other(bench: Bench) -> None:
    bench.stream(0, cd=S)
    bench.stream(1, cd={"ASID": 2})
    stalled(bench)
    assert bench.translate(IOVA, sid=1).outcome is Outcome.ABORT


# -- STAGs and CMD_RESUME (§3.12.2, §4.7.1) ------------------------------------------------------------------


def test_no_two_stalls_have_one_stag(bench: Bench) -> None:
    bench.stream(0, cd=S)
    bench.stream(1, cd=S)
    for sid in (0, 1, 0, 0):
        stalled(bench, sid=sid)
    found = stags(bench)
    assert len(set(found)) == 4


def test_a_stag_is_not_used_again_before_it_was_answered(bench: Bench) -> None:
    bench.stream(cd=S)
    stalled(bench)
    (first,) = stags(bench)
    bench.smmu.stalls._next_stag = 0xFFFF  # as after 65534 others
    stalled(bench)
    stalled(bench)
    second, third = stags(bench)
    assert len({first, second, third}) == 3


def test_a_stall_is_retried_alone_and_in_any_order(bench: Bench) -> None:
    table = bench.stream(cd=S)
    stalls = [stalled(bench, IOVA + n * 0x1000) for n in range(3)]
    found = stags(bench)
    for n in range(3):
        table.map(IOVA + n * 0x1000, PA + n * 0x1000)
    for n in (1, 2, 0):
        bench.invalidate(retry(found[n]))
        assert ended(stalls[n]).pieces == [Piece(PA + n * 0x1000, 1)]
    assert bench.events() == []


def test_a_retry_that_faults_again_stalls_again_with_a_record_of_its_own(bench: Bench) -> None:
    table = bench.stream(cd=S)
    stall = stalled(bench)
    (stag,) = stags(bench)
    bench.invalidate(retry(stag))
    assert stall.answer is None
    (again,) = stags(bench)
    table.map(IOVA, PA)
    bench.invalidate(retry(again))
    assert ended(stall).outcome is Outcome.OK


def test_a_retry_uses_the_configuration_of_now(bench: Bench) -> None:
    bench.stream(cd={**S, "A": 1})
    stall = stalled(bench)
    (stag,) = stags(bench)
    bench.stream(cd={"S": 0, "A": 0})
    bench.invalidate(c.CMD_CFGI_STE.of(), retry(stag))
    assert ended(stall).outcome is Outcome.RAZ_WI
    (event,) = bench.events()
    assert isinstance(event, F_TRANSLATION)
    assert event.STALL == 0


@pytest.mark.parametrize(("abort", "outcome"), [(1, Outcome.ABORT), (0, Outcome.RAZ_WI)])
@pytest.mark.parametrize("a", [0, 1])
def test_resume_terminates_as_it_says_and_not_as_cd_a_says(bench: Bench, a: int, abort: int, outcome: Outcome) -> None:
    bench.stream(cd={**S, "A": a})
    stall = stalled(bench)
    (stag,) = stags(bench)
    bench.invalidate(terminate(stag, abort=abort))
    assert ended(stall).outcome is outcome
    assert bench.events() == []


def test_a_stage_2_stall_may_be_terminated_as_raz_wi() -> None:
    bench = Bench(NESTED)
    bench.stage2(S2S=1)
    stall = stalled(bench)
    (stag,) = stags(bench)
    bench.invalidate(terminate(stag, abort=0))
    assert ended(stall).outcome is Outcome.RAZ_WI


def test_an_smmu_that_only_aborts_ignores_how_to_terminate() -> None:
    bench = Bench({**BOTH, "abort_only": True})
    bench.stream(cd=S)
    stall = stalled(bench)
    (stag,) = stags(bench)
    bench.invalidate(terminate(stag, abort=0))
    assert ended(stall).outcome is Outcome.ABORT


@pytest.mark.parametrize("command", [retry, terminate])
def test_a_pair_of_sid_and_stag_that_names_no_stall_does_nothing(
    bench: Bench, command: Callable[..., c.CMD_RESUME]
) -> None:
    table = bench.stream(0, cd=S)
    bench.stream(1, cd=S)
    mine, other = stalled(bench, sid=0), stalled(bench, sid=1)
    first, second = stags(bench)
    table.map(IOVA, PA)
    bench.invalidate(command(first, sid=1), command(second, sid=0), command(0x7777, sid=0), command(first, sid=9))
    assert (mine.answer, other.answer) == (None, None)
    bench.invalidate(terminate(first))
    assert ended(mine).outcome is Outcome.ABORT
    # A second answer has nobody left.
    bench.invalidate(terminate(first, abort=0))
    assert ended(mine).outcome is Outcome.ABORT


def test_whoever_waits_for_a_stall_is_told_once(bench: Bench) -> None:
    bench.stream(cd=S)
    stall = stalled(bench)
    told: list[str] = []
    stall.resolved = lambda: told.append("resolved")
    (stag,) = stags(bench)
    bench.invalidate(terminate(stag))
    bench.invalidate(terminate(stag), c.CMD_STALL_TERM.of())
    assert told == ["resolved"]


@pytest.mark.parametrize("command", [c.CMD_RESUME.of(Ac=1), c.CMD_STALL_TERM.of()])
@pytest.mark.parametrize(("model", "illegal"), [("terminate", True), ("both", False), ("stall", False)])
def test_commands_about_stalls_are_illegal_where_nothing_stalls(command: c.Command, model: str, illegal: bool) -> None:
    bench = Bench({"stall_model": model})
    bench.submit(command)
    assert bool(bench.active_errors & GERROR.CMDQ_ERR.mask) == illegal


@pytest.mark.parametrize("command", [c.CMD_RESUME.of(SSec=1, Ac=1), c.CMD_STALL_TERM.of(SSec=1)])
def test_commands_about_secure_streams_are_illegal_on_this_queue(bench: Bench, command: c.Command) -> None:
    bench.submit(command)
    assert bench.active_errors & GERROR.CMDQ_ERR.mask


def test_a_long_transaction_keeps_what_was_translated_before_it_stalled(bench: Bench) -> None:
    table = bench.stream(cd=S)
    table.map(IOVA, PA)
    answer = bench.translate(IOVA + 0x800, 0x2000)
    assert answer.outcome is Outcome.STALLED
    assert answer.pieces == [Piece(PA + 0x800, 0x800)]
    (event,) = bench.events()
    assert isinstance(event, F_TRANSLATION)
    assert event.InputAddr == IOVA + 0x1000
    table.map(IOVA + 0x1000, PA + 0x4000)
    bench.invalidate(retry(event.STAG))
    stall = answer.stall
    assert stall is not None
    assert stall.answer is None
    (event,) = bench.events()
    assert isinstance(event, F_TRANSLATION)
    assert event.InputAddr == IOVA + 0x2000
    table.map(IOVA + 0x2000, PA + 0x8000)
    bench.invalidate(retry(event.STAG))
    assert ended(stall).pieces == [Piece(PA + 0x4000, 0x1000), Piece(PA + 0x8000, 0x800)]


def test_a_record_tells_the_substream_and_the_kind_of_access() -> None:
    bench = Bench({**BOTH, "substream_id_bits": 4})
    bench.stream(cd=S, S1CDMax=4, S1DSS=2)
    at = bench.ram.alloc(64 << 4)
    bench.cd(at + 64 * 3, PageTable(bench.ram), None, S=1)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=at, S1CDMax=4, S1DSS=2)
    stalled(bench, ssid=3, instruction=True)
    (event,) = bench.events()
    assert isinstance(event, F_TRANSLATION)
    assert (event.SSV, event.SSID, event.STALL) == (1, 3, 1)
    assert (event.RnW, event.InD, event.PnU) == (1, 1, 0)


# -- CMD_STALL_TERM and SMMUEN (§4.7.2, §6.3.9.6) ------------------------------------------------------------


def test_stall_term_aborts_all_stalls_of_its_stream_and_no_others(bench: Bench) -> None:
    bench.stream(0, cd=S)
    bench.stream(1, cd=S)
    mine = [stalled(bench, sid=0) for _ in range(2)]
    other = stalled(bench, sid=1)
    found = stags(bench)
    bench.invalidate(c.CMD_STALL_TERM.of(SID=0))
    assert [ended(stall).outcome for stall in mine] == [Outcome.ABORT] * 2
    assert other.answer is None
    bench.invalidate(terminate(found[2], sid=1))
    assert ended(other).outcome is Outcome.ABORT


def test_stall_term_without_a_stall_and_before_one_has_no_effect(bench: Bench) -> None:
    bench.stream(cd=S)
    bench.invalidate(c.CMD_STALL_TERM.of())
    assert stalled(bench).answer is None


def test_disabling_translation_aborts_every_stall_and_frees_its_stag(bench: Bench) -> None:
    for sid in (0, 1):
        bench.stream(sid, cd=S)
    stalls = [stalled(bench, sid=sid) for sid in (0, 1)]
    found = stags(bench)
    bench.set(CR0, SMMUEN=0)
    assert [ended(stall).outcome for stall in stalls] == [Outcome.ABORT] * 2
    assert bench.events() == []
    bench.set(CR0, SMMUEN=1)
    again = stalled(bench)
    bench.invalidate(terminate(found[0]), terminate(found[1], sid=1))
    (stag,) = stags(bench)
    bench.invalidate(terminate(stag))
    assert ended(again).outcome is Outcome.ABORT


def test_writing_cr0_without_clearing_smmuen_terminates_nothing(bench: Bench) -> None:
    bench.stream(cd=S)
    stall = stalled(bench)
    bench.set(CR0, PRIQEN=1, CMDQEN=0)
    assert stall.answer is None


def test_the_shutdown_of_a_stream_leaves_no_stall_record_behind() -> None:
    """The sequence of §4.7.2.1, with a record that the full queue had no room for."""
    bench = Bench(BOTH, event_bits=0)
    bench.stream(cd=S)
    first, second = stalled(bench), stalled(bench, IOVA + 0x1000)
    bench.ste(0, Config=STE_CONFIG.ABORT)
    bench.invalidate(c.CMD_CFGI_STE.of())
    bench.invalidate(c.CMD_STALL_TERM.of())
    assert [ended(stall).outcome for stall in (first, second)] == [Outcome.ABORT] * 2
    assert len(bench.events()) == 1
    assert bench.events() == []


# -- a queue without room (§7.2.1, §7.4) ---------------------------------------------------------------------


def full(bench: Bench) -> None:
    """Fill the event queue of eight records."""
    bench.ste(5, V=0)
    for _ in range(8):
        bench.translate(IOVA, sid=5)
    assert bench[EVENTQ_PROD].WR ^ bench[EVENTQ_CONS].RD == 8


def test_a_full_queue_loses_no_stall_and_does_not_overflow_by_one(bench: Bench) -> None:
    bench.stream(cd=S)
    full(bench)
    stall = stalled(bench)
    assert stall.waits == "software cannot be told yet: no room for the event"
    assert bench[EVENTQ_PROD].OVFLG == 0
    assert len(bench.events()) == 8  # which makes room
    (event,) = bench.events()
    assert isinstance(event, F_TRANSLATION)
    assert stall.waits == f"STAG {event.STAG} has no CMD_RESUME"
    bench.invalidate(terminate(event.STAG))
    assert ended(stall).outcome is Outcome.ABORT


def test_other_records_are_dropped_by_the_full_queue_and_make_it_overflow(bench: Bench) -> None:
    bench.stream(cd=S)
    full(bench)
    stalled(bench)
    bench.translate(IOVA, sid=5)
    assert bench[EVENTQ_PROD].OVFLG == 1
    assert len(bench.events()) == 8
    assert [type(event) for event in bench.events()] == [F_TRANSLATION]


def test_what_succeeds_when_there_is_room_again_records_nothing(bench: Bench) -> None:
    table = bench.stream(cd=S)
    full(bench)
    stall = stalled(bench)
    table.map(IOVA, PA)
    bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())
    assert len(bench.events()) == 8
    assert ended(stall).pieces == [Piece(PA, 1)]
    assert bench.events() == []


def test_what_faults_otherwise_when_there_is_room_again_records_that(bench: Bench) -> None:
    table = bench.stream(cd=S)
    full(bench)
    stalled(bench)
    table.map(IOVA, PA, AF=0)
    assert len(bench.events()) == 8
    assert [type(event) for event in bench.events()] == [F_ACCESS]


def test_stalls_come_into_the_queue_as_room_comes(bench: Bench) -> None:
    bench.stream(cd=S)
    full(bench)
    stalls = [stalled(bench, IOVA + n * 0x1000) for n in range(3)]
    bench[EVENTQ_CONS] = bench[EVENTQ_CONS].replace(RD=1)
    assert bench[EVENTQ_PROD].WR == 9
    assert [stall.stag is not None for stall in stalls] == [True, False, False]
    bench[EVENTQ_CONS] = bench[EVENTQ_CONS].replace(RD=8)
    assert bench[EVENTQ_PROD].WR == 11
    records = [event for event in bench.events() if isinstance(event, F_TRANSLATION)]
    assert [event.InputAddr for event in records] == [IOVA, IOVA + 0x1000, IOVA + 0x2000]


def test_a_disabled_queue_keeps_stalls_until_it_is_enabled(bench: Bench) -> None:
    bench.stream(cd=S)
    bench.set(CR0, EVENTQEN=0)
    stall = stalled(bench)
    bench.translate(IOVA, sid=5)
    assert (bench[EVENTQ_PROD].WR, stall.stag) == (0, None)
    bench.set(CR0, EVENTQEN=1)
    assert stags(bench) == [stall.stag]


def test_a_queue_that_aborted_keeps_stalls_until_that_is_acknowledged(bench: Bench) -> None:
    bench.stream(cd=S)
    bench.ste(5, V=0)
    bench.set(CR0, EVENTQEN=0)
    bench.set(EVENTQ_BASE, ADDR=NOWHERE)
    bench.set(CR0, EVENTQEN=1)
    bench.translate(IOVA, sid=5)
    assert bench.active_errors == GERROR.EVENTQ_ABT_ERR.mask
    stall = stalled(bench)
    assert stall.stag is None
    bench.set(CR0, EVENTQEN=0)
    bench.set(EVENTQ_BASE, ADDR=bench.eventq)
    bench.set(CR0, EVENTQEN=1)
    assert stall.stag is None
    bench.acknowledge()
    assert stags(bench) == [stall.stag]


def test_a_stall_whose_record_aborted_is_still_terminated_by_stream(bench: Bench) -> None:
    bench.stream(cd=S)
    bench.set(CR0, EVENTQEN=0)
    bench.set(EVENTQ_BASE, ADDR=NOWHERE)
    bench.set(CR0, EVENTQEN=1)
    stall = stalled(bench)
    assert bench.active_errors == GERROR.EVENTQ_ABT_ERR.mask
    bench.invalidate(c.CMD_STALL_TERM.of())
    assert ended(stall).outcome is Outcome.ABORT


def test_a_resume_of_every_stag_leaves_a_stall_alone_that_nobody_was_told_of(bench: Bench) -> None:
    bench.stream(cd=S)
    full(bench)
    stall = stalled(bench)
    bench.submit(*(terminate(stag) for stag in range(64)))
    assert stall.answer is None


# -- STALL_MAX (§6.3.6) --------------------------------------------------------------------------------------


def test_no_more_stalls_are_recorded_than_stall_max_and_answers_make_room() -> None:
    bench = Bench({**BOTH, "stall_max": 2})
    bench.stream(0, cd=S)
    bench.stream(1, cd=S)
    stalls = [stalled(bench, sid=sid) for sid in (0, 0, 1, 1, 1)]
    first = stags(bench)
    assert len(first) == 2
    bench.invalidate(terminate(first[1]))
    (third,) = stags(bench)
    bench.invalidate(c.CMD_STALL_TERM.of(SID=0))
    (fourth,) = stags(bench)
    assert len({first[0], third, fourth}) == 3
    bench.invalidate(retry(third, sid=1))  # faults again, and comes after the one that waits
    assert len(stags(bench)) == 1
    assert [stall.answer is not None for stall in stalls] == [True, True, False, False, False]


def test_stalls_that_wait_for_their_turn_are_aborted_with_the_others() -> None:
    bench = Bench({**BOTH, "stall_max": 1})
    bench.stream(cd=S)
    stalls = [stalled(bench) for _ in range(3)]
    bench.set(CR0, SMMUEN=0)
    assert [ended(stall).outcome for stall in stalls] == [Outcome.ABORT] * 3
    assert len(bench.events()) == 1


def test_a_reset_aborts_every_stall(bench: Bench) -> None:
    bench.stream(cd=S)
    stall = stalled(bench)
    bench.smmu.reset()
    assert ended(stall).outcome is Outcome.ABORT


def test_the_stalls_of_one_smmu_are_no_others() -> None:
    first, second = Bench(BOTH), Bench(BOTH)
    for bench in (first, second):
        bench.stream(cd=S)
    stalls = [stalled(bench) for bench in (first, second)]
    (stag,) = stags(first)
    first.invalidate(terminate(stag), c.CMD_STALL_TERM.of())
    assert [stall.answer is not None for stall in stalls] == [True, False]
    assert all(isinstance(event, Event) for event in second.events())
