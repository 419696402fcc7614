# SPDX-License-Identifier: Apache-2.0
"""The registers of one SMMUv3 as its ID registers let them be (IHI 0070 §6.3)."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import UsageError
from ...layout import Register
from ...register_file import RegisterFile, RegisterMap
from .enables import guards
from .features import Features
from .registers import BY_NAME, REGISTERS, met


def register_file(features: Features | None, id_registers: Mapping[str, int] | None) -> RegisterFile:
    """Those of ``features``, or of ID registers as they read, which outweigh them. UsageError: there is no such one."""
    ids: dict[type[Register], int] = {}
    if features is not None or id_registers is None:
        ids.update((features or Features()).id_registers())
    for name, value in (id_registers or {}).items():
        if name not in BY_NAME:
            raise UsageError(f"there is no register {name}; ID registers are IDR0 to IDR5, MPAMIDR, IIDR and AIDR")
        ids[BY_NAME[name]] = value
    made = RegisterFile(
        RegisterMap(REGISTERS, lambda needs: met(needs, lambda register: ids.get(register, 0))),
        guards=guards(lambda register: made.raw(register)),
    )
    for register, value in ids.items():
        made.set_reset(register, value)
    return made
