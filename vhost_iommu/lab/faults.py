# SPDX-License-Identifier: Apache-2.0
"""Faults: ways in which an SMMU or a master is wrong on purpose, each declared once (docs/faults.md).

Law: a fault sets seams and nothing else; it says each time that it struck, and how often it did is counted. Python's
``Fault``, a machine file's [[fault]] and ``--fault`` are all made from the declarations.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from ..errors import UsageError
from ..layout import Layout
from ..smmu.seams import NEVER, Deliver, Refuse, Seams, Verdict
from ..smmu.transaction import Transaction
from ..trace import Trace

log = logging.getLogger("vhost_iommu.lab")

#: (seconds, function): has the function called later, by another thread.
Later = Callable[[float, Callable[[], None]], None]

#: Strikes of one fault that the log tells one by one.
MOST_TOLD = 10


class Fault:
    """A fault that is asked for: ``Fault("drop-sync", smmu="smmu0", after=3, count=1)``.

    ``smmu`` or ``master``: whom it befalls; it may be left out where there is one alone. ``after``: how many chances
    pass before it strikes, and ``count``: how often it does, 0 for each time. ``seed``: of what it chooses at random.
    UsageError: no such fault or parameter, or a value that cannot be.
    """

    def __init__(
        self,
        kind: str,
        *,
        smmu: str | None = None,
        master: str | None = None,
        after: int = 0,
        count: int = 1,
        seed: int = 0,
        **parameters: Any,
    ) -> None:
        if kind not in FAULTS:
            raise UsageError(f"there is no fault {kind!r}; {_instead(kind, FAULTS)}")
        self.kind = kind
        self.smmu, self.master = smmu, master
        self.after, self.count, self.seed = after, count, seed
        self.parameters: Mapping[str, Any] = MappingProxyType(parameters)
        declared = FAULTS[kind]
        given = {"smmu": smmu, "master": master}
        if given.get(other := "master" if declared.TARGET == "smmu" else "smmu") is not None:
            raise UsageError(
                f"{kind} befalls {_a(declared.TARGET)}; name that in '{declared.TARGET}', not in '{other}'"
            )
        for name, value in (("after", after), ("count", count), ("seed", seed)):
            if type(value) is not int or value < 0:
                raise UsageError(f"{kind}: '{name}' is {value!r}; make it a whole number, 0 or more")
        known = declared.parameters()
        for name, value in parameters.items():
            if name not in known:
                raise UsageError(f"{kind}: '{name}' is no parameter of it; {_instead(name, (*COMMON, *known))}")
            known[name].check(kind, value)
        for name, parameter in known.items():
            if parameter.needed and name not in parameters:
                raise UsageError(f"{kind}: '{name}' is missing; {parameter.expected}")

    @property
    def befalls(self) -> Literal["smmu", "master"]:
        """What kind of part."""
        return FAULTS[self.kind].TARGET

    @property
    def target(self) -> str | None:
        """Whom it befalls, if that is said."""
        return self.smmu or self.master

    def __str__(self) -> str:
        """As ``--fault`` takes it."""
        said = {"smmu": self.smmu, "master": self.master, "after": self.after or None, "seed": self.seed or None}
        said["count"] = None if self.count == 1 else self.count
        words = [self.kind, *(f"{name}={value}" for name, value in said.items() if value is not None)]
        return " ".join([*words, *(f"{name}={value}" for name, value in self.parameters.items())])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fault) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @classmethod
    def parse(cls, text: str) -> Fault:
        """What ``--fault`` is given: 'drop-sync smmu=smmu0 after=3'."""
        try:
            kind, *words = shlex.split(text)
        except ValueError as why:
            raise UsageError(f"--fault {text!r} cannot be read ({why}); write it as 'KIND name=value …'") from why
        values: dict[str, Any] = {}
        for word in words:
            name, mark, value = word.partition("=")
            if not mark:
                raise UsageError(f"--fault {text!r}: {word!r} is no parameter; write it as name=value")
            values[name] = _value(value)
        return cls.of({"kind": kind, **values}, f"--fault {text!r}")

    @classmethod
    def of(cls, table: Mapping[str, Any], where: str = "[[fault]]") -> Fault:
        """What a [[fault]] table says; ``where`` begins the sentence of a UsageError."""
        if "kind" not in table:
            raise UsageError(f"{where}: 'kind' is missing; {_instead('', FAULTS)}")
        values = {key: value for key, value in table.items() if key != "kind"}
        try:
            return cls(str(table["kind"]), **values)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


#: Parameters that each fault has, beside its target.
COMMON = ("smmu", "master", "after", "count", "seed")


def _value(text: str) -> Any:
    """A word of the command line as TOML would have it."""
    for convert in (lambda each: int(each, 0), float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _instead(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"


def _a(target: str) -> str:
    return "an SMMU" if target == "smmu" else "a master"


# -- how a fault is declared -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """A parameter of one kind of fault; ``kind`` is int, float or what Literal holds."""

    name: str
    kind: Any
    default: Any
    about: str

    @property
    def needed(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def expected(self) -> str:
        if self.choices:
            return f"it is one of {', '.join(self.choices)}"
        return "it is a number, 0 or more" if self.kind is float else "it is a whole number, 0 or more"

    def check(self, fault: str, value: Any) -> None:
        types = (int, float) if self.kind is float else (int,)
        fits = value in self.choices if self.choices else type(value) in types and value >= 0
        if not fits:
            raise UsageError(f"{fault}: '{self.name}' is {value!r}; {self.expected}")


@dataclass(frozen=True)
class Seen:
    """What stock Linux 6.12 was seen to do with a fault; tests/boot asserts it."""

    fault: str  #: its parameters, as ``--fault`` takes them
    says: tuple[str, ...]  #: what lines of the driver have; none: it prints nothing
    then: str  #: what comes of it, in a sentence
    fails: tuple[str, ...] = ()  #: cases that fail
    dies: bool = False  #: the guest does not end well
    machine: str = "smmuv3-linux"


def parameter(about: str, default: Any = dataclasses.MISSING) -> Any:
    """Declares a parameter in an Injection; without a default it has to be given."""
    return dataclasses.field(default=default, metadata={"about": about}, kw_only=True)


@dataclass
class Injection:
    """A fault at work. A kind of fault is a subclass that overrides the seams it is about; its docstring says what it
    does, ``SECTION`` where the specification has what it breaks, and ``LINUX`` what Linux 6.12 does.
    """

    KIND: ClassVar[str] = ""
    TARGET: ClassVar[Literal["smmu", "master"]] = "smmu"
    SECTION: ClassVar[str] = ""
    LINUX: ClassVar[tuple[Seen, ...]] = ()
    LATER: ClassVar[bool] = False  #: it does something later

    fault: Fault
    lab: Lab
    name: str  #: of whom it befalls
    struck: int = dataclasses.field(default=0, init=False)
    _passed: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.fault.seed)

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        hints = get_type_hints(cls)
        return {
            each.name: Parameter(each.name, hints[each.name], each.default, each.metadata["about"])
            for each in dataclasses.fields(cls)
            if "about" in each.metadata
        }

    @property
    def spent(self) -> bool:
        return self.fault.count != 0 and self.struck >= self.fault.count

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.spent

    def strikes(self, what: str) -> bool:
        """Whether it strikes at this chance, which is ``what``; it says so."""
        if self.spent:
            return False
        self._passed += 1
        if self._passed <= self.fault.after:
            return False
        self.struck += 1
        self.lab.tell(self, what)
        return True

    # What a kind overrides; None, or no change: nothing is wrong.

    def gate(self, command: Layout) -> Verdict | Refuse | None:
        return None

    def memory(self, kind: str, pa: int) -> bool:
        return False

    def acknowledge(self, register: str) -> int | None:
        return None

    def message(self, source: str, send: Callable[[], None]) -> Verdict | None:
        return None

    def wire(self, source: str, send: Callable[[], None]) -> Verdict | None:
        return None

    def room(self, queue: str) -> bool:
        return True

    def rewrite(self, transaction: Transaction) -> Transaction:
        return transaction


#: The seams of an SMMU that an Injection may override.
_SEAMS = ("gate", "memory", "acknowledge", "message", "wire", "room")


class Lab:
    """The faults of one machine at work."""

    def __init__(self, faults: Iterable[Fault] = (), *, later: Later | None = None, trace: Trace | None = None) -> None:
        """``later`` None: nobody has anything done later, and faults that need it are refused (UsageError)."""
        self.later = later
        self.trace = trace
        self.injections: list[Injection] = []
        self._faults = tuple(faults)
        self._seams: dict[str, Seams] = {}

    def account(self) -> list[tuple[str, Fault, int]]:
        """Of each fault whom it befell, and how often it struck."""
        return [(each.name, each.fault, each.struck) for each in self.injections]

    def seams(self, smmu: str, alone: bool = True) -> Seams:
        """The seams of the SMMU of this name, with the faults that befall it; ``alone``: the machine has no other."""
        seams = Seams()
        mine = self._begin("smmu", smmu, alone)
        self._seams[smmu] = seams
        self._set(seams, mine)
        if seams.memory is not None:
            names = ", ".join(each.KIND for each in mine if _overrides(each, "memory"))
            log.warning("%s: the compiled core gives way to the reference, which meets %s", smmu, names)
        elif seams.gate is not None or seams.message is not None:
            log.warning("%s: commands are not consumed by the compiled core while faults may strike at them", smmu)
        return seams

    def rewrite(self, master: str, alone: bool = True) -> Callable[[Transaction], Transaction] | None:
        """What the master's port does to its transactions; None: nothing."""
        mine = [each for each in self._begin("master", master, alone) if _overrides(each, "rewrite")]
        if not mine:
            return None
        log.warning("%s: its transactions are not carried out by the compiled core, as %s may strike", master,
                    ", ".join(each.KIND for each in mine))  # fmt: skip

        def rewrite(transaction: Transaction) -> Transaction:
            for each in mine:
                transaction = each.rewrite(transaction)
            return transaction

        return rewrite

    def _begin(self, target: str, name: str, alone: bool) -> list[Injection]:
        begun = []
        for fault in self._faults:
            kind = FAULTS[fault.kind]
            if target == kind.TARGET and (fault.target == name or (fault.target is None and alone)):
                if kind.LATER and self.later is None:
                    raise UsageError(f"{fault.kind} needs somebody who does things later; give Lab(later=…)")
                begun.append(kind(fault, self, name, **fault.parameters))
        self.injections += begun
        return begun

    def _set(self, seams: Seams, mine: Sequence[Injection]) -> None:
        for seam in _SEAMS:
            asked = [each for each in mine if _overrides(each, seam)]
            if asked:
                setattr(seams, seam, _COMPOSED[seam](asked))

    def tell(self, injection: Injection, what: str) -> None:
        """``injection`` strikes: say so."""
        count, of = injection.struck, injection.fault.count
        if count <= MOST_TOLD:
            times = f"{count} of {of}" if of else f"{count}"
            more = "; the next are counted, not told" if count == MOST_TOLD and of != MOST_TOLD else ""
            log.warning("%s: %s struck (%s): %s%s", injection.name, injection.KIND, times, what, more)
        if self.trace is not None:
            self.trace.emit(injection.name, "fault", injection.KIND, what=what, struck=count)

    def error(self, smmu: str, error: str) -> None:
        self._seams[smmu].raise_error(error)

    def proceed(self, smmu: str) -> None:
        self._seams[smmu].proceed()

    def clear(self, smmu: str, seam: str, asked: Sequence[Injection]) -> None:
        """Nothing asked of ``seam`` strikes any more: the core may have it back."""
        if seam != "memory" and all(each.over for each in asked):
            setattr(self._seams[smmu], seam, None)


