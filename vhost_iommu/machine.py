# SPDX-License-Identifier: Apache-2.0
"""One machine made from its machine file: SMMU instances, masters behind them, PCI functions in front.

Law: wires, and starts nothing: whoever serves the machine brings threads and locks, whoever places it in a guest
brings the interrupts' doorbells. A PCI function has an SMMU's registers in BAR0, if it has an SMMU, and the windows
of its masters in BAR2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from . import _core
from .config import BlockOptions, EngineOptions, FunctionConfig, MachineConfig, MasterConfig, SmmuConfig
from .errors import UsageError
from .lab.faults import Astray, Lab, Later
from .masters.atc import Answering, Atc
from .masters.engine import TestEngine
from .masters.port import Port, Stray
from .masters.prompt import Post
from .masters.storage import Storage, open_storage
from .masters.virtio_blk import VirtioBlk
from .masters.window import Window, nothing
from .memory import Memory, unheard
from .models import MODELS
from .smmu.model import Instance, Levelled
from .vfio.pci import BarMap, PciFunction
from .watch import ALL, Kind, Recording, Watch, Watcher, Watches

#: Masters' windows start at multiples of the largest page of any kernel, so that two never share one.
WINDOW_ALIGNMENT = 0x1_0000

MASTERS: Mapping[str, type[Window]] = {"engine": TestEngine, "virtio-blk": VirtioBlk}

#: (device, source) → (address, value) of the 4-byte write that raises a wired interrupt; a master's source is "".
Wires = Mapping[tuple[str, str], tuple[int, int]]
#: Has a function called in a thread of its own whenever the function returned is called: (name, function).
Spawn = Callable[[str, Callable[[], bool]], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a master's registers are in its function's BAR2."""

    master: MasterConfig
    compatible: str
    offset: int
    size: int


