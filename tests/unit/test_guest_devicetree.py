# SPDX-License-Identifier: Apache-2.0
"""The device tree: nodes from the description, and a check of what QEMU's machine is assumed to be."""

from __future__ import annotations

from typing import Any

import fdt
import pytest

from vhost_iommu.guest import devicetree
from vhost_iommu.guest.platform import GuestMaster, GuestSmmu, Platform


def virt(ecam: int = 0x40_1000_0000, v2m: int = 0x0802_0000) -> bytes:
    """As much of QEMU's tree as matters."""
    tree = fdt.FDT()
    for name in ("#address-cells", "#size-cells"):
        tree.set_property(name, 2)
    tree.set_property("kaslr-seed", [1, 2], "/chosen")
    tree.set_property("reg", [ecam >> 32, ecam & 0xFFFF_FFFF, 0, 0x1000_0000], "/pcie@10000000")
    tree.set_property("reg", [0, 0x0900_0000, 0, 0x1000], "/pl011@9000000")
    tree.set_property("reg", [0, 0x0800_0000, 0, 0x1_0000, 0, 0x0801_0000, 0, 0x1_0000], "/intc@8000000")
    tree.set_property("reg", [0, v2m, 0, 0x1000], f"/intc@8000000/v2m@{v2m:x}")
    tree.set_property("phandle", 0x8003, f"/intc@8000000/v2m@{v2m:x}")
    made: bytes = tree.to_dtb(version=17, last_comp_version=16, boot_cpuid_phys=0)
    return made


def edited(platform: Platform) -> Any:
    return fdt.parse_dtb(devicetree.add_machine(virt(), platform))


def words(tree: Any, path: str, name: str) -> list[int]:
    return list(tree.get_property(name, path))


MACHINE = Platform(
    [GuestSmmu("smmu0"), GuestSmmu("smmu1", wired=("eventq", "gerror"))],
    [
        GuestMaster("disk0", "virtio,mmio", "smmu0", (0x20, 0x21)),
        GuestMaster("engine0", "arm,smmute", "smmu1", (1,), properties={"pasid-num-bits": 4, "dma-can-stall": None}),
    ],
)


def test_an_smmu_node_says_where_its_registers_are() -> None:
    tree = edited(MACHINE)
    assert words(tree, "/iommu@10000000", "reg") == [0, 0x1000_0000, 0, 0x2_0000]
    assert tree.get_property("compatible", "/iommu@10000000").value == "arm,smmu-v3"
    assert words(tree, "/iommu@10000000", "#iommu-cells") == [1]
    assert tree.exist_property("dma-coherent", "/iommu@10000000")


def test_an_smmu_that_is_not_coherent_is_not_called_so() -> None:
    tree = edited(Platform([GuestSmmu("smmu0", coherent=False)]))
    assert not tree.exist_property("dma-coherent", "/iommu@10000000")
    assert tree.exist_property("dma-noncoherent", "/iommu@10000000")


def test_an_smmu_has_msis_or_wires_and_never_both() -> None:
    tree = edited(MACHINE)
    second = f"/iommu@{MACHINE.smmus[1][1].base:x}"
    assert words(tree, "/iommu@10000000", "msi-parent") == [0x8003]
    assert not tree.exist_property("interrupts", "/iommu@10000000")
    assert not tree.exist_property("msi-parent", second)
    assert list(tree.get_property("interrupt-names", second).data) == ["eventq", "gerror"]
    assert words(tree, second, "interrupts") == [0, 111, 1, 0, 110, 1]


def test_a_master_names_its_smmu_and_streams() -> None:
    tree = edited(MACHINE)
    path = f"/virtio_mmio@{MACHINE.placed('disk0').window.base:x}"
    smmu = words(tree, "/iommu@10000000", "phandle")[0]
    assert words(tree, path, "iommus") == [smmu, 0x20, smmu, 0x21]
    assert words(tree, path, "interrupts") == [0, 143 - 32 - 2, 1]


def test_further_properties_of_a_master_are_there() -> None:
    tree = edited(MACHINE)
    path = f"/smmute@{MACHINE.placed('engine0').window.base:x}"
    assert words(tree, path, "pasid-num-bits") == [4]
    assert tree.exist_property("dma-can-stall", path)


def test_the_v2m_frame_is_told_of_fewer_interrupts() -> None:
    tree = edited(MACHINE)
    frame = "/intc@8000000/v2m@8020000"
    assert words(tree, frame, "arm,msi-base-spi") == [80]
    assert words(tree, frame, "arm,msi-num-spis") == [60]


def test_linux_is_told_to_leave_bars_alone_and_addresses_are_not_random() -> None:
    tree = edited(MACHINE)
    assert words(tree, "/chosen", "linux,pci-probe-only") == [1]
    assert not tree.exist_property("kaslr-seed", "/chosen")
    assert devicetree.add_machine(virt(), MACHINE) == devicetree.add_machine(virt(), MACHINE)


def test_phandles_are_unique() -> None:
    tree = edited(MACHINE)
    handles = [prop.value for _, _, props in tree.walk() for prop in props if prop.name == "phandle"]
    assert len(handles) == len(set(handles)) == 3


@pytest.mark.parametrize("moved", [{"ecam": 0x3F00_0000}, {"v2m": 0x0803_0000}])
def test_another_machine_than_the_one_we_know_is_noticed(moved: dict[str, int]) -> None:
    with pytest.raises(devicetree.UnknownMachineError):
        devicetree.add_machine(virt(**moved), MACHINE)


def test_the_source_of_what_is_added_is_what_is_added() -> None:
    added, whole = fdt.parse_dts(devicetree.source(MACHINE)), edited(MACHINE)
    for tree in (added, whole):
        assert tree.get_property("arm,msi-num-spis", "/intc@8000000/v2m@8020000").value == 60
    nodes = [node for node in whole.root.nodes if node.get_property("label") is not None]
    assert len(nodes) == 4
    for node in nodes:
        ours = added.get_node(f"/{node.name}")
        for prop in node.props:
            if prop.name not in ("phandle", "iommus", "msi-parent"):
                assert ours.get_property(prop.name) == prop


def test_the_source_refers_by_labels() -> None:
    lines = devicetree.source(MACHINE).splitlines()
    assert "\tsmmu0: iommu@10000000 {" in lines
    assert "\t\tmsi-parent = <&virt_v2m>;" in lines
    assert "\t\tiommus = <&smmu0 0x20 &smmu0 0x21>;" in lines
    assert "\tinterrupt-parent = <&virt_gic>;" in lines
    assert not any("phandle" in line for line in lines)


def test_beside_a_gicv3_the_redistributors_are_where_they_are_expected() -> None:
    tree = fdt.parse_dtb(virt())
    tree.set_property("compatible", "arm,gic-v3", "/intc@8000000")
    with pytest.raises(devicetree.UnknownMachineError, match="redistributors is at 0x8010000, not 0x80a0000"):
        devicetree.add_machine(tree.to_dtb(version=17, last_comp_version=16, boot_cpuid_phys=0), MACHINE)
    tree.set_property("reg", [0, 0x0800_0000, 0, 0x1_0000, 0, 0x080A_0000, 0, 0xF6_0000], "/intc@8000000")
    devicetree.add_machine(tree.to_dtb(version=17, last_comp_version=16, boot_cpuid_phys=0), MACHINE)


def test_the_source_names_the_gic_that_the_machine_has() -> None:
    assert '"arm,cortex-a15-gic"' in devicetree.source(MACHINE)
    assert '"arm,gic-v3"' in (text := devicetree.source(MACHINE, 3))
    assert "0x80a0000" in text
