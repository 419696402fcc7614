# SPDX-License-Identifier: Apache-2.0
"""Sockets, threads and signals: serves PCI functions to vfio-user clients.

Law: the only place that starts a thread. Each function has one plain blocking thread and one client at a time;
a second client waits in the socket's backlog. What fails unexpectedly is remembered in ``Server.failure``.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import heapq
import logging
import math
import os
import select
import signal
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

from . import _core
from .errors import UsageError
from .mmio import Mirrored
from .vfio.connection import LOST, Connection, close_fds
from .vfio.pci import PciFunction
from .vfio.session import Session
from .vfio.wire import MAX_MSG_FDS
from .watch import Watches

try:
    from ._core import pump as pump
except ImportError:  # not built
    pump = None  # type: ignore[assignment]

log = logging.getLogger("vhost_iommu.server")

# Plain integers: the socket module's flags are enumerations, which cost a conversation with Python each call.
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_NOSIGNAL = int(socket.MSG_NOSIGNAL)
_TRUNCATED = int(socket.MSG_CTRUNC)

#: Seconds that a client may leave a message of ours unread before it is dropped.
SEND_TIMEOUT = 5.0
#: Lines that a client can have logged in so many seconds.
LOG_LINES, LOG_SECONDS = 20, 60
#: Bytes taken in one receive.
RECEIVE_SIZE = 1 << 16
#: sizeof(sockaddr_un.sun_path) without its NUL.
MAX_PATH = 107
#: The name of a socket that does not listen yet, in the folder where it will.
NEW = ".vi~"
#: Seconds for which a daemon waits for others that make or remove a socket in the same folder.
FOLDER_TIMEOUT = 5.0
#: Clients of a control socket at a time; of more, the one that has been silent longest is left.
MOST_TALKS = 8
#: Seconds that ``Server.stop`` waits for each thread.
JOIN_TIMEOUT = 10.0
#: Seconds between two looks at what the core tells, and after each delivery, so that one has much to tell.
DRAIN_PERIOD, DRAIN_PAUSE = 5e-3, 1e-3
#: Seconds between two pieces of a worker's work.
PAUSE = 50e-6
#: Seconds for which the pump looks for a client's next message before it sleeps, if the last one came within as many,
#: where there is a processor for the client meanwhile. To wake one that sleeps takes some 50 µs.
SPIN = 200e-6
#: Seconds for which a thread keeps the interpreter while another wants it.
SWITCH_INTERVAL = 50e-6


class Quiet:
    """What a logger is told, at most ``lines`` in ``seconds``, so that no client can flood the log."""

    def __init__(
        self,
        name: str,
        lines: int = LOG_LINES,
        seconds: float = LOG_SECONDS,
        logger: str = "vhost_iommu.vfio",
        level: int = logging.WARNING,
    ) -> None:
        self._log = logging.getLogger(logger)
        self._level = level
        self._name = name
        self._lines = lines
        self._seconds = seconds
        self._since = time.monotonic()
        self._said = 0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now - self._since >= self._seconds:
            if self._said > self._lines:
                self._log.log(self._level, "%s: %d lines were left out", self._name, self._said - self._lines)
            self._since, self._said = now, 0
        self._said += 1
        if self._said <= self._lines:
            self._log.log(self._level, "%s: %s", self._name, text)
        elif self._said == self._lines + 1:
            self._log.log(self._level, "%s: further lines are left out for a while", self._name)


class Channel:
    """A connected stream socket: one receive at a time in one thread, whole messages sent from any."""

    def __init__(self, connected: socket.socket, complain: Callable[[str], None] = log.warning) -> None:
        """Takes ownership of ``connected``; ``complain`` takes a line for the log."""
        self._socket = connected
        self._complain = complain
        connected.setblocking(True)
        # A kernel timeout: one of Python's would cost a poll before each call.
        seconds = int(SEND_TIMEOUT)
        timeout = struct.pack("@ll", seconds, int((SEND_TIMEOUT - seconds) * 1e6))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._mute = False
        #: Holds what the last ``receive`` brought.
        self.buffer = bytearray(RECEIVE_SIZE)
        self._ancillary = socket.CMSG_SPACE(MAX_MSG_FDS * 4)
        self._lock = threading.Lock()

    def receive(self) -> tuple[int, list[int]]:
        """How many bytes ``buffer`` has now, 0 at the end, and descriptors, which are the caller's to close; the last
        of them is LOST where this process had no room for others.
        """
        try:
            size, ancillary, flags, _ = self._socket.recvmsg_into([self.buffer], self._ancillary, _CLOEXEC)
        except OSError as problem:
            log.debug("receive: %s", problem)
            return 0, []
        if not ancillary and not flags & _TRUNCATED:
            return size, []
        fds: list[int] = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                fds += numbers
        if flags & _TRUNCATED:
            # The kernel says so of a buffer that is too small, and of a table of descriptors that is full.
            if len(fds) >= MAX_MSG_FDS:
                self._flooded(fds)
                return 0, fds
            fds.append(LOST)
        return size, fds

    def _flooded(self, fds: list[int]) -> None:
        self._complain(f"more than {MAX_MSG_FDS} file descriptors at once: the connection is closed")
        close_fds(fds)

    def converse(self, function: PciFunction, connection: Connection) -> None:
        """Serve the client until it goes."""
        feed, receive, view = connection.feed, self.receive, memoryview(self.buffer)
        while True:
            size, fds = receive()
            if not size or not feed(view[:size], fds):
                return

    def send(self, message: bytes) -> bool:
        """Send all of ``message``, or break the channel and return False. Waits at most about SEND_TIMEOUT."""
        if self._mute:
            return True
        with self._lock:
            try:
                self._send_all(memoryview(message))
            except OSError as problem:
                self._unsent(problem.errno)
                self.shutdown()  # and so no later send succeeds
                return False
        return True

    def heed(self, asked: Callable[[], float | None], stop: int) -> bool:
        """Wait before a message as ``asked`` says (PciFunction.socket), in this client's thread and holding nothing;
        False: the conversation is over, as it is when the client goes or the eventfd ``stop`` is readable meanwhile.
        """
        seconds = asked()
        if not seconds:
            return seconds is not None
        self._mute = self._mute or math.isinf(seconds)
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        poll.register(self._socket, select.POLLRDHUP)
        return not poll.poll(None if math.isinf(seconds) else seconds * 1000)

    def _unsent(self, problem: int | None) -> None:
        if problem == errno.EAGAIN:
            self._complain(f"nothing was read for {SEND_TIMEOUT:g} s: the connection is closed")

    def _send_all(self, rest: memoryview) -> None:
        deadline = time.monotonic() + SEND_TIMEOUT
        while rest:
            rest = rest[self._socket.send(rest, _NOSIGNAL) :]
            if rest and time.monotonic() > deadline:
                raise OSError(errno.EAGAIN, "the client reads too slowly")

    def shutdown(self) -> None:
        """Wake whoever is in ``receive`` or ``send``; callable from any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; only the receiving thread may, when it receives no more."""
        self.shutdown()
        with self._lock:
            self._socket.close()


class Pumped(Channel):
    """The same, but receives and sends are the compiled pump's, which takes the interpreter only for what needs it."""

    def __init__(self, connected: socket.socket, complain: Callable[[str], None] = log.warning) -> None:
        super().__init__(connected, complain)
        self._wire = pump.Wire(connected.fileno(), SEND_TIMEOUT, self._unsent)
        self.send = self._wire.send  # type: ignore[method-assign]

    def converse(self, function: PciFunction, connection: Connection) -> None:
        blocks = [
            (region, start, end, device, device.mirror(pump.Mirror) if isinstance(device, Mirrored) else None)
            for region, start, end, device in function.blocks()
        ]
        spin = SPIN if len(os.sched_getaffinity(0)) > 1 else 0.0
        ended = pump.Pump(self._socket.fileno(), self._wire, blocks, spin).converse(connection)
        if isinstance(ended, list):
            self._flooded(ended)
        elif ended:
            log.debug("receive: %s", os.strerror(ended))

    def close(self) -> None:
        self.shutdown()
        self._wire.close()
        super().close()


