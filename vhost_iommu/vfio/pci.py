# SPDX-License-Identifier: Apache-2.0
"""A PCI function made of register blocks: configuration space, BARs, interrupts.

Law: a client reads and writes bytes of regions, a register block sees only accesses that its bus would make
(mmio.MmioDevice). Outside of every block reads are zero and writes are ignored.
Not modelled: I/O BARs, an expansion ROM, power management, MSI; COMMAND.MemorySpace gates nothing here.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping

import construct as c

from ..errors import ClientError, UsageError
from ..memory import Memory
from ..mmio import MmioDevice
from .interrupts import Interrupts
from .wire import Region

NUM_REGIONS = len(Region)
NUM_BARS = 6
_CONFIG = int(Region.CONFIG)
_PAGE = 4096
_NATURAL = frozenset((1, 2, 4, 8))

# PCI Local Bus 3.0 §6.1, header type 0
ConfigHeader = c.Struct(
    "vendor_id" / c.Int16ul,
    "device_id" / c.Int16ul,
    "command" / c.Default(c.Int16ul, 0),
    "status" / c.Default(c.Int16ul, 0x0010),  # capability list
    "revision" / c.Int8ul,
    "class_code" / c.Int24ul,
    "cache_line_size" / c.Default(c.Int8ul, 0),
    "latency_timer" / c.Default(c.Int8ul, 0),
    "header_type" / c.Default(c.Int8ul, 0),
    "bist" / c.Default(c.Int8ul, 0),
    "bars" / c.Int32ul[NUM_BARS],
    "cardbus_cis" / c.Default(c.Int32ul, 0),
    "subsystem_vendor_id" / c.Int16ul,
    "subsystem_id" / c.Int16ul,
    "rom" / c.Default(c.Int32ul, 0),
    "capabilities" / c.Int8ul,
    c.Padding(7),
    "interrupt_line" / c.Default(c.Int8ul, 0),
    "interrupt_pin" / c.Int8ul,
    "min_gnt" / c.Default(c.Int8ul, 0),
    "max_lat" / c.Default(c.Int8ul, 0),
)
COMMAND, STATUS, BAR0, INTERRUPT_LINE = 0x04, 0x06, 0x10, 0x3C
COMMAND_BUS_MASTER = 1 << 2
COMMAND_INTX_DISABLE = 1 << 10
#: Memory space, bus master, parity error response, SERR enable, INTx disable.
_COMMAND_WRITABLE = 0x0546
STATUS_INTERRUPT = 1 << 3

# §6.8.2: the MSI-X capability
MsixCapability = c.Struct(
    "id" / c.Const(0x11, c.Int8ul),
    "next" / c.Int8ul,
    "control" / c.Int16ul,  # table size - 1, function mask, enable
    "table" / c.Int32ul,  # offset | BAR
    "pba" / c.Int32ul,
)
_MSIX_CAP = 0x40
_MSIX_CONTROL = _MSIX_CAP + 2
_MSIX_WRITABLE = 0xC000
MSIX_FUNCTION_MASK = 1 << 14
MSIX_ENABLE = 1 << 15
MAX_VECTORS = 2048

# PCI Express 3.0 §7.8, an endpoint without link state to speak of
ExpressCapability = c.Struct(
    "id" / c.Const(0x10, c.Int8ul),
    "next" / c.Const(0, c.Int8ul),
    "capabilities" / c.Const(0x0002, c.Int16ul),  # version 2, endpoint
    "device_capabilities" / c.Const(0x8000, c.Int32ul),  # role-based error reporting
    "device_control" / c.Const(0, c.Int16ul),
    "device_status" / c.Const(0, c.Int16ul),
    "link_capabilities" / c.Const(0x11, c.Int32ul),  # 2.5 GT/s, one lane
    "link_control" / c.Const(0, c.Int16ul),
    "link_status" / c.Const(0x11, c.Int16ul),
    c.Padding(40),
)
_EXPRESS_CAP = 0x50

_BAR_64 = 0x4
_BAR_PREFETCHABLE = 0x8


class BarMap:
    """The register blocks of one memory BAR, each at its offset."""

    def __init__(
        self,
        blocks: Iterable[tuple[int, MmioDevice]] = (),
        *,
        size: int | None = None,
        wide: bool = True,
        prefetchable: bool = False,
    ) -> None:
        """``blocks``: (offset, device); ``size``: bytes, a power of two ≥ 4096, by default what the blocks need;
        ``wide``: a 64-bit BAR, which takes the next index too.

        ValueError: an offset or size is not a multiple of 8, blocks overlap, or the size does not hold them.
        """
        self.blocks = sorted(blocks, key=lambda block: block[0])
        end = 0
        for offset, device in self.blocks:
            if offset % 8 or device.size % 8 or device.size <= 0:
                raise ValueError(f"{device.name}: {offset:#x}+{device.size:#x} is not a multiple of 8")
            if offset < end:
                raise ValueError(f"{device.name} at {offset:#x} overlaps the block before it")
            end = offset + device.size
        self.size = size or max(_PAGE, 1 << (end - 1).bit_length() if end else 0)
        if self.size & (self.size - 1) or self.size < max(end, _PAGE):
            raise ValueError(f"a BAR of {self.size:#x} bytes cannot hold {end:#x}")
        self.wide = wide
        self.prefetchable = prefetchable
        self._bases = [offset for offset, _ in self.blocks]
        self._slots = [(offset, offset + device.size, device) for offset, device in self.blocks]

    def find(self, offset: int) -> tuple[int, int, MmioDevice] | None:
        """(start, end, block) of the block that decodes ``offset``, or None."""
        at = bisect_right(self._bases, offset) - 1
        return self._slots[at] if at >= 0 and offset < self._slots[at][1] else None

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``, which the caller has checked against the BAR's size."""
        if size not in _NATURAL or offset & (size - 1):
            return b"".join([self.read(at, piece) for at, piece in _natural(offset, size)])
        found = self.find(offset)
        if found is None:
            return bytes(size)
        base, _, device = found
        return device.read(offset - base, size).to_bytes(size, "little")

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store ``data`` at ``offset``, which the caller has checked against the BAR's size."""
        size = len(data)
        if size not in _NATURAL or offset & (size - 1):
            for at, piece in _natural(offset, size):
                self.write(at, data[at - offset : at - offset + piece])
            return
        found = self.find(offset)
        if found is not None:
            base, _, device = found
            device.write(offset - base, size, int.from_bytes(data, "little"))


