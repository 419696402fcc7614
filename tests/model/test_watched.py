# SPDX-License-Identifier: Apache-2.0
"""The oracles, and the reference beside the core, hold while somebody looks on at all that happens.

``VI_WATCHED=1 pytest tests/model`` does so with each test of this folder.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.test_core_against_reference import (
    test_a_difference_is_found as test_a_difference_is_found,
)
from tests.model.test_core_against_reference import (
    test_long_histories_are_the_same_and_meet_every_outcome as test_long_histories_are_the_same,
)
from tests.model.test_smmuv3_against_oracle import (
    test_every_machine_answers_as_the_oracle_does as test_every_machine_answers_as_the_oracle_does,
)
from tests.model.test_smmuv3_against_oracle import (
    test_queues_errors_and_interrupts_are_as_the_oracle_says as test_queues_are_as_the_oracle_says,
)
from tests.model.test_smmuv3_stages_against_oracle import (
    test_every_machine_of_both_stages_answers_as_the_oracle_does as test_both_stages_answer_as_the_oracle_does,
)
from tests.model.test_smmuv3_stages_against_oracle import (
    test_stalled_accesses_wait_and_end_as_the_oracle_says as test_stalls_are_as_the_oracle_says,
)
from tests.model.watched import watched

__all__ = [
    "test_a_difference_is_found",
    "test_both_stages_answer_as_the_oracle_does",
    "test_every_machine_answers_as_the_oracle_does",
    "test_long_histories_are_the_same",
    "test_queues_are_as_the_oracle_says",
    "test_stalls_are_as_the_oracle_says",
]


@pytest.fixture(scope="module", autouse=True)
def _looked_at() -> Iterator[None]:
    with watched() as lookers:
        yield
    assert any(looker.told for _, looker in lookers)
