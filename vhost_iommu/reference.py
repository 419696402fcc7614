# SPDX-License-Identifier: Apache-2.0
"""The pages under docs/reference/, written from the declarations; ``python -m vhost_iommu.reference [--check]``.

Law: a page holds nothing that its declarations do not, so it is regenerated, never edited.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from .lab.control import COMMANDS, QUERIES
from .lab.faults import FAULTS, Bare, Seen
from .layout import Access, Field, Layout, Register
from .masters import engine
from .models import MODELS
from .smmu import descriptors
from .smmu.model import Group, Page

#: Values that are more than this get a table of their own at the end of the page.
INLINE = 5

FOLDER = Path(__file__).parent.parent / "docs" / "reference"


class _Page:
    """One Markdown page, put together from top to bottom."""

    def __init__(self, title: str, intro: str) -> None:
        self.lines = [
            "<!-- SPDX-License-Identifier: Apache-2.0 -->",
            "<!-- Written by `python -m vhost_iommu.reference`; edit the declarations instead. -->",
            f"# {title}",
            "",
            *intro.strip().splitlines(),
            "",
        ]
        #: Long encodings, to be tabulated at the end, and the fields that use each (S2PII0 counts as S2PII).
        self.encodings: dict[tuple[tuple[int, str], ...], list[str]] = {}

    def add(self, *lines: str) -> None:
        self.lines += [*lines, ""]

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.lines.append(f"| {' | '.join(heads)} |")
        self.lines.append(f"|{'|'.join('---' for _ in heads)}|")
        self.lines += [f"| {' | '.join(row)} |" for row in rows]
        self.lines.append("")

    def layout(self, cls: type[Layout], facts: Iterable[str]) -> None:
        """A heading, what the layout is, and a row for each field."""
        self.add(f"## {cls.__name__}")
        self.add(*_paragraphs(cls))
        self.add(" · ".join(facts))
        if not cls.fields:
            return
        register = issubclass(cls, Register)
        heads = ["bits", "field", *(["access", "reset"] if register else []), "values", "meaning"]
        rows = []
        for f in cls.fields:
            name = f"`{f.name}`" + (f" (if {_escape(f.view)})" if f.view else "")
            cells = [f.bits[1:-1], name]
            if register:
                assert issubclass(cls, Register)
                access = f.access or cls.access
                cells += [access.value + (f", [{f.guard}](#guards)" if f.guard else ""), _reset(f)]
            rows.append([*cells, self._values(cls, f), _meaning(f)])
        self.table(heads, rows)

    def _values(self, cls: type[Layout], f: Field) -> str:
        if f.name in cls.fixed:
            return f"{cls.fixed[f.name]:#04x}"
        if f.values is None:
            return ""
        if len(f.values) <= INLINE:
            return "<br>".join(f"{value} {_escape(text)}" for value, text in f.values.items())
        users = self.encodings.setdefault(tuple(f.values.items()), [])
        if (user := f.name.rstrip("0123456789")) not in users:
            users.append(user)
        return f"\0{list(self.encodings).index(tuple(f.values.items()))}\0"

    def text(self) -> str:
        if self.encodings:
            self.add("## Encodings", "", "Values that are not listed are reserved.")
        names = [f"Values of {', '.join(users)}" for users in self.encodings.values()]
        for key, name in zip(self.encodings, names, strict=True):
            self.add(f"### {name}")
            shown = "d" if max(value for value, _ in key) < 16 else "#04x"
            self.table(["value", "meaning"], [(format(value, shown), _escape(text)) for value, text in key])
        text = "\n".join(self.lines).rstrip() + "\n"
        for at, name in enumerate(names):
            text = text.replace(f"\0{at}\0", f"[{name[0].lower()}{name[1:]}](#{_anchor(name)})")
        return text


def _paragraphs(cls: type[Layout]) -> list[str]:
    return [_escape(line.strip()) for line in (cls.__doc__ or "").strip().splitlines()]


def _summary(cls: type[Layout]) -> str:
    said = _paragraphs(cls)
    if said:
        return said[0].rstrip(".")
    return _escape(cls.fields[0].doc) if len(cls.fields) == 1 else ""


def _escape(text: str) -> str:
    for mark in ("|", "<", "*"):
        text = text.replace(mark, f"\\{mark}")
    return text


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _link(cls: type[Any]) -> str:
    return f"[{cls.__name__}](#{_anchor(cls.__name__)})"


def _reset(f: Field) -> str:
    return f.text(f.reset) if f.values is None else str(f.reset)


def _meaning(f: Field) -> str:
    array = f" ({f.width // f.each} elements of {f.each} bits, element 0 lowest)" if f.each else ""
    held = f"; holds address bits [{f.low + f.width - 1}:{f.low}]" if f.shift and f.low else ""
    needs = f"; needs {f.needs}" if f.needs else ""
    return _escape(f.doc + array + held + needs)


def _section(cls: type[Layout]) -> list[str]:
    return [f"{cls.specification} §{cls.section}"] if cls.section else []


# -- the pages -----------------------------------------------------------------------------------------------


def text(about: Page) -> str:
    """The page as Markdown."""
    page = _Page(about.title, about.intro)
    page.add("## Contents", *(["", "[Guards](#guards) say when a write is ignored."] if about.guards else []))
    for group in about.groups:
        page.add(f"### {group.title}", "", group.where)
        page.table(
            ["offset", "register", "bits", "access", ""],
            [(_offset(r), _link(r), str(r.size * 8), _access(r), _summary(r)) for r in group.registers],
        )
    if about.guards is not None:
        page.add("## Guards", "", "A write to what a guard covers is ignored:")
        page.table(["guard", "ignored"], [(f"`{guard}`", _escape(guard.doc)) for guard in about.guards])
    for group in about.groups:
        for r in group.registers:
            page.layout(r, _register_facts(r))
    if about.numbers is not None:
        _numbered(page, about)
    elif about.layouts and not about.groups:
        page.table(["bytes", "structure", ""], [(str(cls.size), _link(cls), _summary(cls)) for cls in about.layouts])
    for cls in about.layouts:
        page.layout(cls, [f"{cls.size} bytes", *_section(cls)])
    return page.text()


def _numbered(page: _Page, about: Page) -> None:
    number, numbers, more = about.number, about.numbers or {}, about.layouts
    page.table(
        [number, "command" if number == "opcode" else "record", ""],
        [(f"{at:#04x}", _link(cls), _summary(cls)) for at, cls in numbers.items()]
        + [("", _link(cls), _summary(cls)) for cls in more],
    )
    for at, cls in numbers.items():
        page.layout(cls, [f"{number} {at:#04x}", *_section(cls)])


def _offset(r: type[Register]) -> str:
    return f"{r.at:#06x}" + (f" + {r.stride}n" if r.count > 1 else "")


def _access(r: type[Register]) -> str:
    kinds = {f.access or r.access for f in r.fields} or {r.access}
    return "/".join(kind.value for kind in Access if kind in kinds)


def _register_facts(r: type[Register]) -> list[str]:
    facts = [f"offset {_offset(r)}" + (f", n = 0 to {r.count - 1}" if r.count > 1 else ""), f"{r.size * 8} bits"]
    facts.append(f"resets to {r.reset:#x}")
    if r.guard:
        facts.append(f"guard [{r.guard}](#guards)")
    if r.needs:
        facts.append(f"needs {r.needs}")
    return [*facts, *_section(r)]


_ENGINE = Page(
    "engine-registers.md",
    "Registers of the DMA engine",
    """
