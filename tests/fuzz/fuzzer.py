# SPDX-License-Identifier: Apache-2.0
"""One case: a valid machine from a seed, then random software, masters and endpoints, step by step.

Law: everything follows from the seed. Whatever comes, nothing raises, no access leaves guest RAM or the physical
address space, a call reads a bounded number of times, and answers and queues keep their shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from tests.model import machines, machines_stages
from tests.smmu_builder import IPA_OF_CD, IPA_OF_TABLE, IPA_OFFSET, Bench, PageTable, Ram
from vhost_iommu.errors import UsageError
from vhost_iommu.memory import Buffer, Ended, Memory, Window
from vhost_iommu.smmu.ats import AtsInvalidation, AtsRequest, AtsStatus, PageRequest, PageResponse
from vhost_iommu.smmu.transaction import Answer, Outcome, Stall, Transaction
from vhost_iommu.smmu.v3 import Features, Smmu, commands
from vhost_iommu.smmu.v3.registers import (
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR2,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_PROD,
    GBPA,
    GBPMPAM,
    GERROR,
    GERRORN,
    GMPAM,
    IDR0,
    IDR1,
    IDR3,
    IDR5,
    IRQ_CTRL,
    MPAMIDR,
    PRIQ_BASE,
    PRIQ_CONS,
    PRIQ_PROD,
    REGISTERS,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
    AddressSize,
)
from vhost_iommu.smmu.v3.structures import STE_CONFIG

STEPS = 40
GUARD = 4096

#: Most reads of one page's translation: configuration and both walks with all their levels, each read through
#: stage 2, some walked again for an update of theirs.
READS_PER_PAGE = 200
#: A command reads itself; a prefetch translates up to 64 pages; a stall that is retried translates its own.
READS_PER_COMMAND = 64 * READS_PER_PAGE
#: Commands that one register write can set off are those of the queue, from an index that makes no sense twice.
MOST_COMMANDS = 2 << 8

SOFTWARE = (
    CR0, CR0, CR2, GBPA, GMPAM, GBPMPAM, GERRORN, IRQ_CTRL, STRTAB_BASE, STRTAB_BASE_CFG, CMDQ_BASE, CMDQ_PROD,
    CMDQ_CONS, EVENTQ_BASE, EVENTQ_PROD, EVENTQ_CONS, EVENTQ_CONS, PRIQ_BASE, PRIQ_PROD, PRIQ_CONS,
)  # fmt: skip

#: Commands of this queue, those oftener that keep it going, and one that it must refuse.
COMMANDS: list[type[commands.Command]] = [
    *(kind for code, kind in commands.COMMANDS.items() if code < 0x50 and code not in (0x18, 0x1A)),
    commands.CMD_SYNC, commands.CMD_SYNC, commands.CMD_ATC_INV, commands.CMD_RESUME, commands.CMD_RESUME,
    commands.CMD_TLBI_EL3_ALL,
]  # fmt: skip


class Recorder(Memory):
    """Memory that checks what it is asked for; its windows lie between guard bytes that must stay."""

    def __init__(self, *windows: tuple[int, Buffer]) -> None:
        self.reads = 0
        self.most_reads = 1 << 62
        self.physical_bits = 64
        #: Where queues are: (first, end) of what commands are read from, and of what records are written to.
        self.commands: Callable[[], tuple[int, int]] | None = None
        self.records: Callable[[], list[tuple[int, int]]] | None = None
        self._posting = False
        self._guarded: list[bytearray] = []
        super().__init__(*((base, self._between_guards(buffer)) for base, buffer in windows))

    def _between_guards(self, buffer: Buffer) -> memoryview:
        whole = bytearray(b"\xa5" * GUARD + bytes(buffer) + b"\xa5" * GUARD)
        self._guarded.append(whole)
        return memoryview(whole)[GUARD:-GUARD]

    def add_rom(self, base: int, size: int) -> None:
        self.add(Window(base, size, self._between_guards(bytearray(size)), writable=False))

    def check(self) -> None:
        for whole in self._guarded:
            assert whole[:GUARD] == whole[-GUARD:] == b"\xa5" * GUARD, "an access left guest RAM"

    def _within(self, pa: int, size: int) -> None:
        assert 0 < size <= 64, f"{size} bytes at once"
        assert pa >= 0, f"a negative address {pa:#x}"
        assert pa + size <= 1 << self.physical_bits, f"{pa:#x}+{size} is no physical address"
        assert pa % min(size, 8) == 0, f"{pa:#x}+{size} is not aligned"

    def read(self, pa: int, size: int) -> bytes | None:
        self.reads += 1
        assert self.reads <= self.most_reads, "more reads than are thought to be enough"
        self._within(pa, size)
        if size == 16 and self.commands is not None:  # nothing else is of that size
            first, end = self.commands()
            assert first <= pa < end, f"a command was read from {pa:#x}, which is outside of the queue"
        return super().read(pa, size)

    def write(self, pa: int, data: bytes) -> bool:
        self._within(pa, len(data))
        if self.records is not None and not self._posting and len(data) > 8:  # a descriptor has 8
            inside = any(first <= pa < end for first, end in self.records())
            assert inside, f"a record was written to {pa:#x}, which is outside of the queues"
        return super().write(pa, data)

    def compare_and_swap_u64(self, pa: int, expected: int, new: int) -> bool | None:
        self._within(pa, 8)
        return super().compare_and_swap_u64(pa, expected, new)

    def post(self, pa: int, data: bytes, ended: Ended) -> None:
        self._posting = True
        try:
            super().post(pa, data, ended)
        finally:
            self._posting = False


class FuzzRam(Ram):
    """The builder's RAM behind a recorder."""

    def __init__(self) -> None:
        super().__init__(size=4 << 20)
        self.recorder = self.memory = Recorder((self.base, self.bytes))

    def written(self) -> list[int]:
        """Addresses of the words that are not zero: where structures and descriptors are."""
        window = self.recorder.find(self.base, 8)
        assert window is not None
        data = bytes(window.buffer or b"")[: self._next - self.base]
        return [self.base + at for at in range(0, len(data), 8) if data[at : at + 8] != bytes(8)]


