# SPDX-License-Identifier: Apache-2.0
"""From a machine id to a translation context, by registers alone.

Law: a context follows from registers as they are, so whoever stores to one of them has it made anew. Tables are of
short descriptors, which the reference walks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...register_file import RegisterFile
from ...sealed import Sealed
from ..context import Context, HalfContext, Response, Stage1
from ..walk import Regime
from ..walk_short import Remap, ShortTable
from .registers import ACTLR, CBACR_N, CONTEXTIDR, CR, ESR, IDR, M2VCBR_N, NMRR, PRRR, SCTLR, TTBCR, TTBR0, TTBR1

#: Of addresses, on either side.
ADDRESS_BITS = 32
#: The world of all its entries.
WORLD = 1
_PRIVILEGE = {2: False, 3: True}
_REGIME = Regime(uwxn=False, execute_needs_read=True, xn_for_all=True)


class Refusal(NamedTuple):
    """The transaction has no context: ``status`` is ESR's bit."""

    status: int
    vmid: int


class Found(NamedTuple):
    """The context of a machine id, by its number too."""

    number: int
    context: Context


class Configuration(Sealed):
    """Of one instance; contexts are kept until ``forget``."""

    def __init__(self, registers: RegisterFile) -> None:
        self._registers = registers
        self._kept: dict[int, Found | Refusal | None] = {}

    def forget(self) -> None:
        self._kept.clear()

    def lookup(self, mid: int) -> Found | Refusal | None:
        """None: what this machine id sends passes as it is."""
        if mid not in self._kept:
            self._kept[mid] = self._lookup(mid)
        return self._kept[mid]

    def contexts(self) -> Iterator[tuple[int, None, Context]]:
        """Of machine ids, those that are kept."""
        return ((mid, None, found.context) for mid, found in self._kept.items() if isinstance(found, Found))

    def _lookup(self, mid: int) -> Found | Refusal | None:
        registers = self._registers
        if registers[CR].CLIENTPD:
            return None
        ids = registers[IDR]
        if mid >= ids.NM2VCBMT:
            return Refusal(ESR.CFG.mask, 0)  # chosen: an id that no register is there for
        of = registers[M2VCBR_N, mid]
        if of.CBNDX >= ids.NCB or registers[CBACR_N, of.CBNDX].CBVMID != of.VMID:
            return Refusal(ESR.CFG.mask, of.VMID)
        if not registers[SCTLR, of.CBNDX].M:
            return Refusal(ESR.BYPASS.mask, of.VMID) if of.BYPASSD else None
        return Found(of.CBNDX, self.context(of.CBNDX))

    def context(self, number: int) -> Context:
        """Of a context as its registers have it, whether it translates or not."""
        registers = self._registers
        control, more = registers[SCTLR, number], registers[ACTLR, number]
        response = Response(abort=bool(more.CFERE), stall=bool(more.CFCFG) and not registers[CR].STALLD)
        bits = registers[TTBCR, number].N
        return Context(
            WORLD,
            ADDRESS_BITS,
            ADDRESS_BITS,
            registers[CBACR_N, number].CBVMID,
            stage1=Stage1(
                halves=(self._half(number, False), self._half(number, True)),
                regime=_REGIME,
                asid=registers[CONTEXTIDR, number].ASID,
                aset=0,
                aarch32=True,
                sizes32=(bits, 0),
                response=response,
            )
            if control.M
            else None,
            privileged=_PRIVILEGE.get(more.PRIVCFG),
        )

    def _half(self, number: int, high: bool) -> HalfContext | None:
        registers = self._registers
        control, division = registers[SCTLR, number], registers[TTBCR, number]
        if division.PD1 if high else division.PD0:
            return None
        bits = 0 if high else division.N
        base = registers[TTBR1 if high else TTBR0, number].PA >> 14 - bits << 14 - bits
        table = ShortTable(
            base,
            ADDRESS_BITS - bits,
            ADDRESS_BITS,
            big_endian=bool(control.BE),
            access_flag=bool(control.AFE),
            access_fault=not control.AFFD,
            remap=Remap(registers.raw(PRRR, number), registers.raw(NMRR, number)) if control.TRE else None,
        )
        return HalfContext(table, top_byte_ignored=False, no_unprivileged=False)
