# SPDX-License-Identifier: Apache-2.0
"""The program beside a run that keeps its libvirt session and its domain, and ends both when the run has ended.

Law: whatever ends first, the rest ends. The run holds the other end of our standard input: so it is known to be there,
is told in JSON ("started" or "error", each "event" of the domain, "ended"), and has two words, "destroy" and "end".
When we are killed, libvirt destroys the domain, and its daemon ends with nothing to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.folder import end_processes
from vhost_iommu.guest.libvirt.session import Session

#: Lifecycle events and why a domain stopped, by libvirt's numbers.
_EVENTS = ("DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED", "STOPPED", "SHUTDOWN", "PMSUSPENDED", "CRASHED")
_STOPPED = ("SHUTDOWN", "DESTROYED", "CRASHED", "MIGRATED", "SAVED", "FAILED", "FROM_SNAPSHOT")
#: Milliseconds for an event that tells of an end which was seen otherwise.
_LATE = 3000
#: Lines that QEMU says at its end, of which the run is told.
_WORDS = 50
_OWN = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+\+0000: ")
_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")


class Keeper:
    """Of one domain, in the folder of its session."""

    def __init__(self, folder: Path, run: socket.socket) -> None:
        import libvirt

        self._libvirt: Any = libvirt
        self._folder, self._run = folder, run
        self._told_to_end = False
        self._gone = False  #: the run is
        self._ended = False  #: QEMU has
        self._stopped = ""  #: why libvirt says that the domain has stopped, once it does
        self._qemu = -1
        self._connection: Any = None
        self._domain: Any = None

    def keep(self, xml: str, name: str, capabilities: Path) -> None:
        """From the session's start to its end."""
        session = None
        try:
            try:
                session = Session(self._folder, capabilities)
                session.wait()
                self._start(session, xml, name)
            except (UsageError, self._libvirt.libvirtError, OSError, ValueError) as why:
                self._tell(error=str(why).strip())
            else:
                self._tell(started=self._pid)
                self._watch()
                self._tell(ended=self._stopped, words=self._words(name))
                self._wait_for_the_run()
        finally:
            if session is not None:
                session.kill()
            end_processes(self._folder)
            if self._gone and not self._told_to_end:
                print(f"vhost-iommu: who served the domain {name} is gone; it was destroyed", file=sys.stderr)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, session: Session, xml: str, name: str) -> None:
        libvirt = self._libvirt
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        self._connection = libvirt.open(session.uri)
        self._connection.registerCloseCallback(lambda *_: self._tell(event="DISCONNECTED", why=""), None)
        lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        self._connection.domainEventRegisterAny(None, lifecycle, self._lifecycle, None)
        flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
        self._domain = self._connection.createXML(xml, flags)
        self._pid = session.pid_of(name)
        self._qemu = os.pidfd_open(self._pid)

    def _watch(self) -> None:
        """Until QEMU has ended."""
        libvirt = self._libvirt
        ends = libvirt.VIR_EVENT_HANDLE_READABLE | libvirt.VIR_EVENT_HANDLE_HANGUP
        libvirt.virEventAddHandle(self._run.fileno(), ends, self._heard, None)
        watch = libvirt.virEventAddHandle(self._qemu, libvirt.VIR_EVENT_HANDLE_READABLE, self._qemu_ended, None)
        while not self._ended:
            libvirt.virEventRunDefaultImpl()
        libvirt.virEventRemoveHandle(watch)
        late: list[bool] = []
        timer = libvirt.virEventAddTimeout(_LATE, lambda *_: late.append(True), None)
        while not self._stopped and not late and self._connection.isAlive():
            libvirt.virEventRunDefaultImpl()
        libvirt.virEventRemoveTimeout(timer)

    def _wait_for_the_run(self) -> None:
        """Until it has heard that QEMU is gone, or is gone itself."""
        while not self._gone and not self._told_to_end:
            self._libvirt.virEventRunDefaultImpl()

    # -- what happens ----------------------------------------------------------------------------------------------

    def _lifecycle(self, _connection: Any, _domain: Any, event: int, detail: int, _: None) -> None:
        why = _STOPPED[detail] if _EVENTS[event] == "STOPPED" and detail < len(_STOPPED) else ""
        self._tell(event=_EVENTS[event], why=why)
        self._stopped = self._stopped or why

    def _qemu_ended(self, _watch: int, _fd: int, _events: int, _: None) -> None:
        self._ended = True

    def _heard(self, watch: int, _fd: int, _events: int, _: None) -> None:
        """The run has said a word, or is gone."""
        try:
            word = self._run.recv(16)
        except OSError:
            word = b""
        self._told_to_end |= word == b"end"
        if not word:
            self._gone = True
            self._libvirt.virEventRemoveHandle(watch)
        if not self._ended:
            self._destroy()

    def _destroy(self) -> None:
        with contextlib.suppress(self._libvirt.libvirtError):
            self._domain.destroy()
            return
        # Its daemon is gone, and QEMU is not.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._qemu, signal.SIGKILL)

    def _tell(self, **said: object) -> None:
        with contextlib.suppress(OSError):
            self._run.sendall(json.dumps(said).encode())

    def _words(self, name: str) -> str:
        """What QEMU said: libvirt's log has the command before it, line by line, and its own last line after it."""
        with contextlib.suppress(OSError):
            text = (self._folder / f"cache/libvirt/qemu/log/{name}.log").read_text(errors="replace")
            _, _, said = text.partition("\n-msg timestamp=on\n")
            lines = [line for line in said.splitlines() if not _OWN.match(line)]
            return "".join(f"{_TIMESTAMP.sub('', line)}\n" for line in lines[-_WORDS:])
        return ""


def main() -> int:
    """Arguments: the session's folder, the name of the domain that is described there, what keeps capabilities."""
    folder, name, capabilities = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    (folder / "keeper.pid").write_text(f"{os.getpid()}\n")
    run = socket.socket(fileno=os.dup(0))
    Keeper(folder, run).keep((folder / "domain.xml").read_text(), name, capabilities)
    return 0


if __name__ == "__main__":
    sys.exit(main())
