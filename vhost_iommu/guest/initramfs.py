# SPDX-License-Identifier: Apache-2.0
"""Initial RAM file systems: newc cpio archives in pure Python.

Law: the same content gives the same bytes on every host (no time, no owner, no inode of the host), and folders
appear before what is in them. The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

TRAILER = "TRAILER!!!"
#: Commands that the init script uses before busybox has installed its links.
LINKS = ("sh",)


@dataclass(frozen=True)
class Entry:
    """One file: its mode with type, its content (a symlink's target), and a device node's numbers."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


class Initramfs:
    """Files by absolute path; missing parents are made with mode 0755."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        self._add(path, Entry(stat.S_IFDIR | mode))

    def file(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        self._add(path, Entry(stat.S_IFREG | mode, data.encode() if isinstance(data, str) else data))

    def symlink(self, path: str, target: str) -> None:
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._add(path, Entry(stat.S_IFCHR | mode, device=(major, minor)))

    def _add(self, path: str, entry: Entry) -> None:
        """ValueError: the path is not absolute and plain, or is there already."""
        pure = PurePosixPath(path)
        if not pure.is_absolute() or ".." in pure.parts or str(pure) != path or path == "/":
            raise ValueError(f"{path!r} is not a plain absolute path")
        for parent in reversed(pure.parents[:-1]):
            known = self._entries.setdefault(str(parent), Entry(stat.S_IFDIR | 0o755))
            if not stat.S_ISDIR(known.mode):
                raise ValueError(f"{path}: {parent} is not a directory")
        known_entry = self._entries.get(path)
        if known_entry is not None and not (stat.S_ISDIR(known_entry.mode) and stat.S_ISDIR(entry.mode)):
            raise ValueError(f"{path} is there already")
        self._entries[path] = entry

    def archive(self) -> bytes:
        """The cpio archive. Not compressed: any kernel takes it, and unpacking costs a guest more than reading."""
        return b"".join(self._parts())

    def _parts(self) -> Iterator[bytes]:
        paths = sorted(self._entries)
        size = 0
        for inode, path in enumerate(paths, 1):
            record = _record(path.lstrip("/"), self._entries[path], inode)
            size += len(record)
            yield record
        end = _record(TRAILER, Entry(0), 0)
        yield end
        yield bytes(-(size + len(end)) % 512)


def joined(first: bytes, further: Sequence[bytes]) -> bytes:
    """Archives behind each other, of which a kernel unpacks each over those before it."""
    return b"".join(map(_padded, (first, *further)))


def _record(name: str, entry: Entry, inode: int) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode, entry.mode, 0, 0, links, 0, len(entry.data),
        0, 0, *entry.device, len(encoded), 0,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    return _padded(header) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def linux_guest(
    busybox: bytes,
    init: bytes,
    modules: Sequence[tuple[str, bytes]] = (),
    parameters: Mapping[str, str] | None = None,
    test_modules: Mapping[str, bytes] | None = None,
    own_modules: Mapping[str, bytes] | None = None,
) -> Initramfs:
    """A guest of busybox: ``init`` as /init, modules numbered in the order of insertion, parameters in /etc/vt.

    ``test_modules`` and the operator's ``own_modules`` are inserted by cases only.
    """
    root = Initramfs()
    for folder in ("/dev", "/proc", "/sys", "/mnt", "/tmp", "/etc/vt", "/lib/vt-modules", "/root"):
        root.directory(folder)
    root.character_device("/dev/console", 5, 1)
    root.character_device("/dev/null", 1, 3, 0o666)
    root.file("/bin/busybox", busybox, 0o755)
    for name in LINKS:
        root.symlink(f"/bin/{name}", "busybox")
    root.file("/init", init, 0o755)
    for index, (name, data) in enumerate(modules):
        root.file(f"/lib/vt-modules/{index:03}-{name}.ko", data)
    root.character_device("/dev/urandom", 1, 9, 0o666)
    for folder, files in (("vt-tests", test_modules), ("vt-own", own_modules)):
        for name, data in (files or {}).items():
            root.file(f"/lib/{folder}/{name}.ko", data)
    for name, value in (parameters or {}).items():
        root.file(f"/etc/vt/{name}", value if value.endswith("\n") else f"{value}\n")
    return root
