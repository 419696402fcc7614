# SPDX-License-Identifier: Apache-2.0
"""The values of a block's registers, and what an access of any size does to them.

Law: knows masks, guards and hooks, no register by name; the model that owns it says what a store or a load means, in
methods that are marked with the register.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar, overload

from .layout import Register
from .mmio import Mirror
from .sealed import Sealed, declared

R = TypeVar("R", bound=Register)
_Method = TypeVar("_Method", bound=Callable[..., Any])

#: Whether a write of ``new`` over ``old`` is let through.
GuardCheck = Callable[[int, int], bool]
#: A register, and which of its copies; a register without copies has number 0.
Slot = tuple[type[Register], int]

_WORD = 0xFFFF_FFFF


def on_store(*registers: type[Register]) -> Callable[[_Method], _Method]:
    """Marks the method that says what a store to ``registers`` does beyond their bits: (old, new).

    Of a register that repeats: (index, old, new). See ``RegisterFile.attach``.
    """
    return _marked("stored", registers)


def on_load(*registers: type[Register]) -> Callable[[_Method], _Method]:
    """Marks the method that says what a load of ``registers`` finds, in place of what is held: () or (index)."""
    return _marked("loaded", registers)


def _marked(name: str, registers: tuple[type[Register], ...]) -> Callable[[_Method], _Method]:
    def mark(method: _Method) -> _Method:
        method.__dict__[name] = registers
        return method

    return mark


class Copies(NamedTuple):
    """Where a register's copies are: how ``many``, from ``at`` on, ``stride`` bytes apart."""

    at: int
    many: int
    stride: int


def as_declared(register: type[Register]) -> Copies:
    return Copies(register.at, register.count, register.stride or register.size)


class RegisterMap(Sealed):
    """Where registers are, what a write changes in each, and what a reset leaves; the same for all blocks of a kind."""

    def __init__(
        self,
        registers: Iterable[type[Register]],
        implemented: Callable[[str], bool] = lambda needs: True,
        copies: Callable[[type[Register]], Copies] = as_declared,
    ) -> None:
        """``implemented`` says whether a field's or register's ``needs`` holds: what does not is RES0.

        ``copies`` is for blocks whose frames are not where their registers' declarations have them.
        """
        self._copies: dict[type[Register], Copies] = {}
        self._offsets: dict[Slot, int] = {}
        #: Bits that a write changes, that it clears, and those that each guard covers; of what is implemented.
        self.masks: dict[type[Register], tuple[int, int, Mapping[str, int]]] = {}
        self.resets: dict[type[Register], int] = {}
        #: Of each word: whose it is, how far up it lies in the register, and which of its bits can be read.
        self.words: dict[int, tuple[Slot, int, int]] = {}
        for register in registers:
            if not implemented(register.needs):
                continue
            missing = sum(f.mask for f in register.fields if not f.view and not implemented(f.needs))
            self.masks[register] = (register.write_mask & ~missing, register.clear_mask & ~missing, register.guards)
            self.resets[register] = register.reset & ~missing
            self._copies[register] = at, many, stride = copies(register)
            self._offsets.update({(register, index): at + index * stride for index in range(many)})
            for slot in self.slots(register):
                for half in range(0, register.size, 4):
                    visible = ~register.hidden_mask >> half * 8 & _WORD
                    self.words[self.offset_of(slot) + half] = (slot, half * 8, visible)

    def slots(self, register: type[Register]) -> Iterator[Slot]:
        """Each copy of ``register``."""
        return ((register, index) for index in range(self._copies[register].many))

    def offset_of(self, slot: Slot) -> int:
        return self._offsets[slot]

    def narrow(self, register: type[Register], bits: int) -> None:
        """Of ``register`` no more than ``bits`` is implemented."""
        write, clear, guards = self.masks[register]
        self.masks[register] = (write & bits, clear & bits, guards)


