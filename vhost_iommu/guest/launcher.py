# SPDX-License-Identifier: Apache-2.0
"""Who starts QEMU, and what one has of it while it runs, whoever started it.

Law: the guest waits for ``monitor.start``; its console, monitor and debugger are sockets of ours. QEMU cannot outlive
us, and has ended when ``end`` or ``kill`` returns.
"""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import Protocol

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.libvirt.launch import Libvirt
from vhost_iommu.guest.monitor import Monitor
from vhost_iommu.guest.qemu import Command, Process


class Running(Protocol):
    """A QEMU that was started."""

    @property
    def console(self) -> socket.socket:
        """Our end of the guest's serial port; the caller's to close."""

    @property
    def agent(self) -> socket.socket:
        """Our end of the guest's second serial port, where its hardware has one; nothing comes of it elsewhere."""

    @property
    def debugger(self) -> socket.socket:
        """Our end of a gdb stub, which ``debugged`` starts."""

    @property
    def monitor(self) -> Monitor: ...

    @property
    def pid(self) -> int: ...

    @property
    def running(self) -> bool: ...

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends by itself in that time."""

    def debugged(self, seconds: float) -> bool:
        """Have ``debugger`` speak with QEMU's gdb stub, which stops the guest; whether QEMU does so in time."""

    def end(self) -> int:
        """Wait a moment for it to end, else end it; its exit status, negative for a signal."""

    def kill(self) -> int:
        """End it now; its exit status."""

    def close(self) -> None:
        """Our ends of what is private; the console is the caller's."""


class Launcher(Protocol):
    """One way to start QEMU."""

    @property
    def artefact(self) -> str:
        """The name of the file that keeps ``text`` of a run."""

    def text(self, command: Command) -> str:
        """What starts this guest by hand."""

    def start(self, command: Command, folder: Path) -> Running:
        """UsageError: it cannot be started. What QEMU itself says goes to ``qemu.log`` in ``folder``."""


class Direct:
    """QEMU is our child."""

    artefact = "qemu.cmd"

    def text(self, command: Command) -> str:
        return shlex.join(command.arguments())

    def start(self, command: Command, folder: Path) -> Running:
        return Process(command.arguments(), folder / "qemu.log", agent=command.hardware.agent)


LAUNCHERS = ("qemu", "libvirt")


def launcher_of(name: str, cache: Path) -> Launcher:
    """UsageError: there is no such launcher. What it wants to keep goes into ``cache``."""
    match name:
        case "qemu":
            return Direct()
        case "libvirt":
            return Libvirt(cache)
    raise UsageError(f"there is no launcher {name!r}; take one of {', '.join(LAUNCHERS)}")
