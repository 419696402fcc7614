# SPDX-License-Identifier: Apache-2.0
"""The registers of one SMMUv2 as its ID registers let them be, each where its frame is (IHI 0062D §8.2, §8.3)."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import UsageError
from ...layout import Register
from ...register_file import Copies, RegisterFile, RegisterMap
from .features import Features
from .registers import (
    BY_NAME,
    CB_TTBR0,
    CB_TTBR1,
    CBFRSYNRA,
    CONTEXT,
    GFSYNR1,
    GLOBAL1,
    IDR0,
    IDR1,
    IDR2,
    REGISTERS,
    S2CR,
    SIZE_BITS,
    SMR,
    met,
)


class Frames:
    """Where frames are."""

    def __init__(self, idr0: IDR0, idr1: IDR1) -> None:
        self.page = 0x1_0000 if idr1.PAGESIZE else 0x1000
        self.pages = 1 << idr1.NUMPAGENDXB + 1  #: of the global space, and of the context banks'
        self.banks = min(idr1.NUMCB, 128)
        self.groups = min(idr0.NUMSMRG, 128)
        self.size = 2 * self.pages * self.page  #: of all

    def copies(self, register: type[Register]) -> Copies:
        stride = register.stride or register.size
        if register in CONTEXT:
            return Copies(self.pages * self.page + register.at, self.banks, self.page)
        if register in GLOBAL1:
            return Copies(self.page + register.at, self.banks, stride)
        return Copies(register.at, self.groups if register in (SMR, S2CR) else 1, stride)


def register_file(
    features: Features | None, id_registers: Mapping[str, int] | None, stall: bool
) -> tuple[RegisterFile, Frames]:
    """Those of ``features``, or of ID registers as they read, which outweigh them. UsageError: there is no such one."""
    ids: dict[type[Register], int] = {}
    if features is not None or id_registers is None:
        ids.update((features or Features()).id_registers())
    for name, value in (id_registers or {}).items():
        if name not in BY_NAME or not name.startswith("IDR"):
            raise UsageError(f"there is no ID register {name}; they are IDR0, IDR1, IDR2 and IDR7")
        ids[BY_NAME[name]] = value
    idr0, idr1, idr2 = IDR0(ids.get(IDR0, 0)), IDR1(ids.get(IDR1, 0)), IDR2(ids.get(IDR2, 0))
    frames = Frames(idr0, idr1)
    if frames.banks > frames.pages:
        raise UsageError(f"{frames.banks} context banks need more than {frames.pages} pages; raise IDR1.NUMPAGENDXB")

    where = RegisterMap(
        REGISTERS, lambda needs: met(needs, lambda register: register(ids.get(register, 0)), stall), frames.copies
    )
    _narrow(where, idr0, idr2)
    made = RegisterFile(where)
    for register, value in ids.items():
        made.set_reset(register, value)
    return made, frames


def stream_bits(idr0: IDR0) -> int:
    return 16 if idr0.EXIDS else idr0.NUMSIDB


def _narrow(where: RegisterMap, idr0: IDR0, idr2: IDR2) -> None:
    """What the sizes of StreamIDs and addresses leave of fields that hold some."""
    ids = (1 << stream_bits(idr0)) - 1
    if idr0.SMS:
        where.narrow(SMR, SMR.VALID.mask | ids << 16 | ids)
    where.narrow(GFSYNR1, ids)
    where.narrow(CBFRSYNRA, ids)
    address = (1 << max(SIZE_BITS[min(idr2.IAS, 5)], SIZE_BITS[min(idr2.OAS, 5)])) - 1
    for register in (CB_TTBR0, CB_TTBR1):
        where.narrow(register, 0xFFFF << 48 | address)
