# SPDX-License-Identifier: Apache-2.0
"""Folders of runs: private, short-named, and gone after a run that went well.

Law: a killed run leaves a folder that the next one may clear. What a report named is there for a day, whoever else
runs, while there is room; the newest few stay longer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.server import MAX_PATH

#: Folders of runs that went wrong: the newest KEPT stay, and others for a day while they have no more than ROOM bytes.
KEPT = 5
DAY = 24 * 3600.0
ROOM = 256 << 20
#: What a folder counts at least, so that there are never very many.
_GRAIN = 1 << 20
#: What of a failed run is worth keeping: the rest is large, or can be made again.
ARTEFACTS = ("console.log", "domain.xml", "dump", "libvirt.log", "qemu.cmd", "qemu.log", "report.html", "result.txt",
             "trace.json", "trace.txt")  # fmt: skip
#: Bytes of a socket's path that its own name may take.
_SOCKETS = 32
_LOCK = "lock"
_CONTROLS = ".control"  #: no run's, whose names have letters and digits alone
_WHOLE = "whole"  #: marks a folder that stays as it is


def root() -> Path:
    """Our folder of runs, for this user alone; short, for a socket's path has at most 107 bytes."""
    uid = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"vhost-iommu-{uid}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as why:
        raise UsageError(f"{folder}: {why.strerror}; name a folder of yours in $TMPDIR") from None
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid:
        raise UsageError(f"{folder} is another user's; remove it or name a folder of yours in $TMPDIR")
    folder.chmod(0o700)
    return folder


def control_socket(machine: str) -> Path:
    """Where the control socket of a machine that begins now is to be: ``MACHINE.PID.sock`` in a folder of ours.

    Machines that begin at once do so in threads of their own, so those of a thread are counted from its number on.
    UsageError: that is too long.
    """
    folder, process, thread = controls(), os.getpid(), threading.get_native_id()
    numbers = count(0 if thread == process else thread)
    names = (f"{machine}.{process}{f'-{n}' if n else ''}.sock" for n in numbers)
    path = next(path for name in names if not (path := folder / name).exists())
    if (over := len(os.fsencode(path)) - MAX_PATH) > 0:
        raise UsageError(f"{path} is {over} bytes too long for a socket; name a shorter folder in $TMPDIR")
    return path


def controls() -> Path:
    """The folder of the control sockets of all machines of this user."""
    folder = root() / _CONTROLS
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


class RunFolder:
    """One run's folder: temporary, unless ``keep`` names one to stay."""

    def __init__(self, keep: Path | None = None) -> None:
        self.keep = keep
        if keep is None:
            parent = root()
            with _alone_in(parent):
                _prune(parent)
                self.path = Path(tempfile.mkdtemp(prefix="", dir=parent))
                self._lock = self._locked()
            return
        try:
            keep.mkdir(parents=True, exist_ok=True)
            self.path = keep.absolute()
            self._lock = self._locked()
        except BlockingIOError:
            raise UsageError(f"{keep} is in use by another run; name another folder to keep") from None
        except OSError as why:
            raise UsageError(f"{keep}: {why.strerror}; name another folder to keep") from None

    def _locked(self) -> int:
        """The folder's lock, which the kernel releases when this process ends; BlockingIOError: another's."""
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise
        return lock

    def file(self, name: str) -> Path:
        return self.path / name

    def for_sockets(self, stack: contextlib.ExitStack) -> Path:
        """Where its sockets are: in it, but where a folder to keep has too long a path, as a CI's may; then elsewhere
        until ``stack`` ends.
        """
        if self.keep is None or len(os.fsencode(self.path)) + _SOCKETS <= MAX_PATH:
            return self.path
        short = RunFolder()
        stack.callback(short.close, failed=False)
        return short.path

    def leave(self) -> None:
        """Let it be, with all that is in it, until it is no longer among the newest."""
        self.file(_WHOLE).touch()
        os.close(self._lock)

    def close(self, failed: bool) -> Path | None:
        """Remove what is not to stay; the folder, if it stays."""
        if self.keep is not None:
            os.close(self._lock)
            self.file(_LOCK).unlink(missing_ok=True)
            return self.path
        # Who looks at all folders meanwhile finds this one whole, or does not find it.
        with _alone_in(self.path.parent):
            if failed:
                _reduce(self.path)
            else:
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            if failed:
                _prune(self.path.parent)
        return self.path if failed else None


def prune(parent: Path) -> None:
    """Reduce what killed runs left behind to what is worth keeping, and remove what has been there long enough."""
    with _alone_in(parent):
        _prune(parent)


def end_processes(folder: Path) -> None:
    """End what a killed run left behind: the process of each ``*.pid`` file whose command line names the folder."""
    for file in folder.rglob("*.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(file.read_text())
            process = os.pidfd_open(pid)
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b"/")
                if pid != os.getpid() and f"{folder}/".encode() in line:
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            finally:
                os.close(process)


@contextmanager
def _alone_in(parent: Path) -> Iterator[None]:
    """No other process makes or removes folders in ``parent`` meanwhile."""
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _prune(parent: Path) -> None:
    idle = []
    for folder in parent.iterdir():
        if folder.name == _CONTROLS:
            _forget(folder)
        if folder.name.startswith(".") or folder.is_symlink() or not folder.is_dir() or _busy(folder):
            continue
        end_processes(folder)
        if not (folder / _WHOLE).exists():
            _reduce(folder)
        if any(path.name != _LOCK for path in folder.iterdir()):
            idle.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    idle.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    taken, now = 0, time.time()
    for number, folder in enumerate(idle):
        taken += max(_GRAIN, sum(path.lstat().st_size for path in folder.iterdir()))
        if number >= KEPT and (taken > ROOM or now - folder.stat().st_mtime > DAY):
            shutil.rmtree(folder, ignore_errors=True)


def _forget(controls: Path) -> None:
    """Remove the control sockets of processes that are gone."""
    for socket in controls.glob("*.sock"):
        pid = socket.suffixes[-2].lstrip(".").partition("-")[0]
        if not Path("/proc", pid).exists():
            socket.unlink(missing_ok=True)


def _busy(folder: Path) -> bool:
    """Whether the run that made it still goes on."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _reduce(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in (*ARTEFACTS, _LOCK):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
