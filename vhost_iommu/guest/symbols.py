# SPDX-License-Identifier: Apache-2.0
"""Names of addresses: of an ELF file, of a kernel's System.map, or of the table that a kernel has in its own image.

Law: a name is given only where the address is in what the table covers; what cannot be read names nothing. The
image's table (CONFIG_KALLSYMS) comes first, for it is of the very kernel that runs.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

#: Bytes behind the last symbol that still bear its name.
_REACH = 1 << 20
#: Where the vectors of a kernel may be: by name, and in how many slots behind it (one for each mitigation).
_VECTORS, _SLOT = (("vectors", 1), ("__bp_harden_el1_vectors", 8)), 0x800
#: A kernel begins at a multiple of this (_text), and its code so much later (_stext).
_MOVED_BY, _HEAD = 0x20_0000, 0x1_0000
#: Kinds of symbols that are code (nm's letters).
_CODE = "tTwW"
_MAP_LINE = re.compile(r"^([0-9a-f]{8,16}) ([A-Za-z]) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Symbols:
    """Code symbols in the order of their addresses."""

    addresses: tuple[int, ...]
    names: tuple[str, ...]
    moves: bool = False  #: the code may run elsewhere, by one offset for all of it

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, str]]) -> Symbols:
        # Of several names of one address the shortest comes first, which is the one that is given.
        ordered = sorted(set(pairs), key=lambda pair: (pair[0], len(pair[1]), pair[1]))
        return cls(tuple(address for address, _ in ordered), tuple(name for _, name in ordered))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, address: int) -> str | None:
        """``symbol+0x12``, or None."""
        at = bisect_right(self.addresses, address) - 1
        if at < 0 or address - self.addresses[at] > _REACH:
            return None
        while at and self.addresses[at - 1] == self.addresses[at]:
            at -= 1
        return f"{self.names[at]}+{address - self.addresses[at]:#x}"

    def moved(self, offset: int) -> Symbols:
        """The same code, ``offset`` higher."""
        return Symbols(tuple(address + offset for address in self.addresses), self.names)

    def offset(self, vbar: int) -> int | None:
        """How far a kernel was moved whose vectors are now at ``vbar``; None: it is none of this one's."""
        text, first = self.address("_text"), self.address("_stext")
        if text is None and first is None:
            return None
        base = text if text is not None else (first or 0) - _HEAD
        for name, slots in _VECTORS:
            at = self.address(name)
            for slot in range(slots if at is not None else 0):
                offset = vbar - (at or 0) - slot * _SLOT
                if (offset + base) % _MOVED_BY == 0:
                    return offset
        return None

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return dict(zip(self.names, self.addresses, strict=True))

    def address(self, name: str) -> int | None:
        return self._by_name.get(name)

    def of_a_kernel(self) -> Symbols:
        return Symbols(self.addresses, self.names, moves=True)


NONE = Symbols((), ())


def of_elf(path: Path) -> Symbols:
    """Functions and labels of an ELF file."""
    try:
        with path.open("rb") as file:
            section = ELFFile(file).get_section_by_name(".symtab")
            if not isinstance(section, SymbolTableSection):
                return NONE
            strings = section.stringtable.data()
            entries = list(struct.iter_unpack("<IBBHQQ", section.data()))
    except (OSError, ELFError, struct.error):
        return NONE
    code = ((value, strings[name : strings.index(b"\0", name)]) for name, info, _, where, value, _ in entries
            if info & 15 in (0, 2) and where not in (0, 0xFFF1))  # fmt: skip
    # "$x" and the like mark where code begins, for a disassembler.
    return Symbols.of((value, name.decode("latin-1")) for value, name in code if name and name[:1] != b"$")


def of_map(path: Path) -> Symbols:
    """A System.map. (Debian's packages have one without symbols in it.)"""
    try:
        text = path.read_text("ascii", "replace")
    except OSError:
        return NONE
    return Symbols.of((int(m[1], 16), m[3]) for m in _MAP_LINE.finditer(text) if m[2] in _CODE)


def of_kernel(kernel: Path, image: bytes, version: str) -> Symbols:
    """Of a raw Image, and of what lies beside the file or in the folder that it came from."""
    if found := of_image(image):
        return found.of_a_kernel()
    folders = [kernel] if kernel.is_dir() else list(kernel.absolute().parents[:4])
    for folder in folders:
        for name in (f"System.map-{version}", f"boot/System.map-{version}", f"lib/modules/{version}/System.map",
                     f"usr/lib/modules/{version}/System.map", "System.map"):  # fmt: skip
            if found := of_map(folder / name):
                return found.of_a_kernel()
        if found := of_elf(folder / "vmlinux"):
            return found.of_a_kernel()
    return NONE


