# SPDX-License-Identifier: Apache-2.0
"""``vhost-iommu run``, ``dtb`` and ``demo`` with a real QEMU: exit codes, JSON, traces and the last line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fdt
import pytest

from tests.unit import chrome_trace
from vhost_iommu import cli, demo
from vhost_iommu.guest import account
from vhost_iommu.guest.assets import Assets

pytestmark = pytest.mark.usefixtures("assets")


def test_a_guest_that_passes_is_0_with_a_line_for_each_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "smmuv3-bare"]) == 0
    *told, last = capsys.readouterr().out.splitlines()
    results = [line for line in told if line.startswith("pass  ")]
    assert "pass  dma_before_revoke" in results
    assert any(re.fullmatch(r"smmu0 +\d+ commands \(\d+ CMD_SYNC, .*\); 0 refused", line) for line in told)
    assert any(re.fullmatch(r"smmu0 +F_TRANSLATION SID=1 .* \(from engine0\)", line) for line in told)
    assert (found := re.fullmatch(r"passed: (\d+) of \1 tests ran, in [\d.]+ s", last))
    assert len(results) == int(found[1])


def test_a_guest_whose_test_fails_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    # The program then expects that a page which it never unmapped faults.
    assert cli.main(["run", "smmuv3-bare", "--append", "revoke=0"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  dma_after_unmap_faults" in out
    assert re.search(r"^failed: .*dma_after_unmap_faults, in [\d.]+ s$", out, re.MULTILINE)


def test_a_guest_whose_time_is_over_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "smmuv3-bare", "--timeout", "0.001", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "died"


def test_a_trace_shows_the_guest_each_smmu_and_each_master(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    assert cli.main(["run", "smmuv3-bare", "--json", "--trace", str(path)]) == 0
    events = json.loads(path.read_text())
    chrome_trace.check(events)
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    seen = {(processes[event["pid"]], event["ph"], event["cat"]) for event in events if event["ph"] in "iXC"}
    assert seen >= {
        ("guest", "i", "console"),
        ("guest", "X", "case"),
        ("engine0", "X", "dma"),
        ("smmu0", "i", "mmio"),
        ("smmu0", "X", "command"),
        ("smmu0", "X", "translation"),
        ("smmu0", "X", "fill"),
        ("smmu0", "i", "fault"),
        ("smmu0", "C", "counter"),
    }


def test_a_trace_of_linux_shows_requests_that_flow_to_their_walks_beside_its_tests(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    assert cli.main(["run", "smmuv3-linux", "--json", "--cases", "disk0_writes_directly", "--trace", str(path)]) == 0
    events = json.loads(path.read_text())
    chrome_trace.check(events)
    shown = {(event["cat"], event["name"]) for event in events if event["ph"] == "X"}
    assert ("case", "disk0_writes_directly") in shown
    assert any(kind == "request" and re.match(r"write \d+ KiB sector \d+", name) for kind, name in shown)
    assert ("command", "2 commands: CMD_TLBI_NH_VA, CMD_SYNC") in shown
    assert {event["ph"] for event in events if event.get("cat") == "flow"} == set("stf")
    assert any("Linux version" in event["name"] for event in events if event.get("cat") == "console")
    entries = [event["args"]["entries"] for event in events if event["name"] == "TLB"]
    assert max(entries) > 0


def test_a_disk_that_is_full_ends_the_trace_and_not_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "smmuv3-bare", "--json", "--trace", "/dev/full"]) == 0
    assert "/dev/full is not the whole trace: No space left on device\n" in capsys.readouterr().err


def test_kept_artefacts_say_what_was_run(tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    assert cli.main(["run", "smmuv3-bare", "--json", "--keep", str(keep), "--", "-name", "my-guest"]) == 0
    assert (keep / "qemu.cmd").read_text().endswith("-name my-guest\n")
    assert "dma_before_revoke" in (keep / "console.log").read_text()


def test_the_device_tree_names_every_part(tmp_path: Path) -> None:
    path = tmp_path / "two.dtb"
    assert cli.main(["dtb", "two-smmus", "-o", str(path)]) == 0
    tree = fdt.parse_dtb(path.read_bytes())
    labels = {prop.value for _, _, props in tree.walk() for prop in props if prop.name == "label"}
    assert {"smmu0", "smmu1", "disk0", "disk1"} <= labels


def test_the_demo_ends_with_its_account_and_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "MACHINES", ("smmuv3-bare",))
    assert cli.main(["demo"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"smmu0 +\d+ translations: \d+ TLB hits, \d+ walks", out)
    account, closing = out.split("\n\n")[-1].split("\n", 1)
    passed, failed = map(int, re.findall(r"\d+", account))
    assert account == f"{passed} passed, {failed} failed"
    assert (passed > 5, failed) == (True, 0)
    assert "Next: 'vhost-iommu run " in closing


def test_a_disk_that_differs_from_what_its_guest_says_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"disk0": [{"offset": "0", "bytes": "512", "sha256": "0" * 64}]}
    monkeypatch.setattr(demo, "MACHINES", ("smmuv3-linux",))
    monkeypatch.setattr(account, "checksums", lambda ktap: facts)
    assert cli.main(["demo"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert re.search(r"(?m)^\d+ passed, 1 failed$", out)
    assert "Next:" not in out


def test_the_doctor_misses_nothing_once_all_is_fetched(assets: Assets) -> None:
    assert cli.main(["doctor", "--json"]) == 0
