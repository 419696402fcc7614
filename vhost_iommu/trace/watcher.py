# SPDX-License-Identifier: Apache-2.0
"""The trace: a watcher that writes what it is told to a file, as text or for a viewer of timelines.

Law: all that is text about what a model did is made here, and to be traced changes nothing of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ..watch import Batch, Kind, Noted, Value, Watch, Watcher, deliver
from .chrome import Chrome
from .form import DEFAULT, Form
from .text import Kept, Record, Text
from .writer import Writer

#: Bytes on disk after which a trace stops.
LIMIT = 256 << 20
#: Whose the guest's own words are.
GUEST = "guest"


def form_of(path: Path) -> type[Chrome] | type[Text]:
    """What is written to a file of this name."""
    return Chrome if path.suffix == ".json" else Text


class Trace(Watcher):
    """Writes what it is told. Use as a context manager, or call ``close``."""

    wants = DEFAULT

    def __init__(self, form: Form, writer: Writer | None, clock: Callable[[], int]) -> None:
        """``clock`` returns nanoseconds, as values have them."""
        self._form, self._writer, self._clock = form, writer, clock
        self._watches: list[Watch] = []
        self._lock = threading.Lock()  # guards the form

    @classmethod
    def file(cls, path: str | Path, limit: int = LIMIT, clock: Callable[[], int] = time.monotonic_ns) -> Self:
        """Write to ``path``, at most ``limit`` bytes: Chrome's JSON when it ends in ``.json``, else text lines.

        OSError when the file cannot be written.
        """
        began = clock()
        form = form_of(Path(path))(began)
        return cls(form, Writer(Path(path), form, limit, began), clock)

    @classmethod
    def memory(cls, clock: Callable[[], int] = time.monotonic_ns) -> Self:
        """Collect in ``records``, for tests to assert on."""
        return cls(Kept(clock()), None, clock)

    @property
    def records(self) -> list[Record]:
        """What ``memory()`` collected."""
        assert isinstance(self._form, Kept), "its records are in a file"
        deliver(self._watches)
        return self._form.records

    def only(self, kinds: Iterable[str]) -> None:
        """Write records of these kinds alone, of those that its form has; before it is attached."""
        self._form.only = frozenset(kinds)
        self.wants = Kind.NOTED
        for kind in self._form.only:
            self.wants |= self._form.kinds[kind]

    def joined(self, watch: Watch) -> None:
        self._watches.append(watch)
        self._form.joined(watch)

    def batch(self, batches: Sequence[Batch]) -> None:
        if self._writer is None or self._writer.ended is None:  # else nothing is made of them
            super().batch(batches)

    def tell(self, value: Value) -> None:
        with self._lock:
            for records in self._form.tell(value):
                self._put(records, value.time)

    # -- what the guest says -------------------------------------------------------------------------------------

    def said(self, line: str) -> None:
        """The guest's console says this now; from any thread."""
        self._of_guest(self._clock(), "console", line)

    def case(self, name: str, outcome: str, begun: int, ended: int) -> None:
        """A test of the guest's has ended; times are as values have them."""
        self._of_guest(ended, "case", name, outcome=outcome, took=ended - begun)

    def _of_guest(self, now: int, topic: str, name: str, **fields: int | str) -> None:
        deliver(self._watches)  # what happened before
        self.tell(Noted(0, now, GUEST, topic, name, fields))

    # -- its file ------------------------------------------------------------------------------------------------

    def _put(self, records: bytes, now: int) -> None:
        if self._writer is not None:
            self._writer.write(records, now)

    @property
    def incomplete(self) -> str | None:
        """Why later records were lost, if they were."""
        if self._writer is None or self._writer.ended is None:
            return None
        return self._writer.ended + ("; its last record says from when on" if self._writer.last_says else "")

    def written_by(self, wake: Callable[[], None]) -> None:
        """From now on whoever ``wake`` wakes calls ``flush``, so that nobody who reports waits for a disk."""
        if self._writer is not None:
            self._writer.wake = wake

    def flush(self) -> bool:
        """Write what was reported until now; from any thread. Whether there is more: never."""
        if self._writer is not None:
            self._writer.flush()
        return False

    def close(self) -> None:
        """Write what is left; later records are dropped. May be called twice."""
        deliver(self._watches)
        if self._writer is not None:
            with self._lock:
                for records in self._form.rest():
                    self._put(records, self._clock())
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
