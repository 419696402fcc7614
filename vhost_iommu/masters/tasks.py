# SPDX-License-Identifier: Apache-2.0
"""Pieces of DMA work side by side: each goes on in its turn, or sleeps until software has answered its stall.

Law: nothing here waits or holds a lock. A stall may end in any thread, even under the SMMU's lock; what that does
is to put the task into a queue and to wake the master, whose ``work`` goes on with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ..sealed import Sealed
from .port import Awaited, Steps


class _Task:
    """Steps under way; ``stalls``: one of them must end before the next step."""

    __slots__ = ("stalls", "steps")

    def __init__(self, steps: Steps[None]) -> None:
        self.steps = steps
        self.stalls: Sequence[Awaited] = ()

    def may_go_on(self) -> bool:
        return any(stall.answer is not None for stall in self.stalls)


class Tasks(Sealed):
    """The tasks of one master. Called by whoever runs its work, from one thread at a time."""

    OPEN = frozenset({"_ready", "alone"})

    def __init__(self, wake: Callable[[], None]) -> None:
        """``wake`` has ``turn`` called again; it is called from any thread and must not block."""
        self.wake = wake
        self._ready: list[_Task] = []
        #: For a task that takes its step: none takes one beside it.
        self.alone = False
        #: Sleepers of which a stall ended, perhaps more than once. Other threads only append.
        self._woken: deque[_Task] = deque()

    def add(self, steps: Steps[None]) -> None:
        self._ready.append(_Task(steps))

    def turn(self) -> bool:
        """Let each task that may go on take one step; whether there are such after it."""
        while self._woken:
            task = self._woken.popleft()
            if task.may_go_on():
                task.stalls = ()
                self._ready.append(task)
        ready, self._ready = self._ready, []
        self.alone = len(ready) == 1
        for task in ready:
            try:
                stalls = next(task.steps)
            except StopIteration:
                continue
            if stalls:
                self._sleep(task, stalls)
            else:
                self._ready.append(task)
        return bool(self._ready or self._woken)

    def _sleep(self, task: _Task, stalls: Sequence[Awaited]) -> None:
        def resolved() -> None:
            self._woken.append(task)
            self.wake()

        task.stalls = stalls
        for stall in stalls:
            stall.resolved = resolved
        # What ended before ``resolved`` was there told nobody; what ends now tells twice, which does no harm.
        if task.may_go_on():
            self._woken.append(task)
