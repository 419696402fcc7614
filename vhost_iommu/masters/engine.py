# SPDX-License-Identifier: Apache-2.0
"""The SMMUv3TestEngine: frames of registers, each of which runs one DMA command at a time.

Law: the programming model that Arm publishes, read from TF-A-tests' SMMUv3TestEngine.h; where that is silent or
contradicts itself, a comment says what we do; what we add has pages of its own (ExtensionFrame, AtcPage). Frames
run in turns, none starves the others. Not modelled: RATE, random sizes, memory types, NS, Secure; the PCI form.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from functools import lru_cache
from typing import ClassVar, TypeVar

from ..errors import UsageError
from ..layout import Access, Layout, Register, address, bit, field
from ..register_file import RegisterFile, RegisterMap, on_load, on_store
from ..smmu.ats import PageRequest, PrgResponse
from ..smmu.transaction import Outcome, Run
from .atc import GROUPS, Answering, Atc, AtsUser, PageWait, Refusal
from .gate import Gate
from .port import Abort, Attributes, Awaited, Port, Steps, Waiting, Why, transactions
from .window import Window, nothing

T = TypeVar("T")

PAGE = 64 << 10  #: of a user or privileged page
PAIR = 2 * PAGE
FRAME = 128
FRAMES_PER_PAGE = PAGE // FRAME

#: No transaction crosses a boundary of this many bytes of its source, as on AXI; RAND48 seeds anew there.
BURST = 4096
#: Transfers of one frame before the next frame has its turn, and of one that is alone. Between two turns a CMD_SYNC
#: completes, and a reset stops it.
_TURN = 16
_ALONE = (1 << 20) // BURST

_ALL = (1 << 64) - 1
NO_SUBSTREAMID = (1 << 32) - 1


class Cmd(IntEnum):
    """What ``cmd`` may hold."""

    NO_FRAME = 0
    HALTED = 1
    MEMCPY = 2
    RAND48 = 3
    SUM64 = 4
    MISCONFIGURED = 0xFFFFFFFE
    ERROR = 0xFFFFFFFF


class SideAttributes(Layout, size=2):
    """Half of ``attributes``, and of ``msiattr`` the low half: what the transactions of one side carry."""

    inner = field(3, 0)
    outer = field(7, 4)
    PnU = bit(8, doc="Privileged, not user")
    NS = bit(9)
    InD = bit(10, doc="Instruction, not data")
    transient = field(13, 12)
    shareability = field(15, 14)


class UserFrame:
    """128 bytes in the page for less privileged software."""

    class cmd(Register, at=0x00):
        """32-bit accesses only. What is written is a command, what is read a state."""

        VALUE = field(31, 0, values=Cmd)

    class uctrl(Register, at=0x04):
        MSI_ABORTED = bit(0, doc="Set by the engine, cleared by software")
        RATE = field(31, 16, doc="No effect")

    class count_of_transactions_launched(Register, at=0x08):
        VALUE = field(31, 0, doc="Without MSIs")

    class count_of_transactions_returned(Register, at=0x0C):
        VALUE = field(31, 0)

    class msiaddress(Register, at=0x10, size=8):
        ADDRESS = address(63, 0, doc="0: no MSI")

    class msidata(Register, at=0x18):
        VALUE = field(31, 0, doc="Word that the MSI writes")

    class msiattr(Register, at=0x1C):
        VALUE = field(31, 0, doc="Attributes of the MSI, in its low half")

    class attributes(Register, at=0x20):
        SOURCE = field(15, 0, doc="Attributes of reads")
        DESTINATION = field(31, 16, doc="Attributes of writes")

    class seed(Register, at=0x24):
        VALUE = field(31, 0, doc="0: ascending, all ones: descending, else in an order drawn from it")

    class begin(Register, at=0x28, size=8):
        ADDRESS = address(63, 0, doc="Of the first byte")

    class end_incl(Register, at=0x30, size=8):
        ADDRESS = address(63, 0, doc="Of the last byte")

    class stride(Register, at=0x38, size=8):
        VALUE = field(63, 0, doc="1: every byte; a multiple of 8: single 64-bit transfers so far apart")

    class udata(Register, at=0x40, size=8, count=8, stride=8):
        """Operands and results: [0] MEMCPY's destination, [1] SUM64's result, [2] where a transaction aborted."""

        VALUE = field(63, 0)


class PrivilegedFrame:
    """128 bytes in the page for more privileged software."""

    class pctrl(Register, at=0x00):
        SSD_NS = bit(0, access=Access.RO, reset=1, doc="Only secure software could change it")
        ATS_ENABLE = bit(8, doc="Transactions but MSIs go by way of the ATC; MISCONFIGURED without one")
        PRI_ENABLE = bit(9, doc="What the ATC is denied is a page request; MISCONFIGURED without PRI or ATS_ENABLE")

    class downstream_port_index(Register, at=0x04):
        VALUE = field(31, 0, doc="We have port 0")

    class streamid(Register, at=0x08):
        VALUE = field(31, 0, doc="Resets to the engine's first StreamID")

    class substreamid(Register, at=0x0C):
        VALUE = field(31, 0, reset=NO_SUBSTREAMID, doc="All ones: none")

    class pdata(Register, at=0x10, size=8, count=14, stride=8):
        """Storage, without a meaning."""

        VALUE = field(63, 0)


class FaultReason(IntEnum):
    """What ``fault`` may say."""

    NONE = 0
    TERMINATED = 1
    EXTERNAL = 2
    STALLED = 3
    RESUMED = 4
    SILENT = 5
    ATS_DENIED = 6
    ATS_UR = 7
    ATS_CA = 8
    PAGE_REQUESTED = 9
    PAGE_REFUSED = 10


class AtsResult(IntEnum):
    """How a translation request can end."""

    NONE = 0
    GRANTED = 1
    DENIED = 2
    UR = 3
    CA = 4


class ExtensionFrame:
    """128 bytes in a page that is ours, not Arm's; word 0 reads as a frame that is not implemented."""

    class version(Register, at=0x04, access=Access.RO):
        VALUE = field(31, 0, reset=3, doc="Version of these registers; 0: the frame is not implemented")

    class inflight(Register, at=0x08):
        LIMIT = field(7, 0, reset=1, doc="Transfers under way at a time, for transfers that stall; 0 counts as 1")

    class fault(Register, at=0x0C, access=Access.RO):
        """The last transaction that aborted or waited. One that is terminated silently at once tells no master."""

        REASON = field(7, 0, values=FaultReason)
        WRITE = bit(8)
        MSI = bit(9, doc="It was an MSI that stalled")

    class fault_address(Register, at=0x10, size=8, access=Access.RO):
        ADDRESS = address(63, 0, doc="The fault's first byte")

    class stalls_now(Register, at=0x18, access=Access.RO):
        VALUE = field(31, 0, doc="Transactions that are stalled")

    class stalls(Register, at=0x1C, access=Access.RO):
        VALUE = field(31, 0, doc="Transactions that ever stalled; the sum of the others")

    class stalls_resumed(Register, at=0x20, access=Access.RO):
        VALUE = field(31, 0, doc="Of them, those that were translated in the end")

    class stalls_aborted(Register, at=0x24, access=Access.RO):
        VALUE = field(31, 0, doc="Of them, those that were terminated with an abort")

    class stalls_silent(Register, at=0x28, access=Access.RO):
        VALUE = field(31, 0, doc="Of them, those that were terminated silently")

    class ats_result(Register, at=0x2C, access=Access.RO):
        RESULT = field(7, 0, values=AtsResult, doc="Of the last translation request, for what was wanted of it")

    class ats_hits(Register, at=0x30, access=Access.RO):
        VALUE = field(31, 0, doc="Translations that were in the ATC, one for each page touched")

    class ats_requests(Register, at=0x34, access=Access.RO):
        VALUE = field(31, 0, doc="Translation requests that were made")

    class page_requests(Register, at=0x38, access=Access.RO):
        """Requests made; the index of their group is the frame's number, modulo 512."""

        VALUE = field(31, 0)

    class page_successes(Register, at=0x3C, access=Access.RO):
        VALUE = field(31, 0, doc="Responses Success, after which the translation is requested again")

    class page_invalids(Register, at=0x40, access=Access.RO):
        VALUE = field(31, 0, doc="Responses Invalid Request, which abort the transaction")

    class page_failures(Register, at=0x44, access=Access.RO):
        VALUE = field(31, 0, doc="Responses Response Failure, which abort the transaction")

    class page_request_limit(Register, at=0x48):
        LIMIT = field(15, 0, reset=8, doc="Page requests in a row for one address, then it aborts; 0 counts as 1")

    class special(Register, at=0x4C):
        """What a command does for the sake of events that nothing else here makes; its MSI is as ever."""

        UNSUPPORTED = bit(0, doc="Its transactions are of a type that the SMMU does not support: F_UUT")
        PAGE_HINTS = bit(1, doc="It begins with a hint for each side, of 255 pages at most: E_PAGE_REQUEST")


