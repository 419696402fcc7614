# SPDX-License-Identifier: Apache-2.0
"""The virtio-mmio transport, version 2 (Virtual I/O Device 1.2 §4.2), for whatever device derives from it.

Law: registers answer at once; what waits for nothing is served where it is notified, the rest by ``work``; a stall
holds up its queue alone. A driver that breaks its rings finds DEVICE_NEEDS_RESET. Each used-buffer notification is an
edge, so that none is lost. Not modelled: shared memory regions, queue reset, suspend; the legacy interface.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import ClassVar

from ..errors import UsageError
from ..layout import Access, Register, bit, field
from ..mmio import Mirror
from ..register_file import RegisterFile, RegisterMap, on_load, on_store
from .gate import Gate
from .port import CHUNK, Port, Steps
from .prompt import Batch, BellRegisters, Disk, DiskBell
from .virtio import Broken, Buffer, Chain, RingFeatures, Virtqueue
from .window import Window, nothing

MAGIC = 0x74726976  # "virt"
VENDOR = 0x554D4D53  # "SMMU"

#: Chains, and bytes moved for them, after which the driver is told about those that are finished.
_BATCH = Batch(32, CHUNK)


class MagicValue(Register, at=0x000, access=Access.RO):
    VALUE = field(31, 0, reset=MAGIC)


class Version(Register, at=0x004, access=Access.RO):
    VALUE = field(31, 0, reset=2)


class DeviceID(Register, at=0x008, access=Access.RO):
    VALUE = field(31, 0, values={2: "block"})


class VendorID(Register, at=0x00C, access=Access.RO):
    VALUE = field(31, 0, reset=VENDOR)


class DeviceFeatures(Register, at=0x010, access=Access.RO):
    """Half of the offered features, as DeviceFeaturesSel says."""

    VALUE = field(31, 0)


class DeviceFeaturesSel(Register, at=0x014, access=Access.WO):
    VALUE = field(31, 0)


class DriverFeatures(Register, at=0x020, access=Access.WO):
    VALUE = field(31, 0)


class DriverFeaturesSel(Register, at=0x024, access=Access.WO):
    VALUE = field(31, 0)


class QueueSel(Register, at=0x030, access=Access.WO):
    VALUE = field(31, 0)


class QueueNumMax(Register, at=0x034, access=Access.RO):
    VALUE = field(31, 0, doc="Largest size of the selected queue; 0: there is no such queue")


class QueueNum(Register, at=0x038, access=Access.WO):
    VALUE = field(31, 0)


class QueueReady(Register, at=0x044):
    READY = bit(0)


class QueueNotify(Register, at=0x050, access=Access.WO):
    VALUE = field(31, 0, doc="Index of the queue")


class InterruptStatus(Register, at=0x060, access=Access.RO):
    USED_BUFFER = bit(0)
    CONFIG_CHANGE = bit(1)


class InterruptACK(Register, at=0x064, access=Access.WO):
    USED_BUFFER = bit(0)
    CONFIG_CHANGE = bit(1)


class Status(Register, at=0x070, section="virtio 1.2 §2.1"):
    ACKNOWLEDGE = bit(0)
    DRIVER = bit(1)
    DRIVER_OK = bit(2)
    FEATURES_OK = bit(3)
    DEVICE_NEEDS_RESET = bit(6, access=Access.RO)
    FAILED = bit(7)


class QueueDescLow(Register, at=0x080, access=Access.WO):
    VALUE = field(31, 0)


class QueueDescHigh(Register, at=0x084, access=Access.WO):
    VALUE = field(31, 0)


class QueueDriverLow(Register, at=0x090, access=Access.WO):
    VALUE = field(31, 0)


class QueueDriverHigh(Register, at=0x094, access=Access.WO):
    VALUE = field(31, 0)


class QueueDeviceLow(Register, at=0x0A0, access=Access.WO):
    VALUE = field(31, 0)


class QueueDeviceHigh(Register, at=0x0A4, access=Access.WO):
    VALUE = field(31, 0)


class SHMLenLow(Register, at=0x0B0, access=Access.RO):
    VALUE = field(31, 0, reset=0xFFFFFFFF, doc="All ones: there is no such region")


class SHMLenHigh(Register, at=0x0B4, access=Access.RO):
    VALUE = field(31, 0, reset=0xFFFFFFFF)


class SHMBaseLow(Register, at=0x0B8, access=Access.RO):
    VALUE = field(31, 0, reset=0xFFFFFFFF)


class SHMBaseHigh(Register, at=0x0BC, access=Access.RO):
    VALUE = field(31, 0, reset=0xFFFFFFFF)


class ConfigGeneration(Register, at=0x0FC, access=Access.RO):
    VALUE = field(31, 0)


REGISTERS: tuple[type[Register], ...] = tuple(
    sorted((each for each in Register.__subclasses__() if each.__module__ == __name__), key=lambda each: each.at)
)
#: Where the configuration space begins.
CONFIG = 0x100

_MAP = RegisterMap(REGISTERS)
#: Registers of a queue's addresses: which part, and whether its upper half.
_ADDRESSES: dict[type[Register], tuple[str, bool]] = {
    QueueDescLow: ("desc", False),
    QueueDescHigh: ("desc", True),
    QueueDriverLow: ("driver", False),
    QueueDriverHigh: ("driver", True),
    QueueDeviceLow: ("device", False),
    QueueDeviceHigh: ("device", True),
}

_NEEDS_RESET = Status.DEVICE_NEEDS_RESET.mask
_DRIVER_OK = Status.DRIVER_OK.mask
_FEATURES_OK = Status.FEATURES_OK.mask
_HALF = {False: 0xFFFFFFFF, True: 0xFFFFFFFF << 32}


class _Interrupts:
    """What the interrupt registers hold."""

    __slots__ = ("status", "unread")

    def __init__(self) -> None:
        self.status = 0
        #: Bits of ``status`` that were set after the driver last read it.
        self.unread = 0


class _Queue:
    """What the driver set up through the queue registers."""

    __slots__ = ("desc", "device", "driver", "num", "ring")

    def __init__(self, num: int) -> None:
        self.num = num
        self.desc = self.driver = self.device = 0
        #: Not None while QueueReady.
        self.ring: Virtqueue | None = None


class VirtioMmio(Window):
    """A virtio device: derive, and give ``device_id``, ``config`` and ``serve``.

    Machine file: ``queues`` (int, how many virtqueues) and ``queue_size`` (int, a power of two up to 32768).
    """

    compatible = "virtio,mmio"
    size = 0x200

    OPEN = Window.OPEN | {
        "_changing", "_pulse", "_wake", "_mirror", "_bell", "_interrupts", "features", "driver_features", "_queues",
        "_kicked", "_served",
    }  # fmt: skip

    PARTS = (Virtqueue, Buffer)

    #: virtio 1.2 §5
    device_id: ClassVar[int]

    def __init__(
        self,
        name: str,
        port: Port,
        *,
        queues: int = 1,
        queue_size: int = 256,
        interrupt: Callable[[], None] = nothing,
        wake: Callable[[], None] | None = None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        super().__init__(name, port, interrupt=interrupt, wake=wake, lock=lock)
        if not 1 <= queues <= 1024:
            raise UsageError(f"{name}: queues must be 1 to 1024, not {queues}")
        if queue_size not in (1 << n for n in range(1, 16)):
            raise UsageError(f"{name}: queue_size must be a power of two from 2 to 32768, not {queue_size}")
        self.queue_count, self.queue_size = queues, queue_size
        self.registers = RegisterFile(_MAP)
        self.registers.set_reset(DeviceID, self.device_id)
        self.registers.attach(self)
        self._pulse = self._wake = False
        #: Of a change outside of guest memory that is under way, without the lock.
        self._changing: Gate | None = None
        self._interrupts: _Interrupts | DiskBell = _Interrupts()
        self._bell: DiskBell | None = None
        self._mirror: Mirror | None = None
        self._restart()

    # -- what a device type gives --------------------------------------------------------------------------------

    @property
    def offered(self) -> RingFeatures:
        """The features offered to the driver."""
        return RingFeatures.of(RING_INDIRECT_DESC=1, RING_EVENT_IDX=1, VERSION_1=1, ACCESS_PLATFORM=1)

    @abstractmethod
    def config(self) -> bytes:
        """The configuration space as it reads now."""

    def config_stored(self, offset: int, size: int, value: int) -> None:
        """The driver wrote its configuration space; ignored unless a device type says otherwise."""

    @abstractmethod
    def serve(self, ring: Virtqueue, chain: Chain) -> Steps[int | Broken]:
        """Do a request: how many bytes were written to its buffers. Runs without the lock."""

    @property
    def prompt_disk(self) -> Disk | None:
        """The disk whose reads and writes Port.serve can do; None: all is for ``serve``."""
        return None

    def promptly(self, reads: int, writes: int) -> None:
        """So many requests were served by Port.serve."""

    def change(self, gate: Gate, action: Callable[[], bool]) -> bool:
        """For ``serve``: whether ``action``, which may take long, changed what is kept outside of guest memory.

        No register access waits for it, nor does a reset, after which none begins. The next driver's first request
        waits until one that had begun has ended: the worker is still at it, and no request overtakes the worker.
        """
        with gate as is_open:
            if not is_open:
                return False
            self._changing = gate
        try:
            return action()
        finally:
            with gate:
                self._changing = None

    # -- register accesses -----------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset >= CONFIG:
            data = self.config()[offset - CONFIG : offset - CONFIG + size]
            return int.from_bytes(data, "little")
        if size != 4:
            return 0
        with self.turns:
            return self.registers.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        with self.turns:
            if offset >= CONFIG:
                self.config_stored(offset - CONFIG, size, value)
            elif (offset, size, value) == (Status.at, 4, 0):
                self._restart()
            elif size == 4:
                self.registers.write(offset, size, value)
            pulse, self._pulse = self._pulse, False
            wake, self._wake = self._wake, False
        if pulse:
            self.interrupt()
        if wake:
            self.wake()

    def mirror(self, make: Callable[[int], Mirror]) -> Mirror | None:
        """Where notifications of this disk are carried out without the interpreter; None: nowhere."""
        if self.post is None or self.prompt_disk is None:
            return None
        with self.turns:
            if self._mirror is None:
                made = make(self.size)
                registers = BellRegisters(QueueNotify.at, InterruptStatus.at, InterruptACK.at)
                bell = self.port.bell(self.turns.lock, made, registers, self.post, self.queue_count, _BATCH,
                                      self._take_back)  # fmt: skip
                if bell is None:
                    return None
                bell.status, bell.unread = self._interrupts.status, self._interrupts.unread
                self._mirror, self._bell, self._interrupts = made, bell, bell
            return self._mirror

    def reset(self) -> None:
        with self.turns:
            self._restart()

    def stop(self) -> None:
        super().stop()
        with self.turns:
            self._take_all()

    @property
    def completed(self) -> tuple[int, ...]:
        """Requests that each queue has completed since the driver set it up, modulo 65536."""
        with self.turns:
            self._take_all()
            return tuple(0 if queue.ring is None else queue.ring.used_idx for queue in self._queues)

    def _restart(self) -> None:
        """As after power on; rings and requests of before hold a gate that is closed for good."""
        self.renew()
        self._take_all()
        self.registers.reset()
        self._interrupts.status = self._interrupts.unread = 0
        self.features = RingFeatures()
        self.driver_features = 0
        self._queues = [_Queue(self.queue_size) for _ in range(self.queue_count)]
        self._kicked: set[int] = set()
        #: Rings that a task serves.
        self._served: set[Virtqueue] = set()

    @property
    def status(self) -> int:
        return self.registers.raw(Status)

    @on_load(DeviceFeatures)
    def _device_features(self) -> int:
        selected = self.registers.raw(DeviceFeaturesSel)
        return self.offered.raw >> 32 * selected & 0xFFFFFFFF if selected < 2 else 0

    @on_store(DriverFeatures)
    def _driver_features_stored(self, old: DriverFeatures, new: DriverFeatures) -> None:
        selected = self.registers.raw(DriverFeaturesSel)
        if selected < 2 and not self.status & _FEATURES_OK:
            self.driver_features = self.driver_features & ~_HALF[selected > 0] | new.VALUE << 32 * selected

    @on_store(Status)
    def _status_stored(self, old: Status, new: Status) -> None:
        begun = new.raw & ~old.raw
        if begun & _FEATURES_OK:
            if self._features_fit():
                self.features = type(self.offered)(self.driver_features)
            else:
                self.registers[Status] = new.raw & ~_FEATURES_OK
        if not new.raw & _DRIVER_OK:
            self._take_all()
        if begun & _DRIVER_OK:
            self._kick(n for n, queue in enumerate(self._queues) if queue.ring is not None)

    def _features_fit(self) -> bool:
        """§2.2.2, §6.2: only what was offered, and what a device behind an IOMMU cannot work without."""
        features = RingFeatures(self.driver_features)
        if features.raw & ~self.offered.raw or not features.VERSION_1:
            return False
        return self.port.smmu is None or bool(features.ACCESS_PLATFORM)

    @on_load(InterruptStatus)
    def _interrupt_status(self) -> int:
        self._interrupts.unread = 0
        return self._interrupts.status

    @on_store(InterruptACK)
    def _acknowledged(self, old: InterruptACK, new: InterruptACK) -> None:
        # The write is posted: since the driver sent it, and looked into its rings, we may have used more buffers.
        # What it has not read yet it cannot mean, and the interrupt for that is still to find its bit set.
        self._interrupts.status &= ~(new.raw & ~self._interrupts.unread)

    def _raise(self, bit: int) -> None:
        """Set a bit of InterruptStatus; holds the lock, and the interrupt follows."""
        self._interrupts.status |= bit
        self._interrupts.unread |= bit

    # -- queue registers -------------------------------------------------------------------------------------------

    @property
    def _selected(self) -> int:
        return self.registers.raw(QueueSel)

    @property
    def _queue(self) -> _Queue | None:
        return self._queues[self._selected] if self._selected < self.queue_count else None

    @on_load(QueueNumMax)
    def _queue_num_max(self) -> int:
        return 0 if self._queue is None else self.queue_size

    @on_load(QueueReady)
    def _queue_ready(self) -> int:
        return int(self._queue is not None and self._queue.ring is not None)

    @on_store(QueueNum)
    def _queue_num_stored(self, old: QueueNum, new: QueueNum) -> None:
        if (queue := self._queue) is not None and queue.ring is None:
            queue.num = new.VALUE

    @on_store(QueueReady)
    def _queue_ready_stored(self, old: QueueReady, new: QueueReady) -> None:
        queue = self._queue
        if queue is None:
            return
        if not new.READY:
            if queue.ring is not None:  # a stalled transaction must not reach it later (§4.2.2.2)
                queue.ring.gate.close()
                self._take(self._selected, queue.ring)
                queue.ring = None
            return
        if queue.ring is not None:
            return
        if not 1 <= queue.num <= self.queue_size or queue.num & (queue.num - 1):
            self._broken(f"queue {self._selected} has a size of {queue.num}")
        elif queue.desc % 16 or queue.driver % 2 or queue.device % 4:  # §2.7
            self._broken(f"queue {self._selected} is not aligned")
        else:
            queue.ring = Virtqueue(
                Gate(self.port, self.turns, self.gate),
                queue.num,
                queue.desc,
                queue.driver,
                queue.device,
                indirect=bool(self.features.RING_INDIRECT_DESC),
                event_idx=bool(self.features.RING_EVENT_IDX),
            )

    @on_store(*_ADDRESSES)
    def _address_stored(self, old: Register, new: Register) -> None:
        part, high = _ADDRESSES[type(new)]
        if (queue := self._queue) is not None and queue.ring is None:
            setattr(queue, part, getattr(queue, part) & ~_HALF[high] | new.raw << 32 * high)

    @on_store(QueueNotify)
    def _notified(self, old: QueueNotify, new: QueueNotify) -> None:
        value = new.VALUE
        if value >= self.queue_count or self.status & (_DRIVER_OK | _NEEDS_RESET) != _DRIVER_OK:
            return
        ring = self._queues[value].ring
        # Here and now: to wake the worker may take longer than what it has to do.
        if ring is not None and ring not in self._served:
            self._take(value, ring)
            if self._promptly(ring) is False:
                self._lend(value, ring)
                return
        self._kick((value,))

    # -- work ------------------------------------------------------------------------------------------------------

    def _kick(self, queues: Iterable[int]) -> None:
        self._kicked.update(queues)
        self._wake = self._wake or bool(self._kicked)

    def pending_work(self) -> None:
        """Serve all queues that were notified, in turns, each until it is empty or a transaction of its stalls."""
        more = True
        while more:
            if self._kicked:
                with self.turns:
                    kicked, self._kicked = self._kicked, set()
                    rings = [(n, ring) for n in sorted(kicked) if (ring := self._queues[n].ring) is not None]
                    # Whoever serves a ring already looks into it once more before the end.
                    ready = [(n, ring) for n, ring in rings if ring not in self._served]
                    for n, ring in ready:
                        self._served.add(ring)
                        self._take(n, ring)
                for n, ring in ready:
                    self.tasks.add(self._serve_ring(n, ring))
            more = self.tasks.turn() or bool(self._kicked)

    def _serve_ring(self, number: int, ring: Virtqueue) -> Steps[None]:
        while True:
            more: bool | Broken | None = self._prompt_batch(ring)
            if more is None:
                more = yield from self._batch(ring)
            if more is not True:
                break
            yield ()
        with ring.gate as is_open:  # a reset meanwhile makes all transactions fail, and means nothing
            self._served.discard(ring)
            if is_open and isinstance(more, Broken):
                self._broken(more.why)
            elif is_open and number not in self._kicked:
                self._lend(number, ring)
            pulse, self._pulse = self._pulse, False
        if pulse:
            self.interrupt()

    def _lend(self, number: int, ring: Virtqueue) -> None:
        """Let notifications of a ring that nobody works on be carried out where they arrive; holds the lock."""
        if self._bell is None or self.status & (_DRIVER_OK | _NEEDS_RESET) != _DRIVER_OK or not ring.gate.passes:
            return
        if (disk := self.prompt_disk) is not None and self.port.rewrite is None:
            self._bell.lend(number, self.port.sids[0], ring.layout, disk, ring.last_avail, ring.used_idx)

    def _take(self, number: int, ring: Virtqueue) -> None:
        """The ring is ours again, as far as it was served; holds the lock."""
        if self._bell is not None and (served := self._bell.take(number)) is not None:
            ring.last_avail, ring.used_idx = served

    def _take_back(self) -> None:
        with self.turns:
            self._take_all()

    def _take_all(self) -> None:
        if self._bell is not None:
            for number, queue in enumerate(self._queues):
                if queue.ring is not None:
                    self._take(number, queue.ring)

    def _prompt_batch(self, ring: Virtqueue) -> bool | None:
        """As _promptly, for the worker."""
        with ring.gate:
            more = self._promptly(ring)
            pulse, self._pulse = self._pulse, False
        if pulse:
            self.interrupt()
        return more

    def _promptly(self, ring: Virtqueue) -> bool | None:
        """Whether there may be more in ``ring``; None: what is next has to be served by itself. Holds the lock."""
        disk = self.prompt_disk if ring.gate.passes and not self._outlived else None
        if disk is None:
            return None
        served = self.port.serve(ring.layout, disk, ring.last_avail, ring.used_idx, _BATCH)
        if served is None:
            return None
        ring.last_avail, ring.used_idx = served.last_avail, served.used_idx
        self.promptly(served.reads, served.writes)
        if served.notify:
            self._raise(InterruptStatus.USED_BUFFER.mask)
            self._pulse = True
        return served.more

    def _batch(self, ring: Virtqueue) -> Steps[bool | Broken]:
        """Whether there may be more in ``ring``."""
        heads = yield from ring.fetch(_BATCH.chains)
        if isinstance(heads, Broken) or not heads:
            return heads if isinstance(heads, Broken) else False
        moved = 0
        for head in heads:
            chain = yield from ring.chain(head)
            written: int | Broken
            if isinstance(chain, Broken):
                written = chain
            else:
                moved += chain.readable.size + chain.writable.size
                written = yield from self.serve(ring, chain)
            if isinstance(written, Broken):  # those before it are done, all the same
                return (yield from self._publish(ring)) or written
            ring.finish(head, written)
            if moved >= _BATCH.size:
                moved = 0
                if (broken := (yield from self._publish(ring))) is not None:
                    return broken
        if (broken := (yield from self._publish(ring))) is not None:
            return broken
        return (yield from ring.arm()) or True

    def _publish(self, ring: Virtqueue) -> Steps[Broken | None]:
        wanted = yield from ring.publish()
        if isinstance(wanted, Broken):
            return wanted
        if wanted:
            with ring.gate as is_open:
                if is_open:
                    self._raise(InterruptStatus.USED_BUFFER.mask)
            if is_open:
                self.interrupt()
        return None

    @property
    def _outlived(self) -> bool:
        """Whether a change is under way that began before a reset; holds the lock."""
        return self._changing is not None and not self._changing.passes

    def _broken(self, why: str) -> None:
        """The driver must reset us; holds the lock."""
        if self.port.watch.on:
            self.port.watch.noted(self.name, "fault", "DEVICE_NEEDS_RESET", why=why)
        self.gate.close()
        self._take_all()
        self.registers[Status] = self.status | _NEEDS_RESET
        self._kicked.clear()
        if self.status & _DRIVER_OK:  # §2.1.2
            self._raise(InterruptStatus.CONFIG_CHANGE.mask)
            self._pulse = True
