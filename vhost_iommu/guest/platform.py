# SPDX-License-Identifier: Apache-2.0
"""Where everything of a machine lies in its guest: PCI slots, BAR addresses, configuration space, interrupts.

Law: pure data computed from the description alone, so that whoever needs an address computes the same one; no I/O.
The fixed numbers are QEMU's ``virt`` machine with a GICv2m frame; devicetree.py compares them with its device tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vhost_iommu.config import UNTRANSLATED
from vhost_iommu.errors import UsageError
from vhost_iommu.models import DEFAULT, MODELS
from vhost_iommu.smmu.model import Binding, Companion

RAM = 0x4000_0000
GICD = 0x0800_0000  #: distributor of the interrupt controller, of either version
GICC = 0x0801_0000  #: CPU interface of the GICv2
GICR = 0x080A_0000  #: redistributors of the GICv3
UART = 0x0900_0000  #: a PL011, the console
ECAM = 0x40_1000_0000  #: configuration space of bus 0, with highmem
PCI_MEMORY = range(0x1000_0000, 0x3EFF_0000)  #: the 32-bit window, addresses as the CPU sees them
V2M = 0x0802_0000  #: the GICv2m frame
V2M_DOORBELL = V2M + 0x40  #: a 4-byte write of an INTID here raises that interrupt
V2M_INTIDS = range(80, 144)
SPI_BASE = 32  #: INTID of SPI 0
PCI_SPI = 3  #: of the four lines that pins are on, by slot; a level each

#: From the last one down: slot 0 is the host bridge, and QEMU fills the next ones with what has no address, its own
#: network card first, so that ours collide with nothing.
SLOTS = range(31, 0, -1)
WINDOW_ALIGNMENT = 0x1_0000  #: the largest page of any kernel, so that two windows never share one

PCI_COMMAND, PCI_BAR0, PCI_BAR2 = 0x04, 0x10, 0x18
COMMAND_MEMORY, COMMAND_MASTER = 1 << 1, 1 << 2

#: Properties of masters: how many PASIDs they have, and that they can wait for a stall.
PASID_BITS, CAN_STALL = "pasid-num-bits", "dma-can-stall"

#: What a device tree property may hold: cells, a string, nothing (a flag), or several of a kind.
Property = int | str | None | list[int] | list[str]


@dataclass(frozen=True)
class GuestSmmu:
    """One SMMU instance: BAR0 of a PCI function."""

    name: str
    binding: Binding = MODELS[DEFAULT].binding
    wired: tuple[str, ...] = ()  #: of its and its companions' interrupts; none: MSIs
    line: bool = False  #: all of them are on the PCI function's pin
    msi: bool = True  #: the device tree names the v2m frame as its MSI parent
    granules: frozenset[int] = frozenset({4096, 16384, 65536})  #: bytes
    coherent: bool = True  #: what firmware says of its table walks; it should agree with IDR0.COHACC
    properties: Mapping[str, Property] = field(default_factory=dict)  #: further ones of its node
    companions: tuple[Companion, ...] = ()

    @property
    def interrupts(self) -> tuple[str, ...]:
        """Names that its lines may have, in order; companions' last."""
        return (*self.binding.interrupts, *(each.wire for each in self.companions))

    @property
    def size(self) -> int:
        """Bytes of all its windows."""
        ends = [offset + size for each in self.companions for offset, size in each.windows]
        return max([self.binding.registers_size, *ends])


@dataclass(frozen=True)
class GuestMaster:
    """One DMA master: a window of its function's BAR2, and a platform device to the guest."""

    name: str
    compatible: str  #: "virtio,mmio" or "arm,smmute"
    smmu: str | None  #: name of its SMMU, if it is behind one
    stream_ids: tuple[int, ...]
    size: int = 0x1_0000  #: bytes of registers
    offset: int | None = None  #: in BAR2, a multiple of 64 KiB; None: behind the master before it
    interrupt: bool = True  #: has a wired interrupt
    properties: Mapping[str, Property] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """[base, base + size) of the guest's physical addresses."""

    base: int
    size: int

    @property
    def end(self) -> int:
        return self.base + self.size


