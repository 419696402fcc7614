# SPDX-License-Identifier: Apache-2.0
"""Machine files: TOML that says which guest runs, which SMMUs it finds, and which masters are behind them.

Law: what cannot work is refused here, before anything starts, in one sentence that names file, table and key
and says the mend. Each table's keys are one declared set; an SMMU's are its model's features and options besides.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .errors import UsageError
from .lab.faults import Fault
from .models import DEFAULT, MODELS
from .smmu.model import Traits

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_Table = TypeVar("_Table")


class Size(int):
    """Bytes; a file may say "512M"."""


_DAY = 24 * 60 * 60
#: Of a whole number without its sign, as TOML has them, and the host's files.
_BITS = 63
#: Of the engine's address translation cache; an invalidation looks at each.
MOST_ATC_ENTRIES = 4096
#: Of which a disk has a whole number.
_SECTOR = 512
#: Of what a driver can tell apart; each has registers of its own.
_MOST_QUEUES = 1024
#: Versions of the interrupt controller.
GICS = (2, 3)
_1M, _16M, _512M = Size(1 << 20), Size(16 << 20), Size(512 << 20)


@dataclass(frozen=True)
class GuestConfig:
    """What boots. ``kind`` "bare" runs ``elf``, a program of guest/bare; "linux" runs a kernel."""

    kind: Literal["linux", "bare"]
    memory: Size = _512M
    cpu: str = "cortex-a76"
    smp: int = 1
    #: The CPUs have EL2, and the guest begins there.
    virtualization: bool = False
    #: The version of the interrupt controller: 2, or 3, which has more than eight CPUs.
    gic: int = 2
    #: Added to the kernel's command line.
    append: str = ""
    #: Name of a program in guest/bare, or a path.
    elf: str | None = None
    #: A Debian kernel that ``Assets.kernel`` knows ("6.12"), or a path to what ``KernelTree`` takes.
    kernel: str = "6.12"
    #: Of the kernel, where the file knows it; ``check_kernel`` is for one that is known later.
    page_size: Size | None = None
    #: Seconds that a whole run of the guest may take, from QEMU's start to its end; then it is taken for dead.
    timeout: int = 120
    #: What makes a guest pass that does not speak KTAP: a pattern of a console line, or that it turns itself off.
    success: str | None = None
    failure: str | None = None
    exit_only: bool = False


@dataclass(frozen=True)
class SmmuConfig:
    """One SMMU. ``features`` are arguments of its model's, ``id_registers`` override what follows from them."""

    name: str
    traits: Traits
    options: Any  #: of its model
    model: str = DEFAULT
    #: Features to begin with, by a name in the model's presets; keys of the table replace single ones.
    preset: str | None = None
    #: Seconds after which a stalled transaction that software has not answered is told in the log; 0: never.
    stall_watchdog: float = 5.0
    #: How interrupts reach the guest: as messages that its driver sets up, on wired lines, each of which pulses, or all
    #: of them on the PCI function's one line, which is a level. What it is unless said, and can be, is its model's.
    interrupts: Literal["msi", "wired", "line"] = "msi"
    id_registers: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What a table of one kind of master may say besides."""


@dataclass(frozen=True)
class BlockOptions(Options):
    """A virtio-blk disk, in the file ``image`` or, without one, in memory that is lost with the daemon."""

    #: None: as large as ``image``; there always is one or the other.
    size: Size | None = None
    #: A path; a relative one is from where the command was given.
    image: str | None = None
    #: Make the file, or lengthen it, where it is not there or shorter than ``size``.
    create: bool = False
    read_only: bool = False
    #: Request queues.
    queues: int = 1


@dataclass(frozen=True)
class EngineOptions(Options):
    """Of the DMA engine's address translation cache, which it has if its SMMU has ATS."""

    #: Translations that it holds; 0: the engine has none.
    atc_entries: int = 64
    #: What becomes of invalidation requests until the guest says otherwise in the engine's registers.
    atc_invalidations: Literal["complete", "hold", "time-out"] = "complete"


