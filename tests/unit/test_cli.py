# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, one-line mistakes, and what goes to which stream."""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vhost_iommu import __version__, _core, cli
from vhost_iommu.cli.common import seconds, tell_of_core
from vhost_iommu.config import MachineConfig, load_machine
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import doctor
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.doctor import Prerequisite
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.run import BareGuest, GuestRun
from vhost_iommu.guest.verdict import Verdict
from vhost_iommu.terminal import LogHandler, Progress, paint


def run(*argv: str) -> int:
    try:
        return cli.main(argv)
    except SystemExit as end:
        return int(end.code or 0)


def mistake(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert run(*argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("vhost-iommu: ")
    return line


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"vhost-iommu {__version__}\n"


@pytest.mark.parametrize(
    ("reader", "code", "told"),
    [
        ("/dev/full", 2, r"vhost-iommu: standard output: No space left on device; write it .*"),
        ("/dev/null", 0, None),
        ("nobody", 141, None),
    ],
)
def test_what_becomes_of_output_that_nobody_takes(
    reader: str, code: int, told: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reader == "nobody":
        unread, output = os.pipe()
        os.close(unread)
    else:
        output = os.open(reader, os.O_WRONLY)
    with open(output, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run("map", "smmuv3-bare") == code
    lines = capsys.readouterr().err.splitlines()
    assert [bool(re.fullmatch(told or "", line)) for line in lines] == [True] * (told is not None)


@pytest.mark.parametrize("command", ["serve", "run", "decode", "map", "dtb", "doctor", "fetch", "demo"])
def test_each_command_has_help_and_is_named_in_the_overview(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: vhost-iommu {command}")
    assert run("--help") == 0
    assert f"\n    {command} " in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", "serve", "run", "decode", "map", "dtb", "doctor", "fetch", "demo"])
@pytest.mark.parametrize("columns", [70, 80, 200])
def test_help_fits_the_terminal(
    command: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(*command.split(), "--help") == 0
    blocks = capsys.readouterr().out.split("\n\n")
    text = [line for block in blocks if not block.startswith("examples:") for line in block.splitlines()]
    assert max(map(len, text)) <= columns


def test_examples_are_shown_as_they_are_to_be_typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert run("run", "--help") == 0
    said = capsys.readouterr().out
    assert "\n  git bisect run sh -c 'make -j8 Image || exit 125; vhost-iommu run M --kernel . --bisect'\n" in said
    assert "\n  without these: every test" in said


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "smmuv3-bear"], "did you mean 'smmuv3-bare'?"),
        (["run", "smmuv3-bare", "--kernel", "6.12"], "leave --kernel out"),
        (["run", "smmuv3-bare", "--initrd", "x"], "leave --initrd out"),
        (["run", "smmuv3-linux", "--elf", "dma"], "leave --elf out"),
        (["run", "smmuv3-bare", "--module", "x.ko"], "leave --module out"),
        (["run", "smmuv3-bare", "--case", "a=true"], "leave --case out"),
        (["run", "smmuv3-bare", "--headers", "x"], "leave --headers out"),
        (["run", "smmuv3-bare", "--initrd-extra", "x"], "leave --initrd-extra out"),
        (["run", "smmuv3-linux", "--initrd", "x", "--cases", "a"], "leave --cases out, or --initrd"),
        (["run", "smmuv3-linux", "--initrd", "x", "--module", "x.ko"], "leave --module out, or --initrd"),
        (["run", "smmuv3-linux", "--append", "quiet cases=a"], "choose cases with --cases"),
        (["run", "smmuv3-linux", "--list", "--cases", "disk0_apears"], "did you mean 'disk0_appears'?"),
        (["run", "smmuv3-linux", "--list", "--cases", "engine*"], "there is no case 'engine*'; --list says"),
        (["run", "smmuv3-linux", "--list", "--case", "two words=true"], "is no case; write it as NAME="),
        (["run", "smmuv3-linux", "--list", "--case", "disk0_appears=true"], "call yours by another name"),
        (["run", "smmuv3-linux", "--kernel", "6.13"], "did you mean '6.1'?"),
        (["run", "smmuv3-linux", "--kernel", "bld"], "or the path of a kernel"),
        (["run", "smmuv3-linux", "--kernel", "./bld"], "bld does not exist"),
        (["run", "smmuv3-linux", "--repeat", "0"], "is no number of runs above 0"),
        (["run", "smmuv3-linux", "--keep-going"], "say how many with --repeat"),
        (["run", "smmuv3-bare", "--timeout", "0"], "is no number of seconds above 0"),
        (["run", "smmuv3-bare", "--timeout", "soon"], "is no number of seconds above 0"),
        (["run", "smmuv3-bare", "--trace", "no/such/folder/t.json"], "name another file with --trace"),
        (["run", "smmuv3-bare", "--trace-only", "fault"], "give that, too"),
        (
            ["run", "smmuv3-bare", "--trace", "t.txt", "--trace-only", "faults"],
            "there is no kind 'faults' in t.txt; they are mmio",
        ),
        (["serve", "two-smmus", "--socket-path", "x.sock"], "needs a socket for each"),
        (["run", "smmuv3-bare", "--kernal", "x"], "did you mean '--kernel'?"),
        (["run", "smmuv3-bare", "-s", "-S"], "what is QEMU's goes behind '--': -- -s -S"),
        (["run", "smmuv3-bare", "--success", "("], "is no regular expression"),
        (["run", "smmuv3-bare", "--success", "x", "--exit-only"], "not allowed with argument --success"),
        (["doctor", "--jsom"], "did you mean '--json'?"),
        (["serve", "two-smmus"], "is required"),
        (["serve", "two-smmus", "--socket-dir", "/dev/null/x"], "name another folder"),
        (["decode", "evnt", "0x10"], "did you mean"),
        (["decode", "no/such/log"], "no/such/log is no file that is here"),
        (["decode", "dmesg.txt"], "dmesg.txt is no file that is here"),
        (["decode", "event", "0x10", "--", "-d"], "only 'run' passes on what follows"),
        (["map", "smmuv3-bare", "--dts", "--json"], "not allowed with"),
        (["runn"], "there is no command 'runn'; did you mean 'run'?"),
        (["doctor", "--log-level", "all"], "there is no --log-level 'all'; choose from debug, info, warning, error"),
        (["run"], "required: MACHINE; see vhost-iommu run --help"),
    ],
)
def test_a_mistake_is_one_line_that_says_the_mend(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in mistake(capsys, *argv)


def test_a_limit_is_seconds_or_none() -> None:
    assert (seconds("2.5"), seconds("none")) == (2.5, math.inf)
    for text in ("inf", "nan", "-1", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            seconds(text)


@pytest.mark.parametrize(
    "argv",
    [
        ["smmuv3-bear"],  # a mistake of ours
        ["smmuv3-bare", "--timeout", "soon"],  # … that argparse finds
        ["smmuv3-bare", "--kernal", "x"],
        ["--help"],
        ["smmuv3-linux", "--kernel", "./no/such/Image"],  # a kernel that did not build
        ["smmuv3-bare", "--dry-run"],
    ],
)
def test_what_judges_no_revision_has_git_skip_it(argv: list[str]) -> None:
    assert run("run", *argv, "--bisect") == 125


def test_a_bisect_of_qemus_is_none_of_ours() -> None:
    assert run("run", "smmuv3-bear", "--", "--bisect") == 2


@pytest.mark.parametrize(
    ("code", "told"), [(0, 0), (1, 1), (3, 1), (2, 125), (4, 125), (70, 125), (141, 125), (130, 130)]
)
def test_git_is_told_good_bad_or_skip(code: int, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_main", lambda argv: code)
    assert cli.main(["run", "smmuv3-bare", "--bisect"]) == told
    assert cli.main(["run", "smmuv3-bare"]) == code


def test_a_fault_of_ours_is_a_traceback_and_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(assets: Assets) -> list[Prerequisite]:
        raise KeyError("lost")

    monkeypatch.setattr(doctor, "prerequisites", fail)
    assert run("doctor") == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_usage_error_from_anywhere_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(assets: Assets) -> list[Prerequisite]:
        raise UsageError("there is no mirror; name one")

    monkeypatch.setattr(doctor, "prerequisites", refuse)
    assert mistake(capsys, "doctor") == "vhost-iommu: there is no mirror; name one"


def prerequisites(monkeypatch: pytest.MonkeyPatch, *found: Prerequisite) -> None:
    monkeypatch.setattr(doctor, "prerequisites", lambda assets: list(found))


HERE = Prerequisite("qemu", True, "/usr/bin/qemu", "")
LACK = Prerequisite("busybox", False, "not here", "run 'vhost-iommu fetch'")
OTHER_KERNEL = Prerequisite("kernel 6.1", False, "not here", "run 'vhost-iommu fetch 6.1'", needed=False)


def test_the_doctor_finds_nothing_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    prerequisites(monkeypatch, HERE, OTHER_KERNEL)
    assert run("doctor") == 0
    ok, optional = capsys.readouterr().out.splitlines()
    assert ok.split() == ["ok", "qemu", "/usr/bin/qemu"]
    assert optional.startswith("optional")


def test_the_doctor_says_how_to_get_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prerequisites(monkeypatch, HERE, LACK)
    assert run("doctor") == 1
    assert capsys.readouterr().out.splitlines()[1].endswith("not here; run 'vhost-iommu fetch'")


def test_the_doctor_speaks_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    prerequisites(monkeypatch, HERE, LACK, OTHER_KERNEL)
    assert run("doctor", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["found"], each["needed"]) for each in said] == [
        ("qemu", True, True),
        ("busybox", False, True),
        ("kernel 6.1", False, False),
    ]


def test_decode_prints_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("decode", "event", "0x10", "0", "0xf000", "0") == 0
    assert "F_TRANSLATION" in capsys.readouterr().out
    assert run("decode", "event", "0x10", "0", "0xf000", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "F_TRANSLATION"


EVENT = """\
[   12.345678] arm-smmu-v3 10000000.iommu: event 0x10 received:
[   12.345690] arm-smmu-v3 10000000.iommu: \t0x0000010000000010
[   12.345699] arm-smmu-v3 10000000.iommu: \t0x0000020000000000
[   12.345707] arm-smmu-v3 10000000.iommu: \t0x00000000dead0000
[   12.345715] arm-smmu-v3 10000000.iommu: \t0x0000000000000000
"""
WORDS = "0x0000010000000010 0x0000020000000000 0x00000000dead0000 0x0000000000000000"


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], EVENT),
        (["-"], EVENT),
        (["event"], EVENT),
        (["event", "-"], EVENT),
        (["EVENT"], EVENT.replace(" 10000000.iommu", "\n10000000.iommu")),
        (["event", EVENT], ""),
        (["event", *EVENT.split()], ""),
        ([EVENT], ""),
        (EVENT.split(), ""),
        (["event", WORDS], ""),
        (["event " + WORDS], ""),
        (["event", *WORDS.replace(" ", ", ").split(" ")], ""),
        (["event"], WORDS.replace(" ", "\n")),
        (["event"], "".join(f"[   12.34] arm-smmu-v3 10000000.iommu: {word}\n" for word in WORDS.split())),
        (["event", "0x10", "received:", *WORDS.split()], ""),
        (["event: F_TRANSLATION client: x sid: 0x100 ssid: 0 iova: 0xdead0000 ipa: 0"], ""),
        (["event", "LOG"], ""),
        (["LOG"], ""),
    ],
)
def test_decode_takes_a_log_or_words_however_they_are_given(
    arguments: list[str],
    given: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "LOG").write_text(EVENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    assert run("decode", *arguments, "--machine", "smmuv3-linux") == 0
    said = capsys.readouterr().out
    for part in ("F_TRANSLATION: ", "§7.3.13", "0xdead0000", "cause: ", "master: disk0, StreamID 0x100 of smmu0"):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "given", "why"),
    [
        ([], "", "nothing came"),
        ([], "[ 1.0] nvme nvme0: timeout\n", "nothing here is of an SMMU"),
        ([], WORDS, "words alone need their KIND"),
        (
            [],
            "[ 1.0] arm-smmu-v3 10000000.iommu: allocated 1024 entries for cmdq\n",
            "of 10000000.iommu report no error",
        ),
        ([], "[ 1.0] arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x402\n", "report no error"),
        (["command"], EVENT, "leave the KIND out"),
        (["event"], "[ 1.0] nvme nvme0: timeout\n", "nothing here is of an SMMU"),
    ],
)
def test_decode_says_why_there_is_nothing_to_decode(
    arguments: list[str],
    given: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for form in ([], ["--json"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        assert run("decode", *arguments, *form) == 1
        said = capsys.readouterr()
        assert why in said.err
        assert len(said.err.splitlines()) == 1
        assert said.out == ("" if not form else '{"findings": []}\n')


def test_decode_takes_kinds_in_any_case_and_registers_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, name in (
        (("gerror", "0x1"), "GERROR"),
        (("STE", "0xb"), "STE"),
        (("SMMU_CR0", "1f"), "CR0"),
        (("Register", "cr0", "1f"), "CR0"),
        (("pte", "0x0060000045000f03", "level=3", "granule=4k"), "S1LeafDescriptor"),
    ):
        assert run("decode", *arguments, "--json") == 0
        assert json.loads(capsys.readouterr().out)["name"] == name


def test_decode_names_the_smmu_of_a_stream_by_the_address_of_its_registers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("map", "two-smmus", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)["smmus"]
    for smmu, sid, who in (
        (first, 0x20, "disk0, StreamID 0x20 of smmu0"),
        (second, 0x20, "disk1, StreamID 0x20 of smmu1"),
        (second, 0x21, "none of two-smmus has StreamID 0x21 of smmu1"),
        (None, 0x20, "disk0, StreamID 0x20 of smmu0 or disk1, StreamID 0x20 of smmu1"),
        (None, 0x999, "none of two-smmus has StreamID 0x999 of smmu0 or smmu1"),
    ):
        log = EVENT.replace("0x0000010000000010", f"{sid << 32 | 0x10:#018x}")
        name = f"{smmu['registers']['base']:x}.iommu" if smmu else "arm-smmu-v3.0.auto"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log.replace("10000000.iommu", name).encode())))
        assert run("decode", "--machine", "two-smmus", "--json") == 0
        (found,) = json.loads(capsys.readouterr().out)["findings"]
        assert (found["smmu"], found["master"]) == (name, who)


