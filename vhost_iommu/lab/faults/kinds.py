# SPDX-License-Identifier: Apache-2.0
"""Each kind of fault, by its name. Law: a kind is declared in the module of its seam, and listed there in KINDS."""

from __future__ import annotations

from collections.abc import Mapping

from . import accesses, acknowledgements, ats, commands, interrupts, masters, queues, sockets, stalls, translations
from .injection import Injection

FAULTS: Mapping[str, type[Injection]] = {
    each.KIND: each
    for module in (
        commands,
        accesses,
        translations,
        interrupts,
        acknowledgements,
        queues,
        stalls,
        masters,
        ats,
        sockets,
    )
    for each in module.KINDS
}
