# SPDX-License-Identifier: Apache-2.0
"""Performance monitor counter groups: what counts, of which streams; overflows, captures, interrupts (IHI 0070 §10)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.smmu_builder import Bench
from vhost_iommu.layout import Register
from vhost_iommu.masters.port import Port
from vhost_iommu.smmu.v3.activity import Streams
from vhost_iommu.smmu.v3.pmcg_registers import (
    PMCG_CAPR,
    PMCG_CEID0,
    PMCG_CFGR,
    PMCG_CNTENCLR0,
    PMCG_CNTENSET0,
    PMCG_CR,
    PMCG_EVCNTR,
    PMCG_EVTYPER,
    PMCG_INTENSET0,
    PMCG_IRQ_CFG0,
    PMCG_IRQ_CFG1,
    PMCG_IRQ_CTRL,
    PMCG_IRQ_CTRLACK,
    PMCG_IRQ_STATUS,
    PMCG_OVSCLR0,
    PMCG_OVSSET0,
    PMCG_SMR,
    PMCG_SVR,
    MonitorEvent,
)

IOVA, PA = 0x1000, 0x9000_2000
FULL = 1 << 64
DOORBELL = 0xFFFF_0000


class Group:
    """The counter group of a bench, as software sees it."""

    def __init__(self, pure: bool, **options: Any) -> None:
        self.bench = Bench({"msi": True}, counter_group=True, pure=pure, **options)
        ((self.base, self.block),) = self.bench.smmu.companions

    def get(self, register: type[Register], copy: int = 0) -> int:
        return self.block.read(register.at + copy * register.stride, register.size)

    def put(self, register: type[Register], value: Register | int, copy: int = 0) -> None:
        self.block.write(register.at + copy * register.stride, register.size, int(value))

    def count(self, counter: int, event: MonitorEvent, sid: int = 0xFFFF_FFFF, **filters: int) -> None:
        """Have a counter count, of every stream unless ``sid`` says otherwise."""
        filters = filters or ({"FILTER_SID_SPAN": 1} if sid == 0xFFFF_FFFF else {})
        self.put(PMCG_EVTYPER, PMCG_EVTYPER.of(EVENT=event, **filters), counter)
        self.put(PMCG_SMR, sid, counter)
        self.put(PMCG_CNTENSET0, 1 << counter)
        self.put(PMCG_CR, 1)

    def __getitem__(self, counter: int) -> int:
        return self.get(PMCG_EVCNTR, counter)


@pytest.fixture(params=[True, False], ids=["reference", "core"])
def group(request: pytest.FixtureRequest) -> Group:
    made = Group(request.param)
    for sid in (0, 1, 5):
        made.bench.stream(sid, cd={"ASID": 1 + sid}).map(IOVA, PA, 0x2000)
    return made


def test_a_group_says_what_it_can_do(group: Group) -> None:
    cfgr = PMCG_CFGR(group.get(PMCG_CFGR))
    assert (cfgr.NCTR, cfgr.SIZE, cfgr.RELOC_CTRS, cfgr.MSI, cfgr.CAPTURE) == (7, 63, 1, 1, 1)
    assert group.get(PMCG_CEID0) == 0b11_1111
    assert (group.base, group.block.size) == (0x20000, 0x20000)


def test_counters_count_pages_misses_walks_and_structures(group: Group) -> None:
    for event in range(1, 6):
        group.count(event, MonitorEvent(event))
    group.bench.translate(IOVA, 0x2000, 0)
    assert [group[event] for event in range(1, 6)] == [2, 2, 1, 8, 2]
    group.bench.translate(IOVA, 0x2000, 0)
    assert [group[event] for event in range(1, 6)] == [4, 2, 1, 8, 2]


def test_a_counter_counts_while_it_and_its_group_are_enabled(group: Group) -> None:
    group.count(0, MonitorEvent.TRANSACTION)
    group.bench.translate(IOVA, 1, 0)
    group.put(PMCG_CR, 0)
    group.bench.translate(IOVA, 1, 0)
    group.put(PMCG_CR, 1)
    group.put(PMCG_CNTENCLR0, 1)
    group.bench.translate(IOVA, 1, 0)
    assert (group[0], group.get(PMCG_CNTENSET0)) == (1, 0)
    group.put(PMCG_CNTENSET0, 1)
    group.put(PMCG_EVCNTR, 40)
    group.bench.translate(IOVA, 1, 0)
    assert group[0] == 41


def test_an_event_that_a_group_does_not_have_is_never_counted(group: Group) -> None:
    group.count(0, MonitorEvent.ATS_REQUEST)
    group.put(PMCG_EVTYPER, PMCG_EVTYPER.of(EVENT=0xFFFF, FILTER_SID_SPAN=1), 1)
    group.put(PMCG_CNTENSET0, 2)
    group.bench.translate(IOVA, 1, 0)
    assert (group[0], group[1]) == (0, 0)


def test_a_filter_counts_its_streams_alone(group: Group) -> None:
    group.count(0, MonitorEvent.TRANSACTION, sid=1)
    group.count(1, MonitorEvent.TRANSACTION, sid=0b00_0, FILTER_SID_SPAN=1)  # streams 0 and 1
    group.count(2, MonitorEvent.TABLE_WALK_ACCESS, sid=5)
    group.count(3, MonitorEvent.CONFIG_STRUCT_ACCESS, sid=5)
    group.count(4, MonitorEvent.TLB_MISS, sid=5)
    for sid, times in ((0, 1), (1, 2), (5, 4)):
        for _ in range(times):
            group.bench.translate(IOVA, 1, sid)
    assert [group[n] for n in range(5)] == [2, 3, 4, 2, 1]


def test_requests_that_the_core_carries_out_count_for_their_stream() -> None:
    group = Group(False)
    group.bench.stream(1).map(IOVA, group.bench.ram.alloc(0x1000, 0x1000), 0x1000)
    group.count(0, MonitorEvent.TRANSACTION, sid=1)
    group.count(1, MonitorEvent.TRANSACTION, sid=2)
    group.count(2, MonitorEvent.TLB_MISS, sid=1)
    group.count(3, MonitorEvent.TRANSACTION)
    group.bench.translate(IOVA, 1, 1)
    port = Port("engine0", group.bench.ram.memory, group.bench.smmu, (1, 2))
    for _ in range(3):
        assert isinstance(port.read(IOVA, 8), bytes)
    assert group[0] == group[3] == 4
    assert (group[1], group[2]) == (0, 1)


@pytest.mark.parametrize(
    ("stream_id", "span", "inside", "outside"),
    [
        (0x1B_F7F7, 1, (0x1B_F7F0, 0x1B_F7FF), (0x1B_F7E0,)),
        (0x1B_F7F6, 1, (0x1B_F7F6, 0x1B_F7F7), (0x1B_F7F5,)),
        (0x1B_F5FF, 1, (0x1B_F400, 0x1B_F7FF), (0x1B_F800,)),
        (0xFFFF_FFFF, 1, (0, 0xFFFF_FFFF), ()),
        (0x7FFF_FFFF, 1, (0, 0xFFFF_FFFF), ()),
        (0xFFFF_FFFF, 0, (0xFFFF_FFFF,), (0,)),
        (5, 0, (5,), (4, 7)),
    ],
)
def test_a_span_is_written_as_a_mask_below_its_lowest_zero(
    stream_id: int, span: int, inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    streams = Streams.of(stream_id, bool(span))
    assert all(sid in streams for sid in inside)
    assert not any(sid in streams for sid in outside)


def test_an_overflow_sets_its_status_captures_and_interrupts(group: Group) -> None:
    group.put(PMCG_IRQ_CFG0, DOORBELL)
    group.put(PMCG_IRQ_CFG1, 77)
    group.put(PMCG_INTENSET0, 1)
    group.put(PMCG_IRQ_CTRL, 1)
    assert group.get(PMCG_IRQ_CTRLACK) == 1
    group.put(PMCG_IRQ_CFG1, 78)  # guarded
    group.count(0, MonitorEvent.TRANSACTION)
    group.count(1, MonitorEvent.TRANSACTION)
    kind = PMCG_EVTYPER(group.get(PMCG_EVTYPER, 0)).replace(OVFCAP=1)
    group.put(PMCG_EVTYPER, kind, 0)
    group.put(PMCG_EVCNTR, FULL - 2, 0)
    group.bench.translate(IOVA, 0x2000, 0)
    group.bench.translate(IOVA, 1, 0)
    assert (group[0], group.get(PMCG_OVSSET0)) == (1, 1)
    assert group.bench.posted == [(DOORBELL, (77).to_bytes(4, "little"))]
    assert group.bench.wires == ["pmcg"]
    assert (group.get(PMCG_SVR, 0), group.get(PMCG_SVR, 1)) == (1, group[1])
    group.put(PMCG_OVSCLR0, 1)
    assert (group.get(PMCG_OVSSET0), group.get(PMCG_OVSCLR0)) == (0, 0)


def test_a_capture_copies_all_counters(group: Group) -> None:
    group.put(PMCG_EVCNTR, 5, 0)
    group.put(PMCG_EVCNTR, 7, 3)
    group.put(PMCG_CAPR, 1)
    group.put(PMCG_EVCNTR, 6, 0)
    assert (group.get(PMCG_SVR, 0), group.get(PMCG_SVR, 3), group.get(PMCG_CAPR)) == (5, 7, 0)


def test_a_message_that_aborts_is_told_until_interrupts_are_enabled_again(group: Group) -> None:
    group.bench.doorbell = None
    group.put(PMCG_IRQ_CFG0, DOORBELL)
    group.put(PMCG_INTENSET0, 1)
    group.put(PMCG_IRQ_CTRL, 1)
    group.count(0, MonitorEvent.TRANSACTION)
    group.put(PMCG_EVCNTR, FULL - 1, 0)
    group.bench.translate(IOVA, 1, 0)
    assert group[0] == 0
    assert group.get(PMCG_IRQ_STATUS) == 1
    group.put(PMCG_IRQ_CTRL, 0)
    assert group.get(PMCG_IRQ_STATUS) == 1
    group.put(PMCG_IRQ_CTRL, 1)
    assert group.get(PMCG_IRQ_STATUS) == 0


def test_an_overflow_that_nobody_looks_for_is_found_in_time() -> None:
    now, calls = [0.0], []
    group = Group(True, clock=lambda: now[0], later=lambda after, call: calls.append((after, call)))
    group.put(PMCG_INTENSET0, 1)
    group.put(PMCG_IRQ_CTRL, 1)
    group.count(0, MonitorEvent.CYCLE)
    assert calls == []  # it would take centuries
    group.put(PMCG_EVCNTR, FULL - 3_000_000_000, 0)
    ((after, look),) = calls
    assert after == pytest.approx(3)
    now[0] += after
    look()
    assert group.bench.wires == ["pmcg"]


def test_halves_of_the_enables_are_set_and_cleared_apart(group: Group) -> None:
    group.put(PMCG_CNTENSET0, 0b1111)
    group.block.write(PMCG_CNTENCLR0.at + 4, 4, 0xFFFF_FFFF)
    assert group.get(PMCG_CNTENSET0) == 0b1111
    group.block.write(PMCG_CNTENCLR0.at, 4, 0b0101)
    assert group.get(PMCG_CNTENCLR0) == 0b1010


def test_a_reset_leaves_nothing_enabled(group: Group) -> None:
    group.count(0, MonitorEvent.TRANSACTION, sid=1)
    group.block.reset()
    group.bench.translate(IOVA, 1, 1)
    assert (group[0], group.get(PMCG_CNTENSET0), group.get(PMCG_CR)) == (0, 0, 0)
    assert not group.bench.smmu.ledger.followed


def test_an_smmu_without_a_group_has_no_companion() -> None:
    assert Bench().smmu.companions == ()
