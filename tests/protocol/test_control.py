# SPDX-License-Identifier: Apache-2.0
"""The control socket of a served machine: who may talk to it, what it answers, and what a hostile client achieves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from qemu.qmp import ExecuteError, QMPClient

from tests.protocol.client import open_fds
from tests.protocol.test_daemon import eventually
from tests.protocol.test_without_guest import DATA, IOVA, NOWHERE, Driver
from vhost_iommu import without_guest
from vhost_iommu.config import load_machine
from vhost_iommu.daemon import Daemon
from vhost_iommu.guest.folder import controls
from vhost_iommu.lab.control import QUERIES
from vhost_iommu.lab.conversation import MOST_EVENTS, MOST_WAITING, Conversation
from vhost_iommu.masters.engine import Cmd
from vhost_iommu.server import MOST_TALKS
from vhost_iommu.smmu.v3.registers import IDR0

TIMEOUT = 60


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    daemon = Daemon(load_machine("smmuv3-bare"), tmp_path, control=tmp_path / "control.sock")
    daemon.start()
    try:
        yield tmp_path / "control.sock"
    finally:
        daemon.stop()
    assert daemon.failure is None
    assert list(tmp_path.iterdir()) == []


def ask(path: Path, *commands: tuple[str, dict[str, Any]]) -> list[Any]:
    """What QEMU's own client is answered."""

    async def talk() -> list[Any]:
        client = QMPClient("test")
        await client.connect(str(path))
        try:
            return [await client.execute(name, arguments) for name, arguments in commands]
        finally:
            await client.disconnect()

    return asyncio.run(asyncio.wait_for(talk(), TIMEOUT))


def test_the_qmp_client_of_qemu_talks_to_it(socket_path: Path) -> None:
    (status,) = ask(socket_path, ("query-status", {}))
    assert status == {"machine": "smmuv3-bare", "taken": "", "instances": ["smmu0"], "left_out": []}


def test_every_query_is_answered(socket_path: Path) -> None:
    needed = {"stream": 0, "queue": "cmdq", "address": 0x1000}
    for name, command in QUERIES.items():
        if name != "query-tables":
            ask(socket_path, (name, {each.name: needed[each.name] for each in command.arguments if each.needed}))


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("query-statu", {}, "did you mean 'query-status'"),
        ("query-streams", {"frist": 0}, "did you mean 'first'"),
        ("query-streams", {"first": -1}, "it is a whole number, 0 or more"),
        ("query-streams", {"first": True}, "it is a whole number"),
        ("query-streams", {"instance": "smmu7"}, "it is one of smmu0"),
        ("explain", {"stream": 1}, "'address' is missing"),
        ("explain", {"stream": 1, "address": 0, "access": "look"}, "one of read, write, execute"),
        ("query-queue", {"queue": "x"}, "one of cmdq, eventq"),
        ("query-tables", {"stream": 1}, "it has no table"),
        ("fault-arm", {"fault": "drop-snyc"}, "did you mean 'drop-sync'"),
        ("fault-disarm", {"id": 7}, "query-faults lists them"),
        ("dump", {"file": "x"}, "absolute path"),
    ],
)
def test_a_mistake_is_told(socket_path: Path, name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ExecuteError, match=re.escape(said)):
        ask(socket_path, (name, arguments))


def test_faults_come_and_go(socket_path: Path) -> None:
    armed, faults, _ = ask(
        socket_path,
        ("fault-arm", {"fault": "drop-sync after=3"}),
        ("query-faults", {}),
        ("fault-disarm", {"id": 0}),
    )
    assert armed == {"id": 0}
    assert faults == [{"id": 0, "name": "smmu0", "fault": "drop-sync after=3", "struck": 0}]


def test_a_client_is_told_of_what_it_watches(tmp_path: Path) -> None:
    daemon = Daemon(load_machine("smmuv3-bare"), tmp_path, control=tmp_path / "control.sock")
    daemon.start()
    smmu, watch = daemon.machine.smmus["smmu0"], daemon.machine.watches.of("smmu0")
    before = watch.kinds

    async def talk() -> list[Any]:
        client = QMPClient("test")
        seen: list[Any] = []
        with client.listener() as listener:
            await client.connect(str(tmp_path / "control.sock"))
            await client.execute("watch-on", {"kinds": "reported accessed"})
            smmu.seams.raise_error("MSI_GERROR_ABT_ERR")
            smmu.read(IDR0.at, 4)
            for _ in range(2):
                seen.append(await listener.get())
            await client.execute("watch-off")
            smmu.read(IDR0.at, 4)
            await client.execute("query-status")
            assert listener.empty()
            await client.execute("watch-on")
        await client.disconnect()
        return seen

    try:
        reported, accessed = asyncio.run(asyncio.wait_for(talk(), TIMEOUT))
        assert (reported["event"], reported["data"]["record"]["kind"]) == ("REPORTED", "GERROR")
        assert (accessed["event"], accessed["data"]["register"]) == ("ACCESSED", "IDR0")
        for _ in range(1000):
            if watch.kinds == before:
                break
            ask(tmp_path / "control.sock", ("query-status", {}))
        assert watch.kinds == before, "who is gone watches no more"
    finally:
        daemon.stop()