The SMMUv3TestEngine that Arm publishes for TF-A-tests, as a platform device, and what this project adds to it. Its
window begins with pairs of a user page and a privileged page, 64 KiB each, of 512 frames of 128 bytes; behind all
pairs come as many extension pages with the same frames again, and then the ATC page. *Offset* counts from a frame's
begin in its page, or from the begin of the ATC page. Bits that a table leaves out read as zero, and a write does not
change them. A frame takes no writes while it runs.

Frames run side by side. A stalled transaction (IHI 0070 §3.12.2) holds up its own transfer, and its command as soon
as `inflight` transfers are stalled; other frames and all registers go on. After an abort no transfer is begun, and the
command ends when those that are stalled have ended. Its state is then told, then its MSI sent, which may stall too.

With `ATS_ENABLE` a frame's transactions, but not its MSIs, go by way of the engine's address translation cache (ATC):
what is not there is asked of the SMMU, with no-write for a read, and the access is made as a translated transaction.
What is denied aborts. An entry stays until CMD_ATC_INV names it, or until another takes its place. With `PRI_ENABLE`
too, what a success completion denies makes a page request, a group of one with the frame's number modulo 512 as its
index; the transfer waits for the response as for a stall's end. After Success the translation is requested again, and
`page_request_limit` requests in a row may be in vain; other responses abort. A response without a PASID is taken for a
request that had one. A transfer of a frame whose group has no response yet waits for that, then tries by itself. When a
frame that made requests with a PASID is set to another stream or PASID, or PRI is disabled, it sends a stop marker.
""",
    groups=(
        Group("User frame", "In the first page of a pair, for less privileged software.", engine.USER_REGISTERS),
        Group("Privileged frame", "In the second page of a pair.", engine.PRIVILEGED_REGISTERS),
        Group("Extension frame", "In an extension page: ours, not Arm's.", engine.EXTENSION_REGISTERS),
        Group("ATC page", "The last page of the window, once for the engine: ours, too.", engine.ATC_REGISTERS),
    ),
    layouts=(engine.SideAttributes,),
)

_DESCRIPTORS = Page(
    "smmuv3-descriptors.md",
    "Translation table descriptors",
    """