def _overrides(injection: Injection, seam: str) -> bool:
    return getattr(type(injection), seam) is not getattr(Injection, seam)


def _gate(asked: Sequence[Injection]) -> Callable[[Layout], Verdict | Refuse]:
    def gate(command: Layout) -> Verdict | Refuse:
        found = next((verdict for each in asked if (verdict := each.gate(command)) is not None), Verdict.EXECUTE)
        asked[0].lab.clear(asked[0].name, "gate", asked)
        return found

    return gate


def _memory(asked: Sequence[Injection]) -> Callable[[str, int], bool]:
    def aborts(kind: str, pa: int) -> bool:
        found = [each.memory(kind, pa) for each in asked]  # each counts its own chances
        return True in found

    return aborts


def _acknowledge(asked: Sequence[Injection]) -> Callable[[str], int | None]:
    return lambda register: next((n for each in asked if (n := each.acknowledge(register)) is not None), None)


def _deliver(seam: str) -> Callable[[Sequence[Injection]], Deliver]:
    def made(asked: Sequence[Injection]) -> Deliver:
        def deliver(source: str, send: Callable[[], None]) -> Verdict:
            found = (getattr(each, seam)(source, send) for each in asked)
            verdict = next((each for each in found if each is not None), Verdict.EXECUTE)
            asked[0].lab.clear(asked[0].name, seam, asked)
            return verdict

        return deliver

    return made


