# SPDX-License-Identifier: Apache-2.0
"""The MSM IOMMU: machine ids, contexts, faults, stalls, invalidations and V2P operations, by its registers."""

from __future__ import annotations

import pytest

from vhost_iommu.layout import Register
from vhost_iommu.memory import Memory, Window
from vhost_iommu.smmu.msm import registers as r
from vhost_iommu.smmu.msm.features import Features
from vhost_iommu.smmu.msm.inspection import Inspected, state_of
from vhost_iommu.smmu.msm.instance import MsmIommu
from vhost_iommu.smmu.transaction import Answer, Outcome, Transaction

RAM, SIZE = 0x4000_0000, 1 << 20
ROOT, LEVEL2 = RAM + 0x4000, RAM + 0x8000
VA, PA = 0x0010_3000, RAM + 0x2_0000
MID, CONTEXT = 5, 2
PAGE = 0xC72 & 0xFFF  #: of 4 KiB, written and read by all, as Linux maps it


class World:
    """One IOMMU with its memory; a context with an empty table, unless told otherwise."""

    def __init__(self, contexts: int = 4) -> None:
        self.data = bytearray(SIZE)
        self.memory = Memory()
        self.memory.add(Window(RAM, SIZE, memoryview(self.data)))
        self.levels: list[bool] = []
        self.told: list[str] = []
        self.iommu = MsmIommu(self.memory, Features(contexts=contexts), interrupt=self.told.append)
        self.iommu.on_level(self.levels.append)

    def at(self, register: type[Register], index: int = 0) -> int:
        return register.at + index * (register.stride or register.size)

    def write(self, register: type[Register], value: int, index: int = 0) -> None:
        self.iommu.write(self.at(register, index), 4, value)

    def read(self, register: type[Register], index: int = 0) -> int:
        return self.iommu.read(self.at(register, index), 4)

    def put(self, at: int, word: int) -> None:
        self.data[at - RAM : at - RAM + 4] = word.to_bytes(4, "little")

    def attach(self, mid: int = MID, context: int = CONTEXT, *, asid: int | None = None, more: int = 0) -> None:
        """As Linux does it, but that faults do not stall unless ``more`` has them do."""
        self.write(r.M2VCBR_N, r.M2VCBR_N.of(CBNDX=context, NSCFG=3).raw, mid)
        self.write(r.CONTEXTIDR, context if asid is None else asid, context)
        self.write(r.TTBR0, ROOT | 2, context)
        self.write(r.PRRR, 0x800B8204, context)
        self.write(r.NMRR, 0x40004000, context)
        self.write(r.ACTLR, r.ACTLR.of(CFEIE=1, CFERE=1).raw | more, context)
        self.write(r.SCTLR, r.SCTLR.of(M=1, TRE=1, AFE=1).raw, context)

    def map(self, va: int = VA, pa: int = PA, bits: int = PAGE) -> None:
        self.put(ROOT + 4 * (va >> 20), LEVEL2 | 1)
        self.put(LEVEL2 + 4 * (va >> 12 & 0xFF), pa | bits)

    def translate(self, va: int = VA, *, write: bool = False, mid: int = MID, size: int = 4) -> Answer:
        return self.iommu.translate(Transaction(mid, va, size, write))


@pytest.fixture
def world() -> World:
    made = World()
    made.attach()
    made.map()
    return made


def test_a_machine_id_is_translated_by_its_context(world: World) -> None:
    answer = world.translate(VA + 0x123)
    assert [piece.pa for piece in answer.pieces] == [PA + 0x123]
    assert answer.outcome is Outcome.OK


def test_a_machine_id_whose_context_is_off_passes(world: World) -> None:
    assert world.translate(0x4321, mid=MID + 1).pieces[0].pa == 0x4321
    world.write(r.M2VCBR_N, r.M2VCBR_N.of(BYPASSD=1).raw, MID + 1)
    assert world.translate(0x4321, mid=MID + 1).outcome is Outcome.RAZ_WI
    assert world.read(r.ESR) == r.ESR.BYPASS.mask


def test_contexts_are_as_many_as_there_are(world: World) -> None:
    world.write(r.M2VCBR_N, r.M2VCBR_N.of(CBNDX=4).raw, 7)
    assert world.translate(mid=7).outcome is Outcome.RAZ_WI
    assert (world.read(r.ESR), world.read(r.ESYNR0), world.read(r.EAR)) == (r.ESR.CFG.mask, 7, VA)
    world.write(r.SCTLR, 1, 4)
    assert world.read(r.SCTLR, 4) == 0, "there is no context 4"