class AtcPage:
    """The last page of the window: the ATC that all frames share; ours, too. Without an ATC it reads as zero."""

    class features(Register, at=0x04, access=Access.RO):
        ATS = bit(0, doc="There is an ATC")
        PRI = bit(1, doc="The SMMU takes page requests")

    class capacity(Register, at=0x08, access=Access.RO):
        VALUE = field(31, 0, doc="Entries that there can be")

    class entries(Register, at=0x0C, access=Access.RO):
        VALUE = field(31, 0, doc="Entries that there are")

    class hits(Register, at=0x10, access=Access.RO):
        VALUE = field(31, 0, doc="Translations that were there")

    class misses(Register, at=0x14, access=Access.RO):
        VALUE = field(31, 0, doc="Translations that were requested")

    class evictions(Register, at=0x18, access=Access.RO):
        VALUE = field(31, 0, doc="Entries that gave way to others")

    class invalidations(Register, at=0x1C, access=Access.RO):
        VALUE = field(31, 0, doc="Invalidation requests that came")

    class invalidations_held(Register, at=0x20, access=Access.RO):
        VALUE = field(31, 0, doc="Of them, those that are held; of more than 32 the rest time out")

    class page_responses_unexpected(Register, at=0x24, access=Access.RO):
        VALUE = field(31, 0, doc="Page responses that no request waits for")

    class answering(Register, at=0x28):
        """32-bit accesses only. What becomes of invalidation requests, and at once of those that are held.

        Until one completes its entries are in use.
        """

        HOW = field(1, 0, values=Answering, doc="Resets to what the machine file says; the reserved value holds")


