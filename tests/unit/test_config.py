# SPDX-License-Identifier: Apache-2.0
"""Machine files: what they may say, and the sentence for what they may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vhost_iommu.config import (
    BlockOptions,
    EngineOptions,
    MachineConfig,
    Options,
    Size,
    check_kernel,
    load_machine,
    machine_names,
    parse_machine,
)
from vhost_iommu.errors import UsageError
from vhost_iommu.smmu.v3 import Features

GUEST = '[guest]\nkind = "linux"\n'
SMMU = '[[smmu]]\nname = "smmu0"\n'
ENGINE = '[[master]]\nname = "engine0"\nkind = "engine"\nsmmu = "smmu0"\nstream_ids = [1]\n'
DISK = '[[master]]\nname = "disk0"\nkind = "virtio-blk"\nsmmu = "smmu0"\nstream_ids = [2]\n'


def parsed(text: str) -> MachineConfig:
    return parse_machine(text, "x", Path("qemu-configs/x.toml"))


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("name", machine_names())
def test_each_machine_file_makes_sense_and_describes_itself(name: str) -> None:
    machine = load_machine(name)
    assert machine.name == name
    assert machine.description
    assert machine.masters


def test_the_three_machines_of_the_manual_are_there() -> None:
    assert {"smmuv3-bare", "smmuv3-linux", "two-smmus"} <= set(machine_names())


def test_the_two_smmus_are_unlike_and_both_have_a_disk() -> None:
    machine = load_machine("two-smmus")
    one, other = machine.smmus
    assert one.traits.granules != other.traits.granules
    assert one.traits.stream_id_bits != other.traits.stream_id_bits
    assert one.interrupts != other.interrupts
    for key in ("oas", "stream_table_levels"):
        assert one.features[key] != other.features[key]
    for function in machine.functions:
        assert [master.kind for master in function.masters] == ["virtio-blk"]


def test_a_file_may_be_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GUEST + SMMU)
    assert load_machine(path).name == "mine"
    assert load_machine(str(path)).smmu("smmu0").model == "smmuv3"


def test_sizes_may_have_units_and_numbers_may_be_hex() -> None:
    machine = parsed(
        '[guest]\nkind = "linux"\nmemory = "1G"\n' + SMMU + DISK.replace("[2]", "[0x2a]") + 'size = "8K"\n'
    )
    assert machine.guest.memory == 1 << 30
    (disk,) = machine.masters
    assert disk.stream_ids == (0x2A,)
    assert isinstance(disk.options, BlockOptions)
    assert disk.options.size == 8192


def test_a_disk_is_memory_of_some_size_or_a_file_of_its_own() -> None:
    def disk(lines: str) -> Options:
        return parsed(GUEST + SMMU + DISK + lines).masters[0].options

    assert disk("") == BlockOptions(size=Size(16 << 20))
    assert disk('size = "1M"') == BlockOptions(size=Size(1 << 20))
    assert disk('image = "a"') == BlockOptions(size=None, image="a")
    assert disk('image = "a"\nread_only = true') == BlockOptions(size=None, image="a", read_only=True)
    assert disk('image = "a"\nsize = 512\ncreate = true') == BlockOptions(size=Size(512), image="a", create=True)


@pytest.mark.parametrize(
    ("lines", "mend"),
    [
        ("create = true", "name it in 'image' or leave it out"),
        ('image = "a"\ncreate = true', "say it in 'size'"),
        ('image = "a"\nsize = "1M"\ncreate = true\nread_only = true', "leave out one of the two"),
        ("size = 513", "make 'size' n times 512"),
        ("size = 0", "make 'size' n times 512"),
    ],
)
def test_a_disk_that_cannot_be_made_as_it_says_is_refused(lines: str, mend: str) -> None:
    assert mend in refusal(GUEST + SMMU + DISK + lines)


def test_a_bare_size_is_bytes() -> None:
    assert parsed('[guest]\nkind = "linux"\nmemory = 4194304\n' + SMMU).guest.memory == 4 << 20


def test_interrupts_follow_the_features_unless_named() -> None:
    assert parsed(GUEST + SMMU).smmus[0].interrupts == "msi"
    assert parsed(GUEST + SMMU + "msi = false\n").smmus[0].interrupts == "wired"
    assert parsed(GUEST + SMMU + 'interrupts = "wired"\n').smmus[0].interrupts == "wired"


def test_id_registers_outweigh_features() -> None:
    smmu = parsed(
        GUEST + SMMU + "[smmu.id_registers]\nIDR1 = 0x00000005\nIDR5 = 0x14\nIDR0 = 0x2\nMPAMIDR = 0x3003f\n"
    ).smmus[0]
    assert smmu.traits.stream_id_bits == 5
    assert smmu.traits.granules == ("4K",)
    assert smmu.interrupts == "wired"
    assert "below 0x20" in refusal(
        GUEST + SMMU + "[smmu.id_registers]\nIDR1 = 0x00000005\n" + ENGINE.replace("[1]", "[32]")
    )


def test_the_engines_cache_of_translations_is_an_option() -> None:
    def options(lines: str) -> Options:
        return parsed(GUEST + SMMU + ENGINE + lines).masters[0].options

    assert options("") == EngineOptions(64, "complete")
    assert options('atc_entries = 0\natc_invalidations = "time-out"\n') == EngineOptions(0, "time-out")
    for wrong in ("atc_entries = -1", "atc_entries = 4097"):
        assert "make it 0 to 4096" in refusal(GUEST + SMMU + ENGINE + wrong)
    assert '"complete", "hold", "time-out"' in refusal(GUEST + SMMU + ENGINE + 'atc_invalidations = "never"')


def test_stalls_are_features_and_the_watchdog_takes_seconds() -> None:
    smmu = parsed(GUEST + SMMU + 'stall_model = "both"\nstall_max = 7\nstall_watchdog = 2\n').smmus[0]
    made = Features(**smmu.features)
    assert (made.stall_model, made.stall_max) == ("both", 7)
    assert smmu.stall_watchdog == 2.0
    assert parsed(GUEST + SMMU).smmus[0].stall_watchdog == 5.0
    assert parsed(GUEST + SMMU + "stall_watchdog = 0.25\n").smmus[0].stall_watchdog == 0.25


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    assert refusal(GUEST + SMMU + "granulez = 1\n") == (
        "qemu-configs/x.toml: [[smmu]] 'granulez' is not a key here; did you mean 'granules'?"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("smmus = 1\n" + GUEST + SMMU, "'smmus' is not a key here; did you mean 'smmu'?"),
        (GUEST + "memroy = 1\n" + SMMU, "[guest] 'memroy' is not a key here; did you mean 'memory'?"),
        (GUEST + SMMU + ENGINE + "size = 1\n", "[[master]] 'size' is not a key here"),
        (GUEST + SMMU + DISK + "sise = 1\n", "[[master]] 'sise' is not a key here; did you mean 'size'?"),
        (GUEST + SMMU + "[smmu.id_registers]\nIDR9 = 1\n", "[smmu.id_registers] 'IDR9' is not a key here"),
        (GUEST + SMMU + 'oas = "big"\n', "[[smmu]] 'oas' is a whole number, not 'big'"),
        (GUEST + SMMU + "oas = true\n", "[[smmu]] 'oas' is a whole number, not true"),
        (GUEST + SMMU + "msi = 1\n", "[[smmu]] 'msi' is true or false, not 1"),
        (GUEST + SMMU + "stall_watchdog = true\n", "[[smmu]] 'stall_watchdog' is a number, not true"),
        (GUEST + SMMU + "stall_watchdog = -1\n", "[[smmu]] 'stall_watchdog' is in seconds; make it 0 to 86400"),
        (GUEST + SMMU + "stall_watchdog = nan\n", "[[smmu]] 'stall_watchdog' is in seconds; make it 0 to 86400"),
        (GUEST + SMMU + 'granules = "4K"\n', "[[smmu]] 'granules' is a list, each a text in quotes, not '4K'"),
        (GUEST + SMMU + "granules = [4]\n", "[[smmu]] 'granules' is a list, each a text in quotes, not [4]"),
        (GUEST + SMMU + 'interrupts = "x"\n', '[[smmu]] \'interrupts\' is one of "msi", "wired", "line", not \'x\''),
        (GUEST + SMMU + "[smmu.id_registers]\nIDR0 = 0x100000000\n", "'IDR0' is a register of 32 bits"),
        ('[guest]\nkind = "bsd"\n' + SMMU, "[guest] 'kind' is one of \"linux\", \"bare\", not 'bsd'"),
        (GUEST + 'memory = "lots"\n' + SMMU, "[guest] 'memory' is a size like \"512M\", not 'lots'"),
        (GUEST + 'memory = "0M"\n' + SMMU, "[guest] 'memory' is no memory at all"),
        (GUEST + 'memory = "100K"\n' + SMMU, "[guest] 'memory' is not in whole MiB"),
        (GUEST + "smp = 0\n" + SMMU, "[guest] 'smp' is the number of CPUs"),
        (GUEST + "virtualization = true\n" + SMMU, "'virtualization' begins the guest at EL2, and no SMMU has"),
        (GUEST + "virtualization = true\n" + SMMU + "[smmu.id_registers]\nIDR0 = 0x3\n", "set hyp and stage2"),
        (GUEST + "timeout = 0\n" + SMMU, "[guest] 'timeout' is in seconds"),
        ('[guest]\nkind = "bare"\n' + SMMU, "[guest] a bare guest runs a program; name it in 'elf'"),
        ("[guest]\n" + SMMU, '[guest] \'kind\' is missing; it is one of "linux", "bare"'),
        ("guest = 1\n" + SMMU, "[guest] is a table"),
        (SMMU, "a machine has one [guest] table"),
        (GUEST, "add an [[smmu]] table"),
        (GUEST + "[smmu]\nname = 'a'\n", "[smmu] may be there several times; write it [[smmu]]"),
        (GUEST + "[[smmu]]\noas = 44\n", "[[smmu]] 'name' is missing"),
        (GUEST + '[[smmu]]\nname = "A b"\n', "'A b' is not of small letters"),
        (GUEST + SMMU + SMMU, "two parts are named 'smmu0'"),
        (GUEST + SMMU + ENGINE + ENGINE, "two parts are named 'engine0'"),
        (GUEST + SMMU + ENGINE.replace('"smmu0"', '"smmu1"'), "is behind 'smmu1', which is not here; did you mean"),
        (GUEST + SMMU + ENGINE.replace("[1]", "[]"), "has no StreamID; give it 'stream_ids'"),
        (GUEST + SMMU + ENGINE.replace('smmu = "smmu0"\n', ""), "has 'stream_ids' but no SMMU"),
        (GUEST + SMMU + ENGINE + DISK.replace("[2]", "[1]"), "engine0 and disk0 both claim StreamID 0x1 of smmu0"),
        (GUEST + SMMU + ENGINE.replace("[1]", "[1, 1]"), "engine0 names a StreamID twice"),
        (GUEST + SMMU + ENGINE.replace("[1]", "[-1]"), "has StreamID -0x1"),
        (GUEST + SMMU + "stream_id_bits = 4\n" + ENGINE.replace("[1]", "[16]"), "choose one below 0x10"),
        (GUEST + SMMU + ENGINE + "pasid_bits = 1\n", "raise 'substream_id_bits'"),
        (GUEST + SMMU + "substream_id_bits = 8\n" + ENGINE + "pasid_bits = 9\n", "engine0 has 9 bits of PASIDs"),
        (GUEST + SMMU + ENGINE + "pasid_bits = -1\n", "engine0 has -1 bits of PASIDs"),
        (GUEST + SMMU + 'msi = false\ninterrupts = "msi"\n', "smmu0 cannot send MSIs; set msi = true"),
        (GUEST + SMMU + 'interrupts = "line"\n', "'interrupts' of an smmuv3 is one of msi, wired, not 'line'"),
        (GUEST + SMMU + 'model = "smmuv2"\ninterrupts = "msi"\n', "of an smmuv2 is one of line, wired, not 'msi'"),
        (GUEST + SMMU + "oas = 33\n", "oas"),
        (GUEST + 'page_size = "4K"\n' + SMMU + 'granules = ["64K"]\n', "walks tables of 64K only"),
        ("[guest", "this is not TOML"),
    ],
)
def test_what_cannot_work_is_refused_with_the_place_and_the_mend(text: str, sentence: str) -> None:
    found = refusal(text)
    assert found.startswith("qemu-configs/x.toml: ")
    assert sentence in found


def test_two_smmus_may_know_the_same_stream_id() -> None:
    other = '[[smmu]]\nname = "smmu1"\n' + DISK.replace("smmu0", "smmu1").replace("[2]", "[1]")
    assert len(parsed(GUEST + SMMU + ENGINE + other).masters) == 2


def test_a_kernel_whose_page_size_an_smmu_lacks_is_refused_when_it_is_known() -> None:
    machine = parsed(GUEST + SMMU + 'granules = ["4K", "64K"]\n')
    check_kernel(machine, 4096)
    check_kernel(machine, 65536)
    with pytest.raises(UsageError, match="smmu0 walks tables of 4K and 64K only, and a kernel with pages of 16K"):
        check_kernel(machine, 16384)


def test_a_wrong_name_says_which_machines_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no machine 'smmuv3-linix'; did you mean 'smmuv3-linux'"):
        load_machine("smmuv3-linix")
    with pytest.raises(
        UsageError, match=r"nothing\.toml is no file; name one that is there, or one of mixed, msm-bare"
    ):
        load_machine(tmp_path / "nothing.toml")


def test_a_file_that_is_no_text_is_the_operators_mistake(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        load_machine(path)
