# SPDX-License-Identifier: Apache-2.0
"""Whole machines: bytes in guest RAM and in the daemon's disks, compared from both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.boot.guests import Run, Way, all_passed, bare, disks_hold_what_the_guest_says
from tests.conftest import need_kernel
from vhost_iommu.config import load_machine, parse_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Wishes
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.smmu.v3 import Features
from vhost_iommu.smmu.v3.registers import IDR0

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
    users, *others = (Run(assets, bare("dma", features), way=way) for way in Way)
    all_passed(users.report, *skipped)
    for other in others:
        all_passed(other.report, *skipped)
        assert other.ktap.notes == users.ktap.notes
        assert other.told == users.told


@pytest.mark.parametrize("way", Way)
def test_several_smmus_are_instances_for_themselves(assets: Assets, way: Way) -> None:
    run = Run(assets, bare("instances", "", 'msi = false\ninterrupts = "wired"', "oas = 40"), way=way)
    all_passed(run.report)
    assert len(run.machine.functions) == 3
    # A TLB may forget, but these do not: what one SMMU was told to drop is still with the others.
    assert run.ktap.facts("stale") == [{"smmu": "1", "translates": "1"}, {"smmu": "2", "translates": "1"}]


@pytest.mark.parametrize("way", Way)
def test_an_invalidation_that_is_left_out_is_noticed(assets: Assets, way: Way) -> None:
    run = Run(assets, "smmuv3-bare", Wishes(append="revoke=0"), way)
    assert [result.name for result in run.ktap.failures] == ["dma_after_unmap_faults"]


def test_a_warning_of_the_smmus_driver_fails_the_run(assets: Assets) -> None:
    machine = load_machine("smmuv3-linux")
    smmu = machine.smmus[0]
    idr0 = IDR0(Features(**smmu.features).id_registers()[IDR0]).replace(COHACC=0)  # firmware says otherwise
    smmu = replace(smmu, id_registers={"IDR0": idr0.raw})
    run = Run(assets, replace(machine, smmus=(smmu,)))
    assert run.report.verdict is Verdict.FAILED
    assert [result.name for result in run.ktap.failures] == ["no_smmu_warnings"]
    assert any("COHACC" in note for note in run.ktap.failures[0].notes)


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
    need_kernel(assets, kernel)
    run = Run(assets, machine, Wishes(kernel=kernel, append=append))
    all_passed(run.report)
    disks_hold_what_the_guest_says(run)
    kinds = {fact["type"] for fact in run.ktap.facts("group")}
    wanted = "identity" if "passthrough=1" in append else "DMA-FQ" if "strict=0" in append else "DMA"
    assert kinds == {wanted}


def test_a_disk_behind_no_smmu_works_beside_one_whose_addresses_are_translated(assets: Assets) -> None:
    text = load_machine("smmuv3-linux").path.read_text()
    run = Run(assets, parse_machine(text + '[[master]]\nname = "disk1"\nkind = "virtio-blk"\nsize = "8M"\n'))
    all_passed(run.report)
    disks_hold_what_the_guest_says(run)
    assert [function.name for function in run.machine.functions] == ["smmu0", "untranslated"]
    translated, physical = (run.machine.masters[name].port for name in ("disk0", "disk1"))
    assert physical.bytes_written > 8 << 20
    assert 0 < translated.transactions <= run.smmu.counters.transactions < translated.transactions * 1.1


def test_an_smmu_that_is_not_coherent_works_for_linux(assets: Assets) -> None:
    text = load_machine("smmuv3-linux").path.read_text().replace("coherent = true", "coherent = false")
    run = Run(assets, parse_machine(text))
    all_passed(run.report)
    disks_hold_what_the_guest_says(run)
    assert not run.launch.platform.smmus[0][0].coherent
