# SPDX-License-Identifier: Apache-2.0
"""What each command does, and how a bad one stops the queue (IHI 0070 chapter 4, §7.1)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.smmu_builder import Bench, PageTable, Ram
from vhost_iommu.memory import Ended
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.features import Features
from vhost_iommu.smmu.v3.instance import COMMAND_BURST
from vhost_iommu.smmu.v3.registers import (
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR2,
    EVENTQ_IRQ_CFG0,
    GERROR,
    GERRORN,
    IDR0,
    CommandError,
)
from vhost_iommu.smmu.v3.structures import STE_CONFIG, STRW, S1Fmt

PA = 0x8000_0000
DOORBELL = 0x0808_0000
CMDQ_ERR = GERROR.CMDQ_ERR.mask


@pytest.fixture
def bench() -> Bench:
    return Bench()


def stopped(bench: Bench) -> CommandError:
    """Why the queue stands still."""
    if not bench.active_errors & CMDQ_ERR:
        return CommandError.CERROR_NONE
    return CommandError(bench[CMDQ_CONS].ERR)


def hypervisor(e2h: bool) -> Bench:
    """An SMMU with EL2 contexts, as only raw ID registers can have it."""
    ids = {kind.__name__: value for kind, value in Features().id_registers().items()}
    bench = Bench(id_registers={**ids, "IDR0": ids["IDR0"] | IDR0.Hyp.mask}, start=False)
    bench.start(SMMUEN=0)
    bench.set(CR2, E2H=int(e2h))
    bench.set(CR0, SMMUEN=1)
    return bench


# -- the queue -----------------------------------------------------------------------------------------------


def test_commands_are_consumed_as_prod_moves(bench: Bench) -> None:
    bench.submit(c.CMD_TLBI_NSNH_ALL.of(), c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 2
    bench.submit(c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 3
    assert bench.smmu.counters.commands == 3


def test_the_index_wraps_with_its_flag() -> None:
    bench = Bench(command_bits=1)
    seen = []
    for _ in range(5):
        bench.submit(c.CMD_SYNC.of())
        seen.append(bench[CMDQ_CONS].RD)
    assert seen == [1, 2, 3, 0, 1]


def test_a_full_queue_of_one_entry_is_consumed() -> None:
    bench = Bench(command_bits=0)
    bench.submit(c.CMD_SYNC.of())
    bench.submit(c.CMD_SYNC.of())
    assert (bench[CMDQ_CONS].RD, bench.smmu.counters.syncs) == (0, 2)


def test_a_disabled_queue_consumes_nothing_until_it_is_enabled(bench: Bench) -> None:
    bench.set(CR0, CMDQEN=0)
    bench.submit(c.CMD_SYNC.of(), c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 0
    bench.set(CR0, CMDQEN=1)
    assert bench[CMDQ_CONS].RD == 2


def test_commands_are_consumed_while_translation_is_off() -> None:
    bench = Bench(start=False)
    bench.start(SMMUEN=0)
    bench.invalidate(c.CMD_CFGI_STE_RANGE.everything(), c.CMD_TLBI_NSNH_ALL.of())


def test_a_queue_longer_than_the_burst_is_consumed_at_once_when_nobody_wakes() -> None:
    bench = Bench(command_bits=10)
    bench.submit(*[c.CMD_TLBI_NSNH_ALL.of()] * (COMMAND_BURST + 100), c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == COMMAND_BURST + 101


def test_a_queue_longer_than_the_burst_goes_on_in_work_when_somebody_wakes() -> None:
    wakes: list[None] = []
    bench = Bench(command_bits=10, wake=lambda: wakes.append(None))
    bench.submit(*[c.CMD_TLBI_NSNH_ALL.of()] * (2 * COMMAND_BURST - 100), c.CMD_SYNC.of())
    assert (bench[CMDQ_CONS].RD, len(wakes)) == (COMMAND_BURST, 1)
    assert bench.smmu.work() is False
    assert (bench[CMDQ_CONS].RD, len(wakes)) == (2 * COMMAND_BURST - 99, 1)


def test_work_is_done_one_burst_at_a_time_so_that_register_accesses_have_their_turn() -> None:
    bench = Bench(command_bits=11, features={"command_queue_bits": 11}, wake=lambda: None)
    bench.submit(*[c.CMD_TLBI_NSNH_ALL.of()] * (3 * COMMAND_BURST))
    assert [bench.smmu.work(), bench[CMDQ_CONS].RD] == [True, 2 * COMMAND_BURST]
    assert [bench.smmu.work(), bench[CMDQ_CONS].RD] == [False, 3 * COMMAND_BURST]


def test_a_queue_of_exactly_the_burst_wakes_nobody() -> None:
    wakes: list[None] = []
    bench = Bench(command_bits=10, wake=lambda: wakes.append(None))
    bench.submit(*[c.CMD_TLBI_NSNH_ALL.of()] * COMMAND_BURST)
    assert (bench[CMDQ_CONS].RD, wakes) == (COMMAND_BURST, [])


@pytest.mark.parametrize("prod", [0, 1, 0x1FF, 0xF_FFFF])
@pytest.mark.parametrize("cons", [0, 0x1FF])
def test_indices_that_make_no_sense_end_within_twice_the_queue(prod: int, cons: int) -> None:
    bench = Bench(start=False)
    bench.start(CMDQEN=0)
    for slot in range(1 << bench.command_bits):
        bench.ram.put(bench.cmdq + 16 * slot, c.CMD_TLBI_NSNH_ALL.of())
    bench[CMDQ_CONS], bench[CMDQ_PROD] = cons, prod
    bench.set(CR0, CMDQEN=1)
    consumed = bench[CMDQ_CONS].RD
    assert consumed == prod & 0x1FF
    assert bench.smmu.counters.commands < 2 << bench.command_bits


# -- errors (§7.1) -------------------------------------------------------------------------------------------

BAD = c.Command(0xFF)


def test_an_unknown_command_stops_the_queue_at_itself(bench: Bench) -> None:
    bench.submit(c.CMD_SYNC.of(), BAD, c.CMD_SYNC.of())
    assert bench[CMDQ_CONS] == CMDQ_CONS.of(RD=1, ERR=CommandError.CERROR_ILL)
    assert bench.active_errors == CMDQ_ERR
    assert bench.smmu.counters.syncs == 1


def test_a_stopped_queue_takes_more_commands_but_consumes_none(bench: Bench) -> None:
    bench.submit(BAD)
    bench.submit(c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 0
    bench.set(CR0, CMDQEN=0)
    bench.set(CR0, CMDQEN=1)
    assert (bench[CMDQ_CONS].RD, stopped(bench)) == (0, CommandError.CERROR_ILL)


def test_after_the_acknowledgement_the_command_is_fetched_again(bench: Bench) -> None:
    bench.submit(BAD, c.CMD_SYNC.of())
    bench.ram.put(bench.cmdq, c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 0
    bench.acknowledge()
    assert bench[CMDQ_CONS].RD == 2
    assert bench.active_errors == 0


def test_an_acknowledged_command_that_is_still_bad_stops_the_queue_again(bench: Bench) -> None:
    bench.submit(BAD)
    before = bench[GERROR].CMDQ_ERR
    bench.acknowledge()
    assert stopped(bench) is CommandError.CERROR_ILL
    after = bench[GERROR].CMDQ_ERR
    assert after != before


def test_prod_may_move_back_to_a_command_that_stopped_the_queue(bench: Bench) -> None:
    bench.submit(c.CMD_SYNC.of(), BAD, c.CMD_SYNC.of())
    bench[CMDQ_PROD] = 1
    bench.acknowledge()
    assert (bench[CMDQ_CONS].RD, stopped(bench)) == (1, CommandError.CERROR_NONE)


def test_writing_gerrorn_without_acknowledging_consumes_nothing(bench: Bench) -> None:
    bench.submit(BAD)
    bench.ram.put(bench.cmdq, c.CMD_SYNC.of())
    bench[GERRORN] = bench[GERRORN].raw
    assert bench[CMDQ_CONS].RD == 0


def test_a_queue_in_no_memory_stops_with_an_abort() -> None:
    bench = Bench(start=False)
    bench.start(CMDQEN=0)
    bench[CMDQ_BASE] = CMDQ_BASE.of(ADDR=0x1000, LOG2SIZE=4)
    bench[CMDQ_PROD] = 1
    bench.set(CR0, CMDQEN=1)
    assert bench[CMDQ_CONS] == CMDQ_CONS.of(RD=0, ERR=CommandError.CERROR_ABT)
    assert bench.active_errors == CMDQ_ERR


ILLEGAL: list[Any] = [
    pytest.param(c.Command(0), id="opcode 0"),
    pytest.param(c.Command(0x80), id="implementation defined"),
    c.CMD_CFGI_VMS_PIDM.of(),
    c.CMD_TLBI_EL3_ALL.of(),
    c.CMD_TLBI_EL3_VA.of(),
    c.CMD_TLBI_EL2_ALL.of(),
    c.CMD_TLBI_EL2_ASID.of(),
    c.CMD_TLBI_EL2_VA.of(),
    c.CMD_TLBI_EL2_VAA.of(),
    c.CMD_TLBI_S12_VMALL.of(),
    c.CMD_TLBI_S2_IPA.of(),
    c.CMD_ATC_INV.of(),
    c.CMD_PRI_RESP.of(),
    c.CMD_RESUME.of(),
    c.CMD_STALL_TERM.of(),
    c.CMD_TLBI_S_EL2_ALL.of(),
    c.CMD_TLBI_S_EL2_ASID.of(),
    c.CMD_TLBI_S_EL2_VA.of(),
    c.CMD_TLBI_S_EL2_VAA.of(),
    c.CMD_TLBI_S_S12_VMALL.of(),
    c.CMD_TLBI_S_S2_IPA.of(),
    c.CMD_TLBI_SNH_ALL.of(),
    c.CMD_DPTI_ALL.of(),
    c.CMD_DPTI_PA.of(),
    pytest.param(c.CMD_SYNC.of(CS=3), id="CMD_SYNC CS=3"),
    *(
        pytest.param(kind.of(SSec=1), id=f"{kind.__name__} SSec=1")
        for kind in (
            c.CMD_PREFETCH_CONFIG,
            c.CMD_PREFETCH_ADDR,
            c.CMD_CFGI_STE,
            c.CMD_CFGI_STE_RANGE,
            c.CMD_CFGI_CD,
            c.CMD_CFGI_CD_ALL,
        )
    ),
    # §4.4.1.1: a granule without a range and without a level
    *(
        pytest.param(kind.of(TG=tg), id=f"{kind.__name__} TG={tg} alone")
        for kind in (c.CMD_TLBI_NH_VA, c.CMD_TLBI_NH_VAA)
        for tg in (1, 2, 3)
    ),
    # … and level 1 of 16KB is no level
    pytest.param(c.CMD_TLBI_NH_VA.of(TG=2, TTL=1), id="CMD_TLBI_NH_VA TG=16KB TTL=1"),
]


@pytest.mark.parametrize("command", ILLEGAL, ids=lambda command: type(command).__name__)
def test_an_illegal_command_is_cerror_ill(bench: Bench, command: c.Command) -> None:
    bench.submit(command)
    assert stopped(bench) is CommandError.CERROR_ILL


LEGAL: list[Any] = [
    c.CMD_PREFETCH_CONFIG.of(SID=0xFFFF_FFFF, SSV=1, SSID=0xF_FFFF),
    c.CMD_PREFETCH_ADDR.of(Size=31, Stride=31),
    c.CMD_CFGI_STE.of(SID=0xFFFF_FFFF),
    *(pytest.param(c.CMD_CFGI_STE_RANGE.of(SID=0xFFFF_FFFF, Range=n), id=f"Range={n}") for n in (0, 30, 31)),
    c.CMD_CFGI_CD.of(SID=0xFFFF_FFFF, SSID=0xF_FFFF),
    c.CMD_CFGI_CD_ALL.of(SID=0xFFFF_FFFF),
    c.CMD_TLBI_NH_ALL.of(VMID=0xFFFF),
    c.CMD_TLBI_NH_ASID.of(ASID=0xFFFF),
    c.CMD_TLBI_NH_VA.of(Address=(1 << 64) - 0x1000, NUM=31, SCALE=63, TG=3, TTL=3),
    c.CMD_TLBI_NH_VAA.of(Address=(1 << 64) - 0x1000, NUM=31, SCALE=31, TG=1),
    pytest.param(c.CMD_TLBI_NH_VA.of(NUM=5, SCALE=5, TTL=3), id="NUM, SCALE and TTL without TG mean nothing"),
    c.CMD_TLBI_NSNH_ALL.of(),
    *(pytest.param(c.CMD_SYNC.of(CS=n), id=f"CS={n}") for n in (0, 1, 2)),
]


@pytest.mark.parametrize("command", LEGAL, ids=lambda command: type(command).__name__)
def test_a_legal_command_is_consumed_whatever_it_names(bench: Bench, command: c.Command) -> None:
    bench.submit(command)
    assert stopped(bench) is CommandError.CERROR_NONE
    assert bench[CMDQ_CONS].RD == 1


def test_without_range_invalidation_its_fields_mean_nothing() -> None:
    bench = Bench({"version": "3.1", "range_invalidation": False})
    bench.submit(c.CMD_TLBI_NH_VA.of(TG=1))
    assert stopped(bench) is CommandError.CERROR_NONE


def test_a_bad_command_of_one_smmu_stops_no_other() -> None:
    ram = Ram()
    first, second = Bench(ram=ram), Bench(ram=ram)
    first.submit(BAD)
    second.submit(c.CMD_SYNC.of())
    assert (stopped(first), stopped(second)) == (CommandError.CERROR_ILL, CommandError.CERROR_NONE)


# -- CMD_SYNC (§4.7.3) ---------------------------------------------------------------------------------------

MSI = c.CMD_SYNC.of(CS=1, MSIAddress=DOORBELL, MSIData=0xCAFE)


def test_a_sync_signals_by_msi_after_cons_has_passed_it(bench: Bench) -> None:
    seen: list[tuple[int, bytes, int]] = []

    def doorbell(pa: int, data: bytes, ended: Ended) -> bool:
        seen.append((pa, data, bench[CMDQ_CONS].RD))
        return True

    bench.doorbell = doorbell
    bench.submit(c.CMD_SYNC.of(), MSI)
    assert seen == [(DOORBELL, b"\xfe\xca\0\0", 2)]


def test_a_sync_may_write_its_own_slot_as_linux_polls_it(bench: Bench) -> None:
    bench.submit(c.CMD_SYNC.of(CS=1, MSIAddress=bench.cmdq, MSIData=0))
    assert bench.ram.get(bench.cmdq, 4) == bytes(4)
    assert stopped(bench) is CommandError.CERROR_NONE


def test_a_sync_without_an_address_sends_no_msi(bench: Bench) -> None:
    bench.submit(c.CMD_SYNC.of(CS=1, MSIData=1))
    assert (bench.posted, bench.wires) == ([], ["cmdq-sync"])


@pytest.mark.parametrize("signal", [0, 2])
def test_a_sync_that_asks_for_no_interrupt_makes_none(bench: Bench, signal: int) -> None:
    bench.submit(c.CMD_SYNC.of(CS=signal, MSIAddress=DOORBELL))
    assert (bench.posted, bench.wires) == ([], [])


def test_without_msi_a_sync_has_its_wire_only() -> None:
    bench = Bench({"msi": False})
    bench.submit(MSI)
    assert (bench.posted, bench.wires) == ([], ["cmdq-sync"])


def test_a_sync_whose_msi_aborts_is_consumed_and_told_of_in_gerror(bench: Bench) -> None:
    bench.doorbell = None
    bench.submit(MSI, c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 2
    assert bench.active_errors == GERROR.MSI_CMDQ_ABT_ERR.mask


class Late:
    """A doorbell that is answered when the test says so."""

    def __init__(self, bench: Bench) -> None:
        self.ended: list[Ended] = []
        bench.doorbell = self

    def __call__(self, pa: int, data: bytes, ended: Ended) -> bool:
        self.ended.append(ended)
        return True


@pytest.mark.parametrize("aborted", [False, True])
def test_a_sync_waits_until_former_syncs_msis_are_answered(bench: Bench, aborted: bool) -> None:
    late = Late(bench)
    bench.submit(MSI, MSI, c.CMD_TLBI_NSNH_ALL.of(), c.CMD_SYNC.of(), c.CMD_SYNC.of())
    assert (bench[CMDQ_CONS].RD, len(late.ended)) == (1, 1)
    late.ended[0](aborted)
    assert (bench[CMDQ_CONS].RD, len(late.ended)) == (3, 2), "the second has an MSI of its own; TLBI does not wait"
    assert bench.active_errors == aborted * GERROR.MSI_CMDQ_ABT_ERR.mask
    late.ended[1](False)
    assert bench[CMDQ_CONS].RD == 5


def test_an_abort_is_visible_before_the_next_sync_is_consumed(bench: Bench) -> None:
    late = Late(bench)
    bench.submit(MSI, MSI)
    seen: list[int] = []

    def doorbell(pa: int, data: bytes, ended: Ended) -> bool:
        seen.append(bench.active_errors)
        return False

    bench.doorbell = doorbell
    late.ended[0](True)
    assert seen == [GERROR.MSI_CMDQ_ABT_ERR.mask]
    assert bench[CMDQ_CONS].RD == 2


def test_other_msis_do_not_hold_up_a_sync(bench: Bench) -> None:
    bench[EVENTQ_IRQ_CFG0] = EVENTQ_IRQ_CFG0.of(ADDR=DOORBELL)
    bench.interrupts_on()
    late = Late(bench)
    bench.translate(0, sid=5)
    bench.invalidate()
    assert len(late.ended) == 1


def test_a_reset_forgets_msis_under_way_and_their_answers(bench: Bench) -> None:
    late = Late(bench)
    bench.submit(MSI, MSI)
    bench.smmu.reset()
    bench.start()
    bench.invalidate()
    bench.submit(MSI)
    late.ended[0](True)
    assert bench.active_errors == 0
    bench.submit(c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR - 1, "the MSI of now is not answered by one of before"
    late.ended[1](False)
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR


def test_a_long_queue_goes_on_in_bursts_when_an_msi_is_answered() -> None:
    woken: list[int] = []
    bench = Bench(command_bits=9, wake=lambda: woken.append(1))
    late = Late(bench)
    bench.submit(MSI, c.CMD_SYNC.of(), *[c.CMD_TLBI_NSNH_ALL.of()] * 2 * COMMAND_BURST)
    assert (bench[CMDQ_CONS].RD, woken) == (1, [])
    late.ended[0](False)
    assert (bench[CMDQ_CONS].RD, woken) == (1 + COMMAND_BURST, [1])


def test_an_illegal_sync_signals_nothing(bench: Bench) -> None:
    bench.submit(MSI.replace(CS=3))
    assert (bench.posted, bench.wires) == ([], [])


class Silent:
    """An endpoint that never answers an invalidation."""

    def invalidate(self, request: object) -> None:
        pass

    def page_response(self, response: object) -> None:
        pass


def test_after_a_reset_no_sync_waits_for_an_endpoint_of_before() -> None:
    bench = Bench({"ats": True})
    bench.smmu.endpoints[3] = Silent()
    bench.submit(c.CMD_ATC_INV.of(SID=3), c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 1
    bench.smmu.reset()
    bench.start()
    bench.submit(c.CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == 1
    assert bench.smmu.counters.syncs == 1


# -- configuration invalidation (§4.3) -----------------------------------------------------------------------


def remap(bench: Bench, sid: int) -> None:
    """Turn a stream's STE into one that bypasses, behind the SMMU's back."""
    bench.ste(sid, Config=STE_CONFIG.BYPASS)


def translates(bench: Bench, sid: int = 0, **transaction: Any) -> bool:
    """Whether the stream still uses the table that the SMMU had cached."""
    pa = bench.pa(0x1000, sid, **transaction)
    assert pa in (PA, 0x1000, None)
    return pa == PA


def cached(bench: Bench, *sids: int) -> Bench:
    for sid in sids:
        bench.stream(sid).map(0x1000, PA)
        assert translates(bench, sid)
        remap(bench, sid)
        assert translates(bench, sid), "a configuration was dropped that nobody invalidated"
    return bench


def test_cfgi_ste_drops_one_ste(bench: Bench) -> None:
    cached(bench, 4, 5)
    bench.invalidate(c.CMD_CFGI_STE.of(SID=4, Leaf=1))
    assert (translates(bench, 4), translates(bench, 5)) == (False, True)


@pytest.mark.parametrize(
    ("sid", "size", "dropped"), [(4, 0, {4, 5}), (5, 0, {4, 5}), (6, 1, {4, 5, 6, 7}), (9, 30, {4, 5, 6, 7, 8})]
)
def test_cfgi_ste_range_drops_an_aligned_range(bench: Bench, sid: int, size: int, dropped: set[int]) -> None:
    sids = range(4, 9)
    cached(bench, *sids)
    bench.invalidate(c.CMD_CFGI_STE_RANGE.of(SID=sid, Range=size))
    assert {sid for sid in sids if not translates(bench, sid)} == dropped


def test_cfgi_all_drops_every_ste(bench: Bench) -> None:
    cached(bench, 0, 63)
    bench.invalidate(c.CMD_CFGI_STE_RANGE.everything())
    assert not translates(bench, 0)
    assert not translates(bench, 63)


def test_cfgi_ste_drops_the_streams_cds_too(bench: Bench) -> None:
    table = bench.stream(0)
    table.map(0x1000, PA)
    assert translates(bench)
    other = bench.stream(0, cd={"ASID": 2})
    bench.invalidate(c.CMD_CFGI_STE.of(SID=0))
    assert bench.pa(0x1000) is None
    other.map(0x1000, 0x9000_0000)
    assert bench.pa(0x1000) == 0x9000_0000


def substreams(leaf: S1Fmt = S1Fmt.LINEAR) -> tuple[Bench, int]:
    """A bench whose stream 0 has four SubstreamIDs, cached; and the address of its CDs."""
    bench = Bench({"substream_id_bits": 10})
    cds = bench.ram.alloc(4 * 64, 4096)
    pointer = cds
    if leaf:
        pointer = bench.ram.alloc(128)
        bench.ram.put_u64(pointer, cds | 1)
    for ssid in range(4):
        table = PageTable(bench.ram)
        table.map(0x1000, PA)
        bench.cd(cds + 64 * ssid, table, ASID=ssid)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=pointer, S1CDMax=6, S1Fmt=leaf, S1DSS=2)
    assert use_of(bench) == {None, 1, 2, 3}
    return bench, cds


def use_of(bench: Bench) -> set[int | None]:
    """The SubstreamIDs whose CD is cached still, when all are invalid in memory."""
    return {ssid for ssid in (None, 1, 2, 3) if translates(bench, ssid=ssid)}


def test_cfgi_cd_drops_one_cd() -> None:
    bench, cds = substreams()
    bench.ram.put(cds, bytes(4 * 64))
    bench.invalidate(c.CMD_CFGI_CD.of(SID=0, SSID=2, Leaf=1))
    assert use_of(bench) == {None, 1, 3}
    bench.invalidate(c.CMD_CFGI_CD.of(SID=1, SSID=1))
    assert use_of(bench) == {None, 1, 3}


def test_cfgi_cd_of_substream_0_drops_the_cd_of_transactions_without_one() -> None:
    bench, cds = substreams()
    bench.ram.put(cds, bytes(4 * 64))
    bench.invalidate(c.CMD_CFGI_CD.of(SID=0, SSID=0))
    assert use_of(bench) == {1, 2, 3}


def test_cfgi_cd_all_drops_every_cd_of_a_stream() -> None:
    bench, cds = substreams()
    bench.ram.put(cds, bytes(4 * 64))
    bench.invalidate(c.CMD_CFGI_CD_ALL.of(SID=1))
    assert use_of(bench) == {None, 1, 2, 3}
    bench.invalidate(c.CMD_CFGI_CD_ALL.of(SID=0))
    assert use_of(bench) == set()


@pytest.mark.parametrize(("leaf", "dropped"), [(1, False), (0, True)])
def test_cfgi_cd_keeps_the_first_level_only_if_leaf(leaf: int, dropped: bool) -> None:
    bench, cds = substreams(S1Fmt.TWO_LEVEL_4K)
    pointer = bench.ram.alloc(4 * 64, 4096)
    bench.ram.put(pointer, bench.ram.get(cds, 4 * 64))
    bench.ram.put(cds, bytes(4 * 64))
    # Where the L1CD is that the SMMU has cached:
    first = int.from_bytes(bench.ram.get(bench.strtab, 8), "little") & ((1 << 56) - 64)
    bench.ram.put_u64(first, pointer | 1)
    bench.invalidate(c.CMD_CFGI_CD.of(SID=0, SSID=2, Leaf=leaf))
    assert translates(bench, ssid=2) == dropped


def test_prefetches_record_nothing_of_what_they_do_not_find(bench: Bench) -> None:
    bench.ste(0, V=0)
    bench.submit(c.CMD_PREFETCH_CONFIG.of(SID=0), c.CMD_PREFETCH_ADDR.of(SID=0), c.CMD_PREFETCH_CONFIG.of(SID=0xFFFF))
    assert bench.events() == []


def test_without_substreams_a_prefetch_with_one_has_no_effect_and_records_nothing(built: bool) -> None:
    bench = Bench({"substream_id_bits": 0}, pure=not built)
    bench.stream(0).map(0x1000, PA)
    bench.submit(c.CMD_PREFETCH_CONFIG.of(SID=0, SSV=1), c.CMD_PREFETCH_ADDR.of(SID=0, SSV=1, Address=0x1000))
    assert (bench.events(), bench.smmu.counters.walks) == ([], 0)


def test_prefetches_leave_nothing_to_look_up(bench: Bench) -> None:
    bench.stream(0).map(0x1000, PA)
    bench.submit(c.CMD_PREFETCH_CONFIG.of(SID=0), c.CMD_PREFETCH_ADDR.of(SID=0, Address=0x1000))
    walks, misses = bench.smmu.counters.walks, bench.smmu.configuration.misses
    assert translates(bench)
    assert (bench.smmu.counters.walks, bench.smmu.configuration.misses) == (walks, misses)


# -- TLB invalidation (§4.4) ---------------------------------------------------------------------------------


PAGES = (0x1000, 0x2000, 0x20_0000)
#: (ASID, page) of what ``filled`` has in its TLB; ASID None is global, and the last page a 2 MiB block.
ENTRIES = {(asid, page) for asid in (1, 2, None) for page in PAGES}


def filled() -> Bench:
    bench = Bench()
    for sid, (asid, not_global) in enumerate(((1, 1), (2, 1), (3, 0))):
        table = bench.stream(sid, cd={"ASID": asid})
        table.map(0x1000, PA, 0x2000, nG=not_global)
        table.map(0x20_0000, PA + 0x20_0000, level=2, nG=not_global)
        for page in PAGES:
            assert bench.pa(page, sid) is not None
    return bench


def own(bench: Bench) -> set[tuple[int | None, int]]:
    """(ASID, page) of every entry in the TLB; ASID None is global."""
    return {(space.asid, entry.base) for space, entry in bench.smmu.tlb}


def left(*invalidations: c.Command) -> set[tuple[int | None, int]]:
    bench = filled()
    bench.invalidate(*invalidations)
    return own(bench)


@pytest.mark.parametrize("not_global", [0, 1])
def test_global_entries_are_of_one_aset_and_others_of_both(not_global: int) -> None:
    bench = Bench()
    for sid, aset in enumerate((0, 1)):
        bench.stream(sid, cd={"ASID": 5, "ASET": aset}).map(0x1000, PA + sid * 0x1000, nG=not_global)
    assert [bench.pa(0x1000, sid) for sid in (0, 1)] == [PA, PA if not_global else PA + 0x1000]
    bench.invalidate(c.CMD_TLBI_NH_VA.of(ASID=9 - 4 * not_global, Address=0x1000))
    assert own(bench) == set()


def test_nothing_is_dropped_without_a_command() -> None:
    assert left() == ENTRIES


@pytest.mark.parametrize("command", [c.CMD_TLBI_NSNH_ALL.of(), c.CMD_TLBI_NH_ALL.of()], ids=lambda x: type(x).__name__)
def test_tlbi_all_drops_every_entry_global_ones_too(command: c.Command) -> None:
    assert left(command) == set()


def test_a_dropped_entry_is_walked_for_again() -> None:
    bench = filled()
    bench.stream(0).map(0x1000, PA + 0x5000)
    bench.invalidate(c.CMD_CFGI_STE.of(SID=0))
    assert bench.pa(0x1000) == PA
    bench.invalidate(c.CMD_TLBI_NH_VA.of(ASID=1, Address=0x1000))
    assert bench.pa(0x1000) == PA + 0x5000


def test_tlbi_nh_asid_drops_the_asids_entries_but_no_global_ones() -> None:
    assert ENTRIES - left(c.CMD_TLBI_NH_ASID.of(ASID=1)) == {(1, page) for page in PAGES}


def test_tlbi_nh_va_drops_one_page_of_the_asid_and_of_the_global_entries() -> None:
    assert ENTRIES - left(c.CMD_TLBI_NH_VA.of(ASID=1, Address=0x1000, Leaf=1)) == {(1, 0x1000), (None, 0x1000)}


def test_tlbi_nh_vaa_drops_one_page_of_every_asid() -> None:
    gone = ENTRIES - left(c.CMD_TLBI_NH_VAA.of(Address=0x2000))
    assert gone == {(1, 0x2000), (2, 0x2000), (None, 0x2000)}


def test_an_address_inside_of_a_block_drops_the_block() -> None:
    assert ENTRIES - left(c.CMD_TLBI_NH_VA.of(ASID=2, Address=0x3F_F000)) == {(2, 0x20_0000), (None, 0x20_0000)}


@pytest.mark.parametrize(
    ("fields", "pages"),
    [
        ({"TG": 1, "TTL": 3}, {0x1000}),
        ({"TG": 1, "NUM": 1}, {0x1000, 0x2000}),
        ({"TG": 1, "SCALE": 1}, {0x1000, 0x2000}),
        ({"TG": 1, "SCALE": 20, "NUM": 31}, set(PAGES)),
        ({"TG": 1, "SCALE": 20, "NUM": 31, "TTL": 2}, {0x20_0000}),
        ({"TG": 1, "SCALE": 20, "NUM": 31, "TTL": 3}, {0x1000, 0x2000}),
        ({"TG": 3, "SCALE": 20}, set()),  # entries of another granule need not go
        ({"SCALE": 20, "NUM": 31}, {0x1000}),  # without TG there is no range
    ],
)
def test_a_range_is_num_plus_1_times_2_to_the_scale_granules(fields: dict[str, int], pages: set[int]) -> None:
    gone = ENTRIES - left(c.CMD_TLBI_NH_VA.of(ASID=1, Address=0x1000, **fields))
    assert gone == {(asid, page) for asid in (1, None) for page in pages}


def test_the_vmid_of_a_command_counts_for_nothing_without_stage_2() -> None:
    assert left(c.CMD_TLBI_NH_ALL.of(VMID=7)) == set()


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (1, [(0x0001_0000_0000_0012, 0xFFE0_0701)]),
        (16, [(0x0001_0000_0040_0012, 0xFFE0_0701)]),
        (33, [(0x0001_0000_0000_0012, 0xFFE0_0701), (0x0001_0000_0050_0012, 0xFFE0_1701)]),
        (512, [(0x0001_0000_0090_0012, 0xFFE0_0701)]),
    ],
)
def test_what_linux_writes_to_unmap_pages_drops_exactly_them(page: int, words: list[tuple[int, int]]) -> None:
    bench = Bench()
    table = bench.stream(0)
    first = 0xFFE0_0000
    pages = range(first - 0x1000, first + (page + 1) * 0x1000, 0x1000)
    for iova in pages:
        table.map(iova, PA)
        assert bench.pa(iova) == PA
    bench.invalidate(*(c.Command.from_words(pair) for pair in words))
    assert {base for _, base in own(bench)} == {pages[0], pages[-1]}


# -- EL2 (§3.3.4, IDR0.Hyp) ----------------------------------------------------------------------------------


def el2_bench(e2h: bool) -> Bench:
    """EL2 translations of ASID 5 (E2H) at 0x1000 and 0x2000, and EL1 ones of ASID 5 at 0x1000, in the TLB."""
    bench = hypervisor(e2h)
    for sid, strw in ((0, STRW.EL2), (1, STRW.EL1)):
        table = bench.stream(sid, cd={"ASID": 5}, STRW=strw)
        table.map(0x1000, PA, 0x2000)
        assert bench.pa(0x1000, sid, privileged=True) == PA
        assert bench.pa(0x2000, sid, privileged=True) == PA + 0x1000
    return bench


@pytest.mark.parametrize("e2h", [False, True])
@pytest.mark.parametrize(
    ("command", "el2", "el1"),
    [
        (c.CMD_TLBI_EL2_ALL.of(), 0, 2),
        (c.CMD_TLBI_EL2_VAA.of(Address=0x1000), 1, 2),
        (c.CMD_TLBI_EL2_VA.of(Address=0x1000, ASID=5), 1, 2),
        (c.CMD_TLBI_NSNH_ALL.of(), 2, 0),
        (c.CMD_TLBI_NH_ALL.of(), 2, 0),
        (c.CMD_TLBI_NH_ASID.of(ASID=5), 2, 0),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, c.Command) else "",
)
def test_el1_and_el2_translations_are_invalidated_apart(e2h: bool, command: c.Command, el2: int, el1: int) -> None:
    bench = el2_bench(e2h)
    bench.invalidate(command)
    worlds = [space.world for space, _ in bench.smmu.tlb]
    assert (sum(world != 1 for world in worlds), worlds.count(1)) == (el2, el1)


@pytest.mark.parametrize(("e2h", "asid", "entries"), [(True, 5, 0), (True, 6, 2), (False, 5, 2)])
def test_tlbi_el2_asid_drops_tagged_entries_only(e2h: bool, asid: int, entries: int) -> None:
    bench = el2_bench(e2h)
    bench.invalidate(c.CMD_TLBI_EL2_ASID.of(ASID=asid))
    assert sum(space.world != 1 for space, _ in bench.smmu.tlb) == entries


@pytest.mark.parametrize(("e2h", "entries"), [(True, 2), (False, 1)])
def test_tlbi_el2_va_matches_the_asid_only_with_e2h(e2h: bool, entries: int) -> None:
    bench = el2_bench(e2h)
    bench.invalidate(c.CMD_TLBI_EL2_VA.of(Address=0x1000, ASID=6))
    assert sum(space.world != 1 for space, _ in bench.smmu.tlb) == entries
