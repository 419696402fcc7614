# SPDX-License-Identifier: Apache-2.0
"""A virtio block device over virtio-mmio (Virtual I/O Device 1.2 §5.2).

Law: a fault on a request's data is that request's I/O error; a fault where its status goes, or a request
without a place for it, breaks the device. Data moves in chunks, whatever length the driver asks for.
Not modelled: geometry and topology hints, secure erase, lifetime, zoned devices, SCSI commands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import IntEnum
from functools import partial

from ..layout import Access, Layout, bit, field
from .port import CHUNK, Abort, Port, Steps
from .prompt import Disk
from .storage import SECTOR, Storage
from .virtio import Broken, Buffer, Chain, RingFeatures, Virtqueue, gather, packed, scatter
from .virtio_mmio import VirtioMmio
from .window import nothing

#: Largest range, in sectors, of a discard or write zeroes, and how many ranges a request may have.
MAX_ERASE_SECTORS = (16 << 20) // SECTOR
MAX_ERASE_SEGMENTS = 16


class RequestType(IntEnum):
    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class RequestStatus(IntEnum):
    OK = 0
    IOERR = 1
    UNSUPP = 2


class BlkFeatures(RingFeatures, section="virtio 1.2 §5.2.3"):
    SIZE_MAX = bit(1)
    SEG_MAX = bit(2)
    GEOMETRY = bit(4)
    RO = bit(5)
    BLK_SIZE = bit(6)
    FLUSH = bit(9)
    TOPOLOGY = bit(10)
    CONFIG_WCE = bit(11)
    MQ = bit(12)
    DISCARD = bit(13)
    WRITE_ZEROES = bit(14)


class BlkConfig(Layout, size=60, section="virtio 1.2 §5.2.4"):
    capacity = field(63, 0, doc="In sectors of 512 bytes")
    size_max = field(95, 64)
    seg_max = field(127, 96)
    cylinders = field(143, 128)
    heads = field(151, 144)
    sectors = field(159, 152)
    blk_size = field(191, 160)
    physical_block_exp = field(199, 192)
    alignment_offset = field(207, 200)
    min_io_size = field(223, 208)
    opt_io_size = field(255, 224)
    writeback = field(263, 256, access=Access.RW)
    num_queues = field(287, 272)
    max_discard_sectors = field(319, 288)
    max_discard_seg = field(351, 320)
    discard_sector_alignment = field(383, 352)
    max_write_zeroes_sectors = field(415, 384)
    max_write_zeroes_seg = field(447, 416)
    write_zeroes_may_unmap = field(455, 448)


class BlkRequest(Layout, size=16, section="virtio 1.2 §5.2.6"):
    type = field(31, 0, values=RequestType)
    reserved0 = field(63, 32)
    sector = field(127, 64)


class EraseSegment(Layout, size=16, section="virtio 1.2 §5.2.6"):
    """A range of a discard or write zeroes request."""

    sector = field(63, 0)
    num_sectors = field(95, 64)
    flags = field(127, 96)


class EraseFlags(Layout, size=4, section="virtio 1.2 §5.2.6"):
    UNMAP = bit(0)


_REQUEST = packed(BlkRequest)
_ERASE = packed(EraseSegment)
_ID_SIZE = 20

#: How a request ended: its status, and how much of its data buffers was written.
Done = tuple[RequestStatus, int]
_OK: Done = (RequestStatus.OK, 0)
_IOERR: Done = (RequestStatus.IOERR, 0)
_UNSUPP: Done = (RequestStatus.UNSUPP, 0)


class VirtioBlk(VirtioMmio):
    """A disk of ``storage``, whose size is rounded down to whole sectors.

    Machine file, besides what says of what ``storage`` is (``config.BlockOptions``):
    ``queues`` (int, default 1), ``queue_size`` (int, a power of two, default 256), ``serial`` (str, up to 20
    ASCII characters, what GET_ID answers, default the name), ``block_size`` (int, default 512).
    """

    OPEN = VirtioMmio.OPEN | {"writeback"}
    device_id = 2

    def __init__(
        self,
        name: str,
        port: Port,
        storage: Storage,
        *,
        queues: int = 1,
        queue_size: int = 256,
        serial: str | None = None,
        block_size: int = SECTOR,
        interrupt: Callable[[], None] = nothing,
        wake: Callable[[], None] | None = None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.storage = storage
        self.capacity = storage.size // SECTOR
        self.serial = (name if serial is None else serial).encode("ascii", "replace")[:_ID_SIZE].ljust(_ID_SIZE, b"\0")
        self.writeback = True
        self._requests: Counter[int] = Counter()
        self._offered = BlkFeatures.of(
            RING_INDIRECT_DESC=1,
            RING_EVENT_IDX=1,
            VERSION_1=1,
            ACCESS_PLATFORM=1,
            SEG_MAX=1,
            BLK_SIZE=1,
            FLUSH=1,
            CONFIG_WCE=1,
            MQ=int(queues > 1),
            RO=int(storage.readonly),
            DISCARD=int(not storage.readonly),
            WRITE_ZEROES=int(not storage.readonly),
        )
        self._config = BlkConfig.of(
            capacity=self.capacity,
            seg_max=max(1, min(queue_size, 256) - 2),
            blk_size=block_size,
            num_queues=queues,
            max_discard_sectors=MAX_ERASE_SECTORS,
            max_discard_seg=MAX_ERASE_SEGMENTS,
            discard_sector_alignment=1,
            max_write_zeroes_sectors=MAX_ERASE_SECTORS,
            max_write_zeroes_seg=MAX_ERASE_SEGMENTS,
            write_zeroes_may_unmap=1,
        )
        self._serve = {
            RequestType.IN: self._in,
            RequestType.OUT: self._out,
            RequestType.FLUSH: self._flush,
            RequestType.GET_ID: self._get_id,
            RequestType.DISCARD: self._discard,
            RequestType.WRITE_ZEROES: self._write_zeroes,
        }
        super().__init__(name, port, queues=queues, queue_size=queue_size, interrupt=interrupt, wake=wake, lock=lock)
        self.seal()

    @property
    def offered(self) -> RingFeatures:
        return self._offered

    def config(self) -> bytes:
        return self._config.replace(writeback=int(self.writeback)).to_bytes()

    def config_stored(self, offset: int, size: int, value: int) -> None:
        if offset == BlkConfig.writeback.lsb // 8 and size == 1 and self._negotiated.CONFIG_WCE:
            self.writeback = bool(value & 1)

    def _restart(self) -> None:
        self.writeback = True
        super()._restart()

    @property
    def _negotiated(self) -> BlkFeatures:
        return BlkFeatures(self.features.raw)

    def serve(self, ring: Virtqueue, chain: Chain) -> Steps[int | Broken]:
        if chain.readable.size < BlkRequest.size or not chain.writable.size:
            return Broken(f"request {chain.head} has no room for its header or its status")
        begun = self.port.watch.now()
        header = yield from gather(ring.gate, chain.readable.take(BlkRequest.size))
        status_at = chain.writable.take_last()
        size = chain.readable.size + chain.writable.size
        if isinstance(header, Abort):
            status, written = _IOERR
        else:
            number, _, sector = _REQUEST.unpack(header)
            operation = self._serve.get(number)
            counted = number if operation is not None else -1
            self._requests[counted] += 1
            status, written = _UNSUPP if operation is None else (yield from operation(ring, chain, sector * SECTOR))
            if self.port.watch.on:
                name = RequestType(number).name if operation is not None else "unknown"
                self.port.watch.served(self.name, name, status.name, begun, sector=sector, size=size)
        if (abort := (yield from ring.gate.write(status_at, bytes((status,))))) is not None:
            return Broken(f"request status at {abort.iova:#x}: {abort.why.value}")
        return written + 1

    @property
    def prompt_disk(self) -> Disk | None:
        prompt = self.storage.prompt
        return None if prompt is None else Disk(prompt.fd, prompt.flags, prompt.writes, self.capacity)

    def promptly(self, reads: int, writes: int) -> None:
        self._requests.update({int(RequestType.IN): reads, int(RequestType.OUT): writes})

    @property
    def requests(self) -> Counter[int]:
        """Requests by type; those of unknown type under -1."""
        reads, writes = (0, 0) if self._bell is None else (self._bell.reads, self._bell.writes)
        return self._requests + Counter({int(RequestType.IN): reads, int(RequestType.OUT): writes})

    def _fits(self, offset: int, size: int) -> bool:
        return size % SECTOR == 0 and offset + size <= self.capacity * SECTOR

    def _in(self, ring: Virtqueue, chain: Chain, offset: int) -> Steps[Done]:
        buffer = chain.writable
        if not self._fits(offset, buffer.size):
            return _IOERR
        written = 0
        while buffer.size:
            size = min(buffer.size, CHUNK)
            data = self.storage.read(offset + written, size)
            if data is None or (yield from scatter(ring.gate, buffer.take(size), data)) is not None:
                return RequestStatus.IOERR, written
            written += size
        return RequestStatus.OK, written

    def _out(self, ring: Virtqueue, chain: Chain, offset: int) -> Steps[Done]:
        buffer = chain.readable
        if self.storage.readonly or not self._fits(offset, buffer.size):
            return _IOERR
        while buffer.size:
            data = yield from gather(ring.gate, buffer.take(CHUNK))
            if isinstance(data, Abort):
                return _IOERR
            if not self.change(ring.gate, partial(self.storage.write, offset, data)):
                return _IOERR
            offset += len(data)
        return self._settle()

    def _settle(self) -> Done:
        """Without a write-back cache, done means on the disk (§5.2.6.2)."""
        cached = self.writeback and self._negotiated.FLUSH
        return _OK if cached or self.storage.flush() else _IOERR

    def _flush(self, ring: Virtqueue, chain: Chain, offset: int) -> Steps[Done]:
        yield from ()  # it makes no transaction
        return _OK if self.storage.flush() else _IOERR

    def _get_id(self, ring: Virtqueue, chain: Chain, offset: int) -> Steps[Done]:
        size = min(chain.writable.size, _ID_SIZE)
        if size and (yield from scatter(ring.gate, chain.writable.take(size), self.serial[:size])) is not None:
            return _IOERR
        return RequestStatus.OK, size

    def _discard(self, ring: Virtqueue, chain: Chain, offset: int) -> Steps[Done]:
        return self._erase(ring, chain.readable, 0, lambda at, size, flags: self.storage.discard(at, size))

    def _write_zeroes(self, ring: Virtqueue, chain: Chain, offset: int) -> Steps[Done]:
        unmap = EraseFlags.UNMAP.mask
        return self._erase(
            ring,
            chain.readable,
            unmap,
            lambda at, size, flags: self.storage.zero(at, size, unmap=bool(flags & unmap)),
        )

    def _erase(
        self, ring: Virtqueue, ranges: Buffer, allowed: int, action: Callable[[int, int, int], bool]
    ) -> Steps[Done]:
        if self.storage.readonly or not ranges.size or ranges.size % EraseSegment.size:
            return _IOERR
        if ranges.size > MAX_ERASE_SEGMENTS * EraseSegment.size:
            return _IOERR
        raw = yield from gather(ring.gate, ranges.take(ranges.size))
        if isinstance(raw, Abort):
            return _IOERR
        todo = []
        for sector, count, flags in _ERASE.iter_unpack(raw):
            if flags & ~allowed:
                return _UNSUPP
            if count > MAX_ERASE_SECTORS or not self._fits(sector * SECTOR, count * SECTOR):
                return _IOERR
            todo.append((sector * SECTOR, count * SECTOR, flags))
        for at, size, flags in todo:
            if size and not self.change(ring.gate, partial(action, at, size, flags)):
                return _IOERR
        return self._settle()