VMSAv8-64 descriptors, eight bytes each (Arm DDI 0487, chapter D8). Bits that a table leaves out are RES0. A row
with a condition is another reading of bits that rows above it declare, or of bits that are RES0 otherwise.
""",
    layouts=descriptors.LAYOUTS,
)

#: By file.
PAGES = {
    page.file: page for page in (*(page for model in MODELS.values() for page in model.pages), _DESCRIPTORS, _ENGINE)
}


#: The page that is written by hand but for a table.
FAULTS_PAGE = FOLDER.parent / "faults.md"
_BEGIN, _END = "vhost_iommu/lab/faults/ instead. -->\n", "<!-- end -->"


def with_faults(text: str) -> str:
    """The page of faults with its tables as the declarations say."""
    before, begin, rest = text.partition(_BEGIN)
    return f"{before}{begin}{faults()}{_END}{rest.partition(_END)[2]}"


def faults() -> str:
    """What kinds of faults there are, and what Linux was seen to do with each."""
    page = _Page("", "")
    page.lines = []
    rows = []
    for kind, declared in FAULTS.items():
        values = [
            f"`{each.name}`: {each.about}"
            + (f", {', '.join(each.choices)}" if each.choices else "")
            + ("" if each.needed or each.default is None else f" ({each.default})")
            for each in declared.parameters().values()
        ]
        does = " ".join((declared.__doc__ or "").split())
        rows.append([f"`{kind}`", declared.TARGET, _escape(does), "; ".join(values), f"§{declared.SECTION}"])
    page.table(["fault", "of", "what it does", "parameters (default)", "section"], rows)
    rows = []
    for kind, declared in FAULTS.items():
        for seen in declared.LINUX:
            says = "<br>".join(f"`{_escape(each)}`" for each in seen.says) or "nothing"
            rows.append([f"`{' '.join(f'{kind} {seen.fault}'.split())}`", _machine(seen), says, _escape(seen.then)])
    page.table(["fault", "machine", "Linux 6.12 prints", "and then"], rows)
    page.lines += ["Stock Linux has no way to meet these; a program of guest/bare does:", ""]
    rows = []
    for kind, declared in FAULTS.items():
        for bare in declared.BARE:
            case = f"`{bare.program}`: {bare.case}" + ("" if bare.passes else ", which fails")
            rows.append([f"`{f'{kind} {bare.fault}'.strip()}`", _machine(bare), case, _escape(bare.then)])
    page.table(["fault", "machine", "program and case", "what software sees"], rows)
    return "\n".join(["", *page.lines, ""])


def _machine(seen: Seen | Bare) -> str:
    return seen.machine + "".join(f", `{line}`" for line in seen.features)


CONTROL_PAGE = "control.md"
_CONTROL = """
What a machine that `serve` or `run` has can be asked, and told, while it runs. The socket is shaped like QEMU's QMP:
JSON objects one after the other, first a greeting with the key `QMP`; `qmp_capabilities` has to be executed before
anything else; a request has `execute`, and may have `arguments` and `id`; its answer has `return`, or `error` with
`class` and `desc`, and the `id`. QEMU's own client, `qemu.qmp`, talks to it. What comes unasked has `event`, `data`
and `timestamp`.

