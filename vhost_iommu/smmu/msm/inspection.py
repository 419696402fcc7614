# SPDX-License-Identifier: Apache-2.0
"""An MSM IOMMU as it can be asked of: what is taken of it, and a twin of that which translates without consequences.

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
    fault_text,
    leaves_differ,
    runs,
)
from ..stages import Output
from ..transaction import Transaction
from ..twin import NoQueues, Twin, explanation, not_zero, stalls_said, taken
from ..walk import Access, Fault
from ..walk_short import ShortTable
from .causes import causes_of
from .configuration import Found, Refusal
from .instance import MsmIommu
from .records import ContextFault, GlobalError
from .registers import ACTLR, BY_NAME, CBACR_N, CR, ESR, FSR, IDR, M2VCBR_N, SCTLR, TTBCR, TTBR0, TTBR1

IDS = ("IDR", "REV")
_RECORDS = {ContextFault.size // 8: ContextFault, GlobalError.size // 8: GlobalError}
_NO_INVALIDATION = "no TLB invalidation has named it since"


def state_of(iommu: MsmIommu, *, caches: bool) -> State:
    """What ``iommu`` holds now; its lock is taken."""
    with iommu.lock:
        faults = iommu.faults
        return taken(
            iommu, "msm", iommu.registers.held(), faults.stalled(), faults.now(), {"tlb": iommu.tlb}, caches=caches
        )


class _Twin(Twin):
    """An IOMMU over its memory."""

    def __init__(self, state: State, reader: Reader, *, caches: bool = False) -> None:
        super().__init__(state, reader)
        self.iommu = MsmIommu(self, id_registers=self.ids(IDS), name=state.name)
        self.iommu.registers.restore(state.registers)
        if caches:
            self.cache(self.iommu.tlb)

    def found(self, mid: int) -> Found | Refusal | None:
        return self.iommu.configuration.lookup(mid)

    def walks(self, context: Context, t: Transaction) -> Output | Fault:
        """What the context's stages say of ``t``, each descriptor that they read a step."""
        stage1 = context.stage1
        if stage1 is not None:
            low, high = (half and replace(half, table=self.observed(half.table)) for half in stage1.halves)
            context = replace(context, stage1=replace(stage1, halves=(low, high)))
        privileged = t.privileged if context.privileged is None else context.privileged
        return self.iommu.stages.translate(context, t.iova, Access(t.write, privileged, t.instruction and not t.write))


