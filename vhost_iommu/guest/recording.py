# SPDX-License-Identifier: Apache-2.0
"""What a machine and its guest did from one moment to another, in order, for tests to assert on.

Law: what it shows it has seen; what there was no room for is said, in ``gaps``. What is found among it shows itself, as
text, where an assertion fails.
"""

from __future__ import annotations

import heapq
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from vhost_iommu.trace import line_of, records_of
from vhost_iommu.watch import Commanded, Gap, Moved, Noted, Reported, Value
from vhost_iommu.watch import Recording as Watched

V = TypeVar("V", bound=Value)

#: Lines that what was found shows of itself.
_SHOWN = 20
#: The guest's tracepoints that are recorded.
TRACEPOINTS = ("map", "unmap", "io_page_fault")
_TRACED = re.compile(
    r"\s(?P<seconds>\d+\.\d+): (?:(?P<name>map|unmap|io_page_fault): (?P<rest>.*)|tracing_mark_write: vi-begin)$"
)
_ENTRIES = re.compile(r"entries-in-buffer/entries-written: (\d+)/(\d+)")
_SYNC = "CMD_SYNC"


class Found(list[V]):
    """What was looked for, and what there was of its kind."""

    def __init__(self, found: Iterable[V], what: str, among: Sequence[V]) -> None:
        super().__init__(found)
        self._what, self._among = what, among

    @property
    def names(self) -> list[str]:
        return [name_of(each) for each in self]

    @property
    def text(self) -> str:
        """A line for each."""
        return text_of(self)

    def __repr__(self) -> str:
        if self:
            lines = self.text.splitlines()
            more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
            return "\n".join(lines[:_SHOWN] + more)
        kinds = ", ".join(f"{name} {count}" for name, count in Counter(map(name_of, self._among)).most_common())
        return f"no {self._what} among {len(self._among)}{f': {kinds}' if kinds else ''}"


def name_of(value: Value) -> str:
    """A command's, an event's, or what happened."""
    match value:
        case Commanded(command=command):
            return type(command).__name__
        case Reported(record=record):
            return type(record).__name__
        case Noted(name=name):
            return name
    return type(value).__name__


def text_of(values: Iterable[Value]) -> str:
    """As a text trace has them; times are from the first on."""
    values = list(values)
    return "".join(line_of(record) for value in values for record in records_of(value, values[0].time))


@dataclass
class Operation:
    """A call of the kernel's IOMMU API, and what the driver commanded for it."""

    name: str  #: "unmap"; "?" where the kernel has no tracepoints: what is before one CMD_SYNC
    iova: int = 0
    size: int = 0
    commands: list[Commanded] = field(default_factory=list)

    @property
    def kinds(self) -> Mapping[str, int]:
        return Counter(name_of(each) for each in self.commands)

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in self.kinds.items())
        return f"{self.name} {self.iova:#x} of {self.size:#x}: {kinds or 'no command'}"


