# SPDX-License-Identifier: Apache-2.0
"""The pages under docs/reference/ say what the declarations say, and --check notices when they do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vhost_iommu import reference
from vhost_iommu.guest.share import checkout
from vhost_iommu.lab.control import COMMANDS
from vhost_iommu.masters import engine
from vhost_iommu.smmu import descriptors
from vhost_iommu.smmu.msm import records as msm_records
from vhost_iommu.smmu.msm import registers as msm_registers
from vhost_iommu.smmu.v2 import records as v2_records
from vhost_iommu.smmu.v2 import registers as v2_registers
from vhost_iommu.smmu.v3 import commands, events, pmcg_registers, registers, structures

MODULES = {
    "msm-registers.md": msm_registers,
    "msm-faults.md": msm_records,
    "smmuv2-registers.md": v2_registers,
    "smmuv2-faults.md": v2_records,
    "smmuv3-registers.md": registers,
    "smmuv3-pmcg.md": pmcg_registers,
    "smmuv3-commands.md": commands,
    "smmuv3-events.md": events,
    "smmuv3-structures.md": structures,
    "smmuv3-descriptors.md": descriptors,
    "engine-registers.md": engine,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert reference.main([str(tmp_path)]) == 0
    return tmp_path


def test_the_control_sockets_page_is_current_and_has_every_command() -> None:
    if checkout() is None:
        pytest.skip("docs/reference is not part of an installed package")
    page = (reference.FOLDER / reference.CONTROL_PAGE).read_text(encoding="utf-8")
    assert page == reference.control(), "run python -m vhost_iommu.reference"
    assert all(f"### {name}\n" in page for name in COMMANDS)


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_committed_page_is_current(name: str) -> None:
    if checkout() is None:
        pytest.skip("docs/reference is not part of an installed package")
    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.text(reference.PAGES[name]), (
        "run python -m vhost_iommu.reference"
    )


def test_fresh_pages_pass_the_check(folder: Path) -> None:
    assert reference.main([str(folder), "--check"]) == 0


def test_an_edited_page_fails_the_check_and_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "smmuv3-events.md"
    page.write_text(page.read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    assert reference.main([str(folder), "--check"]) == 1
    assert "smmuv3-events.md is stale" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8").endswith("more\n")


def test_a_missing_page_fails_the_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "smmuv3-commands.md").unlink()
    assert reference.main([str(folder), "--check"]) == 1
    assert "smmuv3-commands.md is stale" in capsys.readouterr().err


@pytest.mark.parametrize("name", reference.PAGES)
def test_every_layout_and_field_is_on_its_page(name: str) -> None:
    text = reference.text(reference.PAGES[name])
    for cls in MODULES[name].LAYOUTS:
        section = text.split(f"\n## {cls.__name__}\n")[1].split("\n## ")[0]
        rows = re.findall(r"^\| ([\d:]+) \| `(\w+)`", section, re.MULTILINE)
        assert rows == [(f.bits[1:-1], f.name) for f in cls.fields]


@pytest.mark.parametrize("name", reference.PAGES)
def test_links_lead_to_headings_of_the_same_page(name: str) -> None:
    text = reference.text(reference.PAGES[name])
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = ["".join(c for c in h.lower().replace(" ", "-") if c.isalnum() or c in "-_") for h in headings]
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(anchors)


@pytest.mark.parametrize("name", reference.PAGES)
def test_tables_have_as_many_cells_in_every_row_as_in_their_head(name: str) -> None:
    width = 0
    for row in reference.text(reference.PAGES[name]).splitlines():
        if not row.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", row))
        assert width in (0, cells), row
        width = cells
