# SPDX-License-Identifier: Apache-2.0
"""What one SMMUv3 did, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ...layout import Layout
from ..native import CoreCounts
from .commands import COMMANDS
from .registers import GERROR

#: Of each type of event so many are kept, to be told of: the first show the cause.
FIRST_EVENTS = 3


@dataclass(slots=True)
class Counters:
    """What an instance did since it was made; TLB and configuration caches count for themselves."""

    transactions_made: int = 0  #: by the model, as here below
    translations_made: int = 0
    walks_made: int = 0
    missed_made: int = 0  #: translations that needed a walk
    descriptors_made: int = 0  #: that walks have read or updated
    #: … and what the core has counted.
    core: Callable[[], CoreCounts] = CoreCounts
    ats_requests: int = 0
    ats_translated: int = 0  #: transactions that came with a translated address
    faults: int = 0
    stalls: int = 0
    commands_consumed: int = 0  #: by the model, as CMD_SYNCs
    command_errors: int = 0
    syncs_consumed: int = 0
    page_requests: int = 0
    events: int = 0
    events_lost: int = 0
    #: Commands that the model executed, by opcode …
    executed: Counter[int] = field(default_factory=Counter)
    #: … and those that the core did.
    executed_compiled: Callable[[], dict[int, int]] = dict
    #: Events by type, also those that were lost, and the first of each type in the order in which they came.
    made: Counter[str] = field(default_factory=Counter)
    first_events: list[Layout] = field(default_factory=list)
    interrupts: int = 0  #: of the event queue and of global errors, by MSI or wire
    reads_seen: int = 0  #: of registers, by the model
    #: … and those that were answered from its mirror.
    reads_mirrored: Callable[[], int] = lambda: 0
    writes_seen: int = 0  #: likewise
    #: … and (writes, commands, CMD_SYNCs) that its doorbell has carried out.
    by_doorbell: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)

    @staticmethod
    def kind_of(reported: Layout) -> str | None:
        """Of an event; None: it is a global error."""
        return None if isinstance(reported, GERROR) else type(reported).__name__

    def event_made(self, event: Layout) -> None:
        """Before it is recorded, or lost."""
        kind = type(event).__name__
        self.made[kind] += 1
        if self.made[kind] <= FIRST_EVENTS:
            self.first_events.append(event)

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
    def commands(self) -> int:
        return self.commands_consumed + self.by_doorbell()[1]

    @property
    def syncs(self) -> int:
        return self.syncs_consumed + self.by_doorbell()[2]

    @property
    def writes_carried_out(self) -> int:
        """Of CMDQ_PROD, by the doorbell."""
        return self.by_doorbell()[0]

    @property
    def commands_by_kind(self) -> dict[str, int]:
        """Most first."""
        total = self.executed + Counter(self.executed_compiled())
        return {COMMANDS[opcode].__name__: count for opcode, count in total.most_common()}

    @property
    def events_by_kind(self) -> dict[str, int]:
        """Most first."""
        return dict(self.made.most_common())

    @property
    def mmio_reads(self) -> int:
        return self.reads_seen + self.reads_mirrored()

    @property
    def mmio_writes(self) -> int:
        return self.writes_seen + self.writes_carried_out
