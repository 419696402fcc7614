# SPDX-License-Identifier: Apache-2.0
"""What the SMMUv3 keeps and forgets: random edits, invalidations and accesses against an oracle with caches.

Never stale after the invalidation that names it, stale for as long as nothing named it. VI_EXAMPLES multiplies
the number of examples.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.model import oracle as o
from tests.model.examples import SCALE, TIMEOUT, examples
from tests.model.machines import OUTCOMES, WIDE, show
from tests.model.oracle_caches import CachingOracle
from vhost_iommu.memory import Memory
from vhost_iommu.smmu.transaction import Transaction
from vhost_iommu.smmu.v3 import Smmu

pytestmark = TIMEOUT

NUMBERS = st.integers(0, 2**32 - 1)

SIDS = (1, 2, 65)
SSIDS = (None, 1, 2, 65, 70)
ASIDS = (1, 2)
STREAMS, LEAVES = 0x10_0000, (0x20_0000, 0x21_0000)  # L1STDs; arrays of STEs
CDS, CD_LEAVES = (0x30_0000, 0x31_0000), (0x40_0000, 0x41_0000, 0x42_0000)
TABLES = 0x1000_0000  # tables, each at a multiple of 64KB
COMMANDS = 0x50_0000
HOLE = 0x7000_0000


class World:
    """Streams, CDs and tables of which each entry has several possible values, in both memories."""

    def __init__(self, seed: int, pure: bool) -> None:
        random = Random(seed)
        self.granule = random.choice([12, 12, 14, 16])
        self.stride = self.granule - 3
        self.hyp = random.random() < 0.3
        self.e2h = random.random() < 0.5
        self.two_level_streams = random.random() < 0.5
        self.two_level_cds = random.random() < 0.5
        self.ril = random.random() < 0.8
        ids = {
            "IDR0": 1 << 1 | 2 << 2 | self.hyp << 9 | 1 << 12 | 1 << 13 | 1 << 19 | 2 << 21 | 1 << 24 | 1 << 27,
            "IDR1": 16 | 8 << 6 | 3 << 16 | 3 << 21 | 1 << 26,
            "IDR3": 1 << 2 | self.ril << 10,
            "IDR5": 5 | 7 << 4,
            "AIDR": 1,
        }
        # Every entry that may be edited: its address, and how to make it another.
        self.entries: dict[int, list[bytes]] = {}
        self.make_streams(random)
        self.make_cds(random)
        self.make_tables(random)
        ram = o.Ram()
        for at, values in self.entries.items():
            ram.back(at, len(values[0]))
        ram.back(COMMANDS, 128)
        self.oracle = CachingOracle(ram, ids)
        self.windows = ram.windows()
        self.smmu = Smmu(Memory(*self.windows), id_registers=ids, pure=pure)
        for at in self.entries:
            self.poke(at, self.entries[at][0])
        cfg = 1 << 16 | 6 << 6 | 7 if self.two_level_streams else 7
        self.write(o.STRTAB_BASE, STREAMS if self.two_level_streams else LEAVES[0])
        self.write(o.STRTAB_BASE_CFG, cfg)
        self.write(o.CR2, 2 | self.e2h)
        self.write(o.CMDQ_BASE, COMMANDS | 3)
        self.write(o.CR0, 9)
        self.prod = 0
        self.seen: Counter[str] = Counter()

    def word(self, *values: int) -> list[bytes]:
        return [value.to_bytes(8, "little") for value in values]

    def make_streams(self, random: Random) -> None:
        if self.two_level_streams:
            for index in (0, 1):
                values = self.word(*(leaf + index * 0x1000 | 7 for leaf in LEAVES), 0, HOLE | 7)
                self.entries[STREAMS + index * 8] = values
        s1fmt = 1 if self.two_level_cds else 0
        for sid in SIDS:
            for leaf in LEAVES if self.two_level_streams else LEAVES[:1]:
                valid = []
                for table in (*CDS, CDS[random.getrandbits(1)]):
                    ste = 1 | 5 << 1 | s1fmt << 4 | table | 7 << 59 | 2 << 64
                    if self.hyp and random.random() < 0.5:
                        ste |= 2 << 94
                    valid.append(ste.to_bytes(64, "little"))
                others = [bytes(64), (1 | 4 << 1).to_bytes(64, "little"), (1).to_bytes(64, "little")]
                at = leaf + (sid >> 6) * 0x1000 + (sid & 63) * 64
                self.entries[at] = valid * 2 + others

    def make_cds(self, random: Random) -> None:
        for number, base in enumerate(CDS):
            if self.two_level_cds:
                for index in (0, 1):
                    values = self.word(*(leaf + index * 0x1000 | 1 for leaf in CD_LEAVES), 0, HOLE | 1)
                    self.entries[base + index * 8] = values[number:] + values[:number]
        tg0, tg1 = {12: 0, 14: 2, 16: 1}[self.granule], {12: 2, 14: 1, 16: 3}[self.granule]
        txsz = 64 - (self.granule + 2 * self.stride + 2)
        for base in CD_LEAVES if self.two_level_cds else CDS:
            for ssid in (0, *(ssid for ssid in SSIDS if ssid)):
                values = []
                for _ in range(4):
                    cd = 1 << 31 | 1 << 41 | 1 << 45 | 1 << 46 | 5 << 32 | random.choice(ASIDS) << 48
                    cd |= txsz | txsz << 16 | tg0 << 6 | tg1 << 22
                    for low in (68, 132):
                        cd |= (TABLES + random.getrandbits(1) * 0x1_0000) >> 4 << low
                    cd |= (random.random() < 0.2) << 36 | (random.random() < 0.2) << 40 | (random.random() < 0.1) << 35
                    values.append(cd.to_bytes(64, "little"))
                self.entries[base + ssid * 64] = [*values, bytes(64)]

    def make_tables(self, random: Random) -> None:
        """Two tables of level 1, three of level 2, four of level 3; two entries of each are in use."""

        def table(number: int) -> int:
            return TABLES + number * 0x1_0000

        levels = {1: (0, 1), 2: (2, 3, 4), 3: (5, 6, 7, 8)}
        blocks = {12: (1, 2, 3), 14: (2, 3), 16: (2, 3)}[self.granule]
        for level, numbers in levels.items():
            for number in numbers:
                for index in (0, 1):
                    values = []
                    for _ in range(4):
                        if level < 3 and (level not in blocks or random.random() < 0.75):
                            values.append(table(random.choice(levels[level + 1])) | 3 | (random.random() < 0.1) << 62)
                            continue
                        shift = self.granule + self.stride * (3 - level)
                        leaf = random.getrandbits(47) >> shift << shift | (3 if level == 3 else 1)
                        leaf |= (random.random() < 0.95) << 10 | random.getrandbits(1) << 11
                        leaf |= random.choice([1, 1, 1, 0, 3]) << 6 | random.choice([0, 0, 0, 1, 2]) << 53
                        values.append(leaf)
                    self.entries[table(number) + index * 8] = self.word(*values, 0)

    def va(self, random: Random) -> int:
        va = random.getrandbits(12)
        for level in (1, 2, 3):
            va |= random.getrandbits(1) << self.granule + self.stride * (3 - level)
        if random.random() < 0.3:
            va |= (1 << 64) - (1 << (self.granule + 2 * self.stride + 2))
        return va

    # -- steps -------------------------------------------------------------------------------------------------

    def write(self, offset: int, value: int) -> None:
        self.smmu.write(offset, 8 if offset in WIDE else 4, value)
        self.oracle.write(offset, value)

    def poke(self, at: int, data: bytes) -> None:
        for step in range(0, len(data), 8):
            assert self.oracle.ram.write(at + step, data[step : step + 8])
        for base, buffer in self.windows:
            if base <= at < base + len(buffer):
                buffer[at - base : at - base + len(data)] = data

    def edit(self, number: int) -> None:
        random = Random(number)
        at = random.choice(sorted(self.entries))
        self.poke(at, random.choice(self.entries[at]))

    def access(self, number: int) -> None:
        random = Random(number)
        access = o.Access(
            sid=random.choice(SIDS),
            ssid=random.choice(SSIDS),
            iova=self.va(random),
            write=random.random() < 0.3,
            privileged=random.random() < 0.5,
            instruction=random.random() < 0.2,
        )
        fresh = o.Oracle(self.oracle.ram, {})
        fresh.__dict__.update({k: v for k, v in self.oracle.__dict__.items() if k in fresh.__dict__})
        now = show(fresh.translate(access))
        answer = self.smmu.translate(Transaction(**{name: getattr(access, name) for name in access.__slots__}))
        got = show(
            o.Result(
                OUTCOMES[answer.outcome],
                o.join((piece.pa, piece.size) for piece in answer.pieces),
                [event.to_bytes() for event in answer.events],
            )
        )
        self.oracle.choice, self.oracle.choices = 0, 1
        wanted = [show(self.oracle.translate(access))]
        for choice in range(1, self.oracle.choices):
            self.oracle.choice = choice
            wanted.append(show(self.oracle.translate(access)))
        self.seen["accesses"] += 1
        self.seen["ok"] += got.startswith(o.OK)
        self.seen["stale"] += got != now
        self.seen["ambiguous"] += len(wanted) > 1
        assert got in wanted, f"{access}\nproduct {got}\noracle  {wanted}\nmemory  {now}"

    def command(self, number: int) -> None:
        random = Random(number)
        command = self.some_command(random)
        if o.Oracle.command(self.oracle, command):
            return  # illegal: its own test's matter
        self.seen[f"command {command & 0xFF:#x}"] += 1
        self.run(command)

    def run(self, command: int) -> None:
        for each in (command, 0x46):
            self.poke(COMMANDS + self.prod % 8 * 16, each.to_bytes(16, "little"))
            self.prod = (self.prod + 1) % 16
        self.write(o.CMDQ_PROD, self.prod)
        assert self.smmu.read(o.CMDQ_CONS, 4) == self.prod == self.oracle.register(o.CMDQ_CONS)

    def some_command(self, random: Random) -> int:
        opcode = random.choice([3, 3, 4, 5, 5, 5, 6, 0x10, 0x11, 0x12, 0x12, 0x12, 0x13, 0x13, 0x20, 0x21, 0x22, 0x22,
                                0x23, 0x30])  # fmt: skip
        command = opcode
        if opcode <= 6:
            command |= random.choice(SIDS) << 32
        if opcode == 5:
            command |= (random.choice(SSIDS) or 0) << 12
        if opcode in (3, 5):
            command |= random.getrandbits(1) << 64
        if opcode == 4:
            command |= random.choice([0, 1, 5, 6, 31]) << 64
        if opcode in (0x11, 0x12, 0x21, 0x22):
            command |= random.choice(ASIDS) << 48
        if opcode in (0x12, 0x13, 0x22, 0x23):
            va = self.va(random)
            command |= random.getrandbits(1) << 64
            if self.ril and random.random() < 0.6:
                tg = {12: 1, 14: 2, 16: 3}[self.granule] if random.random() < 0.8 else random.choice([1, 2, 3])
                granule = (0, 12, 14, 16)[tg]
                ttl = random.getrandbits(2)
                # An address must be aligned to what the hint names (§4.4.1.1).
                shift = granule + (granule - 3) * (3 - (ttl or 3))
                va = va >> shift << shift
                scale = random.choice([0, 0, 1, self.stride, self.stride + 1, 2 * self.stride])
                num = random.choice([0, 0, 1, 2, 31])
                command |= tg << 74 | ttl << 72 | scale << 20 | num << 12
            command |= va >> 12 << 76
        return command

    def forget_all(self) -> None:
        self.run(0x04 | 31 << 64)
        self.run(0x30)
        if self.hyp:
            self.run(0x20)
        assert not self.oracle.structures
        assert not self.oracle.leaves


class Caches(RuleBasedStateMachine):
    """Of the reference."""

    pure = True
    world: World

    @initialize(seed=NUMBERS)
    def start(self, seed: int) -> None:
        self.world = World(seed, self.pure)

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=6))
    def access(self, numbers: list[int]) -> None:
        for number in numbers:
            self.world.access(number)

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=6))
    def edit(self, numbers: list[int]) -> None:
        for number in numbers:
            self.world.edit(number)

    @rule(number=NUMBERS)
    def command(self, number: int) -> None:
        self.world.command(number)

    @rule()
    def forget_all(self) -> None:
        self.world.forget_all()


class CoresCaches(Caches):
    pure = False


@pytest.fixture(params=["reference", "core"])
def pure(request: pytest.FixtureRequest) -> bool:
    if request.param == "core":
        request.getfixturevalue("core_is_built")
    return bool(request.param == "reference")


def test_caches_forget_what_is_named_and_keep_the_rest(pure: bool) -> None:
    run_state_machine_as_test(
        Caches if pure else CoresCaches,
        settings=examples(200, steps=30),
    )


def walk_about(seed: int, steps: int, pure: bool) -> Counter[str]:
    """Many steps in one world, without hypothesis: deeper, and quicker."""
    random = Random(seed)
    world = World(seed, pure)
    for _ in range(steps):
        kind: Any = random.choice([world.access] * 6 + [world.edit] * 3 + [world.command] * 2)
        kind(random.getrandbits(32))
        if random.random() < 0.01:
            world.forget_all()
    return world.seen


def test_long_walks_meet_stale_answers_and_every_command(pure: bool) -> None:
    seen: Counter[str] = Counter()
    for seed in range(int(40 * SCALE) or 1):
        seen += walk_about(seed, 250, pure)
    wanted = [f"command {opcode:#x}" for opcode in (3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23, 0x30)]
    assert all(seen[name] > 5 for name in wanted), dict(seen)
    assert seen["stale"] > seen["accesses"] / 20, dict(seen)
    assert seen["ok"] > seen["accesses"] / 10, dict(seen)
    assert seen["ambiguous"] < seen["accesses"] / 10, dict(seen)
