# SPDX-License-Identifier: Apache-2.0
"""Words from a kernel log become named fields, and wrong words one sentence that says the mend."""

from __future__ import annotations

import json
import re

import pytest

from vhost_iommu.decode import KINDS, MANY, decode_words
from vhost_iommu.errors import UsageError
from vhost_iommu.smmu.v3 import commands, events, registers, structures


def line(text: str, name: str) -> str:
    """The row of the field ``name``, blanks squeezed."""
    (found,) = (row for row in text.splitlines() if re.search(rf"^  \[[\d:]+\] +{re.escape(name)} ", row))
    return " ".join(found.split())


def test_an_ste_as_linux_prints_it_is_named_field_by_field() -> None:
    found = decode_words("ste", ["000000004500000b", "00000000000000d6", "0", "0", "0", "0", "0", "0"])
    assert found.name == "STE"
    assert found.notes == []
    text = found.text()
    assert text.startswith("STE: Stream table entry")
    assert line(text, "Config").startswith("[3:1] Config 5(S1)")
    assert line(text, "S1ContextPtr").startswith("[55:6] S1ContextPtr 0x45000000")
    assert line(text, "S1DSS").startswith("[65:64] S1DSS 2(SSID0)")
    assert "illegal" not in text


def test_a_structure_lists_its_zero_fields_together_and_loses_none() -> None:
    text = decode_words("ste", ["b"]).text()
    named = set(re.findall(r"[A-Za-z]\w+|\bV\b", text))
    assert {f.name for f in structures.STE.fields} <= named
    assert "zero: " in text
    assert not re.search(r"^  \[76\]", text, re.MULTILINE), "DRE is zero and has no row of its own"


def test_a_small_layout_shows_every_field_on_its_own_row() -> None:
    text = decode_words("command", ["46", "0"]).text()
    for f in commands.CMD_SYNC.fields:
        assert line(text, f.name)
    assert "zero:" not in text
    assert len(commands.CMD_SYNC.fields) <= MANY


def test_missing_trailing_words_are_taken_as_zero_and_said() -> None:
    found = decode_words("cd", ["0001e205c0003510", "0000000046000000"])
    assert found.value == structures.CD.from_words([0x0001_E205_C000_3510, 0x4600_0000])
    assert found.notes == ["6 of 8 words missing at the end, taken as 0"]
    assert "note: 6 of 8 words" in found.text()


@pytest.mark.parametrize("word", ["1234", "0x1234", "0X1234", "0000000000001234"])
def test_words_may_be_given_with_or_without_0x(word: str) -> None:
    assert decode_words("l1cd", [word]).value.raw == 0x1234


def test_illegal_values_are_said() -> None:
    text = decode_words("ste", ["5"]).text()
    assert "illegal: Config[3:1] = 2 is reserved" in text


def test_reserved_bits_are_said() -> None:
    assert "illegal: RES0 bits set: 5" in decode_words("l1ste", ["20"]).text()


def test_a_command_is_chosen_by_its_opcode() -> None:
    found = decode_words("command", ["0001000000000012", "00000000ffe00701"])
    assert type(found.value) is commands.CMD_TLBI_NH_VA
    assert line(found.text(), "TG").startswith("[75:74] TG 1(4KB)")
    assert line(found.text(), "Address").startswith("[127:76] Address 0xffe00000")


def test_cfgi_all_is_said_to_be_itself() -> None:
    assert decode_words("command", ["4", "1f"]).notes == ["this is CMD_CFGI_ALL"]
    assert decode_words("command", ["4", "1e"]).notes == []


@pytest.mark.parametrize(
    ("word", "what"), [("8f", "implementation defined"), ("0", "reserved"), ("90", "reserved"), ("47", "reserved")]
)
def test_an_unknown_opcode_is_said(word: str, what: str) -> None:
    found = decode_words("command", [word, "0"])
    assert type(found.value) is commands.Command
    assert found.notes == [f"opcode {int(word, 16):#04x} is {what}"]


