# SPDX-License-Identifier: Apache-2.0
"""Stalled transactions: held from their fault until software resumes or terminates them (IHI 0070 §3.12.2, §4.7).

Law: a stall whose record found no room, or that exceeds IDR5.STALL_MAX, waits unrecorded and is retried when there
is room, as though it had just arrived; none is ever lost. A STAG is free again once it was answered.
What ends at the same time ends in the order of the seam 'stalls', where that is set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ...register_file import RegisterFile
from ...watch import Watch
from ..seams import Seams
from ..transaction import Answer, Outcome, Stall, Transaction
from ..waiting import Waiting
from .counters import Counters
from .events import Event
from .registers import IDR0, IDR5
from .reports import Reports


class Stalls(Waiting):
    """The stalled transactions of one SMMU."""

    OPEN = frozenset({"_begun", "recorded", "resumed", "unrecorded", "_next_stag", "_retrying"})

    def __init__(
        self,
        registers: RegisterFile,
        reports: Reports,
        counters: Counters,
        clock: Callable[[], float],
        retranslate: Callable[[Transaction], Answer],
        watch: Watch,
        seams: Seams,
    ) -> None:
        """``retranslate`` translates a transaction once more; the caller holds the lock."""
        self.registers = registers
        self.reports = reports
        self.counters = counters
        self._clock = clock
        self._retranslate = retranslate
        self.watch = watch
        self._begun = 0
        self._seams = seams
        #: How each is to end that software has resumed, while an order may be asked for: see ``settle``.
        self.resumed: dict[Stall, Callable[[], None]] = {}
        self.recorded: dict[int, Stall] = {}
        self.unrecorded: deque[Stall] = deque()
        self._next_stag = 0
        self._retrying: Stall | None = None

    def __len__(self) -> int:
        return len(self.recorded) + len(self.unrecorded)

    def now(self) -> float:
        """By the clock that stalls are dated with."""
        return self._clock()

    @property
    def limit(self) -> int:
        """How many can be told to software at a time; a STAG has 16 bits."""
        return self.registers[IDR5].STALL_MAX or 0x10000

    def add(self, t: Transaction, address: int, event: Event, answer: Answer) -> None:
        """``t`` faulted at ``address`` and stalls: ``answer`` says so and carries the Stall."""
        left = replace(t, iova=address, size=t.size - (address - t.iova & 2**64 - 1))
        stall = self._retrying
        if stall is None:
            self._begun += 1
            stall = Stall(left, event, self._clock(), key=self._begun)
        else:
            stall.transaction, stall.event = left, event
        answer.outcome = Outcome.STALLED
        answer.stall = stall
        self.counters.stalls += 1
        self._report(stall, answer)
        if self.watch.on:
            self._tell_stall(stall)

    def _report(self, stall: Stall, answer: Answer) -> None:
        if len(self.recorded) >= self.limit or not self.reports.writable():
            self.unrecorded.append(stall)
            stall.waits = "software cannot be told yet: no room for the event"
            return
        while self._next_stag in self.recorded:
            self._next_stag = self._next_stag + 1 & 0xFFFF
        stall.stag = self._next_stag
        self._next_stag = self._next_stag + 1 & 0xFFFF
        self.recorded[stall.stag] = stall
        stall.waits = f"STAG {stall.stag} has no CMD_RESUME"
        stall.event = stall.event.replace(STAG=stall.stag)
        answer.events.append(stall.event)
        self.reports.write(stall.event, stalls=True)

    # -- what software says ----------------------------------------------------------------------------------

    def resume(self, sid: int, stag: int, *, retry: bool, abort: bool) -> None:
        """CMD_RESUME (§4.7.1); a pair that names no stall is no mistake."""
        stall = self.recorded.get(stag)
        if stall is None or stall.sid != sid:
            return
        del self.recorded[stag]
        abort = abort or bool(self.registers[IDR0].TERM_MODEL)
        self.resumed[stall] = partial(self._retry, stall) if retry else partial(self._end, stall, abort)
        if self._seams.stalls is None:
            self.settle()

    def settle(self) -> None:
        """Have all that is resumed go on: at once, or, where an order may be asked for, when no command follows or a
        CMD_SYNC does.
        """
        if not self.resumed:
            return
        resumed, self.resumed = self.resumed, {}
        for stall in self._ordered("resume", tuple(resumed)):
            resumed[stall]()
        self.retry_unrecorded()

    def terminate(self, sid: int | None = None) -> None:
        """Abort the stalls of one stream (CMD_STALL_TERM) or all (CR0.SMMUEN falls)."""
        self.settle()
        gone = [stall for stall in (*self.recorded.values(), *self.unrecorded) if sid in (None, stall.sid)]
        self.recorded = {stag: stall for stag, stall in self.recorded.items() if sid not in (None, stall.sid)}
        self.unrecorded = deque(stall for stall in self.unrecorded if sid not in (None, stall.sid))
        for stall in self._ordered("terminate", gone):
            self._end(stall, True)
        self.retry_unrecorded()

    def retry_unrecorded(self) -> None:
        """There may be room for records: retry those that wait for it, each at most once."""
        if self.unrecorded and len(self.recorded) < self.limit and self.reports.writable():
            self.unrecorded = deque(self._ordered("report", tuple(self.unrecorded)))
        for _ in range(len(self.unrecorded)):
            if not self.unrecorded or len(self.recorded) >= self.limit or not self.reports.writable():
                return
            self._retry(self.unrecorded.popleft())

    def _end(self, stall: Stall, abort: bool) -> None:
        self._finish(stall, Answer(Outcome.ABORT if abort else Outcome.RAZ_WI))
