# SPDX-License-Identifier: Apache-2.0
"""Configuration space, BARs and interrupts of a PCI function, without a client."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from tests.protocol.client import Scratch, open_fds
from vhost_iommu.errors import ClientError
from vhost_iommu.vfio.interrupts import Interrupts
from vhost_iommu.vfio.pci import MAX_VECTORS, BarMap, PciFunction
from vhost_iommu.vfio.wire import Irq, IrqInfoFlags, IrqSetFlags, Region

NONE, BOOL, EVENTFD = IrqSetFlags.DATA_NONE, IrqSetFlags.DATA_BOOL, IrqSetFlags.DATA_EVENTFD
MASK, UNMASK, TRIGGER = IrqSetFlags.ACTION_MASK, IrqSetFlags.ACTION_UNMASK, IrqSetFlags.ACTION_TRIGGER


def config(function: PciFunction, offset: int, size: int) -> int:
    return int.from_bytes(function.read(Region.CONFIG, offset, size), "little")


def configure(function: PciFunction, offset: int, size: int, value: int) -> None:
    function.write(Region.CONFIG, offset, value.to_bytes(size, "little"))


# -- register blocks in a BAR --------------------------------------------------------------------------------------


def test_an_access_reaches_the_block_at_its_offset() -> None:
    low, high = Scratch("low"), Scratch("high")
    bar = BarMap([(0x2000, high), (0, low)])
    bar.write(0x2010, b"\1\2\3\4")
    assert bar.read(0x2010, 4) == b"\1\2\3\4"
    assert high.accesses == [("write", 0x10, 4), ("read", 0x10, 4)]
    assert low.accesses == []


def test_outside_of_every_block_reads_are_zero_and_writes_ignored() -> None:
    block = Scratch(size=0x1000)
    bar = BarMap([(0x1000, block)], size=0x4000)
    for offset in (0, 0xFF8, 0x2000, 0x3FF8):
        bar.write(offset, b"\xff" * 8)
        assert bar.read(offset, 8) == bytes(8)
    assert block.accesses == []


@pytest.mark.parametrize(
    ("offset", "size", "pieces"),
    [
        (0, 8, [(0, 8)]),
        (1, 1, [(1, 1)]),
        (1, 4, [(1, 1), (2, 2), (4, 1)]),
        (2, 4, [(2, 2), (4, 2)]),
        (4, 8, [(4, 4), (8, 4)]),
        (0, 3, [(0, 2), (2, 1)]),
        (3, 16, [(3, 1), (4, 4), (8, 8), (16, 2), (18, 1)]),
    ],
)
def test_odd_accesses_are_split_into_natural_ones(offset: int, size: int, pieces: list[tuple[int, int]]) -> None:
    block = Scratch()
    bar = BarMap([(0, block)])
    data = bytes(range(1, size + 1))
    bar.write(offset, data)
    assert block.storage[offset : offset + size] == data
    assert bar.read(offset, size) == data
    assert block.accesses == [(kind, *piece) for kind in ("write", "read") for piece in pieces]


def test_an_access_across_two_blocks_is_shared_between_them() -> None:
    first, second = Scratch(size=8), Scratch(size=8)
    bar = BarMap([(0, first), (8, second)])
    bar.write(4, b"abcdefgh")
    assert first.storage == b"\0\0\0\0abcd"
    assert second.storage == b"efgh\0\0\0\0"


def test_reading_one_block_after_another_finds_each() -> None:
    blocks = [Scratch(size=0x10), Scratch(size=0x10)]
    function = PciFunction("f", {0: BarMap([(0, blocks[0]), (0x20, blocks[1])]), 2: BarMap([(0, Scratch())])})
    for number, block in enumerate(blocks, 1):
        block.storage[:] = bytes([number]) * 0x10
    for _ in range(2):
        assert function.read(0, 0x8, 8) == b"\1" * 8
        assert function.read(0, 0x10, 8) == bytes(8)
        assert function.read(0, 0x20, 4) == b"\2" * 4
        assert function.read(0, 0x1C, 8) == bytes(4) + b"\2" * 4
        assert function.read(2, 0x20, 4) == bytes(4)
        assert function.read(0, 0xE, 4) == b"\1\1\0\0"


@pytest.mark.parametrize("blocks", [[(0, 16), (8, 16)], [(4, 8)], [(0, 12)]])
def test_blocks_that_overlap_or_are_misaligned_are_refused(blocks: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"block|multiple"):
        BarMap([(offset, Scratch(size=size)) for offset, size in blocks])


def test_a_bar_is_as_large_as_its_blocks_need() -> None:
    assert BarMap([(0x20000, Scratch(size=0x1008))]).size == 0x40000
    assert BarMap().size == 0x1000
    with pytest.raises(ValueError, match="cannot hold"):
        BarMap([(0x1000, Scratch())], size=0x1000)


# -- configuration space -------------------------------------------------------------------------------------------


def test_the_header_says_what_the_function_is() -> None:
    function = PciFunction("f", {0: BarMap([(0, Scratch())])})
    assert config(function, 0x00, 4) == 0x0550_1234
    assert config(function, 0x08, 4) == 0x0806_0000
    assert config(function, 0x0E, 1) == 0
    assert config(function, 0x3D, 1) == 1
    assert function.region_size(Region.CONFIG) == 256


def test_a_64_bit_bar_tells_its_size_in_the_usual_way() -> None:
    function = PciFunction("f", {0: BarMap([(0, Scratch())], size=0x40000, prefetchable=True)})
    for offset in (0x10, 0x14):
        configure(function, offset, 4, 0xFFFF_FFFF)
    assert config(function, 0x10, 8) == 0xFFFF_FFFF_FFFC_000C
    configure(function, 0x10, 8, 0x80_0004_0000)
    assert config(function, 0x10, 8) == 0x80_0004_000C
    assert function.region_size(1) == 0


def test_a_32_bit_bar_leaves_the_next_one_alone() -> None:
    function = PciFunction("f", {2: BarMap(size=0x2000, wide=False)})
    configure(function, 0x18, 8, 0xFFFF_FFFF_FFFF_FFFF)
    assert config(function, 0x18, 8) == 0xFFFF_E000
    configure(function, 0x30, 4, 0xFFFF_FFFF)
    assert config(function, 0x30, 4) == 0, "there is no ROM"


@pytest.mark.parametrize("bars", [{0: BarMap(), 1: BarMap()}, {5: BarMap()}, {6: BarMap(wide=False)}])
def test_bars_that_do_not_fit_are_refused(bars: dict[int, BarMap]) -> None:
    with pytest.raises(ValueError, match="BAR"):
        PciFunction("f", bars)


def test_only_bits_that_exist_stick() -> None:
    function = PciFunction("f", {})
    before = function.read(Region.CONFIG, 0, 256)
    function.write(Region.CONFIG, 0, b"\xff" * 256)
    after = function.read(Region.CONFIG, 0, 256)
    changed = {at for at in range(256) if before[at] != after[at]}
    assert changed == {0x04, 0x05, 0x3C}
    assert config(function, 0x04, 2) == 0x0546


def test_bus_mastering_follows_the_command_register() -> None:
    function = PciFunction("f", {})
    assert not function.bus_master
    configure(function, 0x04, 2, 0x0006)
    assert function.bus_master
    function.reset()
    assert not function.bus_master


def capabilities(function: PciFunction) -> dict[int, int]:
    found, at = {}, config(function, 0x34, 1)
    while at:
        found[config(function, at, 1)] = at
        at = config(function, at + 1, 1)
    return found


def test_the_capability_list_holds_what_was_asked_for() -> None:
    plain = PciFunction("f", {})
    assert capabilities(plain) == {}
    assert config(plain, 0x06, 2) & 0x10 == 0
    both = PciFunction("f", {}, msix_vectors=5, express=True)
    assert sorted(capabilities(both)) == [0x10, 0x11]
    assert config(both, 0x06, 2) & 0x10
    assert both.region_size(Region.CONFIG) == 4096
    assert sorted(capabilities(PciFunction("f", {}, express=True))) == [0x10]


@pytest.mark.parametrize("vectors", [1, 5, 256, 257, MAX_VECTORS])
def test_the_msix_table_and_pending_bits_lie_in_their_bar_without_overlap(vectors: int) -> None:
    function = PciFunction("f", {}, msix_vectors=vectors, msix_bar=2)
    at = capabilities(function)[0x11]
    assert config(function, at + 2, 2) & 0x7FF == vectors - 1
    table, pba = config(function, at + 4, 4), config(function, at + 8, 4)
    assert table & 7 == pba & 7 == 2
    assert pba & ~7 >= 16 * vectors
    assert (pba & ~7) % 4096 == 0, "a client traps the table by pages"
    assert function.region_size(2) >= (pba & ~7) + (vectors + 7) // 8
    assert function.read(2, 12, 4) == b"\1\0\0\0", "a vector starts masked"


def test_an_access_that_leaves_its_region_is_the_clients_error() -> None:
    function = PciFunction("f", {0: BarMap()})
    for region, offset, size in [
        (Region.CONFIG, 253, 4),
        (0, 0xFFF, 2),
        (0, 1 << 63, 4),
        (1, 0, 1),
        (Region.ROM, 0, 4),
        (9, 0, 1),
    ]:
        with pytest.raises(ClientError):
            function.read(region, offset, size)
        with pytest.raises(ClientError):
            function.write(region, offset, bytes(size))


def test_reset_restores_configuration_and_resets_each_block_once() -> None:
    block, other = Scratch(), Scratch()
    function = PciFunction("f", {0: BarMap([(0, block), (0x1000, block), (0x2000, other)])}, msix_vectors=2)
    before = function.read(Region.CONFIG, 0, 256)
    configure(function, 0x10, 4, 0x1000_0000)
    configure(function, 0x04, 2, 0x6)
    function.write(4, 0, b"\xaa" * 16)
    function.trigger_intx(True)
    function.reset()
    assert function.read(Region.CONFIG, 0, 256) == before
    assert (block.resets, other.resets) == (1, 1)
    assert function.read(4, 0, 4) == bytes(4)


# -- interrupts ------------------------------------------------------------------------------------------------------


class Lines:
    """Eventfds of a client, and how often each was signalled since last asked."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def new(self, count: int = 1) -> list[int]:
        made = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
        self.fds += made
        return [os.dup(fd) for fd in made]

    def signals(self) -> list[int]:
        return [_drain(fd) for fd in self.fds]


