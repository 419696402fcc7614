# SPDX-License-Identifier: Apache-2.0
"""Bare-metal programs: what their ELF file says of them, and the configuration that they find in memory.

Law: a program's cases are read from its file, never listed twice. ``Configuration`` is struct vt_config of
guest/bare/lib/vt.h; magic and size, which the program checks, tell when the two differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import construct as c
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.choice import chosen_of
from vhost_iommu.guest.platform import Platform

MAGIC = 0x31435456
CASE_SIZE = 64
_NAME_SIZE = 56
_MAX_WRITES, _MAX_SMMUS, _MAX_MASTERS, _MAX_SIDS, _MAX_ARGUMENTS = 96, 31, 64, 8, 256

#: Interrupts in the order of ``intids`` (guest/bare/lib/vt.h).
_INTERRUPTS = ("eventq", "gerror", "priq", "cmdq-sync")

#: Of a master that is behind none (VT_NO_SMMU).
_NO_SMMU = 0xFFFF_FFFF

_Write = c.Struct("address" / c.Int64ul, "value" / c.Int64ul)
_Smmu = c.Struct(
    "name" / c.PaddedString(32, "ascii"),
    "base" / c.Int64ul,
    "size" / c.Int64ul,
    "intids" / c.Int32ul[len(_INTERRUPTS)],
)
_Master = c.Struct(
    "name" / c.PaddedString(32, "ascii"),
    "compatible" / c.PaddedString(32, "ascii"),
    "base" / c.Int64ul,
    "size" / c.Int64ul,
    "smmu" / c.Int32ul,
    "intid" / c.Int32ul,
    "sids" / c.Int32ul,
    c.Padding(4),
    "sid" / c.Int32ul[_MAX_SIDS],
)
Configuration = c.Struct(
    "magic" / c.Const(MAGIC, c.Int32ul),
    "size" / c.Int32ul,
    "writes" / c.Int32ul,
    "smmus" / c.Int32ul,
    "masters" / c.Int32ul,
    c.Padding(4),
    "arguments" / c.PaddedString(_MAX_ARGUMENTS, "ascii"),
    "write" / c.Padded(_MAX_WRITES * _Write.sizeof(), _Write[c.this.writes]),
    "smmu" / c.Padded(_MAX_SMMUS * _Smmu.sizeof(), _Smmu[c.this.smmus]),
    "master" / c.Padded(_MAX_MASTERS * _Master.sizeof(), _Master[c.this.masters]),
)
CONFIGURATION_SIZE = (
    24 + _MAX_ARGUMENTS + _MAX_WRITES * _Write.sizeof() + _MAX_SMMUS * _Smmu.sizeof() + _MAX_MASTERS * _Master.sizeof()
)


@dataclass(frozen=True)
class Program:
    """An ELF program for AArch64. Without ``config`` it is none of ours and gets no configuration."""

    path: Path
    entry: int
    load: int  #: lowest physical address of what is loaded
    cases: tuple[str, ...]
    config: int | None  #: where struct vt_config is

    def arguments(self, arguments: str, patterns: Sequence[str]) -> str:
        """The arguments with the chosen cases among them."""
        if not patterns:
            return arguments
        if self.config is None or not self.cases:
            raise UsageError(f"{self.path} is a program of yours, which lists no cases; leave --cases out")
        if _patterns(arguments):
            raise UsageError("cases are chosen twice; leave 'cases=' out of --append, or --cases")
        return f"{arguments} cases={','.join(patterns)}".lstrip()

    def chosen(self, arguments: str) -> tuple[str, ...]:
        """The cases that the program will run with these arguments; UsageError when they name one it lacks."""
        patterns = _patterns(arguments)
        return chosen_of(patterns, self.cases) if patterns else self.cases

    @classmethod
    def read(cls, path: Path) -> Program:
        """UsageError when it is no such program."""
        try:
            with path.open("rb") as file:
                return cls._read(path, ELFFile(file))
        except OSError as why:
            raise UsageError(f"{path}: {why.strerror}; name an ELF program for AArch64") from None
        except ELFError:
            raise UsageError(f"{path} is not an ELF file; name an ELF program for AArch64") from None

    @classmethod
    def _read(cls, path: Path, elf: ELFFile) -> Program:
        if elf["e_machine"] != "EM_AARCH64" or elf["e_type"] != "ET_EXEC":
            raise UsageError(f"{path} is not a static program for AArch64; link one with guest/bare/bare.ld")
        loads = [segment["p_paddr"] for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
        if not loads:
            raise UsageError(f"{path} has nothing to load; link it with guest/bare/bare.ld")
        config = None
        if (section := elf.get_section_by_name(".vt_config")) is not None:
            if section["sh_size"] != CONFIGURATION_SIZE:
                raise UsageError(f"{path} was built for another version of this package; build it again")
            config = section["sh_addr"]
        return cls(path, elf["e_entry"], min(loads), _cases(elf), config)


def _patterns(arguments: str) -> list[str]:
    """What the program's argument "cases" names; none: all."""
    for argument in arguments.split():
        if argument.startswith("cases="):
            return argument.removeprefix("cases=").split(",")
    return []


