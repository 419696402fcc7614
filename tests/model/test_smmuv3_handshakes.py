# SPDX-License-Identifier: Apache-2.0
"""CR0, IRQ_CTRL and GBPA with late acknowledgements against a naive model (IHI 0070 §6.3.9, §6.3.14, §6.3.16).

Law: the model keeps each field by itself: what is stored, what is acknowledged, how many reads are left. VI_EXAMPLES
multiplies the number of examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.model.examples import TIMEOUT, examples
from vhost_iommu.layout import Register
from vhost_iommu.memory import Memory
from vhost_iommu.smmu.transaction import Outcome, Transaction
from vhost_iommu.smmu.v3 import Features, Smmu
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.registers import (
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR0ACK,
    CR1,
    CR2,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_IRQ_CFG1,
    EVENTQ_PROD,
    GBPA,
    GERROR,
    GERROR_IRQ_CFG1,
    GERRORN,
    IRQ_CTRL,
    IRQ_CTRLACK,
    PRIQ_BASE,
    PRIQ_IRQ_CFG1,
    STRTAB_BASE,
)

pytestmark = TIMEOUT

RAM = 0x4000_0000
COMMANDS, EVENTS = RAM, RAM + 0x1000
QUEUE_BITS = 3
INDEX = (2 << QUEUE_BITS) - 1
FEATURES = Features(stage2=True, vmid_wildcards=True, ats="full", pri=True)
#: No command has this opcode.
ILLEGAL = 0xFF

#: The mask of each field that is acknowledged.
CR0_FIELDS = {name: getattr(CR0, name).mask for name in ("SMMUEN", "PRIQEN", "EVENTQEN", "CMDQEN", "ATSCHK", "VMW")}
IRQ_FIELDS = {name: getattr(IRQ_CTRL, name).mask for name in ("GERROR_IRQEN", "PRIQ_IRQEN", "EVENTQ_IRQEN")}

#: What is guarded, by which field, and a bit of it that does nothing else.
GUARDED: list[tuple[type[Register], int, tuple[str, ...]]] = [
    (CMDQ_BASE, CMDQ_BASE.RA.mask, ("CMDQEN",)),
    (EVENTQ_BASE, EVENTQ_BASE.WA.mask, ("EVENTQEN",)),
    (PRIQ_BASE, PRIQ_BASE.WA.mask, ("PRIQEN",)),
    (STRTAB_BASE, STRTAB_BASE.RA.mask, ("SMMUEN",)),
    (CR2, CR2.RECINVSID.mask, ("SMMUEN",)),
    (CR1, CR1.QUEUE_SH.mask, ("CMDQEN", "EVENTQEN", "PRIQEN")),
    (CR1, CR1.TABLE_SH.mask, ("SMMUEN",)),
    (GERROR_IRQ_CFG1, GERROR_IRQ_CFG1.DATA.mask, ("GERROR_IRQEN",)),
    (EVENTQ_IRQ_CFG1, EVENTQ_IRQ_CFG1.DATA.mask, ("EVENTQ_IRQEN",)),
    (PRIQ_IRQ_CFG1, PRIQ_IRQ_CFG1.DATA.mask, ("PRIQ_IRQEN",)),
]


@dataclass
class Updated:
    """One field: an update takes ``delay`` reads, and none can be put in its place meanwhile (§6.3.9)."""

    mask: int
    delay: int
    stored: int = 0
    acked: int = 0
    left: int = 0  #: reads until it is acknowledged; 0: it is
    written: int = 0  #: when

    def write(self, value: int, when: int = 0) -> None:
        value &= self.mask
        if value == self.stored:
            return
        if self.left and value != self.acked:
            return  # "The new value is ignored and Update completes using the first value"
        # "Cease Update if the new value is the same as the original value before the first write"
        self.left = 0 if self.left else self.delay
        self.stored, self.written = value, when
        if not self.left:
            self.acked = value

    def read(self) -> bool:
        """Count a register read; whether the update takes effect with it."""
        due = self.left == 1
        self.left = max(self.left - 1, 0)
        if due:
            self.acked = self.stored
        return due

    @property
    def closed(self) -> bool:
        """Whether what the field guards cannot be written."""
        return bool(self.stored | self.acked)


class World:
    """An SMMU, and beside it what software may expect of it."""

    def __init__(self, delay: int) -> None:
        self.delay = delay
        self.ram = bytearray(0x2000)
        self.wires: list[str] = []
        self.smmu = Smmu(Memory((RAM, self.ram)), FEATURES, acknowledge_after=delay, interrupt=self.wires.append)
        self.serial = 0
        self.power_on()

    def power_on(self) -> None:
        """What a reset leaves, and the queues' bases, which nothing guards then."""
        self.fields = {name: Updated(mask, self.delay) for name, mask in {**CR0_FIELDS, **IRQ_FIELDS}.items()}
        self.gbpa = Updated(GBPA.ABORT.mask | GBPA.ALLOCCFG.mask | GBPA.SHCFG.mask, self.delay)
        self.gbpa.stored = self.gbpa.acked = GBPA.of(SHCFG=1).raw
        self.guarded: dict[type[Register], int] = {register: 0 for register, _, _ in GUARDED}
        self.commands: list[int] = []
        self.command_prod = self.command_cons = 0
        self.stopped = False
        self.event_prod = self.event_cons = 0
        self.overflow = False
        self.gerror = self.gerrorn = 0
        self.expected: list[str] = []
        self.wires.clear()
        self.write(CMDQ_BASE, CMDQ_BASE.of(ADDR=COMMANDS, LOG2SIZE=QUEUE_BITS).raw)
        self.write(EVENTQ_BASE, EVENTQ_BASE.of(ADDR=EVENTS, LOG2SIZE=QUEUE_BITS).raw)
        self.write(CR2, CR2.of(RECINVSID=1).raw)
        self.guarded[CMDQ_BASE] = COMMANDS | QUEUE_BITS
        self.guarded[EVENTQ_BASE] = EVENTS | QUEUE_BITS
        self.guarded[CR2] = CR2.of(RECINVSID=1).raw

    # -- software's side -------------------------------------------------------------------------------------

    def write(self, register: type[Register], value: int) -> None:
        self.smmu.write(register.at, register.size, value)

    def value_of(self, register: type[Register]) -> int:
        """What ``register`` must read as now."""
        fields = CR0_FIELDS if register in (CR0, CR0ACK) else IRQ_FIELDS
        if register in (CR0, IRQ_CTRL):
            return sum(self.fields[name].stored for name in fields)
        if register in (CR0ACK, IRQ_CTRLACK):
            return sum(self.fields[name].acked for name in fields)
        if register is GBPA:
            return self.gbpa.stored | (GBPA.Update.mask if self.gbpa.left else 0)
        own: dict[type[Register], int] = {
            CMDQ_CONS: self.command_cons,
            EVENTQ_PROD: self.event_prod,
            GERROR: self.gerror,
        }
        return own[register] if register in own else self.guarded[register]

    def read(self, register: type[Register]) -> None:
        wanted = self.value_of(register)
        got = self.smmu.read(register.at, register.size)
        if register is CMDQ_CONS:
            got = CMDQ_CONS(got).RD
        if register is EVENTQ_PROD:
            got = EVENTQ_PROD(got).WR
        assert got == wanted, f"{register.__name__} is {got:#x}, not {wanted:#x}"
        # What is acknowledged with the same read takes effect in the order in which it was written.
        for field in sorted(self.fields.values(), key=lambda field: field.written):
            if field.read() and field is self.fields["CMDQEN"]:
                self.consume()
        self.gbpa.read()

    def write_fields(self, register: type[Register], fields: dict[str, int], value: int) -> None:
        enabled = self.fields["CMDQEN"].acked
        self.serial += 1
        for name in fields:
            self.fields[name].write(value, self.serial)
        self.write(register, value)
        if self.fields["CMDQEN"].acked and not enabled:
            self.consume()

    def write_gbpa(self, value: int) -> None:
        # "A write when an Update == 1 is IGNORED", and so is one without it (§6.3.14.1).
        if value & GBPA.Update.mask and not self.gbpa.left:
            self.gbpa.write(value)
            self.gbpa.left = self.gbpa.delay
        self.write(GBPA, value)

    def write_guarded(self, index: int, value: int) -> None:
        register, mask, guards = GUARDED[index]
        written = self.guarded[register] & ~mask | value & mask
        if not any(self.fields[name].closed for name in guards):
            self.guarded[register] = written
        self.write(register, written)

    # -- what has effects ------------------------------------------------------------------------------------

    def interrupt(self, source: str, enable: str) -> None:
        if self.fields[enable].acked:
            self.expected.append(source)

    def submit(self, legal: bool) -> None:
        if len(self.commands) == 1 << QUEUE_BITS:
            return
        at = (self.command_prod % (1 << QUEUE_BITS)) * 16
        command = c.CMD_TLBI_NSNH_ALL.of().raw if legal else ILLEGAL
        self.ram[at : at + 16] = command.to_bytes(16, "little")
        self.commands.append(command)
        self.command_prod = self.command_prod + 1 & INDEX
        self.write(CMDQ_PROD, self.command_prod)
        self.consume()

    def consume(self) -> None:
        """Commands are consumed while the acknowledged CMDQEN is 1 (§6.3.9.3)."""
        while self.commands and self.fields["CMDQEN"].acked and self.gerror == self.gerrorn:
            if self.commands[0] == ILLEGAL:
                self.gerror ^= GERROR.CMDQ_ERR.mask
                self.interrupt("gerror", "GERROR_IRQEN")
                return
            del self.commands[0]
            self.command_cons = self.command_cons + 1 & INDEX

    def mend(self) -> None:
        """Replace the command at fault, and acknowledge."""
        if self.gerror == self.gerrorn:
            return
        at = (self.command_cons % (1 << QUEUE_BITS)) * 16
        self.commands[0] = c.CMD_TLBI_NSNH_ALL.of().raw
        self.ram[at : at + 16] = self.commands[0].to_bytes(16, "little")
        self.gerrorn = self.gerror
        self.write(GERRORN, self.gerrorn)
        self.consume()

    def transaction(self) -> None:
        """By a stream that no table has: refused with an event, or passed by GBPA."""
        self.serial += 1
        answer = self.smmu.translate(Transaction(sid=self.serial & 0xFFFF | 1, iova=0x1000))
        if not self.fields["SMMUEN"].acked:
            outcome = Outcome.ABORT if self.gbpa.acked & GBPA.ABORT.mask else Outcome.OK
            assert (answer.outcome, answer.events) == (outcome, [])
            return
        assert answer.outcome is Outcome.ABORT
        recorded = self.guarded[CR2] & CR2.RECINVSID.mask and self.fields["EVENTQEN"].acked
        held = self.event_prod - self.event_cons & INDEX
        if recorded and held < 1 << QUEUE_BITS:
            self.event_prod = self.event_prod + 1 & INDEX
            if not held:
                self.interrupt("eventq", "EVENTQ_IRQEN")

    def take_events(self) -> None:
        self.event_cons = self.event_prod
        self.write(EVENTQ_CONS, self.event_cons)

    def reset(self) -> None:
        self.smmu.reset()
        self.power_on()


