# SPDX-License-Identifier: Apache-2.0
"""A wheel has what man(1) looks for, where installers put it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from tools.man import pages

TOP = Path(__file__).resolve().parents[2]


def test_a_wheel_has_each_man_page(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path],
        cwd=TOP,
        env={**os.environ, "VI_WITHOUT_CORE": "1", "VI_REQUIRE_ALL": ""},
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as opened:
        placed = {name.partition(".data/data/")[2] for name in opened.namelist() if ".data/data/" in name}
    assert placed == set(pages())
