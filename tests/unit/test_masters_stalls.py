# SPDX-License-Identifier: Apache-2.0
"""Stalled DMA in one process without threads: a master, an SMMU, and software that answers faults."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from random import Random

import pytest

from tests.model import virtio_driver as v
from tests.model.virtio_driver import BlkDriver
from tests.smmu_builder import Bench, PageTable, Ram
from vhost_iommu.layout import Register
from vhost_iommu.masters.engine import Cmd, ExtensionFrame, FaultReason, PrivilegedFrame, TestEngine, UserFrame
from vhost_iommu.masters.gate import Gate, Turns
from vhost_iommu.masters.port import Abort, Port, Waiting, Why
from vhost_iommu.masters.storage import MemoryStorage
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.smmu.seams import Verdict
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import F_TRANSLATION
from vhost_iommu.smmu.v3.registers import CR0, CR0ACK, EVENTQ_CONS, EVENTQ_PROD, IRQ_CTRL
from vhost_iommu.watch import Stalled

SID = 3
IOVA = 0x10_0000
PAGE = 0x1000
USER, PRIVILEGED, EXTENSION = 0, 0x1_0000, 0x2_0000
MSI_PAGE, DOORBELL = 0x7_0000, 0x0802_0000


class World:
    """An engine behind an SMMU whose stream stalls, in front of 16 pages of noise at IOVA of which none is mapped."""

    def __init__(self, *, event_bits: int = 4, stall_max: int = 32) -> None:
        features = {"stall_model": "both", "stall_max": stall_max}
        self.bench = Bench(features, ram=Ram(size=8 << 20), event_bits=event_bits)
        self.smmu = self.bench.smmu
        self.table = self.bench.stream(SID, cd={"S": 1})
        self.pages = self.bench.ram.alloc(16 * PAGE)
        self.bench.ram.put(self.pages, Random(1).randbytes(16 * PAGE))
        self.port = Port("engine", self.bench.ram.memory, self.smmu, (SID,))
        self.pulses = 0
        self.engine = TestEngine("engine", self.port, interrupt=self.pulse)

    def pulse(self) -> None:
        self.pulses += 1

    def map(self, *pages: int) -> None:
        for page in pages:
            self.table.map(IOVA + page * PAGE, self.pages + page * PAGE)

    def bytes(self, offset: int, size: int) -> bytes:
        return self.bench.ram.get(self.pages + offset, size)

    def load(self, register: type[Register], frame: int = 0, index: int = 0) -> int:
        return self.engine.read(place(register) + register.at + index * register.size + 128 * frame, register.size)

    def store(self, register: type[Register], value: int, frame: int = 0, index: int = 0) -> None:
        at = place(register) + register.at + index * register.size + 128 * frame
        self.engine.write(at, register.size, value)

    def run(self, cmd: Cmd, begin: int, size: int, *, to: int = 0, stride: int = 1, frame: int = 0) -> None:
        """Offsets into the noise."""
        self.store(UserFrame.begin, IOVA + begin, frame)
        self.store(UserFrame.end_incl, IOVA + begin + size - 1, frame)
        self.store(UserFrame.stride, stride, frame)
        self.store(UserFrame.udata, IOVA + to, frame)
        self.store(UserFrame.cmd, cmd, frame)

    def cmd(self, frame: int = 0) -> int:
        return self.load(UserFrame.cmd, frame)

    def faults(self) -> list[F_TRANSLATION]:
        """Records taken from the queue, all of them of stalls."""
        found = []
        for event in self.bench.events():
            assert isinstance(event, F_TRANSLATION)
            assert event.STALL
            found.append(event)
        return found

    def resume(self, stag: int, **how: int) -> None:
        self.bench.submit(c.CMD_RESUME.of(SID=SID, STAG=stag, **how))

    def stalls(self, frame: int = 0) -> tuple[int, ...]:
        """Now, ever, resumed, aborted, silent."""
        e = ExtensionFrame
        return tuple(
            self.load(each, frame)
            for each in (e.stalls_now, e.stalls, e.stalls_resumed, e.stalls_aborted, e.stalls_silent)
        )

    def last_fault(self, frame: int = 0) -> tuple[int, int, int]:
        """Reason, whether a write, offset into the noise."""
        fault = ExtensionFrame.fault(self.load(ExtensionFrame.fault, frame))
        return fault.REASON, fault.WRITE, self.load(ExtensionFrame.fault_address, frame) - IOVA


def place(register: type[Register]) -> int:
    if register in vars(ExtensionFrame).values():
        return EXTENSION
    return PRIVILEGED if register in vars(PrivilegedFrame).values() else USER


@pytest.fixture
def world() -> World:
    return World()


# -- one transaction ---------------------------------------------------------------------------------------------


def test_a_copy_stalls_and_completes_once_its_pages_are_mapped_and_it_is_retried(world: World) -> None:
    world.map(0, 8, 9)
    expected = world.bytes(0x800, 0x1000)
    world.run(Cmd.MEMCPY, 0x800, 0x1000, to=0x8123)
    assert world.cmd() == Cmd.MEMCPY
    (event,) = world.faults()
    assert (event.InputAddr, event.RnW) == (IOVA + PAGE, 1)
    assert world.load(UserFrame.count_of_transactions_launched) == 3
    assert world.load(UserFrame.count_of_transactions_returned) == 2
    world.map(1)
    assert world.cmd() == Cmd.MEMCPY, "a page table alone resumes nothing"
    world.resume(event.STAG, Ac=1)
    assert world.cmd() == Cmd.HALTED
    assert world.bytes(0x8123, 0x1000) == expected
    assert world.pulses == 1
    assert world.stalls() == (0, 1, 1, 0, 0)
    assert world.last_fault() == (FaultReason.RESUMED, 0, PAGE)


def test_a_write_that_stalls_half_way_does_each_half_once(world: World) -> None:
    world.map(0, 8)
    expected = world.bytes(0, PAGE)
    before = world.bytes(9 * PAGE, PAGE)
    world.run(Cmd.MEMCPY, 0, PAGE, to=0x8700)
    (event,) = world.faults()
    assert (event.InputAddr, event.RnW) == (IOVA + 9 * PAGE, 0)
    assert world.bytes(0x8700, 0x900) == expected[:0x900]
    assert world.bytes(9 * PAGE, PAGE) == before
    # What was written already is not written again: it may be somebody else's by now.
    world.bench.ram.put(world.pages + 0x8700, b"mine")
    world.map(9)
    world.resume(event.STAG, Ac=1)
    assert world.cmd() == Cmd.HALTED
    assert world.bytes(0x8700, PAGE) == b"mine" + expected[4:]
    assert world.port.bytes_written == PAGE


def test_a_retry_that_faults_again_is_a_new_fault(world: World) -> None:
    world.map(0)
    world.run(Cmd.MEMCPY, 0, PAGE, to=0x8700)
    (first,) = world.faults()
    world.map(8)
    world.resume(first.STAG, Ac=1)
    (second,) = world.faults()
    assert second.InputAddr == IOVA + 9 * PAGE
    assert world.cmd() == Cmd.MEMCPY
    world.map(9)
    world.resume(second.STAG, Ac=1)
    assert world.cmd() == Cmd.HALTED
    assert world.bytes(0x8700, PAGE) == world.bytes(0, PAGE)


def test_terminated_with_an_abort_it_is_an_error_at_its_address(world: World) -> None:
    world.map(0, 8)
    world.run(Cmd.MEMCPY, 0x100, 0x1100, to=0x8000)
    (event,) = world.faults()
    world.resume(event.STAG, Ac=0, Ab=1)
    assert world.cmd() == Cmd.ERROR
    assert world.load(UserFrame.udata, index=2) == IOVA + PAGE
    assert world.stalls() == (0, 1, 0, 1, 0)
    assert world.last_fault() == (FaultReason.TERMINATED, 0, PAGE)
    assert world.port.aborts == 1


def test_terminated_silently_reads_are_zero_and_writes_vanish(world: World) -> None:
    world.map(0)
    world.run(Cmd.SUM64, PAGE, 64)
    (event,) = world.faults()
    world.resume(event.STAG, Ac=0, Ab=0)
    assert (world.cmd(), world.load(UserFrame.udata, index=1)) == (Cmd.HALTED, 0)
    before = world.bytes(0, 16 * PAGE)
    world.run(Cmd.RAND48, 2 * PAGE, 64)
    (event,) = world.faults()
    world.map(2)
    world.resume(event.STAG, Ac=0, Ab=0)
    assert world.cmd() == Cmd.HALTED
    assert world.bytes(0, 16 * PAGE) == before
    assert world.stalls() == (0, 2, 0, 0, 2)
    assert world.last_fault() == (FaultReason.SILENT, 1, 2 * PAGE)


@pytest.mark.parametrize("how", ["CMD_STALL_TERM", "CR0.SMMUEN"])
def test_terminating_a_stream_or_the_smmu_ends_its_commands(world: World, how: str) -> None:
    for frame in (0, 1):
        world.run(Cmd.SUM64, frame * PAGE, 64, frame=frame)
    assert [world.cmd(frame) for frame in (0, 1)] == [Cmd.SUM64] * 2
    if how == "CMD_STALL_TERM":
        world.bench.submit(c.CMD_STALL_TERM.of(SID=SID))
    else:
        world.bench.set(CR0, SMMUEN=0)
        assert world.bench[CR0ACK].SMMUEN == 0
    assert [world.cmd(frame) for frame in (0, 1)] == [Cmd.ERROR] * 2
    assert [world.stalls(frame) for frame in (0, 1)] == [(0, 1, 0, 1, 0)] * 2


def test_a_handler_that_resumes_before_the_translation_has_returned_is_not_lost(world: World) -> None:
    """Without threads the event's interrupt is taken inside of the transaction that faults."""

    def handler(source: str, send: Callable[[], None]) -> Verdict:
        if source == "eventq":
            (event,) = world.faults()
            world.map((event.InputAddr - IOVA) // PAGE)
            world.resume(event.STAG, Ac=1)
        return Verdict.IGNORE

    world.smmu.seams.wire = handler
    world.bench[IRQ_CTRL] = IRQ_CTRL.of(EVENTQ_IRQEN=1)
    expected = world.bytes(0, 4 * PAGE)
    world.run(Cmd.MEMCPY, 0, 4 * PAGE, to=0x8000)
    assert world.cmd() == Cmd.HALTED
    assert world.bytes(0x8000, 4 * PAGE) == expected
    assert world.stalls() == (0, 8, 8, 0, 0)


def test_a_stall_that_no_record_told_of_waits_for_room_in_the_queue() -> None:
    world = World(event_bits=1)
    for frame in range(3):
        world.run(Cmd.SUM64, frame * PAGE, 64, frame=frame)
    assert (world.bench[EVENTQ_PROD].WR, world.bench[EVENTQ_CONS].RD) == (2, 0)
    world.map(2)
    first, second = world.faults()
    # The third was retried as the queue had room again, and its page is there by now.
    assert [world.cmd(frame) for frame in range(3)] == [Cmd.SUM64, Cmd.SUM64, Cmd.HALTED]
    world.map(0, 1)
    for event in (second, first):
        world.resume(event.STAG, Ac=1)
    assert [world.cmd(frame) for frame in range(3)] == [Cmd.HALTED] * 3


# -- beside it ---------------------------------------------------------------------------------------------------


def test_registers_answer_and_other_frames_run_while_one_is_stalled(world: World) -> None:
    world.map(0, 1, 2, 3)
    world.run(Cmd.SUM64, 5 * PAGE, 64)
    world.run(Cmd.MEMCPY, 0, 2 * PAGE, to=2 * PAGE, frame=1)
    assert (world.cmd(0), world.cmd(1)) == (Cmd.SUM64, Cmd.HALTED)
    assert world.bytes(2 * PAGE, 2 * PAGE) == world.bytes(0, 2 * PAGE)
    world.store(UserFrame.seed, 5)
    assert world.load(UserFrame.seed) == 0, "a frame takes no writes while it runs"


def test_a_frame_has_as_many_transfers_under_way_as_its_limit_says(world: World) -> None:
    world.store(ExtensionFrame.inflight, 3)
    expected = world.bytes(0, 5 * PAGE)
    world.map(*range(8, 16))
    world.run(Cmd.MEMCPY, 0, 5 * PAGE, to=8 * PAGE)
    told = world.faults()
    assert [event.InputAddr - IOVA for event in told] == [0, PAGE, 2 * PAGE]
    assert len({event.STAG for event in told}) == 3
    assert world.stalls()[0] == 3
    world.map(*range(5))
    # In any order: one that ends makes room for the next.
    world.resume(told[1].STAG, Ac=1)
    assert world.stalls()[:2] == (2, 3)
    assert world.bytes(9 * PAGE, PAGE) == expected[PAGE : 2 * PAGE]
    assert world.load(UserFrame.count_of_transactions_launched) == 8
    world.resume(told[2].STAG, Ac=1)
    assert world.cmd() == Cmd.MEMCPY
    world.resume(told[0].STAG, Ac=1)
    assert world.cmd() == Cmd.HALTED
    assert world.bytes(8 * PAGE, 5 * PAGE) == expected


def test_more_transfers_than_stalls_may_be_told_are_told_later() -> None:
    world = World(stall_max=2)
    world.store(ExtensionFrame.inflight, 4)
    words = sum(int.from_bytes(world.bytes(at, 8), "little") for at in range(0, 4 * PAGE, 8))
    world.run(Cmd.SUM64, 0, 4 * PAGE)
    seen = 0
    assert world.stalls()[0] == 4
    while told := world.faults():
        assert len(told) <= 2
        seen += len(told)
        for event in told:
            world.map((event.InputAddr - IOVA) // PAGE)
            world.resume(event.STAG, Ac=1)
    assert seen == 4
    assert (world.cmd(), world.load(UserFrame.udata, index=1)) == (Cmd.HALTED, words % 2**64)


def test_a_command_that_failed_ends_when_its_last_transaction_has_returned(world: World) -> None:
    world.store(ExtensionFrame.inflight, 2)
    world.run(Cmd.SUM64, 0, 4 * PAGE)
    first, second = world.faults()
    world.resume(first.STAG, Ac=0, Ab=1)
    assert world.cmd() == Cmd.SUM64
    assert world.faults() == [], "nothing is begun after a failure"
    world.map(1)
    world.resume(second.STAG, Ac=1)
    assert world.cmd() == Cmd.ERROR
    assert world.load(UserFrame.udata, index=2) == IOVA
    assert world.stalls() == (0, 2, 1, 1, 0)


# -- the end of a command ------------------------------------------------------------------------------------------


def with_msi(world: World) -> F_TRANSLATION:
    """A command that has ended but for its MSI, which stalls."""
    world.map(0)
    world.store(UserFrame.msiaddress, MSI_PAGE + 0x40)
    world.store(UserFrame.msidata, 0xCAFE)
    world.run(Cmd.SUM64, 0, 64)
    (event,) = world.faults()
    assert (event.InputAddr, event.SSV) == (MSI_PAGE + 0x40, 0)
    assert (world.cmd(), world.pulses) == (Cmd.HALTED, 1)
    assert ExtensionFrame.fault(world.load(ExtensionFrame.fault)).MSI == 1
    return event


def test_an_msi_may_stall_while_its_frame_runs_the_next_command(world: World) -> None:
    event = with_msi(world)
    world.store(UserFrame.msiaddress, 0)
    world.run(Cmd.SUM64, 0, 128)
    assert (world.cmd(), world.pulses) == (Cmd.HALTED, 2)
    assert world.bench.posted == []
    world.table.map(MSI_PAGE, DOORBELL)
    world.resume(event.STAG, Ac=1)
    assert world.bench.posted == [(DOORBELL + 0x40, b"\xfe\xca\0\0")]
    assert world.load(UserFrame.uctrl) == 0


def test_an_msi_that_stalls_and_is_terminated_has_aborted(world: World) -> None:
    event = with_msi(world)
    world.resume(event.STAG, Ac=0, Ab=1)
    assert world.load(UserFrame.uctrl) == 1
    assert world.stalls() == (0, 1, 0, 1, 0)


@pytest.mark.parametrize("how", ["reset", "stop"])
@pytest.mark.parametrize("msi", [False, True], ids=["transfer", "msi"])
def test_after_a_reset_or_stop_a_resumed_transaction_moves_no_byte(world: World, how: str, msi: bool) -> None:
    if msi:
        event = with_msi(world)
        world.table.map(MSI_PAGE, DOORBELL)
    else:
        world.run(Cmd.RAND48, PAGE, 64)
        (event,) = world.faults()
        world.map(1)
    before = world.bytes(0, 16 * PAGE)
    getattr(world.engine, how)()
    if how == "reset":
        assert world.cmd() == Cmd.HALTED
        assert world.stalls() == (0, 0, 0, 0, 0)
    world.resume(event.STAG, Ac=1)
    assert len(world.smmu.stalls) == 0
    assert world.bytes(0, 16 * PAGE) == before
    assert world.bench.posted == []


def test_after_a_reset_the_engine_works_beside_stalls_of_before(world: World) -> None:
    world.run(Cmd.SUM64, PAGE, 64)
    (event,) = world.faults()
    world.engine.reset()
    world.map(0)
    world.run(Cmd.SUM64, 0, 64)
    assert world.cmd() == Cmd.HALTED
    world.resume(event.STAG, Ac=0, Ab=1)
    assert world.stalls() == (0, 0, 0, 0, 0)


def test_the_extension_resets_to_its_version_and_its_limits(world: World) -> None:
    frame = [world.engine.read(EXTENSION + 128 * 511 + at, 4) for at in range(0, 128, 4)]
    assert frame == [0, 3, 1] + [0] * 15 + [8] + [0] * 13
    for at in range(0, 128, 4):
        world.engine.write(EXTENSION + at, 4, 0xFFFFFFFF)
    assert [world.engine.read(EXTENSION + at, 4) for at in range(0, 128, 4)] == [
        0, 3, 0xFF, *[0] * 15, 0xFFFF, 3, *[0] * 12
    ]  # fmt: skip
    assert world.engine.read(EXTENSION + 128 * 512 - 4, 4) == 0


def test_a_fault_that_does_not_stall_is_told_too(world: World) -> None:
    world.bench.ste(SID, Config=0)
    world.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID))
    world.run(Cmd.RAND48, 0x10, 64)
    assert world.cmd() == Cmd.ERROR
    assert world.last_fault() == (FaultReason.TERMINATED, 1, 0x10)
    assert world.stalls() == (0, 0, 0, 0, 0)


