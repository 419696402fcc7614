# SPDX-License-Identifier: Apache-2.0
"""What an SMMUv2 does for who sets its seams (smmu/seams.py): provoked, and beside what software asks of it.

Law: any thread may ask; a seam that asks has the lock already.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from ...layout import Layout, Register
from ...register_file import RegisterFile
from ...sealed import Sealed
from ..stages import Stages
from .interrupts import GLOBAL, Interrupts
from .invalidation import Invalidation
from .registers import GFSR


class Provoked(Sealed):
    """One SMMU as its seams know it."""

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        registers: RegisterFile,
        stages: Stages,
        invalidation: Invalidation,
        interrupts: Interrupts,
    ) -> None:
        self._lock = lock
        self._registers = registers
        self._stages = stages
        self._invalidation = invalidation
        self._interrupts = interrupts

    def seams_changed(self) -> None:
        with self._lock:
            self._stages.seams_changed()

    def proceed(self) -> None:
        """Nothing is held: a store is carried out, or ignored for good."""

    def raise_error(self, error: str) -> None:
        """A global fault, by its bit of GFSR."""
        mask = GFSR.field_named(error).mask
        with self._lock:
            before = self._registers.raw(GFSR)
            self._registers[GFSR] = before | (GFSR.MULTI.mask if before else mask)
            self._interrupts.recorded(GLOBAL)

    def may_raise(self, error: str) -> bool:
        return error in GFSR.named and not self._registers.raw(GFSR)

    def execute(self, command: Layout) -> None:
        with self._lock:
            assert isinstance(command, Register)
            self._invalidation.carry_out(command)

    def refuses(self, command: Layout) -> bool:
        return False
