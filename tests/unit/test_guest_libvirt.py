# SPDX-License-Identifier: Apache-2.0
"""What libvirt takes of a machine: each thing that is lacking is a sentence with its mend, before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest import qemu
from vhost_iommu.guest.libvirt import launch, session
from vhost_iommu.guest.libvirt.launch import Libvirt
from vhost_iommu.guest.libvirt.session import Session

GUEST = qemu.Command(("/bin/qemu",), qemu.Hardware(), Path("/k"), name="a-guest-with-a-very-long-name")


ENDED = "internal error: qemu unexpectedly closed the monitor"


def test_the_python_module_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'vhost-iommu\[libvirt\]'"):
        Libvirt(tmp_path).start(GUEST, tmp_path)


def test_a_folder_that_is_called_libvirt_is_not_the_python_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "libvirt").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert not session.module_here()


def test_the_daemon_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "daemon_here", lambda: None)
    with pytest.raises(UsageError, match=r"libvirt's daemon is not here; install it \(Debian: libvirt-daemon-driver"):
        Session(tmp_path, tmp_path / "capabilities")


def test_a_folder_is_as_long_as_libvirts_sockets_let_it_be() -> None:
    longest = "/config/libvirt/qemu/lib/domain-1-a-guest-with-a-very-/monitor.sock"
    session.require_short(Path("/" + "x" * (107 - len(longest) - 1)), GUEST.name)
    with pytest.raises(UsageError, match="x is 3 bytes too long for libvirt's sockets; name a shorter folder"):
        session.require_short(Path("/" + "x" * (107 - len(longest) + 2)), GUEST.name)


def test_what_libvirt_learns_is_kept_where_it_can_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = qemu.Command(("a", "wrapped", "qemu"), qemu.Hardware(), Path("/k"))
    monkeypatch.setattr(launch, "root", lambda: tmp_path / "runs")
    Libvirt(tmp_path / "cache").text(kept)
    assert (tmp_path / "cache/libvirt").is_dir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    Libvirt(tmp_path / "other").text(kept)
    assert [each.name for each in tmp_path.iterdir()] == ["cache", "runs"]
    assert (tmp_path / "runs/.libvirt").is_dir()


@pytest.mark.parametrize(
    ("uid", "said", "mend"),
    [
        (1000, "no connection driver available for qemu:///session", "; install libvirt's driver of QEMU"),
        (0, "cannot open /x: Permission denied", "; libvirt has no power of root's over others' files"),
        (1000, "cannot open /x: Permission denied", ""),
        (1000, f"{ENDED}: a warning\n2026-12-01T04:12:25.495465Z qemu: no such option", "; correct QEMU's arguments"),
        (1000, f"{ENDED}: qemu: no such option", "; correct QEMU's arguments"),
    ],
)
def test_of_what_libvirt_says_the_last_line_counts(
    monkeypatch: pytest.MonkeyPatch, uid: int, said: str, mend: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    last = said.rpartition("\n")[2].removeprefix("2026-12-01T04:12:25.495465Z ").removeprefix(f"{ENDED}: ")
    assert launch.sentence(said).startswith(last + mend)
    assert mend or launch.sentence(said) == last
