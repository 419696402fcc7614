# SPDX-License-Identifier: Apache-2.0
"""The seams of an SMMU: each is met on the core as on the reference, and nothing else can be assigned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.smmu_builder import IPA_OFFSET, RAM_BASE, Bench, PageTable
from vhost_iommu import _core
from vhost_iommu.errors import UsageError
from vhost_iommu.layout import Layout
from vhost_iommu.masters.engine import TestEngine
from vhost_iommu.masters.master import Master
from vhost_iommu.masters.port import Abort, Done, Port
from vhost_iommu.masters.storage import MemoryStorage, _Descriptor
from vhost_iommu.masters.virtio import Buffer, Virtqueue
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.memory import Memory
from vhost_iommu.register_file import RegisterFile
from vhost_iommu.sealed import SEAMS
from vhost_iommu.smmu.msm.instance import MsmIommu
from vhost_iommu.smmu.seams import Refuse, Seams, Verdict
from vhost_iommu.smmu.tlb import TlbCounters
from vhost_iommu.smmu.transaction import Outcome, Transaction
from vhost_iommu.smmu.v2.instance import Smmu as Smmuv2
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.command_queue import CommandQueue
from vhost_iommu.smmu.v3.counters import Counters
from vhost_iommu.smmu.v3.execution import Execution
from vhost_iommu.smmu.v3.registers import (
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR0ACK,
    EVENTQ_PROD,
    GERROR,
    IRQ_CTRL,
    IRQ_CTRLACK,
    STRTAB_BASE_CFG,
    CommandError,
)
from vhost_iommu.smmu.v3.reports import Reports
from vhost_iommu.smmu.v3.structures import CD, L1CD, L1STD, STE, STE_CONFIG, S1Fmt
from vhost_iommu.smmu.walk import LongTable

IOVA, PA = 0x1000, RAM_BASE + 0x10_0000

#: Where an instance has a core, and its doorbell where it is pumped; and none.
WAYS: dict[str, dict[str, Any]] = {
    "reference": {"pure": True},
    "core": {"pure": False},
    "doorbell": {"pure": False, "pumped": True},
}


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param != "reference":
        request.getfixturevalue("core_is_built")
    return Bench({"stage2": True}, **WAYS[request.param])


def cached(bench: Bench) -> PageTable:
    """A translation that is in the TLB, and gone from the table."""
    table = bench.stream()
    table.map(IOVA, PA)
    assert hits(bench)
    table.unmap(IOVA)
    assert hits(bench)
    return table


def hits(bench: Bench) -> bool:
    return bench.smmu.translate(Transaction(0, IOVA, 8)).outcome is Outcome.OK


def ask(*verdicts: Verdict | Refuse) -> tuple[list[str], Callable[[Layout], Verdict | Refuse]]:
    """A gate that gives these verdicts, and then lets commands pass; what it was asked of."""
    asked: list[str] = []
    left = list(verdicts)

    def gate(command: Layout) -> Verdict | Refuse:
        asked.append(type(command).__name__)
        return left.pop(0) if left else Verdict.EXECUTE

    return asked, gate


def test_a_command_that_the_gate_ignores_is_consumed_and_has_no_effect(bench: Bench) -> None:
    cached(bench)
    asked, bench.smmu.seams.gate = ask(Verdict.IGNORE)
    bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0))
    assert asked == ["CMD_TLBI_NH_ALL"]
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR
    assert hits(bench)
    bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0))
    assert not hits(bench)


def test_a_gate_that_is_set_while_the_doorbell_is_armed_sees_the_next_command(bench: Bench) -> None:
    bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0), c.CMD_SYNC.of())
    asked, bench.smmu.seams.gate = ask()
    bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0), c.CMD_SYNC.of())
    assert asked == ["CMD_TLBI_NH_ALL", "CMD_SYNC"]
    bench.smmu.seams.gate = None
    bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0), c.CMD_SYNC.of())
    assert len(asked) == 2


def test_a_command_that_the_gate_refuses_stops_the_queue_with_that_error(bench: Bench) -> None:
    _, bench.smmu.seams.gate = ask(Refuse("CERROR_ABT"))
    bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0))
    assert bench[CMDQ_CONS].ERR == CommandError.CERROR_ABT
    assert bench.active_errors == GERROR.CMDQ_ERR.mask


def test_a_command_that_the_gate_holds_waits_until_it_may_proceed(bench: Bench) -> None:
    cached(bench)
    asked, bench.smmu.seams.gate = ask(Verdict.HOLD)
    bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0))
    assert bench[CMDQ_CONS].RD != bench[CMDQ_PROD].WR
    assert hits(bench)
    bench.smmu.seams.proceed()
    assert asked == ["CMD_TLBI_NH_ALL"] * 2
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR
    assert not hits(bench)


def test_an_interrupt_is_lost_or_late_as_the_seam_says(bench: Bench) -> None:
    bench.interrupts_on()
    held: list[Callable[[], None]] = []
    verdicts = [Verdict.IGNORE, Verdict.HOLD, Verdict.EXECUTE]

    def wire(source: str, send: Callable[[], None]) -> Verdict:
        held.append(send)
        return verdicts.pop(0)

    bench.smmu.seams.wire = wire
    for _ in range(2):
        bench.smmu.seams.raise_error("MSI_EVENTQ_ABT_ERR")
        bench.acknowledge()
    assert bench.wires == []
    held[1]()
    bench.smmu.seams.raise_error("MSI_EVENTQ_ABT_ERR")
    assert bench.wires == ["gerror", "gerror"]


@pytest.mark.parametrize("verdict", [Verdict.IGNORE, Verdict.HOLD])
def test_a_message_of_a_sync_that_is_lost_lets_the_next_pass_and_a_late_one_holds_it_up(
    bench: Bench, verdict: Verdict
) -> None:
    at = bench.ram.alloc(64)
    held: list[Callable[[], None]] = []
    verdicts = [verdict]

    def message(source: str, send: Callable[[], None]) -> Verdict:
        held.append(send)
        return verdicts.pop() if verdicts else Verdict.EXECUTE

    bench.smmu.seams.message = message
    for n in (1, 2):
        bench.submit(c.CMD_SYNC.of(CS=1, MSIAddress=at, MSIData=n))
    assert bench.ram.get_u64(at) == (2 if verdict is Verdict.IGNORE else 0)
    if verdict is Verdict.HOLD:
        assert bench[CMDQ_CONS].RD != bench[CMDQ_PROD].WR
        held[0]()
        assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR
        assert bench.ram.get_u64(at) == 2


def test_an_acknowledgement_comes_after_as_many_reads_as_the_seam_says(bench: Bench) -> None:
    bench.smmu.seams.acknowledge = lambda register: 2 if register == "IRQ_CTRL" else None
    bench[IRQ_CTRL] = IRQ_CTRL.of(EVENTQ_IRQEN=1)
    assert [bench[IRQ_CTRLACK].EVENTQ_IRQEN for _ in range(3)] == [0, 0, 1]
    assert bench[CR0ACK].SMMUEN == 1


def test_a_record_for_which_the_seam_has_no_room_is_lost_and_overflows(bench: Bench) -> None:
    bench.stream()
    bench.smmu.seams.room = lambda queue: False
    assert not hits(bench)
    assert bench.events() == []
    assert bench[EVENTQ_PROD].OVFLG == 1
    bench.smmu.seams.room = None
    assert not hits(bench)
    assert [type(event).__name__ for event in bench.events()] == ["F_TRANSLATION"]


class Aborting:
    """Aborts the first access of a kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.struck: list[int] = []

    def __call__(self, kind: str, pa: int) -> bool:
        if kind != self.kind or self.struck:
            return False
        self.struck.append(pa)
        return True


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("L1STD", "F_STE_FETCH"),
        ("STE", "F_STE_FETCH"),
        ("L1CD", "F_CD_FETCH"),
        ("CD", "F_CD_FETCH"),
        ("event", None),
        ("command", None),
        ("MSI", None),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_an_access_to_memory_aborts_as_the_seam_says_whenever_it_is_set(
    way: str, kind: str, event: str | None, late: bool, request: pytest.FixtureRequest
) -> None:
    if way != "reference":
        request.getfixturevalue("core_is_built")
    aborts = Aborting(kind)
    features = {"substream_id_bits": 8, "stream_table_levels": 2}
    bench = Bench(features, seams=Seams(memory=None if late else aborts), **WAYS[way])
    assert (bench.smmu.core is not None) == (way != "reference")
    two_levels(bench)
    bench.smmu.seams.memory = aborts
    if kind == "MSI":
        bench.submit(c.CMD_SYNC.of(CS=1, MSIAddress=bench.ram.alloc(64), MSIData=1))
        assert bench.active_errors == GERROR.MSI_CMDQ_ABT_ERR.mask
    elif kind == "command":
        bench.submit(c.CMD_SYNC.of())
        assert bench[CMDQ_CONS].ERR == CommandError.CERROR_ABT
    else:
        found = bench.smmu.translate(Transaction(0, IOVA, 8, ssid=1))
        assert found.outcome is Outcome.ABORT
        if event is None:
            assert bench.active_errors == GERROR.EVENTQ_ABT_ERR.mask
        else:
            assert [type(each).__name__ for each in bench.events()] == [event]
            bench.smmu.translate(Transaction(0, IOVA, 8, ssid=1))
            assert [type(each).__name__ for each in bench.events()] == ["F_TRANSLATION"]
    assert len(aborts.struck) == 1
    bench.smmu.seams.memory = None
    bench.acknowledge()
    bench.invalidate(c.CMD_TLBI_NH_ALL.of(VMID=0))


