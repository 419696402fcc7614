# SPDX-License-Identifier: Apache-2.0
"""An SMMUv2's streams, banks, faults, stalls and invalidations, by the reference and by the core."""

from __future__ import annotations

from typing import Any

import pytest

from tests.v2_builder import IOVA, SID, Bench
from vhost_iommu.errors import UsageError
from vhost_iommu.smmu.memory_type import NC, WB, MemoryType
from vhost_iommu.smmu.seams import Verdict
from vhost_iommu.smmu.transaction import Outcome, Transaction
from vhost_iommu.smmu.v2 import Features, Smmu
from vhost_iommu.smmu.v2 import registers as r
from vhost_iommu.smmu.v2.inspection import Inspected, state_of
from vhost_iommu.smmu.v2.records import ContextFault


@pytest.fixture
def bench(built: bool) -> Bench:
    return Bench(pure=not built)


def mapped(bench: Bench, bank: int = 0, **more: Any) -> tuple[Any, int]:
    """A stream with a stage 1 that maps one page; its table, and where the page is."""
    table, page = bench.table(), bench.page()
    table.map(IOVA, page)
    bench.stream(bank=bank)
    bench.stage1(table, bank, **more)
    return table, page


# -- streams -----------------------------------------------------------------------------------------------------


def test_until_it_is_enabled_every_access_passes(built: bool) -> None:
    smmu = Smmu(Bench().ram.memory, pure=not built)
    assert smmu.translate(Transaction(SID, 0x1234, 4)).pieces[0].pa == 0x1234


def test_what_passes_is_truncated_to_the_physical_addresses(bench: Bench) -> None:
    bench.enable(CLIENTPD=1)
    assert bench.pa(1 << 60 | 0x1000) == 0x1000


def test_a_stream_that_matches_nothing_is_a_fault_with_its_stream_id(bench: Bench) -> None:
    answer = bench.translate(0xABC0, sid=9, write=True)
    assert answer.outcome is Outcome.ABORT
    assert bench.read(r.GFSR) == r.GFSR.of(USF=1)
    assert bench.read(r.GFSYNR0) == r.GFSYNR0.of(WNR=1)
    assert bench.read(r.GFSYNR1).StreamID == 9
    assert bench.read(r.GFAR).FADDR == 0xABC0
    assert bench.pulses == ["global"]
    assert bench.levels == [True]


def test_a_stream_that_matches_nothing_passes_if_software_says_so(bench: Bench) -> None:
    bench.enable(USFCFG=0)
    assert bench.pa(0x1000, sid=9) == 0x1000


def test_bits_of_the_mask_do_not_matter(bench: Bench) -> None:
    bench.stream(0x40, mask=0xF, TYPE=r.StreamType.BYPASS)
    assert bench.pa(0x1000, sid=0x4B) == 0x1000
    assert bench.pa(0x1000, sid=0x5B) is None


def test_a_group_that_is_not_valid_matches_nothing_and_keeps_its_bits(bench: Bench) -> None:
    bench.set(r.SMR, 3, ID=0x7FFF, MASK=0x7FFF)
    assert bench.read(r.SMR, 3) == r.SMR.of(ID=0x7FFF, MASK=0x7FFF)
    assert bench.pa(0x1000) is None


def test_an_smr_has_as_many_bits_as_stream_ids() -> None:
    bench = Bench(Features(stream_id_bits=6))
    bench.write(r.SMR, 0x7FFF_7FFF, 1)
    assert bench.read(r.SMR, 1).raw == 0x003F_003F


def test_a_stream_that_matches_twice_is_a_conflict(bench: Bench) -> None:
    bench.stream(4, group=0, mask=1, TYPE=r.StreamType.BYPASS)
    bench.stream(5, group=7, TYPE=r.StreamType.BYPASS)
    assert bench.pa(0x1000, sid=4) == 0x1000
    assert bench.pa(0x1000, sid=5) is None
    assert bench.read(r.GFSR) == r.GFSR.of(SMCF=1)
    bench.enable(SMCFCFG=0)
    assert bench.pa(0x1000, sid=5) == 0x1000


def test_a_stream_of_type_fault_is_an_invalid_context(bench: Bench) -> None:
    bench.stream(TYPE=r.StreamType.FAULT)
    assert bench.translate().outcome is Outcome.ABORT
    assert bench.read(r.GFSR) == r.GFSR.of(ICF=1)
    assert not bench.read(r.GFSYNR0).Nested


