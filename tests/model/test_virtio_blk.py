# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import virtio_driver as v
from tests.model.fake_smmu import FakeSmmu
from tests.model.virtio_driver import BlkDriver, RefusedError
from vhost_iommu.errors import UsageError
from vhost_iommu.masters.port import Port
from vhost_iommu.masters.storage import MemoryStorage
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.memory import Memory
from vhost_iommu.smmu.transaction import Answer, Begun, Outcome, Transaction

RAM = 0x4000_0000
IOVA = 0x7_0000_0000
DISK = 5 << 19
NEEDS_RESET = 0x40


class Bench:
    """A disk of noise behind a fake SMMU, and a driver for it."""

    def __init__(
        self,
        *,
        queues: int = 1,
        queue_size: int = 16,
        readonly: bool = False,
        ram: int = 1 << 21,
        probe: bool = True,
        wanted: int = -1,
        wake: Callable[[], None] | None = None,
        lock: AbstractContextManager[object] | None = None,
        memory: Callable[[bytearray], Memory] = lambda ram: Memory((RAM, ram)),
        translated: bool = True,
    ) -> None:
        self.ram = bytearray(ram)
        self.smmu = FakeSmmu(IOVA, ram, RAM)
        self.memory = memory(self.ram)
        self.port = Port("disk", self.memory, self.smmu if translated else None, (9,))
        self.storage = MemoryStorage(DISK)
        self.noise = Random(2).randbytes(DISK)
        self.storage.write(0, self.noise)
        self.storage.readonly = readonly
        self.pulses = 0
        self.blk = VirtioBlk(
            "disk",
            self.port,
            self.storage,
            queues=queues,
            queue_size=queue_size,
            serial="SN-1",
            interrupt=self.pulse,
            wake=wake,
            lock=lock,
        )
        self.driver = BlkDriver(self.blk, self.ram, IOVA)
        if probe:
            self.driver.probe(wanted, queues=queues)

    def pulse(self) -> None:
        self.pulses += 1
        self.driver.interrupt()

    @property
    def broken(self) -> bool:
        return bool(self.driver.status & NEEDS_RESET)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def driver(bench: Bench) -> BlkDriver:
    return bench.driver


# -- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_reads_return_what_the_disk_holds(bench: Bench, indirect: bool, pieces: int) -> None:
    size = 24 * v.SECTOR
    status, data, written = bench.driver.request(v.IN, 5, room=size, indirect=indirect, pieces=pieces)
    assert (status, written) == (v.OK, size + 1)
    assert data == bench.noise[5 * v.SECTOR : 29 * v.SECTOR]


@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_writes_reach_the_disk_and_nothing_beside(bench: Bench, indirect: bool, pieces: int) -> None:
    data = Random(3).randbytes(24 * v.SECTOR)
    status, _, written = bench.driver.request(v.OUT, 5, data, indirect=indirect, pieces=pieces)
    assert (status, written) == (v.OK, 1)
    expected = bench.noise[: 5 * v.SECTOR] + data + bench.noise[29 * v.SECTOR :]
    assert bench.storage.read(0, DISK) == expected


def test_every_byte_goes_through_translation_by_the_disks_stream() -> None:
    bench: Bench

    class Watched(Memory):
        """Allows what the last answer translated to, and nothing else."""

        accesses = 0

        def allow(self, pa: int, size: int) -> None:
            transaction = bench.smmu.asked[-1]
            first = transaction.iova - IOVA + RAM
            assert first <= pa <= pa + size <= first + transaction.size
            self.accesses += 1

        def read(self, pa: int, size: int) -> bytes | None:
            self.allow(pa, size)
            return super().read(pa, size)

        def write(self, pa: int, data: bytes) -> bool:
            self.allow(pa, len(data))
            assert bench.smmu.asked[-1].write
            return super().write(pa, data)

    bench = Bench(probe=False, memory=lambda ram: Watched((RAM, ram)))
    bench.driver.probe()
    bench.smmu.asked.clear()
    made, memory = bench.port.transactions, bench.memory
    assert isinstance(memory, Watched)
    memory.accesses = 0
    assert bench.driver.request(v.IN, 0, room=4096, indirect=True)[0] == v.OK
    assert bench.driver.request(v.OUT, 0, bytes(4096), pieces=2)[0] == v.OK
    assert memory.accesses >= len(bench.smmu.asked) > 20
    assert {(asked.sid, asked.ssid) for asked in bench.smmu.asked} == {(9, None)}
    assert bench.port.transactions == made + len(bench.smmu.asked)


