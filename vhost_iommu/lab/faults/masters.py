# SPDX-License-Identifier: Apache-2.0
"""Faults of masters: transactions that go astray, and those that come when their time is over."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

from ...smmu.transaction import Transaction
from .injection import Injection, Seen, parameter

#: Cases in which a guest does nothing for a while, or gives a disk back.
_WAITS = "waits=sleep 2"
_UNBINDS = 'unbinds=cd /sys/bus/platform/drivers/virtio-mmio; for each in *.*; do echo "$each" >unbind; done; sleep 2'

#: Cases in which the engine is at work by itself.
_OF_THE_ENGINE = ("engine0_copies_coherent_memory", "no_smmu_warnings")


@dataclass
class WrongStream(Injection):
    """A master's transaction carries another StreamID, another SubstreamID, or both."""

    KIND = "wrong-stream"
    TARGET = "master"
    SECTION = "3.2"
    LINUX = (
        Seen(
            "sid=0x101 after=30",
            (),
            "Linux aborts streams that it knows nothing of, without an event; the disk's request ends in an I/O error.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "sid=0x1000 after=30",
            ("event 0x02 received:",),
            "C_BAD_STREAMID, beyond the tables that there are; likewise.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "ssid=1 after=30",
            ("event 0x08 received:",),
            "C_BAD_SUBSTREAMID; likewise.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "ssid=1 after=3",
            ("event 0x0a received:",),
            "C_BAD_CD, of a PASID that nothing is attached to; the engine's command ends in an error.",
            _OF_THE_ENGINE,
            machine="smmuv3-pasid",
            cases=_OF_THE_ENGINE,
        ),
    )

    sid: int | None = parameter("the StreamID that it carries", None)
    ssid: int | None = parameter("the SubstreamID that it carries", None)

    def rewrite(self, transaction: Transaction) -> Transaction:
        if not self.strikes(f"a {_said(transaction)} carries another stream"):
            return transaction
        if self.sid is not None:
            transaction = dataclasses.replace(transaction, sid=self.sid)
        return transaction if self.ssid is None else dataclasses.replace(transaction, ssid=self.ssid)


@dataclass
class WrongAddress(Injection):
    """A master's transaction goes to an address that the guest never gave: a random page below 2^48."""

    KIND = "wrong-address"
    TARGET = "master"
    SECTION = "7.3.13"
    LINUX = (
        Seen(
            "after=30",
            ("event 0x10 received:",),
            "F_TRANSLATION; the disk's request ends in an I/O error.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "after=3",
            ("event 0x10 received:",),
            "Likewise; the engine's command ends in an error.",
            _OF_THE_ENGINE,
            machine="smmuv3-pasid",
            cases=_OF_THE_ENGINE,
        ),
    )

    def rewrite(self, transaction: Transaction) -> Transaction:
        iova = self.random.randrange(1 << 36) << 12 | transaction.iova & 0xFFF
        if not self.strikes(f"{transaction.size} bytes at {transaction.iova:#x} become those at {iova:#x}"):
            return transaction
        return dataclasses.replace(transaction, iova=iova)


@dataclass
class StaleDma(Injection):
    """A master's transaction is made once more, some time later: its address is stale by then, as what was mapped there
    may be unmapped, or the guest may have crashed. A write is one of bytes 0x5a.
    """

    KIND = "stale-dma"
    TARGET = "master"
    SECTION = "3.21.1"
    LATER = True
    LINUX = (
        Seen(
            "seconds=0.3",
            ("event 0x10 received:",),
            "F_TRANSLATION, since a buffer is unmapped as soon as the disk has answered. No byte is written.",
            ("no_smmu_warnings",),
            cases=("waits", "no_smmu_warnings"),
            own=(_WAITS,),
        ),
        Seen(
            "seconds=0.3",
            ("event 0x10 received:",),
            "Likewise; the engine's driver is gone by then.",
            ("no_smmu_warnings",),
            machine="smmuv3-pasid",
            cases=("engine0_copies_coherent_memory", "waits", "no_smmu_warnings"),
            own=(_WAITS,),
        ),
    )

    seconds: float = parameter("how much later", 1.0)
    times: int = parameter("how often, each so much later than the one before; 0: without end", 1)
    least: int = parameter("bytes of the smallest transaction that may be", 512)

    def rewrite(self, transaction: Transaction) -> Transaction:
        if transaction.size >= self.least and self.takes():
            self._after(transaction, self.times)
        return transaction

    def _after(self, transaction: Transaction, left: int) -> None:
        assert self.lab.later is not None
        self.lab.later(max(self.seconds, SHORTEST), partial(self._again, transaction, left))

    def _again(self, transaction: Transaction, left: int) -> None:
        if self._ended:
            return
        how = self.lab.stray(self.name, transaction)
        self.strike(f"a {_said(transaction)} was made again after {self.seconds:g} s: {how}")
        if left != 1:
            self._after(transaction, max(left - 1, 0))


@dataclass
class DmaAfterReset(Injection):
    """After software has reset a master, its last transaction of before is made once more; a write is of bytes 0x5a."""

    KIND = "dma-after-reset"
    TARGET = "master"
    SECTION = "3.21.1"
    LATER = True
    LINUX = (
        Seen(
            "",
            ("event 0x10 received:",),
            "F_TRANSLATION: its driver has unmapped all before. No byte is written.",
            ("no_smmu_warnings",),
            cases=("unbinds", "no_smmu_warnings"),
            own=(_UNBINDS,),
        ),
    )

    seconds: float = parameter("how long after the reset", 0.5)
    least: int = parameter("bytes of the smallest transaction that may be", 512)
    _last: Transaction | None = dataclasses.field(default=None, init=False)

    def rewrite(self, transaction: Transaction) -> Transaction:
        if transaction.size >= self.least:
            self._last = transaction
        return transaction

    def on_reset(self) -> None:
        if self._last is not None and self.takes():
            assert self.lab.later is not None
            self.lab.later(self.seconds, partial(self._again, self._last))

    def _again(self, transaction: Transaction) -> None:
        if self._ended:
            return
        how = self.lab.stray(self.name, transaction)
        self.strike(f"a {_said(transaction)} was made after a reset: {how}")


def _said(transaction: Transaction) -> str:
    return f"{'write' if transaction.write else 'read'} of {transaction.size} bytes at {transaction.iova:#x}"


#: Seconds between two of what comes without end, at least.
SHORTEST = 0.001

KINDS = (
    WrongStream,
    WrongAddress,
    StaleDma,
    DmaAfterReset,
)
