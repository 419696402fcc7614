# SPDX-License-Identifier: Apache-2.0
"""The command queue: fetch, have executed, stop at an error, signal completion (IHI 0070 §4.7.3, §7.1).

Law: CONS passes a command only once its promises hold. Not modelled: enhanced queues.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...memory import MemoryLike
from ...register_file import RegisterFile
from ...sealed import Sealed, declared
from ...watch import Watch
from ..queue import Ring
from ..seams import Refuse, Seams, Verdict
from ..stages import Stages
from . import commands
from .ats import Ats
from .counters import Counters
from .execution import Execution
from .prompt import Prompt
from .registers import CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0ACK, GERROR, IDR0, CommandError
from .reports import Reports
from .validity import Validity

if TYPE_CHECKING:
    from ..._core.door import Commands

#: TLB spaces that the commands of one burst may have searched.
MOST_SEARCHED = 16384


@declared
class CommandQueue(Sealed):
    """Consumes commands for one SMMU."""

    OPEN = frozenset({"_consuming"})

    def __init__(
        self,
        name: str,
        registers: RegisterFile,
        validity: Validity,
        memory: MemoryLike,
        execution: Execution,
        stages: Stages,
        ats: Ats,
        reports: Reports,
        counters: Counters,
        prompt: Prompt,
        compiled: Commands | None,
        watch: Watch,
        seams: Seams,
    ) -> None:
        self.name = name
        self.registers = registers
        self.validity = validity
        self.memory = memory
        self.execution = execution
        self.stages = stages
        self.ats = ats
        self.reports = reports
        self.counters = counters
        self.prompt = prompt
        self.compiled = compiled
        self.watch = watch
        self.seams = seams
        self._consuming = False

    # -- the queue -------------------------------------------------------------------------------------------

    def ring(self) -> Ring:
        base, validity = self.registers[CMDQ_BASE], self.validity
        address = base.ADDR & (1 << validity.output_bits) - 1
        return Ring.at(address, min(base.LOG2SIZE, validity.idr1.CMDQS), commands.Command.size)

    def ready(self) -> bool:
        """Whether a command waits and may be consumed."""
        registers = self.registers
        return self.running() and not self.ring().empty(registers.raw(CMDQ_PROD), registers.raw(CMDQ_CONS))

    def running(self) -> bool:
        """Whether commands are consumed as they come."""
        stopped = self.reports.failed or self.reports.error_active(GERROR.CMDQ_ERR.mask)
        return bool(self.registers[CR0ACK].CMDQEN) and not stopped

    def may_sync(self) -> bool:
        """Whether nothing holds up a CMD_SYNC but what it waits for itself."""
        return not (self.ats.pending or self.ats.timed_out or self.reports.unanswered["cmdq-sync"])

    def consume(self, limit: int) -> bool:
        """Consume up to ``limit`` commands, fewer if they are costly; whether more are ready."""
        if self._consuming:
            return False  # a command made a master work, and that submitted others: they follow in turn
        self._consuming = True
        self.prompt.disarm()
        try:
            more = self._consume(limit)
        finally:
            self._consuming = False
        if not more:
            self.execution.stalls.settle()
            self._arm()
        return more

    def _arm(self) -> None:
        """All commands are consumed: the core carries out what comes next, if it may."""
        if self.running() and self.may_sync() and self.seams.closed:
            self.prompt.arm(self.ring(), self.execution.vmid_mask(), wired=self.reports.interrupt is not None)

    def _consume(self, limit: int) -> bool:
        registers = self.registers
        ring = self.ring()
        dear = self._searched() + MOST_SEARCHED
        left = limit
        while left > 0:
            if not self.ready():
                return False
            gate = self.seams.gate
            alone = not self.seams.closed or bool(self.execution.stalls.resumed)
            if self.compiled is not None and not alone:
                done = self._consume_compiled(self.compiled, ring, left)
                left -= done
                if done:
                    continue
            left -= 1
            if self._searched() > dear:
                return True
            cons = registers[CMDQ_CONS].RD & ring.index_mask
            data = self.memory.read(ring.slot(cons), ring.entry_size)
            if data is None:
                self._stop(CommandError.CERROR_ABT, cons)
                return False
            command = commands.decode(data)
            if isinstance(command, commands.CMD_SYNC) and (self.ats.pending or self.reports.unanswered["cmdq-sync"]):
                return False  # the queue goes on when the endpoints, or former CMD_SYNCs' MSIs, are answered
            verdict = Verdict.EXECUTE if gate is None else gate(command)
            if verdict is Verdict.HOLD:
                return False
            # A CMD_SYNC's signal must not be seen before CONS has passed it.
            error = self._told(command, verdict) if self.watch.on else self._carry_out(command, verdict)
            if error:
                self._stop(error, cons)
                return False
            registers[CMDQ_CONS] = registers[CMDQ_CONS].replace(RD=ring.next(cons))
            self.counters.commands_consumed += 1
            self.counters.executed[command.OPCODE] += 1
            if isinstance(command, commands.CMD_SYNC) and verdict is Verdict.EXECUTE:
                self._signal(command)
        return self.ready()

    def _carry_out(self, command: commands.Command, verdict: Verdict | Refuse) -> CommandError:
        if isinstance(verdict, Refuse):
            return CommandError[verdict.error]
        return CommandError.CERROR_NONE if verdict is Verdict.IGNORE else self.execution.execute(command)

    def _told(self, command: commands.Command, verdict: Verdict | Refuse) -> CommandError:
        """As _carry_out. What it drops is numbered after it, but a CMD_SYNC after all that it waited for."""
        self.execution.ready()
        sync = isinstance(command, commands.CMD_SYNC)
        number = None if sync else self.watch.begin()
        error = None
        try:
            error = self._carry_out(command, verdict)
        finally:
            if number is None:
                number = self.watch.synced()
            self.watch.command(number, command, "" if error is None else error.name)
        return error

    def _consume_compiled(self, compiled: Commands, ring: Ring, limit: int) -> int:
        """How many commands the core could carry out; it leaves those that do more than to change caches."""
        registers = self.registers
        cons = registers[CMDQ_CONS]
        prod = registers.raw(CMDQ_PROD)
        done, index, syncs, signal = compiled.consume(
            ring.base, ring.bits, prod, cons.RD, limit, self.execution.vmid_mask(), self.may_sync()
        )
        if done:
            registers[CMDQ_CONS] = cons.replace(RD=index)
            self.counters.commands_consumed += done
            self.counters.syncs_consumed += syncs - (signal is not None)
            if signal is not None:
                self._signal(commands.CMD_SYNC.from_bytes(signal))
        return done

    def _searched(self) -> int:
        return self.stages.tlb.searched + self.stages.tlb2.searched

    def _stop(self, error: CommandError, cons: int) -> None:
        self.registers[CMDQ_CONS] = CMDQ_CONS.of(RD=cons, ERR=error)
        self.counters.command_errors += 1
        if error is CommandError.CERROR_ATC_INV_SYNC:
            self.ats.timed_out = False
        self.reports.raise_error(GERROR.CMDQ_ERR.mask)

    def _signal(self, sync: commands.CMD_SYNC) -> None:
        self.counters.syncs_consumed += 1
        if sync.CS != commands.CompletionSignal.SIG_IRQ:
            return
        if self.registers[IDR0].MSI and sync.MSIAddress:
            abort = partial(self.reports.raise_error, GERROR.MSI_CMDQ_ABT_ERR.mask)
            self.reports.send_msi("cmdq-sync", sync.MSIAddress, sync.MSIData, abort)
        self.reports.wire("cmdq-sync")
