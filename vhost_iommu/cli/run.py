# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu run``: a guest on a machine, and what it says of itself."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vhost_iommu.cli.common import EXIT_OK, Add, seconds, trace_option, tracing
from vhost_iommu.errors import UsageError
from vhost_iommu.terminal import Progress, paint

if TYPE_CHECKING:
    from vhost_iommu.guest.ktap import Result


_EPILOG = """\
A guest passes when it reports each of its tests in KTAP (docs.kernel.org/dev-tools/ktap.html) on its console, which
is ttyAMA0 (a PL011 at 0x9000000), none has failed, and it then turns itself off. A test that it skips is counted and
named, and has not passed. The guest has died when it says so (panic, oops, BUG), is reset, ends before its last test,
or its time is over; then its last lines are shown, and where each of its CPUs stands. Guests that speak no KTAP (an
initial RAM file system, an ELF or a firmware of yours) pass by --success or --exit-only; deaths, and failed tests if
it does speak KTAP, count all the same.

exit codes: 0 passed, 1 a test failed, 3 the guest died, 4 each test was skipped, 2 your mistake, 70 our fault.
  With --bisect: 0 passed, 1 a test failed or the guest died, 125 everything else (a kernel that did not build and
  so is not there, a mistake in this line, skipped tests alone, our fault), which has 'git bisect run' skip the
  revision:   git bisect run sh -c 'make -j8 Image || exit 125; vhost-iommu run M --kernel . --bisect'
"""


def add(command: Add) -> None:
    run = command("run", _run, "Run a guest on a machine and say what it says of itself.")
    run.add_argument("machine", metavar="MACHINE", help="a name in qemu-configs/, or a path to a machine file")

    guest = run.add_argument_group("what runs")
    guest.add_argument("--kernel", metavar="K", help="an arm64 Image, or a Debian kernel such as 6.1 (linux)")
    guest.add_argument("--initrd", type=Path, metavar="F", help="an initial RAM file system of yours (linux)")
    guest.add_argument("--append", metavar="S", help="more of the kernel's command line, or a program's arguments")
    guest.add_argument("--elf", metavar="F", help="another program (bare)")
    guest.add_argument("--qemu", type=Path, metavar="F", help="another QEMU, 10.1 or newer")

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
    told.add_argument("--json", action="store_true", help="the result for other programs, alone on standard output")
    run.usage = f"{run.format_usage().removeprefix('usage: ').rstrip()} [-- QEMU ARGS…]"
    run.epilog, run.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    run.set_defaults(takes_qemu_args=True)


def _run(args: argparse.Namespace) -> int:
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest.assets import Assets
    from vhost_iommu.guest.ktap import Ktap
    from vhost_iommu.guest.launch import Launch, Wishes
    from vhost_iommu.guest.report import to_json
    from vhost_iommu.guest.verdict import Verdict

    if args.bisect and args.dry_run:
        raise UsageError("--bisect judges a run, and --dry-run makes none; leave one out")
    config = load_machine(args.machine)
    wishes = Wishes(
        kernel=args.kernel,
        initrd=args.initrd,
        append=args.append,
        elf=args.elf,
        qemu=args.qemu,
        timeout=args.timeout,
        success=args.success,
        failure=args.failure,
        exit_only=args.exit_only,
        keep=args.keep,
        extra=args.qemu_args,
    )
    with Progress() as progress, tracing(args.trace) as trace:
        ktap = Ktap()

        def line_came(line: str) -> None:
            if args.console:
                progress.clear()
                print(line, flush=True, file=sys.stderr if args.json else sys.stdout)
            result = ktap.feed(line)
            if result is None or args.json:
                progress.live(line)
            elif not args.console:
                progress.clear()
                print(_result_line(result), flush=True)

        launch = Launch(config, wishes, trace=trace, assets=Assets(progress=progress.say), on_line=line_came)
        if args.dry_run:
            with closing(launch):
                line, folder = launch.guest_run.dry_run()
            progress.clear()
            print(json.dumps({"command": line, "folder": str(folder)}) if args.json else line)
            return EXIT_OK
        with closing(launch):
            report = launch.run()
    if args.json:
        print(to_json(report))
    else:
        verdict = report.verdict
        colour = "green" if verdict is Verdict.PASSED else "red"
        print(f"{paint(verdict.name.lower(), colour)}: {report.why}, in {report.seconds:.1f} s")
        if report.folder is not None:
            print(f"the console and all else is in {report.folder}")
    return int(report.verdict)


def _result_line(result: Result) -> str:
    if result.skipped is not None:
        return f"{paint('skip', 'yellow')}  {result.name}  ({result.skipped})"
    if result.passed:
        return f"{paint('pass', 'green')}  {result.name}"
    return "\n".join([f"{paint('FAIL', 'red')}  {result.name}", *(f"      {note}" for note in result.notes)])