class Endpoint:
    """Where the clients of one function come from: a socket path, or an inherited descriptor."""

    def __init__(self, function: PciFunction, *, path: str | os.PathLike[str] | None, fd: int | None) -> None:
        if (path is None) == (fd is None):
            raise UsageError(f"{function.name} needs either a socket path or a file descriptor")
        self.function = function
        self.path = None if path is None else os.fspath(path)
        self._fd = fd
        self._socket: socket.socket | None = None
        self._inode: tuple[int, int] | None = None  # of the path that we made
        self._connected = False  # the inherited fd is a client already

    def open(self) -> None:
        """Bind and listen, or adopt the descriptor; UsageError when that cannot be."""
        if self.path is not None:
            self._socket = _listen(self.path)
            self._inode = _inode(self.path)
            return
        assert self._fd is not None
        try:
            inherited = socket.socket(fileno=self._fd)
        except (OSError, ValueError):
            raise UsageError(f"--fd={self._fd} is not an open socket; give the number of one") from None
        self._socket = inherited
        if inherited.family != socket.AF_UNIX or inherited.type != socket.SOCK_STREAM:
            raise UsageError(f"--fd={self._fd} is not a UNIX stream socket")
        os.set_inheritable(self._fd, False)
        self._connected = not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)

    def clients(self, stop: int) -> Iterator[socket.socket]:
        """Each client in turn until the eventfd ``stop`` is readable; an inherited connection is the only one."""
        assert self._socket is not None
        if self._connected:
            yield self._socket.dup()
            return
        self._socket.setblocking(False)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(stop, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if stop in ready:
                return
            try:
                client, _ = self._socket.accept()
            except OSError as problem:
                if problem.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    log.warning("%s: accept: %s; trying again", self.function.name, problem.strerror)
                    if _readable(stop, seconds=1):
                        return
                elif problem.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
                    raise
                continue
            yield client

    def close(self) -> None:
        """Close the socket and remove the path."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.remove()

    def remove(self) -> None:
        """Remove the path, if it is still ours; the socket stays open."""
        if self.path is not None:
            _remove(self.path, self._inode)
            self._inode = None


class Worker:
    """One thread for a DMA master: sleeps until ``wake``, then calls ``work`` while that returns True."""

    def __init__(self, name: str, work: Callable[[], bool], failed: Callable[[Exception], None]) -> None:
        """``work`` does a bounded piece and says whether there is more; ``failed`` takes what it raises."""
        self._work = work
        self._failed = failed
        self._event = threading.Event()
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether it has done all that it was woken for."""
        return not (self._event.is_set() or self._busy)

    def wake(self) -> None:
        """There is something to do; callable from any thread, before the start too, and costs nothing twice."""
        self._event.set()

    def stop(self) -> bool:
        """Let the current piece end, then end the thread; False when it did not within JOIN_TIMEOUT."""
        self._stopping = True
        self._event.set()
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._event.wait()
                self._busy = True
                self._event.clear()  # before the work, so that a wake during it is not lost
                while not self._stopping and self._work():
                    # Locks are unfair: without a pause, who waits for one that the work holds would wait for its end.
                    time.sleep(PAUSE)
                self._busy = False
        except Exception as problem:
            self._failed(problem)


class Drainer:
    """One thread that has watchers told, soon after there is something to tell (docs/watching.md)."""

    def __init__(self, name: str, watches: Watches, failed: Callable[[Exception], None]) -> None:
        self._watches = watches
        self._failed = failed
        self._ready = -1
        self._woken = self._stopping = False
        self._lock = threading.Lock()  # guards the end of _ready
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._ready = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watches.call(self._ready)
        self._thread.start()

    def wake(self) -> None:
        """There is something; callable from any thread, before the start too, and costs nothing twice."""
        if not self._woken:
            self._woken = True
            self._write()

    def stop(self) -> bool:
        """Tell what there is and end the thread; False when it did not within JOIN_TIMEOUT."""
        self._stopping = True
        self._write()
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT)
        if self._thread.is_alive():
            return False
        self._watches.call(-1)
        with self._lock:
            ready, self._ready = self._ready, -1
        if ready >= 0:
            close_fds([ready])
        return True

    def _write(self) -> None:
        with self._lock:
            if self._ready >= 0:
                os.eventfd_write(self._ready, 1)

    def _run(self) -> None:
        try:
            while not self._stopping:
                # What the core tells wakes nobody.
                _readable(self._ready, DRAIN_PERIOD if self._watches.by_core else None)
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._ready)
                self._woken = False  # before the work, so that a wake during it is not lost
                self._watches.flush()
                time.sleep(DRAIN_PAUSE)
        except Exception as problem:
            self._failed(problem)


