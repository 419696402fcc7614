# SPDX-License-Identifier: Apache-2.0
"""A kernel that takes over when the first one crashes, as kdump has it: what a guest needs to load one and to crash.

Law: both are the same stock kernel, and Debian's kexec loads the second. That runs a script, on a file system of
busybox alone, and powers off.
"""

from __future__ import annotations

from pathlib import Path

from vhost_iommu.config import Size
from vhost_iommu.guest.assets import Assets
from vhost_iommu.guest.initramfs import Initramfs, linux_guest
from vhost_iommu.guest.kernel import KernelTree

#: Of the first kernel's command line; the guest needs twice as much memory at least.
APPEND = "crashkernel=256M"
#: With which a guest has room for both.
MEMORY = Size(1 << 30)
#: The first kernel's case that ends it.
CASE = "crashes=sh /kdump/crash"
#: Lines that the second prints when its script begins and has ended.
BEGINS, ENDS = "kdump: the capture kernel is here", "kdump: done"

# A panic's words on the console would be taken for the death of the guest, which goes on: no level is printed.
_CRASH = """\
cd /kdump || exit 1
./ld.so --library-path /kdump ./kexec --no-checks --load-panic Image --initrd=initrd --command-line="{append}" || exit 1
[ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ] || exit 1
echo 0 >/proc/sys/kernel/printk
echo c >/proc/sysrq-trigger
"""
_SECOND = "console=ttyAMA0 panic=-1 loglevel=7 nr_cpus=1 reset_devices"
_INIT = """\
#!/bin/sh
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo "{begins}"
{script}
echo "{ends}"
poweroff -f
"""


def archive(assets: Assets, kernel: Path, script: str) -> bytes:
    """What goes over the first kernel's initial RAM file system (``--initrd-extra``); the second, which is that of the
    folder or file ``kernel``, runs ``script``.
    """
    second = linux_guest(assets.busybox().read_bytes(), _INIT.format(begins=BEGINS, script=script, ends=ENDS).encode())
    made = Initramfs()
    made.file("/kdump/Image", KernelTree(kernel).image.image)
    made.file("/kdump/initrd", second.archive())
    made.file("/kdump/crash", _CRASH.format(append=_SECOND))
    for path in sorted(assets.kexec().iterdir()):
        if path.is_file() and not path.name.startswith("."):
            made.file(f"/kdump/{path.name}", path.read_bytes(), 0o755)
    return made.archive()
