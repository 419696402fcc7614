# SPDX-License-Identifier: Apache-2.0
"""The test as the machine's CPU: by calls of the library and by a session as QEMU's, everything is the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import vhost_iommu
from tests.protocol.client import open_fds
from vhost_iommu import _core
from vhost_iommu.config import parse_machine
from vhost_iommu.guest.cpu import Cpu, SessionError
from vhost_iommu.guest.finding import Kept
from vhost_iommu.guest.folder import root
from vhost_iommu.guest.live import NeverStruckError
from vhost_iommu.lab.plain import plain
from vhost_iommu.layout import Layout
from vhost_iommu.masters.engine import PAGE, Cmd, PrivilegedFrame, UserFrame
from vhost_iommu.smmu.descriptors import S1LeafDescriptor, TableDescriptor
from vhost_iommu.smmu.v3.commands import CMD_SYNC, CMD_TLBI_NH_ALL
from vhost_iommu.smmu.v3.events import F_TRANSLATION
from vhost_iommu.smmu.v3.registers import (
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR0ACK,
    EVENTQ_BASE,
    EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1,
    EVENTQ_PROD,
    IDR0,
    IRQ_CTRL,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
)
from vhost_iommu.smmu.v3.structures import CD, STE, STE_CONFIG
from vhost_iommu.trace import Trace

STREAMS, CDS, COMMANDS, EVENTS, TABLES, DATA = (0x4001_0000 + n * 0x1_0000 for n in range(6))
WIRED = parse_machine('[guest]\nkind = "linux"\nmemory = "64M"\n[[smmu]]\nname = "smmu0"\ninterrupts = "wired"\n')
DOORBELL, IOVA, NOWHERE = 0x0900_0000, 0x1000_0000, 0x2000_0000


class Driver:
    """What software does with an SMMU and an engine: stream 1 has one page, from IOVA to DATA."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.commands = 0
        cpu.store(STREAMS + 64, STE.of(V=1, Config=STE_CONFIG.S1, S1ContextPtr=CDS))
        cpu.store(CDS, CD.of(V=1, AA64=1, T0SZ=25, TTB0=TABLES, IPS=4, EPD1=1, R=1, A=1))
        # 39 bits of addresses: levels 1 to 3.
        for level in range(2):
            index = IOVA >> 30 - 9 * level & 0x1FF
            table = TableDescriptor.of(TYPE=3).raw | TABLES + 0x1000 * (level + 1)
            cpu.store(TABLES + 0x1000 * level + 8 * index, table, 8)
        self.map(IOVA, DATA)
        cpu.write("smmu0", STRTAB_BASE, STRTAB_BASE.of(ADDR=STREAMS))
        cpu.write("smmu0", STRTAB_BASE_CFG, STRTAB_BASE_CFG.of(LOG2SIZE=4))
        cpu.write("smmu0", CMDQ_BASE, CMDQ_BASE.of(ADDR=COMMANDS, LOG2SIZE=8))
        cpu.write("smmu0", EVENTQ_BASE, EVENTQ_BASE.of(ADDR=EVENTS, LOG2SIZE=4))
        cpu.write("smmu0", EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG0.of(ADDR=DOORBELL))
        cpu.write("smmu0", EVENTQ_IRQ_CFG1, 77)
        cpu.write("smmu0", IRQ_CTRL, IRQ_CTRL.of(EVENTQ_IRQEN=1))
        cpu.write("smmu0", CR0, CR0.of(SMMUEN=1, CMDQEN=1, EVENTQEN=1))
        assert cpu.read("smmu0", CR0ACK) == cpu.read("smmu0", CR0)

    def map(self, iova: int, page: int) -> None:
        """A page within the same 2 MiB."""
        leaf = S1LeafDescriptor.of(TYPE=3, AF=1, SH=3, AP=1, nG=1).raw | page
        self.cpu.store(TABLES + 0x2000 + 8 * (iova >> 12 & 0x1FF), leaf, 8)

    def submit(self, *commands: Layout) -> None:
        for each in commands:
            self.cpu.store(COMMANDS + self.commands % 256 * 16, each)
            self.commands += 1
        self.cpu.write("smmu0", CMDQ_PROD, self.commands % 512)

    def copy(self, source: int, target: int, size: int) -> Cmd:
        """By the engine; how it ended."""
        user, privileged = self.cpu.address("engine0"), self.cpu.address("engine0") + PAGE
        for at, size_of, value in (
            (privileged + PrivilegedFrame.streamid.at, 4, 1),
            (user + UserFrame.begin.at, 8, source),
            (user + UserFrame.end_incl.at, 8, source + size - 1),
            (user + UserFrame.stride.at, 8, 1),
            (user + UserFrame.udata.at, 8, target),
            (user + UserFrame.cmd.at, 4, Cmd.MEMCPY),
        ):
            self.cpu.store(at, value, size_of)
        return Cmd(self.cpu.load(user + UserFrame.cmd.at))


