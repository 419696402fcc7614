# SPDX-License-Identifier: Apache-2.0
"""Command lines that the manual shows are lines that the commands take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.manual.pages import blocks, pages
from vhost_iommu.cli import _parse

#: What ends a command in a line of a shell.
ENDS = re.compile(r"[|<>;&)]+")


def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, arguments) of each."""
    for page in pages():
        for block in blocks(page):
            if block.language not in ("", "sh"):
                continue
            for line in block.text.replace("\\\n", "").splitlines():
                if (match := re.match(r"(?:\$ |dmesg \| |.*\$\()?vhost-iommu (.*)", line)) is None or "<<" in line:
                    continue
                lexer = shlex.shlex(match[1], posix=True, punctuation_chars=True)
                lexer.whitespace_split, lexer.commenters = True, "#"
                arguments: list[str] = []
                for word in lexer:
                    if ENDS.fullmatch(word):
                        break
                    arguments.append(word)
                yield page, arguments


SHOWN = [*dict.fromkeys((page, tuple(words)) for page, words in commands())]


def test_many_are_found() -> None:
    assert len(SHOWN) > 50


@pytest.mark.parametrize(("page", "arguments"), SHOWN, ids=[f"{page} {shlex.join(words)}" for page, words in SHOWN])
def test_a_command_that_the_manual_shows_is_one(page: str, arguments: tuple[str, ...]) -> None:
    if arguments[0].startswith("--"):
        with pytest.raises(SystemExit) as ended:
            _parse(arguments)
        assert ended.value.code == 0
    else:
        assert _parse([each.strip("[]") for each in arguments]).command
