# SPDX-License-Identifier: Apache-2.0
"""Kernels in the forms in which people have them, and what they bring besides; most are Debian's, rearranged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import need_kernel
from vhost_iommu.config import load_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.initramfs import Initramfs
from vhost_iommu.guest.kernel import KernelTree
from vhost_iommu.guest.kmod import Modules
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.verdict import Verdict

SMALL = "6.12-small"
NO_DISK = "this kernel has no virtio_mmio"
DISK_CASES = {
    *("disk0_is_behind_smmu0", "disk0_appears", "disk0_holds_files"),
    *("disk0_discards", "disk0_writes_directly", "disk0_reads_back"),
}


def run(assets: Assets, machine: str, wishes: Wishes) -> Report:
    launch = Launch(load_machine(machine), wishes, assets=assets)
    try:
        report = launch.run()
    finally:
        launch.close()
    assert report.verdict is Verdict.PASSED, f"{report.why}; see {report.folder}"
    return report


def skipped(report: Report) -> dict[str, str]:
    return {result.name: result.skipped for result in report.results if result.skipped is not None}


@pytest.fixture
def lone(assets: Assets, tmp_path: Path) -> Path:
    """The kernel's file, with nothing beside it."""
    return Path(shutil.copy(KernelTree(assets.kernel()).file, tmp_path / "vmlinuz"))


@pytest.fixture
def build(assets: Assets, tmp_path: Path, lone: Path) -> Path:
    """A build folder: programs, headers, symbols, the Image, and a disk's modules, but no file system."""
    headers, tree = assets.headers(), KernelTree(assets.kernel())
    folder = tmp_path / "bld"
    folder.mkdir()
    for entry in headers.iterdir():
        if entry.name != "arch":
            (folder / entry.name).symlink_to(entry)
    shutil.copytree(headers / "arch", folder / "arch", symlinks=True)
    (folder / "arch/arm64/boot").mkdir()
    lone.rename(folder / "arch/arm64/boot/Image")
    (folder / "Makefile").unlink()
    (folder / "Makefile").write_text(f"include {headers}/Makefile\n")
    files = tree.modules(["virtio_mmio", "virtio_blk"]).files
    for name, data in files:
        (folder / f"{name}.ko").write_bytes(data)
    (folder / "modules.order").write_text("".join(f"{name}.o\n" for name, _ in files))
    (builtin,) = assets.kernel().glob("lib/modules/*/modules.builtin")
    shutil.copy(builtin, folder)
    return folder


def test_a_lone_kernel_boots_and_says_itself_what_it_lacks(assets: Assets, lone: Path) -> None:
    report = run(assets, "smmuv3-linux", Wishes(kernel=str(lone)))
    assert report.passed("smmu0_probes")
    assert skipped(report) == dict.fromkeys(DISK_CASES, NO_DISK)
    assert report.why == f"2 of 8 tests ran, 6 skipped ({NO_DISK})"
    assert ["no modules beside it" in note for note in report.notes] == [True]


