# SPDX-License-Identifier: Apache-2.0
"""Split-stage ATS and ATS with PASIDs: what the ATC kept as the model says, beside what test_bare_programs.py asks."""

from __future__ import annotations

import pytest

from tests.boot.guests import Way
from tests.boot.test_bare_programs import of
from vhost_iommu.guest.assets import Assets
from vhost_iommu.smmu.v3 import events


def test_an_engine_keeps_ipas(assets: Assets) -> None:
    (event,) = (fields for name, fields in of(assets, "ats_split", Way.TRACED).events
                if name == events.F_TRANSLATION.__name__)  # fmt: skip
    assert (event["S2"], event["InputAddr"]) == (1, int(event["IPA"]) + 64)


@pytest.mark.parametrize("way", Way)
def test_what_no_invalidation_named_is_still_there(assets: Assets, way: Way) -> None:
    ktap = of(assets, "ats_split", way).ktap
    assert ktap.facts("split_stale") == [{"translates": "1"}]
    kept = [(fact["kind"], fact["space"], fact["translates"]) for fact in ktap.facts("pasid_stale")]
    assert kept == [("pasid", "0", "1"), ("pasid", "1", "1"), ("pasid", "3", "1"), ("global", "0", "1")]