class Stream(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_colour_is_for_terminals_whose_owner_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("x", "red", Stream(True)) == "\x1b[31mx\x1b[0m"
    assert paint("x", "red", Stream(False)) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", Stream(True)) == "x"


def test_progress_is_a_line_for_each_step_in_a_file() -> None:
    stream = Stream(False)
    with Progress(stream, clock=lambda: 0.0) as progress:
        progress.say("one")
        progress.say("one")
        progress.live("unimportant")
        progress.say("two")
    assert stream.getvalue() == "    0 s  one\n    0 s  two\n"


def test_progress_on_a_terminal_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    stream = Stream(True)
    with Progress(stream, clock=lambda: 0.0) as progress:
        progress.say("a very long line that does not fit")
        progress.live("two")
    shown = [part.removeprefix("\x1b[K") for part in stream.getvalue().split("\r") if part]
    assert shown == ["    0 s  a very lon", "    0 s  two", ""]
    assert "\n" not in stream.getvalue()


def test_a_log_line_of_any_thread_clears_the_progress_line_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Stream(terminal=True)
    log = logging.getLogger("tests.terminal")
    monkeypatch.setattr(logging.getLogger(), "handlers", [LogHandler(stream)])
    with Progress(stream) as progress:
        progress.say("booting")
        thread = threading.Thread(target=log.warning, args=("a word",))
        thread.start()
        thread.join()
        progress.say("booting")
    log.warning("another")
    assert re.sub(r" +0 s  ", "", stream.getvalue()) == (
        "\r\x1b[Kbooting\r\x1b[Ka word\n\r\x1b[Kbooting\r\x1b[Kanother\n"
    )


@pytest.mark.parametrize(("pure", "lines"), [("0", 1), ("1", 0)])
def test_a_missing_core_is_told_once_unless_nobody_wants_it(
    pure: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(_core.PURE, pure)
    monkeypatch.setattr(_core, "built", lambda: None)
    tell_of_core()
    assert capsys.readouterr().err.count("no compiled core") == lines


@pytest.mark.parametrize(
    "argv", [("run", "smmuv3-bare", "--kernel", "6.12"), ("run", "smmuv3-bear"), ("serve", "two-smmus", "--fd", "99")]
)
def test_a_mistake_is_one_line_where_the_core_is_missing_too(
    argv: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(_core.PURE, "0")
    monkeypatch.setattr(_core, "built", lambda: None)
    monkeypatch.setattr(_core, "stale", lambda: False)
    assert "compiled core" not in mistake(capsys, *argv)


def test_a_core_that_is_older_than_its_sources_is_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(_core.PURE, "0")
    monkeypatch.setattr(_core, "stale", lambda: True)
    assert "'make core' compiles it anew" in mistake(capsys, "run", "smmuv3-bare")
    found = {each.name: each for each in doctor.prerequisites(Assets())}["compiled core"]
    assert (found.found, found.needed) == (False, True)


def test_only_in_a_checkout_a_core_is_stale_and_when_a_source_is_newer(tmp_path: Path) -> None:
    folder = tmp_path / "vhost_iommu/_core"
    folder.mkdir(parents=True)
    for name, moment in (("door.pyx", 1), ("dma.c", 3), ("door.so", 2), ("pump.so", 4)):
        (folder / name).touch()
        os.utime(folder / name, (moment, moment))
    assert not _core.stale(folder)
    (tmp_path / "hatch_build.py").touch()
    assert _core.stale(folder)
    os.utime(folder / "door.so", (3, 3))
    assert not _core.stale(folder)


def test_paths_in_a_machine_file_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[guest]\nkind = "bare"\nelf = "./mine.elf"\n[[smmu]]\nname = "smmu0"\n'
        '[[master]]\nname = "e0"\nkind = "engine"\nsmmu = "smmu0"\nstream_ids = [1]\n'
    )
    config = load_machine(file)
    assert Launch(config).guest_run.guest == BareGuest(tmp_path / "mine.elf")
    assert Launch(config, Wishes(elf="dma", append="x=1")).guest_run.guest == BareGuest("dma", "x=1")


# -- which cases, and how often ----------------------------------------------------------------------------------------


def test_that_a_guest_declares_no_cases_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GuestRun, "cases", lambda self: [])
    assert run("run", "smmuv3-bare", "--list") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("declares no cases")) == ("", 1)


