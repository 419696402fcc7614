# SPDX-License-Identifier: Apache-2.0
"""The interrupts of one PCI function: eventfds that a client gave, what masks them, and what is pending.

Law: eventfds are signalled under one lock, so that none is closed and reused meanwhile; no signal waits.
An enabled MSI-X vector that is masked or has no eventfd becomes pending, so no interrupt is lost. The MSI-X
table has no say: under vfio it is the client's, which gives, masks and takes away eventfds instead.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable

from ..errors import ClientError
from .connection import close_fds
from .eventfd import Signals
from .wire import Irq, IrqInfoFlags, IrqSetFlags

_INTX = (int(Irq.INTX), 0)
_MSIX = int(Irq.MSIX)
_DATA = IrqSetFlags.DATA_NONE | IrqSetFlags.DATA_BOOL | IrqSetFlags.DATA_EVENTFD
_ACTION = IrqSetFlags.ACTION_MASK | IrqSetFlags.ACTION_UNMASK | IrqSetFlags.ACTION_TRIGGER
_MASKABLE = (Irq.INTX, Irq.MSIX)


class Interrupts:
    """Any thread may trigger; the connection's thread configures."""

    def __init__(self, vectors: int, *, intx: bool) -> None:
        """``vectors``: of MSI-X, 0 for none; ``intx``: whether there is an interrupt pin."""
        self._counts = {Irq.INTX: int(intx), Irq.MSI: 0, Irq.MSIX: vectors, Irq.ERR: 1, Irq.REQ: 1}
        self._lock = threading.Lock()  # guards all below
        self._signals = Signals()
        self._eventfds: dict[tuple[int, int], int] = {}  # (index, vector) → a descriptor of ours
        self._masked: set[tuple[int, int]] = set()
        self._pending: set[int] = set()  # MSI-X vectors
        self._level = False  # of the INTx pin
        self._intx_disabled = False  # COMMAND.INTxDisable
        self._msix_enabled = False  # MSI-X Message Control.Enable
        self._function_masked = False  # MSI-X Message Control.FunctionMask

    # -- what the device does ------------------------------------------------------------------------------------

    @property
    def level(self) -> bool:
        """Whether the device asserts INTx (STATUS.InterruptStatus)."""
        return self._level

    def trigger_intx(self, level: bool) -> None:
        """Drive the INTx pin. The client sees a rising edge, or a level that persists when it unmasks."""
        with self._lock:
            self._level = level
            self._signal_intx()

    def trigger_msix(self, vector: int) -> None:
        """Send MSI-X ``vector``; it becomes pending when the client does not take it now."""
        with self._lock:
            self._trigger(_MSIX, vector)

    def pending_bits(self, size: int) -> bytes:
        """The MSI-X pending bit array as ``size`` bytes (PCI 3.0 §6.8.2.10)."""
        with self._lock:
            return sum(1 << vector for vector in self._pending).to_bytes(size, "little")

    def reset(self) -> None:
        """Deassert INTx and forget pending vectors; eventfds and the client's masks stay (DEVICE_RESET)."""
        with self._lock:
            self._level = False
            self._pending.clear()

    # -- what configuration space says -----------------------------------------------------------------------------

    def configured(self, *, intx_disabled: bool, msix_enabled: bool, function_masked: bool) -> None:
        """COMMAND.INTxDisable and MSI-X Message Control, after each store to configuration space."""
        with self._lock:
            self._intx_disabled = intx_disabled
            self._msix_enabled = msix_enabled
            self._function_masked = function_masked
            self._signal_intx()
            self._signal_pending()

    # -- what the client says --------------------------------------------------------------------------------------

    def info(self, index: int) -> tuple[IrqInfoFlags, int]:
        """(flags, count) of an interrupt index; ClientError for one that PCI does not have."""
        if index not in self._counts:
            raise ClientError(f"interrupt index {index} of {len(self._counts)}")
        flags = IrqInfoFlags.EVENTFD
        if index in _MASKABLE:
            flags |= IrqInfoFlags.MASKABLE
        if index == Irq.INTX:
            flags |= IrqInfoFlags.AUTOMASKED
        if index in (Irq.ERR, Irq.REQ):
            flags |= IrqInfoFlags.NORESIZE
        return flags, self._counts[Irq(index)]

    def set(self, flags: int, index: int, start: int, count: int, bools: bytes | memoryview, fds: list[int]) -> None:
        """Carry out DEVICE_SET_IRQS; descriptors that are kept leave ``fds``.

        ClientError(EINVAL) for a malformed request, (ENOTSUP) for an action that this index does not have.
        """
        data, action = IrqSetFlags(flags & _DATA), IrqSetFlags(flags & _ACTION)
        if flags & ~int(_DATA | _ACTION) or data.bit_count() != 1 or action.bit_count() != 1:
            raise ClientError(f"flags {flags:#x} are not one kind of data and one action")
        _, total = self.info(index)
        if start + count > total:
            raise ClientError(f"vectors {start}+{count} of {total} of interrupt index {index}")
        if fds and data is not IrqSetFlags.DATA_EVENTFD:
            raise ClientError("file descriptors without DATA_EVENTFD")
        if data is IrqSetFlags.DATA_NONE and count == 0:
            if start or action is not IrqSetFlags.ACTION_TRIGGER:
                raise ClientError("a count of zero only disables a whole index")
            self._assign(index, range(total), [])
            if index == Irq.MSIX:
                with self._lock:
                    self._pending.clear()
            return
        if count == 0:
            raise ClientError("a count of zero")
        vectors: Iterable[int] = range(start, start + count)
        if data is IrqSetFlags.DATA_BOOL:
            if len(bools) != count:
                raise ClientError(f"{len(bools)} booleans for {count} vectors")
            vectors = [vector for vector in vectors if bools[vector - start]]
        if action is IrqSetFlags.ACTION_TRIGGER:
            if data is IrqSetFlags.DATA_EVENTFD:
                self._assign(index, range(start, start + count), fds)
                return
            with self._lock:
                for vector in vectors:
                    self._trigger(index, vector)
            return
        if index not in _MASKABLE or data is IrqSetFlags.DATA_EVENTFD:
            # An eventfd that unmasks INTx would have to be waited on; QEMU then unmasks by message instead.
            raise ClientError(f"{action.name} with {data.name} of interrupt index {index}", errno.ENOTSUP)
        with self._lock:
            for vector in vectors:
                if action is IrqSetFlags.ACTION_MASK:
                    self._masked.add((index, vector))
                else:
                    self._masked.discard((index, vector))
            self._signal_intx()
            self._signal_pending()

    def clear(self) -> None:
        """Close every eventfd and forget the masks: the client is gone. What is pending stays."""
        with self._lock:
            close_fds(list(self._eventfds.values()))
            self._eventfds.clear()
            self._signals.close()
            self._masked.clear()

    # -- with the lock held ----------------------------------------------------------------------------------------

    def _assign(self, index: int, vectors: range, fds: list[int]) -> None:
        """Give the vectors these eventfds, or take theirs away when ``fds`` is empty."""
        if fds and len(fds) != len(vectors):
            raise ClientError(f"{len(fds)} eventfds for {len(vectors)} vectors")
        with self._lock:
            for fd in fds:
                self._signals.check(fd)
            for place, vector in enumerate(vectors):
                key = (index, vector)
                old = self._eventfds.pop(key, None)
                if old is not None:
                    close_fds([old])
                if fds:
                    self._eventfds[key] = fds[place]
                if not fds or index == Irq.INTX:
                    self._masked.discard(key)
            fds.clear()
            self._signal_intx()
            self._signal_pending()

    def _trigger(self, index: int, vector: int) -> None:
        key = (index, vector)
        held = key in self._masked or (index == _MSIX and self._function_masked)
        fd = None if held else self._eventfds.get(key)
        if fd is not None:
            self._signals.signal(fd)
        elif index == _MSIX and (self._msix_enabled or key in self._eventfds):
            self._pending.add(vector)

    def _signal_intx(self) -> None:
        if self._level and not self._intx_disabled and _INTX not in self._masked and _INTX in self._eventfds:
            self._signals.signal(self._eventfds[_INTX])
            self._masked.add(_INTX)  # AUTOMASKED: until the client unmasks

    def _signal_pending(self) -> None:
        if not self._pending or self._function_masked:
            return
        for vector in sorted(self._pending):
            key = (_MSIX, vector)
            if key in self._eventfds and key not in self._masked:
                self._pending.discard(vector)
                self._signals.signal(self._eventfds[key])
