# SPDX-License-Identifier: Apache-2.0
"""One end of a serial line of a guest that runs: a thread reads it as it comes, and pexpect expects of what came.

Law: whatever the guest says is read at once, so that a guest never waits for a test; what nobody expected is kept up
to a bound. When the guest is no more, who waits is told why.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

from pexpect import EOF, TIMEOUT
from pexpect.spawnbase import SpawnBase

#: Bytes that wait for somebody to expect them; of more, the first are dropped.
ROOM = 16 << 20
#: Seconds after which a thread that hears nothing looks whether it is to end.
TICK = 0.2
#: Seconds that a guest has to take what it is sent.
_PATIENCE = 30.0


class Line(SpawnBase):  # type: ignore[misc]
    """Takes ownership of ``connected``. ``heard`` is called, by the thread, with what comes; b"" is the end of all."""

    def __init__(
        self, connected: socket.socket, heard: Callable[[bytes], None] = lambda data: None, encoding: str | None = None
    ) -> None:
        super().__init__(encoding=encoding, codec_errors="replace", timeout=None, maxread=1 << 16)
        # Each of the two threads has a timeout of its own.
        self._socket, self._out = connected, connected.dup()
        self._socket.settimeout(TICK)
        self._out.settimeout(_PATIENCE)
        self._heard = heard
        self._turn = threading.Lock()  # held from taking what came until it is heard
        self._came = threading.Condition()
        self._waiting = bytearray()
        self._over = False
        self._why: Exception | None = None

    # -- the thread that listens --------------------------------------------------------------------------------

    def listen(self) -> bool:
        """Hear what comes within a moment; whether there may be more."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        except OSError:
            pass
        with self._turn:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                data = b""
            self._heard(data)
        with self._came:
            self._waiting += data
            del self._waiting[: max(0, len(self._waiting) - ROOM)]
            self._over = self._over or not data
            self._came.notify_all()
        return bool(data)

    def catch_up(self, seconds: float = 5.0) -> None:
        """Wait until all that was said is heard; of a guest that does not cease to speak, for so long."""
        until = time.monotonic() + seconds
        left = bytearray(4)
        while time.monotonic() < until:
            with self._turn, contextlib.suppress(OSError, ValueError):
                fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, left)
                if not any(left):
                    return
            time.sleep(TICK / 200)

    def end(self, why: Exception) -> None:
        """From now on who waits for what does not come gets ``why``; of several the first."""
        with self._came:
            self._why = self._why or why
            self._came.notify_all()

    # -- who expects --------------------------------------------------------------------------------------------

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> Any:
        """As pexpect has it: what came, TIMEOUT, EOF, or why the guest is no more."""
        with self._came:
            if not self._came.wait_for(lambda: self._waiting or self._over or self._why, _finite(timeout)):
                raise TIMEOUT("nothing came")
            if not self._waiting:
                if self._why is not None:
                    raise self._why
                self.flag_eof = True
                raise EOF("the line has ended")
            data = bytes(self._waiting[:size])
            del self._waiting[:size]
        text = self._decoder.decode(data, final=False)
        self._log(text, "read")
        return text

    def wait_over(self, seconds: float) -> bool:
        """Whether the line ends within that time."""
        with self._came:
            return bool(self._came.wait_for(lambda: self._over, _finite(seconds)))

    def send(self, data: Any) -> int:
        """Bytes, or text as its bytes."""
        sent = data.encode() if isinstance(data, str) else data
        try:
            self._out.sendall(sent)
        except OSError as error:
            raise self._why or EOF("the line has ended") from error
        return len(sent)

    def sendline(self, line: str = "") -> int:
        return self.send(f"{line}\n")

    def close(self) -> None:
        self._socket.close()
        self._out.close()


def _finite(seconds: float | None) -> float | None:
    """As a lock has it."""
    return None if seconds is None or seconds > threading.TIMEOUT_MAX else seconds
