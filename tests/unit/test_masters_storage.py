# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.masters.storage import FileStorage, MemoryStorage, Storage, open_storage

SIZE = 1 << 20


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    kept = FileStorage(tmp_path / "disk", SIZE, create=True) if request.param == "file" else MemoryStorage(SIZE)
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
    first = FileStorage(tmp_path / "disk", 4096, create=True)
    first.write(100, b"kept")
    first.close()
    again = FileStorage(tmp_path / "disk", readonly=True)
    assert (again.size, again.read(100, 4)) == (4096, b"kept")
    assert not again.write(0, b"x")
    again.close()


def test_a_file_that_was_made_shorter_is_an_io_error(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "disk", 8192, create=True)
    os.truncate(tmp_path / "disk", 5000)
    assert storage.read(4096, 4096) is None
    assert storage.read(0, 4096) == bytes(4096)
    storage.close()


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("size", [512, 1 << 20, (32 << 20) + 512])
def test_a_disk_without_a_size_is_as_large_as_its_file(tmp_path: Path, size: int, readonly: bool) -> None:
    (tmp_path / "disk").touch()
    os.truncate(tmp_path / "disk", size)
    with closing(FileStorage(tmp_path / "disk", readonly=readonly)) as storage:
        assert storage.size == size
    assert (tmp_path / "disk").stat().st_size == size


def test_a_disk_with_a_size_is_so_much_of_a_larger_file(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(8192))
    with closing(FileStorage(tmp_path / "disk", 4096)) as storage:
        assert storage.size == 4096
    assert (tmp_path / "disk").stat().st_size == 8192


@pytest.mark.parametrize("size", [None, 4096])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_name_that_is_mistyped_makes_no_disk(tmp_path: Path, size: int | None, readonly: bool) -> None:
    with pytest.raises(UsageError, match=r"there is no disk .*; correct its name, or .* create = true"):
        FileStorage(tmp_path / "none", size, readonly)
    with pytest.raises(UsageError, match=r"there is no folder for the disk .*; correct its name or make it"):
        FileStorage(tmp_path / "none" / "there", size, readonly)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_is_made_or_lengthened_where_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for size in 4096, 8192:
        with closing(FileStorage(tmp_path / "disk", size, create=True)) as storage:
            assert storage.read(0, size) == bytes(size)
    assert [record.message for record in caplog.records] == [f"{tmp_path / 'disk'}: made, blank, of 4096 bytes"]
    with pytest.raises(UsageError, match="read-only or without a size"):
        FileStorage(tmp_path / "other", create=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("has", [0, 3, 513])
def test_a_file_of_no_whole_sectors_is_refused_with_the_mend(tmp_path: Path, has: int, readonly: bool) -> None:
    (tmp_path / "odd").write_bytes(bytes(has))
    with pytest.raises(UsageError, match=f"has {has} bytes, .*'truncate -s {1024 if has > 512 else 512} "):
        FileStorage(tmp_path / "odd", readonly=readonly)
    with pytest.raises(UsageError, match=f"has {has} bytes and not 4096; leave the size out, or lengthen the file"):
        FileStorage(tmp_path / "odd", 4096, readonly)
    assert (tmp_path / "odd").stat().st_size == has


@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_no_disk_is_refused_at_once(tmp_path: Path, readonly: bool) -> None:
    os.mkfifo(tmp_path / "fifo")
    for wrong in tmp_path, tmp_path / "fifo", Path("/dev/null"):
        with pytest.raises(UsageError, match="neither a file nor a block device"):
            FileStorage(wrong, 4096, readonly)


def test_a_disk_that_lost_data_keeps_failing_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(FileStorage(tmp_path / "disk", 4096, create=True)) as storage:
        caplog.clear()
        calls: list[int] = []

        def lost(fd: int) -> None:
            calls.append(fd)
            if len(calls) == 1:  # as Linux does
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fdatasync", lost)
        assert [storage.flush() for _ in range(3)] == [False] * 3
        assert storage.read(0, 512) == bytes(512)
    (record,) = caplog.records
    assert record.message == (
        f"{tmp_path / 'disk'}: the host could not write it back (Input/output error): flushes fail from now on"
    )


def test_a_file_that_is_made_is_in_its_folder_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    for _ in range(2):  # the second time it is there
        FileStorage(tmp_path / "disk", 4096, create=True).close()
    assert synced == [str(tmp_path)]


def test_a_disk_that_cannot_be_made_as_large_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot use the disk"):
        FileStorage(tmp_path / "disk", 1 << 62, create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_of_neither_path_nor_size_is_the_operators_mistake() -> None:
    with pytest.raises(UsageError, match="a path or a size"):
        open_storage()
