# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu map``, ``dtb`` and ``xml``: what of a machine file a guest of one's own needs to know."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

from vhost_iommu.cli.common import EXIT_OK, Add, machine_argument
from vhost_iommu.errors import UsageError
from vhost_iommu.terminal import Progress

_EPILOG = """\
examples:
  vhost-iommu map smmuv3-bare --c-header > map.h             for a program of your own
  vhost-iommu map two-smmus --json | jq .smmus
  vhost-iommu map two-smmus | grep ^write                    what must be written first
"""


_XML_EPILOG = """\
The files that it names stay, in a folder that standard error names. Serve the machine there before the domain starts:
libvirt knows nothing of vfio-user, so that the domain does not wait for its server; and with --libvirt it ends with it.
'vhost-iommu run --launcher libvirt' takes care of all.

examples:
  vhost-iommu xml two-smmus --keep /run/x > two.xml
  vhost-iommu serve two-smmus --socket-dir /run/x --libvirt &
  virsh -c qemu:///session create two.xml --console
"""


def add(command: Add) -> None:
    where = command("map", _map, "Say where all of a machine is in its guest, and what must be written first.")
    where.epilog = _EPILOG
    machine_argument(where)
    form = where.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the same for other programs")
    form.add_argument("--c-header", action="store_true", help="the same for C and assembly")
    form.add_argument("--dts", action="store_true", help="what to add to the source of QEMU's own device tree")
    tree = command("dtb", _dtb, "Write the device tree with which a Linux guest finds the machine.")
    machine_argument(tree)
    tree.add_argument("-o", "--output", type=Path, required=True, metavar="F", help="write it there")

    domain = command("xml", _xml, "Print a machine's guest as a domain of libvirt.")
    domain.epilog = _XML_EPILOG
    machine_argument(domain)
    domain.add_argument("--kernel", metavar="K", help="as of 'run' (linux)")
    domain.add_argument("--append", metavar="S", help="more of the kernel's command line, or a program's arguments")
    domain.add_argument("--elf", metavar="F", help="another program (bare)")
    domain.add_argument("--qemu", type=Path, metavar="F", help="another QEMU, 10.1 or newer")
    domain.add_argument("--gic", type=int, choices=(2, 3), metavar="N", help="as of 'run'")
    domain.add_argument("--accel", choices=("tcg", "kvm"), default="tcg", metavar="A", help="as of 'run'")
    domain.add_argument("--keep", type=Path, metavar="DIR", help="put the files that it names there")


def _map(args: argparse.Namespace) -> int:
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest import addresses, devicetree
    from vhost_iommu.guest.mapping import platform_of

    config = load_machine(args.machine)
    if args.dts:
        print(devicetree.source(platform_of(config), config.guest.gic), end="")
        return EXIT_OK
    form = addresses.as_json if args.json else addresses.as_header if args.c_header else addresses.as_text
    print(form(addresses.address_map(config)))
    return EXIT_OK


def _dtb(args: argparse.Namespace) -> int:
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest.assets import Assets
    from vhost_iommu.guest.launch import device_tree

    with Progress() as progress:
        tree = device_tree(load_machine(args.machine), Assets(progress=progress.say))
    try:
        args.output.write_bytes(tree)
    except OSError as error:
        raise UsageError(f"{args.output} cannot be written ({error.strerror}); name another file with -o") from error
    return EXIT_OK


def _xml(args: argparse.Namespace) -> int:
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest.assets import Assets
    from vhost_iommu.guest.launch import Launch, Wishes

    wishes = Wishes(
        kernel=args.kernel,
        append=args.append,
        elf=args.elf,
        qemu=args.qemu,
        keep=args.keep,
        launcher="libvirt",
        gic=args.gic,
        accelerator=args.accel,
    )
    with Progress() as progress:
        launch = Launch(load_machine(args.machine), wishes, assets=Assets(progress=progress.say))
        with closing(launch):
            text, folder = launch.guest_run.dry_run()
    print(f"vhost-iommu: what it names is in {folder}; serve the machine with --socket-dir {folder}", file=sys.stderr)
    print(text)
    return EXIT_OK
