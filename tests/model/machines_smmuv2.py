# SPDX-License-Identifier: Apache-2.0
"""Random machines of an SMMUv2: registers as software stores them, tables, and one access; and ways to bend them.

Law: made from a seed alone, with nothing of the product's; straight machines translate, bent ones mostly fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Literal

from tests.model import oracle_smmuv2 as o
from tests.model.oracle import Access, Ram

RAM = 0x4000_0000
BIG = 1 << 40  # where a table may lie that AArch64 alone can name

FORMATS = ("4K", "16K", "64K", "lpae", "short")
KINDS = ("stage 1", "stage 2", "nested")
GRANULE = {"4K": 12, "16K": 14, "64K": 16, "lpae": 12}

# ID registers: stages 1, 2 and nested, all formats, 16 groups, 8 banks of which 2 are stage 2's.
ID0 = 1 << 30 | 1 << 29 | 1 << 28 | 1 << 26 | 8 << 16 | 1 << 14 | 15 << 9
ID1, ID2 = 2 << 28 | 2 << 16 | 8, 0x7555
SMS, EXIDS = 1 << 27, 1 << 8
GROUPS, BANKS, STAGE2_BANKS, PAGES = 16, 8, 2, 8


class Memory:
    """RAM that hands out room for tables."""

    def __init__(self, random: Random) -> None:
        self.random, self.ram, self.next = random, Ram(), RAM

    def room(self, size: int, low: bool) -> int:
        self.next = (self.next + size - 1) // size * size
        at, self.next = self.next, self.next + size
        return at if low or self.random.random() < 0.7 else at + BIG

    def put(self, at: int, value: int, size: int, big: bool) -> None:
        self.ram.back(at, size)
        self.ram.write(at, value.to_bytes(size, "big" if big else "little"))


class Long:
    """Tables of long descriptors, one address mapped after another; remembers where each descriptor is."""

    def __init__(
        self, memory: Memory, granule: int, width: int, start: int, stage2: bool, big: bool, low: bool
    ) -> None:
        self.memory, self.granule, self.width, self.start = memory, granule, width, start
        self.stage2, self.big, self.low = stage2, big, low
        self.place: Callable[[int], int] = lambda at: at
        self.tables: dict[tuple[int, int], int] = {}
        self.descriptors: list[tuple[int, int]] = []
        top = granule + (granule - 3) * (3 - start)
        self.base = memory.room(max(8 << max(width - top, 0), 64), low)

    def levels(self) -> list[int]:
        blocks = {12: (1, 2), 14: (2,), 16: (2,)}[self.granule]
        return [level for level in range(self.start, 4) if level == 3 or level in blocks]

    def map(self, va: int, pa: int, level: int, attributes: int) -> int:
        """Map the leaf of ``level`` about ``va``; returns what ``va`` becomes."""
        at = self.base
        for here in range(self.start, 4):
            shift = self.granule + (self.granule - 3) * (3 - here)
            top = self.width if here == self.start else shift + self.granule - 3
            entry = at + 8 * (va >> shift & ((1 << (top - shift)) - 1))
            if here == level:
                leaf = pa >> shift << shift | attributes | (3 if level == 3 else 1)
                self.store(entry, leaf)
                return pa >> shift << shift | va & ((1 << shift) - 1)
            key = (here, va >> shift)
            if key not in self.tables:
                self.tables[key] = self.memory.room(1 << self.granule, self.low)
                self.store(entry, self.tables[key] | 3)
            at = self.tables[key]
        raise AssertionError

    def store(self, at: int, value: int) -> None:
        at = self.place(at)
        self.memory.put(at, value, 8, self.big)
        self.descriptors.append((at, 8))


class Machine:
    """One SMMUv2 with one stream, as a seed makes it."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.memory = Memory(random)
        self.format = random.choice(FORMATS)
        self.kind = random.choice(KINDS if self.format != "short" else ("stage 1", "nested"))
        self.sms, self.exids = random.random() < 0.8, random.random() < 0.3
        self.ids = {o.ID0: ID0 | (SMS | GROUPS if self.sms else 0), o.ID1: ID1, o.ID2: ID2}
        if not self.sms:
            self.ids[o.ID0] = self.ids[o.ID0] & ~(15 << 9) | 7 << 9 | 127
        if self.exids and self.sms:
            self.ids[o.ID0] |= EXIDS
        self.stores: dict[int, tuple[int, int]] = {}  # register: value, bytes
        self.big = random.random() < 0.2
        sid = random.randrange(1 << 15 if self.sms else 127)
        self.access = Access(
            sid,
            self.iova(),
            random.choice((1, 4, 8, 64, 4096)),
            random.random() < 0.5,
            None,
            random.random() < 0.3,
            random.random() < 0.2,
        )
        if self.access.write:
            self.access = replace(self.access, instruction=False)
        self.wire()
        self.build()

    def iova(self) -> int:
        """An address with room for the access behind it in its page."""
        width = 32 if self.format in ("lpae", "short") else self.random.choice((32, 39, 48))
        return self.random.getrandbits(width) >> 12 << 12

    # -- registers ---------------------------------------------------------------------------------------------

    def gr1(self, offset: int, index: int) -> int:
        return 0x1000 + offset + 4 * index

    def cb(self, index: int, offset: int) -> int:
        return (PAGES + index) * 0x1000 + offset

    def store(self, at: int, value: int, size: int = 4) -> None:
        self.stores[at] = (value, size)

    def wire(self) -> None:
        """The stream to its bank."""
        random = self.random
        self.bank = random.randrange(STAGE2_BANKS, BANKS)
        self.nested = random.choice([bank for bank in range(BANKS) if bank != self.bank])
        if self.kind == "stage 2":
            self.bank = self.nested = random.randrange(BANKS)
        extended = self.sms and self.exids and random.random() < 0.7
        #: USFCFG, GFIE, GFRE, SMCFCFG; EXIDENABLE
        self.store(o.SCR0, 1 << 21 | 1 << 10 | random.getrandbits(1) << 1 | 1 << 2 | extended << 3)
        self.group = random.randrange(GROUPS) if self.sms else self.access.sid
        overrides = random.choice((0, 0, 2, 3)) << 24 | random.choice((0, 0, 2, 3)) << 26
        self.store(o.S2CR + 4 * self.group, self.bank | overrides | extended << 10)
        if self.sms:
            mask = random.getrandbits(4) if random.random() < 0.5 else 0
            sid = self.access.sid & ~mask
            self.store(o.SMR + 4 * self.group, mask << 16 | sid | (0 if extended else 1 << 31))
        cbar = {"stage 1": 1 << 16, "stage 2": 0, "nested": 3 << 16}[self.kind]
        vmid = random.randrange(256)
        if self.kind == "nested":
            cbar |= self.nested << 8
            self.store(self.gr1(o.CBAR, self.nested), vmid)
        elif self.kind == "stage 1":
            cbar |= 0xF << 12 | 3 << 8 | vmid
        else:
            cbar |= vmid
        self.store(self.gr1(o.CBAR, self.bank), cbar)

    def build(self) -> None:
        wide = self.format in ("4K", "16K", "64K")
        self.descriptors: list[tuple[int, int]] = []
        self.descriptors2: list[tuple[int, int]] = []
        map2: Callable[[int], int] = int
        if self.kind != "stage 1":
            map2 = self.stage2(wide)
            self.access = replace(self.access, iova=self.access.iova & ((1 << self.limit) - 1))
        if self.kind != "stage 2":
            (self.short if self.format == "short" else self.long)(wide, map2)
        else:
            map2(self.access.iova)

    def sctlr(self, bank: int, extra: int = 0) -> None:
        #: CFIE, CFRE, M, E; HUPCF as vendors reset it
        flags = 1 | 1 << 6 | self.random.getrandbits(1) << 5 | self.big << 4 | 1 << 8
        self.store(self.cb(bank, o.SCTLR), flags | extra)

    def stage2(self, wide: bool) -> Callable[[int], int]:
        random = self.random
        granule = 12 if not wide else random.choice((12, 14, 16))
        if wide:
            width = random.choice((40, 42, 44, 48) if granule != 12 else (40, 42, 43, 44, 48))
            codes = {12: {2: 0, 1: 1, 0: 2}, 14: {3: 0, 2: 1, 1: 2}, 16: {3: 0, 2: 1, 1: 2}}[granule]
        else:
            width, codes = random.choice((34, 38, 40)), {2: 0, 1: 1}
        starts = [
            start
            for start in codes
            if 0 < width - (granule + (granule - 3) * (3 - start)) <= granule - 3 + 4 and width <= 48
        ]
        start = random.choice(starts)
        if granule == 16 and start == 1 and width <= 42:
            start = 2 if 2 in starts else start
        tables = Long(self.memory, granule, width, start, True, self.big, not wide)
        tcr = codes[start] << 6
        if wide:
            tcr |= (64 - width) | {12: 0, 16: 1, 14: 2}[granule] << 14 | 5 << 16
            self.store(self.gr1(o.CBA2R, self.nested), 1)
        else:
            t0sz = (32 - width) & 0x1F
            tcr |= 1 << 31 | t0sz & 0xF | (t0sz >> 4 & 1) << 4
        self.store(self.cb(self.nested, o.TCR), tcr)
        self.store(self.cb(self.nested, o.TTBR0), tables.base, 8)
        self.sctlr(self.nested)
        found: dict[tuple[int, int], int] = {}
        self.limit = width

        def map2(ipa: int) -> int:
            """Where an intermediate address goes; mapped if nobody has asked for it yet."""
            for (each, at), pa in found.items():
                if ipa >> each << each == at:
                    return pa | ipa & ((1 << each) - 1)
            level = random.choice([each for each in tables.levels() if each >= 2])
            shift = granule + (granule - 3) * (3 - level)
            if any(at >> shift == ipa >> shift for _, at in found):
                level, shift = 3, granule
            pa = random.getrandbits(47 if wide else 39) >> shift << shift
            found[shift, ipa >> shift << shift] = pa
            return tables.map(ipa, pa, level, 1 << 10 | 3 << 6 | 0xF << 2 | 3 << 8)

        self.descriptors2 = tables.descriptors
        return map2

    def long(self, wide: bool, map2: Callable[[int], int]) -> None:
        random = self.random
        granule = GRANULE[self.format]
        va = self.access.iova
        high = random.random() < 0.3
        if wide:
            least = max(va.bit_length(), 25)
            width = random.choice([w for w in (32, 36, 39, 42, 48) if w >= least] or [48])
            start = 4 - -(-(width - granule) // (granule - 3))
            if high:
                va = va & ((1 << width) - 1) | ((1 << 49) - 1) >> width << width
        else:
            t0sz, t1sz = random.choice(((0, 0), (1, 1), (2, 1), (0, 2), (3, 0)))
            high = random.random() < 0.5 and t1sz != 0
            size = t1sz if high else t0sz
            width = 32 - size
            va &= (1 << width) - 1
            if high:
                va |= ((1 << size) - 1) << width
            elif t0sz == 0 and t1sz and va >> (32 - t1sz) == (1 << t1sz) - 1:
                va ^= 1 << 31
            elif t0sz and not t1sz and va >> width:
                va &= (1 << width) - 1
            if t0sz and not t1sz:
                high = False
            start = 1 if width > 30 else 2
        self.access = replace(self.access, iova=va)
        low = not wide or self.kind == "nested"
        tables = Long(self.memory, granule, width, start, False, self.big, low)
        tables.place = map2
        attributes = 1 << 10 | random.getrandbits(2) << 6 | random.choice((0, 0, 1, 2, 3)) << 53 | 1 << 11
        level = random.choice(tables.levels())
        shift = granule + (granule - 3) * (3 - level)
        output = random.getrandbits(self.limit if self.kind == "nested" else 47 if wide else 39) >> shift << shift
        ipa = tables.map(va & ((1 << width) - 1), output, level, attributes)
        if self.kind == "nested":
            map2(ipa)
        half = o.TTBR1 if high else o.TTBR0
        asid = random.randrange(1 << 16) if wide else random.randrange(256)
        self.store(self.cb(self.bank, half), tables.base | asid << 48, 8)
        if wide:
            code0, code1 = {12: 0, 16: 1, 14: 2}[granule], {12: 2, 16: 3, 14: 1}[granule]
            tcr = (64 - width) | code0 << 14 | (64 - width) << 16 | code1 << 30
            self.store(self.gr1(o.CBA2R, self.bank), 1)
            self.store(self.cb(self.bank, o.TCR2), 7 << 15 | 1 << 4 | 5)
        else:
            tcr = 1 << 31 | t0sz | t1sz << 16
        self.store(self.cb(self.bank, o.TCR), tcr)
        self.sctlr(self.bank, 1 << 2 | 1 << 1 | random.getrandbits(2) << 9)
        self.descriptors = tables.descriptors

    def short(self, wide: bool, map2: Callable[[int], int]) -> None:
        random = self.random
        va, n = self.access.iova, random.choice((0, 0, 1, 2, 7))
        high = n != 0 and random.random() < 0.5
        if n and not high:
            va &= (1 << (32 - n)) - 1
        elif high and not va >> (32 - n):
            va |= 1 << 31
        self.access = replace(self.access, iova=va)
        size = 14 if high else 14 - n
        base = self.memory.room(1 << 14 if size == 14 else max(1 << size, 1 << 7), True)

        def put(at: int, value: int) -> None:
            at = map2(at)
            self.memory.put(at, value, 4, self.big)
            self.descriptors.append((at, 4))

        afe = random.random() < 0.5
        ap = random.getrandbits(3) if not afe else random.getrandbits(2) << 1 | 1
        flags = random.getrandbits(2) << 2
        index = va >> 20 & (0xFFF if high else (1 << (12 - n)) - 1)
        shape = random.choice(("small", "large", "section", "supersection"))
        mask = {"small": 12, "large": 16, "section": 20, "supersection": 24}[shape]
        pa = random.getrandbits(32) >> mask << mask
        if shape in ("section", "supersection"):
            word = pa | 2 | flags | (ap & 3) << 10 | ap >> 2 << 15 | random.getrandbits(1) << 4 | random.getrandbits(1)
            top = 0
            if shape == "supersection":
                top = random.getrandbits(8) if self.kind == "stage 1" else 0
                word |= 1 << 18 | (top & 15) << 20 | top >> 4 << 5
            put(base + 4 * index, word)
        else:
            table = self.memory.room(1 << 10, True)
            put(base + 4 * index, table | 1 | random.getrandbits(1) << 2)
            word = pa | flags | (ap & 3) << 4 | ap >> 2 << 9
            word |= (1 | random.getrandbits(1) << 15) if shape == "large" else 2 | random.getrandbits(1)
            put(table + 4 * (va >> 12 & 0xFF), word)
        if self.kind == "nested":
            map2(pa | va & ((1 << mask) - 1))
        self.store(self.cb(self.bank, o.TTBR1 if high else o.TTBR0), base, 8)
        self.store(self.cb(self.bank, o.TCR), n)
        self.sctlr(self.bank, 1 << 1 | afe << 2 | random.getrandbits(2) << 9)

    # -- what compares it --------------------------------------------------------------------------------------

    def oracle(self) -> o.Smmuv2Oracle:
        made = o.Smmuv2Oracle(self.memory.ram.copy(), self.ids)
        for at, (value, size) in self.stores.items():
            made.write(at, value, size)
        return made


def flip(machine: Machine, at: int, low: int, high: int, number: int) -> None:
    value, size = machine.stores.get(at, (0, 4))
    machine.stores[at] = (value ^ 1 << low + number % (high - low + 1), size)


def descriptor(machine: Machine, number: int) -> None:
    found = [*machine.descriptors, *machine.descriptors2]
    at, size = found[number % len(found)]
    raw = machine.memory.ram.read(at, size)
    if raw is None:
        return
    bit = number // len(found) % (8 * size)
    order: Literal["big", "little"] = "big" if machine.big else "little"
    value = int.from_bytes(raw, order) ^ 1 << bit
    machine.memory.put(at, value, size, machine.big)


def low_bits(machine: Machine, number: int) -> None:
    """The bits of a descriptor that say what it is."""
    found = [*machine.descriptors, *machine.descriptors2]
    at, size = found[number % len(found)]
    raw = machine.memory.ram.read(at, size)
    if raw is None:
        return
    order: Literal["big", "little"] = "big" if machine.big else "little"
    bits = (0, 1, 6, 7, 10, 4, 5, 15, 9)
    value = int.from_bytes(raw, order) ^ 1 << bits[number // len(found) % len(bits)]
    machine.memory.put(at, value, size, machine.big)


def unbacked(machine: Machine, number: int) -> None:
    found = [*machine.descriptors, *machine.descriptors2]
    at, _ = found[number % len(found)]
    machine.memory.ram.blocks.pop(at >> 6, None)


def access(machine: Machine, number: int) -> None:
    was = machine.access
    machine.access = (
        replace(was, write=not was.write, instruction=False),
        replace(was, privileged=not was.privileged),
        replace(was, instruction=not was.write),
        replace(was, sid=was.sid ^ 1 << number // 8 % 7),
        replace(was, iova=was.iova ^ 1 << 12 + number // 8 % 19),
        replace(was, size=8192),
    )[number % 6]


def second_group(machine: Machine, number: int) -> None:
    if machine.sms:
        other = (machine.group + 1 + number % (GROUPS - 1)) % GROUPS
        machine.stores[o.SMR + 4 * other] = machine.stores[o.SMR + 4 * machine.group]
        machine.stores[o.S2CR + 4 * other] = machine.stores[o.S2CR + 4 * machine.group]


def bank_of_none(machine: Machine, number: int) -> None:
    value, _ = machine.stores[o.S2CR + 4 * machine.group]
    machine.stores[o.S2CR + 4 * machine.group] = (value & ~0xFF | BANKS + number % (256 - BANKS), 4)


MUTATIONS: dict[str, Callable[[Machine, int], None]] = {
    "a bit of a descriptor": descriptor,
    "the kind of a descriptor": low_bits,
    "a descriptor out of memory": unbacked,
    "another access": access,
    "two groups": second_group,
    "a bank that is none": bank_of_none,
    "S2CR type": lambda m, n: flip(m, o.S2CR + 4 * m.group, 16, 17, n % 1 if n & 1 else 1),
    "no client": lambda m, n: flip(m, o.SCR0, 0, 0, 0),
    "USFCFG": lambda m, n: flip(m, o.SCR0, 10, 10, 0),
    "GFRE": lambda m, n: flip(m, o.SCR0, 1, 1, 0),
    "SMR": lambda m, n: flip(m, o.SMR + 4 * m.group, 0, 31, n),
    "SCTLR.M": lambda m, n: flip(m, m.cb((m.bank, m.nested)[n % 2], o.SCTLR), 0, 0, 0),
    "SCTLR.AFE, AFFD": lambda m, n: flip(m, m.cb((m.bank, m.nested)[n % 2], o.SCTLR), 2, 3, n // 2),
    "SCTLR.WXN, UWXN": lambda m, n: flip(m, m.cb(m.bank, o.SCTLR), 9, 10, n),
    "PASize": lambda m, n: flip(m, m.cb(m.bank, o.TCR2), 0, 2, n) if m.gr1(o.CBA2R, m.bank) in m.stores else None,
    "EPD": lambda m, n: flip(m, m.cb(m.bank, o.TCR), *((7, 7, 0), (23, 23, 0))[n % 2])
        if m.kind != "stage 2" and m.format != "short" else None,
    "PD": lambda m, n: flip(m, m.cb(m.bank, o.TCR), 4, 5, n) if m.format == "short" else None,
    "CBAR type 2": lambda m, n: m.stores.update({m.gr1(o.CBAR, m.bank): (2 << 16, 4)}) if m.kind == "stage 1" else None,
    "a fault before": lambda m, n: m.stores.update({
        m.cb(m.bank, o.FSRRESTORE): (1 << 1 + n % 4, 4),
        m.cb(m.bank, o.SCTLR): (m.stores.get(m.cb(m.bank, o.SCTLR), (0, 4))[0] ^ (n >> 3 & 1) << 8, 4),
    }),
    "a global fault before": lambda m, n: m.stores.update({o.SGFSRRESTORE: (1 << n % 4, 4)}),
}  # fmt: skip
