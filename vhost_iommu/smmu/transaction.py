# SPDX-License-Identifier: Apache-2.0
"""What a DMA master asks of an SMMU, and what it is answered: the same for every programming model.

Law: plain values, no behaviour; nothing here knows a register.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

from ..layout import Layout
from ..watch import Watch
from .memory_type import INCOMING, MemoryType

#: The way of ``Requests`` to say that there is no SubstreamID.
NO_SSID = 0xFFFF_FFFF


class Outcome(Enum):
    """How a transaction ended."""

    OK = "ok"  #: translated whole
    ABORT = "abort"  #: terminated, and the master is told
    STALLED = "stalled"  #: waits for software; see Answer.stall
    RAZ_WI = "raz/wi"  #: terminated silently: reads return zero, writes vanish


@dataclass(frozen=True, slots=True)
class Transaction:
    """One access of ``size`` bytes at ``iova`` by the stream ``sid``; ``ssid`` None: no SubstreamID."""

    sid: int
    iova: int
    size: int = 1
    write: bool = False
    ssid: int | None = None
    privileged: bool = False
    instruction: bool = False
    memory: MemoryType = INCOMING  #: as the master gives it
    translated: bool = False  #: PCIe ATS: the address is physical, or an IPA with split-stage ATS


@dataclass(frozen=True, slots=True)
class PageHint:
    """A device will soon use ``npages`` (1 to 255) pages of 4 KiB from ``address`` on, in the ways that are true."""

    sid: int
    address: int
    npages: int = 1
    ssid: int | None = None
    read: bool = False
    write: bool = False
    execute: bool = False
    privileged: bool = False


class Piece(NamedTuple):
    """``size`` consecutive bytes at physical address ``pa``."""

    pa: int
    size: int


class Mpam(NamedTuple):
    """With which identifiers an access leaves the SMMU, for memory to share itself out and to count by."""

    partid: int = 0
    pmg: int = 0


#: What all have where there is no MPAM.
NO_MPAM = Mpam()


@dataclass(slots=True, eq=False)
class Stall:
    """A transaction that waits for software. ``transaction`` is what is left of it.

    ``answer`` is None until it ends; then ``resolved`` is called, by whoever made it end and with the SMMU's
    lock held: it must not block.
    """

    transaction: Transaction
    event: Layout
    since: float  #: by the SMMU's clock, in seconds
    key: int = 0  #: its number among the SMMU's
    stag: int | None = None  #: None: not told to software yet
    waits: str = ""  #: for what, in words
    done: list[tuple[Piece, MemoryType]] = field(default_factory=list)  #: translated by retries that stalled again
    answer: Answer | None = None
    resolved: Callable[[], None] = lambda: None

    @property
    def sid(self) -> int:
        return self.transaction.sid


@dataclass(slots=True)
class Answer:
    """The pieces that were translated, in order, up to the first fault; then how it ended.

    ``events`` are the records that the transaction produced, whether or not the event queue had room for them.
    """

    outcome: Outcome = Outcome.OK
    pieces: list[Piece] = field(default_factory=list)
    #: The memory type with which each piece's access leaves the SMMU.
    memory: list[MemoryType] = field(default_factory=list)
    events: list[Layout] = field(default_factory=list)
    stall: Stall | None = None
    #: Of its accesses; where retries went on with what had stalled, of the last of them.
    mpam: Mpam = NO_MPAM


class Begun(Protocol):
    """A request that ``Requests`` carried out in part; of the rest ``Translator.translate`` says what it comes to."""

    @property
    def done(self) -> int:
        """So many bytes."""

    @property
    def data(self) -> bytes:
        """Those that were read."""

    @property
    def counted(self) -> bool:
        """Whether it is, and the search for its context; False: the translator has all of it to do."""


class Run(Protocol):
    """How far a run of transfers went, and what is known of the one that ended it."""

    @property
    def done(self) -> int:
        """Bytes of transfers that were done whole."""

    @property
    def total(self) -> int:
        """What their words add up to, where that was asked for."""

    @property
    def read(self) -> bytes | Begun | None:
        """Of the transfer that ended it, the bytes, or how their read ended; None: it has not begun."""

    @property
    def written(self) -> Begun | None:
        """How its write ended; None: it has not begun."""


class Requests(Protocol):
    """Whole requests in one call each, as far as they go without a fault (``_core/door.pyx``).

    ``slot``: where the caller's thread is expected; ``ssid`` may be NO_SSID; ``access``: bit 1 privileged, bit 2
    instruction.
    """

    def read(self, slot: int, sid: int, ssid: int, iova: int, size: int, access: int) -> bytes | Begun: ...

    def write(self, slot: int, sid: int, ssid: int, iova: int, data: bytes, access: int) -> Begun | None: ...

    # Runs of transfers, none of which crosses a multiple of ``burst`` bytes (8 to 4096) of its (source's) address. Each
    # is a transaction, or two, and is done as if it were asked for by itself.

    def run_copy(
        self, slot: int, sid: int, ssid: int, source: int, target: int, size: int, reads: int, writes: int, burst: int
    ) -> Run:
        """``reads`` and ``writes``: the access of either side."""

    def run_sum64(self, slot: int, sid: int, ssid: int, iova: int, size: int, access: int, burst: int) -> Run:
        """Of little-endian words; addresses and size are multiples of 8."""

    def run_write(self, slot: int, sid: int, ssid: int, iova: int, data: bytes, access: int, burst: int) -> Run: ...


class Translator(Protocol):
    """What a master needs of an SMMU."""

    @property
    def name(self) -> str: ...

    #: Where what it does is told, and what its masters do.
    watch: Watch
    #: Held by a master from a translation until its access is done.
    lock: AbstractContextManager[Any]

    @property
    def direct(self) -> Requests | None:
        """Whole requests in one call, without ``lock``; None: by ``translate`` alone. Faults are for ``translate``."""

    def translate(self, transaction: Transaction, begun: Begun | None = None) -> Answer:
        """What becomes of ``transaction``; ``begun``: it is the rest of what ``direct`` began."""

    def unsupported(self, transaction: Transaction) -> Answer:
        """In place of ``translate``, for a transaction of a type that is not supported."""
        ...

    def page_hint(self, hint: PageHint) -> None: ...