def test_a_request_takes_few_transactions(bench: Bench) -> None:
    bench.driver.request(v.IN, 0, room=65536, indirect=True)
    bench.smmu.asked.clear()
    bench.driver.request(v.IN, 0, room=65536, indirect=True)
    # avail idx, head, descriptor, table, header, data, status, used element, used idx, used_event, avail_event, idx
    assert len(bench.smmu.asked) == 12


@pytest.mark.parametrize("pieces", [1, 10])
def test_megabytes_move_in_bounded_chunks(pieces: int) -> None:
    bench = Bench(ram=1 << 23)
    status, data, _ = bench.driver.request(v.IN, 0, room=DISK, pieces=pieces)
    assert (status, data) == (v.OK, bench.noise)
    assert bench.driver.request(v.OUT, 0, bench.noise[::-1], pieces=pieces)[0] == v.OK
    assert bench.storage.read(0, DISK) == bench.noise[::-1]
    assert max(asked.size for asked in bench.smmu.asked) <= 1 << 20


def test_flush_and_get_id_succeed(driver: BlkDriver) -> None:
    assert driver.request(v.FLUSH)[0] == v.OK
    assert driver.request(v.GET_ID, room=20) == (v.OK, b"SN-1" + bytes(16), 21)
    assert driver.request(v.GET_ID, room=3) == (v.OK, b"SN-", 4)


def test_discard_and_write_zeroes_take_ranges(bench: Bench) -> None:
    ranges = struct.pack("<QIIQII", 8, 8, 0, 32, 1, 1)
    assert bench.driver.request(v.WRITE_ZEROES, 0, ranges)[0] == v.OK
    expected = bytearray(bench.noise)
    expected[8 * 512 : 16 * 512] = bytes(8 * 512)
    expected[32 * 512 : 33 * 512] = bytes(512)
    assert bench.storage.read(0, DISK) == bytes(expected)
    assert bench.driver.request(v.DISCARD, 0, struct.pack("<QII", 1024, 8, 0))[0] == v.OK
    assert bench.storage.read(0, 1024 * 512) == bytes(expected[: 1024 * 512])
    assert bench.storage.read(1032 * 512, 512) == bytes(expected[1032 * 512 : 1033 * 512])


LAST = DISK // v.SECTOR - 1
REFUSED = [
    ("unknown type", 77, 0, b"", 512, v.UNSUPP),
    ("read past the end", v.IN, LAST, b"", 1024, v.IOERR),
    ("read far past the end", v.IN, 2**64 - 1, b"", 512, v.IOERR),
    ("read of half a sector", v.IN, 0, b"", 256, v.IOERR),
    ("write past the end", v.OUT, LAST, bytes(1024), 0, v.IOERR),
    ("write of half a sector", v.OUT, 0, bytes(256), 0, v.IOERR),
    ("discard with a flag", v.DISCARD, 0, struct.pack("<QII", 0, 1, 1), 0, v.UNSUPP),
    ("zeroes with an unknown flag", v.WRITE_ZEROES, 0, struct.pack("<QII", 0, 1, 2), 0, v.UNSUPP),
    ("zeroes past the end", v.WRITE_ZEROES, 0, struct.pack("<QII", LAST, 2, 0), 0, v.IOERR),
    ("zeroes of too much", v.WRITE_ZEROES, 0, struct.pack("<QII", 0, 2**32 - 1, 0), 0, v.IOERR),
    ("half a range", v.WRITE_ZEROES, 0, bytes(8), 0, v.IOERR),
    ("too many ranges", v.WRITE_ZEROES, 0, bytes(16 * 17), 0, v.IOERR),
    ("no range", v.DISCARD, 0, b"", 0, v.IOERR),
]


