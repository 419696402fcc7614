# SPDX-License-Identifier: Apache-2.0
"""Completion for shells, made of the parser: its commands and options, and what an argument may name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish")


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that has ``shell`` complete the command of ``parser``."""
    import shtab

    _say_what_completes(parser)
    return f"{shtab.complete(parser, shell).rstrip()}\n"


class PrintCompletion(argparse.Action):
    """``--print-completion SHELL``, which ends the program as ``--version`` does."""

    def __call__(self, parser: argparse.ArgumentParser, args: argparse.Namespace, shell: Any, _: Any = None) -> None:
        print(completion(parser, shell), end="")
        parser.exit()


def _say_what_completes(parser: argparse.ArgumentParser) -> None:
    """Give each argument of ``parser`` and of its commands the attribute in which shtab looks for what it may be."""
    import shtab

    from vhost_iommu.config import machine_names
    from vhost_iommu.decode.words import KINDS
    from vhost_iommu.guest.assets import FLAVOURS
    from vhost_iommu.lab.faults import FAULTS

    words = {
        "machine": machine_names(),
        "what": sorted(KINDS),
        "kernel": list(FLAVOURS),
        "kernels": list(FLAVOURS),
        "fault": sorted(FAULTS),
    }
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _say_what_completes(command)
        elif action.dest in words:
            action.complete = _words(action.dest, words[action.dest])  # type: ignore[attr-defined]
        elif action.type is Path:
            folder = action.metavar in ("D", "DIR")
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]


def _words(name: str, words: Sequence[str]) -> dict[str, Any]:
    """As shtab takes it: one of ``words``, or a file."""
    listed = " ".join(words)
    function = f"_vhost_iommu_{name}"
    return {
        "bash": function,
        "zsh": function,
        "fish": f"{listed} (__fish_complete_path (commandline -ct))",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W "{listed}" -- $1\n  compgen -f -- $1\n}}',
            "zsh": f"{function}() {{\n  _alternative '{name}:{name}:({listed})' 'files:file:_files'\n}}",
        },
    }
