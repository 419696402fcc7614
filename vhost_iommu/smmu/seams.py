# SPDX-License-Identifier: Apache-2.0
"""The seams of an SMMU: the few places where somebody else may decide, to have it be wrong on purpose (docs/faults.md).

Law: a seam that is set is met, on whatever path; where the compiled core would go past it, the core gives way or the
seam is refused. All else of an instance is sealed: what is assigned there raises, and names the seams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar

from ..errors import UsageError
from ..layout import Layout
from ..memory import Ended, MemoryLike
from .transaction import Stall

C = TypeVar("C", bound=type)


class Verdict(Enum):
    """What becomes of a command at the gate, beside its refusal."""

    EXECUTE = "execute"
    IGNORE = "ignore"  #: it is consumed, and has no effect
    HOLD = "hold"  #: it and what follows wait until ``proceed``, or any store that has commands consumed


@dataclass(frozen=True, slots=True)
class Refuse:
    """The command ends in an error and stops its queue."""

    error: str  #: as the model names it, such as "CERROR_ILL"


#: Asked of each command before it is executed.
Gate = Callable[[Layout], Verdict | Refuse]
#: Whether an access to memory aborts: (kind, such as "STE", "CD", "descriptor" or "command", physical address).
Aborts = Callable[[str, int], bool]
#: After how many register reads a store to the register is acknowledged; None: as the machine says.
Acknowledge = Callable[[str], int | None]
#: Asked of each interrupt: (its source, such as "eventq"; what sends it). Ignored, it is lost; who holds it sends it.
Deliver = Callable[[str, Callable[[], None]], Verdict]
#: Of stalls that end, or that software is told of, at the same time: (what befalls them, "resume", "terminate" or
#: "report"; the stalls), which comes first. All of them are in the answer.
Order = Callable[[str, Sequence[Stall]], Sequence[Stall]]


#: Asked of each message of a client: the seconds after which it is carried out; infinite: never, nor is anything sent
#: any more; None: the connection is closed instead.
Socket = Callable[[], float | None]
#: Whether a queue that software reads, such as "eventq", has room for a record, if it has any.
Room = Callable[[str], bool]

#: Register reads after which what is never acknowledged would be.
NEVER = 1 << 62


class Bound(Protocol):
    """What an instance does for who sets its seams."""

    def seams_changed(self) -> None: ...

    def proceed(self) -> None: ...

    def raise_error(self, error: str) -> None: ...


class Seams:
    """The seams of one SMMU, none of them set at first; they may be set and cleared at any time, from any thread.

    ``memory`` and ``socket`` alone have to be set before the instance is made: the core reads memory by itself, so that
    an instance with that seam is the reference's; and a client once served by the pump stays so.
    """

    __slots__ = ("_bound", "acknowledge", "gate", "memory", "message", "room", "socket", "stalls", "wire")

    gate: Gate | None
    memory: Aborts | None
    acknowledge: Acknowledge | None
    message: Deliver | None
    wire: Deliver | None
    room: Room | None
    stalls: Order | None
    socket: Socket | None
    _bound: Bound | None

    def __init__(
        self,
        *,
        gate: Gate | None = None,
        memory: Aborts | None = None,
        acknowledge: Acknowledge | None = None,
        message: Deliver | None = None,
        wire: Deliver | None = None,
        room: Room | None = None,
        stalls: Order | None = None,
        socket: Socket | None = None,
    ) -> None:
        for name, value in (
            ("_bound", None), ("gate", gate), ("memory", memory), ("acknowledge", acknowledge),
            ("message", message), ("wire", wire), ("room", room), ("stalls", stalls), ("socket", socket),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in NAMES:
            raise UsageError(f"there is no seam {name!r}; they are {', '.join(NAMES)} (docs/faults.md)")
        early = name in _EARLY and self._bound is not None
        if early and (getattr(self, name) is None) != (value is None):
            raise UsageError(
                f"the seam {name!r} is set before an SMMU is made, and stays: give Seams({name}=…) to Smmu(seams=…)"
            )
        object.__setattr__(self, name, value)
        if self._bound is not None:
            self._bound.seams_changed()

    def bind(self, bound: Bound) -> None:
        """These are the seams of ``bound`` from now on; UsageError: they are another's."""
        if self._bound is not None:
            raise UsageError("these seams are another SMMU's; make Seams() for each")
        object.__setattr__(self, "_bound", bound)

    @property
    def closed(self) -> bool:
        """Whether no command and no message of one needs to be seen: the core may carry out writes of CMDQ_PROD."""
        return self.gate is None and self.message is None

    def around(self, memory: MemoryLike, kind: str) -> MemoryLike:
        """``memory`` for a part of the instance whose accesses are of this kind."""
        return memory if self.memory is None else SeamMemory(memory, self, kind)

    # -- what the instance does for who sets them ----------------------------------------------------------------

    def proceed(self) -> None:
        """Go on with commands that the gate has held; from any thread, but not from within a seam."""
        assert self._bound is not None
        self._bound.proceed()

    def raise_error(self, error: str) -> None:
        """Raise a global error, named as the model names it."""
        assert self._bound is not None
        self._bound.raise_error(error)


