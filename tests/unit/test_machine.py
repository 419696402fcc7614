# SPDX-License-Identifier: Apache-2.0
"""A machine made from its file: functions, masters and wires, and DMA through translation in one process."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.virtio_driver import IN, OK, OUT, SECTOR, BlkDriver
from tests.smmu_builder import Bench, PageTable, Ram
from vhost_iommu.config import MachineConfig, parse_machine
from vhost_iommu.errors import UsageError
from vhost_iommu.machine import WINDOW_ALIGNMENT, Machine, placements
from vhost_iommu.masters.engine import PAIR, AtcPage, Cmd, ExtensionFrame, PrivilegedFrame, TestEngine, UserFrame
from vhost_iommu.masters.virtio_blk import VirtioBlk
from vhost_iommu.memory import Window
from vhost_iommu.smmu.v3 import commands as c
from vhost_iommu.smmu.v3.events import E_PAGE_REQUEST, F_PERMISSION, F_TRANSLATION, F_UUT
from vhost_iommu.smmu.v3.registers import CR0, IDR0, IDR1, IRQ_CTRL

TWO_SMMUS = """
[guest]
kind = "linux"

[[smmu]]
name = "smmu0"
stream_id_bits = 6
oas = 44

[[smmu]]
name = "smmu1"
stream_id_bits = 8
oas = 40

[[master]]
name = "engine0"
kind = "engine"
smmu = "smmu0"
stream_ids = [1, 2]

[[master]]
name = "disk0"
kind = "virtio-blk"
smmu = "smmu0"
stream_ids = [5]
size = "64K"

[[master]]
name = "engine1"
kind = "engine"
smmu = "smmu1"
stream_ids = [9]
"""

DOORBELL = 0x0802_0040
IOVA, SOURCE, TARGET = 0x10_0000, 0x10_0000, 0x20_0000


@pytest.fixture
def config() -> MachineConfig:
    return parse_machine(TWO_SMMUS)


class Guest(Bench):
    """What the guest sees of one SMMU of a machine: RAM, the registers in BAR0, the masters in BAR2."""

    def __init__(self, machine: Machine, name: str = "smmu0") -> None:
        self.machine = machine
        self.function = next(each for each in machine.functions if each.name == name)
        super().__init__(start=False)
        # The bench's own SMMU gives way to the machine's, which is reached as a client reaches it.
        self.smmu = machine.smmus[name]
        self.function.memory.add(Window(self.ram.base, len(self.ram.bytes), self.ram.bytes))
        self.function.memory.outside = self._posted
        self.function.write(7, 4, b"\x06\0")
        self.start()

    def __getitem__(self, register: Any) -> Any:
        return register(int.from_bytes(self.function.read(0, register.at, register.size), "little"))

    def __setitem__(self, register: Any, value: Any) -> None:
        self.function.write(0, register.at, int(value).to_bytes(register.size, "little"))

    def window(self, master: str) -> int:
        """Where a master's registers are in BAR2."""
        functions = {function.name: function for function in self.machine.config.functions}
        return next(p.offset for p in placements(functions[self.function.name]) if p.master.name == master)

    def mapped(self, sid: int, size: int = 0x1_0000, **leaf: int) -> int:
        """Fresh RAM of ``size`` bytes, which the stream sees at IOVA; its physical address."""
        pa = self.ram.alloc(size)
        self.stream(sid).map(IOVA, pa, size, **leaf)
        self.invalidate(c.CMD_CFGI_STE_RANGE.everything(), c.CMD_TLBI_NSNH_ALL.of())
        return pa

    def copy(self, source: int, target: int, size: int, engine: str = "engine0", **frame: int) -> int:
        """Let the engine's first frame copy; the state that it ends in."""
        base = self.window(engine)
        stores = {
            UserFrame.begin.at: (source, 8),
            UserFrame.end_incl.at: (source + size - 1, 8),
            UserFrame.stride.at: (1, 8),
            UserFrame.udata.at: (target, 8),
            UserFrame.msiaddress.at: (frame.get("msi", 0), 8),
            UserFrame.msidata.at: (0x77, 4),
            0x1_0000 + PrivilegedFrame.streamid.at: (frame.get("sid", 1), 4),
            UserFrame.cmd.at: (int(Cmd.MEMCPY), 4),
        }
        for at, (value, width) in stores.items():
            self.function.write(2, base + at, value.to_bytes(width, "little"))
        return int.from_bytes(self.function.read(2, base, 4), "little")


