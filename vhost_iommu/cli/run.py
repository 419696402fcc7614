# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu run``: a guest on a machine, and what it says of itself."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vhost_iommu.cli.common import EXIT_OK, Add, seconds, trace_option, tracing
from vhost_iommu.terminal import Progress, paint

if TYPE_CHECKING:
    from vhost_iommu.guest.ktap import Result


def add(command: Add) -> None:
    run = command("run", _run, "Run a guest on a machine and say what it says of itself.")
    run.add_argument("machine", metavar="MACHINE")
    run.add_argument("--kernel", metavar="K", help="an arm64 Image, or a Debian kernel such as 6.1 (linux)")
    run.add_argument("--initrd", type=Path, metavar="F", help="an initial RAM file system of yours (linux)")
    run.add_argument("--append", metavar="S", help="more of the kernel's command line, or a program's arguments")
    run.add_argument("--elf", metavar="F", help="another program (bare)")
    run.add_argument("--qemu", type=Path, metavar="F", help="another QEMU, 10.1 or newer")
    run.add_argument("--timeout", type=seconds, metavar="S", help="seconds until the guest is taken for dead")
    run.add_argument("--keep", type=Path, metavar="DIR", help="keep console.log, qemu.cmd and all else there")
    trace_option(run)
    run.add_argument("--dry-run", action="store_true", help="print the QEMU command line instead")
    run.add_argument("--console", action="store_true", help="show the guest's console as it comes")
    run.add_argument("--json", action="store_true", help="the result for other programs")
    run.usage = f"{run.format_usage().removeprefix('usage: ').rstrip()} [-- QEMU ARGS…]"
    run.set_defaults(takes_qemu_args=True)


def _run(args: argparse.Namespace) -> int:
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest.assets import Assets
    from vhost_iommu.guest.ktap import Ktap
    from vhost_iommu.guest.launch import Launch, Wishes
    from vhost_iommu.guest.report import to_json
    from vhost_iommu.guest.verdict import Verdict

    config = load_machine(args.machine)
    wishes = Wishes(
        kernel=args.kernel,
        initrd=args.initrd,
        append=args.append,
        elf=args.elf,
        qemu=args.qemu,
        timeout=args.timeout,
        keep=args.keep,
        extra=args.qemu_args,
    )
    with Progress() as progress, tracing(args.trace) as trace:
        ktap = Ktap()

        def line_came(line: str) -> None:
            if args.console:
                progress.clear()
                print(line, flush=True)
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
