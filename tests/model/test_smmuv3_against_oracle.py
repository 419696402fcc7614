# SPDX-License-Identifier: Apache-2.0
"""The SMMUv3 against the oracle: random machines, random commands, and what the comparison found.

VI_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model import oracle as o
from tests.model.examples import SCALE, TIMEOUT, examples
from tests.model.machines import MUTATIONS, Machine, Pair, put

pytestmark = TIMEOUT


SEEDS = st.integers(0, 2**32 - 1)
BENT = st.lists(st.tuples(st.sampled_from(sorted(MUTATIONS)), st.integers(0, 2**20 - 1)), max_size=3)


def compare(seed: int, bent: list[tuple[str, int]]) -> tuple[Machine, o.Result]:
    """One machine, its access made twice: the second one is served from caches where there are any."""
    machine = Machine(seed)
    for name, number in bent:
        MUTATIONS[name](machine, number)
    pair = Pair(machine)
    result = pair.translate(machine.access)
    pair.check()
    pair.translate(machine.access)
    pair.check()
    return machine, result


@examples(5000)
@given(seed=SEEDS, bent=BENT)
def test_every_machine_answers_as_the_oracle_does(seed: int, bent: list[tuple[str, int]]) -> None:
    compare(seed, bent)


def test_the_generator_reaches_every_event_outcome_and_walk() -> None:
    """What the comparison above is worth: plain seeds, each with at most one mutation."""
    seen: Counter[str] = Counter()
    for seed in range(int(4000 * min(SCALE, 4))):
        random = Random(seed)
        bent = [(random.choice(sorted(MUTATIONS)), random.getrandbits(20))] if seed % 4 else []
        machine, result = compare(seed, bent)
        seen[result.outcome] += 1
        for event in result.events:
            seen[o.EVENT_NAMES[event[0]]] += 1
        if result.outcome == o.OK and machine.registers[o.CR0] & 1 and machine.structures["ste"].value >> 1 & 7 == 5:
            seen[f"{machine.granule} level {machine.leaf}"] += 1
            seen["high" if machine.high else "low"] += 1
            seen["big-endian" if machine.big else "little-endian"] += 1
            seen["EL2" if machine.single else "EL1"] += 1
            seen["two-level stream table" if "l1std" in machine.structures else "linear stream table"] += 1
            seen["two-level CD table" if "l1cd" in machine.structures else "linear CD table"] += 1
            seen["52 bits out"] += result.pieces[0][0] >> 48 > 0
            seen["52 bits in"] += machine.txsz < 16
            seen["small table"] += machine.txsz > 39
            seen["pieces"] += len(result.pieces) > 1
    wanted = [
        *(o.OK, o.ABORT, o.RAZ_WI, *o.EVENT_NAMES.values()),
        *("12 level 1", "12 level 2", "12 level 3", "14 level 2", "14 level 3"),
        *("16 level 1", "16 level 2", "16 level 3", "high", "low", "big-endian", "little-endian", "EL1", "EL2"),
        *("two-level stream table", "linear stream table", "two-level CD table", "linear CD table"),
        *("52 bits out", "52 bits in", "small table"),
    ]
    rare = {name: seen[name] for name in wanted if seen[name] < 3}
    assert not rare, f"hardly reached: {rare} of {dict(seen)}"


def test_most_plain_machines_translate() -> None:
    outcomes = Counter(Pair(machine).translate(machine.access).outcome for machine in map(Machine, range(300)))
    assert outcomes[o.OK] > 100, outcomes


# -- sequences ---------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["command", "command", "command", "kick", "acknowledge", "access", "consume", "spoil"]),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=20,
)

OPCODES = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23, 0x30, 0x46, 0x46, 0x46]
#: Bits of each command that mean something; others are RES0, and may be looked at or not (§4.1.5).
SECURE_STREAM = 0xFFFF_FFFF << 32 | 1 << 10
BY_ADDRESS = 0x1F << 12 | 0x1F << 20 | 1 << 64 | 0xF << 72 | (2**52 - 1) << 76
FIELDS = {
    0x01: SECURE_STREAM | 1 << 11 | 0xFFFFF << 12,
    0x02: SECURE_STREAM | 1 << 11 | 0xFFFFF << 12 | 0x3FF << 64 | (2**52 - 1) << 76,
    0x03: SECURE_STREAM | 1 << 64,
    0x04: SECURE_STREAM | 0x1F << 64,
    0x05: SECURE_STREAM | 0xFFFFF << 12 | 1 << 64,
    0x06: SECURE_STREAM,
    0x11: 0xFFFF << 48,
    0x12: 0xFFFF << 48 | BY_ADDRESS,
    0x13: BY_ADDRESS,
    0x21: 0xFFFF << 48,
    0x22: 0xFFFF << 48 | BY_ADDRESS,
    0x23: BY_ADDRESS,
    0x46: 3 << 12 | 3 << 22 | 0xF << 24 | 0xFFFF_FFFF << 32 | (2**50 - 1) << 66,
}


def a_command(machine: Machine, random: Random) -> bytes:
    """Mostly legal, of each kind that there is; sometimes of a kind that there is not."""
    if random.random() < 0.06:
        return random.choice([0x00, 0x07, 0x08, 0x14, 0x18, 0x1A, 0x28, 0x2A, 0x40, 0x41, 0x44, 0x45, 0x50, 0x55, 0x60,
                              0x70, 0x73, 0x80, 0xFF]).to_bytes(16, "little")  # fmt: skip
    opcode = random.choice(OPCODES)
    command = opcode | random.getrandbits(128) & FIELDS.get(opcode, 0)
    if opcode <= 0x06 and random.random() < 0.9:
        command &= ~(1 << 10)
    if opcode & 0x2F in (0x02, 0x03, 0x12, 0x13, 0x22, 0x23) and opcode >= 0x10 and random.random() < 0.4:
        command &= ~(0x1F << 12 | 0x1F << 20)  # no range
    if opcode == 0x46:
        command = put(command, 13, 12, random.choice([0, 1, 1, 1, 2, 3] if random.random() < 0.5 else [1]))
        address = random.choice([0, *machine.doorbells, *machine.doorbells, 0x1234_5678, 1 << machine.oas])
        command = put(command, 115, 66, address >> 2)
    return command.to_bytes(16, "little")


class Driver:
    """Software that takes steps on a pair."""

    def __init__(self, seed: int) -> None:
        self.machine = Machine(seed)
        self.pair = Pair(self.machine)
        self.queue = self.machine.structures["cmdq"].at
        self.prod = self.machine.registers[o.CMDQ_PROD]

    def step(self, kind: str, number: int) -> o.Result | None:
        random = Random(number)
        pair, oracle, machine = self.pair, self.pair.oracle, self.machine
        size = machine.command_bits
        if kind == "command":
            if (self.prod ^ oracle.register(o.CMDQ_CONS)) & ((2 << size) - 1) != 1 << size:
                pair.poke(self.queue + (self.prod & ((1 << size) - 1)) * 16, a_command(machine, random))
                self.prod = (self.prod + 1) & ((2 << size) - 1)
        elif kind == "kick":
            pair.write(o.CMDQ_PROD, self.prod)
        elif kind == "acknowledge":
            # An error is mended by a CMD_SYNC in the bad command's place, as Linux does.
            if oracle.active(o.CMDQ_ERR) and random.random() < 0.8:
                at = oracle.register(o.CMDQ_CONS) & ((1 << size) - 1)
                pair.poke(self.queue + at * 16, (0x46).to_bytes(16, "little"))
            pair.write(o.GERRORN, oracle.register(o.GERROR))
        elif kind == "access":
            for name in random.sample(sorted({"kind of access", "iova bit", "ssid", "sid"}), random.randint(0, 1)):
                before = machine.access
                MUTATIONS[name](machine, number)
                result = pair.translate(machine.access)
                machine.access = before
                return result
            return pair.translate(machine.access)
        elif kind == "consume":
            # The event queue's reader catches up, in part or wholly, and acknowledges an overflow or does not.
            prod, cons = oracle.register(o.EVENTQ_PROD), oracle.register(o.EVENTQ_CONS)
            mask = (2 << machine.event_bits) - 1
            waiting = (prod - cons) & mask
            flag = random.choice([prod, cons]) & 1 << 31
            pair.write(o.EVENTQ_CONS, flag | (cons + random.randint(0, waiting)) & mask)
        elif kind == "spoil":
            # A queue or a doorbell that is no memory any more, or another one.
            name = random.choice(["IRQ_CTRL", "doorbell", "nothing"])
            if name == "IRQ_CTRL":
                pair.write(o.IRQ_CTRL, random.choice([0, 1, 4, 5]))
            elif name == "doorbell":
                pair.write(o.IRQ_CTRL, 0)
                if machine.ids["IDR0"] >> 13 & 1:
                    for cfg0 in (o.EVENTQ_IRQ_CFG0, o.GERROR_IRQ_CFG0):
                        pair.write(cfg0, random.choice([*machine.doorbells, 0x40, 0]))
                pair.write(o.IRQ_CTRL, 5)
        return None


@examples(1500)
@given(seed=SEEDS, steps=STEPS)
def test_queues_errors_and_interrupts_are_as_the_oracle_says(seed: int, steps: list[tuple[str, int]]) -> None:
    driver = Driver(seed)
    for kind, number in steps:
        driver.step(kind, number)
        driver.pair.check()


@examples(300)
@given(seed=SEEDS, which=st.sampled_from(["cmdq", "eventq"]), steps=STEPS)
def test_a_queue_that_is_no_memory_stops_as_the_oracle_says(
    seed: int, which: str, steps: list[tuple[str, int]]
) -> None:
    driver = Driver(seed)
    driver.machine.structures[which].backed = False
    driver.pair = Pair(driver.machine)
    for kind, number in steps:
        driver.step(kind, number)
        driver.pair.check()


def test_the_steps_reach_every_global_error_and_both_command_errors() -> None:
    seen: Counter[str] = Counter()
    for seed in range(400):
        random = Random(seed)
        driver = Driver(seed)
        if seed % 8 == 0:
            driver.machine.structures[random.choice(["cmdq", "eventq"])].backed = False
            driver.pair = Pair(driver.machine)
        oracle = driver.pair.oracle
        for _ in range(25):
            kind = random.choice(["command", "command", "kick", "acknowledge", "access", "access", "consume", "spoil"])
            driver.step(kind, random.getrandbits(32))
            for bit in range(8):
                seen[f"GERROR {bit}"] += oracle.active(1 << bit)
            seen["overflow"] += (oracle.register(o.EVENTQ_PROD) ^ oracle.register(o.EVENTQ_CONS)) >> 31
            if oracle.active(o.CMDQ_ERR):
                seen[f"CERROR {oracle.register(o.CMDQ_CONS) >> 24}"] += 1
        driver.pair.check()
    for name in ("GERROR 0", "GERROR 2", "GERROR 4", "GERROR 5", "GERROR 7", "overflow", "CERROR 1", "CERROR 2"):
        assert seen[name] > 3, f"{name} of {dict(seen)}"


@pytest.mark.parametrize("opcode", range(256))
def test_each_opcode_is_legal_or_not_as_the_oracle_says(opcode: int) -> None:
    for seed in (0, 1, 2, 3):
        driver = Driver(seed)
        driver.pair.poke(driver.queue + (driver.prod & (1 << driver.machine.command_bits) - 1) * 16,
                         opcode.to_bytes(16, "little"))  # fmt: skip
        driver.prod = (driver.prod + 1) & ((2 << driver.machine.command_bits) - 1)
        driver.step("kick", 0)
        driver.pair.check()
        assert driver.pair.oracle.active(o.CMDQ_ERR) or driver.pair.oracle.register(o.CMDQ_CONS) == driver.prod


# -- what the comparison found in the product --------------------------------------------------------------------------


def plain(**wanted: object) -> Machine:
    """The first machine whose attributes are as ``wanted`` and that translates."""
    for seed in range(20_000):
        machine = Machine(seed)
        if all(getattr(machine, name) == value for name, value in wanted.items()):
            oracle = o.Oracle(machine.ram(), machine.ids)
            for offset, value in machine.registers.items():
                oracle.write(offset, value)
            # An STE that translates, not one that bypasses.
            if machine.structures["ste"].value >> 1 & 7 == 5 and oracle.translate(machine.access).outcome == o.OK:
                return machine
    raise AssertionError(f"no machine with {wanted}")


def test_e0pd_means_nothing_where_all_accesses_are_privileged() -> None:
    """§5.4 CD.E0PD0: RES0 if StreamWorld is any-EL2."""
    machine = plain(single=True, e0pd=True, high=False)
    machine.structures["cd"].value |= 1 << 66
    machine.access = replace(machine.access, privileged=False)
    assert Pair(machine).translate(machine.access).outcome == o.OK


def test_low_bits_of_a_cd_table_pointer_do_not_lead_out_of_the_table() -> None:
    """§5.2 STE.S1Fmt: such bits are taken as zero, or any CD *of the table* is fetched."""
    for seed in range(20_000):
        machine = Machine(seed)
        ste = machine.structures["ste"]
        if ste.value >> 59 & 31 and ste.value >> 1 & 7 == 5 and ste.value >> 4 & 3 == 0 and machine.access.ssid:
            break
    ste.value |= 1 << 6
    Pair(machine).translate(machine.access)


def test_leaves_of_1024_cds_are_aligned_to_64_kib() -> None:
    """§5.2 STE.S1Fmt 0b10: L2Ptr[15:12] are RES0, so ignored (chapter 5) like the bits below."""
    for seed in range(20_000):
        machine = Machine(seed)
        ste = machine.structures["ste"]
        if "l1cd" in machine.structures and ste.value >> 1 & 7 == 5 and ste.value >> 4 & 3 == 2:
            break
    machine.structures["l1cd"].value |= 0xF000
    Pair(machine).translate(machine.access)


def test_a_fetch_address_beyond_the_output_size_is_recorded_without_the_bits_beyond() -> None:
    """§7.3.4: FetchAddr[55:OAS] are RES0."""
    machine = next(m for m in map(Machine, range(20_000)) if "l1std" in m.structures and m.oas < 52)
    machine.structures["l1std"].value |= 1 << 52
    result = Pair(machine).translate(machine.access)
    assert [event[0] for event in result.events] == [o.F_STE_FETCH]
