# SPDX-License-Identifier: Apache-2.0
"""The compiled pump against the path that it replaces: the same stream, the same replies, byte by byte."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import missing
from tests.model.examples import examples
from tests.protocol import test_hostile as hostile
from tests.protocol.client import TIMEOUT, Scratch, SocketTransport, TestClient, message, open_fds, ram
from vhost_iommu import _core, server
from vhost_iommu.memory import Memory
from vhost_iommu.server import Channel, Pumped
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3.registers import (
    CMDQ_BASE,
    CR0,
    CR0ACK,
    CR1,
    EVENTQ_CONS,
    GBPA,
    IDR0,
    IDR1,
    IRQ_CTRL,
    REGISTERS,
    STRTAB_BASE,
)
from vhost_iommu.trace import Trace
from vhost_iommu.vfio import wire
from vhost_iommu.vfio.pci import BarMap, PciFunction
from vhost_iommu.vfio.session import Session
from vhost_iommu.vfio.wire import Command
from vhost_iommu.watch import Watch


@pytest.fixture(autouse=True)
def built() -> None:
    if server.pump is None:
        missing("the compiled pump; install the package again")


READ, WRITE, MULTI = Command.REGION_READ, Command.REGION_WRITE, Command.REGION_WRITE_MULTI


class Doorbell(Scratch):
    """Each of its stores is told to the client by a message of ours, which has its place between the replies."""

    def __init__(self, memory: Memory) -> None:
        super().__init__("doorbell", 0x200)
        self._memory = memory

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, value)
        self._memory.post(0x0808_0040, value.to_bytes(size, "little"), lambda aborted: None)


class Device:
    """A function of an SMMU, two blocks with a hole between them, and MSI-X."""

    def __init__(self, acknowledge_after: int = 0, trace: Trace | None = None) -> None:
        memory = Memory()
        door = _core.built()  # whatever the leg: a pump tells in the core's ring
        watch = Watch("smmu0", None if door is None else door.Ring())
        self.smmu = Smmu(memory, acknowledge_after=acknowledge_after, watch=watch)
        if trace is not None:
            self.smmu.watch.attach(trace)
        self.blocks = [Scratch("low", 0x100), Doorbell(memory)]
        bars = {2: BarMap([(0, self.blocks[0]), (0x200, self.blocks[1])], wide=False)}
        bars[0] = BarMap([(0, self.smmu)], wide=False)
        self.function = PciFunction("test", bars, memory=memory, msix_vectors=2)

    def state(self) -> object:
        """All that a client can have changed, and what was counted."""
        registers = {register.__name__: self.smmu.registers.raw(register) for register in REGISTERS}
        counters = self.smmu.counters
        blocks = [(block.accesses, bytes(block.storage)) for block in self.blocks]
        return registers, counters.mmio_reads, counters.mmio_writes, blocks, self.function.read(7, 0, 256)


@dataclass
class Talk:
    """What came of a conversation."""

    replies: bytes = b""
    complaints: list[str] = field(default_factory=list)
    state: object = None
    failure: str = ""  #: what it raised


Piece = tuple[bytes, Sequence[int]]


def converse(kind: type[Channel], device: Device, pieces: Sequence[Piece], family: int) -> Talk:
    """Play ``pieces`` to ``device`` and hang up. Of SOCK_SEQPACKET each is one receive, whatever the timing."""
    before = open_fds()
    talk = Talk()
    ours, theirs = socket.socketpair(socket.AF_UNIX, family)

    def serve() -> None:
        channel = kind(theirs, talk.complaints.append)
        session = Session(device.function, channel.send, talk.complaints.append)
        try:
            channel.converse(device.function, session.connection)
        except Exception as problem:
            talk.failure = repr(problem)
        session.end()
        channel.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with ours:
        talk.replies = play(ours, pieces)
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    talk.state = device.state()
    assert open_fds() == before, "a file descriptor leaked"
    return talk


def play(ours: socket.socket, pieces: Sequence[Piece]) -> bytes:
    """Send all, take what comes meanwhile and until the end."""
    ours.setblocking(False)
    poll = select.poll()
    replies = b""
    left = list(pieces)
    ended = False
    poll.register(ours, select.POLLIN | select.POLLOUT)
    while True:
        if not left and not ended:
            ended = True
            ours.shutdown(socket.SHUT_WR)
            poll.modify(ours, select.POLLIN)
        ((_, ready),) = poll.poll(TIMEOUT * 1000)
        if ready & select.POLLIN:
            try:
                data = ours.recv(1 << 20)
            except ConnectionResetError:  # something was left unread; told once, before what has come
                continue
            if not data:
                return replies
            replies += data
        elif ready & select.POLLOUT and left:
            data, fds = left.pop(0)
            try:
                size = socket.send_fds(ours, [data], list(fds))
            except BlockingIOError:
                size, fds_again = 0, fds
            except (BrokenPipeError, ConnectionResetError):
                left.clear()
                continue
            else:
                fds_again = ()
            if size < len(data):
                left.insert(0, (data[size:], fds_again))
        elif ready & (select.POLLHUP | select.POLLERR):
            return replies


def both(make: Callable[[], Device], pieces: Sequence[Piece], family: int = socket.SOCK_SEQPACKET) -> tuple[Talk, Talk]:
    return converse(Channel, make(), pieces, family), converse(Pumped, make(), pieces, family)


def access(command: int, region: int, offset: int, count: int, data: bytes = b"", flags: int = 0, id: int = 7) -> bytes:
    return message(command, wire.REGION_ACCESS.pack(offset, region, count) + data, flags=flags, msg_id=id)


def read(region: int, offset: int, count: int = 4, *, flags: int = 0, id: int = 7) -> bytes:
    return access(READ, region, offset, count, flags=flags, id=id)


def write(region: int, offset: int, data: bytes, *, posted: bool = True) -> bytes:
    return access(WRITE, region, offset, len(data), data, 0x10 if posted else 0)


def multi(*writes: tuple[int, int, int, bytes], posted: bool = True, count: int | None = None) -> bytes:
    entries = b"".join(wire.SINGLE_WRITE.pack(offset, region, size, data) for region, offset, size, data in writes)
    start = wire.WriteMulti.build({"wr_cnt": len(writes) if count is None else count})
    return message(MULTI, start + entries, flags=0x10 if posted else 0)


def same(pieces: Sequence[Piece], acknowledge_after: int = 0, family: int = socket.SOCK_SEQPACKET) -> Talk:
    python, pumped = both(lambda: Device(acknowledge_after), pieces, family)
    assert pumped == python
    assert not pumped.failure
    return pumped


# -- the property ----------------------------------------------------------------------------------------------------

places = st.one_of(
    st.tuples(st.just(0), st.sampled_from([r.at for r in (IDR0, CR0, CR0ACK, CR1, GBPA, IRQ_CTRL, EVENTQ_CONS)])),
    st.tuples(st.just(0), st.sampled_from([STRTAB_BASE.at, STRTAB_BASE.at + 4, CMDQ_BASE.at, IDR1.at, 0x1FFF8])),
    st.tuples(st.sampled_from([0, 2]), st.integers(0, 0x110).map(lambda at: at * 4)),
    st.tuples(st.sampled_from([0, 2, 4, 7]), st.integers(0, 0x500)),
    st.tuples(st.integers(0, 10), hostile.u64),
)
counts = st.sampled_from([4, 4, 4, 8, 8, 1, 2, 3, 0, 16])
flags = st.sampled_from([0, 0, 0, 0x10, 0x10, 0x11, 0x40])
reads = st.builds(
    lambda place, count, flags, id: read(place[0], place[1], count, flags=flags, id=id),
    places,
    st.one_of(counts, counts, hostile.u32),
    st.sampled_from([0, 0, 0, 0, 0x10, 1, 0x20, 0x80]),
    st.integers(0, 0xFFFF),
)
writes = st.builds(
    lambda place, count, data, flags: access(WRITE, place[0], place[1], count, data[:count], flags),
    places,
    counts,
    st.binary(min_size=16, max_size=16),
    flags,
)
entries = st.tuples(places, st.sampled_from([4, 4, 4, 8, 1, 2, 3, 9]), st.binary(min_size=8, max_size=8))
multis = st.builds(
    lambda entries, count, posted: multi(*((*p, s, d) for p, s, d in entries), posted=posted, count=count),
    st.lists(entries, max_size=5),
    st.one_of(st.none(), st.none(), st.none(), st.integers(0, 6)),
    st.booleans(),
)
resets = st.sampled_from([message(Command.DEVICE_RESET), message(Command.DEVICE_GET_INFO, bytes([16] + [0] * 15))])
lies = st.builds(
    lambda command, size, flags: message(command, bytes(40), flags=flags, size=size),
    st.sampled_from([READ, WRITE, MULTI]),
    st.sampled_from([0, 15, 16, 17, 31, 33, 36, 40, 0xFFFF, 0x10000, 0x10001, wire.MAX_MESSAGE, wire.MAX_MESSAGE + 1]),
    st.sampled_from([0, 0x10]),
)
messages = st.one_of(reads, reads, writes, writes, multis, resets, lies, hostile.a_message)

# What a driver sends, in which next to nothing is wrong: so much of it that there is some of each beside each.
at_work = st.sampled_from(
    [
        *((0, register.at) for register in (IDR0, CR0, CR0ACK, CR1, GBPA, IRQ_CTRL, EVENTQ_CONS, STRTAB_BASE)),
        *((2, offset) for offset in (0, 8, 0xF8, 0x200, 0x208, 0x3F8)),
        (0, 0x1FFF8),
        (0, 0x20000),
        (2, 0x100),
        (2, 0x400),
    ]
)
sizes = st.sampled_from([4, 4, 4, 8, 2, 1])
words = st.integers(0, 2**64 - 1)
good_reads = st.builds(
    lambda place, size, flags, id: read(place[0], place[1], size, flags=flags, id=id),
    at_work,
    sizes,
    st.sampled_from([0, 0, 0, 0x10]),
    st.integers(0, 0xFFFF),
)
good_writes = st.builds(
    lambda place, size, word, flags, more: access(
        WRITE, place[0], place[1], size, word.to_bytes(8, "little")[:size] + more, flags
    ),
    at_work,
    sizes,
    words,
    st.sampled_from([0x10, 0x10, 0x10, 0]),
    st.sampled_from([b""] * 9 + [b"more"]),
)
good_multis = st.builds(
    lambda writes, posted, wrong: multi(
        *((*p, s, w.to_bytes(8, "little")) for p, s, w in writes), posted=posted, count=len(writes) + wrong
    ),
    st.lists(st.tuples(at_work, sizes, words), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([0] * 8 + [-1, 1]),
)
good = st.one_of(good_reads, good_writes, good_writes, good_multis, good_multis, resets)


@pytest.fixture(scope="module")
def lent() -> Iterator[dict[str, int]]:
    pipe = os.pipe()
    fds = {"ram": ram(1 << 20), "event": os.eventfd(0, os.EFD_NONBLOCK), "pipe": pipe[0], "other": pipe[1]}
    yield fds
    for fd in fds.values():
        os.close(fd)


def cut(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    pieces: list[bytes] = []
    while stream:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


@examples(400)
@given(
    told=st.lists(messages, min_size=1, max_size=25),
    cuts=st.one_of(st.just([1 << 16]), st.lists(st.integers(1, 90), min_size=1, max_size=8)),
    kinds=st.lists(st.one_of(st.just([]), st.just([]), hostile.fd_kinds), min_size=1, max_size=8),
    agreed=st.integers(0, 9),
    acknowledge_after=st.sampled_from([0, 0, 3]),
)
def test_any_stream_cut_anywhere_is_answered_as_without_it(
    lent: dict[str, int],
    told: list[bytes],
    cuts: list[int],
    kinds: list[list[str]],
    agreed: int,
    acknowledge_after: int,
) -> None:
    stream = (hostile.valid_start if agreed else b"") + b"".join(told)
    pieces = [
        (data, [lent[kind] for kind in kinds[at % len(kinds)] if kind in lent])
        for at, data in enumerate(cut(stream, cuts))
    ]
    same(pieces, acknowledge_after)


@examples(300)
@given(
    told=st.lists(good, min_size=1, max_size=25),
    cuts=st.one_of(st.just([1 << 16]), st.lists(st.integers(1, 90), min_size=1, max_size=8)),
    acknowledge_after=st.sampled_from([0, 3]),
)
def test_what_a_driver_sends_is_answered_as_without_it(
    told: list[bytes], cuts: list[int], acknowledge_after: int
) -> None:
    start = [(hostile.valid_start, ())]
    same([*start, *((data, ()) for data in cut(b"".join(told), cuts))], acknowledge_after)


@examples(50)
@given(told=st.lists(st.one_of(reads, writes, good), min_size=1, max_size=30), times=st.integers(1, 100))
def test_any_long_stream_is_answered_as_without_it(told: list[bytes], times: int) -> None:
    """On a stream socket: more than one receive takes, and whatever the timing makes of it."""
    stream = hostile.valid_start + b"".join(told) * times
    same([(stream, ())], family=socket.SOCK_STREAM)


# -- what it is made for ---------------------------------------------------------------------------------------------


def spoken(*told: bytes) -> list[Piece]:
    return [(hostile.valid_start, ()), *((data, ()) for data in told)]


def values(talk: Talk) -> list[int]:
    """Of the REGION_READs that were answered."""
    found, at = [], 0
    while at < len(talk.replies):
        header = wire.Header.parse(talk.replies[at:])
        if header.command == READ and header.flags == wire.Flags.REPLY:
            found.append(int.from_bytes(talk.replies[at + 32 : at + header.msg_size], "little"))
        at += header.msg_size
    return found


def test_a_read_finds_the_posted_writes_before_it_in_one_receive_or_several() -> None:
    told = [write(0, CR1.at, bytes([number, 0, 0, 0])) + read(0, CR1.at) for number in range(0x40)]
    for pieces in (spoken(*told), spoken(b"".join(told))):
        assert values(same(pieces)) == list(range(0x40))


def test_a_64_bit_register_is_read_whole_and_by_halves() -> None:
    wanted = 0x1234_5678_9A80
    talk = same(
        spoken(
            write(0, STRTAB_BASE.at, wanted.to_bytes(8, "little")),
            read(0, STRTAB_BASE.at, 8) + read(0, STRTAB_BASE.at) + read(0, STRTAB_BASE.at + 4),
            read(0, IDR0.at, 8),
        )
    )
    whole, low, high, ids = values(talk)
    assert whole == wanted == high << 32 | low
    assert ids & 0xFFFF_FFFF


def test_reads_count_while_an_update_is_under_way_and_are_counted_ever() -> None:
    told = [write(0, CR0.at, b"\4\0\0\0"), *[read(0, CR0ACK.at)] * 5]
    python, pumped = both(lambda: Device(acknowledge_after=3), spoken(*told))
    assert pumped == python
    assert values(pumped) == [0, 0, 0, 4, 4]
    device = Device(acknowledge_after=3)
    converse(Pumped, device, spoken(*told), socket.SOCK_SEQPACKET)
    assert (device.smmu.counters.reads_seen, device.smmu.counters.mmio_reads) == (3, 5)


def test_what_is_traced_is_traced_as_without_it() -> None:
    traces = [Trace.memory(), Trace.memory()]
    told = spoken(read(0, IDR0.at), write(0, CR1.at, b"\5\0\0\0"), read(0, CR1.at))
    for kind, trace in zip((Channel, Pumped), traces, strict=True):
        converse(kind, Device(trace=trace), told, socket.SOCK_SEQPACKET)
    first, second = ([(record.name, record.args) for record in trace.records] for trace in traces)
    assert first == second
    assert [name for name, _ in first] == ["read IDR0", "write CR1", "read CR1"]


def test_a_reset_shows_in_the_next_read_and_so_does_what_the_next_client_finds() -> None:
    device = Device()
    told = spoken(write(0, CR1.at, b"\5\0\0\0") + read(0, CR1.at) + message(Command.DEVICE_RESET) + read(0, CR1.at))
    assert values(converse(Pumped, device, told, socket.SOCK_SEQPACKET)) == [5, 0]
    device.smmu.write(CR1.at, 4, 9)
    for kind in (Channel, Pumped):
        assert values(converse(kind, device, spoken(read(0, CR1.at)), socket.SOCK_SEQPACKET)) == [9]


def test_what_the_model_changes_is_read() -> None:
    device = Device()
    ours, theirs = socket.socketpair()
    channel = Pumped(theirs)
    session = Session(device.function, channel.send)
    thread = threading.Thread(target=channel.converse, args=(device.function, session.connection))
    thread.start()
    with TestClient(SocketTransport(ours)) as client:
        client.version()
        for value in (1, 2, 3):
            device.smmu.registers[CR1] = value
            assert client.read_int(0, CR1.at, 4) == value
        # A register is never seen half written.
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                for half in (0, 0xFFFF_FFFF):
                    device.smmu.registers[STRTAB_BASE] = half << 32 | half

        changing = threading.Thread(target=change)
        changing.start()
        seen = {client.read_int(0, STRTAB_BASE.at, 8) for _ in range(3000)}
        stop.set()
        changing.join()
        assert seen <= {0, 2**64 - 1}
    thread.join(TIMEOUT)
    session.end()
    channel.close()


def test_a_device_that_fails_fails_the_conversation() -> None:
    class Broken(Scratch):
        def write(self, offset: int, size: int, value: int) -> None:
            raise RuntimeError("a fault of ours")

    for kind in (Channel, Pumped):
        device = Device()
        device.blocks[0] = Broken("low", 0x100)
        device.function = PciFunction("test", {2: BarMap([(0, device.blocks[0])], wide=False)})
        talk = converse(kind, device, spoken(write(2, 0, bytes(4)) + read(2, 0)), socket.SOCK_SEQPACKET)
        assert talk.failure == "RuntimeError('a fault of ours')"
        assert values(talk) == []


def test_looking_for_messages_before_sleeping_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SPIN", 1e-3)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    told = [write(0, CR1.at, bytes([number, 0, 0, 0])) + read(0, CR1.at) for number in range(0x40)]
    assert values(same(spoken(*told))) == list(range(0x40))


# -- the mirror ------------------------------------------------------------------------------------------------------


def test_a_mirror_holds_what_is_within_it() -> None:
    mirror = server.pump.Mirror(16)
    mirror.store(8, 8, 2**64 - 1)
    mirror.store(4, 4, 2**32 - 1)
    for offset, size in ((16, 4), (12, 8), (2, 4), (4, 8), (0, 2), (0, 0), (2**64 - 4, 4)):
        with pytest.raises(IndexError):
            mirror.store(offset, size, 0)
    assert (mirror.plain, mirror.reads) == (False, 0)
