# SPDX-License-Identifier: Apache-2.0
"""The registers of an SMMUv3 as software finds them (IHI 0070 chapter 6)."""

from __future__ import annotations

import pytest

from tests.smmu_builder import RAM_BASE, Bench
from vhost_iommu.layout import Access, Register
from vhost_iommu.memory import Memory
from vhost_iommu.smmu.transaction import Outcome, Transaction
from vhost_iommu.smmu.v3 import Smmu
from vhost_iommu.smmu.v3.features import Features
from vhost_iommu.smmu.v3.registers import (
    AIDR,
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CR0,
    CR0ACK,
    CR1,
    CR2,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG1,
    EVENTQ_IRQ_CFG2,
    EVENTQ_PROD,
    GATOS_CTRL,
    GBPA,
    GERROR,
    GERROR_IRQ_CFG0,
    GERROR_IRQ_CFG1,
    GERROR_IRQ_CFG2,
    GERRORN,
    IDR0,
    IDR1,
    IDR3,
    IDR5,
    IIDR,
    IRQ_CTRL,
    IRQ_CTRLACK,
    PRIQ_BASE,
    PRIQ_PROD,
    REGISTERS,
    STATUSR,
    STRTAB_BASE,
    STRTAB_BASE_CFG,
)

ALL = 0xFFFF_FFFF
PAGE1 = 0x1_0000


@pytest.fixture
def bench() -> Bench:
    """As after power-on."""
    return Bench(start=False)


@pytest.fixture
def running() -> Bench:
    return Bench()


# -- identification ------------------------------------------------------------------------------------------


def test_an_smmu_that_says_it_is_not_coherent_sees_what_software_wrote_all_the_same(built: bool) -> None:
    bench = Bench({"coherent": False}, pure=not built)
    assert not bench[IDR0].COHACC
    bench.stream(0).map(0x1000, RAM_BASE)
    assert bench.pa(0x1000) == RAM_BASE


def test_the_id_registers_tell_the_features() -> None:
    bench = Bench(
        {
            "version": "3.1",
            "granules": ("4K", "64K"),
            "oas": 44,
            "stream_id_bits": 8,
            "substream_id_bits": 5,
            "command_queue_bits": 9,
            "event_queue_bits": 7,
            "range_invalidation": False,
            "msi": False,
        },
        start=False,
    )
    idr0, idr1, idr5 = bench[IDR0], bench[IDR1], bench[IDR5]
    assert (idr0.S1P, idr0.S2P, idr0.TTF, idr0.TTENDIAN, idr0.MSI, idr0.ST_LEVEL) == (1, 0, 2, 2, 0, 1)
    assert (idr0.STALL_MODEL, idr0.HTTU, idr0.ATS, idr0.PRI, idr0.Hyp) == (1, 0, 0, 0, 0)
    assert (idr1.SIDSIZE, idr1.SSIDSIZE, idr1.CMDQS, idr1.EVENTQS) == (8, 5, 9, 7)
    assert bench[IDR3].RIL == 0
    assert (idr5.GRAN4K, idr5.GRAN16K, idr5.GRAN64K, idr5.OAS, idr5.VAX) == (1, 0, 1, 4, 0)
    assert bench[AIDR].raw == 0x01
    assert bench[IIDR].Implementer != 0x43B


def test_raw_id_registers_replace_the_features_and_decide_what_there_is() -> None:
    plain = Features().id_registers()
    with_pri = Bench(id_registers={"IDR0": plain[IDR0] | IDR0.PRI.mask, "IDR1": plain[IDR1]}, start=False)
    assert with_pri[IDR0].PRI == 1
    with_pri[CR0] = CR0.of(PRIQEN=1)
    assert with_pri[CR0ACK].PRIQEN == 1


READ_ONLY = [r for r in REGISTERS if r.access is Access.RO and not r.needs]


@pytest.mark.parametrize("register", READ_ONLY, ids=lambda r: r.__name__)
def test_a_read_only_register_ignores_writes(bench: Bench, register: type[Register]) -> None:
    before = bench[register].raw
    bench[register] = ~before & (1 << 8 * register.size) - 1
    assert bench[register].raw == before


# -- sizes and alignment (§6.2) ------------------------------------------------------------------------------


def test_a_64_bit_register_takes_one_access_or_two_halves(bench: Bench) -> None:
    bench.smmu.write(STRTAB_BASE.at, 8, 0x1234_5678_9ABC)
    assert bench[STRTAB_BASE].ADDR == 0x1234_5678_9A80
    bench.smmu.write(STRTAB_BASE.at + 4, 4, 0x11)
    bench.smmu.write(STRTAB_BASE.at, 4, 0x2240)
    assert bench[STRTAB_BASE].ADDR == 0x11_0000_2240
    assert bench.smmu.read(STRTAB_BASE.at + 4, 4) == 0x11


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (2, 2), (1, 4), (2, 4), (4, 8), (0x84, 8), (3, 1)])
def test_an_access_of_another_size_or_alignment_is_raz_wi(bench: Bench, offset: int, size: int) -> None:
    assert bench.smmu.read(offset, size) == 0
    bench.smmu.write(STRTAB_BASE.at + offset, size, (1 << 8 * size) - 1)
    assert bench[STRTAB_BASE].raw == bench[STRTAB_BASE_CFG].raw == 0


