# SPDX-License-Identifier: Apache-2.0
"""The boot shim's instructions, which Python lists as words, against an assembler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from elftools.elf.elffile import ELFFile

from vhost_iommu.guest import shim
from vhost_iommu.guest.assets import Assets


def test_an_assembler_makes_the_shims_very_words(assets: Assets, tmp_path: Path) -> None:
    cross = assets.cross()
    source, made = tmp_path / "shim.s", tmp_path / "shim.o"
    source.write_text(shim.source())
    subprocess.run([*cross.cc, "-c", "-o", str(made), str(source)], env={**os.environ, **cross.env}, check=True)
    with made.open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        assert text is not None
        assembled = text.data()
    assert assembled.hex(" ", 4) == shim.code().hex(" ", 4)
