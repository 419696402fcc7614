# SPDX-License-Identifier: Apache-2.0
"""One vfio-user conversation: bytes and fds in, commands to their methods, replies out.

Law: no I/O but ``send``, and nothing a client sends raises: it ends as a reply, an error reply or the end of
the conversation. File descriptors are ours from ``feed`` on, and closed unless a method takes them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from ..errors import ClientError
from .wire import (
    ACCESS,
    HEADER,
    HEADER_SIZE,
    MAX_DATA_XFER_SIZE,
    MAX_MESSAGE,
    MAX_MSG_FDS,
    Command,
    Flags,
    command_name,
)

# Plain integers: an enumeration's members cost a lookup each time.
_READ = int(Command.REGION_READ)
_WRITE = int(Command.REGION_WRITE)
_ACCESSES = frozenset((_READ, _WRITE))
_TYPE = int(Flags.TYPE)
_REPLY = int(Flags.REPLY)
_NO_REPLY = int(Flags.NO_REPLY)
_ERROR = int(Flags.ERROR)
_ERROR_REPLY = _REPLY | _ERROR

#: A whole REGION_READ; REGION_WRITE has its data behind as much.
_READ_SIZE = ACCESS.size

#: Of our commands to which no reply is wanted (and of the pump's); no other has it.
_NOBODYS_ID = 0xFFFF

#: Among received descriptors: those of the message that this process had no room for.
LOST = -1

#: How many of our commands may wait for the client's reply; more are refused, which bounds our memory.
MAX_OUTSTANDING = 1024

#: Called once for each accepted command of ours with its errno, 0 for success; in the thread that feeds.
Done = Callable[[int], None]


#: Carries out a command: (payload, fds) → the reply's payload. It removes an fd that it keeps from ``fds``, does
#: not keep the payload, and raises ClientError, or FatalClientError, for what the client did wrong.
Method = Callable[[memoryview, list[int]], bytes]


class Regions(Protocol):
    """What REGION_READ and REGION_WRITE reach, without a detour; both raise ClientError out of bounds."""

    def read(self, region: int, offset: int, size: int) -> bytes: ...

    def write(self, region: int, offset: int, data: memoryview) -> None: ...


class FatalClientError(ClientError):
    """A client's error after which no message can be understood; answered, then the conversation ends."""


