# SPDX-License-Identifier: Apache-2.0
"""How often what a counter group counts has happened, of all streams and of some (IHI 0070 §10.3, §10.4).

Law: numbers that only grow; where nobody follows a span of streams, nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ...sealed import Sealed
from ..native import CoreCounts
from .counters import Counters

_NOBODY: AbstractContextManager[None] = nullcontext()


class Activity(NamedTuple):
    """Of the events that can be told apart by StreamID, in the order of their numbers."""

    transactions: int = 0  #: pages of requests
    tlb_misses: int = 0  #: of these, those that needed a walk
    configuration_misses: int = 0
    walk_accesses: int = 0  #: descriptors that walks have read or updated
    configuration_accesses: int = 0  #: STEs, CDs and the tables above them that were read
    ats_requests: int = 0
    ats_translated: int = 0  #: transactions that came with a translated address

    def since(self, before: Activity) -> Activity:
        return Activity(*(now - then for now, then in zip(self, before, strict=True)))

    def plus(self, more: Activity) -> Activity:
        return Activity(*(one + other for one, other in zip(self, more, strict=True)))


@dataclass(frozen=True, slots=True)
class Streams:
    """StreamIDs that agree with ``value`` in the bits of ``mask``."""

    mask: int
    value: int

    @classmethod
    def of(cls, stream_id: int, span: bool) -> Streams:
        """As PMCG_SMR and PMCG_EVTYPER.FILTER_SID_SPAN say: the lowest 0 and the 1s below it match either (§10.4)."""
        free = (stream_id ^ stream_id + 1) if span else 0
        mask = 0xFFFF_FFFF & ~free
        return cls(mask, stream_id & mask)

    def __contains__(self, sid: int) -> bool:
        return not (sid ^ self.value) & self.mask


class Structures(Protocol):
    """Whoever reads the structures that configure streams."""

    @property
    def misses(self) -> int: ...

    @property
    def accesses(self) -> int: ...


class Followers(Protocol):
    """Who counts requests that the model never sees, stream by stream: the compiled core."""

    def follow(self, mask: int, value: int) -> int:
        """From now on requests of the StreamIDs (see Streams) are counted apart; a number for ``followed``."""

    def unfollow(self, number: int) -> None: ...

    def followed(self, number: int) -> tuple[int, ...]:
        """CoreCounts since ``follow``."""

    def attribute(self, sid: int | None) -> None:
        """Until None, what the model has it do is of this stream."""


class Followed:
    """What some streams have done since they were followed."""

    def __init__(self, streams: Streams, core: Followers | None) -> None:
        self.streams = streams
        self.made = Activity()
        self._core = core
        self._number = -1 if core is None else core.follow(streams.mask, streams.value)

    def activity(self) -> Activity:
        if self._core is None:
            return self.made
        core = CoreCounts(*self._core.followed(self._number))
        return self.made.plus(Activity(core.translations, core.missed, walk_accesses=core.descriptors))

    def end(self) -> None:
        if self._core is not None:
            self._core.unfollow(self._number)


class Ledger(Sealed):
    """The activity of one SMMU, as its model and its core count it."""

    def __init__(self, counters: Counters, configuration: Structures, core: Followers | None) -> None:
        self._counters = counters
        self._configuration = configuration
        self._core = core
        #: Spans of streams that somebody follows.
        self.followed: list[Followed] = []

    def _made(self) -> Activity:
        """The model's own."""
        made, configuration = self._counters, self._configuration
        return Activity(
            made.translations_made,
            made.missed_made,
            configuration.misses,
            made.descriptors_made,
            configuration.accesses,
            made.ats_requests,
            made.ats_translated,
        )

    def whole(self) -> Activity:
        """Of all streams."""
        made = self._counters
        return self._made()._replace(
            transactions=made.translations, tlb_misses=made.missed, walk_accesses=made.descriptors
        )

    def follow(self, streams: Streams) -> Followed:
        found = Followed(streams, self._core)
        self.followed.append(found)
        return found

    def unfollow(self, followed: Followed) -> None:
        self.followed.remove(followed)
        followed.end()

    def of(self, sid: int) -> AbstractContextManager[None]:
        """What the model does within is of ``sid``; with the SMMU's lock held."""
        return self._attributed(sid) if self.followed else _NOBODY

    @contextmanager
    def _attributed(self, sid: int) -> Iterator[None]:
        before = self._made()
        if self._core is not None:
            self._core.attribute(sid)
        try:
            yield
        finally:
            if self._core is not None:
                self._core.attribute(None)
        done = self._made().since(before)
        for each in self.followed:
            if sid in each.streams:
                each.made = each.made.plus(done)
