# SPDX-License-Identifier: Apache-2.0
"""From StreamID and SubstreamID to a translation context: stream table, STE, CD, and their caches (IHI 0070 §3.3, §5).

Law: what was fetched stays cached, valid or not, until a CMD_CFGI names it or capacity evicts it; a context is an
immutable snapshot made of cached structures. Not modelled: permission indirection, 128-bit descriptors, the DPT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

from ...layout import Layout
from ...memory import MemoryLike
from ...register_file import RegisterFile
from ...sealed import Sealed, declared
from ...watch import Watch
from ..context import Context, HalfContext, Published, Response, Stage1, Stage2
from ..seams import fetch
from ..transaction import Mpam
from ..walk import Fault, LongTable, Regime, Wide, aligned_base, start_level
from . import events
from .registers import (
    CR2,
    HTTU,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
    StreamTableFormat,
)
from .structures import CD, L1CD, L1STD, S1DSS, STE, STE_CONFIG, VMS, S1Fmt
from .validity import StreamWorld, Validity


@dataclass(frozen=True, slots=True)
class Refusal:
    """The transaction is aborted; ``event`` is what to record, if anything."""

    event: events.Event | None = None


@dataclass(frozen=True, slots=True)
class CdFault:
    """Stage 2 did not translate the address of a CD or L1CD: a fault like any other of the stream's stage 2."""

    context: Context
    fault: Fault


#: log2 of the CDs in a leaf of a two-level table; any other format is linear.
_CD_LEAF_BITS: dict[int, int] = {S1Fmt.TWO_LEVEL_4K: 6, S1Fmt.TWO_LEVEL_64K: 10}

#: Reads through stage 2 for a CD fetch: (context, ipa, size, "CD" or "L1CD") → data, a fault, or the PA that aborted.
ReadIpa = Callable[["Context", int, int, str], "bytes | Fault | int"]

#: Makes an event of the given kind for the transaction that is being looked up.
_Maker = Callable[..., events.Event]


#: Entries of each cache, so that neither memory nor the time of an invalidation is the guest's to choose.
CAPACITY = 1024

_K = TypeVar("_K")
_V = TypeVar("_V")


def _keep(cache: dict[_K, _V], key: _K, value: _V) -> _V:
    """Cache ``value``, which is returned; at capacity the oldest entry goes."""
    if len(cache) >= CAPACITY:
        del cache[next(iter(cache))]
    cache[key] = value
    return value


class OfStreams(Sealed, Generic[_K, _V]):
    """What is cached of streams: by StreamID, and by what tells several of one apart."""

    OPEN = frozenset({"_count"})

    def __init__(self) -> None:
        self._streams: dict[int, dict[_K, _V]] = {}
        self._count = 0

    def __iter__(self) -> Iterator[tuple[int, _K, _V]]:
        for sid, of in self._streams.items():
            for key, value in of.items():
                yield sid, key, value

    def __len__(self) -> int:
        return self._count

    def get(self, sid: int, key: _K) -> _V | None:
        of = self._streams.get(sid)
        return None if of is None else of.get(key)

    def keep(self, sid: int, key: _K, value: _V) -> _V:
        """Cache ``value``, which is returned; at capacity the oldest entry of the oldest stream goes."""
        if self._count >= CAPACITY:
            oldest, of = next(iter(self._streams.items()))
            self.drop(oldest, next(iter(of)))
        self._streams.setdefault(sid, {})[key] = value
        self._count += 1
        return value

    def drop(self, sid: int, key: _K) -> None:
        of = self._streams.get(sid, {})
        if key in of:
            del of[key]
            self._count -= 1
            if not of:
                del self._streams[sid]

    def drop_streams(self, first: int, count: int) -> None:
        """All of ``count`` StreamIDs."""
        named = range(first, first + count)
        for sid in named if count < len(self._streams) else [sid for sid in self._streams if sid in named]:
            self._count -= len(self._streams.pop(sid, {}))

    def clear(self) -> None:
        self._streams.clear()
        self._count = 0