def test_a_context_bank_that_is_not_there_is_unimplemented(bench: Bench) -> None:
    bench.stream(bank=8)
    bench.translate()
    assert bench.read(r.GFSR) == r.GFSR.of(UCBF=1)


@pytest.mark.parametrize("kind", [r.BankType.S1_S2_FAULT, r.BankType.NESTED])
def test_a_bank_that_faults_or_whose_second_bank_is_none_of_stage_2_is_an_invalid_context(
    bench: Bench, kind: int
) -> None:
    bench.stream()
    bench.write(r.CBAR, r.CBAR.of(TYPE=kind).raw | 1 << 8)
    bench.set(r.CBAR, 1, TYPE=r.BankType.S1_S2_BYPASS)
    bench.translate()
    assert bench.read(r.GFSR) == r.GFSR.of(ICF=1)
    assert bench.read(r.GFSYNR0).Nested


def test_a_second_global_fault_is_told_by_multi_alone(bench: Bench) -> None:
    bench.translate(0x1000, sid=1)
    bench.stream(2, TYPE=r.StreamType.FAULT)
    bench.translate(0x2000, sid=2)
    assert bench.read(r.GFSR) == r.GFSR.of(USF=1, MULTI=1)
    assert bench.read(r.GFAR).FADDR == 0x1000
    assert bench.pulses == ["global", "global"]
    bench.write(r.GFSR, 0xFFFF_FFFF)
    assert bench.read(r.GFSR).raw == 0
    assert bench.levels == [True, False]


def test_a_global_fault_that_is_not_reported_reads_as_zero(bench: Bench) -> None:
    bench.enable(GFRE=0)
    assert bench.translate(sid=9).outcome is Outcome.RAZ_WI


def test_without_stream_matching_a_stream_id_is_its_groups_number() -> None:
    bench = Bench(Features(stream_matching=False, stream_id_bits=3, stream_groups=8))
    bench.set(r.S2CR, 6, TYPE=r.StreamType.BYPASS)
    assert bench.pa(0x1000, sid=6) == 0x1000
    assert bench.smmu.read(r.SMR.at, 4) == 0


def test_extended_stream_ids_have_16_bits(bench: Bench) -> None:
    bench = Bench(Features(extended_ids=True))
    bench.enable(EXIDENABLE=1)
    bench.write(r.SMR, 0x8001)
    bench.set(r.S2CR, TYPE=r.StreamType.BYPASS, EXIDVALID=1)
    assert bench.pa(0x1000, sid=0x8001) == 0x1000
    assert bench.pa(0x1000, sid=0x0001) is None
    bench.set(r.S2CR, TYPE=r.StreamType.BYPASS)
    assert bench.pa(0x1000, sid=0x8001) is None


# -- stage 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granule", [12, 14, 16])
def test_stage_1_translates_with_each_granule(bench: Bench, granule: int) -> None:
    table, page = bench.table(granule, 42), bench.page(1 << granule)
    table.map(IOVA >> granule << granule, page)
    bench.stream()
    bench.stage1(table)
    assert bench.pa() == page + (IOVA & (1 << granule) - 1)


def test_addresses_of_ttbr1_come_with_their_sign(bench: Bench) -> None:
    table, page = bench.table(), bench.page()
    table.map(IOVA, page)
    bench.stream()
    bench.stage1(table, tcr={"EPD0": 1, "EPD1": 0, "T1SZ": 25, "TG1": 2})
    bench.write(r.CB_TTBR1, table.at)
    high = (1 << 64) - (1 << 39) | IOVA
    assert bench.pa(high) == page
    assert bench.pa(high & (1 << 49) - 1) == page, "as a bus of 49 bits brings it"
    assert bench.pa(IOVA) is None


def test_tcr2_sep_says_where_the_sign_is(bench: Bench) -> None:
    table, page = bench.table(12, 32), bench.page()
    table.map(0xFFFF_F000, page)
    bench.stream()
    bench.stage1(table, tcr={"EPD0": 1, "EPD1": 0, "T1SZ": 32, "TG1": 2}, tcr2={"SEP": 0})
    bench.write(r.CB_TTBR1, table.at)
    assert bench.pa(0xFFFF_F000) == page
    assert bench.pa(0x1_FFFF_F000) is None, "a bit above the sign"
    assert bench.read(r.CB_FSR).TF


