# SPDX-License-Identifier: Apache-2.0
"""Where a guest stands: the gdb stub's client, the monitor, names of addresses, and what is made of them."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from vhost_iommu.guest import stand, symbols
from vhost_iommu.guest.gdbstub import Stub, StubError
from vhost_iommu.guest.monitor import Monitor
from vhost_iommu.guest.stand import Stand, syndrome
from vhost_iommu.guest.symbols import Symbols

TARGET = '<target><xi:include href="core.xml"/><xi:include href="system.xml"/></target>'
CORE = '<feature><reg name="x29"/><reg name="x30"/><reg name="sp"/><reg name="pc"/><reg name="cpsr"/></feature>'
SYSTEM = '<feature><reg name="VBAR_EL1" regnum="69"/><reg name="ESR_EL1" regnum="71"/><reg name="FAR_EL1"/></feature>'
DESCRIPTION = (f"l{TARGET}", f"m{CORE[:20]}", f"l{CORE[20:]}", f"l{SYSTEM}")


def packet(text: str) -> bytes:
    return b"+$" + text.encode("latin-1") + b"#%02x" % (sum(text.encode("latin-1")) & 0xFF)


def word(value: int) -> str:
    return value.to_bytes(8, "little").hex()


class Fake:
    """A stub that says one answer after the other, whatever it is asked."""

    def __init__(self, answers: Iterable[str] = (), *, raw: bytes = b"", seconds: float = 30.0) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.sendall(raw + b"".join(map(packet, answers)))
        self.stub = Stub(self.ours, time.monotonic() + seconds)

    def asked(self) -> list[str]:
        """The questions that came."""
        self.ours.close()
        with self.theirs, self.theirs.makefile("rb") as file:
            return [part.partition(b"#")[0].decode() for part in file.read().split(b"$")[1:]]


def test_cpus_are_listed_and_chosen() -> None:
    fake = Fake(["PacketSize=1000", "mp01.01,p01.02", "mp01.03", "l", "OK"])
    assert fake.stub.threads() == ["p01.01", "p01.02", "p01.03"]
    fake.stub.select("p01.02")
    assert fake.asked()[-1] == "Hgp01.02"


def test_registers_are_found_by_the_names_that_the_stub_describes() -> None:
    fake = Fake([*DESCRIPTION, word(0x200), word(0xFFFF_8000), "E14"])
    assert fake.stub.registers("pc", "VBAR_EL1", "FAR_EL1", "ELR_EL3") == {"pc": 0x200, "VBAR_EL1": 0xFFFF_8000}
    assert fake.asked()[-3:] == ["p3", "p45", "p48"]


def test_memory_that_cannot_be_read_is_none() -> None:
    fake = Fake([word(1) + word(2), "E22", "00"])
    assert fake.stub.memory(0x1000, 16) == bytes.fromhex(word(1) + word(2))
    assert fake.stub.memory(2**64 - 16, 16) is None
    assert fake.stub.memory(0, 16) is None
    assert fake.asked()[1] == "mfffffffffffffff0,10"


def test_escaped_and_repeated_bytes_are_read() -> None:
    assert Fake(["0* 7d"]).stub.memory(0, 3) == bytes.fromhex("00007d")
    assert Fake([f"l}}{chr(ord('*') ^ 0x20)}"]).stub._transfer("x") == "*"


@pytest.mark.parametrize(
    ("raw", "seconds", "why"),
    [(b"", 0.1, "does not answer"), (b"+$OK#00", 30, "damaged"), (b"+$" + b"x" * 100_000, 0.1, "does not answer")],
)
def test_a_stub_that_does_not_keep_to_it_is_given_up(raw: bytes, seconds: float, why: str) -> None:
    fake = Fake(raw=raw, seconds=seconds)
    with pytest.raises(StubError, match=why):
        fake.stub.select("1")


def test_a_stub_that_is_gone_is_given_up() -> None:
    fake = Fake()
    fake.theirs.close()
    with pytest.raises(StubError):
        fake.stub.threads()


def test_descriptions_without_end_are_given_up() -> None:
    fake = Fake(["m"])
    with pytest.raises(StubError, match="cannot be read"):
        fake.stub.registers("pc")


# -- the monitor -------------------------------------------------------------------------------------------------------


def said_by_qemu(*lines: object, close: bool = True) -> tuple[Monitor, socket.socket]:
    ours, theirs = socket.socketpair()
    monitor = Monitor(ours)
    theirs.sendall(b"".join(json.dumps(line).encode() + b"\r\n" for line in lines))
    if close:
        theirs.shutdown(socket.SHUT_WR)
    return monitor, theirs


SHUTDOWN = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}}


def test_the_monitor_says_why_qemu_ended() -> None:
    monitor, theirs = said_by_qemu({"QMP": {}}, {"return": {}, "id": "qmp_capabilities"}, SHUTDOWN, [1], "x")
    with theirs:
        assert monitor.shutdown(30) == "guest-reset"
        monitor.start()
        asked = [json.loads(line)["execute"] for line in theirs.recv(4096).splitlines()]
        assert asked == ["qmp_capabilities", "cont"]


def test_a_monitor_that_says_nothing_is_not_waited_for() -> None:
    monitor, theirs = said_by_qemu(close=False)
    with theirs:
        assert monitor.shutdown(0.05) == ""
        assert not monitor.execute("stop", 0.05)


@pytest.mark.parametrize(("answer", "done"), [({"return": {}}, True), ({"error": {"class": "GenericError"}}, False)])
def test_a_command_is_carried_out_or_not(answer: dict[str, object], done: bool) -> None:
    monitor, theirs = said_by_qemu({"return": {}, "id": "qmp_capabilities"}, SHUTDOWN, {**answer, "id": "stop"})
    with theirs:
        assert monitor.execute("stop", 30) is done
        assert monitor.shutdown(30) == "guest-reset"


# -- names of addresses ------------------------------------------------------------------------------------------------

TEXT = 0xFFFF_8000_8000_0000
NAMES = {
    "_text": 0,
    "_stext": 0x1_0000,
    "vectors": 0x1_0800,
    "__bp_harden_el1_vectors": 0x1_2800,
    "cpu_do_idle": 0x2_0000,
}
MAP = Symbols.of((TEXT + at, name) for name, at in NAMES.items()).of_a_kernel()


def test_an_address_is_named_by_the_symbol_before_it() -> None:
    named = Symbols.of([(0x1000, "first"), (0x2000, "__pi_memcpy"), (0x2000, "memcpy")])
    assert [named.name(at) for at in (0xFFF, 0x1000, 0x1FFC, 0x2010)] == [
        None,
        "first+0x0",
        "first+0xffc",
        "memcpy+0x10",
    ]
    assert named.name(0x2000 + (1 << 30)) is None


@pytest.mark.parametrize("vectors", ["vectors", "__bp_harden_el1_vectors"])
@pytest.mark.parametrize("moved", [0, 0x1234_5A00_0000])
def test_a_kernel_that_was_moved_is_found_by_its_vectors(vectors: str, moved: int) -> None:
    assert MAP.offset(TEXT + moved + NAMES[vectors]) == moved


def test_vectors_of_another_kernel_say_nothing() -> None:
    assert MAP.offset(TEXT + 0x9000) is None
    assert Symbols.of([(0, "main")]).offset(0x800) is None


def test_a_system_map_is_read_and_debians_empty_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text("ffff800080000000 T _text\nffff800080010000 t inner\nffff800082000000 D data\n")
    assert symbols.of_map(path).names == ("_text", "inner")
    path.write_text("ffffffffffffffff B The real System.map is in the linux-image-6.12-dbg package\n")
    assert not symbols.of_map(path)
    assert not symbols.of_map(tmp_path / "none")


def test_a_system_map_of_the_kernels_version_beside_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/System.map-6.12.0").write_text("ffff800080000000 T _text\n")
    (tmp_path / "boot/System.map-6.1.0").write_text("ffff800080000000 T other\n")
    kernel = tmp_path / "boot/vmlinuz-6.12.0"
    kernel.touch()
    for path in (tmp_path, kernel):
        found = symbols.of_kernel(path, b"", "6.12.0")
        assert (found.names, found.moves) == (("_text",), True)
    assert not symbols.of_kernel(tmp_path, b"", "6.9.0")


def kallsyms(count: int, layout: str) -> bytes:
    """An image with the table that scripts/kallsyms.c of a version makes, of symbols t_0, t_1, … 16 bytes apart."""
    align = 4 if layout == "7.3" else 8

    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % align)

    tokens = [bytes([byte]) if byte else b"" for byte in range(256)]
    tokens[1] = b"t" + b"t_"  # a kind and the beginning of a name
    names, markers = b"", []
    for number in range(count):
        if number % 256 == 0:
            markers.append(len(names))
        text = b"\x01" + b"%d" % number
        names += bytes([len(text)]) + text
    texts = b"".join(token + b"\0" for token in tokens)
    starts, at = [], 0
    for token in tokens:
        starts.append(at)
        at += len(token) + 1
    head = pad(b"code" * 700)
    middle = pad(struct.pack("<I", count)) + pad(names) + pad(struct.pack(f"<{len(markers)}I", *markers))
    sequences = pad(bytes([0x81, 0x55, 0xAA]) * count)
    tail = pad(texts) + pad(struct.pack("<256H", *starts))
    offsets = [16 * number + 16 for number in range(count)]
    plain = pad(struct.pack(f"<{count}I", *offsets))
    if layout == "6.1":
        return head + plain + bytes(8) + middle + sequences + tail
    if layout == "6.12":
        return head + middle + tail + plain + bytes(8) + sequences
    here = len(head + middle + tail)
    relative = [offset - here - 4 * number & 0xFFFF_FFFF for number, offset in enumerate(offsets)]
    return head + middle + tail + pad(struct.pack(f"<{count}I", *relative)) + sequences


@pytest.mark.parametrize("layout", ["6.1", "6.12", "7.3"])
@pytest.mark.parametrize("count", [600, 601, 1024])
def test_the_table_in_a_kernels_own_image_is_read(layout: str, count: int) -> None:
    found = symbols.of_image(kallsyms(count, layout))
    assert len(found) == count
    assert found.address("t_0") == 16
    assert found.address(f"t_{count - 1}") == 16 * count


@pytest.mark.parametrize("damage", [b"\0", b"\xff"])
def test_a_damaged_table_names_nothing(damage: bytes) -> None:
    image = bytearray(kallsyms(600, "6.12"))
    image[2900:3100] = damage * 200
    assert not symbols.of_image(bytes(image))
    assert not symbols.of_image(b"")


# -- what is made of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("esr", "words"),
    [
        (0, "none yet"),
        (0x0200_0000, "unknown reason, such as an undefined instruction"),
        (0x9600_0046, "data abort at this EL: translation fault, level 2, write"),
        (0x8600_000F, "instruction abort at this EL: permission fault, level 3"),
        (0x9600_0010, "data abort at this EL: external abort, read"),
        (0x9200_0061, "data abort from a lower EL: alignment fault, write"),
        (0xBE00_0000, "SError"),
    ],
)
def test_a_syndrome_is_told_in_words(esr: int, words: str) -> None:
    assert syndrome(esr) == words


LOST = Stand(0, 1, 0x200, 0, 0x200, 0x8600_0004, 0x7FFF_0000, 0, ())


def test_a_guest_that_jumped_into_nowhere_is_told_by_its_registers() -> None:
    first, second = LOST.lines()
    assert "EL1, PC 0x200" in first
    assert "synchronous, from this EL; VBAR_EL1+0x200" in first
    assert "ELR_EL1 0x200, ESR_EL1 0x86000004 (instruction abort at this EL: translation fault, level 0)" in second
    assert second.endswith("FAR_EL1 0x7fff0000")


def test_a_stand_is_json_with_its_symbol() -> None:
    idle = Stand(1, 1, TEXT + 0x2_0004, 0, None, None, None, None, (TEXT + 0x2_0014,), MAP)
    said = json.loads(json.dumps(idle.json()))
    assert (said["pc"], said["symbol"], said["esr"]) == ("0xffff800080020004", "cpu_do_idle+0x4", None)
    assert said["calls"] == [{"address": "0xffff800080020014", "symbol": "cpu_do_idle+0x10"}]


def test_calls_are_followed_from_stack_to_stack_and_once() -> None:
    code = 0xFFFF_8000_8002_0000
    # Of frame records (the next, return address): the first's is the link register's; the last leads to the first.
    fake = Fake([word(0x3000) + word(code + 4), word(0x2000) + word(code + 8), word(0x1000) + word(code + 12)])
    assert list(stand._calls(fake.stub, 0x1000, code + 4)) == [code + 4, code + 8, code + 12]
    # A pointer authentication code is no part of the address.
    assert list(stand._calls(Fake(["E14"]).stub, 0x1000, code & ~(0x3F << 56))) == [code]


def test_symbols_are_put_to_where_the_guest_runs() -> None:
    idle = Stand(0, 1, TEXT + 0x1000_0000 + NAMES["cpu_do_idle"] + 4, 0, None, None, None, TEXT + 0x1001_0800, ())
    (named,), note = stand._named([idle], MAP, "")
    assert ("cpu_do_idle+0x4" in named.lines()[0], note) == (True, "")
    unknown = Stand(0, 0, 0x1000, 0, None, None, None, 0x800, ())
    assert "nokaslr" in stand._named([unknown], MAP, "")[1]
    assert stand._named([idle, unknown], MAP, "")[1] == ""
    panic = "Kernel Offset: 0x10000000 from 0xffff800080000000"
    (named,), note = stand._named([Stand(0, 1, idle.pc, 0, None, None, None, None, ())], MAP, panic)
    assert "cpu_do_idle+0x4" in named.lines()[0]
