# SPDX-License-Identifier: Apache-2.0
"""QEMU: its command line, and a process that cannot outlive us.

Law: the line is a value computed from other values, whole and in order; only the process that was started here is
ended here. Guest RAM is a shared memfd, without which a vfio-user server sees none of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.assets import QEMU, Qemu
from vhost_iommu.guest.monitor import Monitor

#: A core that every kernel since 6.1 knows, that has 4K, 16K and 64K pages, and that TCG runs quickly.
CPU = "cortex-a76"
MEMORY = 512
#: Cores whose ID_AA64MMFR0_EL1.TGran16 says that they have no 16K pages: such a kernel ends before it says a word.
WITHOUT_16K = ("cortex-a53", "cortex-a57", "cortex-a72")
#: What may run the guest's instructions.
ACCELERATORS = ("tcg", "kvm")
_KVM = "/dev/kvm"
#: Milliseconds that QEMU waits for an answer; afterwards a late answer breaks the connection.
MESSAGE_TIMEOUT = 60_000
#: Seconds that QEMU has to end by itself when asked to.
GRACE = 3.0

#: What we call the character devices that are ours alone.
_MONITOR, _DEBUGGER, _AGENT = "vi-monitor", "vi-debugger", "vi-agent"

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Hardware:
    """The part of the machine that QEMU itself emulates."""

    memory: int = MEMORY  #: MiB
    cpu: str = CPU
    smp: int = 1
    virtualization: bool = False  #: the CPUs have EL2, and begin there
    gic: int = 2  #: version of the interrupt controller
    accelerator: str = "tcg"  #: or "kvm"
    agent: bool = False  #: a second serial port, on which a live guest is asked for things

    def options(self) -> list[str]:
        """Of the machine, beside its interrupt controller and its memory."""
        # A GICv3 would have an ITS in the place of the frame whose doorbell our wires write to.
        frame = ["msi=gicv2m"] * (self.gic == 3)
        return ["dtb-randomness=off", *frame, *["virtualization=on"] * self.virtualization]

    def arguments(self, *machine_options: str) -> list[str]:
        machine = ["virt", f"gic-version={self.gic}", "memory-backend=ram", *self.options(), *machine_options]
        return [
            "-M", ",".join(machine), "-cpu", self.cpu, "-smp", str(self.smp), "-m", f"{self.memory}M",
            "-object", f"memory-backend-memfd,id=ram,size={self.memory}M,share=on",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            *(["-accel", self.accelerator] if self.accelerator != "tcg" else []),
        ]  # fmt: skip

    def accelerated(self, accelerator: str) -> Hardware:
        """The same by "tcg", or by "kvm", whose CPUs are this machine's; UsageError: it has none for such a guest."""
        match accelerator, os.uname().machine:
            case "tcg", _:
                return self
            case "kvm", "aarch64":
                if not os.path.exists(_KVM):
                    raise UsageError(f"this machine has no {_KVM}; enable KVM in its kernel, or take TCG")
                if not os.access(_KVM, os.R_OK | os.W_OK):
                    raise UsageError(f"{_KVM} is not yours to write; join the group that owns it, or take TCG")
                return replace(self, accelerator="kvm", cpu="host")
            case "kvm", other:
                raise UsageError(f"KVM runs an arm64 guest on an arm64 machine, and this one is {other}; take TCG")
        raise UsageError(f"there is no accelerator {accelerator!r}; take one of {', '.join(ACCELERATORS)}")


@dataclass(frozen=True)
class Command:
    """All that QEMU is given, but for how we reach it: what launchers start."""

    program: tuple[str, ...]  #: QEMU, and what comes before all arguments
    hardware: Hardware
    kernel: Path
    initrd: Path | None = None
    append: str | None = None
    dtb: Path | None = None
    devices: tuple[str, ...] = ()  #: as arguments
    extra: tuple[str, ...] = ()  #: the operator's arguments
    name: str = "guest"  #: for people, where a launcher has names

    @property
    def paused(self) -> bool:
        """Whether the guest waits for somebody to let it begin."""
        return "-S" in self.extra

    def arguments(self) -> list[str]:
        """The whole line, with the first serial port on QEMU's own input and output."""
        boot = ["-kernel", str(self.kernel)]
        for option, value in (("-initrd", self.initrd), ("-append", self.append), ("-dtb", self.dtb)):
            boot += [option, str(value)] if value is not None else []
        serial = ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
        return [*self.program, *self.hardware.arguments(), *serial, *boot, *self.devices, *self.extra]


def own_line(qemu: Qemu | None, hardware: Hardware, sockets: Sequence[tuple[Path, int]]) -> list[str]:
    """A whole line for a program of one's own that finds the functions at ``sockets`` (path, slot) in its guest."""
    start = qemu.command if qemu is not None else (QEMU,)
    devices = [argument for path, slot in sockets for argument in vfio_user(path, slot)]
    return [*start, *hardware.arguments(), "-serial", "mon:stdio", *devices, "-kernel", "YOUR.elf"]


