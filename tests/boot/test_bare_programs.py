# SPDX-License-Identifier: Apache-2.0
"""What software sees of an SMMUv3: bare-metal programs judge it from inside, and the models' own account agrees.

Law: a program states bit positions by hand, so its records and the trace's, which the declarations make, are two
witnesses of one event. Each program runs as users run it, traced, and on the reference, and sees the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import pytest

from tests.boot.guests import Run, Way, all_passed, bare
from vhost_iommu.config import MachineConfig, load_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.launch import Wishes
from vhost_iommu.smmu.v3 import events

EVERYTHING = "smmuv3-everything-bare"
SPLIT = "stage2 = true\nsubstream_id_bits = 2\nats = "
CONFLICTS = "tlb_conflicts = true\nconfiguration_conflicts = true\n"
#: Each program with a machine that has all that it tests.
PROGRAMS: dict[str, str | MachineConfig] = {
    **dict.fromkeys(("events", "commands", "stall", "httu", "nested", "pasid", "ats"), EVERYTHING),
    "ats_split": bare("ats_split", f'{SPLIT}"split"'),
    "conflicts": bare("conflicts", f"{CONFLICTS}stage2 = true\nbbm_level = 0"),
}


@lru_cache(maxsize=3 * len(PROGRAMS))
def of(assets: Assets, program: str, way: Way = Way.USERS) -> Run:
    """The program on the machine that is made for it, run once for all tests that ask."""
    return Run(assets, PROGRAMS[program], Wishes(elf=program), way)


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_software_sees_is_what_the_specification_says(assets: Assets, program: str, way: Way) -> None:
    all_passed(of(assets, program, way).report)


@pytest.mark.parametrize("way", [Way.TRACED, Way.REFERENCE])
@pytest.mark.parametrize("program", PROGRAMS)
def test_software_sees_the_same_on_each_way(assets: Assets, program: str, way: Way) -> None:
    users, other = of(assets, program), of(assets, program, way)
    assert [result.name for result in users.report.results] == [result.name for result in other.report.results]
    assert users.ktap.notes == other.ktap.notes, "each event, and what a TLB still held, word for word"
    assert users.told == other.told


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_events_that_software_reads_are_those_that_the_model_made(assets: Assets, program: str) -> None:
    run = of(assets, program, Way.TRACED)
    assert run.seen
    made = iter(run.events)  # those that were lost, or that nobody read, are left out
    assert [event for event in run.seen if event not in made] == []
    assert len(run.seen) <= run.smmu.counters.events <= len(run.events)


def test_the_programs_come_to_every_event(assets: Assets) -> None:
    seen = {name for program in PROGRAMS for name, _ in of(assets, program).seen}
    assert {kind.__name__ for kind in events.EVENTS.values()} - seen == set()


def test_a_program_that_is_entered_at_el2_sees_the_same(assets: Assets) -> None:
    machine = load_machine(EVERYTHING)
    machine = replace(machine, guest=replace(machine.guest, virtualization=True))
    run = Run(assets, machine, Wishes(elf="events"))
    all_passed(run.report)
    assert run.ktap.notes == of(assets, "events").ktap.notes


@pytest.mark.parametrize("way", Way)
def test_events_that_find_no_room_are_counted(assets: Assets, way: Way) -> None:
    run = Run(assets, EVERYTHING, Wishes(elf="events", append="cases=a_full_queue_overflows"), way)
    all_passed(run.report)
    assert (run.smmu.counters.events, run.smmu.counters.events_lost) == (9, 3)
    if way is Way.TRACED:
        assert len(run.events) == 12


def test_each_stall_is_answered_and_none_is_left(assets: Assets) -> None:
    run = of(assets, "stall")
    assert run.smmu.counters.stalls >= 40
    assert run.smmu.counters.events_lost == 0
    assert len(run.smmu.stalls) == 0
    told = [values for _, values in run.seen if values.get("STALL")]
    # Those that nobody could be told of stall again when there is room, and those of retries too.
    assert 30 <= len(told) <= run.smmu.counters.stalls


def test_an_invalidation_drops_what_it_names_and_nothing_else(assets: Assets) -> None:
    found = [
        (fact["other"], fact["translates"])
        for program in ("commands", "nested", "pasid", "ats")
        for fact in of(assets, program).ktap.facts("stale")
    ]
    assert found == [
        (other, "1")
        for other in (
            *("asid", "va_asid", "va", "range"),
            *("ipa_vmid", "vmid", "ipa", "stage1", "nested_va", "nested_asid", "nested_all", "nested_vmid"),
            *("ssid0", "ssid7"),
            *("atc", "atc_page") * 3,
        )
    ]


#: Of "commands", those that make no transaction, which only stalls where stalls are forced.
WITHOUT_DMA = (
    "commands_of_features_that_are_there_are_consumed",
    "commands_of_features_that_are_absent_are_illegal",
    "unknown_opcodes_are_illegal",
    "reserved_values_are_illegal",
)
STAGE2 = "stage2 = true\nhyp = true"
#: The cases that need what a machine may be without.
NEED_0X41 = ["a_streamid_beyond_the_table_is_bad", "a_bad_streamid_is_silent_without_recinvsid",
             "two_level_spans_bound_streamids", "unreadable_levels_are_f_ste_fetch"]  # fmt: skip
NEED_MSI = ["sync_signals_by_a_write_to_memory", "sync_signals_into_its_own_entry", "sync_can_interrupt",
            "an_aborted_sync_msi_is_a_global_error", "a_global_error_interrupts",
            "an_aborted_error_msi_is_one_error_more"]  # fmt: skip
NEED_TWO_LEVELS = ["two_levels_lead_to_each_substream", "a_leaf_that_is_not_there_is_c_bad_substreamid",
                   "unreadable_levels_are_f_cd_fetch", "leaves_can_be_of_64k"]  # fmt: skip
NEED_DIRTY = ["a_write_makes_a_clean_page_dirty", "a_read_only_page_stays_so", "without_hd_dbm_means_nothing",
              "a_write_that_is_refused_makes_nothing_dirty", "a_block_is_updated_as_a_page_is",
              "stage_2_has_flags_and_dirty_state_of_its_own", "without_s2ha_and_s2hd_stage_2_faults",
              "a_walk_of_stage_1_is_an_access_to_stage_2", "an_update_of_stage_1_is_a_write_to_stage_2"]  # fmt: skip
NEED_MORE_THAN_STAGES = ["an_unreadable_vms_is_f_vms_fetch", "s1dss_1_leaves_stage_2_alone",
                         "each_stage_stalls_for_itself"]  # fmt: skip
NEED_PRI = ["a_page_request_is_answered_by_a_page", "a_page_request_interrupts", "a_page_request_says_what_is_wanted",
            "an_overflow_answers_success_and_queues_nothing", "a_queue_that_is_off_answers_failure",
            "an_unwritable_queue_is_priq_abt_err"]  # fmt: skip
NEED_SPLIT = ["stage_2_translates_what_the_engine_keeps", "stage_1_is_kept_until_the_engine_is_told",
              "what_stage_2_denies_is_denied_by_the_request_too",
              "without_atschk_there_is_no_split_stage_ats"]  # fmt: skip
NEED_PASIDS = ["each_pasid_has_translations_of_its_own", "an_invalidation_names_its_pasids"]
NEED_STALLS = ["stalls_are_answered_one_by_one_in_any_order", "stall_term_aborts_all_of_one_stream",
               "turning_translation_off_aborts_all", "a_full_queue_loses_no_stall",
               "a_stall_that_was_not_told_is_retried_first"]  # fmt: skip
NEED_STAGE_2 = ["a_conflict_of_stage_2_tells_the_ipa"]
NEED_SIZES_TO_CONFLICT = ["a_page_and_its_block_are_f_tlb_conflict", "a_block_with_nt_is_borne_at_level_1",
                          *NEED_STAGE_2]  # fmt: skip


@pytest.mark.parametrize(
    ("features", "absent", "skipped"),
    [
        ("", 11, []),
        (STAGE2, 5, []),
        (f'{STAGE2}\nstall_model = "both"\nats = "full"\npri = true', 1, []),
        ('version = "3.1"\nrange_invalidation = false\nstall_model = "stall"\nstage2 = true', 7, None),
        ('msi = false\ninterrupts = "wired"', 11, NEED_MSI),
    ],
)
def test_commands_are_legal_where_their_feature_is(
    assets: Assets, features: str, absent: int, skipped: list[str] | None
) -> None:
    append = "" if skipped is not None else f"cases={','.join(WITHOUT_DMA)}"
    machine, wishes = bare("commands", features), Wishes(append=append)
    users, run = Run(assets, machine, wishes), Run(assets, machine, wishes, Way.TRACED)
    for each in (users, run):
        all_passed(each.report, *(skipped or ()))
        assert each.ktap.facts("absent_commands") == [{"count": str(absent)}]
    assert users.told == run.told
    errors = Counter(record.args["result"] for record in run.traced("command"))
    assert set(errors) == {"CERROR_NONE", "CERROR_ILL"}
    unread = run.smmu.counters.command_errors - errors["CERROR_ILL"]  # CERROR_ABT: there was no command to trace
    assert unread == (2 if skipped is not None else 0)


@pytest.mark.parametrize(
    ("program", "features", "skipped"),
    [
        (
            "events",
            'version = "3.1"\noas = 40\nmsi = false\ninterrupts = "wired"\nstream_id_bits = 6',
            [*NEED_0X41, "an_event_msi_that_aborts_is_a_global_error"],
        ),
        ("events", "stage2 = true\nsubstream_id_bits = 1\nevent_queue_bits = 3\ncommand_queue_bits = 1", NEED_0X41),
        ("pasid", "substream_id_bits = 3\ncd_two_level = false\nasid16 = false", NEED_TWO_LEVELS),
        ("pasid", "substream_id_bits = 20", []),
        ("httu", 'hardware_updates = "access"', NEED_DIRTY),
        ("httu", 'hardware_updates = "tables"\nversion = "3.3"\nstage2 = true', []),
        ("nested", "stage2 = true\nxnx = true\nforced_writeback = true\noas = 48", NEED_MORE_THAN_STAGES),
        ("nested", 'stage2 = true\nversion = "3.1"\nrange_invalidation = false', NEED_MORE_THAN_STAGES),
        ("ats", 'ats = "full"', NEED_PRI),
        ("ats", 'ats = "full"\npri = true\npri_pasid = true\nsubstream_id_bits = 5\npage_request_queue_bits = 2', []),
        ("ats_split", f'{SPLIT}"full"', NEED_SPLIT),
        ("ats_split", 'stage2 = true\nats = "split"', NEED_PASIDS),
        ("ats_split", "stage2 = true", [*NEED_SPLIT, *NEED_PASIDS]),
        ("stall", 'stall_model = "both"\nstall_max = 1', NEED_STALLS),
        ("stall", 'stall_model = "both"\nstall_max = 32', ["software_is_told_of_stall_max_at_a_time"]),
        ("conflicts", f"{CONFLICTS}bbm_level = 1", NEED_STAGE_2),
        ("conflicts", f"{CONFLICTS}stage2 = true\nbbm_level = 2", NEED_SIZES_TO_CONFLICT),
    ],
)
def test_machines_with_less_or_other_features_pass_the_rest(
    assets: Assets, program: str, features: str, skipped: list[str]
) -> None:
    all_passed(Run(assets, bare(program, features)).report, *skipped)
