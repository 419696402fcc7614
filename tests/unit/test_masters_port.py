# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar, cast

import pytest

from tests.model.fake_smmu import FakeSmmu
from vhost_iommu.masters.gate import Gate, Turns
from vhost_iommu.masters.port import Abort, Attributes, Port, Steps, Why
from vhost_iommu.memory import Ended, Memory
from vhost_iommu.smmu.transaction import Outcome
from vhost_iommu.trace import Trace

T = TypeVar("T")
RAM = 0x4000_0000
IOVA = 0x10_0000


@pytest.fixture
def ram() -> bytearray:
    return bytearray(range(256)) * 64


@pytest.fixture
def smmu() -> FakeSmmu:
    return FakeSmmu(IOVA, 0x8000, RAM)


@pytest.fixture
def port(ram: bytearray, smmu: FakeSmmu) -> Port:
    return Port("dma", Memory((RAM, ram)), smmu, (7, 8))


def test_without_an_smmu_addresses_are_physical(ram: bytearray) -> None:
    port = Port("dma", Memory((RAM, ram)), None)
    assert port.write(RAM + 3, b"abc") is None
    assert port.read(RAM + 2, 5) == b"\x02abc\x06"


def test_a_master_behind_an_smmu_needs_a_stream_id(smmu: FakeSmmu) -> None:
    with pytest.raises(ValueError, match="StreamID"):
        Port("dma", Memory(), smmu, ())


def test_what_a_transaction_carries_reaches_the_smmu(port: Port, smmu: FakeSmmu) -> None:
    port.read(IOVA, 4)
    port.write(IOVA + 8, b"xy", Attributes(8, 5, privileged=True, instruction=True))
    first, second = smmu.asked
    assert (first.sid, first.iova, first.size, first.write, first.ssid) == (7, IOVA, 4, False, None)
    assert not first.privileged
    assert not first.instruction
    assert (second.sid, second.iova, second.size, second.write, second.ssid) == (8, IOVA + 8, 2, True, 5)
    assert second.privileged
    assert second.instruction


def test_a_transaction_across_pages_is_translated_once(port: Port, smmu: FakeSmmu, ram: bytearray) -> None:
    data = bytes(range(1, 201)) * 41
    assert port.write(IOVA + 100, data) is None
    assert ram[100 : 100 + len(data)] == data
    assert port.read(IOVA + 100, len(data)) == data
    assert len(smmu.asked) == 2


def test_an_abort_says_how_much_was_done(port: Port, smmu: FakeSmmu, ram: bytearray) -> None:
    smmu.forbid(IOVA + 0x1000)
    before = bytes(ram)
    assert port.write(IOVA + 0xFFC, b"12345678") == Abort(IOVA + 0x1000, 4, Why.TERMINATED)
    assert ram[0xFFC:0x1000] == b"1234"
    assert ram[0x1000:] == before[0x1000:]
    assert port.read(IOVA + 0xFFE, 9) == Abort(IOVA + 0x1000, 2, Why.TERMINATED)
    assert (port.transactions, port.bytes_written, port.bytes_read, port.aborts) == (2, 4, 2, 2)


def test_a_silent_termination_reads_zeros_and_loses_writes(port: Port, smmu: FakeSmmu, ram: bytearray) -> None:
    smmu.forbid(IOVA + 0x1000)
    smmu.outcome = Outcome.RAZ_WI
    before = ram[0x1000:]
    assert port.write(IOVA + 0xFFF, b"abc") is None
    assert ram[0x1000:] == before
    assert port.read(IOVA + 0xFFF, 3) == b"a\0\0"
    assert port.aborts == 0


def test_what_is_translated_to_nothing_is_an_external_abort(port: Port) -> None:
    assert port.read(IOVA + 0x3FFE, 4) == Abort(IOVA + 0x4000, 2, Why.EXTERNAL)
    assert port.write(IOVA + 0x5000, b"z") == Abort(IOVA + 0x5000, 0, Why.EXTERNAL)


def test_an_access_beyond_the_address_space_aborts_untranslated(port: Port, smmu: FakeSmmu) -> None:
    assert port.read(2**64 - 2, 4) == Abort(2**64 - 2, 0, Why.TERMINATED)
    assert smmu.asked == []