READ: list[type[Register]] = [
    *(CR0, CR0ACK, IRQ_CTRL, IRQ_CTRLACK, GBPA, CMDQ_CONS, EVENTQ_PROD, GERROR),
    *dict.fromkeys(each for each, _, _ in GUARDED),
]
CR0_BITS = sum(CR0_FIELDS.values())


class Handshakes(RuleBasedStateMachine):
    world: World

    @initialize(delay=st.integers(0, 4))
    def start(self, delay: int) -> None:
        self.world = World(delay)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            for register in READ * 2:
                self.world.read(register)

    def checked(self) -> None:
        assert self.world.wires == self.world.expected

    @rule(registers=st.lists(st.sampled_from(READ), min_size=1, max_size=4))
    def read(self, registers: list[type[Register]]) -> None:
        for register in registers:
            self.world.read(register)
        self.checked()

    @rule(value=st.integers(0, CR0_BITS) | st.sampled_from([0, 0xD, 0xF, 0x1, 0xC]))
    def write_cr0(self, value: int) -> None:
        self.world.write_fields(CR0, CR0_FIELDS, value & CR0_BITS)
        self.checked()

    @rule(value=st.integers(0, 7))
    def write_irq_ctrl(self, value: int) -> None:
        self.world.write_fields(IRQ_CTRL, IRQ_FIELDS, value)
        self.checked()

    @rule(update=st.booleans(), abort=st.booleans(), shcfg=st.integers(0, 3))
    def write_gbpa(self, update: bool, abort: bool, shcfg: int) -> None:
        self.world.write_gbpa(GBPA.of(Update=update, ABORT=abort, SHCFG=shcfg).raw)

    @rule(index=st.integers(0, len(GUARDED) - 1), ones=st.booleans())
    def write_guarded(self, index: int, ones: bool) -> None:
        self.world.write_guarded(index, (1 << 64) - 1 if ones else 0)

    @rule(legal=st.sampled_from([True, True, False]))
    def submit(self, legal: bool) -> None:
        self.world.submit(legal)
        self.checked()

    @rule()
    def mend(self) -> None:
        self.world.mend()
        self.checked()

    @rule()
    def transaction(self) -> None:
        self.world.transaction()
        self.checked()

    @rule()
    def take_events(self) -> None:
        self.world.take_events()

    @rule(dice=st.integers(0, 3))
    def reset(self, dice: int) -> None:
        if not dice:
            self.world.reset()


