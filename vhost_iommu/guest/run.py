# SPDX-License-Identifier: Apache-2.0
"""Runs a guest: prepares its files, serves its machine, starts QEMU, reads its console, and judges.

Law: only what the guest said counts. Passed: every promised test came and none failed. Whatever ends this process
ends QEMU, and nothing that a run leaves behind stops the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from vhost_iommu.errors import UsageError
from vhost_iommu.guest import bare, devicetree, qemu, shim
from vhost_iommu.guest.account import Account
from vhost_iommu.guest.assets import Assets, all_at_once
from vhost_iommu.guest.build import Toolchain
from vhost_iommu.guest.choice import comment_above
from vhost_iommu.guest.console import End
from vhost_iommu.guest.folder import RunFolder
from vhost_iommu.guest.kernel import KernelImage
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.launcher import Running, launcher_of
from vhost_iommu.guest.payload import LinuxGuest, Payload
from vhost_iommu.guest.platform import RAM, Platform
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.share import share
from vhost_iommu.guest.symbols import NONE, Symbols, of_elf, of_kernel
from vhost_iommu.guest.verdict import Contract, Verdict, judge, unstruck
from vhost_iommu.guest.watch import watch
from vhost_iommu.terminal import plain

#: For a panic to end QEMU at once instead of at the deadline.
APPEND = "console=ttyAMA0 panic=-1 oops=panic"
#: Seconds for QEMU to stop its CPUs.
_PAUSE = 5.0
#: QEMU puts the initial RAM file system at half of RAM, or here.
INITRD_OFFSET = 128 << 20


class Served(Protocol):
    """A machine whose PCI functions are served by threads of this process."""

    @property
    def sockets(self) -> Sequence[Path]:
        """One for each function of the platform, in its order."""

    @property
    def failure(self) -> Exception | None:
        """What went wrong in a thread: our fault, and the end of the run."""

    @property
    def ended(self) -> bool:
        """Whether somebody has asked for the end of the run."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def dump(self, path: Path) -> None:
        """Keep the machine as it is in a file."""


@dataclass(frozen=True)
class BareGuest:
    """A bare-metal program: an ELF file, or the name of one under guest/bare."""

    elf: Path | str
    arguments: str = ""
    chosen: tuple[str, ...] = ()  #: patterns of cases; none: all that the arguments do not exclude


@dataclass(frozen=True)
class Options:
    """How to run, whatever the guest is."""

    hardware: qemu.Hardware = field(default_factory=qemu.Hardware)
    timeout: float = 120.0  #: seconds that the guest may take, from QEMU's start to its end; infinite: without end
    contract: Contract = field(default_factory=Contract)
    keep: Path | None = None
    qemu: Path | None = None
    extra: tuple[str, ...] = ()  #: further arguments of QEMU
    launcher: str = "qemu"  #: who starts QEMU
    name: str = "guest"  #: what libvirt calls it


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a guest; ``report`` is what came of it."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.why)
        self.report = report


@dataclass
class Prepared:
    """What there is to run, in its folder; ``failed`` says at the end whether that stays, and ``kept`` where."""

    folder: RunFolder
    command: qemu.Command = field(init=False)
    served: Served | None = None
    failed: bool = True
    kept: Path | None = None


