# SPDX-License-Identifier: Apache-2.0
"""The commands that software puts into a command queue (IHI 0070 chapter 4): sixteen bytes each.

Law: declarations only; whether a command is legal on a given queue and SMMU is the model's to say. Bits are
counted over all 128. A StreamID is SID, a SubstreamID is SSID. CMD_CFGI_ALL is CMD_CFGI_STE_RANGE with Range 31.
"""

from __future__ import annotations

from enum import IntEnum

from ...layout import Layout, address, bit, field
from ..attributes import MEMATTR, SHAREABILITY


class Opcode(IntEnum):
    """Every opcode of IHI 0070 §4.1.1; the rest of the eight bits is reserved or, 0x80-0x8f, implementation defined."""

    CMD_PREFETCH_CONFIG = 0x01
    CMD_PREFETCH_ADDR = 0x02
    CMD_CFGI_STE = 0x03
    CMD_CFGI_STE_RANGE = 0x04
    CMD_CFGI_CD = 0x05
    CMD_CFGI_CD_ALL = 0x06
    CMD_CFGI_VMS_PIDM = 0x07
    CMD_TLBI_NH_ALL = 0x10
    CMD_TLBI_NH_ASID = 0x11
    CMD_TLBI_NH_VA = 0x12
    CMD_TLBI_NH_VAA = 0x13
    CMD_TLBI_EL3_ALL = 0x18
    CMD_TLBI_EL3_VA = 0x1A
    CMD_TLBI_EL2_ALL = 0x20
    CMD_TLBI_EL2_ASID = 0x21
    CMD_TLBI_EL2_VA = 0x22
    CMD_TLBI_EL2_VAA = 0x23
    CMD_TLBI_S12_VMALL = 0x28
    CMD_TLBI_S2_IPA = 0x2A
    CMD_TLBI_NSNH_ALL = 0x30
    CMD_ATC_INV = 0x40
    CMD_PRI_RESP = 0x41
    CMD_RESUME = 0x44
    CMD_STALL_TERM = 0x45
    CMD_SYNC = 0x46
    CMD_TLBI_S_EL2_ALL = 0x50
    CMD_TLBI_S_EL2_ASID = 0x51
    CMD_TLBI_S_EL2_VA = 0x52
    CMD_TLBI_S_EL2_VAA = 0x53
    CMD_TLBI_S_S12_VMALL = 0x58
    CMD_TLBI_S_S2_IPA = 0x5A
    CMD_TLBI_SNH_ALL = 0x60
    CMD_DPTI_ALL = 0x70
    CMD_DPTI_PA = 0x73


class CompletionSignal(IntEnum):
    """CMD_SYNC.CS: what tells software that the command completed."""

    SIG_NONE = 0
    SIG_IRQ = 1
    SIG_SEV = 2


class PriResponse(IntEnum):
    """CMD_PRI_RESP.Resp."""

    FAILURE = 0
    INVALID = 1
    SUCCESS = 2


#: TLBI TG: unlike a CD's TG0 or TG1, 0 is no granule.
TG = {0: "any", 1: "4KB", 2: "16KB", 3: "64KB"}


class Command(Layout, size=16):
    """Any command: only its opcode is known."""

    OPCODE = field(7, 0, doc="Which command")


class _SecureStream(Command):
    SSec = bit(10, values={0: "Non-secure", 1: "Secure"}, doc="Which StreamID space; 1 is illegal on this queue")


class _Stream(_SecureStream):
    SID = field(63, 32, doc="StreamID")


class _Range(Command):
    """The fields of §4.4.1.1: which addresses, at which level, of which granule."""

    NUM = field(16, 12, doc="The range is (NUM+1) * 2^SCALE granules; RES0 if TG is 0 or without IDR3.RIL")
    SCALE = field(25, 20, doc="See NUM; bit 25 only with IDR5.DS")
    Leaf = bit(64, doc="Only entries of the last level need to go")
    TTL128 = bit(71, doc="TTL counts levels of 128-bit descriptors")
    TTL = field(73, 72, doc="Level of the leaf entries; 0: any")
    TG = field(75, 74, values=TG, doc="Granule; 0: one address, no range and no level")


# -- prefetch and configuration ------------------------------------------------------------------------------


