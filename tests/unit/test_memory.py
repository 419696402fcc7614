# SPDX-License-Identifier: Apache-2.0
"""Guest memory: windows that come and go, and accesses that never leave one."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import missing
from vhost_iommu import _core, shared
from vhost_iommu import memory as memory_module
from vhost_iommu.errors import ClientError
from vhost_iommu.memory import Ended, Memory, Window, atomic_updates

RAM = 0x4000_0000
PAGE = mmap.PAGESIZE


@pytest.fixture
def ram() -> bytearray:
    return bytearray(range(256)) * 16


@pytest.fixture
def memory(ram: bytearray) -> Memory:
    return Memory((RAM, ram))


@pytest.fixture
def fd() -> Iterator[int]:
    """A file of four pages."""
    made = os.memfd_create("test", os.MFD_CLOEXEC)
    os.truncate(made, 4 * PAGE)
    yield made
    os.close(made)


def refused(act: Callable[[], object]) -> int:
    """The errno with which ``act`` is refused."""
    with pytest.raises(ClientError) as raised:
        act()
    return raised.value.errno


# -- accesses ------------------------------------------------------------------------------------------------


def test_an_access_inside_of_a_window_reaches_its_buffer(memory: Memory, ram: bytearray) -> None:
    assert memory.read(RAM + 0x10, 4) == bytes([0x10, 0x11, 0x12, 0x13])
    assert memory.write(RAM + 0x20, b"abc")
    assert ram[0x20:0x23] == b"abc"


def test_the_first_and_the_last_byte_of_a_window_are_inside(memory: Memory) -> None:
    assert memory.read(RAM, 1) == b"\x00"
    assert memory.read(RAM + 4095, 1) == b"\xff"
    assert memory.read(RAM, 4096) is not None
    assert memory.write(RAM + 4095, b"x")


@pytest.mark.parametrize("pa", [0, RAM - 1, RAM + 4093, RAM + 4096, (1 << 64) - 4, 1 << 64])
def test_an_access_that_leaves_every_window_aborts_and_writes_nothing(memory: Memory, ram: bytearray, pa: int) -> None:
    before = bytes(ram)
    assert memory.read(pa, 4) is None
    assert not memory.write(pa, b"abcd")
    assert ram == before


def test_an_access_across_two_adjacent_windows_aborts(memory: Memory) -> None:
    memory.add(Window(RAM + 4096, 4096, bytearray(4096)))
    assert memory.read(RAM + 4094, 4) is None
    assert memory.read(RAM + 4094, 2) is not None
    assert memory.read(RAM + 4096, 2) is not None


def test_a_window_without_a_buffer_aborts(memory: Memory) -> None:
    memory.add(Window(0x1000, 0x1000, None))
    assert memory.read(0x1000, 4) is None
    assert not memory.write(0x1000, b"abcd")


def test_a_window_that_is_not_writable_aborts_writes_only(memory: Memory) -> None:
    memory.add(Window(0, 0x1000, bytearray(0x1000), writable=False))
    assert memory.read(0, 4) == bytes(4)
    assert not memory.write(0, b"abcd")
    assert memory.read(0, 4) == bytes(4)


def test_a_window_that_is_not_readable_aborts_reads_only(memory: Memory) -> None:
    buffer = bytearray(0x1000)
    memory.add(Window(0, 0x1000, buffer, readable=False))
    assert memory.read(0, 4) is None
    assert memory.write(0, b"abcd")
    assert buffer[:4] == b"abcd"


def test_what_was_read_does_not_change_with_later_writes(memory: Memory) -> None:
    read = memory.read(RAM, 4)
    memory.write(RAM, b"abcd")
    assert read == bytes([0, 1, 2, 3])


# -- the table of windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "size"),
    [
        (RAM, 4096),
        (RAM - 1, 2),
        (RAM + 4095, 1),
        (RAM + 1, 1),
        (RAM - 1, 4098),
        (0, 1 << 64),
    ],
)
def test_a_window_that_overlaps_another_is_refused_and_leaves_the_table_alone(
    memory: Memory, base: int, size: int
) -> None:
    before = memory.windows
    assert refused(lambda: memory.add(Window(base, size, None))) == errno.EEXIST
    assert memory.windows == before


@pytest.mark.parametrize(("base", "size"), [(0, 0), (0, -1), (-1, 1), ((1 << 64) - 1, 2)])
def test_a_window_that_is_no_address_range_is_refused(base: int, size: int) -> None:
    assert refused(lambda: Memory().add(Window(base, size, None))) == errno.EINVAL


def test_windows_may_touch_and_are_kept_in_order() -> None:
    memory = Memory((0x3000, bytearray(0x1000)), (0x1000, bytearray(0x1000)), (0x2000, bytearray(0x1000)))
    assert [window.base for window in memory.windows] == [0x1000, 0x2000, 0x3000]


def test_a_window_may_end_with_the_address_space() -> None:
    memory = Memory(((1 << 64) - 0x1000, bytearray(0x1000)))
    assert memory.write((1 << 64) - 1, b"x")
    assert memory.read((1 << 64) - 1, 2) is None


@pytest.mark.parametrize(
    ("base", "size"), [(RAM, 4095), (RAM, 4097), (RAM + 1, 4095), (RAM - 1, 4096), (0, 4096), (RAM + 4096, 4096)]
)
def test_only_exactly_a_window_can_be_removed(memory: Memory, base: int, size: int) -> None:
    assert refused(lambda: memory.remove(base, size)) == errno.ENOENT
    assert memory.read(RAM, 1) is not None


def test_a_removed_window_aborts_and_its_range_may_be_mapped_again(memory: Memory) -> None:
    memory.remove(RAM, 4096)
    assert memory.read(RAM, 1) is None
    memory.add(Window(RAM, 16, bytearray(b"x" * 16)))
    assert memory.read(RAM, 1) == b"x"


def test_clear_removes_every_window(memory: Memory) -> None:
    memory.add(Window(0, 16, None))
    memory.clear()
    assert memory.windows == ()
    assert memory.read(RAM, 1) is None


# -- files ---------------------------------------------------------------------------------------------------


def test_a_mapped_file_is_shared_both_ways(fd: int) -> None:
    memory = Memory()
    memory.map_fd(RAM, 2 * PAGE, fd, PAGE)
    os.pwrite(fd, b"guest", PAGE + 8)
    assert memory.read(RAM + 8, 5) == b"guest"
    assert memory.write(RAM + 2 * PAGE - 1, b"!")
    assert os.pread(fd, 1, 3 * PAGE - 1) == b"!"
    memory.clear()


def test_a_mapped_file_needs_its_descriptor_no_longer() -> None:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.truncate(fd, PAGE)
    memory = Memory()
    memory.map_fd(0, PAGE, fd)
    os.close(fd)
    assert memory.write(0, b"x")
    memory.clear()


@pytest.mark.parametrize("offset", [1, PAGE - 1, PAGE + 8])
def test_a_misaligned_offset_is_refused(fd: int, offset: int) -> None:
    memory = Memory()
    assert refused(lambda: memory.map_fd(0, PAGE, fd, offset)) == errno.EINVAL
    assert memory.windows == ()


@pytest.mark.parametrize(("size", "offset"), [(5 * PAGE, 0), (4 * PAGE, PAGE), (PAGE, 4 * PAGE), (1 << 41, 0)])
def test_a_file_that_is_shorter_than_claimed_is_refused(fd: int, size: int, offset: int) -> None:
    memory = Memory()
    assert refused(lambda: memory.map_fd(0, size, fd, offset)) == errno.ENXIO
    assert memory.windows == ()


@pytest.mark.parametrize(("size", "offset"), [(0, 0), ((1 << 64) - PAGE, 0), (PAGE, (1 << 64) - PAGE)])
def test_a_size_that_nothing_can_map_is_refused_rather_than_raised(fd: int, size: int, offset: int) -> None:
    assert refused(lambda: Memory().map_fd(0, size, fd, offset)) in (errno.EINVAL, errno.ENOSPC)


def test_a_descriptor_that_cannot_be_mapped_is_refused() -> None:
    reader, writer = os.pipe()
    try:
        assert refused(lambda: Memory().map_fd(0, PAGE, reader, writable=False)) == errno.ENODEV
    finally:
        os.close(reader)
        os.close(writer)
    assert refused(lambda: Memory().map_fd(0, PAGE, writer)) == errno.EBADF


def test_an_overlapping_file_is_refused_and_unmapped(fd: int) -> None:
    memory = Memory()
    memory.map_fd(0, PAGE, fd)
    assert refused(lambda: memory.map_fd(0, 2 * PAGE, fd)) == errno.EEXIST
    assert len(memory.windows) == 1
    memory.clear()


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL])
def test_a_memfd_is_sealed_before_it_is_mapped_unless_it_is_already(seals: int) -> None:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, 2 * PAGE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    memory = Memory()
    assert memory.map_fd(0, 2 * PAGE, fd)
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == seals | fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.truncate(fd, PAGE)
    assert memory.read(PAGE, 1) == b"\0"
    memory.clear()
    os.close(fd)


def test_files_that_can_be_cut_short_are_mapped_but_told_of(
    fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_core.PURE, "1")
    monkeypatch.setattr(shared, "kernel_copies", lambda: False)
    memory = Memory()
    assert not memory.map_fd(0, PAGE, fd), "a memfd that was made without MFD_ALLOW_SEALING"
    path = tmp_path / "ram"
    path.write_bytes(bytes(PAGE))
    with path.open("r+b") as file:
        assert not memory.map_fd(RAM, PAGE, file.fileno())
    assert memory.read(RAM, 1) == b"\0"
    memory.clear()


def test_what_has_no_length_cannot_be_cut_short() -> None:
    fd = os.open("/dev/zero", os.O_RDWR)
    memory = Memory()
    assert memory.map_fd(0, PAGE, fd)
    memory.clear()
    os.close(fd)


def test_a_file_mapped_for_reading_takes_no_writes(fd: int) -> None:
    memory = Memory()
    memory.map_fd(0, PAGE, fd, writable=False)
    assert not memory.write(0, b"x")
    assert memory.read(0, 1) == b"\0"
    memory.clear()


def test_a_file_mapped_for_writing_gives_no_reads(fd: int) -> None:
    memory = Memory()
    memory.map_fd(0, PAGE, fd, readable=False)
    assert memory.write(0, b"x")
    assert memory.read(0, 1) is None
    assert os.pread(fd, 1, 0) == b"x"
    memory.clear()


def test_a_window_that_is_unmapped_in_the_middle_of_an_access_aborts(fd: int) -> None:
    memory = Memory()
    memory.map_fd(0, PAGE, fd)
    found = memory.find(0, 8)
    memory.remove(0, PAGE)
    assert found is not None
    # What another thread holds, which looked the window up just before it went.
    memory._table = ((0,), (found,))
    assert memory.read(0, 8) is None
    assert not memory.write(0, bytes(8))
    assert memory.compare_and_swap_u64(0, 0, 1) is None


# -- posted writes -------------------------------------------------------------------------------------------


class Outside:
    """What lies outside of RAM: notes what is posted, and keeps what each write's end is told to."""

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.posted: list[tuple[int, bytes]] = []
        self.late: list[Ended] = []

    def __call__(self, pa: int, data: bytes, ended: Ended) -> bool:
        self.posted.append((pa, data))
        self.late.append(ended)
        return self.takes


