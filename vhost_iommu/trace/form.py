# SPDX-License-Identifier: Apache-2.0
"""What a trace's file may look like: how values become bytes, and which kinds of records there are.

Law: an instance is one file's state; what it gives at once is whole, and a file may end behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from ..watch import ALL, Kind, Value, Watch

#: What a record may be about, and what a watcher must want for it. Of the guest's console and its cases no model tells.
KINDS: Mapping[str, Kind] = {
    "mmio": Kind.ACCESSED,
    "command": Kind.COMMAND,
    "structure": Kind.FETCHED,
    "fill": Kind.FILLED,
    "use": Kind.USED,
    "drop": Kind.DROPPED,
    "translation": Kind.TRANSLATED,
    "fault": Kind.REPORTED | Kind.MOVED | Kind.STALLED,
    "finding": Kind.FOUND,
    "interrupt": Kind.INTERRUPTED,
    "dma": Kind.MOVED,
    "request": Kind.SERVED,
    "console": Kind(0),
    "case": Kind(0),
}
#: Uses are as many as pages, and translations say the same.
DEFAULT = ALL & ~Kind.USED


class Form(Protocol):
    """How values become bytes; ``only``: the kinds to write, None: all."""

    kinds: Mapping[str, Kind]
    only: frozenset[str] | None

    def joined(self, watch: Watch) -> None:
        """Values come from there."""

    def begin(self) -> bytes: ...

    def tell(self, value: Value) -> Iterable[bytes]:
        """What is to be written now."""

    def rest(self) -> Iterable[bytes]:
        """What is still held when there will be no more."""

    def last(self, name: str, why: str) -> bytes:
        """A record in the place of all that follows."""

    def end(self) -> bytes: ...
