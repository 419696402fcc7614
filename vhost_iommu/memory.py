# SPDX-License-Identifier: Apache-2.0
"""Guest physical memory: the windows that a client has mapped, and what lies outside of them.

Law: no access ever leaves a window; one that would is an external abort, which is a value (None or
False), never an exception. A window that is unmapped while another thread uses it turns into an abort.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import struct
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import ClientError
from .sealed import Sealed
from .shared import HOST_PAGE, Guard, KernelGuard, address_of, fence, map_file

Buffer = bytearray | memoryview

#: Windows of one client, and bytes of files that are mapped for it (docs/limits.md).
MAX_WINDOWS = 4096
MAX_MAPPED = 1 << 42

#: Told once how a posted write ended: whether it aborted.
Ended = Callable[[bool], None]
#: What happens to a write that leaves guest RAM: (pa, data, ended) -> accepted. If it is, ``ended`` is called once,
#: now or later, from any thread; ``unheard`` need not be.
Outside = Callable[[int, bytes, Ended], bool]


def unheard(aborted: bool) -> None:
    """The Ended of who does not ask how a posted write ended, so that no answer need be sent."""


class MemoryLike(Protocol):
    """What a model needs of memory; anything with these methods serves."""

    def read(self, pa: int, size: int) -> bytes | None: ...

    def write(self, pa: int, data: bytes) -> bool: ...

    def compare_and_swap_u64(self, pa: int, expected: int, new: int) -> bool | None: ...

    def post(self, pa: int, data: bytes, ended: Ended) -> None: ...


@dataclass(frozen=True, slots=True)
class Window:
    """Guest physical [base, base + size), backed by ``buffer`` or, when it is None, by nothing we can reach."""

    base: int
    size: int
    buffer: Buffer | None
    readable: bool = True
    writable: bool = True
    #: Of a client's pages that may be cut off or withheld: the window ends when they are, and nobody waits for one with
    #: the interpreter in hand.
    guard: Guard | None = None

    @property
    def end(self) -> int:
        return self.base + self.size


class Memory(Sealed):
    """Guest physical address space as non-overlapping windows.

    Readers take one snapshot of the window table, so they need no lock against a client that maps and unmaps.
    """

    OPEN = frozenset({"_table", "fence", "most", "outside"})

    def __init__(self, *windows: tuple[int, Buffer], page: int = HOST_PAGE) -> None:
        """``windows``: (base address, buffer) pairs; ``Memory((0x4000_0000, bytearray(1 << 20)))`` is 1 MiB of RAM.
        ``page``: of the host.
        """
        self._page = page
        #: How many windows there may be, as each that is mapped is one of the process's mappings.
        self.most = MAX_WINDOWS
        self._table: tuple[tuple[int, ...], tuple[Window, ...]] = ((), ())
        #: Takes posted writes that we cannot reach (an MSI's doorbell, a peer's BAR); None: they abort.
        self.outside: Outside | None = None
        #: Told of each new table, before what is no longer in it is unmapped: returns once nobody uses that.
        self._watchers: list[Callable[[tuple[Window, ...]], None]] = []
        #: Keeps what was done before it in front of what follows, as guest CPUs see it; None: the host does.
        self.fence = fence()
        for base, buffer in windows:
            self.add(Window(base, len(buffer), buffer))

    def seal(self) -> None:
        """Of another kind of memory the core knows nothing, so nothing of it is gone past."""
        if type(self) is Memory:
            super().seal()

    # -- the window table ------------------------------------------------------------------------------------

    @property
    def windows(self) -> tuple[Window, ...]:
        return self._table[1]

    def watch(self, changed: Callable[[tuple[Window, ...]], None]) -> None:
        """Call ``changed`` with all windows now, and whenever they change; it returns once nobody uses the former."""
        self._watchers.append(changed)
        changed(self.windows)

    def _replace(self, bases: tuple[int, ...], windows: tuple[Window, ...]) -> None:
        self._table = (bases, windows)
        for changed in self._watchers:
            changed(windows)

    def add(self, window: Window) -> None:
        """Insert ``window``; ClientError when it overlaps one that is there (EEXIST) or there are too many (ENOSPC)."""
        bases, windows = self._table
        if window.size <= 0 or window.base < 0 or window.end > 1 << 64:
            raise ClientError(f"window {window.base:#x}+{window.size:#x} is no address range", errno.EINVAL)
        if len(windows) >= self.most:
            raise ClientError(f"more than {self.most} windows", errno.ENOSPC)
        at = bisect_right(bases, window.base)
        if (at and windows[at - 1].end > window.base) or (at < len(windows) and windows[at].base < window.end):
            raise ClientError(f"window {window.base:#x}+{window.size:#x} overlaps another", errno.EEXIST)
        self._replace((*bases[:at], window.base, *bases[at:]), (*windows[:at], window, *windows[at:]))

    def map_fd(
        self, base: int, size: int, fd: int, offset: int = 0, *, readable: bool = True, writable: bool = True
    ) -> bool:
        """Map ``size`` bytes of ``fd`` at ``offset`` as guest physical ``base``; the fd stays the caller's.

        False: whoever has the file may cut it short, and the next access to what is gone ends this process. Otherwise
        that is an external abort, as is then every access to the window.
        ClientError: as of ``add`` and ``map_file``, or more is mapped than one client may have (ENOSPC).
        """
        mapped = sum(window.size for window in self.windows if window.buffer is not None)
        if len(self.windows) >= self.most or mapped + size > MAX_MAPPED:
            text = f"more than {self.most} windows or {MAX_MAPPED:#x} bytes of them"
            raise ClientError(text, errno.ENOSPC)
        shared = map_file(fd, offset, size, readable=readable, writable=writable, page=self._page)
        self.add(Window(base, size, shared.view, readable, writable, shared.guard))
        return not shared.deadly

    def remove(self, base: int, size: int) -> None:
        """Remove the window that is exactly [base, base + size); ClientError(ENOENT) when there is none."""
        bases, windows = self._table
        at = bisect_right(bases, base) - 1
        if at < 0 or windows[at].base != base or windows[at].size != size:
            raise ClientError(f"no window {base:#x}+{size:#x}", errno.ENOENT)
        self._replace(bases[:at] + bases[at + 1 :], windows[:at] + windows[at + 1 :])
        _close(windows[at])

    def clear(self) -> None:
        """Remove every window."""
        windows = self.windows
        self._replace((), ())
        for window in windows:
            _close(window)

    def find(self, pa: int, size: int) -> Window | None:
        """The one window that holds all of [pa, pa + size), or None."""
        bases, windows = self._table
        at = bisect_right(bases, pa) - 1
        if at >= 0 and pa + size <= windows[at].end:
            return windows[at]
        return None

    # -- accesses ----------------------------------------------------------------------------------------------

    def read(self, pa: int, size: int) -> bytes | None:
        """``size`` bytes at ``pa``, or None: external abort."""
        window = self.find(pa, size)
        if window is None or window.buffer is None or not window.readable:
            return None
        start = pa - window.base
        try:
            if window.guard is not None and size:
                with _part(window, start, size) as part:
                    data = window.guard.copy_out(address_of(part), size)
            else:
                data = bytes(window.buffer[start : start + size])
        except ValueError:  # unmapped by the client since we found it
            return None
        if self.fence is not None:
            self.fence()
        return data

    def write(self, pa: int, data: bytes) -> bool:
        """Write ``data`` at ``pa``, seen after all that was before; False: external abort, and nothing was written."""
        window = self.find(pa, len(data))
        if window is None or window.buffer is None or not window.writable:
            return False
        start = pa - window.base
        if self.fence is not None:
            self.fence()
        try:
            if window.guard is not None and data:
                with _part(window, start, len(data)) as part:
                    return window.guard.copy_in(address_of(part), data)
            window.buffer[start : start + len(data)] = data
        except ValueError:
            return False
        return True

    def compare_and_swap_u64(self, pa: int, expected: int, new: int) -> bool | None:
        """Replace the aligned word at ``pa`` when it is ``expected``: whether it was, or None: external abort.

        Atomic against guest CPUs where libatomic is here (without the core: in windows without a guard); elsewhere not
        even against threads that do not share the caller's lock.
        """
        window = self.find(pa, 8)
        if window is None or window.buffer is None or not (window.readable and window.writable) or pa % 8:
            return None
        exchange = _compare_exchange()
        try:
            if exchange is not None and not isinstance(window.guard, KernelGuard):
                word = ctypes.c_uint64.from_buffer(window.buffer, pa - window.base)
                swapped = bool(exchange(ctypes.byref(word), ctypes.byref(ctypes.c_uint64(expected)), new, 5, 5))
                return None if window.guard is not None and window.guard.broken else swapped
            raw = self.read(pa, 8)
            if raw is None or struct.unpack("<Q", raw)[0] != expected:
                return None if raw is None else False
            return True if self.write(pa, struct.pack("<Q", new)) else None
        except ValueError:  # unmapped by the client since we found it
            return None

    def post(self, pa: int, data: bytes, ended: Ended) -> None:
        """A posted write that may leave RAM, such as an MSI; ``ended`` is called once, now or later."""
        if self.write(pa, data):
            ended(False)
            return
        window = self.find(pa, len(data))
        unreachable = window is None or (window.buffer is None and window.writable)  # or a peer's BAR
        if unreachable and self.outside is not None and self.outside(pa, data, ended):
            return
        ended(True)


def atomic_updates() -> bool:
    """Whether ``compare_and_swap_u64`` is atomic against guest CPUs on this machine."""
    return _compare_exchange() is not None


@functools.cache
def _compare_exchange() -> Any:
    """libatomic's 8-byte compare and exchange, (address, address of expected, new, order, order); None without it."""
    try:
        function = ctypes.CDLL("libatomic.so.1").__atomic_compare_exchange_8
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_bool
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_int)
    return function


def _part(window: Window, start: int, size: int) -> memoryview:
    """Of a window with a guard, which is a view of a file; whoever has it keeps the file mapped."""
    assert isinstance(window.buffer, memoryview)
    return window.buffer[start : start + size]


def _close(window: Window) -> None:
    """Nobody finds it any more; what is mapped stays until whoever found it before lets go."""
    if isinstance(window.buffer, memoryview):
        with contextlib.suppress(BufferError):
            window.buffer.release()
