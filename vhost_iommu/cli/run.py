# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu run``: a guest on a machine, and what it says of itself."""

from __future__ import annotations

import argparse
import json
import math
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vhost_iommu.cli import live
from vhost_iommu.cli.common import (
    EXIT_OK,
    Add,
    fault_option,
    faults_of,
    look_at_core,
    machine_argument,
    seconds,
    tell_of_core,
    trace_option,
    tracing,
)
from vhost_iommu.errors import UsageError
from vhost_iommu.terminal import Progress, paint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhost_iommu.guest.ktap import Result
    from vhost_iommu.guest.launch import Launch
    from vhost_iommu.guest.report import Report
    from vhost_iommu.trace import Trace


_EPILOG = """\
A guest passes when it reports each of its tests in KTAP (docs.kernel.org/dev-tools/ktap.html) on its console, which
is ttyAMA0 (a PL011 at 0x9000000), none has failed, and it then turns itself off. A test that it skips is counted and
named, and has not passed. The guest has died when it says so (panic, oops, BUG), is reset, ends before its last test,
or its time is over; then its last lines are shown, and where each of its CPUs stands. Guests that speak no KTAP (an
initial RAM file system, an ELF or a firmware of yours) pass by --success or --exit-only; deaths, and failed tests if
it does speak KTAP, count all the same.

A kernel may be any: modules that lie with it are loaded, what it lacks is named in a note, and cases that need that
are skipped by its name. Cases of a DMA engine need a module that is built in the kernel's build folder or headers.

examples:
  vhost-iommu run smmuv3-linux --kernel ../linux             a kernel's build folder
  vhost-iommu run smmuv3-linux --kernel ./Image --module my.ko --case 'mine=cat /proc/mine' --cases mine
  vhost-iommu run smmuv3-pasid --cases 'engine0_lazy*' --repeat 100
  vhost-iommu run smmuv3-bare --elf fw.elf --success '^DONE' --trace t.txt
  vhost-iommu run smmuv3-linux --kernel ../linux --shell     a shell in the guest
  vhost-iommu run smmuv3-linux --exec 'dmesg | grep smmu'    one command, and its exit code
  vhost-iommu run smmuv3-bare --gdb                          waits for a gdb: target remote :1234
  git bisect run sh -c 'make -j8 Image || exit 125; vhost-iommu run M --kernel . --bisect'

exit codes: 0 passed, 1 a test failed, 3 the guest died, 4 each test was skipped, 2 your mistake, 70 our fault,
  130 Ctrl-C.
With --bisect: 0 passed, 1 a test failed or the guest died, 125 everything else (a kernel that did not build and
  so is not there, a mistake in this line, skipped tests alone, our fault), which has 'git bisect run' skip the
  revision.
"""


