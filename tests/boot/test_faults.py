# SPDX-License-Identifier: Apache-2.0
"""What stock Linux does when its SMMU is wrong: each fault as a user asks for it, and what its page says."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.boot.guests import Way, chosen
from tests.conftest import need_kernel
from vhost_iommu.config import load_machine
from vhost_iommu.guest import qemu
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.lab.faults import FAULTS, Bare, Fault, Seen

#: Of each machine, cases in which the driver has something to do, and what they need; the last looks at its words.
CASES = {
    "smmuv3-linux": ("disk0_writes_directly", "no_smmu_warnings"),
    "smmuv3-pasid": (
        "engine0_bypassed_copies_coherent_memory", "engine0_strict_loses_what_is_unmapped", "no_other_warnings",
    ),
}  # fmt: skip
BARE = [(kind, bare) for kind, declared in FAULTS.items() for bare in declared.BARE]
SEEN = [(kind, seen) for kind, declared in FAULTS.items() for seen in declared.LINUX]


def run(
    assets: Assets, machine: str, fault: Fault, cases: tuple[str, ...] = (), own: tuple[str, ...] = ()
) -> tuple[Launch, Report]:
    """As users run it: on the core, as far as the fault lets it be, and nothing is traced."""
    wishes = Wishes(faults=(fault,), cases=cases or CASES[machine], own_cases=own, timeout=300)
    with closing(Launch(load_machine(machine), wishes, assets=assets)) as launch, chosen(Way.USERS):
        return launch, launch.run()


@pytest.mark.parametrize(("kind", "seen"), SEEN, ids=[f"{kind} {seen.fault}".strip() for kind, seen in SEEN])
def test_linux_does_with_a_fault_what_the_page_says(
    assets: Assets, monkeypatch: pytest.MonkeyPatch, kind: str, seen: Seen
) -> None:
    need_kernel(assets, "6.12")
    if "how=silent" in seen.fault:
        monkeypatch.setattr(qemu, "MESSAGE_TIMEOUT", 500)  # milliseconds for each answer that never comes
    launch, report = run(assets, seen.machine, Fault.parse(f"{kind} {seen.fault}"), seen.cases, seen.own)
    (fault,) = report.account.faults
    assert fault.struck > 0
    for text in seen.says:
        assert any(text in line for line in report.console.splitlines()), (text, report.folder)
    assert launch.daemon is not None
    assert [stray.moved for stray in launch.daemon.machine.strays.values()] == [0], "a stray access moved bytes"
    failed = [result.name for result in report.results if not result.passed]
    assert failed == list(seen.fails), report.folder
    assert report.verdict is (Verdict.DIED if seen.dies else Verdict.FAILED if failed else Verdict.PASSED), report.why


@pytest.mark.parametrize(("kind", "bare"), BARE, ids=[f"{kind} {bare.fault}" for kind, bare in BARE])
def test_what_stock_linux_cannot_meet_a_bare_metal_program_does(assets: Assets, kind: str, bare: Bare) -> None:
    wishes = Wishes(faults=(Fault.parse(f"{kind} {bare.fault}"),), elf=bare.program, cases=(bare.case,))
    with closing(Launch(load_machine(bare.machine), wishes, assets=assets)) as launch, chosen(Way.USERS):
        report = launch.run()
    assert report.verdict is Verdict.PASSED, (report.why, report.folder)
    assert [result.name for result in report.results] == [bare.case]
    assert [fault.struck > 0 for fault in report.account.faults] == [True]
    assert launch.daemon is not None
    assert launch.daemon.machine.smmus["smmu0"].core is not None


def test_a_fault_that_never_strikes_fails_the_run_by_its_name(assets: Assets) -> None:
    need_kernel(assets, "6.12")
    launch, report = run(assets, "smmuv3-linux", Fault("cerror", after=1_000_000))
    assert (report.verdict, report.why) == (Verdict.FAILED, "cerror after=1000000 never struck")
    assert launch.daemon is not None
    assert launch.daemon.machine.smmus["smmu0"].core is not None