def two_levels(bench: Bench) -> None:
    """Stream 0 by a table of two levels, and its substreams too."""
    leaf = bench.ram.alloc(64 << 8, 64 << 8)
    bench.ram.put(bench.strtab, L1STD.of(Span=9, L2Ptr=leaf))
    bench[CR0] = bench[CR0].replace(SMMUEN=0)
    bench[STRTAB_BASE_CFG] = STRTAB_BASE_CFG.of(LOG2SIZE=8, SPLIT=8, FMT=1)
    bench[CR0] = bench[CR0].replace(SMMUEN=1)
    cds, first = bench.ram.alloc(64 * 64, 4096), bench.ram.alloc(64)
    bench.cd(cds + CD.size, PageTable(bench.ram))
    bench.ram.put(first, L1CD.of(V=1, L2Ptr=cds))
    ste = STE.of(V=1, Config=STE_CONFIG.S1, S1ContextPtr=first, S1CDMax=8, S1Fmt=S1Fmt.TWO_LEVEL_4K)
    bench.ram.put(leaf, ste)


def test_a_cd_that_stage_2_translates_aborts_as_the_seam_says(bench: Bench) -> None:
    first, _ = bench.nested()
    first.map(IOVA, PA + IPA_OFFSET)
    bench.smmu.seams.memory = aborts = Aborting("CD")
    assert not hits(bench)
    (event,) = bench.events()
    assert (type(event).__name__, event.values()["FetchAddr"]) == ("F_CD_FETCH", aborts.struck[0] & ~7)
    assert hits(bench)


