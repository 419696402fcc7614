# SPDX-License-Identifier: Apache-2.0
"""Registers as software finds them: sizes, masks, guards, absent features, and what the model is told."""

from __future__ import annotations

import pytest

from vhost_iommu.layout import Access, Register, bit, field
from vhost_iommu.register_file import RegisterFile, RegisterMap, on_load, on_store


class MODE(Register, at=0x10):
    """What may be written, and what may not."""

    EN = bit(0)
    EXTRA = bit(1, needs="EXTRA", reset=1)
    LOCKED = field(7, 4, guard="LOCK")
    STATUS = field(15, 8, access=Access.RO, reset=0x5A)
    FLAGS = field(19, 16, access=Access.W1C)
    SECRET = field(31, 24, access=Access.WO)


class NEXT(Register, at=0x14):
    """Beside MODE."""

    VALUE = field(31, 0)


class WIDE(Register, at=0x18, size=8):
    """Two words."""

    LOW = field(31, 0)
    HIGH = field(47, 32)
    FLAGS = field(63, 56, access=Access.W1C)


class ABSENT(Register, at=0x20, needs="ABSENT"):
    """Of a feature that is not there."""

    VALUE = field(31, 0, reset=7)


class OPENED(Register, at=0x24, guard="LOCK"):
    """Wholly behind a guard."""

    VALUE = field(31, 0)


REGISTERS = (MODE, NEXT, WIDE, ABSENT, OPENED)


class File(RegisterFile):
    """With a lock, and a diary of what the model is told."""

    def __init__(self, *have: str) -> None:
        self.locked = False
        self.told: list[tuple[str, int, int]] = []
        super().__init__(
            RegisterMap(REGISTERS, lambda needs: not needs or needs in have),
            guards={"LOCK": lambda old, new: not self.locked},
        )
        self.attach(self)

    @on_store(*REGISTERS)
    def _stored(self, old: Register, new: Register) -> None:
        self.told.append((type(new).__name__, int(old), int(new)))


@pytest.fixture
def file() -> File:
    return File("EXTRA", "ABSENT")


# -- sizes ---------------------------------------------------------------------------------------------------


def test_a_word_is_stored_and_read(file: File) -> None:
    file.write(0x14, 4, 0xDEADBEEF)
    assert file.read(0x14, 4) == 0xDEADBEEF
    assert file[NEXT].VALUE == 0xDEADBEEF


def test_a_wide_register_takes_one_access_or_two(file: File) -> None:
    file.write(0x18, 8, 0xABCD_1234_5678)
    assert file.read(0x18, 8) == 0xABCD_1234_5678
    assert (file.read(0x18, 4), file.read(0x1C, 4)) == (0x1234_5678, 0xABCD)
    file.write(0x1C, 4, 0x1111)
    assert file.read(0x18, 8) == 0x1111_1234_5678
    file.write(0x18, 4, 0x2222)
    assert file.read(0x18, 8) == 0x1111_0000_2222


def test_half_of_a_wide_register_leaves_the_other_halfs_flags_alone(file: File) -> None:
    file[WIDE] = 0xFF << 56
    file.write(0x18, 4, 1)
    assert file[WIDE].FLAGS == 0xFF
    file.write(0x1C, 4, 0x0F << 24)
    assert file[WIDE].FLAGS == 0xF0


def test_a_double_word_over_two_registers_is_two_accesses_the_lower_first(file: File) -> None:
    file.write(0x10, 8, 5 << 32 | 1)
    assert [name for name, *_ in file.told] == ["MODE", "NEXT"]
    assert (file[MODE].EN, file[NEXT].VALUE) == (1, 5)
    assert file.read(0x10, 8) == 5 << 32 | file.read(0x10, 4)


def test_a_double_word_over_a_register_and_a_hole_reaches_the_register(file: File) -> None:
    file = File()
    file.write(0x20, 8, 9 << 32 | 9)
    assert file.read(0x20, 8) == 9 << 32


