# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu serve``: a machine for a QEMU that the operator starts."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

from vhost_iommu.cli.common import (
    EXIT_OK,
    Add,
    fault_option,
    faults_of,
    look_at_core,
    machine_argument,
    tell_of_core,
    trace_option,
    tracing,
)
from vhost_iommu.errors import UsageError
from vhost_iommu.terminal import filled

_READY = """\
{0}: ready; a QEMU line for a program of yours follows. Beside -device it needs shared RAM (-M memory-backend, -object).
'vhost-iommu map {0}' says what the program must write first, and where all is.\
"""

_EPILOG = """\
It goes on until Ctrl-C; a QEMU may come when another has gone, and finds the models as after a reset.

examples:
  vhost-iommu serve two-smmus --socket-dir /run/x            prints the whole line of a QEMU for it
  vhost-iommu serve smmuv3-bare --socket-path /run/x.sock --trace t.json
  vhost-iommu serve two-smmus --socket-dir /run/x --libvirt  for a domain of 'vhost-iommu xml two-smmus --keep /run/x'
"""


def add(command: Add) -> None:
    serve = command("serve", _serve, "Serve a machine's PCI functions to a QEMU that you start.")
    machine_argument(serve)
    where = serve.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket-dir", type=Path, metavar="D", help="listen at D/NAME.sock for each SMMU")
    where.add_argument("--socket-path", type=Path, metavar="P", help="listen at P (a machine with one SMMU)")
    where.add_argument("--fd", type=int, metavar="N", help="an inherited socket, listening or connected (likewise)")
    serve.add_argument(
        "--control", type=Path, metavar="P", help="the control socket's path (default: where 'ctl' and 'show' look)"
    )
    serve.add_argument(
        "--libvirt",
        nargs="?",
        const="qemu:///session",
        metavar="URI",
        help="destroy the domains of its sockets, which would hang, when it ends, however it ends (default: "
        "qemu:///session)",
    )
    fault_option(serve)
    trace_option(serve)
    serve.epilog = _EPILOG


def _serve(args: argparse.Namespace) -> int:
    from vhost_iommu.config import load_machine, with_faults
    from vhost_iommu.daemon import Daemon
    from vhost_iommu.guest.assets import QEMU, Assets
    from vhost_iommu.guest.folder import control_socket
    from vhost_iommu.guest.launch import hardware_of
    from vhost_iommu.guest.libvirt.warden import watched
    from vhost_iommu.guest.mapping import platform_of, wires_of
    from vhost_iommu.guest.qemu import own_line
    from vhost_iommu.server import serve_forever

    config = with_faults(load_machine(args.machine), faults_of(args))
    if args.libvirt is not None and args.fd is not None:
        raise UsageError("--libvirt finds domains by the paths of sockets; say --socket-dir instead of --fd")
    look_at_core()
    platform = platform_of(config)
    qemu = None if args.fd is not None else Assets().qemu_here()
    if args.socket_dir is not None:
        try:
            args.socket_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{args.socket_dir}: {error.strerror}; name another folder") from error
    with ExitStack() as stack, tracing(args.trace, args.trace_only) as trace:
        daemon = Daemon(
            config,
            args.socket_dir,
            paths=[] if args.socket_path is None else [args.socket_path],
            fds=[] if args.fd is None else [args.fd],
            wires=wires_of(platform),
            trace=trace,
            control=args.control or control_socket(config.name),
        )

        def ready() -> None:
            tell_of_core()
            if not daemon.sockets:
                return
            if args.libvirt is not None:
                for name in stack.enter_context(watched(args.libvirt, daemon.sockets)):
                    print(f"the domain {name}, whose server was gone, was destroyed", file=sys.stderr)
            slots = [function.slot for function in platform.functions]
            sockets = [(path.absolute(), slot) for path, slot in zip(daemon.sockets, slots, strict=True)]
            print(filled(_READY.format(config.name)), file=sys.stderr)
            if qemu is None:
                print(f"{QEMU} of 10.1 or newer is not here; 'vhost-iommu fetch' gets one", file=sys.stderr)
            print(shlex.join(own_line(qemu, hardware_of(config), sockets)), flush=True)

        try:
            serve_forever(daemon.server, ready)
        finally:
            daemon.stop()
        if daemon.failure is not None:
            raise daemon.failure
        for name, fault, struck in daemon.machine.lab.account():
            print(f"{name}: the fault '{fault}' struck {struck or 'never'}", file=sys.stderr)
    return EXIT_OK