def test_who_watches_and_does_not_read_loses_events_and_hears_how_many() -> None:
    class Nobody:
        def execute(self, name: str, arguments: Mapping[str, Any]) -> None: ...

        def close(self) -> None: ...

    talk = Conversation(Nobody(), "1.2.3")
    for number in range(MOST_EVENTS + 100):
        talk.event("ACCESSED", {"number": number})
    told = bytearray()
    while talk.out:
        told += talk.out
        talk.out.clear()
        talk.gather()
    _, *events, last = [json.loads(line) for line in told.splitlines()]
    assert [each["data"]["number"] for each in events] == list(range(MOST_EVENTS))
    assert (last["event"], last["data"]) == ("EVENTS_LOST", {"count": 100})


def test_it_is_this_users_alone(socket_path: Path) -> None:
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_hung_up_on_even_where_the_sockets_mode_lets_it_in(socket_path: Path) -> None:
    socket_path.chmod(0o666)
    socket_path.parent.chmod(0o755)
    fd = os.open(socket_path.parent, os.O_PATH)
    program = (
        f"import os, socket; os.fchdir({fd}); os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        f"s.connect({socket_path.name!r}); print(s.recv(9))"
    )
    try:
        asked = subprocess.run(
            [sys.executable, "-c", program],
            pass_fds=[fd], capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
    finally:
        os.close(fd)
    assert asked.stdout.strip() == "b''", asked.stderr


# -- clients that mean no good -----------------------------------------------------------------------------------


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(TIMEOUT)
    client.connect(str(path))
    return client


def to_end(client: socket.socket) -> bytes:
    """All that comes until the other side has enough."""
    found = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := client.recv(1 << 16):
            found += data
    return bytes(found)


@pytest.mark.parametrize(
    "sent",
    [
        b"[1]",
        b"\x00",
        b'"',
        b"}",
        b"GET / HTTP/1.0\r\n\r\n",
        b"{" * 100,
        b'{"execute":"' + b"a" * (1 << 17) + b'"}',
    ],
)
def test_what_is_no_request_ends_the_conversation(socket_path: Path, sent: bytes) -> None:
    with connected(socket_path) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(sent)
        assert b'"error"' in to_end(client)
    ask(socket_path, ("query-status", {}))


@pytest.mark.parametrize(
    "sent",
    [
        b"{}",
        b'{"execute":1}',
        b'{"execute":"query-status"}',
        b'{"execute":"query-status","arguments":[]}',
        b'{"execute":"qmp_capabilities","x":1}',
        b"{bad}",
        b'{"execute":"\xff"}',
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_a_bad_request_is_told_and_the_next_is_heard(socket_path: Path, sent: bytes) -> None:
    with connected(socket_path) as client:
        client.sendall(sent + b'{"execute":"qmp_capabilities"}{"execute":"query-status","id":"last"}')
        reader = client.makefile()
        answers = [json.loads(reader.readline()) for _ in range(4)]
    assert list(answers[0]) == ["QMP"]
    assert list(answers[1]) == ["error"]
    assert answers[3]["id"] == "last"


def test_who_does_not_read_is_not_heard_and_keeps_nobody_waiting(socket_path: Path) -> None:
    with connected(socket_path) as deaf:
        deaf.sendall(b'{"execute":"qmp_capabilities"}')
        deaf.setblocking(False)
        request = b'{"execute":"query-commands"}' * 100
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.send(request)
        ask(socket_path, ("query-status", {}))


def test_who_asks_much_at_once_is_answered_as_it_reads() -> None:
    class Costly:
        asked = 0

        def execute(self, name: str, arguments: Mapping[str, Any]) -> str:
            self.asked += 1
            return "x" * MOST_WAITING

        def close(self) -> None: ...

    costly = Costly()
    talk = Conversation(costly, "1.2.3")
    talk.feed(b'{"execute":"qmp_capabilities"}' + b'{"execute":"a"}' * 100)
    assert costly.asked == 1
    assert not talk.ready
    talk.out.clear()
    assert not talk.ready
    talk.gather()
    assert costly.asked == 2
    for _ in range(98):
        talk.out.clear()
        talk.gather()
    assert costly.asked == 100
    talk.out.clear()
    assert talk.ready


def test_of_many_clients_the_one_that_is_silent_longest_is_left(socket_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(socket_path)) for _ in range(MOST_TALKS + 1)]
        assert b"QMP" in to_end(clients[0])
        ask(socket_path, ("query-status", {}))


def test_random_bytes_harm_nobody(socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    random = Random(1)
    words = [
        b'{"execute":', b'"explain"', b'"query-tlb"', b'"arguments":', b'{"stream":', b"1", b"}", b",", b'"', b"\\",
        b'{"execute":"qmp_capabilities"}', b"99999999999999999999", b"null", b"\x80", b"1e999",
    ]  # fmt: skip
    for _ in range(200):
        with connected(socket_path) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"".join(random.choices(words, k=40)))
                client.shutdown(socket.SHUT_WR)
            to_end(client)
    ask(socket_path, ("query-status", {}))
    assert not [record for record in caplog.records if record.exc_info]


def test_a_request_without_end_is_hung_up_on_long_before_a_gigabyte(socket_path: Path) -> None:
    sent = 0
    with connected(socket_path) as client:
        client.sendall(b'{"execute":"')
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                sent += client.send(b"a" * (1 << 20))
    assert sent < 1 << 24
    ask(socket_path, ("query-status", {}))


def test_half_a_request_keeps_nobody_waiting(socket_path: Path) -> None:
    with connected(socket_path) as client:
        client.sendall(b'{"execute":"qmp_capa')
        ask(socket_path, ("query-status", {}))
        client.sendall(b'bilities"}')
        reader = client.makefile()
        assert [list(json.loads(reader.readline())) for _ in range(2)] == [["QMP"], ["return"]]


def greeted(path: Path) -> None:
    """All that came before has had its turn; QEMU's client takes a full backlog for a connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert b"QMP" in client.recv(1 << 10)


def test_ten_thousand_connections_leave_it_as_it_was(socket_path: Path) -> None:
    before = open_fds()
    for _ in range(10_000):
        # One that waits for its turn, however many are before it.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(socket_path))
    greeted(socket_path)
    ask(socket_path, ("query-status", {}))
    held = []
    with contextlib.ExitStack() as stack:
        for _ in range(10 * MOST_TALKS):
            held.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
            held[-1].connect(str(socket_path))
        greeted(socket_path)
        ask(socket_path, ("query-status", {}))
        assert open_fds() - before - len(held) <= MOST_TALKS
    assert eventually(lambda: open_fds() == before)


def test_a_machine_at_work_is_asked_for_all_that_it_holds() -> None:
    with without_guest("smmuv3-bare", session=True) as cpu:
        driver = Driver(cpu)
        driver.map(IOVA + 0x3000, DATA)
        driver.map(IOVA + 0x8000, DATA)
        assert driver.copy(IOVA, IOVA + 0x100, 8) is Cmd.HALTED
        assert driver.copy(NOWHERE, IOVA, 8) is Cmd.ERROR
        (path,) = controls().glob(f"smmuv3-bare.{os.getpid()}*.sock")
        stream = {"stream": 1}
        answers = ask(
            path,
            ("query-instances", {}),
            ("query-streams", {}),
            ("query-context", stream),
            ("query-tlb", {"address": IOVA}),
            ("query-caches", stream),
            ("query-queue", {"queue": "eventq"}),
            ("query-stalls", {}),
            ("query-tables", {**stream, "limit": 1}),
            ("explain", {**stream, "address": NOWHERE}),
            ("query-events", {}),
        )
        instances, streams, context, tlb, caches, events, stalls, tables, explained, reported = answers
        assert instances[0]["counters"]["walks"] >= 2
        assert [each["sid"] for each in streams["streams"]] == [1]
        assert context is not None
        assert len(tlb["translations"]) == 1
        assert {each["structure"]["kind"] for each in caches} == {"STE", "CD"}
        assert [each["entry"]["kind"] for each in events if each["waiting"]] == ["F_TRANSLATION"]
        assert stalls == []
        assert "F_TRANSLATION" in json.dumps(explained)
        assert reported[0]["kind"] == "F_TRANSLATION"
        # Page tables come as far as was asked for, and go on from there.
        begins = []
        while True:
            begins += [each["start"] for each in tables["runs"]]
            if tables["next"] is None:
                break
            assert len(tables["runs"]) == 1
            (tables,) = ask(path, ("query-tables", {**stream, "limit": 1, "first": tables["next"]}))
        assert begins == [IOVA, IOVA + 0x3000, IOVA + 0x8000]
