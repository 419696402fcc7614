# SPDX-License-Identifier: Apache-2.0
"""What one SMMUv3 did, in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What an instance did since it was made; TLB and configuration caches count for themselves."""

    transactions: int = 0
    translations: int = 0  #: pieces, one for each page touched
    walks: int = 0  #: of either stage
    faults: int = 0
    stalls: int = 0
    commands: int = 0
    command_errors: int = 0
    syncs: int = 0
    page_requests: int = 0
    events: int = 0
    events_lost: int = 0
    interrupts: int = 0  #: of the event queue and of global errors, by MSI or wire
    reads_seen: int = 0  #: of registers, by the model
    #: … and those that were answered from its mirror.
    reads_mirrored: Callable[[], int] = lambda: 0
    writes_seen: int = 0  #: likewise
    #: … and those that its doorbell has carried out.
    writes_carried_out: Callable[[], int] = lambda: 0

    @property
    def mmio_reads(self) -> int:
        return self.reads_seen + self.reads_mirrored()

    @property
    def mmio_writes(self) -> int:
        return self.writes_seen + self.writes_carried_out()
