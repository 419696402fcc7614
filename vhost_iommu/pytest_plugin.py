# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin: the fixture ``vhost_iommu``, options --vi-…, and what a failed test says of its guests.

Law: what an option says holds where a test says nothing; what a test says holds. A guest that tests share is looked at
after each of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest

from vhost_iommu.config import MachineConfig, load_machine
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.ktap import Result
from vhost_iommu.guest.launch import TRACES, cases_of, run
from vhost_iommu.guest.live import Guest, GuestError, boot
from vhost_iommu.guest.recording import Found
from vhost_iommu.guest.report import Report

_MARKERS = (
    "vi_allow(*patterns): events of these names, and console lines that match, are none to complain of",
    "vi_cases(machine, **wishes): the test runs once for each case of the machine's guest, which it has as 'vi_case'",
)
_BENCHES = pytest.StashKey[list["Bench"]]()
#: Lines of a guest's console that a failed test shows.
_LAST_LINES = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vhost-iommu", "guests behind SMMUs")
    group.addoption(
        "--vi-kernel",
        action="append",
        metavar="K",
        help="boot this kernel where a test names none: a Debian kernel such as 6.12, an Image or a build folder; "
        "several: each test runs once for each (environment: VI_KERNEL, separated by commas)",
    )
    group.addoption(
        "--vi-launcher",
        action="append",
        metavar="L",
        help="who starts QEMU where a test does not say: qemu (default) or libvirt; several: each test runs once for "
        "each (environment: VI_LAUNCHER, separated by commas)",
    )
    group.addoption(
        "--vi-accel", metavar="A", help="tcg (default), or kvm where a test does not say (environment: VI_ACCEL)"
    )
    group.addoption(
        "--vi-gic",
        metavar="N",
        help="version of the interrupt controller, 2 or 3, where a test does not say (environment: VI_GIC)",
    )
    group.addoption("--vi-machine", metavar="M", help="the machine where a test names none (environment: VI_MACHINE)")
    group.addoption("--vi-append", metavar="S", help="more of each kernel's command line (environment: VI_APPEND)")
    group.addoption(
        "--vi-trace",
        metavar="FORM",
        choices=sorted(TRACES),
        help="trace each guest in its folder, as text or as json for ui.perfetto.dev, where a test does not say "
        "(environment: VI_TRACE)",
    )
    group.addoption(
        "--vi-keep",
        metavar="DIR",
        help="keep the folder of each guest, passed or failed, as DIR/TEST (environment: VI_KEEP)",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    config.stash[_BENCHES] = []


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(f"vi_{name}") or os.environ.get(f"VI_{name.upper()}") or None


def _several(config: pytest.Config, name: str) -> list[str]:
    given = _option(config, name) or []
    return given.split(",") if isinstance(given, str) else given


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    said = {str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize") if mark.args}
    for name in ("kernel", "launcher"):
        given = _several(metafunc.config, name)
        if f"vi_{name}" in metafunc.fixturenames and given and f"vi_{name}" not in said:
            metafunc.parametrize(f"vi_{name}", given, scope="session", ids=[Path(each).name for each in given])
    marker = metafunc.definition.get_closest_marker("vi_cases")
    if "vi_case" in metafunc.fixturenames and marker is not None:
        try:
            names = cases_of(*marker.args, **marker.kwargs)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from error
        metafunc.parametrize("vi_case", names, indirect=True)


class Bench:
    """What the fixture ``vhost_iommu`` gives: ``boot`` and ``run``, as of the package, with what the options say."""

    def __init__(self, config: pytest.Config, kernel: str | None, launcher: str | None) -> None:
        self._config = config
        self.kernel = kernel
        self.launcher = launcher
        #: Those that run.
        self.guests: list[Guest] = []
        #: Of the present test those that did not end well.
        self.failed: list[Guest] = []
        self._test = ""
        self._allowed: tuple[str, ...] = ()
        self._kept = 0
        self._reports: dict[str, Report] = {}

    @contextmanager
    def boot(self, machine: Any = None, **wishes: Any) -> Iterator[Guest]:
        """As ``vhost_iommu.boot``; ``machine`` and ``kernel`` may be left out where the options say them."""
        machine = self._wished(machine, wishes)
        wishes["allow"] = (*self._allowed, *wishes.get("allow", ()))
        guest: Guest | None = None
        try:
            with boot(machine, **wishes) as guest:
                self.guests.append(guest)
                yield guest
        except BaseException:
            if guest is not None:
                self.failed.append(guest)
            raise
        finally:
            if guest is not None:
                self.guests.remove(guest)

    def run(self, machine: Any = None, *, subtests: pytest.Subtests | None = None, **wishes: Any) -> Report:
        """As ``vhost_iommu.run``: the guest runs to its end. Each test that it reports is one of ``subtests``."""
        report = run(self._wished(machine, wishes), **wishes)
        if subtests is not None:
            for result in report.ktap.tests:
                with subtests.test(result.name):
                    judge(result, report)
        return report

    def result(self, case: str, machine: str, **wishes: Any) -> None:
        """Of a run that all tests of the session share, the case's outcome is the test's."""
        key = repr((machine, sorted(wishes.items())))
        if key not in self._reports:
            self._reports[key] = run(self._wished(machine, wishes), **wishes)
        report = self._reports[key]
        found = next((each for each in report.results if each.name == case), None)
        if found is None:
            pytest.fail(f"{report.why}; see {report.folder}", pytrace=False)
        judge(found, report)

    def _wished(self, machine: Any, wishes: dict[str, Any]) -> MachineConfig:
        """The machine; ``wishes`` has what the options say, besides."""
        machine = machine or _option(self._config, "machine")
        if machine is None:
            raise UsageError("no machine is named; say boot('smmuv3-linux'), or --vi-machine")
        config = machine if isinstance(machine, MachineConfig) else load_machine(str(machine))
        gic = _option(self._config, "gic")
        if gic is not None and not gic.isdecimal():
            raise UsageError(f"{gic!r} is no version of an interrupt controller; say --vi-gic 2 or 3")
        said = {
            "launcher": self.launcher,
            "accel": _option(self._config, "accel"),
            "gic": None if gic is None else int(gic),
            "trace": _option(self._config, "trace"),
        }
        for name, value in said.items():
            if value is not None and wishes.get(name) is None:
                wishes[name] = value
        if config.guest.kind == "linux":
            if wishes.get("kernel") is None and self.kernel is not None:
                wishes["kernel"] = self.kernel
            wishes["append"] = " ".join(filter(None, [_option(self._config, "append"), wishes.get("append")])) or None
        keep = _option(self._config, "keep")
        if keep is not None and wishes.get("keep") is None:
            self._kept += 1
            wishes["keep"] = Path(keep) / (self._test + (f"-{self._kept}" if self._kept > 1 else ""))
        return config

    # -- for the hooks below ---------------------------------------------------------------------------------------

    def begin(self, item: pytest.Item) -> None:
        """Another test begins."""
        self._test = re.sub(r"[^\w.\[\]-]+", "-", item.nodeid.replace("::", "."))
        self._allowed = tuple(pattern for mark in item.iter_markers("vi_allow") for pattern in mark.args)
        self._kept = 0
        self.failed.clear()
        for guest in self.guests:
            guest.allow_now(self._allowed)

    def sections(self) -> Iterator[tuple[str, str]]:
        """Of a test that failed: its guests."""
        for guest in self.guests:
            guest.keep()
        for guest in (*self.failed, *self.guests):
            yield _section(guest)
            if guest.recorded is not None:
                yield f"last recording of {guest.name}", "\n".join(guest.recorded.summary())


def judge(result: Result, report: Report) -> None:
    """A guest's result is a test's."""
    if result.skipped is not None:
        pytest.skip(result.skipped)
    if not result.passed:
        pytest.fail("\n".join([*result.notes, f"see {report.folder}"]), pytrace=False)


def _section(guest: Guest) -> tuple[str, str]:
    lines = guest.console.splitlines()[-_LAST_LINES:]
    return f"guest of {guest.name}, all of it in {guest.folder}", "\n".join(lines)


@pytest.fixture(scope="session")
def vi_kernel() -> str | None:
    """The kernel where a test names none; None: the machine file's."""
    return None


@pytest.fixture(scope="session")
def vi_launcher() -> str | None:
    """Who starts QEMU where a test does not say; None: we do."""
    return None


@pytest.fixture(scope="session", name="vhost_iommu")
def vhost_iommu_fixture(pytestconfig: pytest.Config, vi_kernel: str | None, vi_launcher: str | None) -> Bench:
    """Boots guests: ``with vhost_iommu.boot("smmuv3-linux") as guest: …``"""
    bench = Bench(pytestconfig, vi_kernel, vi_launcher)
    pytestconfig.stash[_BENCHES].append(bench)
    return bench


@pytest.fixture
def vi_case(request: pytest.FixtureRequest, vhost_iommu: Bench) -> str:
    """A case of the marker ``vi_cases``, by its name; the test passes, fails or is skipped as the case is."""
    marker = request.node.get_closest_marker("vi_cases")
    if marker is None:
        raise UsageError("vi_case needs the marker vi_cases: @pytest.mark.vi_cases('smmuv3-bare')")
    case: str = request.param
    vhost_iommu.result(case, *marker.args, **marker.kwargs)
    return case


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    for bench in item.config.stash[_BENCHES]:
        bench.begin(item)
    known = len(item.config.stash[_BENCHES])
    yield
    for bench in item.config.stash[_BENCHES][known:]:
        bench.begin(item)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    yield
    for bench in item.config.stash[_BENCHES]:
        for guest in bench.guests:
            guest.check()


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """What was found, held against other values or their names, line by line."""
    if op != "==" or not (isinstance(left, Found) or isinstance(right, Found)):
        return None
    both = [_lines(left), _lines(right)]
    return [
        "what was found is not what was expected:",
        *list(unified_diff(both[1], both[0], "expected", "found", lineterm="")),
    ]


def _lines(of: object) -> list[str]:
    if isinstance(of, Found):
        return [each.partition(" ")[2] for each in map(str.lstrip, of.text.splitlines())]
    return [str(each) for each in of] if isinstance(of, Iterable) else [repr(of)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        for bench in item.config.stash[_BENCHES]:
            report.sections += bench.sections()
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, GuestError | UsageError):
            whose = error.whose if isinstance(error, GuestError) else "the machine file's, or of what was asked for"
            report.sections.append(("vhost_iommu", f"the fault is {whose}: {error}"))
    return report
