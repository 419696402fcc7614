# SPDX-License-Identifier: Apache-2.0
"""The host's side of the serial line on which a live guest does what it is asked; guest/linux/init has the other.

Law: one request at a time. What is not the answer to it, such as what a command left running says, is passed over.
"""

from __future__ import annotations

import gzip
import re
import secrets
import shlex
import time
from collections.abc import Callable

from pexpect import TIMEOUT

from vhost_iommu.guest.line import Line

#: Seconds that a guest has for what takes it none, busy as the host may be.
PATIENCE = 60.0
#: Seconds that are as good as no limit.
FOREVER = 10**9
READY = b"vt-agent ready\n"


class NoAnswerError(Exception):
    """The guest did not answer in time; ``said`` is what it said until then."""

    def __init__(self, said: bytes = b"") -> None:
        super().__init__("the guest does not answer")
        self.said = said


class Agent:
    """Asks on ``line``, which holds bytes."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def wait_ready(self, seconds: float) -> None:
        """Until the guest can be asked."""
        self._expect(re.escape(READY), seconds)

    def run(
        self, command: str, seconds: float, on_output: Callable[[bytes], None] = lambda data: None
    ) -> tuple[bytes, int]:
        """What ``command``, for the guest's shell, says, and its exit status; NoAnswerError: its time was over.

        ``on_output`` is called with what it says as it comes.
        """
        data = command.encode() + b"\n"
        nonce = self._ask("run", data, str(max(1, round(min(seconds, FOREVER)))))
        return self._answer(nonce, seconds + PATIENCE, on_output)

    def put(self, data: bytes, path: str, seconds: float) -> tuple[bytes, int]:
        """Make a file of the guest's; why not, if its exit status is not 0. It goes packed, as the line is slow."""
        data = gzip.compress(data, mtime=0)
        nonce = self._ask("put", b"", path, len(data))
        at, until = 0, time.monotonic() + seconds
        end = rb"\n%s end (\d+)\n" % nonce
        while self._expect(rb"more (\d+)\n|" + end, until - time.monotonic()) and self._line.match[1] is not None:
            size = int(self._line.match[1])
            self._line.send(data[at : at + size])
            at += size
        return self._line.before, int(self._line.match[2])

    def get(self, path: str, seconds: float) -> tuple[bytes, int]:
        """The bytes of a file of the guest's, or why not and another exit status than 0. It comes packed."""
        data, status = self.run(f"gzip -1 -c <{shlex.quote(path)}", seconds)
        return (data if status else gzip.decompress(data)), status

    # -- inside --------------------------------------------------------------------------------------------------

    def _ask(self, verb: str, data: bytes, rest: str, size: int | None = None) -> bytes:
        nonce = secrets.token_hex(8)
        # The first new line ends whatever was left of a request that nobody took.
        line = f"\n{nonce} {verb} {len(data) if size is None else size} {rest}\n"
        self._line.send(line.encode() + data)
        self._expect(rb"%s begin\n" % nonce.encode(), PATIENCE)
        return nonce.encode()

    def _answer(self, nonce: bytes, seconds: float, on_output: Callable[[bytes], None]) -> tuple[bytes, int]:
        end = re.compile(rb"\n%s end (\d+)\n" % nonce)
        room, until = len(nonce) + 12, time.monotonic() + seconds
        said, told = bytearray(self._line.buffer), 0
        self._line.buffer = b""
        while (match := end.search(said, max(0, told - room))) is None:
            if (left := until - time.monotonic()) <= 0:
                raise NoAnswerError(bytes(said))
            # What may be the begin of the end is not told yet.
            if len(said) - room > told:
                on_output(bytes(said[told : len(said) - room]))
                told = len(said) - room
            try:
                said += self._line.read_nonblocking(1 << 16, left)
            except TIMEOUT:
                continue
        if match.start() > told:
            on_output(bytes(said[told : match.start()]))
        self._line.buffer = bytes(said[match.end() :])
        return bytes(said[: match.start()]), int(match[1])

    def _expect(self, pattern: bytes, seconds: float) -> bool:
        try:
            self._line.expect(pattern, timeout=max(0.0, seconds))
        except TIMEOUT:
            raise NoAnswerError(self._line.before or b"") from None
        return True
