# SPDX-License-Identifier: Apache-2.0
"""What boot tests share: machines, ways to run them, and what is known of a run afterwards.

Law: what users run comes first. A way is checked to have been taken: nothing passes on a path that it was not on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum

from tests.conftest import missing
from vhost_iommu import _core
from vhost_iommu.config import MachineConfig, SmmuConfig, load_machine, parse_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report, disk_checksums
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.machine import Machine
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.smmu.v3 import Smmu, events
from vhost_iommu.trace import Record, Trace


class Way(Enum):
    """How a machine runs. Each has code that the others never enter."""

    USERS = "as users run it"  #: on the compiled core, with its pump, and nothing is traced
    TRACED = "traced"  #: the same, and a trace is told of each access, command and translation
    REFERENCE = "on the reference"  #: without the core and its pump


#: Of an SMMU's counters, those that say the same whatever the way. Registers are also read to wait for something.
TOLD_ALIKE = ("transactions", "translations", "walks", "faults", "stalls", "commands", "command_errors", "syncs",
              "page_requests", "events", "events_lost", "interrupts", "mmio_writes")  # fmt: skip


@contextmanager
def chosen(way: Way) -> Iterator[None]:
    """The environment asks for ``way``."""
    before = os.environ.get(_core.PURE)
    os.environ[_core.PURE] = str(int(way is Way.REFERENCE))
    try:
        yield
    finally:
        if before is None:
            del os.environ[_core.PURE]
        else:
            os.environ[_core.PURE] = before


class Run:
    """One run of a machine, and what is known of it afterwards."""

    def __init__(
        self,
        assets: Assets,
        machine: str | MachineConfig,
        wishes: Wishes | None = None,
        way: Way = Way.USERS,
        on_line: Callable[[Machine, str], None] = lambda machine, line: None,
    ) -> None:
        """``on_line`` is called with each line of the console as it comes."""
        if way is not Way.REFERENCE and _core.built() is None:
            missing("the compiled core; 'make core' says why")
        config = load_machine(machine) if isinstance(machine, str) else machine
        self.way = way
        self.trace = Trace.memory()

        def heard(line: str) -> None:
            assert self.launch.daemon is not None
            on_line(self.launch.daemon.machine, line)

        trace = self.trace if way is Way.TRACED else None
        self.launch = Launch(config, wishes, trace=trace, assets=assets, on_line=heard)
        with chosen(way):
            self.report: Report = self.launch.run()
        assert self.launch.daemon is not None
        self.machine = self.launch.daemon.machine
        if self.report.verdict is not Verdict.DIED:
            for smmu in config.smmus:
                self._was_taken(smmu)

    def _was_taken(self, config: SmmuConfig) -> None:
        """The way was: registers are read from the pump's mirror, and the core's doorbell rings, traced or not."""
        smmu = self.smmus[config.name]
        if config.model != "smmuv3":  # no other is mirrored, or has a doorbell
            assert (smmu.core is not None) == (self.way is not Way.REFERENCE)
            return
        # The core does not look for conflicts.
        strict = config.options.tlb_conflicts or config.options.configuration_conflicts
        core = self.way is not Way.REFERENCE and not strict
        pumped = self.way is not Way.REFERENCE
        found = (smmu.core is not None, smmu.counters.reads_mirrored() > 0, smmu.counters.writes_carried_out > 0)
        assert found == (core, pumped, core), f"{config.name} did not run {self.way.value}: {found}"

    @property
    def ktap(self) -> Ktap:
        return self.report.ktap

    @property
    def smmus(self) -> dict[str, Smmu]:
        return self.machine.smmus

    @property
    def smmu(self) -> Smmu:
        return self.smmus["smmu0"]

    @property
    def told(self) -> dict[str, dict[str, int]]:
        """Of each SMMU, what its counters and its TLBs' say whatever the way."""
        return {
            name: {each: getattr(smmu.counters, each) for each in TOLD_ALIKE}
            | {f"TLB {each}": count for each, count in asdict(smmu.tlb.counters).items()}
            | {f"TLB of stage 2 {each}": count for each, count in asdict(smmu.tlb2.counters).items()}
            for name, smmu in self.smmus.items()
        }

    @property
    def disks(self) -> dict[str, VirtioBlk]:
        return {name: master for name, master in self.machine.masters.items() if isinstance(master, VirtioBlk)}

    def traced(self, kind: str) -> list[Record]:
        """Of the first SMMU."""
        assert self.way is Way.TRACED
        return [record for record in self.trace.records if record.track == "smmu0" and record.kind == kind]

    @property
    def events(self) -> list[tuple[str, dict[str, float | str]]]:
        """Events by name and fields, as the model made them."""
        return [(record.name, dict(record.args)) for record in self.traced("fault") if record.name != "GERROR"]

    @property
    def seen(self) -> list[tuple[str, dict[str, float | str]]]:
        """The same as a bare-metal program read them from its queue."""
        found = []
        for note in self.ktap.notes:
            word, *words = note.split()
            if word == "event":
                raw = sum(int(each, 16) << 64 * n for n, each in enumerate(words))
                event = events.decode(raw)
                values: dict[str, float | str] = {n: v for n, v in event.values().items() if n != "TYPE"}
                found.append((type(event).__name__, values))
        return found


def bare(elf: str, *smmus: str) -> MachineConfig:
    """A machine of SMMUs with these lines in their tables, each with an engine behind it."""
    parts = [
        f'[[smmu]]\nname = "smmu{n}"\n{lines}\n'
        f'[[master]]\nname = "engine{n}"\nkind = "engine"\nsmmu = "smmu{n}"\nstream_ids = [1, 2]'
        for n, lines in enumerate(smmus)
    ]
    guest = f'[guest]\nkind = "bare"\nelf = "{elf}"\nmemory = "64M"\ntimeout = 60'
    return parse_machine("\n".join([guest, *parts]))


def all_passed(report: Report, *skipped: str) -> None:
    """Every case passed, but for these, which were skipped."""
    wanted = Verdict.SKIPPED if len(skipped) == len(report.results) else Verdict.PASSED
    assert report.verdict is wanted, f"{report.why}; see {report.folder}"
    assert {result.name for result in report.results if result.skipped is not None} == set(skipped)


def disks_hold_what_the_guest_says(run: Run) -> None:
    """Each disk of the machine, byte by byte as the guest has summed it up at its end, and not empty."""
    said = disk_checksums(run.report)
    assert set(said) == set(run.disks)
    for name, disk in run.disks.items():
        for fact in said[name]:
            held = disk.storage.read(int(fact["offset"]), int(fact["bytes"]))
            assert held is not None
            assert any(held)
            assert hashlib.sha256(held).hexdigest() == fact["sha256"]
