# SPDX-License-Identifier: Apache-2.0
"""The test as the machine's CPU: no guest, the same recordings and faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vhost_iommu
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.cpu import Cpu
from vhost_iommu.guest.live import NeverStruckError
from vhost_iommu.smmu.v3.commands import CMD_SYNC, CMD_TLBI_NSNH_ALL
from vhost_iommu.smmu.v3.registers import CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0, CR0ACK, IDR0

QUEUE = 0x4000_1000


@pytest.fixture
def cpu() -> Iterator[Cpu]:
    with vhost_iommu.without_guest("smmuv3-bare") as made:
        made.write("smmu0", CMDQ_BASE, CMDQ_BASE.of(ADDR=QUEUE, LOG2SIZE=4))
        made.write("smmu0", CR0, CR0.of(CMDQEN=1))
        yield made


def submit(cpu: Cpu) -> None:
    """An invalidation and a CMD_SYNC."""
    at = cpu.read("smmu0", CMDQ_PROD)
    for number, command in enumerate((CMD_TLBI_NSNH_ALL.of(), CMD_SYNC.of()), at):
        cpu.store(QUEUE + number % 16 * 16, command)
    cpu.write("smmu0", CMDQ_PROD, (at + 2) % 32)


def test_a_register_is_read_by_its_name_as_at_its_address(cpu: Cpu) -> None:
    assert cpu.read("smmu0", IDR0) == cpu.load(cpu.address("smmu0") + IDR0.at) != 0
    assert cpu.read("smmu0", CR0ACK) == CR0.of(CMDQEN=1).raw


def test_commands_are_consumed_and_recorded_when_the_store_returns(cpu: Cpu) -> None:
    with cpu.recording() as seen:
        submit(cpu)
        assert cpu.read("smmu0", CMDQ_CONS) == 2
    assert seen.commands().names == ["CMD_TLBI_NSNH_ALL", "CMD_SYNC"]
    submit(cpu)
    assert len(seen.commands()) == 2


def test_a_fault_strikes_while_it_is_there_and_not_before_or_after(cpu: Cpu) -> None:
    submit(cpu)
    with cpu.fault("cerror", smmu="smmu0") as fault:
        submit(cpu)
    assert fault.struck == 1
    assert CMDQ_CONS(cpu.read("smmu0", CMDQ_CONS)).ERR


def test_a_fault_that_never_strikes_is_told_of(cpu: Cpu) -> None:
    with pytest.raises(NeverStruckError, match="'cerror smmu=smmu0' never struck"), cpu.fault("cerror", smmu="smmu0"):
        pass
    with cpu.fault("cerror", smmu="smmu0", may_miss=True):
        pass


def test_an_address_at_which_nothing_is_is_told_of(cpu: Cpu) -> None:
    with pytest.raises(UsageError, match=r"nothing is at 0x100; memory begins at 0x40000000"):
        cpu.load(0x100)
    with pytest.raises(UsageError, match=r"the machine has no 'smmu7'; it has smmu0, engine0"):
        cpu.address("smmu7")
    with pytest.raises(UsageError, match="leaves memory"):
        cpu.store(cpu.ram.stop - 2, 0)


def test_what_is_inside_can_be_asked_for(cpu: Cpu) -> None:
    names = [type(each).__name__ for each in cpu.inside.query_registers(instance="smmu0")]
    assert "CMDQ_BASE" in names
    (entry, *_) = cpu.inside.query_instances()
    assert entry.name == "smmu0"
