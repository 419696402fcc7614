# SPDX-License-Identifier: Apache-2.0
"""What a guest needs and a machine may lack: QEMU, kernels, busybox and a cross compiler.

Law: what is named by hand comes first, then what is on PATH and able, then a private copy made of Debian's
packages in the cache. Nothing outside the cache is written, and nothing needs root.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.guest import apt
from vhost_iommu.guest.apt import (
    Apt,
    Obstacle,
    Run,
    debian_mirror,
    host_package,
    host_suite,
    obstacle,
    run_command,
    unpack,
)
from vhost_iommu.guest.cache import Cache, default_folder
from vhost_iommu.guest.headers import make_usable
from vhost_iommu.guest.kbuild import Kbuild, unpack_source
from vhost_iommu.guest.loader import libraries_of, library_folders, loader_of, wrap_programs
from vhost_iommu.guest.share import share

QEMU = "qemu-system-aarch64"
QEMU_MINIMUM = (10, 1, 0)  # the first with a vfio-user client
# Parts of packages that nothing here reads; device trees of boards are the larger half of a kernel.
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian",
          "usr/share/bug", "usr/lib/linux-image-*", "usr/lib/modules/*/dtb",
          "usr/src/linux-headers-*/include/dt-bindings", "lib/modules/*/build", "lib/modules/*/source")  # fmt: skip


@dataclass(frozen=True)
class Flavour:
    """Where a Debian kernel is: its suite, the form of its version, and the packages that hold it, or its source."""

    suite: str
    version: str
    packages: tuple[str, ...]
    kbuild: str = ""  #: the package of programs that build modules, where the version does not name it
    config: tuple[str, ...] = ()  #: parts of guest/kernel-config with which a source is compiled here


_SEVEN = ("linux-binary-", "linux-base-", "linux-modules-")
FLAVOURS: Mapping[str, Flavour] = {
    "6.12": Flavour("bookworm-backports", r"6\.12\.\d+\+\w+-arm64", ("linux-image-",)),
    "6.1": Flavour("bookworm", r"6\.1\.\d+-\d+-arm64", ("linux-image-",), "linux-kbuild-6.1"),
    "7": Flavour("trixie-backports", r"7\.\d+\.\d+\+\w+-arm64", _SEVEN),
    "7-16k": Flavour("trixie-backports", r"7\.\d+\.\d+\+\w+-arm64-16k", _SEVEN),
    "6.12-small": Flavour("bookworm-backports", r"6\.12", ("linux-source-",), config=("virt", "disks", "smmu")),
}


@dataclass(frozen=True)
class Qemu:
    """A QEMU that speaks vfio-user: the start of its command line, its version, and where it is from."""

    command: tuple[str, ...]
    version: tuple[int, int, int]
    origin: str


@dataclass(frozen=True)
class Cross:
    """Compiles and links freestanding AArch64 code.

    ``prefix`` is what GNU makefiles call CROSS_COMPILE, or None with clang; ``env`` goes on top of the
    environment of each command.
    """

    cc: tuple[str, ...]
    prefix: str | None
    origin: str
    env: Mapping[str, str] = field(default_factory=dict)


class MissingError(UsageError):
    """Things that are neither here nor can be fetched: (what, the variable that names one)."""

    def __init__(self, things: Iterable[tuple[str, str]], obstacle: Obstacle) -> None:
        self.things, self.obstacle = tuple(things), obstacle
        names = ", ".join(f"{what} (${variable})" for what, variable in self.things)
        are, each = ("is", "it") if len(self.things) == 1 else ("are", "each")
        mend = f"{obstacle.mend}, or get" if obstacle.mend else "get"
        super().__init__(
            f"{names} {are} not here, and {obstacle.why}; {mend} {each} by other means and name it in its variable"
        )


def all_at_once(steps: Iterable[Callable[[], object]]) -> None:
    """Take each of ``steps``; what is missing for them is told at once."""
    missing: list[MissingError] = []
    for step in steps:
        try:
            step()
        except MissingError as why:
            missing.append(why)
    if missing:
        raise MissingError(dict.fromkeys(thing for each in missing for thing in each.things), missing[0].obstacle)


class Assets:
    """Finds or fetches what guests need; one instance works in one cache folder."""

    def __init__(
        self,
        cache: Path | None = None,
        progress: Callable[[str], None] = lambda text: None,
        run: Run = run_command,
    ) -> None:
        self.folder = default_folder() if cache is None else cache.absolute()
        self._progress, self._run = progress, run
        self._cache = Cache(self.folder, progress)

    def facts(self, entry: str) -> dict[str, str] | None:
        """What is known of an entry of the cache; None if it is not there."""
        return self._cache.stamp(entry)

    # QEMU

    def qemu(self, named: Path | None = None) -> Qemu:
        """The QEMU that is named here or in $VI_QEMU, else an able one on PATH, else a private copy."""
        if (found := self._local_qemu(named)) is not None:
            return found
        folder = self._cache.entry("qemu", self._make_qemu)
        return self._private_qemu(folder)

    def qemu_here(self) -> Qemu | None:
        """As qemu(), but nothing is fetched."""
        if (found := self._local_qemu(None)) is not None:
            return found
        return None if self.facts("qemu") is None else self._private_qemu(self.folder / "qemu")

    def qemu_on_path(self) -> Qemu | str | None:
        """The QEMU on PATH, or which it is and why it is passed over."""
        path = shutil.which(QEMU)
        found = None if path is None else self._probe((path,), path)
        return f"{path} {found}" if isinstance(found, str) else found

    def _local_qemu(self, named: Path | None) -> Qemu | None:
        if named is None:
            named = by_hand("VI_QEMU")
        if named is not None:
            found = self._probe((str(named),), str(named))
            if isinstance(found, str):
                raise UsageError(f"{named} {found}; name a {QEMU} of 10.1 or newer, or none to have one fetched")
            return found
        return on_path if isinstance(on_path := self.qemu_on_path(), Qemu) else None

    def _probe(self, command: tuple[str, ...], origin: str) -> Qemu | str:
        """The QEMU behind ``command``, or what it lacks."""
        done = self._run([*command, "--version"])
        match = re.search(r"QEMU emulator version (\d+)\.(\d+)(?:\.(\d+))?", done.out)
        if done.code != 0 or not match:
            return f"does not run as QEMU ({(done.err.splitlines() or ['it prints no version'])[0]})"
        version = (int(match[1]), int(match[2]), int(match[3] or 0))
        if version < QEMU_MINIMUM:
            return f"is {match[1]}.{match[2]} and has no vfio-user client"
        if '"vfio-user-pci"' not in self._run([*command, "-device", "help"]).out:
            return "was built without the device vfio-user-pci"
        return Qemu(command, version, origin)

    def _make_qemu(self, folder: Path) -> dict[str, str]:
        _require_apt("QEMU 10.1 or newer", "VI_QEMU")
        if isinstance(passed_over := self.qemu_on_path(), str):
            self._progress(f"{passed_over}, so one is fetched")
        debs = self._fetch(
            "QEMU", ["qemu-system-arm", "qemu-system-data"], ["trixie-backports", "trixie"],
            self._host_architecture(), folder, dependencies=True,
        )  # fmt: skip
        qemu = self._probe(_private_qemu_command(folder), str(folder))
        if isinstance(qemu, str):
            raise UsageError(f"the fetched QEMU {qemu}; build one of 10.1 or newer and name it in $VI_QEMU")
        self._discard_archives("QEMU")
        version = ".".join(map(str, qemu.version))
        self._progress(f"QEMU {version} is in {self.folder / 'qemu'} ({len(debs)} packages)")
        return {"version": version, "packages": " ".join(debs)}

    def _private_qemu(self, folder: Path) -> Qemu:
        stamp = self._cache.stamp(folder.name) or {}
        major, minor, micro = (int(number) for number in stamp["version"].split("."))
        return Qemu(_private_qemu_command(folder), (major, minor, micro), str(folder))

    # Kernels and busybox

    def kernel(self, flavour: str = "6.12") -> Path:
        """Folder with an unpacked Debian kernel for arm64; see KernelTree for what is in it."""
        if flavour not in FLAVOURS:
            raise UsageError(f"there is no kernel flavour {flavour!r}; take one of {', '.join(FLAVOURS)}")
        if (named := by_hand(kernel_variable(flavour))) is not None:
            return named
        make = self._build_kernel if FLAVOURS[flavour].config else self._make_kernel
        return self._cache.entry(kernel_entry(flavour), lambda folder: make(flavour, folder))

    def _make_kernel(self, flavour: str, folder: Path) -> dict[str, str]:
        _require_apt(f"Debian's kernel {flavour}", kernel_variable(flavour))
        version, debs = self._fetch_newest(flavour, "kernel", folder)
        self._progress(f"kernel {version} is in {self.folder / kernel_entry(flavour)}")
        return {"version": version, "packages": " ".join(debs)}

    def _build_kernel(self, flavour: str, folder: Path) -> dict[str, str]:
        """Compile a kernel of our own configuration: it takes some minutes, and 0.7 GB meanwhile."""
        _require_apt(f"the source of kernel {flavour}", kernel_variable(flavour))
        if shutil.which("gcc") is None:
            bar = Obstacle("compiling it takes a gcc for this machine too", "install gcc and libc6-dev")
            raise MissingError([(f"kernel {flavour}", kernel_variable(flavour))], bar)
        cross, tools = self.cross(gnu=True), self.tools("make", "flex", "bison", "bc")
        package = folder / "package"
        _, debs = self._fetch_newest(flavour, "source of kernel", package)
        self._progress(f"unpacking the source of kernel {flavour}…")
        (archive,) = package.glob("usr/src/linux-source-*.tar.xz")
        unpack_source(archive, folder)
        shutil.rmtree(package)
        kernel = Kbuild(folder, str(cross.prefix), {**cross.env, **tools}, self._run, self._progress)
        kernel.configure([share(f"kernel-config/{part}.config") for part in FLAVOURS[flavour].config])
        self._progress(f"compiling kernel {flavour}…")
        version = kernel.compile(f"kernel {flavour}")
        kernel.prune()
        self._progress(f"kernel {version} is in {self.folder / kernel_entry(flavour)}")
        return {"version": version, "packages": " ".join(debs)}

    def _fetch_newest(self, flavour: str, what: str, folder: Path) -> tuple[str, list[str]]:
        """Unpack the flavour's packages of the newest version into ``folder``; that version, and their names."""
        about = FLAVOURS[flavour]
        first = about.packages[0]
        source = self._apt([about.suite], "arm64")
        version = source.newest(re.escape(first) + about.version, f"kernel {flavour}").removeprefix(first)
        what = f"{what} {version}"
        names = [package + version for package in about.packages]
        debs = self._fetch(what, names, [about.suite], "arm64", folder, present=["binutils", "xz-utils"])
        self._discard_archives(what)
        return version, debs

    def headers(self, flavour: str = "6.12") -> Path:
        """Folder in which ``make modules`` builds modules for exactly the kernel that ``kernel`` gives.

        A kernel that is named by hand is its own build folder, or has one named in ``headers_variable``.
        """
        if (named := by_hand(headers_variable(flavour))) is not None:
            return named
        if (kernel := by_hand(kernel_variable(flavour))) is not None:
            if (kernel / "Module.symvers").is_file():
                return kernel
            raise UsageError(
                f"{kernel} is no build folder; name the one of that kernel in ${headers_variable(flavour)}"
            )
        built = self.kernel(flavour)
        if FLAVOURS[flavour].config:
            return built
        stamp = self._cache.stamp(kernel_entry(flavour)) or {}
        version = stamp["version"]
        entry = self._cache.entry(f"headers-{version}", lambda folder: self._make_headers(flavour, stamp, folder))
        return entry / f"usr/src/linux-headers-{version}"

    def _make_headers(self, flavour: str, kernel: Mapping[str, str], folder: Path) -> dict[str, str]:
        _require_apt(f"the headers of Debian's kernel {flavour}", headers_variable(flavour))
        about, version = FLAVOURS[flavour], kernel["version"]
        base = version.partition("-arm64")[0]
        common, kbuild = f"linux-headers-{base}-common", about.kbuild or f"linux-kbuild-{base}"
        # The very build of the image: names of files have it between the underscores.
        image = [name.split("_")[:2] for name in kernel["packages"].split()]
        present = [f"{name} (= {build.replace('%3a', ':')})" for name, build in image]
        what = f"headers of kernel {version}"
        try:
            debs = self._fetch(
                what, [f"linux-headers-{version}", common], [about.suite], "arm64", folder,
                present=[*present, kbuild, "gcc-12", "gcc-14-for-host"],
            )  # fmt: skip
            # Programs that run here; of what they link with, those that build modules need the C library alone.
            debs += self._fetch(
                what, [kbuild, "libc6"], [about.suite, about.suite.removesuffix("-backports")],
                self._host_architecture(), folder,
                present=["libgcc-s1", "libelf1 (= 999)", "libelf1t64 (= 999)", "libssl3 (= 999)",
                         "libssl3t64 (= 999)", "zlib1g (= 1:999)", "pahole"],
            )  # fmt: skip
        except UsageError as why:
            raise UsageError(
                f"{why}; if it has a newer kernel by now, remove {self.folder / kernel_entry(flavour)} "
                "so that both are fetched again"
            ) from None
        make_usable(folder, version, common)
        self._discard_archives(what)
        self._progress(f"{what} are in {self.folder / f'headers-{version}'}")
        return {"version": version, "packages": " ".join(debs)}

    def busybox(self) -> Path:
        """A static busybox for arm64."""
        if (named := by_hand("VI_BUSYBOX")) is not None:
            return named
        return self._cache.entry("busybox", self._make_busybox) / "busybox"

    def _make_busybox(self, folder: Path) -> dict[str, str]:
        _require_apt("a static busybox for arm64", "VI_BUSYBOX")
        debs = self._fetch("busybox", ["busybox-static"], ["bookworm"], "arm64", folder / "tree")
        found = [path for path in (folder / "tree/bin/busybox", folder / "tree/usr/bin/busybox") if path.is_file()]
        if not found:
            raise UsageError("Debian's busybox-static holds no busybox; name a static arm64 one in $VI_BUSYBOX")
        os.rename(found[0], folder / "busybox")
        shutil.rmtree(folder / "tree")
        self._discard_archives("busybox")
        self._progress(f"busybox is in {self.folder / 'busybox'}")
        return {"packages": " ".join(debs)}

    def kexec(self) -> Path:
        """Folder with Debian's kexec for arm64, its libraries and its loader, which is called ld.so."""
        if (named := by_hand("VI_KEXEC")) is not None:
            return named
        return self._cache.entry("kexec", self._make_kexec)

    def _make_kexec(self, folder: Path) -> dict[str, str]:
        _require_apt("kexec for arm64", "VI_KEXEC")
        tree = folder / "tree"
        debs = self._fetch(
            "kexec-tools", ["kexec-tools"], ["bookworm"], "arm64", tree, dependencies=True,
            leave_out=("debconf_", "gcc-12-base_", "libcrypt1_", "libgcc-s1_", "perl-base_"),
        )  # fmt: skip
        found = [path for path in (tree / "sbin/kexec", tree / "usr/sbin/kexec") if path.is_file()]
        if not found:
            raise UsageError("Debian's kexec-tools hold no kexec; name a folder with one for arm64 in $VI_KEXEC")
        for path in (found[0], *libraries_of(found[0], tree)):
            shutil.copyfile(path, folder / ("ld.so" if path.name.startswith("ld-") else path.name))
        shutil.rmtree(tree)
        self._discard_archives("kexec-tools")
        self._progress(f"kexec is in {self.folder / 'kexec'}")
        return {"packages": " ".join(debs)}

    # Cross compiler

    def cross(self, *, gnu: bool = False) -> Cross:
        """The cross compiler that $VI_CROSS names by its prefix, an able one on PATH, or a private copy.

        ``gnu``: one with a ``prefix``, as Debian builds its kernels with.
        """
        if isinstance(found := self._local_cross(gnu), Cross):
            return found
        return _private_cross(self._cache.entry(_cross_entry(), self._make_cross))

    def cross_here(self) -> Cross | str | None:
        """As cross(), but nothing is fetched; what is on PATH may be passed over for a reason."""
        if isinstance(found := self._local_cross(), Cross) or self.facts(_cross_entry()) is None:
            return found
        return _private_cross(self.folder / _cross_entry())

    def _local_cross(self, gnu: bool = False) -> Cross | str | None:
        if prefix := os.environ.get("VI_CROSS"):
            cross = _gnu(prefix, f"{prefix}gcc")
            if lack := self._lack(cross):
                raise UsageError(f"$VI_CROSS={prefix} {lack}; name the prefix of a gcc for AArch64")
            return cross
        candidates = []
        for prefix in ("aarch64-linux-gnu-", *([""] if os.uname().machine == "aarch64" else [])):
            if (path := shutil.which(f"{prefix}gcc")) and shutil.which(f"{prefix}objcopy"):
                candidates.append(_gnu(prefix, path))
        lacks = []
        if not gnu and (path := shutil.which("clang")):
            if shutil.which("ld.lld"):
                candidates.append(Cross(("clang", "--target=aarch64-linux-gnu", "-fuse-ld=lld"), None, path))
            else:
                lacks.append(f"{path} lacks its linker ld.lld, which the package lld has")
        for cross in candidates:
            lack = self._lack(cross)
            if not lack:
                return cross
            lacks.append(f"{cross.origin} {lack}")
        return "; ".join(lacks) or None

    def _lack(self, cross: Cross) -> str:
        """What keeps ``cross`` from making a program of freestanding C and assembly; empty if nothing."""
        with tempfile.TemporaryDirectory(prefix="vi-cross-") as name:
            folder = Path(name)
            (folder / "a.S").write_text(".global _start\n_start: mrs x0, currentel\n b main\n")
            (folder / "b.c").write_text("unsigned long a; void main(void) { for (;;) a += 1; }\n")
            link = [*cross.cc, "-ffreestanding", "-nostdlib", "-static", "-o", "c.elf", "a.S", "b.c"]
            done = self._run(link, cwd=folder, env=cross.env)
            if done.code != 0:
                return f"does not compile for AArch64 ({(done.err.splitlines() or ['no reason given'])[0]})"
        return ""

    def _make_cross(self, folder: Path) -> dict[str, str]:
        _require_apt("a cross compiler for AArch64", "VI_CROSS")
        suite = host_suite()
        # The host's own C library serves: it is of the same suite, and must match the host's loader.
        debs = self._fetch(
            "gcc for AArch64", ["gcc-aarch64-linux-gnu", "binutils-aarch64-linux-gnu"], [suite],
            self._host_architecture(), folder, dependencies=True, leave_out=("libc6_",),
        )  # fmt: skip
        if lack := self._lack(_private_cross(folder)):
            raise UsageError(f"the fetched gcc {lack}; install gcc-aarch64-linux-gnu, or name one in $VI_CROSS")
        self._discard_archives("gcc for AArch64")
        self._progress(f"gcc for AArch64 is in {self.folder / f'cross-{suite}'}")
        return {"packages": " ".join(debs)}

    def tools(self, *names: str) -> dict[str, str]:
        """An environment in which the programs ``names`` are found, of make, flex, bison and bc."""
        if all(map(shutil.which, names)):
            return {}
        folder = self._cache.entry(f"tools-{host_suite()}", self._make_tools)
        programs = folder / "usr/bin"
        return {"PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}", "M4": str(programs / "m4"),
                "BISON_PKGDATADIR": str(folder / "usr/share/bison")}  # fmt: skip

    def _make_tools(self, folder: Path) -> dict[str, str]:
        what = "make, flex, bison and bc"
        if (bar := obstacle()) is not None:
            raise UsageError(f"{what} are not all here, and {bar.why}; install them")
        debs = self._fetch(
            what, ["make", "flex", "bison", "bc"], [host_suite()], self._host_architecture(), folder,
            dependencies=True, leave_out=("debconf_", "dpkg_", "perl-base_", "tar_"),
        )  # fmt: skip
        wrap_programs(folder, (folder / "usr/bin").iterdir())
        self._discard_archives(what)
        self._progress(f"{what} are in {self.folder / f'tools-{host_suite()}'}")
        return {"packages": " ".join(debs)}

    # Everything at once

    def fetch_all(self, kernels: Sequence[str] = ("6.12",), *, modules: bool = True) -> None:
        """Find or fetch everything that guests need; with ``modules`` what kernel modules are built with, too.

        UsageError that names all that is missing.
        """
        all_at_once([self.qemu, self.busybox, self.cross, *(partial(self.kernel, flavour) for flavour in kernels)])
        for flavour in kernels if modules else ():
            if by_hand(kernel_variable(flavour)) is None:
                self.headers(flavour)
        version = ".".join(map(str, self.qemu().version))
        self._progress(f"ready: QEMU {version}, busybox, a cross compiler, kernel {', '.join(kernels)}")

    # Packages

    def _host_architecture(self) -> str:
        return self._run(["dpkg", "--print-architecture"]).out.strip()

    def _apt(self, suites: Sequence[str], architecture: str) -> Apt:
        folder = self.folder / "apt" / f"{architecture}-{suites[0]}"
        keyring = apt.KEYRING
        if not keyring.exists():
            keyring = self._cache.entry("keyring", self._make_keyring) / apt.KEYRING.name
        return Apt(folder, debian_mirror() or "", suites, architecture, self._progress, self._run, keyring=keyring)

    def _make_keyring(self, folder: Path) -> dict[str, str]:
        host_package("debian-archive-keyring", folder / "tree", self._run)
        shutil.copyfile(folder / "tree" / apt.KEYRING.relative_to("/"), folder / apt.KEYRING.name)
        shutil.rmtree(folder / "tree")
        return {}

    def _archives(self, what: str) -> Path:
        return self.folder / "downloads" / re.sub(r"[^\w.+-]", "-", what)

    def _discard_archives(self, what: str) -> None:
        shutil.rmtree(self._archives(what))

    def _fetch(
        self,
        what: str,
        packages: Sequence[str],
        suites: Sequence[str],
        architecture: str,
        folder: Path,
        *,
        dependencies: bool = False,
        leave_out: tuple[str, ...] = (),
        present: Sequence[str] = (),
    ) -> list[str]:
        """Download and unpack into ``folder``; returns the names of the packages' files without suffix."""
        source = self._apt(suites, architecture)
        debs = source.download(what, packages, self._archives(what), dependencies=dependencies, present=present)
        debs = [deb for deb in debs if not deb.name.startswith(leave_out or "/")]
        self._progress(f"unpacking {what}…")
        for deb in debs:
            unpack(deb, folder, self._run)
        for pattern in UNUSED:
            for path in folder.glob(pattern):
                if path.is_symlink():
                    path.unlink()
                else:
                    shutil.rmtree(path)
        return [deb.stem for deb in debs]


