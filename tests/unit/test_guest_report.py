# SPDX-License-Identifier: Apache-2.0
"""What a report says to people and to other programs: the account of the models, JSON, and JUnit's XML."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.smmu_builder import Bench, Ram
from vhost_iommu.config import load_machine
from vhost_iommu.guest.account import Account, DiskAccount, Ledger, checksums, size_text
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.report import Report, to_json, to_junit
from vhost_iommu.guest.stand import Stand
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.machine import Machine
from vhost_iommu.masters.port import Port, Waiting
from vhost_iommu.smmu.v3 import commands, events
from vhost_iommu.smmu.v3.registers import GERROR
from vhost_iommu.watch import Watches

SAID = (
    "KTAP version 1\n1..3\n# checksum disk0 sha256=00 offset=0 bytes=512\nok 1 a\nok 2 b # SKIP no disk\n"
    "# read 5 where 6 was \x1b[1mwritten\x07\nnot ok 3 c\n"
)
REPORT = Report(Verdict.FAILED, "1 of 3 tests: c", Ktap.of(SAID), f"boot\n{SAID}", 1.5, 0.5, Path("/runs/x"))
LOST = Stand(0, 1, 0x200, 0, 0x200, 0x8600_0004, 0x7FFF_0000, 0, ())


@pytest.fixture
def machine() -> Machine:
    return Machine(load_machine("smmuv3-linux"))


def test_the_account_tells_what_each_part_did(machine: Machine) -> None:
    smmu = machine.smmus["smmu0"]
    smmu.counters.executed[commands.CMD_SYNC.fixed["OPCODE"]] += 2
    ledger = Ledger(machine.smmus, machine.watches)
    smmu.watch.reported(events.C_BAD_STE.of(SID=0x100), kept=True)
    smmu.watch.reported(GERROR.of(CMDQ_ERR=1), kept=True)
    account = Account.of(machine, ledger, Ktap())
    lines = account.lines()
    assert ("smmu0", "0 commands (2 CMD_SYNC); 0 refused") in lines
    assert ("smmu0", "1 event (1 C_BAD_STE); the first:") in lines
    assert ("smmu0", "  C_BAD_STE SID=0x100 (from disk0)") in lines
    assert lines[-1][0] == "disk0"
    (event,) = account.json()["smmus"]["smmu0"]["first_events"]
    assert (event["name"], event["fields"]["SID"], event["master"]) == ("C_BAD_STE", 0x100, "disk0")
    assert account.json()["masters"]["disk0"]["counters"]["aborts"] == 0


def test_a_guests_checksum_is_held_against_the_disk(machine: Machine) -> None:
    sha = "076a27c79e5ace2a3d47f9dd2e83e4ff6ea8872b3c2218f66c92b89b55f36560"  # of 512 zero bytes
    said = [f"# checksum disk0 sha256={sha} offset=0 bytes=512", "# checksum disk0 sha256=00 offset=512 bytes=512"]
    account = Account.of(machine, Ledger(machine.smmus, machine.watches), Ktap.of(said))
    assert [disk.same for disk in account.disks] == [True, False]
    assert account.wrong == ("disk0",)


@pytest.mark.parametrize(
    "said",
    [
        "disk0 sha256=00",
        "disk0 sha256=00 offset=-1 bytes=512",
        "disk0 offset=0 bytes=1",
        "disk7 sha256=00 offset=0 bytes=1",
    ],
)
def test_a_checksum_that_is_none_is_not_compared(machine: Machine, said: str) -> None:
    assert Account.of(machine, Ledger(machine.smmus, machine.watches), Ktap.of([f"# checksum {said}"])).disks == ()


@pytest.mark.parametrize("size", [1 << 62, int("9" * 4000)])
def test_a_checksum_beyond_the_disk_is_wrong(machine: Machine, size: int) -> None:
    said = f"# checksum disk0 sha256=00 offset=0 bytes={size}"
    account = Account.of(machine, Ledger(machine.smmus, machine.watches), Ktap.of([said]))
    assert account.wrong == ("disk0",)
    assert "sha256 of " in account.lines()[-1][1]
    assert checksums(Ktap.of([said]))["disk0"][0]["offset"] == "0"


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (512, "512 bytes"), (2048, "2 KiB"), (3 << 19, "1.5 MiB")])
def test_sizes_are_told_in_units(size: int, text: str) -> None:
    assert size_text(size) == text


def test_json_has_reasons_folder_counters_and_where_the_cpus_are() -> None:
    disk = DiskAccount("disk0", 0, 512, "00", "11")
    report = replace(REPORT, kernel="6.12.0", stands=(LOST,), stands_note="no more", account=Account(disks=(disk,)))
    said = json.loads(to_json(report))
    assert (said["verdict"], said["kernel"], said["folder"], said["seconds"]) == ("failed", "6.12.0", "/runs/x", 1.5)
    assert [(test["name"], test["passed"], test["skipped"]) for test in said["tests"]] == [
        ("a", True, None),
        ("b", True, "no disk"),
        ("c", False, None),
    ]
    assert said["tests"][2]["notes"] == ["read 5 where 6 was \x1b[1mwritten\x07"]
    assert (said["cpus"][0]["pc"], said["cpus_note"]) == ("0x200", "no more")
    assert said["disks"] == [{"name": "disk0", "offset": 0, "bytes": 512, "guest": "00", "host": "11", "same": False}]
    assert said["last_lines"][0] == "boot"


def suite_of(report: Report) -> ElementTree.Element:
    (suite,) = ElementTree.fromstring(to_junit([report], "machine"))
    return suite


def test_junit_has_a_case_for_each_test_and_one_for_the_guest() -> None:
    suite = suite_of(REPORT)
    assert [case.get("name") for case in suite] == ["a", "b", "c", "guest"]
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    found: Callable[[str], ElementTree.Element | None] = suite.find
    assert (skipped := found("testcase[@name='b']/skipped")) is not None
    assert skipped.get("message") == "no disk"
    assert (failure := found("testcase[@name='c']/failure")) is not None
    assert str(failure.text).startswith("read 5 where 6 was")
    assert (out := found("testcase[@name='guest']/system-out")) is not None
    assert "not ok 3 c" in str(out.text)


def test_a_failure_that_no_test_tells_of_is_the_guests_in_junit() -> None:
    suite = suite_of(replace(REPORT, ktap=Ktap.of(""), verdict=Verdict.FAILED, why="the guest said: oh no"))
    assert (failure := suite.find("testcase[@name='guest']/failure")) is not None
    assert (failure.get("message"), suite.get("failures")) == ("the guest said: oh no", "1")


def test_junit_says_a_tests_own_last_word_and_not_the_kernels() -> None:
    said = "KTAP version 1\n1..1\n# reading\n# why not\n# [    1.5] Run /init as init process\nnot ok 1 mine"
    suite = suite_of(replace(REPORT, ktap=Ktap.of(said), verdict=Verdict.FAILED))
    assert (failure := suite.find("testcase[@name='mine']/failure")) is not None
    assert failure.get("message") == "why not"
    assert "Run /init" in str(failure.text)


def test_junit_is_well_formed_whatever_the_guest_says() -> None:
    nasty = "".join(map(chr, range(0x120))) + "]]><x>&\ud800\uffff"
    report = replace(REPORT, console=nasty, ktap=Ktap.of(f'KTAP version 1\n1..1\n# {nasty}\nnot ok 1 <"{nasty[:9]}&>'))
    assert len(suite_of(report)) == 2


def test_a_death_is_an_error_that_says_where_the_guest_was() -> None:
    suite = suite_of(replace(REPORT, verdict=Verdict.DIED, why="its time was over", stands=(LOST,)))
    assert (error := suite.find("testcase[@name='guest']/error")) is not None
    assert (error.get("message"), suite.get("errors")) == ("its time was over", "1")
    assert "PC 0x200" in str(error.text)


def test_each_of_many_runs_is_a_suite() -> None:
    root = ElementTree.fromstring(to_junit([REPORT, REPORT], "machine"))
    assert [suite.get("name") for suite in root] == ["machine.1", "machine.2"]


def test_the_accounts_watcher_wants_nothing_that_the_core_would_tell(machine: Machine) -> None:
    before = machine.watches.by_core
    Ledger(machine.smmus, machine.watches)
    assert (before, machine.watches.by_core) == (False, False)


@pytest.mark.parametrize("pure", [False, True])
def test_the_account_has_each_event_that_was_made_or_lost_and_each_stall_that_nobody_answered(*, pure: bool) -> None:
    bench = Bench({"stall_model": "both"}, ram=Ram(size=8 << 20), event_bits=2, pure=pure)
    bench.stream(3, cd={"S": 1})
    port = Port("engine0", bench.ram.memory, bench.smmu, (3,))
    other = Port("engine1", bench.ram.memory, bench.smmu, (4,))
    watches = Watches()
    watches.add(bench.smmu.watch)
    ledger = Ledger({bench.smmu.name: bench.smmu}, watches)

    def same() -> int:
        told, counters = ledger.told[bench.smmu.name], bench.smmu.counters
        assert (dict(told.events), told.first) == (dict(counters.made), counters.first_events)
        assert (told.events.total() - told.lost, told.lost) == (counters.events, counters.events_lost)
        assert len(told.stalls) == len(bench.smmu.stalls)
        return len(told.stalls)

    assert all(isinstance(port.read(0x1000 * at, 4), Waiting) for at in range(3))
    for at in range(6):
        other.read(0x1000 * at, 4)
    assert same() == 3
    assert bench.smmu.counters.events_lost > 0
    bench.smmu.reset()
    assert same() == 0
