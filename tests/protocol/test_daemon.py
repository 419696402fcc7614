# SPDX-License-Identifier: Apache-2.0
"""The daemon over real sockets: guest RAM in a memfd, registers by REGION_WRITE, DMA, interrupts, and an end.

A client here does what QEMU does for a guest; tests wait for messages and states, never for a time.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.protocol.client import TIMEOUT, TestClient, open_fds, ram
from tests.smmu_builder import RAM_BASE, Bench, Ram
from vhost_iommu import _core
from vhost_iommu import daemon as daemon_module
from vhost_iommu.config import MachineConfig, parse_machine
from vhost_iommu.daemon import CLIENT_DESCRIPTORS, OWN_MAPPINGS, Daemon
from vhost_iommu.errors import UsageError
from vhost_iommu.masters.engine import Cmd, PrivilegedFrame, UserFrame
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.memory import MAX_WINDOWS
from vhost_iommu.shared import kernel_copies
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import F_TRANSLATION
from vhost_iommu.smmu.v3.instance import COMMAND_BURST
from vhost_iommu.smmu.v3.registers import (
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1,
    GERROR,
    IRQ_CTRL,
    IRQ_CTRLACK,
)
from vhost_iommu.vfio import wire
from vhost_iommu.vfio.wire import Region

MACHINE = """
[guest]
kind = "linux"

[[smmu]]
name = "smmu0"
stream_id_bits = 6

[[smmu]]
name = "smmu1"
stream_id_bits = 6

[[master]]
name = "engine0"
kind = "engine"
smmu = "smmu0"
stream_ids = [1]

[[master]]
name = "engine1"
kind = "engine"
smmu = "smmu1"
stream_ids = [1]
"""

SIZE = 8 << 20
IOVA = 0x10_0000
DOORBELL = 0x0802_0040
WIRES = {
    ("engine0", ""): (DOORBELL, 83),
    ("smmu0", "gerror"): (DOORBELL, 81),
    ("smmu1", "cmdq-sync"): (DOORBELL, 82),
}
#: The engine's window in BAR2.
BAR2 = 2


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether ``condition`` comes true before TIMEOUT; yields the processor meanwhile."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


class GuestRam(Ram):
    """RAM in a memfd, as a client shares it."""

    def __init__(self, *, sealable: bool = True) -> None:
        super().__init__(RAM_BASE, SIZE)
        self.fd = ram(SIZE, sealable=sealable)
        self.mapping = mmap.mmap(self.fd, SIZE)
        self.memory.remove(RAM_BASE, SIZE)
        self.memory.map_fd(RAM_BASE, SIZE, self.fd)

    def close(self) -> None:
        self.memory.clear()
        self.mapping.close()
        os.close(self.fd)


class Guest(Bench):
    """A guest at the other end of a socket; its RAM outlives its client, as a file does."""

    def __init__(self, path: Path, ram: GuestRam, *, start: bool = True) -> None:
        self.client = TestClient.connect(path)
        self.client.version()
        self.client.dma_map(RAM_BASE, SIZE, ram.fd)
        self.client.write_int(Region.CONFIG, 4, 2, 6)  # memory space, bus master
        super().__init__(ram=ram, start=start)

    def __getitem__(self, register: Any) -> Any:
        return register(self.client.read_int(0, register.at, register.size))

    def __setitem__(self, register: Any, value: Any) -> None:
        self.client.write_int(0, register.at, register.size, int(value))

    def store(self, at: int, size: int, value: int) -> None:
        self.client.write_int(BAR2, at, size, value)

    def copy(self, source: int, target: int, size: int) -> None:
        """Start a copy by the engine's first frame."""
        for register, value in (
            (UserFrame.begin, source),
            (UserFrame.end_incl, source + size - 1),
            (UserFrame.stride, 1),
            (UserFrame.udata, target),
        ):
            self.store(register.at, 8, value)
        self.store(0x1_0000 + PrivilegedFrame.streamid.at, 4, 1)
        self.store(UserFrame.cmd.at, 4, Cmd.MEMCPY)

    def state(self) -> int:
        return self.client.read_int(BAR2, UserFrame.cmd.at, 4)

    def ended(self) -> int:
        """The engine's state when it has ended."""
        assert eventually(lambda: self.state() != Cmd.MEMCPY), "the engine does not end"
        return self.state()

    def mapped(self, size: int = 0x10_0000) -> int:
        pa = self.ram.alloc(size, 0x1000)
        self.stream(1).map(IOVA, pa, size)
        return pa