class Recording:
    """Iterate over it for all that happened, in order: values of ``vhost_iommu.watch``."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        #: What the guest said on its console, and its kernel's tracepoints.
        self.guest: list[Noted] = []

    def __iter__(self) -> Iterator[Value]:
        return heapq.merge(self._watched, sorted(self.guest, key=_time), key=_time)

    def of(self, kind: type[V], *names: str, who: str | None = None) -> Found[V]:
        """What happened of one type; of these names, and of one device, alone if they are given."""
        among = [each for each in self if isinstance(each, kind)]
        found = [each for each in among if (not names or name_of(each) in names) and who in (None, each.who)]
        return Found(found, " or ".join(names) or kind.__name__, among)

    def commands(self, *names: str, smmu: str | None = None) -> Found[Commanded]:
        """Commands that SMMUs consumed, such as "CMD_TLBI_NH_VA"."""
        return self.of(Commanded, *names, who=smmu)

    @property
    def invalidations(self) -> Found[Commanded]:
        """Of the commands those that invalidate TLBs, configuration caches and ATCs."""
        every = self.commands()
        kinds = ("CMD_TLBI_", "CMD_CFGI_", "CMD_ATC_INV")
        return Found([each for each in every if name_of(each).startswith(kinds)], "invalidation", every)

    @property
    def events(self) -> Found[Reported]:
        """Event records of SMMUs, those too that were lost; and global errors."""
        return self.of(Reported)

    @property
    def dma(self) -> Found[Moved]:
        """Transfers of masters."""
        return self.of(Moved)

    @property
    def said(self) -> list[str]:
        """Lines of the console."""
        return [str(each.fields["text"]) for each in self.guest if each.topic == "console"]

    def kernel(self, *names: str) -> Found[Noted]:
        """The guest's tracepoints: "map", "unmap", "io_page_fault"; none where its kernel has none."""
        among = [each for each in self.guest if each.topic == "iommu"]
        return Found([each for each in among if not names or each.name in names], " or ".join(names), among)

    @property
    def gaps(self) -> list[Gap]:
        """Where something was lost: too much happened at once."""
        return [each for each in self if isinstance(each, Gap)]

    @property
    def operations(self) -> list[Operation]:
        """Each unmapping and what was commanded for it. Without the kernel's tracepoints: what each CMD_SYNC ends."""
        return operations(self.commands(), self.kernel("unmap"))

    def summary(self) -> list[str]:
        """For people: commands by kind, events decoded, what was lost."""
        kinds = ", ".join(f"{name} {count}" for name, count in Counter(self.commands().names).most_common())
        said = [f"commands: {kinds or 'none'}", f"transfers: {len(self.dma)}"]
        if self.events:
            said += ["events:", *(f"  {line}" for line in repr(self.events).splitlines())]
        return said + [f"lost: {each.lost}" for each in self.gaps]

    @property
    def text(self) -> str:
        """All of it, as a text trace."""
        return text_of(self)


def _time(value: Value) -> int:
    return value.time


def operations(commands: Sequence[Commanded], unmaps: Sequence[Noted]) -> list[Operation]:
    """Commands by the operation that they are for: an invalidation names an address of what is unmapped, and goes on
    to the next CMD_SYNC of its SMMU; what names none is for the last that was unmapped before.
    """
    if not unmaps:
        return _by_sync(commands)
    unmaps = sorted(unmaps, key=_time)
    made = [Operation("unmap", int(each.fields["iova"]), int(each.fields["size"])) for each in unmaps]
    times = [each.time for each in unmaps]
    current: dict[str, Operation] = {}
    for each in commands:
        name, of = name_of(each), current.get(each.who)
        if name == _SYNC:
            current.pop(each.who, None)
        elif name.startswith(("CMD_TLBI_", "CMD_ATC_INV")):
            of = _unmapped(made, times, each) or of
            if of is not None:
                current[each.who] = of
        else:
            of = None
        if of is not None:
            of.commands.append(each)
    return made


def _unmapped(made: Sequence[Operation], times: Sequence[int], it: Commanded) -> Operation | None:
    """The last before the command that covers its address, or of one without an address the last before it."""
    address = it.command.values().get("Address")
    for at in range(bisect_right(times, it.time) - 1, -1, -1):
        if address is None or made[at].iova <= address < made[at].iova + made[at].size:
            return made[at]
    return None


def _by_sync(commands: Sequence[Commanded]) -> list[Operation]:
    made: list[Operation] = []
    current: dict[str, Operation] = {}
    for each in commands:
        if each.who not in current:
            current[each.who] = Operation("?")
            made.append(current[each.who])
        current[each.who].commands.append(each)
        if name_of(each) == _SYNC:
            del current[each.who]
    return made


@dataclass(frozen=True)
class Row:
    """Of operations of one name and size: how many there were, and commands of each kind in all."""

    count: int
    commands: Mapping[str, int]


