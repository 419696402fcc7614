# SPDX-License-Identifier: Apache-2.0
"""What stock Linux does when its SMMU is wrong: each fault as a user asks for it, and what its page says.

What Linux does not meet a bare-metal program does. Faults that do not disturb each other are met in one boot.
"""

from __future__ import annotations

import re
from contextlib import closing

import pytest

from tests.boot.guests import Way, chosen
from tests.conftest import need_kernel
from vhost_iommu.config import MachineConfig, machines_folder, parse_machine
from vhost_iommu.guest import qemu
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.lab.faults import FAULTS, Bare, Fault, Seen
from vhost_iommu.trace import Trace

#: Of each machine, cases in which the driver has something to do, and what they need; the last looks at its words.
CASES = {
    "smmuv3-linux": ("disk0_writes_directly", "no_smmu_warnings"),
    "smmuv3-pasid": (
        "engine0_bypassed_copies_coherent_memory", "engine0_strict_loses_what_is_unmapped", "no_other_warnings",
    ),
}  # fmt: skip
BARE = [(kind, bare) for kind, declared in FAULTS.items() for bare in declared.BARE]


def boots() -> dict[str, list[tuple[Fault, Seen]]]:
    """Each boot of Linux by its name, and the faults that are met in it."""
    found: dict[str, list[tuple[Fault, Seen]]] = {}
    for kind, declared in FAULTS.items():
        for seen in declared.LINUX:
            fault = f"{kind} {seen.fault}".strip()
            found.setdefault(f"{seen.boot or fault} on {seen.machine}", []).append((Fault.parse(fault), seen))
    return found


BOOTS = boots()


def machine_of(seen: Seen | Bare) -> MachineConfig:
    """Its machine with the lines that are others: in place of those of the same key, or in [[smmu]]."""
    path = machines_folder() / f"{seen.machine}.toml"
    text = path.read_text()
    for line in seen.features:
        key = line.partition("=")[0]
        text, replaced = re.subn(rf"(?m)^{re.escape(key)}=.*$", line, text)
        if not replaced:
            text = text.replace("[[smmu]]\n", f"[[smmu]]\n{line}\n", 1)
    return parse_machine(text, seen.machine, path)


def run(assets: Assets, seen: Seen, *faults: Fault) -> tuple[Launch, Report]:
    """As users run it: on the core, and nothing is watched."""
    need_kernel(assets, "6.12")
    wishes = Wishes(faults=faults, cases=seen.cases or CASES[seen.machine], own_cases=seen.own, timeout=300)
    with closing(Launch(machine_of(seen), wishes, assets=assets)) as launch, chosen(Way.USERS):
        report = launch.run()
    assert launch.daemon is not None
    assert launch.daemon.machine.smmus["smmu0"].core is not None
    return launch, report


@pytest.mark.parametrize("boot", BOOTS)
def test_linux_does_with_a_fault_what_the_page_says(assets: Assets, monkeypatch: pytest.MonkeyPatch, boot: str) -> None:
    met = [seen for _, seen in BOOTS[boot]]
    if "how=silent" in boot:
        monkeypatch.setattr(qemu, "MESSAGE_TIMEOUT", 500)  # milliseconds for each answer that never comes
    launch, report = run(assets, met[0], *(fault for fault, _ in BOOTS[boot]))
    assert report.account.unstruck == ()
    for seen in met:
        for text in seen.says:
            assert any(text in line for line in report.console.splitlines()), (text, report.folder)
    assert launch.daemon is not None
    machine = launch.daemon.machine
    assert [stray.moved for stray in machine.strays.values()] == [0], "a stray access moved bytes"
    if all(FAULTS[fault.kind].TARGET == "master" for fault, _ in BOOTS[boot]):
        ports = [master.port for master in machine.masters.values()] + [stray.port for stray in machine.strays.values()]
        struck = sum(fault.struck for fault in report.account.faults)
        assert sum(port.aborts for port in ports) == struck, "each that went astray was aborted, and no other"
    failed = {result.name for result in report.results if not result.passed}
    assert failed == {name for seen in met for name in seen.fails}, report.folder
    dies = any(seen.dies for seen in met)
    if "dead-daemon" in boot and report.verdict is Verdict.DIED:
        # By the moment of it, a kernel may also wait for a register for so long that its watchdog barks.
        assert "soft lockup" in report.why
        return
    assert report.verdict is (Verdict.DIED if dies else Verdict.FAILED if failed else Verdict.PASSED), report.why


def test_faults_of_one_boot_are_met_by_the_same_guest() -> None:
    for boot, met in BOOTS.items():
        assert len({(seen.machine, seen.features, seen.cases, seen.own) for _, seen in met}) == 1, boot


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize(("kind", "bare"), BARE, ids=[f"{kind} {bare.fault}".strip() for kind, bare in BARE])
def test_what_stock_linux_cannot_meet_a_bare_metal_program_does(
    assets: Assets, kind: str, bare: Bare, way: Way
) -> None:
    wishes = Wishes(faults=(Fault.parse(f"{kind} {bare.fault}"),), elf=bare.program, cases=(bare.case,))
    trace = Trace.memory() if way is Way.TRACED else None
    with closing(Launch(machine_of(bare), wishes, assets=assets, trace=trace)) as launch, chosen(way):
        report = launch.run()
    assert report.verdict is (Verdict.PASSED if bare.passes else Verdict.FAILED), (report.why, report.folder)
    assert [(result.name, result.passed) for result in report.results] == [(bare.case, bare.passes)]
    assert report.account.unstruck == ()
    assert launch.daemon is not None
    assert (launch.daemon.machine.smmus["smmu0"].core is None) == (way is Way.REFERENCE)
    if trace is not None:
        assert any(record.name == kind for record in trace.records), "the trace says when it struck"


def test_a_fault_that_never_strikes_fails_the_run_by_its_name(assets: Assets) -> None:
    _, report = run(assets, Seen("", (), ""), Fault("cerror", after=1_000_000))
    assert (report.verdict, report.why) == (Verdict.FAILED, "cerror after=1000000 never struck")
