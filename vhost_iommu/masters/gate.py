# SPDX-License-Identifier: Apache-2.0
"""When a master may use its port: in turns with register accesses, and not after a reset.

Law: a closed gate lets no byte pass, so that a device which says that it is reset has stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

from ..sealed import Sealed
from .port import Abort, Port, Steps, Waiting, Why

T = TypeVar("T")


class Turns(Sealed):
    """A master's lock, taken by register accesses with ``with``; its worker gives way to them.

    Python's locks are unfair: a worker that lets go and takes again would keep a vCPU waiting for long.
    """

    OPEN = frozenset({"pause"})

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


class Gate(Sealed):
    """A port between two resets: closed for good by the reset, after which no access of its holders passes.

    ``with gate as is_open`` holds the master's lock, so nothing closes it meanwhile. An inner gate of a part of
    the master, such as a queue, is closed with the ``outer`` one or alone.
    """

    OPEN = frozenset({"open"})

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
        return self._through(iova, lambda: self.port.read(iova, size))

    def write(self, iova: int, data: bytes) -> Steps[Abort | None]:
        return self._through(iova, lambda: self.port.write(iova, data))

    def _through(self, iova: int, begin: Callable[[], T | Abort | Waiting[T]]) -> Steps[T | Abort]:
        with self as is_open:
            found = begin() if is_open else Abort(iova, 0, Why.STOPPED)
        while isinstance(found, Waiting):
            yield (found.stall,)
            with self as is_open:
                found = found.go_on() if is_open else Abort(iova, 0, Why.STOPPED)
        return found
