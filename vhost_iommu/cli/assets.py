# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu doctor`` and ``fetch``: what guests need, and how to get it."""

from __future__ import annotations

import argparse
import json

from vhost_iommu.cli.common import EXIT_FAILED, EXIT_OK, Add
from vhost_iommu.terminal import Progress, paint


def add(command: Add) -> None:
    doctor = command("doctor", _doctor, "Say what guests need, what of it is here, and how to get the rest.")
    doctor.add_argument("--json", action="store_true", help="the same for other programs")
    fetch = command("fetch", _fetch, "Fetch whatever guests need and this machine lacks; nothing needs root.")
    fetch.add_argument(
        "kernels",
        metavar="KERNEL",
        nargs="*",
        default=["6.12"],
        help="6.12 (default), 6.1, 7, 7-16k; 6.12-small, which is compiled here, takes minutes",
    )


def _doctor(args: argparse.Namespace) -> int:
    from vhost_iommu.guest.assets import Assets
    from vhost_iommu.guest.doctor import prerequisites

    found = prerequisites(Assets())
    lacking = any(each.needed and not each.found for each in found)
    if args.json:
        keys = ("name", "found", "needed", "where")
        table = [
            {key: getattr(each, key) for key in keys} | {"mend": None if each.found else each.mend} for each in found
        ]
        print(json.dumps(table, indent=1))
        return EXIT_FAILED if lacking else EXIT_OK
    width = max(len(each.name) for each in found)
    for each in found:
        state = "ok" if each.found else "missing" if each.needed else "optional"
        colour = {"ok": "green", "optional": "dim", "missing": "red"}[state]
        text = each.where if each.found else f"{each.where}; {each.mend}"
        print(f"{paint(f'{state:8}', colour)}  {each.name:{width}}  {text}")
    return EXIT_FAILED if lacking else EXIT_OK


def _fetch(args: argparse.Namespace) -> int:
    from vhost_iommu.guest.assets import Assets

    with Progress() as progress:
        Assets(progress=progress.say).fetch_all(args.kernels)
    return EXIT_OK
