# SPDX-License-Identifier: Apache-2.0
"""What is looked at: a machine at work, or what a dump kept of one. Whoever asks cannot tell them apart.

Law: to look takes nothing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..smmu.inspection import Inspection, Reader, State


@dataclass(frozen=True, slots=True)
class MasterView:
    """A master: what it is, whose streams it has, what it did."""

    name: str
    kind: str
    smmu: str | None
    streams: tuple[int, ...]
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FaultView:
    """A fault that is at work, or was."""

    id: int
    name: str  #: of whom it befalls
    fault: str  #: as ``--fault`` takes it
    struck: int


class Subject(Protocol):
    """A machine that can be looked at."""

    @property
    def name(self) -> str: ...

    @property
    def taken(self) -> str:
        """When a dump was taken; "": it is at work."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Of a dump, what is not in it."""

    def instances(self) -> tuple[str, ...]: ...

    def state(self, instance: str, *, caches: bool) -> State: ...

    def reader(self, instance: str) -> Reader: ...

    def windows(self, instance: str) -> tuple[tuple[int, int], ...]:
        """Where memory is: (address, size)."""

    def inspection(self, state: State, reader: Reader) -> Inspection: ...

    def masters(self) -> tuple[MasterView, ...]: ...

    def faults(self) -> tuple[FaultView, ...]: ...
