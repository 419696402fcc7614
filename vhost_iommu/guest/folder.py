# SPDX-License-Identifier: Apache-2.0
"""Folders of runs: private, short-named, and gone after a run that went well.

Law: a killed run leaves a folder that the next one may clear; at most KEPT folders of runs that went wrong stay.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from vhost_iommu.errors import UsageError

KEPT = 5
#: What of a failed run is worth keeping: the rest is large, or can be made again.
ARTEFACTS = ("console.log", "qemu.cmd", "qemu.log", "result.txt", "trace.json", "trace.txt")
_LOCK = "lock"
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


class RunFolder:
    """One run's folder: temporary, unless ``keep`` names one to stay."""

    def __init__(self, keep: Path | None = None) -> None:
        self.keep = keep
        if keep is None:
            parent = root()
            prune(parent)
            self.path = Path(tempfile.mkdtemp(prefix="", dir=parent))
        else:
            try:
                keep.mkdir(parents=True, exist_ok=True)
            except OSError as why:
                raise UsageError(f"{keep}: {why.strerror}; name another folder to keep") from None
            self.path = keep.absolute()
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UsageError(f"{self.path} is in use by another run; name another folder to keep") from None

    def file(self, name: str) -> Path:
        return self.path / name

    def leave(self) -> None:
        """Let it be, with all that is in it, until it is no longer among the newest."""
        self.file(_WHOLE).touch()
        os.close(self._lock)

    def close(self, failed: bool) -> Path | None:
        """Remove what is not to stay; the folder, if it stays."""
        stays = failed or self.keep is not None
        if self.keep is None:
            if failed:
                _reduce(self.path)
            else:
                shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        if self.keep is not None:
            self.file(_LOCK).unlink(missing_ok=True)
        elif stays:
            prune(self.path.parent)
        return self.path if stays else None


def prune(parent: Path) -> None:
    """Reduce what killed runs left behind to what is worth keeping, and remove all but the newest few."""
    idle = []
    for folder in parent.iterdir():
        if not folder.is_symlink() and folder.is_dir() and not _busy(folder):
            idle.append(folder)
            if not (folder / _WHOLE).exists():
                _reduce(folder)
    idle.sort(key=_age, reverse=True)
    for folder in idle[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


def _busy(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # Being made just now, or not a run's: an empty folder that is new is left alone.
        return not any(folder.iterdir()) if folder.exists() else True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _reduce(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in (*ARTEFACTS, _LOCK):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
