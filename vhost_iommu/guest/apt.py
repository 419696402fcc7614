# SPDX-License-Identifier: Apache-2.0
"""A private apt: fetches Debian packages without root and without touching the host's own apt.

Law: the mirror is the one this machine is configured with, and every index and package is verified by
apt against Debian's archive keyring; verification is never relaxed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.cache import locked

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEBIAN_SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable")
#: Where programs of a distribution keep the address of Debian's mirror for those who have none configured.
USUAL_MIRRORS = (
    (Path("/usr/share/python-apt/templates/Debian.info"), r"(?m)^BaseURI: *(\S+)"),
    (Path("/usr/sbin/debootstrap"), r'(?m)^DEF_MIRROR="([^"]+)"'),
)
INDEX_AGE = 3 * 24 * 3600.0  # seconds after which an index is fetched again before it is used
ATTEMPTS = 3  # of each apt-get command; apt itself tries each file as often
# With this in place of the host's packages, a kernel's tools for installing it are not fetched with it.
STAND_IN = """\
Package: tools-of-a-running-system
Status: install ok installed
Version: 1
Architecture: all
Maintainer: nobody
Provides: kmod, linux-base (= 999), initramfs-tools (= 999)
Description: stands in

"""


@dataclass(frozen=True)
class Done:
    """How a command ended: exit code (127 if it does not exist), standard output and error."""

    code: int
    out: str
    err: str


class Run(Protocol):
    """Runs a command to its end; ``line`` sees each line of its output as it comes."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        line: Callable[[str], None] | None = None,
    ) -> Done: ...


def run_command(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    line: Callable[[str], None] | None = None,
) -> Done:
    """Run ``argv`` with messages in English, because they are read, and ``env`` on top of ours."""
    out: list[str] = []
    with tempfile.TemporaryFile("w+", errors="replace") as err:
        try:
            # close_fds=False lets a child that outlives us when we are killed keep the cache's lock.
            process = subprocess.Popen(
                argv, cwd=cwd, env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}, close_fds=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True, errors="replace",
            )  # fmt: skip
        except OSError as why:
            return Done(127, "", f"{argv[0]}: {why.strerror}")
        try:
            assert process.stdout is not None
            for text in process.stdout:
                out.append(text)
                if line is not None:
                    line(text.rstrip("\n"))
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        err.seek(0)
        return Done(code, "".join(out), err.read())


def size_text(size: int) -> str:
    """``size`` bytes as people write it."""
    return f"{size / 1e6:.0f} MB" if size >= 10e6 else f"{size / 1e6:.1f} MB"


def _one_line_entries(text: str) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Entries of a .list file as (type, URI, suites, components); sources.list(5)."""
    for line in text.splitlines():
        line = re.sub(r"\[[^]]*\]", " ", line.split("#", 1)[0])
        match line.split():
            case [kind, uri, suite, *components]:
                yield kind, uri, [suite], components


def _deb822_entries(text: str) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Entries of a .sources file, one for each of its types and URIs; sources.list(5)."""
    text = re.sub(r"(?m)^#.*\n?", "", text)
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] = fields.get(name, "") + " " + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        for kind in fields.get("types", "").split():
            for uri in fields.get("uris", "").split():
                yield kind, uri, fields.get("suites", "").split(), fields.get("components", "").split()


