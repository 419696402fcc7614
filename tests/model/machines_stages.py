# SPDX-License-Identifier: Apache-2.0
"""Random SMMUv3 machines with both stages, hardware updates, LPA2, AArch32 tables and stalls, and mutations.

Law: as for the machines with stage 1 only. Stage 1's structures lie at IPAs; stage 2 maps each of those pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.model import machines as m
from tests.model import oracle as o
from tests.model import oracle_stages as s
from tests.model.machines import Machine, Structure, put
from vhost_iommu.smmu.memory_type import MemoryType
from vhost_iommu.smmu.transaction import Answer, Stall, Transaction

ONE, TWO, NESTED = 5, 6, 7


class Crowded(Exception):  # noqa: N818 - a choice that did not work out
    """Two structures would have met."""


class StagesMachine(Machine):
    """One of three modes: stage 1 only, stage 2 only, nested."""

    def __init__(self, seed: int) -> None:
        for attempt in range(500):
            self.failures = 0
            try:
                super().__init__(seed + (attempt << 40))
                return
            except Crowded:
                continue
        raise AssertionError("no room")

    def take(self, at: int, size: int) -> bool:
        if super().take(at, size):
            return True
        self.failures += 1
        if self.failures > 200:
            raise Crowded
        return False

    # -- ID registers ------------------------------------------------------------------------------------------

    def choose_ids(self) -> None:
        super().choose_ids()
        random = self.random
        if self.rare(0.25):  # LPA2 needs it
            self.oas = 52
            self.ids["IDR5"] = put(self.ids["IDR5"] | 1 << 10, 2, 0, 6)
            self.vax = 1
        self.mode = random.choice([ONE, TWO, NESTED, NESTED, NESTED])
        self.lpa2 = self.oas == 52 and self.granules != [16] and not self.rare(0.3)
        self.aarch32 = self.rare(0.4)
        self.httu = random.choice([0, 0, 1, 2, 2, 2, 3])
        self.stall_model = random.choice([0, 0, 1, 1, 2])
        self.xnx = self.rare(0.6)
        self.fwb = self.rare(0.4)
        self.vmid16 = self.rare(0.6)
        ids = self.ids
        idr0 = ids["IDR0"] | 1 | self.aarch32 << 2 | self.vmid16 << 18
        ids["IDR0"] = put(put(idr0, 7, 6, self.httu), 25, 24, self.stall_model)
        ids["IDR3"] |= self.xnx << 4 | self.fwb << 8
        if self.lpa2:
            self.vax = 1
            ids["IDR5"] |= 1 << 10
        self.stall_max = random.choice([1, 2, 16]) if self.stall_model != 1 else 0
        ids["IDR5"] |= self.lpa2 << 7 | self.stall_max << 16
        if self.httu == 3:
            ids["AIDR"] = 3
        self.ias = max(self.oas, 40 if self.aarch32 else 0)
        self.stage2: Stage2 | None = None

    # -- tables ------------------------------------------------------------------------------------------------

    def choose_tables(self) -> None:
        random = self.random
        self.pa_limit, self.pa_taken = self.limit, self.taken
        if self.mode != ONE:
            self.single = False
            self.stage2 = Stage2(self)
        if self.mode == NESTED:
            self.taken = {0}
            self.limit = min(self.stage2.width, self.limit) if self.stage2 else 0
        self.lpae = (self.aarch32 and not (self.hyp and self.e2h) and self.rare(0.35)) or (
            self.mode == NESTED and self.stage2 is not None and self.stage2.lpae
        )
        if self.lpae:
            self.choose_lpae()
            return
        granule = self.granule = random.choice(self.granules)
        self.ds = self.lpa2 and granule != 16 and not self.rare(0.3)
        longest = (47 if granule == 16 else 48) if self.stt else 39
        shortest = 12 if self.vax and (granule == 16 or self.ds) else 16
        self.txsz = random.choice([shortest, longest, random.randint(shortest, longest), random.choice([16, 25])])
        self.width = 64 - self.txsz
        self.high = not self.single and self.rare(0.35)
        self.ips_code = random.choice([5, 6, 6, self.ids["IDR5"] & 7, random.randint(0, 7)])
        self.ips = min(o.OUTPUT_BITS[min(self.ips_code, 6)], self.oas)
        reach = min(self.ips, 52 if self.ds or (granule == 16 and self.oas == 52) else 48)
        self.big = {0: self.rare(0.3), 2: False, 3: True}[self.endian]
        self.tbi = self.rare(0.3)
        self.iova = random.getrandbits(self.width) & ~0xFFF | random.choice([0, 0, 0xFFF, random.getrandbits(12)])
        va = self.iova
        if self.high:
            self.iova |= (1 << 64) - (1 << self.width)
        if self.tbi:
            self.iova = put(self.iova, 63, 56, random.getrandbits(8))
        blocks = {12: [0, 1, 2] if self.ds else [1, 2], 14: [1, 2] if self.ds else [2],
                  16: [1, 2] if self.oas == 52 else [2]}[granule]  # fmt: skip
        start = 4 - -(-(self.width - granule) // (granule - 3))
        self.chain(va, start, blocks, reach)

    def choose_lpae(self) -> None:
        random = self.random
        self.granule, self.ds, self.tbi = 12, False, False
        self.txsz = random.choice([0, 0, random.randint(0, 7)])
        self.other = random.choice([0, random.randint(0, 7)])
        self.high = not self.single and self.rare(0.35)
        if self.high and not self.txsz and not self.other:
            self.other = 1
        self.width = 32 - self.txsz
        self.ips_code, self.ips = random.randint(0, 7), 40
        self.big = {0: self.rare(0.3), 2: False, 3: True}[self.endian]
        va = random.getrandbits(self.width) & ~0xFFF | random.choice([0, 0xFFF, random.getrandbits(12)])
        if self.high:
            va |= ((1 << 32) - (1 << self.width)) if self.txsz else 1 << 31
        self.iova = va
        self.chain(va & ((1 << self.width) - 1), 1 if self.width > 30 else 2, [1, 2], 40)

    def chain(self, va: int, start: int, blocks: list[int], reach: int) -> None:
        """Stage 1's descriptors for one address; where they and the output are is below 2^limit."""
        random, granule = self.random, self.granule
        stride = granule - 3
        limit = min(reach, self.limit)
        if self.mode == NESTED:
            reach = limit
        leaf = random.choice([level for level in [*blocks, 3, 3, 3] if level >= start])
        top_bits = self.width - (granule + stride * (3 - start)) + 3
        align = max(top_bits, 6 if self.ips == 52 else 4)
        for _ in range(50):
            table = random.getrandbits(limit) >> align << align
            at = table + o.bits(va, self.width - 1, granule + stride * (3 - start)) * 8
            if at + 8 <= 1 << limit and self.take(at, 8):
                break
        else:
            raise Crowded
        self.ttb = table | random.getrandbits(align) & ~0xF
        self.walk = []
        for level in range(start, leaf + 1):
            shift = granule + stride * (3 - level)
            next_at = 0
            if level == leaf:
                output = random.getrandbits(reach) >> shift << shift
                descriptor = output | (3 if level == 3 else 1)
                descriptor |= (not self.rare(0.35 if self.httu else 0.05)) << 10 | random.choice([0, 0, 1]) << 11
                descriptor |= random.choice([0, 1, 1, 1, 1, 1, 2, 3, 3]) << 6
                descriptor |= random.choice([0, 0, 0, 1, 2, 3]) << 53 | self.rare(0.5) << 51
                descriptor |= random.getrandbits(3) << 2
                self.out = output | va & ((1 << shift) - 1)
            else:
                for _ in range(50):
                    output = random.getrandbits(limit) >> granule << granule
                    next_at = output + o.bits(va, shift - 1, shift - stride) * 8
                    if next_at + 8 <= 1 << limit and self.take(next_at, 8):
                        break
                else:
                    raise Crowded
                descriptor = output | 3
                if self.rare(0.2):
                    descriptor |= random.getrandbits(4) << 59
                descriptor |= self.rare(0.5) << 10
            if level == leaf and not self.ds:
                descriptor |= random.choice([0, 0, 2, 3]) << 8
            if self.ds:
                descriptor = put(put(descriptor, 51, 50, 0), 9, 8, o.bits(output, 51, 50))
                if level == leaf:
                    descriptor |= self.rare(0.5) << 51
            elif granule == 16:
                descriptor = put(descriptor, 51, 48, 0 if level != leaf else 8 * self.rare(0.5))
                descriptor |= o.bits(output, 51, 48) << 12
            self.structures[f"descriptor{level}"] = Structure(at, 8, descriptor, self.big)
            self.walk.append(f"descriptor{level}")
            at = next_at
        self.leaf = leaf

    def make_cd(self) -> None:
        super().make_cd()
        random, cd = self.random, self.cd
        if self.lpae:
            cd = cd & ~(1 << 41) | self.rare(0.4) << 37
            mine, others = ((16, 0) if self.high else (0, 16)), 0
            others = mine[1]
            cd = put(put(cd, mine[0] + 5, mine[0], self.txsz | random.getrandbits(3) << 3), others + 5, others,
                     self.other)  # fmt: skip
        elif self.ds:
            cd |= 1 << 186
        if self.httu:
            cd |= (not self.rare(0.3)) << 43 | (self.httu >= 2 and not self.rare(0.4)) << 42
            cd |= (self.httu == 3 and bool(cd >> 43 & 1) and self.rare(0.6)) << 67
        cd |= random.choice([0, 2, 3]) << 12 | random.choice([0, 2, 3]) << 28
        for low in range(192, 256, 8):
            cd |= random.choice([0xFF, 0xFF, 0x44, 0xBB, 0xAA, 0x4F, 0xF4, 0x77, 0x33, 0, 4, 8, 12]) << low
        stall = self.stall_model == 2 or (self.stall_model == 0 and self.rare(0.4))
        self.cd = put(cd, 44, 44, stall)

    # -- STE ---------------------------------------------------------------------------------------------------

    def make_ste(self, world: int) -> None:
        super().make_ste(world)
        random = self.random
        if self.ste >> 1 & 7 == ONE:
            self.ste = put(self.ste, 3, 1, self.mode)
        if self.lpa2 and self.rare(0.1):
            self.ste |= 1 << 195
        of_el2 = world == 2 and self.mode == ONE  # whose streams have no VMID
        self.ste = put(self.ste, 143, 128, random.getrandbits(16 if self.vmid16 or of_el2 else 8))
        self.ste |= self.rare(0.4) << 89
        if self.lpae and self.rare(0.4):  # whose rules of execution are their own
            self.access = replace(self.access, write=False, instruction=True, privileged=self.rare(0.7))
        self.ste = put(self.ste, 109, 108, random.choice([0, 1, 1, 2, 3]))
        self.ste |= self.rare(0.3) << 100 | random.getrandbits(4) << 96
        kinds = [(3, 3), (3, 3), (1, 1), (2, 2), (1, 3), (3, 2), (0, 0), (0, 1), (0, 2), (0, 3)]
        self.incoming: s.Memory = s.consistent((*random.choice(kinds), random.choice([0, 2, 3])))
        if self.stage2 is None:
            return
        two = self.stage2
        self.limit, self.taken = self.pa_limit, self.pa_taken
        if self.mode == TWO and self.ste >> 1 & 7 == TWO:
            ipa = random.getrandbits(min(two.width, self.ias)) & ~0xFFF | random.choice([0, 0xFFF])
            ssid = self.access.ssid if self.rare(0.05) else None
            size = min(self.access.size, 0x1000 - (ipa & 0xFFF)) if self.rare(0.9) else self.access.size
            self.access = replace(self.access, iova=ipa, ssid=ssid, size=size)
        elif self.ste >> 64 & 3 == 1 and self.access.ssid is None and self.ste >> 59 & 31 and self.rare(0.7):
            # Stage 1 is bypassed by S1DSS.
            self.access = replace(self.access, iova=random.getrandbits(min(two.width, self.ias)) & ~0xFFF, size=1)
        if self.mode == NESTED:
            for name in ("l1cd", "cd", *self.walk):
                if name in self.structures:
                    structure = self.structures[name]
                    structure.at = two.map(structure.at, structure.size)
            two.map(self.out, 0)
        two.map(self.access.iova & ((1 << two.width) - 1), 0)
        self.ste = two.fill(self.ste)


