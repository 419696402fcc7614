# SPDX-License-Identifier: Apache-2.0
"""Faults of commands: what is asked at the gate, before a command is executed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from ...layout import Layout
from ...smmu.seams import Refuse, Verdict
from .injection import Injection, Seen, parameter
from .interrupts import PRI, WIRED

_SYNC = "CMD_SYNC"


def _name(command: Layout) -> str:
    return type(command).__name__


@dataclass
class DropTlbi(Injection):
    """An invalidation of TLBs is consumed and has no effect: stale translations stay."""

    KIND = "drop-tlbi"
    SECTION = "4.4"
    LINUX = (
        Seen(
            "count=0",
            (),
            "DMA goes on by translations that the driver has removed, and nobody is told.",
            ("engine0_strict_loses_what_is_unmapped", "engine0_strict_loses_all_of_a_range", "no_other_warnings"),
            machine="smmuv3-pasid",
        ),
    )

    def gate(self, command: Layout) -> Verdict | None:
        tlbi = "TLBI" in _name(command)  # as commands, and as stores to registers
        return Verdict.IGNORE if tlbi and self.strikes(f"{command.text()} was ignored") else None


@dataclass
class DropCfgi(Injection):
    """An invalidation of configuration caches is consumed and has no effect: stale STEs and CDs stay."""

    KIND = "drop-cfgi"
    SECTION = "4.3"
    LINUX = (
        Seen(
            "count=0 after=3",
            (),
            "The stream goes by the STE that it had: what is unmapped can still be reached.",
            (
                "engine0_bypassed_copies_coherent_memory",
                "engine0_strict_loses_what_is_unmapped",
                "engine0_strict_loses_all_of_a_range",
            ),
            machine="smmuv3-pasid",
        ),
    )

    def gate(self, command: Layout) -> Verdict | None:
        cfgi = _name(command).startswith("CMD_CFGI_")
        return Verdict.IGNORE if cfgi and self.strikes(f"{command.text()} was ignored") else None


@dataclass
class DropSync(Injection):
    """A CMD_SYNC is consumed, and its signal, if it asks for one, never comes."""

    KIND = "drop-sync"
    SECTION = "4.7.3"
    LINUX = (
        Seen(
            "after=3",
            ("CMD_SYNC timeout at",),
            "It goes on after a second.",
            ("no_smmu_warnings",),
        ),
    )

    def gate(self, command: Layout) -> Verdict | None:
        sync = _name(command) == _SYNC
        return Verdict.IGNORE if sync and self.strikes(f"{command.text()} was ignored") else None


@dataclass
class LateSync(Injection):
    """A CMD_SYNC, and what follows it in the queue, waits before it is executed."""

    KIND = "late-sync"
    SECTION = "4.7.3"
    LINUX = (
        Seen(
            "after=20 seconds=2",
            ("CMD_SYNC timeout at",),
            "It goes on after a second, before the command does.",
            ("no_smmu_warnings",),
        ),
    )
    LATER = True

    seconds: float = parameter("how long it waits", 2.0)
    _held: bool = dataclasses.field(default=False, init=False)
    _due: bool = dataclasses.field(default=False, init=False)

    @property
    def over(self) -> bool:
        return self.spent and not self._held

    def gate(self, command: Layout) -> Verdict | None:
        if _name(command) != _SYNC:
            return None
        if self._held:
            self._held = not self._due
        elif self.strikes(f"{command.text()} waits for {self.seconds:g} s"):
            assert self.lab.later is not None
            self._held, self._due = True, False
            self.lab.later(self.seconds, self._release)
        return Verdict.HOLD if self._held else None

    def _release(self) -> None:
        self._due = True
        self.lab.proceed(self.name)


@dataclass
class CommandFails(Injection):
    """A command ends in an error, whatever it is, and stops the command queue. ATC_INV_SYNC is a CMD_SYNC's alone."""

    KIND = "cerror"
    SECTION = "7.1"
    LINUX = (
        Seen(
            "error=ILL after=20",
            ("CMDQ error (cons", ": Illegal command", "skipping command in error state:"),
            "The command becomes a CMD_SYNC. On one CPU the interrupt comes after the timeouts of those who wait.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
        Seen(
            "error=ABT after=30",
            (": Abort on command fetch", "retrying command fetch"),
            "The command is fetched again.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
        Seen(
            "error=ATC_INV_SYNC after=20",
            (": ATC invalidate timeout",),
            "The CMD_SYNC is executed again.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
    )

    error: Literal["ILL", "ABT", "ATC_INV_SYNC"] = parameter("which", "ILL")

    def gate(self, command: Layout) -> Refuse | None:
        possible = self.error != "ATC_INV_SYNC" or _name(command) == _SYNC
        refused = possible and self.strikes(f"{command.text()} ended in CERROR_{self.error}")
        return Refuse(f"CERROR_{self.error}") if refused else None


@dataclass
class GlobalError(Injection):
    """A global error is raised that nothing has caused, before a command is executed. With SFM_ERR the SMMU enters
    service failure mode: until a reset it aborts all transactions, and reads and writes no queue.
    """

    KIND = "gerror"
    SECTION = "7.5, §12.3"
    LINUX = (
        Seen(
            "error=EVENTQ_ABT_ERR after=60",
            ("EVTQ write aborted -- events may have been lost",),
            "It is acknowledged, and all goes on.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
        Seen(
            "error=PRIQ_ABT_ERR after=70",
            ("PRIQ write aborted -- events may have been lost",),
            "Likewise.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
        Seen(
            "error=MSI_CMDQ_ABT_ERR after=80",
            ("CMDQ MSI write aborted",),
            "Likewise.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
        Seen(
            "error=MSI_EVENTQ_ABT_ERR after=90",
            ("EVTQ MSI write aborted",),
            "Likewise.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
        Seen(
            "error=MSI_GERROR_ABT_ERR after=100",
            ("GERROR MSI write aborted",),
            "It raises no interrupt, and is told with another error.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
        Seen(
            "error=MSI_PRIQ_ABT_ERR after=110",
            ("PRIQ MSI write aborted",),
            "Likewise.",
            ("no_smmu_warnings",),
            features=PRI,
            boot="errors",
        ),
        Seen(
            "error=EVENTQ_ABT_ERR after=10",
            ("EVTQ write aborted -- events may have been lost",),
            "Its interrupt is lost, see `lose-interrupt`.",
            machine="smmuv3-pasid",
            features=WIRED,
            boot="wires",
        ),
        Seen(
            "error=CMDQ_ERR after=14",
            (": No error",),
            "Its interrupt tells of both, late.",
            machine="smmuv3-pasid",
            features=WIRED,
            boot="wires",
        ),
        Seen(
            "error=EVENTQ_ABT_ERR after=10",
            ("EVTQ write aborted -- events may have been lost",),
            "Its interrupt is lost, see `lose-interrupt`.",
            machine="smmuv3-pasid",
            boot="conflicts",
        ),
        Seen(
            "error=CMDQ_ERR after=14",
            (": No error",),
            "The driver finds no error in CMDQ_CONS, and does nothing but acknowledge it. Its interrupt tells of both.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
            boot="conflicts",
        ),
        Seen(
            "error=SFM_ERR after=40",
            ("device has entered Service Failure Mode!", "CMD_SYNC timeout at"),
            "The driver disables the SMMU, and waits a second for each CMD_SYNC; all DMA aborts.",
            ("engine0_strict_loses_what_is_unmapped", "engine0_strict_loses_all_of_a_range", "no_other_warnings"),
            machine="smmuv3-pasid",
        ),
    )

    error: Literal[
        "CMDQ_ERR",
        "EVENTQ_ABT_ERR",
        "PRIQ_ABT_ERR",
        "MSI_CMDQ_ABT_ERR",
        "MSI_EVENTQ_ABT_ERR",
        "MSI_PRIQ_ABT_ERR",
        "MSI_GERROR_ABT_ERR",
        "SFM_ERR",
    ] = parameter("which")

    def gate(self, command: Layout) -> Verdict | None:
        possible = self.lab.may_raise(self.name, self.error)
        if not (possible and self.strikes(f"{self.error} was raised before {command.text()}")):
            return None
        self.lab.error(self.name, self.error)
        # What has stopped the queue lets the command wait.
        return Verdict.HOLD if self.error in ("CMDQ_ERR", "SFM_ERR") else None


def _invalidates(command: Layout, what: str = "any") -> bool:
    kinds = ("CMD_TLBI_", "CMD_CFGI_", "CMD_ATC_INV") if what == "any" else (f"CMD_{what}",)
    return _name(command).startswith(kinds)


@dataclass
class LateInvalidation(Injection):
    """An invalidation is consumed, and has its effect later: before the next CMD_SYNC, as it may, or after others."""

    KIND = "late-invalidation"
    SECTION = "4.7.3"
    LINUX = (
        Seen(
            "of=CFGI count=0",
            (),
            "It may be so, and all goes on: each CMD_SYNC finds it done.",
            machine="smmuv3-pasid",
            boot="permitted",
        ),
        Seen(
            "of=TLBI commands=20 count=0",
            (),
            "For a while DMA goes on by translations that the driver has removed, and nobody is told.",
            ("engine0_strict_loses_what_is_unmapped", "engine0_strict_loses_all_of_a_range", "no_other_warnings"),
            machine="smmuv3-pasid",
        ),
    )

    of: Literal["any", "TLBI", "CFGI", "ATC_INV"] = parameter("of what", "any")
    commands: int = parameter("so many others are executed before it, CMD_SYNCs too; 0: all up to a CMD_SYNC", 0)
    _held: list[tuple[Layout, int]] = dataclasses.field(default_factory=list, init=False)

    @property
    def over(self) -> bool:
        return self.spent and not self._held

    def gate(self, command: Layout) -> Verdict | None:
        if self.commands:
            self._held = [(each, left - 1) for each, left in self._held]
        syncs = not self.commands and _name(command) == _SYNC
        for each, left in self._held:
            if syncs or left < 0:
                self.lab.execute(self.name, each)
        self._held = [] if syncs else [(each, left) for each, left in self._held if left >= 0]
        late = _invalidates(command, self.of) and not self.lab.refuses(self.name, command)
        if not (late and self.strikes(f"{command.text()} has its effect later")):
            return None
        self._held.append((command, self.commands))
        return Verdict.IGNORE

    def end(self) -> None:
        super().end()
        self._carry_out()

    def _carry_out(self) -> None:
        held, self._held = self._held, []
        for each, _ in held:
            self.lab.execute(self.name, each)


#: Commands that wait for a CMD_SYNC to be executed in another order.
MOST_HELD = 256


@dataclass
class ReorderCommands(Injection):
    """Invalidations before a CMD_SYNC, or another command, are executed in another order, as they may be."""

    KIND = "reorder-commands"
    SECTION = "4.7.3"
    LINUX = (
        Seen(
            "count=0",
            (),
            "It may be so, and all goes on.",
            machine="smmuv3-pasid",
            boot="permitted",
        ),
    )

    _held: list[Layout] = dataclasses.field(default_factory=list, init=False)

    @property
    def over(self) -> bool:
        return self.spent and not self._held

    def gate(self, command: Layout) -> Verdict | None:
        if self.over:
            return None
        if len(self._held) < MOST_HELD and _invalidates(command) and not self.lab.refuses(self.name, command):
            self._held.append(command)
            return Verdict.IGNORE
        order = list(range(len(self._held)))
        if len(order) > 1:
            while order == sorted(order):
                self.random.shuffle(order)
            if not self.strikes(f"{len(order)} commands were executed in the order {order}"):
                order.sort()
        self._held = [self._held[at] for at in order]
        self._carry_out()
        return None

    def end(self) -> None:
        super().end()
        self._carry_out()

    def _carry_out(self) -> None:
        held, self._held = self._held, []
        for each in held:
            self.lab.execute(self.name, each)


@dataclass
class SlowQueue(Injection):
    """The command queue waits after each few commands, until some time has passed, or software adds others."""

    KIND = "slow-queue"
    SECTION = "3.5.1"
    LINUX = (
        Seen(
            "seconds=0.01 count=20",
            (),
            "It waits.",
            machine="smmuv3-pasid",
            boot="permitted",
        ),
        Seen(
            "seconds=2 after=200",
            ("CMD_SYNC timeout at",),
            "It goes on after a second.",
            features=PRI,
            boot="errors",
        ),
    )
    LATER = True

    commands: int = parameter("that are consumed between", 1)
    seconds: float = parameter("how long it waits; 0: until software stores CMDQ_PROD", 0.01)
    _consumed: int = dataclasses.field(default=0, init=False)
    _held: bool = dataclasses.field(default=False, init=False)
    _due: bool = dataclasses.field(default=False, init=False)

    @property
    def over(self) -> bool:
        return self.spent and not self._held

    def gate(self, command: Layout) -> Verdict | None:
        if self._held:
            self._held = not self._due
        elif self._consumed >= self.commands:
            self._consumed = 0
            if self.strikes(f"{command.text()} waits, and the queue with it"):
                assert self.lab.later is not None
                self._held, self._due = True, not self.seconds
                if self.seconds:
                    self.lab.later(self.seconds, self._release)
                return Verdict.HOLD
        if self._held:
            return Verdict.HOLD
        self._consumed += 1
        return None

    def _release(self) -> None:
        self._due = True
        self.lab.proceed(self.name)


KINDS = (
    LateInvalidation,
    ReorderCommands,
    SlowQueue,
    DropTlbi,
    DropCfgi,
    DropSync,
    LateSync,
    CommandFails,
    GlobalError,
)
