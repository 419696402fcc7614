# SPDX-License-Identifier: Apache-2.0
"""Test results out of a console: KTAP and TAP lines, with kernel messages mixed in.

Law: a line that is no KTAP is ignored, never an error; what the guest did not say is never taken as passed.
The format is the kernel's Documentation/dev-tools/ktap.rst.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

_STAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? ?")
_VERSION = re.compile(r"^(\s*)K?TAP version \d+\s*$")
_PLAN = re.compile(r"^(\s*)1\.\.(\d+)(?:\s*#\s*SKIP\b.*)?\s*$")
_RESULT = re.compile(r"^(\s*)(not )?ok (\d+)(?: -)?(?: (.*?))?\s*$")
_DIRECTIVE = re.compile(r"(?:^|\s)#\s*(SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b:?\s*(.*)$", re.IGNORECASE)
_BAIL = re.compile(r"^\s*Bail out!\s*(.*)$")
_NOTE = re.compile(r"^(\s*)# (.*?)\s*$")


@dataclass(frozen=True)
class Result:
    """One test's verdict. ``name`` has its parents' names before it, separated by dots."""

    name: str
    passed: bool
    skipped: str | None = None  #: the reason
    notes: tuple[str, ...] = ()  #: diagnostic lines that came before it, since the last result
    parent: bool = False  #: it sums up subtests, which have results of their own

    @property
    def outcome(self) -> str:
        """In a word."""
        return "skipped" if self.skipped is not None else "passed" if self.passed else "failed"

    @property
    def reason(self) -> str:
        """Its own last word; what the kernel's log says is none, where it has another."""
        own = [note for note in self.notes if note and not _STAMP.match(note)]
        return (own or self.notes or ("",))[-1]

    def __str__(self) -> str:
        why = "" if self.skipped is None else f" ({self.skipped})"
        return f"{self.name}: {self.outcome}{why}"


@dataclass
class _Level:
    indent: int
    first: int  #: place of its first result among all, and of those within it
    planned: int | None = None
    count: int = 0


@dataclass
class Ktap:
    """Feed it lines; read the results at any time."""

    results: list[Result] = field(default_factory=list)  #: of all levels, in the order in which they came
    bailed: str | None = None
    notes: list[str] = field(default_factory=list)  #: every diagnostic line, without "# "
    _levels: list[_Level] = field(default_factory=list)
    _pending: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, text: str | Iterable[str]) -> Ktap:
        ktap = cls()
        for line in text.splitlines() if isinstance(text, str) else text:
            ktap.feed(line)
        return ktap

    def feed(self, line: str) -> Result | None:
        """Take one line of the console; the result that it brought, if it brought one."""
        line = _STAMP.sub("", line.rstrip("\r\n"))
        if match := _VERSION.match(line):
            self._open(len(match[1]))
        elif match := _PLAN.match(line):
            level = self._level(len(match[1]))
            level.planned = (level.planned or 0) + int(match[2])
        elif match := _BAIL.match(line):
            self.bailed = match[1] or "no reason given"
        elif match := _NOTE.match(line):
            if not match[2].startswith("Subtest:"):
                self.notes.append(match[2])
                self._pending.append(match[2])
        elif (match := _RESULT.match(line)) and self._levels:
            return self._result(len(match[1]), not match[2], match[4] or "")
        return None

    def _open(self, indent: int) -> None:
        while self._levels and self._levels[-1].indent > indent:
            self._levels.pop()
        if not self._levels or self._levels[-1].indent < indent:
            self._levels.append(_Level(indent, len(self.results)))
        # A second version line on one level starts another suite beside the first: plans add up.

    def _level(self, indent: int) -> _Level:
        while len(self._levels) > 1 and self._levels[-1].indent > indent:
            self._levels.pop()
        if not self._levels or self._levels[-1].indent < indent:
            self._levels.append(_Level(indent, len(self.results)))
        return self._levels[-1]

    def _result(self, indent: int, ok: bool, text: str) -> Result:
        inner = len(self.results)
        while len(self._levels) > 1 and self._levels[-1].indent > indent:
            inner = self._levels.pop().first
        level = self._level(indent)
        skipped = None
        if match := _DIRECTIVE.search(text):
            text = text[: match.start()]
            if match[1].upper() == "SKIP":
                skipped = match[2] or "no reason given"
        name = text.strip() or str(level.count + 1)
        within = [replace(each, name=f"{name}.{each.name}") for each in self.results[inner:]]
        self.results[inner:] = within
        result = Result(name, ok, skipped, tuple(self._pending), parent=bool(within))
        self._pending.clear()
        level.count += 1
        self.results.append(result)
        return result

    # -- verdict -----------------------------------------------------------------------------------------------

    @property
    def announced(self) -> bool:
        """Whether tests have begun."""
        return bool(self._levels)

    @property
    def planned(self) -> int | None:
        """How many results the outermost level promised, or None before it did."""
        return self._levels[0].planned if self._levels else None

    @property
    def complete(self) -> bool:
        """Whether as many results of the outermost level came as were promised, which is at least one."""
        return bool(self.planned) and self.bailed is None and self._levels[0].count == self.planned

    @property
    def begun(self) -> int:
        """How many results of the outermost level came."""
        return self._levels[0].count if self._levels else 0

    @property
    def tests(self) -> list[Result]:
        """The results that stand for themselves: all but those that sum up subtests."""
        return [result for result in self.results if not result.parent]

    @property
    def ran(self) -> list[Result]:
        """The tests that ran."""
        return [result for result in self.tests if result.skipped is None]

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if not result.passed]

    def passed(self, name: str) -> bool:
        """Whether the test ``name`` ran and passed; a skipped one did not."""
        return any(result.name == name and result.passed and result.skipped is None for result in self.results)

    def facts(self, word: str) -> list[dict[str, str]]:
        """Diagnostic lines ``# word [subject] key=value …`` as dictionaries; the subject's key is ""."""
        found = []
        for note in self.notes:
            first, _, rest = note.partition(" ")
            if first != word:
                continue
            try:
                parts = shlex.split(rest)
            except ValueError:
                parts = rest.split()
            found.append(
                {
                    key if mark else "": value if mark else key
                    for key, mark, value in (part.partition("=") for part in parts)
                }
            )
        return found
