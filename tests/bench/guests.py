# SPDX-License-Identifier: Apache-2.0
"""Rows of a stock Linux guest: its SMMU and disk ours, and QEMU's own, in turns.

Law: one kernel, one machine of QEMU, one processor of the guest; times are the guest's. Both disks are memory.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

from tests.bench.figure import Figure, decided, figure, ratios, rounds_until
from vhost_iommu.config import BlockOptions, MachineConfig, load_machine
from vhost_iommu.guest import linux
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes, hardware_of
from vhost_iommu.guest.payload import LinuxGuest
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.run import GuestRun, Options
from vhost_iommu.trace import Trace
from vhost_iommu.watch import Recording

MACHINE = Path(__file__).with_name("guest.toml")
MODULE = "vt_maps"
#: Where QEMU's devices are on its PCI bus.
EDU, DISK = 3, 4
#: Of a read, and how many in a round.
READS = {"1 MiB": (1 << 20, 256), "4 KiB": (4096, 4096)}
READ_ROUNDS = 3
#: Pairs of boots, with and without somebody who looks on.
WATCHED_ROUNDS = 3
KINDS = {"strict": "iommu.strict=1", "lazy": "iommu.strict=0"}
#: Lazily nothing is invalidated, so of pairs only those have a limit that are strict.
PAIR_LIMITS = {"strict": 1.5, "lazy": None}
READ_LIMIT = 1.0
ROWS = (
    *(f"map+unmap, {kind}" for kind in KINDS),
    *(f"virtio-blk reads {size}, {kind}" for kind in KINDS for size in READS),
)


#: What QEMU's own devices took, and ours.
Round: TypeAlias = tuple[dict[str, float], dict[str, float]]


def _cases(device: str) -> tuple[linux.Case, ...]:
    reads = [
        linux.Case(f"reads_{size}", "times_reads", ("disk0", str(size), str(count), str(READ_ROUNDS)))
        for size, count in READS.values()
    ]
    return linux.Case("modules_load", "modules_load"), linux.Case("maps", "times_maps", (device,)), *reads


def _ours(config: MachineConfig, assets: Assets, append: str) -> Report:
    launch = Launch(config, Wishes(append=append), assets=assets)
    (engine,) = (each for each in launch.platform.masters if each.master.compatible == linux.ENGINE)
    cases = _cases(linux.device_name(engine))
    launch.guest_run.guest = LinuxGuest(config.guest.kernel, cases, append, test_modules=(MODULE,))
    try:
        return launch.run()
    finally:
        launch.close()


def _theirs(config: MachineConfig, assets: Assets, append: str, image: Path) -> Report:
    cases = _cases(f"0000:00:{EDU:02x}.0")
    guest = LinuxGuest(config.guest.kernel, cases, append, modules=("virtio_blk",), test_modules=(MODULE,))
    extra = (
        "-M", "iommu=smmuv3",
        "-device", f"edu,bus=pcie.0,addr={EDU:x}",
        "-drive", f"if=none,id=disk0,format=raw,file={image}",
        "-device", f"virtio-blk-pci,bus=pcie.0,addr={DISK:x},drive=disk0,serial=disk0,disable-legacy=on,"
                   "iommu_platform=on",
    )  # fmt: skip
    return GuestRun(guest, options=Options(hardware=hardware_of(config), extra=extra), assets=assets).run()


def _times(report: Report) -> dict[str, float]:
    """Seconds of the quickest batch: of a map and its unmap, and of a read by its size."""
    if report.why and not report.passed("maps"):
        raise RuntimeError(f"the guest did not map: {report.why}")
    found = {"pair": min(int(each["ns"]) / int(each["count"]) for each in report.ktap.facts("pairs")) / 1e9}
    for name, (size, count) in READS.items():
        times = [int(each["ns"]) for each in report.ktap.facts("reads") if int(each["bytes"]) == size]
        found[name] = min(times) / count / 1e9
    return found


def compare(assets: Assets) -> list[Figure]:
    """Rows of pairs and of reads; of each kind, rounds until all of its rows are decided."""
    config = load_machine(str(MACHINE))
    (options,) = (master.options for master in config.masters if isinstance(master.options, BlockOptions))
    figures: dict[str, list[Figure]] = {}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        image = Path(folder) / "disk0"
        image.write_bytes(os.urandom(1 << 20) * ((options.size or 0) >> 20))

        def once(append: str) -> Round:
            return _times(_theirs(config, assets, append, image)), _times(_ours(config, assets, append))

        for kind, append in KINDS.items():
            rounds = rounds_until(partial(once, append), partial(_decided, kind))
            figures[kind] = _rows(kind, rounds)
    pairs, reads = [rows[0] for rows in figures.values()], [row for rows in figures.values() for row in rows[1:]]
    return [*pairs, *reads]


def _decided(kind: str, rounds: Sequence[Round]) -> bool:
    return not any(row.undecided for row in _rows(kind, rounds))


def _rows(kind: str, rounds: Sequence[Round]) -> list[Figure]:
    return [_pairs(rounds, kind, PAIR_LIMITS[kind]), *(_reads(rounds, kind, name) for name in READS)]


# -- looked at ---------------------------------------------------------------------------------------------------------

#: Of unwatched reads' speed, what those have that a recording of all kinds, kept raw, is told of.
WATCHED_LIMIT = 0.7
WATCHED = (
    *(f"virtio-blk reads {size}, recorded" for size in READS),
    *(f"virtio-blk reads {size}, {how}" for how in ("text trace", "Chrome trace") for size in READS),
)


def watched(assets: Assets) -> list[Figure]:
    """A guest's strict reads while somebody looks on at all of it, over those that nobody looks on at."""
    config = load_machine(str(MACHINE))
    cases = (
        linux.Case("modules_load", "modules_load"),
        *(
            linux.Case(f"reads_{size}", "times_reads", ("disk0", str(size), str(count), str(READ_ROUNDS)))
            for size, count in READS.values()
        ),
    )

    def once(how: str, folder: Path) -> dict[str, float]:
        recording = Recording()
        path = {"text trace": folder / "t.txt", "Chrome trace": folder / "t.json"}.get(how)
        trace = None if path is None else Trace.file(path, limit=4 << 30)
        watchers = (recording,) if how == "recorded" else ()
        launch = Launch(config, Wishes(append=KINDS["strict"]), trace=trace, watchers=watchers, assets=assets)
        launch.guest_run.guest = LinuxGuest(config.guest.kernel, cases, KINDS["strict"])
        try:
            report = launch.run()
        finally:
            launch.close()
            if trace is not None:
                trace.close()
        found = {}
        for name, (size, count) in READS.items():
            times = [int(each["ns"]) for each in report.ktap.facts("reads") if int(each["bytes"]) == size]
            found[name] = min(times) / count / 1e9
        return found

    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for how, limit in (("recorded", WATCHED_LIMIT), ("text trace", None), ("Chrome trace", None)):
            rounds = [(once("", folder), once(how, folder)) for _ in range(WATCHED_ROUNDS)]
            for size in READS:
                values = [off[size] / on[size] for off, on in rounds]
                least = min(on[size] for _, on in rounds)
                note = f"of unwatched reads' speed, strict; {least * 1e6:.0f} µs a read"
                figures.append(figure(f"virtio-blk reads {size}, {how}", "×", values, limit, note, at_least=True))
    return figures