@pytest.mark.parametrize("row", REFUSED, ids=[row[0] for row in REFUSED])
def test_a_request_that_makes_no_sense_fails_and_changes_nothing(
    bench: Bench, row: tuple[str, int, int, bytes, int, int]
) -> None:
    _, kind, sector, data, room, expected = row
    assert bench.driver.request(kind, sector, data, room)[0] == expected
    assert bench.storage.read(0, DISK) == bench.noise
    assert not bench.broken


@pytest.mark.parametrize("kind", [v.OUT, v.WRITE_ZEROES, v.DISCARD])
def test_a_readonly_disk_says_so_and_refuses(kind: int) -> None:
    bench = Bench(readonly=True)
    assert bench.driver.features & (1 << 5 | 1 << 13 | 1 << 14) == 1 << 5
    data = struct.pack("<QII", 0, 1, 0) if kind != v.OUT else bytes(512)
    assert bench.driver.request(kind, 0, data)[0] == v.IOERR
    assert bench.storage.read(0, DISK) == bench.noise


def test_a_disk_that_fails_is_an_io_error(bench: Bench) -> None:
    bench.storage.close()
    for kind, data, room in (v.IN, b"", 512), (v.OUT, bytes(512), 0):
        assert bench.driver.request(kind, 0, data, room)[0] == v.IOERR


def test_queues_are_served_apart() -> None:
    bench = Bench(queues=4)
    assert bench.blk.read(0x100 + 34, 2) == 4
    for queue in 3, 0, 2, 1, 2:
        status, data, _ = bench.driver.request(v.IN, queue, room=512, queue=queue)
        assert (status, data) == (v.OK, bench.noise[512 * queue : 512 * queue + 512])
    assert [queue.seen for queue in bench.driver.queues] == [1, 1, 2, 1]


def test_rings_wrap_around(driver: BlkDriver) -> None:
    for n in range(50):
        assert driver.request(v.IN, n, room=512, indirect=bool(n % 2))[0] == v.OK


def test_batches_wrap_around(bench: Bench) -> None:
    ring = bench.driver.queues[0]
    for _ in range(20):
        bench.driver.poke(ring.used + 4, b"\xff" * 8 * ring.size)
        expected = batch(bench, 5)
        assert bench.driver.used(ring) == expected
    assert not bench.broken


def test_write_through_flushes_each_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[int] = []
    monkeypatch.setattr(bench.storage, "flush", lambda: flushes.append(1) or True)  # type: ignore[func-returns-value]
    bench.driver.request(v.OUT, 0, bytes(512))
    assert (flushes, bench.blk.read(0x120, 1)) == ([], 1)
    bench.blk.write(0x120, 1, 0)
    assert bench.blk.read(0x120, 1) == 0
    bench.driver.request(v.OUT, 0, bytes(512))
    assert flushes == [1]
    bench.driver.probe()
    assert bench.blk.read(0x120, 1) == 1


def test_without_flush_negotiated_each_write_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(wanted=v.VERSION_1 | v.ACCESS_PLATFORM)
    flushes: list[int] = []
    monkeypatch.setattr(bench.storage, "flush", lambda: flushes.append(1) or True)  # type: ignore[func-returns-value]
    bench.driver.request(v.OUT, 0, bytes(512))
    assert flushes == [1]


# -- notifications -------------------------------------------------------------------------------------------------


def batch(bench: Bench, count: int) -> list[tuple[int, int]]:
    """Make ``count`` flushes available, then notify once: what is to come back."""
    driver, ring = bench.driver, bench.driver.queues[0]
    heads = []
    for _ in range(count):
        header, status = driver.alloc(16), driver.alloc(1)
        driver.poke(header, struct.pack("<IIQ", v.FLUSH, 0, 0))
        heads.append(driver.add(ring, [(header, 16, False), (status, 1, True)]))
    driver.kick(ring)
    return [(head, 1) for head in heads]


def test_a_batch_is_notified_once(bench: Bench) -> None:
    batch(bench, 5)
    assert len(bench.driver.used(bench.driver.queues[0])) == 5
    assert bench.pulses == 1


