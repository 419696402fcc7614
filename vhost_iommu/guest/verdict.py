# SPDX-License-Identifier: Apache-2.0
"""What a guest's words and its end mean together.

Law: only what the guest said and did counts, and nothing that did not run has passed. What a guest must say is its
Contract; a death, and a failed test of a guest that speaks KTAP, count under every contract.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from vhost_iommu.config import why_no_pattern
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.console import End
from vhost_iommu.guest.ktap import Ktap

#: Characters of a console line that a sentence quotes.
_QUOTED = 120
#: Reasons of skipped tests that the verdict repeats.
_REASONS = 2


class Verdict(IntEnum):
    """What came of the guest; the exit code of ``vhost-iommu run``."""

    PASSED = 0
    FAILED = 1  #: a test failed
    DIED = 3  #: the guest died, ended early, or its time was over
    SKIPPED = 4  #: it ended well, and skipped every test
    INTERRUPTED = 130  #: by Ctrl-C


@dataclass(frozen=True)
class Contract:
    """What makes a guest pass. As it is: every test that its KTAP promised was reported, and none failed."""

    success: str | None = None  #: instead, a line that this pattern matches; the guest is ended there
    failure: str | None = None  #: a line that this matches is a failure; likewise
    exit_only: bool = False  #: instead, that the guest turns itself off

    def __post_init__(self) -> None:
        """UsageError: a pattern is none, or two things make it pass."""
        for key, pattern in (("success", self.success), ("failure", self.failure)):
            if (why := why_no_pattern(pattern or "")) is not None:
                raise UsageError(f"{key}: {pattern!r} is no regular expression ({why}); correct it")
        if self.exit_only and self.success is not None:
            raise UsageError("success and exit-only are two ways to pass; leave one out")

    @cached_property
    def _ends(self) -> tuple[tuple[re.Pattern[str], End], ...]:
        both = ((self.failure, End.FAILURE), (self.success, End.SUCCESS))
        return tuple((re.compile(pattern), end) for pattern, end in both if pattern is not None)

    def end(self, line: str) -> End | None:
        """How the run ends with this line of the console, if it does."""
        return next((end for pattern, end in self._ends if pattern.search(line)), None)


@dataclass(frozen=True)
class Story:
    """How a run went: what there is to judge by."""

    end: End
    ktap: Ktap
    status: int = 0  #: QEMU's, negative for a signal
    death: str | None = None  #: the line that told of the guest's death
    last: str = ""  #: the console's last line that is not empty
    limit: float = 0.0  #: seconds that the run might take
    shutdown: str = ""  #: why QEMU says that it ended, such as "guest-shutdown"; "": it did not say


def judge(
    story: Story, expected: Sequence[str] = (), contract: Contract | None = None, wrong: Sequence[str] = ()
) -> tuple[Verdict, str]:
    """The verdict and why, a part of a sentence. ``expected`` are tests that the guest must have reported; ``wrong``
    are disks that hold other bytes than it says.
    """
    contract = contract or Contract()
    ktap, end = story.ktap, story.end
    if end is End.INTERRUPTED:
        return Verdict.INTERRUPTED, f"it was ended by hand {_doing(story)}"
    if end is End.FAILURE:
        return Verdict.FAILED, f"the guest said: {_quoted(story.last)}"
    if story.death is not None:
        return Verdict.DIED, f"the guest died: {_quoted(story.death)}"
    if end is End.SUCCESS:
        return _failed(ktap) or (Verdict.PASSED, f"the guest said: {_quoted(story.last)}")
    if end is End.TIMEOUT:
        return Verdict.DIED, f"the guest's time of {story.limit:g} s was over {_doing(story)}"
    if end is End.FLOOD:
        return Verdict.DIED, f"the guest said too much, {_doing(story)}"
    if end is not End.CLOSED or story.status:
        return Verdict.DIED, f"QEMU ended with status {story.status} {_doing(story)}"
    if story.shutdown not in ("", "guest-shutdown"):
        return Verdict.DIED, f"the guest did not turn itself off: QEMU says {story.shutdown}, {_doing(story)}"
    if wrong:
        return Verdict.FAILED, f"{', '.join(wrong)} holds other bytes than the guest has read"
    if contract.exit_only:
        return _failed(ktap) or (Verdict.PASSED, "the guest turned itself off")
    if contract.success is not None:
        return Verdict.DIED, f"the guest ended, and no line matched {contract.success!r}; {_doing(story)}"
    if not ktap.complete:
        if ktap.bailed is not None:
            return Verdict.DIED, f"the guest gave up: {ktap.bailed}"
        hint = "" if ktap.results else "; what is no KTAP needs --success or --exit-only"
        return Verdict.DIED, f"the guest ended early, {_doing(story)}{hint}"
    said = {result.name for result in ktap.results}
    if missing := [name for name in expected if name not in said]:
        return Verdict.DIED, f"the guest did not report {', '.join(missing)}"
    if failed := _failed(ktap):
        return failed
    ran, skipped = len(ktap.ran), len(ktap.tests) - len(ktap.ran)
    if not ran:
        return Verdict.SKIPPED, f"none of {skipped} tests ran{_reasons(ktap)}"
    why = f", {skipped} skipped{_reasons(ktap)}" if skipped else ""
    return Verdict.PASSED, f"{ran} of {ran + skipped} tests ran{why}"


def unstruck(verdict: Verdict, why: str, faults: Sequence[str]) -> tuple[Verdict, str]:
    """The same of a run that asked for ``faults`` which never struck: it has not passed."""
    if not faults:
        return verdict, why
    never = f"{'; '.join(faults)} never struck"
    if verdict in (Verdict.PASSED, Verdict.SKIPPED):
        return Verdict.FAILED, never
    return verdict, f"{why}; {never}"


def _reasons(ktap: Ktap) -> str:
    """Why tests were skipped, in brackets, as far as that is short."""
    reasons = list(dict.fromkeys(result.skipped for result in ktap.tests if result.skipped))
    return f" ({'; '.join(reasons)})" if 0 < len(reasons) <= _REASONS else ""


def _failed(ktap: Ktap) -> tuple[Verdict, str] | None:
    tests = [result for result in ktap.tests if not result.passed] or ktap.failures
    if not tests:
        return None
    skipped = len(ktap.tests) - len(ktap.ran)
    names = ", ".join(result.name for result in tests)
    return (
        Verdict.FAILED,
        f"{len(tests)} of {len(ktap.tests)} tests{f' ({skipped} skipped)' if skipped else ''}: {names}",
    )


def _doing(story: Story) -> str:
    """What the guest was at when it ended, or was ended."""
    ktap = story.ktap
    if not story.last:
        return "before the guest said a word"
    if ktap.results:
        doing = f"after {ktap.results[-1].name} ({ktap.begun} of {ktap.planned or '?'} tests)"
    elif ktap.planned is not None:
        doing = f"before the first of {ktap.planned} tests"
    else:
        doing = "while it was still booting, or at what is no test"
    return f"{doing}; its last line: {_quoted(story.last)}"


def _quoted(line: str) -> str:
    line = line.strip()
    return line if len(line) <= _QUOTED else f"{line[: _QUOTED - 1]}…"
