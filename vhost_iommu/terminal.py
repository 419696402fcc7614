# SPDX-License-Identifier: Apache-2.0
"""What a terminal gets beyond plain text: colour, and a progress line that is rewritten in place.

Law: a file or a pipe gets neither; NO_COLOR turns colour off. What else is written, the log by any thread included,
clears the progress line first. What others say reaches no terminal before it is ``plain``.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

_CODES = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}
#: Sequences with which a program speaks to a terminal: CSI, strings (OSC, DCS and such) that end, others.
_SEQUENCES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*[0-~]|[\x1b\0]"
)
_ODD = re.compile(r"[^\t -~]")


def plain(text: str) -> str:
    """``text`` of a guest or a stranger, in one line, without what moves a cursor, colours or renames a terminal.

    Whole sequences are left out, as are NULs; other characters that cannot be printed, but tabs, are spelled.
    """
    return _ODD.sub(_spelled, _SEQUENCES.sub("", text))


def _spelled(odd: re.Match[str]) -> str:
    return odd[0] if odd[0].isprintable() else odd[0].encode("unicode_escape").decode()


def filled(text: str) -> str:
    """A paragraph, as wide as a terminal that is not too wide to be read."""
    width = min(shutil.get_terminal_size().columns, 120) - 1
    return textwrap.fill(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """``text`` in ``colour`` where ``stream`` (standard output) shows colour."""
    stream = sys.stdout if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


class Progress:
    """Tells what goes on: one line that changes on a terminal, a line for each step elsewhere."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._clock = clock
        self._began = clock()
        self._shown = ""
        #: Held while something is written, so that no other thread's line ends up in it.
        self.lock = threading.RLock()

    def say(self, text: str) -> None:
        """Show ``text``; the same text twice in a row is shown once."""
        with self.lock:
            if text == self._shown:
                return
            self._shown = text
            seconds = self._clock() - self._began
            if self._live:
                room = shutil.get_terminal_size().columns - 1
                self._write(f"\r\x1b[K{f'{seconds:5.0f} s  {plain(text)}'.expandtabs()[:room]}")
            else:
                self._write(f"{seconds:5.0f} s  {text}\n")

    def live(self, text: str) -> None:
        """Show ``text`` where it will be replaced; elsewhere it is not worth a line."""
        if self._live:
            self.say(text)

    def clear(self) -> None:
        """Make room for other output."""
        with self.lock:
            if self._live and self._shown:
                self._write("\r\x1b[K")
            self._shown = ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def __enter__(self) -> Self:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LogHandler):
                handler.progress = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LogHandler) and handler.progress is self:
                handler.progress = None


class LogHandler(logging.StreamHandler[TextIO]):
    """The log on standard error, beside the progress line that is in use."""

    progress: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        progress = self.progress
        if progress is None:
            super().emit(record)
            return
        with progress.lock:
            progress.clear()
            super().emit(record)
