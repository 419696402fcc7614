# SPDX-License-Identifier: Apache-2.0
"""What a Linux guest boots of a kernel that may have anything or nothing: cases, modules, notes and archives."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.test_assets_kernel import VERSION, module, raw_image
from tests.unit.test_guest_initramfs import unpack
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import kmod, linux
from vhost_iommu.guest.apt import Done, Run
from vhost_iommu.guest.assets import Assets, Cross
from vhost_iommu.guest.initramfs import Initramfs
from vhost_iommu.guest.payload import LinuxGuest, Payload
from vhost_iommu.guest.platform import GuestMaster, GuestSmmu, Platform

DISK = Platform([GuestSmmu("smmu0")], [GuestMaster("disk0", "virtio,mmio", "smmu0", (1,))])
ENGINE = Platform([GuestSmmu("smmu0")], [GuestMaster("engine0", "arm,smmute", "smmu0", (1,))])
STOCK = ("virtio_mmio", "virtio_blk", "ext4")


class Booted:
    """What a guest would find, and what its operator is told."""

    def __init__(
        self,
        assets: Assets,
        kernel: Path,
        platform: Platform = DISK,
        guest: LinuxGuest | None = None,
        run: Run | None = None,
    ) -> None:
        self.notes: list[str] = []
        guest = replace(guest or LinuxGuest(), kernel=kernel)
        payload = Payload(guest, platform, assets, self.notes.append, run or compile_all)
        self.archive = payload.initrd()
        files = unpack(self.archive)
        self.cases = dict(line.split(" ", 1) for line in files["etc/vt/cases"][1].decode().splitlines())
        self.modules = [Path(name).stem[4:] for name in files if name.startswith("lib/vt-modules/") and "-" in name]
        self.tests = [Path(name).stem for name in files if name.startswith("lib/vt-tests/") and name.endswith(".ko")]
        assert payload.expected == tuple(self.cases)


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Assets:
    """A busybox, a compiler that makes anything of nothing, and nothing else."""
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"busybox")
    monkeypatch.setenv("VI_BUSYBOX", str(busybox))
    monkeypatch.setattr(Assets, "cross", lambda self, gnu: Cross((), "aarch64-", ""))
    return Assets(tmp_path / "cache", run=compile_all)


def compile_all(argv: Sequence[str], **_: object) -> Done:
    for word in argv:
        if word.startswith("M="):
            (Path(word[2:]) / "vt_engine.ko").write_bytes(module("name=vt_engine", "depends="))
    return Done(0, "", "")


def tree(folder: Path, modules: Mapping[str, str] | None = None, builtin: str = "") -> Path:
    """An installed kernel with these modules, each with what it depends on."""
    root = folder / "lib/modules" / VERSION
    root.mkdir(parents=True)
    (folder / "boot").mkdir()
    (folder / f"boot/vmlinuz-{VERSION}").write_bytes(raw_image())
    (root / "modules.builtin").write_text("\n".join(f"kernel/{name}.ko" for name in builtin.split()))
    for name, needs in (modules or {}).items():
        (root / f"{name}.ko").write_bytes(module(f"depends={needs}"))
    return folder


def headers(folder: Path, release: str = VERSION, machine: int = 0) -> Path:
    """What is looked at of a folder of headers; its modpost is a script, or a program for another machine."""
    (folder / "include/generated").mkdir(parents=True)
    (folder / "include/generated/utsrelease.h").write_text(f'#define UTS_RELEASE "{release}"\n')
    (folder / "scripts/mod").mkdir(parents=True)
    elf = b"\x7fELF" + bytes(14) + struct.pack("<H", machine)
    (folder / "scripts/mod/modpost").write_bytes(elf if machine else b"#!/bin/sh\n")
    (folder / "Module.symvers").write_text("")
    return folder


# -- modules are wishes ------------------------------------------------------------------------------------------------


def test_a_kernel_that_has_all_as_modules_is_given_them(assets: Assets, tmp_path: Path) -> None:
    booted = Booted(
        assets, tree(tmp_path / "k", {**dict.fromkeys(STOCK, ""), "vfat": "", "nls_ascii": ""}, "arm-smmu-v3")
    )
    assert (booted.modules, booted.notes) == (list(STOCK), [])
    assert next(iter(booted.cases)) == "modules_load"


def test_a_kernel_that_has_all_built_in_is_given_nothing(assets: Assets, tmp_path: Path) -> None:
    booted = Booted(assets, tree(tmp_path / "k", builtin="arm-smmu-v3 virtio_mmio virtio_blk ext4"))
    assert (booted.modules, booted.notes) == ([], [])
    assert "modules_load" not in booted.cases
    assert booted.cases["disk0_appears"] == "disk_appears disk0"


def test_what_a_kernel_lacks_is_named_once_and_demanded_never(assets: Assets, tmp_path: Path) -> None:
    booted = Booted(assets, tree(tmp_path / "k", {"virtio_blk": ""}, "arm-smmu-v3"))
    (note,) = booted.notes
    assert note.startswith(f"kernel {VERSION} has no module virtio_mmio, ext4, nor is it built in")
    assert booted.modules == ["virtio_blk"]


def test_vfat_serves_where_no_ext4_is_with_what_character_sets_are_there(assets: Assets, tmp_path: Path) -> None:
    booted = Booted(assets, tree(tmp_path / "k", {"nls_utf8": ""}, "arm-smmu-v3 virtio_mmio virtio_blk vfat nls_cp437"))
    assert (booted.modules, booted.notes) == (["nls_utf8"], [])


def test_a_machine_without_a_disk_wants_nothing_for_disks(assets: Assets, tmp_path: Path) -> None:
    folder = tree(tmp_path / "k", dict.fromkeys(STOCK, ""), "arm-smmu-v3")
    headers(folder / f"usr/src/linux-headers-{VERSION}")
    booted = Booted(assets, folder, ENGINE)
    assert (booted.modules, booted.notes) == ([], [])


def test_of_a_kernel_that_may_be_cut_short_the_operator_is_told(assets: Assets, tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(raw_image()[:64])
    booted = Booted(assets, tmp_path / "Image")
    assert "cut short" in booted.notes[0]


def test_of_a_lone_kernel_only_the_guest_knows_more(assets: Assets, tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(raw_image())
    booted = Booted(assets, tmp_path / "Image")
    (note,) = booted.notes
    assert "no modules beside it" in note
    assert "disk0_holds_files" in booted.cases


# -- the engine's module -----------------------------------------------------------------------------------------------


def test_headers_beside_a_kernel_have_its_engine_tested(assets: Assets, tmp_path: Path) -> None:
    folder = tree(tmp_path / "k", builtin="arm-smmu-v3")
    headers(folder / f"usr/src/linux-headers-{VERSION}")
    booted = Booted(assets, folder, ENGINE)
    assert (booted.tests, booted.notes) == (["vt_engine"], [])
    assert booted.cases["engine0_copies_odd_buffers"].startswith("engine ")


def test_without_headers_the_reason_is_said_once_and_the_cases_are_skipped(assets: Assets, tmp_path: Path) -> None:
    booted = Booted(assets, tree(tmp_path / "k", builtin="arm-smmu-v3"), ENGINE)
    (note,) = booted.notes
    assert "are no headers" in note
    assert "--headers" in note
    assert booted.cases["engine0_copies_odd_buffers"] == "cannot 'the engine'\"'\"'s module is not to be had'"
    assert booted.tests == []


def test_headers_can_be_named_for_any_kernel(assets: Assets, tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(raw_image())
    headers(tmp_path / f"h/usr/src/linux-headers-{VERSION}")
    booted = Booted(assets, tmp_path / "Image", ENGINE, guest=LinuxGuest(headers=tmp_path / "h"))
    assert booted.tests == ["vt_engine"]


@pytest.mark.parametrize("named", ["none", "file", "other", "foreign"])
def test_headers_that_do_not_serve_are_the_operators_mistake(assets: Assets, tmp_path: Path, named: str) -> None:
    (tmp_path / "Image").write_bytes(raw_image())
    (tmp_path / "file").write_text("")
    headers(tmp_path / "other", "6.1.0")
    headers(tmp_path / "foreign", machine=8)  # MIPS
    with pytest.raises(UsageError, match=r"is no folder|is of kernel 6\.1\.0 and not of|for another processor"):
        Booted(assets, tmp_path / "Image", ENGINE, guest=LinuxGuest(headers=tmp_path / named))


def test_a_module_that_does_not_compile_is_told_of_with_its_first_errors(assets: Assets, tmp_path: Path) -> None:
    folder = tree(tmp_path / "k", builtin="arm-smmu-v3")
    headers(folder / f"usr/src/linux-headers-{VERSION}")

    def fail(argv: Sequence[str], **_: object) -> Done:
        return Done(2, "", "CC vt_engine.o\nvt_engine.c:5: error: no iommu_x\nmake: *** Error 2\n")

    booted = Booted(assets, folder, ENGINE, run=fail)
    (note,) = booted.notes
    assert "vt_engine.c:5: error: no iommu_x" in note
    assert "CC vt_engine.o" not in note
    assert booted.cases["engine0_copies_odd_buffers"].startswith("cannot ")


def test_debians_headers_are_used_where_they_were_unpacked(tmp_path: Path, assets: Assets) -> None:
    folder = headers(tmp_path / f"linux-headers-{VERSION}")
    (folder / "Makefile").write_text("include /usr/src/linux-headers-nowhere-common/Makefile\n")
    (folder / ".kernelvariables").write_text("override CC = gcc-12\n")
    (folder / "vmlinux").write_text("")
    seen: dict[str, str] = {}

    def look(argv: Sequence[str], **_: object) -> Done:
        if "-C" in argv:
            where = Path(argv[argv.index("-C") + 1])
            seen.update({each.name: each.read_text() for each in where.iterdir() if each.is_file()})
        return compile_all(argv)

    with pytest.raises(UsageError, match="unpack linux-headers-nowhere-common beside it"):
        kmod.Modules(assets, folder, look).module()
    common = tmp_path / "linux-headers-nowhere-common/Makefile"
    common.parent.mkdir()
    common.write_text("")
    kmod.Modules(assets, folder, look).module()
    assert seen["Makefile"].endswith(f"\ninclude {common}\n")
    assert "gcc-12" not in seen[".kernelvariables"]
    assert "vmlinux" not in seen
    assert "Module.symvers" in seen
    assert sorted(each.name for each in folder.iterdir()) == sorted(
        ["include", "scripts", "Module.symvers", "Makefile", ".kernelvariables", "vmlinux"]
    ), "nothing is written there"


def test_a_kernel_that_was_built_again_has_its_module_built_again(tmp_path: Path, assets: Assets) -> None:
    folder = headers(tmp_path / "bld")
    first = kmod.Modules(assets, folder, compile_all).module()
    assert kmod.Modules(assets, folder, compile_all).module() == first
    (folder / "vmlinux").write_text("again")
    assert kmod.Modules(assets, folder, compile_all).module() != first


def test_an_older_compiler_than_the_kernels_is_not_asked_for_what_it_lacks(tmp_path: Path, assets: Assets) -> None:
    folder = headers(tmp_path / "bld")
    (folder / "include/config").mkdir()
    (folder / "include/config/auto.conf").write_text("CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=y\n")
    made: list[Sequence[str]] = []

    def older(argv: Sequence[str], **_: object) -> Done:
        if "-E" in argv:
            return Done(1, "", "unrecognized command-line option")
        if argv[0] == "make":
            made.append(argv)
        return compile_all(argv)

    kmod.Modules(assets, folder, older).module()
    assert ["CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=" in argv for argv in made] == [True]
    (folder / "vmlinux").write_text("again")
    kmod.Modules(assets, folder, lambda argv, **_: Done(0, "", "") if "-E" in argv else older(argv)).module()
    assert ["CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=" in argv for argv in made] == [True, False]


def test_a_build_folder_that_lacks_a_step_says_which(tmp_path: Path, assets: Assets) -> None:
    folder = headers(tmp_path / "bld")
    (folder / "include/config").mkdir()
    (folder / "include/config/auto.conf").write_text("CONFIG_MODVERSIONS=y\n")
    (folder / "Module.symvers").unlink()
    with pytest.raises(UsageError, match="run 'make modules' there"):
        kmod.Modules(assets, folder, compile_all)
    (folder / "include/config/auto.conf").write_text("")
    kmod.Modules(assets, folder, compile_all)
    (folder / "scripts/mod/modpost").unlink()
    with pytest.raises(UsageError, match="run 'make modules_prepare' there"):
        kmod.Modules(assets, folder, compile_all)


# -- what the operator brings ------------------------------------------------------------------------------------------

MAGIC = f"vermagic={VERSION} SMP preempt mod_unload aarch64"


def test_a_module_of_ones_own_comes_after_the_kernels_with_what_it_needs(assets: Assets, tmp_path: Path) -> None:
    folder = tree(tmp_path / "k", {"crc_x": "", "virtio_mmio": ""}, "arm-smmu-v3 virtio_blk ext4")
    (tmp_path / "my-module.ko").write_bytes(module("name=my_module", "depends=crc_x", MAGIC))
    booted = Booted(assets, folder, guest=LinuxGuest(own_modules=(tmp_path / "my-module.ko",)))
    assert booted.modules == ["virtio_mmio", "crc_x"]
    assert list(booted.cases)[:2] == ["modules_load", "module_my_module_loads"]
    assert "lib/vt-own/my_module.ko" in unpack(booted.archive)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"text", "is not a kernel module"),
        (module("name=x"), "was linked"),
        (module("name=x", MAGIC).replace(struct.pack("<HH", 1, 183), struct.pack("<HH", 1, 62)), "another processor"),
        (module("name=x", "vermagic=6.1.0 SMP aarch64"), r"built for kernel 6\.1\.0, and this is 6\.12"),
    ],
)
def test_a_module_that_the_kernel_cannot_take_is_refused(
    assets: Assets, tmp_path: Path, data: bytes, says: str
) -> None:
    (tmp_path / "x.ko").write_bytes(data)
    with pytest.raises(UsageError, match=says):
        Booted(assets, tree(tmp_path / "k"), guest=LinuxGuest(own_modules=(tmp_path / "x.ko",)))
    with pytest.raises(UsageError, match="name a kernel module"):
        Booted(assets, tmp_path / "k", guest=LinuxGuest(own_modules=(tmp_path / "none.ko",)))


def test_a_module_with_versions_of_symbols_may_be_of_another_kernel(assets: Assets, tmp_path: Path) -> None:
    (tmp_path / "x.ko").write_bytes(module("name=x", "vermagic=6.12.1 SMP modversions aarch64"))
    booted = Booted(assets, tree(tmp_path / "k", builtin="arm-smmu-v3 virtio_mmio virtio_blk ext4"),
                    guest=LinuxGuest(own_modules=(tmp_path / "x.ko",)))  # fmt: skip
    assert ["built for kernel 6.12.1" in note for note in booted.notes] == [True]


def test_archives_are_unpacked_over_ours_whatever_compressed_them(assets: Assets, tmp_path: Path) -> None:
    archives = []
    for index in range(2):
        root = Initramfs()
        root.file(f"/mine{index}", str(index))
        archives.append(tmp_path / f"{index}.cpio")
        archives[-1].write_bytes(gzip.compress(root.archive()) if index else root.archive())
    booted = Booted(assets, tree(tmp_path / "k"), guest=LinuxGuest(extra=tuple(archives)))
    rest = booted.archive
    for index in range(2):
        at = rest.index(b"TRAILER!!!")
        rest = rest[at:].lstrip(b"TRAILER!\0")
        assert unpack(rest)[f"mine{index}"][1] == str(index).encode()
    with pytest.raises(UsageError, match="cpio -o -H newc"):
        Booted(assets, tmp_path / "k", guest=LinuxGuest(extra=(tmp_path / "busybox",)))


def test_an_archive_of_ones_own_goes_behind_a_file_system_of_ones_own(assets: Assets, tmp_path: Path) -> None:
    (tmp_path / "init.gz").write_bytes(b"\x1f\x8bodd")
    (tmp_path / "more").write_bytes(b"070701more")
    guest = LinuxGuest(tmp_path, initrd=tmp_path / "init.gz", extra=(tmp_path / "more",))
    assert Payload(guest, DISK, assets, print).initrd() == b"\x1f\x8bodd\0\0\0" + b"070701more\0\0"


def test_cases_that_are_not_chosen_build_no_module(assets: Assets, tmp_path: Path) -> None:
    booted = Booted(assets, tree(tmp_path / "k", builtin="arm-smmu-v3"), ENGINE, guest=LinuxGuest(chosen=("smmu0_*",)))
    assert (list(booted.cases), booted.notes) == (["smmu0_probes"], [])


def test_a_case_of_ones_own_may_not_hide_another(assets: Assets, tmp_path: Path) -> None:
    mine = linux.shell_case("disk0_appears=true")
    with pytest.raises(UsageError, match="disk0_appears is there twice"):
        Booted(assets, tree(tmp_path / "k"), guest=LinuxGuest(own_cases=(mine,)))
