# SPDX-License-Identifier: Apache-2.0
"""Garbage is collected wherever an object is made, and a finalizer may do what it likes: nobody waits for himself.

Law: what would hang runs in a process of its own, which has a deadline.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.smmu_builder import IPA_OF_CD, RAM_BASE, Bench, Ram
from vhost_iommu import _core
from vhost_iommu.masters.port import Abort, Port
from vhost_iommu.smmu.ats import AtsRequest
from vhost_iommu.smmu.transaction import Transaction
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.structures import EATS

TOP = Path(__file__).resolve().parents[2]
DEADLINE = 120.0
ROUNDS = 150


class Finalized:
    """Garbage, as it refers to itself. When it is collected it invalidates, and leaves some for the next time."""

    collected = 0
    enough = False

    def __init__(self, bench: Bench) -> None:
        self.bench, self.itself = bench, self

    def __del__(self) -> None:
        smmu = self.bench.smmu
        assert smmu.core is not None
        with smmu.lock:
            smmu.configuration.invalidate_all()
            smmu.tlb.clear()
            smmu.tlb.invalidate_range(1, 0, 1 << 30)
            smmu.core.quiesce()
        Finalized.collected += 1
        if not Finalized.enough:
            Finalized(self.bench)


def use_up_tuples(kept: list[object]) -> None:
    """The interpreter keeps tuples that were freed, and collects only where it has none of that length to give out."""
    kept += [tuple([len(kept)] * length) for length in range(2, 12) for _ in range(4)]


def master(bench: Bench, sid: int, failed: list[BaseException]) -> None:
    """All that makes objects of what the core found, again and again."""
    port = Port(f"master {sid}", bench.ram.memory, bench.smmu, [sid])
    kept: list[object] = []
    try:
        for _ in range(ROUNDS):
            for iova in (0x1000, 0x2000):
                use_up_tuples(kept)
                assert isinstance(port.read(iova, 8), Abort) == (iova == 0x2000)
                assert isinstance(port.write(iova, b"12345678"), Abort) == (iova == 0x2000)
                use_up_tuples(kept)
                bench.smmu.translate(Transaction(sid, iova, 0x3000))
                bench.smmu.ats_request(AtsRequest(sid, iova))
                with bench.smmu.lock:
                    bench.smmu.commands.execution.execute(c.CMD_PREFETCH_ADDR.of(SID=sid, Address=iova))
                    bench.smmu.configuration.lookup(sid, 3)
                    bench.smmu.configuration.legal_ste(sid, None)
    except BaseException as error:
        failed.append(error)


def work() -> None:
    """Two masters whose every object may be followed by an invalidation of another thread's."""
    door = _core.built()
    assert door is not None
    features = {"ats": "full", "stage2": True, "substream_id_bits": 4}
    bench = Bench(features, ram=Ram(size=64 << 20), lock=door.Lock(), pure=False)
    bench.stream(1, EATS=EATS.FULL).map(0x1000, RAM_BASE + (32 << 20))
    first, second = bench.nested(2, EATS=EATS.FULL)
    first.map(0x1000, 0x8000_0000)
    second.map(0x8000_0000, RAM_BASE + (33 << 20))
    bench.nested(3, EATS=EATS.FULL)[1].unmap(IPA_OF_CD)  # whose CD's address faults
    failed: list[BaseException] = []
    Finalized(bench)
    gc.set_threshold(1)
    masters = [threading.Thread(target=master, args=(bench, sid, failed)) for sid in (1, 2)]
    for each in masters:
        each.start()
    kept: list[object] = []
    for _ in range(ROUNDS):
        use_up_tuples(kept)
        bench.smmu.translate(Transaction(3, 0))
    for each in masters:
        each.join()
    Finalized.enough = True
    if failed:
        raise failed[0]
    assert Finalized.collected > ROUNDS, Finalized.collected


@pytest.mark.usefixtures("core_is_built")
def test_a_finalizer_that_invalidates_waits_for_nobody_who_waits_for_it() -> None:
    program = [sys.executable, "-c", "from tests.model.test_core_finalizers import work; work()"]
    done = subprocess.run(program, cwd=TOP, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
