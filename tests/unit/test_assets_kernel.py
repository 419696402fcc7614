# SPDX-License-Identifier: Apache-2.0
"""Kernels and modules on disk, in small trees made here."""

from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

import pytest
import zstandard

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.kernel import KernelImage, KernelTree, Wanted, load_image

VERSION = "6.12.95+deb12-arm64"


def raw_image(page: int = 1) -> bytes:
    """An arm64 Image's header with a banner behind it; ``page`` is the header's code for the page size."""
    header = struct.pack("<4s4xQQQ24x4s4x", b"MZ@\xfa", 0x80000, 0x2B20000, page << 1 | 8, b"ARM\x64")
    return header + b"Linux version %s\0" + f"Linux version {VERSION} (builder@host)\0".encode() + bytes(100)


def zboot(payload: bytes, name: bytes) -> bytes:
    """An EFI zboot application: header, payload, and the payload's size behind it."""
    header = struct.pack("<2s2x4sII8x32s", b"MZ", b"zimg", 64, len(payload), name).ljust(64, b"\0")
    return header + payload + struct.pack("<I", 4711) + bytes(16)


def module(*info: str) -> bytes:
    """A relocatable AArch64 ELF with nothing but a .modinfo section."""
    data = b"".join(entry.encode() + b"\0" for entry in info)
    names = b"\0.modinfo\0.shstrtab\0"
    start = 64 + len(data) + len(names)
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 183, 1, 0, 0, start, 0, 64, 0, 0, 64, 3, 2)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(data), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(data), len(names), 0, 0, 1, 0)
    return elf + data + names + sections


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("raw", raw_image()),
        ("gzip", gzip.compress(raw_image())),
        ("zstd", zstandard.compress(raw_image())),
        ("xz", lzma.compress(raw_image())),
        ("lzma", lzma.compress(raw_image(), lzma.FORMAT_ALONE)),
        ("zboot-gzip", zboot(gzip.compress(raw_image()), b"gzip")),
        ("zboot-zstd", zboot(zstandard.compress(raw_image()), b"zstd")),
        ("zboot-xz", zboot(lzma.compress(raw_image()), b"xzkern")),
        ("zboot-lzma", zboot(lzma.compress(raw_image(), lzma.FORMAT_ALONE), b"lzma")),
        ("gzip-zboot-gzip", gzip.compress(zboot(gzip.compress(raw_image()), b"gzip"))),
    ],
)
def test_every_form_of_a_kernel_gives_the_raw_image(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert load_image(tmp_path / name) == raw_image()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an arm64 kernel"),
        (b"\x7fELF" + bytes(100), "for debuggers, and not an arm64 kernel"),
        (gzip.compress(bytes(1000)), "not an arm64 kernel"),
        (gzip.compress(raw_image())[:-20], "cut short"),
        (zstandard.compress(raw_image())[:-20], "cut short"),
        (lzma.compress(raw_image())[:-20], "cut short"),
        (zboot(gzip.compress(raw_image()), b"gzip")[:100], "cut short"),
        (b"\x1f\x8b" + bytes(100), "damaged"),
        (zboot(b"\x04\x22\x4d\x18" + bytes(100), b"lz4"), "not an arm64 kernel"),
    ],
)
def test_what_is_no_kernel_is_the_operators_to_mend(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "kernel").write_bytes(data)
    with pytest.raises(UsageError, match=says):
        load_image(tmp_path / "kernel")


def test_a_missing_kernel_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        load_image(tmp_path / "nowhere")


