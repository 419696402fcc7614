# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin, with guests that are none: what options and markers mean, and what a failed test says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vhost_iommu import pytest_plugin
from vhost_iommu.config import MachineConfig
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.live import CommandError, ComplaintError, Ran
from vhost_iommu.guest.recording import Recording
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.verdict import Verdict


@dataclass
class Double:
    """Stands in for a Guest."""

    name: str
    wishes: dict[str, Any]
    folder: Path = Path("/kept/xyz")
    console: str = "first\nlast line"
    complaints: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()
    kept: bool = False
    recorded: Recording | None = None

    def allow_now(self, patterns: tuple[str, ...]) -> None:
        self.allowed = patterns

    def keep(self) -> None:
        self.kept = True

    def check(self) -> None:
        complaints, self.complaints = self.complaints, []
        if found := [each for each in complaints if each not in self.allowed]:
            raise ComplaintError(f"nobody asked for: {found[0]}")

    def run(self, command: str) -> None:
        raise CommandError(command, Ran("no\n", 1, 0.0))


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> list[Double]:
    """The guests that were booted by the tests within."""
    booted: list[Double] = []

    @contextmanager
    def boot(machine: MachineConfig, **wishes: Any) -> Iterator[Double]:
        booted.append(Double(machine.name, wishes))
        yield booted[-1]
        booted[-1].check()

    monkeypatch.setattr(pytest_plugin, "boot", boot)
    for name in ("KERNEL", "LAUNCHER", "ACCEL", "GIC", "MACHINE", "APPEND", "KEEP", "TRACE"):
        monkeypatch.delenv(f"VI_{name}", raising=False)
    return booted


