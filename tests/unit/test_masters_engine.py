# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.fake_smmu import FakeSmmu
from vhost_iommu.masters.engine import Cmd, ExtensionFrame, PrivilegedFrame, TestEngine, UserFrame, random_bytes
from vhost_iommu.masters.port import Port
from vhost_iommu.memory import Ended, Memory
from vhost_iommu.smmu.transaction import Answer, Begun, Outcome, PageHint, Piece, Transaction

RAM = 0x4000_0000
IOVA = 0x8_0000
SIZE = 0x20000
PAGE = 0x10000
PAIR = 2 * PAGE
PRIVILEGED = 0x10000

# Offsets as the published header lays them out, written down apart from the model's declarations.
CMD, UCTRL, LAUNCHED, RETURNED = 0x00, 0x04, 0x08, 0x0C
MSIADDRESS, MSIDATA, MSIATTR, ATTRIBUTES, SEED = 0x10, 0x18, 0x1C, 0x20, 0x24
BEGIN, END_INCL, STRIDE, UDATA = 0x28, 0x30, 0x38, 0x40
PCTRL, PORT_INDEX, STREAMID, SUBSTREAMID, PDATA = (PRIVILEGED + at for at in (0x00, 0x04, 0x08, 0x0C, 0x10))
WIDE = {MSIADDRESS, BEGIN, END_INCL, STRIDE} | {UDATA + 8 * n for n in range(8)}

NO_FRAME, HALTED, MEMCPY, RAND48, SUM64 = range(5)
ERROR, MISCONFIGURED = 0xFFFFFFFF, 0xFFFFFFFE
EVERY_SEED = pytest.mark.parametrize("seed", [0, 0xFFFFFFFF, 12345], ids=["ascending", "descending", "random"])


class Bench:
    """An engine behind a fake SMMU in front of RAM filled with noise."""

    def __init__(self, frames: int = 512, wake: Callable[[], None] | None = None) -> None:
        self.ram = bytearray(Random(1).randbytes(SIZE))
        self.smmu = FakeSmmu(IOVA, SIZE, RAM)
        self.memory = Memory((RAM, self.ram))
        self.port = Port("engine", self.memory, self.smmu, (3, 4))
        self.pulses = 0
        self.engine = TestEngine("engine", self.port, frames=frames, interrupt=self.pulse, wake=wake)

    def pulse(self) -> None:
        self.pulses += 1

    def store(self, at: int, value: int, frame: int = 0) -> None:
        self.engine.write(at + 128 * frame, 8 if at in WIDE else 4, value)

    def load(self, at: int, frame: int = 0) -> int:
        return self.engine.read(at + 128 * frame, 8 if at in WIDE else 4)

    def run(self, cmd: int, begin: int, end_incl: int, *, stride: int = 1, seed: int = 0, to: int = 0) -> int:
        for at, value in (BEGIN, begin), (END_INCL, end_incl), (STRIDE, stride), (SEED, seed), (UDATA, to):
            self.store(at, value)
        self.store(CMD, cmd)
        return self.load(CMD)

    @property
    def transfers(self) -> list[tuple[bool, int, int]]:
        return [(asked.write, asked.iova - IOVA, asked.size) for asked in self.smmu.asked]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- registers ---------------------------------------------------------------------------------------------------


def test_the_declared_offsets_are_the_published_ones() -> None:
    assert [
        reg.at
        for reg in (
            UserFrame.cmd,
            UserFrame.uctrl,
            UserFrame.count_of_transactions_launched,
            UserFrame.count_of_transactions_returned,
            UserFrame.msiaddress,
            UserFrame.msidata,
            UserFrame.msiattr,
            UserFrame.attributes,
            UserFrame.seed,
            UserFrame.begin,
            UserFrame.end_incl,
            UserFrame.stride,
            UserFrame.udata,
        )
    ] == [0, 4, 8, 0xC, 0x10, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x30, 0x38, 0x40]
    assert (PrivilegedFrame.streamid.at, PrivilegedFrame.substreamid.at, PrivilegedFrame.pdata.at) == (8, 12, 16)


