# SPDX-License-Identifier: Apache-2.0
"""QEMU's own vfio-user client against our server: no guest runs, qtest makes the accesses of one."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.protocol.client import Scratch
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import qemu as command_line
from vhost_iommu.guest.assets import Assets, Qemu
from vhost_iommu.server import Server
from vhost_iommu.vfio.pci import BarMap, PciFunction

pytestmark = pytest.mark.vi_boot

DEADLINE = 30.0
RAM = 0x4000_0000
ECAM = 0x40_1000_0000  # of -M virt with highmem-ecam
BARS = 0x1000_0000  # where the first function's are put; the second's lie 1 MiB above


class Qtest:
    """QEMU, stopped, behind its qtest socket."""

    def __init__(self, qemu: Qemu, folder: Path, sockets: list[Path], *, shared: bool) -> None:
        self.errors = folder / "qemu.err"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.fspath(folder / "q"))
        listener.listen()
        listener.settimeout(DEADLINE)
        arguments = command_line.Hardware(memory=64).arguments()
        if not shared:
            arguments[1] = arguments[1].replace(",memory-backend=ram", "")
        for slot, path in enumerate(sockets, 4):
            arguments += command_line.vfio_user(path, slot)
        arguments += ["-S", "-qtest", f"unix:{folder / 'q'}", "-qtest-log", os.devnull]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*qemu.command, *arguments], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )
        try:
            self._socket, _ = listener.accept()
        except TimeoutError:
            self.process.kill()
            pytest.fail(f"QEMU did not start: {self.errors.read_text()}")
        finally:
            listener.close()
        self._socket.settimeout(DEADLINE)
        self._lines = self._socket.makefile("r")

    def _do(self, line: str) -> str:
        self._socket.sendall(f"{line}\n".encode())
        while (answer := self._lines.readline().strip()).startswith("IRQ"):
            pass
        assert answer.startswith("OK"), answer
        return answer[3:]

    def write(self, size: str, address: int, value: int) -> None:
        """``size``: b, w, l or q."""
        self._do(f"write{size} {address:#x} {value:#x}")

    def read(self, size: str, address: int) -> int:
        return int(self._do(f"read{size} {address:#x}"), 16)

    def end(self) -> str:
        """End QEMU; what it complained about."""
        self._lines.close()
        self._socket.close()
        self.process.terminate()
        self.process.wait(DEADLINE)
        said = self.errors.read_text().splitlines()
        return "\n".join(line for line in said if "terminating on signal 15" not in line)


@dataclass
class Machine:
    """Two functions of ours in one QEMU."""

    server: Server
    functions: list[PciFunction]
    blocks: list[Scratch]
    start: Callable[..., Qtest]

    def configure(self, qtest: Qtest) -> None:
        """What firmware does: BARs, memory space, bus mastering."""
        for number in range(2):
            config, bars = ECAM + ((4 + number) << 15), BARS + (number << 20)
            assert qtest.read("l", config) == 0x0550_1234
            qtest.write("l", config + 0x10, 0xFFFF_FFFF)
            assert qtest.read("l", config + 0x10) == 0xFFFF_F004
            qtest.write("l", config + 0x10, bars)
            qtest.write("l", config + 0x14, 0)
            qtest.write("l", config + 0x20, bars + 0x1_0000)
            qtest.write("w", config + 0x04, 0x0006)

    def until(self, qtest: Qtest, condition: Callable[[], bool]) -> bool:
        """Whether it comes true before the deadline; the guest reads a register meanwhile, as guests do."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                return False
            qtest.read("l", BARS)
        return True


@pytest.fixture(scope="module")
def qemu() -> Qemu:
    try:
        return Assets().qemu()
    except UsageError as error:
        missing(str(error))