def outcomes(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


BOOTS = """
    def test_boots(vhost_iommu):
        with vhost_iommu.boot("smmuv3-linux"):
            pass
"""


def test_each_kernel_that_is_named_is_booted(pytester: pytest.Pytester, doubles: list[Double]) -> None:
    outcomes(pytester, BOOTS, "--vi-kernel", "6.1", "--vi-kernel", "6.12").assert_outcomes(passed=2)
    assert [each.wishes["kernel"] for each in doubles] == ["6.1", "6.12"]


def test_each_launcher_that_is_named_starts_each_kernel(
    pytester: pytest.Pytester, doubles: list[Double], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VI_LAUNCHER", "qemu,libvirt")
    outcomes(pytester, BOOTS, "--vi-kernel", "6.1", "--vi-kernel", "7").assert_outcomes(passed=4)
    pairs = {(each.wishes["launcher"], each.wishes["kernel"]) for each in doubles}
    assert pairs == {(launcher, kernel) for launcher in ("qemu", "libvirt") for kernel in ("6.1", "7")}


def test_a_test_may_have_launchers_of_its_own(pytester: pytest.Pytester, doubles: list[Double]) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("vi_launcher", ["libvirt"], scope="session")
        def test_boots(vhost_iommu):
            with vhost_iommu.boot("smmuv3-linux"):
                pass
    """
    outcomes(pytester, source, "--vi-launcher", "qemu").assert_outcomes(passed=1)
    assert [each.wishes["launcher"] for each in doubles] == ["libvirt"]


def test_cpus_and_interrupt_controller_are_those_of_the_options(
    pytester: pytest.Pytester, doubles: list[Double]
) -> None:
    outcomes(pytester, BOOTS, "--vi-accel", "kvm", "--vi-gic", "3").assert_outcomes(passed=1)
    assert (doubles[0].wishes["accel"], doubles[0].wishes["gic"]) == ("kvm", 3)
    result = outcomes(pytester, BOOTS, "--vi-gic", "x")
    result.stdout.fnmatch_lines(["*'x' is no version of an interrupt controller; say --vi-gic 2 or 3*"])


def test_the_environment_says_what_no_option_does(
    pytester: pytest.Pytester, doubles: list[Double], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VI_KERNEL", "6.1,7")
    monkeypatch.setenv("VI_APPEND", "a=b")
    outcomes(pytester, BOOTS, "--vi-append", "c=d").assert_outcomes(passed=2)
    assert [(each.wishes["kernel"], each.wishes["append"]) for each in doubles] == [("6.1", "c=d"), ("7", "c=d")]


def test_what_a_test_says_holds(pytester: pytest.Pytester, doubles: list[Double]) -> None:
    source = BOOTS.replace('"smmuv3-linux"', '"smmuv3-linux", kernel="7", append="x"')
    outcomes(pytester, source, "--vi-kernel", "6.1", "--vi-append", "y").assert_outcomes(passed=1)
    assert (doubles[0].wishes["kernel"], doubles[0].wishes["append"]) == ("7", "y x")


def test_a_bare_machine_gets_no_kernel(pytester: pytest.Pytester, doubles: list[Double]) -> None:
    outcomes(pytester, BOOTS.replace("linux", "bare"), "--vi-kernel", "6.1").assert_outcomes(passed=1)
    assert "kernel" not in doubles[0].wishes


def test_a_machine_that_nobody_names_is_asked_for(pytester: pytest.Pytester, doubles: list[Double]) -> None:
    source = BOOTS.replace('"smmuv3-linux"', "")
    result = outcomes(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no machine is named; say boot('smmuv3-linux'), or --vi-machine*"])
    outcomes(pytester, source, "--vi-machine", "two-smmus").assert_outcomes(passed=1)
    assert doubles[0].name == "two-smmus"


def test_a_failed_test_names_one_folder_and_whose_fault_it_is(pytester: pytest.Pytester, doubles: list[Double]) -> None:
    source = """
        def test_fails(vhost_iommu):
            with vhost_iommu.boot("smmuv3-linux") as guest:
                guest.run("false")
    """
    result = outcomes(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*guest of smmuv3-linux, all of it in /kept/xyz*", "last line"])
    result.stdout.fnmatch_lines(["the fault is the guest's: 'false' ended with status 1: no"])


SHARED = """
    import pytest

    @pytest.fixture(scope="module")
    def guest(vhost_iommu):
        with vhost_iommu.boot("smmuv3-linux") as guest:
            yield guest

    def test_first(guest):
        pass

    def test_warns(guest):
        guest.complaints.append("WARNING: at x")

    @pytest.mark.vi_allow("WARNING: at x")
    def test_warns_on_purpose(guest):
        guest.complaints.append("WARNING: at x")

    def test_last(guest):
        pass
"""


def test_a_complaint_is_told_at_the_test_that_made_it(pytester: pytest.Pytester, doubles: list[Double]) -> None:
    result = outcomes(pytester, SHARED, "-v")
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_warns *", "*nobody asked for: WARNING: at x*"])
    assert len(doubles) == 1
    assert doubles[0].kept


def test_a_trace_is_wished_for_by_its_form(
    pytester: pytest.Pytester, doubles: list[Double], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes(pytester, BOOTS, "--vi-trace", "json").assert_outcomes(passed=1)
    monkeypatch.setenv("VI_TRACE", "text")
    outcomes(pytester, BOOTS).assert_outcomes(passed=1)
    outcomes(pytester, BOOTS.replace('"smmuv3-linux"', '"smmuv3-linux", trace="json"')).assert_outcomes(passed=1)
    assert [each.wishes["trace"] for each in doubles] == ["json", "text", "json"]
    outcomes(pytester, BOOTS, "--vi-trace", "gif").stderr.fnmatch_lines(["*--vi-trace: invalid choice: 'gif'*"])


def test_folders_are_kept_by_the_tests_names(pytester: pytest.Pytester, doubles: list[Double], tmp_path: Path) -> None:
    outcomes(pytester, BOOTS, "--vi-keep", str(tmp_path)).assert_outcomes(passed=1)
    kept = doubles[0].wishes["keep"]
    assert kept.parent == tmp_path
    assert kept.name.endswith("test_folders_are_kept_by_the_tests_names.py.test_boots")


def reports(console: str) -> Report:
    ktap = Ktap()
    for line in console.splitlines():
        ktap.feed(line)
    return Report(Verdict.FAILED, "1 failed", ktap, console, 1.0, None, Path("/kept/abc"))


KTAP = "KTAP version 1\n1..3\nok 1 one\n# two is wrong\nnot ok 2 two\nok 3 three # SKIP no such thing\n"


def test_cases_known_before_boot_are_items_of_one_run(
    pytester: pytest.Pytester, doubles: list[Double], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def run(machine: MachineConfig, **wishes: Any) -> Report:
        ran.append(machine.name)
        return reports(KTAP)

    monkeypatch.setattr(pytest_plugin, "cases_of", lambda machine, **wishes: ["one", "two", "three"])
    monkeypatch.setattr(pytest_plugin, "run", run)
    source = """
        import pytest

        @pytest.mark.vi_cases("smmuv3-bare")
        def test_case(vi_case):
            pass
    """
    result = outcomes(pytester, source, "-v")
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*test_case?two? ERROR*", "*two is wrong*", "*see /kept/abc*"])
    assert ran == ["smmuv3-bare"]


def test_cases_known_at_run_time_are_subtests(
    pytester: pytest.Pytester, doubles: list[Double], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest_plugin, "run", lambda machine, **wishes: reports(KTAP))
    source = """
        def test_all(vhost_iommu, subtests):
            vhost_iommu.run("smmuv3-bare", subtests=subtests)
    """
    result = outcomes(pytester, source, "-v")
    result.stdout.fnmatch_lines(["*SUBFAILED*two*", "*two is wrong*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_comparison_of_what_was_found_shows_the_lines_that_differ(
    pytester: pytest.Pytester, doubles: list[Double]
) -> None:
    source = """
        import vhost_iommu
        from vhost_iommu.smmu.v3.commands import CMD_SYNC, CMD_TLBI_NSNH_ALL
        from vhost_iommu.smmu.v3.registers import CMDQ_BASE, CMDQ_PROD, CR0

        def commanded(*commands):
            with vhost_iommu.without_guest("smmuv3-bare") as cpu:
                cpu.write("smmu0", CMDQ_BASE, CMDQ_BASE.of(ADDR=cpu.ram.start, LOG2SIZE=4))
                cpu.write("smmu0", CR0, CR0.of(CMDQEN=1))
                for n, each in enumerate(commands):
                    cpu.store(cpu.ram.start + 16 * n, each.of())
                with cpu.recording() as seen:
                    cpu.write("smmu0", CMDQ_PROD, len(commands))
                return seen.commands()

        def test_differs():
            assert commanded(CMD_TLBI_NSNH_ALL, CMD_SYNC) == commanded(CMD_SYNC)
    """
    result = outcomes(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*what was found is not what was expected*", "*+smmu0 command CMD_TLBI_NSNH_ALL *"])
