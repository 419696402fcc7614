# SPDX-License-Identifier: Apache-2.0
"""A PCIe function's address translation cache (ATC) and its page requests (IHI 0070 §3.9.1, chapter 8).

Law: an entry stays until an invalidation names it, whatever the tables say by now, or until capacity evicts it.
All state is guarded by the SMMU's lock, held from lookup to access: nothing is in flight when an invalidation comes.
Not modelled: global entries, credits, groups of several pages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum

from ..smmu.ats import (
    AtsEntry,
    AtsInvalidation,
    AtsRequest,
    AtsStatus,
    AtsTranslator,
    PageRequest,
    PageResponse,
    PrgResponse,
)
from ..smmu.seams import Deliver, Verdict
from ..smmu.transaction import Answer, Outcome, Transaction

#: Addresses of requests are in units of this many bytes.
UNIT = 4096
#: Invalidations that may be held at a time, as many as PCIe's invalidate queue takes at most.
MOST_HELD = 32
#: Page request group indices have 9 bits.
GROUPS = 512


class Refusal(Enum):
    """Why an access does not happen."""

    DENIED = "no permission"  #: the completion's, after as many page requests as may be
    UR = "unsupported request"
    CA = "completer abort"
    PAGE = "page request refused"  #: the response said so


class Answering(IntEnum):
    """What becomes of invalidations."""

    COMPLETE = 0  #: at once
    HOLD = 1  #: not yet; entries stay in use until they are released
    TIME_OUT = 2  #: never; entries stay


_REFUSALS = {AtsStatus.UR: Refusal.UR, AtsStatus.CA: Refusal.CA}


class AtsUser:
    """A part of a master that uses the ATC, and what it is told; called with the SMMU's lock held.

    ``group`` is the index of its page request group, None if it makes no page requests; ``most`` requests are made
    in a row for what is denied nevertheless.
    """

    def __init__(self, group: int | None = None, most: int = 8) -> None:
        self.group = group
        self.most = most

    def hit(self) -> None:
        """A translation was there."""

    def asked(self, refusal: Refusal | None) -> None:
        """A translation request was completed; None: with what was wanted."""

    def page_requested(self, request: PageRequest) -> None:
        """A page request was sent."""


@dataclass(slots=True, eq=False)
class PageWait:
    """What is left of a transaction that waits for the response to a page request group.

    ``sent`` False: the group is another transaction's, after whose response this one tries again.
    """

    transaction: Transaction
    user: AtsUser
    sent: bool
    tries: int  #: page requests in a row, this one included
    answer: PrgResponse | None = None
    resolved: Callable[[], None] = lambda: None


@dataclass(slots=True)
class AtcAnswer(Answer):
    """An answer by way of the ATC. ``page``: STALLED, and not by the SMMU."""

    refusal: Refusal | None = None
    page: PageWait | None = None


@dataclass(slots=True)
class _Group:
    """A page request group without a response yet."""

    ssid: int | None
    waits: list[PageWait] = field(default_factory=list)


class Atc:
    """The ATC of one master behind ``smmu``; made, it is the endpoint of ``sids`` there."""

    def __init__(
        self,
        name: str,
        smmu: AtsTranslator,
        sids: Sequence[int],
        *,
        capacity: int = 64,
        pri: bool = False,
        answering: Answering = Answering.COMPLETE,
    ) -> None:
        """``capacity`` in entries, at least one; ``pri``: page requests can be made; ``answering`` at reset."""
        self.name = name
        self.smmu = smmu
        self.capacity = capacity
        self.pri = pri
        self.watch = smmu.watch
        self._at_reset = answering
        self.answering = answering
        #: The least recently used first.
        self._entries: OrderedDict[tuple[int, int | None, bool, int, int], AtsEntry] = OrderedDict()
        #: log2 of the sizes that entries have, or had.
        self._shifts: set[int] = set()
        self._held: list[AtsInvalidation] = []
        #: The seam of an ATC (docs/faults.md): asked of each invalidation, what it names and what completes it.
        #: IGNORE: it times out; HOLD: it is completed later, by the seam.
        self.invalidation: Deliver | None = None
        self._withheld: set[AtsInvalidation] = set()
        self._groups: dict[tuple[int, int], _Group] = {}
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.invalidations = 0
        #: Page responses for which no group waited.
        self.unexpected = 0
        with smmu.lock:
            for sid in sids:
                smmu.endpoints[sid] = self

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def held(self) -> int:
        """Invalidations that wait to be released."""
        return len(self._held) + len(self._withheld)

    def reset(self) -> None:
        """As after a function level reset: nothing is cached, so invalidations that were held have completed."""
        with self.smmu.lock:
            self._clear()
            self._groups.clear()
            self.answer_invalidations(Answering.COMPLETE)
            for withheld in tuple(self._withheld):
                self._complete(withheld)
            self.answering = self._at_reset

    # -- transactions ----------------------------------------------------------------------------------------

    def translate(self, t: Transaction, user: AtsUser, tries: int = 0) -> AtcAnswer:
        """Translate ``t`` by entries, asking for those that are missing; the caller holds the lock until its access.

        ``tries`` page requests were made for its first byte already.
        """
        answer = AtcAnswer()
        while t.size:
            entry = self._entry(t, user)
            if isinstance(entry, Refusal):
                answer.outcome, answer.refusal = Outcome.ABORT, entry
                if entry is Refusal.DENIED:
                    answer.page = self._page(t, user, tries)
                if answer.page is not None:
                    answer.outcome = Outcome.STALLED
                break
            offset = t.iova - entry.iova
            size = min(t.size, entry.size - offset)
            part = self.smmu.translate(replace(t, iova=entry.pa + offset, size=size, translated=True))
            answer.pieces += part.pieces
            answer.memory += part.memory
            answer.mpam = part.mpam
            answer.events += part.events
            if part.outcome is not Outcome.OK:
                answer.outcome = Outcome.ABORT
                break
            t, tries = replace(t, iova=t.iova + size, size=t.size - size), 0
        return answer

    def again(self, wait: PageWait) -> AtcAnswer:
        """Go on after a response; the caller holds the lock until its access."""
        if wait.sent and wait.answer is not PrgResponse.SUCCESS:
            return AtcAnswer(Outcome.ABORT, refusal=Refusal.PAGE)
        return self.translate(wait.transaction, wait.user, wait.tries)

    def _entry(self, t: Transaction, user: AtsUser) -> AtsEntry | Refusal:
        """What permits ``t`` at its first byte."""
        # Without a PASID there is neither privilege nor execution (§13.7).
        tagged = t.ssid is not None
        privileged, execute = t.privileged and tagged, t.instruction and tagged

        def permits(entry: AtsEntry) -> bool:
            return entry.write if t.write else entry.execute if execute else entry.read

        for shift in self._shifts:
            key = (t.sid, t.ssid, privileged, shift, t.iova >> shift)
            cached = self._entries.get(key)
            if cached is not None and permits(cached):
                self._entries.move_to_end(key)
                self.hits += 1
                user.hit()
                return cached
        self.misses += 1
        begin, end = t.iova & -UNIT, -(-(t.iova + t.size) // UNIT) * UNIT
        completion = self.smmu.ats_request(
            AtsRequest(t.sid, begin, end - begin, t.ssid, not t.write, privileged, execute)
        )
        refusal = _REFUSALS.get(completion.status)
        if refusal is None:
            for entry in reversed(completion.entries):
                if entry.read or entry.write:
                    self._insert(t.sid, t.ssid, privileged, entry)
            found = completion.entries[0]
            refusal = None if permits(found) else Refusal.DENIED
        if self.watch.on:
            said = "granted" if refusal is None else refusal.value
            where = {"sid": t.sid, "iova": t.iova, "size": t.size}
            self.watch.noted(self.name, "translation", f"ATS request: {said}", **where)
        user.asked(refusal)
        return found if refusal is None else refusal

    def _insert(self, sid: int, ssid: int | None, privileged: bool, entry: AtsEntry) -> None:
        shift = entry.size.bit_length() - 1
        key = (sid, ssid, privileged, shift, entry.iova >> shift)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._shifts.add(shift)
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)
            self.evictions += 1

    # -- page requests (chapter 8) ---------------------------------------------------------------------------

    def _page(self, t: Transaction, user: AtsUser, tries: int) -> PageWait | None:
        """Ask for the page of the first byte of ``t``; None: there have been enough requests."""
        if user.group is None or tries >= user.most:
            return None
        group = self._groups.get((t.sid, user.group))
        if group is not None:
            group.waits.append(PageWait(t, user, False, tries))
            return group.waits[-1]
        wait = PageWait(t, user, True, tries + 1)
        self._groups[t.sid, user.group] = _Group(t.ssid, [wait])
        tagged = t.ssid is not None
        request = PageRequest(
            t.sid,
            t.iova & -UNIT,
            user.group,
            t.ssid,
            read=not t.write,
            write=t.write,
            execute=t.instruction and tagged and not t.write,
            privileged=t.privileged and tagged,
            last=True,
        )
        user.page_requested(request)
        if self.watch.on:
            self.watch.noted(self.name, "fault", "page request", sid=t.sid, iova=t.iova, group=user.group)
        # The response may come from within.
        self.smmu.page_request(request)
        return wait

    def page_response(self, response: PageResponse) -> None:
        """One without a PASID is for whatever group has its index: not every endpoint asks for the PASID back."""
        group = self._groups.get((response.sid, response.prgi))
        if self.watch.on:
            said = f"page response {response.code.name}" + (" to nobody" if group is None else "")
            self.watch.noted(self.name, "fault", said, sid=response.sid, group=response.prgi)
        if group is None or response.ssid not in (None, group.ssid):
            self.unexpected += 1
            return
        del self._groups[response.sid, response.prgi]
        for wait in group.waits:
            wait.answer = response.code
        for wait in group.waits:
            wait.resolved()

    def stop(self, sid: int, ssid: int) -> None:
        """Send a stop marker: no more page requests of this PASID follow from before."""
        self.smmu.page_request(PageRequest(sid, 0, 0, ssid, last=True))

    # -- invalidations (§4.5.1) ------------------------------------------------------------------------------

    def invalidate(self, invalidation: AtsInvalidation) -> None:
        self.invalidations += 1
        if self.watch.on:
            ssid = -1 if invalidation.ssid is None else invalidation.ssid
            self.watch.noted(
                self.name,
                "command",
                f"invalidate: {self.answering.name}",
                sid=invalidation.sid,
                ssid=ssid,
                address=invalidation.address,
                size=invalidation.size,
            )
        verdict = Verdict.EXECUTE
        if self.invalidation is not None:
            what = f"{invalidation.size:#x} bytes at {invalidation.address:#x} of StreamID {invalidation.sid:#x}"
            verdict = self.invalidation(what, lambda: self._complete(invalidation))
        holds = verdict is Verdict.HOLD or (verdict is Verdict.EXECUTE and self.answering is Answering.HOLD)
        if verdict is Verdict.IGNORE or (holds and self.held >= MOST_HELD):
            invalidation.time_out()
        elif verdict is Verdict.HOLD:
            self._withheld.add(invalidation)
        elif holds:
            self._held.append(invalidation)
        else:
            self._answer(invalidation)

    def _complete(self, invalidation: AtsInvalidation) -> None:
        """One that the seam has withheld, once."""
        with self.smmu.lock:
            if invalidation in self._withheld:
                self._withheld.discard(invalidation)
                self._forget(invalidation)
                invalidation.complete()

    def answer_invalidations(self, answering: Answering) -> None:
        """Answer those that come like this from now on, and those that are held, unless they are to be held on."""
        with self.smmu.lock:
            self.answering = answering
            if answering is not Answering.HOLD:
                held, self._held = self._held, []
                for invalidation in held:
                    self._answer(invalidation)

    def _answer(self, invalidation: AtsInvalidation) -> None:
        if self.answering is Answering.TIME_OUT:
            invalidation.time_out()
        else:
            self._forget(invalidation)
            invalidation.complete()

    def _forget(self, named: AtsInvalidation) -> None:
        """Without a PASID entries of every PASID are meant too; Global means those of every PASID (PCIe §10.3)."""
        end = named.address + named.size
        for key, entry in list(self._entries.items()):
            sid, ssid, *_ = key
            asked = named.ssid in (None, ssid) or (named.everywhere and ssid is not None)
            if sid == named.sid and asked and named.address < entry.iova + entry.size and entry.iova < end:
                del self._entries[key]

    def _clear(self) -> None:
        self._entries.clear()
        self._shifts.clear()
