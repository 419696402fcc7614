# SPDX-License-Identifier: Apache-2.0
"""Whole machines: bytes in guest RAM and in the daemon's disks, compared from both sides."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from tests.conftest import missing
from vhost_iommu.config import MachineConfig, load_machine, parse_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report, disk_checksums
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.smmu.v3 import Features
from vhost_iommu.smmu.v3.registers import IDR0


def run(
    assets: Assets, machine: str | MachineConfig, kernel: str | None = None, append: str | None = None
) -> tuple[Report, Launch]:
    config = load_machine(machine) if isinstance(machine, str) else machine
    launch = Launch(config, Wishes(kernel=kernel, append=append), assets=assets)
    return launch.run(), launch


def bare(elf: str, *smmus: str) -> MachineConfig:
    """A machine of SMMUs with these lines in their tables, each with an engine behind it."""
    parts = [
        f'[[smmu]]\nname = "smmu{n}"\n{lines}\n'
        f'[[master]]\nname = "engine{n}"\nkind = "engine"\nsmmu = "smmu{n}"\nstream_ids = [1, 2]'
        for n, lines in enumerate(smmus)
    ]
    guest = f'[guest]\nkind = "bare"\nelf = "{elf}"\nmemory = "64M"\ntimeout = 60'
    return parse_machine("\n".join([guest, *parts]))


def all_passed(report: Report, *skipped: str) -> None:
    """Every case passed, but for these, which were skipped."""
    assert report.verdict is Verdict.PASSED, f"{report.why}; see {report.folder}"
    assert {result.name for result in report.results if result.skipped is not None} == set(skipped)


SUBSTREAMS = "substreams_have_their_own_spaces"


@pytest.mark.parametrize(
    ("features", "skipped"),
    [
        ("", [SUBSTREAMS]),
        ("substream_id_bits = 4", []),
        ('msi = false\ninterrupts = "wired"', [SUBSTREAMS]),
        ('version = "3.0"\nstream_id_bits = 6\nasid16 = false\nrange_invalidation = false\noas = 40', [SUBSTREAMS]),
        ("command_queue_bits = 1\nevent_queue_bits = 1", [SUBSTREAMS]),
    ],
)
def test_a_bare_program_sees_translations_faults_and_events(assets: Assets, features: str, skipped: list[str]) -> None:
    report, _ = run(assets, bare("dma", features))
    all_passed(report, *skipped)


def test_several_smmus_are_instances_for_themselves(assets: Assets) -> None:
    report, launch = run(assets, bare("instances", "", 'msi = false\ninterrupts = "wired"', "oas = 40"))
    all_passed(report)
    assert launch.daemon is not None
    assert len(launch.daemon.machine.functions) == 3


def test_an_invalidation_that_is_left_out_is_noticed(assets: Assets) -> None:
    report, _ = run(assets, "smmuv3-bare", append="revoke=0")
    assert [result.name for result in report.ktap.failures] == ["dma_after_unmap_faults"]


def test_a_warning_of_the_smmus_driver_fails_the_run(assets: Assets) -> None:
    machine = load_machine("smmuv3-linux")
    smmu = machine.smmus[0]
    idr0 = IDR0(Features(**smmu.features).id_registers()[IDR0]).replace(COHACC=0)  # firmware says otherwise
    smmu = replace(smmu, id_registers={"IDR0": idr0.raw})
    report, _ = run(assets, replace(machine, smmus=(smmu,)))
    assert report.verdict is Verdict.FAILED
    assert [result.name for result in report.ktap.failures] == ["no_smmu_warnings"]
    assert any("COHACC" in note for note in report.ktap.failures[0].notes)


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
        missing(f"kernel {kernel}")
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


def test_an_smmu_that_is_not_coherent_works_for_linux(assets: Assets) -> None:
    text = load_machine("smmuv3-linux").path.read_text().replace("coherent = true", "coherent = false")
    report, launch = run(assets, parse_machine(text))
    all_passed(report)
    assert not launch.platform.functions[0].smmu.coherent
