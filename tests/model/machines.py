# SPDX-License-Identifier: Apache-2.0
"""Random SMMUv3 machines for the model tests: valid ones from a seed, then bent by named mutations.

Law: ``Machine(seed)`` translates its access unless one of its own rare oddities forbids it; each mutation
changes one thing. Nothing here says what the answer ought to be: that is the oracle's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.model import oracle as o
from vhost_iommu.memory import Memory
from vhost_iommu.smmu.transaction import Answer, Outcome, Transaction
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3.structures import CD, STE

OUTCOMES = {
    Outcome.OK: o.OK,
    Outcome.ABORT: o.ABORT,
    Outcome.RAZ_WI: o.RAZ_WI,
    Outcome.STALLED: "stalled",
}

#: Registers that are 64 bits wide.
WIDE = {o.STRTAB_BASE, o.CMDQ_BASE, o.EVENTQ_BASE, o.EVENTQ_IRQ_CFG0, o.GERROR_IRQ_CFG0}


def put(value: int, high: int, low: int, part: int) -> int:
    """``value`` with bits [high:low] replaced by ``part``."""
    mask = ((1 << (high - low + 1)) - 1) << low
    return (value & ~mask) | ((part << low) & mask)


@dataclass
class Structure:
    """Something in memory; big-endian descriptors are turned when they are stored."""

    at: int
    size: int
    value: int
    big: bool = False
    backed: bool = True


class Machine:
    """ID registers, registers, structures and one access."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.structures: dict[str, Structure] = {}
        self.registers: dict[int, int] = {}
        self.taken: set[int] = {0}
        self.choose_ids()
        self.limit = random.choice([self.oas, self.oas, min(self.oas, 40)])
        world = random.choice([0, 2]) if self.hyp else 0
        self.e2h = random.random() < 0.5
        self.single = world == 2 and not self.e2h
        self.choose_tables()
        self.make_cd()
        self.make_ste(world)
        self.make_stream_table()
        self.make_queues()
        self.registers[o.CR0] = 0xD

    # -- choices -----------------------------------------------------------------------------------------------

    def rare(self, chance: float = 0.1) -> bool:
        return self.random.random() < chance

    def choose_ids(self) -> None:
        random = self.random
        oas = random.choice([5, 5, 5, 6, 6, 4, 3, 2, 1, 0])
        self.oas = o.OUTPUT_BITS[oas]
        self.hyp = self.rare(0.2)
        self.sidsize = random.choice([0, 3, 8, 16, 32])
        self.ssidsize = random.choice([0, 0, 1, 6, 8, 12, 20])
        self.term = self.rare(0.15)
        self.endian = random.choice([0, 2, 2, 3])
        self.stt = self.rare(0.4)
        self.asid16 = not self.rare(0.2)
        self.granules = [12, 14, 16] if not self.rare(0.2) else random.sample([12, 14, 16], 2)
        self.vax = int(oas == 6 or self.rare(0.1))
        self.cd2l = not self.rare(0.2)
        self.two_level = self.sidsize > 6 or self.rare(0.5)
        self.e0pd = self.rare(0.5)
        self.had = not self.rare(0.3)
        idr0 = 1 << 1 | 2 << 2 | 1 << 4 | self.hyp << 9 | self.asid16 << 12 | (not self.rare()) << 13
        idr0 |= self.cd2l << 19 | self.endian << 21 | 1 << 24 | self.term << 26 | self.two_level << 27
        idr1 = self.sidsize | self.ssidsize << 6 | random.choice([3, 7, 10]) << 16 | random.choice([3, 8]) << 21
        idr1 |= (not self.rare(0.2)) << 26 | 1 << 27
        idr3 = self.had << 2 | self.stt << 9 | 1 << 10 | self.e0pd << 13 | self.rare(0.4) << 17
        idr5 = oas | self.vax << 10
        for granule in self.granules:
            idr5 |= {12: 1 << 4, 14: 1 << 5, 16: 1 << 6}[granule]
        self.ids = {"IDR0": idr0, "IDR1": idr1, "IDR3": idr3, "IDR5": idr5, "AIDR": random.choice([1, 2, 3])}

    def place(self, size: int, align: int, limit: int | None = None) -> int:
        """A free address below 2^limit whose ``align`` low bits are zero."""
        limit = self.limit if limit is None else limit
        while True:
            at = self.random.getrandbits(limit) >> align << align
            blocks = set(range(at >> 6, (at + size + 63) >> 6))
            if not blocks & self.taken:
                self.taken |= blocks
                return at

    def take(self, at: int, size: int) -> bool:
        blocks = set(range(at >> 6, (at + size + 63) >> 6))
        if blocks & self.taken:
            return False
        self.taken |= blocks
        return True

    # -- translation tables ------------------------------------------------------------------------------------

    def choose_tables(self) -> None:
        random = self.random
        self.granule = granule = random.choice(self.granules)
        longest = (47 if granule == 16 else 48) if self.stt else 39
        shortest = 12 if self.vax and granule == 16 else 16
        self.txsz = random.choice([shortest, longest, random.randint(shortest, longest), random.choice([16, 25])])
        self.width = width = 64 - self.txsz
        self.high = not self.single and self.rare(0.35)
        self.ips_code = random.choice([5, 6, 6, self.ids["IDR5"] & 7, random.randint(0, 7)])
        self.ips = ips = min(o.OUTPUT_BITS[min(self.ips_code, 6)], self.oas)
        # TTBx of small granules, and what descriptors of theirs hold, is 48 bits long.
        reach = min(ips, 48 if granule != 16 or self.oas != 52 else 52)
        self.big = {0: self.rare(0.3), 2: False, 3: True}[self.endian]
        self.tbi = self.rare(0.3)
        self.iova = random.getrandbits(width) & ~0xFFF | random.choice([0, 0, 0xFFF, random.getrandbits(12)])
        if self.high:
            self.iova |= (1 << 64) - (1 << width)
        if self.tbi:
            self.iova = put(self.iova, 63, 56, random.getrandbits(8))

        stride = granule - 3
        levels = -(-(width - granule) // stride)
        start = 4 - levels
        blocks = {12: [1, 2], 14: [2], 16: [1, 2] if self.oas == 52 else [2]}[granule]
        leaf = random.choice([level for level in [*blocks, 3, 3, 3] if level >= start])
        self.walk: list[str] = []
        top_bits = width - (granule + stride * (levels - 1)) + 3
        least = 6 if ips == 52 else 4
        while True:
            base_align = max(top_bits, least)
            if base_align >= min(reach, self.limit):
                base_align = min(reach, self.limit) - 1  # a table as large as memory
            table = random.getrandbits(min(reach, self.limit)) >> max(top_bits, least) << max(top_bits, least)
            first = table + o.bits(self.iova, width - 1, granule + stride * (levels - 1)) * 8
            if self.take(first, 8):
                break
        self.ttb = table | random.getrandbits(max(top_bits, least)) & ~0xF  # low bits that do not count
        at = first
        for level in range(start, leaf + 1):
            shift = granule + stride * (3 - level)
            if level == leaf:
                output = random.getrandbits(reach) >> shift << shift
                descriptor = output | (3 if level == 3 else 1)
                descriptor |= (not self.rare(0.05)) << 10 | random.choice([0, 0, 1]) << 11
                descriptor |= random.choice([0, 1, 1, 1, 1, 1, 2, 3]) << 6  # AP
                descriptor |= random.choice([0, 0, 0, 1, 2, 3]) << 53  # PXN, UXN
                descriptor |= random.getrandbits(3) << 2
                next_table = 0
            else:
                while True:
                    next_table = random.getrandbits(min(reach, self.limit)) >> granule << granule
                    next_at = next_table + o.bits(self.iova, shift - 1, shift - stride) * 8
                    if self.take(next_at, 8):
                        break
                output = next_table
                descriptor = output | 3
                if self.rare(0.25):
                    descriptor |= random.getrandbits(4) << 59
            if granule == 16:
                descriptor = put(descriptor, 51, 48, 0) | o.bits(output, 51, 48) << 12
            name = f"descriptor{level}"
            self.structures[name] = Structure(at, 8, descriptor, self.big)
            self.walk.append(name)
            if level != leaf:
                at = next_at
        self.leaf = leaf

    def make_cd(self) -> None:
        random = self.random
        cd = 1 << 31 | self.ips_code << 32 | (self.term or not self.rare(0.3)) << 46 | (not self.rare(0.15)) << 45
        cd |= 1 << 41 | self.big << 15
        asid = random.getrandbits(16 if self.asid16 or self.single else 8)
        cd |= asid << 48 | self.rare() << 35 | self.rare(0.2) << 36 | self.rare(0.2) << 40 | self.rare() << 47
        cd |= self.rare(0.2) << 37 | self.rare(0.4) << 123
        tg0, tg1 = {12: 0, 16: 1, 14: 2}[self.granule], {12: 2, 14: 1, 16: 3}[self.granule]
        mine = [(5, 0, self.txsz), (7, 6, tg0), (38, 38, self.tbi), (119, 68, self.ttb >> 4)]
        if self.high:
            mine = [(21, 16, self.txsz), (23, 22, tg1), (39, 39, self.tbi), (183, 132, self.ttb >> 4)]
        for high, low, part in mine:
            cd = put(cd, high, low, part)
        # The other half: off, and then full of nonsense that does not count; or on and plain.
        if self.rare(0.6):
            cd |= 1 << (14 if self.high else 30)
            if self.rare(0.5):
                for high, low in [(5, 0), (7, 6), (119, 68)] if self.high else [(21, 16), (23, 22), (183, 132)]:
                    cd = put(cd, high, low, random.getrandbits(48))
        elif self.high:
            cd = put(put(cd, 5, 0, 25), 7, 6, tg0)
        else:
            cd = put(put(cd, 21, 16, 25), 23, 22, tg1)
        cd |= self.rare(0.2) << 65 | self.rare(0.2) << 129 | self.rare(0.1) << 66 | self.rare(0.1) << 130
        self.cd = cd

    # -- configuration -----------------------------------------------------------------------------------------

    def make_ste(self, world: int) -> None:
        random = self.random
        s1cdmax = random.randint(0, self.ssidsize) if self.rare(0.7) else 0
        fmt = random.choice([0, 1, 2]) if self.cd2l else random.choice([0, 0, 0, 3])
        s1dss = random.choice([0, 1, 2, 2, 3] if s1cdmax else [0, 1, 2, 3])
        ssid: int | None = None
        if s1cdmax and (s1dss in (0, 3) or self.rare(0.5)) and not self.rare(0.1):
            ssid = random.getrandbits(s1cdmax) if not self.rare(0.1) else 0
            if s1dss == 2 and not self.rare(0.1):
                ssid = max(ssid, 1)
        index = ssid or 0
        room = min(self.limit, self.oas)
        if s1cdmax and fmt in (1, 2):
            leaf_bits = 6 if fmt == 1 else 10
            align = max(6, s1cdmax - leaf_bits + 3)
            while True:
                pointer = random.getrandbits(room) >> align << align
                l1 = pointer + (index >> leaf_bits) * 8
                if self.take(l1, 8):
                    break
            while True:
                leaf = random.getrandbits(room) >> (leaf_bits + 6) << (leaf_bits + 6)
                at = leaf + (index & ((1 << leaf_bits) - 1)) * 64
                if self.take(at, 64):
                    break
            self.structures["l1cd"] = Structure(l1, 8, leaf | 1)
        else:
            align = s1cdmax + 6
            while True:
                pointer = random.getrandbits(room) >> align << align
                at = pointer + index * 64
                if self.take(at, 64):
                    break
        self.structures["cd"] = Structure(at, 64, self.cd)
        ste = 1 | random.choice([5] * 16 + [4, 4, 0, 3]) << 1 | fmt << 4 | pointer | s1cdmax << 59 | s1dss << 64
        ste |= random.choice([0, 0, 0, 1, 2, 3]) << 112 | random.choice([0, 0, 0, 0, 1, 2, 3]) << 114
        ste |= world << 94 | self.rare() << 83 | random.getrandbits(6) << 66 | 1 << 108
        if self.rare(0.2):
            ste |= random.getrandbits(16) << 128  # S2VMID does not count
        self.ste = ste
        size = random.choice([1, 4, 64, 256, 5000])
        self.access = o.Access(
            sid=0,
            iova=self.iova,
            size=size if self.rare(0.15) else min(size, 0x1000 - (self.iova & 0xFFF)),
            write=self.rare(0.4),
            ssid=ssid,
            privileged=self.rare(0.5),
            instruction=self.rare(0.25),
        )
        if ste >> 1 & 7 == 4 and not self.rare(0.2):
            self.access = replace(self.access, iova=random.getrandbits(self.oas) & ~0xFFF, ssid=None)
        if self.access.iova + self.access.size > 1 << 64:
            self.access = replace(self.access, size=1)

    def make_stream_table(self) -> None:
        random = self.random
        log2 = random.randint(0, self.sidsize)
        sid = random.getrandbits(log2) if log2 else 0
        cfg = literal = log2
        if self.rare(0.1):
            cfg = literal = min(log2 + random.randint(0, 3), 40) if log2 == self.sidsize else log2
        room = min(self.limit, self.oas)
        if self.two_level and self.rare(0.6):
            split_code = random.choice([6, 8, 10, 10, 7, 0])
            split = split_code if split_code in (6, 8, 10) else 6
            cfg |= 1 << 16 | split_code << 6
            low = sid & ((1 << split) - 1)
            span = random.randint(max(1, low.bit_length() + 1), split + 1)
            align = max(5, literal - split - 1 + 3) + 1
            while True:
                base = random.getrandbits(room) >> align << align
                l1 = base + (sid >> split) * 8
                if self.take(l1, 8):
                    break
            l2_align = span + 5
            while True:
                l2 = random.getrandbits(room) >> l2_align << l2_align
                at = l2 + low * 64
                if self.take(at, 64):
                    break
            junk = random.getrandbits(l2_align) >> 6 << 6
            self.structures["l1std"] = Structure(l1, 8, l2 | junk | span)
        else:
            if self.rare(0.1):
                cfg |= random.choice([2, 3]) << 16 | random.getrandbits(5) << 6
            align = literal + 6
            while True:
                base = random.getrandbits(room) >> align << align
                at = base + sid * 64
                if self.take(at, 64):
                    break
        self.structures["ste"] = Structure(at, 64, self.ste)
        junk = random.getrandbits(min(align, room)) >> 6 << 6
        self.registers[o.STRTAB_BASE] = base | junk | self.rare(0.5) << 62
        self.registers[o.STRTAB_BASE_CFG] = cfg
        self.registers[o.CR2] = self.e2h | (not self.rare(0.1)) << 1
        self.registers[o.GBPA] = 1 << 31 | 1 << 12 | self.rare(0.5) << 20
        self.access = replace(self.access, sid=sid)

    # -- queues ------------------------------------------------------------------------------------------------

    def make_queues(self) -> None:
        random = self.random
        self.event_bits = size = random.choice([0, 1, 3])
        align = size + 5
        base = self.place(32 << size, align)
        self.structures["eventq"] = Structure(base, 32 << size, 0)
        junk = random.getrandbits(align) >> 5 << 5
        self.registers[o.EVENTQ_BASE] = base | junk | size
        start = random.getrandbits(size + 1)
        used = random.choice([0, 0, 0, random.randint(0, 1 << size), 1 << size])
        wrap = (2 << size) - 1
        flag, acknowledged = random.choice([(0, 0), (0, 0), (1, 1), (1, 0)])
        self.registers[o.EVENTQ_PROD] = flag << 31 | (start + used) & wrap
        self.registers[o.EVENTQ_CONS] = acknowledged << 31 | start
        cmd_size = random.choice([0, 1, 2, 3])
        align = max(cmd_size + 4, 5)
        base = self.place(max(16 << cmd_size, 32), align)
        self.command_bits = cmd_size
        self.structures["cmdq"] = Structure(base, 16 << cmd_size, 0)
        self.registers[o.CMDQ_BASE] = base | random.getrandbits(align) >> 5 << 5 | cmd_size
        self.registers[o.CMDQ_PROD] = self.registers[o.CMDQ_CONS] = random.getrandbits(cmd_size + 1)
        self.doorbells = [self.place(4, 2), self.place(4, 2)]
        for at in self.doorbells:
            self.structures[f"doorbell{at:x}"] = Structure(at >> 3 << 3, 8, 0)
        if self.ids["IDR0"] >> 13 & 1:
            for cfg0, cfg1 in ((o.EVENTQ_IRQ_CFG0, o.EVENTQ_IRQ_CFG1), (o.GERROR_IRQ_CFG0, o.GERROR_IRQ_CFG1)):
                self.registers[cfg0] = random.choice([0, self.doorbells[0], self.place(4, 2), self.doorbells[1]])
                self.registers[cfg1] = random.getrandbits(32)
        self.registers[o.IRQ_CTRL] = random.choice([0, 1, 4, 5, 5])

    # -- the machine, twice ------------------------------------------------------------------------------------

    def ram(self) -> o.Ram:
        ram = o.Ram()
        for structure in self.structures.values():
            if structure.backed:
                ram.back(structure.at, structure.size)
                data = structure.value.to_bytes(structure.size, "big" if structure.big else "little")
                for at in range(0, structure.size, 8):
                    ram.write(structure.at + at, data[at : at + 8])
        return ram

    def build(self) -> Pair:
        return Pair(self)


ORDER = (
    o.CR2,
    o.GBPA,
    o.STRTAB_BASE,
    o.STRTAB_BASE_CFG,
    o.CMDQ_BASE,
    o.CMDQ_PROD,
    o.CMDQ_CONS,
    o.EVENTQ_BASE,
    o.EVENTQ_PROD,
    o.EVENTQ_CONS,
    o.EVENTQ_IRQ_CFG0,
    o.EVENTQ_IRQ_CFG1,
    o.GERROR_IRQ_CFG0,
    o.GERROR_IRQ_CFG1,
    o.IRQ_CTRL,
    o.CR0,
)


class Pair:
    """The product and the oracle, on memories of their own with equal contents."""

    def __init__(self, machine: Machine, kind: type[o.Oracle] = o.Oracle) -> None:
        self.machine = machine
        self.oracle = kind(machine.ram(), machine.ids)
        self.windows = self.oracle.ram.windows()
        self.wires: Counter[str] = Counter()
        self.smmu = Smmu(Memory(*self.windows), id_registers=machine.ids, interrupt=self.pulse)
        for offset in ORDER:
            if offset in machine.registers:
                self.write(offset, machine.registers[offset])

    def pulse(self, source: str) -> None:
        self.wires[source] += 1

    def write(self, offset: int, value: int) -> None:
        self.smmu.write(offset, 8 if offset in WIDE else 4, value)
        self.oracle.write(offset, value)

    def poke(self, at: int, data: bytes) -> None:
        """Software stores to memory."""
        for step in range(0, len(data), 8):
            self.oracle.ram.write(at + step, data[step : step + 8])
        for base, buffer in self.windows:
            if base <= at < base + len(buffer):
                buffer[at - base : at - base + len(data)] = data

    def ask(self, access: o.Access) -> Answer:
        return self.smmu.translate(
            Transaction(
                sid=access.sid,
                iova=access.iova,
                size=access.size,
                write=access.write,
                ssid=access.ssid,
                privileged=access.privileged,
                instruction=access.instruction,
            )
        )

    def result(self, answer: Answer) -> o.Result:
        return o.Result(
            OUTCOMES[answer.outcome],
            o.join((piece.pa, piece.size) for piece in answer.pieces),
            [event.to_bytes() for event in answer.events],
        )

    def translate(self, access: o.Access) -> o.Result:
        """Both translate and agree; what they answered."""
        expected = self.oracle.translate(access)
        got = self.result(self.ask(access))
        assert show(got) == show(expected), f"{access}\nproduct {show(got)}\noracle  {show(expected)}"
        return expected

    def check(self) -> None:
        """Registers, interrupts and memory are the same on both sides."""
        oracle = self.oracle
        assert self.wires == oracle.wires, f"interrupts: {self.wires}, not {oracle.wires}"
        for name, offset, mask in (
            ("GERROR", o.GERROR, 0x7FF),
            ("EVENTQ_PROD", o.EVENTQ_PROD, 0x8000_0000 | ((2 << self.machine.event_bits) - 1)),
            (
                "CMDQ_CONS",
                o.CMDQ_CONS,
                (0x7F00_0000 if oracle.active(o.CMDQ_ERR) else 0) | ((2 << self.machine.command_bits) - 1),
            ),
        ):
            got, expected = self.smmu.read(offset, 4) & mask, oracle.register(offset) & mask
            assert got == expected, f"{name}: {got:#x} instead of {expected:#x}"
        for (base, got_bytes), (_, expected_bytes) in zip(self.windows, oracle.ram.windows(), strict=True):
            assert got_bytes == expected_bytes, f"memory at {base:#x}: {got_bytes.hex()}, not {expected_bytes.hex()}"


def show(result: o.Result) -> str:
    """One line, so that a difference reads well."""
    events = []
    for event in result.events:
        words = [int.from_bytes(event[at : at + 8], "little") for at in range(0, 32, 8)]
        events.append(o.EVENT_NAMES.get(event[0], "?") + " " + " ".join(f"{word:016x}" for word in words))
    pieces = [f"{at:#x}+{size}" for at, size in result.pieces]
    return f"{result.outcome} {pieces} {events}"


_UNSURE = {*range(116, 120), *range(180, 184)}


# -- mutations: each changes one thing of a machine; the number chooses which ------------------------------------------


def _flip(name: str) -> Callable[[Machine, int], None]:
    def flip(machine: Machine, number: int) -> None:
        structure = machine.structures.get(name)
        # Bits 55:52 of TTBx are RES0 before version 3.4; a CD that has one may be ILLEGAL or not (chapter 5).
        spot = number % (structure.size * 8) if structure is not None else 0
        if structure is not None and not (name == "cd" and spot in _UNSURE):
            structure.value ^= 1 << spot

    return flip


def _unback(name: str) -> Callable[[Machine, int], None]:
    def unback(machine: Machine, number: int) -> None:
        if name in machine.structures:
            machine.structures[name].backed = False

    return unback


def _random_field(name: str, layout: type[STE] | type[CD]) -> Callable[[Machine, int], None]:
    fields = sorted(
        {
            (f.msb, f.lsb)
            for f in (getattr(layout, name) for name in layout(0).values())
            if f.msb < (256 if layout is CD else 128)
        }
    )

    def change(machine: Machine, number: int) -> None:
        high, low = fields[number % len(fields)]
        structure = machine.structures[name]
        part = Random(number).choice([0, 1, 2, 3, 15, 16, 39, 40, 47, 48, 49, number // len(fields), -1])
        mask = (1 << min(high - low + 1, 48)) - 1  # see _UNSURE
        structure.value = put(structure.value, high, low, part & mask)

    return change


def _descriptor(machine: Machine, number: int) -> None:
    _flip(machine.walk[number % len(machine.walk)])(machine, number // len(machine.walk))


def _descriptor_high(machine: Machine, number: int) -> None:
    """An output address bit: most of these leave the output range."""
    machine.structures[machine.walk[number % len(machine.walk)]].value ^= 1 << 32 + number % 20


def _descriptor_type(machine: Machine, number: int) -> None:
    structure = machine.structures[machine.walk[number % len(machine.walk)]]
    structure.value = put(structure.value, 1, 0, number // 7)


def _unback_descriptor(machine: Machine, number: int) -> None:
    _unback(machine.walk[number % len(machine.walk)])(machine, number)


def _leaf(machine: Machine, number: int) -> None:
    """Other permissions."""
    structure = machine.structures[machine.walk[-1]]
    structure.value = put(put(structure.value, 7, 6, number), 54, 53, number >> 2) ^ (number >> 4 & 1) << 10


def _table(machine: Machine, number: int) -> None:
    """Hierarchical attributes."""
    structure = machine.structures[machine.walk[number % len(machine.walk)]]
    structure.value = put(structure.value, 62, 59, number // 5)


def _id_bit(register: str, *places: int) -> Callable[[Machine, int], None]:
    def change(machine: Machine, number: int) -> None:
        machine.ids[register] ^= 1 << places[number % len(places)]

    return change


def _iova(machine: Machine, number: int) -> None:
    _move(machine, machine.access.iova ^ 1 << number % 64)


def _iova_near_top(machine: Machine, number: int) -> None:
    """At the end of the input range, or one bit beyond it."""
    _move(machine, machine.access.iova ^ 1 << min(63, machine.width - 1 + number % 3))


def _move(machine: Machine, iova: int) -> None:
    size = machine.access.size if iova + machine.access.size <= 1 << 64 else 1
    machine.access = replace(machine.access, iova=iova, size=size)


def _top_byte(machine: Machine, number: int) -> None:
    _move(machine, put(machine.access.iova, 63, 56, number))


def _ssid(machine: Machine, number: int) -> None:
    choices = [None, 0, 1, 2, 63, 64, 0xFFFFF, number & 0xFFFFF]
    machine.access = replace(machine.access, ssid=choices[number % len(choices)])


def _sid(machine: Machine, number: int) -> None:
    sid = machine.access.sid
    choices = [sid ^ 1 << number % 32, sid + 1, 1 << machine.registers[o.STRTAB_BASE_CFG] % 32, sid ^ 1 << number % 10]
    machine.access = replace(machine.access, sid=choices[number % 4] & 0xFFFF_FFFF)


def _kind(machine: Machine, number: int) -> None:
    access = machine.access
    machine.access = replace(access, write=bool(number & 1), privileged=bool(number & 2), instruction=bool(number & 4))


def _size(machine: Machine, number: int) -> None:
    size = 1 + number % 9000
    if machine.access.iova + size <= 1 << 64:
        machine.access = replace(machine.access, size=size)


def _span(machine: Machine, number: int) -> None:
    if "l1std" in machine.structures:
        structure = machine.structures["l1std"]
        structure.value = put(structure.value, 4, 0, number)


def _table_size(machine: Machine, number: int) -> None:
    """LOG2SIZE or SPLIT; never such that an aligned base would be ambiguous, which it cannot be."""
    cfg = machine.registers[o.STRTAB_BASE_CFG]
    machine.registers[o.STRTAB_BASE_CFG] = (
        put(cfg, 5, 0, number // 2 % 20) if number % 2 else put(cfg, 10, 6, number // 2 % 12)
    )


def _recinvsid(machine: Machine, number: int) -> None:
    machine.registers[o.CR2] ^= 2


def _disabled(machine: Machine, number: int) -> None:
    machine.registers[o.CR0] ^= 1
    if number % 3:
        machine.access = replace(machine.access, iova=machine.access.iova & ((1 << machine.oas) - 1) & ~0xFFF)


def _events_disabled(machine: Machine, number: int) -> None:
    machine.registers[o.CR0] ^= 4


def _events_full(machine: Machine, number: int) -> None:
    cons = machine.registers[o.EVENTQ_CONS]
    prod = machine.registers[o.EVENTQ_PROD] & 1 << 31
    machine.registers[o.EVENTQ_PROD] = prod | (cons ^ 1 << machine.event_bits) & ((2 << machine.event_bits) - 1)


def _epd(machine: Machine, number: int) -> None:
    machine.structures["cd"].value ^= (1 << 14, 1 << 30)[number % 2]


def _ips(machine: Machine, number: int) -> None:
    machine.structures["cd"].value = put(machine.structures["cd"].value, 34, 32, number)


def _txsz(machine: Machine, number: int) -> None:
    """Around the limits of each granule and feature."""
    cd = machine.structures["cd"]
    txsz = (11, 12, 15, 16, 39, 40, 47, 48, 49)[number % 9]
    cd.value = put(cd.value, 21, 16, txsz) if machine.high else put(cd.value, 5, 0, txsz)


def _ttb(machine: Machine, number: int) -> None:
    """A base around the effective output size."""
    low = 132 if machine.high else 68
    machine.structures["cd"].value ^= 1 << low + min(47, machine.ips - 5 + number % 3)


MUTATIONS: dict[str, Callable[[Machine, int], None]] = {
    "STE bit": _flip("ste"),
    "CD bit": _flip("cd"),
    "L1STD bit": _flip("l1std"),
    "L1CD bit": _flip("l1cd"),
    "STE field": _random_field("ste", STE),
    "CD field": _random_field("cd", CD),
    "descriptor bit": _descriptor,
    "descriptor address": _descriptor_high,
    "descriptor type": _descriptor_type,
    "leaf permissions": _leaf,
    "table attributes": _table,
    "STE aborts": _unback("ste"),
    "L1STD aborts": _unback("l1std"),
    "CD aborts": _unback("cd"),
    "L1CD aborts": _unback("l1cd"),
    "descriptor aborts": _unback_descriptor,
    "event queue aborts": _unback("eventq"),
    "iova bit": _iova,
    "iova near top": _iova_near_top,
    "top byte": _top_byte,
    "ssid": _ssid,
    "sid": _sid,
    "kind of access": _kind,
    "size": _size,
    "span": _span,
    "stream table size": _table_size,
    "CR2.RECINVSID": _recinvsid,
    "CR0.SMMUEN": _disabled,
    "CR0.EVENTQEN": _events_disabled,
    "event queue full": _events_full,
    "CD.EPD": _epd,
    "CD.IPS": _ips,
    "CD.TxSZ": _txsz,
    "CD.TTBx": _ttb,
    "IDR0 bit": _id_bit("IDR0", 1, 3, 9, 12, 19, 21, 26, 27),
    "IDR1 bit": _id_bit("IDR1", 0, 1, 6, 7, 9, 26),
    "IDR3 bit": _id_bit("IDR3", 2, 9, 13, 17),
    "IDR5 bit": _id_bit("IDR5", 4, 5, 6, 10),
}
