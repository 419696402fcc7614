# SPDX-License-Identifier: Apache-2.0
"""The private apt, against a runner that plays apt-get, apt-cache and dpkg-deb."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest import apt as apt_module
from vhost_iommu.guest.apt import Apt, Done, debian_mirror, host_package, host_suite, run_command
from vhost_iommu.guest.cache import locked

MIRROR = "mirror://here/debian"
KERNELS = """
linux-image-6.12.9+deb12-arm64
linux-image-6.12.10+deb12-arm64
linux-image-6.12.10+deb12-rt-arm64
linux-image-6.13.1+deb12-arm64
"""


class FakeApt:
    """Answers as apt does; ``failures`` are what the next apt-get commands say instead."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.failures: list[str] = []
        self.names = KERNELS
        self.sources: list[str] = []

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        line: Callable[[str], None] | None = None,
    ) -> Done:
        self.calls.append(list(argv))
        if argv[0] == "apt-cache":
            return Done(0, self.names, "")
        if argv[0] == "dpkg-deb":
            newer = Path(argv[3]) / "usr/share/keyrings/debian-archive-keyring.gpg"
            newer.parent.mkdir(parents=True)
            newer.write_text("newer keys")
            return Done(0, "", "")
        self.sources.append((Path(argv[2]).parent / "sources.list").read_text())
        if self.failures and (failure := self.failures.pop(0)):
            return Done(100, "", failure)
        if "install" in argv:
            packages = [word for word in argv if word.startswith(("linux-", "debian-", "busy"))]
            names = [f"{package}_1_arm64.deb" for package in packages] + ["libdep_1_arm64.deb"]
            if "--print-uris" in argv:
                return Done(0, "".join(f"'{MIRROR}/{name}' {name} 1000000 SHA256:0\n" for name in names), "")
            archives = Path(argv[-1].partition("=")[2])
            for name in names:
                (archives / name).write_bytes(b"deb")
            if line is not None:
                line("dlstatus:1:50.0:Retrieving file 1 of 2")
        return Done(0, "", "")

    def count(self, verb: str) -> int:
        return sum(verb in call for call in self.calls)


@pytest.fixture
def fake() -> FakeApt:
    return FakeApt()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def apt(tmp_path: Path, fake: FakeApt, said: list[str]) -> Apt:
    keyring = tmp_path / "keys.gpg"
    keyring.write_text("keys")
    return Apt(
        tmp_path / "apt", MIRROR, ["bookworm-backports"], "arm64", said.append, fake,
        lambda seconds: None, keyring,
    )  # fmt: skip


def test_the_mirror_of_a_deb822_file_is_found(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text(
        "# comment\nTypes: deb\nURIs: http://security.example/debian-security\nSuites: bookworm-security\n"
        "Components: main\n\nTypes: deb-src deb\n# another\nURIs: http://mirror.example/debian/\n"
        "Suites: bookworm\n bookworm-updates\nComponents: main contrib\n"
    )
    assert debian_mirror(tmp_path) == "http://mirror.example/debian"


def test_the_mirror_of_a_one_line_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb cdrom:[Debian]/ bookworm main\n#deb http://off.example/debian bookworm main\n"
        "deb-src http://src.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main # why\n"
    )
    assert debian_mirror(tmp_path) == "http://one.example/debian"


def test_a_disabled_or_foreign_source_is_no_mirror(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "a.sources").write_text(
        "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n"
    )
    (parts / "b.list").write_text("deb http://other.example/tools stable contrib\ndeb http://u.example/u noble main\n")
    assert debian_mirror(tmp_path, ()) is None


def test_the_usual_mirror_of_a_distribution_serves_who_has_none_configured(tmp_path: Path) -> None:
    usual = [(tmp_path / "missing", "(x)"), (tmp_path / "info", r"(?m)^BaseURI: *(\S+)")]
    (tmp_path / "info").write_text("Suite: x\nBaseURI: http://usual.example/debian/\n")
    assert debian_mirror(tmp_path, usual) == "http://usual.example/debian"


