# SPDX-License-Identifier: Apache-2.0
"""A domain that its user starts, of what 'vhost-iommu xml' prints, in a libvirt of his own: who watches its server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.boot.places import DEADLINE, MACHINE, Place
from tests.conftest import need_libvirt
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.libvirt.domain import QEMU
from vhost_iommu.guest.libvirt.session import Session

pytestmark = pytest.mark.timeout(600)


class Own:
    """A user's libvirt, and the folder where he serves a machine."""

    def __init__(self, place: Place, assets: Assets) -> None:
        import libvirt

        libvirt.registerErrorHandler(lambda *_: None, None)
        self.place, self._session = place, Session(place.path / "own", assets.folder / "libvirt/capabilities")
        self._session.wait()
        self.uri = self._session.uri
        self.connection: Any = libvirt.open(self.uri)
        self.folder = place.path / "run"
        what = [MACHINE, "--elf", "hello", "--append", "hang=1", "--keep", str(self.folder)]
        self.xml = place.start("xml", *what).communicate(timeout=DEADLINE)[0]

    def serve(self) -> subprocess.Popen[str]:
        """A server that is ready."""
        process = self.place.start("serve", MACHINE, "--socket-dir", str(self.folder), "--libvirt", self.uri)
        assert process.stdout is not None
        assert "vfio-user-pci" in process.stdout.readline(), process.communicate()
        return process

    def running(self) -> list[str]:
        return [each.name() for each in self.connection.listAllDomains() if each.isActive()]

    def wardens(self) -> list[int]:
        return [pid for pid, line in self.place.processes() if b"warden" in line]

    def create_other(self) -> None:
        """A domain that no server of ours serves."""
        domain = ElementTree.fromstring(self.xml)
        line = domain.find(f"{{{QEMU}}}commandline")
        assert line is not None
        for each in line[-2:]:
            line.remove(each)
        self.connection.createXML(ElementTree.tostring(domain, encoding="unicode").replace(f">{MACHINE}<", ">other<"))

    def close(self) -> None:
        for each in self.connection.listAllDomains():
            each.destroy()
        self.connection.close()
        self._session.kill()


@pytest.fixture
def own(place: Place, assets: Assets) -> Iterator[Own]:
    need_libvirt()
    own = Own(place, assets)
    yield own
    own.close()
    shutil.rmtree(place.path / "own")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_domain_ends_with_its_server_and_no_other_does(own: Own, end: signal.Signals) -> None:
    server = own.serve()
    own.connection.createXML(own.xml)
    own.create_other()
    assert sorted(own.running()) == ["other", MACHINE]
    server.send_signal(end)
    _, errors = server.communicate(timeout=DEADLINE)
    assert own.running() == ["other"]
    assert f"the server of the domain {MACHINE} has ended; the domain was destroyed" in errors
    own.place.is_quiet()


def test_what_a_server_and_its_warden_left_behind_the_next_server_ends(own: Own) -> None:
    server = own.serve()
    own.connection.createXML(own.xml)
    for pid in [*own.wardens(), server.pid]:
        os.kill(pid, signal.SIGSTOP)  # so that neither acts before both are killed
        os.kill(pid, signal.SIGKILL)
    _, errors = server.communicate(timeout=DEADLINE)
    assert "destroyed" not in errors
    assert own.running() == [MACHINE]
    server = own.serve()
    assert own.running() == []
    own.connection.createXML(own.xml)
    server.terminate()
    _, errors = server.communicate(timeout=DEADLINE)
    assert f"the domain {MACHINE}, whose server was gone, was destroyed" in errors
    assert own.running() == []


def test_a_server_whose_warden_was_killed_ends_as_ever(own: Own) -> None:
    server = own.serve()
    (warden,) = own.wardens()
    os.kill(warden, signal.SIGKILL)
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=DEADLINE)
    assert (server.returncode, "Traceback" in errors) == (0, False)


def test_a_libvirt_that_does_not_answer_is_told_of(place: Place) -> None:
    need_libvirt()
    uri = f"qemu+unix:///session?socket={place.path}/nowhere"
    process = place.start("serve", MACHINE, "--socket-dir", str(place.path / "run"), "--libvirt", uri)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 2
    assert "nowhere': No such file or directory; name another with --libvirt" in errors
    assert list((place.path / "run").iterdir()) == []
