# SPDX-License-Identifier: Apache-2.0
"""What the MSM IOMMU says of itself as a programming model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ...memory import MemoryLike
from ...watch import Watch
from ..model import Binding, Model, Record, Traits
from ..seams import Seams
from . import records, registers
from .causes import causes_of
from .faults import WIRE
from .features import PRESETS, Features
from .inspection import Inspected, state_of
from .instance import MsmIommu
from .pages import PAGES


@dataclass(frozen=True, slots=True)
class Options:
    """There is nothing to say beside its features."""


def _binding(contexts: int) -> Binding:
    return Binding(
        "qcom,apq8064-iommu",
        MsmIommu.size,
        (WIRE,),
        messages=0,
        driver="msm_iommu",
        sysfs="msm-smmu.0x",
        ways=("line", "wired"),
        named=False,
        properties={"qcom,ncb": contexts},
    )


def _traits(features: Features, id_registers: Mapping[str, int], options: Options) -> Traits:
    ids = {register.__name__: value for register, value in features.id_registers().items()} | dict(id_registers)
    idr = registers.IDR(ids["IDR"])
    return Traits(
        stream_id_bits=max(idr.NM2VCBMT - 1, 1).bit_length(),
        substream_id_bits=0,
        granules=("4K",),
        coherent=True,
        messages=False,
        wires=(WIRE,),
        ats=False,
        pri=False,
        el2=False,
        binding=_binding(idr.NCB),
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
) -> MsmIommu:
    return MsmIommu(
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


MODEL = Model(
    name="msm",
    title="MSM IOMMU (Qualcomm, 2010)",
    features=Features,
    presets=PRESETS,
    id_registers=("IDR", "REV"),
    options=Options,
    traits=_traits,
    make=_make,
    state=state_of,
    inspect=Inspected,
    binding=_binding(Features().contexts),
    records=(
        Record("msm-fault", records.ContextFault),
        Record("msm-error", records.GlobalError),
    ),
    causes=causes_of,
    registers=registers.BY_NAME,
    offsets={},  # a context's repeat with each
    page1=0,
    pages=PAGES,
    layouts=(),
    enums=(),
)
