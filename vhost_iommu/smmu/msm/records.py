# SPDX-License-Identifier: Apache-2.0
"""What one fault leaves in the registers, as one value: for those who look on, accounts and ``decode``.

Law: fields are the registers', in their order, spelled as there.
"""

from __future__ import annotations

from ...layout import Layout, bit, field


class ContextFault(Layout, size=24):
    """A fault that a context has recorded: FSR, FSYNR0, FSYNR1, FAR, and which context."""

    TF = bit(1, doc="Translation fault")
    AFF = bit(2, doc="Access flag fault")
    APF = bit(3, doc="Permission fault")
    TLBMF = bit(4, doc="TLB match fault")
    HTWDEEF = bit(5, doc="Nothing answered a walk")
    HTWSEEF = bit(6, doc="A walk ended in an error")
    SL = bit(16, doc="Of level 2")
    SS = bit(30, doc="The transaction is stalled")
    MULTI = bit(31, doc="Another fault came, and is not recorded")
    AMID = field(39, 32, doc="Machine id, of which the register has 8 bits")
    APRIV = bit(69, doc="Privileged")
    AINST = bit(71, doc="An instruction")
    AWRITE = bit(72, doc="A write")
    FADDR = field(127, 96, doc="The address")
    CONTEXT = field(135, 128, doc="The context")


class GlobalError(Layout, size=16):
    """An error that is of no context: ESR, ESYNR0, ESYNR1 and EAR."""

    CFG = bit(0, doc="A machine id without a context, or with one of another VMID")
    BYPASS = bit(1, doc="A machine id that may not pass untranslated would have")
    MULTI = bit(31, doc="Another error came, and is not recorded")
    AMID = field(39, 32, doc="Machine id, of which the register has 8 bits")
    AVMID = field(52, 48, doc="VMID")
    APRIV = bit(69, doc="Privileged")
    AINST = bit(71, doc="An instruction")
    AWRITE = bit(72, doc="A write")
    ADDR = field(127, 96, doc="The address")


CONTEXT_KINDS = ("TF", "AFF", "APF", "TLBMF", "HTWDEEF", "HTWSEEF")
GLOBAL_KINDS = ("CFG", "BYPASS")


def kind_of(record: Layout) -> str:
    """Such as "FSR.TF"."""
    values = record.values()
    if isinstance(record, GlobalError):
        return f"ESR.{next((name for name in GLOBAL_KINDS if values[name]), 'none')}"
    return f"FSR.{next((name for name in CONTEXT_KINDS if values[name]), 'none')}"


#: What docs/reference has a page for.
LAYOUTS: tuple[type[Layout], ...] = (ContextFault, GlobalError)
