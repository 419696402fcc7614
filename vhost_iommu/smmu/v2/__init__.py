# SPDX-License-Identifier: Apache-2.0
"""SMMUv2 (Arm IHI 0062): one programming model of SMMUs, whose contexts are registers."""

from .features import Features
from .instance import Smmu

__all__ = ["Features", "Smmu"]
