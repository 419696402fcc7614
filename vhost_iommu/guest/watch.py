# SPDX-License-Identifier: Apache-2.0
"""Watches a guest from QEMU's start to its end, and takes down what there is to judge by.

Law: QEMU has ended when it returns, whatever happened. A guest that is ended, and did not end, is looked at first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from vhost_iommu.guest.console import Console, End
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.launcher import Running
from vhost_iommu.guest.stand import Stand, stands
from vhost_iommu.guest.symbols import Symbols
from vhost_iommu.guest.verdict import Contract, Story

#: Ends at which the guest would still run, and where it stands tells why.
_LOOKED_AT = (End.TIMEOUT, End.DIED, End.FLOOD, End.INTERRUPTED, End.STOPPED)
#: Seconds for QEMU's last words, which it has said when it ends.
_LAST_WORDS = 1.0


@dataclass(frozen=True)
class Watched:
    """What was seen."""

    story: Story
    lines: list[str]  #: of the console
    seconds: float
    first: float | None  #: seconds to the first result
    stands: tuple[Stand, ...]
    stands_note: str


def watch(
    process: Running,
    log: TextIO,
    *,
    limit: float,
    contract: Contract,
    stopped: Callable[[], bool],
    on_line: Callable[[str], None],
    symbols: Callable[[], Symbols],
    on_failure: Callable[[], None] = lambda: None,
) -> Watched:
    """Read the guest's console until the run ends, and end QEMU. Ctrl-C is an end like others; of its second the
    caller hears. ``limit`` is in seconds; ``symbols`` are asked for when they are needed. ``on_failure`` is called
    once, while the guest still runs: at its first test that fails, or where it is ended.
    """
    started = time.monotonic()
    console = Console(process.console, log)
    ktap, lines = Ktap(), list[str]()
    first, failed, end = None, False, End.CLOSED
    standing: tuple[list[Stand], str] = [], ""
    try:
        try:
            for line in console.lines(started + limit, stopped, contract.end):
                if isinstance(line, End):
                    end = line
                    break
                lines.append(line)
                on_line(line)
                result = ktap.feed(line)
                if result is not None and first is None:
                    first = time.monotonic() - started
                if result is not None and not (result.passed or result.skipped is not None or failed):
                    failed = True
                    on_failure()
        except KeyboardInterrupt:
            end = End.INTERRUPTED
        seconds = time.monotonic() - started
        if end in (*_LOOKED_AT, End.FAILURE) and process.running and not failed:
            on_failure()
        if end in _LOOKED_AT and process.running:
            standing = stands(process, symbols, "\n".join(lines))
        status = process.end() if end is End.CLOSED else process.kill()
        shutdown = process.monitor.shutdown(_LAST_WORDS)
    finally:
        process.kill()
        process.close()
        console.close()
    last = next((line for line in reversed(lines) if line.strip()), "")
    story = Story(end, ktap, status, console.death, last, limit, shutdown)
    return Watched(story, lines, seconds, first, tuple(standing[0]), standing[1])