@pytest.mark.parametrize(
    ("offset", "size"), [(0x14, 1), (0x14, 2), (0x16, 2), (0x17, 1), (0x14, 8), (0x16, 4), (0x1C, 8)]
)
def test_an_access_of_another_size_or_alignment_reads_as_zero_and_is_ignored(
    file: File, offset: int, size: int
) -> None:
    file[NEXT], file[WIDE] = 0xFFFFFFFF, 0xFFFFFFFFFFFF
    assert file.read(offset, size) == 0
    file.write(offset, size, 0)
    assert file[NEXT].VALUE == 0xFFFFFFFF
    assert file[WIDE].raw == 0xFFFFFFFFFFFF
    assert file.told == []


@pytest.mark.parametrize("offset", [0, 0xC, 0x28, 0xFFFC, 0x10000])
def test_an_offset_without_a_register_reads_as_zero_and_is_ignored(file: File, offset: int) -> None:
    file.write(offset, 4, 0xFFFFFFFF)
    assert file.read(offset, 4) == 0
    assert file.told == []


# -- fields --------------------------------------------------------------------------------------------------


def test_a_reserved_bit_does_not_stick(file: File) -> None:
    file.write(0x10, 4, 0x0000_000D)
    assert file.read(0x10, 4) & 0xF == 1


def test_a_read_only_field_keeps_its_value(file: File) -> None:
    file.write(0x10, 4, 0)
    assert file[MODE].STATUS == 0x5A
    file.write(0x10, 4, 0xFF00)
    assert file[MODE].STATUS == 0x5A


def test_writing_one_clears_and_writing_zero_does_not(file: File) -> None:
    file[MODE] = 0xF << 16
    file.write(0x10, 4, 0)
    assert file[MODE].FLAGS == 0xF
    file.write(0x10, 4, 5 << 16)
    assert file[MODE].FLAGS == 0xA
    file[MODE] = 0
    file.write(0x10, 4, 0xF << 16)
    assert file[MODE].FLAGS == 0


def test_a_write_only_field_reads_as_zero_but_the_model_sees_it(file: File) -> None:
    file.write(0x10, 4, 0x77 << 24)
    assert file.read(0x10, 4) >> 24 == 0
    assert file[MODE].SECRET == 0x77


def test_a_field_of_an_absent_feature_is_res0(file: File) -> None:
    without = File()
    assert (file.read(0x10, 4) & 2, without.read(0x10, 4) & 2) == (2, 0)
    without.write(0x10, 4, 2)
    assert without.read(0x10, 4) & 2 == 0


def test_a_register_of_an_absent_feature_is_res0_for_software_and_zero_for_the_model() -> None:
    file = File()
    file.write(0x20, 4, 9)
    file[ABSENT] = 9
    assert (file.read(0x20, 4), file[ABSENT].VALUE, file.raw(ABSENT)) == (0, 0, 0)
    assert file.told == []
    assert File("ABSENT").read(0x20, 4) == 7


# -- guards and hooks ----------------------------------------------------------------------------------------


def test_a_closed_guard_protects_its_bits_and_no_others(file: File) -> None:
    file.write(0x10, 4, 0xA1)
    file.locked = True
    file.write(0x10, 4, 0x50)
    assert (file[MODE].LOCKED, file[MODE].EN) == (0xA, 0)
    file.locked = False
    file.write(0x10, 4, 0x50)
    assert file[MODE].LOCKED == 5


def test_the_model_is_not_told_of_a_store_that_a_guard_ignores_whole(file: File) -> None:
    file.locked = True
    file.write(0x24, 4, 9)
    assert file.told == []
    file.locked = False
    file.write(0x24, 4, 9)
    assert file.told == [("OPENED", 0, 9)]


def test_the_model_is_told_of_a_store_that_changes_nothing(file: File) -> None:
    file.write(0x14, 4, 0)
    assert file.told == [("NEXT", 0, 0)]


def test_the_model_is_told_old_and_new_after_the_masks(file: File) -> None:
    file.write(0x10, 4, 0xFFFF_FFFF)
    assert file.told == [("MODE", 0x5A02, 0xFF00_5AF3)]