@dataclass(frozen=True)
class Placed:
    """A master where the guest finds it; ``intid`` is None without a wired interrupt."""

    master: GuestMaster
    offset: int
    window: Window
    intid: int | None


@dataclass(frozen=True)
class Function:
    """The PCI function of one SMMU and of the masters behind it, or of those behind none.

    ``bar0`` is None without an SMMU, ``bar2`` without masters.
    """

    name: str
    smmu: GuestSmmu | None
    slot: int
    bar0: Window | None
    bar2: Window | None
    intids: Mapping[str, int]  #: of its wired interrupts by name
    masters: tuple[Placed, ...]

    @property
    def config(self) -> int:
        """Guest physical address of its configuration space."""
        return ECAM + (self.slot << 15)

    @property
    def line(self) -> int:
        """INTID of its pin."""
        return SPI_BASE + PCI_SPI + self.slot % 4

    def writes(self) -> list[tuple[int, int]]:
        """(address, 32-bit value) stores, in order, that firmware would do to make it work."""
        bars = ((PCI_BAR0, self.bar0), (PCI_BAR2, self.bar2))
        placed = [(self.config + at, bar.base) for at, bar in bars if bar is not None]
        return [*placed, (self.config + PCI_COMMAND, COMMAND_MEMORY | COMMAND_MASTER)]


