# SPDX-License-Identifier: Apache-2.0
"""A circular queue in memory whose indices carry a wrap flag (IHI 0070 §3.5.1).

Law: arithmetic only; who owns which index, and what an abort means, is the model's to say.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ring:
    """2^``bits`` entries of ``entry_size`` bytes; an index is the position and, above it, the wrap flag."""

    base: int
    bits: int
    entry_size: int

    @classmethod
    def at(cls, address: int, bits: int, entry_size: int) -> Ring:
        """``address`` aligned down to the larger of the queue's size and 32 bytes (§6.3.26)."""
        return cls(address & ~(max(entry_size << bits, 32) - 1), bits, entry_size)

    @property
    def index_mask(self) -> int:
        return (2 << self.bits) - 1

    def slot(self, index: int) -> int:
        """Address of the entry at ``index``."""
        return self.base + (index & (1 << self.bits) - 1) * self.entry_size

    def next(self, index: int) -> int:
        return index + 1 & self.index_mask

    def empty(self, producer: int, consumer: int) -> bool:
        return not (producer ^ consumer) & self.index_mask

    def full(self, producer: int, consumer: int) -> bool:
        return (producer ^ consumer) & self.index_mask == 1 << self.bits