@pytest.mark.parametrize(
    "offset",
    [0x4C, 0xA8, 0xAC, 0xC8, 0x180, 0xE00, 0x1000, 0x8000, PAGE1, PAGE1 + 0x20, PAGE1 + 0x98, PAGE1 + 0xFFF8],
)
def test_an_offset_without_a_register_is_raz_wi(bench: Bench, offset: int) -> None:
    for size in (4, 8):
        if offset % size == 0:
            bench.smmu.write(offset, size, (1 << 8 * size) - 1)
            assert bench.smmu.read(offset, size) == 0


def test_the_event_queues_indices_are_on_page_1_only(bench: Bench) -> None:
    bench[EVENTQ_BASE] = EVENTQ_BASE.of(LOG2SIZE=4)
    bench.smmu.write(PAGE1 + 0xA8, 4, 3)
    bench.smmu.write(PAGE1 + 0xAC, 4, 2)
    assert (bench[EVENTQ_PROD].WR, bench[EVENTQ_CONS].RD) == (3, 2)
    assert bench.smmu.read(0xA8, 8) == 0


@pytest.mark.parametrize(
    "register",
    [PRIQ_BASE, PRIQ_PROD, GATOS_CTRL, *(r for r in REGISTERS if "DPT" in r.__name__ or "MPAM" in r.__name__)],
    ids=lambda r: r.__name__,
)
def test_a_register_of_an_absent_feature_is_res0(bench: Bench, register: type[Register]) -> None:
    bench[register] = (1 << 8 * register.size) - 1
    assert bench[register].raw == 0


@pytest.mark.parametrize(
    ("register", "stays"),
    [
        (CR0, {"SMMUEN": 1, "EVENTQEN": 1, "CMDQEN": 1}),
        (CR2, {"RECINVSID": 1}),
        (IRQ_CTRL, {"GERROR_IRQEN": 1, "EVENTQ_IRQEN": 1}),
        (
            GERRORN,
            {
                "CMDQ_ERR": 1,
                "EVENTQ_ABT_ERR": 1,
                "MSI_CMDQ_ABT_ERR": 1,
                "MSI_EVENTQ_ABT_ERR": 1,
                "MSI_GERROR_ABT_ERR": 1,
                "SFM_ERR": 1,
            },
        ),
    ],
    ids=lambda p: p.__name__ if isinstance(p, type) else "",
)
def test_only_the_fields_of_features_that_are_there_stick(
    bench: Bench, register: type[Register], stays: dict[str, int]
) -> None:
    bench[register] = ALL
    assert bench[register] == register.of(**stays)


def test_without_msi_the_msi_registers_are_res0() -> None:
    bench = Bench({"msi": False}, start=False)
    for register in (GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR_IRQ_CFG2, EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1):
        bench[register] = ALL
        assert bench[register].raw == 0
    bench[GERRORN] = ALL
    assert bench[GERRORN].MSI_CMDQ_ABT_ERR == 0


# -- handshakes ----------------------------------------------------------------------------------------------


def test_cr0_is_acknowledged_field_by_field_and_reserved_bits_never(bench: Bench) -> None:
    for value in (CR0.of(CMDQEN=1), CR0.of(CMDQEN=1, EVENTQEN=1), CR0.of(SMMUEN=1), CR0.of()):
        bench[CR0] = value
        assert bench[CR0ACK].raw == value.raw
    bench[CR0] = ALL
    assert bench[CR0ACK].raw == CR0.of(SMMUEN=1, EVENTQEN=1, CMDQEN=1).raw


def test_irq_ctrl_is_acknowledged(bench: Bench) -> None:
    bench[IRQ_CTRL] = IRQ_CTRL.of(EVENTQ_IRQEN=1)
    assert bench[IRQ_CTRLACK] == IRQ_CTRLACK.of(EVENTQ_IRQEN=1)
    bench[IRQ_CTRL] = 0
    assert bench[IRQ_CTRLACK].raw == 0


def test_gbpa_takes_a_value_only_together_with_update_which_reads_as_zero_when_it_is_done(bench: Bench) -> None:
    bench[GBPA] = GBPA.of(ABORT=1)
    assert bench[GBPA] == GBPA(GBPA.reset)
    bench[GBPA] = GBPA.of(ABORT=1, MTCFG=1, MemAttr=5, Update=1)
    assert bench[GBPA] == GBPA.of(ABORT=1, MTCFG=1, MemAttr=5)
    bench[GBPA] = GBPA.of(Update=1)
    assert bench[GBPA].raw == 0