@declared
class RegisterFile(Sealed):
    """The registers of one block, by offset from its base.

    Accesses are 4 or 8 bytes, aligned; others read as zero and are ignored (IHI 0070 §6.2). An 8-byte access to
    4-byte registers is two accesses, the lower offset first; a 4-byte access to an 8-byte register touches that half.
    With ``narrow`` accesses of 1 and 2 bytes touch those bytes alone.
    """

    OPEN = frozenset({"_mirror"})

    def __init__(
        self, where: RegisterMap, *, guards: Mapping[str, GuardCheck] | None = None, narrow: bool = False
    ) -> None:
        self._map = where
        self._guards = guards or {}
        self._sizes = (1, 2, 4, 8) if narrow else (4, 8)
        self._resets: dict[Slot, int] = {
            slot: value for register, value in where.resets.items() for slot in where.slots(register)
        }
        self._values: dict[Slot, int] = dict(self._resets)
        self._stores: dict[type[Register], Callable[..., None]] = {}
        self._loads: dict[type[Register], Callable[..., int]] = {}
        self._mirror: Mirror | None = None
        self._watchers: dict[type[Register], list[Callable[[], None]]] = {}

    def attach(self, part: object) -> None:
        """Call the methods of ``part`` that are marked ``on_store`` and ``on_load`` when software accesses a register.

        A store's is called after it, changed or not. ValueError: a register has such a method already.
        """
        found = {name: method for kind in reversed(type(part).__mro__) for name, method in vars(kind).items()}
        for name, method in found.items():
            for register in getattr(method, "stored", ()):
                _only(self._stores, register, getattr(part, name))
            for register in getattr(method, "loaded", ()):
                _only(self._loads, register, getattr(part, name))

    def watch(self, registers: Iterable[type[Register]], changed: Callable[[], None]) -> None:
        """Call ``changed`` now, and whenever one of ``registers`` may have changed, after its method."""
        for register in registers:
            self._watchers.setdefault(register, []).append(changed)
        changed()

    def _all_changed(self) -> None:
        for changed in {each for watchers in self._watchers.values() for each in watchers}:
            changed()

    def reset(self) -> None:
        """Every register takes its reset value again."""
        self._values.update(self._resets)
        self._mirror_all()
        self._all_changed()

    def mirror(self, mirror: Mirror) -> None:
        """Keep what a read returns in ``mirror`` too, from now on; of no register may a load find anything else."""
        self._mirror = mirror
        self._mirror_all()

    def _mirror_all(self) -> None:
        if self._mirror is not None:
            for slot, value in self._values.items():
                self._set(slot, value)

    def _set(self, slot: Slot, value: int) -> None:
        """The one way in which a value changes; a register that is not implemented reads as zero whatever it is."""
        self._values[slot] = value
        register = slot[0]
        if self._mirror is not None and register in self._map.masks:
            self._mirror.store(self._map.offset_of(slot), register.size, value & ~register.hidden_mask)

    # -- the model's side ------------------------------------------------------------------------------------

    @overload
    def __getitem__(self, key: type[R]) -> R: ...

    @overload
    def __getitem__(self, key: tuple[type[R], int]) -> R: ...

    def __getitem__(self, key: Any) -> Any:
        """``file[CR0]``, or ``file[S2CR, 3]`` of a register that repeats."""
        register, index = key if isinstance(key, tuple) else (key, 0)
        return register(self.raw(register, index))

    def __setitem__(self, key: type[Register] | Slot, value: Register | int) -> None:
        slot = key if isinstance(key, tuple) else (key, 0)
        if slot in self._values:
            self._set(slot, int(value))
            for changed in self._watchers.get(slot[0], ()):
                changed()

    def raw(self, register: type[Register], index: int = 0) -> int:
        """The value without its layout; 0 of what is not implemented."""
        return self._values.get((register, index), 0)

    def offset(self, register: type[Register], index: int = 0) -> int:
        """Of a register that is implemented, from the block's base."""
        return self._map.offset_of((register, index))

    def held(self) -> dict[str, int]:
        """What each register that is implemented holds, by name: "CR0", "S2CR[3]"."""
        return {
            self.named(self._map.offset_of(slot)): value
            for slot, value in self._values.items()
            if slot[0] in self._map.masks
        }

    def restore(self, values: Mapping[str, int]) -> None:
        """Hold what another of the same kind held; names that are unknown here are passed over."""
        for slot in list(self._values):
            if slot[0] in self._map.masks and (value := values.get(self.named(self._map.offset_of(slot)))) is not None:
                self[slot] = value & (1 << 8 * slot[0].size) - 1

    def set_reset(self, register: type[Register], value: int, index: int = 0) -> None:
        """Make ``value`` what a reset leaves (ID registers, implementation defined resets)."""
        self._resets[register, index] = value
        self._set((register, index), value)
        self._all_changed()

    # -- software's side -------------------------------------------------------------------------------------

    def named(self, offset: int) -> str:
        """The register at ``offset`` for people: ``CMDQ_BASE``, ``CMDQ_BASE+4`` (its upper half), ``S2CR[3]``."""
        found = self._map.words.get(offset & ~3)
        if found is None:
            return f"+{offset:#x}"
        (register, index), shift, _ = found
        number = f"[{index}]" if register.count > 1 else ""
        return register.__name__ + number + (f"+{shift // 8}" if shift else "")

    def read(self, offset: int, size: int) -> int:
        if size not in self._sizes or offset % size:
            return 0
        if size == 8:
            return self._load(offset) | self._load(offset + 4) << 32
        return self._load(offset & ~3) >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def _load(self, offset: int) -> int:
        """What the word at ``offset`` reads as."""
        found = self._map.words.get(offset)
        if found is None:
            return 0
        slot, shift, visible = found
        register, index = slot
        load = self._loads.get(register)
        if load is None:
            value = self._values[slot]
        else:
            value = load(index) if register.count > 1 else load()
        return value >> shift & visible

    def write(self, offset: int, size: int, value: int) -> None:
        if size not in self._sizes or offset % size:
            return
        found = self._map.words.get(offset)
        if size == 8 and found is not None and found[0][0].size == 8:
            self._store(found[0], value & 2**64 - 1, 2**64 - 1)
            return
        for at in range(offset & ~3, offset + size, 4):
            # Of the word at ``at``: bytes that are written, and what is written to them.
            first = max(at, offset)
            count = min(4, offset + size - first)
            touched = (1 << 8 * count) - 1 << 8 * (first - at)
            self._store_word(at, value >> 8 * (first - offset) << 8 * (first - at) & touched, touched)

    def _store_word(self, offset: int, value: int, touched: int) -> None:
        found = self._map.words.get(offset)
        if found is not None:
            slot, shift, _ = found
            if slot[0].zero_extended:
                # The upper word alone is ignored, and the lower one makes all of it.
                if not shift:
                    self._store(slot, value, 2**64 - 1)
                return
            touched <<= shift
            self._store(slot, self._values[slot] & ~touched | value << shift, touched)

    def _store(self, slot: Slot, value: int, touched: int) -> None:
        """Store ``value``, of which software wrote the ``touched`` bits."""
        register, index = slot
        old = self._values[slot]
        write, clear, guarded = self._map.masks[register]
        clear &= touched
        for name, mask in guarded.items():
            if name in self._guards and not self._guards[name](old, value):
                write, clear = write & ~mask, clear & ~mask
        new = (old & ~write | value & write) & ~(value & clear)
        self._set(slot, new)
        stored = self._stores.get(register)
        if stored is not None and write | clear:
            stored(*((index,) if register.count > 1 else ()), register(old), register(new))
        for changed in self._watchers.get(register, ()):
            changed()


def _only(hooks: dict[type[Register], Any], register: type[Register], method: Callable[..., Any]) -> None:
    if register in hooks:
        raise ValueError(f"two methods are marked with {register.__name__}")
    hooks[register] = method