def _registers(frame: type) -> tuple[type[Register], ...]:
    return tuple(each for each in vars(frame).values() if isinstance(each, type) and issubclass(each, Register))


#: The registers of a frame, by part.
USER_REGISTERS, PRIVILEGED_REGISTERS, EXTENSION_REGISTERS = map(
    _registers, (UserFrame, PrivilegedFrame, ExtensionFrame)
)
ATC_REGISTERS = _registers(AtcPage)
LAYOUTS: tuple[type[Layout], ...] = (
    *USER_REGISTERS,
    *PRIVILEGED_REGISTERS,
    *EXTENSION_REGISTERS,
    *ATC_REGISTERS,
    SideAttributes,
)


#: The parts of a frame, by number.
_USER, _PRIVILEGED, _EXTENSION = range(3)
_MAPS = tuple(map(RegisterMap, (USER_REGISTERS, PRIVILEGED_REGISTERS, EXTENSION_REGISTERS)))
_PART = {register: number for number, each in enumerate(_MAPS) for register in each.resets}
_ATC_MAP = RegisterMap(ATC_REGISTERS)


# -- RAND48 ------------------------------------------------------------------------------------------------------

_A, _C, _MASK48 = 0x5DEECE66D, 0xB, (1 << 48) - 1


def random_seed(seed: int) -> int:
    """The generator's state for a 32-bit ``seed``."""
    return (seed << 16 | 0x330E) & _MASK48


def random_step(state: int) -> tuple[int, int]:
    """The generator's next state and 32-bit number, which take two steps of the 48-bit congruence."""
    state = (state * _A + _C) & _MASK48
    low = (state >> 17) & 0x7FFFFFFF
    state = (state * _A + _C) & _MASK48
    return state, low | (state & 0x80000000)


@lru_cache
def _lanes(count: int) -> tuple[int, int]:
    """Factors and addends that take a state to those of which the low bytes of ``count`` numbers come, in 64-bit lanes.

    Such a byte is bits [24:17] of the state, which only its low 25 bits decide: a lane's product needs 51 bits.
    """
    low = (1 << 25) - 1
    factor, addend = _A & low, _C
    factors, addends = [], []
    for _ in range(count):
        factors.append(factor)
        addends.append(addend)
        for _ in range(2):
            factor, addend = factor * _A & low, (addend * _A + _C) & low
    codec = struct.Struct(f"<{count}Q")
    return int.from_bytes(codec.pack(*factors), "little"), int.from_bytes(codec.pack(*addends), "little")


def random_bytes(seed: int, at: int, size: int) -> bytes:
    """What RAND48 writes to ``size`` bytes (at most BURST) of one transfer that begins at address ``at``."""
    count = 8 if size <= 8 else BURST
    factors, addends = _lanes(count)
    state = random_seed(seed ^ (at >> 32) ^ (at & 0xFFFFFFFF)) & ((1 << 25) - 1)
    return ((state * factors + addends) >> 17).to_bytes(8 * count, "little")[: 8 * size : 8]


# -- frames and the commands that they run --------------------------------------------------------------------------