class Platform:
    """The guest's map of one machine."""

    def __init__(self, smmus: Iterable[GuestSmmu], masters: Iterable[GuestMaster] = ()) -> None:
        """UsageError: names clash, a master names no SMMU, windows overlap, or there is no room."""
        smmus, masters = tuple(smmus), tuple(masters)
        names = [smmu.name for smmu in smmus] + [master.name for master in masters]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two parts of the machine are called {name}; rename one")
        known = {smmu.name for smmu in smmus}
        for master in masters:
            if master.smmu is not None and master.smmu not in known:
                raise UsageError(f"{master.name} is behind {master.smmu}, which is not there; name an SMMU")
        fronts: list[GuestSmmu | None] = [*smmus]
        if any(master.smmu is None for master in masters):
            fronts.append(None)
        if len(fronts) > len(SLOTS):
            raise UsageError(f"{len(fronts)} PCI functions need more slots than {len(SLOTS)}; take fewer SMMUs")

        intids = self._intids(smmus, masters)
        functions = []
        at = PCI_MEMORY.start
        for slot, smmu in zip(SLOTS, fronts, strict=False):
            name = UNTRANSLATED if smmu is None else smmu.name
            offsets = _offsets([master for master in masters if (master.smmu or UNTRANSLATED) == name])
            bar0 = bar2 = None
            if smmu is not None:
                bar0 = _place(at, _power_of_two(max(smmu.size, WINDOW_ALIGNMENT)))
                at = bar0.end
            if offsets:
                size = max(offset + master.size for master, offset in offsets)
                bar2 = _place(at, _power_of_two(max(size, WINDOW_ALIGNMENT)))
                at = bar2.end
            if at > PCI_MEMORY.stop:
                raise UsageError("the masters' windows need more than the 752 MiB of the PCI window; make them smaller")
            placed = [
                Placed(master, offset, Window(bar2.base + offset, master.size), intids.get((master.name, "")))
                for master, offset in offsets
                if bar2 is not None
            ]
            wired = {} if smmu is None else {source: intids[smmu.name, source] for source in smmu.wired}
            functions.append(Function(name, smmu, slot, bar0, bar2, wired, tuple(placed)))
        self.functions = tuple(functions)
        #: INTIDs that are left for MSIs.
        self.msi_intids = range(V2M_INTIDS.start, V2M_INTIDS.stop - len(intids))

    @staticmethod
    def _intids(smmus: tuple[GuestSmmu, ...], masters: tuple[GuestMaster, ...]) -> dict[tuple[str, str], int]:
        """INTID of each (device, name of the interrupt), from the top of the v2m frame down."""
        for smmu in smmus:
            known = smmu.interrupts
            if unknown := [name for name in smmu.wired if name not in known]:
                raise UsageError(f"{smmu.name} has no interrupt {unknown[0]}; take {', '.join(known)}")
        wires = [(smmu.name, name) for smmu in smmus for name in smmu.interrupts if name in smmu.wired]
        wires += [(master.name, "") for master in masters if master.interrupt]
        msis = sum(smmu.binding.messages + len(smmu.companions) for smmu in smmus if smmu.msi and not smmu.wired)
        if len(wires) + msis > len(V2M_INTIDS):
            raise UsageError(
                f"the machine needs {len(wires) + msis} interrupts of {len(V2M_INTIDS)}; take fewer masters"
            )
        return {wire: V2M_INTIDS.stop - 1 - index for index, wire in enumerate(wires)}

    @property
    def masters(self) -> tuple[Placed, ...]:
        return tuple(placed for function in self.functions for placed in function.masters)

    @property
    def smmus(self) -> tuple[tuple[GuestSmmu, Window, Function], ...]:
        """Each SMMU with the window of its registers and its function."""
        return tuple((f.smmu, f.bar0, f) for f in self.functions if f.smmu is not None and f.bar0 is not None)

    def function(self, name: str) -> Function:
        """KeyError when there is no such function."""
        return {function.name: function for function in self.functions}[name]

    def placed(self, master: str) -> Placed:
        """KeyError when there is no such master."""
        return {placed.master.name: placed for placed in self.masters}[master]

    def intid(self, device: str, name: str = "") -> int | None:
        """What to write to V2M_DOORBELL to raise a master's interrupt, or the one of an SMMU that is so named."""
        for function in self.functions:
            if function.name == device:
                return function.intids.get(name)
        return self.placed(device).intid

    def writes(self) -> list[tuple[int, int]]:
        """(address, 32-bit value) stores that make every function reachable and a bus master."""
        return [write for function in self.functions for write in function.writes()]

    def granules(self) -> frozenset[int]:
        """Page sizes in bytes that every SMMU has."""
        sizes = frozenset({4096, 16384, 65536})
        for smmu, _, _ in self.smmus:
            sizes &= smmu.granules
        return sizes

    def require_granule(self, page_size: int, kernel: str) -> None:
        """UsageError when an SMMU lacks the kernel's page size, on which its driver would fail a BUG_ON."""
        for smmu, _, _ in self.smmus:
            if page_size and page_size not in smmu.granules:
                have = ", ".join(f"{size >> 10}K" for size in sorted(smmu.granules))
                raise UsageError(
                    f"{kernel} has pages of {page_size >> 10}K, but {smmu.name} only translates {have}; "
                    "take a kernel or a machine that agrees with the other"
                )


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _place(at: int, size: int) -> Window:
    """The first naturally aligned window of ``size`` bytes from ``at`` up."""
    return Window(-(-at // size) * size, size)


def _offsets(masters: list[GuestMaster]) -> list[tuple[GuestMaster, int]]:
    """Each master with its offset in BAR2, in the order given."""
    found: list[tuple[GuestMaster, int]] = []
    end = 0
    for master in masters:
        offset = end if master.offset is None else master.offset
        if offset % WINDOW_ALIGNMENT or master.size <= 0:
            raise UsageError(f"{master.name} is at {offset:#x} of its BAR; choose a multiple of 64 KiB")
        for other, start in found:
            if offset < start + other.size and start < offset + master.size:
                raise UsageError(f"the windows of {other.name} and {master.name} overlap; move one")
        found.append((master, offset))
        end = -(-(offset + master.size) // WINDOW_ALIGNMENT) * WINDOW_ALIGNMENT
    return found