def posted(memory: Memory, pa: int, data: bytes = b"data") -> list[bool]:
    """Post ``data``: a list to which is appended, at its end, whether it aborted."""
    ended: list[bool] = []
    memory.post(pa, data, ended.append)
    return ended


def test_a_posted_write_into_ram_stays_there(memory: Memory, ram: bytearray) -> None:
    memory.outside = outside = Outside()
    assert posted(memory, RAM + 8) == [False]
    assert ram[8:12] == b"data"
    assert outside.posted == []


def test_a_posted_write_to_no_window_goes_outside(memory: Memory) -> None:
    memory.outside = outside = Outside()
    assert posted(memory, 0x0800_0000) == []
    assert outside.posted == [(0x0800_0000, b"data")]


def test_a_posted_write_to_a_window_without_a_buffer_goes_outside(memory: Memory) -> None:
    memory.outside = outside = Outside()
    memory.add(Window(0x1000, 0x1000, None))
    assert posted(memory, 0x1FFC) == []
    assert outside.posted == [(0x1FFC, b"data")]


def test_a_posted_write_to_a_window_that_is_not_writable_aborts(memory: Memory) -> None:
    memory.outside = outside = Outside()
    memory.add(Window(0x1000, 0x1000, None, writable=False))
    memory.add(Window(0x2000, 0x1000, bytearray(0x1000), writable=False))
    assert posted(memory, 0x1000) == [True]
    assert posted(memory, 0x2000) == [True]
    assert outside.posted == []