def _room(asked: Sequence[Injection]) -> Callable[[str], bool]:
    def room(queue: str) -> bool:
        found = [each.room(queue) for each in asked]
        return False not in found

    return room


_COMPOSED: Mapping[str, Callable[[Sequence[Injection]], Any]] = {
    "gate": _gate,
    "memory": _memory,
    "acknowledge": _acknowledge,
    "message": _deliver("message"),
    "wire": _deliver("wire"),
    "room": _room,
}


# -- the faults ----------------------------------------------------------------------------------------------------

_SYNC = "CMD_SYNC"


def _name(command: Layout) -> str:
    return type(command).__name__


@dataclass
class DropTlbi(Injection):
    """An invalidation of TLBs is consumed and has no effect: stale translations stay."""

    KIND = "drop-tlbi"
    SECTION = "4.4"
    LINUX = (
        Seen(
            "count=0",
            (),
            "DMA goes on by translations that the driver has removed, and nobody is told.",
            ("engine0_strict_loses_what_is_unmapped", "engine0_strict_loses_all_of_a_range", "no_other_warnings"),
            machine="smmuv3-pasid",
        ),
    )

    def gate(self, command: Layout) -> Verdict | None:
        tlbi = _name(command).startswith("CMD_TLBI_")
        return Verdict.IGNORE if tlbi and self.strikes(f"{command.text()} was ignored") else None


