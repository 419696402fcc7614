# SPDX-License-Identifier: Apache-2.0
"""Events, the queue that they go to, global errors, and the interrupts of both (IHI 0070 chapter 7, §3.18)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.smmu_builder import Bench, PageTable, Ram
from vhost_iommu.memory import Ended, Window
from vhost_iommu.smmu.transaction import Answer, Outcome, PageHint, Transaction
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3 import events
from vhost_iommu.smmu.v3.registers import (
    CR0,
    CR2,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1,
    EVENTQ_PROD,
    GERROR,
    GERROR_IRQ_CFG0,
    GERROR_IRQ_CFG1,
    IRQ_CTRL,
    IRQ_CTRLACK,
)
from vhost_iommu.smmu.v3.structures import S1DSS, STE_CONFIG, S1Fmt

PA = 0x8000_0000
NOWHERE = 0x2000_0000  # no RAM
EVENTQ_DOORBELL, GERROR_DOORBELL = 0x0802_0040, 0x0802_0044

UUT = 0x01
BAD_STREAM, STE_FETCH, BAD_STE, STREAM_DISABLED = 0x02, 0x03, 0x04, 0x06
BAD_SUBSTREAM, CD_FETCH, BAD_CD, WALK_EABT = 0x08, 0x09, 0x0A, 0x0B
TRANSLATION, ADDR_SIZE, ACCESS, PERMISSION = 0x10, 0x11, 0x12, 0x13

SSV = 1 << 11
PnU, InD, RnW = 1 << 33, 1 << 34, 1 << 35
TT, IN = 1 << 40, 2 << 40


@pytest.fixture
def bench() -> Bench:
    return Bench({"substream_id_bits": 8})


def sid(number: int) -> int:
    return number << 32


def ssid(number: int) -> int:
    return number << 12


def provoke(bench: Bench, iova: int = 0x1000, size: int = 4, sid: int = 5, **transaction: Any) -> Answer:
    return bench.translate(iova, size, sid, **transaction)


# -- each event once, word by word (§7.3) --------------------------------------------------------------------
#
# A case sets the bench up and provokes; what it returns are the record's four words.

Case = Callable[[Bench], tuple[Answer, tuple[int, int, int, int]]]
CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


@case
def c_bad_streamid(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    return provoke(bench, sid=64), (BAD_STREAM | sid(64), 0, 0, 0)


@case
def c_bad_streamid_with_a_substream(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    return provoke(bench, sid=0xFFFF, ssid=3), (BAD_STREAM | SSV | ssid(3) | sid(0xFFFF), 0, 0, 0)


@case
def f_uut(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    answer = bench.smmu.unsupported(Transaction(5, 0x1234_5678_9ABC_DEF1, 4, ssid=7, privileged=True, instruction=True))
    return answer, (UUT | SSV | ssid(7) | sid(5), PnU | InD | RnW, 0x1234_5678_9ABC_DEF1, 0)


@case
def f_ste_fetch(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.ram.memory.remove(bench.ram.base, len(bench.ram.bytes))
    answer = provoke(bench)
    bench.ram.memory.add(Window(bench.ram.base, len(bench.ram.bytes), bench.ram.bytes))
    return answer, (STE_FETCH | sid(5), 0, 0, bench.strtab + 5 * 64)


@case
def c_bad_ste(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    return provoke(bench), (BAD_STE | sid(5), 0, 0, 0)


@case
def f_stream_disabled_without_a_substream(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5, S1CDMax=1, S1DSS=S1DSS.TERMINATE)
    return provoke(bench), (STREAM_DISABLED | sid(5), 0, 0, 0)


@case
def f_stream_disabled_with_substream_0(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5, S1CDMax=1, S1DSS=S1DSS.SSID0)
    return provoke(bench, ssid=0), (STREAM_DISABLED | sid(5), 0, 0, 0)


@case
def c_bad_substreamid_where_there_are_none(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5)
    return provoke(bench, ssid=7), (BAD_SUBSTREAM | ssid(7) | sid(5), 0, 0, 0)


@case
def c_bad_substreamid_of_a_bypassing_stream(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.ste(5, Config=STE_CONFIG.BYPASS, S1CDMax=3)
    return provoke(bench, ssid=1), (BAD_SUBSTREAM | ssid(1) | sid(5), 0, 0, 0)


@case
def c_bad_substreamid_beyond_the_table(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5, S1CDMax=3)
    return provoke(bench, ssid=8), (BAD_SUBSTREAM | ssid(8) | sid(5), 0, 0, 0)


@case
def c_bad_substreamid_of_an_invalid_l1cd(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    pointer = bench.ram.alloc(64)
    bench.ste(5, Config=STE_CONFIG.S1, S1ContextPtr=pointer, S1CDMax=7, S1Fmt=S1Fmt.TWO_LEVEL_4K)
    return provoke(bench, ssid=65), (BAD_SUBSTREAM | ssid(65) | sid(5), 0, 0, 0)


@case
def f_cd_fetch(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.ste(5, Config=STE_CONFIG.S1, S1ContextPtr=NOWHERE, S1CDMax=2)
    return provoke(bench, ssid=3), (CD_FETCH | SSV | ssid(3) | sid(5), 0, 0, NOWHERE + 3 * 64)


@case
def f_cd_fetch_of_an_l1cd(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.ste(5, Config=STE_CONFIG.S1, S1ContextPtr=NOWHERE, S1CDMax=8, S1Fmt=S1Fmt.TWO_LEVEL_4K)
    return provoke(bench, ssid=70), (CD_FETCH | SSV | ssid(70) | sid(5), 0, 0, NOWHERE + 8)


@case
def c_bad_cd(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5, cd={"V": 0})
    return provoke(bench), (BAD_CD | sid(5), 0, 0, 0)


@case
def c_bad_cd_of_a_substream(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5, S1CDMax=1)
    return provoke(bench, ssid=1), (BAD_CD | SSV | ssid(1) | sid(5), 0, 0, 0)


@case
def f_walk_eabt(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    table = bench.stream(5)
    table.map(0x1000, PA)
    table.change(0, 1, NextTable=NOWHERE)
    return provoke(bench, 0x1004), (WALK_EABT | sid(5), RnW | TT, 0x1004, NOWHERE)


@case
def f_translation_of_a_read(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5)
    return provoke(bench, 0x1234), (TRANSLATION | sid(5), RnW | IN, 0x1234, 0)


@case
def f_translation_of_a_privileged_write_of_a_substream(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    at = bench.cd(bench.ram.alloc(128), V=0)
    bench.cd(at + 64, PageTable(bench.ram))
    bench.ste(5, Config=STE_CONFIG.S1, S1ContextPtr=at, S1CDMax=1)
    answer = provoke(bench, 0x1234, ssid=1, write=True, privileged=True)
    return answer, (TRANSLATION | SSV | ssid(1) | sid(5), PnU | IN, 0x1234, 0)


@case
def f_translation_beyond_the_range(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5)
    return provoke(bench, 1 << 48), (TRANSLATION | sid(5), RnW | IN, 1 << 48, 0)


@case
def f_translation_of_the_half_without_a_table(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5)
    return provoke(bench, 0xFFFF_FFFF_FFFF_0000), (TRANSLATION | sid(5), RnW | IN, 0xFFFF_FFFF_FFFF_0000, 0)


@case
def f_addr_size(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5, cd={"IPS": 0}).map(0x1000, 1 << 32)
    return provoke(bench), (ADDR_SIZE | sid(5), RnW | IN, 0x1000, 0)


@case
def f_addr_size_of_a_bypassing_stream(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.ste(5, Config=STE_CONFIG.BYPASS)
    return provoke(bench, 1 << 48, write=True), (ADDR_SIZE | sid(5), IN, 1 << 48, 0)


@case
def f_access(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5).map(0x1000, PA, AF=0)
    return provoke(bench), (ACCESS | sid(5), RnW | IN, 0x1000, 0)


@case
def f_permission_of_a_write(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5).map(0x1000, PA, AP=3)
    return provoke(bench, write=True), (PERMISSION | sid(5), IN, 0x1000, 0)


@case
def f_permission_of_an_instruction_fetch(bench: Bench) -> tuple[Answer, tuple[int, int, int, int]]:
    bench.stream(5).map(0x1000, PA, UXN=1)
    return provoke(bench, instruction=True), (PERMISSION | sid(5), RnW | InD | IN, 0x1000, 0)


@pytest.mark.parametrize("case", CASES, ids=lambda function: function.__name__)
def test_an_event_is_recorded_word_by_word(bench: Bench, case: Case) -> None:
    answer, words = case(bench)
    assert answer.outcome is Outcome.ABORT
    assert [tuple(hex(word) for word in event.words()) for event in answer.events] == [tuple(map(hex, words))]
    if words[0] & 0xFF != STE_FETCH:  # which has taken the queue's memory along
        assert bench.events() == answer.events


def test_every_event_that_the_model_raises_has_a_case() -> None:
    bench = Bench({"substream_id_bits": 8})
    provoked = set()
    for one in CASES:
        bench = Bench({"substream_id_bits": 8})
        provoked |= {event.raw & 0xFF for event in one(bench)[0].events}
    assert provoked == {1, 2, 3, 4, 6, 8, 9, 10, 11, 16, 17, 18, 19}


# -- what is not recorded, or ends otherwise -----------------------------------------------------------------


def test_a_bad_streamid_is_recorded_only_if_asked_for(bench: Bench) -> None:
    bench.set(CR0, SMMUEN=0)
    bench[CR2] = 0
    bench.set(CR0, SMMUEN=1)
    answer = provoke(bench, sid=64)
    assert (answer.outcome, answer.events, bench.events()) == (Outcome.ABORT, [], [])


@pytest.mark.parametrize("config", [0, 1, 2, 3])
def test_a_stream_configured_to_abort_does_so_without_an_event(bench: Bench, config: int) -> None:
    bench.ste(5, Config=config, S1CDMax=31, S1STALLD=1)
    answer = provoke(bench)
    assert (answer.outcome, answer.events) == (Outcome.ABORT, [])


@pytest.mark.parametrize(("a", "outcome"), [(1, Outcome.ABORT), (0, Outcome.RAZ_WI)])
@pytest.mark.parametrize("r", [0, 1])
def test_a_translation_fault_ends_as_cd_a_says_and_is_recorded_as_cd_r_says(
    bench: Bench, a: int, outcome: Outcome, r: int
) -> None:
    bench.stream(5, cd={"A": a, "R": r})
    answer = provoke(bench)
    assert (answer.outcome, len(answer.events), len(bench.events())) == (outcome, r, r)


def test_an_aborted_walk_always_aborts_and_is_always_recorded(bench: Bench) -> None:
    table = bench.stream(5, cd={"A": 0, "R": 0})
    table.map(0x1000, PA)
    table.change(0, 0, NextTable=NOWHERE)
    answer = provoke(bench)
    assert (answer.outcome, len(bench.events())) == (Outcome.ABORT, 1)


def test_a_transaction_makes_at_most_one_event_and_tells_what_came_before(bench: Bench) -> None:
    bench.stream(5).map(0x1000, PA)
    answer = provoke(bench, 0x1800, 0x4000)
    assert [(piece.pa, piece.size) for piece in answer.pieces] == [(PA + 0x800, 0x800)]
    assert [event.values()["InputAddr"] for event in answer.events] == [0x2000]


def test_a_write_is_never_an_instruction(bench: Bench) -> None:
    bench.stream(5).map(0x1000, PA, AP=3)
    (event,) = provoke(bench, write=True, instruction=True).events
    assert (event.values()["InD"], event.values()["RnW"]) == (0, 0)


@pytest.mark.parametrize(
    ("privcfg", "privileged", "pnu"), [(0, True, 1), (0, False, 0), (1, True, 1), (2, True, 0), (3, False, 1)]
)
def test_an_event_tells_the_privilege_after_the_stes_override(
    bench: Bench, privcfg: int, privileged: bool, pnu: int
) -> None:
    bench.stream(5, PRIVCFG=privcfg)
    (event,) = provoke(bench, privileged=privileged).events
    assert event.values()["PnU"] == pnu


@pytest.mark.parametrize(
    ("instcfg", "instruction", "ind"), [(0, True, 1), (0, False, 0), (1, True, 1), (2, True, 0), (3, False, 1)]
)
def test_an_event_tells_of_instructions_after_the_stes_override(
    bench: Bench, instcfg: int, instruction: bool, ind: int
) -> None:
    bench.stream(5, INSTCFG=instcfg)
    (event,) = provoke(bench, instruction=instruction).events
    assert event.values()["InD"] == ind


def test_without_the_feature_an_ste_overrides_nothing() -> None:
    bench = Bench({"permission_overrides": False})
    bench.stream(5, PRIVCFG=3, INSTCFG=3)
    (event,) = provoke(bench).events
    assert (event.values()["PnU"], event.values()["InD"]) == (0, 0)


# -- what no translation is the cause of (§7.3.2, §7.3.19) ---------------------------------------------------


def refused(bench: Bench, sid: int = 5, **transaction: Any) -> list[events.Event]:
    """The records of an unsupported transaction, which is aborted in any case."""
    answer = bench.smmu.unsupported(Transaction(sid, 0x1000, 4, **transaction))
    assert (answer.outcome, answer.pieces) == (Outcome.ABORT, [])
    taken = bench.events()
    assert taken == answer.events
    return taken


def test_an_unsupported_transaction_is_refused_before_its_stream_is_looked_up(bench: Bench) -> None:
    expected = {"RnW": 0, "InputAddr": 0x1000}
    bench.stream(5, PRIVCFG=3, INSTCFG=3, cd={"A": 0, "R": 0})
    assert refused(bench, write=True) == [events.F_UUT.of(SID=5, **expected)], "as it came in"
    bench.ste(6, Config=STE_CONFIG.ABORT)
    for sid in (6, 0xFFFF):
        assert refused(bench, sid, write=True) == [events.F_UUT.of(SID=sid, **expected)]


def test_an_unsupported_transaction_is_recorded_while_translation_is_off(bench: Bench) -> None:
    bench.set(CR0, SMMUEN=0)
    assert refused(bench) == [events.F_UUT.of(SID=5, RnW=1, InputAddr=0x1000)]


def test_an_unsupported_translated_transaction_is_not_recorded(bench: Bench) -> None:
    assert refused(bench, translated=True) == []


@pytest.mark.parametrize(
    ("hint", "bits"),
    [
        ({"read": True}, 1 << 35),
        ({"write": True}, 1 << 34),
        ({"execute": True}, 1 << 33),
        ({"read": True, "privileged": True}, 1 << 39),
        ({"write": True, "privileged": True}, 1 << 38),
        ({"execute": True, "read": True, "privileged": True}, 1 << 37 | 1 << 39),
        ({"npages": 255}, 0),
    ],
)
def test_a_page_hint_is_recorded_word_by_word(bench: Bench, hint: dict[str, Any], bits: int) -> None:
    bench.smmu.page_hint(PageHint(5, 0xFFFF_8000_0000_1FFF, ssid=7, **hint))
    bench.smmu.page_hint(PageHint(6, 0x2000, **hint))
    npages = hint.get("npages", 1)
    record = struct.unpack("<4Q", bench.ram.get(bench.eventq, 32))
    assert record == (0x24 | SSV | ssid(7) | sid(5), bits | npages << 44, 0xFFFF_8000_0000_1000, 0)
    record = struct.unpack("<4Q", bench.ram.get(bench.eventq + 32, 32))
    assert record == (0x24 | sid(6), bits | npages << 44, 0x2000, 0)


def test_a_page_hint_is_dropped_while_translation_is_off(bench: Bench) -> None:
    bench.set(CR0, SMMUEN=0)
    bench.smmu.page_hint(PageHint(5, 0x2000, read=True))
    assert bench.events() == []


def test_page_hints_interrupt_and_overflow_as_other_records_do() -> None:
    bench = Bench(event_bits=1)
    bench.interrupts_on()
    for _ in range(3):
        bench.smmu.page_hint(PageHint(5, 0x2000, read=True))
    assert bench.wires == ["eventq"]
    assert bench[EVENTQ_PROD].OVFLG == 1


# -- the queue (§7.2, §7.4) ----------------------------------------------------------------------------------


def faults(bench: Bench, count: int) -> None:
    for number in range(count):
        provoke(bench, 0x1000 * number)


def test_records_are_written_in_order_and_the_index_wraps() -> None:
    bench = Bench(event_bits=2)
    bench.stream(5)
    for first in (0, 3, 6):
        for number in range(first, first + 3):
            provoke(bench, 0x1000 * number)
        assert [event.values()["InputAddr"] >> 12 for event in bench.events()] == [first, first + 1, first + 2]
    assert bench[EVENTQ_PROD].WR == 9 & 7


def test_a_full_queue_drops_records_and_toggles_the_overflow_flag_once() -> None:
    bench = Bench(event_bits=2)
    bench.stream(5)
    faults(bench, 4)
    assert bench[EVENTQ_PROD] == EVENTQ_PROD.of(WR=4)
    faults(bench, 3)
    assert bench[EVENTQ_PROD] == EVENTQ_PROD.of(WR=4, OVFLG=1)
    assert bench.smmu.counters.events_lost == 3


def test_an_overflow_that_is_not_acknowledged_still_lets_records_in_when_there_is_room() -> None:
    bench = Bench(event_bits=2)
    bench.stream(5)
    faults(bench, 5)
    assert len(bench.events()) == 4
    faults(bench, 1)
    assert bench[EVENTQ_PROD] == EVENTQ_PROD.of(WR=5, OVFLG=1)
    # And a second overflow shows only after the first was acknowledged.
    faults(bench, 4)
    assert bench[EVENTQ_PROD].OVFLG == 1
    bench.set(EVENTQ_CONS, OVACKFLG=1)
    faults(bench, 1)
    assert bench[EVENTQ_PROD].OVFLG == 0


def test_a_disabled_queue_takes_no_record_and_does_not_overflow(bench: Bench) -> None:
    bench.stream(5)
    bench.set(CR0, EVENTQEN=0)
    faults(bench, 40)
    assert bench[EVENTQ_PROD].raw == 0
    assert bench.ram.get(bench.eventq, 32) == bytes(32)
    assert bench.smmu.counters.faults == 40


def test_a_queue_in_no_memory_is_a_global_error_and_the_index_stays() -> None:
    bench = Bench(start=False)
    bench.start(EVENTQEN=0)
    bench[EVENTQ_BASE] = EVENTQ_BASE.of(ADDR=NOWHERE, LOG2SIZE=2)
    bench.set(CR0, EVENTQEN=1)
    bench.interrupts_on()
    bench.stream(5)
    faults(bench, 1)
    assert bench[EVENTQ_PROD].raw == 0
    assert bench.active_errors == GERROR.EVENTQ_ABT_ERR.mask
    assert bench.wires == ["gerror"]


def test_while_the_queues_abort_is_active_nothing_is_written() -> None:
    bench = Bench(start=False)
    bench.start(EVENTQEN=0)
    bench[EVENTQ_BASE] = EVENTQ_BASE.of(ADDR=NOWHERE, LOG2SIZE=4)
    bench.set(CR0, EVENTQEN=1)
    bench.stream(5)
    faults(bench, 1)
    bench.set(CR0, EVENTQEN=0)
    bench[EVENTQ_BASE] = EVENTQ_BASE.of(ADDR=bench.eventq, LOG2SIZE=4)
    bench.set(CR0, EVENTQEN=1)
    faults(bench, 1)
    assert bench[EVENTQ_PROD].raw == 0
    bench.acknowledge()
    faults(bench, 1)
    assert bench[EVENTQ_PROD].WR == 1


@pytest.mark.parametrize(("prod", "cons"), [(0xF_FFFF, 0), (0, 0xF_FFFF), (7, 9), (0x1F, 0x0F)])
def test_indices_that_make_no_sense_keep_records_inside_of_the_queue(prod: int, cons: int) -> None:
    bench = Bench(start=False)
    bench.start(EVENTQEN=0)
    bench[EVENTQ_PROD], bench[EVENTQ_CONS] = prod, cons
    bench.set(CR0, EVENTQEN=1)
    bench.stream(5)
    end = bench.eventq + (32 << bench.event_bits)
    before = bench.ram.get(end, 32)
    faults(bench, 70)
    prod = bench[EVENTQ_PROD].WR
    assert prod < 2 << bench.event_bits
    assert bench.ram.get(end, 32) == before


# -- interrupts (§3.18) --------------------------------------------------------------------------------------


def with_msis(bench: Bench) -> Bench:
    bench[EVENTQ_IRQ_CFG0] = EVENTQ_IRQ_CFG0.of(ADDR=EVENTQ_DOORBELL)
    bench[EVENTQ_IRQ_CFG1] = 0x11
    bench[GERROR_IRQ_CFG0] = GERROR_IRQ_CFG0.of(ADDR=GERROR_DOORBELL)
    bench[GERROR_IRQ_CFG1] = 0x22
    bench.stream(5)
    return bench


EVENTQ_MSI = (EVENTQ_DOORBELL, b"\x11\0\0\0")
GERROR_MSI = (GERROR_DOORBELL, b"\x22\0\0\0")
BAD = c.Command(0xFF)


def test_an_event_interrupts_when_the_queue_was_empty(bench: Bench) -> None:
    with_msis(bench).interrupts_on()
    faults(bench, 3)
    assert (bench.posted, bench.wires) == ([EVENTQ_MSI], ["eventq"])
    bench.events()
    faults(bench, 1)
    assert (bench.posted, bench.wires) == ([EVENTQ_MSI] * 2, ["eventq"] * 2)
    assert bench.smmu.counters.interrupts == 2


def test_the_event_is_visible_before_its_interrupt(bench: Bench) -> None:
    with_msis(bench).interrupts_on()
    seen: list[int] = []

    def doorbell(pa: int, data: bytes, ended: Ended) -> bool:
        seen.append(bench[EVENTQ_PROD].WR)
        return True

    bench.doorbell = doorbell
    faults(bench, 1)
    assert seen == [1]


@pytest.mark.parametrize("enabled", ["GERROR_IRQEN", "EVENTQ_IRQEN"])
def test_an_interrupt_that_is_not_enabled_does_not_come(bench: Bench, enabled: str) -> None:
    with_msis(bench)[IRQ_CTRL] = IRQ_CTRL.of(**{enabled: 1})
    faults(bench, 1)
    bench.submit(BAD)
    expected = [GERROR_MSI] if enabled == "GERROR_IRQEN" else [EVENTQ_MSI]
    assert bench.posted == expected
    assert len(bench.wires) == 1


def test_an_enabled_interrupt_without_an_address_is_wired_only(bench: Bench) -> None:
    bench.stream(5)
    bench.interrupts_on()
    faults(bench, 1)
    bench.submit(BAD)
    assert (bench.posted, bench.wires) == ([], ["eventq", "gerror"])


def test_without_msi_every_interrupt_is_wired() -> None:
    bench = with_msis(Bench({"msi": False}))
    bench.interrupts_on()
    faults(bench, 1)
    bench.submit(BAD)
    assert (bench.posted, bench.wires) == ([], ["eventq", "gerror"])


def test_a_global_error_interrupts_once_until_it_is_acknowledged(bench: Bench) -> None:
    with_msis(bench).interrupts_on()
    bench.submit(BAD)
    bench.smmu.reports.raise_error(GERROR.CMDQ_ERR.mask)
    assert bench.posted == [GERROR_MSI]
    bench.acknowledge()
    assert bench.posted == [GERROR_MSI] * 2  # the command is as bad as before


def test_a_lost_event_msi_is_a_global_error_that_interrupts(bench: Bench) -> None:
    with_msis(bench).interrupts_on()

    def doorbell(pa: int, data: bytes, ended: Ended) -> bool:
        bench.posted.append((pa, data))
        return pa != EVENTQ_DOORBELL

    bench.doorbell = doorbell
    faults(bench, 1)
    assert bench.active_errors == GERROR.MSI_EVENTQ_ABT_ERR.mask
    assert bench.posted == [EVENTQ_MSI, GERROR_MSI]
    assert len(bench.events()) == 1


def test_a_lost_gerror_msi_is_a_global_error_that_interrupts_nobody(bench: Bench) -> None:
    with_msis(bench).interrupts_on()
    bench.doorbell = None
    bench.submit(BAD)
    assert bench.active_errors == GERROR.CMDQ_ERR.mask | GERROR.MSI_GERROR_ABT_ERR.mask
    assert bench.wires == ["gerror"]


def test_an_msi_may_be_found_lost_later(bench: Bench) -> None:
    with_msis(bench).interrupts_on()
    late = unanswered(bench)
    faults(bench, 1)
    assert bench.active_errors == 0
    late[0](True)
    assert bench.active_errors == GERROR.MSI_EVENTQ_ABT_ERR.mask


def unanswered(bench: Bench) -> list[Ended]:
    """Leave posted writes without an answer: what is to be told how each ended."""
    late: list[Ended] = []

    def doorbell(pa: int, data: bytes, ended: Ended) -> bool:
        late.append(ended)
        return True

    bench.doorbell = doorbell
    return late


@pytest.mark.parametrize("aborted", [False, True])
def test_an_interrupt_is_off_when_its_msis_are_answered(bench: Bench, aborted: bool) -> None:
    with_msis(bench).interrupts_on()
    late = unanswered(bench)
    faults(bench, 1)
    bench.events()
    faults(bench, 1)
    bench[IRQ_CTRL] = 0
    eventq = IRQ_CTRLACK.of(EVENTQ_IRQEN=1)
    assert bench[IRQ_CTRLACK] == eventq, "GERROR's, of which none is under way, is off at once"
    bench[EVENTQ_IRQ_CFG1] = 0x33
    assert bench[EVENTQ_IRQ_CFG1].DATA == 0x11, "still guarded"
    late[1](False)
    assert bench[IRQ_CTRLACK] == eventq
    late[0](aborted)
    assert bench[IRQ_CTRLACK] == IRQ_CTRLACK(0)
    assert bench.active_errors == aborted * GERROR.MSI_EVENTQ_ABT_ERR.mask
    assert len(late) == 2, "the abort is told of in GERROR, whose interrupt is off"


def test_an_interrupt_that_is_enabled_again_in_time_was_never_off(bench: Bench) -> None:
    with_msis(bench).interrupts_on()
    late = unanswered(bench)
    faults(bench, 1)
    on = bench[IRQ_CTRL]
    bench[IRQ_CTRL] = 0
    bench[IRQ_CTRL] = on
    late[0](False)
    assert bench[IRQ_CTRLACK] == IRQ_CTRLACK(on.raw)


def test_a_late_acknowledgement_waits_for_answers_too() -> None:
    bench = with_msis(Bench(acknowledge_after=2, start=False))
    bench.start()
    bench.interrupts_on()
    for _ in range(3):
        assert bench[CR0]
    late = unanswered(bench)
    faults(bench, 1)
    bench[IRQ_CTRL] = 0
    for _ in range(5):
        acknowledged = bench[IRQ_CTRLACK]
    assert acknowledged == IRQ_CTRLACK.of(EVENTQ_IRQEN=1)
    bench[IRQ_CTRL] = IRQ_CTRL.of(GERROR_IRQEN=1)
    assert [bench[IRQ_CTRLACK].GERROR_IRQEN for _ in range(3)] == [0, 0, 1], "a field that waits holds up no other"
    late[0](True)
    assert bench[IRQ_CTRLACK].EVENTQ_IRQEN == 0


def test_the_events_of_one_smmu_are_no_others() -> None:
    ram = Ram()
    first, second = Bench(ram=ram), Bench(ram=ram)
    first.interrupts_on()
    second.interrupts_on()
    first.stream(5)
    faults(first, 1)
    assert (len(first.events()), len(second.events())) == (1, 0)
    assert (first.wires, second.wires) == (["eventq"], [])


def test_what_is_read_from_the_queue_decodes_to_the_event_that_was_raised(bench: Bench) -> None:
    bench.stream(5)
    faults(bench, 1)
    (event,) = bench.events()
    assert isinstance(event, events.F_TRANSLATION)
    assert event.problems() == []


def test_the_first_events_of_each_type_are_kept_also_those_that_were_lost() -> None:
    bench = Bench(event_bits=1)
    for iova in range(0x1000, 0x6000, 0x1000):
        provoke(bench, iova)
    provoke(bench, sid=64)
    counters = bench.smmu.counters
    assert (counters.events, counters.events_lost) == (2, 4)
    assert counters.events_by_kind == {"C_BAD_STE": 5, "C_BAD_STREAMID": 1}
    assert [type(event).__name__ for event in counters.first_events] == ["C_BAD_STE"] * 3 + ["C_BAD_STREAMID"]