def test_an_event_is_chosen_by_its_type() -> None:
    found = decode_words("event", ["0000000100000010", "0000020800000000", "ffe00000", "0"])
    assert type(found.value) is events.F_TRANSLATION
    assert line(found.text(), "SID").startswith("[63:32] SID 1")
    assert line(found.text(), "RnW").startswith("[99] RnW 1(read)")
    assert line(found.text(), "CLASS").startswith("[105:104] CLASS 2(IN)")
    assert line(found.text(), "InputAddr").startswith("[191:128] InputAddr 0xffe00000")


@pytest.mark.parametrize(("word", "what"), [("e3", "implementation defined"), ("f0", "reserved")])
def test_an_unknown_event_is_said(word: str, what: str) -> None:
    assert f"event type 0x{word} is {what}" in decode_words("event", [word, "0", "0", "0"]).notes


def test_a_pte_with_the_access_flag_is_taken_for_a_page_and_this_is_said() -> None:
    found = decode_words("pte", ["0060000047fe2f43"])
    assert found.name == "S1LeafDescriptor"
    assert any("taken for a page" in note for note in found.notes)
    assert "output 0x47fe2000" in found.notes


def test_a_pte_without_it_is_taken_for_a_table() -> None:
    found = decode_words("pte", ["0000000047fe2003"])
    assert found.name == "TableDescriptor"
    assert "next table 0x47fe2000" in found.notes


def test_a_given_level_settles_what_a_pte_is() -> None:
    found = decode_words("pte", ["47fe2003", "level=3"])
    assert found.name == "S1LeafDescriptor"
    assert found.notes == ["output 0x47fe2000"]
    assert decode_words("pte", ["47fe2403", "level=2"]).name == "TableDescriptor"


def test_a_block_shows_its_base_and_what_only_blocks_have() -> None:
    found = decode_words("pte", ["0060000040010f41", "level=2"])
    assert "output 0x40000000" in found.notes
    assert line(found.text(), "nT (block)").startswith("[16] nT (block) 1")
    assert "nT" not in decode_words("pte", ["0060000040010f43", "level=3"]).text()


def test_a_block_where_none_may_stand_is_invalid_and_this_is_said() -> None:
    found = decode_words("pte", ["40000401", "level=1", "granule=64k"])
    assert found.name == "InvalidDescriptor"
    assert found.notes == ["no block may stand at level 1; the descriptor counts as invalid"]


def test_a_stage_2_pte_shows_stage_2_fields() -> None:
    found = decode_words("pte", ["400007fd", "stage=2", "level=2"])
    assert found.name == "S2LeafDescriptor"
    assert line(found.text(), "MemAttr").startswith("[5:2] MemAttr 15(Normal oWB iWB)")
    assert line(found.text(), "S2AP").startswith("[7:6] S2AP 3(RW)")


def test_wide_ptes_show_the_upper_address_bits() -> None:
    found = decode_words("pte", ["000087654321a403", "level=3", "granule=64k", "wide=1"])
    assert "output 0xa876543210000" in found.notes
    assert line(found.text(), "OA_51_48 (64KB, 52-bit)").startswith("[15:12] OA_51_48 (64KB, 52-bit) 0xa")
    assert "OA_51_50 (LPA2)" in decode_words("pte", ["403", "level=3", "wide=1"]).text()


@pytest.mark.parametrize("name", ["CR1", "cr1", "SMMU_CR1", "ARM_SMMU_CR1", "28", "0x28"])
def test_a_register_is_found_by_name_or_offset(name: str) -> None:
    found = decode_words("register", [name, "0xd75"])
    assert found.value == registers.CR1(0xD75)
    assert line(found.text(), "TABLE_SH").startswith("[11:10] TABLE_SH 3(inner shareable)")


def test_linux_names_of_event_queue_registers_are_understood() -> None:
    assert decode_words("register", ["ARM_SMMU_EVTQ_BASE", "5"]).name == "EVENTQ_BASE"


def test_an_alias_on_page_0_leads_to_the_register_on_page_1() -> None:
    found = decode_words("register", ["a8", "5"])
    assert found.name == "EVENTQ_PROD"
    assert found.notes == ["offset of page 0; the register is on page 1"]


def test_the_offset_of_an_upper_half_leads_to_the_whole_register() -> None:
    found = decode_words("register", ["0x84", "45000000"])
    assert found.name == "STRTAB_BASE"
    assert found.notes == ["the upper half of the register; give the whole"]


