# SPDX-License-Identifier: Apache-2.0
"""A machine file's machine as its guest finds it: the platform, and the doorbells of its wires.

Law: nothing is decided here; windows are machine.py's, addresses and interrupt numbers platform.py's.
"""

from __future__ import annotations

from vhost_iommu.config import MachineConfig, MasterConfig
from vhost_iommu.guest.platform import CAN_STALL, PASID_BITS, V2M_DOORBELL, GuestMaster, GuestSmmu, Platform, Property
from vhost_iommu.machine import Wires, placements
from vhost_iommu.models import MODELS


def platform_of(config: MachineConfig) -> Platform:
    """UsageError when the machine has no room in a guest."""
    smmus, masters = [], []
    for smmu in config.smmus:
        # Beside a GICv3 that has LPIs, as QEMU's has, Linux looks for no v2m frame, and has no MSIs of it.
        line = smmu.interrupts == "line"
        wired = not line and (smmu.interrupts == "wired" or config.guest.gic == 3)
        smmus.append(
            GuestSmmu(
                smmu.name,
                binding=smmu.traits.binding or MODELS[smmu.model].binding,
                wired=smmu.traits.wires if wired else (),
                line=line,
                msi=not wired and not line,
                coherent=smmu.traits.coherent,
                companions=smmu.traits.companions,
                granules=frozenset(int(granule.removesuffix("K")) << 10 for granule in smmu.traits.granules),
            )
        )
    for function in config.functions:
        masters += [
            GuestMaster(
                placed.master.name,
                placed.compatible,
                placed.master.smmu,
                placed.master.stream_ids,
                size=placed.size,
                offset=placed.offset,
                properties=_properties(placed.master),
            )
            for placed in placements(function)
        ]
    return Platform(smmus, masters)


def _properties(master: MasterConfig) -> dict[str, Property]:
    """What a master's node says of it, in the words of the binding of ``iommus``."""
    said: dict[str, Property] = {}
    if master.pasid_bits:
        said[PASID_BITS] = master.pasid_bits
    if master.can_stall:
        said[CAN_STALL] = None
    return said


def wires_of(platform: Platform) -> Wires:
    """What raises each wired interrupt: a write of its number to the v2m frame's doorbell."""
    wires: dict[tuple[str, str], tuple[int, int]] = {}
    for function in platform.functions:
        for source, intid in function.intids.items():
            wires[function.name, source] = (V2M_DOORBELL, intid)
        for placed in function.masters:
            if placed.intid is not None:
                wires[placed.master.name, ""] = (V2M_DOORBELL, placed.intid)
    return wires
