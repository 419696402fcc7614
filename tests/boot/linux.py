# SPDX-License-Identifier: Apache-2.0
"""A Linux guest and what both sides said of it: its account and the host's, compared access by access.

Law: the guest says what its CPU saw (facts of guest/kmod); the trace says what the driver and the SMMU did, and the
bytes are computed here anew.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from tests.boot.guests import Run, Way, disks_hold_what_the_guest_says
from vhost_iommu.config import load_machine, parse_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.ktap import Ktap, Result
from vhost_iommu.guest.launch import Wishes
from vhost_iommu.masters.engine import BURST, random_bytes
from vhost_iommu.trace import Record


@dataclass(frozen=True)
class Fact:
    """One line of the guest: what happened, its subject, and numbers."""

    word: str
    values: dict[str, int]

    def __getitem__(self, key: str) -> int:
        return self.values[key]


class Boot(Run):
    """A run that ended, and what both sides said of it."""

    @cached_property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Of each case with accesses, the records from its first access to the next case's first.

        AssertionError when an access that the guest tells of is not in the trace, in the guest's order.
        """
        return dict(self._spans())

    def result(self, case: str) -> Result:
        assert self.report.passed(case), f"{case}: {self.report.why}; see {self.report.folder}"
        return next(result for result in self.report.results if result.name == case)

    def facts(self, case: str, *words: str) -> list[Fact]:
        return facts_of(self.result(case), *words)

    def all_facts(self, *words: str) -> list[Fact]:
        return [fact for result in self.report.results for fact in facts_of(result, *words)]

    def _spans(self) -> Iterator[tuple[str, tuple[int, int]]]:
        at, begun = 0, list[tuple[str, int]]()
        for result in self.report.results:
            first = None
            for fact in facts_of(result, "wrote", "read", "aborted"):
                at = self._access(fact, at)
                first = at if first is None else first
            if first is not None:
                begun.append((result.name, first))
        ends = [first for _, first in begun[1:]] + [len(self.trace.records)]
        for (name, first), end in zip(begun, ends, strict=True):
            yield name, (first, end)

    def _access(self, fact: Fact, start: int) -> int:
        """Where, from ``start`` on, the trace has the access that the guest tells of."""
        aborted = fact.word == "aborted"
        for index in range(start, len(self.trace.records)):
            record = self.trace.records[index]
            args = record.args
            if (
                record.kind == "translation"
                and (args.get("ssid", -1), args["iova"]) == (fact["pasid"], fact["iova"])
                and record.name == ("write" if fact.word == "wrote" else "read")
                and (args["outcome"] == "abort" if aborted else args.get("pa") == fact["pa"])
            ):
                return index
        raise AssertionError(f"the host saw nothing of {fact}")

    def commands(self, case: str = "", track: str = "smmu0", *, end: int | None = None) -> list[Record]:
        """What the driver commanded during a case, or altogether; up to the record ``end``, if given."""
        first, last = self.spans[case] if case else (0, len(self.trace.records))
        end = last if end is None else end
        return [each for each in self.trace.records[first:end] if (each.track, each.kind) == (track, "command")]

    def faults(self, case: str = "") -> list[Record]:
        """What the SMMUs recorded."""
        first, end = self.spans[case] if case else (0, len(self.trace.records))
        return [each for each in self.trace.records[first:end] if each.track in self.smmus and each.kind == "fault"]


def facts_of(result: Result, *words: str) -> list[Fact]:
    """The facts of a case, in the order in which the guest told them."""
    found = []
    for note in result.notes:
        word = note.partition(" ")[0]
        if word in words:
            (fact,) = Ktap(notes=[note]).facts(word)
            found.append(Fact(word, {key: int(value, 0) for key, value in fact.items() if key}))
    return found


class Boots:
    """Each machine is booted once on each way, when a test asks for it first. ``machines``: by name, as TOML."""

    def __init__(self, assets: Assets, machines: Mapping[str, str]) -> None:
        self._assets = assets
        self._machines = machines
        self._done: dict[tuple[str, Way], Boot] = {}

    def of(self, name: str, way: Way = Way.USERS) -> Boot:
        """``name``: one of the machines or a machine file's, and what is appended to the kernel's command line."""
        if (name, way) not in self._done:
            machine, _, append = name.partition(" ")
            config = parse_machine(self._machines[machine]) if machine in self._machines else load_machine(machine)
            self._done[name, way] = Boot(self._assets, config, Wishes(append=append), way)
        return self._done[name, way]

    def __getitem__(self, name: str) -> Boot:
        """Traced."""
        return self.of(name, Way.TRACED)


@lru_cache
def pattern(tag: int, size: int) -> bytes:
    """What the guest's CPU fills memory with."""
    return bytes((i * 0x9E3779B1 + tag * 0x85EBCA6B >> 24) & 0xFF for i in range(size))


def filled(seed: int, iova: int, size: int) -> bytes:
    """What the engine fills memory with."""
    return b"".join(random_bytes(seed, at, BURST) for at in range(iova, iova + size, BURST))


def sum64(data: bytes) -> int:
    total: int = sum(struct.unpack(f"<{len(data) // 8}Q", data))
    return total & (1 << 64) - 1


#: What a guest tells of that is the same in each run, but for where in its memory it happens.
TOLD = ("wrote", "read", "copied", "gathered", "aborted", "unmapped")


def account(boot: Boot) -> list[tuple[str, str, dict[str, int]]]:
    """What the guest tells: by case and fact."""
    return [
        (result.name, fact.word, {key: value for key, value in fact.values.items() if key not in ("iova", "pa", "to")})
        for result in boot.report.results
        for fact in facts_of(result, *TOLD)
    ]


def bytes_are_the_same_on_both_sides(boot: Boot) -> None:
    """What the engines wrote, read and copied, from what the guest asked for and what its CPU saw."""
    written, read, copied = (boot.all_facts(*words) for words in (["wrote"], ["read"], ["copied", "gathered"]))
    assert written
    assert read
    assert copied
    for fact in written:
        assert zlib.crc32(filled(fact["seed"], fact["iova"], fact["bytes"])) == fact["crc32"]
    for fact in read:
        assert sum64(pattern(fact["tag"], fact["bytes"])) == fact["sum"]
    for fact in copied:
        assert zlib.crc32(pattern(fact["tag"], fact["bytes"])) == fact["crc32"]
    if boot.disks:
        disks_hold_what_the_guest_says(boot)


def both_tell_the_same(boot: Boot) -> None:
    """Host and guest, of each access and each command."""
    bytes_are_the_same_on_both_sides(boot)
    assert boot.spans, "and the host saw each access, in this order"
    for track, smmu in boot.smmus.items():
        commands = boot.commands(track=track)
        assert smmu.counters.commands == len(commands)
        assert smmu.counters.syncs == sum(each.name == "CMD_SYNC" for each in commands)
        assert smmu.counters.events == sum(each.track == track for each in boot.faults())
        assert (smmu.counters.command_errors, smmu.counters.events_lost, smmu.counters.stalls) == (0, 0, 0)