def test_a_context_is_its_vmids(world: World) -> None:
    world.write(r.CBACR_N, r.CBACR_N.of(CBVMID=3).raw, CONTEXT)
    assert world.translate().outcome is Outcome.RAZ_WI
    world.write(r.M2VCBR_N, r.M2VCBR_N.of(CBNDX=CONTEXT, VMID=3).raw, MID)
    assert world.translate().outcome is Outcome.OK


def test_registers_read_as_they_were_written_for_setters_that_read_first(world: World) -> None:
    for register in (r.ACTLR, r.SCTLR, r.TTBCR, r.CONTEXTIDR, r.PRRR, r.NMRR, r.BFBCR, r.TLBLKCR):
        world.write(register, 0xFFFF_FFFF, 1)
        assert world.read(register, 1) == register.write_mask, register.__name__
        assert world.read(register, 0) == 0


# -- faults --------------------------------------------------------------------------------------------------------


def test_a_fault_is_recorded_and_its_line_stays_up_until_it_is_cleared(world: World) -> None:
    world.translate(VA + 0x5000, write=True)
    assert world.read(r.FSR, CONTEXT) == r.FSR.TF.mask | r.FSR.SL.mask
    assert world.read(r.FAR, CONTEXT) == VA + 0x5000
    assert world.read(r.FSYNR0, CONTEXT) == MID
    assert world.read(r.FSYNR1, CONTEXT) == r.FSYNR1.AWRITE.mask
    assert (world.levels, world.told) == ([True], ["iommu"])
    world.write(r.FSR, 0x4000_000F, CONTEXT)
    assert world.levels == [True], "SL is still there: Linux' driver clears it no more than this"
    world.write(r.FSR, 0xFFFF_FFFF, CONTEXT)
    assert world.levels == [True, False]


def test_a_fault_of_level_1_is_gone_as_linux_clears_it(world: World) -> None:
    world.translate(0x5000_0000)
    assert world.read(r.FSR, CONTEXT) == r.FSR.TF.mask
    world.write(r.FSR, 0x4000_000F, CONTEXT)
    assert world.levels == [True, False]


def test_of_a_second_fault_only_multi_tells(world: World) -> None:
    world.write(r.ACTLR, r.ACTLR.of(TIPCF=1).raw, CONTEXT)
    world.translate(0x5000_0000)
    world.translate(0x6000_0000)
    assert world.read(r.FSR, CONTEXT) == r.FSR.TF.mask | r.FSR.MULTI.mask
    assert world.read(r.FAR, CONTEXT) == 0x5000_0000


def test_while_a_fault_is_pending_nothing_passes_unless_tipcf_is_set(world: World) -> None:
    world.translate(0x5000_0000)
    assert world.translate().outcome is Outcome.ABORT
    world.write(r.ACTLR, r.ACTLR.of(TIPCF=1).raw, CONTEXT)
    assert world.translate().outcome is Outcome.OK


def test_what_is_read_only_is_not_written(world: World) -> None:
    world.map(bits=PAGE | 1 << 9)
    assert world.translate().outcome is Outcome.OK
    assert world.translate(write=True).outcome is Outcome.ABORT
    assert world.read(r.FSR, CONTEXT) == r.FSR.APF.mask | r.FSR.SL.mask


def test_a_table_that_is_nowhere_is_a_decode_error(world: World) -> None:
    world.write(r.TTBR0, 0x1000_0000, CONTEXT)
    assert world.translate().outcome is Outcome.ABORT
    assert world.read(r.FSR, CONTEXT) == r.FSR.HTWDEEF.mask


def test_fsrrestore_sets_what_fsr_holds(world: World) -> None:
    world.write(r.FSRRESTORE, r.FSR.TF.mask | r.FSR.MULTI.mask, CONTEXT)
    assert world.read(r.FSR, CONTEXT) == r.FSR.TF.mask | r.FSR.MULTI.mask
    assert world.levels == [True]


# -- stalls --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stalled(world: World) -> tuple[World, Answer]:
    world.attach(more=r.ACTLR.CFCFG.mask)
    answer = world.translate(0x0020_0000, write=True)
    assert answer.outcome is Outcome.STALLED
    assert world.read(r.FSR, CONTEXT) & r.FSR.SS.mask
    return world, answer


