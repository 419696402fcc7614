# SPDX-License-Identifier: Apache-2.0
"""An engine that uses ATS and PRI, an SMMU, and software that maps, invalidates and answers page requests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from random import Random
from typing import Any

import pytest

from tests.smmu_builder import IPA_OFFSET, Bench, PageTable, Ram
from vhost_iommu.layout import Register
from vhost_iommu.masters.atc import Answering, Atc
from vhost_iommu.masters.engine import (
    AtcPage,
    AtsResult,
    Cmd,
    ExtensionFrame,
    FaultReason,
    PrivilegedFrame,
    TestEngine,
    UserFrame,
)
from vhost_iommu.masters.port import Port
from vhost_iommu.smmu.ats import PageResponse, PrgResponse
from vhost_iommu.smmu.seams import Verdict
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN, F_TRANSLATION, PRIEntry
from vhost_iommu.smmu.v3.registers import (
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    GERROR,
    IRQ_CTRL,
    PRIQ_BASE,
    PRIQ_CONS,
    PRIQ_PROD,
    CommandError,
)
from vhost_iommu.smmu.v3.structures import CD, EATS, S1DSS, STE, STE_CONFIG

SID, OTHER = 3, 4
IOVA = 0x10_0000
PAGE = 0x1000
USER, PRIVILEGED, EXTENSION, ATC = 0, 0x1_0000, 0x2_0000, 0x3_0000
ATS, PRI = PrivilegedFrame.pctrl.ATS_ENABLE.mask, PrivilegedFrame.pctrl.PRI_ENABLE.mask
EVERYTHING = 52
#: Attributes of both sides.
AS_PRIVILEGED, INSTRUCTION = 0x100_0100, 0x400_0400
NO_SSID = 0xFFFFFFFF
FEATURES: dict[str, Any] = {"ats": "full", "pri": True, "pri_pasid": True, "substream_id_bits": 4}


class World:
    """An engine with an ATC before 32 pages of noise, of which its stream's table maps none at first."""

    def __init__(
        self, *, capacity: int = 64, priq_bits: int = 3, wake: Callable[[], None] | None = None, **features: Any
    ) -> None:
        features = {**FEATURES, **features}
        self.bench = Bench(features, ram=Ram(size=8 << 20), start=False)
        self.smmu = self.bench.smmu
        if features["pri"]:
            self.priq_bits = priq_bits
            self.priq = self.bench.ram.alloc(max(PRIEntry.size << priq_bits, 32))
            self.bench[PRIQ_BASE] = PRIQ_BASE.of(ADDR=self.priq, LOG2SIZE=priq_bits)
        self.bench.start(PRIQEN=int(features["pri"]), ATSCHK=1)
        self.table = PageTable(self.bench.ram)
        self.bench.stream(SID, table=self.table, EATS=EATS.FULL)
        self.pages = self.bench.ram.alloc(32 * PAGE)
        self.bench.ram.put(self.pages, Random(1).randbytes(32 * PAGE))
        self.port = Port("engine", self.bench.ram.memory, self.smmu, (SID, OTHER))
        self.atc = Atc("engine", self.smmu, (SID, OTHER), capacity=capacity, pri=features["pri"])
        self.port.atc = self.atc
        self.pulses = 0
        self.engine = TestEngine("engine", self.port, interrupt=self.pulse, wake=wake)
        for frame in range(3):
            self.use(ATS, frame)

    def pulse(self) -> None:
        self.pulses += 1

    # -- tables --

    def map(self, *pages: int, at: int | None = None, **leaf: int) -> None:
        """Map pages of the noise, each to itself or the only one to ``at``."""
        for page in pages:
            self.table.map(IOVA + page * PAGE, self.pages + (page if at is None else at) * PAGE, **leaf)

    def unmap(self, *pages: int) -> None:
        """With all that the SMMU's own caches need."""
        for page in pages:
            self.table.unmap(IOVA + page * PAGE)
        self.bench.invalidate(c.CMD_TLBI_NH_ALL.of())

    def forget(self, page: int = 0, size: int = 0, **how: int) -> None:
        """CMD_ATC_INV of 2^``size`` pages."""
        self.bench.submit(c.CMD_ATC_INV.of(SID=SID, Address=IOVA + page * PAGE, Size=size, **how))

    def sync(self) -> bool:
        """CMD_SYNC; whether it completed."""
        self.bench.submit(c.CMD_SYNC.of())
        return self.synced()

    def synced(self) -> bool:
        return self.bench[CMDQ_CONS].RD == self.bench[CMDQ_PROD].WR

    def substreams(self, **ste: int) -> list[PageTable]:
        """Give the stream a table for each of two substreams, and none without; page 0 goes to page 0 or 1."""
        cds = self.bench.ram.alloc(4 * CD.size)
        tables = []
        for ssid in (1, 2):
            table = PageTable(self.bench.ram)
            table.map(IOVA, self.pages + (ssid - 1) * PAGE)
            self.bench.cd(cds + ssid * CD.size, table, ASID=ssid)
            tables.append(table)
        fields = {"Config": STE_CONFIG.S1, "S1ContextPtr": cds, "S1CDMax": 2, "S1DSS": S1DSS.TERMINATE, **ste}
        self.bench.ste(SID, EATS=EATS.FULL, **fields)
        self.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID))
        return tables

    # -- the engine --

    def data(self, offset: int, size: int) -> bytes:
        return self.bench.ram.get(self.pages + offset, size)

    def load(self, register: type[Register], frame: int = 0, index: int = 0) -> int:
        return self.engine.read(place(register) + register.at + index * register.size + 128 * frame, register.size)

    def store(self, register: type[Register], value: int, frame: int = 0, index: int = 0) -> None:
        at = place(register) + register.at + index * register.size + 128 * frame
        self.engine.write(at, register.size, value)

    def use(self, enabled: int, frame: int = 0) -> None:
        self.store(PrivilegedFrame.pctrl, enabled, frame)

    def run(self, cmd: Cmd, begin: int, size: int, *, to: int = 0, frame: int = 0, ssid: int = NO_SSID) -> int:
        """Offsets from IOVA; the state that follows."""
        self.store(PrivilegedFrame.substreamid, ssid, frame)
        self.store(UserFrame.begin, IOVA + begin, frame)
        self.store(UserFrame.end_incl, IOVA + begin + size - 1, frame)
        self.store(UserFrame.stride, 1, frame)
        self.store(UserFrame.udata, IOVA + to, frame)
        self.store(UserFrame.cmd, cmd, frame)
        return self.cmd(frame)

    def cmd(self, frame: int = 0) -> int:
        return self.load(UserFrame.cmd, frame)

    def reads(self, page: int, frame: int = 0, **how: int) -> bytes | None:
        """The first 8 bytes of a page as the engine reads them; None: it was aborted."""
        if self.run(Cmd.SUM64, page * PAGE, 8, frame=frame, **how) == Cmd.ERROR:
            return None
        assert self.cmd(frame) == Cmd.HALTED
        return self.load(UserFrame.udata, frame, 1).to_bytes(8, "little")

    def word(self, page: int) -> bytes:
        """What is there."""
        return self.data(page * PAGE, 8)

    def ats(self, frame: int = 0) -> tuple[int, int, int]:
        """Hits, requests, the last request's result."""
        e = ExtensionFrame
        hits, requests, result = (self.load(each, frame) for each in (e.ats_hits, e.ats_requests, e.ats_result))
        return hits, requests, result

    def paging(self, frame: int = 0) -> tuple[int, ...]:
        """Page requests; responses: success, invalid, failure."""
        e = ExtensionFrame
        registers = (e.page_requests, e.page_successes, e.page_invalids, e.page_failures)
        return tuple(self.load(each, frame) for each in registers)

    def last_fault(self, frame: int = 0) -> tuple[int, int, int]:
        """Reason, whether a write, offset from IOVA."""
        fault = ExtensionFrame.fault(self.load(ExtensionFrame.fault, frame))
        return fault.REASON, fault.WRITE, self.load(ExtensionFrame.fault_address, frame) - IOVA

    # -- page requests --

    def page_requests(self) -> list[PRIEntry]:
        """Take all of them, and acknowledge an overflow."""
        found = []
        prod, rd = self.bench[PRIQ_PROD], self.bench[PRIQ_CONS].RD
        while rd != prod.WR:
            slot = self.priq + PRIEntry.size * (rd & (1 << self.priq_bits) - 1)
            found.append(PRIEntry.from_bytes(self.bench.ram.get(slot, PRIEntry.size)))
            rd = rd + 1 & (2 << self.priq_bits) - 1
        self.bench[PRIQ_CONS] = PRIQ_CONS.of(RD=rd, OVACKFLG=prod.OVFLG)
        return found

    def page_request(self) -> PRIEntry:
        (found,) = self.page_requests()
        return found

    def respond(self, entry: PRIEntry, code: int = c.PriResponse.SUCCESS, **how: int) -> None:
        tagged = {"SSV": entry.SSV, "SSID": entry.SSID} if entry.SSV else {}
        how = {"SID": entry.SID, "PRGIndex": entry.PRGIndex, "Resp": code, **tagged, **how}
        self.bench.submit(c.CMD_PRI_RESP.of(**how))