def _natural(offset: int, size: int) -> Iterable[tuple[int, int]]:
    """[offset, offset + size) as naturally aligned pieces of 1, 2, 4 and 8 bytes."""
    while size:
        piece = min(8, offset & -offset or 8, 1 << (size.bit_length() - 1))
        yield offset, piece
        offset += piece
        size -= piece


class MsixTable:
    """The MSI-X table: storage only (see Interrupts). Each vector starts masked."""

    def __init__(self, vectors: int) -> None:
        self.name = "msix-table"
        self._entries = vectors
        self.size = 16 * vectors
        self.reset()

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        self._bytes = bytearray(struct.pack("<QII", 0, 0, 1) * self._entries)


class PendingBits:
    """The MSI-X pending bit array, read-only."""

    def __init__(self, interrupts: Interrupts, vectors: int) -> None:
        self.name = "msix-pba"
        self.size = (vectors + 63) // 64 * 8
        self._interrupts = interrupts

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._interrupts.pending_bits(self.size)[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        pass

    def reset(self) -> None:
        pass


class PciFunction:
    """One PCI function as a vfio-user client sees it; lives as long as the machine, whoever is connected."""

    def __init__(
        self,
        name: str,
        bars: Mapping[int, BarMap],
        *,
        memory: Memory | None = None,
        vendor_id: int = 0x1234,
        device_id: int = 0x0550,
        class_code: int = 0x080600,
        revision: int = 0,
        subsystem_vendor_id: int = 0,
        subsystem_id: int = 0,
        intx: bool = True,
        msix_vectors: int = 0,
        msix_bar: int = 4,
        express: bool = False,
    ) -> None:
        """``bars``: by index 0…5; ``msix_vectors``: 0 for no MSI-X, whose table and pending bits then fill BAR
        ``msix_bar``; ``class_code``: 24 bits, by default an IOMMU's; ``express``: a PCI Express endpoint, whose
        configuration space has 4096 bytes instead of 256.

        ValueError: two BARs claim one index, or a number is out of range.
        """
        self.name = name
        #: Whether a client is there; who serves it says so.
        self.served = False
        self._socket: Callable[[], float | None] | None = None
        self.memory = memory or Memory()
        self.interrupts = Interrupts(msix_vectors, intx=intx)
        self.bars = dict(bars)
        if not 0 <= msix_vectors <= MAX_VECTORS:
            raise ValueError(f"{msix_vectors} MSI-X vectors, of at most {MAX_VECTORS}")
        pba_offset = -(-16 * msix_vectors // _PAGE) * _PAGE
        if msix_vectors:
            if msix_bar in self.bars:
                raise ValueError(f"BAR {msix_bar} is taken, but MSI-X needs it")
            self.bars[msix_bar] = BarMap(
                [(0, MsixTable(msix_vectors)), (pba_offset, PendingBits(self.interrupts, msix_vectors))],
                wide=False,
            )
        self._writable = bytearray(4096 if express else 256)
        flags = self._size_bars()

        config = bytearray(len(self._writable))
        capabilities = [_MSIX_CAP] * bool(msix_vectors) + [_EXPRESS_CAP] * express
        header = ConfigHeader.build(
            {
                "vendor_id": vendor_id,
                "device_id": device_id,
                "status": 0x0010 if capabilities else 0,
                "revision": revision,
                "class_code": class_code,
                "bars": flags,
                "subsystem_vendor_id": subsystem_vendor_id,
                "subsystem_id": subsystem_id,
                "capabilities": capabilities[0] if capabilities else 0,
                "interrupt_pin": int(intx),
            }
        )
        config[: len(header)] = header
        self._let(COMMAND, _COMMAND_WRITABLE.to_bytes(2, "little"))
        self._let(INTERRUPT_LINE, b"\xff")
        if msix_vectors:
            config[_MSIX_CAP : _MSIX_CAP + 12] = MsixCapability.build(
                {
                    "next": _EXPRESS_CAP if express else 0,
                    "control": msix_vectors - 1,
                    "table": msix_bar,
                    "pba": pba_offset | msix_bar,
                }
            )
            self._let(_MSIX_CONTROL, _MSIX_WRITABLE.to_bytes(2, "little"))
        if express:
            config[_EXPRESS_CAP : _EXPRESS_CAP + 60] = ExpressCapability.build({})
        self._msix = bool(msix_vectors)
        self._after_power_on = bytes(config)
        self._config = config
        self._sizes = [self.bars[index].size if index in self.bars else 0 for index in range(NUM_REGIONS)]
        self._sizes[_CONFIG] = len(config)

    @property
    def socket(self) -> Callable[[], float | None] | None:
        """The seam of a client's messages (docs/faults.md): asked of each, when it is carried out. After so many
        seconds; infinite: never, nor is anything sent; None: the connection is closed instead.

        UsageError when it is set while a client is there, which is served without asking.
        """
        return self._socket

    @socket.setter
    def socket(self, socket: Callable[[], float | None] | None) -> None:
        if self.served:
            raise UsageError(f"'socket' of {self.name} comes too late: set it before a client is there")
        self._socket = socket

    def _size_bars(self) -> list[int]:
        """The BARs' read-only flag bits; their address bits become writable, which is what sizing reads."""
        flags = [0] * NUM_BARS
        taken: set[int] = set()
        for index, bar in self.bars.items():
            used = {index, index + 1} if bar.wide else {index}
            if taken & used or not used <= set(range(NUM_BARS)):
                raise ValueError(f"BAR {index} does not fit beside the others")
            taken |= used
            flags[index] = (_BAR_64 if bar.wide else 0) | (_BAR_PREFETCHABLE if bar.prefetchable else 0)
            address = -bar.size & (1 << 64) - 1
            width = 8 if bar.wide else 4
            self._let(BAR0 + 4 * index, address.to_bytes(8, "little")[:width])
        return flags

    def _let(self, offset: int, mask: bytes) -> None:
        self._writable[offset : offset + len(mask)] = mask

    def blocks(self) -> list[tuple[int, int, int, MmioDevice]]:
        """(region, start, end, block) of each, wherever it has a place of its own."""
        return [
            (index, start, start + device.size, device)
            for index, bar in self.bars.items()
            for start, device in bar.blocks
        ]

    # -- regions -----------------------------------------------------------------------------------------------

    def region_size(self, region: int) -> int:
        """Bytes of a region, 0 for one that this function lacks; ClientError for no region at all."""
        if region >= NUM_REGIONS:
            raise ClientError(f"region {region} of {NUM_REGIONS}")
        return self._sizes[region]

    def read(self, region: int, offset: int, size: int) -> bytes:
        """Read ``size`` bytes of a region; ClientError(EINVAL) outside of it."""
        if region >= NUM_REGIONS or offset + size > self._sizes[region]:
            raise ClientError(f"read of {offset:#x}+{size:#x} leaves region {region}")
        bar = self.bars.get(region)
        if bar is not None:
            return bar.read(offset, size)
        data = bytearray(self._config[offset : offset + size])
        if self.interrupts.level and offset <= STATUS < offset + size:
            data[STATUS - offset] |= STATUS_INTERRUPT
        return bytes(data)

    def write(self, region: int, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` to a region; ClientError(EINVAL) outside of it."""
        if region >= NUM_REGIONS or offset + len(data) > self._sizes[region]:
            raise ClientError(f"write of {offset:#x}+{len(data):#x} leaves region {region}")
        bar = self.bars.get(region)
        if bar is not None:
            bar.write(offset, data)
            return
        for at, new in enumerate(data, offset):
            mask = self._writable[at]
            self._config[at] = self._config[at] & ~mask | new & mask
        self._configured()

    def _configured(self) -> None:
        control = self._config16(_MSIX_CONTROL) if self._msix else 0
        self.interrupts.configured(
            intx_disabled=bool(self._config16(COMMAND) & COMMAND_INTX_DISABLE),
            msix_enabled=bool(control & MSIX_ENABLE),
            function_masked=bool(control & MSIX_FUNCTION_MASK),
        )

    def _config16(self, offset: int) -> int:
        return int.from_bytes(self._config[offset : offset + 2], "little")

    @property
    def bus_master(self) -> bool:
        """COMMAND.BusMaster: whether the function may send memory requests."""
        return bool(self._config[COMMAND] & COMMAND_BUS_MASTER)

    def reset(self) -> None:
        """DEVICE_RESET: configuration space, interrupts and every register block as after power-on.

        Blocks in the order in which the BARs were given.
        """
        self._config[:] = self._after_power_on
        self.interrupts.reset()
        self._configured()
        devices = {id(device): device for bar in self.bars.values() for _, device in bar.blocks}
        for device in devices.values():
            device.reset()

    # -- interrupts --------------------------------------------------------------------------------------------

    def trigger_intx(self, level: bool) -> None:
        """Drive the interrupt pin; callable from any thread."""
        self.interrupts.trigger_intx(level)

    def trigger_msix(self, vector: int) -> None:
        """Send MSI-X ``vector``, 0…msix_vectors-1; callable from any thread."""
        self.interrupts.trigger_msix(vector)