class GuestRun:
    """One run. Use ``run()``, or ``command()`` for the line alone."""

    def __init__(
        self,
        guest: LinuxGuest | BareGuest,
        platform: Platform | None = None,
        serve: Callable[[Path], Served] | None = None,
        *,
        options: Options | None = None,
        assets: Assets | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        on_note: Callable[[str], None] = lambda text: None,
        account: Callable[[Ktap], Account] = lambda ktap: Account(),
        on_report: Callable[[Report, Path], None] = lambda report, folder: None,
    ) -> None:
        """``serve`` makes the served machine, with its sockets in the folder it is given, and ``account`` says what it
        did, held against the guest's word; without them the guest has QEMU's machine alone. ``on_line`` sees each
        line of the console as it comes, ``on_note`` what the operator should know of what he gave, before the guest
        starts, ``on_report`` what came of it, while the folder is whole.
        """
        self.guest = guest
        self.platform = platform if platform is not None else Platform(())
        self.options = options or Options()
        self._serve = serve
        self._assets = assets or Assets()
        self._launcher = launcher_of(self.options.launcher, self._assets.folder)
        self._toolchain = Toolchain(self._assets)
        self._on_line = on_line
        self._on_note = on_note
        self._account = account
        self._on_report = on_report
        self.notes: list[str] = []
        #: The folder of its run, and once that is over the same if it stayed.
        self.folder: Path | None = None
        self.kept: Path | None = None
        #: Names of the tests that the guest must report, where they are known.
        self.expected: tuple[str, ...] = ()
        #: The version of a Linux guest's kernel, and names of addresses in what the guest runs, once it is prepared.
        self.kernel: str | None = None
        self.symbols: Callable[[], Symbols] = lambda: NONE

    # -- preparing -----------------------------------------------------------------------------------------------

    def dry_run(self) -> tuple[str, Path]:
        """What starts the guest by hand, such as the exact QEMU line, quoted for a shell, and the folder with the files
        that it names, which stays.
        """
        folder = RunFolder(self.options.keep)
        with contextlib.ExitStack() as stack:
            command = self._prepare(folder, self._served(folder, stack))
        folder.leave()
        return self._launcher.text(command), folder.path

    def _served(self, folder: RunFolder, stack: contextlib.ExitStack) -> Served | None:
        """Who serves the functions, not started yet; ``stack`` stops it."""
        if self._serve is None or not self.platform.functions:
            return None
        served = self._serve(folder.for_sockets(stack))
        stack.callback(served.stop)
        if len(served.sockets) != len(self.platform.functions):
            raise ValueError(f"{len(served.sockets)} sockets for {len(self.platform.functions)} functions")
        return served

    def _prepare(self, folder: RunFolder, served: Served | None) -> qemu.Command:
        """Write the guest's files into ``folder``; all that QEMU is given."""
        try:
            return self._prepare_files(folder, served)
        except OSError as why:
            text = f"{why.filename or folder.path}: {why.strerror}"
            if why.filename and Path(why.filename).is_relative_to(self._assets.folder):
                raise UsageError(f"{text}; free some space, or name a folder of yours in $VI_CACHE") from why
            named = "in $TMPDIR" if folder.keep is None else "to keep"
            raise UsageError(f"{text}; free some space, or name another folder {named}") from why

    def _find_all(self) -> None:
        """Have what the guest needs; MissingError that names all that is missing."""
        steps: list[Callable[[], object]] = [lambda: self._assets.qemu(self.options.qemu)]
        match self.guest:
            case BareGuest(elf=str(name)):
                steps.append(lambda: self._toolchain.program(_source(name)))
            case LinuxGuest(kernel=kernel, initrd=initrd):
                if isinstance(kernel, str):
                    steps.append(lambda: self._assets.kernel(kernel))
                if initrd is None:
                    steps.append(self._assets.busybox)
        all_at_once(steps)

    def _prepare_files(self, folder: RunFolder, served: Served | None) -> qemu.Command:
        self._find_all()
        found = self._assets.qemu(self.options.qemu)
        options = self.options
        command = qemu.Command(found.command, options.hardware, Path(), extra=options.extra, name=options.name)
        qemu.refuse(command.extra)
        match self.guest:
            case BareGuest():
                command = self._prepare_bare(folder, self.guest, command)
            case LinuxGuest():
                command = self._prepare_linux(folder, self._payload(self.guest), command)
                if served is not None:
                    tree = qemu.dump_device_tree(found, command.hardware, self._toolchain.folder)
                    command = replace(command, dtb=folder.file("guest.dtb"))
                    folder.file("guest.dtb").write_bytes(devicetree.add_machine(tree, self.platform))
        if served is not None:
            for function, path in zip(self.platform.functions, served.sockets, strict=True):
                command = replace(command, devices=(*command.devices, *qemu.vfio_user(path, function.slot)))
        folder.file(self._launcher.artefact).write_text(self._launcher.text(command) + "\n")
        return command

    def note(self, text: str) -> None:
        """Tell the operator something that he should know."""
        self.notes.append(text)
        self._on_note(text)

    def _payload(self, guest: LinuxGuest) -> Payload:
        return Payload(guest, self.platform, self._assets, self.note)

    def _fitting(self, image: KernelImage) -> KernelImage:
        """The kernel; UsageError when the machine or its memory cannot hold it."""
        if self._serve is not None:
            self.platform.require_granule(image.page_size, f"kernel {image.version}")
        cpu = self.options.hardware.cpu
        if image.page_size == 16384 and cpu in qemu.WITHOUT_16K:
            raise UsageError(f"kernel {image.version} has pages of 16K, which {cpu} lacks; take {qemu.CPU}")
        room = min(INITRD_OFFSET, self.options.hardware.memory << 19) - (shim.KERNEL_ADDRESS - RAM)
        if max(image.image_size, len(image.image)) > room:
            raise UsageError(f"kernel {image.version} needs more memory; give the guest 256 MiB or more")
        return image

    def _prepare_linux(self, folder: RunFolder, payload: Payload, command: qemu.Command) -> qemu.Command:
        guest, image = payload.guest, self._fitting(payload.tree.image)
        self.kernel = image.version
        self.symbols = lambda: of_kernel(payload.tree.path, image.image, image.version)
        folder.file("Image").write_bytes(image.image)
        # An aligned Image ignores text_offset since 3.17, but it names it all the same.
        entry = shim.KERNEL_ADDRESS + image.text_offset
        writes = self.platform.writes() if self._serve is not None else []
        folder.file("shim.bin").write_bytes(shim.binary(entry, writes))
        folder.file("initrd").write_bytes(payload.initrd())
        self.expected = payload.expected
        devices = qemu.loader(folder.file("Image"), entry)
        for serial, path in guest.baseline:
            devices += qemu.disk(path, serial)
        return replace(
            command,
            kernel=folder.file("shim.bin"),
            initrd=folder.file("initrd"),
            append=f"{APPEND} {guest.append}".rstrip(),
            devices=tuple(devices),
        )

    def cases(self) -> list[tuple[str, str]]:
        """What the guest would run: each case's name and what it is about; nothing is started."""
        match self.guest:
            case BareGuest(elf, arguments, chosen):
                source = "" if isinstance(elf, Path) else _source(elf).read_text()
                program = bare.Program.read(elf if isinstance(elf, Path) else self._toolchain.program(_source(elf)))
                names = program.chosen(program.arguments(arguments, chosen))
                return [(name, comment_above(source, name)) for name in names]
            case LinuxGuest():
                payload = self._payload(self.guest)
                return [(case.name, case.about) for case in payload.chosen_cases(payload.every_case())]

    def _prepare_bare(self, folder: RunFolder, guest: BareGuest, command: qemu.Command) -> qemu.Command:
        path = guest.elf if isinstance(guest.elf, Path) else self._toolchain.program(_source(guest.elf))
        program = bare.Program.read(path)
        self.symbols = lambda: of_elf(path)
        arguments = program.arguments(guest.arguments, guest.chosen)
        self.expected = program.chosen(arguments)
        command = replace(command, kernel=path.absolute())
        if program.config is not None:
            platform = self.platform if self._serve is not None else Platform(())
            folder.file("config.bin").write_bytes(bare.configuration(platform, arguments))
            command = replace(command, devices=tuple(qemu.loader(folder.file("config.bin"), program.config)))
        return command

    # -- running -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def prepared(self, before: Callable[[], None] = lambda: None) -> Iterator[Prepared]:
        """What there is to run, its machine served; ``before`` is called before it is. Afterwards nobody serves, and
        the folder is gone unless something went wrong. UsageError as of preparing.
        """
        made = Prepared(RunFolder(self.options.keep))
        self.folder = made.folder.path
        try:
            with contextlib.ExitStack() as stack:
                made.served = self._served(made.folder, stack)
                made.command = self._prepare(made.folder, made.served)
                before()
                if made.served is not None:
                    made.served.start()
                yield made
        except UsageError:
            made.failed = False
            raise
        finally:
            self.kept = made.kept = made.folder.close(made.failed)

    def run(self) -> Report:
        """Run the guest to its end. Raises what failed in a server's thread; UsageError as of preparing."""
        with self.prepared() as made:
            report = self._watch(made)
            made.failed = report.verdict is not Verdict.PASSED
            if made.failed or self.options.keep is not None:
                self._on_report(report, made.folder.path)
        report = report if made.kept is not None else replace(report, folder=None)
        if report.verdict is Verdict.INTERRUPTED:
            raise Interrupted(report)
        return report

    def start(self, made: Prepared) -> Running:
        """Start QEMU; the guest waits for ``monitor.start``. UsageError: it cannot be started."""
        return self._launcher.start(made.command, made.folder.path)

    def dump(self, made: Prepared, running: Running) -> None:
        """Keep the machine as it is when something has gone wrong, its CPUs standing still; where that cannot be, it is
        told and no more.
        """
        if made.served is None or not running.running:
            return
        stopped = running.monitor.execute("stop", _PAUSE)
        try:
            made.served.dump(made.folder.file("dump"))
        except Exception as problem:
            self.note(f"the machine could not be kept in a dump: {problem}")
        finally:
            if stopped and not made.command.paused:  # that one is its user's debugger's to let go on
                running.monitor.execute("cont", _PAUSE)

    def _watch(self, made: Prepared) -> Report:
        folder, served = made.folder, made.served
        with folder.file("console.log").open("w", encoding="utf-8", buffering=1) as log:
            running = self.start(made)
            if not made.command.paused:
                running.monitor.start()
            watched = watch(
                running,
                log,
                limit=self.options.timeout,
                contract=self.options.contract,
                stopped=lambda: served is not None and (served.failure is not None or served.ended),
                on_line=self._on_line,
                symbols=self.symbols,
                on_failure=lambda: self.dump(made, running),
            )
        if served is not None and served.failure is not None:
            raise served.failure
        story = watched.story
        if story.end is End.STOPPED:
            story = replace(story, end=End.INTERRUPTED)
        account = self._account(story.ktap)
        verdict, why = judge(story, self.expected, self.options.contract, account.wrong)
        verdict, why = unstruck(verdict, why, account.unstruck)
        if story.end is End.CLOSED and story.status:
            said = last_words(folder.file("qemu.log"))
            if not watched.lines:
                raise UsageError(f"QEMU does not start ({said or f'status {story.status}'}); correct its arguments")
            why += f": {said}" if said else ""
        report = Report(
            verdict,
            why,
            story.ktap,
            "\n".join(watched.lines),
            watched.seconds,
            watched.first,
            folder.path,
            tuple(self.notes),
            account,
            self.kernel,
            watched.stands,
            watched.stands_note,
        )
        told = [*story.ktap.results, *report.stand_lines, f"{verdict.name}: {why}"]
        folder.file("result.txt").write_text("".join(f"{each}\n" for each in told))
        return report


def _source(name: str) -> Path:
    """The C file of a program under guest/bare; UsageError when there is none."""
    source = share(f"bare/{name}.c")
    if not source.is_file():
        names = ", ".join(sorted(path.stem for path in source.parent.glob("*.c")))
        raise UsageError(f"there is no bare-metal program {name!r}; take one of {names}, or a path to an ELF file")
    return source


def last_words(log: Path) -> str:
    """What QEMU said last that was no warning; those it has for arguments that are no mistakes, such as libvirt's."""
    lines = log.read_text(errors="replace").splitlines()
    return plain(next((line for line in reversed(lines) if ": warning: " not in line), ""))