def _cases(elf: ELFFile) -> tuple[str, ...]:
    section = elf.get_section_by_name(".vt_cases")
    data: bytes = section.data() if section is not None else b""
    entries = (data[at : at + _NAME_SIZE] for at in range(0, len(data) - CASE_SIZE + 1, CASE_SIZE))
    return tuple(entry.partition(b"\0")[0].decode("ascii", "replace") for entry in entries)


def configuration(platform: Platform, arguments: str = "") -> bytes:
    """struct vt_config for ``platform``; UsageError when it does not fit."""
    writes = platform.writes()
    smmus = [smmu.name for smmu, _, _ in platform.smmus]
    if len(arguments) >= _MAX_ARGUMENTS or not arguments.isascii():
        raise UsageError(f"a program's arguments are ASCII, at most {_MAX_ARGUMENTS - 1} characters; shorten them")
    for placed in platform.masters:
        if len(placed.master.stream_ids) > _MAX_SIDS:
            raise UsageError(f"{placed.master.name} has more than {_MAX_SIDS} StreamIDs, which no bare program takes")
    if len(writes) > _MAX_WRITES or len(smmus) > _MAX_SMMUS or len(platform.masters) > _MAX_MASTERS:
        raise UsageError(f"a bare program takes at most {_MAX_SMMUS} SMMUs and {_MAX_MASTERS} masters; take fewer")
    try:
        built: bytes = Configuration.build(
            {
                "size": CONFIGURATION_SIZE,
                "writes": len(writes),
                "smmus": len(smmus),
                "masters": len(platform.masters),
                "arguments": arguments,
                "write": [{"address": address, "value": value} for address, value in writes],
                "smmu": [
                    {
                        "name": smmu.name,
                        "base": registers.base,
                        "size": smmu.binding.registers_size,
                        "intids": [function.intids.get(name, 0) for name in _INTERRUPTS],
                    }
                    for smmu, registers, function in platform.smmus
                ],
                "master": [
                    {
                        "name": placed.master.name,
                        "compatible": placed.master.compatible,
                        "base": placed.window.base,
                        "size": placed.window.size,
                        "smmu": _NO_SMMU if placed.master.smmu is None else smmus.index(placed.master.smmu),
                        "intid": placed.intid or 0,
                        "sids": len(placed.master.stream_ids),
                        "sid": [*placed.master.stream_ids, *[0] * (_MAX_SIDS - len(placed.master.stream_ids))],
                    }
                    for placed in platform.masters
                ],
            }
        )
    except c.StringError as why:
        raise UsageError(f"a name of the machine is longer than a bare program takes ({why}); shorten it") from None
    return built
