# SPDX-License-Identifier: Apache-2.0
"""What becomes of a transaction: its stream's mapping, its banks, its pages, and how a fault ends it (IHI 0062D §2.1).

Law: a fault is a value until it is recorded; whoever calls holds the instance's lock.
"""

from __future__ import annotations

from ...sealed import Sealed, declared
from ...watch import Watch
from ..context import Context
from ..counters import StoreCounters
from ..memory_type import combine, override
from ..seams import Seams
from ..stages import Stages
from ..transaction import NO_MPAM, Answer, Begun, Piece, Transaction
from ..walk import Access, Fault, FaultKind
from .configuration import Banks, Bypass, Configuration, Refusal
from .faults import Faults
from .registers import CB_FSR, CB_SCTLR, GFSR

_ALL = 2**64 - 1


@declared
class Transactions(Sealed):
    """The bus side of one SMMU."""

    def __init__(
        self,
        configuration: Configuration,
        stages: Stages,
        faults: Faults,
        counters: StoreCounters,
        watch: Watch,
        seams: Seams,
    ) -> None:
        self.configuration = configuration
        self.stages = stages
        self.faults = faults
        self.counters = counters
        self.watch = watch
        self._seams = seams

    def translate(self, t: Transaction, begun: Begun | None = None) -> Answer:
        """Translate page by page up to the first fault, and record what is to be recorded.

        ``begun``: it is the rest of what the core began.
        """
        if self.watch.on:
            self.watch.of_stream(t.sid, t.ssid)
        answer = Answer()
        if begun is None or not begun.counted:
            self.counters.transactions_made += 1
        found = self.configuration.lookup(t.sid)
        if begun is not None:
            self.configuration.publish(t.sid, t.ssid, found)
        if isinstance(found, Refusal):
            self.faults.refuse(t, found, answer)
        elif isinstance(found, Bypass):
            self._pass(found.context, t, answer)
        elif not self.faults.in_the_way(found, t, answer):
            self._through(found, t, begun, answer)
        if self.watch.on:
            pa = answer.pieces[0].pa if answer.pieces else None
            self.watch.translated(t.sid, t.ssid, t.iova, t.size, pa, answer.outcome.value, NO_MPAM, write=t.write)
        return answer

    def unsupported(self, t: Transaction) -> Answer:
        """A transaction of a type that is not supported (§3.7.2): of the stream's bank, if it has one."""
        answer = Answer()
        self.counters.transactions_made += 1
        found = self.configuration.lookup(t.sid)
        if isinstance(found, Refusal):
            self.faults.refuse(t, found, answer)
        elif isinstance(found, Bypass):
            self.faults.refuse(t, Refusal(GFSR.UUT.mask), answer)
        elif not self.faults.in_the_way(found, t, answer):
            self._unsupported(found, t, answer)
        return answer

    def _pass(self, context: Context, t: Transaction, answer: Answer) -> None:
        """What bypasses is truncated to the physical addresses (§1.6.2)."""
        replaced, memattr, shcfg = context.overrides
        memory = override(t.memory, replace_type=replaced, memattr=memattr, shcfg=shcfg)
        at, left = t.iova & (1 << context.output_bits) - 1, t.size
        while left:
            here = min(left, (1 << context.output_bits) - at)
            answer.pieces.append(Piece(at, here))
            answer.memory.append(memory)
            at, left = 0, left - here

    def _through(self, banks: Banks, t: Transaction, begun: Begun | None, answer: Answer) -> None:
        access = self.access(banks.context, t)
        wrong = self._checked(banks, t)
        if isinstance(wrong, Fault):
            self.faults.fault(banks, t, 0, access, wrong, self.level(banks, wrong), answer)
            return
        if wrong is None:
            self._unsupported(banks, t, answer)
            return
        if self._seams.translation is not None and self._seams.translation("TLBMCF", t):
            stage = 2 if banks.stage2_first else 1
            self.faults.fault(banks, t, 0, access, Fault(FaultKind.TLB_CONFLICT, stage=stage, ipa=t.iova), 0, answer)
            return
        begun = begun if wrong == t.iova else None
        found = self.stages.pieces(banks.context, wrong, t.size, access, t.memory, begun)
        answer.pieces, answer.memory = found.pieces, found.memory
        if banks.after is not None:
            answer.memory = [combine(memory, banks.after) for memory in found.memory]
        if found.fault is not None:
            level = self.level(banks, found.fault)
            self.faults.fault(banks, t, found.size, access, found.fault, level, answer)
        elif found.size < t.size:
            self.faults.end(banks.last, answer)  # more pieces than any master's transaction has

    def _checked(self, banks: Banks, t: Transaction) -> int | Fault | None:
        """The address as the bank has it: sign-extended (§1.6.4); None: the bus cannot bring it.

        Or a translation fault of addresses that no table is asked of (§3.7.2, §3.8.4).
        """
        configuration, address = self.configuration, t.iova
        if configuration.bus < 64:
            if configuration.bus == 49 and address >> 48 == 0xFFFF:
                address &= (1 << 49) - 1
            if address >> configuration.bus:
                return None
        if not banks.stage2_first and not banks.aarch64 and address >> 32:
            return Fault(FaultKind.TRANSLATION)
        if banks.stage2_first:
            bits = configuration.ias if banks.aarch64 else min(40, configuration.ias)
            if address >> bits:
                enabled = configuration.registers[CB_SCTLR, banks.first].M
                return Fault(FaultKind.TRANSLATION if enabled else FaultKind.ADDR_SIZE, stage=2)
        if banks.sign is not None:
            above = address >> banks.sign
            if above > 1:
                return Fault(FaultKind.TRANSLATION)
            if above:
                address |= _ALL << banks.sign & _ALL
        return address

    def _unsupported(self, banks: Banks, t: Transaction, answer: Answer) -> None:
        access = self.access(banks.context, t)
        level = 0 if banks.aarch64 else 1
        self.faults.context_fault(banks, banks.first, CB_FSR.UUT.mask, t, 0, access, level, answer)

    @staticmethod
    def access(context: Context, t: Transaction) -> Access:
        """What is asked, after S2CR.PRIVCFG and INSTCFG; a write is always data (§2.4)."""
        privileged = t.privileged if context.privileged is None else context.privileged
        instruction = t.instruction if context.instruction is None else context.instruction
        return Access(t.write, privileged, instruction and not t.write)

    def level(self, banks: Banks, fault: Fault) -> int:
        """FSYNR0.PLVL (§16.5.11, §17.3.1): where no table was asked, 0 of AArch64's stage 1, else 1."""
        if fault.stage == 2:
            stage2 = banks.context.stage2
            if stage2 is None or fault.ipa >> stage2.table.input_bits:
                return 1
            return fault.level if fault.level or stage2.table.start_level == 0 else 1
        return fault.level if banks.aarch64 and not banks.stage2_first else max(fault.level, 1)
