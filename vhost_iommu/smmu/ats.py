# SPDX-License-Identifier: Apache-2.0
"""What passes between an SMMU and a PCIe endpoint beside transactions: ATS and PRI messages, as plain values.

Law: values and one protocol, no behaviour; names are those of the PCIe specification and IHI 0070 §3.9 and §8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Protocol

from ..layout import Layout
from .transaction import Translator


class AtsStatus(Enum):
    """How a translation request was completed."""

    SUCCESS = "success"
    UR = "unsupported request"
    CA = "completer abort"


@dataclass(frozen=True, slots=True)
class AtsRequest:
    """May I access the pages from ``iova`` on? ``size`` bytes; ``no_write`` asks for reading only."""

    sid: int
    iova: int
    size: int = 1
    ssid: int | None = None
    no_write: bool = False
    privileged: bool = False
    execute: bool = False


@dataclass(frozen=True, slots=True)
class AtsEntry:
    """2^n bytes from ``iova`` go to ``pa`` (an IPA with split-stage ATS) with these permissions; none: no access."""

    iova: int
    size: int
    pa: int
    read: bool
    write: bool
    execute: bool = False


@dataclass(slots=True)
class AtsCompletion:
    """The answer; ``events`` are the records that the request produced."""

    status: AtsStatus = AtsStatus.SUCCESS
    entries: list[AtsEntry] = field(default_factory=list)
    events: list[Layout] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class AtsInvalidation:
    """Forget translations of [address, address + size) of a PASID, or of any if there is none or ``everywhere``.

    The endpoint calls ``complete`` once nothing of it is in use or in flight; ``time_out`` says that it never did.
    """

    sid: int
    ssid: int | None
    address: int
    size: int
    everywhere: bool
    _ended: Callable[[AtsInvalidation, bool], None]

    def complete(self) -> None:
        self._ended(self, True)

    def time_out(self) -> None:
        self._ended(self, False)


class PrgResponse(IntEnum):
    """Response codes of a page request group (§8.3)."""

    SUCCESS = 0b0000
    INVALID = 0b0001
    FAILURE = 0b1111


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Please make the page at ``address`` present; one of the group ``prgi``, whose end ``last`` says."""

    sid: int
    address: int
    prgi: int
    ssid: int | None = None
    read: bool = False
    write: bool = False
    execute: bool = False
    privileged: bool = False
    last: bool = False

    @property
    def stop_marker(self) -> bool:
        """No request but the end of a PASID's use: Last without R and W, with a PASID."""
        return self.ssid is not None and self.last and not self.read and not self.write


@dataclass(frozen=True, slots=True)
class PageResponse:
    """The answer to a group; ``ssid`` None: without a PASID."""

    sid: int
    prgi: int
    code: PrgResponse
    ssid: int | None = None


class Endpoint(Protocol):
    """A master on the ATS interface. Called with the SMMU's lock held: it must not block."""

    def invalidate(self, invalidation: AtsInvalidation) -> None: ...

    def page_response(self, response: PageResponse) -> None: ...


class AtsTranslator(Translator, Protocol):
    """What a master on the ATS interface needs of an SMMU; ``endpoints`` by StreamID."""

    endpoints: dict[int, Endpoint]

    def ats_request(self, request: AtsRequest) -> AtsCompletion: ...

    def page_request(self, request: PageRequest) -> None: ...
