# SPDX-License-Identifier: Apache-2.0
"""The programming models of SMMUs, by the name that machine files give them.

Law: the only module that names them; all others look them up here.
"""

from __future__ import annotations

from collections.abc import Mapping

from .smmu.model import Model
from .smmu.msm.model import MODEL as MSM
from .smmu.v2.model import MODEL as SMMUV2
from .smmu.v3.model import MODEL as SMMUV3

MODELS: Mapping[str, Model] = {model.name: model for model in (SMMUV3, SMMUV2, MSM)}
DEFAULT = SMMUV3.name
