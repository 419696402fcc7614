# SPDX-License-Identifier: Apache-2.0
"""Dumps and what is made of them: pictures of address spaces that are whole, and hostile files that are refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.smmu_builder import RAM_BASE, Bench
from vhost_iommu.bench import inspection_of
from vhost_iommu.errors import UsageError
from vhost_iommu.lab import dump, spaces
from vhost_iommu.lab.control import QUERIES, Queries
from vhost_iommu.lab.plain import plain
from vhost_iommu.lab.subject import FaultView, MasterView
from vhost_iommu.lab.text import Ask, explanation_lines, page, page_lines
from vhost_iommu.memory import MemoryLike
from vhost_iommu.models import MODELS
from vhost_iommu.smmu.inspection import Inspection, Reader, State

PA = RAM_BASE + 0x20_0000
HOSTILE = "<script>\x01&'\""


class Live:
    def __init__(self, memory: MemoryLike) -> None:
        self.read = memory.read

    def lacks(self, pa: int) -> bool:
        return False


class Built:
    """A bench of the builder, as a Subject."""

    name = HOSTILE
    taken = ""
    left_out: tuple[str, ...] = ()

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def instances(self) -> tuple[str, ...]:
        return ("smmu0",)

    def state(self, instance: str, *, caches: bool) -> State:
        return MODELS["smmuv3"].state(self.bench.smmu, caches=caches)

    def reader(self, instance: str) -> Reader:
        return Live(self.bench.ram.memory)

    def windows(self, instance: str) -> tuple[tuple[int, int], ...]:
        return ((RAM_BASE, len(self.bench.ram.bytes)),)

    def inspection(self, state: State, reader: Reader) -> Inspection:
        return inspection_of(state, reader)

    def masters(self) -> tuple[MasterView, ...]:
        return (MasterView(HOSTILE, "engine", "smmu0", (0,), {"transactions": 1}),)

    def faults(self) -> tuple[FaultView, ...]:
        return ()


@pytest.fixture
def bench() -> Bench:
    made = Bench({"stage2": True})
    first, second = made.nested(0)
    for page_number in range(100):
        first.map(0x10_0000 + 0x3000 * page_number, 0x5000 + 0x1000 * (page_number * 7 % 16))
    for page_number in range(16):
        second.map(0x5000 + 0x1000 * page_number, PA + 0x2000 * page_number, S2AP=page_number % 4)
    table = made.stream(1)
    table.map(0x40_0000, PA, AF=0)
    table.map(0x60_0000, PA, AP=3)
    made.translate(0x10_0000)
    made.translate(0x123, sid=1)
    return made


@pytest.fixture
def kept(bench: Bench, tmp_path: Path) -> Path:
    dump.write(tmp_path / "dump", dump.take(Built(bench), "now"))
    return tmp_path / "dump"


def asked(subject: Any) -> Ask:
    queries = Queries(subject)

    def ask(name: str, **arguments: Any) -> Any:
        given = {key: value for key, value in arguments.items() if value is not None}
        return json.loads(json.dumps(plain(queries.execute(name, given))))

    return ask


def offline(path: Path) -> Ask:
    return asked(dump.Offline(dump.read(path), inspection_of))


def test_a_dump_answers_as_the_machine_did(bench: Bench, kept: Path) -> None:
    live, later = asked(Built(bench)), offline(kept)
    assert kept.stat().st_mode & 0o777 == 0o600
    questions: list[tuple[str, dict[str, Any]]] = [
        ("query-instances", {}),
        ("query-registers", {}),
        ("query-streams", {}),
        ("query-substreams", {"stream": 0}),
        ("query-tables", {"stream": 0, "limit": 1000}),
        ("query-tables", {"stream": 0, "stage": 2}),
        ("query-tlb", {}),
        ("query-caches", {}),
        ("query-events", {}),
        ("query-queue", {"queue": "eventq"}),
        *(("explain", {"stream": 0, "address": address}) for address in (0x10_0000, 0x10_3000, 0x77_0000)),
        ("explain", {"stream": 1, "address": 0x40_0000}),
        ("explain", {"stream": 7, "address": 0}),
    ]
    for name, arguments in questions:
        assert later(name, **arguments) == live(name, **arguments), name
    bench.ram.bytes[:] = bytes(len(bench.ram.bytes))
    assert later("explain", stream=0, address=0x10_3000)["end"]["outcome"] == "ok"
    assert live("explain", stream=0, address=0x10_3000)["end"]["outcome"] == "abort"


def test_a_dump_is_asked_and_nothing_is_done_to_it(kept: Path) -> None:
    ask = offline(kept)
    with pytest.raises(UsageError, match="quit is for a machine that runs"):
        ask("quit")
    assert {each["name"] for each in ask("query-commands")} == set(QUERIES)


def test_what_a_dump_does_not_have_is_told(bench: Bench, kept: Path) -> None:
    held = json.loads(gzip.decompress(kept.read_bytes()))
    held["instances"][0]["pages"] = {}
    kept.write_bytes(gzip.compress(json.dumps(held).encode()))
    said = offline(kept)("explain", stream=0, address=0x10_0000)
    assert said["missing"] == [bench.strtab & ~0xFFF]
    assert any("the dump does not have" in line for line in explanation_lines(said))


class Gone:
    """Where memory was."""

    def read(self, pa: int, size: int) -> bytes | None:
        return None

    def lacks(self, pa: int) -> bool:
        return False


class Ending(Built):
    """Its guest takes its memory along, and where that is can be asked ``often`` before."""

    def __init__(self, bench: Bench, often: int) -> None:
        super().__init__(bench)
        self.often = often

    def windows(self, instance: str) -> tuple[tuple[int, int], ...]:
        self.often -= 1
        return super().windows(instance) if self.often >= 0 else ()

    def reader(self, instance: str) -> Reader:
        return Gone()


@pytest.mark.parametrize("often", [0, 1])
def test_a_dump_of_a_guest_that_has_ended_or_ends_meanwhile_does_not_blame_its_tables(
    bench: Bench, tmp_path: Path, often: int
) -> None:
    dump.write(tmp_path / "dump", dump.take(Ending(bench, often), "now"))
    ask = offline(tmp_path / "dump")
    said = ask("explain", stream=0, address=0x10_0000)
    assert said["missing"] == [bench.strtab & ~0xFFF]
    assert any("which had gone" in line for line in page_lines(page(ask)))


def test_a_page_and_pictures_show_every_run_and_are_well_formed(kept: Path) -> None:
    ask = offline(kept)
    found = list(spaces.collect(ask))
    assert [(each.stream, each.about["stage"]) for each in found] == [(0, 1), (0, 2), (1, 1)]
    told = list(spaces.text(found))
    assert len(told) == sum(len(each.runs) for each in found) + len(found)
    picture = ElementTree.fromstring(spaces.svg(found, HOSTILE))
    drawn = picture.findall(".//{http://www.w3.org/2000/svg}title")
    assert len(drawn) == sum(min(len(each.runs), 64) for each in found)
    html = spaces.html(found, HOSTILE)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert {spaces.kind_of(run) for each in found for run in each.runs} == {"rw", "ro", "wo", "none", "broken"}
    assert any("event F_TRANSLATION" in line for line in page_lines(page(ask)))


def test_bands_end_within_what_they_lead_to() -> None:
    runs = [{"start": 0, "size": 4096, "output": 0x1000, "access": "rwx", "memory": "", "levels": [3]}]
    about = {"ssid": None, "stage": 2, "half": 0, "tags": "", "size": 1 << 39, "base": 0}
    picture = spaces.svg([spaces.Space("s", 1, "", about, tuple(runs), False)], "t")
    assert picture.count('class="band') == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no dump"),
        (b"x", "cannot be read"),
        (gzip.compress(b"[]"), "is no 'vhost-iommu dump 1'"),
        (gzip.compress(b"{"), "is no dump"),
        (gzip.compress(b'{"format": "vhost-iommu dump 9"}'), "'vhost-iommu dump 9'"),
        (gzip.compress(b'{"format": "vhost-iommu dump 1"}'), "Dump has no machine"),
        (gzip.compress(b"[" * 100_000), "is no dump"),
        (gzip.compress(b"{}")[:-4], "is no dump"),
    ],
    ids=["empty", "not packed", "a list", "not JSON", "of another format", "without a machine", "deep", "cut short"],
)
def test_a_file_that_is_no_dump_is_refused_in_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "d").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        offline(tmp_path / "d")


def test_a_dump_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "MOST_READ", 1 << 20)
    (tmp_path / "d").write_bytes(gzip.compress(bytes(2 << 20)))
    with pytest.raises(UsageError, match="more than 1 MiB"):
        offline(tmp_path / "d")


def changed(random: Random, value: Any) -> Any:
    """``value`` with something in it that is otherwise."""
    if isinstance(value, dict) and value:
        key = random.choice(list(value))
        return {**value, key: changed(random, value[key])}
    if isinstance(value, list) and value:
        at = random.randrange(len(value))
        return [*value[:at], changed(random, value[at]), *value[at + 1 :]]
    others: list[Callable[[], Any]] = [
        lambda: random.getrandbits(64), lambda: -1, lambda: 1 << 70, lambda: "x", lambda: None, list, dict,
        lambda: True, lambda: 0, lambda: 63,
    ]  # fmt: skip
    return random.choice(others)()


def test_a_dump_that_was_tampered_with_is_answered_from_or_refused(kept: Path) -> None:
    held = json.loads(gzip.decompress(kept.read_bytes()))
    random, answered = Random(3), 0
    for _ in range(400):
        kept.write_bytes(gzip.compress(json.dumps(changed(random, held)).encode(), 1))
        try:
            ask = offline(kept)
            list(page_lines(page(ask)))
            spaces.html(list(spaces.collect(ask)), "")
            answered += 1
        except UsageError:
            pass
    assert answered > 20


class Counting:
    """Memory that is otherwise at each read, and begins and ends within a page."""

    def __init__(self) -> None:
        self.count = 0

    def read(self, pa: int, size: int) -> bytes | None:
        self.count += 1
        return bytes([self.count]) * size if pa >= 0x1800 else None

    def lacks(self, pa: int) -> bool:
        return False


def test_a_page_is_read_once_for_a_dump_and_answers_are_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    collecting = dump.Collecting(Counting())
    first = collecting.read(0x2000, 8)
    assert first is not None
    assert collecting.read(0x2FF8, 8) == first
    assert collecting.pages == {0x2000: first[:1] * 4096}
    assert collecting.read(0x1800, 8) is not None, "where memory begins within a page, it is read and not kept"
    assert list(collecting.pages) == [0x2000]
    monkeypatch.setattr(dump, "MOST_PAGES", 1)
    assert collecting.read(0x3000, 8) is not None
    assert (list(collecting.pages), collecting.full) == ([0x2000], True)
