# SPDX-License-Identifier: Apache-2.0
"""What came of a run, for people and for other programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vhost_iommu.guest.ktap import Ktap, Result
from vhost_iommu.guest.verdict import Verdict


@dataclass(frozen=True)
class Report:
    """What came of a run. ``folder`` holds the artefacts, if they were kept."""

    verdict: Verdict
    why: str
    ktap: Ktap
    console: str
    seconds: float
    seconds_to_first_test: float | None
    folder: Path | None
    notes: tuple[str, ...] = ()  #: what the operator should know of the kernel and else that he gave

    def passed(self, name: str) -> bool:
        return self.ktap.passed(name)

    @property
    def results(self) -> list[Result]:
        return self.ktap.results


def disk_checksums(report: Report) -> dict[str, list[dict[str, str]]]:
    """What the guest says its disks hold at the end, by disk: sha256, offset and bytes."""
    found: dict[str, list[dict[str, str]]] = {}
    for fact in report.ktap.facts("checksum"):
        found.setdefault(fact.get("", ""), []).append(fact)
    return found


def to_json(report: Report) -> str:
    """The report for other programs."""
    return json.dumps(
        {
            "verdict": report.verdict.name.lower(),
            "why": report.why,
            "seconds": round(report.seconds, 3),
            "notes": report.notes,
            "tests": [
                {"name": result.name, "passed": result.passed, "skipped": result.skipped} for result in report.results
            ],
        },
        indent=1,
    )
