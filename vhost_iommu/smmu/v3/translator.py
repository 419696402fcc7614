# SPDX-License-Identifier: Apache-2.0
"""Who translates for an SMMUv3: the compiled core, or the reference, where the core cannot or shall not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import _core
from ...memory import Memory, MemoryLike
from ...register_file import RegisterFile
from ...sealed import declared, refuse_replaced
from ...watch import Watch
from ..handover import SharedStages
from ..native import CONTEXTS, CoreCounts, NativePublished, NativeStages, windows_of
from ..seams import DESCRIPTOR, Seams
from ..stages import PlainStages, Stages
from ..tlb import Tlb
from ..walk import LongTable
from .command_queue import CommandQueue
from .configuration import Configuration, StrictConfiguration
from .counters import Counters
from .execution import Execution
from .registers import IDR3
from .reports import Reports
from .transactions import Transactions
from .validity import Validity

declared(Memory)

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
    """The core, if it is wanted, nothing is strict, and it can reach ``memory`` by itself."""
    door = _core.chosen() if pure is None else None if pure else _core.built()
    structures = seams.around(memory, "STE")
    level = registers[IDR3].BBML if strict.tlb_conflicts else None
    plain = PlainStages(seams.around(memory, DESCRIPTOR), counters, tlb_entries, watch, conflict_level=level)
    if door is None or any(strict) or type(memory) is not Memory:
        lookup = StrictConfiguration if strict.configuration_conflicts else Configuration
        return Translator(None, None, plain, lookup(registers, validity, structures, plain.read_ipa, watch=watch))
    refuse_replaced(
        Execution, CommandQueue, Transactions, Configuration, PlainStages, Tlb, LongTable, Reports, Memory,
        RegisterFile,
    )  # fmt: skip
    core = door.Core(tlb_entries, CONTEXTS)
    published = NativePublished(core)
    stages = SharedStages(NativeStages(core), plain, published, seams)
    configuration = Configuration(registers, validity, structures, stages.read_ipa, published, watch)
    memory.watch(lambda windows: core.set_windows(windows_of(windows)))
    compiled = door.Commands(core)
    counters.core = lambda: CoreCounts(*core.counts())
    counters.executed_compiled = compiled.counts
    return Translator(core, compiled, stages, configuration)
