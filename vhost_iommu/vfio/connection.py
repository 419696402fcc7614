# SPDX-License-Identifier: Apache-2.0
"""One vfio-user conversation: bytes and fds in, messages to a handler, replies out.

Law: no I/O but ``send``, and nothing a client sends raises: it ends as a reply, an error reply or the end of
the conversation. File descriptors are ours from ``feed`` on, and closed unless the handler takes them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Protocol

from ..errors import ClientError
from .wire import HEADER, HEADER_SIZE, MAX_MESSAGE, MAX_MSG_FDS, Flags, command_name

_TYPE = int(Flags.TYPE)
_REPLY = int(Flags.REPLY)
_NO_REPLY = int(Flags.NO_REPLY)
_ERROR = int(Flags.ERROR)
_ERROR_REPLY = _REPLY | _ERROR

#: How many of our commands may wait for the client's reply; more are refused, which bounds our memory.
MAX_OUTSTANDING = 1024

#: Called once for each accepted command of ours with its errno, 0 for success; in the thread that feeds.
Done = Callable[[int], None]


class Handler(Protocol):
    """Carries out a client's command."""

    def __call__(self, command: int, body: memoryview, fds: list[int]) -> bytes:
        """The reply's payload. A handler that keeps an fd removes it from ``fds``; ``body`` is not to be kept.

        Raises ClientError for what the client did wrong, FatalClientError when the conversation cannot go on after it.
        """


class FatalClientError(ClientError):
    """A client's error after which no message can be understood; answered, then the conversation ends."""


class Connection:
    """Frames what a client sends and matches replies to what we send.

    One thread feeds; any thread may ``request``.
    """

    def __init__(self, handle: Handler, send: Callable[[bytes], bool], complain: Callable[[str], None]) -> None:
        """``send`` transmits one whole message, False when it cannot; ``complain`` takes a line for the log."""
        self._handle = handle
        self._send = send
        self._complain = complain
        self._tail = bytearray()  # of a message whose end has not come yet
        self._tail_fds: list[int] = []
        self._need = HEADER_SIZE  # bytes of _tail before parsing it again makes sense
        self._lock = threading.Lock()  # guards the three below
        self._outstanding: dict[int, tuple[int, Done]] = {}
        self._next_id = 0
        self._closed = False

    def feed(self, data: memoryview | bytes, fds: list[int]) -> bool:
        """Handle what one receive brought and empty ``fds``; False: the conversation is over, ``close`` it.

        ``fds`` belong to the message that holds the last byte of ``data``: Linux ends a receive on a stream
        socket after the part that carried descriptors, and a client sends them with the message's header.
        """
        try:
            return self._feed(data, fds)
        finally:
            close_fds(fds)

    def _feed(self, data: memoryview | bytes, fds: list[int]) -> bool:
        if self._tail:
            self._tail += data
            if len(self._tail) < self._need:
                return self._keep(fds)
            data = bytes(self._tail)
            self._tail.clear()
        view = memoryview(data)
        end = len(view)
        at = 0
        while at < end:
            left = end - at
            if left < HEADER_SIZE:
                self._need = HEADER_SIZE
                break
            msg_id, command, size, flags, error = HEADER.unpack_from(view, at)
            if not HEADER_SIZE <= size <= MAX_MESSAGE:
                self._complain(f"message size {size} is out of range: the connection is closed")
                return False
            if left < size:
                self._need = size
                break
            stop = at + size
            own = fds if stop == end else []
            if self._tail_fds:
                own[:0] = self._tail_fds
                self._tail_fds.clear()
            if flags & _TYPE == _REPLY:
                close_fds(own)
                self._replied(msg_id, command, (error or errno.EIO) if flags & _ERROR else 0)
            elif not self._command(msg_id, command, flags, view[at + HEADER_SIZE : stop], own):
                return False
            at = stop
        else:
            return True
        self._tail += view[at:]
        return self._keep(fds)

    def _keep(self, fds: list[int]) -> bool:
        """Hold descriptors whose message is not complete."""
        self._tail_fds += fds
        fds.clear()
        if len(self._tail_fds) <= MAX_MSG_FDS:
            return True
        self._complain(f"more than {MAX_MSG_FDS} file descriptors in one message: the connection is closed")
        return False

    def _command(self, msg_id: int, command: int, flags: int, body: memoryview, fds: list[int]) -> bool:
        """Carry out one command and reply to it; False: the conversation is over."""
        go_on = True
        try:
            if flags & (_TYPE | _ERROR):
                raise ClientError(f"header flags {flags:#x} are neither a command nor a reply")
            payload = self._handle(command, body, fds)
            reply = HEADER.pack(msg_id, command, HEADER_SIZE + len(payload), _REPLY, 0) + payload
        except ClientError as problem:  # the one place where a client's mistake becomes a reply
            go_on = not isinstance(problem, FatalClientError)
            self._complain(f"{command_name(command)}: {problem} ({errno.errorcode.get(problem.errno)})")
            reply = HEADER.pack(msg_id, command, HEADER_SIZE, _ERROR_REPLY, problem.errno)
        finally:
            if fds:
                close_fds(fds)
        if not flags & _NO_REPLY:
            self._send(reply)
        return go_on

    # -- our own commands --------------------------------------------------------------------------------------

    def request(self, command: int, payload: bytes, done: Done) -> bool:
        """Send a command to the client without waiting; False: it was not sent, and ``done`` is not called."""
        with self._lock:
            if self._closed or len(self._outstanding) >= MAX_OUTSTANDING:
                return False
            while self._next_id in self._outstanding:
                self._next_id = (self._next_id + 1) & 0xFFFF
            msg_id = self._next_id
            self._next_id = (msg_id + 1) & 0xFFFF
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
    """Close and forget every descriptor of the list."""
    while fds:
        os.close(fds.pop())