@pytest.fixture(params=["library", "session"])
def session(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "session")


@pytest.fixture(params=["core", "reference"])
def cpu(request: pytest.FixtureRequest, session: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cpu]:
    if request.param == "core":
        request.getfixturevalue("core_is_built")
    monkeypatch.setenv(_core.PURE, str(int(request.param == "reference")))
    with vhost_iommu.without_guest("smmuv3-bare", session=session) as made:
        yield made


@pytest.fixture
def driver(cpu: Cpu) -> Driver:
    return Driver(cpu)


def test_commands_are_consumed_and_recorded_when_the_store_returns(cpu: Cpu, driver: Driver) -> None:
    with cpu.recording() as seen:
        driver.submit(CMD_TLBI_NH_ALL.of(), CMD_SYNC.of())
    assert seen.commands().names == ["CMD_TLBI_NH_ALL", "CMD_SYNC"]
    assert cpu.read("smmu0", CMDQ_CONS) == 2
    driver.submit(CMD_SYNC.of())
    assert len(seen.commands()) == 2


def test_dma_has_been_done_and_is_recorded_when_the_store_returns(cpu: Cpu, driver: Driver) -> None:
    cpu.store(DATA, b"sixteen bytes in")
    with cpu.recording() as seen:
        assert driver.copy(IOVA, IOVA + 0x100, 16) is Cmd.HALTED
        assert cpu.load_bytes(DATA + 0x100, 16) == b"sixteen bytes in"
    assert sorted(each.write for each in seen.dma) == [False, True]
    assert not seen.events


def test_a_fault_of_dma_is_an_event_an_interrupt_and_explained(cpu: Cpu, driver: Driver, tmp_path: Path) -> None:
    with cpu.recording() as seen:
        assert driver.copy(NOWHERE, IOVA, 8) is Cmd.ERROR
    assert seen.events.names == ["F_TRANSLATION"]
    assert cpu.read("smmu0", EVENTQ_PROD) == 1
    assert F_TRANSLATION.from_bytes(cpu.load_bytes(EVENTS, 32)).InputAddr == NOWHERE
    # The SMMU's message is before the engine's wire, which tells that it is done.
    assert cpu.interrupts()[0] == ("smmu0", None, DOORBELL, 77)
    assert cpu.interrupts() == []
    now = cpu.inside.explain(stream=1, address=NOWHERE)
    cpu.inside.dump(file=str(tmp_path / "dump"))
    later = Kept(tmp_path / "dump").execute("explain", stream=1, address=NOWHERE)
    assert "F_TRANSLATION" in str(now)
    assert later == plain(now)


def test_a_fault_that_is_asked_for_strikes_while_it_is_there(cpu: Cpu, driver: Driver) -> None:
    driver.submit(CMD_SYNC.of())
    with cpu.fault("cerror", smmu="smmu0") as fault:
        driver.submit(CMD_SYNC.of())
    assert fault.struck == 1
    assert CMDQ_CONS(cpu.read("smmu0", CMDQ_CONS)).ERR
    with pytest.raises(NeverStruckError), cpu.fault("drop-sync"):
        pass


def test_a_master_at_work_goes_astray_while_it_is_asked_for(cpu: Cpu, driver: Driver) -> None:
    assert driver.copy(IOVA, IOVA + 0x100, 8) is Cmd.HALTED
    with cpu.recording() as seen, cpu.fault("wrong-address") as fault:
        assert driver.copy(IOVA, IOVA + 0x100, 8) is Cmd.ERROR
    assert (fault.struck, seen.events.names) == (1, ["F_TRANSLATION"])
    assert driver.copy(IOVA, IOVA + 0x100, 8) is Cmd.HALTED


