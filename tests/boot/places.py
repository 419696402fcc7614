# SPDX-License-Identifier: Apache-2.0
"""A place in which all processes are ours, so that what a killed run leaves behind is seen.

Law: moments are drawn from the time that an unharmed run takes. VI_KILLS says how many of each kind, by default 2.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

KILLS = int(os.environ.get("VI_KILLS", "2"))
DEADLINE = 60.0
CLI = [sys.executable, "-c", "import sys; from vhost_iommu.cli import main; sys.exit(main())"]
MACHINE = "smmuv3-bare"


class Place:
    """A temporary folder of our own; whoever has it in the environment belongs to us."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {**os.environ, "TMPDIR": str(path)}
        self._mark = f"TMPDIR={path}\0".encode()
        self.random = Random(KILLS)
        began = time.monotonic()
        self.passes()
        #: How long an unharmed run takes, in seconds.
        self.usual = time.monotonic() - began

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        # Whoever runs us in the background of a shell has SIGINT ignored.
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(
            [*CLI, *arguments], stdout=pipe, stderr=pipe, text=True, env=self.environment, preexec_fn=heard
        )

    def passes(self) -> None:
        """The next run is as though nothing had been."""
        process = self.start("run", MACHINE)
        said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said

    def some_time_passes(self, process: subprocess.Popen[str]) -> None:
        """Wait for a moment of a run, or for its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.random.uniform(0, self.usual))

    def processes(self) -> Iterator[tuple[int, bytes]]:
        """(id, command line) of each process that is ours."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if self._mark in (folder / "environ").read_bytes() + b"\0":
                        yield int(folder.name), (folder / "cmdline").read_bytes()

    def qemus(self) -> list[int]:
        return [pid for pid, line in self.processes() if b"vfio-user-pci" in line]

    def has_qemu(self, process: subprocess.Popen[str]) -> bool:
        """Wait for the QEMU of a run, or for the run's end."""
        return eventually(lambda: bool(self.qemus()) or process.poll() is not None)

    def is_quiet(self) -> None:
        """Every process of ours has ended."""
        assert eventually(lambda: not list(self.processes())), list(self.processes())

    def is_tidy(self) -> None:
        """No folder has a socket or an image."""
        (runs,) = self.path.iterdir()
        kept = {".log", ".cmd", ".xml", ".html", ".txt", ""}
        left = [str(file) for folder in runs.iterdir() for file in folder.iterdir() if file.suffix not in kept]
        assert not left, left


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether ``condition`` comes true before the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True
