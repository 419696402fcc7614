# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu map``: every form says what the platform says."""

from __future__ import annotations

import json
import re

import pytest

from vhost_iommu import cli
from vhost_iommu.config import load_machine
from vhost_iommu.guest import addresses
from vhost_iommu.guest.mapping import platform_of

MACHINE = "two-smmus"


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["map", *argv]) == 0
    return capsys.readouterr().out


def test_the_map_has_every_address_and_number_of_the_platform(capsys: pytest.CaptureFixture[str]) -> None:
    platform = platform_of(load_machine(MACHINE))
    found = json.loads(said(capsys, MACHINE, "--json"))
    assert [(each["address"], each["value"]) for each in found["writes"]] == platform.writes()
    for said_of, function in zip(found["functions"], platform.functions, strict=True):
        assert said_of["config"] == function.config
        assert function.bar2 is not None
        assert said_of["bar2"] == {"base": function.bar2.base, "size": function.bar2.size}
    for smmu, (_, registers, function) in zip(found["smmus"], platform.smmus, strict=True):
        assert smmu["registers"]["base"] == found["functions"][0 if smmu["name"] == "smmu0" else 1]["bar0"]["base"]
        assert smmu["registers"]["base"] == registers.base
        assert smmu["interrupts"] == function.intids
    for master, placed in zip(found["masters"], platform.masters, strict=True):
        assert master["registers"] == {"base": placed.window.base, "size": placed.window.size}
        assert (master["interrupt"], tuple(master["stream_ids"])) == (placed.intid, placed.master.stream_ids)
    taken = range(found["msi"]["first_intid"], found["msi"]["first_intid"] + found["msi"]["intids"])
    assert taken == platform.msi_intids


def test_a_line_of_the_text_is_one_number_with_its_owner(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in said(capsys, MACHINE).splitlines()]
    assert ["smmu1", "gerror", "142", "INTID,", "edge"] in lines
    assert ["disk1", "stream", "0x20", "StreamID", "at", "smmu1"] in lines
    assert ["write", "0x40100f8010", "0x10000000", "32", "bits,", "smmu0", "BAR0"] in lines
    assert ["smmu0", "bar2", "0x10020000", "size", "0x10000"] in lines


def test_the_header_has_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    found = addresses.address_map(load_machine(MACHINE))
    text = said(capsys, MACHINE, "--c-header")
    defined = dict(re.findall(r"#define (\w+) +(\S.*)", text))
    assert int(defined["VI_SMMU1_CONFIG"], 0) == found["functions"][1]["config"]
    assert int(defined["VI_SMMU1_CMDQ_SYNC_INTID"]) == 141
    assert int(defined["VI_DISK1_BASE"], 0) == found["masters"][1]["registers"]["base"]
    assert defined["VI_DISK1_STREAM_IDS"] == "{ 0x20 }"
    assert int(defined["VI_WRITE_COUNT"]) == len(found["writes"]) == 6
    stores = re.findall(r"\{ (0x\w+), (0x\w+) \}", text)
    assert [(int(address, 0), int(value, 0)) for address, value in stores] == [
        (write["address"], write["value"]) for write in found["writes"]
    ]
