# SPDX-License-Identifier: Apache-2.0
"""Every preset boots: bare-metal programs on each, and a stock kernel on each that it can drive.

Law: a preset that is added has no test here until somebody says which cases it must skip; until then this fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.boot.guests import Run, all_passed, bare
from tests.boot.linux import Boot, bytes_are_the_same_on_both_sides
from tests.boot.test_bare_programs import NEED_0X41, NEED_MSI, NEED_SPLIT
from tests.conftest import need_kernel
from vhost_iommu.config import parse_machine
from vhost_iommu.guest.assets import Assets
from vhost_iommu.smmu.v3.features import PRESETS

SUBSTREAMS = "substreams_have_their_own_spaces"
NO_PARTIDS = "an_unreadable_vms_is_f_vms_fetch"
NO_LIMIT = ["software_is_told_of_stall_max_at_a_time"]  # that 16 frames reach
#: What every SMMU of a server does.
SERVER: Mapping[str, Sequence[str]] = {"dma": [], "events": NEED_0X41, "commands": [], "httu": [], "pasid": []}
DEVICES: Mapping[str, Sequence[str]] = {"stall": NO_LIMIT, "ats": []}
#: Of each preset the programs for which it has something, and the cases that they skip.
SKIPPED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "linux": {"dma": [SUBSTREAMS], "events": NEED_0X41, "commands": []},
    "bsa": {**SERVER, "nested": [NO_PARTIDS, "each_stage_stalls_for_itself"]},
    "everything": {**SERVER, **DEVICES, "nested": [], "ats_split": []},
    "minimal": {
        "dma": [SUBSTREAMS],
        "events": [
            *NEED_0X41,
            "without_a_a_fault_reads_zero_and_ignores_writes",
            "a_full_queue_overflows",
            "an_event_msi_that_aborts_is_a_global_error",
        ],
        "commands": [
            *NEED_MSI,
            "an_error_stops_the_queue_until_it_is_acknowledged",
            "what_was_put_before_an_error_is_done",
            "a_full_queue_wraps_around",
        ],
    },
    "mmu-600": {**SERVER, **DEVICES, "nested": [NO_PARTIDS], "ats_split": NEED_SPLIT},
    "mmu-700": {**SERVER, **DEVICES, "nested": [NO_PARTIDS], "ats_split": NEED_SPLIT},
}
#: Linux refuses command queues that do not hold more than 64 commands, so "minimal" is none of these.
BY_LINUX = ("linux", "bsa", "everything", "mmu-600", "mmu-700")


@pytest.mark.parametrize("preset", PRESETS)
def test_bare_metal_software_finds_what_a_preset_says(assets: Assets, preset: str) -> None:
    for program, skipped in SKIPPED[preset].items():
        all_passed(Run(assets, bare(program, f'preset = "{preset}"')).report, *skipped)


@pytest.mark.parametrize("preset", BY_LINUX)
def test_a_stock_kernel_drives_a_preset(assets: Assets, preset: str) -> None:
    need_kernel(assets, "6.12")
    pasids = "pasid_bits = 8" if PRESETS[preset].get("substream_id_bits") else ""
    boot = Boot(
        assets,
        parse_machine(f"""
            [guest]
            kind = "linux"
            [[smmu]]
            name = "smmu0"
            preset = "{preset}"
            [[master]]
            name = "disk0"
            kind = "virtio-blk"
            smmu = "smmu0"
            stream_ids = [0x20]
            size = "2M"
            [[master]]
            name = "engine0"
            kind = "engine"
            smmu = "smmu0"
            stream_ids = [0x30]
            {pasids}
            """),
    )
    all_passed(boot.report)
    bytes_are_the_same_on_both_sides(boot)