@pytest.fixture
def guest(config: MachineConfig) -> Guest:
    return Guest(Machine(config))


# -- what there is -------------------------------------------------------------------------------------------


def test_each_smmu_is_a_function_and_each_master_is_behind_its_own(config: MachineConfig) -> None:
    machine = Machine(config)
    assert [function.name for function in machine.functions] == ["smmu0", "smmu1"]
    assert list(machine.masters) == ["engine0", "disk0", "engine1"]
    engine, disk = machine.masters["engine0"], machine.masters["disk0"]
    assert isinstance(engine, TestEngine)
    assert isinstance(disk, VirtioBlk)
    assert disk.storage.size == 64 << 10
    assert engine.port.smmu is machine.smmus["smmu0"] is disk.port.smmu
    assert machine.masters["engine1"].port.smmu is machine.smmus["smmu1"]
    assert (engine.port.sids, disk.port.sids) == ((1, 2), (5,))


@pytest.mark.parametrize(
    ("ats", "engine", "features", "answering"),
    [
        ("", "", 0, 0),
        ('ats = "full"', "", 1, 0),
        ('ats = "full"\npri = true', 'atc_invalidations = "hold"', 3, 1),
        ('ats = "full"\npri = true', 'atc_invalidations = "time-out"', 3, 2),
        ('ats = "full"', "atc_entries = 0", 0, 0),
        ("[smmu.id_registers]\nIDR0 = 0x402", "", 1, 0),
    ],
)
def test_an_engine_has_an_atc_if_its_smmu_has_ats(ats: str, engine: str, features: int, answering: int) -> None:
    text = (
        f'[guest]\nkind = "linux"\n[[smmu]]\nname = "smmu0"\n{ats}\n'
        f'[[master]]\nname = "engine0"\nkind = "engine"\nsmmu = "smmu0"\nstream_ids = [1, 2]\n{engine}\n'
    )
    machine = Machine(parse_machine(text))
    made = machine.masters["engine0"]
    assert isinstance(made, TestEngine)
    registers = [made.read(made.size - 0x10000 + register.at, 4) for register in (AtcPage.features, AtcPage.answering)]
    assert registers == [features, answering]
    assert set(machine.smmus["smmu0"].endpoints) == ({1, 2} if features else set())


def test_a_function_shares_its_memory_with_its_smmu_and_masters_and_with_nobody_else(config: MachineConfig) -> None:
    machine = Machine(config)
    first, second = machine.functions
    assert machine.smmus["smmu0"].memory is first.memory
    assert machine.masters["disk0"].port.memory is first.memory
    assert machine.smmus["smmu1"].memory is second.memory is not first.memory


def test_bar0_is_the_smmus_registers(config: MachineConfig) -> None:
    machine = Machine(config)
    for function, bits in zip(machine.functions, (6, 8), strict=True):
        assert function.region_size(0) == 0x2_0000
        idr1 = IDR1(int.from_bytes(function.read(0, IDR1.at, 4), "little"))
        assert idr1 == idr1.replace(SIDSIZE=bits)
    machine.functions[0].write(0, CR0.at, CR0.of(CMDQEN=1).to_bytes())
    assert machine.smmus["smmu0"].read(CR0.at, 4) == 8
    assert machine.smmus["smmu1"].read(CR0.at, 4) == 0


def test_bar2_is_the_masters_windows_none_of_which_share_a_page(config: MachineConfig) -> None:
    machine = Machine(config)
    placed = placements(config.functions[0])
    assert [each.master.name for each in placed] == ["engine0", "disk0"]
    assert all(each.offset % WINDOW_ALIGNMENT == 0 for each in placed)
    assert placed[0].offset + placed[0].size <= placed[1].offset
    function = machine.functions[0]
    size = function.region_size(2)
    assert size & size - 1 == 0
    assert size >= placed[1].offset + placed[1].size
    assert function.read(2, placed[0].offset, 4) == int(Cmd.HALTED).to_bytes(4, "little")
    assert function.read(2, placed[1].offset, 4) == b"virt"


