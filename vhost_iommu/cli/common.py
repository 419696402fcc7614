# SPDX-License-Identifier: Apache-2.0
"""What the commands share: exit codes, how a command is declared, and options that several of them have."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from vhost_iommu import _core
from vhost_iommu.errors import UsageError

if TYPE_CHECKING:
    from vhost_iommu.lab.faults import Fault
    from vhost_iommu.trace import Trace

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_DIED, EXIT_OURS = 0, 1, 2, 3, 70
#: As of a program that a signal ended: Ctrl-C; and who read our output has gone before its end.
EXIT_INTERRUPTED, EXIT_UNREAD = 130, 141
#: To ``git bisect run``: this revision cannot be judged.
EXIT_UNTESTABLE = 125


#: Columns beyond which no help is easily read.
_WIDEST = 118
_CHOICE = re.compile(r"argument (?P<of>\S+): invalid choice: '(?P<said>.*)' \(choose from (?P<among>.*)\)")


class Parser(argparse.ArgumentParser):
    """Has each mistake be one line."""

    def error(self, message: str) -> NoReturn:
        if match := _CHOICE.fullmatch(message):
            choices = re.findall(r"[\w-]+", match["among"])
            near = difflib.get_close_matches(match["said"], choices, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(choices)}"
            raise UsageError(f"there is no {match['of'].lower()} {match['said']!r}; {hint}")
        raise UsageError(f"{message}; see {self.prog} --help")


class Help(argparse.HelpFormatter):
    """Fills paragraphs to the terminal's width. An indented line goes on with the one before; in a block whose first
    line is "examples:" lines stay as they are.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_block(block, min(width, _WIDEST), indent) for block in text.rstrip().split("\n\n"))


def _block(block: str, width: int, indent: str) -> str:
    """A block of help, filled."""
    if block.startswith("examples:"):
        return block
    hangs = "\n  " in block
    return "\n".join(
        textwrap.fill(
            " ".join(each.split()),
            width,
            initial_indent=indent,
            subsequent_indent=indent + ("  " if hangs else ""),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for each in (re.split(r"\n(?! )", block) if hangs else [block])
    )


class Add(Protocol):
    """Declares one command: its name, the function that carries it out, and what it does in a sentence."""

    def __call__(self, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser: ...


def look_at_core() -> None:
    """UsageError where the core is of an earlier day than the rest."""
    if not _core.pure() and _core.stale():
        raise UsageError(
            f"the compiled core is older than its sources; 'make core' compiles it anew, {_core.PURE}=1 does without"
        )


def tell_of_core() -> None:
    """A word where the models are plain Python and nobody asked for that.

    It is said once a guest is there: a mistake is one line, without the core too.
    """
    if not _core.pure() and _core.built() is None:
        text = "no compiled core, so all works but slower: 'vhost-iommu doctor' says more"
        print(f"vhost-iommu: {text}", file=sys.stderr)


def trace_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--trace", type=Path, metavar="F", help="each access, command, translation: F.json for ui.perfetto.dev, or text"
    )
    parser.add_argument(
        "--trace-only",
        action="append",
        default=[],
        metavar="KIND",
        help="trace this kind alone, such as command or fault; can be repeated",
    )


def fault_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="'KIND name=value …'",
        help="have the machine be wrong on purpose, such as 'drop-sync after=3': docs/faults.md has each kind and what "
        "Linux does with it; one that never strikes fails the run; may be repeated",
    )


def faults_of(args: argparse.Namespace) -> tuple[Fault, ...]:
    """What ``--fault`` asks for."""
    from vhost_iommu.lab.faults import Fault

    return tuple(Fault.parse(text) for text in args.fault)


def machine_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("machine", metavar="MACHINE", help="a name in qemu-configs/, or a path to a machine file")


def seconds(text: str) -> float:
    """A limit; infinite for "none"."""
    if text == "none":
        return math.inf
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, nor 'none'")


@contextmanager
def tracing(path: Path | None, only: Sequence[str] = ()) -> Iterator[Trace | None]:
    """The trace that the operator asked for; afterwards it is on disk, and where it is not whole that is told."""
    if path is None:
        if only:
            raise UsageError("--trace-only chooses what --trace writes; give that, too")
        yield None
        return
    from vhost_iommu.trace import Chrome, Trace, form_of

    kinds = form_of(path).kinds
    for kind in only:
        if kind not in kinds:
            but = f"; {kind}s are in a trace for a viewer, --trace F.json" if kind in Chrome.kinds else ""
            raise UsageError(f"--trace-only: there is no kind {kind!r:.40} in {path}; they are {', '.join(kinds)}{but}")
    try:
        trace = Trace.file(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name another file with --trace") from error
    if only:
        trace.only(only)
    try:
        with trace:
            yield trace
    finally:
        if trace.incomplete is not None:
            print(f"vhost-iommu: {path} is not the whole trace: {trace.incomplete}", file=sys.stderr)
