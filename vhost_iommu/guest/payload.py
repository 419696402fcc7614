# SPDX-License-Identifier: Apache-2.0
"""What a Linux guest boots: a kernel, what of its modules is there, and the initial RAM file system with the cases.

Law: nothing is demanded of a kernel. What it lacks is named in a note, once, and the guest skips what needed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vhost_iommu.errors import UsageError
from vhost_iommu.guest import initramfs, kmod, linux
from vhost_iommu.guest.apt import Run, run_command
from vhost_iommu.guest.assets import FLAVOURS, Assets
from vhost_iommu.guest.choice import chosen_of
from vhost_iommu.guest.kernel import KernelTree, decompressed, is_for_arm64, modinfo, needed_modules
from vhost_iommu.guest.linux import Case
from vhost_iommu.guest.platform import Platform
from vhost_iommu.guest.share import share

_CPIO = (b"070701", b"070702")
#: What a kernel may unpack by itself, and we do not.
_OTHER_COMPRESSIONS = (b"BZh", b"\x89LZO", b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18")


@dataclass(frozen=True)
class LinuxGuest:
    """A kernel with an initial RAM file system: ours, which runs ``cases``, or the one that is named."""

    kernel: Path | str = "6.12"  #: a path, or a flavour that assets fetches
    cases: tuple[Case, ...] | None = None  #: None: what the machine's parts can show, and ``own_cases``
    append: str = ""
    initrd: Path | None = None
    modules: tuple[str, ...] | None = None  #: wishes; None: what the machine's parts need
    test_modules: tuple[str, ...] = ()  #: of guest/kmod, where ``cases`` insert them
    baseline: Sequence[tuple[str, Path]] = ()  #: QEMU's own disks (serial, image) and no SMMU, instead of the machine
    headers: Path | None = None  #: where to build modules for the kernel; None: beside it
    own_modules: tuple[Path, ...] = ()  #: the operator's, inserted after the kernel's
    own_cases: tuple[Case, ...] = ()
    extra: tuple[Path, ...] = ()  #: archives that are unpacked over the initial RAM file system
    chosen: tuple[str, ...] = ()  #: patterns of cases; none: all
    live: bool = False  #: it runs no cases: it does what it is asked while it runs


class Payload:
    """What one guest boots. ``note`` is told of what its operator should know of the kernel."""

    def __init__(
        self,
        guest: LinuxGuest,
        platform: Platform,
        assets: Assets,
        note: Callable[[str], None],
        run: Run = run_command,
    ) -> None:
        self._run = run
        self.guest, self._platform, self._assets, self._note = guest, platform, assets, note
        #: Names of the cases that the guest must report, where they are known.
        self.expected: tuple[str, ...] = ()

    @cached_property
    def tree(self) -> KernelTree:
        kernel = self.guest.kernel
        tree = KernelTree(kernel if isinstance(kernel, Path) else self._assets.kernel(kernel))
        if tree.choice:
            self._note(tree.choice)
        if not tree.image.version:
            self._note(
                f"{tree.file} has no Linux's version in it; of a kernel that was cut short the guest says nothing"
            )
        return tree

    def every_case(self, lacking: str = "") -> list[Case]:
        """All cases, in their order; ``lacking`` as in linux.cases."""
        guest = self.guest
        if guest.cases is not None:
            return list(guest.cases)
        own = [linux.LOADS, *(linux.module_case(name) for name, _ in self._own_modules)]
        if guest.baseline:
            return [*own, *guest.own_cases, *linux.disk_cases([serial for serial, _ in guest.baseline])]
        return [*own, *linux.cases(self._platform, lacking, guest.own_cases)]

    def chosen_cases(self, every: Sequence[Case]) -> tuple[Case, ...]:
        """Of ``every`` case those that the operator chose, and what must precede them."""
        names = [case.name for case in every]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"the case {min(twice)} is there twice; call yours by another name")
        if not self.guest.chosen:
            return tuple(every)
        return linux.with_needed(chosen_of(self.guest.chosen, names), every)

    def initrd(self) -> bytes:
        """The archive that the kernel unpacks; UsageError when something of it cannot be had."""
        extra = [_archive(path) for path in self.guest.extra]
        if self.guest.initrd is not None:
            return initramfs.joined(_bytes(self.guest.initrd, "an initial RAM file system"), extra)
        return initramfs.joined(self._initramfs().archive(), extra)

    def _initramfs(self) -> initramfs.Initramfs:
        guest = self.guest
        if guest.live:
            return self._archive_with(linux.live(), self._modules(self._needs_of_own()))
        # Before anything is built: a name that is wrong is told of at once.
        chosen = self.chosen_cases(self.every_case())
        test_modules = {name: self._built(name) for name in guest.test_modules}
        engine: list[str] = []
        if guest.cases is None and any(case.function in linux.OF_THE_MODULE for case in chosen):
            lacking, module, engine = self._engine()
            test_modules |= module
            chosen = self.chosen_cases(self.every_case(lacking)) if lacking else chosen
        modules = self._modules([*engine, *self._needs_of_own()])
        if not modules:
            chosen = tuple(case for case in chosen if case is not linux.LOADS)
        self.expected = tuple(case.name for case in chosen)
        return self._archive_with(linux.parameters(chosen), modules, test_modules)

    def _archive_with(
        self,
        parameters: dict[str, str],
        modules: Sequence[tuple[str, bytes]],
        test_modules: dict[str, bytes] | None = None,
    ) -> initramfs.Initramfs:
        return initramfs.linux_guest(
            self._assets.busybox().read_bytes(),
            share("linux/init").read_bytes(),
            modules,
            parameters,
            test_modules,
            dict(self._own_modules),
        )

    def _needs_of_own(self) -> list[str]:
        """Modules that the operator's need."""
        return [need for _, data in self._own_modules for need in _needs(data)]

    # -- the kernel's modules --------------------------------------------------------------------------------------

    def _modules(self, further: Iterable[str]) -> list[tuple[str, bytes]]:
        """What is there of what the guest could use; a note says what is not."""
        if not self.tree.knows_modules:
            self._note(
                f"{self.tree.file} has no modules beside it, so only the guest can say what the kernel has built in"
            )
            return []
        names = self._wishes() if self.guest.modules is None else list(self.guest.modules)
        wanted = self.tree.modules([*names, *further])
        if wanted.absent:
            self._note(
                f"kernel {self.tree.image.version} has no module {', '.join(wanted.absent)}, nor is it built in; "
                "cases that need it are skipped"
            )
        return wanted.files

    def _wishes(self) -> list[str]:
        """What the cases use, where a kernel has it as a module."""
        names = [*linux.SMMU_MODULES] if self._platform.functions else []
        companions = {each.module for smmu, _, _ in self._platform.smmus for each in smmu.companions}
        names += [name for name in sorted(companions) if self.tree.has(name)]
        if self.guest.baseline or any(each.master.compatible == linux.DISK for each in self._platform.masters):
            names += linux.DISK_MODULES
            kind = next((kind for kind in linux.FILESYSTEMS if self.tree.has(kind)), linux.FILESYSTEMS[0])
            names.append(kind)
            if kind == "vfat":
                names += [name for name in linux.VFAT_MODULES if self.tree.has(name)]
        return names

    # -- modules that are built or brought -------------------------------------------------------------------------

    def _engine(self) -> tuple[str, dict[str, bytes], list[str]]:
        """Why the engine's module cannot be had, or "", the module by its name, and modules that it needs."""
        try:
            data = self._built(kmod.ENGINE)
        except UsageError as why:
            if self.guest.headers is not None and "does not compile" not in str(why):
                raise
            self._note(f"the engine's module is not to be had: {why}")
            return "the engine's module is not to be had", {}, []
        needs = _needs(data)
        if self.tree.knows_modules and (absent := self.tree.modules(needs).absent):
            self._note(f"the engine's module needs {', '.join(absent)}, which this kernel lacks")
            return "the engine's module cannot be loaded", {}, []
        return "", {kmod.ENGINE: data}, needs

    def _built(self, name: str) -> bytes:
        """A module of guest/kmod for this kernel; UsageError when it cannot be built."""
        modules = kmod.Modules(self._assets, self._headers(), self._run)
        release = self.tree.image.version
        if modules.release != release:
            raise UsageError(
                f"{self._headers()} is of kernel {modules.release} and not of {release}; name this one's with --headers"
            )
        return modules.module(name).read_bytes()

    def _headers(self) -> Path:
        """Where modules for the kernel are built."""
        guest, release = self.guest, self.tree.image.version
        if guest.headers is not None:
            if not guest.headers.is_dir():
                raise UsageError(f"{guest.headers} is no folder; name one with the headers of kernel {release}")
            return kmod.find_headers(guest.headers, release)
        if isinstance(guest.kernel, str) and guest.kernel in FLAVOURS:
            return self._assets.headers(guest.kernel)
        if found := self.tree.header_folders():
            return found[0]
        raise UsageError(
            f"beside kernel {release} are no headers; name its build folder, or the folder into which its "
            "linux-headers were unpacked, with --headers"
        )

    @cached_property
    def _own_modules(self) -> list[tuple[str, bytes]]:
        """The operator's modules by their names; UsageError for one that this kernel cannot take."""
        return [self._own_module(path, self.tree.image.version) for path in self.guest.own_modules]

    def _own_module(self, path: Path, release: str) -> tuple[str, bytes]:
        return own_module(path, release, self._note)


