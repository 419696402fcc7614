# SPDX-License-Identifier: Apache-2.0
"""The PRI queue: entries, overflow, automatic responses, interrupts, CMD_PRI_RESP (IHI 0070 chapter 8, §4.5.2)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.smmu_builder import Bench
from vhost_iommu.layout import Layout
from vhost_iommu.smmu.ats import AtsInvalidation, PageRequest, PageResponse, PrgResponse
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import C_BAD_STE, C_BAD_STREAMID, F_STE_FETCH, PRIEntry
from vhost_iommu.smmu.v3.registers import (
    CR0,
    CR0ACK,
    CR2,
    GERROR,
    IRQ_CTRL,
    PRIQ_BASE,
    PRIQ_CONS,
    PRIQ_IRQ_CFG0,
    PRIQ_IRQ_CFG1,
    PRIQ_IRQ_CFG2,
    PRIQ_PROD,
    STRTAB_BASE,
)
from vhost_iommu.smmu.v3.structures import EATS, STE_CONFIG

PRI: dict[str, Any] = {"ats": "full", "pri": True, "ats_errors": True, "substream_id_bits": 8}
SID, PAGE = 3, 0x7654_3000
NOWHERE = 0x2000_0000
DOORBELL = 0x800_0040
SUCCESS, INVALID, FAILURE = PrgResponse.SUCCESS, PrgResponse.INVALID, PrgResponse.FAILURE


class Device:
    """An endpoint that keeps the responses it is given."""

    def __init__(self) -> None:
        self.responses: list[PageResponse] = []

    def invalidate(self, invalidation: AtsInvalidation) -> None:
        invalidation.complete()

    def page_response(self, response: PageResponse) -> None:
        self.responses.append(response)


class Requests:
    """A bench whose PRI queue of 2^``bits`` entries is on, and an endpoint behind it."""

    def __init__(
        self, features: dict[str, Any] | None = None, *, bits: int = 2, pure: bool | None = None, **cr2: int
    ) -> None:
        self.bench = bench = Bench({**PRI, **(features or {})}, start=False, pure=pure)
        self.bits = bits
        self.at = bench.ram.alloc(max(16 << bits, 32))
        bench[PRIQ_BASE] = PRIQ_BASE.of(ADDR=self.at, LOG2SIZE=bits)
        bench.start(SMMUEN=0)
        bench.set(CR2, **cr2)
        bench.set(CR0, SMMUEN=1, PRIQEN=1)
        bench.ste(SID, Config=STE_CONFIG.BYPASS, EATS=EATS.FULL)
        self.device = Device()
        bench.smmu.endpoints[SID] = self.device

    def ask(self, prgi: int = 1, **request: Any) -> list[PageResponse]:
        """Make a page request; the responses that it was given at once."""
        values = {"sid": SID, "address": PAGE, "read": True, **request}
        self.bench.smmu.page_request(PageRequest(prgi=prgi, **values))
        responses, self.device.responses = self.device.responses, []
        return responses

    def entries(self) -> list[PRIEntry]:
        """Take all entries from the queue."""
        found = []
        prod, cons = self.bench[PRIQ_PROD].WR, self.bench[PRIQ_CONS]
        rd = cons.RD
        while rd != prod:
            found.append(PRIEntry.from_bytes(self.bench.ram.get(self.at + 16 * (rd & (1 << self.bits) - 1), 16)))
            rd = rd + 1 & (2 << self.bits) - 1
        self.bench[PRIQ_CONS] = cons.replace(RD=rd)
        return found

    def fill(self) -> None:
        for _ in range(1 << self.bits):
            assert self.ask() == []

    def overflow(self) -> None:
        """Fill the queue, and one more that is not the last of its group."""
        self.fill()
        assert self.ask() == []
        assert self.bench[PRIQ_PROD].OVFLG == 1

    def acknowledge(self) -> None:
        cons = self.bench[PRIQ_CONS]
        self.bench[PRIQ_CONS] = cons.replace(OVACKFLG=self.bench[PRIQ_PROD].OVFLG)


@pytest.fixture
def pri() -> Requests:
    return Requests()


# -- entries -------------------------------------------------------------------------------------------------


def test_a_request_becomes_an_entry_word_by_word(pri: Requests) -> None:
    pri.ask(0x1FF, address=PAGE + 0xABC, ssid=0x5A, read=True, write=True, execute=True, privileged=True, last=True)
    (entry,) = pri.entries()
    w0 = SID | 0x5A << 32 | 0b11_1111 << 58  # Priv, X, R, W, Last and SSV
    assert entry.raw == w0 | (0x1FF | PAGE) << 64


@pytest.mark.parametrize(
    ("request_", "bits"),
    [
        ({"read": True}, {"R": 1}),
        ({"read": False, "write": True}, {"W": 1}),
        ({"read": True, "last": True}, {"R": 1, "Last": 1}),
        ({"read": True, "ssid": 0}, {"R": 1, "SSV": 1}),
        ({"read": True, "ssid": 1, "execute": True}, {"R": 1, "SSV": 1, "SSID": 1, "X": 1}),
        # Without a PASID nothing is said of execution and privilege.
        ({"read": True, "execute": True, "privileged": True}, {"R": 1}),
    ],
)
def test_an_entry_holds_what_the_request_says(pri: Requests, request_: dict[str, Any], bits: dict[str, int]) -> None:
    pri.ask(9, **request_)
    assert pri.entries() == [PRIEntry.of(SID=SID, PRGIndex=9, Address=PAGE, **bits)]


def test_without_substreams_an_entry_has_no_pasid() -> None:
    pri = Requests({"substream_id_bits": 0})
    pri.ask(9, ssid=3, execute=True, privileged=True)
    assert pri.entries() == [PRIEntry.of(SID=SID, PRGIndex=9, Address=PAGE, R=1)]


def test_a_stop_marker_is_an_entry_like_others_and_is_not_answered(pri: Requests) -> None:
    assert pri.ask(0, ssid=4, read=False, last=True) == []
    (entry,) = pri.entries()
    assert entry.stop_marker


def test_entries_come_in_order_and_the_index_wraps(pri: Requests) -> None:
    for n in range(12):
        pri.ask(n)
        assert [entry.PRGIndex for entry in pri.entries()] == [n]
    assert pri.bench[PRIQ_PROD].WR == 12 % 8


def test_requests_are_taken_whatever_the_stream_is(pri: Requests) -> None:
    pri.bench.ste(SID, V=0)
    assert pri.ask() == []
    assert pri.ask(sid=1 << 20) == []
    assert len(pri.entries()) == 2


def test_a_request_of_an_endpoint_that_is_not_there_harms_nothing(pri: Requests) -> None:
    pri.bench.set(CR0, PRIQEN=0)
    assert pri.ask(sid=SID + 1, last=True) == []


# -- overflow (§8.1) -----------------------------------------------------------------------------------------


def test_a_full_queue_overflows_once_and_discards(pri: Requests) -> None:
    pri.fill()
    assert pri.bench[PRIQ_PROD].OVFLG == 0
    pri.ask(5)
    pri.ask(6)
    assert pri.bench[PRIQ_PROD].OVFLG == 1
    assert [entry.PRGIndex for entry in pri.entries()] == [1] * 4


def test_nothing_is_written_before_the_overflow_is_acknowledged(pri: Requests) -> None:
    pri.overflow()
    assert len(pri.entries()) == 4  # so there is room
    pri.ask(7)
    assert pri.entries() == []
    pri.acknowledge()
    pri.ask(8)
    assert [entry.PRGIndex for entry in pri.entries()] == [8]


def test_a_second_overflow_turns_the_flag_back(pri: Requests) -> None:
    pri.overflow()
    pri.entries()
    pri.acknowledge()
    pri.fill()
    pri.ask()
    assert (pri.bench[PRIQ_PROD].OVFLG, pri.bench[PRIQ_CONS].OVACKFLG) == (0, 1)


def test_in_an_overflow_only_the_last_of_a_group_is_answered(pri: Requests) -> None:
    pri.overflow()
    assert pri.ask(7) == []
    assert pri.ask(7, last=True) == [PageResponse(SID, 7, SUCCESS)]


def test_the_request_that_overflows_the_queue_is_answered_too(pri: Requests) -> None:
    pri.fill()
    assert pri.ask(7, last=True) == [PageResponse(SID, 7, SUCCESS)]
    assert pri.bench[PRIQ_PROD].OVFLG == 1


def test_a_last_request_without_permissions_or_pasid_is_no_stop_marker(pri: Requests) -> None:
    pri.overflow()
    assert pri.ask(7, last=True, read=False) == [PageResponse(SID, 7, SUCCESS)]


@pytest.mark.parametrize("ste", [{}, {"V": 0}])
def test_a_stop_marker_is_not_answered_in_an_overflow(ste: dict[str, int]) -> None:
    pri = Requests(REC_CFG_ATS=1)
    pri.bench.ste(SID, **ste)
    pri.overflow()
    assert pri.ask(7, last=True, read=False, ssid=4) == []
    assert pri.bench.events() == []


@pytest.mark.parametrize(
    ("pps", "ste", "answer"),
    [
        (True, {"PPAR": 0}, PageResponse(SID, 7, SUCCESS, 4)),
        (True, {"V": 0}, PageResponse(SID, 7, SUCCESS, 4)),
        (False, {"PPAR": 1}, PageResponse(SID, 7, SUCCESS, 4)),
        (False, {"PPAR": 0}, PageResponse(SID, 7, SUCCESS)),
        (False, {"PPAR": 1, "Config": STE_CONFIG.ABORT}, PageResponse(SID, 7, SUCCESS, 4)),
        (False, {"PPAR": 1, "V": 0}, PageResponse(SID, 7, FAILURE)),
        (False, {"PPAR": 1, "Config": STE_CONFIG.S2}, PageResponse(SID, 7, FAILURE)),
    ],
    ids=str,
)
def test_pps_and_ppar_say_whether_an_automatic_answer_has_the_pasid(
    pps: bool, ste: dict[str, int], answer: PageResponse
) -> None:
    pri = Requests({"pri_pasid": pps})
    pri.bench.ste(SID, **{"Config": STE_CONFIG.BYPASS, **ste})
    pri.overflow()
    assert pri.ask(7, last=True, ssid=4) == [answer]
    # What came without one is answered without one, and its STE does not matter.
    assert pri.ask(8, last=True) == [PageResponse(SID, 8, SUCCESS)]


def test_without_substreams_an_automatic_answer_has_no_pasid() -> None:
    pri = Requests({"substream_id_bits": 0})
    pri.bench.ste(SID, V=0)
    pri.overflow()
    assert pri.ask(7, last=True, ssid=4) == [PageResponse(SID, 7, SUCCESS)]


@pytest.mark.parametrize("record", [0, 1])
@pytest.mark.parametrize("kind", [C_BAD_STE, F_STE_FETCH])
def test_an_ste_that_cannot_be_checked_is_recorded_if_asked_for(kind: type[Layout], record: int) -> None:
    pri = Requests(REC_CFG_ATS=record)
    bench = pri.bench
    bench.ste(SID, V=0)
    if kind is F_STE_FETCH:
        bench.set(CR0, SMMUEN=0)
        bench[STRTAB_BASE] = STRTAB_BASE.of(ADDR=NOWHERE)
        bench.set(CR0, SMMUEN=1)
    pri.overflow()
    assert pri.ask(7, last=True, ssid=4) == [PageResponse(SID, 7, FAILURE)]
    assert [type(event) for event in bench.events()] == [kind] * record


@pytest.mark.parametrize("recinvsid", [0, 1])
@pytest.mark.parametrize("record", [0, 1])
def test_a_streamid_that_cannot_be_checked_is_recorded_with_recinvsid_too(record: int, recinvsid: int) -> None:
    pri = Requests(REC_CFG_ATS=record, RECINVSID=recinvsid)
    pri.bench.smmu.endpoints[1 << 20] = pri.device
    pri.overflow()
    assert pri.ask(7, sid=1 << 20, last=True, ssid=4) == [PageResponse(1 << 20, 7, FAILURE)]
    assert [type(event) for event in pri.bench.events()] == [C_BAD_STREAMID] * (record and recinvsid)


# -- disabled and aborted (§8.2) -----------------------------------------------------------------------------


@pytest.mark.parametrize("cr0", [{"PRIQEN": 0}, {"SMMUEN": 0}])
@pytest.mark.parametrize("last", [False, True])
def test_a_disabled_queue_answers_every_request_with_failure(pri: Requests, last: bool, cr0: dict[str, int]) -> None:
    pri.bench.set(CR0, **cr0)
    assert pri.ask(7, last=last, ssid=4) == [PageResponse(SID, 7, FAILURE)]
    assert pri.ask(7, last=True, ssid=4, read=False) == []  # a stop marker
    assert (pri.bench[PRIQ_PROD].WR, pri.bench[PRIQ_PROD].OVFLG) == (0, 0)


def test_priqen_is_acknowledged_whatever_smmuen_is(pri: Requests) -> None:
    pri.bench.set(CR0, SMMUEN=0)
    assert pri.bench[CR0ACK].PRIQEN == 1


def test_an_aborted_write_is_a_global_error_and_answers_with_failure() -> None:
    pri = Requests()
    pri.bench.set(CR0, PRIQEN=0)
    pri.bench.set(PRIQ_BASE, ADDR=NOWHERE)
    pri.bench.set(CR0, PRIQEN=1)
    assert pri.ask(7, ssid=4) == [PageResponse(SID, 7, FAILURE)]
    assert pri.bench.active_errors == GERROR.PRIQ_ABT_ERR.mask
    assert pri.bench[PRIQ_PROD].WR == 0


def test_while_the_abort_is_active_requests_fail_and_afterwards_they_are_written(pri: Requests) -> None:
    bench = pri.bench
    bench.set(CR0, PRIQEN=0)
    bench.set(PRIQ_BASE, ADDR=NOWHERE)
    bench.set(CR0, PRIQEN=1)
    pri.ask()
    bench.set(CR0, PRIQEN=0)
    bench.set(PRIQ_BASE, ADDR=pri.at)
    bench.set(CR0, PRIQEN=1)
    assert pri.ask(7) == [PageResponse(SID, 7, FAILURE)]
    assert pri.ask(7, last=True, ssid=4, read=False) == []
    bench.acknowledge()
    assert pri.ask(8) == []
    assert [entry.PRGIndex for entry in pri.entries()] == [8]


# -- interrupts (§3.18, §6.3.36) -----------------------------------------------------------------------------


def test_a_request_interrupts_when_the_queue_was_empty(pri: Requests) -> None:
    pri.bench[IRQ_CTRL] = IRQ_CTRL.of(PRIQ_IRQEN=1)
    pri.ask()
    pri.ask(last=True)
    assert pri.bench.wires == ["priq"]
    pri.entries()
    pri.ask()
    assert pri.bench.wires == ["priq"] * 2


def test_with_lo_only_the_last_of_a_group_interrupts(pri: Requests) -> None:
    pri.bench.set(PRIQ_IRQ_CFG2, LO=1)
    pri.bench[IRQ_CTRL] = IRQ_CTRL.of(PRIQ_IRQEN=1)
    pri.ask()
    assert pri.bench.wires == []
    pri.ask(last=True)
    pri.ask(last=True)
    assert pri.bench.wires == ["priq"] * 2


@pytest.mark.parametrize(("lo", "count"), [(0, 0), (1, 1)])
def test_with_lo_a_last_request_interrupts_even_if_an_overflow_discards_it(pri: Requests, lo: int, count: int) -> None:
    pri.bench.set(PRIQ_IRQ_CFG2, LO=lo)
    pri.overflow()
    pri.bench[IRQ_CTRL] = IRQ_CTRL.of(PRIQ_IRQEN=1)
    pri.ask()
    assert pri.bench.wires == []
    pri.ask(last=True)
    assert pri.bench.wires == ["priq"] * count


def test_a_request_that_is_discarded_for_another_reason_interrupts_nobody(pri: Requests) -> None:
    pri.bench.set(PRIQ_IRQ_CFG2, LO=1)
    pri.bench[IRQ_CTRL] = IRQ_CTRL.of(PRIQ_IRQEN=1)
    pri.bench.set(CR0, PRIQEN=0)
    pri.ask(last=True)
    assert pri.bench.wires == []


def test_an_interrupt_that_is_not_enabled_does_not_come(pri: Requests) -> None:
    pri.ask()
    assert pri.bench.wires == []


def test_the_interrupt_is_an_msi_where_one_is_configured(pri: Requests) -> None:
    bench = pri.bench
    bench[PRIQ_IRQ_CFG0] = PRIQ_IRQ_CFG0.of(ADDR=DOORBELL)
    bench[PRIQ_IRQ_CFG1] = PRIQ_IRQ_CFG1.of(DATA=0x55)
    bench[IRQ_CTRL] = IRQ_CTRL.of(PRIQ_IRQEN=1)
    pri.ask()
    assert bench.posted == [(DOORBELL, b"\x55\0\0\0")]


def test_a_lost_msi_is_a_global_error(pri: Requests) -> None:
    bench = pri.bench
    bench[PRIQ_IRQ_CFG0] = PRIQ_IRQ_CFG0.of(ADDR=DOORBELL)
    bench[IRQ_CTRL] = IRQ_CTRL.of(PRIQ_IRQEN=1)
    bench.doorbell = None
    pri.ask()
    assert bench.active_errors == GERROR.MSI_PRIQ_ABT_ERR.mask


# -- CMD_PRI_RESP (§4.5.2, §8.3) -----------------------------------------------------------------------------


@pytest.mark.parametrize(("resp", "code"), [(0, FAILURE), (1, INVALID), (2, SUCCESS)])
@pytest.mark.parametrize(("fields", "ssid"), [({}, None), ({"SSID": 4}, None), ({"SSV": 1, "SSID": 4}, 4)])
def test_software_answers_a_group(
    pri: Requests, fields: dict[str, int], ssid: int | None, resp: int, code: PrgResponse
) -> None:
    pri.bench.invalidate(c.CMD_PRI_RESP.of(SID=SID, PRGIndex=0x1AB, Resp=resp, **fields))
    assert pri.device.responses == [PageResponse(SID, 0x1AB, code, ssid)]


def test_without_substreams_an_answer_has_no_pasid_whatever_ssv_says(built: bool) -> None:
    pri = Requests({"substream_id_bits": 0}, pure=not built)
    pri.bench.invalidate(c.CMD_PRI_RESP.of(SID=SID, PRGIndex=1, Resp=2, SSV=1, SSID=4))
    assert pri.device.responses == [PageResponse(SID, 1, SUCCESS, None)]


def test_the_codes_are_those_of_pcie() -> None:
    assert (int(SUCCESS), int(INVALID), int(FAILURE)) == (0b0000, 0b0001, 0b1111)


def test_a_disabled_smmu_sends_no_answer(pri: Requests) -> None:
    pri.bench.set(CR0, SMMUEN=0)
    pri.bench.invalidate(c.CMD_PRI_RESP.of(SID=SID, Resp=2))
    assert pri.device.responses == []


@pytest.mark.parametrize(("features", "resp"), [({"pri": False}, 2), ({}, 3)])
def test_an_answer_is_illegal_without_pri_and_with_the_reserved_code(features: dict[str, Any], resp: int) -> None:
    bench = Bench({**PRI, **features})
    bench.submit(c.CMD_PRI_RESP.of(SID=SID, Resp=resp))
    assert bench.active_errors == GERROR.CMDQ_ERR.mask


# -- registers -----------------------------------------------------------------------------------------------


def test_the_queues_registers_are_guarded_by_priqen_even_while_the_smmu_is_off(pri: Requests) -> None:
    bench = pri.bench
    bench.set(CR0, SMMUEN=0)
    bench.set(PRIQ_BASE, LOG2SIZE=7)
    bench[PRIQ_PROD] = PRIQ_PROD.of(WR=1)
    assert (bench[PRIQ_BASE].LOG2SIZE, bench[PRIQ_PROD].WR) == (2, 0)
    bench.set(CR0, PRIQEN=0)
    bench.set(PRIQ_BASE, LOG2SIZE=7)
    bench[PRIQ_PROD] = PRIQ_PROD.of(WR=1)
    assert (bench[PRIQ_BASE].LOG2SIZE, bench[PRIQ_PROD].WR) == (7, 1)


def test_without_pri_there_is_no_queue() -> None:
    bench = Bench()
    bench[PRIQ_BASE] = PRIQ_BASE.of(ADDR=0x4000_0000, LOG2SIZE=3)
    bench.set(CR0, PRIQEN=1)
    assert (bench[PRIQ_BASE].raw, bench[CR0].PRIQEN) == (0, 0)


def test_a_queue_of_one_entry_works() -> None:
    pri = Requests(bits=0)
    for n in range(3):
        assert pri.ask(n) == []
        assert [entry.PRGIndex for entry in pri.entries()] == [n]
    pri.overflow()
