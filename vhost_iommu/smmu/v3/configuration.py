# SPDX-License-Identifier: Apache-2.0
"""From StreamID and SubstreamID to a translation context: stream table, STE, CD, and their caches (IHI 0070 §3.3, §5).

Law: what was fetched stays cached, valid or not, until a CMD_CFGI names it; a context is an immutable snapshot
made of cached structures. Not modelled: stage 2 and AArch32 tables (a structure that selects them is ILLEGAL).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from ...layout import Layout
from ...memory import MemoryLike
from ..register_file import RegisterFile
from ..walk import Regime, Table
from . import events
from .registers import (
    CR2,
    IDR0,
    IDR1,
    IDR3,
    IDR5,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
    AddressSize,
    StallModel,
    StreamTableFormat,
    TTEndian,
)
from .structures import CD, EATS, L1CD, L1STD, S1DSS, STE, STE_CONFIG, STRW, TG0, TG1, S1Fmt


class StreamWorld(IntEnum):
    """The regime that tags a translation (§3.3.3)."""

    NS_EL1 = 1
    NS_EL2 = 2
    NS_EL2_E2H = 3


@dataclass(frozen=True, slots=True)
class HalfContext:
    """One half of the address space: what CD.TTB0 or CD.TTB1 and the fields beside it say."""

    table: Table
    top_byte_ignored: bool
    no_unprivileged: bool  #: E0PDx


_EL1 = Regime()


@dataclass(frozen=True, slots=True)
class Context:
    """All that a translation needs to know of its stream; ``halves`` is None where stage 1 is bypassed."""

    ste: STE
    world: StreamWorld = StreamWorld.NS_EL1
    vmid: int = 0
    asid: int = 0
    #: By VA[55]; None where translation is disabled.
    halves: tuple[HalfContext | None, HalfContext | None] | None = None
    regime: Regime = _EL1
    abort: bool = True  #: CD.A
    record: bool = True  #: CD.R
    mair: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The transaction is aborted; ``event`` is what to record, if anything."""

    event: events.Event | None = None


#: log2 of the CDs in a leaf of a two-level table; any other format is linear.
_CD_LEAF_BITS: dict[int, int] = {S1Fmt.TWO_LEVEL_4K: 6, S1Fmt.TWO_LEVEL_64K: 10}

#: Makes an event of the given kind for the transaction that is being looked up.
_Maker = Callable[..., events.Event]