def _drain(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


@pytest.fixture
def lines() -> Iterator[Lines]:
    before = open_fds()
    made = Lines()
    yield made
    for fd in made.fds:
        os.close(fd)
    assert open_fds() == before, "a file descriptor leaked"


@pytest.fixture
def irqs(lines: Lines) -> Iterator[Interrupts]:
    made = Interrupts(4, intx=True)
    yield made
    made.clear()


def test_interrupt_types_are_told_with_their_abilities(irqs: Interrupts) -> None:
    maskable = IrqInfoFlags.EVENTFD | IrqInfoFlags.MASKABLE
    assert irqs.info(Irq.INTX) == (maskable | IrqInfoFlags.AUTOMASKED, 1)
    assert irqs.info(Irq.MSI)[1] == 0
    assert irqs.info(Irq.MSIX) == (maskable, 4)
    assert irqs.info(Irq.ERR)[1] == irqs.info(Irq.REQ)[1] == 1
    with pytest.raises(ClientError):
        irqs.info(5)


def test_a_vector_signals_its_own_eventfd(irqs: Interrupts, lines: Lines) -> None:
    irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 1, 2, b"", lines.new(2))
    irqs.trigger_msix(2)
    assert lines.signals() == [0, 1]
    irqs.trigger_msix(1)
    assert lines.signals() == [1, 0]


