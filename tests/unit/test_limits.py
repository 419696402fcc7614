# SPDX-License-Identifier: Apache-2.0
"""docs/limits.md and the constants that it names are the same numbers, and no bound is left out."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from vhost_iommu import daemon, memory

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "vhost_iommu"
PAGE = (TOP / "docs" / "limits.md").read_text()
ROWS = {name: int(number) for name, number in re.findall(r"^\|[^|]*\| `([\w.]+)` \| (\d+) \|", PAGE, re.MULTILINE)}


@pytest.mark.parametrize("name", ROWS)
def test_each_number_is_its_constants(name: str) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(f"vhost_iommu.{module}"), constant) == ROWS[name]


def test_each_bound_of_a_client_is_on_the_page() -> None:
    bounds = {
        f"{module}.{name}"
        for module in ("daemon", "memory", "server", "vfio.connection", "vfio.pci", "vfio.wire")
        for line in (PACKAGE / f"{module.replace('.', '/')}.py").read_text().splitlines()
        for name in re.findall(r"(?:^|, )((?:MAX|OWN|CLIENT|LOG)_[A-Z_]+)(?=[, A-Z_]* = )", line)
    }
    assert bounds == set(ROWS) - {"shared.OFFSET_ALIGNMENT", "server.SEND_TIMEOUT", "daemon.MAPPINGS"} | {
        "server.MAX_PATH"
    }


def test_as_many_clients_as_the_page_says_fit_into_what_they_share() -> None:
    assert (daemon.MAPPINGS - daemon.OWN_MAPPINGS) // 13 >= memory.MAX_WINDOWS
    assert 30 * memory.MAX_MAPPED < 1 << 47