# -- the table in an image ---------------------------------------------------------------------------------------------
#
# scripts/kallsyms.c writes, each aligned to 8 bytes (7.x: to 4): the number of symbols; their names, as a length and
# indices of tokens; markers, offsets into the names of every 256th; the tokens' texts; an index of these by token. The
# symbols' offsets from a base are behind all that, or (before 6.4) in front of it, and then there are also 3 bytes for
# each symbol between markers and tokens. The base is not needed: where the kernel runs is found from VBAR_EL1.

_MARKED = 256
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
#: Bytes that the tokens before the digits take at most; and that 256 names take.
_TOKENS, _NAMES = 4096, 1 << 17
_MOST = 1 << 20  #: symbols


def of_image(image: bytes) -> Symbols:
    """The symbols' addresses count from an unknown base; NONE where there is no such table."""
    at = -1
    while (at := image.find(_DIGITS, at + 1)) >= 0:
        for align in (8, 4):
            for start in range(at - at % align, max(at - _TOKENS, 0), -align):
                if found := _Table(image, align).read(start):
                    return found
    return NONE


class _Table:
    """The table in an image, if its parts are aligned to ``align`` bytes."""

    def __init__(self, image: bytes, align: int) -> None:
        self.image = image
        self.align = align

    def read(self, tokens_at: int) -> Symbols | None:
        """The symbols, if the tokens begin at ``tokens_at``."""
        tokens = self._tokens(tokens_at)
        if tokens is None:
            return None
        behind = self._aligned(tokens_at + sum(len(token) + 1 for token in tokens)) + 512
        for markers, first in self._markers(tokens_at):
            end = first - markers[-1]  # where the names begin, but for the last up to 256
            for at in range(end - end % self.align, max(end - _NAMES, self.align), -self.align):
                (count,) = self._words(at - self.align, 1)
                if -(-count // _MARKED) == len(markers) and (names := self._names(at, count, markers, tokens)):
                    return self._placed(names, at - self.align, behind)
        return None

    def _tokens(self, at: int) -> list[bytes] | None:
        texts = self.image[at : at + 8192].split(b"\0", 256)[:256]
        if len(texts) < 256 or texts[ord("0")] != b"0":
            return None
        offsets = [0]
        for text in texts:
            offsets.append(offsets[-1] + len(text) + 1)
        index = self._aligned(at + offsets.pop())
        return texts if self.image[index : index + 512] == struct.pack("<256H", *offsets) else None

    def _markers(self, tokens_at: int) -> Iterator[tuple[list[int], int]]:
        """Markers, and where they begin: right before the tokens, or before 3 bytes for each symbol."""
        for size in range(0, min(3 * _MOST, tokens_at), self.align):
            for end in {tokens_at - size, tokens_at - size - self.align + 4}:
                found, at = list[int](), end
                while at >= 4 and (not found or found[-1] > 0):
                    at -= 4
                    (value,) = self._words(at, 1)
                    if found and value >= found[-1]:
                        break
                    found.append(value)
                if (
                    len(found) > 1
                    and found[-1] == 0
                    and (not size or abs(size // 3 - _MARKED * len(found)) < 2 * _MARKED)
                ):
                    yield found[::-1], at

    def _names(self, at: int, count: int, markers: list[int], tokens: list[bytes]) -> list[bytes] | None:
        """Each symbol's kind and name; None: there are none such here."""
        image, found, start = self.image, [], at
        for number in range(count):
            if number % _MARKED == 0 and at - start != markers[number // _MARKED]:
                return None
            if at + 2 > len(image):
                return None
            size = image[at]
            at += 1
            if size & 0x80:
                size = size & 0x7F | image[at] << 7
                at += 1
            found.append(b"".join([tokens[index] for index in image[at : at + size]]))
            at += size
        return found

    def _placed(self, names: list[bytes], before: int, behind: int) -> Symbols | None:
        """The names at their offsets, which grow: behind the tokens, or before the number of symbols and a base."""
        count, size = len(names), self._aligned(4 * len(names))
        for at in (behind, before - 8 - size):
            words = self._words(at, count)
            # In 7.x each counts from where it lies itself.
            for offsets in (words, [at + 4 * n + word & 0xFFFF_FFFF for n, word in enumerate(words)]):
                if len(offsets) == count and offsets[-1] and all(a <= b for a, b in pairwise(offsets)):
                    placed = zip(offsets, names, strict=True)
                    return Symbols.of((at, name[1:].decode("latin-1")) for at, name in placed if chr(name[0]) in _CODE)
        return None

    def _words(self, at: int, count: int) -> tuple[int, ...]:
        """``count`` words of 32 bits; none where the image is at its end."""
        there = 0 <= at <= len(self.image) - 4 * count
        return struct.unpack_from(f"<{count}I", self.image, at) if there else ()

    def _aligned(self, at: int) -> int:
        return -(-at // self.align) * self.align
