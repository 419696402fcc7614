# SPDX-License-Identifier: Apache-2.0
"""What all DMA masters share: a port, a lock, and work that may run in a thread of its own; not how software sees it.

Law: a master starts no thread and never waits. Register accesses and ``work`` meet under ``turns``, held for one
bounded step at a time; ``wake`` and storage that may block are used outside of it. Where a transaction stalls,
``work`` does what else there is and returns; the stall's end calls ``wake``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from ..sealed import Sealed, declared, no_seam, refuse_replaced
from .gate import Gate, Turns
from .port import Port
from .tasks import Tasks


@declared
class Master(Sealed, ABC):
    """Makes DMA through its ``port``. Neither that nor a method can be replaced, for the core would go past it.

    ``wake`` has ``work`` called, by default at once; a server passes one that wakes the thread in which it calls
    ``work``, and a ``threading.RLock`` as ``lock``. Where several threads use one SMMU, ``wake`` must be given: the
    end of a stall calls it under that SMMU's lock.
    """

    OPEN = frozenset({"wake", "gate", "_working", "_again"})
    _methods: ClassVar[frozenset[str]] = frozenset()
    #: Classes, ``declared``, that it works with, and the core has its own of.
    PARTS: ClassVar[tuple[type, ...]] = ()

    def __init_subclass__(cls) -> None:
        declared(cls)
        names = {name for each in cls.__mro__[:-1] for name, method in vars(each).items() if callable(method)}
        cls._methods = frozenset(names)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._methods or (name == "port" and "port" in self.__dict__):
            raise no_seam(self, name)
        super().__setattr__(name, value)

    def __init__(
        self,
        name: str,
        port: Port,
        *,
        wake: Callable[[], None] | None = None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        if port.smmu is not None and port.smmu.direct is not None:
            refuse_replaced(*(each for each in type(self).__mro__ if "_declared" in vars(each)), *self.PARTS)
        self.wake: Callable[[], None] = self.work if wake is None else wake
        #: Register accesses hold it; the worker goes through ``gate``.
        self.turns = Turns(nullcontext() if lock is None else lock)
        self.gate = Gate(port, self.turns)
        self.tasks = Tasks(lambda: self.wake())
        self._working = False
        self._again = False

    @abstractmethod
    def reset(self) -> None:
        """To the state after power on. When it returns, no DMA of before is under way or to come.

        Stalled transactions are forgotten: what software answers them later moves no byte.
        """

    @abstractmethod
    def pending_work(self) -> None:
        """Do what there is to do now, but for what waits for a stalled transaction."""

    def work(self) -> None:
        """Do all pending work. From one thread at a time; called from within itself, it lets the outer one go on."""
        if self._working:
            self._again = True
            return
        self._working = True
        try:
            self._again = True
            while self._again:
                self._again = False
                self.pending_work()
        finally:
            self._working = False

    def renew(self) -> None:
        """No access of before passes any more; for a reset, which holds ``turns``."""
        self.gate.close()
        self.gate = Gate(self.port, self.turns)
        self.port.on_reset()

    def stop(self) -> None:
        """No more DMA until the next reset; a ``work`` under way returns within a bounded step."""
        self.gate.close()