class Frame:
    """A user frame with its privileged frame and its extension."""

    __slots__ = ("index", "job", "paged", "parts")

    def __init__(self, index: int, sid: int) -> None:
        self.index = index
        self.parts = tuple(RegisterFile(each, narrow=True) for each in _MAPS)
        self.put(UserFrame.cmd, Cmd.HALTED)
        self.put(PrivilegedFrame.streamid, sid)
        self.job: Job | None = None
        #: StreamID and PASID of page requests that no stop marker has followed yet.
        self.paged: tuple[int, int] | None = None

    def get(self, register: type[Register], index: int = 0) -> int:
        return self.parts[_PART[register]].raw(register, index)

    def put(self, register: type[Register], value: int, index: int = 0) -> None:
        self.parts[_PART[register]][register, index] = value

    def count(self, register: type[Register], by: int = 1) -> None:
        self.put(register, (self.get(register) + by) & 0xFFFFFFFF)

    def carried(
        self, sid: int, ssid: int | None, attributes: int, ats: AtsUser | None = None, *, unsupported: bool = False
    ) -> Attributes:
        """What transactions of a side with these ``attributes`` carry."""
        side = SideAttributes(attributes & 0xFFFF)
        return Attributes(sid, ssid, bool(side.PnU), bool(side.InD), ats, unsupported)

    def ats_user(self) -> AtsUser | None:
        """This frame as the ATC knows it, if it is to use that."""
        pctrl = PrivilegedFrame.pctrl(self.get(PrivilegedFrame.pctrl))
        return _AtsFrame(self, bool(pctrl.PRI_ENABLE)) if pctrl.ATS_ENABLE else None

    def stopped(self) -> tuple[int, int] | None:
        """StreamID and PASID for which page requests were made that the frame is not set to make any more, once."""
        if self.paged is None:
            return None
        pctrl = PrivilegedFrame.pctrl(self.get(PrivilegedFrame.pctrl))
        used = self.get(PrivilegedFrame.streamid), self.get(PrivilegedFrame.substreamid)
        if pctrl.PRI_ENABLE and self.paged == used:
            return None
        paged, self.paged = self.paged, None
        return paged

    def fault(self, reason: FaultReason, iova: int, *, write: bool, msi: bool = False) -> None:
        self.put(ExtensionFrame.fault, ExtensionFrame.fault.of(REASON=reason, WRITE=write, MSI=msi).raw)
        self.put(ExtensionFrame.fault_address, iova & _ALL)

    def stalled(self, stall: Awaited, *, msi: bool = False) -> None:
        """A transaction of this frame stalls, or waits for a page."""
        reason = FaultReason.PAGE_REQUESTED
        if not isinstance(stall, PageWait):
            reason = FaultReason.STALLED
            self.count(ExtensionFrame.stalls)
            self.count(ExtensionFrame.stalls_now)
        self.fault(reason, stall.transaction.iova, write=stall.transaction.write, msi=msi)

    def resolved(self, stall: Awaited, *, msi: bool = False) -> None:
        """It does not any more."""
        assert stall.answer is not None
        if isinstance(stall, PageWait):
            if stall.sent:
                self.count(_PAGE_ENDS[stall.answer])
            return
        register, reason = _STALL_ENDS[stall.answer.outcome]
        self.count(ExtensionFrame.stalls_now, -1)
        self.count(register)
        self.fault(reason, stall.transaction.iova, write=stall.transaction.write, msi=msi)


class _AtcRegisters:
    """The AtcPage: what it reads as is the ATC's."""

    def __init__(self, atc: Atc) -> None:
        self.atc = atc
        self.file = RegisterFile(_ATC_MAP, narrow=True)
        self.file.attach(self)

    @on_load(AtcPage.features)
    def _features(self) -> int:
        return AtcPage.features.of(ATS=1, PRI=self.atc.pri).raw

    @on_load(AtcPage.capacity)
    def _capacity(self) -> int:
        return self.atc.capacity

    @on_load(AtcPage.entries)
    def _entries(self) -> int:
        return len(self.atc)

    @on_load(AtcPage.hits)
    def _hits(self) -> int:
        return self.atc.hits

    @on_load(AtcPage.misses)
    def _misses(self) -> int:
        return self.atc.misses

    @on_load(AtcPage.evictions)
    def _evictions(self) -> int:
        return self.atc.evictions

    @on_load(AtcPage.invalidations)
    def _invalidations(self) -> int:
        return self.atc.invalidations

    @on_load(AtcPage.invalidations_held)
    def _held(self) -> int:
        return self.atc.held

    @on_load(AtcPage.page_responses_unexpected)
    def _unexpected(self) -> int:
        return self.atc.unexpected

    @on_load(AtcPage.answering)
    def _answering(self) -> int:
        return self.atc.answering

    @on_store(AtcPage.answering)
    def _answering_stored(self, old: AtcPage.answering, new: AtcPage.answering) -> None:
        how = new.HOW
        self.atc.answer_invalidations(Answering(how) if how in set(Answering) else Answering.HOLD)


class _AtsFrame(AtsUser):
    """A frame whose command uses the ATC."""

    def __init__(self, frame: Frame, pri: bool) -> None:
        most = max(1, frame.get(ExtensionFrame.page_request_limit))
        super().__init__(frame.index % GROUPS if pri else None, most)
        self.frame = frame

    def hit(self) -> None:
        self.frame.count(ExtensionFrame.ats_hits)

    def asked(self, refusal: Refusal | None) -> None:
        self.frame.count(ExtensionFrame.ats_requests)
        self.frame.put(ExtensionFrame.ats_result, _ATS_RESULTS[refusal])

    def page_requested(self, request: PageRequest) -> None:
        self.frame.count(ExtensionFrame.page_requests)
        if request.ssid is not None:
            self.frame.paged = request.sid, request.ssid


