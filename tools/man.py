# SPDX-License-Identifier: Apache-2.0
"""Writes what a shell and man(1) look for, from the parser of ``vhost-iommu``: ``python -m tools.man FOLDER``.

Law: all of it is made of what ``--help`` says; nothing is written here that could be forgotten there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from argparse_manpage.manpage import Manpage

from vhost_iommu.cli import parser, verbs
from vhost_iommu.cli.completion import completion
from vhost_iommu.version import __version__

#: Where each shell looks for what completes a command, below a prefix such as /usr.
COMPLETIONS = {
    "bash": "share/bash-completion/completions/vhost-iommu",
    "zsh": "share/zsh/site-functions/_vhost-iommu",
    "fish": "share/fish/vendor_completions.d/vhost-iommu.fish",
}
#: What a block of an epilog begins with, and the section of a man page that it is.
SECTIONS = {"examples:": "EXAMPLES", "exit codes:": "EXIT STATUS", "environment:": "ENVIRONMENT"}


def pages() -> dict[str, str]:
    """Each man page's file below a prefix, and its text."""
    commands = {"": parser(), **verbs(parser())}
    return {f"share/man/man1/{_page_name(name)}.1": page(command) for name, command in commands.items()}


def completions() -> dict[str, str]:
    """Each shell's file, likewise."""
    return {path: completion(parser(), shell) for shell, path in COMPLETIONS.items()}


def page(command: argparse.ArgumentParser) -> str:
    """The man page of a command, or of all, in roff."""
    data = {"project_name": "vhost-iommu", "version": __version__, "manual_title": "vhost-iommu"}
    epilog, command.epilog = command.epilog or "", None
    subcommands = [each for each in command._actions if isinstance(each, argparse._SubParsersAction)]
    summary = command.description or ""
    names = [_page_name()] if not subcommands else [_page_name(name) for each in subcommands for name in each.choices]
    made = Manpage(command, data)
    made.prog = command.prog.replace(" ", "-")
    made.description = f"{summary[:1].lower()}{summary[1:]}".rstrip(".") if not subcommands else summary.rstrip(".")
    for each in subcommands:
        # Each has a page of its own; here they are a list.
        for group in command._action_groups:
            group._group_actions = [action for action in group._group_actions if action is not each]
        made.add_section("commands", "=", "\n".join(_listed(each)))
    for heading, text in _sections(epilog):
        made.add_section(heading, ">", text)
    made.add_section("see also", "=", ", ".join(f"\\fB{_roff(name)}\\fR(1)" for name in sorted(names)))
    return re.sub(r"^'", r"\\&'", str(made), flags=re.MULTILINE)


def _page_name(verb: str = "") -> str:
    return f"vhost-iommu-{verb}" if verb else "vhost-iommu"


def _listed(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> Iterator[str]:
    for choice in commands._choices_actions:
        yield f".TP\n\\fB{_roff(choice.dest)}\\fR\n{_roff(choice.help or '')}"


def _sections(epilog: str) -> Iterator[tuple[str, str]]:
    """What an epilog has under its headings; all else is notes."""
    for block in re.split(r"\n\n|\n(?=exit codes:|environment:)", epilog.strip()):
        start = next((each for each in SECTIONS if block.startswith(each)), None)
        if start is None:
            yield "notes", f".PP\n{_roff(' '.join(block.split()))}\n"
            continue
        text = block.removeprefix(start)
        if start == "examples:":
            lines = [line.strip() for line in text.strip().splitlines()]
            yield SECTIONS[start], "\n".join([".nf", *map(_roff, lines), ".fi"])
        else:
            yield SECTIONS[start], _roff(" ".join(text.split()))


def _roff(text: str) -> str:
    """The text as it stands, whatever of it would mean something to roff."""
    return re.sub(r"^(?=[.'])", r"\\&", text.replace("\\", r"\e").replace("-", r"\-"), flags=re.MULTILINE)


def main(argv: list[str]) -> int:
    (folder,) = argv
    for path, text in (pages() | completions()).items():
        file = Path(folder, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