def vfio_user(path: Path, slot: int) -> list[str]:
    """The PCI function that is served at the socket ``path``, as device ``slot`` of bus 0."""
    device = {
        "driver": "vfio-user-pci",
        "socket": {"type": "unix", "path": str(path)},
        "bus": "pcie.0",
        "addr": f"{slot:x}",
        "x-msg-timeout": MESSAGE_TIMEOUT,
    }
    return ["-device", json.dumps(device)]


def loader(path: Path, address: int) -> list[str]:
    """Bytes of a file in guest RAM, also after a reset."""
    return ["-device", f"loader,file={_escaped(path)},addr={address:#x},force-raw=on"]


def disk(path: Path, serial: str) -> list[str]:
    """QEMU's own virtio disk, behind no SMMU: what ours is compared with."""
    return [
        "-global", "virtio-mmio.force-legacy=false",
        "-drive", f"if=none,id={serial},format=raw,file={_escaped(path)}",
        "-device", f"virtio-blk-device,drive={serial},serial={serial}",
    ]  # fmt: skip


def refuse(extra: Sequence[str]) -> None:
    """UsageError: an argument of the operator's is for what the machine file says."""
    if "-m" in extra:
        raise UsageError("-m is QEMU's word for 'memory' in [guest] of the machine file; set it there and leave -m out")


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def dump_device_tree(qemu: Qemu, hardware: Hardware, cache: Path) -> bytes:
    """The device tree that QEMU makes for ``hardware``; kept in ``cache`` by QEMU's version and arguments."""
    ports = ["-serial", "null"] * (1 + hardware.agent)
    arguments = [*hardware.arguments(), *ports]
    name = hashlib.sha256(repr((qemu.version, qemu.command, arguments)).encode()).hexdigest()[:16]
    final = cache / f"virt-{name}.dtb"
    with contextlib.suppress(FileNotFoundError):
        return final.read_bytes()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as new:
        made = Path(new) / "virt.dtb"
        command = [*qemu.command, *hardware.arguments(f"dumpdtb={_escaped(made)}"), *ports]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode or not made.exists():
            said = (done.stderr.splitlines() or ["nothing"])[-1]
            raise UsageError(f"QEMU makes no such machine and says: {said}; correct memory, cpu, smp or gic")
        os.replace(made, final)
    return final.read_bytes()


def _die_with(parent: int) -> None:
    """In the child: be killed when the thread that started us ends, even by SIGKILL."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(127)


def _private(monitor: int, debugger: int, agent: int | None) -> list[str]:
    """A monitor, and a place for a gdb stub, at descriptors that nobody else has; the guest waits for the monitor.
    ``agent`` is that of its second serial port, if it has one.
    """
    second = [] if agent is None else ["-chardev", f"socket,id={_AGENT},fd={agent}", "-serial", f"chardev:{_AGENT}"]
    return [
        *second,
        "-chardev", f"socket,id={_MONITOR},fd={monitor}", "-qmp", f"chardev:{_MONITOR}",
        "-chardev", f"socket,id={_DEBUGGER},fd={debugger}", "-S",
    ]  # fmt: skip


class Process:
    """A running QEMU. Start it from a thread that lives as long as the guest shall: it dies with that thread."""

    def __init__(self, command: Sequence[str], errors: Path, *, agent: bool = False) -> None:
        """UsageError: it cannot be started. ``errors`` receives what QEMU itself says. ``agent``: the guest has a
        second serial port. It waits for ``monitor.start``.
        """
        ours, theirs = socket.socketpair()
        asking, asked = socket.socketpair()
        monitor, monitored = socket.socketpair()
        #: Our end of a gdb stub, which ``debugged`` starts.
        self.debugger, debugged = socket.socketpair()
        self.monitor = Monitor(monitor)
        private = (monitored.fileno(), debugged.fileno(), asked.fileno())
        parent = os.getpid()
        #: Our end of the guest's second serial port, where it has one.
        self.agent = asking
        with theirs, monitored, debugged, asked, errors.open("wb") as file:
            try:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    [*command, *_private(*private[:2], private[2] if agent else None)],
                    pass_fds=private,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=file,
                    preexec_fn=lambda: _die_with(parent),
                    start_new_session=True,  # the terminal's Ctrl-C is for us alone
                )
            except OSError as why:
                ours.close()
                self.close()
                raise UsageError(f"{command[0]} does not start: {why.strerror}; name another QEMU") from None
        #: Our end of the guest's serial port; the caller's to close.
        self.console = ours

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends by itself in that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.running

    def debugged(self, seconds: float) -> bool:
        """Have ``debugger`` speak with QEMU's gdb stub, which stops the guest; whether QEMU does so in time."""
        return self.monitor.debugged(_DEBUGGER, seconds)

    def close(self) -> None:
        """Our ends of what is private; the console is the caller's."""
        self.agent.close()
        self.monitor.close()
        self.debugger.close()

    def end(self) -> int:
        """Wait a moment for it to end, else end it; its exit status, negative for a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(GRACE)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(GRACE)
        return self.kill()

    def kill(self) -> int:
        """End it now; its exit status."""
        self._process.kill()
        return self._process.wait()
