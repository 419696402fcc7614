# SPDX-License-Identifier: Apache-2.0
"""A vfio-user client for tests: the other end of the conversation, in the same declarations.

Law: it waits for every reply at most ``TIMEOUT`` seconds, and answers the server's commands while it waits.
It speaks through a socket or, back to back, straight into a Session.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from vhost_iommu.vfio import wire
from vhost_iommu.vfio.connection import LOST
from vhost_iommu.vfio.session import Session
from vhost_iommu.vfio.wire import Command, DmaFlags, Flags, IrqSetFlags, UnmapFlags

TIMEOUT = 10.0

#: What QEMU proposes, key by key.
QEMU_CAPABILITIES = {
    "pgsizes": 4096,
    "max_msg_fds": 16,
    "max_dma_maps": 65535,
    "max_data_xfer_size": 1048576,
    "migration": {"max_bitmap_size": 268435456, "pgsize": 4096},
    "write_multiple": True,
}


class Transport(Protocol):
    """Carries bytes and descriptors to a server and bytes back."""

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None: ...

    def receive(self, size: int) -> bytes:
        """Exactly ``size`` bytes; ConnectionError when the server has closed, TimeoutError when none come."""

    def close(self) -> None: ...


class SocketTransport:
    """Through a connected stream socket, which it owns."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        connected.settimeout(TIMEOUT)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        sent = socket.send_fds(self.socket, [data], list(fds)) if fds else 0
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionError(f"the server closed after {len(data)} of {size} bytes")
            data += more
        return data

    def close(self) -> None:
        self.socket.close()


class Direct:
    """Back to back with a session of ``function``: no socket, no thread, descriptors duplicated as by a socket."""

    def __init__(self, function: Any) -> None:
        self.complaints: list[str] = []
        self.over = False
        self._out = bytearray()
        self.session = Session(function, self._take, self.complaints.append)

    def _take(self, message: bytes) -> bool:
        self._out += message
        return True

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        if self.over:
            return
        received = [fd if fd == LOST else os.dup(fd) for fd in fds]
        if not self.session.connection.feed(memoryview(data), received):
            self.close()

    def receive(self, size: int) -> bytes:
        if len(self._out) < size:
            raise ConnectionError("closed") if self.over else TimeoutError("the server has said nothing more")
        data = bytes(self._out[:size])
        del self._out[:size]
        return data

    def close(self) -> None:
        if not self.over:
            self.over = True
            self.session.end()


class RefusedError(Exception):
    """The server's error reply."""

    def __init__(self, command: int, number: int) -> None:
        super().__init__(f"{wire.command_name(command)}: {errno.errorcode.get(number, number)}")
        self.errno = number


