# SPDX-License-Identifier: Apache-2.0
"""Guests without an SMMU: the ways in and out, what a guest's end means, and that nothing outlives us."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.boot.guests import all_passed
from tests.conftest import missing
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import qemu
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.initramfs import Initramfs
from vhost_iommu.guest.payload import LinuxGuest
from vhost_iommu.guest.report import Report, disk_checksums
from vhost_iommu.guest.run import BareGuest, GuestRun, Options
from vhost_iommu.guest.verdict import Verdict

SMALL = qemu.Hardware(memory=64)
MIB = 1 << 20


def hello(assets: Assets, arguments: str = "", **options: float) -> Report:
    """Run guest/bare/hello.c."""
    settings = Options(hardware=SMALL, timeout=options.get("timeout", 30))
    return GuestRun(BareGuest("hello", arguments), options=settings, assets=assets).run()


def test_a_bare_program_starts_speaks_and_ends(assets: Assets) -> None:
    report = hello(assets, "hello world")
    assert report.verdict is Verdict.PASSED, report.why
    assert report.ktap.facts("hello") == [{"arguments": "hello world", "smmus": "0", "masters": "0"}]
    assert report.folder is None


def test_a_test_that_fails_in_the_guest_fails_the_run_and_says_why(assets: Assets) -> None:
    report = hello(assets, "fail=1")
    assert report.verdict is Verdict.FAILED
    assert [(result.name, result.notes) for result in report.ktap.failures] == [
        ("fails_when_asked", ("it was asked to fail",))
    ]
    assert report.folder is not None
    assert "not ok" in (report.folder / "console.log").read_text()
    assert "memory-backend-memfd" in (report.folder / "qemu.cmd").read_text()


def test_an_exception_in_the_guest_is_its_death(assets: Assets) -> None:
    report = hello(assets, "fault=1")
    assert report.verdict is Verdict.DIED
    assert "unexpected exception" in report.why


def test_a_guest_that_hangs_runs_out_of_time(assets: Assets) -> None:
    report = hello(assets, "hang=1", timeout=1)
    assert report.verdict is Verdict.DIED
    assert "2 of 3 tests" in report.why


def test_cases_can_be_chosen(assets: Assets) -> None:
    report = hello(assets, "cases=memory_is_writable")
    assert [result.name for result in report.results] == ["memory_is_writable"]
    assert report.verdict is Verdict.PASSED


def test_arguments_that_qemu_does_not_know_are_the_operators_mistake(assets: Assets) -> None:
    options = Options(hardware=SMALL, extra=("-no-such-option",))
    with pytest.raises(UsageError, match="no-such-option"):
        GuestRun(BareGuest("hello"), options=options, assets=assets).run()


def test_a_program_that_is_not_there_is_the_operators_mistake(assets: Assets, tmp_path: Path) -> None:
    for elf in ("goodbye", tmp_path / "none.elf"):
        with pytest.raises(UsageError):
            GuestRun(BareGuest(elf), options=Options(hardware=SMALL), assets=assets).run()


def test_the_line_of_a_dry_run_runs_by_itself(assets: Assets) -> None:
    line, folder = GuestRun(BareGuest("hello"), options=Options(hardware=SMALL), assets=assets).dry_run()
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert "ok 3 fails_when_asked" in done.stdout
    assert folder.is_dir()


HANGING = """
import signal
import sys
# Whoever runs us in the background of a shell has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from vhost_iommu.guest import launcher, qemu, run
class Process(launcher.Process):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        print(self.pid, flush=True)
launcher.Process = Process
options = run.Options(hardware=qemu.Hardware(memory=64))
run.GuestRun(run.BareGuest("hello", "hang=1"), options=options, on_line=lambda line: print(line, flush=True)).run()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_qemu_dies_with_us_and_the_next_run_works(assets: Assets, number: signal.Signals) -> None:
    environment = {**os.environ, "VI_CACHE": str(assets.folder)}
    with subprocess.Popen(
        [sys.executable, "-c", HANGING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as ours:
        assert ours.stdout is not None
        pid = int(ours.stdout.readline())
        while line := ours.stdout.readline():
            if "ok 2" in line:
                break
        guest = os.pidfd_open(pid)
        try:
            ours.send_signal(number)
            poll = select.poll()
            poll.register(guest, select.POLLIN)
            assert poll.poll(10_000), "QEMU outlives us"
        finally:
            os.close(guest)
            ours.kill()
    assert hello(assets).verdict is Verdict.PASSED


def test_a_stock_kernel_keeps_files_on_qemus_own_disks(assets: Assets, tmp_path: Path) -> None:
    disks = [("disk0", tmp_path / "disk0.img"), ("disk1", tmp_path / "disk1.img")]
    for _, path in disks:
        path.write_bytes(bytes(8 * MIB))
    report = GuestRun(LinuxGuest(baseline=disks), options=Options(timeout=200), assets=assets).run()
    all_passed(report)
    said = disk_checksums(report)
    for name, path in disks:
        held = path.read_bytes()
        assert len(said[name]) == 2
        for fact in said[name]:
            start, size = int(fact["offset"]), int(fact["bytes"])
            assert hashlib.sha256(held[start : start + size]).hexdigest() == fact["sha256"]
            assert any(held[start : start + size])


def test_a_kernel_without_a_root_to_start_is_dead(assets: Assets, tmp_path: Path) -> None:
    empty = tmp_path / "empty.cpio"
    empty.write_bytes(Initramfs().archive())
    report = GuestRun(LinuxGuest(initrd=empty), options=Options(timeout=200), assets=assets).run()
    assert report.verdict is Verdict.DIED
    assert "Kernel panic" in report.why


def test_a_kernel_of_16K_on_a_core_without_is_refused(assets: Assets) -> None:
    if not (assets.folder / "kernel-7-16k").is_dir():
        missing("kernel 7-16k")
    options = Options(hardware=qemu.Hardware(cpu="cortex-a57"))
    with pytest.raises(UsageError, match="cortex-a57 lacks"):
        GuestRun(LinuxGuest("7-16k"), options=options, assets=assets).run()
