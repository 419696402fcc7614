# SPDX-License-Identifier: Apache-2.0
"""An SMMUv2 as it can be asked of: what is taken of it, and a twin of that which translates without consequences.

Law: the twin is the model itself, over the same registers, with caches of its own and memory that nothing changes; so
an explanation is what the model would do, told by the way. Nothing here decides anything a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ...errors import UsageError
from ...layout import Layout, Register
from ...memory import Ended
from .. import descriptors, descriptors_short
from ..context import Context, HalfContext
from ..inspection import (
    AddressSpace,
    CachedStructure,
    CachedTranslation,
    DescriptorRead,
    End,
    Entry,
    Explanation,
    Queue,
    Reader,
    Runs,
    Stalled,
    State,
    Step,
    Stream,
    Streams,
    access1,
    access2,
    fault_text,
    leaves_differ,
    observed,
    runs,
)
from ..seams import DESCRIPTOR
from ..stages import Output
from ..transaction import Answer, Transaction
from ..walk import Fault, LongTable, Table
from ..walk_short import ShortTable
from .causes import causes_of
from .configuration import Banks, Bypass, Configuration, Found, Refusal
from .instance import Smmu
from .records import CONTEXT_KINDS, ContextFault, GlobalFault
from .registers import (
    BY_NAME,
    CB_FSR,
    CB_SCTLR,
    CB_TTBR0,
    CB_TTBR1,
    CBAR,
    CR0,
    GFSR,
    IDR0,
    S2CR,
    SMR,
    StreamType,
)
from .transactions import Transactions

#: Registers of which an SMMU is made.
IDS = ("IDR0", "IDR1", "IDR2", "IDR7")
#: What an instance is counted by.
COUNTED = (
    "transactions", "translations", "walks", "faults", "stalls", "commands", "command_errors", "syncs",
    "page_requests", "events", "events_lost", "interrupts", "mmio_reads", "mmio_writes",
)  # fmt: skip

_RECORDS = {ContextFault.size // 8: ContextFault, GlobalFault.size // 8: GlobalFault}
_NO_INVALIDATION = "no TLB invalidation has named it since"


def state_of(smmu: Smmu, *, caches: bool) -> State:
    """What ``smmu`` holds now; its lock is taken."""
    with smmu.lock:
        counters, now = smmu.counters, smmu.faults.now()
        counts = {name: getattr(counters, name) for name in COUNTED}
        tlb, tlb2 = smmu.tlb.counters, smmu.tlb2.counters
        counts.update(
            tlb_hits=tlb.hits, tlb_misses=tlb.misses, tlb_entries=len(smmu.tlb),
            tlb2_hits=tlb2.hits, tlb2_misses=tlb2.misses, tlb2_entries=len(smmu.tlb2),
            configuration_hits=smmu.configuration.hits, configuration_misses=smmu.configuration.misses,
        )  # fmt: skip
        return State(
            smmu.name,
            "smmuv2",
            {**smmu.registers.held(), "stall": int(smmu.may_stall)},
            counts,
            counters.commands_by_kind,
            counters.events_by_kind,
            tuple(record.words() for record in counters.first_events),
            tuple(
                Stalled(t.sid, t.ssid, t.iova, t.write, now - each.since, each.waits)
                for each in smmu.faults.stalled()
                for t in (each.transaction,)
            ),
            smmu.tlb.capacity,
            False,
            (),
            tuple(
                CachedTranslation(stage, space, leaf)
                for stage, of in ((1, smmu.tlb), (2, smmu.tlb2))
                for space, leaf in (of if caches else ())
            ),
        )


class _Configuration(Configuration):
    """One whose tables tell of the descriptors that are read."""

    def __init__(self, twin: _Twin) -> None:
        super().__init__(twin.smmu.registers)
        self._twin = twin

    def lookup(self, sid: int) -> Found:
        found = self._lookup(sid)
        if not isinstance(found, Banks):
            return found
        context = found.context
        stage1, stage2 = context.stage1, context.stage2
        if stage1 is not None:
            low, high = (self._told(half) for half in stage1.halves)
            stage1 = replace(stage1, halves=(low, high))
        if stage2 is not None:
            stage2 = replace(stage2, table=observed(stage2.table, self._twin.note(stage2.table)))
        return replace(found, context=replace(context, stage1=stage1, stage2=stage2))

    def _told(self, half: HalfContext | None) -> HalfContext | None:
        return half and replace(half, table=observed(half.table, self._twin.note(half.table)))


class _Twin:
    """An SMMU of the same registers; ``steps`` is what its translations came by."""

    def __init__(self, state: State, reader: Reader, *, caches: bool = False) -> None:
        self.steps: list[Step] = []
        self.missing: list[int] = []
        self._reader = reader
        self._at = 0
        ids = {name: state.registers[name] for name in IDS if name in state.registers}
        self.smmu = smmu = Smmu(
            self, id_registers=ids, stall=bool(state.registers.get("stall")), name=state.name,
            tlb_entries=state.tlb_capacity, pure=True,
        )  # fmt: skip
        smmu.registers.restore(state.registers)
        self.configuration = _Configuration(self)
        self.transactions = Transactions(
            self.configuration, smmu.stages, smmu.faults, smmu.counters, smmu.watch, smmu.seams
        )
        for entry in state.translations if caches else ():
            tlb = smmu.tlb if entry.stage == 1 else smmu.tlb2
            tlb.insert(entry.space, entry.leaf)  # type: ignore[attr-defined]

    # -- its memory ------------------------------------------------------------------------------------------

    def read(self, pa: int, size: int) -> bytes | None:
        data = self._reader.read(pa, size)
        self._at = pa
        if data is None and self._reader.lacks(pa):
            self.missing.append(pa & ~0xFFF)
        return data

    def write(self, pa: int, data: bytes) -> bool:
        return True

    def compare_and_swap_u64(self, pa: int, expected: int, new: int) -> bool | None:
        return True

    def post(self, pa: int, data: bytes, ended: Ended) -> None:
        ended(False)

    def note(self, table: Table) -> Callable[[DescriptorRead], None]:
        def noted(read: DescriptorRead) -> None:
            self._walked(table, read)

        return noted

    def _walked(self, table: Table, read: DescriptorRead) -> None:
        at = self._at if read.raw is not None else None
        via = f", read at IPA {read.address:#x}" if at is not None and at != read.address else ""
        what = f"stage {read.stage} level {read.level}"
        if read.fault is not None:
            self.steps.append(Step(what, None, f"not read: {fault_text(read.fault)}"))
        elif read.raw is None:
            self.steps.append(Step(what, self._at, f"nothing answers here{via}"))
        else:
            value = (
                descriptors.decode(read.raw, read.stage, read.level, table.granule_bits, False)
                if isinstance(table, LongTable)
                else descriptors_short.decode(read.raw, read.level)
            )
            self.steps.append(Step(what, at, f"{value.text()}{via}", value))


class Inspected:
    """An SMMUv2's ``Inspection``."""

    def __init__(self, state: State, reader: Reader) -> None:
        self.state = state
        self._reader = reader
        self._twin = _Twin(state, reader)
        self._smmu = self._twin.smmu
        self._registers = self._smmu.registers

    # -- the instance ----------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        return not self._registers[CR0].CLIENTPD

    def said(self) -> tuple[str, ...]:
        registers, configuration = self._registers, self._smmu.configuration
        cr0 = registers[CR0]
        if cr0.CLIENTPD:
            said = ["is off: every transaction passes as it is (CR0.CLIENTPD)"]
        else:
            unknown = "fault" if cr0.USFCFG else "pass as they are"
            on = sum(bool(registers[CB_SCTLR, bank].M) for bank in range(configuration.banks))
            said = [
                f"translates; {on} of {configuration.banks} context banks are enabled; "
                f"streams that match no group {unknown}"
            ]
        status = registers[GFSR]
        if status.raw:
            said.append(f"a global fault that software has not cleared: {status.text()}")
        for bank in range(configuration.banks):
            if configuration.fault_set(bank):
                said.append(f"context bank {bank} has a fault that software has not cleared: {self._fsr(bank)}")
        if self.state.stalls:
            longest = max(each.seconds for each in self.state.stalls)
            said.append(f"{len(self.state.stalls)} transactions stalled, the longest for {longest:.1f} s")
        return tuple(said)

    def _fsr(self, bank: int) -> str:
        return self._registers[CB_FSR, bank].text()

    def registers(self) -> tuple[Layout, ...]:
        found = []
        for name, value in self._registers.held().items():
            register = BY_NAME.get(name.partition("[")[0])
            if value and register is not None:
                found.append(register(value))
        return tuple(found)

    # -- queues: it has none -------------------------------------------------------------------------------------

    def queues(self) -> tuple[Queue, ...]:
        return ()

    def entries(self, queue: str, limit: int) -> tuple[Entry, ...]:
        raise UsageError(f"there is no queue {queue!r:.40}: an SMMUv2 has none")

    # -- streams ---------------------------------------------------------------------------------------------

    def streams(self, first: int, limit: int) -> Streams:
        """Groups that are searched, by the least StreamID that matches each."""
        found: list[Stream] = []
        groups = sorted((sid, group) for group in range(self._smmu.configuration.groups) for sid in self._least(group))
        for sid, group in groups if self.enabled else ():
            if sid >= first:
                if len(found) >= limit:
                    return Streams(tuple(found), sid)
                found.append(self._stream(sid, group))
        return Streams(tuple(found), None)

    def _least(self, group: int) -> Iterator[int]:
        registers = self._registers
        if not registers[IDR0].SMS:
            if registers.raw(S2CR, group):
                yield group
            return
        smr = registers[SMR, group]
        if registers[CR0].EXIDENABLE:
            if registers[S2CR, group].EXIDVALID:
                yield smr.EXID & ~smr.EXMASK
        elif smr.VALID:
            yield smr.ID & ~smr.MASK

    def _stream(self, sid: int, group: int) -> Stream:
        registers = self._registers
        s2cr = registers[S2CR, group]
        at = self._smmu.registers.offset(S2CR, group)
        wrong: tuple[str, ...] = ()
        if s2cr.TYPE == StreamType.BYPASS:
            does = "bypasses translation"
        elif s2cr.TYPE != StreamType.TRANSLATE:
            does = "faults"
        else:
            found = self._smmu.configuration.lookup(sid)
            if isinstance(found, Banks):
                does = self._does(found)
            else:
                does = f"context bank {s2cr.CBNDX}"
                if isinstance(found, Refusal):
                    wrong = (f"cannot be used: {GFSR(found.status).text()}",)
        smr = registers[SMR, group]
        mask = 0 if not registers[IDR0].SMS else smr.EXMASK if registers[CR0].EXIDENABLE else smr.MASK
        if mask:
            does += f"; of StreamIDs that differ in {mask:#x}"
        return Stream(sid, at, s2cr, f"group {group}: {does}", wrong)

    def _does(self, banks: Banks) -> str:
        context = banks.context
        first = f"context bank {banks.first}"
        if banks.stage2_first:
            return f"{first}, stage 2, VMID {context.vmid:#x}" if context.stage2 else f"{first}, stage 2, disabled"
        if context.stage1 is None:
            said = f"{first}, stage 1, disabled"
        else:
            said = f"{first}, stage 1, ASID {context.stage1.asid:#x}, VMID {context.vmid:#x}"
        return said if banks.second is None else f"{said}, and bank {banks.second}, stage 2"

    def substreams(self, sid: int, first: int, limit: int) -> Streams:
        return Streams((), None)

    # -- tables ----------------------------------------------------------------------------------------------

    def context(self, sid: int, ssid: int | None) -> Context | None:
        found = self._smmu.configuration.lookup(sid)
        return None if isinstance(found, Refusal) else found.context

    def spaces(self, sid: int, ssid: int | None) -> tuple[AddressSpace, ...]:
        context = self.context(sid, ssid) if self.enabled else None
        if context is None:
            return ()
        found = []
        if context.stage1 is not None:
            for number, half in enumerate(context.stage1.halves):
                if half is not None and isinstance(half.table, LongTable | ShortTable):
                    size = 1 << half.table.input_bits
                    top = 1 << (32 if context.stage1.aarch32 else 64)
                    tags = f"ASID {context.stage1.asid:#x}, VMID {context.vmid:#x}"
                    found.append(
                        AddressSpace(sid, ssid, 1, number, half.table.base, top - size if number else 0, size, tags)
                    )
        if context.stage2 is not None and isinstance(context.stage2.table, LongTable | ShortTable):
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
        if not isinstance(table, LongTable | ShortTable):
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
        return tuple(_RECORDS[len(words)].from_words(words) for words in self.state.reports if len(words) in _RECORDS)

    def structures(self) -> tuple[tuple[CachedStructure, Layout], ...]:
        return ()

    # -- explanations ----------------------------------------------------------------------------------------

    def explain(self, transaction: Transaction) -> Explanation:
        twin = _Twin(self.state, self._reader)
        steps = list(self._mapping(transaction.sid))
        end, found = _end(twin, transaction)
        steps += twin.steps
        differs: list[str] = []
        cached = None
        if self.state.translations:
            cached, kept = _end(_Twin(self.state, self._reader, caches=True), transaction)
            differs = list(leaves_differ(found, kept, _NO_INVALIDATION))
        causes = causes_of(end.event) if end.event is not None else ()
        return Explanation(
            transaction,
            tuple(steps),
            end,
            causes,
            tuple(differs),
            cached if cached is not None and _comes_to(cached) != _comes_to(end) else None,
            tuple(dict.fromkeys(twin.missing)),
        )

    def _mapping(self, sid: int) -> Iterator[Step]:
        """How the stream is mapped, register by register."""
        registers, configuration = self._registers, self._smmu.configuration
        if registers[CR0].CLIENTPD:
            yield Step("CR0", None, "CLIENTPD is 1: transactions pass as they are", registers[CR0])
            return
        groups = configuration.matches(sid)
        if len(groups) != 1:
            yield Step("CR0", None, f"{len(groups)} groups match StreamID {sid:#x}", registers[CR0])
            return
        for register in (SMR, S2CR) if registers[IDR0].SMS else (S2CR,):
            value = registers[register, groups[0]]
            yield Step(f"{register.__name__}[{groups[0]}]", None, value.text(), value)
        found = configuration.lookup(sid)
        for bank in dict.fromkeys((found.first, found.last)) if isinstance(found, Banks) else ():
            for of in (CBAR, CB_SCTLR, CB_TTBR0, CB_TTBR1):
                setting: Register = registers[of, bank]
                if setting.raw:
                    yield Step(f"{of.__name__}[{bank}]", None, setting.text(), setting)


