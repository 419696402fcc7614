# SPDX-License-Identifier: Apache-2.0
"""Likely causes of what an SMMUv3 reports, each declared once.

Law: tables only, keyed by the declarations; sentences say what to look at, the likeliest first.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...layout import Layout
from . import events as e
from .registers import CMDQ_CONS, GERROR, CommandError

Causes = tuple[str, ...]

_STALE = "an unmapping driver freed the buffer while its device still used it: stop the device before unmapping"
_TABLES = "the tables are written but not seen by the SMMU: a missing barrier, or a cache clean where COHACC is 0"
_ABORT = (
    "nothing answers at that address: a base that is wrong or of another address space, memory given back too early"
)

EVENTS: Mapping[type[e.Event], Causes] = {
    e.F_UUT: (
        "the master or the interconnect sent a kind of transaction that this SMMU does not take, such as an atomic",
        "the master's attributes (privilege, instruction, substream) are not wired as this SMMU expects",
    ),
    e.C_BAD_STREAMID: (
        "the device uses another StreamID than firmware says: compare it with 'iommus', 'iommu-map' or the IORT",
        "the stream table is too small, or its first level has no valid descriptor for this StreamID: the device was "
        "never attached",
        "a PCI device makes DMA under another requester ID: a bridge's alias, or a function that is not enumerated",
    ),
    e.F_STE_FETCH: (
        "STRTAB_BASE, or a first-level descriptor's L2Ptr, is wrong",
        _ABORT,
    ),
    e.C_BAD_STE: (
        "DMA of a device that no driver has attached yet: its STE has V = 0 or was never written",
        "an STE asks for what the ID registers do not offer; 'vhost-iommu decode ste …' says what is illegal",
        "an STE was changed in place: V must be 0 and CMD_CFGI_STE and CMD_SYNC done before other words change",
    ),
    e.F_BAD_ATS_TREQ: (
        "ATS is on in the device but not in its STE (EATS = 0), or CR0.ATSCHK rejects it",
        "the STE was changed while the device still asked for translations",
    ),
    e.F_STREAM_DISABLED: (
        "a transaction without a PASID where STE.S1DSS terminates those, or with PASID 0 where it stands for none",
        "the device went on without its PASID after the driver had turned its plain DMA off",
    ),
    e.F_TRANSL_FORBIDDEN: (
        "the device sends translated addresses while its STE does not trust it (EATS = 0), or SMMUEN is 0",
        "its ATC was not invalidated before ATS was turned off",
    ),
    e.C_BAD_SUBSTREAMID: (
        "the PASID is beyond the CD table: compare it with STE.S1CDMax and the bits that firmware gives the device",
        "PASIDs are not enabled in the STE (S1CDMax = 0), or the first level of the CD table is not there for this one",
    ),
    e.F_CD_FETCH: (
        "STE.S1ContextPtr, or an L1CD's L2Ptr, is wrong",
        "with stage 2 on, S1ContextPtr is an IPA and is not mapped there",
        _ABORT,
    ),
    e.C_BAD_CD: (
        "the PASID is not attached, or no more: its CD has V = 0 while the device still uses it",
        "a CD asks for what the ID registers do not offer; 'vhost-iommu decode cd …' says what is illegal",
        "a CD was changed without CMD_CFGI_CD and CMD_SYNC",
    ),
    e.F_WALK_EABT: (
        "a table's address in TTB or in a table descriptor is wrong",
        "a table was freed while a TLB or walk cache still knew it: CMD_TLBI and CMD_SYNC come before the free",
        _ABORT,
    ),
    e.F_TRANSLATION: (
        "the device uses an address that was never mapped: a physical address instead of what dma_map_… returned, or a "
        "length beyond what was mapped",
        _STALE,
        _TABLES,
    ),
    e.F_ADDR_SIZE: (
        "a descriptor points beyond CD.IPS or STE.S2PS: a physical address that is too large, or a field put too small",
        "with both stages, a stage 1 output that is no IPA of this guest",
    ),
    e.F_ACCESS: (
        "the page's AF is 0 and nothing sets it: software does not on this fault, and CD.HA (STE.S2HA) is 0",
        "CD.AFFD (STE.S2AFFD) is 0 though the tables' owner does not keep access flags",
    ),
    e.F_PERMISSION: (
        "the direction is wrong: a buffer mapped for reading (DMA_TO_DEVICE) is written by the device",
        "an unprivileged access to a page for privileged ones, or the reverse under PAN; see PnU and STE.PRIVCFG",
        "a writable-clean page with dirty state kept by software: CD.HD or STE.S2HD is 0",
    ),
    e.F_TLB_CONFLICT: (
        "a block was replaced by pages, or pages by a block, without invalidation in between (break before make)",
        "CMD_TLBI_… named another ASID, VMID, level or range than the one that changed",
    ),
    e.F_CFG_CONFLICT: (
        "STE.CONT or an overlap of ranges says that STEs are alike which are not",
        "an STE was changed without CMD_CFGI_STE_RANGE over all that CONT joins",
    ),
    e.E_PAGE_REQUEST: (
        "a hint, no error: the device will soon use these pages; nothing has failed",
        "software that does not take hints may leave it",
    ),
    e.F_VMS_FETCH: (
        "STE.VMSPtr is wrong, or does not lie in memory",
        _ABORT,
    ),
}

#: Of some events fields tell more: what they hold then, and the cause that is the likeliest with it.
MARKS: tuple[tuple[type[e.Event], Mapping[str, int], str], ...] = (
    (e.F_TRANSLATION, {"InputAddr": 0}, "address 0: a descriptor or register of the device that was never filled in"),
    (e.F_TRANSLATION, {"S2": 1, "CLASS": e.EventClass.CD}, "S1ContextPtr is an IPA, and stage 2 does not map it"),
    (e.F_TRANSLATION, {"S2": 1, "CLASS": e.EventClass.TT}, "a stage 1 table lies at an IPA that stage 2 does not map"),
    (e.F_TRANSLATION, {"S2": 1, "CLASS": e.EventClass.IN}, "stage 2 has no such IPA: the hypervisor did not map it"),
    (e.F_PERMISSION, {"S2": 1, "CLASS": e.EventClass.TT}, "stage 2 does not let the walk read, or update, a table"),
)

GLOBAL_ERRORS: Mapping[str, Causes] = {
    GERROR.CMDQ_ERR.name: ("the command queue stopped; the line after it, or CMDQ_CONS.ERR, says why",),
    GERROR.EVENTQ_ABT_ERR.name: (
        "EVENTQ_BASE does not lie in memory that the SMMU can write: events were lost",
        "the queue's memory was freed, or is not writable for the SMMU (a firewall, another world)",
    ),
    GERROR.PRIQ_ABT_ERR.name: ("PRIQ_BASE does not lie in memory that the SMMU can write: page requests were lost",),
    GERROR.MSI_CMDQ_ABT_ERR.name: (
        "the address in CMD_SYNC takes no write: CMD_SYNC's end is then never seen, and a time-out follows",
    ),
    GERROR.MSI_EVENTQ_ABT_ERR.name: (
        "EVENTQ_IRQ_CFG0 is no doorbell: the MSI controller moved, or is behind an SMMU and not mapped",
    ),
    GERROR.MSI_PRIQ_ABT_ERR.name: (
        "PRIQ_IRQ_CFG0 is no doorbell: the MSI controller moved, or is behind an SMMU and not mapped",
    ),
    GERROR.MSI_GERROR_ABT_ERR.name: (
        "GERROR_IRQ_CFG0 is no doorbell: the MSI controller moved, or is behind an SMMU and not mapped",
    ),
    GERROR.SFM_ERR.name: (
        "the SMMU found a fault in itself and serves nobody any more: only its reset leaves this state",
        "look for what a RAS record says of it; such an error is the hardware's",
    ),
    GERROR.CMDQP_ERR.name: ("an enhanced command queue stopped; its own ECMDQ_CONS says why",),
    GERROR.DPT_ERR.name: ("a device permission table is wrong or cannot be read; see DPT_CFG_FAR",),
}

COMMAND_ERRORS: Mapping[int, Causes] = {
    CommandError.CERROR_NONE: ("the queue has no error (any more)",),
    CommandError.CERROR_ILL: (
        "a command that this SMMU does not know or have: compare its opcode and fields with the ID registers (range "
        "invalidation, stage 2, ATS, PRI, EL2)",
        "the queue holds something else: its memory is used by others, was not written back (COHACC = 0), or PROD was "
        "written before the command",
    ),
    CommandError.CERROR_ABT: (
        "CMDQ_BASE does not lie in memory that the SMMU can read",
        _ABORT,
    ),
    CommandError.CERROR_ATC_INV_SYNC: (
        "a device did not answer CMD_ATC_INV in time: it hangs, was removed or reset, or its link is down",
        "ATS is on in the STE and not in the device, or CMD_ATC_INV names a StreamID behind which nothing is",
    ),
}


def causes_of(value: Layout) -> Causes:
    """What a report of the hardware most likely comes from; nothing for what reports no error."""
    if isinstance(value, GERROR):
        return tuple(
            f"{field.name}: {cause}"
            for field in GERROR.fields
            if field.decode(value.raw)
            for cause in GLOBAL_ERRORS.get(field.name, ())
        )
    if isinstance(value, CMDQ_CONS):
        return COMMAND_ERRORS.get(value.ERR, ()) if value.ERR else ()
    if not isinstance(value, e.Event):
        return ()
    marked = tuple(
        cause for event, wanted, cause in MARKS if type(value) is event and wanted.items() <= value.values().items()
    )
    return marked + EVENTS.get(type(value), ())