def by_operation(seen: Recording) -> dict[tuple[str, int], Row]:
    """By name and size of the operation; mappings, which take no command, are there where the kernel tells of them."""
    found: dict[tuple[str, int], list[Operation]] = {}
    maps = [Operation("map", int(each.fields["iova"]), int(each.fields["size"])) for each in seen.kernel("map")]
    for each in (*maps, *seen.operations):
        found.setdefault((each.name, each.size), []).append(each)
    return {
        key: Row(len(each), sum((Counter(one.kinds) for one in each), Counter())) for key, each in sorted(found.items())
    }


class Difference:
    """What two recordings, such as of two kernels, commanded by operation; false where they are alike."""

    def __init__(self, one: Recording, other: Recording, names: tuple[str, str] = ("one", "other")) -> None:
        self._one, self._other, self._names = by_operation(one), by_operation(other), names

    def __bool__(self) -> bool:
        return self._one != self._other

    def lines(self) -> list[str]:
        """For each operation that differs how often it was, and commands for each time on average; and all commands."""
        none = Row(0, {})
        said = []
        for key in sorted({*self._one, *self._other}):
            one, other = self._one.get(key, none), self._other.get(key, none)
            if one == other:
                continue
            said.append(f"{key[0]} of {key[1]:#x}")
            said += [f"  {name:>8}: {_row(row)}" for name, row in zip(self._names, (one, other), strict=True)]
        if said:
            said.append("in all")
            both = zip(self._names, (self._one, self._other), strict=True)
            said += [f"  {name:>8}: {_kinds(_total(rows)) or 'no command'}" for name, rows in both]
        return said

    def __repr__(self) -> str:
        return "\n".join(self.lines()) or "no difference"


def _row(row: Row) -> str:
    each = _kinds({name: count / row.count for name, count in row.commands.items()})
    return f"{row.count} times{f'; each: {each}' if each else ''}"


def _kinds(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:.3g}" if isinstance(count, float) else f"{name} {count}"
                     for name, count in sorted(counts.items()))  # fmt: skip


def _total(rows: Mapping[tuple[str, int], Row]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in rows.values():
        total.update(each.commands)
    return total


# -- the guest's tracepoints -----------------------------------------------------------------------------------------


def tracepoints(text: str, began: int) -> list[Noted]:
    """What a guest's trace has, at times of the host's: its mark was written at ``began``, more or less."""
    found: list[Noted] = []
    offset: int | None = None
    for line in text.splitlines():
        if (match := _TRACED.search(line)) is None:
            if (entries := _ENTRIES.search(line)) and entries[1] != entries[2]:
                lost = int(entries[2]) - int(entries[1])
                found.append(Noted(0, began, "guest", "iommu", "GAP", {"lost": lost}))
            continue
        now = round(float(match["seconds"]) * 1e9)
        if match["name"] is None:
            offset = began - now
        elif offset is not None:
            numbers = {key: int(value, 0) for key, value in re.findall(r"(\w+)=(0x[0-9a-f]+|\d+)", match["rest"])}
            found.append(Noted(0, now + offset, "guest", "iommu", match["name"], numbers))
    return found


def in_step(kernel: Sequence[Noted], commands: Sequence[Commanded]) -> list[Noted]:
    """With times so that what is unmapped comes right before the first invalidation of it.

    The clocks run alike; how far they are apart is known no better than a message from one to the other takes.
    """
    apart: list[int] = []
    left = [each for each in commands if each.command.values().get("Address") is not None]
    for unmap in (each for each in kernel if each.name == "unmap"):
        first, end = int(unmap.fields["iova"]), int(unmap.fields["iova"]) + int(unmap.fields["size"])
        for at, each in enumerate(left):
            if first <= each.command.values()["Address"] < end:
                apart.append(each.time - unmap.time)
                del left[: at + 1]
                break
    if not apart:
        return list(kernel)
    return [each._replace(time=each.time + min(apart) - 1) for each in kernel]
