# SPDX-License-Identifier: Apache-2.0
"""Caches that are far too small: whatever was evicted meanwhile, an entry may be used until it is invalidated.

And never after the CMD_SYNC that follows. VI_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.examples import TIMEOUT, examples
from tests.smmu_builder import Bench, PageTable, Ram
from vhost_iommu.smmu.v3 import configuration, translator
from vhost_iommu.smmu.v3.commands import (
    CMD_CFGI_CD,
    CMD_CFGI_CD_ALL,
    CMD_CFGI_STE,
    CMD_CFGI_STE_RANGE,
    CMD_TLBI_NH_ALL,
    CMD_TLBI_NH_ASID,
    CMD_TLBI_NH_VA,
    CMD_TLBI_NH_VAA,
    CMD_TLBI_NSNH_ALL,
    CMD_TLBI_S2_IPA,
    CMD_TLBI_S12_VMALL,
    Command,
)
from vhost_iommu.smmu.v3.structures import STE_CONFIG

pytestmark = TIMEOUT

STREAMS, SPACES, PAGES, VERSIONS = 24, 220, 12, 5
#: Translated by stage 2 alone, each with a VMID of its own; those before them are each a quarter of one StreamID,
#: a SubstreamID of it.
VIRTUAL = range(STREAMS - 8, STREAMS)
OUTPUT = 0x8000_0000


@pytest.fixture(params=["reference", "core"])
def pure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    make_small(monkeypatch)
    if request.param == "core":
        request.getfixturevalue("core_is_built")
    return bool(request.param == "reference")


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer cached contexts than streams; in the core that bounds the address spaces it can tell apart as well."""
    monkeypatch.setattr(configuration, "CAPACITY", 3)
    monkeypatch.setattr(translator, "CONTEXTS", 3)


#: Some of which have one place in a hashed table.
SSIDS = (0, 8, 5, 13)


