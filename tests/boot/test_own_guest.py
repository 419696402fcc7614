# SPDX-License-Identifier: Apache-2.0
"""docs/your-own-guest.md, literally: its program is compiled as the page says, and runs in both of its ways."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vhost_iommu import cli
from vhost_iommu.guest.assets import Assets

PAGE = (Path(__file__).resolve().parents[2] / "docs/your-own-guest.md").read_text()
COMMAND = [sys.executable, "-c", "import sys; from vhost_iommu.cli import main; sys.exit(main())"]
DEADLINE = 120.0


def compiled(assets: Assets, folder: Path, source: str, flags: list[str], output: str) -> Path:
    cross = assets.cross()
    (folder / "own.c").write_text(source)
    argv = [*cross.cc, "-Wall", "-Wextra", "-Werror", *flags, "-o", output, "own.c"]
    subprocess.run(argv, cwd=folder, env={**os.environ, **cross.env}, check=True, timeout=DEADLINE)
    return folder / output


def write_header(machine: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["map", machine, "--c-header"]) == 0
    (folder / "map.h").write_text(capsys.readouterr().out)


@pytest.fixture
def own(assets: Assets, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The page's program."""
    write_header("smmuv3-bare", tmp_path, capsys)
    (source,) = re.findall(r"```c\n(.*?)```", PAGE, re.DOTALL)
    (command,) = re.findall(r"^aarch64-linux-gnu-gcc (.*?[^\\])$", PAGE, re.DOTALL | re.MULTILINE)
    flags = shlex.split(command.replace("\\\n", " "))
    assert flags[-3:] == ["-o", "own.elf", "own.c"]
    return compiled(assets, tmp_path, source, flags[:-3], "own.elf")


@pytest.fixture
def line(own: Path) -> Iterator[list[str]]:
    """The line that ``serve`` prints, for the page's program."""
    argv = [*COMMAND, "serve", "smmuv3-bare", "--socket-dir", str(own.parent / "sockets")]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield shlex.split(process.stdout.readline().replace("YOUR.elf", str(own)))
    finally:
        process.terminate()
        process.wait()


def console_of(line: list[str]) -> str:
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_pages_program_passes_under_run(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "smmuv3-bare", "--elf", str(own)]) == 0
    assert "pass  commands_are_consumed" in capsys.readouterr().out


def test_the_line_that_serve_prints_runs_the_pages_program_again_and_again(line: list[str]) -> None:
    for _ in range(2):
        assert "ok 1 commands_are_consumed" in console_of(line).splitlines()


def test_a_line_that_keeps_qemus_own_network_card_works_too(line: list[str]) -> None:
    line.remove("-nodefaults")
    assert "ok 1 commands_are_consumed" in console_of(line).splitlines()


def test_the_header_compiles_for_a_machine_with_wires_and_masters(
    assets: Assets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_header("two-smmus", tmp_path, capsys)
    source = """
        #include "map.h"
        static const struct { unsigned long address; unsigned int value; } writes[] = VI_WRITES;
        static const unsigned int sids[] = VI_DISK1_STREAM_IDS;
        _Static_assert(sizeof(writes) / sizeof(writes[0]) == VI_WRITE_COUNT, "one for each");
        _Static_assert(VI_SMMU1_GERROR_INTID == 142 && VI_VIRT_ECAM == 0x4010000000, "as the map says");
        unsigned long sum(void) { return writes[0].address + sids[0]; }
    """
    made = compiled(assets, tmp_path, source, ["-ffreestanding", "-c"], "own.o")
    assert made.stat().st_size > 0
