# SPDX-License-Identifier: Apache-2.0
"""What puts a recording in step: a read that is answered comes behind every write that nobody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocol.client import TestClient, ram
from vhost_iommu import _core
from vhost_iommu.config import load_machine
from vhost_iommu.daemon import Daemon
from vhost_iommu.guest.recording import Recording
from vhost_iommu.shared import map_file
from vhost_iommu.smmu.v3.commands import CMD_CFGI_STE_RANGE, CMD_SYNC, CMD_TLBI_NSNH_ALL
from vhost_iommu.smmu.v3.registers import CMDQ_BASE, CMDQ_PROD, CR0, IDR0
from vhost_iommu.watch import Accessed

BASE = 0x4000_0000
#: Of commands, log2; and rounds of three commands, each told of by a posted write.
BITS, ROUNDS = 10, 300


@pytest.fixture(params=["core", "reference"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    if request.param == "core":
        request.getfixturevalue("core_is_built")
    monkeypatch.setenv(_core.PURE, str(int(request.param == "reference")))
    made = Daemon(load_machine("smmuv3-bare"), paths=[tmp_path / "s"])
    made.start()
    yield made
    made.stop()
    assert made.failure is None


@pytest.fixture
def client(daemon: Daemon) -> Iterator[TestClient]:
    """Of a machine whose command queue has ROUNDS times three commands that nobody was told of."""
    fd = ram(1 << 20)
    memory = map_file(fd, 0, 1 << 20, readable=True, writable=True).view
    commands = b"".join(each.of().to_bytes() for each in (CMD_TLBI_NSNH_ALL, CMD_CFGI_STE_RANGE, CMD_SYNC))
    memory[: ROUNDS * len(commands)] = commands * ROUNDS
    with TestClient.connect(daemon.sockets[0]) as made:
        made.version()
        made.dma_map(BASE, 1 << 20, fd)
        made.write_int(0, CMDQ_BASE.at, 8, CMDQ_BASE.of(ADDR=BASE, LOG2SIZE=BITS).raw)
        made.write_int(0, CR0.at, 4, CR0.of(CMDQEN=1).raw)
        yield made


def test_a_read_that_is_answered_comes_behind_the_writes_before_it(daemon: Daemon, client: TestClient) -> None:
    with daemon.machine.recording() as watched:
        for number in range(1, ROUNDS + 1):
            client.write_int(0, CMDQ_PROD.at, 4, number * 3, posted=True)
        client.read_int(0, IDR0.at, 4)
        daemon.settle()
    seen = Recording(watched)
    stores = [each for each in seen.of(Accessed) if each.write]
    assert [each.value for each in stores] == [number * 3 for number in range(1, ROUNDS + 1)]
    assert len(seen.commands()) == 3 * ROUNDS
    assert not seen.gaps


def test_what_such_a_write_began_is_recorded_to_its_end(daemon: Daemon, client: TestClient) -> None:
    with daemon.machine.recording() as watched:
        client.write_int(0, CMDQ_PROD.at, 4, 3 * ROUNDS, posted=True)
        client.read_int(0, IDR0.at, 4)
        daemon.settle()
    assert len(Recording(watched).commands()) == 3 * ROUNDS
