# SPDX-License-Identifier: Apache-2.0
"""What software sees of an SMMUv3: bare-metal programs judge it from inside, and the models' own account agrees.

Law: a program states bit positions by hand, so its records and the trace's, which the declarations make, are two
witnesses of one event.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import pytest

from tests.boot.test_machines import all_passed, bare
from vhost_iommu.config import MachineConfig, load_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.ktap import Ktap
from vhost_iommu.guest.launch import Launch, Wishes
from vhost_iommu.guest.report import Report
from vhost_iommu.smmu.v3 import Smmu, events
from vhost_iommu.trace import Record, Trace

PROGRAMS = ("events", "commands", "stall", "httu", "nested", "pasid", "ats")
EVERYTHING = "smmuv3-everything-bare"


class Run:
    """One program on one machine, and what is known of it afterwards."""

    def __init__(
        self, assets: Assets, program: str, machine: str | MachineConfig = EVERYTHING, append: str = ""
    ) -> None:
        config = load_machine(machine) if isinstance(machine, str) else machine
        self.trace = Trace.memory()
        launch = Launch(config, Wishes(elf=program, append=append), trace=self.trace, assets=assets)
        self.report: Report = launch.run()
        assert launch.daemon is not None
        self.smmu: Smmu = launch.daemon.machine.smmus["smmu0"]

    @property
    def ktap(self) -> Ktap:
        return self.report.ktap

    def traced(self, kind: str) -> list[Record]:
        return [record for record in self.trace.records if record.track == "smmu0" and record.kind == kind]

    @property
    def events(self) -> list[tuple[str, dict[str, float | str]]]:
        """Events by name and fields, as the model made them."""
        return [(record.name, dict(record.args)) for record in self.traced("fault") if record.name != "GERROR"]

    @property
    def seen(self) -> list[tuple[str, dict[str, float | str]]]:
        """The same as the guest read them from its queue."""
        found = []
        for note in self.ktap.notes:
            word, *words = note.split()
            if word == "event":
                raw = sum(int(each, 16) << 64 * n for n, each in enumerate(words))
                event = events.decode(raw)
                values: dict[str, float | str] = {n: v for n, v in event.values().items() if n != "TYPE"}
                found.append((type(event).__name__, values))
        return found


@lru_cache(maxsize=len(PROGRAMS))
def of(assets: Assets, program: str) -> Run:
    """The program on the machine that is made for it, run once for all tests that ask."""
    return Run(assets, program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_software_sees_is_what_the_specification_says(assets: Assets, program: str) -> None:
    all_passed(of(assets, program).report)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_events_that_software_reads_are_those_that_the_model_made(assets: Assets, program: str) -> None:
    run = of(assets, program)
    assert run.seen
    made = iter(run.events)  # those that were lost, or that nobody read, are left out
    assert [event for event in run.seen if event not in made] == []
    assert len(run.seen) <= run.smmu.counters.events <= len(run.events)


def test_the_programs_come_to_every_event_that_a_transaction_can_raise(assets: Assets) -> None:
    seen = {name for program in PROGRAMS for name, _ in of(assets, program).seen}
    # Unsupported transactions, conflicts of caches and hints, which this model never raises.
    assert {kind.__name__ for kind in events.EVENTS.values()} - seen == {
        "F_UUT",
        "F_TLB_CONFLICT",
        "F_CFG_CONFLICT",
        "E_PAGE_REQUEST",
    }


def test_events_that_find_no_room_are_counted(assets: Assets) -> None:
    run = Run(assets, "events", append="cases=a_full_queue_overflows")
    all_passed(run.report)
    assert (run.smmu.counters.events, run.smmu.counters.events_lost) == (9, 3)
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


@pytest.mark.parametrize(
    ("features", "absent", "skipped"),
    [
        ("", 11, []),
        (STAGE2, 5, []),
        (f'{STAGE2}\nstall_model = "both"\nats = "full"\npri = true', 1, []),
        ('version = "3.1"\nrange_invalidation = false\nstall_model = "stall"\nstage2 = true', 7, None),
        ('msi = false\ninterrupts = "wired"', 11, ["sync_", "an_aborted_", "a_global_error_interrupts"]),
    ],
)
def test_commands_are_legal_where_their_feature_is(
    assets: Assets, features: str, absent: int, skipped: list[str] | None
) -> None:
    append = "" if skipped is not None else f"cases={','.join(WITHOUT_DMA)}"
    run = Run(assets, "commands", bare("commands", features), append)
    left_out = [result.name for result in run.report.results if result.skipped is not None]
    assert all(name.startswith(tuple(skipped or ())) for name in left_out)
    all_passed(run.report, *left_out)
    assert run.ktap.facts("absent_commands") == [{"count": str(absent)}]
    errors = Counter(record.args["result"] for record in run.traced("command"))
    assert set(errors) == {"CERROR_NONE", "CERROR_ILL"}
    unread = run.smmu.counters.command_errors - errors["CERROR_ILL"]  # CERROR_ABT: there was no command to trace
    assert unread == (2 if skipped is not None else 0)


@pytest.mark.parametrize(
    ("program", "features"),
    [
        ("events", 'version = "3.1"\noas = 40\nmsi = false\ninterrupts = "wired"\nstream_id_bits = 6'),
        ("events", "stage2 = true\nsubstream_id_bits = 1\nevent_queue_bits = 3\ncommand_queue_bits = 1"),
        ("pasid", "substream_id_bits = 3\ncd_two_level = false\nasid16 = false"),
        ("pasid", "substream_id_bits = 20"),
        ("httu", 'hardware_updates = "access"'),
        ("httu", 'hardware_updates = "tables"\nversion = "3.3"\nstage2 = true'),
        ("nested", "stage2 = true\nxnx = true\nforced_writeback = true\noas = 48"),
        ("nested", 'stage2 = true\nversion = "3.1"\nrange_invalidation = false'),
        ("ats", 'ats = "full"'),
        ("ats", 'ats = "full"\npri = true\npri_pasid = true\nsubstream_id_bits = 5\npage_request_queue_bits = 2'),
        ("stall", 'stall_model = "both"\nstall_max = 1'),
        ("stall", 'stall_model = "both"\nstall_max = 32'),
    ],
)
def test_machines_with_less_or_other_features_pass_what_they_can(assets: Assets, program: str, features: str) -> None:
    run = Run(assets, program, bare(program, features))
    all_passed(run.report, *(result.name for result in run.report.results if result.skipped is not None))
    assert sum(result.skipped is None for result in run.report.results) >= 2
