# SPDX-License-Identifier: Apache-2.0
"""Faults: how they are asked for, when they strike, and that one which never did fails the run that asked for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.smmu_builder import RAM_BASE, Bench
from vhost_iommu import reference
from vhost_iommu.config import parse_machine
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.account import Account, Ledger
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.share import checkout
from vhost_iommu.guest.verdict import Verdict, unstruck
from vhost_iommu.lab.faults import FAULTS, Fault, Lab
from vhost_iommu.machine import Machine
from vhost_iommu.masters.port import Abort, Port
from vhost_iommu.smmu.ats import AtsInvalidation, PageRequest, PageResponse, PrgResponse
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.registers import (
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    EVENTQ_PROD,
    GERROR,
    IRQ_CTRL,
    IRQ_CTRLACK,
    PRIQ_BASE,
    PRIQ_PROD,
    CommandError,
)

MACHINE = """
[guest]
kind = "linux"
[[smmu]]
name = "smmu0"
[[master]]
name = "engine0"
kind = "engine"
smmu = "smmu0"
stream_ids = [1]
"""


class World:
    """A bench whose SMMU has these faults, and what is to be done later."""

    def __init__(self, *faults: str, **options: Any) -> None:
        self.late: list[tuple[float, Callable[[], None]]] = []
        self.lab = Lab(map(Fault.parse, faults), later=lambda seconds, call: self.late.append((seconds, call)))
        self.bench = Bench(seams=self.lab.seams("smmu0"), **options)

    @property
    def struck(self) -> list[int]:
        return [struck for _, _, struck in self.lab.account()]

    @property
    def consumed(self) -> bool:
        return self.bench[CMDQ_CONS].RD == self.bench[CMDQ_PROD].WR


def sync(at: int = 0) -> c.CMD_SYNC:
    return c.CMD_SYNC.of(CS=1, MSIAddress=at, MSIData=1) if at else c.CMD_SYNC.of()


# -- how they are asked for ----------------------------------------------------------------------------------------


def test_python_a_machine_file_and_the_command_line_ask_for_the_same() -> None:
    wanted = Fault("late-sync", smmu="smmu0", after=3, count=2, seconds=0.5)
    assert Fault.parse("late-sync smmu=smmu0 after=3 count=2 seconds=0.5") == wanted
    table = '[[fault]]\nkind = "late-sync"\nsmmu = "smmu0"\nafter = 3\ncount = 2\nseconds = 0.5\n'
    assert parse_machine(MACHINE + table).faults == (wanted,)
    assert Fault.parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("drop-syn", "there is no fault 'drop-syn'; did you mean 'drop-sync'"),
        ("", "there is no fault ''|cannot be read"),
        ("'", "cannot be read"),
        ("drop-sync 3", "'3' is no parameter; write it as name=value"),
        ("drop-sync aftr=3", "'aftr' is no parameter of it; did you mean 'after'"),
        ("drop-sync after=-1", "'after' is -1; make it a whole number"),
        ("drop-sync count=x", "'count' is 'x'; make it a whole number"),
        ("drop-sync master=engine0", "befalls an SMMU; name that in 'smmu', not in 'master'"),
        ("wrong-stream smmu=smmu0", "befalls a master; name that in 'master', not in 'smmu'"),
        ("gerror", "'error' is missing; it is one of CMDQ_ERR, EVENTQ_ABT_ERR, "),
        ("gerror error=SFM", "'error' is 'SFM'; it is one of CMDQ_ERR, EVENTQ_ABT_ERR, "),
        ("late-sync seconds=soon", "'seconds' is 'soon'; it is a number"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_the_mend(text: str, mend: str) -> None:
    with pytest.raises(UsageError, match=mend):
        Fault.parse(text)


@pytest.mark.parametrize(
    ("lines", "mend"),
    [
        ('kind = "drop-sync"\nsmmu = "smmu1"', r"drop-sync befalls 'smmu1', which is not here; .*'?smmu0'?"),
        ('kind = "wrong-stream"\nmaster = "disk0"', "befalls 'disk0', which is not here; .*engine0"),
        ('kind = "gerrors"', r"\[\[fault\]\]: there is no fault 'gerrors'; did you mean 'gerror'"),
        ("after = 1", r"\[\[fault\]\]: 'kind' is missing"),
    ],
)
def test_a_machine_file_that_asks_for_what_cannot_be_is_refused(lines: str, mend: str) -> None:
    with pytest.raises(UsageError, match=rf"machine\.toml: .*{mend}"):
        parse_machine(f"{MACHINE}[[fault]]\n{lines}\n")


def test_of_two_smmus_the_one_is_to_be_named() -> None:
    more = MACHINE + '[[smmu]]\nname = "smmu1"\n[[fault]]\nkind = "drop-sync"\n'
    with pytest.raises(UsageError, match=r"drop-sync may befall 2 parts; say which in 'smmu': .*smmu0, smmu1"):
        parse_machine(more)
    machine = Machine(parse_machine(more + 'smmu = "smmu1"\n'))
    assert [name for name, _, _ in machine.lab.account()] == ["smmu1"]
    assert machine.smmus["smmu0"].seams.gate is None


def test_what_happens_late_needs_somebody_who_does_it() -> None:
    with pytest.raises(UsageError, match="late-sync needs somebody who does things later"):
        Lab([Fault("late-sync")]).seams("smmu0")


# -- when they strike ----------------------------------------------------------------------------------------------


def test_a_fault_lets_as_many_chances_pass_and_strikes_as_often_as_it_was_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World("drop-tlbi after=1 count=2")
    table = world.bench.stream()
    kept = []
    for _ in range(4):
        table.map(0x1000, RAM_BASE)
        world.bench.translate(0x1000)
        table.unmap(0x1000)
        world.bench.submit(c.CMD_TLBI_NH_ALL.of(VMID=0))
        kept.append(world.bench.pa(0x1000) is not None)
    assert kept == [False, True, True, False]
    assert world.struck == [2]
    told = [record.message for record in caplog.records if "struck" in record.message]
    assert [text.partition(":")[2].split(": ")[0] for text in told] == [
        " drop-tlbi struck (1 of 2)",
        " drop-tlbi struck (2 of 2)",
    ]


@pytest.mark.parametrize("pumped", [False, True])
def test_when_the_last_has_struck_commands_are_the_cores_again(pumped: bool, core_is_built: None) -> None:
    world = World("drop-sync", pure=False, pumped=pumped)
    assert world.bench.smmu.seams.gate is not None
    world.bench.submit(sync())
    assert world.bench.smmu.seams.gate is None
    before = world.bench.smmu.counters.writes_carried_out
    world.bench.submit(sync())
    world.bench.submit(sync())
    assert (world.bench.smmu.counters.writes_carried_out > before) == pumped


def test_one_that_strikes_each_time_is_told_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    world = World("drop-sync count=0")
    for _ in range(20):
        world.bench.submit(sync())
    assert world.struck == [20]
    told = [record.message for record in caplog.records if "struck" in record.message]
    assert len(told) == 10
    assert told[-1].endswith("; the next are counted, not told")


def test_the_log_says_what_the_core_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    World("drop-sync")
    World("abort-access access=STE")
    World("abort-access access=descriptor")
    World("conflict event=F_TLB_CONFLICT")
    texts = [record.message for record in caplog.records]
    assert texts == [
        "smmu0: commands are not consumed by the compiled core while this may strike: drop-sync",
        "smmu0: commands are not consumed by the compiled core while this may strike: abort-access",
        "smmu0: commands are not consumed by the compiled core while this may strike: abort-access",
        "smmu0: the reference walks, and translates, in the compiled core's place while this may strike: abort-access",
        "smmu0: each transaction comes to the model before the compiled core translates it"
        " while this may strike: conflict",
    ]


# -- what they do --------------------------------------------------------------------------------------------------


def test_a_dropped_sync_is_consumed_and_signals_nothing() -> None:
    world = World("drop-sync")
    at = world.bench.ram.alloc(64)
    world.bench.submit(sync(at))
    assert world.consumed
    assert world.bench.ram.get_u64(at) == 0
    world.bench.submit(sync(at))
    assert world.bench.ram.get_u64(at) == 1


def test_a_dropped_cfgi_leaves_the_configuration_as_it_was() -> None:
    world = World("drop-cfgi")
    world.bench.stream().map(0x1000, RAM_BASE)
    assert world.bench.pa(0x1000) == RAM_BASE
    world.bench.ste(0, V=0)
    world.bench.submit(c.CMD_CFGI_STE.of(SID=0))
    assert world.bench.pa(0x1000) == RAM_BASE
    world.bench.submit(c.CMD_CFGI_STE.of(SID=0))
    assert world.bench.pa(0x1000) is None


def test_a_late_sync_holds_the_queue_until_its_time_comes_whatever_software_adds() -> None:
    world = World("late-sync seconds=1.5")
    world.bench.submit(sync())
    world.bench.submit(sync())
    assert not world.consumed
    ((seconds, release),) = world.late
    assert seconds == 1.5
    release()
    assert world.consumed
    assert world.struck == [1]
    assert world.bench.smmu.seams.gate is None


@pytest.mark.parametrize("error", ["ILL", "ABT", "ATC_INV_SYNC"])
def test_a_command_error_stops_the_queue_until_it_is_acknowledged(error: str) -> None:
    world = World(f"cerror error={error} after=1")
    world.bench.submit(sync(), sync(), sync())
    assert CommandError[f"CERROR_{error}"] == world.bench[CMDQ_CONS].ERR
    assert world.bench.active_errors == GERROR.CMDQ_ERR.mask
    world.bench.acknowledge()
    assert world.consumed


def test_each_global_error_is_raised() -> None:
    for error in FAULTS["gerror"].parameters()["error"].choices:
        world = World(f"gerror error={error}", features={"ats": True, "pri": True})
        world.bench.submit(sync())
        assert world.bench.active_errors == GERROR.field_named(error).mask


def test_the_nth_access_of_a_kind_aborts() -> None:
    world = World("abort-access access=descriptor after=5")
    world.bench.stream().map(0x1000, RAM_BASE, 0x4000)
    found = [world.bench.pa(0x1000 + n * 0x1000) is not None for n in range(3)]
    assert found == [True, False, True]
    assert [type(event).__name__ for event in world.bench.events()] == ["F_WALK_EABT"]


def test_an_interrupt_is_lost_or_late() -> None:
    world = World("lose-interrupt source=gerror", "late-interrupt source=gerror seconds=3 after=1")
    world.bench.interrupts_on()
    for _ in range(3):
        world.bench.smmu.seams.raise_error("MSI_EVENTQ_ABT_ERR")
        world.bench.acknowledge()
    assert world.struck == [1, 1]
    assert len(world.bench.wires) == 1
    world.late[0][1]()
    assert len(world.bench.wires) == 2


@pytest.mark.parametrize(("words", "reads"), [("reads=2", 2), ("", 50)])
def test_a_store_is_acknowledged_late_or_never(words: str, reads: int) -> None:
    world = World(f"late-acknowledge register=IRQ_CTRL {words}")
    world.bench[IRQ_CTRL] = IRQ_CTRL.of(EVENTQ_IRQEN=1)
    assert [world.bench[IRQ_CTRLACK].EVENTQ_IRQEN for _ in range(reads)] == [0] * reads
    assert bool(words) == world.bench[IRQ_CTRLACK].EVENTQ_IRQEN


def test_a_full_event_queue_loses_a_record_and_overflows() -> None:
    world = World("full-event-queue after=1")
    world.bench.stream()
    for _ in range(3):
        world.bench.translate(0x1000)
    assert len(world.bench.events()) == 2
    assert world.bench[EVENTQ_PROD].OVFLG == 1


@pytest.mark.parametrize(
    ("fault", "event"),
    [("wrong-stream sid=9", "C_BAD_STE"), ("wrong-stream ssid=3", "C_BAD_SUBSTREAMID"), ("wrong-address", "F_TRANSL")],
)
def test_a_masters_transaction_goes_astray(fault: str, event: str) -> None:
    bench = Bench({"substream_id_bits": 4})
    bench.stream().map(0x1000, RAM_BASE)
    lab = Lab([Fault.parse(f"{fault} after=1")])
    port = Port("m", bench.ram.memory, bench.smmu, [0])
    port.rewrite = lab.master("m").rewrite
    found = [port.read(0x1000, 8) for _ in range(3)]
    assert [isinstance(each, Abort) for each in found] == [False, True, False]
    assert [type(each).__name__.startswith(event) for each in bench.events()] == [True]
    assert [struck for _, _, struck in lab.account()] == [1]


def test_a_random_address_is_the_seeds() -> None:
    def astray(seed: int) -> list[int]:
        bench = Bench()
        bench.stream()
        port = Port("m", bench.ram.memory, bench.smmu, [0])
        port.rewrite = Lab([Fault("wrong-address", seed=seed, count=0)]).master("m").rewrite
        for _ in range(3):
            port.read(0x1000, 8)
        return [event.values()["InputAddr"] for event in bench.events()]

    assert astray(1) == astray(1)
    assert astray(1) != astray(2)


# -- commands that are late, or in another order ----------------------------------------------------------------------


@pytest.fixture(params=["reference", "core", "doorbell"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "reference":
        return {"pure": True}
    request.getfixturevalue("core_is_built")
    return {"pure": False, "pumped": request.param == "doorbell"}


def stale(world: World, *iovas: int) -> None:
    """These pages are cached, and mapped no more."""
    table = world.bench.stream()
    for iova in iovas:
        table.map(iova, RAM_BASE)
        assert world.bench.pa(iova) is not None
        table.unmap(iova)


def tlbi(iova: int) -> c.CMD_TLBI_NH_VA:
    return c.CMD_TLBI_NH_VA.of(VMID=0, ASID=1, Address=iova)


def test_a_late_invalidation_has_its_effect_by_the_next_sync(way: dict[str, Any]) -> None:
    world = World("late-invalidation", **way)
    stale(world, 0x1000)
    world.bench.submit(tlbi(0x1000))
    assert world.consumed
    assert world.bench.pa(0x1000) is not None
    world.bench.submit(sync())
    assert world.bench.pa(0x1000) is None
    assert world.struck == [1]
    assert world.bench.smmu.seams.gate is None


def test_a_late_invalidation_may_come_so_many_commands_after_others_syncs_too(way: dict[str, Any]) -> None:
    world = World("late-invalidation of=TLBI commands=2", **way)
    stale(world, 0x1000)
    world.bench.submit(c.CMD_CFGI_STE.of(SID=9), tlbi(0x1000), sync(), sync())
    assert world.bench.pa(0x1000) is not None
    world.bench.submit(sync())
    assert world.bench.pa(0x1000) is None


@pytest.mark.parametrize("fault", ["late-invalidation", "reorder-commands"])
def test_an_illegal_command_is_neither_late_nor_in_another_order(fault: str, way: dict[str, Any]) -> None:
    world = World(f"{fault} count=0", **way)
    world.bench.submit(tlbi(0x1000), c.CMD_TLBI_S2_IPA.of(VMID=0, Address=0))  # there is no stage 2
    assert CommandError.CERROR_ILL == world.bench[CMDQ_CONS].ERR
    assert world.bench[CMDQ_CONS].RD == 1


@pytest.mark.parametrize("fault", ["late-invalidation count=0", "reorder-commands"])
def test_what_a_fault_that_ends_has_kept_is_carried_out(fault: str, way: dict[str, Any]) -> None:
    world = World(**way)
    with world.lab.armed(Fault.parse(fault)):
        stale(world, 0x1000)
        world.bench.submit(tlbi(0x1000))
        assert world.bench.pa(0x1000) is not None
    assert world.bench.pa(0x1000) is None
    assert world.bench.smmu.seams.gate is None


def test_commands_before_a_sync_are_executed_in_an_order_of_the_seeds_and_none_after_it(
    way: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    pages = range(0x1000, 0x9000, 0x1000)

    def order(seed: int) -> str:
        caplog.clear()
        world = World(f"reorder-commands seed={seed}", **way)
        stale(world, *pages)
        world.bench.submit(*map(tlbi, pages), sync())
        assert [world.bench.pa(iova) for iova in pages] == [None] * 8
        assert world.struck == [1]
        (told,) = [record.message for record in caplog.records if "struck" in record.message]
        return told.partition("order ")[2]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(str(list(range(8))))
    assert order(1) != str(list(range(8)))


def test_what_is_no_invalidation_is_executed_in_its_place(way: dict[str, Any]) -> None:
    world = World("reorder-commands count=0", features={"stall_model": "both"}, **way)
    stale(world, 0x1000)
    world.bench.submit(tlbi(0x1000), c.CMD_RESUME.of(SID=0))
    assert world.bench.pa(0x1000) is None
    assert world.struck == [0], "one command has no other order"


def test_a_slow_queue_waits_after_each_few_commands_for_its_time_or_the_next_store(way: dict[str, Any]) -> None:
    world = World("slow-queue commands=2 seconds=0.5", "slow-queue commands=3 seconds=0", **way)
    world.bench.submit(*[sync()] * 7)
    assert world.bench[CMDQ_CONS].RD == 2
    world.bench.submit()  # a store, which is too early
    assert world.bench[CMDQ_CONS].RD == 2
    ((seconds, release),) = world.late
    assert seconds == 0.5
    release()
    assert world.bench[CMDQ_CONS].RD == 3
    world.bench.submit()
    assert world.consumed
    assert world.struck == [1, 1]
    assert world.bench.smmu.seams.gate is None


def test_only_a_sync_ends_in_a_time_out_of_its_invalidations(way: dict[str, Any]) -> None:
    world = World("cerror error=ATC_INV_SYNC", **way)
    world.bench.submit(tlbi(0x1000), sync())
    assert (world.bench[CMDQ_CONS].RD, world.bench[CMDQ_CONS].ERR) == (1, CommandError.CERROR_ATC_INV_SYNC)


def test_an_error_that_is_active_or_that_the_smmu_does_not_have_is_no_chance() -> None:
    world = World("gerror error=EVENTQ_ABT_ERR count=2", "gerror error=PRIQ_ABT_ERR")
    world.bench.submit(sync(), sync())
    assert world.struck == [1, 0]
    world.bench.acknowledge()
    world.bench.submit(sync())
    assert world.struck == [2, 0]


@pytest.mark.parametrize("event", ["F_TLB_CONFLICT", "F_CFG_CONFLICT"])
def test_the_nth_translation_meets_a_conflict(event: str, way: dict[str, Any]) -> None:
    world = World(f"conflict event={event} after=1", **way)
    world.bench.stream().map(0x1000, RAM_BASE)
    port = Port("m", world.bench.ram.memory, world.bench.smmu, [0])
    assert [isinstance(port.read(0x1000, 8), Abort) for _ in range(4)] == [False, True, False, False]
    assert [type(each).__name__ for each in world.bench.events()] == [event]
    assert world.bench.smmu.seams.translation is None


def test_when_the_last_walk_has_aborted_requests_are_the_cores_again(core_is_built: None) -> None:
    world = World("abort-access access=descriptor after=2", pure=False)
    world.bench.stream().map(0x1000, RAM_BASE)
    port = Port("m", world.bench.ram.memory, world.bench.smmu, [0])
    assert [isinstance(port.read(0x1000, 8), Abort) for _ in range(3)] == [True, False, False]
    assert world.bench.smmu.seams.walk is None
    made = world.bench.smmu.counters.transactions_made
    port.read(0x1000, 8)
    assert world.bench.smmu.counters.transactions_made == made


def test_a_full_page_request_queue_overflows_and_answers_success(way: dict[str, Any]) -> None:
    world = World("full-page-request-queue after=1", features={"ats": "full", "pri": True}, **way)
    bench = world.bench
    answers: list[PrgResponse] = []

    class Endpoint:
        def invalidate(self, request: AtsInvalidation) -> None: ...

        def page_response(self, response: PageResponse) -> None:
            answers.append(response.code)

    bench.smmu.endpoints[0] = Endpoint()
    bench[PRIQ_BASE] = PRIQ_BASE.of(ADDR=bench.ram.alloc(16 << 4), LOG2SIZE=4)
    bench.set(CR0, PRIQEN=1)
    for _ in range(3):
        bench.smmu.page_request(PageRequest(0, 0x1000, 0, read=True, last=True))
    assert answers == [PrgResponse.SUCCESS] * 2  # an overflow lasts until it is acknowledged
    assert (bench[PRIQ_PROD].WR, bench[PRIQ_PROD].OVFLG) == (1, 1)


# -- what is said of them -------------------------------------------------------------------------------------------


def test_the_account_of_a_machine_has_each_fault_and_how_often_it_struck() -> None:
    text = MACHINE + '[[fault]]\nkind = "drop-sync"\nafter = 2\n[[fault]]\nkind = "wrong-address"\n'
    machine = Machine(parse_machine(text))
    account = Account.of(machine, Ledger(machine.smmus, machine.watches), Ktap())
    assert account.json()["faults"] == [
        {"name": "smmu0", "fault": "drop-sync after=2", "struck": 0},
        {"name": "engine0", "fault": "wrong-address", "struck": 0},
    ]
    assert account.unstruck == ("drop-sync after=2", "wrong-address")
    assert ("engine0", "the fault 'wrong-address' struck never") in account.lines()


def test_a_run_whose_fault_never_struck_has_failed_by_its_name() -> None:
    assert unstruck(Verdict.PASSED, "9 of 9 tests ran", []) == (Verdict.PASSED, "9 of 9 tests ran")
    assert unstruck(Verdict.PASSED, "9 of 9 tests ran", ["drop-sync"]) == (Verdict.FAILED, "drop-sync never struck")
    assert unstruck(Verdict.SKIPPED, "", ["drop-sync"])[0] is Verdict.FAILED
    died = unstruck(Verdict.DIED, "the guest died: panic", ["drop-sync"])
    assert died == (Verdict.DIED, "the guest died: panic; drop-sync never struck")


# -- the page ------------------------------------------------------------------------------------------------------


def test_every_fault_is_declared_with_its_section_and_what_linux_does() -> None:
    for kind, declared in FAULTS.items():
        assert kind == declared.KIND
        assert declared.SECTION, kind
        assert declared.LINUX or declared.BARE, kind
        for bare in declared.BARE:
            assert Fault.parse(f"{kind} {bare.fault}")
            assert bare.then
        for seen in declared.LINUX:
            assert Fault.parse(f"{kind} {seen.fault}")
            assert seen.then


def test_the_page_of_faults_is_current() -> None:
    if checkout() is None:
        pytest.skip("docs is not part of an installed package")
    text = reference.FAULTS_PAGE.read_text(encoding="utf-8")
    assert reference.with_faults(text) == text, "run python -m vhost_iommu.reference"
