# SPDX-License-Identifier: Apache-2.0
"""Framing, descriptors and the matching of replies, without a socket."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.protocol.client import message, open_fds
from vhost_iommu.errors import ClientError
from vhost_iommu.vfio import wire
from vhost_iommu.vfio.connection import LOST, MAX_OUTSTANDING, Connection, FatalClientError
from vhost_iommu.vfio.wire import Flags


@dataclass
class Peer:
    """A connection whose command 100 echoes, 101 refuses, 102 refuses for good, 103 keeps its fds, 104 breaks."""

    sent: list[bytes] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    seen: list[tuple[bytes, int]] = field(default_factory=list)
    up: bool = True

    def __post_init__(self) -> None:
        self.connection = Connection(
            {100: self.echo, 101: self.refuse, 102: self.hang_up, 103: self.keep, 104: self.fail},
            self.send,
            self.complaints.append,
        )

    def send(self, data: bytes) -> bool:
        self.sent.append(data)
        return self.up

    def echo(self, body: memoryview, fds: list[int]) -> bytes:
        self.seen.append((bytes(body), len(fds)))
        return bytes(body)

    def refuse(self, body: memoryview, fds: list[int]) -> bytes:
        raise ClientError("no", errno.EPERM)

    def hang_up(self, body: memoryview, fds: list[int]) -> bytes:
        raise FatalClientError("no more", errno.EPROTO)

    def keep(self, body: memoryview, fds: list[int]) -> bytes:
        self.kept += fds
        fds.clear()
        return b""

    def fail(self, body: memoryview, fds: list[int]) -> bytes:
        raise RuntimeError("a fault of ours")

    def feed(self, data: bytes, fds: int = 0) -> bool:
        return self.connection.feed(memoryview(data), [os.memfd_create("x") for _ in range(fds)])


@pytest.fixture
def peer() -> Iterator[Peer]:
    before = open_fds()
    made = Peer()
    yield made
    made.connection.close()
    for fd in made.kept:
        os.close(fd)
    assert open_fds() == before, "a file descriptor leaked"


def reply(command: int, payload: bytes = b"", msg_id: int = 0) -> bytes:
    return message(command, payload, msg_id=msg_id, flags=Flags.REPLY)


def error(command: int, number: int, msg_id: int = 0) -> bytes:
    return message(command, msg_id=msg_id, flags=Flags.REPLY | Flags.ERROR, error=number)


def test_a_command_is_answered_with_its_id_and_number(peer: Peer) -> None:
    assert peer.feed(message(100, b"hello", msg_id=7))
    assert peer.sent == [reply(100, b"hello", msg_id=7)]


def test_coalesced_messages_are_answered_in_order(peer: Peer) -> None:
    assert peer.feed(message(100, b"a", msg_id=1) + message(101, msg_id=2) + message(100, b"b", msg_id=3))
    assert peer.sent == [reply(100, b"a", 1), error(101, errno.EPERM, 2), reply(100, b"b", 3)]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 15, 16, 17, 19, 20, 21])
def test_messages_in_pieces_of_any_size_are_whole_in_the_end(peer: Peer, step: int) -> None:
    data = message(100, b"abcd", msg_id=1) + message(100, b"", msg_id=2) + message(100, b"efg", msg_id=3)
    for at in range(0, len(data), step):
        assert peer.feed(data[at : at + step])
    assert peer.sent == [reply(100, b"abcd", 1), reply(100, b"", 2), reply(100, b"efg", 3)]


def test_a_message_without_wish_for_a_reply_gets_none_even_when_it_is_wrong(peer: Peer) -> None:
    assert peer.feed(message(100, flags=Flags.NO_REPLY) + message(101, flags=Flags.NO_REPLY))
    assert peer.sent == []
    assert peer.seen == [(b"", 0)]
    assert len(peer.complaints) == 1


def test_an_unknown_command_is_refused_and_the_conversation_goes_on(peer: Peer) -> None:
    assert peer.feed(message(999, b"anything"))
    assert peer.sent == [error(999, errno.ENOSYS)]


def test_a_fatal_error_is_answered_and_ends_the_conversation(peer: Peer) -> None:
    assert not peer.feed(message(102) + message(100))
    assert peer.sent == [error(102, errno.EPROTO)]


@pytest.mark.parametrize("size", [0, 15, wire.MAX_MESSAGE + 1, 0xFFFF_FFFF])
def test_an_impossible_message_size_ends_the_conversation(peer: Peer, size: int) -> None:
    assert not peer.feed(message(100, size=size), fds=1)
    assert peer.sent == []


@pytest.mark.parametrize("flags", [2, 15, Flags.ERROR])
def test_a_message_that_is_neither_command_nor_reply_is_refused(peer: Peer, flags: int) -> None:
    assert peer.feed(message(100, flags=flags))
    assert peer.sent == [error(100, errno.EINVAL)]
    assert peer.seen == []


def test_descriptors_belong_to_the_message_with_the_last_byte(peer: Peer) -> None:
    assert peer.feed(message(100, b"first") + message(100, b"second"), fds=2)
    assert peer.seen == [(b"first", 0), (b"second", 2)]


def test_descriptors_wait_for_the_rest_of_their_message(peer: Peer) -> None:
    data = message(100, b"before") + message(100, b"payload")
    assert peer.feed(data[:-7], fds=1)
    assert peer.feed(data[-7:-3], fds=1)
    assert peer.feed(data[-3:] + message(100, b"after"))
    assert peer.seen == [(b"before", 0), (b"payload", 2), (b"after", 0)]


def test_a_method_may_keep_its_descriptors(peer: Peer) -> None:
    assert peer.feed(message(103), fds=2)
    assert len(peer.kept) == 2
    assert all(os.fstat(fd) for fd in peer.kept)


@pytest.mark.parametrize("cut", [5, 16, 20, 28])
def test_a_message_whose_descriptors_are_lost_is_refused_and_the_next_is_not(peer: Peer, cut: int) -> None:
    data = message(103, b"some payload", msg_id=7)
    assert peer.connection.feed(memoryview(data[:cut]), [os.memfd_create("x"), LOST])
    assert peer.feed(data[cut:] + message(100, b"next"))
    assert peer.sent == [error(103, errno.EMFILE, 7), reply(100, b"next")]
    assert "lost" in peer.complaints[0]
    assert peer.kept == []


def test_too_many_descriptors_of_an_unfinished_message_end_the_conversation(peer: Peer) -> None:
    start = message(100, bytes(64))
    assert peer.feed(start[:20], fds=16)
    assert not peer.feed(start[20:21], fds=1)


class Zeros:
    """Regions that read as zero."""

    def read(self, region: int, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, region: int, offset: int, data: memoryview) -> None:
        pass


def test_descriptors_of_a_register_access_go_to_nobody(peer: Peer) -> None:
    peer.connection.regions = Zeros()
    access = wire.REGION_ACCESS.pack(0, 0, 4)
    read = message(wire.Command.REGION_READ, access)
    assert peer.feed(read[:20], fds=2)
    assert peer.feed(read[20:] + message(100, b"next"))
    assert peer.feed(read, fds=1)
    assert peer.seen == [(b"next", 0)]
    assert peer.sent == [
        reply(wire.Command.REGION_READ, access + bytes(4)),
        reply(100, b"next"),
        reply(wire.Command.REGION_READ, access + bytes(4)),
    ]


def test_a_fault_of_ours_is_not_hidden_and_leaks_no_descriptor(peer: Peer) -> None:
    with pytest.raises(RuntimeError):
        peer.feed(message(104) + message(100), fds=1)


# -- our own commands ------------------------------------------------------------------------------------------------


def test_each_reply_reaches_the_command_with_its_id(peer: Peer) -> None:
    done: list[tuple[str, int]] = []
    assert peer.connection.request(12, b"a", lambda number: done.append(("a", number)))
    assert peer.connection.request(12, b"b", lambda number: done.append(("b", number)))
    first, second = (wire.Header.parse(sent).msg_id for sent in peer.sent)
    assert first != second
    peer.feed(error(12, errno.ENODEV, second) + reply(12, msg_id=first))
    assert done == [("b", errno.ENODEV), ("a", 0)]


def test_an_error_reply_without_errno_is_an_error_still(peer: Peer) -> None:
    done: list[int] = []
    peer.connection.request(12, b"", done.append)
    peer.feed(error(12, 0, wire.Header.parse(peer.sent[0]).msg_id))
    assert done == [errno.EIO]


@pytest.mark.parametrize("wrong", [reply(12, msg_id=77), reply(11, msg_id=0)])
def test_a_reply_to_nothing_is_dropped_with_a_complaint(peer: Peer, wrong: bytes) -> None:
    done: list[int] = []
    peer.connection.request(12, b"", done.append)
    assert peer.feed(wrong, fds=1)
    assert done == []
    assert len(peer.complaints) == 1


def test_commands_without_replies_are_bounded(peer: Peer) -> None:
    done: list[int] = []
    for _ in range(MAX_OUTSTANDING):
        assert peer.connection.request(12, b"", done.append)
    assert not peer.connection.request(12, b"", done.append)
    assert done == []
    ids = {wire.Header.parse(sent).msg_id for sent in peer.sent}
    assert len(ids) == MAX_OUTSTANDING


def test_an_id_in_use_is_not_used_again(peer: Peer) -> None:
    peer.connection.request(12, b"", lambda number: None)
    stuck = wire.Header.parse(peer.sent.pop()).msg_id
    for _ in range(0x10000 + 10):
        assert peer.connection.request(12, b"", lambda number: None)
        msg_id = wire.Header.parse(peer.sent.pop()).msg_id
        assert msg_id != stuck
        peer.feed(reply(12, msg_id=msg_id))
    assert peer.complaints == []


def test_closing_fails_what_waits_and_what_comes_later(peer: Peer) -> None:
    done: list[int] = []
    peer.connection.request(12, b"", done.append)
    peer.connection.close()
    assert done == [errno.ECONNRESET]
    assert not peer.connection.request(12, b"", done.append)
    assert len(done) == 1


def test_a_command_that_cannot_be_sent_is_refused_once(peer: Peer) -> None:
    done: list[int] = []
    peer.up = False
    assert not peer.connection.request(12, b"", done.append)
    peer.connection.close()
    assert done == []
