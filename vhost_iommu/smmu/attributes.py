# SPDX-License-Identifier: Apache-2.0
"""Encodings of memory attributes that descriptors, registers and commands share.

Law: names of values only; imports nothing.
"""

from __future__ import annotations

SHAREABILITY = {0: "non-shareable", 2: "outer shareable", 3: "inner shareable"}

#: A stage 2 descriptor's MemAttr[3:0] (without FWB), also the encoding of STE, GBPA, MSI and CMD_SYNC attributes.
MEMATTR = {
    0b0000: "Device-nGnRnE",
    0b0001: "Device-nGnRE",
    0b0010: "Device-nGRE",
    0b0011: "Device-GRE",
    0b0101: "Normal oNC iNC",
    0b0110: "Normal oNC iWT",
    0b0111: "Normal oNC iWB",
    0b1001: "Normal oWT iNC",
    0b1010: "Normal oWT iWT",
    0b1011: "Normal oWT iWB",
    0b1101: "Normal oWB iNC",
    0b1110: "Normal oWB iWT",
    0b1111: "Normal oWB iWB",
}
