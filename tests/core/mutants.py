# SPDX-License-Identifier: Apache-2.0
"""Whether the tests of the compiled core are worth their name: each mistake of mutants.toml must be found out.

Law: nothing of the project is changed; each mutant is built in a copy. One that is not found lacks a test.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from random import Random

TOP = Path(__file__).resolve().parents[2]
CORE = Path("vhost_iommu/_core")
OBJECTS = Path("build/mutants")
LIST = Path(__file__).with_suffix(".toml")

#: What finds a mutant out, at most so many seconds of it.
ENOUGH = 240
ROUNDS = 160

#: Tests that find what the comparison does not.
HUNTERS = {
    "ahead": "tests/model/test_pages_ahead.py",
    "contexts": "tests/unit/test_core_contexts.py",
    "disk": "tests/model/test_prompt_disk.py",
    "faults": "tests/unit/test_core_faults.py",
    "runs": "tests/model/test_engine_runs.py",
}

#: What is written in Cython; here, each is linked with all C.
MODULES = ("door", "pump")

FLAGS = ["-std=c11", "-O1", "-fPIC", "-pthread", "-w", f"-iquote{CORE}"]


@dataclass(frozen=True)
class Mutant:
    file: str
    text: str
    instead: str
    breaks: str
    by: str = "comparison"

    def problem(self, top: Path = TOP) -> str | None:
        """Why it is no mutant of these sources; None: it is one."""
        count = (top / CORE / self.file).read_text().count(self.text)
        return None if count == 1 else f"{self.file} has {count} times, not once: {self.text!r}"


@dataclass(frozen=True)
class Verdict:
    mutant: Mutant
    found: str  #: by what; empty: it survived
    seconds: float


def mutants() -> list[Mutant]:
    return [Mutant(**each) for each in tomllib.loads(LIST.read_text())["mutant"]]


# -- one copy of the project, for one mutant at a time ---------------------------------------------------------


class Copy:
    """The package and its tests in ``folder``, where the core is compiled file by file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        left_out = shutil.ignore_patterns("*.so", "__pycache__", ".hypothesis")
        for part in ("vhost_iommu", "tests"):
            shutil.copytree(TOP / part, folder / part, ignore=left_out)
        shutil.copy(TOP / "pyproject.toml", folder)
        (folder / OBJECTS).mkdir(parents=True)
        self.sources = sorted(str(path.relative_to(folder / CORE)) for path in (folder / CORE).rglob("*.c"))
        for module in MODULES:
            translated = OBJECTS / f"{module}.c"
            self._run([sys.executable, "-m", "cython", "-3", str(CORE / f"{module}.pyx"), "-o", str(translated)])
            self._compile(translated)
        for source in self.sources:
            self._compile(CORE / source)
        self._link()

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")

    def _compile(self, source: Path) -> None:
        python = f"-I{sysconfig.get_path('include')}"
        compiler = os.environ.get("CC", "gcc")
        self._run([compiler, *FLAGS, python, "-c", str(source), "-o", str(OBJECTS / f"{source.stem}.o")])

    def _link(self) -> None:
        for module in MODULES:
            objects = [str(OBJECTS / f"{Path(name).stem}.o") for name in (module, *self.sources)]
            path = CORE / f"{module}{sysconfig.get_config_var('EXT_SUFFIX')}"
            self._run([os.environ.get("CC", "gcc"), "-shared", "-pthread", *objects, "-o", str(path)])

    def try_out(self, mutant: Mutant) -> Verdict:
        """Build the mutant, look whether it is found out, and leave the copy as it was."""
        begun = time.monotonic()
        path = self.folder / CORE / mutant.file
        original = path.read_text()
        touched = [mutant.file] if path.suffix == ".c" else self.sources
        path.write_text(original.replace(mutant.text, mutant.instead))
        try:
            if mutant.by == "grace":
                found = self._grace()
            else:
                for source in touched:
                    self._compile(CORE / source)
                self._link()
                found = self._test(HUNTERS[mutant.by]) if mutant.by in HUNTERS else self._compare()
        finally:
            path.write_text(original)
            if mutant.by != "grace":
                for source in touched:
                    self._compile(CORE / source)
                self._link()
        return Verdict(mutant, found, time.monotonic() - begun)

    def unchanged(self) -> str:
        """What is found in the core as it is, which must be nothing."""
        return self._compare() or self._grace() or self._test(*HUNTERS.values())

    def _grace(self) -> str:
        return self._found(["make", "-s", "-f", "tests/core/Makefile", "grace", "OUT=build/grace"])

    def _test(self, *files: str) -> str:
        return self._found([sys.executable, "-m", "pytest", "-qx", "--no-header", "-p", "no:cacheprovider", *files])

    def _compare(self) -> str:
        return self._found([sys.executable, "-m", "tests.core.mutants", "--hunt"])

    def _found(self, command: list[str]) -> str:
        """What found the mutant out: the last line that was said; empty: nothing."""
        environment = {name: value for name, value in os.environ.items() if name != "VHOST_IOMMU_PURE"}
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=ENOUGH
            )
        except subprocess.TimeoutExpired:
            return "it does not end"
        if done.returncode == 0:
            return ""
        if done.returncode < 0:
            return f"signal {-done.returncode}"
        said = (done.stdout + done.stderr).strip().splitlines()
        return said[-1] if said else f"exit {done.returncode}"


