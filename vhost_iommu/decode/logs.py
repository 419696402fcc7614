# SPDX-License-Identifier: Apache-2.0
"""A kernel log, however it was pasted, and what arm-smmu-v3 reports in it: as Linux 6.1 to 7.x print it.

Law: each SMMU's words are read apart, so that lines of others between them, time stamps, prefixes of syslog, journal
or console, and line breaks change nothing. Lines that report no error are no finding.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from ..layout import Layout
from ..smmu.v3 import events, registers
from ..smmu.v3.events import Event, EventClass, PRIEntry
from ..smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, GERROR
from ..terminal import plain
from . import advice
from .words import Decoded, decode_words, heading

L = TypeVar("L", bound=Layout)


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


@dataclass(frozen=True, slots=True)
class Log:
    """What a text is, and what it reports of SMMUs, in its order."""

    findings: tuple[Finding, ...]
    #: The SMMUs whose driver has lines in it, as Linux names them.
    smmus: tuple[str, ...]
    #: Whether there are lines of a log at all, of whomever.
    stamped: bool
    #: Whether there are lines of the driver of SMMUv2, which is not decoded.
    smmuv2: bool
    #: All that is said, without what loggers and drivers put before it.
    plain: str


def read_log(text: str) -> Log:
    lines = [(number, plain(line)) for number, line in enumerate(text.replace("\r", "").split("\n"), 1)]
    # Whether lines were cut at blanks or at a terminal's width is seen by what can be read then.
    whole = _uncut(lines)
    return max((_read(each) for each in ([lines] if whole == lines else [lines, whole])), key=_understood)


def _read(lines: _Lines) -> Log:
    pieces = list(_pieces(lines))
    found = [finding for name, stream in _streams(pieces).items() for finding in _findings(name, stream)]
    return Log(
        tuple(_merged(sorted(found, key=lambda finding: finding.lines))),
        tuple(sorted({smmu for _, smmu, _, _ in pieces if smmu is not None})),
        any(stamped for _, _, stamped, _ in pieces),
        any(re.search(r"\barm-smmu \S+: ", line) for _, line in lines),
        " ".join(content for _, _, _, content in pieces if content),
    )


def _understood(log: Log) -> int:
    """How many records were found whole."""
    return sum(not each.notes for finding in log.findings for each in finding.decoded)


# -- from a log to the words of each SMMU ----------------------------------------------------------------------

_DRIVER = re.compile(r"\barm-smmu-v3\s+(\S+?):(?=\s|$)")
_BLANK = re.compile(r"[\s>|#*]+")
#: What loggers and consoles put before a line.
_STAMP = re.compile(
    r"""<\d{1,3}>                                                                  # level
      | \[\s*\d+\.\d+\] | \[\w{3}\s\w{3}\s+\d+\s[\d:.]+\s\d{4}\]                   # dmesg, dmesg -T
      | \[\s*[CT]\d+\]                                                             # caller
      | \d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?(?=\s) | [A-Z][a-z]{2}\s+\d+\s\d\d:[\d:.]+(?=\s)
      | (?:[\w.-]+\s+)?kernel(?:\[\d+\])?: | kern\s*:\s*\w+\s*: | \d+,\d+,\d+,[^;]*;""",
    re.VERBOSE,
)
_WORDS = re.compile(r"(?:0x[0-9a-f]+[\s,;]*)+", re.IGNORECASE)


#: (its number, the line), in order.
_Lines: TypeAlias = list[tuple[int, str]]
#: (line, SMMU if its driver speaks, whether something is stamped before it, what is said).
_Piece: TypeAlias = tuple[int, str | None, bool, str]


class _Stream:
    """What one SMMU's driver says, as one line."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._starts: list[int] = []
        self._lines: list[int] = []
        self._size = 0

    def add(self, line: int, content: str) -> None:
        self._parts.append(content)
        self._starts.append(self._size)
        self._lines.append(line)
        self._size += len(content) + 1

    def line_at(self, offset: int) -> int:
        return self._lines[bisect_right(self._starts, offset) - 1]

    @property
    def text(self) -> str:
        return " ".join(self._parts)


