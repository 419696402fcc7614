# SPDX-License-Identifier: Apache-2.0
"""Eventfds that a client lent: adds one, and never waits for the client.

Law: the client shares the descriptor's flags and its counter, so no write to it can be trusted not to block. The kernel
adds instead, as it does for a device of its own: at the end of a read by its asynchronous interface (io_submit(2),
IOCB_FLAG_RESFD), which takes an eventfd alone, and waits for nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import select
import struct
import weakref

from ..errors import ClientError

#: Numbers of io_setup, io_destroy, io_submit and io_getevents, which the C library has no functions for.
_NUMBERS = {"x86_64": (206, 207, 209, 208), "aarch64": (0, 1, 2, 4), "riscv64": (0, 1, 2, 4)}
#: struct iocb (<linux/aio_abi.h>): data, key, rw_flags, opcode, priority, fd, buffer, size, offset, -, flags, eventfd.
_IOCB = struct.Struct("<QIIHhIQQqQII")
_BUFFER, _BUFFER_AT = struct.Struct("<QQ"), 24
_EVENTFD, _EVENTFD_AT = struct.Struct("<I"), 60
_PREAD, _RESFD = 0, 1
#: Of struct io_event, of which so many are taken at once.
_EVENT_SIZE, _EVENTS = 32, 64
#: No address: a read into it is refused after the eventfd was looked at, and before it is signalled.
_NOWHERE = (1 << 64) - 1


class Signals:
    """Signals eventfds, by a context of the kernel's that is there from the first ``check`` to ``close``.

    For one thread at a time.
    """

    def __init__(self, *, by_kernel: bool = True) -> None:
        """``by_kernel`` False: as where the kernel has no such interface."""
        self._by_kernel = by_kernel
        self._reads: _Reads | None = None

    def check(self, fd: int) -> None:
        """ClientError when ``fd`` is no eventfd (EINVAL), or it cannot be told (ENOTSUP)."""
        if self._reads is None and self._by_kernel:
            try:
                self._reads = _Reads.made()
            except OSError as error:
                raise ClientError(f"no file for interrupts: {error.strerror}", error.errno or errno.EMFILE) from error
            self._by_kernel = self._reads is not None
        if self._reads is not None:
            if self._reads.submit(fd, _NOWHERE) != errno.EFAULT:
                raise ClientError("a file descriptor for an interrupt is not an eventfd")
            return
        try:
            what = os.readlink(f"/proc/self/fd/{fd}")
        except OSError as error:
            text = "neither io_submit(2) nor /proc tells whether a file descriptor for an interrupt is an eventfd"
            raise ClientError(text, errno.ENOTSUP) from error
        if what != "anon_inode:[eventfd]":
            raise ClientError("a file descriptor for an interrupt is not an eventfd")

    def signal(self, fd: int) -> None:
        """Add one to an eventfd that was checked. A full counter has been signalled already."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if poll.poll(0) and (self._reads is None or self._reads.submit(fd, 0)):
            _write(fd)

    def close(self) -> None:
        """None of them is left."""
        if self._reads is not None:
            self._reads.end()
            self._reads = None


def _write(fd: int) -> None:
    """The second best: a client that makes it blocking and full in just this moment has its own function wait."""
    with contextlib.suppress(BlockingIOError):
        os.set_blocking(fd, False)
        os.eventfd_write(fd, 1)


class _Reads:
    """Reads of nothing, one at a time, each of which ends before ``submit`` returns."""

    def __init__(self, context: int, file: int, numbers: tuple[int, int, int, int]) -> None:
        _, destroy, submit, events = numbers
        # A thread that signals keeps the interpreter in hand, for nothing waits here.
        call = ctypes.PyDLL(None, use_errno=True).syscall
        of = ctypes.c_ulong(context)
        self._iocb = ctypes.create_string_buffer(
            _IOCB.pack(0, 0, 0, _PREAD, 0, file, 0, 0, 0, 0, _RESFD, 0), _IOCB.size
        )
        self._list = ctypes.c_void_p(ctypes.addressof(self._iocb))
        self._submit = functools.partial(call, submit, of, ctypes.c_long(1), ctypes.byref(self._list))
        self._room = ctypes.create_string_buffer(_EVENT_SIZE * _EVENTS)
        self._take = functools.partial(
            call, events, of, ctypes.c_long(0), ctypes.c_long(_EVENTS), self._room, bytes(16)
        )
        #: Undo ``made``.
        self.end = weakref.finalize(self, _end, destroy, context, file)
        self.end.atexit = False

    @classmethod
    def made(cls) -> _Reads | None:
        """None: this kernel has none. OSError: no descriptor is left for the file."""
        numbers = _NUMBERS.get(os.uname().machine)
        if numbers is None or ctypes.sizeof(ctypes.c_void_p) != 8:
            return None
        file = os.memfd_create("interrupts", os.MFD_CLOEXEC)  # empty, and so read at once
        context = ctypes.c_ulong(0)
        if ctypes.CDLL(None).syscall(numbers[0], 1, ctypes.byref(context)):
            os.close(file)
            return None
        return cls(context.value, file, numbers)

    def submit(self, fd: int, buffer: int) -> int:
        """Have nothing read into ``buffer``, and ``fd`` signalled: 0 or an errno."""
        _BUFFER.pack_into(self._iocb, _BUFFER_AT, buffer, int(buffer == _NOWHERE))
        _EVENTFD.pack_into(self._iocb, _EVENTFD_AT, fd)
        if self._submit() == 1:
            return 0
        if ctypes.get_errno() == errno.EAGAIN:  # no room for its end, until that of others is taken
            self._take()
            if self._submit() == 1:
                return 0
        return ctypes.get_errno()


def _end(destroy: int, context: int, file: int) -> None:
    ctypes.CDLL(None).syscall(destroy, ctypes.c_ulong(context))
    os.close(file)
