# SPDX-License-Identifier: Apache-2.0
"""What ``pump.pyx`` offers."""

from collections.abc import Callable
from typing import Protocol

from .. import mmio
from ..mmio import MmioDevice

class Conversation(Protocol):
    """What the pump asks of a connection, which takes what the pump does not answer."""

    @property
    def regions(self) -> object | None:
        """None: every access is the connection's."""
    @property
    def partial(self) -> bool:
        """Whether it holds the beginning of a message."""
    @property
    def may_post(self) -> Callable[[], bool]: ...
    def feed(self, data: memoryview, fds: list[int]) -> bool: ...

class Mirror:
    plain: bool
    def __init__(self, size: int) -> None: ...
    @property
    def reads(self) -> int: ...
    def store(self, offset: int, size: int, value: int) -> None: ...

class Wire:
    def __init__(self, fd: int, timeout: float, unsent: Callable[[int], None]) -> None: ...
    def send(self, message: bytes) -> bool: ...
    def close(self) -> None: ...

class Pump:
    def __init__(
        self, fd: int, wire: Wire, blocks: list[tuple[int, int, int, MmioDevice, mmio.Mirror | None]], spin: float
    ) -> None: ...
    def converse(self, connection: Conversation) -> list[int] | int | None: ...
