# SPDX-License-Identifier: Apache-2.0
"""Arm64 kernels as they lie on disk: the raw Image inside a file, and the modules beside it.

Law: whatever the form, a caller gets the raw Image and decompressed modules in the order of insertion, or
a UsageError that names what is wrong with the path he gave.
"""

from __future__ import annotations

import lzma
import re
import struct
import zlib
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
        banner = re.search(rb"Linux version (\d[^ \0]*)", image)
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
    raise UsageError(f"{path} is not an arm64 kernel; name an Image, an Image.gz or a vmlinuz built for arm64")


def _unwrap(data: bytes, path: Path) -> bytes | None:
    """What is inside one layer of compression, or None if there is no such layer."""
    if len(data) >= _ZBOOT.size:
        mz, zimg, offset, size, _ = _ZBOOT.unpack_from(data)
        if (mz, zimg) == (b"MZ", b"zimg"):
            if offset + size > len(data):
                raise UsageError(f"{path} is cut short; copy it again")
            data = data[offset : offset + size]
    return _decompress(data, path)


def _decompress(data: bytes, path: Path) -> bytes | None:
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


class KernelTree:
    """A kernel given as a file, a build folder, or a folder with a distribution's packages unpacked."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise UsageError(f"{path} does not exist; name a kernel file, a build folder or unpacked packages")
        self.path = path

    def image(self) -> KernelImage:
        """The kernel itself."""
        return KernelImage.parse(load_image(self._image_file()))

    def modules(self, names: list[str]) -> list[tuple[str, bytes]]:
        """The modules ``names`` and what they need, each before those that need it, as (name, bytes).

        A module that is built in is left out. Dependencies come from the modules themselves, from which
        depmod would make modules.dep too: unpacked packages have none.
        """
        chosen: dict[str, bytes] = {}
        entered: set[str] = set()
        for name in names:
            self._choose(name, chosen, entered)
        return list(chosen.items())

    def _choose(self, name: str, chosen: dict[str, bytes], entered: set[str]) -> None:
        name = _module_name(name)
        if name in entered or name in self._builtin:
            return
        entered.add(name)
        if name not in self._files:
            raise UsageError(f"{self.path} has no module {name}; build it or take a kernel that has it")
        data = self._read(self._files[name])
        info = _modinfo(data, self._files[name])
        for needed in [*self._wished(info), *_needed(info)]:
            self._choose(needed, chosen, entered)
        chosen[name] = data

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

    def _image_file(self) -> Path:
        if self.path.is_file():
            return self.path
        patterns = ("arch/arm64/boot/Image", "arch/arm64/boot/Image.*", "arch/arm64/boot/vmlinuz*",
                    "boot/vmlinuz*", "boot/Image*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz",
                    "vmlinuz*", "Image*")  # fmt: skip
        for pattern in patterns:
            # -dbg and .old files sort behind the one that counts.
            found = sorted(file for file in self.path.glob(pattern) if file.is_file())
            if found:
                return found[0]
        raise UsageError(
            f"{self.path} holds no kernel; build one there (make ARCH=arm64 Image) or name the folder "
            "into which its packages were unpacked"
        )

    @cached_property
    def _module_root(self) -> Path | None:
        """The folder with modules.builtin, or None if there are no modules."""
        for folder in self._module_roots():
            if (folder / "modules.order").exists() or (folder / "modules.builtin").exists():
                return folder
        return None

    def _module_roots(self) -> list[Path]:
        """Where modules may be: in the folder, or, for a file, where its package or build has put them beside it."""
        if self.path.is_dir():
            return [self.path, *self.path.glob("lib/modules/*"), *self.path.glob("usr/lib/modules/*")]
        release = self.image().version
        above = self.path.resolve().parents
        roots = [up / name / release for up in above[:2] for name in ("lib/modules", "usr/lib/modules")]
        if above[0].name == release:  # usr/lib/modules/RELEASE/vmlinuz
            roots.append(above[0])
        if above[0].parts[-3:] == ("arch", "arm64", "boot"):
            roots.append(above[3])
        return roots

    @cached_property
    def _builtin(self) -> set[str]:
        return {_module_name(line) for line in self._lines("modules.builtin")}

    @cached_property
    def _files(self) -> dict[str, Path]:
        root = self._module_root
        if root is None:
            return {}
        if (root / "arch/arm64").is_dir():  # a build folder: its list is quicker than a walk over the source
            listed = (root / re.sub(r"\.o$", ".ko", line) for line in self._lines("modules.order"))
            return {_module_name(file.name): file for file in listed if file.is_file()}
        return {_module_name(file.name): file for file in root.rglob("*.ko*")}

    def _lines(self, name: str) -> list[str]:
        root = self._module_root
        file = root / name if root is not None else None
        return file.read_text().split() if file is not None and file.exists() else []

    @staticmethod
    def _read(file: Path) -> bytes:
        data = file.read_bytes()
        inner = _decompress(data, file)
        return data if inner is None else inner


def _modinfo(module: bytes, file: Path) -> list[str]:
    """The key=value texts of a module's .modinfo section."""
    try:
        section = ELFFile(BytesIO(module)).get_section_by_name(".modinfo")
        data: bytes = section.data() if section is not None else b""
    except ELFError as why:
        raise UsageError(f"{file} is not a kernel module ({why}); build or fetch it again") from None
    return [entry.decode("latin-1") for entry in data.split(b"\0") if entry]


def _needed(info: list[str]) -> list[str]:
    return [name for entry in info if entry.startswith("depends=") for name in entry[8:].split(",") if name]
