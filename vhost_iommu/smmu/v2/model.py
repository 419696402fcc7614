# SPDX-License-Identifier: Apache-2.0
"""What SMMUv2 says of itself as a programming model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from ...memory import MemoryLike
from ...watch import Watch
from ..model import Binding, Model, Record, Traits
from ..seams import Seams
from . import records, registers
from .causes import causes_of
from .features import PRESETS, Features
from .identity import Frames, stream_bits
from .inspection import Inspected, state_of
from .instance import Smmu
from .interrupts import GLOBAL, context_line
from .pages import PAGES

COMPATIBLE = "arm,smmu-v2"


@dataclass(frozen=True, slots=True)
class Options:
    """How firmware tells of an SMMUv2."""

    #: By this name Linux knows the product, and works around what is wrong with it.
    compatible: Literal["arm,smmu-v2", "arm,mmu-500"] = "arm,smmu-v2"


def _binding(compatible: str, size: int, lines: tuple[str, ...]) -> Binding:
    return Binding(
        compatible,
        size,
        lines,
        messages=0,
        driver="arm-smmu",
        sysfs="smmu.0x",
        ways=("line", "wired"),
        named=False,
        properties={"#global-interrupts": 1},
    )


def _traits(features: Features, id_registers: Mapping[str, int], options: Options) -> Traits:
    ids = {register.__name__: value for register, value in features.id_registers().items()} | dict(id_registers)
    idr0, idr1, idr2 = (registers.IDR0(ids["IDR0"]), registers.IDR1(ids["IDR1"]), registers.IDR2(ids["IDR2"]))
    frames = Frames(idr0, idr1)
    lines = (GLOBAL, *(context_line(bank) for bank in range(frames.banks)))
    return Traits(
        stream_id_bits=stream_bits(idr0),
        substream_id_bits=0,
        granules=tuple(name for name in ("4K", "16K", "64K") if idr2.values()[f"PTFSv8_{name[:-1]}kB"]),
        coherent=bool(idr0.CTTW),
        messages=False,
        wires=lines,
        ats=False,
        pri=False,
        el2=False,
        binding=_binding(options.compatible, frames.size, lines),
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
    later: Callable[[float, Callable[[], None]], None] | None,
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
    )


def _frames(features: Features) -> Frames:
    ids = features.id_registers()
    return Frames(registers.IDR0(ids[registers.IDR0]), registers.IDR1(ids[registers.IDR1]))


#: Of the defaults, where frames are.
_DEFAULT = _frames(Features())

MODEL = Model(
    name="smmuv2",
    title="SMMUv2 (Arm IHI 0062)",
    features=Features,
    presets=PRESETS,
    id_registers=("IDR0", "IDR1", "IDR2", "IDR7"),
    options=Options,
    traits=_traits,
    make=_make,
    state=state_of,
    inspect=Inspected,
    binding=_binding(COMPATIBLE, _DEFAULT.size, (GLOBAL, *(context_line(bank) for bank in range(_DEFAULT.banks)))),
    records=(
        Record("context-fault", records.ContextFault),
        Record("global-fault", records.GlobalFault),
    ),
    causes=causes_of,
    registers=registers.BY_NAME,
    offsets={},  # where they are differs from one SMMUv2 to another
    page1=0,
    pages=PAGES,
    layouts=(),
    enums=(),
)
