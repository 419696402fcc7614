# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin: the fixture ``vhost_iommu``, options --vi-…, and what a failed test says of its guests.

Law: what an option says holds where a test says nothing; what a test says holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.live import Guest, boot

_MARKERS = ("vi_allow(*patterns): events of these names, and console lines that match, are none to complain of",)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vhost-iommu", "guests behind SMMUs")
    group.addoption(
        "--vi-kernel",
        action="append",
        metavar="K",
        help="boot this kernel where a test names none: a Debian kernel such as 6.12, an Image or a build folder; "
        "several: each test runs once for each (environment: VI_KERNEL, separated by commas)",
    )
    group.addoption("--vi-machine", metavar="M", help="the machine where a test names none (environment: VI_MACHINE)")
    group.addoption("--vi-append", metavar="S", help="more of each kernel's command line (environment: VI_APPEND)")
    group.addoption(
        "--vi-keep",
        metavar="DIR",
        help="keep the folder of each guest, passed or failed, as DIR/TEST (environment: VI_KEEP)",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


def _option(config: pytest.Config, name: str) -> Any:
    given = config.getoption(f"vi_{name}")
    return given if given else os.environ.get(f"VI_{name.upper()}") or None


def _kernels(config: pytest.Config) -> list[str]:
    given = _option(config, "kernel") or []
    return given.split(",") if isinstance(given, str) else given


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kernels = _kernels(metafunc.config)
    if "vi_kernel" in metafunc.fixturenames and kernels:
        metafunc.parametrize("vi_kernel", kernels, scope="session", ids=[Path(each).name for each in kernels])


@pytest.fixture(scope="session")
def vi_kernel() -> str | None:
    """The kernel where a test names none; None: the machine file's."""
    return None


class Bench:
    """What the fixture ``vhost_iommu`` gives: ``boot``, as of the package, with what the options say."""

    def __init__(self, config: pytest.Config, kernel: str | None) -> None:
        self._config = config
        self.kernel = kernel
        self.guests: list[Guest] = []
        self._test = ""
        self._allowed: tuple[str, ...] = ()
        self._kept = 0

    def begin(self, item: pytest.Item) -> None:
        """Of one test."""
        self._test = re.sub(r"[^\w.\[\]-]+", "-", item.nodeid.replace("::", "."))
        self._allowed = tuple(pattern for mark in item.iter_markers("vi_allow") for pattern in mark.args)
        self._kept = 0

    @contextmanager
    def boot(self, machine: Any = None, **wishes: Any) -> Iterator[Guest]:
        """As ``vhost_iommu.boot``; ``machine`` and ``kernel`` may be left out where the options say them."""
        machine = machine or _option(self._config, "machine")
        if machine is None:
            raise UsageError("no machine is named; say boot('smmuv3-linux'), or --vi-machine")
        if wishes.get("kernel") is None and self.kernel is not None:
            wishes["kernel"] = self.kernel
        wishes["append"] = " ".join(filter(None, [_option(self._config, "append"), wishes.get("append")])) or None
        wishes["allow"] = (*self._allowed, *wishes.get("allow", ()))
        keep = _option(self._config, "keep")
        if keep is not None and wishes.get("keep") is None:
            self._kept += 1
            wishes["keep"] = Path(keep) / (self._test + (f"-{self._kept}" if self._kept > 1 else ""))
        with boot(machine, **wishes) as guest:
            self.guests.append(guest)
            try:
                yield guest
            finally:
                self.guests.remove(guest)


@pytest.fixture(scope="session")
def _vi_bench(pytestconfig: pytest.Config, vi_kernel: str | None) -> Bench:
    return Bench(pytestconfig, vi_kernel)


@pytest.fixture(scope="session", name="vhost_iommu")
def vhost_iommu_fixture(_vi_bench: Bench) -> Bench:
    """Boots guests: ``with vhost_iommu.boot("smmuv3-linux") as guest: …``"""
    return _vi_bench
