# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu decode``: what a kernel log says of an SMMU, or words out of one, with names, meaning and causes."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vhost_iommu.cli.common import EXIT_FAILED, EXIT_OK, Add
from vhost_iommu.errors import UsageError

if TYPE_CHECKING:
    from vhost_iommu.decode import Decoded
    from vhost_iommu.decode.logs import Finding, Log

_EPILOG = """\
Without KIND a kernel log is read, from standard input, a file or the arguments, as Linux 6.1 to 7.x print it; its
lines may be anyhow prefixed, wrapped and mixed with others. With KIND it is words, 64 bits each in hex, the lowest
first, with commas or line breaks between them or not; or what a log says of that kind.

KIND is ste, cd, l1ste, l1cd, command, event, pri, pte, register, or the name of a register (case does not matter).
A pte takes stage=2, level=0 to 3, granule=4k, 16k or 64k and wide=1 (52-bit addresses) after its word.

examples:
  dmesg | vhost-iommu decode                      all that it reports of SMMUs
  vhost-iommu decode --machine two-smmus log.txt  and which master it is about
  vhost-iommu decode event 0x0000010000000010 0 0xffffffffc000 0
  vhost-iommu decode ste "0x000000004500000b, 0x00000000000000d6"
  vhost-iommu decode pte 0x0060000045000f03 level=3 granule=4k
  vhost-iommu decode register CR0 0x1f            or by its offset: register 0x20 0x1f
  vhost-iommu decode gerror 0x1

exit codes: 0 something was decoded, 1 the input says nothing of an SMMU's errors, 2 your mistake
"""

#: Who is behind a StreamID: (the SMMU as Linux names it, StreamID) → words for people.
Who = Callable[[str, int | None], str]


def add(command: Add) -> None:
    decode = command("decode", _decode, "Say what a kernel log, or words out of one, report of an SMMU.")
    decode.epilog = _EPILOG
    decode.usage = "vhost-iommu decode [options] [KIND] [WORD… | FILE | -]"
    decode.add_argument("what", nargs="*", metavar="KIND, WORD, FILE", help="see below; '-' is standard input")
    decode.add_argument("--machine", metavar="M", help="name the master of this machine behind each StreamID")
    decode.add_argument("--json", action="store_true", help="the same for other programs")


def _decode(args: argparse.Namespace) -> int:
    from vhost_iommu.decode import decode_text, is_kind
    from vhost_iommu.decode.logs import read_log

    words: list[str] = args.what
    if len(words) == 1 and is_kind(words[0].partition(" ")[0]):
        words = words[0].split()
    kind = words[0] if words and is_kind(words[0]) else None
    log = read_log(_text(words if kind is None else words[1:]))
    if not log.findings and kind is not None and len(words) > 1:  # as in "event 0x10 received: …"
        whole = read_log(" ".join(words))
        log = whole if whole.findings else log
    who = _masters(args.machine)
    found = [each for each in log.findings if kind is None or kind.lower() in each.kinds]
    if found:
        _print_log(found, who, args.json)
        return EXIT_OK
    bare = re.fullmatch(r"(?:(?:0x)?[0-9a-fA-F]+[\s,;]*)*", log.plain) is not None
    if kind is not None and log.plain and (bare or not log.stamped):
        _print_words(decode_text(kind, log.plain), who, args.json)
        return EXIT_OK
    if kind is None and words and words != ["-"] and not log.stamped and not os.path.isfile(words[0]):
        if len(words) == 1 and re.search(r"[./]", words[0]):
            raise UsageError(f"{words[0]} is no file that is here; name a kernel log, or a KIND and its words")
        decode_text(words[0], " ".join(words[1:]))  # which is no kind, and is told so
    if args.json:
        print(json.dumps({"findings": []}))
    print(f"vhost-iommu: {_nothing(log)}", file=sys.stderr)
    return EXIT_FAILED


def _text(words: list[str]) -> str:
    """What is to be decoded: the words themselves, or the file, or standard input, that they name."""
    if words in ([], ["-"]):
        if sys.stdin.isatty():
            print("vhost-iommu: reading a kernel log from this terminal; end it with ^D", file=sys.stderr)
        return sys.stdin.buffer.read().decode(errors="replace")
    if len(words) == 1 and os.path.isfile(words[0]):
        try:
            return Path(words[0]).read_bytes().decode(errors="replace")
        except OSError as error:
            raise UsageError(f"{words[0]} cannot be read ({error.strerror}); name a readable file") from error
    return " ".join(words)


def _nothing(log: Log) -> str:
    """Why nothing was decoded, and what would be."""
    if not log.plain and not log.smmus:
        return "nothing came; give it a kernel log, as in: dmesg | vhost-iommu decode"
    if log.findings:
        return "what is reported here is of other kinds; leave the KIND out to see it"
    if log.smmus:
        return f"the driver's lines of {', '.join(log.smmus)} report no error; there is nothing to decode"
    return "nothing here is of an SMMU; words alone need their KIND, as in: vhost-iommu decode event 0x10 0 0 0"


def _print_log(found: list[Finding], who: Who, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"findings": [each.json(who(each.smmu, each.sid)) for each in found]}, indent=1))
    else:
        print("\n\n".join(each.text(who(each.smmu, each.sid)) for each in found))


def _print_words(decoded: list[Decoded], who: Who, as_json: bool) -> None:
    if as_json:
        told: list[dict[str, Any]] = [each.json() | {"master": who("", each.sid)} for each in decoded]
        print(json.dumps(told[0] if len(told) == 1 else told, indent=1))
        return
    texts = []
    for each in decoded:
        master = who("", each.sid)
        texts.append(each.text() + (f"\nmaster: {master}" if master else ""))
    print("\n\n".join(texts))


def _masters(machine: str | None) -> Who:
    """Who is behind a StreamID of ``machine``."""
    if machine is None:
        return lambda smmu, sid: ""
    from vhost_iommu.config import load_machine
    from vhost_iommu.guest.mapping import platform_of

    config = load_machine(machine)
    #: Linux names a device after the address of its registers.
    named = {f"{registers.base:x}": smmu.name for smmu, registers, _ in platform_of(config).smmus}

    def who(device: str, sid: int | None) -> str:
        if sid is None:
            return ""
        smmu = named.get(device.partition(".")[0])
        where = [smmu] if smmu is not None else [each.name for each in config.smmus]
        masters = [master for master in config.masters if master.smmu in where and sid in master.stream_ids]
        told = " or ".join(f"{master.name}, StreamID {sid:#x} of {master.smmu}" for master in masters)
        return told or f"none of {config.name} has StreamID {sid:#x} of {' or '.join(where)}"

    return who
