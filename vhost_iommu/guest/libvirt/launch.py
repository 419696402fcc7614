# SPDX-License-Identifier: Apache-2.0
"""The launcher of guests that libvirt starts, and what one has of a running one.

Law: as of a direct start. QEMU connects to sockets of ours; a keeper beside us speaks with libvirt, and outlives us to
clean up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.folder import RunFolder, end_processes, root
from vhost_iommu.guest.libvirt import domain, keeper, session
from vhost_iommu.guest.libvirt.domain import AGENT, CONSOLE, DEBUGGER, MONITOR
from vhost_iommu.guest.monitor import Monitor
from vhost_iommu.guest.qemu import GRACE, Command

#: Seconds for a QEMU to start: libvirt has to learn what it is able to do, the first time.
PATIENCE = 60.0
#: Seconds in which libvirt ends a QEMU, gently and then not.
DESTROYED = 30.0
#: QEMU's exit status, as far as libvirt tells: by why the domain stopped.
_STATUS = {"SHUTDOWN": 0, "DESTROYED": -signal.SIGTERM}
#: Seconds for what QEMU's monitor still says when QEMU is gone.
_LAST_WORDS = 1.0
_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")
#: Bytes of what a keeper tells at a time.
LONGEST_WORD = 1 << 17


#: What mends what libvirt says; the second is of root alone, who is nobody in its namespace.
_NO_DRIVER = ("no connection driver", "install libvirt's driver of QEMU (Debian: libvirt-daemon-driver-qemu)")
_NO_POWER = (
    r"Permission denied|Not a directory",
    "libvirt has no power of root's over others' files; name places of root's in $TMPDIR, $VI_CACHE and --keep, "
    "or be another user",
)
_NO_START = ("qemu unexpectedly closed the monitor", "correct QEMU's arguments")
#: What libvirt says before what QEMU says, where that is a line.
_UNEXPECTED = re.compile(rf"^.*{_NO_START[0]}: ")


class Libvirt:
    """Guests are transient domains of a session that is the run's own. ``cache``: the folder of what is kept, in
    "libvirt" there, or where that is another's with the runs.
    """

    artefact = "domain.xml"

    def __init__(self, cache: Path) -> None:
        """UsageError: libvirt is not here."""
        self._cache = cache / "libvirt"
        if not _is_ours(self._cache):
            self._cache = root() / ".libvirt"

    def text(self, command: Command) -> str:
        return domain.xml(command, self._emulator(command)).rstrip()

    def start(self, command: Command, folder: Path) -> Domain:
        if not session.module_here():
            raise UsageError("libvirt's Python module is not here; pip install 'vhost-iommu[libvirt]'")
        return Domain(command, self._emulator(command), self._cache / "capabilities", folder)

    def _emulator(self, command: Command) -> Path:
        """A program that is QEMU; its name changes with QEMU, of which libvirt learns once for each name."""
        program = Path(command.program[0])
        if len(command.program) == 1 and program.is_absolute():
            return program
        told = [os.stat(each).st_mtime_ns for each in command.program if os.path.isfile(each)]
        name = hashlib.sha256(repr((command.program, told)).encode()).hexdigest()[:16]
        path = self._cache / f"qemu-{name}"
        if not path.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}-{os.getpid()}")
            new.write_text(f'#!/bin/sh\nexec {shlex.join(command.program)} "$@"\n')
            new.chmod(0o755)
            new.replace(path)
        return path


class Domain:
    """A running domain, and its QEMU."""

    def __init__(self, command: Command, emulator: Path, capabilities: Path, folder: Path) -> None:
        """UsageError: it cannot be started."""
        self._folder = folder
        folder.joinpath("qemu.log").touch()
        self._status: int | None = None
        self._session = RunFolder()
        session.require_short(self._session.path, command.name)
        ports = (CONSOLE, *[AGENT] * command.hardware.agent, MONITOR, DEBUGGER)
        paths = {name: self._session.file(name) for name in ports}
        self._session.file("domain.xml").write_text(domain.xml(command, emulator, paths))
        self._keeper_socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as failing, contextlib.ExitStack() as stack:
            failing.callback(self._end_session)
            doors = {name: stack.enter_context(_door(path)) for name, path in paths.items()}
            arguments = [str(self._session.path), command.name, str(capabilities)]
            with theirs:
                self._keeper = subprocess.Popen(
                    # Without -P a libvirt.py of the working folder would be libvirt's module.
                    [sys.executable, "-P", "-m", keeper.__name__, *arguments],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # the terminal's Ctrl-C is for us alone
                )
            self.pid = self._started()
            # It has connected to all of them, or it would not have started.
            connected = {name: door.accept()[0] for name, door in doors.items()}
            failing.pop_all()
        self.console, self.debugger = connected[CONSOLE], connected[DEBUGGER]
        self.agent = connected.get(AGENT, self._keeper_socket)
        self.monitor = Monitor(connected[MONITOR])

    @property
    def running(self) -> bool:
        return not self.ends_within(0)

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends by itself in that time."""
        until = time.monotonic() + seconds
        while self._status is None and self._hear(max(0.0, until - time.monotonic())) is not None:
            pass
        return self._status is not None

    def debugged(self, seconds: float) -> bool:
        """Have ``debugger`` speak with QEMU's gdb stub, which stops the guest; whether QEMU does so in time."""
        return self.monitor.debugged(f"vi-{DEBUGGER}", seconds)

    def end(self) -> int:
        """Wait a moment for it to end, else end it; its exit status, negative for a signal."""
        self.ends_within(GRACE)
        return self.kill()

    def kill(self) -> int:
        """End it now; its exit status, or 1 where libvirt does not know it."""
        if self._status is None:
            self._say("destroy")
            if not self.ends_within(DESTROYED):
                self._lost()
        return self._status or 0

    def close(self) -> None:
        """Our ends of what is private, and the session; the console is the caller's."""
        self.monitor.close()
        self.debugger.close()
        if self.agent is not self._keeper_socket:
            self.agent.close()
        self._end_session()

    # -- the keeper ------------------------------------------------------------------------------------------------

    def _started(self) -> int:
        """QEMU's process id."""
        until = time.monotonic() + PATIENCE
        while (said := self._hear(max(0.0, until - time.monotonic()))) is not None:
            if "error" in said:
                raise UsageError(f"libvirt does not start the guest: {sentence(said['error'])}")
            if "started" in said:
                return int(said["started"])
        if self._status is not None:
            raise UsageError("who keeps the guest's libvirt was ended before it had started the guest; run again")
        raise UsageError(f"libvirt has not started the guest within {PATIENCE:g} s; see what else this machine is at")

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        """What the keeper tells next; None: nothing, in that time."""
        try:
            self._keeper_socket.settimeout(seconds)
            data = self._keeper_socket.recv(LONGEST_WORD)
        except OSError:
            return None
        if not data:
            self._lost()
            return None
        said: dict[str, Any] = json.loads(data)
        if "event" in said:
            with self._folder.joinpath("libvirt.log").open("a") as log:
                log.write(f"{said['event']} {said['why']}".rstrip() + "\n")
        if "ended" in said:
            self._folder.joinpath("qemu.log").write_text(said["words"])
            self._status = _STATUS.get(said["ended"], 1)
            if not said["ended"] and self.monitor.shutdown(_LAST_WORDS):
                self._status = 0  # libvirt's daemon was gone before it
        return said

    def _lost(self) -> None:
        """The keeper is gone, or does not answer: do its work."""
        end_processes(self._session.path)
        if self._status is None:
            self._status = -signal.SIGKILL

    def _say(self, word: str) -> None:
        with contextlib.suppress(OSError):
            self._keeper_socket.settimeout(1.0)
            self._keeper_socket.sendall(word.encode())

    def _end_session(self) -> None:
        self._say("end")
        self._keeper_socket.close()
        try:
            self._keeper.wait(DESTROYED)
        except subprocess.TimeoutExpired:
            self._lost()
            self._keeper.wait()
        self._session.close(failed=False)


def _door(path: Path) -> socket.socket:
    """A socket to which QEMU connects."""
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen(1)
    return door


def _is_ours(folder: Path) -> bool:
    """Whether libvirt and we can write to it, or to where it is to be."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return os.access(there, os.W_OK) and (os.geteuid() != 0 or there.stat().st_uid == 0)


def sentence(error: str) -> str:
    """libvirt's last line, which has QEMU's; and what mends it, where that is known."""
    last = _TIMESTAMP.sub("", _UNEXPECTED.sub("", error.strip().rpartition("\n")[2]))
    mends = (_NO_DRIVER, *[_NO_POWER] * (os.geteuid() == 0), _NO_START)
    return "; ".join([last, *[mend for said, mend in mends if re.search(said, error)][:1]])
