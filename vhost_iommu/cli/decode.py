# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu decode``: words of a kernel log as named fields."""

from __future__ import annotations

import argparse
import json

from vhost_iommu.cli.common import EXIT_OK, Add


def add(command: Add) -> None:
    decode = command("decode", _decode, "Turn words of a kernel log into named fields.")
    decode.add_argument("kind", metavar="KIND", help="ste, cd, l1ste, l1cd, command, event, pri, pte or register")
    decode.add_argument("words", nargs="+", metavar="WORD", help="64 bits each in hex, lowest first")
    decode.add_argument("--json", action="store_true", help="the same for other programs")


def _decode(args: argparse.Namespace) -> int:
    from vhost_iommu.decode import decode_words

    decoded = decode_words(args.kind, args.words)
    print(json.dumps(decoded.json(), indent=1) if args.json else decoded.text())
    return EXIT_OK
