# SPDX-License-Identifier: Apache-2.0
"""Virtio split rings seen from the device (Virtual I/O Device 1.2 §2.7).

Law: whatever the driver wrote, each call ends after at most a queue's length of steps and a few transactions (any of
which may stall: port.Steps); what breaks the rules, or faults, is a ``Broken``. No field of guest memory is read
twice. Not modelled: packed rings, in-order use, notification data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ..layout import Layout, address, bit, field
from ..sealed import declared
from .gate import Gate
from .port import Abort, Steps
from .prompt import Ring


class VirtqDesc(Layout, size=16, section="virtio 1.2 §2.7.5"):
    addr = address(63, 0)
    len = field(95, 64)
    flags = field(111, 96)
    next = field(127, 112)


class DescFlags(Layout, size=2, section="virtio 1.2 §2.7.5"):
    NEXT = bit(0, doc="The chain goes on at next")
    WRITE = bit(1, doc="Device writable")
    INDIRECT = bit(2, doc="The buffer is a table of descriptors")


class VirtqAvail(Layout, size=4, section="virtio 1.2 §2.7.6"):
    """Before the ring of 16-bit heads, after which comes used_event."""

    flags = field(15, 0)
    idx = field(31, 16)


class AvailFlags(Layout, size=2, section="virtio 1.2 §2.7.6"):
    NO_INTERRUPT = bit(0)


class VirtqUsed(Layout, size=4, section="virtio 1.2 §2.7.8"):
    """Before the ring of elements, after which comes avail_event."""

    flags = field(15, 0)
    idx = field(31, 16)


class VirtqUsedElem(Layout, size=8, section="virtio 1.2 §2.7.8"):
    id = field(31, 0)
    len = field(63, 32)


class RingFeatures(Layout, size=8, section="virtio 1.2 §6"):
    """Feature bits that do not depend on the device type."""

    RING_INDIRECT_DESC = bit(28)
    RING_EVENT_IDX = bit(29)
    VERSION_1 = bit(32)
    ACCESS_PLATFORM = bit(33, doc="Addresses are those of the platform's DMA, so the IOMMU translates them")


def packed(layout: type[Layout]) -> struct.Struct:
    """A fast codec of a layout whose fields are whole 8, 16, 32 or 64 bits without gaps; TypeError when not."""
    if layout.reserved:
        raise TypeError(f"{layout.__name__} has gaps")
    try:
        codes = [{8: "B", 16: "H", 32: "I", 64: "Q"}[f.width] for f in layout.fields]
    except KeyError as error:
        raise TypeError(f"{layout.__name__} has a field of {error} bits") from error
    return struct.Struct("<" + "".join(codes))


_DESC = packed(VirtqDesc)
_AVAIL = packed(VirtqAvail)
_ELEM = packed(VirtqUsedElem)
_NEXT, _WRITE, _INDIRECT = DescFlags.NEXT.mask, DescFlags.WRITE.mask, DescFlags.INDIRECT.mask
_IDX_AT = VirtqUsed.idx.lsb // 8
#: Descriptors fetched at once: a cache line of them.
_LINE = 4


@dataclass(frozen=True, slots=True)
class Broken:
    """The driver's rings make no sense, or a transaction to them failed: the device needs a reset."""

    why: str


#: Consecutive (address, size) of guest memory, none empty.
Segments = list[tuple[int, int]]


@declared
class Buffer:
    """One direction of a chain: segments that are consumed from the front."""

    __slots__ = ("segments", "size")

    def __init__(self, segments: Segments) -> None:
        self.segments = segments
        self.size = sum(size for _, size in segments)

    def add(self, addr: int, size: int) -> None:
        if not size:
            return
        self.size += size
        if self.segments and sum(self.segments[-1]) == addr:
            addr, before = self.segments.pop()
            size += before
        self.segments.append((addr, size))

    def take(self, size: int) -> Segments:
        """The next ``size`` bytes, or all there are."""
        taken: Segments = []
        at = 0
        while size and at < len(self.segments):
            addr, has = self.segments[at]
            if has > size:
                taken.append((addr, size))
                self.segments[at] = (addr + size, has - size)
                self.size -= size
                break
            taken.append((addr, has))
            self.size -= has
            size -= has
            at += 1
        del self.segments[:at]
        return taken

    def take_last(self) -> int:
        """The address of the last byte, which is taken off; ``size`` must not be zero."""
        addr, size = self.segments.pop()
        if size > 1:
            self.segments.append((addr, size - 1))
        self.size -= 1
        return addr + size - 1


@dataclass(slots=True)
class Chain:
    """A request: what the device may read, then what it may write."""

    head: int
    readable: Buffer
    writable: Buffer


def gather(gate: Gate, segments: Segments) -> Steps[bytes | Abort]:
    """The bytes of ``segments``, one transaction for each; the caller bounds their sum."""
    if len(segments) == 1:
        return (yield from gate.read(*segments[0]))
    parts = []
    for addr, size in segments:
        part = yield from gate.read(addr, size)
        if isinstance(part, Abort):
            return part
        parts.append(part)
    return b"".join(parts)


def scatter(gate: Gate, segments: Segments, data: bytes) -> Steps[Abort | None]:
    """Write ``data`` over ``segments``, which are as long."""
    if len(segments) == 1:
        return (yield from gate.write(segments[0][0], data))
    at = 0
    for addr, size in segments:
        abort = yield from gate.write(addr, data[at : at + size])
        if abort is not None:
            return abort
        at += size
    return None


