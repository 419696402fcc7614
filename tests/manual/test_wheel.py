# SPDX-License-Identifier: Apache-2.0
"""What a wheel has: all that runs, man pages where installers put them, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tools.man import pages

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """Without the core, which has tests of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=TOP,
        env={**os.environ, "VI_WITHOUT_CORE": "1", "VI_REQUIRE_ALL": ""},
        capture_output=True,
        check=True,
    )
    (made,) = folder.glob("*.whl")
    return ZipFile(made)


def test_a_wheel_has_each_man_page(wheel: ZipFile) -> None:
    placed = {name.partition(".data/data/")[2] for name in wheel.namelist() if ".data/data/" in name}
    assert placed == set(pages())


def test_a_wheel_has_all_that_runs_and_nothing_else(wheel: ZipFile) -> None:
    def below(folder: str, *suffixes: str) -> set[str]:
        found = (path for path in (TOP / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(TOP)) for path in found if not suffixes or path.suffix in suffixes}

    shared = {f"vhost_iommu/_share/{name}" for folder in ("guest", "qemu-configs") for name in below(folder)}
    ours = below("vhost_iommu", ".py", ".pyi", ".typed", ".md") | shared
    assert {name for name in wheel.namelist() if ".data/" not in name and ".dist-info/" not in name} == ours


def test_each_file_of_a_wheel_is_text_that_names_its_licence(wheel: ZipFile) -> None:
    texts = {name: wheel.read(name).decode() for name in wheel.namelist() if name.startswith("vhost_iommu/")}
    silent = [name for name, text in texts.items() if text and "SPDX-License-Identifier: " not in text[:400]]
    assert silent == ["vhost_iommu/_share/guest/kmod/LICENSE"]
