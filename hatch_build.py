# SPDX-License-Identifier: Apache-2.0
"""Builds the compiled core for hatchling: ``door.pyx`` and all C beside it become one extension module.

Law: a core that cannot be built is one line that says why, and the package installs without it; where VI_REQUIRE_ALL
is set it is an error instead. VI_WITHOUT_CORE leaves it out. What is intermediate stays under ``build/``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("vhost_iommu/_core")
MODULE = "vhost_iommu._core.door"
BUILD = Path("build/core")

#: Beside what sysconfig and CFLAGS say. No -march: a wheel runs on other machines than the one that built it.
FLAGS = [
    "-std=c11",
    "-O3",
    "-g",
    "-pthread",
    "-fvisibility=hidden",  # all but the module's entry may be inlined away, and is called without a table
    "-fno-plt",
    "-fno-semantic-interposition",
    # What a newer compiler refuses anyway; nobody would see it as a warning here.
    "-Werror=implicit-function-declaration",
    "-Werror=incompatible-pointer-types",
    "-Werror=int-conversion",
    f"-iquote{SOURCES}",
]


class CompiledCore(BuildHookInterface[Any]):
    """In a wheel the module is packed; in an editable install it lies beside its sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if is_set("VI_WITHOUT_CORE"):
            return
        with contextlib.chdir(self.root):
            try:
                try:
                    built = build(["-flto"])
                except Exception:  # a clang without its linker, for one, cannot
                    built = build([])
            except Exception as error:  # whatever it is, the reference does without
                self._without(reason(error))
                return
            if version == "editable":
                # Renamed into place: who runs the old one keeps it.
                fresh = shutil.copy2(built, SOURCES / f"{built.name}.new")
                os.replace(fresh, SOURCES / built.name)
            else:
                build_data["force_include"][str(built.resolve())] = str(SOURCES / built.name)
                build_data["pure_python"] = False
                build_data["infer_tag"] = True

    def _without(self, why: str) -> None:
        # One that is older than its sources would answer differently from the reference.
        (SOURCES / extension_name()).unlink(missing_ok=True)
        if is_set("VI_REQUIRE_ALL"):
            self.app.abort(f"the compiled core is required here and could not be built: {why}")
        self.app.display_warning(f"no compiled core, so all works but slower: {why}")


def is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() not in ("", "0", "false")


def extension_name() -> str:
    return f"door{sysconfig.get_config_var('EXT_SUFFIX')}"


def build(across: list[str]) -> Path:
    """The module, new under ``build/``; ``across`` makes functions inline from one C file into another."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise RuntimeError(f"there is no C compiler ({compiler})")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise RuntimeError("there are no headers of this Python (python3-dev)")

    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    def build_extensions() -> None:
        command.compiler.spawn = run  # which tells what the compiler said
        build_ext.build_extensions(command)

    BUILD.mkdir(parents=True, exist_ok=True)
    door = Extension(
        MODULE,
        [str(SOURCES / "door.pyx")],
        extra_compile_args=[*FLAGS, *across, *shlex.split(os.environ.get("CFLAGS", ""))],
        extra_link_args=["-pthread", "-O3", *across],
    )
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            (module,) = cythonize([door], build_dir=str(BUILD), force=True, language_level=3)
        except Exception as error:
            raise RuntimeError(said.getvalue() or str(error)) from error
        module.sources += map(str, sorted(SOURCES.glob("*.c")))
        command = build_ext(Distribution({"name": "vhost-iommu", "ext_modules": [module]}))
        command.build_lib = command.build_temp = str(BUILD)
        command.build_extensions = build_extensions
        command.force = True
        command.ensure_finalized()
        command.run()
    return Path(command.get_ext_fullpath(MODULE))


def run(command: list[str], *_: Any, **__: Any) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout or f"{command[0]} failed")


def reason(error: Exception) -> str:
    """One line: what a compiler calls the first error, or else the last that was said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    named = (line for line in lines if re.match(r"\S+:\d+:\d+: (?!warning|note)", line))
    return next(named, lines[-1])
