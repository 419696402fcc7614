# SPDX-License-Identifier: Apache-2.0
"""A machine that is served: each of its PCI functions at a socket, each of its masters in a thread.

Law: ``start`` serves or raises and leaves nothing behind; ``stop`` ends every thread and removes every socket.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .config import MachineConfig
from .errors import UsageError
from .machine import Machine, Wires
from .server import Server
from .trace import Trace

#: Seconds that a worker stands aside at a time, while a register access waits for its lock.
PAUSE = 25e-6


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
    ) -> None:
        """UsageError when ``paths`` or ``fds`` are not as many as the machine has SMMUs."""
        self.server = Server()
        self.trace = trace
        self.machine = Machine(
            config,
            wires=wires,
            spawn=lambda name, work: self.server.worker(name, work).wake,
            new_lock=threading.RLock,
            pause=lambda: time.sleep(PAUSE),
            trace=trace,
        )
        if folder is not None:
            paths = [folder / f"{smmu.name}.sock" for smmu in config.smmus]
        self.sockets: Sequence[Path] = tuple(paths)
        if len(paths or fds) != len(config.smmus):
            raise UsageError(
                f"{config.name} has {len(config.smmus)} SMMUs and needs a socket for each; "
                f"{len(paths or fds)} given: use a folder"
            )
        for index, function in enumerate(self.machine.functions):
            if fds:
                self.server.add(function, fd=fds[index])
            else:
                self.server.add(function, path=paths[index])

    @property
    def failure(self) -> Exception | None:
        """What went wrong in a thread: our fault."""
        return self.server.failure

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.machine.stop()
        self.server.stop()