def test_updates_are_late_whole_and_one_at_a_time() -> None:
    run_state_machine_as_test(
        Handshakes,
        settings=examples(300, steps=40),
    )


# -- the rules, one by one -----------------------------------------------------------------------------------


def smmu(delay: int = 2, **options: Any) -> Smmu:
    return Smmu(Memory((RAM, bytearray(0x1000))), FEATURES, acknowledge_after=delay, **options)


def acknowledged(smmu: Smmu, reads: int) -> int:
    """CR0ACK after so many reads."""
    for _ in range(reads):
        smmu.read(CR0.at, 4)
    return smmu.read(CR0ACK.at, 4)


def test_fields_written_one_after_the_other_are_all_in_effect_in_the_end() -> None:
    """§6.3.9: each field "is independent and unaffected by ongoing update procedures of adjacent fields"."""
    tested = smmu()
    tested.write(CR0.at, 4, CR0.of(SMMUEN=1).raw)
    assert acknowledged(tested, 0) == 0
    tested.write(CR0.at, 4, CR0.of(SMMUEN=1, EVENTQEN=1).raw)
    assert acknowledged(tested, 0) == 0
    assert acknowledged(tested, 0) == CR0.of(SMMUEN=1).raw
    assert acknowledged(tested, 0) == CR0.of(SMMUEN=1, EVENTQEN=1).raw


