# SPDX-License-Identifier: Apache-2.0
"""What a stock kernel does with features of the SMMU: its account and the host's, compared access by access.

The guest says what its CPU saw (facts of guest/kmod/vt_engine.c); the trace says what the driver and the SMMU did.
"""

from __future__ import annotations

import pytest

from tests.boot.guests import Way, all_passed
from tests.boot.linux import Boot, Boots, Fact, account, both_tell_the_same, bytes_are_the_same_on_both_sides
from tests.conftest import need_kernel
from vhost_iommu.config import load_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Wishes
from vhost_iommu.smmu.v3.registers import CR2, STRTAB_BASE_CFG
from vhost_iommu.smmu.v3.validity import StreamWorld
from vhost_iommu.trace import Record

PAGE = 4096
#: The same kernel module drives an engine behind each; they differ in how the driver must serve them.
UNLIKE = """
[guest]
kind = "linux"
[[smmu]]
name = "smmu0"
version = "3.2"
stream_id_bits = 16
[[smmu]]
name = "smmu1"
version = "3.1"
range_invalidation = false
stream_id_bits = 6
stream_table_levels = 1
[[master]]
name = "engine0"
kind = "engine"
smmu = "smmu0"
stream_ids = [0x1234]
[[master]]
name = "engine1"
kind = "engine"
smmu = "smmu1"
stream_ids = [0x21]
"""
STALLING = (
    load_machine("smmuv3-pasid")
    .path.read_text()
    .replace("[[master]]", 'stall_model = "both"\nstall_watchdog = 0.2\n[[master]]', 1)
    + "can_stall = true\n"
)
MACHINES = {"unlike": UNLIKE, "stalling": STALLING}


@pytest.fixture(scope="module")
def boots(assets: Assets) -> Boots:
    need_kernel(assets, "6.12")
    return Boots(assets, MACHINES)


PASID, STAGE2, EL2 = "smmuv3-pasid", "smmuv3-stage2", "smmuv3-el2"
LAZY, PASSTHROUGH = "smmuv3-pasid iommu.strict=0", "smmuv3-pasid iommu.passthrough=1"


def named_by(command: Record) -> set[int]:
    """The pages whose translations a TLBI by address drops."""
    args = {key: int(value) for key, value in command.args.items() if key != "result"}
    count = args["NUM"] + 1 << args["SCALE"] if args["TG"] else 1
    return {args["Address"] + page * PAGE for page in range(count)}


def pages(fact: Fact) -> set[int]:
    """The pages of the addresses that the guest tells of."""
    return set(range(fact["iova"], fact["iova"] + fact["bytes"], PAGE))


# -- everywhere ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "way"),
    [*((name, Way.USERS) for name in (PASID, LAZY, PASSTHROUGH, STAGE2, EL2, "unlike")), (PASID, Way.REFERENCE)],
)
def test_a_stock_kernel_sees_the_same_as_users_run_it(boots: Boots, name: str, way: Way) -> None:
    boot, traced = boots.of(name, way), boots[name]
    all_passed(boot.report)
    bytes_are_the_same_on_both_sides(boot)
    assert [result.name for result in boot.report.results] == [result.name for result in traced.report.results]
    assert account(boot) == account(traced)
    assert boot.ktap.facts("events") == traced.ktap.facts("events"), "the kinds of which its driver was told"
    for smmu, told in boot.told.items():
        for each in ("faults", "events", "events_lost", "stalls", "command_errors"):
            assert told[each] == traced.told[smmu][each], each
        assert told["commands"] > told["syncs"] > 0


@pytest.mark.parametrize("name", [PASID, LAZY, PASSTHROUGH, STAGE2, EL2, "unlike"])
def test_host_and_guest_tell_the_same_of_every_access(boots: Boots, name: str) -> None:
    boot = boots[name]
    all_passed(boot.report)
    both_tell_the_same(boot)


#: What a kernel before 6.11 cannot do.
WITH_PASIDS = (
    "engine0_keeps_pasids_apart",
    "engine0_streams_while_pasids_change",
    "engine0_bypassed_keeps_pasids_apart",
    "engine0_bypassed_streams_while_pasids_change",
    "engine0_strict_revokes_pasids",
)


