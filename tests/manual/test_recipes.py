# SPDX-License-Identifier: Apache-2.0
"""What the manual shows is run as it stands there, and does what the manual says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_kernel
from tests.manual.pages import DOCS, Block, blocks
from vhost_iommu.guest.assets import Assets

pytestmark = [pytest.mark.vi_boot, pytest.mark.timeout(900)]

#: Pages whose every block of Python and of a shell is run.
RUN = ("recipes.md", "writing-a-test.md")
#: Those of a shell that go on from one another.
TOGETHER = ("reading-a-trace.md",)
SHELL = [block for page in RUN for block in blocks(page, "sh")]
SHELL += [
    Block(page, page.removesuffix(".md"), "sh", "".join(block.text for block in blocks(page, "sh")), 1)
    for page in TOGETHER
]


@pytest.fixture(autouse=True)
def _kernels(assets: Assets, request: pytest.FixtureRequest) -> None:
    need_kernel(assets, "6.12")
    if "both_kernels" in request.node.name:
        need_kernel(assets, "7")


PYTHON = [(block, ast.parse(block.text)) for page in RUN for block in blocks(page, "python")]


def names_of_tests(tree: ast.Module) -> list[str]:
    return [each.name for each in tree.body if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")]


PROGRAMS = SHELL + [block for block, tree in PYTHON if not names_of_tests(tree)]


@pytest.mark.parametrize("block", PROGRAMS, ids=[f"{block.name}-{block.line}" for block in PROGRAMS])
def test_what_is_typed_ends_well(block: Block, tmp_path: Path) -> None:
    how = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*how[block.language], block.text],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"docs/{block.page}:{block.line}\n{done.stdout}"


# The pages' tests are tests of this module, under the names that they have there.
for _block, _tree in PYTHON:
    if _names := names_of_tests(_tree):
        _space: dict[str, Any] = {"__name__": __name__}
        ast.increment_lineno(_tree, _block.line - 1)
        exec(compile(_tree, str(DOCS / _block.page), "exec"), _space)
        for _name in _names:
            assert _name not in globals(), f"two tests of the manual have the name {_name}"
            globals()[_name] = _space[_name]