def test_an_address_that_the_bus_cannot_bring_is_an_unsupported_transaction(bench: Bench) -> None:
    mapped(bench)
    bench.translate(1 << 50 | IOVA)
    assert bench.read(r.CB_FSR).raw == r.CB_FSR.of(UUT=1, FORMAT=2).raw


def test_a_stage_1_that_is_off_passes_addresses_of_its_size(bench: Bench) -> None:
    mapped(bench, M=0)
    assert bench.pa(0x5000) == 0x5000
    assert bench.pa(1 << 48 | 0x5000) is None
    assert bench.read(r.CB_FSR).ASF


def test_long_tables_of_aarch32_translate_32_bits(bench: Bench) -> None:
    table, page = bench.table(12, 32), bench.page()
    table.map(0x8000_5000, page)
    bench.stream()
    bench.stage1(table)
    bench.set(r.CBA2R, VA64=0)
    bench.write(r.CB_TCR, r.CB_TCR.EAE.mask | 32)  # of T0SZ three bits count
    assert bench.pa(0x8000_5000) == page
    bench.translate(0x1_8000_5000)
    assert bench.read(r.CB_FSR).raw == r.CB_FSR.of(TF=1, FORMAT=1).raw
    assert bench.read(r.CB_FSYNR0).PLVL == 1


def test_short_descriptors_translate_with_tex_remap_and_access_flag(bench: Bench) -> None:
    first, second, page = bench.ram.alloc(0x4000), bench.ram.alloc(0x400), bench.page()
    at = 0x8000_5000
    bench.ram.put(first + (at >> 20) * 4, (second | 1).to_bytes(4, "little"))
    leaf = page | 0xC72  # as Linux makes it: nG, S, AP 0b11, TEX C B 0b001, XN 0
    bench.ram.put(second + (at >> 12 & 0xFF) * 4, leaf.to_bytes(4, "little"))
    bench.stream()
    bench.set(r.CBAR, TYPE=1, VMID=1, MemAttr=0xF, BPSHCFG=3)
    bench.write(r.CB_TTBR0, first | 0x6A)
    bench.set(r.CB_CONTEXTIDR, ASID=7)
    bench.write(r.CB_MAIR0, 0x800B_8204)
    bench.write(r.CB_MAIR1, 0x4000_4000)
    bench.set(r.CB_SCTLR, M=1, CFRE=1, AFE=1, TRE=1)
    assert bench.pa(at) == page
    bench.ram.put(second + (at >> 12 & 0xFF) * 4, (leaf & ~0x10).to_bytes(4, "little"))
    assert bench.pa(at) == page, "it is cached"
    bench.write(r.CB_TLBIVA, at | 6)
    assert bench.pa(at) == page, "of another ASID"
    bench.write(r.CB_TLBIVA, at | 7)
    assert bench.pa(at) is None
    assert bench.read(r.CB_FSR).raw == r.CB_FSR.of(AFF=1, FORMAT=0).raw
    assert bench.read(r.CB_FSYNR0).PLVL == 2


def test_a_table_beyond_the_output_addresses_is_an_address_size_fault(bench: Bench) -> None:
    table, _ = mapped(bench, tcr2={"PASize": 0})
    bench.write(r.CB_TTBR0, table.at | 1 << 40)
    bench.translate()
    assert bench.read(r.CB_FSR).ASF
    assert bench.read(r.CB_FSYNR0).PLVL == 0


def test_a_granule_that_is_not_there_is_the_smallest_that_is(built: bool) -> None:
    bench = Bench(Features(granules=("4K", "64K")), pure=not built)
    _, page = mapped(bench, tcr={"TG0": 2})
    assert bench.pa() == page


def test_sizes_that_cannot_be_are_translation_faults(bench: Bench) -> None:
    mapped(bench, tcr={"T0SZ": 12})
    bench.translate()
    assert bench.read(r.CB_FSR).raw == r.CB_FSR.of(TF=1, FORMAT=2).raw
    assert bench.read(r.CB_FSYNR0).PLVL == 0
    table = bench.table(stage=2)
    bench.stream(6, bank=1, group=1)
    bench.stage2(table, 1)
    bench.write(r.CB_TCR, r.CB_TCR.of(T0SZ=25).raw | 2 << 6, 1)
    bench.translate(sid=6)
    assert bench.read(r.CB_FSR, 1).TF