@pytest.mark.parametrize(("kernel", "skipped"), [("6.1", WITH_PASIDS), ("7", ()), ("7-16k", ()), ("6.12-small", ())])
def test_host_and_guest_tell_the_same_whichever_kernel_it_is(
    assets: Assets, kernel: str, skipped: tuple[str, ...]
) -> None:
    need_kernel(assets, kernel)
    boot = Boot(assets, PASID, Wishes(kernel=kernel), Way.TRACED)
    all_passed(boot.report, *skipped)
    both_tell_the_same(boot)
    why = {result.skipped for result in boot.report.results} - {None}
    assert why == ({"this kernel attaches no domain to a PASID"} if skipped else set())
    events = "0x10" if skipped else "0x08,0x0a,0x10"
    assert boot.ktap.facts("events") == [{"": events}], "its driver was told of what the cases made"


# -- PASIDs --------------------------------------------------------------------------------------------------------


def test_an_address_means_three_memories_by_pasid(boots: Boots) -> None:
    facts = boots[PASID].facts("engine0_keeps_pasids_apart", "wrote")
    assert [fact["pasid"] for fact in facts] == [1, 2, -1]
    assert len({fact["iova"] for fact in facts}) == 1
    assert len({fact["pa"] for fact in facts}) == 3
    assert len({fact["crc32"] for fact in facts}) == 3


@pytest.mark.parametrize(
    ("name", "case"),
    [(PASID, "engine0_bypassed_keeps_pasids_apart"), (PASSTHROUGH, "engine0_keeps_pasids_apart")],
)
def test_pasids_are_translated_while_the_stream_itself_is_bypassed(boots: Boots, name: str, case: str) -> None:
    *pasids, own = boots[name].facts(case, "wrote")
    assert own["pasid"] == -1
    assert own["pa"] == own["iova"]
    assert [fact["pasid"] for fact in pasids] == [1, 2]
    assert all(fact["pa"] != fact["iova"] == own["iova"] for fact in pasids)


def test_a_revoked_pasid_ends_as_the_event_of_its_cause(boots: Boots) -> None:
    boot = boots[PASID]
    case = "engine0_strict_revokes_pasids"
    events = [(event.name, event.args["SSID"]) for event in boot.faults(case)]
    assert events == [
        ("F_TRANSLATION", 1),  # its page unmapped
        ("C_BAD_CD", 1),  # detached
        ("F_TRANSLATION", 1),  # one unmap for both that share the domain
        ("F_TRANSLATION", 2),
        ("C_BAD_CD", 3),  # never attached
        ("C_BAD_SUBSTREAMID", 256),  # more than its 8 bits
    ]
    assert [fact["pasid"] for fact in boot.facts(case, "aborted")] == [ssid for _, ssid in events]
    assert boot.report.ktap.facts("events") == [{"": "0x08,0x0a,0x10"}], "the guest's driver was told of all"


def test_pasids_that_share_a_domain_share_its_invalidations(boots: Boots) -> None:
    boot = boots[PASID]
    case = "engine0_strict_revokes_pasids"
    unmapped = [pages(fact) for fact in boot.facts(case, "unmapped")]
    dropped = [each for each in boot.commands(case) if each.name == "CMD_TLBI_NH_VA"]
    assert [named_by(each) for each in dropped] == unmapped
    assert len({each.args["ASID"] for each in dropped}) == len(unmapped) == 2


def test_a_pasid_is_detached_by_its_own_context_descriptor(boots: Boots) -> None:
    commands = boots[PASID].commands("engine0_strict_revokes_pasids")
    named = [each.args["SSID"] for each in commands if each.name == "CMD_CFGI_CD"]
    assert {1, 2} <= set(named)
    assert all(each.args["SID"] == 0x30 for each in commands if each.name == "CMD_CFGI_CD")


@pytest.mark.parametrize(
    ("case", "rewritten"),
    [
        ("engine0_streams_while_pasids_change", "CMD_CFGI_CD"),
        ("engine0_bypassed_streams_while_pasids_change", "CMD_CFGI_STE"),
    ],
)
def test_accesses_never_see_tables_half_written(boots: Boots, case: str, rewritten: str) -> None:
    boot = boots[PASID]
    (streamed,) = boot.facts(case, "streamed")
    commands = [each.name for each in boot.commands(case)]
    assert commands.count(rewritten) >= 2 * streamed["changes"] >= 32, "to attach and to detach"
    assert boot.faults(case) == []