def two_at_once(assets: Assets) -> Figure:
    """Two machines that read a disk each: how much sooner both have ended than one after the other."""
    config = load_machine("smmuv3-linux")
    size, count = READS["1 MiB"]
    cases = (
        linux.Case("modules_load", "modules_load"),
        linux.Case("reads", "times_reads", ("disk0", str(size), str(count), "1")),
    )

    def once(_: int = 0) -> None:
        launch = Launch(config, assets=assets)
        launch.guest_run.guest = LinuxGuest(config.guest.kernel, cases)
        try:
            report = launch.run()
        finally:
            launch.close()
        if not report.passed("reads"):
            raise RuntimeError(f"the guest did not read: {report.why}")

    def seconds(at_once: int) -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(once, range(2)))
        return time.perf_counter() - began

    limit = 1.7
    pairs = rounds_until(
        lambda: (seconds(1), seconds(2)), lambda found: decided([one / two for one, two in found], limit)
    )
    values = [one / two for one, two in pairs]
    one, two = (statistics.median(column) for column in zip(*pairs, strict=True))
    note = (
        f"run smmuv3-linux twice, each reads {size * count >> 20} MiB: {one:.1f} s, at once {two:.1f} s; {_placement()}"
    )
    return figure("two runs at once", "×", values, limit, note, at_least=True, undecided=not decided(values, limit))


def _columns(rounds: Sequence[Round], name: str) -> tuple[list[float], list[float]]:
    return [theirs[name] for theirs, _ in rounds], [ours[name] for _, ours in rounds]


def _pairs(rounds: Sequence[Round], kind: str, limit: float | None) -> Figure:
    theirs, ours = _columns(rounds, "pair")
    note = (
        f"dma_map and dma_unmap of a page in a guest: {statistics.median(ours) * 1e6:.1f} µs, behind QEMU's own SMMU "
        f"{statistics.median(theirs) * 1e6:.1f} µs; {_placement()}"
    )
    values = ratios(ours, theirs)
    undecided = limit is not None and not decided(values, limit)
    return figure(f"map+unmap, {kind}", "×", values, limit, note, undecided=undecided)


def _reads(rounds: Sequence[Round], kind: str, name: str) -> Figure:
    theirs, ours = _columns(rounds, name)
    size, _ = READS[name]
    note = (
        f"{size / statistics.median(ours) / 1e6:.0f} MB/s, QEMU's own disk behind its own SMMU "
        f"{size / statistics.median(theirs) / 1e6:.0f} MB/s; {_placement()}"
    )
    values = ratios(theirs, ours)
    undecided = not decided(values, READ_LIMIT)
    title = f"virtio-blk reads {name}, {kind}"
    return figure(title, "×", values, READ_LIMIT, note, at_least=True, undecided=undecided)


def _placement() -> str:
    return f"QEMU and we anywhere on CPUs {', '.join(map(str, sorted(os.sched_getaffinity(0))))}"
