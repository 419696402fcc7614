# SPDX-License-Identifier: Apache-2.0
"""A machine with many streams that share tables, and what software and masters do to it, step by step.

Law: a shape and the steps are numbers, of which 0 is the plainest; all follows from them. Structures begin valid, are
bent one thing at a time without an invalidation, and mended again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from tests.model.twins import Choices, WatchedPort, show, show_completion
from tests.smmu_builder import IPA_OFFSET, RAM_BASE, Bench, PageTable, Ram
from vhost_iommu.masters.port import Attributes
from vhost_iommu.memory import Memory, Window
from vhost_iommu.smmu.ats import AtsRequest
from vhost_iommu.smmu.memory_type import MemoryType
from vhost_iommu.smmu.transaction import Transaction
from vhost_iommu.smmu.v3 import Smmu, commands
from vhost_iommu.smmu.v3.registers import (
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR2,
    EVENTQ_CONS,
    EVENTQ_PROD,
    GBPA,
    GBPMPAM,
    GERROR,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
    CommandError,
)
from vhost_iommu.smmu.v3.structures import CD, EATS, L1CD, L1STD, S1DSS, STE, STE_CONFIG, S1Fmt

L = TypeVar("L", STE, CD)

RAM_SIZE = 2 << 20
RAM_END = RAM_BASE + RAM_SIZE

#: Streams: by stage 1, with substreams, nested in two virtual machines, by stage 2, … and with CDs of which half is
#: there.
ONE, OTHER, SUBSTREAMS, NESTED, NESTED2, SECOND, BYPASS, ABORTS, EL2, LPAE, SUBNESTED, SECOND_LPAE, SHORT = (
    *range(9),
    65,
    10,
    11,
    12,
)
STREAMS = (ONE, OTHER, SUBSTREAMS, NESTED, NESTED2, SECOND, BYPASS, ABORTS, EL2, LPAE, SUBNESTED, SECOND_LPAE, SHORT)
SSIDS = (None, 1, 2, 65, 1, 2, 127, 0, 128)

#: The pages of the first table by their number, and what they map: pages of RAM by theirs (-1: the last), or HOLE.
HOLE, ROM = "a hole", "read-only memory"
PAGES: tuple[int | str, ...] = (0, 1, 2, 5, -2, -1, HOLE, ROM)

KINDS = (
    *("scene",) * 10,
    *("syncs",) * 2,
    *("configuration scene",) * 8,
    *("vms scene", "global scene") * 2,
    *("access",) * 8,
    *("read", "write") * 4,
    *("leaf",) * 5,
    *("table step", "table step", "bit", "mend", "mend", "ste", "ste", "cd", "cd", "first level", "vms"),
    *("tlbi",) * 4,
    *("cfgi", "cfgi", "prefetch", "ats", "translated", "register", "windows", "resume", "events"),
)


TLBIS: tuple[type[commands.Command], ...] = (
    commands.CMD_TLBI_NH_VA, commands.CMD_TLBI_NH_VAA, commands.CMD_TLBI_S2_IPA, commands.CMD_TLBI_NH_ASID,
    commands.CMD_TLBI_NH_ALL, commands.CMD_TLBI_S12_VMALL, commands.CMD_TLBI_EL2_VA, commands.CMD_TLBI_EL2_VAA,
    commands.CMD_TLBI_EL2_ASID, commands.CMD_TLBI_EL2_ALL, commands.CMD_TLBI_NSNH_ALL,
)  # fmt: skip
#: What forgets a page, and what a stream was made of.
CACHES = (
    *TLBIS[:8], commands.CMD_TLBI_NH_VA, commands.CMD_CFGI_STE, commands.CMD_CFGI_CD, commands.CMD_CFGI_CD_ALL,
    commands.CMD_CFGI_VMS_PIDM,
)  # fmt: skip
STE_CACHES = (commands.CMD_CFGI_STE, commands.CMD_CFGI_STE, commands.CMD_CFGI_STE_RANGE)
CD_CACHES = (commands.CMD_CFGI_CD, commands.CMD_CFGI_CD_ALL, commands.CMD_CFGI_STE, commands.CMD_TLBI_NSNH_ALL)
VMS_CACHES = (
    commands.CMD_CFGI_VMS_PIDM, commands.CMD_CFGI_CD, commands.CMD_CFGI_STE_RANGE, commands.CMD_CFGI_STE,
)  # fmt: skip


@dataclass
class Slot:
    """A descriptor, and what it was when all was well."""

    table: PageTable
    level: int
    at: int
    value: int


class History:
    """One side: an SMMU, its RAM, and the state of what drives them."""

    def __init__(self, shape: int, pure: bool) -> None:
        c = Choices(shape)
        self.aborted = False
        granule = c.of(("4K", "16K", "64K"))
        self.granule = {"4K": 12, "16K": 14, "64K": 16}[granule]
        updates = c.of(("none", "tables", "dirty", "access", "tables"))
        stalls = c.of(("terminate", "both", "both", "stall"))
        self.wide = c.of((48, 52, 44, 40, 36))
        self.lpa2 = self.wide == 52 and granule != "64K" and c.below(2) == 0
        self.big = bool(c.below(3) == 2)
        self.two_level, self.two_level_cds = bool(c.below(2)), bool(c.below(2))
        self.abort_only, self.e2h = c.rarely(), bool(c.below(2))
        ats = c.of(("split", "full", "none"))
        features: dict[str, Any] = dict(  # noqa: C408
            version="3.3", oas=self.wide, stage2=True, aarch32_tables=True, endianness="mixed", hyp=True, vmid16=True,
            substream_id_bits=8, stall_model=stalls, stall_max=c.of((32, 1, 2)), hardware_updates=updates,
            ats=ats, ats_errors=ats != "none", vmid_wildcards=True, e0pd=True, epan=True,
            xnx=not c.below(2), forced_writeback=not c.below(2), lpa2=self.lpa2, small_tables=True,
            mpam_partid_max=c.of((31, 5, 0)), mpam_pmg_max=c.of((3, 0)), abort_only=self.abort_only,
        )  # fmt: skip
        self.stall = stalls == "stall" or (stalls == "both" and not c.below(3))
        self.updates = updates
        options: dict[str, Any] = {"event_bits": 5, "acknowledge_after": c.of((0, 0, 1))}
        if c.below(2):
            options["interrupt"] = None
        low = bool(c.below(2))
        self.bench = Bench(features, ram=Ram(size=RAM_SIZE), start=False, pure=pure, pumped=not pure, **options)
        self.ram = self.bench.ram
        #: What most steps are about, until another is: a stream, and a page of its table.
        self.stream, self.page = ONE, 0
        self.smmu: Smmu = self.bench.smmu
        self.memory: Memory = self.ram.memory
        self.data = 0
        #: Structures and descriptors that steps change: (address, as it began); pointers to leaves, and VMSs' words.
        self.stes: dict[int, tuple[int, STE]] = {}
        self.cds: list[tuple[int, CD]] = []
        self.words: list[tuple[int, int]] = []
        self.partids: list[tuple[int, int]] = []
        self.slots: list[Slot] = []
        #: By StreamID: its tables and CDs.
        self.tables_of: dict[int, tuple[PageTable, ...]] = {}
        self.cds_of: dict[int, list[tuple[int, CD]]] = {}
        self.tables: list[PageTable] = []
        self.second: list[PageTable] = []
        self._add_windows()
        if low:
            self.memory.add(Window(0, 0x1000, bytearray(0x1000)))
        self._make_streams(c)
        words = memoryview(self.ram.bytes).cast("Q")[: self.data - RAM_BASE >> 3]
        self.written = [(RAM_BASE + 8 * n, word) for n, word in enumerate(words) if word]
        self._start()
        self.port = WatchedPort("port", self.memory, self.smmu, STREAMS)

    def step(self, kind: str, number: int) -> object:
        return getattr(self, "_" + kind.replace(" ", "_"))(Choices(number))

    # -- how all begins ----------------------------------------------------------------------------------------

    def _add_windows(self) -> None:
        """RAM's neighbour, read-only memory, what nobody can reach, and RAM at the top of all addresses."""
        top = (1 << self.wide) - 0x20000
        self.rom, self.short = RAM_END + (1 << 20), RAM_END + (1 << 20) + 0x40000
        self.high, self.edge = top, self.short + 0x10000
        page = 1 << self.granule
        # A table whose leaves nobody can update; one of four entries, which is its own next table; and a CD and a half,
        # which look like pointers to them.
        leaves = [RAM_END - (RAM_SIZE >> 2) + n % 8 * page | 0b1111_0100_0011 ^ (n & 1) << 10 for n in range(0x2000)]
        table = b"".join(leaf.to_bytes(8, "big" if self.big else "little") for leaf in leaves)
        self.others = [
            Window(RAM_END, 0x20000, bytearray(0x20000)),
            Window(self.rom, 0x10000, bytearray(table), True, False),
            Window(self.rom + 0x10000, 0x10000, None),
            Window(top, 0x20000, bytearray(0x20000)),
            Window(self.edge, 0x20, bytearray((self.edge | 0xF43).to_bytes(8, "big" if self.big else "little") * 4)),
            Window(self.short, 0x60, bytearray((self.short | 1).to_bytes(8, "little") * 12)),
        ]
        for window in self.others:
            self.memory.add(window)

    def _start(self) -> None:
        bench = self.bench
        bench.start(SMMUEN=0)
        bench[CR2] = CR2.of(RECINVSID=1, REC_CFG_ATS=1, E2H=self.e2h)
        self._stream_table(self.two_level)
        bench[CR0] = CR0.of(SMMUEN=1, EVENTQEN=1, CMDQEN=1, ATSCHK=1)
        self._settle()

    def _settle(self) -> None:
        """Have everything acknowledged that is under way."""
        for _ in range(4):
            self.bench[CR0]

    def _stream_table(self, two_level: bool) -> None:
        bench = self.bench
        bench[STRTAB_BASE] = STRTAB_BASE.of(ADDR=self.first_level if two_level else self.linear)
        bench[STRTAB_BASE_CFG] = STRTAB_BASE_CFG.of(LOG2SIZE=7, FMT=int(two_level), SPLIT=6)

    def _table(self, **how: Any) -> PageTable:
        table = PageTable(self.ram, self.granule, **{"big_endian": self.big, "lpa2": self.lpa2, **how})
        self.tables.append(table)
        return table

    def _make_streams(self, c: Choices) -> None:
        ram, page = self.ram, 1 << self.granule
        self.linear = ram.alloc(128 * 64, 1 << 13)
        self.leaf = ram.alloc(0x1000)
        self.first_level = ram.alloc(64)
        for index, leaf in enumerate((self.linear, self.leaf)):
            self._word(self.first_level + index * 8, L1STD.of(Span=7, L2Ptr=leaf).raw)
        bits = self.granule + 2 * (self.granule - 3) + 2
        self.va_bits = bits
        first, high, other = self._table(input_bits=bits), self._table(input_bits=bits), self._table(input_bits=bits)
        lpae = PageTable(ram, 12, 32)
        seen = self._table(input_bits=bits, seen_at=IPA_OFFSET)
        self.tables.append(lpae)
        of_vm = [self._table(input_bits=40, stage=2) for _ in range(2)]
        self.aarch32 = narrow = PageTable(ram, 12, 40, stage=2)
        self.second = of_vm
        #: What later steps map things to.
        self.block = 1 << 2 * self.granule - 3
        self._reserve()
        for table in (first, high, other, lpae):
            self._fill(table, 0)
        for number in range(3):  # of TTB1, once T1SZ is not 0
            self._map(lpae, (1 << 31) + number * 0x1000, RAM_END - 0x2000, 3)
        for table in (*of_vm, narrow):
            self._fill_second(table)
        self._fill(seen, IPA_OFFSET)
        self.data_pages = [self.data + n * page for n in range(8)]
        vms = ram.alloc(64, 0x1000)
        for at in range(0, 64, 8):
            self.partids.append((vms + at, sum((at + n * 3 + 1 & 31) << 16 * n for n in range(4))))
            ram.put_u64(*self.partids[-1])
        self._make_stes(first, high, other, lpae, seen, [*of_vm, narrow], vms)
        self._slots()
        assert ram._next <= self.data, f"structures take {ram._next - RAM_BASE:#x}"

    def _reserve(self) -> None:
        """The last quarter of RAM is data, at addresses that the granule divides."""
        self.data = RAM_END - (RAM_SIZE >> 2)

    def _output(self, what: int | str) -> int:
        page = 1 << self.granule
        if what == HOLE:
            return RAM_END + (1 << 19)
        if what == ROM:
            return self.rom
        assert isinstance(what, int)
        return self.data + what * page if what >= 0 else RAM_END + what * page

    def _fill(self, table: PageTable, offset: int) -> None:
        """Pages, then a block that is as RAM, then a block of memory at the top."""
        page, stride = 1 << table.granule_bits, table.granule_bits - 3
        for number, what in enumerate(PAGES):
            # The third is next to the second, but of another memory type.
            kind = {"nG": number % 3 != 2, "AttrIndx": 3 * (number == 2)}
            self._map(table, number * page, self._output(what) // page * page + offset, 3, **kind)
        block = 1 << table.granule_bits + stride
        self._map(table, block, RAM_BASE // block * block + offset, 2)
        # In a virtual machine, the pages that its stage 2 begins with.
        self._map(table, 2 * block, 0 if offset else self.high // block * block, 2)
        top = 1 << table.granule_bits + 2 * stride
        for address, level, below in ((3 * block, 2, self.rom), (top, 1, self.edge)):
            at = table.entry(address, level)
            table.write(at, (self._ipa_of_rom() if offset else below) | 3)
            self.slots.append(Slot(table, level, at, 0))

    def _fill_second(self, table: PageTable) -> None:
        """All of RAM at IPA_OFFSET, as a block but for the first part of the data; the low IPAs are pages."""
        page, stride = 1 << table.granule_bits, table.granule_bits - 3
        block = 1 << table.granule_bits + stride
        for base in (0, IPA_OFFSET):
            self._map(table, base + RAM_BASE // block * block, RAM_BASE // block * block, 2)
        for n, what in enumerate(PAGES):
            write_only = {"S2AP": 2} if n == 4 and table is self.aarch32 else {}
            self._map(table, n * page, self._output(what) // page * page, 3, **write_only)
        self._map(table, block, RAM_BASE // block * block, 2)

    def _ipa_of_rom(self) -> int:
        return PAGES.index(ROM) << self.granule

    def _map(self, table: PageTable, address: int, output: int, level: int, **leaf: int) -> None:
        if table.stage == 2:
            leaf.pop("nG", None)
        limit = 40 if table.granule_bits == 12 and table.input_bits == 32 else self.wide
        table.map(address, output & (1 << limit) - 1, None, level, **leaf)
        for at_level in range(table.start_level, level + 1):
            at = table.entry(address, at_level)
            if all(slot.at != at for slot in self.slots):
                self.slots.append(Slot(table, at_level, at, 0))

    def _slots(self) -> None:
        for slot in self.slots:
            slot.value = slot.table.read(slot.at)

    def _make_stes(
        self,
        first: PageTable,
        high: PageTable,
        other: PageTable,
        lpae: PageTable,
        seen: PageTable,
        of_vm: list[PageTable],
        vms: int,
    ) -> None:
        ram, bench = self.ram, self.bench
        common: dict[str, int] = {"ENDI": self.big, "PARTID": 3, "PMG": 1, "S": self.stall, "DS": self.lpa2}
        common |= {"MAIR0": 0xFF44_BB00, "MAIR1": 0x04FF_77F4}
        if self.updates != "none":
            common |= {"HA": 1, "HD": self.updates != "access", "HAFT": self.updates == "tables"}
        mixed = {"S2ENDI": self.big, "S2S": self.stall, "S1MPAM": 1, "VMSPtr": vms, "PARTID": 2, "PMG": 1}
        if self.updates != "none":
            mixed |= {"S2HA": 1, "S2HD": self.updates != "access", "S2HAFT": self.updates == "tables"}

        def cd(table: PageTable, upper: PageTable | None = None, at: int | None = None, **fields: int) -> int:
            found = bench.cd(at, table, upper, **{**common, **fields})
            self.cds.append((found, CD.from_bytes(ram.get(found, 64))))
            return found

        def ste(sid: int, **fields: int) -> None:
            at = (self.leaf - 64 * 64 if self.two_level and sid >= 64 else self.linear) + sid * 64
            value = STE.of(**{"V": 1, "EATS": EATS.FULL, "SHCFG": 1, **fields})
            ram.put(at, value)
            self.stes[sid] = at, value

        ste(ONE, Config=STE_CONFIG.S1, S1ContextPtr=cd(first, high, ASID=1), PARTID=2, S1MPAM=1)
        silent = cd(first, high, ASID=2, A=self.abort_only)
        ste(OTHER, Config=STE_CONFIG.S1, S1ContextPtr=silent, PARTID=4)
        ste(EL2, Config=STE_CONFIG.S1, S1ContextPtr=cd(other, ASID=1), STRW=2)
        narrow: dict[str, Any] = {"AA64": 0, "T0SZ": 0, "TG0": 0, "DS": 0, "HA": 0, "HD": 0, "HAFT": 0, "ENDI": 0}
        beyond = 1 << 37 if self.wide < 37 else 0  # which is no part of a physical address
        ste(LPAE, Config=STE_CONFIG.S1, S1ContextPtr=cd(lpae, ASID=1, **{**narrow, "TTB0": lpae.root | beyond}))
        # CDs of substreams: a linear table, or leaves of 64.
        array = ram.alloc(128 * 64, 1 << 13)
        pointers = ram.alloc(64)
        for ssid, table in ((0, first), (1, other), (2, other), (65, first), (127, other)):
            cd(table, high if ssid == 1 else None, array + ssid * 64, ASID=1 + ssid % 3, ASET=ssid == 2)
        for index in range(2):
            self._word(pointers + index * 8, L1CD.of(V=1, L2Ptr=array + index * 0x1000).raw)
        fmt = S1Fmt.TWO_LEVEL_4K if self.two_level_cds else S1Fmt.LINEAR
        sub = {"S1Fmt": fmt, "S1CDMax": 7, "S1DSS": S1DSS.SSID0}
        pointer = pointers if self.two_level_cds else array
        ste(SUBSTREAMS, Config=STE_CONFIG.S1, S1ContextPtr=pointer, **sub)
        for sid, vmid, table in ((NESTED, 1, of_vm[0]), (NESTED2, 2, of_vm[1]), (SUBNESTED, 1, of_vm[0])):
            at = cd(seen, ASID=1) + IPA_OFFSET
            more = {"S1ContextPtr": at} if sid != SUBNESTED else {**sub, "S1ContextPtr": pointer + IPA_OFFSET}
            fields = bench.stage2_fields(table, S2VMID=vmid, **mixed, **more)
            ste(sid, **{**fields, "Config": STE_CONFIG.NESTED, "EATS": self._split(sid)})
        if self.two_level_cds:
            # Nested CD tables hold IPAs.
            again = ram.alloc(64)
            for index in range(2):
                self._word(again + index * 8, L1CD.of(V=1, L2Ptr=array + index * 0x1000 + IPA_OFFSET).raw)
            at, value = self.stes[SUBNESTED]
            value = value.replace(S1ContextPtr=again + IPA_OFFSET)
            ram.put(at, value)
            self.stes[SUBNESTED] = at, value
        fields = bench.stage2_fields(of_vm[0], S2VMID=1, **mixed)
        full = {"Config": STE_CONFIG.S2, "EATS": EATS.ABORT if self.stall else EATS.FULL}
        ste(SECOND, **{**fields, **full})
        aarch32 = bench.stage2_fields(of_vm[2], S2VMID=3, S2S=self.stall, S2AA64=0, S2T0SZ=8, S2SL0=1)
        ste(SECOND_LPAE, **{**aarch32, **full})
        of_vm1, of_vm2 = (seen, of_vm[0]), (seen, of_vm[1])
        self.tables_of = {ONE: (first, high), OTHER: (first, high), SUBSTREAMS: (first, other), NESTED: of_vm1}
        self.tables_of |= {NESTED2: of_vm2, SUBNESTED: (first, of_vm[0]), SECOND: (of_vm[0],), EL2: (other,)}
        self.tables_of |= {LPAE: (lpae,), SECOND_LPAE: (of_vm[2],)}
        for sid, (_, value) in self.stes.items():
            pointer_of = value.S1ContextPtr % IPA_OFFSET
            own = [each for each in self.cds if each[0] == pointer_of]
            self.cds_of[sid] = own or [each for each in self.cds if array <= each[0] < array + 128 * 64]
        ste(SHORT, Config=STE_CONFIG.S1, **{**sub, "S1ContextPtr": self.short, "S1Fmt": S1Fmt.TWO_LEVEL_4K})
        ste(BYPASS, Config=STE_CONFIG.BYPASS, EATS=0, PARTID=1, MTCFG=1, MemAttr=5)
        ste(ABORTS, Config=STE_CONFIG.ABORT)

    def _split(self, sid: int) -> int:
        if self.stall:
            return EATS.ABORT
        return EATS.SPLIT if sid == NESTED2 and self.smmu.validity.idr0.NS1ATS == 0 else EATS.FULL

    def _word(self, at: int, value: int) -> None:
        self.ram.put_u64(at, value)
        self.words.append((at, value))

    # -- what masters do ---------------------------------------------------------------------------------------

    def _address(self, c: Choices) -> int:
        """Mostly where something is mapped, and often near the end of a page; at times anywhere."""
        page, block = 1 << self.granule, self.block
        where = c.below(17)
        if where < 4:
            base = self.page * page
        elif where < 9:
            self.page = c.below(len(PAGES))
            base = self.page * page
        elif where < 11:
            base = block + (self.data - RAM_BASE // block * block) + c.below(8) * page
        elif where < 13:
            base = 2 * block + c.below(4) * page
        elif where < 15:
            base = c.of((3 * block, 1 << 3 * self.granule - 6)) + c.below(6) * page
        else:
            base = c.of((IPA_OFFSET + self.data, self.data, 4 * block, 1 << 30, self.high, (1 << 64) - page, 1 << 55))
        offset = c.of((0, page - 16, 8, page - 1, 0x123, page - 4096))
        if c.rarely(5):
            base |= c.of(((1 << 64) - (1 << self.va_bits), 0xAB << 56, (1 << 64) - (1 << 48)))
        return int((base & -page) + offset & (1 << 64) - 1)

    def _stream(self, c: Choices) -> tuple[int, int | None]:
        if c.below(3):
            self.stream = c.of((*STREAMS, NESTED, NESTED2, SUBNESTED, ONE, OTHER, ONE, NESTED, c.of((9, 64, 200))))
        sid = self.stream
        if sid in (SUBSTREAMS, SUBNESTED, SHORT):
            return sid, c.of(SSIDS)
        return sid, c.of(SSIDS) if c.rarely(12) else None

    def _size(self, c: Choices) -> int:
        return int(c.of((1, 32, 4096, 20000, 3 << self.granule, 8)))

    def _access(self, c: Choices) -> object:
        iova, (sid, ssid), size = self._address(c), self._stream(c), self._size(c)
        flags = c.below(8)
        kind = MemoryType(*c.of(((3, 3, 0), (1, 1, 2), (2, 3, 3), (0, 1, 2), (0, 3, 0), (3, 1, 2))))
        t = Transaction(sid, iova, size, bool(flags & 1), ssid, bool(flags & 2), bool(flags & 4), kind)
        return show(self.smmu.translate(t))

    def _translated(self, c: Choices) -> object:
        iova, (sid, ssid), size = self._address(c), self._stream(c), self._size(c)
        address = c.of((iova, self.data + (iova & 0xFFF), self.high, IPA_OFFSET + self.data))
        t = Transaction(sid, address, size, bool(c.below(2)), ssid, bool(c.below(2)), translated=True)
        return show(self.smmu.translate(t))

    def _ats(self, c: Choices) -> object:
        iova, (sid, ssid), flags = self._address(c), self._stream(c), c.below(8)
        size = c.of((1, 4096, 3 << self.granule))
        return show_completion(
            self.smmu.ats_request(AtsRequest(sid, iova, size, ssid, bool(flags & 1), bool(flags & 2), bool(flags & 4)))
        )

    def _read(self, c: Choices) -> object:
        iova, (sid, ssid), size, flags = self._address(c), self._stream(c), self._size(c), c.below(4)
        found = self.port.read(iova, size, Attributes(sid, ssid, bool(flags & 1), flags == 2))
        return self.port.done(found)

    def _write(self, c: Choices) -> object:
        iova, (sid, ssid), size, flags = self._address(c), self._stream(c), self._size(c), c.below(2)
        data = bytes([1 + c.below(255)]) * size
        if self._reaches_structures(iova, size):
            return None
        return self.port.done(self.port.write(iova, data, Attributes(sid, ssid, bool(flags))))

    def _reaches_structures(self, iova: int, size: int) -> bool:
        """Through the block that is RAM a master could write to tables that its own request has yet to walk."""
        low = iova & (1 << 48) - 1
        for base in (self.block, RAM_BASE):
            start = base + (RAM_BASE & self.block - 1 if base == self.block else 0)
            if low + size > start and low < start + self.data - RAM_BASE:
                return True
        return False

    # -- what belongs together ---------------------------------------------------------------------------------

    def _scene(self, c: Choices) -> object:
        """A page of a stream is used, changed, used, named to be forgotten, and used again: so some times over."""
        self.stream = sid = c.of(tuple(self.stes))
        # Of the last, stage 1 has a block where stage 2 has pages.
        self.page = c.of((0, 1, 2, 3, 4, 5, (2 * self.block >> self.granule) + 2))
        ssid = c.of((2, 1, 127, 65, None)) if sid in (SUBSTREAMS, SUBNESTED, SHORT) else None
        high = self._upper(sid) if c.rarely(4) else 0
        shown = [self._use(sid, ssid, high, 0), self._use(sid, ssid, high, 0, 1)]
        if c.rarely():
            # Somebody else changes a clean leaf before it becomes dirty.
            self._clean(0)
            shown += [self._execute(commands.CMD_TLBI_NSNH_ALL.of()), self._use(sid, ssid, high, 2)]
            self._clean(1 << 55)
            shown.append(self._use(sid, ssid, high, 3))
        for _ in range(1 + c.below(3)):
            change, names = c.of(
                (
                    (self._leaf, TLBIS[:3]), (self._ste, STE_CACHES), (self._cd, CD_CACHES), (self._leaf, CACHES),
                    (self._vms, VMS_CACHES), (self._table_step, TLBIS), (self._first_level, CACHES),
                )
            )  # fmt: skip
            change(c)
            self.stream = sid
            shown.append(self._use(sid, ssid, high, c.below(8)))
            for _ in range(1 + c.below(2)):
                shown.append(self._tell(c, c.of(names), sid, ssid, high))
                shown.append(self._use(sid, ssid, high, c.below(8)))
            shown += [self._use(sid, ssid, high, flags) for flags in (4, 6)]
        shown.append(self._use(sid, ssid, high, 1, 1))
        if not c.below(2):
            self._mend(Choices(2))
        return shown

    def _configuration_scene(self, c: Choices) -> object:
        """One field of a stream's STE or CD is another, by itself, and that is told: whatever is cached of the page."""
        self.stream = sid = c.of(tuple(sid for sid in self.stes if sid not in (ABORTS, BYPASS)))
        self.page = c.of((0, 1, 2, 4))
        ssid = c.of((2, 1, 127)) if sid in (SUBSTREAMS, SUBNESTED, SHORT) else None
        high = self._upper(sid) if c.rarely(4) else 0
        if not c.below(2):
            self._mend(Choices(2))
        named = commands.CMD_CFGI_STE.of(SID=sid)
        shown = [self._execute(named), *(self._use(sid, ssid, high, flags) for flags in (2, 3))]
        for _ in range(3):
            if c.below(2) and self.cds_of.get(sid):
                self._cd(Choices(1 | c.below(1 << 24) << 1))
            else:
                self._ste(Choices(1 | c.below(1 << 24) << 1))
            self.stream = sid
            shown += [self._execute(named), *(self._use(sid, ssid, high, flags) for flags in range(8))]
            for at, value in (self.stes[sid], *self.cds_of.get(sid, ())):
                self.ram.put(at, value)
        return shown

    def _global_scene(self, c: Choices) -> object:
        """A leaf becomes global or ceases to be, leads elsewhere or permits more, while the TLB has it as it was."""
        self.page = c.of((0, 1, 2, 3))
        shown = []
        for n in range(4):
            for slot in self.slots:
                if slot.table is self.tables_of[ONE][0] and slot.level == 3 and self._of_page(slot, self.page):
                    moved = slot.value ^ (n & 1) << slot.table.granule_bits
                    slot.table.write(slot.at, moved & ~(1 << 11) ^ c.below(2) << 7 | c.below(2) << 11)
            for sid in (c.of((ONE, OTHER)), c.of((ONE, OTHER)), ONE):
                shown.append(self._use(sid, None, 0, c.below(4)))
        return shown

    def _upper(self, sid: int) -> int:
        """Where what TTB1 translates begins."""
        return 1 << 31 if sid == LPAE else (1 << 64) - (1 << self.va_bits)

    def _use(self, sid: int, ssid: int | None, high: int, flags: int, after: int = 0) -> object:
        """Of the page that it is about, or of one after it."""
        iova = high | self.page + after << self.granule
        write, privileged, fetch = bool(flags & 1), bool(flags & 2), bool(flags & 4)
        size = 8 if self.page < 8 else 2 << self.granule
        return show(self.smmu.translate(Transaction(sid, iova, size, write, ssid, privileged, fetch)))

    def _clean(self, software: int) -> None:
        """Leaves of this page become writable by being written to."""
        for slot in self.slots:
            if slot.level == 3 and self._of_page(slot, self.page):
                clean = slot.value & ~(3 << 6) | (3 if slot.table.stage == 1 else 1) << 6 | 1 << 51
                slot.table.write(slot.at, clean ^ software)

    @staticmethod
    def _of_page(slot: Slot, page: int) -> bool:
        return not (slot.at >> 3 ^ page) & (1 << slot.table.granule_bits - 3) - 1

    def _tell(self, c: Choices, kind: type[commands.Command], sid: int, ssid: int | None, high: int) -> object:
        """A command about the page of this stream, as far as it can be."""
        vmid, address = self.stes[sid][1].S2VMID, high | self.page << self.granule
        fields = {"SID": sid, "SSID": ssid or 0, "VMID": vmid, "ASID": c.of((1, 2, 3)), "Leaf": c.below(2)}
        fields |= {"Address": address, "Range": 31}
        if c.below(2):
            fields |= {"TG": (self.granule - 10) // 2, "TTL": c.of((3, 0, 2)), "SCALE": c.of((0, 39, 31, 1))}
            fields["NUM"] = c.of((0, 1, 31))
        return self._execute(self._command(kind, fields))

    @staticmethod
    def _command(kind: type[commands.Command], fields: dict[str, int]) -> commands.Command:
        if kind is commands.CMD_TLBI_S2_IPA:
            fields = {**fields, "Address": fields["Address"] & (1 << 52) - 1}
        known = {f.name for f in kind.fields}
        return kind.of(**{name: value for name, value in fields.items() if name in known})

    # -- what software changes, and says nothing of ------------------------------------------------------------

    def _leaf(self, c: Choices) -> object:
        leaves = [slot for slot in self.slots if slot.value & 3 == (3 if slot.level == 3 else 1)]
        if c.below(2):  # of the page that it is about, or of the next
            near = (self.page, self.page + 1)
            leaves = [s for s in leaves if s.level == 3 and any(self._of_page(s, page) for page in near)]
            its = [s for s in leaves if s.table in self.tables_of.get(self.stream, ())]
            leaves = its if its and c.below(4) else leaves
        slot = c.of(leaves)
        table, page = slot.table, 1 << slot.table.granule_bits
        value = slot.value
        for _ in range(1 + c.below(2)):
            match c.below(10):
                case 0:
                    where = c.of((self.data, self.data + page, self.high, RAM_END, RAM_BASE, RAM_END - page, self.rom))
                    mask = (1 << table.granule_bits + (table.granule_bits - 3) * (3 - slot.level)) - 1
                    offset = IPA_OFFSET if table.seen_at and where < self.high else 0
                    where = where + offset & ~mask & (1 << self.wide) - 1
                    low = 0xFFF if not (table.granule_bits == 16 or self.lpa2) else 0xCFF if self.lpa2 else 0xFFF
                    value = table.with_address(value & (low | 0xFFF8 << 48), where)
                case 1:
                    value ^= 1 << 10  # AF
                case 2:
                    value = value & ~(3 << 6) | c.below(4) << 6
                case 3:
                    value = value & ~(3 << 53) | c.below(4) << 53
                case 4:
                    value ^= 1 << 51  # DBM
                case 5:
                    value ^= 1 << 11  # nG
                case 6:
                    value = value & ~(0xF << 2) | c.below(16) << 2
                case 7:
                    value ^= c.of((1, 2))
                case 8:
                    value = value & ~(3 << 8) | c.below(4) << 8
                case 9:
                    value = value & ~(1 << 10 | 3 << 6) | (2 if table.stage == 1 else 1) << 6 | 1 << 51
        table.write(slot.at, value)
        return None

    def _table_slots(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.level < 3 and slot.value & 3 == 3]

    def _table_entry(self, slot: Slot, c: Choices) -> int:
        table, value = slot.table, slot.value
        match c.below(8):
            case 0:
                return value ^ int(c.of((1, 1 << 10)))
            case 1:
                return value | 1 + c.below(15) << 59
            case 2 | 5 | 6:  # a block in place of what is below
                where = c.of((RAM_BASE, self.high)) + (table.seen_at if table.seen_at else 0)
                shift = table.granule_bits + (table.granule_bits - 3) * (3 - slot.level)
                leaf = 1 | 1 << 6 | 3 << 8 | 1 << 10 | c.below(2) << 11
                if table.stage == 2:
                    leaf |= 3 << 6 | 0xF << 2
                return table.with_address(leaf, where >> shift << shift & (1 << self.wide) - 1)
            case 3:  # another's table
                if c.below(2):
                    return (self._ipa_of_rom() if table.seen_at else c.of((self.rom, self.edge))) | 3
                same = [s for s in self._table_slots() if s.level == slot.level and s.table.stage == table.stage]
                return int(c.of(same).value)
            case 4:
                return value ^ 1 << int(c.of((47, 46, 50, 49, 15, 13, 9, 37, 38)))
            case _:
                return value

    def _table_step(self, c: Choices) -> object:
        slot = c.of(self._table_slots())
        slot.table.write(slot.at, self._table_entry(slot, c))
        return None

    def _bit(self, c: Choices) -> object:
        at, value = c.of(self.written)
        self.ram.put_u64(at, value ^ 1 << c.below(64))
        return None

    def _mend(self, c: Choices) -> object:
        """Some structures are again what they were; access and dirty flags stay."""
        which = c.below(3)
        if which in (0, 2):
            for slot in self.slots:
                slot.table.write(slot.at, slot.value)
        if which in (1, 2):
            for at, value in (*self.stes.values(), *self.cds):
                self.ram.put(at, value)
            for at, word in (*self.words, *self.partids):
                self.ram.put_u64(at, word)
        if which == 2:
            for at, word in self.written:
                self.ram.put_u64(at, word)
        return None

    def _ste(self, c: Choices) -> object:
        sid = self.stream if c.below(2) and self.stream in self.stes else c.of(tuple(self.stes))
        at, value = self.stes[sid]
        self.stream = sid
        roots = [table.root for table in self.second]
        pointers = [self.short, self._output(HOLE), 1 << self.wide | value.S1ContextPtr]
        pointers += [ste.S1ContextPtr for _, ste in self.stes.values() if ste.Config & 1]
        tweaks: tuple[tuple[str, tuple[int, ...]], ...] = (
            ("S2VMID", (1, 2, 0, 0x101, 0x102, 3)), ("Config", (5, 7, 6, 4, 0)), ("V", (0, 1)),
            *(("S1ContextPtr", tuple(pointers)),) * 4, ("S2TTB", tuple(roots)), ("S1DSS", (0, 1, 2, 3)),
            *(("S1CDMax", (9, 7, 6, 1, 0)),) * 2, ("S1Fmt", (0, 1, 2, 3)), ("S2R", (0, 1)), ("S2S", (0, 1)),
            ("S2PTW", (1, 0)), ("S2FWB", (1, 0)), ("S2AFFD", (1, 0)), ("S2HA", (0, 1)), ("S2HD", (1, 0)),
            ("S2HAFT", (0, 1)), ("PRIVCFG", (2, 3, 0)), ("INSTCFG", (2, 3, 0)), ("MTCFG", (1, 0)),
            ("MemAttr", (0, 5, 15, 1, 4)), ("SHCFG", (0, 1, 2, 3)), ("EATS", (0, 1, 2, 3)),
            *(("S1STALLD", (1, 1, 0)),) * 4,
            *(("STRW", (1, 0, 2)),) * 2, ("S1MPAM", (0, 1)), ("PARTID", (0, 7, 40)), ("PMG", (0, 2, 9)),
            ("S2T0SZ", (24, 25, 16, 30, 12)), ("S2SL0", (0, 1, 2)), ("S2PS", (0, 1, 2, 5, 6)), ("S2TG", (0, 1, 2)),
            ("S2AA64", (0, 1)), ("S2ENDI", (0, 1)), ("S2DS", (0, 1)), ("S2SH0", (0, 2, 3)),
        )  # fmt: skip
        self.ram.put(at, self._tweaked(value, tweaks, c))
        return None

    @staticmethod
    def _tweaked(value: L, tweaks: tuple[tuple[str, tuple[int, ...]], ...], c: Choices) -> L:
        for _ in range(1 + c.below(2)):
            name, values = c.of(tweaks)
            value = value.replace(**{name: int(c.of(values))})
        return value

    def _cd(self, c: Choices) -> object:
        at, value = c.of(self.cds_of.get(self.stream, self.cds) if c.below(2) else self.cds)
        roots = [table.root for table in self.tables if table.stage == 1]
        tweaks: tuple[tuple[str, tuple[int, ...]], ...] = (
            ("ASID", (1, 2, 3, 0)), ("ASET", (1, 0)), ("TTB0", (value.TTB0 | 1 << 37, *roots)),
            ("TTB1", tuple(roots)), ("V", (0, 1)),
            ("A", (0, 1)), ("R", (0, 1)), ("S", (0, 1)), ("WXN", (1, 0)), ("UWXN", (1, 0)), ("PAN", (1, 0)),
            ("EPAN", (1, 0)), ("HA", (0, 1)), ("HD", (0, 1)), ("HAFT", (0, 1)), ("AFFD", (1, 0)), ("EPD0", (1, 0)),
            ("EPD1", (1, 0)), ("TBI0", (1, 0)), ("TBI1", (1, 0)), ("HAD0", (1, 0)), ("HAD1", (1, 0)),
            ("E0PD0", (1, 0)), ("E0PD1", (1, 0)), ("MAIR0", (0xFF, 0x44, 0xBB, 0xF4, 4)), ("T0SZ", (16, 25, 30, 39, 2)),
            *(("T1SZ", (1, 16, 25, 30, 39)),) * 3, ("IPS", (0, 1, 2, 5, 6)), ("ENDI", (0, 1)), ("AA64", (0, 1)),
            ("TG0", (0, 1, 2)), ("TG1", (1, 2, 3)), ("DS", (0, 1)), ("SH0", (0, 2, 3)), ("PARTID", (0, 9, 33)),
            ("PMG", (0, 2, 9)),
        )  # fmt: skip
        self.ram.put(at, self._tweaked(value, tweaks, c))
        return None

    def _first_level(self, c: Choices) -> object:
        at, value = c.of(self.words)
        other = (value & 0xFFF) | self._output(HOLE)
        self.ram.put_u64(at, c.of((0, value ^ 1, value + 0x1000, value ^ 1 << 50, value | 0x7C0, 12, other, value)))
        return None

    def _vms(self, c: Choices) -> object:
        at, value = c.of((self.partids[0], *self.partids))
        self.ram.put_u64(at, value ^ c.below(32) << 16 * c.of((3, 0, 1, 2, 3)))
        return None

    def _vms_scene(self, c: Choices) -> object:
        """The PARTIDs of virtual machines, which are cached by stream and by VMID."""
        self.page, shown = 0, []
        for _ in range(1 + c.below(3)):
            sid = c.of((NESTED, NESTED2, SUBNESTED))
            ssid = 2 if sid == SUBNESTED else None
            self._vms(c)
            for _ in range(1 + c.below(3)):
                shown += [self._tell(c, c.of(VMS_CACHES), sid, ssid, 0), self._use(sid, ssid, 0, 0)]
        return shown

    # -- what software tells the SMMU ----------------------------------------------------------------------------

    def _execute(self, *given: commands.Command) -> object:
        """By the command queue; what stops it is made a CMD_SYNC, as §7.1 wants of software."""
        bench = self.bench
        errors = []
        bench.submit(*given, commands.CMD_SYNC.of())
        while bench.active_errors & GERROR.CMDQ_ERR.mask:
            stopped = bench[CMDQ_CONS]
            errors.append((stopped.RD, CommandError(stopped.ERR).name))
            slot = stopped.RD & (1 << bench.command_bits) - 1
            self.ram.put(bench.cmdq + 16 * slot, commands.CMD_SYNC.of())
            bench.acknowledge()
        return errors

    def _syncs(self, c: Choices) -> object:
        """CMD_SYNCs that signal, some where nobody hears them; errors are acknowledged or left."""
        bench, given = self.bench, list[commands.Command]()
        for _ in range(1 + c.below(4)):
            places = (bench.cmdq + 16 * bench.command_bits, self.high, self.rom, self.rom + 0x10000, RAM_END - 4, 0)
            place = c.of((*places, self.edge + 0x1C, (1 << self.wide) | self.high))
            given += [commands.CMD_TLBI_NH_ALL.of()] * c.of((0, 1, 200))
            given.append(commands.CMD_SYNC.of(CS=c.of((1, 1, 1, 0, 2)), MSIAddress=place, MSIData=c.below(1 << 16)))
        shown = self._execute(*given[: (1 << bench.command_bits) - 2])
        # What is above the index means nothing, but may be read again.
        bench[CMDQ_PROD] = bench[CMDQ_PROD].raw | c.of((0, 0xFFF00000, 0xFFE00))
        errors, indices = bench.active_errors, (bench[CMDQ_PROD].raw, bench[CMDQ_CONS].raw)
        if c.below(2):
            bench.acknowledge()
        return shown, errors, indices, bench.wires[-8:], bench.posted[-8:], len(bench.wires), len(bench.posted)

    def _tlbi(self, c: Choices) -> object:
        kind = c.of(TLBIS)
        fields: dict[str, int] = {"VMID": c.of((0, 1, 2, 0x101, 3)), "ASID": c.of((1, 2, 3, 0))}
        address = self._address(c) & ~0xFFF
        fields |= {"Leaf": c.below(2), "Address": address}
        if c.below(2):
            mine = (self.granule - 10) // 2
            tg = c.of((mine, mine, mine, 1, 2, 3))
            granule = (0, 12, 14, 16)[tg]
            fields |= {"TG": tg, "TTL": c.of((0, 0, 3, 2, 1)), "NUM": c.of((0, 0, 1, 2, 31))}
            fields["SCALE"] = c.of((0, 0, 1, granule - 3, granule - 2, 2 * granule - 6, 31, 39))
            fields["Address"] = address >> granule << granule
        return self._execute(self._command(kind, fields))

    def _cfgi(self, c: Choices) -> object:
        sid, ssid, leaf = c.of(STREAMS), c.of((0, 1, 2, 65, 127)), c.below(2)
        return self._execute(
            c.of(
                (
                    commands.CMD_CFGI_STE.of(SID=sid, Leaf=leaf),
                    commands.CMD_CFGI_CD.of(SID=sid, SSID=ssid, Leaf=leaf),
                    commands.CMD_CFGI_CD_ALL.of(SID=sid),
                    commands.CMD_CFGI_STE_RANGE.of(SID=sid, Range=c.of((0, 1, 5, 6, 30))),
                    commands.CMD_CFGI_STE_RANGE.everything(),
                    commands.CMD_CFGI_VMS_PIDM.of(VMID=c.of((1, 2, 0, 3))),
                    commands.CMD_SYNC.of(CS=3),
                    commands.CMD_CFGI_STE.of(SID=sid, SSec=1),
                )
            ),
            *[commands.CMD_CFGI_CD.of(SID=sid, SSID=ssid, Leaf=leaf)] * c.of((0, 0, 0, 1, 3, 70)),
        )

    def _prefetch(self, c: Choices) -> object:
        (sid, ssid), address = self._stream(c), self._address(c) & ~0xFFF
        who = {"SID": sid, "SSV": ssid is not None, "SSID": ssid or 0}
        if c.below(2):
            return self._execute(commands.CMD_PREFETCH_CONFIG.of(**who))
        size, stride = c.of((0, 1, 3, 31)), c.of((0, self.granule - 12))
        return self._execute(commands.CMD_PREFETCH_ADDR.of(**who, Address=address, Size=size, Stride=stride))

    def _register(self, c: Choices) -> object:
        bench = self.bench
        on = bench[CR0].replace(SMMUEN=1, EVENTQEN=1, CMDQEN=1)
        match c.below(8):
            case 0:
                bench[CR0] = on.replace(SMMUEN=0)
            case 1:
                bench[CR0] = on
            case 2:
                bench[CR0] = on.replace(VMW=c.of((0, 1, 2, 4, 7)), ATSCHK=c.below(2))
            case 3:
                how = GBPA.of(MemAttr=c.below(16), MTCFG=c.below(2), SHCFG=c.below(4), ABORT=c.rarely(4), Update=1)
                bench[GBPA] = how
            case 4:
                bench[CR0] = on.replace(SMMUEN=0)
                self._settle()
                bench[CR2] = CR2.of(RECINVSID=c.below(2), REC_CFG_ATS=c.below(2), E2H=c.below(2))
                self._settle()
                bench[CR0] = on
            case 5:
                bench[CR0] = on.replace(SMMUEN=0)
                self._settle()
                self._stream_table(bool(c.below(2)))
                if c.rarely(4):
                    size, split = c.of((6, 8, 3, 20)), c.of((6, 8, 10, 7))
                    bench[STRTAB_BASE_CFG] = STRTAB_BASE_CFG.of(LOG2SIZE=size, FMT=c.below(2), SPLIT=split)
                bench[CR0] = on
            case 6:
                bench[GBPMPAM] = GBPMPAM.of(GBP_PARTID=c.below(8), GBP_PMG=c.below(4), Update=1)
            case _:
                if c.rarely(4):
                    self.smmu.reset()
                    self._start()
        if not c.rarely(4):
            self._settle()
        return None

    def _windows(self, c: Choices) -> object:
        """One of the others comes or goes."""
        window = c.of(self.others)
        if self.memory.find(window.base, 1) is None:
            self.memory.add(window)
        else:
            self.memory.remove(window.base, window.size)
        return None

    def _resume(self, c: Choices) -> object:
        """Software answers some stalled transactions, and their masters go on."""
        told = sorted(self.smmu.stalls.recorded.items())
        answers: list[commands.Command] = []
        for _ in range(1 + c.below(3)):
            if told:
                stag, stall = told.pop(c.below(len(told)))
                answers.append(commands.CMD_RESUME.of(SID=stall.sid, STAG=stag, Ac=c.of((1, 1, 0)), Ab=c.below(2)))
        if c.rarely():
            answers.append(commands.CMD_STALL_TERM.of(SID=c.of(STREAMS)))
        shown: list[object] = [self._execute(*answers)]
        return [*shown, *self.port.go_on()]

    def _events(self, c: Choices) -> object:
        """Software takes what the event queue has, or some of it."""
        prod, cons = self.bench[EVENTQ_PROD], self.bench[EVENTQ_CONS]
        left = (prod.WR - cons.RD) % 64
        taken = left if c.below(4) else min(left, 1)
        self.bench[EVENTQ_CONS] = EVENTQ_CONS.of(RD=(cons.RD + taken) % 64, OVACKFLG=prod.OVFLG)
        return left
