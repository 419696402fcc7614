# SPDX-License-Identifier: Apache-2.0
"""Somebody who looks on at each SMMU that is made, for tests that are to hold all the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.watch import Value, Watch, Watcher

#: Set, all of tests/model is watched.
EVERYWHERE = "VI_WATCHED"
#: Deliveries are so far apart, in register accesses and translations.
EVERY = 64


class Looker(Watcher):
    """Looks at each value, and that their numbers are in order."""

    def __init__(self) -> None:
        self.told = 0
        self.last = -1

    def tell(self, value: Value) -> None:
        assert value.number > self.last
        assert value.time > 0
        self.last = value.number
        self.told += 1


@contextmanager
def watched() -> Iterator[list[tuple[Watch, Looker]]]:
    """Each Smmu that is made meanwhile is watched from its beginning on; who looked at whom."""
    patch = pytest.MonkeyPatch()
    lookers: list[tuple[Watch, Looker]] = []
    calls = 0

    class Watched(Smmu):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            looker = Looker()
            self.watch.attach(looker)
            lookers.append((self.watch, looker))
            if len(lookers) > EVERY:
                lookers.pop(0)[0].flush()

        def translate(self, *args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % EVERY == 0:
                self.watch.flush()
            return super().translate(*args, **options)

    for name, module in list(sys.modules.items()):
        if name.startswith("tests.") and name != __name__ and getattr(module, "Smmu", None) is Smmu:
            patch.setattr(module, "Smmu", Watched)
    try:
        yield lookers
        for watch, _ in lookers:
            watch.flush()
    finally:
        patch.undo()
