# SPDX-License-Identifier: Apache-2.0
"""Builds the kernel modules of guest/kmod for one exact kernel, against its headers or in its build folder.

Law: as build.py's: named by a hash of everything that went into it, in the cache under build/, whole or not at all.
Nothing is written where the headers are. The modules are GPL-2.0, and nothing of them is linked with what is here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.apt import Run, run_command
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.headers import write_makefiles
from vhost_iommu.guest.share import share

#: The module that drives the DMA engine.
ENGINE = "vt_engine"
_RELEASE = "include/generated/utsrelease.h"
#: What a compiler says in vain after its first errors.
_ERRORS = 8
#: What a kernel that a newer gcc compiled asks of ours, by the option that says so; without, it has another way.
_NEWER = {"CC_HAS_MIN_FUNCTION_ALIGNMENT": "-fmin-function-alignment=8"}
#: ELF's e_machine, by what uname says.
_MACHINES = {"x86_64": 62, "aarch64": 183}


class Modules:
    """Builds in one folder of ``headers``, when something is not built yet."""

    def __init__(self, assets: Assets, headers: Path, run: Run = run_command) -> None:
        """UsageError: nothing can be built there, and what would mend it."""
        self._assets, self._headers, self._run = assets, headers.resolve(), run
        self.release = release_of(headers)
        self.folder = assets.folder / "build"
        self._check()

    def module(self, name: str = ENGINE) -> Path:
        """The .ko file; UsageError when there is nothing to build with, or it does not compile."""
        source = share("kmod")
        files = [file for file in sorted(source.iterdir()) if file.suffix in (".c", ".h") or file.name == "Kbuild"]
        hashed = hashlib.sha256(f"{self._headers}\0{self.release}\0".encode())
        # A kernel that was built again may have other structures under the same release.
        for built in ("Module.symvers", "include/generated/autoconf.h", "System.map", "vmlinux"):
            hashed.update(_stamp(self._headers / built))
        for file in files:
            hashed.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        final = self.folder / f"{name}-{hashed.hexdigest()[:16]}.ko"
        if not final.exists():
            self._build(files, name, final)
        return final

    def _check(self) -> None:
        if not (self._headers / "Module.symvers").is_file() and self._configured("MODVERSIONS"):
            raise UsageError(f"{self._headers} has no Module.symvers; run 'make modules' there")
        tool = self._headers / "scripts/mod/modpost"
        if not tool.is_file():
            raise UsageError(
                f"{self._headers} has no scripts/mod/modpost; run 'make modules_prepare' there, or unpack linux-kbuild "
                "beside"
            )
        with tool.open("rb") as file:
            head = file.read(20)
        machine = os.uname().machine
        if head[:4] == b"\x7fELF" and int.from_bytes(head[18:20], "little") != _MACHINES.get(machine, head[18]):
            raise UsageError(
                f"{tool} is a program for another processor; unpack linux-kbuild for {machine}, or run "
                "'make modules_prepare' there"
            )

    def _configured(self, option: str) -> bool:
        try:
            return f"CONFIG_{option}=y\n" in (self._headers / "include/config/auto.conf").read_text()
        except OSError:
            return False

    def _tools(self) -> tuple[list[str], list[str], Mapping[str, str]]:
        """Arguments of make, what strips, and the environment of both: as the kernel itself was compiled."""
        if self._configured("CC_IS_CLANG") and all(map(shutil.which, ("clang", "ld.lld", "llvm-objcopy"))):
            return ["LLVM=1"], ["llvm-objcopy"], {}
        cross = self._assets.cross(gnu=True)
        arguments = [f"CROSS_COMPILE={cross.prefix}"]
        for option, flag in _NEWER.items():
            probe = [*cross.cc, flag, "-E", "-x", "c", "/dev/null"]
            if self._configured(option) and self._run(probe, env=cross.env).code:
                arguments.append(f"CONFIG_{option}=")
        return arguments, [f"{cross.prefix}objcopy"], cross.env

    def _build(self, files: Sequence[Path], name: str, final: Path) -> None:
        arguments, objcopy, env = self._tools()
        if not (self._headers / "Module.symvers").is_file():
            arguments.append("KBUILD_MODPOST_WARN=1")  # that it cannot know the kernel's symbols
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.folder) as new:
            folder, made = Path(new) / "module", Path(new) / "module" / f"{name}.ko"
            folder.mkdir()
            for file in files:
                shutil.copy(file, folder)
            headers = self._usable(Path(new) / "headers")
            command = ["make", "-s", "-C", str(headers), f"M={folder}", "ARCH=arm64", *arguments]
            # What a make around us says to its own is nothing to this one.
            quiet = dict.fromkeys(("MAKEFLAGS", "MFLAGS", "MAKELEVEL"), "")
            for argv in ([*command, "modules"], [*objcopy, "--strip-debug", str(made)]):
                done = self._run(argv, env={**quiet, **env, **self._assets.tools("make")})
                if done.code:
                    said = _errors((done.out + done.err).replace(f"{new}/", "").splitlines())
                    raise UsageError(f"{name} does not compile in {self._headers}; mend what is told of:\n{said}")
            os.replace(made, final)

    def _usable(self, shadow: Path) -> Path:
        """The headers, or a folder of links to them where Debian's way of including would lead astray.

        Their Makefile names the folder of another package by where that would be installed, and they name the
        compiler that Debian used.
        """
        makefile, variables = self._headers / "Makefile", self._headers / ".kernelvariables"
        if not (makefile.is_file() and variables.is_file()):
            return self._headers
        included = re.search(r"^include (/\S+)$", makefile.read_text(), re.MULTILINE)
        if included is None:
            return self._headers
        named = Path(included[1])
        common = [path for path in (self._headers.parent / named.parent.name / named.name, named) if path.is_file()]
        if not common:
            raise UsageError(f"{makefile} includes {named}, which is not there; unpack {named.parent.name} beside it")
        shadow.mkdir()
        for entry in self._headers.iterdir():
            # vmlinux would have BTF made of it.
            if entry not in (makefile, variables, self._headers / "vmlinux"):
                (shadow / entry.name).symlink_to(entry)
        write_makefiles(shadow, str(common[0]), self.release)
        return shadow


def find_headers(folder: Path, release: str) -> Path:
    """Where in ``folder`` modules are built for kernel ``release``: a build folder, or what packages unpack to."""
    below = (".", "build", f"usr/src/linux-headers-{release}", f"linux-headers-{release}",
             f"usr/lib/modules/{release}/build", f"lib/modules/{release}/build")  # fmt: skip
    for found in (folder / name for name in below):
        if (found / _RELEASE).is_file():
            return found
    raise UsageError(
        f"{folder} holds no headers of kernel {release}; name its build folder, or the folder into which its "
        "linux-headers were unpacked"
    )


def release_of(headers: Path) -> str:
    """The kernel's version, as its modules must name it."""
    try:
        text = (headers / _RELEASE).read_text()
    except OSError as why:
        raise UsageError(f"{why.filename}: {why.strerror}; name a folder in which a kernel was built") from None
    found = re.search(r'UTS_RELEASE\s+"([^"]+)"', text)
    return found[1] if found else ""


def _stamp(file: Path) -> bytes:
    try:
        about = file.stat()
    except OSError:
        return b"\0"
    return f"{file.name} {about.st_size} {about.st_mtime_ns}\0".encode()


def _errors(lines: Sequence[str]) -> str:
    """What a compiler or make complains of first."""
    told = [line for line in lines if re.search(r"error|Error|ERROR|not found|No such|cannot", line)] or lines
    return "\n".join(told[:_ERRORS])
