# SPDX-License-Identifier: Apache-2.0
"""The cache: whole entries or none, and one maker at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.cache import STAMP, Cache, default_folder, locked


def _fill(folder: Path) -> dict[str, str]:
    (folder / "thing").write_text("whole")
    return {"version": "1"}


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path, print)
    made: list[Path] = []

    def make(folder: Path) -> dict[str, str]:
        made.append(folder)
        return _fill(folder)

    assert cache.entry("a", make) == tmp_path / "a"
    assert Cache(tmp_path, print).entry("a", make) == tmp_path / "a"
    assert len(made) == 1
    assert (tmp_path / "a/thing").read_text() == "whole"
    assert cache.stamp("a") == {"version": "1"}


def test_an_entry_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def make(folder: Path) -> dict[str, str]:
        _fill(folder)
        raise UsageError("no network")

    with pytest.raises(UsageError, match="no network"):
        Cache(tmp_path, print).entry("a", make)
    assert [path.name for path in tmp_path.iterdir()] == [".lock-a"]


def test_what_a_killed_process_left_is_made_anew(tmp_path: Path) -> None:
    for leftover in ("a", ".new-a", ".old-a"):  # at the worst of moments: all three, none with a stamp
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "half").write_text("half")
    Cache(tmp_path, print).entry("a", _fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock-a", "a"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [STAMP, "thing"]


def test_what_the_killed_maker_of_another_entry_left_is_removed_and_what_goes_on_is_not(tmp_path: Path) -> None:
    for name in ("killed", "going-on"):
        (tmp_path / f".new-{name}").mkdir()
    with locked(tmp_path / ".lock-going-on"):
        Cache(tmp_path, print).entry("a", _fill)
    assert [path.name for path in tmp_path.glob(".new-*")] == [".new-going-on"]


def test_an_entry_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    cache = Cache(tmp_path, print)

    def make(folder: Path) -> dict[str, str]:
        assert cache.stamp("a") is None
        assert not (tmp_path / "a").exists()
        return _fill(folder)

    cache.entry("a", make)


def test_two_that_want_the_same_share_one_making(tmp_path: Path) -> None:
    making, waiting = threading.Event(), threading.Event()
    made: list[str] = []

    def slow(folder: Path) -> dict[str, str]:
        making.set()
        assert waiting.wait(5), "the second one never waited"
        made.append("first")
        return _fill(folder)

    def second(folder: Path) -> dict[str, str]:
        made.append("second")
        return _fill(folder)

    def says(text: str) -> None:
        if text.startswith("waiting for another process"):
            waiting.set()

    first = threading.Thread(target=Cache(tmp_path, print).entry, args=("a", slow))
    first.start()
    assert making.wait(5)
    assert Cache(tmp_path, says).entry("a", second) == tmp_path / "a"
    first.join()
    assert made == ["first"]


def test_who_wants_another_entry_does_not_wait(tmp_path: Path) -> None:
    making, made_another = threading.Event(), threading.Event()

    def slow(folder: Path) -> dict[str, str]:
        making.set()
        assert made_another.wait(5), "the other one waited"
        return _fill(folder)

    first = threading.Thread(target=Cache(tmp_path, print).entry, args=("a", slow))
    first.start()
    assert making.wait(5)
    Cache(tmp_path, pytest.fail).entry("b", _fill)
    made_another.set()
    first.join()
    assert (tmp_path / "a" / STAMP).exists()


def test_an_entry_may_be_made_of_another(tmp_path: Path) -> None:
    cache = Cache(tmp_path, print)

    def make(folder: Path) -> dict[str, str]:
        (folder / "copy").write_text((cache.entry("b", _fill) / "thing").read_text())
        return {}

    assert (cache.entry("a", make) / "copy").read_text() == "whole"


def test_a_folder_that_cannot_be_made_is_the_operators_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="VI_CACHE"):
        Cache(tmp_path / "file/cache", print).entry("a", _fill)


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_damaged_stamp_is_no_stamp(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / STAMP).write_text(text)
    assert Cache(tmp_path, print).stamp("a") is None


def test_the_default_folder_follows_the_environment() -> None:
    assert default_folder({"VI_CACHE": "/mine", "XDG_CACHE_HOME": "/xdg"}) == Path("/mine")
    assert default_folder({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/vhost-iommu")
    assert default_folder({}) == Path.home() / ".cache/vhost-iommu"
