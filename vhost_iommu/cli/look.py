# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu show``, ``explain`` and ``ctl``: look into a machine that runs, or into a dump of one."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vhost_iommu.cli.common import EXIT_FAILED, EXIT_OK, Add
from vhost_iommu.errors import UsageError

if TYPE_CHECKING:
    from vhost_iommu.guest.finding import Asked

_ABOUT_MACHINE = (
    "a machine that runs, by name or process id; a control socket; a dump's file or a run's folder; nothing: the one "
    "that runs"
)

_SHOW_EPILOG = """\
examples:
  vhost-iommu show                       of the machine that 'serve' or 'run' has in another terminal
  vhost-iommu show /tmp/d/dump           of a dump, as a run that failed leaves one
"""
_EXPLAIN_EPILOG = """\
It reads tables as they are in memory; where the caches have it otherwise, that is said. Nothing is changed by it.

examples:
  vhost-iommu explain smmuv3-linux 0x100 0xfffff000          a read
  vhost-iommu explain ./dump 0x100 0xfffff000 --write        of what a run left behind

Its exit code is 0 where the access is translated, else 1.
"""
_SPACES_EPILOG = """\
examples:
  vhost-iommu spaces                             as text, of the machine that runs
  vhost-iommu spaces ./dump --html spaces.html   of a dump, to open in a browser
"""
_CTL_EPILOG = """\
The commands, their arguments and answers are in docs/reference/control.md; 'ctl MACHINE query-commands' lists them.

examples:
  vhost-iommu ctl smmuv3-linux query-streams
  vhost-iommu ctl smmuv3-linux query-tables stream=0x100 limit=20 --json
  vhost-iommu ctl smmuv3-linux fault-arm fault='drop-sync after=3'
  vhost-iommu ctl smmuv3-linux watch-on kinds='command reported'     each as it happens, until Ctrl-C
  vhost-iommu ctl smmuv3-linux dump file=dump
"""


def add(command: Add) -> None:
    show = command("show", _show, "Show a machine that runs, or a dump: what is on, queues, streams, stalls, faults.")
    show.add_argument("machine", nargs="?", metavar="MACHINE", help=_ABOUT_MACHINE)
    show.add_argument("--json", action="store_true", help="the same for other programs")
    show.epilog = _SHOW_EPILOG

    explain = command("explain", _explain, "Explain what becomes of an access, step by step, and why.")
    explain.add_argument("machine", metavar="MACHINE", help=_ABOUT_MACHINE.partition("; nothing")[0])
    explain.add_argument("stream", type=_number, metavar="STREAM", help="the StreamID")
    explain.add_argument("address", type=_number, metavar="ADDRESS", help="the input address (IOVA)")
    explain.add_argument("--substream", type=_number, metavar="N", help="the SubstreamID (PASID)")
    explain.add_argument("--instance", metavar="NAME", help="the SMMU, where there are several")
    access = explain.add_mutually_exclusive_group()
    access.add_argument("--write", dest="access", action="store_const", const="write", default="read", help="a write")
    access.add_argument(
        "--execute", dest="access", action="store_const", const="execute", help="an instruction's fetch"
    )
    explain.add_argument("--privileged", action="store_true", help="a privileged access")
    explain.add_argument("--json", action="store_true", help="the same for other programs")
    explain.epilog = _EXPLAIN_EPILOG

    spaces = command("spaces", _spaces, "Show the address spaces of streams: which addresses go where.")
    spaces.add_argument("machine", nargs="?", metavar="MACHINE", help=_ABOUT_MACHINE)
    spaces.add_argument("--stream", type=_number, metavar="N", help="of one StreamID alone")
    spaces.add_argument("--svg", type=Path, metavar="F", help="a picture, to F")
    spaces.add_argument("--html", type=Path, metavar="F", help="a page with the pictures and the text, to F")
    spaces.add_argument("--json", action="store_true", help="the same for other programs")
    spaces.epilog = _SPACES_EPILOG

    ctl = command("ctl", _ctl, "Say one command to the control socket of a machine that runs, or ask a dump.")
    ctl.add_argument("machine", metavar="MACHINE", help=_ABOUT_MACHINE.partition("; nothing")[0])
    ctl.add_argument("name", metavar="COMMAND", help="such as query-streams")
    ctl.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="its arguments")
    ctl.add_argument("--json", action="store_true", help="the answer as it is")
    ctl.epilog = _CTL_EPILOG


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 64 bits, such as 0x100")
    return value


def _show(args: argparse.Namespace) -> int:
    from vhost_iommu.guest.finding import find
    from vhost_iommu.lab.text import page, page_lines

    with closing(find(args.machine)) as asked:
        shown = page(asked.execute)
    print(json.dumps(shown, indent=1) if args.json else "\n".join(page_lines(shown)))
    return EXIT_OK


def _explain(args: argparse.Namespace) -> int:
    from vhost_iommu.guest.finding import find
    from vhost_iommu.lab.text import explanation_lines

    with closing(find(args.machine)) as asked:
        said = asked.execute(
            "explain",
            stream=args.stream,
            address=args.address,
            substream=args.substream,
            access=args.access,
            privileged=args.privileged,
            instance=args.instance,
        )
    print(json.dumps(said, indent=1) if args.json else "\n".join(explanation_lines(said)))
    return EXIT_OK if said["end"]["outcome"] == "ok" else EXIT_FAILED


def _watch(args: argparse.Namespace, asked: Asked) -> int:
    """Say each event as it comes, until Ctrl-C or the machine's end."""
    from vhost_iommu.lab.text import lines

    for event in asked.events():
        if args.json:
            print(json.dumps(event), flush=True)
        else:
            print(*lines(event["data"], f"{event['event']} "), sep="\n", flush=True)
    return EXIT_OK


def _spaces(args: argparse.Namespace) -> int:
    from vhost_iommu.guest.finding import find
    from vhost_iommu.lab import spaces

    with closing(find(args.machine)) as asked:
        status = asked.execute("query-status")
        found = list(spaces.collect(asked.execute, args.stream))
    taken = f", a dump of {status['taken']}" if status["taken"] else ""
    title = f"Address spaces of {status['machine']}{taken}"
    for path, draw in ((args.svg, spaces.svg), (args.html, spaces.html)):
        if path is not None:
            _write(path, draw(found, title))
    if args.json:
        told = [{"instance": each.instance, "master": each.master, **each.about, "runs": each.runs} for each in found]
        print(json.dumps(told, indent=1))
    elif args.svg is None and args.html is None:
        print("\n".join(spaces.text(found)) or "no address of a stream translates")
    return EXIT_OK


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name another file") from error


def _ctl(args: argparse.Namespace) -> int:
    from vhost_iommu.guest.finding import find
    from vhost_iommu.lab.control import COMMANDS, named
    from vhost_iommu.lab.text import explanation_lines, lines

    declared = named(args.name, COMMANDS)
    given: dict[str, Any] = {}
    for word in args.arguments:
        name, mark, text = word.partition("=")
        if not mark:
            raise UsageError(f"ctl: {word!r} is no argument; write it as name=value")
        given[name] = declared.argument(name).parse(args.name, text)
    if args.name == "dump" and "file" in given:
        given["file"] = str(Path(given["file"]).absolute())
    with closing(find(args.machine)) as asked:
        answer = asked.execute(args.name, **given)
        if args.name == "watch-on":
            return _watch(args, asked)
    if args.json:
        print(json.dumps(answer, indent=1))
    elif args.name == "explain":
        print("\n".join(explanation_lines(answer)))
    else:
        print("\n".join(lines(answer)), end="\n" if answer else "")
    return EXIT_OK
