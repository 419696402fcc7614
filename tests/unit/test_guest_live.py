# SPDX-License-Identifier: Apache-2.0
"""What a live guest says is heard: which lines are a kernel's complaints, and which are its death."""

from __future__ import annotations

import io

import pytest

from vhost_iommu.guest.console import DEATHS
from vhost_iommu.guest.live import Ear, GuestDiedError, NeverStruckError, QemuError

COMPLAINTS = {
    "a warning": "[    4.1] WARNING: CPU: 0 PID: 1 at drivers/iommu/dma-iommu.c:843 __iommu_dma_unmap+0x158/0x168",
    "a newer warning": "[    4.1] WARNING: drivers/iommu/iommu.c:2 at iommu_unmap+0x1/0x2, CPU#0: swapper/0",
    "a bug": "[    4.1] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580",
    "KASAN": "[    4.1] BUG: KASAN: slab-use-after-free in arm_smmu_attach_dev+0x44/0x80",
    "UBSAN": "[    4.1] UBSAN: array-index-out-of-bounds in drivers/iommu/arm/x.c:5:3",
    "lockdep's order": "[    4.1] WARNING: possible circular locking dependency detected",
    "lockdep's recursion": "[    4.1] WARNING: possible recursive locking detected",
    "lockdep's state": "[    4.1] WARNING: inconsistent lock state",
    "RCU": "[    4.1] rcu: INFO: rcu_preempt self-detected stall on CPU",
    "a task that hangs": "[    4.1] INFO: task kworker/0:1:9 blocked for more than 120 seconds.",
}


def heard(*lines: str) -> Ear:
    ear = Ear(io.StringIO(), DEATHS, lambda line: None)
    ear("".join(f"{line}\r\n" for line in lines).encode())
    return ear


@pytest.mark.parametrize("line", COMPLAINTS.values(), ids=COMPLAINTS)
def test_a_kernel_that_complains_is_heard(line: str) -> None:
    ear = Ear(io.StringIO(), (), lambda line: None)
    ear(f"before\r\n{line}\r\nafter\r\n".encode())
    assert ear.complaints == [line]


def test_what_is_no_complaint_is_none() -> None:
    quiet = ("Debugging enabled", "debug: 1", "smmu: warning level 3", "BUGS: none", "lockdep: enabled")
    assert heard(*quiet).complaints == []
    assert heard(*quiet).death is None


def test_a_death_is_no_complaint() -> None:
    ear = heard("[    4.1] Kernel panic - not syncing: sysrq triggered crash")
    assert ear.death == "[    4.1] Kernel panic - not syncing: sysrq triggered crash"
    assert ear.complaints == []


def test_a_line_that_comes_in_pieces_is_one() -> None:
    ear = Ear(io.StringIO(), DEATHS, lambda line: None)
    for piece in (b"[    4.1] WAR", b"NING: CPU: 0", b" at x", b"\r\n"):
        ear(piece)
    assert ear.complaints == ["[    4.1] WARNING: CPU: 0 at x"]


def test_each_error_says_whose_the_fault_is() -> None:
    assert {GuestDiedError.whose, QemuError.whose, NeverStruckError.whose} == {"the guest's", "QEMU's", "the test's"}
