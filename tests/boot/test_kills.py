# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at any moment, to us or to QEMU: nothing stays behind that stops the next run.

Law: moments are drawn; places.py says how.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.boot.places import DEADLINE, KILLS, MACHINE, Place

pytestmark = [pytest.mark.usefixtures("assets"), pytest.mark.timeout(600)]


def test_after_a_killed_run_no_qemu_is_left_and_the_next_run_passes(place: Place) -> None:
    for _ in range(KILLS):
        process = place.start("run", MACHINE)
        place.some_time_passes(process)
        process.kill()
        process.communicate(timeout=DEADLINE)
        place.is_quiet()
    place.passes()
    place.is_tidy()


def test_a_run_whose_qemu_is_killed_says_so_and_the_next_run_passes(place: Place) -> None:
    for _ in range(KILLS):
        process = place.start("run", MACHINE)
        # QEMU is there for a part of the time only.
        assert place.has_qemu(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(place.random.uniform(0, place.usual / 2))
        killed = place.qemus()
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        said = process.communicate(timeout=DEADLINE)
        # It may have ended just before, or not have begun to answer.
        assert process.returncode in ((0, 2, 3) if killed else (0,)), said
        assert "Traceback" not in said[1]
        place.is_quiet()
    place.passes()
    place.is_tidy()


def guest_of(place: Place) -> tuple[list[str], Path]:
    """A QEMU that wants somebody to serve it, and the folder for the sockets."""
    said = json.loads(place.start("run", MACHINE, "--dry-run", "--json").communicate(timeout=DEADLINE)[0])
    return shlex.split(said["command"]), Path(said["folder"])


def serve(place: Place, folder: Path) -> subprocess.Popen[str]:
    process = place.start("serve", MACHINE, "--socket-dir", str(folder))
    assert process.stdout is not None
    assert "vfio-user-pci" in process.stdout.readline(), process.communicate()
    return process


def begin(place: Place, command: list[str]) -> subprocess.Popen[str]:
    null = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=place.environment, text=True)


def guest_passes(place: Place, command: list[str]) -> None:
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    guest = subprocess.Popen(command, stdin=null, stdout=pipe, stderr=pipe, env=place.environment, text=True)
    said, errors = guest.communicate(timeout=DEADLINE)
    assert "not ok" not in said
    assert "ok 1" in said, errors


def test_a_server_survives_killed_guests_and_its_socket_its_own_death(place: Place) -> None:
    command, folder = guest_of(place)
    server = serve(place, folder)
    for _ in range(KILLS):
        guest = begin(place, command)
        place.some_time_passes(guest)
        guest.kill()
        guest.wait(DEADLINE)
    guest_passes(place, command)
    for _ in range(KILLS):
        guest = begin(place, command)
        place.some_time_passes(guest)
        server.kill()
        server.communicate(timeout=DEADLINE)
        guest.kill()
        guest.wait(DEADLINE)
        server = serve(place, folder)
    guest_passes(place, command)
    server.terminate()
    _, said = server.communicate(timeout=DEADLINE)
    assert server.returncode == 0, said
    assert "Traceback" not in said
    assert list(folder.glob("*.sock")) == []
    place.is_quiet()
