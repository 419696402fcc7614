# SPDX-License-Identifier: Apache-2.0
"""The commands of the control socket, each declared once: its name, arguments and docstring are its description.

Law: does things to a machine through protocols alone; what a command answers is a value, and its size is bounded.
Those of ``Queries`` can be asked of a dump too.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from ..errors import UsageError
from ..layout import Layout
from ..smmu.context import Context
from ..smmu.inspection import (
    MOST_RUNS,
    AddressSpace,
    CachedTranslation,
    Entry,
    Explanation,
    Inspection,
    Queue,
    Runs,
    Stalled,
    Streams,
)
from ..smmu.transaction import Transaction
from ..watch import Kind, Value, Watcher, kind_of
from . import dump
from .conversation import UnknownCommandError
from .faults import Fault, Lab
from .subject import FaultView, MasterView, Subject

M = TypeVar("M", bound=Callable[..., Any])

#: Entries, streams or translations in one answer.
MOST = 1024


# -- how commands are declared ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a command."""

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Any  #: inspect.Parameter.empty: it has to be given

    @property
    def needed(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def expected(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return {int: "a whole number, 0 or more", bool: "true or false", str: "a string"}[self.kind]

    def check(self, command: str, value: Any) -> Any:
        if value is None and self.default is None:
            return None
        fits = type(value) is self.kind and (not self.choices or value in self.choices)
        if not fits or (self.kind is int and not 0 <= value < 1 << 64):
            raise UsageError(f"{command}: '{self.name}' is {value!r:.60}; it is {self.expected}")
        return value

    def parse(self, command: str, text: str) -> Any:
        """What the command line says."""
        value: Any = text
        if self.kind is int:
            try:
                value = int(text, 0)
            except ValueError:
                value = text
        elif self.kind is bool:
            value = {"true": True, "on": True, "false": False, "off": False}.get(text, text)
        return self.check(command, value)


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is declared."""

    name: str
    about: str
    arguments: tuple[Argument, ...]
    method: str
    answers: Any  #: the type of what it answers

    def bound(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, checked; UsageError."""
        known = {each.name: each for each in self.arguments}
        for name in given:
            self.argument(name)
        for name, each in known.items():
            if each.needed and name not in given:
                raise UsageError(f"{self.name}: '{name}' is missing; it is {each.expected}")
        return {name.replace("-", "_"): known[name].check(self.name, value) for name, value in given.items()}

    def argument(self, name: str) -> Argument:
        """UsageError: there is none of this name."""
        known = {each.name: each for each in self.arguments}
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
            raise UsageError(f"{self.name}: there is no argument {name!r:.60}; {hint}")
        return known[name]


def command(method: M) -> M:
    """Marks a method that is a command, by its name with "-" for "_"."""
    method.__dict__["is_command"] = True
    return method


def _declared(of: type) -> dict[str, Command]:
    found = {}
    for each in reversed(of.__mro__):
        for method, function in vars(each).items():
            if getattr(function, "is_command", False):
                name = method.replace("_", "-")
                hints = get_type_hints(function)
                parameters = list(inspect.signature(function).parameters.values())[1:]
                arguments = tuple(_argument(p.name, hints[p.name], p.default) for p in parameters)
                about = " ".join((function.__doc__ or "").split())
                found[name] = Command(name, about, arguments, method, hints["return"])
    return found


def _argument(name: str, kind: Any, default: Any) -> Argument:
    choices: tuple[str, ...] = ()
    if NoneType in get_args(kind):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Literal:
        choices, kind = get_args(kind), str
    return Argument(name.replace("_", "-"), kind, choices, default)


def named(name: str, known: Mapping[str, Command]) -> Command:
    """The command of this name; UnknownCommandError."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "query-commands lists them"
        raise UnknownCommandError(f"there is no command {name!r:.60}; {hint}")
    return known[name]


# -- what is answered --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CommandName:
    name: str


@dataclass(frozen=True, slots=True)
class Status:
    """A machine in a few words; ``taken``: when a dump of it was, if it is one."""

    machine: str
    taken: str
    instances: tuple[str, ...]
    left_out: tuple[str, ...]  #: of a dump


@dataclass(frozen=True, slots=True)
class Instance:
    """An SMMU in a few words."""

    name: str
    model: str
    enabled: bool
    said: tuple[str, ...]
    queues: tuple[Queue, ...]
    counters: Mapping[str, int]
    commands: Mapping[str, int]
    events: Mapping[str, int]
    stalls: int


@dataclass(frozen=True, slots=True)
class Translations:
    """Entries of both TLBs."""

    translations: tuple[CachedTranslation, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Structure:
    """A configuration structure as it is cached."""

    sid: int
    key: int | None
    structure: Layout


@dataclass(frozen=True, slots=True)
class Armed:
    id: int


@dataclass(frozen=True, slots=True)
class Written:
    file: str


# -- the commands ------------------------------------------------------------------------------------------------------


class Queries:
    """What can be asked of a machine, or of a dump. ``instance`` may be left out where there is one alone."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def close(self) -> None:
        """Nobody asks any more."""

    def execute(self, name: str, arguments: Mapping[str, Any]) -> Any:
        known = _commands_of(type(self))
        if name in COMMANDS and name not in known:
            raise UsageError(f"{name} is for a machine that runs; a dump can be asked what query-commands lists")
        declared = named(name, known)
        return getattr(self, declared.method)(**declared.bound(arguments))

    def _instance(self, name: str | None) -> str:
        names = self._subject.instances()
        if name is None and len(names) == 1:
            return names[0]
        if name is None and names:
            raise UsageError(f"there are several instances; name one in 'instance': {', '.join(names)}")
        if name not in names:
            raise UsageError(f"there is no instance {name!r:.60}; it is one of {', '.join(names) or 'none'}")
        return name

    def _inspection(self, name: str | None, *, caches: bool = False) -> Inspection:
        instance = self._instance(name)
        state = self._subject.state(instance, caches=caches)
        return self._subject.inspection(state, self._subject.reader(instance))

    @command
    def query_commands(self) -> tuple[CommandName, ...]:
        """The names of all commands."""
        return tuple(CommandName(name) for name in _commands_of(type(self)))

    @command
    def query_status(self) -> Status:
        """Which machine this is, and what it consists of."""
        subject = self._subject
        return Status(subject.name, subject.taken, subject.instances(), subject.left_out)

    @command
    def query_instances(self) -> tuple[Instance, ...]:
        """Each SMMU: whether it is on, what it says of itself, its queues, and what it has counted."""
        found = []
        for name in self._subject.instances():
            each = self._inspection(name)
            state = each.state
            found.append(
                Instance(
                    name, state.model, each.enabled, each.said(), each.queues(), state.counters, state.commands,
                    state.events, len(state.stalls),
                )
            )  # fmt: skip
        return tuple(found)

    @command
    def query_masters(self) -> tuple[MasterView, ...]:
        """Each master: its SMMU, its streams, what it did."""
        return self._subject.masters()

    @command
    def query_registers(self, instance: str | None = None) -> tuple[Layout, ...]:
        """Each register that is not zero, decoded."""
        return self._inspection(instance).registers()

    @command
    def query_queue(self, queue: str, instance: str | None = None, limit: int = 32) -> tuple[Entry, ...]:
        """Entries of a queue, decoded: at most ``limit`` of those that were consumed last, and of those that wait."""
        return self._inspection(instance).entries(queue, min(limit, MOST))

    @command
    def query_streams(self, instance: str | None = None, first: int = 0, limit: int = 64) -> Streams:
        """Streams that have a structure (an STE), decoded, from ``first`` on; with why it cannot be used, if so."""
        return self._inspection(instance).streams(first, min(limit, MOST))

    @command
    def query_substreams(self, stream: int, instance: str | None = None, first: int = 0, limit: int = 64) -> Streams:
        """Likewise the substreams of a stream (its CDs); ``sid`` of each is the SubstreamID."""
        return self._inspection(instance).substreams(stream, first, min(limit, MOST))

    @command
    def query_context(self, stream: int, substream: int | None = None, instance: str | None = None) -> Context | None:
        """All that translating takes of a stream or substream: tables, regime, tags, how faults end; null where its
        structures in memory make none.
        """
        return self._inspection(instance).context(stream, substream)

    @command
    def query_spaces(
        self, stream: int, substream: int | None = None, instance: str | None = None
    ) -> tuple[AddressSpace, ...]:
        """The address spaces of a stream or substream, one for each stage, and half of stage 1's, that translates."""
        return self._inspection(instance).spaces(stream, substream)

    @command
    def query_tables(
        self,
        stream: int,
        substream: int | None = None,
        stage: int = 1,
        half: int = 0,
        instance: str | None = None,
        first: int = 0,
        limit: int = 256,
    ) -> Runs:
        """What a stream's tables in memory map, in runs of alike pages, from the address ``first`` on; ``next`` is from
        where to go on.
        """
        inspection = self._inspection(instance)
        spaces = inspection.spaces(stream, substream)
        space = next((each for each in spaces if (each.stage, each.half) == (stage, half)), None)
        if space is None:
            there = ", ".join(f"stage {each.stage} half {each.half}" for each in spaces) or "no table"
            raise UsageError(f"stream {stream:#x} has no stage {stage} half {half}; it has {there}")
        return inspection.tables(space, first, min(limit, MOST_RUNS))

    @command
    def query_tlb(
        self, instance: str | None = None, address: int | None = None, first: int = 0, limit: int = 256
    ) -> Translations:
        """Entries of the TLBs, from the number ``first`` on; of ``address`` those alone that hold it."""
        found = self._inspection(instance, caches=True).state.translations
        if address is not None:
            found = tuple(each for each in found if each.leaf.base <= address < each.leaf.base + (1 << each.leaf.shift))
        end = first + min(limit, MOST)
        return Translations(found[first:end], end if end < len(found) else None)

    @command
    def query_caches(self, instance: str | None = None, stream: int | None = None) -> tuple[Structure, ...]:
        """Structures in the configuration caches, decoded; those of one stream, or all, as many as fit an answer."""
        found = self._inspection(instance, caches=True).structures()
        chosen = [(kept, value) for kept, value in found if stream is None or kept.sid == stream]
        return tuple(Structure(kept.sid, kept.key, value) for kept, value in chosen[:MOST])

    @command
    def query_stalls(self, instance: str | None = None) -> tuple[Stalled, ...]:
        """Transactions that wait for software."""
        return self._inspection(instance).state.stalls[:MOST]

    @command
    def query_events(self, instance: str | None = None) -> tuple[Layout, ...]:
        """The first events of each kind, decoded, whether or not software has read them."""
        return self._inspection(instance).reports()

    @command
    def query_faults(self) -> tuple[FaultView, ...]:
        """The faults that are or were at work, and how often each struck."""
        return self._subject.faults()

    @command
    def explain(
        self,
        stream: int,
        address: int,
        substream: int | None = None,
        access: Literal["read", "write", "execute"] = "read",
        privileged: bool = False,
        instance: str | None = None,
    ) -> Explanation:
        """A translation step by step, without consequences: each structure and descriptor read, each permission, the
        event it would be; and what is cached otherwise than it is in memory.
        """
        write, execute = access == "write", access == "execute"
        transaction = Transaction(
            stream, address, write=write, ssid=substream, privileged=privileged, instruction=execute
        )
        return self._inspection(instance, caches=True).explain(transaction)


class Bench(Subject, Protocol):
    """A machine at work."""

    @property
    def lab(self) -> Lab: ...

    def now(self) -> str:
        """The time, as a dump says it."""

    def attach(self, watcher: Watcher) -> None: ...

    def detach(self, watcher: Watcher) -> None: ...

    def quit(self) -> None: ...


class _Teller(Watcher):
    """Passes on what it is told, as events by the names of their kinds."""

    def __init__(self, wants: Kind, tell: Callable[[str, Any], None]) -> None:
        self.wants = wants
        self._tell = tell

    def tell(self, value: Value) -> None:
        kind = kind_of(type(value))
        if kind is not Kind.SNAPSHOT:  # what it would tell can be asked for, in pieces
            self._tell(str(kind.name), value)


#: Kinds that can be watched.
WATCHED = [str(each.name).lower() for each in Kind if each not in (Kind.TOLD, Kind.GAP, Kind.SNAPSHOT)]


class Control(Queries):
    """What one client asks of a machine at work, and does to it."""

    def __init__(self, bench: Bench, tell: Callable[[str, Any], None] = lambda name, data: None) -> None:
        """``tell`` has an event told to the client; from any thread."""
        super().__init__(bench)
        self._bench = bench
        self._tell = tell
        self._watcher: _Teller | None = None

    def close(self) -> None:
        self.watch_off()

    @command
    def watch_on(self, kinds: str = "reported stalled noted") -> None:
        """Tell this client of what happens, as events: REPORTED, COMMAND and others, those that ``kinds`` has words of;
        GAP where something could not be told.
        """
        wants = Kind(0)
        for word in kinds.split():
            if word not in WATCHED:
                raise UsageError(f"watch-on: there is nothing {word!r:.40} to watch; choose of {', '.join(WATCHED)}")
            wants |= Kind[word.upper()]
        self.watch_off()
        self._watcher = _Teller(wants, self._tell)
        self._bench.attach(self._watcher)

    @command
    def watch_off(self) -> None:
        """Tell this client of nothing more."""
        if self._watcher is not None:
            watcher, self._watcher = self._watcher, None
            self._bench.detach(watcher)

    @command
    def fault_arm(self, fault: str) -> Armed:
        """Put a fault to work: ``'drop-sync smmu=smmu0 after=3'``, as ``--fault`` takes it."""
        injection = self._bench.lab.arm(Fault.parse(fault))
        return Armed(self._bench.lab.number(injection))

    @command
    def fault_disarm(self, id: int) -> None:
        """Have a fault strike no more; what it holds goes on. ``id``: as fault-arm or query-faults says."""
        self._bench.lab.disarm(self._bench.lab.injection(id))

    @command
    def dump(self, file: str) -> Written:
        """Keep the machine in a file, for ``show``, ``explain`` and ``spaces`` to be asked of without it."""
        path = Path(file)
        if not path.is_absolute():
            raise UsageError(f"dump: 'file' is {file!r:.60}; it is an absolute path, since no folder is yours here")
        dump.write(path, dump.take(self._bench, self._bench.now()))
        return Written(file)

    @command
    def quit(self) -> None:
        """End the machine: ``serve`` as by Ctrl-C, ``run`` as interrupted."""
        self._bench.quit()


#: By name, in the order in which they are declared.
QUERIES: Mapping[str, Command] = _declared(Queries)
COMMANDS: Mapping[str, Command] = _declared(Control)


def _commands_of(kind: type) -> Mapping[str, Command]:
    return COMMANDS if issubclass(kind, Control) else QUERIES
