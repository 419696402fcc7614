# SPDX-License-Identifier: Apache-2.0
"""The types of door.pyx, which see."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from _typeshed import ReadableBuffer

from . import pump

DONE: int
DISABLED: int
NO_CONTEXT: int
FAULTED: int
OUTSIDE: int
FOUND: int
REFUSED: int
CD_FAULT: int
ABORTS: int
RECORDS: int
STALLS: int
WRITE: int
PRIVILEGED: int
INSTRUCTION: int
NO_SSID: int

#: (kind, level, stage, cause, ipa, fetch, table_write)
RawFault: TypeAlias = tuple[int, int, int, int, int, int, bool]
#: (base, shift, output, granule_bits, level, descriptor, descriptor_at, flags, attributes, shareability, memory)
RawMapping: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int]
#: (end, bytes done, access, event type, SSID of the record or None, FetchAddr, fault, its responses)
RawEnd: TypeAlias = tuple[int, int, int, int, int | None, int, RawFault | None, int]

class Held:
    @property
    def ste(self) -> int: ...
    @property
    def cd(self) -> int | None: ...
    @property
    def mpam(self) -> tuple[int, int]: ...

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

class Core:
    def __init__(self, tlb_entries: int, contexts: int) -> None: ...
    def set_windows(
        self, windows: Iterable[tuple[int, int, ReadableBuffer | None, bool, bool, object | None]]
    ) -> None: ...
    def set_parameters(
        self,
        *,
        idr0: int,
        idr1: int,
        idr3: int,
        idr5: int,
        mpamidr: int,
        cr2: int,
        strtab_base_cfg: int,
        strtab_base: int,
        enabled: bool,
        gbpa: int,
    ) -> None: ...
    def quiesce(self) -> None: ...
    def lookup(self, sid: int, ssid: int | None) -> tuple[int, int, int | None, int, RawFault, Held | None]: ...
    def legal_ste(self, sid: int, ssid: int | None) -> tuple[int | None, int, int | None, int]: ...
    def bare_context(self, ste: int) -> Held: ...
    def translate(
        self, held: Held, address: int, access: int
    ) -> tuple[RawFault] | tuple[None, int, int, RawMapping | None, RawMapping | None]: ...
    def pieces(
        self,
        sid: int,
        ssid: int | None,
        iova: int,
        size: int,
        access: int,
        incoming: int,
        begun: object = None,  # an Ended
    ) -> tuple[list[tuple[int, int, int]], tuple[int, int], RawEnd]: ...
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
    def invalidate_configuration(self) -> None: ...
    def invalidate_stes(self, first: int, count: int, leaf: bool) -> None: ...
    def invalidate_cd(self, sid: int, ssid: int, leaf: bool) -> None: ...
    def invalidate_cds(self, sid: int) -> None: ...
    def invalidate_partid_map(self, vmid: int) -> None: ...
    def invalidate_tlbs(self) -> None: ...
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
    def consume(
        self, base: int, log2size: int, prod: int, cons: int, limit: int, vmid_mask: int, may_sync: bool
    ) -> tuple[int, int, int, bytes | None]: ...
    def tlb(self, stage: int) -> tuple[int, int, int]: ...
    def entries(self, stage: int) -> list[tuple[int, int, int | None, int, RawMapping]]: ...
    def counts(self) -> tuple[int, ...]: ...
    def commands(self) -> dict[int, int]: ...

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
        core: Core,
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
