# SPDX-License-Identifier: Apache-2.0
"""Debian's headers of a kernel, made to build modules where they were unpacked.

Law: what they name by where a package would be installed is named by where it is. Nothing of this machine is asked for
but a shell, so that a kernel of a newer Debian serves on an older machine.
"""

from __future__ import annotations

from pathlib import Path

from vhost_iommu.guest.loader import wrap_programs

_MAKEFILE = """\
KBUILD_OUTPUT := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))
include {included}
"""
# Debian's own names its compiler; ours comes from the command line.
_VARIABLES = """\
override ARCH = arm64
override KERNELRELEASE = {version}
"""


def make_usable(folder: Path, version: str, common: str) -> None:
    """What the packages of kernel ``version`` unpacked to in ``folder`` builds modules from now on.

    ``common`` is the name of the folder that all flavours share.
    """
    build = folder / f"usr/src/linux-headers-{version}"
    write_makefiles(build, f"$(KBUILD_OUTPUT)/../{common}/Makefile", version)
    (build / "vmlinux").unlink(missing_ok=True)  # of which BTF would be made
    wrap_programs(folder, (path for kbuild in folder.glob("usr/lib/linux-kbuild-*") for path in kbuild.rglob("*")))


def write_makefiles(build: Path, included: str, version: str) -> None:
    """What names other files and programs, in the folder ``build``; ``included`` is the kernel's own Makefile."""
    (build / "Makefile").write_text(_MAKEFILE.format(included=included))
    (build / ".kernelvariables").write_text(_VARIABLES.format(version=version))