class Inspected(NoQueues):
    """An MSM IOMMU's ``Inspection``."""

    RECORDS = _RECORDS

    def __init__(self, state: State, reader: Reader) -> None:
        self.state = state
        self._reader = reader
        self._twin = _Twin(state, reader)
        self._registers = self._twin.iommu.registers

    # -- the instance ----------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        return not self._registers[CR].CLIENTPD

    def said(self) -> tuple[str, ...]:
        registers = self._registers
        if not self.enabled:
            return ("is off: every transaction passes as it is (CR.CLIENTPD)",)
        contexts = registers[IDR].NCB
        on = sum(bool(registers[SCTLR, number].M) for number in range(contexts))
        said = [f"translates; {on} of {contexts} contexts are enabled"]
        if registers.raw(ESR):
            said.append(f"an error that software has not cleared: {registers[ESR].text()}")
        for number in range(contexts):
            if registers.raw(FSR, number):
                fault = registers[FSR, number].text()
                said.append(f"context {number} has a fault that software has not cleared: {fault}")
        return (*said, *stalls_said(self.state))

    def registers(self) -> tuple[Layout, ...]:
        return not_zero(self._registers, BY_NAME)

    # -- streams: machine ids --------------------------------------------------------------------------------

    def streams(self, first: int, limit: int) -> Streams:
        """Machine ids that a driver has written something for."""
        registers = self._registers
        found: list[Stream] = []
        for mid in range(first, registers[IDR].NM2VCBMT if self.enabled else 0):
            if registers.raw(M2VCBR_N, mid):
                if len(found) >= limit:
                    return Streams(tuple(found), mid)
                found.append(self._stream(mid))
        return Streams(tuple(found), None)

    def _stream(self, mid: int) -> Stream:
        of = self._registers[M2VCBR_N, mid]
        found = self._twin.found(mid)
        at = M2VCBR_N.at + 4 * mid
        if isinstance(found, Refusal):
            return Stream(mid, at, of, f"context {of.CBNDX}", (f"cannot be used: {ESR(found.status).text()}",))
        if found is None:
            return Stream(mid, at, of, f"context {of.CBNDX}, which is off: passes as it is")
        stage1 = found.context.stage1
        assert stage1 is not None
        return Stream(mid, at, of, f"context {found.number}, ASID {stage1.asid:#x}, VMID {found.context.vmid:#x}")

    # -- tables ----------------------------------------------------------------------------------------------

    def context(self, sid: int, ssid: int | None) -> Context | None:
        found = self._twin.found(sid)
        return found.context if isinstance(found, Found) else None

    def spaces(self, sid: int, ssid: int | None) -> tuple[AddressSpace, ...]:
        context = self.context(sid, ssid)
        if context is None or context.stage1 is None:
            return ()
        found = []
        lower = context.stage1.sizes32[0]
        for number, half in enumerate(context.stage1.halves):
            # Without TTBCR.N all addresses are the lower table's.
            if isinstance(half, HalfContext) and isinstance(half.table, ShortTable) and (lower or not number):
                start = 1 << 32 - lower if number else 0
                size = (1 << 32) - start if number else 1 << half.table.input_bits
                tags = f"ASID {context.stage1.asid:#x}, VMID {context.vmid:#x}"
                found.append(AddressSpace(sid, ssid, 1, number, half.table.base, start, size, tags))
        return tuple(found)

    def tables(self, space: AddressSpace, first: int, limit: int) -> Runs:
        context = self.context(space.sid, space.ssid)
        half = None if context is None or context.stage1 is None else context.stage1.halves[space.half]
        if half is None:
            return Runs((), None)
        return runs(half.table, self._reader.read, access1, 0, max(first, space.start), limit)

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

    def _mapping(self, mid: int) -> Iterator[Step]:
        """How the machine id is mapped, register by register."""
        registers = self._registers
        if not self.enabled:
            yield Step("CR", None, "CLIENTPD is 1: transactions pass as they are", registers[CR])
            return
        if mid >= registers[IDR].NM2VCBMT:
            yield Step("IDR", None, f"there is no machine id {mid}", registers[IDR])
            return
        of = registers[M2VCBR_N, mid]
        yield Step(f"M2VCBR_N[{mid}]", None, of.text(), of)
        kinds: tuple[type[Register], ...] = (CBACR_N, SCTLR, ACTLR, TTBCR, TTBR0, TTBR1)
        for register in kinds if of.CBNDX < registers[IDR].NCB else ():
            value: Register = registers[register, of.CBNDX]
            if value.raw:
                yield Step(f"{register.__name__}[{of.CBNDX}]", None, value.text(), value)


def _end(twin: _Twin, t: Transaction) -> tuple[End, Output | Fault | None]:
    """What becomes of ``t``, and what its walk said."""
    found = twin.found(t.sid)
    output = twin.walks(found.context, t) if isinstance(found, Found) else None
    answer = twin.iommu.translate(t)
    event = answer.events[0] if answer.events else answer.stall.event if answer.stall is not None else None
    pa = answer.pieces[0].pa if answer.pieces else None
    memory = answer.memory[0].text if answer.memory else ""
    if isinstance(found, Refusal):
        return End(answer.outcome.value, ESR(found.status).text(), event=event, recorded=True), None
    if found is None and event is None:
        return End(answer.outcome.value, "passes untranslated", pa, memory), None
    if event is None and not answer.pieces:
        return End(answer.outcome.value, "a fault that its context has recorded before is in its way"), output
    if event is None:
        return End("ok", "translated", pa, memory), output
    text = fault_text(output) if isinstance(output, Fault) else "a later page faults"
    return End(answer.outcome.value, text, pa, memory, event, not event.values()["MULTI"]), output