def _streams(pieces: Iterable[_Piece]) -> dict[str, _Stream]:
    streams: dict[str, _Stream] = {}
    name, foreign = "", False
    for line, driver, stamped, content in pieces:
        if driver is not None:
            name, foreign = driver, False
        elif _WORDS.fullmatch(content) or any(scanner.search(content) for scanner in _SCANNERS.values()):
            foreign = False
        elif stamped:
            foreign = True
        if not foreign and content:
            streams.setdefault(name, _Stream()).add(line, content)
    return streams


def _uncut(lines: _Lines) -> _Lines:
    """``lines`` as they were before a terminal cut them at its width."""
    width = max(len(line) for _, line in lines)
    whole: list[tuple[int, str]] = []
    full = False
    for number, line in lines:
        if full and not _STAMP.match(line) and not _DRIVER.match(line):
            whole[-1] = (whole[-1][0], whole[-1][1] + line)
        else:
            whole.append((number, line))
        full = len(line) == width
    return whole


def _pieces(lines: _Lines) -> Iterator[_Piece]:
    head = ""
    for number, line in lines:
        whole, head = f"{head}{line}", ""
        if re.search(r"\barm-smmu-v3\s*$", whole):  # broken before the name
            head = whole.rstrip() + " "
            continue
        # A log whose line breaks were lost has several of its lines in one.
        marks = [*_DRIVER.finditer(whole)]
        ends = [*(mark.start() for mark in marks), len(whole)]
        stamped, content = _unstamped(whole[: ends[0]])
        if content or not marks:
            yield number, None, stamped, content
        for mark, end in zip(marks, ends[1:], strict=True):
            yield number, mark[1], True, _untailed(whole[mark.end() : end])


def _unstamped(text: str) -> tuple[bool, str]:
    """Whether there are stamps before ``text``, and what is left without them."""
    at, stamped = 0, False
    while True:
        blank = _BLANK.match(text, at)
        at = at if blank is None else blank.end()
        stamp = _STAMP.match(text, at)
        if stamp is None:
            return stamped, text[at:].strip()
        at, stamped = stamp.end(), True


def _untailed(text: str) -> str:
    """``text`` without the stamps of a line that follows in the same one."""
    stamp = _STAMP.search(text)
    return (text if stamp is None else text[: stamp.start()]).strip()


# -- from words to findings ------------------------------------------------------------------------------------

_HEX = r"(?:0x[0-9a-fA-F]+|0)"
_LIST = rf"(?P<words>(?:[\s,;]*{_HEX}(?![\w:.]))*)"
#: What each report looks like; a blank stands for any blanks.
_PATTERNS = {
    "event": rf"event (?P<type>0x[0-9a-f]+) received:?{_LIST}",
    "named": (
        rf"event: (?P<name>\w+) client: (?P<client>.{{1,80}}?) sid: (?P<sid>{_HEX}) ssid: (?P<ssid>{_HEX})"
        rf"(?: iova: (?P<iova>{_HEX}) ipa: (?P<ipa>{_HEX})| fetch_addr: (?P<fetch>{_HEX}))?"
    ),
    "flags": (
        r"(?P<PnU>unpriv|priv) (?P<InD>data|inst) (?P<RnW>write|read) (?P<S2>s1|s2) "
        rf'"(?P<CLASS>[^"]*)"(?: ttd_(?P<TTRnW>read|write))?(?P<STALL> stall)? stag: (?P<STAG>{_HEX})'
    ),
    "error": rf"unexpected global error reported \((?P<active>{_HEX})\)",
    "mode": r"device has entered Service Failure Mode",
    "aborted": r"(?P<what>(?:GERROR|PRIQ|EVTQ|CMDQ) MSI|PRIQ|EVTQ) write aborted",
    "stopped": rf"CMDQ error \(cons (?P<cons>{_HEX})\)",
    "skipped": rf"skipping command in error state:?{_LIST}",
    "sync": rf"CMD_SYNC timeout(?: at {_HEX} \[hwprod (?P<prod>{_HEX}), hwcons (?P<cons>{_HEX})\])?",
    "page": (
        r"sid (?P<sid>0x[0-9a-f]+)\.(?P<ssid>0x[0-9a-f]+): \[(?P<group>\d+)(?P<last>L?)\] "
        rf"(?P<un>un)?privileged (?P<access>[RWX]*) ?access at iova (?P<iova>{_HEX})"
    ),
}
_SCANNERS = {
    **{name: re.compile(pattern.replace(" ", r"\s+").replace(r"\s+?", r"\s*")) for name, pattern in _PATTERNS.items()},
    **{
        each.text: re.compile(re.escape(each.text).replace(r"\ ", r"\s+").replace("%", ".{1,60}?"))
        for each in advice.COMPLAINTS
    },
}
_COMPLAINTS = {each.text: each for each in advice.COMPLAINTS}
_EVENTS = {cls.__name__: cls for cls in events.EVENTS.values()}
_CLASSES = {
    "CD fetch": EventClass.CD,
    "Stage 1 translation table fetch": EventClass.TT,
    "Input address caused fault": EventClass.IN,
}
#: What the driver says to have been aborted, and the global error that this is.
_ABORTED = {
    "GERROR MSI": GERROR.MSI_GERROR_ABT_ERR.name,
    "PRIQ MSI": GERROR.MSI_PRIQ_ABT_ERR.name,
    "EVTQ MSI": GERROR.MSI_EVENTQ_ABT_ERR.name,
    "CMDQ MSI": GERROR.MSI_CMDQ_ABT_ERR.name,
    "PRIQ": GERROR.PRIQ_ABT_ERR.name,
    "EVTQ": GERROR.EVENTQ_ABT_ERR.name,
}
_NAMES_ONLY = "from the driver's own words, which do not tell all of the record"