def test_a_frame_resets_halted_with_the_engines_stream_and_no_substream(bench: Bench) -> None:
    for frame in (0, 1, 511):
        assert bench.load(CMD, frame) == HALTED
        assert bench.load(PCTRL, frame) == 1
        assert bench.load(STREAMID, frame) == 3
        assert bench.load(SUBSTREAMID, frame) == 0xFFFFFFFF
        assert bench.load(BEGIN, frame) == 0


def test_frames_that_are_not_implemented_read_no_frame_and_ignore_writes() -> None:
    bench = Bench(frames=2)
    assert bench.engine.size == PAIR + 2 * PAGE
    assert bench.load(CMD, 1) == HALTED
    bench.store(BEGIN, 5, 2)
    bench.store(CMD, HALTED, 2)
    assert (bench.load(CMD, 2), bench.load(BEGIN, 2), bench.load(STREAMID, 2)) == (NO_FRAME, 0, 0)


def test_frame_512_begins_the_second_pair_of_pages() -> None:
    bench = Bench(frames=513)
    assert bench.engine.size == 2 * (PAIR + PAGE) + PAGE
    assert bench.engine.read(PAIR, 4) == HALTED
    assert bench.engine.read(PAIR + STREAMID, 4) == 3
    assert bench.engine.read(PAIR + 128, 4) == NO_FRAME


def test_frames_do_not_share_registers(bench: Bench) -> None:
    bench.store(BEGIN, 0x1111, 0)
    bench.store(BEGIN, 0x2222, 1)
    bench.store(STREAMID, 4, 1)
    assert (bench.load(BEGIN, 0), bench.load(BEGIN, 1)) == (0x1111, 0x2222)
    assert (bench.load(STREAMID, 0), bench.load(STREAMID, 1)) == (3, 4)


def test_fields_take_accesses_of_any_size(bench: Bench) -> None:
    bench.engine.write(BEGIN + 3, 1, 0xAB)
    bench.engine.write(BEGIN + 4, 4, 0x01234567)
    assert bench.load(BEGIN) == 0x01234567_AB000000
    assert bench.engine.read(BEGIN + 6, 2) == 0x0123
    bench.engine.write(ATTRIBUTES, 8, 0x11223344_42FF42FF)
    assert (bench.load(ATTRIBUTES), bench.load(SEED)) == (0x42FF42FF, 0x11223344)


@pytest.mark.parametrize(("at", "size"), [(0, 1), (0, 2), (0, 8), (1, 1), (2, 2)])
def test_cmd_takes_32_bit_accesses_only(bench: Bench, at: int, size: int) -> None:
    bench.engine.write(at, size, 99)
    assert bench.load(CMD) == HALTED
    assert bench.engine.read(at, size) == 0


def test_software_cannot_change_ssd_ns(bench: Bench) -> None:
    bench.store(PCTRL, 0xFFFFFFFE)
    assert bench.load(PCTRL) == 0x301


def test_writing_no_frame_halts(bench: Bench) -> None:
    bench.store(CMD, 99)
    assert bench.load(CMD) == MISCONFIGURED
    bench.store(CMD, NO_FRAME)
    assert bench.load(CMD) == HALTED


def test_a_running_frame_ignores_writes() -> None:
    woken: list[bool] = []
    bench = Bench(wake=lambda: woken.append(True))
    assert bench.run(RAND48, IOVA, IOVA + 7) == RAND48
    assert woken == [True]
    bench.store(BEGIN, 1)
    bench.store(STREAMID, 4)
    bench.store(CMD, HALTED)
    assert (bench.load(BEGIN), bench.load(STREAMID), bench.load(CMD)) == (IOVA, 3, RAND48)
    bench.engine.work()
    assert bench.load(CMD) == HALTED
    bench.store(BEGIN, 1)
    assert bench.load(BEGIN) == 1


# -- what is misconfigured -----------------------------------------------------------------------------------------

SOUND = {BEGIN: IOVA, END_INCL: IOVA + 0xFFF, STRIDE: 1, UDATA: IOVA + 0x1000}

