# SPDX-License-Identifier: Apache-2.0
"""A machine kept in one file: registers, caches, stalls, counters, and the pages of memory that its structures use.

Law: bounded, whatever a guest has made of its tables; what was left out is said. Written for this user alone, since it
holds memory of a guest; read with suspicion.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..layout import Layout
from ..smmu.inspection import MOST_RUNS, Inspection, Reader, State, Stream, Streams
from ..smmu.transaction import Transaction
from .plain import MisfitError, plain, restored
from .subject import FaultView, MasterView, Subject

#: What the first key of a dump says.
FORMAT = "vhost-iommu dump 1"
#: Pages of memory of one instance, streams, and answers about tables.
MOST_PAGES, MOST_STREAMS, MOST_TABLES = 4096, 256, 128
#: Bytes of a dump that is read, when it is unpacked.
MOST_READ = 256 << 20
PAGE = 4096


@dataclass(frozen=True, slots=True)
class Kept:
    """One instance, and what of memory it uses: (address, size) of all, and pages in base64 by their address in hex;
    one of zeros is "".
    """

    state: State
    windows: tuple[tuple[int, int], ...]
    pages: Mapping[str, str]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dump:
    """What a file holds."""

    format: str
    machine: str
    taken: str
    instances: tuple[Kept, ...]
    masters: tuple[MasterView, ...]
    faults: tuple[FaultView, ...]


class Collecting:
    """Memory that is read once, page by page, and kept."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.pages: dict[int, bytes] = {}
        self.full = False

    def read(self, pa: int, size: int) -> bytes | None:
        for page in range(pa & -PAGE, pa + size, PAGE):
            if page not in self.pages:
                data = self._reader.read(page, PAGE)
                if data is None:  # memory ends within the page, or begins there
                    return self._reader.read(pa, size)
                if len(self.pages) >= MOST_PAGES:
                    self.full = True
                    return data[pa - page : pa - page + size] if pa - page + size <= PAGE else None
                self.pages[page] = data
        return _cut(self.pages, pa, size)

    def lacks(self, pa: int) -> bool:
        return self._reader.lacks(pa)


def _cut(pages: Mapping[int, bytes], pa: int, size: int) -> bytes | None:
    """``size`` bytes out of ``pages``; None: one is missing."""
    found = [pages.get(page) for page in range(pa & -PAGE, pa + size, PAGE)]
    whole = b"".join(page for page in found if page is not None)
    offset = pa % PAGE
    return whole[offset : offset + size] if None not in found else None


def take(subject: Subject, now: str) -> Dump:
    """What is to be kept of ``subject`` as it is; ``now``: when that is."""
    return Dump(
        FORMAT,
        subject.name,
        now,
        tuple(_kept(subject, name) for name in subject.instances()),
        subject.masters(),
        subject.faults(),
    )


def _kept(subject: Subject, name: str) -> Kept:
    # Where memory is is asked first: a guest may end meanwhile, and what has gone then is missing, not unanswered.
    windows = subject.windows(name)
    state, memory = subject.state(name, caches=True), Collecting(subject.reader(name))
    inspection = subject.inspection(state, memory)
    left_out = []
    for queue in inspection.queues():
        inspection.entries(queue.name, queue.size)
    for event in inspection.reports():
        if (transaction := transaction_of(event)) is not None:
            inspection.explain(transaction)
    for stall in state.stalls:
        inspection.explain(Transaction(stall.sid, stall.iova, write=stall.write, ssid=stall.ssid))
    streams, more = _all(inspection.streams)
    if more:
        left_out.append(f"streams beyond the first {MOST_STREAMS}")
    tables = 0
    for stream in streams:
        known, _ = _all(inspection.substreams, stream.sid)
        for ssid in (None, *(each.sid for each in known)):
            if tables < MOST_TABLES and not memory.full:
                tables += _walk(inspection, stream.sid, ssid, memory)
    if memory.full or tables >= MOST_TABLES:
        left_out.append(f"tables beyond {len(memory.pages)} pages of memory")
    if not windows or subject.windows(name) != windows:
        left_out.append("what was in the guest's memory, which had gone")
    pages = {
        f"{at:#x}": base64.b64encode(page).decode() if page.strip(b"\0") else ""
        for at, page in sorted(memory.pages.items())
    }
    return Kept(state, windows, pages, tuple(left_out))


