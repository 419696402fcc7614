# SPDX-License-Identifier: Apache-2.0
"""A trace's file: whole records, each in one write, up to a limit; as many wait in memory for a disk that is slow.

Law: whatever happens to the process or the disk, the file holds whole records only; where it ends too early, by its
limit or a full disk, its last record says so.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .form import Form

log = logging.getLogger("vhost_iommu.trace")

_BUFFER = 64 << 10  #: bytes that are gathered before they are written
_FLUSH = 250_000_000  #: and the age in nanoseconds at which they are written anyway
#: Seconds that the end of a trace waits for whoever takes it, where nothing is taken.
PATIENCE = 5.0
_STUCK = "nothing more was taken"
_RESERVE = 1 << 10  #: room kept for the last record and the closing bracket


class Writer:
    """Whole records to a file, each in one write, up to a limit; as many wait in memory for a disk that is slow."""

    def __init__(self, path: Path, form: Form, limit: int, now: int) -> None:
        """``now``: as ``write`` takes it. OSError: the file cannot be written."""
        self._path, self._form, self._limit = path, form, limit
        #: Called when there is something to flush; None: it is flushed at once.
        self.wake: Callable[[], None] | None = None
        #: Why records are lost from here on, and whether a last record says so.
        self.ended: str | None = None
        self.last_says = False
        self._lock = threading.Lock()  # held for moments; guards all that follows
        self._pending = [form.begin()]
        self._size = self._pending_size = len(self._pending[0])
        #: Where records end in the file, back to one before which there is room for a last record instead.
        self._ends = deque([self._size])
        #: When the latest record came, and when what there was was last written.
        self._now = self._flushed = now
        self._closed = self._cut_off = False
        self._io = threading.Lock()  # held while the file is written, and taken before the other
        self._written = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
            if regular:  # where not even a last record fits, nothing is begun
                os.posix_fallocate(self._fd, 0, self._size + _RESERVE)
            self._put(self._taken())
            if regular:
                os.ftruncate(self._fd, self._written)
        except OSError:
            os.close(self._fd)
            raise

    def write(self, records: bytes, now: int) -> None:
        """``now``: nanoseconds of any clock."""
        with self._lock:
            if self.ended is not None or self._closed:
                return
            self._now = max(self._now, now)
            full = self._size + len(records) + _RESERVE > self._limit
            if full:
                self._end(f"its limit of {self._limit} bytes is reached")
                records = self._form.last("LIMIT_REACHED", f"{self._limit} bytes")
                self.last_says = True
            self._pending.append(records)
            self._pending_size += len(records)
            self._size += len(records)
            self._ends.append(self._size)
            due = full or self._pending_size >= _BUFFER or self._now - self._flushed >= _FLUSH
        if due:
            (self.flush if self.wake is None else self.wake)()

    def flush(self) -> None:
        with self._io:
            self._flush()

    def _flush(self) -> None:
        # A full disk ends the trace, not the machine that is traced.
        try:
            self._put(self._taken())
        except OSError as error:
            self._cut(error.strerror or str(error))
            return
        with self._lock:
            while len(self._ends) > 1 and self._ends[1] + _RESERVE <= self._written:
                self._ends.popleft()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._cut_off:
                self._pending.append(self._form.end())
        if not self._io.acquire(timeout=PATIENCE):  # and who writes goes on for good, or ends with the process
            self._end(_STUCK)
            return
        try:
            self._flush()
            os.close(self._fd)
        except OSError as error:  # a file system of the network may tell only now
            self._end(error.strerror or str(error))
        finally:
            self._io.release()

    def _taken(self) -> bytes:
        """What waits to be written."""
        with self._lock:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_size, self._flushed = 0, self._now
        return data

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            most = len(left)
            if self._closed:  # the process is about to end, and whoever stopped to read a pipe keeps it for moments
                most = select.PIPE_BUF
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                if not poll.poll(PATIENCE * 1000):
                    raise OSError(errno.ETIMEDOUT, _STUCK)
            done = os.write(self._fd, left[:most])
            self._written += done
            left = left[done:]

    def _cut(self, why: str) -> None:
        """Put a last record in the place of what could not be written, and of as much before it as it takes."""
        with self._lock:
            self._end(why)
            self._cut_off = True
            self._pending.clear()
            at = self._ends.popleft()
            while self._ends and self._ends[0] + _RESERVE <= self._written:
                at = self._ends.popleft()
            self.last_says = False
            ends = {self._form.last("WRITE_FAILED", why) + self._form.end(): True, self._form.end(): False}
        for end, says in ends.items():
            # A pipe cannot be cut, and a broken disk may take nothing at all.
            with suppress(OSError):
                os.ftruncate(self._fd, at)
                os.lseek(self._fd, at, os.SEEK_SET)
                self._put(end)
                self.last_says = says
                return

    def _end(self, why: str) -> None:
        if self.ended is None:
            self.ended = why
            log.error("%s: the trace ends here: %s", self._path, why)