#: What may be set.
NAMES = ("gate", "memory", "acknowledge", "message", "wire", "room", "stalls", "socket")
#: Of these, what is set before an SMMU is made.
_EARLY = ("memory", "socket")


class SeamMemory:
    """Memory whose accesses the seam may abort."""

    __slots__ = ("_kind", "_memory", "_seams")

    def __init__(self, memory: MemoryLike, seams: Seams, kind: str) -> None:
        self._memory = memory
        self._seams = seams
        self._kind = kind

    def _aborts(self, kind: str, pa: int) -> bool:
        return self._seams.memory is not None and self._seams.memory(kind, pa)

    def fetch(self, kind: str, pa: int, size: int) -> bytes | None:
        """A read of another kind than this part's accesses are."""
        return None if self._aborts(kind, pa) else self._memory.read(pa, size)

    def read(self, pa: int, size: int) -> bytes | None:
        return self.fetch(self._kind, pa, size)

    def write(self, pa: int, data: bytes) -> bool:
        return not self._aborts(self._kind, pa) and self._memory.write(pa, data)

    def compare_and_swap_u64(self, pa: int, expected: int, new: int) -> bool | None:
        return None if self._aborts(self._kind, pa) else self._memory.compare_and_swap_u64(pa, expected, new)

    def post(self, pa: int, data: bytes, ended: Ended) -> None:
        if self._aborts("MSI", pa):
            ended(True)
        else:
            self._memory.post(pa, data, ended)


def fetch(memory: MemoryLike, kind: str, pa: int, size: int) -> bytes | None:
    """A read by a part whose accesses are of several kinds."""
    return memory.fetch(kind, pa, size) if isinstance(memory, SeamMemory) else memory.read(pa, size)


# -- what is sealed ----------------------------------------------------------------------------------------------


class Sealed:
    """A part of which nothing but ``OPEN`` is assigned once it is sealed; so no method of it can be replaced."""

    #: What its owner, or itself, assigns while it works.
    OPEN: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if "_sealed" in self.__dict__ and name not in self.OPEN:
            raise UsageError(
                f"{type(self).__name__}.{name} is no seam, and the compiled core would go past it; "
                f"set one of smmu.seams instead: {', '.join(NAMES)}, or a port's 'rewrite' (docs/faults.md)"
            )
        object.__setattr__(self, name, value)

    def seal(self) -> None:
        """All that it consists of is there."""
        self.__dict__["_sealed"] = True


def declared(cls: C) -> C:
    """Of a class whose methods the compiled core has its own of: remember them as they are declared."""
    cls._declared = {name: method for name, method in vars(cls).items() if callable(method)}  # type: ignore[attr-defined]
    return cls


def refuse_replaced(*classes: Any) -> None:
    """UsageError where a method of a ``declared`` class was replaced, which the compiled core would not call."""
    for each in classes:
        for name, method in each._declared.items():
            if vars(each).get(name) is not method:
                raise UsageError(
                    f"{each.__name__}.{name} was replaced, and the compiled core would go past it; set the seam 'gate' "
                    "or another of Seams instead (docs/faults.md), or make the SMMU with pure=True"
                )
