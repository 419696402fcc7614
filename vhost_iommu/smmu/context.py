# SPDX-License-Identifier: Apache-2.0
"""A translation context: all that translating an address of one stream takes, whatever kind of SMMU found it.

Law: immutable values, made by a programming model and cached by it; nothing here knows a register or a structure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .transaction import NO_MPAM, Mpam
from .walk import Regime, Table


class Response(NamedTuple):
    """How faults of a stage end; one that is bypassed has no say, and aborts and records."""

    abort: bool = True  #: a terminated transaction aborts, else it is RAZ/WI
    record: bool = True
    stall: bool = False


@dataclass(frozen=True, slots=True)
class HalfContext:
    """One half of the input addresses of stage 1: its table, and what is said beside the table's address."""

    table: Table
    top_byte_ignored: bool
    no_unprivileged: bool  #: E0PD: unprivileged accesses find nothing here


@dataclass(frozen=True, slots=True)
class Stage1:
    """Stage 1 of a context."""

    #: By VA[55] (AArch64) or as ``stages.select32`` finds (AArch32); None where translation is disabled.
    halves: tuple[HalfContext | None, HalfContext | None]
    regime: Regime
    asid: int
    aset: int  #: set of ASIDs for which global entries count; 0 where there are no ASIDs
    aarch32: bool
    sizes32: tuple[int, int]  #: T0SZ and T1SZ of AArch32 tables
    response: Response


@dataclass(frozen=True, slots=True)
class Stage2:
    """Stage 2 of a context."""

    table: Table
    protected_walks: bool  #: walks of stage 1 may not read Device memory
    forced_writeback: bool
    two_bit_xn: bool  #: execute-never is said of EL0 and EL1 apart
    response: Response
    execute_needs_read: bool = False  #: AArch32


@dataclass(frozen=True, slots=True)
class Context:
    """All that a translation needs to know of its stream; a stage is None where it is bypassed."""

    world: int  #: the regime that tags stage 1's entries; numbers are the model's
    output_bits: int  #: of physical addresses
    bypass_bits: int  #: of the addresses that a bypassed stage 1 lets pass
    vmid: int = 0
    stage1: Stage1 | None = None
    stage2: Stage2 | None = None
    #: What the stream's configuration makes of a transaction's attributes; None: as it came.
    privileged: bool | None = None
    instruction: bool | None = None
    #: Whether the memory type is replaced, by which MemAttr, and SHCFG; SHCFG 1 leaves shareability as it came.
    overrides: tuple[bool, int, int] = (False, 0, 1)
    mpam: Mpam = NO_MPAM
    #: The compiled core's own form of this, once it is asked for (native.py).
    held: Any = field(default=None, init=False, compare=False, repr=False)

    def response(self, stage: int) -> Response:
        """To a fault of ``stage``."""
        of = self.stage1 if stage == 1 else self.stage2
        return Response() if of is None else of.response


class Published(Protocol):
    """Where requests find contexts without asking a model; all of it is for who holds the instance's lock.

    The model finds there too why a stream has none, as long as that needs no look at anything that software may have
    changed: it goes with whatever is withdrawn.
    """

    @property
    def found(self) -> int:
        """How often requests found one."""

    def publish(self, sid: int, ssid: int | None, context: Context) -> None: ...

    def withdraw(self, sid: int, ssid: int | None) -> None: ...

    def withdraw_streams(self, first: int, last: int) -> None: ...

    def refuse(self, sid: int, ssid: int | None, why: Any) -> None:
        """``refusal`` is ``why``, until anything is withdrawn."""

    def refusal(self, sid: int, ssid: int | None) -> Any:
        """As ``refuse`` was told; None: it was not."""

    def forget_refusals(self) -> None: ...