class TestClient:
    """Methods are named after what they send; each raises RefusedError on an error reply."""

    __test__ = False  # not a test case, whatever its name

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        #: (address, data) of each DMA_WRITE that the server sent.
        self.dma_writes: list[tuple[int, bytes]] = []
        #: The errno with which a DMA_WRITE is answered, 0 for success, None for no answer yet.
        self.answer: Callable[[int, bytes], int | None] = lambda address, data: 0
        #: Those without an answer yet: (message id, address and size).
        self.unanswered: list[tuple[int, bytes]] = []
        self._next_id = 1
        self._replies: list[tuple[int, int, int, bytes]] = []

    @classmethod
    def connect(cls, path: str | os.PathLike[str]) -> TestClient:
        """Connect to the server at ``path``."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(TIMEOUT)
        connected.connect(os.fspath(path))
        return cls(SocketTransport(connected))

    @classmethod
    def direct(cls, function: Any) -> TestClient:
        """Back to back with a new session of ``function``."""
        return cls(Direct(function))

    def close(self) -> None:
        self.transport.close()

    def __enter__(self) -> TestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- messages ------------------------------------------------------------------------------------------------

    def send(self, command: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = 0) -> int:
        """Send a command and return its id."""
        msg_id, self._next_id = self._next_id, (self._next_id + 1) & 0xFFFF
        self.transport.send(message(command, payload, msg_id=msg_id, flags=flags), fds)
        return msg_id

    def reply(self, msg_id: int) -> bytes:
        """The payload of the reply to ``msg_id``, which must be the next reply to come."""
        while not self._replies:
            self.receive()
        got, command, error, body = self._replies.pop(0)
        assert got == msg_id, f"reply {got} where {msg_id} is due: out of order"
        if error >= 0:
            assert not body, "an error reply is a header only"
            raise RefusedError(command, error)
        return body

    def receive(self) -> None:
        """Take one message: a reply is kept for ``reply``, a DMA_WRITE is noted and answered if it wants to be."""
        header = wire.Header.parse(self.transport.receive(wire.HEADER_SIZE))
        body = self.transport.receive(header.msg_size - wire.HEADER_SIZE)
        if header.flags & Flags.REPLY:
            error = header.error if header.flags & Flags.ERROR else -1
            self._replies.append((header.msg_id, header.command, error, body))
            return
        assert header.command == Command.DMA_WRITE, f"unexpected command {header.command}"
        access = wire.DmaAccess.parse(body)
        data = body[wire.DmaAccess.sizeof() :]
        assert len(data) == access.count
        self.dma_writes.append((access.address, data))
        if header.flags & Flags.NO_REPLY:
            return
        error = self.answer(access.address, data)
        self.unanswered.append((header.msg_id, body[: wire.DmaAccess.sizeof()]))
        if error is not None:
            self.answer_late(-1, error)

    def answer_late(self, number: int, error: int = 0) -> None:
        """Answer a DMA_WRITE of ``unanswered`` by its number there."""
        msg_id, access = self.unanswered.pop(number)
        flags = Flags.REPLY | (Flags.ERROR if error else 0)
        payload = b"" if error else access
        self.transport.send(message(Command.DMA_WRITE, payload, msg_id=msg_id, flags=flags, error=error))

    def wait_dma_write(self) -> tuple[int, bytes]:
        """(address, data) of the oldest DMA_WRITE not yet asked for."""
        while not self.dma_writes:
            self.receive()
        return self.dma_writes.pop(0)

    def call(self, command: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """Send a command and return its reply's payload."""
        return self.reply(self.send(command, payload, fds))

    # -- commands ------------------------------------------------------------------------------------------------

    def version(self, major: int = 0, minor: int = 0, capabilities: Any = QEMU_CAPABILITIES) -> Any:
        """Negotiate as QEMU does; the reply's fields with ``capabilities``."""
        text = json.dumps({"capabilities": capabilities}).encode() + b"\0"
        body = self.call(Command.VERSION, wire.Version.build({"major": major, "minor": minor}) + text)
        reply = wire.Version.parse(body)
        data = body[wire.Version.sizeof() :]
        assert data.endswith(b"\0")
        reply.capabilities = json.loads(data[:-1])["capabilities"]
        return reply

    def dma_map(
        self,
        address: int,
        size: int,
        fd: int | None = None,
        offset: int = 0,
        flags: int = DmaFlags.READ | DmaFlags.WRITE,
    ) -> None:
        fields = {"argsz": 32, "flags": flags, "offset": offset, "address": address, "size": size}
        body = self.call(Command.DMA_MAP, wire.DmaMap.build(fields), [] if fd is None else [fd])
        assert body == b""

    def dma_unmap(self, address: int, size: int) -> None:
        payload = wire.DmaUnmap.build({"argsz": 24, "flags": 0, "address": address, "size": size})
        assert self.call(Command.DMA_UNMAP, payload) == payload

    def dma_unmap_all(self) -> None:
        payload = wire.DmaUnmap.build({"argsz": 24, "flags": UnmapFlags.ALL, "address": 0, "size": 0})
        assert self.call(Command.DMA_UNMAP, payload) == payload

    def device_info(self) -> Any:
        payload = wire.DeviceInfo.build({"argsz": 16, "flags": 0, "num_regions": 0, "num_irqs": 0})
        return wire.DeviceInfo.parse(self.call(Command.DEVICE_GET_INFO, payload))

    def region_info(self, index: int, argsz: int = 32) -> Any:
        fields = {"argsz": argsz, "flags": 0, "index": index, "cap_offset": 0, "size": 0, "offset": 0}
        body = self.call(Command.DEVICE_GET_REGION_INFO, wire.RegionInfo.build(fields))
        return wire.RegionInfo.parse(body)

    def irq_info(self, index: int) -> Any:
        payload = wire.IrqInfo.build({"argsz": 16, "flags": 0, "index": index, "count": 0})
        return wire.IrqInfo.parse(self.call(Command.DEVICE_GET_IRQ_INFO, payload))

    def set_irqs(
        self,
        index: int,
        flags: int,
        start: int = 0,
        count: int = 1,
        *,
        fds: Sequence[int] = (),
        bools: bytes = b"",
    ) -> None:
        """``flags``: one DATA and one ACTION flag of IrqSetFlags."""
        fields = {"argsz": 20 + len(bools), "flags": flags, "index": index, "start": start, "count": count}
        assert self.call(Command.DEVICE_SET_IRQS, wire.IrqSet.build(fields) + bools, fds) == b""

    def assign_irqs(self, index: int, fds: Sequence[int], start: int = 0) -> None:
        """Give vectors from ``start`` on an eventfd each."""
        flags = IrqSetFlags.DATA_EVENTFD | IrqSetFlags.ACTION_TRIGGER
        self.set_irqs(index, flags, start, len(fds), fds=fds)

    def disable_irqs(self, index: int) -> None:
        self.set_irqs(index, IrqSetFlags.DATA_NONE | IrqSetFlags.ACTION_TRIGGER, 0, 0)

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Read ``count`` bytes of a region."""
        payload = wire.REGION_ACCESS.pack(offset, region, count)
        body = self.call(Command.REGION_READ, payload)
        assert body[:16] == payload
        assert len(body) == 16 + count
        return body[16:]

    def write(self, region: int, offset: int, data: bytes, *, posted: bool = False) -> None:
        """Write to a region; a posted write has no reply, so that a mistake in it goes unnoticed."""
        payload = wire.REGION_ACCESS.pack(offset, region, len(data))
        if posted:
            self.send(Command.REGION_WRITE, payload + data, flags=Flags.NO_REPLY)
        else:
            assert self.call(Command.REGION_WRITE, payload + data) == payload

    def read_int(self, region: int, offset: int, size: int) -> int:
        return int.from_bytes(self.read(region, offset, size), "little")

    def write_int(self, region: int, offset: int, size: int, value: int, *, posted: bool = False) -> None:
        self.write(region, offset, value.to_bytes(size, "little"), posted=posted)

    def write_multi(self, writes: Sequence[tuple[int, int, bytes]], *, posted: bool = True) -> None:
        """Coalesced writes of (region, offset, at most 8 bytes)."""
        payload = wire.WriteMulti.build({"wr_cnt": len(writes)}) + b"".join(
            wire.SINGLE_WRITE.pack(offset, region, len(data), data) for region, offset, data in writes
        )
        if posted:
            self.send(Command.REGION_WRITE_MULTI, payload, flags=Flags.NO_REPLY)
        else:
            body = self.call(Command.REGION_WRITE_MULTI, payload)
            assert wire.WriteMulti.parse(body).wr_cnt == len(writes)

    def reset(self) -> None:
        assert self.call(Command.DEVICE_RESET) == b""


def message(
    command: int, payload: bytes = b"", *, msg_id: int = 0, flags: int = 0, error: int = 0, size: int | None = None
) -> bytes:
    """A whole message; ``size`` lies about its length."""
    length = wire.HEADER_SIZE + len(payload) if size is None else size
    header = {"msg_id": msg_id, "command": command, "msg_size": length, "flags": flags, "error": error}
    return bytes(wire.Header.build(header)) + payload


def open_fds() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def ram(size: int, *, sealable: bool = True) -> int:
    """A memfd of ``size`` bytes, the caller's to close."""
    fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0))
    os.truncate(fd, size)
    return fd


class Scratch:
    """A register block of plain storage that notes each access."""

    def __init__(self, name: str = "scratch", size: int = 0x1000) -> None:
        self.name = name
        self.size = size
        self.accesses: list[tuple[str, int, int]] = []
        self.resets = 0
        self.storage = bytearray(size)

    def read(self, offset: int, size: int) -> int:
        self.accesses.append(("read", offset, size))
        return int.from_bytes(self.storage[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.accesses.append(("write", offset, size))
        self.storage[offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        self.resets += 1
        self.storage = bytearray(self.size)
