# SPDX-License-Identifier: Apache-2.0
"""Builds the compiled core for hatchling: each ``.pyx``, with C beside it, becomes an extension module. A wheel has man
pages too.

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
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("vhost_iommu/_core")
PACKAGE = "vhost_iommu._core"
#: The modules, and which C files are theirs. The door has all that are nobody else's.
MODULES: dict[str, list[str]] = {"door": [], "pump": ["messages.c"]}
BUILD = Path("build/core")
#: Seconds between two lines that say how far it is.
EVERY = 5.0

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
        if version != "editable":
            build_data["shared_data"] |= man_pages(Path(self.root))
        if is_set("VI_WITHOUT_CORE"):
            return
        with contextlib.chdir(self.root):
            try:
                try:
                    built = build(["-flto"], self.app.display_info)
                except Exception:  # a clang without its linker, for one, cannot
                    built = build([], self.app.display_info)
            except Exception as error:  # whatever it is, the reference does without
                self._without(reason(error))
                return
            for each in built:
                if version == "editable":
                    # Renamed into place: who runs the old one keeps it.
                    fresh = shutil.copy2(each, SOURCES / f"{each.name}.new")
                    os.replace(fresh, SOURCES / each.name)
                else:
                    build_data["force_include"][str(each.resolve())] = str(SOURCES / each.name)
                    build_data["pure_python"] = False
                    build_data["infer_tag"] = True

    def _without(self, why: str) -> None:
        # One that is older than its sources would answer differently from the reference.
        for module in MODULES:
            (SOURCES / extension_name(module)).unlink(missing_ok=True)
        if is_set("VI_REQUIRE_ALL"):
            self.app.abort(f"the compiled core is required here and could not be built: {why}")
        self.app.display_warning(f"no compiled core, so all works but slower: {why}")


def man_pages(root: Path) -> dict[str, str]:
    """Each man page, new under ``build/``, and where it goes below the prefix that we are installed to."""
    sys.path.insert(0, str(root))
    try:
        from tools.man import pages
    finally:
        sys.path.remove(str(root))
    placed = {}
    for path, text in pages().items():
        file = root / BUILD.parent / "man" / Path(path).name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        placed[str(file)] = path
    return placed


def is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() not in ("", "0", "false")


def extension_name(module: str) -> str:
    return f"{module}{sysconfig.get_config_var('EXT_SUFFIX')}"


class Steps:
    """Tells how far a compilation is, every few seconds."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.total, self._say = total, say
        self._done = 0
        self._began = self._said = time.monotonic()
        say("compiling the core (about a minute)…")

    def done(self) -> None:
        self._done += 1
        now = time.monotonic()
        if self._done == self.total:
            self._say(f"the core is compiled, in {now - self._began:.0f} s")
        elif now >= self._said + EVERY:
            self._said = now
            self._say(f"  {self._done} of {self.total} steps, {now - self._began:.0f} s")


def build(across: list[str], say: Callable[[str], None]) -> list[Path]:
    """The modules, new under ``build/``; ``across`` makes functions inline from one C file into another."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    lacks = [] if shutil.which(compiler) else [f"the C compiler {compiler} (Debian: gcc libc6-dev)"]
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        lacks.append("this Python's headers (Debian: python3-dev)")
    if lacks:
        raise RuntimeError(f"it takes {' and '.join(lacks)}")

    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    def build_extensions() -> None:
        command.compiler.spawn = command.compiler.call = spawn  # as older and newer setuptools name it
        build_ext.build_extensions(command)

    def spawn(argv: list[str], *_: Any, **__: Any) -> None:
        run(argv)  # which tells what the compiler said
        steps.done()

    BUILD.mkdir(parents=True, exist_ok=True)
    extensions = [
        Extension(
            f"{PACKAGE}.{name}",
            [str(SOURCES / f"{name}.pyx")],
            extra_compile_args=[*FLAGS, *across, *shlex.split(os.environ.get("CFLAGS", ""))],
            extra_link_args=["-pthread", "-O3", *across],
        )
        for name in MODULES
    ]
    taken = {each for sources in MODULES.values() for each in sources}
    doors = [str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.c") if path.name not in taken]
    # Cython's, then a step for each C file and each module that is linked.
    steps = Steps(1 + sum(2 + len(sources or doors) for sources in MODULES.values()), say)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            extensions = cythonize(extensions, build_dir=str(BUILD), force=True, language_level=3)
    except Exception as error:
        raise RuntimeError(said.getvalue() or str(error)) from error
    steps.done()
    for extension, sources in zip(extensions, MODULES.values(), strict=True):
        extension.sources += [str(SOURCES / each) for each in sorted(sources or doors)]
    command = build_ext(Distribution({"name": "vhost-iommu", "ext_modules": extensions}))
    command.build_lib = command.build_temp = str(BUILD)
    command.build_extensions = build_extensions
    command.force = True
    command.ensure_finalized()
    command.run()
    return [Path(command.get_ext_fullpath(extension.name)) for extension in extensions]


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout or f"{command[0]} failed")


def reason(error: Exception) -> str:
    """One line: what a compiler calls the first error, or else the last that was said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    named = (line for line in lines if re.match(r"\S+:\d+:\d+: (?!warning|note)", line))
    return next(named, lines[-1])
