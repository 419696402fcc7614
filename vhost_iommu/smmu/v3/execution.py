# SPDX-License-Identifier: Apache-2.0
"""What each command does (IHI 0070 chapter 4).

Law: a command is a method named after it that returns a CERROR; one without a method is illegal, as are those of
features that are absent. Not modelled: the commands of the DPT.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...register_file import RegisterFile
from ...sealed import Sealed, declared
from ..ats import PageResponse, PrgResponse
from ..context import Context
from ..stages import STAGE2_WORLD, Stages, StageTlb
from ..walk import Access
from . import commands
from .ats import Ats
from .configuration import Configuration
from .pri import PriQueue
from .registers import CR0ACK, CR2, IDR0, IDR1, IDR3, IDR5, CommandError, StallModel
from .stalls import Stalls
from .validity import StreamWorld, Validity

if TYPE_CHECKING:
    from ..._core.door import Commands, Core

OK, ILL = CommandError.CERROR_NONE, CommandError.CERROR_ILL

_ByAddress = (
    commands.CMD_TLBI_NH_VA
    | commands.CMD_TLBI_NH_VAA
    | commands.CMD_TLBI_EL2_VA
    | commands.CMD_TLBI_EL2_VAA
    | commands.CMD_TLBI_S2_IPA
)

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


class _Nothing:
    """Has all parts and does all that it is told, without an effect."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *given: object, **named: object) -> _Nothing:
        return self