def test_a_masked_vector_is_pending_until_it_is_unmasked(irqs: Interrupts, lines: Lines) -> None:
    irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 4, b"", lines.new(4))
    irqs.set(BOOL | MASK, Irq.MSIX, 0, 4, b"\0\1\0\1", [])
    for vector in range(4):
        irqs.trigger_msix(vector)
    assert lines.signals() == [1, 0, 1, 0]
    assert irqs.pending_bits(8) == b"\x0a" + bytes(7)
    irqs.set(NONE | UNMASK, Irq.MSIX, 3, 1, b"", [])
    assert lines.signals() == [0, 0, 0, 1]
    assert irqs.pending_bits(8) == b"\x02" + bytes(7)


def test_the_function_mask_holds_every_vector_back(lines: Lines) -> None:
    function = PciFunction("f", {}, msix_vectors=2)
    function.interrupts.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 2, b"", lines.new(2))
    configure(function, 0x42, 2, 0xC000)
    function.trigger_msix(1)
    assert lines.signals() == [0, 0]
    assert function.read(4, 0x1000, 8) == b"\2" + bytes(7)
    configure(function, 0x42, 2, 0x8000)
    assert lines.signals() == [0, 1]
    assert function.read(4, 0x1000, 8) == bytes(8)
    function.interrupts.clear()


