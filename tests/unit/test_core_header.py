# SPDX-License-Identifier: Apache-2.0
"""declared.h is what the declarations make, and its accessors read what the layouts read."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from vhost_iommu import header
from vhost_iommu.layout import Layout

#: One accessor: LAYOUT_FIELD, its argument, and the C expression that it returns.
ACCESSOR = re.compile(r"static inline uint64_t (\w+)\((?:const )?uint64_t \*?(\w+)\) \{ return (.*); \}")
WORD = (1 << 64) - 1


def accessors() -> dict[str, tuple[str, str]]:
    return {name: (argument, value) for name, argument, value in ACCESSOR.findall(header.text())}


def c_value(argument: str, expression: str, words: list[int]) -> int:
    """What C makes of it: these operators bind alike in Python, and uint64_t drops what is beyond 64 bits."""
    python = re.sub(r"UINT64_C\((\w+)\)", r"\1", expression)
    assert re.fullmatch(rf"(?:{argument}(?:\[\d\])?|0x[0-9a-f]+|\d+|[()&|<>\s])+", python), python
    value = eval(python, {"__builtins__": {}}, {argument: words if argument == "words" else words[0]})
    assert isinstance(value, int)
    return value & WORD


def random_words(layout: type[Layout], random: Random) -> list[int]:
    return [random.getrandbits(min(layout.size * 8, 64)) for _ in range(-(-layout.size // 8))]


def test_the_committed_header_is_current() -> None:
    assert header.HEADER.read_text(encoding="utf-8") == header.text(), "run python -m vhost_iommu.header"


def test_every_field_has_one_accessor() -> None:
    names = [f"{layout.__name__}_{field.name}" for layout in header.LAYOUTS for field in layout.fields]
    assert sorted(accessors()) == sorted(names)


@pytest.mark.parametrize("layout", header.LAYOUTS, ids=lambda layout: layout.__name__)
def test_an_accessor_reads_what_the_layout_reads(layout: type[Layout]) -> None:
    random = Random(layout.__name__)
    values = accessors()
    for _ in range(20):
        words = random_words(layout, random)
        raw = sum(word << 64 * at for at, word in enumerate(words))
        for field in layout.fields:
            if field.width > 64:
                continue
            argument, expression = values[f"{layout.__name__}_{field.name}"]
            assert c_value(argument, expression, words) == int(field.decode(raw)), field.name


def test_a_stale_header_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(header, "HEADER", tmp_path / "declared.h")
    assert header.main(["--check"]) == 1
    assert header.main([]) == 0
    assert header.main(["--check"]) == 0
    (tmp_path / "declared.h").write_text(header.text() + "\n", encoding="utf-8")
    assert header.main(["--check"]) == 1
    assert "is stale; run" in capsys.readouterr().err
