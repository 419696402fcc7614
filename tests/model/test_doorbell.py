# SPDX-License-Identifier: Apache-2.0
"""Writes of CMDQ_PROD that need no interpreter: what comes of them, and whose the rest is.

That they do what the model does is shown by the histories of test_core_against_reference.py, which take them too.
"""

from __future__ import annotations

import os
import tempfile
import threading
from typing import Any

import pytest

from tests.pumped import Pumped
from tests.smmu_builder import Bench
from vhost_iommu import _core
from vhost_iommu.smmu.v3.commands import CMD_CFGI_STE, CMD_RESUME, CMD_SYNC, CMD_TLBI_NH_ALL, Command, CompletionSignal
from vhost_iommu.smmu.v3.instance import COMMAND_BURST
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, CR0, GERROR, CommandError

pytestmark = pytest.mark.usefixtures("core_is_built")

TIMEOUT = 60


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core, whatever the environment asks for."""
    monkeypatch.delenv(_core.PURE, raising=False)


def machine(**options: Any) -> Bench:
    """Without wires, and with one command behind it, since when the doorbell is armed."""
    bench = Bench(**{"pumped": True, "interrupt": None, **options})
    bench.invalidate()
    return bench


def carried_out(bench: Bench) -> tuple[int, int, int]:
    """Writes, commands and CMD_SYNCs that were natively."""
    return bench.smmu.counters.by_doorbell()


def ring(bench: Bench, prod: int) -> bool:
    """A write of CMDQ_PROD as the pump has it: whether it is carried out without the interpreter."""
    assert bench.mirror is not None
    return bench.mirror.carry_out(CMDQ_PROD.at, prod)


def not_rung(bench: Bench, *commands: Command) -> None:
    """A write of CMDQ_PROD that the pump finds is the model's, and hands on."""
    prod = bench.place(*commands)
    assert not ring(bench, prod)
    bench.smmu.write(CMDQ_PROD.at, CMDQ_PROD.size, prod)


def test_what_concerns_caches_alone_is_carried_out_natively() -> None:
    bench = machine()
    before = carried_out(bench)
    assert ring(bench, bench.place(CMD_CFGI_STE.of(SID=1), CMD_TLBI_NH_ALL.of(), CMD_SYNC.of()))
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR
    assert [now - then for now, then in zip(carried_out(bench), before, strict=True)] == [1, 3, 1]


def test_a_sync_writes_its_msi_to_guest_memory() -> None:
    bench = machine()
    at = bench.ram.alloc(4)
    assert ring(bench, bench.place(CMD_SYNC.of(CS=CompletionSignal.SIG_IRQ, MSIAddress=at, MSIData=0xCAFE)))
    assert bench.ram.get(at, 4) == (0xCAFE).to_bytes(4, "little")


@pytest.mark.parametrize("address", [0, 0x1000, 1 << 40], ids=["none", "a doorbell", "nowhere"])
def test_a_sync_whose_msi_is_not_for_guest_memory_is_the_models(address: int) -> None:
    bench = machine()
    sync = CMD_SYNC.of(CS=CompletionSignal.SIG_IRQ, MSIAddress=address, MSIData=1)
    not_rung(bench, CMD_TLBI_NH_ALL.of(), sync)
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR
    assert bench.posted == ([(address, b"\x01\0\0\0")] if address else [])


def test_a_wired_sync_is_the_models() -> None:
    wires: list[str] = []
    bench = machine(interrupt=wires.append)
    bench.submit(CMD_SYNC.of(CS=CompletionSignal.SIG_IRQ))
    assert wires == ["cmdq-sync"]


def test_an_msi_to_a_file_that_was_cut_short_is_an_error_as_any_msi_that_aborts() -> None:
    bench = machine()
    with tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), 0x2000)
        assert bench.ram.memory.map_fd(0x1_0000, 0x2000, file.fileno())
        os.truncate(file.fileno(), 0)
        bench.submit(CMD_SYNC.of(CS=CompletionSignal.SIG_IRQ, MSIAddress=0x1_0000, MSIData=1))
        assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR
        assert bench.active_errors == GERROR.MSI_CMDQ_ABT_ERR.mask
        bench.ram.memory.remove(0x1_0000, 0x2000)


def test_an_illegal_command_stops_the_queue_until_software_goes_on() -> None:
    bench = machine()
    not_rung(bench, CMD_TLBI_NH_ALL.of(), CMD_SYNC.of(CS=3), CMD_SYNC.of())
    assert bench[CMDQ_CONS].ERR == CommandError.CERROR_ILL
    assert bench.active_errors == GERROR.CMDQ_ERR.mask
    stopped = bench[CMDQ_CONS]
    not_rung(bench, CMD_SYNC.of())
    assert bench[CMDQ_CONS] == stopped
    bench.ram.put(bench.cmdq + 16 * stopped.RD, CMD_SYNC.of())
    bench.acknowledge()
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR


