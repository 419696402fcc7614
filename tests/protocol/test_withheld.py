# SPDX-License-Identifier: Apache-2.0
"""A client's page that does not come: who touches it waits without the interpreter, and everybody else goes on."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.smmu_builder import Bench, Ram
from vhost_iommu import _core
from vhost_iommu.masters.port import Attributes, Port
from vhost_iommu.memory import Memory
from vhost_iommu.shared import HOST_PAGE, address_of
from vhost_iommu.smmu.transaction import Transaction
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3.commands import CMD_TLBI_NH_VA
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CR0, STRTAB_BASE, STRTAB_BASE_CFG
from vhost_iommu.smmu.v3.structures import STE, STE_CONFIG
from vhost_iommu.watch import Accessed, Commanded, Kind

RAM = 0x4000_0000
SIZE = 64 * HOST_PAGE
TABLE = RAM + 16 * HOST_PAGE
#: userfaultfd(2), <linux/userfaultfd.h>: for accesses of this process itself, which takes no privilege.
NUMBER = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
USER_MODE_ONLY = 1
API, REGISTER, ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
MISSING = 1

#: Another window, which a client lends; the core's ring, and its invalidations by address until one waits for readers.
LENT, RING, MOST_PENDING = 0x8000_0000, 16384, 256


class Withheld:
    """A page of a window that does not come until ``give``; it was never touched before."""

    def __init__(self, memory: Memory, pa: int) -> None:
        (window,) = (each for each in memory.windows if each.base <= pa < each.end)
        assert isinstance(window.buffer, memoryview)
        self.at = address_of(window.buffer) + pa - window.base
        number = NUMBER.get(platform.machine(), -1)
        self.fd = ctypes.CDLL(None, use_errno=True).syscall(number, os.O_CLOEXEC | USER_MODE_ONLY)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        fcntl.ioctl(self.fd, API, struct.pack("QQQ", 0xAA, 0, 0))
        fcntl.ioctl(self.fd, REGISTER, struct.pack("QQQQ", self.at, HOST_PAGE, MISSING, 0))

    def wanted(self) -> bool:
        """Whether somebody waits for it, who has time to come."""
        return bool(select.select([self.fd], [], [], 20)[0])

    def give(self) -> None:
        fcntl.ioctl(self.fd, ZEROPAGE, struct.pack("QQQq", self.at, HOST_PAGE, 0, 0))
        os.close(self.fd)


def enabled(memory: Memory, table: int) -> Smmu:
    smmu = Smmu(memory)
    smmu.write(STRTAB_BASE.at, 8, table)
    smmu.write(STRTAB_BASE_CFG.at, 4, STRTAB_BASE_CFG.of(LOG2SIZE=4).raw)
    smmu.write(CR0.at, 4, CR0.of(SMMUEN=1).raw)
    return smmu


def neighbour() -> Callable[[], bool]:
    """Another SMMU's translation, and whether it is right."""
    memory = Memory((RAM, bytearray(SIZE)))
    memory.write(RAM + STE.size, STE.of(V=1, Config=STE_CONFIG.BYPASS, SHCFG=1).to_bytes())
    smmu = enabled(memory, RAM)
    return lambda: bool(smmu.translate(Transaction(sid=1, iova=0x1000, size=64)).pieces)


def attempts(memory: Memory) -> dict[str, tuple[int, list[Callable[[], object]]]]:
    """By name: the page, and what touches it, each of it in a thread."""
    smmu = enabled(memory, TABLE)
    port = Port("master", memory, Smmu(memory), (1,))
    data, other = TABLE + 4 * HOST_PAGE, TABLE + 8 * HOST_PAGE

    def translate(sid: int) -> Callable[[], object]:
        return lambda: smmu.translate(Transaction(sid=sid, iova=0x1000, size=64))

    return {
        "a lookup": (TABLE, [translate(1), translate(2), smmu.configuration.invalidate_all]),
        "a read": (data, [lambda: memory.read(data, 8)]),
        "a request": (other, [lambda: port.read(other, 64, Attributes(1))]),
    }


def play(what: str) -> None:
    """In a process of its own, which hangs if the interpreter is kept."""
    memory = Memory()
    fd = os.memfd_create("ram")
    os.truncate(fd, SIZE)
    memory.map_fd(RAM, SIZE, fd)
    works = neighbour()
    assert works()
    page, acts = attempts(memory)[what]
    withheld = Withheld(memory, page)
    threads = [threading.Thread(target=act, daemon=True) for act in acts]
    threads[0].start()
    assert withheld.wanted()
    for thread in threads[1:]:
        thread.start()
    for _ in range(100):
        assert works()
    assert threads[0].is_alive()
    withheld.give()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    print("went on")


def invalidate() -> None:
    """In a process of its own: somebody looks on at an invalidation that waits for a request that waits for a page."""
    bench = Bench(ram=Ram(size=8 << 20), command_bits=10)
    memory = bench.ram.memory
    assert isinstance(memory, Memory)
    fd = os.memfd_create("ram")
    os.truncate(fd, SIZE)
    memory.map_fd(LENT, SIZE, fd)
    table = bench.stream(1)
    table.map(0, LENT)
    table.map(0x1000, LENT + HOST_PAGE)
    ports = [Port(f"master{at}", memory, bench.smmu, (1,)) for at in range(2)]
    assert ports[1].read(0x1000, 8) == bytes(8)  # the stream's context is known, so that no lock is taken
    withheld = Withheld(memory, LENT)
    commands = [CMD_TLBI_NH_VA.of(ASID=1, Address=at << 12) for at in range(600)]
    with bench.smmu.watch.recording() as seen:
        threads = [
            threading.Thread(target=act, daemon=True)
            for act in (lambda: ports[0].read(0, 8), lambda: bench.submit(*commands))
        ]
        threads[0].start()
        assert withheld.wanted()
        threads[1].start()
        deadline = time.monotonic() + 20
        while bench.smmu.registers[CMDQ_CONS].RD < MOST_PENDING and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(3 * RING):
            assert bench.smmu.read(CR0.at, 4)
        began, used = time.monotonic(), time.process_time()
        time.sleep(1)
        idle = (time.process_time() - used) / (time.monotonic() - began)
        assert threads[0].is_alive()
        assert threads[1].is_alive()
        withheld.give()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert len(seen.of(Accessed)) + sum(gap.lost.get(Kind.ACCESSED, 0) for gap in seen.gaps) >= 3 * RING
        assert [command.command for command in seen.of(Commanded)] == commands
    assert idle < 0.5, f"who waits takes {idle:.0%} of a processor"
    print("went on")


@pytest.mark.parametrize(
    "program", [*(f"play({what!r})" for what in ("a lookup", "a read", "a request")), "invalidate()"]
)
def test_all_others_go_on_while_one_waits_for_a_page_that_does_not_come(program: str) -> None:
    if _core.built() is None:
        missing("the compiled core; without it the kernel waits, which no page of this process's own can show")
    program = f"from tests.protocol.test_withheld import play, invalidate; {program}"
    environment = {**os.environ, _core.PURE: "0"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    if "userfaultfd" in done.stderr:
        missing(f"userfaultfd(2): {done.stderr.splitlines()[-1]}")
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