# -- walks, which the core makes by itself ---------------------------------------------------------------------------


def test_while_walks_are_asked_what_was_cached_still_is_and_afterwards_too(bench: Bench) -> None:
    cached(bench)
    entries = set(bench.smmu.tlb)
    bench.smmu.seams.walk = lambda kind, pa: True
    assert set(bench.smmu.tlb) == entries
    assert hits(bench)
    assert not bench.smmu.translate(Transaction(0, IOVA + 0x10000, 8)).pieces
    assert [type(event).__name__ for event in bench.events()] == ["F_WALK_EABT"]
    bench.smmu.seams.walk = None
    assert set(bench.smmu.tlb) == entries
    assert hits(bench)
    bench.invalidate(c.CMD_TLBI_NH_ALL.of(VMID=0))
    assert not hits(bench)


def test_what_is_cached_while_walks_are_asked_stays_cached_and_can_be_invalidated(bench: Bench) -> None:
    first, _ = bench.nested()
    first.map(IOVA, PA + IPA_OFFSET)
    asked: list[int] = []

    def ask_of(kind: str, pa: int) -> bool:
        asked.append(pa)
        return False

    bench.smmu.seams.walk = ask_of
    assert hits(bench)
    assert len(asked) > 4
    entries, entries2 = set(bench.smmu.tlb), set(bench.smmu.tlb2)
    assert entries
    assert entries2
    bench.smmu.seams.walk = None
    assert (set(bench.smmu.tlb), set(bench.smmu.tlb2)) == (entries, entries2)
    first.unmap(IOVA)
    assert hits(bench)
    bench.smmu.seams.walk = lambda kind, pa: False
    bench.invalidate(c.CMD_TLBI_S12_VMALL.of(VMID=1))
    bench.smmu.seams.walk = None
    assert not hits(bench)


