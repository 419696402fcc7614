# SPDX-License-Identifier: Apache-2.0
"""One of the random machines of both stages, with a past: bent while it runs, and its access made again and again.

Law: as for the machines; each step changes one thing in memory or in a register, or names something to be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.model import oracle as o
from tests.model.machines import ORDER, WIDE, put
from tests.model.machines_stages import MUTATIONS, ONE, StagesMachine
from tests.model.twins import Choices, WatchedPort, show, show_completion
from vhost_iommu.errors import ClientError
from vhost_iommu.masters.port import Attributes
from vhost_iommu.memory import Memory, Window
from vhost_iommu.smmu.ats import AtsRequest
from vhost_iommu.smmu.memory_type import MemoryType
from vhost_iommu.smmu.transaction import Transaction
from vhost_iommu.smmu.v3 import Smmu, commands
from vhost_iommu.smmu.v3.registers import CMDQ_CONS, CMDQ_PROD, CR0ACK, GERROR, GERRORN

MEMORY = sorted(name for name in MUTATIONS if not name.startswith("IDR"))
KINDS = (
    *("access",) * 8,
    "read",
    "write",
    *("bend",) * 3,
    "mend",
    "mend",
    *("forget",) * 3,
    "ats",
    "register",
    "resume",
)


class BentMachine:
    """One side."""

    def __init__(self, seed: int, bent: Sequence[tuple[str, int]], pure: bool) -> None:
        self.machine = machine = StagesMachine(seed)
        for name, number in bent:
            MUTATIONS[name](machine, number)
        machine.ids["IDR0"] |= (seed & 1) << 10  # ATS
        if machine.mode == ONE and seed % 4 == 2:
            machine.ids["IDR0"] &= ~1  # no stage 2: VMIDs do not count
        self.first = {name: structure.value for name, structure in machine.structures.items()}
        self.memory = Memory(*((base, bytearray(data)) for base, data in machine.ram().windows()))
        for _, page in sorted(self._leaves()):
            try:
                self.memory.add(Window(page, 0x2000, bytearray(0x2000)))
            except ClientError:
                continue  # structures are there
        self.smmu = Smmu(self.memory, id_registers=machine.ids, pure=pure)
        for offset in ORDER:
            if offset in machine.registers:
                self._store(offset, machine.registers[offset])
        self.port = WatchedPort("port", self.memory, self.smmu, (machine.access.sid,))

    def _leaves(self) -> list[tuple[str, int]]:
        """Where the machine's leaves lead, roughly: there is memory to read and to write."""
        found = []
        for name, structure in self.machine.structures.items():
            if structure.size == 8 and structure.backed and structure.value & 1:
                found.append((name, structure.value & (1 << 48) - 0x1000))
        return found

    def _store(self, offset: int, value: int) -> None:
        self.smmu.write(offset, 8 if offset in WIDE else 4, value)

    def step(self, kind: str, number: int) -> object:
        return getattr(self, "_" + kind)(Choices(number))

    # -- what masters do ---------------------------------------------------------------------------------------

    def _varied(self, c: Choices) -> o.Access:
        """The machine's own access, or one that differs in a thing or two."""
        access = self.machine.access
        for _ in range(c.below(3)):
            match c.below(7):
                case 0:
                    access = replace(access, write=not access.write)
                case 1:
                    access = replace(access, privileged=not access.privileged)
                case 2:
                    access = replace(access, instruction=not access.instruction)
                case 3:
                    access = replace(access, size=c.of((1, 8, 4096, 9000)))
                case 4:
                    access = replace(access, iova=access.iova ^ 1 << c.of((12, 13, 14, 21, 30, 47, 55, 56, 63)))
                case 5:
                    access = replace(access, ssid=c.of((None, 0, 1, access.ssid)))
                case _:
                    access = replace(access, iova=access.iova & ~0xFFF | c.of((0, 0xFF8, 0xFFF)))
        if access.iova + access.size > 1 << 64:
            access = replace(access, size=1)
        return access

    def _access(self, c: Choices) -> object:
        access = self._varied(c)
        fields = {name: getattr(access, name) for name in access.__slots__}
        return show(self.smmu.translate(Transaction(**fields, memory=MemoryType(*self.machine.incoming))))

    def _read(self, c: Choices) -> object:
        a = self._varied(c)
        return self.port.done(self.port.read(a.iova, a.size, Attributes(ssid=a.ssid, privileged=a.privileged)))

    def _write(self, c: Choices) -> object:
        a = self._varied(c)
        # What a master writes to descriptors of its own request is another matter.
        return self.port.done(
            self.port.write(a.iova, b"\xa5" * min(a.size, 8), Attributes(ssid=a.ssid, privileged=a.privileged))
        )

    def _ats(self, c: Choices) -> object:
        a = self._varied(c)
        request = AtsRequest(a.sid, a.iova, a.size, a.ssid, bool(c.below(2)), a.privileged, a.instruction)
        return show_completion(self.smmu.ats_request(request))

    # -- what software does ------------------------------------------------------------------------------------

    def _bend(self, c: Choices) -> object:
        before = {name: structure.value for name, structure in self.machine.structures.items()}
        MUTATIONS[MEMORY[c.below(len(MEMORY))]](self.machine, c.below(1 << 20))
        self._write_structures(before)
        return None

    def _mend(self, c: Choices) -> object:
        before = {name: structure.value for name, structure in self.machine.structures.items()}
        for name, value in self.first.items():
            self.machine.structures[name].value = value
        self._write_structures(before if c.below(2) else {})
        return None

    def _write_structures(self, before: dict[str, int]) -> None:
        for name, structure in self.machine.structures.items():
            if structure.value != before.get(name):
                value = structure.value & (1 << 8 * structure.size) - 1
                self.memory.write(structure.at, value.to_bytes(structure.size, "big" if structure.big else "little"))

    def _forget(self, c: Choices) -> object:
        machine = self.machine
        ste, cd, access = machine.structures["ste"].value, machine.structures["cd"].value, machine.access
        tags = {"VMID": o.bits(ste, 143, 128), "ASID": o.bits(cd, 63, 48)}
        if c.rarely(4):
            tags = {name: value ^ 1 for name, value in tags.items()}
        address = access.iova >> 12
        if c.rarely(4):
            address ^= 1 << c.below(20)
        kind = c.of(
            (
                commands.CMD_TLBI_NH_VA, commands.CMD_TLBI_S2_IPA, commands.CMD_TLBI_NH_VAA, commands.CMD_CFGI_STE,
                commands.CMD_CFGI_CD, commands.CMD_TLBI_NH_ALL, commands.CMD_TLBI_NH_ASID, commands.CMD_TLBI_EL2_VA,
                commands.CMD_TLBI_EL2_VAA, commands.CMD_TLBI_EL2_ASID, commands.CMD_TLBI_EL2_ALL,
                commands.CMD_TLBI_S12_VMALL, commands.CMD_TLBI_NSNH_ALL, commands.CMD_CFGI_CD_ALL,
                commands.CMD_CFGI_STE_RANGE, commands.CMD_PREFETCH_ADDR, commands.CMD_PREFETCH_CONFIG,
            )
        )  # fmt: skip
        fields = {**tags, "SID": access.sid, "SSID": access.ssid or 0, "SSV": access.ssid is not None}
        fields |= {"Leaf": c.below(2), "TG": c.below(4), "TTL": c.below(4), "NUM": c.of((0, 1, 31)), "Size": c.below(3)}
        fields |= {"SCALE": c.of((0, 1, 9, 31, 39)), "Range": c.of((0, 5, 31)), "Stride": c.below(3)}
        known = {f.name: f.mask for f in kind.fields}
        raw = kind.of(**{name: int(value) for name, value in fields.items() if name in known}).raw
        if "Address" in known:
            raw = put(raw, 119 if kind is commands.CMD_TLBI_S2_IPA else 127, 76, address)
        return self._run(commands.decode(raw.to_bytes(16, "little")))

    def _run(self, *given: commands.Command) -> object:
        """By the machine's command queue, one at a time, as long as that is there."""
        smmu, ring = self.smmu, self.smmu.commands.ring()
        answers = []
        for command in (*given, commands.CMD_SYNC.of()):
            prod = smmu.registers.raw(CMDQ_PROD) & ring.index_mask
            self.memory.write(ring.slot(prod), command.to_bytes())
            self._store(o.CMDQ_PROD, ring.next(prod))
            answers.append(smmu.registers.raw(CMDQ_CONS))
            if smmu.reports.error_active(GERROR.CMDQ_ERR.mask):
                self.memory.write(ring.slot(prod), commands.CMD_SYNC.of().to_bytes())
                self._store(GERRORN.at, smmu.registers.raw(GERROR))
        return answers

    def _register(self, c: Choices) -> object:
        registers = self.machine.registers
        cr0 = registers[o.CR0]
        match c.below(5):
            case 0:
                self._store(o.CR0, cr0 ^ 1)
                registers[o.CR0] = cr0 ^ 1
            case 1:
                self._store(o.CR0, cr0 | 1 | c.below(2) << 4)
            case 2:
                self._store(o.GBPA, 1 << 31 | c.below(32) | c.below(4) << 12 | c.rarely(4) << 20)
            case 3:
                self._store(o.CR0, cr0 & ~1)
                self._store(o.CR2, registers[o.CR2] ^ c.of((1, 2)))
                self._store(o.STRTAB_BASE_CFG, registers[o.STRTAB_BASE_CFG] ^ c.of((0, 0, 1, 1 << 16, 1 << 6)))
                self._store(o.CR0, cr0 | 1)
            case _:
                self._store(o.CR0, cr0 & ~1)
                self._store(o.CR2, registers[o.CR2])
                self._store(o.STRTAB_BASE_CFG, registers[o.STRTAB_BASE_CFG])
                self._store(o.CR0, cr0 | 1)
        return self.smmu.registers.raw(CR0ACK)

    def _resume(self, c: Choices) -> object:
        told = sorted(self.smmu.stalls.recorded.items())
        answers = [commands.CMD_RESUME.of(SID=s.sid, STAG=tag, Ac=c.of((1, 0)), Ab=c.below(2)) for tag, s in told]
        shown = [self._run(*answers)]
        return [*shown, *self.port.go_on()]