# -- guards --------------------------------------------------------------------------------------------------

GUARDED = [
    (STRTAB_BASE, CR0.of(SMMUEN=1)),
    (STRTAB_BASE_CFG, CR0.of(SMMUEN=1)),
    (CR2, CR0.of(SMMUEN=1)),
    (CMDQ_BASE, CR0.of(CMDQEN=1)),
    (CMDQ_CONS, CR0.of(CMDQEN=1)),
    (EVENTQ_BASE, CR0.of(EVENTQEN=1)),
    (EVENTQ_PROD, CR0.of(EVENTQEN=1)),
]
#: What each guarded register takes that leaves the bench's queues empty.
HARMLESS = {CR2: 2, CMDQ_CONS: 0, EVENTQ_PROD: 1 << 31, STRTAB_BASE_CFG: 5}


@pytest.mark.parametrize(("register", "enable"), GUARDED, ids=lambda p: p.__name__ if isinstance(p, type) else "")
def test_a_guarded_register_keeps_its_value_while_it_is_in_use(
    bench: Bench, register: type[Register], enable: CR0
) -> None:
    value = HARMLESS.get(register, 0x4000_1000)
    bench[register] = value
    assert bench[register].raw == value
    bench[CR0] = enable
    bench[register] = value ^ (1 << 12 if register.size == 8 else 2)
    assert bench[register].raw == value
    bench[CR0] = CR0.of()
    bench[register] = 0
    assert bench[register].raw == 0


@pytest.mark.parametrize(("register", "enable"), GUARDED, ids=lambda p: p.__name__ if isinstance(p, type) else "")
def test_a_guarded_register_stays_open_while_something_else_is_in_use(
    bench: Bench, register: type[Register], enable: CR0
) -> None:
    others = CR0.of(SMMUEN=1, CMDQEN=1, EVENTQEN=1)
    bench[CR0] = others.raw & ~enable.raw
    value = HARMLESS.get(register, 0x4000_1000)
    bench[register] = value
    assert bench[register].raw == value


def test_cr1_guards_queue_and_table_attributes_apart(bench: Bench) -> None:
    bench[CR0] = CR0.of(SMMUEN=1)
    bench[CR1] = ALL
    assert bench[CR1].raw == 0x03F
    bench[CR0] = CR0.of(EVENTQEN=1)
    bench[CR1] = 0xFC0
    assert bench[CR1].raw == 0xFFF
    bench[CR0] = CR0.of()
    bench[CR1] = 0
    assert bench[CR1].raw == 0


@pytest.mark.parametrize(
    ("enable", "guarded", "free"),
    [
        (IRQ_CTRL.of(GERROR_IRQEN=1), (GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR_IRQ_CFG2), EVENTQ_IRQ_CFG1),
        (IRQ_CTRL.of(EVENTQ_IRQEN=1), (EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, EVENTQ_IRQ_CFG2), GERROR_IRQ_CFG1),
    ],
    ids=["gerror", "eventq"],
)
def test_an_interrupts_configuration_is_guarded_by_its_enable(
    bench: Bench, enable: IRQ_CTRL, guarded: tuple[type[Register], ...], free: type[Register]
) -> None:
    for register in guarded:
        bench[register] = 0x14
    bench[IRQ_CTRL] = enable
    for register in guarded:
        bench[register] = 0x28
        assert bench[register].raw == 0x14
    bench[free] = 0x28
    assert bench[free].raw == 0x28
    bench[IRQ_CTRL] = 0
    for register in guarded:
        bench[register] = 0x28
        assert bench[register].raw == 0x28


@pytest.mark.parametrize("register", [CMDQ_PROD, EVENTQ_CONS, GERRORN, IRQ_CTRL], ids=lambda r: r.__name__)
def test_what_software_owns_is_never_guarded(running: Bench, register: type[Register]) -> None:
    running[register] = 1
    assert running[register].raw == 1


@pytest.mark.parametrize("register", [GERROR, STATUSR, CR0ACK, IRQ_CTRLACK], ids=lambda r: r.__name__)
def test_what_the_smmu_owns_is_never_writable(running: Bench, register: type[Register]) -> None:
    before = running[register].raw
    running[register] = ~before & ALL
    assert running[register].raw == before


# -- queue indices (§6.3.28, §6.3.95) ------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "index"), [(CMDQ_BASE, CMDQ_CONS), (EVENTQ_BASE, EVENTQ_PROD)])
@pytest.mark.parametrize("bits", [0, 3, 10])
def test_index_bits_above_the_wrap_flag_read_as_zero(
    bench: Bench, base: type[Register], index: type[Register], bits: int
) -> None:
    bench[base] = bits
    bench[index] = 0xF_FFFF
    assert bench[index].raw == (2 << bits) - 1