def add(command: Add) -> None:
    run = command("run", _run, "Run a guest on a machine and say what it says of itself.")
    machine_argument(run)

    guest = run.add_argument_group("what runs")
    guest.add_argument(
        "--kernel",
        metavar="K",
        help="an arm64 Image or vmlinuz, a build folder, a folder of unpacked packages, an installed tree, or a "
        "Debian kernel such as 6.1 (linux)",
    )
    guest.add_argument(
        "--headers",
        type=Path,
        metavar="DIR",
        help="where to build the engine's module for that kernel: its build folder, or unpacked linux-headers; "
        "default: what lies beside the kernel (linux)",
    )
    guest.add_argument(
        "--module",
        type=Path,
        action="append",
        default=[],
        metavar="F.ko",
        help="a kernel module of yours, inserted after the kernel's own; may be repeated (linux)",
    )
    guest.add_argument("--initrd", type=Path, metavar="F", help="an initial RAM file system of yours (linux)")
    guest.add_argument(
        "--initrd-extra",
        type=Path,
        action="append",
        default=[],
        metavar="F",
        help="a cpio archive that is unpacked over the initial RAM file system; may be repeated (linux)",
    )
    guest.add_argument("--append", metavar="S", help="more of the kernel's command line, or a program's arguments")
    guest.add_argument("--elf", metavar="F", help="another program (bare)")
    guest.add_argument("--qemu", type=Path, metavar="F", help="another QEMU, 10.1 or newer")
    guest.add_argument(
        "--accel",
        choices=("tcg", "kvm"),
        default="tcg",
        metavar="A",
        help="tcg (default), or kvm: the CPUs are this machine's, which is an arm64",
    )
    guest.add_argument(
        "--gic",
        type=int,
        choices=(2, 3),
        metavar="N",
        help="version of the interrupt controller; else the machine file's",
    )
    guest.add_argument(
        "--launcher",
        choices=("qemu", "libvirt"),
        default="qemu",
        metavar="L",
        help="who starts QEMU: qemu, from here (default), or libvirt, as a domain in a session of its own",
    )

    fault_option(guest)

    spoken = run.add_argument_group("instead of its cases")
    ways = spoken.add_mutually_exclusive_group()
    ways.add_argument("--shell", action="store_true", help="a shell in the guest; ^] or 'exit' ends it (linux)")
    ways.add_argument(
        "--exec", metavar="CMD", help="a line for the guest's shell; the exit code is that of CMD (linux)"
    )
    spoken.add_argument(
        "--gdb",
        type=live.port,
        nargs="?",
        const=live.GDB_PORT,
        metavar="PORT",
        help="wait for a gdb at PORT of this machine (1234), which then has the guest go on",
    )

    cases = run.add_argument_group("which of its cases")
    cases.add_argument("--list", action="store_true", help="print each case's name and what it is about; run none")
    cases.add_argument(
        "--cases",
        type=_patterns,
        action="extend",
        default=[],
        metavar="A,B*",
        help="these alone, and those that they need; * stands for anything",
    )
    cases.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="NAME=LINE",
        help="one more: a line for the guest's shell; exit status 0 is passed, 4 skipped, any other failed; may be "
        "repeated (linux)",
    )
    cases.add_argument("--repeat", type=_count, metavar="N", help="N runs, up to the first that does not pass")
    cases.add_argument("--keep-going", action="store_true", help="with --repeat: N runs, whatever comes of them")

    verdict = run.add_argument_group("what passes", "without these: every test that the guest's KTAP promises")
    ways = verdict.add_mutually_exclusive_group()
    ways.add_argument("--success", metavar="REGEX", help="a line of the console that means passed; the run ends there")
    ways.add_argument("--exit-only", action="store_true", default=None, help="passed when the guest turns itself off")
    verdict.add_argument("--failure", metavar="REGEX", help="a line that means failed; the run ends there")
    verdict.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help="seconds that the whole run of the guest may take; 'none' for a debugger (default: the machine file's)",
    )
    verdict.add_argument("--bisect", action="store_true", help="exit with what 'git bisect run' expects, see below")

    told = run.add_argument_group("what is told and kept")
    told.add_argument("--keep", type=Path, metavar="DIR", help="keep console.log, qemu.cmd and all else there")
    trace_option(told)
    told.add_argument("--dry-run", action="store_true", help="print the QEMU command line instead")
    told.add_argument("--console", action="store_true", help="show the guest's console as it comes")
    told.add_argument("-q", "--quiet", action="store_true", help="the verdict alone")
    told.add_argument("--junit", type=Path, metavar="F", help="the result as JUnit's XML, to F")
    told.add_argument("--json", action="store_true", help="the result for other programs, alone on standard output")
    run.usage = f"{run.format_usage().removeprefix('usage: ').rstrip()} [-- QEMU ARGS…]"
    run.epilog = _EPILOG
    run.set_defaults(takes_qemu_args=True)


def _patterns(text: str) -> list[str]:
    return [each for each in text.split(",") if each]


