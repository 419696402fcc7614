# SPDX-License-Identifier: Apache-2.0
"""Who translates for an SMMUv2: the compiled core, or the reference, where the core cannot or shall not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import _core
from ...memory import Memory, MemoryLike
from ...register_file import RegisterFile
from ...sealed import declared, refuse_replaced
from ...watch import Watch
from ..counters import StoreCounters
from ..formats import FormatStages
from ..handover import SharedStages
from ..native import CONTEXTS, CoreCounts, NativePublished, NativeStages, windows_of
from ..seams import DESCRIPTOR, Seams
from ..stages import PlainStages, Stages
from ..tlb import Tlb
from ..walk import LongTable
from .configuration import Configuration, walks_by_core
from .invalidation import Invalidation
from .transactions import Transactions

if TYPE_CHECKING:
    from ..._core.door import Core

declared(Memory)


class Translator(NamedTuple):
    """``core`` is None where the reference translates."""

    core: Core | None
    stages: Stages
    configuration: Configuration


def choose(
    memory: MemoryLike,
    registers: RegisterFile,
    counters: StoreCounters,
    tlb_entries: int,
    seams: Seams,
    pure: bool | None,
    watch: Watch,
) -> Translator:
    """The core, if it is wanted, and can reach ``memory`` by itself."""
    door = _core.chosen() if pure is None else None if pure else _core.built()
    around = seams.around(memory, DESCRIPTOR)
    plain = PlainStages(around, counters, tlb_entries, watch)
    if door is None or type(memory) is not Memory:
        return Translator(None, plain, Configuration(registers))
    refuse_replaced(Transactions, Configuration, Invalidation, PlainStages, Tlb, LongTable, Memory, RegisterFile)
    core = door.Core(tlb_entries, CONTEXTS)
    published = NativePublished(core)
    shared = SharedStages(NativeStages(core), plain, published, seams)
    # Tables that the core does not walk have the reference alone, and TLBs of their own.
    stages = FormatStages(shared, PlainStages(around, counters, tlb_entries, watch), walks_by_core)
    memory.watch(lambda windows: core.set_windows(windows_of(windows)))
    counters.core = lambda: CoreCounts(*core.counts())
    return Translator(core, stages, Configuration(registers, published))
