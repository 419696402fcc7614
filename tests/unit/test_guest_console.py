# SPDX-License-Identifier: Apache-2.0
"""The console: lines as they come, deaths, and the end."""

from __future__ import annotations

import io
import socket
import time

import pytest

from vhost_iommu.guest import console
from vhost_iommu.guest.console import Console, End
from vhost_iommu.guest.verdict import Contract


def listen(said: bytes, *, seconds: float = 5.0, close: bool = True) -> tuple[list[str | End], Console, str]:
    """What a console makes of ``said``; what it logged."""
    ours, guest = socket.socketpair()
    log = io.StringIO()
    listener = Console(ours, log)
    with guest:
        guest.sendall(said)
        if close:
            guest.close()
        lines = list(listener.lines(time.monotonic() + seconds))
    listener.close()
    return lines, listener, log.getvalue()


def test_lines_come_without_their_ends_and_escapes() -> None:
    lines, _, log = listen(b"one\r\n\x1b[1;32mtwo\x1b[0m\nthree")
    assert lines == ["one", "two", "three", End.CLOSED]
    assert log.startswith("one")


def test_no_line_has_what_would_speak_to_the_operators_terminal() -> None:
    lines, _, log = listen(b"\x1b]0;a title\x07ok 1 a\x1b[2J\a\r\r\nb\x0bc\xc2\x9bd\xe2\x80\xa8e\n")
    assert lines == ["ok 1 a\\x07", "b\\x0bc\\u2028e", End.CLOSED]
    assert "\x1b" in log


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    lines, _, _ = listen(b"\xff\xfe\nok 1 a\n")
    assert lines[1:] == ["ok 1 a", End.CLOSED]


@pytest.mark.parametrize(
    "line",
    [
        b"[    1.0] Kernel panic - not syncing: Attempted to kill init!",
        b"[    1.0] Unable to handle kernel NULL pointer dereference",
        b"[    1.0] Internal error: synchronous external abort: 96000210 [#1] SMP",
        b"vt: unexpected exception: ESR 96000000",
    ],
)
def test_a_death_is_recognised_and_its_last_words_are_read(line: bytes) -> None:
    lines, listener, _ = listen(line + b"\nCall trace:\n")
    assert lines == [line.decode(), "Call trace:", End.DIED]
    assert listener.death == line.decode()


def test_a_diagnostic_line_about_a_death_is_none() -> None:
    lines, listener, _ = listen(b"# BUG: seen in dmesg\n")
    assert lines[-1] is End.CLOSED
    assert listener.death is None


def test_a_silent_guest_runs_out_of_time() -> None:
    lines, _, _ = listen(b"so far\n", seconds=0.05, close=False)
    assert lines == ["so far", End.TIMEOUT]


def test_a_line_without_an_end_comes_in_pieces() -> None:
    lines, _, _ = listen(b"x" * 5000)
    assert lines == ["x" * 4096, "x" * 904, End.CLOSED]


def test_a_guest_that_never_stops_talking_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LIMIT", 10)
    lines, _, _ = listen(b"four\nfour\nfour\n")
    assert lines == ["four", "four", End.FLOOD]


def test_the_host_can_end_it() -> None:
    ours, guest = socket.socketpair()
    with guest:
        listener = Console(ours, io.StringIO())
        assert list(listener.lines(time.monotonic() + 5, lambda: True)) == [End.STOPPED]
        listener.close()


def test_what_is_sent_arrives() -> None:
    ours, guest = socket.socketpair()
    with guest:
        listener = Console(ours, io.StringIO())
        listener.send("poweroff")
        assert guest.recv(64) == b"poweroff\n"
        listener.close()


# -- lines that are waited for -----------------------------------------------------------------------------------------


def await_line(said: bytes, *, close: bool) -> list[str | End]:
    ours, guest = socket.socketpair()
    listener = Console(ours, io.StringIO())
    with guest:
        guest.sendall(said)
        if close:
            guest.close()
        contract = Contract(success="login:", failure="lost")
        lines = list(listener.lines(time.monotonic() + 30, awaited=contract.end))
    listener.close()
    return lines


def test_the_run_ends_at_the_line_that_is_waited_for() -> None:
    assert await_line(b"one\nlogin: \nmore\n", close=False) == ["one", "login: ", End.SUCCESS]
    assert await_line(b"one\nlost\nlogin:\n", close=False) == ["one", "lost", End.FAILURE]


@pytest.mark.parametrize("close", [False, True])
def test_a_prompt_is_a_line_that_is_not_ended(close: bool) -> None:
    assert await_line(b"one\nlogin: ", close=close) == ["one", "login: ", End.SUCCESS]


def test_a_panic_that_is_waited_for_is_no_death() -> None:
    ours, guest = socket.socketpair()
    listener = Console(ours, io.StringIO())
    with guest:
        guest.sendall(b"Kernel panic - not syncing: VFS\n")
        lines = list(listener.lines(time.monotonic() + 30, awaited=Contract(success="syncing: VFS").end))
    listener.close()
    assert (lines[-1], listener.death) == (End.SUCCESS, None)


def test_what_was_not_ended_is_told_when_the_time_is_over() -> None:
    lines, _, _ = listen(b"one\ntw", seconds=0.2, close=False)
    assert lines == ["one", "tw", End.TIMEOUT]
