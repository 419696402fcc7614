# SPDX-License-Identifier: Apache-2.0
"""SIGKILL to a part of a test that speaks with a guest, whoever started it: what is left ends by itself, and the next
test is as though nothing had been.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.boot.places import DEADLINE, Place, eventually
from tests.conftest import need_libvirt

pytestmark = [pytest.mark.usefixtures("assets"), pytest.mark.timeout(600)]

#: A test that asks its guest for something before and after somebody has said "go".
TEST = """
    import time
    from pathlib import Path

    def test_speaks(vhost_iommu):
        with vhost_iommu.boot("smmuv3-linux") as guest:
            guest.run("true")
            Path("up").touch()
            while not Path("go").exists() and guest.running:
                time.sleep(0.05)
            guest.run("dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct")
"""

#: What each part has in its command line.
PARTS = {"pytest": b"test_it.py", "QEMU": b"vfio-user-pci", "the keeper": b"keeper", "libvirt's daemon": b"daemon.conf"}


def begin(place: Place, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "test_it.py").write_text("\n".join(line[4:] for line in TEST.splitlines()))
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={folder}",
        f"--basetemp={folder}/base",
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*line, *arguments, "test_it.py"], cwd=folder, stdout=pipe, stderr=pipe, text=True, env=place.environment
    )


def pid_of(place: Place, part: str) -> int:
    (pid,) = (pid for pid, line in place.processes() if PARTS[part] in line)
    return pid


def ends(place: Place, test: subprocess.Popen[str]) -> str:
    """All that it said; no process is left."""
    said, errors = test.communicate(timeout=DEADLINE)
    place.is_quiet()
    return said + errors


@pytest.mark.parametrize(
    ("launcher", "part"),
    [("qemu", "pytest"), ("qemu", "QEMU"), *(("libvirt", part) for part in PARTS)],
)
def test_nothing_is_left_of_a_test_whose_part_is_killed(place: Place, tmp_path: Path, launcher: str, part: str) -> None:
    if launcher == "libvirt":
        need_libvirt()
    test = begin(place, tmp_path, "--vi-launcher", launcher)
    assert eventually(lambda: (tmp_path / "up").exists() or test.poll() is not None)
    os.kill(pid_of(place, part), signal.SIGKILL)
    if part == "libvirt's daemon":
        # QEMU survives it, and so the test goes on.
        assert eventually(lambda: not any(PARTS[part] in line for _, line in place.processes()))
        (tmp_path / "go").touch()
    said = ends(place, test)
    assert test.returncode == {"pytest": -signal.SIGKILL, "libvirt's daemon": 0}.get(part, 1), said
    assert ("the fault is QEMU's: QEMU ended with status" in said) == (test.returncode == 1), said
    place.passes()
    place.is_tidy()


def test_guests_by_libvirt_run_side_by_side(place: Place, tmp_path: Path) -> None:
    need_libvirt()
    (tmp_path / "go").touch()
    test = begin(place, tmp_path, "-n", "2", "--vi-launcher", "libvirt", "--vi-kernel", "6.1", "--vi-kernel", "6.12")
    said = ends(place, test)
    assert "2 passed" in said
    place.passes()
    place.is_tidy()
