# SPDX-License-Identifier: Apache-2.0
"""The command ``vhost-iommu``: serve a machine, run a guest on it, read what either says. One module for each verb.

Law: an operator's mistake is one line on standard error that says the mend, and exit code 2; a fault of ours is a
traceback and 70. Results go to standard output, progress to standard error.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence

from vhost_iommu.cli import assets, decode, look, machine, run, serve
from vhost_iommu.cli.common import (
    EXIT_INTERRUPTED,
    EXIT_OURS,
    EXIT_UNREAD,
    EXIT_UNTESTABLE,
    EXIT_USAGE,
    Help,
    Parser,
    look_at_core,
    tell_of_core,
)
from vhost_iommu.cli.completion import SHELLS, PrintCompletion
from vhost_iommu.errors import UsageError
from vhost_iommu.terminal import LogHandler
from vhost_iommu.version import __version__

#: Of a run's exit codes, those that judge a revision, as ``git bisect run`` takes them; Ctrl-C ends the bisection.
_BISECT = {0: 0, 1: 1, 3: 1, EXIT_INTERRUPTED: EXIT_INTERRUPTED}

_EPILOG = """\
examples:
  vhost-iommu doctor                              what is here, and how to get what is not
  vhost-iommu run smmuv3-bare                     a bare-metal guest, in about a second
  vhost-iommu run smmuv3-linux --trace t.json     a Debian kernel; open t.json in ui.perfetto.dev
  vhost-iommu serve two-smmus --socket-dir /run/x for a QEMU of your own; prints its whole line
  vhost-iommu map two-smmus                       addresses, interrupts, StreamIDs for a program of your own
  vhost-iommu show                                into a machine that runs, or ran: streams, queues, faults
  dmesg | vhost-iommu decode                      what a kernel log reports of SMMUs, and why

MACHINE is a name in qemu-configs/ or a path to a machine file.
exit codes: 0 passed, 1 a test in the guest failed or something needed is missing, 2 your mistake,
  3 the guest died or its time was over, 4 the guest skipped all of its tests, 70 a fault of vhost-iommu
  itself, 130 Ctrl-C, 141 nobody read the output to its end; 'run --bisect' has git's
environment: VI_QEMU, VI_KERNEL_6_12, VI_HEADERS_6_12, VI_BUSYBOX, VI_CROSS name things by hand, as doctor
  says; VI_MIRROR names a Debian mirror, VI_CACHE the folder for downloads; NO_COLOR turns colour off;
  VHOST_IOMMU_PURE=1 leaves the compiled core aside
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if "--bisect" not in _ours(argv):
        return _main(argv)
    try:
        return _BISECT.get(_main(argv), EXIT_UNTESTABLE)
    except SystemExit:  # argparse has given help
        return EXIT_UNTESTABLE


def _main(argv: Sequence[str]) -> int:
    try:
        args = _parse(argv)
        logging.basicConfig(
            level=args.log_level.upper(), format="vhost-iommu: %(name)s: %(message)s", handlers=[LogHandler()]
        )
        command: Callable[[argparse.Namespace], int] = args.command
        code = command(args)
        print(end="", flush=True)  # what cannot be written is told here, and not at the interpreter's end
        return code
    except UsageError as error:
        print(f"vhost-iommu: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("vhost-iommu: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it; keep the interpreter from complaining at its end, too.
        _forget_output()
        return EXIT_UNREAD
    except Exception as error:
        if isinstance(error, OSError) and _unwritten():
            _forget_output()
            print(f"vhost-iommu: standard output: {error.strerror}; write it to where there is room", file=sys.stderr)
            return EXIT_USAGE
        traceback.print_exc()
        print("vhost-iommu: this is a fault of vhost-iommu itself; please report the lines above", file=sys.stderr)
        return EXIT_OURS


def _unwritten() -> bool:
    """Whether something is left that standard output does not take."""
    try:
        print(end="", flush=True)
    except OSError:
        return True
    return False


def _forget_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- what may be said ----------------------------------------------------------------------------------------------


def _ours(argv: Sequence[str]) -> Sequence[str]:
    """What is before "--": the rest is QEMU's."""
    return argv[: list(argv).index("--")] if "--" in argv else argv


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    # argparse alone would take what follows "--" only right after MACHINE.
    ours = _ours(argv)
    args, unknown = parser().parse_known_args(ours)
    if unknown:
        raise UsageError(_not_ours(unknown, args))
    args.qemu_args = tuple(argv[len(ours) + 1 :])
    if args.qemu_args and not args.takes_qemu_args:
        raise UsageError("only 'run' passes on what follows '--'; leave that out")
    return args


def _not_ours(unknown: Sequence[str], args: argparse.Namespace) -> str:
    """What is to be done about arguments that the command does not have."""
    usage = args.parser.format_usage()
    said = f"'{args.parser.prog.split()[-1]}' takes no {unknown[0]!r}"
    if near := difflib.get_close_matches(unknown[0].partition("=")[0], re.findall(r"--[a-z-]+\b", usage), 1):
        return f"{said}; did you mean '{near[0]}'?"
    if args.takes_qemu_args:
        return f"{said}; what is QEMU's goes behind '--': {shlex.join(['--', *unknown])}"
    return f"{said}; see {args.parser.prog} --help"


def parser() -> argparse.ArgumentParser:
    """All that may be said; man pages, completion and the manual are made of it."""
    parser = Parser(
        prog="vhost-iommu",
        description="ARM SMMUs with DMA masters behind them, served to QEMU guests over vfio-user.",
        epilog=_EPILOG,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vhost-iommu {__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help=f"print what has {' or '.join(SHELLS)} complete this command",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, formatter_class=Help, allow_abbrev=False)
        made.set_defaults(command=run, parser=made, takes_qemu_args=False)
        made.add_argument(
            "--log-level",
            default="warning",
            choices=("debug", "info", "warning", "error"),
            metavar="LEVEL",
            help="debug, info, warning (default) or error",
        )
        return made

    for verb in (serve, run, look, decode, machine, assets):
        verb.add(command)
    command("demo", _demo, "Run the guests one after the other and tell what happened.")
    return parser


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return dict(commands.choices)


def _demo(args: argparse.Namespace) -> int:
    from vhost_iommu.demo import demo

    look_at_core()
    tell_of_core()
    return demo()