_STALL_ENDS = {
    Outcome.OK: (ExtensionFrame.stalls_resumed, FaultReason.RESUMED),
    Outcome.ABORT: (ExtensionFrame.stalls_aborted, FaultReason.TERMINATED),
    Outcome.RAZ_WI: (ExtensionFrame.stalls_silent, FaultReason.SILENT),
}
_PAGE_ENDS = {
    PrgResponse.SUCCESS: ExtensionFrame.page_successes,
    PrgResponse.INVALID: ExtensionFrame.page_invalids,
    PrgResponse.FAILURE: ExtensionFrame.page_failures,
}
_ABORT_REASONS = {
    Why.TERMINATED: FaultReason.TERMINATED,
    Why.EXTERNAL: FaultReason.EXTERNAL,
    Why.DENIED: FaultReason.ATS_DENIED,
    Why.UNSUPPORTED: FaultReason.ATS_UR,
    Why.COMPLETER: FaultReason.ATS_CA,
    Why.NO_PAGE: FaultReason.PAGE_REFUSED,
}
_ATS_RESULTS = {
    None: AtsResult.GRANTED,
    Refusal.DENIED: AtsResult.DENIED,
    Refusal.UR: AtsResult.UR,
    Refusal.CA: AtsResult.CA,
}


class _Order:
    """In which order transfers are made, by their number from the lowest: from either end inwards."""

    def __init__(self, count: int, seed: int) -> None:
        self.front = 0
        self.left = count
        self.ascending = seed == 0
        self._descending = seed == 0xFFFFFFFF
        self._state = random_seed(seed)

    def take(self) -> int:
        """The next one; there must be one ``left``."""
        last = self._descending
        if not (self.ascending or self._descending):  # which bit draws the end is unspecified
            self._state, number = random_step(self._state)
            last = bool(number & 1)
        self.left -= 1
        if last:
            return self.front + self.left
        self.front += 1
        return self.front - 1

    def skip(self, count: int) -> None:
        """So many from the front, which are next."""
        self.front += count
        self.left -= count


