# SPDX-License-Identifier: Apache-2.0
"""Rows of the models as Python has them: the reference beside the core, and commands.

Law: software's side is tests/smmu_builder.py; the reference is measured in turns with what it is compared with.
"""

from __future__ import annotations

import os
import statistics
import time
import tracemalloc
from collections.abc import Callable

from tests.bench import compiled
from tests.bench.figure import Figure, figure, missing
from tests.smmu_builder import IPA_OFFSET, Bench, PageTable, Ram
from vhost_iommu import _core
from vhost_iommu.masters.port import Abort, Port
from vhost_iommu.smmu.v3.commands import (
    CMD_CFGI_CD,
    CMD_CFGI_STE,
    CMD_SYNC,
    CMD_TLBI_NH_ASID,
    CMD_TLBI_NH_VA,
    Command,
)
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD

MISSES = 64
ROUNDS = 7
PAGE = 0x1000
#: A StreamID beyond the stream table.
NO_STREAM = 77777


def _walks(bench: Bench, iovas: list[int]) -> Callable[[], float]:
    """Seconds for a request that walks four levels."""

    def once() -> float:
        began = time.perf_counter()
        for iova in iovas:
            bench.pa(iova)
        return (time.perf_counter() - began) / len(iovas)

    return once


def reference() -> list[Figure]:
    """The same request by the reference, by the core through its door, and by the core from C."""
    title = "reference / core, one walk"
    try:
        native = compiled.single_request
        native()
    except compiled.UnmeasuredError as why:
        return [missing(title, 100, str(why), at_least=True)]
    made = []
    for pure in (True, False):
        bench = Bench(ram=Ram(size=8 << 20), tlb_entries=8, pure=pure)
        table = bench.stream()
        iovas = [(n + 1 << 39) | (n * 8 % 512) << 30 for n in range(MISSES)]
        for iova in iovas:
            table.map(iova, bench.ram.alloc(0x1000))
        made.append(_walks(bench, iovas))
    rounds = []
    for _ in range(ROUNDS):
        least = [min(once() for _ in range(5)) * 1e9 for once in made]
        rounds.append((*least, native()))
    slow, door, quick = (statistics.median(column) for column in zip(*rounds, strict=True))
    by_door = f"; by the core through its door {door / 1e3:.1f} µs" if _core.built() is not None else ""
    note = (
        f"a request of one address that misses: {slow / 1e3:.0f} µs, and {quick:.0f} ns from C{by_door}; CPUs {_cpus()}"
    )
    return [figure(title, "×", [a / c for a, _, c in rounds], 100, note, at_least=True)]


def _faults(pure: bool, sid: int, count: int) -> Callable[[], float]:
    """Seconds for a master's read that faults, the event queue being full; the least of some times ``count``."""
    bench = Bench(ram=Ram(size=8 << 20), pure=pure)
    bench.stream(1).map(PAGE, bench.ram.alloc(PAGE))
    port = Port("master", bench.ram.memory, bench.smmu, [sid])
    for _ in range(32):
        assert isinstance(port.read(2 * PAGE, 8), Abort)

    def once() -> float:
        began = time.perf_counter()
        for _ in range(count):
            port.read(2 * PAGE, 8)
        return (time.perf_counter() - began) / count

    return once


def faults() -> list[Figure]:
    """What a fault costs with the core, of what it costs without: 200,000 each, in turns."""
    found = []
    for what, sid in (("stream", NO_STREAM), ("page", 1)):
        title = f"fault, {what}, core / reference"
        if _core.built() is None:
            found.append(missing(title, 1.0, "the core is not compiled"))
            continue
        made = [_faults(pure, sid, 200) for pure in (False, True)]
        rounds = []
        for _ in range(10):
            turns = [[once() for once in made] for _ in range(100)]
            rounds.append([min(column) * 1e6 for column in zip(*turns, strict=True)])
        core, reference = (min(column) for column in zip(*rounds, strict=True))
        note = f"a master's read: {core:.1f} µs, by the reference {reference:.1f}; CPUs {_cpus()}"
        found.append(figure(title, "×", [a / b for a, b in rounds], 1.0, note))
    return found


def _first_use(both_stages: bool) -> Callable[[], float]:
    """Seconds of a stream's first read after its CMD_CFGI_STE, of a page that is in the TLB: the least of some."""
    bench = Bench({"stage2": both_stages}, ram=Ram(size=16 << 20), pumped=True, interrupt=None)
    if both_stages:
        bench.nested(1)[0].map(0, bench.ram.alloc(0x1000) + IPA_OFFSET)
    else:
        bench.stream(1).map(0, bench.ram.alloc(0x1000))
    port = Port("master", bench.ram.memory, bench.smmu, [1])
    bench.invalidate()

    def once() -> float:
        bench.invalidate(CMD_CFGI_STE.of(SID=1))
        began = time.perf_counter()
        assert isinstance(port.read(0, 4096), bytes)
        return time.perf_counter() - began

    return lambda: statistics.median(once() for _ in range(100))