class Configuration:
    """Configuration lookup of one SMMU, with its caches."""

    def __init__(self, registers: RegisterFile, memory: MemoryLike) -> None:
        self.registers = registers
        self.memory = memory
        self.hits = 0
        self.misses = 0
        self._l1stds: dict[int, L1STD] = {}  # by index in the first level
        self._stes: dict[int, STE] = {}  # by StreamID
        self._l1cds: dict[tuple[int, int], L1CD] = {}  # by StreamID and index in the first level
        self._cds: dict[tuple[int, int], CD] = {}  # by StreamID and index in the table
        self._contexts: dict[tuple[int, int | None], Context] = {}

    # -- invalidation (§4.3) ---------------------------------------------------------------------------------

    def invalidate_all(self) -> None:
        for cache in (self._l1stds, self._stes, self._l1cds, self._cds, self._contexts):
            cache.clear()

    def invalidate_stes(self, first: int, count: int, *, leaf: bool = False) -> None:
        """Drop the STEs of ``count`` StreamIDs and the CDs found through them; L1STDs too unless ``leaf``."""

        def inside(sid: int) -> bool:
            return first <= sid < first + count

        self._stes = {sid: ste for sid, ste in self._stes.items() if not inside(sid)}
        self._l1cds = {key: l1cd for key, l1cd in self._l1cds.items() if not inside(key[0])}
        self._cds = {key: cd for key, cd in self._cds.items() if not inside(key[0])}
        self._contexts = {key: context for key, context in self._contexts.items() if not inside(key[0])}
        if not leaf:
            split = self._split()
            self._l1stds = {
                at: l1std
                for at, l1std in self._l1stds.items()
                if not first >> split <= at <= first + count - 1 >> split
            }

    def invalidate_cd(self, sid: int, ssid: int, *, leaf: bool = False) -> None:
        """Drop one CD, and the L1CDs of the stream that may lead to it unless ``leaf``."""
        self._cds.pop((sid, ssid), None)
        if not leaf:
            for split in _CD_LEAF_BITS.values():
                self._l1cds.pop((sid, ssid >> split), None)
        # Without a SubstreamID the CD in use is that of index 0.
        self._contexts.pop((sid, ssid), None)
        if ssid == 0:
            self._contexts.pop((sid, None), None)

    def invalidate_cds(self, sid: int) -> None:
        """Drop all CDs and L1CDs of a stream."""
        self._l1cds = {key: l1cd for key, l1cd in self._l1cds.items() if key[0] != sid}
        self._cds = {key: cd for key, cd in self._cds.items() if key[0] != sid}
        self._contexts = {key: context for key, context in self._contexts.items() if key[0] != sid}

    # -- lookup ----------------------------------------------------------------------------------------------

    def lookup(self, sid: int, ssid: int | None) -> Context | Refusal:
        """The context of a transaction, or why it has none, in the order of §7.3.22."""
        context = self._contexts.get((sid, ssid))
        if context is not None:
            self.hits += 1
            return context
        self.misses += 1

        def event(kind: type[events.Event], **values: int) -> events.Event:
            return record(kind, sid, ssid, **values)

        ste = self._ste(sid, event)
        if isinstance(ste, Refusal):
            return ste
        if self.ste_illegal(ste):
            return Refusal(event(events.C_BAD_STE))
        if ste.Config < STE_CONFIG.BYPASS:
            return Refusal()
        found = self._context(ste, sid, ssid, event)
        if isinstance(found, Context):
            self._contexts[sid, ssid] = found
        return found

    def _context(self, ste: STE, sid: int, ssid: int | None, event: _Maker) -> Context | Refusal:
        stage1 = bool(ste.Config & 1)
        cd_bits = ste.S1CDMax if stage1 and self._idr1.SSIDSIZE else 0
        if ssid is not None and ssid >> cd_bits | (not cd_bits):
            return Refusal(event(events.C_BAD_SUBSTREAMID, SSID=ssid))
        index = ssid or 0
        if cd_bits:
            if ssid is None and ste.S1DSS == S1DSS.BYPASS:
                return Context(ste)
            # The reserved value 3 terminates, too.
            if (ssid is None and ste.S1DSS != S1DSS.SSID0) or (ssid == 0 and ste.S1DSS == S1DSS.SSID0):
                return Refusal(event(events.F_STREAM_DISABLED))
        if not stage1:
            return Context(ste)
        cd = self._cd(ste, sid, index, cd_bits, event)
        if isinstance(cd, Refusal):
            return cd
        if self.cd_illegal(ste, cd):
            return Refusal(event(events.C_BAD_CD))
        return self._resolve(ste, cd)

    def _resolve(self, ste: STE, cd: CD) -> Context:
        world = self.stream_world(ste)
        el2 = world is StreamWorld.NS_EL2
        return Context(
            ste,
            world=world,
            vmid=0 if self._vmid_ignored(ste) else ste.S2VMID,
            asid=0 if el2 else cd.ASID,
            halves=(self._half(ste, cd, 0), self._half(ste, cd, 1)),
            regime=Regime(unprivileged=not el2, wxn=bool(cd.WXN), pan=bool(cd.PAN) and world is not StreamWorld.NS_EL2),
            abort=bool(cd.A) or bool(self._idr0.TERM_MODEL),
            record=bool(cd.R),
            mair=cd.MAIR0 | cd.MAIR1 << 32,
        )

    def _half(self, ste: STE, cd: CD, high: int) -> HalfContext | None:
        if self._disabled(ste, cd, high):
            return None
        granule = self._granule(cd, high)
        assert granule  # a CD without one is ILLEGAL
        size = 64 - (cd.T1SZ if high else cd.T0SZ)
        output = self._output_bits(cd)
        base = Table.aligned(cd.TTB1 if high else cd.TTB0, granule, size, output)
        had = bool(cd.HAD1 if high else cd.HAD0) and bool(self._idr3.HAD)
        oas52 = self._idr5.OAS >= AddressSize.BITS_52
        table = Table(
            base=base,
            granule_bits=granule,
            input_bits=size,
            output_bits=output,
            wide=granule == 16 and oas52,
            big_endian=bool(cd.ENDI),
            hierarchical=not had,
            access_fault=not cd.AFFD,
            blocks_at_1=granule == 12 or (granule == 16 and oas52),
        )
        # The EL2 regime without E2H has no unprivileged accesses to keep out.
        unprivileged = self.stream_world(ste) is not StreamWorld.NS_EL2
        e0pd = unprivileged and bool(cd.E0PD1 if high else cd.E0PD0) and bool(self._idr3.E0PD)
        return HalfContext(table, bool(cd.TBI1 if high else cd.TBI0), e0pd)

    # -- fetching --------------------------------------------------------------------------------------------

    def _fetch(self, layout: type[Layout], pa: int) -> Layout | None:
        if pa >> self.output_bits:
            return None
        data = self.memory.read(pa, layout.size)
        return None if data is None else layout.from_bytes(data)

    def _not_fetched(self, kind: type[events.Event], pa: int, event: _Maker) -> Refusal:
        """An external abort at ``pa``, or beyond the OAS, whose bits are RES0 in the record (§7.3.4)."""
        return Refusal(event(kind, FetchAddr=pa & (1 << self.output_bits) - 1))

    def _split(self) -> int:
        split = self.registers[STRTAB_BASE_CFG].SPLIT
        return split if split in (6, 8, 10) else 6

    def _ste(self, sid: int, event: _Maker) -> STE | Refusal:
        ste = self._stes.get(sid)
        if ste is not None:
            return ste
        config = self.registers[STRTAB_BASE_CFG]
        bad_sid = Refusal(event(events.C_BAD_STREAMID) if self.registers[CR2].RECINVSID else None)
        if sid >> min(config.LOG2SIZE, self._idr1.SIDSIZE):
            return bad_sid
        base = self.registers[STRTAB_BASE].ADDR & (1 << self.output_bits) - 1
        if config.FMT == StreamTableFormat.TWO_LEVEL:
            split = self._split()
            base &= ~((1 << max(6, config.LOG2SIZE - split + 3)) - 1)
            l1std = self._l1stds.get(sid >> split)
            if l1std is None:
                at = base + (sid >> split) * L1STD.size
                fetched = self._fetch(L1STD, at)
                if fetched is None:
                    return self._not_fetched(events.F_STE_FETCH, at, event)
                l1std = self._l1stds[sid >> split] = L1STD(fetched.raw)
            span = l1std.Span
            low = sid & (1 << split) - 1
            if not 1 <= span <= min(11, split + 1) or low >> span - 1:
                return bad_sid
            at = (l1std.L2Ptr & ~((1 << 6 + span - 1) - 1)) + low * STE.size
        else:
            at = (base & ~((1 << config.LOG2SIZE + 6) - 1)) + sid * STE.size
        fetched = self._fetch(STE, at)
        if fetched is None:
            return self._not_fetched(events.F_STE_FETCH, at, event)
        ste = self._stes[sid] = STE(fetched.raw)
        return ste

    def _cd(self, ste: STE, sid: int, index: int, cd_bits: int, event: _Maker) -> CD | Refusal:
        cd = self._cds.get((sid, index))
        if cd is not None:
            return cd
        # Tables are aligned to their size, leaves to theirs; low bits of a pointer that say otherwise do not count.
        at = _aligned(ste.S1ContextPtr, cd_bits + 6) + index * CD.size
        leaf_bits = _CD_LEAF_BITS.get(ste.S1Fmt)
        if cd_bits and leaf_bits:
            l1cd = self._l1cds.get((sid, index >> leaf_bits))
            if l1cd is None:
                at = _aligned(ste.S1ContextPtr, cd_bits - leaf_bits + 3) + (index >> leaf_bits) * L1CD.size
                fetched = self._fetch(L1CD, at)
                if fetched is None:
                    return self._not_fetched(events.F_CD_FETCH, at, event)
                l1cd = self._l1cds[sid, index >> leaf_bits] = L1CD(fetched.raw)
            if not l1cd.V or l1cd.L2Ptr >> self.output_bits:
                return Refusal(event(events.C_BAD_SUBSTREAMID, SSID=index))
            at = _aligned(l1cd.L2Ptr, leaf_bits + 6) + (index & (1 << leaf_bits) - 1) * CD.size
        fetched = self._fetch(CD, at)
        if fetched is None:
            return self._not_fetched(events.F_CD_FETCH, at, event)
        cd = self._cds[sid, index] = CD(fetched.raw)
        return cd

    # -- what the implementation is --------------------------------------------------------------------------

    @property
    def _idr0(self) -> IDR0:
        return self.registers[IDR0]

    @property
    def _idr1(self) -> IDR1:
        return self.registers[IDR1]

    @property
    def _idr3(self) -> IDR3:
        return self.registers[IDR3]

    @property
    def _idr5(self) -> IDR5:
        return self.registers[IDR5]

    @property
    def output_bits(self) -> int:
        """OAS in bits (§3.4)."""
        return AddressSize(self._idr5.OAS).bits

    def _output_bits(self, cd: CD) -> int:
        """The effective stage 1 output size: CD.IPS capped at OAS, and at what the format can express."""
        return min(AddressSize(cd.IPS).bits, self.output_bits)

    def _granule_supported(self, shift: int) -> bool:
        return bool({12: self._idr5.GRAN4K, 14: self._idr5.GRAN16K, 16: self._idr5.GRAN64K}.get(shift, 0))

    @staticmethod
    def _granule(cd: CD, high: int) -> int:
        """log2 of the granule of TTBx; 0 if reserved."""
        if high:
            return TG1(cd.TG1).shift if cd.TG1 else 0
        return TG0(cd.TG0).shift if cd.TG0 < 3 else 0

    # -- validity (§5.2.2, §5.4.2) ---------------------------------------------------------------------------

    def stream_world(self, ste: STE) -> StreamWorld:
        if self._strw_ignored(ste) or ste.STRW == STRW.EL1:
            return StreamWorld.NS_EL1
        return StreamWorld.NS_EL2_E2H if self.registers[CR2].E2H else StreamWorld.NS_EL2

    def _strw_ignored(self, ste: STE) -> bool:
        idr0 = self._idr0
        return not idr0.S1P or not idr0.Hyp or bool(ste.Config & 2) or ste.Config == STE_CONFIG.BYPASS

    def _vmid_ignored(self, ste: STE) -> bool:
        if ste.Config <= STE_CONFIG.BYPASS or not self._idr0.S2P:
            return True
        return ste.STRW != STRW.EL1 and not self._strw_ignored(ste)

    def ste_illegal(self, ste: STE) -> bool:
        """Whether using ``ste`` gives C_BAD_STE, as SteIllegal() of §5.2.2."""
        idr0, idr1 = self._idr0, self._idr1
        if not ste.V:
            return True
        if ste.Config < STE_CONFIG.BYPASS:
            return False
        stage1, stage2 = ste.Config & 1, ste.Config & 2
        if (stage1 and not idr0.S1P) or stage2:
            return True
        if idr0.ATS and stage1 and ste.EATS == EATS.SPLIT:
            return True
        if not self._strw_ignored(ste) and ste.STRW & 1:
            return True
        if stage1 and (
            (ste.S1STALLD and idr0.STALL_MODEL != StallModel.STALL_AND_TERMINATE)
            or (idr1.SSIDSIZE and ste.S1CDMax > idr1.SSIDSIZE)
            or (idr1.SSIDSIZE and ste.S1CDMax and not idr0.CD2L and ste.S1Fmt in (1, 2))
            or ste.S1ContextPtr >> self.output_bits
        ):
            return True
        return not self._vmid_ignored(ste) and not idr0.VMID16 and bool(ste.S2VMID >> 8)

    def _disabled(self, ste: STE, cd: CD, high: int) -> bool:
        """The effective EPDx: EL2 without E2H has TTB0 alone, always on."""
        if self.stream_world(ste) is StreamWorld.NS_EL2:
            return bool(high)
        return bool(cd.EPD1 if high else cd.EPD0)

    def cd_illegal(self, ste: STE, cd: CD) -> bool:
        """Whether using ``cd`` through ``ste`` gives C_BAD_CD, as CdIllegal() of §5.4.2."""
        idr0 = self._idr0
        enabled = [high for high in (0, 1) if not self._disabled(ste, cd, high)]
        if (
            not cd.V
            or (ste.S1STALLD and cd.S)
            or (idr0.TERM_MODEL and not cd.A)
            or (idr0.STALL_MODEL == StallModel.TERMINATE_ONLY and cd.S)
            or (idr0.STALL_MODEL == StallModel.STALL_FORCED and not cd.S)
            or (enabled and idr0.TTENDIAN == TTEndian.LITTLE and cd.ENDI)
            or (enabled and idr0.TTENDIAN == TTEndian.BIG and not cd.ENDI)
            or not cd.AA64
            or not idr0.TTF & 2
            or ((cd.HA or cd.HD) and not idr0.HTTU)
            or (cd.HD and idr0.HTTU == 1)
            or (idr0.HTTU == 3 and cd.HAFT and not cd.HA)
        ):
            return True
        if self.stream_world(ste) is not StreamWorld.NS_EL2 and not idr0.ASID16 and cd.ASID >> 8:
            return True
        return any(self._half_illegal(cd, high) for high in enabled)

    def _half_illegal(self, cd: CD, high: int) -> bool:
        granule = self._granule(cd, high)
        if not self._granule_supported(granule):
            return True
        size, base = (cd.T1SZ, cd.TTB1) if high else (cd.T0SZ, cd.TTB0)
        longest = (47 if granule == 16 else 48) if self._idr3.STT else 39
        shortest = 12 if self._idr5.VAX and granule == 16 else 16
        if not shortest <= size <= longest:
            return True
        limit = self._output_bits(cd) if granule == 16 else min(48, self._output_bits(cd))
        return bool(base >> limit)


def _aligned(pa: int, bits: int) -> int:
    """``pa`` aligned down to 2^``bits`` bytes; a negative number of bits is none."""
    return pa >> bits << bits if bits > 0 else pa


def record(kind: type[events.Event], sid: int, ssid: int | None, **values: int) -> events.Event:
    """An event of ``kind`` with the stream's fields, as far as the kind has them."""
    if ssid is not None and any(f.name == "SSV" for f in kind.fields):
        values.update(SSV=1, SSID=ssid)
    return kind.of(SID=sid, **values)
