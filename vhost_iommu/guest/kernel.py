# SPDX-License-Identifier: Apache-2.0
"""Arm64 kernels as they lie on disk: the raw Image inside a file, the modules and the headers beside it.

Law: whatever the form, a caller gets the raw Image, or a UsageError that names what is wrong with the path he gave.
Modules are wishes: those that are there come decompressed and in the order of insertion, the others are named.
"""

from __future__ import annotations

import lzma
import os
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import zstandard
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from vhost_iommu.errors import UsageError

# Documentation/arch/arm64/booting.rst: code0, code1, text_offset, image_size, flags, three reserved, magic.
_HEADER = struct.Struct("<4x4xQQQ24x4s")
_MAGIC = b"ARM\x64"
# drivers/firmware/efi/libstub/zboot-header.S: MZ, "zimg", offset, size, two reserved, compression's name.
_ZBOOT = struct.Struct("<2s2x4sII8x32s")


@dataclass(frozen=True)
class KernelImage:
    """A raw arm64 Image and what its header says; sizes in bytes, ``page_size`` 0 where it does not say."""

    image: bytes
    text_offset: int
    image_size: int
    page_size: int
    version: str

    @classmethod
    def parse(cls, image: bytes) -> KernelImage:
        """Read the header of a raw Image, as load_image returns it."""
        text_offset, image_size, flags, magic = _HEADER.unpack_from(image)
        if magic != _MAGIC:
            raise ValueError("not an arm64 Image")
        page_size = (0, 4096, 16384, 65536)[flags >> 1 & 3]
        banner = re.search(rb"Linux version (\d[!-~]*)", image)
        return cls(image, text_offset, image_size, page_size, banner[1].decode("latin-1") if banner else "")


def load_image(path: Path) -> bytes:
    """The raw arm64 Image in ``path``, which may be compressed or an EFI zboot application."""
    try:
        data = path.read_bytes()
    except OSError as why:
        raise UsageError(f"{path}: {why.strerror}; name a readable arm64 kernel") from None
    # A distribution may compress a zboot application once more; nothing has more layers than that.
    for _ in range(3):
        if data[56:60] == _MAGIC:
            return data
        inner = _unwrap(data, path)
        if inner is None:
            break
        data = inner
    what = "an ELF file, which is for debuggers, and " if data.startswith(b"\x7fELF") else ""
    raise UsageError(f"{path} is {what}not an arm64 kernel; name an Image, an Image.gz or a vmlinuz built for arm64")


def _unwrap(data: bytes, path: Path) -> bytes | None:
    """What is inside one layer of compression, or None if there is no such layer."""
    if len(data) >= _ZBOOT.size:
        mz, zimg, offset, size, _ = _ZBOOT.unpack_from(data)
        if (mz, zimg) == (b"MZ", b"zimg"):
            if offset + size > len(data):
                raise UsageError(f"{path} is cut short; copy it again")
            data = data[offset : offset + size]
    return decompressed(data, path)


def decompressed(data: bytes, path: Path) -> bytes | None:
    """``data`` decompressed by the method that its first bytes name, or None if they name none.

    What follows the compressed stream (a zboot payload's size, say) is ignored.
    """
    try:
        if data.startswith(b"\x1f\x8b"):
            stream = zlib.decompressobj(wbits=31)
            out, ended = stream.decompress(data), stream.eof
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            frame = zstandard.ZstdDecompressor().decompressobj()
            out, ended = frame.decompress(data), frame.eof
        elif data.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
            decoder = lzma.LZMADecompressor()
            out, ended = decoder.decompress(data), decoder.eof
        else:
            return None
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError) as why:
        raise UsageError(f"{path} is damaged ({why}); copy or fetch it again") from None
    if not ended:
        raise UsageError(f"{path} is cut short; copy or fetch it again")
    return out


def _module_name(file: str) -> str:
    """A module's name from its file's: the kernel holds - and _ to be the same."""
    return re.sub(r"\.(ko|o)(\.\w+)?$", "", file.rpartition("/")[2]).replace("-", "_")


@dataclass(frozen=True)
class Wanted:
    """What a kernel has of the modules that were asked for."""

    files: list[tuple[str, bytes]]  #: (name, bytes), each after those that it needs
    absent: list[str]  #: neither there nor built in


