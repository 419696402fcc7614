# SPDX-License-Identifier: Apache-2.0
"""What Linux' arm-smmu-v3 reports, as 6.1 to 7.x print it: from its words to findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from ...layout import Layout
from ...smmu.v3 import events, registers
from ...smmu.v3.causes import EVENTS
from ...smmu.v3.events import Event, EventClass, PRIEntry
from ...smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, GERROR
from ..words import Decoded, decode_words, heading
from . import complaints
from .finding import Finding

#: How the driver calls itself before each of its lines.
NAME = "arm-smmu-v3"

L = TypeVar("L", bound=Layout)

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
        for each in complaints.COMPLAINTS
    },
}
_COMPLAINTS = {each.text: each for each in complaints.COMPLAINTS}
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


def says(line: str) -> bool:
    """Whether something that the driver reports is in ``line``."""
    return any(scanner.search(line) for scanner in _SCANNERS.values())


def findings(smmu: str, text: str, line_at: Callable[[int], int]) -> list[Finding]:
    """What ``text``, all that the driver says of ``smmu``, reports; ``line_at`` an offset in it the log has."""
    found: list[Finding] = []
    reports = [(name, match) for name, scanner in _SCANNERS.items() for match in scanner.finditer(text)]
    for name, match in sorted(reports, key=lambda report: report[1].start()):
        last = found[-1] if found else None
        if last is not None and (whole := _with(last, name, match)) is not None:
            found[-1] = whole
        elif name != "flags":
            made = Finding((line_at(match.start()),), smmu, " ".join(match[0].split()))
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
    return replace(made, meaning=f"{heading(cls)}; its words are missing", causes=EVENTS.get(cls, ()))


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
        return replace(made, causes=complaints.CONSUMED + complaints.STUCK)
    prod, cons = CMDQ_PROD(int(match["prod"], 16)), CMDQ_CONS(int(match["cons"], 16))
    consumed = prod.WR == cons.RD
    stale = ["ERR is of an error before, as all commands are consumed"] if consumed and cons.ERR else []
    where = (Decoded("register", prod), Decoded("register", cons, stale, advised=not consumed))
    causes = complaints.CONSUMED if consumed else complaints.STOPPED if cons.ERR else complaints.STUCK
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
        made,
        decoded=(Decoded("pri", _filled(PRIEntry(), said), [_NAMES_ONLY]),),
        causes=complaints.UNEXPECTED_PAGE_REQUEST,
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
