# SPDX-License-Identifier: Apache-2.0
"""Faults of commands: what is asked at the gate, before a command is executed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from ...layout import Layout
from ...smmu.seams import Refuse, Verdict
from .injection import Injection, Seen, parameter

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
        tlbi = _name(command).startswith("CMD_TLBI_")
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
    """A command ends in an error, whatever it is, and stops the command queue."""

    KIND = "cerror"
    SECTION = "7.1"
    LINUX = (
        Seen(
            "error=ILL after=20",
            ("CMD_SYNC timeout at", "Illegal command", "skipping command in error state:"),
            "The command becomes a CMD_SYNC. On one CPU the interrupt comes after the timeouts of those who wait.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "error=ABT after=20",
            ("CMD_SYNC timeout at", "Abort on command fetch", "retrying command fetch"),
            "The command is fetched again.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "error=ATC_INV_SYNC after=20",
            ("CMD_SYNC timeout at", "ATC invalidate timeout"),
            "The CMD_SYNC is executed again.",
            ("no_smmu_warnings",),
        ),
    )

    error: Literal["ILL", "ABT", "ATC_INV_SYNC"] = parameter("which", "ILL")

    def gate(self, command: Layout) -> Refuse | None:
        refused = self.strikes(f"{command.text()} ended in CERROR_{self.error}")
        return Refuse(f"CERROR_{self.error}") if refused else None


@dataclass
class GlobalError(Injection):
    """A global error is raised that nothing has caused, before a command is executed. Of SFM_ERR that is all: the SMMU
    goes on, and does not enter service failure mode.
    """

    KIND = "gerror"
    SECTION = "7.5"
    LINUX = (
        Seen(
            "error=EVENTQ_ABT_ERR after=20",
            ("unexpected global error reported (0x00000004)", "EVTQ write aborted -- events may have been lost"),
            "It is acknowledged, and all goes on.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "error=MSI_CMDQ_ABT_ERR after=20",
            ("unexpected global error reported (0x00000010)", "CMDQ MSI write aborted"),
            "Likewise.",
            ("no_smmu_warnings",),
        ),
    )

    error: Literal[
        "EVENTQ_ABT_ERR",
        "PRIQ_ABT_ERR",
        "MSI_CMDQ_ABT_ERR",
        "MSI_EVENTQ_ABT_ERR",
        "MSI_PRIQ_ABT_ERR",
        "MSI_GERROR_ABT_ERR",
        "SFM_ERR",
    ] = parameter("which")

    def gate(self, command: Layout) -> None:
        if self.strikes(f"{self.error} was raised before {command.text()}"):
            self.lab.error(self.name, self.error)


KINDS = (
    DropTlbi,
    DropCfgi,
    DropSync,
    LateSync,
    CommandFails,
    GlobalError,
)