class Job:
    """A command under way; a class for each command, found by its number."""

    command: ClassVar[Cmd]
    commands: ClassVar[dict[int, type[Job]]] = {}

    def __init_subclass__(cls) -> None:
        Job.commands[cls.command] = cls

    def __init__(self, frame: Frame, gate: Gate) -> None:
        """A frame takes no writes while it runs, so its registers are read once."""
        self.frame, self.gate, self.port = frame, gate, gate.port
        self.begin = frame.get(UserFrame.begin)
        self.end_incl = frame.get(UserFrame.end_incl)
        self.stride = frame.get(UserFrame.stride)
        self.seed = frame.get(UserFrame.seed)
        self.destination = frame.get(UserFrame.udata, 0)
        self.sid = frame.get(PrivilegedFrame.streamid)
        ssid = frame.get(PrivilegedFrame.substreamid)
        self.ssid = None if ssid == NO_SUBSTREAMID else ssid
        attributes = UserFrame.attributes(frame.get(UserFrame.attributes))
        ats = frame.ats_user()
        special = ExtensionFrame.special(frame.get(ExtensionFrame.special))
        unsupported = bool(special.UNSUPPORTED)
        self.source_carries = frame.carried(self.sid, self.ssid, attributes.SOURCE, ats, unsupported=unsupported)
        self.destination_carries = frame.carried(
            self.sid, self.ssid, attributes.DESTINATION, ats, unsupported=unsupported
        )
        self.hints = bool(special.PAGE_HINTS)  # to be given still
        self.order = _Order(self.transfers if self.stride else 1, self.seed)
        self.limit = max(1, frame.get(ExtensionFrame.inflight))
        #: Stalled transfers, each by what it waits for.
        self.stalled: dict[Awaited, Steps[Abort | None]] = {}
        #: The first transfer that failed; after it none is begun.
        self.failed: Abort | None = None

    def misconfigured(self) -> str:
        """What makes the command impossible, or nothing."""
        frame = self.frame
        if self.sid not in self.port.sids and self.port.sids:
            return f"streamid {self.sid:#x} is not the engine's"
        if self.ssid is not None and self.ssid >> 20:
            return f"substreamid {self.ssid:#x} has more than 20 bits"
        if frame.get(PrivilegedFrame.downstream_port_index):
            return "there is downstream port 0 only"
        pctrl, atc = PrivilegedFrame.pctrl(frame.get(PrivilegedFrame.pctrl)), self.port.atc
        if pctrl.ATS_ENABLE and atc is None:
            return "ATS_ENABLE is set, but there is no ATC, or the SMMU has no ATS"
        if pctrl.PRI_ENABLE and not (pctrl.ATS_ENABLE and atc is not None and atc.pri):
            return "PRI_ENABLE is set, but ATS_ENABLE is not, or the SMMU has no PRI"
        if (self.begin & ~7, self.end_incl | 7) == (0, _ALL):
            return "the range is all there is"
        if self.begin > self.end_incl:  # unspecified; nothing else makes sense of it
            return "end_incl is before begin"
        # One sentence of the header promises ENGINE_ERROR for a stride of 0, the general rules say this:
        if self.stride != 1 and (self.stride == 0 or self.stride % 8):
            return f"stride {self.stride:#x} is neither 1 nor a multiple of 8"
        return ""

    # -- which transfers, in which order --

    @property
    def transfers(self) -> int:
        """How many there are."""
        if self.stride == 1:
            return self.end_incl // BURST - self.begin // BURST + 1
        return ((self.end_incl & ~7) - (self.begin & ~7)) // self.stride + 1

    def transfer(self, n: int) -> tuple[int, int]:
        """Address and size of the ``n``th from the lowest: a page's part of the range, or a 64-bit element."""
        if self.stride != 1:
            return (self.begin & ~7) + n * self.stride, 8
        page = self.begin // BURST * BURST + n * BURST
        first = max(self.begin, page)
        return first, min(self.end_incl, page + BURST - 1) - first + 1

    def target(self, at: int) -> int:
        """Where MEMCPY puts what is ``at``; elements go to 64-bit aligned places, as they come from such."""
        if self.stride == 1:
            return self.destination + (at - self.begin)
        return (self.destination & ~7) + (at - (self.begin & ~7))

    # -- doing them --

    def turn(self, *, alone: bool) -> Cmd | Sequence[Awaited]:
        """Some transfers, with the gate held, more where no other frame waits for its turn: how the
        command ended, or for which stalls' end the next turn waits.

        One that failed leaves the command running until those that are stalled have ended too, so that no
        transaction outlives its command.
        """
        if self.hints:
            self.hints = False
            self._hint()
        for stall in [stall for stall in self.stalled if stall.answer is not None][:_TURN]:
            self._step(self.stalled.pop(stall))
        done = self._run(_ALONE if alone else _TURN) if self._may_begin() else 0
        for _ in range(done, _TURN):
            if not self._may_begin():
                break
            self._step(self.move(*self.transfer(self.order.take())))
        if self._may_begin():
            return ()
        if self.stalled:
            return tuple(self.stalled)
        if self.failed is None:
            self.finish()
            return Cmd.HALTED
        self.frame.put(UserFrame.udata, self.failed.iova & _ALL, 2)
        return Cmd.ERROR

    def _may_begin(self) -> bool:
        return self.order.left > 0 and self.failed is None and len(self.stalled) < self.limit

    def _run(self, most: int) -> int:
        """Transfers in one call, of those that are next: how many were done, or ended it and go on by themselves."""
        count = min(most, self.order.left)
        if count < 2 or self.stride != 1 or not self.order.ascending:
            return 0
        at, _ = self.transfer(self.order.front)
        run = self.run(at, sum(self.transfer(self.order.front + count - 1)) - at)
        if run is None:
            return 0
        count = transactions(at, run.done, BURST)
        self.order.skip(count)
        by = count * len(list(self.sides()))
        self.frame.count(UserFrame.count_of_transactions_launched, by)
        self.frame.count(UserFrame.count_of_transactions_returned, by)
        if run.read is not None or run.written is not None:
            self._step(self.move(*self.transfer(self.order.take()), run))
            count += 1
        return count

    def _step(self, transfer: Steps[Abort | None]) -> None:
        try:
            (stall,) = next(transfer)
        except StopIteration as end:
            self.failed = self.failed or end.value
        else:
            self.stalled[stall] = transfer

    def move(self, at: int, size: int, ended: Run | None = None) -> Steps[Abort | None]:
        """One transfer, perhaps the one that has ``ended`` a run."""
        raise NotImplementedError

    def run(self, at: int, size: int) -> Run | None:
        """Transfers of so many bytes, in one call; None: they are to be done one by one."""
        raise NotImplementedError

    def sides(self) -> Iterator[tuple[int, bool]]:
        """Where the range is, and whether it is written there: of each side of the command."""
        yield self.begin, False

    def _hint(self) -> None:
        for first, write in self.sides():
            carries = self.destination_carries if write else self.source_carries
            self.port.hint(first, self.end_incl - self.begin + 1, carries, write=write)

    def finish(self) -> None:
        """Leave the result."""

    def read(self, iova: int, size: int, ended: Run | None) -> Steps[bytes | Abort]:
        self.frame.count(UserFrame.count_of_transactions_launched)
        found = None if ended is None else ended.read
        return (yield from self._returned(self.port.read(iova, size, self.source_carries, found), False))

    def write(self, iova: int, data: bytes, ended: Run | None) -> Steps[Abort | None]:
        self.frame.count(UserFrame.count_of_transactions_launched)
        begun = None if ended is None else ended.written
        return (yield from self._returned(self.port.write(iova, data, self.destination_carries, begun), True))

    def _returned(self, found: T | Abort | Waiting[T], write: bool) -> Steps[T | Abort]:
        """See a transaction through to its end."""
        while isinstance(found, Waiting):
            self.frame.stalled(found.stall)
            yield (found.stall,)
            self.frame.resolved(found.stall)
            found = found.go_on()
        if isinstance(found, Abort):
            self.frame.fault(_ABORT_REASONS[found.why], found.iova, write=write)
        self.frame.count(UserFrame.count_of_transactions_returned)
        return found


