# SPDX-License-Identifier: Apache-2.0
"""Rows of the compiled core, each against plain C in the same process (core.c).

Law: core.c is compiled here, with the core's own sources and no Python, so that what it measures is today's. Where
valgrind is, each time has a count of instructions beside it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.figure import Figure, Measurement, figure, missing, ratios

TOP = Path(__file__).resolve().parents[2]
SOURCES = TOP / "vhost_iommu" / "_core"
PROGRAM = TOP / "build" / "bench-core"
#: The same of sources in which nobody can look on, so that it costs nothing that somebody might (core's internal.h).
UNWATCHED = TOP / "build" / "bench-core-unwatched"
FLAGS = ("-O3", "-std=c11", "-pthread")
#: As the package is built (hatch_build.py); a compiler that has no use of it does without.
ACROSS = ("-flto",)
ROUNDS = 7


class UnmeasuredError(Exception):
    """Why there is no number."""


@dataclass(frozen=True)
class Measured:
    """Times by variant, in nanoseconds for one operation, round by round; the processors of the lanes."""

    figure: str
    times: dict[str, list[float]]
    cpus: tuple[int, int]

    def time(self, variant: str) -> float:
        return statistics.median(self.times[variant])


def compile_program() -> None:
    """UnmeasuredError: there is no compiler, or it does not like what it reads."""
    cc = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(cc[0]) is None:
        raise UnmeasuredError(f"there is no C compiler ({cc[0]})")
    PROGRAM.parent.mkdir(exist_ok=True)
    # What Cython made of a door lies elsewhere, but a folder may hold more than the core: doors need Python's headers.
    sources = [source for source in sorted(SOURCES.rglob("*.c")) if "Python.h" not in source.read_text()]
    rest = [*FLAGS, f"-I{SOURCES}", str(Path(__file__).with_name("core.c")), *map(str, sources)]
    for program, how in ((PROGRAM, ()), (UNWATCHED, ("-DVI_UNWATCHED=1",))):
        for across in (ACROSS, ()):
            command = [*cc, *across, *how, *rest, "-o", str(program)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if not done.returncode:
                break
        else:
            raise UnmeasuredError(f"core.c does not compile: {(done.stderr.splitlines() or ['no word why'])[0]}")


def _output(*arguments: str, program: Path = PROGRAM) -> list[list[str]]:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnmeasuredError(f"core {' '.join(arguments)}: {done.stderr.strip()}")
    return [line.split() for line in done.stdout.splitlines()]


def measure(name: str, rounds: int = ROUNDS, *, program: Path = PROGRAM) -> Measured:
    first, *lines = _output(name, str(rounds), program=program)
    times: dict[str, list[float]] = {}
    for variant, value in lines:
        times.setdefault(variant, []).append(float(value))
    return Measured(name, times, (int(first[1]), int(first[2])))


def instructions(name: str, variant: str, *, program: Path = PROGRAM) -> float | None:
    """For one operation; None: there is no valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    command = [valgrind, "--tool=callgrind", "--toggle-collect=counted", f"--callgrind-out-file={os.devnull}"]
    done = subprocess.run(
        [*command, program, name, "count", variant], capture_output=True, text=True, check=False, cwd=program.parent
    )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    operations = re.search(r"operations (\d+)", done.stdout)
    if done.returncode or collected is None or operations is None:
        return None
    return int(collected[1]) / int(operations[1])


def _counted(name: str, *variants: str, scale: float = 1) -> tuple[list[float | None], str]:
    """Instructions of each, and a text for a note."""
    counts = [instructions(name, variant) for variant in variants]
    if None in counts:
        return counts, "no instruction counts without valgrind"
    return counts, "instructions " + " and ".join(f"{count * scale:.0f}" for count in counts if count is not None)


def _against(
    title: str,
    name: str,
    limit: float | None,
    what: str,
    ours: str = "core",
    theirs: str = "bare",
    *,
    most: float | None = None,
) -> Figure:
    """Nanoseconds of one operation against plain C's; where valgrind is, ``most`` instructions judge instead."""
    measured = measure(name)
    counts, counted = _counted(name, ours, theirs)
    note = f"{what}: {measured.time(ours):.1f} ns and {measured.time(theirs):.1f} ns; {counted}; {_on(measured)}"
    values = ratios(measured.times[ours], measured.times[theirs])
    return figure(title, "×", values, limit, note, instructions=counts[0], most_instructions=most)