class CMD_PREFETCH_CONFIG(_Stream, fixed={"OPCODE": 0x01}, section="4.2.1"):
    """Fetch the STE and CD of a stream."""

    SSV = bit(11, doc="SSID is meant")
    SSID = field(31, 12, doc="SubstreamID")


class CMD_PREFETCH_ADDR(_Stream, fixed={"OPCODE": 0x02}, section="4.2.2"):
    """Fetch the configuration and translations of a span of addresses."""

    SSV = bit(11, doc="SSID is meant")
    SSID = field(31, 12, doc="SubstreamID")
    Size = field(68, 64, doc="log2 of the number of translations")
    Stride = field(73, 69, doc="Distance between translations is 2^(12+Stride) bytes")
    NS = bit(74, doc="The address is Non-secure; RES0 on this queue")
    Address = address(127, 76, low=12, doc="First address")


class CMD_CFGI_STE(_Stream, fixed={"OPCODE": 0x03}, section="4.3.1"):
    """Forget an STE, and the CDs found through it."""

    Leaf = bit(64, doc="The L1STD may stay")


class CMD_CFGI_STE_RANGE(_Stream, fixed={"OPCODE": 0x04}, section="4.3.2"):
    """Forget the STEs of an aligned range of StreamIDs, and their CDs; Range 31 is CMD_CFGI_ALL (§4.3.6)."""

    Range = field(68, 64, doc="The range is 2^(Range+1) StreamIDs; that many low bits of SID are ignored")

    @property
    def all(self) -> bool:
        """Whether this is CMD_CFGI_ALL."""
        return self.Range == 31

    @classmethod
    def everything(cls) -> CMD_CFGI_STE_RANGE:
        """CMD_CFGI_ALL."""
        return cls.of(Range=31)


class CMD_CFGI_CD(_Stream, fixed={"OPCODE": 0x05}, section="4.3.3"):
    """Forget a CD."""

    SSID = field(31, 12, doc="Index of the CD in its table")
    Leaf = bit(64, doc="The L1CD may stay")


class CMD_CFGI_CD_ALL(_Stream, fixed={"OPCODE": 0x06}, section="4.3.4"):
    """Forget all CDs and L1CDs of a stream."""


class CMD_CFGI_VMS_PIDM(_SecureStream, fixed={"OPCODE": 0x07}, section="4.3.5"):
    """Forget the PARTID map of a virtual machine."""

    VMID = field(47, 32, doc="Virtual machine")


# -- TLB invalidation, stage 1 -------------------------------------------------------------------------------


class CMD_TLBI_NH_ALL(Command, fixed={"OPCODE": 0x10}, section="4.4.2.1"):
    """Forget all EL1 stage 1 translations of a virtual machine."""

    VMID = field(47, 32, doc="Virtual machine")


class CMD_TLBI_NH_ASID(Command, fixed={"OPCODE": 0x11}, section="4.4.2.2"):
    """Forget the non-global EL1 translations of an address space."""

    VMID = field(47, 32, doc="Virtual machine")
    ASID = field(63, 48, doc="Address space")


class CMD_TLBI_NH_VA(_Range, fixed={"OPCODE": 0x12}, section="4.4.2.4"):
    """Forget EL1 translations by address, of an address space and global ones."""

    VMID = field(47, 32, doc="Virtual machine")
    ASID = field(63, 48, doc="Address space")
    Address = address(127, 76, low=12, doc="First virtual address")


class CMD_TLBI_NH_VAA(_Range, fixed={"OPCODE": 0x13}, section="4.4.2.3"):
    """Forget EL1 translations by address, of all address spaces."""

    VMID = field(47, 32, doc="Virtual machine")
    Address = address(127, 76, low=12, doc="First virtual address")


class CMD_TLBI_EL3_ALL(Command, fixed={"OPCODE": 0x18}, section="4.4.2.5"):
    """Forget all EL3 translations (Secure queue only)."""


class CMD_TLBI_EL3_VA(_Range, fixed={"OPCODE": 0x1A}, section="4.4.2.6"):
    """Forget EL3 translations by address (Secure queue only)."""

    Address = address(127, 76, low=12, doc="First virtual address")


class CMD_TLBI_EL2_ALL(Command, fixed={"OPCODE": 0x20}, section="4.4.2.7"):
    """Forget all EL2 and EL2-E2H translations."""