def test_a_queue_that_is_made_smaller_truncates_its_index(bench: Bench) -> None:
    bench[EVENTQ_BASE] = EVENTQ_BASE.of(LOG2SIZE=8)
    bench[EVENTQ_PROD] = EVENTQ_PROD.of(WR=0x1FE, OVFLG=1)
    bench.smmu.write(EVENTQ_BASE.at, 4, 3)
    assert bench[EVENTQ_PROD] == EVENTQ_PROD.of(WR=0xE, OVFLG=1)


def test_a_queue_is_no_larger_than_its_id_register_says_but_its_base_reads_back_as_written() -> None:
    bench = Bench({"command_queue_bits": 4}, start=False)
    bench[CMDQ_BASE] = CMDQ_BASE.of(LOG2SIZE=19)
    bench[CMDQ_CONS] = 0xF_FFFF
    assert bench[CMDQ_BASE].LOG2SIZE == 19
    assert bench[CMDQ_CONS].RD == 0x1F


def test_the_overflow_flags_are_software_visible_bits_of_the_indices(bench: Bench) -> None:
    bench[EVENTQ_PROD] = EVENTQ_PROD.of(OVFLG=1, WR=1)
    bench[EVENTQ_CONS] = EVENTQ_CONS.of(OVACKFLG=1, RD=1)
    assert (bench[EVENTQ_PROD].OVFLG, bench[EVENTQ_CONS].OVACKFLG) == (1, 1)


# -- reset ---------------------------------------------------------------------------------------------------


def test_reset_returns_registers_and_empties_caches() -> None:
    bench = Bench()
    table = bench.stream()
    table.map(0x1000, 0x8000_0000)
    assert bench.pa(0x1000) == 0x8000_0000
    bench.translate(0x2000)
    bench.interrupts_on()
    bench.smmu.reset()
    fresh = Bench(start=False)
    for register in REGISTERS:
        assert bench[register] == fresh[register]
    assert len(bench.smmu.tlb) == 0
    bench.ste(0, V=0)
    bench.start()
    assert bench.translate(0x1000).outcome is Outcome.ABORT


def test_a_disabled_smmu_lets_addresses_pass_or_aborts_them_as_gbpa_says(bench: Bench) -> None:
    assert bench.pa(0x1234) == 0x1234
    bench[GBPA] = GBPA.of(ABORT=1, Update=1)
    assert bench.translate(0x1234).outcome is Outcome.ABORT
    bench.start(SMMUEN=0)
    assert bench.translate(0x1234).outcome is Outcome.ABORT
    assert bench.events() == []


def test_a_disabled_smmu_aborts_what_is_beyond_its_output_size(bench: Bench) -> None:
    assert bench.pa((1 << 48) - 1) == (1 << 48) - 1
    assert bench.translate((1 << 48) - 1, 2).outcome is Outcome.ABORT
    assert bench.translate(1 << 48).events == []


# -- updates that take their time (§6.3.9, §6.3.14, §6.3.18) --------------------------------------------------


def test_an_update_takes_effect_after_as_many_reads_as_the_machine_wants() -> None:
    smmu = Smmu(Memory((0x4000_0000, bytearray(4096))), Features(), acknowledge_after=3)
    smmu.write(CR0.at, 4, CR0.of(EVENTQEN=1).raw)
    smmu.write(IRQ_CTRL.at, 4, IRQ_CTRL.of(GERROR_IRQEN=1).raw)
    smmu.write(GBPA.at, 4, GBPA.of(Update=1, ABORT=1).raw)
    for _ in range(2):
        assert smmu.read(CR0ACK.at, 4) == 0
    assert GBPA(smmu.read(GBPA.at, 4)).Update == 1
    assert CR0ACK(smmu.read(CR0ACK.at, 4)).EVENTQEN == 1
    assert IRQ_CTRLACK(smmu.read(IRQ_CTRLACK.at, 4)).GERROR_IRQEN == 1
    assert GBPA(smmu.read(GBPA.at, 4)).Update == 0


def test_an_enable_that_is_not_acknowledged_has_no_effect() -> None:
    smmu = Smmu(Memory((0x4000_0000, bytearray(4096))), Features(), acknowledge_after=1)
    smmu.write(CR0.at, 4, CR0.of(SMMUEN=1).raw)
    # Still disabled: the address passes as it is. Enabled, there is no stream table to allow it.
    assert smmu.translate(Transaction(sid=0, iova=0x1000)).pieces
    smmu.read(CR0ACK.at, 4)
    assert not smmu.translate(Transaction(sid=0, iova=0x1000)).pieces