def test_a_stalled_access_is_tried_again(stalled: tuple[World, Answer]) -> None:
    world, answer = stalled
    world.put(ROOT + 8, LEVEL2 + 0x400 | 1)
    world.put(LEVEL2 + 0x400, PA | PAGE)
    world.write(r.FSR, 0x4000_000F, CONTEXT)
    assert answer.stall is not None
    assert answer.stall.answer is None, "to clear its fault resumes nothing"
    world.write(r.RESUME, 0, CONTEXT)
    assert answer.stall.answer is not None
    assert [piece.pa for piece in answer.stall.answer.pieces] == [PA]


def test_a_stalled_access_is_terminated_and_what_waits_behind_it_goes_on(stalled: tuple[World, Answer]) -> None:
    world, answer = stalled
    behind = world.translate()
    assert behind.outcome is Outcome.STALLED
    world.write(r.FSR, 0xFFFF_FFFF, CONTEXT)
    world.write(r.RESUME, 1, CONTEXT)
    assert answer.stall is not None
    assert answer.stall.answer is not None
    assert answer.stall.answer.outcome is Outcome.ABORT
    assert behind.stall is not None
    assert behind.stall.answer is not None
    assert behind.stall.answer.outcome is Outcome.OK


def test_another_context_is_not_in_the_way(stalled: tuple[World, Answer]) -> None:
    world, _ = stalled
    world.attach(MID + 1, 1)
    assert world.translate(mid=MID + 1).outcome is Outcome.OK


def test_stalld_has_nothing_stall(world: World) -> None:
    world.attach(more=r.ACTLR.CFCFG.mask)
    world.write(r.CR, r.CR.STALLD.mask)
    assert world.translate(0x0020_0000).outcome is Outcome.ABORT


def test_a_reset_ends_what_waits(stalled: tuple[World, Answer]) -> None:
    world, answer = stalled
    world.iommu.reset()
    assert answer.stall is not None
    assert answer.stall.answer is not None
    assert world.levels[-1] is False
    assert world.read(r.SCTLR, CONTEXT) == 0


# -- invalidations -------------------------------------------------------------------------------------------------


def moved(world: World, register: type[Register], value: int, context: int = CONTEXT) -> bool:
    """Whether the invalidation has a translation looked up anew."""
    world.translate()
    world.map(pa=PA + 0x1000)
    assert world.translate().pieces[0].pa == PA, "what is not invalidated stays"
    world.write(register, value, context if register.count > 1 else 0)
    return world.translate().pieces[0].pa == PA + 0x1000


@pytest.mark.parametrize(
    ("register", "value", "drops"),
    [
        (r.TLBIVA, VA | CONTEXT, True), (r.TLBIVA, VA | CONTEXT + 1, False), (r.TLBIVA, VA + 0x1000 | CONTEXT, False),
        (r.TLBIVAA, VA, True), (r.TLBIASID, CONTEXT, True), (r.TLBIASID, CONTEXT + 1, False),
        (r.CTX_TLBIALL, 0, True), (r.GLOBAL_TLBIALL, 0, True), (r.TLBIVMID, 0, True), (r.TLBIVMID, 1, False),
    ],
)  # fmt: skip
def test_an_invalidation_drops_what_it_names(world: World, register: type[Register], value: int, drops: bool) -> None:
    assert moved(world, register, value) is drops


def test_a_global_entry_is_every_asids_and_goes_by_its_address(world: World) -> None:
    world.map(bits=PAGE & ~(1 << 11))
    world.translate()
    world.write(r.CONTEXTIDR, 9, CONTEXT)
    world.map(pa=PA + 0x1000, bits=PAGE & ~(1 << 11))
    assert world.translate().pieces[0].pa == PA
    world.write(r.TLBIASID, 9, CONTEXT)
    assert world.translate().pieces[0].pa == PA
    world.write(r.TLBIVA, VA | 9, CONTEXT)
    assert world.translate().pieces[0].pa == PA + 0x1000


def test_any_address_of_a_large_entry_drops_it_whole(world: World) -> None:
    section = 0xC0E | 1 << 10
    world.put(ROOT + 4 * 3, RAM | section & ~1 | 2)
    assert world.translate(0x0030_0000).pieces[0].pa == RAM
    world.put(ROOT + 4 * 3, RAM + 0x10_0000 | section & ~1 | 2)
    world.write(r.TLBIVA, 0x0037_7000 | CONTEXT, CONTEXT)
    assert world.translate(0x0030_0000).pieces[0].pa == RAM + 0x10_0000


# -- V2P -----------------------------------------------------------------------------------------------------------


