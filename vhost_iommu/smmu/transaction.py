# SPDX-License-Identifier: Apache-2.0
"""What a DMA master asks of an SMMU, and what it is answered: the same for every programming model.

Law: plain values, no behaviour; nothing here knows a register.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ..layout import Layout


class Outcome(Enum):
    """How a transaction ended."""

    OK = "ok"  #: translated whole
    ABORT = "abort"  #: terminated, and the master is told
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


@dataclass(frozen=True, slots=True)
class Piece:
    """``size`` consecutive bytes at physical address ``pa``."""

    pa: int
    size: int


@dataclass(slots=True)
class Answer:
    """The pieces that were translated, in order, up to the first fault; then how it ended.

    ``events`` are the records that the transaction produced, whether or not the event queue had room for them.
    """

    outcome: Outcome = Outcome.OK
    pieces: list[Piece] = field(default_factory=list)
    events: list[Layout] = field(default_factory=list)


class Translator(Protocol):
    """What a master needs of an SMMU."""

    name: str

    def translate(self, transaction: Transaction) -> Answer: ...
