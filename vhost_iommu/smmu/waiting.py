# SPDX-License-Identifier: Apache-2.0
"""Transactions that wait for software, whatever the model: in which order they end, how they are tried again, and end.

Law: none is lost and none ends twice; what a retry translated before it stalled again is the master's. Who waits, and
what software says of it, are the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..sealed import Sealed
from ..watch import Watch
from .seams import Seams
from .transaction import Answer, Outcome, Stall, Transaction


class Waiting(Sealed):
    """Derive, and keep those that wait; ``_retrying`` is the one that is tried again just now."""

    watch: Watch
    _seams: Seams
    _retranslate: Callable[[Transaction], Answer]
    _retrying: Stall | None

    def _tell_stall(self, stall: Stall, *, ended: bool = False) -> None:
        t = stall.transaction
        self.watch.stalled(stall.key, t.sid, t.iova, t.size, stall.stag, stall.waits, write=t.write, ended=ended)

    def _ordered(self, what: str, stalls: Sequence[Stall]) -> Sequence[Stall]:
        order = self._seams.stalls
        if order is None or len(stalls) < 2:
            return stalls
        known = dict.fromkeys(stalls)
        # Whatever the seam says, none is lost and none ends twice.
        return [each for each in dict.fromkeys((*order(what, stalls), *stalls)) if each in known]

    def _retry(self, stall: Stall) -> None:
        """As though it had just arrived: it may end, or stall again as the same Stall."""
        stall.stag = None
        outer, self._retrying = self._retrying, stall
        try:
            answer = self._retranslate(stall.transaction)
        finally:
            self._retrying = outer
        if answer.outcome is not Outcome.STALLED:
            self._finish(stall, answer)
        elif answer.pieces:
            # What was translated before the next stall is the master's to use; it asks for the rest anew.
            stall.done.extend(zip(answer.pieces, answer.memory, strict=True))

    def _finish(self, stall: Stall, answer: Answer) -> None:
        if self.watch.on:
            self._tell_stall(stall, ended=True)
        stall.stag = None
        answer.pieces[:0] = [piece for piece, _ in stall.done]
        answer.memory[:0] = [memory for _, memory in stall.done]
        stall.answer = answer
        stall.resolved()
