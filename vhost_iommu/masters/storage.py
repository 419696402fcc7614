# SPDX-License-Identifier: Apache-2.0
"""What a disk keeps its bytes in: a file, or memory that is lost with the process.

Law: the caller keeps within [0, size). The host's I/O error is a value (None or False); only opening raises,
and then UsageError.
"""

from __future__ import annotations

import ctypes
import os
import stat
from typing import NamedTuple, Protocol

from ..errors import UsageError

_ZEROS = bytes(1 << 20)

#: linux/falloc.h
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.fallocate.restype = ctypes.c_int


class Prompt(NamedTuple):
    """A descriptor for reads, and perhaps writes, that wait for no device."""

    fd: int
    flags: int  #: with which preadv2 does not wait
    writes: bool  #: pwritev does not wait either, and what it wrote needs no flush


class Storage(Protocol):
    """``size`` bytes; offsets and sizes are bytes."""

    size: int
    readonly: bool

    @property
    def prompt(self) -> Prompt | None:
        """None: who reads or writes may always have to wait."""

    def read(self, offset: int, size: int) -> bytes | None: ...

    def write(self, offset: int, data: bytes) -> bool: ...

    def flush(self) -> bool: ...

    def discard(self, offset: int, size: int) -> bool: ...

    def zero(self, offset: int, size: int, *, unmap: bool) -> bool: ...

    def close(self) -> None: ...


class _Descriptor:
    """Storage in an open file, which it owns."""

    def __init__(self, fd: int, size: int, readonly: bool) -> None:
        self.fd = fd
        self.size = size
        self.readonly = readonly

    @property
    def prompt(self) -> Prompt | None:
        return None

    def read(self, offset: int, size: int) -> bytes | None:
        try:
            data = os.pread(self.fd, size, offset)
            while len(data) < size:
                more = os.pread(self.fd, size - len(data), offset + len(data))
                if not more:  # somebody made the file shorter
                    return None
                data += more
        except OSError:
            return None
        return data

    def write(self, offset: int, data: bytes) -> bool:
        try:
            done = os.pwrite(self.fd, data, offset)
            while done < len(data):
                done += os.pwrite(self.fd, memoryview(data)[done:], offset + done)
        except OSError:
            return False
        return True

    def flush(self) -> bool:
        try:
            os.fdatasync(self.fd)
        except OSError:
            return False
        return True

    def discard(self, offset: int, size: int) -> bool:
        """Give the bytes back to the host, when it takes them; what they hold then is theirs to say."""
        self._punch(offset, size)
        return True

    def zero(self, offset: int, size: int, *, unmap: bool) -> bool:
        if unmap and self._punch(offset, size):
            return True
        end = offset + size
        while offset < end:
            part = min(len(_ZEROS), end - offset)
            if not self.write(offset, _ZEROS[:part]):
                return False
            offset += part
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _punch(self, offset: int, size: int) -> bool:
        mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
        return int(_libc.fallocate(self.fd, mode, offset, size)) == 0


class FileStorage(_Descriptor):
    """The file or block device at ``path``; a file that is not there is made when ``size`` is given.

    ``size`` None: as large as the file. A shorter file grows to ``size``, sparse, unless it is readonly.
    """

    def __init__(self, path: str | os.PathLike[str], size: int | None = None, readonly: bool = False) -> None:
        flags = os.O_RDONLY if readonly else os.O_RDWR
        if size is not None and not readonly:
            flags |= os.O_CREAT
        try:
            fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"cannot open the disk {os.fspath(path)}: {error.strerror}") from error
        try:
            has = os.lseek(fd, 0, os.SEEK_END)
            if size is None:
                size = has
            elif has < size:
                if readonly or not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise UsageError(f"the disk {os.fspath(path)} has {has} bytes; give it a size of at most that")
                os.truncate(fd, size)
        except OSError as error:
            os.close(fd)
            raise UsageError(f"cannot use the disk {os.fspath(path)}: {error.strerror}") from error
        except UsageError:
            os.close(fd)
            raise
        super().__init__(fd, size, readonly)
        self._nowait = _reads_without_waiting(fd)

    @property
    def prompt(self) -> Prompt | None:
        return Prompt(self.fd, os.RWF_NOWAIT, False) if self._nowait and self.fd >= 0 else None


def _reads_without_waiting(fd: int) -> bool:
    """Whether its file system can say that a read would have to wait."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


class MemoryStorage(_Descriptor):
    """``size`` zero bytes, of which only those written take memory."""

    def __init__(self, size: int, readonly: bool = False) -> None:
        fd = os.memfd_create("vhost_iommu-disk", os.MFD_CLOEXEC)
        try:
            os.truncate(fd, size)
        except OSError as error:
            os.close(fd)
            raise UsageError(f"a disk of {size} bytes cannot be in memory: {error.strerror}") from error
        super().__init__(fd, size, readonly)

    @property
    def prompt(self) -> Prompt | None:
        return Prompt(self.fd, 0, not self.readonly) if self.fd >= 0 else None

    def flush(self) -> bool:
        return True


def open_storage(path: str | None = None, size: int | None = None, readonly: bool = False) -> Storage:
    """As a machine file says it: a file at ``path``, or without one ``size`` bytes of memory."""
    if path is not None:
        return FileStorage(path, size, readonly)
    if size is None:
        raise UsageError("a disk needs a path or a size")
    return MemoryStorage(size, readonly)
