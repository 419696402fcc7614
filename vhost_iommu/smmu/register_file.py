# SPDX-License-Identifier: Apache-2.0
"""The values of one instance's registers, and what an access of any size does to them.

Law: knows masks, guards and hooks, no register by name; the model that owns it says what a store means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..layout import Register

R = TypeVar("R", bound=Register)

#: What a model does after a store: (old, new) of the stored register.
Hook = Callable[[Any, Any], None]
#: Whether a write of ``new`` over ``old`` is let through.
GuardCheck = Callable[[int, int], bool]


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
        self._masks: dict[type[Register], tuple[int, int]] = {}
        #: The register of each word, how far up its word lies in it, and which bits of the word can be read.
        self._at: dict[int, tuple[type[Register], int, int]] = {}
        self._guards = dict(guards or {})
        self._hooks: dict[type[Register], Hook] = {}
        self._resets: dict[type[Register], int] = {}
        self._watched: frozenset[type[Register]] = frozenset()
        self._changed: Callable[[], None] = lambda: None
        for register in registers:
            if not implemented(register.needs):
                continue
            missing = sum(f.mask for f in register.fields if not f.view and not implemented(f.needs))
            self._masks[register] = (
                register.write_mask & ~missing,
                register.clear_mask & ~missing,
            )
            self._resets[register] = register.reset & ~missing
            for half in range(0, register.size, 4):
                visible = ~register.hidden_mask >> half * 8 & 0xFFFFFFFF
                self._at[register.at + half] = (register, half * 8, visible)
        self.reset()

    def on_store(self, register: type[R], hook: Callable[[R, R], None]) -> None:
        """Call ``hook(old, new)`` after each store that software makes to ``register``, changed or not."""
        self._hooks[register] = hook

    def watch(self, registers: Iterable[type[Register]], changed: Callable[[], None]) -> None:
        """Call ``changed`` now, and whenever one of ``registers`` may have changed, after its hook."""
        self._watched = frozenset(registers)
        self._changed = changed
        changed()

    def reset(self) -> None:
        """Every register takes its reset value again."""
        self._values = dict(self._resets)
        self._changed()

    # -- the model's side ------------------------------------------------------------------------------------

    def __getitem__(self, register: type[R]) -> R:
        return register(self._values.get(register, 0))

    def __setitem__(self, register: type[Register], value: Register | int) -> None:
        if register in self._values:
            self._values[register] = int(value)
            if register in self._watched:
                self._changed()

    def raw(self, register: type[Register]) -> int:
        """The value without its layout: for hot paths."""
        return self._values.get(register, 0)

    def set_reset(self, register: type[Register], value: int) -> None:
        """Make ``value`` what a reset leaves (ID registers, implementation defined resets)."""
        self._resets[register] = self._values[register] = value
        self._changed()

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
        if offset % size or size not in (4, 8):
            return
        found = self._at.get(offset)
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
        write, clear = self._masks[register]
        clear &= touched
        for guard, mask in register.guards.items():
            check = self._guards.get(guard)
            if check is not None and not check(old, value):
                write, clear = write & ~mask, clear & ~mask
        new = (old & ~write | value & write) & ~(value & clear)
        self._values[register] = new
        hook = self._hooks.get(register)
        if hook is not None and write | clear:
            hook(register(old), register(new))
        if register in self._watched:
            self._changed()