# -- stalls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [Way.USERS, Way.TRACED])
def test_a_stall_that_a_stock_kernel_never_answers_is_told_of_and_ends_with_the_machine(
    boots: Boots, caplog: pytest.LogCaptureFixture, way: Way
) -> None:
    boot = boots.of("stalling", way)
    all_passed(boot.report)
    (fact,) = boot.facts("engine0_strict_stalls_for_good", "stalled")
    assert [text for text in caplog.messages if "no CMD_RESUME: read of StreamID 0x30" in text]
    assert (boot.smmu.counters.stalls, boot.smmu.counters.events) == (1, 1)
    assert boot.report.ktap.facts("events") == [{"": "0x10"}]
    if way is Way.TRACED:
        faults = {each.name: each for each in boot.faults()}
        stalled, told = faults["F_TRANSLATION"], faults["not resumed"]
        assert (stalled.args["STALL"], stalled.args["InputAddr"]) == (1, fact["iova"])
        assert told.args["STAG"] == stalled.args["STAG"]
        assert not [each for each in boot.commands() if each.name in ("CMD_RESUME", "CMD_STALL_TERM")]


# -- invalidation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tlbi"), [(PASID, "CMD_TLBI_NH_VA"), (STAGE2, "CMD_TLBI_S2_IPA")])
def test_a_strict_kernel_invalidates_each_page_as_it_is_unmapped(boots: Boots, name: str, tlbi: str) -> None:
    boot = boots[name]
    case = "engine0_strict_loses_what_is_unmapped"
    unmapped = [pages(fact) for fact in boot.facts(case, "unmapped")]
    dropped = [named_by(each) for each in boot.commands(case) if each.name == tlbi]
    assert [named for named in dropped if named & set().union(*unmapped)][: len(unmapped)] == unmapped
    assert [event.name for event in boot.faults(case)] == ["F_TRANSLATION"], "the first access afterwards"


@pytest.mark.parametrize(
    ("name", "tlbi", "flush"),
    [
        (PASID, "CMD_TLBI_NH_VA", "CMD_TLBI_NH_ASID"),
        (LAZY, "CMD_TLBI_NH_VA", "CMD_TLBI_NH_ASID"),
        (STAGE2, "CMD_TLBI_S2_IPA", "CMD_TLBI_S12_VMALL"),
    ],
)
def test_a_lazy_kernel_drops_all_at_once_and_later(boots: Boots, name: str, tlbi: str, flush: str) -> None:
    boot = boots[name]
    case = "engine0_lazy_loses_what_is_unmapped"
    first, end = boot.spans[case]
    abort = next(n for n in range(first, end) if boot.trace.records[n].args.get("outcome") == "abort")
    before = boot.commands(case, end=abort)
    unmapped = set().union(*map(pages, boot.facts(case, "unmapped")))
    assert unmapped
    assert not [each for each in before if each.name == tlbi and named_by(each) & unmapped]
    assert flush in {each.name for each in before}


def test_a_strict_and_a_lazy_command_line_differ_in_what_is_invalidated(boots: Boots) -> None:
    case = "engine0_fills_scattered_pages"
    by_page = {
        name: [each for each in boots[name].commands(case) if each.name == "CMD_TLBI_NH_VA"] for name in (PASID, LAZY)
    }
    assert by_page[PASID]
    assert by_page[LAZY] == []
    strict, lazy = (boots[name].smmus["smmu0"].tlb.counters for name in (PASID, LAZY))
    assert strict.invalidated > 0
    assert lazy.invalidated > 0
    assert {fact["type"] for fact in boots[LAZY].report.ktap.facts("group")} == {"identity", "DMA-FQ", "DMA"}


def test_range_invalidation_names_many_pages_at_once_and_without_it_each_is_named(boots: Boots) -> None:
    boot = boots["unlike"]
    dropped = {}
    for smmu, engine in (("smmu0", "engine0"), ("smmu1", "engine1")):
        case = f"{engine}_fills_scattered_pages"
        (unmapped,) = boot.facts(case, "unmapped")
        wanted = pages(unmapped)
        assert len(wanted) == 37
        found = [each for each in boot.commands(case, smmu) if each.name == "CMD_TLBI_NH_VA"]
        dropped[smmu] = [each for each in found if named_by(each) & wanted]
        assert set().union(*map(named_by, dropped[smmu])) == wanted
        gone = boot.facts(f"{engine}_strict_loses_all_of_a_range", "aborted")
        assert [fact["iova"] for fact in gone] == sorted(fact["iova"] for fact in gone)
        assert len(gone) == 5
    assert all(each.args["TG"] == 1 for each in dropped["smmu0"])
    assert len(dropped["smmu0"]) <= 3
    assert all(each.args["TG"] == 0 for each in dropped["smmu1"])
    assert len(dropped["smmu1"]) == 37


