# SPDX-License-Identifier: Apache-2.0
"""The README's example does what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vhost_iommu.cli import main

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_library_example_prints_what_the_readme_shows() -> None:
    code, shown = re.findall(r"```(?:python)?\n(.*?)```", README[README.index("## As a library") :], re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == shown


def test_the_decode_example_is_what_decode_takes(capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = re.findall(r"vhost-iommu decode (.*)", README)
    assert main(["decode", *words.split()]) == 0
    assert capsys.readouterr().out.startswith("F_TRANSLATION")


def test_every_file_that_the_readme_links_to_is_there() -> None:
    top = Path(__file__).resolve().parents[2]
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (top / link).exists()] == []
