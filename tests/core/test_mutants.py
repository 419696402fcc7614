# SPDX-License-Identifier: Apache-2.0
"""The list of mutants is one of these sources, and a few of them are found out; ``make mutants`` tries all."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.core.mutants import Mutant, mutants, try_all

#: A rule of a walk, a filter of an invalidation, a bound of a request.
A_FEW = (
    "a leaf may be beyond the output size",
    "TTL leaves no entry alone",
    "a request goes on to the end of its page",
)


@pytest.fixture
def compiler() -> None:
    if shutil.which(os.environ.get("CC", "gcc")) is None:
        missing("a C compiler")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing("the headers of this Python")
    if importlib.util.find_spec("Cython") is None:
        missing("Cython")


def test_each_mutant_replaces_a_text_that_its_file_has_once() -> None:
    assert [problem for mutant in mutants() if (problem := mutant.problem()) is not None] == []


def test_a_text_that_is_no_longer_there_is_a_problem() -> None:
    assert Mutant("core.c", "no such text", "", "nothing").problem() is not None


@pytest.mark.usefixtures("compiler")
def test_a_few_mutants_are_found_out() -> None:
    few = [mutant for mutant in mutants() if mutant.breaks in A_FEW]
    assert len(few) == len(A_FEW)
    assert [verdict.mutant.breaks for verdict in try_all(few, 1, trust=True) if not verdict.found] == []
