# SPDX-License-Identifier: Apache-2.0
"""An SMMUv2, slow and without caches, that shares nothing with the product's: what it must do with an access.

Law: tables are from the Arm ARM (DDI 0487 D8, G5), the rest from register references of vendors and what drivers rely
on, before the model was seen; then each difference was looked up in the clauses (docs/clauses-v2.md), or mended there.
Not modelled: caches, Secure state, EL2 and monitor contexts, memory types, stalls of more than one access.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from tests.model.oracle import ABORT, OK, RAZ_WI, Access, Ram, bits, join

STALLED = "stalled"

# Global register space 0.
SCR0, ID0, ID1, ID2 = 0x000, 0x020, 0x024, 0x028
SGFAR, SGFSR, SGFSRRESTORE, SGFSYNR0, SGFSYNR1 = 0x040, 0x048, 0x04C, 0x050, 0x054
SMR, S2CR = 0x800, 0xC00
# Global register space 1, from the second page on.
CBAR, CBFRSYNRA, CBA2R = 0x000, 0x400, 0x800
# A context bank.
SCTLR, RESUME, TCR2, TTBR0, TTBR1, TCR, CONTEXTIDR = 0x000, 0x008, 0x010, 0x020, 0x028, 0x030, 0x034
FSR, FSRRESTORE, FAR, FSYNR0, IPAFAR = 0x058, 0x05C, 0x060, 0x068, 0x070

# sGFSR.
ICF, USF, SMCF, UCBF = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# FSR.
TF, AFF, PF, EF, ASF, SS, MULTI = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 7, 1 << 30, 1 << 31
FAULTS = 0x1FE

SIZES = (32, 36, 40, 42, 44, 48)


#: A walk's way to a descriptor: (address, bytes, level).
Read = Callable[[int, int, int], int]


class Ended(Exception):  # noqa: N818 - an end, not an error
    """The access ends here."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome


@dataclass
class Result:
    outcome: str = OK
    pieces: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Found(Exception):  # noqa: N818 - what a walk ended with
    """A fault of a walk: its bit of FSR, its level, and whether a table's read was aborted."""

    bit: int
    level: int
    external: bool = False


@dataclass(frozen=True)
class Leaf:
    output: int
    level: int
    readable: bool
    writable: bool
    user_readable: bool
    user_writable: bool
    xn: bool
    pxn: bool


@dataclass(frozen=True)
class Attributes:
    """Of an access, as its stream and its bank leave them."""

    write: bool
    privileged: bool
    instruction: bool


