# SPDX-License-Identifier: Apache-2.0
"""The declaration language: what it refuses at import, and what follows from one declaration."""

from __future__ import annotations

from enum import IntEnum

import pytest

from vhost_iommu.layout import Access, Layout, Register, address, array, bit, field


class Colour(IntEnum):
    RED = 1
    BLUE = 2


class Entry(Layout, size=8):
    KIND = field(3, 0, values=Colour)
    FLAG = bit(4)
    TABLE = address(47, 12)
    MOVED = address(63, 56, low=4)
    LOW = field(15, 12, view="LOW form")


class Sample(Register, at=0x10):
    RUN = bit(0)
    DONE = bit(1, access=Access.RO, reset=1)
    LATCH = bit(2, access=Access.W1C)
    KEY = field(7, 4, access=Access.WO)
    SIZE = field(12, 8, reset=5, guard="BUSY")


def test_overlapping_fields_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Bad\.B\[4:3\] overlaps"):

        class Bad(Layout, size=4):
            A = field(3, 0)
            B = field(4, 3)


def test_a_field_beyond_the_size_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Bad\.A\[32:31\] lies outside of its 4 bytes"):

        class Bad(Layout, size=4):
            A = field(32, 31)


def test_a_view_beyond_the_size_is_refused() -> None:
    with pytest.raises(TypeError, match="outside"):

        class Bad(Layout, size=4):
            A = field(32, 31, view="else")


@pytest.mark.parametrize(("msb", "lsb"), [(0, 1), (3, -1)])
def test_bits_the_wrong_way_round_are_refused(msb: int, lsb: int) -> None:
    with pytest.raises(TypeError, match="no field"):
        field(msb, lsb)


def test_an_array_that_its_elements_do_not_fill_is_refused() -> None:
    with pytest.raises(TypeError, match="no array of 3 bits each"):
        array(7, 0, each=3)


def test_a_register_must_be_aligned_to_its_size() -> None:
    with pytest.raises(TypeError, match="aligned"):

        class Bad(Register, at=4, size=8):
            A = bit(0)


def test_a_register_of_two_bytes_is_refused() -> None:
    with pytest.raises(TypeError, match="4 or 8 bytes"):

        class Bad(Register, at=4, size=2):
            A = bit(0)


def test_an_overlap_with_an_inherited_field_is_refused() -> None:
    with pytest.raises(TypeError, match="overlaps"):

        class Bad(Entry):
            EXTRA = bit(4)


def test_a_field_reads_as_the_number_its_bits_hold() -> None:
    entry = Entry(0xAB00_0000_1234_5012)
    assert (entry.KIND, entry.FLAG) == (2, 1)


def test_an_address_field_reads_as_the_address() -> None:
    assert Entry(0x0000_0000_1234_5FFF).TABLE == 0x1234_5000


def test_an_address_held_elsewhere_than_at_its_own_bits_is_shifted() -> None:
    entry = Entry.of(MOVED=0xAB0)
    assert entry.raw == 0xAB << 56
    assert entry.MOVED == 0xAB0


@pytest.mark.parametrize("values", [{"TABLE": 0x1234}, {"TABLE": 1 << 48}, {"KIND": 16}, {"FLAG": -1}, {"MOVED": 8}])
def test_a_value_that_does_not_fit_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        Entry.of(**values)


def test_an_unknown_field_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="Entry has no field KIN"):
        Entry.of(KIN=1)


def test_replace_changes_only_what_it_names() -> None:
    before = Entry(0xFFFF_FFFF_FFFF_FFFF)
    after = before.replace(KIND=1)
    assert after.raw == 0xFFFF_FFFF_FFFF_FFF1
    assert before.raw == 0xFFFF_FFFF_FFFF_FFFF


def test_fixed_fields_are_set_by_of_and_inherited() -> None:
    class Red(Entry, fixed={"KIND": 1}):
        pass

    class RedFlag(Red, fixed={"FLAG": 1}):
        pass

    assert Red.of().KIND == 1
    assert RedFlag.of().raw == 0x11
    assert Red.of(KIND=2).KIND == 2


def test_a_view_reads_the_same_bits_and_is_not_in_the_text() -> None:
    entry = Entry.of(TABLE=0x7000)
    assert entry.LOW == 7
    assert "LOW" not in entry.text()


def test_res0_is_what_neither_fields_nor_views_declare() -> None:
    class Viewed(Layout, size=4):
        A = field(3, 0)
        B = field(7, 4, view="other")

    assert Viewed.reserved == 0xFFFF_FF00
    assert Entry.reserved == 0x00FF_0000_0000_0FE0


