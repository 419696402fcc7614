# SPDX-License-Identifier: Apache-2.0
"""Debian's headers of a kernel, made to build modules where they were unpacked.

Law: what they name by where a package would be installed is named by where it is, and their programs run with the
loader and C library that were unpacked with them, so that a kernel of a newer Debian serves on an older machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_MAKEFILE = """\
KBUILD_OUTPUT := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))
include {included}
"""
# Debian's own names its compiler; ours comes from the command line, and may be older.
_VARIABLES = """\
override ARCH = arm64
override KERNELRELEASE = {version}
ifneq ($(shell $(CROSS_COMPILE)gcc -fmin-function-alignment=8 -E -x c /dev/null >/dev/null 2>&1 && echo y),y)
override CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT =
endif
"""
_PROGRAM = """\
#!/bin/sh
here=${{0%/*}}
exec "$here/{loader}" --library-path "{libraries}" --argv0 "$0" "$here/{program}" "$@"
"""


def make_usable(folder: Path, version: str, common: str) -> None:
    """What the packages of kernel ``version`` unpacked to in ``folder`` builds modules from now on.

    ``common`` is the name of the folder that all flavours share.
    """
    build = folder / f"usr/src/linux-headers-{version}"
    write_makefiles(build, f"$(KBUILD_OUTPUT)/../{common}/Makefile", version)
    (build / "vmlinux").unlink(missing_ok=True)  # of which BTF would be made
    programs = [path for kbuild in folder.glob("usr/lib/linux-kbuild-*") for path in kbuild.rglob("*") if _runs(path)]
    for path in programs:
        _wrap(path, loader_of(folder), library_folders(folder))


def write_makefiles(build: Path, included: str, version: str) -> None:
    """What names other files and programs, in the folder ``build``; ``included`` is the kernel's own Makefile."""
    (build / "Makefile").write_text(_MAKEFILE.format(included=included))
    (build / ".kernelvariables").write_text(_VARIABLES.format(version=version))


def library_folders(folder: Path) -> list[Path]:
    """Where packages that were unpacked into ``folder`` have their libraries."""
    patterns = ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*")
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_dir()]


def loader_of(folder: Path) -> Path:
    """The dynamic loader among what was unpacked into ``folder``."""
    loaders: Iterable[Path] = (
        path for top in ("usr/lib64", "lib64", "usr/lib", "lib") for path in folder.glob(f"{top}/ld-linux*.so.*")
    )
    loader = next(iter(loaders), None) or next(
        (path for top in library_folders(folder) for path in top.glob("ld-linux*.so.*")), folder / "ld-linux.so"
    )
    return loader.parent.resolve() / loader.name


def _runs(path: Path) -> bool:
    """Whether it is a program, not a script, a link or an object."""
    if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _wrap(path: Path, loader: Path, libraries: Iterable[Path]) -> None:
    """A script in its place starts the program; names are relative, for the folder is renamed when it is whole."""
    program = path.with_name(f".{path.name}.elf")
    path.rename(program)
    beside = path.parent.resolve()
    path.write_text(
        _PROGRAM.format(
            loader=os.path.relpath(loader, beside),
            libraries=":".join(f"$here/{os.path.relpath(each, beside)}" for each in libraries),
            program=program.name,
        )
    )
    path.chmod(0o755)