def test_a_64_bit_register_may_be_given_in_two_halves() -> None:
    found = decode_words("register", ["CMDQ_BASE", "45000008", "40000000"])
    assert found.value == registers.CMDQ_BASE(0x4000_0000_4500_0008)


def test_a_failed_atos_request_shows_the_fault_form_and_a_good_one_does_not() -> None:
    failed = decode_words("register", ["GATOS_PAR", "0x101"]).text()
    assert line(failed, "FAULTCODE (FAULT=1)").startswith("[11:4] FAULTCODE (FAULT=1) 16(F_TRANSLATION)")
    assert "FAULTCODE" not in decode_words("register", ["GATOS_PAR", "0x47fe2000"]).text()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"register"}))
def test_all_zero_words_of_every_kind_can_be_shown(kind: str) -> None:
    found = decode_words(kind, ["0"])
    assert found.text()
    assert found.json()["raw"] == 0


@pytest.mark.parametrize("name", registers.BY_NAME)
def test_every_register_can_be_shown(name: str) -> None:
    assert decode_words("register", [name, "0"]).text().startswith(f"{name}: ")


def test_json_holds_what_the_text_says() -> None:
    found = decode_words("command", ["0fc03046"])
    data = json.loads(json.dumps(found.json()))
    assert (data["kind"], data["name"], data["section"]) == ("command", "CMD_SYNC", "4.7.3")
    assert data["words"] == ["0x000000000fc03046", "0x0000000000000000"]
    assert data["problems"] == ["CS[13:12] = 3 is reserved"]
    assert data["notes"] == ["1 of 2 words missing at the end, taken as 0"]
    fields = {entry["name"]: entry for entry in data["fields"]}
    assert list(fields) == [f.name for f in commands.CMD_SYNC.fields]
    assert fields["MSH"] == {
        "name": "MSH",
        "bits": "23:22",
        "value": 3,
        "text": "3(inner shareable)",
        "view": "",
        "doc": "Shareability of the MSI",
    }


@pytest.mark.parametrize(
    ("kind", "words", "mend"),
    [
        ("stee", ["0"], "did you mean 'ste'?"),
        ("comand", ["0"], "did you mean 'command'?"),
        ("xyzzy", ["0"], "use one of ste, cd,"),
        ("ste", [], "ste is 8 words of 64 bits and none was given"),
        ("cd", ["0"] * 9, "cd is 8 words of 64 bits, not 9"),
        ("command", ["0"] * 3, "command is 2 words of 64 bits, not 3"),
        ("event", ["0"] * 5, "event is 4 words of 64 bits, not 5"),
        ("l1ste", ["0", "0"], "l1ste is 1 word of 64 bits, not 2"),
        ("cd", ["zz"], "'zz' is no hexadecimal word; give words as 0x1f or 1f"),
        ("cd", ["-1"], "'-1' is no hexadecimal word"),
        ("cd", ["1" + 16 * "0"], "has more than 64 bits; give 64-bit words"),
        ("register", [], "by its name or offset and then its value"),
        ("register", ["CR0"], "CR0 is one value of 32 bits, not 0"),
        ("register", ["CR0", "1", "2"], "CR0 is one value of 32 bits, not 2"),
        ("register", ["CR0", "1ffffffff"], "CR0 has 32 bits and 1ffffffff has more"),
        ("register", ["CRO", "1"], "did you mean CR0?"),
        ("register", ["STRTAB_BAS", "1"], "did you mean STRTAB_BASE?"),
        ("register", ["qqqq", "1"], "give its name as in the architecture"),
        ("register", ["0x24c", "1"], "no register at 0x24c; the nearest is DPT_CFG_FAR at 0x210"),
        ("pte", ["1", "lvel=3"], "did you mean 'level'?"),
        ("pte", ["1", "level=4"], "level is one of 0, 1, 2, 3"),
        ("pte", ["1", "2"], "pte is 1 word of 64 bits, not 2"),
    ],
)
def test_wrong_use_is_one_sentence_that_says_the_mend(kind: str, words: list[str], mend: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode_words(kind, words)
    assert mend in str(caught.value)
    assert "\n" not in str(caught.value)
