# SPDX-License-Identifier: Apache-2.0
"""Ratios and times against the limits that we set ourselves; results also in build/bench.json.

Law: what is compared is measured in the same run, in turns, so that a busy machine slows both. Never a CI test.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.protocol.client import SocketTransport, TestClient
from vhost_iommu._core import PURE
from vhost_iommu.config import BlockOptions, load_machine
from vhost_iommu.guest import linux
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.launch import Launch, hardware_of
from vhost_iommu.guest.run import GuestRun, LinuxGuest, Options
from vhost_iommu.layout import Register
from vhost_iommu.smmu.v3.registers import CR1, IDR0
from vhost_iommu.terminal import Progress, paint

TOP = Path(__file__).resolve().parents[2]
RESULTS = TOP / "build" / "bench.json"
COMMAND = Path(sys.executable).parent / "vhost-iommu"


@dataclass(frozen=True)
class Figure:
    """One row: what was measured, with its spread over the rounds."""

    name: str
    unit: str
    value: float
    low: float
    high: float
    rounds: int
    limit: float
    note: str

    @property
    def good(self) -> bool:
        return self.value <= self.limit


def figure(name: str, unit: str, values: list[float], limit: float, note: str) -> Figure:
    return Figure(name, unit, statistics.median(values), min(values), max(values), len(values), limit, note)


# -- messages over the socket --------------------------------------------------------------------------------------


@contextmanager
def one_processor() -> Iterator[None]:
    """We and the processes that we start keep to one processor, and are not placed now so and now so.

    To wake another that sleeps costs five times the work that is measured, on virtual machines most of all.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def peer(command: Callable[[int], list[str]]) -> Iterator[socket.socket]:
    """Our end of a socket whose other end is the descriptor that the process ``command(fd)`` is given."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(command(theirs.fileno()), pass_fds=[theirs.fileno()])
        try:
            yield ours
            ours.shutdown(socket.SHUT_RDWR)
            process.wait(10)
        finally:
            process.kill()
            process.wait()


@contextmanager
def c_peer() -> Iterator[str]:
    """``peer.c``, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "peer")
        subprocess.run(["cc", "-O2", "-o", program, str(Path(__file__).with_name("peer.c"))], check=True)
        yield program


def serve(fd: int) -> list[str]:
    return [str(COMMAND), "serve", "smmuv3-bare", "--fd", str(fd)]


def messages(launches: int = 7, rounds: int = 3) -> list[Figure]:
    """Of several launches, for where a process has its memory makes a difference for as long as it lives."""
    reads: list[tuple[float, float]] = []
    writes: list[tuple[float, float]] = []
    with c_peer() as program:

        def ask(connected: socket.socket, what: str, register: type[Register], *how: int) -> float:
            """µs for each."""
            command = [program, what, str(connected.fileno()), str(register.at), *map(str, how)]
            fd = connected.fileno()
            return 1e6 * float(subprocess.run(command, pass_fds=[fd], check=True, capture_output=True).stdout)

        for _ in range(launches):
            with one_processor(), peer(lambda fd: [program, "echo", str(fd)]) as bare, peer(serve) as served:
                TestClient(SocketTransport(served)).version()
                served.setblocking(True)
                for connected in (bare, served):
                    ask(connected, "reads", IDR0, 3000)
                for _ in range(rounds):
                    reads.append((ask(bare, "reads", IDR0, 10_000), ask(served, "reads", IDR0, 10_000)))
                    how = (CR1, 5, 20_000, 1)
                    writes.append((ask(bare, "writes", *how), ask(served, "writes", *how)))
    (echo, read), (sink, write) = (
        (statistics.median(theirs for theirs, _ in pairs), statistics.median(ours for _, ours in pairs))
        for pairs in (reads, writes)
    )
    return [
        figure("region read / echo", "×", [b / a for a, b in reads], 1.2, f"{read:.1f} µs, an echo in C {echo:.1f} µs"),
        figure(
            "posted write, drained",
            "µs",
            [ours for _, ours in writes],
            1e3 / 300,
            f"{1e3 / write:.0f} thousand a second, each sent by itself; to be sent and read takes {sink:.1f} µs of it",
        ),
    ]


# -- guests --------------------------------------------------------------------------------------------------------


