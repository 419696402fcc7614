# SPDX-License-Identifier: Apache-2.0
"""What an SMMUv3 writes for software to read: event records (IHI 0070 §7.3) and PRI queue entries (chapter 8).

Law: declarations only; an event has exactly the fields that the architecture gives it. Bits are counted over
the whole record. A StreamID is SID, a SubstreamID is SSID; SSID means nothing while SSV is 0.
"""

from __future__ import annotations

from enum import IntEnum

from ...layout import Layout, address, bit, field


class EventType(IntEnum):
    """The first byte of an event record; 0xe0-0xef are implementation defined, the rest is reserved."""

    F_UUT = 0x01
    C_BAD_STREAMID = 0x02
    F_STE_FETCH = 0x03
    C_BAD_STE = 0x04
    F_BAD_ATS_TREQ = 0x05
    F_STREAM_DISABLED = 0x06
    F_TRANSL_FORBIDDEN = 0x07
    C_BAD_SUBSTREAMID = 0x08
    F_CD_FETCH = 0x09
    C_BAD_CD = 0x0A
    F_WALK_EABT = 0x0B
    F_TRANSLATION = 0x10
    F_ADDR_SIZE = 0x11
    F_ACCESS = 0x12
    F_PERMISSION = 0x13
    F_TLB_CONFLICT = 0x20
    F_CFG_CONFLICT = 0x21
    E_PAGE_REQUEST = 0x24
    F_VMS_FETCH = 0x25


class EventClass(IntEnum):
    """What the SMMU was doing when a stage faulted."""

    CD = 0  #: fetching a CD
    TT = 1  #: walking a stage 1 table
    IN = 2  #: translating the stage's input address


class Event(Layout, size=32):
    """Any event: only its type and stream are known."""

    TYPE = field(7, 0, doc="Which event")
    SID = field(63, 32, doc="StreamID of the transaction")


class _Substream(Event):
    SSV = bit(11, doc="SSID is meant")
    SSID = field(31, 12, doc="SubstreamID of the transaction")


class _Fetch(_Substream):
    Reason = field(79, 64, doc="Implementation defined cause")
    GPCF = bit(80, doc="A granule protection check failed")
    FetchAddr = address(247, 195, low=3, doc="Physical address that was read")


class _Access(_Substream):
    PnU = bit(97, values={0: "unprivileged", 1: "privileged"}, doc="Privilege, after STE.PRIVCFG")
    InD = bit(98, values={0: "data", 1: "instruction"}, doc="Instruction, after STE.INSTCFG; 0 for writes")
    RnW = bit(99, values={0: "write", 1: "read"}, doc="Whether the transaction read")
    InputAddr = address(191, 128, low=0, doc="Address that the transaction carried")


class _StagedAccess(_Access):
    S2 = bit(103, values={0: "stage 1", 1: "stage 2"}, doc="Stage that faulted")


class _Fault(_StagedAccess):
    """The four faults that can stall."""

    STAG = field(79, 64, doc="Names the stalled transaction to CMD_RESUME")
    STALL = bit(95, doc="The transaction waits for CMD_RESUME")
    NSIPA = bit(100, doc="The IPA is Non-secure; 0 on the Non-secure queue")
    CLASS = field(105, 104, values=EventClass, doc="What was translated; IN whenever S2 is 0")
    IPA = address(247, 204, low=12, doc="Page of the address that stage 2 was asked for; meant if S2 is 1")


class F_UUT(_Access, fixed={"TYPE": 0x01}, section="7.3.2"):
    """Unsupported upstream transaction; PnU and InD are as they came in."""

    Reason = field(79, 64, doc="Implementation defined cause")


class C_BAD_STREAMID(_Substream, fixed={"TYPE": 0x02}, section="7.3.3"):
    """StreamID outside of the stream table; recorded if CR2.RECINVSID is 1."""


class F_STE_FETCH(_Fetch, fixed={"TYPE": 0x03}, section="7.3.4"):
    """Reading an L1STD or STE was aborted."""


class C_BAD_STE(_Substream, fixed={"TYPE": 0x04}, section="7.3.5"):
    """The STE is invalid or illegal."""


class F_BAD_ATS_TREQ(_Substream, fixed={"TYPE": 0x05}, section="7.3.6"):
    """ATS translation request where ATS is off.

    Span and the permissions asked for are not declared: their place is given by a figure only, and was not
    confirmed.
    """

    InputAddr = address(191, 140, low=12, doc="Page that was asked for")


class F_STREAM_DISABLED(Event, fixed={"TYPE": 0x06}, section="7.3.7"):
    """STE.S1DSS forbids this transaction for its having no SubstreamID, or SubstreamID 0."""


class F_TRANSL_FORBIDDEN(Event, fixed={"TYPE": 0x07}, section="7.3.8"):
    """Translated ATS transaction where it may not bypass."""

    RnW = bit(99, values={0: "write", 1: "read"}, doc="Whether the transaction read")
    InputAddr = address(191, 128, low=0, doc="Address that the transaction carried")


class C_BAD_SUBSTREAMID(Event, fixed={"TYPE": 0x08}, section="7.3.9"):
    """SubstreamID where there may be none, or outside of the CD table."""

    SSID = field(31, 12, doc="SubstreamID; always meant")


class F_CD_FETCH(_Fetch, fixed={"TYPE": 0x09}, section="7.3.10"):
    """Reading an L1CD or CD was aborted."""