def test_each_notification_is_an_edge_even_when_none_was_acknowledged(bench: Bench) -> None:
    edges: list[int] = []
    bench.blk.interrupt = lambda: edges.append(bench.driver.load(0x60))
    ring = bench.driver.queues[0]
    for _ in range(3):
        batch(bench, 1)
        bench.driver.poke(ring.avail + 4 + 2 * ring.size, ring.avail_idx.to_bytes(2, "little"))
    assert edges == [1, 1, 1]
    bench.driver.store(0x64, 1)
    assert bench.driver.load(0x60) == 0


@pytest.mark.parametrize(("event", "pulses"), [(0, 1), (2, 1), (3, 0), (65535, 0)])
def test_used_event_decides_on_the_interrupt(bench: Bench, event: int, pulses: int) -> None:
    ring = bench.driver.queues[0]
    bench.driver.poke(ring.avail + 4 + 2 * ring.size, event.to_bytes(2, "little"))
    batch(bench, 3)
    assert bench.pulses == pulses


def test_avail_event_follows_what_was_taken(bench: Bench) -> None:
    ring = bench.driver.queues[0]
    batch(bench, 3)
    assert bench.driver.u16(ring.used + 4 + 8 * ring.size) == 3


@pytest.mark.parametrize(("flags", "pulses"), [(0, 1), (1, 0)])
def test_without_event_idx_the_avail_flags_decide(flags: int, pulses: int) -> None:
    bench = Bench(wanted=v.VERSION_1 | v.ACCESS_PLATFORM)
    ring = bench.driver.queues[0]
    bench.driver.poke(ring.avail, flags.to_bytes(2, "little"))
    batch(bench, 2)
    assert bench.pulses == pulses
    assert len(bench.driver.used(ring)) == 2


def test_a_driver_that_kicks_from_its_interrupt_is_served(bench: Bench) -> None:
    left = [3]

    def again() -> None:
        ring = bench.driver.queues[0]
        bench.driver.used(ring)
        bench.driver.poke(ring.avail + 4 + 2 * ring.size, ring.avail_idx.to_bytes(2, "little"))
        if left[0]:
            left[0] -= 1
            batch(bench, 1)

    bench.blk.interrupt = again
    batch(bench, 1)
    assert left == [0]
    assert bench.driver.queues[0].seen == 4


def test_an_acknowledgment_that_is_late_clears_nothing_that_the_driver_has_not_read(bench: Bench) -> None:
    # A posted write overtakes nothing, but the device goes on meanwhile: the driver acknowledges what it read,
    # finds its ring as it was, and only then does the write arrive, after one more buffer was used.
    bench.blk.interrupt = lambda: None
    batch(bench, 1)
    ring = bench.driver.queues[0]
    status = bench.driver.load(0x60)
    bench.driver.poke(ring.avail + 4 + 2 * ring.size, ring.avail_idx.to_bytes(2, "little"))
    batch(bench, 1)
    bench.driver.store(0x64, status)
    assert bench.driver.load(0x60) == 1
    bench.driver.store(0x64, 1)
    assert bench.driver.load(0x60) == 0


def test_a_queue_that_never_empties_does_not_starve_another() -> None:
    bench = Bench(queues=2)
    driver = bench.driver
    busy, other = driver.queues
    served_after: list[int] = []
    refills = 0

    def refill() -> None:
        nonlocal refills
        driver.used(busy)
        if not served_after and driver.used(other):
            served_after.append(refills)
        driver.poke(busy.avail + 4 + 2 * busy.size, busy.avail_idx.to_bytes(2, "little"))
        if refills == 50:
            return
        refills += 1
        if refills == 5:
            header, status = driver.alloc(16), driver.alloc(1)
            driver.poke(header, struct.pack("<IIQ", v.FLUSH, 0, 0))
            driver.add(other, [(header, 16, False), (status, 1, True)])
            driver.kick(other)
        batch(bench, 1)

    bench.blk.interrupt = refill
    batch(bench, 1)
    assert refills == 50
    assert served_after
    assert served_after[0] < 10


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [v.IN, v.OUT])
def test_a_fault_on_data_is_an_io_error_and_the_disk_lives_on(bench: Bench, kind: int) -> None:
    driver = bench.driver
    bad = driver.alloc(4096, 4096)
    bench.smmu.forbid(bad)
    header, status, ring = driver.alloc(16), driver.alloc(1), driver.queues[0]
    driver.poke(header, struct.pack("<IIQ", kind, 0, 0))
    driver.add(ring, [(header, 16, False), (bad, 512, kind == v.IN), (status, 1, True)])
    driver.kick(ring)
    assert driver.used(ring)[0][1] == 1
    assert driver.peek(status, 1)[0] == v.IOERR
    assert not bench.broken
    assert driver.request(v.IN, 0, room=512)[0] == v.OK
    assert bench.storage.read(0, DISK) == bench.noise


