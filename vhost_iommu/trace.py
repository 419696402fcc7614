# SPDX-License-Identifier: Apache-2.0
"""The trace: a watcher that writes a line, or a Chrome event, for each thing that it is told of.

Law: all that is text about what a model did is made here. Whatever happens to the process or the disk, the file holds
whole records only; where it ends too early, by its limit or a full disk, its last record says so.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from .layout import Layout
from .watch import (
    ALL,
    Accessed,
    Commanded,
    Dropped,
    Fetched,
    Filled,
    Gap,
    Interrupted,
    Kind,
    Moved,
    Noted,
    Reported,
    Served,
    Snapshot,
    Stalled,
    Translated,
    Used,
    Watch,
    Watcher,
    deliver,
)

log = logging.getLogger("vhost_iommu.trace")

#: What a record may be about, and what a watcher must want for it.
KINDS = {
    "mmio": Kind.ACCESSED,
    "command": Kind.COMMAND,
    "structure": Kind.FETCHED,
    "fill": Kind.FILLED,
    "use": Kind.USED,
    "drop": Kind.DROPPED,
    "translation": Kind.TRANSLATED,
    "fault": Kind.REPORTED | Kind.MOVED | Kind.STALLED,
    "interrupt": Kind.INTERRUPTED,
    "dma": Kind.MOVED,
    "request": Kind.SERVED,
}

#: Bytes on disk after which a trace stops.
LIMIT = 256 << 20
_BUFFER = 64 << 10  #: bytes that are gathered before they are written
_FLUSH_US = 250_000.0  #: and the age at which they are written anyway
#: Seconds that the end of a trace waits for whoever takes it, where nothing is taken.
PATIENCE = 5.0
_STUCK = "nothing more was taken"
_RESERVE = 1 << 10  #: room kept for the last record and the closing bracket


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened on ``track`` (an SMMU's or a master's name), ``time`` µs after the trace began."""

    time: float
    track: str
    kind: str
    name: str
    args: Mapping[str, float | str] = field(default_factory=dict)
    duration: float | None = None


class Format(Protocol):
    """How records become bytes; an instance is one file's state."""

    def begin(self) -> bytes: ...

    def record(self, record: Record) -> bytes: ...

    def end(self) -> bytes: ...


def _shown(value: float | str) -> str:
    """Integers in hex; text as it is, quoted when it would not be one word."""
    if not isinstance(value, str):
        return hex(value) if isinstance(value, int) else str(value)
    return value if value and value.isprintable() and not set(value) & set(' ="') else json.dumps(value)


class Text:
    """Lines that grep well: ``  12.345678 smmu0 command CMD_TLBI_NH_ASID VMID=0x0 ASID=0x1``."""

    def begin(self) -> bytes:
        return b""

    def record(self, record: Record) -> bytes:
        words = [f"{record.time / 1e6:12.6f}", record.track, record.kind, record.name]
        words += [f"{key}={_shown(value)}" for key, value in record.args.items()]
        if record.duration is not None:
            words.append(f"took={record.duration:.1f}us")
        return (" ".join(words) + "\n").encode()

    def end(self) -> bytes:
        return b""


class Chrome:
    """Chrome's JSON array, which ui.perfetto.dev opens: one thread for each track.

    The separator stands before each event, so a file that was cut off lacks nothing but its closing bracket,
    which readers of this format do without.
    """

    def __init__(self) -> None:
        self._threads: dict[str, int] = {}

    def begin(self) -> bytes:
        name = {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "vhost-iommu"}}
        return b"[\n" + self._event(name)

    def record(self, record: Record) -> bytes:
        out = []
        thread = self._threads.get(record.track)
        if thread is None:
            thread = self._threads[record.track] = len(self._threads) + 1
            place = {"ph": "M", "pid": 1, "tid": thread}
            out.append({**place, "name": "thread_name", "args": {"name": record.track}})
            out.append({**place, "name": "thread_sort_index", "args": {"sort_index": thread}})
        event: dict[str, Any] = {"name": record.name, "cat": record.kind, "pid": 1, "tid": thread}
        if record.duration is None:
            event |= {"ph": "i", "s": "t", "ts": round(record.time, 3)}
        else:
            # A record is made when its work is done; a slice is placed where the work began.
            event |= {"ph": "X", "ts": round(record.time - record.duration, 3), "dur": round(record.duration, 3)}
        event["args"] = {key: hex(value) if isinstance(value, int) else value for key, value in record.args.items()}
        out.append(event)
        return b"".join(b",\n" + self._event(event) for event in out)

    def end(self) -> bytes:
        return b"\n]\n"

    @staticmethod
    def _event(event: Mapping[str, Any]) -> bytes:
        return json.dumps(event, separators=(",", ":")).encode()


