# SPDX-License-Identifier: Apache-2.0
"""One row of the table: a figure beside its limit, with its spread.

Law: what cannot be measured here is a row that says why; a figure without a limit of ours only informs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """``value`` is a median, ``low`` and ``high`` the extremes; all None: ``note`` says why there is none."""

    name: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    rounds: int
    limit: float | None  #: None: for information
    note: str
    at_least: bool = False  #: the limit is the least, not the most
    #: The same by instructions, which judges instead: so near to 1 the times of a shared machine mean nothing.
    judged: float | None = None

    @property
    def good(self) -> bool | None:
        """None: nothing to judge."""
        value = self.value if self.judged is None else self.judged
        if value is None or self.limit is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit


def figure(
    name: str,
    unit: str,
    values: Sequence[float],
    limit: float | None,
    note: str,
    *,
    at_least: bool = False,
    judged: float | None = None,
) -> Figure:
    median = statistics.median(values)
    return Figure(name, unit, median, min(values), max(values), len(values), limit, note, at_least, judged)


def missing(name: str, limit: float | None, why: str, *, at_least: bool = False) -> Figure:
    return Figure(name, "", None, None, None, 0, limit, f"not measured: {why}", at_least)


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Of what was measured in turns, round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]