def _findings(smmu: str, stream: _Stream) -> list[Finding]:
    found: list[Finding] = []
    text = stream.text
    reports = [(name, match) for name, scanner in _SCANNERS.items() for match in scanner.finditer(text)]
    for name, match in sorted(reports, key=lambda report: report[1].start()):
        last = found[-1] if found else None
        if last is not None and (whole := _with(last, name, match)) is not None:
            found[-1] = whole
        elif name != "flags":
            made = Finding((stream.line_at(match.start()),), smmu, " ".join(match[0].split()))
            found.append(_FINDING.get(name, _complaint)(made, match))
    return found


def _with(last: Finding, name: str, match: re.Match[str]) -> Finding | None:
    """``last`` with what belongs to it in the report after it; None: that is one for itself."""
    value = last.decoded[0].value if last.decoded else None
    match name:
        case "named" if isinstance(value, Event) and not last.client:
            same = int(match["sid"], 16) == value.SID and match["name"] in (type(value).__name__, "UNKNOWN")
            return replace(last, client=match["client"]) if same else None
        case "named" if value is None and last.meaning.startswith(f"{match['name']}: "):
            return _named(replace(last, meaning="", causes=()), match)
        case "flags" if isinstance(value, Event):
            return _flagged(last, value, match) if _NAMES_ONLY in last.decoded[0].notes else last
        case "aborted" | "mode" if isinstance(value, GERROR):
            return last if value.values()[_error(match)] else None
        case "skipped" if isinstance(value, CMDQ_CONS):
            return replace(last, decoded=(*last.decoded, *_record("command", 2, match)))
    return None


def _event(made: Finding, match: re.Match[str]) -> Finding:
    made = replace(made, said=f"event {match['type']} received", decoded=_record("event", 4, match))
    if made.decoded:
        return made
    cls = type(events.decode(int(match["type"], 16)))
    return replace(made, meaning=f"{heading(cls)}; its words are missing", causes=advice.EVENTS.get(cls, ()))


def _named(made: Finding, match: re.Match[str]) -> Finding:
    cls = _EVENTS.get(match["name"], Event)
    said = {"SID": "sid", "SSID": "ssid", "InputAddr": "iova", "IPA": "ipa", "FetchAddr": "fetch"}
    value = _filled(cls(), {name: int(match[group] or "0", 16) for name, group in said.items()})
    value = _filled(value, {"SSV": int(match["ssid"], 16) != 0, **cls.fixed})
    return replace(made, decoded=(Decoded("event", value, [_NAMES_ONLY]),), client=match["client"])


def _flagged(last: Finding, value: Event, match: re.Match[str]) -> Finding:
    """The event of a ``named`` line with what the line after it says."""
    flags = {
        "PnU": match["PnU"] == "priv",
        "InD": match["InD"] == "inst",
        "RnW": match["RnW"] == "read",
        "S2": match["S2"] == "s2",
        "CLASS": _CLASSES.get(match["CLASS"], EventClass.IN),
        "TTRnW": match["TTRnW"] == "read",
        "STALL": match["STALL"] is not None,
        "STAG": int(match["STAG"], 16),
    }
    return replace(last, decoded=(replace(last.decoded[0], value=_filled(value, flags)),))


