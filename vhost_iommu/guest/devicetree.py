# SPDX-License-Identifier: Apache-2.0
"""The guest's device tree: QEMU's own, plus SMMUs, the masters behind them, and what was taken from the v2m frame.

Law: every node comes from the platform's description, none is written by hand, and what platform.py assumes of
QEMU's machine is compared with the tree that QEMU made. As source text it is the part that is added alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fdt

from vhost_iommu.guest import platform as at
from vhost_iommu.guest.platform import Function, GuestSmmu, Placed, Platform, Property, Window
from vhost_iommu.smmu.model import Companion

IRQ_EDGE_RISING = 1
IRQ_LEVEL_HIGH = 4
GIC_SPI = 0
#: Bytes of a GICv3's redistributors, of all CPUs that QEMU's machine could have there.
_REDISTRIBUTORS = 0xF6_0000
#: Properties that refer to nodes, and by how many cells each time.
_REFERENCES = {"interrupt-parent": 1, "msi-parent": 1, "iommus": 2}
_NODES = {"virtio,mmio": "virtio_mmio", "arm,smmute": "smmute"}


class UnknownMachineError(Exception):
    """QEMU's machine is not the one whose addresses platform.py knows: our fault, not the operator's."""


def add_machine(dtb: bytes, platform: Platform) -> bytes:
    """``dtb``, made by QEMU, with the machine's nodes added."""
    tree = fdt.parse_dtb(dtb)
    v2m = _checked(tree)
    phandle = _last_phandle(tree)
    # BARs are where the shim puts them; Linux must not move them.
    tree.set_property("linux,pci-probe-only", 1, "/chosen")
    _fixed_seed(tree)

    frame = tree.get_node(v2m)
    _tell_frame(frame, platform)
    for node in _added(platform, phandle, frame.get_property("phandle").value):
        tree.add_item(node)
    written: bytes = tree.to_dtb(version=17, last_comp_version=16, boot_cpuid_phys=0)
    return written


def source(platform: Platform, gic_version: int = 2) -> str:
    """What add_machine adds, as text for dtc with labels; the GIC, to which it refers, is there as QEMU has it.

    Nodes of the same path are one to dtc: behind the source of QEMU's own tree it adds to that.
    """
    gic, v2m = 1, 2
    labels = {gic: "virt_gic", v2m: "virt_v2m"}  # no part of a machine has a _ in its name
    root, controller, frame = fdt.Node("/"), fdt.Node(f"intc@{at.GICD:x}"), fdt.Node(f"v2m@{at.V2M:x}")
    _set(root, "#address-cells", 2)
    _set(root, "#size-cells", 2)
    _set(root, "interrupt-parent", gic)
    third = gic_version == 3
    _set(controller, "compatible", "arm,gic-v3" if third else "arm,cortex-a15-gic")
    _set(
        controller, "reg", [*_cells(at.GICD, 0x1_0000), *_cells(_second(third), _REDISTRIBUTORS if third else 0x1_0000)]
    )
    if third:
        _set(controller, "#redistributor-regions", 1)
    _set(controller, "#interrupt-cells", 3)
    _set(controller, "interrupt-controller", None)
    _set(controller, "#address-cells", 2)
    _set(controller, "#size-cells", 2)
    _set(controller, "ranges", None)
    _set(controller, "phandle", gic)
    _set(frame, "compatible", "arm,gic-v2m-frame")
    _set(frame, "reg", _cells(at.V2M, 0x1000))
    _set(frame, "msi-controller", None)
    _set(frame, "phandle", v2m)
    _tell_frame(frame, platform)
    controller.append(frame)
    chosen = fdt.Node("chosen")
    _set(chosen, "linux,pci-probe-only", 1)
    for node in (controller, chosen, *_added(platform, v2m, v2m)):
        root.append(node)
        if node.get_property("#iommu-cells") is not None:
            labels[node.get_property("phandle").value] = re.sub(r"\W", "_", node.get_property("label").value)
    return "/dts-v1/;\n\n" + "\n".join(_lines(root, labels)) + "\n"