# -- the port ----------------------------------------------------------------------------------------------------


def test_a_stalled_access_is_a_value_that_goes_on_when_it_is_answered(world: World) -> None:
    world.map(0)
    with world.port.watch.recording() as seen:
        waiting = world.port.read(IOVA + PAGE - 2, 4)
    assert isinstance(waiting, Waiting)
    assert [(each.iova, each.size, each.ended) for each in seen.of(Stalled)] == [(IOVA + PAGE, 2, False)]
    assert (world.port.stalls, world.port.bytes_read) == (1, 2)
    (event,) = world.faults()
    world.map(1)
    world.resume(event.STAG, Ac=1)
    assert waiting.go_on() == world.bytes(PAGE - 2, 4)
    assert (world.port.bytes_read, world.port.transactions) == (4, 1)
    waiting = world.port.read(IOVA + 2 * PAGE - 2, 4)
    assert isinstance(waiting, Waiting)
    world.resume(world.faults()[0].STAG, Ac=0, Ab=1)
    assert waiting.go_on() == Abort(IOVA + 2 * PAGE, 2, Why.TERMINATED)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_gate_that_closes_meanwhile_stops_a_stalled_access(world: World, write: bool) -> None:
    gate = Gate(world.port, Turns(nullcontext()))
    steps = gate.write(IOVA, b"late") if write else gate.read(IOVA, 4)
    (stall,) = next(steps)
    gate.close()
    world.map(0)
    world.resume(world.faults()[0].STAG, Ac=1)
    assert stall.answer is not None
    before = world.bytes(0, PAGE)
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == Abort(IOVA, 0, Why.STOPPED)
    assert world.bytes(0, PAGE) == before
    assert world.port.bytes_read == 0


