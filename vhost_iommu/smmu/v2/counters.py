# SPDX-License-Identifier: Apache-2.0
"""What one SMMUv2 did, in numbers: in the words of all SMMUs, where a command is a store that invalidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ...layout import Layout
from ..native import CoreCounts
from .records import kind_of

#: Of each kind of fault so many are kept, to be told of: the first show the cause.
FIRST_EVENTS = 3


@dataclass(slots=True)
class Counters:
    """What an instance did since it was made; TLBs count for themselves."""

    transactions_made: int = 0  #: by the model, as here below
    translations_made: int = 0
    walks_made: int = 0
    missed_made: int = 0  #: translations that needed a walk
    descriptors_made: int = 0
    #: … and what the core has counted.
    core: Callable[[], CoreCounts] = CoreCounts
    faults: int = 0
    stalls: int = 0
    command_errors: int = 0  #: none: a store is never refused
    syncs: int = 0  #: TLBSYNC and TLBGSYNC
    page_requests: int = 0  #: there is no such thing
    events: int = 0  #: faults that were recorded
    events_lost: int = 0  #: those that only MULTI tells of
    executed: Counter[str] = field(default_factory=Counter)  #: invalidations and waits, by register
    made: Counter[str] = field(default_factory=Counter)  #: faults by kind, also those that were lost
    first_events: list[Layout] = field(default_factory=list)
    interrupts: int = 0  #: rises of lines
    mmio_reads: int = 0
    mmio_writes: int = 0

    @staticmethod
    def kind_of(reported: Layout) -> str | None:
        """Of a fault."""
        return kind_of(reported)

    def fault_made(self, record: Layout, *, kept: bool) -> None:
        kind = kind_of(record)
        self.made[kind] += 1
        if kept:
            self.events += 1
        else:
            self.events_lost += 1
        if self.made[kind] <= FIRST_EVENTS:
            self.first_events.append(record)

    @property
    def transactions(self) -> int:
        return self.transactions_made + self.core().transactions

    @property
    def translations(self) -> int:
        """Pieces, one for each page touched."""
        return self.translations_made + self.core().translations

    @property
    def walks(self) -> int:
        """Of either stage."""
        return self.walks_made + self.core().walks

    @property
    def missed(self) -> int:
        """Translations that needed a walk."""
        return self.missed_made + self.core().missed

    @property
    def descriptors(self) -> int:
        """That walks have read."""
        return self.descriptors_made + self.core().descriptors

    @property
    def commands(self) -> int:
        return self.executed.total()

    @property
    def commands_by_kind(self) -> dict[str, int]:
        """Most first."""
        return dict(self.executed.most_common())

    @property
    def events_by_kind(self) -> dict[str, int]:
        """Most first."""
        return dict(self.made.most_common())
