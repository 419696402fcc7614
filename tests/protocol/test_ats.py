# SPDX-License-Identifier: Apache-2.0
"""ATS and PRI in a served machine: pages move under a running copy; its guest answers where it polls."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.protocol.test_daemon import BAR2, IOVA, Guest, GuestRam, eventually
from tests.smmu_builder import PageTable
from vhost_iommu.config import parse_machine
from vhost_iommu.daemon import Daemon
from vhost_iommu.layout import Register
from vhost_iommu.masters.atc import Answering
from vhost_iommu.masters.engine import PAGE as REGISTERS
from vhost_iommu.masters.engine import PAIR, AtcPage, Cmd, ExtensionFrame, PrivilegedFrame
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import PRIEntry
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, CR0, PRIQ_BASE, PRIQ_CONS, PRIQ_PROD
from vhost_iommu.smmu.v3.structures import EATS

MACHINE = """
[guest]
kind = "linux"

[[smmu]]
name = "smmu0"
stream_id_bits = 6
ats = "full"
pri = true

[[master]]
name = "engine0"
kind = "engine"
smmu = "smmu0"
stream_ids = [1]
atc_entries = 32
"""
PAGE = 0x1000
PAGES = 64
PRIQ_BITS = 2
ATS = PrivilegedFrame.pctrl.ATS_ENABLE.mask | PrivilegedFrame.pctrl.PRI_ENABLE.mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # pytest's folders may be deeper than a socket's path can be long.
    return tmp_path if len(str(tmp_path)) <= 90 else Path(os.path.relpath(tmp_path))


@pytest.fixture
def daemon(folder: Path) -> Iterator[Daemon]:
    threads = threading.active_count()
    made = Daemon(parse_machine(MACHINE), folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
    assert made.failure is None
    assert threading.active_count() == threads


class Paging(Guest):
    """A guest whose stream 1 uses ATS and PRI, with ``PAGES`` pages of noise, of which page n is at ``at[n]``."""

    def __init__(self, path: Path, ram: GuestRam) -> None:
        super().__init__(path, ram)
        self.priq = self.ram.alloc(PRIEntry.size << PRIQ_BITS)
        self[PRIQ_BASE] = PRIQ_BASE.of(ADDR=self.priq, LOG2SIZE=PRIQ_BITS)
        self.set(CR0, PRIQEN=1)
        self.table: PageTable = self.stream(1, EATS=EATS.FULL)
        noise = self.ram.alloc(PAGES * PAGE, PAGE)
        self.ram.put(noise, os.urandom(PAGES * PAGE))
        self.at = [noise + n * PAGE for n in range(PAGES)]
        self.spare = self.ram.alloc(PAGE, PAGE)
        self.store(PAIR // 2 + PrivilegedFrame.pctrl.at, 4, ATS)

    def map(self, *pages: int) -> None:
        for page in pages:
            self.table.map(IOVA + page * PAGE, self.at[page])

    def revoke(self, page: int) -> None:
        """When it returns, nobody uses the page's memory any more."""
        self.table.unmap(IOVA + page * PAGE)
        self.invalidate(c.CMD_TLBI_NSNH_ALL.of())
        self.invalidate(c.CMD_ATC_INV.of(SID=1, Address=IOVA + page * PAGE, Size=0))

    def move(self, page: int) -> None:
        """To the spare memory; what was there is spoilt, and is spare now."""
        self.revoke(page)
        old, new = self.at[page], self.spare
        self.ram.put(new, self.ram.get(old, PAGE))
        self.ram.put(old, b"\xee" * PAGE)
        self.at[page], self.spare = new, old
        self.map(page)

    def pages(self, first: int, count: int) -> bytes:
        return b"".join(self.ram.get(pa, PAGE) for pa in self.at[first : first + count])

    def page_requests(self) -> list[PRIEntry]:
        found = []
        prod, rd = self[PRIQ_PROD], self[PRIQ_CONS].RD
        while rd != prod.WR:
            slot = self.priq + PRIEntry.size * (rd & (1 << PRIQ_BITS) - 1)
            found.append(PRIEntry.from_bytes(self.ram.get(slot, PRIEntry.size)))
            rd = rd + 1 & (2 << PRIQ_BITS) - 1
        self[PRIQ_CONS] = PRIQ_CONS.of(RD=rd, OVACKFLG=prod.OVFLG)
        return found

    def page_request(self) -> PRIEntry:
        """The next, which must be alone."""
        found: list[PRIEntry] = []

        def came() -> bool:
            found.extend(self.page_requests())
            return bool(found)

        assert eventually(came), "no page is asked for"
        (entry,) = found
        return entry

    def respond(self, entry: PRIEntry, code: int = c.PriResponse.SUCCESS) -> None:
        self.submit(c.CMD_PRI_RESP.of(SID=1, PRGIndex=entry.PRGIndex, Resp=code))

    def load(self, register: type[Register], page: int = PAIR) -> int:
        return self.client.read_int(BAR2, page + register.at, register.size)

    def atc(self, register: type[Register]) -> int:
        return self.load(register, PAIR + REGISTERS)

    def answer_invalidations(self, answering: Answering) -> None:
        self.store(PAIR + REGISTERS + AtcPage.answering.at, 4, answering)

    def synced(self) -> bool:
        return bool(self[CMDQ_CONS].RD == self[CMDQ_PROD].WR)


