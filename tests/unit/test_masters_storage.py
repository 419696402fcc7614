# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.masters.storage import FileStorage, MemoryStorage, Storage, open_storage

SIZE = 1 << 20


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    kept = FileStorage(tmp_path / "disk", SIZE) if request.param == "file" else MemoryStorage(SIZE)
    yield kept
    kept.close()


def test_what_is_written_is_read(storage: Storage) -> None:
    assert storage.size == SIZE
    assert storage.write(513, b"hello")
    assert storage.flush()
    assert storage.read(512, 7) == b"\0hello\0"


@pytest.mark.parametrize("unmap", [False, True])
def test_zeroed_ranges_read_as_zeros_and_nothing_else_does(storage: Storage, unmap: bool) -> None:
    assert storage.write(0, b"\xff" * SIZE)
    assert storage.zero(4096, 3 * 4096, unmap=unmap)
    assert storage.read(4095, 3 * 4096 + 2) == b"\xff" + bytes(3 * 4096) + b"\xff"


def test_discarded_ranges_leave_the_rest_alone(storage: Storage) -> None:
    assert storage.write(0, b"\xff" * SIZE)
    assert storage.discard(8192, 4096)
    assert storage.read(0, 8192) == b"\xff" * 8192
    assert storage.read(12288, 4096) == b"\xff" * 4096


def test_a_file_keeps_what_was_written(tmp_path: Path) -> None:
    first = FileStorage(tmp_path / "disk", 4096)
    first.write(100, b"kept")
    first.close()
    again = FileStorage(tmp_path / "disk", readonly=True)
    assert (again.size, again.read(100, 4)) == (4096, b"kept")
    assert not again.write(0, b"x")
    again.close()


def test_a_file_that_was_made_shorter_is_an_io_error(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "disk", 8192)
    os.truncate(tmp_path / "disk", 5000)
    assert storage.read(4096, 4096) is None
    assert storage.read(0, 4096) == bytes(4096)
    storage.close()


def test_a_readonly_file_is_neither_made_nor_grown(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot open the disk"):
        FileStorage(tmp_path / "none", 4096, readonly=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(UsageError, match="has 3 bytes"):
        FileStorage(tmp_path / "short", 4096, readonly=True)
    assert (tmp_path / "short").read_bytes() == b"abc"


def test_a_disk_of_neither_path_nor_size_is_the_operators_mistake() -> None:
    with pytest.raises(UsageError, match="a path or a size"):
        open_storage()
