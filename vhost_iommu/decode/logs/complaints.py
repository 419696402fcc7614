# SPDX-License-Identifier: Apache-2.0
"""What Linux' arm-smmu-v3 says in plain sentences, and what each most likely comes from, declared once.

Law: tables only; sentences say what to look at, the likeliest first.
"""

from __future__ import annotations

from typing import NamedTuple

from ...smmu.v3.causes import Causes

CONSUMED: Causes = (
    "all commands are consumed (CMDQ_CONS is where CMDQ_PROD is): the signal of CMD_SYNC was lost, an MSI that was "
    "written elsewhere, an event (SEV) or an interrupt that did not come",
    "the SMMU was only slow, or the waiting CPU did not run meanwhile (a hypervisor, a debugger)",
)
STOPPED: Causes = (
    "the queue stopped on an error (CMDQ_CONS.ERR): the global error that belongs to it says more, and may come after "
    "this line",
)
STUCK: Causes = (
    "the SMMU does not consume: CR0.CMDQEN or its clock or power is off, or CMD_SYNC waits for a device's answer to "
    "CMD_ATC_INV",
    "the SMMU was only slow: an invalidation that takes long, or a walk that the interconnect holds up",
)
UNEXPECTED_PAGE_REQUEST: Causes = (
    "a device's PRI is on though no software serves its page requests: nobody asked for faults of its domain",
    "the request came after the address space had gone: the PASID was not drained before it was unbound",
)


class Complaint(NamedTuple):
    """A sentence of the driver that is not followed by words; ``%`` in it stands for anything."""

    text: str
    registers: tuple[str, ...]
    meaning: str
    causes: Causes


_NO_ACK = (
    "the SMMU does not acknowledge: its clock or power is off, or the address in the device tree is not its own",
    "what comes before it in the log: the first acknowledgement that is missing is the one to look at",
)
_OFFERS = ("the ID register is what it is; another 'preset', or a key of the feature in the machine file, changes it",)
_ROOM = ("the kernel has too little memory of the kind that DMA needs (CMA, or below a device's mask)",)

