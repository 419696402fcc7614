# SPDX-License-Identifier: Apache-2.0
"""A master that software sees as a platform device: a window of registers and a wired interrupt.

Law: as a master's; ``interrupt`` is used outside of its lock.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ClassVar

from .master import Master
from .port import Port
from .prompt import Post


def nothing() -> None:
    """The interrupt of a device whose line is not wired."""


class Window(Master):
    """A platform device that makes DMA; ``interrupt`` raises its wired interrupt as an edge."""

    OPEN = Master.OPEN | {"interrupt", "post"}

    #: The device tree's compatible string.
    compatible: ClassVar[str]
    #: Bytes of the register window.
    size: int

    def __init__(
        self,
        name: str,
        port: Port,
        *,
        interrupt: Callable[[], None] = nothing,
        wake: Callable[[], None] | None = None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        super().__init__(name, port, wake=wake, lock=lock)
        self.interrupt = interrupt
        #: All that ``interrupt`` does; None: it does something else.
        self.post: Post | None = None

    @abstractmethod
    def read(self, offset: int, size: int) -> int: ...

    @abstractmethod
    def write(self, offset: int, size: int, value: int) -> None: ...
