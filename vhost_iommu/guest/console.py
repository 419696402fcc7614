# SPDX-License-Identifier: Apache-2.0
"""A guest's serial console: read line by line until the guest succeeds, fails, dies, or its time is over.

Law: it never sleeps; whatever comes is in the log before it is judged; a guest that is silent or gone has not
succeeded.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, TextIO

import pexpect.fdpexpect

from vhost_iommu.terminal import plain

#: What a guest says when it cannot go on.
DEATHS = (
    r"Kernel panic - not syncing",
    r"Internal error: ",
    r"Unable to handle kernel ",
    r"\bBUG: ",
    r"kernel BUG at ",
    r"[Ss]ynchronous [Ee]xternal [Aa]bort",
    r"Bad mode in ",
    r"vt: unexpected exception",
)
#: Seconds that a dying guest has to say the rest.
LAST_WORDS = 5.0
#: Characters that a guest may say: one that fills the host's disk is not well.
LIMIT = 32 << 20
#: Seconds between two looks at what else may have failed.
TICK = 0.5
#: What was found of Console._line: a line, the end, or no more in a TICK.
_LINE, _END, _NOTHING = range(3)


class End(Enum):
    """How a console's story ended."""

    CLOSED = "the guest ended"
    DIED = "the guest died"
    TIMEOUT = "the guest's time is over"
    STOPPED = "the host ended it"
    FLOOD = "the guest said too much"
    SUCCESS = "the guest said that it has passed"
    FAILURE = "the guest said that it has failed"
    INTERRUPTED = "it was ended by hand"


class Console:
    """Reads one end of a socket whose other end is the guest's serial port; takes ownership of it."""

    def __init__(self, connected: socket.socket, log: TextIO, deaths: Sequence[str] = DEATHS) -> None:
        self._socket = connected
        self._spawn: Any = pexpect.fdpexpect.fdspawn(
            connected.fileno(), encoding="utf-8", codec_errors="replace", maxread=1 << 16, use_poll=True
        )
        self._spawn.logfile_read = log
        self._line = self._spawn.compile_pattern_list([r"[^\n]*\n|[^\n]{4096}", pexpect.EOF, pexpect.TIMEOUT])
        self._deaths = re.compile("|".join(deaths))
        #: The line that told of the guest's death.
        self.death: str | None = None

    def send(self, line: str) -> None:
        """Type ``line`` and Enter."""
        self._spawn.sendline(line)

    def lines(
        self,
        deadline: float,
        stopped: Callable[[], bool] = lambda: False,
        awaited: Callable[[str], End | None] = lambda line: None,
    ) -> Iterator[str | End]:
        """Each line as it comes, at last an End. ``deadline`` is of time.monotonic(); ``stopped`` is asked often.

        ``awaited`` says whether a line is the end, and how; it is asked of a prompt too, a line that is not ended.
        """
        said = 0
        while said < LIMIT:
            left = deadline - time.monotonic()
            if left <= 0:
                if rest := _clean(self._spawn.buffer):
                    yield rest
                yield End.DIED if self.death else End.TIMEOUT
                return
            if stopped():
                yield End.STOPPED
                return
            found = self._spawn.expect_list(self._line, timeout=min(left, TICK))
            line = _clean(self._spawn.after if found == _LINE else self._spawn.before or "")
            end = awaited(line)
            if found == _NOTHING and end is None:
                continue
            said += len(line) + 1
            if end is None and self._judge(line):
                deadline = min(deadline, time.monotonic() + LAST_WORDS)
            if end is None and found == _END:
                end = End.DIED if self.death else End.CLOSED
            if line or found == _LINE:
                yield line
            if end is not None:
                yield end
                return
        yield End.FLOOD

    def _judge(self, line: str) -> bool:
        if self.death is None and not line.lstrip().startswith("#") and self._deaths.search(line):
            self.death = line
            return True
        return False

    def close(self) -> None:
        self._socket.close()


def _clean(line: str) -> str:
    return plain(line.strip("\r\n")).rstrip("\r\n")
