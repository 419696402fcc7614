# SPDX-License-Identifier: Apache-2.0
"""One property: whatever bytes and descriptors a client sends, nothing raises and no descriptor leaks."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.protocol.client import Direct, Scratch, TestClient, message, open_fds, ram
from vhost_iommu.vfio import wire
from vhost_iommu.vfio.connection import LOST
from vhost_iommu.vfio.pci import BarMap, PciFunction
from vhost_iommu.vfio.wire import Command

VERSION = message(Command.VERSION, wire.Version.build({"major": 0, "minor": 0}))

small = st.integers(0, 40)
u32 = st.one_of(small, st.sampled_from([0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]), st.integers(0, (1 << 32) - 1))
u64 = st.one_of(small.map(lambda n: n << 12), u32, st.sampled_from([1 << 63, (1 << 64) - 1, (1 << 64) - 4096]))
fd_kinds = st.lists(st.sampled_from(["ram", "file", "event", "pipe", "lost"]), max_size=3)

payloads = {
    Command.VERSION: st.builds(lambda data: bytes(4) + data + b"\0", st.binary(max_size=40)),
    Command.DMA_MAP: st.builds(
        lambda flags, offset, address, size: wire.DmaMap.build(
            {"argsz": 32, "flags": flags, "offset": offset, "address": address, "size": size}
        ),
        st.sampled_from([3, 1, 2, 7, 0, 0xFFFF_FFFF]),
        u64,
        u64,
        u64,
    ),
    Command.DMA_UNMAP: st.builds(
        lambda flags, address, size: wire.DmaUnmap.build(
            {"argsz": 24, "flags": flags, "address": address, "size": size}
        ),
        st.integers(0, 4),
        u64,
        u64,
    ),
    Command.DEVICE_GET_REGION_INFO: st.builds(
        lambda argsz, index: wire.RegionInfo.build(
            {"argsz": argsz, "flags": 0, "index": index, "cap_offset": 0, "size": 0, "offset": 0}
        ),
        u32,
        u32,
    ),
    Command.DEVICE_GET_IRQ_INFO: st.builds(
        lambda argsz, index: wire.IrqInfo.build({"argsz": argsz, "flags": 0, "index": index, "count": 0}),
        u32,
        u32,
    ),
    Command.DEVICE_SET_IRQS: st.builds(
        lambda data, action, index, start, count, bools: (
            wire.IrqSet.build(
                {
                    "argsz": 20 + len(bools),
                    "flags": data | action,
                    "index": index,
                    "start": start,
                    "count": count,
                }
            )
            + bools
        ),
        st.sampled_from([1, 2, 4, 3, 0]),
        st.sampled_from([8, 16, 32, 48]),
        st.integers(0, 5),
        st.one_of(st.integers(0, 4), u32),
        st.one_of(st.integers(0, 4), u32),
        st.binary(max_size=4),
    ),
    Command.REGION_READ: st.builds(
        lambda offset, region, count: wire.REGION_ACCESS.pack(offset, region, count),
        u64,
        st.integers(0, 9),
        u32,
    ),
    Command.REGION_WRITE: st.builds(
        lambda offset, region, data: wire.REGION_ACCESS.pack(offset, region, len(data)) + data,
        st.one_of(st.integers(0, 300), u64),
        st.integers(0, 9),
        st.binary(max_size=20),
    ),
    Command.REGION_WRITE_MULTI: st.builds(
        lambda count, writes: count.to_bytes(8, "little") + b"".join(writes),
        u64,
        st.lists(st.binary(min_size=24, max_size=24), max_size=3),
    ),
}
any_payload = st.one_of(st.binary(max_size=64), *payloads.values())
a_message = st.one_of(
    *(
        st.builds(message, st.just(int(command)), payload, flags=st.sampled_from([0, 0, 0, 0x10]))
        for command, payload in payloads.items()
    ),
    st.builds(message, st.integers(0, 20), any_payload, flags=u32),
    st.builds(message, st.just(12), any_payload, msg_id=small, flags=st.sampled_from([1, 0x21]), error=u32),
    st.builds(message, st.integers(0, 20), any_payload, size=st.one_of(st.integers(0, 200), u32)),
)
valid_start = VERSION + message(Command.REGION_WRITE, wire.REGION_ACCESS.pack(4, wire.Region.CONFIG, 2) + b"\6\0")


@pytest.fixture(scope="module")
def lent() -> Iterator[dict[str, int]]:
    """Descriptors that a client may lend."""
    pipe = os.pipe()
    fds = {"ram": ram(1 << 20), "event": os.eventfd(0, os.EFD_NONBLOCK), "pipe": pipe[0], "other": pipe[1]}
    fds["file"] = ram(1 << 20, sealable=False)
    yield {**fds, "lost": LOST}
    for fd in fds.values():
        os.close(fd)


def converse(pieces: list[tuple[bytes, list[str]]], lent: dict[str, int], *, start: bytes) -> None:
    """Play the pieces to a session, let the device act in between, and check what was spent."""
    before = open_fds()
    function = PciFunction("test", {0: BarMap([(0, Scratch())])}, msix_vectors=4)
    client = TestClient.direct(function)
    transport = client.transport
    assert isinstance(transport, Direct)
    ended: list[bool] = []
    posted = 0
    transport.send(start)
    for data, kinds in pieces:
        transport.send(data, [lent[kind] for kind in kinds])
        function.trigger_msix(1)
        function.trigger_intx(True)
        function.memory.post(0x0808_0040, b"doorbell", ended.append)
        posted += 1
        read = function.memory.read(0, 8)
        assert read is None or len(read) == 8
    event("hung up" if transport.over else "went on")
    transport.close()
    assert len(ended) == posted, "every write ends once"
    assert open_fds() == before, "a file descriptor leaked"
    assert function.memory.windows == ()


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.tuples(st.binary(max_size=100), fd_kinds), max_size=8), valid=st.booleans())
def test_random_bytes_raise_nothing_and_leak_nothing(
    lent: dict[str, int], pieces: list[tuple[bytes, list[str]]], valid: bool
) -> None:
    converse(pieces, lent, start=valid_start if valid else b"")


@settings(max_examples=600, deadline=None)
@given(pieces=st.lists(st.tuples(a_message, fd_kinds), max_size=12))
def test_mutated_messages_raise_nothing_and_leak_nothing(
    lent: dict[str, int], pieces: list[tuple[bytes, list[str]]]
) -> None:
    converse(pieces, lent, start=valid_start)


@settings(max_examples=300, deadline=None)
@given(
    messages=st.lists(a_message, min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    kinds=st.lists(fd_kinds, min_size=1, max_size=8),
)
def test_messages_torn_anywhere_raise_nothing_and_leak_nothing(
    lent: dict[str, int], messages: list[bytes], cuts: list[int], kinds: list[list[str]]
) -> None:
    stream = b"".join(messages)
    pieces: list[tuple[bytes, list[str]]] = []
    while stream:
        cut = cuts[len(pieces) % len(cuts)]
        pieces.append((stream[:cut], kinds[len(pieces) % len(kinds)]))
        stream = stream[cut:]
    converse(pieces, lent, start=valid_start)


def test_the_valid_start_is_one(lent: dict[str, int]) -> None:
    """Otherwise the properties above would hold for a server that refuses all."""
    function = PciFunction("test", {})
    with TestClient.direct(function) as client:
        client.transport.send(valid_start)
        assert client.reply(0)
        assert client.reply(0)
        assert function.bus_master
