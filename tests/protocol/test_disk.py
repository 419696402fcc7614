# SPDX-License-Identifier: Apache-2.0
"""A disk over a real socket: notifications, interrupts as DMA_WRITE, and whose requests need the interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model import virtio_driver as v
from tests.model.virtio_driver import BlkDriver
from tests.protocol.test_daemon import BAR2, DOORBELL, IOVA, Guest, GuestRam, eventually
from vhost_iommu import _core
from vhost_iommu.config import parse_machine
from vhost_iommu.daemon import Daemon
from vhost_iommu.masters.virtio_blk import RequestType, VirtioBlk
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
        assert blk._bell.counts()[0] > 10  # the others were in the worker's hands


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
    assert eventually(lambda: driver.peek(status, 1) == b"\0")
    assert driver.load(0x60) == 1
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
