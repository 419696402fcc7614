# SPDX-License-Identifier: Apache-2.0
"""The vfio-user wire: numbers, flags and payload layouts.

Law: no I/O and no state; each layout is declared once, with construct, and the hot path's ``struct`` formats
are derived from that declaration. Integers are little-endian, as on every host that we run on.
Names and offsets follow the vfio-user specification, section by section.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Any

import construct as c

from ..errors import ClientError

MAJOR = 0
#: We speak 0.0 and 0.1; the reply carries the lower of this and what the client proposes.
MINOR = 1

#: Our limits, named as in the capabilities of VERSION.
MAX_MSG_FDS = 16
MAX_DATA_XFER_SIZE = 1 << 20

HEADER_SIZE = 16
#: The largest message we take: a REGION_WRITE of MAX_DATA_XFER_SIZE.
MAX_MESSAGE = HEADER_SIZE + 16 + MAX_DATA_XFER_SIZE


class Command(IntEnum):
    """§ Commands."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    DIRTY_PAGES = 14
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


class Flags(IntFlag):
    """§ Header."""

    TYPE = 0x0F
    REPLY = 0x01
    NO_REPLY = 0x10
    ERROR = 0x20


class DmaFlags(IntFlag):
    """§ VFIO_USER_DMA_MAP."""

    READ = 1
    WRITE = 2
    #: An extension of libvfio-user that states the default: the fd is to be mapped.
    MMAP = 4


class UnmapFlags(IntFlag):
    """Unused in the specification; both are sent in practice."""

    GET_DIRTY_BITMAP = 1
    ALL = 2


class DeviceFlags(IntFlag):
    """§ VFIO_USER_DEVICE_GET_INFO."""

    RESET = 1
    PCI = 2


class RegionFlags(IntFlag):
    """§ VFIO_USER_DEVICE_GET_REGION_INFO."""

    READ = 1
    WRITE = 2
    MMAP = 4
    CAPS = 8


class Region(IntEnum):
    """Region indexes of a PCI device, after <linux/vfio.h>."""

    BAR0 = 0
    BAR1 = 1
    BAR2 = 2
    BAR3 = 3
    BAR4 = 4
    BAR5 = 5
    ROM = 6
    CONFIG = 7
    VGA = 8


class Irq(IntEnum):
    """Interrupt indexes of a PCI device, after <linux/vfio.h>."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


class IrqInfoFlags(IntFlag):
    """§ VFIO_USER_DEVICE_GET_IRQ_INFO."""

    EVENTFD = 1
    MASKABLE = 2
    AUTOMASKED = 4
    NORESIZE = 8


class IrqSetFlags(IntFlag):
    """§ VFIO_USER_DEVICE_SET_IRQS."""

    DATA_NONE = 0x01
    DATA_BOOL = 0x02
    DATA_EVENTFD = 0x04
    ACTION_MASK = 0x08
    ACTION_UNMASK = 0x10
    ACTION_TRIGGER = 0x20


class FeatureFlags(IntFlag):
    """§ VFIO_USER_DEVICE_FEATURE; the index is in the low 16 bits."""

    GET = 1 << 16
    SET = 1 << 17
    PROBE = 1 << 18


# Payloads. What a message carries after these fields (JSON, data, an array) is not part of them.

Header = c.Struct(
    "msg_id" / c.Int16ul,
    "command" / c.Int16ul,
    "msg_size" / c.Int32ul,  # with this header
    "flags" / c.Int32ul,
    "error" / c.Int32ul,
)
Version = c.Struct("major" / c.Int16ul, "minor" / c.Int16ul)  # then JSON with a NUL
DmaMap = c.Struct(
    "argsz" / c.Int32ul,
    "flags" / c.Int32ul,
    "offset" / c.Int64ul,
    "address" / c.Int64ul,
    "size" / c.Int64ul,
)
DmaUnmap = c.Struct("argsz" / c.Int32ul, "flags" / c.Int32ul, "address" / c.Int64ul, "size" / c.Int64ul)
DeviceInfo = c.Struct("argsz" / c.Int32ul, "flags" / c.Int32ul, "num_regions" / c.Int32ul, "num_irqs" / c.Int32ul)
RegionInfo = c.Struct(
    "argsz" / c.Int32ul,
    "flags" / c.Int32ul,
    "index" / c.Int32ul,
    "cap_offset" / c.Int32ul,
    "size" / c.Int64ul,
    "offset" / c.Int64ul,
)
RegionIoFds = c.Struct("argsz" / c.Int32ul, "flags" / c.Int32ul, "index" / c.Int32ul, "count" / c.Int32ul)
IrqInfo = c.Struct("argsz" / c.Int32ul, "flags" / c.Int32ul, "index" / c.Int32ul, "count" / c.Int32ul)
IrqSet = c.Struct(
    "argsz" / c.Int32ul,
    "flags" / c.Int32ul,
    "index" / c.Int32ul,
    "start" / c.Int32ul,
    "count" / c.Int32ul,
)  # then one byte each for DATA_BOOL
RegionAccess = c.Struct("offset" / c.Int64ul, "region" / c.Int32ul, "count" / c.Int32ul)  # then data
WriteMulti = c.Struct("wr_cnt" / c.Int64ul)  # then wr_cnt of SingleWrite
SingleWrite = c.Struct("offset" / c.Int64ul, "region" / c.Int32ul, "count" / c.Int32ul, "data" / c.Bytes(8))
DmaAccess = c.Struct("address" / c.Int64ul, "count" / c.Int64ul)  # then data
DeviceFeature = c.Struct("argsz" / c.Int32ul, "flags" / c.Int32ul)  # then the feature's data


def packed(*declarations: Any) -> struct.Struct:
    """The ``struct`` of declarations of integers and byte strings, one after the other, in declared order."""
    formats = []
    for field in (field for declaration in declarations for field in declaration.subcons):
        inner = field.subcon
        formats.append(f"{inner.length}s" if isinstance(inner, c.Bytes) else inner.fmtstr.lstrip("<"))
    return struct.Struct("<" + "".join(formats))


def parse(declaration: Any, body: memoryview) -> Any:
    """The declaration's fields at the start of ``body``; ClientError(EINVAL) when it is too short."""
    if len(body) < declaration.sizeof():
        raise ClientError(f"payload of {len(body)} bytes where {declaration.sizeof()} are needed")
    return declaration.parse(body)


HEADER = packed(Header)
REGION_ACCESS = packed(RegionAccess)
#: A whole REGION_READ, the start of a REGION_WRITE and of both replies.
ACCESS = packed(Header, RegionAccess)
SINGLE_WRITE = packed(SingleWrite)
DMA_ACCESS = packed(DmaAccess)


def command_name(number: int) -> str:
    """The command's name, or its number when the specification has none."""
    try:
        return Command(number).name
    except ValueError:
        return f"command {number}"
