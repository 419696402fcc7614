# SPDX-License-Identifier: Apache-2.0
"""A daemon that is slow or dead for one client on purpose: the other's messages and threads are as ever."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.protocol.client import Scratch, SocketTransport, TestClient, open_fds
from tests.protocol.test_server import eventually
from vhost_iommu.errors import UsageError
from vhost_iommu.lab.faults import Fault, Lab
from vhost_iommu.server import Server
from vhost_iommu.vfio.pci import BarMap, PciFunction
from vhost_iommu.vfio.wire import Command, Region

#: Longer than any test: who waits for so long has waited for its end.
LONG = 3600


class Pair:
    """A client whose daemon is wrong, and its neighbour."""

    def __init__(self, folder: Path, socket: Callable[[], float | None]) -> None:
        self.functions = [PciFunction(name, {0: BarMap([(0, Scratch())])}) for name in ("bad", "good")]
        self.functions[0].socket = socket
        self.server = Server()
        self.path, path = [folder / function.name for function in self.functions]
        for function in self.functions:
            self.server.add(function, path=folder / function.name)
        self.server.start()
        self.bad, self.good = TestClient.connect(self.path), TestClient.connect(path)

    def check(self) -> None:
        self.good.write_int(0, 8, 4, 0xFEED)
        assert self.good.read_int(0, 8, 4) == 0xFEED
        assert self.server.failure is None

    def again(self) -> TestClient:
        """Another client in the place of the first."""
        self.bad.close()
        self.bad = TestClient.connect(self.path)
        self.bad.version()
        return self.bad


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[[str], Pair]]:
    before = open_fds()
    made: list[Pair] = []

    def make(fault: str) -> Pair:
        lab = Lab([Fault.parse(fault)])
        lab.seams("smmu0")
        socket = lab.socket("smmu0")
        assert socket is not None
        made.append(Pair(tmp_path, socket))
        made[0].good.version()
        return made[0]

    yield make
    for each in made:
        assert each.server.stop(), "a thread has not ended"
        assert each.server.failure is None
        each.bad.close()
        each.good.close()
    assert open_fds() == before, "a file descriptor leaked"


def test_a_slow_daemon_carries_out_late_and_its_neighbour_at_once(pair: Callable[[str], Pair]) -> None:
    two = pair(f"slow-daemon seconds={LONG} after=2")
    two.bad.version()
    two.bad.write_int(0, 0, 4, 1)
    two.bad.send(Command.DEVICE_GET_INFO)
    for _ in range(3):
        two.check()


def test_each_message_of_a_slow_daemon_is_answered_after_all(pair: Callable[[str], Pair]) -> None:
    two = pair("slow-daemon seconds=0.01 count=0")
    two.bad.version()
    two.bad.write_int(0, 0, 4, 77)
    assert two.bad.read_int(0, 0, 4) == 77
    two.check()


def test_a_client_that_leaves_while_it_waits_makes_room_for_the_next(pair: Callable[[str], Pair]) -> None:
    two = pair(f"slow-daemon seconds={LONG} after=1")
    two.bad.version()
    two.bad.send(Command.DEVICE_GET_INFO)
    assert two.again().device_info()
    two.check()


def test_a_dead_daemon_closes_the_connection_before_it_carries_a_message_out(pair: Callable[[str], Pair]) -> None:
    two = pair("dead-daemon after=2")
    two.bad.version()
    two.bad.write_int(0, 0, 4, 1)
    with pytest.raises(ConnectionError):
        two.bad.write_int(0, 0, 4, 2)
    two.check()
    assert two.again().read_int(0, 0, 4) == 1, "the function is as it was, for whoever comes next"


def test_a_silent_daemon_neither_answers_nor_sends(pair: Callable[[str], Pair]) -> None:
    two = pair("dead-daemon how=silent after=2")
    two.bad.version()
    two.bad.write_int(Region.CONFIG, 4, 2, 4)  # it may send interrupts
    two.bad.send(Command.DEVICE_GET_INFO)
    two.bad.send(Command.DEVICE_GET_INFO)
    two.check()
    assert eventually(lambda: any(channel._mute for channel in two.server._channels.values()))
    two.functions[0].memory.post(0x0808_0040, bytes(4), lambda aborted: None)
    transport = two.bad.transport
    assert isinstance(transport, SocketTransport)
    transport.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        transport.receive(1)
    two.check()


def test_what_would_be_asked_too_late_is_refused(pair: Callable[[str], Pair]) -> None:
    two = pair("slow-daemon after=1000")
    with pytest.raises(UsageError, match="'socket' of good comes too late: set it before a client is there"):
        two.functions[1].socket = lambda: None
    two.check()


def test_a_daemon_is_wrong_for_as_long_as_the_seam_says(tmp_path: Path) -> None:
    said = iter([0.0, 0.0, math.inf])
    two = Pair(tmp_path, lambda: next(said))
    try:
        two.bad.version()
        assert two.bad.device_info()
        two.bad.send(Command.DEVICE_GET_INFO)
    finally:
        assert two.server.stop()
        two.bad.close()
        two.good.close()
