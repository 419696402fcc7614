# SPDX-License-Identifier: Apache-2.0
"""Stalled DMA in a served machine: the guest answers faults on the connection on which it waits for the transfer."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.protocol.client import TIMEOUT
from tests.protocol.test_daemon import BAR2, DOORBELL, IOVA, Guest, GuestRam, eventually
from tests.smmu_builder import PageTable
from vhost_iommu.config import parse_machine
from vhost_iommu.daemon import Daemon, Watchdog
from vhost_iommu.layout import Register
from vhost_iommu.masters.engine import PAIR, Cmd, ExtensionFrame, UserFrame
from vhost_iommu.server import Alarm
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import F_TRANSLATION
from vhost_iommu.smmu.v3.registers import CR0, EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, IRQ_CTRL
from vhost_iommu.trace import Trace
from vhost_iommu.watch import Stalled, Watch

MACHINE = """
[guest]
kind = "linux"

[[smmu]]
name = "smmu0"
stream_id_bits = 6
stall_model = "both"
stall_max = 4
stall_watchdog = {watchdog}

[[master]]
name = "engine0"
kind = "engine"
smmu = "smmu0"
stream_ids = [1]
"""
PAGE = 0x1000
PAGES = 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # pytest's folders may be deeper than a socket's path can be long.
    return tmp_path if len(str(tmp_path)) <= 90 else Path(os.path.relpath(tmp_path))


@pytest.fixture
def watchdog() -> float:
    """Seconds; a test that wants another value overrides this by a parameter."""
    return 0.0


@pytest.fixture
def trace() -> Trace:
    return Trace.memory()


@pytest.fixture
def daemon(folder: Path, watchdog: float, trace: Trace) -> Iterator[Daemon]:
    threads = threading.active_count()
    made = Daemon(parse_machine(MACHINE.format(watchdog=watchdog)), folder, trace=trace)
    made.start()
    try:
        yield made
    finally:
        made.stop()
    assert made.failure is None
    assert threading.active_count() == threads


class Stalling(Guest):
    """A guest whose stream 1 stalls; of its ``PAGES`` pages of noise at IOVA those ``map`` names are mapped."""

    def __init__(self, path: Path, ram: GuestRam) -> None:
        super().__init__(path, ram)
        self.noise = self.ram.alloc(PAGES * PAGE, PAGE)
        self.ram.put(self.noise, os.urandom(PAGES * PAGE))
        self.table: PageTable = self.stream(1, cd={"S": 1})

    def map(self, *pages: int) -> None:
        for page in pages:
            self.table.map(IOVA + page * PAGE, self.noise + page * PAGE)

    def page(self, number: int, count: int = 1) -> bytes:
        return self.ram.get(self.noise + number * PAGE, count * PAGE)

    def fault(self) -> F_TRANSLATION:
        """The next record, which must be alone."""
        found: list[F_TRANSLATION] = []

        def came() -> bool:
            found.extend(event for event in self.events() if isinstance(event, F_TRANSLATION))
            return bool(found)

        assert eventually(came), "no fault is told"
        (event,) = found
        assert event.STALL
        return event

    def resume(self, event: F_TRANSLATION, **how: int) -> None:
        self.submit(c.CMD_RESUME.of(SID=1, STAG=event.STAG, **how))

    def extension(self, register: type[Register]) -> int:
        return self.client.read_int(BAR2, PAIR + register.at, register.size)


@pytest.fixture
def guest(daemon: Daemon) -> Iterator[Stalling]:
    ram = GuestRam()
    made = Stalling(Path(daemon.sockets[0]), ram)
    with made.client:
        yield made
    ram.close()


def test_registers_answer_and_commands_run_while_a_transfer_is_stalled_and_it_goes_on_when_resumed(
    guest: Stalling,
) -> None:
    guest.copy(IOVA, IOVA + 2 * PAGE, PAGE)
    read = guest.fault()
    assert guest.state() == Cmd.MEMCPY
    assert guest[CR0].SMMUEN == 1
    guest.store(UserFrame.seed.at + 128, 4, 7)
    assert guest.client.read_int(BAR2, UserFrame.seed.at + 128, 4) == 7
    guest.invalidate(c.CMD_TLBI_NSNH_ALL.of())
    assert guest.extension(ExtensionFrame.stalls_now) == 1
    guest.map(0, 2)
    guest.resume(read, Ac=1)
    assert guest.ended() == Cmd.HALTED
    assert guest.page(2) == guest.page(0)


@pytest.mark.parametrize("how", ["abort", "CMD_STALL_TERM", "CR0.SMMUEN"])
def test_software_that_terminates_a_stalled_transfer_ends_it(guest: Stalling, how: str) -> None:
    guest.map(0)
    guest.copy(IOVA, IOVA + 2 * PAGE, PAGE)
    event = guest.fault()
    guest.map(2)
    before = guest.page(2)
    if how == "abort":
        guest.resume(event, Ab=1)
    elif how == "CMD_STALL_TERM":
        guest.submit(c.CMD_STALL_TERM.of(SID=1))
    else:
        guest.set(CR0, SMMUEN=0)
    assert guest.ended() == Cmd.ERROR
    assert guest.page(2) == before


def test_no_transfer_is_lost_between_a_guest_that_maps_at_interrupts_and_a_worker(guest: Stalling) -> None:
    guest[EVENTQ_IRQ_CFG0] = EVENTQ_IRQ_CFG0.of(ADDR=DOORBELL)
    guest[EVENTQ_IRQ_CFG1] = 1
    guest[IRQ_CTRL] = IRQ_CTRL.of(EVENTQ_IRQEN=1)
    half = PAGES // 2
    expected = guest.page(0, half)
    guest.store(PAIR + ExtensionFrame.inflight.at, 4, 8)
    guest.copy(IOVA, IOVA + half * PAGE, half * PAGE)
    while guest.state() == Cmd.MEMCPY:
        for event in guest.events():
            assert isinstance(event, F_TRANSLATION)
            guest.map((event.InputAddr - IOVA) // PAGE)
            guest.resume(event, Ac=1)
    assert guest.state() == Cmd.HALTED
    assert guest.page(half, half) == expected
    assert guest.extension(ExtensionFrame.stalls) >= PAGES
    assert guest.extension(ExtensionFrame.stalls_now) == 0


def test_a_device_reset_ends_what_is_stalled_and_what_comes_later_moves_no_byte(guest: Stalling) -> None:
    guest.map(0)
    guest.copy(IOVA, IOVA + 2 * PAGE, PAGE)
    guest.fault()
    before = guest.page(0, PAGES)
    guest.client.reset()
    assert guest.state() == Cmd.HALTED
    guest.client.write_int(7, 4, 2, 6)  # memory space, bus master
    guest.start()
    guest.map(2, 4)
    guest.submit(c.CMD_RESUME.of(SID=1, STAG=0, Ac=1), c.CMD_RESUME.of(SID=1, STAG=1, Ac=1))
    guest.copy(IOVA, IOVA + 4 * PAGE, PAGE)
    assert guest.ended() == Cmd.HALTED
    assert guest.page(4) == guest.page(0)
    assert guest.page(0, 4) == before[: 4 * PAGE]


def test_a_daemon_stops_while_a_transfer_is_stalled(daemon: Daemon, guest: Stalling) -> None:
    guest.copy(IOVA, IOVA + 2 * PAGE, PAGE)
    event = guest.fault()
    guest.map(0, 2)
    before = guest.page(2)
    daemon.stop()
    # Somebody else who holds the SMMU answers: nobody goes on with it.
    daemon.machine.smmus["smmu0"].stalls.resume(1, event.STAG, retry=True, abort=False)
    assert guest.page(2) == before


# -- the watchdog ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watchdog", [0.05])
def test_what_is_not_resumed_is_told_once_in_log_and_trace(
    guest: Stalling, trace: Trace, caplog: pytest.LogCaptureFixture
) -> None:
    guest.copy(IOVA, IOVA + 2 * PAGE, PAGE)
    first = guest.fault()
    assert eventually(lambda: f"STAG {first.STAG} " in caplog.text)
    assert "no CMD_RESUME: read of StreamID 0x1 at 0x100000" in caplog.text
    # The write stalls too, and is told later; by then the first could have been told again.
    guest.map(0)
    guest.resume(first, Ac=1)
    second = guest.fault()
    assert eventually(lambda: f"STAG {second.STAG} " in caplog.text)
    told = [record for record in caplog.records if record.name == "vhost_iommu.smmu"]
    assert [record.levelno for record in told] == [logging.WARNING] * 2
    guest.submit(c.CMD_STALL_TERM.of(SID=1))
    assert guest.ended() == Cmd.ERROR
    traced = [record.args["STAG"] for record in trace.records if record.name == "not resumed"]
    assert traced == [first.STAG, second.STAG]


class Hour:
    """A clock and an alarm of which the test turns the hands."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append((self.now + seconds, call))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [entry for entry in self.calls if entry[0] <= self.now]
        self.calls = [entry for entry in self.calls if entry not in due]
        for _, call in due:
            call()


