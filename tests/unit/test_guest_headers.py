# SPDX-License-Identifier: Apache-2.0
"""Headers of another Debian release build modules where they were unpacked, whatever this machine is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vhost_iommu.guest.headers import make_usable

VERSION, COMMON = "7.3.4-arm64", "linux-headers-7.3.4-common"
MODPOST = "usr/lib/linux-kbuild-7.3.4/scripts/mod/modpost"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What the packages unpack to, with a dynamic loader that says what it was asked."""
    folder = tmp_path / "new"
    files = {
        f"usr/src/linux-headers-{VERSION}/vmlinux": b"",
        "usr/lib64/ld-linux-x86-64.so.2": b'#!/bin/sh\nfor each; do echo "$each"; done\n',
        "usr/lib/x86_64-linux-gnu/libc.so.6": b"",
        MODPOST: b"\x7fELF",
        "usr/lib/linux-kbuild-7.3.4/scripts/mod/empty.o": b"\x7fELF",
        "usr/lib/linux-kbuild-7.3.4/scripts/check.sh": b"#!/bin/sh\n",
    }
    for name, data in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o644 if name.endswith(".o") else 0o755)
    (folder / f"usr/src/linux-headers-{VERSION}/scripts").symlink_to("../../lib/linux-kbuild-7.3.4/scripts")
    return folder


def test_programs_run_with_the_loader_that_came_with_them_wherever_the_folder_is(unpacked: Path) -> None:
    make_usable(unpacked, VERSION, COMMON)
    moved = unpacked.rename(unpacked.with_name("whole"))
    build = moved / f"usr/src/linux-headers-{VERSION}"
    # As kbuild calls it: through a link, by a relative name.
    asked = subprocess.run(
        ["scripts/mod/modpost", "-m", "a b"], cwd=build, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    _, libraries, _, named, program, *arguments = asked
    assert named == "scripts/mod/modpost"
    assert (build / program).resolve() == (moved / MODPOST).with_name(".modpost.elf")
    assert (build / libraries).resolve() == moved / "usr/lib/x86_64-linux-gnu"
    assert arguments == ["-m", "a b"]


def test_scripts_and_objects_stay_as_they_are(unpacked: Path) -> None:
    make_usable(unpacked, VERSION, COMMON)
    scripts = unpacked / "usr/lib/linux-kbuild-7.3.4/scripts"
    assert (scripts / "mod/empty.o").read_bytes() == b"\x7fELF"
    assert (scripts / "check.sh").read_text() == "#!/bin/sh\n"
