# SPDX-License-Identifier: Apache-2.0
"""Client and session back to back: every command that QEMU sends, and every mistake a client can make in one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.protocol.client import (
    QEMU_CAPABILITIES,
    Direct,
    RefusedError,
    Scratch,
    TestClient,
    message,
    open_fds,
    ram,
)
from vhost_iommu import _core, shared
from vhost_iommu.vfio import wire
from vhost_iommu.vfio.pci import BarMap, PciFunction
from vhost_iommu.vfio.wire import Command, DmaFlags, Flags, Irq, IrqSetFlags, Region

MiB = 1 << 20
DOORBELL = 0x0808_0040


@pytest.fixture
def block() -> Scratch:
    return Scratch()


@pytest.fixture
def function(block: Scratch) -> PciFunction:
    return PciFunction("test", {0: BarMap([(0, block)])}, msix_vectors=4)


@pytest.fixture
def client(function: PciFunction) -> Iterator[TestClient]:
    before = open_fds()
    with TestClient.direct(function) as made:
        made.version()
        yield made
    assert open_fds() == before, "a file descriptor leaked"


def complaints(client: TestClient) -> list[str]:
    assert isinstance(client.transport, Direct)
    return client.transport.complaints


def refused(client: TestClient, command: int, payload: bytes, fds: list[int] | None = None) -> int:
    """The errno with which a command is refused."""
    with pytest.raises(RefusedError) as caught:
        client.call(command, payload, fds or [])
    return caught.value.errno


# -- VERSION -----------------------------------------------------------------------------------------------------


def test_the_version_reply_to_qemu_is_no_longer_than_its_request(function: PciFunction) -> None:
    with TestClient.direct(function) as client:
        reply = client.version(0, 0)
        assert (reply.major, reply.minor) == (0, 0)
        assert reply.capabilities["max_msg_fds"] <= 16
        assert reply.capabilities["write_multiple"] is True
        size = wire.HEADER_SIZE + 4 + len(str({"capabilities": reply.capabilities}))
        assert size < 214


def test_only_proposed_capabilities_are_agreed(function: PciFunction) -> None:
    for proposed in ({}, {"max_dma_maps": 10}, {"write_multiple": False}, {"twin_socket": {"supported": True}}):
        with TestClient.direct(function) as client:
            agreed = client.version(0, 1, proposed).capabilities
            assert set(agreed) <= set(proposed) - {"write_multiple", "twin_socket"}


def test_the_lower_minor_version_is_agreed(function: PciFunction) -> None:
    for proposed, agreed in ((0, 0), (1, 1), (9, 1)):
        with TestClient.direct(function) as client:
            assert client.version(0, proposed).minor == agreed


def test_version_data_may_be_absent(function: PciFunction) -> None:
    with TestClient.direct(function) as client:
        assert client.call(Command.VERSION, wire.Version.build({"major": 0, "minor": 1}))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",  # no NUL
        b"{\0",
        b"[]\0",
        b"17\0",
        b"null\0",
        b"\xff\xfe\0",
        b"[" * 200_000 + b"\0",
        b'{"capabilities": []}\0',
        b'{"capabilities": {"max_msg_fds": "many"}}\0',
        b'{"capabilities": {"max_msg_fds": -1}}\0',
        b'{"capabilities": {"max_data_xfer_size": true}}\0',
        b'{"capabilities": {"write_multiple": 1}}\0',
        b'{"capabilities": {"max_dma_maps": ' + b"9" * 5000 + b"}}\0",
    ],
)
def test_a_version_that_cannot_be_read_ends_the_conversation(function: PciFunction, data: bytes) -> None:
    with TestClient.direct(function) as client:
        version = wire.Version.build({"major": 0, "minor": 0})
        assert refused(client, Command.VERSION, version + data) == errno.EINVAL
        assert isinstance(client.transport, Direct)
        assert client.transport.over


def test_another_major_version_ends_the_conversation(function: PciFunction) -> None:
    with TestClient.direct(function) as client:
        with pytest.raises(RefusedError):
            client.version(1, 0)
        with pytest.raises(ConnectionError):
            client.device_info()


def test_nothing_is_served_before_the_version(function: PciFunction) -> None:
    with TestClient.direct(function) as client:
        for command in set(Command) - {Command.VERSION}:
            assert refused(client, command, bytes(32)) == errno.ENOSYS
        client.version()
        assert client.device_info().num_regions == 9


def test_a_second_version_is_refused(client: TestClient) -> None:
    assert refused(client, Command.VERSION, bytes(4)) == errno.EINVAL
    assert client.device_info().num_irqs == 5


# -- what the device is ----------------------------------------------------------------------------------------------


def test_the_device_is_a_pci_device_that_can_be_reset(client: TestClient) -> None:
    info = client.device_info()
    assert (info.argsz, info.flags, info.num_regions, info.num_irqs) == (16, 3, 9, 5)


def test_every_region_is_told_even_those_without_size(client: TestClient) -> None:
    sizes = {index: client.region_info(index).size for index in range(9)}
    assert sizes == {0: 0x1000, 4: 0x2000, Region.CONFIG: 256} | dict.fromkeys((1, 2, 3, 5, 6, 8), 0)
    info = client.region_info(0, argsz=64)
    assert (info.argsz, info.flags, info.index, info.cap_offset) == (32, 3, 0, 0)


def test_interrupt_types_are_told(client: TestClient) -> None:
    assert [client.irq_info(index).count for index in range(5)] == [1, 0, 4, 1, 1]
    assert client.irq_info(Irq.MSIX).argsz == 16


def test_no_region_has_io_descriptors(client: TestClient) -> None:
    query = wire.RegionIoFds.build({"argsz": 16, "flags": 0, "index": 0, "count": 0})
    assert client.call(Command.DEVICE_GET_REGION_IO_FDS, query) == query


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (Command.DEVICE_GET_INFO, bytes(15)),
        (Command.DEVICE_GET_INFO, wire.DeviceInfo.build({"argsz": 15, "flags": 0, "num_regions": 0, "num_irqs": 0})),
        (Command.DEVICE_GET_REGION_INFO, b"\x20" + bytes(30)),
        (Command.DEVICE_GET_REGION_INFO, b"\x1f" + bytes(31)),
        (Command.DEVICE_GET_REGION_INFO, b"\x20" + bytes(7) + b"\x09" + bytes(23)),
        (Command.DEVICE_GET_REGION_INFO, b"\x20" + bytes(7) + b"\xff\xff\xff\xff" + bytes(20)),
        (Command.DEVICE_GET_IRQ_INFO, b"\x10" + bytes(7) + b"\x05" + bytes(7)),
        (Command.DEVICE_GET_REGION_IO_FDS, b"\x10" + bytes(7) + b"\x09" + bytes(7)),
        (Command.DEVICE_GET_REGION_IO_FDS, b"\x10" + bytes(11) + b"\x01" + bytes(3)),
        (Command.DEVICE_SET_IRQS, bytes(19)),
        (Command.DEVICE_SET_IRQS, b"\x13" + bytes(19)),
        (Command.DEVICE_SET_IRQS, b"\xff" + bytes(19)),
        (Command.DEVICE_FEATURE, bytes(7)),
        (Command.DMA_MAP, bytes(31)),
        (Command.DMA_UNMAP, bytes(23)),
        (Command.REGION_READ, bytes(15)),
        (Command.REGION_READ, bytes(17)),
        (Command.REGION_WRITE, bytes(15)),
        (Command.REGION_WRITE, bytes(17)),
        (Command.REGION_WRITE_MULTI, bytes(7)),
    ],
)
def test_a_malformed_payload_is_refused_and_nothing_else_happens(
    client: TestClient, command: int, payload: bytes
) -> None:
    assert refused(client, command, payload) == errno.EINVAL
    assert client.device_info().num_regions == 9


@pytest.mark.parametrize(
    "command",
    [
        Command.DMA_READ,
        Command.DMA_WRITE,
        Command.DIRTY_PAGES,
        Command.MIG_DATA_READ,
        Command.MIG_DATA_WRITE,
    ],
)
def test_what_we_do_not_do_is_refused_honestly(client: TestClient, command: int) -> None:
    assert refused(client, command, bytes(64)) == errno.ENOTSUP


def test_no_device_feature_is_there_to_probe(client: TestClient) -> None:
    for feature in (1, 2, 6, 7, 8, 99):
        probe = wire.DeviceFeature.build({"argsz": 8, "flags": wire.FeatureFlags.PROBE | feature})
        assert refused(client, Command.DEVICE_FEATURE, probe) == errno.ENOTSUP


# -- region accesses -----------------------------------------------------------------------------------------------


def test_registers_read_back_what_was_written(client: TestClient, block: Scratch) -> None:
    client.write_int(0, 0x20, 4, 0x1234_5678)
    assert client.read_int(0, 0x20, 4) == 0x1234_5678
    assert block.accesses == [("write", 0x20, 4), ("read", 0x20, 4)]


def test_a_posted_write_is_done_before_the_read_that_follows(client: TestClient) -> None:
    for value in range(100):
        client.write_int(0, 8, 8, value, posted=True)
    assert client.read_int(0, 8, 8) == 99


def test_all_of_configuration_space_is_read_in_one_message(client: TestClient, function: PciFunction) -> None:
    assert client.read(Region.CONFIG, 0, 256) == function.read(Region.CONFIG, 0, 256)


def test_a_large_transfer_works_and_a_larger_one_is_refused() -> None:
    block = Scratch(size=2 * MiB)
    with TestClient.direct(PciFunction("large", {0: BarMap([(0, block)])})) as client:
        client.version()
        data = os.urandom(MiB)
        client.write(0, 8, data)
        assert client.read(0, 8, MiB) == data
        request = wire.REGION_ACCESS.pack(0, 0, MiB + 1)
        assert refused(client, Command.REGION_READ, request) == errno.E2BIG


@pytest.mark.parametrize(
    ("region", "offset", "count"),
    [(0, 0x1000, 1), (0, 0xFFD, 4), (0, (1 << 64) - 4, 8), (1, 0, 4), (9, 0, 4), (0xFFFF_FFFF, 0, 4)],
)
def test_an_access_out_of_bounds_is_refused(
    client: TestClient, block: Scratch, region: int, offset: int, count: int
) -> None:
    request = wire.REGION_ACCESS.pack(offset, region, count)
    assert refused(client, Command.REGION_READ, request) == errno.EINVAL
    assert refused(client, Command.REGION_WRITE, request + bytes(count)) == errno.EINVAL
    client.send(Command.REGION_WRITE, request + bytes(count), flags=Flags.NO_REPLY)
    assert client.device_info().num_regions == 9, "the posted write had no reply"
    assert block.accesses == []


def test_the_writes_of_one_message_are_all_done_in_order(client: TestClient, block: Scratch) -> None:
    client.write_multi([(0, 0, b"\1\2\3\4"), (0, 8, b"abcdefgh"), (0, 0, b"\5\6")])
    client.write_multi([(0, 0x10, b"\7")], posted=False)
    assert client.read(0, 0, 17) == b"\5\6\3\4" + bytes(4) + b"abcdefgh" + b"\7"
    assert [access[0] for access in block.accesses[:4]] == ["write"] * 4


def test_a_bad_write_among_several_is_reported_and_the_others_done(client: TestClient) -> None:
    writes = [(0, 0, b"a"), (7, 0xFFFF, b"b"), (0, 1, b"c")]
    with pytest.raises(RefusedError):
        client.write_multi(writes, posted=False)
    assert client.read(0, 0, 2) == b"ac"
    entry = wire.SINGLE_WRITE.pack(0, 0, 9, b"")
    assert refused(client, Command.REGION_WRITE_MULTI, b"\1" + bytes(7) + entry) == errno.EINVAL
    for count in (0, 2, 1 << 63):
        payload = wire.WriteMulti.build({"wr_cnt": count}) + entry
        assert refused(client, Command.REGION_WRITE_MULTI, payload) == errno.EINVAL


def test_reset_reaches_the_registers(client: TestClient, block: Scratch) -> None:
    client.write_int(Region.CONFIG, 4, 2, 6)
    client.reset()
    assert block.resets == 1
    assert client.read_int(Region.CONFIG, 4, 2) == 0


# -- guest memory ----------------------------------------------------------------------------------------------------


@pytest.fixture
def guest_ram() -> Iterator[int]:
    fd = ram(MiB)
    yield fd
    os.close(fd)


def test_memory_with_a_descriptor_is_shared_both_ways(
    client: TestClient, function: PciFunction, guest_ram: int
) -> None:
    client.dma_map(0x4000_0000, 0x80000, guest_ram, offset=0x1000)
    os.pwrite(guest_ram, b"from the guest", 0x1000)
    assert function.memory.read(0x4000_0000, 14) == b"from the guest"
    assert function.memory.write(0x4000_0010, b"to the guest")
    assert os.pread(guest_ram, 12, 0x1010) == b"to the guest"
    client.dma_unmap(0x4000_0000, 0x80000)
    assert function.memory.read(0x4000_0000, 14) is None


def test_read_only_memory_is_not_written(client: TestClient, function: PciFunction, guest_ram: int) -> None:
    client.dma_map(0, MiB, guest_ram, flags=DmaFlags.READ)
    assert function.memory.read(0, 4) == bytes(4)
    assert not function.memory.write(0, b"no")


def test_memory_without_a_descriptor_aborts_and_one_line_names_the_mend(
    client: TestClient, function: PciFunction, guest_ram: int
) -> None:
    client.dma_map(0x4000_0000, MiB)
    client.dma_map(0x5000_0000, MiB)
    assert function.memory.read(0x4000_0000, 4) is None
    assert not function.memory.write(0x4000_0000, b"data")
    (line,) = complaints(client)
    assert "memory-backend-memfd" in line
    assert "share=on" in line
    assert "0x40000000" in line


def test_memory_that_may_be_cut_short_is_accepted_and_one_line_names_the_danger_and_the_mend(
    client: TestClient, function: PciFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_core.PURE, "1")
    monkeypatch.setattr(shared, "kernel_copies", lambda: False)
    fd = ram(2 * MiB, sealable=False)
    client.dma_map(0x4000_0000, MiB, fd)
    client.dma_map(0x5000_0000, MiB, fd, MiB)
    assert function.memory.write(0x5000_0000, b"data")
    (line,) = complaints(client)
    assert "SIGBUS" in line
    assert "memory-backend-memfd" in line
    assert "0x40000000" in line
    os.close(fd)


def test_a_peers_bar_without_a_descriptor_is_accepted_silently(
    client: TestClient, function: PciFunction, guest_ram: int
) -> None:
    client.dma_map(0x4000_0000, MiB, guest_ram)
    client.dma_map(0x1000_0000, 0x8000)
    client.dma_map(0x1000_8000, 0x3000)
    assert len(function.memory.windows) == 3
    assert complaints(client) == []


def test_unmapping_all_unmaps_all(client: TestClient, function: PciFunction, guest_ram: int) -> None:
    client.dma_map(0, 0x1000, guest_ram)
    client.dma_map(0x1000, 0x1000)
    client.dma_unmap_all()
    assert function.memory.windows == ()
    client.dma_unmap_all()


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({"address": 0x1000}, errno.EEXIST),
        ({"address": 0, "size": 0x10000}, errno.EEXIST),
        ({"size": 0}, errno.EINVAL),
        ({"address": (1 << 64) - 0x1000, "size": 0x2000}, errno.EINVAL),
        ({"size": (1 << 64) - 1}, None),
        ({"size": 1 << 62}, None),
        ({"size": 2 * MiB}, errno.ENXIO),
        ({"offset": MiB - 0x800}, errno.EINVAL),
        ({"offset": MiB}, errno.ENXIO),
        ({"offset": (1 << 64) - 0x1000}, None),
        ({"flags": 0}, errno.EINVAL),
        ({"flags": 8 | 3}, errno.EINVAL),
        ({"argsz": 31}, errno.EINVAL),
    ],
)
def test_a_bad_map_is_refused_and_maps_nothing(
    client: TestClient, function: PciFunction, guest_ram: int, fields: dict[str, int], number: int | None
) -> None:
    client.dma_map(0x1000, 0x1000, guest_ram)
    request = {"argsz": 32, "flags": 3, "offset": 0, "address": 0x10_0000, "size": 0x1000, **fields}
    got = refused(client, Command.DMA_MAP, wire.DmaMap.build(request), [guest_ram])
    assert got == number or number is None
    assert len(function.memory.windows) == 1


def test_two_descriptors_or_the_wrong_kind_are_refused(client: TestClient, guest_ram: int) -> None:
    request = wire.DmaMap.build({"argsz": 32, "flags": 3, "offset": 0, "address": 0, "size": 0x1000})
    assert refused(client, Command.DMA_MAP, request, [guest_ram, guest_ram]) == errno.EINVAL
    event = os.eventfd(0)
    assert refused(client, Command.DMA_MAP, request, [event]) == errno.ENODEV
    os.close(event)


@pytest.mark.parametrize("window", [(0x1000, 0x800), (0, 0x1000), (0x1800, 0x800), (0x1000, 0x2000)])
def test_an_unmap_must_match_a_map_exactly(client: TestClient, guest_ram: int, window: tuple[int, int]) -> None:
    client.dma_map(0x1000, 0x1000, guest_ram)
    with pytest.raises(RefusedError) as caught:
        client.dma_unmap(*window)
    assert caught.value.errno == errno.ENOENT
    client.dma_unmap(0x1000, 0x1000)


def test_unmap_flags_that_we_cannot_honour_are_refused(client: TestClient) -> None:
    for flags, address, number in ((1, 0, errno.ENOTSUP), (4, 0, errno.ENOTSUP), (2, 0x1000, errno.EINVAL)):
        request = wire.DmaUnmap.build({"argsz": 24, "flags": flags, "address": address, "size": 0})
        assert refused(client, Command.DMA_UNMAP, request) == number


def test_windows_are_bounded(client: TestClient, function: PciFunction) -> None:
    function.memory.most = 5
    for at in range(5):
        client.dma_map(at << 12, 0x1000)
    with pytest.raises(RefusedError) as caught:
        client.dma_map(5 << 12, 0x1000)
    assert caught.value.errno == errno.ENOSPC


# -- interrupts --------------------------------------------------------------------------------------------------------


def test_an_interrupt_arrives_at_the_clients_eventfd(client: TestClient, function: PciFunction) -> None:
    events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    client.set_irqs(Irq.MSIX, IrqSetFlags.DATA_EVENTFD | IrqSetFlags.ACTION_TRIGGER, 0, 4)
    client.assign_irqs(Irq.MSIX, events[:2])
    client.assign_irqs(Irq.MSIX, events[2:], start=2)
    function.trigger_msix(3)
    assert os.eventfd_read(events[3]) == 1
    client.disable_irqs(Irq.MSIX)
    function.trigger_msix(3)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(events[3])
    for fd in events:
        os.close(fd)


def test_start_and_count_that_overflow_are_refused(client: TestClient) -> None:
    for start, count in ((0xFFFF_FFFF, 1), (1, 0xFFFF_FFFF), (0x8000_0000, 0x8000_0000)):
        with pytest.raises(RefusedError):
            client.set_irqs(Irq.MSIX, IrqSetFlags.DATA_NONE | IrqSetFlags.ACTION_MASK, start, count)


# -- writes that leave guest RAM ---------------------------------------------------------------------------------------


def post(function: PciFunction, data: bytes = b"\x2a\0\0\0", pa: int = DOORBELL) -> list[bool]:
    """Whether the write aborted, once it has ended."""
    ended: list[bool] = []
    function.memory.post(pa, data, ended.append)
    return ended


def test_a_doorbell_is_rung_by_message_once_the_function_masters_the_bus(
    client: TestClient, function: PciFunction
) -> None:
    assert post(function) == [True], "COMMAND.BusMaster is clear"
    client.write_int(Region.CONFIG, 4, 2, 4)
    ended = post(function)
    assert ended == []
    assert client.wait_dma_write() == (DOORBELL, b"\x2a\0\0\0")
    assert ended == [False]


def test_a_refused_doorbell_aborts_when_the_reply_comes(client: TestClient, function: PciFunction) -> None:
    client.write_int(Region.CONFIG, 4, 2, 4)
    client.answer = lambda address, data: errno.ENODEV
    ended = post(function)
    assert ended == []
    client.wait_dma_write()
    assert ended == [True]


def test_a_peers_bar_is_written_by_message(client: TestClient, function: PciFunction) -> None:
    client.write_int(Region.CONFIG, 4, 2, 4)
    client.dma_map(0x1000_0000, 0x1000)
    client.dma_map(0x2000_0000, 0x1000, flags=DmaFlags.READ)
    assert post(function, b"peer", 0x1000_0010) == []
    assert client.wait_dma_write() == (0x1000_0010, b"peer")
    assert post(function, b"peer", 0x2000_0010) == [True]


def test_a_write_larger_than_the_client_takes_aborts(function: PciFunction) -> None:
    with TestClient.direct(function) as client:
        client.version(capabilities={**QEMU_CAPABILITIES, "max_data_xfer_size": 8})
        client.write_int(Region.CONFIG, 4, 2, 4)
        assert post(function, bytes(8)) == []
        assert post(function, bytes(9)) == [True]


def test_what_waits_for_a_client_aborts_when_it_goes(function: PciFunction) -> None:
    client = TestClient.direct(function)
    client.version()
    client.write_int(Region.CONFIG, 4, 2, 4)
    ended = post(function)
    client.close()
    assert ended == [True]
    assert post(function) == [True]


def test_a_client_that_never_answers_costs_bounded_memory(client: TestClient, function: PciFunction) -> None:
    client.write_int(Region.CONFIG, 4, 2, 4)
    ends = [post(function) for _ in range(5000)]
    sent = ends.count([])
    assert 0 < sent <= 1024
    assert ends == [[]] * sent + [[True]] * (5000 - sent), "the oldest were sent"


# -- the end -----------------------------------------------------------------------------------------------------------


def test_the_devices_state_outlives_its_client_and_what_it_lent_does_not(
    function: PciFunction, block: Scratch, guest_ram: int
) -> None:
    before = open_fds()
    event = os.eventfd(0, os.EFD_NONBLOCK)
    with TestClient.direct(function) as first:
        first.version()
        first.dma_map(0, MiB, guest_ram)
        first.assign_irqs(Irq.MSIX, [event])
        first.write_int(0, 0, 4, 0xCAFE)
        first.write_int(Region.CONFIG, 0x3C, 1, 42)
    os.close(event)
    assert open_fds() == before
    assert function.memory.windows == ()
    with TestClient.direct(function) as second:
        second.version()
        assert second.read_int(0, 0, 4) == 0xCAFE
        assert second.read_int(Region.CONFIG, 0x3C, 1) == 42
        assert block.resets == 0
        second.dma_map(0, MiB, guest_ram)


def test_descriptors_where_none_belong_are_closed(client: TestClient, guest_ram: int) -> None:
    held = open_fds()
    for command in Command:
        client.send(command, bytes(32), [guest_ram, guest_ram], flags=Flags.NO_REPLY)
    assert open_fds() == held
    client.transport.send(message(Command.DMA_WRITE, flags=Flags.REPLY), [guest_ram])
    assert open_fds() == held


def test_the_whole_start_of_qemu_passes_without_a_complaint(function: PciFunction, guest_ram: int) -> None:
    client: Any = TestClient.direct(function)
    client.version()
    client.dma_map(0x4000_0000, MiB, guest_ram)
    client.device_info()
    for index in (0, 1, 2, 3, 4, 5, 7):
        client.region_info(index)
    client.irq_info(Irq.ERR)
    client.irq_info(Irq.MSIX)
    client.read(Region.CONFIG, 0, 256)
    client.write_int(Region.CONFIG, 0x30, 4, 0xFFFF_F800)
    assert client.read_int(Region.CONFIG, 0x30, 4) == 0
    event = os.eventfd(0, os.EFD_NONBLOCK)
    client.assign_irqs(Irq.INTX, [event])
    client.assign_irqs(Irq.ERR, [event])
    client.disable_irqs(Irq.INTX)
    client.write_int(Region.CONFIG, 4, 2, client.read_int(Region.CONFIG, 4, 2) & ~7)
    client.reset()
    client.assign_irqs(Irq.INTX, [event])
    client.write_int(Region.CONFIG, 0x10, 4, 0)
    client.dma_unmap_all()
    assert complaints(client) == []
    client.close()
    os.close(event)