def test_a_build_folder_boots_with_the_modules_it_has(
    assets: Assets, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(build.parent)
    report = run(assets, "smmuv3-linux", Wishes(kernel="bld"))
    assert skipped(report) == {"disk0_holds_files": "this kernel has no ext4 and no vfat"}
    assert ["no module ext4, nor is it built in" in note for note in report.notes] == [True]


def test_a_build_folder_has_its_engine_tested(assets: Assets, build: Path) -> None:
    report = run(assets, "smmuv3-pasid", Wishes(kernel=f"{build}/"))
    assert (skipped(report), report.notes) == ({}, ())
    assert report.passed("engine0_strict_revokes_pasids")


def test_a_lone_kernel_has_its_engine_tested_by_headers_that_are_named(assets: Assets, lone: Path) -> None:
    wishes = Wishes(kernel=str(lone), headers=assets.headers(), cases=("engine0_keeps_pasids_apart",))
    assert [result.name for result in run(assets, "smmuv3-pasid", wishes).results] == ["engine0_keeps_pasids_apart"]


@pytest.mark.parametrize("kernel", [SMALL])
def test_a_kernel_that_is_not_debians_boots_by_its_build_folder(assets: Assets, kernel: str) -> None:
    need_kernel(assets, kernel)
    folder = assets.kernel(kernel)
    wanted = KernelTree(folder).modules(["virtio_mmio", "virtio_blk", "vfat", "nls_iso8859_1", "nls_ascii"])
    assert (wanted.files, wanted.absent) == ([], ["nls_ascii"]), "all built in but for one that it does without"
    disk = run(assets, "smmuv3-linux", Wishes(kernel=f"{folder}/"))
    assert (skipped(disk), disk.notes) == ({}, ())
    assert [fact["filesystem"] for fact in disk.ktap.facts("file")] == ["vfat"]
    engine = run(assets, "smmuv3-pasid", Wishes(kernel=str(folder)))
    assert (skipped(engine), engine.notes) == ({}, ())
    assert engine.passed("engine0_strict_revokes_pasids")


@pytest.mark.parametrize("kernel", [SMALL])
def test_a_lone_image_uses_what_is_built_in(assets: Assets, tmp_path: Path, kernel: str) -> None:
    need_kernel(assets, kernel)
    image = Path(shutil.copy(assets.kernel(kernel) / "arch/arm64/boot/Image", tmp_path))
    disk = run(assets, "smmuv3-linux", Wishes(kernel=str(image)))
    assert skipped(disk) == {}
    assert [fact["filesystem"] for fact in disk.ktap.facts("file")] == ["vfat"]
    engine = run(assets, "smmuv3-pasid", Wishes(kernel=str(image)))
    assert set(skipped(engine).values()) == {"the engine's module is not to be had"}
    assert [result.name for result in engine.results if result.skipped is None] == ["smmu0_probes", "no_smmu_warnings"]
    assert ["name its build folder" in note for note in engine.notes] == [True, False]


@pytest.mark.parametrize("kernel", ["6.1", "7", "7-16k", SMALL])
def test_the_module_that_times_the_dma_api_runs_on_each_kernel(assets: Assets, kernel: str) -> None:
    need_kernel(assets, kernel)
    module = Modules(assets, assets.headers(kernel)).module("vt_maps")
    times = "rmmod vt_maps; insmod /lib/vt-own/vt_maps.ko device=10040000.smmute; dmesg | sed -n 's/^.*vt: #/#/p'"
    wishes = Wishes(kernel=kernel, modules=(module,), own_cases=(f"times={times}",), cases=("times",))
    facts = run(assets, "smmuv3-pasid", wishes).ktap.facts("pairs")
    assert [fact["count"] for fact in facts] == ["200"] * 8
    assert all(int(fact["ns"]) > 0 for fact in facts)


def test_an_installed_tree_boots_its_newest_kernel(assets: Assets, tmp_path: Path) -> None:
    # Modules alone are a hundred megabytes, so they are links.
    (release,) = (path.name for path in assets.kernel().glob("lib/modules/*"))
    (tmp_path / "root/lib/modules").mkdir(parents=True)
    (tmp_path / "root/lib/modules" / release).symlink_to(assets.kernel() / "lib/modules" / release)
    (tmp_path / "root/boot").mkdir()
    (tmp_path / f"root/boot/vmlinuz-{release}").symlink_to(KernelTree(assets.kernel()).file)
    (tmp_path / "root/boot/vmlinuz-6.9.0-arm64").write_bytes(b"not looked at")
    report = run(assets, "smmuv3-linux", Wishes(kernel=str(tmp_path / "root"), cases=("disk0_holds_files",)))
    assert [result.name for result in report.results] == ["modules_load", "disk0_holds_files"]
    assert ["holds 2 kernels" in note for note in report.notes] == [True]


def test_a_module_an_archive_and_a_case_of_ones_own_are_there(assets: Assets, tmp_path: Path) -> None:
    module = shutil.copy(Modules(assets, assets.headers()).module("vt_maps"), tmp_path / "mine.ko")
    root = Initramfs()
    root.file("/usr/bin/mine", "#!/bin/sh\ngrep -q ^vt_maps /proc/modules && echo '# mine x=1'\n", 0o755)
    (tmp_path / "mine.cpio").write_bytes(root.archive())
    wishes = Wishes(
        modules=(Path(module),),
        initrd_extra=(tmp_path / "mine.cpio",),
        own_cases=("finds_it=mine", "is_not_today=echo 'not today'; exit 4"),
        cases=("finds_it", "is_*"),
    )
    report = run(assets, "smmuv3-linux", wishes)
    names = [result.name for result in report.results]
    assert names == ["modules_load", "module_vt_maps_loads", "finds_it", "is_not_today"]
    assert report.ktap.facts("mine") == [{"x": "1"}]
    assert skipped(report) == {"is_not_today": "not today"}


def test_a_case_that_is_chosen_finds_the_domain_that_it_is_about(assets: Assets) -> None:
    report = run(assets, "smmuv3-pasid", Wishes(cases=("engine0_lazy_loses_what_is_unmapped",)))
    assert [result.name for result in report.results] == [
        "engine0_copies_coherent_memory",
        "engine0_becomes_lazy",
        "engine0_lazy_loses_what_is_unmapped",
    ]


def test_a_program_takes_patterns_of_its_cases(assets: Assets) -> None:
    report = run(assets, "smmuv3-everything-bare", Wishes(elf="commands", cases=("a_full*around", "sync*own*")))
    assert [result.name for result in report.results] == [
        "a_full_queue_wraps_around",
        "sync_signals_into_its_own_entry",
    ]