The socket is private: its mode is 0600, and who is another user is hung up on. By default it is in a folder of this
user's, where `vhost-iommu ctl`, `show`, `explain` and `spaces` find it by the machine's name; `serve --control` puts
it elsewhere. Eight clients may talk at a time: of more, the one that has been silent longest is left. A request has
at most 64 KiB. Who does not read what it is answered is not heard meanwhile, and loses events, which the event
`EVENTS_LOST` counts.

Nothing that begins with `query-`, nor `explain`, changes anything: not a cache, not an access flag. These can be
asked of a dump too. Numbers are plain JSON numbers, also those of 64 bits; a decoded structure has its `kind`, its
`words` in hex, its `fields` that are not zero, a `text` for people, and the `problems` that no software should make.
"""


def control() -> str:
    """What the control socket takes and answers."""
    page = _Page("The control socket", _CONTROL)
    page.add("## Commands")
    rows = [(f"[`{each.name}`](#{_anchor(each.name)})", _escape(each.about)) for each in COMMANDS.values()]
    page.table(["command", ""], rows)
    answers: dict[str, type[Any]] = {}
    for name, each in COMMANDS.items():
        page.add(f"### {name}", "", _escape(each.about))
        if each.arguments:
            rows3 = [
                (f"`{a.name}`", _escape(a.expected), "needed" if a.needed else _default(a.default))
                for a in each.arguments
            ]
            page.table(["argument", "", "default"], rows3)
        page.add(f"Answers {_answer(each.answers, answers)}." + (" Of a dump too." if name in QUERIES else ""))
    page.add("## Answers")
    done: set[str] = set()
    while left := [kind for name, kind in answers.items() if name not in done]:
        kind = left[0]
        done.add(kind.__name__)
        about = " ".join((kind.__doc__ or "").split())
        page.add(
            f"### {kind.__name__}", *(["", _escape(about)] if about and not about.startswith(kind.__name__) else [])
        )
        hints = get_type_hints(kind)
        names = [each.name for each in fields(kind) if each.init] if is_dataclass(kind) else list(kind._fields)
        page.table(["key", ""], [(f"`{name}`", _answer(hints[name], answers)) for name in names])
    return page.text().replace("``", "`")


def _default(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _answer(kind: Any, answers: dict[str, type[Any]]) -> str:
    """A type in words; what it is made of is added to ``answers``."""
    origin, inner = get_origin(kind), [each for each in get_args(kind) if each not in (NoneType, ...)]
    null = " or null" if NoneType in get_args(kind) else ""
    if kind is NoneType:
        return "null"
    if origin is tuple and ... not in get_args(kind):
        return f"a list: {', '.join(_answer(each, answers) for each in get_args(kind))}"
    if origin is tuple:
        return f"a list of {_answer(inner[0], answers)}"
    if origin is not None and issubclass(origin, Mapping):
        return f"an object of {_answer(inner[1], answers)} by name"
    if inner:
        return _answer(inner[0], answers) + null
    if isinstance(kind, type) and issubclass(kind, Layout):
        return "a decoded structure"
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        answers.setdefault(kind.__name__, kind)
        return _link(kind)
    return {int: "a number", float: "a number", str: "a string", bool: "true or false"}.get(kind, "an object")


def stale(folder: Path) -> list[Path]:
    """The pages in ``folder`` that are missing or differ from the declarations."""
    page = FAULTS_PAGE.read_text(encoding="utf-8") if folder == FOLDER else ""
    return [FAULTS_PAGE] * (page != with_faults(page) and folder == FOLDER) + [
        folder / name
        for name, page in _texts().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != page
    ]


def _texts() -> dict[str, str]:
    """All pages that are written whole, by file."""
    return {name: text(page) for name, page in PAGES.items()} | {CONTROL_PAGE: control()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with ``--check`` say which are stale (exit code 1)."""
    parser = argparse.ArgumentParser(prog="python -m vhost_iommu.reference", description="Write docs/reference/.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where the pages are (%(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    options = parser.parse_args(arguments)
    if options.check:
        found = stale(options.folder)
        for path in found:
            print(f"{path} is stale; run python -m vhost_iommu.reference", file=sys.stderr)
        return 1 if found else 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, page in _texts().items():
        (options.folder / name).write_text(page, encoding="utf-8")
    if options.folder == FOLDER:
        FAULTS_PAGE.write_text(with_faults(FAULTS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
