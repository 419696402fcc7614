# SPDX-License-Identifier: Apache-2.0
"""What guests need, what of it is on this machine, and a mend that works on this machine for what is not.

Law: looks and fetches nothing. What a Linux guest cannot do without is needed; all else is optional.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vhost_iommu import _core, memory
from vhost_iommu.errors import UsageError
from vhost_iommu.guest.apt import debian_mirror, obstacle
from vhost_iommu.guest.assets import FLAVOURS, Assets, Cross, by_hand, headers_variable, kernel_entry, kernel_variable
from vhost_iommu.guest.libvirt.session import daemon_here, module_here
from vhost_iommu.guest.share import checkout

SPACE_NEEDED = 1_000_000_000  # bytes, for the default kernel and while it is unpacked


@dataclass(frozen=True)
class Prerequisite:
    """One line of the report; ``mend`` is one sentence that says how to get what is missing."""

    name: str
    found: bool
    where: str
    mend: str
    needed: bool = True


def prerequisites(assets: Assets) -> list[Prerequisite]:
    """What is here and what is not."""
    things = [
        _thing("qemu", partial(_qemu, assets), "a QEMU of 10.1 or newer", "VI_QEMU"),
        _thing("busybox", partial(_entry, assets, "busybox", "VI_BUSYBOX"), "a static one for arm64", "VI_BUSYBOX"),
    ]
    for flavour in FLAVOURS:
        variable = kernel_variable(flavour)
        look = partial(_entry, assets, kernel_entry(flavour), variable)
        default = flavour == "6.12"
        fetch = "fetch" if default else f"fetch {flavour}"
        things.append(_thing(f"kernel {flavour}", look, "one", variable, needed=default, fetch=fetch))
        if FLAVOURS[flavour].config:
            continue  # it has its own
        version = (assets.facts(kernel_entry(flavour)) or {}).get("version", flavour)
        variable = headers_variable(flavour)
        look = partial(_entry, assets, f"headers-{version}", variable)
        what = "its build folder, to have modules built,"
        things.append(_thing(f"headers {flavour}", look, what, variable, needed=False, fetch=fetch))
    what = "the prefix of a gcc for AArch64, to have bare-metal programs and modules built,"
    things.append(_thing("cross compiler", partial(_cross, assets), what, "VI_CROSS", needed=False))
    return [
        Prerequisite("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11"),
        _shared_memory(),
        *things,
        _libvirt(),
        *_to_fetch(assets, not all(each.found for each in things if each.needed)),
        _atomic(),
        _compiled_core(),
    ]


def _thing(
    name: str,
    look: Callable[[], tuple[str | None, str]],
    what: str,
    variable: str,
    *,
    needed: bool = True,
    fetch: str = "fetch",
) -> Prerequisite:
    """``look`` says where it is, if it is here, and a remark."""
    mend = f"name {what} in ${variable}"
    if obstacle() is None:
        mend = f"run 'vhost-iommu {fetch}', or {mend}"
    try:
        where, remark = look()
    except UsageError as why:  # a wrong name by hand, which somebody wants to be right
        return Prerequisite(name, False, str(why), mend)
    text = "; ".join(each for each in (where or "not here", remark) if each)
    return Prerequisite(name, where is not None, text, mend, needed)


def _qemu(assets: Assets) -> tuple[str | None, str]:
    found = assets.qemu_here()
    if found is None or found.origin.startswith(str(assets.folder)):
        on_path = assets.qemu_on_path()
        remark = on_path if isinstance(on_path, str) else ""
    else:
        remark = ""
    return (None if found is None else f"{found.origin} ({'.'.join(map(str, found.version))})"), remark


def _cross(assets: Assets) -> tuple[str | None, str]:
    match assets.cross_here():
        case Cross(origin=origin):
            return origin, ""
        case reason:
            return None, reason or ""


def _entry(assets: Assets, entry: str, variable: str) -> tuple[str | None, str]:
    if (path := by_hand(variable)) is not None:
        return str(path), ""
    facts = assets.facts(entry)
    if facts is None:
        return None, ""
    return f"{assets.folder / entry}" + (f" ({facts['version']})" if "version" in facts else ""), ""


def _to_fetch(assets: Assets, something: bool) -> list[Prerequisite]:
    """What is needed only where there is something to fetch."""
    bar = obstacle()
    parent = next(folder for folder in (assets.folder, *assets.folder.parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    space = f"{free / 1e9:.1f} GB free for {assets.folder}"
    return [
        Prerequisite("apt", True, debian_mirror() or "", "", something)
        if bar is None
        else Prerequisite("apt", False, bar.why, bar.mend or "name what is missing by hand", something),
        Prerequisite(
            "disk space", free >= SPACE_NEEDED, space, "free 1 GB or name another folder in $VI_CACHE", something
        ),
    ]


def _atomic() -> Prerequisite:
    if memory.atomic_updates():
        return Prerequisite("libatomic", True, "libatomic.so.1", "", needed=False)
    race = "an SMMU's updates of page tables can race with a guest CPU's"
    return Prerequisite("libatomic", False, race, "install it (Debian: libatomic1)", needed=False)


def _libvirt() -> Prerequisite:
    top = checkout()
    mend = (
        f"run 'make libvirt' in {top}"
        if top is not None
        else "install libvirt's daemon and headers (Debian: libvirt-daemon-driver-qemu libvirt-dev), then "
        "pip install 'vhost-iommu[libvirt]'"
    )
    daemon = daemon_here()
    if daemon is not None and module_here():
        return Prerequisite("libvirt", True, daemon[0], mend, needed=False)
    lacks = "its daemon" if daemon is None else "its Python module"
    return Prerequisite("libvirt", False, f"{lacks} is not here, and '--launcher libvirt' takes it", mend, needed=False)


def _compiled_core() -> Prerequisite:
    if _core.stale():
        return Prerequisite("compiled core", False, "older than its sources", f"run 'make core' in {checkout()}")
    if (door := _core.built()) is not None:
        return Prerequisite("compiled core", True, str(door.__file__), "", needed=False)
    top = checkout()
    again = "install vhost-iommu again" if top is None else f"run 'make core' in {top}"
    mend = f"install a C compiler and Python's headers (Debian: gcc libc6-dev python3-dev), then {again}"
    return Prerequisite("compiled core", False, "all works, but slower", mend, needed=False)


def _shared_memory() -> Prerequisite:
    mend = "run on Linux 3.17 or newer, with memfd_create allowed by any sandbox"
    try:
        os.close(os.memfd_create("vhost-iommu"))
    except (AttributeError, OSError) as why:
        return Prerequisite("memfd", False, str(why), mend)
    return Prerequisite("memfd", True, "memfd_create", mend)