class FakeHost:
    """The host's own apt: with an index or without, and with or without the package on its mirror."""

    def __init__(self, index: bool, package: bool = True) -> None:
        self.index, self.package = index, package

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        line: Callable[[str], None] | None = None,
    ) -> Done:
        if argv[0] == "dpkg-deb":
            (Path(argv[3]) / "keys").write_text("keys")
            return Done(0, "", "")
        if argv[-1] == "update":
            self.index = True
        elif not (self.index and self.package):
            return Done(100, "", "E: Unable to locate package keyring")
        else:
            assert cwd is not None
            (cwd / "keyring_1_all.deb").write_text("deb")
        return Done(0, "", "")


@pytest.mark.parametrize("index", [True, False])
def test_a_package_of_the_host_is_unpacked_and_nothing_else_is_left(tmp_path: Path, index: bool) -> None:
    host_package("keyring", tmp_path / "files", FakeHost(index))
    assert [file.name for file in (tmp_path / "files").iterdir()] == ["keys"]


def test_a_package_that_the_host_does_not_have_says_what_root_must_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="as root: apt-get install keyring"):
        host_package("keyring", tmp_path, FakeHost(index=False, package=False))


def test_a_mirror_named_by_hand_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VI_MIRROR", "http://mine.example/debian")
    assert debian_mirror(tmp_path) == "http://mine.example/debian"


