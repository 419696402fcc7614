# SPDX-License-Identifier: Apache-2.0
"""Compiles a small arm64 kernel: its source is Debian's, its configuration is ours and says only what is not off.

Law: all happens in one folder. What stays there is a build folder as others have it, without what was needed once:
it boots, and builds modules.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.apt import Run

#: What the configurations in guest/kernel-config never compile; two thirds of the source. Kconfig reads its own files
#: in all of it, and make the makefiles.
_UNUSED = re.compile(
    r"(Documentation|sound|arch/(?!arm64/)\w+|arch/arm64/boot/dts|tools/(perf|testing)"
    r"|drivers/(accel|gpu|iio|infiniband|media|net|scsi|staging|usb))/(?!(.*/)?(Kconfig|Makefile|Kbuild)[^/]*$)"
)
#: What is left when all is built: the kernel and its symbols, what says which modules it has, and what builds others.
_KEPT = (".config", "Makefile", "Module.symvers", "System.map", "arch/arm64/Makefile", "arch/arm64/boot/Image",
         "arch/arm64/include", "include", "modules.builtin", "modules.builtin.modinfo", "modules.order", "scripts",
         "vmlinux")  # fmt: skip
_SECONDS = 5.0  # between two lines of progress


def unpack_source(archive: Path, folder: Path) -> None:
    """What is needed of the source in a tar ``archive``, without its topmost folder."""
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        tar.extractall(folder, members=_needed(tar))


def _needed(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        member.name = member.name.partition("/")[2]
        if member.islnk():
            member.linkname = member.linkname.partition("/")[2]
        if member.name and not _UNUSED.match(member.name):
            yield member


class Kbuild:
    """The kernel's make in the folder of its source, with a cross compiler's ``prefix`` in the environment ``env``."""

    def __init__(
        self, source: Path, prefix: str, env: Mapping[str, str], run: Run, progress: Callable[[str], None]
    ) -> None:
        self._source, self._run, self._progress = source, run, progress
        self._make = ["make", "-C", str(source), "ARCH=arm64", f"CROSS_COMPILE={prefix}"]
        # What a make around us says to its own is nothing to this one.
        self._env = {**dict.fromkeys(("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "KBUILD_OUTPUT"), ""), **env}

    def configure(self, fragments: Sequence[Path]) -> None:
        """All that ``fragments`` do not ask for is off, but for what it needs. UsageError: the source takes it not."""
        asked = "".join(file.read_text() for file in fragments)
        wishes = self._source / "wishes.config"
        wishes.write_text(asked)
        self._do([f"KCONFIG_ALLCONFIG={wishes}", "allnoconfig"])
        wishes.unlink()
        taken = set((self._source / ".config").read_text().splitlines())
        lost = [line for line in asked.splitlines() if re.match(r"CONFIG_\w+=", line) and line not in taken]
        if lost:
            names = ", ".join(file.name for file in fragments)
            raise UsageError(f"this kernel's source does not take {', '.join(lost)}; correct {names}")

    def compile(self, what: str) -> str:
        """Compile all; the kernel's release."""
        self._do([f"-j{len(os.sched_getaffinity(0))}", "Image", "modules"], _Meter(what, self._progress))
        return (self._source / "include/config/kernel.release").read_text().strip()

    def _do(self, arguments: Sequence[str], line: Callable[[str], None] | None = None) -> None:
        done = self._run([*self._make, *arguments], env=self._env, line=line)
        if done.code:
            said = (
                [text for text in done.err.splitlines() if "rror" in text]
                or done.err.splitlines()
                or ["it says nothing"]
            )
            raise UsageError(
                f"the kernel does not compile ({'; '.join(said[:3])}); free some space, or mend its configuration"
            )

    def prune(self) -> None:
        """Remove what was needed once."""
        _keep(self._source, _KEPT)
        for rubbish in (path for top in ("include", "scripts") for path in (self._source / top).rglob("*.o*")):
            if re.search(r"\.o(\.cmd|\.d)?$", rubbish.name):
                rubbish.unlink()


def _keep(folder: Path, names: Sequence[str]) -> None:
    """Remove all of ``folder`` but ``names``, which are paths below it."""
    for path in folder.iterdir():
        below = [name.partition("/")[2] for name in names if name.partition("/")[0] == path.name]
        if below and all(below):
            _keep(path, below)
        elif not below and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not below:
            path.unlink()


class _Meter:
    """Turns the lines of make, one for each file, into one line of progress every few seconds."""

    def __init__(self, what: str, progress: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._progress, self._clock = what, progress, clock
        self._began = self._said = clock()
        self._files = 0

    def __call__(self, line: str) -> None:
        self._files += bool(re.match(r"  (HOST)?(CC|AS)\b", line))
        now = self._clock()
        if now >= self._said + _SECONDS:
            self._said = now
            self._progress(f"  {self._what}: {self._files} files compiled in {now - self._began:.0f} s")