def ids(stream: int) -> tuple[int, int | None]:
    """StreamID and SubstreamID."""
    return (stream, None) if stream in VIRTUAL else (stream // 4, SSIDS[stream % 4])


class SmallWorld:
    """Streams choose one of many address spaces, of one table each, by their CD; some have stage 2 alone.

    A page maps to where its space, its number and its version say. ``spaces`` and ``versions`` are what a stream
    and a page may still be cached as.
    """

    def __init__(self, pure: bool) -> None:
        features = {"stage2": True, "vmid16": True, "small_tables": True, "substream_id_bits": 4}
        self.bench = bench = Bench(features, ram=Ram(size=2 << 20), pure=pure, tlb_entries=8)
        self.tables = [PageTable(bench.ram, input_bits=21) for _ in range(SPACES)]
        self.second = [PageTable(bench.ram, input_bits=32, stage=2, start_level=2) for _ in VIRTUAL]
        self.now: dict[tuple[int, int], int] = {}
        self.versions: dict[tuple[int, int], set[int]] = {}
        for space in range(SPACES + len(VIRTUAL)):
            for page in range(PAGES):
                self._map(space, page, 0)
                self.versions[space, page] = {0}
        self.chosen = {sid: sid for sid in range(STREAMS)}
        self.spaces = {sid: {sid} for sid in range(STREAMS)}
        cds = bench.ram.alloc(64 * 16 * 4, 0x1000)
        self.cds = [cds + 64 * (sid * 16 + (ssid or 0)) for sid, ssid in map(ids, range(VIRTUAL[0]))]
        for sid in range(STREAMS):
            if sid in VIRTUAL:
                table = self.second[sid - VIRTUAL[0]]
                fields = bench.stage2_fields(table, S2VMID=sid, S2T0SZ=32, S2SL0=0)
                bench.ste(sid, Config=STE_CONFIG.S2, **fields)
                self.chosen[sid] = SPACES + sid - VIRTUAL[0]
                self.spaces[sid] = {self.chosen[sid]}
            else:
                bench.ste(sid // 4, Config=STE_CONFIG.S1, S1ContextPtr=self.cds[sid // 4 * 4], S1CDMax=4)
                self._choose(sid, sid)

    def _output(self, space: int, page: int, version: int) -> int:
        return OUTPUT + ((space * PAGES + page) * VERSIONS + version << 12)

    def _map(self, space: int, page: int, version: int) -> None:
        table = self.tables[space] if space < SPACES else self.second[space - SPACES]
        table.map(page << 12, self._output(space, page, version))
        self.now[space, page] = version

    def _choose(self, sid: int, space: int) -> None:
        self.bench.cd(self.cds[sid], self.tables[space], ASID=space)
        self.chosen[sid] = space

    def edit(self, space: int, page: int) -> None:
        self._map(space, page, (self.now[space, page] + 1) % VERSIONS)
        self.versions[space, page].add(self.now[space, page])

    def choose(self, sid: int, space: int) -> None:
        if sid not in VIRTUAL:
            self._choose(sid, space % SPACES)
            self.spaces[sid].add(self.chosen[sid])

    def access(self, stream: int, page: int) -> None:
        sid, ssid = ids(stream)
        pa = self.bench.pa(page << 12, sid, ssid=ssid)
        may = {self._output(space, page, v) for space in self.spaces[stream] for v in self.versions[space, page]}
        assert pa in may, f"page {page} of stream {stream} is at {pa and hex(pa)}, not in {[hex(each) for each in may]}"

    def forget(self, kind: int, sid: int, space: int, page: int, leaf: int) -> None:
        of, ssid = ids(sid)
        vmid = sid if sid in VIRTUAL else VIRTUAL[sid % len(VIRTUAL)]
        second = SPACES + vmid - VIRTUAL[0]
        asid = space % SPACES
        address = page << 12
        everywhere = [(s, p) for s in range(SPACES) for p in range(PAGES)]
        choices: list[tuple[Command, list[tuple[int, int]], list[int]]] = [
            (CMD_TLBI_NH_VA.of(ASID=asid, Address=address), [(asid, page)], []),
            (CMD_TLBI_NH_ASID.of(ASID=asid), [(asid, p) for p in range(PAGES)], []),
            (CMD_CFGI_CD.of(SID=of, SSID=ssid or 0, Leaf=leaf), [], [sid]),
            (CMD_CFGI_STE.of(SID=of, Leaf=leaf), [], [s for s in range(STREAMS) if ids(s)[0] == of]),
            (CMD_CFGI_CD_ALL.of(SID=of), [], [s for s in range(STREAMS) if ids(s)[0] == of]),
            (CMD_TLBI_S2_IPA.of(VMID=vmid, Address=address), [(second, page)], []),
            (CMD_TLBI_NH_VAA.of(Address=address), [(s, page) for s in range(SPACES)], []),
            (CMD_TLBI_S12_VMALL.of(VMID=vmid), [(second, p) for p in range(PAGES)], []),
            (CMD_TLBI_NH_ALL.of(), everywhere, []),
            (CMD_CFGI_STE_RANGE.of(SID=of, Range=1), [], [s for s in range(STREAMS) if s >> 2 == sid >> 2]),
            (CMD_CFGI_STE_RANGE.everything(), [], list(range(STREAMS))),
            (CMD_TLBI_NSNH_ALL.of(), list(self.versions), []),
        ]
        command, pages, streams = choices[kind % len(choices)]
        self.bench.invalidate(command)
        for named in pages:
            self.versions[named] = {self.now[named]}
        for stream in streams:
            self.spaces[stream] = {self.chosen[stream]}

    def step(self, random: Random) -> None:
        # Some streams are used much more than others, so that what they have is cached for long.
        sid = random.randrange(1 + random.randrange(STREAMS))
        space, page = random.randrange(SPACES + len(VIRTUAL)), random.randrange(PAGES)
        match random.randrange(8):
            case 0:
                self.edit(space, page)
            case 1:
                self.choose(sid, space)
            case 2:
                # Rarely what names everything.
                self.forget(
                    random.randrange(12 if random.random() < 0.1 else 6), sid, space, page, random.getrandbits(1)
                )
            case _:
                self.access(sid, page)


@examples(40)
@given(random=st.randoms(use_true_random=False), count=st.integers(1, 300))
def small(pure: bool, random: Random, count: int) -> None:
    world = SmallWorld(pure)
    for _ in range(count):
        world.step(random)


def test_what_is_evicted_makes_no_invalidation_less(pure: bool) -> None:
    small(pure)


def wander(seed: int, count: int, pure: bool) -> SmallWorld:
    random, world = Random(seed), SmallWorld(pure)
    for _ in range(count):
        world.step(random)
    return world


def test_long_histories_evict_much_and_use_nothing_that_was_invalidated(pure: bool) -> None:
    for seed in range(3):
        world = wander(seed, 3000, pure)
        assert world.bench.smmu.tlb.counters.evictions > 100


def rush(pure: bool) -> None:
    """One stream goes through all address spaces while another is in one of which nothing is cached but that."""
    world = SmallWorld(pure)
    for space in (*range(SPACES), *range(SPACES)):
        world.choose(0, space)
        world.bench.invalidate(CMD_CFGI_CD.of(SID=0))
        world.spaces[0] = {space}
        for stream in (0, 4, 0):
            world.access(stream, 1)
        world.bench.invalidate(CMD_TLBI_NH_ALL.of())


def test_an_address_space_in_use_is_not_given_to_another(pure: bool) -> None:
    rush(pure)
