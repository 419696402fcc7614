# SPDX-License-Identifier: Apache-2.0
"""The types of door.pyx, which see."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from _typeshed import ReadableBuffer

from . import pump

WRITE: int
PRIVILEGED: int
INSTRUCTION: int
NO_SSID: int

#: (kind, level, stage, cause, ipa, fetch, table_write)
RawFault: TypeAlias = tuple[int, int, int, int, int, int, bool]
#: (base, shift, output, granule_bits, level, descriptor, descriptor_at, flags, attributes, shareability, memory)
RawMapping: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int]
#: (stage, base, granule_bits, input_bits, output_bits, start_level, first_block_level, wide, mair,
#: shareability, big_endian, hierarchical, access_fault, update_access, update_dirty, update_tables, top_byte_ignored,
#: no_unprivileged).
RawTable: TypeAlias = tuple[
    int, int, int, int, int, int, int, int, int, int, bool, bool, bool, bool, bool, bool, bool, bool
]
#: (unprivileged, wxn, uwxn, pan, epan, execute_needs_read, xn_for_all)
RawRegime: TypeAlias = tuple[bool, bool, bool, bool, bool, bool, bool]
#: (low half or None, high half or None, asid, aset, aarch32, t0sz, t1sz, regime)
RawStage1: TypeAlias = tuple[RawTable | None, RawTable | None, int, int, bool, int, int, RawRegime]
#: (table, protected_walks, forced_writeback, execute_needs_read, two_bit_xn)
RawStage2: TypeAlias = tuple[RawTable, bool, bool, bool, bool]

class Held: ...

class Guard:
    def __init__(self, address: int, size: int) -> None: ...
    @property
    def broken(self) -> bool: ...
    def copy_out(self, address: int, size: int) -> bytes | None: ...
    def copy_in(self, address: int, data: ReadableBuffer) -> bool: ...
    def release(self) -> None: ...

class Ended:
    @property
    def done(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def counted(self) -> bool: ...

class Core:
    def __init__(self, tlb_entries: int, contexts: int) -> None: ...
    def set_windows(
        self, windows: Iterable[tuple[int, int, ReadableBuffer | None, bool, bool, object | None]]
    ) -> None: ...
    def set_parameters(self, *, output_bits: int, enabled: bool, aborts: bool) -> None: ...
    def quiesce(self) -> None: ...
    def hold(
        self,
        *,
        world: int,
        vmid: int,
        output_bits: int,
        bypass_bits: int,
        privileged: bool | None,
        instruction: bool | None,
        overrides: tuple[bool, int, int],
        stage1: RawStage1 | None,
        stage2: RawStage2 | None,
    ) -> Held: ...
    def publish(self, sid: int, ssid: int | None, held: Held) -> None: ...
    def withdraw(self, sid: int, ssid: int | None) -> None: ...
    def withdraw_streams(self, first: int, last: int) -> None: ...
    def read_ipa(self, held: Held, ipa: int, size: int) -> bytes | RawFault | int: ...
    def translate(
        self, held: Held, address: int, access: int
    ) -> tuple[RawFault] | tuple[None, int, int, RawMapping | None, RawMapping | None]: ...
    def pieces(
        self,
        held: Held,
        iova: int,
        size: int,
        access: int,
        incoming: int,
        begun: object = None,  # an Ended
    ) -> tuple[list[tuple[int, int, int]], int, RawFault | None]: ...
    def read(self, slot: int, sid: int, ssid: int, iova: int, size: int, access: int) -> bytes | Ended: ...
    def write(self, slot: int, sid: int, ssid: int, iova: int, data: ReadableBuffer, access: int) -> Ended | None: ...
    def run_copy(
        self,
        slot: int,
        sid: int,
        ssid: int,
        source: int,
        target: int,
        size: int,
        reads: int,
        writes: int,
        burst: int,
    ) -> Run: ...
    def run_sum64(self, slot: int, sid: int, ssid: int, iova: int, size: int, access: int, burst: int) -> Run: ...
    def run_write(
        self, slot: int, sid: int, ssid: int, iova: int, data: ReadableBuffer, access: int, burst: int
    ) -> Run: ...
    # Of what masters/prompt.py calls Ring, Disk, Batch, BellRegisters and Post.
    def serve(
        self, slot: int, sid: int, ring: Any, disk: Any, last_avail: int, used_idx: int, batch: Any
    ) -> Served: ...
    def disk_bell(
        self, lock: object, mirror: object, slot: int, registers: Any, post: Any, rings: int, batch: Any
    ) -> DiskBell | None: ...
    def clear_tlb(self, stage: int) -> None: ...
    def invalidate_spaces(self, world: int, vmid: int | None, vmid_mask: int, asid: int | None) -> None: ...
    def invalidate_range(
        self,
        world: int,
        start: int,
        size: int,
        vmid: int | None,
        vmid_mask: int,
        asid: int | None,
        granule_bits: int,
        level: int | None,
    ) -> None: ...
    def tlb(self, stage: int) -> tuple[int, int, int]: ...
    def entries(self, stage: int) -> list[tuple[int, int, int | None, int, RawMapping]]: ...
    def counts(self) -> tuple[int, ...]: ...

class Commands:
    def __init__(self, core: Core) -> None: ...
    def set_registers(self, *, idr0: int, idr3: int, idr5: int, cr2: int) -> None: ...
    def consume(
        self, base: int, log2size: int, prod: int, cons: int, limit: int, vmid_mask: int, may_sync: bool
    ) -> tuple[int, int, int, bytes | None]: ...
    def take_kept(self) -> list[bytes]: ...
    def counts(self) -> dict[int, int]: ...

def fence() -> None: ...
def is_mirror(mirror: object) -> bool: ...

class Lock:
    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, *_: object) -> None: ...

class Doorbell:
    def __init__(
        self,
        lock: Lock,
        commands: Commands,
        mirror: pump.Mirror,
        prod_at: int,
        cons_at: int,
        burst: int,
        told: Callable[[int, int, bool], None],
    ) -> None: ...
    def arm(
        self, prod: int, writable: int, cons: int, base: int, log2size: int, vmid_mask: int, msis: bool
    ) -> None: ...
    def disarm(self) -> None: ...
    @property
    def rung(self) -> bool: ...
    def counts(self) -> tuple[int, int, int]: ...

class Run:
    done: int
    total: int
    read: bytes | Ended | None
    written: Ended | None

class Served:
    more: bool | None
    last_avail: int
    used_idx: int
    notify: bool
    reads: int
    writes: int
    transactions: int
    bytes_read: int
    bytes_written: int

class DiskBell:
    status: int
    unread: int
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
    def lend(self, number: int, sid: int, ring: Any, disk: Any, last_avail: int, used_idx: int) -> None: ...
    def take(self, number: int) -> tuple[int, int] | None: ...
