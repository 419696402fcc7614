# SPDX-License-Identifier: Apache-2.0
"""``declared.h``: the declarations for the compiled core, in C; ``python -m vhost_iommu.header [--check]``.

Law: the header holds nothing that the declarations do not, so it is regenerated, never edited. A field of a layout
becomes an inline function of the layout's words, named LAYOUT_FIELD; a value of an enumeration VI_ENUM_NAME.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path

from .layout import Field, Layout
from .masters import virtio, virtio_blk, virtio_mmio
from .models import MODELS
from .smmu import descriptors

HEADER = Path(__file__).parent / "_core" / "declared.h"

#: Of these the core reads fields: structures and commands from words, registers and descriptors from one.
LAYOUTS: tuple[type[Layout], ...] = (
    descriptors.TableDescriptor,
    descriptors.S1LeafDescriptor,
    descriptors.S2LeafDescriptor,
    *(layout for model in MODELS.values() for layout in model.layouts),
    virtio.DescFlags,
    virtio.AvailFlags,
    virtio_mmio.InterruptStatus,
)

ENUMS: tuple[type[IntEnum], ...] = (
    *(enum for model in MODELS.values() for enum in model.enums),
    virtio_blk.RequestType,
    virtio_blk.RequestStatus,
)


def text() -> str:
    """The whole header."""
    lines = [
        "/* SPDX-License-Identifier: Apache-2.0 */",
        "/* Written by `python -m vhost_iommu.header`; edit the declarations instead. */",
        "#ifndef VI_DECLARED_H",
        "#define VI_DECLARED_H",
        "",
        "#include <stdint.h>",
        "",
        *_enums(ENUMS),
    ]
    for layout in LAYOUTS:
        lines += _layout(layout)
    return "\n".join([*lines, "#endif", ""])


def _enums(enums: Iterable[type[IntEnum]]) -> Iterator[str]:
    for enum in enums:
        yield f"enum {enum.__name__} {{"
        for member in enum:
            yield f"    VI_{enum.__name__}_{member.name} = {int(member):#x},"
        yield "};"
        yield ""


def _layout(layout: type[Layout]) -> Iterator[str]:
    wide = layout.size > 8
    name = layout.__name__
    yield f"/* {name}: {layout.size} bytes */"
    yield f"#define VI_{name}_SIZE {layout.size}"
    for f in layout.fields:
        if not wide:
            yield f"#define VI_{name}_{f.name} UINT64_C({f.mask:#x})"
        raw = "const uint64_t *words" if wide else "uint64_t raw"
        yield f"static inline uint64_t {name}_{f.name}({raw}) {{ return {_value(f, wide)}; }}"
    yield ""


def _value(f: Field, wide: bool) -> str:
    word, lsb = divmod(f.lsb, 64)
    source = f"words[{word}]" if wide else "raw"
    parts = source if lsb == 0 else f"{source} >> {lsb}"
    if lsb + f.width > 64:
        # No field is wider than a word's worth, but some cross from one word into the next.
        if f.width > 64:
            return source
        parts = f"({parts} | words[{word + 1}] << {64 - lsb})"
    value = parts if f.width == 64 else f"({parts}) & UINT64_C({(1 << f.width) - 1:#x})"
    return f"({value}) << {f.low}" if f.low else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the header, or with ``--check`` say that it is stale (exit code 1)."""
    parser = argparse.ArgumentParser(prog="python -m vhost_iommu.header", description=f"Write {HEADER.name}.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the header is stale")
    if parser.parse_args(arguments).check:
        stale = not HEADER.is_file() or HEADER.read_text(encoding="utf-8") != text()
        if stale:
            print(f"{HEADER} is stale; run python -m vhost_iommu.header", file=sys.stderr)
        return int(stale)
    HEADER.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