class KernelTree:
    """A kernel given as a file, a build folder, a folder with packages unpacked, or a tree that it is installed in.

    ``choice`` says which kernel was taken, where there are several.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise UsageError(
                f"{path} does not exist; name a kernel file, a build folder, unpacked packages or an installed tree"
            )
        self.path = path
        self.choice = ""
        self.file = path if path.is_file() else self._find()

    @cached_property
    def image(self) -> KernelImage:
        """The kernel itself."""
        return KernelImage.parse(load_image(self.file))

    @property
    def knows_modules(self) -> bool:
        """Whether there is anything that says which modules the kernel has."""
        return self._module_root is not None

    def modules(self, names: Iterable[str]) -> Wanted:
        """Of the modules ``names`` those that are there, with what they need; what is built in is left out.

        Dependencies come from the modules themselves, from which depmod would make modules.dep too: unpacked
        packages have none.
        """
        wanted = Wanted([], [])
        entered: dict[str, str] = {}
        for name in names:
            lack = self._choose(_module_name(name), wanted.files, entered)
            if lack and lack not in wanted.absent:
                wanted.absent.append(lack)
        return wanted

    def has(self, name: str) -> bool:
        """Whether a module is there, with all that it needs, or built in."""
        return not self.modules([name]).absent

    def _choose(self, name: str, chosen: list[tuple[str, bytes]], entered: dict[str, str]) -> str:
        """Add the module and what it needs; what is absent of these, or ""."""
        if name in self._builtin:
            return ""
        if name in entered:
            return entered[name]
        if name not in self._files:
            entered[name] = name
            return name
        entered[name] = ""  # modules that need each other come to an end
        data = self._read(self._files[name])
        info = modinfo(data, self._files[name])
        for wished in self._wished(info):
            self._choose(wished, chosen, entered)
        for needed in needed_modules(info):
            if lack := self._choose(_module_name(needed), chosen, entered):
                entered[name] = f"{name} (which needs {lack})"
                return entered[name]
        chosen.append((name, data))
        return ""

    def _wished(self, info: list[str]) -> list[str]:
        """Modules that one asks for by softdep: it works without, so they may be missing.

        Without a modprobe in the guest nobody else would load them. An algorithm is asked for by its
        name (crypto-crc32c), which its portable form carries with _generic.
        """
        found = []
        for entry in info:
            if entry.startswith("softdep="):
                before = re.search(r"pre:([^:]*)(?:\bpost:|$)", entry)
                for wish in before[1].split() if before else []:
                    name = _module_name(wish.removeprefix("crypto-"))
                    found += [each for each in (name, f"{name}_generic") if each in self._files][:1]
        return found

    def _find(self) -> Path:
        """The kernel in the folder: what was built there, else the newest of those that are installed."""
        for pattern in ("arch/arm64/boot/Image", "arch/arm64/boot/Image.*", "arch/arm64/boot/vmlinuz*"):
            if built := sorted(file for file in self.path.glob(pattern) if file.is_file()):
                return built[0]
        for patterns in (
            ("boot/vmlinuz-*", "boot/Image-*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz"),
            ("boot/vmlinuz*", "boot/Image*", "vmlinuz*", "Image*"),
        ):
            # Links (vmlinuz, vmlinuz.old) and copies beside the modules are kernels that are there already.
            files = (file for each in patterns for file in sorted(self.path.glob(each)) if file.is_file())
            named = {_named_release(file.resolve()): file for file in files}
            found = [named[release] for release in sorted(named, key=_newness)]
            if found:
                if len(found) > 1:
                    self.choice = (
                        f"{self.path} holds {len(found)} kernels; {found[-1].relative_to(self.path)} is taken, which "
                        "is the newest; name another by its file"
                    )
                return found[-1]
        raise UsageError(
            f"{self.path} holds no kernel; build one there (make ARCH=arm64 Image), or name the folder into which "
            "packages were unpacked or installed"
        )

    @cached_property
    def _module_root(self) -> Path | None:
        """The folder with modules.builtin and modules.order of this very kernel, or None if there is none."""
        for folder in self._module_roots():
            if (folder / "modules.order").exists() or (folder / "modules.builtin").exists():
                return folder
        return None

    def _module_roots(self) -> list[Path]:
        """Where its modules may be: its build put them beside it, its package under its release."""
        if (build := self.build_folder) is not None:
            return [build]
        release = self.image.version
        beside = self.file.resolve().parent
        roots = [top / name / release for top in self._tops for name in ("lib/modules", "usr/lib/modules")]
        return [beside, *roots] if beside.name == release else roots  # usr/lib/modules/RELEASE/vmlinuz

    @property
    def _tops(self) -> list[Path]:
        """Folders that hold a kernel's tree, or would: the one that was given, and those around the kernel's file."""
        around = self.file.resolve().parents[:2]
        return list(dict.fromkeys([self.path, *around])) if self.path.is_dir() else list(around)

    @cached_property
    def build_folder(self) -> Path | None:
        """Where the kernel was built, if it still lies there."""
        file = self.file.resolve()
        return file.parents[3] if file.parts[-4:-1] == ("arch", "arm64", "boot") else None

    def header_folders(self) -> list[Path]:
        """Where modules for this very kernel may be built, the likeliest first."""
        if (build := self.build_folder) is not None:
            return [build]
        release = self.image.version
        found = [] if self._module_root is None else [self._module_root / "build"]
        # In a tree that is installed elsewhere than at / that link leads astray, and what it means is below the top.
        found += [top / name / f"linux-headers-{release}" for top in self._tops for name in ("usr/src", "")]
        return [folder for folder in found if folder.is_dir()]

    @cached_property
    def _builtin(self) -> set[str]:
        return {_module_name(line) for line in self._lines("modules.builtin")}

    @cached_property
    def _files(self) -> dict[str, Path]:
        root = self._module_root
        if root is None:
            return {}
        if root == self.build_folder:  # its list is quicker than a walk over the source
            listed = (root / re.sub(r"\.o$", ".ko", line) for line in self._lines("modules.order"))
            return {_module_name(file.name): file for file in listed if file.is_file()}
        # "build" and "source" are links to much else, which a walk does not follow.
        return {
            _module_name(name): Path(folder, name)
            for folder, _, names in os.walk(root)
            for name in names
            if re.search(r"\.ko(\.\w+)?$", name)
        }

    def _lines(self, name: str) -> list[str]:
        root = self._module_root
        file = root / name if root is not None else None
        return file.read_text().split() if file is not None and file.exists() else []

    @staticmethod
    def _read(file: Path) -> bytes:
        data = file.read_bytes()
        inner = decompressed(data, file)
        return data if inner is None else inner


def _named_release(file: Path) -> str:
    """The release that a kernel's file is named by: boot/vmlinuz-RELEASE, modules/RELEASE/vmlinuz."""
    _, mark, release = file.name.partition("-")
    return release if mark else file.parent.name