def place(register: type[Register]) -> int:
    for frame, at in ((ExtensionFrame, EXTENSION), (PrivilegedFrame, PRIVILEGED), (AtcPage, ATC)):
        if register in vars(frame).values():
            return at
    return USER


@pytest.fixture
def world() -> World:
    return World()


# -- the cache ---------------------------------------------------------------------------------------------------


def test_a_copy_asks_once_for_each_page_and_finds_them_afterwards(world: World) -> None:
    world.map(0, 1, 8, 9)
    expected = world.data(0x80, 2 * PAGE - 0x80)
    assert world.run(Cmd.MEMCPY, 0x80, 2 * PAGE - 0x80, to=8 * PAGE) == Cmd.HALTED
    assert world.data(8 * PAGE, 2 * PAGE - 0x80) == expected
    hits, requests, result = world.ats()
    assert (requests, result) == (4, AtsResult.GRANTED)
    assert (world.load(AtcPage.entries), world.load(AtcPage.misses), world.load(AtcPage.hits)) == (4, 4, hits)
    assert world.run(Cmd.MEMCPY, 0, PAGE, to=8 * PAGE) == Cmd.HALTED
    assert world.ats() == (hits + 2, 4, AtsResult.GRANTED)
    assert world.bench.events() == []


def test_a_frame_without_ats_leaves_the_cache_alone(world: World) -> None:
    world.use(0)
    world.map(0)
    assert world.reads(0) == world.word(0)
    assert world.ats() == (0, 0, AtsResult.NONE)
    assert (world.load(AtcPage.entries), world.load(AtcPage.misses)) == (0, 0)


