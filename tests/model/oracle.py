# SPDX-License-Identifier: Apache-2.0
"""A second SMMUv3, slow and without caches, written from IHI 0070 issue G.b alone: what the product must do.

Law: shares nothing with the product, neither code nor declarations; each shift and mask is written out beside
the section that gives it. Every answer is computed anew from memory and registers.
Not modelled: stage 2, stalls, ATS and PRI, HTTU, AArch32 and 128-bit tables, LPA2, register guards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

OK, ABORT, RAZ_WI = "ok", "abort", "raz/wi"

# Event numbers (§7.3).
C_BAD_STREAMID = 0x02
F_STE_FETCH = 0x03
C_BAD_STE = 0x04
F_STREAM_DISABLED = 0x06
C_BAD_SUBSTREAMID = 0x08
F_CD_FETCH = 0x09
C_BAD_CD = 0x0A
F_WALK_EABT = 0x0B
F_TRANSLATION = 0x10
F_ADDR_SIZE = 0x11
F_ACCESS = 0x12
F_PERMISSION = 0x13

EVENT_NAMES = {
    C_BAD_STREAMID: "C_BAD_STREAMID",
    F_STE_FETCH: "F_STE_FETCH",
    C_BAD_STE: "C_BAD_STE",
    F_STREAM_DISABLED: "F_STREAM_DISABLED",
    C_BAD_SUBSTREAMID: "C_BAD_SUBSTREAMID",
    F_CD_FETCH: "F_CD_FETCH",
    C_BAD_CD: "C_BAD_CD",
    F_WALK_EABT: "F_WALK_EABT",
    F_TRANSLATION: "F_TRANSLATION",
    F_ADDR_SIZE: "F_ADDR_SIZE",
    F_ACCESS: "F_ACCESS",
    F_PERMISSION: "F_PERMISSION",
}

# StreamWorlds (§3.3.3).
EL1, EL2, EL2_E2H = "NS-EL1", "NS-EL2", "NS-EL2-E2H"

# Global errors (§6.3.19).
CMDQ_ERR, EVENTQ_ABT_ERR = 1 << 0, 1 << 2
MSI_CMDQ_ABT_ERR, MSI_EVENTQ_ABT_ERR, MSI_GERROR_ABT_ERR = 1 << 4, 1 << 5, 1 << 7
CERROR_ILL, CERROR_ABT = 1, 2

OUTPUT_BITS = (32, 36, 40, 42, 44, 48, 52)

# Register offsets (§6.2).
CR0, CR2, GBPA, IRQ_CTRL, GERROR, GERRORN = 0x20, 0x2C, 0x44, 0x50, 0x60, 0x64
GERROR_IRQ_CFG0, GERROR_IRQ_CFG1 = 0x68, 0x70
STRTAB_BASE, STRTAB_BASE_CFG = 0x80, 0x88
CMDQ_BASE, CMDQ_PROD, CMDQ_CONS = 0x90, 0x98, 0x9C
EVENTQ_BASE, EVENTQ_PROD, EVENTQ_CONS = 0xA0, 0x100A8, 0x100AC
EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1 = 0xB0, 0xB8


def bits(value: int, high: int, low: int) -> int:
    return (value >> low) & ((1 << (high - low + 1)) - 1)


class Ram:
    """Sparse memory of 64-byte blocks; what no block covers aborts. No access here crosses a block."""

    def __init__(self, words: dict[int, int] | None = None) -> None:
        self.blocks: dict[int, bytearray] = {}
        for address, word in (words or {}).items():
            self.back(address, 8)
            self.write(address, word.to_bytes(8, "little"))

    def back(self, address: int, size: int) -> None:
        """Let [address, address + size) exist, zeroed where it is new."""
        for block in range(address >> 6, (address + size + 63) >> 6):
            self.blocks.setdefault(block, bytearray(64))

    def read(self, address: int, size: int) -> bytes | None:
        block = self.blocks.get(address >> 6)
        at = address & 63
        assert at + size <= 64
        return None if block is None else bytes(block[at : at + size])

    def write(self, address: int, data: bytes) -> bool:
        block = self.blocks.get(address >> 6)
        at = address & 63
        assert at + len(data) <= 64
        if block is None:
            return False
        block[at : at + len(data)] = data
        return True

    def copy(self) -> Ram:
        other = Ram()
        other.blocks = {number: bytearray(block) for number, block in self.blocks.items()}
        return other

    def windows(self) -> list[tuple[int, bytearray]]:
        """The same memory as (base, contents), neighbouring blocks joined."""
        joined: list[tuple[int, bytearray]] = []
        for number in sorted(self.blocks):
            if joined and joined[-1][0] + len(joined[-1][1]) == number << 6:
                joined[-1][1].extend(self.blocks[number])
            else:
                joined.append((number << 6, bytearray(self.blocks[number])))
        return joined


@dataclass(frozen=True, slots=True)
class Access:
    """A transaction; ``ssid`` None: none was given with it."""

    sid: int
    iova: int
    size: int = 1
    write: bool = False
    ssid: int | None = None
    privileged: bool = False
    instruction: bool = False


@dataclass
class Result:
    outcome: str = OK
    pieces: list[tuple[int, int]] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)


class Terminated(Exception):  # noqa: N818 - an end, not an error
    """The transaction ends here; ``record`` None: silently."""

    def __init__(self, record: int | None, outcome: str = ABORT) -> None:
        self.record = record
        self.outcome = outcome


def join(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pieces with those that follow each other made one."""
    joined: list[tuple[int, int]] = []
    for address, size in pieces:
        if joined and sum(joined[-1]) == address:
            joined[-1] = (joined[-1][0], joined[-1][1] + size)
        else:
            joined.append((address, size))
    return joined