@declared
class Execution(Sealed):
    """Carries out the commands of one SMMU. ``execute`` is also the door for a test that has a command but no queue."""

    def __init__(
        self,
        registers: RegisterFile,
        validity: Validity,
        configuration: Configuration,
        stages: Stages,
        stalls: Stalls,
        ats: Ats,
        pri: PriQueue,
        core: Core | None,
        compiled: Commands | None,
    ) -> None:
        """``core``: whose readers a CMD_SYNC waits for; ``compiled``: what carries out some commands before us."""
        self.registers = registers
        self.validity = validity
        self.configuration = configuration
        self.stages = stages
        self.stalls = stalls
        self.ats = ats
        self.pri = pri
        self.core = core
        self.compiled = compiled
        if compiled is not None:
            configuration.catch_up = partial(compiled.carry_kept, self._carry_kept)
        self._handlers: dict[int, tuple[type[commands.Command], Callable[[Any], CommandError]]] = {
            opcode: (kind, getattr(self, kind.__name__))
            for opcode, kind in commands.COMMANDS.items()
            if hasattr(self, kind.__name__)
        }

    def ready(self) -> None:
        """Have waited for whoever is inside the core, if the next command would: it is told of as it begins."""
        if self.core is not None:
            self.core.ready_to_invalidate()

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

    def refusal(self, command: commands.Command) -> CommandError:
        """What would become of an invalidation, found out where there is nothing to invalidate."""
        nothing: Any = _Nothing()
        over_nothing = (nothing,) * 5
        return Execution(self.registers, self.validity, *over_nothing, None, None).execute(command)

    def _carry_kept(self, command: bytes) -> None:
        """Carry out a command that was kept for the model."""
        self.execute(commands.decode(command))

    def CMD_PREFETCH_CONFIG(self, command: commands.CMD_PREFETCH_CONFIG) -> CommandError:
        if self.registers[CR0ACK].SMMUEN:
            self.configuration.lookup(command.SID, command.SSID if command.SSV else None)
        return OK

    def CMD_PREFETCH_ADDR(self, command: commands.CMD_PREFETCH_ADDR) -> CommandError:
        """A hint, which records nothing; a large one is taken in part."""
        if not self.registers[CR0ACK].SMMUEN:
            return OK
        context = self.configuration.lookup(command.SID, command.SSID if command.SSV else None)
        if isinstance(context, Context):
            for n in range(min(1 << command.Size, MOST_PREFETCHED)):
                address = command.Address + (n << 12 + command.Stride) & 2**64 - 1
                self.stages.translate(context, address, Access())
        return OK

    def CMD_CFGI_STE(self, command: commands.CMD_CFGI_STE) -> CommandError:
        self.configuration.invalidate_stes(command.SID, 1, leaf=bool(command.Leaf))
        return OK

    def CMD_CFGI_STE_RANGE(self, command: commands.CMD_CFGI_STE_RANGE) -> CommandError:
        if command.all:
            self.configuration.invalidate_all()
        else:
            count = 2 << command.Range
            self.configuration.invalidate_stes(command.SID & ~(count - 1), count)
        return OK

    def CMD_CFGI_CD(self, command: commands.CMD_CFGI_CD) -> CommandError:
        if not self.registers[IDR0].S1P:
            return ILL
        self.configuration.invalidate_cd(command.SID, command.SSID, leaf=bool(command.Leaf))
        return OK

    def CMD_CFGI_CD_ALL(self, command: commands.CMD_CFGI_CD_ALL) -> CommandError:
        if not self.registers[IDR0].S1P:
            return ILL
        self.configuration.invalidate_cds(command.SID)
        return OK

    def CMD_CFGI_VMS_PIDM(self, command: commands.CMD_CFGI_VMS_PIDM) -> CommandError:
        if not self.validity.has_vms:
            return ILL
        self.configuration.invalidate_partid_map(command.VMID)
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
            self.stages.tlb.invalidate_spaces(world)
        return OK

    def CMD_TLBI_EL2_ASID(self, command: commands.CMD_TLBI_EL2_ASID) -> CommandError:
        if not self._hyp():
            return ILL
        self.stages.tlb.invalidate_spaces(StreamWorld.NS_EL2_E2H, asid=command.ASID)
        return OK

    def CMD_TLBI_EL2_VA(self, command: commands.CMD_TLBI_EL2_VA) -> CommandError:
        if not self._hyp():
            return ILL
        if self.registers[CR2].E2H:
            return self._invalidate_range(StreamWorld.NS_EL2_E2H, command, asid=command.ASID)
        return self._invalidate_range(StreamWorld.NS_EL2, command)

    def CMD_TLBI_EL2_VAA(self, command: commands.CMD_TLBI_EL2_VAA) -> CommandError:
        if not self._hyp():
            return ILL
        e2h = self.registers[CR2].E2H
        return self._invalidate_range(StreamWorld.NS_EL2_E2H if e2h else StreamWorld.NS_EL2, command)

    def CMD_TLBI_NSNH_ALL(self, command: commands.CMD_TLBI_NSNH_ALL) -> CommandError:
        self.stages.tlb.invalidate_spaces(StreamWorld.NS_EL1)
        self.stages.tlb2.invalidate_spaces(STAGE2_WORLD)
        return OK

    def CMD_TLBI_S12_VMALL(self, command: commands.CMD_TLBI_S12_VMALL) -> CommandError:
        if not self.registers[IDR0].S2P:
            return ILL
        mask = self.vmid_mask()
        self.stages.tlb.invalidate_spaces(StreamWorld.NS_EL1, vmid=command.VMID, vmid_mask=mask)
        self.stages.tlb2.invalidate_spaces(STAGE2_WORLD, vmid=command.VMID, vmid_mask=mask)
        return OK

    def CMD_TLBI_S2_IPA(self, command: commands.CMD_TLBI_S2_IPA) -> CommandError:
        if not self.registers[IDR0].S2P:
            return ILL
        return self._invalidate_by_address(self.stages.tlb2, STAGE2_WORLD, command, command.VMID)

    def CMD_RESUME(self, command: commands.CMD_RESUME) -> CommandError:
        if self.registers[IDR0].STALL_MODEL == StallModel.TERMINATE_ONLY:
            return ILL
        self.stalls.resume(command.SID, command.STAG, retry=bool(command.Ac), abort=bool(command.Ab))
        return OK

    def CMD_STALL_TERM(self, command: commands.CMD_STALL_TERM) -> CommandError:
        if self.registers[IDR0].STALL_MODEL == StallModel.TERMINATE_ONLY:
            return ILL
        self.stalls.terminate(command.SID)
        return OK

    def CMD_ATC_INV(self, command: commands.CMD_ATC_INV) -> CommandError:
        registers = self.registers
        if not registers[IDR0].ATS or command.Size > 52:
            return ILL
        if registers[CR0ACK].SMMUEN:
            ssid = self._pasid(command)
            everywhere = ssid is not None and bool(command.Global)
            self.ats.invalidate(command.SID, ssid, command.Address, command.Size, everywhere=everywhere)
        return OK

    def CMD_PRI_RESP(self, command: commands.CMD_PRI_RESP) -> CommandError:
        registers = self.registers
        if not registers[IDR0].PRI or command.Resp not in _PRI_CODES:
            return ILL
        if registers[CR0ACK].SMMUEN:
            code = _PRI_CODES[command.Resp]
            self.pri.respond(PageResponse(command.SID, command.PRGIndex, code, self._pasid(command)))
        return OK

    def CMD_SYNC(self, command: commands.CMD_SYNC) -> CommandError:
        # Invalidations of our own, events and walks are complete before the next command begins; ATCs' may not be.
        if command.CS == 3:
            return ILL
        if self.ats.timed_out:
            return CommandError.CERROR_ATC_INV_SYNC
        self.stalls.settle()
        if self.core is not None:
            self.core.quiesce()
        return OK

    # -- what they share -------------------------------------------------------------------------------------

    def _pasid(self, command: commands.CMD_ATC_INV | commands.CMD_PRI_RESP) -> int | None:
        """The PASID of a message to an endpoint; where there are no PASIDs, SSV counts as 0 (§4.5.1, §4.5.2)."""
        return command.SSID if command.SSV and self.registers[IDR1].SSIDSIZE else None

    def _hyp(self) -> bool:
        idr0 = self.registers[IDR0]
        return bool(idr0.Hyp and idr0.S1P)

    def _vmid(self, vmid: int | None) -> int | None:
        """The VMID to match: without stage 2 all entries have VMID 0, whatever the command says (§4.4.2)."""
        return vmid if self.registers[IDR0].S2P else 0

    def vmid_mask(self) -> int:
        """Which VMID bits must match (CR0.VMW, §3.17.6); reserved values wildcard nothing."""
        vmw = self.registers[CR0ACK].VMW
        return 0xFFFF & -1 << vmw if vmw <= 4 else 0xFFFF

    def _invalidate_spaces(self, world: StreamWorld, vmid: int, asid: int | None = None) -> CommandError:
        if not self.registers[IDR0].S1P:
            return ILL
        self.stages.tlb.invalidate_spaces(world, vmid=self._vmid(vmid), vmid_mask=self.vmid_mask(), asid=asid)
        return OK

    def _invalidate_range(
        self, world: StreamWorld, command: _ByAddress, vmid: int | None = None, asid: int | None = None
    ) -> CommandError:
        if not self.registers[IDR0].S1P:
            return ILL
        return self._invalidate_by_address(self.stages.tlb, world, command, self._vmid(vmid), asid)

    def _invalidate_by_address(
        self, tlb: StageTlb, world: int, command: _ByAddress, vmid: int | None, asid: int | None = None
    ) -> CommandError:
        """The address, or the range of §4.4.1.1. A level hint narrows what must go, and here what does go."""
        registers = self.registers
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
