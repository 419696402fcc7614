# SPDX-License-Identifier: Apache-2.0
"""``report.html``: one page for a run, with its verdict, its timeline, its faults decoded, and commands by operation.

Law: the page needs nothing beside itself; whatever a guest said is text in it, never markup.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.finding import Kept
from vhost_iommu.guest.recording import Recording, by_operation
from vhost_iommu.guest.report import Report
from vhost_iommu.guest.timeline import Operation, Timeline
from vhost_iommu.lab import spaces
from vhost_iommu.lab.spaces import Element, details, element
from vhost_iommu.lab.text import explanation_lines, page, page_lines

_WIDTH, _LEFT, _RIGHT = 960, 110, 940
_ROW = 26
_COUNTED_SO = (
    "Counted whenever the console's line of a result was read: of a guest that does not wait, what it did right "
    "after a result may stand with that."
)
_COUNTED_LIVE = "Counted whenever the guest had done what it was asked."
#: Kinds of commands and counts that are a column, those most counted first.
_COLUMNS = 7
_STYLE = """
.page .passed { color: #2e7d4f; } .page .failed, .page .died, .page .interrupted { color: #b3362f; }
.page .skipped { color: #8a6d1d; } .wide { overflow-x: auto; } .wide td:first-child { white-space: nowrap; }
.verdict { font-size: 1.15em; font-weight: 600; }
table { border-collapse: collapse; margin: .4em 0 1em; } th, td { padding: .15em .7em; text-align: right; }
th { font-weight: 600; border-bottom: 1px solid #b5bccb; } td:first-child, th:first-child { text-align: left; }
tr:nth-child(even) td { background: #f4f5f8; } table { font-variant-numeric: tabular-nums; font-size: 13px; }
pre { font: 12px/1.4 ui-monospace, monospace; background: #f4f5f8; padding: .7em 1em; white-space: pre-wrap; }
summary { cursor: pointer; color: #5a6270; }
svg .axis { stroke: #b5bccb; } svg .okay { fill: #8fc79a; } svg .bad { fill: #e58b88; } svg .skip { fill: #e3cf8f; }
svg .slice { stroke: #fff; } svg .mark { stroke: #b3362f; stroke-width: 1.5; } svg .row { text-anchor: end; }
svg .tick { text-anchor: middle; fill: #5a6270; } svg .small { font-size: 10px; }
"""


def report_page(report: Report, timeline: Timeline, machine: str, dump: Path, recorded: Recording | None = None) -> str:
    """The page; ``dump``: of the machine, where one was kept; ``recorded``: the last recording of a live guest."""
    body = element("body", {"class": "page"})
    verdict = report.verdict.name.lower()
    kernel = f", Linux {report.kernel}" if report.kernel else ""
    body.append(element("h1", {}, f"{machine}{kernel}"))
    body.append(element("p", {"class": f"verdict {verdict}"}, f"{verdict}: {report.why}, in {report.seconds:.1f} s"))
    body.extend(element("p", {}, note) for note in report.notes)
    body.extend(_failures(report))
    if timeline.operations or timeline.moments:
        body.append(element("h2", {}, "Timeline"))
        body.append(_timeline(report, timeline))
        if timeline.left_out:
            body.append(element("p", {}, f"{timeline.left_out} further moments are counted, not shown"))
    body.extend(_operations(timeline.operations, _COUNTED_SO if report.results else _COUNTED_LIVE))
    if recorded is not None:
        body.extend(_recorded(recorded))
    body.append(element("h2", {}, "What the models did"))
    body.append(element("pre", {}, "\n".join(f"{subject:8}  {text}" for subject, text in report.account.lines())))
    body.extend(_of_dump(dump))
    if report.stand_lines:
        body.append(element("h2", {}, "Where the guest was"))
        body.append(element("pre", {}, "\n".join(report.stand_lines)))
    body.append(element("h2", {}, "The console's end"))
    body.append(element("pre", {}, "\n".join(report.last_lines)))
    return spaces.page(f"{machine}: {verdict}", body, _STYLE)


def _failures(report: Report) -> Iterator[Element]:
    for result in report.results:
        if not result.passed and result.skipped is None:
            why = f": {result.reason}" if result.reason else ""
            yield element("p", {"class": "failed"}, f"{result.name} failed{why}")
            if len(result.notes) > 1:
                yield details("all that it said", "\n".join(result.notes))


# -- the timeline ------------------------------------------------------------------------------------------------------


def _timeline(report: Report, timeline: Timeline) -> Element:
    """Tests as slices, and below them what was reported, by who reported it."""
    rows = list(dict.fromkeys(moment.who for moment in timeline.moments))
    height = 40 + _ROW * (1 + len(rows))
    root = element("svg", {"xmlns": "http://www.w3.org/2000/svg", "width": _WIDTH, "height": height})
    ends = [each.seconds for each in timeline.operations] + [each.seconds for each in timeline.moments]
    seconds = max([report.seconds, *ends, 1e-3])

    def x(at: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(max(at / seconds, 0.0), 1.0)

    root.append(_label(18, "tests" if report.results else "guest"))
    began = 0.0
    for each in timeline.operations:
        skipped, passed = each.result.skipped is not None, each.result.passed
        kind = "skip" if skipped else "okay" if passed else "bad"
        width = max(x(each.seconds) - x(began), 1.5)
        box = {"x": f"{x(began):.1f}", "y": 4, "width": f"{width:.1f}", "height": _ROW - 6, "class": f"slice {kind}"}
        shape = element("rect", box)
        shape.append(element("title", {}, f"{each.result} at {each.seconds:.2f} s"))
        root.append(shape)
        if width > 7 * len(each.result.name) + 8:
            root.append(element("text", {"x": f"{x(began) + 5:.1f}", "y": 18}, each.result.name))
        began = each.seconds
    for number, who in enumerate(rows, start=1):
        y = 4 + _ROW * number
        root.append(_label(y + 14, who))
        for moment in timeline.moments:
            if moment.who == who:
                at = f"{x(moment.seconds):.1f}"
                mark = element("line", {"x1": at, "x2": at, "y1": y, "y2": y + _ROW - 8, "class": "mark"})
                mark.append(element("title", {}, f"{moment.seconds:.3f} s: {moment.text}"))
                root.append(mark)
    bottom = height - 26
    root.append(element("line", {"x1": _LEFT, "x2": _RIGHT, "y1": bottom, "y2": bottom, "class": "axis"}))
    step = next(each for each in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1e4, 1e9)
                if seconds / each <= 12)  # fmt: skip
    for tick in range(int(seconds / step) + 1):
        place = {"x": f"{x(tick * step):.1f}", "y": bottom + 16, "class": "tick"}
        root.append(element("text", place, f"{tick * step:g} s"))
    return root


def _label(y: float, text: str) -> Element:
    return element("text", {"x": _LEFT - 10, "y": y, "class": "row"}, text)


# -- commands by operation --------------------------------------------------------------------------------------------


def _operations(operations: Sequence[Operation], counted: str) -> Iterator[Element]:
    """A table for each SMMU: what it did in each of the guest's tests, or of what a live one was asked."""
    for name in dict.fromkeys(name for each in operations for name in each.counts):
        total: Counter[str] = sum((each.counts.get(name, Counter()) for each in operations), Counter())
        columns = [kind for kind, _ in total.most_common(_COLUMNS)]
        if not columns:
            continue
        yield element("h2", {}, f"{name}: commands, events and walks by operation")
        yield element("p", {}, counted)
        table = element("table")
        table.append(_row("th", ["until the end of", *columns]))
        for each in operations:
            counts = each.counts.get(name, Counter())
            table.append(_row("td", [each.result.name, *(str(counts[kind] or "") for kind in columns)]))
        table.append(_row("td", ["all", *(str(total[kind]) for kind in columns)]))
        wide = element("div", {"class": "wide"})
        wide.append(table)
        yield wide
        if rest := total.keys() - set(columns):
            yield element("p", {}, f"not shown: {', '.join(f'{total[kind]} {kind}' for kind in sorted(rest))}")


def _recorded(seen: Recording) -> Iterator[Element]:
    """The last recording in a few lines, and commands by what the kernel did."""
    yield element("h2", {}, "The last recording")
    yield element("pre", {}, "\n".join(seen.summary()))
    rows = by_operation(seen)
    total = sum((Counter(each.commands) for each in rows.values()), Counter())
    if not total:
        return
    columns = [kind for kind, _ in total.most_common(_COLUMNS)]
    table = element("table")
    table.append(_row("th", ["operation", "of bytes", "times", *columns]))
    for (name, size), each in rows.items():
        name = "until a CMD_SYNC" if name == "?" else name
        counts = (str(each.commands.get(kind, "")) for kind in columns)
        table.append(_row("td", [name, f"{size:#x}" if size else "", str(each.count), *counts]))
    wide = element("div", {"class": "wide"})
    wide.append(table)
    yield wide


def _row(tag: str, cells: Sequence[str]) -> Element:
    row = element("tr")
    row.extend(element(tag, {}, each) for each in cells)
    return row


# -- what a dump says -------------------------------------------------------------------------------------------------


def _of_dump(path: Path) -> Iterator[Element]:
    if not path.is_file():
        return
    try:
        kept = Kept(path)
        shown = page(kept.execute)
        found = list(spaces.collect(kept.execute))
    except UsageError as why:
        yield element("p", {}, str(why))
        return
    for event in _explained(shown):
        yield element("h2", {}, f"Why {event['kind']}")
        yield element("p", {}, event["text"])
        yield element("pre", {}, "\n".join(explanation_lines(event["explained"])))
    yield element("h2", {}, "The machine when it failed")
    yield element("p", {}, f"'vhost-iommu show {path}' says this, 'explain' and 'spaces' more")
    yield details("all of it", "\n".join(page_lines(shown)))
    for number, space in enumerate(found):
        yield from spaces.pictured(space, legend=not number)


def _explained(shown: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Events with what became of their transactions, each once."""
    seen = set()
    for instance in shown["instances"]:
        for event in instance["events"]:
            told = json.dumps(event["explained"])
            if event["explained"] is not None and told not in seen:
                seen.add(told)
                yield event
