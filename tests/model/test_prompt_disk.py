# SPDX-License-Identifier: Apache-2.0
"""A disk's requests that the core serves where their notification arrives: what comes of them, and whose the rest is.

The law of all: whichever way a driver's notifications go, memory, disk and used rings are the same afterwards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import virtio_driver as v
from tests.model.virtio_driver import BlkDriver
from tests.pumped import Pumped
from tests.smmu_builder import Bench, Ram
from vhost_iommu import _core, server
from vhost_iommu.masters.port import Port
from vhost_iommu.masters.prompt import Batch, Disk, Post
from vhost_iommu.masters.storage import FileStorage, MemoryStorage, Storage
from vhost_iommu.masters.virtio_blk import RequestType, VirtioBlk
from vhost_iommu.memory import Window
from vhost_iommu.smmu.transaction import Transaction
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3.commands import CMD_RESUME, CMD_TLBI_NH_ALL
from vhost_iommu.smmu.v3.events import F_TRANSLATION

pytestmark = pytest.mark.usefixtures("core_is_built")

SID = 3
IOVA = 0x7_0000_0000
SPAN = 1 << 18  # of the driver's RAM
DISK = 1 << 18
NOISE = Random(2).randbytes(DISK)
NOTIFY, STATUS, ACK = 0x50, 0x60, 0x64
NEEDS_RESET = 0x40
DOORBELL, INTID = 0x0802_0040, 99
TIMEOUT = 60


class Registers:
    """The disk's registers as the pump has them: natively where they are, and otherwise the model's."""

    def __init__(self, blk: VirtioBlk, mirror: Pumped | None, interrupt: Callable[[], None]) -> None:
        self.blk, self.mirror, self.interrupt = blk, mirror, interrupt
        self.native: list[int] = []  # offsets of what was carried out natively

    def read(self, offset: int, size: int) -> int:
        if self.mirror is not None and size == 4:
            found = self.mirror.load(offset, size)
            if found is not None:
                self.native.append(offset)
                return found
        return self.blk.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if self.mirror is not None and size == 4:
            done = self.mirror.carry_out(offset, value)
            if self.mirror.post():
                self.interrupt()
            if done:
                self.native.append(offset)
                return
        self.blk.write(offset, size, value)


class World:
    """A disk of noise behind an SMMU, in pages that are not in order; ``way``: how its notifications go."""

    def __init__(
        self,
        way: str = "native",
        *,
        storage: Storage | None = None,
        wake: Callable[[], None] | None = None,
        queues: int = 1,
        queue_size: int = 256,
        wanted: int = -1,
        cd: dict[str, int] | None = None,
    ) -> None:
        self.bench = Bench({"stall_model": "both"}, ram=Ram(size=1 << 20), pure=way == "reference")
        self.pages = list(range(0, SPAN, 4096))
        Random(5).shuffle(self.pages)
        #: Pages of the driver lie in an order of their own, behind the SMMU's own structures.
        self.base = self.bench.ram.alloc(SPAN, 4096)
        self.table = self.bench.stream(SID, cd=cd)
        for at, page in enumerate(self.pages):
            self.table.map(IOVA + 4096 * at, self.base + page)
        self.port = Port("disk", self.bench.ram.memory, self.bench.smmu, (SID,))
        self.storage = storage or MemoryStorage(DISK)
        if storage is None:
            self.storage.write(0, NOISE)
        self.pulses = 0
        door = _core.built()
        assert door is not None
        lock = door.Lock() if way == "native" else None
        self.blk = VirtioBlk(
            "disk",
            self.port,
            self.storage,
            interrupt=self.pulse,
            wake=wake,
            lock=lock,
            queues=queues,
            queue_size=queue_size,
        )
        mirror = None
        if way == "native":
            self.blk.post = Post(DOORBELL, INTID)
            mirror = Pumped(self.blk)
            assert mirror.mirror is not None
        self.registers = Registers(self.blk, mirror, self.pulse)
        self.driver = Scattered(self)
        self.driver.probe(wanted, queues=queues)
        self.registers.native.clear()

    def pulse(self) -> None:
        self.pulses += 1
        self.driver.interrupt()

    @property
    def broken(self) -> bool:
        return bool(self.driver.status & NEEDS_RESET)

    @property
    def notified(self) -> int:
        """Notifications that were carried out natively."""
        return self.registers.native.count(NOTIFY)

    def state(self) -> object:
        ram = self.bench.ram.get(self.base, SPAN)
        port = self.port
        return ram, self.storage.read(0, DISK), self.driver.status, +self.blk.requests, port.stalls, port.aborts


class Scattered(BlkDriver):
    """The driver, whose pages lie in RAM as the world has them."""

    def __init__(self, world: World) -> None:
        super().__init__(world.registers, bytearray(SPAN), IOVA)
        self._world = world

    def _parts(self, iova: int, size: int) -> list[tuple[int, int]]:
        parts = []
        while size:
            at, offset = divmod(iova - self.iova, 4096)
            part = min(size, 4096 - offset)
            parts.append((self._world.base + self._world.pages[at] + offset, part))
            iova, size = iova + part, size - part
        return parts

    def peek(self, iova: int, size: int) -> bytes:
        return b"".join(self._world.bench.ram.get(*part) for part in self._parts(iova, size))

    def poke(self, iova: int, data: bytes) -> None:
        for pa, size in self._parts(iova, len(data)):
            self._world.bench.ram.put(pa, data[:size])
            data = data[size:]

    def submit(self, kind: int, sector: int, parts: list[tuple[int, bool]], *, indirect: bool = False) -> int:
        """Make a request of buffers of such sizes available: where its status will be."""
        header, status = self.alloc(16), self.alloc(1)
        self.poke(header, kind.to_bytes(8, "little") + sector.to_bytes(8, "little"))
        self.poke(status, b"\xee")
        chain = [(header, 16, False)]
        for size, writable in parts:
            at = self.alloc(size + 64, 16)
            self.poke(at, Random(size).randbytes(size) if not writable else bytes(size))
            chain.append((at, size, writable))
        self.add(self.queues[0], [*chain, (status, 1, True)], indirect=indirect)
        return status


# -- what is served natively -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_reads_are_served_where_their_notification_arrives(indirect: bool, pieces: int) -> None:
    world = World()
    size = 24 * v.SECTOR
    status, data, written = world.driver.request(v.IN, 5, room=size, indirect=indirect, pieces=pieces)
    assert (status, written) == (v.OK, size + 1)
    assert data == NOISE[5 * v.SECTOR : 29 * v.SECTOR]
    assert world.notified == 1


def test_writes_reach_the_disk_and_nothing_beside() -> None:
    world = World()
    data = Random(3).randbytes(24 * v.SECTOR)
    assert world.driver.request(v.OUT, 5, data, pieces=5)[0] == v.OK
    assert world.storage.read(0, DISK) == NOISE[: 5 * v.SECTOR] + data + NOISE[29 * v.SECTOR :]
    assert world.notified == 1


@pytest.mark.parametrize("way", ["native", "model", "reference"])
def test_who_looks_on_is_told_where_each_transaction_went_and_what_was_asked_for(way: str) -> None:
    world = World(way)
    places = {IOVA + 4096 * at: world.base + page for at, page in enumerate(world.pages)}
    with world.bench.smmu.watch.recording() as seen:
        for kind in (v.IN, v.OUT, v.IN):
            world.driver.request(kind, 5, NOISE[:4096] if kind == v.OUT else b"", room=0 if kind == v.OUT else 8192)
    assert len(seen.translations) > 30
    for each in seen.translations:
        assert each.pa == places[each.iova & -4096] + (each.iova & 4095)
        assert 0 < each.since <= each.time
    asked = [(each.request, each.fields["sector"], each.fields["size"]) for each in seen.requests]
    assert asked == [("IN", 5, 8192), ("OUT", 5, 4096), ("IN", 5, 8192)]


def test_the_interrupt_follows_and_its_status_is_read_and_acknowledged_natively() -> None:
    world = World()
    world.driver.request(v.IN, 0, room=512)
    assert world.registers.native == [STATUS, ACK, NOTIFY]  # a pulse comes before its notification has returned
    assert world.pulses == world.driver.used_interrupts == 1
    assert world.driver.load(STATUS) == 0


def test_what_the_driver_has_not_read_it_cannot_acknowledge() -> None:
    world = World()
    bell = world.blk._bell
    assert bell is not None
    bell.status = bell.unread = 1
    world.driver.store(ACK, 1)
    assert world.driver.load(STATUS) == 1
    world.driver.store(ACK, 1)
    assert world.driver.load(STATUS) == 0


def test_a_driver_that_wants_no_interrupt_gets_none() -> None:
    world = World(wanted=v.VERSION_1 | v.ACCESS_PLATFORM)
    world.driver.poke(world.driver.queues[0].avail, b"\x01\x00")
    before = world.pulses
    assert world.driver.request(v.IN, 0, room=512)[0] == v.OK
    assert (world.pulses, world.notified) == (before, 1)


def test_many_requests_of_one_notification_are_told_of_once() -> None:
    world = World()
    before = world.pulses
    places = [world.driver.submit(v.IN, n, [(512, True)]) for n in range(20)]
    world.driver.kick(world.driver.queues[0])
    assert [world.driver.peek(at, 1) for at in places] == [b"\0"] * 20
    assert (world.pulses, world.notified) == (before + 1, 1)


def test_the_driver_is_asked_to_notify_of_what_comes_next() -> None:
    world = World()
    ring = world.driver.queues[0]
    for served in range(1, 4):
        world.driver.request(v.IN, 0, room=512)
        avail_event = world.driver.peek(ring.used + 4 + 8 * ring.size, 2)
        assert int.from_bytes(avail_event, "little") == served
    assert world.notified == 3


def test_what_is_counted_is_the_same_wherever_it_is_done() -> None:
    world = World()
    for _ in range(3):
        world.driver.request(v.IN, 0, room=4096)
    world.driver.request(v.OUT, 0, bytes(1024))
    assert world.notified == 4
    assert (world.blk.requests[RequestType.IN], world.blk.requests[RequestType.OUT]) == (3, 1)
    assert world.port.bytes_written > 3 * 4096
    assert world.port.bytes_read > 1024 + 4 * 16
    assert world.port.transactions > 4 * 8


def test_indices_wrap_and_the_used_ring_goes_on() -> None:
    world = World()
    driver, ring = world.driver, world.driver.queues[0]
    for n in range(ring.size + 40):
        driver.next = 1 << 15
        assert driver.request(v.IN, n % 100, room=512)[1] == NOISE[n % 100 * 512 :][:512]
    assert world.notified == ring.size + 40


# -- what is the model's ---------------------------------------------------------------------------------------------


def test_other_requests_are_the_models_and_the_ring_goes_on_natively_after_them() -> None:
    world = World()
    assert world.driver.request(v.FLUSH)[0] == v.OK
    assert world.driver.request(v.GET_ID, room=20)[0] == v.OK
    assert world.driver.request(v.IN, DISK // 512 - 1, room=1024)[0] == v.IOERR
    assert world.driver.request(v.IN, 2**64 - 1, room=512)[0] == v.IOERR
    assert world.driver.request(v.IN, 0, room=256)[0] == v.IOERR
    assert world.notified == 0
    assert world.driver.request(v.IN, 0, room=512)[0] == v.OK
    assert world.notified == 1


def test_a_fault_on_data_is_recorded_once_and_fails_that_request_alone() -> None:
    world = World(cd={"R": 1})
    world.driver.next = 1 << 17
    status = world.driver.submit(v.IN, 0, [(4096 * 3, True)])
    bad = IOVA + (1 << 17) + 4096 * 2
    world.table.unmap(bad)
    world.bench.invalidate(CMD_TLBI_NH_ALL.of())
    world.driver.kick(world.driver.queues[0])
    assert world.driver.peek(status, 1) == bytes([v.IOERR])
    (event,) = world.bench.events()
    assert isinstance(event, F_TRANSLATION)
    assert event.InputAddr & ~0xFFF == bad
    assert (world.notified, world.broken) == (0, False)
    world.driver.used(world.driver.queues[0])
    world.driver.next = 1 << 16
    assert world.driver.request(v.IN, 0, room=512)[0] == v.OK
    assert world.notified == 1


def test_what_the_model_does_over_again_is_counted_once() -> None:
    written = []
    for way in "reference", "native":
        world = World(way)
        world.driver.next = 1 << 17
        world.driver.submit(v.IN, 0, [(4096 * 3, True)])
        world.table.unmap(IOVA + (1 << 17) + 4096 * 2)
        world.driver.kick(world.driver.queues[0])
        written.append(world.port.bytes_written)
    assert written[0] == written[1] > 4096


def test_a_stalled_transaction_holds_up_nobody_and_goes_on_when_it_is_resumed() -> None:
    world = World(cd={"S": 1, "R": 1})
    world.driver.next = 1 << 17
    status = world.driver.submit(v.IN, 7, [(4096 * 2, True)])
    bad = IOVA + (1 << 17) + 4096
    pa = world.table.read(world.table.entry(bad))
    world.table.unmap(bad)
    world.bench.invalidate(CMD_TLBI_NH_ALL.of())
    world.driver.kick(world.driver.queues[0])
    assert world.driver.peek(status, 1) == b"\xee"
    (event,) = world.bench.events()
    assert isinstance(event, F_TRANSLATION)
    world.driver.kick(world.driver.queues[0])  # the ring is the task's: nothing comes of it
    assert (world.notified, world.driver.peek(status, 1)) == (0, b"\xee")
    world.table.write(world.table.entry(bad), pa)
    world.bench.invalidate(CMD_RESUME.of(SID=SID, STAG=event.STAG, Ac=1))
    assert world.driver.peek(status, 1) == b"\0"
    world.driver.used(world.driver.queues[0])
    world.driver.next = 1 << 16
    assert world.driver.request(v.IN, 0, room=512)[0] == v.OK
    assert world.notified == 1


BROKEN: dict[str, Callable[[World], None]] = {
    "avail idx far ahead": lambda w: far_ahead(w),
    "a loop": lambda w: loop(w),
    "a head that is not there": lambda w: w.driver.offer(w.driver.queues[0], 999),
    "an indirect table in another": lambda w: nested(w),
    "no room for a header": lambda w: short(w),
    "a chain that leaves its indirect table": lambda w: table(w, 3, 2),
    "an indirect table that is longer than the queue": lambda w: table(w, 3, 257),
}


def far_ahead(world: World) -> None:
    """With a chain that could be served again and again."""
    world.driver.submit(v.IN, 0, [(512, True)])
    world.driver.poke(world.driver.queues[0].avail + 2, (2000).to_bytes(2, "little"))


def table(world: World, used: int, told: int) -> None:
    """A read in an indirect table of ``used`` descriptors, of which the driver says that there are ``told``."""
    driver, queue, at = world.driver, world.driver.queues[0], world.driver.alloc(16 * 300)
    buffers = [
        (driver.alloc(16), 16, v.NEXT),
        (driver.alloc(512), 512, v.NEXT | v.WRITE),
        (driver.alloc(1), 1, v.WRITE),
    ]
    for n, (addr, size, flags) in enumerate(buffers[:used]):
        driver.write_desc(at + 16 * n, addr, size, flags, n + 1)
    driver.write_desc(queue.desc + 16 * 9, at, 16 * told, v.INDIRECT)
    driver.offer(queue, 9)


def loop(world: World) -> None:
    queue = world.driver.queues[0]
    world.driver.write_desc(queue.desc + 16 * 9, IOVA, 1, v.NEXT, 9)
    world.driver.offer(queue, 9)


def nested(world: World) -> None:
    driver, queue, outer = world.driver, world.driver.queues[0], world.driver.alloc(16)
    inner = driver.alloc(48)
    buffers = [
        (driver.alloc(16), 16, v.NEXT),
        (driver.alloc(512), 512, v.NEXT | v.WRITE),
        (driver.alloc(1), 1, v.WRITE),
    ]
    for n, (addr, size, flags) in enumerate(buffers):
        driver.write_desc(inner + 16 * n, addr, size, flags, n + 1)
    driver.write_desc(outer, inner, 48, v.INDIRECT)
    driver.write_desc(queue.desc + 16 * 9, outer, 16, v.INDIRECT)
    driver.offer(queue, 9)


def short(world: World) -> None:
    world.driver.add(world.driver.queues[0], [(IOVA, 15, False), (IOVA + 64, 1, True)])


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_ring_needs_a_reset_as_ever(what: str) -> None:
    world = World()
    before = world.bench.ram.get(world.base, SPAN)
    BROKEN[what](world)
    poked = world.bench.ram.get(world.base, SPAN)
    world.driver.kick(world.driver.queues[0])
    assert world.broken
    assert (world.notified, world.bench.ram.get(world.base, SPAN)) == (0, poked)
    assert poked != before
    world.driver.probe()
    world.registers.native.clear()
    assert world.driver.request(v.IN, 0, room=512)[0] == v.OK


def test_after_a_reset_or_without_its_queue_a_ring_is_left_alone() -> None:
    def asked(world: World) -> int:
        return world.driver.submit(v.IN, 0, [(512, True)])

    for end in (
        lambda w: w.driver.store(0x70, 0),
        lambda w: (w.driver.store(0x30, 0), w.driver.store(0x44, 0)),
        lambda w: w.blk.stop(),
        lambda w: w.blk.reset(),
        lambda w: w.driver.store(0x70, 11),
    ):
        world = World()
        status = asked(world)
        end(world)
        world.driver.kick(world.driver.queues[0])
        assert (world.driver.peek(status, 1), world.notified) == (b"\xee", 0)


def test_a_notification_that_finds_the_lock_taken_is_the_models() -> None:
    world = World()
    status = world.driver.submit(v.IN, 0, [(512, True)])
    done: list[bool] = []
    mirror = world.registers.mirror
    assert mirror is not None
    with world.blk.turns.lock:
        thread = threading.Thread(target=lambda: done.append(mirror.carry_out(NOTIFY, 0)))
        thread.start()
        thread.join(TIMEOUT)
    assert (done, world.driver.peek(status, 1)) == ([False], b"\xee")


def test_an_interrupt_that_is_a_write_to_ram_is_the_models() -> None:
    world = World()
    world.bench.ram.memory.add(Window(DOORBELL & ~0xFFF, 0x1000, bytearray(0x1000)))
    assert world.driver.request(v.IN, 0, room=512)[0] == v.OK
    assert world.notified == 0


def test_where_the_masters_lock_is_not_of_the_core_nothing_is_native() -> None:
    world = World("served")
    world.blk.post = Post(DOORBELL, INTID)
    assert server.pump is not None
    assert world.blk.mirror(server.pump.Mirror) is None
    assert world.driver.request(v.IN, 0, room=512)[0] == v.OK


def test_a_disk_at_work_is_taken_back_for_its_seam_and_lent_again_after_it() -> None:
    world = World()
    for _ in range(3):
        assert world.driver.request(v.IN, 0, room=512)[0] == v.OK
    before = world.notified
    assert before > 0
    seen: list[Transaction] = []

    def rewrite(transaction: Transaction) -> Transaction:
        seen.append(transaction)
        return transaction

    world.blk.port.rewrite = rewrite
    for n in range(3):
        assert world.driver.request(v.IN, n, room=512)[0] == v.OK
    assert (world.notified, sum(each.size == 512 for each in seen)) == (before, 3)
    world.blk.port.rewrite = None
    seen.clear()
    for _ in range(3):
        assert world.driver.request(v.IN, 0, room=512)[0] == v.OK
    assert (world.notified > before, seen) == (True, [])


def test_a_worker_that_was_woken_goes_on_with_what_is_too_much_at_once() -> None:
    woken: list[None] = []
    world = World(wake=lambda: woken.append(None))
    world.blk.work()
    woken.clear()
    places = [world.driver.submit(v.IN, n, [(512, True)]) for n in range(80)]
    world.driver.kick(world.driver.queues[0])
    assert woken
    assert [world.driver.peek(at, 1) for at in places].count(b"\0") < 80
    world.blk.work()
    assert [world.driver.peek(at, 1) for at in places] == [b"\0"] * 80
    assert len(world.driver.used(world.driver.queues[0])) == 80


# -- storage ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_from_its_cache_and_written_by_the_model(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(NOISE)
    with contextlib.closing(FileStorage(path)) as storage:
        # Some file systems do not say whether a read has to wait; then all is the model's.
        natively = int(storage.prompt is not None)
        world = World(storage=storage)
        assert world.driver.request(v.IN, 3, room=8192)[1] == NOISE[3 * 512 :][:8192]
        assert world.notified == natively
        assert world.driver.request(v.OUT, 3, bytes(512))[0] == v.OK
        assert world.notified == natively
        assert storage.read(3 * 512, 512) == bytes(512)


def test_a_readonly_disk_is_not_written() -> None:
    storage = MemoryStorage(DISK)
    storage.readonly = True
    world = World(storage=storage)
    assert world.driver.request(v.OUT, 0, b"x" * 512)[0] == v.IOERR
    assert storage.read(0, 512) == bytes(512)


def test_what_the_file_has_behind_the_disks_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(NOISE + b"secret" * 1000)
    with contextlib.closing(FileStorage(path, DISK)) as storage:
        world = World(storage=storage)
        assert world.driver.request(v.IN, DISK // 512 - 1, room=512)[0] == v.OK
        assert world.driver.request(v.IN, DISK // 512 - 1, room=1024)[0] == v.IOERR
        assert world.driver.request(v.IN, DISK // 512, room=512)[0] == v.IOERR


def test_a_file_that_became_shorter_is_an_error_of_the_request(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(DISK))
    with contextlib.closing(FileStorage(path)) as storage:
        world = World(storage=storage)
        path.write_bytes(bytes(4096))
        assert world.driver.request(v.IN, 2, room=8192)[0] == v.IOERR


# -- all ways are one ------------------------------------------------------------------------------------------------

buffers = st.lists(st.tuples(st.sampled_from([0, 1, 100, 412, 512, 1024, 4096, 5000]), st.booleans()), max_size=5)
steps = st.one_of(
    st.tuples(st.just("request"), st.sampled_from([0, 0, 0, 1, 1, 4, 8, 11, 77]), st.integers(0, 520), buffers,
              st.booleans(), st.booleans()),
    st.tuples(st.just("kick")),
    st.tuples(st.just("poke"), st.integers(0, 40), st.integers(0, 255)),
    st.tuples(st.just("unmap"), st.integers(0, 24)),
    st.tuples(st.just("reset")),
)  # fmt: skip


def live(world: World, history: list[Any]) -> object:
    """All that came of it."""
    driver = world.driver
    for kind, *rest in history:
        if kind == "request":
            number, sector, parts, indirect, in_order = rest
            if len(driver.queues[0].free) < 8 or driver.next > SPAN - (1 << 15):
                continue
            parts = sorted(parts, key=lambda part: part[1]) if in_order else parts
            driver.submit(number, sector, [part for part in parts if part[0]], indirect=indirect)
        elif kind == "kick":
            driver.kick(driver.queues[0])
            with contextlib.suppress(KeyError):
                driver.used(driver.queues[0])
        elif kind == "poke":  # somewhere in the rings
            driver.poke(driver.queues[0].desc + rest[0] * 7, bytes([rest[1]]))
        elif kind == "unmap":
            world.table.unmap(IOVA + 4096 * rest[0])
            world.bench.invalidate(CMD_TLBI_NH_ALL.of())
        else:
            driver.next = 0
            driver.probe()
    driver.kick(driver.queues[0])
    return world.state(), [event.raw for event in world.bench.events()]


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=14))
def test_memory_disk_and_events_are_the_same_whichever_way_notifications_go(history: list[Any]) -> None:
    expected = live(World("reference"), history)
    assert live(World("served"), history) == expected
    assert live(World("native"), history) == expected


def test_the_reference_serves_by_itself() -> None:
    world = World("reference")
    assert isinstance(world.bench.smmu, Smmu)
    ring = world.blk._queues[0].ring
    assert ring is not None
    assert world.port.serve(ring.layout, Disk(0, 0, True, 1), 0, 0, Batch(1, 1)) is None
    assert world.driver.request(v.IN, 5, room=512)[1] == NOISE[5 * 512 :][:512]