def test_a_transaction_across_pages_makes_one_request_for_both(world: World) -> None:
    world.map(0, 8, 9)
    assert world.run(Cmd.MEMCPY, 0, PAGE, to=0x8700) == Cmd.HALTED
    assert world.ats() == (1, 2, AtsResult.GRANTED)
    assert world.load(AtcPage.entries) == 3


def test_a_read_only_entry_is_asked_for_anew_before_it_is_written(world: World) -> None:
    world.map(0)
    assert world.reads(0) is not None
    assert world.run(Cmd.RAND48, 0, 64) == Cmd.HALTED, "a read asks without wanting to write"
    assert world.ats() == (0, 2, AtsResult.GRANTED)
    assert world.reads(0) is not None
    assert world.ats() == (1, 2, AtsResult.GRANTED)


def test_a_block_is_one_entry(world: World) -> None:
    at = world.bench.ram.alloc(0x20_0000)
    world.table.map(0x4000_0000, at, level=2)
    world.bench.ram.put(at + 0x1F_F000, b"12345678")
    for offset in (0x1F_F000, 0):
        world.run(Cmd.SUM64, 0x4000_0000 - IOVA + offset, 8)
    assert world.ats() == (1, 1, AtsResult.GRANTED)
    assert world.load(AtcPage.entries) == 1


def test_what_is_denied_aborts_without_an_event(world: World) -> None:
    world.map(0)
    world.map(1, AP=3)
    before = world.data(0, 3 * PAGE)
    assert world.run(Cmd.MEMCPY, 0, 64, to=PAGE) == Cmd.ERROR
    assert world.last_fault() == (FaultReason.ATS_DENIED, 1, PAGE)
    assert world.run(Cmd.SUM64, 2 * PAGE, 64) == Cmd.ERROR
    assert world.last_fault() == (FaultReason.ATS_DENIED, 0, 2 * PAGE)
    assert world.load(UserFrame.udata, index=2) == IOVA + 2 * PAGE
    assert world.ats()[2] == AtsResult.DENIED
    assert world.data(0, 3 * PAGE) == before
    assert world.bench.events() == []


def test_no_access_is_not_cached(world: World) -> None:
    assert world.reads(0) is None
    assert world.load(AtcPage.entries) == 0
    world.map(0)
    assert world.reads(0) == world.word(0)


def test_a_stream_without_ats_answers_ur_and_says_so_in_an_event(world: World) -> None:
    world.map(0)
    world.bench.ste(SID, Config=STE_CONFIG.BYPASS)
    world.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID))
    assert world.reads(0) is None
    assert world.ats()[2] == AtsResult.UR
    assert world.last_fault()[0] == FaultReason.ATS_UR
    (event,) = world.bench.events()
    assert isinstance(event, F_BAD_ATS_TREQ)


def test_a_broken_stream_is_a_completer_abort_even_with_pri(world: World) -> None:
    world.use(ATS | PRI)
    world.bench.ste(SID, Config=STE_CONFIG.S1, S1ContextPtr=0x2000_0000, EATS=EATS.FULL)
    world.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID))
    assert world.reads(0) is None
    assert world.ats()[2] == AtsResult.CA
    assert world.last_fault()[0] == FaultReason.ATS_CA
    assert world.page_requests() == []


def test_the_least_recently_used_entry_gives_way() -> None:
    world = World(capacity=2)
    world.map(0, 1, 2)
    for page in (0, 1, 0, 2, 0):
        assert world.reads(page) == world.word(page)
    assert world.ats() == (2, 3, AtsResult.GRANTED)
    assert (world.load(AtcPage.capacity), world.load(AtcPage.entries), world.load(AtcPage.evictions)) == (2, 2, 1)
    world.unmap(0, 1)
    assert world.reads(0) == world.word(0), "page 0 is still there"
    assert world.reads(1) is None, "page 1 gave way"


def test_a_reset_empties_the_cache(world: World) -> None:
    world.map(0)
    assert world.reads(0) is not None
    world.engine.reset()
    world.unmap(0)
    world.use(ATS)
    assert world.load(AtcPage.entries) == 0
    assert world.reads(0) is None


# -- invalidations -----------------------------------------------------------------------------------------------


def test_an_unmapped_page_is_in_use_until_the_atc_is_invalidated_too(world: World) -> None:
    world.map(0)
    assert world.reads(0) == world.word(0)
    world.unmap(0)
    assert world.reads(0) == world.word(0), "CMD_TLBI does not reach the ATC"
    world.use(0, frame=1)
    assert world.reads(0, frame=1) is None, "but it does reach the SMMU's TLB"
    (event,) = world.bench.events()
    assert isinstance(event, F_TRANSLATION)
    world.forget(0)
    assert world.sync()
    assert world.reads(0) is None
    assert world.bench.events() == []
    assert world.load(AtcPage.invalidations) == 1


def test_a_page_that_moved_is_found_only_after_an_invalidation(world: World) -> None:
    world.map(0)
    assert world.reads(0) == world.word(0)
    world.unmap(0)
    world.map(0, at=5)
    assert world.reads(0) == world.word(0)
    world.forget(0)
    assert world.sync()
    assert world.reads(0) == world.word(5)


