# SPDX-License-Identifier: Apache-2.0
"""An SMMUv2 as it can be asked of: what is taken of it, and a twin of that which translates without consequences.

Law: the twin is the model itself, over the same registers, with caches of its own and memory that nothing changes; so
an explanation is what the model would do, told by the way. Nothing here decides anything a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...layout import Layout, Register
from ..context import Context, HalfContext
from ..inspection import (
    AddressSpace,
    End,
    Explanation,
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
from ..seams import DESCRIPTOR
from ..stages import Output
from ..transaction import Answer, Transaction
from ..twin import NoQueues, Twin, explanation, not_zero, stalls_said, taken
from ..walk import Fault, LongTable
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

_RECORDS = {ContextFault.size // 8: ContextFault, GlobalFault.size // 8: GlobalFault}
_NO_INVALIDATION = "no TLB invalidation has named it since"


def state_of(smmu: Smmu, *, caches: bool) -> State:
    """What ``smmu`` holds now; its lock is taken."""
    with smmu.lock:
        configuration = smmu.configuration
        return taken(
            smmu,
            "smmuv2",
            {**smmu.registers.held(), "stall": int(smmu.may_stall)},
            smmu.faults.stalled(),
            smmu.faults.now(),
            {"tlb": smmu.tlb, "tlb2": smmu.tlb2},
            caches=caches,
            configuration_hits=configuration.hits,
            configuration_misses=configuration.misses,
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
            stage2 = replace(stage2, table=self._twin.observed(stage2.table))
        return replace(found, context=replace(context, stage1=stage1, stage2=stage2))

    def _told(self, half: HalfContext | None) -> HalfContext | None:
        return half and replace(half, table=self._twin.observed(half.table))


class _Twin(Twin):
    """An SMMU over its memory, whose contexts tell of what their walks read."""

    def __init__(self, state: State, reader: Reader, *, caches: bool = False) -> None:
        super().__init__(state, reader)
        self.smmu = smmu = Smmu(
            self, id_registers=self.ids(IDS), stall=bool(state.registers.get("stall")), name=state.name,
            tlb_entries=state.tlb_capacity, pure=True,
        )  # fmt: skip
        smmu.registers.restore(state.registers)
        self.configuration = _Configuration(self)
        self.transactions = Transactions(
            self.configuration, smmu.stages, smmu.faults, smmu.counters, smmu.watch, smmu.seams
        )
        if caches:
            self.cache(smmu.tlb, smmu.tlb2)


class Inspected(NoQueues):
    """An SMMUv2's ``Inspection``."""

    RECORDS = _RECORDS

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
        return (*said, *stalls_said(self.state))

    def _fsr(self, bank: int) -> str:
        return self._registers[CB_FSR, bank].text()

    def registers(self) -> tuple[Layout, ...]:
        return not_zero(self._registers, BY_NAME)

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

    # -- explanations ----------------------------------------------------------------------------------------

    def explain(self, transaction: Transaction) -> Explanation:
        twin = _Twin(self.state, self._reader)
        steps = list(self._mapping(transaction.sid))
        end, found = _end(twin, transaction)
        differs: list[str] = []
        cached = None
        if self.state.translations:
            cached, kept = _end(_Twin(self.state, self._reader, caches=True), transaction)
            differs = list(leaves_differ(found, kept, _NO_INVALIDATION))
        return explanation(transaction, twin, steps, end, cached, differs, causes_of)

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
