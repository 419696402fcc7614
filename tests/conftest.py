# SPDX-License-Identifier: Apache-2.0
"""What all tests share: what guests need, fetched once for the session.

Law: a test whose set-up is missing skips with the reason and never passes; with CI or VI_REQUIRE_ALL set it fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import NoReturn

import pytest

from vhost_iommu import _core
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.assets import FLAVOURS, Assets
from vhost_iommu.guest.doctor import prerequisites
from vhost_iommu.guest.libvirt.session import daemon_here, module_here

pytest_plugins = ["pytester"]  # the tests of our own plugin run a pytest of their own

#: What a test that boots a guest takes on two cores, more or less.
SECONDS_A_BOOT = 5


def required() -> bool:
    """Whether missing set-up is a failure here."""
    return any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in ("VI_REQUIRE_ALL", "CI"))


def missing(reason: str) -> NoReturn:
    """End the test because something of its set-up is not here."""
    if required():
        pytest.fail(f"missing: {reason}", pytrace=False)
    pytest.skip(f"missing: {reason}")


def kernels_of(items: Iterable[pytest.Item]) -> list[str]:
    """The kernels that the tests of this session name in a parameter, beside the one that all use."""
    parameters = (getattr(item, "callspec", None) for item in items)
    named = {each.params.get(name) for each in parameters if each is not None for name in ("kernel", "vi_kernel")}
    return [flavour for flavour in FLAVOURS if flavour in named]


def pytest_report_collectionfinish(items: list[pytest.Item]) -> list[str]:
    """Before the first test: what takes long, and what will be fetched for it."""
    boots = sum(item.get_closest_marker("vi_boot") is not None for item in items)
    if not boots:
        return []
    wanted = {"qemu", "busybox", "cross compiler"}
    wanted |= {f"{what} {each}" for each in ("6.12", *kernels_of(items)) for what in ("kernel", "headers")}
    lacking = [each.name for each in prerequisites(Assets()) if each.name in wanted and not each.found]
    minutes = -(-boots * SECONDS_A_BOOT // 60)
    said = f"{boots} of them boot guests, in about {minutes} min on two cores; they come last"
    return [f"{said}; to be fetched before them: {', '.join(lacking)}" if lacking else said]


@pytest.fixture(scope="session")
def core_is_built() -> None:
    """For tests of the compiled core, which a machine without a compiler does not have."""
    if _core.built() is None:
        missing("the compiled core; 'make core' says why")


@pytest.fixture(params=[False, True], ids=["reference", "core"])
def built(request: pytest.FixtureRequest) -> bool:
    """Whether the compiled core translates; a test that asks for this runs with both translators."""
    chosen: bool = request.param
    if chosen:
        request.getfixturevalue("core_is_built")
    return chosen


@pytest.fixture(scope="session")
def assets(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Assets:
    """QEMU, kernels, busybox and the cross compiler; fetched now when they are not here yet.

    A kernel that is not the default one may stay away; the test that names it then says so.
    """
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def progress(text: str) -> None:
        # Nothing is to be seen of a session that had nothing to fetch.
        if text.startswith("ready"):
            return
        with capture.global_and_fixture_disabled():
            print(f"\n  {text}", file=sys.stderr, flush=True)

    found = Assets(progress=progress)
    try:
        found.fetch_all()
    except UsageError as error:
        missing(str(error))
    for flavour in kernels_of(request.session.items):
        try:
            found.kernel(flavour)
            found.headers(flavour)
        except UsageError as error:
            progress(str(error))
    return found


def need_libvirt() -> None:
    """End the test if there is no libvirt."""
    if daemon_here() is None or not module_here():
        missing("libvirt; 'make libvirt' installs it")


def need_kernel(assets: Assets, flavour: str) -> None:
    """End the test if a kernel, or what our modules are built with for it, is not here and cannot be had."""
    try:
        assets.kernel(flavour)
        assets.headers(flavour)
    except UsageError as error:
        missing(str(error))
