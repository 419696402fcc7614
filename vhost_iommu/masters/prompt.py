# SPDX-License-Identifier: Apache-2.0
"""A disk's virtqueue that is served in one call of the compiled core (``_core/door.pyx``), and its notifications.

Law: plain values and what the core offers; what is not served there is done by ``virtio_blk.py``, request by request.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable


class Ring(NamedTuple):
    """A split virtqueue as its driver has set it up, at addresses of the disk's stream."""

    desc: int
    avail: int
    used: int
    size: int
    indirect: bool
    event_idx: bool


class Disk(NamedTuple):
    """What is read, and perhaps written, without waiting for a device."""

    fd: int
    read_flags: int  #: of preadv2
    may_write: bool
    sectors: int


class Batch(NamedTuple):
    """After how many requests, or bytes of data, others may have the master's lock."""

    chains: int
    size: int


class BellRegisters(NamedTuple):
    """Offsets of the registers that a DiskBell carries out."""

    notify: int
    status: int
    acknowledge: int


class Post(NamedTuple):
    """The 4-byte write that is a master's interrupt."""

    address: int
    value: int


class Counted(Protocol):
    """What was done without the interpreter, for any to look at: requests, and what they came to at the port."""

    @property
    def reads(self) -> int: ...

    @property
    def writes(self) -> int: ...

    @property
    def transactions(self) -> int: ...

    @property
    def bytes_read(self) -> int: ...

    @property
    def bytes_written(self) -> int: ...


class Served(Counted, Protocol):
    """What was served out of a virtqueue, of which ``last_avail`` and ``used_idx`` are where it is now."""

    @property
    def more(self) -> bool | None:
        """There may be more; None: what comes next was not served."""

    @property
    def last_avail(self) -> int: ...

    @property
    def used_idx(self) -> int: ...

    @property
    def notify(self) -> bool:
        """The driver is to be told."""


class DiskBell(Counted, Protocol):
    """Notifications of a disk without the interpreter (``_core/diskbell.h``); for who holds the master's lock."""

    #: InterruptStatus, and those of its bits that were set after the driver last read it.
    status: int
    unread: int

    def lend(self, number: int, sid: int, ring: Ring, disk: Disk, last_avail: int, used_idx: int) -> None: ...

    def take(self, number: int) -> tuple[int, int] | None:
        """(last_avail, used_idx) of a ring, which is the caller's from now on; None: it was not lent."""


@runtime_checkable
class DiskServer(Protocol):
    """A core that serves disks' virtqueues."""

    def serve(
        self, slot: int, sid: int, ring: Ring, disk: Disk, last_avail: int, used_idx: int, batch: Batch
    ) -> Served: ...

    def disk_bell(
        self,
        lock: object,
        mirror: object,
        slot: int,
        registers: BellRegisters,
        post: Post,
        rings: int,
        batch: Batch,
    ) -> DiskBell | None:
        """None: the lock or the mirror is not of the core."""