def test_a_posted_write_that_nobody_takes_aborts_at_once(memory: Memory) -> None:
    assert posted(memory, 0) == [True]
    memory.outside = Outside(takes=False)
    assert posted(memory, 0) == [True]


@pytest.mark.parametrize("aborted", [False, True])
def test_a_posted_write_may_end_later(memory: Memory, aborted: bool) -> None:
    memory.outside = outside = Outside()
    ended = posted(memory, 0)
    assert ended == []
    outside.late[0](aborted)
    assert ended == [aborted]


# -- compare and swap ----------------------------------------------------------------------------------------


def test_compare_and_swap_replaces_what_is_expected(memory: Memory, ram: bytearray) -> None:
    assert memory.compare_and_swap_u64(RAM, 0x0706050403020100, 0x1122334455667788) is True
    assert ram[:9] == bytes.fromhex("887766554433221108")


def test_compare_and_swap_leaves_what_is_not_expected(memory: Memory, ram: bytearray) -> None:
    before = bytes(ram)
    assert memory.compare_and_swap_u64(RAM, 0x0706050403020101, 5) is False
    assert ram == before


def test_compare_and_swap_outside_of_ram_or_where_writing_is_not_permitted_aborts(memory: Memory) -> None:
    memory.add(Window(0, 0x1000, bytearray(0x1000), writable=False))
    assert memory.compare_and_swap_u64(0x2000, 0, 1) is None
    assert memory.compare_and_swap_u64(RAM + 4089, 0, 1) is None
    assert memory.compare_and_swap_u64(0, 0, 1) is None


