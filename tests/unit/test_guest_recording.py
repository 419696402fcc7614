# SPDX-License-Identifier: Apache-2.0
"""Recordings of a live guest: what is found in them, what of it is for which operation, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator

from vhost_iommu.guest.recording import Difference, Recording, in_step, operations, tracepoints
from vhost_iommu.layout import Layout
from vhost_iommu.smmu.v3 import events
from vhost_iommu.smmu.v3.commands import CMD_CFGI_STE, CMD_SYNC, CMD_TLBI_NH_ASID, CMD_TLBI_NH_VA
from vhost_iommu.watch import Commanded, Noted, Reported, Value
from vhost_iommu.watch import Recording as Watched

TRACE = """\
# tracer: nop
#
# entries-in-buffer/entries-written: 4/4   #P:1
           <...>-90      [000] .....     9.000000: tracing_mark_write: vi-begin
              dd-91      [000] .....     9.000100: map: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 paddr=0x43016000 size=4096
              dd-91      [000] d..1.     9.000200: unmap: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 size=4096 unmapped_size=4096
           <...>-92      [000] .N...     9.000300: io_page_fault: IOMMU:arm-smmu-v3 disk iova=0x0000000000001000 flags=0x0001
"""  # noqa: E501


def commanded(time: int, command: Layout) -> Commanded:
    return Commanded(0, time, "smmu0", command, "CERROR_NONE")


def unmapped(time: int, iova: int, size: int = 0x1000) -> Noted:
    return Noted(0, time, "guest", "iommu", "unmap", {"iova": iova, "size": size})


class Stand(Watched):
    """A recording of these values."""

    def __init__(self, *values: Value) -> None:
        super().__init__()
        self._values = values

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values)


def va(address: int) -> CMD_TLBI_NH_VA:
    return CMD_TLBI_NH_VA.of(ASID=1, Address=address)


def test_a_guests_tracepoints_are_at_times_of_the_host() -> None:
    found = tracepoints(TRACE, 5_000_000_000)
    assert [(each.name, each.time - 5_000_000_000) for each in found] == [
        ("map", 100_000), ("unmap", 200_000), ("io_page_fault", 300_000),
    ]  # fmt: skip
    assert found[0].fields == {"iova": 0xFFFFF000, "paddr": 0x43016000, "size": 4096}


def test_tracepoints_that_were_overwritten_are_a_gap() -> None:
    (gap, *_) = tracepoints(TRACE.replace("4/4", "4/9"), 0)
    assert (gap.name, gap.fields) == ("GAP", {"lost": 5})


def test_an_unmapping_comes_right_before_its_first_invalidation() -> None:
    kernel = [unmapped(900, 0x1000), unmapped(990, 0x5000)]
    commands = [commanded(1000, va(0x1000)), commanded(1100, va(0x5000))]
    assert [each.time for each in in_step(kernel, commands)] == [999, 1089]


def test_commands_are_told_by_the_operation_that_they_are_for() -> None:
    made = operations(
        [
            commanded(10, CMD_CFGI_STE.of(SID=1)),
            commanded(11, CMD_SYNC.of()),
            commanded(101, va(0x1000)),
            commanded(102, va(0x2000)),
            commanded(103, CMD_SYNC.of()),
            commanded(201, CMD_TLBI_NH_ASID.of(ASID=1)),
            commanded(202, CMD_SYNC.of()),
        ],
        [unmapped(100, 0x1000, 0x2000), unmapped(200, 0x8000)],
    )
    assert [each.kinds for each in made] == [
        {"CMD_TLBI_NH_VA": 2, "CMD_SYNC": 1},
        {"CMD_TLBI_NH_ASID": 1, "CMD_SYNC": 1},
    ]


def test_without_tracepoints_a_sync_ends_an_operation() -> None:
    commands = [commanded(1, va(0x1000)), commanded(2, CMD_SYNC.of()), commanded(3, CMD_SYNC.of())]
    assert [str(each) for each in operations(commands, [])] == [
        "? 0x0 of 0x0: CMD_TLBI_NH_VA 1, CMD_SYNC 1",
        "? 0x0 of 0x0: CMD_SYNC 1",
    ]


def test_what_is_not_there_says_what_is() -> None:
    seen = Recording(Stand(commanded(1, va(0x1000)), commanded(2, CMD_SYNC.of())))
    assert not seen.commands("CMD_TLBI_NH_ASID")
    assert repr(seen.commands("CMD_TLBI_NH_ASID")) == "no CMD_TLBI_NH_ASID among 2: CMD_TLBI_NH_VA 1, CMD_SYNC 1"
    assert seen.invalidations.names == ["CMD_TLBI_NH_VA"]


def test_what_is_there_shows_itself_decoded() -> None:
    event = events.F_TRANSLATION.of(SID=0x100, InputAddr=0x1000)
    seen = Recording(Stand(Reported(0, 1, "smmu0", event, True)))
    assert "smmu0 fault F_TRANSLATION" in repr(seen.events)
    assert "SID=0x100" in repr(seen.events)


def test_what_the_guest_says_stands_in_order_with_what_the_machine_does() -> None:
    seen = Recording(Stand(commanded(1, va(0x1000)), commanded(3, CMD_SYNC.of())))
    seen.guest.append(Noted(0, 2, "guest", "console", "line", {"text": "hello"}))
    assert [each.time for each in seen] == [1, 2, 3]
    assert seen.said == ["hello"]


def recorded(*unmaps: Noted, commands: list[Commanded]) -> Recording:
    seen = Recording(Stand(*commands))
    seen.guest += unmaps
    return seen


def test_two_kernels_differ_by_operation() -> None:
    one = recorded(unmapped(1, 0x1000), commands=[commanded(2, va(0x1000)), commanded(3, CMD_SYNC.of())])
    other = recorded(
        unmapped(1, 0x1000),
        commands=[commanded(2, va(0x1000)), commanded(3, va(0x1000)), commanded(4, CMD_SYNC.of())],
    )
    assert not Difference(one, one)
    found = Difference(one, other, ("6.1", "7"))
    assert found
    assert found.lines() == [
        "unmap of 0x1000",
        "       6.1: 1 times; each: CMD_SYNC 1, CMD_TLBI_NH_VA 1",
        "         7: 1 times; each: CMD_SYNC 1, CMD_TLBI_NH_VA 2",
        "in all",
        "       6.1: CMD_SYNC 1, CMD_TLBI_NH_VA 1",
        "         7: CMD_SYNC 1, CMD_TLBI_NH_VA 2",
    ]
