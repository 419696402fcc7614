# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu doctor`` and ``fetch``: what guests need, and how to get it."""

from __future__ import annotations

import argparse
import json

from vhost_iommu.cli.common import EXIT_FAILED, EXIT_OK, Add
from vhost_iommu.terminal import Progress, paint

#: What is needed only to fetch something else.
_TO_FETCH = ("apt-get, dpkg-deb", "disk space")


def add(command: Add) -> None:
    doctor = command("doctor", _doctor, "Say what guests need, what of it is here, and how to get the rest.")
    doctor.add_argument("--json", action="store_true", help="the same for other programs")
    command("fetch", _fetch, "Fetch whatever guests need and this machine lacks; nothing needs root.")


def _doctor(args: argparse.Namespace) -> int:
    from vhost_iommu.guest.assets import Assets

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


def _spare(name: str) -> bool:
    """Kernels but the default one, which machines that name them need; and what is better with than without."""
    return (name.startswith("kernel ") and name != "kernel 6.12") or name == "libatomic"


def _fetch(args: argparse.Namespace) -> int:
    from vhost_iommu.guest.assets import Assets

    with Progress() as progress:
        Assets(progress=progress.say).fetch_all()
    return EXIT_OK
