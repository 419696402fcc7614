# SPDX-License-Identifier: Apache-2.0
"""What is told of guests that do not end well, and how guests pass that speak no KTAP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import missing
from vhost_iommu import _core, cli
from vhost_iommu.guest import qemu
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.initramfs import Initramfs
from vhost_iommu.guest.payload import LinuxGuest
from vhost_iommu.guest.run import BareGuest, GuestRun, Interrupted, Options
from vhost_iommu.guest.verdict import Verdict

pytestmark = [pytest.mark.usefixtures("assets"), pytest.mark.timeout(600)]

SMALL = qemu.Hardware(memory=64)
SYSTEM_OFF, SYSTEM_RESET = 0x8400_0008, 0x8400_0009

#: Says a word on the PL011, as firmware would, and then does ``END``.
SOURCE = """
    .globl _start
_start:
    ldr     x1, =0x09000000
    adr     x2, word
1:  ldrb    w3, [x2], #1
    cbz     w3, 2f
    str     w3, [x1]
    b       1b
2:  END
    b       .
word:
    .asciz  "the work is DONE\\n"
    .balign 8
    .globl in_nowhere
in_nowhere:
    mov     x29, #0
    ldr     x0, =0x7fff0000
    blr     x0
"""


def psci(function: int) -> str:
    return f"ldr x0, ={function:#x}; hvc #0"


@pytest.fixture
def program(assets: Assets, tmp_path: Path) -> Callable[[str], Path]:
    """Makes an ELF file that ends so."""

    def make(end: str) -> Path:
        source, elf, cross = tmp_path / "own.S", tmp_path / "own.elf", assets.cross()
        source.write_text(SOURCE.replace("END", end))
        argv = [*cross.cc, "-nostdlib", "-static", "-Wl,-Ttext=0x40200000", "-o", str(elf), str(source)]
        subprocess.run(argv, env={**os.environ, **cross.env}, check=True, timeout=120)
        return elf

    return make


def run(*argv: str) -> int:
    return cli.main(["run", "smmuv3-bare", *argv])


# -- guests that speak no KTAP -----------------------------------------------------------------------------------------


def test_a_program_that_turns_itself_off_passes_where_that_is_enough(program: Callable[[str], Path]) -> None:
    elf = str(program(psci(SYSTEM_OFF)))
    assert run("--elf", elf) == 3
    assert run("--elf", elf, "--exit-only") == 0
    assert run("--elf", elf, "--exit-only", "--bisect") == 0
    assert run("--elf", elf, "--bisect") == 1


def test_a_program_that_is_reset_has_not_turned_itself_off(
    program: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--elf", str(program(psci(SYSTEM_RESET))), "--exit-only") == 3
    assert "QEMU says guest-reset" in capsys.readouterr().out


def test_a_program_passes_by_the_line_that_was_asked_for(
    program: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    elf = str(program(""))  # and goes on for ever
    assert run("--elf", elf, "--success", "DONE$", "--timeout", "120") == 0
    assert "passed: the guest said: the work is DONE, in" in capsys.readouterr().out
    assert run("--elf", elf, "--failure", "is D.NE", "--timeout", "120", "--bisect") == 1


def test_a_machine_file_may_say_how_its_guest_passes(program: Callable[[str], Path], tmp_path: Path) -> None:
    elf = program(psci(SYSTEM_OFF))
    machine = tmp_path / "mine.toml"
    machine.write_text(
        f'[guest]\nkind = "bare"\nelf = "{elf}"\nmemory = "64M"\nexit_only = true\n[[smmu]]\nname = "smmu0"\n'
    )
    assert cli.main(["run", str(machine)]) == 0
    assert cli.main(["run", str(machine), "--success", "never"]) == 3


# -- where a guest stands ----------------------------------------------------------------------------------------------


def test_a_program_that_jumps_into_nowhere_is_told_by_its_registers(
    program: Callable[[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    elf, junit = str(program("b in_nowhere")), tmp_path / "result.xml"
    assert run("--elf", elf, "--timeout", "5", "--json", "--console", "--junit", str(junit)) == 3
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert "the work is DONE" in err
    assert "the guest's time of 5 s was over" in said["why"]
    assert "its last line: the work is DONE" in said["why"]
    (cpu,) = said["cpus"]
    assert (cpu["pc"], cpu["elr"], cpu["vbar"]) == ("0x200", "0x200", "0x0")
    assert cpu["far"] == "0x7fff0000"
    # Where it jumped from.
    assert cpu["calls"][0]["symbol"].startswith("in_nowhere+")
    result = (Path(said["folder"]) / "result.txt").read_text()
    assert "PC 0x200" in result
    error = ElementTree.parse(junit).find(".//testcase[@name='guest']/error")
    assert error is not None
    assert "ESR_EL1" in str(error.text)


def test_a_user_may_have_a_debugger_of_his_own(
    program: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "--elf",
        str(program(psci(SYSTEM_OFF))),
        "--timeout",
        "5",
        "--",
        "-gdb",
        "unix:mine.sock,server=on,wait=off",
    ]
    assert run(*argv, "-S") == 3
    out = capsys.readouterr().out
    assert "before the guest said a word" in out
    assert "PC 0x40200000 (_start+0x0)" in out
    Path("mine.sock").unlink(missing_ok=True)


def test_ctrl_c_says_what_went_on_and_names_the_folder(program: Callable[[str], Path]) -> None:
    # Whoever runs us in the background of a shell has it ignored.
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "from vhost_iommu.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", start, "run", "smmuv3-bare", "--elf", str(program("")), "--console"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as ours:
        assert ours.stdout is not None
        while "DONE" not in ours.stdout.readline():
            assert ours.poll() is None
        ours.send_signal(signal.SIGINT)
        told, _ = ours.communicate(timeout=120)
    assert ours.returncode == 130
    assert re.search(r"^interrupted: it was ended by hand .*its last line: the work is DONE", told, re.MULTILINE)
    assert re.search(r"PC 0x402\w+ \(_start\+", told)
    (folder,) = re.findall(r"^the console and all else is in (.*)$", told, re.MULTILINE)
    assert "the work is DONE" in (Path(folder) / "console.log").read_text()


@pytest.mark.parametrize("translator", ["core", "traced", "reference"])
def test_what_is_counted_is_the_same_traced_or_not(
    translator: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if translator == "reference":
        monkeypatch.setenv(_core.PURE, "1")
    argv = ["--trace", str(tmp_path / "t.txt")] if translator == "traced" else []
    assert run("--json", *argv) == 0
    smmu = json.loads(capsys.readouterr().out)["smmus"]["smmu0"]
    assert sum(smmu["commands"].values()) == smmu["counters"]["commands"]
    assert smmu["commands"]["CMD_SYNC"] == smmu["counters"]["syncs"]
    # One program, one history, whoever translates.
    assert smmu["commands"]["CMD_CFGI_STE"] > smmu["commands"]["CMD_TLBI_NH_VA"] > 0
    assert smmu["events"] == {
        "F_TRANSLATION": 3,
        "C_BAD_STE": 2,
        "F_PERMISSION": 1,
        "C_BAD_CD": 1,
        "C_BAD_SUBSTREAMID": 1,
    }


@pytest.mark.parametrize("kernel", ["6.12", "6.1", "7"])
def test_a_kernel_that_is_ended_by_hand_says_where_it_was(kernel: str, assets: Assets, tmp_path: Path) -> None:
    """A Linux guest that hangs: its init sleeps."""
    root = Initramfs()
    root.directory("/bin")
    root.file("/bin/busybox", assets.busybox().read_bytes(), 0o755)
    init = b"#!/bin/busybox sh\necho it sleeps now\nwhile :; do /bin/busybox sleep 1000; done\n"
    root.file("/init", init, 0o755)
    if kernel != "6.12" and not (assets.folder / f"kernel-{kernel}").is_dir():
        missing(f"kernel {kernel}")
    archive = tmp_path / "sleeping.cpio"
    archive.write_bytes(root.archive())

    def line_came(line: str) -> None:
        if "it sleeps now" in line:
            raise KeyboardInterrupt

    # Of two CPUs one at least has nothing to do.
    options = Options(hardware=qemu.Hardware(memory=256, smp=2), timeout=400)
    with pytest.raises(Interrupted) as interrupted:
        GuestRun(LinuxGuest(kernel, initrd=archive), options=options, assets=assets, on_line=line_came).run()
    report = interrupted.value.report
    assert report.verdict is Verdict.INTERRUPTED
    assert "its last line: it sleeps now" in report.why
    assert report.folder is not None
    assert (report.kernel or "").startswith(kernel)
    assert [cpu.cpu for cpu in report.stands] == [0, 1]
    text = "\n".join(report.stand_lines)
    # One of the two at most is in a program, and what the kernel is at has come from where a kernel begins.
    # (At the very begin of an exception that came out of a program the frames are still the program's.)
    kernels = [cpu for cpu in report.stands if cpu.el == 1 and not (cpu.calls and cpu.calls[0] >> 63 == 0)]
    assert kernels, text
    for cpu in kernels:
        names = [cpu.symbols.name(at - 4) for at in cpu.calls]
        assert cpu.symbols.name(cpu.pc), text
        assert names, text
        assert all(names), text
    assert re.search(r"called from 0xffff\w+ \((do_idle|kthread|el0t_64_\w+|el1h_64_irq)\+0x\w+\)", text), text


def test_a_kernel_that_panics_and_stays_says_where(assets: Assets, tmp_path: Path) -> None:
    empty = tmp_path / "empty.cpio"
    empty.write_bytes(Initramfs().archive())
    options = Options(hardware=qemu.Hardware(memory=256), timeout=400)
    report = GuestRun(LinuxGuest(initrd=empty, append="panic=0"), options=options, assets=assets).run()
    assert report.verdict is Verdict.DIED
    assert "Kernel panic" in report.why
    assert any("(panic+" in line or "(vpanic+" in line for line in report.stand_lines), report.stand_lines


def test_a_kernel_that_panics_and_reboots_has_taken_qemu_with_it(assets: Assets, tmp_path: Path) -> None:
    empty = tmp_path / "empty.cpio"
    empty.write_bytes(Initramfs().archive())
    report = GuestRun(LinuxGuest(initrd=empty), options=Options(timeout=400), assets=assets).run()
    assert "Kernel panic" in report.why
    assert "does not answer" not in report.stands_note


def test_a_bare_guest_that_hangs_after_a_test_says_after_which(assets: Assets) -> None:
    options = Options(hardware=SMALL, timeout=5)
    report = GuestRun(BareGuest("hello", "hang=1"), options=options, assets=assets).run()
    assert report.verdict is Verdict.DIED
    assert "(2 of 3 tests)" in report.why
    (cpu,) = report.stands
    assert cpu.symbols.name(cpu.pc), report.stand_lines


def test_many_runs_without_the_core_say_so_once(
    program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(_core.PURE, "0")
    monkeypatch.setattr(_core, "built", lambda: None)
    monkeypatch.setattr(_core, "stale", lambda: False)
    elf = str(program(psci(SYSTEM_OFF)))
    assert run("--elf", elf, "--exit-only", "--repeat", "2") == 0
    assert capsys.readouterr().err.count("no compiled core") == 1
