# SPDX-License-Identifier: Apache-2.0
"""Requests of many pages, which the core looks up several at once: nobody can tell that from one by one.

The law of all: bytes, events, what is counted and what the TLB holds are the reference's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.smmu_builder import RAM_BASE, Bench, PageTable, Ram
from vhost_iommu.masters.port import Abort, Attributes, Port, Why
from vhost_iommu.smmu.v3 import commands as c

pytestmark = pytest.mark.usefixtures("core_is_built")

SID, OTHER = 5, 6  # of one ASID
PAGES = 80  # from IOVA on, 4 KiB each
IOVA = 0x12_3440_0000 - (37 << 12)  # so that two tables have them, and no group of four is in both
DATA = RAM_BASE + (4 << 20)
#: Beyond RAM's end lies nothing; its last pages are where a request may leave it.
RAM_PAGES = 96

#: What the leaf of a page says that is not as the others say: none (None), or fields of it.
KINDS: tuple[dict[str, int] | None, ...] = (
    None,
    {"AP": 3},
    {"AF": 0},
    {"nG": 0},
    {"SH": 2},
    {"AttrIndx": 1},
    {"DBM": 1, "AP": 3},
    {"Contiguous": 1},
)


@dataclass(frozen=True)
class Op:
    """One thing that happens: a request, a change of a table, or an invalidation."""

    what: str
    page: int
    count: int
    offset: int = 0
    kind: int = 0


class Machine:
    """A port behind an SMMU, by the core or by the reference."""

    def __init__(self, pure: bool, scattered: bool, tlb_entries: int, features: dict[str, Any]) -> None:
        ram = Ram(size=(4 << 20) + (RAM_PAGES << 12))
        self.bench = Bench(features, ram=ram, pure=pure, tlb_entries=tlb_entries)
        cd = {"A": 1, "R": 1, "HA": int("hardware_updates" in features), "HD": int("hardware_updates" in features)}
        self.cd = cd
        self.table = self.bench.stream(SID, cd=cd)
        self.fill_behind_first_table()
        to = list(range(PAGES))
        if scattered:
            Random(7).shuffle(to)
        self.to = to
        for page in range(PAGES):
            self.map(page, {})
        ram.put(DATA, Random(3).randbytes(RAM_PAGES << 12))
        self.port = Port("engine", ram.memory, self.bench.smmu, (SID, OTHER))
        self.bench.know(SID)

    def fill_behind_first_table(self) -> None:
        """Behind the table that has IOVA are descriptors that look like its own, and belong to nothing."""
        self.table.map(IOVA, DATA)
        behind = self.bench.ram.alloc(0x1000)
        assert behind >> 12 == (self.table.entry(IOVA) >> 12) + 1
        for at in range(512):
            self.bench.ram.put_u64(behind + 8 * at, self.bench.ram.get_u64(self.table.entry(IOVA)))

    def beside(self, table: PageTable) -> PageTable:
        """Another stream of the same ASID."""
        self.bench.stream(OTHER, table=table, cd=self.cd)
        self.bench.know(OTHER)
        return table

    def read(self, iova: int, size: int, sid: int = SID) -> tuple[object, object]:
        return self.port.read(iova, size, Attributes(sid)), self.state()

    def map(self, page: int, leaf: dict[str, int], to: int | None = None) -> None:
        self.table.map(IOVA + (page << 12), DATA + ((self.to[page] if to is None else to) << 12), **leaf)

    def do(self, op: Op) -> object:
        """What came of it."""
        iova, size = IOVA + (op.page << 12) + op.offset, max(1, (op.count << 12) - 2 * op.offset)
        match op.what:
            case "read":
                return self.port.read(iova, size, Attributes(SID))
            case "write":
                return self.port.write(iova, Random(op.kind).randbytes(size), Attributes(SID))
            case "change":
                leaf = KINDS[op.kind % len(KINDS)]
                if leaf is None:
                    self.table.unmap(iova & ~0xFFF)
                else:
                    self.map(op.page, leaf)
            case "move":  # elsewhere in RAM, or out of it
                self.map(op.page, {}, (op.kind * 17) % (RAM_PAGES + 4))
            case "range":
                self.bench.invalidate(c.CMD_TLBI_NH_VAA.of(Address=iova & ~0xFFF))
            case "all":
                self.bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())
        return None

    def state(self) -> object:
        """All that is to be the same."""
        smmu, port = self.bench.smmu, self.port
        counters = smmu.counters
        counted = counters.transactions, counters.translations, counters.walks
        moved = port.transactions, port.bytes_read, port.bytes_written, port.aborts
        entries = sorted(smmu.tlb, key=lambda found: (found[1].base, found[0].asid is None))
        return self.bench.events(), counted, moved, asdict(smmu.tlb.counters), entries


def same(ops: Sequence[Op], scattered: bool = True, features: dict[str, Any] | None = None) -> Machine:
    """The machine with the core, after both did the same."""
    machines = [Machine(pure, scattered, 4096, features or {}) for pure in (True, False)]
    for op in ops:
        answers = [(machine.do(op), machine.state()) for machine in machines]
        assert answers[0] == answers[1], op
    rams = [machine.bench.ram.get(DATA, RAM_PAGES << 12) for machine in machines]
    assert rams[0] == rams[1]
    return machines[1]


pages = st.integers(0, PAGES - 1)
counts = st.integers(1, PAGES)
requests = st.builds(Op, st.sampled_from(["read", "write"]), pages, counts, st.sampled_from([0, 0, 0, 8, 0x7F8]), pages)
ops = requests | st.builds(
    Op, st.sampled_from(["change", "change", "move", "range", "all"]), pages, st.just(1), st.just(0), st.integers(0, 99)
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(ops, min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from([{}, {}, {"hardware_updates": "dirty"}]),
)
def test_requests_of_many_pages_are_what_they_are_page_by_page(
    past: list[Op], scattered: bool, features: dict[str, Any]
) -> None:
    same(past, scattered, features)


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("at", [4, 9, 14, 39])
def test_one_page_that_is_not_as_the_others_is_met_as_it_is(first: int, kind: int, at: int) -> None:
    same([Op("change", at, 1, 0, kind), Op("read", first, 60), Op("write", first, 60, 0, 3), Op("read", first, 60)])


def test_cold_pages_that_are_neighbours_are_walked_for_once_each() -> None:
    machine = same([Op("read", 0, PAGES), Op("read", 0, PAGES)])
    assert machine.bench.smmu.counters.walks == PAGES
    assert asdict(machine.bench.smmu.tlb.counters)["hits"] == PAGES


def test_a_page_that_was_not_invalidated_is_still_where_it_was_whatever_lies_beside_it() -> None:
    kept = Op("read", 20, 1), Op("move", 20, 1, 0, 3), Op("move", 21, 1, 0, 4)
    same([*kept, Op("read", 16, 8), Op("read", 0, PAGES)])


@pytest.mark.parametrize("what", ["read", "write"])
@pytest.mark.parametrize("inside", [1, 2, 5])
def test_what_was_looked_up_of_a_piece_that_leaves_ram_is_counted_once(what: str, inside: int) -> None:
    """Pages before and behind RAM's end are one piece, of which all is looked up before its first byte moves."""
    found: list[list[object]] = []
    for pure in (True, False):
        machine = Machine(pure, True, 4096, {})
        for page in range(inside + 3):
            machine.map(10 + page, {}, RAM_PAGES - inside + page)
        request = Op(what, 7, 40)
        found.append([(machine.do(request), machine.state()) for _ in range(2)])
    assert found[0] == found[1]


