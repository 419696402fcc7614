# SPDX-License-Identifier: Apache-2.0
"""How `make bench` chooses rows, and when it has measured long enough."""

from __future__ import annotations

from itertools import count

import pytest

from tests.bench import guests
from tests.bench.figure import (
    LEAST_ROUNDS,
    MOST_ROUNDS,
    Figure,
    Measurement,
    chosen,
    decided,
    figure,
    rounds_until,
)


def nothing() -> list[Figure]:
    return []


ROWS = [Measurement(("TLB hit / bare lookup",), nothing), Measurement(("TLB miss, warm", "nested miss"), nothing)]


def test_rows_are_chosen_by_the_beginnings_of_their_names() -> None:
    assert chosen(ROWS, ["TLB hit"]) == ROWS[:1]
    assert chosen(ROWS, ["nested"]) == ROWS[1:]
    assert chosen(ROWS, ["TLB"]) == chosen(ROWS, []) == ROWS


def test_a_beginning_that_fits_no_row_is_an_error_that_names_all_rows() -> None:
    with pytest.raises(ValueError, match="'hit'") as error:
        chosen(ROWS, ["TLB hit", "hit"])
    assert str(error.value).splitlines()[1:] == ["TLB hit / bare lookup", "TLB miss, warm", "nested miss"]


def test_rounds_are_taken_until_the_middle_half_is_on_one_side_of_the_limit() -> None:
    assert decided([1.2, 1.3, 1.3, 1.4, 9.0], 1.5)
    assert not decided([1.28, 1.9, 2.85, 1.1], 1.5)
    assert not decided([1.2, 1.2], 1.5)
    numbers = count(1)
    assert len(rounds_until(lambda: next(numbers), lambda found: found[-1] == LEAST_ROUNDS + 2)) == LEAST_ROUNDS + 2
    assert len(rounds_until(lambda: 0, lambda _: False)) == MOST_ROUNDS


def test_what_is_undecided_is_neither_met_nor_missed() -> None:
    assert figure("row", "×", [1.0, 2.0], 1.5, "", undecided=True).good is None


def test_instructions_judge_where_they_were_counted_and_time_where_not() -> None:
    assert figure("row", "×", [3.0], 2.0, "", instructions=50, most_instructions=55).good is True
    assert figure("row", "×", [1.0], 2.0, "", instructions=56, most_instructions=55).good is False
    assert figure("row", "×", [1.0], 2.0, "", instructions=None, most_instructions=55).good is True


def test_rows_of_guests_are_printed_as_they_are_announced() -> None:
    times = {"pair": 1.0, **dict.fromkeys(guests.READS, 1.0)}
    rows = [row.name for kind in guests.KINDS for row in guests._rows(kind, [(times, times)] * 3)]
    assert sorted(rows) == sorted(guests.ROWS)