# -- what looks for a difference -------------------------------------------------------------------------------


def hunt(rounds: int) -> str:
    """The first difference between the core that is here and the reference; empty: none. Seeds are fixed."""
    import pytest

    from tests.model import bent_machines, test_smmuv3_small_caches
    from tests.model.bent_machines import BentMachine
    from tests.model.machines_stages import MUTATIONS
    from tests.model.test_core_against_reference import walk_about
    from tests.model.twins import Twins

    names = sorted(MUTATIONS)

    def bent(seed: int) -> None:
        random = Random(seed)
        first = [(random.choice(names), random.getrandbits(20)) for _ in range(seed % 3)]
        past = [(random.choice(bent_machines.KINDS), random.getrandbits(64)) for _ in range(8)]
        Twins(lambda pure: BentMachine(seed, first, pure)).run([("access", 0), *past, ("mend", 0), ("access", 0)])

    try:
        for number in range(rounds):
            for seed in range(20):
                bent(number * 20 + seed)
            walk_about(number, 60)
            if number % 20 == 0:
                with pytest.MonkeyPatch.context() as patch:
                    test_smmuv3_small_caches.make_small(patch)
                    test_smmuv3_small_caches.wander(number, 5000, False)
                    test_smmuv3_small_caches.rush(False)
    except Exception as error:  # an answer that no part of the product can use is found out, too
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


# -- all of them -----------------------------------------------------------------------------------------------


def try_all(wanted: Iterable[Mutant], jobs: int, *, trust: bool = False) -> list[Verdict]:
    """Try each, ``jobs`` at a time, and tell of each as it ends; ``trust``: nothing is found where no mistake is."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(jobs):
            copies.put(copy := Copy(Path(folder, str(number))))
        if not trust and (found := copy.unchanged()):
            raise SystemExit(f"without any mistake something is found: {found}")

        def try_out(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                verdict = copy.try_out(mutant)
            finally:
                copies.put(copy)
            state = "found   " if verdict.found else "SURVIVED"
            print(f"{state} {verdict.seconds:5.1f} s  {mutant.file}: {mutant.breaks}", flush=True)
            return verdict

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(try_out, wanted))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.core.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="a pattern of file and description")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--hunt", action="store_true", help="look for a difference of the core that is here")
    arguments = parser.parse_args()
    if arguments.hunt:
        difference = hunt(ROUNDS)
        print(difference)
        return bool(difference)
    stale = [problem for mutant in mutants() if (problem := mutant.problem()) is not None]
    for problem in stale:
        print(problem, file=sys.stderr)
    if stale:
        return 2
    wanted = [each for each in mutants() if re.search(arguments.only, f"{each.file}: {each.breaks}")]
    verdicts = try_all(wanted, arguments.jobs)
    survivors = [each for each in verdicts if not each.found]
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants were found out")
    for verdict in survivors:
        print(f"survived: {verdict.mutant.file}: {verdict.mutant.breaks}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