class Connection:
    """Frames what a client sends and matches replies to what we send.

    One thread feeds; any thread may ``request``.
    """

    def __init__(
        self, commands: Mapping[int, Method], send: Callable[[bytes], bool], complain: Callable[[str], None]
    ) -> None:
        """``send`` transmits one whole message, False when it cannot; ``complain`` takes a line for the log."""
        #: What each command does; those that are not here are refused with ENOSYS.
        self.commands = commands
        #: Takes well-formed REGION_READ and REGION_WRITE in the place of ``commands`` when it is set.
        self.regions: Regions | None = None
        #: Whether the client takes a posted write of ours (DMA_WRITE) of a word now.
        self.may_post: Callable[[], bool] = lambda: False
        #: Asked before each message is carried out, and may take its time; False: the conversation is over.
        self.heed: Callable[[], bool] | None = None
        self._send = send
        self._complain = complain
        self._tail = bytearray()  # of a message whose end has not come yet
        self._tail_fds: list[int] = []
        self._need = HEADER_SIZE  # bytes of _tail before parsing it again makes sense
        self._lock = threading.Lock()  # guards the three below
        self._outstanding: dict[int, tuple[int, Done]] = {}
        self._next_id = 0
        self._closed = False

    def feed(self, data: memoryview, fds: list[int]) -> bool:
        """Handle what one receive brought and empty ``fds``; False: the conversation is over, ``close`` it.

        ``fds`` belong to the message that holds the last byte of ``data``: Linux ends a receive on a stream
        socket after the part that carried descriptors, and a client sends them with the message's header.
        """
        try:
            if self._tail:
                self._tail += data
                if len(self._tail) < self._need:
                    return self._keep(fds)
                data = memoryview(bytes(self._tail))
                self._tail.clear()
            end = len(data)
            at = 0
            while at < end:
                left = end - at
                if left < HEADER_SIZE:
                    self._need = HEADER_SIZE
                    break
                msg_id, command, size, flags, error = HEADER.unpack_from(data, at)
                if size < HEADER_SIZE or size > MAX_MESSAGE:
                    self._complain(f"message size {size} is out of range: the connection is closed")
                    return False
                if left < size:
                    self._need = size
                    break
                if self.heed is not None and not self.heed():
                    return False
                stop = at + size
                if command in _ACCESSES and self._access(msg_id, flags, data, at, stop):
                    close_fds(self._tail_fds)  # it has no use for any
                    at = stop
                    continue
                own = fds if stop == end else []
                if self._tail_fds:
                    own[:0] = self._tail_fds
                    self._tail_fds.clear()
                if flags & _TYPE == _REPLY:
                    close_fds(own)
                    self._replied(msg_id, command, (error or errno.EIO) if flags & _ERROR else 0)
                elif not self._command(msg_id, command, flags, data[at + HEADER_SIZE : stop], own):
                    return False
                at = stop
            else:
                return True
            self._tail += data[at:]
            return self._keep(fds)
        finally:
            if fds:
                close_fds(fds)

    @property
    def partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._tail)

    def _keep(self, fds: list[int]) -> bool:
        """Hold descriptors whose message is not complete."""
        self._tail_fds += fds
        fds.clear()
        if len(self._tail_fds) <= MAX_MSG_FDS:
            return True
        self._complain(f"more than {MAX_MSG_FDS} file descriptors in one message: the connection is closed")
        return False

    def _access(self, msg_id: int, flags: int, data: memoryview, at: int, stop: int) -> bool:
        """The journey of a register access: a REGION_READ or _WRITE in ``data`` from ``at`` to ``stop``.

        False: it is not a plain one, and left to ``commands``.
        """
        if stop - at < _READ_SIZE or flags & ~_NO_REPLY or self.regions is None:
            return False
        _, command, size, _, _, offset, region, count = ACCESS.unpack_from(data, at)
        try:
            if command == _READ:
                if size != _READ_SIZE or count > MAX_DATA_XFER_SIZE:
                    return False
                value = self.regions.read(region, offset, count)
                if not flags:
                    size += count
                    self._send(ACCESS.pack(msg_id, command, size, _REPLY, 0, offset, region, count) + value)
            else:
                if size != _READ_SIZE + count:
                    return False
                self.regions.write(region, offset, data[at + _READ_SIZE : stop])
                if not flags:
                    self._send(ACCESS.pack(msg_id, command, _READ_SIZE, _REPLY, 0, offset, region, count))
        except ClientError as problem:
            self._refuse(msg_id, command, flags, problem)
        return True

    def _command(self, msg_id: int, command: int, flags: int, body: memoryview, fds: list[int]) -> bool:
        """Carry out one command and reply to it; False: the conversation is over."""
        try:
            if flags & (_TYPE | _ERROR):
                raise ClientError(f"header flags {flags:#x} are neither a command's nor a reply's")
            method = self.commands.get(command)
            if method is None:
                raise ClientError("not a command that is known here", errno.ENOSYS)
            if LOST in fds:
                text = "its file descriptors are lost, as this process can have no more; raise its limit (ulimit -n)"
                raise ClientError(text, errno.EMFILE)
            payload = method(body, fds)
        except ClientError as problem:
            return self._refuse(msg_id, command, flags, problem)
        finally:
            close_fds(fds)
        if not flags & _NO_REPLY:
            self._send(HEADER.pack(msg_id, command, HEADER_SIZE + len(payload), _REPLY, 0) + payload)
        return True

    def _refuse(self, msg_id: int, command: int, flags: int, problem: ClientError) -> bool:
        """The one place where a client's mistake becomes a reply; False: the conversation is over."""
        self._complain(f"{command_name(command)}: {problem} ({errno.errorcode.get(problem.errno)})")
        if not flags & _NO_REPLY:
            self._send(HEADER.pack(msg_id, command, HEADER_SIZE, _ERROR_REPLY, problem.errno))
        return not isinstance(problem, FatalClientError)

    # -- our own commands --------------------------------------------------------------------------------------

    def tell(self, command: int, payload: bytes) -> bool:
        """Send a command to which no reply is wanted; False: it was not sent."""
        with self._lock:
            if self._closed:
                return False
        return self._send(HEADER.pack(_NOBODYS_ID, command, HEADER_SIZE + len(payload), _NO_REPLY, 0) + payload)

    def request(self, command: int, payload: bytes, done: Done) -> bool:
        """Send a command to the client without waiting; False: it was not sent, and ``done`` is not called."""
        with self._lock:
            if self._closed or len(self._outstanding) >= MAX_OUTSTANDING:
                return False
            while self._next_id in self._outstanding:
                self._next_id = (self._next_id + 1) % _NOBODYS_ID
            msg_id = self._next_id
            self._next_id = (msg_id + 1) % _NOBODYS_ID
            self._outstanding[msg_id] = (command, done)
        if self._send(HEADER.pack(msg_id, command, HEADER_SIZE + len(payload), 0, 0) + payload):
            return True
        with self._lock:  # False unless close has called ``done`` meanwhile
            return self._outstanding.pop(msg_id, None) is None

    def _replied(self, msg_id: int, command: int, error: int) -> None:
        with self._lock:
            sent, done = self._outstanding.get(msg_id, (None, None))
            if sent == command:
                del self._outstanding[msg_id]
        if done is None or sent != command:
            self._complain(f"reply {msg_id} to {command_name(command)}, which was not sent")
            return
        done(error)

    def close(self) -> None:
        """End the conversation: every fd we hold is closed, every outstanding command fails with ECONNRESET."""
        close_fds(self._tail_fds)
        self._tail.clear()
        with self._lock:
            self._closed = True
            outstanding, self._outstanding = self._outstanding, {}
        for _, done in outstanding.values():
            done(errno.ECONNRESET)


def close_fds(fds: list[int]) -> None:
    """Close and forget every descriptor of the list; an error is of what the client has behind it, and none of ours."""
    while fds:
        if (fd := fds.pop()) != LOST:
            with contextlib.suppress(OSError):
                os.close(fd)