def test_vmids_of_16_bits_are_in_cba2r(built: bool) -> None:
    bench = Bench(Features(vmid16=True), pure=not built)
    bench.enable(VMID16EN=1)
    table, page = mapped(bench)
    bench.set(r.CBA2R, VA64=1, VMID16=0x1234)
    assert bench.pa() == page
    table.map(IOVA, other := bench.page())
    bench.write(r.TLBIVMID, 0x34)
    assert bench.pa() == page
    bench.write(r.TLBIVMID, 0x1234)
    assert bench.pa() == other


def test_s2cr_overrides_privilege_and_instruction(bench: Bench) -> None:
    table, page = mapped(bench)
    table.change(IOVA, 3, AP=0, UXN=1)
    assert bench.pa(privileged=True) == page
    bench.set(r.S2CR, PRIVCFG=2)
    assert bench.pa(privileged=True) is None
    bench.write(r.CB_FSR, 0xFFFF_FFFF)
    bench.set(r.S2CR, PRIVCFG=3, INSTCFG=2)
    assert bench.pa(instruction=True) == page
    bench.set(r.S2CR, PRIVCFG=3, INSTCFG=3)
    assert bench.pa(write=True) == page, "a write is data"


def test_attributes_are_overridden_and_strengthened_in_order(bench: Bench) -> None:
    bench.stream(TYPE=r.StreamType.BYPASS, MTCFG=1, MemAttr=0b0001)
    assert bench.translate().memory[0].is_device
    table, _ = mapped(bench)
    table.change(IOVA, 3, AttrIndx=1)
    assert bench.translate().memory[0] == MemoryType(WB, WB, 3)
    bench.set(r.CBAR, TYPE=1, VMID=1, MemAttr=0b0101, BPSHCFG=1)
    assert bench.translate().memory[0] == MemoryType(NC, NC, 2)
    bench.set(r.CB_SCTLR, MTCFG=1, MemAttr=0b0010)
    assert bench.translate().memory[0] == MemoryType(0, 2, 2)


# -- stage 2 and both ----------------------------------------------------------------------------------------------


def test_stage_2_alone_translates(bench: Bench) -> None:
    table, page = bench.table(stage=2), bench.page()
    table.map(IOVA, page)
    bench.stream()
    bench.stage2(table)
    assert bench.pa() == page
    bench.translate(IOVA + 0x1000)
    assert bench.read(r.CB_FSR).raw == r.CB_FSR.of(TF=1, FORMAT=2).raw
    assert bench.read(r.CB_IPAFAR).FADDR == IOVA + 0x1000
    assert not bench.read(r.CB_FSYNR0).NESTED


def nested(bench: Bench) -> tuple[Any, Any, int]:
    """Stage 1 in bank 0, stage 2, one to one, in bank 1."""
    table, page = bench.table(), bench.page()
    table.map(IOVA, page)
    second = bench.table(stage=2)
    for at in range(bench.ram.base, bench.ram.base + (2 << 20), 4096):
        second.map(at, at)
    bench.stream()
    bench.stage1(table, 0, second=1)
    bench.stage2(second, 1)
    return table, second, page


def test_stage_1_followed_by_stage_2_translates_and_its_tables_go_through_stage_2(bench: Bench) -> None:
    table, second, page = nested(bench)
    assert bench.pa() == page
    second.unmap(table.at)
    bench.write(r.TLBIVMID, 1)
    bench.translate(write=True)
    assert bench.read(r.CB_FSR, 0).raw == r.CB_FSR.of(FORMAT=2).raw, "stage 1 has no fault"
    assert bench.read(r.CB_FSR, 1).raw == r.CB_FSR.of(TF=1, FORMAT=2).raw
    syndrome = bench.read(r.CB_FSYNR0, 1)
    assert (syndrome.NESTED, syndrome.S1PTWF, syndrome.WNR, syndrome.S1CBNDX) == (1, 1, 1, 0)
    assert bench.read(r.CB_FAR, 1).FADDR == IOVA
    assert table.at == bench.read(r.CB_IPAFAR, 1).FADDR & ~0xFFF
    assert bench.read(r.CBFRSYNRA, 1).StreamID == SID


def test_an_invalidation_of_stage_1_leaves_stage_2(bench: Bench) -> None:
    _, second, page = nested(bench)
    assert bench.pa() == page
    second.map(page, bench.page())
    bench.write(r.TLBIVMIDS1, 1)
    assert bench.pa() == page
    bench.write(r.CB_TLBIIPAS2L, page >> 12, 1)
    assert bench.pa() not in (page, None)


# -- faults --------------------------------------------------------------------------------------------------------


