# SPDX-License-Identifier: Apache-2.0
"""A kernel log, however it was pasted, and what the driver of an SMMU reports in it.

Law: each SMMU's words are read apart, so that lines of others between them, time stamps, prefixes of syslog, journal
or console, and line breaks change nothing. Lines that report no error are no finding. What a driver says is known to
the module of its name alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...terminal import plain
from . import arm_smmu, arm_smmu_v3
from .finding import Finding

__all__ = ["Finding", "Log", "read_log"]

#: Of each driver what it calls itself, what it says, and what that reports.
DRIVERS = (arm_smmu_v3, arm_smmu)


@dataclass(frozen=True, slots=True)
class Log:
    """What a text is, and what it reports of SMMUs, in its order."""

    findings: tuple[Finding, ...]
    #: The SMMUs whose driver has lines in it, as Linux names them.
    smmus: tuple[str, ...]
    #: Whether there are lines of a log at all, of whomever.
    stamped: bool
    #: All that is said, without what loggers and drivers put before it.
    plain: str


def read_log(text: str) -> Log:
    lines = [(number, plain(line)) for number, line in enumerate(text.replace("\r", "").split("\n"), 1)]
    # Whether lines were cut at blanks or at a terminal's width is seen by what can be read then.
    whole = _uncut(lines)
    return max((_read(each) for each in ([lines] if whole == lines else [lines, whole])), key=_understood)


def _read(lines: _Lines) -> Log:
    pieces = list(_pieces(lines))
    found = [
        finding
        for name, stream in _streams(pieces).items()
        for driver in DRIVERS
        for finding in driver.findings(name, stream.text, stream.line_at)
    ]
    return Log(
        tuple(_merged(sorted(found, key=lambda finding: finding.lines))),
        tuple(sorted({smmu for _, smmu, _, _ in pieces if smmu is not None})),
        any(stamped for _, _, stamped, _ in pieces),
        " ".join(content for _, _, _, content in pieces if content),
    )


def _understood(log: Log) -> int:
    """How many records were found whole."""
    return sum(not each.notes for finding in log.findings for each in finding.decoded)


# -- from a log to the words of each SMMU ----------------------------------------------------------------------

_NAMES = "|".join(driver.NAME for driver in DRIVERS)
_DRIVER = re.compile(rf"\b(?:{_NAMES})\s+(\S+?):(?=\s|$)")
_BLANK = re.compile(r"[\s>|#*]+")
#: What loggers and consoles put before a line.
_STAMP = re.compile(
    r"""<\d{1,3}>                                                                  # level
      | \[\s*\d+\.\d+\] | \[\w{3}\s\w{3}\s+\d+\s[\d:.]+\s\d{4}\]                   # dmesg, dmesg -T
      | \[\s*[CT]\d+\]                                                             # caller
      | \d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?(?=\s) | [A-Z][a-z]{2}\s+\d+\s\d\d:[\d:.]+(?=\s)
      | (?:[\w.-]+\s+)?kernel(?:\[\d+\])?: | kern\s*:\s*\w+\s*: | \d+,\d+,\d+,[^;]*;""",
    re.VERBOSE,
)
_WORDS = re.compile(r"(?:0x[0-9a-f]+[\s,;]*)+", re.IGNORECASE)


#: (its number, the line), in order.
_Lines: TypeAlias = list[tuple[int, str]]
#: (line, SMMU if its driver speaks, whether something is stamped before it, what is said).
_Piece: TypeAlias = tuple[int, str | None, bool, str]


class _Stream:
    """What one SMMU's driver says, as one line."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._starts: list[int] = []
        self._lines: list[int] = []
        self._size = 0

    def add(self, line: int, content: str) -> None:
        self._parts.append(content)
        self._starts.append(self._size)
        self._lines.append(line)
        self._size += len(content) + 1

    def line_at(self, offset: int) -> int:
        return self._lines[bisect_right(self._starts, offset) - 1]

    @property
    def text(self) -> str:
        return " ".join(self._parts)


def _streams(pieces: Iterable[_Piece]) -> dict[str, _Stream]:
    streams: dict[str, _Stream] = {}
    name, foreign = "", False
    for line, driver, stamped, content in pieces:
        if driver is not None:
            name, foreign = driver, False
        elif _WORDS.fullmatch(content) or any(each.says(content) for each in DRIVERS):
            foreign = False
        elif stamped:
            foreign = True
        if not foreign and content:
            streams.setdefault(name, _Stream()).add(line, content)
    return streams


def _uncut(lines: _Lines) -> _Lines:
    """``lines`` as they were before a terminal cut them at its width."""
    width = max(len(line) for _, line in lines)
    whole: list[tuple[int, str]] = []
    full = False
    for number, line in lines:
        if full and not _STAMP.match(line) and not _DRIVER.match(line):
            whole[-1] = (whole[-1][0], whole[-1][1] + line)
        else:
            whole.append((number, line))
        full = len(line) == width
    return whole


def _pieces(lines: _Lines) -> Iterator[_Piece]:
    head = ""
    for number, line in lines:
        whole, head = f"{head}{line}", ""
        if re.search(rf"\b(?:{_NAMES})\s*$", whole):  # broken before the name
            head = whole.rstrip() + " "
            continue
        # A log whose line breaks were lost has several of its lines in one.
        marks = [*_DRIVER.finditer(whole)]
        ends = [*(mark.start() for mark in marks), len(whole)]
        stamped, content = _unstamped(whole[: ends[0]])
        if content or not marks:
            yield number, None, stamped, content
        for mark, end in zip(marks, ends[1:], strict=True):
            yield number, mark[1], True, _untailed(whole[mark.end() : end])


def _unstamped(text: str) -> tuple[bool, str]:
    """Whether there are stamps before ``text``, and what is left without them."""
    at, stamped = 0, False
    while True:
        blank = _BLANK.match(text, at)
        at = at if blank is None else blank.end()
        stamp = _STAMP.match(text, at)
        if stamp is None:
            return stamped, text[at:].strip()
        at, stamped = stamp.end(), True


def _untailed(text: str) -> str:
    """``text`` without the stamps of a line that follows in the same one."""
    stamp = _STAMP.search(text)
    return (text if stamp is None else text[: stamp.start()]).strip()


def _merged(found: Iterable[Finding]) -> list[Finding]:
    """The same, with those together that say the same."""
    each: dict[object, Finding] = {}
    for finding in found:
        key = (finding.smmu, finding.meaning, *((d.kind, d.value) for d in finding.decoded))
        before = each.get(key)
        each[key] = finding if before is None else replace(before, lines=before.lines + finding.lines)
    return list(each.values())
