# SPDX-License-Identifier: Apache-2.0
"""Bit layouts: each register, queue entry, table entry and record is declared once, field by field.

Law: imports nothing of ours. Decode, encode, write mask, reset value, text, the list of what is illegal and
the ``construct`` codec all come from the one declaration; an overlap or a field out of range fails at import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, IntEnum
from typing import Any, ClassVar, Self, overload

import construct


class Access(Enum):
    """What software may do with a field of a register."""

    RW = "RW"  #: read and write
    RO = "RO"  #: writes are ignored
    WO = "WO"  #: reads as zero
    W1C = "W1C"  #: writing one clears


class Field:
    """Bits [msb:lsb] of a layout; read from an instance it is the number they hold.

    ``low`` > 0 says that the bits are an address's bits from ``low`` up, so the value is shifted left by it.
    A ``view`` is another reading of bits that a field before it declares, or of bits that are RES0 otherwise
    (named for when it applies). ``each`` > 0 says that the bits are an array of so many bits each, lowest
    index in the lowest bits. ``needs`` names the features without which the bits are RES0, ``guard`` the
    condition under which writes to them are ignored; both are resolved by the model that owns the register.
    """

    __slots__ = (
        "access",
        "doc",
        "each",
        "guard",
        "low",
        "lsb",
        "mask",
        "msb",
        "name",
        "needs",
        "reset",
        "shift",
        "values",
        "view",
    )

    def __init__(
        self,
        msb: int,
        lsb: int,
        *,
        low: int,
        doc: str,
        values: Mapping[int, str] | type[IntEnum] | None,
        access: Access | None,
        reset: int,
        view: str,
        each: int = 0,
        needs: str = "",
        guard: str = "",
    ) -> None:
        if not 0 <= lsb <= msb:
            raise TypeError(f"bits {msb}:{lsb} are no field")
        if each and (msb - lsb + 1) % each:
            raise TypeError(f"bits {msb}:{lsb} are no array of {each} bits each")
        self.name = ""
        self.msb, self.lsb, self.low = msb, lsb, low
        self.mask = ((1 << (msb - lsb + 1)) - 1) << lsb
        self.shift = lsb - low
        self.doc, self.access, self.reset, self.view = doc, access, reset, view
        self.each, self.needs, self.guard = each, needs, guard
        self.values: Mapping[int, str] | None
        if values is not None and not isinstance(values, Mapping):
            self.values = {int(member): member.name for member in values}
        else:
            self.values = values

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Field: ...
    @overload
    def __get__(self, instance: Layout, owner: type) -> int: ...
    def __get__(self, instance: Layout | None, owner: type) -> Field | int:
        return self if instance is None else self.decode(instance.raw)

    @property
    def width(self) -> int:
        return self.msb - self.lsb + 1

    @property
    def bits(self) -> str:
        """The position as the architecture writes it: ``[31]`` or ``[51:6]``."""
        return f"[{self.msb}]" if self.width == 1 else f"[{self.msb}:{self.lsb}]"

    def decode(self, raw: int) -> int:
        bits = raw & self.mask
        return bits >> self.shift if self.shift >= 0 else bits << -self.shift

    def encode(self, value: int) -> int:
        """The bits that hold ``value``; ValueError when it does not fit."""
        value = int(value)
        bits = value << self.shift if self.shift >= 0 else value >> -self.shift
        if value < 0 or bits & ~self.mask or self.decode(bits) != value:
            raise ValueError(f"{self.name}{self.bits} cannot hold {value:#x}")
        return bits

    def elements(self, value: int) -> tuple[int, ...]:
        """The array that ``value`` is, element 0 first; ``value`` alone when the field is no array."""
        if not self.each:
            return (value,)
        return tuple((value >> at) & ((1 << self.each) - 1) for at in range(0, self.width, self.each))

    def illegal(self, value: int) -> bool:
        """Whether ``value`` (or an element of it) is none of the values the field may hold."""
        return self.values is not None and any(element not in self.values for element in self.elements(value))

    def text(self, value: int) -> str:
        """``value`` for people: its name where it has one, small numbers in decimal, the rest in hex."""
        if self.each:
            elements = self.elements(value)
            if len(set(elements)) == 1:
                return f"{len(elements)} x {self._text(elements[0], self.each)}"
            return f"[{', '.join(self._text(element, self.each) for element in elements)}]"
        return self._text(value, self.width)

    def _text(self, value: int, width: int) -> str:
        if self.values is not None:
            return f"{value}({self.values.get(value, 'reserved')})" if width > 1 else str(value)
        return str(value) if value < 10 else hex(value)


def field(
    msb: int,
    lsb: int,
    *,
    doc: str = "",
    values: Mapping[int, str] | type[IntEnum] | None = None,
    access: Access | None = None,
    reset: int = 0,
    view: str = "",
    needs: str = "",
    guard: str = "",
) -> Field:
    """A number in bits [msb:lsb]. ``values`` names what it may hold; any other value is reported as reserved."""
    return Field(
        msb, lsb, low=0, doc=doc, values=values, access=access, reset=reset, view=view, needs=needs, guard=guard
    )


def bit(
    at: int,
    *,
    doc: str = "",
    values: Mapping[int, str] | None = None,
    access: Access | None = None,
    reset: int = 0,
    view: str = "",
    needs: str = "",
    guard: str = "",
) -> Field:
    """One bit."""
    return Field(at, at, low=0, doc=doc, values=values, access=access, reset=reset, view=view, needs=needs, guard=guard)


def array(
    msb: int,
    lsb: int,
    *,
    each: int,
    doc: str = "",
    values: Mapping[int, str] | type[IntEnum] | None = None,
    access: Access | None = None,
    needs: str = "",
) -> Field:
    """An array of numbers of ``each`` bits, element 0 in the lowest; read it with ``elements()``.

    The value read is the whole of [msb:lsb]; ``values`` names what one element may hold.
    """
    return Field(msb, lsb, low=0, doc=doc, values=values, access=access, reset=0, view="", each=each, needs=needs)


def address(
    msb: int,
    lsb: int,
    *,
    low: int | None = None,
    doc: str = "",
    access: Access | None = None,
    view: str = "",
    needs: str = "",
) -> Field:
    """An address of which bits [msb:lsb] hold the part from bit ``low`` (``lsb`` when not given) up."""
    low = lsb if low is None else low
    return Field(msb, lsb, low=low, doc=doc, values=None, access=access, reset=0, view=view, needs=needs)


class Layout:
    """An immutable value of ``size`` bytes, seen through its fields. Little-endian in memory."""

    __slots__ = ("raw",)

    size: ClassVar[int] = 8
    fields: ClassVar[tuple[Field, ...]] = ()
    named: ClassVar[Mapping[str, Field]] = {}
    #: Bits that neither a field nor a view declares: RES0.
    reserved: ClassVar[int] = 0
    #: Fields whose value makes it this layout (a command's opcode).
    fixed: ClassVar[Mapping[str, int]] = {}
    #: The specification, and its section.
    specification: ClassVar[str] = "IHI 0070"
    section: ClassVar[str] = ""

    def __init_subclass__(
        cls,
        size: int | None = None,
        section: str = "",
        fixed: Mapping[str, int] | None = None,
        specification: str = "",
        **rest: Any,
    ) -> None:
        super().__init_subclass__(**rest)
        if specification:
            cls.specification = specification
        if size is not None:
            cls.size = size
        if section:
            cls.section = section
        by_name = {f.name: f for base in reversed(cls.__mro__) for f in vars(base).values() if isinstance(f, Field)}
        cls.fields = tuple(sorted(by_name.values(), key=lambda f: (bool(f.view), f.lsb)))
        cls.named = {f.name: f for f in cls.fields}
        taken = seen = 0
        for f in cls.fields:
            seen |= f.mask
            if f.msb >= cls.size * 8:
                raise TypeError(f"{cls.__name__}.{f.name}{f.bits} lies outside of its {cls.size} bytes")
            if f.view:
                continue
            if taken & f.mask:
                raise TypeError(f"{cls.__name__}.{f.name}{f.bits} overlaps another field")
            taken |= f.mask
        cls.reserved = ((1 << cls.size * 8) - 1) & ~seen
        cls.fixed = {**cls.fixed, **(fixed or {})}

    def __init__(self, raw: int = 0) -> None:
        self.raw = raw

    # -- building --------------------------------------------------------------------------------------------

    @classmethod
    def field_named(cls, name: str) -> Field:
        """KeyError when there is none."""
        try:
            return cls.named[name]
        except KeyError:
            raise KeyError(f"{cls.__name__} has no field {name}") from None

    @classmethod
    def of(cls, **values: int) -> Self:
        """From field values; those not named are zero, the fixed ones as the layout says."""
        return cls().replace(**{**cls.fixed, **values})

    def replace(self, **values: int) -> Self:
        """The same with other values in some fields; ValueError when one does not fit."""
        raw = self.raw
        for name, value in values.items():
            f = self.field_named(name)
            raw = (raw & ~f.mask) | f.encode(value)
        return type(self)(raw)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        if len(data) != cls.size:
            raise ValueError(f"{cls.__name__} is {cls.size} bytes, not {len(data)}")
        return cls(int.from_bytes(data, "little"))

    @classmethod
    def from_words(cls, words: Iterable[int]) -> Self:
        """From 64-bit words, lowest first, as Linux prints them; missing ones are zero."""
        raw = 0
        for at, word in enumerate(words):
            if not 0 <= word < 1 << 64:
                raise ValueError(f"{word:#x} is no 64-bit word")
            raw |= word << (64 * at)
        if raw >> (cls.size * 8):
            raise ValueError(f"{cls.__name__} is {cls.size} bytes; the words given hold more")
        return cls(raw)

    # -- reading ---------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        return self.raw.to_bytes(self.size, "little")

    def words(self) -> tuple[int, ...]:
        """As 64-bit words, lowest first (one 32-bit word for a layout of four bytes)."""
        return tuple((self.raw >> at) & (2**64 - 1) for at in range(0, self.size * 8, 64))

    def values(self) -> dict[str, int]:
        """Every field's value by its name."""
        return {f.name: f.decode(self.raw) for f in self.fields}

    def shown(self) -> dict[str, int]:
        """As ``values``, parsed with the ``construct`` codec: for what people look at, where no speed is needed."""
        data = self.to_bytes()
        held = self.bits().parse(data)
        for view in self.fields:
            if view.view:
                held.update(self._view_bits(view).parse(data))
        return {f.name: held[f.name] << f.low for f in self.fields}

    def problems(self) -> list[str]:
        """What no software should write: reserved values, and bits that no field declares."""
        found = [
            f"{f.name}{f.bits} = {f.decode(self.raw)} is reserved"
            for f in self.fields
            if not f.view and f.illegal(f.decode(self.raw))
        ]
        stray = self.raw & self.reserved
        if stray:
            bits = [at for at in range(self.size * 8) if stray >> at & 1]
            found.append(f"RES0 bits set: {', '.join(_runs(bits))}")
        return found

    def text(self) -> str:
        """``NAME FIELD=value …`` with the fields that are not zero."""
        shown = [
            f"{f.name}={f.text(f.decode(self.raw))}"
            for f in self.fields
            if f.name not in self.fixed and not f.view and f.decode(self.raw)
        ]
        return " ".join([type(self).__name__, *shown])

    def __repr__(self) -> str:
        return f"<{self.text()}>"

    def __int__(self) -> int:
        return self.raw

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash((type(self), self.raw))

    # -- the construct codec ---------------------------------------------------------------------------------

    @classmethod
    def codec(cls) -> Any:
        """A ``construct`` codec whose parsed and built values are instances of this layout.

        Whole tables, queues and messages are composed of these; ``bits()`` shows the fields one by one.
        """
        return _LayoutCodec(construct.Bytes(cls.size), cls)

    @classmethod
    def bits(cls) -> Any:
        """A ``construct`` codec of the fields: parses to a container by name; RES0 bits are kept as ``res0_N``."""
        parts: list[Any] = []
        above = cls.size * 8
        for f in sorted((f for f in cls.fields if not f.view), key=lambda f: -f.msb):
            if f.msb + 1 < above:
                gap = construct.BitsInteger(above - f.msb - 1)
                parts.append(f"res0_{f.msb + 1}" / construct.Default(gap, 0))
            parts.append(f.name / construct.Default(construct.BitsInteger(f.width), cls.fixed.get(f.name, 0)))
            above = f.lsb
        if above:
            parts.append("res0_0" / construct.Default(construct.BitsInteger(above), 0))
        return construct.ByteSwapped(construct.BitStruct(*parts))

    @classmethod
    def _view_bits(cls, view: Field) -> Any:
        """A codec of one field alone, whatever else declares its bits."""
        above = construct.Padding(cls.size * 8 - view.msb - 1)
        held = view.name / construct.BitsInteger(view.width)
        return construct.ByteSwapped(construct.BitStruct(above, held, construct.Padding(view.lsb)))