@pytest.fixture
def machine(qemu: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.chdir(tmp_path)  # the paths of sockets stay short
    blocks = [Scratch(), Scratch()]
    functions = [
        PciFunction("first", {0: BarMap([(0, blocks[0])])}, msix_vectors=4, express=True),
        PciFunction("second", {0: BarMap([(0, blocks[1])])}, msix_vectors=4),
    ]
    server = Server()
    paths = [Path("0"), Path("1")]
    for function, path in zip(functions, paths, strict=True):
        server.add(function, path=path)
    started: list[Qtest] = []

    def start(*, shared: bool = True) -> Qtest:
        started.append(Qtest(qemu, Path(), paths, shared=shared))
        return started[-1]

    with server:
        yield Machine(server, functions, blocks, start)
        for qtest in started:
            if qtest.process.poll() is None:
                qtest.process.kill()
                qtest.process.wait()
    assert server.failure is None


def test_qemu_starts_with_our_functions_and_has_nothing_to_complain_about(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    qtest = machine.start()
    machine.configure(qtest)
    assert [function.bus_master for function in machine.functions] == [True, True]
    qtest.write("l", BARS + 0x10, 0xDEAD_BEEF)
    qtest.write("q", BARS + (1 << 20) + 0x18, 0x1122_3344_5566_7788)
    assert qtest.read("l", BARS + 0x10) == 0xDEAD_BEEF
    assert qtest.read("q", BARS + (1 << 20) + 0x18) == 0x1122_3344_5566_7788
    assert ("write", 0x18, 8) in machine.blocks[1].accesses
    assert qtest.end() == ""
    assert caplog.messages == []


def test_guest_memory_that_qemu_lends_cannot_be_cut_short(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """QEMU seals a memory-backend-memfd itself (seal=on), more than we would; so we have nothing to tell."""
    qtest = machine.start()
    qtest.read("l", RAM)  # who answers has made its memory
    files = Path(f"/proc/{qtest.process.pid}/fd").iterdir()
    seals = []
    for path in files:
        if os.readlink(path).startswith("/memfd:memory-backend-memfd"):
            fd = os.open(path, os.O_RDWR)
            seals.append(fcntl.fcntl(fd, fcntl.F_GET_SEALS))
            os.close(fd)
    assert seals == [fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW]
    assert [text for text in caplog.messages if "SIGBUS" in text] == []
    assert qtest.end() == ""


def test_guest_memory_is_shared_both_ways(machine: Machine) -> None:
    qtest = machine.start()
    memory = machine.functions[0].memory
    qtest.write("l", RAM + 0x1000, 0x1234_5678)
    assert memory.read(RAM + 0x1000, 4) == b"\x78\x56\x34\x12"
    assert memory.write(RAM + 0x1004, b"\1\2\3\4")
    assert qtest.read("l", RAM + 0x1004) == 0x0403_0201
    assert qtest.end() == ""


def test_a_posted_write_reaches_a_peers_register_and_an_empty_address_aborts(machine: Machine) -> None:
    qtest = machine.start()
    machine.configure(qtest)
    peer: list[bool] = []
    nobody: list[bool] = []
    memory = machine.functions[0].memory
    memory.post(BARS + (1 << 20) + 0x20, b"peer", peer.append)
    memory.post(0x0C00_0000, b"none", nobody.append)
    assert machine.until(qtest, lambda: bytes(machine.blocks[1].storage[0x20:0x24]) == b"peer")
    assert machine.until(qtest, lambda: (peer, nobody) == ([False], [True]))
    assert qtest.end() == ""


def test_an_msix_vector_is_pending_while_masked_and_delivered_after(machine: Machine) -> None:
    qtest = machine.start()
    machine.configure(qtest)
    function, table, message = machine.functions[0], BARS + 0x1_0000, RAM + 0x2000
    for offset, value in ((0, message), (4, 0), (8, 0x55)):
        qtest.write("l", table + offset, value)
    qtest.write("w", ECAM + (4 << 15) + 0x42, 0x8000)
    function.trigger_msix(0)
    assert qtest.read("l", table + 0x1000) == 1
    assert function.memory.read(message, 4) == bytes(4)
    qtest.write("l", table + 12, 0)
    assert machine.until(qtest, lambda: function.memory.read(message, 4) == b"\x55\0\0\0")
    assert qtest.read("l", table + 0x1000) == 0
    qtest.write("l", message, 0)
    function.trigger_msix(0)
    assert machine.until(qtest, lambda: function.memory.read(message, 4) == b"\x55\0\0\0")
    assert qtest.end() == ""


def test_memory_that_is_not_shared_is_told_once_with_its_mend(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    qtest = machine.start(shared=False)
    machine.configure(qtest)
    assert machine.functions[0].memory.read(RAM, 4) is None
    assert len([text for text in caplog.messages if "share=on" in text]) == 2, "one line for each function"
    assert qtest.end() == ""


def test_after_a_killed_qemu_the_next_one_is_served(machine: Machine) -> None:
    first = machine.start()
    machine.configure(first)
    first.write("l", BARS + 0x10, 77)
    assert first.read("l", BARS + 0x10) == 77
    first.process.kill()
    first.process.wait()
    Path("q").unlink()
    second = machine.start()
    machine.configure(second)
    assert second.read("l", BARS + 0x10) == 0, "QEMU resets each device as it starts"
    second.write("l", RAM, 42)
    assert machine.functions[0].memory.read(RAM, 4) == b"\x2a\0\0\0"
    assert second.end() == ""