@pytest.fixture
def guest(daemon: Daemon) -> Iterator[Paging]:
    ram = GuestRam()
    made = Paging(Path(daemon.sockets[0]), ram)
    with made.client:
        yield made
    ram.close()


def test_no_transfer_is_lost_between_a_guest_that_answers_page_requests_and_a_worker(guest: Paging) -> None:
    half = PAGES // 2
    expected = guest.pages(0, half)
    guest.store(PAIR + ExtensionFrame.inflight.at, 4, 8)
    guest.copy(IOVA, IOVA + half * PAGE, half * PAGE)
    while guest.state() == Cmd.MEMCPY:
        for entry in guest.page_requests():
            guest.map((entry.Address - IOVA) // PAGE)
            guest.respond(entry)
    assert guest.state() == Cmd.HALTED
    assert guest.pages(half, half) == expected
    assert guest.load(ExtensionFrame.page_requests) == guest.load(ExtensionFrame.page_successes) == PAGES


@pytest.mark.parametrize("seed", range(4))
def test_pages_that_move_under_a_running_copy_lose_no_byte(guest: Paging, seed: int) -> None:
    """Once CMD_SYNC says that a page is invalidated its memory is neither read nor written any more."""
    random = Random(seed)
    half = PAGES // 2
    guest.map(*range(PAGES))
    guest.store(PAIR + ExtensionFrame.inflight.at, 4, 4)
    guest.store(PAIR + ExtensionFrame.page_request_limit.at, 4, 0xFFFF)
    moves = 0
    for _ in range(6):
        expected = guest.pages(0, half)
        guest.copy(IOVA, IOVA + half * PAGE, half * PAGE)
        while guest.state() == Cmd.MEMCPY:
            guest.move(random.randrange(PAGES))
            moves += 1
            for entry in guest.page_requests():
                guest.respond(entry)
        assert guest.state() == Cmd.HALTED
        assert guest.pages(half, half) == expected
        assert guest.ram.get(guest.spare, PAGE) in (b"\xee" * PAGE, bytes(PAGE))
        guest.ram.put(guest.at[0], random.randbytes(PAGE))
    assert guest.atc(AtcPage.invalidations) == moves


def test_an_invalidation_that_is_held_keeps_nothing_but_cmd_sync(guest: Paging) -> None:
    guest.map(0, 1)
    guest.copy(IOVA, IOVA + PAGE, PAGE)
    assert guest.ended() == Cmd.HALTED
    guest.answer_invalidations(Answering.HOLD)
    guest.submit(c.CMD_ATC_INV.of(SID=1, Address=IOVA, Size=0), c.CMD_SYNC.of())
    assert eventually(lambda: guest.atc(AtcPage.invalidations_held) == 1)
    guest.copy(IOVA, IOVA + PAGE, PAGE)
    assert guest.ended() == Cmd.HALTED
    assert not guest.synced()
    guest.answer_invalidations(Answering.COMPLETE)
    assert eventually(guest.synced)
    assert guest.atc(AtcPage.entries) == 1


def test_a_device_reset_forgets_what_waits_and_what_is_cached(guest: Paging) -> None:
    guest.map(0)
    guest.copy(IOVA, IOVA + PAGE, PAGE)
    entry = guest.page_request()
    assert guest.atc(AtcPage.entries) == 1
    guest.answer_invalidations(Answering.HOLD)
    guest.submit(c.CMD_ATC_INV.of(SID=1, Address=IOVA, Size=0), c.CMD_SYNC.of())
    before = guest.pages(1, 1)
    guest.client.reset()
    assert (guest.atc(AtcPage.entries), guest.atc(AtcPage.invalidations_held)) == (0, 0)
    assert guest.state() == Cmd.HALTED
    guest.client.write_int(7, 4, 2, 6)  # memory space, bus master
    guest.start()
    guest.map(1)
    guest.respond(entry)
    assert guest.state() == Cmd.HALTED
    assert guest.pages(1, 1) == before
    assert guest.atc(AtcPage.page_responses_unexpected) == 1
