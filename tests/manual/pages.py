# SPDX-License-Identifier: Apache-2.0
"""What the manual shows as code, for tests to run it: blocks of a page, by their language and the heading above."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True)
class Block:
    page: str
    heading: str
    language: str
    text: str
    line: int

    @property
    def name(self) -> str:
        """What the block is called in a test's name."""
        return re.sub(r"\W+", "_", self.heading.lower()).strip("_")


def blocks(page: str, language: str | None = None) -> Iterator[Block]:
    """The fenced blocks of ``docs/page``, those in one language alone if it is given."""
    heading, opened, lines = "", None, list[str]()
    for number, line in enumerate((DOCS / page).read_text(encoding="utf-8").splitlines(keepends=True), 1):
        if opened is not None and line.startswith("```"):
            at, found = opened
            opened = None
            if language in (None, found):
                yield Block(page, heading, found, "".join(lines), at)
        elif opened is not None:
            lines.append(line)
        elif line.startswith("```"):
            opened, lines = (number + 1, line.strip("`\n")), []
        elif line.startswith("#"):
            heading = line.strip("# \n")


def pages() -> list[str]:
    """Those that people wrote; not the ones made of declarations."""
    return sorted(str(path.relative_to(DOCS)) for path in DOCS.glob("*.md"))
