# SPDX-License-Identifier: Apache-2.0
"""Programs of packages that were unpacked somewhere, run by the dynamic loader and the libraries unpacked with them.

Law: the folder may be renamed, and what this machine has of libraries does not matter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

_PROGRAM = """\
#!/bin/sh
here=${{0%/*}}
exec "$here/{loader}" --library-path "{libraries}" --argv0 "$0" "$here/{program}" "$@"
"""


def library_folders(folder: Path) -> list[Path]:
    """Where packages that were unpacked into ``folder`` have their libraries."""
    patterns = ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*")
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_dir()]


def loader_of(folder: Path) -> Path:
    """The dynamic loader among what was unpacked into ``folder``."""
    # Links to it may be absolute, and then lead to this machine's.
    tops = [*library_folders(folder), *(folder / top for top in ("usr/lib64", "lib64", "usr/lib", "lib"))]
    loader = next((path for top in tops for path in top.glob("ld-linux*.so.*")), folder / "ld-linux.so")
    return loader.parent.resolve() / loader.name


def libraries_of(program: Path, folder: Path) -> list[Path]:
    """The dynamic loader and the libraries with which ``program`` runs, of those that were unpacked into ``folder``."""
    there = {path.name: path for top in library_folders(folder) for path in top.glob("*.so.*")}
    found: dict[str, Path] = {}
    waiting = [program]
    while waiting:
        for name in _needed(waiting.pop()):
            if name in there and name not in found:
                found[name] = there[name]
                waiting.append(there[name])
    return list(found.values())


def _needed(path: Path) -> list[str]:
    with path.open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection), path
        return [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]  # type: ignore[attr-defined]


def wrap_programs(folder: Path, paths: Iterable[Path]) -> None:
    """Put a script in the place of each program among ``paths``, which are below ``folder``."""
    loader, libraries = loader_of(folder), library_folders(folder)
    for path in [path for path in paths if _runs(path)]:
        _wrap(path, loader, libraries)


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
