# SPDX-License-Identifier: Apache-2.0
"""No guest at all: the test is the machine's CPU, and stores and loads as a driver would.

Law: a store has had its whole effect when it returns: masters have done their work, commands are consumed, whichever
``Reach`` it went by. Addresses are those that a guest has.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vhost_iommu.bench import MachineBench
from vhost_iommu.config import MachineConfig, load_machine, with_faults
from vhost_iommu.daemon import Daemon
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.client import PATIENCE, Client, LostError
from vhost_iommu.guest.folder import RunFolder, control_socket
from vhost_iommu.guest.live import GuestError, NeverStruckError
from vhost_iommu.guest.mapping import platform_of, wires_of
from vhost_iommu.guest.platform import COMMAND_MASTER, COMMAND_MEMORY, PCI_COMMAND, RAM, Platform
from vhost_iommu.guest.recording import Recording
from vhost_iommu.lab.control import Control
from vhost_iommu.lab.faults import Fault, Injection
from vhost_iommu.layout import Layout, Register
from vhost_iommu.machine import Machine
from vhost_iommu.memory import Ended, Memory, Window
from vhost_iommu.trace import Trace
from vhost_iommu.watch import ALL, Kind

#: The region of a function's configuration space (vfio-user).
_CONFIGURATION = 7


class SessionError(GuestError):
    """The session with a PCI function is over, or it does not answer."""

    whose = "the machine's, or of a fault that was asked for"


class Interrupt(NamedTuple):
    """A write to what is no memory, as an interrupt is one."""

    who: str  #: the PCI function that sent it
    source: str | None  #: of a wired one whose it is: "eventq", or the master's name; None: a message
    address: int
    value: int


class Reach(Protocol):
    """How stores and loads come to the machine: to its ``functions``, by their numbers."""

    machine: Machine
    ram: Memory
    inside: Control
    #: What was written beside RAM, by the number of the function: (number, address, data).
    written: list[tuple[int, int, bytes]]

    def read(self, function: int, region: int, offset: int, size: int) -> bytes: ...

    def write(self, function: int, region: int, offset: int, data: bytes) -> None: ...

    def reset(self, function: int) -> None: ...

    def settle(self) -> None:
        """Wait for what has been begun."""

    def close(self) -> None: ...


class ByLibrary:
    """Calls of the machine's own functions, in the caller's thread: nothing is ever left to wait for."""

    def __init__(self, config: MachineConfig, platform: Platform, trace: Trace | None) -> None:
        watchers = () if trace is None else (trace,)
        self.machine = Machine(config, wires=wires_of(platform), clock=time.monotonic, watchers=watchers)
        self.inside = Control(MachineBench(self.machine, lambda: time.strftime("%Y-%m-%d %H:%M:%S %z")))
        self.written: list[tuple[int, int, bytes]] = []
        ram = bytearray(config.guest.memory)
        self.ram = Memory((RAM, ram))
        for number, function in enumerate(self.machine.functions):
            function.memory.add(Window(RAM, len(ram), ram))
            function.memory.outside = self._outside(number)

    def _outside(self, number: int) -> Any:
        function = self.machine.functions[number]

        def write(address: int, data: bytes, ended: Ended) -> bool:
            if not function.bus_master:
                return False
            self.written.append((number, address, data))
            ended(False)
            return True

        return write

    def read(self, function: int, region: int, offset: int, size: int) -> bytes:
        return self.machine.functions[function].read(region, offset, size)

    def write(self, function: int, region: int, offset: int, data: bytes) -> None:
        self.machine.functions[function].write(region, offset, data)

    def reset(self, function: int) -> None:
        self.machine.functions[function].reset()

    def settle(self) -> None:
        pass

    def close(self) -> None:
        self.machine.stop()
        self.machine.watches.flush()
        self.machine.close()


class BySession:
    """As QEMU does: a daemon serves the machine, each function at a socket, and RAM is a memfd that it is lent."""

    def __init__(self, config: MachineConfig, platform: Platform, trace: Trace | None) -> None:
        self.written: list[tuple[int, int, bytes]] = []
        with contextlib.ExitStack() as stack:
            folder = RunFolder()
            stack.callback(folder.close, failed=False)
            memory = os.memfd_create("ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            stack.callback(os.close, memory)
            os.truncate(memory, config.guest.memory)
            self.ram = Memory()
            stack.callback(self.ram.clear)
            self.ram.map_fd(RAM, config.guest.memory, memory, 0, readable=True, writable=True)
            control = control_socket(config.name)
            self._daemon = Daemon(
                config, folder.path, wires=wires_of(platform), trace=trace, control=control, live=True
            )
            self._clients: list[Client] = []
            stack.callback(self._let_go)
            stack.callback(self._daemon.stop)
            self.machine = self._daemon.machine
            self.inside = self._daemon.control()
            # Threads are made before the server starts; what they listen to comes with its sockets.
            listeners = [
                self._daemon.server.worker(f"{each.name} cpu", self._listen(number))
                for number, each in enumerate(self.machine.functions)
            ]
            self._daemon.start()
            for number, function in enumerate(self.machine.functions):
                client = Client(function.name, Path(self._daemon.sockets[number]), self._heard(number))
                stack.callback(client.hang_up)
                self._clients.append(client)
                listeners[number].wake()
            for client in self._clients:
                with _told():
                    client.begin(RAM, config.guest.memory, memory)
            self._stack = stack.pop_all()

    def _listen(self, number: int) -> Any:
        return lambda: self._clients[number].listen()

    def _heard(self, number: int) -> Any:
        return lambda address, data: self.written.append((number, address, data))

    def read(self, function: int, region: int, offset: int, size: int) -> bytes:
        with _told():
            return self._clients[function].read(region, offset, size)

    def write(self, function: int, region: int, offset: int, data: bytes) -> None:
        with _told():
            self._clients[function].write(region, offset, data)

    def reset(self, function: int) -> None:
        with _told():
            self._clients[function].reset()

    def settle(self) -> None:
        """A read that is answered comes behind the writes before it, and what it finds was sent before its answer."""
        until = time.monotonic() + PATIENCE
        while True:
            came = len(self.written)
            self._catch_up()
            idle = self._daemon.settle()
            self._catch_up()
            if (idle and len(self.written) == came) or time.monotonic() > until:
                return

    def _catch_up(self) -> None:
        for number in range(len(self._clients)):
            self.read(number, _CONFIGURATION, 0, 4)

    def _let_go(self) -> None:
        for client in self._clients:
            client.close()

    def close(self) -> None:
        self._stack.close()
        if self._daemon.failure is not None:
            raise self._daemon.failure


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except LostError as lost:
        raise SessionError(str(lost)) from None


class Cpu:
    """From ``without_guest``."""

    def __init__(self, config: MachineConfig, platform: Platform, reach: Reach) -> None:
        self._platform, self._reach = platform, reach
        self.machine: Machine = reach.machine
        #: As of a Guest: the context of a stream, its tables, TLBs, queues, ``explain``; and ``dump``.
        self.inside: Control = reach.inside
        #: Where it begins, in memory that all share.
        self.ram = range(RAM, RAM + config.guest.memory)
        #: Of the windows of SMMUs and masters: number of the function, BAR, where it is.
        self._windows = [
            (number, bar, window)
            for number, placed in enumerate(platform.functions)
            for bar, window in ((0, placed.bar0), (2, placed.bar2))
            if window is not None
        ]
        self._sources = {
            (address, value): source or device for (device, source), (address, value) in wires_of(platform).items()
        }
        self._enable()

    def _enable(self) -> None:
        """Each function takes accesses, and makes its own."""
        command = (COMMAND_MEMORY | COMMAND_MASTER).to_bytes(2, "little")
        for number in range(len(self._platform.functions)):
            self._reach.write(number, _CONFIGURATION, PCI_COMMAND, command)

    # -- memory and registers --------------------------------------------------------------------------------------

    def load(self, address: int, size: int = 4) -> int:
        """Of memory, or of a register; UsageError: nothing is there."""
        return int.from_bytes(self.load_bytes(address, size), "little")

    def load_bytes(self, address: int, size: int) -> bytes:
        """Likewise, as they are."""
        if address in self.ram:
            data = self._reach.ram.read(address, size)
            if data is None:
                raise UsageError(f"{address:#x}+{size:#x} leaves memory, which ends at {self.ram.stop:#x}")
            return data
        return self._reach.read(*self._find(address), size)

    def store(self, address: int, value: int | bytes | Layout, size: int = 4) -> None:
        """Likewise; bytes, and structures such as an STE, are as long as they are."""
        data = (
            value if isinstance(value, bytes) else
            value.to_bytes() if isinstance(value, Layout) else value.to_bytes(size, "little")
        )  # fmt: skip
        if address in self.ram:
            if not self._reach.ram.write(address, data):
                raise UsageError(f"{address:#x}+{len(data):#x} leaves memory, which ends at {self.ram.stop:#x}")
            return
        self._reach.write(*self._find(address), data)
        self._reach.settle()

    def address(self, who: str, register: type[Register] | None = None, copy: int = 0) -> int:
        """Where an SMMU's or a master's registers are, or one of them."""
        for smmu, window, _ in self._platform.smmus:
            if smmu.name == who:
                base = window.base
                break
        else:
            try:
                base = self._platform.placed(who).window.base
            except KeyError:
                names = ", ".join([*self.machine.smmus, *self.machine.masters])
                raise UsageError(f"the machine has no {who!r}; it has {names}") from None
        return base if register is None else base + register.at + copy * register.stride

    def read(self, who: str, register: type[Register], copy: int = 0) -> int:
        """A register, by its name."""
        return self.load(self.address(who, register, copy), register.size)

    def write(self, who: str, register: type[Register], value: int | Layout, copy: int = 0) -> None:
        """Likewise."""
        raw = value.raw if isinstance(value, Layout) else value
        self.store(self.address(who, register, copy), raw, register.size)

    def reset(self) -> None:
        """All of the machine is as after power-on; memory stays."""
        for number in range(len(self._platform.functions)):
            self._reach.reset(number)
        self._enable()
        self._reach.settle()

    def _find(self, address: int) -> tuple[int, int, int]:
        for number, bar, window in self._windows:
            if window.base <= address < window.end:
                return number, bar, address - window.base
        raise UsageError(f"nothing is at {address:#x}; memory begins at {RAM:#x}, and address() says where the rest is")

    # -- what happens ----------------------------------------------------------------------------------------------

    def interrupts(self) -> list[Interrupt]:
        """Those that came since they were asked for last, in order. A message to memory is there, and is none."""
        self._reach.settle()
        came, self._reach.written = self._reach.written, []
        found = []
        for number, address, data in came:
            value = int.from_bytes(data, "little")
            name = self._platform.functions[number].name
            found.append(Interrupt(name, self._sources.get((address, value)), address, value))
        return found

    @contextlib.contextmanager
    def recording(self, wants: Kind = ALL & ~Kind.USED) -> Iterator[Recording]:
        """What SMMUs and masters do meanwhile, as of a Guest."""
        self._reach.settle()
        with self.machine.recording(wants) as watched:
            yield Recording(watched)
            self._reach.settle()

    @contextlib.contextmanager
    def fault(self, fault: str | Fault, *, may_miss: bool = False, **parameters: Any) -> Iterator[Injection]:
        """Have the machine be wrong meanwhile, as of a Guest."""
        asked = fault if isinstance(fault, Fault) else Fault(fault, **parameters)
        with self.machine.lab.armed(asked) as injection:
            yield injection
            self._reach.settle()
        if not injection.struck and not may_miss:
            raise NeverStruckError(f"the fault '{asked}' never struck; have it strike, or say may_miss=True")


@contextlib.contextmanager
def without_guest(
    machine: str | Path | MachineConfig,
    *,
    session: bool = False,
    faults: Sequence[str | Fault] = (),
    trace: Trace | None = None,
) -> Iterator[Cpu]:
    """The machine, with the test as its CPU. ``session``: by vfio-user, as QEMU has it, with a control socket; else by
    calls of the library. UsageError: the machine cannot be made.
    """
    config = machine if isinstance(machine, MachineConfig) else load_machine(str(machine))
    config = with_faults(config, tuple(each if isinstance(each, Fault) else Fault.parse(each) for each in faults))
    platform = platform_of(config)
    reach: Reach = (BySession if session else ByLibrary)(config, platform, trace)
    try:
        yield Cpu(config, platform, reach)
    finally:
        reach.inside.close()
        reach.close()
