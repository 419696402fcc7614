# SPDX-License-Identifier: Apache-2.0
"""What one fault leaves in the registers, as one value: for those who look on, accounts and ``decode``.

Law: fields are the registers', in their order, spelled as there.
"""

from __future__ import annotations

from ...layout import Layout, bit, field
from .registers import BankType

_LEVELS = {level: f"level {level}" for level in range(4)}


class ContextFault(Layout, size=40, specification="IHI 0062D", section="3.7"):
    """A fault that a context bank has recorded: FSR, FSYNR0, FAR, CBFRSYNRA, CBAR and IPAFAR."""

    TF = bit(1, doc="Translation fault")
    AFF = bit(2, doc="Access flag fault")
    PF = bit(3, doc="Permission fault")
    EF = bit(4, doc="External fault")
    TLBMCF = bit(5, doc="TLB match conflict fault")
    ASF = bit(7, doc="Address size fault")
    UUT = bit(8, doc="Unsupported upstream transaction fault")
    FORMAT = field(10, 9, values={0: "AArch32 short", 1: "AArch32 long", 2: "AArch64"})
    SS = bit(30, doc="The transaction is stalled")
    MULTI = bit(31, doc="Another fault came, and is not recorded")
    PLVL = field(33, 32, values=_LEVELS)
    NESTED = bit(34, doc="Of a stage 1 followed by stage 2")
    S1PTWF = bit(35, doc="On a walk of stage 1")
    WNR = bit(36, doc="A write")
    PNU = bit(37, doc="Privileged")
    IND = bit(38, doc="An instruction")
    NSATTR = bit(40, doc="Non-secure")
    ATOF = bit(41, doc="Of an address translation operation")
    PTWF = bit(42, doc="The external fault came on a walk")
    S1CBNDX = field(55, 48, doc="The bank of stage 1")
    FADDR = field(127, 64, doc="The address")
    SID = field(143, 128, doc="StreamID")
    CBNDX = field(167, 160, doc="The bank that has recorded it")
    TYPE = field(169, 168, values=BankType, doc="CBAR.TYPE of it")
    IPA = field(255, 192, doc="Stage 2: the address that it did not translate")


class GlobalFault(Layout, size=24, specification="IHI 0062D", section="3.8"):
    """A fault that is of no context bank: GFSR, GFSYNR0, GFSYNR1 and GFAR."""

    ICF = bit(0, doc="Invalid context fault")
    USF = bit(1, doc="Unidentified stream fault")
    SMCF = bit(2, doc="Stream match conflict fault")
    UCBF = bit(3, doc="Unimplemented context bank fault")
    UUT = bit(8, doc="Unsupported upstream transaction fault")
    MULTI = bit(31, doc="Another fault came, and is not recorded")
    Nested = bit(32, doc="The fault is one of the context bank")
    WNR = bit(33, doc="A write")
    PNU = bit(34, doc="Privileged")
    IND = bit(35, doc="An instruction")
    ATS = bit(38, doc="Of an address translation operation")
    SID = field(79, 64, doc="StreamID")
    FADDR = field(191, 128, doc="The address")


LAYOUTS = (ContextFault, GlobalFault)

#: In the words of accounts: the faults that a record may be of.
CONTEXT_KINDS = ("TF", "AFF", "PF", "EF", "TLBMCF", "ASF", "UUT")
GLOBAL_KINDS = ("ICF", "USF", "SMCF", "UCBF", "UUT")


def kind_of(record: Layout) -> str:
    """Such as "GFSR.USF"."""
    values = record.values()
    if isinstance(record, GlobalFault):
        return f"GFSR.{next((name for name in GLOBAL_KINDS if values[name]), 'none')}"
    return f"FSR.{next((name for name in CONTEXT_KINDS if values[name]), 'none')}"