def test_a_fault_is_recorded_whole_and_the_next_by_multi(bench: Bench) -> None:
    mapped(bench, HUPCF=1)
    bench.translate(IOVA + 0x1008, write=True, privileged=True)
    bench.translate(IOVA + 0x2000)
    assert bench.read(r.CB_FSR).raw == r.CB_FSR.of(TF=1, FORMAT=2, MULTI=1).raw
    assert bench.read(r.CB_FAR).FADDR == IOVA + 0x1008
    assert bench.read(r.CB_FSYNR0) == r.CB_FSYNR0.of(PLVL=3, WNR=1, PNU=1)
    assert bench.read(r.CBFRSYNRA).StreamID == SID
    assert bench.pulses == ["context0", "context0"]


def test_while_there_is_a_fault_transactions_terminate_without_a_record(bench: Bench) -> None:
    _, page = mapped(bench)
    assert bench.pa() == page
    bench.translate(IOVA + 0x1000)
    answer = bench.translate()
    assert answer.outcome is Outcome.ABORT
    assert not answer.events
    bench.write(r.CB_FSR, r.CB_FSR.TF.mask)
    assert bench.levels == [True, False]
    assert bench.pa() == page


def test_hit_under_fault_lets_transactions_go_on(bench: Bench) -> None:
    _, page = mapped(bench, HUPCF=1)
    bench.translate(IOVA + 0x1000)
    assert bench.pa() == page


def test_a_fault_that_is_not_reported_reads_as_zero(bench: Bench) -> None:
    mapped(bench, CFRE=0)
    assert bench.translate(IOVA + 0x1000).outcome is Outcome.RAZ_WI


def test_a_write_to_what_is_read_only_is_a_permission_fault(bench: Bench) -> None:
    table, _ = mapped(bench)
    table.change(IOVA, 3, AP=3)
    bench.translate(write=True)
    assert bench.read(r.CB_FSR).PF


def test_a_table_that_is_no_ram_is_an_external_fault(bench: Bench) -> None:
    mapped(bench)
    bench.write(r.CB_TTBR0, 0x1000 | 0x11 << 48)
    bench.translate()
    assert bench.read(r.CB_FSR).EF
    assert bench.read(r.CB_FSYNR0).PTWF


def test_fsrrestore_makes_fsr_and_asserts_the_line(bench: Bench) -> None:
    mapped(bench)
    bench.write(r.CB_FSRRESTORE, 0xFFFF_FFFF)
    fsr = bench.read(r.CB_FSR)
    assert fsr.TF
    assert not fsr.SS
    assert bench.levels == [True]
    assert bench.pulses == ["context0"]


# -- stalls --------------------------------------------------------------------------------------------------------


def test_a_fault_stalls_until_software_has_mended_it(bench: Bench) -> None:
    table, page = mapped(bench, CFCFG=1)
    answer = bench.translate(IOVA + 0x1000)
    assert answer.outcome is Outcome.STALLED
    behind = bench.translate()
    assert behind.outcome is Outcome.STALLED, "no other transaction of the bank is processed"
    assert bench.read(r.CB_FSR).raw == r.CB_FSR.of(TF=1, SS=1, FORMAT=2).raw
    table.map(IOVA + 0x1000, page)
    bench.write(r.CB_FSR, 0xFFFF_FFFF)
    assert bench.read(r.CB_FSR).SS
    bench.write(r.CB_RESUME, 0)
    assert answer.stall is not None
    assert answer.stall.answer is not None
    assert answer.stall.answer.pieces[0].pa == page
    assert behind.stall is not None
    assert behind.stall.answer is not None
    assert behind.stall.answer.outcome is Outcome.OK
    assert not bench.read(r.CB_FSR).SS
    assert bench.levels == [True, False]


def test_a_stalled_transaction_may_be_terminated(bench: Bench) -> None:
    mapped(bench, CFCFG=1)
    answer = bench.translate(IOVA + 0x1000)
    bench.write(r.CB_FSR, 0xFFFF_FFFF)
    bench.write(r.CB_RESUME, 1)
    assert answer.stall is not None
    assert answer.stall.answer is not None
    assert answer.stall.answer.outcome is Outcome.ABORT


def test_a_resume_before_the_fault_is_cleared_terminates(bench: Bench) -> None:
    mapped(bench, CFCFG=1)
    answer = bench.translate(IOVA + 0x1000)
    bench.write(r.CB_RESUME, 0)
    assert answer.stall is not None
    assert answer.stall.answer is not None
    assert answer.stall.answer.outcome is Outcome.ABORT


