# SPDX-License-Identifier: Apache-2.0
"""Both paths of a message, for the tests that serve over sockets."""

from __future__ import annotations

import pytest

from tests.conftest import missing
from vhost_iommu import _core, server

#: Whose servers are threads here, and whose are processes.
THREADS, PROCESSES = {"test_server", "test_daemon", "test_neighbours", "test_wrong_daemon"}, {"test_serve"}


def name_of(module: object) -> str:
    return str(getattr(module, "__name__", "")).rpartition(".")[2]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if name_of(metafunc.module) in THREADS | PROCESSES:
        metafunc.parametrize("path_of_messages", ["python", "pump"], indirect=True)


@pytest.fixture(autouse=True)
def path_of_messages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which way messages go."""
    chosen = getattr(request, "param", None)
    if chosen == "pump" and server.pump is None:
        missing("the compiled pump; install the package again")
    if chosen is not None and name_of(request.module) in PROCESSES:
        monkeypatch.setenv(_core.PURE, "0" if chosen == "pump" else "1")
    elif chosen == "python":
        monkeypatch.setattr(server, "pump", None)
    elif chosen == "pump":
        monkeypatch.delenv(_core.PURE, raising=False)
