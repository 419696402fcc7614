# SPDX-License-Identifier: Apache-2.0
"""The oracle with both stages: nested walks, hardware updates, LPA2, AArch32 LPAE tables, and stalls.

Law: as for the oracle: from IHI 0070 issue G.b and the Arm ARM alone, with nothing of the product's. Where they
leave a choice (whether an access that is not permitted sets the access flag) it takes the product's, and says so.
Not modelled: caches, ATS but for requests, PRI, 128-bit tables, permission indirection, allocation hints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from tests.model.oracle import (
    ABORT,
    C_BAD_CD,
    C_BAD_STE,
    CERROR_ILL,
    CR0,
    CR2,
    EL1,
    EL2,
    EL2_E2H,
    EVENTQ_ABT_ERR,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_PROD,
    F_ACCESS,
    F_ADDR_SIZE,
    F_CD_FETCH,
    F_PERMISSION,
    F_STREAM_DISABLED,
    F_TRANSLATION,
    F_WALK_EABT,
    GBPA,
    OUTPUT_BITS,
    RAZ_WI,
    Access,
    Config,
    Oracle,
    Ram,
    Result,
    Terminated,
    bits,
    join,
)

STALLED = "stalled"

SUCCESS, UR, CA = "success", "unsupported request", "completer abort"

# Memory types as (outer, inner, shareability): outer 0 is Device of the kind inner, else both are cacheabilities,
# stronger where smaller; shareability as descriptors have it. None: what the architecture leaves open.
Memory = tuple[int, int, int]
NON_CACHEABLE, WRITE_THROUGH, WRITE_BACK = 1, 2, 3
NSH, OSH, ISH = 0, 2, 3

# CLASS in event records (§7.3).
CLASS_CD, CLASS_TT, CLASS_IN = 0, 1, 2

STALL_BIT, TTRNW_BIT, S2_BIT = 1 << 95, 1 << 108, 1 << 103
STAG_FIELD = 0xFFFF << 64
IPA_FIELD = (2**44 - 1) << 204


@dataclass
class Setup(Config):
    """A configuration with its STE, and the stages that are on."""

    ste: int = 0
    stage1: bool = False
    stage2: bool = False


@dataclass(frozen=True)
class Table:
    """What a walk goes by, of either stage."""

    lpae: bool
    granule: int
    width: int  # of the input address
    start: int  # level
    base: int
    size: int  # of the output address, in bits
    big: bool
    ds: bool
    ha: bool
    hd: bool
    haft: bool
    affd: bool
    hierarchy: bool
    shareability: int


@dataclass(frozen=True)
class End:
    """The leaf that a walk came to: where its descriptor is as an input and as a physical address."""

    at: int
    pa: int
    descriptor: int
    level: int
    shift: int
    output: int
    ap_table: int
    xn_table: bool
    pxn_table: bool


@dataclass
class Waiting:
    """A stalled access: what is left of it, and whether software knows."""

    number: int
    access: Access
    done: list[tuple[int, int]]
    stag: int | None = None


def stage2_start(granule: int, width: int, ds: bool, code: int, oas: int, stt: bool) -> int | None:
    """Level at which a VMSAv8-64 stage 2 starts; None: S2SL0, S2T0SZ and S2TG do not fit (Arm ARM, VTCR_EL2.SL0)."""
    low, third = code & 3, code >> 2 & (ds and granule == 12)
    if granule == 12:
        if third:
            start = -1 if low == 0 and oas >= 52 else None
        elif low == 3:
            start = 3 if stt else None
        else:
            start = 2 - low if low < 2 or oas >= 44 else None
    elif granule == 14:
        allowed = (True, True, oas >= 42, ds and oas >= 52)[low]
        start = 3 - low if allowed else None
    else:
        allowed = (True, True, oas >= 44, False)[low]
        start = 3 - low if allowed else None
    if start is None:
        return None
    stride = granule - 3
    least = (3 - start) * stride + granule + 1  # one bit at least is left to the first level
    return start if least <= width <= least + stride - 1 + 4 else None  # sixteen tables at most make one


def consistent(memory: Memory) -> Memory:
    """§13.1.7: Device and non-cacheable memory is outer shareable."""
    outer, inner, shareability = memory
    return (outer, inner, OSH if not outer or outer == inner == NON_CACHEABLE else shareability)


def from_mair(byte: int, shareability: int) -> Memory | None:
    """Arm ARM, MAIR_ELx.Attr; None for its UNPREDICTABLE values and those of later extensions."""
    if shareability == 1:
        return None
    if byte >> 4 == 0:
        return (0, byte >> 2, OSH) if not byte & 3 else None
    if not byte & 15:
        return None

    def cacheability(nibble: int) -> int:
        if nibble == 4:
            return NON_CACHEABLE
        return WRITE_BACK if nibble & 4 else WRITE_THROUGH

    return consistent((cacheability(byte >> 4), cacheability(byte & 15), shareability))


def combined(first: Memory, second: Memory) -> Memory:
    """The stronger of each (§13.1.5)."""
    shareability = next(kind for kind in (OSH, ISH, NSH) if kind in (first[2], second[2]))
    if not first[0] and not second[0]:
        return (0, min(first[1], second[1]), OSH)
    if not first[0] or not second[0]:
        return (0, first[1] if not first[0] else second[1], OSH)
    return consistent((min(first[0], second[0]), min(first[1], second[1]), shareability))


def forced(first: Memory, memattr: int, shareability: int) -> Memory | None:
    """With STE.S2FWB (Arm ARM, FEAT_S2FWB); None for reserved values."""
    shared = next(kind for kind in (OSH, ISH, NSH) if kind in (first[2], shareability))
    if memattr >= 8 or memattr == 4:
        return None
    if memattr < 4:
        return (0, min(first[1], memattr) if not first[0] else memattr, OSH)
    if memattr == 7:
        return consistent((first[0], first[1], shared))
    if memattr == 6:
        return (WRITE_BACK, WRITE_BACK, shared)
    return first if not first[0] else (NON_CACHEABLE, NON_CACHEABLE, OSH)


class StagesOracle(Oracle):
    def __init__(self, ram: Ram, ids: dict[str, int]) -> None:
        super().__init__(ram, ids)
        self.waiting: list[Waiting] = []
        self.ended: dict[int, Result] = {}
        self.arrived = 0
        self.incoming: Memory = (WRITE_BACK, WRITE_BACK, NSH)
        self.memory: list[tuple[int, Memory | None]] = []  # of each part that the last access came to
        self.leaves: list[tuple[Table, int]] = []
        self.kind: Memory | None = None
        self.last: tuple[int, int, int] | None = None  # the last fault's number, stage and class
        self.ipa = 0  # what stage 1 made of the last address
        self.never_dirty = False
        self.current = 0  # the address that the event of a CD fetch's fault names
        #: The tags that the product chose, for each stalled access by its number.
        self.stag_of: Callable[[int], int] = lambda number: number

    @property
    def ias(self) -> int:
        """§3.4."""
        return max(40 if bits(self.idr0, 2, 2) else 0, self.oas if bits(self.idr0, 3, 3) else 0)

    # -- transactions ------------------------------------------------------------------------------------------

    def translate(self, access: Access) -> Result:
        result = Result()
        self.attempt(Waiting(self.arrived, access, []), result, False)
        self.arrived += 1
        return result

    def attempt(self, waiting: Waiting, result: Result, retried: bool) -> None:
        """Translate what is left; on a stall it joins those that wait."""
        access = waiting.access
        at, end = access.iova, access.iova + access.size
        pieces = list(waiting.done)
        self.memory = []
        try:
            while at < end:
                size = min(end, (at | 0xFFF) + 1) - at
                pieces.append((self.translate_one(access, at), size))
                self.memory.append((size, self.kind))
                at += size
        except Terminated as ended:
            result.outcome = ended.outcome
            record = ended.record
            if ended.outcome == STALLED:
                assert record is not None
                left = replace(access, iova=at, size=end - at)
                # What the first attempt translated, its answer already gave.
                again = Waiting(waiting.number, left, list(pieces) if retried else [])
                if self.writable() and self.told() < self.stall_max:
                    again.stag = self.stag_of(waiting.number)
                    record |= again.stag << 64
                    result.events.append(record.to_bytes(32, "little"))
                    self.deliver(result.events[-1])
                self.waiting.append(again)
            elif record is not None:
                result.events.append(record.to_bytes(32, "little"))
                self.deliver(result.events[-1])
        result.pieces = join(pieces)

    # -- ATS translation requests (§3.9.1.2, 13.7.1) -----------------------------------------------------------

    def request(self, access: Access, no_write: bool, execute: bool) -> tuple[str, str, int]:
        """(status, permissions, page): success, "RWX" or less, and where the page goes; of one page.

        The permissions are those of ordinary accesses, which STE.INSTCFG and PRIVCFG change alike; Exe needs R.
        """
        if not bits(self.register(CR0), 0, 0):
            return UR, "", 0
        if access.ssid is None:
            access, execute = replace(access, privileged=False), False
        try:
            ste = self.stream_table_entry(access)
        except Terminated:
            return CA, "", 0
        config = bits(ste, 3, 1)
        if not ste & 1:
            return CA, "", 0
        if config < 4:
            return UR, "", 0
        if self.ste_illegal(ste):
            return CA, "", 0
        eats = bits(ste, 93, 92)
        split = eats == 2
        if config == 4 or eats in (0, 3) or (split and not bits(self.register(CR0), 4, 4)):
            return UR, "", 0
        granted, page = "", 0
        for letter, write, instruction in (("R", False, False), ("W", True, False), ("X", False, True)):
            if letter == "X" and not (execute and "R" in granted):
                continue
            self.last, before = None, self.ram
            self.ram, self.never_dirty = before.copy(), letter == "W" and no_write
            try:
                pa = self.translate_one(replace(access, write=write, instruction=instruction), access.iova)
            except Terminated:
                # Without one of the four faults it was an error of the configuration, or an abort.
                if self.last is None:
                    return CA, "", 0
                if self.last[0] != F_PERMISSION or self.last[2] != CLASS_IN:
                    return (SUCCESS, "", 0) if letter == "R" else (SUCCESS, granted + "?", page)
            else:
                granted, page = granted + letter, (self.ipa if split else pa) >> 12 << 12
            finally:
                self.ram, self.never_dirty = before, False
        return SUCCESS, granted, page

    # -- stalls (§3.12.2, 4.7.1, 4.7.2, 7.2.1) -----------------------------------------------------------------

    @property
    def stall_max(self) -> int:
        return bits(self.idr5, 31, 16) or 0x1_0000

    def told(self) -> int:
        return sum(waiting.stag is not None for waiting in self.waiting)

    def writable(self) -> bool:
        size = min(bits(self.register(EVENTQ_BASE), 4, 0), bits(self.idr1, 20, 16))
        differ = bits(self.register(EVENTQ_PROD), size, 0) ^ bits(self.register(EVENTQ_CONS), size, 0)
        enabled = bits(self.register(CR0), 2, 2)
        return bool(enabled and differ != 1 << size and not self.active(EVENTQ_ABT_ERR))

    def retry(self, waiting: Waiting) -> None:
        self.waiting.remove(waiting)
        result = Result()
        self.attempt(waiting, result, True)
        if result.outcome != STALLED:
            self.ended[waiting.number] = result

    def end(self, waiting: Waiting, outcome: str) -> None:
        self.waiting.remove(waiting)
        self.ended[waiting.number] = Result(outcome, join(waiting.done))

    def tell(self) -> None:
        """Those that software was not told of are retried, in their order, while the event queue is writable."""
        tried: set[int] = set()
        while self.writable() and self.told() < self.stall_max:
            untold = [w for w in self.waiting if w.stag is None and w.number not in tried]
            if not untold:
                return
            tried.add(untold[0].number)
            self.retry(untold[0])

    def write(self, offset: int, value: int) -> None:
        was_enabled = self.register(CR0) & 1
        super().write(offset, value)
        if offset == CR0 and was_enabled and not value & 1:  # §6.3.9.6
            for waiting in list(self.waiting):
                self.end(waiting, ABORT)
        self.tell()

    def command(self, command: int) -> int:
        opcode = bits(command, 7, 0)
        stage2 = bits(self.idr0, 0, 0)
        if opcode == 0x28:
            return 0 if stage2 else CERROR_ILL
        if opcode == 0x2A:
            return 0 if stage2 and self.range_legal(command) else CERROR_ILL
        if opcode not in (0x44, 0x45):
            return super().command(command)
        if bits(command, 10, 10) or bits(self.idr0, 25, 24) == 1:
            return CERROR_ILL
        sid = bits(command, 63, 32)
        for waiting in [w for w in self.waiting if w.access.sid == sid]:
            if opcode == 0x45:
                self.end(waiting, ABORT)
            elif waiting.stag == bits(command, 79, 64):
                if bits(command, 12, 12):
                    self.retry(waiting)
                else:
                    silent = not bits(command, 13, 13) and not bits(self.idr0, 26, 26)
                    self.end(waiting, RAZ_WI if silent else ABORT)
        self.tell()
        return 0

    def translate_one(self, access: Access, iova: int) -> int:
        if not bits(self.register(CR0), 0, 0):
            gbpa = self.register(GBPA)
            self.kind = self.replaced(bits(gbpa, 4, 4), bits(gbpa, 3, 0), bits(gbpa, 13, 12))
            return super().translate_one(access, iova)
        self.current = iova
        self.leaves = []
        setup = self.configuration(access)
        if setup.stage1:
            ipa = self.first(access, setup, iova)
        else:
            # Without any stage of translation the limit is the OAS, else the IAS (§3.4).
            limit = self.ias if bits(setup.ste, 3, 1) != 4 else self.oas
            if iova >> limit:
                self.last = (F_ADDR_SIZE, 1, CLASS_IN)
                raise Terminated(self.fault(F_ADDR_SIZE, access, setup, iova))
            ipa = iova
        self.ipa = ipa
        if setup.stage2:
            ipa = self.second(access, setup, iova, ipa, CLASS_IN, access.write, setup.instruction)
        self.kind = self.memory_of(setup)
        return ipa & ((1 << self.oas) - 1)

    # -- memory types (§13.1, 13.4) ----------------------------------------------------------------------------

    def replaced(self, mtcfg: int, memattr: int, shcfg: int) -> Memory:
        """The incoming type with the overrides of an STE or GBPA."""
        outer, inner, shareability = self.incoming
        if bits(self.idr1, 27, 27):
            if mtcfg:
                outer, inner = (memattr >> 2, memattr & 3) if memattr < 4 or memattr & 3 else (0, 0)
            if shcfg != 1:
                shareability = shcfg
        return consistent((outer, inner, shareability))

    def memory_of(self, setup: Setup) -> Memory | None:
        ste = setup.ste
        first: Memory | None = self.replaced(bits(ste, 100, 100), bits(ste, 99, 96), bits(ste, 109, 108))
        leaves = list(self.leaves)
        if setup.stage1:
            table, descriptor = leaves.pop(0)
            mair = bits(setup.cd, 255, 192) >> 8 * bits(descriptor, 4, 2) & 0xFF
            first = from_mair(mair, table.shareability if table.ds else bits(descriptor, 9, 8))
        if not setup.stage2 or first is None:
            return first
        table, descriptor = leaves.pop(0)
        memattr = bits(descriptor, 5, 2)
        shareability = table.shareability if table.ds else bits(descriptor, 9, 8)
        if shareability == 1:
            return None
        if bits(self.idr3, 8, 8) and bits(ste, 89, 89):
            return forced(first, memattr, shareability)
        if memattr >= 4 and not memattr & 3:
            return None
        return combined(first, (memattr >> 2, memattr & 3, shareability))

    # -- configuration (§5.2.2, 5.4.2) -------------------------------------------------------------------------

    def ste_illegal(self, ste: int) -> bool:
        config = bits(ste, 3, 1)
        stage1, stage2 = bool(config & 1), bool(config & 2)
        if stage1 and not bits(self.idr0, 1, 1):
            return True
        if stage2 and not bits(self.idr0, 0, 0):
            return True
        stall_model = bits(self.idr0, 25, 24)
        strw_used = bits(self.idr0, 1, 1) and self.hyp and config == 5
        if bits(self.idr0, 10, 10) and config != 4:  # ATS
            eats = bits(ste, 93, 92)
            if eats == 2 and (config != 7 or bits(ste, 185, 185) or bits(self.idr0, 11, 11)):
                return True
            if eats == 1 and bits(ste, 185, 185) and stage2:
                return True
        if strw_used and bits(ste, 94, 94):
            return True
        if stage1:
            if bits(ste, 91, 91) and stall_model != 0:
                return True
            s1cdmax = bits(ste, 63, 59)
            if self.ssidsize and s1cdmax > self.ssidsize:
                return True
            if self.ssidsize and s1cdmax and not bits(self.idr0, 19, 19) and bits(ste, 5, 4) in (1, 2):
                return True
            if (bits(ste, 55, 6) << 6) >> (self.ias if stage2 else self.oas):
                return True
        if stage2 and self.stage2_illegal(ste, stall_model):
            return True
        vmid_used = bits(self.idr0, 0, 0) and config != 4 and not (strw_used and bits(ste, 95, 94))
        return bool(vmid_used and not bits(self.idr0, 18, 18) and bits(ste, 143, 136))

    def stage2_illegal(self, ste: int, stall_model: int) -> bool:
        lpae = not bits(ste, 179, 179)
        if lpae and bits(self.idr3, 8, 8) and bits(ste, 89, 89):  # FWB
            return True
        if (stall_model == 1 and bits(ste, 185, 185)) or (stall_model == 2 and not bits(ste, 185, 185)):
            return True
        if not bits(self.idr0, 2, 2) if lpae else not bits(self.idr0, 3, 3):
            return True
        httu = bits(self.idr0, 7, 6)
        ha, hd, haft = bits(ste, 184, 184), bits(ste, 183, 183), bits(ste, 187, 187)
        if (ha or hd) and (lpae or httu == 0):
            return True
        if hd and httu == 1:
            return True
        if haft and not ha and httu == 3:
            return True
        endian = bits(self.idr0, 22, 21)
        big = bits(ste, 180, 180)
        if (endian == 2 and big) or (endian == 3 and not big):
            return True
        ttb = bits(ste, 247 if self.version else 239, 196) << 4
        if lpae:
            return bool(ttb >> 40) or self.lpae_start(ste) is None
        granule = {0: 12, 1: 16, 2: 14}.get(bits(ste, 175, 174))
        if granule is None or not self.granule_supported(granule):
            return True
        ds = self.stage2_ds(ste, granule)
        if ttb >> self.stage2_size(ste) or (granule != 16 and not ds and ttb >> 48):
            return True
        stt = bool(bits(self.idr3, 9, 9))
        t0sz = bits(ste, 165, 160)
        longest = (47 if granule == 16 else 48) if stt else 39
        shortest = max(12 if granule == 16 or ds else 16, 64 - self.ias)
        if not shortest <= t0sz <= longest:
            return True
        return stage2_start(granule, 64 - t0sz, ds, self.start_code(ste), self.oas, stt) is None

    def start_code(self, ste: int) -> int:
        return bits(ste, 194, 194) << 2 | bits(ste, 167, 166)

    def stage2_ds(self, ste: int, granule: int) -> bool:
        return bool(bits(self.idr5, 7, 7) and bits(ste, 195, 195) and granule != 16 and bits(ste, 179, 179))

    def stage2_size(self, ste: int) -> int:
        if not bits(ste, 179, 179):
            return 40
        return min(OUTPUT_BITS[min(bits(ste, 178, 176), 6 if self.version else 5)], self.oas)

    def lpae_start(self, ste: int) -> int | None:
        """Level at which an AArch32 stage 2 starts (Arm ARM, VTCR.SL0)."""
        low = bits(ste, 167, 166)
        if low > 1:
            return None
        start = 2 - low
        width = self.lpae_width(ste)
        least = (3 - start) * 9 + 13
        return start if least <= width <= least + 12 else None

    def lpae_width(self, ste: int) -> int:
        t0sz = bits(ste, 163, 160)
        return 32 - (t0sz - 16 if t0sz >= 8 else t0sz)

    def configuration(self, access: Access) -> Setup:
        ste = self.stream_table_entry(access)
        if not ste & 1:
            raise Terminated(self.event(C_BAD_STE, access))
        config = bits(ste, 3, 1)
        if config < 4:
            raise Terminated(None)
        if self.ste_illegal(ste):
            raise Terminated(self.event(C_BAD_STE, access))
        privileged, instruction = access.privileged, access.instruction
        if bits(self.idr1, 26, 26):
            privileged = {2: False, 3: True}.get(bits(ste, 113, 112), privileged)
            instruction = {2: False, 3: True}.get(bits(ste, 115, 114), instruction)
        if access.write:
            instruction = False
        world = EL1
        if config == 5 and self.hyp and bits(ste, 95, 94) == 2:
            world = EL2_E2H if bits(self.register(CR2), 0, 0) else EL2
        setup = Setup(not config & 1, world, privileged, instruction, 0, ste, bool(config & 1), bool(config & 2))
        s1cdmax = bits(ste, 63, 59) if self.ssidsize else 0
        s1dss = bits(ste, 65, 64)
        if access.ssid is not None:
            if not setup.stage1 or not s1cdmax or access.ssid >> s1cdmax:
                raise Terminated(self.bad_substream(access))
            if access.ssid == 0 and s1dss == 2:
                raise Terminated(self.event(F_STREAM_DISABLED, access, ssv=False))
        elif setup.stage1 and s1cdmax:
            if s1dss == 1:
                setup.stage1 = False
            elif s1dss != 2:
                raise Terminated(self.event(F_STREAM_DISABLED, access, ssv=False))
        if not setup.stage1:
            return setup
        setup.cd = self.descriptor_of(access, setup, s1cdmax)
        if self.cd_illegal(setup.cd, ste, world):
            raise Terminated(self.event(C_BAD_CD, access))
        return setup

    def descriptor_of(self, access: Access, setup: Setup, s1cdmax: int) -> int:
        """The CD, each fetch through stage 2 where that is on."""
        ste = setup.ste

        def fetch(at: int, size: int) -> int:
            pa = at
            if setup.stage2:
                pa = self.second(access, setup, self.current, at, CLASS_CD, False, False)
            raw = self.fetch(pa, size)
            if raw is None:
                raise Terminated(self.fetch_event(F_CD_FETCH, access, pa))
            return int.from_bytes(raw, "little")

        at = bits(ste, 55, 6) << 6
        index = access.ssid or 0
        s1fmt = bits(ste, 5, 4)
        if s1cdmax and s1fmt in (1, 2):
            leaf_bits = 6 if s1fmt == 1 else 10
            align = max(6, s1cdmax - leaf_bits + 3)
            l1cd = fetch((at >> align << align) + (index >> leaf_bits) * 8, 8)
            pointer = bits(l1cd, 55, 12) << 12
            # Beyond the IAS it may be C_BAD_SUBSTREAMID or stage 2's fault, which comes by itself (§3.4.3, note 4).
            if not l1cd & 1 or (not setup.stage2 and pointer >> self.oas):
                raise Terminated(self.bad_substream(access))
            pointer = pointer >> (leaf_bits + 6) << (leaf_bits + 6)
            return fetch(pointer + (index & ((1 << leaf_bits) - 1)) * 64, 64)
        if s1cdmax:
            at = (at >> (s1cdmax + 6) << (s1cdmax + 6)) + index * 64
        return fetch(at, 64)

    def ips(self, cd: int) -> int:
        return super().ips(cd) if bits(cd, 41, 41) else 40

    def stage1_ds(self, cd: int, granule: int | None) -> bool:
        return bool(bits(self.idr5, 7, 7) and bits(cd, 186, 186) and granule != 16 and bits(cd, 41, 41))

    def cd_illegal(self, cd: int, ste: int, world: str) -> bool:
        if not bits(cd, 31, 31):
            return True
        stall_model = bits(self.idr0, 25, 24)
        stall = bits(cd, 44, 44)
        if stall and (bits(ste, 91, 91) or stall_model == 1):
            return True
        if not stall and stall_model == 2:
            return True
        if bits(self.idr0, 26, 26) and not bits(cd, 46, 46):
            return True
        epd0, epd1 = bits(cd, 14, 14), bits(cd, 30, 30)
        if world == EL2:
            epd0, epd1 = 0, 1
        endian, big = bits(self.idr0, 22, 21), bits(cd, 15, 15)
        if not (epd0 and epd1) and ((endian == 2 and big) or (endian == 3 and not big)):
            return True
        lpae = not bits(cd, 41, 41)
        if lpae and (not bits(self.idr0, 2, 2) or world == EL2_E2H):
            return True
        if not lpae and (not bits(self.idr0, 3, 3) or (bits(ste, 2, 2) and not bits(ste, 179, 179))):
            return True
        httu = bits(self.idr0, 7, 6)
        ha, hd, haft = bits(cd, 43, 43), bits(cd, 42, 42), bits(cd, 67, 67)
        if not lpae and (((ha or hd) and httu == 0) or (hd and httu == 1) or (haft and not ha and httu == 3)):
            return True
        if world in (EL1, EL2_E2H) and not bits(self.idr0, 12, 12) and bits(cd, 63, 56):
            return True
        for high, disabled in ((False, epd0), (True, epd1)):
            if disabled:
                continue
            txsz, granule, ttb, *_ = self.half(cd, high)
            if ttb >> self.ips(cd):
                return True
            if lpae:
                continue
            if not self.granule_supported(granule):
                return True
            ds = self.stage1_ds(cd, granule)
            longest = (47 if granule == 16 else 48) if bits(self.idr3, 9, 9) else 39
            shortest = 12 if bits(self.idr5, 11, 10) in (1, 2) and (granule == 16 or ds) else 16
            if not shortest <= txsz <= longest:
                return True
            if granule != 16 and not ds and ttb >> 48:
                return True
        return False

    # -- faults ------------------------------------------------------------------------------------------------

    def first_fault(self, number: int, access: Access, setup: Setup, iova: int) -> NoReturn:
        self.last = (number, 1, CLASS_IN)
        record = self.fault(number, access, setup, iova)
        if bits(setup.cd, 44, 44):  # S
            raise Terminated(record | STALL_BIT, STALLED)
        outcome = ABORT if bits(setup.cd, 46, 46) else RAZ_WI
        raise Terminated(record if bits(setup.cd, 45, 45) else None, outcome)

    def second_fault(
        self, number: int, access: Access, setup: Setup, iova: int, ipa: int, kind: int, write: bool
    ) -> NoReturn:
        self.last = (number, 2, kind)
        record = self.fault(number, access, setup, iova) & ~(3 << 104) | kind << 104 | S2_BIT
        # §7.3.13 has IPA[55:OAS] RES0, §3.4.3 wants the IPA whole: they differ where the IAS is 40 and the OAS less.
        record |= ipa >> 12 << 204
        if number == F_PERMISSION and kind == CLASS_TT and not write:
            record |= TTRNW_BIT
        if bits(setup.ste, 185, 185):  # S2S
            raise Terminated(record | STALL_BIT, STALLED)
        raise Terminated(record if bits(setup.ste, 186, 186) else None)

    def walk_abort(self, access: Access, setup: Setup, iova: int, pa: int, kind: int, stage2: bool) -> NoReturn:
        """§7.3.12."""
        record = self.event(F_WALK_EABT, access) | iova << 128 | (pa & ((1 << self.oas) - 1)) >> 3 << 195
        record |= setup.privileged << 97 | setup.instruction << 98 | (not access.write) << 99
        raise Terminated(record | kind << 104 | stage2 << 103)

    # -- walks -------------------------------------------------------------------------------------------------

    def go(
        self,
        table: Table,
        address: int,
        fetch: Callable[[int], tuple[int, int]],
        store: Callable[[int, int, int], None],
        fault: Callable[[int], NoReturn],
    ) -> End:
        """Walk; ``fetch`` gives a descriptor and its physical address, ``store`` updates one."""
        granule, stride = table.granule, table.granule - 3
        start_shift = granule + stride * (3 - table.start)
        align = max(table.width - start_shift + 3, 6 if table.size == 52 else 4)
        base = table.base >> align << align
        ap_table = 0
        xn_table = pxn_table = False
        for level in range(table.start, 4):
            shift = granule + stride * (3 - level)
            top = table.width if level == table.start else shift + stride
            at = base + bits(address, top - 1, shift) * 8
            descriptor, pa = fetch(at)
            if not descriptor & 1:
                fault(F_TRANSLATION)
            output = bits(descriptor, 47, granule) << granule
            if table.ds:
                output |= bits(descriptor, 49, 48) << 48 | bits(descriptor, 9, 8) << 50
            elif granule == 16 and self.oas == 52:
                output |= bits(descriptor, 15, 12) << 48
            if level < 3 and descriptor & 2:
                if output >> table.size:
                    fault(F_ADDR_SIZE)
                if table.hierarchy:
                    ap_table |= bits(descriptor, 62, 61)
                    xn_table |= bool(bits(descriptor, 60, 60))
                    pxn_table |= bool(bits(descriptor, 59, 59))
                if table.haft and not bits(descriptor, 10, 10):
                    store(at, pa, descriptor | 1 << 10)
                base = output
                continue
            if level == 3 and not descriptor & 2:
                fault(F_TRANSLATION)
            if level < 3 and not self.blocks(table, level):
                fault(F_TRANSLATION)
            output = output >> shift << shift
            if output >> table.size:
                fault(F_ADDR_SIZE)
            if not bits(descriptor, 10, 10) and not table.ha and not table.affd:
                fault(F_ACCESS)
            return End(at, pa, descriptor, level, shift, output, ap_table, xn_table, pxn_table)
        raise AssertionError("a walk ends at level 3")

    def blocks(self, table: Table, level: int) -> bool:
        if table.granule == 12:
            return level in (1, 2) or (level == 0 and table.ds)
        if table.granule == 14:
            return level == 2 or (level == 1 and table.ds)
        return level == 2 or (level == 1 and self.oas == 52)

    def put(self, pa: int, descriptor: int, big: bool) -> None:
        self.ram.write(pa, descriptor.to_bytes(8, "big" if big else "little"))

    def descriptor(self, pa: int, big: bool) -> int | None:
        raw = self.fetch(pa & ((1 << self.oas) - 1), 8)
        return None if raw is None else int.from_bytes(raw, "big" if big else "little")

    # -- stage 1 -----------------------------------------------------------------------------------------------

    def first(self, access: Access, setup: Setup, iova: int) -> int:
        cd = setup.cd
        lpae = not bits(cd, 41, 41)

        def fault(number: int) -> NoReturn:
            self.first_fault(number, access, setup, iova)

        table, va = self.lpae_half(setup, iova, fault) if lpae else self.choose_half(setup, iova, fault)

        def fetch(at: int) -> tuple[int, int]:
            pa = at
            if setup.stage2:
                pa = self.second(access, setup, iova, at, CLASS_TT, False, False)
            descriptor = self.descriptor(pa, table.big)
            if descriptor is None:
                self.walk_abort(access, setup, iova, pa, CLASS_TT, False)
            return descriptor, pa

        def store(at: int, pa: int, descriptor: int) -> None:
            if setup.stage2:
                pa = self.second(access, setup, iova, at, CLASS_TT, True, False)
            self.put(pa, descriptor, table.big)

        end = self.go(table, va, fetch, store, fault)
        accessed = end.descriptor | (1 << 10 if table.ha else 0)
        dirty = table.hd and bool(bits(end.descriptor, 51, 51)) and not self.never_dirty
        if not self.allowed(access, setup, end, dirty):
            # It is UNKNOWN whether a permission fault leaves the access flag set (§3.13.2): as the product has it.
            if accessed != end.descriptor:
                store(end.at, end.pa, accessed)
            fault(F_PERMISSION)
        if access.write and dirty:
            accessed &= ~(1 << 7)
        if accessed != end.descriptor:
            store(end.at, end.pa, accessed)
        self.leaves.append((table, end.descriptor))
        return end.output | bits(iova, end.shift - 1, 0)

    def choose_half(self, setup: Setup, iova: int, fault: Callable[[int], NoReturn]) -> tuple[Table, int]:
        cd = setup.cd
        two = setup.world != EL2
        high = two and bool(bits(iova, 55, 55))
        txsz, granule, base, epd, tbi, had, e0pd = self.half(cd, high)
        if two and epd:
            fault(F_TRANSLATION)
        assert granule is not None
        width = 64 - txsz
        sign = (1 << 64) - 1 if high else 0
        top = 55 if tbi else 63
        if bits(iova, top, width) != bits(sign, top, width):
            fault(F_TRANSLATION)
        if two and bits(self.idr3, 13, 13) and e0pd and not setup.privileged:
            fault(F_TRANSLATION)
        httu = bits(self.idr0, 7, 6)
        ha = bool(bits(cd, 43, 43))
        table = Table(
            lpae=False,
            granule=granule,
            width=width,
            start=4 - -(-(width - granule) // (granule - 3)),
            base=base,
            size=self.ips(cd),
            big=bool(bits(cd, 15, 15)),
            ds=self.stage1_ds(cd, granule),
            ha=ha,
            hd=ha and bool(bits(cd, 42, 42)),
            haft=ha and httu == 3 and bool(bits(cd, 67, 67)),
            affd=bool(bits(cd, 35, 35)),
            hierarchy=not (bits(self.idr3, 2, 2) and had),
            shareability=bits(cd, 29, 28) if high else bits(cd, 13, 12),
        )
        return table, bits(iova, width - 1, 0)

    def lpae_half(self, setup: Setup, iova: int, fault: Callable[[int], NoReturn]) -> tuple[Table, int]:
        """TTBCR.TxSZ of the Arm ARM; of EL2 there is one half, and what is beyond it faults (HTCR)."""
        cd = setup.cd
        if iova >> 32:
            fault(F_TRANSLATION)
        t0sz, t1sz = bits(cd, 2, 0), bits(cd, 18, 16)
        low = iova >> (32 - t0sz) == 0
        if setup.world == EL2:
            high = False
            if not low:
                fault(F_TRANSLATION)
        else:
            ones = t1sz != 0 and iova >> (32 - t1sz) == (1 << t1sz) - 1
            if t0sz and low:
                high = False
            elif t1sz:
                high = ones
                if t0sz and not ones:
                    fault(F_TRANSLATION)
            else:
                high = t0sz != 0
            if bits(cd, 30, 30) if high else bits(cd, 14, 14):
                fault(F_TRANSLATION)
        _, _, base, _, _, had, _ = self.half(cd, high)
        width = 32 - (t1sz if high else t0sz)
        table = Table(
            lpae=True,
            granule=12,
            width=width,
            start=1 if width > 30 else 2,
            base=base,
            size=40,
            big=bool(bits(cd, 15, 15)),
            ds=False,
            ha=False,
            hd=False,
            haft=False,
            affd=bool(bits(cd, 35, 35)),
            hierarchy=not (bits(self.idr3, 2, 2) and had),
            shareability=bits(cd, 29, 28) if high else bits(cd, 13, 12),
        )
        return table, bits(iova, width - 1, 0)

    def allowed(self, access: Access, setup: Setup, end: End, dirty: bool) -> bool:
        """Stage 1 permissions; a writable-clean page counts as writable (§3.13.8)."""
        cd, descriptor = setup.cd, end.descriptor
        lpae = not bits(cd, 41, 41)
        writable = (dirty or not bits(descriptor, 7, 7)) and not end.ap_table & 2
        user = bool(bits(descriptor, 6, 6)) and not end.ap_table & 1
        xn = bool(bits(descriptor, 54, 54)) or end.xn_table
        pxn = bool(bits(descriptor, 53, 53)) or end.pxn_table
        wxn = bool(bits(cd, 36, 36))
        if setup.world == EL2:
            if access.write:
                return writable
            return not (xn or (wxn and writable)) if setup.instruction else True
        user_writable = user and writable
        if setup.privileged:
            if setup.instruction:
                if lpae:
                    uwxn = bool(bits(cd, 37, 37))
                    return not (xn or pxn or (wxn and writable) or (uwxn and user_writable))
                return not (pxn or user_writable or (wxn and writable))
            epan = not lpae and bits(self.idr3, 17, 17) and bits(cd, 123, 123)
            if bits(cd, 40, 40) and (user or (epan and not xn)):
                return False
            return writable if access.write else True
        if setup.instruction:
            if lpae and not user:  # AArch32: what cannot be read cannot be executed
                return False
            return not (xn or (wxn and user_writable))
        return user_writable if access.write else user

    # -- stage 2 -----------------------------------------------------------------------------------------------

    def second_table(self, ste: int) -> Table:
        lpae = not bits(ste, 179, 179)
        httu = bits(self.idr0, 7, 6)
        ha = bool(bits(ste, 184, 184))
        if lpae:
            start, width, granule, ds = self.lpae_start(ste), self.lpae_width(ste), 12, False
        else:
            granule = (12, 16, 14)[bits(ste, 175, 174)]
            width = 64 - bits(ste, 165, 160)
            ds = self.stage2_ds(ste, granule)
            start = stage2_start(granule, width, ds, self.start_code(ste), self.oas, bool(bits(self.idr3, 9, 9)))
        assert start is not None  # the STE is legal
        return Table(
            lpae=lpae,
            granule=granule,
            width=width,
            start=start,
            base=bits(ste, 247 if self.version else 239, 196) << 4,
            size=self.stage2_size(ste),
            big=bool(bits(ste, 180, 180)),
            ds=ds,
            ha=ha,
            hd=ha and bool(bits(ste, 183, 183)),
            haft=ha and httu == 3 and bool(bits(ste, 187, 187)),
            affd=bool(bits(ste, 181, 181)),
            hierarchy=False,
            shareability=bits(ste, 173, 172),
        )

    def second(
        self, access: Access, setup: Setup, iova: int, ipa: int, kind: int, write: bool, instruction: bool
    ) -> int:
        table = self.second_table(setup.ste)

        def fault(number: int) -> NoReturn:
            self.second_fault(number, access, setup, iova, ipa, kind, write)

        def fetch(at: int) -> tuple[int, int]:
            descriptor = self.descriptor(at, table.big)
            if descriptor is None:
                self.walk_abort(access, setup, iova, at, kind, True)
            return descriptor, at & ((1 << self.oas) - 1)

        def store(at: int, pa: int, descriptor: int) -> None:
            self.put(pa, descriptor, table.big)

        if ipa >> table.width:
            fault(F_TRANSLATION)
        end = self.go(table, ipa, fetch, store, fault)
        accessed = end.descriptor | (1 << 10 if table.ha else 0)
        dirty = table.hd and bool(bits(end.descriptor, 51, 51)) and not self.never_dirty
        if not self.granted(setup, table, end.descriptor, kind, write, instruction, dirty):
            if accessed != end.descriptor:
                self.put(end.pa, accessed, table.big)
            fault(F_PERMISSION)
        if write and dirty:
            accessed |= 1 << 7
        if accessed != end.descriptor:
            self.put(end.pa, accessed, table.big)
        if kind == CLASS_IN:
            self.leaves.append((table, end.descriptor))
        pa = end.output | bits(ipa, end.shift - 1, 0)
        return pa & ((1 << self.oas) - 1)

    def granted(
        self, setup: Setup, table: Table, descriptor: int, kind: int, write: bool, instruction: bool, dirty: bool
    ) -> bool:
        """S2AP, XN and XNX of the Arm ARM; STE.S2PTW for what stage 1 fetches."""
        readable = bool(bits(descriptor, 6, 6))
        writable = bool(bits(descriptor, 7, 7)) or dirty
        if kind != CLASS_IN and bits(setup.ste, 182, 182) and bits(setup.ste, 2, 1) == 3:
            forced = bits(self.idr3, 8, 8) and bits(setup.ste, 89, 89)
            if not (bits(descriptor, 4, 4) if forced else bits(descriptor, 5, 4)):
                return False
        if write:
            return writable
        if not instruction:
            return readable
        xn = bits(descriptor, 54, 53)
        if not bits(self.idr3, 4, 4):
            executable = not xn & 2
        else:
            executable = xn in (0, 3) if setup.privileged else xn in (0, 1)
        return executable and (readable or not table.lpae)