@dataclass
class DropCfgi(Injection):
    """An invalidation of configuration caches is consumed and has no effect: stale STEs and CDs stay."""

    KIND = "drop-cfgi"
    SECTION = "4.3"
    LINUX = (
        Seen(
            "count=0 after=3",
            (),
            "The stream goes by the STE that it had: what is unmapped can still be reached.",
            (
                "engine0_bypassed_copies_coherent_memory",
                "engine0_strict_loses_what_is_unmapped",
                "engine0_strict_loses_all_of_a_range",
            ),
            machine="smmuv3-pasid",
        ),
    )

    def gate(self, command: Layout) -> Verdict | None:
        cfgi = _name(command).startswith("CMD_CFGI_")
        return Verdict.IGNORE if cfgi and self.strikes(f"{command.text()} was ignored") else None


@dataclass
class DropSync(Injection):
    """A CMD_SYNC is consumed, and its signal, if it asks for one, never comes."""

    KIND = "drop-sync"
    SECTION = "4.7.3"
    LINUX = (
        Seen(
            "after=3",
            ("CMD_SYNC timeout at",),
            "It goes on after a second.",
            ("no_smmu_warnings",),
        ),
    )

    def gate(self, command: Layout) -> Verdict | None:
        sync = _name(command) == _SYNC
        return Verdict.IGNORE if sync and self.strikes(f"{command.text()} was ignored") else None


@dataclass
class LateSync(Injection):
    """A CMD_SYNC, and what follows it in the queue, waits before it is executed."""

    KIND = "late-sync"
    SECTION = "4.7.3"
    LINUX = (
        Seen(
            "after=20 seconds=2",
            ("CMD_SYNC timeout at",),
            "It goes on after a second, before the command does.",
            ("no_smmu_warnings",),
        ),
    )
    LATER = True

    seconds: float = parameter("how long it waits", 2.0)
    _held: bool = dataclasses.field(default=False, init=False)
    _due: bool = dataclasses.field(default=False, init=False)

    @property
    def over(self) -> bool:
        return self.spent and not self._held

    def gate(self, command: Layout) -> Verdict | None:
        if _name(command) != _SYNC:
            return None
        if self._held:
            self._held = not self._due
        elif self.strikes(f"{command.text()} waits for {self.seconds:g} s"):
            assert self.lab.later is not None
            self._held, self._due = True, False
            self.lab.later(self.seconds, self._release)
        return Verdict.HOLD if self._held else None

    def _release(self) -> None:
        self._due = True
        self.lab.proceed(self.name)


@dataclass
class CommandFails(Injection):
    """A command ends in an error, whatever it is, and stops the command queue."""

    KIND = "cerror"
    SECTION = "7.1"
    LINUX = (
        Seen(
            "error=ILL after=20",
            ("CMD_SYNC timeout at", "Illegal command", "skipping command in error state:"),
            "The command becomes a CMD_SYNC. On one CPU the interrupt comes after the timeouts of those who wait.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "error=ABT after=20",
            ("CMD_SYNC timeout at", "Abort on command fetch", "retrying command fetch"),
            "The command is fetched again.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "error=ATC_INV_SYNC after=20",
            ("CMD_SYNC timeout at", "ATC invalidate timeout"),
            "The CMD_SYNC is executed again.",
            ("no_smmu_warnings",),
        ),
    )

    error: Literal["ILL", "ABT", "ATC_INV_SYNC"] = parameter("which", "ILL")

    def gate(self, command: Layout) -> Refuse | None:
        refused = self.strikes(f"{command.text()} ended in CERROR_{self.error}")
        return Refuse(f"CERROR_{self.error}") if refused else None


