# SPDX-License-Identifier: Apache-2.0
"""Register accesses that the thread which receives them carries out: reads of a mirror, writes of CMDQ_PROD.

Law: the one place that knows the mirror and the doorbell. Both hold what the registers hold: whoever takes the
instance's lock is told first what the doorbell has done, and a mirror is plain only while no read counts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ... import _core
from ...mmio import Mirror
from ...register_file import RegisterFile
from ...sealed import Sealed
from ...watch import Watch
from ..queue import Ring
from .counters import Counters
from .registers import CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0ACK, GERROR, GERRORN

if TYPE_CHECKING:
    from ..._core.door import Commands, Doorbell

#: What the doorbell's queue depends on, but for CMDQ_PROD, whose stores are followed by consumption at once.
DOORBELL_REGISTERS = (CMDQ_BASE, CMDQ_CONS, CR0ACK, GERROR, GERRORN)


class Prompt(Sealed):
    """The mirror and the doorbell of one SMMU; neither is there before a client's thread asks for the mirror."""

    OPEN = frozenset({"_mirror", "_doorbell", "_plain"})

    def __init__(
        self,
        registers: RegisterFile,
        counters: Counters,
        lock: AbstractContextManager[Any],
        compiled: Commands | None,
        aborted: Callable[[], None],
        watch: Watch,
    ) -> None:
        """``aborted`` is told that the MSI of a CMD_SYNC that the doorbell has carried out was."""
        self.registers = registers
        self.counters = counters
        self.lock = lock
        self.compiled = compiled
        self._aborted = aborted
        self.watch = watch
        self._mirror: Mirror | None = None
        self._doorbell: Doorbell | None = None
        self._plain = True
        if compiled is not None:
            registers.watch(DOORBELL_REGISTERS, self.disarm)

    def mirror(self, make: Callable[[int], Mirror], size: int, burst: int) -> Mirror:
        """The mirror of ``size`` bytes; a doorbell consumes at most ``burst`` commands for one write."""
        if self._mirror is None:
            self._mirror = made = make(size)
            self.registers.mirror(made)
            self.counters.reads_mirrored = lambda: made.reads
            self.gate(self._plain)
            self.watch.mirrored(made)
            door = _core.built()
            # A doorbell shares the core's own lock and mirror.
            if self.compiled is None or door is None:
                return made
            if isinstance(self.lock, door.Lock) and door.is_mirror(made):
                bell = door.Doorbell(self.lock, self.compiled, made, CMDQ_PROD.at, CMDQ_CONS.at, burst, self._rung)
                self._doorbell, self.counters.by_doorbell = bell, bell.counts
        return self._mirror

    def gate(self, plain: bool) -> None:
        """``plain``: reads of the mirror may go unseen."""
        self._plain = plain
        if self._mirror is not None:
            self._mirror.plain = plain

    def catch_up(self) -> None:
        """Before a read without the lock: the registers are as the doorbell has left them."""
        if self._doorbell is not None and self._doorbell.rung:
            with self.lock:  # whoever takes it is told
                pass

    def was_told(self) -> bool:
        """Whether the doorbell has told of the write that comes now, which it has left to the owner; asked once."""
        return self._doorbell is not None and self._doorbell.was_told()

    def _rung(self, prod: int, cons: int, aborted: bool) -> None:
        """The core has carried out writes of CMDQ_PROD."""
        self.registers[CMDQ_PROD] = prod
        self.registers[CMDQ_CONS] = cons
        if aborted:
            self._aborted()

    def disarm(self) -> None:
        """Have writes of CMDQ_PROD come to the command queue again."""
        if self._doorbell is not None:
            self._doorbell.disarm()

    def arm(self, ring: Ring, vmid_mask: int, *, wired: bool) -> None:
        """Let the core carry out writes of CMDQ_PROD, while the queue is empty; ``wired``: CMD_SYNCs pulse a wire."""
        if self._doorbell is not None:
            registers = self.registers
            self._doorbell.arm(
                registers.raw(CMDQ_PROD),
                CMDQ_PROD.write_mask,
                registers.raw(CMDQ_CONS),
                ring.base,
                ring.bits,
                vmid_mask,
                not wired,
            )