class _LayoutCodec(construct.Adapter):  # type: ignore[misc]
    def __init__(self, subcon: Any, layout: type[Layout]) -> None:
        super().__init__(subcon)
        self.layout = layout

    def _decode(self, obj: bytes, context: Any, path: Any) -> Layout:
        return self.layout.from_bytes(obj)

    def _encode(self, obj: Layout, context: Any, path: Any) -> bytes:
        return obj.to_bytes()


class Register(Layout, size=4):
    """A register of 4 or 8 bytes ``at`` an offset from the start of the frame.

    ``access`` is what holds for fields that do not say otherwise; ``guard`` names the condition under which
    writes are ignored and ``needs`` the features without which it is RES0 (both resolved by the model that
    owns the register); fields may name their own. ``count`` copies lie ``stride`` bytes apart.
    """

    __slots__ = ()

    at: ClassVar[int] = -1
    access: ClassVar[Access] = Access.RW
    guard: ClassVar[str] = ""
    #: The bits that each guard covers.
    guards: ClassVar[Mapping[str, int]] = {}
    needs: ClassVar[str] = ""
    count: ClassVar[int] = 1
    stride: ClassVar[int] = 0
    #: Of 8 bytes: a store to the lower four makes the upper ones 0, and one to those alone is ignored.
    zero_extended: ClassVar[bool] = False
    reset: ClassVar[int] = 0
    #: Bits that a write may change, set to one, or clear by writing one; and those that read as zero.
    write_mask: ClassVar[int] = 0
    clear_mask: ClassVar[int] = 0
    hidden_mask: ClassVar[int] = 0

    def __init_subclass__(
        cls,
        at: int | None = None,
        access: Access | None = None,
        guard: str = "",
        needs: str = "",
        count: int = 1,
        stride: int = 0,
        zero_extended: bool = False,
        **rest: Any,
    ) -> None:
        super().__init_subclass__(**rest)
        if at is not None:
            cls.at = at
        if access is not None:
            cls.access = access
        if guard:
            cls.guard = guard
        if needs:
            cls.needs = needs
        cls.count, cls.stride, cls.zero_extended = count, stride, zero_extended
        if cls.size not in (4, 8) or (at is not None and at % cls.size):
            raise TypeError(f"{cls.__name__}: a register is 4 or 8 bytes, aligned to its size")

        def mask(*kinds: Access) -> int:
            return sum(f.mask for f in cls.fields if not f.view and (f.access or cls.access) in kinds)

        cls.write_mask = mask(Access.RW, Access.WO)
        cls.clear_mask = mask(Access.W1C)
        cls.hidden_mask = mask(Access.WO)
        cls.reset = sum(f.encode(f.reset) for f in cls.fields if not f.view)
        guards: dict[str, int] = {}
        for f in cls.fields:
            name = f.guard or cls.guard
            if name and not f.view:
                guards[name] = guards.get(name, 0) | f.mask
        cls.guards = guards


def _runs(bits: list[int]) -> Iterator[str]:
    """[0, 1, 2, 7] as "2:0", "7"."""
    start = previous = bits[0]
    for at in [*bits[1:], -1]:
        if at == previous + 1:
            previous = at
            continue
        yield str(start) if start == previous else f"{previous}:{start}"
        start = previous = at
