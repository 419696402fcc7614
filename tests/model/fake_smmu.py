# SPDX-License-Identifier: Apache-2.0
"""A translator for tests of masters: 4 KiB pages at an offset, some of which fault, and a log of what was asked."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from vhost_iommu.smmu.transaction import Answer, Begun, Outcome, PageHint, Piece, Transaction
from vhost_iommu.watch import Watch

PAGE = 4096


class FakeSmmu:
    """[base, base + size) lies at physical ``offset``; all else, and ``faulting`` pages, end as ``outcome``."""

    direct = None

    name = "fake"

    def __init__(self, base: int = 0, size: int = 1 << 48, offset: int | None = None) -> None:
        self.base, self.size = base, size
        self.offset = base if offset is None else offset
        self.faulting: set[int] = set()
        self.outcome = Outcome.ABORT
        self.asked: list[Transaction] = []
        self.refused: list[Transaction] = []
        self.hints: list[PageHint] = []
        self.watch = Watch("fake")
        self.lock: AbstractContextManager[Any] = nullcontext()

    def unsupported(self, transaction: Transaction) -> Answer:
        self.refused.append(transaction)
        return Answer(Outcome.ABORT)

    def page_hint(self, hint: PageHint) -> None:
        self.hints.append(hint)

    def forbid(self, iova: int, size: int = 1) -> None:
        self.faulting.update(range(iova // PAGE, (iova + size - 1) // PAGE + 1))

    def translate(self, transaction: Transaction, begun: Begun | None = None) -> Answer:
        self.asked.append(transaction)
        answer = Answer()
        at, end = transaction.iova, transaction.iova + transaction.size
        while at < end:
            page = at // PAGE
            inside = self.base <= at < self.base + self.size
            if not inside or page in self.faulting:
                answer.outcome = self.outcome
                break
            part = min(end, (page + 1) * PAGE) - at
            answer.pieces.append(Piece(at - self.base + self.offset, part))
            at += part
        return answer