def test_an_enable_that_is_taken_back_in_time_never_happens() -> None:
    """§6.3.9: "Cease Update if the new value is the same as the original value"; no side effect occurs."""
    tested = smmu()
    tested.write(CR0.at, 4, CR0.of(SMMUEN=1).raw)
    assert acknowledged(tested, 0) == 0
    tested.write(CR0.at, 4, 0)
    assert [acknowledged(tested, 0) for _ in range(6)] == [0] * 6
    assert tested.read(CR0.at, 4) == 0


def test_a_value_written_over_one_that_is_on_its_way_is_ignored() -> None:
    """§6.3.9: "The new value is ignored and Update completes using the first value", from SMMUv3.2 on."""
    tested = smmu()
    tested.write(CR0.at, 4, CR0.of(VMW=1).raw)
    tested.write(CR0.at, 4, CR0.of(VMW=2, EVENTQEN=1).raw)
    assert CR0(tested.read(CR0.at, 4)).VMW == 1
    assert acknowledged(tested, 4) == CR0.of(VMW=1, EVENTQEN=1).raw


def test_gbpa_counts_when_its_update_has_completed() -> None:
    """§6.3.14.1: transactions that arrive "after completion of a GBPA update" take the new values."""
    tested = smmu()
    tested.write(GBPA.at, 4, GBPA.of(Update=1, ABORT=1).raw)
    assert GBPA(tested.read(GBPA.at, 4)).ABORT, "the new value is observable to reads at once"
    assert tested.translate(Transaction(0, 0)).outcome is Outcome.OK
    tested.write(GBPA.at, 4, GBPA.of(Update=1, ABORT=0).raw)  # ignored: one is under way
    tested.read(GBPA.at, 4)
    assert tested.translate(Transaction(0, 0)).outcome is Outcome.ABORT