def test_an_smmu_without_masters_has_no_bar2() -> None:
    machine = Machine(parse_machine('[guest]\nkind = "linux"\n[[smmu]]\nname = "smmu0"\n'))
    assert machine.functions[0].region_size(2) == 0


def test_id_registers_of_the_file_replace_those_of_the_features() -> None:
    text = TWO_SMMUS.replace('name = "smmu1"', 'name = "smmu1"\nid_registers = { IDR0 = 0x0900_140A }')
    machine = Machine(parse_machine(text))
    assert machine.smmus["smmu1"].read(IDR0.at, 4) == 0x0900_140A
    assert machine.smmus["smmu0"].read(IDR0.at, 4) != 0x0900_140A


def test_a_master_behind_no_smmu_is_in_a_function_without_one_and_its_addresses_are_physical() -> None:
    machine = Machine(parse_machine(TWO_SMMUS.replace('smmu = "smmu1"\nstream_ids = [9]', "")))
    assert [function.name for function in machine.functions] == ["smmu0", "smmu1", "untranslated"]
    function, port = machine.functions[-1], machine.masters["engine1"].port
    assert [(region, device.name) for region, _, _, device in function.blocks()] == [(2, "engine1")]
    ram = bytearray(0x1000)
    function.memory.add(Window(0x4000_0000, len(ram), ram))
    assert port.write(0x4000_0010, b"untranslated") is None
    assert ram[0x10:0x1C] == b"untranslated"
    assert machine.smmus["smmu1"].counters.transactions == 0


# -- DMA -----------------------------------------------------------------------------------------------------


def test_the_engine_copies_through_translation(guest: Guest) -> None:
    pa = guest.mapped(1)
    guest.ram.put(pa, bytes(range(256)) * 64)
    assert guest.copy(IOVA + 3, IOVA + 0x8000, 0x3000) == Cmd.HALTED
    assert guest.ram.get(pa + 0x8000, 0x3000) == (bytes(range(256)) * 64)[3:0x3003]
    assert guest.events() == []


def test_the_engine_faults_where_nothing_is_mapped_and_the_event_names_its_stream(guest: Guest) -> None:
    guest.mapped(1)
    assert guest.copy(IOVA, IOVA + 0x1_0000, 8) == Cmd.ERROR
    (event,) = guest.events()
    assert event == F_TRANSLATION.of(SID=1, RnW=0, CLASS=2, InputAddr=IOVA + 0x1_0000)


def test_the_engine_may_not_write_what_is_mapped_for_reading(guest: Guest) -> None:
    pa = guest.mapped(2, AP=3)
    before = guest.ram.get(pa, 16)
    assert guest.copy(IOVA, IOVA + 8, 8, sid=2) == Cmd.ERROR
    assert [type(event) for event in guest.events()] == [F_PERMISSION]
    assert guest.ram.get(pa, 16) == before


def test_a_stream_that_is_not_the_masters_is_refused_by_the_master(guest: Guest) -> None:
    guest.mapped(5)
    assert guest.copy(IOVA, IOVA + 8, 8, sid=5) == Cmd.MISCONFIGURED
    assert guest.events() == []


def test_an_unmapped_and_invalidated_page_is_reached_no_more(guest: Guest) -> None:
    pa = guest.ram.alloc(0x1000)
    table = guest.stream(1)
    table.map(IOVA, pa)
    assert guest.copy(IOVA, IOVA + 0x100, 8) == Cmd.HALTED
    table.unmap(IOVA)
    assert guest.copy(IOVA, IOVA + 0x100, 8) == Cmd.HALTED  # the TLB still has it
    guest.invalidate(c.CMD_TLBI_NH_VA.of(ASID=1, Address=IOVA))
    assert guest.copy(IOVA, IOVA + 0x100, 8) == Cmd.ERROR


