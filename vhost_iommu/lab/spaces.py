# SPDX-License-Identifier: Apache-2.0
"""The address spaces of streams as text and as pictures: which input addresses go where, and how.

Law: made of plain answers, a socket's or a dump's alike. A picture needs nothing beside itself, and whatever a guest
wrote is text in it, never markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from .text import Ask, alike, distinct, run_text

#: Streams and runs of one space that are shown.
MOST_STREAMS, MOST_RUNS = 256, 512
#: Runs of one picture: of more, what is left is one line.
MOST_DRAWN = 64

Element = ElementTree.Element


@dataclass(frozen=True, slots=True)
class Space:
    """What one stage of a stream, or substream, maps."""

    instance: str
    stream: int
    master: str
    about: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...]
    more: bool  #: there are further runs

    @property
    def title(self) -> str:
        about = self.about
        who = f"{self.instance}: stream {self.stream:#x}{f' ({self.master})' if self.master else ''}"
        substream = f" substream {about['ssid']:#x}" if about["ssid"] is not None else ""
        half = " upper half" if about["half"] else ""
        return f"{who}{substream}, stage {about['stage']}{half}, {about['tags']}"

    @property
    def sum(self) -> str:
        mapped = sum(run["size"] for run in self.runs if run["output"] is not None)
        broken = sum(run["output"] is None for run in self.runs)
        faults = f", {broken} places are broken" if broken else ""
        least = "at least " if self.more else ""
        bits = self.about["size"].bit_length() - 1
        runs = f"{len(self.runs)} run{'s' if len(self.runs) != 1 else ''}"
        return f"{least}{size_text(mapped)} of 2^{bits} bytes in {runs}{faults}; table at {self.about['base']:#x}"


def collect(ask: Ask, stream: int | None = None) -> Iterator[Space]:
    """Every space, or those of one stream."""
    masters = {sid: each["name"] for each in ask("query-masters") for sid in each["streams"]}
    for name in ask("query-status")["instances"]:
        found = ask("query-streams", instance=name, first=stream or 0, limit=1 if stream is not None else MOST_STREAMS)
        for each in alike(found["streams"]):
            if stream is None or each["sid"] == stream:
                yield from _of_stream(ask, name, each["sid"], masters.get(each["sid"], ""))


def _of_stream(ask: Ask, instance: str, sid: int, master: str) -> Iterator[Space]:
    substreams = ask("query-substreams", stream=sid, instance=instance, limit=MOST_STREAMS)["streams"]
    spaces: list[dict[str, Any]] = []
    for ssid in (None, *(each["sid"] for each in substreams)):
        spaces += ask("query-spaces", stream=sid, substream=ssid, instance=instance)
    for space in distinct(spaces):
        known = {"stream": sid, "substream": space["ssid"], "stage": space["stage"], "half": space["half"]}
        runs: list[Mapping[str, Any]] = []
        at: int | None = space["start"]
        while at is not None and len(runs) < MOST_RUNS:
            answer = ask("query-tables", **known, instance=instance, first=at, limit=MOST_RUNS)
            runs += answer["runs"]
            at = answer["next"]
        yield Space(instance, sid, master, space, tuple(runs[:MOST_RUNS]), at is not None or len(runs) > MOST_RUNS)


def text(spaces: Sequence[Space]) -> Iterator[str]:
    """A line for each run, which greps."""
    for each in spaces:
        yield f"{each.title}: {each.sum}"
        for run in each.runs:
            yield f"  {run_text(run)} ({size_text(run['size'])})"
        if each.more:
            yield "  and more"


def size_text(size: int) -> str:
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}" if size % unit == 0 else f"{size / unit:.1f} {name}"
    return f"{size} bytes"


# -- pictures ----------------------------------------------------------------------------------------------------------

_WIDTH = 960
#: Left and right edge of the boxes of inputs, and of outputs.
_LEFT, _RIGHT = (190, 400), (580, 790)
_STYLE = """
.page { font: 14px/1.45 system-ui, sans-serif; color: #1f2430; background: #fff; max-width: 1000px; margin: 2em auto; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 1.6em 0 .2em; } .page p { margin: .2em 0 .6em; color: #5a6270; }
svg { background: #fff; }
svg text { font: 12px ui-monospace, monospace; fill: #1f2430; } svg .head { font: 600 13px system-ui, sans-serif; }
svg .faint { fill: #5a6270; } svg .gap { fill: #9aa2b1; text-anchor: middle; } svg .at { text-anchor: end; }
.box { stroke: #fff; stroke-width: 1; } .band { opacity: .28; }
.rw { fill: #7aa6d8; } .ro { fill: #8fc79a; } .wo { fill: #f0b36b; } .none { fill: #c9ced8; } .broken { fill: #e58b88; }
.memory { fill: #e4e7ee; stroke: #b5bccb; }
"""


def kind_of(run: Mapping[str, Any]) -> str:
    """What colour a run has: by what an unprivileged access may do, or what any may of stage 2."""
    if run["output"] is None:
        return "broken"
    rights = run["access"].removeprefix("user ")[:2]
    return {"rw": "rw", "rd": "rw", "r-": "ro", "-w": "wo"}.get(rights, "none")


_LEGEND = {
    "rw": "read and write",
    "ro": "read only",
    "wo": "write only",
    "none": "privileged only, or nothing",
    "broken": "faults",
}


def svg(spaces: Sequence[Space], title: str) -> str:
    """One picture of all spaces, one below the other."""
    root = _svg(spaces, title)
    root.insert(0, element("style", {}, _STYLE))
    return ElementTree.tostring(root, "unicode", short_empty_elements=True) + "\n"


def html(spaces: Sequence[Space], title: str) -> str:
    """A page that needs nothing beside itself: each space's picture, and its runs as text."""
    body = element("body", {"class": "page"})
    body.append(element("h1", {}, title))
    if not spaces:
        body.append(element("p", {}, "No address of a stream translates."))
    for number, each in enumerate(spaces):
        body.extend(pictured(each, legend=not number))
    return page(title, body)


def pictured(space: Space, *, legend: bool) -> Iterator[Element]:
    """One space in a page."""
    yield element("h2", {}, space.title)
    yield element("p", {}, space.sum)
    yield _svg([space], "", titled=False, legend=legend)
    yield details("the same as text", "\n".join(text([space])))


def details(summary: str, content: str) -> Element:
    """Text that is shown when it is asked for."""
    made = element("details")
    made.append(element("summary", {}, summary))
    made.append(element("pre", {}, content))
    return made


def page(title: str, body: Element, style: str = "") -> str:
    """An HTML page."""
    root = element("html", {"lang": "en"})
    head = element("head")
    head.append(element("meta", {"charset": "utf-8"}))
    head.append(element("title", {}, title))
    head.append(element("style", {}, _STYLE + style))
    root.extend([head, body])
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, "unicode", method="html") + "\n"


def element(tag: str, attributes: Mapping[str, object] | None = None, content: str = "") -> Element:
    """With text in it, whatever that is."""
    made = Element(tag, {key: str(value) for key, value in (attributes or {}).items()})
    # XML has no way to say most control characters.
    made.text = "".join(c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in content) or None
    return made


def _svg(spaces: Sequence[Space], title: str, *, titled: bool = True, legend: bool = True) -> Element:
    root = element("svg", {"xmlns": "http://www.w3.org/2000/svg", "width": _WIDTH})
    y = 24.0
    if title:
        root.append(_text(16, y, title, "head"))
        y += 28
    if legend:
        y = _legend(root, y)
    for each in spaces:
        if titled:
            root.append(_text(16, y, each.title, "head"))
            root.append(_text(16, y + 17, each.sum, "faint"))
            y += 40
        y = _draw(root, each, y) + 24
    root.set("height", f"{y:.0f}")
    root.set("viewBox", f"0 0 {_WIDTH} {y:.0f}")
    return root


def _legend(root: Element, y: float) -> float:
    x = 16
    for kind, meaning in _LEGEND.items():
        root.append(_rect(x, y - 10, 14, 12, f"box {kind}"))
        root.append(_text(x + 20, y, meaning, "faint"))
        x += 44 + 7 * len(meaning)
    return y + 30


@dataclass(slots=True)
class _Placed:
    """Addresses, and where they are drawn."""

    start: int
    size: int
    y: float
    height: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2 + 4

    def at(self, address: int) -> float:
        return self.y + self.height * (address - self.start) / self.size


def _place(ranges: Sequence[tuple[int, int]], y: float) -> tuple[list[_Placed], list[float], float]:
    """Boxes one below the other, where there is a gap between addresses, and where it all ends."""
    placed: list[_Placed] = []
    gaps: list[float] = []
    for start, size in ranges:
        if placed and placed[-1].start + placed[-1].size != start:
            gaps.append(y + 8)
            y += 18
        # Addresses are sparse: a size shows by its logarithm, so that a page can be seen beside a gigabyte.
        height = 17 + 3 * max(0, min(size.bit_length() - 13, 12))
        placed.append(_Placed(start, size, y, height))
        y += height
    return placed, gaps, y


def _draw(root: Element, space: Space, top: float) -> float:
    runs = space.runs[:MOST_DRAWN]
    if not runs:
        root.append(_text(16, top, "it maps nothing", "faint"))
        return top + 10
    outputs = _merged([(run["output"], run["size"]) for run in runs if run["output"] is not None])
    root.append(_text(_LEFT[0], top, "input addresses", "faint"))
    goes_to = "intermediate physical" if space.about["stage"] == 1 and "VMID" in space.about["tags"] else "physical"
    root.append(_text(_RIGHT[0], top, f"{goes_to} addresses", "faint"))
    left, gaps, left_end = _place([(run["start"], run["size"]) for run in runs], top + 10)
    right, right_gaps, right_end = _place(outputs, top + 10)
    for run, box in zip(runs, left, strict=True):
        if run["output"] is not None:
            root.append(_band(run, box, right))
    for run, box in zip(runs, left, strict=True):
        kind = kind_of(run)
        shape = _rect(_LEFT[0], box.y, _LEFT[1] - _LEFT[0], box.height, f"box {kind}")
        shape.append(element("title", {}, run_text(run)))
        root.append(shape)
        root.append(_text(_LEFT[0] - 8, box.middle, f"{box.start:#x}", "at"))
        rights = run["access"].partition(",")[0].removeprefix("user ") if run["output"] is not None else "faults"
        root.append(_text(_LEFT[0] + 8, box.middle, f"{size_text(box.size)}  {rights}"))
    for box in right:
        root.append(_rect(_RIGHT[0], box.y, _RIGHT[1] - _RIGHT[0], box.height, "memory"))
        root.append(_text(_RIGHT[1] + 8, box.middle, f"{box.start:#x}"))
        root.append(_text(_RIGHT[0] + 8, box.middle, size_text(box.size)))
    for (x0, x1), places in ((_LEFT, gaps), (_RIGHT, right_gaps)):
        for y in places:
            root.append(_text((x0 + x1) / 2, y + 5, "⋮", "gap"))
    end = max(left_end, right_end)
    if len(space.runs) > MOST_DRAWN or space.more:
        rest = f"{len(space.runs) - MOST_DRAWN} more runs" if len(space.runs) > MOST_DRAWN else "more"
        root.append(_text(_LEFT[0], end + 18, f"… and {rest}{', and others' if space.more else ''}", "faint"))
        end += 18
    return end


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without overlaps, in order of addresses."""
    found: list[tuple[int, int]] = []
    for start, size in sorted(ranges):
        if found and start <= found[-1][0] + found[-1][1]:
            first, length = found[-1]
            found[-1] = first, max(length, start + size - first)
        else:
            found.append((start, size))
    return found


def _band(run: Mapping[str, Any], box: _Placed, right: Sequence[_Placed]) -> Element:
    """From a run to where it goes."""
    target = next(each for each in right if each.start <= run["output"] < each.start + each.size)
    top, bottom = target.at(run["output"]), target.at(run["output"] + run["size"])
    x0, x1, half = _LEFT[1], _RIGHT[0], (_LEFT[1] + _RIGHT[0]) / 2
    path = (
        f"M{x0} {box.y:.1f} C{half} {box.y:.1f} {half} {top:.1f} {x1} {top:.1f} L{x1} {bottom:.1f} "
        f"C{half} {bottom:.1f} {half} {box.y + box.height:.1f} {x0} {box.y + box.height:.1f} Z"
    )
    return element("path", {"d": path, "class": f"band {kind_of(run)}"})


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Element:
    return element("rect", {"x": x, "y": f"{y:.1f}", "width": width, "height": f"{height:.1f}", "class": kind})


def _text(x: float, y: float, content: str, kind: str = "") -> Element:
    return element("text", {"x": x, "y": f"{y:.1f}", **({"class": kind} if kind else {})}, content)
