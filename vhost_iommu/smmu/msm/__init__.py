# SPDX-License-Identifier: Apache-2.0
"""Qualcomm's IOMMU of 2010 (MSM), as its public driver and its binding describe it."""
