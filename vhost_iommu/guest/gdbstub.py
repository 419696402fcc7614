# SPDX-License-Identifier: Apache-2.0
"""A client of QEMU's gdb stub: registers of each CPU, by name, and memory as that CPU sees it.

Law: bounded in time and bytes, whatever the other end does: ``StubError`` is all that comes of it. It only looks; the
guest's state is left as it is. The protocol is the GDB manual's appendix on remote serial.
"""

from __future__ import annotations

import re
import socket
import time

#: Bytes of one packet, and of all descriptions of registers.
_PACKET, _DESCRIPTION = 1 << 18, 4 << 20
_INCLUDE = re.compile(r'<xi:include href="([\w.-]+)"')
_REGISTER = re.compile(r"<reg\s([^>]*)>")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


class StubError(Exception):
    """The stub did not answer in time, or not as the protocol has it."""


class Stub:
    """One conversation, which is over at ``deadline`` (of time.monotonic()). The socket stays the caller's."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline
        self._said = b""
        self._numbers: dict[str, int] | None = None

    # -- what can be asked ---------------------------------------------------------------------------------------

    def threads(self) -> list[str]:
        """An identifier for each CPU, in order."""
        self._ask("qSupported:multiprocess+;xmlRegisters=aarch64")
        found: list[str] = []
        said = self._ask("qfThreadInfo")
        while said.startswith("m") and len(found) < 1024:
            found += said[1:].split(",")
            said = self._ask("qsThreadInfo")
        return found

    def select(self, thread: str) -> None:
        """What is asked from here on is of that CPU."""
        if self._ask(f"Hg{thread}") != "OK":
            raise StubError(f"there is no thread {thread}")

    def registers(self, *names: str) -> dict[str, int]:
        """Those of ``names`` that the CPU has."""
        found = {}
        for name in names:
            number = self._register_numbers().get(name)
            said = "" if number is None else self._ask(f"p{number:x}")
            data = _bytes(said)
            if data:
                found[name] = int.from_bytes(data, "little")
        return found

    def memory(self, address: int, size: int) -> bytes | None:
        """What is at a virtual address of the CPU; None: nothing that can be read."""
        data = _bytes(self._ask(f"m{address & (1 << 64) - 1:x},{size:x}"))
        return data if len(data) == size else None

    # -- the description of registers ----------------------------------------------------------------------------

    def _register_numbers(self) -> dict[str, int]:
        """By name. A register without a number follows the one before it."""
        if self._numbers is None:
            self._numbers, number = {}, 0
            for text in self._descriptions():
                for match in _REGISTER.finditer(text):
                    attributes = dict(_ATTRIBUTE.findall(match[1]))
                    number = int(attributes["regnum"]) if "regnum" in attributes else number
                    self._numbers[attributes.get("name", "")] = number
                    number += 1
        return self._numbers

    def _descriptions(self) -> list[str]:
        target = self._transfer("target.xml")
        return [target, *(self._transfer(name) for name in _INCLUDE.findall(target)[:32])]

    def _transfer(self, name: str) -> str:
        text = ""
        while len(text) < _DESCRIPTION:
            said = self._ask(f"qXfer:features:read:{name}:{len(text):x},{0x8000:x}")
            text += said[1:]
            if said[:1] == "l":
                return text
            if said[:1] != "m" or len(said) == 1:
                break
        raise StubError(f"{name} cannot be read")

    # -- packets ---------------------------------------------------------------------------------------------------

    def _ask(self, question: str) -> str:
        packet = f"${question}#{sum(question.encode()) & 0xFF:02x}".encode()
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(packet)
            answer = self._packet()
            self._socket.sendall(b"+")
        except OSError as why:
            raise StubError(f"QEMU's gdb stub does not answer ({why})") from why
        return answer

    def _packet(self) -> str:
        """The next packet, unescaped."""
        while True:
            match = re.search(rb"\$([^#]*)#([0-9a-f]{2})", self._said)
            if match is not None:
                self._said = self._said[match.end() :]
                if sum(match[1]) & 0xFF != int(match[2], 16):
                    raise StubError("a packet of QEMU's gdb stub is damaged")
                return _unescaped(match[1])
            if len(self._said) > _PACKET:
                raise StubError("QEMU's gdb stub says too much")
            self._socket.settimeout(self._left())
            data = self._socket.recv(1 << 16)
            if not data:
                raise StubError("QEMU's gdb stub is gone")
            self._said += data

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise StubError("QEMU's gdb stub does not answer in time")
        return left


def _unescaped(data: bytes) -> str:
    """``}`` escapes the byte after it, ``*`` repeats the one before it."""

    def plain(match: re.Match[bytes]) -> bytes:
        return bytes([match[1][0] ^ 0x20]) if match[1] else match[2] * (match[3][0] - 28)

    return re.sub(rb"}(.)|([^}])\*(.)", plain, data, flags=re.DOTALL).decode("latin-1")


def _bytes(text: str) -> bytes:
    """Bytes in hexadecimal; none where it is an error, empty, or says that the value is not known."""
    return bytes.fromhex(text) if re.fullmatch(r"(?:[0-9a-f]{2})+", text) else b""
