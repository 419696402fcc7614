# SPDX-License-Identifier: Apache-2.0
"""A libvirt of our own: a daemon in session mode whose every file is in one folder.

Law: it never runs as root, which libvirt takes for a system's daemon: root's is in a user namespace where root's files
are nobody's. So is that of a user whom the machine has no name for. With no client and no domain it ends by itself.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.server import MAX_PATH

#: Seconds without a client and a domain, after which the daemon ends.
IDLE = 5
#: Seconds that it may take to answer, and to end when it is asked to.
PATIENCE = 20.0
PAUSE = 0.01
#: Characters of a domain's name that the name of its folder has.
_DOMAIN = 20
#: Who one is inside of the namespace.
NOBODY = 65534
_CLONE_NEWUSER = 0x1000_0000
#: The daemon of all drivers, or else the one of QEMU's alone, with the name of its socket.
_DAEMONS = (("libvirtd", "libvirt-sock"), ("virtqemud", "virtqemud-sock"))
#: Where it is, beside PATH.
_FOLDERS = ("", "/usr/sbin/", "/usr/local/sbin/")

_DAEMON_CONF = """\
auth_unix_rw = "none"
"""
_QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
remember_owner = 0
"""

#: What comes before what a daemon says: when, which thread, how bad, and where in its source.
_WHENCE = re.compile(r"^[\d-]+ [\d:.+]+: \d+: \w+ : \w+:\d+ : ")

_libc = ctypes.CDLL(None, use_errno=True)


def daemon_here() -> tuple[str, str] | None:
    """The libvirt daemon of this machine and the name of its socket."""
    for name, listens_at in _DAEMONS:
        for folder in _FOLDERS:
            if (path := shutil.which(folder + name)) is not None:
                return path, listens_at
    return None


def module_here() -> bool:
    """Whether libvirt's Python module is here: what it is compiled to, for a folder called libvirt is found too."""
    return find_spec("libvirtmod") is not None


def require_short(folder: Path, domain: str) -> None:
    """UsageError: sockets of a session in ``folder`` would have too long paths."""
    longest = folder / f"config/libvirt/qemu/lib/domain-1-{domain[:_DOMAIN]}/monitor.sock"
    if (over := len(os.fsencode(longest)) - MAX_PATH) > 0:
        raise UsageError(f"{folder} is {over} bytes too long for libvirt's sockets; name a shorter folder in $TMPDIR")


class Session:
    """The daemon of one folder. ``capabilities`` is a folder that keeps what it learns of QEMU for the next one."""

    def __init__(self, folder: Path, capabilities: Path) -> None:
        """UsageError: it does not start."""
        found = daemon_here()
        if found is None:
            raise UsageError("libvirt's daemon is not here; install it (Debian: libvirt-daemon-driver-qemu)")
        program, name = found
        self._folder = folder
        self._socket = folder / "run/libvirt" / name
        for name in ("run", "config/libvirt", "cache/libvirt/qemu/cache"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        capabilities.mkdir(parents=True, exist_ok=True)
        (folder / "cache/libvirt/qemu/cache/capabilities").symlink_to(capabilities)
        (folder / "config/libvirt/qemu.conf").write_text(_QEMU_CONF)
        conf = folder / "daemon.conf"
        conf.write_text(_DAEMON_CONF)
        self._log = folder / "daemon.log"
        environment = {
            **os.environ,
            "HOME": str(folder),
            **{f"XDG_{each.upper()}_HOME": str(folder / each) for each in ("config", "cache", "data", "state")},
            "XDG_RUNTIME_DIR": str(folder / "run"),
        }
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [program, "-f", str(conf), "-p", str(folder / "daemon.pid"), "--timeout", str(IDLE)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd="/",
                    preexec_fn=_be_nobody if _needs_a_name() else None,
                )
            except (OSError, subprocess.SubprocessError) as why:
                raise UsageError(
                    f"{program} does not start ({why}); for root, and a user without a name, it takes user "
                    "namespaces: allow them, or be another user"
                ) from None

    @property
    def uri(self) -> str:
        return f"qemu+unix:///session?socket={self._socket}"

    def wait(self) -> None:
        """Until it answers; UsageError: it does not."""
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._log.read_text(errors="replace").splitlines() or ["nothing"])[-1]
                raise UsageError(f"libvirt's daemon does not answer and says: {_WHENCE.sub('', said)}")
            time.sleep(PAUSE)

    def _listens(self) -> bool:
        """Its socket is there a moment before it listens."""
        with socket.socket(socket.AF_UNIX) as asked, suppress(OSError):
            asked.connect(str(self._socket))
            return True
        return False

    def pid_of(self, domain: str) -> int:
        """QEMU's; OSError or ValueError: there is none."""
        return int((self._folder / f"run/libvirt/qemu/run/{domain}.pid").read_text())

    def kill(self) -> None:
        """End it now; there is no domain any more, and its folder goes."""
        self._process.kill()
        self._process.wait()


def _needs_a_name() -> bool:
    """Of root, who would have a system's daemon, and of whom this machine does not know, who would have none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_uid == 0
    except KeyError:
        return True


def _be_nobody() -> None:
    """In the child: have nobody's name for our files, and no power over others'."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")
