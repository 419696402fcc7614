# SPDX-License-Identifier: Apache-2.0
"""The example workflows: what they have a runner do is done here, but for what installs packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import need_kernel
from tests.manual.pages import DOCS, blocks
from vhost_iommu.guest.assets import Assets

pytestmark = [pytest.mark.vi_boot, pytest.mark.timeout(900)]

FOLDER = DOCS / "example" / "ci"
#: What begins a line that installs, which this machine has behind it.
INSTALLS = ("sudo apt-get ", "apt-get ", "python3 -m venv ", ".venv/bin/pip install ")


def load(name: str) -> Any:
    # "on" is a key, and no truth value, to everybody but YAML 1.1.
    return yaml.load((FOLDER / name).read_text(encoding="utf-8"), yaml.BaseLoader)


def github() -> tuple[dict[str, str], list[str]]:
    """What the job has in its environment, and the lines that it runs."""
    work = load("github.yml")
    steps = work["jobs"]["test"]["steps"]
    return work["env"], [line for step in steps for line in step.get("run", "").splitlines()]


def gitlab() -> tuple[dict[str, str], list[str]]:
    job = load("gitlab.yml")["smmu"]
    return {"KERNELS": job["variables"]["KERNELS"]}, [*job["before_script"], *job["script"]]


@pytest.mark.parametrize("workflow", [github, gitlab])
def test_a_project_that_has_the_workflow_passes(workflow: Any, tmp_path: Path, assets: Assets) -> None:
    environment, lines = workflow()
    for kernel in environment["KERNELS"].split():
        need_kernel(assets, kernel)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "test_mine.py").write_text(next(blocks("writing-a-test.md", "python")).text)
    ran = [line for line in lines if not line.startswith(INSTALLS)]
    assert any(line.startswith(".venv/bin/pytest ") for line in ran)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(ran)],
        cwd=tmp_path,
        env={**os.environ, **environment, "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert 'failures="0"' in (tmp_path / "junit.xml").read_text()
    assert [path.name for path in tmp_path.glob("guests/*/console.log")] == ["console.log"]


def test_each_cache_is_keyed_by_kernels_and_by_the_version_that_fills_it() -> None:
    (cache,) = (step for step in load("github.yml")["jobs"]["test"]["steps"] if "cache" in step.get("uses", ""))
    assert "env.KERNELS" in cache["with"]["key"]
    assert "hashFiles('requirements.txt')" in cache["with"]["key"]
    assert cache["with"]["key"].startswith(cache["with"]["restore-keys"])
    job = load("gitlab.yml")["smmu"]
    assert (job["cache"]["key"]["files"], "$KERNELS" in job["cache"]["key"]["prefix"]) == (["requirements.txt"], True)
    assert job["variables"]["VI_CACHE"] == f"$CI_PROJECT_DIR/{job['cache']['paths'][0]}"