def _newness(release: str) -> list[tuple[int, int, str]]:
    """A key that sorts releases by age: 6.9 before 6.12-rc1 before 6.12.old before 6.12 before 6.12.1."""
    parts: list[tuple[int, int, str]] = []
    for digits, text in re.findall(r"(\d+)|(\D+)", release):
        kind = 3 if digits else 0 if text.startswith(("-rc", ".old")) else 2
        parts.append((kind, int(digits or 0), text))
    return [*parts, (1, 0, "")]


def modinfo(module: bytes, file: Path) -> list[str]:
    """The key=value texts of a module's .modinfo section."""
    try:
        section = ELFFile(BytesIO(module)).get_section_by_name(".modinfo")
        data: bytes = section.data() if section is not None else b""
    except ELFError as why:
        raise UsageError(f"{file} is not a kernel module ({why}); build or fetch it again") from None
    return [entry.decode("latin-1") for entry in data.split(b"\0") if entry]


def needed_modules(info: list[str]) -> list[str]:
    return [name for entry in info if entry.startswith("depends=") for name in entry[8:].split(",") if name]


def is_for_arm64(module: bytes) -> bool:
    """Whether an ELF file is for AArch64."""
    return str(ELFFile(BytesIO(module))["e_machine"]) == "EM_AARCH64"