def _on(measured: Measured, lanes: int = 1) -> str:
    return f"CPU {measured.cpus[0]}" if lanes == 1 else f"CPUs {measured.cpus[0]} and {measured.cpus[1]}"


def hit() -> Figure:
    what = "vi_next_place, 256 consecutive 4 KiB leaves of one request, and bare lookups"
    return _against("TLB hit / bare lookup", "hit", 2.0, what, most=55)


def misses() -> list[Figure]:
    """Misses that are waited for, against such walks; and where several are under way at once, of which the processor
    does three in the time of one."""
    what = "vi_place_quickly, 4 levels, tables in cache"
    return [
        _against(
            "TLB miss / bare walk",
            "miss",
            1.5,
            f"{what}, 64 buffers of a chain that share no table, each address from the answer before it",
            "core-chain",
            "walk-chain",
            most=235,
        ),
        _against("TLB miss / bare walks in a row", "miss", None, f"{what}, walks that may overlap", "core", "walk"),
        _against("TLB miss / bare TLB in a row", "miss", None, f"{what}, and a lookup, walk and fill", "core", "fill"),
        _against(
            "TLB miss, page after page",
            "cold",
            None,
            "vi_next_place, 256 consecutive cold pages of one request, and bare walks",
            "core",
            "walk",
            most=60,
        ),
    ]


def nested() -> list[Figure]:
    what = "vi_place_quickly, 4 levels through 4, stage 2 missed too"
    chained = f"{what}; each address from the answer before it"
    warm = "vi_place_quickly, only the last tables and pages are new to stage 2"
    return [
        _against("nested miss / bare walk", "nested", 1.5, chained, "core-chain", "walk-chain", most=1200),
        _against(
            "nested miss / bare walks in a row", "nested", None, f"{what}; walks that may overlap", "core", "walk"
        ),
        _against("nested miss, warm stage 2", "nested-warm", None, warm, "core", "walk"),
    ]


def copy(name: str, what: str, most: float, aim: float) -> Figure:
    """Judged by instructions of a page; without valgrind by the time of memcpy, of which ``aim`` is what we want."""
    measured = measure(name)
    counts, counted = _counted(name, "core", "bare", scale=4096)
    speeds = " and ".join(f"{1 / measured.time(each):.1f} GB/s" for each in ("core", "bare"))
    note = (
        f"vi_run_copy (the engine's MEMCPY), {what} over scattered 4K pages, and memcpy of the same: {speeds}, "
        f"aimed at {aim}; {counted} for a page; {_on(measured)}"
    )
    values = ratios(measured.times["bare"], measured.times["core"])
    page = None if counts[0] is None else counts[0] * 4096
    return figure(
        f"DMA copy {what} / memcpy",
        "×",
        values,
        0.95,
        note,
        at_least=True,
        instructions=page,
        most_instructions=most,
    )


def lanes(name: str, what: str) -> list[Figure]:
    measured = measure(name)
    title = f"two masters, {what}"
    if "two" not in measured.times:
        return [missing(title, 1.9, "there is one processor only", at_least=True)]
    rows = []
    for suffix, kind, limit in (("", "", 1.9), ("-locked", ", locked", None)):
        note = f"{what} of two threads and of one{kind and ', a mutex round each'}; {_on(measured, 2)}"
        values = ratios(measured.times[f"one{suffix}"], measured.times[f"two{suffix}"])
        rows.append(figure(f"{title}{kind}", "×", values, limit, note, at_least=True))
    return rows


def configured(name: str, what: str, many: str) -> list[Figure]:
    """What of the working set is left out is in the note: one stream is at work, all others were once."""
    measured = measure(name)
    kind = name.rpartition("-")[2]
    rows = []
    for variant, count in (("1000", f"1,000 {what}"), ("all", f"{many} {what}")):
        limit = 1.1 if kind == "hit" else None
        # To make a million substreams under callgrind takes its time, so for figures with limits only.
        (here, one), counted = _counted(name, variant, "1") if limit else ([None, None], "instructions not counted")
        values = ratios(measured.times[variant], measured.times["1"])
        note = (
            f"{count}, each used once and then one alone; and 1 in all: {measured.time(variant):.1f} ns and "
            f"{measured.time('1'):.1f} ns; {counted}; {_on(measured)}"
        )
        judged = None if here is None or one is None or limit is None else here / one
        rows.append(figure(f"{kind}, {count}", "×", values, limit, note, judged=judged))
    return rows


