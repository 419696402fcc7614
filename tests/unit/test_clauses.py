# SPDX-License-Identifier: Apache-2.0
"""docs/clauses.md names sections, modules and tests that exist, in order, and says of what is absent that it is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PAGE, PAGE_V2 = TOP / "docs" / "clauses.md", TOP / "docs" / "clauses-v2.md"
ABSENT = "not modelled"

#: Features that the model does not have must have a row that says so.
WITHOUT = (
    "ATOS", "MPAM_NS", "DPT", "ECMDQ", "Secure", "Realm", "ndirect permission", "VMSAv9-128", "MTE", "Broadcast TLB",
    "PBHA", "RAS", "Power control", "Embedded", "PTWNNC", "MTEPERM",
    "Implementation defined registers",
)  # fmt: skip
#: Chapters and sections that are to be covered.
COVERED = ("3.3", "3.4", "3.5", "3.9", "3.12", "3.13", "3.17", "3.18", "3.21", "4", "5", "6", "7", "8")


#: The same of SMMUv2.
WITHOUT_V2 = (
    "Security state", "hints", "MONC", "E2H", "GSE", "Configuration access", "GATS", "Broadcast TLB", "Performance",
    "EXSMR", "Compressed", "HAFDBS",
)  # fmt: skip


def rows(page: Path = PAGE) -> list[list[str]]:
    """The cells of each row: section, rule, modules, test."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "§"]


@cache
def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def number(section: str) -> tuple[int, ...]:
    return tuple(int(part) for part in section.split("."))


ROWS = rows()
ROWS_V2 = rows(PAGE_V2)


@pytest.mark.parametrize(("found", "least"), [(ROWS, 200), (ROWS_V2, 60)], ids=["v3", "v2"])
def test_a_page_has_rows_of_four_cells_in_the_order_of_the_sections(found: list[list[str]], least: int) -> None:
    assert len(found) >= least
    assert [row for row in found if len(row) != 4 or not all(row)] == []
    assert [row[0] for row in found if not re.fullmatch(r"\d+(\.\d+)*", row[0])] == []
    sections = [number(row[0]) for row in found]
    assert sections == sorted(sections)
    assert len({(row[0], row[1]) for row in found}) == len(found)


@pytest.mark.parametrize("section", COVERED)
def test_every_chapter_has_its_rules(section: str) -> None:
    found = [row for row in ROWS if row[0] == section or row[0].startswith(f"{section}.")]
    assert len([row for row in found if row[2] != ABSENT]) >= 4


@pytest.mark.parametrize("row", ROWS + ROWS_V2, ids=[f"{row[0]} {row[1]}" for row in ROWS + ROWS_V2])
def test_what_a_row_names_exists(row: list[str]) -> None:
    _, _, modules, shown = row
    if modules == ABSENT:
        assert shown == "–", "what is not modelled has nothing to show"
        return
    for module in modules.split(", "):
        assert re.fullmatch(r"`[\w/]+\.py`", module), module
        package, name = TOP / "vhost_iommu", module.strip("`")
        assert (package / "smmu" / name).is_file() or (package / name).is_file(), module
    for test in shown.split(", "):
        assert re.fullmatch(r"`[\w/]+\.py::test_\w+`", test), test
        path, _, name = test.strip("`").partition("::")
        assert name in names_in(TOP / "tests" / path), f"there is no {name} in {path}"


@pytest.mark.parametrize("feature", WITHOUT)
def test_what_is_not_modelled_is_said(feature: str) -> None:
    assert any(feature in row[1] for row in ROWS if row[2] == ABSENT)


@pytest.mark.parametrize("feature", WITHOUT_V2)
def test_what_is_not_modelled_of_smmuv2_is_said(feature: str) -> None:
    assert any(feature in row[1] for row in ROWS_V2 if row[2] == ABSENT)