@dataclass
class GlobalError(Injection):
    """A global error is raised that nothing has caused, before a command is executed. Of SFM_ERR that is all: the SMMU
    goes on, and does not enter service failure mode.
    """

    KIND = "gerror"
    SECTION = "7.5"
    LINUX = (
        Seen(
            "error=EVENTQ_ABT_ERR after=20",
            ("unexpected global error reported (0x00000004)", "EVTQ write aborted -- events may have been lost"),
            "It is acknowledged, and all goes on.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "error=MSI_CMDQ_ABT_ERR after=20",
            ("unexpected global error reported (0x00000010)", "CMDQ MSI write aborted"),
            "Likewise.",
            ("no_smmu_warnings",),
        ),
    )

    error: Literal[
        "EVENTQ_ABT_ERR",
        "PRIQ_ABT_ERR",
        "MSI_CMDQ_ABT_ERR",
        "MSI_EVENTQ_ABT_ERR",
        "MSI_PRIQ_ABT_ERR",
        "MSI_GERROR_ABT_ERR",
        "SFM_ERR",
    ] = parameter("which")

    def gate(self, command: Layout) -> None:
        if self.strikes(f"{self.error} was raised before {command.text()}"):
            self.lab.error(self.name, self.error)


@dataclass
class AbortAccess(Injection):
    """An access of the SMMU itself to memory is aborted."""

    KIND = "abort-access"
    SECTION = "7.2"
    LINUX = (
        Seen(
            "access=STE count=2",
            ("event 0x03 received:",),
            "F_STE_FETCH of the first DMA, which fails (the first abort is a CMD_PREFETCH_CONFIG's, without an event).",
            ("engine0_copies_coherent_memory",),
            machine="smmuv3-pasid",
        ),
        Seen(
            "access=CD count=2",
            ("event 0x09 received:",),
            "F_CD_FETCH; likewise.",
            ("engine0_copies_coherent_memory",),
            machine="smmuv3-pasid",
        ),
        Seen(
            "access=descriptor after=50",
            ("event 0x0b received:",),
            "F_WALK_EABT; the disk's request ends in an I/O error.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "access=command after=20",
            ("Abort on command fetch", "retrying command fetch"),
            "The command is fetched again.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "access=event",
            ("EVTQ write aborted -- events may have been lost",),
            "The event is lost, and all goes on.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
        ),
    )

    access: Literal["STE", "L1STD", "CD", "L1CD", "descriptor", "command", "event", "PRI", "MSI"] = parameter(
        "of which kind"
    )

    def memory(self, kind: str, pa: int) -> bool:
        return kind == self.access and self.strikes(f"an access to {_article(kind)} at {pa:#x} was aborted")


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiouSLM' else 'a'} {kind}"


#: Sources of interrupts, as a device tree names them.
Source = Literal["eventq", "gerror", "priq", "cmdq-sync"]


@dataclass
class LoseInterrupt(Injection):
    """An interrupt, as a message or on a wire, is not sent."""

    KIND = "lose-interrupt"
    SECTION = "3.18"
    LINUX = (
        Seen(
            "source=cmdq-sync after=20",
            ("CMD_SYNC timeout at",),
            "It goes on after a second.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "source=eventq",
            (),
            "No event is told of any more: the next interrupt comes when the queue was empty.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
        ),
    )

    source: Source = parameter("whose")  # noqa: RUF009

    def message(self, source: str, send: Callable[[], None]) -> Verdict | None:
        lost = source == self.source and self.strikes(f"an interrupt of {source} was lost")
        return Verdict.IGNORE if lost else None

    wire = message


@dataclass
class LateInterrupt(Injection):
    """An interrupt, as a message or on a wire, is sent late."""

    KIND = "late-interrupt"
    SECTION = "3.18"
    LINUX = (
        Seen(
            "source=cmdq-sync after=20 seconds=2",
            ("CMD_SYNC timeout at",),
            "It goes on after a second.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "source=eventq seconds=0.1",
            ("events 0x10",),
            "It tells of all events, later.",
            machine="smmuv3-pasid",
        ),
    )
    LATER = True

    source: Source = parameter("whose")  # noqa: RUF009
    seconds: float = parameter("how late", 2.0)

    def message(self, source: str, send: Callable[[], None]) -> Verdict | None:
        if source != self.source or not self.strikes(f"an interrupt of {source} is {self.seconds:g} s late"):
            return None
        assert self.lab.later is not None
        self.lab.later(self.seconds, send)
        return Verdict.HOLD

    wire = message


