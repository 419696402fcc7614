# SPDX-License-Identifier: Apache-2.0
"""A driver of virtio-blk over virtio-mmio, in the test's place of a guest.

Law: written from the specification, not from the model; its rings lie in RAM that the device reaches by IOVA.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Protocol

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
NEXT, WRITE, INDIRECT = 1, 2, 4
VERSION_1, ACCESS_PLATFORM, INDIRECT_DESC, EVENT_IDX = 1 << 32, 1 << 33, 1 << 28, 1 << 29

SECTOR = 512


class Device(Protocol):
    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class RefusedError(Exception):
    """The device did not keep FEATURES_OK."""


@dataclass
class Queue:
    index: int
    size: int
    desc: int
    avail: int
    used: int
    free: list[int]
    avail_idx: int = 0
    seen: int = 0
    #: Buffers that each head in flight owns.
    owned: dict[int, list[int]] = field(default_factory=dict)


class BlkDriver:
    """``ram`` appears to the device at ``iova``; buffers come from it in order and are never given back."""

    def __init__(self, device: Device, ram: bytearray, iova: int) -> None:
        self.device = device
        self.ram = ram
        self.iova = iova
        self.next = 0
        self.features = 0
        self.queues: list[Queue] = []
        self.config_changes = 0
        self.used_interrupts = 0

    # -- memory --

    def alloc(self, size: int, align: int = 16) -> int:
        """An IOVA."""
        self.next = -(-self.next // align) * align
        at = self.next
        self.next += size
        assert self.next <= len(self.ram), "the test's RAM is too small"
        return self.iova + at

    def peek(self, iova: int, size: int) -> bytes:
        return bytes(self.ram[iova - self.iova : iova - self.iova + size])

    def poke(self, iova: int, data: bytes) -> None:
        self.ram[iova - self.iova : iova - self.iova + len(data)] = data

    def u16(self, iova: int) -> int:
        return int.from_bytes(self.peek(iova, 2), "little")

    # -- set up --

    def load(self, at: int) -> int:
        return self.device.read(at, 4)

    def store(self, at: int, value: int) -> None:
        self.device.write(at, 4, value)

    @property
    def status(self) -> int:
        return self.load(0x70)

    def probe(
        self, wanted: int = VERSION_1 | ACCESS_PLATFORM | INDIRECT_DESC | EVENT_IDX | 0xFFFF, *, queues: int = 1
    ) -> None:
        """§3.1.1, with those of the ``wanted`` features that are offered."""
        assert self.load(0x000) == int.from_bytes(b"virt", "little")
        assert (self.load(0x004), self.load(0x008)) == (2, 2)
        self.store(0x70, 0)
        assert self.status == 0
        self.store(0x70, 1)
        self.store(0x70, 3)
        self.features = self.offered() & wanted
        self.accept(self.features)
        self.store(0x70, 11)
        if not self.status & 8:
            raise RefusedError
        self.queues = [self.setup_queue(n) for n in range(queues)]
        self.store(0x70, 15)

    def offered(self) -> int:
        offered = 0
        for half in 0, 1:
            self.store(0x14, half)
            offered |= self.load(0x10) << (32 * half)
        return offered

    def accept(self, features: int) -> None:
        for half in 0, 1:
            self.store(0x24, half)
            self.store(0x20, (features >> (32 * half)) & 0xFFFFFFFF)

    def setup_queue(self, index: int, size: int | None = None) -> Queue:
        self.store(0x30, index)
        largest = self.load(0x34)
        assert largest, f"there is no queue {index}"
        size = largest if size is None else size
        queue = Queue(
            index,
            size,
            self.alloc(16 * size),
            self.alloc(6 + 2 * size, 2),
            self.alloc(6 + 8 * size, 4),
            list(range(size)),
        )
        for iova, span in (queue.desc, 16 * size), (queue.avail, 6 + 2 * size), (queue.used, 6 + 8 * size):
            self.poke(iova, bytes(span))
        self.store(0x38, size)
        for at, iova in (0x80, queue.desc), (0x90, queue.avail), (0xA0, queue.used):
            self.store(at, iova & 0xFFFFFFFF)
            self.store(at + 4, iova >> 32)
        self.store(0x44, 1)
        return queue

    # -- requests --

    def write_desc(self, iova: int, addr: int, size: int, flags: int, following: int = 0) -> None:
        self.poke(iova, struct.pack("<QIHH", addr, size, flags, following))

    def add(self, queue: Queue, parts: list[tuple[int, int, bool]], *, indirect: bool = False) -> int:
        """Make a chain of (address, size, device writable) available, without a notification: its head."""
        flags = [
            (WRITE if writable else 0) | (NEXT if n + 1 < len(parts) else 0) for n, (*_, writable) in enumerate(parts)
        ]
        if indirect:
            table = self.alloc(16 * len(parts))
            for n, (addr, size, _) in enumerate(parts):
                self.write_desc(table + 16 * n, addr, size, flags[n], n + 1)
            chain = [queue.free.pop(0)]
            self.write_desc(queue.desc + 16 * chain[0], table, 16 * len(parts), INDIRECT)
        else:
            chain = [queue.free.pop(0) for _ in parts]
            for n, (addr, size, _) in enumerate(parts):
                following = chain[n + 1] if n + 1 < len(parts) else 0
                self.write_desc(queue.desc + 16 * chain[n], addr, size, flags[n], following)
        queue.owned[chain[0]] = chain
        self.offer(queue, chain[0])
        return chain[0]

    def offer(self, queue: Queue, head: int) -> None:
        self.poke(queue.avail + 4 + 2 * (queue.avail_idx % queue.size), head.to_bytes(2, "little"))
        queue.avail_idx = (queue.avail_idx + 1) % 65536
        self.poke(queue.avail + 2, queue.avail_idx.to_bytes(2, "little"))

    def kick(self, queue: Queue) -> None:
        self.store(0x50, queue.index)

    def used(self, queue: Queue) -> list[tuple[int, int]]:
        """(head, written) of the chains that came back since last asked."""
        back = []
        while queue.seen != self.u16(queue.used + 2):
            raw = self.peek(queue.used + 4 + 8 * (queue.seen % queue.size), 8)
            head, written = struct.unpack("<II", raw)
            back.append((head, written))
            queue.free += queue.owned.pop(head)
            queue.seen = (queue.seen + 1) % 65536
        return back

    def interrupt(self) -> None:
        """What an edge makes the guest do."""
        status = self.load(0x60)
        self.store(0x64, status)
        self.used_interrupts += status & 1
        self.config_changes += status >> 1 & 1

    def request(
        self,
        kind: int,
        sector: int = 0,
        data: bytes = b"",
        room: int = 0,
        *,
        queue: int = 0,
        indirect: bool = False,
        pieces: int = 1,
    ) -> tuple[int, bytes, int]:
        """Do one request: status, what was read, and the length that the used ring tells."""
        ring = self.queues[queue]
        header = self.alloc(16)
        status = self.alloc(1)
        size = len(data) or room
        buffer = self.alloc(size + 512 * pieces, 512)
        self.poke(header, struct.pack("<IIQ", kind, 0, sector))
        self.poke(status, b"\xee")
        parts = [(header, 16, False)]
        at = 0
        for n in range(pieces if size else 0):
            part = size // pieces if n + 1 < pieces else size - at
            # A gap between the pieces, so that none can be mistaken for one.
            iova = buffer + at + 64 * n
            self.poke(iova, data[at : at + part])
            parts.append((iova, part, not data))
            at += part
        parts.append((status, 1, True))
        head = self.add(ring, parts, indirect=indirect)
        self.kick(ring)
        back = self.used(ring)
        assert [each for each, _ in back] == [head]
        read = b"".join(self.peek(iova, part) for iova, part, writable in parts[1:-1] if writable)
        return self.peek(status, 1)[0], read, back[0][1]