def single_request() -> float:
    """Nanoseconds of a request of one address that misses, from entering to leaving."""
    return measure("miss").time("core-request")


def context_bytes() -> int:
    """Of a context that is published, with its share of what is set aside."""
    found = {name: int(value) for name, value in _output("sizes")}
    return found["context-room"] + found["context-used"]


def sizes() -> list[Figure]:
    found = {name: int(value) for name, value in _output("sizes")}
    context = (
        f"a published context: {found['context-used']} bytes when it is there, "
        f"{found['context-room']} set aside for each that may be; struct vi_context {found['context']}"
    )
    entry = f"a TLB entry with its share of its set and of spaces; struct vi_entry {found['entry']}"
    total = found["context-room"] + found["context-used"]
    return [
        figure("memory of a context", "bytes", [total], None, context),
        figure("memory of a TLB entry", "bytes", [found["entry-room"]], None, entry),
    ]


#: Requests that nobody is told of: the row, the figure of core.c and its variant, and the function.
UNTOLD = (
    ("4 KiB read, nobody looks on", "reads", "4k", "vi_dma_read"),
    ("1 MiB read, nobody looks on", "reads", "1m", "vi_dma_read"),
    ("disk's 4 KiB, nobody looks on", "disk", "4k", "vi_serve"),
    ("disk's 1 MiB, nobody looks on", "long-disk", "1m", "vi_serve"),
)
UNTOLD_LIMIT = 1.02


def untold() -> list[Figure]:
    """What a request costs for that somebody might look on: one test for each, and none for a page.

    Judged by instructions alone: two programs differ by more in time for where they have their code.
    """
    rows = []
    for title, name, variant, function in UNTOLD:
        programs = (PROGRAM, UNWATCHED)
        times = [measure(name, program=program).times[variant] for program in programs]
        counts = [instructions(name, variant, program=program) for program in programs]
        ours, without = counts
        judged = None if ours is None or without is None else ours / without
        counted = "not judged without valgrind" if judged is None else f"instructions {ours:.0f} and {without:.0f}"
        note = f"{function} of pages in the TLB, and the same where nobody could look on; {counted}"
        limit = None if judged is None else UNTOLD_LIMIT
        rows.append(figure(title, "×", ratios(*times), limit, note, judged=judged))
    return rows


def _configured_rows(kind: str, what: str, many: str) -> tuple[str, ...]:
    return tuple(f"{kind}, {count}" for count in (f"1,000 {what}", f"{many} {what}"))


def measurements() -> Sequence[Measurement]:
    many = [
        Measurement(
            _configured_rows(kind, what, count),
            partial(configured, f"{what}-{kind}", what, count),
        )
        for what, count in (("streams", "65,536"), ("substreams", "1,000,000"))
        for kind in ("hit", "miss")
    ]
    return [
        Measurement(("TLB hit / bare lookup",), lambda: [hit()]),
        Measurement(
            (
                "TLB miss / bare walk",
                "TLB miss / bare walks in a row",
                "TLB miss / bare TLB in a row",
                "TLB miss, page after page",
            ),
            misses,
        ),
        Measurement(
            ("nested miss / bare walk", "nested miss / bare walks in a row", "nested miss, warm stage 2"), nested
        ),
        Measurement(("DMA copy 64 KiB / memcpy",), lambda: [copy("copy-64k", "64 KiB", 600, 0.9)]),
        Measurement(("DMA copy 1 MiB / memcpy",), lambda: [copy("copy-1m", "1 MiB", 620, 0.95)]),
        Measurement(("two masters, hits", "two masters, hits, locked"), lambda: lanes("lanes-hit", "hits")),
        Measurement(("two masters, copies", "two masters, copies, locked"), lambda: lanes("lanes-copy", "copies")),
        *many,
        Measurement(tuple(title for title, *_ in UNTOLD), untold),
        Measurement(("memory of a context", "memory of a TLB entry"), sizes),
    ]