@pytest.mark.parametrize(
    ("text", "suite"),
    [
        ("VERSION_CODENAME=trixie\n", "trixie"),
        ('NAME="x"\nVERSION_CODENAME="bookworm"\n', "bookworm"),
        ("VERSION_CODENAME=noble\n", "bookworm"),
        ("", "bookworm"),
    ],
)
def test_the_suite_of_the_host_is_read(tmp_path: Path, text: str, suite: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert host_suite(tmp_path / "os-release") == suite


def test_the_newest_version_counts_by_number_not_by_spelling(apt: Apt) -> None:
    assert apt.newest(r"linux-image-6\.12\.\d+\+\w+-arm64", "kernel") == "linux-image-6.12.10+deb12-arm64"


def test_a_package_that_no_index_names_says_which_suite_lacks_it(apt: Apt, fake: FakeApt) -> None:
    with pytest.raises(UsageError, match="no kernel 9 in bookworm-backports"):
        apt.newest(r"linux-image-9\..*", "kernel 9")
    assert fake.count("update") == 2  # once because it was new, once because something was missing


def test_an_index_is_fetched_once(apt: Apt, fake: FakeApt, tmp_path: Path) -> None:
    apt.newest("linux-image-6.12.9.*", "kernel")
    apt.download("busybox", ["busybox-static"], tmp_path / "debs")
    assert fake.count("update") == 1


def test_an_old_index_is_fetched_again(apt: Apt, fake: FakeApt, tmp_path: Path) -> None:
    apt.newest("linux-image-6.12.9.*", "kernel")
    old = time.time() - apt_module.INDEX_AGE - 1
    os.utime(tmp_path / "apt/index-fetched", (old, old))
    apt.newest("linux-image-6.12.9.*", "kernel")
    assert fake.count("update") == 2


def test_a_download_returns_only_what_was_asked_for(apt: Apt, tmp_path: Path, said: list[str]) -> None:
    files = apt.download("busybox", ["busybox-static"], tmp_path / "debs")
    assert files == [tmp_path / "debs/busybox-static_1_arm64.deb"]
    assert "fetching busybox (2 packages, 2.0 MB)…" in said
    assert "linux-base" in (tmp_path / "apt/status").read_text()


def test_with_dependencies_nothing_counts_as_installed(apt: Apt, tmp_path: Path) -> None:
    files = apt.download("busybox", ["busybox-static"], tmp_path / "debs", dependencies=True)
    assert [file.name for file in files] == ["busybox-static_1_arm64.deb", "libdep_1_arm64.deb"]
    assert (tmp_path / "apt/status").read_text() == ""


def test_what_an_interrupted_download_left_is_told(apt: Apt, tmp_path: Path, said: list[str]) -> None:
    partial = tmp_path / "debs/partial"
    partial.mkdir(parents=True)
    (partial / "busybox-static_1_arm64.deb").write_bytes(bytes(500_000))
    apt.download("busybox", ["busybox-static"], tmp_path / "debs")
    assert "fetching busybox (2 packages, 2.0 MB, 0.5 MB of it here already)…" in said


def test_a_network_failure_is_tried_again(apt: Apt, fake: FakeApt, said: list[str]) -> None:
    fake.failures = ["E: Could not connect", "E: Temporary failure resolving"]
    assert apt.newest("linux-image-6.12.9.*", "kernel")
    assert sum("trying again" in line for line in said) == 2


def test_a_network_that_stays_away_is_one_sentence(apt: Apt, fake: FakeApt) -> None:
    fake.failures = ["W: odd\nE: Could not connect"] * 10
    with pytest.raises(UsageError, match=r"could not fetch the package index \(Could not connect\); check the net"):
        apt.newest("x", "x")
    assert fake.count("update") == apt_module.ATTEMPTS


def test_a_package_gone_from_the_mirror_renews_the_index(apt: Apt, fake: FakeApt, tmp_path: Path) -> None:
    fake.failures = ["", "", "E: Failed to fetch x  404  Not Found"]
    assert apt.download("busybox", ["busybox-static"], tmp_path / "debs")
    assert fake.count("update") == 2


def test_a_package_gone_for_good_is_an_error(apt: Apt, fake: FakeApt, tmp_path: Path) -> None:
    gone = "E: Failed to fetch x  404  Not Found"
    fake.failures = ["", "", gone, "", "", gone]
    with pytest.raises(UsageError, match="no longer has busybox"):
        apt.download("busybox", ["busybox-static"], tmp_path / "debs")


def test_a_keyring_too_old_is_replaced_through_the_verified_suite(
    apt: Apt, fake: FakeApt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt_module, "host_suite", lambda: "bookworm")
    fake.failures = ["W: GPG error: NO_PUBKEY 1\nE: The repository is not signed."]
    apt.newest("linux-image-6.12.9.*", "kernel")
    old, new = tmp_path / "keys.gpg", tmp_path / "apt/keyring.gpg"
    assert new.read_text() == "newer keys"
    assert fake.sources[0] == f"deb [signed-by={old}] {MIRROR} bookworm-backports main\n"
    assert fake.sources[1] == f"deb [signed-by={old}] {MIRROR} bookworm main\n"
    assert fake.sources[-1] == f"deb [signed-by={new}] {MIRROR} bookworm-backports main\n"


def test_a_suite_that_nothing_verifies_is_refused(
    apt: Apt, fake: FakeApt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt_module, "host_suite", lambda: "bookworm")
    fake.failures = ["E: not signed", "", "", "", *["E: not signed"] * 5]
    with pytest.raises(UsageError, match="cannot be verified"):
        apt.newest("x", "x")


def test_verification_is_asked_for_whatever_the_machine_says(apt: Apt, tmp_path: Path) -> None:
    apt.newest("linux-image-6.12.9.*", "kernel")
    conf = (tmp_path / "apt/apt.conf").read_text()
    assert 'APT::Get::AllowUnauthenticated "false";' in conf
    assert 'Acquire::AllowInsecureRepositories "false";' in conf


def test_a_command_that_does_not_exist_is_a_result() -> None:
    done = run_command(["vhost-iommu-no-such-command"])
    assert done.code == 127
    assert "No such file" in done.err


def test_a_commands_lines_are_seen_as_they_come() -> None:
    seen: list[str] = []
    done = run_command(["printf", "a\\nb\\n"], line=seen.append)
    assert (done, seen) == (Done(0, "a\nb\n", ""), ["a", "b"])


def test_two_entries_that_one_state_fetches_do_so_one_after_the_other(apt: Apt, fake: FakeApt, tmp_path: Path) -> None:
    apt.folder.mkdir()
    waiting = threading.Event()
    other = Apt(
        apt.folder, MIRROR, ["bookworm"], "arm64", lambda text: waiting.set(), fake, keyring=tmp_path / "keys.gpg"
    )
    second = threading.Thread(target=other.download, args=("busybox", ["busybox-static"], tmp_path / "debs"))
    with locked(apt.folder / "lock"):
        second.start()
        assert waiting.wait(5), "the second one did not wait"
        assert not fake.calls
    second.join()
    assert fake.count("install") == 2
