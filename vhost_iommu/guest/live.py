# SPDX-License-Identifier: Apache-2.0
"""A guest that runs while a test speaks with it: ``boot`` starts it, ``Guest`` is what it can be asked.

Law: nothing outlives the ``with``. Whatever ends the guest, who waits for it is told whose fault it was, in one
sentence; and what nobody asked for, a kernel's complaint or an SMMU's event, fails at its end.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

from pexpect import EOF, TIMEOUT

from vhost_iommu.config import MachineConfig, load_machine
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.agent import PATIENCE, Agent, NoAnswerError
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.console import DEATHS, LIMIT
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.launcher import Running
from vhost_iommu.guest.line import Line
from vhost_iommu.guest.payload import LinuxGuest, own_module
from vhost_iommu.guest.qemu import GRACE
from vhost_iommu.guest.recording import TRACEPOINTS, Recording, in_step, tracepoints
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.run import Prepared, last_words
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.lab.control import Queries
from vhost_iommu.lab.faults import Fault, Injection
from vhost_iommu.machine import Machine
from vhost_iommu.terminal import plain
from vhost_iommu.trace import Trace
from vhost_iommu.watch import ALL, Kind, Noted

#: Lines by which a kernel complains of itself, though it goes on.
COMPLAINTS = (
    r"WARNING: ",
    r"\bBUG: ",
    r"KASAN: ",
    r"UBSAN: ",
    r"INFO: possible recursive locking|possible circular locking dependency|inconsistent lock state",
    r"suspicious RCU usage|detected stalls? on CPUs|self-detected stall",
    r"INFO: task .* blocked for more than",
)
#: Of DEATHS those after which a guest does not go on: what a kernel complains of is no death here.
_DEATHS = tuple(each for each in DEATHS if not each.startswith(r"\bBUG"))
#: Seconds that a guest has to be gone when it said that it dies, or is told to turn itself off.
_GOING = 30.0


class GuestError(Exception):
    """A guest did not do what was asked of it; ``whose`` fault that was."""

    whose: ClassVar[str] = "the guest's"
    #: What is left of it, once it is gone.
    folder: Path | None = None


class GuestDiedError(GuestError):
    """It has died, or is no more."""


class GuestTimeoutError(GuestError):
    """It did not do in time what was asked of it."""


class CommandError(GuestError):
    """A command's exit status was not 0."""

    def __init__(self, command: str, done: Ran) -> None:
        last = plain(done.output.strip().rpartition("\n")[2])
        super().__init__(f"{command!r} ended with status {done.status}{f': {last}' if last else ''}")
        self.done = done


class QemuError(GuestError):
    """QEMU ended by itself, with an error."""

    whose = "QEMU's"


class ComplaintError(GuestError, AssertionError):
    """The guest's kernel complained, or an SMMU told of an event, and no test asked for it."""


class NeverStruckError(GuestError, AssertionError):
    """A fault never struck, so that nothing was tested."""

    whose = "the test's"


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    output: str  #: what it said, on both of its outputs
    status: int
    seconds: float

    def __str__(self) -> str:
        return self.output