def test_the_smmus_lock_is_held_from_translation_to_access(ram: bytearray, smmu: FakeSmmu) -> None:
    # Otherwise a CMD_SYNC could complete between the two, and the page be another's (IHI 0070 §4.7.3).
    held: list[bool] = []

    @contextmanager
    def lock() -> Iterator[None]:
        held.append(True)
        yield
        held.pop()

    class Again(AbstractContextManager[None]):
        def __enter__(self) -> None:
            self.entered = lock()
            self.entered.__enter__()

        def __exit__(self, *error: object) -> None:
            self.entered.__exit__(None, None, None)

    class Watched(Memory):
        def read(self, pa: int, size: int) -> bytes | None:
            assert held
            return super().read(pa, size)

        def write(self, pa: int, data: bytes) -> bool:
            assert held
            return super().write(pa, data)

    smmu.lock = Again()
    port = Port("dma", Watched((RAM, ram)), smmu, (7,))
    assert port.write(IOVA, b"abc") is None
    assert port.read(IOVA, 3) == b"abc"
    assert not held


class Doorbell:
    """Takes writes outside of RAM; refuses them at once, later, or never."""

    def __init__(self, when: str) -> None:
        self.when = when
        self.writes: list[tuple[int, bytes]] = []
        self.ended: list[Ended] = []

    def __call__(self, pa: int, data: bytes, ended: Ended) -> bool:
        self.writes.append((pa, data))
        self.ended.append(ended)
        return self.when != "now"


@pytest.mark.parametrize(("when", "aborts"), [("never", 0), ("now", 1), ("later", 1)])
def test_a_posted_write_reports_its_abort_whenever_it_comes(when: str, aborts: int) -> None:
    memory = Memory((RAM, bytearray(4096)))
    bell = memory.outside = Doorbell(when)
    port = Port("dma", memory, FakeSmmu(0, 0x1000, 0x0800_0000), (1,))
    heard: list[str] = []
    port.post(0x40, b"\x55\0\0\0", lambda: heard.append("abort"))
    assert bell.writes == [(0x0800_0040, b"\x55\0\0\0")]
    assert len(heard) == (when == "now")
    if when != "now":
        bell.ended[0](when == "later")
    assert len(heard) == aborts
    assert port.aborts == aborts


def test_a_trace_names_the_port_and_what_failed(port: Port, smmu: FakeSmmu) -> None:
    trace = Trace.memory()
    port.watch.attach(trace)
    smmu.forbid(IOVA + 0x1000)
    port.write(IOVA, b"abc")
    port.read(IOVA + 0xFFF, 2)
    assert [(each.track, each.kind, each.name, each.args) for each in trace.records] == [
        ("dma", "dma", "write", {"iova": IOVA, "size": 3}),
        ("dma", "fault", "read", {"iova": IOVA + 0x1000, "done": 1, "why": "terminated"}),
    ]


def done(steps: Steps[T]) -> T:
    """What steps that do not stall return."""
    with pytest.raises(StopIteration) as end:
        next(steps)
    return cast(T, end.value.value)


def test_a_closed_gate_lets_nothing_pass(port: Port, ram: bytearray) -> None:
    gate = Gate(port, Turns(nullcontext()))
    assert done(gate.read(IOVA, 1)) == b"\0"
    gate.close()
    before = bytes(ram)
    assert done(gate.write(IOVA, b"x")) == Abort(IOVA, 0, Why.STOPPED)
    assert done(gate.read(IOVA, 1)) == Abort(IOVA, 0, Why.STOPPED)
    assert bytes(ram) == before
    assert port.transactions == 1


def test_an_inner_gate_closes_with_the_outer_one_and_not_the_other_way_round(port: Port) -> None:
    turns = Turns(nullcontext())
    outer = Gate(port, turns)
    first, second = Gate(port, turns, outer), Gate(port, turns, outer)
    first.close()
    assert isinstance(done(first.read(IOVA, 1)), Abort)
    assert isinstance(done(second.read(IOVA, 1)), bytes)
    outer.close()
    assert isinstance(done(second.read(IOVA, 1)), Abort)
