# SPDX-License-Identifier: Apache-2.0
"""What a guest's words and its end mean together.

Law: only what the guest said counts. Passed: every promised test came and none failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from vhost_iommu.guest.console import End
from vhost_iommu.guest.ktap import Ktap


class Verdict(IntEnum):
    """What the guest says; the exit code of ``vhost-iommu run``."""

    PASSED = 0
    FAILED = 1  #: a test failed
    DIED = 3  #: the guest died, ended early, or its time was over


def judge(
    end: End, status: int, ktap: Ktap, death: str | None = None, expected: Sequence[str] = ()
) -> tuple[Verdict, str]:
    """What the guest's words and its end mean together; ``expected`` are tests that it must have reported."""
    if death is not None:
        return Verdict.DIED, f"the guest died: {death.strip()}"
    if end is End.TIMEOUT:
        return Verdict.DIED, f"the guest's time was over after {_so_far(ktap)}"
    if end is End.FLOOD:
        return Verdict.DIED, f"the guest said too much, with {_so_far(ktap)}"
    if end is not End.CLOSED or status:
        return Verdict.DIED, f"QEMU ended with status {status} after {_so_far(ktap)}"
    if not ktap.complete:
        if ktap.bailed is not None:
            return Verdict.DIED, f"the guest gave up: {ktap.bailed}"
        return Verdict.DIED, f"the guest ended early, after {_so_far(ktap)}"
    said = {result.name for result in ktap.results}
    if missing := [name for name in expected if name not in said]:
        return Verdict.DIED, f"the guest did not report {', '.join(missing)}"
    if ktap.failures:
        names = ", ".join(result.name for result in ktap.failures)
        return Verdict.FAILED, f"{len(ktap.failures)} of {ktap.planned} tests: {names}"
    return Verdict.PASSED, _so_far(ktap)


def _so_far(ktap: Ktap) -> str:
    if ktap.planned is None:
        return "no word of any test"
    skipped = sum(result.skipped is not None for result in ktap.results)
    text = f"{len(ktap.results)} of {ktap.planned} tests"
    return f"{text}, {skipped} skipped" if skipped else text