@pytest.fixture
def hour() -> Hour:
    return Hour()


def stalled(hour: Hour, key: int, stag: int, *, ended: bool = False) -> Stalled:
    waits = f"STAG {stag} is waiting"
    return Stalled(0, int(hour.now * 1e9), "smmu7", key, 1, key, 1, True, stag, waits, ended)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_a_stall_is_told_when_its_time_is_over_and_not_again(hour: Hour, caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog(Watch("smmu7"), 5, hour.after, lambda: hour.now)
    dog.stalled(stalled(hour, 1, 1))
    hour.advance(3)
    dog.stalled(stalled(hour, 2, 2))
    hour.advance(1.9)
    assert said(caplog) == []
    hour.advance(0.5)
    assert said(caplog) == ["smmu7: stalled 5.4 s, STAG 1 is waiting: write of StreamID 0x1 at 0x1"]
    hour.advance(100)
    assert said(caplog) == ["smmu7: stalled 102.4 s, STAG 2 is waiting: write of StreamID 0x1 at 0x2"]
    assert hour.calls == []
    dog.stalled(stalled(hour, 3, 3))
    hour.advance(5)
    assert len(said(caplog)) == 1


def test_a_stall_that_was_answered_in_time_is_not_told(hour: Hour, caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog(Watch("smmu7"), 5, hour.after, lambda: hour.now)
    dog.stalled(stalled(hour, 1, 1))
    dog.stalled(stalled(hour, 2, 2))
    dog.stalled(stalled(hour, 1, 1, ended=True))
    hour.advance(5)
    assert [line.split()[5] for line in said(caplog)] == ["2"]


def test_a_retry_that_stalls_again_has_its_time_again(hour: Hour, caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog(Watch("smmu7"), 5, hour.after, lambda: hour.now)
    dog.stalled(stalled(hour, 1, 1))
    hour.advance(4)
    dog.stalled(stalled(hour, 1, 9))
    hour.advance(1)
    assert said(caplog) == []
    hour.advance(5)
    assert [line.split()[5] for line in said(caplog)] == ["9"]


def test_without_a_watchdog_there_is_no_thread_for_it(guest: Stalling) -> None:
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


# -- the alarm ---------------------------------------------------------------------------------------------------


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    failures: list[Exception] = []
    made = Alarm("alarm", failures.append)
    yield made
    assert made.stop()
    assert failures == []


def test_an_alarm_calls_in_the_order_of_times_even_what_was_asked_for_before_its_start(alarm: Alarm) -> None:
    called: list[int] = []
    done = threading.Event()
    alarm.after(0.3, lambda: called.append(2))
    alarm.after(0.15, lambda: called.append(1))
    alarm.start()
    alarm.after(0.45, done.set)
    alarm.after(0, lambda: called.append(0))
    assert done.wait(TIMEOUT)
    assert called == [0, 1, 2]


def test_a_sooner_call_overtakes_the_one_that_an_alarm_waits_for(alarm: Alarm) -> None:
    alarm.start()
    soon = threading.Event()
    late: list[bool] = []
    alarm.after(3600, lambda: late.append(True))
    alarm.after(0, soon.set)
    assert soon.wait(TIMEOUT)
    assert late == []


def test_a_call_that_fails_is_told(alarm: Alarm) -> None:
    told: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    failing = Alarm("failing", told.put)

    def call() -> None:
        raise ZeroDivisionError

    failing.after(0, call)
    failing.start()
    assert isinstance(told.get(timeout=TIMEOUT), ZeroDivisionError)
    assert failing.stop()
