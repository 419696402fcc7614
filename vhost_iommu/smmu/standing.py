# SPDX-License-Identifier: Apache-2.0
"""How an instance stands, for who begins to look on while it is at work (docs/watching.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..layout import Register
from ..register_file import RegisterFile
from ..sealed import Sealed
from .context import Context
from .stages import Stages
from .tlb import Space
from .walk import Mapping

if TYPE_CHECKING:
    from .._core.door import Core


class Contexts(Protocol):
    """Whoever keeps contexts."""

    def contexts(self) -> Iterator[tuple[int, int | None, Context]]:
        """StreamID, SubstreamID and context of each that is kept."""


class Standing(Sealed):
    """Of one instance; for who holds its lock. ``telling``: registers to tell of; None: of all that are not 0."""

    def __init__(
        self,
        registers: RegisterFile,
        configuration: Contexts,
        stages: Stages,
        core: Core | None = None,
        telling: Sequence[type[Register]] | None = None,
    ) -> None:
        self._registers = registers
        self._configuration = configuration
        self._stages = stages
        self._core = core
        self._telling = telling

    def waited_for(self) -> None:
        """Return when no request of masters is under way that began before."""
        if self._core is not None:
            self._core.quiesce()

    def look(self, ring: Any, on: bool) -> None:
        if self._core is not None:
            self._core.watch(ring if on else None)

    def of_stream(self, sid: int, ssid: int | None) -> None:
        if self._core is not None:
            self._core.stream(sid, ssid)

    def registers(self) -> dict[str, int]:
        if self._telling is not None:
            return {register.__name__: self._registers.raw(register) for register in self._telling}
        return {name: value for name, value in self._registers.held().items() if value}

    def contexts(self) -> Iterator[tuple[int, int | None, Context]]:
        return self._configuration.contexts()

    def entries(self) -> Iterator[tuple[int, Space, Mapping]]:
        for stage, tlb in ((1, self._stages.tlb), (2, self._stages.tlb2)):
            for space, mapping in tlb:
                yield stage, space, mapping