@pytest.mark.parametrize(("code", "size"), [(0, 0), (1, 4096), (2, 16384), (3, 65536)])
def test_the_header_tells_offset_sizes_and_version(code: int, size: int) -> None:
    image = raw_image(code)
    assert KernelImage.parse(image) == KernelImage(image, 0x80000, 0x2B20000, size, VERSION)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder like that of unpacked Debian packages: no modules.dep."""
    modules = tmp_path / "lib/modules" / VERSION
    (modules / "kernel/fs").mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    (tmp_path / f"boot/vmlinuz-{VERSION}").write_bytes(raw_image())
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio-ring.ko\nkernel/lib/crc16.ko\n")
    for name, info in {
        "ext4.ko.xz": ("license=GPL", "depends=jbd2,mbcache,crc16", "softdep=pre: crypto-crc32c post: later"),
        "jbd2.ko.gz": ("depends=", "softdep=pre: crypto-crc32c nowhere"),
        "mbcache.ko.zst": ("depends=",),
        "crc32c_generic.ko": ("alias=crypto-crc32c", "depends="),
        "later.ko": ("depends=",),
        "nvme-core.ko": ("depends=",),
        "nvme.ko": ("depends=nvme-core",),
        "odd.ko": ("depends=missing",),
        "round.ko": ("depends=about",),
        "about.ko": ("depends=round",),
    }.items():
        data = module(*info)
        for suffix, compress in ((".xz", lzma.compress), (".gz", gzip.compress), (".zst", zstandard.compress)):
            data = compress(data) if name.endswith(suffix) else data
        (modules / "kernel/fs" / name).write_bytes(data)
    return tmp_path


def test_unpacked_packages_give_the_kernel(packages: Path) -> None:
    assert KernelTree(packages).image.version == VERSION


def test_modules_come_before_those_that_need_them(packages: Path) -> None:
    found = KernelTree(packages).modules(["ext4"]).files
    assert [name for name, _ in found] == ["crc32c_generic", "jbd2", "mbcache", "ext4"]
    assert all(data.startswith(b"\x7fELF") for _, data in found)


def test_a_module_asked_for_twice_comes_once(packages: Path) -> None:
    found = KernelTree(packages).modules(["nvme-core", "nvme", "nvme_core", "nvme"]).files
    assert [name for name, _ in found] == ["nvme_core", "nvme"]


def test_a_builtin_module_is_silently_fine(packages: Path) -> None:
    assert KernelTree(packages).modules(["virtio_ring", "virtio-ring", "crc16"]) == Wanted([], [])


def test_modules_that_need_each_other_come_to_an_end(packages: Path) -> None:
    assert sorted(name for name, _ in KernelTree(packages).modules(["round"]).files) == ["about", "round"]


def test_what_is_absent_is_named_and_the_rest_is_there(packages: Path) -> None:
    found = KernelTree(packages).modules(["nope", "nvme", "odd", "nope"])
    assert found.absent == ["nope", "odd (which needs missing)"]
    assert [name for name, _ in found.files] == ["nvme_core", "nvme"]
    assert [KernelTree(packages).has(name) for name in ("crc16", "ext4", "nope", "odd")] == [True, True, False, False]


def test_a_file_that_is_no_module_is_named(packages: Path) -> None:
    (packages / "lib/modules" / VERSION / "kernel/fs/bad.ko").write_bytes(b"text")
    with pytest.raises(UsageError, match=r"bad\.ko is not a kernel module"):
        KernelTree(packages).modules(["bad"])


def test_the_newer_layout_of_packages_is_known(tmp_path: Path) -> None:
    modules = tmp_path / "usr/lib/modules" / VERSION
    modules.mkdir(parents=True)
    (modules / "vmlinuz").write_bytes(raw_image(2))
    (modules / "modules.order").write_text("")
    (modules / "a.ko").write_bytes(module("depends="))
    tree = KernelTree(tmp_path)
    assert tree.image.page_size == 16384
    assert tree.modules(["a"]).files == [("a", module("depends="))]


def test_a_build_folder_gives_what_its_list_of_modules_names(tmp_path: Path) -> None:
    (tmp_path / "arch/arm64/boot").mkdir(parents=True)
    (tmp_path / "arch/arm64/boot/Image").write_bytes(raw_image())
    (tmp_path / "drivers").mkdir()
    for name in ("new", "old", "stale"):
        (tmp_path / f"drivers/{name}.ko").write_bytes(module("depends="))
    (tmp_path / "modules.order").write_text("drivers/new.o\ndrivers/old.ko\ndrivers/gone.o\n")
    tree = KernelTree(tmp_path)
    assert tree.image.version == VERSION
    assert [name for name, _ in tree.modules(["new", "old"]).files] == ["new", "old"]
    assert tree.modules(["stale", "gone"]) == Wanted([], ["stale", "gone"])
    assert tree.header_folders() == [tmp_path]


def test_of_a_lone_kernel_file_nothing_more_is_known(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(raw_image())
    tree = KernelTree(tmp_path / "Image")
    assert tree.image.image == raw_image()
    assert not tree.knows_modules
    assert tree.header_folders() == []


def test_a_kernel_file_finds_the_modules_that_its_package_put_beside_it(packages: Path) -> None:
    (file,) = packages.glob("boot/vmlinuz-*")
    assert [name for name, _ in KernelTree(file).modules(["nvme"]).files] == ["nvme_core", "nvme"]


def test_a_kernel_file_among_its_modules_finds_them(tmp_path: Path) -> None:
    modules = tmp_path / f"usr/lib/modules/{VERSION}"
    modules.mkdir(parents=True)
    (modules / "vmlinuz").write_bytes(raw_image())
    (modules / "modules.order").write_text("")
    (modules / "a.ko").write_bytes(module("depends="))
    assert [name for name, _ in KernelTree(modules / "vmlinuz").modules(["a"]).files] == ["a"]


def test_an_empty_folder_holds_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no kernel"):
        KernelTree(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        KernelTree(tmp_path / "none")


def installed(top: Path, *releases: str) -> None:
    """A tree with kernels of these releases, whose modules of the same name differ."""
    for release in releases:
        modules = top / "lib/modules" / release
        modules.mkdir(parents=True)
        (modules / "modules.order").write_text("")
        (modules / "a.ko").write_bytes(module(f"version={release}"))
        (top / "boot").mkdir(exist_ok=True)
        (top / f"boot/vmlinuz-{release}").write_bytes(raw_image().replace(VERSION.encode(), release.encode()))


def test_of_several_installed_kernels_the_newest_is_taken_and_said(tmp_path: Path) -> None:
    installed(tmp_path, "6.9.12-arm64", "6.12.0-rc1-arm64", "6.12.0-arm64", "6.1.0-50-arm64")
    tree = KernelTree(tmp_path)
    assert tree.image.version == "6.12.0-arm64"
    assert "holds 4 kernels; boot/vmlinuz-6.12.0-arm64 is taken" in tree.choice
    assert tree.modules(["a"]).files == [("a", module("version=6.12.0-arm64"))]


def test_links_copies_and_older_builds_of_a_kernel_are_not_newer_ones(tmp_path: Path) -> None:
    installed(tmp_path, "6.12.9", "6.12.10")
    (tmp_path / "boot/vmlinuz").symlink_to("vmlinuz-6.12.9")
    (tmp_path / "boot/vmlinuz-6.12.10.old").write_bytes(b"")
    (tmp_path / "lib/modules/6.12.10/vmlinuz").write_bytes(raw_image().replace(VERSION.encode(), b"6.12.10"))
    tree = KernelTree(tmp_path)
    assert tree.image.version == "6.12.10"
    assert "holds 3 kernels" in tree.choice


def test_one_kernel_needs_no_word_about_a_choice(packages: Path) -> None:
    assert KernelTree(packages).choice == ""


def test_modules_of_another_kernel_are_not_taken(tmp_path: Path) -> None:
    installed(tmp_path, "6.12.9")
    (tmp_path / "lib/modules/6.12.9").rename(tmp_path / "lib/modules/6.12.8")
    assert not KernelTree(tmp_path).knows_modules


def test_a_kernel_that_lies_among_modules_of_another_does_not_take_them(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(raw_image())
    (tmp_path / "modules.order").write_text("a.o\n")
    assert not KernelTree(tmp_path / "Image").knows_modules


def test_the_folder_of_kernels_alone_finds_modules_beside_it(tmp_path: Path) -> None:
    installed(tmp_path, "6.12.9")
    assert KernelTree(tmp_path / "boot").modules(["a"]).files == [("a", module("version=6.12.9"))]
    assert KernelTree(tmp_path / "boot/vmlinuz-6.12.9").modules(["a"]).files == [("a", module("version=6.12.9"))]


def test_links_among_modules_are_not_followed(packages: Path) -> None:
    build = packages / "elsewhere"
    build.mkdir()
    (build / "far.ko").write_bytes(module("depends="))
    (packages / "lib/modules" / VERSION / "build").symlink_to(build)
    tree = KernelTree(packages)
    assert tree.modules(["far"]).absent == ["far"]
    assert tree.header_folders()[0].resolve() == build


def test_headers_that_packages_unpacked_are_found(packages: Path) -> None:
    headers = packages / f"usr/src/linux-headers-{VERSION}"
    headers.mkdir(parents=True)
    (packages / "lib/modules" / VERSION / "build").symlink_to(f"/usr/src/linux-headers-{VERSION}-nowhere")
    assert KernelTree(packages).header_folders() == [headers]
    assert KernelTree(packages / f"boot/vmlinuz-{VERSION}").header_folders() == [headers]
