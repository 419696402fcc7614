# SPDX-License-Identifier: Apache-2.0
"""Stock kernels drive an SMMUv2: every case of the machine, and what the driver says of faults, by its own words."""

from __future__ import annotations

import pytest

from tests.boot.guests import Run, Way, all_passed
from tests.boot.linux import Boots, account, bytes_are_the_same_on_both_sides
from tests.conftest import need_kernel
from vhost_iommu.config import MachineConfig, machines_folder, parse_machine
from vhost_iommu.decode.logs import read_log
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Wishes
from vhost_iommu.lab.faults import Fault
from vhost_iommu.machine import Machine
from vhost_iommu.smmu.v2 import Smmu
from vhost_iommu.smmu.v2.records import ContextFault, GlobalFault
from vhost_iommu.smmu.v2.registers import CBAR, S2CR, BankType, StreamType

MACHINE = "smmuv2-linux"


def machine(*changes: tuple[str, str]) -> MachineConfig:
    """The machine file's with some of its lines replaced."""
    text = (machines_folder() / f"{MACHINE}.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_machine(text)


def smmu_of(run: Run) -> Smmu:
    smmu = run.machine.smmus["smmu0"]
    assert isinstance(smmu, Smmu)
    return smmu


@pytest.fixture(scope="module")
def boots(assets: Assets) -> Boots:
    need_kernel(assets, "6.12")
    return Boots(assets, {})


@pytest.mark.parametrize("way", Way)
def test_a_stock_kernel_passes_every_case_and_both_sides_saw_the_same_bytes(boots: Boots, way: Way) -> None:
    boot = boots.of(MACHINE, way)
    all_passed(boot.report)
    bytes_are_the_same_on_both_sides(boot)
    assert account(boot) == account(boots.of(MACHINE, Way.USERS))
    counters = smmu_of(boot).counters
    assert counters.events == counters.events_by_kind["FSR.TF"] > 1
    assert counters.commands_by_kind["CB_TLBIVAL"] > 1000
    assert counters.syncs > 1000


def test_unlike_smmus_and_masters_behind_none_work_in_one_guest(boots: Boots) -> None:
    """Each domain is of the SMMU that it was made for: the kernel refuses it to a device behind the other."""
    boot = boots.of("mixed")
    all_passed(boot.report)
    bytes_are_the_same_on_both_sides(boot)
    names = {result.name for result in boot.report.results}
    assert {"engine0_refuses_a_foreign_domain", "engine1_refuses_a_foreign_domain", "disks_work_at_once"} <= names
    v3, v2 = boot.machine.smmus["smmu0"].counters, boot.machine.smmus["smmu1"].counters
    assert set(v3.events_by_kind) == {"F_TRANSLATION"}
    assert set(v2.events_by_kind) == {"FSR.TF"}
    assert min(v3.syncs, v2.syncs) > 1000


def test_a_trace_has_each_access_invalidation_and_fault(boots: Boots) -> None:
    boot = boots.of(MACHINE, Way.TRACED)
    assert boot.spans, "the host saw each access, in the guest's order"
    counters = smmu_of(boot).counters
    commands = boot.commands()
    assert counters.commands == len(commands)
    assert counters.syncs == sum(each.name.endswith("SYNC") for each in commands)
    assert counters.events == len(boot.faults())


def test_contexts_of_stage_2_are_what_the_driver_takes_if_it_is_told_to(boots: Boots) -> None:
    boot = boots.of(f"{MACHINE} arm-smmu.force_stage=2")
    all_passed(boot.report)
    bytes_are_the_same_on_both_sides(boot)
    smmu = smmu_of(boot)
    assert smmu.registers[CBAR, 0].TYPE == BankType.S2
    assert smmu.tlb2.counters.hits > 0
    assert smmu.tlb.counters.hits == 0


def test_with_passthrough_streams_bypass(assets: Assets) -> None:
    need_kernel(assets, "6.12")
    kinds = []

    def on_line(running: Machine, line: str) -> None:
        if line.startswith("ok ") and "disk0_reads_back" in line:
            kinds.append(running.smmus["smmu0"].registers[S2CR, 0].TYPE)

    wishes = Wishes(append="iommu.passthrough=1", cases=("modules_load", "smmu0_probes", "disk0_*"))
    run = Run(assets, MACHINE, wishes, Way.USERS, on_line)
    all_passed(run.report)
    assert kinds == [StreamType.BYPASS]


@pytest.mark.parametrize("flavour", ["6.1", "7", "7-16k"])
def test_kernels_of_other_ages_and_pages_drive_it(assets: Assets, flavour: str) -> None:
    need_kernel(assets, flavour)
    run = Run(assets, MACHINE, Wishes(kernel=flavour))
    all_passed(run.report)


def test_as_the_product_with_a_line_for_each_bank_it_works_too(assets: Assets) -> None:
    need_kernel(assets, "6.12")
    product = machine(
        ('"arm,smmu-v2"  ', '"arm,mmu-500"\npreset = "mmu-500"  '),
        ("stream_groups = 32", ""),
        ("context_banks = 8", ""),
        ('interrupts = "line"', 'interrupts = "wired"'),
    )
    run = Run(assets, product)
    all_passed(run.report)
    assert smmu_of(run).counters.interrupts > 0


def test_one_domain_more_than_context_banks_is_refused_by_the_driver(assets: Assets) -> None:
    """A bank for the disk's default domain, one for the engine's, and none for another."""
    need_kernel(assets, "6.12")
    run = Run(
        assets,
        machine(("context_banks = 8", "context_banks = 2")),
        Wishes(cases=("modules_load", "engine0_copies_coherent_memory", "engine0_switches_domains")),
    )
    assert run.report.passed("engine0_copies_coherent_memory")
    refused = next(each for each in run.report.results if each.name == "engine0_switches_domains")
    assert any("the device is not attached: -28" in note for note in refused.notes)


@pytest.mark.parametrize("fault", ["wrong-stream master=engine0 sid=0x201", "wrong-address master=engine0"])
def test_what_the_driver_says_of_a_fault_is_decoded_to_what_was_recorded(assets: Assets, fault: str) -> None:
    """An unknown stream, which is no context's, and an address that the context does not map."""
    need_kernel(assets, "6.12")
    wishes = Wishes(cases=("modules_load", "engine0_copies_coherent_memory"), faults=(Fault.parse(f"{fault} count=1"),))
    run = Run(assets, MACHINE, wishes)
    assert not run.report.passed("engine0_copies_coherent_memory")
    notes = "\n".join(note for result in run.report.results for note in result.notes)
    said = {type(each.decoded[0].value): each.decoded[0].value for each in read_log(notes).findings if each.decoded}
    (made,) = smmu_of(run).counters.first_events
    if isinstance(made, GlobalFault):
        assert said[GlobalFault] == GlobalFault.of(USF=1, SID=0x201)
        assert made.USF
        assert "Blocked unknown Stream ID 0x201" in notes
    else:
        assert isinstance(made, ContextFault)
        assert said[ContextFault] == made.replace(TYPE=0)
