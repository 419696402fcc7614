# SPDX-License-Identifier: Apache-2.0
"""What boot tests share: all of them start a real QEMU, and are marked so."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.places import Place

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.vi_boot)


@pytest.fixture
def place() -> Iterator[Place]:
    """With a short name, for sockets are below it."""
    folder = Path(tempfile.mkdtemp(prefix="vi-"))
    place = Place(folder)
    yield place
    # What a test that failed left there is nobody else's.
    for pid, _ in place.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)
