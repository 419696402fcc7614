# SPDX-License-Identifier: Apache-2.0
"""The domain that libvirt is given: what it says of a guest in libvirt's words, and what in QEMU's."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from vhost_iommu.guest import qemu
from vhost_iommu.guest.libvirt.domain import xml
from vhost_iommu.guest.libvirt.warden import names

SOCKETS = {name: Path(f"/run/a,b/{name}") for name in ("console", "agent", "monitor", "debugger")}
GUEST = qemu.Command(
    ("qemu",),
    qemu.Hardware(memory=64, cpu="max,sve=off", smp=2),
    Path("/k/shim<1>"),
    initrd=Path("/k/initrd"),
    append="a=b & c",
    dtb=Path("/k/dtb"),
    devices=("-device", '{"driver": "vfio-user-pci"}'),
    extra=("-d", "unimp"),
    name="two",
)
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"


def domain(command: qemu.Command = GUEST, sockets: dict[str, Path] | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(xml(command, Path("/bin/qemu"), sockets))


def arguments(root: ElementTree.Element) -> list[str | None]:
    return [each.get("value") for each in root.iter(f"{QEMU}arg")]


def test_what_libvirt_has_a_word_for_stands_in_that_word() -> None:
    root = domain()
    said = {tag: root.findtext(f"os/{tag}") for tag in ("kernel", "initrd", "cmdline", "dtb")}
    assert said == {"kernel": "/k/shim<1>", "initrd": "/k/initrd", "cmdline": "a=b & c", "dtb": "/k/dtb"}
    assert (root.findtext("name"), root.findtext("memory"), root.findtext("vcpu")) == ("two", "64", "2")
    assert root.findtext("devices/emulator") == "/bin/qemu"


def test_memory_is_shared_with_the_vfio_user_server() -> None:
    root = domain()
    assert [each.attrib for each in root.iterfind("memoryBacking/*")] == [{"type": "memfd"}, {"mode": "shared"}]


def test_all_else_is_qemus_own_in_the_order_of_a_direct_start() -> None:
    found = arguments(domain())
    assert found[:4] == ["-machine", "dtb-randomness=off", "-cpu", "max,sve=off"]
    assert found[-4:] == [*GUEST.devices, *GUEST.extra]


def test_a_guest_that_is_watched_connects_to_our_sockets() -> None:
    root = domain(sockets=SOCKETS)
    assert [each.attrib for each in root.iterfind("devices/serial/source")] == [
        {"mode": "connect", "path": "/run/a,b/console"}
    ]
    assert "socket,id=vi-monitor,path=/run/a,,b/monitor" in arguments(root)


def test_a_live_guest_has_a_second_port_behind_the_console() -> None:
    command = qemu.Command(("qemu",), qemu.Hardware(agent=True), Path("/k"))
    root = domain(command, SOCKETS)
    assert [each.get("path") for each in root.iterfind("devices/serial/source")] == [
        "/run/a,b/console", "/run/a,b/agent",
    ]  # fmt: skip


def test_a_guest_that_is_started_by_hand_has_a_terminal() -> None:
    root = domain()
    assert [each.attrib for each in root.iterfind("devices/serial")] == [{"type": "pty"}]
    assert "-qmp" not in arguments(root)


def test_gic_and_accelerator_are_in_libvirts_words() -> None:
    root = domain(qemu.Command(("qemu",), qemu.Hardware(gic=3, accelerator="kvm", cpu="host"), Path("/k")))
    gic = root.find("features/gic")
    assert gic is not None
    assert (root.get("type"), gic.get("version")) == ("kvm", "3")
    assert "dtb-randomness=off,msi=gicv2m" in arguments(root)


def test_a_domain_is_the_servers_whose_socket_it_names() -> None:
    device = ["-device", '{"driver": "vfio-user-pci", "socket": {"type": "unix", "path": "/run/x/smmu0.sock"}}']
    described = xml(qemu.Command(("qemu",), qemu.Hardware(), Path("/k"), devices=tuple(device)), Path("/bin/qemu"))
    assert names(described, ["/run/y.sock", "/run/x/smmu0.sock"])
    assert not names(described, ["/run/x/smmu0", "/run/x/smmu0.sock2", "/k"])
    assert not names(xml(GUEST, Path("/bin/qemu")), ["/run/x/smmu0.sock"])
