# SPDX-License-Identifier: Apache-2.0
"""Stage 2, nested walks, hardware updates, LPA2, AArch32 tables and stalls against the oracle of both stages.

VI_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model import oracle as o
from tests.model import oracle_stages as s
from tests.model.examples import SCALE, TIMEOUT, examples
from tests.model.machines import MUTATIONS as STAGE1_MUTATIONS
from tests.model.machines import put
from tests.model.machines_stages import MUTATIONS, NESTED, ONE, TWO, StagesMachine, StagesPair
from vhost_iommu.smmu.ats import AtsRequest

pytestmark = TIMEOUT


SEEDS = st.integers(0, 2**32 - 1)
BENT = st.lists(st.tuples(st.sampled_from(sorted(MUTATIONS)), st.integers(0, 2**20 - 1)), max_size=3)


def compare(seed: int, bent: list[tuple[str, int]]) -> tuple[StagesMachine, o.Result, StagesPair]:
    """One machine, its access made twice: the second time it is answered from caches where there are any."""
    machine = StagesMachine(seed)
    for name, number in bent:
        MUTATIONS[name](machine, number)
    pair = StagesPair(machine)
    result = pair.translate(machine.access)
    pair.check()
    pair.translate(machine.access)
    pair.check()
    return machine, result, pair


@examples(2000)
@given(seed=SEEDS, bent=BENT)
def test_every_machine_of_both_stages_answers_as_the_oracle_does(seed: int, bent: list[tuple[str, int]]) -> None:
    compare(seed, bent)


def shape(event: bytes) -> str:
    """What kind of record it is: its name, the stage, the class, whether it stalls."""
    record = int.from_bytes(event, "little")
    name = o.EVENT_NAMES[event[0]]
    if event[0] < o.F_WALK_EABT:
        return name
    text = f"{name} {'S2' if record & s.S2_BIT else 'S1'} {('CD', 'TT', 'IN')[o.bits(record, 105, 104)]}"
    if event[0] == o.F_PERMISSION and o.bits(record, 105, 104) == s.CLASS_TT:
        text += " read" if record & s.TTRNW_BIT else " write"
    return text + (" stall" if record & s.STALL_BIT else "")


#: The mutations of what is new with both stages.
NEW = sorted(set(MUTATIONS) - set(STAGE1_MUTATIONS))

#: Each fault at each place where it can be.
SHAPES = [
    *("C_BAD_STE", "C_BAD_CD", "F_CD_FETCH", "C_BAD_SUBSTREAMID"),
    *(f"{name} S1 IN" for name in ("F_TRANSLATION", "F_ADDR_SIZE", "F_ACCESS", "F_PERMISSION")),
    *(f"{name} S1 IN stall" for name in ("F_TRANSLATION", "F_ADDR_SIZE", "F_ACCESS", "F_PERMISSION")),
    *(f"{name} S2 {kind}" for name in ("F_TRANSLATION", "F_ADDR_SIZE", "F_ACCESS") for kind in ("CD", "TT", "IN")),
    *(f"{name} S2 {kind} stall" for name in ("F_TRANSLATION", "F_ACCESS") for kind in ("CD", "TT", "IN")),
    *("F_PERMISSION S2 CD", "F_PERMISSION S2 TT read", "F_PERMISSION S2 TT write", "F_PERMISSION S2 IN"),
    *("F_PERMISSION S2 CD stall", "F_PERMISSION S2 TT read stall", "F_PERMISSION S2 TT write stall"),
    *("F_PERMISSION S2 IN stall", "F_WALK_EABT S1 TT", "F_WALK_EABT S2 CD", "F_WALK_EABT S2 TT", "F_WALK_EABT S2 IN"),
]

MODES = {ONE: "stage 1", TWO: "stage 2", NESTED: "nested"}


def note(seen: Counter[str], machine: StagesMachine, result: o.Result, pair: StagesPair) -> None:
    seen[result.outcome] += 1
    for event in result.events:
        seen[shape(event)] += 1
    if result.outcome != o.OK or not machine.registers[o.CR0] & 1:
        return
    mode = machine.structures["ste"].value >> 1 & 7
    if mode not in MODES or mode != machine.mode:
        return
    seen[MODES[mode]] += 1
    for _, memory in pair.stages.memory:
        seen[f"{MODES[mode]}: memory {memory}"] += 1
    if mode != TWO:
        kind = "LPAE" if machine.lpae else f"{machine.granule}{' DS' if machine.ds else ''}"
        seen[f"stage 1 {kind} level {machine.leaf}"] += 1
        seen["stage 1 starts at level -1"] += "descriptor-1" in machine.structures
    if machine.stage2 is not None:
        two = machine.stage2
        kind = "LPAE" if two.lpae else f"{two.granule}{' DS' if two.ds else ''}"
        seen[f"stage 2 {kind} starts at level {two.start}"] += 1
        seen["stage 2 tables side by side"] += two.width - two.top > two.stride
        seen["stage 2 out beyond 48 bits"] += result.pieces[0][0] >> 48 > 0
    changed = {name for name, structure in machine.structures.items() if structure.size == 8 and structure.backed
               and pair.oracle.ram.read(structure.at, 8) !=
               structure.value.to_bytes(8, "big" if structure.big else "little")}  # fmt: skip
    for name in changed:
        if "descriptor" in name or "stage2" in name:
            structure = machine.structures[name]
            raw = pair.oracle.ram.read(structure.at, 8)
            assert raw is not None
            flip = int.from_bytes(raw, "big" if structure.big else "little") ^ structure.value
            table = structure.value & 2 and name not in (machine.walk[-1], *(two.leaves if machine.stage2 else ()))
            what = "table flag" if table else {1 << 10: "access flag", 1 << 7: "dirty"}.get(flip, "both")
            seen[f"{name[:6]} update: {what}"] += 1


def test_the_generator_of_both_stages_reaches_every_fault_update_and_geometry() -> None:
    """What the comparison is worth: plain seeds and ones with one mutation."""
    seen: Counter[str] = Counter()
    for seed in range(int(6000 * min(SCALE, 4))):
        random = Random(seed)
        names = sorted(MUTATIONS) if seed % 2 else NEW
        bent = [(random.choice(names), random.getrandbits(20))] if seed % 3 else []
        note(seen, *compare(seed, bent))
    wanted = [
        *(o.OK, o.ABORT, o.RAZ_WI, s.STALLED, *MODES.values()),
        *SHAPES,
        *(f"stage 1 {granule} level {level}" for granule, levels in (("12 DS", (0, 1, 2, 3)), ("14 DS", (1, 2, 3)),
          ("12", (1, 2, 3)), ("14", (2, 3)), ("16", (1, 2, 3)), ("LPAE", (1, 2, 3))) for level in levels),
        *(f"stage 2 {granule} starts at level {level}" for granule, levels in (("12 DS", (-1, 0, 1, 2, 3)),
          ("14 DS", (0, 1, 2, 3)), ("12", (0, 1, 2, 3)), ("14", (1, 2, 3)), ("16", (1, 2, 3)), ("LPAE", (1, 2)))
          for level in levels),
        *("stage 1 starts at level -1", "stage 2 tables side by side", "stage 2 out beyond 48 bits"),
        *(f"{stage} update: {what}" for stage in ("descri", "stage2") for what in
          ("access flag", "dirty", "both", "table flag")),
        *(f"{mode}: memory {kind}" for mode in MODES.values() for kind in
          ((0, 0, s.OSH), (0, 1, s.OSH), (1, 1, s.OSH), (3, 3, s.NSH), (3, 3, s.OSH), (3, 3, s.ISH))),
    ]  # fmt: skip
    never = [name for name in wanted if not seen[name]]
    assert not never, f"never reached: {never} of {dict(seen)}"


# -- what stage 2 may be -----------------------------------------------------------------------------------------------


class Driver:
    """Software with a command queue."""

    def __init__(self, machine: StagesMachine) -> None:
        self.machine = machine
        self.pair = StagesPair(machine)
        self.queue = machine.structures["cmdq"].at
        self.prod = machine.registers[o.CMDQ_PROD]

    def commands(self, *commands: int) -> None:
        size = self.machine.command_bits
        for command in commands:
            self.pair.poke(self.queue + (self.prod & ((1 << size) - 1)) * 16, command.to_bytes(16, "little"))
            self.prod = (self.prod + 1) & ((2 << size) - 1)
            self.pair.write(o.CMDQ_PROD, self.prod)

    def forget(self) -> None:
        """CMD_CFGI_ALL, CMD_TLBI_NSNH_ALL and, where there is EL2, CMD_TLBI_EL2_ALL."""
        self.commands(0x04 | 31 << 64, 0x30, *([0x20] if self.machine.hyp else []))


@pytest.mark.parametrize("oas", range(7))
def test_each_size_start_level_and_granule_of_stage_2_is_legal_or_not_as_the_oracle_says(oas: int) -> None:
    seen: Counter[bool] = Counter()
    machines = (StagesMachine(seed) for seed in range(20_000))
    of_stage2 = (
        m for m in machines if m.mode == TWO and m.stall_model == 1 and m.structures["ste"].value >> 1 & 7 == 6
    )
    for machine, number in zip(of_stage2, range(8), strict=False):
        random = Random(number)
        ids = machine.ids
        ids["IDR5"] = put(put(ids["IDR5"], 2, 0, oas), 7, 4, 7 | (oas == 6 and number % 2) << 3)
        ids["IDR3"] = put(ids["IDR3"], 9, 9, number // 2)
        ids["IDR0"] |= (number // 4 & 1) << 2
        for structure in machine.structures.values():
            structure.at &= (1 << o.OUTPUT_BITS[oas]) - 1
        for register in (o.STRTAB_BASE, o.CMDQ_BASE, o.EVENTQ_BASE):
            machine.registers[register] &= (1 << o.OUTPUT_BITS[oas]) - 1
        driver = Driver(machine)
        ste = machine.structures["ste"]
        for _ in range(int(300 * max(1.0, SCALE))):
            value = ste.value
            for high, low in ((165, 160), (167, 166), (175, 174), (194, 194), (195, 195), (178, 176)):
                value = put(value, high, low, random.getrandbits(6))
            value = put(value, 165, 160, random.choice([random.randint(10, 50), 64 - o.OUTPUT_BITS[oas], 24, 16, 12]))
            value = put(value, 247, 196, random.choice([0, 0, 0, 1 << 44, 1 << random.randint(20, 47)]))
            driver.pair.poke(ste.at, put(value, 179, 179, random.random() < 0.8).to_bytes(64, "little"))
            driver.forget()
            result = driver.pair.translate(machine.access)
            seen[any(event[0] == o.C_BAD_STE for event in result.events)] += 1
    assert min(seen[True], seen[False]) > 20, seen


# -- ATS ---------------------------------------------------------------------------------------------------------------


def ask(seed: int, bent: list[tuple[str, int]]) -> tuple[str, str]:
    """One translation request of a machine whose streams have ATS; what the oracle says to it."""
    machine, random = StagesMachine(seed), Random(seed)
    split = machine.mode == NESTED and random.random() < 0.5
    machine.ids["IDR0"] |= 1 << 10 | (not split) << 11
    ste = machine.structures["ste"]
    ste.value = put(ste.value, 93, 92, random.choice([0, 3]) if random.random() < 0.1 else 1 + split)
    ste.value = put(ste.value, 185, 185, machine.stall_model == 2)
    machine.registers[o.CR0] |= (random.random() < 0.9) << 4
    for name, number in bent:
        MUTATIONS[name](machine, number)
    pair, access = StagesPair(machine), machine.access
    no_write, execute = random.random() < 0.3, random.random() < 0.3
    if ste.value >> 64 & 3 == 1 and access.ssid is None:
        return "stage 1 may be bypassed", ""  # what that grants is not compared
    wanted, granted, page = pair.stages.request(access, no_write, execute)
    got = pair.smmu.ats_request(
        AtsRequest(access.sid, access.iova, 1, access.ssid, no_write, access.privileged, execute)
    )
    assert got.status.value == wanted, f"{access}: {got}, not {wanted}"
    if wanted != s.SUCCESS or "?" in granted:
        return wanted, granted
    entry = got.entries[0]
    letters = "".join(
        letter for letter, given in (("R", entry.read), ("W", entry.write), ("X", entry.execute)) if given
    )
    # Writing need not be granted where it was not asked for (§13.7.1).
    assert letters in ({granted, granted.replace("W", "")} if no_write else {granted}), f"{access} {got}: {granted}"
    if letters:
        offset = (access.iova & ~0xFFF) - entry.iova
        assert 0 <= offset < entry.size
        assert entry.pa + offset == page, f"{access}: {got}, not {page:#x}"
    assert not got.events
    return wanted, granted


@examples(1000)
@given(seed=SEEDS, bent=BENT)
def test_translation_requests_are_answered_as_the_oracle_says(seed: int, bent: list[tuple[str, int]]) -> None:
    ask(seed, bent)


def test_the_requests_meet_every_status_and_grant() -> None:
    seen = Counter(ask(seed, []) for seed in range(1000))
    wanted = [(s.UR, ""), (s.CA, ""), *((s.SUCCESS, granted) for granted in ("", "R", "W", "RW", "RX", "RWX"))]
    assert all(seen[each] > 2 for each in wanted), dict(seen)


# -- stalls ------------------------------------------------------------------------------------------------------------

STALL_STEPS = [*["access"] * 6, *["mend"] * 2, *["resume"] * 3, "terminate", "stall term", "consume", "consume", "off",
               "events", "wrong tag", "edit"]  # fmt: skip


class StallDriver(Driver):
    """Software that meets stalls: reads the queue late, mends tables, resumes and terminates."""

    def __init__(self, seed: int) -> None:
        for attempt in range(10_000):
            machine = StagesMachine(seed + (attempt << 33))
            if machine.stall_model != 1 and machine.registers[o.CR0] & 1:
                break
        machine.registers[o.EVENTQ_PROD] = machine.registers[o.EVENTQ_CONS] = 0
        super().__init__(machine)
        self.seen: Counter[str] = Counter()
        for name, structure in machine.structures.items():
            if name.startswith(("stage2", "descriptor")) and Random(seed).random() < 0.5:
                self.spoil(name, structure.value & ~(1 << 10))

    def spoil(self, name: str, value: int) -> None:
        structure = self.machine.structures[name]
        self.pair.poke(structure.at, value.to_bytes(8, "big" if structure.big else "little"))

    def step(self, kind: str, number: int) -> None:
        random = Random(number)
        pair, oracle, machine = self.pair, self.pair.stages, self.machine
        told = [waiting for waiting in oracle.waiting if waiting.stag is not None]
        before = len(oracle.ended)
        if kind == "access":
            access = machine.access
            if random.random() < 0.5:
                access = replace(access, write=random.random() < 0.5, privileged=random.random() < 0.5)
            result = pair.translate(access)
            self.seen["stalled, and told" if result.events else "stalled, not told"] += result.outcome == s.STALLED
        elif kind == "mend":
            for name, structure in machine.structures.items():
                if name.startswith(("stage2", "descriptor")):
                    leaf = structure.value | 1 << 10
                    if name in (machine.walk[-1:] + (machine.stage2.leaves if machine.stage2 else [])):
                        leaf = put(leaf, 7, 6, 3 if name.startswith("stage2") else 1) & ~(3 << 53)
                    self.spoil(name, leaf)
            self.forget()
        elif kind == "edit":
            names = [name for name in machine.structures if name.startswith(("stage2", "descriptor"))]
            name = random.choice(names)
            self.spoil(name, machine.structures[name].value ^ 1 << random.choice([0, 1, 6, 7, 10, 53, 54]))
            self.forget()
        elif kind in ("resume", "terminate") and told:
            waiting = random.choice(told)
            assert waiting.stag is not None
            act = 1 << 12 if kind == "resume" else random.getrandbits(1) << 13
            self.commands(0x44 | act | waiting.access.sid << 32 | waiting.stag << 64)
            self.seen[kind] += 1
        elif kind == "wrong tag" and told:
            waiting = random.choice(told)
            assert waiting.stag is not None
            sid, stag = waiting.access.sid, waiting.stag
            tags = {other.stag for other in told}
            wrong = [(sid ^ 1, stag)] + [(sid, tag) for tag in (stag ^ 1, stag + 1 & 0xFFFF) if tag not in tags]
            sid, stag = random.choice(wrong)
            self.commands(0x44 | 1 << 12 | sid << 32 | stag << 64)
        elif kind == "stall term":
            self.commands(0x45 | machine.access.sid << 32)
            self.seen["stall term"] += len(oracle.ended) > before
        elif kind == "consume":
            prod, cons = oracle.register(o.EVENTQ_PROD), oracle.register(o.EVENTQ_CONS)
            mask = (2 << machine.event_bits) - 1
            waiting_events = (prod - cons) & mask
            pair.write(o.EVENTQ_CONS, prod & 1 << 31 | (cons + random.randint(0, waiting_events)) & mask)
        elif kind == "off":
            pair.write(o.CR0, 0xC)
            self.seen["off"] += len(oracle.ended) > before
            pair.write(o.CR0, 0xD)
        elif kind == "events":
            pair.write(o.CR0, oracle.register(o.CR0) ^ 4)
        for number_ in list(oracle.ended)[before:]:
            self.seen[f"ended {oracle.ended[number_].outcome}"] += 1


@examples(400)
@given(
    seed=SEEDS,
    steps=st.lists(st.tuples(st.sampled_from(STALL_STEPS), st.integers(0, 2**32 - 1)), min_size=1, max_size=25),
)
def test_stalled_accesses_wait_and_end_as_the_oracle_says(seed: int, steps: list[tuple[str, int]]) -> None:
    driver = StallDriver(seed)
    for kind, number in steps:
        driver.step(kind, number)
        driver.pair.check()


def test_the_steps_reach_every_end_of_a_stall() -> None:
    seen: Counter[str] = Counter()
    for seed in range(250):
        random = Random(seed)
        driver = StallDriver(seed)
        for _ in range(25):
            driver.step(random.choice(STALL_STEPS), random.getrandbits(32))
            driver.pair.check()
        seen += driver.seen
    wanted = ["stalled, and told", "stalled, not told", "resume", "terminate", "stall term", "off"]
    wanted += [f"ended {outcome}" for outcome in (o.OK, o.ABORT, o.RAZ_WI)]
    assert all(seen[name] > 5 for name in wanted), dict(seen)


# -- what the comparison found in the product --------------------------------------------------------------------------


def plain(suits: Callable[[StagesMachine], bool]) -> StagesMachine:
    """The first machine that ``suits`` and whose access is translated."""
    for seed in range(20_000):
        machine = StagesMachine(seed)
        if suits(machine) and machine.structures["ste"].value >> 1 & 7 == machine.mode:
            pair = StagesPair(machine)
            if pair.oracle.translate(machine.access).outcome == o.OK:
                return machine
    raise AssertionError("no such machine")


def stage1_lpae(machine: StagesMachine) -> bool:
    bypassed = machine.structures["ste"].value >> 64 & 3 == 1 and machine.access.ssid is None
    return machine.mode == ONE and machine.lpae and not machine.single and not bypassed


def overridden(machine: StagesMachine) -> bool:
    """Whether the STE says who accesses, and how."""
    return bool(machine.structures["ste"].value >> 112 & 15)


def test_e0pd_means_nothing_with_aarch32_tables() -> None:
    """§5.4 CD.E0PD0: RES0 if CD.AA64 selects VMSAv8-32 LPAE."""
    machine = plain(lambda m: stage1_lpae(m) and m.e0pd and not m.access.privileged and not overridden(m))
    machine.structures["cd"].value |= 1 << 66 | 1 << 130
    assert StagesPair(machine).translate(machine.access).outcome == o.OK


def test_xn_of_aarch32_tables_forbids_execution_to_the_privileged_too() -> None:
    """Arm ARM, VMSAv8-32 LPAE descriptors: XN is of all accesses, PXN of the privileged ones."""
    machine = plain(
        lambda m: stage1_lpae(m) and m.access.privileged and m.access.instruction and not m.access.write
        and not overridden(m)
    )  # fmt: skip
    machine.structures[machine.walk[-1]].value |= 1 << 54
    assert StagesPair(machine).translate(machine.access).outcome != o.OK


def test_epan_means_nothing_with_aarch32_tables() -> None:
    """§5.4 CD.EPAN: RES0 if CD.AA64 selects VMSAv8-32 LPAE."""
    machine = plain(
        lambda m: stage1_lpae(m) and m.access.privileged and not m.access.instruction and not overridden(m)
        and m.structures[m.walk[-1]].value >> 6 & 1 == 0
    )  # fmt: skip
    machine.ids["IDR3"] |= 1 << 17
    machine.structures["cd"].value |= 1 << 40 | 1 << 123
    machine.structures[machine.walk[-1]].value &= ~(3 << 53)
    assert StagesPair(machine).translate(machine.access).outcome == o.OK


def test_aarch32_tables_beyond_a_smaller_oas_are_fetched_from_truncated_addresses() -> None:
    """§7.3.12: the 40-bit address of a descriptor is truncated to the OAS to make the fetch."""
    machine = plain(lambda m: stage1_lpae(m) and m.oas < 40 and len(m.walk) > 1)
    machine.structures[machine.walk[0]].value |= 1 << 39
    assert StagesPair(machine).translate(machine.access).outcome == o.OK
    machine.structures[machine.walk[1]].backed = False
    assert [shape(event) for event in StagesPair(machine).translate(machine.access).events] in (
        ["F_WALK_EABT S1 TT"],
        [],
    )


def test_t1sz_means_nothing_to_el2_with_aarch32_tables() -> None:
    """§5.4 CD.T1SZ: RES0 if StreamWorld is any-EL2; the addresses that it takes from TTB0 elsewhere stay TTB0's."""
    machine = plain(lambda m: m.mode == ONE and m.lpae and m.single and not m.txsz)
    for name in machine.walk[:1]:  # the last descriptor of level 1 serves the highest gigabyte
        machine.structures[name].at |= 0x18
    machine.access = replace(machine.access, iova=machine.access.iova | 0xC000_0000)
    machine.structures["cd"].value = put(machine.structures["cd"].value, 21, 16, 2)
    assert StagesPair(machine).translate(machine.access).outcome == o.OK


@pytest.mark.parametrize("memattr", [0b0100, 0b1000, 0b1100])
def test_reserved_values_of_ste_memattr_are_device_memory(memattr: int) -> None:
    """§5.2 STE.MemAttr: they behave as Device-nGnRnE."""
    machine = plain(lambda m: m.mode == TWO and not (m.ids["IDR3"] >> 8 & 1))
    ste = machine.structures["ste"]
    ste.value = put(ste.value, 100, 96, 16 | memattr)
    pair = StagesPair(machine)
    pair.translate(machine.access)
    assert {kind for _, kind in pair.stages.memory} == {(0, 0, s.OSH)}
