# SPDX-License-Identifier: Apache-2.0
"""Builds the kernel modules of guest/kmod for one exact kernel.

Law: as build.py's: named by a hash of everything that went into it, in the cache under build/, whole or not at all.
The modules themselves are GPL-2.0, and nothing of them is linked with what is here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.apt import Run, run_command
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.build import share

#: The module that drives the DMA engine.
ENGINE = "vt_engine"


class Modules:
    """Builds for the kernel of ``flavour`` that ``assets`` finds, when something is not built yet."""

    def __init__(self, assets: Assets, flavour: str, run: Run = run_command) -> None:
        self._assets, self._flavour, self._run = assets, flavour, run
        self.folder = assets.folder / "build"

    def module(self, name: str = ENGINE) -> Path:
        """The .ko file; UsageError when there is nothing to build with."""
        headers = self._assets.headers(self._flavour)
        source = share("kmod")
        files = [file for file in sorted(source.iterdir()) if file.suffix in (".c", ".h") or file.name == "Kbuild"]
        hashed = hashlib.sha256(_release(headers).encode() + b"\0" + _digest(headers / "Module.symvers"))
        for file in files:
            hashed.update(file.name.encode() + b"\0" + _digest(file))
        final = self.folder / f"{name}-{hashed.hexdigest()[:16]}.ko"
        if not final.exists():
            self._build(headers, files, name, final)
        return final

    def _build(self, headers: Path, files: Sequence[Path], name: str, final: Path) -> None:
        make = shutil.which("make")
        if make is None:
            raise UsageError("building a kernel module takes make, which this machine lacks; install make")
        cross = self._assets.cross(gnu=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.folder) as folder:
            for file in files:
                shutil.copy(file, folder)
            command = [make, "-s", "-C", str(headers), f"M={folder}", "ARCH=arm64", f"CROSS_COMPILE={cross.prefix}"]
            # What a make around us says to its own is nothing to this one.
            quiet = dict.fromkeys(("MAKEFLAGS", "MFLAGS", "MAKELEVEL"), "")
            made = Path(folder) / f"{name}.ko"
            for argv in ([*command, "modules"], [f"{cross.prefix}objcopy", "--strip-debug", str(made)]):
                done = self._run(argv, env={**quiet, **cross.env})
                if done.code:
                    raise UsageError(f"{name} does not compile; mend it:\n{(done.out + done.err).rstrip()}")
            os.replace(made, final)


def _release(headers: Path) -> str:
    """The kernel's version, as its modules must name it."""
    try:
        text = (headers / "include/generated/utsrelease.h").read_text()
    except OSError as why:
        raise UsageError(f"{why.filename}: {why.strerror}; name a folder in which a kernel was built") from None
    found = re.search(r'UTS_RELEASE\s+"([^"]+)"', text)
    return found[1] if found else ""


def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()