INCREMENTS = """
import sys
from vhost_iommu.memory import Memory
memory = Memory()
memory.map_fd(0, 4096, int(sys.argv[1]))
for _ in range(20_000):
    while not memory.compare_and_swap_u64(0, old := int.from_bytes(memory.read(0, 8), "little"), old + 1):
        pass
"""


def test_compare_and_swap_of_two_processes_loses_no_update() -> None:
    if not atomic_updates():
        missing("libatomic1")
    fd = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, PAGE)
        command = [sys.executable, "-c", INCREMENTS, str(fd)]
        both = [subprocess.Popen(command, pass_fds=[fd]) for _ in range(2)]
        assert [process.wait(60) for process in both] == [0, 0]
        assert int.from_bytes(os.pread(fd, 8, 0), "little") == 40_000
    finally:
        os.close(fd)


# -- whatever is mapped --------------------------------------------------------------------------------------

SPACE = 256


@given(
    ranges=st.lists(st.tuples(st.integers(0, SPACE), st.integers(1, 64), st.booleans()), max_size=12),
    accesses=st.lists(st.tuples(st.integers(0, SPACE + 70), st.integers(1, 70)), max_size=30),
)
def test_no_access_leaves_a_window(ranges: list[tuple[int, int, bool]], accesses: list[tuple[int, int]]) -> None:
    memory = Memory()
    backed: dict[int, int] = {}  # byte address → window
    free = set(range(SPACE + 64))
    for number, (base, size, has_buffer) in enumerate(ranges):
        bytes_of = set(range(base, base + size))
        buffer = bytearray([number]) * size if has_buffer else None
        if bytes_of <= free:
            memory.add(Window(base, size, buffer))
            free -= bytes_of
            backed |= dict.fromkeys(bytes_of, number) if has_buffer else {}
        else:
            assert refused(lambda b=base, s=size: memory.add(Window(b, s, None))) == errno.EEXIST  # type: ignore[misc]
    for pa, size in accesses:
        owners = {backed.get(at) for at in range(pa, pa + size)}
        inside = len(owners) == 1 and None not in owners
        assert memory.read(pa, size) == (bytes([owners.pop() or 0]) * size if inside else None)
        data = memory.read(pa, size)
        assert memory.write(pa, data or bytes(size)) == inside


