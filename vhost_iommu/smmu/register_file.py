# SPDX-License-Identifier: Apache-2.0
"""The values of one instance's registers, and what an access of any size does to them.

Law: knows masks, guards and hooks, no register by name; the model that owns it says what a store means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..layout import Register
from ..mmio import Mirror

R = TypeVar("R", bound=Register)

#: What a model does after a store: (old, new) of the stored register.
Hook = Callable[[Any, Any], None]
#: Whether a write of ``new`` over ``old`` is let through.
GuardCheck = Callable[[int, int], bool]


_Method = TypeVar("_Method", bound=Callable[..., None])


def on_store(*registers: type[Register]) -> Callable[[_Method], _Method]:
    """Marks the method that says what a store to ``registers`` does beyond their bits; see ``RegisterFile.attach``."""

    def mark(method: _Method) -> _Method:
        method.__dict__["stored"] = registers
        return method

    return mark


class RegisterFile:
    """Registers by offset, one copy of each.

    Accesses are 4 or 8 bytes, aligned; others read as zero and are ignored (§6.2). An 8-byte access to
    4-byte registers is two accesses, the lower offset first; a 4-byte access to an 8-byte register touches
    that half.
    """

    def __init__(
        self,
        registers: Iterable[type[Register]],
        *,
        implemented: Callable[[str], bool] = lambda needs: True,
        guards: Mapping[str, GuardCheck] | None = None,
    ) -> None:
        """``implemented`` says whether a field's or register's ``needs`` holds: what does not is RES0."""
        self._values: dict[type[Register], int] = {}
        #: Of what is implemented: bits that a write changes, that it clears, and the guards over some of them.
        self._masks: dict[type[Register], tuple[int, int, Sequence[tuple[GuardCheck, int]]]] = {}
        #: The register of each word, how far up its word lies in it, and which bits of the word can be read.
        self._at: dict[int, tuple[type[Register], int, int]] = {}
        guards = guards or {}
        self._hooks: dict[type[Register], Hook] = {}
        self._resets: dict[type[Register], int] = {}
        self._mirror: Mirror | None = None
        self._watchers: dict[type[Register], list[Callable[[], None]]] = {}
        for register in registers:
            if not implemented(register.needs):
                continue
            missing = sum(f.mask for f in register.fields if not f.view and not implemented(f.needs))
            self._masks[register] = (
                register.write_mask & ~missing,
                register.clear_mask & ~missing,
                [(guards[name], mask) for name, mask in register.guards.items() if name in guards],
            )
            self._resets[register] = register.reset & ~missing
            for half in range(0, register.size, 4):
                visible = ~register.hidden_mask >> half * 8 & 0xFFFFFFFF
                self._at[register.at + half] = (register, half * 8, visible)
        self.reset()

    def attach(self, part: object) -> None:
        """Call the methods of ``part`` that are marked ``on_store`` (old, new) after each store that software makes.

        ValueError: a register has a method already, since one says all that a store does.
        """
        for name, method in vars(type(part)).items():
            for register in getattr(method, "stored", ()):
                if register in self._hooks:
                    raise ValueError(f"two methods are marked on_store({register.__name__})")
                self._hooks[register] = getattr(part, name)

    def watch(self, registers: Iterable[type[Register]], changed: Callable[[], None]) -> None:
        """Call ``changed`` now, and whenever one of ``registers`` may have changed, after its hook."""
        for register in registers:
            self._watchers.setdefault(register, []).append(changed)
        changed()

    def _all_changed(self) -> None:
        for changed in {each for watchers in self._watchers.values() for each in watchers}:
            changed()

    def reset(self) -> None:
        """Every register takes its reset value again."""
        self._values = dict(self._resets)
        self._mirror_all()
        self._all_changed()

    def mirror(self, mirror: Mirror) -> None:
        """Keep what a read returns in ``mirror`` too, from now on."""
        self._mirror = mirror
        self._mirror_all()

    def _mirror_all(self) -> None:
        if self._mirror is not None:
            for register, value in self._values.items():
                self._set(register, value)

    def _set(self, register: type[Register], value: int) -> None:
        """The one way in which a value changes; a register that is not implemented reads as zero whatever it is."""
        self._values[register] = value
        if self._mirror is not None and register in self._masks:
            self._mirror.store(register.at, register.size, value & ~register.hidden_mask)

    # -- the model's side ------------------------------------------------------------------------------------

    def __getitem__(self, register: type[R]) -> R:
        return register(self._values.get(register, 0))

    def __setitem__(self, register: type[Register], value: Register | int) -> None:
        if register in self._values:
            self._set(register, int(value))
            for changed in self._watchers.get(register, ()):
                changed()

    def raw(self, register: type[Register]) -> int:
        """The value without its layout: for hot paths."""
        return self._values.get(register, 0)

    def set_reset(self, register: type[Register], value: int) -> None:
        """Make ``value`` what a reset leaves (ID registers, implementation defined resets)."""
        self._resets[register] = value
        self._set(register, value)
        self._all_changed()

    # -- software's side -------------------------------------------------------------------------------------

    def named(self, offset: int) -> str:
        """The register at ``offset`` for people: ``CMDQ_BASE`` or, for its upper half, ``CMDQ_BASE+4``."""
        found = self._at.get(offset & ~3)
        if found is None:
            return f"+{offset:#x}"
        register, shift, _ = found
        return register.__name__ + (f"+{shift // 8}" if shift else "")

    def read(self, offset: int, size: int) -> int:
        if size == 4:
            found = self._at.get(offset)
            if found is None:
                return 0
            register, shift, visible = found
            return self._values[register] >> shift & visible
        if size == 8 and not offset & 7:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        found = self._at.get(offset)
        if size == 4 and found is not None and found[0].size == 4:
            self._store(found[0], value & 2**32 - 1)
            return
        if offset % size or size not in (4, 8):
            return
        if size == 8 and found is not None and found[0].size == 8:
            self._store(found[0], value & 2**64 - 1)
            return
        for at in range(0, size, 4):
            word = value >> at * 8 & 2**32 - 1
            found = self._at.get(offset + at)
            if found is None:
                continue
            register, shift, _ = found
            keep = 0 if register.size == 4 else self._values[register] & ~(0xFFFFFFFF << shift)
            self._store(register, keep | word << shift, 0xFFFFFFFF << shift)

    def _store(self, register: type[Register], value: int, touched: int = 2**64 - 1) -> None:
        """Store ``value``, of which software wrote the ``touched`` bits."""
        old = self._values[register]
        write, clear, guards = self._masks[register]
        clear &= touched
        for check, mask in guards:
            if not check(old, value):
                write, clear = write & ~mask, clear & ~mask
        new = (old & ~write | value & write) & ~(value & clear)
        self._set(register, new)
        hook = self._hooks.get(register)
        if hook is not None and write | clear:
            hook(register(old), register(new))
        for changed in self._watchers.get(register, ()):
            changed()
