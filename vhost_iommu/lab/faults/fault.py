# SPDX-License-Identifier: Apache-2.0
"""A fault as it is asked for, from Python, a machine file's [[fault]] or ``--fault``. Law: it cannot be wrong."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from ...errors import UsageError
from .kinds import FAULTS


class Fault:
    """A fault that is asked for: ``Fault("drop-sync", smmu="smmu0", after=3, count=1)``.

    ``smmu`` or ``master``: whom it befalls; it may be left out where there is one alone. ``after``: how many chances
    pass before it strikes, and ``count``: how often it does, 0 for each time. ``seed``: of what it chooses at random.
    UsageError: no such fault or parameter, or a value that cannot be.
    """

    def __init__(
        self,
        kind: str,
        *,
        smmu: str | None = None,
        master: str | None = None,
        after: int = 0,
        count: int = 1,
        seed: int = 0,
        **parameters: Any,
    ) -> None:
        if kind not in FAULTS:
            raise UsageError(f"there is no fault {kind!r}; {_instead(kind, FAULTS)}")
        self.kind = kind
        self.smmu, self.master = smmu, master
        self.after, self.count, self.seed = after, count, seed
        self.parameters: Mapping[str, Any] = MappingProxyType(parameters)
        declared = FAULTS[kind]
        given = {"smmu": smmu, "master": master}
        if given.get(other := "master" if declared.TARGET == "smmu" else "smmu") is not None:
            raise UsageError(
                f"{kind} befalls {_a(declared.TARGET)}; name that in '{declared.TARGET}', not in '{other}'"
            )
        for name, value in (("after", after), ("count", count), ("seed", seed)):
            if type(value) is not int or value < 0:
                raise UsageError(f"{kind}: '{name}' is {value!r}; make it a whole number, 0 or more")
        known = declared.parameters()
        for name, value in parameters.items():
            if name not in known:
                raise UsageError(f"{kind}: '{name}' is no parameter of it; {_instead(name, (*COMMON, *known))}")
            known[name].check(kind, value)
        for name, parameter in known.items():
            if parameter.needed and name not in parameters:
                raise UsageError(f"{kind}: '{name}' is missing; {parameter.expected}")

    @property
    def befalls(self) -> Literal["smmu", "master"]:
        """What kind of part."""
        return FAULTS[self.kind].TARGET

    @property
    def target(self) -> str | None:
        """Whom it befalls, if that is said."""
        return self.smmu or self.master

    def __str__(self) -> str:
        """As ``--fault`` takes it."""
        said = {"smmu": self.smmu, "master": self.master, "after": self.after or None, "seed": self.seed or None}
        said["count"] = None if self.count == 1 else self.count
        words = [self.kind, *(f"{name}={value}" for name, value in said.items() if value is not None)]
        return " ".join([*words, *(f"{name}={value}" for name, value in self.parameters.items())])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fault) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @classmethod
    def parse(cls, text: str) -> Fault:
        """What ``--fault`` is given: 'drop-sync smmu=smmu0 after=3'."""
        try:
            kind, *words = shlex.split(text)
        except ValueError as why:
            raise UsageError(f"--fault {text!r} cannot be read ({why}); write it as 'KIND name=value …'") from why
        values: dict[str, Any] = {}
        for word in words:
            name, mark, value = word.partition("=")
            if not mark:
                raise UsageError(f"--fault {text!r}: {word!r} is no parameter; write it as name=value")
            values[name] = _value(value)
        return cls.of({"kind": kind, **values}, f"--fault {text!r}")

    @classmethod
    def of(cls, table: Mapping[str, Any], where: str = "[[fault]]") -> Fault:
        """What a [[fault]] table says; ``where`` begins the sentence of a UsageError."""
        if "kind" not in table:
            raise UsageError(f"{where}: 'kind' is missing; {_instead('', FAULTS)}")
        values = {key: value for key, value in table.items() if key != "kind"}
        try:
            return cls(str(table["kind"]), **values)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


#: Parameters that each fault has, beside its target.
COMMON = ("smmu", "master", "after", "count", "seed")


def _value(text: str) -> Any:
    """A word of the command line as TOML would have it."""
    for convert in (lambda each: int(each, 0), float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _instead(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"


def _a(target: str) -> str:
    return "an SMMU" if target == "smmu" else "a master"