def test_stalld_makes_faults_terminate(bench: Bench) -> None:
    mapped(bench, CFCFG=1)
    bench.enable(STALLD=1)
    assert bench.translate(IOVA + 0x1000).outcome is Outcome.ABORT


def test_without_stalls_cfcfg_does_not_stick() -> None:
    bench = Bench(Features(stall=False))
    mapped(bench, CFCFG=1)
    assert not bench.read(r.CB_SCTLR).CFCFG
    assert bench.translate(IOVA + 0x1000).outcome is Outcome.ABORT


# -- invalidations -------------------------------------------------------------------------------------------------

#: Stores, and whether each drops what bank 0 (VMID 1, ASID 0x11) has cached of IOVA.
DROPS = [
    (r.CB_TLBIVA, IOVA >> 12 | 0x11 << 48, True),
    (r.CB_TLBIVA, IOVA >> 12 | 0x12 << 48, False),
    (r.CB_TLBIVA, (IOVA >> 12) + 1 | 0x11 << 48, False),
    (r.CB_TLBIVAL, IOVA >> 12 | 0x11 << 48, True),
    (r.CB_TLBIVAA, IOVA >> 12, True),
    (r.CB_TLBIVAAL, (IOVA >> 12) - 1, False),
    (r.CB_TLBIASID, 0x11, True),
    (r.CB_TLBIASID, 0x12, False),
    (r.CB_TLBIALL, 0, True),
    (r.CB_TLBIIPAS2, IOVA >> 12, False),
    (r.TLBIVMID, 1, True),
    (r.TLBIVMID, 2, False),
    (r.TLBIVMIDS1, 1, True),
    (r.TLBIALLNSNH, 0, True),
    (r.TLBIALLH, 0, False),
    (r.TLBIVAH64, IOVA >> 12, False),
]


@pytest.mark.parametrize(("register", "value", "drops"), DROPS, ids=lambda each: getattr(each, "__name__", str(each)))
def test_a_store_invalidates_what_it_names_and_nothing_else(
    bench: Bench, register: type[Any], value: int, drops: bool
) -> None:
    table, page = mapped(bench)
    assert bench.pa() == page
    other = bench.page()
    table.map(IOVA, other)
    assert bench.pa() == page, "it is cached"
    bench.write(register, value)
    assert bench.pa() == (other if drops else page)


def test_a_store_of_another_bank_has_that_banks_vmid(bench: Bench) -> None:
    table, page = mapped(bench)
    bench.stage1(table, 1, vmid=2)
    assert bench.pa() == page
    table.map(IOVA, other := bench.page())
    bench.write(r.CB_TLBIALL, 0, 1)
    assert bench.pa() == page
    bench.write(r.CB_TLBIALL, 0, 0)
    assert bench.pa() == other


def test_the_lower_word_alone_is_zero_extended_and_the_upper_one_ignored(bench: Bench) -> None:
    table, page = mapped(bench, asid=0)
    assert bench.pa() == page
    table.map(IOVA, other := bench.page())
    at = bench.offset(r.CB_TLBIVA)
    bench.smmu.write(at + 4, 4, 0x12 << 16)
    assert bench.pa() == page
    bench.smmu.write(at, 4, IOVA >> 12)
    assert bench.pa() == other


def test_a_write_of_a_register_takes_effect_at_once_on_what_is_not_cached(bench: Bench) -> None:
    _, page = mapped(bench)
    assert bench.pa() == page
    bench.set(r.S2CR, TYPE=r.StreamType.BYPASS)
    assert bench.pa() == IOVA


def test_waits_end_at_once(bench: Bench) -> None:
    bench.write(r.TLBGSYNC)
    bench.write(r.CB_TLBSYNC)
    assert bench.read(r.TLBGSTATUS).raw == 0
    assert bench.read(r.CB_TLBSTATUS).raw == 0
    assert bench.smmu.counters.syncs == 2


# -- the rest ------------------------------------------------------------------------------------------------------


def test_a_hypervisors_context_has_worlds_of_its_own(bench: Bench) -> None:
    table, page = mapped(bench)
    bench.set(r.CBAR, TYPE=1, HYPC=1, MemAttr=0xF, BPSHCFG=3)
    assert bench.pa() == page
    table.map(IOVA, other := bench.page())
    bench.write(r.TLBIALLNSNH)
    assert bench.pa() == page
    bench.write(r.TLBIVAH64, IOVA >> 12)
    assert bench.pa() == other