def test_a_status_that_faults_breaks_the_device(bench: Bench) -> None:
    driver, ring = bench.driver, bench.driver.queues[0]
    header, bad = driver.alloc(16), driver.alloc(4096, 4096)
    bench.smmu.forbid(bad)
    driver.add(ring, [(header, 16, False), (bad, 1, True)])
    driver.kick(ring)
    assert bench.broken
    assert driver.used(ring) == []


@pytest.mark.parametrize("part", ["desc", "avail", "used"])
def test_a_ring_that_faults_breaks_the_device_until_it_is_reset(bench: Bench, part: str) -> None:
    driver = bench.driver
    driver.alloc(1, 4096)
    driver.probe()
    ring = driver.queues[0]
    setattr(ring, part, driver.alloc(4096, 4096))
    driver.store(0x70, 0)
    driver.store(0x70, 3)
    driver.accept(driver.features)
    driver.store(0x70, 11)
    for at, iova in (0x80, ring.desc), (0x90, ring.avail), (0xA0, ring.used):
        driver.store(at, iova & 0xFFFFFFFF)
        driver.store(at + 4, iova >> 32)
    driver.store(0x44, 1)
    driver.store(0x70, 15)
    bench.smmu.forbid(getattr(ring, part))
    batch(bench, 1)
    assert bench.broken
    assert driver.config_changes == 1
    asked = len(bench.smmu.asked)
    batch(bench, 1)
    assert len(bench.smmu.asked) == asked
    driver.probe()
    assert driver.request(v.IN, 0, room=512)[0] == v.OK


def test_silently_terminated_rings_look_empty(bench: Bench) -> None:
    bench.smmu.outcome = Outcome.RAZ_WI
    bench.smmu.forbid(IOVA, len(bench.ram))
    batch(bench, 1)
    assert not bench.broken
    assert bench.driver.used(bench.driver.queues[0]) == []


# -- drivers that break the rules ------------------------------------------------------------------------------------

Craft = Callable[[BlkDriver, v.Queue], None]


def head_out_of_range(driver: BlkDriver, ring: v.Queue) -> None:
    driver.offer(ring, ring.size)


def idx_jumps(driver: BlkDriver, ring: v.Queue) -> None:
    # Each entry of the ring is a sound chain; only there cannot be so many.
    driver.write_desc(ring.desc, driver.alloc(16), 16, v.NEXT, 1)
    driver.write_desc(ring.desc + 16, driver.alloc(1), 1, v.WRITE)
    driver.poke(ring.avail + 2, (ring.size + 1).to_bytes(2, "little"))


def loop_of_one(driver: BlkDriver, ring: v.Queue) -> None:
    driver.write_desc(ring.desc, IOVA, 16, v.NEXT, 0)
    driver.offer(ring, 0)


def loop_of_all(driver: BlkDriver, ring: v.Queue) -> None:
    for n in range(ring.size):
        driver.write_desc(ring.desc + 16 * n, IOVA, 16, v.NEXT, (n + 1) % ring.size)
    driver.offer(ring, 0)


def next_out_of_range(driver: BlkDriver, ring: v.Queue) -> None:
    driver.write_desc(ring.desc, IOVA, 16, v.NEXT, 0xFFFF)
    driver.offer(ring, 0)


def readable_after_writable(driver: BlkDriver, ring: v.Queue) -> None:
    driver.add(ring, [(IOVA, 16, True), (IOVA, 16, False), (IOVA, 1, True)])


def no_status(driver: BlkDriver, ring: v.Queue) -> None:
    driver.add(ring, [(IOVA, 16, False)])


def short_header(driver: BlkDriver, ring: v.Queue) -> None:
    driver.add(ring, [(IOVA, 15, False), (IOVA, 1, True)])