def test_problems_name_reserved_values_and_stray_bits() -> None:
    assert Entry.of(KIND=2).problems() == []
    assert Entry(0x0080_0000_0000_0063).problems() == ["KIND[3:0] = 3 is reserved", "RES0 bits set: 6:5, 55"]


def test_problems_do_not_judge_a_view() -> None:
    class Viewed(Layout, size=4):
        A = field(3, 0)
        B = field(3, 0, values={0: "only"}, view="sometimes")

    assert Viewed(7).problems() == []


def test_an_array_is_judged_and_shown_by_element() -> None:
    class Palette(Layout, size=4):
        COLOURS = array(15, 0, each=4, values=Colour)

    palette = Palette(0x1212)
    assert Palette.COLOURS.elements(palette.COLOURS) == (2, 1, 2, 1)
    assert palette.problems() == []
    assert Palette(0x1213).problems() == ["COLOURS[15:0] = 4627 is reserved"]
    assert palette.text() == "Palette COLOURS=[2(BLUE), 1(RED), 2(BLUE), 1(RED)]"
    assert Palette(0x2222).text() == "Palette COLOURS=4 x 2(BLUE)"


def test_a_field_that_is_no_array_is_its_own_only_element() -> None:
    assert Entry.KIND.elements(2) == (2,)


def test_text_names_values_and_leaves_out_zero() -> None:
    assert Entry.of(KIND=1, TABLE=0x8000).text() == "Entry KIND=1(RED) TABLE=0x8000"
    assert Entry.of(KIND=9).text() == "Entry KIND=9(reserved)"
    assert repr(Entry.of(FLAG=1)) == "<Entry FLAG=1>"


def test_layouts_are_equal_by_type_and_value() -> None:
    class Other(Layout, size=8):
        KIND = field(3, 0)

    assert Entry(1) == Entry(1)
    assert Entry(1) != Entry(2)
    assert Entry(1) != Other(1)
    assert len({Entry(1), Entry(1), Other(1)}) == 2


def test_bytes_are_little_endian_and_of_the_right_length() -> None:
    assert Entry(0x0102).to_bytes() == b"\x02\x01" + bytes(6)
    assert Entry.from_bytes(b"\x02\x01" + bytes(6)) == Entry(0x0102)
    with pytest.raises(ValueError, match="8 bytes, not 7"):
        Entry.from_bytes(bytes(7))


def test_words_are_the_lowest_first_and_missing_ones_zero() -> None:
    class Wide(Layout, size=16):
        LOW = field(63, 0)
        HIGH = field(127, 64)

    assert Wide.from_words([1, 2]).words() == (1, 2)
    assert Wide.from_words([3]) == Wide(3)
    with pytest.raises(ValueError, match="no 64-bit word"):
        Wide.from_words([1 << 64])


@pytest.mark.parametrize("words", [[1, 1], [1 << 64], [-1]])
def test_words_that_do_not_fit_are_refused(words: list[int]) -> None:
    with pytest.raises(ValueError, match=r"hold more|no 64-bit word"):
        Entry.from_words(words)


def test_a_layout_of_four_bytes_refuses_a_wider_word() -> None:
    with pytest.raises(ValueError, match="hold more"):
        Sample.from_words([1 << 32])


def test_the_codec_parses_and_builds_the_layout_itself() -> None:
    codec = Entry.codec()
    assert codec.parse(bytes([0x12, *bytes(7)])) == Entry(0x12)
    assert codec.build(Entry(0x12)) == bytes([0x12, *bytes(7)])


def test_the_bits_codec_shows_fields_and_keeps_res0() -> None:
    parsed = Entry.bits().parse(Entry(0x0000_0000_0000_5032).to_bytes())
    assert (parsed.KIND, parsed.FLAG, parsed.TABLE, parsed.res0_5) == (2, 1, 5, 1)
    assert Entry.bits().build(parsed) == Entry(0x5032).to_bytes()


def test_the_bits_codec_builds_fixed_fields_by_itself() -> None:
    class Red(Entry, fixed={"KIND": 1}):
        pass

    assert Red.bits().build({}) == Red.of().to_bytes()


def test_the_reset_value_is_put_together_from_the_fields() -> None:
    assert Sample.reset == 0x502


def test_a_register_wide_guard_covers_the_fields_without_their_own() -> None:
    class Guarded(Register, at=0, guard="BUSY"):
        A = bit(0)
        B = bit(1, guard="OTHER")

    assert Guarded.guards == {"BUSY": 1, "OTHER": 2}
    assert Sample.guards == {"BUSY": 0x1F00}
