# SPDX-License-Identifier: Apache-2.0
"""One report in a kernel log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..words import Decoded


@dataclass(frozen=True, slots=True)
class Finding:
    """One report: where it is in the log, whose it is, and what it says."""

    #: Where it begins, counted from 1; several, where it is repeated word for word.
    lines: tuple[int, ...]
    #: The SMMU as Linux names it, such as "10000000.iommu"; "" where the log does not say.
    smmu: str
    #: The driver's words, without what is decoded.
    said: str
    decoded: tuple[Decoded, ...] = ()
    #: What the SMMU reports, where it is no record.
    meaning: str = ""
    causes: tuple[str, ...] = ()
    #: The device that Linux knows behind the StreamID.
    client: str = ""

    @property
    def sid(self) -> int | None:
        """The StreamID that it is about."""
        return next((each.sid for each in self.decoded if each.sid is not None), None)

    @property
    def kinds(self) -> set[str]:
        """What KINDS it has words of; an event is one without, too."""
        return {each.kind for each in self.decoded} | ({"event"} if self.said.startswith("event") else set())

    def text(self, master: str = "") -> str:
        """``master`` names who is behind the StreamID."""
        more = f" and {len(self.lines) - 1} more" if len(self.lines) > 1 else ""
        lines = [f"line {self.lines[0]}{more}: {f'{self.smmu}: ' if self.smmu else ''}{self.said}"]
        lines += [self.meaning] if self.meaning else []
        lines += [f"client: {self.client}"] if self.client else []
        lines += [f"master: {master}"] if master else []
        lines += [each.text() for each in self.decoded]
        return "\n".join([*lines, *(f"cause: {cause}" for cause in self.causes)])

    def json(self, master: str = "") -> dict[str, Any]:
        return {
            "lines": list(self.lines),
            "smmu": self.smmu,
            "said": self.said,
            "meaning": self.meaning,
            "client": self.client,
            "master": master,
            "decoded": [each.json() for each in self.decoded],
            "causes": [*(cause for each in self.decoded for cause in each.causes), *self.causes],
        }
