# SPDX-License-Identifier: Apache-2.0
"""KTAP out of a console that says other things too."""

from __future__ import annotations

import time

import pytest

from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.timeline import Timeline

GOOD = """\
[    0.000000] Booting Linux on physical CPU 0x0000000000
KTAP version 1
1..3
# checksum disk0 sha256=00ff bytes=16
ok 1 disk0_reads_back
[    1.500000] ok, the kernel says so
ok 2 - dashed
# no such hardware
ok 3 stalls # SKIP no stall model
"""


def test_results_come_in_order_with_their_skips() -> None:
    ktap = Ktap.of(GOOD)
    assert [(result.name, result.passed, result.skipped) for result in ktap.results] == [
        ("disk0_reads_back", True, None),
        ("dashed", True, None),
        ("stalls", True, "no stall model"),
    ]
    assert ktap.complete
    assert ktap.failures == []


def test_a_skipped_test_has_not_passed() -> None:
    assert Ktap.of(GOOD).passed("dashed")
    assert not Ktap.of(GOOD).passed("stalls")
    assert not Ktap.of(GOOD).passed("never_heard_of")


def test_diagnostic_lines_belong_to_the_next_result() -> None:
    assert Ktap.of(GOOD).results[2].notes == ("no such hardware",)


def test_facts_are_read_from_diagnostic_lines() -> None:
    assert Ktap.of(GOOD).facts("checksum") == [{"": "disk0", "sha256": "00ff", "bytes": "16"}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "KTAP version 1\n",
        "KTAP version 1\n1..0\n",
        "KTAP version 1\n1..2\nok 1 a\n",
        "KTAP version 1\n1..1\nok 1 a\nok 2 b\n",
        "KTAP version 1\n1..1\nok 1 a\nBail out! disk on fire\n",
        "ok 1 a\n",
    ],
)
def test_what_the_guest_did_not_say_is_not_complete(text: str) -> None:
    assert not Ktap.of(text).complete


def test_a_failure_is_found_through_a_kernel_time_stamp() -> None:
    ktap = Ktap.of("[    0.1] KTAP version 1\n[    0.1] 1..1\n[    0.2][   T1] not ok 1 arm_smmu\n")
    assert [result.name for result in ktap.failures] == ["arm_smmu"]
    assert ktap.complete


def test_a_nested_test_carries_its_parents_name() -> None:
    ktap = Ktap.of(
        "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: outer\n    1..2\n"
        "    ok 1 first\n    not ok 2 second\nnot ok 1 outer\n"
    )
    assert [result.name for result in ktap.results] == ["outer.first", "outer.second", "outer"]
    assert ktap.planned == 1
    assert ktap.complete


def test_a_name_has_all_parents_before_it() -> None:
    said = [
        *("KTAP version 1", "1..2", "    KTAP version 1", "    1..1", "        KTAP version 1", "        1..1"),
        *("        ok 1 grandchild", "    ok 1 child", "ok 1 parent", "    1..1", "    ok 1 child", "ok 2 other"),
    ]
    ktap = Ktap.of(said)
    assert [result.name for result in ktap.results] == [
        *("parent.child.grandchild", "parent.child", "parent", "other.child", "other"),
    ]
    assert [result.name for result in ktap.tests] == ["parent.child.grandchild", "other.child"]


def test_thousands_of_suites_are_read_in_no_time() -> None:
    suite = ["    KTAP version 1", "    1..1", "    ok 1 x", "ok 1 y"]
    began = time.process_time()
    ktap = Ktap.of(["KTAP version 1", "1..1000000000", *suite * 10_000])
    assert len(ktap.results) == 20_000
    assert not ktap.complete
    assert time.process_time() - began < 10  # it would be minutes if each suite looked at all before it


def test_a_case_begins_with_the_announcement_or_the_result_before_it() -> None:
    now = iter(range(100, 2000, 100))
    timeline = Timeline(clock=lambda: next(now))
    begun = []
    for line in ("booting", "KTAP version 1", "1..2", "# a note", "ok 1 a", "noise", "not ok 2 b"):
        before = timeline.told
        if timeline.line(line) is not None:
            begun.append((before, timeline.told))
    assert begun == [(300, 400), (400, 500)]  # the beginning is at 100, the announcement at 300


def test_an_outcome_is_a_word() -> None:
    ktap = Ktap.of("KTAP version 1\n1..3\nok 1 a\nnot ok 2 b\nok 3 c # SKIP no disk\n")
    assert [result.outcome for result in ktap.results] == ["passed", "failed", "skipped"]