class Alarm:
    """One thread that calls functions when their time comes; it sleeps while there is nothing to wait for."""

    def __init__(self, name: str, failed: Callable[[Exception], None]) -> None:
        """``failed`` takes what a function raises, which is the alarm's end."""
        self._failed = failed
        self._changed = threading.Condition()  # guards all below
        self._calls: list[tuple[float, int, Callable[[], None]]] = []  # a heap: time, serial number, function
        self._count = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have ``call`` called in the alarm's thread; callable from any thread, before the start too."""
        with self._changed:
            heapq.heappush(self._calls, (time.monotonic() + seconds, self._count, call))
            self._count += 1
            self._changed.notify()

    def stop(self) -> bool:
        """Call nothing more and end the thread; False when it did not end within JOIN_TIMEOUT."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (call := self._next()) is not None:
                call()
        except Exception as problem:
            self._failed(problem)

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next call that is due, or for the end."""
        with self._changed:
            while not self._stopping:
                left = self._calls[0][0] - time.monotonic() if self._calls else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._calls)[2]
                self._changed.wait(left)
            return None


class Talk(Protocol):
    """What is said to one client of a control socket: bytes in, bytes out."""

    @property
    def out(self) -> bytearray:
        """What is still to be sent; the sender takes from its front what it has sent."""

    @property
    def over(self) -> bool:
        """Whether the client is to be left once ``out`` is sent."""

    @property
    def ready(self) -> bool:
        """Whether it takes more."""

    def feed(self, data: bytes) -> None: ...

    def gather(self) -> None:
        """Put into ``out`` what there is to tell unasked."""

    def close(self) -> None:
        """The client is gone."""