def test_an_enabled_vector_without_an_eventfd_is_pending_until_it_has_one(lines: Lines) -> None:
    function = PciFunction("f", {}, msix_vectors=2)
    function.trigger_msix(0)
    configure(function, 0x42, 2, 0x8000)
    assert function.read(4, 0x1000, 1) == b"\0", "MSI-X was off"
    function.trigger_msix(1)
    function.interrupts.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 2, b"", lines.new(2))
    assert lines.signals() == [0, 1]
    function.interrupts.clear()


def test_disabling_an_index_closes_its_eventfds_and_forgets_what_is_pending(irqs: Interrupts, lines: Lines) -> None:
    irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 4, b"", lines.new(4))
    irqs.set(NONE | MASK, Irq.MSIX, 0, 1, b"", [])
    irqs.trigger_msix(0)
    held = open_fds()
    irqs.set(NONE | TRIGGER, Irq.MSIX, 0, 0, b"", [])
    assert open_fds() == held - 4
    irqs.trigger_msix(1)
    assert lines.signals() == [0, 0, 0, 0]
    assert irqs.pending_bits(8) == bytes(8)


def test_eventfds_are_taken_away_by_a_message_without_any(irqs: Interrupts, lines: Lines) -> None:
    irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 4, b"", lines.new(4))
    irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 1, 2, b"", [])
    for vector in range(4):
        irqs.trigger_msix(vector)
    assert lines.signals() == [1, 0, 0, 1]


def test_intx_is_masked_by_signalling_and_repeated_while_it_stays_asserted(irqs: Interrupts, lines: Lines) -> None:
    irqs.set(EVENTFD | TRIGGER, Irq.INTX, 0, 1, b"", lines.new())
    irqs.trigger_intx(True)
    irqs.trigger_intx(True)
    assert lines.signals() == [1]
    irqs.set(NONE | UNMASK, Irq.INTX, 0, 1, b"", [])
    assert lines.signals() == [1], "still asserted"
    irqs.trigger_intx(False)
    irqs.set(NONE | UNMASK, Irq.INTX, 0, 1, b"", [])
    assert lines.signals() == [0]


