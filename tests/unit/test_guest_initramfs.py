# SPDX-License-Identifier: Apache-2.0
"""newc archives, read back by a reader that shares nothing with the writer."""

from __future__ import annotations

import stat

import pytest

from vhost_iommu.guest.initramfs import Initramfs, linux_guest


def unpack(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """{name: (mode, content, device)} in the order of the archive."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name_size, size = fields[11], fields[6]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        assert archive[at + 110 + name_size - 1] == 0
        content = at + -(-(110 + name_size) // 4) * 4
        at = -(-(content + size) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[content : content + size], (fields[9], fields[10]))


def test_an_archive_holds_what_was_added() -> None:
    root = Initramfs()
    root.file("/etc/vt/cases", "one\n", 0o600)
    root.symlink("/bin/sh", "busybox")
    root.character_device("/dev/console", 5, 1)
    found = unpack(root.archive())
    assert found["etc/vt/cases"] == (stat.S_IFREG | 0o600, b"one\n", (0, 0))
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox", (0, 0))
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))


def test_a_folder_comes_before_what_is_in_it() -> None:
    root = Initramfs()
    root.file("/a/b/c", b"")
    root.file("/a-b", b"")
    names = list(unpack(root.archive()))
    assert names.index("a") < names.index("a/b") < names.index("a/b/c")
    assert stat.S_ISDIR(unpack(root.archive())["a/b"][0])


def test_the_same_content_gives_the_same_bytes() -> None:
    first, second = Initramfs(), Initramfs()
    for root, names in ((first, "ab"), (second, "ba")):
        for name in names:
            root.file(f"/{name}", name)
    assert first.archive() == second.archive()


@pytest.mark.parametrize("path", ["relative", "/", "/a/../b", "/a//b", "/a/"])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a plain absolute path"):
        Initramfs().file(path, b"")


def test_nothing_is_added_twice_or_below_a_file() -> None:
    root = Initramfs()
    root.file("/a", b"")
    with pytest.raises(ValueError, match="there already"):
        root.file("/a", b"")
    with pytest.raises(ValueError, match="not a directory"):
        root.file("/a/b", b"")


def test_modules_keep_the_order_of_insertion() -> None:
    modules = [(name, b"") for name in ("virtio_ring", "virtio", "a")]
    found = unpack(linux_guest(b"", b"#!/bin/sh\n", modules, {"cases": "x"}).archive())
    assert [name for name in found if name.endswith(".ko")] == [
        "lib/vt-modules/000-virtio_ring.ko",
        "lib/vt-modules/001-virtio.ko",
        "lib/vt-modules/002-a.ko",
    ]
    assert found["init"][0] == stat.S_IFREG | 0o755
    assert found["etc/vt/cases"][1] == b"x\n"


def test_modules_of_tests_are_not_inserted_with_the_others() -> None:
    found = unpack(linux_guest(b"", b"#!/bin/sh\n", (), {}, {"vt_engine": b"module"}).archive())
    assert found["lib/vt-tests/vt_engine.ko"][1] == b"module"
    assert not [name for name in found if name.startswith("lib/vt-modules/")]