@pytest.mark.parametrize(
    ("page", "size", "left"),
    [(0, 0, [1, 2, 3, 4]), (1, 1, [2, 3, 4]), (2, 2, [4]), (4, 0, [0, 1, 2, 3]), (9, EVERYTHING, []), (8, 3, None)],
)
def test_an_invalidation_names_a_range(world: World, page: int, size: int, left: list[int] | None) -> None:
    """Its address is aligned down to its size: IOVA is a multiple of 8 pages."""
    world.map(*range(5))
    for each in range(5):
        assert world.reads(each) is not None
    world.unmap(*range(5))
    world.forget(page, size)
    assert world.sync()
    assert [each for each in range(5) if world.reads(each)] == (list(range(5)) if left is None else left)


def test_an_invalidation_within_a_block_drops_all_of_it(world: World) -> None:
    world.table.map(0x4000_0000, world.bench.ram.alloc(0x20_0000), level=2)
    world.run(Cmd.SUM64, 0x4000_0000 - IOVA, 8)
    assert world.load(AtcPage.entries) == 1
    world.bench.invalidate(c.CMD_ATC_INV.of(SID=SID, Address=0x4010_0000, Size=0))
    assert world.load(AtcPage.entries) == 0


def test_another_streams_entries_stay(world: World) -> None:
    world.bench.stream(OTHER, table=world.table, EATS=EATS.FULL)
    world.map(0)
    world.store(PrivilegedFrame.streamid, OTHER, frame=1)
    assert [world.reads(0, frame) is not None for frame in (0, 1)] == [True, True]
    world.unmap(0)
    world.forget(0, EVERYTHING)
    assert world.sync()
    assert [world.reads(0, frame) is not None for frame in (0, 1)] == [False, True]


def test_each_pasid_has_entries_of_its_own(world: World) -> None:
    tables = world.substreams()
    assert world.reads(0, ssid=1) == world.word(0)
    assert world.reads(0, ssid=2) == world.word(1)
    assert world.reads(0) is None, "S1DSS terminates what has none"
    assert world.load(AtcPage.entries) == 2
    for table in tables:
        table.unmap(IOVA)
    world.bench.invalidate(c.CMD_TLBI_NH_ALL.of())
    world.forget(0, SSV=1, SSID=1)
    assert world.sync()
    assert (world.reads(0, ssid=1), world.reads(0, ssid=2)) == (None, world.word(1))


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ({}, 0),
        ({"SSV": 1, "SSID": 1}, 2),
        ({"SSV": 1, "SSID": 3}, 3),
        ({"SSV": 1, "SSID": 3, "Global": 1}, 1),
        ({"SSID": 1, "Global": 1}, 0),
    ],
    ids=["without", "pasid", "nobody's", "global", "global without a PASID is ignored"],
)
def test_which_pasids_an_invalidation_means(world: World, how: dict[str, int], left: int) -> None:
    """Without a PASID all are meant, with Global all that have one."""
    world.substreams(S1DSS=S1DSS.SSID0)
    cds = STE.from_bytes(world.bench.ram.get(world.bench.strtab + SID * STE.size, STE.size)).S1ContextPtr
    world.bench.cd(cds, world.table, ASID=7)
    world.bench.invalidate(c.CMD_CFGI_CD_ALL.of(SID=SID))
    world.map(0)
    for ssid in (NO_SSID, 1, 2):
        assert world.reads(0, ssid=ssid) is not None
    assert world.load(AtcPage.entries) == 3
    world.forget(0, **how)
    assert world.sync()
    assert world.load(AtcPage.entries) == left


def test_privileged_and_unprivileged_entries_are_apart(world: World) -> None:
    (table, _) = world.substreams()
    table.map(IOVA + PAGE, world.pages, AP=0)
    world.store(UserFrame.attributes, AS_PRIVILEGED)
    assert world.reads(1, ssid=1) == world.word(0)
    world.store(UserFrame.attributes, 0)
    assert world.reads(1, ssid=1) is None, "the entry was the privileged part's"


def test_execution_is_a_permission_of_its_own(world: World) -> None:
    (table, _) = world.substreams()
    table.map(IOVA + PAGE, world.pages, UXN=1)
    assert world.reads(1, ssid=1) == world.word(0)
    world.store(UserFrame.attributes, INSTRUCTION)
    assert world.reads(1, ssid=1) is None, "what may be read is not to be executed"
    assert world.reads(0, ssid=1) == world.word(0)
    assert world.ats()[:2] == (0, 3)


# -- CMD_SYNC and invalidations that do not complete ---------------------------------------------------------------


def test_cmd_sync_waits_for_an_invalidation_that_is_held(world: World) -> None:
    world.map(0)
    assert world.reads(0) is not None
    world.unmap(0)
    world.store(AtcPage.answering, Answering.HOLD)
    world.forget(0)
    assert world.synced(), "only CMD_SYNC waits"
    assert not world.sync()
    assert world.load(AtcPage.invalidations_held) == 1
    assert world.reads(0) == world.word(0), "until it completes the entry is in use"
    assert not world.synced()
    world.store(AtcPage.answering, Answering.COMPLETE)
    assert world.synced()
    assert world.load(AtcPage.invalidations_held) == 0
    assert world.reads(0) is None


