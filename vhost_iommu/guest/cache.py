# SPDX-License-Identifier: Apache-2.0
"""A folder of things that were fetched once.

Law: an entry appears under its name whole or not at all, whenever the process is killed; of two processes that want
the same one makes it while the other waits, and who wants another does not.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from vhost_iommu.errors import UsageError

STAMP = "stamp.json"
_NEW, _OLD = ".new-", ".old-"


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """$VI_CACHE, or vhost-iommu under $XDG_CACHE_HOME, or under ~/.cache."""
    if named := environ.get("VI_CACHE"):
        return Path(named).absolute()
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "vhost-iommu"
    try:
        return Path.home() / ".cache" / "vhost-iommu"
    except RuntimeError:
        raise UsageError("you have no home folder; name a folder for downloads in $VI_CACHE") from None


class Cache:
    """Entries are folders; each carries a stamp with facts about what is in it."""

    def __init__(self, folder: Path, progress: Callable[[str], None]) -> None:
        self.folder = folder
        self._progress = progress

    def stamp(self, name: str) -> dict[str, str] | None:
        """The facts written when the entry was made, or None if there is none."""
        try:
            facts = json.loads((self.folder / name / STAMP).read_text())
        except (OSError, ValueError):
            return None
        return {str(key): str(value) for key, value in facts.items()} if isinstance(facts, dict) else None

    def entry(self, name: str, make: Callable[[Path], dict[str, str]]) -> Path:
        """The folder ``name``; if it is not there, ``make`` fills a new one and returns its facts.

        ``make`` may ask for other entries, but not for ``name``.
        """
        final = self.folder / name
        if self.stamp(name) is not None:
            return final
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self._lock(name), lambda: self._progress(f"waiting for another process that makes {final}…")):
                if self.stamp(name) is None:
                    self._sweep()
                    self._make(name, make)
        except OSError as why:
            raise UsageError(
                f"{why.filename or self.folder}: {why.strerror or why}; make the folder writable "
                "with some space free, or name another in $VI_CACHE"
            ) from why
        return final

    def _make(self, name: str, make: Callable[[Path], dict[str, str]]) -> None:
        final, new, old = self.folder / name, self.folder / f"{_NEW}{name}", self.folder / f"{_OLD}{name}"
        for leftover in (new, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        new.mkdir()
        try:
            facts = make(new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        (new / STAMP).write_text(json.dumps(facts, indent=1) + "\n")
        if final.exists():  # without a stamp: not ours, or damaged
            os.rename(final, old)
        os.rename(new, final)
        shutil.rmtree(old, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what makers of other entries left when they were killed: a build can be large."""
        for leftover in (*self.folder.glob(f"{_NEW}*"), *self.folder.glob(f"{_OLD}*")):
            name = leftover.name.removeprefix(_NEW).removeprefix(_OLD)
            with suppress(BlockingIOError), locked(self._lock(name)):
                shutil.rmtree(leftover, ignore_errors=True)

    def _lock(self, name: str) -> Path:
        """Each entry has its own: one that takes long to make keeps nobody from another."""
        return self.folder / f".lock-{name}"


@contextmanager
def locked(file: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock ``file``, which is made if need be.

    If somebody else has it, ``waiting`` is called before we wait; without it, BlockingIOError.

    The kernel releases a lock when its last holder dies. A child that outlives a killed process inherits it, so a
    download is never done twice at once.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock, True)
        yield
    finally:
        os.close(lock)
