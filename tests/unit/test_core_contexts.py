# SPDX-License-Identifier: Apache-2.0
"""Contexts that requests find by themselves: made by the model when it is asked, gone when software invalidates.

Invalidations are consumed by the doorbell here, without the model, which has to learn of them before it looks.
"""

from __future__ import annotations

import pytest

from tests.smmu_builder import RAM_BASE, Bench, PageTable, Ram
from vhost_iommu import _core
from vhost_iommu.masters.port import Abort, Port, Why
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, CR0, GBPA, STRTAB_BASE_CFG
from vhost_iommu.smmu.v3.structures import L1STD, STE

pytestmark = pytest.mark.usefixtures("core_is_built")

IOVA, SID = 0x8000, 1
OLD, NEW = RAM_BASE + 0x40_0000, RAM_BASE + 0x50_0000

#: Commands that the core keeps for the model (VI_MOST_KEPT).
MOST_KEPT = 256


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core, whatever the environment asks for."""
    monkeypatch.delenv(_core.PURE, raising=False)


class Rig:
    """A stream whose page is at OLD, a table that has it at NEW, and a master's port."""

    def __init__(self) -> None:
        self.bench = Bench(ram=Ram(size=8 << 20), pumped=True, interrupt=None, command_bits=9)
        self.bench.ram.put(OLD, b"old")
        self.bench.ram.put(NEW, b"new")
        self.bench.stream(SID).map(IOVA, OLD)
        self.other = PageTable(self.bench.ram)
        self.other.map(IOVA, NEW)
        self.port = Port("master", self.bench.ram.memory, self.bench.smmu, [SID])
        self.bench.invalidate()  # since when the doorbell is armed

    def read(self) -> object:
        return self.port.read(IOVA, 3)

    def change(self) -> None:
        """Give the stream the other table, ASID and all."""
        self.bench.stream(SID, table=self.other, cd={"ASID": 2})

    def ring(self, *commands: c.Command) -> bool:
        """Whether the doorbell carries all of them out."""
        assert self.bench.mirror is not None
        prod = self.bench.place(*commands)
        if self.bench.mirror.carry_out(CMDQ_PROD.at, prod):
            return True
        self.bench.smmu.write(CMDQ_PROD.at, CMDQ_PROD.size, prod)
        return False

    @property
    def found(self) -> int:
        """How many requests found their context."""
        core = self.bench.smmu.core
        assert core is not None
        return core.counts()[7]


def test_the_first_request_asks_and_the_next_one_finds() -> None:
    rig = Rig()
    assert [(rig.read(), rig.found) for _ in range(3)] == [(b"old", 0), (b"old", 1), (b"old", 2)]


def test_a_stream_that_is_refused_is_asked_for_each_time() -> None:
    rig = Rig()
    rig.bench.ste(SID, V=0)
    rig.bench.invalidate(c.CMD_CFGI_STE.of(SID=SID))
    misses = rig.bench.smmu.configuration.misses
    rig.read()
    rig.read()
    assert (rig.bench.smmu.configuration.misses - misses, rig.found, len(rig.bench.events())) == (2, 0, 2)


def test_what_is_not_invalidated_stays() -> None:
    rig = Rig()
    rig.read()
    rig.change()
    assert rig.ring(c.CMD_CFGI_STE.of(SID=SID + 1), c.CMD_CFGI_CD.of(SID=SID, SSID=1), c.CMD_SYNC.of())
    assert rig.read() == b"old"


@pytest.mark.parametrize(
    "command",
    [
        c.CMD_CFGI_STE.of(SID=SID),
        c.CMD_CFGI_STE.of(SID=SID, Leaf=1),
        c.CMD_CFGI_STE_RANGE.of(SID=0, Range=0),
        c.CMD_CFGI_STE_RANGE.of(Range=31),
    ],
    ids=str,
)
def test_an_invalidation_that_the_doorbell_consumed_reaches_the_models_caches(command: c.Command) -> None:
    rig = Rig()
    rig.read()
    rig.change()
    assert rig.ring(command, c.CMD_SYNC.of())
    assert rig.read() == b"new"


