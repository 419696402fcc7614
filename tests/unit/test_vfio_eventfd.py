# SPDX-License-Identifier: Apache-2.0
"""Eventfds that a client shares with us, and does with what it likes."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.protocol.client import open_fds
from vhost_iommu.errors import ClientError
from vhost_iommu.vfio import eventfd
from vhost_iommu.vfio.eventfd import Signals

FULL = (1 << 64) - 2


@pytest.fixture(params=["by the kernel", "by a write"])
def signals(request: pytest.FixtureRequest) -> Iterator[Signals]:
    made = Signals(by_kernel=request.param == "by the kernel")
    yield made
    made.close()


def refused(signals: Signals, fd: int) -> int:
    with pytest.raises(ClientError) as caught:
        signals.check(fd)
    return caught.value.errno


def test_each_signal_adds_one(signals: Signals) -> None:
    fd = os.eventfd(0)
    signals.check(fd)
    for _ in range(1000):
        signals.signal(fd)
    assert os.eventfd_read(fd) == 1000
    os.close(fd)


class Filled:
    """A poll after which the client fills the counter, whatever was seen."""

    def __init__(self) -> None:
        self.fd = -1

    def register(self, fd: int, events: int) -> None:
        self.fd = fd

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        os.eventfd_write(self.fd, FULL)
        return [(self.fd, select.POLLOUT)]


@pytest.mark.parametrize("flags", [0, os.EFD_NONBLOCK])
def test_an_eventfd_that_is_filled_in_the_last_moment_counts_as_signalled(
    signals: Signals, flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.eventfd(0, flags)
    signals.check(fd)
    monkeypatch.setattr(select, "poll", Filled)
    thread = threading.Thread(target=signals.signal, args=(fd,), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for the client"
    assert os.eventfd_read(fd) >= FULL
    os.close(fd)


def test_what_is_no_eventfd_is_refused(signals: Signals) -> None:
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    closed, gone = socket.socketpair()
    gone.close()
    poll = select.epoll()
    file = os.memfd_create("file")
    for fd in (reader, writer, one.fileno(), closed.fileno(), poll.fileno(), file):
        assert refused(signals, fd) == errno.EINVAL
    for fd in (reader, writer, file):
        os.close(fd)
    for each in (one, other, closed, poll):
        each.close()


def test_eventfds_are_told_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> str:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "readlink", missing)
    fd = os.eventfd(0)
    reader, writer = os.pipe()
    signals = Signals()
    signals.check(fd)
    assert refused(signals, reader) == errno.EINVAL
    signals.close()
    assert refused(Signals(by_kernel=False), fd) == errno.ENOTSUP, "neither that nor the kernel's interface"
    for each in (fd, reader, writer):
        os.close(each)


def test_what_signals_is_made_for_the_first_eventfd_and_ends_with_the_client() -> None:
    before = open_fds()
    signals = Signals()
    assert open_fds() == before
    fd = os.eventfd(0)
    for _ in range(2):
        signals.check(fd)
        assert open_fds() == before + 2
        signals.close()
        assert open_fds() == before + 1
    os.close(fd)


def test_no_descriptor_for_what_signals_is_the_clients_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    fd = os.eventfd(0)
    assert refused(Signals(), fd) == errno.EMFILE
    os.close(fd)


def test_a_kernel_without_the_interface_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventfd, "_NUMBERS", {})
    before = open_fds()
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    signals = Signals()
    signals.check(fd)
    signals.signal(fd)
    assert os.eventfd_read(fd) == 1
    os.close(fd)
    assert open_fds() == before