class Guest:
    """A guest that runs, from ``boot``."""

    def __init__(
        self, launch: Launch, prepared: Prepared, process: Running, lines: tuple[Line, Line], ear: Ear
    ) -> None:
        self._launch, self._prepared, self._process = launch, prepared, process
        self._console, self._second = lines
        self._agent = Agent(self._second)
        self._ear = ear
        self._allowed: list[re.Pattern[str]] = []
        self._allowed_now: list[re.Pattern[str]] = []
        self._keep = False
        self._recorded: Recording | None = None
        self._began = time.monotonic()
        self._checked = (0, dict[str, int]())
        self._asked = False
        self._killed = False
        #: What its machine consists of: SMMUs and masters by name.
        self.machine: Machine = _machine(launch)
        self.name = launch.config.name
        assert launch.daemon is not None
        #: What the control socket answers, as values: the context of a stream, its tables, TLBs, queues, ``explain``.
        self.inside: Queries = launch.daemon.control()
        #: Where console.log, qemu.cmd and all else of it are.
        self.folder: Path = prepared.folder.path

    def __repr__(self) -> str:
        return f"<Guest {self.name} in {self.folder}>"

    # -- what it says and is told ----------------------------------------------------------------------------------

    def run(
        self,
        command: str,
        *,
        check: bool = True,
        timeout: float = 60.0,
        on_output: Callable[[bytes], None] = lambda data: None,
    ) -> Ran:
        """Run ``command`` in the guest, by a shell of its own, and wait for its end.

        CommandError: its exit status is not 0, and ``check``. GuestTimeoutError: it was ended after ``timeout``
        seconds. ``on_output`` is called with what it says as it comes.
        """
        try:
            done = self._run(command, timeout, on_output, check=False)
        except GuestError:
            self._launch.did(command, passed=False)
            raise
        self._launch.did(command, passed=not done.status)
        if check and done.status:
            raise CommandError(command, done)
        return done

    def _run(
        self,
        command: str,
        timeout: float = 60.0,
        on_output: Callable[[bytes], None] = lambda data: None,
        *,
        check: bool = True,
    ) -> Ran:
        """``run``, which nobody asked for and is in no report."""
        self._has_agent()
        began = time.monotonic()
        try:
            with self._alive():
                output, status = self._agent.run(command, timeout, on_output)
        except NoAnswerError:
            raise GuestTimeoutError(f"{command!r}: {self._silent()}") from None
        done = Ran(output.decode(errors="replace"), status, time.monotonic() - began)
        if status == 137 and done.seconds >= timeout:
            raise GuestTimeoutError(f"{command!r} did not end within {timeout:g} s; it was killed") from None
        if check and status:
            raise CommandError(command, done)
        return done

    def expect(self, pattern: str | Sequence[str], *, timeout: float = 60.0) -> re.Match[str]:
        """Wait until the console says what matches, and go on behind it; GuestTimeoutError: it did not."""
        try:
            with self._alive():
                self._console.expect(pattern, timeout=timeout)
        except TIMEOUT:
            shown = pattern if isinstance(pattern, str) else " or ".join(pattern)
            raise GuestTimeoutError(f"no {shown!r} on the console within {timeout:g} s; {self._last()}") from None
        match: re.Match[str] = self._console.match
        return match

    def send(self, text: str, *, enter: bool = True) -> None:
        """Type ``text`` on the console, and Enter."""
        with self._alive():
            self._console.send(text + "\n" * enter)

    @property
    def console(self) -> str:
        """All that the console said until now."""
        return "\n".join(self._ear.lines)

    def dmesg(self) -> str:
        """The kernel's log."""
        return self.run("dmesg").output

    # -- files -------------------------------------------------------------------------------------------------------

    def put(self, source: str | Path | bytes, path: str, *, mode: int = 0o755, timeout: float = 300.0) -> None:
        """Make the guest's file ``path`` of a file of the host's, or of bytes."""
        self._has_agent()
        data = source if isinstance(source, bytes) else _bytes(Path(source))
        if "\n" in path or not path:
            raise UsageError(f"{path!r} is no path in a guest; name a file")
        try:
            with self._alive():
                said, status = self._agent.put(data, path, timeout)
        except NoAnswerError:
            raise GuestTimeoutError(f"put {path}: {self._silent()}") from None
        if status:
            raise CommandError(f"put {path}", Ran(said.decode(errors="replace"), status, 0.0))
        self._run(f"chmod {mode:o} {shlex.quote(path)}")

    def get(self, path: str, to: str | Path | None = None, *, timeout: float = 300.0) -> bytes:
        """The bytes of the guest's file ``path``; written to the host's file ``to``, if that is given."""
        self._has_agent()
        try:
            with self._alive():
                data, status = self._agent.get(path, timeout)
        except NoAnswerError:
            raise GuestTimeoutError(f"get {path}: {self._silent()}") from None
        if status:
            raise CommandError(f"get {path}", Ran(data.decode(errors="replace"), status, 0.0))
        if to is not None:
            Path(to).write_bytes(data)
        return data

    def insmod(self, module: str | Path, *parameters: str) -> None:
        """Insert a kernel module of the host's; UsageError: this kernel cannot take it."""
        release = self._launch.guest_run.kernel or ""
        name, data = own_module(Path(module), release, self._launch.guest_run.note)
        self.put(data, f"/run/vt/{name}.ko")
        self.run(shlex.join(["insmod", f"/run/vt/{name}.ko", *parameters]))

    # -- its end, and another begin ----------------------------------------------------------------------------------

    def resume(self, *, timeout: float | None = None) -> None:
        """Go on, of one that is paused; where it was paused from its begin, wait until it can be asked for things."""
        self._monitor("cont")
        if not self._asked:
            self._wait_ready(self._launch.guest_run.options.timeout if timeout is None else timeout)

    def wait_up(self, *, timeout: float) -> None:
        """Until it can be asked for things, of one that a debugger has go on."""
        self._wait_ready(timeout)

    def debug(self, port: int) -> None:
        """Have a gdb stub listen at a port of this machine."""
        if not self._debugs(port):
            raise UsageError(f"no gdb stub can listen at port {port}; name another")

    def _debugs(self, port: int) -> bool:
        said = self._monitor("human-monitor-command", **{"command-line": f"gdbserver tcp:127.0.0.1:{port}"})
        return "Waiting for gdb connection" in str(said)

    @property
    def vmlinux(self) -> Path | None:
        """Its kernel with symbols, where that lies in its build folder."""
        guest = self._launch.guest_run.guest
        if not isinstance(guest, LinuxGuest) or not isinstance(guest.kernel, Path):
            return None
        folder = guest.kernel if guest.kernel.is_dir() else guest.kernel.parent
        found = folder / "vmlinux"
        return found if found.is_file() else None

    @contextlib.contextmanager
    def overheard(self, heard: Callable[[bytes], None]) -> Iterator[None]:
        """``heard`` is called, by another thread, with what the console says meanwhile, as it comes."""
        self._ear.raw = heard
        try:
            yield
        finally:
            self._ear.raw = None

    def pause(self) -> None:
        """Stop its CPUs until ``resume``."""
        self._monitor("stop")

    def reset(self, *, timeout: float = 120.0) -> None:
        """Reset it as by its button, and wait until it can be asked for things again."""
        self._monitor("set-action", reboot="reset")
        self._asked = False
        self._monitor("system_reset")
        self._wait_ready(timeout)
        self._monitor("set-action", reboot="shutdown")

    def power_off(self, *, timeout: float = _GOING) -> None:
        """Have it turn itself off, and wait for that."""
        self._has_agent()
        with self._alive():
            self._second.send("\n0 run 12 5\npoweroff -f\n")
        self.wait_end(timeout=timeout)

    def wait_end(self, *, timeout: float) -> None:
        """Until it turns itself off; GuestError: it did not, or ended otherwise."""
        if not self._console.wait_over(timeout):
            raise GuestTimeoutError(f"the guest did not end within {timeout:g} s; {self._last()}")
        why = self._why_it_ended()
        if not isinstance(why, GuestDiedError) or self._ear.death is not None:
            raise why

    def kill(self) -> None:
        """End it now."""
        self._killed = True
        self._process.kill()

    @property
    def recorded(self) -> Recording | None:
        """The last recording."""
        return self._recorded

    @property
    def seconds(self) -> float:
        """For how long it is there."""
        return time.monotonic() - self._began

    @property
    def kept(self) -> bool:
        """Whether ``keep`` was called."""
        return self._keep

    @property
    def running(self) -> bool:
        return self._process.running

    # -- what it did, and what goes wrong ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def recording(self, wants: Kind = ALL & ~Kind.USED, *, kernel: bool = True) -> Iterator[Recording]:
        """What drivers, SMMUs and masters do meanwhile; see Recording. It has all that the guest's CPUs had sent off
        before its end, and nothing of before its begin.

        ``kernel``: with the kernel's tracepoints, where it has them, so that commands can be told by operation.
        """
        traced = kernel and self._traces()
        self.settle()
        with self.machine.recording(wants) as watched:
            seen = self._recorded = Recording(watched)
            self._ear.recordings += [seen]
            began = time.monotonic_ns()
            if traced:
                self._run("echo vi-begin >/sys/kernel/tracing/trace_marker")
                began = (began + time.monotonic_ns()) // 2
            try:
                yield seen
            finally:
                if self.running:
                    self.settle()
                self._ear.recordings = [each for each in self._ear.recordings if each is not seen]
        if traced and self.running:
            found = tracepoints(
                self._run("cat /sys/kernel/tracing/trace; echo 0 >/sys/kernel/tracing/tracing_on").output, began
            )
            seen.guest += in_step(found, seen.commands())

    def _traces(self) -> bool:
        """Whether the kernel's tracepoints are there, which are on now."""
        if not self._asked or not self._has_init:
            return False
        line = "&& ".join(f"echo 1 >events/iommu/{each}/enable " for each in TRACEPOINTS[:2])
        line = f"cd /sys/kernel/tracing && echo 0 >tracing_on && echo mono >trace_clock && echo >trace && {line}"
        line += f"&& echo 1 >tracing_on; (echo 1 >events/iommu/{TRACEPOINTS[2]}/enable) 2>/dev/null; cat tracing_on"
        return self._run(f"({line}) 2>/dev/null", check=False).output.strip() == "1"

    def settle(self) -> None:
        """Wait until the machine has done whatever the CPUs have sent off. A read that is answered comes behind the
        writes that nobody waits for; what those began is then waited for.
        """
        for function in self._launch.platform.functions:
            window = function.bar0 or function.bar2
            if window is not None:
                self._monitor("human-monitor-command", **{"command-line": f"xp /1wx {window.base:#x}"})
        assert self._launch.daemon is not None
        self._launch.daemon.settle()
        self._console.catch_up()

    @contextlib.contextmanager
    def fault(self, fault: str | Fault, *, may_miss: bool = False, **parameters: Any) -> Iterator[Injection]:
        """Have the machine be wrong meanwhile: ``guest.fault("drop-sync", smmu="smmu0", after=3)``.

        What the kernel and the SMMUs then complain of was asked for. NeverStruckError: it never struck, unless
        ``may_miss``. UsageError: it cannot begin while the guest runs.
        """
        asked = fault if isinstance(fault, Fault) else Fault(fault, **parameters)
        self.check()
        with self.machine.lab.armed(asked) as injection:
            yield injection
            if self.running:
                self.settle()
        self._console.catch_up()
        self._seen()
        if not injection.struck and not may_miss:
            raise NeverStruckError(f"the fault '{asked}' never struck; have it strike, or say may_miss=True")

    def allow(self, *patterns: str) -> None:
        """From now on events of these names, and lines of the console that match one, are none to complain of."""
        self._allowed += map(re.compile, patterns)

    def allow_now(self, patterns: Sequence[str]) -> None:
        """Of a guest that tests share: what the one allows that runs now, beside what ``allow`` was told."""
        self._allowed_now = [re.compile(each) for each in patterns]

    def keep(self) -> None:
        """Its folder stays when it is gone."""
        self._keep = True

    def check(self) -> None:
        """ComplaintError: since the last look a kernel complained, or there was an event, and nobody allowed it."""
        self._console.catch_up()
        lines, events = self._seen()
        found = [line for line in lines if not self._allows(line)]
        found += [
            f"{count} event{'s' if count > 1 else ''} {name}"
            for name, count in events.items()
            if not self._allows(name)
        ]
        if found:
            raise ComplaintError(f"nobody asked for: {'; '.join(found)}; see {self.folder}")

    # -- inside --------------------------------------------------------------------------------------------------------

    def _allows(self, text: str) -> bool:
        return any(pattern.search(text) for pattern in (*self._allowed, *self._allowed_now))

    def _seen(self) -> tuple[list[str], dict[str, int]]:
        """Complaints and events since the last look."""
        at, before = self._checked
        complaints = self._ear.complaints
        counted: dict[str, int] = {}
        for smmu in self.machine.smmus.values():
            for name, count in smmu.counters.events_by_kind.items():
                counted[name] = counted.get(name, 0) + count
        self._checked = (len(complaints), counted)
        new = {name: count - before.get(name, 0) for name, count in counted.items() if count > before.get(name, 0)}
        return complaints[at:], new

    def _monitor(self, command: str, **arguments: object) -> object:
        with self._alive():
            answer = self._process.monitor.ask(command, PATIENCE, **arguments)
        if answer is None:
            # It may have said nothing because it is about to be gone.
            if self._process.ends_within(GRACE):
                raise self._why_it_ended()
            raise QemuError(f"QEMU does not do {command!r}")
        return answer

    @property
    def _has_init(self) -> bool:
        """Whether it runs our init, and so can be asked for things."""
        guest = self._launch.guest_run.guest
        return isinstance(guest, LinuxGuest) and guest.initrd is None

    def _has_agent(self) -> None:
        if not self._has_init:
            raise UsageError("this guest runs nothing of ours that could be asked; use send() and expect()")

    def _wait_ready(self, seconds: float) -> None:
        self._asked = True
        if not self._has_init:
            return
        try:
            with self._alive():
                self._agent.wait_ready(seconds)
            self._launch.did("boot")
        except NoAnswerError:
            raise GuestTimeoutError(f"the guest was not up within {seconds:g} s; {self._last()}") from None

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Whoever waits within hears why the guest is no more, if it is."""
        try:
            yield
        except EOF:
            raise self._why_it_ended() from None

    def _why_it_ended(self) -> Exception:
        self._console.wait_over(_GOING)
        served = self._prepared.served
        if served is not None and served.failure is not None:
            return served.failure
        status = self._process.end()
        if self._killed:
            return GuestDiedError("the guest is no more; the test has killed it")
        if self._ear.death is not None:
            return GuestDiedError(f"the guest died: {self._ear.death}")
        if status:
            said = last_words(self._prepared.folder.file("qemu.log"))
            if not self._ear.lines:
                return UsageError(f"QEMU does not start ({said or f'status {status}'}); correct its arguments")
            return QemuError(f"QEMU ended with status {status}{f': {said}' if said else ''}; {self._last()}")
        why = self._process.monitor.shutdown(1.0)
        return GuestDiedError(f"the guest is no more{f' ({why})' if why else ''}; {self._last()}")

    def _silent(self) -> str:
        return f"the guest does not answer; {self._last()}"

    def _last(self) -> str:
        last = next((line for line in reversed(self._ear.lines) if line.strip()), "")
        return f"its console's last line: {plain(last)}" if last else "its console said nothing"


class Ear:
    """Hears the console: its log, its lines, complaints and a death among them."""

    def __init__(self, log: TextIO, deaths: Sequence[str], on_line: Callable[[str], None]) -> None:
        self._log, self._on_line = log, on_line
        self._deaths = re.compile("|".join(deaths))
        self._complaints = re.compile("|".join(COMPLAINTS))
        self._part = ""
        self._said = 0
        self._lock = threading.Lock()  # held while one hears
        self.lines: list[str] = []
        self.complaints: list[str] = []
        #: The line that told of the guest's death.
        self.death: str | None = None
        #: Who hears all of it as it comes.
        self.raw: Callable[[bytes], None] | None = None
        #: Those in which lines stand.
        self.recordings: list[Recording] = []

    def __call__(self, data: bytes) -> None:
        if self.raw is not None:
            self.raw(data)
        with self._lock:
            if self._said >= LIMIT:
                return
            self._said += len(data)
            text = data.decode(errors="replace")
            self._log.write(text)
            *lines, self._part = (self._part + text).split("\n")
            if not data and self._part:
                lines.append(self._part)
            for line in lines:
                self._heard(plain(line.strip("\r")))

    def close(self) -> None:
        """Whatever comes yet is not heard."""
        with self._lock:
            self._said = LIMIT

    def _heard(self, line: str) -> None:
        self.lines.append(line)
        if self.recordings:
            said = Noted(0, time.monotonic_ns(), "guest", "console", "line", {"text": line})
            for each in self.recordings:
                each.guest.append(said)
        if self.death is None and self._deaths.search(line):
            self.death = line
        elif self._complaints.search(line):
            self.complaints.append(line)
        self._on_line(line)


def _machine(launch: Launch) -> Machine:
    assert launch.daemon is not None
    return launch.daemon.machine


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as why:
        raise UsageError(f"{path}: {why.strerror}; name a file of the host's") from None


@contextlib.contextmanager
def boot(
    machine: str | Path | MachineConfig,
    *,
    kernel: str | Path | None = None,
    append: str | None = None,
    initrd: str | Path | None = None,
    initrd_extra: Sequence[str | Path] = (),
    headers: str | Path | None = None,
    modules: Sequence[str | Path] = (),
    elf: str | Path | None = None,
    faults: Sequence[str | Fault] = (),
    qemu: str | Path | None = None,
    qemu_args: Sequence[str] = (),
    timeout: float | None = None,
    keep: str | Path | None = None,
    paused: bool = False,
    launcher: str = "qemu",
    gic: int | None = None,
    accel: str = "tcg",
    deaths: Sequence[str] = (),
    allow: Sequence[str] = (),
    on_line: Callable[[str], None] = lambda line: None,
    on_note: Callable[[str], None] = lambda text: None,
    trace: Trace | str | None = None,
    assets: Assets | None = None,
) -> Iterator[Guest]:
    """Boot the guest of ``machine``, a name in qemu-configs/ or a machine file, and yield it once it can be asked.

    ``kernel``, ``append``, ``initrd``, ``headers``, ``modules`` and ``elf`` are as of ``vhost-iommu run``. ``timeout``:
    seconds that it has to be up. ``keep``: a folder for what is left of it. ``paused``: it waits at its begin for
    ``Guest.resume``. ``launcher``: who starts QEMU, "qemu" or "libvirt". ``gic`` and ``accel`` are as of
    ``vhost-iommu run``. ``deaths``: more patterns of console lines that are its end.
    ``allow``: as of ``Guest.allow``. ``trace``: "text" or "json", in its folder, which stays if anything goes wrong.
    UsageError: something of it cannot be had. GuestError: see its subclasses.
    """
    config = machine if isinstance(machine, MachineConfig) else load_machine(str(machine))
    wishes = Wishes(
        kernel=None if kernel is None else str(kernel),
        append=append,
        initrd=_path(initrd),
        initrd_extra=tuple(map(Path, initrd_extra)),
        headers=_path(headers),
        modules=tuple(map(Path, modules)),
        elf=None if elf is None else str(elf),
        faults=tuple(each if isinstance(each, Fault) else Fault.parse(each) for each in faults),
        qemu=_path(qemu),
        extra=tuple(qemu_args),
        timeout=timeout,
        keep=_path(keep),
        launcher=launcher,
        gic=gic,
        accelerator=accel,
        traced=trace if isinstance(trace, str) else None,
        live=config.guest.kind == "linux",
    )
    made = None if isinstance(trace, str) else trace
    launch = Launch(config, wishes, trace=made, assets=assets, on_line=on_line, on_note=on_note)
    try:
        with _named(launch), _booted(launch, (*_DEATHS, *deaths)) as guest:
            guest.allow(*allow)
            if not paused:
                guest.resume()
            yield guest
            guest.check()
    finally:
        launch.close()


@contextlib.contextmanager
def _named(launch: Launch) -> Iterator[None]:
    """An error names the folder that is left."""
    try:
        yield
    except GuestError as error:
        error.folder = launch.guest_run.kept
        raise


@contextlib.contextmanager
def _booted(launch: Launch, deaths: Sequence[str]) -> Iterator[Guest]:
    """The guest, paused at its begin; at the end it is no more, and its folder stays if anything went wrong."""
    with contextlib.ExitStack() as stack:
        lines: list[Line] = []
        hearing: list[Callable[[], None]] = []

        def before() -> None:
            # Threads are made before the server starts; what they listen on comes with QEMU.
            assert launch.daemon is not None
            server = launch.daemon.server
            hearing.append(server.worker("console", lambda: lines[0].listen()).wake)
            hearing.append(server.worker("agent", lambda: lines[1].listen()).wake)

        prepared = stack.enter_context(launch.guest_run.prepared(before))
        log = stack.enter_context(prepared.folder.file("console.log").open("w", encoding="utf-8", buffering=1))
        process = launch.guest_run.start(prepared)
        stack.callback(process.close)
        stack.callback(process.kill)
        ear = Ear(log, deaths, launch.heard)
        stack.callback(ear.close)
        lines += [Line(process.console, ear, "utf-8"), Line(process.agent)]
        for hears in hearing:
            hears()
        guest = Guest(launch, prepared, process, (lines[0], lines[1]), ear)
        stack.callback(guest.inside.close)
        try:
            yield guest
            prepared.failed = guest.kept
            if guest.kept:
                _leave(launch, prepared, process, guest, None)
        except Exception as error:
            _leave(launch, prepared, process, guest, error)
            raise


def _leave(launch: Launch, prepared: Prepared, process: Running, guest: Guest, error: Exception | None) -> None:
    """What is left of a guest that did not end well: a dump, the last recording, a page. UsageError leaves nothing."""
    if isinstance(error, UsageError):
        return
    if process.running:
        launch.guest_run.dump(prepared, process)
    whose = error.whose if isinstance(error, GuestError) else "the test's"
    why = "a test of those that share it failed" if error is None else f"{error or type(error).__name__}"
    died = isinstance(error, GuestDiedError | GuestTimeoutError | QemuError)
    run = launch.guest_run
    report = Report(
        Verdict.DIED if died else Verdict.FAILED, why, Ktap(), guest.console, guest.seconds, None,
        prepared.folder.path, tuple(run.notes), launch.account(Ktap()), run.kernel,
    )  # fmt: skip
    prepared.folder.file("result.txt").write_text(f"{report.verdict.name}: {why}\nthe fault is {whose}\n")
    launch.write_trace(prepared.folder.path, guest.recorded)
    launch.write_page(report, prepared.folder.path, guest.recorded)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
