# SPDX-License-Identifier: Apache-2.0
"""One row of the table: a figure beside its limit, with its spread.

Law: what cannot be measured here is a row that says why; a figure without a limit of ours only informs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")


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
    #: Instructions of one operation, and how many there may be: where both are known, they judge instead.
    instructions: float | None = None
    most_instructions: float | None = None
    #: Rounds were taken as long as they may be, and the middle half of them lies on both sides of the limit.
    undecided: bool = False

    @property
    def good(self) -> bool | None:
        """None: nothing to judge, or undecided, which is neither met nor missed."""
        if self.most_instructions is not None and self.instructions is not None:
            return self.instructions <= self.most_instructions
        value = self.value if self.judged is None else self.judged
        if value is None or self.limit is None or self.undecided:
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
    instructions: float | None = None,
    most_instructions: float | None = None,
    undecided: bool = False,
) -> Figure:
    return Figure(
        name,
        unit,
        statistics.median(values),
        min(values),
        max(values),
        len(values),
        limit,
        note,
        at_least,
        judged,
        instructions,
        most_instructions,
        undecided,
    )


def missing(name: str, limit: float | None, why: str, *, at_least: bool = False) -> Figure:
    return Figure(name, "", None, None, None, 0, limit, f"not measured: {why}", at_least)


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Of what was measured in turns, round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def decided(values: Sequence[float], limit: float) -> bool:
    """Whether the middle half of ``values`` lies on one side of ``limit``; of fewer than three, nothing is decided."""
    if len(values) < 3:
        return False
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return (first <= limit) == (third <= limit)


#: Of what is measured in guests: rounds that are taken at least, and at most.
LEAST_ROUNDS, MOST_ROUNDS = 3, 9


def rounds_until(once: Callable[[], T], is_decided: Callable[[Sequence[T]], bool]) -> list[T]:
    """Rounds, as many as it takes to decide, and no more than MOST_ROUNDS."""
    found = [once() for _ in range(LEAST_ROUNDS)]
    while len(found) < MOST_ROUNDS and not is_decided(found):
        found.append(once())
    return found


class Measurement(NamedTuple):
    """Rows that are measured together, by their names as they are printed."""

    rows: tuple[str, ...]
    measure: Callable[[], list[Figure]]


def chosen(measurements: Sequence[Measurement], beginnings: Sequence[str]) -> list[Measurement]:
    """Those of which a row begins so, or all; ValueError names beginnings that fit no row."""
    rows = [row for each in measurements for row in each.rows]
    unknown = [each for each in beginnings if not any(row.startswith(each) for row in rows)]
    if unknown:
        raise ValueError(f"no row begins with {', '.join(map(repr, unknown))}; there are:\n" + "\n".join(rows))
    return [
        each for each in measurements if not beginnings or any(row.startswith(tuple(beginnings)) for row in each.rows)
    ]