@dataclass
class Config:
    """An STE and, when stage 1 translates, the CD."""

    bypass: int | None  # the bits of an address that stage 1 does not translate; None where it does
    world: str
    privileged: bool
    instruction: bool
    cd: int = 0


@dataclass(frozen=True)
class Leaf:
    """What a walk ends at: 2^shift bytes from ``va`` on go to ``output``; permissions with those of the tables."""

    va: int
    shift: int
    output: int
    granule: int
    level: int
    user: bool
    writable: bool
    xn: bool
    pxn: bool
    not_global: bool


class Oracle:
    def __init__(self, ram: Ram, ids: dict[str, int]) -> None:
        self.ram = ram
        self.idr0, self.idr1 = ids.get("IDR0", 0), ids.get("IDR1", 0)
        self.idr3, self.idr5 = ids.get("IDR3", 0), ids.get("IDR5", 0)
        self.version = ids.get("AIDR", 0) & 0xF  # ArchMinorRev, §6.3.8
        self.registers: dict[int, int] = {}
        self.wires: Counter[str] = Counter()  # pulses of each wired interrupt (§3.18)

    # -- ID registers (§6.3.1 to 6.3.6) ------------------------------------------------------------------------

    @property
    def oas(self) -> int:
        return OUTPUT_BITS[bits(self.idr5, 2, 0)]

    @property
    def sidsize(self) -> int:
        return bits(self.idr1, 5, 0)

    @property
    def ssidsize(self) -> int:
        return bits(self.idr1, 10, 6)

    @property
    def hyp(self) -> bool:
        return bool(bits(self.idr0, 9, 9))

    def granule_supported(self, granule: int | None) -> bool:
        if granule is None:
            return False
        return bool(
            bits(self.idr5, 4, 4)
            if granule == 12
            else bits(self.idr5, 5, 5)
            if granule == 14
            else bits(self.idr5, 6, 6)
        )

    # -- registers ---------------------------------------------------------------------------------------------

    def register(self, offset: int) -> int:
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """A store by software; the side effects of those that have some."""
        if offset == GBPA:  # §6.3.14.1: only with Update set, which then reads as 0
            if value >> 31:
                self.registers[GBPA] = value & 0x7FFF_FFFF
            return
        self.registers[offset] = value
        if offset in (CR0, CMDQ_PROD, GERRORN):
            self.consume()

    def base(self, offset: int, low: int, align: int) -> int:
        """Address in a *_BASE register: bits above the OAS are RES0, ``align`` bits are taken as zero."""
        address = bits(self.register(offset), 55, low) << low
        return (address & ((1 << self.oas) - 1)) >> align << align

    # -- transactions ------------------------------------------------------------------------------------------

    def translate(self, access: Access) -> Result:
        result = Result()
        at, end = access.iova, access.iova + access.size
        try:
            while at < end:
                # No translation or size limit changes within 4KB, so this is where one could fault.
                size = min(end, (at | 0xFFF) + 1) - at
                result.pieces.append((self.translate_one(access, at), size))
                at += size
        except Terminated as end_of_it:
            result.outcome = end_of_it.outcome
            if end_of_it.record is not None:
                record = end_of_it.record.to_bytes(32, "little")
                result.events.append(record)
                self.deliver(record)
        result.pieces = join(result.pieces)
        return result

    @property
    def ias(self) -> int:
        """§3.4."""
        return max(40 if bits(self.idr0, 2, 2) else 0, self.oas if bits(self.idr0, 3, 3) else 0)

    def translate_one(self, access: Access, iova: int) -> int:
        if not bits(self.register(CR0), 0, 0):  # SMMUEN, §6.3.9.6
            if bits(self.register(GBPA), 20, 20):
                raise Terminated(None)
            if iova >> self.oas:  # §3.4
                raise Terminated(None)
            return iova
        config = self.configuration(access)
        if config.bypass is not None:
            if iova >> config.bypass:
                raise Terminated(self.fault(F_ADDR_SIZE, access, config, iova))
            return iova & ((1 << self.oas) - 1)
        return self.stage1(access, config, iova)

    # -- event records (§7.3) ----------------------------------------------------------------------------------

    def event(self, number: int, access: Access, ssv: bool = True) -> int:
        record = number | access.sid << 32
        if ssv and access.ssid is not None:
            record |= 1 << 11 | access.ssid << 12
        return record

    def fetch_event(self, number: int, access: Access, address: int) -> int:
        address &= (1 << self.oas) - 1  # FetchAddr[55:OAS] are RES0
        return self.event(number, access) | address >> 3 << 195

    def fault(self, number: int, access: Access, config: Config, iova: int) -> int:
        record = self.event(number, access)
        record |= config.privileged << 97 | config.instruction << 98 | (not access.write) << 99
        record |= 2 << 104  # CLASS == IN; S2 == 0
        return record | iova << 128

    # -- stream table (§3.3.1, 5.1, 6.3.24, 6.3.25) ------------------------------------------------------------

    def bad_stream(self, access: Access) -> Terminated:
        recorded = bits(self.register(CR2), 1, 1)  # RECINVSID
        return Terminated(self.event(C_BAD_STREAMID, access) if recorded else None)

    def stream_table_entry(self, access: Access) -> int:
        sid = access.sid
        cfg = self.register(STRTAB_BASE_CFG)
        literal = bits(cfg, 5, 0)
        if sid >> min(literal, self.sidsize):
            raise self.bad_stream(access)
        if (kept := self.kept(("STE", sid))) is not None:
            return kept
        two_level = bits(self.idr0, 28, 27) != 0 and bits(cfg, 17, 16) == 1
        if two_level:
            split = bits(cfg, 10, 6)
            if split not in (6, 8, 10):
                split = 6
            align = max(5, literal - split - 1 + 3) + 1
            at = self.base(STRTAB_BASE, 6, align) + (sid >> split) * 8
            l1std = self.structure(("L1STD", sid >> split), at, 8)
            if l1std is None:
                raise Terminated(self.fetch_event(F_STE_FETCH, access, at))
            span = bits(l1std, 4, 0)
            if span == 0 or span > 11 or span > split + 1:
                raise self.bad_stream(access)
            index = sid & ((1 << split) - 1)
            if index >= 1 << (span - 1):
                raise self.bad_stream(access)
            at = bits(l1std, 55, 6) << 6
            at = (at >> (6 + span - 1) << (6 + span - 1)) + index * 64
        else:
            at = self.base(STRTAB_BASE, 6, literal + 6) + sid * 64
        ste = self.structure(("STE", sid), at, 64)
        if ste is None:
            raise Terminated(self.fetch_event(F_STE_FETCH, access, at))
        return ste

    def kept(self, name: tuple[object, ...]) -> int | None:
        """A structure that was fetched before and need not be again; here there is none."""
        return None

    def structure(self, name: tuple[object, ...], at: int, size: int) -> int | None:
        """A configuration structure; None if its fetch aborts."""
        raw = self.fetch(at, size)
        return None if raw is None else int.from_bytes(raw, "little")

    def fetch(self, address: int, size: int) -> bytes | None:
        return None if address >> self.oas else self.ram.read(address, size)

    # -- STE and CD (§5.2, 5.3, 5.4) ---------------------------------------------------------------------------

    def ste_illegal(self, ste: int) -> bool:
        """§5.2.2, for a Non-secure STE."""
        config = bits(ste, 3, 1)
        if config in (5, 7) and not bits(self.idr0, 1, 1):
            return True
        if config in (6, 7) and not bits(self.idr0, 0, 0):
            return True
        strw_used = bits(self.idr0, 1, 1) and self.hyp and config == 5
        if strw_used and bits(ste, 94, 94):
            return True
        if config == 5:
            if bits(ste, 91, 91) and bits(self.idr0, 25, 24) != 0:  # S1STALLD, STALL_MODEL
                return True
            s1cdmax = bits(ste, 63, 59)
            if self.ssidsize and s1cdmax > self.ssidsize:
                return True
            if self.ssidsize and s1cdmax and not bits(self.idr0, 19, 19) and bits(ste, 5, 4) in (1, 2):  # CD2L
                return True
            if (bits(ste, 55, 6) << 6) >> self.oas:
                return True
        return False

    def configuration(self, access: Access) -> Config:
        ste = self.stream_table_entry(access)
        if not ste & 1:
            raise Terminated(self.event(C_BAD_STE, access))
        config = bits(ste, 3, 1)
        if config < 4:  # §5.2 Config: abort, no event
            raise Terminated(None)
        if self.ste_illegal(ste):
            raise Terminated(self.event(C_BAD_STE, access))

        privileged, instruction = access.privileged, access.instruction
        if bits(self.idr1, 26, 26):  # ATTR_PERMS_OVR
            privileged = {2: False, 3: True}.get(bits(ste, 113, 112), privileged)
            instruction = {2: False, 3: True}.get(bits(ste, 115, 114), instruction)
        if access.write:  # §13.1.2
            instruction = False

        world = EL1
        if config == 5 and self.hyp and bits(ste, 95, 94) == 2:
            world = EL2_E2H if bits(self.register(CR2), 0, 0) else EL2
        found = Config(self.oas if config == 4 else None, world, privileged, instruction)

        # §7.3.9, 7.3.7, STE.S1CDMax, STE.S1DSS.
        s1cdmax = bits(ste, 63, 59) if self.ssidsize else 0
        s1dss = bits(ste, 65, 64)
        if access.ssid is not None:
            if config == 4 or not s1cdmax or access.ssid >> s1cdmax:
                raise Terminated(self.bad_substream(access))
            if access.ssid == 0 and s1dss == 2:
                raise Terminated(self.event(F_STREAM_DISABLED, access, ssv=False))
        elif config == 5 and s1cdmax:
            if s1dss == 1:
                found.bypass = self.ias
            elif s1dss != 2:
                raise Terminated(self.event(F_STREAM_DISABLED, access, ssv=False))
        if found.bypass is not None:
            return found
        found.cd = self.context_descriptor(access, ste, s1cdmax)
        if self.cd_illegal(found.cd, ste, world):
            raise Terminated(self.event(C_BAD_CD, access))
        return found

    def bad_substream(self, access: Access) -> int:
        return self.event(C_BAD_SUBSTREAMID, access, ssv=False) | (access.ssid or 0) << 12

    def context_descriptor(self, access: Access, ste: int, s1cdmax: int) -> int:
        at = bits(ste, 55, 6) << 6
        index = access.ssid or 0
        if (kept := self.kept(("CD", access.sid, index))) is not None:
            return kept
        s1fmt = bits(ste, 5, 4)
        if s1cdmax and s1fmt in (1, 2):
            leaf_bits = 6 if s1fmt == 1 else 10
            align = max(6, s1cdmax - leaf_bits + 3)
            at = (at >> align << align) + (index >> leaf_bits) * 8
            l1cd = self.structure(("L1CD", access.sid, index >> leaf_bits), at, 8)
            if l1cd is None:
                raise Terminated(self.fetch_event(F_CD_FETCH, access, at))
            pointer = bits(l1cd, 55, 12) << 12
            if not l1cd & 1 or pointer >> self.oas:
                raise Terminated(self.bad_substream(access))
            pointer = pointer >> (leaf_bits + 6) << (leaf_bits + 6)
            at = pointer + (index & ((1 << leaf_bits) - 1)) * 64
        elif s1cdmax:
            at = (at >> (s1cdmax + 6) << (s1cdmax + 6)) + index * 64
        cd = self.structure(("CD", access.sid, index), at, 64)
        if cd is None:
            raise Terminated(self.fetch_event(F_CD_FETCH, access, at))
        return cd

    def ips(self, cd: int) -> int:
        """Effective output size in bits (§5.4 IPS)."""
        encoded = bits(cd, 34, 32)
        encoded = min(encoded, 5 if self.version == 0 else 6)
        return min(OUTPUT_BITS[encoded], self.oas)

    def half(self, cd: int, high: bool) -> tuple[int, int | None, int, int, int, int, int]:
        """(TxSZ, log2 of the granule or None, TTBx, EPDx, TBIx, HADx, E0PDx)."""
        top = 115 if self.version else 111
        if high:
            granule = {1: 14, 2: 12, 3: 16}.get(bits(cd, 23, 22))
            ttb = bits(cd, top + 64, 132) << 4
            return (
                bits(cd, 21, 16),
                granule,
                ttb,
                bits(cd, 30, 30),
                bits(cd, 39, 39),
                bits(cd, 129, 129),
                bits(cd, 130, 130),
            )
        granule = {0: 12, 1: 16, 2: 14}.get(bits(cd, 7, 6))
        ttb = bits(cd, top, 68) << 4
        return (bits(cd, 5, 0), granule, ttb, bits(cd, 14, 14), bits(cd, 38, 38), bits(cd, 65, 65), bits(cd, 66, 66))

    def cd_illegal(self, cd: int, ste: int, world: str) -> bool:
        """§5.4.2, for VMSAv8-64 and Non-secure streams."""
        if not bits(cd, 31, 31):
            return True
        stall_model = bits(self.idr0, 25, 24)
        stall = bits(cd, 44, 44)
        if stall and (bits(ste, 91, 91) or stall_model == 1):
            return True
        if not stall and stall_model == 2:
            return True
        if bits(self.idr0, 26, 26) and not bits(cd, 46, 46):  # TERM_MODEL, A
            return True
        epd0, epd1 = bits(cd, 14, 14), bits(cd, 30, 30)
        if world == EL2:  # EPDx ignored; TTB1 cannot be reached, and its fields are RES0
            epd0, epd1 = 0, 1
        endian = bits(self.idr0, 22, 21)
        endi = bits(cd, 15, 15)
        if not (epd0 and epd1) and ((endian == 2 and endi) or (endian == 3 and not endi)):
            return True
        if not bits(cd, 41, 41):  # AA64: neither AArch32 nor 128-bit tables here
            return True
        if not bits(self.idr0, 3, 3):
            return True
        httu = bits(self.idr0, 7, 6)
        if (bits(cd, 43, 43) or bits(cd, 42, 42)) and httu == 0:
            return True
        if world in (EL1, EL2_E2H) and not bits(self.idr0, 12, 12) and bits(cd, 63, 56):
            return True
        for high, disabled in ((False, epd0), (True, epd1)):
            if disabled:
                continue
            txsz, granule, ttb, *_ = self.half(cd, high)
            if not self.granule_supported(granule):
                return True
            longest = (47 if granule == 16 else 48) if bits(self.idr3, 9, 9) else 39  # STT
            shortest = 12 if bits(self.idr5, 11, 10) in (1, 2) and granule == 16 else 16  # VAX
            if not shortest <= txsz <= longest:
                return True
            if ttb >> self.ips(cd):
                return True
            if granule != 16 and ttb >> 48:
                return True
        return False

    # -- stage 1 (§3.4.1, 13.4.1 and the VMSAv8-64 of the Arm ARM) ---------------------------------------------

    def stage1(self, access: Access, config: Config, iova: int) -> int:
        cd = config.cd
        two_halves = config.world != EL2
        high = two_halves and bool(bits(iova, 55, 55))
        txsz, granule, _, epd, tbi, _, e0pd = self.half(cd, high)
        if two_halves and epd:
            raise self.stage1_fault(F_TRANSLATION, access, config, iova)
        assert granule is not None  # cd_illegal saw to it
        width = 64 - txsz
        top = 55 if tbi else 63
        sign = (1 << 64) - 1 if high else 0
        if bits(iova, top, width) != bits(sign, top, width):
            raise self.stage1_fault(F_TRANSLATION, access, config, iova)
        if two_halves and bits(self.idr3, 13, 13) and e0pd and not config.privileged:
            raise self.stage1_fault(F_TRANSLATION, access, config, iova)
        va = bits(iova, width - 1, 0) | sign >> width << width  # as the sign makes it, also where TBI ignored bits
        leaf = self.leaf(access, config, iova, va)
        if not self.permitted(access, config, leaf):
            raise self.stage1_fault(F_PERMISSION, access, config, iova)
        return leaf.output | bits(iova, leaf.shift - 1, 0)

    def stage1_fault(self, number: int, access: Access, config: Config, iova: int) -> Terminated:
        """A Translation-related fault, ended as §5.5 says."""
        recorded = bits(config.cd, 45, 45)
        outcome = ABORT if bits(config.cd, 46, 46) else RAZ_WI
        return Terminated(self.fault(number, access, config, iova) if recorded else None, outcome)

    def leaf(self, access: Access, config: Config, iova: int, va: int) -> Leaf:
        return self.walk(access, config, iova, va)

    def walk(self, access: Access, config: Config, iova: int, va: int) -> Leaf:
        cd = config.cd
        txsz, granule, ttb, _, _, had, _ = self.half(cd, config.world != EL2 and bool(bits(va, 55, 55)))
        assert granule is not None
        width = 64 - txsz
        stride = granule - 3
        levels = -(-(width - granule) // stride)
        ips = self.ips(cd)
        wide = granule == 16 and self.oas == 52  # descriptors hold 52-bit addresses
        table_bits = width - (granule + stride * (levels - 1)) + 3
        align = max(table_bits, 6 if ips == 52 else 4)
        table = ttb >> align << align
        ap_table = xn_table = pxn_table = 0
        use_hierarchy = not (bits(self.idr3, 2, 2) and had)

        for level in range(4 - levels, 4):
            shift = granule + stride * (3 - level)
            first = level == 4 - levels
            at = table + bits(va, (width if first else shift + stride) - 1, shift) * 8
            raw = self.fetch(at, 8)
            if raw is None:
                # §7.3.12: S2 == 0, CLASS == TT, and both addresses; never subject to A and R.
                record = self.event(F_WALK_EABT, access) | iova << 128 | at >> 3 << 195
                record |= config.privileged << 97 | config.instruction << 98 | (not access.write) << 99 | 1 << 104
                raise Terminated(record)
            descriptor = int.from_bytes(raw, "big" if bits(cd, 15, 15) else "little")
            if not descriptor & 1:
                raise self.stage1_fault(F_TRANSLATION, access, config, iova)
            output = bits(descriptor, 47, granule) << granule
            if wide:
                output |= bits(descriptor, 15, 12) << 48
            if level < 3 and descriptor & 2:
                if output >> ips:
                    raise self.stage1_fault(F_ADDR_SIZE, access, config, iova)
                if use_hierarchy:
                    ap_table |= bits(descriptor, 62, 61)
                    xn_table |= bits(descriptor, 60, 60)
                    pxn_table |= bits(descriptor, 59, 59)
                table = output
                continue
            if (level == 3 and not descriptor & 2) or (level < 3 and not self.block_allowed(granule, level)):
                raise self.stage1_fault(F_TRANSLATION, access, config, iova)
            output = output >> shift << shift
            if output >> ips:
                raise self.stage1_fault(F_ADDR_SIZE, access, config, iova)
            if not bits(descriptor, 10, 10) and not bits(cd, 35, 35):  # AF, AFFD
                raise self.stage1_fault(F_ACCESS, access, config, iova)
            return Leaf(
                va=va >> shift << shift,
                shift=shift,
                output=output,
                granule=granule,
                level=level,
                user=bool(bits(descriptor, 6, 6)) and not ap_table & 1,
                writable=not bits(descriptor, 7, 7) and not ap_table & 2,
                xn=bool(bits(descriptor, 54, 54) or xn_table),
                pxn=bool(bits(descriptor, 53, 53) or pxn_table),
                not_global=bool(bits(descriptor, 11, 11)),
            )
        raise AssertionError("a walk ends at level 3")

    def block_allowed(self, granule: int, level: int) -> bool:
        if granule == 12:
            return level in (1, 2)
        return level == 2 or (granule == 16 and level == 1 and self.oas == 52)

    def permitted(self, access: Access, config: Config, leaf: Leaf) -> bool:
        cd = config.cd
        wxn = bool(bits(cd, 36, 36))
        if config.world == EL2:  # one privilege: AP[1] is taken as 1, APTable[0] and PXN mean nothing
            if access.write:
                return leaf.writable
            return not (leaf.xn or (wxn and leaf.writable)) if config.instruction else True
        user_writable = leaf.user and leaf.writable
        if config.privileged:
            if config.instruction:
                return not (leaf.pxn or user_writable or (wxn and leaf.writable))
            epan = bits(self.idr3, 17, 17) and bits(cd, 123, 123)
            if bits(cd, 40, 40) and (leaf.user or (epan and not leaf.xn)):  # PAN
                return False
            return leaf.writable if access.write else True
        if config.instruction:
            return not (leaf.xn or (wxn and user_writable))
        return user_writable if access.write else leaf.user

    # -- event queue (§7.2.1, 7.4, 6.3.29) ---------------------------------------------------------------------

    def deliver(self, record: bytes) -> None:
        if not bits(self.register(CR0), 2, 2) or self.active(EVENTQ_ABT_ERR):
            return
        size = min(bits(self.register(EVENTQ_BASE), 4, 0), bits(self.idr1, 20, 16))
        prod, cons = self.register(EVENTQ_PROD), self.register(EVENTQ_CONS)
        overflowed = prod >> 31
        write, read = bits(prod, size, 0), bits(cons, size, 0)
        if write ^ read == 1 << size:  # full
            if overflowed == cons >> 31:
                self.registers[EVENTQ_PROD] = prod ^ 1 << 31
            return
        at = self.base(EVENTQ_BASE, 5, size + 5) + (write & ((1 << size) - 1)) * 32
        if not self.ram.write(at, record):
            self.raise_error(EVENTQ_ABT_ERR)
            return
        self.registers[EVENTQ_PROD] = overflowed << 31 | ((write + 1) & ((2 << size) - 1))
        if write == read and bits(self.register(IRQ_CTRL), 2, 2):  # it was empty
            self.wires["eventq"] += 1
            self.msi(EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, MSI_EVENTQ_ABT_ERR)

    # -- global errors and MSIs (§7.5, 3.18) -------------------------------------------------------------------

    def active(self, error: int) -> bool:
        return bool((self.register(GERROR) ^ self.register(GERRORN)) & error)

    def raise_error(self, error: int) -> None:
        if self.active(error):
            return
        self.registers[GERROR] = self.register(GERROR) ^ error
        if error != MSI_GERROR_ABT_ERR and bits(self.register(IRQ_CTRL), 0, 0):
            self.wires["gerror"] += 1
            self.msi(GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, MSI_GERROR_ABT_ERR)

    def msi(self, address_register: int, data_register: int, error: int) -> None:
        self.send(bits(self.register(address_register), 55, 2) << 2, self.register(data_register), error)

    def send(self, address: int, data: int, error: int) -> None:
        if not bits(self.idr0, 13, 13) or not address:
            return
        if not self.ram.write(address & ((1 << self.oas) - 1), data.to_bytes(4, "little")):
            self.raise_error(error)

    # -- command queue (chapter 4, §7.1) -----------------------------------------------------------------------

    def consume(self) -> None:
        size = min(bits(self.register(CMDQ_BASE), 4, 0), bits(self.idr1, 25, 21))
        wrap = (2 << size) - 1
        base = self.base(CMDQ_BASE, 5, max(size + 4, 5))
        while bits(self.register(CR0), 3, 3) and not self.active(CMDQ_ERR):
            read = self.register(CMDQ_CONS) & wrap
            if read == self.register(CMDQ_PROD) & wrap:
                return
            raw = self.ram.read(base + (read & (wrap >> 1)) * 16, 16)
            error = CERROR_ABT if raw is None else self.command(int.from_bytes(raw, "little"))
            if error:
                self.registers[CMDQ_CONS] = error << 24 | read
                self.raise_error(CMDQ_ERR)
                return
            self.registers[CMDQ_CONS] = (read + 1) & wrap
            assert raw is not None
            command = int.from_bytes(raw, "little")
            if bits(command, 7, 0) == 0x46 and bits(command, 13, 12) == 1:
                self.wires["cmdq-sync"] += 1  # whatever MSIAddress is (§4.7.3)
                self.send(bits(command, 119, 66) << 2, bits(command, 63, 32), MSI_CMDQ_ABT_ERR)

    def command(self, command: int) -> int:
        """0, or CERROR_ILL."""
        opcode = bits(command, 7, 0)
        secure = bits(command, 10, 10)
        stage1 = bits(self.idr0, 1, 1)
        legal = {
            0x01: not secure,
            0x02: not secure,
            0x03: not secure,
            0x04: not secure,
            0x05: not secure and stage1,
            0x06: not secure and stage1,
            0x10: stage1,
            0x11: stage1,
            0x12: stage1 and self.range_legal(command),
            0x13: stage1 and self.range_legal(command),
            0x20: stage1 and self.hyp,
            0x21: stage1 and self.hyp,
            0x22: stage1 and self.hyp and self.range_legal(command),
            0x23: stage1 and self.hyp and self.range_legal(command),
            0x30: True,
            0x46: bits(command, 13, 12) != 3,
        }.get(opcode, False)
        return 0 if legal else CERROR_ILL

    def range_legal(self, command: int) -> bool:
        """§4.4.1.1: a granule without level or range is Reserved."""
        if not bits(self.idr3, 10, 10) or not bits(command, 75, 74):  # RIL, TG
            return True
        ttl = bits(command, 73, 72)
        if bits(command, 75, 74) == 2 and ttl == 1:  # 16KB has no level 1 blocks without DS
            ttl = 0
        return bool(bits(command, 16, 12) or bits(command, 25 if bits(self.idr5, 7, 7) else 24, 20) or ttl)
