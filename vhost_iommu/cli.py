# SPDX-License-Identifier: Apache-2.0
"""The command ``vhost-iommu``: serve a machine, run a guest on it, read what either says.

Law: an operator's mistake is one line on standard error that says the mend, and exit code 2; a fault of ours is a
traceback and 70. Results go to standard output, progress to standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .errors import UsageError
from .terminal import Progress, paint

if TYPE_CHECKING:
    from .guest.ktap import Result
    from .trace import Trace

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_DIED, EXIT_OURS = 0, 1, 2, 3, 70
_INTERRUPTED = 130

_EPILOG = """\
examples:
  vhost-iommu doctor                              what is here, and how to get what is not
  vhost-iommu run smmuv3-bare                     a bare-metal guest, in about a second
  vhost-iommu run smmuv3-linux --trace t.json     a Debian kernel; open t.json in ui.perfetto.dev
  vhost-iommu serve two-smmus --socket-dir /run/x for a QEMU of your own
  vhost-iommu decode event 0x0000010000000010 0 0xffffffffc000
                                                  the words of an "event 0x10 received" in a kernel log

MACHINE is a name in qemu-configs/ or a path to a machine file.
exit codes: 0 passed, 1 a test in the guest failed or something needed is missing, 2 your mistake,
  3 the guest died or its time was over, 70 a fault of vhost-iommu itself
