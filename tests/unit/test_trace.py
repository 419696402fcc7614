# SPDX-License-Identifier: Apache-2.0
"""The trace: its two formats, its limit, and what is left when the process dies."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vhost_iommu.cli.common import tracing
from vhost_iommu.trace import Trace, load_chrome
from vhost_iommu.watch import Kind, Noted, Served, Value, Watch


def emit(
    trace: Trace, track: str, kind: str, name: str, /, *, at: float = 0, took: float | None = None, **fields: int | str
) -> None:
    """Have it told of something ``at`` seconds of the clock, that ``took`` so many."""
    now = round(at * 1e9)
    if took is None:
        trace.tell(Noted(0, now, track, kind, name, fields))
    else:
        trace.tell(Served(0, now, track, name, "OK", round(took * 1e9), fields))


def beginning(seconds: float) -> Callable[[], int]:
    """A clock that stands."""
    return lambda: round(seconds * 1e9)


def test_a_text_line_names_time_track_kind_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    with Trace.file(path, clock=beginning(100)) as trace:
        emit(trace, "smmu0", "command", "CMD_TLBI_NH_ASID", VMID=0, ASID=1, at=112.345678)
    assert path.read_text() == "   12.345678 smmu0 command CMD_TLBI_NH_ASID VMID=0x0 ASID=0x1\n"


def test_text_stays_one_line_and_one_word_per_field_whatever_is_traced(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    with Trace.file(path) as trace:
        emit(trace, "smmu0", "fault", "F_TRANSLATION", why="a b\nc", plain="word", empty="")
    (line,) = path.read_text().splitlines()
    assert line.endswith(r'F_TRANSLATION why="a b\nc" plain=word empty=""')


def test_a_duration_ends_a_text_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.log"
    with Trace.file(path) as trace:
        emit(trace, "disk0", "request", "IN", size=64, took=12.34e-6)
    assert path.read_text().endswith("IN size=0x40 status=OK took=12.3us\n")


def test_an_empty_json_trace_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    Trace.file(path).close()
    assert [event["name"] for event in json.loads(path.read_text())] == ["process_name"]


def test_a_trace_cut_at_any_byte_still_loads_its_whole_events(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with Trace.file(path) as trace:
        for sid in range(5):
            emit(trace, "smmu0", "translation", "TRANSLATE", SID=sid)
    text = path.read_text()
    whole = load_chrome(text)
    seen = set()
    for cut in range(len(text)):
        events = load_chrome(text[:cut])
        assert events == whole[: len(events)]
        seen.add(len(events))
    assert seen == set(range(len(whole) + 1))


def test_a_killed_process_leaves_a_trace_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    program = (
        "import os, signal, sys\n"
        "from vhost_iommu.trace import Trace\n"
        "from vhost_iommu.watch import Noted\n"
        "trace = Trace.file(sys.argv[1])\n"
        "for sid in range(5000): trace.tell(Noted(0, sid, 'smmu0', 'translation', 'TRANSLATE', {'SID': sid}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    text = path.read_text()
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    # What was written is whole: the closing bracket alone is missing.
    events = [event for event in json.loads(text + "]") if event["ph"] == "i"]
    assert [event["args"]["SID"] for event in events] == [hex(sid) for sid in range(len(events))]
    assert len(events) > 1000


@pytest.mark.parametrize("suffix", ["json", "txt"])
def test_a_full_trace_says_so_in_its_last_record_and_stays_below_its_limit(tmp_path: Path, suffix: str) -> None:
    path, limit = tmp_path / f"trace.{suffix}", 10_000
    with Trace.file(path, limit) as trace:
        for sid in range(1000):
            emit(trace, "smmu0", "translation", "TRANSLATE", SID=sid)
    assert limit // 2 < path.stat().st_size <= limit
    text = path.read_text()
    last = json.loads(text)[-1]["name"] if suffix == "json" else text.splitlines()[-1]
    assert "LIMIT_REACHED" in last
    assert text.count("LIMIT_REACHED") == 1


def test_records_are_on_disk_soon_even_when_few(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    trace = Trace.file(path, clock=beginning(0))
    emit(trace, "smmu0", "mmio", "CR0", at=0.1)
    assert path.read_text() == ""
    emit(trace, "smmu0", "mmio", "CR1", at=0.4)
    assert len(path.read_text().splitlines()) == 2
    trace.close()


def test_threads_never_tear_a_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    trace = Trace.file(path)

    def work(name: str) -> None:
        for value in range(500):
            emit(trace, name, "mmio", "CR0", value=value)

    threads = [threading.Thread(target=work, args=(f"smmu{at}",)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trace.close()
    lines = [line.split() for line in path.read_text().splitlines()]
    assert len(lines) == 2000
    assert all(len(words) == 5 and words[2:4] == ["mmio", "CR0"] for words in lines)
    for at in range(4):
        assert [words[4] for words in lines if words[1] == f"smmu{at}"] == [f"value={v:#x}" for v in range(500)]


def test_what_comes_after_close_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace = Trace.file(path)
    trace.close()
    emit(trace, "smmu0", "mmio", "CR0")
    trace.close()
    assert len(json.loads(path.read_text())) == 1


class FullDisk:
    """Lets the process write ``room`` bytes to files, and then as a full disk does: what still fits, then none."""

    def __init__(self, room: int, patch: pytest.MonkeyPatch, cut_fails: int = 0) -> None:
        self.room, self.cut_fails = room, cut_fails
        self._write, self._truncate = os.write, os.ftruncate
        patch.setattr(os, "write", self.write)
        patch.setattr(os, "ftruncate", self.truncate)

    def write(self, fd: int, data: memoryview) -> int:
        if data and not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = self._write(fd, data[: self.room])
        self.room -= done
        return done

    def truncate(self, fd: int, size: int) -> None:
        if not self.room and self.cut_fails:
            self.cut_fails -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.room += os.fstat(fd).st_size - size if not self.room else 0
        self._truncate(fd, size)


def last_name(text: str, suffix: str) -> str:
    return str(json.loads(text)[-1]["name"]) if suffix == "json" else text.splitlines()[-1].split()[3]


@pytest.mark.parametrize("suffix", ["json", "txt"])
@pytest.mark.parametrize("room", [700, 1500, 5000, 5001, 5010, 5050, 5100, 200_000])
def test_a_trace_onto_a_full_disk_is_whole_records_and_says_so_in_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, suffix: str, room: int
) -> None:
    path = tmp_path / f"trace.{suffix}"
    FullDisk(room, monkeypatch)
    with Trace.file(path, clock=beginning(0)) as trace:
        for sid in range(5000):
            emit(trace, "smmu0", "translation", "TRANSLATE", SID=sid, at=sid / 100)
    text = path.read_text()
    assert len(text) <= room
    assert last_name(text, suffix) == "WRITE_FAILED"
    seen = [int(sid, 16) for sid in re.findall(r'SID"?[=:]"?(0x[0-9a-f]+)', text)]
    assert seen == list(range(len(seen)))
    assert len(text) >= room - 2048
    assert all(len(line.split()) == 5 for line in text.splitlines()[:-1] if suffix == "txt")
    assert trace.incomplete == "No space left on device; its last record says from when on"
    (record,) = caplog.records
    assert record.getMessage() == f"{path}: the trace ends here: No space left on device"


@pytest.mark.parametrize("suffix", ["json", "txt"])
def test_a_disk_that_is_full_only_at_the_end_is_told_of_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"trace.{suffix}"
    disk = FullDisk(1 << 20, monkeypatch)
    trace = Trace.file(path, clock=beginning(0))
    for sid in range(100):
        emit(trace, "smmu0", "translation", "TRANSLATE", SID=sid)
    disk.room = 2000
    trace.close()
    assert last_name(path.read_text(), suffix) == "WRITE_FAILED"
    assert trace.incomplete == "No space left on device; its last record says from when on"


def test_a_last_record_that_does_not_fit_leaves_a_file_that_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.json"
    FullDisk(3000, monkeypatch, cut_fails=1)
    with Trace.file(path) as trace:
        for sid in range(100):
            emit(trace, "smmu0", "translation", "TRANSLATE", SID=sid)
    assert len(json.loads(path.read_text())) > 5
    assert trace.incomplete == "No space left on device"


def test_a_disk_on_which_not_even_a_last_record_fits_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    fds = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="No space left"):
        Trace.file(tmp_path / "trace.json")
    assert os.listdir("/proc/self/fd") == fds


def test_a_device_that_takes_nothing_ends_the_trace_and_no_record_says_so() -> None:
    with Trace.file("/dev/full") as trace:
        emit(trace, "smmu0", "mmio", "CR0")
    assert trace.incomplete == "No space left on device"


def test_a_command_says_at_its_end_that_a_trace_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for room, said in (1 << 20, ""), (3000, "not the whole trace: No space left on device; its last record says"):
        with monkeypatch.context() as patch:
            FullDisk(room, patch)
            with tracing(tmp_path / "trace.txt") as trace:
                assert trace is not None
                for sid in range(100):
                    emit(trace, "smmu0", "translation", "TRANSLATE", SID=sid)
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
        assert bool(said) == bool(err)


def test_the_limit_is_told_of_as_a_full_disk_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Trace.file(tmp_path / "trace.txt", 3000) as trace:
        assert trace.incomplete is None
        for sid in range(100):
            emit(trace, "smmu0", "translation", "TRANSLATE", SID=sid)
    assert trace.incomplete == "its limit of 3000 bytes is reached; its last record says from when on"
    assert len(caplog.records) == 1


def test_a_file_system_that_tells_only_when_it_is_closed_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, close = Trace.file(tmp_path / "trace.txt"), os.close

    def telling(fd: int) -> None:
        close(fd)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "close", telling)
    trace.close()
    monkeypatch.undo()
    assert trace.incomplete == os.strerror(errno.EDQUOT)


@pytest.mark.parametrize("stuck", [False, True], ids=["at the end", "before it"])
def test_the_end_of_a_trace_does_not_wait_for_a_pipe_that_nobody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, stuck: bool
) -> None:
    monkeypatch.setattr("vhost_iommu.trace.writer.PATIENCE", 0.05)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    trace = Trace.file(path)
    trace.written_by(lambda: None)
    for _ in range(10_000):  # more than a pipe holds
        emit(trace, "smmu0", "command", "CMD_SYNC")
    writer = threading.Thread(target=trace.flush)
    if stuck:
        writer.start()
        assert select.select([reader], [], [], 10)[0]
    trace.close()
    assert trace.incomplete == "nothing more was taken"
    assert "the trace ends here" in caplog.text
    os.close(reader)
    if stuck:
        writer.join()


def test_a_memory_trace_keeps_what_was_reported() -> None:
    trace = Trace.memory()
    emit(trace, "smmu0", "command", "CMD_SYNC", CS=1)
    (record,) = trace.records
    assert (record.track, record.kind, record.name, record.args) == ("smmu0", "command", "CMD_SYNC", {"CS": 1})


def test_of_what_comes_after_the_end_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Value] = []
    watch = Watch("smmu0")
    with Trace.file(tmp_path / "trace.txt", 3000) as trace:
        watch.attach(trace)

        def tell(value: Value) -> None:
            made.append(value)
            Trace.tell(trace, value)

        monkeypatch.setattr(trace, "tell", tell)
        for at in range(100):
            watch.noted("smmu0", "fault", "drop-sync", struck=at)
            watch.flush()
    assert trace.incomplete is not None
    assert 10 < len(made) < 60


def test_only_the_kinds_that_are_named_are_written_and_wanted(tmp_path: Path) -> None:
    trace = Trace.memory()
    trace.only(["command", "use"])
    watch = Watch("smmu0")
    watch.attach(trace)
    watch.of_stream(1, None)
    watch.used(0x1000, 8, 0x2000, write=False)
    watch.accessed("CR0", 0x20, 4, 1, write=True)
    watch.noted("smmu0", "fault", "drop-sync")
    assert [(record.kind, record.args.get("pa")) for record in trace.records] == [("use", 0x2000)]
    assert not watch.kinds & Kind.ACCESSED
