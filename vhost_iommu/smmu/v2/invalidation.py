# SPDX-License-Identifier: Apache-2.0
"""TLB maintenance by registers: what each store invalidates, and the waits for it (IHI 0062D §5.4).

Law: drops what the register names and nothing else, in either TLB. A store of these is what a command is elsewhere: it
is told to those who look on, and the seam 'gate' may have it ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...layout import Register
from ...register_file import RegisterFile, on_store
from ...sealed import Sealed, declared
from ...watch import Watch
from ..counters import StoreCounters
from ..seams import Seams, Verdict
from ..stages import STAGE2_WORLD, Stages
from .configuration import HYPERVISOR, NON_SECURE, Configuration
from .registers import (
    CB_TCR2,
    CB_TLBIALL,
    CB_TLBIASID,
    CB_TLBIIPAS2,
    CB_TLBIIPAS2L,
    CB_TLBIVA,
    CB_TLBIVAA,
    CB_TLBIVAAL,
    CB_TLBIVAL,
    CB_TLBSYNC,
    CBA2R,
    CBAR,
    IDR2,
    TLBGSYNC,
    TLBIALLH,
    TLBIALLNSNH,
    TLBIVAH,
    TLBIVAH64,
    TLBIVALH64,
    TLBIVMID,
    TLBIVMIDS1,
    BankType,
)

#: The smallest page: whatever overlaps it is dropped whole, of any granule.
_PAGE = 4096


@declared
class Invalidation(Sealed):
    """The invalidations of one SMMU."""

    def __init__(
        self,
        registers: RegisterFile,
        configuration: Configuration,
        stages: Stages,
        counters: StoreCounters,
        watch: Watch,
        seams: Seams,
        waited: Callable[[], None],
    ) -> None:
        """``waited`` returns when no request is under way that began before."""
        self.registers = registers
        self.configuration = configuration
        self.stages = stages
        self.counters = counters
        self.watch = watch
        self._seams = seams
        self._waited = waited

    def _gated(self, store: Register, bank: int | None, drop: Callable[[], None]) -> None:
        """Carry ``store`` out, unless somebody has it ignored."""
        name = type(store).__name__
        self.counters.executed[name] += 1
        number = self.watch.begin() if self.watch.on else 0
        verdict = Verdict.EXECUTE if self._seams.gate is None else self._seams.gate(store)
        if verdict is Verdict.EXECUTE:
            drop()
        if self.watch.on:
            self.watch.command(number, store, "" if verdict is Verdict.EXECUTE else "ignored")

    def carry_out(self, store: Register, bank: int = 0) -> None:
        """What a store of ``store`` does, whatever the gate would say."""
        _CARRIED[type(store)](self, store, bank)

    # -- by global space 0 (§9.6) ----------------------------------------------------------------------------

    @on_store(TLBIVMID, TLBIALLNSNH, TLBIALLH, TLBIVAH, TLBIVALH64, TLBIVMIDS1, TLBIVAH64)
    def _global_stored(self, old: Register, new: Register) -> None:
        self._gated(new, None, lambda: self.carry_out(new))

    def _vmid(self, value: int) -> int:
        return value if self.registers[IDR2].VMID16S else value & 0xFF

    def _tlbivmid(self, new: TLBIVMID, bank: int) -> None:
        vmid = self._vmid(new.VMID)
        self.stages.tlb.invalidate_spaces(NON_SECURE, vmid=vmid)
        self.stages.tlb2.invalidate_spaces(STAGE2_WORLD, vmid=vmid)

    def _tlbivmids1(self, new: TLBIVMIDS1, bank: int) -> None:
        self.stages.tlb.invalidate_spaces(NON_SECURE, vmid=self._vmid(new.VMID))

    def _tlbiallnsnh(self, new: TLBIALLNSNH, bank: int) -> None:
        self.stages.tlb.invalidate_spaces(NON_SECURE)
        self.stages.tlb2.invalidate_spaces(STAGE2_WORLD)

    def _tlbiallh(self, new: TLBIALLH, bank: int) -> None:
        self.stages.tlb.invalidate_spaces(HYPERVISOR)

    def _tlbivah(self, new: TLBIVAH, bank: int) -> None:
        self.stages.tlb.invalidate_range(HYPERVISOR, new.Address, _PAGE)

    def _tlbivah64(self, new: TLBIVAH64 | TLBIVALH64, bank: int) -> None:
        self.stages.tlb.invalidate_range(HYPERVISOR, _extended(new.Address), _PAGE)

    # -- by context banks (§16.5, §17.3) -------------------------------------------------------------------------

    @on_store(CB_TLBIVA, CB_TLBIVAA, CB_TLBIASID, CB_TLBIALL, CB_TLBIVAL, CB_TLBIVAAL, CB_TLBIIPAS2, CB_TLBIIPAS2L)
    def _bank_stored(self, bank: int, old: Register, new: Register) -> None:
        # Stage 2's banks have no invalidations of stage 1, and stage 1's none of stage 2 (§17.1).
        if (self.registers[CBAR, bank].TYPE == BankType.S2) == isinstance(new, CB_TLBIIPAS2 | CB_TLBIIPAS2L):
            self._gated(new, bank, lambda: self.carry_out(new, bank))

    def _regime(self, bank: int) -> tuple[int, int | None]:
        """World and VMID of a stage 1's bank."""
        cbar = self.registers[CBAR, bank]
        if cbar.TYPE == BankType.S1_S2_BYPASS and cbar.HYPC:
            return HYPERVISOR, None
        return NON_SECURE, self.configuration.vmid(bank)

    def _address(self, new: Any, bank: int) -> tuple[int, int]:
        """(address, ASID) of a store by address, in the bank's format."""
        if not self.registers[CBA2R, bank].VA64:
            return new.VA, new.ASID32
        return _extended(new.Address), new.ASID if self.registers[CB_TCR2, bank].AS else new.ASID & 0xFF

    def _by_address(self, new: Any, bank: int) -> None:
        world, vmid = self._regime(bank)
        address, asid = self._address(new, bank)
        self.stages.tlb.invalidate_range(world, address, _PAGE, vmid=vmid, asid=None if world == HYPERVISOR else asid)

    def _by_address_all(self, new: Any, bank: int) -> None:
        world, vmid = self._regime(bank)
        self.stages.tlb.invalidate_range(world, self._address(new, bank)[0], _PAGE, vmid=vmid)

    def _by_asid(self, new: CB_TLBIASID, bank: int) -> None:
        world, vmid = self._regime(bank)
        wide = self.registers[CBA2R, bank].VA64 and self.registers[CB_TCR2, bank].AS
        self.stages.tlb.invalidate_spaces(world, vmid=vmid, asid=new.ASID if wide else new.ASID & 0xFF)

    def _all(self, new: CB_TLBIALL, bank: int) -> None:
        world, vmid = self._regime(bank)
        self.stages.tlb.invalidate_spaces(world, vmid=vmid)

    def _by_ipa(self, new: Any, bank: int) -> None:
        bits = min(self.configuration.ias, 48 if self.registers[CBA2R, bank].VA64 else 40)
        address = new.Address & (1 << bits) - 1
        self.stages.tlb2.invalidate_range(STAGE2_WORLD, address, _PAGE, vmid=self.configuration.vmid(bank))

    # -- waits ---------------------------------------------------------------------------------------------------

    @on_store(TLBGSYNC)
    def _all_synced(self, old: TLBGSYNC, new: TLBGSYNC) -> None:
        self._synced(new)

    @on_store(CB_TLBSYNC)
    def _bank_synced(self, bank: int, old: CB_TLBSYNC, new: CB_TLBSYNC) -> None:
        self._synced(new)

    def _synced(self, store: Register) -> None:
        """All is invalidated already; who used what is gone has ended when this returns, so no wait is ever active."""
        self._waited()
        self.counters.executed[type(store).__name__] += 1
        self.counters.syncs += 1
        if self.watch.on:
            self.watch.command(self.watch.synced(), store, "")


def _extended(address: int) -> int:
    """From bit 55 (§16.5.32)."""
    return address | 0xFF << 56 if address >> 55 & 1 else address


_CARRIED: dict[type[Register], Callable[[Any, Any, int], None]] = {
    TLBIVMID: Invalidation._tlbivmid,
    TLBIVMIDS1: Invalidation._tlbivmids1,
    TLBIALLNSNH: Invalidation._tlbiallnsnh,
    TLBIALLH: Invalidation._tlbiallh,
    TLBIVAH: Invalidation._tlbivah,
    TLBIVAH64: Invalidation._tlbivah64,
    TLBIVALH64: Invalidation._tlbivah64,
    CB_TLBIVA: Invalidation._by_address,
    CB_TLBIVAL: Invalidation._by_address,
    CB_TLBIVAA: Invalidation._by_address_all,
    CB_TLBIVAAL: Invalidation._by_address_all,
    CB_TLBIASID: Invalidation._by_asid,
    CB_TLBIALL: Invalidation._all,
    CB_TLBIIPAS2: Invalidation._by_ipa,
    CB_TLBIIPAS2L: Invalidation._by_ipa,
}
