# SPDX-License-Identifier: Apache-2.0
"""The order of stalls: the seam, and the fault that sets it, on the core as on the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.smmu_builder import Bench
from vhost_iommu.errors import UsageError
from vhost_iommu.lab.faults import Fault, Lab
from vhost_iommu.smmu.seams import Seams
from vhost_iommu.smmu.transaction import Outcome, Stall
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, EVENTQ_CONS


@pytest.fixture(params=["reference", "core", "doorbell"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param != "reference":
        request.getfixturevalue("core_is_built")
    return {"pure": request.param == "reference", "pumped": request.param == "doorbell"}


class World:
    """A stream of which ``count`` transactions stall; in which order they end."""

    def __init__(self, way: dict[str, Any], seams: Seams, count: int = 3, **options: Any) -> None:
        self.bench = Bench({"stall_model": "both", "stall_max": options.pop("told", 8)}, seams=seams, **way, **options)
        self.table = self.bench.stream(cd={"S": 1})
        self.ended: list[int] = []
        self.stalls = [self.stall(n) for n in range(count)]

    def stall(self, n: int) -> Stall:
        answer = self.bench.translate((n + 1) * 0x1000)
        assert answer.outcome is Outcome.STALLED
        assert answer.stall is not None
        answer.stall.resolved = lambda: self.ended.append(n)
        return answer.stall

    def resume(self, *stags: int, retry: int = 0) -> None:
        resumes = [c.CMD_RESUME.of(SID=0, STAG=stag, Ac=retry, Ab=1) for stag in stags]
        self.bench.submit(*resumes, c.CMD_SYNC.of())
        assert self.bench[CMDQ_CONS].RD == self.bench[CMDQ_PROD].WR


def wrong(fault: str) -> tuple[Lab, Seams]:
    lab = Lab([Fault.parse(fault)])
    return lab, lab.seams("smmu0")


def struck(lab: Lab) -> int:
    return lab.account()[0][2]


def test_without_the_seam_stalls_end_as_software_resumes_them(way: dict[str, Any]) -> None:
    world = World(way, Seams())
    world.resume(1, 0, 2)
    assert world.ended == [1, 0, 2]


@pytest.mark.parametrize(
    ("order", "ended"), [("reversed", [2, 1, 0]), ("1", [1, 0, 2]), ("2,0,1", [2, 0, 1]), ("7,1,1", [1, 0, 2])]
)
def test_what_is_resumed_at_once_ends_in_the_order_of_the_script(
    way: dict[str, Any], order: str, ended: list[int]
) -> None:
    lab, seams = wrong(f"stall-order of=resume order={order}")
    world = World(way, seams)
    world.resume(0, 1, 2)
    assert (world.ended, struck(lab), len(world.bench.smmu.stalls)) == (ended, 1, 0)


def test_a_sync_ends_what_was_resumed_before_it(way: dict[str, Any]) -> None:
    _, seams = wrong("stall-order of=resume")
    world = World(way, seams)
    world.bench.submit(
        *(c.CMD_RESUME.of(SID=0, STAG=stag, Ab=1) for stag in (0, 1)),
        c.CMD_SYNC.of(),
        c.CMD_RESUME.of(SID=0, STAG=2, Ab=1),
    )
    assert world.ended == [1, 0, 2]


def test_what_is_resumed_goes_on_without_a_sync_too(way: dict[str, Any]) -> None:
    _, seams = wrong("stall-order of=resume")
    world = World(way, seams)
    world.bench.submit(*(c.CMD_RESUME.of(SID=0, STAG=stag, Ab=1) for stag in (0, 2)))
    assert world.ended == [2, 0]


def test_the_order_of_one_is_no_chance(way: dict[str, Any]) -> None:
    lab, seams = wrong("stall-order of=resume")
    world = World(way, seams)
    for stag in (0, 1, 2):
        world.resume(stag)
    assert (world.ended, struck(lab)) == ([0, 1, 2], 0)


def test_an_order_that_changes_nothing_is_no_chance(way: dict[str, Any]) -> None:
    lab, seams = wrong("stall-order of=resume order=0,1")
    world = World(way, seams)
    world.resume(0, 1, 2)
    assert (world.ended, struck(lab)) == ([0, 1, 2], 0)


def test_what_is_terminated_ends_in_the_order_of_the_script(way: dict[str, Any]) -> None:
    lab, seams = wrong("stall-order of=terminate order=2,0")
    world = World(way, seams)
    world.bench.submit(c.CMD_STALL_TERM.of(SID=0))
    assert (world.ended, struck(lab)) == ([2, 0, 1], 1)


def test_what_waited_for_room_is_reported_in_the_order_of_the_script(way: dict[str, Any]) -> None:
    lab, seams = wrong("stall-order of=report")
    world = World(way, seams, count=4, told=1)
    told = []
    for _ in range(4):
        (event,) = world.bench.events()
        told.append(event.values()["InputAddr"] // 0x1000 - 1)
        world.resume(event.values()["STAG"])
    assert told == [0, 3, 2, 1]
    assert struck(lab) == 1


def test_a_random_order_is_the_seeds(way: dict[str, Any]) -> None:
    def ended(seed: int) -> list[int]:
        world = World(way, wrong(f"stall-order of=terminate order=random seed={seed}")[1], count=6)
        world.bench.submit(c.CMD_STALL_TERM.of(SID=0))
        return world.ended

    assert ended(1) == ended(1)
    assert ended(1) != ended(2)
    assert sorted(ended(1)) == list(range(6))


@pytest.mark.parametrize("chosen", [[], [0, 0], [2]])
def test_whatever_the_seam_says_each_ends_once(way: dict[str, Any], chosen: list[int]) -> None:
    def stalls(what: str, them: Sequence[Stall]) -> Sequence[Stall]:
        return [them[n] for n in chosen]

    world = World(way, Seams(stalls=stalls))
    world.resume(0, 1, 2)
    assert sorted(world.ended) == [0, 1, 2]


def test_turning_translation_off_ends_what_is_resumed_too(way: dict[str, Any]) -> None:
    _, seams = wrong("stall-order of=resume")
    world = World(way, seams)
    world.bench.smmu.stalls.resume(0, 1, retry=False, abort=True)
    world.bench.smmu.reset()
    assert (world.ended, len(world.bench.smmu.stalls)) == ([1, 0, 2], 0)


def test_reading_events_lets_one_more_be_told(way: dict[str, Any]) -> None:
    lab, seams = wrong("stall-order of=report")
    world = World(way, seams, count=4, told=8, event_bits=1)
    assert len(world.bench.events()) == 2
    world.bench[EVENTQ_CONS] = EVENTQ_CONS.of(RD=2)
    assert [stall.stag for stall in world.stalls] == [0, 1, 3, 2]
    assert struck(lab) == 1


@pytest.mark.parametrize("order", ["backwards", "1,,2", "-1", "1.5", "999999"])
def test_an_order_that_is_none_is_refused(order: str) -> None:
    with pytest.raises(UsageError, match=r"stall-order: 'order' is .*; it is 'reversed', 'random', or places"):
        Fault.parse(f"stall-order of=resume order={order}")