def debian_mirror(etc: Path = Path("/etc/apt"), usual: Sequence[tuple[Path, str]] = USUAL_MIRRORS) -> str | None:
    """URI of the Debian mirror that $VI_MIRROR names, or that apt has in ``etc``, or of the usual one."""
    if named := os.environ.get("VI_MIRROR"):
        return named
    parts = etc / "sources.list.d"
    files = [etc / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        entries = _deb822_entries(text) if file.suffix == ".sources" else _one_line_entries(text)
        for kind, uri, suites, components in entries:
            debian = any(suite in DEBIAN_SUITES for suite in suites)
            if kind == "deb" and debian and "main" in components and not uri.startswith("cdrom:"):
                return uri.rstrip("/")
    for file, pattern in usual:
        with suppress(OSError):
            if found := re.search(pattern, file.read_text(errors="replace")):
                return found[1].rstrip("/")
    return None


@dataclass(frozen=True)
class Obstacle:
    """What keeps this machine from fetching Debian's packages, and what its operator can do about it, if anything."""

    why: str
    mend: str = ""


def obstacle() -> Obstacle | None:
    """None: this machine can fetch Debian's packages."""
    for tool in ("apt-get", "apt-cache", "dpkg", "dpkg-deb"):
        if shutil.which(tool) is None:
            return Obstacle(f"this machine has no {tool} to fetch anything with")
    if debian_mirror() is None:
        return Obstacle("no Debian mirror is configured in /etc/apt", "set VI_MIRROR=<a Debian mirror's address>")
    return None


def host_package(name: str, folder: Path, run: Run = run_command) -> None:
    """Unpack a package of this machine's own distribution, which its own apt verifies, into ``folder``.

    Its index may not be here; then it is fetched, and not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".host-", dir=folder) as scratch:
        command = ["apt-get", "--quiet=2", "-o", "APT::Sandbox::User=root"]
        if run([*command, "download", name], cwd=Path(scratch)).code:
            for each in ("lists/partial", "archives/partial"):
                (Path(scratch) / each).mkdir(parents=True)
            command += ["-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}",
                        "-o", "Dir::State::status=/dev/null", "-o", "APT::Update::Post-Invoke=",
                        "-o", "APT::Update::Post-Invoke-Success="]  # fmt: skip
            for step in (["update"], ["download", name]):
                done = run([*command, *step], cwd=Path(scratch))
            if done.code:
                raise UsageError(
                    f"{name} is not installed and cannot be fetched ({_reason(done)}); "
                    f"install it, as root: apt-get install {name}"
                )
        for deb in Path(scratch).glob(f"{name}_*.deb"):
            unpack(deb, folder, run)


def _quoted(value: object) -> str:
    text = str(value)
    if '"' in text or "\n" in text:
        raise UsageError(f"the cache folder {text!r} has a quote in its name; name another in $VI_CACHE")
    return f'"{text}"'


class Apt:
    """One apt state under ``folder`` for ``suites`` (the first is preferred) and one architecture."""

    def __init__(
        self,
        folder: Path,
        mirror: str,
        suites: Sequence[str],
        architecture: str,
        progress: Callable[[str], None],
        run: Run = run_command,
        sleep: Callable[[float], None] = time.sleep,
        keyring: Path | None = None,
    ) -> None:
        self.folder, self.mirror, self.suites, self.architecture = folder, mirror, tuple(suites), architecture
        self._progress, self._run, self._sleep = progress, run, sleep
        self._keyring = KEYRING if keyring is None else keyring
        self._conf = folder / "apt.conf"
        self._fetched = folder / "index-fetched"

    def newest(self, pattern: str, what: str) -> str:
        """The package whose name matches ``pattern`` and carries the highest version numbers."""
        with self._alone():
            self._prepare()
            names = [name for name in self._names() if re.fullmatch(pattern, name)]
            if not names:
                self._update()
                names = [name for name in self._names() if re.fullmatch(pattern, name)]
        if not names:
            raise UsageError(
                f"the Debian mirror {self.mirror} has no {what} in {', '.join(self.suites)}; "
                "configure a mirror that carries these suites or name one in $VI_MIRROR"
            )
        return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])

    def download(
        self,
        what: str,
        packages: Sequence[str],
        archives: Path,
        *,
        dependencies: bool = False,
        present: Sequence[str] = (),
    ) -> list[Path]:
        """Fetch ``packages`` into ``archives`` and return their .deb files.

        An interrupted download in the same folder is resumed. With ``dependencies`` all that they depend
        on comes too, as if nothing were installed here; without, ``present`` are further packages that count
        as installed, each ``name`` or ``name (= version)``.
        """
        stand_in = (
            "" if dependencies else STAND_IN.replace("Provides: ", "Provides: " + "".join(f"{p}, " for p in present))
        )
        with self._alone():
            self._prepare()
            try:
                return self._download(what, packages, archives, dependencies, stand_in)
            except _StaleError:
                # The mirror no longer has what our index names: the index is old.
                self._update()
                return self._download(what, packages, archives, dependencies, stand_in)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process uses this state meanwhile: two entries of the cache may be fetched by one state."""
        self.folder.mkdir(parents=True, exist_ok=True)

        def waiting() -> None:
            self._progress(f"waiting for another process that uses {self.folder}…")

        with locked(self.folder / "lock", waiting):
            yield

    def _download(self, what: str, packages: Sequence[str], archives: Path, closure: bool, stand_in: str) -> list[Path]:
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        (self.folder / "status").write_text(stand_in)
        # Not "apt-get download": that one starts an interrupted file anew.
        command = ["install", "--download-only", "--no-install-recommends", "--yes", *packages]
        # Against an empty archive folder apt lists all files, also those that are here already.
        empty = self.folder / "empty"
        (empty / "partial").mkdir(parents=True, exist_ok=True)
        listing = self._apt_get([*command, "--print-uris"], what, archives=empty)
        wanted = re.findall(r"^'[^']*' (\S+\.deb) (\d+)", listing, re.MULTILINE)
        if not wanted:
            raise UsageError(f"apt-get names no files for {what}; try again, or name it by hand (see doctor)")
        total = sum(int(size) for _, size in wanted)
        count = "1 package" if len(wanted) == 1 else f"{len(wanted)} packages"
        here = sum(_size(archives / name) or _size(archives / "partial" / name) for name, _ in wanted)
        resumed = f", {size_text(here)} of it here already" if here else ""
        self._progress(f"fetching {what} ({count}, {size_text(total)}{resumed})…")
        meter = _Meter(what, total, self._progress)
        self._apt_get([*command, "--quiet=2", "-o", "APT::Status-Fd=1"], what, archives=archives, line=meter)
        asked = tuple(f"{package}_" for package in packages)
        files = [archives / name for name, _ in wanted if closure or name.startswith(asked)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise UsageError(f"apt-get left out {missing[0]} of {what}; remove {archives} and try again")
        return files

    def _names(self) -> Iterable[str]:
        done = self._run(["apt-cache", "-c", str(self._conf), "pkgnames"])
        if done.code != 0:
            raise UsageError(f"apt-cache failed ({_reason(done)}); remove {self.folder} and try again")
        return done.out.split()

    def _prepare(self) -> None:
        self._configure(self._keyring)
        try:
            age = time.time() - self._fetched.stat().st_mtime
        except FileNotFoundError:
            age = INDEX_AGE
        if not 0 <= age < INDEX_AGE:
            self._update()

    def _configure(self, keyring: Path) -> None:
        for name in ("lists/partial", "empty/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        newer = self.folder / "keyring.gpg"  # fetched by an earlier run that needed it
        if newer.exists():
            keyring = newer
        sources = [f"deb [signed-by={keyring}] {self.mirror} {suite} main\n" for suite in self.suites]
        (self.folder / "sources.list").write_text("".join(sources))
        (self.folder / "status").touch()
        settings = {
            "Dir::Etc::SourceList": self.folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::State::extended_states": self.folder / "extended_states",
            "Dir::Cache": self.folder,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Dir::Log": self.folder,
            "APT::Architecture": self.architecture,
            "APT::Architectures::": self.architecture,
            "APT::Default-Release": self.suites[0],
            "APT::Update::Error-Mode": "any",  # a suite that fails is an error, not a warning
            "APT::Sandbox::User": "root",  # as root, do not drop to a user that cannot enter the cache
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowDowngradeToInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::GzipIndexes": "true",  # a third of the space
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
            "Acquire::https::Timeout": "30",
        }
        # The machine's hooks are about its own packages; its proxies and credentials stay in force.
        cleared = ("APT::Architectures", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success",
                   "Acquire::IndexTargets::deb::Contents-deb", "Acquire::Languages")  # fmt: skip
        lines = [f"#clear {name};\n" for name in cleared]
        lines += [f"{name} {_quoted(value)};\n" for name, value in settings.items()]
        self._conf.write_text("".join(lines))

    def _update(self) -> None:
        self._progress(f"fetching Debian's package index ({', '.join(self.suites)}; {self.architecture})…")
        try:
            self._apt_get(["update", "--quiet=2"], "the package index")
        except _UnverifiedError as why:
            if (self.folder / "keyring.gpg").exists():
                raise UsageError(f"{why}; update the package debian-archive-keyring") from None
            self._newer_keyring()
            self._apt_get(["update", "--quiet=2"], "the package index")
        self._fetched.touch()

    def _newer_keyring(self) -> None:
        """Take Debian's current keyring from the host's own suite, which the host's keyring verifies."""
        suite = host_suite()
        if suite in self.suites:
            raise UsageError(
                f"{self._keyring} does not verify Debian's {suite}; update the package debian-archive-keyring"
            )
        host = Apt(
            self.folder / "keyring", self.mirror, [suite], self.architecture, self._progress, self._run,
            self._sleep, self._keyring,
        )  # fmt: skip
        package = "debian-archive-keyring"
        (deb,) = host.download("Debian's archive keyring", [package], host.folder / "archives")
        unpack(deb, host.folder / "files", self._run)
        newer = host.folder / "files" / KEYRING.relative_to("/")
        os.replace(newer.resolve(), self.folder / "keyring.gpg")
        self._configure(self._keyring)

    def _apt_get(
        self,
        arguments: Sequence[str],
        what: str,
        archives: Path | None = None,
        line: Callable[[str], None] | None = None,
    ) -> str:
        argv = ["apt-get", "-c", str(self._conf), *arguments]
        if archives is not None:
            argv += ["-o", f"Dir::Cache::archives={archives}"]
        done = Done(0, "", "")
        for attempt in range(ATTEMPTS):
            if attempt:
                pause = 2.0**attempt
                self._progress(f"{what}: {_reason(done)}; trying again in {pause:.0f} s…")
                self._sleep(pause)
            done = self._run(argv, line=line)
            if done.code == 0:
                return done.out
            if re.search(r"NO_PUBKEY|EXPKEYSIG|not signed|public key is not available", done.err):
                raise _UnverifiedError(f"the Debian mirror {self.mirror} cannot be verified ({_reason(done)})")
            if re.search(r"\b404\b", done.err) and "update" not in arguments:
                raise _StaleError(f"the Debian mirror {self.mirror} no longer has {what}; try again later")
            if "Unable to locate package" in done.err:
                raise _StaleError(f"the Debian mirror {self.mirror} has no {what} ({_reason(done)})")
            if "No space left" in done.err:
                break
        raise UsageError(
            f"apt-get could not fetch {what} ({_reason(done)}); check the network, the Debian mirror "
            f"{self.mirror} and the space in {self.folder}, and try again"
        )


class _StaleError(UsageError):
    """The index names what the mirror does not have."""


class _UnverifiedError(UsageError):
    """The keyring does not verify the mirror's index."""


class _Meter:
    """Turns apt's status lines (``dlstatus:1:12.5:text``) into one line of progress every few seconds."""

    def __init__(self, what: str, total: int, progress: Callable[[str], None], every: float = 3.0) -> None:
        self._what, self._total, self._progress, self._every = what, total, progress, every
        self._next = time.monotonic() + every

    def __call__(self, line: str) -> None:
        found = re.match(r"dlstatus:\d+:([\d.]+):", line)
        if found and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._progress(f"  {self._what}: {float(found[1]):.0f} % of {size_text(self._total)}")


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _reason(done: Done) -> str:
    """The first complaint of a command, without apt's prefix."""
    lines = [line for line in done.err.splitlines() if line.startswith(("E:", "W:"))] or done.err.splitlines()
    errors = [line for line in lines if line.startswith("E:")] or lines
    return re.sub(r"^[EW]: *", "", errors[0]).strip() if errors else f"exit code {done.code}"


def host_suite(os_release: Path = Path("/etc/os-release")) -> str:
    """The Debian release this machine runs; a derivative counts as the oldest one that serves."""
    try:
        found = re.search(r'(?m)^VERSION_CODENAME="?(\w+)', os_release.read_text())
    except OSError:
        found = None
    return found[1] if found and found[1] in DEBIAN_SUITES else "bookworm"


def unpack(deb: Path, folder: Path, run: Run = run_command) -> None:
    """Unpack a .deb file's tree into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run(["dpkg-deb", "--extract", str(deb), str(folder)])
    if done.code != 0:
        raise UsageError(f"{deb.name} could not be unpacked ({_reason(done)}); free some space and try again")