def test_a_walk_that_is_asked_may_clear_its_seam_and_an_invalidation_after_it_is_not_lost(bench: Bench) -> None:
    table = bench.stream()
    table.map(IOVA, PA)

    def asked(kind: str, pa: int) -> bool:
        bench.smmu.seams.walk = None
        return False

    bench.smmu.seams.walk = asked
    assert hits(bench)
    table.unmap(IOVA)
    assert hits(bench)
    bench.invalidate(c.CMD_TLBI_NH_ALL.of(VMID=0))
    assert not hits(bench)


def test_requests_of_masters_come_to_the_model_while_a_seam_of_theirs_is_set(bench: Bench) -> None:
    table = bench.stream()
    table.map(IOVA, PA)
    port = Port("m", bench.ram.memory, bench.smmu, [0])
    assert port.read(IOVA, 8) == bytes(8)
    for seam in ("walk", "translation"):
        made = bench.smmu.counters.transactions_made
        setattr(bench.smmu.seams, seam, lambda kind, what: False)
        assert port.read(IOVA, 8) == bytes(8)
        assert port.read(IOVA, 8) == bytes(8)
        assert bench.smmu.counters.transactions_made == made + 2
        setattr(bench.smmu.seams, seam, None)
        port.read(IOVA, 8)  # finds out that it may
        made = bench.smmu.counters.transactions_made
        assert port.read(IOVA, 8) == bytes(8)
        assert bench.smmu.counters.transactions_made == made + (bench.smmu.core is None)


@pytest.mark.parametrize("event", ["F_TLB_CONFLICT", "F_CFG_CONFLICT"])
def test_a_transaction_meets_a_conflict_as_the_seam_says(bench: Bench, event: str) -> None:
    cached(bench)
    bench.smmu.seams.translation = lambda kind, t: kind == event and t.iova == IOVA + 8
    assert hits(bench)
    assert bench.smmu.translate(Transaction(0, IOVA + 8, 8)).outcome is Outcome.ABORT
    (found,) = bench.events()
    assert type(found).__name__ == event
    bench.smmu.seams.translation = None
    assert bench.smmu.translate(Transaction(0, IOVA + 8, 8)).outcome is Outcome.OK


# -- service failure mode (§12.3) --------------------------------------------------------------------------------------


def test_in_service_failure_mode_nothing_passes_and_no_queue_is_accessed_until_a_reset(bench: Bench) -> None:
    table = bench.stream()
    table.map(IOVA, PA)
    port = Port("m", bench.ram.memory, bench.smmu, [0])
    assert port.read(IOVA, 8) == bytes(8)
    bench.submit(c.CMD_SYNC.of())
    bench.smmu.seams.raise_error("SFM_ERR")
    assert bench.active_errors == GERROR.SFM_ERR.mask
    bench.acknowledge()
    consumed = bench[CMDQ_CONS]
    bench.submit(c.CMD_SYNC.of())
    assert bench[CMDQ_CONS] == consumed
    for _ in range(2):
        assert isinstance(port.read(IOVA, 8), Abort)
        bench[CR0] = bench[CR0].replace(SMMUEN=0)  # which lets nothing pass either
        assert bench[CR0ACK].SMMUEN == 0
    assert bench.events() == []
    bench.smmu.reset()
    assert not isinstance(port.read(PA, 8), Abort)
    bench.start()
    assert port.read(IOVA, 8) == bytes(8)
    bench.invalidate()


def test_a_masters_transactions_become_what_its_seam_makes_of_them(bench: Bench) -> None:
    bench.stream().map(IOVA, PA)
    port = Port("m", bench.ram.memory, bench.smmu, [0])
    assert port.read(IOVA, 8) == bytes(8)
    port.rewrite = lambda t: Transaction(5, t.iova, t.size, t.write)
    assert isinstance(port.read(IOVA, 8), Abort)
    port.rewrite = None
    assert port.read(IOVA, 8) == bytes(8)