COMPLAINTS: tuple[Complaint, ...] = (
    Complaint(
        "EVTQ overflow detected -- events lost",
        ("EVENTQ_PROD", "EVENTQ_CONS"),
        "The event queue was full, so that events are lost (EVENTQ_PROD.OVFLG)",
        (
            "one device faults again and again: the first events say which; stop it",
            "the interrupt thread does not run in time, or the queue is small",
        ),
    ),
    Complaint(
        "PRIQ overflow detected -- requests lost",
        ("PRIQ_PROD", "PRIQ_CONS"),
        "The PRI queue was full, so that page requests are lost and answered by the SMMU (PRIQ_PROD.OVFLG)",
        ("a device asks for more pages at once than its credits allow, or software answers too slowly",),
    ),
    Complaint(
        "CMDQ timeout",
        ("CMDQ_PROD", "CMDQ_CONS"),
        "The command queue was full and no room came",
        STUCK,
    ),
    Complaint("failed to enable command queue", ("CR0", "CR0ACK"), "CR0ACK did not follow CR0.CMDQEN", _NO_ACK),
    Complaint("failed to enable event queue", ("CR0", "CR0ACK"), "CR0ACK did not follow CR0.EVENTQEN", _NO_ACK),
    Complaint("failed to enable PRI queue", ("CR0", "CR0ACK"), "CR0ACK did not follow CR0.PRIQEN", _NO_ACK),
    Complaint("failed to enable ATS check", ("CR0", "CR0ACK"), "CR0ACK did not follow CR0.ATSCHK", _NO_ACK),
    Complaint("failed to enable SMMU interface", ("CR0", "CR0ACK"), "CR0ACK did not follow CR0.SMMUEN", _NO_ACK),
    Complaint("failed to clear cr0", ("CR0", "CR0ACK"), "CR0ACK did not become 0", _NO_ACK),
    Complaint("failed to disable irqs", ("IRQ_CTRL", "IRQ_CTRLACK"), "IRQ_CTRLACK did not follow IRQ_CTRL", _NO_ACK),
    Complaint("failed to enable irqs", ("IRQ_CTRL", "IRQ_CTRLACK"), "IRQ_CTRLACK did not follow IRQ_CTRL", _NO_ACK),
    Complaint("GBPA not responding to update", ("GBPA",), "GBPA.Update did not become 0", _NO_ACK),
    Complaint(
        "SMMU currently enabled! Resetting...",
        ("CR0",),
        "CR0.SMMUEN was 1 when the driver came",
        ("firmware or the kernel before this one (kexec) left it on: DMA that still runs is cut off",),
    ),
    Complaint(
        "no translation support!", ("IDR0",), "IDR0.S1P and IDR0.S2P are 0", (*_OFFERS, "registers that read as 0")
    ),
    Complaint(
        "AArch64 table format not supported!",
        ("IDR0",),
        "IDR0.TTF has no AArch64",
        (*_OFFERS, "registers that read as 0"),
    ),
    Complaint(
        "unknown/unsupported TT endianness!", ("IDR0",), "IDR0.TTENDIAN is reserved or of the other kind", _OFFERS
    ),
    Complaint(
        "embedded implementation not supported", ("IDR1",), "IDR1.TABLES_PRESET, QUEUES_PRESET or REL is 1", _OFFERS
    ),
    Complaint(
        "command queue size <= % entries not supported", ("IDR1",), "IDR1.CMDQS is too small for the driver", _OFFERS
    ),
    Complaint(
        "unknown output address size. Truncating to 48-bit",
        ("IDR5",),
        "IDR5.OAS is none that the driver knows",
        _OFFERS,
    ),
    Complaint(
        "2-level strtab only covers %/% bits of SID",
        ("IDR1", "STRTAB_BASE_CFG"),
        "The driver's first level is smaller than IDR1.SIDSIZE asks for",
        ("a device with a StreamID beyond it cannot be attached; a smaller IDR1.SIDSIZE would do",),
    ),
    Complaint(
        "IDR0.COHACC overridden by FW configuration",
        ("IDR0",),
        "Firmware ('dma-coherent' or the IORT) says otherwise than IDR0.COHACC",
        ("one of the two is wrong: where it is firmware, tables are seen too late or caches are cleaned in vain",),
    ),
    Complaint(
        "IDR0.HTTU features(%) overridden by FW configuration",
        ("IDR0",),
        "Firmware (the IORT) says otherwise than IDR0.HTTU",
        ("one of the two is wrong: see what the IORT's HTTU override says",),
    ),
    Complaint(
        "MMIO region too small",
        ("IDR0",),
        "Firmware gives less than the two pages of registers",
        ("the size in 'reg' or in the IORT: 128 KiB, or 64 KiB where page 1 is not there",),
    ),
    Complaint(
        "msi_domain absent - falling back to wired irqs",
        ("IDR0",),
        "IDR0.MSI is 1 and firmware names no MSI controller",
        ("'msi-parent' is missing, or the controller was not probed; where no wires are either, faults go unseen",),
    ),
    Complaint(
        "no evtq irq - events will not be reported!",
        ("IRQ_CTRL",),
        "Neither a wire nor an MSI for the event queue",
        ("'interrupts' and 'interrupt-names' (eventq) are missing, and MSIs were not to be had",),
    ),
    Complaint(
        "no gerr irq - errors will not be reported!",
        ("IRQ_CTRL",),
        "Neither a wire nor an MSI for global errors",
        ("'interrupts' and 'interrupt-names' (gerror) are missing, and MSIs were not to be had",),
    ),
    Complaint(
        "no priq irq - PRI will be broken",
        ("IRQ_CTRL",),
        "Neither a wire nor an MSI for the PRI queue",
        ("'interrupts' and 'interrupt-names' (priq) are missing, and MSIs were not to be had",),
    ),
    Complaint(
        "stream % already in tree from dev %",
        (),
        "Two devices claim one StreamID",
        ("'iommus' or 'iommu-map' gives both the same; bridged PCI functions that share one need one group",),
    ),
    Complaint(
        "Aliasing StreamID % (from %) unsupported, expect DMA to be broken",
        (),
        "Two devices claim one StreamID",
        ("'iommus' or 'iommu-map' gives both the same; bridged PCI functions that share one need one group",),
    ),
    Complaint("failed to allocate queue (% bytes) for %", (), "There was no memory for a queue", _ROOM),
    Complaint("failed to allocate l1 stream table (% bytes)", (), "There was no memory for the stream table", _ROOM),
    Complaint(
        "failed to allocate linear stream table (% bytes)", (), "There was no memory for the stream table", _ROOM
    ),
    Complaint("failed to allocate l2 stream table for SID %", (), "There was no memory for the stream table", _ROOM),
)
