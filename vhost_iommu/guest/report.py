# SPDX-License-Identifier: Apache-2.0
"""What came of a run, for people and for other programs: JSON, and JUnit's XML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from vhost_iommu.guest.account import Account, checksums
from vhost_iommu.guest.ktap import Ktap, Result
from vhost_iommu.guest.stand import Stand
from vhost_iommu.guest.verdict import Verdict

#: Lines of the console that a report shows of a guest that did not pass, and that JUnit's XML has.
LAST_LINES, TAIL = 20, 500
#: What XML 1.0 has no way to say.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
    account: Account = field(default_factory=Account)
    kernel: str | None = None  #: its version, of a Linux guest
    stands: tuple[Stand, ...] = ()  #: where each CPU was, of a guest that was ended
    stands_note: str = ""  #: what of that is not known, and why

    def passed(self, name: str) -> bool:
        return self.ktap.passed(name)

    @property
    def results(self) -> list[Result]:
        return self.ktap.results

    @property
    def stand_lines(self) -> list[str]:
        """Where each CPU was, for people."""
        said = [line for stand in self.stands for line in stand.lines()]
        return [*said, self.stands_note] if self.stands_note else said

    @property
    def last_lines(self) -> list[str]:
        """The end of the console."""
        return self.console.splitlines()[-LAST_LINES:]


def disk_checksums(report: Report) -> dict[str, list[dict[str, str]]]:
    """What the guest says its disks hold at the end, by disk: sha256, offset and bytes."""
    return checksums(report.ktap)


def to_json(report: Report) -> str:
    """The report for other programs."""
    return json.dumps(
        {
            "verdict": report.verdict.name.lower(),
            "why": report.why,
            "kernel": report.kernel,
            "seconds": round(report.seconds, 3),
            "folder": None if report.folder is None else str(report.folder),
            "notes": report.notes,
            "tests": [
                {
                    "name": result.name,
                    "passed": result.passed,
                    "skipped": result.skipped,
                    "parent": result.parent,
                    "notes": list(result.notes),
                }
                for result in report.results
            ],
            "diagnostics": report.ktap.notes,
            **report.account.json(),
            "cpus": [stand.json() for stand in report.stands],
            "cpus_note": report.stands_note,
            "last_lines": report.last_lines,
        },
        indent=1,
    )


def to_junit(reports: Sequence[Report], name: str) -> bytes:
    """JUnit's XML: a suite for each run, ``name`` or with its number; see ``_suite``."""
    root = ElementTree.Element("testsuites")
    for number, report in enumerate(reports, 1):
        root.append(_suite(report, name if len(reports) == 1 else f"{name}.{number}"))
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _suite(report: Report, name: str) -> ElementTree.Element:
    """A case for each test, and one, "guest", for how the run ended: what no test tells, and the console's end."""
    suite = ElementTree.Element("testsuite", name=_xml(name))
    count = dict.fromkeys(("failures", "errors", "skipped"), 0)

    def case(title: str) -> ElementTree.Element:
        return ElementTree.SubElement(suite, "testcase", classname=_xml(name), name=_xml(title))

    def tell(made: ElementTree.Element, tag: str, message: str, text: str = "") -> None:
        count[tag if tag in count else f"{tag}s"] += 1
        ElementTree.SubElement(made, tag, message=_xml(message)).text = _xml(text)

    for result in report.ktap.tests:
        made = case(result.name)
        if result.skipped is not None:
            tell(made, "skipped", result.skipped)
        elif not result.passed:
            tell(made, "failure", result.reason or "no reason given", "\n".join(result.notes))
        elif result.notes:
            ElementTree.SubElement(made, "system-out").text = _xml("\n".join(result.notes))
    end = case("guest")
    end.set("time", f"{report.seconds:.3f}")
    if report.verdict is Verdict.SKIPPED:
        tell(end, "skipped", report.why)
    elif report.verdict is Verdict.FAILED:
        if not count["failures"]:
            tell(end, "failure", report.why)
    elif report.verdict is not Verdict.PASSED:
        tell(end, "error", report.why, "\n".join(report.stand_lines))
    ElementTree.SubElement(end, "system-out").text = _xml("\n".join(report.console.splitlines()[-TAIL:]))
    suite.set("tests", str(len(suite)))
    suite.set("time", f"{report.seconds:.3f}")
    for key, value in count.items():
        suite.set(key, str(value))
    return suite


def _xml(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
