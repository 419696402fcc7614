# SPDX-License-Identifier: Apache-2.0
"""``make demo``: fetches what is missing, runs a bare-metal guest and a Linux, and tells what both sides saw.

Law: a check counts as passed only when it was made; what a guest says of its disks is compared with the disks.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, field

from .config import MachineConfig, load_machine
from .guest.account import Account
from .guest.assets import Assets
from .guest.ktap import Ktap
from .guest.launch import Launch
from .guest.report import Report
from .guest.verdict import Verdict
from .terminal import Progress, filled, paint

MACHINES = ("smmuv3-bare", "two-smmus")
_PROBE = re.compile(r"(arm-smmu-v3) ([0-9a-f]+)\.iommu: ias (\d+)-bit, oas (\d+)-bit")
_NEXT = """\
A bare-metal program and an unmodified Linux found SMMUv3s as hardware; DMA went where their tables say, and a stray
access was an event that the guest read. Next: 'vhost-iommu run smmuv3-linux --kernel YOURS', with --trace t.json to
see each command and walk; 'vhost-iommu --help' says the rest (in a checkout: .venv/bin/vhost-iommu)."""
_FAILED = "What failed is said above; each guest's console is in the folder that is named beside it."


@dataclass
class Checks:
    """What one guest's run came to: lines to read, and how many checks passed and failed."""

    lines: list[tuple[str, str]] = field(default_factory=list)  #: (subject, what is to be said)
    passed: int = 0
    failed: int = 0

    def tell(self, subject: str, text: str) -> None:
        self.lines.append((subject, text))

    def check(self, good: bool, subject: str, text: str) -> None:
        self.passed += good
        self.failed += not good
        self.tell(subject, text if good else f"{paint('FAILED', 'red')} {text}")


def demo() -> int:
    """Run the guests; the exit code."""
    passed = failed = 0
    with Progress() as progress:
        assets = Assets(progress=progress.say)
        assets.fetch_all(modules=False)
        for name in MACHINES:
            checks = _run(name, assets, progress)
            passed += checks.passed
            failed += checks.failed
    print(paint(f"{passed} passed, {failed} failed", "red" if failed else "green"))
    print(filled(_NEXT if failed == 0 else _FAILED))
    return 1 if failed else 0


def _run(name: str, assets: Assets, progress: Progress) -> Checks:
    config = load_machine(name)
    ktap = Ktap()
    doing = "booting"

    def line_came(line: str) -> None:
        nonlocal doing
        if (result := ktap.feed(line)) is not None:
            doing = str(result)
            progress.say(f"{name}: {doing}")
        else:
            progress.live(f"{name}: {doing}  {line.strip()}")

    progress.say(f"{name}: starting its guest")
    launch = Launch(config, assets=assets, on_line=line_came)
    with closing(launch):
        report = launch.run()
    checks = Checks()
    _tell_tests(checks, report)
    if config.guest.kind == "linux":
        _tell_drivers(checks, launch, report.console)
    _tell_models(checks, report.account)
    _compare_disks(checks, config, report.account)
    progress.clear()
    _print(f"{name}: {config.description}", checks)
    return checks


def _tell_tests(checks: Checks, report: Report) -> None:
    """Each of the guest's tests is a check; a guest that did not end well is one more, failed."""
    good = sum(result.passed and result.skipped is None for result in report.results)
    bad = sum(not result.passed for result in report.results)
    checks.passed += good
    checks.failed += bad
    for result in report.results:
        if not result.passed:
            checks.tell("FAILED", " / ".join([result.name, *result.notes]))
        elif result.skipped is not None:
            checks.tell("skipped", f"{result.name}: {result.skipped}")
    checks.tell("guest", f"{good} tests passed, {bad} failed, in {report.seconds:.1f} s")
    if report.verdict is Verdict.DIED:
        checks.check(False, "guest", report.why)
        for line in report.stand_lines:
            checks.tell("guest", line)
    if report.folder is not None:
        checks.tell("guest", f"its console is in {report.folder}")


def _tell_drivers(checks: Checks, launch: Launch, console: str) -> None:
    """Which driver of the guest's found each SMMU."""
    bound = {int(match[2], 16): match for match in _PROBE.finditer(console)}
    for smmu, registers, _ in launch.platform.smmus:
        match = bound.get(registers.base)
        text = "no driver bound" if match is None else f"Linux bound {match[1]}: {match[3]} bits in, {match[4]} out"
        checks.check(match is not None, smmu.name, text)


def _tell_models(checks: Checks, account: Account) -> None:
    for smmu in account.smmus:
        first, *rest = smmu.lines()
        checks.check(smmu.worked, smmu.name, first)
        for text in rest:
            checks.tell(smmu.name, text)
        if smmu.counters["stalls"]:
            checks.check(not smmu.counters["unanswered_stalls"], smmu.name, "software answered each stall")
    for master in account.masters:
        checks.check(master.worked, master.name, master.line())


def _compare_disks(checks: Checks, config: MachineConfig, account: Account) -> None:
    """The guest's checksums of its disks against ours of the same bytes."""
    told = {disk.name for disk in account.disks}
    for master in config.masters:
        if master.kind == "virtio-blk" and master.name not in told:
            checks.check(False, master.name, "the guest said no checksum")
    for disk in account.disks:
        checks.check(disk.same, disk.name, disk.line())


def _print(title: str, checks: Checks) -> None:
    print(paint(title, "bold"))
    width = max(len(subject) for subject, _ in checks.lines)
    for subject, text in checks.lines:
        print(f"  {subject:{width}}  {text}")
    print(flush=True)
