# SPDX-License-Identifier: Apache-2.0
"""The compiled core: C11 (``core.h``) behind a Cython door (``door.pyx``), built where a C compiler is.

Law: imports nothing of ours; what it answers is what the reference under ``smmu/`` answers.
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

#: Set to anything but 0 it has everything done by the reference.
PURE = "VHOST_IOMMU_PURE"
_SOURCES = (".c", ".h", ".pyx", ".pxd")


def pure() -> bool:
    """Whether the environment asks for the reference."""
    return os.environ.get(PURE, "0") not in ("", "0")


def built() -> ModuleType | None:
    """The door; None: the package was installed without a compiler."""
    try:
        from . import door
    except ImportError:
        return None
    return door


def chosen() -> ModuleType | None:
    """The door, if it is there and the environment does not ask for the reference."""
    return None if pure() else built()


def stale(folder: Path = Path(__file__).parent) -> bool:
    """Whether sources of the core in ``folder``, a checkout's, are newer than what was compiled of them."""
    if not (folder.parents[1] / "hatch_build.py").is_file():
        return False
    changed = max((path.stat().st_mtime for path in folder.rglob("*") if path.suffix in _SOURCES), default=0.0)
    return any(path.stat().st_mtime < changed for path in folder.glob("*.so"))


def ring(pure: bool | None = None) -> Any:
    """Where an instance's records are numbered, in the core's own memory; None: by the model alone.

    ``pure``: what the instance was told; None: as the environment says.
    """
    door = chosen() if pure is None else built()
    return None if door is None else door.Ring()


def lock() -> AbstractContextManager[Any]:
    """A re-entrant lock; the core's own, if it is chosen, which writes that need no interpreter can take too."""
    door = chosen()
    return threading.RLock() if door is None else door.Lock()