class Stage2:
    """A stage 2 table that grows by what is to be mapped."""

    def __init__(self, machine: StagesMachine) -> None:
        self.machine = machine
        random = machine.random
        self.lpae = machine.aarch32 and machine.rare(0.4)
        if self.lpae:
            self.granule, self.ds, self.ps_code = 12, False, random.getrandbits(3)
            self.size = 40
            t0sz = random.randint(-8, 7)
            self.width, self.t0sz = 32 - t0sz, t0sz & 15 | random.getrandbits(2) << 4
            codes = [code for code in (0, 1) if 22 + 9 * code <= self.width <= 34 + 9 * code]
            self.code = random.choice(codes)
            self.start = 2 - self.code
        else:
            self.granule = random.choice(machine.granules)
            self.ds = machine.lpa2 and self.granule != 16 and not machine.rare(0.3)
            longest = (47 if self.granule == 16 else 48) if machine.stt else 39
            shortest = max(12 if self.granule == 16 or self.ds else 16, 64 - machine.ias)
            fitting: list[tuple[int, int]] = []
            while not fitting:
                self.t0sz = random.choice([shortest, longest, random.randint(shortest, longest)])
                self.width = 64 - self.t0sz
                for code in range(8):
                    start = s.stage2_start(self.granule, self.width, self.ds, code, machine.oas, machine.stt)
                    if start is not None:
                        fitting.append((code, start))
            self.code, self.start = random.choice(fitting)
            if not (self.ds and self.granule == 12):
                self.code &= 3
            self.ps_code = random.choice([5, 6, 7, machine.ids["IDR5"] & 7, random.randint(0, 7)])
            self.size = min(o.OUTPUT_BITS[min(self.ps_code, 6)], machine.oas)
        wide = self.ds or (self.granule == 16 and machine.oas == 52)
        self.reach = min(self.size, machine.pa_limit, 52 if wide else 48)
        self.out_reach = min(self.size, 52 if wide else 48, machine.oas)
        self.big = {0: machine.rare(0.3), 2: False, 3: True}[machine.endian]
        self.stride = self.granule - 3
        self.top = self.granule + self.stride * (3 - self.start)
        self.align = max(self.width - self.top + 3, 6 if self.size == 52 else 4)
        if self.align >= self.reach:
            raise Crowded
        self.root = random.getrandbits(self.reach) >> self.align << self.align
        self.junk = random.getrandbits(self.align) & ~0xF
        self.entries: dict[int, tuple[str, int]] = {}
        self.names: list[str] = []
        self.leaves: list[str] = []
        if self.lpae:
            self.block_levels = [1, 2]
        elif self.granule == 12:
            self.block_levels = [0, 1, 2] if self.ds else [1, 2]
        elif self.granule == 14:
            self.block_levels = [1, 2] if self.ds else [2]
        else:
            self.block_levels = [1, 2] if machine.oas == 52 else [2]

    def map(self, ipa: int, size: int) -> int:
        """Where an IPA's ``size`` bytes are; size 0: nothing is there, only translated."""
        machine, random = self.machine, self.machine.random
        if ipa >> self.width:
            raise Crowded
        leaf = random.choice([level for level in [*self.block_levels, 3, 3, 3] if level >= self.start])
        base = self.root
        for level in range(self.start, 4):
            shift = self.granule + self.stride * (3 - level)
            top = self.width if level == self.start else shift + self.stride
            at = base + o.bits(ipa, top - 1, shift) * 8
            if at not in self.entries:
                if not machine.take(at, 8):
                    raise Crowded
                is_leaf = level == leaf or level == 3
                output = self.place(level, ipa, size, shift) if is_leaf else self.table()
                self.entries[at] = ("leaf" if is_leaf else "table", output)
                self.add(at, level, output, is_leaf)
            elif self.entries[at][0] == "leaf":
                pa = self.entries[at][1] | o.bits(ipa, shift - 1, 0)
                if size and not machine.take(pa, size):
                    raise Crowded
                return pa
            kind, base = self.entries[at]
            if kind == "leaf":
                return base | o.bits(ipa, shift - 1, 0)
        raise AssertionError("a walk ends at level 3")

    def place(self, level: int, ipa: int, size: int, shift: int) -> int:
        for _ in range(50):
            reach = self.reach if size else self.out_reach
            output = self.machine.random.getrandbits(reach) >> shift << shift
            if not size or self.machine.take(output | o.bits(ipa, shift - 1, 0), size):
                return output
        raise Crowded

    def table(self) -> int:
        return self.machine.random.getrandbits(self.reach) >> self.granule << self.granule

    def add(self, at: int, level: int, output: int, leaf: bool) -> None:
        machine, random = self.machine, self.machine.random
        descriptor = output | (1 if leaf and level < 3 else 3)
        if leaf:
            descriptor |= (not machine.rare(0.3 if machine.httu else 0.03)) << 10
            descriptor |= random.choice([3, 3, 3, 3, 3, 1, 1, 1, 2]) << 6 | random.choice([0, 0, 0, 1, 2, 3]) << 53
            descriptor |= machine.rare(0.5) << 51 | random.choice([15, 15, 15, 5, 6, 7, 0, 1, 2, 3, 9, 10]) << 2
            if not self.ds:
                descriptor |= random.choice([0, 2, 3]) << 8
        else:
            descriptor |= machine.rare(0.5) << 10 | (random.getrandbits(5) << 59 if machine.rare(0.1) else 0)
        if self.ds:
            keep = descriptor & 1 << 51 if leaf and not output >> 51 & 1 else machine.rare(0.5) << 51 if leaf else 0
            descriptor = put(put(descriptor, 51, 50, 0), 9, 8, o.bits(output, 51, 50)) | keep
        elif self.granule == 16:
            dbm = machine.rare(0.5) << 51 if leaf else 0
            descriptor = put(descriptor, 51, 48, 0) | o.bits(output, 51, 48) << 12 | dbm
        name = f"stage2 {len(self.names)}"
        machine.structures[name] = Structure(at, 8, descriptor, self.big)
        self.names.append(name)
        if leaf:
            self.leaves.append(name)

    def fill(self, ste: int) -> int:
        machine, random = self.machine, self.machine.random
        tg = 0 if self.lpae else {12: 0, 16: 1, 14: 2}[self.granule]
        if self.lpae:
            tg = random.getrandbits(2)
        for high, low, part in (
            (165, 160, self.t0sz),
            (167, 166, self.code),
            (175, 174, tg),
            (178, 176, self.ps_code),
            (179, 179, not self.lpae),
            (180, 180, self.big),
            (181, 181, machine.rare(0.15)),
            (182, 182, machine.rare(0.25)),
            (185, 185, machine.stall_model == 2 or (machine.stall_model == 0 and machine.rare(0.4))),
            (186, 186, not machine.rare(0.2)),
            (194, 194, self.code >> 2 if self.granule == 12 and self.ds else machine.rare(0.1)),
            (195, 195, self.ds or (self.granule == 16 and machine.rare(0.1))),
            (247, 196, (self.root | self.junk) >> 4),
        ):
            ste = put(ste, high, low, int(part))
        if self.lpae:
            ste &= ~(1 << 89)
        elif machine.httu:
            ste |= (not machine.rare(0.3)) << 184 | (machine.httu >= 2 and not machine.rare(0.4)) << 183
            ste |= (machine.httu == 3 and bool(ste >> 184 & 1) and machine.rare(0.6)) << 187
        return ste


