# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu map``: what a program that no launcher helps must know of a machine, and what it must write first.

Law: the numbers are platform.py's; here they are put into words, once, and every form is made of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from vhost_iommu.config import MachineConfig
from vhost_iommu.guest import platform as at
from vhost_iommu.guest.mapping import platform_of
from vhost_iommu.guest.platform import Function, Window

_REGISTERS = {at.PCI_BAR0: "BAR0", at.PCI_BAR2: "BAR2", at.PCI_COMMAND: "COMMAND"}

Address = dict[str, Any]


def address_map(config: MachineConfig) -> dict[str, Any]:
    """Addresses are the CPU's, sizes bytes, interrupts INTIDs; ``writes`` are 32-bit stores, to be done in order."""
    platform = platform_of(config)
    return {
        "machine": config.name,
        "ram": {"base": at.RAM, "size": config.guest.memory},
        "uart": at.UART,
        "gic": {
            "version": config.guest.gic,
            "distributor": at.GICD,
            **({"redistributors": at.GICR} if config.guest.gic == 3 else {"cpu_interface": at.GICC}),
        },
        "msi": {
            "doorbell": at.V2M_DOORBELL,
            "first_intid": platform.msi_intids.start,
            "intids": len(platform.msi_intids),
        },
        "ecam": at.ECAM,
        "functions": [
            {
                "name": function.name,
                "slot": function.slot,
                "config": function.config,
                "bar0": None if function.bar0 is None else _window(function.bar0),
                "bar2": None if function.bar2 is None else _window(function.bar2),
            }
            for function in platform.functions
        ],
        "smmus": [
            {
                "name": smmu.name,
                "compatible": smmu.binding.compatible,
                "function": function.name,
                "registers": {"base": registers.base, "size": smmu.binding.registers_size},
                "interrupts": dict(function.intids),
                "companions": [
                    {
                        "name": each.name,
                        "compatible": each.compatible,
                        "windows": [{"base": registers.base + at, "size": size} for at, size in each.windows],
                        "interrupt": function.intids.get(each.wire),
                    }
                    for each in smmu.companions
                ],
            }
            for smmu, registers, function in platform.smmus
        ],
        "masters": [
            {
                "name": placed.master.name,
                "compatible": placed.master.compatible,
                "smmu": placed.master.smmu,
                "registers": _window(placed.window),
                "interrupt": placed.intid,
                "stream_ids": list(placed.master.stream_ids),
            }
            for placed in platform.masters
        ],
        "writes": [write for function in platform.functions for write in _writes(function)],
    }


def _window(window: Window) -> Address:
    return {"base": window.base, "size": window.size}


def _writes(function: Function) -> Iterator[Address]:
    for address, value in function.writes():
        yield {
            "address": address,
            "value": value,
            "register": f"{function.name} {_REGISTERS[address - function.config]}",
        }


def as_json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1)


def as_text(found: dict[str, Any]) -> str:
    """A line for each number: whose, which, the number, and more of it."""
    rows = list(_rows(found))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join(f"{cell:{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
                     for row in rows)  # fmt: skip


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    def span(window: Address) -> tuple[str, str]:
        return f"{window['base']:#x}", f"size {window['size']:#x}"

    msi = found["msi"]
    yield "virt", "ram", *span(found["ram"])
    yield "virt", "uart", f"{found['uart']:#x}", "PL011"
    gic = found["gic"]
    yield "virt", "gicd", f"{gic['distributor']:#x}", f"GICv{gic['version']}, distributor"
    if "redistributors" in gic:
        yield "virt", "gicr", f"{gic['redistributors']:#x}", "GICv3, redistributors"
    else:
        yield "virt", "gicc", f"{gic['cpu_interface']:#x}", "GICv2, CPU interface"
    yield "virt", "ecam", f"{found['ecam']:#x}", "configuration space of PCI bus 0"
    yield (
        "virt", "msi", f"{msi['doorbell']:#x}",
        f"GICv2m doorbell, takes INTIDs {msi['first_intid']} to {msi['first_intid'] + msi['intids'] - 1}",
    )  # fmt: skip
    for function in found["functions"]:
        name = function["name"]
        yield name, "config", f"{function['config']:#x}", f"configuration space, PCI slot {function['slot']}"
        for bar in ("bar0", "bar2"):
            if function[bar] is not None:
                yield name, bar, *span(function[bar])
    for smmu in found["smmus"]:
        name = smmu["name"]
        yield name, "registers", *span(smmu["registers"])
        for source, intid in smmu["interrupts"].items():
            yield name, source, str(intid), "INTID, edge"
        if not smmu["interrupts"]:
            yield name, "interrupts", "MSIs", "to the doorbell that software writes into its registers"
        for companion in smmu["companions"]:
            for window in companion["windows"]:
                yield name, companion["name"], *span(window)
    for master in found["masters"]:
        name = master["name"]
        yield name, "registers", *span(master["registers"])
        if master["interrupt"] is not None:
            yield name, "interrupt", str(master["interrupt"]), "INTID, edge"
        if master["smmu"] is None:
            yield name, "stream", "none", "its addresses are physical"
        for sid in master["stream_ids"]:
            yield name, "stream", f"{sid:#x}", f"StreamID at {master['smmu']}"
    for write in found["writes"]:
        yield "write", f"{write['address']:#x}", f"{write['value']:#x}", f"32 bits, {write['register']}"


