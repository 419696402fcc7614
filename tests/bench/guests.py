# SPDX-License-Identifier: Apache-2.0
"""Rows of a stock Linux guest: its SMMU and disk ours, and QEMU's own, in turns.

Law: one kernel, one machine of QEMU, one processor of the guest; times are the guest's. Both disks are memory.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from tests.bench.figure import Figure, figure, ratios
from vhost_iommu.config import BlockOptions, MachineConfig, load_machine
from vhost_iommu.guest import linux
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes, hardware_of
from vhost_iommu.guest.payload import LinuxGuest
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.run import GuestRun, Options

MACHINE = Path(__file__).with_name("guest.toml")
MODULE = "vt_maps"
#: Where QEMU's devices are on its PCI bus.
EDU, DISK = 3, 4
#: Of a read, and how many in a round.
READS = {"1 MiB": (1 << 20, 256), "4 KiB": (4096, 4096)}
READ_ROUNDS = 3
ROUNDS = 3


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
    """Rows of pairs (strict alone: lazily nothing is invalidated) and of reads."""
    config = load_machine(str(MACHINE))
    (options,) = (master.options for master in config.masters if isinstance(master.options, BlockOptions))
    kinds = {"strict": "iommu.strict=1", "lazy": "iommu.strict=0"}
    times: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {kind: [] for kind in kinds}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        image = Path(folder) / "disk0"
        image.write_bytes(os.urandom(1 << 20) * ((options.size or 0) >> 20))
        for _ in range(ROUNDS):
            for kind, append in kinds.items():
                pair = _times(_theirs(config, assets, append, image)), _times(_ours(config, assets, append))
                times[kind].append(pair)
    return [_pairs(times["strict"], "strict", 1.5), _pairs(times["lazy"], "lazy", None)] + [
        _reads(times[kind], kind, name) for kind in kinds for name in READS
    ]


def _columns(rounds: list[tuple[dict[str, float], dict[str, float]]], name: str) -> tuple[list[float], list[float]]:
    return [theirs[name] for theirs, _ in rounds], [ours[name] for _, ours in rounds]


def _pairs(rounds: list[tuple[dict[str, float], dict[str, float]]], kind: str, limit: float | None) -> Figure:
    theirs, ours = _columns(rounds, "pair")
    note = (
        f"dma_map and dma_unmap of a page in a guest: {statistics.median(ours) * 1e6:.1f} µs, behind QEMU's own SMMU "
        f"{statistics.median(theirs) * 1e6:.1f} µs; {_placement()}"
    )
    return figure(f"map+unmap, {kind}", "×", ratios(ours, theirs), limit, note)


def _reads(rounds: list[tuple[dict[str, float], dict[str, float]]], kind: str, name: str) -> Figure:
    theirs, ours = _columns(rounds, name)
    size, _ = READS[name]
    note = (
        f"{size / statistics.median(ours) / 1e6:.0f} MB/s, QEMU's own disk behind its own SMMU "
        f"{size / statistics.median(theirs) / 1e6:.0f} MB/s; {_placement()}"
    )
    return figure(f"virtio-blk reads {name}, {kind}", "×", ratios(theirs, ours), 1.0, note, at_least=True)


def _placement() -> str:
    return f"QEMU and we anywhere on CPUs {', '.join(map(str, sorted(os.sched_getaffinity(0))))}"
