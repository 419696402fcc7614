# SPDX-License-Identifier: Apache-2.0
"""From a machine file to what its guest is told."""

from __future__ import annotations

from vhost_iommu.config import parse_machine
from vhost_iommu.guest.mapping import platform_of

MACHINE = """
[guest]
kind = "linux"
[[smmu]]
name = "smmu0"
substream_id_bits = 10
[[master]]
name = "plain"
kind = "engine"
smmu = "smmu0"
stream_ids = [1]
[[master]]
name = "able"
kind = "engine"
smmu = "smmu0"
stream_ids = [2]
pasid_bits = 8
can_stall = true
"""


def test_a_master_that_has_pasids_and_can_stall_is_said_to() -> None:
    platform = platform_of(parse_machine(MACHINE))
    assert platform.placed("able").master.properties == {"pasid-num-bits": 8, "dma-can-stall": None}
    assert platform.placed("plain").master.properties == {}


def test_an_smmu_with_page_requests_has_a_wire_for_them() -> None:
    def wires(pri: str) -> tuple[str, ...]:
        text = MACHINE.replace("substream_id_bits = 10", f'substream_id_bits = 10\ninterrupts = "wired"\n{pri}')
        (function,) = platform_of(parse_machine(text)).functions
        return tuple(function.intids)

    assert wires("") == ("eventq", "gerror", "cmdq-sync")
    assert wires('ats = "full"\npri = true') == ("eventq", "gerror", "priq", "cmdq-sync")


def test_beside_a_gicv3_an_smmus_interrupts_are_wires() -> None:
    (found, _, function), *_ = platform_of(
        parse_machine(MACHINE.replace('kind = "linux"', 'kind = "linux"\ngic = 3'))
    ).smmus
    assert not found.msi
    assert {"eventq", "gerror"} <= set(function.intids)
