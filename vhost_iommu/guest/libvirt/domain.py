# SPDX-License-Identifier: Apache-2.0
"""A guest as libvirt has it: the XML of a domain, made of qemu-configs/domain.xml and of what QEMU is given.

Law: a value made of values. What libvirt has a word for stands in that word; the rest are QEMU's own arguments, in the
order of a direct start.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from vhost_iommu.config import machines_folder
from vhost_iommu.guest.qemu import Command

#: The namespace of QEMU's own arguments.
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
#: Our sockets by what QEMU connects to them: serial ports, then what libvirt knows nothing of.
CONSOLE, AGENT, MONITOR, DEBUGGER = "console", "agent", "monitor", "debugger"


def xml(command: Command, emulator: Path, sockets: Mapping[str, Path] | None = None) -> str:
    """The domain. ``emulator`` is a program that starts QEMU. ``sockets`` are ours to listen at, by CONSOLE and so on;
    without them the console is a terminal that virsh finds.
    """
    hardware = command.hardware
    text = Template((machines_folder() / "domain.xml").read_text()).substitute(
        accelerator="qemu" if hardware.accelerator == "tcg" else hardware.accelerator,
        gic=hardware.gic,
        name=escape(command.name),
        memory=hardware.memory,
        smp=hardware.smp,
        kernel=escape(str(command.kernel)),
        emulator=escape(str(emulator)),
    )
    # The template's comments are its manual.
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder())
    domain = ElementTree.fromstring(text, parser)
    _boot(_of(domain, "os"), command)
    _serial(_of(domain, "devices"), hardware.agent, sockets)
    line = _of(domain, f"{{{QEMU}}}commandline")
    for argument in _arguments(command, sockets):
        ElementTree.SubElement(line, f"{{{QEMU}}}arg", value=argument)
    ElementTree.register_namespace("qemu", QEMU)
    ElementTree.indent(domain)
    return ElementTree.tostring(domain, encoding="unicode") + "\n"


def _boot(os: ElementTree.Element, command: Command) -> None:
    for tag, value in (("initrd", command.initrd), ("cmdline", command.append), ("dtb", command.dtb)):
        if value is not None:
            ElementTree.SubElement(os, tag).text = str(value)


def _serial(devices: ElementTree.Element, agent: bool, sockets: Mapping[str, Path] | None) -> None:
    """Serial ports in the guest's order."""
    for port in (CONSOLE, AGENT)[: 1 + agent]:
        serial = ElementTree.SubElement(devices, "serial", type="pty" if sockets is None else "unix")
        if sockets is not None:
            ElementTree.SubElement(serial, "source", mode="connect", path=str(sockets[port]))


def _arguments(command: Command, sockets: Mapping[str, Path] | None) -> list[str]:
    """What libvirt has no word for."""
    hardware = command.hardware
    found = ["-machine", ",".join(hardware.options()), "-cpu", hardware.cpu]
    # libvirt has a guest that ended wait until it has looked, for two seconds.
    found += ["-action", "reboot=shutdown,shutdown=poweroff"]
    if sockets is not None:
        for each in (MONITOR, DEBUGGER):
            found += ["-chardev", f"socket,id=vi-{each},path={str(sockets[each]).replace(',', ',,')}"]
        found += ["-qmp", f"chardev:vi-{MONITOR}"]
    return [*found, *command.devices, *command.extra]


def _of(parent: ElementTree.Element, tag: str) -> ElementTree.Element:
    found = parent.find(tag)
    if found is None:
        raise ValueError(f"domain.xml has no <{tag}>")
    return found