def test_an_invalidation_that_times_out_is_an_error_of_the_next_cmd_sync(world: World) -> None:
    world.map(0)
    assert world.reads(0) is not None
    world.unmap(0)
    world.store(AtcPage.answering, Answering.HOLD)
    world.forget(0)
    assert not world.sync()
    assert world.bench.active_errors == 0
    world.store(AtcPage.answering, Answering.TIME_OUT)
    assert world.bench[CMDQ_CONS].ERR == CommandError.CERROR_ATC_INV_SYNC
    assert world.bench.active_errors == GERROR.CMDQ_ERR.mask
    assert world.reads(0) == world.word(0), "nothing was forgotten"
    world.store(AtcPage.answering, Answering.COMPLETE)
    world.bench.acknowledge()
    assert world.synced(), "the CMD_SYNC does it the second time"
    world.forget(0)
    assert world.sync()
    assert world.reads(0) is None


def test_an_atc_can_be_made_to_time_out_at_once(world: World) -> None:
    world.store(AtcPage.answering, Answering.TIME_OUT)
    world.forget(0)
    assert not world.sync()
    assert world.bench[CMDQ_CONS].ERR == CommandError.CERROR_ATC_INV_SYNC


def test_no_more_invalidations_are_held_than_the_queue_of_pcie_takes(world: World) -> None:
    world.store(AtcPage.answering, Answering.HOLD)
    for _ in range(33):
        world.forget(0)
    assert world.load(AtcPage.invalidations_held) == 32
    assert not world.sync()
    world.store(AtcPage.answering, Answering.COMPLETE)
    assert world.bench[CMDQ_CONS].ERR == CommandError.CERROR_ATC_INV_SYNC


def test_a_reset_of_the_engine_completes_what_it_held(world: World) -> None:
    world.store(AtcPage.answering, Answering.HOLD)
    world.forget(0)
    assert not world.sync()
    world.engine.reset()
    assert world.synced()
    assert world.bench.active_errors == 0
    assert world.load(AtcPage.answering) == Answering.COMPLETE


def test_what_the_machine_file_says_of_invalidations_comes_back_with_a_reset(world: World) -> None:
    world.port.atc = Atc("engine", world.smmu, (SID,), answering=Answering.HOLD)
    assert world.load(AtcPage.answering) == Answering.HOLD
    world.store(AtcPage.answering, Answering.COMPLETE)
    world.forget(0)
    assert world.sync()
    world.engine.reset()
    assert world.load(AtcPage.answering) == Answering.HOLD


def test_only_32_bit_writes_reach_the_atc_page(world: World) -> None:
    world.engine.write(ATC + AtcPage.answering.at, 1, Answering.HOLD)
    world.engine.write(ATC + AtcPage.answering.at + 2, 2, 1)
    assert world.load(AtcPage.answering) == Answering.COMPLETE
    world.store(AtcPage.answering, 3)
    assert world.load(AtcPage.answering) == Answering.HOLD, "the reserved value holds"
    for at in range(0, AtcPage.answering.at, 4):
        before = world.engine.read(ATC + at, 4)
        world.engine.write(ATC + at, 4, ~before & 0xFFFFFFFF)
        assert world.engine.read(ATC + at, 4) == before


# -- translated transactions ---------------------------------------------------------------------------------------


def test_translated_transactions_of_a_stream_without_ats_are_forbidden(world: World) -> None:
    world.map(0)
    assert world.reads(0) == world.word(0)
    world.bench.stream(SID, table=world.table)
    world.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID))
    assert world.reads(0) is None, "the ATC still has the entry"
    (event,) = world.bench.events()
    assert isinstance(event, F_TRANSL_FORBIDDEN)
    assert (event.SID, event.RnW, event.InputAddr) == (SID, 1, world.pages)
    assert world.last_fault() == (FaultReason.TERMINATED, 0, 0)


def test_without_atschk_they_pass_unchecked(world: World) -> None:
    world.map(0)
    assert world.reads(0) == world.word(0)
    world.bench.set(CR0, ATSCHK=0)
    world.bench.stream(SID, table=world.table)
    world.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID))
    assert world.reads(0) == world.word(0)
    assert world.bench.events() == []


def test_an_entry_of_split_stage_ats_is_translated_by_stage_2_each_time() -> None:
    world = World(ats="split", stage2=True)
    first, second = world.bench.nested(SID, EATS=EATS.SPLIT)
    world.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID))
    first.map(IOVA, world.pages + IPA_OFFSET)
    second.map(1 << 38, world.pages + 7 * PAGE)
    assert world.reads(0) == world.word(0)
    assert world.reads(0) == world.word(0)
    assert world.ats() == (1, 1, AtsResult.GRANTED)
    # Stage 1 changes: the ATC does not see it.
    first.map(IOVA, 1 << 38)
    world.bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())
    assert world.reads(0) == world.word(0)
    world.forget(0)
    assert world.sync()
    assert world.reads(0) == world.word(7)
    # Stage 2 changes: no ATC stands between.
    second.unmap(1 << 38)
    world.bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())
    assert world.reads(0) is None
    (event,) = world.bench.events()
    assert isinstance(event, F_TRANSLATION)
    assert (event.S2, event.InputAddr, event.STALL) == (1, 1 << 38, 0)
    assert world.ats() == (2 + 1, 2, AtsResult.GRANTED)


def test_an_msi_is_no_translated_transaction(world: World) -> None:
    world.map(0, 1)
    world.store(UserFrame.msiaddress, IOVA + PAGE)
    world.store(UserFrame.msidata, 0x12345678)
    assert world.reads(0) is not None
    assert world.data(PAGE, 4) == (0x12345678).to_bytes(4, "little")
    assert world.ats() == (0, 1, AtsResult.GRANTED)


