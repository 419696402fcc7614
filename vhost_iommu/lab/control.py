# SPDX-License-Identifier: Apache-2.0
"""The commands of the control socket, each declared once: its name, arguments and docstring are its description.

Law: does things to a machine through protocols alone; what a command answers is a value, and its size is bounded.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from ..errors import UsageError
from .conversation import UnknownCommandError
from .faults import Lab

M = TypeVar("M", bound=Callable[..., Any])


class Bench(Protocol):
    """A machine at work, as its control socket sees it."""

    @property
    def name(self) -> str: ...

    @property
    def lab(self) -> Lab: ...

    @property
    def smmus(self) -> Mapping[str, Any]: ...

    def quit(self) -> None: ...


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
        fits = type(value) is self.kind and (not self.choices or value in self.choices)
        if value is None and self.default is None:
            return None
        if not fits or (self.kind is int and not 0 <= value < 1 << 64):
            raise UsageError(f"{command}: '{self.name}' is {value!r:.60}; it is {self.expected}")
        return value


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is declared."""

    name: str
    about: str
    arguments: tuple[Argument, ...]
    method: str

    def bound(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, checked; UsageError."""
        known = {each.name: each for each in self.arguments}
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
                raise UsageError(f"{self.name}: there is no argument {name!r:.60}; {hint}")
        for name, each in known.items():
            if each.needed and name not in given:
                raise UsageError(f"{self.name}: '{name}' is missing; it is {each.expected}")
        return {name.replace("-", "_"): known[name].check(self.name, value) for name, value in given.items()}


def command(method: M) -> M:
    """Marks a method of ``Control`` that is a command, by its name with "-" for "_"."""
    method.__dict__["is_command"] = True
    return method


@dataclass(frozen=True, slots=True)
class Status:
    """A machine in a few words."""

    machine: str
    instances: tuple[str, ...]


class Control:
    """Carries out the commands on one machine."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def execute(self, name: str, arguments: Mapping[str, Any]) -> Any:
        declared = COMMANDS.get(name)
        if declared is None:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else "query-commands lists them"
            raise UnknownCommandError(f"there is no command {name!r:.60}; {hint}")
        return getattr(self, declared.method)(**declared.bound(arguments))

    @command
    def query_commands(self) -> list[dict[str, str]]:
        """The names of all commands."""
        return [{"name": name} for name in COMMANDS]

    @command
    def query_status(self) -> Status:
        """Which machine this is, and what it consists of."""
        return Status(self._bench.name, tuple(self._bench.smmus))

    @command
    def quit(self) -> None:
        """End the machine: ``serve`` as by Ctrl-C, ``run`` as interrupted."""
        self._bench.quit()


def _declared() -> dict[str, Command]:
    found = {}
    for method, function in vars(Control).items():
        if not getattr(function, "is_command", False):
            continue
        name = method.replace("_", "-")
        hints = get_type_hints(function)
        arguments = tuple(
            _argument(each.name, hints[each.name], each.default)
            for each in list(inspect.signature(function).parameters.values())[1:]
        )
        found[name] = Command(name, " ".join((function.__doc__ or "").split()), arguments, method)
    return found


def _argument(name: str, kind: Any, default: Any) -> Argument:
    choices: tuple[str, ...] = ()
    if NoneType in get_args(kind):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Literal:
        choices, kind = get_args(kind), str
    return Argument(name.replace("_", "-"), kind, choices, default)


#: By name, in the order in which they are declared.
COMMANDS: Mapping[str, Command] = _declared()