@pytest.fixture
def config() -> MachineConfig:
    return parse_machine(MACHINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # pytest's folders may be deeper than a socket's path can be long.
    return tmp_path if len(str(tmp_path)) <= 90 else Path(os.path.relpath(tmp_path))


@pytest.fixture
def daemon(config: MachineConfig, folder: Path) -> Iterator[Daemon]:
    threads = threading.active_count()
    made = Daemon(config, folder, wires=WIRES)
    made.start()
    try:
        yield made
    finally:
        made.stop()
    assert made.failure is None
    assert threading.active_count() == threads
    assert list(folder.iterdir()) == []


@pytest.fixture
def guest_ram() -> Iterator[GuestRam]:
    made = GuestRam()
    yield made
    made.close()


@pytest.fixture
def guest(daemon: Daemon, guest_ram: GuestRam) -> Iterator[Guest]:
    made = Guest(Path(daemon.sockets[0]), guest_ram)
    with made.client:
        yield made


# -- DMA and interrupts --------------------------------------------------------------------------------------


def test_the_engine_copies_in_guest_ram_through_translation(guest: Guest) -> None:
    pa = guest.mapped()
    data = os.urandom(0x8_0000)
    guest.ram.put(pa, data)
    guest.copy(IOVA, IOVA + 0x8_0000, 0x8_0000)
    assert guest.ended() == Cmd.HALTED
    assert guest.ram.get(pa + 0x8_0000, 0x8_0000) == data


def test_a_wired_interrupt_arrives_as_a_dma_write_after_what_it_tells_of(guest: Guest) -> None:
    pa = guest.mapped()
    guest.ram.put(pa, b"interrupt")
    guest.copy(IOVA, IOVA + 0x1000, 9)
    assert guest.client.wait_dma_write() == (DOORBELL, b"\x53\0\0\0")
    assert guest.state() == Cmd.HALTED
    assert guest.ram.get(pa + 0x1000, 9) == b"interrupt"


def test_an_event_msi_arrives_as_a_dma_write_when_the_record_is_there(guest: Guest) -> None:
    guest[EVENTQ_IRQ_CFG0] = EVENTQ_IRQ_CFG0.of(ADDR=DOORBELL + 4)
    guest[EVENTQ_IRQ_CFG1] = 0x99
    guest[IRQ_CTRL] = IRQ_CTRL.of(EVENTQ_IRQEN=1)
    guest.stream(1)
    guest.copy(IOVA, IOVA + 8, 8)
    assert guest.client.wait_dma_write() == (DOORBELL + 4, b"\x99\0\0\0")
    assert guest.events() == [F_TRANSLATION.of(SID=1, RnW=1, CLASS=2, InputAddr=IOVA)]
    assert guest.ended() == Cmd.ERROR


def test_a_sync_in_guest_ram_is_polled_as_linux_does(guest: Guest) -> None:
    guest.submit(c.CMD_TLBI_NSNH_ALL.of(), c.CMD_SYNC.of(CS=1, MSIAddress=guest.cmdq + 16))
    assert eventually(lambda: guest.ram.get(guest.cmdq + 16, 4) == bytes(4))
    assert guest[CMDQ_CONS].RD == 2


def test_a_refused_msi_becomes_a_global_error(guest: Guest) -> None:
    guest.client.answer = lambda address, data: 14  # EFAULT
    guest.submit(c.CMD_SYNC.of(CS=1, MSIAddress=DOORBELL))
    assert guest.client.wait_dma_write() == (DOORBELL, bytes(4))
    assert eventually(lambda: guest.active_errors == GERROR.MSI_CMDQ_ABT_ERR.mask)


MSI = c.CMD_SYNC.of(CS=1, MSIAddress=DOORBELL)


def silent(guest: Guest) -> None:
    """The client answers no DMA_WRITE by itself."""
    guest.client.answer = lambda address, data: None


@pytest.mark.parametrize("error", [0, errno.EFAULT])
def test_a_sync_waits_for_the_answer_to_the_msi_of_the_one_before(guest: Guest, error: int) -> None:
    silent(guest)
    guest.submit(MSI, MSI)
    assert guest[CMDQ_CONS].RD == 1
    assert len(guest.client.unanswered) == 1
    guest.client.answer_late(0, error)
    assert guest[CMDQ_CONS].RD == 2, "the answer came before the read"
    assert guest.active_errors == (GERROR.MSI_CMDQ_ABT_ERR.mask if error else 0)
    assert len(guest.client.unanswered) == 1


@pytest.mark.parametrize("error", [0, errno.EFAULT])
def test_an_interrupt_is_off_once_the_client_has_answered_its_msi(guest: Guest, error: int) -> None:
    guest[EVENTQ_IRQ_CFG0] = EVENTQ_IRQ_CFG0.of(ADDR=DOORBELL + 4)
    guest[IRQ_CTRL] = IRQ_CTRL.of(EVENTQ_IRQEN=1, GERROR_IRQEN=1)
    guest.stream(1)
    silent(guest)
    guest.copy(IOVA, IOVA + 8, 8)
    guest.client.wait_dma_write()
    guest[IRQ_CTRL] = 0
    assert guest[IRQ_CTRLACK] == IRQ_CTRLACK.of(EVENTQ_IRQEN=1)
    to = (DOORBELL + 4).to_bytes(8, "little")
    at = next(n for n, (_, access) in enumerate(guest.client.unanswered) if access.startswith(to))
    guest.client.answer_late(at, error)
    assert guest[IRQ_CTRLACK].raw == 0
    assert guest.active_errors == (GERROR.MSI_EVENTQ_ABT_ERR.mask if error else 0)
    assert guest.ended() == Cmd.ERROR


def test_an_msi_without_an_answer_aborts_when_its_client_goes(daemon: Daemon, guest_ram: GuestRam) -> None:
    first = Guest(Path(daemon.sockets[0]), guest_ram)
    silent(first)
    first.submit(MSI, c.CMD_TLBI_NSNH_ALL.of(), c.CMD_SYNC.of())
    assert first[CMDQ_CONS].RD == 2
    first.client.close()
    second = Guest(Path(daemon.sockets[0]), guest_ram, start=False)
    with second.client:
        assert second[CMDQ_CONS].RD == 3
        assert second.active_errors == GERROR.MSI_CMDQ_ABT_ERR.mask


def test_a_reset_does_not_wait_for_answers(guest: Guest) -> None:
    silent(guest)
    guest.submit(MSI, MSI)
    assert guest[CMDQ_CONS].RD == 1
    guest.client.reset()
    guest.client.write_int(Region.CONFIG, 4, 2, 6)
    guest.start()
    guest.invalidate()
    guest.client.answer_late(0, errno.EFAULT)
    assert guest.active_errors == 0


def test_a_function_that_is_no_bus_master_sends_no_msi(guest: Guest) -> None:
    guest.client.write_int(Region.CONFIG, 4, 2, 2)
    guest.submit(c.CMD_SYNC.of(CS=1, MSIAddress=DOORBELL))
    assert guest.active_errors == GERROR.MSI_CMDQ_ABT_ERR.mask
    assert guest.client.dma_writes == []


def test_a_long_queue_is_consumed_to_its_end_without_another_store(daemon: Daemon, guest_ram: GuestRam) -> None:
    guest = Guest(Path(daemon.sockets[0]), guest_ram, start=False)
    guest.command_bits = 10
    guest.cmdq = guest_ram.alloc(16 << 10)
    with guest.client:
        guest.start()
        guest.submit(*[c.CMD_TLBI_NSNH_ALL.of()] * (2 * COMMAND_BURST - 2), c.CMD_SYNC.of())
        assert eventually(lambda: guest[CMDQ_CONS].RD == guest[CMDQ_PROD].WR)


def test_memory_that_the_client_takes_away_is_an_abort(guest: Guest) -> None:
    guest.mapped()
    guest.client.dma_unmap(RAM_BASE, SIZE)
    guest.copy(IOVA, IOVA + 8, 8)
    assert guest.ended() == Cmd.ERROR


# -- clients come and go -------------------------------------------------------------------------------------


def test_the_next_client_finds_the_registers_as_the_last_one_left_them(daemon: Daemon, guest_ram: GuestRam) -> None:
    first = Guest(Path(daemon.sockets[0]), guest_ram)
    pa = first.mapped()
    first.ram.put(pa, b"12345678")
    before = first[CR0].raw
    first.client.close()
    second = Guest(Path(daemon.sockets[0]), guest_ram, start=False)
    with second.client:
        assert second[CR0].raw == before != 0
        second.copy(IOVA, IOVA + 8, 8)
        assert second.ended() == Cmd.HALTED
        assert second.ram.get(pa, 16) == b"1234567812345678"


def test_a_client_that_dies_in_the_middle_of_dma_stops_it(daemon: Daemon, guest_ram: GuestRam) -> None:
    first = Guest(Path(daemon.sockets[0]), guest_ram)
    first.mapped(0x20_0000)
    first.copy(IOVA, IOVA + 0x10_0000, 0x10_0000)
    first.client.close()
    second = Guest(Path(daemon.sockets[0]), guest_ram, start=False)
    with second.client:
        assert second.ended() in (Cmd.ERROR, Cmd.HALTED)


def test_a_reset_by_the_client_returns_to_power_on(guest: Guest) -> None:
    guest.mapped()
    guest.copy(IOVA, IOVA + 0x1_0000, 0x1_0000)
    guest.client.reset()
    assert guest[CR0].raw == 0
    assert guest.state() == Cmd.HALTED


def test_two_functions_serve_two_clients_at_once(daemon: Daemon, guest_ram: GuestRam) -> None:
    other_ram = GuestRam()
    first, second = Guest(Path(daemon.sockets[0]), guest_ram), Guest(Path(daemon.sockets[1]), other_ram)
    with first.client, second.client:
        places = [(guest, guest.mapped()) for guest in (first, second)]
        for number, (guest, pa) in enumerate(places):
            guest.ram.put(pa, bytes([number + 1]) * 0x1000)
            guest.copy(IOVA, IOVA + 0x1000, 0x1000)
        for number, (guest, pa) in enumerate(places):
            assert guest.ended() == Cmd.HALTED
            assert guest.ram.get(pa + 0x1000, 0x1000) == bytes([number + 1]) * 0x1000
    other_ram.close()


def test_a_client_that_reads_no_interrupts_holds_up_none_but_itself(daemon: Daemon, guest_ram: GuestRam) -> None:
    first = Guest(Path(daemon.sockets[1]), guest_ram, start=False)
    first.command_bits, first.cmdq = 10, guest_ram.alloc(16 << 10)
    first.start()
    lock = daemon.machine.smmus["smmu1"].lock

    def held() -> bool:
        """Whether the lock is held for long, and not only now."""
        for _ in range(1000):
            if lock.acquire(blocking=False):
                lock.release()
                return False
            os.sched_yield()
        return True

    # Of MSIs no second one is sent before the first is answered; of wired interrupts all are.
    prod = first.place(*[c.CMD_SYNC.of(CS=1)] * 1000)
    access = wire.ACCESS.pack(1, wire.Command.REGION_WRITE, wire.ACCESS.size + 4, 0, 0, CMDQ_PROD.at, 0, 4)
    first.client.transport.send(access + prod.to_bytes(4, "little"))
    assert eventually(held)
    other_ram = GuestRam()
    second = Guest(Path(daemon.sockets[0]), other_ram)
    with second.client:
        pa = second.mapped()
        second.ram.put(pa, b"interrupt")
        second.copy(IOVA, IOVA + 0x1000, 9)
        assert second.ended() == Cmd.HALTED
        assert second.ram.get(pa + 0x1000, 9) == b"interrupt"
    assert held(), "the second was served after the first, which proves nothing"
    first.client.close()
    other_ram.close()


# -- start and stop ------------------------------------------------------------------------------------------


def test_stop_removes_the_sockets_and_ends_every_thread_though_a_client_is_there(
    config: MachineConfig, folder: Path, guest_ram: GuestRam
) -> None:
    threads, fds = threading.active_count(), open_fds()
    daemon = Daemon(config, folder)
    daemon.start()
    assert sorted(path.name for path in folder.iterdir()) == ["smmu0.sock", "smmu1.sock"]
    guest = Guest(folder / "smmu0.sock", guest_ram)
    guest.mapped(0x20_0000)
    guest.copy(IOVA, IOVA + 0x10_0000, 0x10_0000)
    daemon.stop()
    guest.client.close()
    assert list(folder.iterdir()) == []
    assert threading.active_count() == threads
    assert open_fds() == fds
    assert daemon.failure is None


def test_a_daemon_wants_a_socket_for_each_smmu(config: MachineConfig, folder: Path) -> None:
    fds = open_fds()
    with pytest.raises(UsageError, match="needs a socket for each"):
        Daemon(config, paths=[folder / "one.sock"])
    assert open_fds() == fds


def test_a_socket_that_cannot_be_leaves_none(folder: Path) -> None:
    fds = open_fds()
    blocked = folder / "second"
    blocked.write_text("a file")
    daemon = Daemon(with_disks('size = "1M"'), paths=[folder / "first", blocked])
    with pytest.raises(UsageError):
        daemon.start()
    assert list(folder.iterdir()) == [blocked]
    assert open_fds() == fds
    daemon.stop()  # is allowed all the same


def with_disks(second: str) -> MachineConfig:
    disks = "".join(
        f'[[master]]\nname = "disk{n}"\nkind = "virtio-blk"\nsmmu = "smmu{n}"\nstream_ids = [{2 + n}]\n{how}\n'
        for n, how in enumerate(('size = "1M"', second))
    )
    return parse_machine(MACHINE + disks)


def test_disks_are_closed_when_all_has_stopped(folder: Path) -> None:
    fds = open_fds()
    daemon = Daemon(with_disks('size = "1M"'), folder)
    daemon.start()
    daemon.stop()
    assert open_fds() == fds


def test_disks_that_are_kept_can_be_read_until_they_are_closed(folder: Path) -> None:
    fds = open_fds()
    daemon = Daemon(with_disks('size = "1M"'), folder, keep_disks=True)
    daemon.start()
    daemon.stop()
    disk = daemon.machine.masters["disk1"]
    assert isinstance(disk, VirtioBlk)
    assert disk.storage.read(0, 4) == bytes(4)
    daemon.machine.close()
    assert open_fds() == fds


def test_a_daemon_that_never_starts_leaves_nothing_open(folder: Path) -> None:
    fds = open_fds()
    Daemon(with_disks('size = "1M"'), folder).stop()
    assert open_fds() == fds


def test_a_disk_that_cannot_be_opened_leaves_nothing_open(folder: Path) -> None:
    fds = open_fds()
    with pytest.raises(UsageError, match=r"\[\[master\]\] disk1: there is no folder for the disk"):
        Daemon(with_disks(f'image = "{folder.absolute() / "none" / "there"}"'), folder)
    assert open_fds() == fds


# -- a client that cuts its own memory short -----------------------------------------------------------------

CUT_SHORT = """
import faulthandler, os, sys
from pathlib import Path
from tests.protocol import test_daemon as t
from vhost_iommu.config import parse_machine
from vhost_iommu.daemon import Daemon
daemon = Daemon(parse_machine(t.MACHINE), Path(sys.argv[1]))
daemon.start()
if sys.argv[2] == "replaced":
    # Who was there before us goes, and takes our handler along, as pytest within pytest does.
    faulthandler.enable()
    first = t.Guest(Path(daemon.sockets[0]), t.GuestRam(sealable=False))
    first.mapped()
    first.client.close()
    faulthandler.disable()
ram = t.GuestRam(sealable=sys.argv[2] == "sealable")
guest = t.Guest(Path(daemon.sockets[0]), ram)
pa = guest.mapped()
try:
    os.truncate(ram.fd, guest.strtab - t.RAM_BASE)
except PermissionError:
    print("not cut", flush=True)
guest.copy(t.IOVA, t.IOVA + 8, 8)
print("ended", guest.ended() == t.Cmd.HALTED)
guest.client.close()
daemon.stop()
"""


def cut_short(folder: Path, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a daemon whose client cuts its RAM short after it has lent it."""
    command = [sys.executable, "-c", CUT_SHORT, str(folder.absolute()), what]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
    )


def test_a_memfd_that_can_be_sealed_cannot_be_cut_short_once_it_is_mapped(folder: Path) -> None:
    done = cut_short(folder, "sealable")
    assert (done.returncode, done.stdout) == (0, "not cut\nended True\n"), done.stderr
    assert "SIGBUS" not in done.stderr


@pytest.mark.parametrize("pure", ["0", "1"])
def test_a_file_that_is_cut_short_ends_the_dma_and_not_the_daemon(folder: Path, pure: str) -> None:
    if pure == "0" and _core.built() is None:
        missing("the compiled core")
    if pure == "1" and not kernel_copies():
        missing("process_vm_readv, without which such an access ends the daemon that has no core")
    done = cut_short(folder, "unsealable", VHOST_IOMMU_PURE=pure)
    assert (done.returncode, done.stdout) == (0, "ended False\n"), done.stderr
    assert "SIGBUS" not in done.stderr


def test_memory_is_guarded_even_if_somebody_has_replaced_the_handler(folder: Path) -> None:
    if _core.built() is None:
        missing("the compiled core")
    done = cut_short(folder, "replaced", VHOST_IOMMU_PURE="0")
    assert (done.returncode, done.stdout) == (0, "ended False\n"), done.stderr


# -- what all clients have in common --------------------------------------------------------------------------


def test_each_client_is_bounded_below_its_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    daemon = Daemon(parse_machine(MACHINE), folder)
    daemon.start()
    try:
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert [function.memory.most for function in daemon.machine.functions] == [MAX_WINDOWS, MAX_WINDOWS]
        monkeypatch.setattr(Path, "read_text", lambda path: "9192\n")
        daemon_module._share(daemon.machine.functions)
        shares = [function.memory.most for function in daemon.machine.functions]
        assert sum(shares) + OWN_MAPPINGS <= 9192
        with TestClient.connect(daemon.sockets[0]) as client:
            assert client.version().capabilities["max_dma_maps"] == shares[0] == 500
    finally:
        daemon.stop()


def test_a_limit_that_cannot_be_shared_is_told_of_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (100, 100))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: None)
    Daemon(parse_machine(MACHINE), folder).stop()
    assert [line for line in caplog.messages if "ulimit -n" in line and "limit of 100" in line]


def test_a_clients_share_of_descriptors_holds_all_that_it_can_send(daemon: Daemon) -> None:
    connection_and_listener, what_signals = 2, 1
    for function in daemon.machine.functions:
        eventfds = sum(function.interrupts.info(index)[1] for index in range(5))
        assert connection_and_listener + what_signals + eventfds + 2 * (wire.MAX_MSG_FDS + 1) <= CLIENT_DESCRIPTORS
