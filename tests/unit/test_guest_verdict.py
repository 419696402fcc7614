# SPDX-License-Identifier: Apache-2.0
"""The verdict: what a guest's words and its end mean together, under each contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.console import End
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.verdict import Contract, Story, Verdict, judge

PASSED = "KTAP version 1\n1..1\nok 1 a\n"
FAILED = "KTAP version 1\n1..2\nok 1 a\nnot ok 2 b\n"


def story(said: str = "", end: End = End.CLOSED, status: int = 0, death: str | None = None) -> Story:
    last = (said.splitlines() or [""])[-1]
    return Story(end, Ktap.of(said), status, death, last, 30.0)


def test_every_promised_test_passed_is_a_pass() -> None:
    assert judge(story(PASSED), ["a"]) == (Verdict.PASSED, "1 of 1 tests ran")


def test_one_failure_is_a_failure() -> None:
    assert judge(story(FAILED)) == (Verdict.FAILED, "1 of 2 tests: b")


@pytest.mark.parametrize(
    ("end", "status", "said", "death", "expected"),
    [
        (End.CLOSED, 0, "", None, ()),
        (End.CLOSED, 0, "KTAP version 1\n1..2\nok 1 a\n", None, ()),
        (End.CLOSED, 0, f"{PASSED}KTAP version 1\n1..2\nok 1 b\n", None, ()),  # of the second suite one is missing
        (End.CLOSED, 0, PASSED, None, ("a", "b")),
        (End.CLOSED, 1, PASSED, None, ()),
        (End.TIMEOUT, -9, PASSED, None, ()),
        (End.STOPPED, -9, PASSED, None, ()),
        (End.DIED, -9, PASSED, "Kernel panic", ()),
        (End.CLOSED, 0, PASSED, "BUG: ", ()),
    ],
)
def test_a_guest_that_did_not_end_well_has_not_passed(
    end: End, status: int, said: str, death: str | None, expected: tuple[str, ...]
) -> None:
    assert judge(story(said, end, status, death), expected)[0] is Verdict.DIED


# -- what was skipped ------------------------------------------------------------------------------------------------


def test_what_was_skipped_is_counted_beside_what_ran() -> None:
    said = "KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP no disk\nok 3 c # SKIP no disk\n"
    assert judge(story(said)) == (Verdict.PASSED, "1 of 3 tests ran, 2 skipped (no disk)")


def test_reasons_are_repeated_while_they_are_few() -> None:
    lines = ["KTAP version 1", "1..4", "ok 1 a", "ok 2 b # SKIP no disk", "ok 3 c # SKIP no PASIDs"]
    assert judge(story("\n".join([*lines, "ok 4 d"])))[1] == "2 of 4 tests ran, 2 skipped (no disk; no PASIDs)"
    assert judge(story("\n".join([*lines, "ok 4 d # SKIP no stalls"])))[1] == "1 of 4 tests ran, 3 skipped"


def test_a_guest_that_skipped_every_test_has_not_passed() -> None:
    said = "KTAP version 1\n1..2\nok 1 a # SKIP no disk\nok 2 b # SKIP no disk\n"
    assert judge(story(said)) == (Verdict.SKIPPED, "none of 2 tests ran (no disk)")


def test_a_suite_whose_subtests_were_all_skipped_has_not_passed() -> None:
    said = "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 a # SKIP no disk\nok 1 suite\n"
    assert judge(story(said)) == (Verdict.SKIPPED, "none of 1 tests ran (no disk)")


def test_a_suite_and_its_subtest_that_failed_are_one_failure() -> None:
    said = "KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 a\n  not ok 2 b\nnot ok 1 suite\n"
    assert judge(story(said)) == (Verdict.FAILED, "1 of 2 tests: suite.b")


def test_a_suite_that_failed_by_itself_is_a_failure() -> None:
    said = "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 a\nnot ok 1 suite\n"
    assert judge(story(said)) == (Verdict.FAILED, "1 of 1 tests: suite")


# -- guests that speak no KTAP -----------------------------------------------------------------------------------------


def test_a_line_that_was_asked_for_is_a_pass() -> None:
    contract = Contract(success="login:$")
    assert contract.end("vt login:") is End.SUCCESS
    assert contract.end("Welcome") is None
    assert judge(story("vt login:", End.SUCCESS, -9), contract=contract) == (
        Verdict.PASSED,
        "the guest said: vt login:",
    )


def test_a_guest_that_ends_without_the_line_has_died() -> None:
    verdict, why = judge(story("Welcome"), contract=Contract(success="login:"))
    assert verdict is Verdict.DIED
    assert "no line matched 'login:'" in why


def test_a_line_that_means_failure_comes_first() -> None:
    contract = Contract(success="DONE", failure="NOT DONE")
    assert contract.end("NOT DONE") is End.FAILURE
    assert judge(story("NOT DONE", End.FAILURE, -9), contract=contract)[0] is Verdict.FAILED


def test_a_clean_power_off_is_a_pass_where_that_is_enough() -> None:
    contract, quiet = Contract(exit_only=True), story("DONE")
    assert judge(quiet)[0] is Verdict.DIED
    assert judge(quiet, contract=contract)[0] is Verdict.PASSED
    assert judge(replace(quiet, shutdown="guest-shutdown"), contract=contract)[0] is Verdict.PASSED
    assert judge(replace(quiet, shutdown="guest-reset"), contract=contract)[0] is Verdict.DIED


@pytest.mark.parametrize("contract", [Contract(success="ok"), Contract(exit_only=True)])
def test_deaths_and_failed_tests_count_under_every_contract(contract: Contract) -> None:
    end = End.SUCCESS if contract.success else End.CLOSED
    assert judge(story(PASSED, end), contract=contract)[0] is Verdict.PASSED
    assert judge(story(FAILED, end), contract=contract)[0] is Verdict.FAILED
    assert judge(story(PASSED, end, death="Kernel panic"), contract=contract)[0] is Verdict.DIED


def test_a_disk_that_holds_other_bytes_than_its_guest_says_is_a_failure() -> None:
    verdict, why = judge(story(PASSED), wrong=["disk0"])
    assert (verdict, why) == (Verdict.FAILED, "disk0 holds other bytes than the guest has read")


@pytest.mark.parametrize("contract", [Contract(), Contract(exit_only=True)])
def test_a_guest_that_is_reset_has_not_passed(contract: Contract) -> None:
    assert judge(replace(story(PASSED), shutdown="guest-shutdown"), contract=contract)[0] is Verdict.PASSED
    verdict, why = judge(replace(story(PASSED), shutdown="guest-reset"), contract=contract)
    assert verdict is Verdict.DIED
    assert "guest-reset" in why


@pytest.mark.parametrize(("words", "mend"), [({"success": "("}, "correct it"), ({"failure": "*"}, "correct it")])
def test_a_pattern_that_is_none_is_refused(words: dict[str, Any], mend: str) -> None:
    with pytest.raises(UsageError, match=mend):
        Contract(**words)


def test_there_is_one_way_to_pass() -> None:
    with pytest.raises(UsageError, match="leave one out"):
        Contract(success="x", exit_only=True)


# -- what it was at ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "before the guest said a word"),
        ("[    1.0] smp: Bringing up", "while it was still booting"),
        ("[    1.0] smp: Bringing up", "its last line: [    1.0] smp: Bringing up"),
        ("KTAP version 1\n1..3", "before the first of 3 tests"),
        ("KTAP version 1\n1..3\nok 1 a\n# b begins", "after a (1 of 3 tests); its last line: # b begins"),
    ],
)
def test_a_guest_whose_time_is_over_is_told_by_what_it_was_at(said: str, words: str) -> None:
    verdict, why = judge(story(said, End.TIMEOUT, -9))
    assert verdict is Verdict.DIED
    assert why.startswith("the guest's time of 30 s was over ")
    assert words in why


def test_an_interrupted_run_says_what_it_was_at() -> None:
    verdict, why = judge(story("[    1.0] smp", End.INTERRUPTED, -9))
    assert (verdict, int(verdict)) == (Verdict.INTERRUPTED, 130)
    assert "still booting" in why
