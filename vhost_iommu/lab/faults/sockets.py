# SPDX-License-Identifier: Apache-2.0
"""Faults of the daemon as one client sees it; the client of another function is none the wiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .injection import Injection, Seen, parameter

#: A case in which a disk is read for some seconds, and what the driver says meanwhile.
_READS = (
    "reads=(while dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct; do true; done) & "
    "sleep 4; dmesg | grep arm-smmu; exit 1"
)


@dataclass
class SlowDaemon(Injection):
    """A message of the client, such as an access to a register, is carried out and answered late."""

    KIND = "slow-daemon"
    SECTION = "6.3"
    LINUX = (
        Seen(
            "seconds=0.002 count=0 after=2000",
            (),
            "It waits, and all else of the guest with it: whatever takes a second, by its clock, may time out.",
        ),
        Seen(
            "seconds=1.2 after=420 count=5",
            ("CMD_SYNC timeout at",),
            "The clock goes on while the access waits, so that the driver takes a command that is done for lost.",
            ("no_smmu_warnings",),
        ),
    )

    seconds: float = parameter("how late", 0.01)

    def socket(self) -> float:
        return self.seconds if self.strikes(f"a message waits for {self.seconds:g} s") else 0.0


@dataclass
class DeadDaemon(Injection):
    """The daemon is gone for its client: the connection is closed before a message is carried out, or stays and nothing
    is carried out or sent any more.
    """

    KIND = "dead-daemon"
    SECTION = "6.3"
    LINUX = (
        Seen(
            "after=420",
            ("hwprod 0xffffffff, hwcons 0xffffffff",),
            "All registers read as ones from then on. Each CMD_SYNC times out, and no request of the disk ends.",
            ("reads",),
            cases=("reads",),
            own=(_READS,),
        ),
        Seen(
            "how=silent after=420",
            ("hwprod 0xffffffff, hwcons 0xffffffff",),
            "Likewise, each access once QEMU has waited for its answer: a minute, unless it is told otherwise.",
            ("reads",),
            cases=("reads",),
            own=(_READS,),
        ),
    )

    how: Literal["closed", "silent"] = parameter("which", "closed")

    def socket(self) -> float | None:
        if not self.strikes("the connection is closed" if self.how == "closed" else "no message is answered any more"):
            return 0.0
        return None if self.how == "closed" else math.inf


KINDS = (
    SlowDaemon,
    DeadDaemon,
)
