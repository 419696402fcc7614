# SPDX-License-Identifier: Apache-2.0
"""``make demo``: fetches what is missing, runs a bare-metal guest and a Linux, and tells what both sides saw.

Law: a check counts as passed only when it was made; what a guest says of its disks is compared with the disks.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from dataclasses import dataclass, field

from .config import load_machine
from .daemon import Daemon
from .guest.assets import Assets
from .guest.ktap import Ktap
from .guest.launch import Launch
from .guest.report import Report, disk_checksums
from .guest.verdict import Verdict
from .masters.virtio_blk import VirtioBlk
from .smmu.v3 import Smmu
from .terminal import Progress, paint

MACHINES = ("smmuv3-bare", "two-smmus")
_PROBE = re.compile(r"(arm-smmu-v3) ([0-9a-f]+)\.iommu: ias (\d+)-bit, oas (\d+)-bit")
_NEXT = """\
A bare-metal program and an unmodified Linux found SMMUv3s as hardware; DMA went where their tables say, and a stray
access was an event that the guest read. Next: 'vhost-iommu run smmuv3-linux --kernel YOURS', with --trace t.json to
see each command and walk; 'vhost-iommu --help' says the rest (in a checkout: .venv/bin/vhost-iommu)."""
_FAILED = "What failed is said above; each guest's console is in the folder that is named beside it."


@dataclass
class Account:
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
            account = _run(name, assets, progress)
            passed += account.passed
            failed += account.failed
    print(paint(f"{passed} passed, {failed} failed", "red" if failed else "green"))
    print(_NEXT if failed == 0 else _FAILED)
    return 1 if failed else 0


def _run(name: str, assets: Assets, progress: Progress) -> Account:
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
    report = launch.run()
    account = Account()
    assert launch.daemon is not None
    _tell_tests(account, report)
    if config.guest.kind == "linux":
        _tell_drivers(account, launch, report.console)
    _tell_models(account, launch.daemon)
    with closing(launch):
        _compare_disks(account, launch.daemon, report)
    progress.clear()
    _print(f"{name}: {config.description}", account)
    return account


def _tell_tests(account: Account, report: Report) -> None:
    """Each of the guest's tests is a check; a guest that did not end well is one more, failed."""
    good = sum(result.passed and result.skipped is None for result in report.results)
    bad = sum(not result.passed for result in report.results)
    account.passed += good
    account.failed += bad
    for result in report.results:
        if not result.passed:
            account.tell("FAILED", " / ".join([result.name, *result.notes]))
        elif result.skipped is not None:
            account.tell("skipped", f"{result.name}: {result.skipped}")
    account.tell("guest", f"{good} tests passed, {bad} failed, in {report.seconds:.1f} s")
    if report.verdict is Verdict.DIED:
        account.check(False, "guest", report.why)
    if report.folder is not None:
        account.tell("guest", f"its console is in {report.folder}")


def _tell_drivers(account: Account, launch: Launch, console: str) -> None:
    """Which driver of the guest's found each SMMU."""
    bound = {int(match[2], 16): match for match in _PROBE.finditer(console)}
    for smmu, registers, _ in launch.platform.smmus:
        match = bound.get(registers.base)
        text = "no driver bound" if match is None else f"Linux bound {match[1]}: {match[3]} bits in, {match[4]} out"
        account.check(match is not None, smmu.name, text)


def _tell_models(account: Account, daemon: Daemon) -> None:
    for smmu in daemon.machine.smmus.values():
        _tell_smmu(account, smmu)
    for master in daemon.machine.masters.values():
        port = master.port
        account.check(
            port.bytes_read > 0 and port.bytes_written > 0,
            master.name,
            f"{_size(port.bytes_read)} read from the guest, {_size(port.bytes_written)} written to it, "
            f"in {port.transactions} transactions; {port.stalls} stalled, {port.aborts} aborted",
        )


def _tell_smmu(account: Account, smmu: Smmu) -> None:
    counters, tlb = smmu.counters, smmu.tlb.counters
    account.check(
        counters.translations > 0 and counters.walks > 0,
        smmu.name,
        f"{counters.translations} translations: {tlb.hits} TLB hits, {counters.walks} walks, {counters.faults} faults",
    )
    account.check(
        counters.commands > 0 and not counters.command_errors,
        smmu.name,
        f"{counters.commands} commands, {counters.syncs} of them CMD_SYNC, {counters.command_errors} refused; "
        f"{counters.events} events, {counters.interrupts} interrupts",
    )
    if counters.stalls:
        left = len(smmu.stalls)
        account.check(not left, smmu.name, f"{counters.stalls} stalls, {left} of them not answered by software")


def _compare_disks(account: Account, daemon: Daemon, report: Report) -> None:
    """The guest's checksums of its disks against ours of the same bytes."""
    said = disk_checksums(report)
    for name, master in daemon.machine.masters.items():
        if not isinstance(master, VirtioBlk):
            continue
        if not said.get(name):
            account.check(False, name, "the guest said no checksum")
        for fact in said.get(name, []):
            offset, size = int(fact["offset"]), int(fact["bytes"])
            data = master.storage.read(offset, size)
            ours = hashlib.sha256(data or b"").hexdigest()
            what = f"sha256 of {_size(size)} at {_size(offset)}: {fact['sha256'][:16]}… in the guest"
            agree = ours == fact["sha256"]
            account.check(agree, name, f"{what}, {'the same here' if agree else f'{ours[:16]}… here'}")


def _size(size: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.{0 if size % unit == 0 else 1}f} {name}"
    return f"{size} bytes" if size else "0"


def _print(title: str, account: Account) -> None:
    print(paint(title, "bold"))
    width = max(len(subject) for subject, _ in account.lines)
    for subject, text in account.lines:
        print(f"  {subject:{width}}  {text}")
    print(flush=True)