def test_ats_and_pri_that_are_not_there_are_misconfigured() -> None:
    world = World(pri=False, pri_pasid=False)
    world.use(ATS | PRI)
    assert world.run(Cmd.SUM64, 0, 8) == Cmd.MISCONFIGURED
    world.use(PRI)
    assert world.run(Cmd.SUM64, 0, 8) == Cmd.MISCONFIGURED
    assert AtcPage.features(world.load(AtcPage.features)) == AtcPage.features.of(ATS=1)
    world.port.atc = None
    world.use(ATS)
    assert world.run(Cmd.SUM64, 0, 8) == Cmd.MISCONFIGURED
    assert [world.engine.read(ATC + at, 4) for at in range(0, 128, 4)] == [0] * 32


# -- page requests -------------------------------------------------------------------------------------------------


def test_a_copy_completes_once_its_pages_were_made_present(world: World) -> None:
    world.use(ATS | PRI)
    expected = world.data(0, PAGE)
    assert world.run(Cmd.MEMCPY, 0, PAGE, to=8 * PAGE) == Cmd.MEMCPY
    entry = world.page_request()
    assert (entry.SID, entry.SSV, entry.Last) == (SID, 0, 1)
    assert (entry.Address, entry.R, entry.W, entry.X, entry.Priv) == (IOVA, 1, 0, 0, 0)
    assert world.last_fault() == (FaultReason.PAGE_REQUESTED, 0, 0)
    world.map(0)
    assert world.cmd() == Cmd.MEMCPY, "the page alone resumes nothing"
    world.respond(entry)
    entry = world.page_request()
    assert (entry.Address, entry.R, entry.W) == (IOVA + 8 * PAGE, 0, 1)
    world.map(8)
    world.respond(entry)
    assert world.cmd() == Cmd.HALTED
    assert world.data(8 * PAGE, PAGE) == expected
    assert world.paging() == (2, 2, 0, 0)
    assert world.pulses == 1
    assert world.bench.events() == []


def test_a_write_across_pages_writes_each_byte_once(world: World) -> None:
    world.use(ATS | PRI)
    world.map(0, 8)
    expected = world.data(0, PAGE)
    world.run(Cmd.MEMCPY, 0, PAGE, to=0x8700)
    entry = world.page_request()
    assert (entry.Address, entry.W) == (IOVA + 9 * PAGE, 1)
    assert world.data(0x8700, 0x900) == expected[:0x900]
    world.bench.ram.put(world.pages + 0x8700, b"mine")
    world.map(9)
    world.respond(entry)
    assert world.cmd() == Cmd.HALTED
    assert world.data(0x8700, PAGE) == b"mine" + expected[4:]
    assert world.port.bytes_written == PAGE


@pytest.mark.parametrize(
    ("code", "counted"), [(c.PriResponse.INVALID, (1, 0, 1, 0)), (c.PriResponse.FAILURE, (1, 0, 0, 1))]
)
def test_a_refused_page_ends_the_command(world: World, code: int, counted: tuple[int, ...]) -> None:
    world.use(ATS | PRI)
    world.map(0)
    world.run(Cmd.MEMCPY, 0, 64, to=PAGE)
    world.respond(world.page_request(), code)
    assert world.cmd() == Cmd.ERROR
    assert world.load(UserFrame.udata, index=2) == IOVA + PAGE
    assert world.last_fault() == (FaultReason.PAGE_REFUSED, 1, PAGE)
    assert world.paging() == counted


def test_a_response_without_the_page_is_asked_for_again_so_often_and_not_more(world: World) -> None:
    world.use(ATS | PRI)
    world.store(ExtensionFrame.page_request_limit, 3)
    world.run(Cmd.SUM64, 0, 64)
    for _ in range(3):
        assert world.cmd() == Cmd.SUM64
        world.respond(world.page_request())
    assert world.cmd() == Cmd.ERROR
    assert world.last_fault() == (FaultReason.ATS_DENIED, 0, 0)
    assert world.page_requests() == []
    assert world.paging() == (3, 3, 0, 0)


