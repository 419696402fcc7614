# SPDX-License-Identifier: Apache-2.0
"""What of a stranger's words reaches a terminal."""

from __future__ import annotations

import io
import os

import pytest

from vhost_iommu.terminal import Progress, filled, plain


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(name="_narrow")
def _make_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[1;32mtwo\x1b[0m", "two"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP+q544e\x1b\\after", "after"),
        ("\x9b2Jgone", "gone"),
        ("\x1bcreset \x1b(Bcharset \x1b7", "reset charset "),
        ("an end\x1b", "an end"),
        ("\x1b]0;without an end", "0;without an end"),
        ("over\rwritten\b\a", r"over\rwritten\x08\x07"),
        ("\u202eevil\u2028line\x85", r"\u202eevil\u2028line\x85"),
        ("a\ttab, größer, 漢字", "a\ttab, größer, 漢字"),
        ("nul\0s", "nuls"),
    ],
)
def test_what_would_speak_to_a_terminal_is_left_out_or_spelled(said: str, shown: str) -> None:
    assert plain(said) == shown


@pytest.mark.usefixtures("_narrow")
def test_a_progress_line_stays_one_line_whatever_is_in_it() -> None:
    stream = Terminal()
    Progress(stream, clock=lambda: 0.0).say("rcu:\tone\ttwo\tthree\tfour\tfive\n\x1b[5Bsix")
    drawn = stream.getvalue().removeprefix("\r\x1b[K")
    assert drawn.isprintable()
    assert len(drawn) <= 39


@pytest.mark.usefixtures("_narrow")
def test_a_pipe_gets_no_progress_line() -> None:
    stream = io.StringIO()
    progress = Progress(stream, clock=lambda: 0.0)
    progress.live("booting")
    progress.say("a step")
    assert stream.getvalue() == f"    0 s  a step{os.linesep}"


@pytest.mark.usefixtures("_narrow")
def test_a_paragraph_is_as_wide_as_the_terminal() -> None:
    lines = filled("words and --long-options that\nare not broken " * 5).splitlines()
    assert max(map(len, lines)) <= 39
    assert all("--long-options" in line or "--" not in line for line in lines)