class Smmuv2Oracle:
    def __init__(self, ram: Ram, ids: dict[int, int], page: int = 0x1000) -> None:
        self.ram, self.ids, self.page = ram, ids, page
        self.registers: dict[int, int] = {}

    # -- geometry (ID0, ID1, ID2) ------------------------------------------------------------------------------

    @property
    def pages(self) -> int:
        return 2 << bits(self.ids[ID1], 30, 28)

    @property
    def banks(self) -> int:
        return bits(self.ids[ID1], 7, 0)

    @property
    def groups(self) -> int:
        return bits(self.ids[ID0], 7, 0)

    @property
    def oas(self) -> int:
        return SIZES[bits(self.ids[ID2], 7, 4)]

    @property
    def ias(self) -> int:
        return SIZES[bits(self.ids[ID2], 3, 0)]

    def gr1(self, offset: int, index: int) -> int:
        return self.page + offset + 4 * index

    def bank(self, index: int, offset: int) -> int:
        return (self.pages + index) * self.page + offset

    # -- registers ---------------------------------------------------------------------------------------------

    def register(self, at: int) -> int:
        return self.registers.get(at, 0)

    def wide(self, at: int) -> int:
        return self.register(at) | self.register(at + 4) << 32

    def put_wide(self, at: int, value: int) -> None:
        self.registers[at], self.registers[at + 4] = value & 0xFFFF_FFFF, value >> 32 & 0xFFFF_FFFF

    def write(self, at: int, value: int, size: int = 4) -> None:
        """A store by software."""
        if size == 8:
            self.put_wide(at, value)
            return
        if at == SGFSR:
            self.registers[at] = self.register(at) & ~value
        elif at == SGFSRRESTORE:
            self.registers[SGFSR] = value & (0x1FF | MULTI)
        elif at >= self.pages * self.page and at % self.page == FSR:
            # SS goes with RESUME alone.
            self.registers[at] = self.register(at) & ~(value & ~SS)
        elif at >= self.pages * self.page and at % self.page == FSRRESTORE:
            self.registers[at - FSRRESTORE + FSR] = value & (FAULTS | SS | MULTI)
        else:
            self.registers[at] = value

    def context_line(self, index: int) -> bool:
        """Whether the bank asks for its interrupt: any fault or a stalled access, and SCTLR.CFIE."""
        enabled = bits(self.register(self.bank(index, SCTLR)), 6, 6)
        return bool(enabled and self.register(self.bank(index, FSR)) & (FAULTS | SS | MULTI))

    def global_line(self) -> bool:
        return bool(bits(self.register(SCR0), 2, 2) and self.register(SGFSR))

    # -- an access ---------------------------------------------------------------------------------------------

    def translate(self, access: Access) -> Result:
        result = Result()
        at, end = access.iova, access.iova + access.size
        try:
            while at < end:
                size = min(end, (at | 0xFFF) + 1) - at
                result.pieces.append((self.translate_one(access, at), size))
                at += size
        except Ended as ended:
            result.outcome = ended.outcome
        result.pieces = join(result.pieces)
        return result

    def translate_one(self, access: Access, iova: int) -> int:
        scr0 = self.register(SCR0)
        out = iova & ((1 << self.oas) - 1)
        if scr0 & 1:  # CLIENTPD
            return out
        group = self.group_of(access, iova)
        if group is None:
            return out
        s2cr = self.register(S2CR + 4 * group)
        kind = bits(s2cr, 17, 16)
        instruction = {2: False, 3: True}.get(bits(s2cr, 27, 26), access.instruction)
        privileged = {2: False, 3: True}.get(bits(s2cr, 25, 24), access.privileged)
        of = Attributes(access.write, privileged, instruction and not access.write)
        plain = Attributes(access.write, access.privileged, access.instruction and not access.write)
        if kind == 1:
            return out
        if kind != 0:
            self.global_fault(ICF, access, iova, plain)
        index = bits(s2cr, 7, 0)
        if index >= self.banks:
            self.global_fault(UCBF, access, iova, plain)
        return self.through(access, index, iova, of)

    def group_of(self, access: Access, iova: int) -> int | None:
        """The stream mapping register group of a StreamID; None: it passes untranslated."""
        scr0, sid = self.register(SCR0), access.sid
        plain = Attributes(access.write, access.privileged, access.instruction and not access.write)
        if not bits(self.ids[ID0], 27, 27):
            if sid < self.groups:
                return sid
            found = []
        else:
            extended = bits(self.ids[ID0], 8, 8) and bits(scr0, 3, 3)
            found = [group for group in range(self.groups) if self.matches(group, sid, bool(extended))]
        if len(found) > 1:
            self.global_fault(SMCF, access, iova, plain)
        if found:
            return found[0]
        if bits(scr0, 10, 10):
            self.global_fault(USF, access, iova, plain)
        return None

    def matches(self, group: int, sid: int, extended: bool) -> bool:
        smr, s2cr = self.register(SMR + 4 * group), self.register(S2CR + 4 * group)
        if extended:
            return bool(bits(s2cr, 10, 10)) and not (bits(smr, 15, 0) ^ sid) & ~bits(smr, 31, 16) & 0xFFFF
        width = bits(self.ids[ID0], 12, 9)
        return bool(smr >> 31) and not (bits(smr, 14, 0) ^ sid) & ~bits(smr, 30, 16) & ((1 << width) - 1)

    def global_fault(self, bit: int, access: Access, iova: int, of: Attributes, nested: bool = False) -> NoReturn:
        """The first is told of with its syndrome, those after it by MULTI."""
        if self.register(SGFSR):
            self.registers[SGFSR] |= MULTI
        else:
            self.registers[SGFSR] = bit
            self.put_wide(SGFAR, iova)
            self.registers[SGFSYNR0] = nested | of.write << 1 | of.privileged << 2 | of.instruction << 3
            self.registers[SGFSYNR1] = access.sid
        raise Ended(ABORT if bits(self.register(SCR0), 1, 1) else RAZ_WI)

    # -- context banks -----------------------------------------------------------------------------------------

    def through(self, access: Access, index: int, iova: int, of: Attributes) -> int:
        cbar = self.register(self.gr1(CBAR, index))
        kind = bits(cbar, 17, 16)
        plain = Attributes(access.write, access.privileged, access.instruction and not access.write)
        if kind == 2:
            self.global_fault(ICF, access, iova, plain, nested=True)
        self.held(index)
        if kind == 0:
            return self.second(access, index, iova, iova, of, None, False)
        nested = bits(cbar, 15, 8) if kind == 3 else None
        if nested is not None:
            if nested >= self.banks:
                self.global_fault(UCBF, access, iova, plain)
            self.held(nested)
        ipa = self.first(access, index, iova, of, nested)
        if nested is not None:
            return self.second(access, nested, iova, ipa, of, index, False)
        return ipa

    def held(self, index: int) -> None:
        """SCTLR.HUPCF: without it nothing more passes while a fault of the bank is not cleared."""
        sctlr = self.register(self.bank(index, SCTLR))
        if not bits(sctlr, 8, 8) and self.register(self.bank(index, FSR)) & (FAULTS | SS):
            if bits(sctlr, 7, 7):
                raise Ended(STALLED)
            raise Ended(ABORT if bits(sctlr, 5, 5) else RAZ_WI)

    def context_fault(
        self,
        access: Access,
        index: int,
        found: Found,
        iova: int,
        of: Attributes,
        *,
        ipa: int | None = None,
        stage1: int | None = None,
        of_walk: bool = False,
    ) -> NoReturn:
        sctlr, fsr = self.register(self.bank(index, SCTLR)), self.bank(index, FSR)
        stalls = bool(bits(sctlr, 7, 7)) and not found.external
        if self.register(fsr) & (FAULTS | SS):
            self.registers[fsr] |= MULTI
        else:
            self.registers[fsr] = found.bit
            self.put_wide(self.bank(index, FAR), iova)
            self.registers[self.bank(index, FSYNR0)] = (
                found.level
                | (stage1 is not None) << 2
                | of_walk << 3
                | of.write << 4
                | of.privileged << 5
                | of.instruction << 6
                | (ipa is not None) << 8
                | found.external << 10
                | (stage1 or 0) << 16
            )
            if ipa is not None:
                self.put_wide(self.bank(index, IPAFAR), ipa)
            self.registers[self.gr1(CBFRSYNRA, index)] = access.sid
        if stalls:
            self.registers[fsr] |= SS
            raise Ended(STALLED)
        raise Ended(ABORT if bits(sctlr, 5, 5) else RAZ_WI)

    def first(self, access: Access, index: int, iova: int, of: Attributes, nested: int | None) -> int:
        sctlr = self.register(self.bank(index, SCTLR))
        if not sctlr & 1:
            if iova >> self.ias:
                self.context_fault(access, index, Found(ASF, 0), iova, of)
            return iova

        def read(at: int, size: int, level: int) -> int:
            if nested is not None:
                at = self.second(access, nested, iova, at, of, index, True)
            return self.fetch(at, size, bool(bits(sctlr, 4, 4)), level)

        try:
            leaf, width = self.stage1(index, iova, sctlr, read)
            if not self.permitted(leaf, sctlr, of, width == 32):
                raise Found(PF, leaf.level)
        except Found as found:
            if found.external and nested is not None:
                # With two stages an external fault is of the second one's bank, whichever table was read.
                self.context_fault(access, nested, found, iova, of, ipa=0, stage1=index, of_walk=True)
            self.context_fault(access, index, found, iova, of)
        return leaf.output

    def fetch(self, at: int, size: int, big: bool, level: int) -> int:
        raw = None if at >> self.oas else self.ram.read(at, size)
        if raw is None:
            raise Found(EF, level, external=True)
        return int.from_bytes(raw, "big" if big else "little")

    def extended(self, index: int, iova: int) -> int:
        """The input address as the bank sees it: of AArch64 sign-extended from the bit that TCR2.SEP names."""
        if not self.register(self.gr1(CBA2R, index)) & 1:
            return iova
        sep = bits(self.register(self.bank(index, TCR2)), 17, 15)
        top = (31, 35, 39, 41, 43, 47, 47, 48)[sep]
        low = bits(iova, top, 0)
        return low | (((1 << 64) - 1) ^ ((2 << top) - 1) if low >> top else 0)

    def stage1(self, index: int, iova: int, sctlr: int, read: Read) -> tuple[Leaf, int]:
        """(leaf, width of the machine's addresses)."""
        tcr, long = self.register(self.bank(index, TCR)), self.register(self.bank(index, TCR)) >> 31
        if self.register(self.gr1(CBA2R, index)) & 1:
            return self.aarch64(index, self.extended(index, iova), sctlr, tcr, read), 64
        if iova >> 32:
            raise Found(TF, 1)
        return (self.lpae if long else self.short)(index, iova, sctlr, tcr, read), 32

    # -- AArch64 and AArch32 long descriptors (DDI 0487 D8.2, D8.3; G5.5) --------------------------------------

    def aarch64(self, index: int, va: int, sctlr: int, tcr: int, read: Read) -> Leaf:
        tcr2 = self.register(self.bank(index, TCR2))
        high = bool(bits(va, 55, 55))
        if high:
            txsz, granule = bits(tcr, 21, 16), {1: 14, 2: 12, 3: 16}[bits(tcr, 31, 30)]
        else:
            txsz, granule = bits(tcr, 5, 0), {0: 12, 1: 16, 2: 14}[bits(tcr, 15, 14)]
        width = 64 - txsz
        top = 55 if bits(tcr2, 6 if high else 5, 6 if high else 5) else 63
        if bits(va, top, width) != (bits((1 << 64) - 1, top, width) if high else 0):
            raise Found(TF, 0)
        if bits(tcr, 23 if high else 7, 23 if high else 7):
            raise Found(TF, 0)
        base = bits(self.wide(self.bank(index, TTBR1 if high else TTBR0)), 47, 0)
        size = min(SIZES[min(bits(tcr2, 2, 0), 5)], self.ias if self.nested(index) else self.oas)
        start = 4 - -(-(width - granule) // (granule - 3))
        return self.long(bits(va, width - 1, 0), width, granule, start, base, size, 0, bool(bits(sctlr, 3, 3)), read)

    def nested(self, index: int) -> bool:
        return bits(self.register(self.gr1(CBAR, index)), 17, 16) == 3

    def lpae(self, index: int, va: int, sctlr: int, tcr: int, read: Read) -> Leaf:
        t0sz, t1sz = bits(tcr, 2, 0), bits(tcr, 18, 16)
        low = va >> (32 - t0sz) == 0
        ones = t1sz != 0 and va >> (32 - t1sz) == (1 << t1sz) - 1
        if t0sz and low:
            high = False
        elif t1sz:
            high = ones
            if t0sz and not ones:
                raise Found(TF, 1)
        else:
            high = t0sz != 0
        if bits(tcr, 23 if high else 7, 23 if high else 7):
            raise Found(TF, 1)
        width = 32 - (t1sz if high else t0sz)
        base = bits(self.wide(self.bank(index, TTBR1 if high else TTBR0)), 39, 0)
        return self.long(
            bits(va, width - 1, 0), width, 12, 1 if width > 30 else 2, base, 40, 1, bool(bits(sctlr, 3, 3)), read
        )

    def long(
        self, va: int, width: int, granule: int, start: int, base: int, size: int, first_level: int, affd: bool,
        read: Read, stage2: bool = False,
    ) -> Leaf:  # fmt: skip
        """A walk of long descriptors, of either stage."""
        if base >> size:
            raise Found(ASF, first_level)
        top_shift = granule + (granule - 3) * (3 - start)
        align = max(width - top_shift + 3, 4)
        base = base >> align << align
        ap_table = 0
        xn_table = pxn_table = False
        for level in range(start, 4):
            shift = granule + (granule - 3) * (3 - level)
            top = width if level == start else shift + granule - 3
            descriptor = read(base + 8 * bits(va, top - 1, shift), 8, level)
            table = level < 3 and descriptor & 3 == 3
            if not descriptor & 1 or (level == 3 and not descriptor & 2):
                raise Found(TF, level)
            output = bits(descriptor, 47, granule) << granule
            if table:
                if output >> size:
                    raise Found(ASF, level)
                if not stage2:
                    ap_table |= bits(descriptor, 62, 61)
                    xn_table |= bool(bits(descriptor, 60, 60))
                    pxn_table |= bool(bits(descriptor, 59, 59))
                base = output
                continue
            if level < 3 and level not in {12: (1, 2), 14: (2,), 16: (2,)}[granule]:
                raise Found(TF, level)
            output = output >> shift << shift
            if output >> size:
                raise Found(ASF, level)
            if not bits(descriptor, 10, 10) and not affd:
                raise Found(AFF, level)
            output |= bits(va, shift - 1, 0)
            if stage2:
                readable, writable = bool(bits(descriptor, 6, 6)), bool(bits(descriptor, 7, 7))
                return Leaf(
                    output, level, readable, writable, readable, writable, bool(bits(descriptor, 54, 54)), False
                )
            writable = not bits(descriptor, 7, 7) and not ap_table & 2
            user = bool(bits(descriptor, 6, 6)) and not ap_table & 1
            return Leaf(
                output,
                level,
                True,
                writable,
                user,
                user and writable,
                bool(bits(descriptor, 54, 54)) or xn_table,
                bool(bits(descriptor, 53, 53)) or pxn_table,
            )
        raise AssertionError("a walk ends at level 3")

    # -- short descriptors (DDI 0487 G5.4) ---------------------------------------------------------------------

    def short(self, index: int, va: int, sctlr: int, tcr: int, read: Read) -> Leaf:
        n = bits(tcr, 2, 0)
        high = n != 0 and va >> (32 - n) != 0
        if bits(tcr, 5 if high else 4, 5 if high else 4):
            raise Found(TF, 1)
        if high:
            n = 0
        ttbr = self.register(self.bank(index, TTBR1 if high else TTBR0))
        base = bits(ttbr, 31, 14 - n) << (14 - n)
        flags = bool(bits(sctlr, 2, 2)), bool(bits(sctlr, 3, 3))
        descriptor = read(base | bits(va, 31 - n, 20) << 2, 4, 1)
        kind = descriptor & 3
        if kind == 0:
            raise Found(TF, 1)
        if kind != 1:
            output = bits(descriptor, 31, 20) << 20 | bits(va, 19, 0)
            if bits(descriptor, 18, 18):
                output = (
                    bits(descriptor, 31, 24) << 24
                    | bits(descriptor, 23, 20) << 32
                    | bits(descriptor, 8, 5) << 36
                    | bits(va, 23, 0)
                )
            ap = bits(descriptor, 15, 15) << 2 | bits(descriptor, 11, 10)
            return self.short_leaf(output, 1, ap, bool(bits(descriptor, 4, 4)), bool(descriptor & 1), *flags)
        pxn = bool(bits(descriptor, 2, 2))
        descriptor = read(bits(descriptor, 31, 10) << 10 | bits(va, 19, 12) << 2, 4, 2)
        kind = descriptor & 3
        if kind == 0:
            raise Found(TF, 2)
        ap = bits(descriptor, 9, 9) << 2 | bits(descriptor, 5, 4)
        if kind == 1:
            output, xn = bits(descriptor, 31, 16) << 16 | bits(va, 15, 0), bool(bits(descriptor, 15, 15))
        else:
            output, xn = bits(descriptor, 31, 12) << 12 | bits(va, 11, 0), bool(descriptor & 1)
        return self.short_leaf(output, 2, ap, xn, pxn, *flags)

    def short_leaf(self, output: int, level: int, ap: int, xn: bool, pxn: bool, afe: bool, affd: bool) -> Leaf:
        """AP[2:0], or with SCTLR.AFE AP[2:1] and the access flag (G5.7.1); domains are all Client: chosen."""
        if afe:
            if not ap & 1 and not affd:
                raise Found(AFF, level)
            readable, writable, user = True, not ap & 4, bool(ap & 2)
            return Leaf(output, level, readable, writable, user, user and writable, xn, pxn)
        readable = ap not in (0, 4)
        writable = ap in (1, 2, 3)
        return Leaf(output, level, readable, writable, ap in (2, 3, 6, 7), ap == 3, xn, pxn)

    # -- permissions -------------------------------------------------------------------------------------------

    def permitted(self, leaf: Leaf, sctlr: int, of: Attributes, aarch32: bool) -> bool:
        """D8.4.1, G5.7: of EL1&0."""
        wxn, uwxn = bool(bits(sctlr, 9, 9)), bool(bits(sctlr, 10, 10))
        if of.write:
            return leaf.writable if of.privileged else leaf.user_writable
        if not of.instruction:
            return leaf.readable if of.privileged else leaf.user_readable
        if not of.privileged:
            return not (leaf.xn or (wxn and leaf.user_writable) or (aarch32 and not leaf.user_readable))
        if aarch32:
            never = leaf.xn or leaf.pxn or (wxn and leaf.writable) or (uwxn and leaf.user_writable)
            return leaf.readable and not never
        return not (leaf.pxn or leaf.user_writable or (wxn and leaf.writable))

    # -- stage 2 -----------------------------------------------------------------------------------------------

    def second(
        self, access: Access, index: int, iova: int, ipa: int, of: Attributes, stage1: int | None, of_walk: bool
    ) -> int:
        sctlr, tcr = self.register(self.bank(index, SCTLR)), self.register(self.bank(index, TCR))
        wide = self.register(self.gr1(CBA2R, index)) & 1
        if not sctlr & 1:
            if stage1 is None and ipa >> (self.ias if wide else 40):
                found = Found(ASF, 0 if wide else 1)
                self.context_fault(access, index, found, iova, of, ipa=ipa, stage1=stage1, of_walk=of_walk)
            return ipa
        asked = Attributes(False, of.privileged, False) if of_walk else of

        def read(at: int, size: int, level: int) -> int:
            return self.fetch(at, size, bool(bits(sctlr, 4, 4)), level)

        base = self.wide(self.bank(index, TTBR0))
        if wide:
            granule = {0: 12, 1: 16, 2: 14}[bits(tcr, 15, 14)]
            width, sl0 = 64 - bits(tcr, 5, 0), bits(tcr, 7, 6)
            start = 2 - sl0 if granule == 12 else 3 - sl0
            size = min(SIZES[min(bits(tcr, 18, 16), 5)], self.oas)
            base = bits(base, 47, 0)
        else:
            granule, size = 12, 40
            t0sz = bits(tcr, 3, 0) - (16 if bits(tcr, 3, 3) else 0)
            width, start, base = 32 - t0sz, 2 - bits(tcr, 7, 6), bits(base, 39, 0)
        try:
            if ipa >> width:
                raise Found(TF, 1)
            leaf = self.long(ipa, width, granule, start, base, size, 1, bool(bits(sctlr, 3, 3)), read, stage2=True)
            if asked.write:
                granted = leaf.writable
            else:
                granted = leaf.readable if not asked.instruction else not leaf.xn and (bool(wide) or leaf.readable)
            if not granted:
                raise Found(PF, leaf.level)
        except Found as found:
            self.context_fault(access, index, found, iova, of, ipa=ipa, stage1=stage1, of_walk=of_walk)
        return int(leaf.output)