environment: VI_QEMU, VI_KERNEL_6_12, VI_BUSYBOX, VI_CROSS name things by hand, VI_CACHE the folder for
  downloads; NO_COLOR turns colour off; VHOST_IOMMU_PURE=1 leaves the compiled core aside
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; the exit code."""
    try:
        args = _parse(sys.argv[1:] if argv is None else argv)
        logging.basicConfig(level=args.log_level.upper(), format="vhost-iommu: %(name)s: %(message)s")
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)
    except UsageError as error:
        print(f"vhost-iommu: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it; keep the interpreter from complaining at its end, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception:
        traceback.print_exc()
        print("vhost-iommu: this is a fault of vhost-iommu itself; please report the lines above", file=sys.stderr)
        return EXIT_OURS


# -- what may be said ----------------------------------------------------------------------------------------------


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    # What follows "--" is QEMU's. argparse alone would take it only right after MACHINE.
    cut = list(argv).index("--") if "--" in argv else len(argv)
    args = _parser().parse_args(argv[:cut])
    args.qemu_args = tuple(argv[cut + 1 :])
    if args.qemu_args and args.command is not _run:
        raise UsageError("only 'run' passes on what follows '--'; leave that out")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vhost-iommu",
        description="ARM SMMUs with DMA masters behind them, served to QEMU guests over vfio-user.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vhost-iommu {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(command=run)
        made.add_argument(
            "--log-level", default="warning", choices=("debug", "info", "warning", "error"), help="default: warning"
        )
        return made

    serve = command("serve", _serve, "Serve a machine's PCI functions to a QEMU that you start.")
    serve.add_argument("machine", metavar="MACHINE")
    where = serve.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket-dir", type=Path, metavar="D", help="listen at D/NAME.sock for each SMMU")
    where.add_argument("--socket-path", type=Path, metavar="P", help="listen at P (a machine with one SMMU)")
    where.add_argument("--fd", type=int, metavar="N", help="an inherited socket, listening or connected (likewise)")
    _trace_option(serve)

    run = command("run", _run, "Run a guest on a machine and say what it says of itself.")
    run.add_argument("machine", metavar="MACHINE")
    run.add_argument("--kernel", metavar="K", help="an arm64 Image, or a Debian kernel such as 6.1 (linux)")
    run.add_argument("--initrd", type=Path, metavar="F", help="an initial RAM file system of yours (linux)")
    run.add_argument("--append", metavar="S", help="more of the kernel's command line, or a program's arguments")
    run.add_argument("--elf", metavar="F", help="another program (bare)")
    run.add_argument("--qemu", type=Path, metavar="F", help="another QEMU, 10.1 or newer")
    run.add_argument("--timeout", type=_seconds, metavar="S", help="seconds until the guest is taken for dead")
    run.add_argument("--keep", type=Path, metavar="DIR", help="keep console.log, qemu.cmd and all else there")
    _trace_option(run)
    run.add_argument("--dry-run", action="store_true", help="print the QEMU command line instead")
    run.add_argument("--console", action="store_true", help="show the guest's console as it comes")
    run.add_argument("--json", action="store_true", help="the result for other programs")
    run.usage = f"{run.format_usage().removeprefix('usage: ').rstrip()} [-- QEMU ARGS…]"

    decode = command("decode", _decode, "Turn words of a kernel log into named fields.")
    decode.add_argument("kind", metavar="KIND", help="ste, cd, l1ste, l1cd, command, event, pri, pte or register")
    decode.add_argument("words", nargs="+", metavar="WORD", help="64 bits each in hex, lowest first")
    decode.add_argument("--json", action="store_true", help="the same for other programs")

    tree = command("dtb", _dtb, "Write the device tree with which a Linux guest finds the machine.")
    tree.add_argument("machine", metavar="MACHINE")
    tree.add_argument("-o", "--output", type=Path, required=True, metavar="F")

    doctor = command("doctor", _doctor, "Say what guests need, what of it is here, and how to get the rest.")
    doctor.add_argument("--json", action="store_true", help="the same for other programs")

    command("fetch", _fetch, "Fetch whatever guests need and this machine lacks; nothing needs root.")
    command("demo", _demo, "Run the guests one after the other and tell what happened.")
    return parser


def _trace_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trace", type=Path, metavar="F", help="each access, command, translation: F.json for ui.perfetto.dev, or text"
    )


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")


# -- what is done --------------------------------------------------------------------------------------------------


def _decode(args: argparse.Namespace) -> int:
    from .decode import decode_words

    decoded = decode_words(args.kind, args.words)
    print(json.dumps(decoded.json(), indent=1) if args.json else decoded.text())
    return EXIT_OK


def _doctor(args: argparse.Namespace) -> int:
    from .guest.assets import Assets

    found = Assets().prerequisites()
    lacking = [each for each in found if not each.found and each.name not in _TO_FETCH and not _spare(each.name)]
    # What fetches is needed when there is something to fetch.
    optional = {each.name for each in found if _spare(each.name) or (each.name in _TO_FETCH and not lacking)}
    if args.json:
        table = [
            {
                "name": each.name,
                "found": each.found,
                "needed": each.name not in optional,
                "where": each.where,
                "mend": None if each.found else each.mend,
            }
            for each in found
        ]
        print(json.dumps(table, indent=1))
        return EXIT_FAILED if lacking else EXIT_OK
    width = max(len(each.name) for each in found)
    for each in found:
        state = "ok" if each.found else "optional" if each.name in optional else "missing"
        colour = {"ok": "green", "optional": "dim", "missing": "red"}[state]
        text = each.where if each.found else f"{each.where}; {each.mend}"
        print(f"{paint(f'{state:8}', colour)}  {each.name:{width}}  {text}")
    return EXIT_FAILED if lacking else EXIT_OK


#: What is needed only to fetch something else.
_TO_FETCH = ("apt-get, dpkg-deb", "disk space")


def _spare(name: str) -> bool:
    """Kernels but the default one, which machines that name them need; and what is better with than without."""
    return (name.startswith("kernel ") and name != "kernel 6.12") or name == "libatomic"


def _fetch(args: argparse.Namespace) -> int:
    from .guest.assets import Assets

    with Progress() as progress:
        Assets(progress=progress.say).fetch_all()
    return EXIT_OK


def _demo(args: argparse.Namespace) -> int:
    from .demo import demo

    return demo()


def _serve(args: argparse.Namespace) -> int:
    from .config import load_machine
    from .daemon import Daemon
    from .guest.mapping import platform_of, wires_of
    from .guest.qemu import vfio_user
    from .server import serve_forever

    config = load_machine(args.machine)
    platform = platform_of(config)
    if args.socket_dir is not None:
        try:
            args.socket_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{args.socket_dir}: {error.strerror}; name another folder") from error
    with _tracing(args.trace) as trace:
        daemon = Daemon(
            config,
            args.socket_dir,
            paths=[] if args.socket_path is None else [args.socket_path],
            fds=[] if args.fd is None else [args.fd],
            wires=wires_of(platform),
            trace=trace,
        )

        def ready() -> None:
            if daemon.sockets:
                print(f"{config.name}: guest RAM must be shared; QEMU's arguments:", file=sys.stderr)
            for function, path in zip(platform.functions, daemon.sockets, strict=False):
                print(shlex.join(vfio_user(path.absolute(), function.slot)), flush=True)

        try:
            serve_forever(daemon.server, ready)
        finally:
            daemon.stop()
        if daemon.failure is not None:
            raise daemon.failure
    return EXIT_OK


def _run(args: argparse.Namespace) -> int:
    from .config import load_machine
    from .guest.assets import Assets
    from .guest.ktap import Ktap
    from .guest.launch import Launch, Wishes
    from .guest.run import Verdict, to_json

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
    with Progress() as progress, _tracing(args.trace) as trace:
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


def _dtb(args: argparse.Namespace) -> int:
    from .config import load_machine
    from .guest.assets import Assets
    from .guest.launch import device_tree

    with Progress() as progress:
        tree = device_tree(load_machine(args.machine), Assets(progress=progress.say))
    try:
        args.output.write_bytes(tree)
    except OSError as error:
        raise UsageError(f"{args.output} cannot be written ({error.strerror}); name another file with -o") from error
    return EXIT_OK


@contextmanager
def _tracing(path: Path | None) -> Iterator[Trace | None]:
    """The trace that the operator asked for; whole on disk afterwards, whatever happened."""
    if path is None:
        yield None
        return
    from .trace import Trace

    try:
        trace = Trace.file(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name another file with --trace") from error
    with trace:
        yield trace
