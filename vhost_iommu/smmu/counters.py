# SPDX-License-Identifier: Apache-2.0
"""What one instance did, in numbers, in the words that all models share.

``_made`` is what the model counted; the core counts for itself, and a number told is of both together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ..layout import Layout
from .native import CoreCounts

#: Of each kind of record so many are kept, to be told of: the first show the cause.
FIRST_EVENTS = 3


@dataclass(slots=True)
class Counted:
    """What an instance did since it was made; its caches count for themselves."""

    transactions_made: int = 0  #: by the model, as here below
    translations_made: int = 0
    walks_made: int = 0
    missed_made: int = 0  #: translations that needed a walk
    descriptors_made: int = 0  #: that walks have read or updated
    #: … and what the core has counted.
    core: Callable[[], CoreCounts] = CoreCounts
    faults: int = 0
    stalls: int = 0
    command_errors: int = 0
    page_requests: int = 0
    events: int = 0  #: that were recorded
    events_lost: int = 0
    #: Records by kind, also those that were lost, and the first of each kind in the order in which they came.
    made: Counter[str] = field(default_factory=Counter)
    first_events: list[Layout] = field(default_factory=list)
    interrupts: int = 0

    def _count(self, kind: str, record: Layout) -> None:
        self.made[kind] += 1
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
        """That walks have read or updated."""
        return self.descriptors_made + self.core().descriptors

    @property
    def events_by_kind(self) -> dict[str, int]:
        """Most first."""
        return dict(self.made.most_common())


@dataclass(slots=True)
class StoreCounters(Counted):
    """Of a model without queues: a command is a store that invalidates or waits; MULTI tells of a record that is lost.

    No store is refused and no page is asked for, so ``command_errors`` and ``page_requests`` stay 0.
    """

    kind_of: Callable[[Layout], str] = field(kw_only=True)  #: of a record, such as "FSR.TF"
    syncs: int = 0
    executed: Counter[str] = field(default_factory=Counter)  #: stores, by register
    mmio_reads: int = 0
    mmio_writes: int = 0

    def fault_made(self, record: Layout, *, kept: bool) -> None:
        self._count(self.kind_of(record), record)
        if kept:
            self.events += 1
        else:
            self.events_lost += 1

    @property
    def commands(self) -> int:
        return self.executed.total()

    @property
    def commands_by_kind(self) -> dict[str, int]:
        """Most first."""
        return dict(self.executed.most_common())
