# SPDX-License-Identifier: Apache-2.0
"""What a register block is to the bus in front of it.

Law: an access is 1, 2, 4 or 8 bytes, naturally aligned, and wholly inside the block; the bus splits others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable


class MmioDevice(Protocol):
    """A block of registers. Calls may come from any thread; a block that several reach locks for itself."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int:
        """Bytes that the block decodes, a multiple of 8."""

    def read(self, offset: int, size: int) -> int:
        """The value of ``size`` bytes at ``offset``, below ``1 << 8 * size``; undecoded bytes read as zero."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Store ``value`` of ``size`` bytes at ``offset``; a store that the hardware ignores is no error."""

    def reset(self) -> None:
        """Return to the state after power-on."""


class Mirror(Protocol):
    """What a block's aligned 4- and 8-byte reads return, for a bus that answers them without the block."""

    #: Whether they may be: only while a read does no more than return a value.
    plain: bool

    @property
    def reads(self) -> int:
        """How many reads were answered from here, which the block has not seen."""

    def store(self, offset: int, size: int, value: int) -> None:
        """``size`` (4 or 8) bytes at ``offset`` read as ``value`` from now on; IndexError outside of the block."""


@runtime_checkable
class Mirrored(MmioDevice, Protocol):
    """A block that can tell in advance what its reads return."""

    def mirror(self, make: Callable[[int], Mirror]) -> Mirror | None:
        """The block's one mirror, kept current from the first call on; ``make`` takes its size in bytes.

        None: reads of this block do more than return a value.
        """
