# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer, and that it finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import main
from tests.fuzz.fuzzer import Case, Failure, Recorder, run_case
from vhost_iommu import _core
from vhost_iommu.smmu.v3.ats import Ats
from vhost_iommu.smmu.v3.instance import Smmu


def run(first: int, count: int) -> None:
    for seed in range(first, first + count):
        run_case(seed)


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_random_machines_keep_their_properties_whatever_comes(first: int) -> None:
    run(first, 50)


def test_a_case_follows_from_its_seed() -> None:
    logs = []
    for _ in range(2):
        case = Case(7)
        case.run()
        logs.append(case.log)
    assert logs[0] == logs[1]


def test_a_failure_says_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Ats, *anything: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(Ats, "request", broken)
    with pytest.raises(Failure, match=r"ZeroDivisionError: on purpose(.|\n)*--case \d+"):
        run(0, 50)
    assert main(["--seed", "0", "--seconds", "30"]) == 1
    printed = capsys.readouterr().err
    assert "translation_request: AtsRequest(" in printed
    number = printed.rsplit(maxsplit=1)[-1]
    assert main(["--case", number]) == 1
    assert 'raise ZeroDivisionError("on purpose")' in capsys.readouterr().err


def test_a_run_without_a_failure_says_how_many_cases_it_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "0", "--seconds", "0"]) == 0
    assert "1 cases passed" in capsys.readouterr().out


@pytest.mark.parametrize("address", [-8, 1 << 40, (1 << 40) - 4, 0x1001])
def test_an_access_that_no_bus_would_make_is_found(address: int) -> None:
    memory = Recorder((0x1000, bytearray(0x1000)))
    memory.physical_bits = 40
    assert memory.read(0x1FF8, 8) == bytes(8)
    with pytest.raises(AssertionError):
        memory.read(address, 8)


def test_a_call_that_reads_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    translate = Smmu.translate

    def slow(self: Smmu, *anything: object) -> object:
        for _ in range(5000):
            self.memory.read(0x4000_0000, 8)
        return translate(self, *anything)  # type: ignore[arg-type]

    monkeypatch.setenv(_core.PURE, "1")  # the core would go past it
    monkeypatch.setattr(Smmu, "translate", slow)
    with pytest.raises(Failure, match="more reads than are thought to be enough"):
        run(0, 20)
