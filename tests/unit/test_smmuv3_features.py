# SPDX-License-Identifier: Apache-2.0
"""Named features: presets, the ID registers they make, and combinations that no SMMUv3 has."""

from __future__ import annotations

from typing import Any

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.smmu.v3.features import PRESETS, Features
from vhost_iommu.smmu.v3.registers import IDR0, IDR1, IDR3, IDR5, MPAMIDR, AddressSize


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_id_registers_without_reserved_values(name: str) -> None:
    for register, value in Features(**PRESETS[name]).id_registers().items():
        assert register(value).problems() == []


def test_the_defaults_are_what_linux_drives() -> None:
    ids = Features().id_registers()
    idr0 = IDR0(ids[IDR0])
    assert (idr0.S1P, idr0.S2P, idr0.TTF, idr0.MSI, idr0.COHACC) == (1, 0, 2, 1, 1)
    assert IDR1(ids[IDR1]).CMDQS >= 7  # Linux wants more than 64 commands
    assert IDR5(ids[IDR5]).GRAN4K == 1


def test_everything_has_every_feature_that_is_modelled() -> None:
    ids = Features(**PRESETS["everything"]).id_registers()
    idr0, idr3, idr5 = IDR0(ids[IDR0]), IDR3(ids[IDR3]), IDR5(ids[IDR5])
    assert (idr0.S1P, idr0.S2P, idr0.TTF, idr0.HTTU, idr0.ATS, idr0.NS1ATS, idr0.PRI) == (1, 1, 3, 3, 1, 0, 1)
    assert (idr0.Hyp, idr0.VMW, idr0.VMID16, idr0.STALL_MODEL) == (1, 1, 1, 0)
    assert (idr3.XNX, idr3.FWB, idr3.STT, idr3.RIL, idr3.E0PD, idr3.EPAN) == (1, 1, 1, 1, 1, 1)
    assert idr3.MPAM == 1
    assert MPAMIDR(ids[MPAMIDR]).PARTID_MAX > 31
    assert (idr3.PASIDTT, idr3.PPS) == (1, 1)
    assert (idr5.OAS, idr5.DS, idr5.VAX) == (AddressSize.BITS_52, 1, 1)


@pytest.mark.parametrize(
    ("features", "named"),
    [
        ({"stage1": False}, "stage1"),
        ({"hyp": True}, "hyp"),
        ({"vmid16": True}, "vmid16"),
        ({"xnx": True}, "xnx"),
        ({"pri": True}, "pri"),
        ({"ats": "split"}, "ats"),
        ({"substream_id_bits": 4, "ats_pasid": True}, "ats_pasid"),
        ({"ats": "full", "ats_pasid": True}, "ats_pasid"),
        ({"lpa2": True, "oas": 48}, "lpa2"),
        ({"lpa2": True, "oas": 52, "granules": ("64K",)}, "lpa2"),
        ({"oas": 43}, "oas"),
        ({"version": "3.0", "oas": 52}, "oas"),
        ({"granules": ()}, "granules"),
        ({"range_invalidation": False}, "range_invalidation"),
        ({"stream_table_levels": 1}, "stream_table_levels"),
        ({"hardware_updates": "tables"}, "hardware_updates"),
        ({"substream_id_bits": 21}, "substream_id_bits"),
        ({"stall_max": 0}, "stall_max"),
        ({"mpam_partid_max": 0x10000}, "mpam_partid_max"),
        ({"mpam_partid_max": -1}, "mpam_partid_max"),
        ({"mpam_pmg_max": 0x100}, "mpam_pmg_max"),
        ({"mpam_partid_max": 1, "version": "3.1"}, "mpam_partid_max"),
        ({"mpam_pmg_max": 1, "version": "3.0"}, "mpam_pmg_max"),
    ],
)
def test_a_combination_that_cannot_be_is_refused_by_the_features_name(features: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=rf"^features\.{named}: "):
        Features(**features)
