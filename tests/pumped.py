# SPDX-License-Identifier: Apache-2.0
"""A block's registers as a client has them from the compiled pump: by messages, one access at a time.

Law: the block is not there; what the pump would ask it for is said to be the block's, and done by whoever asks.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

from vhost_iommu import server
from vhost_iommu.mmio import Mirrored
from vhost_iommu.vfio import wire
from vhost_iommu.vfio.wire import Command

TIMEOUT = 60
#: Bytes of registers that a block may have here.
MOST = 1 << 20


class Pumped:
    """One client of one block, and its connection: the first message that is no access ends a conversation."""

    name = "pumped"
    regions = ()
    partial = False

    def __init__(self, device: Mirrored) -> None:
        assert server.pump is not None
        #: None: the block has none now.
        self.mirror = device.mirror(server.pump.Mirror)
        self._lock = threading.Lock()
        self._handed_on = False
        #: Posted writes that were sent, and not asked for yet.
        self._posted = 0
        self._client, self._server = socket.socketpair()
        self._wire = server.pump.Wire(self._server.fileno(), TIMEOUT, self._unsent)
        blocks: list[Any] = [(0, 0, MOST, self, self.mirror)]
        self._pump = server.pump.Pump(self._server.fileno(), self._wire, blocks, 0.0)

    def __del__(self) -> None:
        self._client.close()
        self._server.close()

    def load(self, offset: int, size: int) -> int | None:
        """What a read returns that is answered without the block; None: that is the block's."""
        answer = self._access(Command.REGION_READ, offset, size, b"")
        return None if self._handed_on else int.from_bytes(answer, "little")

    def carry_out(self, offset: int, value: int) -> bool:
        """Whether a write of 4 bytes is carried out without the block."""
        self._access(Command.REGION_WRITE, offset, 4, value.to_bytes(4, "little"))
        return not self._handed_on

    def post(self) -> bool:
        """Whether a posted write was sent since this was asked last."""
        posted, self._posted = self._posted, 0
        return bool(posted)

    # -- what the pump has of us -----------------------------------------------------------------------------

    def read(self, _offset: int, _size: int) -> int:
        self._handed_on = True
        return 0

    def write(self, _offset: int, _size: int, _value: int) -> None:
        self._handed_on = True

    def may_post(self) -> bool:
        return True

    def feed(self, _message: memoryview, _fds: list[int]) -> bool:
        return False

    def _unsent(self, problem: int) -> None:
        raise AssertionError(problem)

    # -- the client -------------------------------------------------------------------------------------------

    def _access(self, command: Command, offset: int, size: int, data: bytes) -> bytes:
        with self._lock:
            self._handed_on = False
            length = wire.ACCESS.size + len(data)
            self._client.sendall(
                wire.ACCESS.pack(1, command, length, 0, 0, offset, 0, size)
                + data
                + wire.HEADER.pack(2, Command.DEVICE_RESET, wire.HEADER_SIZE, 0, 0)
            )
            ended = self._pump.converse(self)
            assert ended is None, ended
            stream, answer = self._client.recv(1 << 16), None
            while stream:
                number, said, length, _flags, error = wire.HEADER.unpack_from(stream)
                assert not error
                if said == Command.DMA_WRITE:
                    self._posted += 1
                else:
                    assert (number, said) == (1, command)
                    answer = stream[wire.ACCESS.size : length]
                stream = stream[length:]
            assert answer is not None
            return answer
