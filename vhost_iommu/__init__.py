# SPDX-License-Identifier: Apache-2.0
"""ARM SMMUs with DMA masters behind them, served to QEMU guests over vfio-user.

``boot`` starts a guest and yields it; what else a test needs is here too, and imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vhost_iommu.version import __version__ as __version__

if TYPE_CHECKING:
    from vhost_iommu.errors import UsageError as UsageError
    from vhost_iommu.guest.cpu import Cpu as Cpu
    from vhost_iommu.guest.cpu import without_guest as without_guest
    from vhost_iommu.guest.launch import run as run
    from vhost_iommu.guest.live import Guest as Guest
    from vhost_iommu.guest.live import GuestError as GuestError
    from vhost_iommu.guest.live import boot as boot
    from vhost_iommu.guest.recording import Difference as Difference
    from vhost_iommu.lab.faults import Fault as Fault

#: The public names, and where each is.
_PUBLIC = {
    "Cpu": "guest.cpu",
    "Difference": "guest.recording",
    "Fault": "lab.faults",
    "Guest": "guest.live",
    "GuestError": "guest.live",
    "UsageError": "errors",
    "boot": "guest.live",
    "run": "guest.launch",
    "without_guest": "guest.cpu",
}
__all__ = ["Cpu", "Difference", "Fault", "Guest", "GuestError", "UsageError", "boot", "run", "without_guest"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"vhost_iommu has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"vhost_iommu.{_PUBLIC[name]}"), name)
