# SPDX-License-Identifier: Apache-2.0
"""The server over real sockets: paths and inherited descriptors, loss of clients, signals, and a clean end."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.protocol.client import (
    TIMEOUT,
    Scratch,
    SocketTransport,
    TestClient,
    message,
    open_fds,
    ram,
)
from vhost_iommu import server as server_module
from vhost_iommu.errors import UsageError
from vhost_iommu.server import Channel, Quiet, Server
from vhost_iommu.vfio import wire
from vhost_iommu.vfio.pci import BarMap, PciFunction
from vhost_iommu.vfio.wire import Command, Irq, Region

MiB = 1 << 20


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether ``condition`` comes true before TIMEOUT; yields the processor meanwhile."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


@pytest.fixture
def block() -> Scratch:
    return Scratch()


@pytest.fixture
def function(block: Scratch) -> PciFunction:
    return PciFunction("test", {0: BarMap([(0, block)])}, msix_vectors=4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # pytest's folders may be deeper than a socket's path can be long.
    short = tmp_path / "s"
    return short if len(str(short)) <= 107 else Path(os.path.relpath(short))


@pytest.fixture
def running(function: PciFunction, path: Path) -> Iterator[Server]:
    before = open_fds()
    threads = threading.active_count()
    server = Server()
    server.add(function, path=path)
    with server:
        yield server
    assert open_fds() == before, "a file descriptor leaked"
    assert threading.active_count() == threads
    assert not path.exists()


# -- serving -------------------------------------------------------------------------------------------------


def test_a_client_reads_writes_maps_and_is_interrupted(running: Server, function: PciFunction, path: Path) -> None:
    memory = ram(MiB)
    event = os.eventfd(0, os.EFD_NONBLOCK)
    with TestClient.connect(path) as client:
        client.version()
        client.dma_map(0x4000_0000, MiB, memory)
        client.assign_irqs(Irq.MSIX, [event])
        client.write_int(0, 8, 4, 0xFEED, posted=True)
        assert client.read_int(0, 8, 4) == 0xFEED
        assert function.memory.write(0x4000_0000, b"dma")
        assert os.pread(memory, 3, 0) == b"dma"
        function.trigger_msix(0)
        assert os.eventfd_read(event) == 1
    os.close(memory)
    os.close(event)
    assert running.failure is None


def test_the_socket_is_private(running: Server, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_after_a_client_is_lost_the_next_one_finds_the_device_as_it_was(
    running: Server, function: PciFunction, path: Path
) -> None:
    memory = ram(MiB)
    with TestClient.connect(path) as first:
        first.version()
        first.dma_map(0, MiB, memory)
        first.write_int(0, 0, 4, 77)
    with TestClient.connect(path) as second:
        second.version()
        assert second.read_int(0, 0, 4) == 77
        assert function.memory.windows == ()
    os.close(memory)


def test_a_second_client_waits_for_the_first_to_go(running: Server, path: Path) -> None:
    first = TestClient.connect(path)
    first.version()
    second = TestClient.connect(path)
    sent = second.send(Command.VERSION, wire.Version.build({"major": 0, "minor": 0}))
    assert first.read_int(0, 0, 4) == 0
    assert isinstance(second.transport, SocketTransport)
    second.transport.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        second.transport.socket.recv(1)
    second.transport.socket.settimeout(TIMEOUT)
    first.close()
    assert second.reply(sent)
    second.close()


def test_several_functions_are_served_side_by_side(tmp_path: Path) -> None:
    blocks = [Scratch(), Scratch()]
    server = Server()
    paths = [Path(os.path.relpath(tmp_path / str(number))) for number in range(2)]
    for block, where in zip(blocks, paths, strict=True):
        server.add(PciFunction("f", {0: BarMap([(0, block)])}), path=where)
    with server:
        clients = [TestClient.connect(where) for where in paths]
        for number, client in enumerate(clients):
            client.version()
            client.write_int(0, 0, 4, number + 1)
        assert [client.read_int(0, 0, 4) for client in reversed(clients)] == [2, 1]
        for client in clients:
            client.close()


def test_stopping_drops_a_client_that_is_in_the_middle_of_something(function: PciFunction, path: Path) -> None:
    before = open_fds()
    server = Server()
    server.add(function, path=path)
    with server:
        client = TestClient.connect(path)
        client.version()
        client.transport.send(message(Command.REGION_READ, bytes(16))[:20])
    with pytest.raises(ConnectionError):
        client.transport.receive(1)
    client.close()
    assert open_fds() == before


def test_many_posted_writes_are_all_done(running: Server, path: Path, block: Scratch) -> None:
    with TestClient.connect(path) as client:
        client.version()
        for number in range(10_000):
            client.write_int(0, 8 * (number % 8), 8, number, posted=True)
        assert client.read_int(0, 8 * (9999 % 8), 8) == 9999
    assert len(block.accesses) == 10_001


def test_more_descriptors_than_agreed_end_the_connection(running: Server, path: Path) -> None:
    held = open_fds()
    event = os.eventfd(0)
    with TestClient.connect(path) as client:
        client.version()
        client.send(Command.DEVICE_SET_IRQS, bytes(20), [event] * 30)
        with pytest.raises(ConnectionError):
            client.receive()
    os.close(event)
    with TestClient.connect(path) as client:
        client.version()
    assert eventually(lambda: open_fds() == held)


# -- doorbells by message ------------------------------------------------------------------------------------


def test_workers_ring_doorbells_while_the_client_reads(running: Server, function: PciFunction, path: Path) -> None:
    ended: list[bool] = []
    with TestClient.connect(path) as client:
        client.version()
        client.write_int(Region.CONFIG, 4, 2, 4)

        def ring(worker: int) -> None:
            for number in range(100):
                data = bytes([worker, number, 0, 0])
                function.memory.post(0x0808_0040, data, ended.append)

        threads = [threading.Thread(target=ring, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(200):
            assert client.read_int(0, 0, 4) == 0
        rung = [client.wait_dma_write()[1] for _ in range(400)]
        for thread in threads:
            thread.join()
        for worker in range(4):
            mine = [data[1] for data in rung if data[0] == worker]
            assert mine == list(range(100)), "the doorbells of one thread stay in order"
        assert eventually(lambda: ended == [False] * 400)


def test_a_client_that_does_not_read_is_dropped(
    monkeypatch: pytest.MonkeyPatch, function: PciFunction, path: Path
) -> None:
    monkeypatch.setattr(server_module, "SEND_TIMEOUT", 0.05)
    server = Server()
    server.add(function, path=path)
    ended: list[bool] = []
    with server, TestClient.connect(path) as client:
        client.version()
        client.write_int(Region.CONFIG, 4, 2, 4)
        for _ in range(2000):
            function.memory.post(0x0808_0040, bytes(4096), ended.append)
        assert eventually(lambda: ended == [True] * 2000), "every write that was not answered aborts"
        with TestClient.connect(path) as other:
            other.version()
    assert server.failure is None


def test_a_slow_reader_of_a_large_reply_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SEND_TIMEOUT", 0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    channel = Channel(ours)
    assert not channel.send(bytes(8 * MiB))
    assert not channel.send(b"more")
    channel.close()
    theirs.close()


# -- paths and descriptors -----------------------------------------------------------------------------------


def serve(function: PciFunction, **where: str | int) -> Server:
    server = Server()
    server.add(function, **where)  # type: ignore[arg-type]
    return server


def test_the_socket_of_a_dead_daemon_is_replaced(function: PciFunction, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    with serve(function, path=str(path)), TestClient.connect(path) as client:
        client.version()


def test_the_socket_of_a_living_daemon_is_left_alone(running: Server, path: Path) -> None:
    with pytest.raises(UsageError, match="in use by another process"):
        serve(PciFunction("other", {}), path=str(path)).start()
    with TestClient.connect(path) as client:
        client.version()


def test_the_socket_of_a_daemon_that_does_not_listen_yet_is_left_alone(function: PciFunction, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(path))
        with pytest.raises(UsageError, match="in use by another process"):
            serve(function, path=str(path)).start()
        other.listen(1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_to_look_whether_a_daemon_lives_takes_no_clients_place(running: Server, path: Path) -> None:
    for _ in range(5):
        with pytest.raises(UsageError, match="in use by another process"):
            serve(PciFunction("other", {}), path=str(path)).start()
    with TestClient.connect(path) as client:
        client.version()


def test_a_socket_has_its_name_only_when_it_listens_and_is_private(
    function: PciFunction, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    listen = socket.socket.listen

    def look(self: socket.socket, backlog: int) -> None:
        seen.append((path.exists(), stat.S_IMODE((path.parent / server_module.NEW).stat().st_mode)))
        listen(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    with serve(function, path=str(path)):
        assert seen == [(False, 0o600)]
        assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_of_daemons_that_start_at_once_one_serves_and_the_others_say_that_it_does(path: Path) -> None:
    for stale in (False, True) * 5:
        if stale:
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(os.fspath(path))
        servers = [serve(PciFunction(str(number), {}), path=str(path)) for number in range(4)]
        barrier = threading.Barrier(len(servers))
        refusals: list[str] = []

        def start(server: Server, barrier: threading.Barrier = barrier, refusals: list[str] = refusals) -> None:
            barrier.wait()
            try:
                server.start()
            except UsageError as problem:
                refusals.append(str(problem))

        threads = [threading.Thread(target=start, args=(server,)) for server in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refusals == [f"{path} is in use by another process; stop that or choose another path"] * 3
        with TestClient.connect(path) as client:
            client.version()
        for server in servers:
            server.stop()
        assert list(path.parent.iterdir()) == []


def test_what_a_daemon_left_that_was_killed_while_it_started_is_replaced(function: PciFunction, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path.parent / server_module.NEW))
    with serve(function, path=str(path)), TestClient.connect(path) as client:
        client.version()
        assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_path_may_be_as_long_as_a_client_can_name_it(
    function: PciFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = "/".join(["." * 1] * 53) + "/s"  # 107 bytes, of which the folder's are all but two
    assert len(path) == 107
    with serve(function, path=path), TestClient.connect(path) as client:
        client.version()
    assert list(folder.iterdir()) == []


def test_a_folder_that_another_process_keeps_locked_is_told_of_in_one_line(
    function: PciFunction, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FOLDER_TIMEOUT", 0.05)
    fd = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another process keeps its folder locked"):
        serve(function, path=str(path)).start()
    os.close(fd)


def test_a_path_that_is_not_ours_any_more_is_left_alone(function: PciFunction, path: Path) -> None:
    with serve(function, path=str(path)):
        path.unlink()
        path.write_text("someone else's")
    assert path.read_text() == "someone else's"


@pytest.mark.parametrize("kind", ["file", "folder missing", "long"])
def test_an_impossible_path_is_told_in_one_line(function: PciFunction, path: Path, kind: str) -> None:
    before = open_fds()
    if kind == "file":
        path.write_text("precious")
    where = {"file": path, "folder missing": path / "no" / "s", "long": path.parent / ("x" * 107)}[kind]
    with pytest.raises(UsageError) as caught:
        serve(function, path=str(where)).start()
    assert str(where) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert open_fds() == before
    if kind == "file":
        assert path.read_text() == "precious"


def test_when_one_socket_cannot_be_opened_none_stays(function: PciFunction, path: Path) -> None:
    before = open_fds()
    server = serve(function, path=str(path))
    server.add(PciFunction("other", {}), path="/nowhere/at/all")
    with pytest.raises(UsageError):
        server.start()
    assert not path.exists()
    assert open_fds() == before


def test_an_inherited_connection_is_served_and_its_end_is_the_end(function: PciFunction) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with serve(function, fd=ours.detach()) as server:
        with TestClient(SocketTransport(theirs)) as client:
            client.version()
            assert not server.wait(0)
        assert server.wait(TIMEOUT)
    assert server.failure is None


def test_an_inherited_listener_is_served_again_and_again(function: PciFunction, path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    listener.listen()
    with serve(function, fd=listener.detach()) as server:
        for _ in range(2):
            with TestClient.connect(path) as client:
                client.version()
        assert not server.wait(0)
    assert path.exists(), "its path is its owner's"


def test_a_descriptor_that_is_no_stream_socket_is_told_in_one_line(function: PciFunction) -> None:
    with pytest.raises(UsageError, match="--fd=-1"):
        serve(function, fd=-1).start()
    with pytest.raises(UsageError, match="not an open socket"):
        serve(function, fd=os.eventfd(0)).start()
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with pytest.raises(UsageError, match="not a UNIX stream socket"):
        serve(function, fd=datagram.detach()).start()
    with pytest.raises(UsageError, match="either"):
        serve(function)


# -- our own faults, workers, signals ------------------------------------------------------------------------


class Broken(Scratch):
    def read(self, offset: int, size: int) -> int:
        raise RuntimeError("a fault of ours")


def test_a_fault_of_ours_closes_the_connection_and_is_remembered(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    function = PciFunction("broken", {0: BarMap([(0, Broken())])})
    with serve(function, path=str(path)) as server:
        with TestClient.connect(path) as client:
            client.version()
            with pytest.raises(ConnectionError):
                client.read(0, 0, 4)
        assert server.wait(TIMEOUT)
    assert isinstance(server.failure, RuntimeError)
    assert "a fault of ours" in caplog.text
    assert "Traceback" in caplog.text


def test_a_worker_works_until_there_is_nothing_left_and_again_when_woken() -> None:
    server = Server()
    jobs: list[int] = []
    done: list[int] = []
    calls: list[int] = []
    idle = threading.Event()

    def work() -> bool:
        calls.append(len(jobs))
        if not jobs:
            idle.set()
            return False
        done.append(jobs.pop(0))
        return True

    worker = server.worker("master", work)
    with server:
        for round_ in range(3):
            idle.clear()
            jobs.extend((round_, round_))
            worker.wake()
            assert eventually(lambda: not jobs)
            assert idle.wait(TIMEOUT)
    assert done == [0, 0, 1, 1, 2, 2]
    assert calls == [2, 1, 0] * 3, "it sleeps while nobody wakes it"


def test_a_worker_that_always_has_work_can_be_stopped() -> None:
    server = Server()
    started = threading.Event()

    def work() -> bool:
        started.set()
        return True

    worker = server.worker("busy", work)
    with server:
        worker.wake()
        assert started.wait(TIMEOUT)


def test_a_thread_that_does_not_end_keeps_no_sockets_name(
    function: PciFunction, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "JOIN_TIMEOUT", 0.05)
    begun, over = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        over.wait(TIMEOUT)
        return False

    server = Server()
    server.add(function, path=path)
    worker = server.worker("stuck", work)
    server.start()
    worker.wake()
    assert begun.wait(TIMEOUT)
    assert not server.stop()
    assert "did not end" in caplog.text
    assert not path.exists()
    over.set()
    assert worker.stop()
    server._close()  # what a process leaves to its end


def test_a_workers_fault_is_remembered() -> None:
    server = Server()
    worker = server.worker("broken", lambda: bool(1 // 0))
    with server:
        worker.wake()
        assert server.wait(TIMEOUT)
    assert isinstance(server.failure, ZeroDivisionError)


def test_warnings_of_one_client_after_another_stay_bounded(
    running: Server, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(20):
        with TestClient.connect(path) as client:
            client.version()
            for _ in range(20):
                client.send(999, flags=0x10)
            client.device_info()
    for level in (logging.INFO, logging.WARNING):
        assert 1 < sum(record.levelno == level for record in caplog.records) <= 21


def test_left_out_warnings_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    quiet = Quiet("f", lines=2, seconds=0.0)
    quiet("one")
    assert caplog.messages == ["f: one"]
    quiet = Quiet("f", lines=2)
    for _ in range(5):
        quiet("again")
    quiet._since -= 61
    quiet("later")
    assert caplog.messages[1:] == [
        "f: again",
        "f: again",
        "f: further lines are left out for a while",
        "f: 3 lines were left out",
        "f: later",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_and_removes_its_socket(path: Path, number: signal.Signals) -> None:
    program = (
        "import sys\n"
        "from vhost_iommu.server import Server, serve_forever\n"
        "from vhost_iommu.vfio.pci import PciFunction\n"
        "server = Server()\n"
        "server.add(PciFunction('f', {}), path=sys.argv[1])\n"
        "serve_forever(server)\n"
        "print('clean', server.failure)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    try:

        def connects() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(os.fspath(path)) == 0

        assert eventually(connects)
        with TestClient.connect(path) as client:
            client.version()
            child.send_signal(number)
            output, _ = child.communicate(timeout=TIMEOUT)
        assert (child.returncode, output) == (0, "clean None\n")
        assert not path.exists()
    finally:
        child.kill()
        child.wait()


def test_an_accept_that_runs_out_of_descriptors_is_tried_again(
    running: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()
    accept = socket.socket.accept

    def once(self: socket.socket) -> tuple[socket.socket, object]:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", once)
    with TestClient.connect(path) as client:
        client.version()
    assert failed.is_set()