def _lines(node: Any, labels: Mapping[int, str]) -> Iterator[str]:
    """The text of a node; who has a label is named by it."""
    handle = node.get_property("phandle")
    yield f"{f'{labels[handle.value]}: ' if handle is not None else ''}{node.name} {{"
    for prop in node.props:
        if prop.name != "phandle":
            yield f"\t{prop.name}{_value(prop, labels)};"
    for child in node.nodes:
        yield ""
        yield from (f"\t{line}".rstrip() for line in _lines(child, labels))
    yield "};"


def _value(prop: Any, labels: Mapping[int, str]) -> str:
    if isinstance(prop, fdt.PropStrings):
        return " = " + ", ".join(f'"{text}"' for text in prop.data)
    if not isinstance(prop, fdt.PropWords):
        return ""
    every = _REFERENCES.get(prop.name, 0)  # of how many cells the first is a phandle
    cells = (
        f"&{labels[word]}" if every and index % every == 0 else f"{word:#x}" for index, word in enumerate(prop.data)
    )
    return f" = <{' '.join(cells)}>"


def _tell_frame(frame: Any, platform: Platform) -> None:
    frame.set_property("arm,msi-base-spi", platform.msi_intids.start)
    frame.set_property("arm,msi-num-spis", len(platform.msi_intids))


def _added(platform: Platform, last_phandle: int, msi_parent: int) -> Iterator[Any]:
    """The nodes of SMMUs and masters, with the phandles that follow ``last_phandle``."""
    phandles = {}
    for phandle, (smmu, registers, function) in enumerate(platform.smmus, last_phandle + 1):
        phandles[smmu.name] = phandle
        yield _smmu_node(smmu, registers, function, phandle, msi_parent)
        for companion in smmu.companions:
            yield _companion_node(companion, smmu, registers, function, msi_parent)
    for placed in platform.masters:
        yield _master_node(placed, None if placed.master.smmu is None else phandles[placed.master.smmu])


def _smmu_node(smmu: GuestSmmu, registers: Window, function: Function, phandle: int, msi_parent: int) -> Any:
    node = fdt.Node(f"iommu@{registers.base:x}")
    _set(node, "compatible", smmu.binding.compatible)
    _set(node, "reg", _cells(registers.base, smmu.binding.registers_size))
    _set(node, "#iommu-cells", 1)
    # Without a word it would inherit the root's, which is coherent.
    _set(node, "dma-coherent" if smmu.coherent else "dma-noncoherent", None)
    if smmu.line:
        line = [GIC_SPI, function.line - at.SPI_BASE, IRQ_LEVEL_HIGH]
        _set(node, "interrupts", line * len(smmu.binding.interrupts))
    elif smmu.wired:
        own = [name for name in smmu.binding.interrupts if name in function.intids]
        _set(node, "interrupts", [cell for name in own for cell in _interrupt(function.intids[name])])
        if smmu.binding.named:
            _set(node, "interrupt-names", own)
    elif smmu.msi:
        _set(node, "msi-parent", msi_parent)
    _set(node, "label", smmu.name)
    for name, value in (*smmu.binding.properties.items(), *smmu.properties.items()):
        _set(node, name, value)
    _set(node, "phandle", phandle)
    return node


def _companion_node(
    companion: Companion, smmu: GuestSmmu, registers: Window, function: Function, msi_parent: int
) -> Any:
    windows = [(registers.base + offset, size) for offset, size in companion.windows]
    node = fdt.Node(f"{companion.name}@{windows[0][0]:x}")
    _set(node, "compatible", companion.compatible)
    _set(node, "reg", [cell for window in windows for cell in _cells(*window)])
    if companion.wire in function.intids:
        _set(node, "interrupts", _interrupt(function.intids[companion.wire]))
    elif smmu.msi:
        _set(node, "msi-parent", msi_parent)
    _set(node, "label", f"{smmu.name}-{companion.wire}")
    return node


