# SPDX-License-Identifier: Apache-2.0
"""A machine at work, as it is looked at and worked on: what the control socket's commands and a dump ask of it.

Law: each question takes an instance's lock for as long as it takes to copy what it holds, and reads memory without.
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import UsageError
from .lab.faults import Lab
from .lab.subject import FaultView, MasterView
from .machine import Machine
from .memory import Memory
from .models import MODELS
from .smmu.inspection import Inspection, Reader, State
from .watch import Watcher

#: What a master is counted by.
COUNTED = ("transactions", "bytes_read", "bytes_written", "stalls", "aborts")


class _Live:
    """A guest's memory, as it is at each read."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def read(self, pa: int, size: int) -> bytes | None:
        return self._memory.read(pa, size)

    def lacks(self, pa: int) -> bool:
        return False


class MachineBench:
    """``machine`` as a Bench of ``lab.control``."""

    #: It is no dump.
    taken = ""
    left_out: tuple[str, ...] = ()

    def __init__(self, machine: Machine, now: Callable[[], str], quit: Callable[[], None] = lambda: None) -> None:
        """``now``: the time, as a dump says it; ``quit`` ends whoever serves the machine."""
        self._machine = machine
        self.now = now
        self.quit = quit

    @property
    def name(self) -> str:
        return self._machine.config.name

    @property
    def lab(self) -> Lab:
        return self._machine.lab

    def attach(self, watcher: Watcher) -> None:
        self._machine.watches.attach(watcher)

    def detach(self, watcher: Watcher) -> None:
        self._machine.watches.detach(watcher)

    def instances(self) -> tuple[str, ...]:
        return tuple(self._machine.smmus)

    def state(self, instance: str, *, caches: bool) -> State:
        model = MODELS[self._machine.config.smmu(instance).model]
        return model.state(self._machine.smmus[instance], caches=caches)

    def reader(self, instance: str) -> Reader:
        return _Live(self._machine.smmus[instance].memory)

    def windows(self, instance: str) -> tuple[tuple[int, int], ...]:
        memory: Memory = self._machine.smmus[instance].memory
        return tuple((each.base, each.size) for each in memory.windows if each.buffer is not None)

    def inspection(self, state: State, reader: Reader) -> Inspection:
        return inspection_of(state, reader)

    def masters(self) -> tuple[MasterView, ...]:
        return tuple(
            MasterView(
                each.name,
                each.kind,
                each.smmu,
                tuple(each.stream_ids),
                {name: getattr(self._machine.masters[each.name].port, name) for name in COUNTED},
            )
            for each in self._machine.config.masters
        )

    def faults(self) -> tuple[FaultView, ...]:
        account = self._machine.lab.account()
        return tuple(FaultView(at, name, str(fault), struck) for at, (name, fault, struck) in enumerate(account))


def inspection_of(state: State, reader: Reader) -> Inspection:
    """By the programming model that the state is of; UsageError: it is not known."""
    if state.model not in MODELS:
        raise UsageError(f"there is no programming model {state.model!r:.40}; read it with the version that wrote it")
    return MODELS[state.model].inspect(state, reader)
