# SPDX-License-Identifier: Apache-2.0
"""How many examples the property tests of models try: VI_EXAMPLES multiplies the number, and makes them random."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

SCALE = float(os.environ.get("VI_EXAMPLES", "1"))

TIMEOUT = pytest.mark.timeout(300 * max(1.0, SCALE))


def examples(count: int, *, steps: int = 50) -> settings:
    """``count`` examples, times VI_EXAMPLES; ``steps`` bounds those of a state machine."""
    return settings(
        max_examples=max(1, int(count * SCALE)),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=SCALE == 1,
    )