# -- what is sealed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("", "tlb"),
        ("", "translate"),
        ("", "memory"),
        ("", "gate"),
        ("execution", "CMD_TLBI_NH_ALL"),
        ("execution", "execute"),
        ("commands", "consume"),
        ("commands", "execution"),
        ("transactions", "translate"),
        ("configuration", "lookup"),
        ("stages", "translate"),
        ("tlb", "invalidate_range"),
        ("reports", "interrupt"),
        ("stalls", "resume"),
        ("enables", "in_effect"),
        ("prompt", "arm"),
    ],
)
def test_what_is_no_seam_cannot_be_assigned_and_the_seams_are_named(bench: Bench, part: str, name: str) -> None:
    owner: Any = getattr(bench.smmu, part) if part else bench.smmu
    with pytest.raises(
        UsageError, match=r"no seam.*gate, memory, walk, translation, acknowledge, message, wire, room.*docs/faults\.md"
    ):
        setattr(owner, name, lambda *given: None)


def parts(*roots: object) -> dict[str, Any]:
    """All of ours that ``roots`` consist of, by how they are reached; values that never change are none."""
    found: dict[int, tuple[str, Any]] = {}
    ahead = [(type(root).__name__, root) for root in roots]
    while ahead:
        path, part = ahead.pop(0)
        if isinstance(part, dict | list | tuple | set):
            ahead += [(f"{path}[]", each) for each in (part.values() if isinstance(part, dict) else part)]
        if id(part) in found or not type(part).__module__.startswith("vhost_iommu") or isinstance(part, type | Layout):
            continue
        if getattr(getattr(part, "__dataclass_params__", None), "frozen", False):
            continue
        found[id(part)] = path, part
        slots = {name for kind in type(part).__mro__ for name in getattr(kind, "__slots__", ())}
        for name in {*getattr(part, "__dict__", {}), *slots}:
            if hasattr(part, name):
                ahead.append((f"{path}.{name}", getattr(part, name)))
    return dict(found.values())


#: Of these, numbers are assigned with each count, and are what they are set to.
COUNTS = (Counters, TlbCounters, Done)


def looked_at(model: str, pure: bool) -> dict[str, Any]:
    """The parts of an SMMU of ``model``, and of a disk and an engine behind it."""
    ram = Bench(pure=pure).ram
    smmu: Any
    if model == "smmuv2":
        smmu = Smmuv2(ram.memory, pure=pure)
    elif model == "msm":
        smmu = MsmIommu(ram.memory)
    else:
        smmu = Smmu(ram.memory, pure=pure, counter_group=True)
    ports = [Port(name, ram.memory, smmu, [sid]) for name, sid in (("disk", 1), ("engine", 2))]
    return parts(VirtioBlk("disk", ports[0], MemoryStorage(1 << 20)), TestEngine("engine", ports[1]))


@pytest.mark.parametrize("pure", [False, True], ids=["core", "reference"])
@pytest.mark.parametrize("model", ["msm", "smmuv2", "smmuv3"])
def test_no_attribute_of_any_part_is_assigned_but_what_is_open(core_is_built: None, model: str, pure: bool) -> None:
    """Whatever an SMMU and its masters consist of, today and tomorrow."""
    found = looked_at(model, pure)
    assert len(found) > 20, "the search has lost its way"
    assigned = []
    for path, part in found.items():
        compiled = type(part).__module__.startswith("vhost_iommu._core")
        methods = {
            name for kind in type(part).__mro__[:-1] for name, value in vars(kind).items()
            if callable(value) and not name.startswith("__")
        }  # fmt: skip
        names = methods if isinstance(part, COUNTS) or compiled else methods | set(getattr(part, "__dict__", {}))
        for name in names - getattr(part, "OPEN", frozenset()) - {"_sealed"}:
            if (isinstance(part, Seams) and name in SEAMS) or isinstance(part, MemoryStorage):
                continue  # a storage whose reads are replaced is not gone past
            try:
                setattr(part, name, getattr(part, name))
            except (UsageError, AttributeError):  # AttributeError: a type in C, or one with slots
                continue
            assigned.append(f"{path}.{name}")
    assert not assigned, "\n".join(assigned)


@pytest.mark.parametrize("name", ["read", "write"])
def test_requests_do_not_go_past_a_storage_that_reads_and_writes_in_its_own_way(name: str) -> None:
    storage = MemoryStorage(4096)
    assert storage.prompt is not None
    setattr(storage, name, lambda offset, data: None)
    assert storage.prompt is None
    own = type("Own", (MemoryStorage,), {name: lambda self, offset, data: None})
    assert own(4096).prompt is None


