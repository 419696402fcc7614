# SPDX-License-Identifier: Apache-2.0
"""What the models did during a run, and what of it the guest's own word can be held against.

Law: it is taken once, when QEMU has ended. What happens too often to be told of was counted where it happened; the rest
its watcher was told, which wants nothing that the core would have to tell.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.layout import Layout
from vhost_iommu.machine import Machine
from vhost_iommu.masters.master import Master
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.watch import Kind, Reported, Stalled, Watcher, Watches

#: Of each kind of events so many are kept.
FIRST_EVENTS = 3


@dataclass
class Told:
    """What one SMMU has told."""

    events: Counter[str] = field(default_factory=Counter)  #: by kind, with those that were lost
    lost: int = 0
    first: list[Layout] = field(default_factory=list)  #: of each kind, in the order in which they came
    stalls: set[int] = field(default_factory=set)  #: that have not ended


class Ledger(Watcher):
    """Looks on from the beginning of a run, for its account."""

    wants = Kind.REPORTED | Kind.STALLED

    def __init__(self, smmus: Mapping[str, Any], watches: Watches) -> None:
        self._kinds = {name: smmu.counters.kind_of for name, smmu in smmus.items()}
        self._told = {name: Told() for name in smmus}
        self._watches = watches
        watches.attach(self)

    @property
    def told(self) -> Mapping[str, Told]:
        """Until now, by SMMU."""
        self._watches.flush()
        return self._told

    def reported(self, it: Reported) -> None:
        kind, told = self._kinds[it.who](it.record), self._told[it.who]
        if kind is None:
            return
        told.events[kind] += 1
        told.lost += not it.kept
        if told.events[kind] <= FIRST_EVENTS:
            told.first.append(it.record)

    def stalled(self, it: Stalled) -> None:
        stalls = self._told[it.who].stalls
        if it.ended:
            stalls.discard(it.key)
        else:
            stalls.add(it.key)


@dataclass(frozen=True)
class SmmuAccount:
    """One SMMU's share, whatever its programming model."""

    name: str
    counters: Mapping[str, int]
    commands: Mapping[str, int]  #: by kind
    events: Mapping[str, int]  #: by kind, with those that were lost
    first_events: tuple[Layout, ...]  #: of each kind
    masters: Mapping[int, str] = field(default_factory=dict)  #: behind it, by StreamID

    @classmethod
    def of(cls, smmu: Any, told: Told, masters: Mapping[int, str]) -> SmmuAccount:
        counters, tlb = smmu.counters, smmu.tlb.counters
        names = ("transactions", "translations", "walks", "faults", "stalls", "commands", "command_errors", "syncs",
                 "page_requests", "interrupts", "mmio_reads", "mmio_writes")  # fmt: skip
        counts = {name: getattr(counters, name) for name in names}
        counts.update(events=told.events.total() - told.lost, events_lost=told.lost)
        counts.update(tlb_hits=tlb.hits, tlb_misses=tlb.misses, unanswered_stalls=len(told.stalls))
        events = dict(told.events.most_common())
        return cls(smmu.name, counts, counters.commands_by_kind, events, tuple(told.first), masters)

    @property
    def worked(self) -> bool:
        """Whether it translated, and took commands, and refused none."""
        count = self.counters
        return min(count["translations"], count["walks"], count["commands"]) > 0 and not count["command_errors"]

    def lines(self) -> list[str]:
        """For people."""
        count = self.counters
        said = [
            f"{count['translations']} translations: {count['tlb_hits']} TLB hits, {count['walks']} walks, "
            f"{count['faults']} faults; {count['interrupts']} interrupts",
            f"{count['commands']} commands{_kinds(self.commands)}; {count['command_errors']} refused",
        ]
        if count["stalls"]:
            said.append(f"{count['stalls']} stalls, {count['unanswered_stalls']} of them not answered by software")
        if self.events:
            lost = f"; {count['events_lost']} of them lost" if count["events_lost"] else ""
            total = sum(self.events.values())
            said.append(f"{total} event{'s' if total > 1 else ''}{_kinds(self.events)}{lost}; the first:")
            said += [f"  {self.event_text(event)}" for event in self.first_events]
        return said

    def event_text(self, event: Layout) -> str:
        """The event decoded, and whose StreamID it names."""
        master = self.masters.get(event.values().get("SID", -1))
        return f"{event.text()}{f' (from {master})' if master else ''}"

    def json(self) -> dict[str, Any]:
        events = [
            {
                "name": type(event).__name__,
                "fields": {name: value for name, value in event.values().items() if name != "TYPE"},
                "words": [f"{word:#018x}" for word in event.words()],
                "master": self.masters.get(event.values().get("SID", -1)),
                "text": event.text(),
            }
            for event in self.first_events
        ]
        return {
            "counters": dict(self.counters),
            "commands": dict(self.commands),
            "events": dict(self.events),
            "first_events": events,
        }


