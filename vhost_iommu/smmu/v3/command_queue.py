# SPDX-License-Identifier: Apache-2.0
"""The command queue: fetch, check, execute, stop at an error (IHI 0070 chapter 4, §7.1).

Law: a command is a method named after it that returns a CERROR; CONS passes a command only once its promises
hold. Not modelled: DPT and enhanced queues, whose commands are illegal as those features are absent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..ats import PageResponse, PrgResponse
from ..context import Context
from ..queue import Ring
from ..stages import STAGE2_WORLD
from ..tlb import Tlb
from ..walk import Access, Mapping
from . import commands
from .registers import (
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0ACK,
    CR2,
    GERROR,
    IDR0,
    IDR1,
    IDR3,
    IDR5,
    CommandError,
    StallModel,
)
from .validity import StreamWorld

if TYPE_CHECKING:
    from ..._core.door import Core
    from .instance import Smmu

OK, ILL = CommandError.CERROR_NONE, CommandError.CERROR_ILL

_ByAddress = (
    commands.CMD_TLBI_NH_VA
    | commands.CMD_TLBI_NH_VAA
    | commands.CMD_TLBI_EL2_VA
    | commands.CMD_TLBI_EL2_VAA
    | commands.CMD_TLBI_S2_IPA
)
#: TLB spaces that the commands of one burst may have searched.
MOST_SEARCHED = 16384

#: A prefetch of more translations than this is taken in part.
MOST_PREFETCHED = 64

#: What CMD_PRI_RESP.Resp says on the wire (§8.3).
_PRI_CODES: dict[int, PrgResponse] = {
    commands.PriResponse.FAILURE: PrgResponse.FAILURE,
    commands.PriResponse.INVALID: PrgResponse.INVALID,
    commands.PriResponse.SUCCESS: PrgResponse.SUCCESS,
}

#: log2 of the granule that a TLBI's TG names.
_TG_BITS = (0, 12, 14, 16)


class CommandQueue:
    """Consumes commands for one SMMU. ``execute`` is also the door for a test that has a command but no queue."""

    def __init__(self, smmu: Smmu) -> None:
        self.smmu = smmu
        self._consuming = False
        self._ring_of, self._ring = -1, Ring(0, 0, 0)  #: CMDQ_BASE, and what it comes to
        self._handlers: dict[int, tuple[type[commands.Command], Callable[[Any], CommandError]]] = {
            opcode: (kind, getattr(self, kind.__name__))
            for opcode, kind in commands.COMMANDS.items()
            if hasattr(self, kind.__name__)
        }

    # -- the queue -------------------------------------------------------------------------------------------

    def ring(self) -> Ring:
        raw = self.smmu.registers.raw(CMDQ_BASE)
        if raw != self._ring_of:
            base, validity = CMDQ_BASE(raw), self.smmu.validity
            address = base.ADDR & (1 << validity.output_bits) - 1
            self._ring = Ring.at(address, min(base.LOG2SIZE, validity.idr1.CMDQS), commands.Command.size)
            self._ring_of = raw
        return self._ring

    def ready(self) -> bool:
        """Whether a command waits and may be consumed."""
        registers = self.smmu.registers
        return self.running() and not self.ring().empty(registers.raw(CMDQ_PROD), registers.raw(CMDQ_CONS))

    def running(self) -> bool:
        """Whether commands are consumed as they come."""
        smmu = self.smmu
        enabled = smmu.registers.raw(CR0ACK) & CR0ACK.CMDQEN.mask
        return bool(enabled) and not smmu.error_active(GERROR.CMDQ_ERR.mask)

    def may_sync(self) -> bool:
        """Whether nothing holds up a CMD_SYNC but what it waits for itself."""
        smmu = self.smmu
        return not (smmu.ats.pending or smmu.ats.timed_out or smmu.unanswered["cmdq-sync"])

    def consume(self, limit: int) -> bool:
        """Consume up to ``limit`` commands, fewer if they are costly; whether more are ready."""
        if self._consuming:
            return False  # a command made a master work, and that submitted others: they follow in turn
        self._consuming = True
        self.smmu.disarm()
        try:
            more = self._consume(limit)
        finally:
            self._consuming = False
        if not more:
            self.smmu.arm()
        return more

    def _consume(self, limit: int) -> bool:
        smmu = self.smmu
        registers = smmu.registers
        ring = self.ring()
        dear = self._searched() + MOST_SEARCHED
        left = limit
        while left > 0:
            if not self.ready():
                return False
            if smmu.core is not None and smmu.trace is None and (done := self._consume_compiled(smmu.core, ring, left)):
                left -= done
                continue
            left -= 1
            if self._searched() > dear:
                return True
            cons = registers[CMDQ_CONS].RD & ring.index_mask
            data = smmu.memory.read(ring.slot(cons), ring.entry_size)
            if data is None:
                self._stop(CommandError.CERROR_ABT, cons)
                return False
            command = commands.decode(data)
            if isinstance(command, commands.CMD_SYNC) and (smmu.ats.pending or smmu.unanswered["cmdq-sync"]):
                return False  # the queue goes on when the endpoints, or former CMD_SYNCs' MSIs, are answered
            # A CMD_SYNC's signal must not be seen before CONS has passed it.
            error = self.execute(command)
            if smmu.trace is not None:
                shown = {name: value for name, value in command.values().items() if name != "OPCODE"}
                smmu.trace.emit(smmu.name, "command", type(command).__name__, **shown, result=error.name)
            if error:
                self._stop(error, cons)
                return False
            registers[CMDQ_CONS] = registers[CMDQ_CONS].replace(RD=ring.next(cons))
            smmu.counters.commands += 1
            if isinstance(command, commands.CMD_SYNC):
                self._signal(command)
        return self.ready()

    def _consume_compiled(self, core: Core, ring: Ring, limit: int) -> int:
        """How many commands the core could carry out; it leaves those that do more than to change caches."""
        smmu = self.smmu
        registers = smmu.registers
        cons = registers[CMDQ_CONS]
        prod = registers.raw(CMDQ_PROD)
        done, index, syncs, signal = core.consume(
            ring.base, ring.bits, prod, cons.RD, limit, self.vmid_mask(), self.may_sync()
        )
        if done:
            registers[CMDQ_CONS] = cons.replace(RD=index)
            smmu.counters.commands += done
            smmu.counters.syncs += syncs - (signal is not None)
            if signal is not None:
                self._signal(commands.CMD_SYNC.from_bytes(signal))
        return done

    def _searched(self) -> int:
        return self.smmu.tlb.searched + self.smmu.tlb2.searched

    def _stop(self, error: CommandError, cons: int) -> None:
        self.smmu.registers[CMDQ_CONS] = CMDQ_CONS.of(RD=cons, ERR=error)
        self.smmu.counters.command_errors += 1
        if error is CommandError.CERROR_ATC_INV_SYNC:
            self.smmu.ats.timed_out = False
        self.smmu.raise_error(GERROR.CMDQ_ERR.mask)

    def _signal(self, sync: commands.CMD_SYNC) -> None:
        smmu = self.smmu
        smmu.counters.syncs += 1
        if sync.CS != commands.CompletionSignal.SIG_IRQ:
            return
        if smmu.registers[IDR0].MSI and sync.MSIAddress:
            smmu.send_msi("cmdq-sync", sync.MSIAddress, sync.MSIData, GERROR.MSI_CMDQ_ABT_ERR.mask)
        smmu.wire("cmdq-sync")

    # -- commands --------------------------------------------------------------------------------------------

    def execute(self, command: commands.Command) -> CommandError:
        """Carry out one command, whatever the queue; CMD_SYNC's signal is left to the queue."""
        found = self._handlers.get(command.OPCODE)
        if found is None:
            return ILL
        kind, handler = found
        typed = kind(command.raw)
        # Only this queue's own streams can be named (§4.1.6).
        if typed.raw & _SSEC and any(f.name == "SSec" for f in kind.fields):
            return ILL
        return handler(typed)

    def CMD_PREFETCH_CONFIG(self, command: commands.CMD_PREFETCH_CONFIG) -> CommandError:
        if self.smmu.registers[CR0ACK].SMMUEN:
            self.smmu.configuration.lookup(command.SID, command.SSID if command.SSV else None)
        return OK

    def CMD_PREFETCH_ADDR(self, command: commands.CMD_PREFETCH_ADDR) -> CommandError:
        """A hint, which records nothing; a large one is taken in part."""
        smmu = self.smmu
        if not smmu.registers[CR0ACK].SMMUEN:
            return OK
        context = smmu.configuration.lookup(command.SID, command.SSID if command.SSV else None)
        if isinstance(context, Context):
            for n in range(min(1 << command.Size, MOST_PREFETCHED)):
                address = command.Address + (n << 12 + command.Stride) & 2**64 - 1
                smmu.stages.translate(context, address, Access())
        return OK

    def CMD_CFGI_STE(self, command: commands.CMD_CFGI_STE) -> CommandError:
        self.smmu.configuration.invalidate_stes(command.SID, 1, leaf=bool(command.Leaf))
        return OK

    def CMD_CFGI_STE_RANGE(self, command: commands.CMD_CFGI_STE_RANGE) -> CommandError:
        if command.all:
            self.smmu.configuration.invalidate_all()
        else:
            count = 2 << command.Range
            self.smmu.configuration.invalidate_stes(command.SID & ~(count - 1), count)
        return OK

    def CMD_CFGI_CD(self, command: commands.CMD_CFGI_CD) -> CommandError:
        if not self.smmu.registers[IDR0].S1P:
            return ILL
        self.smmu.configuration.invalidate_cd(command.SID, command.SSID, leaf=bool(command.Leaf))
        return OK

    def CMD_CFGI_CD_ALL(self, command: commands.CMD_CFGI_CD_ALL) -> CommandError:
        if not self.smmu.registers[IDR0].S1P:
            return ILL
        self.smmu.configuration.invalidate_cds(command.SID)
        return OK

    def CMD_CFGI_VMS_PIDM(self, command: commands.CMD_CFGI_VMS_PIDM) -> CommandError:
        if not self.smmu.validity.has_vms:
            return ILL
        self.smmu.configuration.invalidate_partid_map(command.VMID)
        return OK

    def CMD_TLBI_NH_ALL(self, command: commands.CMD_TLBI_NH_ALL) -> CommandError:
        return self._invalidate_spaces(StreamWorld.NS_EL1, command.VMID)

    def CMD_TLBI_NH_ASID(self, command: commands.CMD_TLBI_NH_ASID) -> CommandError:
        return self._invalidate_spaces(StreamWorld.NS_EL1, command.VMID, command.ASID)

    def CMD_TLBI_NH_VA(self, command: commands.CMD_TLBI_NH_VA) -> CommandError:
        return self._invalidate_range(StreamWorld.NS_EL1, command, command.VMID, command.ASID)

    def CMD_TLBI_NH_VAA(self, command: commands.CMD_TLBI_NH_VAA) -> CommandError:
        return self._invalidate_range(StreamWorld.NS_EL1, command, command.VMID)

    def CMD_TLBI_EL2_ALL(self, command: commands.CMD_TLBI_EL2_ALL) -> CommandError:
        if not self._hyp():
            return ILL
        for world in (StreamWorld.NS_EL2, StreamWorld.NS_EL2_E2H):
            self.smmu.tlb.invalidate_spaces(world)
        return OK

    def CMD_TLBI_EL2_ASID(self, command: commands.CMD_TLBI_EL2_ASID) -> CommandError:
        if not self._hyp():
            return ILL
        self.smmu.tlb.invalidate_spaces(StreamWorld.NS_EL2_E2H, asid=command.ASID)
        return OK

    def CMD_TLBI_EL2_VA(self, command: commands.CMD_TLBI_EL2_VA) -> CommandError:
        if not self._hyp():
            return ILL
        if self.smmu.registers[CR2].E2H:
            return self._invalidate_range(StreamWorld.NS_EL2_E2H, command, asid=command.ASID)
        return self._invalidate_range(StreamWorld.NS_EL2, command)

    def CMD_TLBI_EL2_VAA(self, command: commands.CMD_TLBI_EL2_VAA) -> CommandError:
        if not self._hyp():
            return ILL
        e2h = self.smmu.registers[CR2].E2H
        return self._invalidate_range(StreamWorld.NS_EL2_E2H if e2h else StreamWorld.NS_EL2, command)

    def CMD_TLBI_NSNH_ALL(self, command: commands.CMD_TLBI_NSNH_ALL) -> CommandError:
        self.smmu.tlb.invalidate_spaces(StreamWorld.NS_EL1)
        self.smmu.tlb2.invalidate_spaces(STAGE2_WORLD)
        return OK

    def CMD_TLBI_S12_VMALL(self, command: commands.CMD_TLBI_S12_VMALL) -> CommandError:
        if not self.smmu.registers[IDR0].S2P:
            return ILL
        mask = self.vmid_mask()
        self.smmu.tlb.invalidate_spaces(StreamWorld.NS_EL1, vmid=command.VMID, vmid_mask=mask)
        self.smmu.tlb2.invalidate_spaces(STAGE2_WORLD, vmid=command.VMID, vmid_mask=mask)
        return OK

    def CMD_TLBI_S2_IPA(self, command: commands.CMD_TLBI_S2_IPA) -> CommandError:
        if not self.smmu.registers[IDR0].S2P:
            return ILL
        return self._invalidate_by_address(self.smmu.tlb2, STAGE2_WORLD, command, command.VMID)

    def CMD_RESUME(self, command: commands.CMD_RESUME) -> CommandError:
        if self.smmu.registers[IDR0].STALL_MODEL == StallModel.TERMINATE_ONLY:
            return ILL
        self.smmu.stalls.resume(command.SID, command.STAG, retry=bool(command.Ac), abort=bool(command.Ab))
        return OK

    def CMD_STALL_TERM(self, command: commands.CMD_STALL_TERM) -> CommandError:
        if self.smmu.registers[IDR0].STALL_MODEL == StallModel.TERMINATE_ONLY:
            return ILL
        self.smmu.stalls.terminate(command.SID)
        return OK

    def CMD_ATC_INV(self, command: commands.CMD_ATC_INV) -> CommandError:
        registers = self.smmu.registers
        if not registers[IDR0].ATS or command.Size > 52:
            return ILL
        if registers[CR0ACK].SMMUEN:
            ssid = self._pasid(command)
            everywhere = ssid is not None and bool(command.Global)
            self.smmu.ats.invalidate(command.SID, ssid, command.Address, command.Size, everywhere=everywhere)
        return OK

    def CMD_PRI_RESP(self, command: commands.CMD_PRI_RESP) -> CommandError:
        registers = self.smmu.registers
        if not registers[IDR0].PRI or command.Resp not in _PRI_CODES:
            return ILL
        if registers[CR0ACK].SMMUEN:
            code = _PRI_CODES[command.Resp]
            self.smmu.pri.respond(PageResponse(command.SID, command.PRGIndex, code, self._pasid(command)))
        return OK

    def CMD_SYNC(self, command: commands.CMD_SYNC) -> CommandError:
        # Invalidations of our own, events and walks are complete before the next command begins; ATCs' may not be.
        if command.CS == 3:
            return ILL
        if self.smmu.ats.timed_out:
            return CommandError.CERROR_ATC_INV_SYNC
        if self.smmu.core is not None:
            self.smmu.core.quiesce()
        return OK

    # -- what they share -------------------------------------------------------------------------------------

    def _pasid(self, command: commands.CMD_ATC_INV | commands.CMD_PRI_RESP) -> int | None:
        """The PASID of a message to an endpoint; where there are no PASIDs, SSV counts as 0 (§4.5.1, §4.5.2)."""
        return command.SSID if command.SSV and self.smmu.registers[IDR1].SSIDSIZE else None

    def _hyp(self) -> bool:
        idr0 = self.smmu.registers[IDR0]
        return bool(idr0.Hyp and idr0.S1P)

    def _vmid(self, vmid: int | None) -> int | None:
        """The VMID to match: without stage 2 all entries have VMID 0, whatever the command says (§4.4.2)."""
        return vmid if self.smmu.registers[IDR0].S2P else 0

    def vmid_mask(self) -> int:
        """Which VMID bits must match (CR0.VMW, §3.17.6); reserved values wildcard nothing."""
        vmw = self.smmu.registers[CR0ACK].VMW
        return 0xFFFF & -1 << vmw if vmw <= 4 else 0xFFFF

    def _invalidate_spaces(self, world: StreamWorld, vmid: int, asid: int | None = None) -> CommandError:
        if not self.smmu.registers[IDR0].S1P:
            return ILL
        self.smmu.tlb.invalidate_spaces(world, vmid=self._vmid(vmid), vmid_mask=self.vmid_mask(), asid=asid)
        return OK

    def _invalidate_range(
        self, world: StreamWorld, command: _ByAddress, vmid: int | None = None, asid: int | None = None
    ) -> CommandError:
        if not self.smmu.registers[IDR0].S1P:
            return ILL
        return self._invalidate_by_address(self.smmu.tlb, world, command, self._vmid(vmid), asid)

    def _invalidate_by_address(
        self, tlb: Tlb[Mapping], world: int, command: _ByAddress, vmid: int | None, asid: int | None = None
    ) -> CommandError:
        """The address, or the range of §4.4.1.1. A level hint narrows what must go, and here what does go."""
        registers = self.smmu.registers
        granule_bits, level, size = 0, None, 1
        if registers[IDR3].RIL and command.TG:
            granule_bits = _TG_BITS[command.TG]
            ds = registers[IDR5].DS
            ttl = command.TTL
            if ttl == 1 and granule_bits == 14 and not ds:
                ttl = 0
            scale = min(command.SCALE if ds else command.SCALE & 31, 39)
            if not ttl and not command.NUM and not scale:
                return ILL
            level = ttl or None
            size = (command.NUM + 1 << scale) << granule_bits
        tlb.invalidate_range(
            world,
            command.Address,
            size,
            vmid=vmid,
            vmid_mask=self.vmid_mask(),
            asid=asid,
            granule_bits=granule_bits,
            level=level,
        )
        return OK


_SSEC = 1 << 10
