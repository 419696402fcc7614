# SPDX-License-Identifier: Apache-2.0
"""What a machine did from one moment to another, in order, for tests to assert on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from vhost_iommu.trace import Record


class Recording:
    """Records in the order in which things happened."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def commands(self, *names: str, smmu: str | None = None) -> list[Record]:
        """Commands that SMMUs consumed; of these names alone, if any is given."""
        return self.of("command", *names, track=smmu)

    @property
    def events(self) -> list[Record]:
        """Events that SMMUs told of."""
        return [each for each in self.of("fault") if each.name[:2] in ("F_", "C_", "E_")]

    def of(self, kind: str, *names: str, track: str | None = None) -> list[Record]:
        """Records of one kind."""
        return [
            each
            for each in self.records
            if each.kind == kind and (not names or each.name in names) and track in (None, each.track)
        ]


class Tap:
    """Where a machine reports; who records gets it."""

    def __init__(self) -> None:
        self._open: Sequence[Recording] = ()

    def __call__(self, record: Record) -> None:
        for each in self._open:
            each.records.append(record)

    @contextlib.contextmanager
    def recording(self) -> Iterator[Recording]:
        made = Recording()
        self._open = (*self._open, made)
        try:
            yield made
        finally:
            self._open = tuple(each for each in self._open if each is not made)