class Memcpy(Job):
    """Copy the range to udata[0]."""

    command = Cmd.MEMCPY

    def sides(self) -> Iterator[tuple[int, bool]]:
        yield self.begin, False
        yield self.destination, True

    def misconfigured(self) -> str:
        wrong = super().misconfigured()
        if not wrong and self.target(sum(self.transfer(self.transfers - 1)) - 1) > _ALL:  # unspecified
            return "the destination ends beyond the address space"
        return wrong

    def run(self, at: int, size: int) -> Run | None:
        return self.port.copy(at, self.target(at), size, BURST, self.source_carries, self.destination_carries)

    def move(self, at: int, size: int, ended: Run | None = None) -> Steps[Abort | None]:
        data = yield from self.read(at, size, ended)
        return data if isinstance(data, Abort) else (yield from self.write(self.target(at), data, ended))


class Rand48(Job):
    """Fill the range with numbers that its addresses and the seed decide."""

    command = Cmd.RAND48

    def sides(self) -> Iterator[tuple[int, bool]]:
        yield self.begin, True

    def run(self, at: int, size: int) -> Run | None:
        # To make more takes longer than the gate should be held.
        size = min(size, (at // BURST + _TURN) * BURST - at)

        def data() -> bytes:
            numbers = range(at // BURST, (at + size - 1) // BURST + 1)
            return b"".join(
                random_bytes(self.seed, first, min(at + size, (n + 1) * BURST) - first)
                for n in numbers
                for first in (max(at, n * BURST),)
            )

        return self.port.fill(at, size, data, BURST, self.destination_carries)

    def move(self, at: int, size: int, ended: Run | None = None) -> Steps[Abort | None]:
        return self.write(at, random_bytes(self.seed, at, size), ended)


class Sum64(Job):
    """Add up the range's 64-bit words."""

    command = Cmd.SUM64

    def __init__(self, frame: Frame, gate: Gate) -> None:
        super().__init__(frame, gate)
        self.total = 0

    def misconfigured(self) -> str:
        wrong = super().misconfigured()
        if not wrong and (self.begin & 7 or self.end_incl & 7 != 7):
            return "the range is not whole 64-bit words"
        return wrong

    def run(self, at: int, size: int) -> Run | None:
        run = self.port.sum64(at, size, BURST, self.source_carries)
        self.total = (self.total + (0 if run is None else run.total)) & _ALL
        return run

    def move(self, at: int, size: int, ended: Run | None = None) -> Steps[Abort | None]:
        data = yield from self.read(at, size, ended)
        if isinstance(data, Abort):
            return data
        self.total = (self.total + sum(struct.unpack(f"<{size // 8}Q", data))) & _ALL
        return None

    def finish(self) -> None:
        self.frame.put(UserFrame.udata, self.total, 1)


class TestEngine(Window):
    """The engine, as a platform device.

    A command that ran ends with an MSI when ``msiaddress`` is not 0: a write by the frame's stream, without
    SubstreamID, through the SMMU; and with a pulse of the wired interrupt, for software without MSIs.
    A stalled transaction holds up its frame alone, and of that the transfers beyond ``inflight``.
    ``frames`` are implemented; each begun 512 take 128 KiB of registers, and 64 KiB behind all of those; then comes
    the AtcPage. With a ``port.atc`` frames can use ATS.
    """

    OPEN = Window.OPEN | {"_atc", "_frames", "_jobs"}
    compatible = "arm,smmute"
    size = PAIR + 2 * PAGE
    __test__ = False  # pytest takes the name for a test's

    def __init__(
        self,
        name: str,
        port: Port,
        *,
        frames: int = FRAMES_PER_PAGE,
        interrupt: Callable[[], None] = nothing,
        wake: Callable[[], None] | None = None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        super().__init__(name, port, interrupt=interrupt, wake=wake, lock=lock)
        if not 1 <= frames <= 64 * FRAMES_PER_PAGE:
            raise UsageError(f"{name}: frames must be 1 to {64 * FRAMES_PER_PAGE}, not {frames}")
        self.frames = frames
        pairs = -(-frames // FRAMES_PER_PAGE)
        #: Where the extension pages begin.
        self.extension = pairs * PAIR
        self.atc_page = self.extension + pairs * PAGE
        self.size = self.atc_page + PAGE
        #: Commands that were started, by number.
        self.commands: dict[int, int] = {}
        self._frames: dict[int, Frame] = {}
        self._jobs: list[Job] = []
        self._atc: _AtcRegisters | None = None
        self.seal()

    def frame(self, index: int) -> Frame | None:
        """None: not implemented."""
        if not 0 <= index < self.frames:
            return None
        frame = self._frames.get(index)
        if frame is None:
            frame = self._frames.setdefault(index, Frame(index, self.port.sids[0] if self.port.sids else 0))
        return frame

    def _atc_page(self) -> _AtcRegisters | None:
        """None: there is no ATC."""
        atc = self.port.atc
        if atc is None:
            return None
        if self._atc is None:
            self._atc = _AtcRegisters(atc)
        return self._atc

    def _where(self, offset: int) -> tuple[int, int, int]:
        """Frame, which part of it, and the offset in that."""
        if offset >= self.extension:
            index, at = divmod(offset - self.extension, FRAME)
            return index, _EXTENSION, at
        pair, rest = divmod(offset, PAIR)
        part, rest = divmod(rest, PAGE)
        index, at = divmod(rest, FRAME)
        return pair * FRAMES_PER_PAGE + index, part, at

    def read(self, offset: int, size: int) -> int:
        # Without the lock: software polls cmd while the worker holds it.
        if offset >= self.atc_page:
            page = self._atc_page()
            return 0 if page is None else page.file.read(offset - self.atc_page, size)
        index, part, at = self._where(offset)
        frame = self.frame(index)
        if frame is None or (part == _USER and at < 4 and (at, size) != (0, 4)):
            return 0
        return frame.parts[part].read(at, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset >= self.atc_page:
            page = self._atc_page()
            if page is not None and size == 4:
                page.file.write(offset - self.atc_page, size, value)
            return
        index, part, at = self._where(offset)
        frame = self.frame(index)
        if frame is None or frame.job is not None:
            return
        wake = False
        stopped = None
        with self.turns:
            if frame.job is not None:
                return
            if part == _USER and at < UserFrame.cmd.size:
                if (at, size) == (0, 4):
                    wake = self.store_cmd(frame, value)
            else:
                frame.parts[part].write(at, size, value)
                stopped = frame.stopped()
        if stopped is not None and self.port.atc is not None:
            self.port.atc.stop(*stopped)
        if wake:
            self.wake()

    def store_cmd(self, frame: Frame, value: int) -> bool:
        """Whether a command started; holds the lock."""
        if value in (Cmd.NO_FRAME, Cmd.HALTED):
            frame.put(UserFrame.cmd, Cmd.HALTED)
            return False
        if value in (Cmd.ERROR, Cmd.MISCONFIGURED):  # states, which the header does not count among the invalid
            frame.put(UserFrame.cmd, value)
            return False
        command = Job.commands.get(value)
        job = None if command is None else command(frame, self.gate)
        wrong = f"there is no command {value:#x}" if job is None else job.misconfigured()
        if self.port.watch.on:
            self.port.watch.noted(
                self.name,
                "request",
                "MISCONFIGURED" if wrong else Cmd(value).name,
                frame=frame.index,
                begin=frame.get(UserFrame.begin),
                end_incl=frame.get(UserFrame.end_incl),
                why=wrong,
            )
        if job is None or wrong:
            frame.put(UserFrame.cmd, Cmd.MISCONFIGURED)
            return False
        self.commands[value] = self.commands.get(value, 0) + 1
        frame.put(UserFrame.cmd, value)
        frame.job = job
        self._jobs.append(job)
        return True

    def reset(self) -> None:
        with self.turns:
            self.renew()
            self._frames = {}
            self._jobs = []
            if self.port.atc is not None:
                self.port.atc.reset()

    # -- work ------------------------------------------------------------------------------------------------------

    def pending_work(self) -> None:
        """Run all frames, in turns, until each has ended or waits for stalled transactions."""
        more = True
        while more:
            with self.gate:
                jobs, self._jobs = self._jobs, []
            for job in jobs:
                self.tasks.add(self._run(job))
            more = self.tasks.turn()

    def _run(self, job: Job) -> Steps[None]:
        """A command from its first transfer to its MSI."""
        while True:
            with job.gate as is_open:
                if not is_open:  # reset: the frame is forgotten
                    return
                ended = job.turn(alone=self.tasks.alone)
                if isinstance(ended, Cmd):
                    msi = self._end(job, ended)
                    break
            yield ended
        self.interrupt()
        while msi is not None:
            yield (msi.stall,)
            with job.gate as is_open:
                if not is_open:
                    return
                job.frame.resolved(msi.stall, msi=True)
                msi = self._msi(job, msi.go_on())

    def _end(self, job: Job, ended: Cmd) -> Waiting[None] | None:
        """Tell the state, then send the MSI, whose handler looks at it."""
        frame, gate = job.frame, job.gate
        frame.job = None
        frame.put(UserFrame.cmd, ended)
        to = frame.get(UserFrame.msiaddress)
        if not to:
            return None

        def aborted() -> None:
            with self.turns:
                frame.put(UserFrame.uctrl, frame.get(UserFrame.uctrl) | UserFrame.uctrl.MSI_ABORTED.mask)

        sent = gate.port.post(
            to,
            frame.get(UserFrame.msidata).to_bytes(4, "little"),
            aborted,
            frame.carried(job.sid, None, frame.get(UserFrame.msiattr)),
        )
        return self._msi(job, sent)

    @staticmethod
    def _msi(job: Job, sent: Waiting[None] | Abort | None) -> Waiting[None] | None:
        """Count an MSI that stalls; one that aborts has told ``aborted``."""
        if not isinstance(sent, Waiting):
            return None
        job.frame.stalled(sent.stall, msi=True)
        return sent
