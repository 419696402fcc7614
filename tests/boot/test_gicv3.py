# SPDX-License-Identifier: Apache-2.0
"""Guests with a GICv3, which a host with KVM may be bound to: SMMUs and masters interrupt them all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.guests import all_passed
from vhost_iommu.config import load_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report


def run(assets: Assets, machine: str, folder: Path, *cases: str) -> Report:
    launch = Launch(load_machine(machine), Wishes(gic=3, cases=cases, keep=folder), assets=assets)
    try:
        return launch.run()
    finally:
        launch.close()


def test_a_bare_program_hears_of_an_event_by_a_wire(assets: Assets, tmp_path: Path) -> None:
    report = run(assets, "smmuv3-bare", tmp_path)
    all_passed(report)
    assert "an_event_interrupts" in [each.name for each in report.results]


@pytest.mark.timeout(600)
def test_linux_takes_the_interrupts_of_smmus_and_disks(assets: Assets, tmp_path: Path) -> None:
    all_passed(run(assets, "smmuv3-linux", tmp_path, "smmu0*", "no_smmu_warnings", "disk0_holds_files"))
    said = (tmp_path / "console.log").read_text()
    assert "GICv3: CPU0: found redistributor" in said
    assert "no evtq irq" not in said
