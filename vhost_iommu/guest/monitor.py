# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor (QMP), over a socket that it was started with: why it ended, and commands while it runs.

Law: bounded in time and bytes, whatever QEMU does; what it does not say is None, never an exception.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

#: Bytes of all that QEMU may say in one run: some hundred events.
LIMIT = 1 << 20


class Monitor:
    """Our end of the socket; takes ownership of it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._said = b""
        self._shutdown: str | None = None
        self._answered, self._answer = "", None  # type: str, object
        # QEMU reads this when it comes to it.
        self._send("qmp_capabilities")

    def start(self) -> None:
        """Have a guest that waits (-S) begin, once QEMU tells us all that comes of it."""
        self._send("cont")

    def execute(self, command: str, seconds: float, **arguments: object) -> bool:
        """Whether QEMU has carried out ``command``, within ``seconds``."""
        return self.ask(command, seconds, **arguments) is not None

    def ask(self, command: str, seconds: float, **arguments: object) -> object:
        """What QEMU answers to ``command`` within ``seconds``; None: nothing, or that it cannot."""
        self._answered, self._answer = "", None
        if self._send(command, **arguments) and self._read(seconds, command):
            return self._answer
        return None

    def debugged(self, chardev: str, seconds: float) -> bool:
        """Whether QEMU has, within ``seconds``, its gdb stub speak at that character device, and stopped the guest."""
        return self.execute("human-monitor-command", seconds, **{"command-line": f"gdbserver chardev:{chardev}"})

    def shutdown(self, seconds: float) -> str:
        """Why QEMU says that it ended ("guest-shutdown", "guest-reset"), read to the end of it; "": it did not."""
        self._read(seconds)
        return self._shutdown or ""

    def close(self) -> None:
        self._socket.close()

    def _send(self, command: str, **arguments: object) -> bool:
        line = json.dumps({"execute": command, "arguments": arguments, "id": command}) + "\n"
        with suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(line.encode())
            return True
        return False

    def _read(self, seconds: float, answer: str | None = None) -> bool:
        """Read until the answer to a command has come; or, without one, to the end."""
        until, left = time.monotonic() + seconds, LIMIT
        while left > 0 and (wait := until - time.monotonic()) > 0:
            try:
                self._socket.settimeout(wait)
                data = self._socket.recv(1 << 16)
            except OSError:
                return False
            if not data:
                return False
            left -= len(data)
            *lines, self._said = (self._said + data).split(b"\n")
            for line in lines:
                self._line(line)
            if answer is not None and self._answered == answer:
                return True
        return False

    def _line(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        if said.get("event") == "SHUTDOWN":
            data = said.get("data")
            self._shutdown = str(data.get("reason", "")) if isinstance(data, dict) else ""
        if "id" in said:
            self._answered, self._answer = said["id"], said.get("return")
