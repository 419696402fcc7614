# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/reference that SMMUv3's declarations fill."""

from __future__ import annotations

from ..model import Group, Page
from . import commands, events, pmcg_registers, registers, structures

PAGES = (
    Page(
        "smmuv3-registers.md",
        "SMMUv3 registers",
        """
The registers of the Non-secure programming interface. Bits that a table leaves out are RES0: they read as zero
and a write does not change them. *Reset* is what the model starts with; where the architecture leaves a field
UNKNOWN that is 0. *Needs* names the ID register fields without which a register or field is RES0.
""",
        groups=(
            Group(
                "Pages 0 and 1", "Offsets count from the SMMU's base; page 1 starts at 0x10000.", registers.REGISTERS
            ),
            Group("VATOS page", "Offsets count from the page, which IDR2.BA_VATOS places.", registers.VATOS_REGISTERS),
            Group(
                "Enhanced command queue",
                "Offsets count from a queue's interface within a command queue control page.",
                registers.ECMDQ_REGISTERS,
            ),
        ),
        guards=registers.Guard,
    ),
    Page(
        "smmuv3-pmcg.md",
        "SMMUv3 performance monitor counter group",
        """
The registers of a counter group, which an SMMU with `counter_group = true` has beside its own: page 0 at 0x20000 of the
SMMU's window, page 1 at 0x30000. Bits that a table leaves out are RES0.
""",
        groups=(Group("Pages 0 and 1", "Offsets count from the group's page 0.", pmcg_registers.LAYOUTS),),
        guards=pmcg_registers.PmcgGuard,
    ),
    Page(
        "smmuv3-commands.md",
        "SMMUv3 commands",
        """
The 16-byte entries of a command queue. Bits count over all 128, and those that a table leaves out are RES0. Which
commands a queue accepts depends on the ID registers; those marked *Secure queue only* are always illegal here.
""",
        number="opcode",
        numbers=commands.COMMANDS,
    ),
    Page(
        "smmuv3-events.md",
        "SMMUv3 events and page requests",
        """
The 32-byte records of the event queue and the 16-byte entries of the PRI queue. Bits count over the whole record,
and those that a table leaves out are RES0.
""",
        number="type",
        numbers=events.EVENTS,
        layouts=(events.PRIEntry,),
    ),
    Page(
        "smmuv3-structures.md",
        "SMMUv3 structures in memory",
        """
The tables by which software configures streams. Bits count over the whole structure, and those that a table
leaves out are RES0. *Needs* names the ID register fields without which a field is RES0 or ignored.
""",
        layouts=structures.LAYOUTS,
    ),
)
