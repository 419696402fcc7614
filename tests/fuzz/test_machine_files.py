# SPDX-License-Identifier: Apache-2.0
"""One property: whatever a machine file says, it is a machine or it is refused in one sentence.

Law: every key that can be written is tried, for keys come from the declarations, with every kind of value and the
extremes of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from vhost_iommu.config import (
    OPTIONS,
    GuestConfig,
    MasterConfig,
    SmmuConfig,
    load_machine,
    parse_machine,
)
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.launch import hardware_of
from vhost_iommu.guest.mapping import platform_of, wires_of
from vhost_iommu.machine import Machine
from vhost_iommu.models import MODELS

GUEST = {"kind": '"linux"'}
SMMU = {"name": '"smmu0"'}
MASTER = {"name": '"m0"', "smmu": '"smmu0"', "stream_ids": "[1]"}

VALUES = {
    "of each kind": [
        "true",
        "1",
        "1.5",
        '"x"',
        "[]",
        "{}",
        "1979-05-27T07:32:00Z",
        "[1]",
        '["4K"]',
        "[[]]",
        "{IDR0 = 1}",
    ],
    "whole": [
        "0",
        "-1",
        "65",
        "65536",
        "4294967296",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
    ],
    "long": [f"1{'0' * 400}", "9" * 5000, f"0x{'f' * 5000}", f"[{'9' * 400}]"],
    "broken": ["-0.0", "1e400", "nan", "-inf"],
    "text": ['""', '"a b"', '"\\u0000"', '"ünï"', '"/"', '".."'],
    "sizes": ['"0M"', '"-1M"', '"٣M"', '"8388608T"', '"999999999999G"', f'"{"9" * 5000}M"', '"9007199254740992K"'],
    "patterns": ['"("', '"a{99999999999999999999}"', f'"{"(" * 3000}{")" * 3000}"'],
}


def keys(*kinds: type) -> list[str]:
    return list(dict.fromkeys(field.name for kind in kinds for field in dataclasses.fields(kind)))


def table(head: str, entries: dict[str, str]) -> str:
    return "\n".join([head, *(f"{key} = {value}" for key, value in entries.items()), ""])


def document(*, guest: dict[str, str] = GUEST, smmu: dict[str, str] = SMMU, master: dict[str, str] = MASTER) -> str:
    return table("[guest]", guest) + table("[[smmu]]", smmu) + table("[[master]]", {"kind": '"engine"'} | master)


def files(value: str) -> Iterator[str]:
    """A file for each place where ``value`` can stand."""
    for key in ("description", "guest", "smmu", "master"):
        yield f"{key} = {value}\n" + document()
    for key in keys(GuestConfig):
        yield document(guest=GUEST | {key: value})
    for model in MODELS.values():
        for key in keys(SmmuConfig, model.features, model.options):
            yield document(smmu=SMMU | {key: value})
        for key in model.id_registers:
            yield document().replace("[[master]]", table("[smmu.id_registers]", {key: value}) + "[[master]]")
    for kind, options in OPTIONS.items():
        for key in keys(MasterConfig, options):
            yield document(master=MASTER | {"kind": f'"{kind}"', key: value})


def refusal(text: str) -> str:
    """What is said against a file; nothing where it is a machine."""
    try:
        config = parse_machine(text, "x", Path("x.toml"))
        platform = platform_of(config)
        hardware_of(config)
        Machine(config, wires=wires_of(platform)).close()
    except UsageError as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_any_value_of_any_key_is_taken_or_refused_in_a_sentence(
    values: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a disk that is made there goes with it
    for value in values:
        for text in files(value):
            assert "\n" not in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a = 1\na = 2",
        "a = " + "[" * 5000 + "]" * 5000,
        "a = " + "{a = " * 3000 + "1" + "}" * 3000,
        "[" + "a." * 3000 + "a]",
        "\0",
    ],
    ids=["empty", "twice", "lists", "tables", "dotted", "NUL"],
)
def test_what_is_hardly_toml_is_refused_in_a_sentence(text: str) -> None:
    sentence = refusal(text)
    assert sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 300 + ".toml", "x/" * 3000, ""], ids=["long", "file", "deep", "none"]
)
def test_a_machine_whose_name_no_file_can_have_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(UsageError, match=r"is no file|there is no machine"):
        load_machine(name)