@pytest.mark.parametrize("name", ["read", "write"])
def test_requests_do_not_go_past_storages_whose_class_was_patched(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    storage = MemoryStorage(4096)
    monkeypatch.setattr(_Descriptor, name, lambda self, offset, data: None)
    assert storage.prompt is None
    monkeypatch.undo()
    assert storage.prompt is not None


@pytest.mark.parametrize(("owner", "name"), [(Virtqueue, "fetch"), (Buffer, "take"), (VirtioBlk, "serve")])
def test_a_disk_whose_requests_were_patched_is_refused_where_the_core_would_go_past_them(
    monkeypatch: pytest.MonkeyPatch, core_is_built: None, owner: type, name: str
) -> None:
    core, pure = (Port("m", bench.ram.memory, bench.smmu, [0]) for bench in (Bench(pure=False), Bench(pure=True)))
    monkeypatch.setattr(owner, name, lambda self, *given: None)
    with pytest.raises(UsageError, match=rf"{owner.__name__}\.{name} was replaced.*pure=True"):
        VirtioBlk("m", core, MemoryStorage(4096))
    VirtioBlk("m", pure, MemoryStorage(4096))


def test_there_is_no_other_seam_and_each_smmu_has_its_own(bench: Bench) -> None:
    seams: Any = bench.smmu.seams
    with pytest.raises(UsageError, match="no seam 'gat'; they are gate, "):
        seams.gat = None
    with pytest.raises(UsageError, match="another SMMU's"):
        Smmu(Memory(), seams=seams)


@pytest.mark.parametrize("name", ["read", "write", "_ask", "smmu", "memory", "copy", "serve"])
def test_of_a_port_behind_an_smmu_its_seam_alone_is_assigned(bench: Bench, name: str) -> None:
    port = Port("m", bench.ram.memory, bench.smmu, [0])
    with pytest.raises(UsageError, match=rf"Port\.{name} is no seam.*a port's 'rewrite'.*docs/faults\.md"):
        setattr(port, name, None)
    port.rewrite = lambda transaction: transaction


@pytest.mark.parametrize("name", ["port", "work", "pending_work", "read", "write", "renew"])
def test_of_a_master_no_method_is_assigned_and_no_other_port(bench: Bench, name: str) -> None:
    engine = TestEngine("m", Port("m", bench.ram.memory, bench.smmu, [0]))
    with pytest.raises(UsageError, match=rf"TestEngine\.{name} is no seam.*a port's 'rewrite'"):
        setattr(engine, name, None)
    engine.wake = lambda: None


@pytest.mark.parametrize(("owner", "name"), [(Port, "read"), (TestEngine, "pending_work"), (Master, "work")])
def test_a_master_whose_class_was_patched_is_refused_where_the_core_would_go_past_it(
    monkeypatch: pytest.MonkeyPatch, core_is_built: None, owner: type, name: str
) -> None:
    core, pure = Bench(pure=False), Bench(pure=True)
    monkeypatch.setattr(owner, name, lambda self, *given: None)
    with pytest.raises(UsageError, match=rf"{owner.__name__}\.{name} was replaced.*pure=True"):
        TestEngine("m", Port("m", core.ram.memory, core.smmu, [0]))
    TestEngine("m", Port("m", pure.ram.memory, pure.smmu, [0]))


@pytest.mark.skipif(_core.built() is None, reason="no core")
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Execution, "CMD_TLBI_NH_VA"),
        (Execution, "CMD_TLBI_NH_ALL"),
        (CommandQueue, "consume"),
        (Reports, "send_msi"),
        (Memory, "read"),
        (RegisterFile, "read"),
        (LongTable, "walk"),
        (Smmu, "translate"),
    ],
)
def test_a_class_that_was_patched_is_refused_where_the_core_would_go_past_it(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    monkeypatch.setattr(owner, name, lambda self, *given: CommandError.CERROR_NONE)
    with pytest.raises(UsageError, match=rf"{owner.__name__}\.{name} was replaced.*seam 'gate'.*pure=True"):
        Smmu(Memory(), pure=False)
    Smmu(Memory(), pure=True)
    monkeypatch.undo()
    Smmu(Memory(), pure=False)


def test_a_class_that_was_patched_has_effect_on_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Execution, "CMD_TLBI_NH_ALL", lambda self, command: CommandError.CERROR_NONE)
    bench = Bench(pure=True)
    cached(bench)
    bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0))
    assert hits(bench)
