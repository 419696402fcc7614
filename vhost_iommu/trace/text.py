# SPDX-License-Identifier: Apache-2.0
"""The trace as text: a line for each thing that happened, which greps well.

``  12.345678 smmu0 command CMD_TLBI_NH_ASID VMID=0x0 ASID=0x1``: seconds, whose, kind, what, fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..layout import Layout, Register
from ..watch import (
    Accessed,
    Commanded,
    Dropped,
    Fetched,
    Filled,
    Found,
    Gap,
    Interrupted,
    Moved,
    Noted,
    Reported,
    Served,
    Snapshot,
    Stalled,
    Translated,
    Used,
    Value,
    Watch,
)
from .form import KINDS


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened on ``track`` (an SMMU's or a master's name), ``time`` µs after the trace began."""

    time: float
    track: str
    kind: str
    name: str
    args: Mapping[str, float | str] = field(default_factory=dict)
    duration: float | None = None


def records_of(value: Value, began: int) -> Iterator[Record]:
    """Of a value; mostly one. ``began``: when times are counted from, in nanoseconds of the values' clock."""
    # What joined the trace late may have begun before it.
    time = max((value.time - began) / 1e3, 0.0)
    if isinstance(value, Snapshot):
        # Of an instance that is new there is nothing to tell.
        if value.entries or value.contexts:
            yield Record(time, value.who, "mmio", "snapshot", value.registers)
        for entry in value.entries:
            yield from records_of(entry, began)
        return
    kind, name, args = _said(value)
    duration = value.duration / 1e3 or None if isinstance(value, Served) else None
    if kind == "case":
        args, duration = {"outcome": args["outcome"]}, float(args["took"]) / 1e3
    yield Record(time, value.who, kind, name, args, duration)


def line_of(record: Record) -> str:
    name = record.name if record.name.isprintable() else json.dumps(record.name)[1:-1]
    words = [f"{record.time / 1e6:12.6f}", record.track, record.kind, name]
    words += [f"{key}={_shown(value)}" for key, value in record.args.items()]
    if record.duration is not None:
        words.append(f"took={record.duration:.1f}us")
    return " ".join(words) + "\n"


class Text:
    """Lines of one file."""

    kinds = KINDS

    def __init__(self, began: int) -> None:
        self.only: frozenset[str] | None = None
        self._began = began
        self._latest = 0.0

    def joined(self, watch: Watch) -> None:
        pass

    def begin(self) -> bytes:
        return b""

    def tell(self, value: Value) -> Iterable[bytes]:
        for record in records_of(value, self._began):
            self._latest = record.time
            if self.only is None or record.kind in self.only or isinstance(value, Gap):
                yield line_of(record).encode()

    def rest(self) -> Iterable[bytes]:
        return ()

    def last(self, name: str, why: str) -> bytes:
        record = Record(self._latest, "trace", "trace", name, {"why": why, "lost": "all that follows"})
        return line_of(record).encode()

    def end(self) -> bytes:
        return b""


class Kept(Text):
    """Keeps records instead of writing them."""

    def __init__(self, began: int) -> None:
        super().__init__(began)
        self.records: list[Record] = []

    def tell(self, value: Value) -> Iterable[bytes]:
        made = records_of(value, self._began)
        self.records += [each for each in made if self.only is None or each.kind in self.only]
        return ()


def _shown(value: float | str) -> str:
    """Integers in hex; text as it is, quoted when it would not be one word."""
    if not isinstance(value, str):
        return hex(value) if isinstance(value, int) else str(value)
    return value if value and value.isprintable() and not set(value) & set(' ="') else json.dumps(value)


def _said(it: Value) -> tuple[str, str, Mapping[str, float | str]]:
    """Kind, name and fields."""
    way = "write" if getattr(it, "write", False) else "read"
    match it:
        case Accessed():
            return "mmio", f"{way} {it.register}", {"offset": it.offset, "size": it.size, "value": it.value}
        case Commanded():
            return "command", type(it.command).__name__, {**fields(it.command), "result": it.error}
        case Fetched():
            return "structure", type(it.structure).__name__, {**stream(it.sid, it.ssid), "pa": it.pa}
        case Filled():
            return "fill", f"stage {it.stage}", _of_entry(it)
        case Used():
            return "use", way, {**stream(it.sid, it.ssid), "iova": it.iova, "size": it.size, "pa": it.pa}
        case Dropped():
            scope = {name: "any" if value is None else value for name, value in it.scope.items()}
            return "drop", it.what, {"entries": it.entries, **scope}
        case Translated():
            return "translation", way, _of_transaction(it)
        case Reported():
            record = it.record
            return "fault", type(record).__name__, fields(record) if is_event(record) else {"value": record.raw}
        case Interrupted(address=None):
            return "interrupt", f"wire {it.source}".rstrip(), {} if it.data is None else {"intid": it.data}
        case Interrupted():
            return "interrupt", f"MSI {it.source}", {"address": it.address or 0, "data": it.data or 0}
        case Moved(why=None):
            return "dma", way, {"iova": it.iova, "size": it.size}
        case Moved():
            return "fault", way, {"iova": it.iova + it.done, "done": it.done, "why": it.why or ""}
        case Stalled():
            tag = {} if it.stag is None else {"STAG": it.stag}
            name = "stall ended" if it.ended else f"{way} stalled"
            return "fault", name, {**tag, "sid": it.sid, "iova": it.iova, "size": it.size}
        case Served():
            return "request", it.request, {**it.fields, "status": it.status}
        case Noted():
            return it.topic, it.name, it.fields
        case Found():
            return "finding", f"rule {it.rule}", finding(it)
        case Gap():
            return "trace", "GAP", {"first": it.first, **{kind.name or "?": lost for kind, lost in it.lost.items()}}
    raise AssertionError(it)


def finding(it: Found) -> Mapping[str, float | str]:
    """With what is not known left out."""
    known = {"cached": it.cached, "now": it.now}
    return {**stream(it.sid, it.ssid), "iova": it.iova, **{k: v for k, v in known.items() if v is not None}}


def _of_entry(it: Filled) -> Mapping[str, int]:
    space: dict[str, int] = {} if it.sid is None else stream(it.sid, it.ssid)
    space |= {"world": it.world, "vmid": it.vmid}
    space |= {"aset": it.aset} if it.asid is None else {"asid": it.asid}
    where = {"base": it.base, "size": 1 << it.shift, "output": it.output, "level": it.level}
    return {**space, **where, "descriptor": it.descriptor, "at": it.descriptor_at}


def _of_transaction(it: Translated) -> Mapping[str, float | str]:
    where = {} if it.pa is None else {"pa": it.pa}
    if it.partid or it.pmg:
        where |= {"partid": it.partid, "pmg": it.pmg}
    return {**stream(it.sid, it.ssid), "iova": it.iova, "size": it.size, **where, "outcome": it.outcome}


def fields(record: Layout) -> dict[str, int]:
    """All but those that say what it is."""
    return {name: value for name, value in record.values().items() if name not in record.fixed}


def is_event(record: Layout) -> bool:
    """Or else a register, which tells of a global error."""
    return not isinstance(record, Register)


def stream(sid: int, ssid: int | None) -> dict[str, int]:
    return {"sid": sid} if ssid is None else {"sid": sid, "ssid": ssid}