def as_header(found: dict[str, Any]) -> str:
    """For C, and for assembly: constants without a suffix, whose type C finds by their size."""
    numbers: list[tuple[str, str]] = []

    def number(name: str, value: int, form: str = "#x") -> None:
        numbers.append((name, f"{value:{form}}"))

    def window(name: str, window: Address) -> None:
        number(f"{name}_BASE", window["base"])
        number(f"{name}_SIZE", window["size"])

    window("VIRT_RAM", found["ram"])
    number("VIRT_UART", found["uart"])
    number("VIRT_GICD", found["gic"]["distributor"])
    if "redistributors" in found["gic"]:
        number("VIRT_GICR", found["gic"]["redistributors"])
    else:
        number("VIRT_GICC", found["gic"]["cpu_interface"])
    number("VIRT_ECAM", found["ecam"])
    number("VIRT_MSI_DOORBELL", found["msi"]["doorbell"])
    number("VIRT_MSI_FIRST_INTID", found["msi"]["first_intid"], "d")
    number("VIRT_MSI_INTIDS", found["msi"]["intids"], "d")
    for function in found["functions"]:
        name = _constant(function["name"])
        number(f"{name}_CONFIG", function["config"])
        for bar in ("bar0", "bar2"):
            if function[bar] is not None:
                number(f"{name}_{bar.upper()}", function[bar]["base"])
    for smmu in found["smmus"]:
        name = _constant(smmu["name"])
        window(name, smmu["registers"])
        for source, intid in smmu["interrupts"].items():
            number(f"{name}_{_constant(source)}_INTID", intid, "d")
    for master in found["masters"]:
        name = _constant(master["name"])
        window(name, master["registers"])
        if master["interrupt"] is not None:
            number(f"{name}_INTID", master["interrupt"], "d")
        sids = [f"{sid:#x}" for sid in master["stream_ids"]]
        if sids:
            numbers += [(f"{name}_STREAM_ID", sids[0]), (f"{name}_STREAM_IDS", f"{{ {', '.join(sids)} }}")]
    stores = [f"{{ {write['address']:#x}, {write['value']:#x} }}" for write in found["writes"]]
    width = max(len(name) for name, _ in numbers)
    return "\n".join(
        [
            f"/* Made by 'vhost-iommu map {found['machine']} --c-header': CPU addresses, bytes, INTIDs. */",
            "#ifndef VI_MAP_H",
            "#define VI_MAP_H",
            "",
            *(f"#define VI_{name:{width}} {value}" for name, value in numbers),
            "",
            "/* 32-bit stores that come before all else, in order: BARs, then COMMAND. Initialises an array of",
            "   struct { unsigned long address; unsigned int value; }. */",
            f"#define VI_WRITES {{ \\\n\t{', '.join(stores)} }}".replace(" }, {", " }, \\\n\t{"),
            f"#define VI_WRITE_COUNT {len(stores)}",
            "",
            "#endif",
        ]
    )


def _constant(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()
