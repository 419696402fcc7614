# SPDX-License-Identifier: Apache-2.0
"""What was noted of a run, and the page that is made of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vhost_iommu.guest.account import Account
from vhost_iommu.guest.ktap import Ktap, Result
from vhost_iommu.guest.page import report_page
from vhost_iommu.guest.recording import Recording
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.timeline import MOST, Timeline
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.smmu.v3.events import F_TRANSLATION
from vhost_iommu.watch import Noted, Reported
from vhost_iommu.watch import Recording as Watched

CONSOLE = ["KTAP version 1", "1..2", "ok 1 first", "# <b>why</b>", "# more\x1b[0m", "not ok 2 <i>second</i>"]


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 10**9
        return self.now


def counters(**commands: int) -> Any:
    return SimpleNamespace(commands_by_kind=commands, events_by_kind={}, translations=0, walks=0, faults=0, stalls=0)


def noted() -> Timeline:
    state = {"smmu0": counters(CMD_SYNC=0)}
    timeline = Timeline(lambda: state, Clock())
    for line, syncs in zip(CONSOLE, (0, 0, 5, 0, 0, 12), strict=True):
        if syncs:
            state["smmu0"] = counters(CMD_SYNC=syncs)
        timeline.line(line)
    timeline.reported(Reported(1, 2 * 10**9, "smmu0", F_TRANSLATION.of(SID=7), True))
    return timeline


def page_of(timeline: Timeline, folder: Path) -> str:
    ktap = Ktap.of(CONSOLE)
    report = Report(Verdict.FAILED, "1 of 2", ktap, "\n".join(CONSOLE), 3.0, 0.5, folder, account=Account())
    return report_page(report, timeline, "m<x>", folder / "dump")


def test_commands_are_told_by_the_test_whose_result_came_after_them() -> None:
    timeline = noted()
    assert [(each.result.name, each.counts["smmu0"]["CMD_SYNC"]) for each in timeline.operations] == [
        ("first", 5),
        ("<i>second</i>", 7),
    ]
    assert timeline.moments[0].seconds == 1.0


def test_what_a_live_guest_did_is_told_by_what_it_was_asked(tmp_path: Path) -> None:
    state = {"smmu0": counters(CMD_SYNC=0)}
    timeline = Timeline(lambda: state, Clock())
    for what, syncs, passed in (("boot", 3, True), ("dd <if>", 10, False)):
        state["smmu0"] = counters(CMD_SYNC=syncs)
        timeline.did(Result(what, passed))
    report = Report(Verdict.FAILED, "a command", Ktap(), "", 3.0, None, tmp_path, account=Account())
    seen = Recording(Watched())
    seen.guest.append(Noted(1, 5, "guest", "iommu", "unmap", {"iova": 0, "size": 4096}))
    page = report_page(report, timeline, "m", tmp_path / "dump", seen)
    for text in ("dd &lt;if&gt;", ">7<", ">10<", "had done what it was asked", "The last recording"):
        assert text in page


def test_moments_beyond_those_that_are_noted_are_counted() -> None:
    timeline = Timeline()
    for number in range(MOST + 3):
        timeline.noted(Noted(number, 0, "smmu0", "fault", "drop-sync", {"what": "it"}))
    assert (len(timeline.moments), timeline.left_out) == (MOST, 3)


def test_the_page_has_all_of_a_run_and_takes_nothing_of_it_for_markup(tmp_path: Path) -> None:
    page = page_of(noted(), tmp_path)
    for text in ("failed: 1 of 2", "F_TRANSLATION SID=7", "CMD_SYNC", "&lt;i&gt;second", "&lt;b&gt;why", "m&lt;x&gt;"):
        assert text in page
    assert [mark for mark in ("<i>", "<b>", "<x>", "\x1b") if mark in page] == []
    assert "src=" not in page
    assert "href=" not in page


def test_a_dump_that_cannot_be_read_is_told_in_the_page(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(b"nothing")
    assert "cannot be read" in page_of(noted(), tmp_path)


def test_a_run_of_which_nothing_is_known_has_a_page(tmp_path: Path) -> None:
    assert "failed: 1 of 2" in page_of(Timeline(), tmp_path)
    assert Counter() == Timeline().counters()
