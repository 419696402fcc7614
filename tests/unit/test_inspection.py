# SPDX-License-Identifier: Apache-2.0
"""What can be asked of an SMMUv3: explanations agree with what it does, caches that are stale show, and nothing is
changed by asking."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from tests.smmu_builder import RAM_BASE, Bench, PageTable
from vhost_iommu.lab.plain import plain, restored
from vhost_iommu.memory import MemoryLike
from vhost_iommu.models import MODELS
from vhost_iommu.smmu.inspection import Inspection, Run, State
from vhost_iommu.smmu.transaction import Outcome, Transaction
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.registers import CR0, CR2
from vhost_iommu.smmu.v3.structures import STE_CONFIG

FEATURES = {"stage2": True, "stall_model": "both", "hardware_updates": "dirty"}
MODEL = MODELS["smmuv3"]
IOVA, PA = 0x12_3000, RAM_BASE + 0x20_0000


@dataclass
class Live:
    """Memory as it is."""

    memory: MemoryLike
    reads: list[int] = field(default_factory=list)

    def read(self, pa: int, size: int) -> bytes | None:
        self.reads.append(pa)
        return self.memory.read(pa, size)

    def lacks(self, pa: int) -> bool:
        return False


def inspect(bench: Bench) -> Inspection:
    state = MODEL.state(bench.smmu, caches=True)
    return MODEL.inspect(restored(State, json.loads(json.dumps(plain(state)))), Live(bench.ram.memory))


def stage1(bench: Bench) -> None:
    bench.stream().map(IOVA, PA)


def stage2(bench: Bench) -> None:
    bench.stage2().map(IOVA, PA, S2AP=1)


def nested(bench: Bench) -> None:
    first, second = bench.nested()
    first.map(IOVA, 0x5000)
    second.map(0x5000, PA)


def unmapped(bench: Bench) -> None:
    bench.stream()


def nested_without_output(bench: Bench) -> None:
    first, _ = bench.nested()
    first.map(IOVA, 0x5000)


def table_in_nowhere(bench: Bench) -> None:
    table = bench.stream()
    table.map(IOVA, PA)
    table.change(IOVA, 1, NextTable=0x2000_0000)


def no_access_flag(bench: Bench) -> None:
    bench.stream().map(IOVA, PA, AF=0)


def read_only(bench: Bench) -> None:
    bench.stream().map(IOVA, PA, AP=3)


def unrecorded(bench: Bench) -> None:
    bench.stream(cd={"R": 0})


def bad_cd(bench: Bench) -> None:
    bench.stream(cd={"T0SZ": 3})


def bad_ste(bench: Bench) -> None:
    bench.ste(0, Config=STE_CONFIG.S2)


def no_ste(bench: Bench) -> None:
    pass


def aborting(bench: Bench) -> None:
    bench.ste(0, Config=STE_CONFIG.ABORT)


def bypassing(bench: Bench) -> None:
    bench.ste(0, Config=STE_CONFIG.BYPASS)


def off(bench: Bench) -> None:
    bench.set(CR0, SMMUEN=0)


def failed(bench: Bench) -> None:
    stage1(bench)
    bench.smmu.seams.raise_error("SFM_ERR")


def stalling(bench: Bench) -> None:
    bench.stream(cd={"S": 1})


SETUPS = (
    stage1, stage2, nested, unmapped, nested_without_output, table_in_nowhere, no_access_flag, read_only, unrecorded,
    bad_cd, bad_ste, no_ste, aborting, bypassing, off, stalling, failed,
)  # fmt: skip


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("setup", SETUPS)
def test_an_explanation_ends_as_the_transaction_does(setup: Callable[[Bench], None], write: bool) -> None:
    bench = Bench(FEATURES)
    setup(bench)
    transaction = Transaction(0, IOVA + 0x24, write=write)
    said = inspect(bench).explain(transaction)
    answer = bench.smmu.translate(transaction)
    assert said.end.outcome == answer.outcome.value
    assert said.end.pa == (answer.pieces[0].pa if answer.pieces else None)
    event = answer.stall.event if answer.stall is not None else answer.events[0] if answer.events else None
    assert said.end.recorded == (event is not None)
    if event is not None:
        assert said.end.event == event
        assert said.causes
    assert said.end.text
    assert said.missing == ()


@pytest.mark.parametrize("setup", SETUPS)
def test_to_explain_changes_nothing(setup: Callable[[Bench], None]) -> None:
    bench = Bench(FEATURES)
    setup(bench)
    bench.translate(IOVA)
    before = bytes(bench.ram.bytes), plain(MODEL.state(bench.smmu, caches=True))
    inspection = inspect(bench)
    inspection.explain(Transaction(0, IOVA, write=True))
    for space in inspection.spaces(0, None):
        inspection.tables(space, 0, 100)
    inspection.streams(0, 100)
    assert (bytes(bench.ram.bytes), plain(MODEL.state(bench.smmu, caches=True))) == before


def test_each_descriptor_that_is_read_is_a_step() -> None:
    bench = Bench(FEATURES)
    stage1(bench)
    said = inspect(bench).explain(Transaction(0, IOVA))
    assert [step.what for step in said.steps] == [
        "STE", "CD", "stage 1 level 0", "stage 1 level 1", "stage 1 level 2", "stage 1 level 3", "stage 1 permission",
    ]  # fmt: skip
    assert said.steps[0].at == bench.strtab


def test_of_both_stages_each_read_of_the_first_is_translated_by_the_second() -> None:
    bench = Bench(FEATURES)
    nested(bench)
    steps = [step.what for step in inspect(bench).explain(Transaction(0, IOVA)).steps]
    assert steps[:6] == ["STE", *(f"stage 2 level {n}" for n in (1, 2, 3)), "CD", "stage 2 level 1"]
    assert steps[-2:] == ["stage 1 permission", "stage 2 permission"]


def test_a_translation_that_no_command_has_invalidated_shows() -> None:
    bench = Bench(FEATURES)
    table = bench.stream()
    table.map(IOVA, PA)
    assert bench.pa(IOVA) == PA
    table.unmap(IOVA)
    said = inspect(bench).explain(Transaction(0, IOVA))
    assert said.end.outcome == "abort"
    assert said.cached is not None
    assert said.cached.pa == PA
    assert "no CMD_TLBI_" in said.differs[0]
    bench.invalidate(c.CMD_TLBI_NH_ASID.of(ASID=1))
    said = inspect(bench).explain(Transaction(0, IOVA))
    assert said.cached is None
    assert said.differs == ()


def test_an_ste_that_no_command_has_invalidated_shows() -> None:
    bench = Bench(FEATURES)
    stage1(bench)
    assert bench.pa(IOVA) == PA
    bench.ste(0, Config=STE_CONFIG.ABORT)
    said = inspect(bench).explain(Transaction(0, IOVA))
    assert said.end.text == "STE.Config aborts, without a record"
    assert said.cached is not None
    assert said.cached.outcome == "ok"
    assert "STE of 0x0: Config is cached as 5(S1), in memory 0(ABORT)" in said.differs[0]


def test_of_a_structure_that_is_illegal_the_field_is_named() -> None:
    bench = Bench(FEATURES)
    bad_cd(bench)
    said = inspect(bench).explain(Transaction(0, IOVA))
    assert "T0SZ is 3; it would be legal with 0x10" in said.end.text
    assert "T0SZ" in inspect(bench).substreams(0, 0, 10).streams[0].wrong[0]


def test_an_access_flag_that_hardware_would_set_is_told_and_not_set() -> None:
    bench = Bench(FEATURES)
    table = bench.stream(cd={"HA": 1})
    table.map(IOVA, PA, AF=0)
    said = inspect(bench).explain(Transaction(0, IOVA))
    assert said.end.pa == PA
    assert any("hardware would write" in step.text for step in said.steps)
    assert not table.read(table.entry(IOVA)) & 1 << 10


def test_a_stream_that_is_not_recorded_says_so() -> None:
    bench = Bench(FEATURES)
    bench.set(CR0, SMMUEN=0)
    bench.set(CR2, RECINVSID=0)
    bench.set(CR0, SMMUEN=1)
    said = inspect(bench).explain(Transaction(0x1000, IOVA))
    assert said.end.text == "C_BAD_STREAMID, not recorded as CR2.RECINVSID is 0"


# -- streams and tables ----------------------------------------------------------------------------------------


def test_streams_are_listed_in_pieces() -> None:
    bench = Bench(FEATURES)
    for sid in (1, 5, 9, 63):
        bench.ste(sid, Config=STE_CONFIG.BYPASS)
    inspection = inspect(bench)
    first = inspection.streams(0, 3)
    assert [each.sid for each in first.streams] == [1, 5, 9]
    assert first.next is not None
    rest = inspection.streams(first.next, 3)
    assert [each.sid for each in rest.streams] == [63]
    assert rest.next is None


def runs_of(bench: Bench, limit: int = 1000) -> list[Run]:
    inspection = inspect(bench)
    (space,) = inspection.spaces(0, None)
    found: list[Run] = []
    at: int | None = space.start
    while at is not None:
        piece = inspection.tables(space, at, limit)
        found += piece.runs
        at = piece.next
    return found


@pytest.mark.parametrize("granule", [12, 14, 16])
@pytest.mark.parametrize("limit", [1, 1000])
def test_a_table_is_told_in_runs(granule: int, limit: int) -> None:
    bench = Bench(FEATURES)
    table = PageTable(bench.ram, granule, 40)
    page = 1 << granule
    bench.stream(table=table)
    table.map(0, PA)
    table.map(page, PA + page)
    table.map(2 * page, PA + 2 * page, AP=3)
    table.map(1 << 38, PA)
    table.map(1 << 39, RAM_BASE & -1 << 29, level=2)
    runs = runs_of(bench, limit)
    assert [(run.start, run.size, run.output) for run in runs] == [
        (0, 2 * page, PA),
        (2 * page, page, PA + 2 * page),
        (1 << 38, page, PA),
        (1 << 39, 1 << granule + granule - 3, RAM_BASE & -1 << 29),
    ]


def test_what_is_broken_in_a_table_is_told() -> None:
    bench = Bench(FEATURES)
    table_in_nowhere(bench)
    (run,) = runs_of(bench)
    assert run.output is None
    assert "nothing answers" in run.access


def test_a_table_that_is_its_own_subtable_ends() -> None:
    bench = Bench(FEATURES)
    table = bench.stream()
    for entry in range(512):
        bench.ram.put_u64(table.at + 8 * entry, table.at | 3 | 1 << 10)
    inspection = inspect(bench)
    (space,) = inspection.spaces(0, None)
    piece = inspection.tables(space, 0, 10)
    assert piece.next is not None
    assert len(piece.runs) <= 10


def test_a_high_half_has_high_addresses() -> None:
    bench = Bench(FEATURES)
    table = PageTable(bench.ram, 12, 39)
    bench.ste(0, Config=STE_CONFIG.S1, S1ContextPtr=bench.cd(high=table))
    table.map(0, PA)
    (run,) = runs_of(bench)
    assert run.start == (1 << 64) - (1 << 39)
    assert bench.pa(run.start) == PA


def test_queues_are_told_with_what_was_consumed_and_what_waits() -> None:
    bench = Bench(FEATURES)
    bench.invalidate(c.CMD_TLBI_NSNH_ALL.of())
    inspection = inspect(bench)
    cmdq, eventq = inspection.queues()
    assert (cmdq.producer, cmdq.consumer, cmdq.waiting, cmdq.error) == (2, 2, 0, "")
    assert (eventq.base, eventq.size) == (bench.eventq, 16)
    kinds = [type(entry.entry).__name__ for entry in inspection.entries("cmdq", 2)]
    assert kinds == ["CMD_TLBI_NSNH_ALL", "CMD_SYNC"]
    bench.submit(c.Command(0xFF))
    cmdq, _ = inspect(bench).queues()
    assert (cmdq.waiting, cmdq.error) == (1, "CERROR_ILL")


def test_memory_of_any_content_is_answered() -> None:
    """Of what a guest may have written, at any time."""
    random = Random(5)
    for _ in range(20):
        bench = Bench(FEATURES)
        bench.stream().map(IOVA, PA)
        bench.ram.bytes[:0x8000] = random.randbytes(0x8000)
        inspection = inspect(bench)
        said: Any = [inspection.streams(0, 100), inspection.queues(), inspection.entries("cmdq", 1000)]
        for sid in range(8):
            said.append(inspection.explain(Transaction(sid, IOVA)))
            said.append(inspection.substreams(sid, 0, 10))
            for space in inspection.spaces(sid, None):
                said.append(inspection.tables(space, space.start, 10))
        json.dumps(plain(said))


def test_memory_that_is_otherwise_at_each_read_is_answered() -> None:
    random = Random(6)

    class Changing(Live):
        def read(self, pa: int, size: int) -> bytes | None:
            data = super().read(pa, size)
            return data if data is None or random.random() < 0.7 else random.randbytes(size)

    bench = Bench(FEATURES)
    nested(bench)
    for _ in range(20):
        inspection = MODEL.inspect(MODEL.state(bench.smmu, caches=True), Changing(bench.ram.memory))
        for space in inspection.spaces(0, None):
            inspection.tables(space, space.start, 10)
        inspection.streams(0, 100)
        inspection.substreams(0, 0, 100)
        for _ in range(20):
            inspection.explain(Transaction(0, IOVA, write=random.random() < 0.5))


def test_a_stall_is_told() -> None:
    bench = Bench(FEATURES)
    stalling(bench)
    assert bench.translate(IOVA).outcome is Outcome.STALLED
    (stall,) = inspect(bench).state.stalls
    assert (stall.sid, stall.iova) == (0, IOVA)
    assert "stalled" in inspect(bench).said()[-1]