def empty_buffers(driver: BlkDriver, ring: v.Queue) -> None:
    driver.add(ring, [(IOVA, 0, False), (IOVA, 0, True)])


def indirect_in_indirect(driver: BlkDriver, ring: v.Queue) -> None:
    table = driver.alloc(16)
    driver.write_desc(table, table, 16, v.INDIRECT)
    driver.write_desc(ring.desc, table, 16, v.INDIRECT)
    driver.offer(ring, 0)


def indirect_with_next(driver: BlkDriver, ring: v.Queue) -> None:
    table = driver.alloc(32)
    driver.write_desc(table, driver.alloc(16), 16, v.NEXT, 1)
    driver.write_desc(table + 16, driver.alloc(1), 1, v.WRITE)
    driver.write_desc(ring.desc, table, 32, v.INDIRECT | v.NEXT, 1)
    driver.offer(ring, 0)


def indirect_of(size: int) -> Craft:
    def craft(driver: BlkDriver, ring: v.Queue) -> None:
        driver.write_desc(ring.desc, driver.alloc(size % 65536), size, v.INDIRECT)
        driver.offer(ring, 0)

    craft.__name__ = f"indirect_of_{size}"
    return craft


def loop_in_indirect(driver: BlkDriver, ring: v.Queue) -> None:
    table = driver.alloc(32)
    driver.write_desc(table, IOVA, 16, v.NEXT, 1)
    driver.write_desc(table + 16, IOVA, 16, v.NEXT, 0)
    driver.write_desc(ring.desc, table, 32, v.INDIRECT)
    driver.offer(ring, 0)


CRAFTS: list[Craft] = [
    head_out_of_range,
    idx_jumps,
    loop_of_one,
    loop_of_all,
    next_out_of_range,
    readable_after_writable,
    no_status,
    short_header,
    empty_buffers,
    indirect_in_indirect,
    indirect_with_next,
    indirect_of(0),
    indirect_of(24),
    indirect_of(17 * 16),
    indirect_of(0xFFFFFFF0),
    loop_in_indirect,
]


@pytest.mark.parametrize("craft", CRAFTS, ids=lambda craft: craft.__name__)
def test_a_broken_ring_needs_a_reset_and_says_so_by_interrupt(bench: Bench, craft: Craft) -> None:
    craft(bench.driver, bench.driver.queues[0])
    bench.driver.kick(bench.driver.queues[0])
    assert bench.broken
    assert bench.driver.config_changes == 1
    assert len(bench.smmu.asked) < 3 * bench.driver.queues[0].size
    bench.driver.probe()
    assert not bench.broken
    assert bench.driver.request(v.IN, 0, room=512)[0] == v.OK


def test_an_indirect_table_that_was_not_negotiated_breaks_the_device() -> None:
    bench = Bench(wanted=v.VERSION_1 | v.ACCESS_PLATFORM)
    driver, ring = bench.driver, bench.driver.queues[0]
    driver.add(ring, [(driver.alloc(16), 16, False), (driver.alloc(1), 1, True)], indirect=True)
    driver.kick(ring)
    assert bench.broken


def test_a_huge_read_is_refused_before_anything_moves(bench: Bench) -> None:
    driver, ring = bench.driver, bench.driver.queues[0]
    header, status = driver.alloc(16), driver.alloc(1)
    driver.poke(header, bytes(16))
    driver.add(ring, [(header, 16, False), *[(IOVA, 0xFFFFFE00, True)] * 10, (status, 1, True)])
    driver.kick(ring)
    assert driver.peek(status, 1)[0] == v.IOERR
    assert max(asked.size for asked in bench.smmu.asked) < 4096


GARBAGE = st.integers(0, 7).flatmap(
    lambda flags: st.tuples(
        st.one_of(st.integers(IOVA - 4096, IOVA + 0x10000), st.integers(0, 2**64 - 1)),
        st.one_of(st.sampled_from([0, 1, 16, 512, 4096]), st.integers(0, 2**32 - 1)),
        st.just(flags),
        st.one_of(st.integers(0, 9), st.integers(0, 65535)),
    )
)