WRONG = [
    ("stride 0", MEMCPY, {STRIDE: 0}),
    ("stride 2", MEMCPY, {STRIDE: 2}),
    ("stride 7", SUM64, {STRIDE: 7}),
    ("stride 12", RAND48, {STRIDE: 12}),
    ("huge odd stride", RAND48, {STRIDE: 2**64 - 1}),
    ("all addresses", RAND48, {BEGIN: 0, END_INCL: 2**64 - 1}),
    ("all addresses but for less than a word", MEMCPY, {BEGIN: 7, END_INCL: 2**64 - 8, STRIDE: 8}),
    ("end before begin", MEMCPY, {END_INCL: IOVA - 1}),
    ("sum from an odd place", SUM64, {BEGIN: IOVA + 4}),
    ("sum to an odd place", SUM64, {END_INCL: IOVA + 0xFFB}),
    ("destination beyond the address space", MEMCPY, {UDATA: 2**64 - 0x800}),
    ("a stream of somebody else", MEMCPY, {STREAMID: 5}),
    ("a substream of 21 bits", MEMCPY, {SUBSTREAMID: 1 << 20}),
    ("a second port", MEMCPY, {PORT_INDEX: 1}),
    ("command 5", 5, {}),
    ("the last invalid command", 0xFFFFFFFD, {}),
]