def _require_apt(thing: str, variable: str) -> None:
    """MissingError unless this machine can fetch things."""
    if (why := obstacle()) is not None:
        raise MissingError([(thing, variable)], why)


def kernel_entry(flavour: str) -> str:
    """The cache's entry of a kernel; one that is built here is named by its configuration too."""
    if not (config := FLAVOURS[flavour].config):
        return f"kernel-{flavour}"
    hashed = hashlib.sha256(b"".join(share(f"kernel-config/{part}.config").read_bytes() for part in config))
    return f"kernel-{flavour}-{hashed.hexdigest()[:8]}"


def kernel_variable(flavour: str) -> str:
    """The environment variable that names a kernel of this flavour by hand."""
    return "VI_KERNEL_" + re.sub(r"\W", "_", flavour.upper())


def headers_variable(flavour: str) -> str:
    """The environment variable that names a folder to build modules in for a kernel of this flavour."""
    return kernel_variable(flavour).replace("KERNEL", "HEADERS")


def by_hand(variable: str) -> Path | None:
    """The path that an environment variable names, if it is set."""
    name = os.environ.get(variable)
    if name and not Path(name).exists():
        raise UsageError(f"{name} does not exist; correct ${variable} or unset it")
    return Path(name) if name else None


def _private_qemu_command(folder: Path) -> tuple[str, ...]:
    """QEMU with the loader and the libraries it was fetched with, whatever the host's are."""
    return (
        str(loader_of(folder)), "--library-path", ":".join(map(str, library_folders(folder))),
        "--argv0", QEMU, str(folder / "usr/bin" / QEMU), "-L", str(folder / "usr/share/qemu"),
    )  # fmt: skip


def _gnu(prefix: str, origin: str) -> Cross:
    return Cross((f"{prefix}gcc",), prefix, origin)


def _cross_entry() -> str:
    return f"cross-{host_suite()}"


def _private_cross(folder: Path) -> Cross:
    prefix = str(folder / "usr/bin/aarch64-linux-gnu-")
    libraries = ":".join(map(str, library_folders(folder)))
    return Cross((f"{prefix}gcc",), prefix, str(folder), {"LD_LIBRARY_PATH": libraries})
