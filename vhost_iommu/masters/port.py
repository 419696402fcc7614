# SPDX-License-Identifier: Apache-2.0
"""A DMA master's port: the only way in which its bytes reach memory, each transaction translated.

Law: what the guest did wrong is an ``Abort``, a value. A closed gate lets no byte pass, so that a device which
says that it is reset has stopped. Callers bound the size of a transaction; ``CHUNK`` is what ours use at most.
Not modelled: memory types and shareability, atomics, stalled transactions, address translation services.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol

from ..memory import MemoryLike
from ..smmu.transaction import Outcome, Piece, Transaction, Translator

#: Largest transaction that our masters make, so that a huge length of a guest costs no memory.
CHUNK = 1 << 20

_SPACE = 1 << 64


class TraceLike(Protocol):
    """Where a master tells what it does; absent (None) it costs one test."""

    def emit(self, track: str, kind: str, name: str, /, **args: int | str) -> None: ...


class Why(Enum):
    """What ended a transaction."""

    TERMINATED = "terminated"  #: by the SMMU
    EXTERNAL = "external abort"  #: translated, but nothing answers there
    STOPPED = "stopped"  #: the master was reset meanwhile


@dataclass(frozen=True, slots=True)
class Abort:
    """A transaction that failed at ``iova``, after its first ``done`` bytes."""

    iova: int
    done: int
    why: Why


class Port:
    """``sids``: the StreamIDs that this master may use, the first by default; ``smmu`` None: addresses are physical."""

    def __init__(self, name: str, memory: MemoryLike, smmu: Translator | None, sids: Sequence[int] = ()) -> None:
        if smmu is not None and not sids:
            raise ValueError(f"{name}: a master behind an SMMU needs a StreamID")
        self.name = name
        self.memory = memory
        self.smmu = smmu
        self.sids = tuple(sids)
        self.trace: TraceLike | None = None
        #: Transactions started, bytes that reached memory or the master, and transactions that aborted.
        self.transactions = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self.aborts = 0

    def read(
        self,
        iova: int,
        size: int,
        *,
        sid: int | None = None,
        ssid: int | None = None,
        privileged: bool = False,
        instruction: bool = False,
    ) -> bytes | Abort:
        """``size`` bytes (at least one) at ``iova``; zeros where the SMMU terminates silently."""
        outcome, pieces = self._translate(iova, size, False, sid, ssid, privileged, instruction)
        done = 0
        parts = []
        for piece in pieces:
            part = self.memory.read(piece.pa, piece.size)
            if part is None:
                self.bytes_read += done
                return self._aborted("read", iova, done, Why.EXTERNAL)
            parts.append(part)
            done += piece.size
        self.bytes_read += done
        if outcome is Outcome.ABORT:
            return self._aborted("read", iova, done, Why.TERMINATED)
        if done < size:
            parts.append(bytes(size - done))
        if self.trace is not None:
            self.trace.emit(self.name, "dma", "read", iova=iova, size=size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(
        self,
        iova: int,
        data: bytes,
        *,
        sid: int | None = None,
        ssid: int | None = None,
        privileged: bool = False,
        instruction: bool = False,
    ) -> Abort | None:
        """Write ``data`` (at least a byte) at ``iova``; what leaves RAM is posted and may abort unseen, later."""
        return self._write(iova, data, self._late_abort, sid, ssid, privileged, instruction)

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
    ) -> None:
        """A write whose master wants to hear of an abort even when it comes later, such as an MSI.

        ``on_abort`` is called once, now or later, and then from any thread.
        """

        def late() -> None:
            self._late_abort()
            on_abort()

        if self._write(iova, data, late, sid, ssid, privileged, instruction) is not None:
            on_abort()

    # -- inside ------------------------------------------------------------------------------------------------

    def _translate(
        self, iova: int, size: int, write: bool, sid: int | None, ssid: int | None, privileged: bool, instruction: bool
    ) -> tuple[Outcome, Sequence[Piece]]:
        self.transactions += 1
        if iova + size > _SPACE:
            return Outcome.ABORT, ()
        if self.smmu is None:
            return Outcome.OK, (Piece(iova, size),)
        answer = self.smmu.translate(
            Transaction(self.sids[0] if sid is None else sid, iova, size, write, ssid, privileged, instruction)
        )
        return answer.outcome, answer.pieces

    def _write(
        self,
        iova: int,
        data: bytes,
        late: Callable[[], None],
        sid: int | None,
        ssid: int | None,
        privileged: bool,
        instruction: bool,
    ) -> Abort | None:
        size = len(data)
        outcome, pieces = self._translate(iova, size, True, sid, ssid, privileged, instruction)
        done = 0
        for piece in pieces:
            part = data if piece.size == size else data[done : done + piece.size]
            if not self.memory.write(piece.pa, part) and not self._post(piece.pa, part, late):
                self.bytes_written += done
                return self._aborted("write", iova, done, Why.EXTERNAL)
            done += piece.size
        self.bytes_written += done
        if outcome is Outcome.ABORT:
            return self._aborted("write", iova, done, Why.TERMINATED)
        if self.trace is not None:
            self.trace.emit(self.name, "dma", "write", iova=iova, size=size)
        return None

    def _post(self, pa: int, data: bytes, late: Callable[[], None]) -> bool:
        """Whether it was not refused at once; ``late`` is called when it is later."""
        posted = refused = False

        def on_abort() -> None:
            nonlocal refused
            if posted:
                late()
            else:
                refused = True

        self.memory.post(pa, data, on_abort)
        posted = True
        return not refused

    def _late_abort(self) -> None:
        self.aborts += 1

    def _aborted(self, name: str, iova: int, done: int, why: Why) -> Abort:
        self.aborts += 1
        if self.trace is not None:
            self.trace.emit(self.name, "fault", name, iova=iova + done, done=done, why=why.value)
        return Abort(iova + done, done, why)


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

    ``with gate as is_open`` holds the master's lock, so nothing closes it meanwhile.
    """

    __slots__ = ("open", "port", "turns")

    def __init__(self, port: Port, turns: Turns) -> None:
        self.port = port
        self.turns = turns
        self.open = True

    def __enter__(self) -> bool:
        self.turns.lock.__enter__()
        return self.open

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.turns.lock.__exit__(kind, error, traceback)
        if self.turns.waiting:
            self.turns.give_way()

    def close(self) -> None:
        """Returns when no access is under way any more."""
        with self.turns:
            self.open = False

    def read(self, iova: int, size: int) -> bytes | Abort:
        with self as is_open:
            return self.port.read(iova, size) if is_open else Abort(iova, 0, Why.STOPPED)

    def write(self, iova: int, data: bytes) -> Abort | None:
        with self as is_open:
            return self.port.write(iova, data) if is_open else Abort(iova, 0, Why.STOPPED)
