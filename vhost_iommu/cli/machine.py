# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu dtb``: what of a machine file a guest of one's own needs to know."""

from __future__ import annotations

import argparse
from pathlib import Path

from vhost_iommu.cli.common import EXIT_OK, Add
from vhost_iommu.errors import UsageError
from vhost_iommu.terminal import Progress


def add(command: Add) -> None:
    tree = command("dtb", _dtb, "Write the device tree with which a Linux guest finds the machine.")
    tree.add_argument("machine", metavar="MACHINE")
    tree.add_argument("-o", "--output", type=Path, required=True, metavar="F")


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