def _all(ask: Callable[..., Streams], *of: int) -> tuple[list[Stream], bool]:
    """What ``ask`` tells ``of`` something, as far as it is bounded, and whether there is more."""
    found: list[Stream] = []
    at: int | None = 0
    while at is not None and len(found) < MOST_STREAMS:
        piece = ask(*of, at, MOST_STREAMS)
        found += piece.streams
        at = piece.next
    return found[:MOST_STREAMS], at is not None or len(found) > MOST_STREAMS


def _walk(inspection: Inspection, sid: int, ssid: int | None, memory: Collecting) -> int:
    """How many answers about a stream's tables it took to have all their pages read."""
    asked = 0
    for space in inspection.spaces(sid, ssid):
        at: int | None = space.start
        while at is not None and asked < MOST_TABLES and not memory.full:
            at = inspection.tables(space, at, MOST_RUNS).next
            asked += 1
    return asked


def transaction_of(event: Layout) -> Transaction | None:
    """The transaction that made an event, as far as the event says."""
    values = event.values()
    if "SID" not in values:
        return None
    return Transaction(
        values["SID"],
        values.get("InputAddr", 0),
        write=not values.get("RnW", 1),
        ssid=values.get("SSID") if values.get("SSV", 1) else None,
        privileged=bool(values.get("PnU", 0)),
        instruction=bool(values.get("InD", 0)),
    )


# -- the file ------------------------------------------------------------------------------------------------------


def write(path: Path, dump: Dump) -> None:
    """For this user alone; UsageError when it cannot be written."""
    data = gzip.compress(json.dumps(plain(dump), separators=(",", ":")).encode(), 6, mtime=0)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name another file for the dump") from error


def read(path: Path) -> Dump:
    """UsageError: it is no dump, or one of another version."""
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(MOST_READ + 1)
        if len(data) > MOST_READ:
            raise UsageError(f"{path} has more than {MOST_READ >> 20} MiB when it is unpacked; it is no dump of ours")
        held = json.loads(data)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"{path} cannot be read ({why}); name a file that 'vhost-iommu ctl … dump' wrote") from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise UsageError(f"{path} is no dump; name a file that 'vhost-iommu ctl … dump' wrote") from error
    said = held.get("format") if isinstance(held, dict) else None
    if said != FORMAT:
        raise UsageError(f"{path} is no {FORMAT!r} but {said!r:.60}; read it with the version that wrote it")
    try:
        return restored(Dump, held)
    except MisfitError as error:
        raise UsageError(f"{path} is no whole dump ({error}); take another") from error


class Image:
    """Memory as a dump kept it."""

    def __init__(self, kept: Kept) -> None:
        self._windows = kept.windows
        self._pages: dict[int, bytes] = {}
        for at, page in kept.pages.items():
            try:
                data = base64.b64decode(page, validate=True) if page else bytes(PAGE)
                self._pages[int(at, 16)] = data[:PAGE].ljust(PAGE, b"\0")
            except (ValueError, binascii.Error) as error:
                raise UsageError(f"the dump's page {at:.20} is none; take another dump") from error

    def read(self, pa: int, size: int) -> bytes | None:
        return _cut(self._pages, pa, size)

    def lacks(self, pa: int) -> bool:
        inside = any(base <= pa < base + size for base, size in self._windows)
        return (inside or not self._windows) and pa & -PAGE not in self._pages


class Offline:
    """A dump as a ``Subject``."""

    def __init__(self, dump: Dump, inspect: Callable[[State, Reader], Inspection]) -> None:
        self._dump = dump
        self._inspect = inspect
        self._kept = {each.state.name: each for each in dump.instances}

    @property
    def name(self) -> str:
        return self._dump.machine

    @property
    def taken(self) -> str:
        return self._dump.taken

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(f"{name}: {each}" for name, kept in self._kept.items() for each in kept.left_out)

    def instances(self) -> tuple[str, ...]:
        return tuple(self._kept)

    def state(self, instance: str, *, caches: bool) -> State:
        return self._kept[instance].state

    def reader(self, instance: str) -> Reader:
        return Image(self._kept[instance])

    def windows(self, instance: str) -> tuple[tuple[int, int], ...]:
        return self._kept[instance].windows

    def inspection(self, state: State, reader: Reader) -> Inspection:
        return self._inspect(state, reader)

    def masters(self) -> tuple[MasterView, ...]:
        return self._dump.masters

    def faults(self) -> tuple[FaultView, ...]:
        return self._dump.faults