def _master_node(placed: Placed, smmu: int | None) -> Any:
    master = placed.master
    node = fdt.Node(f"{node_name(master.compatible)}@{placed.window.base:x}")
    _set(node, "compatible", master.compatible)
    _set(node, "reg", _cells(placed.window.base, placed.window.size))
    if smmu is not None:
        _set(node, "iommus", [cell for sid in master.stream_ids for cell in (smmu, sid)])
    _set(node, "dma-coherent", None)
    if placed.intid is not None:
        _set(node, "interrupts", _interrupt(placed.intid))
    _set(node, "label", master.name)
    for name, value in master.properties.items():
        _set(node, name, value)
    return node


def node_name(compatible: str) -> str:
    """The generic name of a node; Linux calls the device ``<address>.<this>``."""
    return _NODES.get(compatible, compatible.rpartition(",")[2])


def _interrupt(intid: int) -> list[int]:
    # The v2m frame pulses its lines.
    return [GIC_SPI, intid - at.SPI_BASE, IRQ_EDGE_RISING]


def _cells(address: int, size: int) -> list[int]:
    return [address >> 32, address & 0xFFFF_FFFF, size >> 32, size & 0xFFFF_FFFF]


def _set(node: Any, name: str, value: Property) -> None:
    if value == []:
        raise ValueError(f"{node.name}: {name} holds nothing")
    node.set_property(name, value)


def _fixed_seed(tree: Any) -> None:
    """Bytes for the guest's random number generator, the same in each run: nothing waits, and runs repeat."""
    chosen = tree.get_node("/chosen")
    for name in ("kaslr-seed", "rng-seed"):
        if chosen.get_property(name) is not None:
            chosen.remove_property(name)
    chosen.set_property("rng-seed", [0x9E37_79B9 * (index + 1) & 0xFFFF_FFFF for index in range(16)])


def _checked(tree: Any) -> str:
    """The path of the v2m frame; UnknownMachineError when an address differs from what platform.py says."""
    ecam = _reg(tree, "pcie@10000000")
    if ecam != at.ECAM:
        raise UnknownMachineError(f"PCI configuration space is at {ecam:#x}, not {at.ECAM:#x}")
    gic = next((node for node in tree.root.nodes if node.name.startswith("intc@")), None)
    frame = next((node for node in gic.nodes if node.name.startswith("v2m@")), None) if gic is not None else None
    if gic is None or frame is None:
        raise UnknownMachineError("there is no GICv2m frame")
    third = "arm,gic-v3" in (gic.get_property("compatible").data if gic.exist_property("compatible") else ())
    for node, where, expected in (
        ("the GIC's distributor", gic.get_property("reg")[1], at.GICD),
        ("its redistributors" if third else "its CPU interface", gic.get_property("reg")[5], _second(third)),
        ("the GICv2m frame", frame.get_property("reg")[1], at.V2M),
        ("the console", _reg(tree, f"pl011@{at.UART:x}"), at.UART),
    ):
        if where != expected:
            raise UnknownMachineError(f"{node} is at {where:#x}, not {expected:#x}")
    if tree.root.get_property("#address-cells").value != 2 or tree.root.get_property("#size-cells").value != 2:
        raise UnknownMachineError("addresses of the device tree do not have two cells")
    return f"/{gic.name}/{frame.name}"


def _second(third: bool) -> int:
    """The second of the GIC's windows."""
    return at.GICR if third else at.GICC


def _reg(tree: Any, name: str) -> int:
    node = next((node for node in tree.root.nodes if node.name == name), None)
    if node is None:
        raise UnknownMachineError(f"there is no {name}")
    cells: Sequence[int] = node.get_property("reg")
    return cells[0] << 32 | cells[1]


def _last_phandle(tree: Any) -> int:
    return max((prop.value for _, _, props in tree.walk() for prop in props if prop.name == "phandle"), default=0)