def _in_turn(count: int) -> Callable[[], float]:
    """Seconds of one read of ``count`` streams, each with a CD and an ASID of its own, one after the other."""
    bench = Bench({"asid16": True}, ram=Ram(size=32 << 20), sid_bits=count.bit_length() - 1)
    table = PageTable(bench.ram)
    table.map(0, bench.ram.alloc(0x1000))
    for sid in range(count):
        bench.stream(sid, table=table, cd={"ASID": sid})
    ports = [Port("master", bench.ram.memory, bench.smmu, [sid]) for sid in range(count)]

    def once() -> float:
        began = time.perf_counter()
        for port in ports:
            assert isinstance(port.read(0, 4096), bytes)
        return (time.perf_counter() - began) / count

    return once


def _structures(count: int = 512) -> float:
    """Bytes of Python's objects for a context that is kept, with the STE and CD that it was made of."""
    bench = Bench(ram=Ram(size=4 << 20), sid_bits=10)
    table = PageTable(bench.ram)
    for sid in range(count + 1):
        bench.stream(sid, table=table, cd={"ASID": sid % 256})
    bench.know(0)
    tracemalloc.start()
    for sid in range(1, count + 1):
        bench.know(sid)
    bytes_ = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return bytes_ / count


def contexts() -> list[Figure]:
    """What it costs that the model makes contexts, where the core does not find them."""
    found = []
    rows: list[tuple[str, Callable[[], Callable[[], float]]]] = [
        ("Port.read after CFGI, stage 1", lambda: _first_use(False)),
        ("Port.read after CFGI, nested", lambda: _first_use(True)),
        ("Port.read, 8,192 streams in turn", lambda: _in_turn(8192)),
    ]
    for title, made in rows:
        if _core.built() is None:
            found.append(missing(title, 300, "the core is not compiled"))
            continue
        once = made()
        once()
        values = [once() * 1e6 for _ in range(ROUNDS)]
        found.append(
            figure(title, "µs", values, 300, f"4 KiB, in a context that the model makes first; CPUs {_cpus()}")
        )
    core, python = compiled.context_bytes(), _structures()
    note = f"{core} in the core, where it is published, and {python:.0f} of the model's, which keeps 1,024 at most"
    return [*found, figure("memory of a context, in all", "bytes", [core + python], 8192, note)]


def _consumption(pure: bool) -> Callable[[], float]:
    """Commands a second of a full queue, each TLBI by address of a page that is cached, by one store to CMDQ_PROD."""
    bench = Bench(ram=Ram(size=8 << 20), command_bits=10, pure=pure)
    table = bench.stream()
    count = 1008
    commands: list[Command] = []
    while len(commands) < count:
        commands += [CMD_CFGI_STE.of(SID=1, Leaf=1), CMD_CFGI_CD.of(Leaf=1), CMD_TLBI_NH_ASID.of(ASID=2)]
        commands += [CMD_TLBI_NH_VA.of(ASID=1, Address=len(commands) + n << 12, Leaf=1) for n in range(12)]
        commands.append(CMD_SYNC.of())
    for page in range(count):
        table.map(page << 12, 0x4000_0000)

    def once() -> float:
        for page in range(count):
            assert bench.pa(page << 12) is not None
        prod = bench[CMDQ_PROD].replace(WR=bench.place(*commands))
        began = time.perf_counter()
        bench[CMDQ_PROD] = prod
        took = time.perf_counter() - began
        assert bench[CMDQ_CONS].RD == prod.WR, f"the queue stopped: {bench[CMDQ_CONS]}"
        return count / took

    return once


def commands() -> list[Figure]:
    """As a driver has them consumed, by whatever does it in a daemon here."""
    made = [_consumption(pure) for pure in (True, _core.chosen() is None)]
    rounds = [[max(once() for _ in range(3)) for once in made] for _ in range(ROUNDS)]
    slow, _ = (statistics.median(column) for column in zip(*rounds, strict=True))
    through = "the core" if _core.chosen() is not None else "the reference"
    note = (
        f"of 16: 12 TLBI of a cached page, 1 of another ASID, 2 CFGI, 1 SYNC; by {through}, without a guest; "
        f"by the reference {slow:,.0f}; CPUs {_cpus()}"
    )
    return [figure("commands consumed", "/s", [each for _, each in rounds], 1e6, note, at_least=True)]


def _cpus() -> str:
    return " or ".join(map(str, sorted(os.sched_getaffinity(0))))
