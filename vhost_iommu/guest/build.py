# SPDX-License-Identifier: Apache-2.0
"""Builds guest code: freestanding AArch64, from the sources under guest/, without a Makefile.

Law: what is built is named by a hash of everything that went into it and lies in the cache under build/; it appears
there whole or not at all, so that processes may build at once and nothing ever is out of date.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.assets import Assets, Cross
from vhost_iommu.guest.share import share

#: No FPU and no unaligned access: with the MMU off all memory is Device memory, which faults on either.
FLAGS = ("-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-fno-stack-protector",
         "-fno-asynchronous-unwind-tables",
         "-mgeneral-regs-only", "-mstrict-align", "-mno-outline-atomics", "-march=armv8-a", "-std=gnu11", "-O2", "-g",
         "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096")  # fmt: skip


class Toolchain:
    """Compiles with the cross compiler that ``assets`` finds, when something is not built yet."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self.folder = assets.folder / "build"

    @cached_property
    def _cross(self) -> Cross:
        return self._assets.cross()

    def program(self, main: Path) -> Path:
        """The ELF of the bare-metal program ``main``, a C file, linked with guest/bare/lib."""
        library = share("bare/lib")
        sources = [main, *sorted(library.glob("*.S")), *sorted(library.glob("*.c"))]
        script = share("bare/bare.ld")
        return self._built(main.stem, sources, (f"-I{library}", f"-Wl,-T,{script}"), script)

    def alone(self, main: Path) -> Path:
        """The ELF of ``main``, a C file that needs no library, not even C's."""
        return self._built(main.stem, [main], ())

    def _built(self, name: str, sources: Sequence[Path], flags: Sequence[str], *extra: Path) -> Path:
        hashed = hashlib.sha256(repr(FLAGS).encode())
        for file in (*sources, *extra, *sorted({h for each in sources for h in each.parent.glob("*.h")})):
            hashed.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        final = self.folder / f"{name}-{hashed.hexdigest()[:16]}.elf"
        if final.exists():
            return final
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.folder) as new:
            elf = Path(new) / f"{name}.elf"
            self._run([*self._cross.cc, *FLAGS, *flags, "-o", str(elf), *map(str, sources)], name)
            os.replace(elf, final)
        return final

    def _run(self, command: Sequence[str], name: str) -> None:
        done = subprocess.run(
            command, env={**os.environ, **self._cross.env}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UsageError(f"{name} does not compile; mend it:\n{done.stderr.rstrip()}")