def test_the_disk_is_read_and_written_through_translation(guest: Guest) -> None:
    pa = guest.ram.alloc(0x4_0000)
    table = PageTable(guest.ram)
    # Pages in descending order, so that nothing works by accident.
    for n in range(0x40):
        table.map(IOVA + 0x1000 * n, pa + 0x1000 * (0x3F - n))
    guest.stream(5, table=table)

    class Scattered(bytearray):
        """The guest's RAM as the device finds it: pages in the order of their IOVA."""

        def __getitem__(self, key: Any) -> Any:
            return bytes(self._byte(at) for at in range(key.start, key.stop))

        def __setitem__(self, key: Any, value: Any) -> None:
            for at, byte in zip(range(key.start, key.stop), value, strict=True):
                guest.ram.bytes[self._at(at)] = byte

        def _at(self, at: int) -> int:
            return pa - guest.ram.base + 0x1000 * (0x3F - at // 0x1000) + at % 0x1000

        def _byte(self, at: int) -> int:
            return guest.ram.bytes[self._at(at)]

    class Registers:
        """The disk's window in BAR2."""

        base = guest.window("disk0")

        def read(self, offset: int, size: int) -> int:
            return int.from_bytes(guest.function.read(2, self.base + offset, size), "little")

        def write(self, offset: int, size: int, value: int) -> None:
            guest.function.write(2, self.base + offset, value.to_bytes(size, "little"))

    driver = BlkDriver(Registers(), Scattered(0x4_0000), IOVA)
    driver.probe()
    data = bytes(range(256)) * 24  # across pages that are not adjacent
    status, _, _ = driver.request(OUT, 4, data)
    assert status == OK
    status, read, _ = driver.request(IN, 4, room=len(data))
    assert (status, read) == (OK, data)
    disk = guest.machine.masters["disk0"]
    assert isinstance(disk, VirtioBlk)
    assert disk.storage.read(4 * SECTOR, len(data)) == data
    assert guest.events() == []


def test_masters_behind_different_smmus_do_not_meet(config: MachineConfig) -> None:
    machine = Machine(config)
    first, second = Guest(machine), Guest(machine, "smmu1")
    pa, other = first.mapped(1), second.mapped(9)
    first.ram.put(pa, b"first   ")
    second.ram.put(other, b"second  ")
    assert first.copy(IOVA, IOVA + 8, 8) == Cmd.HALTED
    assert second.copy(IOVA, IOVA + 8, 8, "engine1", sid=9) == Cmd.HALTED
    assert first.ram.get(pa, 16) == b"first   first   "
    assert second.ram.get(other, 16) == b"second  second  "
    first[CR0] = 0
    assert second.copy(IOVA, IOVA + 16, 8, "engine1", sid=9) == Cmd.HALTED


# -- interrupts ----------------------------------------------------------------------------------------------

WIRES = {
    ("smmu0", "eventq"): (DOORBELL, 80),
    ("smmu0", "gerror"): (DOORBELL, 81),
    ("smmu0", "cmdq-sync"): (DOORBELL, 82),
    ("engine0", ""): (DOORBELL, 83),
    ("disk0", ""): (DOORBELL, 84),
}


def test_a_guest_has_its_engine_make_the_events_that_nothing_else_makes(guest: Guest) -> None:
    guest.mapped(1)
    special = guest.window("engine0") + PAIR + ExtensionFrame.special.at
    guest.function.write(2, special, b"\3\0\0\0")
    assert guest.copy(IOVA, IOVA + 0x1000, 8) == Cmd.ERROR
    assert guest.events() == [
        E_PAGE_REQUEST.of(SID=1, uR=1, Span=1, InputAddr=IOVA),
        E_PAGE_REQUEST.of(SID=1, uW=1, Span=1, InputAddr=IOVA + 0x1000),
        F_UUT.of(SID=1, RnW=1, InputAddr=IOVA),
    ]
    guest.function.write(2, special, bytes(4))
    assert guest.copy(IOVA, IOVA + 0x1000, 8) == Cmd.HALTED


def test_each_wire_is_a_posted_write_of_its_own_number(config: MachineConfig) -> None:
    guest = Guest(Machine(config, wires=WIRES))
    guest[IRQ_CTRL] = IRQ_CTRL.of(GERROR_IRQEN=1, EVENTQ_IRQEN=1)
    guest.mapped(1)
    assert guest.copy(IOVA, IOVA + 8, 8) == Cmd.HALTED
    assert guest.copy(0, 8, 8) == Cmd.ERROR
    guest.submit(c.CMD_SYNC.of(CS=1), c.Command(0xFF))
    numbers = [int.from_bytes(data, "little") for pa, data in guest.posted if pa == DOORBELL]
    assert numbers == [83, 80, 83, 82, 81]
    assert len(guest.posted) == 5


def test_without_wires_nothing_is_posted(guest: Guest) -> None:
    guest.mapped(1)
    guest.interrupts_on()
    assert guest.copy(0, 8, 8) == Cmd.ERROR
    guest.submit(c.CMD_SYNC.of(CS=1))
    assert guest.posted == []


def test_the_engines_msi_goes_through_translation(guest: Guest) -> None:
    pa = guest.mapped(1)
    assert guest.copy(IOVA, IOVA + 8, 8, msi=IOVA + 0x100) == Cmd.HALTED
    assert guest.ram.get(pa + 0x100, 4) == b"\x77\0\0\0"


# -- reset and the end ---------------------------------------------------------------------------------------


def test_a_reset_returns_the_smmu_and_its_masters_to_power_on(guest: Guest) -> None:
    guest.mapped(1)
    assert guest.copy(IOVA, IOVA + 8, 8) == Cmd.HALTED
    guest.function.reset()
    assert guest[CR0].raw == 0
    assert guest.function.read(2, guest.window("engine0") + UserFrame.begin.at, 8) == bytes(8)
    assert len(guest.smmu.tlb) == 0


def test_in_a_reset_masters_stop_before_their_smmu_lets_addresses_pass(
    config: MachineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(config)
    order: list[str] = []
    for kind in {type(part) for part in (*machine.smmus.values(), *machine.masters.values())}:
        monkeypatch.setattr(kind, "reset", lambda part: order.append(part.name))
    machine.functions[0].reset()
    assert order == ["engine0", "disk0", "smmu0"]


def test_a_stopped_machine_makes_no_dma(guest: Guest) -> None:
    pa = guest.mapped(1)
    guest.ram.put(pa, b"x" * 8)
    guest.machine.stop()
    guest.copy(IOVA, IOVA + 8, 8)
    assert guest.ram.get(pa + 8, 8) == bytes(8)


def test_a_machine_that_is_spawned_works_only_when_its_threads_do(config: MachineConfig) -> None:
    woken: list[str] = []
    works: dict[str, Any] = {}

    def spawn(name: str, work: Any) -> Any:
        works[name] = work
        return lambda: woken.append(name)

    guest = Guest(Machine(config, spawn=spawn))
    assert set(works) == {"smmu0", "smmu1", "engine0", "disk0", "engine1"}
    pa = guest.mapped(1)
    guest.ram.put(pa, b"12345678")
    assert guest.copy(IOVA, IOVA + 8, 8) == Cmd.MEMCPY
    assert woken == ["engine0"]
    assert works["engine0"]() is False
    assert guest.copy(IOVA, IOVA + 8, 8) == Cmd.MEMCPY
    assert guest.ram.get(pa + 8, 8) == b"12345678"


def test_two_machines_of_one_file_share_nothing(config: MachineConfig) -> None:
    ram = Ram()
    first, second = Machine(config), Machine(config)
    first.functions[0].memory.add(ram.memory.windows[0])
    first.functions[0].write(0, CR0.at, CR0.of(CMDQEN=1).to_bytes())
    assert second.functions[0].memory.windows == ()
    assert second.smmus["smmu0"].read(CR0.at, 4) == 0


def test_a_disk_that_is_not_there_is_named_with_the_machine_file_and_the_master() -> None:
    text = TWO_SMMUS.replace('size = "64K"', 'image = "no-such-folder/disk.img"')
    with pytest.raises(UsageError) as caught:
        Machine(parse_machine(text))
    assert str(caught.value).startswith("machine.toml: [[master]] disk0: there is no folder for the disk no-such-f")