def placements(function: FunctionConfig) -> list[Placement]:
    """The windows of the function's masters, in the order of the machine file."""
    placed: list[Placement] = []
    at = 0
    for master in function.masters:
        kind = MASTERS[master.kind]
        placed.append(Placement(master, kind.compatible, at, kind.size))
        at += -(-kind.size // WINDOW_ALIGNMENT) * WINDOW_ALIGNMENT
    return placed


class Machine:
    """The parts of one machine by name, and its PCI functions in the order of the file's SMMUs."""

    def __init__(
        self,
        config: MachineConfig,
        *,
        wires: Wires | None = None,
        spawn: Spawn | None = None,
        new_lock: Callable[[], AbstractContextManager[Any]] = nullcontext,
        pause: Callable[[], None] = nothing,
        clock: Callable[[], float] = lambda: 0.0,
        later: Later | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        """``spawn`` None: masters do their work where they are told of it, in the caller's thread.

        ``later`` has done later what is due then: by faults, and by counters that overflow.
        """
        self.config = config
        #: Of each function, where its SMMU and its masters tell what they do.
        self.watches = Watches()
        self._wires = wires or {}
        self._spawn = spawn
        self._new_lock = new_lock
        self._pause = pause
        self._clock = clock
        self._later = later
        #: The faults of the machine file at work.
        self.lab = Lab(config.faults, later=later, watches=self.watches)
        #: Each is an Instance, and of its model's own type besides.
        self.smmus: dict[str, Any] = {}
        self.masters: dict[str, Window] = {}
        #: What masters behind SMMUs do beside their work, when they are wrong.
        self.strays: dict[str, Stray] = {}
        self.functions: list[PciFunction] = []  #: as ``config.functions``
        self._storages: list[Storage] = []
        try:
            for function in config.functions:
                self._add(function)
            for watcher in watchers:
                self.attach(watcher)
        except BaseException:
            self.close()
            raise

    def attach(self, watcher: Watcher) -> None:
        """``watcher`` is told of all that happens from now on; the machine may be at work (docs/watching.md)."""
        self.watches.attach(watcher)

    def detach(self, watcher: Watcher) -> None:
        self.watches.detach(watcher)

    def recording(self, wants: Kind = ALL) -> AbstractContextManager[Recording]:
        """All that happens while the context lasts, as values."""
        return self.watches.recording(wants)

    def _add(self, config: FunctionConfig) -> None:
        memory = Memory()
        name = config.name if config.smmu is None else config.smmu.name
        watch = self.watches.add(Watch(name, _core.ring()), name, *(master.name for master in config.masters))
        smmu = None if config.smmu is None else self._smmu(config.smmu, memory, watch)
        blocks = []
        for placed in placements(config):
            master = self._master(placed.master, memory, smmu, watch)
            self.masters[master.name] = master
            blocks.append((placed.offset, master))
        # A reset goes through the BARs in this order: masters have stopped before their SMMU lets addresses pass.
        bars = {}
        if blocks:
            end = blocks[-1][0] + blocks[-1][1].size
            bars[2] = BarMap(blocks, size=1 << max(end - 1, WINDOW_ALIGNMENT - 1).bit_length(), wide=False)
        if smmu is not None:
            bars[0] = BarMap([(0, smmu), *smmu.companions], wide=False)
        made = PciFunction(config.name, bars, memory=memory)
        if config.smmu is not None:
            made.socket = self.lab.socket(config.smmu.name)
            if config.smmu.interrupts == "line" and isinstance(smmu, Levelled):
                smmu.on_level(made.trigger_intx)
        self.functions.append(made)

    def _smmu(self, config: SmmuConfig, memory: Memory, watch: Watch) -> Instance:
        smmu: Instance = MODELS[config.model].make(
            memory,
            config.features,
            config.id_registers,
            config.options,
            name=config.name,
            interrupt=self._smmu_interrupt(config, memory, watch),
            lock=self._new_lock(),
            clock=self._clock,
            watch=watch,
            seams=self.lab.seams(config.name, alone=len(self.config.smmus) == 1),
            later=self._later,
        )
        if self._spawn is not None:
            smmu.wake = self._spawn(config.name, smmu.work)
        self.smmus[config.name] = smmu
        return smmu

    def _master(self, config: MasterConfig, memory: Memory, smmu: Instance | None, watch: Watch) -> Window:
        port = Port(config.name, memory, smmu, config.stream_ids, watch=watch)
        wrong = Astray()
        if smmu is not None:
            behind = [each for each in self.config.masters if each.smmu is not None]
            self.strays[config.name] = Stray(port)
            wrong = self.lab.master(config.name, self.strays[config.name], len(behind) == 1, lambda now: befall(now))
        wire = self._wire(memory, config.name, "", watch)
        common: dict[str, Any] = {"lock": self._new_lock()}
        if wire is not None:
            common["interrupt"] = wire
        if self._spawn is not None:
            common["wake"] = lambda: None
        master: Window
        match config.options:
            case BlockOptions(size=size, image=image, create=create, read_only=read_only, queues=queues):
                try:
                    storage = open_storage(image, size, read_only, create=create)
                except UsageError as error:
                    raise UsageError(f"{self.config.path}: [[master]] {config.name}: {error}") from error
                self._storages.append(storage)
                master = VirtioBlk(config.name, port, storage, queues=queues, **common)
            case options:
                assert isinstance(options, EngineOptions)
                port.atc = self._atc(config, options, smmu)
                master = TestEngine(config.name, port, **common)

        def befall(wrong: Astray) -> None:
            """From now on: the master may be at work."""
            with master.turns:
                port.rewrite, port.on_reset = wrong.rewrite, wrong.on_reset
                if port.atc is not None:
                    port.atc.invalidation = wrong.invalidation

        befall(wrong)
        master.turns.pause = self._pause
        watch.master_lock(master.turns)
        post = self._wires.get((config.name, ""))
        master.post = None if post is None else Post(*post)
        if self._spawn is not None:
            master.wake = self._spawn(config.name, _once(master.work))
        return master

    def _atc(self, config: MasterConfig, options: EngineOptions, smmu: Instance | None) -> Atc | None:
        if smmu is None:
            return None
        traits = self.config.smmu(smmu.name).traits
        if not (traits.ats and options.atc_entries):
            return None
        answering = Answering[options.atc_invalidations.upper().replace("-", "_")]
        return Atc(
            config.name,
            smmu,
            config.stream_ids,
            capacity=options.atc_entries,
            pri=traits.pri,
            answering=answering,
        )

    # -- interrupts ------------------------------------------------------------------------------------------

    def _wire(self, memory: Memory, device: str, source: str, watch: Watch) -> Callable[[], None] | None:
        found = self._wires.get((device, source))
        if found is None:
            return None
        address, value = found
        data = value.to_bytes(4, "little")

        def pulse() -> None:
            if watch.on:
                watch.interrupted(source, None, value, who=device)
            # It may reach nobody: the client is gone, or the function is no bus master.
            memory.post(address, data, unheard)

        return pulse

    def _smmu_interrupt(self, config: SmmuConfig, memory: Memory, watch: Watch) -> Callable[[str], None] | None:
        pulses = {
            source: self._wire(memory, device, source, watch) for device, source in self._wires if device == config.name
        }
        if not pulses:
            return None

        def interrupt(source: str) -> None:
            pulse = pulses.get(source)
            if pulse is not None:
                pulse()

        return interrupt

    def stop(self) -> None:
        """No master makes DMA any more."""
        for master in self.masters.values():
            master.stop()

    def close(self) -> None:
        """Close the disks; once nobody works on them."""
        for storage in self._storages:
            storage.close()


def _once(work: Callable[[], None]) -> Callable[[], bool]:
    def step() -> bool:
        work()
        return False

    return step