@declared
class Virtqueue:
    """A split ring of ``size`` entries (a power of two) at three addresses, between two resets."""

    def __init__(
        self,
        gate: Gate,
        size: int,
        desc: int,
        avail: int,
        used: int,
        *,
        indirect: bool = False,
        event_idx: bool = False,
    ) -> None:
        self.gate = gate
        self.size = size
        self.desc, self.avail, self.used = desc, avail, used
        self.indirect, self.event_idx = indirect, event_idx
        self.last_avail = 0
        self.used_idx = 0
        self._finished: list[bytes] = []
        #: As Port.serve takes it.
        self.layout = Ring(desc, avail, used, size, indirect, event_idx)

    def fetch(self, most: int) -> Steps[Sequence[int] | Broken]:
        """Heads of chains that the driver made available, at most ``most``; none when there are no more."""
        header = yield from self.gate.read(self.avail, VirtqAvail.size)
        if isinstance(header, Abort):
            return _failed("avail ring", header)
        _, idx = _AVAIL.unpack(header)
        pending = (idx - self.last_avail) & 0xFFFF
        if pending > self.size:
            return Broken(f"avail idx {idx} is {pending} ahead in a queue of {self.size}")
        count = min(pending, most)
        if not count:
            return ()
        start = self.last_avail % self.size
        ring = self.avail + VirtqAvail.size
        segments = [(ring + 2 * start, 2 * min(count, self.size - start))]
        if start + count > self.size:
            segments.append((ring, 2 * (start + count - self.size)))
        raw = yield from gather(self.gate, segments)
        if isinstance(raw, Abort):
            return _failed("avail ring", raw)
        self.last_avail = (self.last_avail + count) & 0xFFFF
        return struct.unpack(f"<{count}H", raw)

    def chain(self, head: int) -> Steps[Chain | Broken]:
        """The descriptors from ``head`` on."""
        readable, writable = Buffer([]), Buffer([])
        table, count = b"", self.size  # table: descriptors [first, first + len(table) / 16)
        first = seen = 0
        inside = False
        index = head
        while True:
            if index >= count:
                return Broken(f"descriptor {index} of {count}")
            at = (index - first) * VirtqDesc.size
            if not 0 <= at < len(table):
                line = min((index | (_LINE - 1)) + 1, self.size) - index
                fetched = yield from self.gate.read(self.desc + index * VirtqDesc.size, line * VirtqDesc.size)
                if isinstance(fetched, Abort):
                    return _failed("descriptor table", fetched)
                table, first, at = fetched, index, 0
            addr, size, flags, following = _DESC.unpack_from(table, at)
            if flags & _INDIRECT:
                if inside or not self.indirect or flags & _NEXT:
                    return Broken(f"descriptor {index} must not be indirect")
                if not size or size % VirtqDesc.size or size > self.size * VirtqDesc.size:
                    return Broken(f"indirect table of {size} bytes in a queue of {self.size}")
                fetched = yield from self.gate.read(addr, size)
                if isinstance(fetched, Abort):
                    return _failed("indirect table", fetched)
                table, count = fetched, size // VirtqDesc.size
                first = index = 0
                inside = True
                continue
            seen += 1
            if seen > self.size:
                return Broken(f"chain {head} is longer than its queue of {self.size}")
            if flags & _WRITE:
                writable.add(addr, size)
            elif writable.segments:
                return Broken(f"descriptor {index} is readable after writable ones")
            else:
                readable.add(addr, size)
            if not flags & _NEXT:
                return Chain(head, readable, writable)
            index = following

    def finish(self, head: int, written: int) -> None:
        """The device is done with chain ``head``, of which it wrote ``written`` bytes; told by ``publish``."""
        self._finished.append(_ELEM.pack(head, written & 0xFFFFFFFF))

    def publish(self) -> Steps[bool | Broken]:
        """Put what is finished into the used ring; whether the driver wants to be notified."""
        finished, self._finished = self._finished, []
        count = len(finished)
        if not count:
            return False
        start = self.used_idx % self.size
        until_end = min(count, self.size - start)
        segments = [(self.used + VirtqUsed.size + start * VirtqUsedElem.size, until_end * VirtqUsedElem.size)]
        if until_end < count:
            segments.append((self.used + VirtqUsed.size, (count - until_end) * VirtqUsedElem.size))
        abort = yield from scatter(self.gate, segments, b"".join(finished))
        if abort is not None:
            return _failed("used ring", abort)
        before = self.used_idx
        self.used_idx = (before + count) & 0xFFFF
        abort = yield from self.gate.write(self.used + _IDX_AT, self.used_idx.to_bytes(2, "little"))
        if abort is not None:
            return _failed("used ring", abort)
        wanted = yield from self.gate.read(self._used_event if self.event_idx else self.avail, 2)
        if isinstance(wanted, Abort):
            return _failed("avail ring", wanted)
        value = int.from_bytes(wanted, "little")
        if not self.event_idx:
            return not value & AvailFlags.NO_INTERRUPT.mask
        # Whether used_event lies among the entries just published (§2.7.10).
        return (self.used_idx - value - 1) & 0xFFFF < count

    def arm(self) -> Steps[Broken | None]:
        """Ask for a notification when the driver adds a chain; ``fetch`` again after it, lest one was missed."""
        if not self.event_idx:
            return None
        abort = yield from self.gate.write(self._avail_event, self.last_avail.to_bytes(2, "little"))
        return None if abort is None else _failed("used ring", abort)

    @property
    def _used_event(self) -> int:
        return self.avail + VirtqAvail.size + 2 * self.size

    @property
    def _avail_event(self) -> int:
        return self.used + VirtqUsed.size + VirtqUsedElem.size * self.size


def _failed(what: str, abort: Abort) -> Broken:
    return Broken(f"{what} at {abort.iova:#x}: {abort.why.value}")
