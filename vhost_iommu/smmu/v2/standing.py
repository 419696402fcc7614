# SPDX-License-Identifier: Apache-2.0
"""How an SMMUv2 stands, for who begins to look on while it is at work (docs/watching.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...register_file import RegisterFile
from ...sealed import Sealed
from ..context import Context
from ..stages import Stages
from ..tlb import Space
from ..walk import Mapping
from .configuration import Configuration

if TYPE_CHECKING:
    from ..._core.door import Core


class Standing(Sealed):
    """Of one instance; for who holds its lock."""

    def __init__(
        self, registers: RegisterFile, configuration: Configuration, stages: Stages, core: Core | None
    ) -> None:
        self._registers = registers
        self._configuration = configuration
        self._stages = stages
        self._core = core

    def waited_for(self) -> None:
        if self._core is not None:
            self._core.quiesce()

    def look(self, ring: Any, on: bool) -> None:
        if self._core is not None:
            self._core.watch(ring if on else None)

    def of_stream(self, sid: int, ssid: int | None) -> None:
        if self._core is not None:
            self._core.stream(sid, ssid)

    def registers(self) -> dict[str, int]:
        return {name: value for name, value in self._registers.held().items() if value}

    def contexts(self) -> Iterator[tuple[int, int | None, Context]]:
        return self._configuration.contexts()

    def entries(self) -> Iterator[tuple[int, Space, Mapping]]:
        for stage, tlb in ((1, self._stages.tlb), (2, self._stages.tlb2)):
            for space, mapping in tlb:
                yield stage, space, mapping
