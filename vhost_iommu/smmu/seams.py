# SPDX-License-Identifier: Apache-2.0
"""The seams of an SMMU: the few places where somebody else may decide, to have it be wrong on purpose (docs/faults.md).

Law: a seam that is set is met, on whatever path; where the compiled core would go past it, the core gives way or the
seam is refused. All else of an instance is sealed: what is assigned there raises, and names the seams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from ..errors import UsageError
from ..layout import Layout
from ..memory import Ended, MemoryLike
from ..sealed import SEAMS, Sealed
from .transaction import Stall, Transaction


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
#: Whether an access to memory aborts: (kind, such as "STE", "CD", "command" or "descriptor", physical address).
Aborts = Callable[[str, int], bool]
#: After how many register reads a store to the register is acknowledged; None: as the machine says.
Acknowledge = Callable[[str], int | None]
#: Asked of each interrupt: (its source, such as "eventq"; what sends it). Ignored, it is lost; who holds it sends it.
Deliver = Callable[[str, Callable[[], None]], Verdict]
#: Of stalls that end, or that software is told of, at the same time: (what befalls them, "resume", "terminate" or
#: "report"; the stalls), which comes first. All of them are in the answer.
Order = Callable[[str, Sequence[Stall]], Sequence[Stall]]
#: Whether a queue that software reads, such as "eventq", has room for a record, if it has any.
Room = Callable[[str], bool]

#: Whether a transaction meets a conflict of cached entries: (its event, "F_CFG_CONFLICT" or "F_TLB_CONFLICT"; it).
Conflict = Callable[[str, Transaction], bool]

#: Register reads after which what is never acknowledged would be.
NEVER = 1 << 62


class Bound(Protocol):
    """What an instance does for who sets its seams."""

    def seams_changed(self) -> None: ...

    def proceed(self) -> None: ...

    def raise_error(self, error: str) -> None: ...

    def may_raise(self, error: str) -> bool: ...

    def execute(self, command: Layout) -> None: ...

    def refuses(self, command: Layout) -> bool: ...


class Seams:
    """The seams of one SMMU, none of them set at first; they may be set and cleared at any time, from any thread."""

    __slots__ = (
        "_bound", "acknowledge", "gate", "memory", "message", "room", "stalls", "translation", "walk", "wire",
    )  # fmt: skip

    gate: Gate | None
    memory: Aborts | None
    acknowledge: Acknowledge | None
    message: Deliver | None
    wire: Deliver | None
    room: Room | None
    stalls: Order | None
    walk: Aborts | None
    translation: Conflict | None
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
        walk: Aborts | None = None,
        translation: Conflict | None = None,
    ) -> None:
        for name, value in (
            ("_bound", None), ("gate", gate), ("memory", memory), ("acknowledge", acknowledge),
            ("message", message), ("wire", wire), ("room", room), ("stalls", stalls),
            ("walk", walk), ("translation", translation),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in SEAMS:
            raise UsageError(f"there is no seam {name!r}; they are {', '.join(SEAMS)} (docs/faults.md)")
        object.__setattr__(self, name, value)
        if self._bound is not None:
            self._bound.seams_changed()

    def bind(self, bound: Bound) -> None:
        """These are the seams of ``bound`` from now on; UsageError: they are another's."""
        if self._bound is not None:
            raise UsageError("these seams are another SMMU's; make Seams() for each")
        object.__setattr__(self, "_bound", bound)
        if isinstance(bound, Sealed):
            bound.seal()
        bound.seams_changed()

    @property
    def closed(self) -> bool:
        """Whether no command, no access to one and no message of one needs to be seen: the core may consume them."""
        return self.gate is None and self.message is None and self.memory is None and self.walk is None

    def around(self, memory: MemoryLike, kind: str) -> MemoryLike:
        """``memory`` for a part of the instance whose accesses are of this kind."""
        return SeamMemory(memory, self, kind)

    # -- what the instance does for who sets them ----------------------------------------------------------------

    def proceed(self) -> None:
        """Go on with commands that the gate has held; from any thread, but not from within a seam."""
        assert self._bound is not None
        self._bound.proceed()

    def raise_error(self, error: str) -> None:
        """Raise a global error, named as the model names it; SFM_ERR: it enters service failure mode."""
        assert self._bound is not None
        self._bound.raise_error(error)

    def may_raise(self, error: str) -> bool:
        """Whether this SMMU has such an error, and it is not active."""
        assert self._bound is not None
        return self._bound.may_raise(error)

    def execute(self, command: Layout) -> None:
        """Carry out a command that the gate has ignored."""
        assert self._bound is not None
        self._bound.execute(command)

    def refuses(self, command: Layout) -> bool:
        """Whether a command that the gate is asked of would end in an error. It is not carried out."""
        assert self._bound is not None
        return self._bound.refuses(command)


#: The kind of a walk's accesses.
DESCRIPTOR = "descriptor"


class SeamMemory(Sealed):
    """Memory whose accesses the seam may abort."""

    def __init__(self, memory: MemoryLike, seams: Seams, kind: str) -> None:
        self._memory = memory
        self._seams = seams
        self._kind = kind

    def _aborts(self, kind: str, pa: int) -> bool:
        aborts = self._seams.walk if kind == DESCRIPTOR else self._seams.memory
        return aborts is not None and aborts(kind, pa)

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