def test_cases_are_listed_with_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "smmuv3-linux", "--list", "--case", "mine=grep x /data", "--cases", "mine,disk0_app*") == 0
    assert capsys.readouterr().out.splitlines() == [
        "modules_load   What the other cases use of the kernel is inserted, where it has it as modules.",
        "mine           grep x /data",
        "disk0_appears  A disk with this serial number is there, and has room.",
    ]
    assert run("run", "smmuv3-linux", "--list", "--json") == 0
    assert {"name": "no_smmu_warnings", "about": "The drivers had nothing to complain of."} in json.loads(
        capsys.readouterr().out
    )


class Runs:
    """In place of guests: runs that come out as they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *verdicts: Verdict) -> None:
        self.wishes: list[Wishes] = []
        self._verdicts = list(verdicts)
        monkeypatch.setattr("vhost_iommu.guest.launch.Launch", self._launch)

    def _launch(self, config: MachineConfig, wishes: Wishes, **hooks: Callable[[str], None]) -> Launch:
        self.wishes.append(wishes)
        launch = Launch(config, wishes)
        verdict = self._verdicts[len(self.wishes) - 1]

        def outcome() -> Report:
            hooks["on_note"]("a word")
            for line in ("KTAP version 1", "1..1", "ok 1 a" if verdict is Verdict.PASSED else "not ok 1 a"):
                hooks["on_line"](line)
            return Report(verdict, "because", Ktap(), "", 1.0, None, None, ("a word",))

        vars(launch)["run"] = outcome
        return launch


def test_a_repeated_run_stops_at_the_first_that_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = Runs(monkeypatch, Verdict.PASSED, Verdict.FAILED, Verdict.PASSED)
    assert run("run", "smmuv3-bare", "--repeat", "3", "--keep", str(tmp_path)) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "run 1: passed: because, in 1.0 s",
        "FAIL  a",
        "run 2: failed: because, in 1.0 s",
        "1 of 2 runs passed; 3 were asked for",
    ]
    assert captured.err.count("a word") == 1, "what holds for all runs is said once"
    assert [wishes.keep for wishes in runs.wishes] == [tmp_path / "1", tmp_path / "2"]


def test_a_repeated_run_goes_on_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Runs(monkeypatch, Verdict.PASSED, Verdict.DIED, Verdict.PASSED)
    assert run("run", "smmuv3-bare", "--repeat", "3", "--keep-going", "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["asked"], told["passed"]) == (3, 2)
    assert [each["verdict"] for each in told["runs"]] == ["passed", "died", "passed"]
    assert told["runs"][0]["notes"] == ["a word"]


def test_a_run_that_is_interrupted_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, Verdict.INTERRUPTED, Verdict.PASSED)
    assert run("run", "smmuv3-bare", "--repeat", "2", "--keep-going") == 130
    assert len(runs.wishes) == 1
