# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu run`` with a guest that is spoken with: ``--shell``, ``--exec CMD``, ``--gdb``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from vhost_iommu.cli.common import EXIT_DIED, EXIT_OK, tell_of_core, tracing
from vhost_iommu.errors import UsageError
from vhost_iommu.terminal import Progress, paint

if TYPE_CHECKING:
    from vhost_iommu.guest.live import Guest

#: Where gdb finds the guest, unless --gdb says otherwise.
GDB_PORT = 1234
#: What leaves the guest's shell: ^].
_LEAVES = b"\x1d"
#: Options of runs that judge their guest.
_JUDGES = ("cases", "case", "repeat", "list", "dry_run", "success", "failure", "exit_only", "junit", "json", "bisect")


def asked(args: argparse.Namespace) -> bool:
    """Whether the guest is to be spoken with; UsageError where what else is asked goes another way."""
    if not args.shell and args.exec is None:
        return False
    said = "--shell" if args.shell else "--exec"
    if other := next((each for each in _JUDGES if getattr(args, each)), None):
        raise UsageError(f"--{other.replace('_', '-')} is for a guest that runs its tests; leave it or {said} out")
    return True


def run(args: argparse.Namespace, progress: Progress) -> int:
    """The exit status of the command; of a shell 0, if the guest did not die."""
    from vhost_iommu.guest.live import CommandError, GuestDiedError, GuestError, GuestTimeoutError

    try:
        with tracing(args.trace, args.trace_only) as trace, _boot(args, progress, trace) as guest:
            progress.clear()
            tell_of_core()
            return _shell(guest) if args.shell else _exec(guest, args)
    except CommandError as error:
        return error.done.status
    except GuestError as error:
        progress.clear()
        whose = "" if isinstance(error, GuestDiedError | GuestTimeoutError) else f" (the fault is {error.whose})"
        print(f"vhost-iommu: {error}{whose}", file=sys.stderr)
        if error.folder is not None:
            print(f"the console and all else is in {error.folder}", file=sys.stderr)
        return EXIT_DIED


@contextmanager
def _boot(args: argparse.Namespace, progress: Progress, trace: Any) -> Iterator[Guest]:
    from vhost_iommu.cli.common import faults_of
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest.assets import Assets
    from vhost_iommu.guest.live import boot

    def line_came(line: str) -> None:
        if args.console:
            progress.clear()
            print(line, file=sys.stderr, flush=True)
        else:
            progress.live(line)

    def note_came(text: str) -> None:
        progress.clear()
        print(f"{paint('note', 'yellow', sys.stderr)}  {text}", file=sys.stderr, flush=True)

    config = load_machine(args.machine)
    if config.guest.kind != "linux":
        raise UsageError(f"{config.name} runs a bare-metal program; --shell and --exec are for machines with Linux")
    listening = [line_came]
    with boot(
        config,
        kernel=args.kernel,
        append=args.append,
        initrd=args.initrd,
        initrd_extra=args.initrd_extra,
        headers=args.headers,
        modules=args.module,
        faults=faults_of(args),
        qemu=args.qemu,
        qemu_args=args.qemu_args,
        keep=args.keep,
        launcher=args.launcher,
        gic=args.gic,
        accel=args.accel,
        paused=args.gdb is not None,
        on_line=lambda line: listening[0](line),
        on_note=note_came,
        allow=[""],
        trace=trace,
        assets=Assets(progress=progress.say),
    ) as guest:
        if args.gdb is not None:
            progress.clear()
            guest.debug(args.gdb)
            print(f"vhost-iommu: the guest waits for gdb: {_gdb(guest, args.gdb)}", file=sys.stderr, flush=True)
            guest.wait_up(timeout=math.inf)
        listening[0] = lambda line: None
        yield guest


def _gdb(guest: Guest, port: int) -> str:
    symbols = f" {guest.vmlinux}" if guest.vmlinux is not None else ""
    return f"gdb-multiarch{symbols} -ex 'target remote :{port}'"


def _exec(guest: Guest, args: argparse.Namespace) -> int:
    def said(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    guest.run(args.exec, timeout=args.timeout or math.inf, on_output=said)
    return EXIT_OK


def _shell(guest: Guest) -> int:
    """The operator's terminal is the guest's, until it turns itself off or ^] is typed."""
    if sys.stdin.isatty():
        size = os.get_terminal_size(sys.stdin.fileno())
        guest.run(f"stty -F /dev/ttyAMA0 rows {size.lines} cols {size.columns}", check=False)
    print("vhost-iommu: the guest's shell; ^] or 'exit' ends it", file=sys.stderr, flush=True)

    def said(data: bytes) -> None:
        with suppress(BrokenPipeError):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    with _raw(sys.stdin.fileno()) as terminal, guest.overheard(said):
        guest.send("")
        while guest.running:
            typed = os.read(sys.stdin.fileno(), 1 << 12)
            if typed == _LEAVES or (not typed and not terminal):
                break
            if typed:
                guest.send(typed.decode(errors="replace"), enter=False)
        if not terminal and guest.running:
            # Whoever typed from a file has said all: the shell ends as by ^D, after what it still does.
            guest.send("exit")
            guest.wait_end(timeout=math.inf)
    return EXIT_OK


@contextmanager
def _raw(fd: int) -> Iterator[bool]:
    """A terminal gives each key as it is typed, and nothing after a moment; whether it is one."""
    import termios
    import tty

    if not os.isatty(fd):
        yield False
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        now = termios.tcgetattr(fd)
        now[6][termios.VMIN], now[6][termios.VTIME] = 0, 2
        termios.tcsetattr(fd, termios.TCSANOW, now)
        yield True
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def gdb_arguments(args: argparse.Namespace) -> tuple[str, ...]:
    """QEMU's, of a guest that runs its tests and waits for gdb first."""
    if args.gdb is None:
        return ()
    print(f"vhost-iommu: the guest waits for gdb: target remote :{args.gdb}", file=sys.stderr, flush=True)
    return ("-gdb", f"tcp:127.0.0.1:{args.gdb}", "-S")


def port(text: str) -> int:
    """Of --gdb."""
    if text.isdecimal() and 0 < int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port; take a number from 1 to 65535")