def _comes_to(end: End) -> tuple[object, ...]:
    return end.outcome, end.pa, type(end.event)


def _end(twin: _Twin, t: Transaction) -> tuple[End, Output | Fault | None]:
    """What becomes of ``t``, and what its stages said."""
    answer: Answer = twin.transactions.translate(t)
    found = twin.configuration.lookup(t.sid)
    event = answer.events[0] if answer.events else answer.stall.event if answer.stall is not None else None
    pa = answer.pieces[0].pa if answer.pieces else None
    memory = answer.memory[0].text if answer.memory else ""
    steps = list(twin.steps)
    try:
        if isinstance(found, Refusal):
            return End(answer.outcome.value, GFSR(found.status).text(), event=event, recorded=True), None
        if isinstance(found, Bypass):
            return End(answer.outcome.value, "bypasses translation", pa, memory), None
        output = twin.smmu.stages.translate(found.context, t.iova, twin.transactions.access(found.context, t))
    finally:
        twin.steps[:] = steps
    if event is None and not answer.pieces:
        return End(answer.outcome.value, "a fault that its context bank has recorded before is in its way"), output
    if event is None:
        return End("ok", "translated", pa, memory), output
    text = fault_text(output) if isinstance(output, Fault) else "a later page faults"
    if isinstance(event, ContextFault) and not isinstance(output, Fault) and not answer.pieces:
        text = ", ".join(name for name in CONTEXT_KINDS if event.values()[name])
    recorded = isinstance(event, GlobalFault) or not event.values()["MULTI"]
    return End(answer.outcome.value, text, pa, memory, event, recorded), output
