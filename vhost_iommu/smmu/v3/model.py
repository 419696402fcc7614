# SPDX-License-Identifier: Apache-2.0
"""What SMMUv3 says of itself as a programming model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import UsageError
from ...layout import Layout
from ...memory import MemoryLike
from ...watch import Watch
from ..model import Binding, Companion, Model, Record, Traits
from ..seams import Seams
from . import commands, events, pmcg_registers, registers, structures
from .causes import causes_of
from .features import GRANULES, PRESETS, Features
from .inspection import Inspected, state_of
from .instance import Smmu
from .pages import PAGES
from .pmcg import SOURCE, Later

#: Interrupts in the order of the device tree's binding.
INTERRUPTS = ("eventq", "gerror", "priq", "cmdq-sync")


#: How firmware tells of a counter group: page 0, and page 1 with the counters.
COUNTER_GROUP = Companion(
    "pmu",
    "arm,smmu-v3-pmcg",
    ((Smmu.size, 0x1000), (Smmu.size + pmcg_registers.PAGE1, 0x1000)),
    SOURCE,
    "arm_smmuv3_pmu",
)


@dataclass(frozen=True, slots=True)
class Options:
    """How an SMMUv3 behaves where the architecture leaves it a choice."""

    #: Register reads that still find CR0ACK, IRQ_CTRLACK and Update bits as they were before a write takes effect.
    acknowledge_after: int = 0
    #: Lookups that match several cached translations are F_TLB_CONFLICT, as far as 'bbm_level' lets them conflict.
    tlb_conflicts: bool = False
    #: Lookups that match several cached STEs, because of a wrong CONT, are F_CFG_CONFLICT.
    configuration_conflicts: bool = False
    #: A performance monitor counter group (PMCG) beside it, of which Linux makes a perf PMU.
    counter_group: bool = False

    def __post_init__(self) -> None:
        if self.acknowledge_after < 0:
            raise UsageError("'acknowledge_after' counts register reads; make it 0 or more")


def _traits(features: Features, id_registers: Mapping[str, int], options: Options) -> Traits:
    ids = {register.__name__: value for register, value in features.id_registers().items()} | dict(id_registers)
    idr0, idr1, idr5 = registers.IDR0(ids["IDR0"]), registers.IDR1(ids["IDR1"]), registers.IDR5(ids["IDR5"])
    companions = (COUNTER_GROUP,) if options.counter_group else ()
    return Traits(
        stream_id_bits=idr1.SIDSIZE,
        substream_id_bits=idr1.SSIDSIZE,
        granules=tuple(name for name in GRANULES if idr5.values()[f"GRAN{name}"]),
        coherent=bool(idr0.COHACC),
        messages=bool(idr0.MSI),
        wires=(
            *(name for name in INTERRUPTS if name != "priq" or idr0.PRI),
            *(each.wire for each in companions),
        ),
        ats=bool(idr0.ATS),
        pri=bool(idr0.PRI),
        el2=bool(idr0.Hyp),
        companions=companions,
    )


def _make(
    memory: MemoryLike,
    features: Mapping[str, Any],
    id_registers: Mapping[str, int],
    options: Options,
    *,
    name: str,
    interrupt: Callable[[str], None] | None,
    lock: AbstractContextManager[Any],
    clock: Callable[[], float],
    watch: Watch,
    seams: Seams | None,
    later: Later | None,
) -> Smmu:
    return Smmu(
        memory,
        Features(**features),
        id_registers=id_registers,
        name=name,
        interrupt=interrupt,
        lock=lock,
        clock=clock,
        watch=watch,
        seams=seams,
        later=later,
        **asdict(options),
    )


def _command_remarks(value: Layout) -> list[str]:
    if type(value) is commands.Command:
        what = "implementation defined" if 0x80 <= value.OPCODE < 0x90 else "reserved"
        return [f"opcode {value.OPCODE:#04x} is {what}"]
    if isinstance(value, commands.CMD_CFGI_STE_RANGE) and value.all:
        return ["this is CMD_CFGI_ALL"]
    return []


def _event_remarks(value: Layout) -> list[str]:
    if type(value) is not events.Event:
        return []
    what = "implementation defined" if value.TYPE in events.IMPDEF_EVENTS else "reserved"
    return [f"event type {value.TYPE:#04x} is {what}"]


MODEL = Model(
    name="smmuv3",
    title="SMMUv3 (Arm IHI 0070)",
    features=Features,
    presets=PRESETS,
    id_registers=("IDR0", "IDR1", "IDR2", "IDR3", "IDR4", "IDR5", "IIDR", "AIDR", "MPAMIDR"),
    options=Options,
    traits=_traits,
    make=_make,
    state=state_of,
    inspect=Inspected,
    binding=Binding("arm,smmu-v3", Smmu.size, INTERRUPTS, messages=3, driver="arm-smmu-v3", sysfs="smmu3.0x"),
    records=(
        Record("ste", structures.STE, several=True),
        Record("cd", structures.CD, several=True),
        Record("l1ste", structures.L1STD),
        Record("l1cd", structures.L1CD),
        Record("command", commands.Command, commands.decode, _command_remarks, several=True),
        Record("event", events.Event, events.decode, _event_remarks, several=True),
        Record("pri", events.PRIEntry, several=True),
    ),
    causes=causes_of,
    registers=registers.BY_NAME,
    offsets=registers.BY_OFFSET,
    page1=registers.PAGE1,
    pages=PAGES,
    layouts=(
        registers.IDR0,
        registers.IDR3,
        registers.IDR5,
        registers.CR2,
        commands.Command,
        *commands.COMMANDS.values(),
    ),
    enums=(
        commands.Opcode,
        commands.CompletionSignal,
    ),
)
