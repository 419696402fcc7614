# SPDX-License-Identifier: Apache-2.0
"""A small kernel's way from an archive to what stays of it, against a make that compiles nothing."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from vhost_iommu.errors import UsageError
from vhost_iommu.guest.apt import Done
from vhost_iommu.guest.kbuild import Kbuild, _Meter, unpack_source
from vhost_iommu.guest.share import share

WANTED = ("Makefile", "arch/arm64/Kconfig", "arch/arm64/mm/fault.c", "drivers/iommu/iommu.c", "drivers/gpu/Kconfig",
          "drivers/net/wireless/Makefile.common", "Documentation/Kconfig", "drivers/scsi.h")  # fmt: skip
UNWANTED = ("drivers/gpu/drm/drm.c", "sound/core.c", "arch/x86/kernel/head.c", "arch/arm64/boot/dts/board.dts",
            "Documentation/guide.rst")  # fmt: skip


class Make:
    """Answers as the kernel's make does; what is built is the built files' names."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.calls: list[list[str]] = []
        self.refused: tuple[str, ...] = ()
        self.fails = ""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        line: Callable[[str], None] | None = None,
    ) -> Done:
        self.calls.append(list(argv))
        if self.fails:
            return Done(2, "", self.fails)
        if argv[-1] == "allnoconfig":
            (wishes,) = (word.partition("=")[2] for word in argv if word.startswith("KCONFIG_ALLCONFIG="))
            lines = Path(wishes).read_text().splitlines()
            (self.source / ".config").write_text("\n".join(each for each in lines if each not in self.refused))
            return Done(0, "", "")
        for name in ("vmlinux", "vmlinux.o", "mm/slub.o", "arch/arm64/boot/Image", "arch/arm64/kernel/head.o",
                     "include/config/kernel.release", "scripts/mod/modpost", "scripts/mod/modpost.o",
                     "scripts/mod/.modpost.o.cmd", "Module.symvers"):  # fmt: skip
            file = self.source / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("6.12.95-small\n")
        return Done(0, "", "")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "source").mkdir()
    return Make(tmp_path / "source")


@pytest.fixture
def kernel(make: Make) -> Kbuild:
    return Kbuild(make.source, "aarch64-linux-gnu-", {}, make, print)


def test_only_what_a_small_kernel_needs_of_its_source_is_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "source.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for name in (*WANTED, *UNWANTED):
            about = tarfile.TarInfo(f"linux-source-6.12/{name}")
            about.size = len(name)
            tar.addfile(about, io.BytesIO(name.encode()))
    unpack_source(archive, tmp_path / "new")
    found = {str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert found == set(WANTED)


def test_an_option_that_the_source_does_not_take_is_told(kernel: Kbuild, make: Make, tmp_path: Path) -> None:
    fragment = tmp_path / "virt.config"
    fragment.write_text("# a comment\nCONFIG_SMP=y\nCONFIG_GONE=y\n# CONFIG_OFF is not set\n")
    make.refused = ("CONFIG_GONE=y", "# CONFIG_OFF is not set")
    with pytest.raises(UsageError, match=r"does not take CONFIG_GONE=y; correct virt\.config"):
        kernel.configure([fragment])


def test_what_stays_is_a_build_folder_without_what_was_needed_once(kernel: Kbuild, make: Make) -> None:
    kernel.configure([])
    assert kernel.compile("kernel") == "6.12.95-small"
    kernel.prune()
    left = {str(path.relative_to(make.source)) for path in make.source.rglob("*") if path.is_file()}
    assert left == {
        ".config", "Module.symvers", "arch/arm64/boot/Image", "include/config/kernel.release", "scripts/mod/modpost",
        "vmlinux",
    }  # fmt: skip


def test_a_compilers_complaint_is_the_reason(kernel: Kbuild, make: Make) -> None:
    make.fails = "make[1]: Entering\nmm/slub.c:7: fatal error: no space left\n"
    with pytest.raises(
        UsageError, match=r"does not compile \(mm/slub\.c:7: fatal error: no space left\); free some space"
    ):
        kernel.compile("kernel")


def test_progress_is_told_every_few_seconds() -> None:
    said: list[str] = []
    seconds = iter(range(100))
    meter = _Meter("kernel", said.append, lambda: next(seconds))
    for line in ["  CC      mm/slub.o", "make[2]: Nothing to be done"] * 6:
        meter(line)
    assert said == ["  kernel: 3 files compiled in 5 s", "  kernel: 5 files compiled in 10 s"]


def test_the_small_kernel_has_what_upstreams_default_configuration_lacks_and_lacks_what_it_has() -> None:
    lines = share("kernel-config/disks.config").read_text().splitlines()
    assert {"CONFIG_VIRTIO_MMIO=y", "CONFIG_VIRTIO_BLK=y", "CONFIG_VFAT_FS=y"} <= set(lines)
    assert "# CONFIG_NLS_ASCII is not set" in lines