def test_what_the_model_stores_passes_every_mask_and_tells_nobody(file: File) -> None:
    file.locked = True
    file[MODE] = 0xFFFF_FFFF
    assert file.raw(MODE) == 0xFFFF_FFFF
    assert file.told == []


# -- reset ---------------------------------------------------------------------------------------------------


def test_reset_returns_every_register_to_its_reset_value(file: File) -> None:
    fresh = [file.raw(register) for register in REGISTERS]
    for register in REGISTERS:
        file[register] = 0xFFFF
    file.reset()
    assert [file.raw(register) for register in REGISTERS] == fresh


def test_a_reset_value_may_be_the_implementations_own(file: File) -> None:
    file.set_reset(NEXT, 0x1234)
    assert file.read(0x14, 4) == 0x1234
    file.write(0x14, 4, 0)
    file.reset()
    assert file.read(0x14, 4) == 0x1234


def test_two_files_of_the_same_registers_share_no_value(file: File) -> None:
    other = File("EXTRA", "ABSENT")
    file.write(0x14, 4, 1)
    assert other.read(0x14, 4) == 0


@pytest.mark.parametrize(
    ("offset", "name"), [(0x10, "MODE"), (0x12, "MODE"), (0x18, "WIDE"), (0x1C, "WIDE+4"), (0x40, "+0x40")]
)
def test_an_offset_has_a_name_for_people(file: File, offset: int, name: str) -> None:
    assert file.named(offset) == name


def test_a_store_has_one_method_that_says_what_it_does(file: File) -> None:
    class Second:
        @on_store(MODE)
        def stored(self, old: MODE, new: MODE) -> None: ...

    with pytest.raises(ValueError, match="MODE"):
        file.attach(Second())


# -- registers that repeat, loads, narrow accesses -------------------------------------------------------------------


class BANK(Register, at=0x20, count=3, stride=8):
    VALUE = field(31, 0, reset=7)


class STATE(Register, at=0x40, access=Access.RO, count=2):
    VALUE = field(31, 0)


class Block:
    """A model of a block with registers that repeat, of which one is made when it is read."""

    def __init__(self) -> None:
        self.file = RegisterFile(RegisterMap((BANK, STATE, WIDE)), narrow=True)
        self.file.attach(self)
        self.stored: list[tuple[int, int, int]] = []

    @on_store(BANK)
    def _bank_stored(self, index: int, old: BANK, new: BANK) -> None:
        self.stored.append((index, int(old), int(new)))

    @on_load(STATE)
    def _state(self, index: int) -> int:
        return 0x100 + index


def test_each_copy_of_a_register_has_its_value_and_its_name() -> None:
    block = Block()
    block.file.write(0x28, 4, 5)
    assert [block.file[BANK, n].VALUE for n in range(3)] == [7, 5, 7]
    assert block.stored == [(1, 7, 5)]
    block.file[BANK, 2] = 9
    assert (block.file.read(0x30, 4), block.file.named(0x30)) == (9, "BANK[2]")
    assert block.file.read(0x24, 4) == 0  # between two copies is nothing
    block.file.reset()
    assert [block.file.raw(BANK, n) for n in range(3)] == [7, 7, 7]


def test_a_load_finds_what_its_method_says() -> None:
    block = Block()
    assert (block.file.read(0x40, 4), block.file.read(0x44, 4)) == (0x100, 0x101)
    assert block.file.read(0x40, 8) == 0x101_0000_0100


def test_a_narrow_access_touches_its_bytes_alone() -> None:
    block = Block()
    block.file.write(0x20, 4, 0x44332211)
    block.file.write(0x21, 1, 0xAA)
    block.file.write(0x22, 2, 0xBBBB)
    assert block.file.read(0x20, 4) == 0xBBBBAA11
    assert (block.file.read(0x21, 1), block.file.read(0x22, 2)) == (0xAA, 0xBBBB)
    block.file.write(0x21, 2, 0xFFFF)  # not aligned
    assert block.file.read(0x20, 4) == 0xBBBBAA11
    assert File("EXTRA", "ABSENT").read(0x0, 1) == 0  # a file without narrow accesses