def test_a_reset_makes_all_pass_again(bench: Bench) -> None:
    mapped(bench)
    bench.translate(IOVA + 0x1000)
    bench.smmu.reset()
    assert bench.pa(0x1000) == 0x1000
    assert bench.levels == [True, False]


def test_secure_registers_read_as_zero_and_ignore_writes(bench: Bench) -> None:
    for at in (0x004, 0x060, 0x0A0, 0x400, 0x448):
        bench.smmu.write(at, 4, 0xFFFF_FFFF)
        assert bench.smmu.read(at, 4) == 0


def test_a_group_or_bank_that_is_not_there_reads_as_zero(bench: Bench) -> None:
    last = bench.offset(r.SMR, 31) + 4
    bench.smmu.write(last, 4, 0xFFFF_FFFF)
    assert bench.smmu.read(last, 4) == 0


def test_frames_lie_by_the_page_size() -> None:
    smmu = Smmu(Bench().ram.memory, Features(page_size="64K", context_banks=3), pure=True)
    assert smmu.size == 2 * 4 * 0x1_0000
    assert smmu.registers.offset(r.CBAR, 2) == 0x1_0008
    assert smmu.registers.offset(r.CB_FSR, 2) == 0x6_0058


@pytest.mark.parametrize(
    "features",
    [
        {"granules": (), "aarch32": "none"},
        {"stage1": False, "stage2": False, "nested": False},
        {"nested": True, "stage2": False},
        {"ias": 48, "oas": 40},
        {"context_banks": 0},
        {"stage2_banks": 9},
        {"stream_id_bits": 15, "stream_matching": False},
        {"extended_ids": True, "stream_id_bits": 8},
        {"version": "2"},
    ],
    ids=str,
)
def test_what_no_smmuv2_can_be_is_refused_in_a_sentence(features: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(features))):
        Features(**features)


def test_a_fault_is_told_as_one_value(bench: Bench) -> None:
    mapped(bench, bank=3)
    event = bench.translate(IOVA + 0x1000).events[0]
    assert isinstance(event, ContextFault)
    assert (event.TF, event.PLVL, event.CBNDX, event.SID, event.FADDR) == (1, 3, 3, SID, IOVA + 0x1000)


# -- address translation operations --------------------------------------------------------------------------------


def operations(built: bool) -> Bench:
    return Bench(Features(translation_operations=True), pure=not built)


def test_an_operation_translates_into_par(built: bool) -> None:
    bench = operations(built)
    _, page = mapped(bench)
    bench.write(r.CB_ATS1PR, IOVA)
    par = bench.read(r.CB_PAR)
    assert (0, page, 0x44, 2) == (par.F, par.PA, par.ATTR, par.SH)
    assert not bench.read(r.CB_ATSR).ACTIVE
    assert bench.read(r.CB_FSR).raw == r.CB_FSR.of(FORMAT=2).raw


def test_an_operation_that_fails_says_why_in_par_alone(built: bool) -> None:
    bench = operations(built)
    table, _ = mapped(bench)
    table.change(IOVA, 3, AP=2)
    bench.write(r.CB_ATS1PW, IOVA)
    assert bench.read(r.CB_PAR) == r.CB_PAR.of(F=1, PF=1, PLVL=3, FORMAT=2)
    bench.write(r.CB_ATS1PR, IOVA + 0x1000)
    assert bench.read(r.CB_PAR) == r.CB_PAR.of(F=1, TF=1, PLVL=3, FORMAT=2)
    bench.write(r.CB_ATS1PR, 1 << 52)
    assert bench.read(r.CB_PAR) == r.CB_PAR.of(F=1, TF=1, FORMAT=2)
    assert not bench.read(r.CB_FSR).TF
    assert not bench.pulses


def test_an_operation_of_both_stages_gives_the_address_between(built: bool) -> None:
    bench = operations(built)
    table, second, page = nested(bench)
    second.unmap(page)
    bench.write(r.CB_ATS1PR, IOVA)
    assert page == bench.read(r.CB_PAR).PA, "stage 2 of the result is not asked"
    second.unmap(table.at)
    bench.write(r.TLBIVMID, 1)
    bench.write(r.CB_ATS1PR, IOVA)
    assert bench.read(r.CB_PAR) == r.CB_PAR.of(F=1, ATOT=1)
    assert bench.read(r.CB_FSR, 1).TF
    assert bench.read(r.CB_FSYNR0, 1).ATOF
    assert bench.pulses == ["context1"]


