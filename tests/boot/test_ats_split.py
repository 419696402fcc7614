# SPDX-License-Identifier: Apache-2.0
"""Split-stage ATS and ATS with PASIDs as bare-metal software sees them, and what the ATC kept as the model says."""

from __future__ import annotations

import pytest

from tests.boot.test_bare_programs import Run
from tests.boot.test_machines import all_passed, bare
from vhost_iommu.guest.assets import Assets
from vhost_iommu.smmu.v3 import events

SPLIT = "stage2 = true\nsubstream_id_bits = 2\nats = "


def test_an_engine_keeps_ipas_and_keeps_pasids_apart(assets: Assets) -> None:
    run = Run(assets, "ats_split", bare("ats_split", f'{SPLIT}"split"'))
    all_passed(run.report)
    (event,) = (fields for name, fields in run.events if name == events.F_TRANSLATION.__name__)
    assert (event["S2"], event["InputAddr"]) == (1, int(event["IPA"]) + 64)


def test_what_no_invalidation_named_is_still_there(assets: Assets) -> None:
    ktap = Run(assets, "ats_split", bare("ats_split", f'{SPLIT}"split"')).ktap
    assert ktap.facts("split_stale") == [{"translates": "1"}]
    kept = [(fact["kind"], fact["space"], fact["translates"]) for fact in ktap.facts("pasid_stale")]
    assert kept == [("pasid", "0", "1"), ("pasid", "1", "1"), ("pasid", "3", "1"), ("global", "0", "1")]


@pytest.mark.parametrize(
    ("features", "skipped"),
    [
        (f'{SPLIT}"full"', 4),
        ('stage2 = true\nats = "split"', 2),
        ("stage2 = true", 6),
    ],
)
def test_an_smmu_with_less_of_ats_passes_what_it_can(assets: Assets, features: str, skipped: int) -> None:
    report = Run(assets, "ats_split", bare("ats_split", features)).report
    left_out = [result.name for result in report.results if result.skipped is not None]
    assert len(left_out) == skipped
    all_passed(report, *left_out)