def _global_error(made: Finding, match: re.Match[str]) -> Finding:
    return replace(
        made, decoded=(Decoded("register", GERROR(int(match["active"], 16)), ["a bit is 1 if it is active"]),)
    )


def _aborted(made: Finding, match: re.Match[str]) -> Finding:
    return replace(made, decoded=(Decoded("register", GERROR.of(**{_error(match): 1})),))


def _stopped(made: Finding, match: re.Match[str]) -> Finding:
    return replace(made, decoded=(Decoded("register", CMDQ_CONS(int(match["cons"], 16))),))


def _skipped(made: Finding, match: re.Match[str]) -> Finding:
    return replace(made, said="skipping command in error state", decoded=_record("command", 2, match))


def _sync(made: Finding, match: re.Match[str]) -> Finding:
    made = replace(made, meaning="CMD_SYNC was not seen to complete within the driver's second (IHI 0070 §4.7.3)")
    if match["prod"] is None:
        return replace(made, causes=advice.CONSUMED + advice.STUCK)
    prod, cons = CMDQ_PROD(int(match["prod"], 16)), CMDQ_CONS(int(match["cons"], 16))
    consumed = prod.WR == cons.RD
    stale = ["ERR is of an error before, as all commands are consumed"] if consumed and cons.ERR else []
    where = (Decoded("register", prod), Decoded("register", cons, stale, advised=not consumed))
    causes = advice.CONSUMED if consumed else advice.STOPPED if cons.ERR else advice.STUCK
    return replace(made, decoded=where, causes=causes)


def _page(made: Finding, match: re.Match[str]) -> Finding:
    said = {
        "SID": int(match["sid"], 16),
        "SSID": int(match["ssid"], 16),
        "SSV": int(match["ssid"], 16) != 0,
        "PRGIndex": int(match["group"]),
        "Last": match["last"] != "",
        "Priv": match["un"] is None,
        **{name: name in match["access"] for name in "RWX"},
        "Address": int(match["iova"], 16),
    }
    return replace(
        made, decoded=(Decoded("pri", _filled(PRIEntry(), said), [_NAMES_ONLY]),), causes=advice.UNEXPECTED_PAGE_REQUEST
    )


def _complaint(made: Finding, match: re.Match[str]) -> Finding:
    complaint = next(each for text, each in _COMPLAINTS.items() if _SCANNERS[text] is match.re)
    sections = ", ".join(f"{name} §{registers.BY_NAME[name].section}" for name in complaint.registers)
    meaning = f"{complaint.meaning} (IHI 0070: {sections})" if sections else complaint.meaning
    return replace(made, meaning=meaning, causes=complaint.causes)


_FINDING: Mapping[str, Callable[[Finding, re.Match[str]], Finding]] = {
    "event": _event,
    "named": _named,
    "error": _global_error,
    "mode": _aborted,
    "aborted": _aborted,
    "stopped": _stopped,
    "skipped": _skipped,
    "sync": _sync,
    "page": _page,
}


def _error(match: re.Match[str]) -> str:
    """The global error that an ``aborted`` or ``mode`` line is about."""
    return _ABORTED[match["what"]] if "what" in match.re.groupindex else GERROR.SFM_ERR.name


def _record(kind: str, count: int, match: re.Match[str]) -> tuple[Decoded, ...]:
    """The record of ``count`` words that follow, as far as they do."""
    words = re.findall(_HEX, match["words"])[:count]
    return (decode_words(kind, words),) if words else ()


def _filled(value: L, said: Mapping[str, int]) -> L:
    """``value`` with those of ``said`` for which it has a field, and of each as much as the field holds."""
    fields = {f.name: f for f in value.fields}
    held = {
        name: number & ~((1 << fields[name].low) - 1) & ((1 << fields[name].low + fields[name].width) - 1)
        for name, number in said.items()
        if name in fields
    }
    return value.replace(**held)


def _merged(found: Iterable[Finding]) -> list[Finding]:
    """The same, with those together that say the same."""
    each: dict[object, Finding] = {}
    for finding in found:
        key = (finding.smmu, finding.meaning, *((d.kind, d.value) for d in finding.decoded))
        before = each.get(key)
        each[key] = finding if before is None else replace(before, lines=before.lines + finding.lines)
    return list(each.values())