def own_module(path: Path, release: str, note: Callable[[str], None]) -> tuple[str, bytes]:
    """The name and the bytes of a kernel module; UsageError where the kernel ``release`` cannot take it."""
    data = _bytes(path, "a kernel module (.ko)")
    data = decompressed(data, path) or data
    info = dict(entry.split("=", 1) for entry in modinfo(data, path) if "=" in entry)
    if "vermagic" not in info:
        raise UsageError(f"{path} is not a kernel module that was linked; name the .ko that 'make modules' made")
    if not is_for_arm64(data):
        raise UsageError(f"{path} is for another processor; build it with ARCH=arm64 and CROSS_COMPILE")
    built, *marks = info["vermagic"].split()
    if built != release and "modversions" not in marks:
        raise UsageError(f"{path} was built for kernel {built}, and this is {release}; build it for this one")
    if built != release:
        note(f"{path} was built for kernel {built}: {release} takes it if the versions of its symbols agree")
    return info.get("name", re.sub(r"\.ko.*", "", path.name)).replace("-", "_"), data


def _needs(module: bytes) -> list[str]:
    return needed_modules(modinfo(module, Path("module.ko")))


def _archive(path: Path) -> bytes:
    """A cpio archive as a kernel takes it behind another."""
    data = _bytes(path, "a cpio archive")
    data = decompressed(data, path) or data
    if not data.startswith((*_CPIO, *_OTHER_COMPRESSIONS)):
        raise UsageError(f"{path} is no cpio archive that a kernel takes; make one with 'find . | cpio -o -H newc'")
    return data


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as why:
        raise UsageError(f"{path}: {why.strerror}; name {what}") from None