@dataclass(frozen=True)
class MasterAccount:
    """One master's share."""

    name: str
    counters: Mapping[str, int]

    @classmethod
    def of(cls, master: Master) -> MasterAccount:
        names = ("transactions", "bytes_read", "bytes_written", "stalls", "aborts")
        return cls(master.name, {name: getattr(master.port, name) for name in names})

    @property
    def worked(self) -> bool:
        """Whether it moved bytes both ways."""
        return self.counters["bytes_read"] > 0 and self.counters["bytes_written"] > 0

    def line(self) -> str:
        """For people."""
        count = self.counters
        return (
            f"{size_text(count['bytes_read'])} read from the guest, {size_text(count['bytes_written'])} written to it, "
            f"in {count['transactions']} transactions; {count['stalls']} stalled, {count['aborts']} aborted"
        )


@dataclass(frozen=True)
class DiskAccount:
    """A part of a disk as the guest has read it, and as it is."""

    name: str
    offset: int
    size: int
    guest: str  #: sha256 of what the guest read
    host: str

    @property
    def same(self) -> bool:
        return self.guest == self.host

    def line(self) -> str:
        """For people."""
        what = f"sha256 of {size_text(self.size)} at {size_text(self.offset)}: {self.guest[:16]}… in the guest"
        return f"{what}, {'the same here' if self.same else f'{self.host[:16]}… here'}"


@dataclass(frozen=True)
class FaultAccount:
    """A fault that was asked for, as ``--fault`` takes it, and how often it struck."""

    name: str  #: of whom it befell
    fault: str
    struck: int

    def line(self) -> str:
        """For people."""
        times = f"{self.struck} time{'' if self.struck == 1 else 's'}" if self.struck else "never"
        return f"the fault '{self.fault}' struck {times}"


@dataclass(frozen=True)
class Account:
    """What all parts of a machine did."""

    smmus: tuple[SmmuAccount, ...] = ()
    masters: tuple[MasterAccount, ...] = ()
    disks: tuple[DiskAccount, ...] = ()  #: each checksum that the guest told
    faults: tuple[FaultAccount, ...] = ()  #: that were asked for

    @classmethod
    def of(cls, machine: Machine, ledger: Ledger, ktap: Ktap) -> Account:
        """Of a machine on which ``ledger`` has looked, whose guest has ended, and said ``ktap``."""
        told = ledger.told
        behind: dict[str, dict[int, str]] = {name: {} for name in machine.smmus}
        for each in machine.config.masters:
            behind.setdefault(each.smmu or "", {}).update(dict.fromkeys(each.stream_ids, each.name))
        said = checksums(ktap)
        disks = [
            _disk(master, fact)
            for name, master in machine.masters.items()
            if isinstance(master, VirtioBlk)
            for fact in said.get(name, [])
        ]
        return cls(
            tuple(SmmuAccount.of(smmu, told[name], behind[name]) for name, smmu in machine.smmus.items()),
            tuple(MasterAccount.of(master) for master in machine.masters.values()),
            tuple(disks),
            tuple(FaultAccount(name, str(fault), struck) for name, fault, struck in machine.lab.account()),
        )

    @property
    def wrong(self) -> tuple[str, ...]:
        """Disks that hold other bytes than their guest has read."""
        return tuple(dict.fromkeys(disk.name for disk in self.disks if not disk.same))

    @property
    def unstruck(self) -> tuple[str, ...]:
        """Faults that were asked for and never struck."""
        return tuple(each.fault for each in self.faults if not each.struck)

    def lines(self) -> list[tuple[str, str]]:
        """For people: (subject, what is to be said)."""
        said = [(smmu.name, text) for smmu in self.smmus for text in smmu.lines()]
        said += [(master.name, master.line()) for master in self.masters]
        said += [(disk.name, disk.line()) for disk in self.disks]
        return said + [(each.name, each.line()) for each in self.faults]

    def json(self) -> dict[str, Any]:
        return {
            "smmus": {smmu.name: smmu.json() for smmu in self.smmus},
            "masters": {master.name: {"counters": dict(master.counters)} for master in self.masters},
            "disks": [
                {"name": d.name, "offset": d.offset, "bytes": d.size, "guest": d.guest, "host": d.host, "same": d.same}
                for d in self.disks
            ],
            "faults": [{"name": f.name, "fault": f.fault, "struck": f.struck} for f in self.faults],
        }


def checksums(ktap: Ktap) -> dict[str, list[dict[str, str]]]:
    """What the guest says its disks hold at the end, by disk: sha256, offset and bytes."""
    found: dict[str, list[dict[str, str]]] = {}
    for fact in ktap.facts("checksum"):
        if "sha256" in fact and all(fact.get(key, "").isdecimal() for key in ("offset", "bytes")):
            found.setdefault(fact.get("", ""), []).append(fact)
    return found


def size_text(size: int) -> str:
    """Bytes for people, however many a guest says."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            whole = size % unit == 0 or size >> 60
            return f"{size // unit} {name}" if whole else f"{size / unit:.1f} {name}"
    return f"{size} bytes" if size else "0"


def _disk(disk: VirtioBlk, fact: Mapping[str, str]) -> DiskAccount:
    offset, size = int(fact["offset"]), int(fact["bytes"])
    data = disk.storage.read(offset, size) if offset + size <= disk.storage.size else None
    return DiskAccount(disk.name, offset, size, fact["sha256"], hashlib.sha256(data).hexdigest() if data else "nothing")


def _kinds(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{count} {name}' for name, count in counts.items())})" if counts else ""
