# SPDX-License-Identifier: Apache-2.0
"""Faults of masters: transactions that go astray."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ...smmu.transaction import Transaction
from .injection import Injection, Seen, parameter


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
    )

    sid: int | None = parameter("the StreamID that it carries", None)
    ssid: int | None = parameter("the SubstreamID that it carries", None)

    def rewrite(self, transaction: Transaction) -> Transaction:
        what = f"{'write' if transaction.write else 'read'} of {transaction.size} bytes at {transaction.iova:#x}"
        if not self.strikes(f"a {what} carries another stream"):
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
    )

    def rewrite(self, transaction: Transaction) -> Transaction:
        iova = self.random.randrange(1 << 36) << 12 | transaction.iova & 0xFFF
        if not self.strikes(f"{transaction.size} bytes at {transaction.iova:#x} become those at {iova:#x}"):
            return transaction
        return dataclasses.replace(transaction, iova=iova)


KINDS = (
    WrongStream,
    WrongAddress,
)