def test_the_limit_is_for_each_address(world: World) -> None:
    world.use(ATS | PRI)
    world.store(ExtensionFrame.page_request_limit, 0)
    world.run(Cmd.MEMCPY, 0, 3 * PAGE, to=0x8700)
    for _ in range(7):
        entry = world.page_request()
        world.map((entry.Address - IOVA) // PAGE)
        world.respond(entry)
    assert world.cmd() == Cmd.HALTED
    assert world.paging() == (7, 7, 0, 0)


def test_an_overflow_of_the_queue_answers_success_and_a_retry_finds_room() -> None:
    """Two frames fill the queue; the third is answered at once, tries again, and gives up."""
    world = World(priq_bits=1)
    for frame in range(3):
        world.use(ATS | PRI, frame)
        world.run(Cmd.SUM64, frame * PAGE, 64, frame=frame)
    assert [world.cmd(frame) for frame in range(3)] == [Cmd.SUM64, Cmd.SUM64, Cmd.ERROR]
    assert world.bench[PRIQ_PROD].OVFLG == 1
    assert world.paging(2) == (8, 8, 0, 0)
    world.map(0, 1, 2)
    for entry in world.page_requests():
        world.respond(entry)
    assert [world.cmd(frame) for frame in range(2)] == [Cmd.HALTED] * 2
    assert world.run(Cmd.SUM64, 3 * PAGE, 64, frame=2) == Cmd.SUM64
    assert world.page_request().Address == IOVA + 3 * PAGE


def test_a_queue_that_is_drained_meanwhile_loses_nobody() -> None:
    """The other frames' commands go on between two tries."""
    pending: list[int] = []
    world = World(priq_bits=1, wake=lambda: pending.append(1))
    for frame in range(3):
        world.use(ATS | PRI, frame)
        world.store(ExtensionFrame.page_request_limit, 0xFFFF, frame)
        world.run(Cmd.SUM64, frame * PAGE, 64, frame=frame)
    world.map(0, 1, 2)
    tries = 0

    def drain() -> None:
        nonlocal tries
        tries += 1
        if tries == 20:
            for entry in world.page_requests():
                world.respond(entry)

    respond = world.atc.page_response

    def response(response: PageResponse) -> None:
        respond(response)
        drain()

    world.atc.page_response = response  # type: ignore[method-assign]
    while pending:
        pending.clear()
        world.engine.work()
    assert [world.cmd(frame) for frame in range(3)] == [Cmd.HALTED] * 3


def test_without_a_pri_queue_the_answer_is_a_failure(world: World) -> None:
    world.use(ATS | PRI)
    world.bench.set(CR0, PRIQEN=0)
    assert world.reads(0) is None
    assert world.last_fault() == (FaultReason.PAGE_REFUSED, 0, 0)
    assert world.paging() == (1, 0, 0, 1)


def test_a_handler_that_answers_within_the_request_is_not_lost(world: World) -> None:
    """Without threads the interrupt is taken inside of the request."""

    def handler(source: str, send: Callable[[], None]) -> Verdict:
        if source == "priq":
            entry = world.page_request()
            world.map((entry.Address - IOVA) // PAGE)
            world.respond(entry)
        return Verdict.IGNORE

    world.smmu.seams.wire = handler
    world.bench[IRQ_CTRL] = IRQ_CTRL.of(PRIQ_IRQEN=1)
    world.use(ATS | PRI)
    expected = world.data(0, 4 * PAGE)
    assert world.run(Cmd.MEMCPY, 0, 4 * PAGE, to=8 * PAGE) == Cmd.HALTED
    assert world.data(8 * PAGE, 4 * PAGE) == expected
    assert world.paging() == (8, 8, 0, 0)


def test_a_page_request_carries_its_pasid_and_group_and_its_response_too(world: World) -> None:
    world.substreams()
    world.use(ATS | PRI, frame=2)
    world.run(Cmd.SUM64, PAGE, 64, frame=2, ssid=2)
    entry = world.page_request()
    assert (entry.SSV, entry.SSID, entry.PRGIndex) == (1, 2, 2)
    for wrong in ({"SSID": 1}, {"PRGIndex": 1}, {"SID": OTHER}):
        world.respond(entry, c.PriResponse.FAILURE, **wrong)
        assert world.cmd(2) == Cmd.SUM64
    assert world.load(AtcPage.page_responses_unexpected) == 3
    world.respond(entry, c.PriResponse.INVALID, SSV=0)
    assert world.cmd(2) == Cmd.ERROR, "a response need not say the PASID"


@pytest.mark.parametrize("ssid", [2, NO_SSID])
def test_a_page_request_says_privilege_and_execution_if_it_has_a_pasid(world: World, ssid: int) -> None:
    world.substreams(S1DSS=S1DSS.SSID0)
    cds = STE.from_bytes(world.bench.ram.get(world.bench.strtab + SID * STE.size, STE.size)).S1ContextPtr
    world.bench.cd(cds, world.table, ASID=7)
    world.bench.invalidate(c.CMD_CFGI_CD_ALL.of(SID=SID))
    tagged = int(ssid != NO_SSID)
    for attributes, cmd in ((AS_PRIVILEGED, Cmd.SUM64), (INSTRUCTION, Cmd.SUM64), (INSTRUCTION, Cmd.RAND48)):
        world.store(UserFrame.attributes, attributes)
        world.use(ATS | PRI)
        world.run(cmd, 5 * PAGE, 64, ssid=ssid)
        entry = world.page_request()
        reads = int(cmd == Cmd.SUM64)
        privileged, execute = int(attributes == AS_PRIVILEGED), int(attributes == INSTRUCTION)
        said = [entry.SSV, entry.R, entry.W, entry.Priv, entry.X]
        assert said == [tagged, reads, 1 - reads, tagged & privileged, tagged & execute & reads]
        world.respond(entry, c.PriResponse.INVALID)
        assert world.cmd() == Cmd.ERROR


def test_a_response_to_nobody_is_counted_and_does_no_harm(world: World) -> None:
    world.atc.page_response(PageResponse(SID, 5, PrgResponse.SUCCESS))
    assert world.load(AtcPage.page_responses_unexpected) == 1


def test_frames_wait_for_pages_each_for_itself(world: World) -> None:
    for frame in range(3):
        world.use(ATS | PRI, frame)
    world.map(2)
    world.run(Cmd.SUM64, 0, 64)
    world.run(Cmd.SUM64, PAGE, 64, frame=1)
    assert world.reads(2, frame=2) == world.word(2)
    first, second = world.page_requests()
    assert (first.PRGIndex, second.PRGIndex) == (0, 1)
    world.map(0, 1)
    world.respond(second)
    assert (world.cmd(0), world.cmd(1)) == (Cmd.SUM64, Cmd.HALTED)
    world.respond(first)
    assert world.cmd(0) == Cmd.HALTED


def test_transfers_of_one_frame_share_its_group(world: World) -> None:
    world.use(ATS | PRI)
    world.store(ExtensionFrame.inflight, 4)
    world.run(Cmd.SUM64, 0, 4 * PAGE)
    expected = world.data(0, 4 * PAGE)
    asked = []
    while world.cmd() == Cmd.SUM64:
        entry = world.page_request()
        asked.append((entry.Address - IOVA) // PAGE)
        world.map(asked[-1])
        world.respond(entry)
    assert world.cmd() == Cmd.HALTED
    assert sorted(asked) == [0, 1, 2, 3]
    words = (int.from_bytes(expected[at : at + 8], "little") for at in range(0, len(expected), 8))
    assert world.load(UserFrame.udata, index=1) == sum(words) % 2**64
    assert world.paging() == (4, 4, 0, 0)


def test_a_refused_page_of_one_transfer_leaves_none_waiting(world: World) -> None:
    world.use(ATS | PRI)
    world.store(ExtensionFrame.inflight, 4)
    world.run(Cmd.SUM64, 0, 4 * PAGE)
    for _ in range(4):
        assert world.cmd() == Cmd.SUM64
        world.respond(world.page_request(), c.PriResponse.INVALID)
    assert world.cmd() == Cmd.ERROR
    assert world.paging() == (4, 0, 4, 0)


def test_a_reset_forgets_those_that_wait(world: World) -> None:
    world.use(ATS | PRI)
    before = world.data(0, 2 * PAGE)
    world.run(Cmd.RAND48, 0, 64)
    entry = world.page_request()
    world.engine.reset()
    world.map(0)
    world.respond(entry)
    assert world.data(0, 2 * PAGE) == before
    assert world.cmd() == Cmd.HALTED
    assert world.load(AtcPage.page_responses_unexpected) == 1
    world.use(ATS | PRI)
    assert world.run(Cmd.RAND48, PAGE, 64) == Cmd.RAND48
    world.map(1)
    world.respond(world.page_request())
    assert world.cmd() == Cmd.HALTED
    assert world.data(PAGE, PAGE) != before[PAGE:]


def test_what_is_unmapped_again_before_the_retry_is_asked_for_again() -> None:
    woken: list[int] = []
    world = World(wake=lambda: woken.append(1))
    world.use(ATS | PRI)
    world.run(Cmd.SUM64, 0, 64)
    world.engine.work()
    entry = world.page_request()
    world.map(0)
    world.respond(entry)
    world.unmap(0)
    world.engine.work()
    assert world.cmd() == Cmd.SUM64
    assert world.page_request().Address == IOVA


@pytest.mark.parametrize("how", ["another PASID", "no PASID", "another stream", "PRI off"])
def test_a_stop_marker_follows_when_a_frame_leaves_its_pasid(world: World, how: str) -> None:
    world.substreams()
    world.use(ATS | PRI)
    world.run(Cmd.SUM64, PAGE, 64, ssid=1)
    world.respond(world.page_request(), c.PriResponse.INVALID)
    assert world.cmd() == Cmd.ERROR
    world.store(PrivilegedFrame.substreamid, 1)
    assert world.page_requests() == []
    match how:
        case "another PASID":
            world.store(PrivilegedFrame.substreamid, 2)
        case "no PASID":
            world.store(PrivilegedFrame.substreamid, NO_SSID)
        case "another stream":
            world.store(PrivilegedFrame.streamid, OTHER)
        case _:
            world.use(ATS)
    entry = world.page_request()
    assert (entry.SID, entry.SSV, entry.SSID) == (SID, 1, 1)
    assert (entry.Last, entry.R, entry.W) == (1, 0, 0)
    world.store(PrivilegedFrame.substreamid, 1)
    world.store(PrivilegedFrame.substreamid, 2)
    assert world.page_requests() == [], "one is enough"


def test_who_asked_without_a_pasid_sends_no_stop_marker(world: World) -> None:
    world.use(ATS | PRI)
    world.run(Cmd.SUM64, 0, 64)
    world.respond(world.page_request(), c.PriResponse.INVALID)
    world.store(PrivilegedFrame.substreamid, 1)
    world.use(0)
    assert world.page_requests() == []


def test_the_smmus_lock_is_held_from_the_lookup_to_the_access(world: World) -> None:
    """Or else an invalidation could complete between the two."""
    depth = 0
    seen: list[int] = []

    class Held(nullcontext[None]):
        def __enter__(self) -> None:
            nonlocal depth
            depth += 1

        def __exit__(self, *_: object) -> None:
            nonlocal depth
            depth -= 1

    read, memory = world.bench.ram.memory.read, world.bench.ram.memory

    def looking(pa: int, size: int) -> bytes | None:
        if pa == world.pages:
            seen.append(depth)
        return read(pa, size)

    world.map(0)
    object.__setattr__(world.port, "_hold", Held())  # which is no seam
    object.__setattr__(memory, "read", looking)
    assert world.reads(0) is not None
    assert world.reads(0) is not None
    assert len(seen) == 2
    assert min(seen) >= 1
    assert depth == 0