@pytest.mark.parametrize("command", [c.CMD_CFGI_CD.of(SID=SID), c.CMD_CFGI_CD_ALL.of(SID=SID)], ids=str)
def test_a_cd_goes_and_its_ste_stays(command: c.Command) -> None:
    rig = Rig()
    rig.read()
    rig.bench.cd(
        STE.from_bytes(rig.bench.ram.get(rig.bench.strtab + SID * STE.size, STE.size)).S1ContextPtr, rig.other, ASID=2
    )
    rig.bench.ste(SID, V=0)
    assert rig.ring(command, c.CMD_SYNC.of())
    assert rig.read() == b"new"


def test_without_room_to_keep_an_invalidation_it_is_the_models() -> None:
    rig = Rig()
    rig.read()
    rig.change()
    fill = [c.CMD_CFGI_STE.of(SID=SID + 1)] * 64
    assert all(rig.ring(*fill) for _ in range(MOST_KEPT // len(fill)))
    assert rig.read() == b"old"  # which has asked nobody
    assert not rig.ring(c.CMD_CFGI_STE.of(SID=SID), c.CMD_SYNC.of())
    assert rig.bench[CMDQ_CONS].RD == rig.bench[CMDQ_PROD].WR
    assert rig.ring(*fill)  # there is room again
    assert rig.read() == b"new"


def test_an_l1std_goes_by_the_split_that_it_was_read_with() -> None:
    """The command is consumed before STRTAB_BASE_CFG changes, and carried out in the model's caches after that."""
    rig = Rig()
    bench = rig.bench
    leaf = bench.ram.alloc(64 * STE.size)
    first = bench.ram.alloc(64 * L1STD.size)
    bench.ram.put(leaf, bench.ram.get(bench.strtab, 64 * STE.size))
    bench.ram.put(first, L1STD.of(Span=7, L2Ptr=leaf))
    for split in (6, 8):
        bench.set(CR0, SMMUEN=0)
        bench.smmu.write(0x80, 8, first)
        bench[STRTAB_BASE_CFG] = STRTAB_BASE_CFG.of(FMT=1, SPLIT=split, LOG2SIZE=8)
        bench.set(CR0, SMMUEN=1)
        bench.invalidate(c.CMD_CFGI_STE_RANGE.of(Range=31))
        assert rig.read() == b"old"
        bench.ram.put(first, L1STD.of(Span=0))
        assert rig.ring(c.CMD_CFGI_STE.of(SID=SID), c.CMD_SYNC.of())
        bench.set(CR0, SMMUEN=0)
        bench[STRTAB_BASE_CFG] = STRTAB_BASE_CFG.of(FMT=1, SPLIT=10, LOG2SIZE=8)
        bench[STRTAB_BASE_CFG] = STRTAB_BASE_CFG.of(FMT=1, SPLIT=split, LOG2SIZE=8)
        bench.set(CR0, SMMUEN=1)
        assert rig.read() != b"old"
        bench.events()
        bench.ram.put(first, L1STD.of(Span=7, L2Ptr=leaf))


def test_contexts_give_way_to_others_and_are_asked_for_again() -> None:
    rig = Rig()
    core = rig.bench.smmu.core
    assert core is not None
    rig.read()
    context = rig.bench.smmu.configuration.kept(SID, None)
    assert context is not None
    for sid in range(1 << 16, (1 << 16) + 3 * 4096):
        rig.bench.smmu.configuration.publish(sid, None, context)
    found = rig.found
    assert (rig.read(), rig.found) == (b"old", found)
    assert (rig.read(), rig.found) == (b"old", found + 1)


def test_while_the_smmu_is_disabled_addresses_are_physical_unless_gbpa_aborts_all() -> None:
    rig = Rig()
    rig.bench.set(CR0, SMMUEN=0)
    port, core = rig.port, rig.bench.smmu.core
    assert core is not None
    assert port.read(OLD, 3) == b"old"
    assert (core.counts()[0], rig.found) == (1, 0)  # without the model
    rig.bench[GBPA] = GBPA.of(Update=1, ABORT=1)
    assert port.read(OLD, 3) == Abort(OLD, 0, Why.TERMINATED)
    rig.bench[GBPA] = GBPA.of(Update=1)
    assert port.read(OLD, 3) == b"old"
    assert port.read(1 << 55, 3) == Abort(1 << 55, 0, Why.TERMINATED)
    assert rig.bench.smmu.counters.transactions == 4
    assert rig.bench.events() == []