# -- pages that a client may cut off or withhold -------------------------------------------------------------


@pytest.fixture(params=["core", "pure"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who moves the bytes of a window with a guard."""
    if request.param == "core":
        monkeypatch.delenv(_core.PURE, raising=False)
        if _core.chosen() is None:
            missing("the compiled core")
    else:
        monkeypatch.setenv(_core.PURE, "1")
        if not shared.kernel_copies():
            missing("process_vm_readv, without which such an access ends a process that has no core")
    return str(request.param)


def test_a_file_that_was_cut_short_makes_its_window_an_external_abort(way: str, tmp_path: Path) -> None:
    file = tmp_path / "ram"
    file.write_bytes(bytes(0x4000))
    memory = Memory()
    with file.open("r+b") as opened:
        assert memory.map_fd(0x1000, 0x4000, opened.fileno())
        memory.map_fd(0x10000, 0x1000, opened.fileno())
        assert memory.write(0x1000, b"here")
        opened.truncate(0x1000)
        assert memory.read(0x3000, 8) is None
        assert memory.read(0x1000, 4) is None
        assert not memory.write(0x2000, b"gone")
        assert memory.read(0x10000, 4) == b"here"
        opened.truncate(0)
        assert memory.compare_and_swap_u64(0x10000, 0, 1) is None
    memory.clear()


def test_a_window_that_was_cut_short_says_nothing_of_those_that_come_after_it(way: str, fd: int) -> None:
    memory = Memory()
    for _ in range(3):
        os.truncate(fd, PAGE)
        memory.map_fd(0, PAGE, fd)
        assert memory.write(0, b"x")
        os.truncate(fd, 0)
        assert memory.read(0, 1) is None
        memory.clear()


def test_more_mappings_are_guarded_than_any_table_had_room_for(way: str, fd: int) -> None:
    memories = Memory(), Memory()
    for memory in memories:
        for at in range(1100):
            assert memory.map_fd(at * PAGE, PAGE, fd)
    os.truncate(fd, 0)
    assert memories[0].read(1099 * PAGE, 8) is None
    for memory in memories:
        memory.clear()


def test_a_window_keeps_no_descriptor(way: str, fd: int) -> None:
    before = os.listdir("/proc/self/fd")
    memory = Memory()
    memory.map_fd(0, 4 * PAGE, fd)
    assert os.listdir("/proc/self/fd") == before
    memory.clear()


def mapped(fd: int) -> int:
    """How often this process has the file mapped."""
    inode = f" {os.fstat(fd).st_ino} "
    return sum(inode in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("sealable", [False, True])
def test_a_window_is_unmapped_when_its_last_user_lets_go(way: str, sealable: bool) -> None:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING if sealable else 0)
    os.truncate(fd, PAGE)
    memory = Memory()
    memory.map_fd(0, PAGE, fd)
    window = memory.windows[0]
    assert isinstance(window.buffer, memoryview)
    user = window.buffer[8:16]  # as an access that is under way has it
    memory.remove(0, PAGE)
    assert mapped(fd) == 1
    assert bytes(user) == bytes(8)
    user.release()
    del window
    assert mapped(fd) == 0
    os.close(fd)


def test_no_more_is_mapped_for_a_client_than_its_share(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    monkeypatch.setattr(memory_module, "MAX_MAPPED", 2 * PAGE)
    memory = Memory()
    memory.map_fd(0, PAGE, fd)
    memory.map_fd(PAGE, PAGE, fd)
    memory.add(Window(1 << 40, 1 << 40, None))  # which nothing is mapped for
    assert refused(lambda: memory.map_fd(2 * PAGE, PAGE, fd)) == errno.ENOSPC
    memory.remove(PAGE, PAGE)
    memory.map_fd(2 * PAGE, PAGE, fd)
    memory.clear()


def test_no_memory_for_a_guard_is_the_clients_refusal_and_unmaps(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    class Full:
        @staticmethod
        def Guard(address: int, size: int) -> object:
            raise MemoryError

    monkeypatch.setattr(_core, "chosen", lambda: Full)
    assert refused(lambda: Memory().map_fd(0, PAGE, fd)) == errno.ENOMEM
    assert mapped(fd) == 0


def test_a_file_whose_pages_another_process_gives_is_refused(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    monkeypatch.setattr(shared, "_file_system", lambda fd: (0x65735546, 4096))
    assert refused(lambda: Memory().map_fd(0, PAGE, fd)) == errno.ENOTSUP


@pytest.mark.parametrize("host_page", [0x1000, 0x4000, 0x1_0000])
@pytest.mark.parametrize("sealable", [False, True])
def test_offsets_are_multiples_of_4096_whatever_the_hosts_pages_are(
    way: str, host_page: int, sealable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING if sealable else 0)
    os.truncate(fd, 0x2_0000)
    asked: list[tuple[int, int]] = []
    real = shared._map

    def note(fd: int, offset: int, length: int, protection: int) -> int:
        asked.append((offset, length))
        return real(fd, offset, length, protection)

    monkeypatch.setattr(shared, "_map", note)
    memory = Memory(page=host_page)
    for at in range(0, 0x2_0000, 0x1000):
        os.pwrite(fd, at.to_bytes(8, "little"), at)
        memory.map_fd(RAM + at, 0x1000, fd, at)
    for at in range(0, 0x2_0000, 0x1000):
        assert memory.read(RAM + at, 8) == at.to_bytes(8, "little")
        assert memory.write(RAM + at + 0xFF8, b"to there")
        assert memory.compare_and_swap_u64(RAM + at, at, at + 1) is True
        assert os.pread(fd, 8, at) == (at + 1).to_bytes(8, "little")
        assert os.pread(fd, 8, at + 0xFF8) == b"to there"
    assert len(asked) == 32
    assert all(not offset % host_page and not length % host_page for offset, length in asked), (
        "what such a host demands"
    )
    memory.clear()
    assert mapped(fd) == 0
    os.close(fd)


@pytest.mark.parametrize("access", ["read", "write"])
def test_whoever_waits_for_a_clients_page_lets_go_of_the_interpreter(way: str, access: str) -> None:
    size = 32 << 20
    fd = os.memfd_create("test")
    os.truncate(fd, size)
    memory = Memory()
    memory.map_fd(0, size, fd)
    data = bytes(size)
    turns = 0
    over = threading.Event()

    def work() -> None:
        nonlocal turns
        while not over.is_set():
            turns += 1
            time.sleep(0)

    thread = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    thread.start()
    sys.setswitchinterval(60)  # so that it has the interpreter when it is let go of, and never otherwise
    try:
        before = turns
        assert memory.read(0, size) == data if access == "read" else memory.write(0, data)
        after = turns
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()
    assert after > before
    memory.clear()
    os.close(fd)


def test_on_a_host_that_keeps_no_order_a_fence_is_between_two_accesses() -> None:
    ram, done = bytearray(PAGE), []
    memory = Memory((RAM, ram))
    memory.fence = lambda: done.append(bytes(ram[:2]))
    memory.write(RAM, b"a")
    memory.post(RAM + 1, b"b", lambda aborted: None)
    assert done == [bytes(2), b"a\0"]  # before each write
    ram[0:2] = b"cd"
    assert memory.read(RAM, 2) == b"cd"
    assert len(done) == 3  # after each read


@pytest.mark.parametrize("built", [False, True])
def test_other_hosts_than_x86_have_a_fence(monkeypatch: pytest.MonkeyPatch, built: bool) -> None:
    if not (_core.built() is not None if built else atomic_updates()):
        missing("the compiled core" if built else "libatomic1")
    if not built:
        monkeypatch.setattr(_core, "built", lambda: None)
    for machine, fenced in (("x86_64", False), ("aarch64", True)):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        shared.fence.cache_clear()
        try:
            memory = Memory((RAM, bytearray(PAGE)))
        finally:
            shared.fence.cache_clear()
        assert (memory.fence is not None) == fenced
        memory.write(RAM, b"x")
        assert memory.read(RAM, 1) == b"x"
