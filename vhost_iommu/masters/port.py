# SPDX-License-Identifier: Apache-2.0
"""A DMA master's port: the only way in which its bytes reach memory, each transaction translated.

Law: what the guest did wrong is an ``Abort``, a value. A closed gate lets no byte pass, so that a device which
says that it is reset has stopped. Nothing waits here: a stalled transaction is a ``Waiting``, a value too.
Not modelled: memory types and shareability, atomics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from ..memory import MemoryLike
from ..mmio import Mirror
from ..smmu.transaction import (
    NO_SSID,
    Answer,
    Begun,
    Direct,
    DiskBell,
    Outcome,
    PageHint,
    Piece,
    Stall,
    Transaction,
    Translator,
)
from .atc import Atc, AtcAnswer, AtsUser, PageWait, Refusal

T = TypeVar("T")

#: Largest transaction that our masters make, so that a huge length of a guest costs no memory: callers see to it.
CHUNK = 1 << 20

_SPACE = 1 << 64

#: Pages of 4 KiB that one hint can name.
MOST_HINTED = 255


class TraceLike(Protocol):
    """Where a master tells what it does; absent (None) it costs one test."""

    def emit(self, track: str, kind: str, name: str, /, **args: int | str) -> None: ...


class Why(Enum):
    """What ended a transaction."""

    TERMINATED = "terminated"  #: by the SMMU
    EXTERNAL = "external abort"  #: translated, but nothing answers there
    STOPPED = "stopped"  #: the master was reset meanwhile
    DENIED = "denied"  #: a translation request was granted no such permission
    UNSUPPORTED = "unsupported request"  #: a translation request was answered so
    COMPLETER = "completer abort"  #: a translation request was answered so
    NO_PAGE = "no page"  #: a page request was answered so


_REFUSED = {
    None: Why.TERMINATED,
    Refusal.DENIED: Why.DENIED,
    Refusal.UR: Why.UNSUPPORTED,
    Refusal.CA: Why.COMPLETER,
    Refusal.PAGE: Why.NO_PAGE,
}


class Served(NamedTuple):
    """What was served out of a virtqueue."""

    more: bool | None  #: there may be more; None: what comes next was not served
    last_avail: int
    used_idx: int
    notify: bool  #: the driver is to be told
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class Abort:
    """A transaction that failed at ``iova``, after its first ``done`` bytes."""

    iova: int
    done: int
    why: Why


#: What a transaction may wait for: ``resolved`` is called, from any thread, when there is an ``answer``.
Awaited: TypeAlias = Stall | PageWait


class Waiting(Generic[T]):
    """A transaction whose rest is stalled, or waits for a page; ``T`` is what it gives when it succeeds.

    It may be forgotten: then nothing of the rest is done, whatever software answers.
    """

    __slots__ = ("_go_on", "stall")

    def __init__(self, stall: Awaited, go_on: Callable[[], T | Abort | Waiting[T]]) -> None:
        self.stall = stall
        self._go_on = go_on

    def go_on(self) -> T | Abort | Waiting[T]:
        """Do the rest, once, and only after ``stall.answer`` came."""
        assert self.stall.answer is not None, "still stalled"
        return self._go_on()


#: DMA in steps, each without waiting: yields the stalls of which one must have ended before the next step, or
#: nothing to let others have a turn, and returns a ``T``. See tasks.Tasks, which runs them.
Steps: TypeAlias = Generator[Sequence[Awaited], None, T]


class Port:
    """``sids``: the StreamIDs that this master may use, the first by default; ``smmu`` None: addresses are physical."""

    def __init__(self, name: str, memory: MemoryLike, smmu: Translator | None, sids: Sequence[int] = ()) -> None:
        if smmu is not None and not sids:
            raise ValueError(f"{name}: a master behind an SMMU needs a StreamID")
        self.name = name
        self.memory = memory
        self.smmu = smmu
        #: Held from translation to access: a CMD_SYNC must not complete between the two (IHI 0070 §4.7.3).
        self._hold: AbstractContextManager[Any] = nullcontext() if smmu is None else smmu.lock
        self.sids = tuple(sids)
        #: Where the core expects this port's thread: any number will do, its own is the fastest.
        self._slot = 1 + self.sids[0] % 31 if self.sids else 0
        #: The ATC of those transactions that name a user of it; None: they cannot.
        self.atc: Atc | None = None
        self.trace: TraceLike | None = None
        #: Told of each transaction that stalls, from whatever thread and under the master's lock: must not block.
        self.on_stall: Callable[[Stall], None] = lambda stall: None
        self._bell: DiskBell | None = None
        #: Transactions that stalled (each time anew) and that aborted; those started, and bytes, see below.
        self._transactions = 0
        self._bytes_read = 0
        self._bytes_written = 0
        self.stalls = 0
        self.aborts = 0

    @property
    def transactions(self) -> int:
        """Transactions started."""
        return self._transactions + (0 if self._bell is None else self._bell.counts()[2])

    @property
    def bytes_read(self) -> int:
        """Bytes that reached the master."""
        return self._bytes_read + (0 if self._bell is None else self._bell.counts()[3])

    @property
    def bytes_written(self) -> int:
        """Bytes that reached memory."""
        return self._bytes_written + (0 if self._bell is None else self._bell.counts()[4])

    def read(
        self,
        iova: int,
        size: int,
        *,
        sid: int | None = None,
        ssid: int | None = None,
        privileged: bool = False,
        instruction: bool = False,
        ats: AtsUser | None = None,
        unsupported: bool = False,
    ) -> bytes | Abort | Waiting[bytes]:
        """``size`` bytes (at least one) at ``iova``; zeros where the SMMU terminates silently.

        ``ats`` here and below: by way of the ATC; ``unsupported``: of a type that no SMMU supports.
        """
        done, parts, begun = 0, [], None
        if ats is None and not unsupported and (direct := self._direct()) is not None and iova + size <= _SPACE:
            access = privileged << 1 | instruction << 2
            stream = self.sids[0] if sid is None else sid
            found = direct.read(self._slot, stream, NO_SSID if ssid is None else ssid, iova, size, access)
            if isinstance(found, bytes):
                self._transactions += 1
                self._bytes_read += size
                return found
            begun, done = found, found.done
            self._bytes_read += done
            parts.append(found.data)
        with self._hold:
            answer = self._ask(
                iova + done, size - done, False, sid, ssid, privileged, instruction, ats, unsupported, begun
            )
            return self._read(iova, size, done, parts, answer)

    def write(
        self,
        iova: int,
        data: bytes,
        *,
        sid: int | None = None,
        ssid: int | None = None,
        privileged: bool = False,
        instruction: bool = False,
        ats: AtsUser | None = None,
        unsupported: bool = False,
    ) -> Abort | Waiting[None] | None:
        """Write ``data`` (at least a byte) at ``iova``; what leaves RAM is posted and may abort unseen, later."""
        done, size, begun = 0, len(data), None
        if ats is None and not unsupported and (direct := self._direct()) is not None and iova + size <= _SPACE:
            access = privileged << 1 | instruction << 2
            stream = self.sids[0] if sid is None else sid
            begun = direct.write(self._slot, stream, NO_SSID if ssid is None else ssid, iova, data, access)
            if begun is None:
                self._transactions += 1
                self._bytes_written += size
                return None
            done = begun.done
            self._bytes_written += done
        with self._hold:
            answer = self._ask(
                iova + done, size - done, True, sid, ssid, privileged, instruction, ats, unsupported, begun
            )
            return self._write(iova, data, done, self._late_abort, answer)

    def post(
        self,
        iova: int,
        data: bytes,
        on_abort: Callable[[], None],
        *,
        sid: int | None = None,
        ssid: int | None = None,
        privileged: bool = False,
        instruction: bool = False,
        ats: AtsUser | None = None,
        unsupported: bool = False,
    ) -> Waiting[None] | None:
        """A write whose master wants to hear of an abort even when it comes later, such as an MSI.

        ``on_abort`` is called at most once, now or later, and then from any thread.
        """

        def late() -> None:
            self._late_abort()
            on_abort()

        with self._hold:
            answer = self._ask(iova, len(data), True, sid, ssid, privileged, instruction, ats, unsupported)
            written = self._write(iova, data, 0, late, answer)
        return _posted(written, on_abort)

    def hint(
        self,
        iova: int,
        size: int,
        *,
        write: bool,
        sid: int | None = None,
        ssid: int | None = None,
        privileged: bool = False,
        instruction: bool = False,
    ) -> None:
        """Say that ``size`` bytes at ``iova`` will soon be read or written; of many pages the first are named."""
        if self.smmu is not None:
            sid = self.sids[0] if sid is None else sid
            npages = min((iova + size - 1 >> 12) - (iova >> 12) + 1, MOST_HINTED)
            execute = instruction and not write
            self.smmu.page_hint(PageHint(sid, iova & ~0xFFF, npages, ssid, not write, write, execute, privileged))

    def serve(
        self,
        ring: tuple[int, int, int, int, bool, bool],
        disk: tuple[int, int, bool, int],
        last_avail: int,
        used_idx: int,
        chains: int,
        size: int,
    ) -> Served | None:
        """Plain reads and writes of a disk out of a virtqueue, until ``chains`` or ``size`` bytes are done.

        ``ring``: (descriptors, avail, used, entries, indirect, event_idx); ``disk``: (descriptor, flags of preadv2,
        whether writes too, sectors). None: of what comes next nothing is done here.
        """
        if (direct := self._direct()) is None:
            return None
        found = direct.serve(self._slot, self.sids[0], ring, disk, last_avail, used_idx, chains, size)
        served = Served(*found[:6])
        self._transactions += found[6]
        self._bytes_read += found[7]
        self._bytes_written += found[8]
        return served

    def bell(
        self,
        lock: object,
        mirror: Mirror,
        registers: tuple[int, int, int],
        post: tuple[int, int],
        rings: int,
        chains: int,
        size: int,
    ) -> DiskBell | None:
        """What carries out notifications as ``serve`` does, in the thread that receives them; None: nothing can.

        ``lock`` and ``mirror``: the master's; ``registers``: offsets of QueueNotify, InterruptStatus and InterruptACK;
        ``post``: (address, value) of the write that is its interrupt.
        """
        if (direct := self._direct()) is not None:
            self._bell = direct.disk_bell(lock, mirror, self._slot, registers, post, rings, chains, size)
        return self._bell

    def _direct(self) -> Direct | None:
        """The SMMU's way to whole requests; a trace tells of each one's answer, which that does not give."""
        return None if self.smmu is None or self.trace is not None else self.smmu.direct

    # -- inside ------------------------------------------------------------------------------------------------

    def _ask(
        self,
        iova: int,
        size: int,
        write: bool,
        sid: int | None,
        ssid: int | None,
        privileged: bool,
        instruction: bool,
        ats: AtsUser | None,
        unsupported: bool,
        begun: Begun | None = None,
    ) -> Answer:
        """What becomes of a transaction: the one place where a master's addresses are translated."""
        self._transactions += 1
        if iova + size > _SPACE:
            return Answer(Outcome.ABORT)
        if self.smmu is None:
            return Answer(pieces=[Piece(iova, size)])
        sid = self.sids[0] if sid is None else sid
        transaction = Transaction(sid, iova, size, write, ssid, privileged, instruction)
        if unsupported:
            return self.smmu.unsupported(transaction)
        if ats is None:
            return self.smmu.translate(transaction) if begun is None else self.smmu.translate(transaction, begun)
        assert self.atc is not None, "the port has no ATC"
        return self.atc.translate(transaction, ats)

    def _read(
        self, iova: int, size: int, done: int, parts: list[bytes], answer: Answer
    ) -> bytes | Abort | Waiting[bytes]:
        """Go on with a read of which ``parts`` are ``done`` bytes."""
        before = done
        for piece in answer.pieces:
            part = self.memory.read(piece.pa, piece.size)
            if part is None:
                self._bytes_read += done - before
                return self._aborted("read", iova, done, Why.EXTERNAL)
            parts.append(part)
            done += piece.size
        self._bytes_read += done - before
        if answer.outcome is Outcome.ABORT:
            return self._aborted("read", iova, done, _why(answer))
        if (stall := _stall(answer)) is not None:
            left = replace(stall.transaction, iova=iova + done, size=size - done)
            self._stalled("read", stall)

            def go_on() -> bytes | Abort | Waiting[bytes]:
                with self._hold:
                    return self._read(iova, size, done, parts, self._rest(stall, left))

            return Waiting(stall, go_on)
        if done < size:
            parts.append(bytes(size - done))
        if self.trace is not None:
            self.trace.emit(self.name, "dma", "read", iova=iova, size=size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _write(
        self, iova: int, data: bytes, done: int, late: Callable[[], None], answer: Answer
    ) -> Abort | Waiting[None] | None:
        """Go on with a write of which ``done`` bytes are done."""
        before, size = done, len(data)
        for piece in answer.pieces:
            part = data if piece.size == size else data[done : done + piece.size]
            if not self.memory.write(piece.pa, part) and not self._post(piece.pa, part, late):
                self._bytes_written += done - before
                return self._aborted("write", iova, done, Why.EXTERNAL)
            done += piece.size
        self._bytes_written += done - before
        if answer.outcome is Outcome.ABORT:
            return self._aborted("write", iova, done, _why(answer))
        if (stall := _stall(answer)) is not None:
            left = replace(stall.transaction, iova=iova + done, size=size - done)
            self._stalled("write", stall)

            def go_on() -> Abort | Waiting[None] | None:
                with self._hold:
                    return self._write(iova, data, done, late, self._rest(stall, left))

            return Waiting(stall, go_on)
        if self.trace is not None:
            self.trace.emit(self.name, "dma", "write", iova=iova, size=size)
        return None

    def _rest(self, stall: Awaited, left: Transaction) -> Answer:
        """``stall.answer`` as it is now: what a retry found may be unmapped since, so it is found again."""
        assert self.smmu is not None
        if isinstance(stall, PageWait):
            assert self.atc is not None
            return self.atc.again(stall)
        assert stall.answer is not None
        return self.smmu.translate(left) if stall.answer.outcome is Outcome.OK else stall.answer

    def _stalled(self, name: str, stall: Awaited) -> None:
        if isinstance(stall, PageWait):
            return
        self.stalls += 1
        if self.trace is not None:
            left = stall.transaction
            self.trace.emit(self.name, "fault", f"{name} stalled", iova=left.iova, size=left.size)
        self.on_stall(stall)

    def _post(self, pa: int, data: bytes, late: Callable[[], None]) -> bool:
        """Whether it was not refused at once; ``late`` is called when it is later."""
        posted = refused = False

        def ended(aborted: bool) -> None:
            nonlocal refused
            if aborted and posted:
                late()
            refused = aborted

        self.memory.post(pa, data, ended)
        posted = True
        return not refused

    def _late_abort(self) -> None:
        self.aborts += 1

    def _aborted(self, name: str, iova: int, done: int, why: Why) -> Abort:
        self.aborts += 1
        if self.trace is not None:
            self.trace.emit(self.name, "fault", name, iova=iova + done, done=done, why=why.value)
        return Abort(iova + done, done, why)


def _why(answer: Answer) -> Why:
    return _REFUSED[answer.refusal] if isinstance(answer, AtcAnswer) else Why.TERMINATED


def _stall(answer: Answer) -> Awaited | None:
    return answer.page if isinstance(answer, AtcAnswer) else answer.stall


def _posted(found: Abort | Waiting[None] | None, on_abort: Callable[[], None]) -> Waiting[None] | None:
    if isinstance(found, Waiting):
        waiting = found
        return Waiting(waiting.stall, lambda: _posted(waiting.go_on(), on_abort))
    if found is not None:
        on_abort()
    return None


class Turns:
    """A master's lock, taken by register accesses with ``with``; its worker gives way to them.

    Python's locks are unfair: a worker that lets go and takes again would keep a vCPU waiting for long.
    """

    __slots__ = ("lock", "pause", "waiting")

    def __init__(self, lock: AbstractContextManager[object], pause: Callable[[], None] = lambda: None) -> None:
        """``pause`` lets other threads run for a moment; who brings threads brings it."""
        self.lock = lock
        self.pause = pause
        self.waiting: deque[None] = deque()

    def __enter__(self) -> None:
        self.waiting.append(None)
        try:
            self.lock.__enter__()
        finally:
            self.waiting.pop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.lock.__exit__(kind, error, traceback)

    def give_way(self) -> None:
        """For the worker, between two steps: let the register accesses that wait for the lock have it."""
        for _ in range(40):
            if not self.waiting:
                return
            self.pause()


class Gate:
    """A port between two resets: closed for good by the reset, after which no access of its holders passes.

    ``with gate as is_open`` holds the master's lock, so nothing closes it meanwhile. An inner gate of a part of
    the master, such as a queue, is closed with the ``outer`` one or alone.
    """

    __slots__ = ("open", "outer", "port", "turns")

    def __init__(self, port: Port, turns: Turns, outer: Gate | None = None) -> None:
        self.port = port
        self.turns = turns
        self.outer = outer
        self.open = True

    def __enter__(self) -> bool:
        self.turns.lock.__enter__()
        return self.passes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.turns.lock.__exit__(kind, error, traceback)
        if self.turns.waiting:
            self.turns.give_way()

    @property
    def passes(self) -> bool:
        """For who holds the master's lock already."""
        return self.open and (self.outer is None or self.outer.open)

    def close(self) -> None:
        """Returns when no access is under way any more."""
        with self.turns:
            self.open = False

    def read(self, iova: int, size: int) -> Steps[bytes | Abort]:
        with self as is_open:
            found = self.port.read(iova, size) if is_open else Abort(iova, 0, Why.STOPPED)
        while isinstance(found, Waiting):
            yield (found.stall,)
            with self as is_open:
                found = found.go_on() if is_open else Abort(iova, 0, Why.STOPPED)
        return found

    def write(self, iova: int, data: bytes) -> Steps[Abort | None]:
        with self as is_open:
            found = self.port.write(iova, data) if is_open else Abort(iova, 0, Why.STOPPED)
        while isinstance(found, Waiting):
            yield (found.stall,)
            with self as is_open:
                found = found.go_on() if is_open else Abort(iova, 0, Why.STOPPED)
        return found