def test_intx_obeys_the_command_register_and_shows_in_status(lines: Lines) -> None:
    function = PciFunction("f", {})
    function.interrupts.set(EVENTFD | TRIGGER, Irq.INTX, 0, 1, b"", lines.new())
    configure(function, 0x04, 2, 0x0400)
    function.trigger_intx(True)
    assert lines.signals() == [0]
    assert config(function, 0x06, 2) & 8
    assert config(function, 0x06, 1) & 8
    assert config(function, 0x04, 1) & 8 == 0
    configure(function, 0x04, 2, 0)
    assert lines.signals() == [1]
    function.interrupts.clear()


def test_the_client_can_trigger_an_interrupt_itself(irqs: Interrupts, lines: Lines) -> None:
    irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 4, b"", lines.new(4))
    irqs.set(NONE | TRIGGER, Irq.MSIX, 1, 2, b"", [])
    irqs.set(BOOL | TRIGGER, Irq.MSIX, 2, 2, b"\0\1", [])
    assert lines.signals() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("flags", "index", "start", "count", "bools", "number"),
    [
        (0, Irq.MSIX, 0, 1, b"", errno.EINVAL),
        (NONE | BOOL | TRIGGER, Irq.MSIX, 0, 1, b"\1", errno.EINVAL),
        (NONE | MASK | UNMASK, Irq.MSIX, 0, 1, b"", errno.EINVAL),
        (NONE | TRIGGER | 0x40, Irq.MSIX, 0, 1, b"", errno.EINVAL),
        (NONE | TRIGGER, Irq.MSIX, 4, 1, b"", errno.EINVAL),
        (NONE | TRIGGER, Irq.MSIX, 0xFFFF_FFFF, 2, b"", errno.EINVAL),
        (NONE | TRIGGER, Irq.MSIX, 1, 0, b"", errno.EINVAL),
        (NONE | MASK, Irq.MSIX, 0, 0, b"", errno.EINVAL),
        (EVENTFD | TRIGGER, Irq.MSIX, 0, 0, b"", errno.EINVAL),
        (BOOL | TRIGGER, Irq.MSIX, 0, 4, b"\1", errno.EINVAL),
        (NONE | TRIGGER, Irq.MSI, 0, 1, b"", errno.EINVAL),
        (NONE | TRIGGER, 5, 0, 0, b"", errno.EINVAL),
        (NONE | MASK, Irq.ERR, 0, 1, b"", errno.ENOTSUP),
        (EVENTFD | UNMASK, Irq.INTX, 0, 1, b"", errno.ENOTSUP),
    ],
)
def test_a_malformed_interrupt_request_is_refused(
    irqs: Interrupts, flags: int, index: int, start: int, count: int, bools: bytes, number: int
) -> None:
    with pytest.raises(ClientError) as caught:
        irqs.set(flags, index, start, count, bools, [])
    assert caught.value.errno == number


def test_descriptors_must_be_eventfds_and_as_many_as_vectors(irqs: Interrupts, lines: Lines) -> None:
    fds = lines.new(3)
    with pytest.raises(ClientError, match="3 eventfds for 2"):
        irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 2, b"", fds)
    file = os.memfd_create("no eventfd")
    with pytest.raises(ClientError, match="not an eventfd"):
        irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 1, b"", [file])
    with pytest.raises(ClientError, match="without DATA_EVENTFD"):
        irqs.set(NONE | TRIGGER, Irq.MSIX, 0, 1, b"", fds)
    for fd in (*fds, file):  # refused descriptors stay the caller's
        os.close(fd)


def test_a_full_eventfd_does_not_block_us(irqs: Interrupts, lines: Lines) -> None:
    fd = os.eventfd(0, 0)  # blocking
    lines.fds.append(fd)
    os.eventfd_write(fd, (1 << 64) - 2)
    irqs.set(EVENTFD | TRIGGER, Irq.MSIX, 0, 1, b"", [os.dup(fd)])
    irqs.trigger_msix(0)
    assert os.eventfd_read(fd) == (1 << 64) - 2
