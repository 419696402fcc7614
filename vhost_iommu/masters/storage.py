# SPDX-License-Identifier: Apache-2.0
"""What a disk keeps its bytes in: a file, or memory that is lost with the process.

Law: the caller keeps within [0, size). The host's I/O error is a value (None or False), and after a failed flush
every flush fails: what was lost stays lost. Only opening raises, and then UsageError; it makes or lengthens a file
only where it is told to.
"""

from __future__ import annotations

import ctypes
import logging
import os
import stat
import weakref
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from ..errors import UsageError
from ..sealed import declared, replaced

log = logging.getLogger("vhost_iommu.storage")

#: What sizes are multiples of.
SECTOR = 512

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


@declared
class _Descriptor:
    """Storage in an open file, which it owns."""

    def __init__(self, name: str, fd: int, size: int, readonly: bool) -> None:
        """``name`` is what the log calls it."""
        self.name = name
        self.fd = fd
        self._close = weakref.finalize(self, os.close, fd)  # also of one that nobody closes
        self.size = size
        self.readonly = readonly
        #: The host tells of a write-back that failed once, whoever asks next.
        self._lost = False

    @property
    def prompt(self) -> Prompt | None:
        """None, too, where somebody has replaced what reads or writes: requests would go past that."""
        return None if self.fd < 0 or replaced(self, _Descriptor, "read", "write") else self._promptly()

    def _promptly(self) -> Prompt | None:
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
        if self._lost:
            return False
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            self._lost = True
            log.error("%s: the host could not write it back (%s): flushes fail from now on", self.name, error.strerror)
        return not self._lost

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
        self._close()
        self.fd = -1

    def _punch(self, offset: int, size: int) -> bool:
        mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
        return int(_libc.fallocate(self.fd, mode, offset, size)) == 0


class FileStorage(_Descriptor):
    """The file or block device at ``path``.

    ``size`` None: as large as it is; else so many bytes at its begin. With ``create``, which needs a ``size``, a file
    that is not there is made, and a shorter one lengthened, sparse.
    """

    def __init__(
        self, path: str | os.PathLike[str], size: int | None = None, readonly: bool = False, *, create: bool = False
    ) -> None:
        name = os.fspath(path)
        if create and (readonly or not size):
            raise UsageError(f"the disk {name} cannot be made read-only or without a size")
        made = create and not os.path.lexists(path)
        try:
            if not made and not _is_disk(os.stat(path).st_mode):
                raise UsageError(f"the disk {name} is neither a file nor a block device; name one that is")
            access = os.O_RDONLY if readonly else os.O_RDWR
            fd = os.open(path, access | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if made else 0), 0o644)
        except FileNotFoundError as error:
            if not Path(path).parent.is_dir():
                raise UsageError(f"there is no folder for the disk {name}; correct its name or make it") from error
            mend = "correct its name, or give it a size and create = true to have a blank one made"
            raise UsageError(f"there is no disk {name}; {mend}") from error
        except OSError as error:
            raise UsageError(f"cannot open the disk {name}: {error.strerror}") from error
        try:
            size = _fitted(name, fd, size, create)
            if made:
                _sync_entry(Path(path))
                log.warning("%s: made, blank, of %d bytes", name, size)
        except (OSError, UsageError) as error:
            os.close(fd)
            if made:
                os.unlink(path)
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"cannot use the disk {name}: {error.strerror}") from error
        super().__init__(name, fd, size, readonly)
        self._nowait = _reads_without_waiting(fd)

    def _promptly(self) -> Prompt | None:
        return Prompt(self.fd, os.RWF_NOWAIT, False) if self._nowait else None


def _is_disk(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _fitted(name: str, fd: int, size: int | None, create: bool) -> int:
    """The size of the disk in ``fd``, which is lengthened to ``size`` if it may be."""
    has = os.lseek(fd, 0, os.SEEK_END)
    if size is None:
        if has and has % SECTOR == 0:
            return has
        whole = max(SECTOR, -(-has // SECTOR) * SECTOR)
        raise UsageError(
            f"the disk {name} has {has} bytes, which are no whole sectors of {SECTOR}; "
            f"lengthen it ('truncate -s {whole} {name}') or give it a size below that"
        )
    if has < size:
        if not create or not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(
                f"the disk {name} has {has} bytes and not {size}; leave the size out, "
                f"or lengthen the file ('truncate -s {size} {name}', or create = true)"
            )
        os.truncate(fd, size)
    return size


def _sync_entry(path: Path) -> None:
    """Have the folder keep a new file's name, which to sync the file itself need not do."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


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
        super().__init__("memory", fd, size, readonly)

    def _promptly(self) -> Prompt | None:
        return Prompt(self.fd, 0, not self.readonly)

    def flush(self) -> bool:
        return True


def open_storage(
    path: str | None = None, size: int | None = None, readonly: bool = False, *, create: bool = False
) -> Storage:
    """As a machine file says it: a file at ``path``, or without one ``size`` bytes of memory."""
    if path is not None:
        return FileStorage(path, size, readonly, create=create)
    if size is None:
        raise UsageError("a disk needs a path or a size")
    return MemoryStorage(size, readonly)
