# SPDX-License-Identifier: Apache-2.0
"""Where the code that runs in guests is, whether in a checkout or in an installed package."""

from __future__ import annotations

from pathlib import Path

from vhost_iommu.errors import UsageError


def share(name: str = "") -> Path:
    """A file of the code that runs in guests: in a checkout under guest/, in an installed package beside it."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_share/guest", package.parent / "guest"):
        if folder.is_dir():
            return folder / name
    raise UsageError("the package lacks its folder of guest code; install it again")


def checkout() -> Path | None:
    """The top of the source tree, where make works; None in an installed package."""
    top = Path(__file__).resolve().parents[2]
    return top if (top / "Makefile").is_file() and (top / "hatch_build.py").is_file() else None