# -- virtio ------------------------------------------------------------------------------------------------------

STRIDE = 1 << 20


class Disk:
    """A disk behind the same SMMU, whose driver's memory is mapped but for what ``hide`` hides."""

    def __init__(self, world: World, queues: int = 1) -> None:
        self.world = world
        self.ram = world.bench.ram
        size = 64 * PAGE
        self.base = self.ram.alloc(size)
        self.window = memoryview(self.ram.bytes)[self.base - self.ram.base :][:size]
        self.table = PageTable(self.ram)
        world.bench.stream(5, table=self.table, cd={"S": 1, "ASID": 2})
        self.table.map(STRIDE, self.base, size)
        storage = MemoryStorage(1 << 20)
        self.noise = Random(2).randbytes(1 << 20)
        storage.write(0, self.noise)
        self.pulses = 0
        port = Port("disk", self.ram.memory, world.smmu, (5,))
        self.blk = VirtioBlk("disk", port, storage, queues=queues, queue_size=16, interrupt=self.pulse)
        self.driver = BlkDriver(self.blk, self.window, STRIDE)  # type: ignore[arg-type]
        self.driver.probe(queues=queues)

    def pulse(self) -> None:
        self.pulses += 1

    def hidden(self, size: int) -> int:
        """The IOVA of a buffer in pages of its own, none of which is mapped."""
        at = self.driver.alloc(-(-size // PAGE) * PAGE, PAGE)
        for offset in range(0, size, PAGE):
            self.table.unmap(at + offset)
        return at

    def show(self, iova: int, size: int) -> None:
        self.table.map(iova, self.base + iova - STRIDE, -(-size // PAGE) * PAGE)

    def start_read(self, buffer: int, size: int, queue: int = 0) -> Callable[[], int]:
        """Begin a read from sector 0; what is returned says the status once it is there."""
        header, status = self.driver.alloc(16), self.driver.alloc(1)
        self.driver.poke(header, bytes(16))
        self.driver.poke(status, b"\xee")
        ring = self.driver.queues[queue]
        self.driver.add(ring, [(header, 16, False), (buffer, size, True), (status, 1, True)])
        self.driver.kick(ring)
        return lambda: self.driver.peek(status, 1)[0]

    def resume(self, **how: int) -> None:
        for event in self.world.faults():
            self.world.bench.submit(c.CMD_RESUME.of(SID=5, STAG=event.STAG, **how))


def test_a_disk_read_waits_for_its_buffer(world: World) -> None:
    disk = Disk(world)
    buffer = disk.hidden(2 * PAGE)
    status = disk.start_read(buffer, 2 * PAGE)
    assert (status(), disk.pulses) == (0xEE, 0)
    assert disk.driver.load(0x44) == 1
    disk.show(buffer, 2 * PAGE)
    disk.resume(Ac=1)
    assert (status(), disk.pulses) == (v.OK, 1)
    assert disk.driver.peek(buffer, 2 * PAGE) == disk.noise[: 2 * PAGE]
    assert disk.driver.used(disk.driver.queues[0]) == [(0, 2 * PAGE + 1)]


def test_a_disk_read_whose_stall_is_terminated_is_an_io_error(world: World) -> None:
    disk = Disk(world)
    status = disk.start_read(disk.hidden(PAGE), PAGE)
    disk.resume(Ac=0, Ab=1)
    assert status() == v.IOERR
    assert disk.driver.status & 0x40 == 0


def test_a_stalled_queue_does_not_hold_up_another_and_hears_of_what_was_added_meanwhile(world: World) -> None:
    disk = Disk(world, queues=2)
    buffer, other = disk.hidden(PAGE), disk.driver.alloc(512)
    stalled = disk.start_read(buffer, PAGE, queue=0)
    behind = disk.start_read(other, 512, queue=0)
    beside = disk.start_read(other, 512, queue=1)
    assert (stalled(), behind(), beside()) == (0xEE, 0xEE, v.OK)
    disk.show(buffer, PAGE)
    disk.resume(Ac=1)
    assert (stalled(), behind()) == (v.OK, v.OK)


@pytest.mark.parametrize("how", ["reset", "status", "queue"])
def test_after_the_driver_took_a_queue_back_a_resumed_transaction_moves_no_byte(world: World, how: str) -> None:
    disk = Disk(world)
    buffer = disk.hidden(PAGE)
    disk.start_read(buffer, PAGE)
    before = bytes(disk.window)
    if how == "reset":
        disk.blk.reset()
    elif how == "status":
        disk.driver.store(0x70, 0)
    else:
        disk.driver.store(0x30, 0)
        disk.driver.store(0x44, 0)
    disk.show(buffer, PAGE)
    disk.resume(Ac=1)
    assert bytes(disk.window) == before
    assert disk.driver.status & 0x40 == 0
    disk.driver.probe()
    assert disk.driver.request(v.IN, room=512) == (v.OK, disk.noise[:512], 513)
