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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import _core
from .bench import MachineBench
from .config import MachineConfig
from .errors import UsageError
from .lab import dump
from .lab.control import Control
from .lab.conversation import Conversation
from .machine import Machine, Wires
from .memory import MAX_WINDOWS
from .server import Quiet, Server, Worker
from .trace import Trace
from .version import __version__
from .vfio.pci import PciFunction
from .watch import Kind, Stalled, Watch, Watcher

log = logging.getLogger("vhost_iommu.daemon")

#: Seconds that a worker stands aside at a time, while a register access waits for its lock.
PAUSE = 25e-6
#: Seconds that a machine may take to settle.
SETTLING = 1.0

#: Descriptors that one client can make us have: its connection, what it has sent of two messages (2 x MAX_MSG_FDS),
#: eventfds, and what signals them; and those that are none of a client's.
CLIENT_DESCRIPTORS = 64
OWN_DESCRIPTORS = 128
#: Of the process's mappings, those that are none of a client's (libraries, heaps, stacks).
OWN_MAPPINGS = 8192
#: Mappings of a process where the kernel does not say (vm.max_map_count).
MAPPINGS = 65530


class Watchdog(Watcher):
    """Says once of each stall of one SMMU, after ``seconds``, that the guest's software has not answered it."""

    wants = Kind.STALLED

    def __init__(
        self,
        watch: Watch,
        seconds: float,
        after: Callable[[float, Callable[[], None]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``after`` (seconds, function) has the function called later."""
        self.seconds = seconds
        self._watch = watch
        self._after = after
        self._clock = clock
        self._complain = Quiet(watch.name, logger="vhost_iommu.smmu")
        self._lock = threading.Lock()  # guards all below
        #: What was told last of each that has not ended: told anew, software has answered, in vain.
        self._stalls: dict[int, Stalled] = {}
        self._since: dict[int, float] = {}
        #: When each is overdue, in order.
        self._due: deque[tuple[float, Stalled]] = deque()
        self._armed = False

    def stalled(self, it: Stalled) -> None:
        with self._lock:
            if it.ended:
                self._stalls.pop(it.key, None)
                self._since.pop(it.key, None)
                while self._due and self._overtaken(self._due[0][1]):
                    self._due.popleft()
                return
            self._stalls[it.key] = it
            self._since.setdefault(it.key, it.time / 1e9)
            self._due.append((self._clock() + self.seconds, it))
            if not self._armed:
                self._armed = True
                self._after(self.seconds, self._look)

    def _overtaken(self, it: Stalled) -> bool:
        return self._stalls.get(it.key) is not it

    def _look(self) -> None:
        now = self._clock()
        overdue = []
        with self._lock:
            while self._due and (self._due[0][0] <= now or self._overtaken(self._due[0][1])):
                _, it = self._due.popleft()
                if not self._overtaken(it):
                    overdue.append((it, now - self._since[it.key]))
            self._armed = bool(self._due)
            if self._armed:
                self._after(self._due[0][0] - now, self._look)
        for it, seconds in overdue:
            self._tell(it, seconds)

    def _tell(self, it: Stalled, seconds: float) -> None:
        what = f"{'write' if it.write else 'read'} of StreamID {it.sid:#x} at {it.iova:#x}"
        self._complain(f"stalled {seconds:.1f} s, {it.waits}: {what}")
        if self._watch.on:
            told = {} if it.stag is None else {"STAG": it.stag}
            self._watch.noted(it.who, "fault", "not resumed", **told, sid=it.sid, iova=it.iova, seconds=seconds)


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
        watchers: Sequence[Watcher] = (),
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
        #: Whether somebody has asked for the end of it.
        self.ended = False
        self.trace = trace
        self._watchers = watchers if trace is None else (*watchers, trace)
        self._keep_disks = keep_disks
        self._workers: list[Worker] = []  # of SMMUs and masters
        if trace is not None:
            trace.written_by(self.server.worker("trace", trace.flush).wake)
        try:
            late = live or bool(config.faults) or any(smmu.traits.companions for smmu in config.smmus)
            self.machine = self._make(config, wires, late)
        except BaseException:
            self.server.stop()
            raise
        _share(self.machine.functions)
        self._look_on()
        for index, function in enumerate(self.machine.functions):
            if fds:
                self.server.add(function, fd=fds[index])
            else:
                self.server.add(function, path=paths[index])
        if control is not None:
            self._talks = self.server.control(control, self._talk)

    def _make(self, config: MachineConfig, wires: Wires | None, late: bool) -> Machine:
        return Machine(
            config,
            wires=wires,
            spawn=self._spawn,
            new_lock=_core.lock,
            pause=lambda: time.sleep(PAUSE),
            clock=time.monotonic,
            later=self.server.alarm("later").after if late else None,
            watchers=self._watchers,
        )

    def _look_on(self) -> None:
        """Those who look on from the beginning, and the thread that tells them."""
        drainer = self.server.drainer("watch", self.machine.watches)
        for watch in self.machine.watches.all:
            watch.wake = drainer.wake
        if any(smmu.stall_watchdog for smmu in self.machine.config.smmus):
            alarm = self.server.alarm("watchdog")
            for smmu in self.machine.config.smmus:
                if smmu.stall_watchdog:
                    watch = self.machine.watches.of(smmu.name)
                    watch.attach(Watchdog(watch, smmu.stall_watchdog, alarm.after))

    def _talk(self) -> Conversation:
        """With one client of the control socket."""

        def tell(name: str, data: Any) -> None:
            talk.event(name, data)
            self._talks.wake()

        talk = Conversation(self.control(tell), __version__)
        return talk

    def control(self, tell: Callable[[str, Any], None] = lambda name, data: None) -> Control:
        """The commands that can be asked of the machine; ``tell`` is told what they have watched."""
        return Control(MachineBench(self.machine, _now, self._end), tell)

    def _end(self) -> None:
        self.ended = True
        self.server.request_stop()

    def dump(self, path: Path) -> None:
        """Keep the machine as it is in a file; UsageError: it cannot be written."""
        dump.write(path, dump.take(MachineBench(self.machine, _now), _now()))

    def _spawn(self, name: str, work: Callable[[], bool]) -> Callable[[], None]:
        self._workers.append(self.server.worker(name, work))
        return self._workers[-1].wake

    def settle(self) -> bool:
        """Wait until SMMUs and masters have done what they were told to, and watchers were told of it: SETTLING seconds
        at most, as what somebody holds up never ends. Whether they have.
        """
        until = time.monotonic() + SETTLING
        while not all(worker.idle for worker in self._workers) and time.monotonic() < until:
            time.sleep(SETTLING / 1000)
        idle = all(worker.idle for worker in self._workers)
        self.machine.watches.flush()
        return idle

    @property
    def failure(self) -> Exception | None:
        """What went wrong in a thread: our fault."""
        return self.server.failure

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
        ended = self.server.stop()
        self.machine.watches.flush()
        if ended and not self._keep_disks:
            self.machine.close()


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


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
