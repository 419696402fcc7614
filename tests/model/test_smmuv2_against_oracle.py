# SPDX-License-Identifier: Apache-2.0
"""Random SMMUv2s, straight ones and bent ones, by the reference and by the core, against an oracle of their own.

VI_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from tests.conftest import missing
from tests.model import oracle_smmuv2 as o
from tests.model.examples import SCALE, TIMEOUT
from tests.model.machines_smmuv2 import BANKS, FORMATS, KINDS, MUTATIONS, Machine
from tests.model.oracle import join
from vhost_iommu import _core
from vhost_iommu.memory import Memory
from vhost_iommu.smmu.transaction import Transaction
from vhost_iommu.smmu.v2 import Smmu

pytestmark = TIMEOUT

EXAMPLES = int(1500 * SCALE)
#: Of a bank, register and bytes; FSR's FORMAT says what tables it has, which the oracle does not repeat.
BANK = {"FSR": (o.FSR, 4), "FAR": (o.FAR, 8), "FSYNR0": (o.FSYNR0, 4), "IPAFAR": (o.IPAFAR, 8)}
GLOBAL = {"sGFSR": (o.SGFSR, 4), "sGFAR": (o.SGFAR, 8), "sGFSYNR0": (o.SGFSYNR0, 4), "sGFSYNR1": (o.SGFSYNR1, 4)}
FORMAT = 3 << 9


def bent(seed: int) -> Machine:
    """One machine, with up to two mutations."""
    random, machine = Random(seed * 7 + 1), Machine(seed)
    for _ in range(random.choice((0, 1, 1, 2))):
        MUTATIONS[random.choice(sorted(MUTATIONS))](machine, random.getrandbits(20))
    return machine


def product(machine: Machine, pure: bool) -> Smmu:
    memory = Memory(*machine.memory.ram.windows())
    ids = {"IDR0": machine.ids[o.ID0], "IDR1": machine.ids[o.ID1], "IDR2": machine.ids[o.ID2], "IDR7": 0}
    made = Smmu(memory, None, id_registers=ids, stall=True, pure=pure)
    for at, (value, size) in machine.stores.items():
        made.write(at, size, value)
    return made


def places(oracle: o.Smmuv2Oracle) -> dict[str, tuple[int, int]]:
    """Of each register that a fault may leave something in, where it is and its bytes."""
    found = dict(GLOBAL)
    for bank in range(BANKS):
        found |= {f"{name}[{bank}]": (oracle.bank(bank, at), size) for name, (at, size) in BANK.items()}
        found[f"CBFRSYNRA[{bank}]"] = oracle.gr1(o.CBFRSYNRA, bank), 4
    return found


def answered(machine: Machine, pure: bool) -> tuple[dict[str, object], dict[str, object]]:
    """What the oracle says becomes of the machine's access, and what the product does: outcome, pieces, registers."""
    oracle, smmu, access = machine.oracle(), product(machine, pure), machine.access
    expected = oracle.translate(access)
    answer = smmu.translate(
        Transaction(access.sid, access.iova, access.size, access.write, None, access.privileged, access.instruction)
    )
    by_oracle: dict[str, object] = {"outcome": expected.outcome, "pieces": expected.pieces}
    by_product: dict[str, object] = {
        "outcome": answer.outcome.value,
        "pieces": join((piece.pa, piece.size) for piece in answer.pieces),
    }
    for name, (at, size) in places(oracle).items():
        by_oracle[name] = oracle.wide(at) if size == 8 else oracle.register(at)
        by_product[name] = smmu.read(at, size) & ~(FORMAT if name.startswith("FSR") else 0)
    lines = [oracle.global_line(), *(oracle.context_line(bank) for bank in range(BANKS))]
    by_oracle["line"] = any(lines)
    by_product["line"] = smmu.interrupts.asserted("global") or any(
        smmu.interrupts.asserted(f"context{bank}") for bank in range(BANKS)
    )
    return by_oracle, by_product


@pytest.mark.parametrize("way", ["core", "reference"])
def test_every_machine_answers_as_the_oracle_does(way: str) -> None:
    if way == "core" and _core.built() is None:
        missing("the compiled core")
    for seed in range(EXAMPLES):
        expected, found = answered(bent(seed), way == "reference")
        differ = {name: (expected[name], found[name]) for name in expected if expected[name] != found[name]}
        assert not differ, f"machine {seed}: (oracle, product) {differ}"


def test_the_machines_reach_every_format_stage_and_fault() -> None:
    """What the comparison is worth."""
    seen: Counter[str] = Counter()
    for seed in range(1500):
        machine = bent(seed)
        oracle = machine.oracle()
        outcome = oracle.translate(machine.access).outcome
        seen[outcome] += 1
        if outcome == "ok":
            seen[f"{machine.kind}, {machine.format}"] += 1
        for bank in range(BANKS):
            for name in ("TF", "AFF", "PF", "EF", "ASF", "MULTI"):
                seen[name] += bool(oracle.register(oracle.bank(bank, o.FSR)) & getattr(o, name))
        for name in ("ICF", "USF", "SMCF", "UCBF"):
            seen[name] += bool(oracle.register(o.SGFSR) & getattr(o, name))
    combinations = {f"{kind}, {table}" for kind in KINDS for table in FORMATS if (kind, table) != ("stage 2", "short")}
    wanted = {"ok", "abort", "raz/wi", "TF", "AFF", "PF", "EF", "ASF", "MULTI", "ICF", "USF", "SMCF", "UCBF"}
    few = {name: seen[name] for name in wanted | combinations if seen[name] < 5}
    assert not few
