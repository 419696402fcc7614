# SPDX-License-Identifier: Apache-2.0
"""What Linux' arm-smmu reports of an SMMUv2, as 6.1 to 7.x print it: from its words to findings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from ...smmu.v2.records import ContextFault, GlobalFault
from ...smmu.v2.registers import CB_FSR, CB_FSYNR0, GFSR, GFSYNR0
from ..words import Decoded
from .finding import Finding

#: How the driver calls itself before each of its lines.
NAME = "arm-smmu"

_HEX = r"(?:0x[0-9a-fA-F]+|0)"
#: What each report looks like; a blank stands for any blanks.
_PATTERNS = {
    "context": (
        rf"Unhandled context fault: fsr=(?P<fsr>{_HEX}), iova=(?P<iova>{_HEX}), fsynr=(?P<fsynr>{_HEX})"
        rf", cbfrsynra=(?P<who>{_HEX}), cb=(?P<bank>\d+)"
    ),
    "unknown": rf"Blocked unknown Stream ID (?P<who>{_HEX})",
    "global": (rf"GFSR (?P<gfsr>{_HEX}), GFSYNR0 (?P<gfsynr>{_HEX}), GFSYNR1 (?P<who>{_HEX}), GFSYNR2 {_HEX}"),
    "sync": r"TLB sync timed out -- SMMU may be deadlocked",
}
_SCANNERS = {name: re.compile(pattern.replace(" ", r"\s+")) for name, pattern in _PATTERNS.items()}

_PARTLY = "from the driver's own words, which do not tell all of the fault"


def says(line: str) -> bool:
    """Whether something that the driver reports is in ``line``."""
    return any(scanner.search(line) for scanner in _SCANNERS.values())


def findings(smmu: str, text: str, line_at: Callable[[int], int]) -> list[Finding]:
    """What ``text``, all that the driver says of ``smmu``, reports; ``line_at`` an offset in it the log has."""
    reports = [(name, match) for name, scanner in _SCANNERS.items() for match in scanner.finditer(text)]
    found = []
    for name, match in sorted(reports, key=lambda report: report[1].start()):
        made = Finding((line_at(match.start()),), smmu, " ".join(match[0].split()))
        found.append(_FINDING[name](made, match))
    return found


def _number(match: re.Match[str], group: str) -> int:
    return int(match[group], 16)


def _context(made: Finding, match: re.Match[str]) -> Finding:
    fsr, fsynr = CB_FSR(_number(match, "fsr") & 2**32 - 1), CB_FSYNR0(_number(match, "fsynr") & 2**32 - 1)
    value = ContextFault(
        (fsr.raw & _bits(0)) | (fsynr.raw << 32 & _bits(32)) | (_number(match, "iova") & 2**64 - 1) << 64
    ).replace(SID=_number(match, "who") & 0xFFFF, CBNDX=int(match["bank"]) & 0xFF)
    return replace(
        made, said="Unhandled context fault", decoded=(Decoded("context-fault", value, _unsaid("CBAR and IPAFAR")),)
    )


def _bits(word: int) -> int:
    """The record's fields in its 32 bits from ``word`` on."""
    return sum(f.mask for f in ContextFault.fields if word <= f.lsb < word + 32)


def _unknown(made: Finding, match: re.Match[str]) -> Finding:
    value = GlobalFault.of(USF=1, SID=_number(match, "who") & 0xFFFF)
    return replace(made, decoded=(Decoded("global-fault", value, _unsaid("GFSYNR0 and GFAR")),))


def _global(made: Finding, match: re.Match[str]) -> Finding:
    known = sum(f.mask for f in GFSR.fields)
    status, syndrome = _number(match, "gfsr"), _number(match, "gfsynr")
    value = GlobalFault(status & known | (syndrome & sum(f.mask for f in GFSYNR0.fields)) << 32)
    value = value.replace(SID=_number(match, "who") & 0xFFFF)
    notes = _unsaid("GFAR")
    if status & ~known:
        notes.append(f"GFSR has bits {status & ~known:#x}, faults that this project's SMMUv2 does not have")
    return replace(made, said="Unexpected global fault", decoded=(Decoded("global-fault", value, notes),))


def _sync(made: Finding, match: re.Match[str]) -> Finding:
    return replace(
        made,
        meaning="TLBSTATUS.SACTIVE, or TLBGSTATUS.GSACTIVE, was not seen to be 0 within the driver's second",
        causes=("a transaction that used what was invalidated does not end: its target does not answer",),
    )


def _unsaid(what: str) -> list[str]:
    return [f"{_PARTLY}: {what} are taken as 0"]


_FINDING: dict[str, Callable[[Finding, re.Match[str]], Finding]] = {
    "context": _context,
    "unknown": _unknown,
    "global": _global,
    "sync": _sync,
}
