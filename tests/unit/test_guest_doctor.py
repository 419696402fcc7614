# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of machines that have all, some or nothing of what guests need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_assets import Outside, assets, outside, said
from vhost_iommu import _core
from vhost_iommu.guest import doctor
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.doctor import Prerequisite

__all__ = ["assets", "outside", "said"]  # fixtures


def report(assets: Assets) -> dict[str, Prerequisite]:
    return {line.name: line for line in doctor.prerequisites(assets)}


def missing(assets: Assets) -> set[str]:
    return {line.name for line in doctor.prerequisites(assets) if line.needed and not line.found}


def test_it_fetches_nothing_and_makes_nothing(assets: Assets, outside: Outside, tmp_path: Path) -> None:
    lines = report(assets)
    assert not outside.fetched
    assert not (tmp_path / "cache").exists()
    assert lines["python"].found
    assert lines["apt"].where == "mirror://here/debian"
    assert missing(assets) == {"qemu", "busybox", "kernel 6.12"}
    for name in ("qemu", "cross compiler", "busybox", "kernel 6.12", "kernel 7-16k", "headers 6.12"):
        assert not lines[name].found
        assert "'vhost-iommu fetch" in lines[name].mend
        assert "$VI_" in lines[name].mend


def test_fetching_another_kernel_is_another_command(assets: Assets) -> None:
    assert "'vhost-iommu fetch 6.1'" in report(assets)["kernel 6.1"].mend
    assert "'vhost-iommu fetch'" in report(assets)["kernel 6.12"].mend


def test_where_nothing_can_be_fetched_no_line_says_to_fetch(assets: Assets, outside: Outside) -> None:
    del outside.path["apt-get"]
    assert not any("fetch'" in line.mend or "fetch " in line.mend for line in report(assets).values())
    assert missing(assets) == {"qemu", "busybox", "kernel 6.12", "apt"}
    assert report(assets)["qemu"].mend == "name a QEMU of 10.1 or newer in $VI_QEMU"


def test_a_linux_guest_needs_no_compiler_and_no_apt(
    assets: Assets, outside: Outside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outside.path = {"qemu-system-aarch64": "/bin/qemu-system-aarch64"}
    for variable in ("VI_BUSYBOX", "VI_KERNEL_6_12"):
        (tmp_path / variable).touch()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr(_core, "built", lambda: None)
    monkeypatch.setattr(_core, "stale", lambda: False)
    lines = report(assets)
    assert missing(assets) == set()
    assert not any(lines[name].found for name in ("cross compiler", "apt", "compiled core"))


def test_what_is_cached_is_seen(assets: Assets, tmp_path: Path) -> None:
    assets.kernel()
    line = report(assets)["kernel 6.12"]
    assert (line.found, line.where) == (True, f"{tmp_path}/cache/kernel-6.12 (6.12.95+deb12-arm64)")


@pytest.mark.parametrize("fetched", [False, True])
def test_a_qemu_that_is_passed_over_is_told_with_the_reason(assets: Assets, outside: Outside, fetched: bool) -> None:
    if fetched:
        assets.qemu()
    outside.path["qemu-system-aarch64"] = "/bin/qemu-system-aarch64"
    outside.qemu_version = "7.2.0"
    line = report(assets)["qemu"]
    assert line.found is fetched
    assert "/bin/qemu-system-aarch64 is 7.2 and has no vfio-user client" in line.where


def test_clang_that_is_passed_over_is_told_with_the_reason(assets: Assets, outside: Outside) -> None:
    outside.path["clang"] = "/bin/clang"
    assert "ld.lld" in report(assets)["cross compiler"].where


def test_a_wrong_qemu_by_hand_says_why(assets: Assets, outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VI_QEMU", "/bin/sh")
    outside.qemu_version = "7.2.0"
    line = report(assets)["qemu"]
    assert not line.found
    assert "7.2 and has no vfio-user client" in line.where


def test_a_wrong_name_by_hand_is_told_even_if_a_copy_is_cached(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    assets.busybox()
    monkeypatch.setenv("VI_BUSYBOX", "/nowhere/busybox")
    line = report(assets)["busybox"]
    assert not line.found
    assert "/nowhere/busybox does not exist" in line.where