@pytest.mark.parametrize(("cmd", "change"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_misconfigured_frame_says_so_at_once_and_does_nothing(bench: Bench, cmd: int, change: dict[int, int]) -> None:
    bench.store(MSIADDRESS, IOVA)
    for at, value in {**SOUND, **change}.items():
        bench.store(at, value)
    bench.store(CMD, cmd)
    assert bench.load(CMD) == MISCONFIGURED
    assert bench.smmu.asked == []
    assert bench.pulses == 0
    # … and it takes writes again.
    for at, value in {**SOUND, STREAMID: 3, SUBSTREAMID: 0xFFFFFFFF, PORT_INDEX: 0}.items():
        bench.store(at, value)
    bench.store(CMD, MEMCPY)
    assert bench.load(CMD) == HALTED


# -- MEMCPY ------------------------------------------------------------------------------------------------------


@EVERY_SEED
@pytest.mark.parametrize(("begin", "size", "to"), [(0, 0x4000, 0x8000), (0x123, 0x2FFF, 0x8765), (0xFFF, 2, 0x9FFF)])
def test_memcpy_copies_every_byte(bench: Bench, seed: int, begin: int, size: int, to: int) -> None:
    expected = bytearray(bench.ram)
    expected[to : to + size] = expected[begin : begin + size]
    assert bench.run(MEMCPY, IOVA + begin, IOVA + begin + size - 1, seed=seed, to=IOVA + to) == HALTED
    assert bench.ram == expected
    assert bench.load(LAUNCHED) == bench.load(RETURNED) == len(bench.smmu.asked)


@EVERY_SEED
@pytest.mark.parametrize("stride", [8, 16, 24, 4096, 0x2008, 1 << 40])
def test_memcpy_with_a_stride_copies_single_words(bench: Bench, seed: int, stride: int) -> None:
    begin, end, to = 0x105, 0x3102, 0x9003
    expected = bytearray(bench.ram)
    offset = 0
    while (begin & ~7) + offset + 7 <= end | 7:
        source, target = (begin & ~7) + offset, (to & ~7) + offset
        expected[target : target + 8] = expected[source : source + 8]
        offset += stride
    assert bench.run(MEMCPY, IOVA + begin, IOVA + end, stride=stride, seed=seed, to=IOVA + to) == HALTED
    assert bench.ram == expected
    assert {size for _, _, size in bench.transfers} == {8}


def test_the_seed_decides_the_order() -> None:
    def reads(seed: int) -> list[int]:
        bench = Bench()
        bench.run(SUM64, IOVA, IOVA + 0xFFFF, seed=seed)
        return [at for _, at, _ in bench.transfers]

    pages = [n * 0x1000 for n in range(16)]
    assert reads(0) == pages
    assert reads(0xFFFFFFFF) == pages[::-1]
    drawn = reads(77)
    assert drawn not in (pages, pages[::-1])
    assert sorted(drawn) == pages
    assert reads(77) == drawn
    # Each is taken from one end of what is left.
    left = list(pages)
    for at in drawn:
        assert at in (left[0], left[-1])
        left.remove(at)


def test_no_transfer_crosses_a_page_of_its_source(bench: Bench) -> None:
    bench.run(MEMCPY, IOVA + 0xF00, IOVA + 0x20FF, to=IOVA + 0x8000)
    assert [(at, size) for write, at, size in bench.transfers if not write] == [
        (0xF00, 0x100),
        (0x1000, 0x1000),
        (0x2000, 0x100),
    ]


# -- RAND48 ------------------------------------------------------------------------------------------------------


def rand48(seed: int, address: int, size: int) -> bytes:
    """Byte by byte as the published pseudo code means it: a number for each, seeded anew at each 4 KiB."""
    out = bytearray()
    state = 0
    for at in range(address, address + size):
        if at == address or at % 4096 == 0:
            mixed = (seed ^ (at >> 32) ^ at) % 2**32
            state = mixed * 65536 + 0x330E
        state = (state * 25214903917 + 11) % 2**48
        out.append(state // 2**17 % 256)
        state = (state * 25214903917 + 11) % 2**48
    return bytes(out)


@EVERY_SEED
def test_rand48_fills_every_byte(bench: Bench, seed: int) -> None:
    begin, end = 0x1234, 0x4567
    expected = bytearray(bench.ram)
    expected[begin : end + 1] = rand48(seed, IOVA + begin, end + 1 - begin)
    assert bench.run(RAND48, IOVA + begin, IOVA + end, seed=seed) == HALTED
    assert bench.ram == expected
    assert {write for write, _, _ in bench.transfers} == {True}


@EVERY_SEED
@pytest.mark.parametrize("stride", [8, 4104])
def test_rand48_with_a_stride_seeds_each_word(bench: Bench, seed: int, stride: int) -> None:
    expected = bytearray(bench.ram)
    for at in range(0x1000, 0x5000, stride):
        expected[at : at + 8] = rand48(seed, IOVA + at, 8)
    assert bench.run(RAND48, IOVA + 0x1000, IOVA + 0x4FFF, seed=seed, stride=stride) == HALTED
    assert bench.ram == expected


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(1, 4096))
@settings(max_examples=50)
def test_the_fast_generator_is_the_published_one(seed: int, at: int, size: int) -> None:
    size = min(size, 4096 - at % 4096)
    assert random_bytes(seed, at, size) == rand48(seed, at, size)


# -- SUM64 -------------------------------------------------------------------------------------------------------


@EVERY_SEED
@pytest.mark.parametrize("stride", [1, 8, 64, 4104])
def test_sum64_adds_up_words(bench: Bench, seed: int, stride: int) -> None:
    words = struct.unpack_from("<1536Q", bench.ram, 0x808)
    step = 1 if stride == 1 else stride // 8
    assert bench.run(SUM64, IOVA + 0x808, IOVA + 0x808 + 1536 * 8 - 1, stride=stride, seed=seed) == HALTED
    assert bench.load(UDATA + 8) == sum(words[::step]) % 2**64
    assert {write for write, _, _ in bench.transfers} == {False}


# -- what transactions carry ---------------------------------------------------------------------------------------


def test_attributes_go_to_their_side(bench: Bench) -> None:
    bench.store(ATTRIBUTES, 0x0100_0400)  # source InD, destination PnU
    bench.run(MEMCPY, IOVA, IOVA + 7, to=IOVA + 64)
    read, write = bench.smmu.asked
    assert (read.write, read.privileged, read.instruction) == (False, False, True)
    assert (write.write, write.privileged, write.instruction) == (True, True, False)


def test_streams_and_substreams_are_the_privileged_frames(bench: Bench) -> None:
    bench.store(STREAMID, 4)
    bench.store(SUBSTREAMID, 0xFFFFF)
    bench.store(MSIADDRESS, IOVA + 64)
    bench.run(SUM64, IOVA, IOVA + 7)
    read, msi = bench.smmu.asked
    assert (read.sid, read.ssid) == (4, 0xFFFFF)
    assert (msi.sid, msi.ssid, msi.write, msi.size) == (4, None, True, 4)


# -- errors and completion -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cmd", [MEMCPY, RAND48, SUM64])
def test_a_fault_ends_the_command_and_leaves_its_address(bench: Bench, cmd: int) -> None:
    bench.smmu.forbid(IOVA + 0x2000)
    assert bench.run(cmd, IOVA, IOVA + 0x3FFF, to=IOVA + 0x8000) == ERROR
    assert bench.load(UDATA + 16) == IOVA + 0x2000
    assert bench.pulses == 1


def test_a_fault_on_the_destination_is_told_to_the_byte(bench: Bench) -> None:
    bench.smmu.forbid(IOVA + 0x9000)
    assert bench.run(MEMCPY, IOVA, IOVA + 0x1FFF, to=IOVA + 0x8F80) == ERROR
    assert bench.load(UDATA + 16) == IOVA + 0x9000


def test_a_silently_terminated_command_succeeds(bench: Bench) -> None:
    bench.smmu.outcome = Outcome.RAZ_WI
    bench.smmu.forbid(IOVA, 0x1000)
    assert bench.run(SUM64, IOVA, IOVA + 0xFFF) == HALTED
    assert bench.load(UDATA + 8) == 0


def test_completion_sends_the_msi_through_translation(bench: Bench) -> None:
    bench.store(MSIADDRESS, IOVA + 0x100)
    bench.store(MSIDATA, 0xCAFE)
    bench.store(MSIATTR, 0x0100)
    assert bench.run(SUM64, IOVA, IOVA + 7) == HALTED
    assert bench.ram[0x100:0x104] == b"\xfe\xca\0\0"
    assert bench.smmu.asked[-1].privileged
    assert bench.load(UCTRL) == 0


def test_an_msi_follows_an_error_too(bench: Bench) -> None:
    bench.store(MSIADDRESS, IOVA + 0x100)
    bench.store(MSIDATA, 0xCAFE)
    assert bench.run(SUM64, 0, 7) == ERROR
    assert bench.ram[0x100:0x104] == b"\xfe\xca\0\0"


def test_an_msi_that_aborts_is_told_and_software_clears_it(bench: Bench) -> None:
    bench.store(UCTRL, 0x00050000)
    bench.store(MSIADDRESS, 0x1000)
    assert bench.run(SUM64, IOVA, IOVA + 7) == HALTED
    assert bench.load(UCTRL) == 0x00050001
    bench.store(UCTRL, 0)
    assert bench.load(UCTRL) == 0


def test_the_msi_comes_after_cmd_says_halted(bench: Bench) -> None:
    seen: list[int] = []

    def doorbell(pa: int, data: bytes, ended: Ended) -> bool:
        seen.append(bench.load(CMD))
        return True

    bench.memory.outside = doorbell
    bench.smmu.size *= 2
    bench.store(MSIADDRESS, IOVA + SIZE)
    bench.run(SUM64, IOVA, IOVA + 7)
    assert seen == [HALTED]


# -- what only the extension can do ------------------------------------------------------------------------------

SPECIAL = PAIR + ExtensionFrame.special.at


@pytest.mark.parametrize("cmd", [MEMCPY, RAND48, SUM64])
def test_transactions_of_an_unsupported_type_are_refused_and_the_msi_is_not(bench: Bench, cmd: int) -> None:
    bench.store(SPECIAL, 1)
    bench.store(MSIADDRESS, IOVA + 0x100)
    bench.store(MSIDATA, 0x55)
    bench.store(ATTRIBUTES, 0x0500_0500)
    before = bytes(bench.ram)
    assert bench.run(cmd, IOVA + 8, IOVA + 0x1FFF, to=IOVA + 0x8000) == ERROR
    (refused,) = bench.smmu.refused
    assert (refused.iova, refused.write) == (IOVA + 8, cmd == RAND48)
    assert (refused.privileged, refused.instruction) == (True, True)
    assert bench.transfers == [(True, 0x100, 4)]
    assert bytes(bench.ram) == before[:0x100] + b"\x55\0\0\0" + before[0x104:]
    assert bench.load(UDATA + 16) == IOVA + 8


READ = PageHint(3, IOVA, 2, 9, read=True, execute=True)


@pytest.mark.parametrize(
    ("cmd", "hinted"),
    [
        (MEMCPY, [READ, PageHint(3, IOVA + 0x8000, 3, 9, write=True, privileged=True)]),
        (RAND48, [PageHint(3, IOVA, 2, 9, write=True, privileged=True)]),
        (SUM64, [READ]),
    ],
)
@pytest.mark.parametrize("ends", [HALTED, ERROR])
def test_a_command_hints_at_its_pages_once_before_its_first_transfer(
    bench: Bench, cmd: int, hinted: list[PageHint], ends: int
) -> None:
    if ends == ERROR:
        bench.smmu.forbid(IOVA)
    bench.store(SPECIAL, 2)
    bench.store(SUBSTREAMID, 9)
    bench.store(ATTRIBUTES, 0x0500_0400)  # writes are privileged; that they are of instructions means nothing
    assert bench.run(cmd, IOVA + 8, IOVA + 0x1FFF, stride=8, to=IOVA + 0x8FFF) == ends
    assert bench.smmu.hints == hinted
    bench.store(SPECIAL, 0)
    bench.run(cmd, IOVA + 8, IOVA + 0x1FFF, to=IOVA + 0x8FFF)
    assert len(bench.smmu.hints) == len(hinted)


def test_a_hint_names_255_pages_at_most(bench: Bench) -> None:
    bench.port.hint(0x1FFF, 2, write=False)
    bench.port.hint(0x1FFF, 1 << 40, write=True)
    assert [(hint.sid, hint.address, hint.npages) for hint in bench.smmu.hints] == [(3, 0x1000, 2), (3, 0x1000, 255)]


def test_a_command_that_cannot_be_hints_at_nothing(bench: Bench) -> None:
    bench.store(SPECIAL, 2)
    assert bench.run(MEMCPY, IOVA, IOVA + 7, stride=3) == MISCONFIGURED
    assert bench.smmu.hints == []


# -- asynchronous -------------------------------------------------------------------------------------------------


def test_frames_run_in_turns() -> None:
    bench = Bench(wake=lambda: None)
    for frame, begin in (0, 0), (1, 0x10000):
        for at, value in (BEGIN, IOVA + begin), (END_INCL, IOVA + begin + 0x1FF), (STRIDE, 8):
            bench.store(at, value, frame)
        bench.store(CMD, RAND48, frame)
    bench.engine.work()
    assert (bench.load(CMD, 0), bench.load(CMD, 1)) == (HALTED, HALTED)
    halves = [at >= 0x10000 for _, at, _ in bench.transfers]
    assert True in halves[:64]
    assert False in halves[-64:]


class Endless(FakeSmmu):
    """Silently terminates all, so that a command takes as long as its range is large; calls ``at`` once."""

    def __init__(self, after: int, at: Callable[[], None]) -> None:
        super().__init__()
        self.after, self.at = after, at

    def translate(self, transaction: Transaction, begun: Begun | None = None) -> Answer:
        self.asked.append(transaction)
        if len(self.asked) == self.after:
            self.at()
        return Answer(Outcome.RAZ_WI, [Piece(RAM, 0)])


@pytest.mark.parametrize("how", ["reset", "stop"])
def test_an_endless_command_can_be_stopped(how: str) -> None:
    smmu = Endless(50, lambda: getattr(engine, how)())
    engine = TestEngine("engine", Port("engine", Memory((RAM, bytearray(4096))), smmu, (1,)))
    engine.write(END_INCL, 8, 1 << 60)
    engine.write(STRIDE, 8, 8)
    engine.write(CMD, 4, RAND48)
    assert len(smmu.asked) < 70


def test_no_dma_follows_a_reset_in_another_thread() -> None:
    reached, lock = threading.Event(), threading.RLock()
    smmu = Endless(100, reached.set)
    engine = TestEngine(
        "engine", Port("engine", Memory((RAM, bytearray(4096))), smmu, (1,)), wake=lambda: None, lock=lock
    )
    engine.write(END_INCL, 8, 1 << 60)
    engine.write(STRIDE, 8, 8)
    engine.write(CMD, 4, RAND48)
    worker = threading.Thread(target=engine.work)
    worker.start()
    try:
        assert reached.wait(30)
        engine.reset()
        asked = len(smmu.asked)
        assert engine.read(CMD, 4) == Cmd.HALTED
    finally:
        engine.stop()
        worker.join(30)
    assert not worker.is_alive()
    assert len(smmu.asked) == asked