@dataclass(frozen=True)
class MasterConfig:
    """One DMA master; ``smmu`` None: its DMA is not translated. ``options`` are its kind's."""

    name: str
    kind: Literal["engine", "virtio-blk"]
    smmu: str | None = None
    stream_ids: tuple[int, ...] = ()
    #: Bits of the PASIDs (SubstreamIDs) that its transactions can carry, as its firmware says.
    pasid_bits: int = 0
    #: It can wait for a stalled transaction, as its firmware says.
    can_stall: bool = False
    options: Options = field(default_factory=EngineOptions)


OPTIONS: Mapping[str, type[Options]] = {
    "virtio-blk": BlockOptions,
    "engine": EngineOptions,
}


#: The PCI function of the masters that are behind no SMMU.
UNTRANSLATED = "untranslated"


@dataclass(frozen=True)
class FunctionConfig:
    """One PCI function: an SMMU's registers, if it has one, and the windows of the masters behind that."""

    name: str
    smmu: SmmuConfig | None
    masters: tuple[MasterConfig, ...]


@dataclass(frozen=True)
class MachineConfig:
    """A machine file that was found to make sense."""

    name: str
    path: Path
    description: str
    guest: GuestConfig
    smmus: tuple[SmmuConfig, ...]
    masters: tuple[MasterConfig, ...]
    faults: tuple[Fault, ...] = ()  #: in which its parts are wrong on purpose

    def smmu(self, name: str) -> SmmuConfig:
        """KeyError when there is none."""
        return {smmu.name: smmu for smmu in self.smmus}[name]

    @property
    def functions(self) -> tuple[FunctionConfig, ...]:
        """One for each SMMU, in the order of the file, and one for the masters behind none, where there are such."""

        def behind(smmu: str | None) -> tuple[MasterConfig, ...]:
            return tuple(master for master in self.masters if master.smmu == smmu)

        found = [FunctionConfig(smmu.name, smmu, behind(smmu.name)) for smmu in self.smmus]
        if untranslated := behind(None):
            found.append(FunctionConfig(UNTRANSLATED, None, untranslated))
        return tuple(found)


# -- finding and reading ---------------------------------------------------------------------------------------


def machines_folder() -> Path:
    """Where machine files are: beside the package in a checkout, inside of it when installed."""
    package = Path(__file__).resolve().parent
    folders = (package.parent / "qemu-configs", package / "_share" / "qemu-configs")
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def machine_names(folder: Path | None = None) -> list[str]:
    """What MACHINE may be."""
    return sorted(path.stem for path in (folder or machines_folder()).glob("*.toml"))


