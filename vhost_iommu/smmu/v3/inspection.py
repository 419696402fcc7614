# SPDX-License-Identifier: Apache-2.0
"""An SMMUv3 as it can be asked of: what is taken of it, and a twin of that which translates without consequences.

Law: the twin is the model itself, over the same registers, with caches of its own and memory that nothing changes; so
an explanation is what the model would do, told by the way. Nothing here decides anything a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ...errors import UsageError
from ...layout import Layout
from ..context import Context, HalfContext, Stage2
from ..inspection import (
    AddressSpace,
    CachedStructure,
    End,
    Entry,
    Explanation,
    Queue,
    Reader,
    Runs,
    State,
    Step,
    Stream,
    Streams,
    access1,
    access2,
    fault_text,
    leaves_differ,
    runs,
)
from ..queue import Ring
from ..seams import DESCRIPTOR, Seams
from ..stages import Output
from ..transaction import Answer, Outcome, Transaction
from ..twin import Twin, explanation, not_zero, stalls_said, taken
from ..walk import Access, Fault, FaultKind, LongTable
from . import commands, events
from .causes import causes_of
from .configuration import CdFault, Configuration, Refusal
from .counters import Counters
from .instance import Smmu
from .registers import (
    BY_NAME,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR0ACK,
    CR2,
    EVENTQ_CONS,
    EVENTQ_PROD,
    GBPA,
    GERROR,
    GERRORN,
    IDR0,
    IDR1,
    PRIQ_CONS,
    PRIQ_PROD,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
    CommandError,
    StreamTableFormat,
)
from .structures import CD, L1CD, L1STD, STE, STE_CONFIG, VMS
from .transactions import FAULT_EVENTS, Transactions

#: Registers of which an SMMU is made.
IDS = ("IDR0", "IDR1", "IDR2", "IDR3", "IDR4", "IDR5", "IIDR", "AIDR", "MPAMIDR")
#: Entries that one answer looks at.
MOST_LOOKED_AT = 4096

_STRUCTURES: dict[str, type[Layout]] = {"L1STD": L1STD, "STE": STE, "L1CD": L1CD, "CD": CD, "VMS": VMS}
_FAILED = "is in service failure mode: every transaction aborts, without a record"
_DOES = {
    STE_CONFIG.ABORT: "aborts",
    STE_CONFIG.BYPASS: "bypasses both stages",
    STE_CONFIG.S1: "stage 1",
    STE_CONFIG.S2: "stage 2",
    STE_CONFIG.NESTED: "stage 1 and stage 2",
}

#: Of each queue, the size of an entry and how it is decoded.
_ENTRIES: dict[str, tuple[int, Callable[[int], Layout]]] = {
    "cmdq": (commands.Command.size, commands.decode),
    "eventq": (events.Event.size, events.decode),
    "priq": (events.PRIEntry.size, events.PRIEntry),
}


def state_of(smmu: Smmu, *, caches: bool) -> State:
    """What ``smmu`` holds now; its lock is taken."""
    smmu.prompt.catch_up()
    with smmu.lock:
        configuration = smmu.configuration
        return taken(
            smmu,
            "smmuv3",
            smmu.registers.held(),
            (*smmu.stalls.recorded.values(), *smmu.stalls.unrecorded),
            smmu.stalls.now(),
            {"tlb": smmu.tlb, "tlb2": smmu.tlb2},
            caches=caches,
            failed=smmu.reports.failed,
            structures=tuple(
                CachedStructure(kind, sid, key, value.words())
                for kind, sid, key, value in (configuration.cached() if caches else ())
            ),
            configuration_hits=configuration.hits,
            configuration_misses=configuration.misses,
        )


class _Twin(Twin):
    """An SMMU over its memory, whose structures are steps as well."""

    def __init__(self, state: State, reader: Reader, *, caches: bool = False) -> None:
        super().__init__(state, reader)
        self._kind = ""
        self.smmu = Smmu(
            self, id_registers=self.ids(IDS), name=state.name, tlb_entries=state.tlb_capacity, pure=True,
            seams=Seams(memory=self._aborts, walk=self._aborts),
        )  # fmt: skip
        smmu = self.smmu
        smmu.registers.restore(state.registers)
        smmu.reports.failed = state.failed
        around = smmu.seams.around(self, "STE")
        self.configuration = _Configuration(self.observed, smmu.registers, smmu.validity, around, smmu.stages.read_ipa)
        self.transactions = Transactions(
            state.name, smmu.registers, smmu.validity, self.configuration, smmu.stages, smmu.reports, smmu.enables,
            smmu.stalls, smmu.ats, Counters(), smmu.watch, smmu.seams,
        )  # fmt: skip
        if caches:
            for each in state.structures:
                raw = sum(word << 64 * at for at, word in enumerate(each.words))
                self.configuration.restore(each.kind, each.sid, each.key, raw)
            self.cache(smmu.tlb, smmu.tlb2)

    # -- its memory ------------------------------------------------------------------------------------------

    def _aborts(self, kind: str, pa: int) -> bool:
        self._kind = kind
        return False

    def read(self, pa: int, size: int) -> bytes | None:
        data = super().read(pa, size)
        if self._kind != "descriptor":
            kind = "L1CD" if self._kind == "CD" and size == L1CD.size else self._kind
            layout = _STRUCTURES.get(kind)
            value = layout.from_bytes(data) if layout is not None and data is not None and size == layout.size else None
            text = "nothing answers here" if data is None else kind if value is None else value.text()
            self.steps.append(Step(kind, pa, text, value))
        return data


class _Configuration(Configuration):
    """One whose tables tell of the descriptors that are read."""

    def __init__(self, observed: Callable[[Any], Any], *rest: Any) -> None:
        super().__init__(*rest)
        self._observed = observed

    def _half(self, ste: STE, cd: CD, high: int) -> HalfContext | None:
        half = super()._half(ste, cd, high)
        return half and replace(half, table=self._observed(half.table))

    def _stage2(self, ste: STE) -> Stage2:
        stage2 = super()._stage2(ste)
        return replace(stage2, table=self._observed(stage2.table))


class Inspected:
    """An SMMUv3's ``Inspection``."""

    def __init__(self, state: State, reader: Reader) -> None:
        self.state = state
        self._reader = reader
        self._twin = _Twin(state, reader)
        self._smmu = self._twin.smmu
        self._registers = self._smmu.registers

    # -- the instance ----------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        return bool(self._registers[CR0ACK].SMMUEN)

    def said(self) -> tuple[str, ...]:
        registers = self._registers
        cr0, ack, gbpa = registers[CR0], registers[CR0ACK], registers[GBPA]
        if self.state.failed:
            said = [_FAILED]
        elif ack.SMMUEN:
            table = registers[STRTAB_BASE_CFG]
            levels = "two levels" if table.FMT == StreamTableFormat.TWO_LEVEL else "linear"
            said = [
                f"translates; stream table at {registers[STRTAB_BASE].ADDR:#x}, {levels}, 2^{table.LOG2SIZE} streams"
            ]
        else:
            said = ["is off: every transaction " + ("aborts (GBPA.ABORT)" if gbpa.ABORT else "passes as it is (GBPA)")]
        if cr0.raw != ack.raw:
            said.append(f"CR0 is {cr0.raw:#x} and is not acknowledged: CR0ACK is {ack.raw:#x}")
        active = registers.raw(GERROR) ^ registers.raw(GERRORN)
        names = [f.name for f in GERROR.fields if f.mask & active]
        if names:
            said.append(f"global errors that software has not acknowledged: {', '.join(names)}")
        return (*said, *stalls_said(self.state))

    def registers(self) -> tuple[Layout, ...]:
        return not_zero(self._registers, BY_NAME)

    # -- queues ----------------------------------------------------------------------------------------------

    def queues(self) -> tuple[Queue, ...]:
        registers, smmu, ack = self._registers, self._smmu, self._registers[CR0ACK]
        cons = registers[CMDQ_CONS]
        error = CommandError(cons.ERR).name if cons.ERR and cons.ERR in set(CommandError) else ""
        active = registers.raw(GERROR) ^ registers.raw(GERRORN)
        stopped = error if active & GERROR.CMDQ_ERR.mask else ""
        aborted = "EVENTQ_ABT_ERR" if active & GERROR.EVENTQ_ABT_ERR.mask else ""
        prod = registers[EVENTQ_PROD]
        overflow = "overflowed" if prod.OVFLG != registers[EVENTQ_CONS].OVACKFLG else ""
        found = [
            _queue("cmdq", ack.CMDQEN, smmu.commands.ring(), registers.raw(CMDQ_PROD), cons.RD, stopped),
            _queue(
                "eventq", ack.EVENTQEN, smmu.reports.ring(), prod.WR, registers.raw(EVENTQ_CONS), aborted or overflow
            ),
        ]
        if registers[IDR0].PRI:
            pending = registers[PRIQ_PROD]
            late = "overflowed" if pending.OVFLG != registers[PRIQ_CONS].OVACKFLG else ""
            found.append(_queue("priq", ack.PRIQEN, smmu.pri.ring(), pending.WR, registers.raw(PRIQ_CONS), late))
        return tuple(found)

    def entries(self, queue: str, limit: int) -> tuple[Entry, ...]:
        known = {each.name: each for each in self.queues()}
        if queue not in known:
            raise UsageError(f"there is no queue {queue!r:.40}; it is one of {', '.join(known)}")
        about = known[queue]
        size, decode = _ENTRIES[queue]
        before = min(limit, about.size - about.waiting)
        found = []
        for number in range(-before, min(about.waiting, limit)):
            index = about.consumer + number & about.size - 1
            at = about.base + index * size
            data = self._reader.read(at, size)
            value = None if data is None else decode(int.from_bytes(data, "little"))
            found.append(Entry(index, at, number >= 0, value))
        return tuple(found)

    # -- streams ---------------------------------------------------------------------------------------------

    def streams(self, first: int, limit: int) -> Streams:
        config, idr1 = self._registers[STRTAB_BASE_CFG], self._registers[IDR1]
        end = 1 << min(config.LOG2SIZE, idr1.SIDSIZE)
        step = 1
        if config.FMT == StreamTableFormat.TWO_LEVEL:
            step = 1 << (config.SPLIT if config.SPLIT in (6, 8, 10) else 6)
        found: list[Stream] = []
        sid = first
        for _ in range(MOST_LOOKED_AT):
            if sid >= end or not self.enabled:
                return Streams(tuple(found), None)
            steps, ste = self._looked_up(self._twin.configuration.ste, sid)
            if isinstance(ste, STE):
                if ste.raw:
                    if len(found) >= limit:
                        return Streams(tuple(found), sid)
                    found.append(self._stream(sid, steps[-1].at or 0, ste))
                sid += 1
            else:
                sid = (sid // step + 1) * step  # the first level has no, or no more, STEs here
        return Streams(tuple(found), sid if sid < end else None)

    def _looked_up(self, look: Callable[..., Any], *arguments: Any) -> tuple[list[Step], Any]:
        """What a look at memory came by, and found; nothing is cached."""
        self._twin.steps.clear()
        self._twin.configuration.invalidate_all()
        found = look(*arguments)
        return list(self._twin.steps), found

    def _stream(self, sid: int, at: int, ste: STE) -> Stream:
        if not ste.V:
            return Stream(sid, at, ste, "is invalid", ("V is 0",))
        does = _DOES.get(STE_CONFIG(ste.Config), "aborts") if ste.Config in set(STE_CONFIG) else "aborts"
        if ste.Config & 1 and ste.Config >= STE_CONFIG.BYPASS and ste.S1CDMax:
            does += f", 2^{ste.S1CDMax} substreams"
        if ste.Config & 2 and ste.Config >= STE_CONFIG.BYPASS:
            does += f", VMID {ste.S2VMID:#x}"
        return Stream(sid, at, ste, does, _wrong(ste, self._smmu.validity.ste_illegal))

    def _ste(self, sid: int) -> STE | None:
        _, found = self._looked_up(self._twin.configuration.ste, sid)
        return found if isinstance(found, STE) else None

    def substreams(self, sid: int, first: int, limit: int) -> Streams:
        ste = self._ste(sid)
        stage1 = ste is not None and ste.Config in (STE_CONFIG.S1, STE_CONFIG.NESTED)
        if ste is None or not stage1 or self._smmu.validity.ste_illegal(ste):
            return Streams((), None)
        bits = ste.S1CDMax if self._smmu.validity.idr1.SSIDSIZE else 0
        step = 64 if bits > 6 and ste.S1Fmt else 1
        found: list[Stream] = []
        ssid = first
        for _ in range(MOST_LOOKED_AT):
            if ssid >> bits:
                return Streams(tuple(found), None)
            steps, cd = self._looked_up(self._twin.configuration.cd, ste, sid, ssid)
            if isinstance(cd, CD):
                if cd.raw:
                    if len(found) >= limit:
                        return Streams(tuple(found), ssid)
                    found.append(self._substream(ste, ssid, steps[-1].at or 0, cd))
                ssid += 1
            else:
                ssid = (ssid // step + 1) * step
        return Streams(tuple(found), ssid if not ssid >> bits else None)

    def _substream(self, ste: STE, ssid: int, at: int, cd: CD) -> Stream:
        if not cd.V:
            return Stream(ssid, at, cd, "is invalid", ("V is 0",))
        validity = self._smmu.validity
        halves = [f"TTB{high} at {base:#x}, 2^{64 - size} bytes" for high, base, size in (
            (0, cd.TTB0, cd.T0SZ), (1, cd.TTB1, cd.T1SZ)) if not validity.half_disabled(ste, cd, high)]  # fmt: skip
        does = f"ASID {cd.ASID:#x}, {', '.join(halves) or 'both tables off'}"
        return Stream(ssid, at, cd, does, _wrong(cd, lambda each: validity.cd_illegal(ste, each)))

    # -- tables ----------------------------------------------------------------------------------------------

    def context(self, sid: int, ssid: int | None) -> Context | None:
        _, found = self._looked_up(self._smmu.configuration.lookup, sid, ssid)
        self._smmu.configuration.invalidate_all()
        return found if isinstance(found, Context) else None

    def spaces(self, sid: int, ssid: int | None) -> tuple[AddressSpace, ...]:
        context = self.context(sid, ssid) if self.enabled else None
        if context is None:
            return ()
        found = []
        if context.stage1 is not None:
            for number, half in enumerate(context.stage1.halves):
                if half is not None and isinstance(half.table, LongTable):
                    size = 1 << half.table.input_bits
                    start = (1 << 64) - size if number and not context.stage1.aarch32 else 0
                    tags = f"ASID {context.stage1.asid:#x}" + (f", VMID {context.vmid:#x}" if context.stage2 else "")
                    found.append(AddressSpace(sid, ssid, 1, number, half.table.base, start, size, tags))
        if context.stage2 is not None and isinstance(context.stage2.table, LongTable):
            table = context.stage2.table
            found.append(AddressSpace(sid, ssid, 2, 0, table.base, 0, 1 << table.input_bits, f"VMID {context.vmid:#x}"))
        return tuple(found)

    def tables(self, space: AddressSpace, first: int, limit: int) -> Runs:
        context = self.context(space.sid, space.ssid)
        if context is None:
            return Runs((), None)
        if space.stage == 2:
            table, access = None if context.stage2 is None else context.stage2.table, access2
        else:
            half = None if context.stage1 is None else context.stage1.halves[space.half]
            table, access = None if half is None else half.table, access1
        if not isinstance(table, LongTable):
            return Runs((), None)

        def read(address: int, size: int) -> bytes | Fault | None:
            if space.stage == 2 or context.stage2 is None:
                return self._reader.read(address & (1 << context.output_bits) - 1, size)
            found = self._smmu.stages.read_ipa(context, address, size, DESCRIPTOR)
            return None if isinstance(found, int) else found

        try:
            return runs(table, read, access, space.start, first, limit)
        finally:
            self._smmu.tlb2.clear()

    # -- what it has said, and what it keeps ---------------------------------------------------------------------

    def reports(self) -> tuple[Layout, ...]:
        return tuple(events.decode(events.Event.from_words(words).raw) for words in self.state.reports)

    def structures(self) -> tuple[tuple[CachedStructure, Layout], ...]:
        found = []
        for each in self.state.structures:
            layout = _STRUCTURES.get(each.kind)
            if layout is not None:
                found.append((each, layout.from_words(each.words)))
        return tuple(found)

    # -- explanations ----------------------------------------------------------------------------------------

    def explain(self, transaction: Transaction) -> Explanation:
        twin = _Twin(self.state, self._reader)
        end, found = _end(twin, transaction)
        differs: list[str] = []
        cached = None
        if self.state.structures or self.state.translations:
            other = _Twin(self.state, self._reader, caches=True)
            cached, kept = _end(other, transaction)
            differs = [*self._structures_differ(twin), *leaves_differ(found, kept, "no CMD_TLBI_… has named it since")]
        return explanation(transaction, twin, (), end, cached, differs, causes_of)

    def _structures_differ(self, twin: _Twin) -> Iterator[str]:
        """Structures that ``twin`` has read and are cached otherwise."""
        kept = {(each.kind, each.sid, each.key): each.words for each in self.state.structures}
        for kind, sid, key, value in twin.configuration.cached():
            words = kept.get((kind, sid, key), value.words())
            if words != value.words():
                old = _STRUCTURES[kind].from_words(words)
                yield f"{kind} of {sid:#x}: {_difference(old, value)}; no CMD_CFGI_… has named it since"


def _queue(name: str, enabled: int, ring: Ring, producer: int, consumer: int, error: str) -> Queue:
    size = 1 << ring.bits
    waiting = (producer - consumer) & ring.index_mask
    return Queue(
        name, bool(enabled), ring.base, size, producer & size - 1, consumer & size - 1, min(waiting, size), error
    )


def _wrong(structure: Any, illegal: Callable[[Any], bool]) -> tuple[str, ...]:
    """Why a structure is ILLEGAL: what of one field would make it legal."""
    if not illegal(structure):
        return tuple(structure.problems())
    found = []
    for each in structure.fields:
        if each.view or each.width > 6:
            continue
        legal = [value for value in range(1 << each.width) if not illegal(structure.replace(**{each.name: value}))]
        if legal:
            now = each.decode(structure.raw)
            shown = " or ".join(each.text(value) for value in legal[:4]) + (" …" if len(legal) > 4 else "")
            found.append(f"ILLEGAL: {each.name} is {each.text(now)}; it would be legal with {shown}")
    return tuple(found) or ("ILLEGAL, in more than one field",)


def _difference(old: Layout, new: Layout) -> str:
    """What differs between what is cached and what is in memory."""
    fields = [f for f in new.fields if not f.view and f.decode(old.raw) != f.decode(new.raw)]
    shown = [
        f"{f.name} is cached as {f.text(f.decode(old.raw))}, in memory {f.text(f.decode(new.raw))}" for f in fields
    ]
    return "; ".join(shown[:6]) + ("; …" if len(shown) > 6 else "")


def _end(twin: _Twin, t: Transaction) -> tuple[End, Output | Fault | None]:
    """What becomes of ``t``, and what its stages said."""
    smmu, steps = twin.smmu, twin.steps
    cr0 = smmu.registers[CR0ACK]
    if not cr0.SMMUEN:
        steps.append(Step("CR0ACK", None, "SMMUEN is 0: GBPA says what becomes of it", smmu.registers[GBPA]))
    answer = twin.transactions.translate(t)
    told = list(steps)
    try:
        return _told(twin, t, answer, told)
    finally:
        steps[:] = told


def _told(twin: _Twin, t: Transaction, answer: Answer, steps: list[Step]) -> tuple[End, Output | Fault | None]:
    smmu = twin.smmu
    event = answer.events[0] if answer.events else answer.stall.event if answer.stall is not None else None
    recorded = event is not None and smmu.reports.writable()
    pa = answer.pieces[0].pa if answer.pieces else None
    memory = answer.memory[0].text if answer.memory else ""
    if smmu.reports.failed:
        return End(answer.outcome.value, _FAILED), None
    if not smmu.registers[CR0ACK].SMMUEN:
        return End(answer.outcome.value, "by GBPA", pa, memory, event, recorded), None
    context = twin.configuration.lookup(t.sid, t.ssid)
    if isinstance(context, Refusal):
        if context.event is None:
            return End(answer.outcome.value, "STE.Config aborts, without a record"), None
        if event is None:
            text = f"{type(context.event).__name__}, not recorded as CR2.RECINVSID is {smmu.registers[CR2].RECINVSID}"
            return End(answer.outcome.value, text, event=context.event), None
        return End(answer.outcome.value, _why(twin, t, context.event), event=event, recorded=recorded), None
    if isinstance(context, CdFault):
        text = f"the CD is not read: {fault_text(context.fault)}"
        return End(answer.outcome.value, text, event=event, recorded=recorded), context.fault
    access = twin.transactions.access(context, t)
    found = smmu.stages.translate(context, t.iova, access)
    steps += _permissions(twin, context, t.iova, access, found)
    if answer.outcome is Outcome.OK:
        text = "bypasses both stages" if context.stage1 is None and context.stage2 is None else "translated"
        return End("ok", text, pa, memory), found
    if not isinstance(found, Fault):
        return End(answer.outcome.value, "a later page faults", pa, memory, event, recorded), found
    if event is None and found.kind in FAULT_EVENTS:
        silent = "CD.R" if found.stage == 1 else "STE.S2R"
        kind = FAULT_EVENTS[found.kind].__name__
        return End(answer.outcome.value, f"{fault_text(found)}: {kind}, not recorded as {silent} is 0"), found
    return End(answer.outcome.value, fault_text(found), event=event, recorded=recorded), found


def _why(twin: _Twin, t: Transaction, event: Layout) -> str:
    """Of a refusal, in words."""
    ste = twin.configuration.ste(t.sid)
    if isinstance(event, events.C_BAD_STE) and isinstance(ste, STE):
        return "; ".join(_wrong(ste, twin.smmu.validity.ste_illegal)) if ste.V else "STE.V is 0"
    if isinstance(event, events.C_BAD_CD) and isinstance(ste, STE):
        cd = twin.configuration.cd(ste, t.sid, t.ssid or 0)
        if isinstance(cd, CD):
            return "; ".join(_wrong(cd, lambda each: twin.smmu.validity.cd_illegal(ste, each))) if cd.V else "CD.V is 0"
    if isinstance(event, events.C_BAD_SUBSTREAMID) and isinstance(ste, STE):
        bits = ste.S1CDMax if ste.Config & 1 and twin.smmu.validity.idr1.SSIDSIZE else 0
        if t.ssid is not None and (t.ssid >> bits or not bits):
            return f"the stream has {f'2^{bits} substreams' if bits else 'no substreams'}: STE.S1CDMax is {ste.S1CDMax}"
        return "the first level of the CD table has no valid descriptor here"
    return (type(event).__doc__ or type(event).__name__).strip().splitlines()[0]


def _permissions(twin: _Twin, context: Context, iova: int, access: Access, found: Output | Fault) -> Iterator[Step]:
    """What each stage's leaf permits, as far as one was found."""
    kind = "write" if access.write else "execute" if access.instruction else "read"
    asked = f"{'privileged' if access.privileged else 'user'} {kind}"
    refused = found.stage if isinstance(found, Fault) and found.kind is FaultKind.PERMISSION else 0
    if isinstance(found, Output):
        first, second = found.stage1, found.stage2
    else:
        first = next((leaf for _, leaf in twin.smmu.tlb), None)
        at = iova if context.stage1 is None else found.ipa if found.stage == 2 else None
        inside = (
            leaf for _, leaf in twin.smmu.tlb2 if at is not None and leaf.base <= at < leaf.base + (1 << leaf.shift)
        )
        second = next(inside, None)
    for stage, leaf, text in ((1, first, access1), (2, second, access2)):
        if leaf is None or (isinstance(found, Fault) and found.stage == stage and not refused):
            continue
        said = "refused" if refused == stage else "permitted"
        yield Step(f"stage {stage} permission", None, f"{text(leaf)}; {leaf.memory.text}; {asked}: {said}")
