# SPDX-License-Identifier: Apache-2.0
"""Two clients of one daemon: whatever the one does with memory, descriptors and eventfds, the other never notices."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.protocol.client import RefusedError, Scratch, TestClient, open_fds, ram
from vhost_iommu.server import Server
from vhost_iommu.vfio.pci import BarMap, PciFunction
from vhost_iommu.vfio.wire import Irq

MiB = 1 << 20


class Pair:
    """A hostile client and its neighbour, each of a function of its own."""

    def __init__(self, folder: Path) -> None:
        self.functions = [PciFunction(name, {0: BarMap([(0, Scratch())])}, msix_vectors=4) for name in ("bad", "good")]
        self.server = Server()
        self.paths = [Path(os.path.relpath(folder / function.name)) for function in self.functions]
        for function, path in zip(self.functions, self.paths, strict=True):
            self.server.add(function, path=path)
        self.server.start()
        self.bad, self.good = (TestClient.connect(path) for path in self.paths)
        self.ram = ram(MiB)
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        for client in (self.bad, self.good):
            client.version()
        self.good.dma_map(0x4000_0000, MiB, self.ram)
        self.good.assign_irqs(Irq.MSIX, [self.event])

    def check(self) -> None:
        """The neighbour's registers, memory and interrupts are as ever, and both can go on."""
        good = self.functions[1]
        self.good.write_int(0, 8, 4, 0xFEED)
        assert self.good.read_int(0, 8, 4) == 0xFEED
        assert good.memory.write(0x4000_0000, b"dma")
        assert os.pread(self.ram, 3, 0) == b"dma"
        good.trigger_msix(0)
        assert os.eventfd_read(self.event) == 1
        assert self.bad.device_info().num_irqs == 5
        assert self.server.failure is None

    def close(self) -> None:
        self.bad.close()
        self.good.close()
        self.server.stop()
        os.close(self.ram)
        os.close(self.event)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    before = open_fds()
    made = Pair(tmp_path)
    yield made
    made.close()
    assert made.server.failure is None
    assert open_fds() == before, "a file descriptor leaked"


@contextlib.contextmanager
def full_table(left: int) -> Iterator[None]:
    """This process can have ``left`` more descriptors, and then none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    try:
        while True:
            try:
                held.append(os.dup(held[0]))
            except OSError:
                break
        for _ in range(left):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


def refusal(call: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value.errno


# -- descriptors -----------------------------------------------------------------------------------------------


def test_where_no_descriptor_is_left_the_message_is_refused_by_that_name(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    memory, event = ram(MiB, sealable=False), os.eventfd(0)
    with full_table(0):
        assert refusal(pair.bad.dma_map, 0, MiB, memory) == errno.EMFILE
        assert refusal(pair.bad.assign_irqs, Irq.MSIX, [event]) == errno.EMFILE
        pair.check()
    assert pair.functions[0].memory.windows == (), "no window without its memory"
    with full_table(1):
        assert refusal(pair.bad.assign_irqs, Irq.MSIX, [event, event]) == errno.EMFILE, "one of two came"
        pair.check()
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 3
    assert all(f"{what} its file descriptors are lost" in " ".join(said) for what in ("DMA_MAP:", "DEVICE_SET_IRQS:"))
    pair.bad.dma_map(0, MiB, memory)
    pair.bad.assign_irqs(Irq.MSIX, [event])
    os.close(memory)
    os.close(event)


def test_windows_cost_no_descriptors(pair: Pair) -> None:
    memory = ram(MiB, sealable=False)
    before = open_fds()
    for at in range(200):
        pair.bad.dma_map(at * MiB, MiB, memory)
    assert open_fds() == before
    pair.check()
    os.close(memory)


# -- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealable", [False, True])
def test_a_client_at_its_bound_of_windows_is_refused_one_and_goes_on(pair: Pair, sealable: bool) -> None:
    memory = ram(MiB, sealable=sealable)
    pair.functions[0].memory.most = 1200
    for at in range(1200):
        pair.bad.dma_map(at << 12, 0x1000, memory)
    for _ in range(3):
        assert refusal(pair.bad.dma_map, 1 << 40, 0x1000, memory) == errno.ENOSPC
    pair.check()
    pair.good.dma_map(1 << 40, 0x1000, memory)
    pair.bad.dma_unmap(0, 0x1000)
    pair.bad.dma_map(1 << 40, 0x1000, memory)
    pair.check()
    os.close(memory)


def test_more_memory_than_a_clients_share_is_refused(pair: Pair) -> None:
    memory = ram(1 << 42)
    pair.bad.dma_map(0, 1 << 42, memory)
    assert refusal(pair.bad.dma_map, 1 << 42, 0x1000, memory) == errno.ENOSPC
    pair.good.dma_map(1 << 42, 1 << 41, memory)
    pair.check()
    os.close(memory)


def test_memory_that_is_cut_off_aborts_for_its_client_alone(pair: Pair) -> None:
    memory = ram(MiB, sealable=False)
    pair.bad.dma_map(0, MiB, memory)
    os.truncate(memory, 0)
    bad = pair.functions[0].memory
    assert bad.read(0, 64) is None
    assert not bad.write(0x8000, b"gone")
    assert bad.compare_and_swap_u64(0x8000, 0, 1) is None
    pair.check()
    os.close(memory)


# -- eventfds ----------------------------------------------------------------------------------------------------

FILL = """
import os, sys
fd = int(sys.argv[1])
print(flush=True)
while True:
    try:
        os.set_blocking(fd, False)
        os.eventfd_read(fd)
    except BlockingIOError:
        pass
    try:
        os.eventfd_write(fd, (1 << 64) - 2)
        os.set_blocking(fd, bool(int(sys.argv[2])))
    except BlockingIOError:
        pass
"""


@pytest.mark.parametrize("blocking", [0, 1])
def test_a_client_that_fills_its_eventfd_all_the_time_stops_no_interrupt(pair: Pair, blocking: int) -> None:
    event = os.eventfd(0)
    pair.bad.assign_irqs(Irq.MSIX, [event])
    command = [sys.executable, "-c", FILL, str(event), str(blocking)]
    with subprocess.Popen(command, pass_fds=[event], stdout=subprocess.PIPE) as filler:
        assert filler.stdout is not None
        filler.stdout.readline()
        for _ in range(20_000):
            pair.functions[0].trigger_msix(0)
        filler.kill()
    pair.check()
    os.close(event)


def test_what_is_no_eventfd_is_refused(pair: Pair) -> None:
    pipe = os.pipe()
    file = os.memfd_create("file")
    for fd in (*pipe, file):
        assert refusal(pair.bad.assign_irqs, Irq.INTX, [fd]) == errno.EINVAL
        os.close(fd)
    pair.check()