class Trace(Watcher):
    """Writes what it is told. Use as a context manager, or call ``close``."""

    #: Uses are as many as pages, and translations say the same.
    wants = ALL & ~Kind.USED

    def __init__(
        self,
        sink: Callable[[Record], None],
        close: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` returns seconds."""
        self._sink, self._close, self._clock = sink, close, clock
        self._began = clock()
        self._writer: _Writer | None = None
        self._only: frozenset[str] | None = None
        self._watches: list[Watch] = []
        self._records: list[Record] = []

    @classmethod
    def file(cls, path: str | Path, limit: int = LIMIT, clock: Callable[[], float] = time.monotonic) -> Self:
        """Write to ``path``, at most ``limit`` bytes: Chrome's JSON when it ends in ``.json``, else text lines.

        OSError when the file cannot be written.
        """
        writer = _Writer(Path(path), Chrome() if Path(path).suffix == ".json" else Text(), limit)
        trace = cls(writer.write, writer.close, clock)
        trace._writer = writer
        return trace

    @classmethod
    def memory(cls) -> Self:
        """Collect in ``records``, for tests to assert on."""
        records: list[Record] = []
        trace = cls(records.append)
        trace._records = records
        return trace

    @property
    def records(self) -> list[Record]:
        """What ``memory()`` collected."""
        deliver(self._watches)
        return self._records

    def only(self, kinds: Iterable[str]) -> None:
        """Write records of these KINDS alone; before it is attached."""
        self._only = frozenset(kinds)
        self.wants = Kind.NOTED
        for kind in self._only:
            self.wants |= KINDS[kind]

    def joined(self, watch: Watch) -> None:
        self._watches.append(watch)

    def emit(self, track: str, kind: str, name: str, /, **args: float | str) -> None:
        """Report ``name``, in the specification's spelling, with its fields: integers and text.

        ``duration``, if among them, is in µs and ends now.
        """
        time = (self._clock() - self._began) * 1e6
        duration = args.pop("duration", None)
        self._sink(Record(time, track, kind, name, args, None if duration is None else float(duration)))

    def close(self) -> None:
        """Write what is left; later records are dropped. May be called twice."""
        deliver(self._watches)
        self._close()

    # -- what it is told ---------------------------------------------------------------------------------------

    def _write(self, it: Told, kind: str, name: str, /, **args: float | str) -> None:
        self._at(it, kind, name, None, args)

    def _at(self, it: Told, kind: str, name: str, duration: float | None, args: Mapping[str, float | str]) -> None:
        if self._only is None or kind in self._only:
            # What joined the trace late may have begun before it.
            self._sink(Record(max(it.time / 1e3 - self._began * 1e6, 0.0), it.who, kind, name, args, duration))

    def accessed(self, it: Accessed) -> None:
        what = "write" if it.write else "read"
        self._write(it, "mmio", f"{what} {it.register}", offset=it.offset, size=it.size, value=it.value)

    def command(self, it: Commanded) -> None:
        shown = _fields(it.command, "OPCODE")
        self._write(it, "command", type(it.command).__name__, **shown, result=it.error)

    def fetched(self, it: Fetched) -> None:
        self._write(it, "structure", type(it.structure).__name__, **_stream(it.sid, it.ssid), pa=it.pa)

    def filled(self, it: Filled) -> None:
        space: dict[str, int] = {"world": it.world, "vmid": it.vmid}
        space |= {"aset": it.aset} if it.asid is None else {"asid": it.asid}
        self._write(
            it, "fill", f"stage {it.stage}", **({} if it.sid is None else _stream(it.sid, it.ssid)), **space,
            base=it.base, size=1 << it.shift, output=it.output, level=it.level, descriptor=it.descriptor,
            at=it.descriptor_at,
        )  # fmt: skip

    def used(self, it: Used) -> None:
        name = "write" if it.write else "read"
        self._write(it, "use", name, **_stream(it.sid, it.ssid), iova=it.iova, size=it.size, pa=it.pa)

    def dropped(self, it: Dropped) -> None:
        scope = {name: "any" if value is None else value for name, value in it.scope.items()}
        self._write(it, "drop", it.what, entries=it.entries, **scope)

    def translated(self, it: Translated) -> None:
        where = {} if it.pa is None else {"pa": it.pa}
        if it.partid or it.pmg:
            where |= {"partid": it.partid, "pmg": it.pmg}
        what = {**_stream(it.sid, it.ssid), "iova": it.iova, "size": it.size, **where}
        self._write(it, "translation", "write" if it.write else "read", **what, outcome=it.outcome)

    def reported(self, it: Reported) -> None:
        shown = _fields(it.record, "TYPE") if _is_event(it.record) else {"value": it.record.raw}
        self._write(it, "fault", type(it.record).__name__, **shown)

    def interrupted(self, it: Interrupted) -> None:
        if it.address is None:
            data = {} if it.data is None else {"intid": it.data}
            self._write(it, "interrupt", f"wire {it.source}".rstrip(), **data)
        else:
            self._write(it, "interrupt", f"MSI {it.source}", address=it.address, data=it.data or 0)

    def moved(self, it: Moved) -> None:
        name = "write" if it.write else "read"
        if it.why is None:
            self._write(it, "dma", name, iova=it.iova, size=it.size)
        else:
            self._write(it, "fault", name, iova=it.iova + it.done, done=it.done, why=it.why)

    def stalled(self, it: Stalled) -> None:
        name = "stall ended" if it.ended else f"{'write' if it.write else 'read'} stalled"
        tag = {} if it.stag is None else {"STAG": it.stag}
        self._write(it, "fault", name, **tag, sid=it.sid, iova=it.iova, size=it.size)

    def served(self, it: Served) -> None:
        self._at(it, "request", it.request, it.duration / 1e3 or None, {**it.fields, "status": it.status})

    def noted(self, it: Noted) -> None:
        self._write(it, it.topic, it.name, **it.fields)

    def gap(self, it: Gap) -> None:
        lost = {kind.name or "?": count for kind, count in it.lost.items()}
        self._sink(Record(it.time / 1e3 - self._began * 1e6, it.who, "trace", "GAP", {"first": it.first, **lost}))

    def snapshot(self, it: Snapshot) -> None:
        """Of an instance that is at work already; of one that is new there is nothing to tell."""
        if it.entries or it.contexts:
            self._write(it, "mmio", "snapshot", **it.registers)
        for entry in it.entries:
            self.filled(entry)

    @property
    def incomplete(self) -> str | None:
        """Why later records were lost, if they were."""
        return None if self._writer is None else self._writer.ended

    def written_by(self, wake: Callable[[], None]) -> None:
        """From now on whoever ``wake`` wakes calls ``flush``, so that nobody who reports waits for a disk."""
        if self._writer is not None:
            self._writer.wake = wake

    def flush(self) -> bool:
        """Write what was reported until now; from any thread. Whether there is more: never."""
        if self._writer is not None:
            self._writer.flush()
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Told(Protocol):
    """What all values have."""

    @property
    def time(self) -> int: ...

    @property
    def who(self) -> str: ...


def _fields(record: Layout, number: str) -> dict[str, int]:
    """All but the field that says what it is."""
    return {name: value for name, value in record.values().items() if name != number}


def _is_event(record: Layout) -> bool:
    return any(field.name == "TYPE" for field in record.fields)


def _stream(sid: int, ssid: int | None) -> dict[str, int]:
    return {"sid": sid} if ssid is None else {"sid": sid, "ssid": ssid}


class _Writer:
    """Whole records to a file, each in one write, up to a limit; as many wait in memory for a disk that is slow."""

    def __init__(self, path: Path, format: Format, limit: int) -> None:
        self._path, self._format, self._limit = path, format, limit
        #: Called when there is something to flush; None: it is flushed at once.
        self.wake: Callable[[], None] | None = None
        #: Why records are lost from here on.
        self.ended: str | None = None
        self._lock = threading.Lock()  # held for moments; guards all that follows
        self._pending = [format.begin()]
        self._size = self._pending_size = len(self._pending[0])
        #: Where records end in the file, back to one before which there is room for a last record instead.
        self._ends = deque([self._size])
        #: Times of the latest record, and of when what there was was last written.
        self._now = self._flushed = 0.0
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

    def write(self, record: Record) -> None:
        with self._lock:
            if self.ended is not None or self._closed:
                return
            self._now = max(self._now, record.time)
            line = self._format.record(record)
            full = self._size + len(line) + _RESERVE > self._limit
            if full:
                self._end(f"its limit of {self._limit} bytes is reached")
                line = self._last("LIMIT_REACHED", f"{self._limit} bytes")
            self._pending.append(line)
            self._pending_size += len(line)
            self._size += len(line)
            self._ends.append(self._size)
            due = full or self._pending_size >= _BUFFER or record.time - self._flushed >= _FLUSH_US
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
                self._pending.append(self._format.end())
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
            ends = [self._last("WRITE_FAILED", why) + self._format.end(), self._format.end()]
        for end in ends:
            # A pipe cannot be cut, and a broken disk may take nothing at all.
            with suppress(OSError):
                os.ftruncate(self._fd, at)
                os.lseek(self._fd, at, os.SEEK_SET)
                self._put(end)
                return

    def _last(self, name: str, why: str) -> bytes:
        return self._format.record(Record(self._now, "trace", "trace", name, {"why": why, "lost": "all that follows"}))

    def _end(self, why: str) -> None:
        if self.ended is None:
            self.ended = why
            log.error("%s: the trace ends here: %s", self._path, why)


def load_chrome(text: str) -> list[dict[str, Any]]:
    """The events of a Chrome JSON trace, also of one that was cut off anywhere."""
    with suppress(ValueError):
        whole: list[dict[str, Any]] = json.loads(text)
        return whole
    return list(_whole_events(text))


def _whole_events(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        line = line.rstrip(",")
        if line.startswith("{"):
            with suppress(ValueError):
                yield json.loads(line)
