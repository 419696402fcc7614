# SPDX-License-Identifier: Apache-2.0
"""The compiled core answers what the reference answers, word for word: one history, on both, compared at each step.

Answers, events, all memory, registers, TLB entries and counters; VI_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model import bent_machines, histories
from tests.model.bent_machines import BentMachine
from tests.model.examples import SCALE, TIMEOUT, examples
from tests.model.histories import History
from tests.model.machines_stages import MUTATIONS
from tests.model.twins import Twins
from vhost_iommu.smmu.seams import Verdict

pytestmark = [TIMEOUT, pytest.mark.usefixtures("core_is_built")]

#: Uniform, and 0 is the plainest.
NUMBERS = st.binary(min_size=16, max_size=16).map(lambda data: int.from_bytes(data, "big"))
BENT = st.lists(st.tuples(st.sampled_from(sorted(MUTATIONS)), st.integers(0, 2**20 - 1)), max_size=2)


def steps(kinds: tuple[str, ...], most: int) -> st.SearchStrategy[list[tuple[str, int]]]:
    """As often many as few; a plain list of hypothesis' own is short."""
    step = st.tuples(st.sampled_from(kinds), NUMBERS)
    return st.integers(1, most).flatmap(lambda count: st.lists(step, min_size=count, max_size=count))


@examples(250)
@given(shape=NUMBERS, past=steps(histories.KINDS, 60))
def test_many_streams_have_the_same_history_with_the_core(shape: int, past: list[tuple[str, int]]) -> None:
    Twins(lambda pure: History(shape, pure)).run(past)


@examples(1000)
@given(seed=st.integers(0, 2**32 - 1), bent=BENT, past=steps(bent_machines.KINDS, 12))
def test_machines_that_are_bent_while_they_run_do_the_same_with_the_core(
    seed: int, bent: list[tuple[str, int]], past: list[tuple[str, int]]
) -> None:
    twins = Twins(lambda pure: BentMachine(seed, bent, pure))
    twins.run([("access", 0), *past, ("mend", 0), ("access", 0)])


def walk_about(seed: int, count: int) -> Counter[str]:
    """A long history, without hypothesis: deeper, and quicker. What was met in it."""
    random = Random(seed)
    shape = random.getrandbits(64)
    twins = Twins(lambda pure: History(shape, pure))
    seen: Counter[str] = Counter()
    for _ in range(count):
        kind = random.choice(histories.KINDS)
        note(seen, kind, twins.step(kind, random.getrandbits(128)))
    return seen


def note(seen: Counter[str], kind: str, answer: Any) -> None:
    seen[kind] += 1
    if kind in ("access", "translated"):
        seen[f"{kind} {answer[0]}"] += 1
        seen[f"{kind} in pieces"] += len(answer[1]) > 1
        for event in answer[4]:
            seen[f"event {int(event[:2], 16):#x}"] += 1
    elif kind == "ats":
        seen[f"ats {answer[0]}"] += 1
    elif kind in ("read", "write") and answer is not None:
        found = answer[0]
        if isinstance(found, tuple):
            seen[f"{kind} {found[0]}"] += 1
            seen[f"{kind} in part"] += found[0] == "abort" and found[2] > 0
        else:
            seen[f"{kind} whole"] += 1


WANTED = (
    *(f"access {outcome}" for outcome in ("ok", "abort", "stalled", "raz/wi")), "access in pieces", "translated ok",
    *(f"ats {status}" for status in ("success", "unsupported request", "completer abort")),
    *(f"{kind} {how}" for kind in ("read", "write") for how in ("whole", "abort", "waits", "in part")),
    *(f"event {kind:#x}" for kind in (0x02, 0x03, 0x04, 0x06, 0x08, 0x09, 0x0A, 0x0B, 0x10, 0x11, 0x12, 0x13)),
)  # fmt: skip


def test_long_histories_are_the_same_and_meet_every_outcome() -> None:
    seen: Counter[str] = Counter()
    never: list[str] = list(WANTED)
    for seed in range(max(1, int(200 * SCALE))):
        seen += walk_about(seed, 150)
        never = [name for name in WANTED if not seen[name]]
        if seed >= 30 * SCALE and not never:  # some are rare, and the machines are random
            break
    assert not never, f"never met: {never} of {dict(seen)}"


def test_a_difference_is_found() -> None:
    """What the comparison is worth: one TLBI too few in one of them is a stale entry there alone."""
    twins = Twins(lambda pure: History(0, pure))
    twins.core.smmu.seams.gate = lambda command: Verdict.IGNORE
    twins.step("access", 0)
    with pytest.raises(AssertionError, match="tlb differs"):
        twins.step("tlbi", 0)