@given(
    st.lists(GARBAGE, min_size=8, max_size=8),
    st.lists(GARBAGE, max_size=8),
    st.lists(st.integers(0, 9), max_size=9),
    st.integers(0, 20),
    st.binary(min_size=16, max_size=16),
)
@settings(max_examples=200, deadline=None)
def test_whatever_lies_in_the_rings_nothing_raises_and_nothing_outside_is_touched(
    descriptors: list[tuple[int, int, int, int]],
    table: list[tuple[int, int, int, int]],
    heads: list[int],
    idx: int,
    header: bytes,
) -> None:
    behind = bytearray(b"\xa5" * 0x8000)
    bench = Bench(queue_size=8, ram=0x8000, memory=lambda ram: Memory((RAM, ram), (RAM + 0x8000, behind)))
    driver, ring = bench.driver, bench.driver.queues[0]
    at = driver.alloc(16 * 8)
    for n, each in enumerate(table):
        driver.write_desc(at + 16 * n, *each)
    driver.poke(IOVA + 0x2000, header)
    for n, (addr, size, flags, following) in enumerate(descriptors):
        if flags & v.INDIRECT and size < 4096:
            addr, size = at, 16 * len(table)
        driver.write_desc(ring.desc + 16 * n, addr, size, flags, following)
    for n, head in enumerate(heads[:8]):
        driver.poke(ring.avail + 4 + 2 * n, head.to_bytes(2, "little"))
    driver.poke(ring.avail + 2, idx.to_bytes(2, "little"))
    driver.kick(ring)
    assert behind == b"\xa5" * 0x8000
    assert driver.status & ~NEEDS_RESET == 15
    assert len(bench.smmu.asked) < 400
    assert all(asked.size <= 1 << 20 for asked in bench.smmu.asked)
    driver.next = 0x6000
    driver.probe()
    assert driver.status == 15


# -- the transport -------------------------------------------------------------------------------------------------


def test_features_that_were_not_offered_are_refused() -> None:
    bench = Bench(probe=False)
    bench.driver.store(0x70, 3)
    bench.driver.accept(bench.driver.offered() | 1 << 40)
    bench.driver.store(0x70, 11)
    assert bench.driver.status == 3


@pytest.mark.parametrize("wanted", [v.VERSION_1, v.ACCESS_PLATFORM])
def test_a_driver_without_version_1_or_the_iommu_is_refused(wanted: int) -> None:
    with pytest.raises(RefusedError):
        Bench(wanted=wanted)


def test_a_master_without_an_smmu_does_without_access_platform() -> None:
    bench = Bench(probe=False, translated=False)
    bench.driver.iova = RAM
    bench.driver.probe(v.VERSION_1)
    assert bench.driver.request(v.IN, 0, room=512)[0] == v.OK


def test_multiqueue_is_offered_only_with_several_queues() -> None:
    assert not Bench(queues=1).driver.features & 1 << 12
    assert Bench(queues=2).driver.features & 1 << 12


def test_the_configuration_tells_the_disk(bench: Bench) -> None:
    assert bench.blk.read(0x100, 8) == DISK // 512
    assert bench.blk.read(0x10C, 4) == 14
    assert bench.blk.read(0x114, 4) == 512
    assert bench.blk.read(0x13C, 4) == 0
    assert bench.blk.read(0x1F8, 8) == 0


@pytest.mark.parametrize("size", [1, 2, 8])
def test_registers_take_32_bit_accesses_only(bench: Bench, size: int) -> None:
    assert bench.blk.read(0, size) == 0
    bench.blk.write(0x70, size, 0)
    assert bench.driver.status == 15


def test_there_is_no_queue_beyond_the_last(bench: Bench) -> None:
    bench.driver.store(0x30, 1)
    assert (bench.driver.load(0x34), bench.driver.load(0x44)) == (0, 0)
    bench.driver.store(0x38, 8)
    bench.driver.store(0x44, 1)
    bench.driver.store(0x50, 1)
    assert (bench.driver.load(0x44), bench.driver.status) == (0, 15)