def load_machine(machine: str | Path, folder: Path | None = None) -> MachineConfig:
    """Read the machine ``machine``: a name in the folder of machine files, or a path to a file.

    UsageError when there is none, or when what it says cannot work.
    """
    folder = folder or machines_folder()
    path = Path(machine)
    if path.suffix != ".toml" and len(path.parts) == 1:
        path = folder / f"{machine}.toml"
    if not _is_file(path):
        names = machine_names(folder)
        if path.parent != folder:
            raise UsageError(f"{machine} is no file; name one that is there, or one of {', '.join(names)}")
        raise UsageError(f"there is no machine {str(machine)!r}; {_instead(str(machine), names)}")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); name a readable machine file") from error
    return parse_machine(text, path.stem, path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no name that a file can have, or not ours to see
        return False


def parse_machine(text: str, name: str = "machine", path: Path = Path("machine.toml")) -> MachineConfig:
    """Read the TOML ``text``; ``path`` is what errors name."""
    where = _Where(_relative(path))
    try:
        document = tomllib.loads(text)
        if not _fits(document):
            raise ValueError("a whole number has more than 64 bits, or a text a NUL")
    except RecursionError as error:
        raise UsageError(f"{where}: its tables lie too deep in each other; correct it there") from error
    except ValueError as error:  # not of TOML alone: a number may have more digits than Python takes
        raise UsageError(f"{where}: this is not TOML ({error}); correct it there") from error
    where.check_keys(document, ("description", "guest", "smmu", "master", "fault"))
    if "guest" not in document:
        raise where.error('a machine has one [guest] table; add one with kind = "linux" or kind = "bare"')
    machine = MachineConfig(
        name,
        path,
        where.value("description", document.get("description", ""), str),
        _guest(where.at("[guest]"), document["guest"]),
        tuple(_smmu(where.at("[[smmu]]"), table) for table in where.tables(document, "smmu")),
        tuple(_master(where.at("[[master]]"), table) for table in where.tables(document, "master")),
        tuple(_fault(where, table) for table in where.tables(document, "fault")),
    )
    _check(where, machine)
    return machine


def _guest(where: _Where, table: object) -> GuestConfig:
    guest = where.fill(GuestConfig, table)
    if guest.memory <= 0:
        raise where.error("'memory' is no memory at all; give the guest some, such as \"512M\"")
    if guest.memory % _1M:
        raise where.error("'memory' is not in whole MiB; round it, as in \"64M\"")
    if guest.gic not in GICS:
        raise where.error("'gic' is the version of the interrupt controller; make it 2 or 3")
    if guest.smp <= 0:
        raise where.error("'smp' is the number of CPUs; make it 1 or more")
    if guest.timeout <= 0:
        raise where.error("'timeout' is in seconds; make it 1 or more")
    for key, pattern in (("success", guest.success), ("failure", guest.failure)):
        if (why := why_no_pattern(pattern or "")) is not None:
            raise where.error(f"'{key}' is no regular expression ({why}); correct it")
    if guest.exit_only and guest.success is not None:
        raise where.error("'success' and 'exit_only' are two ways to pass; leave one out")
    if guest.kind == "bare" and guest.elf is None:
        raise where.error("a bare guest runs a program; name it in 'elf'")
    return guest


def _fits(value: object) -> bool:
    """Whether its whole numbers are of TOML, which Python does not see to, and its texts such as the host takes."""
    if isinstance(value, dict):
        return all(map(_fits, value.values()))
    if isinstance(value, list):
        return all(map(_fits, value))
    if isinstance(value, str):
        return "\0" not in value
    return not isinstance(value, int) or value.bit_length() <= _BITS


def why_no_pattern(pattern: str) -> str | None:
    """What keeps ``pattern`` from being a regular expression; None: nothing does."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as why:  # of repetitions and brackets Python takes so many
        return str(why)
    return None


def _smmu(where: _Where, table: object) -> SmmuConfig:
    table = where.mapping(table)
    named = where.value("model", table.get("model", DEFAULT), str)
    if named not in MODELS:
        raise where.error(f"there is no model {named!r}; {_instead(named, MODELS)}")
    model = MODELS[named]
    own = [f.name for f in dataclasses.fields(SmmuConfig) if f.name not in _MADE]
    settable, options = (_keys(kind) for kind in (model.features, model.options))
    where.check_keys(table, (*own, *options, "id_registers", *settable))
    preset = where.value("preset", table.get("preset", next(iter(model.presets))), str)
    if preset not in model.presets:
        raise where.error(f"there is no preset {preset!r}; {_instead(preset, model.presets)}")
    hints = get_type_hints(model.features)
    features = dict(model.presets[preset])
    features |= {key: where.value(key, value, hints[key]) for key, value in table.items() if key in settable}
    ids = _id_registers(where.at("[smmu.id_registers]"), table.get("id_registers", {}), model.id_registers)
    hints = get_type_hints(SmmuConfig)
    said = {key: where.value(key, value, hints[key]) for key, value in table.items() if key in own}
    if "name" not in said:
        raise where.error(f"'name' is missing; it is {_expected(str)}")
    ways = model.binding.ways
    if said.setdefault("interrupts", ways[0]) not in ways:
        raise where.error(f"'interrupts' of an {model.name} is one of {', '.join(ways)}, not {said['interrupts']!r}")
    try:
        chosen = where.fill(model.options, {key: value for key, value in table.items() if key in options})
        made = SmmuConfig(
            **said,
            traits=model.traits(model.features(**features), ids, chosen),
            options=chosen,
            features=MappingProxyType(features),
            id_registers=MappingProxyType(ids),
        )
    except UsageError as error:
        if str(error).startswith(str(where)):
            raise
        raise where.error(f"{said['name']}: {error}") from error
    if not 0 <= made.stall_watchdog <= _DAY:
        raise where.error("'stall_watchdog' is in seconds; make it 0 to 86400")
    if "interrupts" not in table:
        return dataclasses.replace(made, interrupts="msi" if made.traits.messages else "wired")
    if made.interrupts == "msi" and not made.traits.messages:
        raise where.error(f'{made.name} cannot send MSIs; set msi = true, or interrupts = "wired"')
    return made


#: Fields of SmmuConfig that are no keys of a file, or tables of their own.
_MADE = ("traits", "options", "features", "id_registers")


def _keys(kind: type[Any]) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def _id_registers(where: _Where, table: object, known: Iterable[str]) -> dict[str, int]:
    table = where.mapping(table)
    where.check_keys(table, known)
    values = {key: int(where.value(key, value, int)) for key, value in table.items()}
    for key, value in values.items():
        if not 0 <= value < 1 << 32:
            raise where.error(f"'{key}' is a register of 32 bits, which {value:#x} is not; leave the rest out")
    return values


def _master(where: _Where, table: object) -> MasterConfig:
    table = dict(where.mapping(table))
    own = [f.name for f in dataclasses.fields(MasterConfig) if f.name != "options"]
    kind = where.value("kind", table.get("kind"), get_type_hints(MasterConfig)["kind"]) if "kind" in table else None
    options_class = OPTIONS.get(str(kind))
    settable = [] if options_class is None else [f.name for f in dataclasses.fields(options_class)]
    where.check_keys(table, (*own, *settable))
    master = where.fill(MasterConfig, {key: value for key, value in table.items() if key in own})
    assert options_class is not None  # "kind" has no default, so fill has refused a table without
    options = where.fill(options_class, {key: value for key, value in table.items() if key in settable})
    if isinstance(options, EngineOptions) and not 0 <= options.atc_entries <= MOST_ATC_ENTRIES:
        raise where.error(f"{master.name}: 'atc_entries' is {options.atc_entries}; make it 0 to {MOST_ATC_ENTRIES}")
    if isinstance(options, BlockOptions):
        options = _disk(where, master.name, options)
    return dataclasses.replace(master, options=options)


def _fault(where: _Where, table: object) -> Fault:
    where = where.at("[[fault]]")
    return Fault.of(where.mapping(table), str(where))


def with_faults(machine: MachineConfig, faults: Iterable[Fault]) -> MachineConfig:
    """``machine`` with more faults; UsageError: one befalls a part that is not there."""
    more = dataclasses.replace(machine, faults=(*machine.faults, *faults))
    _check_faults(_Where(machine.name), more)
    return more


def _check_faults(where: _Where, machine: MachineConfig) -> None:
    for fault in machine.faults:
        if fault.befalls == "smmu":
            names = [smmu.name for smmu in machine.smmus]
        else:
            names = [master.name for master in machine.masters if master.smmu is not None]
        if fault.target is None and len(names) != 1:
            raise where.error(
                f"{fault.kind} may befall {len(names)} parts; say which in '{fault.befalls}': {_instead('', names)}"
            )
        if fault.target is not None and fault.target not in names:
            raise where.error(
                f"{fault.kind} befalls {fault.target!r}, which is not here; {_instead(fault.target, names)}"
            )


def _disk(where: _Where, name: str, disk: BlockOptions) -> BlockOptions:
    """``disk`` as it will be; whether its image is there is seen when it is opened."""
    if disk.size is not None and (disk.size <= 0 or disk.size % _SECTOR):
        raise where.error(f"{name}: a disk of {disk.size} bytes is not of whole sectors; make 'size' n times {_SECTOR}")
    if not 1 <= disk.queues <= _MOST_QUEUES:
        raise where.error(f"{name}: 'queues' is {disk.queues}; make it 1 to {_MOST_QUEUES}")
    if disk.image is None:
        if disk.create:
            raise where.error(f"{name}: 'create' makes a file, and none is named; name it in 'image' or leave it out")
        return disk if disk.size is not None else dataclasses.replace(disk, size=_16M)
    if disk.create and disk.size is None:
        raise where.error(f"{name}: 'create' cannot know how large to make {disk.image}; say it in 'size'")
    if disk.create and disk.read_only:
        raise where.error(f"{name}: a disk that is made blank is of no use when 'read_only'; leave out one of the two")
    return disk


# -- whether it can work -----------------------------------------------------------------------------------------


def _check(where: _Where, machine: MachineConfig) -> None:
    if not machine.smmus:
        raise where.error("a machine without an SMMU is not what this daemon serves; add an [[smmu]] table")
    names = {UNTRANSLATED} if any(master.smmu is None for master in machine.masters) else set()
    parts: tuple[SmmuConfig | MasterConfig, ...] = (*machine.smmus, *machine.masters)
    for part in parts:
        if not _NAME.fullmatch(part.name):
            raise where.error(f"'name' {part.name!r} is not of small letters, digits and '-'; choose one that is")
        if part.name in names:
            raise where.error(f"two parts are named {part.name!r}; give one of them another name")
        names.add(part.name)
    claimed: dict[tuple[str, int], str] = {}
    smmus = {smmu.name: smmu for smmu in machine.smmus}
    for master in machine.masters:
        if master.smmu is None:
            if master.stream_ids:
                raise where.error(f"{master.name} has 'stream_ids' but no SMMU that knows them; name one in 'smmu'")
            if master.pasid_bits or master.can_stall:
                raise where.error(f"{master.name} is behind no SMMU, which PASIDs and stalls need; name one in 'smmu'")
            continue
        if master.smmu not in smmus:
            raise where.error(
                f"{master.name} is behind {master.smmu!r}, which is not here; {_instead(master.smmu, smmus)}"
            )
        if not master.stream_ids:
            raise where.error(f"{master.name} is behind {master.smmu} but has no StreamID; give it 'stream_ids'")
        bits = smmus[master.smmu].traits.stream_id_bits
        for sid in master.stream_ids:
            if not 0 <= sid < 1 << bits:
                raise where.error(
                    f"{master.name} has StreamID {sid:#x}, but {master.smmu} knows {bits} bits; "
                    f"choose one below {1 << bits:#x} or raise 'stream_id_bits'"
                )
            other = claimed.setdefault((master.smmu, sid), master.name)
            if other != master.name:
                raise where.error(
                    f"{other} and {master.name} both claim StreamID {sid:#x} of {master.smmu}; give one of them another"
                )
        bits = smmus[master.smmu].traits.substream_id_bits
        if not 0 <= master.pasid_bits <= bits:
            raise where.error(
                f"{master.name} has {master.pasid_bits} bits of PASIDs, but {master.smmu} knows {bits} of SubstreamID; "
                "lower 'pasid_bits' or raise 'substream_id_bits'"
            )
        if len(set(master.stream_ids)) < len(master.stream_ids):
            raise where.error(f"{master.name} names a StreamID twice; leave one out")
    _check_faults(where, machine)
    if machine.guest.virtualization and not any(smmu.traits.el2 for smmu in machine.smmus):
        raise where.error(
            "'virtualization' begins the guest at EL2, and no SMMU has streams of EL2; set hyp and stage2 in "
            "an [[smmu]] to true, or leave 'virtualization' out"
        )
    if machine.guest.kind == "linux" and machine.guest.page_size is not None:
        check_kernel(machine, machine.guest.page_size)


def check_kernel(machine: MachineConfig, page_size: int) -> None:
    """Refuse a machine on which a kernel with pages of ``page_size`` bytes dies while it boots (UsageError)."""
    granule = f"{page_size >> 10}K"
    where = _Where(_relative(machine.path), "[[smmu]]")
    for smmu in machine.smmus:
        have = smmu.traits.granules
        if granule not in have:
            raise where.error(
                f"{smmu.name} walks tables of {' and '.join(have)} only, and a kernel with pages of {granule} "
                f"dies of it; add \"{granule}\" to 'granules' or take another kernel"
            )


# -- tables, keys and types --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Where:
    """A place in a machine file, and what can be wrong there."""

    file: str
    table: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.table}".rstrip(": ")

    def at(self, table: str) -> _Where:
        return _Where(self.file, table)

    def error(self, sentence: str) -> UsageError:
        return UsageError(f"{self} {sentence}" if self.table else f"{self}: {sentence}")

    def mapping(self, value: object) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.error("is a table; write its keys below that line")
        return value

    def tables(self, document: Mapping[str, Any], key: str) -> list[Any]:
        found = document.get(key, [])
        if not isinstance(found, list):
            raise self.at(f"[{key}]").error(f"may be there several times; write it [[{key}]]")
        return found

    def check_keys(self, table: Mapping[str, Any], known: Iterable[str]) -> None:
        known = tuple(known)
        for key in table:
            if key not in known:
                raise self.error(f"'{key}' is not a key here; {_instead(key, known)}")

    def fill(self, kind: Callable[..., _Table], table: object) -> _Table:
        """An instance of the dataclass ``kind`` from the keys of ``table``."""
        table = self.mapping(table)
        hints = get_type_hints(kind)
        fields = dataclasses.fields(cast(Any, kind))
        self.check_keys(table, [f.name for f in fields])
        for f in fields:
            needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if needed and f.name not in table:
                raise self.error(f"'{f.name}' is missing; it is {_expected(hints[f.name])}")
        return kind(**{key: self.value(key, value, hints[key]) for key, value in table.items()})

    def value(self, key: str, value: object, hint: Any) -> Any:
        """``value`` as a dataclass annotated ``hint`` wants it."""
        made = _convert(value, hint)
        if made is None:
            shown = "true" if value is True else "false" if value is False else repr(value)
            raise self.error(f"'{key}' is {_expected(hint)}, not {shown}")
        return made


def _convert(value: object, hint: Any) -> Any:
    """``value`` as ``hint`` wants it, or None when it does not fit. TOML has no None of its own."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return next((made for part in parts if (made := _convert(value, part)) is not None), None)
    if origin is Literal:
        return next((part for part in parts if part == value and type(part) is type(value)), None)
    if origin is tuple:
        if not isinstance(value, list):
            return None
        made = tuple(_convert(item, parts[0]) for item in value)
        return None if None in made else made
    if hint is Size:
        return _size(value)
    if hint is float and type(value) is int:
        return float(value)
    # A bool is an int to Python, but not to a person.
    return value if type(value) is hint else None


def _size(value: object) -> Size | None:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,19})([KMG]?)", value)):
        size = int(match[1]) * _UNITS[match[2]]
        return Size(size) if size.bit_length() <= _BITS else None
    return Size(value) if type(value) is int else None


def _expected(hint: Any) -> str:
    """What ``hint`` wants, for people."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_expected(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return "one of " + ", ".join(f'"{part}"' if isinstance(part, str) else str(part) for part in parts)
    if origin is tuple:
        return f"a list, each {_expected(parts[0])}"
    names = {
        Size: 'a size like "512M"',
        int: "a whole number",
        float: "a number",
        str: "a text in quotes",
        bool: "true or false",
    }
    return names.get(hint, str(hint))


def _instead(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"choose one of {', '.join(known)}" if known else "leave it out"


def _relative(path: Path) -> str:
    """As short as it can be said from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
