# SPDX-License-Identifier: Apache-2.0
"""What a register block is to the bus in front of it.

Law: an access is 1, 2, 4 or 8 bytes, naturally aligned, and wholly inside the block; the bus splits others.
"""

from __future__ import annotations

from typing import Protocol


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
