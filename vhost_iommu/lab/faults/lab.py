# SPDX-License-Identifier: Apache-2.0
"""The faults of one machine at work: what they ask for is composed into the seams of its parts.

Law: a seam is set while something may strike there; what the compiled core gives up for it is said in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ...layout import Layout
from ...smmu.seams import Deliver, Order, Room, Seams, Verdict
from ...smmu.transaction import Stall, Transaction
from ...watch import Watches
from .fault import Fault
from .injection import Injection, Later
from .kinds import FAULTS

log = logging.getLogger("vhost_iommu.lab")

#: Strikes of one fault that the log tells one by one.
MOST_TOLD = 10

#: The seams of an SMMU that an Injection may override.
_SEAMS = ("gate", "memory", "walk", "translation", "acknowledge", "message", "wire", "room", "stalls")

#: What the core does not do while one of these seams is set.
_GIVEN_UP = {
    ("gate", "message", "memory", "walk"): "commands are not consumed by the compiled core",
    ("walk",): "the reference walks, and translates, in the compiled core's place",
    ("translation",): "each transaction comes to the model before the compiled core translates it",
    ("socket",): "its client is not served by the compiled pump",
}


@dataclass(frozen=True)
class Astray:
    """What the port and the ATC of one master are to ask; None: nothing is wrong there."""

    rewrite: Callable[[Transaction], Transaction] | None = None
    on_reset: Callable[[], None] = lambda: None
    invalidation: Deliver | None = None


class Lab:
    """The faults of one machine at work."""

    def __init__(
        self, faults: Iterable[Fault] = (), *, later: Later | None = None, watches: Watches | None = None
    ) -> None:
        """``later`` None: nobody has anything done later, and faults that need it are refused (UsageError)."""
        self.later = later
        self.watches = watches
        self._begun: list[tuple[Fault, Injection]] = []
        self._gone: list[Injection] = []
        self._faults = tuple(faults)
        self._seams: dict[str, Seams] = {}
        self._strays: dict[str, Callable[[Transaction], str]] = {}
        self._befall: dict[str, Callable[[Astray], None]] = {}

    def account(self) -> list[tuple[str, Fault, int]]:
        """Of each fault whom it befell, and how often it struck."""
        return [(each.name, fault, each.struck) for fault, each in self._begun]

    def seams(self, smmu: str, alone: bool = True) -> Seams:
        """The seams of the SMMU of this name, with the faults that befall it; ``alone``: the machine has no other."""
        seams = Seams()
        mine = self._begin("smmu", smmu, alone)
        self._seams[smmu] = seams
        self._set(seams, mine)
        _say_what_is_given_up(smmu, mine)
        return seams

    def master(
        self,
        master: str,
        stray: Callable[[Transaction], str] = lambda transaction: "lost",
        alone: bool = True,
        befall: Callable[[Astray], None] | None = None,
    ) -> Astray:
        """What befalls the master of this name; ``stray`` has it make a transaction beside its work.

        ``befall`` takes what befalls it later, from any thread; None: no fault begins while it is at work.
        """
        mine = self._begin("master", master, alone)
        self._strays[master] = stray
        if befall is not None:
            self._befall[master] = befall
        return self._astray(master, mine)

    def _astray(self, master: str, mine: Sequence[Injection]) -> Astray:
        resets = [each for each in mine if each.asks("on_reset")]
        invalidations = [each for each in mine if each.asks("invalidation")]

        def on_reset() -> None:
            for each in resets:
                each.on_reset()

        ask = _first("invalidation", Verdict.EXECUTE)(invalidations) if invalidations else None
        return Astray(self._rewrite(master, [each for each in mine if each.asks("rewrite")]), on_reset, ask)

    def socket(self, smmu: str) -> Callable[[], float | None] | None:
        """What befalls the client of the function whose SMMU has this name; None: nothing."""
        mine = [each for _, each in self._begun if each.name == smmu and each.asks("socket")]
        if not mine:
            return None

        def socket() -> float | None:
            found = [each.socket() for each in mine]  # each counts its own chances
            return None if None in found else sum(each for each in found if each is not None)

        return socket

    def _rewrite(self, master: str, mine: Sequence[Injection]) -> Callable[[Transaction], Transaction] | None:
        if not mine:
            return None
        log.warning("%s: its transactions are not carried out by the compiled core, as %s may strike", master,
                    ", ".join(each.KIND for each in mine))  # fmt: skip

        def rewrite(transaction: Transaction) -> Transaction:
            for each in mine:
                transaction = each.rewrite(transaction)
            return transaction

        return rewrite

    @contextmanager
    def armed(self, fault: Fault) -> Iterator[Injection]:
        """``fault`` is at work meanwhile."""
        injection = self.arm(fault)
        try:
            yield injection
        finally:
            self.disarm(injection)

    def arm(self, fault: Fault) -> Injection:
        """Put one more fault to work while the machine runs; UsageError: it cannot begin then."""
        kind = FAULTS[fault.kind]
        if kind.socket is not Injection.socket:
            raise UsageError(
                f"{fault.kind} cannot begin while the machine runs, as the compiled pump has the client's socket "
                "by then; have it there from the machine's begin"
            )
        if kind.LATER and self.later is None:
            raise UsageError(f"{fault.kind} needs somebody who does things later; give Lab(later=…)")
        able = self._seams if kind.TARGET == "smmu" else self._befall
        name = fault.target or (next(iter(able)) if len(able) == 1 else "")
        if name not in able:
            one = f"it is one of {', '.join(able)}" if able else "the machine has none that it could befall"
            raise UsageError(f"{fault.kind}: '{kind.TARGET}' is {fault.target!r}; {one}")
        injection = kind(fault, self, name, **fault.parameters)
        self._begun.append((fault, injection))
        _say_what_is_given_up(name, [injection])
        self._set_again(injection)
        return injection

    def disarm(self, injection: Injection) -> None:
        """It strikes no more, and what it had held goes on."""
        self._gone.append(injection)
        injection.end()
        self._set_again(injection)
        if injection.TARGET == "smmu":
            self.proceed(injection.name)

    def number(self, injection: Injection) -> int:
        """By which ``injection`` finds it: its place in ``account``."""
        return next(at for at, (_, each) in enumerate(self._begun) if each is injection)

    def injection(self, number: int) -> Injection:
        """UsageError: there is none."""
        if number >= len(self._begun):
            raise UsageError(f"there is no fault {number}; query-faults lists them")
        return self._begun[number][1]

    def _set_again(self, changed: Injection) -> None:
        """The seams of whom ``changed`` befalls are those of the faults that may befall it now."""
        name, target = changed.name, changed.TARGET
        mine = [
            each
            for _, each in self._begun
            if (each.name, each.TARGET) == (name, target)
            and not any(each is gone for gone in self._gone)
            and not (target == "smmu" and each.over)
        ]
        if target == "master":
            if (befall := self._befall.get(name)) is not None:
                befall(self._astray(name, mine))
            return
        seams = self._seams[name]
        for seam in _SEAMS:
            if not any(each.asks(seam) for each in mine):
                setattr(seams, seam, None)
        self._set(seams, mine)

    def _begin(self, target: str, name: str, alone: bool) -> list[Injection]:
        begun = []
        for fault in self._faults:
            kind = FAULTS[fault.kind]
            if target == kind.TARGET and (fault.target == name or (fault.target is None and alone)):
                if kind.LATER and self.later is None:
                    raise UsageError(f"{fault.kind} needs somebody who does things later; give Lab(later=…)")
                begun.append((fault, kind(fault, self, name, **fault.parameters)))
        self._begun += begun
        return [each for _, each in begun]

    def _set(self, seams: Seams, mine: Sequence[Injection]) -> None:
        for seam in _SEAMS:
            asked = [each for each in mine if each.asks(seam)]
            if asked:
                setattr(seams, seam, self._until_over(seams, seam, asked))

    def _until_over(self, seams: Seams, seam: str, asked: Sequence[Injection]) -> Callable[..., Any]:
        """What is asked at ``seam``; once nothing there strikes any more, the core may have it back."""
        composed = _COMPOSED[seam](asked)

        def ask(*what: Any) -> Any:
            answer = composed(*what)
            if getattr(seams, seam) is ask and all(each.over for each in asked):
                setattr(seams, seam, None)
            return answer

        return ask

    def tell(self, injection: Injection, what: str) -> None:
        """``injection`` strikes: say so."""
        count, of = injection.struck, injection.fault.count
        if count <= MOST_TOLD:
            times = f"{count} of {of}" if of >= count else f"{count}"
            more = "; the next are counted, not told" if count == MOST_TOLD and of != MOST_TOLD else ""
            log.warning("%s: %s struck (%s): %s%s", injection.name, injection.KIND, times, what, more)
        watch = None if self.watches is None else self.watches.of(injection.name)
        if watch is not None and watch.on:
            watch.noted(injection.name, "fault", injection.KIND, what=what, struck=count)

    def error(self, smmu: str, error: str) -> None:
        self._seams[smmu].raise_error(error)

    def may_raise(self, smmu: str, error: str) -> bool:
        return self._seams[smmu].may_raise(error)

    def execute(self, smmu: str, command: Layout) -> None:
        self._seams[smmu].execute(command)

    def refuses(self, smmu: str, command: Layout) -> bool:
        return self._seams[smmu].refuses(command)

    def proceed(self, smmu: str) -> None:
        self._seams[smmu].proceed()

    def stray(self, master: str, transaction: Transaction) -> str:
        return self._strays[master](transaction)


def _say_what_is_given_up(smmu: str, mine: Sequence[Injection]) -> None:
    for seams, what in _GIVEN_UP.items():
        strike = ", ".join(dict.fromkeys(each.KIND for each in mine if any(map(each.asks, seams))))
        if strike:
            log.warning("%s: %s while this may strike: %s", smmu, what, strike)


def _first(seam: str, otherwise: Any) -> Callable[[Sequence[Injection]], Callable[..., Any]]:
    """The first that has something to say is obeyed; those after it are not asked."""

    def composed(asked: Sequence[Injection]) -> Callable[..., Any]:
        def ask(*what: Any) -> Any:
            said = (getattr(each, seam)(*what) for each in asked)
            return next((each for each in said if each is not None), otherwise)

        return ask

    return composed


def _any(seam: str) -> Callable[[Sequence[Injection]], Callable[..., bool]]:
    """Each is asked, and so counts its own chances."""

    def composed(asked: Sequence[Injection]) -> Callable[..., bool]:
        def ask(*what: Any) -> bool:
            return True in [getattr(each, seam)(*what) for each in asked]

        return ask

    return composed


def _room(asked: Sequence[Injection]) -> Room:
    def room(queue: str) -> bool:
        return False not in [each.room(queue) for each in asked]

    return room


def _stalls(asked: Sequence[Injection]) -> Order:
    def order(what: str, stalls: Sequence[Stall]) -> Sequence[Stall]:
        return next((found for each in asked if (found := each.stalls(what, stalls)) is not None), stalls)

    return order


_COMPOSED: Mapping[str, Callable[[Sequence[Injection]], Callable[..., Any]]] = {
    "gate": _first("gate", Verdict.EXECUTE),
    "memory": _any("memory"),
    "walk": _any("walk"),
    "translation": _any("translation"),
    "acknowledge": _first("acknowledge", None),
    "message": _first("message", Verdict.EXECUTE),
    "wire": _first("wire", Verdict.EXECUTE),
    "room": _room,
    "stalls": _stalls,
}
