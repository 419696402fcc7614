# SPDX-License-Identifier: Apache-2.0
"""One client's use of a PCI function, from VERSION to its loss.

Law: what the client lent (memory, eventfds) ends with the session; the function's state outlives it
(vfio-user § Client Disconnection). Commands are carried out in order, each in one method named after it.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable
from typing import Any

from ..errors import ClientError
from ..memory import Ended, Window, unheard
from ..shared import OFFSET_ALIGNMENT
from . import wire
from .connection import Connection, FatalClientError, Method
from .pci import NUM_REGIONS, PciFunction
from .wire import DMA_ACCESS, SINGLE_WRITE, Command, DmaFlags, Irq, UnmapFlags

log = logging.getLogger("vhost_iommu.vfio")

_UNSHARED = (
    "guest memory {:#x}+{:#x} came without a file descriptor, so DMA to it aborts; start QEMU with "
    "-object memory-backend-memfd,id=mem,size=…,share=on -machine memory-backend=mem"
)


_MAY_SHRINK = (
    "guest memory {:#x}+{:#x} is a file that can be cut short, which would end this process by SIGBUS, as neither "
    "the compiled core nor the kernel's copies (process_vm_readv) are here; start QEMU with "
    "-object memory-backend-memfd,id=mem,size=…,share=on -machine memory-backend=mem, which seals it (seal=on)"
)


class Session:
    """Serves ``function`` to one client; ``connection.feed`` takes what the client sends."""

    def __init__(
        self,
        function: PciFunction,
        send: Callable[[bytes], bool],
        complain: Callable[[str], None] = log.warning,
    ) -> None:
        """``send`` and ``complain``: as of Connection; ``send`` may be called from any thread."""
        self._function = function
        self._complain = complain
        self._max_data = wire.MAX_DATA_XFER_SIZE  # bytes that the client takes in one message
        self._told_unshared = self._told_may_shrink = False
        self.connection = Connection({Command.VERSION: self._version}, send, complain)

    def end(self) -> None:
        """The client is gone: unmap its memory, close its descriptors, abort what waits for it."""
        self._function.memory.outside = None
        self.connection.close()
        self._function.memory.clear()
        self._function.interrupts.clear()

    def _table(self) -> dict[int, Method]:
        """What each command does, once the version is agreed."""
        return {
            Command.VERSION: self._version_again,
            Command.DMA_MAP: self._dma_map,
            Command.DMA_UNMAP: self._dma_unmap,
            Command.DEVICE_GET_INFO: self._device_get_info,
            Command.DEVICE_GET_REGION_INFO: self._device_get_region_info,
            Command.DEVICE_GET_REGION_IO_FDS: self._device_get_region_io_fds,
            Command.DEVICE_GET_IRQ_INFO: self._device_get_irq_info,
            Command.DEVICE_SET_IRQS: self._device_set_irqs,
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.DMA_READ: self._not_supported,  # ours to send
            Command.DMA_WRITE: self._not_supported,
            Command.DEVICE_RESET: self._device_reset,
            Command.DIRTY_PAGES: self._not_supported,
            Command.REGION_WRITE_MULTI: self._region_write_multi,
            Command.DEVICE_FEATURE: self._device_feature,
            Command.MIG_DATA_READ: self._not_supported,
            Command.MIG_DATA_WRITE: self._not_supported,
        }

    # -- § VFIO_USER_VERSION -------------------------------------------------------------------------------------

    def _version(self, body: memoryview, fds: list[int]) -> bytes:
        try:
            proposed = wire.parse(wire.Version, body)
            if proposed.major != wire.MAJOR:
                raise ClientError(f"version {proposed.major}.{proposed.minor}, we speak {wire.MAJOR}.x")
            theirs = _capabilities(bytes(body[wire.Version.sizeof() :]))
        except ClientError as problem:
            raise FatalClientError(str(problem), problem.errno) from problem
        self._max_data = min(self._max_data, theirs.get("max_data_xfer_size", self._max_data))
        ours = {
            "max_msg_fds": wire.MAX_MSG_FDS,
            "max_data_xfer_size": wire.MAX_DATA_XFER_SIZE,
            "max_dma_maps": self._function.memory.most,
            "pgsizes": OFFSET_ALIGNMENT,
            "write_multiple": True,
        }
        # "The capability list must be a subset of those proposed"; QEMU takes none longer than its own.
        agreed = {name: value for name, value in ours.items() if theirs.get(name)}
        text = json.dumps({"capabilities": agreed}, separators=(",", ":"))
        self.connection.commands = self._table()
        self.connection.regions = self._function
        self.connection.may_post = lambda: self._function.bus_master and self._max_data >= 4
        self._function.memory.outside = self._outside
        minor = min(proposed.minor, wire.MINOR)
        return bytes(wire.Version.build({"major": wire.MAJOR, "minor": minor})) + text.encode() + b"\0"

    def _version_again(self, body: memoryview, fds: list[int]) -> bytes:
        raise ClientError("the version is agreed already")

    # -- § VFIO_USER_DMA_MAP, § VFIO_USER_DMA_UNMAP --------------------------------------------------------------

    def _dma_map(self, body: memoryview, fds: list[int]) -> bytes:
        request = _request(wire.DmaMap, body)
        readable, writable = bool(request.flags & DmaFlags.READ), bool(request.flags & DmaFlags.WRITE)
        if request.flags & ~int(DmaFlags.READ | DmaFlags.WRITE | DmaFlags.MMAP) or not (readable or writable):
            raise ClientError(f"DMA flags {request.flags:#x}")
        if len(fds) > 1:
            raise ClientError(f"{len(fds)} file descriptors for one window")
        memory = self._function.memory
        if fds:
            at = request.address, request.size
            sealed = memory.map_fd(*at, fds[0], request.offset, readable=readable, writable=writable)
            if not sealed and not self._told_may_shrink:
                self._told_may_shrink = True
                self._complain(_MAY_SHRINK.format(*at))
            return b""
        memory.add(Window(request.address, request.size, None, readable, writable))
        # A client maps its RAM first. What comes later without an fd is another device's BAR.
        if not self._told_unshared and all(window.buffer is None for window in memory.windows):
            self._told_unshared = True
            self._complain(_UNSHARED.format(request.address, request.size))
        return b""

    def _dma_unmap(self, body: memoryview, fds: list[int]) -> bytes:
        request = _request(wire.DmaUnmap, body)
        if request.flags & ~int(UnmapFlags.ALL):
            raise ClientError(f"unmap flags {request.flags:#x}", errno.ENOTSUP)
        if not request.flags:
            self._function.memory.remove(request.address, request.size)
        elif request.address or request.size:
            raise ClientError("unmapping all takes neither address nor size")
        else:
            self._function.memory.clear()
        return bytes(body[: wire.DmaUnmap.sizeof()])

    # -- § VFIO_USER_DEVICE_GET_INFO and the like ------------------------------------------------------------------

    def _device_get_info(self, body: memoryview, fds: list[int]) -> bytes:
        _request(wire.DeviceInfo, body)
        flags = wire.DeviceFlags.RESET | wire.DeviceFlags.PCI
        return _reply(wire.DeviceInfo, flags=flags, num_regions=NUM_REGIONS, num_irqs=len(Irq))

    def _device_get_region_info(self, body: memoryview, fds: list[int]) -> bytes:
        index = _request(wire.RegionInfo, body).index
        size = self._function.region_size(index)
        flags = wire.RegionFlags.READ | wire.RegionFlags.WRITE if size else 0
        return _reply(wire.RegionInfo, flags=flags, index=index, cap_offset=0, size=size, offset=0)

    def _device_get_region_io_fds(self, body: memoryview, fds: list[int]) -> bytes:
        request = _request(wire.RegionIoFds, body)
        if request.flags or request.count:
            raise ClientError("flags and count of a query are not zero")
        self._function.region_size(request.index)
        return _reply(wire.RegionIoFds, flags=0, index=request.index, count=0)

    def _device_get_irq_info(self, body: memoryview, fds: list[int]) -> bytes:
        index = _request(wire.IrqInfo, body).index
        flags, count = self._function.interrupts.info(index)
        return _reply(wire.IrqInfo, flags=flags, index=index, count=count)

    def _device_set_irqs(self, body: memoryview, fds: list[int]) -> bytes:
        request = _request(wire.IrqSet, body)
        bools = body[wire.IrqSet.sizeof() :]
        if request.argsz > len(body):
            raise ClientError(f"argsz {request.argsz} of a payload of {len(body)} bytes")
        self._function.interrupts.set(request.flags, request.index, request.start, request.count, bools, fds)
        return b""

    # -- § VFIO_USER_REGION_READ, _WRITE, _WRITE_MULTI -------------------------------------------------------------

    def _region_read(self, body: memoryview, fds: list[int]) -> bytes:
        """Only for what the connection does not carry out itself: what is malformed."""
        request = wire.parse(wire.RegionAccess, body)
        if request.count > wire.MAX_DATA_XFER_SIZE:
            raise ClientError(f"count {request.count} is more than max_data_xfer_size", errno.E2BIG)
        raise ClientError(f"a payload of {len(body)} bytes where 16 are needed")

    def _region_write(self, body: memoryview, fds: list[int]) -> bytes:
        """As _region_read."""
        request = wire.parse(wire.RegionAccess, body)
        raise ClientError(f"{len(body) - 16} bytes of data for a count of {request.count}")

    def _region_write_multi(self, body: memoryview, fds: list[int]) -> bytes:
        count = wire.parse(wire.WriteMulti, body).wr_cnt
        writes = body[wire.WriteMulti.sizeof() :]
        if len(writes) != count * SINGLE_WRITE.size:
            raise ClientError(f"{len(writes)} bytes for {count} writes")
        failed: ClientError | None = None
        for offset, region, size, data in SINGLE_WRITE.iter_unpack(writes):
            try:  # one bad write takes no other with it, as if they had come one by one
                if size > len(data):
                    raise ClientError(f"{size} bytes in one of several writes")
                self._function.write(region, offset, data[:size])
            except ClientError as problem:
                failed = failed or problem
        if failed:
            raise failed
        return bytes(body[: wire.WriteMulti.sizeof()])

    # -- the rest ----------------------------------------------------------------------------------------------

    def _device_reset(self, body: memoryview, fds: list[int]) -> bytes:
        self._function.reset()
        return b""

    def _device_feature(self, body: memoryview, fds: list[int]) -> bytes:
        """All features of the specification are of migration, which we do not do, so that no probe succeeds."""
        feature = _request(wire.DeviceFeature, body).flags & 0xFFFF
        raise ClientError(f"feature {feature} is not supported", errno.ENOTSUP)

    def _not_supported(self, body: memoryview, fds: list[int]) -> bytes:
        raise ClientError("not supported", errno.ENOTSUP)

    # -- § VFIO_USER_DMA_WRITE: our command --------------------------------------------------------------------

    def _outside(self, pa: int, data: bytes, ended: Ended) -> bool:
        """Memory.outside: let the client carry out a posted write; never waits for its reply."""
        if not self._function.bus_master or len(data) > self._max_data:
            return False
        payload = DMA_ACCESS.pack(pa, len(data)) + data
        if ended is unheard:
            return self.connection.tell(Command.DMA_WRITE, payload)
        return self.connection.request(Command.DMA_WRITE, payload, lambda error: ended(bool(error)))


def _request(declaration: Any, body: memoryview) -> Any:
    """Parse a request whose ``argsz`` must leave room for the structure itself."""
    request = wire.parse(declaration, body)
    if request.argsz < declaration.sizeof():
        raise ClientError(f"argsz {request.argsz} where {declaration.sizeof()} bytes are needed")
    return request


def _reply(declaration: Any, **fields: int) -> bytes:
    """Build a reply; ``argsz`` is its size, and there is never more to fetch."""
    return bytes(declaration.build({"argsz": declaration.sizeof(), **fields}))


def _capabilities(data: bytes) -> dict[str, Any]:
    """The capabilities in VERSION's data, unknown ones left out; ClientError when it is not what is specified."""
    if not data:
        return {}
    if not data.endswith(b"\0"):
        raise ClientError("version data does not end in NUL")
    try:
        version = json.loads(data[:-1].decode() or "{}")
    except (ValueError, RecursionError) as problem:
        raise ClientError("version data is not JSON") from problem
    given = version.get("capabilities", {}) if isinstance(version, dict) else None
    if not isinstance(given, dict):
        raise ClientError("version data is not an object with an object of capabilities")
    numbers = ("max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes")
    for name in numbers:
        value = given.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ClientError(f"capability {name} is not a number")
    if not isinstance(given.get("write_multiple", False), bool):
        raise ClientError("capability write_multiple is neither true nor false")
    return {name: given[name] for name in (*numbers, "write_multiple") if name in given}
