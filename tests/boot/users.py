# SPDX-License-Identifier: Apache-2.0
"""Commands of an ordinary user's, also where root runs the tests and keeps the interpreter below its own home.

Law: such a user sees what the program is made of, as its modes have it, and has a folder; nothing else is root's.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import missing

HERE = Path(__file__).parents[2]
#: Who everybody knows, and whom no machine knows.
NOBODY, NAMELESS = 65534, 54321


def as_user(uid: int, command: Sequence[str], folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with all of its temporary files in ``folder``; as root's user ``uid``, or else as who one is."""
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder), "VI_CACHE": str(cache)}
    if os.geteuid() == 0:
        os.chown(folder, uid, uid)
        drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
        view = _view((HERE, Path(sys.prefix), Path(sys.base_prefix), cache), folder.with_name(f"{folder.name}.view"))
        command = ["unshare", "--mount", "sh", "-ec", f'{view}\nexec {shlex.join(drop)} "$@"', "sh", *command]
        if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
            missing("a mount namespace, in which another user sees what is below root's home; be no root")
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=300)


def _view(wanted: Sequence[Path], aside: Path) -> str:
    """Shell lines that put an empty folder in the place of each that is root's alone, with what is wanted in it."""
    lines: list[str] = []
    for hidden in {found for each in wanted if (found := _hidden(each)) is not None}:
        lines += [f"mkdir -p {aside}", f"mount --rbind {hidden} {aside}", f"mount -t tmpfs -o mode=755 view {hidden}"]
        for each in wanted:
            if each.is_relative_to(hidden):
                lines += [f"mkdir -p {each}", f"mount --rbind {aside}/{each.relative_to(hidden)} {each}"]
        lines += [f"umount -l {aside}", f"rmdir {aside}"]
    return "\n".join(lines)


def _hidden(path: Path) -> Path | None:
    """The outermost folder on the way that not everybody may pass."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)
