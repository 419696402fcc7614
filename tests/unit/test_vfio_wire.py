# SPDX-License-Identifier: Apache-2.0
"""The declared layouts against the offsets that the vfio-user specification prints."""

from __future__ import annotations

from typing import Any

import pytest

from vhost_iommu.errors import ClientError
from vhost_iommu.vfio import wire


@pytest.mark.parametrize(
    ("declaration", "size", "offsets"),
    [
        (wire.Header, 16, {"msg_id": 0, "command": 2, "msg_size": 4, "flags": 8, "error": 12}),
        (wire.Version, 4, {"major": 0, "minor": 2}),
        (wire.DmaMap, 32, {"argsz": 0, "flags": 4, "offset": 8, "address": 16, "size": 24}),
        (wire.DmaUnmap, 24, {"argsz": 0, "flags": 4, "address": 8, "size": 16}),
        (wire.DeviceInfo, 16, {"argsz": 0, "flags": 4, "num_regions": 8, "num_irqs": 12}),
        (wire.RegionInfo, 32, {"flags": 4, "index": 8, "cap_offset": 12, "size": 16, "offset": 24}),
        (wire.RegionIoFds, 16, {"argsz": 0, "flags": 4, "index": 8, "count": 12}),
        (wire.IrqInfo, 16, {"argsz": 0, "flags": 4, "index": 8, "count": 12}),
        (wire.IrqSet, 20, {"argsz": 0, "flags": 4, "index": 8, "start": 12, "count": 16}),
        (wire.RegionAccess, 16, {"offset": 0, "region": 8, "count": 12}),
        (wire.WriteMulti, 8, {"wr_cnt": 0}),
        (wire.SingleWrite, 24, {"offset": 0, "region": 8, "count": 12, "data": 16}),
        (wire.DmaAccess, 16, {"address": 0, "count": 8}),
        (wire.DeviceFeature, 8, {"argsz": 0, "flags": 4}),
    ],
)
def test_a_layout_has_the_specified_size_and_offsets(declaration: Any, size: int, offsets: dict[str, int]) -> None:
    assert declaration.sizeof() == size
    for name, offset in offsets.items():
        raw = bytearray(size)
        raw[offset] = 1
        value = declaration.parse(raw)[name]
        assert value == (1 if name != "data" else b"\1" + bytes(7))


def test_the_hot_formats_are_the_declarations() -> None:
    raw = bytes(range(1, 49))
    for declaration, hot in (
        (wire.Header, wire.HEADER),
        (wire.RegionAccess, wire.REGION_ACCESS),
        (wire.SingleWrite, wire.SINGLE_WRITE),
        (wire.DmaAccess, wire.DMA_ACCESS),
    ):
        fields = declaration.parse(raw)
        assert list(hot.unpack_from(raw)) == [fields[field.name] for field in declaration.subcons]
        assert hot.size == declaration.sizeof()
    assert wire.ACCESS.unpack_from(raw) == wire.HEADER.unpack_from(raw) + wire.REGION_ACCESS.unpack_from(raw, 16)


def test_a_short_payload_is_the_clients_error() -> None:
    with pytest.raises(ClientError, match="31 bytes where 32"):
        wire.parse(wire.DmaMap, memoryview(bytes(31)))


def test_a_command_without_a_name_is_told_by_its_number() -> None:
    assert wire.command_name(9) == "REGION_READ"
    assert wire.command_name(99) == "command 99"
