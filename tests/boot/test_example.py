# SPDX-License-Identifier: Apache-2.0
"""The example project of the manual, from a wheel in an environment of its own, outside of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import missing, need_kernel
from vhost_iommu.guest.assets import Assets

TOP = Path(__file__).resolve().parents[2]
#: Where we are imported from, and what translates.
OURS = "import vhost_iommu, vhost_iommu._core as core; print(vhost_iommu.__file__); print(core.chosen().__file__)"
#: Seconds to compile the core, and to fetch what is installed.
PATIENCE = 1200.0


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, core_is_built: None) -> Path:
    """The Python of a clean environment, with our wheel, made of the source distribution, and what it names."""
    folder = tmp_path_factory.mktemp("wheel")
    call([sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)], TOP)
    (source,) = folder.glob("*.tar.gz")
    call([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], folder)
    made = folder / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    tools = [*pip, "--python", str(made), "install", "pytest>=9.0", "pytest-xdist>=3.8"]
    done = subprocess.run(tools, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        missing(f"an index of packages: {(done.stderr.strip() or done.stdout.strip()).rpartition(chr(10))[2]}")
    call([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)], folder)
    (wheel,) = folder.glob("*.whl")
    call([*pip, "--python", str(made), "install", str(wheel)], folder)
    for imported in output([str(made), "-c", OURS], folder).split():
        assert Path(imported).is_relative_to(folder / "venv")
    return made


def call(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def output(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=True).stdout


def clean() -> dict[str, str]:
    """An environment in which nothing says how tests here are to run."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "VI_KERNEL"))}


def test_the_example_passes_from_a_wheel_with_two_workers_and_junit(
    python: Path, assets: Assets, tmp_path: Path
) -> None:
    need_kernel(assets, "6.12")
    project = tmp_path / "example"
    shutil.copytree(TOP / "docs/example", project)
    result = tmp_path / "result.xml"
    line = [str(python), "-m", "pytest", "-n", "2", f"--junit-xml={result}"]
    call(line, project, clean())
    suite = ElementTree.parse(result).getroot()[0]
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    assert counts["failures"] == counts["errors"] == counts["skipped"] == 0
    names = {case.attrib["name"] for case in suite}
    assert "test_a_disk_read_invalidates_what_it_mapped" in names
    assert "test_a_case_of_the_bare_machine[an_event_interrupts]" in names


@pytest.mark.parametrize("machine", ["smmuv3-bare", "smmuv3-linux"])
def test_the_command_of_a_wheel_runs_a_guest(python: Path, assets: Assets, tmp_path: Path, machine: str) -> None:
    need_kernel(assets, "6.12")
    call([str(python.with_name("vhost-iommu")), "run", machine], tmp_path, clean())


FAILING = """
    def test_fails(vhost_iommu):
        with vhost_iommu.boot("smmuv3-linux") as guest:
            with guest.recording():
                guest.run("dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct")
            guest.run("echo looking; ls /nowhere")
"""


def test_a_failure_names_one_folder_that_stays(python: Path, assets: Assets, tmp_path: Path) -> None:
    need_kernel(assets, "6.12")
    (tmp_path / "test_it.py").write_text("\n".join(line[4:] for line in FAILING.splitlines()))
    line = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "--vi-trace", "text", "test_it.py"]
    done = subprocess.run(line, cwd=tmp_path, env=clean(), capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the fault is the guest's: 'echo looking; ls /nowhere' ended with status 1: ls: /nowhere" in done.stdout
    (named,) = [each for each in done.stdout.splitlines() if "guest of smmuv3-linux, all of it in " in each]
    folder = Path(named.partition(" all of it in ")[2].rstrip("- "))
    left = {each.name for each in folder.iterdir()}
    assert {"console.log", "dump", "qemu.cmd", "report.html", "trace.txt"} <= left
    # Traced from its begin, and so with what no recording has.
    trace = (folder / "trace.txt").read_text()
    assert trace.index("CMD_CFGI_STE_RANGE") < trace.index("CMD_TLBI_NH_VA")
    page = (folder / "report.html").read_text()
    for shown in ("Timeline", "ls /nowhere", "The last recording", "CMD_TLBI_NH_VA", "translations: "):
        assert shown in page
    shutil.rmtree(folder)
