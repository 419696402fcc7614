# SPDX-License-Identifier: Apache-2.0
"""A machine that runs is looked into while its guest works; one that failed is explained by its dump, without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_kernel
from vhost_iommu import boot, cli
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.finding import find
from vhost_iommu.smmu.v3.structures import STE
from vhost_iommu.smmu.walk import LongTable

pytestmark = pytest.mark.usefixtures("assets")

#: Seconds for a guest to get as far as a test wants it.
LIMIT = 240


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other run's machine is found."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("t")))
    monkeypatch.setattr("tempfile.tempdir", None)


def said(capsys: pytest.CaptureFixture[str], *argv: str | Path, code: int = 0) -> str:
    assert cli.main([str(each) for each in argv]) == code
    return capsys.readouterr().out


def failed_run(capsys: pytest.CaptureFixture[str], folder: Path, *argv: str) -> Path:
    """The dump of a run that fails."""
    cli.main(["run", *argv, "--json", "--keep", str(folder)])
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["verdict"] == "failed", verdict
    with pytest.raises(UsageError, match="no machine runs"):
        find(None)
    return folder / "dump"


def test_a_dump_of_a_broken_stream_explains_the_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = failed_run(capsys, tmp_path, "smmuv3-bare", "--fault", "wrong-stream sid=5")
    page = said(capsys, "show", dump)
    assert "event C_BAD_STE SID=5" in page
    assert "the fault 'wrong-stream sid=5' struck 1 time" in page
    why = said(capsys, "explain", dump, "5", "0x10000000", code=1)
    assert "ends in abort: STE.V is 0; C_BAD_STE SID=5" in why
    assert "no driver has attached yet" in why
    # Streams that are not broken, if the guest has any when its CPUs are stopped, go where their tables say.
    for stream in json.loads(said(capsys, "ctl", dump, "query-streams", "--json"))["streams"]:
        sid = f"{stream['sid']:#x}"
        if json.loads(said(capsys, "ctl", dump, "query-spaces", f"stream={sid}", "--json")):
            for run in json.loads(said(capsys, "ctl", dump, "query-tables", f"stream={sid}", "--json"))["runs"]:
                found = json.loads(said(capsys, "explain", dump, sid, hex(run["start"]), "--json"))
                assert found["end"]["pa"] == run["output"]
                assert found["missing"] == []


def test_a_run_that_fails_leaves_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = failed_run(capsys, tmp_path, "smmuv3-bare", "--fault", "wrong-stream sid=5")
    page = dump.with_name("report.html").read_text()
    for text in ("dma_before_revoke failed", "Why C_BAD_STE", "STE.V is 0", "CMD_CFGI_STE", "struck 1 time", "<svg"):
        assert text in page, text


def test_a_dump_of_an_address_that_is_not_mapped_names_the_descriptor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A bare guest runs on until it is stopped for its dump, and may configure the stream anew meanwhile.
    for turn in range(5):
        dump = failed_run(capsys, tmp_path / str(turn), "smmuv3-bare", "--fault", "wrong-address")
        shown = json.loads(said(capsys, "show", dump, "--json"))
        event = next(each for each in shown["instances"][0]["events"] if each["kind"] == "F_TRANSLATION")
        address = hex(event["fields"]["InputAddr"])
        why = said(capsys, "explain", dump, hex(event["fields"].get("SID", 0)), address, code=1)
        if "no valid descriptor (stage 1 level" in why:
            break
    else:
        pytest.fail(why)
    assert "F_TRANSLATION" in why


@contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from vhost_iommu.cli import main; sys.exit(main())", "run", *argv],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)


def until_translated(process: subprocess.Popen[str]) -> None:
    """A stream translates, and the guest still runs."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            machine = find(None)
        except UsageError:
            time.sleep(0.05)
            continue
        streams: list[Any] = machine.execute("query-streams")["streams"]
        machine.close()
        if any(each["does"].startswith("stage 1") for each in streams):
            return
        time.sleep(0.05)
    pytest.fail(f"no stream translated; the run ended with {process.poll()}")


def test_a_guest_that_works_is_looked_into_and_ended(assets: Assets, capsys: pytest.CaptureFixture[str]) -> None:
    need_kernel(assets, "6.12")
    with running("smmuv3-linux", "--json") as process:
        until_translated(process)
        page = said(capsys, "show")
        assert page.startswith("smmuv3-linux\n")
        assert "smmu0: cmdq is on" in page
        dump = Path(os.environ["TMPDIR"]) / "dump"
        said(capsys, "ctl", "smmuv3-linux", "dump", f"file={dump}")
        assert "cmdq is on" in said(capsys, "show", dump)
        said(capsys, "ctl", "smmuv3-linux", "quit")
        out, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 130
        assert json.loads(out)["verdict"] == "interrupted"


def test_a_live_guest_is_asked_of_and_leaves_a_dump_where_a_test_fails(
    assets: Assets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_kernel(assets, "6.12")

    def fails() -> None:
        with boot("smmuv3-linux", kernel="6.12", keep=tmp_path) as guest:
            (stream,) = [each for each in guest.inside.query_streams().streams if each.does == "stage 1"]
            assert isinstance(stream.structure, STE)
            assert stream.sid == 0x100
            context = guest.inside.query_context(0x100)
            (space,) = guest.inside.query_spaces(0x100)
            assert context is not None
            assert context.stage1 is not None
            half = context.stage1.halves[0]
            assert half is not None
            assert isinstance(half.table, LongTable)
            assert half.table.base == space.base
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert "stream 0x100 (disk0) stage 1" in said(capsys, "show", tmp_path)