# -- tables and stages ---------------------------------------------------------------------------------------------


def test_a_driver_takes_two_level_stream_tables_where_there_are_and_else_linear_ones(boots: Boots) -> None:
    boot = boots["unlike"]
    configured = {
        record.track: STRTAB_BASE_CFG(int(record.args["value"]))
        for record in boot.trace.records
        if record.kind == "mmio" and record.name == "write STRTAB_BASE_CFG"
    }
    assert configured["smmu0"].FMT == 1
    assert configured["smmu1"].FMT == 0
    assert configured["smmu1"].LOG2SIZE == 6
    streams = {(each.track, each.args["sid"]) for each in boot.trace.records if each.kind == "translation"}
    assert streams == {("smmu0", 0x1234), ("smmu1", 0x21)}


def test_a_passed_through_stream_is_not_translated(boots: Boots) -> None:
    boot = boots[PASSTHROUGH]
    assert boot.report.ktap.facts("group")[0]["type"] == "identity", "it is from the start"
    first, end = boot.spans["engine0_copies_coherent_memory"][0], boot.spans["engine0_switches_domains"][0]
    translations = [each.args for each in boot.trace.records[first:end] if each.kind == "translation"]
    assert len(translations) > 37, "the pages of the last of the cases"
    assert all(args["pa"] == args["iova"] for args in translations)


def test_without_stage_1_all_is_translated_by_stage_2(boots: Boots) -> None:
    boot = boots[STAGE2]
    smmu = boot.smmus["smmu0"]
    assert smmu.tlb.counters.hits + smmu.tlb.counters.misses == 0
    assert smmu.tlb2.counters.hits > 0
    names = {each.name for each in boot.commands()}
    assert {"CMD_TLBI_S2_IPA", "CMD_TLBI_S12_VMALL"} <= names
    assert not {name for name in names if name.startswith(("CMD_TLBI_NH_", "CMD_CFGI_CD"))}
    assert all(event.args["S2"] == 1 and event.args["IPA"] == event.args["InputAddr"] for event in boot.faults())
    assert len({each.args["VMID"] for each in boot.commands() if each.name == "CMD_TLBI_S2_IPA"}) > 2, (
        "one for each domain"
    )


def test_a_kernel_at_el2_has_streams_of_el2(boots: Boots) -> None:
    boot = boots[EL2]
    assert boot.smmu.registers[CR2].E2H == 1
    named = {each.name for each in boot.commands()}
    assert {"CMD_TLBI_EL2_ALL", "CMD_TLBI_EL2_ASID", "CMD_TLBI_EL2_VA"} <= named
    assert not {name for name in named if name.startswith(("CMD_TLBI_NH_", "CMD_TLBI_S2_", "CMD_TLBI_S12_"))}
    case = "engine0_strict_loses_what_is_unmapped"
    unmapped = [pages(fact) for fact in boot.facts(case, "unmapped")]
    dropped = [named_by(each) for each in boot.commands(case) if each.name == "CMD_TLBI_EL2_VA"]
    assert [named for named in dropped if named & set().union(*unmapped)][: len(unmapped)] == unmapped
    assert {each.args["ASID"] for each in boot.commands() if each.name == "CMD_TLBI_EL2_VA"} > {1}, "PASIDs have others"
    assert {space.world for space, _ in boot.smmu.tlb} == {StreamWorld.NS_EL2_E2H}


def test_a_domain_of_one_smmu_is_refused_to_a_device_behind_another(boots: Boots) -> None:
    boot = boots["unlike"]
    for engine in ("engine0", "engine1"):
        (note,) = (note for note in boot.result(f"{engine}_refuses_a_foreign_domain").notes if "foreign" in note)
        assert note.endswith("gives -22")


def test_a_domain_attached_to_a_device_replaces_the_one_before(boots: Boots) -> None:
    for name in (PASID, STAGE2):
        facts = boots[name].facts("engine0_switches_domains", "wrote")
        one, other, default = facts[0]["pa"], facts[2]["pa"], facts[1]["pa"]
        assert [fact["pa"] for fact in facts] == [one, default, other, default] * 3
        assert len({one, other, default}) == 3