class StagesPair(m.Pair):
    """The product and the oracle of both stages."""

    machine: StagesMachine

    def __init__(self, machine: StagesMachine) -> None:
        self.stalls: dict[int, Stall] = {}
        super().__init__(machine, s.StagesOracle)
        self.stages.stag_of = self.tag

    @property
    def stages(self) -> s.StagesOracle:
        assert isinstance(self.oracle, s.StagesOracle)
        return self.oracle

    def ask(self, access: o.Access) -> Answer:
        incoming = MemoryType(*self.machine.incoming)
        fields = {name: getattr(access, name) for name in access.__slots__}
        return self.smmu.translate(Transaction(**fields, memory=incoming))

    def check_memory(self, answer: Answer) -> None:
        """Each part leaves with the memory type that the oracle gives it, where the architecture gives one."""
        got = [tuple(kind) for piece, kind in zip(answer.pieces, answer.memory, strict=True) for _ in range(piece.size)]
        at = 0
        for size, kind in self.stages.memory:
            assert kind is None or set(got[at : at + size]) == {kind}, f"memory type {got[at]} instead of {kind}"
            at += size

    def translate(self, access: o.Access) -> o.Result:
        self.stages.incoming = self.machine.incoming
        answer = self.ask(access)
        if answer.stall is not None:
            self.stalls[self.stages.arrived] = answer.stall
        expected = self.oracle.translate(access)
        got = self.result(answer)
        assert m.show(got) == m.show(expected), f"{access}\nproduct {m.show(got)}\noracle  {m.show(expected)}"
        self.check_memory(answer)
        return expected

    def tag(self, number: int) -> int:
        """The tag that the product gave a stalled access; 0 where it has none, which then differs."""
        stall = self.stalls.get(number)
        return 0 if stall is None or stall.stag is None else stall.stag

    def check_stalls(self) -> None:
        """The same accesses wait on both sides, with tags of their own, and the same ones ended, alike."""
        for number, stall in self.stalls.items():
            ended = self.stages.ended.get(number)
            if stall.answer is None:
                assert ended is None, f"stall {number} ended {ended}"
            else:
                got = self.result(stall.answer)
                assert ended is not None, f"stall {number} goes on, the product: {m.show(got)}"
                assert m.show(got) == m.show(ended), f"stall {number}: {m.show(got)}, not {m.show(ended)}"
        told = [(w.access.sid, w.stag) for w in self.stages.waiting if w.stag is not None]
        assert len(set(told)) == len(told), f"a tag names two stalled accesses: {told}"

    def check(self) -> None:
        super().check()
        self.check_stalls()


