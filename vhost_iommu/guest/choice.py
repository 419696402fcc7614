# SPDX-License-Identifier: Apache-2.0
"""Which of a guest's cases are to run, and what each is about.

Law: a pattern is a name in which ``*`` stands for anything; one that matches nothing is the operator's mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from vhost_iommu.errors import UsageError


def chosen_of(patterns: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The ``names`` that a pattern matches, in their order; UsageError for a pattern that matches none."""
    found: set[str] = set()
    for pattern in patterns:
        wanted = re.compile(".*".join(map(re.escape, pattern.split("*"))))
        matched = {name for name in names if wanted.fullmatch(name)}
        if not matched:
            near = difflib.get_close_matches(pattern.replace("*", ""), names, 1)
            hint = f"did you mean {near[0]!r}?" if near else "--list says which there are"
            raise UsageError(f"there is no case {pattern!r}; {hint}")
        found |= matched
    return tuple(name for name in names if name in found)


def comment_above(source: str, function: str) -> str:
    """The first sentence of the comment above a C or shell function, without its signature; "" if there is none."""
    name = re.escape(function)
    found = re.search(
        rf"/\*((?:(?!\*/).)*)\*/\nstatic \w+ {name}\(|((?:^#[^\n]*\n)+)^{name}\(\) ", source, re.DOTALL | re.MULTILINE
    )
    if found is None:
        return ""
    text = found[1] if found[1] is not None else re.sub(r"^#", "", found[2], flags=re.MULTILINE)
    words = " ".join(re.sub(r"^\s*\*(?!/)", "", text, flags=re.MULTILINE).split())
    first = re.split(r"(?<=[.!?]) ", re.sub(rf"^{name}( \[?[A-Z]+\]?)*: ", "", words))[0]
    return first[:1].upper() + first[1:]
