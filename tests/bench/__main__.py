# SPDX-License-Identifier: Apache-2.0
"""One table of ratios and times against the limits that we set ourselves; also in build/bench.json.

Law: what is compared is measured in the same run, in turns, so that a busy machine slows both. Never a CI test. Each
row says on which processors it was measured. Beginnings of rows' names as argument, with ";" between: these alone.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench import compiled, guests, models
from tests.bench.figure import (
    Figure,
    Measurement,
    chosen,
    decided,
    figure,
    missing,
    ratios,
    rounds_until,
)
from tests.protocol.client import SocketTransport, TestClient
from vhost_iommu._core import PURE
from vhost_iommu.config import BlockOptions, load_machine
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import linux
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.launch import Launch, hardware_of
from vhost_iommu.guest.payload import LinuxGuest
from vhost_iommu.guest.run import GuestRun, Options
from vhost_iommu.layout import Register
from vhost_iommu.smmu.v3.registers import CR1, IDR0
from vhost_iommu.terminal import Progress, paint

TOP = Path(__file__).resolve().parents[2]
RESULTS = TOP / "build" / "bench.json"
COMMAND = Path(sys.executable).parent / "vhost-iommu"


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
    on = f"both ends on CPU {min(os.sched_getaffinity(0))}"
    return [
        figure(
            "region read / echo",
            "×",
            ratios([ours for _, ours in reads], [theirs for theirs, _ in reads]),
            1.2,
            f"{read:.1f} µs, an echo in C {echo:.1f} µs; {on}",
        ),
        figure(
            "posted writes, drained",
            "/s",
            [1e6 / ours for _, ours in writes],
            300_000,
            f"each sent by itself; to be sent and read by C takes {sink:.1f} of {write:.1f} µs; {on}",
            at_least=True,
        ),
    ]


# -- guests --------------------------------------------------------------------------------------------------------


def told(program: str, what: str, pure: str) -> list[int]:
    """What a bare-metal program notes as ``what``=…, in its order."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(COMMAND), "run", "smmuv3-bare", "--elf", program, "--keep", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, PURE: pure})
        console = (Path(folder) / "console.log").read_text(errors="replace")
    return [int(number) for number in re.findall(rf" {re.escape(what)}=(\d+)", console)]


def guest_read() -> Figure:
    """What the CPU of a guest waits for a register: with all that QEMU adds, and with the reference in turns.

    It is the scheduler's whim whether each message wakes a processor that sleeps, which costs five times the rest.
    """

    def once(pure: str) -> float:
        return statistics.median(told("access", "read ns", pure)) / 1e3

    once("0")  # compiles the program
    pairs = rounds_until(lambda: (once("1"), once("0")), lambda all_: decided([b / a for a, b in all_], 1.0))
    python, pump = (min(column) for column in zip(*pairs, strict=True))
    note = f"{pump:.1f} µs, without the compiled core {python:.1f} µs; QEMU and we on any CPU"
    values = [b / a for a, b in pairs]
    return figure("guest's read / pure", "×", values, 1.0, note, undecided=not decided(values, 1.0))


def guest_copy() -> Figure:
    """An engine's MEMCPY of 4,096 pages, as the guest that commands it sees it; more pages than the TLB has entries."""
    took = told("copy", "copy us", "0")[1:]  # memory is first touched by the first one
    values = [(16 << 20) / us for us in took]
    note = f"{statistics.median(took) / 1e3:.1f} ms from the command to its end; QEMU and we on any CPU"
    return figure("16 MiB by MEMCPY in a guest", "MB/s", values, None, note, at_least=True)


