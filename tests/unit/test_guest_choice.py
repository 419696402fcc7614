# SPDX-License-Identifier: Apache-2.0
"""Which cases a pattern chooses, and what a case's source says of it."""

from __future__ import annotations

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.choice import chosen_of, comment_above

NAMES = ("disk0_appears", "disk1_appears", "disk1_reads_back", "a.b")


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["disk1_appears"], ["disk1_appears"]),
        (["disk1*"], ["disk1_appears", "disk1_reads_back"]),
        (["*_appears"], ["disk0_appears", "disk1_appears"]),
        (["d*1*back", "disk0_appears"], ["disk0_appears", "disk1_reads_back"]),
        (["*"], list(NAMES)),
        (["a.b"], ["a.b"]),
    ],
)
def test_a_pattern_is_a_name_in_which_a_star_is_anything(patterns: list[str], chosen: list[str]) -> None:
    assert list(chosen_of(patterns, NAMES)) == chosen


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("disk0_apears", "did you mean 'disk0_appears'"), ("*apears", "_appears'"), ("a?b", "a.b"), ("disk", "--list")],
)
def test_a_pattern_that_matches_nothing_says_what_might(pattern: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        chosen_of([pattern], NAMES)


C = """
/* Not of this one. */
static int helper(void)
/*
 * It copies: from here
 * to there. And more.
 */
static int copies(struct vt *vt)

static int bare(struct vt *vt)
"""
SHELL = """
# reads DISK [HOW]: the disk is read. And more.
# Still more.
reads() {
	# inside
}
cannot() { skip "$1"; }
"""


def test_a_case_is_about_what_the_comment_above_it_says_first() -> None:
    assert comment_above(C, "copies") == "It copies: from here to there."
    assert comment_above(SHELL, "reads") == "The disk is read."


def test_nothing_is_said_of_what_has_no_comment() -> None:
    assert comment_above(C, "bare") == ""
    assert comment_above(SHELL, "cannot") == ""
