# SPDX-License-Identifier: Apache-2.0
"""Guests that libvirt starts: they do what those do that QEMU starts from here, and nothing of them is left.

Law: of each part that ends without a word (us, the keeper, libvirt's daemon, QEMU) the others take care.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.boot.guests import all_passed
from tests.boot.places import CLI, DEADLINE, MACHINE, Place, eventually
from tests.boot.users import NAMELESS, NOBODY, as_user
from tests.conftest import need_libvirt
from vhost_iommu.config import load_machine
from vhost_iommu.errors import UsageError
from vhost_iommu.guest import qemu
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.run import BareGuest, GuestRun, Options
from vhost_iommu.guest.verdict import Verdict

pytestmark = pytest.mark.timeout(600)
SMALL = qemu.Hardware(memory=64)


@pytest.fixture(scope="module", autouse=True)
def libvirt_is_here(assets: Assets) -> None:
    need_libvirt()


def run(assets: Assets, launcher: str, machine: str, folder: Path, **wishes: Any) -> Report:
    launch = Launch(load_machine(machine), Wishes(launcher=launcher, keep=folder, **wishes), assets=assets)
    try:
        return launch.run()
    finally:
        launch.close()


@pytest.mark.parametrize("gic", [2, 3])
def test_linux_passes_as_a_domain(assets: Assets, tmp_path: Path, gic: int) -> None:
    cases = ("smmu0_probes", "disk0_holds_files", "disk0_reads_back", "no_smmu_warnings")
    all_passed(run(assets, "libvirt", "smmuv3-linux", tmp_path, cases=cases, gic=gic))
    assert f'<gic version="{gic}" />' in (tmp_path / "domain.xml").read_text()


def test_a_guest_that_turns_itself_off_is_told_of_by_libvirts_events(assets: Assets, tmp_path: Path) -> None:
    all_passed(run(assets, "libvirt", MACHINE, tmp_path))
    told = (tmp_path / "libvirt.log").read_text().splitlines()
    assert told == ["STARTED", "SUSPENDED", "RESUMED", "SHUTDOWN", "STOPPED SHUTDOWN"]


def hello(assets: Assets, arguments: str, folder: Path, timeout: float = 60.0, *extra: str) -> Report:
    """Run guest/bare/hello.c."""
    options = Options(hardware=SMALL, timeout=timeout, launcher="libvirt", keep=folder, extra=extra)
    return GuestRun(BareGuest("hello", arguments), options=options, assets=assets).run()


def test_a_guest_that_hangs_is_looked_at_and_destroyed(assets: Assets, tmp_path: Path) -> None:
    report = hello(assets, "hang=1", tmp_path, timeout=3.0)
    assert report.verdict is Verdict.DIED
    assert "2 of 3 tests" in report.why
    assert [each.cpu for each in report.stands] == [0]
    assert (tmp_path / "libvirt.log").read_text().splitlines()[-1] == "STOPPED DESTROYED"


def test_arguments_that_qemu_does_not_know_are_the_operators_mistake(assets: Assets, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-such-option"):
        hello(assets, "", tmp_path, 60.0, "-no-such-option")


def test_what_libvirt_lacks_is_told_with_its_mend(place: Place) -> None:
    place.environment["LIBVIRT_DRIVER_DIR"] = "/nowhere"
    process = place.start("run", MACHINE, "--launcher", "libvirt")
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 2
    assert errors.endswith("; install libvirt's driver of QEMU (Debian: libvirt-daemon-driver-qemu)\n")
    place.is_quiet()


PARTS = {"us": b"vhost_iommu.cli", "the keeper": b"keeper", "libvirt's daemon": b"daemon.conf", "QEMU": b"-qmp"}


def parts_of(place: Place) -> dict[str, int]:
    """Process ids by what they are, once all are there."""
    found: dict[str, int] = {}

    def all_there() -> bool:
        for pid, line in place.processes():
            found.update({part: pid for part, word in PARTS.items() if word in line})
        return len(found) == len(PARTS)

    assert eventually(all_there), found
    return found


def started(place: Place) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """A run whose guest goes on for long."""
    process = place.start("run", MACHINE, "--launcher", "libvirt", "--elf", "hello", "--append", "hang=1", "--console")
    assert process.stdout is not None
    while "ok 2" not in (line := process.stdout.readline()):
        assert line, process.communicate()
    return process, parts_of(place)


@pytest.mark.parametrize("part", ["us", "the keeper", "QEMU"])
def test_when_a_part_is_killed_the_others_end_by_themselves(place: Place, part: str) -> None:
    process, parts = started(place)
    os.kill(parts[part], signal.SIGKILL)
    _, errors = process.communicate(timeout=DEADLINE)
    assert "Traceback" not in errors
    place.is_quiet()
    if part == "us":
        assert "who served the domain smmuv3-bare is gone; it was destroyed" in errors
    else:
        assert process.returncode == 3
    place.passes()
    place.is_tidy()


def test_qemu_survives_its_libvirt_and_ends_with_us(place: Place) -> None:
    process, parts = started(place)
    os.kill(parts["libvirt's daemon"], signal.SIGKILL)
    assert eventually(lambda: parts["libvirt's daemon"] not in dict(place.processes()))
    assert parts["QEMU"] in dict(place.processes())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, "Traceback" in errors) == (130, False)
    place.is_quiet()


@pytest.mark.parametrize("kept", ["QEMU", "libvirt's daemon", "the keeper"])
def test_what_all_who_care_for_it_left_behind_the_next_run_ends(place: Place, kept: str) -> None:
    process, parts = started(place)
    for part, pid in parts.items():
        os.kill(pid, signal.SIGSTOP)  # so that nobody acts before all are killed
        if part != kept:
            os.kill(pid, signal.SIGKILL)
    process.wait(DEADLINE)
    assert parts[kept] in dict(place.processes())
    place.passes()
    process.communicate(timeout=DEADLINE)
    place.is_quiet()
    place.is_tidy()


@pytest.mark.parametrize("uid", [NOBODY, NAMELESS], ids=["an ordinary user", "a user without a name"])
def test_a_user_without_power_has_guests_by_libvirt(assets: Assets, uid: int, request: pytest.FixtureRequest) -> None:
    own = Path(tempfile.mkdtemp(prefix="vi-"))
    request.addfinalizer(lambda: shutil.rmtree(own))
    for command in (["smmuv3-bare", "-q"], ["smmuv3-linux", "--exec", "id -u; test -b /dev/vda"]):
        line = [*CLI, "run", *command, "--launcher", "libvirt"]
        done = as_user(uid, line, own, assets.folder)
        assert done.returncode == 0, done
    assert done.stdout == "0\n"
    (runs,) = own.iterdir()
    assert {each.name for each in runs.iterdir()} <= {".control", ".libvirt"}
