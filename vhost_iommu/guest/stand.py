# SPDX-License-Identifier: Apache-2.0
"""Where each CPU of a guest stands that does not go on: registers, their meaning, and the calls that led there.

Law: bounded in time and bytes; it changes nothing in the guest, and says what it does not know. Names come with the
symbols, which are put to where the guest runs by its vectors (VBAR), or by the offset that its panic told.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from vhost_iommu.guest.gdbstub import Stub, StubError
from vhost_iommu.guest.launcher import Running
from vhost_iommu.guest.symbols import NONE, Symbols

#: Seconds that all of it may take: QEMU may hang as well as the guest.
PATIENCE = 10.0
#: Seconds that a QEMU may take to be gone whose monitor does not answer.
_GOING = 1.0
#: Calls that are told, and CPUs.
_CALLS, _CPUS = 24, 64
_SLOT = 0x800  #: bytes of a vector table
_KERNEL_OFFSET = re.compile(r"Kernel Offset: (0x[0-9a-f]+) from (0x[0-9a-f]+)")

# Arm ARM, ESR_ELx.
_CLASSES = {
    0x00: "unknown reason, such as an undefined instruction",
    0x01: "trapped WFI or WFE",
    0x07: "trapped access to SIMD or floating point",
    0x0D: "branch target exception",
    0x0E: "illegal execution state",
    0x15: "SVC",
    0x16: "HVC",
    0x17: "SMC",
    0x18: "trapped MSR, MRS or system instruction",
    0x19: "trapped access to SVE",
    0x1C: "pointer authentication failure",
    0x20: "instruction abort from a lower EL",
    0x21: "instruction abort at this EL",
    0x22: "PC alignment fault",
    0x24: "data abort from a lower EL",
    0x25: "data abort at this EL",
    0x26: "SP alignment fault",
    0x2C: "trapped floating point exception",
    0x2F: "SError",
    0x30: "breakpoint from a lower EL",
    0x31: "breakpoint at this EL",
    0x32: "software step from a lower EL",
    0x33: "software step at this EL",
    0x34: "watchpoint from a lower EL",
    0x35: "watchpoint at this EL",
    0x3C: "BRK",
}
_INSTRUCTION_ABORTS, _DATA_ABORTS = (0x20, 0x21), (0x24, 0x25)
_FAULTS = {
    0x00: "address size fault",
    0x04: "translation fault",
    0x08: "access flag fault",
    0x0C: "permission fault",
    0x14: "external abort on a table walk",
}
_OTHER_FAULTS = {0x10: "external abort", 0x21: "alignment fault", 0x30: "TLB conflict"}
_VECTOR_KINDS = ("synchronous", "IRQ", "FIQ", "SError")
_VECTOR_FROM = ("this EL with SP_EL0", "this EL", "a lower EL", "a lower EL in AArch32")


@dataclass(frozen=True)
class Stand:
    """One CPU. ``el`` is its exception level; elr, esr, far and vbar are of that level, or of EL1 when it is at EL0."""

    cpu: int
    el: int
    pc: int
    sp: int
    elr: int | None
    esr: int | None
    far: int | None
    vbar: int | None
    calls: tuple[int, ...]  #: return addresses, innermost first
    symbols: Symbols = NONE

    def lines(self) -> list[str]:
        """For people."""
        of = f"EL{max(self.el, 1)}"
        said = [f"cpu{self.cpu}: at EL{self.el}, PC {self._at(self.pc)}{self._vector()}, SP {self.sp:#x}"]
        told = []
        if self.elr is not None:
            told.append(f"ELR_{of} {self._at(self.elr)}")
        if self.esr is not None:
            told.append(f"ESR_{of} {self.esr:#x} ({syndrome(self.esr)})")
        if self.far is not None:
            told.append(f"FAR_{of} {self.far:#x}")
        if told:
            said.append(f"  the last exception to {of}: {', '.join(told)}")
        return [*said, *(f"  called from {self._at(each - 4)}" for each in self.calls)]

    def json(self) -> dict[str, Any]:
        """Numbers as texts in hexadecimal, for they have 64 bits."""
        registers = {"pc": self.pc, "sp": self.sp, "elr": self.elr, "esr": self.esr, "far": self.far, "vbar": self.vbar}
        return {
            "cpu": self.cpu,
            "el": self.el,
            **{name: None if value is None else f"{value:#x}" for name, value in registers.items()},
            "syndrome": None if self.esr is None else syndrome(self.esr),
            "symbol": self.symbols.name(self.pc),
            "calls": [{"address": f"{each:#x}", "symbol": self.symbols.name(each - 4)} for each in self.calls],
        }

    def _at(self, address: int) -> str:
        name = self.symbols.name(address)
        return f"{address:#x}{f' ({name})' if name else ''}"

    def _vector(self) -> str:
        """Whether it stands in its vectors, as where nothing handles an exception."""
        if self.vbar is None or not 0 <= (at := self.pc - self.vbar) < _SLOT:
            return ""
        kind, source = _VECTOR_KINDS[at >> 7 & 3], _VECTOR_FROM[at >> 9]
        return f" [a vector of exceptions: {kind}, from {source}; VBAR_EL{max(self.el, 1)}+{at:#x}]"


def syndrome(esr: int) -> str:
    """An ESR in words."""
    if not esr:
        return "none yet"
    kind, status = esr >> 26 & 0x3F, esr & 0x3F
    text = _CLASSES.get(kind, f"exception class {kind:#x}")
    if kind not in (*_INSTRUCTION_ABORTS, *_DATA_ABORTS):
        return text
    if status & ~3 in _FAULTS:
        text += f": {_FAULTS[status & ~3]}, level {status & 3}"
    else:
        text += f": {_OTHER_FAULTS.get(status, f'fault status {status:#x}')}"
    return text + (f", {'write' if esr >> 6 & 1 else 'read'}" if kind in _DATA_ABORTS else "")


def stands(process: Running, symbols: Callable[[], Symbols], console: str) -> tuple[list[Stand], str]:
    """Where the CPUs of a running QEMU stand, and what could not be found out; the guest is stopped by it."""
    deadline = time.monotonic() + PATIENCE
    if not process.running or not process.debugged(PATIENCE / 2):
        # A kernel that panics reboots, which is QEMU's end; it says so on the console before it is gone.
        why = "QEMU ended with it" if process.ends_within(_GOING) else "QEMU does not answer"
        return [], f"where its CPUs stand is not known: {why}"
    found: list[Stand] = []
    try:
        stub = Stub(process.debugger, deadline)
        for cpu, thread in enumerate(stub.threads()[:_CPUS]):
            stub.select(thread)
            found.append(_stand(stub, cpu))
    except StubError as why:
        return found, f"where its CPUs stand is not known{' in full' if found else ''}: {why}"
    return _named(found, symbols(), console)


def _stand(stub: Stub, cpu: int) -> Stand:
    core = stub.registers("pc", "sp", "cpsr", "x29", "x30")
    el = core.get("cpsr", 0) >> 2 & 3
    of = f"EL{max(el, 1)}"
    system = stub.registers(*(f"{name}_{of}" for name in ("ELR", "ESR", "FAR", "VBAR")))
    elr, esr, far, vbar = (system.get(f"{name}_{of}") for name in ("ELR", "ESR", "FAR", "VBAR"))
    calls = tuple(_calls(stub, core.get("x29", 0), core.get("x30", 0)))
    return Stand(cpu, el, core.get("pc", 0), core.get("sp", 0), elr, esr, far, vbar, calls)


def _calls(stub: Stub, frame: int, link: int) -> Iterator[int]:
    """Return addresses: the link register, and those of the frame records (x29) that lead from stack to stack."""
    last = _plain(link)
    if last:
        yield last
    seen: set[int] = set()
    while len(seen) < _CALLS and frame and frame % 8 == 0 and frame not in seen:
        record = stub.memory(frame, 16)
        if record is None:
            return
        seen.add(frame)
        frame, link = int.from_bytes(record[:8], "little"), int.from_bytes(record[8:], "little")
        if not link:
            return
        if _plain(link) != last:  # a function that has made its frame record has its caller in both
            yield _plain(link)
        last = 0


def _plain(address: int) -> int:
    """Without a pointer authentication code."""
    return address | 0xFFFF << 48 if address >> 55 & 1 else address & (1 << 48) - 1


def _named(found: list[Stand], symbols: Symbols, console: str) -> tuple[list[Stand], str]:
    """With the symbols put to where the guest runs."""
    if not symbols:
        return found, ""
    offset = _offset(found, symbols, console)
    if offset is None:
        return found, "the kernel's symbols are known, but not where it runs; 'nokaslr' on its command line would tell"
    moved = symbols.moved(offset) if offset else symbols
    return [replace(each, symbols=moved) for each in found], ""


def _offset(found: list[Stand], symbols: Symbols, console: str) -> int | None:
    """How far from the symbols' addresses the guest runs."""
    if not symbols.moves:
        return 0
    offsets = [symbols.offset(each.vbar) for each in found if each.vbar]
    if known := [offset for offset in offsets if offset is not None]:
        return known[0]
    if (told := _KERNEL_OFFSET.search(console)) and (text := symbols.address("_text")):
        return int(told[1], 16) + int(told[2], 16) - text
    return None
