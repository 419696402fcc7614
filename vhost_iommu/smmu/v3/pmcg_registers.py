# SPDX-License-Identifier: Apache-2.0
"""The registers of a Performance Monitor Counter Group, in Non-secure state (IHI 0070 chapter 10).

Law: declarations only. Counters lie in page 1, as CFGR.RELOC_CTRS says; offsets count from page 0.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from ...layout import Access, Register, address, bit, field
from ..attributes import MEMATTR, SHAREABILITY

RO = Access.RO

#: Counters of a group, and the bits that each has.
COUNTERS, BITS = 8, 64
#: Where page 1 lies; apart by the largest page, so that a hypervisor can give it alone to a guest (§10.5).
PAGE1 = 0x10000


class MonitorEvent(IntEnum):
    """What a counter may count (§10.3); each page of a request is a transaction."""

    CYCLE = 0
    TRANSACTION = 1
    TLB_MISS = 2
    CONFIG_CACHE_MISS = 3
    TABLE_WALK_ACCESS = 4
    CONFIG_STRUCT_ACCESS = 5
    ATS_REQUEST = 6
    ATS_TRANSLATED = 7


EVENTS = {int(event): event.name.lower().replace("_", " ") for event in MonitorEvent}


class PmcgGuard(StrEnum):
    """Conditions under which a write is ignored."""

    IRQEN = "IRQEN"

    @property
    def doc(self) -> str:
        """When writes are ignored, as a clause."""
        return "while PMCG_IRQ_CTRL.IRQEN or PMCG_IRQ_CTRLACK.IRQEN is 1"


class PMCG_EVTYPER(Register, at=0x400, count=COUNTERS, stride=4, section="10.5.2.2"):
    """What a counter counts."""

    EVENT = field(15, 0, values=EVENTS, doc="Event; one that the group does not have is never counted")
    FILTER_SID_SPAN = bit(29, doc="PMCG_SMR.STREAMID is a span of StreamIDs; else exactly one")
    OVFCAP = bit(31, doc="An overflow of this counter captures all")


class PMCG_SMR(Register, at=0xA00, count=COUNTERS, stride=4, section="10.5.2.4"):
    """Of which StreamIDs a counter counts events that can be told apart by them."""

    STREAMID = field(31, 0, doc="The StreamID; as a span, the lowest 0 and all 1s below it match either, all 1s any")


class PMCG_CNTENSET0(Register, at=0xC00, section="10.5.2.5", size=8):
    """Which counters are enabled; writing 1 enables."""

    CNTEN = field(COUNTERS - 1, 0, doc="A bit for each counter")


class PMCG_CNTENCLR0(Register, at=0xC20, section="10.5.2.6", size=8):
    """Which counters are enabled; writing 1 disables."""

    CNTEN = field(COUNTERS - 1, 0, access=Access.W1C, doc="A bit for each counter")


class PMCG_INTENSET0(Register, at=0xC40, section="10.5.2.7", size=8):
    """Whose overflow interrupts; writing 1 enables."""

    INTEN = field(COUNTERS - 1, 0, doc="A bit for each counter")


class PMCG_INTENCLR0(Register, at=0xC60, section="10.5.2.8", size=8):
    """Whose overflow interrupts; writing 1 disables."""

    INTEN = field(COUNTERS - 1, 0, access=Access.W1C, doc="A bit for each counter")


class PMCG_CFGR(Register, at=0xE00, access=RO, section="10.5.2.13"):
    """What the group can do."""

    NCTR = field(5, 0, reset=COUNTERS - 1, doc="Counters, minus one")
    SIZE = field(13, 8, reset=BITS - 1, doc="Bits of a counter, minus one")
    RELOC_CTRS = bit(20, reset=1, doc="Counters, overflow status and capture are in page 1")
    MSI = bit(21, doc="Message signalled interrupt; as IDR0.MSI of the SMMU")
    CAPTURE = bit(22, reset=1, doc="Counters can be captured")
    SID_FILTER_TYPE = bit(23, doc="One StreamID filter for all counters; else each has its own")
    MPAM = bit(24, doc="MSIs carry a PARTID and PMG")
    FILTER_PARTID_PMG = bit(25, doc="Events can be filtered by PARTID and PMG")


class PMCG_CR(Register, at=0xE04, section="10.5.2.14"):
    """Enables the group."""

    E = bit(0, doc="Counters that are enabled count")


class PMCG_IIDR(Register, at=0xE08, access=RO, section="10.5.2.15"):
    """Who made it; zero: it does not say."""

    Implementer = field(11, 0, doc="JEP106: continuation code [11:8], identity code [6:0]")
    Revision = field(15, 12, doc="Minor revision")
    Variant = field(19, 16, doc="Variant or major revision")
    ProductID = field(31, 20, doc="Part")


class PMCG_CEID0(Register, at=0xE20, access=RO, section="10.5.2.16", size=8):
    """Which of the events 0 to 63 can be counted."""

    N = field(63, 0, doc="A bit for each event")


class PMCG_CEID1(Register, at=0xE28, access=RO, section="10.5.2.17", size=8):
    """Which of the events 64 to 127 can be counted."""

    N = field(63, 0, doc="A bit for each event")


class PMCG_IRQ_CTRL(Register, at=0xE50, section="10.5.2.19"):
    """Enables the group's interrupt."""

    IRQEN = bit(0, doc="Overflows may interrupt")