@dataclass
class LateAcknowledge(Injection):
    """A store to a register with an acknowledgement is acknowledged, and takes effect, late or never."""

    KIND = "late-acknowledge"
    SECTION = "6.3.9"
    LINUX = (
        Seen(
            "register=CR0",
            ("failed to enable command queue", "probe with driver arm-smmu-v3 failed with error -110"),
            "After a second there is no SMMU: what is behind it has no driver.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "register=IRQ_CTRL",
            ("failed to enable irqs",),
            "It goes on, as if they were enabled.",
            ("no_smmu_warnings",),
        ),
        Seen(
            "register=CR0 reads=5",
            (),
            "It waits.",
        ),
    )

    register: Literal["CR0", "IRQ_CTRL", "GBPA"] = parameter("which")
    reads: int = parameter("register reads that find it as before; 0: all", 0)

    def acknowledge(self, register: str) -> int | None:
        when = f"after {self.reads} reads" if self.reads else "never"
        late = register == self.register and self.strikes(f"a store to {register} is acknowledged {when}")
        return (self.reads or NEVER) if late else None


@dataclass
class FullEventQueue(Injection):
    """The event queue has no room for a record: it is lost, and the queue overflows."""

    KIND = "full-event-queue"
    SECTION = "7.4"
    LINUX = (
        Seen(
            "",
            ("EVTQ overflow detected -- events lost",),
            "It says so with the next event that finds room; all goes on.",
            ("no_other_warnings",),
            machine="smmuv3-pasid",
        ),
    )

    def room(self, queue: str) -> bool:
        return not (queue == "eventq" and self.strikes("a record found no room in the event queue"))


@dataclass
class WrongStream(Injection):
    """A master's transaction carries another StreamID, another SubstreamID, or both."""

    KIND = "wrong-stream"
    TARGET = "master"
    SECTION = "3.2"
    LINUX = (
        Seen(
            "sid=0x101 after=30",
            (),
            "Linux aborts streams that it knows nothing of, without an event; the disk's request ends in an I/O error.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "sid=0x1000 after=30",
            ("event 0x02 received:",),
            "C_BAD_STREAMID, beyond the tables that there are; likewise.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
        Seen(
            "ssid=1 after=30",
            ("event 0x08 received:",),
            "C_BAD_SUBSTREAMID; likewise.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
    )

    sid: int | None = parameter("the StreamID that it carries", None)
    ssid: int | None = parameter("the SubstreamID that it carries", None)

    def rewrite(self, transaction: Transaction) -> Transaction:
        what = f"{'write' if transaction.write else 'read'} of {transaction.size} bytes at {transaction.iova:#x}"
        if not self.strikes(f"a {what} carries another stream"):
            return transaction
        if self.sid is not None:
            transaction = dataclasses.replace(transaction, sid=self.sid)
        return transaction if self.ssid is None else dataclasses.replace(transaction, ssid=self.ssid)


@dataclass
class WrongAddress(Injection):
    """A master's transaction goes to an address that the guest never gave: a random page below 2^48."""

    KIND = "wrong-address"
    TARGET = "master"
    SECTION = "7.3.13"
    LINUX = (
        Seen(
            "after=30",
            ("event 0x10 received:",),
            "F_TRANSLATION; the disk's request ends in an I/O error.",
            ("disk0_writes_directly", "no_smmu_warnings"),
        ),
    )

    def rewrite(self, transaction: Transaction) -> Transaction:
        iova = self.random.randrange(1 << 36) << 12 | transaction.iova & 0xFFF
        if not self.strikes(f"{transaction.size} bytes at {transaction.iova:#x} become those at {iova:#x}"):
            return transaction
        return dataclasses.replace(transaction, iova=iova)


#: Each kind of fault, by its name.
FAULTS: Mapping[str, type[Injection]] = {
    each.KIND: each
    for each in (
        DropTlbi,
        DropCfgi,
        DropSync,
        LateSync,
        CommandFails,
        GlobalError,
        AbortAccess,
        LoseInterrupt,
        LateInterrupt,
        LateAcknowledge,
        FullEventQueue,
        WrongStream,
        WrongAddress,
    )
}