def guest_read(rounds: int = 6) -> Figure:
    """What the CPU of a guest waits for a register: with all that QEMU adds, and with the reference in turns.

    The best of each, for it is the scheduler's whim whether each message wakes a processor that sleeps, which costs
    five times the rest.
    """

    def once(pure: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [str(COMMAND), "run", "smmuv3-bare", "--elf", "access", "--keep", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, PURE: pure})
            told = (Path(folder) / "console.log").read_text(errors="replace")
        return statistics.median(int(ns) / 1e3 for ns in re.findall(r" read ns=(\d+)", told))

    once("0")  # compiles the program
    pairs = [(once("1"), once("0")) for _ in range(rounds)]
    python, pump = (min(column) for column in zip(*pairs, strict=True))
    note = f"{pump:.1f} µs, without the compiled core {python:.1f} µs"
    return figure("guest's read / pure", "×", [pump / python], 1.0, note)


def bare_launch(rounds: int = 7) -> Figure:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run([COMMAND, "run", "smmuv3-bare", "--json"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    once()  # compiles the program
    return figure("bare launch to verdict", "s", [once() for _ in range(rounds)], 2.0, "vhost-iommu run smmuv3-bare")


def linux_first_io(assets: Assets, rounds: int = 5) -> Figure:
    config = load_machine("smmuv3-linux")
    cases = (linux.Case("modules_load", "modules_load"), linux.Case("first_io", "disk_appears", ("disk0",)))

    def once(make: Callable[[Callable[[str], None]], GuestRun]) -> float:
        ktap = Ktap()
        seconds = 0.0

        def line_came(line: str) -> None:
            nonlocal seconds
            result = ktap.feed(line)
            if result is not None and result.name == "first_io":
                seconds = time.perf_counter() - began

        began = time.perf_counter()
        report = make(line_came).run()
        if not report.passed("first_io"):
            raise RuntimeError(f"the guest did not get to its disk: {report.why}")
        return seconds

    def ours(on_line: Callable[[str], None]) -> GuestRun:
        launch = Launch(config, assets=assets, on_line=on_line)
        launch.guest_run.guest = LinuxGuest(config.guest.kernel, cases)
        return launch.guest_run

    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "disk0"
        (options,) = (master.options for master in config.masters if isinstance(master.options, BlockOptions))
        image.touch()
        os.truncate(image, options.size)

        def theirs(on_line: Callable[[str], None]) -> GuestRun:
            guest = LinuxGuest(config.guest.kernel, cases, baseline=[("disk0", image)])
            return GuestRun(guest, options=Options(hardware=hardware_of(config)), assets=assets, on_line=on_line)

        pairs = [(once(theirs), once(ours)) for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    note = f"{medians[1]:.2f} s, QEMU's own disk and no SMMU {medians[0]:.2f} s"
    return figure("Linux to first I/O", "×", [b / a for a, b in pairs], 1.3, note)


def main() -> int:
    with Progress() as progress:
        assets = Assets(progress=progress.say)
        assets.fetch_all()
        figures = []
        measurements: list[tuple[str, Callable[[], Figure | list[Figure]]]] = [
            ("messages over the socket", messages),
            ("a guest's reads of a register", guest_read),
            ("a bare-metal guest", bare_launch),
            ("Linux to its first I/O, with and without us", lambda: linux_first_io(assets)),
        ]
        for name, measure in measurements:
            progress.say(f"measuring {name}")
            measured = measure()
            figures += measured if isinstance(measured, list) else [measured]
    print(f"{'':24} {'median':>9} {'limit':>9}   spread over the rounds, and what it is")
    for row in figures:
        value = paint(f"{row.value:7.2f} {row.unit}", "green" if row.good else "red")
        spread = f"{row.low:.2f} to {row.high:.2f} of {row.rounds}"
        print(f"{row.name:24} {value} {row.limit:7.2f} {row.unit}   {spread}; {row.note}")
    load = os.getloadavg()
    print(f"{os.cpu_count()} CPUs, load {load[0]:.1f}")
    RESULTS.parent.mkdir(exist_ok=True)
    table = [{**dataclasses.asdict(row), "good": row.good} for row in figures]
    RESULTS.write_text(json.dumps({"cpus": os.cpu_count(), "load": load, "figures": table}, indent=1) + "\n")
    return 0 if all(row.good for row in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