@declared
class Configuration(Sealed):
    """Configuration lookup of one SMMU, with its caches.

    ``published``: where requests find contexts by themselves; what is invalidated here is withdrawn there.
    """

    OPEN = frozenset({"_hits", "misses", "accesses", "_l1stds"})

    #: Called before the caches are looked at: to invalidate what is known to be due (Commands.carry_kept).
    catch_up: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self,
        registers: RegisterFile,
        validity: Validity,
        memory: MemoryLike,
        read_ipa: ReadIpa,
        published: Published | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.registers = registers
        self.validity = validity
        self.memory = memory
        self._read_ipa = read_ipa
        self._published = published
        self._watch = watch
        self._hits = 0
        self.misses = 0
        self.accesses = 0  #: reads of structures
        self._l1stds: dict[tuple[int, int], L1STD] = {}  # by SPLIT, and index in the first level
        self._stes: OfStreams[None, STE] = OfStreams()
        self._l1cds: OfStreams[int, L1CD] = OfStreams()  # by index in the first level
        self._cds: OfStreams[int, CD] = OfStreams()  # by index in the table
        # The PARTIDs of VMSs, twice: §5.6.2 lets both be stale, so that software must name both.
        self._partids: OfStreams[None, tuple[int, ...]] = OfStreams()
        self._vm_partids: dict[int, tuple[int, ...]] = {}  # by VMID
        self._contexts: OfStreams[int | None, Context] = OfStreams()
        if published is not None:
            # Registers from which refusals follow; only while the SMMU is disabled are they changed.
            registers.watch((STRTAB_BASE, STRTAB_BASE_CFG, CR2), published.forget_refusals)

    @property
    def hits(self) -> int:
        """How often a context was there, here or published."""
        return self._hits + (0 if self._published is None else self._published.found)

    # -- invalidation (§4.3) ---------------------------------------------------------------------------------

    def invalidate_all(self) -> None:
        self.invalidate_stes(0, 1 << 32)
        self._l1stds.clear()
        self._vm_partids.clear()

    @contextmanager
    def _telling(self, first: int, last: int) -> Iterator[None]:
        """What is dropped meanwhile of the streams ``first`` to ``last`` is told, numbered before it."""
        if self._watch is None or not self._watch.on:
            yield
            return
        caches: tuple[Sized, ...] = (self._stes, self._l1cds, self._cds, self._contexts)
        number, before = self._watch.begin(), sum(len(cache) for cache in caches)
        try:
            yield
        finally:
            dropped = before - sum(len(cache) for cache in caches)
            self._watch.dropped(number, "configuration", dropped, {"first": first, "last": last})

    def invalidate_stes(self, first: int, count: int, *, leaf: bool = False) -> None:
        """Drop the STEs of ``count`` StreamIDs and the CDs found through them; L1STDs too unless ``leaf``."""
        self.catch_up()
        with self._telling(first, first + count - 1):
            self._invalidate_stes(first, count, leaf)

    def _invalidate_stes(self, first: int, count: int, leaf: bool) -> None:
        for cache in (self._stes, self._l1cds, self._cds, self._partids, self._contexts):
            cache.drop_streams(first, count)
        if not leaf:
            last = first + count - 1
            self._l1stds = {
                (split, at): l1std
                for (split, at), l1std in self._l1stds.items()
                if not first >> split <= at <= last >> split
            }
        if self._published is not None:
            self._published.withdraw_streams(first, first + count - 1)

    def invalidate_cd(self, sid: int, ssid: int, *, leaf: bool = False) -> None:
        """Drop one CD, and the L1CD that leads to it unless ``leaf``."""
        self.catch_up()
        with self._telling(sid, sid):
            self._invalidate_cd(sid, ssid, leaf)

    def _invalidate_cd(self, sid: int, ssid: int, leaf: bool) -> None:
        self._cds.drop(sid, ssid)
        ste = self._stes.get(sid, None)  # there are no L1CDs without it
        if not leaf and ste is not None and ste.S1Fmt in _CD_LEAF_BITS:
            self._l1cds.drop(sid, ssid >> _CD_LEAF_BITS[ste.S1Fmt])
        # Without a SubstreamID the CD in use is that of index 0.
        for used in (ssid, None) if ssid == 0 else (ssid,):
            self._contexts.drop(sid, used)
            if self._published is not None:
                self._published.withdraw(sid, used)

    def invalidate_cds(self, sid: int) -> None:
        """Drop all CDs and L1CDs of a stream."""
        self.catch_up()
        with self._telling(sid, sid):
            for cache in (self._l1cds, self._cds, self._contexts):
                cache.drop_streams(sid, 1)
        if self._published is not None:
            self._published.withdraw_streams(sid, sid)

    def invalidate_partid_map(self, vmid: int) -> None:
        """Drop the PARTIDs cached by VMID; what streams have made of them stays (§4.3.5, §5.6.2)."""
        self.catch_up()
        self._vm_partids.pop(vmid, None)
        if self._published is not None:
            self._published.forget_refusals()

    # -- for who looks on ------------------------------------------------------------------------------------

    def cached(self) -> Iterator[tuple[str, int, int | None, Layout]]:
        """Each structure that is cached: its kind, whose it is, what tells several of one apart, and itself."""
        self.catch_up()
        yield from (("L1STD", at, split, l1std) for (split, at), l1std in self._l1stds.items())
        yield from (("STE", *each) for each in self._stes)
        yield from (("L1CD", *each) for each in self._l1cds)
        yield from (("CD", *each) for each in self._cds)

    def ste(self, sid: int) -> STE | Refusal:
        """The STE of a stream, whatever is in it."""
        return self._ste(sid, lambda kind, **values: events.record(kind, sid, None, **values))

    def cd(self, ste: STE, sid: int, ssid: int) -> CD | Refusal | CdFault:
        """The CD of a substream, whatever is in it."""
        cd_bits = ste.S1CDMax if self.validity.idr1.SSIDSIZE else 0

        def event(kind: type[events.Event], **values: int) -> events.Event:
            return events.record(kind, sid, ssid, **values)

        return self._cd(self.bare_context(ste), ste, sid, ssid, cd_bits, event)

    def restore(self, kind: str, sid: int, key: int | None, raw: int) -> None:
        """Cache what ``cached`` of another has given."""
        if kind == "L1STD":
            _keep(self._l1stds, (key or 0, sid), L1STD(raw))
        elif kind == "STE":
            self._stes.keep(sid, None, STE(raw))
        elif kind == "L1CD":
            self._l1cds.keep(sid, key or 0, L1CD(raw))
        elif kind == "CD":
            self._cds.keep(sid, key or 0, CD(raw))

    # -- lookup ----------------------------------------------------------------------------------------------

    def lookup(self, sid: int, ssid: int | None) -> Context | Refusal | CdFault:
        """The context of a transaction, or why it has none, in the order of §7.3.22."""
        context = self.kept(sid, ssid)
        if context is not None:
            self._hits += 1
            return context
        self.misses += 1
        published, accesses = self._published, self.accesses
        if published is not None and (refused := published.refusal(sid, ssid)) is not None:
            return cast(Refusal, refused)
        found = self._found(sid, ssid)
        if isinstance(found, Context):
            self._contexts.keep(sid, ssid, found)
        elif published is not None and isinstance(found, Refusal) and accesses == self.accesses:
            published.refuse(sid, ssid, found)  # which follows from registers and from what is cached
        return found

    def _found(self, sid: int, ssid: int | None) -> Context | Refusal | CdFault:
        def event(kind: type[events.Event], **values: int) -> events.Event:
            return events.record(kind, sid, ssid, **values)

        ste = self._valid_ste(sid, ssid)
        return ste if isinstance(ste, Refusal) else self._context(ste, sid, ssid, event)

    def kept(self, sid: int, ssid: int | None) -> Context | None:
        """The context if it is cached, for who has looked it up before."""
        self.catch_up()
        return self._contexts.get(sid, ssid)

    def contexts(self) -> Iterator[tuple[int, int | None, Context]]:
        """Those that are cached."""
        self.catch_up()
        return iter(self._contexts)

    def publish(self, sid: int, ssid: int | None, context: Context) -> None:
        """Let requests find what ``lookup`` has given."""
        if self._published is not None:
            self._published.publish(sid, ssid, context)

    def valid_ste(self, sid: int, ssid: int | None) -> STE | Refusal:
        """The STE of a stream, if it is legal and does not abort; C_BAD_STREAMID whatever CR2.RECINVSID says."""
        self.catch_up()
        return self._valid_ste(sid, ssid)

    def _valid_ste(self, sid: int, ssid: int | None) -> STE | Refusal:
        ste = self._legal_ste(sid, ssid)
        return Refusal() if isinstance(ste, STE) and ste.Config < STE_CONFIG.BYPASS else ste

    def legal_ste(self, sid: int, ssid: int | None) -> STE | Refusal:
        """The STE of a stream, if it is legal, even one that aborts."""
        self.catch_up()
        return self._legal_ste(sid, ssid)

    def _legal_ste(self, sid: int, ssid: int | None) -> STE | Refusal:
        def event(kind: type[events.Event], **values: int) -> events.Event:
            return events.record(kind, sid, ssid, **values)

        ste = self._ste(sid, event)
        if isinstance(ste, Refusal):
            return ste
        if self.validity.ste_illegal(ste):
            return Refusal(event(events.C_BAD_STE))
        return ste

    def _context(self, ste: STE, sid: int, ssid: int | None, event: _Maker) -> Context | Refusal | CdFault:
        stage1 = bool(ste.Config & 1)
        cd_bits = ste.S1CDMax if stage1 and self.validity.idr1.SSIDSIZE else 0
        if ssid is not None and ssid >> cd_bits | (not cd_bits):
            return Refusal(event(events.C_BAD_SUBSTREAMID, SSID=ssid))
        base = self.bare_context(ste)
        if cd_bits:
            if ssid is None and ste.S1DSS == S1DSS.BYPASS:
                return base
            # The reserved value 3 terminates, too.
            if (ssid is None and ste.S1DSS != S1DSS.SSID0) or (ssid == 0 and ste.S1DSS == S1DSS.SSID0):
                return Refusal(event(events.F_STREAM_DISABLED))
        if not stage1:
            return base
        cd = self._cd(base, ste, sid, ssid or 0, cd_bits, event)
        if not isinstance(cd, CD):
            return cd
        if self.validity.cd_illegal(ste, cd):
            return Refusal(event(events.C_BAD_CD))
        # The VMS comes last, once it is known which PARTID is wanted of it (§7.3.22 leaves its place open).
        mpam = self._mpam(base, ste, sid, cd, event)
        if isinstance(mpam, Refusal):
            return mpam
        return replace(base, stage1=self._stage1(ste, cd), mpam=mpam)

    def bare_context(self, ste: STE) -> Context:
        """The context without stage 1."""
        overrides = self.validity.idr1.ATTR_PERMS_OVR
        validity = self.validity
        return Context(
            validity.stream_world(ste),
            validity.output_bits,
            # Of the IPA, or of the PA where the STE bypasses both stages.
            validity.output_bits if ste.Config == STE_CONFIG.BYPASS else validity.input_bits,
            vmid=0 if self.validity.vmid_ignored(ste) else ste.S2VMID,
            stage2=self._stage2(ste) if ste.Config & 2 else None,
            privileged=bool(ste.PRIVCFG & 1) if overrides and ste.PRIVCFG & 2 else None,
            instruction=bool(ste.INSTCFG & 1) if overrides and ste.INSTCFG & 2 else None,
            overrides=(bool(ste.MTCFG), ste.MemAttr, ste.SHCFG) if self.validity.idr1.ATTR_TYPES_OVR else (False, 0, 1),
            mpam=self.validity.mpam(ste.PARTID, ste.PMG),
        )

    def _mpam(self, context: Context, ste: STE, sid: int, cd: CD, event: _Maker) -> Mpam | Refusal:
        """The MPAM identifiers of what stage 1 translates (§17.2)."""
        if not ste.S1MPAM:
            return context.mpam
        partid = cd.PARTID
        if self.validity.vms_enabled(ste):
            partids = self._partid_map(context, ste, sid, event)
            if isinstance(partids, Refusal):
                return partids
            partid = partids[partid % len(partids)]  # its upper bits are RES0 here
        return self.validity.mpam(partid, cd.PMG)

    def _stage1(self, ste: STE, cd: CD) -> Stage1:
        el2 = self.validity.stream_world(ste) is StreamWorld.NS_EL2
        aarch32 = not cd.AA64
        return Stage1(
            halves=(self._half(ste, cd, 0), self._half(ste, cd, 1)),
            regime=Regime(
                unprivileged=not el2,
                wxn=bool(cd.WXN),
                uwxn=not aarch32 or bool(cd.UWXN),
                pan=bool(cd.PAN) and not el2,
                epan=bool(cd.EPAN) and bool(self.validity.idr3.EPAN) and not aarch32,
                execute_needs_read=aarch32,
                xn_for_all=aarch32,
            ),
            asid=0 if el2 else cd.ASID,
            aset=0 if el2 else cd.ASET,
            aarch32=aarch32,
            sizes32=(cd.T0SZ & 7, 0 if el2 else cd.T1SZ & 7),
            response=Response(bool(cd.A) or bool(self.validity.idr0.TERM_MODEL), bool(cd.R), bool(cd.S)),
        )

    def _half(self, ste: STE, cd: CD, high: int) -> HalfContext | None:
        if self.validity.half_disabled(ste, cd, high):
            return None
        ttb, txsz = (cd.TTB1, cd.T1SZ) if high else (cd.TTB0, cd.T0SZ)
        had = bool(cd.HAD1 if high else cd.HAD0) and bool(self.validity.idr3.HAD)
        if not cd.AA64:
            size, granule, output, wide = 32 - (txsz & 7), 12, 40, Wide.NONE
        else:
            size, granule, output = 64 - txsz, self.validity.granule(cd, high), self.validity.s1_output_bits(cd)
            wide = self.validity.wide(granule, bool(cd.DS))
        level = start_level(granule, size)
        table = LongTable(
            base=aligned_base(ttb, granule, size, level, output),
            granule_bits=granule,
            input_bits=size,
            output_bits=output,
            start_level=level,
            wide=wide,
            big_endian=bool(cd.ENDI),
            hierarchical=not had,
            access_fault=not cd.AFFD,
            update_access=bool(cd.AA64 and cd.HA),
            update_dirty=bool(cd.AA64 and cd.HA and cd.HD),
            update_tables=bool(cd.AA64 and cd.HA and cd.HAFT) and self.validity.idr0.HTTU == HTTU.ACCESS_DIRTY_TABLE,
            first_block_level=_first_block_level(granule, wide),
            mair=cd.MAIR0 | cd.MAIR1 << 32,
            shareability=(cd.SH1 if high else cd.SH0) if wide is Wide.LPA2 else None,
        )
        # The EL2 regime without E2H has no unprivileged accesses to keep out.
        unprivileged = self.validity.stream_world(ste) is not StreamWorld.NS_EL2
        e0pd = unprivileged and bool(cd.E0PD1 if high else cd.E0PD0) and bool(self.validity.idr3.E0PD and cd.AA64)
        return HalfContext(table, bool(cd.TBI1 if high else cd.TBI0) and bool(cd.AA64), e0pd)

    def _stage2(self, ste: STE) -> Stage2:
        size, granule, level = self.validity.s2_geometry(ste)
        output = self.validity.s2_output_bits(ste)
        wide = self.validity.wide(granule, bool(ste.S2DS)) if ste.S2AA64 else Wide.NONE
        table = LongTable(
            base=aligned_base(ste.S2TTB, granule, size, level, output),
            granule_bits=granule,
            input_bits=size,
            output_bits=output,
            start_level=level,
            stage=2,
            wide=wide,
            big_endian=bool(ste.S2ENDI),
            access_fault=not ste.S2AFFD,
            update_access=bool(ste.S2HA),
            update_dirty=bool(ste.S2HA and ste.S2HD),
            update_tables=bool(ste.S2HA and ste.S2HAFT) and self.validity.idr0.HTTU == HTTU.ACCESS_DIRTY_TABLE,
            first_block_level=_first_block_level(granule, wide),
            shareability=ste.S2SH0 if wide is Wide.LPA2 else None,
        )
        return Stage2(
            table,
            protected_walks=bool(ste.S2PTW),
            forced_writeback=bool(ste.S2FWB) and bool(self.validity.idr3.FWB),
            two_bit_xn=bool(self.validity.idr3.XNX),
            response=Response(record=bool(ste.S2R), stall=bool(ste.S2S)),
            execute_needs_read=not ste.S2AA64,
        )

    # -- fetching --------------------------------------------------------------------------------------------

    def _fetch(self, layout: type[Layout], pa: int) -> Layout | None:
        if pa >> self.validity.output_bits:
            return None
        self.accesses += 1
        data = fetch(self.memory, layout.__name__, pa, layout.size)
        if data is None:
            return None
        found = layout.from_bytes(data)
        self._tell(found, pa)
        return found

    def _tell(self, structure: Layout, pa: int) -> None:
        """That it has been read, on behalf of whose transaction that is."""
        if self._watch is not None and self._watch.on:
            self._watch.fetched(structure, pa)

    def _not_fetched(self, kind: type[events.Event], pa: int, event: _Maker) -> Refusal:
        """An external abort at ``pa``, or beyond the OAS, whose bits are RES0 in the record (§7.3.4)."""
        return Refusal(event(kind, FetchAddr=pa & (1 << self.validity.output_bits) - 1))

    def _split(self) -> int:
        split = self.registers[STRTAB_BASE_CFG].SPLIT
        return split if split in (6, 8, 10) else 6

    def _ste(self, sid: int, event: _Maker) -> STE | Refusal:
        ste = self._stes.get(sid, None)
        if ste is not None:
            return ste
        config = self.registers[STRTAB_BASE_CFG]
        bad_sid = Refusal(event(events.C_BAD_STREAMID))
        if sid >> min(config.LOG2SIZE, self.validity.idr1.SIDSIZE):
            return bad_sid
        base = self.registers[STRTAB_BASE].ADDR & (1 << self.validity.output_bits) - 1
        if config.FMT == StreamTableFormat.TWO_LEVEL:
            split = self._split()
            base &= ~((1 << max(6, config.LOG2SIZE - split + 3)) - 1)
            l1std = self._l1stds.get((split, sid >> split))
            if l1std is None:
                at = base + (sid >> split) * L1STD.size
                fetched = self._fetch(L1STD, at)
                if fetched is None:
                    return self._not_fetched(events.F_STE_FETCH, at, event)
                l1std = _keep(self._l1stds, (split, sid >> split), L1STD(fetched.raw))
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
        return self._stes.keep(sid, None, STE(fetched.raw))

    def _cd(
        self, context: Context, ste: STE, sid: int, index: int, cd_bits: int, event: _Maker
    ) -> CD | Refusal | CdFault:
        cd = self._cds.get(sid, index)
        if cd is not None:
            return cd
        # Tables are aligned to their size, leaves to theirs; low bits of a pointer that say otherwise do not count.
        at = _aligned(ste.S1ContextPtr, cd_bits + 6) + index * CD.size
        leaf_bits = _CD_LEAF_BITS.get(ste.S1Fmt)
        if cd_bits and leaf_bits:
            l1cd = self._l1cds.get(sid, index >> leaf_bits)
            if l1cd is None:
                at = _aligned(ste.S1ContextPtr, cd_bits - leaf_bits + 3) + (index >> leaf_bits) * L1CD.size
                data = self._fetch_cd(context, at, L1CD.size, event)
                if not isinstance(data, bytes):
                    return data
                l1cd = self._l1cds.keep(sid, index >> leaf_bits, L1CD.from_bytes(data))
                self._tell(l1cd, at)
            # Beyond the input of stage 2 an address faults there (§3.4.3).
            if not l1cd.V or (context.stage2 is None and l1cd.L2Ptr >> self.validity.output_bits):
                return Refusal(event(events.C_BAD_SUBSTREAMID, SSID=index))
            at = _aligned(l1cd.L2Ptr, leaf_bits + 6) + (index & (1 << leaf_bits) - 1) * CD.size
        data = self._fetch_cd(context, at, CD.size, event)
        if not isinstance(data, bytes):
            return data
        cd = self._cds.keep(sid, index, CD.from_bytes(data))
        self._tell(cd, at)
        return cd

    def _fetch_cd(self, context: Context, at: int, size: int, event: _Maker) -> bytes | Refusal | CdFault:
        """``size`` bytes of a CD table, through stage 2 where there is one."""
        self.accesses += 1
        kind = "CD" if size == CD.size else "L1CD"
        if context.stage2 is None:
            data = None if at >> self.validity.output_bits else fetch(self.memory, kind, at, size)
            return self._not_fetched(events.F_CD_FETCH, at, event) if data is None else data
        found = self._read_ipa(context, at, size, kind)
        if isinstance(found, bytes):
            return found
        if isinstance(found, Fault):
            return CdFault(context, found)
        return self._not_fetched(events.F_CD_FETCH, found, event)

    def _partid_map(self, context: Context, ste: STE, sid: int, event: _Maker) -> tuple[int, ...] | Refusal:
        """VMS.PARTID_MAP of a stream; no other part of a VMS is read."""
        partids = self._partids.get(sid, None)
        if partids is not None:
            return partids
        partids = self._vm_partids.get(context.vmid)
        if partids is None:
            at, partid_map = ste.VMSPtr, VMS.PARTID_MAP
            self.accesses += 1
            data = fetch(self.memory, "VMS", at, partid_map.width // 8)
            if data is None:
                return self._not_fetched(events.F_VMS_FETCH, at, event)
            partids = partid_map.elements(int.from_bytes(data, "little"))
            _keep(self._vm_partids, context.vmid, partids)
        return self._partids.keep(sid, None, partids)


class StrictConfiguration(Configuration):
    """One that finds out where several cached STEs that differ match a StreamID, by CONT of one of them (§3.20.2)."""

    def _ste(self, sid: int, event: _Maker) -> STE | Refusal:
        cached = self._stes.get(sid, None) is not None
        ste = super()._ste(sid, event)
        if isinstance(ste, Refusal):
            return ste
        if not cached:
            # Who is within its span has one more STE that matches.
            for at in {at for at, _, _ in self._contexts if _spans(sid, ste, at)}:
                self._contexts.drop_streams(at, 1)
        for at, _, other in self._stes:
            if at != sid and _spans(at, other, sid) and (ste.raw ^ other.raw) & _ALIKE:
                return Refusal(event(events.F_CFG_CONFLICT))
        return ste


def _spans(at: int, ste: STE, sid: int) -> bool:
    """Whether the STE of stream ``at``, once it is cached, matches ``sid`` too."""
    return bool(ste.V) and at >> ste.CONT == sid >> ste.CONT


#: What STEs of one span must have in common.
_ALIKE = sum(each.mask for each in STE.fields if each is not STE.CONT)


def _first_block_level(granule: int, wide: Wide) -> int:
    """The lowest-numbered level with blocks: 52-bit formats have one more (Arm ARM D8.3)."""
    widest = wide is not Wide.NONE
    return {12: 0 if widest else 1, 14: 1 if widest else 2, 16: 1 if widest else 2}[granule]


def _aligned(pa: int, bits: int) -> int:
    """``pa`` aligned down to 2^``bits`` bytes; a negative number of bits is none."""
    return pa >> bits << bits if bits > 0 else pa