def _count(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of runs above 0")


def _run(args: argparse.Namespace) -> int:
    if args.bisect and (args.dry_run or args.list):
        raise UsageError("--bisect judges a run, and --dry-run and --list make none; leave one out")
    if args.keep_going and args.repeat is None:
        raise UsageError("--keep-going is for many runs; say how many with --repeat")
    with Progress() as progress:
        if live.asked(args):
            look_at_core()
            return live.run(args, progress)
        if args.list:
            return _list(args, progress)
        if args.dry_run:
            return _dry_run(args, progress)
        if args.junit is not None and not args.junit.absolute().parent.is_dir():
            raise UsageError(f"{args.junit} cannot be written: its folder is not there; name another with --junit")
        look_at_core()
        if args.repeat is not None:
            return _repeat(args, progress)
        report = _once(args, progress, args.keep)
    _tell(args, report)
    _write_junit(args, [report])
    return int(report.verdict)


def _launch(
    args: argparse.Namespace, progress: Progress, *, keep: Path | None, trace: Trace | None = None, noted: bool = False
) -> Launch:
    """The launch that the command line asks for, which tells of itself as it goes on; of notes unless ``noted``."""
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest.assets import Assets
    from vhost_iommu.guest.ktap import Ktap
    from vhost_iommu.guest.launch import Launch, Wishes

    ktap, begun = Ktap(), noted

    def line_came(line: str) -> None:
        nonlocal begun
        if not begun:
            begun = True
            progress.clear()
            tell_of_core()
        if args.console:
            progress.clear()
            print(line, flush=True, file=sys.stderr if args.json else sys.stdout)
        result = ktap.feed(line)
        # Of many runs each is a line, and what did not pass.
        told = result is not None and not args.quiet and (args.repeat is None or not result.passed)
        if result is None or args.json or not told:
            progress.live(line)
        elif not args.console:
            progress.clear()
            print(_result_line(result), flush=True)

    def note_came(text: str) -> None:
        if noted:
            return
        progress.clear()
        print(f"{paint('note', 'yellow', sys.stderr)}  {text}", file=sys.stderr, flush=True)

    return Launch(
        load_machine(args.machine),
        Wishes(
            kernel=args.kernel,
            initrd=args.initrd,
            append=args.append,
            elf=args.elf,
            qemu=args.qemu,
            launcher=args.launcher,
            gic=args.gic,
            accelerator=args.accel,
            timeout=math.inf if args.gdb is not None else args.timeout,
            success=args.success,
            failure=args.failure,
            exit_only=args.exit_only,
            keep=keep,
            extra=(*args.qemu_args, *live.gdb_arguments(args)),
            headers=args.headers,
            modules=tuple(args.module),
            initrd_extra=tuple(args.initrd_extra),
            own_cases=tuple(args.case),
            faults=faults_of(args),
            cases=tuple(args.cases),
        ),
        trace=trace,
        assets=Assets(progress=progress.say),
        on_line=line_came,
        on_note=note_came,
    )


def _list(args: argparse.Namespace, progress: Progress) -> int:
    with closing(_launch(args, progress, keep=args.keep)) as launch:
        cases = launch.guest_run.cases()
    progress.clear()
    if args.json:
        print(json.dumps([{"name": name, "about": about} for name, about in cases], indent=1))
        return EXIT_OK
    if not cases:
        print("vhost-iommu: this guest declares no cases; what it reports is seen when it runs", file=sys.stderr)
    width = max((len(name) for name, _ in cases), default=0)
    for name, about in cases:
        print(f"{name:{width}}  {about}".rstrip())
    return EXIT_OK


def _dry_run(args: argparse.Namespace, progress: Progress) -> int:
    with closing(_launch(args, progress, keep=args.keep)) as launch:
        line, folder = launch.guest_run.dry_run()
    progress.clear()
    print(json.dumps({"command": line, "folder": str(folder)}) if args.json else line)
    return EXIT_OK


def _once(args: argparse.Namespace, progress: Progress, keep: Path | None, *, noted: bool = False) -> Report:
    from vhost_iommu.guest.run import Interrupted

    with (
        tracing(args.trace, args.trace_only) as trace,
        closing(_launch(args, progress, keep=keep, trace=trace, noted=noted)) as launch,
    ):
        try:
            return launch.run()
        except Interrupted as interrupted:
            return interrupted.report


def _repeat(args: argparse.Namespace, progress: Progress) -> int:
    """Run after run; a trace is that of the last, and what is kept has a folder for each."""
    from vhost_iommu.guest.report import to_json
    from vhost_iommu.guest.verdict import Verdict

    reports: list[Report] = []
    for number in range(1, args.repeat + 1):
        keep = args.keep / str(number) if args.keep is not None else None
        report = _once(args, progress, keep, noted=number > 1)
        reports.append(report)
        if not args.json:
            progress.clear()
            print(f"run {number}: ", end="")
            _tell(args, report)
        if report.verdict is Verdict.INTERRUPTED or (report.verdict is not Verdict.PASSED and not args.keep_going):
            break
    _write_junit(args, reports)
    passed = sum(report.verdict is Verdict.PASSED for report in reports)
    if args.json:
        print(json.dumps({"asked": args.repeat, "passed": passed, "runs": [json.loads(to_json(r)) for r in reports]}))
    else:
        early = f"; {args.repeat} were asked for" if len(reports) < args.repeat else ""
        print(f"{passed} of {len(reports)} runs passed{early}")
    return next((int(report.verdict) for report in reports if report.verdict is not Verdict.PASSED), EXIT_OK)


def _tell(args: argparse.Namespace, report: Report) -> None:
    from vhost_iommu.guest.report import to_json
    from vhost_iommu.guest.verdict import Verdict

    if args.json:
        print(to_json(report))
        return
    if not args.quiet and args.repeat is None:
        _tell_more(args, report)
    colour = "green" if report.verdict is Verdict.PASSED else "red"
    print(f"{paint(report.verdict.name.lower(), colour)}: {report.why}, in {report.seconds:.1f} s", flush=True)
    if report.folder is not None:
        print(f"the console and all else is in {report.folder}")


def _tell_more(args: argparse.Namespace, report: Report) -> None:
    """What the models did, and how a guest stood that did not end well."""
    from vhost_iommu.guest.verdict import Verdict

    lines = report.account.lines()
    if report.verdict in (Verdict.DIED, Verdict.INTERRUPTED):
        if not args.console:
            lines += [("console", line) for line in report.last_lines]
        lines += [("guest", line) for line in report.stand_lines]
    width = max((len(subject) for subject, _ in lines), default=0)
    for subject, text in lines:
        print(f"{subject:{width}}  {text}")


def _write_junit(args: argparse.Namespace, reports: Sequence[Report]) -> None:
    from vhost_iommu.guest.report import to_junit

    if args.junit is None:
        return
    try:
        args.junit.write_bytes(to_junit(reports, Path(args.machine).stem))
    except OSError as error:
        raise UsageError(
            f"{args.junit} cannot be written ({error.strerror}); name another file with --junit"
        ) from error


def _result_line(result: Result) -> str:
    if result.skipped is not None:
        return f"{paint('skip', 'yellow')}  {result.name}  ({result.skipped})"
    if result.passed:
        return f"{paint('pass', 'green')}  {result.name}"
    return "\n".join([f"{paint('FAIL', 'red')}  {result.name}", *(f"      {note}" for note in result.notes)])
