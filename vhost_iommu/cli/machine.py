# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu map`` and ``dtb``: what of a machine file a guest of one's own needs to know."""

from __future__ import annotations

import argparse
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


def _map(args: argparse.Namespace) -> int:
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest import addresses, devicetree
    from vhost_iommu.guest.mapping import platform_of

    config = load_machine(args.machine)
    if args.dts:
        print(devicetree.source(platform_of(config)), end="")
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