def test_without_operations_their_registers_read_as_zero(bench: Bench) -> None:
    mapped(bench)
    at = 0x1_0000 // 2 + r.CB_PAR.at
    bench.smmu.write(at, 8, 1)
    assert bench.smmu.read(at, 8) == 0


# -- being wrong on purpose ------------------------------------------------------------------------------------------


def test_the_gate_may_have_an_invalidation_ignored(bench: Bench) -> None:
    table, page = mapped(bench)
    assert bench.pa() == page
    table.map(IOVA, other := bench.page())
    bench.smmu.seams.gate = lambda store: Verdict.IGNORE
    bench.write(r.CB_TLBIALL)
    assert bench.pa() == page
    bench.smmu.seams.gate = None
    bench.write(r.CB_TLBIALL)
    assert bench.pa() == other


def test_a_descriptors_read_may_abort(bench: Bench) -> None:
    mapped(bench)
    bench.smmu.seams.walk = lambda kind, pa: True
    bench.translate()
    assert bench.read(r.CB_FSR).EF


def test_an_interrupt_may_be_lost(bench: Bench) -> None:
    mapped(bench)
    bench.smmu.seams.wire = lambda line, send: Verdict.IGNORE
    bench.translate(IOVA + 0x1000)
    assert (bench.pulses, bench.levels) == ([], [])


def test_who_looks_on_is_told_of_stores_drops_and_faults(bench: Bench) -> None:
    mapped(bench)
    with bench.smmu.watch.recording() as seen:
        bench.translate()
        bench.translate(IOVA + 0x1000)
        bench.write(r.CB_TLBIALL)
        bench.write(r.CB_TLBSYNC)
        bench.smmu.watch.flush()
    assert [type(each.command).__name__ for each in seen.commands] == ["CB_TLBIALL", "CB_TLBSYNC"]
    assert [each.record.values()["TF"] for each in seen.events] == [1]
    assert [each.outcome for each in seen.translations] == ["ok", "abort"]


# -- looking inside ----------------------------------------------------------------------------------------------------


class Reads:
    """Memory that is only read."""

    def __init__(self, bench: Bench) -> None:
        self.memory = bench.ram.memory

    def read(self, pa: int, size: int) -> bytes | None:
        return self.memory.read(pa, size)

    def lacks(self, pa: int) -> bool:
        return False


def looked_at(bench: Bench) -> Inspected:
    return Inspected(state_of(bench.smmu, caches=True), Reads(bench))


def test_an_explanation_names_registers_descriptors_and_the_end(bench: Bench) -> None:
    _, page = mapped(bench)
    before = bench.smmu.registers.held()
    told = looked_at(bench).explain(Transaction(SID, IOVA))
    assert told.end.pa == page
    assert [step.what for step in told.steps][:4] == ["SMR[0]", "S2CR[0]", "CBAR[0]", "CB_SCTLR[0]"]
    assert [step.what for step in told.steps][-3:] == [f"stage 1 level {level}" for level in (1, 2, 3)]
    fault = looked_at(bench).explain(Transaction(SID, IOVA + 0x1000))
    assert isinstance(fault.end.event, ContextFault)
    assert fault.causes
    assert bench.smmu.registers.held() == before, "nothing has happened"


def test_an_explanation_tells_what_is_cached_otherwise(bench: Bench) -> None:
    table, page = mapped(bench)
    assert bench.pa() == page
    table.map(IOVA, other := bench.page())
    told = looked_at(bench).explain(Transaction(SID, IOVA))
    assert told.end.pa == other
    assert told.cached is not None
    assert told.cached.pa == page
    assert "no TLB invalidation has named it since" in told.differs[0]


def test_streams_spaces_and_tables_can_be_listed(bench: Bench) -> None:
    _, page = mapped(bench)
    bench.stream(0x40, group=2, mask=0xF, TYPE=r.StreamType.BYPASS)
    inspected = looked_at(bench)
    streams = inspected.streams(0, 10).streams
    assert [each.sid for each in streams] == [SID, 0x40]
    assert "context bank 0, stage 1, ASID 0x11, VMID 0x1" in streams[0].does
    (space,) = inspected.spaces(SID, None)
    (run,) = inspected.tables(space, 0, 10).runs
    assert (run.start, run.size, run.output) == (IOVA, 4096, page)
    assert "1 of 8 context banks are enabled" in inspected.said()[0]
