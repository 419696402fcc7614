# SPDX-License-Identifier: Apache-2.0
"""From a machine file to a run of its guest, served by this process.

Law: what is asked for beside the machine file (another kernel, a longer time) replaces what the file says; nothing
is decided twice.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vhost_iommu.config import GICS, MachineConfig, load_machine, with_faults
from vhost_iommu.daemon import Daemon
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import devicetree, linux, qemu
from vhost_iommu.guest.account import Account, Ledger
from vhost_iommu.guest.assets import FLAVOURS, Assets
from vhost_iommu.guest.build import Toolchain
from vhost_iommu.guest.folder import control_socket
from vhost_iommu.guest.ktap import Ktap, Result
from vhost_iommu.guest.mapping import platform_of, wires_of
from vhost_iommu.guest.page import report_page
from vhost_iommu.guest.payload import LinuxGuest
from vhost_iommu.guest.platform import Platform
from vhost_iommu.guest.recording import Recording
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.run import BareGuest, GuestRun, Options
from vhost_iommu.guest.timeline import Timeline
from vhost_iommu.guest.verdict import Contract
from vhost_iommu.lab.faults import Fault
from vhost_iommu.trace import Trace
from vhost_iommu.watch import Watcher

#: Names of a trace in a run's folder, by its form.
TRACES = {"text": "trace.txt", "json": "trace.json"}
#: Characters that are shown of a live guest's command.
_SHOWN = 60


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
    headers: Path | None = None  #: where to build modules for the kernel
    modules: tuple[Path, ...] = ()  #: more kernel modules, inserted after the kernel's own
    initrd_extra: tuple[Path, ...] = ()  #: archives that are unpacked over the initial RAM file system
    own_cases: tuple[str, ...] = ()  #: NAME=LINE: more cases, each a line for the guest's shell
    faults: tuple[Fault, ...] = ()  #: beside the machine file's
    cases: tuple[str, ...] = ()  #: patterns of the cases to run; none: all
    launcher: str = "qemu"  #: who starts QEMU
    gic: int | None = None  #: version of the interrupt controller
    accelerator: str = "tcg"  #: or "kvm": the guest runs on this machine's CPUs
    traced: str | None = None  #: a trace in the run's folder: "text", or "json" for a viewer
    live: bool = False  #: Linux runs no cases: it does what it is asked while it runs


class Launch:
    """One run of a machine's guest; afterwards ``daemon`` can be asked what the models did."""

    def __init__(
        self,
        config: MachineConfig,
        wishes: Wishes | None = None,
        *,
        trace: Trace | None = None,
        watchers: Sequence[Watcher] = (),
        assets: Assets | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """UsageError: a wish does not fit the machine."""
        wishes = wishes or Wishes()
        config = with_faults(config, wishes.faults)
        if wishes.gic is not None:
            if wishes.gic not in GICS:
                raise UsageError(f"there is no GICv{wishes.gic} here; take {' or '.join(map(str, GICS))}")
            config = replace(config, guest=replace(config.guest, gic=wishes.gic))
        self.config = config
        self.platform = platform_of(config)
        self.daemon: Daemon | None = None
        self._ledger: Ledger | None = None
        self._trace = trace
        self._traced = wishes.traced
        if self._traced not in (None, *TRACES):
            raise UsageError(f"{self._traced!r} is no form of a trace; take {' or '.join(TRACES)}")
        self._watchers = watchers
        self._live = wishes.live
        self._timeline = Timeline(self._counters)
        self._on_line = on_line
        self.guest_run = GuestRun(
            _guest(config, wishes),
            self.platform,
            self._serve,
            options=Options(
                hardware=_hardware(config, wishes),
                timeout=wishes.timeout or config.guest.timeout,
                contract=_contract(config, wishes),
                keep=wishes.keep,
                qemu=wishes.qemu,
                extra=wishes.extra,
                launcher=wishes.launcher,
                name=config.name,
            ),
            assets=assets,
            on_line=self.heard,
            on_note=on_note,
            account=self.account,
            on_report=self.write_page,
        )
        if wishes.kernel is not None and wishes.kernel in FLAVOURS and Path(wishes.kernel).exists():
            self.guest_run.note(f"{wishes.kernel} is Debian's kernel; write ./{wishes.kernel} for what lies here")

    def run(self) -> Report:
        """As GuestRun.run."""
        return self.guest_run.run()

    def close(self) -> None:
        """Close the disks, which can be read until then, and a trace of the run's own."""
        if self.daemon is not None:
            self.daemon.machine.close()
        if self._traced is not None and self._trace is not None:
            self._trace.close()

    def account(self, ktap: Ktap) -> Account:
        """What the models did."""
        if self.daemon is None or self._ledger is None:
            return Account()
        return Account.of(self.daemon.machine, self._ledger, ktap)

    def _serve(self, folder: Path) -> Daemon:
        if self._traced is not None:
            assert self.guest_run.folder is not None
            self._trace = Trace.file(self.guest_run.folder / TRACES[self._traced])
        self.daemon = Daemon(
            self.config,
            folder,
            wires=wires_of(self.platform),
            trace=self._trace,
            watchers=self._watchers,
            keep_disks=True,
            control=control_socket(self.config.name),
            live=self._live,
        )
        self._timeline.begin()
        self.daemon.machine.attach(self._timeline)
        self._ledger = Ledger(self.daemon.machine.smmus, self.daemon.machine.watches)
        return self.daemon

    def heard(self, line: str) -> None:
        """The guest's console says this."""
        before = self._timeline.told
        result = self._timeline.line(line)
        if self._trace is not None:
            self._trace.said(line)
            if result is not None:
                self._trace.case(result.name, result.outcome, before, self._timeline.told)
        self._on_line(line)

    def did(self, what: str, *, passed: bool = True) -> None:
        """A live guest has done this."""
        before, result = self._timeline.told, Result(textwrap.shorten(what, _SHOWN, placeholder="…"), passed)
        self._timeline.did(result)
        if self._trace is not None:
            self._trace.case(result.name, result.outcome, before, self._timeline.told)

    def _counters(self) -> Mapping[str, Any]:
        return {} if self.daemon is None else {name: s.counters for name, s in self.daemon.machine.smmus.items()}

    def write_trace(self, folder: Path, recorded: Recording | None) -> None:
        """trace.txt of a guest that was not traced: the last recording, or what was reported where there is none."""
        if self._trace is None:
            text = "".join(f"{each.seconds:.6f} {each.who} {each.text}\n" for each in self._timeline.moments)
            (folder / TRACES["text"]).write_text(text if recorded is None else recorded.text, encoding="utf-8")

    def write_page(self, report: Report, folder: Path, recorded: Recording | None = None) -> None:
        """report.html, of what came of a run."""
        text = report_page(report, self._timeline, self.config.name, folder / "dump", recorded)
        (folder / "report.html").write_text(text, encoding="utf-8")


def run(
    machine: str | Path | MachineConfig,
    *,
    kernel: str | Path | None = None,
    append: str | None = None,
    cases: Sequence[str] = (),
    elf: str | Path | None = None,
    faults: Sequence[str | Fault] = (),
    success: str | None = None,
    failure: str | None = None,
    exit_only: bool | None = None,
    timeout: float | None = None,
    keep: str | Path | None = None,
    launcher: str = "qemu",
    gic: int | None = None,
    accel: str = "tcg",
    trace: str | None = None,
) -> Report:
    """Run the guest of ``machine`` to its end, as ``vhost-iommu run`` does; what came of it.

    ``trace``: "text" or "json", in its folder.

    UsageError: something of it cannot be had.
    """
    launch = _launch(
        machine,
        kernel=_text(kernel),
        append=append,
        cases=tuple(cases),
        elf=_text(elf),
        faults=tuple(each if isinstance(each, Fault) else Fault.parse(each) for each in faults),
        success=success,
        failure=failure,
        exit_only=exit_only,
        timeout=timeout,
        keep=None if keep is None else Path(keep),
        launcher=launcher,
        gic=gic,
        accelerator=accel,
        traced=trace,
    )
    with closing(launch):
        return launch.run()


def cases_of(machine: str | Path | MachineConfig, **wishes: Any) -> list[str]:
    """The cases that ``run`` would run, by name; nothing is started."""
    with closing(_launch(machine, **wishes)) as launch:
        return [name for name, _ in launch.guest_run.cases()]


def _launch(machine: str | Path | MachineConfig, **wishes: Any) -> Launch:
    config = machine if isinstance(machine, MachineConfig) else load_machine(str(machine))
    return Launch(config, Wishes(**wishes))


def _text(given: str | Path | None) -> str | None:
    return None if given is None else str(given)


def hardware_of(config: MachineConfig) -> qemu.Hardware:
    """What QEMU itself emulates of the machine."""
    guest = config.guest
    return qemu.Hardware(guest.memory >> 20, guest.cpu, guest.smp, guest.virtualization, guest.gic)


def _hardware(config: MachineConfig, wishes: Wishes) -> qemu.Hardware:
    return replace(hardware_of(config), agent=wishes.live).accelerated(wishes.accelerator)


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
        _leave_out(wishes, _LINUX_ONLY, f"{config.name} runs a bare-metal program", "or name another machine")
        elf = wishes.elf or config.guest.elf or ""
        return BareGuest(_program(elf, Path.cwd() if wishes.elf else config.path.parent), append, wishes.cases)
    if wishes.elf is not None:
        raise UsageError(f"{config.name} runs Linux; leave --elf out, or name another machine")
    if wishes.initrd is not None:
        _leave_out(wishes, _OUR_INITRD, "a file system of yours runs what it likes", "or --initrd")
    elif any(word.startswith("cases=") for word in append.split()):
        raise UsageError("Linux has no parameter 'cases'; choose cases with --cases")
    return LinuxGuest(
        _kernel(wishes.kernel, Path.cwd()) if wishes.kernel else _kernel(config.guest.kernel, config.path.parent),
        append=append,
        initrd=wishes.initrd,
        headers=wishes.headers,
        own_modules=wishes.modules,
        own_cases=tuple(map(linux.shell_case, wishes.own_cases)),
        extra=wishes.initrd_extra,
        chosen=wishes.cases,
        live=wishes.live,
    )


#: Options by the wishes that they are: for Linux, and for the initial RAM file system that we make.
_OUR_INITRD = {"headers": "--headers", "modules": "--module", "own_cases": "--case", "cases": "--cases"}
_LINUX_ONLY = {
    "kernel": "--kernel",
    "initrd": "--initrd",
    "initrd_extra": "--initrd-extra",
    **{name: option for name, option in _OUR_INITRD.items() if name != "cases"},
}


def _leave_out(wishes: Wishes, options: Mapping[str, str], why: str, otherwise: str) -> None:
    for name, option in options.items():
        if getattr(wishes, name):
            raise UsageError(f"{why}; leave {option} out, {otherwise}")


def _kernel(text: str, folder: Path) -> Path | str:
    """A Debian flavour that is fetched, or else a path; one of a flavour's name is written with ./ before it."""
    if text in FLAVOURS:
        return text
    path = folder / text
    if "/" not in text and not path.exists():
        near = difflib.get_close_matches(text, FLAVOURS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"take one of {', '.join(FLAVOURS)}, or the path of a kernel"
        raise UsageError(f"there is no kernel {text!r}, neither as a file or folder nor in Debian; {hint}")
    return path


def _program(text: str, folder: Path) -> Path | str:
    """A path when it looks like one or is one, else the name of a program of guest/bare."""
    path = folder / text
    return path if "/" in text or path.is_file() else text
