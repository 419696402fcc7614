# SPDX-License-Identifier: Apache-2.0
"""A Linux guest at work that is looked at: nothing of its commands is missed, and it notices nothing."""

from __future__ import annotations

import pytest

from tests.conftest import need_kernel
from vhost_iommu.guest.assets import Assets
from vhost_iommu.pytest_plugin import Bench
from vhost_iommu.smmu.v3.commands import CMD_SYNC
from vhost_iommu.smmu.v3.registers import CMDQ_BASE, CMDQ_CONS
from vhost_iommu.watch import Commanded, Dropped, Filled, Gap, Kind, Recording, Served, Snapshot

LOAD = "while :; do dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct; done >/dev/null 2>&1 & echo $! >/tmp/load"


@pytest.fixture(autouse=True)
def _kernel(assets: Assets) -> None:
    need_kernel(assets, "6.12")


def test_a_guest_under_load_is_watched_without_noticing_and_no_command_is_missed(vhost_iommu: Bench) -> None:
    with vhost_iommu.boot("smmuv3-linux", kernel="6.12") as guest:
        guest.run(LOAD)
        smmu = guest.machine.smmus["smmu0"]
        for _ in range(3):
            rung = smmu.counters.by_doorbell()[1]
            recording, later = Recording(), Recording(Kind.COMMAND)
            guest.machine.attach(recording)
            guest.run("dd if=/dev/vda of=/dev/null bs=4k count=500 iflag=direct")
            guest.machine.attach(later)
            guest.machine.detach(later)
            guest.machine.detach(recording)
            assert smmu.counters.by_doorbell()[1] > rung, "by the doorbell, as unwatched"
            told = [value for value in recording if value.who in ("smmu0", "disk0")]
            begin = next(each for each in told if isinstance(each, Snapshot))
            end = next(each for each in later if isinstance(each, Snapshot) and each.who == "smmu0")
            commands = [each for each in told if isinstance(each, Commanded) and each.number < end.number]
            index_mask = (2 << CMDQ_BASE(smmu.registers.raw(CMDQ_BASE)).LOG2SIZE) - 1
            first, last = (CMDQ_CONS(each.registers["CMDQ_CONS"]).RD for each in (begin, end))
            assert len(commands) & index_mask == last - first & index_mask, "each that CONS has passed"
            assert {each.error for each in commands} == {"CERROR_NONE"}
            syncs = [each.number for each in commands if isinstance(each.command, CMD_SYNC)]
            assert len(syncs) > 100
            numbers = [each.number for each in told if each.who == "smmu0"]
            assert numbers == sorted(set(numbers))
            assert any(isinstance(each, Filled) for each in told)
            assert any(isinstance(each, Dropped) for each in told)
            assert sum(isinstance(each, Served) for each in told) >= 500
            kept = ~(Kind.ACCESSED | Kind.USED | Kind.TRANSLATED | Kind.MOVED)
            lost = [each.lost for each in told if isinstance(each, Gap)]
            assert not any(kind & kept for each in lost for kind in each), "only what may be lost"
        guest.run("kill $(cat /tmp/load)")
        assert "arm-smmu-v3" not in "\n".join(line for line in guest.dmesg().splitlines() if "rror" in line)