def test_a_reset_is_as_of_power_on_and_memory_stays(cpu: Cpu, driver: Driver) -> None:
    cpu.store(DATA, b"stays")
    cpu.reset()
    assert cpu.read("smmu0", CR0) == 0
    assert cpu.load_bytes(DATA, 5) == b"stays"
    assert Driver(cpu).copy(IOVA, IOVA + 0x100, 8) is Cmd.HALTED


def test_what_is_recorded_by_a_session_is_what_is_recorded_by_the_library() -> None:
    def recorded(session: bool) -> list[str]:
        with vhost_iommu.without_guest("smmuv3-bare", session=session) as cpu:
            driver = Driver(cpu)
            with cpu.recording() as seen:
                driver.copy(IOVA, IOVA + 0x100, 64)
                driver.copy(NOWHERE, IOVA, 8)
                driver.submit(CMD_TLBI_NH_ALL.of(), CMD_SYNC.of())
        return [line.partition("] ")[2] or line.split(maxsplit=1)[1] for line in seen.text.splitlines()]

    # Beside what each store has a session read, and whose thread it was that told first.
    def kinds(lines: list[str]) -> list[str]:
        return sorted(line for line in lines if " read " not in line and " access" not in line)

    assert kinds(recorded(True)) == kinds(recorded(False)) != []


def test_a_wired_interrupt_is_told_by_its_name(session: bool) -> None:
    with vhost_iommu.without_guest(WIRED, session=session) as cpu:
        cpu.write("smmu0", CMDQ_BASE, CMDQ_BASE.of(ADDR=COMMANDS, LOG2SIZE=8))
        cpu.write("smmu0", CR0, CR0.of(CMDQEN=1))
        cpu.store(COMMANDS, CMD_SYNC.of(CS=1))
        cpu.write("smmu0", CMDQ_PROD, 1)
        (told,) = cpu.interrupts()
        assert told.source == "cmdq-sync"


def test_each_function_of_a_machine_is_reached(session: bool) -> None:
    with vhost_iommu.without_guest("two-smmus", session=session) as cpu:
        assert len(cpu.machine.functions) == 2
        for name in cpu.machine.smmus:
            assert cpu.read(name, IDR0)


def test_a_trace_has_what_happened(session: bool) -> None:
    trace = Trace.memory()
    with vhost_iommu.without_guest("smmuv3-bare", session=session, trace=trace) as cpu:
        Driver(cpu).submit(CMD_SYNC.of())
    assert "CMD_SYNC" in [record.name for record in trace.records]


def test_a_connection_that_the_machine_closes_is_told_of_in_a_sentence() -> None:
    with vhost_iommu.without_guest("smmuv3-bare", session=True, faults=["dead-daemon after=20"]) as cpu:

        def reads() -> None:
            for _ in range(30):
                cpu.read("smmu0", IDR0)

        with pytest.raises(SessionError, match=r"^smmu0 has closed the connection"):
            reads()


def test_many_interrupts_at_once_are_all_taken() -> None:
    with vhost_iommu.without_guest(WIRED, session=True) as cpu:
        cpu.write("smmu0", CMDQ_BASE, CMDQ_BASE.of(ADDR=COMMANDS, LOG2SIZE=10))
        cpu.write("smmu0", CR0, CR0.of(CMDQEN=1))
        cpu.store(COMMANDS, CMD_SYNC.of(CS=1).to_bytes() * 1000)
        cpu.write("smmu0", CMDQ_PROD, 1000)
        assert len(cpu.interrupts()) == 1000


def test_a_session_leaves_no_thread_descriptor_or_socket() -> None:
    def once() -> None:
        with vhost_iommu.without_guest("smmuv3-bare", session=True) as cpu:
            cpu.read("smmu0", IDR0)

    once()
    threads, fds = threading.active_count(), open_fds()
    folders = sorted(os.listdir(root()))
    once()
    assert (threading.active_count(), open_fds()) == (threads, fds)
    assert sorted(os.listdir(root())) == folders
