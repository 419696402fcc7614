# SPDX-License-Identifier: Apache-2.0
"""From a machine file to a run of its guest, served by this process.

Law: what is asked for beside the machine file (another kernel, a longer time) replaces what the file says; nothing
is decided twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vhost_iommu.config import MachineConfig
from vhost_iommu.daemon import Daemon
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import devicetree, qemu
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.build import Toolchain
from vhost_iommu.guest.mapping import platform_of, wires_of
from vhost_iommu.guest.platform import Platform
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.run import BareGuest, GuestRun, LinuxGuest, Options
from vhost_iommu.guest.verdict import Contract
from vhost_iommu.trace import Trace


@dataclass(frozen=True)
class Wishes:
    """What is asked for beside the machine file; None: as the file says."""

    kernel: str | None = None  #: a path, or a flavour that assets fetches
    initrd: Path | None = None
    append: str | None = None  #: more of a kernel's command line, or a program's arguments
    elf: str | None = None
    qemu: Path | None = None
    timeout: float | None = None  #: seconds for the whole run; infinite: without end
    success: str | None = None
    failure: str | None = None
    exit_only: bool | None = None
    keep: Path | None = None
    extra: tuple[str, ...] = ()  #: further arguments of QEMU


class Launch:
    """One run of a machine's guest; afterwards ``daemon`` can be asked what the models did."""

    def __init__(
        self,
        config: MachineConfig,
        wishes: Wishes | None = None,
        *,
        trace: Trace | None = None,
        assets: Assets | None = None,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        """UsageError: a wish does not fit the machine."""
        wishes = wishes or Wishes()
        self.config = config
        self.platform = platform_of(config)
        self.daemon: Daemon | None = None
        self._trace = trace
        self.guest_run = GuestRun(
            _guest(config, wishes),
            self.platform,
            self._serve,
            options=Options(
                hardware=hardware_of(config),
                timeout=wishes.timeout or config.guest.timeout,
                contract=_contract(config, wishes),
                keep=wishes.keep,
                qemu=wishes.qemu,
                extra=wishes.extra,
            ),
            assets=assets,
            on_line=on_line,
        )

    def run(self) -> Report:
        """As GuestRun.run."""
        return self.guest_run.run()

    def close(self) -> None:
        """Close the disks, which can be read until then."""
        if self.daemon is not None:
            self.daemon.machine.close()

    def _serve(self, folder: Path) -> Daemon:
        self.daemon = Daemon(self.config, folder, wires=wires_of(self.platform), trace=self._trace, keep_disks=True)
        return self.daemon


def hardware_of(config: MachineConfig) -> qemu.Hardware:
    """What QEMU itself emulates of the machine."""
    return qemu.Hardware(config.guest.memory >> 20, config.guest.cpu, config.guest.smp)


def device_tree(config: MachineConfig, assets: Assets, named_qemu: Path | None = None) -> bytes:
    """The device tree with which a guest finds the machine."""
    platform: Platform = platform_of(config)
    made = qemu.dump_device_tree(assets.qemu(named_qemu), hardware_of(config), Toolchain(assets).folder)
    return devicetree.add_machine(made, platform)


def _contract(config: MachineConfig, wishes: Wishes) -> Contract:
    """How the guest passes; one way that is wished for replaces the machine file's other one."""
    guest = config.guest
    exit_only, success = wishes.exit_only, wishes.success
    if success is None and not exit_only:
        success, exit_only = guest.success, guest.exit_only
    return Contract(success, guest.failure if wishes.failure is None else wishes.failure, bool(exit_only))


def _guest(config: MachineConfig, wishes: Wishes) -> LinuxGuest | BareGuest:
    append = " ".join(text for text in (config.guest.append, wishes.append) if text)
    if config.guest.kind == "bare":
        for name in ("kernel", "initrd"):
            if getattr(wishes, name) is not None:
                raise UsageError(
                    f"{config.name} runs a bare-metal program; leave --{name} out, or name another machine"
                )
        return BareGuest(_path_or_name(wishes.elf, Path.cwd()) or _named(config, config.guest.elf or ""), append)
    if wishes.elf is not None:
        raise UsageError(f"{config.name} runs Linux; leave --elf out, or name another machine")
    kernel = _path_or_name(wishes.kernel, Path.cwd()) or _named(config, config.guest.kernel)
    return LinuxGuest(kernel, append=append, initrd=wishes.initrd)


def _named(config: MachineConfig, name: str) -> Path | str:
    """Paths in a machine file are relative to it."""
    return _path_or_name(name, config.path.parent) or name


def _path_or_name(text: str | None, folder: Path) -> Path | str | None:
    """A path when it looks like one or is one, else the name it is."""
    if text is None:
        return None
    path = folder / text
    return path if "/" in text or path.is_file() else text
