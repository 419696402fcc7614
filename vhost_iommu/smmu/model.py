# SPDX-License-Identifier: Apache-2.0
"""What a programming model says of itself, for all who are not of it: machine files, machines, guests, ``decode``.

Law: whoever reads this needs to know no model; whoever adds one fills it in, and adds its name to ``models.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..layout import Layout, Register
from ..memory import MemoryLike
from ..mmio import MmioDevice
from ..watch import Watch
from .ats import AtsTranslator
from .inspection import Inspection, Reader, State
from .seams import Seams


@dataclass(frozen=True, slots=True)
class Companion:
    """Registers in an SMMU's window that software finds as a device beside it."""

    name: str  #: generic, as of a device-tree node
    compatible: str
    windows: tuple[tuple[int, int], ...]  #: (offset from the SMMU's registers, bytes) of each
    wire: str  #: its interrupt, one of the SMMU's wires
    module: str  #: Linux's driver of it


@dataclass(frozen=True, slots=True)
class Binding:
    """How a device tree tells Linux of it."""

    compatible: str
    registers_size: int  #: bytes of its window
    interrupts: tuple[str, ...]  #: names that its own lines may have, in order
    messages: int  #: how many a driver sets up, where it has messages
    driver: str  #: Linux's platform driver, which prefixes its log lines
    sysfs: str  #: beginning of its name in /sys/class/iommu
    #: How its interrupts may reach the guest: as "msi", on lines that are "wired" one by one and pulse, or on the
    #: function's one "line", which is a level. The first is what a machine file need not say.
    ways: tuple[str, ...] = ("msi", "wired")
    named: bool = True  #: its node has interrupt-names
    properties: Mapping[str, int] = field(default_factory=dict)  #: further ones of its node


@dataclass(frozen=True, slots=True)
class Traits:
    """What others must know of one SMMU before it is made; from its features and ID registers."""

    stream_id_bits: int
    substream_id_bits: int
    granules: tuple[str, ...]  #: such as "4K"
    coherent: bool  #: its own accesses, as firmware should say, too
    messages: bool  #: it can send its interrupts as messages
    wires: tuple[str, ...]  #: its interrupt lines, by the names and in the order of its binding; companions' last
    ats: bool
    pri: bool
    el2: bool  #: it has streams of a hypervisor at EL2
    companions: tuple[Companion, ...] = ()
    binding: Binding | None = None  #: where it is not its model's


class Instance(MmioDevice, AtsTranslator, Protocol):
    """One SMMU: registers in front, transactions behind."""

    wake: Callable[[], None] | None
    watch: Watch

    @property
    def companions(self) -> Sequence[tuple[int, MmioDevice]]:
        """Further blocks in its window, by offset, as its traits say."""

    def work(self) -> bool:
        """Go on with what a register write left for later; whether more is left, for another call."""


@runtime_checkable
class Levelled(Protocol):
    """An instance whose interrupts are one level."""

    def on_level(self, changed: Callable[[bool], None]) -> None:
        """Have ``changed`` told of the level of all its lines together."""


class Make(Protocol):
    """Makes one instance over ``memory``; ``features``, ``id_registers`` and ``options`` are a machine file's."""

    def __call__(
        self,
        memory: MemoryLike,
        features: Mapping[str, Any],
        id_registers: Mapping[str, int],
        options: Any,
        *,
        name: str,
        interrupt: Callable[[str], None] | None,
        lock: AbstractContextManager[Any],
        clock: Callable[[], float],
        watch: Watch,
        seams: Seams | None,
        later: Callable[[float, Callable[[], None]], None] | None,
    ) -> Any:
        """``later`` has a function called after so many seconds, or is None where nobody can."""


@dataclass(frozen=True)
class Record:
    """A kind of words in memory that ``decode`` takes: of ``layout``, or as ``exact`` tells one from another."""

    kind: str
    layout: type[Layout]
    exact: Callable[[int], Layout] | None = None
    remarks: Callable[[Layout], Sequence[str]] = lambda value: ()
    several: bool = False  #: words of many may follow one another


@dataclass(frozen=True)
class Group:
    """Registers that lie together, and from where their offsets count."""

    title: str
    where: str
    registers: Sequence[type[Register]]


@dataclass(frozen=True)
class Page:
    """A page of docs/reference: registers in ``groups``, or else layouts by ``numbers``, or by their size."""

    file: str
    title: str
    intro: str
    groups: Sequence[Group] = ()
    guards: type[Any] | None = None  #: an enumeration with a ``doc`` each, where writes may be ignored
    number: str = ""  #: what tells the layouts of ``numbers`` apart
    numbers: Mapping[int, type[Layout]] | None = None
    layouts: Sequence[type[Layout]] = ()


@dataclass(frozen=True)
class Model:
    """One programming model; what a machine file's ``model`` names."""

    name: str
    title: str  #: with the specification
    #: A dataclass of named features, which refuses what cannot be (UsageError); its fields are keys of [[smmu]].
    features: type[Any]
    #: Named beginnings of a feature table; the first is where a table without ``preset`` begins.
    presets: Mapping[str, Mapping[str, Any]]
    #: ID registers that a machine file may set as they read.
    id_registers: Sequence[str]
    #: A dataclass of what else an instance can be told, beside features; likewise keys of [[smmu]], and refused so.
    options: type[Any]
    #: Of made features, ID registers that outweigh them, and options.
    traits: Callable[[Any, Mapping[str, int], Any], Traits]
    make: Make
    #: What an instance holds now: of its caches, how much, unless they are wanted whole.
    state: Callable[..., State]
    #: What can be asked of a State, over memory that is only read.
    inspect: Callable[[State, Reader], Inspection]
    binding: Binding
    records: Sequence[Record]
    causes: Callable[[Layout], tuple[str, ...]]  #: what a report most likely comes from, the likeliest first
    registers: Mapping[str, type[Register]]  #: by name
    offsets: Mapping[int, type[Register]]  #: those of the instance's own window, by offset, each copy
    page1: int  #: offset of a second page whose registers driver's logs may number from its begin; 0: none
    pages: Sequence[Page]
    #: What the compiled core reads fields of, in the order of the C header, and enumerations that it knows.
    layouts: Sequence[type[Layout]]
    enums: Sequence[type[Any]]
