# SPDX-License-Identifier: Apache-2.0
"""Files that a client lends as memory: mapped for as long as anybody uses them, without a descriptor of ours.

Law: the only caller of mmap. Whatever the client does to the file meanwhile ends no process but its own: where its
pages may be cut off or withheld there is a ``Guard``, and Python moves bytes by its methods alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import platform
import stat
import struct
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from . import _core
from .errors import ClientError

HOST_PAGE = mmap.PAGESIZE
#: What VERSION says of offsets (§ VFIO_USER_VERSION, pgsizes), whatever the host's own pages are.
OFFSET_ALIGNMENT = 4096

# Of statfs(2), by <linux/magic.h>.
_TMPFS, _HUGETLBFS, _FUSE = 0x01021994, 0x958458F6, 0x65735546


class Guard(Protocol):
    """Of pages that may be cut off or withheld: moves bytes at their addresses, without the interpreter in hand."""

    @property
    def broken(self) -> bool:
        """Whether an access has found that they are cut off; each is an abort from then on."""

    def copy_out(self, address: int, size: int) -> bytes | None:
        """``size`` bytes; None: it is broken."""

    def copy_in(self, address: int, data: bytes) -> bool:
        """Write ``data``; False: it is broken."""

    def release(self) -> None:
        """Nobody uses them any more, and they are about to be unmapped."""


class KernelGuard:
    """A Guard without the core: the kernel copies, for which a page that is gone is an error and no signal.

    Where it does not (some containers forbid it) nothing is guarded.
    """

    def __init__(self) -> None:
        self.broken = False

    def copy_out(self, address: int, size: int) -> bytes | None:
        data = ctypes.create_string_buffer(size)
        if not kernel_copies():
            ctypes.memmove(data, address, size)
        elif _kernel_copy("process_vm_readv", data, address, size) != size:
            self.broken = True
        return None if self.broken else data.raw

    def copy_in(self, address: int, data: bytes) -> bool:
        size = len(data)
        source = ctypes.create_string_buffer(data, size)
        if not kernel_copies():
            ctypes.memmove(address, source, size)
        elif _kernel_copy("process_vm_writev", source, address, size) != size:
            self.broken = True
        return not self.broken

    def release(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Shared:
    """A mapping. It ends when the last user of ``view``, or of a part of it, lets go."""

    view: memoryview
    #: None: the pages are the kernel's own, and stay: those of a memfd that is sealed against shrinking.
    guard: Guard | None
    #: The file may become shorter, and an access to what is gone then ends the process.
    deadly: bool


def map_file(fd: int, offset: int, size: int, *, readable: bool, writable: bool, page: int = HOST_PAGE) -> Shared:
    """Map ``size`` bytes of ``fd`` at ``offset``, a multiple of OFFSET_ALIGNMENT; the fd stays the caller's.

    ``page``: of the host. ClientError: misaligned or no size (EINVAL), the file is shorter (ENXIO), its pages are
    another process's to give (ENOTSUP), or as mmap says.
    """
    if offset % OFFSET_ALIGNMENT or size <= 0 or offset + size >= 1 << 63:
        raise ClientError(f"file offset {offset:#x}+{size:#x} is no range of {OFFSET_ALIGNMENT}-byte pages")
    try:
        system, block = _file_system(fd)
        if system == _FUSE:
            # Even to unmap it would wait for its server, with all other threads.
            raise ClientError("a file of FUSE, whose server may withhold its pages, is no memory", errno.ENOTSUP)
        status = os.fstat(fd)
        # A mapping beyond the file's end is a SIGBUS waiting to happen.
        if stat.S_ISREG(status.st_mode) and offset + size > status.st_size:
            raise ClientError(f"the file is shorter than {offset:#x}+{size:#x}", errno.ENXIO)
        steady = _seal(fd) and system == _TMPFS
        # From the page below on: pages of the host, or of the file, may be larger than what offsets are multiples of.
        page = max(page, block) if system == _HUGETLBFS else page
        lead = offset % page
        length = -(-(lead + size) // page) * page
        at = _map(fd, offset - lead, length, mmap.PROT_READ * readable | mmap.PROT_WRITE * writable)
    except OSError as error:
        raise ClientError(f"mmap: {error.strerror}", error.errno or errno.EINVAL) from error
    core = _core.chosen()
    try:
        guard: Guard | None = None if steady else KernelGuard() if core is None else core.Guard(at, length)
    except MemoryError as error:
        _unmap(at, length, None)
        raise ClientError("no memory for another mapping", errno.ENOMEM) from error
    whole = (ctypes.c_ubyte * length).from_address(at)
    weakref.finalize(whole, _unmap, at, length, guard).atexit = False
    view = memoryview(whole).cast("B")[lead : lead + size]
    deadly = isinstance(guard, KernelGuard) and stat.S_ISREG(status.st_mode) and not kernel_copies()
    return Shared(view, guard, deadly)


def address_of(view: memoryview) -> int:
    """Where its first byte is, for as long as somebody has the view."""
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(view))


# -- the C library, which ctypes calls without the interpreter in hand -------------------------------------------------


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    protection, flags, fd = ctypes.c_int, ctypes.c_int, ctypes.c_int
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, protection, flags, fd, ctypes.c_int64)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


def _problem() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _file_system(fd: int) -> tuple[int, int]:
    """(f_type, f_bsize) of statfs(2)."""
    result = ctypes.create_string_buffer(256)
    if _libc().fstatfs(fd, result):
        raise _problem()
    kind, block = struct.unpack_from("@LL", result)
    return kind & 0xFFFF_FFFF, block


def _map(fd: int, offset: int, length: int, protection: int) -> int:
    at: int = _libc().mmap(None, length, protection, mmap.MAP_SHARED, fd, offset)
    if at == ctypes.c_void_p(-1).value:
        raise _problem()
    return at


def _unmap(at: int, length: int, guard: Guard | None) -> None:
    """Nobody uses it any more."""
    if guard is not None:
        guard.release()
    _libc().munmap(at, length)


def _seal(fd: int) -> bool:
    """See to it that the file never becomes shorter; False: it cannot be seen to, as it is no sealable memfd."""
    try:
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    except OSError:
        return False
    return True


def _kernel_copy(function: str, ours: ctypes.Array[ctypes.c_char], theirs: int, size: int) -> int:
    """process_vm_readv or process_vm_writev of this process: bytes that were copied, -1 for none."""
    call = getattr(_libc(), function)
    call.restype = ctypes.c_ssize_t
    local, remote = struct.pack("@PN", ctypes.addressof(ours), size), struct.pack("@PN", theirs, size)
    none, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    done: int = call(os.getpid(), local, one, remote, one, none)
    return done


@functools.cache
def kernel_copies() -> bool:
    """Whether ``_kernel_copy`` works: some containers forbid it."""
    source, target = ctypes.create_string_buffer(b"x", 1), ctypes.create_string_buffer(1)
    try:
        return _kernel_copy("process_vm_readv", target, ctypes.addressof(source), 1) == 1 and target.raw == b"x"
    except AttributeError:  # a C library without it
        return False


@functools.cache
def fence() -> Callable[[], None] | None:
    """A fence of C, for bytes are moved by copies that nothing orders: a record, and the MSI that tells of it.

    See ``vi_before_write`` of the core. x86 keeps stores in order, and loads, without one.
    """
    if platform.machine() in ("x86_64", "AMD64", "i686"):
        return None
    if (door := _core.built()) is not None:
        made: Callable[[], None] = door.fence
        return made
    try:
        function: Callable[[int], None] = ctypes.CDLL("libatomic.so.1").atomic_thread_fence
    except (OSError, AttributeError):
        return None
    return functools.partial(function, 4)  # memory_order_acq_rel
