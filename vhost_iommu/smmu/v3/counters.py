# SPDX-License-Identifier: Apache-2.0
"""What one SMMUv3 did, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ...layout import Layout
from ..counters import Counted
from .commands import COMMANDS
from .registers import GERROR


@dataclass(slots=True)
class Counters(Counted):
    """Of its queues, its doorbell and its mirror; a record is an event, and its kind the event's type."""

    ats_requests: int = 0
    ats_translated: int = 0  #: transactions that came with a translated address
    commands_consumed: int = 0  #: by the model, as CMD_SYNCs
    syncs_consumed: int = 0
    #: Commands that the model executed, by opcode …
    executed: Counter[int] = field(default_factory=Counter)
    #: … and those that the core did.
    executed_compiled: Callable[[], dict[int, int]] = dict
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
        self._count(type(event).__name__, event)

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
    def mmio_reads(self) -> int:
        return self.reads_seen + self.reads_mirrored()

    @property
    def mmio_writes(self) -> int:
        return self.writes_seen + self.writes_carried_out
