# SPDX-License-Identifier: Apache-2.0
"""SMMUv3 (Arm IHI 0070): ``Smmu`` is one instance, ``Features`` what it is made of."""

from .features import Features
from .instance import Smmu

__all__ = ["Features", "Smmu"]