def test_a_command_for_the_model_is_carried_out_after_those_before_it() -> None:
    bench = machine(features={"stall_model": "both"})
    before = carried_out(bench)[1]
    bench.submit(CMD_TLBI_NH_ALL.of(), CMD_RESUME.of(SID=1, STAG=1), CMD_TLBI_NH_ALL.of(), CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR
    assert carried_out(bench)[1] == before + 1


def test_nothing_is_carried_out_while_the_queue_is_off() -> None:
    bench = machine()
    bench.set(CR0, CMDQEN=0)
    not_rung(bench, CMD_SYNC.of())
    assert bench[CMDQ_CONS].RD != bench[CMDQ_PROD].WR
    bench.set(CR0, CMDQEN=1)
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR


def test_after_a_burst_others_may_have_the_smmu() -> None:
    woken: list[None] = []
    bench = machine(command_bits=10, wake=lambda: woken.append(None))
    before = carried_out(bench)[1]
    not_rung(bench, *[CMD_TLBI_NH_ALL.of()] * (2 * COMMAND_BURST + 3))
    assert carried_out(bench)[1] == before + COMMAND_BURST
    assert woken == [None]
    assert bench[CMDQ_CONS].RD != bench[CMDQ_PROD].WR
    assert not bench.smmu.work()
    assert bench[CMDQ_CONS].RD == bench[CMDQ_PROD].WR


def test_while_somebody_has_the_lock_writes_are_the_models() -> None:
    bench = machine()
    prod = bench.place(CMD_SYNC.of())
    found: list[bool] = []
    with bench.smmu.lock:
        other = threading.Thread(target=lambda: found.append(ring(bench, prod)))
        other.start()
        other.join(TIMEOUT)
    assert found == [False]
    consumed = bench[CMDQ_CONS].RD
    assert consumed != prod
    assert ring(bench, prod)


def test_the_models_own_registers_are_current_for_who_has_the_lock() -> None:
    bench = machine()
    prod = bench.place(CMD_SYNC.of())
    assert ring(bench, prod)
    with bench.smmu.lock:
        assert bench.smmu.registers.raw(CMDQ_PROD) == bench.smmu.registers.raw(CMDQ_CONS) == prod


def test_after_a_reset_nothing_of_before_is_left() -> None:
    bench = machine()
    assert ring(bench, bench.place(CMD_SYNC.of()))
    bench.smmu.reset()
    assert not bench[CMDQ_PROD].raw
    assert not bench[CMDQ_CONS].raw
    assert not ring(bench, 5)
    assert not bench[CMDQ_CONS].raw


def test_no_command_is_lost_or_done_twice_while_threads_take_the_lock_all_the_time() -> None:
    bench = machine(command_bits=4)
    at = bench.ram.alloc(4)
    ended = threading.Event()
    seen: list[str] = []

    def look() -> None:
        registers = bench.smmu.registers
        while not ended.is_set():
            with bench.smmu.lock:
                if registers.raw(CMDQ_PROD) != registers.raw(CMDQ_CONS):
                    seen.append(f"{registers.raw(CMDQ_PROD):#x} and {registers.raw(CMDQ_CONS):#x}")

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    done = bench.smmu.counters.commands
    try:
        for number in range(3000):
            sync = CMD_SYNC.of(CS=CompletionSignal.SIG_IRQ, MSIAddress=at, MSIData=number)
            bench.submit(CMD_TLBI_NH_ALL.of(), sync)
            assert bench.ram.get(at, 4) == number.to_bytes(4, "little")
    finally:
        ended.set()
        for thread in threads:
            thread.join(TIMEOUT)
    assert not seen
    assert bench.smmu.counters.commands == done + 6000
    native = carried_out(bench)
    assert 0 < native[0] <= 3000


def test_an_instance_with_another_lock_carries_out_nothing_natively() -> None:
    bench = Bench(interrupt=None, lock=threading.RLock())
    pumped = Pumped(bench.smmu)
    bench.invalidate()
    assert pumped.mirror is not None
    assert not pumped.carry_out(CMDQ_PROD.at, bench.place(CMD_SYNC.of()))


@pytest.mark.parametrize("kind", ["doorbell", "core", "reference"])
def test_commands_are_counted_by_kind_whoever_carries_them_out(kind: str) -> None:
    features = {"stall_model": "both"}
    bench = machine(features=features) if kind == "doorbell" else Bench(features, pure=kind == "reference")
    before = bench.smmu.counters.commands_by_kind
    for _ in range(2):
        bench.submit(CMD_TLBI_NH_ALL.of(), CMD_RESUME.of(SID=1, STAG=1), CMD_TLBI_NH_ALL.of(), CMD_SYNC.of())
        bench.submit(CMD_TLBI_NH_ALL.of(), Command.of(OPCODE=0xFF))
        bench.ram.put(bench.cmdq + 16 * bench[CMDQ_CONS].RD, CMD_SYNC.of())
        bench.acknowledge()
    counters = bench.smmu.counters
    by_kind = {name: count - before.get(name, 0) for name, count in counters.commands_by_kind.items()}
    assert {name: count for name, count in by_kind.items() if count} == {
        "CMD_TLBI_NH_ALL": 6,
        "CMD_SYNC": 4,
        "CMD_RESUME": 2,
    }
    assert sum(counters.commands_by_kind.values()) == counters.commands
    assert counters.commands_by_kind["CMD_SYNC"] == counters.syncs
    assert counters.command_errors == 2
