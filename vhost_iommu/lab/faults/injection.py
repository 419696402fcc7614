# SPDX-License-Identifier: Apache-2.0
"""How a kind of fault is declared: its parameters, what Linux does with it, and the seams at which it strikes.

Law: a kind overrides methods of ``Injection``, one for each seam, and does nothing else.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

from ...errors import UsageError
from ...layout import Layout
from ...smmu.seams import Refuse, Verdict
from ...smmu.transaction import Stall, Transaction

#: (seconds, function): has the function called later, by another thread.
Later = Callable[[float, Callable[[], None]], None]
#: A parameter that is a number of seconds is at most this.
DAY = 86400.0


@dataclass(frozen=True)
class Parameter:
    """A parameter of one kind of fault; ``kind`` is int, float, str (of this ``form``) or what Literal holds."""

    name: str
    kind: Any
    default: Any
    about: str
    form: str = ""  #: a pattern

    @property
    def needed(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def expected(self) -> str:
        if self.choices:
            return f"it is one of {', '.join(self.choices)}"
        if self.form:
            return f"it is {self.about}"
        return f"it is a number, 0 to {DAY:g}" if self.kind is float else "it is a whole number, 0 or more"

    def check(self, fault: str, value: Any) -> None:
        types = (int, float) if self.kind is float else (int,)
        if self.choices:
            fits = value in self.choices
        elif self.form:
            fits = re.fullmatch(self.form, str(value)) is not None
        else:
            fits = type(value) in types and value >= 0 and (self.kind is not float or _finite(value))
        if not fits:
            raise UsageError(f"{fault}: '{self.name}' is {value!r}; {self.expected}")


@dataclass(frozen=True)
class Seen:
    """What stock Linux 6.12 was seen to do with a fault, or a bare-metal program; tests/boot asserts it."""

    fault: str  #: its parameters, as ``--fault`` takes them
    says: tuple[str, ...]  #: what lines of the driver have; none: it prints nothing
    then: str  #: what comes of it, in a sentence
    fails: tuple[str, ...] = ()  #: cases that fail
    dies: bool = False  #: the guest does not end well
    machine: str = "smmuv3-linux"
    cases: tuple[str, ...] = ()  #: in which it is met; none: those that any fault of the machine is met in
    own: tuple[str, ...] = ()  #: NAME=LINE, of these such as no guest has by itself
    features: tuple[str, ...] = ()  #: lines of its file that are others, or more
    boot: str = ""  #: met with all others of this name, in one boot


@dataclass(frozen=True)
class Bare:
    """What a bare-metal program saw of a fault that stock Linux cannot meet; tests/boot asserts it."""

    fault: str  #: its parameters, as ``--fault`` takes them
    program: str  #: of guest/bare
    case: str  #: of it
    then: str  #: what software sees, in a sentence
    passes: bool = True  #: the case
    machine: str = "smmuv3-everything-bare"
    features: tuple[str, ...] = ()  #: lines of its file that are others, or more


def _finite(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds <= DAY


def parameter(about: str, default: Any = dataclasses.MISSING, form: str = "") -> Any:
    """Declares a parameter in an Injection; without a default it has to be given. ``form``: what a text matches."""
    return dataclasses.field(default=default, metadata={"about": about, "form": form}, kw_only=True)


class Asked(Protocol):
    """When a fault strikes, as it was asked for."""

    @property
    def after(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def seed(self) -> int: ...


class Host(Protocol):
    """What does for a fault at work what it cannot do itself."""

    @property
    def later(self) -> Later | None: ...

    def tell(self, injection: Injection, what: str) -> None:
        """``injection`` strikes: say so."""

    def error(self, smmu: str, error: str) -> None:
        """Raise a global error."""

    def may_raise(self, smmu: str, error: str) -> bool:
        """Whether it can be raised."""

    def proceed(self, smmu: str) -> None:
        """Go on with commands that were held."""

    def stray(self, master: str, transaction: Transaction) -> str:
        """Have a master make ``transaction`` beside its work; what came of it, in words. From any thread."""
        ...

    def execute(self, smmu: str, command: Layout) -> None:
        """Carry out a command that was ignored."""

    def refuses(self, smmu: str, command: Layout) -> bool:
        """Whether a command would end in an error."""


@dataclass
class Injection:
    """A fault at work. A kind of fault is a subclass that overrides the seams it is about; its docstring says what it
    does, ``SECTION`` where the specification has what it breaks, and ``LINUX`` or ``BARE`` what guests see of it.
    """

    KIND: ClassVar[str] = ""
    TARGET: ClassVar[Literal["smmu", "master"]] = "smmu"
    SECTION: ClassVar[str] = ""
    LINUX: ClassVar[tuple[Seen, ...]] = ()
    BARE: ClassVar[tuple[Bare, ...]] = ()  #: where stock Linux cannot meet it
    LATER: ClassVar[bool] = False  #: it does something later

    fault: Asked
    lab: Host
    name: str  #: of whom it befalls
    struck: int = dataclasses.field(default=0, init=False)
    _passed: int = dataclasses.field(default=0, init=False)
    _taken: int = dataclasses.field(default=0, init=False)
    _ended: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.fault.seed)

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        hints = get_type_hints(cls)
        return {
            each.name: Parameter(
                each.name, hints[each.name], each.default, each.metadata["about"], each.metadata["form"]
            )
            for each in dataclasses.fields(cls)
            if "about" in each.metadata
        }

    @property
    def spent(self) -> bool:
        return self.fault.count != 0 and self._taken >= self.fault.count

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.spent

    def strikes(self, what: str) -> bool:
        """Whether it strikes at this chance, which is ``what``; it says so."""
        if not self.takes():
            return False
        self.strike(what)
        return True

    def takes(self) -> bool:
        """Whether it takes this chance: then it strikes, now or later."""
        if self.spent or self._ended:
            return False
        self._passed += 1
        if self._passed <= self.fault.after:
            return False
        self._taken += 1
        return True

    def strike(self, what: str) -> None:
        """It strikes, because of a chance that it took; it says so."""
        self.struck += 1
        self.lab.tell(self, what)

    def end(self) -> None:
        """It takes no chance any more; what it has kept is done now."""
        self._ended = True

    def asks(self, seam: str) -> bool:
        """Whether it strikes at this seam."""
        return getattr(type(self), seam) is not getattr(Injection, seam)

    # What a kind overrides; None, or no change: nothing is wrong.

    def gate(self, command: Layout) -> Verdict | Refuse | None:
        return None

    def memory(self, kind: str, pa: int) -> bool:
        return False

    def walk(self, kind: str, pa: int) -> bool:
        return False

    def translation(self, event: str, transaction: Transaction) -> bool:
        return False

    def acknowledge(self, register: str) -> int | None:
        return None

    def message(self, source: str, send: Callable[[], None]) -> Verdict | None:
        return None

    def wire(self, source: str, send: Callable[[], None]) -> Verdict | None:
        return None

    def room(self, queue: str) -> bool:
        return True

    def stalls(self, what: str, stalls: Sequence[Stall]) -> Sequence[Stall] | None:
        return None

    def socket(self) -> float | None:
        return 0.0

    def rewrite(self, transaction: Transaction) -> Transaction:
        return transaction

    def on_reset(self) -> None:
        pass

    def invalidation(self, what: str, complete: Callable[[], None]) -> Verdict | None:
        return None
