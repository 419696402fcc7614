# SPDX-License-Identifier: Apache-2.0
"""Who translates for an SMMUv3: the compiled core, or the reference, where the core cannot or shall not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import _core
from ...memory import Memory, MemoryLike
from ...register_file import RegisterFile
from ...watch import Watch
from ..native import CONTEXTS, NativePublished, NativeStages, windows_of
from ..seams import Seams, refuse_replaced
from ..stages import PlainStages, Stages
from ..tlb import Tlb
from .command_queue import CommandQueue
from .configuration import Configuration, StrictConfiguration
from .counters import CoreCounts, Counters
from .execution import Execution
from .registers import IDR3
from .transactions import Transactions
from .validity import Validity

if TYPE_CHECKING:
    from ..._core.door import Commands, Core


class Strictness(NamedTuple):
    """What is an error of the guest's here, and has the reference alone."""

    tlb_conflicts: bool
    configuration_conflicts: bool


class Translator(NamedTuple):
    """``core`` and ``compiled``, SMMUv3's part of it, are None where the reference translates."""

    core: Core | None
    compiled: Commands | None
    stages: Stages
    configuration: Configuration


def choose(
    memory: MemoryLike,
    registers: RegisterFile,
    validity: Validity,
    counters: Counters,
    tlb_entries: int,
    strict: Strictness,
    seams: Seams,
    pure: bool | None,
    watch: Watch,
) -> Translator:
    """The core, if it is wanted, nothing is strict, no seam of memory is set, and it can reach ``memory`` by itself."""
    door = _core.chosen() if pure is None else None if pure else _core.built()
    if door is None or any(strict) or seams.memory is not None or type(memory) is not Memory:
        level = registers[IDR3].BBML if strict.tlb_conflicts else None
        stages = PlainStages(seams.around(memory, "descriptor"), counters, tlb_entries, watch, conflict_level=level)
        lookup = StrictConfiguration if strict.configuration_conflicts else Configuration
        configuration = lookup(registers, validity, seams.around(memory, "STE"), stages.read_ipa, watch=watch)
        return Translator(None, None, stages, configuration)
    refuse_replaced(Execution, CommandQueue, Transactions, Configuration, PlainStages, Tlb)
    core = door.Core(tlb_entries, CONTEXTS)
    native = NativeStages(core)
    configuration = Configuration(registers, validity, memory, native.read_ipa, NativePublished(core), watch)
    memory.watch(lambda windows: core.set_windows(windows_of(windows)))
    compiled = door.Commands(core)
    counters.core = lambda: CoreCounts(*core.counts())
    counters.executed_compiled = compiled.counts
    return Translator(core, compiled, native, configuration)
