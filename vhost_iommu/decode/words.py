# SPDX-License-Identifier: Apache-2.0
"""Words as a kernel log prints them, turned into named fields: STEs, CDs, commands, events, descriptors, registers.

Law: one record at a time, of a kind that is named. What else stands in the log is for ``logs``.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from ..layout import Field, Layout, Register
from ..models import MODELS
from ..smmu import descriptors
from ..smmu.model import Record

#: More fields than this, and those that are zero are listed together.
MANY = 20


@dataclass(frozen=True, slots=True)
class Decoded:
    """A layout's value, and what is to be said about how it was come by."""

    kind: str
    value: Layout
    notes: list[str] = field(default_factory=list)
    #: The views (by ``Field.view``) that hold here.
    views: frozenset[str] = frozenset()
    #: Whether the error that it may report is what is asked about.
    advised: bool = True

    @property
    def name(self) -> str:
        return type(self.value).__name__

    @property
    def problems(self) -> list[str]:
        """What no software should write: reserved values and bits."""
        return self.value.problems()

    @property
    def causes(self) -> tuple[str, ...]:
        """What it most likely comes from, where it reports an error."""
        return (
            next((said for model in MODELS.values() if (said := model.causes(self.value))), ()) if self.advised else ()
        )

    @property
    def sid(self) -> int | None:
        """The StreamID that it is about, where it names one."""
        return self.value.values().get("SID")

    def text(self) -> str:
        """A heading, the notes, a line for each field, the problems, and the likely causes.

        Of a layout with many fields those that are zero share a line.
        """
        cls = type(self.value)
        lines = [heading(cls)]
        lines += [f"note: {note}" for note in self.notes]
        fields = [f for f in cls.fields if not f.view or f.view in self.views or _holds(f, self.value)]
        values = self.value.shown()
        rows = [(f, values[f.name]) for f in fields]
        shown = [row for row in rows if row[1] or len(rows) <= MANY]
        widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, shown), strict=True)]
        for f, value in shown:
            cells = [cell.ljust(width) for cell, width in zip(_cells((f, value)), widths, strict=True)]
            lines.append(f"  {'  '.join(cells)}  {f.doc}".rstrip())
        zero = " ".join(f.name for f, value in rows if not value)
        if zero and len(rows) > MANY:
            lines += textwrap.wrap(f"zero: {zero}", 110, initial_indent="  ", subsequent_indent="        ")
        lines += [f"illegal: {problem}" for problem in self.problems]
        lines += [f"cause: {cause}" for cause in self.causes]
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """The same as plain values; ``raw`` and field values are numbers, ``text`` a field's value for people."""
        cls, values = type(self.value), self.value.shown()
        return {
            "kind": self.kind,
            "name": self.name,
            "section": cls.section,
            "raw": self.value.raw,
            "words": [f"{word:#018x}" for word in self.value.words()],
            "fields": [
                {
                    "name": f.name,
                    "bits": f.bits[1:-1],
                    "value": values[f.name],
                    "text": f.text(values[f.name]),
                    "view": f.view,
                    "doc": f.doc,
                }
                for f in cls.fields
            ],
            "problems": self.problems,
            "causes": list(self.causes),
            "notes": self.notes,
        }


def heading(cls: type[Layout]) -> str:
    """What a layout is, and where the specification says so."""
    summary = (cls.__doc__ or "").strip().splitlines()[0]
    where = f" ({cls.specification} §{cls.section})" if cls.section else ""
    return f"{cls.__name__}: {summary.rstrip('.')}{where}"


def decode_words(kind: str, words: list[str]) -> Decoded:
    """What ``words`` (64 bits each, in hex, lowest first) say when they are a ``kind`` of KINDS.

    A ``register`` takes its name or offset first. A ``pte`` is one word, and may be followed by ``stage=2``,
    ``level=0`` to ``3``, ``granule=4k``, ``16k`` or ``64k`` and ``wide=1`` (52-bit addresses). UsageError when
    there is no such kind or register, or the words are not what it takes.
    """
    read = KINDS.get(kind.lower())
    if read is None:
        if _names_register(kind):  # KIND may be left out before a register's name
            return _register("register", [kind, *words])
        raise UsageError(f"{kind!r} is nothing that can be decoded; {_nearest(kind.lower(), KINDS)}")
    return read(kind.lower(), words)


