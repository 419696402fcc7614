# SPDX-License-Identifier: Apache-2.0
"""What an SMMU does for who sets its seams (smmu/seams.py): provoked, and beside what software asks of it.

Law: any thread may ask; a seam that asks has the lock already.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ...layout import Layout
from ...register_file import RegisterFile
from ...sealed import Sealed
from ..stages import Stages
from . import commands
from .execution import Execution
from .prompt import Prompt
from .registers import GERROR, met
from .reports import Reports
from .stalls import Stalls


class Provoked(Sealed):
    """One SMMU as its seams know it."""

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        registers: RegisterFile,
        prompt: Prompt,
        stages: Stages,
        reports: Reports,
        stalls: Stalls,
        execution: Execution,
        consume: Callable[[], None],
        tell_core: Callable[[], None],
    ) -> None:
        """``tell_core`` of parameters, ``consume`` commands."""
        self._lock = lock
        self._registers = registers
        self._prompt = prompt
        self._stages = stages
        self._reports = reports
        self._stalls = stalls
        self._execution = execution
        self._consume = consume
        self._tell_core = tell_core

    def seams_changed(self) -> None:
        """What the core carries out comes to the command queue again, which arms the doorbell when it may."""
        with self._lock:
            self._prompt.disarm()
            self._stages.seams_changed()

    def proceed(self) -> None:
        with self._lock:
            self._consume()

    def raise_error(self, error: str) -> None:
        mask = GERROR.field_named(error).mask
        with self._lock:
            if mask == GERROR.SFM_ERR.mask:
                self._fail()
            self._reports.raise_error(mask)

    def may_raise(self, error: str) -> bool:
        field = GERROR.field_named(error)
        return met(field.needs, self._registers.raw) and not self._reports.error_active(field.mask)

    def _fail(self) -> None:
        """Service failure mode, until a reset: no transaction passes, and no queue is accessed (§12.3)."""
        self._reports.failed = True
        self._prompt.disarm()
        self._tell_core()
        self._stalls.terminate()

    def execute(self, command: Layout) -> None:
        with self._lock:
            self._execution.execute(commands.Command(command.raw))

    def refuses(self, command: Layout) -> bool:
        return bool(self._execution.refusal(commands.Command(command.raw)))
