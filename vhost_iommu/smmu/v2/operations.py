# SPDX-License-Identifier: Apache-2.0
"""Address translation operations of context banks: what software asks of stage 1 by a store, into PAR (IHI 0062D §4.2).

Law: an operation has ended when its store has, so that none is ever active. It records nothing in its own bank; what
stage 2 does not let it read is recorded there, and terminates it. Not modelled: that such an operation stalls.
"""

from __future__ import annotations

from collections.abc import Callable

from ...layout import Register
from ...register_file import RegisterFile, on_store
from ...sealed import Sealed
from ..memory_type import WB, WT, MemoryType
from ..stages import Output, Stages
from ..transaction import Answer, Transaction
from ..walk import Access, Cause, Fault, FaultKind, Mapping
from .configuration import Banks, Configuration, Refusal
from .faults import STATUS, Faults
from .registers import (
    CB_ATS1PR,
    CB_ATS1PW,
    CB_ATS1UR,
    CB_ATS1UW,
    CB_MAIR0,
    CB_MAIR1,
    CB_PAR,
    CB_SCTLR,
    CBA2R,
    CBAR,
    S2CR,
    BankType,
)

_SUPERSECTION = 24


class Operations(Sealed):
    """The operations of one SMMU."""

    def __init__(
        self,
        registers: RegisterFile,
        configuration: Configuration,
        stages: Stages,
        faults: Faults,
        level: Callable[[Banks, Fault], int],
    ) -> None:
        """``level``: FSYNR0.PLVL of a fault, which PAR has too."""
        self.registers = registers
        self.configuration = configuration
        self.stages = stages
        self.faults = faults
        self._level = level

    @on_store(CB_ATS1PR, CB_ATS1PW, CB_ATS1UR, CB_ATS1UW)
    def _stored(self, bank: int, old: Register, new: Register) -> None:
        if self.registers[CBAR, bank].TYPE != BankType.S2:
            access = Access(
                write=isinstance(new, CB_ATS1PW | CB_ATS1UW), privileged=isinstance(new, CB_ATS1PR | CB_ATS1PW)
            )
            self.registers[CB_PAR, bank] = self._par(bank, new.values()["ADDR"], access)

    def _par(self, bank: int, address: int, access: Access) -> int:
        banks = self.configuration.bank(bank, S2CR())
        if isinstance(banks, Refusal):
            self.faults.refuse_operation(banks)
            return _failed(ATOT=1)
        bus = self.configuration.bus
        if (bus < 64 and address >> bus and address >> 48 != 0xFFFF) or (not banks.aarch64 and address >> 32):
            return self._fault(banks, STATUS[FaultKind.TRANSLATION], Fault(FaultKind.TRANSLATION))
        second = banks.second
        if second is not None and self.configuration.fault_set(second) and not self.registers[CB_SCTLR, second].HUPCF:
            return _failed(ATOT=1)
        found = self.stages.translate(banks.context, address, access)
        if isinstance(found, Output):
            ipa = address if found.stage1 is None else found.stage1.translate(address)
            return self._found(banks, address, ipa, found.stage1)
        if found.stage == 2 and found.cause is Cause.IN:
            # Stage 1 has given an address, and no more was asked for.
            leaf = None if banks.context.stage1 is None else self._cached(banks, address)
            return self._found(banks, address, found.ipa, leaf)
        if second is not None and (found.stage == 2 or found.kind is FaultKind.WALK_EABT):
            t = Transaction(0, address, write=access.write, privileged=access.privileged)
            self.faults.operation_fault(banks, second, t, access, found, self._level(banks, found), Answer())
            return _failed(ATOT=1)
        return self._fault(banks, STATUS[found.kind], found)

    def _fault(self, banks: Banks, status: int, fault: Fault) -> int:
        return _failed(PLVL=self._level(banks, fault), FORMAT=self.faults.format(banks.first)) | status

    def _cached(self, banks: Banks, address: int) -> Mapping | None:
        """The leaf of stage 1 that the translation has just used."""
        context = banks.context
        return next(
            (
                leaf
                for space, leaf in self.stages.tlb
                if (space.world, space.vmid) == (context.world, context.vmid)
                and leaf.base <= address < leaf.base + (1 << leaf.shift)
            ),
            None,
        )

    def _found(self, banks: Banks, address: int, output: int, leaf: Mapping | None) -> int:
        bank = banks.first
        memory = MemoryType(WB, WB) if leaf is None else leaf.memory
        cbar = self.registers[CBAR, bank]
        hypervisor = cbar.TYPE == BankType.S1_S2_BYPASS and bool(cbar.HYPC)
        if not self.configuration.long(bank, hypervisor, bool(self.registers[CBA2R, bank].VA64)):
            return _short(output, leaf, memory)
        if leaf is None:
            attributes = _mair(memory)
        else:
            mair = self.registers.raw(CB_MAIR0, bank) | self.registers.raw(CB_MAIR1, bank) << 32
            attributes = mair >> 8 * leaf.attributes & 0xFF
        return CB_PAR.of(RES1=1, SH=memory.shareability, PA=output & (1 << 48) - 4096, ATTR=attributes).raw


def _failed(**values: int) -> int:
    return CB_PAR.of(F=1, **values).raw


def _mair(memory: MemoryType) -> int:
    """A byte of MAIR."""
    nibble = {WT: 0b1011, WB: 0b1111}
    return nibble.get(memory.outer, 0b0100) << 4 | nibble.get(memory.inner, 0b0100)


def _short(output: int, leaf: Mapping | None, memory: MemoryType) -> int:
    """PAR of short descriptors (§16.5.14); allocation hints are not modelled, and are Write-Allocate."""
    if memory.is_device:
        inner, outer = (0b011 if memory.inner else 0b001), 0
    else:
        inner = {WB: 0b101, WT: 0b110}.get(memory.inner, 0b000)
        outer = {WB: 0b10, WT: 0b01}.get(memory.outer, 0b11)
    shared = memory.shareability != 0
    par = inner << 4 | outer << 2 | shared << 7 | (memory.shareability == 3) << 10
    if leaf is not None and leaf.shift == _SUPERSECTION:
        return par | 1 << 1 | output & 0xFF00_0000 | (output >> 32 & 0xFF) << 16
    return par | output & 0xFFFF_F000