class PMCG_IRQ_CTRLACK(Register, at=0xE54, access=RO, section="10.5.2.20"):
    """What has taken effect of PMCG_IRQ_CTRL."""

    IRQEN = bit(0, doc="IRQEN in effect")


class PMCG_IRQ_CFG0(Register, at=0xE58, guard=PmcgGuard.IRQEN, needs="PMCG_CFGR.MSI", section="10.5.2.21", size=8):
    """Where the MSI is written."""

    ADDR = address(55, 2, doc="Physical address; 0: no MSI")


class PMCG_IRQ_CFG1(Register, at=0xE60, guard=PmcgGuard.IRQEN, needs="PMCG_CFGR.MSI", section="10.5.2.22"):
    """What the MSI writes."""

    DATA = field(31, 0, doc="Payload")


class PMCG_IRQ_CFG2(Register, at=0xE64, guard=PmcgGuard.IRQEN, needs="PMCG_CFGR.MSI", section="10.5.2.23"):
    """As what kind of memory the MSI is written."""

    MEMATTR = field(3, 0, values=MEMATTR, doc="Memory type")
    SH = field(5, 4, values=SHAREABILITY, doc="Shareability")


class PMCG_IRQ_STATUS(Register, at=0xE68, access=RO, needs="PMCG_CFGR.MSI", section="10.5.2.24"):
    """What became of the MSI."""

    IRQ_ABT = bit(0, doc="Its write aborted; cleared by a change of PMCG_IRQ_CTRL.IRQEN from 0 to 1")


class PMCG_AIDR(Register, at=0xE70, access=RO, section="10.5.2.26"):
    """Version of the architecture."""

    ArchMinorRev = field(3, 0, reset=4, doc="Minor version")
    ArchMajorRev = field(7, 4, doc="Major version")


class PMCG_PMDEVARCH(Register, at=0xFBC, access=RO, section="10.5.2.29"):
    """Which architecture it is of."""

    ARCHID = field(15, 0, reset=0x2A56, doc="SMMUv3 performance monitors")
    REVISION = field(19, 16, doc="Revision")
    PRESENT = bit(20, reset=1, doc="This register is there")
    ARCHITECT = field(31, 21, reset=0x23B, doc="Arm")


class PMCG_PMDEVTYPE(Register, at=0xFCC, access=RO, section="10.5.2.29"):
    """What it is."""

    CLASS = field(3, 0, reset=6, doc="Performance monitor")
    SUB_TYPE = field(7, 4, reset=5, doc="Of an SMMU")


class PMCG_EVCNTR(Register, at=PAGE1, count=COUNTERS, stride=8, section="10.5.2.1", size=8):
    """The counters."""

    COUNTER_VALUE = field(BITS - 1, 0, doc="How often it has happened, modulo the counter's size")


class PMCG_SVR(Register, at=PAGE1 + 0x600, count=COUNTERS, stride=8, access=RO, section="10.5.2.3", size=8):
    """The counters as they were captured last."""

    SHADOW_COUNTER_VALUE = field(BITS - 1, 0, doc="As PMCG_EVCNTR")


class PMCG_OVSCLR0(Register, at=PAGE1 + 0xC80, section="10.5.2.9", size=8):
    """Which counters have overflowed; writing 1 clears."""

    OVS = field(COUNTERS - 1, 0, access=Access.W1C, doc="A bit for each counter")


class PMCG_OVSSET0(Register, at=PAGE1 + 0xCC0, section="10.5.2.10", size=8):
    """Which counters have overflowed; writing 1 sets, and neither interrupts nor captures."""

    OVS = field(COUNTERS - 1, 0, doc="A bit for each counter")


class PMCG_CAPR(Register, at=PAGE1 + 0xD88, access=Access.WO, section="10.5.2.11"):
    """Captures all counters at once."""

    CAPTURE = bit(0, doc="Writing 1 copies each PMCG_EVCNTR to its PMCG_SVR")


LAYOUTS: tuple[type[Register], ...] = (
    PMCG_EVTYPER,
    PMCG_SMR,
    PMCG_CNTENSET0,
    PMCG_CNTENCLR0,
    PMCG_INTENSET0,
    PMCG_INTENCLR0,
    PMCG_CFGR,
    PMCG_CR,
    PMCG_IIDR,
    PMCG_CEID0,
    PMCG_CEID1,
    PMCG_IRQ_CTRL,
    PMCG_IRQ_CTRLACK,
    PMCG_IRQ_CFG0,
    PMCG_IRQ_CFG1,
    PMCG_IRQ_CFG2,
    PMCG_IRQ_STATUS,
    PMCG_AIDR,
    PMCG_PMDEVARCH,
    PMCG_PMDEVTYPE,
    PMCG_EVCNTR,
    PMCG_SVR,
    PMCG_OVSCLR0,
    PMCG_OVSSET0,
    PMCG_CAPR,
)
