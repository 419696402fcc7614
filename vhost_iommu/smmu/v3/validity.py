# SPDX-License-Identifier: Apache-2.0
"""What an implementation makes of an STE and a CD: its limits, the geometry of stage 2, and what is ILLEGAL (§3.4, §5).

All follows from the ID registers, which never change, and from CR2 for EL2 streams; nothing else is remembered here.
Not modelled: as ``configuration.py``.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cached_property

from ...register_file import RegisterFile
from ...sealed import Sealed
from ..transaction import Mpam
from ..walk import Wide
from .registers import CR2, HTTU, IDR0, IDR1, IDR3, IDR5, MPAMIDR, AddressSize, StallModel, TTEndian
from .structures import CD, EATS, STE, STE_CONFIG, STRW, TG0, TG1, S1Fmt


class StreamWorld(IntEnum):
    """The regime that tags a translation (§3.3.3)."""

    NS_EL1 = 1
    NS_EL2 = 2
    NS_EL2_E2H = 3


class Validity(Sealed):
    """Limits and validity rules of one SMMU."""

    def __init__(self, registers: RegisterFile) -> None:
        self.registers = registers

    # -- limits (§3.4) --------------------------------------------------------------------------

    @cached_property
    def idr0(self) -> IDR0:
        return self.registers[IDR0]

    @cached_property
    def idr1(self) -> IDR1:
        return self.registers[IDR1]

    @cached_property
    def idr3(self) -> IDR3:
        return self.registers[IDR3]

    @cached_property
    def idr5(self) -> IDR5:
        return self.registers[IDR5]

    @cached_property
    def mpamidr(self) -> MPAMIDR:
        """The largest identifiers; zeros where there is no MPAM."""
        return self.registers[MPAMIDR] if self.idr3.MPAM else MPAMIDR(0)

    @cached_property
    def output_bits(self) -> int:
        """OAS in bits (§3.4)."""
        return AddressSize(self.idr5.OAS).bits

    @cached_property
    def input_bits(self) -> int:
        """IAS in bits: AArch32 tables always make 40-bit IPAs (§3.4)."""
        ttf = self.idr0.TTF
        return max(40 if ttf & 1 else 0, self.output_bits if ttf & 2 else 0)

    def wide(self, granule: int, ds: bool) -> Wide:
        """Where VMSAv8-64 descriptors of this granule carry address bits above 47."""
        if granule == 16:
            return Wide.KB64 if self.idr5.OAS >= AddressSize.BITS_52 else Wide.NONE
        return Wide.LPA2 if ds and self.idr5.DS else Wide.NONE

    def s2_output_bits(self, ste: STE) -> int:
        """The effective stage 2 output size: STE.S2PS capped at OAS, or 40 bits of AArch32."""
        return min(AddressSize(ste.S2PS).bits, self.output_bits) if ste.S2AA64 else 40

    def s1_output_bits(self, cd: CD) -> int:
        """The effective stage 1 output size: CD.IPS capped at OAS, and at what the format can express."""
        return min(AddressSize(cd.IPS).bits, self.output_bits)

    def _granule_supported(self, shift: int) -> bool:
        return bool({12: self.idr5.GRAN4K, 14: self.idr5.GRAN16K, 16: self.idr5.GRAN64K}.get(shift, 0))

    @staticmethod
    def granule(cd: CD, high: int) -> int:
        """log2 of the granule of TTBx; 0 if reserved."""
        if high:
            return TG1(cd.TG1).shift if cd.TG1 else 0
        return TG0(cd.TG0).shift if cd.TG0 < 3 else 0

    # -- MPAM (§5.6.1, chapter 17) ---------------------------------------------------------------------------

    def mpam(self, partid: int, pmg: int) -> Mpam:
        """What these identifiers come to: one that is too large is UNKNOWN, and 0 here."""
        most = self.mpamidr
        return Mpam(partid if partid <= most.PARTID_MAX else 0, pmg if pmg <= most.PMG_MAX else 0)

    @property
    def has_vms(self) -> bool:
        """Whether the VMS is supported (§5.6.1)."""
        return bool(self.idr0.S1P and self.idr0.S2P and self.mpamidr.PARTID_MAX)

    def vms_enabled(self, ste: STE) -> bool:
        """Whether STE.VMSPtr counts (§5.2)."""
        return ste.Config == STE_CONFIG.NESTED and bool(ste.S1MPAM) and self.has_vms

    # -- validity (§5.2.2, §5.4.2) ---------------------------------------------------------------------------

    def stream_world(self, ste: STE) -> StreamWorld:
        if self._strw_ignored(ste) or ste.STRW == STRW.EL1:
            return StreamWorld.NS_EL1
        return StreamWorld.NS_EL2_E2H if self.registers[CR2].E2H else StreamWorld.NS_EL2

    def _strw_ignored(self, ste: STE) -> bool:
        idr0 = self.idr0
        return not idr0.S1P or not idr0.Hyp or bool(ste.Config & 2) or ste.Config == STE_CONFIG.BYPASS

    def vmid_ignored(self, ste: STE) -> bool:
        if ste.Config <= STE_CONFIG.BYPASS or not self.idr0.S2P:
            return True
        return ste.STRW != STRW.EL1 and not self._strw_ignored(ste)

    def ste_illegal(self, ste: STE) -> bool:
        """Whether using ``ste`` gives C_BAD_STE, as SteIllegal() of §5.2.2."""
        idr0, idr1, idr3 = self.idr0, self.idr1, self.idr3
        if not ste.V:
            return True
        if ste.Config < STE_CONFIG.BYPASS:
            return False
        stage1, stage2 = bool(ste.Config & 1), bool(ste.Config & 2)
        if (stage1 and not idr0.S1P) or (stage2 and not idr0.S2P):
            return True
        if idr0.ATS and ste.Config != STE_CONFIG.BYPASS:
            if ste.EATS == EATS.SPLIT and (ste.Config != STE_CONFIG.NESTED or ste.S2S or idr0.NS1ATS):
                return True
            if ste.EATS == EATS.FULL and ste.S2S and stage2:
                return True
            if ste.EATS == EATS.FULL_DPT and idr3.DPT and not self._strw_ignored(ste) and ste.STRW != STRW.EL1:
                return True
        if not self._strw_ignored(ste) and ste.STRW & 1:
            return True
        if stage1 and (
            (ste.S1STALLD and idr0.STALL_MODEL != StallModel.STALL_AND_TERMINATE)
            or (idr1.SSIDSIZE and ste.S1CDMax > idr1.SSIDSIZE)
            or (
                idr1.SSIDSIZE
                and ste.S1CDMax
                and not idr0.CD2L
                and ste.S1Fmt in (S1Fmt.TWO_LEVEL_4K, S1Fmt.TWO_LEVEL_64K)
            )
            or ste.S1ContextPtr >> (self.input_bits if stage2 else self.output_bits)
        ):
            return True
        if stage2 and self._s2_illegal(ste):
            return True
        if self.vms_enabled(ste) and ste.VMSPtr >> self.output_bits:
            return True
        return not self.vmid_ignored(ste) and not idr0.VMID16 and bool(ste.S2VMID >> 8)

    def _s2_illegal(self, ste: STE) -> bool:
        """The stage 2 part of SteIllegal()."""
        idr0, idr3 = self.idr0, self.idr3
        if (
            (ste.S2S and idr0.STALL_MODEL == StallModel.TERMINATE_ONLY)
            or (not ste.S2S and idr0.STALL_MODEL == StallModel.STALL_FORCED)
            or not idr0.TTF & (2 if ste.S2AA64 else 1)
            or (not ste.S2AA64 and idr3.FWB and ste.S2FWB)
            or ((ste.S2HA or ste.S2HD) and (not ste.S2AA64 or not idr0.HTTU))
            or (ste.S2HD and idr0.HTTU == HTTU.ACCESS)
            or (idr0.HTTU == HTTU.ACCESS_DIRTY_TABLE and ste.S2HAFT and not ste.S2HA)
            or (idr0.TTENDIAN == TTEndian.LITTLE and ste.S2ENDI)
            or (idr0.TTENDIAN == TTEndian.BIG and not ste.S2ENDI)
        ):
            return True
        size, granule, level = self.s2_geometry(ste)
        if not ste.S2AA64:
            # Level 1 resolves 31 to 40 bits, level 2 25 to 34, as concatenation allows.
            low, high = {1: (31, 40), 2: (25, 34)}.get(level, (1, 0))
            return not low <= size <= high or bool(ste.S2TTB >> self.s2_output_bits(ste))
        if not self._granule_supported(granule):
            return True
        wide = self.wide(granule, bool(ste.S2DS))
        longest = (47 if granule == 16 else 48) if idr3.STT else 39
        shortest = 12 if granule == 16 or wide is Wide.LPA2 else 16
        if not max(shortest, 64 - self.input_bits) <= ste.S2T0SZ <= longest or level > 3:
            return True
        # The start level and up to 16 concatenated tables must resolve the input exactly.
        least = (3 - level) * (granule - 3) + granule + 1
        if not least <= size <= least + (granule - 4) + 4:
            return True
        limit = self.s2_output_bits(ste)
        if granule != 16 and wide is Wide.NONE:
            limit = min(limit, 48)
        return bool(ste.S2TTB >> limit)

    def s2_geometry(self, ste: STE) -> tuple[int, int, int]:
        """(input bits, log2 of the granule or 0, start level or 4 for one that cannot be)."""
        if not ste.S2AA64:
            signed = (ste.S2T0SZ & 7) - (ste.S2T0SZ & 8)
            return 32 - signed, 12, {0: 2, 1: 1}.get(ste.S2SL0, 4)
        granule = TG0(ste.S2TG).shift if ste.S2TG < 3 else 0
        oas = self.output_bits
        sl0 = ste.S2SL0
        if granule == 12:
            if ste.S2DS and ste.S2SL0_2 and self.idr5.DS:
                level = -1 if sl0 == 0 and oas >= 52 else 4
            elif sl0 == 3:
                level = 3 if self.idr3.STT else 4
            else:
                level = 2 - sl0 if sl0 < 2 or oas >= 44 else 4
        elif granule == 14:
            least = {2: 42, 3: 52}.get(sl0, 0)
            level = 3 - sl0 if oas >= least and (sl0 < 3 or (ste.S2DS and self.idr5.DS)) else 4
        else:
            level = 3 - sl0 if sl0 < 2 or (sl0 == 2 and oas >= 44) else 4
        return 64 - ste.S2T0SZ, granule, level

    def half_disabled(self, ste: STE, cd: CD, high: int) -> bool:
        """The effective EPDx: EL2 without E2H has TTB0 alone, always on."""
        if self.stream_world(ste) is StreamWorld.NS_EL2:
            return bool(high)
        return bool(cd.EPD1 if high else cd.EPD0)

    def cd_illegal(self, ste: STE, cd: CD) -> bool:
        """Whether using ``cd`` through ``ste`` gives C_BAD_CD, as CdIllegal() of §5.4.2."""
        idr0 = self.idr0
        enabled = [high for high in (0, 1) if not self.half_disabled(ste, cd, high)]
        if (
            not cd.V
            or (ste.S1STALLD and cd.S)
            or (idr0.TERM_MODEL and not cd.A)
            or (idr0.STALL_MODEL == StallModel.TERMINATE_ONLY and cd.S)
            or (idr0.STALL_MODEL == StallModel.STALL_FORCED and not cd.S)
            or (enabled and idr0.TTENDIAN == TTEndian.LITTLE and cd.ENDI)
            or (enabled and idr0.TTENDIAN == TTEndian.BIG and not cd.ENDI)
            or (not cd.AA64 and (not idr0.TTF & 1 or self.stream_world(ste) is StreamWorld.NS_EL2_E2H))
            or (cd.AA64 and (not idr0.TTF & 2 or (ste.Config & 2 and not ste.S2AA64)))
        ):
            return True
        if cd.AA64 and (
            ((cd.HA or cd.HD) and not idr0.HTTU)
            or (cd.HD and idr0.HTTU == HTTU.ACCESS)
            or (idr0.HTTU == HTTU.ACCESS_DIRTY_TABLE and cd.HAFT and not cd.HA)
        ):
            return True
        if self.stream_world(ste) is not StreamWorld.NS_EL2 and not idr0.ASID16 and cd.ASID >> 8:
            return True
        return any(self._half_illegal(cd, high) for high in enabled)

    def _half_illegal(self, cd: CD, high: int) -> bool:
        size, base = (cd.T1SZ, cd.TTB1) if high else (cd.T0SZ, cd.TTB0)
        if not cd.AA64:
            return bool(base >> 40)
        granule = self.granule(cd, high)
        if not self._granule_supported(granule):
            return True
        wide = self.wide(granule, bool(cd.DS))
        longest = (47 if granule == 16 else 48) if self.idr3.STT else 39
        shortest = 12 if self.idr5.VAX and (granule == 16 or wide is Wide.LPA2) else 16
        if not shortest <= size <= longest:
            return True
        limit = self.s1_output_bits(cd)
        if granule != 16 and wide is Wide.NONE:
            limit = min(limit, 48)
        return bool(base >> limit)
