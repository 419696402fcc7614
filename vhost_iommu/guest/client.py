# SPDX-License-Identifier: Apache-2.0
"""A vfio-user client of one PCI function, as QEMU is one: for a test that plays the CPU through a session.

Law: what the function sends is taken at once, by a thread that calls ``listen`` and waits for nothing else; whoever
calls waits for PATIENCE seconds at most, and hears whether the connection is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from vhost_iommu.errors import ClientError
from vhost_iommu.vfio import wire
from vhost_iommu.vfio.wire import Command, DmaFlags, Flags

#: Seconds that the function has to answer.
PATIENCE = 60.0
#: Seconds after which who listens looks whether it is to end.
_TICK = 0.2
_CAPABILITIES = {"max_msg_fds": 1, "max_data_xfer_size": wire.MAX_DATA_XFER_SIZE, "pgsizes": 4096}


class LostError(Exception):
    """The connection is closed, or nothing was answered in time."""


class Client:
    """Of the function ``name`` at the socket ``path``; ``written`` is called with each write to what is no RAM."""

    def __init__(self, name: str, path: Path, written: Callable[[int, bytes], None]) -> None:
        self.name = name
        self._written = written
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        # Each of the two threads has a timeout of its own.
        self._out = self._socket.dup()
        self._socket.settimeout(_TICK)
        self._out.settimeout(PATIENCE)
        self._turn = threading.Lock()  # held while a message is sent
        self._came = bytearray()
        self._due: list[bytes] = []  # answers that there was no room for yet
        self._news = threading.Condition()
        self._over = False
        self._last_id = 0
        self._answers: dict[int, tuple[int, bytes]] = {}

    # -- the thread that listens -----------------------------------------------------------------------------------

    def listen(self) -> bool:
        """Take what comes within a moment; whether there may be more."""
        self._answer()
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return True
        except OSError:
            data = b""
        self._came += data
        while len(self._came) >= wire.HEADER.size:
            number, command, size, flags, error = wire.HEADER.unpack_from(self._came)
            if len(self._came) < size:
                break
            self._heard(number, command, flags, error, bytes(self._came[wire.HEADER.size : size]))
            del self._came[:size]
        if not data:
            with self._news:
                self._over = True
                self._news.notify_all()
        return bool(data)

    def _heard(self, number: int, command: int, flags: int, error: int, body: bytes) -> None:
        if flags & Flags.REPLY:
            with self._news:
                self._answers[number] = error if flags & Flags.ERROR else 0, body
                self._news.notify_all()
            return
        # DMA_WRITE, the only command that a function sends.
        access = wire.DMA_ACCESS.size
        self._written(wire.DMA_ACCESS.unpack_from(body)[0], body[access:])
        if not flags & Flags.NO_REPLY:
            self._due.append(_message(number, command, Flags.REPLY, body[:access]))
            self._answer()

    def _answer(self) -> None:
        """Send the answers that are due, as far as there is room for them; each of them goes whole or not at all."""
        with contextlib.suppress(OSError):
            while self._due and self._turn.acquire(blocking=False):
                try:
                    self._out.send(self._due[0], socket.MSG_DONTWAIT)
                finally:
                    self._turn.release()
                del self._due[0]

    # -- who calls -------------------------------------------------------------------------------------------------

    def begin(self, address: int, size: int, memory: int) -> None:
        """Agree on a version, and lend ``size`` bytes of the descriptor ``memory`` as RAM at ``address``."""
        text = json.dumps({"capabilities": _CAPABILITIES}).encode() + b"\0"
        self._call(Command.VERSION, wire.Version.build({"major": wire.MAJOR, "minor": wire.MINOR}) + text)
        window = {"argsz": wire.DmaMap.sizeof(), "flags": DmaFlags.READ | DmaFlags.WRITE, "offset": 0}
        self._call(Command.DMA_MAP, wire.DmaMap.build({**window, "address": address, "size": size}), [memory])

    def read(self, region: int, offset: int, size: int) -> bytes:
        body = self._call(Command.REGION_READ, wire.REGION_ACCESS.pack(offset, region, size))
        return body[wire.REGION_ACCESS.size :]

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Posted, as QEMU's are: nobody waits for it."""
        payload = wire.REGION_ACCESS.pack(offset, region, len(data)) + data
        self._send(self._number(), Command.REGION_WRITE, Flags.NO_REPLY, payload)

    def reset(self) -> None:
        self._call(Command.DEVICE_RESET, b"")

    def hang_up(self) -> None:
        """Who listens ends, and who waits hears of it."""
        with contextlib.suppress(OSError):
            self._out.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Once nobody listens."""
        self._socket.close()
        self._out.close()

    def _number(self) -> int:
        self._last_id = (self._last_id + 1) & 0xFFFF
        return self._last_id

    def _call(self, command: Command, payload: bytes, fds: Sequence[int] = ()) -> bytes:
        number = self._number()
        self._send(number, command, 0, payload, fds)
        with self._news:
            self._news.wait_for(lambda: number in self._answers or self._over, PATIENCE)
            if number not in self._answers:
                why = "has closed the connection" if self._over else f"has not answered for {PATIENCE:g} s"
                raise LostError(f"{self.name} {why} ({command.name})")
            error, body = self._answers.pop(number)
        if error:
            raise ClientError(f"{self.name} refuses {command.name}: {os.strerror(error)}", error)
        return body

    def _send(self, number: int, command: int, flags: int, payload: bytes, fds: Sequence[int] = ()) -> None:
        message = _message(number, command, flags, payload)
        try:
            with self._turn:
                sent = socket.send_fds(self._out, [message], list(fds)) if fds else 0
                self._out.sendall(message[sent:])
        except OSError as problem:
            raise LostError(f"{self.name} has closed the connection ({wire.command_name(command)})") from problem


def _message(number: int, command: int, flags: int, payload: bytes) -> bytes:
    return wire.HEADER.pack(number, command, wire.HEADER.size + len(payload), flags, 0) + payload