class CMD_TLBI_EL2_ASID(Command, fixed={"OPCODE": 0x21}, section="4.4.2.10"):
    """Forget the non-global EL2-E2H translations of an address space."""

    ASID = field(63, 48, doc="Address space")


class CMD_TLBI_EL2_VA(_Range, fixed={"OPCODE": 0x22}, section="4.4.2.8"):
    """Forget EL2 translations by address; EL2-E2H ones also by address space."""

    ASID = field(63, 48, doc="Address space; ignored if CR2.E2H is 0")
    Address = address(127, 76, low=12, doc="First virtual address")


class CMD_TLBI_EL2_VAA(_Range, fixed={"OPCODE": 0x23}, section="4.4.2.9"):
    """Forget EL2 or EL2-E2H translations by address, of all address spaces."""

    Address = address(127, 76, low=12, doc="First virtual address")


# -- TLB invalidation, stage 2 and all -----------------------------------------------------------------------


class CMD_TLBI_S12_VMALL(Command, fixed={"OPCODE": 0x28}, section="4.4.3.2"):
    """Forget all translations of a virtual machine, of both stages."""

    VMID = field(47, 32, doc="Virtual machine")


class CMD_TLBI_S2_IPA(_Range, fixed={"OPCODE": 0x2A}, section="4.4.3.1"):
    """Forget stage 2 translations by address."""

    VMID = field(47, 32, doc="Virtual machine")
    Address = address(119, 76, low=12, doc="First intermediate physical address")


class CMD_TLBI_NSNH_ALL(Command, fixed={"OPCODE": 0x30}, section="4.4.4.1"):
    """Forget all Non-secure translations but those of EL2."""


# -- ATS, PRI, stalls and synchronization --------------------------------------------------------------------


class CMD_ATC_INV(Command, fixed={"OPCODE": 0x40}, section="4.5.1"):
    """Ask a device to forget translations."""

    Global = bit(9, doc="Of all PASIDs; ignored if SSV is 0")
    SSV = bit(11, doc="SSID is meant")
    SSID = field(31, 12, doc="SubstreamID, sent as the PASID")
    SID = field(63, 32, doc="StreamID")
    Size = field(69, 64, doc="The span is 2^(12+Size) bytes, aligned; 52: everything")
    Address = address(127, 76, low=12, doc="First address")


class CMD_PRI_RESP(Command, fixed={"OPCODE": 0x41}, section="4.5.2"):
    """Answer a group of page requests."""

    SSV = bit(11, doc="SSID is meant")
    SSID = field(31, 12, doc="SubstreamID, sent as the PASID")
    SID = field(63, 32, doc="StreamID")
    PRGIndex = field(72, 64, doc="Page request group")
    Resp = field(77, 76, values=PriResponse, doc="The answer; 3 is illegal")


class CMD_RESUME(_Stream, fixed={"OPCODE": 0x44}, section="4.7.1"):
    """Retry or terminate a stalled transaction."""

    Ac = bit(12, values={0: "terminate", 1: "retry"}, doc="Action")
    Ab = bit(13, values={0: "RAZ/WI", 1: "abort"}, doc="How to terminate; ignored with IDR0.TERM_MODEL 1")
    STAG = field(79, 64, doc="From the event that reported the stall")


class CMD_STALL_TERM(_Stream, fixed={"OPCODE": 0x45}, section="4.7.2"):
    """Terminate all stalled transactions of a stream."""


class CMD_SYNC(Command, fixed={"OPCODE": 0x46}, section="4.7.3"):
    """Wait for all commands before it, then signal.

    MSI_NS, of the Realm queue, is not declared: its place is given by a figure only, and was not confirmed.
    """

    CS = field(13, 12, values=CompletionSignal, doc="Signal; 3 is illegal")
    MSH = field(23, 22, values=SHAREABILITY, doc="Shareability of the MSI")
    MSIAttr = field(27, 24, values=MEMATTR, doc="Memory type of the MSI")
    MSIData = field(63, 32, doc="Word that the MSI writes")
    MSIAddress = address(119, 66, low=2, doc="Where the MSI goes; 0 sends none")


# -- commands of other queues and features -------------------------------------------------------------------


class CMD_TLBI_S_EL2_ALL(Command, fixed={"OPCODE": 0x50}, section="4.4.2.11"):
    """Forget all Secure EL2 translations (Secure queue only)."""


