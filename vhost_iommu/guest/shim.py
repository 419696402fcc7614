# SPDX-License-Identifier: Apache-2.0
"""The boot shim: sets BARs and COMMAND of the PCI functions before a stock kernel starts.

Law: the code is compiled once from guest/shim/shim.S and kept in the cache; what differs from guest to guest is
the table behind it. The kernel sees nothing of it: registers are as the arm64 boot protocol has them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from vhost_iommu.guest.build import Toolchain, share

#: Where QEMU puts a raw -kernel: text_offset of a kernel that has no header.
SHIM_ADDRESS = 0x4008_0000
#: Where the real kernel goes: aligned to 2 MiB, below the initial RAM file system.
KERNEL_ADDRESS = 0x4020_0000


def table(entry: int, writes: Sequence[tuple[int, int]]) -> bytes:
    """What shim.S reads: entry, count, then 32-bit stores as (address, value)."""
    for address, value in writes:
        if address % 4 or not 0 <= value < 1 << 32:
            raise ValueError(f"{value:#x} at {address:#x} is no 32-bit store")
    return struct.pack("<QQ", entry, len(writes)) + b"".join(struct.pack("<QQ", *write) for write in writes)


def code(toolchain: Toolchain) -> bytes:
    """The shim without its table."""
    return toolchain.raw([share("shim/shim.S")])


def build(toolchain: Toolchain, entry: int, writes: Sequence[tuple[int, int]], path: Path) -> None:
    """Write the shim that does ``writes`` and jumps to ``entry`` to ``path``."""
    path.write_bytes(code(toolchain) + table(entry, writes))
