# SPDX-License-Identifier: Apache-2.0
"""The MSM IOMMU as a bare-metal program finds it, on each way that it is run, and what the models account for it.

Law: the program states bit positions by hand, from Linux' header, so its word and the model's are two witnesses.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from tests.boot.guests import all_passed
from vhost_iommu.config import load_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report
from vhost_iommu.watch import Kind, Recording, Reported


@lru_cache(maxsize=2)
def seen(assets: Assets, watched: bool) -> tuple[Report, Recording]:
    recording = Recording(Kind.REPORTED | Kind.STALLED)
    launch = Launch(load_machine("msm-bare"), Wishes(), assets=assets, watchers=(recording,) if watched else ())
    try:
        return launch.run(), recording
    finally:
        launch.close()


@pytest.mark.parametrize("watched", [False, True], ids=["unwatched", "watched"])
def test_what_software_sees_is_what_its_driver_relies_on(assets: Assets, watched: bool) -> None:
    report, _ = seen(assets, watched)
    all_passed(report)


def test_the_faults_that_the_program_made_are_told_with_who_and_where(assets: Assets) -> None:
    _, recording = seen(assets, True)
    faults = [it for it in recording.of(Reported, "iommu0") if "FADDR" in it.record.values()]
    assert {it.record.values()["AMID"] for it in faults} == {5}
    assert 0x10003000 in {it.record.values()["FADDR"] for it in faults}
    assert any(it.record.values()["SS"] for it in faults)
    (only,) = recording.of(Reported, "iommu1")
    assert only.record.values()["AMID"] == 3