class CMD_TLBI_S_EL2_ASID(Command, fixed={"OPCODE": 0x51}, section="4.4.2.14"):
    """Forget Secure EL2-E2H translations of an address space (Secure queue only)."""

    ASID = field(63, 48, doc="Address space")


class CMD_TLBI_S_EL2_VA(_Range, fixed={"OPCODE": 0x52}, section="4.4.2.12"):
    """Forget Secure EL2 translations by address (Secure queue only)."""

    ASID = field(63, 48, doc="Address space")
    Address = address(127, 76, low=12, doc="First virtual address")


class CMD_TLBI_S_EL2_VAA(_Range, fixed={"OPCODE": 0x53}, section="4.4.2.13"):
    """Forget Secure EL2 translations by address, of all address spaces (Secure queue only)."""

    Address = address(127, 76, low=12, doc="First virtual address")


class CMD_TLBI_S_S12_VMALL(Command, fixed={"OPCODE": 0x58}, section="4.4.3.4"):
    """Forget all Secure translations of a virtual machine (Secure queue only)."""

    VMID = field(47, 32, doc="Virtual machine")


class CMD_TLBI_S_S2_IPA(_Range, fixed={"OPCODE": 0x5A}, section="4.4.3.3"):
    """Forget Secure stage 2 translations by address (Secure queue only)."""

    VMID = field(47, 32, doc="Virtual machine")
    NS = bit(65, doc="The address is in the Non-secure IPA space")
    Address = address(119, 76, low=12, doc="First intermediate physical address")


class CMD_TLBI_SNH_ALL(Command, fixed={"OPCODE": 0x60}, section="4.4.4.2"):
    """Forget all Secure translations but those of EL2 (Secure queue only)."""


class CMD_DPTI_ALL(Command, fixed={"OPCODE": 0x70}, section="4.6.1"):
    """Forget all of the device permission table."""


class CMD_DPTI_PA(Command, fixed={"OPCODE": 0x73}, section="4.6.2"):
    """Forget part of the device permission table.

    Leaf and SIZE are not declared: their place is given by a figure only, and was not confirmed.
    """

    Address = address(119, 76, low=12, doc="First physical address")


#: Every command by its opcode.
COMMANDS: dict[int, type[Command]] = {
    kind.fixed["OPCODE"]: kind
    for kind in (
        CMD_PREFETCH_CONFIG,
        CMD_PREFETCH_ADDR,
        CMD_CFGI_STE,
        CMD_CFGI_STE_RANGE,
        CMD_CFGI_CD,
        CMD_CFGI_CD_ALL,
        CMD_CFGI_VMS_PIDM,
        CMD_TLBI_NH_ALL,
        CMD_TLBI_NH_ASID,
        CMD_TLBI_NH_VA,
        CMD_TLBI_NH_VAA,
        CMD_TLBI_EL3_ALL,
        CMD_TLBI_EL3_VA,
        CMD_TLBI_EL2_ALL,
        CMD_TLBI_EL2_ASID,
        CMD_TLBI_EL2_VA,
        CMD_TLBI_EL2_VAA,
        CMD_TLBI_S12_VMALL,
        CMD_TLBI_S2_IPA,
        CMD_TLBI_NSNH_ALL,
        CMD_ATC_INV,
        CMD_PRI_RESP,
        CMD_RESUME,
        CMD_STALL_TERM,
        CMD_SYNC,
        CMD_TLBI_S_EL2_ALL,
        CMD_TLBI_S_EL2_ASID,
        CMD_TLBI_S_EL2_VA,
        CMD_TLBI_S_EL2_VAA,
        CMD_TLBI_S_S12_VMALL,
        CMD_TLBI_S_S2_IPA,
        CMD_TLBI_SNH_ALL,
        CMD_DPTI_ALL,
        CMD_DPTI_PA,
    )
}

LAYOUTS: tuple[type[Command], ...] = tuple(COMMANDS.values())


def decode(entry: int | bytes) -> Command:
    """The command in a queue entry; a plain ``Command`` when its opcode is none of COMMANDS."""
    raw = entry if isinstance(entry, int) else int.from_bytes(entry, "little")
    return COMMANDS.get(raw & 0xFF, Command)(raw)
