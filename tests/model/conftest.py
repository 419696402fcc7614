# SPDX-License-Identifier: Apache-2.0
"""Tests of models can be run while somebody looks on: ``VI_WATCHED=1 pytest tests/model``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.model.watched import EVERYWHERE, watched


@pytest.fixture(scope="session", autouse=True)
def _looked_at() -> Iterator[None]:
    if not os.environ.get(EVERYWHERE):
        yield
        return
    with watched():
        yield
