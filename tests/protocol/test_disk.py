# SPDX-License-Identifier: Apache-2.0
"""A disk over a real socket: notifications, interrupts as DMA_WRITE, and whose requests need the interpreter."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.model import virtio_driver as v
from tests.model.virtio_driver import BlkDriver
from tests.protocol.client import TIMEOUT
from tests.protocol.test_daemon import BAR2, DOORBELL, IOVA, Guest, GuestRam, eventually
from vhost_iommu import _core
from vhost_iommu.config import parse_machine
from vhost_iommu.daemon import Daemon
from vhost_iommu.masters.virtio_blk import RequestType, VirtioBlk
from vhost_iommu.smmu.v3.registers import IDR0
from vhost_iommu.trace import Trace
from vhost_iommu.vfio.wire import Region

MACHINE = """
[guest]
kind = "linux"

[[smmu]]
name = "smmu0"
stream_id_bits = 6

[[master]]
name = "disk0"
kind = "virtio-blk"
smmu = "smmu0"
stream_ids = [1]
size = "1M"
"""
SPAN = 0x10_0000
INTID = 85


class Driver(BlkDriver):
    """Over the socket, with RAM that is shared; an interrupt is a DMA_WRITE, waited for."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.pa = guest.mapped(SPAN)
        super().__init__(self, bytearray(SPAN), IOVA)

    def read(self, offset: int, size: int) -> int:
        return self.guest.client.read_int(BAR2, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self.guest.client.write_int(BAR2, offset, size, value, posted=True)

    def peek(self, iova: int, size: int) -> bytes:
        return self.guest.ram.get(self.pa + iova - IOVA, size)

    def poke(self, iova: int, data: bytes) -> None:
        self.guest.ram.put(self.pa + iova - IOVA, data)

    def kick(self, queue: v.Queue) -> None:
        """Until the interrupt has come and was acknowledged."""
        super().kick(queue)
        assert self.guest.client.wait_dma_write() == (DOORBELL, INTID.to_bytes(4, "little"))
        self.interrupt()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(parse_machine(MACHINE), tmp_path, wires={("disk0", ""): (DOORBELL, INTID)})
    made.start()
    yield made
    made.stop()
    assert made.failure is None


@pytest.fixture
def driver(daemon: Daemon) -> Iterator[Driver]:
    ram = GuestRam()
    guest = Guest(Path(daemon.sockets[0]), ram)
    with guest.client:
        yield Driver(guest)
    ram.close()


def disk(daemon: Daemon) -> VirtioBlk:
    found = daemon.machine.masters["disk0"]
    assert isinstance(found, VirtioBlk)
    return found


def test_what_is_written_is_read_and_each_interrupt_is_told_of(daemon: Daemon, driver: Driver) -> None:
    driver.probe(v.VERSION_1 | v.ACCESS_PLATFORM | v.INDIRECT_DESC)  # an interrupt for each
    data = bytes(range(256)) * 32
    assert driver.request(v.OUT, 3, data, indirect=True)[0] == v.OK
    assert driver.request(v.FLUSH)[0] == v.OK
    for _ in range(20):
        assert driver.request(v.IN, 3, room=len(data), indirect=True)[:2] == (v.OK, data)
    assert driver.used_interrupts == 22
    assert driver.load(0x60) == 0
    assert driver.guest.client.unanswered == []  # nobody asks how they ended
    blk = disk(daemon)
    assert eventually(lambda: blk.requests[RequestType.IN] == 20)
    if _core.chosen() is not None:
        assert blk._bell is not None
        assert blk._bell.reads > 10  # the others were in the worker's hands


def test_without_bus_mastering_no_interrupt_leaves(daemon: Daemon, driver: Driver) -> None:
    driver.probe(v.VERSION_1 | v.ACCESS_PLATFORM | v.INDIRECT_DESC)  # an interrupt for each
    driver.request(v.IN, 0, room=512)
    client = driver.guest.client
    client.write_int(Region.CONFIG, 4, 2, 2)
    status = driver.alloc(1)
    header = driver.alloc(16)
    driver.poke(header, bytes(16))
    driver.poke(status, b"\xee")
    queue = driver.queues[0]
    driver.add(queue, [(header, 16, False), (driver.alloc(512, 512), 512, True), (status, 1, True)])
    driver.store(0x50, 0)
    assert eventually(lambda: driver.load(0x60) == 1)  # the last that a request comes to
    assert driver.peek(status, 1) == b"\0"
    assert client.dma_writes == []


def test_the_next_client_finds_the_disk_as_it_was_left(daemon: Daemon) -> None:
    for _ in range(2):
        ram = GuestRam()
        guest = Guest(Path(daemon.sockets[0]), ram)
        with guest.client:
            driver = Driver(guest)
            driver.probe(v.VERSION_1 | v.ACCESS_PLATFORM | v.INDIRECT_DESC)  # an interrupt for each
            for _ in range(3):
                assert driver.request(v.IN, 0, room=4096)[0] == v.OK
            guest.client.reset()
        ram.close()


# -- a host whose disk is slow ---------------------------------------------------------------------------------------


class Slow:
    """An action of the disk's storage that the host does not end until it may."""

    def __init__(self, disk: VirtioBlk, name: str, patch: pytest.MonkeyPatch) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()
        self.action = getattr(disk.storage, name)
        patch.setattr(disk.storage, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.began.set()
        assert self.may_end.wait(TIMEOUT)
        return self.action(*args, **kwargs)


@pytest.fixture(params=["core", "reference"])
def filed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon whose disk is a file, which reads come from without the interpreter, if at all."""
    monkeypatch.setenv(_core.PURE, "0" if request.param == "core" else "1")
    if request.param == "core" and _core.built() is None:
        missing("the compiled core; install the package again")
    image = tmp_path / "image"
    image.write_bytes(b"\x11" * (1 << 20))
    config = parse_machine(MACHINE + f'image = "{image}"\n')
    made = Daemon(config, tmp_path, wires={("disk0", ""): (DOORBELL, INTID)})
    made.start()
    yield made
    made.stop()
    assert made.failure is None


def start(driver: Driver, kind: int, sector: int, data: bytes) -> int:
    """Notify of a request, for whose end nobody waits: where its status will be."""
    header, body, status = driver.alloc(16), driver.alloc(len(data)), driver.alloc(1)
    driver.poke(header, kind.to_bytes(8, "little") + sector.to_bytes(8, "little"))
    driver.poke(body, data)
    driver.poke(status, b"\xee")
    driver.add(driver.queues[0], [(header, 16, False), (body, len(data), False), (status, 1, True)])
    driver.store(0x50, 0)
    return status


ERASE = (8).to_bytes(8, "little") + (8).to_bytes(4, "little") + bytes(4)
CHANGES = {
    "write": (v.OUT, 8, b"\x22" * 4096, b"\x22" * 4096),
    "discard": (v.DISCARD, 0, ERASE, bytes(4096)),
    "zero": (v.WRITE_ZEROES, 0, ERASE, bytes(4096)),
}


@pytest.mark.parametrize("name", [*CHANGES, "flush"])
def test_registers_answer_while_the_host_is_slow_with_the_disk(
    filed: Daemon, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ram = GuestRam()
    guest = Guest(Path(filed.sockets[0]), ram)
    with guest.client:
        driver = Driver(guest)
        driver.probe(v.VERSION_1 | v.ACCESS_PLATFORM | 0xFFFF)
        slow = Slow(disk(filed), name, monkeypatch)
        kind, sector, data, _ = CHANGES.get(name, (v.FLUSH, 0, b"\0", b""))
        status = start(driver, kind, sector, data)
        assert slow.began.wait(TIMEOUT)
        assert guest[IDR0].raw
        assert driver.status == 15
        assert driver.load(0x60) == 0
        assert driver.peek(status, 1) == b"\xee", "the request has not ended"
        slow.may_end.set()
        assert eventually(lambda: driver.peek(status, 1) == b"\0")
    ram.close()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_before_a_reset_is_there_when_the_next_drivers_first_request_is_served(
    filed: Daemon, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ram = GuestRam()
    guest = Guest(Path(filed.sockets[0]), ram)
    kind, sector, data, expected = CHANGES[name]
    with guest.client:
        driver = Driver(guest)
        driver.probe(v.VERSION_1 | v.ACCESS_PLATFORM | 0xFFFF)
        assert driver.request(v.IN, 8, room=4096)[1] == b"\x11" * 4096  # the file is in the cache
        slow = Slow(disk(filed), name, monkeypatch)
        status = start(driver, kind, sector, data)
        assert slow.began.wait(TIMEOUT)
        driver.probe(v.VERSION_1 | v.ACCESS_PLATFORM | 0xFFFF)  # begins with a reset, which does not wait either
        again, body, header = driver.alloc(1), driver.alloc(4096), driver.alloc(16)
        driver.poke(header, bytes(8) + (8).to_bytes(8, "little"))
        driver.poke(again, b"\xee")
        driver.add(driver.queues[0], [(header, 16, False), (body, 4096, True), (again, 1, True)])
        driver.store(0x50, 0)
        assert driver.status == 15  # the notification, sent before, has been taken
        assert driver.peek(again, 1) == b"\xee", "it overtook the change"
        slow.may_end.set()
        assert guest.client.wait_dma_write() == (DOORBELL, INTID.to_bytes(4, "little"))
        driver.interrupt()
        assert len(driver.used(driver.queues[0])) == 1
        assert (driver.peek(again, 1), driver.peek(body, 4096)) == (b"\0", expected)
        assert driver.peek(status, 1) == b"\xee", "a request of before the reset was answered after it"
        assert driver.request(v.IN, 8, room=4096)[1] == expected  # and it goes on
    ram.close()


def test_registers_answer_while_the_host_is_slow_with_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "trace.txt", os.write
    trace = Trace.file(path)
    began, may_end = threading.Event(), threading.Event()

    def slow(fd: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{fd}") == str(path):
            began.set()
            assert may_end.wait(TIMEOUT)
        return write(fd, data)

    monkeypatch.setattr(os, "write", slow)
    daemon = Daemon(parse_machine(MACHINE), tmp_path, wires={("disk0", ""): (DOORBELL, INTID)}, trace=trace)
    daemon.start()
    ram = GuestRam()
    guest = Guest(Path(daemon.sockets[0]), ram)
    with guest.client:
        while not began.is_set():
            assert guest[IDR0].raw
        for _ in range(1000):  # more than is written at once
            assert guest[IDR0].raw
        may_end.set()
    daemon.stop()
    trace.close()
    ram.close()
    assert path.read_text().count("mmio read IDR0") > 1000
    assert daemon.failure is None
