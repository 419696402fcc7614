# SPDX-License-Identifier: Apache-2.0
"""The boot shim: does what firmware would do for PCI functions (BARs, COMMAND), then starts a stock kernel.

Law: entered as an arm64 kernel is (MMU off, x0 = device tree), it leaves x0 as it is and clears x1 to x3, as the boot
protocol asks, so that the kernel sees nothing of it. The code never changes; what differs is the table behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

#: Where QEMU puts a raw -kernel: text_offset of a kernel that has no header.
SHIM_ADDRESS = 0x4008_0000
#: Where the real kernel goes: aligned to 2 MiB, below the initial RAM file system.
KERNEL_ADDRESS = 0x4020_0000

#: Each instruction as an assembler takes it and as the CPU does, so that a guest needs no assembler. The table that
#: follows is u64 entry, u64 count, then count times (u64 address, u64 value): 32-bit stores, in order.
CODE: tuple[tuple[str, int], ...] = (
    ("adr x4, table", 0x1000_01C4),
    ("ldp x5, x6, [x4], #16", 0xA8C1_1885),  # x5 = entry of the kernel, x6 = count
    ("next: cbz x6, done", 0xB400_00A6),
    ("ldp x7, x8, [x4], #16", 0xA8C1_2087),
    ("str w8, [x7]", 0xB900_00E8),
    ("sub x6, x6, #1", 0xD100_04C6),
    ("b next", 0x17FF_FFFC),
    ("done: dsb sy", 0xD503_3F9F),
    ("isb", 0xD503_3FDF),
    ("mov x1, xzr", 0xAA1F_03E1),
    ("mov x2, xzr", 0xAA1F_03E2),
    ("mov x3, xzr", 0xAA1F_03E3),
    ("br x5", 0xD61F_00A0),
    ("nop", 0xD503_201F),  # aligns the table
)


def source() -> str:
    """The code in assembly, with the label of the table behind it."""
    return "".join(f"{text}\n" for text, _ in CODE) + "table:\n"


def code() -> bytes:
    """The shim without its table."""
    return b"".join(struct.pack("<I", word) for _, word in CODE)


def table(entry: int, writes: Sequence[tuple[int, int]]) -> bytes:
    """What the code reads: where to go on, and 32-bit stores as (address, value)."""
    for address, value in writes:
        if address % 4 or not 0 <= value < 1 << 32:
            raise ValueError(f"{value:#x} at {address:#x} is no 32-bit store")
    return struct.pack("<QQ", entry, len(writes)) + b"".join(struct.pack("<QQ", *write) for write in writes)


def binary(entry: int, writes: Sequence[tuple[int, int]]) -> bytes:
    """The shim that does ``writes`` and jumps to ``entry``."""
    return code() + table(entry, writes)