def test_v2p_says_where_an_address_goes(world: World) -> None:
    world.write(r.V2PPR, VA, CONTEXT)
    assert world.read(r.PAR, CONTEXT) & ~0xFFF == PA
    assert not world.read(r.PAR, CONTEXT) & 1
    assert world.read(r.V2PSR, CONTEXT) == 0
    world.write(r.V2PUW, VA, CONTEXT)
    assert world.read(r.V2PSR, CONTEXT) == 1, "the TLB has it by now"


def test_v2p_of_what_is_not_mapped_is_a_fault_that_is_not_recorded(world: World) -> None:
    world.write(r.V2PPR, 0x5000_0000, CONTEXT)
    assert world.read(r.PAR, CONTEXT) == r.PAR.FAULT.mask | r.PAR.FAULT_TF.mask
    assert world.read(r.FSR, CONTEXT) == 0


def test_the_driver_s_self_test_at_address_0_finds_a_fault(world: World) -> None:
    world.write(r.SCTLR, 1, 0)
    world.write(r.PAR, 0, 0)
    world.write(r.V2PPR, 0, 0)
    assert world.read(r.PAR, 0) == r.PAR.FAULT.mask | r.PAR.FAULT_HTWDEEF.mask


def test_v2p_of_a_supersection_has_eight_bits(world: World) -> None:
    for sixteenth in range(16):
        world.put(ROOT + 4 * (0x100 + sixteenth), 0x7900_0000 | 1 << 18 | 0xC0E & ~1 | 2)
    world.write(r.V2PPR, 0x1034_5000, CONTEXT)
    assert world.read(r.PAR, CONTEXT) & 0xFF00_0002 == 0x7900_0002


# -- what can be asked of it -----------------------------------------------------------------------------------------


class Reader:
    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def read(self, pa: int, size: int) -> bytes | None:
        return self.memory.read(pa, size)

    def lacks(self, pa: int) -> bool:
        return False


def inspected(world: World) -> Inspected:
    return Inspected(state_of(world.iommu, caches=True), Reader(world.memory))


def test_an_access_is_explained_step_by_step_and_changes_nothing(world: World) -> None:
    found = inspected(world).explain(Transaction(MID, VA + 8, 4))
    assert [step.what for step in found.steps if "level" in step.what] == ["stage 1 level 1", "stage 1 level 2"]
    assert (found.end.outcome, found.end.pa) == ("ok", PA + 8)
    assert len(world.iommu.tlb) == 0
    lost = inspected(world).explain(Transaction(MID, 0x5000_0000, 4, True))
    assert "no valid descriptor" in lost.end.text
    assert any("never mapped" in cause for cause in lost.causes)
    assert world.read(r.FSR, CONTEXT) == 0
    none = inspected(world).explain(Transaction(400, VA, 4))
    assert "CFG" in none.end.text


def test_what_is_cached_otherwise_than_it_is_mapped_is_explained(world: World) -> None:
    world.translate()
    world.map(pa=PA + 0x1000)
    found = inspected(world).explain(Transaction(MID, VA, 4))
    assert found.end.pa == PA + 0x1000
    assert found.cached is not None
    assert found.cached.pa == PA
    assert "no TLB invalidation" in found.differs[0]


def test_its_streams_and_their_tables_are_listed(world: World) -> None:
    found = inspected(world)
    (stream,) = found.streams(0, 10).streams
    assert (stream.sid, stream.does) == (MID, "context 2, ASID 0x2, VMID 0x0")
    (space,) = found.spaces(MID, None)
    (run,) = found.tables(space, 0, 10).runs
    assert (run.start, run.size, run.output) == (VA, 0x1000, PA)
    assert found.said() == ("translates; 1 of 4 contexts are enabled",)


# -- the lower and the upper table -----------------------------------------------------------------------------------


def test_ttbcr_divides_addresses(world: World) -> None:
    world.write(r.TTBCR, 1, CONTEXT)
    world.write(r.TTBR1, RAM + 0xC000, CONTEXT)
    world.put(RAM + 0xC000 + 4 * 0x800, 0x5550_0000 | 0xC0E & ~1 | 2)
    assert world.translate().outcome is Outcome.OK
    assert world.translate(0x8000_1234).pieces[0].pa == 0x5550_1234
    world.write(r.TTBCR, 1 | r.TTBCR.PD1.mask, CONTEXT)
    world.write(r.CTX_TLBIALL, 0, CONTEXT)
    assert world.translate(0x8000_1234).outcome is Outcome.ABORT