class C_BAD_CD(_Substream, fixed={"TYPE": 0x0A}, section="7.3.11"):
    """The CD is invalid or illegal."""


class F_WALK_EABT(_StagedAccess, fixed={"TYPE": 0x0B}, section="7.3.12"):
    """Reading or updating a translation table descriptor was aborted."""

    Reason = field(79, 64, doc="Implementation defined cause")
    GPCF = bit(80, doc="A granule protection check failed")
    CLASS = field(105, 104, values=EventClass, doc="What was translated; TT if S2 is 0")
    FetchAddr = address(247, 195, low=3, doc="Physical address of the descriptor")


class F_TRANSLATION(_Fault, fixed={"TYPE": 0x10}, section="7.3.13"):
    """Address outside of the tables' range, walk disabled, or no valid descriptor."""


class F_ADDR_SIZE(_Fault, fixed={"TYPE": 0x11}, section="7.3.14"):
    """A stage's output address is beyond its size."""


class F_ACCESS(_Fault, fixed={"TYPE": 0x12}, section="7.3.15"):
    """Access flag 0 in a block or page descriptor."""


class F_PERMISSION(_Fault, fixed={"TYPE": 0x13}, section="7.3.16"):
    """Access that the descriptors do not permit.

    Overlay, AssuredOnly and DirtyBit of version 3.4 are not declared: their place is given by a figure only, and
    was not confirmed.
    """

    TTRnW = bit(108, values={0: "write", 1: "read"}, doc="Access to the stage 1 descriptor; meant if CLASS is TT")


class F_TLB_CONFLICT(_StagedAccess, fixed={"TYPE": 0x20}, section="7.3.17"):
    """Several TLB entries match."""

    Reason = field(79, 64, doc="Implementation defined cause")
    IPA = address(247, 204, low=12, doc="Page of the intermediate physical address; meant if S2 is 1")


class F_CFG_CONFLICT(_Substream, fixed={"TYPE": 0x21}, section="7.3.18"):
    """Several configuration cache entries match."""

    Reason = field(79, 64, doc="Implementation defined cause")


class E_PAGE_REQUEST(_Substream, fixed={"TYPE": 0x24}, section="7.3.19"):
    """A device's hint that it will soon use these pages."""

    uX = bit(97, doc="Unprivileged execution expected")
    uW = bit(98, doc="Unprivileged writes expected")
    uR = bit(99, doc="Unprivileged reads expected")
    pX = bit(101, doc="Privileged execution expected")
    pW = bit(102, doc="Privileged writes expected")
    pR = bit(103, doc="Privileged reads expected")
    Span = field(115, 108, doc="Number of 4096-byte pages")
    InputAddr = address(191, 140, low=12, doc="First page")


class F_VMS_FETCH(_Fetch, fixed={"TYPE": 0x25}, section="7.3.20"):
    """Reading a VMS was aborted."""


#: Every event by its type.
EVENTS: dict[int, type[Event]] = {
    kind.fixed["TYPE"]: kind
    for kind in (
        F_UUT,
        C_BAD_STREAMID,
        F_STE_FETCH,
        C_BAD_STE,
        F_BAD_ATS_TREQ,
        F_STREAM_DISABLED,
        F_TRANSL_FORBIDDEN,
        C_BAD_SUBSTREAMID,
        F_CD_FETCH,
        C_BAD_CD,
        F_WALK_EABT,
        F_TRANSLATION,
        F_ADDR_SIZE,
        F_ACCESS,
        F_PERMISSION,
        F_TLB_CONFLICT,
        F_CFG_CONFLICT,
        E_PAGE_REQUEST,
        F_VMS_FETCH,
    )
}

#: The types that an implementation may define for itself.
IMPDEF_EVENTS = range(0xE0, 0xF0)


def decode(record: int | bytes) -> Event:
    """The event in a record; a plain ``Event`` when its type is none of EVENTS."""
    raw = record if isinstance(record, int) else int.from_bytes(record, "little")
    return EVENTS.get(raw & 0xFF, Event)(raw)


class PRIEntry(Layout, size=16, section="8"):
    """A page request that a PCIe device made, as the PRI queue holds it."""

    SID = field(31, 0, doc="StreamID")
    SSID = field(51, 32, doc="SubstreamID (PASID); means nothing while SSV is 0")
    Priv = bit(58, doc="Privileged access asked for")
    X = bit(59, doc="Execution asked for")
    R = bit(60, doc="Reading asked for")
    W = bit(61, doc="Writing asked for")
    Last = bit(62, doc="Last of its group")
    SSV = bit(63, doc="The request carried a PASID")
    PRGIndex = field(72, 64, doc="Page request group")
    Address = address(127, 76, low=12, doc="Page asked for")

    @property
    def stop_marker(self) -> bool:
        """Whether this is the end of a PASID's use (Last without R and W, with a PASID) and no request."""
        return bool(self.SSV and self.Last and not self.R and not self.W)


LAYOUTS: tuple[type[Layout], ...] = (*EVENTS.values(), PRIEntry)


def record(kind: type[Event], sid: int, ssid: int | None, **values: int) -> Event:
    """An event of ``kind`` with the stream's fields, as far as the kind has them."""
    if ssid is not None and "SSV" in kind.named:
        values.update(SSV=1, SSID=ssid)
    return kind.of(SID=sid, **values)