# -- mutations ---------------------------------------------------------------------------------------------------------


def _field(name: str, *places: tuple[int, int]) -> Callable[[Machine, int], None]:
    """Another value in one of some fields."""

    def change(machine: Machine, number: int) -> None:
        high, low = places[number % len(places)]
        structure = machine.structures[name]
        part = Random(number).choice([0, 1, 2, 3, number // len(places), structure.value >> low ^ 1])
        structure.value = put(structure.value, high, low, part)

    return change


def _toggle(name: str, *places: int) -> Callable[[Machine, int], None]:
    def change(machine: Machine, number: int) -> None:
        machine.structures[name].value ^= 1 << places[number % len(places)]

    return change


def _of_stage2(change: Callable[[Structure, int], None], leaves: bool) -> Callable[[Machine, int], None]:
    """Change one of stage 2's descriptors, if there are any: rather one of the CD's, which come first."""

    def apply(machine: Machine, number: int) -> None:
        assert isinstance(machine, StagesMachine)
        if machine.stage2 is not None:
            names = machine.stage2.leaves if leaves else machine.stage2.names
            change(machine.structures[names[number % len(names) // (1 + number % 3)]], number // len(names))

    return apply


def _flip_bit(structure: Structure, number: int) -> None:
    structure.value ^= 1 << number % 64


def _flip_address(structure: Structure, number: int) -> None:
    structure.value ^= 1 << 34 + number % 14


def _flip_highest(structure: Structure, number: int) -> None:
    """Address bits above 47, where LPA2 and the 64KB granule have them."""
    structure.value ^= 1 << (8, 9, 12, 13, 14, 15, 48, 49, 50, 51)[number % 10]


def _type(structure: Structure, number: int) -> None:
    structure.value = put(structure.value, 1, 0, number)


def _unback(structure: Structure, number: int) -> None:
    structure.backed = False


def _permissions(structure: Structure, number: int) -> None:
    structure.value = put(put(structure.value, 7, 6, number), 54, 53, number >> 2)
    structure.value = put(put(structure.value, 10, 10, number >> 4), 51, 51, number >> 5)


def _device(structure: Structure, number: int) -> None:
    structure.value = put(structure.value, 5, 2, number)


def _t0sz2(machine: Machine, number: int) -> None:
    """Around the limits of stage 2's input size, or with another start level."""
    structure = machine.structures["ste"]
    near = o.bits(structure.value, 165, 160) + number % 3 - 1
    t0sz = (11, 12, 15, 16, 24, 39, 40, 47, 48, 49, near, near)[number // 3 % 12]
    structure.value = put(structure.value, 165, 160, t0sz)


def _ipa(machine: Machine, number: int) -> None:
    """Just below or beyond what stage 2 takes."""
    assert isinstance(machine, StagesMachine)
    if machine.stage2 is not None:
        bit = machine.stage2.width - 1 + number % 3
        machine.access = replace(machine.access, iova=machine.access.iova & (1 << 50) - 1 ^ 1 << bit)


def _leaf_out(machine: Machine, number: int) -> None:
    """Stage 1's output, which stage 2 then may not map."""
    structure = machine.structures[machine.walk[-1]]
    structure.value ^= 1 << 12 + number % 40


def _to_aarch64(machine: Machine, number: int) -> None:
    """The CD of VMSAv8-64 tables of a legal size: only the STE may have something against it."""
    assert isinstance(machine, StagesMachine)
    cd = machine.structures["cd"]
    granule = machine.granules[number % len(machine.granules)]
    value = put(put(cd.value | 1 << 41, 5, 0, 25), 21, 16, 25)
    cd.value = put(put(value, 7, 6, {12: 0, 16: 1, 14: 2}[granule]), 23, 22, {12: 2, 14: 1, 16: 3}[granule])


def _cd_fetch(machine: Machine, number: int) -> None:
    """One of the descriptors of stage 2 that the CD's fetch meets, which are the first: invalid, or another output."""
    assert isinstance(machine, StagesMachine)
    if machine.stage2 is not None:
        structure = machine.structures[machine.stage2.names[number % min(3, len(machine.stage2.names))]]
        (_type, _flip_address, _flip_address)[number // 3 % 3](structure, number // 9 * 4)


MUTATIONS: dict[str, Callable[[Machine, int], None]] = {
    **m.MUTATIONS,
    "STE stage 2 field": _field(
        "ste",
        (89, 89),
        (91, 91),
        (93, 92),
        (95, 94),
        (143, 128),
        (165, 160),
        (167, 166),
        (175, 174),
        (178, 176),
        (179, 179),
        (180, 180),
        (181, 181),
        (182, 182),
        (183, 183),
        (184, 184),
        (185, 185),
        (186, 186),
        (187, 187),
        (194, 194),
        (195, 195),
        (3, 1),
        (243, 236),
    ),
    "STE stage 2 bit": _toggle("ste", *range(128, 144), *range(160, 188), 194, 195, *range(196, 244)),
    "STE.S2SL0": _field("ste", (167, 166), (194, 194), (175, 174), (195, 195)),
    "STE.S2T0SZ": _t0sz2,
    "STE fault bits": _toggle("ste", 185, 186, 91, 181, 182),
    "CD fault bits": _toggle("cd", 44, 45, 46, 35),
    "CD updates": _toggle("cd", 42, 43, 67, 186),
    "CD.AA64": _toggle("cd", 41, 37, 36, 40),
    "CD.AA64 and sizes": _to_aarch64,
    "STE updates": _toggle("ste", 183, 184, 187),
    "leaf updates": lambda machine, number: _permissions(machine.structures[machine.walk[-1]], number),
    "stage 2 bit": _of_stage2(_flip_bit, False),
    "stage 2 address": _of_stage2(_flip_address, False),
    "stage 2 of the CD": _cd_fetch,
    "stage 2 of the CD, else": _cd_fetch,
    "stage 2 highest address": _of_stage2(_flip_highest, False),
    "stage 2 type": _of_stage2(_type, False),
    "stage 2 aborts": _of_stage2(_unback, False),
    "stage 2 permissions": _of_stage2(_permissions, True),
    "stage 2 memory type": _of_stage2(_device, True),
    "IPA near top": _ipa,
    "stage 1 output": _leaf_out,
    "IDR0 stages bit": m._id_bit("IDR0", 0, 1, 2, 3, 6, 7, 18, 24, 25, 26),
    "IDR3 stages bit": m._id_bit("IDR3", 4, 8, 9),
    "IDR5 stages bit": m._id_bit("IDR5", 7, 10, 4, 5, 6),
}