def decode_text(kind: str, text: str) -> list[Decoded]:
    """As decode_words, of words in any form: with commas or line breaks between them, several records of a kind."""
    words = re.findall(r"[^\s,;]+", text)
    each = SIZES.get(kind.lower(), 0)
    if each and len(words) > each and len(words) % each == 0:
        return [decode_words(kind, words[at : at + each]) for at in range(0, len(words), each)]
    return [decode_words(kind, words)]


def is_kind(word: str) -> bool:
    """Whether decode_words takes ``word`` as a kind."""
    return word.lower() in KINDS or _names_register(word)


# -- the kinds -----------------------------------------------------------------------------------------------


def _record(record: Record) -> Callable[[str, list[str]], Decoded]:
    def read(kind: str, words: list[str]) -> Decoded:
        numbers, notes = _numbers(kind, words, record.layout.size // 8, partial=True)
        value = record.layout.from_words(numbers)
        if record.exact is not None:
            value = record.exact(value.raw)
        return Decoded(kind, value, [*notes, *record.remarks(value)])

    return read


def _pte(kind: str, words: list[str]) -> Decoded:
    options = {"stage": 1, "level": -1, "granule": 12, "wide": 0}
    choices: dict[str, dict[str, int]] = {
        "stage": {"1": 1, "2": 2},
        "level": {"0": 0, "1": 1, "2": 2, "3": 3},
        "granule": {"4k": 12, "16k": 14, "64k": 16},
        "wide": {"0": 0, "1": 1},
    }
    plain = []
    for word in words:
        name, equals, choice = word.lower().partition("=")
        if not equals:
            plain.append(word)
        elif name not in choices:
            raise UsageError(f"{word!r} is no option of pte; {_nearest(name, choices)}")
        elif choice not in choices[name]:
            raise UsageError(f"{word!r}: {name} is one of {', '.join(choices[name])}")
        else:
            options[name] = choices[name][choice]
    numbers, notes = _numbers(kind, plain, 1, partial=False)
    level = options["level"] if options["level"] >= 0 else None
    granule, wide = options["granule"], bool(options["wide"])
    value = descriptors.decode(numbers[0], options["stage"], level, granule, wide)
    if level is None and value.TYPE == descriptors.DescriptorType.TABLE_OR_PAGE:
        what = "a page, since AF is set" if value.raw >> 10 & 1 else "a table, since AF is not set"
        notes.append(f"without level= this could be a table or a page; taken for {what}")
    if isinstance(value, descriptors.InvalidDescriptor) and value.TYPE == descriptors.DescriptorType.BLOCK:
        notes.append(f"no block may stand at level {level}; the descriptor counts as invalid")
    if not isinstance(value, descriptors.InvalidDescriptor):
        leaf = isinstance(value, descriptors.S1LeafDescriptor | descriptors.S2LeafDescriptor)
        at = level if leaf and level is not None else 3
        notes.append(
            f"{'output' if leaf else 'next table'} {descriptors.output_address(value.raw, granule, at, wide):#x}"
        )
    views = {"block"} if value.TYPE == descriptors.DescriptorType.BLOCK else set()
    if wide:
        views.add("64KB, 52-bit" if granule == 16 else "LPA2")
    return Decoded(kind, value, notes, frozenset(views))


def _register(kind: str, words: list[str]) -> Decoded:
    if not words:
        raise UsageError("a register is decoded by its name or offset and then its value, as in: register CR0 0x1f")
    cls, notes = _find_register(words[0])
    if len(words) == 3 and cls.size == 8:
        low, high = (_number(word) for word in words[1:])
        if low < 1 << 32 and high < 1 << 32:
            return Decoded(kind, cls(low | high << 32), [*notes, "two 32-bit halves, the lower first"])
    if len(words) != 2:
        raise UsageError(f"{cls.__name__} is one value of {cls.size * 8} bits, not {len(words) - 1}")
    number = _number(words[1])
    if number >> cls.size * 8:
        raise UsageError(f"{cls.__name__} has {cls.size * 8} bits and {words[1]} has more; check the value")
    return Decoded(kind, cls(number), notes)


_RECORDS = [record for model in MODELS.values() for record in model.records]

KINDS: dict[str, Callable[[str, list[str]], Decoded]] = {
    **{record.kind: _record(record) for record in _RECORDS},
    "pte": _pte,
    "register": _register,
}

#: How many words a record has, of kinds of which several may follow each other.
SIZES = {record.kind: record.layout.size // 8 for record in _RECORDS if record.several}

#: Registers by their names in capitals, and by offset. A name that several models have is the first one's; those of any
#: are known with the model's before them, as in SMMUV2.CR0.
_NAMED = {
    **{name.upper(): cls for model in reversed(tuple(MODELS.values())) for name, cls in model.registers.items()},
    **{f"{model.name}.{name}".upper(): cls for model in MODELS.values() for name, cls in model.registers.items()},
}
_PLACED = {at: cls for model in MODELS.values() for at, cls in model.offsets.items()}
_SECOND_PAGES = [model.page1 for model in MODELS.values() if model.page1]


# -- helpers -------------------------------------------------------------------------------------------------


def _holds(view: Field, value: Layout) -> bool:
    """Whether a view named ``FIELD=value`` holds; nothing is known of one named otherwise."""
    name, equals, wanted = view.view.partition("=")
    if not equals or "." in name:
        return False
    return str(type(value).field_named(name).decode(value.raw)) == wanted


def _cells(row: tuple[Field, int]) -> tuple[str, str, str]:
    f, value = row
    name = f"{f.name} ({f.view})" if f.view else f.name
    if f.values is not None and not f.each and f.width == 1 and value in f.values:
        return f.bits, name, f"{value}({f.values[value]})"
    return f.bits, name, f.text(value)


def _number(word: str) -> int:
    try:
        if word.startswith(("-", "+")):
            raise ValueError
        number = int(word.replace("`", ""), 16)
    except ValueError:
        raise UsageError(f"{word!r} is no hexadecimal word; give words as 0x1f or 1f") from None
    if number >> 64:
        raise UsageError(f"{word!r} has more than 64 bits; give 64-bit words, the lowest first")
    return number


def _numbers(what: str, words: list[str], wanted: int, partial: bool) -> tuple[list[int], list[str]]:
    plural = "s" if wanted > 1 else ""
    if not words:
        raise UsageError(f"{what} is {wanted} word{plural} of 64 bits and none was given")
    if len(words) > wanted or (len(words) < wanted and not partial):
        raise UsageError(f"{what} is {wanted} word{plural} of 64 bits, not {len(words)}")
    missing = wanted - len(words)
    notes = [f"{missing} of {wanted} words missing at the end, taken as 0"] if missing else []
    return [_number(word) for word in words], notes


def _nearest(word: str, names: Iterable[str]) -> str:
    names = list(names)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(names)}"


def _register_name(text: str) -> str:
    return text.upper().removeprefix("ARM_").removeprefix("SMMU_").replace("EVTQ", "EVENTQ")


def _names_register(text: str) -> bool:
    return _register_name(text) in _NAMED


def _find_register(text: str) -> tuple[type[Register], list[str]]:
    name = _register_name(text)
    if name in _NAMED:
        return _NAMED[name], []
    try:
        offset = int(text, 16)
    except ValueError:
        digits = name.replace("O", "0")  # CRO for CR0
        close = [digits] if digits in _NAMED else difflib.get_close_matches(name, _NAMED, n=1)
        mend = f"did you mean {close[0]}?" if close else "give its name as in the architecture (CR0) or its offset"
        raise UsageError(f"{text!r} is no register; {mend}") from None
    for candidate, note in (
        (offset, ""),
        *((offset + page, "offset of page 0; the register is on page 1") for page in _SECOND_PAGES),
        (offset - 4, "the upper half of the register; give the whole"),
    ):
        cls = _PLACED.get(candidate)
        if cls is not None and (candidate >= offset or cls.size == 8):
            return cls, [note] if note else []
    nearest = min(_PLACED, key=lambda at: abs(at - offset))
    raise UsageError(f"there is no register at {offset:#x}; the nearest is {_PLACED[nearest].__name__} at {nearest:#x}")
