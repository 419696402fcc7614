# SPDX-License-Identifier: Apache-2.0
"""ARM SMMUs with DMA masters behind them, served to QEMU guests over vfio-user."""

__version__ = "0.1.0"