@pytest.mark.parametrize(("at", "value"), [(0x38, 0), (0x38, 3), (0x38, 32), (0x80, 8), (0x90, 1), (0xA0, 2)], ids=hex)
def test_a_queue_that_cannot_be_does_not_become_ready(at: int, value: int) -> None:
    bench = Bench(probe=False)
    bench.driver.store(0x70, 3)
    bench.driver.store(at, value)
    bench.driver.store(0x44, 1)
    assert bench.driver.load(0x44) == 0
    assert bench.broken


def test_chains_offered_before_driver_ok_are_served_after_it() -> None:
    bench = Bench(probe=False)
    driver = bench.driver
    driver.store(0x70, 3)
    driver.accept(v.VERSION_1 | v.ACCESS_PLATFORM)
    driver.store(0x70, 11)
    driver.queues = [driver.setup_queue(0)]
    batch(bench, 1)
    assert bench.smmu.asked == []
    driver.store(0x70, 15)
    assert len(driver.used(driver.queues[0])) == 1


def test_a_reset_forgets_everything(bench: Bench) -> None:
    bench.blk.interrupt = lambda: None
    batch(bench, 1)
    assert bench.driver.load(0x60) == 1
    bench.blk.reset()
    assert (bench.driver.status, bench.driver.load(0x60), bench.driver.load(0x44)) == (0, 0, 0)
    asked = len(bench.smmu.asked)
    bench.driver.kick(bench.driver.queues[0])
    assert len(bench.smmu.asked) == asked


@pytest.mark.parametrize("bad", [{"queues": 0}, {"queues": 1025}, {"queue_size": 0}, {"queue_size": 24}])
def test_a_machine_file_that_asks_for_the_impossible_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="queue"):
        VirtioBlk("disk", Port("disk", Memory(), None), MemoryStorage(512), **bad)  # type: ignore[arg-type]


def test_zero_alone_resets(bench: Bench) -> None:
    bench.driver.store(0x70, 1 << 30)  # a reserved bit
    assert bench.driver.load(0x44) == 1  # the queue is ready as before
    bench.driver.store(0x70, 0)
    assert (bench.driver.status, bench.driver.load(0x44)) == (0, 0)


def test_a_write_whose_data_came_before_a_reset_does_not_follow_it(bench: Bench) -> None:
    translate = bench.smmu.translate

    def resetting(transaction: Transaction, begun: Begun | None = None) -> Answer:
        answer = translate(transaction)
        if transaction.size == 1024:
            bench.blk.reset()
        return answer

    bench.smmu.translate = resetting  # type: ignore[method-assign]
    with pytest.raises(AssertionError):  # the request never comes back
        bench.driver.request(v.OUT, 0, bytes(1024))
    assert bench.storage.read(0, DISK) == bench.noise


# -- a worker in a thread ----------------------------------------------------------------------------------------------


def test_no_dma_follows_a_reset_while_the_worker_is_busy() -> None:
    lock, reached = threading.RLock(), threading.Event()
    bench = Bench(wake=lambda: None, lock=lock)
    driver, ring = bench.driver, bench.driver.queues[0]
    header, status = driver.alloc(16), driver.alloc(1)
    driver.poke(header, bytes(16))
    parts = [(header, 16, False), *[(driver.alloc(512, 1024), 512, True) for _ in range(13)], (status, 1, True)]
    driver.add(ring, parts)
    translate = bench.smmu.translate
    reset_done = threading.Event()
    late: list[Transaction] = []

    def watched(transaction: Transaction, begun: Begun | None = None) -> Answer:
        if reset_done.is_set():
            late.append(transaction)
        if transaction.write:
            reached.set()
        return translate(transaction)

    bench.smmu.translate = watched  # type: ignore[method-assign]

    # The worker reads the disk between its transactions; hold it there until the reset is over.
    read = bench.storage.read

    def slow(offset: int, size: int) -> bytes | None:
        reached.set()
        assert reset_done.wait(30)
        return read(offset, size)

    bench.storage.read = slow  # type: ignore[method-assign]
    driver.kick(ring)
    worker = threading.Thread(target=bench.blk.work)
    worker.start()
    assert reached.wait(30)
    driver.store(0x70, 0)
    assert driver.status == 0
    reset_done.set()
    worker.join(30)
    assert not worker.is_alive()
    assert late == []
    assert driver.peek(status, 1) == b"\0"
    assert driver.status == 0
    assert driver.used(ring) == []
