# SPDX-License-Identifier: Apache-2.0
"""Whole machines: bytes in guest RAM and in the daemon's disks, compared from both sides."""

from __future__ import annotations

import hashlib

import pytest

from vhost_iommu.config import load_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.run import Report, Verdict, disk_checksums
from vhost_iommu.masters.virtio_blk import VirtioBlk


def run(assets: Assets, machine: str, **wishes: str) -> tuple[Report, Launch]:
    launch = Launch(load_machine(machine), Wishes(**wishes), assets=assets)  # type: ignore[arg-type]
    return launch.run(), launch


def test_a_bare_program_sees_translations_faults_and_events(assets: Assets) -> None:
    report, _ = run(assets, "smmuv3-bare")
    assert report.verdict is Verdict.PASSED, f"{report.why}; see {report.folder}"
    assert not any(result.skipped for result in report.results)


def test_an_invalidation_that_is_left_out_is_noticed(assets: Assets) -> None:
    report, _ = run(assets, "smmuv3-bare", append="revoke=0")
    assert [result.name for result in report.ktap.failures] == ["dma_after_unmap_faults"]


@pytest.mark.parametrize(
    ("machine", "kernel", "append"),
    [
        ("smmuv3-linux", "6.12", ""),
        ("smmuv3-linux", "6.1", ""),
        ("smmuv3-linux", "7", ""),
        ("smmuv3-linux", "7-16k", ""),
        ("smmuv3-linux", "6.12", "iommu.strict=0"),
        ("smmuv3-linux", "6.12", "iommu.passthrough=1"),
        ("two-smmus", "6.12", ""),
    ],
)
def test_a_stock_kernel_uses_the_disks_behind_its_smmus(assets: Assets, machine: str, kernel: str, append: str) -> None:
    if not (assets.folder / f"kernel-{kernel}").is_dir():
        pytest.skip(f"missing: kernel {kernel}; run 'vhost-iommu fetch'")
    report, launch = run(assets, machine, kernel=kernel, append=append)
    assert report.verdict is Verdict.PASSED, f"{report.why}; see {report.folder}"
    assert launch.daemon is not None
    disks = {name: master for name, master in launch.daemon.machine.masters.items() if isinstance(master, VirtioBlk)}
    said = disk_checksums(report)
    assert set(said) == set(disks)
    for name, disk in disks.items():
        for fact in said[name]:
            held = disk.storage.read(int(fact["offset"]), int(fact["bytes"]))
            assert held is not None
            assert any(held)
            assert hashlib.sha256(held).hexdigest() == fact["sha256"]
    kinds = {fact["type"] for fact in report.ktap.facts("group")}
    wanted = "identity" if "passthrough=1" in append else "DMA-FQ" if "strict=0" in append else "DMA"
    assert kinds == {wanted}
