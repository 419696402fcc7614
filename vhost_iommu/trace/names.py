# SPDX-License-Identifier: Apache-2.0
"""Names of slices, which say what happened without a look at the details."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..layout import Layout
from ..watch import Fetched, Filled, Moved, Reported, Served, Stalled, Translated
from .slices import Args
from .text import fields, stream

#: What tells a command from others of its name; an address needs no word before it.
_TELLING = ("VMID", "ASID", "SID", "SSID", "STAG", "Resp")
_ADDRESS = "Address"
#: Kinds of commands that a burst's name has.
_MOST_KINDS = 3
_FLAGS = ("user", "writable", "readable", "clean", "", "not global", "PXN", "UXN")
_REQUESTS = {"IN": "read", "OUT": "write"}


def size_of(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def hexed(values: Args) -> dict[str, float | str]:
    """Numbers as people read addresses."""
    return {name: hex(value) if isinstance(value, int) else value for name, value in values.items()}


def way(write: bool) -> str:
    return "write" if write else "read"


def of_command(command: Layout) -> str:
    """``CMD_TLBI_NH_VA ASID 0x1 0xffffffffe000``."""
    values = fields(command)
    said = [f"{name} {values[name]:#x}" for name in _TELLING if values.get(name)]
    if _ADDRESS in values:
        said.append(f"{values[_ADDRESS]:#x}")
    return " ".join([type(command).__name__, *said])


def of_burst(commands: Sequence[str]) -> str:
    """``3 commands: CMD_TLBI_NH_VA ×2, CMD_SYNC``."""
    kinds = Counter(commands)
    said = [f"{name} ×{count}" if count > 1 else name for name, count in kinds.most_common(_MOST_KINDS)]
    more = ["…"] if len(kinds) > _MOST_KINDS else []
    return f"{len(commands)} command{'s' if len(commands) != 1 else ''}: {', '.join(said + more)}"


def of_event(it: Reported) -> str:
    return it.record.text() + ("" if it.kept else " (lost)")


def of_structure(it: Fetched) -> str:
    return f"{type(it.structure).__name__} of {of_stream(it.sid, it.ssid)}"


def of_stream(sid: int, ssid: int | None) -> str:
    return f"{sid:#x}" if ssid is None else f"{sid:#x}.{ssid:#x}"


def of_translation(it: Translated) -> str:
    failed = "" if it.outcome == "ok" else f": {it.outcome}"
    return f"{way(it.write)} {size_of(it.size)} at {it.iova:#x}{failed}"


def of_walk(it: Filled) -> str:
    return f"walk of stage {it.stage}: {it.base:#x} is {it.output:#x}, {size_of(1 << it.shift)}"


def walk_args(it: Filled) -> dict[str, float | str]:
    space = {"vmid": it.vmid, **({} if it.asid is None else {"asid": it.asid})}
    flags = ", ".join(name for bit, name in enumerate(_FLAGS) if name and it.flags >> bit & 1)
    whose = {} if it.sid is None else stream(it.sid, it.ssid)
    where = {"base": it.base, "output": it.output, "descriptor": it.descriptor, "at": it.descriptor_at}
    return {**hexed({**whose, **space, **where}), "size": 1 << it.shift, "level": it.level, "flags": flags}


def of_request(it: Served) -> str:
    size, sector = it.fields.get("size"), it.fields.get("sector")
    said = [_REQUESTS.get(it.request, it.request.lower())]
    if isinstance(size, int) and size:
        said.append(size_of(size))
    if sector is not None and (size or sector):
        said.append(f"sector {sector}")
    return " ".join(said) + ("" if it.status == "OK" else f": {it.status}")


def of_transfer(it: Moved) -> str:
    if it.why is None:
        return f"{way(it.write)} {size_of(it.size)} at {it.iova:#x}"
    return f"{way(it.write)} at {it.iova + it.done:#x}: {it.why}"


def of_stall(it: Stalled) -> str:
    tag = "" if it.stag is None else f", STAG {it.stag:#x}"
    return f"stalled {way(it.write)} of {it.sid:#x} at {it.iova:#x}{tag}"


def of_note(name: str, given: Mapping[str, float | str]) -> str:
    """What is noted, with what little it says of itself."""
    said = given.get("what") or given.get("why")
    return f"{name}: {said}" if said else name
