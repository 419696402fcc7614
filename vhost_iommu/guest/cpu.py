# SPDX-License-Identifier: Apache-2.0
"""No guest at all: the test is the machine's CPU, and stores and loads as a driver would.

Law: a store has had its whole effect when it returns, in the caller's thread: masters have done their work, commands
are consumed. Addresses are those that a guest has.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vhost_iommu.bench import MachineBench
from vhost_iommu.config import MachineConfig, load_machine, with_faults
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.live import NeverStruckError
from vhost_iommu.guest.mapping import platform_of
from vhost_iommu.guest.platform import COMMAND_MASTER, COMMAND_MEMORY, PCI_COMMAND, RAM
from vhost_iommu.guest.recording import Recording
from vhost_iommu.lab.control import Queries
from vhost_iommu.lab.faults import Fault, Injection
from vhost_iommu.layout import Layout, Register
from vhost_iommu.machine import Machine
from vhost_iommu.memory import Memory, Window
from vhost_iommu.watch import ALL, Kind

#: The region of a function's configuration space (vfio-user).
_CONFIGURATION = 7


class Cpu:
    """From ``without_guest``."""

    def __init__(self, config: MachineConfig) -> None:
        self.machine = Machine(config, clock=time.monotonic)
        self._platform = platform_of(config)
        #: As of a Guest: the context of a stream, its tables, TLBs, queues, ``explain``.
        self.inside = Queries(MachineBench(self.machine, lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z")))
        ram = bytearray(config.guest.memory)
        self._ram = Memory((RAM, ram))
        #: Where it begins, in memory that all share.
        self.ram = range(RAM, RAM + len(ram))
        #: Of the windows of SMMUs and masters: function, BAR, where it is.
        self._windows = []
        for function, placed in zip(self.machine.functions, self._platform.functions, strict=True):
            function.memory.add(Window(RAM, len(ram), ram))
            command = (COMMAND_MEMORY | COMMAND_MASTER).to_bytes(2, "little")
            function.write(_CONFIGURATION, PCI_COMMAND, command)
            for bar, window in ((0, placed.bar0), (2, placed.bar2)):
                if window is not None:
                    self._windows.append((function, bar, window))

    # -- memory and registers --------------------------------------------------------------------------------------

    def load(self, address: int, size: int = 4) -> int:
        """Of memory, or of a register; UsageError: nothing is there."""
        if address in self.ram:
            data = self._ram.read(address, size)
            if data is None:
                raise UsageError(f"{address:#x}+{size:#x} leaves memory, which ends at {self.ram.stop:#x}")
        else:
            function, bar, offset = self._find(address)
            data = function.read(bar, offset, size)
        return int.from_bytes(data, "little")

    def store(self, address: int, value: int | bytes | Layout, size: int = 4) -> None:
        """Likewise; bytes, and structures such as an STE, are as long as they are."""
        data = (
            value if isinstance(value, bytes) else
            value.to_bytes() if isinstance(value, Layout) else value.to_bytes(size, "little")
        )  # fmt: skip
        if address in self.ram:
            if not self._ram.write(address, data):
                raise UsageError(f"{address:#x}+{len(data):#x} leaves memory, which ends at {self.ram.stop:#x}")
            return
        function, bar, offset = self._find(address)
        function.write(bar, offset, data)

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

    def _find(self, address: int) -> tuple[Any, int, int]:
        for function, bar, window in self._windows:
            if window.base <= address < window.end:
                return function, bar, address - window.base
        raise UsageError(f"nothing is at {address:#x}; memory begins at {RAM:#x}, and address() says where the rest is")

    # -- what happens ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def recording(self, wants: Kind = ALL & ~Kind.USED) -> Iterator[Recording]:
        """What SMMUs and masters do meanwhile, as of a Guest."""
        with self.machine.recording(wants) as watched:
            yield Recording(watched)

    @contextlib.contextmanager
    def fault(self, fault: str | Fault, *, may_miss: bool = False, **parameters: Any) -> Iterator[Injection]:
        """Have the machine be wrong meanwhile, as of a Guest."""
        asked = fault if isinstance(fault, Fault) else Fault(fault, **parameters)
        with self.machine.lab.armed(asked) as injection:
            yield injection
        if not injection.struck and not may_miss:
            raise NeverStruckError(f"the fault '{asked}' never struck; have it strike, or say may_miss=True")


@contextlib.contextmanager
def without_guest(machine: str | Path | MachineConfig, *, faults: Sequence[str | Fault] = ()) -> Iterator[Cpu]:
    """The machine, with the test as its CPU. UsageError: the machine cannot be made."""
    config = machine if isinstance(machine, MachineConfig) else load_machine(str(machine))
    config = with_faults(config, tuple(each if isinstance(each, Fault) else Fault.parse(each) for each in faults))
    cpu = Cpu(config)
    try:
        yield cpu
    finally:
        cpu.inside.close()
        cpu.machine.stop()
        cpu.machine.close()
