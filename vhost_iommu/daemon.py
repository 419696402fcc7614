# SPDX-License-Identifier: Apache-2.0
"""A machine that is served: each of its PCI functions at a socket, each of its masters in a thread.

Law: ``start`` serves or raises and leaves nothing behind; ``stop`` ends every thread and removes every socket.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _core
from .config import MachineConfig
from .errors import UsageError
from .lab.control import Control
from .lab.conversation import Conversation
from .lab.faults import Lab
from .machine import Machine, Wires
from .memory import MAX_WINDOWS
from .server import Quiet, Server
from .smmu.transaction import Stall
from .trace import Trace
from .version import __version__
from .vfio.pci import PciFunction

log = logging.getLogger("vhost_iommu.daemon")

#: Seconds that a worker stands aside at a time, while a register access waits for its lock.
PAUSE = 25e-6

#: Descriptors that one client can make us have: its connection, what it has sent of two messages (2 x MAX_MSG_FDS),
#: eventfds, and what signals them; and those that are none of a client's.
CLIENT_DESCRIPTORS = 64
OWN_DESCRIPTORS = 128
#: Of the process's mappings, those that are none of a client's (libraries, heaps, stacks).
OWN_MAPPINGS = 8192
#: Mappings of a process where the kernel does not say (vm.max_map_count).
MAPPINGS = 65530


class Watchdog:
    """Says once of each stall of one SMMU, after ``seconds``, that the guest's software has not answered it."""

    def __init__(
        self,
        name: str,
        seconds: float,
        after: Callable[[float, Callable[[], None]], None],
        clock: Callable[[], float] = time.monotonic,
        trace: Trace | None = None,
    ) -> None:
        """``after`` (seconds, function) has the function called later; ``clock`` is the SMMU's."""
        self.name = name
        self.seconds = seconds
        self._after = after
        self._clock = clock
        self._trace = trace
        self._complain = Quiet(name, logger="vhost_iommu.smmu")
        self._lock = threading.Lock()  # guards all below
        #: When each is overdue, in order, and its record: another one means that software has answered, in vain.
        self._watched: deque[tuple[float, Stall, object]] = deque()
        self._armed = False

    def watch(self, stall: Stall) -> None:
        """``stall`` begins; from any thread, and it does not wait."""
        with self._lock:
            while self._watched and self._watched[0][1].answer is not None:
                self._watched.popleft()
            self._watched.append((self._clock() + self.seconds, stall, stall.event))
            if not self._armed:
                self._armed = True
                self._after(self.seconds, self._look)

    def _look(self) -> None:
        now = self._clock()
        overdue = []
        with self._lock:
            while self._watched:
                due, stall, event = self._watched[0]
                if stall.answer is None and due > now:
                    break
                self._watched.popleft()
                if stall.answer is not None:
                    continue
                if stall.event is event:
                    overdue.append(stall)
                else:
                    self._watched.append((now + self.seconds, stall, stall.event))
            self._armed = bool(self._watched)
            if self._armed:
                self._after(self._watched[0][0] - now, self._look)
        for stall in overdue:
            self._tell(stall, now - stall.since)

    def _tell(self, stall: Stall, seconds: float) -> None:
        left, stag = stall.transaction, stall.stag
        what = f"{'write' if left.write else 'read'} of StreamID {left.sid:#x} at {left.iova:#x}"
        self._complain(f"stalled {seconds:.1f} s, {stall.waits}: {what}")
        if self._trace is not None:
            told = {} if stag is None else {"STAG": stag}
            self._trace.emit(self.name, "fault", "not resumed", **told, sid=left.sid, iova=left.iova, seconds=seconds)


class Daemon:
    """Serves ``config``'s functions in ``folder`` (one ``NAME.sock`` each), or at the sockets or fds given."""

    def __init__(
        self,
        config: MachineConfig,
        folder: Path | None = None,
        *,
        paths: Sequence[Path] = (),
        fds: Sequence[int] = (),
        wires: Wires | None = None,
        trace: Trace | None = None,
        keep_disks: bool = False,
        control: Path | None = None,
        live: bool = False,
    ) -> None:
        """``keep_disks``: they can be read after ``stop`` until ``machine.close``. ``control``: a socket at which
        this user can look into the machine and work on it. ``live``: faults may begin at any time.

        UsageError: ``paths`` or ``fds`` are not as many as the machine has functions, or a disk cannot be opened.
        """
        if folder is not None:
            paths = [folder / f"{function.name}.sock" for function in config.functions]
        self.sockets: Sequence[Path] = tuple(paths)
        if len(paths or fds) != len(config.functions):
            raise UsageError(
                f"{config.name} has {len(config.functions)} PCI functions and needs a socket for each; "
                f"{len(paths or fds)} given: use a folder"
            )
        self.server = Server()
        self.trace = trace
        self._keep_disks = keep_disks
        self._watchdogs: dict[str, Watchdog] = {}
        if trace is not None:
            trace.written_by(self.server.worker("trace", trace.flush).wake)
        try:
            self.machine = self._make(config, wires, live or bool(config.faults))
        except BaseException:
            self.server.stop()
            raise
        _share(self.machine.functions)
        for index, function in enumerate(self.machine.functions):
            if fds:
                self.server.add(function, fd=fds[index])
            else:
                self.server.add(function, path=paths[index])
        if control is not None:
            self.server.control(control, lambda: Conversation(Control(self), __version__))

    def _make(self, config: MachineConfig, wires: Wires | None, faults: bool) -> Machine:
        if any(smmu.stall_watchdog for smmu in config.smmus):
            alarm = self.server.alarm("watchdog")
            for smmu in config.smmus:
                if smmu.stall_watchdog:
                    self._watchdogs[smmu.name] = Watchdog(smmu.name, smmu.stall_watchdog, alarm.after, trace=self.trace)
        return Machine(
            config,
            wires=wires,
            spawn=lambda name, work: self.server.worker(name, work).wake,
            new_lock=_core.lock,
            pause=lambda: time.sleep(PAUSE),
            clock=time.monotonic,
            on_stall=self._stalled,
            later=self.server.alarm("faults").after if faults else None,
            trace=self.trace,
        )

    # -- as its control socket sees it ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.machine.config.name

    @property
    def lab(self) -> Lab:
        return self.machine.lab

    @property
    def smmus(self) -> Mapping[str, Any]:
        return self.machine.smmus

    def quit(self) -> None:
        self.server.request_stop()

    @property
    def failure(self) -> Exception | None:
        """What went wrong in a thread: our fault."""
        return self.server.failure

    def _stalled(self, smmu: str, stall: Stall) -> None:
        if (watchdog := self._watchdogs.get(smmu)) is not None:
            watchdog.watch(stall)

    def start(self) -> None:
        try:
            self.server.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Also of one that never started; a second time does nothing."""
        self.machine.stop()
        # A thread that has not ended may be in the middle of an access to a disk.
        if self.server.stop() and not self._keep_disks:
            self.machine.close()


def _share(functions: Sequence[PciFunction]) -> None:
    """Raise this process's limit of descriptors, and bound each client below its share of what all have in common."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    need = OWN_DESCRIPTORS + CLIENT_DESCRIPTORS * len(functions)
    if soft != resource.RLIM_INFINITY and soft < need:
        log.warning("%d clients may need %d file descriptors of a limit of %d: ulimit -n", len(functions), need, soft)
    try:
        mappings = int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        mappings = MAPPINGS
    for function in functions:
        function.memory.most = max(1, min(MAX_WINDOWS, (mappings - OWN_MAPPINGS) // len(functions)))