def test_entries_of_other_pages_make_room_and_are_counted() -> None:
    """What is evicted is no promise; that each entry is counted once, when it comes and when it goes, is one."""
    machine = Machine(False, True, 16, {})
    for _ in range(3):
        for op in (Op("read", 0, PAGES), Op("write", 2, 60, 8), Op("range", 9, 1)):
            machine.do(op)
            tlb = machine.bench.smmu.tlb
            assert tlb.counters.misses - tlb.counters.evictions - tlb.counters.invalidated == len(tlb)
    assert len(machine.bench.smmu.tlb) > 8


def test_pages_beyond_the_range_of_a_stream_fault_though_another_of_its_asid_has_them() -> None:
    """The TLB has them, by the ASID that both have."""
    found: list[list[tuple[object, object]]] = []
    for pure in (True, False):
        machine = Machine(pure, True, 4096, {})
        narrow = machine.beside(PageTable(machine.bench.ram, input_bits=32))
        end = 1 << 32
        for page in range(-24, 24):
            machine.table.map(end + (page << 12), DATA + (24 + page << 12))
            if page < 0:
                narrow.map(end + (page << 12), DATA + (24 + page << 12))
        past = [machine.read(end - (24 << 12), 48 << 12)]
        past += [machine.read(end - (count << 12), count + 4 << 12, OTHER) for count in (24, 10, 5, 2)]
        found.append(past)
    assert found[0] == found[1]
    assert all(isinstance(answer, Abort) for answer, _ in found[0][1:])


@pytest.mark.parametrize("bits", range(32, 40))
def test_a_range_ends_where_it_does_in_a_tlb_of_two_sets_too(bits: int) -> None:
    """Where pages that are no neighbours may be one behind the other."""
    machine = Machine(False, True, 16, {})
    narrow, end = machine.beside(PageTable(machine.bench.ram, input_bits=bits)), 1 << bits
    for page in range(-4, 4):
        machine.table.map(end + (page << 12), DATA + (4 + page << 12))
        if page < 0:
            narrow.map(end + (page << 12), DATA + (4 + page << 12))
    for first in (-4, -3):
        machine.read(end - (4 << 12), 8 << 12)
        found, _ = machine.read(end + (first << 12), 8 << 12, OTHER)
        assert found == Abort(end, -first << 12, Why.TERMINATED)


def test_a_larger_page_of_another_table_of_the_asid_is_met_among_pages_that_are_walked_for() -> None:
    found: list[list[tuple[object, object]]] = []
    for pure in (True, False):
        machine = Machine(pure, True, 4096, {})
        large = machine.beside(PageTable(machine.bench.ram, granule_bits=16))
        for page in range(0, PAGES, 16):
            at = (IOVA + (page << 12)) & ~0xFFFF
            large.map(at, DATA & ~0xFFFF)
        past = [machine.read(IOVA, 10 << 12), machine.read(IOVA + (24 << 12), 8, OTHER)]
        past += [machine.read(IOVA, PAGES << 12)]
        found.append(past)
    assert found[0] == found[1]