class Talks:
    """One thread that talks to all clients of a control socket, of this user alone; a slow one waits by itself."""

    def __init__(
        self, path: str | os.PathLike[str], talk: Callable[[], Talk], failed: Callable[[Exception], None]
    ) -> None:
        """``talk`` begins to talk to a client; ``failed`` takes what a talk raises, which is the end of all."""
        self.path = os.fspath(path)
        self._talk = talk
        self._failed = failed
        self._listener: socket.socket | None = None
        self._inode: tuple[int, int] | None = None
        self._clients: dict[int, tuple[socket.socket, Talk]] = {}  # the one heard longest ago first
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def open(self) -> None:
        """Bind and listen; UsageError when that cannot be."""
        self._listener = _listen(self.path, MOST_TALKS)
        self._listener.setblocking(False)
        self._inode = _inode(self.path)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Some talk has something to send that it has not been asked for; callable from any thread."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def stop(self) -> bool:
        """End the thread; False when it did not within JOIN_TIMEOUT."""
        self._stopping = True
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Close the socket and remove its path; once the thread has ended."""
        if self._listener is not None:
            self._listener.close()
            _remove(self.path, self._inode)
        if self._wake >= 0:
            wake, self._wake = self._wake, -1
            os.close(wake)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except Exception as problem:
            self._failed(problem)
        # What was answered last, such as to 'quit', is sent if the client takes it at once.
        for number in list(self._clients):
            self._leave(number)

    def _turn(self) -> None:
        assert self._listener is not None
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        for number, (_, talk) in self._clients.items():
            talk.gather()
            poll.register(number, select.POLLIN * talk.ready | select.POLLOUT * bool(talk.out))
        for number, what in poll.poll():
            if number == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif number == self._listener.fileno():
                self._accept(self._listener)
            elif number in self._clients and not self._serve(number, what):
                self._leave(number)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # it is gone, or there is no descriptor for it: others may go, and it waits
        _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            client.close()
            return
        if len(self._clients) >= MOST_TALKS:
            self._leave(next(iter(self._clients)))
        client.setblocking(False)
        self._clients[client.fileno()] = client, self._talk()

    def _serve(self, number: int, what: int) -> bool:
        """Whether the client is still there."""
        client, talk = self._clients[number]
        try:
            if what & (select.POLLIN | select.POLLHUP | select.POLLERR) and talk.ready:
                data = client.recv(RECEIVE_SIZE)
                if not data:
                    return False
                talk.feed(data)
                self._clients[number] = self._clients.pop(number)  # the last that was heard
            elif what & (select.POLLHUP | select.POLLERR):
                return False
            self._send(client, talk)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(talk.out) or not talk.over

    @staticmethod
    def _send(client: socket.socket, talk: Talk) -> None:
        """What the client takes of it now."""
        if talk.out:
            del talk.out[: client.send(talk.out[:RECEIVE_SIZE], _NOSIGNAL)]

    def _leave(self, number: int) -> None:
        client, talk = self._clients.pop(number)
        with contextlib.suppress(OSError):
            self._send(client, talk)
        client.close()
        talk.close()


class Server:
    """Serves several functions at once; a context manager that starts and stops."""

    def __init__(self, *, pure: bool | None = None) -> None:
        """``pure``: without the compiled pump; by default where it is not built or VHOST_IOMMU_PURE is set."""
        if pure is None:
            pure = pump is None or _core.pure()
        self._channel = Channel if pure else Pumped
        #: The first unexpected exception of any thread: our fault, exit code 70.
        self.failure: Exception | None = None
        self._endpoints: list[Endpoint] = []
        self._workers: list[Worker | Drainer | Alarm | Talks] = []
        self._talks: list[Talks] = []
        self._threads: list[threading.Thread] = []
        self._channels: dict[Endpoint, Channel] = {}
        self._lock = threading.Lock()  # guards _channels, _serving, _stopping and failure
        self._serving = 0
        self._stopping = False
        self._ended = False
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable: every accept ends
        self._done = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable: wait returns

    def add(self, function: PciFunction, *, path: str | os.PathLike[str] | None = None, fd: int | None = None) -> None:
        """Serve ``function`` at the socket ``path`` or on the inherited ``fd``, listening or connected."""
        self._endpoints.append(Endpoint(function, path=path, fd=fd))

    def worker(self, name: str, work: Callable[[], bool]) -> Worker:
        """A thread for a master, started and stopped with the server."""
        made = Worker(name, work, self._failed)
        self._workers.append(made)
        return made

    def alarm(self, name: str) -> Alarm:
        """A thread for what has a time, started and stopped with the server."""
        made = Alarm(name, self._failed)
        self._workers.append(made)
        return made

    def control(self, path: str | os.PathLike[str], talk: Callable[[], Talk]) -> Talks:
        """A socket at ``path`` where each client of this user is talked to by what ``talk`` makes."""
        made = Talks(path, talk, self._failed)
        self._workers.append(made)
        self._talks.append(made)
        return made

    def drainer(self, name: str, watches: Watches) -> Drainer:
        """The thread that has watchers told, started and stopped with the server."""
        made = Drainer(name, watches, self._failed)
        self._workers.append(made)
        return made

    def start(self) -> None:
        """Open every endpoint, then start the threads; UsageError leaves nothing open."""
        try:
            for endpoint in self._endpoints:
                endpoint.open()
            for talks in self._talks:
                talks.open()
        except BaseException:
            self._stopping = self._ended = True
            self._close()
            raise
        # A thread with a message to answer waits behind a busy worker for no longer than this.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        self._serving = len(self._endpoints)
        for worker in self._workers:
            worker.start()
        for endpoint in self._endpoints:
            thread = threading.Thread(target=self._serve, args=(endpoint,), name=endpoint.function.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def request_stop(self) -> None:
        """Make ``wait`` return; callable from a signal handler, and without effect after ``stop``."""
        if self._done >= 0:
            os.eventfd_write(self._done, 1)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a request to stop, a failure, or the end of all inherited connections; False: time is up."""
        return _readable(self._done, seconds)

    def stop(self) -> bool:
        """Drop the clients, end the threads, close and remove the sockets. Once; it cannot start again.

        False: a thread has not ended within JOIN_TIMEOUT, and what it uses is left open, without a name.
        """
        with self._lock:
            if self._stopping:
                return self._ended
            self._stopping = True
            os.eventfd_write(self._stop, 1)
            for channel in self._channels.values():
                channel.shutdown()
        ended = True
        for thread in self._threads:
            thread.join(JOIN_TIMEOUT)
            ended = ended and not thread.is_alive()
        for worker in self._workers:
            ended = worker.stop() and ended
        self._ended = ended
        if ended:
            self._close()
        else:  # closing what a thread still uses would hand it another file
            log.error("a thread did not end within %g s", JOIN_TIMEOUT)
            for endpoint in self._endpoints:
                endpoint.remove()
        return ended

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _close(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()
        for talks in self._talks:
            talks.close()
        close_fds([self._stop, self._done])
        self._stop = self._done = -1

    def _failed(self, problem: Exception) -> None:
        log.error("%s failed", threading.current_thread().name, exc_info=problem)
        with self._lock:
            self.failure = self.failure or problem
        self.request_stop()

    def _serve(self, endpoint: Endpoint) -> None:
        """The thread of one endpoint."""
        complain = Quiet(endpoint.function.name)
        tell = Quiet(endpoint.function.name, logger=log.name, level=logging.INFO)
        try:
            for client in endpoint.clients(self._stop):
                endpoint.function.served = True
                # The pump answers by itself what nobody is to be asked of.
                kind = self._channel if endpoint.function.socket is None else Channel
                channel = kind(client, complain)
                with self._lock:
                    self._channels[endpoint] = channel
                    if self._stopping:
                        channel.shutdown()
                try:
                    _converse(endpoint.function, channel, complain, tell, self._stop)
                finally:
                    with self._lock:
                        del self._channels[endpoint]
                    channel.close()
                    endpoint.function.served = False
        except Exception as problem:
            self._failed(problem)
        with self._lock:
            self._serving -= 1
            last = self._serving == 0
        if last:
            self.request_stop()


def _converse(
    function: PciFunction, channel: Channel, complain: Callable[[str], None], tell: Callable[[str], None], stop: int
) -> None:
    """Serve one client until it goes."""
    tell("a client is here")
    session = Session(function, channel.send, complain)
    if (socket := function.socket) is not None:
        session.connection.heed = lambda: channel.heed(socket, stop)
    try:
        channel.converse(function, session.connection)
    finally:
        session.end()
        tell("the client is gone")


def serve_forever(server: Server, ready: Callable[[], None] = lambda: None) -> None:
    """Run ``server`` until SIGTERM, SIGINT, a failure or the end of its inherited connections.

    ``ready`` is called once every socket listens. For the main thread. Afterwards ``server.failure`` says whether
    to exit 70; UsageError as of Server.start.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        server.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with server:
            ready()
            server.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(path: str, waiting: int = 1) -> socket.socket:
    """A private listening socket at ``path``, in place of a dead daemon's; so many clients may be ``waiting`` there.

    It has that name only when it listens, so whoever starts meanwhile never takes it for a dead one.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise UsageError(f"socket path {path} is longer than {MAX_PATH} bytes; choose a shorter one")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone_in(os.path.dirname(path) or ".") as folder:
            _refuse_what_lives(path)
            # Who is alone may remove what another left there when it was killed.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(NEW, dir_fd=folder)
            _bind(listener, path, folder)
            try:
                os.chmod(NEW, 0o600, dir_fd=folder)  # nobody can connect before it listens
                listener.listen(waiting)
                os.rename(NEW, os.path.basename(path), src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(NEW, dir_fd=folder)
                raise
    except OSError as problem:
        listener.close()
        raise UsageError(f"cannot listen at {path}: {problem.strerror or problem}") from None
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[int]:
    """A descriptor of the folder, in which no other daemon makes or removes sockets meanwhile."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + FOLDER_TIMEOUT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(errno.EAGAIN, "another process keeps its folder locked") from None
                time.sleep(0.01)
            except OSError as problem:
                if problem.errno not in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP):
                    raise
                break  # a file system that locks no folders
        yield fd
    finally:
        os.close(fd)


def _bind(listener: socket.socket, path: str, folder: int) -> None:
    """To NEW in the folder of ``path``, which is ``folder``."""
    name = os.path.join(os.path.dirname(path), NEW)
    if len(os.fsencode(name)) > MAX_PATH:  # though that of the path fits
        name = f"/proc/self/fd/{folder}/{NEW}"
    listener.bind(name)


def _refuse_what_lives(path: str) -> None:
    """UsageError unless ``path`` is free, or a socket that nobody has any more."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} exists and is not a socket; remove it or choose another path")
    # Of a stream socket, whether it listens yet or not, the kernel says that it is of another kind; of a dead one that
    # nobody is there. No client's place in a backlog is taken.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as problem:
            if problem.errno != errno.EPROTOTYPE:
                raise
    raise UsageError(f"{path} is in use by another process; stop that or choose another path")


def _remove(path: str, inode: tuple[int, int] | None) -> None:
    """Remove ``path`` if it is still the socket that we made there."""
    with contextlib.suppress(OSError), _alone_in(os.path.dirname(path) or "."):
        if inode is not None and _inode(path) == inode:
            os.unlink(path)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _readable(fd: int, seconds: float | None = None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