def bare_launch() -> Figure:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run([COMMAND, "run", "smmuv3-bare", "--json"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    once()  # compiles the program
    note = "vhost-iommu run smmuv3-bare; on any CPU"
    values = rounds_until(once, lambda found: decided(found, 2.0))
    return figure("bare launch to verdict", "s", values, 2.0, note, undecided=not decided(values, 2.0))


def linux_first_io(assets: Assets) -> Figure:
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
        os.truncate(image, options.size or 0)

        def theirs(on_line: Callable[[str], None]) -> GuestRun:
            guest = LinuxGuest(config.guest.kernel, cases, baseline=[("disk0", image)])
            return GuestRun(guest, options=Options(hardware=hardware_of(config)), assets=assets, on_line=on_line)

        pairs = rounds_until(lambda: (once(theirs), once(ours)), lambda found: decided([b / a for a, b in found], 1.3))
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    note = f"{medians[1]:.2f} s, QEMU's own disk and no SMMU {medians[0]:.2f} s; on any CPU"
    values = [b / a for a, b in pairs]
    return figure("Linux to first I/O", "×", values, 1.3, note, undecided=not decided(values, 1.3))


# -- the table -------------------------------------------------------------------------------------------------------


def unmeasured(rows: Sequence[str], why: str) -> list[Figure]:
    return [missing(row, None, why) for row in rows]


def native() -> list[Measurement]:
    """What takes a compiler."""
    try:
        compiled.compile_program()
    except compiled.UnmeasuredError as why:
        return [Measurement(each.rows, partial(unmeasured, each.rows, str(why))) for each in compiled.measurements()]
    return list(compiled.measurements())


def guest_rows() -> list[Measurement]:
    """What takes QEMU, kernels and a cross compiler."""
    assets = Assets()

    def with_assets(measure: Callable[[Assets], list[Figure]]) -> Callable[[], list[Figure]]:
        def fetched() -> list[Figure]:
            assets.fetch_all()
            return measure(assets)

        return fetched

    return [
        Measurement(("guest's read / pure",), with_assets(lambda _: [guest_read()])),
        Measurement(("16 MiB by MEMCPY in a guest",), with_assets(lambda _: [guest_copy()])),
        Measurement(("bare launch to verdict",), with_assets(lambda _: [bare_launch()])),
        Measurement(("Linux to first I/O",), with_assets(lambda found: [linux_first_io(found)])),
        Measurement(guests.ROWS, with_assets(guests.compare)),
        Measurement(guests.WATCHED, with_assets(guests.watched)),
        Measurement(("two runs at once",), with_assets(lambda found: [guests.two_at_once(found)])),
    ]


def measured(measurement: Measurement) -> list[Figure]:
    try:
        figures = measurement.measure()
    except (compiled.UnmeasuredError, UsageError, RuntimeError, OSError, subprocess.SubprocessError) as why:
        return unmeasured(measurement.rows, str(why))
    assert [each.name for each in figures] == list(measurement.rows), "rows are printed as they are announced"
    return figures


def line(row: Figure) -> str:
    limit = "" if row.limit is None else f"{'≥' if row.at_least else '≤'} {row.limit:,.10g} {row.unit}"
    if row.value is None or row.low is None or row.high is None:
        return f"{row.name:32} {paint('           –', 'yellow')} {limit:>13}   {row.note}"
    digits = 2 if row.high < 1000 else 0
    value = f"{row.value:,.{digits}f} {row.unit}"
    colour = {None: "dim", True: "green", False: "red"}[row.good]
    spread = f"{row.low:,.{digits}f} to {row.high:,.{digits}f} of {row.rounds}; " if row.rounds > 1 else ""
    judged = f"judged by instructions, {row.judged:.3f}; " if row.judged is not None else ""
    if row.instructions is not None and row.most_instructions is not None:
        judged = f"judged by instructions, {row.instructions:.0f} of at most {row.most_instructions:.0f}; "
    if row.undecided:
        judged = "undecided; "
    return f"{row.name:32} {paint(f'{value:>12}', colour)} {limit:>13}   {spread}{judged}{row.note}"


def main(beginnings: Sequence[str]) -> int:
    measurements = [
        *native(),
        Measurement(("reference / core, one walk",), models.reference),
        Measurement(("fault, stream, core / reference", "fault, page, core / reference"), models.faults),
        Measurement(
            (
                "Port.read after CFGI, stage 1",
                "Port.read after CFGI, nested",
                "Port.read, 8,192 streams in turn",
                "memory of a context, in all",
            ),
            models.contexts,
        ),
        Measurement(("commands consumed",), models.commands),
        Measurement(("region read / echo", "posted writes, drained"), messages),
        *guest_rows(),
    ]
    try:
        wanted = chosen(measurements, beginnings)
    except ValueError as why:
        print(why, file=sys.stderr)
        return 2
    figures: list[Figure] = []
    with Progress() as progress:
        for measurement in wanted:
            progress.say(f"measuring {measurement.rows[0]}")
            found = measured(measurement)
            figures += [row for row in found if not beginnings or row.name.startswith(tuple(beginnings))]
    print(f"{'':32} {'median':>12} {'limit':>13}   spread over the rounds, and what it is")
    for row in figures:
        print(line(row))
    load = os.getloadavg()
    cpus = sorted(os.sched_getaffinity(0))
    print(f"CPUs {', '.join(map(str, cpus))}; load {load[0]:.1f}")
    RESULTS.parent.mkdir(exist_ok=True)
    table = [{**dataclasses.asdict(row), "good": row.good} for row in figures]
    RESULTS.write_text(json.dumps({"cpus": cpus, "load": load, "figures": table}, indent=1) + "\n")
    return 1 if any(row.good is False for row in figures) else 0


if __name__ == "__main__":
    sys.exit(main([each.strip() for each in " ".join(sys.argv[1:]).split(";") if each.strip()]))