class Device:
    """An endpoint that answers some invalidations at once, some later, and some never in time."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.waiting: list[AtsInvalidation] = []
        self.responses = 0

    def invalidate(self, invalidation: AtsInvalidation) -> None:
        self.waiting.append(invalidation)

    def page_response(self, response: PageResponse) -> None:
        assert 0 <= response.prgi <= 0x1FF
        self.responses += 1

    def answer(self) -> None:
        if self.waiting:
            invalidation = self.waiting.pop(self.random.randrange(len(self.waiting)))
            (invalidation.time_out if self.random.random() < 0.1 else invalidation.complete)()


class Case:
    """A machine and what happens to it; ``log`` names each step for a reader."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.log: list[str] = []
        self.stalls: list[Stall] = []
        #: Addresses at which structures or descriptors may be, and addresses that masters use.
        self.places: list[int] = []
        self.iovas: list[int] = [0, 0x1000, (1 << 48) - 1, (1 << 64) - 1]
        self.sids = [0]
        self.used_ssid: int | None = None
        kind = random.choice([self._built, self._built, self._model, self._stages])
        self.memory: Recorder
        self.smmu: Smmu
        kind(seed)
        bits = AddressSize(self.smmu.registers[IDR5].OAS).bits
        self.memory.physical_bits = bits
        self.memory.outside = self.outside
        #: Told of the end of posted writes that are under way.
        self.posted: list[Ended] = []
        self.memory.commands = lambda: self.queue(CMDQ_BASE, IDR1.CMDQS, 16)
        self.memory.records = lambda: [self.queue(EVENTQ_BASE, IDR1.EVENTQS, 32), self.queue(PRIQ_BASE, IDR1.PRIQS, 16)]
        self.devices = {sid: Device(random) for sid in self.sids}
        self.smmu.endpoints.update(self.devices)
        self.actions: list[tuple[int, Callable[[], None]]] = [
            (12, self.transaction), (3, self.translation_request), (3, self.page_request), (2, self.store_register),
            (1, self.access_anything), (7, self.command), (6, self.change_memory), (2, self.read_queues),
            (2, self.endpoint), (4, self.acknowledge), (1, self.restart), (4, self.answer),
        ]  # fmt: skip

    def queue(self, base: type[CMDQ_BASE | EVENTQ_BASE | PRIQ_BASE], most: Any, entry: int) -> tuple[int, int]:
        """First address and end of a queue, by §6.3.26 and without the model's help."""
        value = self.smmu.registers[base]
        size = max(entry << min(value.LOG2SIZE, most.decode(self.smmu.registers.raw(IDR1))), 32)
        first = value.ADDR & (1 << self.memory.physical_bits) - 1 & -size
        return first, first + size

    # -- machines --------------------------------------------------------------------------------------------

    def _features(self) -> dict[str, Any]:
        random = self.random
        while True:
            wanted: dict[str, Any] = {
                "version": random.choice(["3.1", "3.2", "3.3"]),
                "oas": random.choice([32, 36, 40, 44, 48, 48, 52]),
                "stage2": random.random() < 0.8,
                "aarch32_tables": random.random() < 0.3,
                "endianness": random.choice(["little", "little", "mixed", "big"]),
                "substream_id_bits": random.choice([0, 4, 8, 20]),
                "stream_id_bits": random.choice([3, 6, 16, 32]),
                "asid16": random.random() < 0.8,
                "vmid16": random.random() < 0.5,
                "vmid_wildcards": random.random() < 0.5,
                "hyp": random.random() < 0.4,
                "stall_model": random.choice(["terminate", "both", "both", "stall"]),
                "stall_max": random.choice([1, 3, 32]),
                "abort_only": random.random() < 0.2,
                "hardware_updates": random.choice(["none", "access", "dirty", "tables"]),
                "ats": random.choice(["none", "full", "split"]),
                "pri": random.random() < 0.6,
                "ats_errors": random.random() < 0.6,
                "pri_pasid": random.random() < 0.5,
                "small_tables": random.random() < 0.5,
                "lpa2": random.random() < 0.3,
                "va52": random.random() < 0.3,
                "xnx": random.random() < 0.5,
                "forced_writeback": random.random() < 0.3,
                "msi": random.random() < 0.8,
                "mpam_partid_max": random.choice([0, 0, 1, 100, 0xFFFF]),
                "mpam_pmg_max": random.choice([0, 0, 1, 5]),
            }
            try:
                Features(**wanted)
            except UsageError:
                continue
            return wanted

    def _built(self, seed: int) -> None:
        random = self.random
        ram = FuzzRam()
        features = self._features()
        options: dict[str, Any] = {"tlb_entries": random.choice([1, 4, 4096])}
        options.update(tlb_conflicts=random.random() < 0.3, configuration_conflicts=random.random() < 0.3)
        raw = Features(**features).id_registers()
        if random.random() < 0.3:  # what no SMMU has together, but somebody may write into a machine file
            kind = random.choice([IDR0, IDR1, IDR3, IDR5, MPAMIDR])
            raw[kind] ^= 1 << random.randrange(32)
        options["id_registers"] = {register.__name__: value for register, value in raw.items()}
        bench = Bench(None, ram=ram, event_bits=random.choice([0, 2, 4]), command_bits=4, sid_bits=3, **options)
        self.memory, self.smmu = ram.recorder, bench.smmu
        ram.recorder.add_rom(0x2000_0000, 0x1000)
        for sid in range(5):
            self._stream(bench, sid)
        bench[PRIQ_BASE] = PRIQ_BASE.of(ADDR=ram.alloc(64), LOG2SIZE=2)
        bench[CR0] = CR0(0x1F | random.getrandbits(9) if random.random() < 0.5 else 0xF)
        self.sids = [0, 1, 2, 3, 4]
        self.places = ram.written()
        self.iovas += [IPA_OF_CD, IPA_OF_TABLE, IPA_OFFSET + ram.base]

    def _stream(self, bench: Bench, sid: int) -> None:
        """A stream of some kind that translates a few pages."""
        random = self.random
        idr0 = bench[IDR0]
        stalls = {0: random.getrandbits(1), 1: 0, 2: 1, 3: 0}[idr0.STALL_MODEL]
        cd = {"S": stalls, "A": 1, "R": 1, "HA": idr0.HTTU > 0, "HD": idr0.HTTU > 1, "HAFT": idr0.HTTU == 3}
        cd |= {"ASID": random.randrange(4), "ENDI": idr0.TTENDIAN == 3}
        ste: dict[str, Any] = {
            "EATS": random.choice([0, 1, 2]),
            "S2S": stalls,
            "S2HA": idr0.HTTU > 0,
            "S2HD": idr0.HTTU > 1,
        }
        cd |= {"PARTID": random.getrandbits(16), "PMG": random.getrandbits(2)}
        ste |= {"S1MPAM": random.getrandbits(1), "PARTID": random.getrandbits(8), "PMG": random.getrandbits(2)}
        ste["VMSPtr"] = random.choice([bench.ram.base + 0x1000, 0x2000_0000, 0x7000_0000, 0])
        ste |= {"S2VMID": random.randrange(3), "S1STALLD": 0, "S2ENDI": idr0.TTENDIAN == 3, "PPAR": sid & 1}
        big = idr0.TTENDIAN == 3
        pages = [0x1000 * random.getrandbits(20) for _ in range(4)]
        granule = random.choice([12, 12, 14, 16])
        lpae = bool(idr0.TTF & 1) and random.random() < 0.4
        match random.choice(["one", "two", "both", "bypass"]):
            case "one":
                if lpae:
                    table = PageTable(bench.ram, input_bits=32, big_endian=big)
                    cd |= {"AA64": 0, "T0SZ": 0}
                else:
                    table = PageTable(bench.ram, granule, random.choice([32, 39, 40, 48]), big_endian=big)
                at = bench.cd(None, table, None, **cd)
                bench.ste(sid, **{"Config": STE_CONFIG.S1, "S1ContextPtr": at, **ste})
            case "two":
                bits = 40 if lpae else random.choice([32, 36, 40])
                table = PageTable(bench.ram, 12 if lpae else granule, bits, stage=2, big_endian=big)
                fields = bench.stage2_fields(table)
                if lpae:
                    fields |= {"S2AA64": 0, "S2T0SZ": 0b1000, "S2SL0": 1}
                    ste |= {"S2HA": 0, "S2HD": 0}
                bench.ste(sid, **{"Config": STE_CONFIG.S2, **fields, **ste})
            case "both" if not big and bench[IDR5].OAS > 2:
                table, second = bench.nested(sid, cd=cd, **ste)
                for page in pages:
                    second.map(page & ~0xFFF, bench.ram.base + (page & 0xF_F000))
            case _:
                bench.ste(sid, Config=STE_CONFIG.BYPASS)
                return
        size = 1 << table.granule_bits
        if table.start_level <= 3:
            table.map(pages[0] & -16 * size, bench.ram.base, 12 * size)
        for page in pages:
            output = bench.ram.base + (page & 0xF_F000) & -size
            if lpae:
                output |= random.choice([0, 1 << 36, 1 << 39])
            leaf = {"AF": random.getrandbits(1), "DBM": random.getrandbits(1)}
            leaf["AP" if table.stage == 1 else "S2AP"] = random.getrandbits(2)
            table.map(page & -size, output, **leaf)
        self.iovas += pages * 2

    def _model(self, seed: int) -> None:
        self._of_model(machines.Machine(seed), machines.MUTATIONS)

    def _stages(self, seed: int) -> None:
        self._of_model(machines_stages.StagesMachine(seed), {**machines.MUTATIONS, **machines_stages.MUTATIONS})

    def _of_model(
        self, machine: machines.Machine, mutations: dict[str, Callable[[machines.Machine, int], None]]
    ) -> None:
        """A machine of the model tests, with a few of its mutations."""
        random = self.random
        for _ in range(random.randrange(4)):
            mutations[random.choice(sorted(mutations))](machine, random.getrandbits(32))
        self.memory = Recorder(*machine.ram().windows())
        self.smmu = Smmu(self.memory, id_registers=machine.ids, tlb_entries=random.choice([1, 4096]))
        for offset in machines.ORDER:
            if offset in machine.registers:
                self.smmu.write(offset, 8 if offset in machines.WIDE else 4, machine.registers[offset])
        self.sids = [machine.access.sid]
        self.used_ssid = machine.access.ssid
        self.iovas += [machine.access.iova] * 20
        for structure in machine.structures.values():
            self.places += range(structure.at, structure.at + structure.size, 8)

    # -- steps -----------------------------------------------------------------------------------------------

    def run(self, steps: int = STEPS) -> None:
        weights = [weight for weight, _ in self.actions]
        for _ in range(steps):
            (action,) = self.random.choices([action for _, action in self.actions], weights)
            self.log.append(action.__name__)
            action()
            self.check()

    def note(self, text: str) -> None:
        self.log[-1] += f": {text}"

    def iova(self) -> int:
        random = self.random
        if random.random() < 0.1:
            return random.getrandbits(64)
        near = random.choice(self.iovas) + random.choice([0, 0, 0, random.getrandbits(13), -1])
        return (near ^ (1 << random.randrange(64) if random.random() < 0.1 else 0)) & 2**64 - 1

    def sid(self) -> int:
        return self.random.choice(self.sids) if self.random.random() < 0.95 else self.random.getrandbits(32)

    def ssid(self) -> int | None:
        if self.random.random() < 0.9:
            return self.used_ssid
        return self.random.choice([None, 0, 1, self.random.getrandbits(20)])

    def bounded(self, reads: int, call: Callable[[], Any]) -> Any:
        self.memory.most_reads = self.memory.reads + reads
        return call()

    def transaction(self) -> None:
        random = self.random
        iova = self.iova()
        size = min(random.choice([1, 8, 64, 0x1000, 0x4000]), (1 << 64) - iova)
        t = Transaction(
            self.sid(), iova, size, write=random.random() < 0.5, ssid=self.ssid(), privileged=random.random() < 0.5,
            instruction=random.random() < 0.2, translated=random.random() < 0.1,
        )  # fmt: skip
        self.note(repr(t))
        answer = self.bounded((size // 4096 + 2) * READS_PER_PAGE, lambda: self.smmu.translate(t))
        self.check_answer(t, answer)
        if answer.stall is not None:
            self.stalls.append(answer.stall)

    def check_answer(self, t: Transaction, answer: Answer) -> None:
        done = sum(piece.size for piece in answer.pieces)
        assert all(piece.size > 0 for piece in answer.pieces)
        assert len(answer.memory) == len(answer.pieces)
        top = 1 << self.memory.physical_bits
        assert all(piece.pa >= 0 and piece.pa + piece.size <= top for piece in answer.pieces)
        assert (done == t.size) == (answer.outcome is Outcome.OK)
        assert done <= t.size
        assert len(answer.events) <= 1
        most = self.smmu.validity.mpamidr
        assert answer.mpam.partid <= most.PARTID_MAX
        assert answer.mpam.pmg <= most.PMG_MAX
        assert (answer.stall is not None) == (answer.outcome is Outcome.STALLED)

    def translation_request(self) -> None:
        random = self.random
        flags = {name: random.random() < 0.5 for name in ("no_write", "privileged", "execute")}
        request = AtsRequest(self.sid(), self.iova(), random.choice([1, 0x1000, 1 << 30]), self.ssid(), **flags)
        self.note(repr(request))
        completion = self.bounded(3 * 9 * READS_PER_PAGE, lambda: self.smmu.ats_request(request))
        assert len(completion.entries) <= 8
        assert (completion.status is AtsStatus.SUCCESS) == bool(completion.entries)
        for entry in completion.entries:
            assert entry.size & entry.size - 1 == 0
            assert entry.iova % entry.size == 0
            assert entry.read or not entry.execute

    def page_request(self) -> None:
        random = self.random
        flags = {name: random.random() < 0.5 for name in ("read", "write", "execute", "privileged", "last")}
        request = PageRequest(self.sid(), self.iova(), random.getrandbits(9), self.ssid(), **flags)
        self.note(repr(request))
        self.bounded(READS_PER_PAGE, lambda: self.smmu.page_request(request))

    def value(self) -> int:
        random = self.random
        bits = random.choice([3, 8, 32, 64])
        base = random.choice(self.places) if random.random() < 0.4 else 0
        return base | random.getrandbits(bits) if random.random() < 0.9 else (1 << 64) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        most = (MOST_COMMANDS + len(self.smmu.stalls) * 8) * READS_PER_COMMAND
        self.bounded(most, lambda: self.smmu.write(offset, size, value & (1 << 8 * size) - 1))

    def store_register(self) -> None:
        register = self.random.choice(SOFTWARE)
        value = self.value()
        if self.random.random() < 0.5:
            value = self.smmu.read(register.at, register.size) ^ 1 << self.random.randrange(8 * register.size)
        self.note(f"{register.__name__} = {value:#x}")
        self.write(register.at, register.size, value)

    def access_anything(self) -> None:
        random = self.random
        offset = random.choice([each.at for each in REGISTERS]) + random.choice([0, 0, 1, 4])
        if random.random() < 0.2:
            offset = random.randrange(self.smmu.size)
        size, value = random.choice([1, 2, 4, 8]), self.value()
        self.note(f"{offset:#x}+{size} = {value:#x}")
        self.write(offset, size, value)
        assert 0 <= self.smmu.read(offset, size) < 1 << 64

    def command(self) -> None:
        """Put commands behind those that wait, some of them bent, and tell the SMMU."""
        random, smmu = self.random, self.smmu
        base, prod = smmu.registers[CMDQ_BASE], smmu.registers[CMDQ_PROD].WR
        bits = min(base.LOG2SIZE, smmu.registers[IDR1].CMDQS)
        for _ in range(random.choice([1, 1, 3])):
            raw = self.one_command()
            self.note(repr(commands.decode(raw)))
            at = (base.ADDR & ~((16 << bits) - 1)) + 16 * (prod & (1 << bits) - 1)
            self.poke(at, raw.to_bytes(16, "little"))
            prod = prod + 1 & (2 << bits) - 1
        self.write(CMDQ_PROD.at, 4, prod)

    def one_command(self) -> int:
        random = self.random
        if random.random() < 0.05:
            return random.getrandbits(128)
        kind: type[commands.Command] = random.choice(COMMANDS)
        raw = kind.of().raw
        names = {field.name for field in kind.fields}
        fields: dict[str, int] = {}
        if "SID" in names:
            fields["SID"] = self.sid()
        if "SSV" in names:
            fields |= {"SSV": random.getrandbits(1), "SSID": self.used_ssid or random.choice([0, 1])}
        if "VMID" in names:
            fields["VMID"] = random.randrange(3)
        if "ASID" in names:
            fields["ASID"] = random.randrange(4)
        if "STAG" in names:
            fields |= {"Ac": random.getrandbits(1), "Ab": random.getrandbits(1)}
            known = [stall for stall in self.stalls if stall.stag is not None]
            if known and random.random() < 0.9:
                stall = random.choice(known)
                fields |= {"STAG": stall.stag or 0, "SID": stall.sid}
        if "Address" in names:
            raw |= (self.iova() & ((1 << 52) - 1) & ~0xFFF) << 64
        for name in sorted(names & {"TG", "NUM", "SCALE", "TTL", "Size", "Stride", "Resp", "CS", "Range", "Leaf"}):
            if random.random() < 0.5:
                continue
            spec = getattr(kind, name)
            fields[name] = random.getrandbits(spec.msb - spec.lsb + 1)
        raw = kind(raw).replace(**fields).raw
        return raw ^ (1 << random.randrange(128) if random.random() < 0.05 else 0)

    def poke(self, at: int, data: bytes) -> None:
        """Software's own store, which the checks are not about."""
        Memory.write(self.memory, at, data)

    def change_memory(self) -> None:
        random = self.random
        for _ in range(random.choice([1, 1, 4])):
            at = random.choice(self.places)
            old = Memory.read(self.memory, at, 8)
            if old is None:
                continue
            raw = int.from_bytes(old, "little")
            target = random.choice(self.places) & ~0xFFF | random.getrandbits(12)
            new = random.choice(
                [raw ^ 1 << random.randrange(64), target, target | 3, random.getrandbits(64), raw ^ 3, self.value()]
            )
            self.note(f"{at:#x} = {new:#x}")
            self.poke(at, new.to_bytes(8, "little"))

    def read_queues(self) -> None:
        """Software takes what is in its queues."""
        for prod, cons in ((EVENTQ_PROD, EVENTQ_CONS), (PRIQ_PROD, PRIQ_CONS)):
            value = self.smmu.read(prod.at, 4)
            self.write(cons.at, 4, value if self.random.random() < 0.8 else value & ~(1 << 31))

    def endpoint(self) -> None:
        device = self.devices[self.random.choice(self.sids)]
        self.bounded(MOST_COMMANDS * READS_PER_COMMAND, device.answer)

    def outside(self, pa: int, data: bytes, ended: Ended) -> bool:
        """Refuse a posted write, or take it and end it now or later."""
        how = self.random.random()
        if how < 0.3:
            ended(self.random.random() < 0.3)
        elif how < 0.6:
            self.posted.append(ended)
        return how < 0.6

    def answer(self) -> None:
        """Posted writes that are under way end."""
        posted, self.posted = self.posted, []
        for ended in posted:
            self.bounded(MOST_COMMANDS * READS_PER_COMMAND, partial(self._end, ended))

    def _end(self, ended: Ended) -> None:
        ended(self.random.random() < 0.5)

    def acknowledge(self) -> None:
        """Software puts a CMD_SYNC in place of a command that stopped the queue, and goes on."""
        base, cons = self.smmu.registers[CMDQ_BASE], self.smmu.registers[CMDQ_CONS]
        if cons.ERR and self.random.random() < 0.9:
            bits = min(base.LOG2SIZE, self.smmu.registers[IDR1].CMDQS)
            at = (base.ADDR & ~((16 << bits) - 1)) + 16 * (cons.RD & (1 << bits) - 1)
            self.poke(at, commands.CMD_SYNC.of().to_bytes())
        self.write(GERRORN.at, 4, self.smmu.read(GERROR.at, 4))

    def restart(self) -> None:
        if self.random.random() < 0.1:
            self.smmu.reset()
        else:
            value = self.smmu.read(CR0.at, 4)
            self.write(CR0.at, 4, value & ~CR0.SMMUEN.mask)
            self.write(CR0.at, 4, value)

    # -- what always holds -----------------------------------------------------------------------------------

    def check(self) -> None:
        smmu = self.smmu
        self.memory.check()
        recorded = smmu.stalls.recorded
        assert all(stall.stag == stag and stall.answer is None for stag, stall in recorded.items())
        assert len(recorded) <= smmu.stalls.limit
        held = {id(stall) for stall in (*recorded.values(), *smmu.stalls.unrecorded)}
        assert len(held) == len(smmu.stalls)
        lost = [stall for stall in self.stalls if (stall.answer is None) != (id(stall) in held)]
        assert not lost, f"{lost[0]} is neither held nor answered"
        self.stalls = [stall for stall in self.stalls if stall.answer is None]
        for register in REGISTERS:
            assert 0 <= smmu.registers.raw(register) < 1 << 8 * register.size, register.__name__


class Failure(Exception):  # noqa: N818 - what the case is, not whose mistake
    """A case that failed, with what a reader needs to see it again."""

    def __init__(self, seed: int, log: list[str], error: BaseException) -> None:
        shown = "\n".join(f"  {n}. {line}" for n, line in list(enumerate(log, 1))[-12:])
        super().__init__(
            f"case {seed} failed at step {len(log)}: {type(error).__name__}: {error}\n{shown}\n"
            f"again: python -m tests.fuzz --case {seed}"
        )


def run_case(seed: int, steps: int = STEPS) -> None:
    """Run one case; Failure says which and how to see it again."""
    log: list[str] = []
    try:
        case = Case(seed)
        log = case.log
        case.run(steps)
    except Exception as error:
        raise Failure(seed, log, error) from error
