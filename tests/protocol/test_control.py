# SPDX-License-Identifier: Apache-2.0
"""The control socket of a served machine: who may talk to it, what it answers, and what a hostile client achieves."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from qemu.qmp import QMPClient

from vhost_iommu.config import load_machine
from vhost_iommu.daemon import Daemon

TIMEOUT = 60


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    daemon = Daemon(load_machine("smmuv3-bare"), tmp_path, control=tmp_path / "control.sock")
    daemon.start()
    try:
        yield tmp_path / "control.sock"
    finally:
        daemon.stop()
    assert daemon.failure is None
    assert list(tmp_path.iterdir()) == []


def test_the_qmp_client_of_qemu_talks_to_it(socket_path: Path) -> None:
    async def talk() -> object:
        client = QMPClient("test")
        await client.connect(str(socket_path))
        try:
            return await client.execute("query-status")
        finally:
            await client.disconnect()

    status = asyncio.run(asyncio.wait_for(talk(), TIMEOUT))
    assert status == {"machine": "smmuv3-bare", "instances": ["smmu0"]}


def test_it_is_this_users_alone(socket_path: Path) -> None:
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
