/* SPDX-License-Identifier: Apache-2.0 */
/* Limits, validity rules and effective fields; the reference is smmu/v3/validity.py and parts of configuration.py. */
#include <string.h>

#include "validity.h"

static unsigned least_of(unsigned a, unsigned b) { return a < b ? a : b; }
static unsigned most_of(unsigned a, unsigned b) { return a > b ? a : b; }

/* IDR0.TTF is two bits: which formats of tables there are. */
enum { AARCH32_TABLES = 1, AARCH64_TABLES = 2 };

static bool idr0_has_tables(const struct vi_setup *setup, unsigned format)
{
    return IDR0_TTF(setup->parameters.idr0) & format;
}

/* ---- limits (§3.4) --------------------------------------------------------------------------------------------- */

static unsigned address_bits(uint64_t address_size)
{
    static const uint8_t bits[8] = {
        [VI_AddressSize_BITS_32] = 32, [VI_AddressSize_BITS_36] = 36, [VI_AddressSize_BITS_40] = 40,
        [VI_AddressSize_BITS_42] = 42, [VI_AddressSize_BITS_44] = 44, [VI_AddressSize_BITS_48] = 48,
        [VI_AddressSize_BITS_52] = 52, [VI_AddressSize_BITS_56] = 56,
    };
    return bits[address_size & 7];
}

void vi_setup_limits(struct vi_setup *setup)
{
    unsigned output = address_bits(IDR5_OAS(setup->parameters.idr5));
    /* AArch32 tables always make 40-bit IPAs. */
    unsigned input32 = idr0_has_tables(setup, AARCH32_TABLES) ? 40 : 0;
    unsigned input64 = idr0_has_tables(setup, AARCH64_TABLES) ? output : 0;
    setup->output_bits = (uint8_t)output;
    setup->input_bits = (uint8_t)most_of(input32, input64);
    setup->output_mask = (UINT64_C(1) << output) - 1;
}

/* Where VMSAv8-64 descriptors of a granule carry address bits above 47. */
static uint8_t wide_of(const struct vi_setup *setup, unsigned granule_bits, bool ds)
{
    uint32_t idr5 = setup->parameters.idr5;
    if (granule_bits == 16)
        return IDR5_OAS(idr5) >= VI_AddressSize_BITS_52 ? VI_WIDE_64K : VI_NARROW;
    return ds && IDR5_DS(idr5) ? VI_WIDE_LPA2 : VI_NARROW;
}

/* Effective output sizes. */
static unsigned s1_output_bits(const struct vi_setup *setup, const uint64_t *cd)
{
    return least_of(address_bits(CD_IPS(cd)), setup->output_bits);
}

static unsigned s2_output_bits(const struct vi_setup *setup, const uint64_t *ste)
{
    return STE_S2AA64(ste) ? least_of(address_bits(STE_S2PS(ste)), setup->output_bits) : 40;
}

/* How many bits of a table's address the format can express. */
static unsigned base_bits(unsigned output_bits, unsigned granule_bits, uint8_t wide)
{
    return granule_bits == 16 || wide != VI_NARROW ? output_bits : least_of(output_bits, 48);
}

static bool granule_supported(const struct vi_setup *setup, unsigned granule_bits)
{
    uint32_t idr5 = setup->parameters.idr5;
    switch (granule_bits) {
    case 12:
        return IDR5_GRAN4K(idr5);
    case 14:
        return IDR5_GRAN16K(idr5);
    case 16:
        return IDR5_GRAN64K(idr5);
    default:
        return false;
    }
}

/* The largest TxSZ. */
static unsigned smallest_table(const struct vi_setup *setup, unsigned granule_bits)
{
    if (!IDR3_STT(setup->parameters.idr3))
        return 39;
    return granule_bits == 16 ? 47 : 48;
}

/* CD.TG0 and STE.S2TG; CD.TG1 counts differently. */
static uint8_t granule_of_tg0(uint64_t tg0) { return (const uint8_t[4]){12, 16, 14, 0}[tg0 & 3]; }
static uint8_t granule_of_tg1(uint64_t tg1) { return (const uint8_t[4]){0, 14, 12, 16}[tg1 & 3]; }

/* One half of a CD: the fields of TTB0 or TTB1, as they are written. */
struct half {
    uint64_t base;
    uint8_t size;         /* TxSZ */
    uint8_t granule_bits; /* 0: reserved */
    uint8_t shareability;
    bool had, e0pd, tbi;
};

static struct half half_of(const uint64_t *cd, bool high)
{
    if (high)
        return (struct half){
            .base = CD_TTB1(cd),
            .size = (uint8_t)CD_T1SZ(cd),
            .granule_bits = granule_of_tg1(CD_TG1(cd)),
            .shareability = (uint8_t)CD_SH1(cd),
            .had = CD_HAD1(cd),
            .e0pd = CD_E0PD1(cd),
            .tbi = CD_TBI1(cd),
        };
    return (struct half){
        .base = CD_TTB0(cd),
        .size = (uint8_t)CD_T0SZ(cd),
        .granule_bits = granule_of_tg0(CD_TG0(cd)),
        .shareability = (uint8_t)CD_SH0(cd),
        .had = CD_HAD0(cd),
        .e0pd = CD_E0PD0(cd),
        .tbi = CD_TBI0(cd),
    };
}

/* ---- which regime (§3.3.3) ------------------------------------------------------------------------------------- */

static bool strw_ignored(const struct vi_setup *setup, const uint64_t *ste)
{
    uint32_t idr0 = setup->parameters.idr0;
    return !IDR0_S1P(idr0) || !IDR0_Hyp(idr0) || STE_Config(ste) & 2 || STE_Config(ste) == VI_STE_CONFIG_BYPASS;
}

/* The regime that tags translations. */
static uint8_t stream_world(const struct vi_setup *setup, const uint64_t *ste)
{
    if (strw_ignored(setup, ste) || STE_STRW(ste) == VI_STRW_EL1)
        return VI_WORLD_EL1;
    return CR2_E2H(setup->parameters.cr2) ? VI_WORLD_EL2_E2H : VI_WORLD_EL2;
}

static bool vmid_ignored(const struct vi_setup *setup, const uint64_t *ste)
{
    if (STE_Config(ste) <= VI_STE_CONFIG_BYPASS || !IDR0_S2P(setup->parameters.idr0))
        return true;
    return STE_STRW(ste) != VI_STRW_EL1 && !strw_ignored(setup, ste);
}

/* The effective EPDx. */
static bool half_disabled(const struct vi_setup *setup, const uint64_t *ste, const uint64_t *cd, bool high)
{
    /* EL2 without E2H has TTB0 alone, always on. */
    if (stream_world(setup, ste) == VI_WORLD_EL2)
        return high;
    return high ? CD_EPD1(cd) : CD_EPD0(cd);
}

/* ---- MPAM (§5.6.1, chapter 17) ----------------------------------------------------------------------------------- */

/* The largest identifiers; zeros where there is no MPAM. */
static uint32_t mpamidr_of(const struct vi_setup *setup)
{
    return IDR3_MPAM(setup->parameters.idr3) ? setup->parameters.mpamidr : 0;
}

void vi_set_mpam(const struct vi_setup *setup, uint64_t partid, uint64_t pmg, struct vi_context *context)
{
    uint32_t most = mpamidr_of(setup);
    context->partid = partid <= MPAMIDR_PARTID_MAX(most) ? (uint16_t)partid : 0;
    context->pmg = pmg <= MPAMIDR_PMG_MAX(most) ? (uint8_t)pmg : 0;
}

bool vi_vms_enabled(const struct vi_setup *setup, const uint64_t *ste)
{
    uint32_t idr0 = setup->parameters.idr0;
    bool has_vms = IDR0_S1P(idr0) && IDR0_S2P(idr0) && MPAMIDR_PARTID_MAX(mpamidr_of(setup));
    return has_vms && STE_Config(ste) == VI_STE_CONFIG_NESTED && STE_S1MPAM(ste);
}

/* ---- STEs (§5.2.2, SteIllegal()) ------------------------------------------------------------------------------- */

struct s2_geometry {
    uint8_t input_bits;
    uint8_t granule_bits; /* 0: reserved */
    int8_t start_level;
};
#define NO_LEVEL 4 /* one that cannot be */

/* The level at which stage 2 starts, of VMSAv8-64: S2SL0 counts by granule. */
static int s2_start_level(const struct vi_setup *setup, const uint64_t *ste, unsigned granule_bits)
{
    int sl0 = (int)STE_S2SL0(ste);
    unsigned output = setup->output_bits;
    bool ds = STE_S2DS(ste) && IDR5_DS(setup->parameters.idr5);
    if (granule_bits == 12) {
        if (ds && STE_S2SL0_2(ste))
            return sl0 == 0 && output >= 52 ? -1 : NO_LEVEL;
        if (sl0 == 3)
            return IDR3_STT(setup->parameters.idr3) ? 3 : NO_LEVEL;
        return sl0 < 2 || output >= 44 ? 2 - sl0 : NO_LEVEL;
    }
    if (granule_bits == 14) {
        unsigned least_output = sl0 == 3 ? 52 : sl0 == 2 ? 42 : 0;
        return output >= least_output && (sl0 < 3 || ds) ? 3 - sl0 : NO_LEVEL;
    }
    return sl0 < 2 || (sl0 == 2 && output >= 44) ? 3 - sl0 : NO_LEVEL;
}

static struct s2_geometry s2_geometry(const struct vi_setup *setup, const uint64_t *ste)
{
    int size = (int)STE_S2T0SZ(ste);
    if (!STE_S2AA64(ste)) {
        uint64_t sl0 = STE_S2SL0(ste);
        return (struct s2_geometry){
            .input_bits = (uint8_t)(32 - ((size & 7) - (size & 8))), /* a signed number of four bits */
            .granule_bits = 12,
            .start_level = sl0 == 0 ? 2 : sl0 == 1 ? 1 : NO_LEVEL,
        };
    }
    uint8_t granule_bits = granule_of_tg0(STE_S2TG(ste));
    return (struct s2_geometry){
        .input_bits = (uint8_t)(64 - size),
        .granule_bits = granule_bits,
        .start_level = (int8_t)s2_start_level(setup, ste, granule_bits),
    };
}

static bool s2_tables_illegal32(const struct vi_setup *setup, const uint64_t *ste)
{
    struct s2_geometry geometry = s2_geometry(setup, ste);
    int size = geometry.input_bits;
    /* Level 1 resolves 31 to 40 bits, level 2 25 to 34, as concatenation allows. */
    bool resolved = (geometry.start_level == 1 && size >= 31 && size <= 40) ||
                    (geometry.start_level == 2 && size >= 25 && size <= 34);
    return !resolved || STE_S2TTB(ste) >> s2_output_bits(setup, ste);
}

static bool s2_tables_illegal64(const struct vi_setup *setup, const uint64_t *ste)
{
    struct s2_geometry geometry = s2_geometry(setup, ste);
    int granule = geometry.granule_bits, size = geometry.input_bits, level = geometry.start_level;
    if (!granule_supported(setup, geometry.granule_bits) || level == NO_LEVEL)
        return true;
    uint8_t wide = wide_of(setup, geometry.granule_bits, STE_S2DS(ste));
    unsigned shortest = granule == 16 || wide == VI_WIDE_LPA2 ? 12 : 16;
    unsigned t0sz = (unsigned)STE_S2T0SZ(ste);
    if (t0sz < most_of(shortest, 64u - setup->input_bits) || t0sz > smallest_table(setup, geometry.granule_bits))
        return true;
    /* The start level and up to 16 concatenated tables must resolve the input exactly. */
    int least = (3 - level) * (granule - 3) + granule + 1;
    if (size < least || size > least + (granule - 4) + 4)
        return true;
    return STE_S2TTB(ste) >> base_bits(s2_output_bits(setup, ste), geometry.granule_bits, wide);
}

static bool s2_updates_illegal(const struct vi_setup *setup, const uint64_t *ste)
{
    uint64_t httu = IDR0_HTTU(setup->parameters.idr0);
    return ((STE_S2HA(ste) || STE_S2HD(ste)) && (!STE_S2AA64(ste) || httu == VI_HTTU_NONE)) ||
           (STE_S2HD(ste) && httu == VI_HTTU_ACCESS) ||
           (httu == VI_HTTU_ACCESS_DIRTY_TABLE && STE_S2HAFT(ste) && !STE_S2HA(ste));
}

static bool s2_illegal(const struct vi_setup *setup, const uint64_t *ste)
{
    uint32_t idr0 = setup->parameters.idr0;
    uint64_t stalls = IDR0_STALL_MODEL(idr0), endian = IDR0_TTENDIAN(idr0);
    bool aarch64 = STE_S2AA64(ste);
    if ((STE_S2S(ste) && stalls == VI_StallModel_TERMINATE_ONLY) ||
        (!STE_S2S(ste) && stalls == VI_StallModel_STALL_FORCED) ||
        !idr0_has_tables(setup, aarch64 ? AARCH64_TABLES : AARCH32_TABLES) ||
        (!aarch64 && IDR3_FWB(setup->parameters.idr3) && STE_S2FWB(ste)) ||
        s2_updates_illegal(setup, ste) ||
        (endian == VI_TTEndian_LITTLE && STE_S2ENDI(ste)) ||
        (endian == VI_TTEndian_BIG && !STE_S2ENDI(ste)))
        return true;
    return aarch64 ? s2_tables_illegal64(setup, ste) : s2_tables_illegal32(setup, ste);
}

static bool eats_illegal(const struct vi_setup *setup, const uint64_t *ste)
{
    uint32_t idr0 = setup->parameters.idr0;
    if (!IDR0_ATS(idr0) || STE_Config(ste) == VI_STE_CONFIG_BYPASS)
        return false;
    switch (STE_EATS(ste)) {
    case VI_EATS_SPLIT:
        return STE_Config(ste) != VI_STE_CONFIG_NESTED || STE_S2S(ste) || IDR0_NS1ATS(idr0);
    case VI_EATS_FULL:
        return STE_S2S(ste) && STE_Config(ste) & 2;
    case VI_EATS_FULL_DPT:
        return IDR3_DPT(setup->parameters.idr3) && !strw_ignored(setup, ste) && STE_STRW(ste) != VI_STRW_EL1;
    default:
        return false;
    }
}

static bool s1_illegal(const struct vi_setup *setup, const uint64_t *ste)
{
    uint32_t idr0 = setup->parameters.idr0;
    uint64_t ssidsize = IDR1_SSIDSIZE(setup->parameters.idr1);
    uint64_t format = STE_S1Fmt(ste);
    bool two_level = format == VI_S1Fmt_TWO_LEVEL_4K || format == VI_S1Fmt_TWO_LEVEL_64K;
    unsigned pointer_bits = STE_Config(ste) & 2 ? setup->input_bits : setup->output_bits;
    return (STE_S1STALLD(ste) && IDR0_STALL_MODEL(idr0) != VI_StallModel_STALL_AND_TERMINATE) ||
           (ssidsize && STE_S1CDMax(ste) > ssidsize) ||
           (ssidsize && STE_S1CDMax(ste) && !IDR0_CD2L(idr0) && two_level) ||
           STE_S1ContextPtr(ste) >> pointer_bits;
}

bool vi_ste_illegal(const struct vi_setup *setup, const uint64_t *ste)
{
    uint32_t idr0 = setup->parameters.idr0;
    uint64_t config = STE_Config(ste);
    if (!STE_V(ste))
        return true;
    if (config < VI_STE_CONFIG_BYPASS)
        return false;
    bool stage1 = config & 1, stage2 = config & 2;
    if ((stage1 && !IDR0_S1P(idr0)) || (stage2 && !IDR0_S2P(idr0)))
        return true;
    if (eats_illegal(setup, ste) || (!strw_ignored(setup, ste) && STE_STRW(ste) & 1))
        return true;
    if ((stage1 && s1_illegal(setup, ste)) || (stage2 && s2_illegal(setup, ste)))
        return true;
    if (vi_vms_enabled(setup, ste) && STE_VMSPtr(ste) >> setup->output_bits)
        return true;
    return !vmid_ignored(setup, ste) && !IDR0_VMID16(idr0) && STE_S2VMID(ste) >> 8;
}

/* ---- CDs (§5.4.2, CdIllegal()) --------------------------------------------------------------------------------- */

static bool stalls_illegal(const struct vi_setup *setup, const uint64_t *ste, const uint64_t *cd)
{
    uint32_t idr0 = setup->parameters.idr0;
    uint64_t stalls = IDR0_STALL_MODEL(idr0);
    return (STE_S1STALLD(ste) && CD_S(cd)) || (IDR0_TERM_MODEL(idr0) && !CD_A(cd)) ||
           (stalls == VI_StallModel_TERMINATE_ONLY && CD_S(cd)) ||
           (stalls == VI_StallModel_STALL_FORCED && !CD_S(cd));
}

static bool format_illegal(const struct vi_setup *setup, const uint64_t *ste, const uint64_t *cd)
{
    if (CD_AA64(cd))
        return !idr0_has_tables(setup, AARCH64_TABLES) || (STE_Config(ste) & 2 && !STE_S2AA64(ste));
    return !idr0_has_tables(setup, AARCH32_TABLES) || stream_world(setup, ste) == VI_WORLD_EL2_E2H;
}

static bool updates_illegal(const struct vi_setup *setup, const uint64_t *cd)
{
    uint64_t httu = IDR0_HTTU(setup->parameters.idr0);
    return CD_AA64(cd) &&
           (((CD_HA(cd) || CD_HD(cd)) && httu == VI_HTTU_NONE) || (CD_HD(cd) && httu == VI_HTTU_ACCESS) ||
            (httu == VI_HTTU_ACCESS_DIRTY_TABLE && CD_HAFT(cd) && !CD_HA(cd)));
}

/* An enabled half. */
static bool half_illegal(const struct vi_setup *setup, const uint64_t *cd, bool high)
{
    struct half half = half_of(cd, high);
    uint64_t endian = IDR0_TTENDIAN(setup->parameters.idr0);
    if ((endian == VI_TTEndian_LITTLE && CD_ENDI(cd)) || (endian == VI_TTEndian_BIG && !CD_ENDI(cd)))
        return true;
    if (!CD_AA64(cd))
        return half.base >> 40;
    if (!granule_supported(setup, half.granule_bits))
        return true;
    uint8_t wide = wide_of(setup, half.granule_bits, CD_DS(cd));
    bool long_input = IDR5_VAX(setup->parameters.idr5) && (half.granule_bits == 16 || wide == VI_WIDE_LPA2);
    if (half.size < (long_input ? 12 : 16) || half.size > smallest_table(setup, half.granule_bits))
        return true;
    return half.base >> base_bits(s1_output_bits(setup, cd), half.granule_bits, wide);
}

bool vi_cd_illegal(const struct vi_setup *setup, const uint64_t *ste, const uint64_t *cd)
{
    if (!CD_V(cd) || stalls_illegal(setup, ste, cd) || format_illegal(setup, ste, cd) || updates_illegal(setup, cd))
        return true;
    bool has_asid = stream_world(setup, ste) != VI_WORLD_EL2;
    if (has_asid && !IDR0_ASID16(setup->parameters.idr0) && CD_ASID(cd) >> 8)
        return true;
    for (int high = 0; high < 2; high++)
        if (!half_disabled(setup, ste, cd, high) && half_illegal(setup, cd, high))
            return true;
    return false;
}

/* ---- effective fields -------------------------------------------------------------------------------------------- */

/* The lowest-numbered level with blocks: 52-bit formats have one more (Arm ARM D8.3). */
static int8_t first_block_level(unsigned granule_bits, uint8_t wide)
{
    int narrow = granule_bits == 12 ? 1 : 2;
    return (int8_t)(wide == VI_NARROW ? narrow : narrow - 1);
}

/* The level at which stage 1 starts: the highest-numbered one whose one table covers the input. */
static int8_t start_level(unsigned granule_bits, unsigned input_bits)
{
    return (int8_t)(3 - (int)(input_bits - 1 - granule_bits) / (int)(granule_bits - 3));
}

/* Finish a table whose shape is known: `base` counts down to the start table's size, at least 64 bytes if 52-bit. */
static void set_base(struct vi_table *table, uint64_t base)
{
    int resolved = table->granule_bits + (table->granule_bits - 3) * (3 - table->start_level);
    int bits = table->input_bits - resolved + 3, least = table->output_bits > 48 ? 6 : 4;
    if (bits < least)
        bits = least;
    table->base = base >> bits << bits;
    table->first_block_level = first_block_level(table->granule_bits, table->wide);
    table->enabled = true;
}

static bool updates_tables(const struct vi_setup *setup)
{
    return IDR0_HTTU(setup->parameters.idr0) == VI_HTTU_ACCESS_DIRTY_TABLE;
}

static void set_stage2(const struct vi_setup *setup, const uint64_t *ste, struct vi_context *context)
{
    struct s2_geometry geometry = s2_geometry(setup, ste);
    bool aarch64 = STE_S2AA64(ste);
    uint8_t wide = aarch64 ? wide_of(setup, geometry.granule_bits, STE_S2DS(ste)) : VI_NARROW;
    context->stage2 = true;
    context->s2 = (struct vi_table){
        .stage = 2,
        .granule_bits = geometry.granule_bits,
        .input_bits = geometry.input_bits,
        .output_bits = (uint8_t)s2_output_bits(setup, ste),
        .start_level = geometry.start_level,
        .wide = wide,
        .shareability = wide == VI_WIDE_LPA2 ? (uint8_t)STE_S2SH0(ste) : VI_SH_OF_LEAF,
        .big_endian = STE_S2ENDI(ste),
        .hierarchical = true,
        .access_fault = !STE_S2AFFD(ste),
        .update_access = STE_S2HA(ste),
        .update_dirty = STE_S2HA(ste) && STE_S2HD(ste),
        .update_tables = STE_S2HA(ste) && STE_S2HAFT(ste) && updates_tables(setup),
    };
    set_base(&context->s2, STE_S2TTB(ste));
    context->s2_protected_walks = STE_S2PTW(ste);
    context->s2_forced_writeback = STE_S2FWB(ste) && IDR3_FWB(setup->parameters.idr3);
    context->s2_record = STE_S2R(ste);
    context->s2_stall = STE_S2S(ste);
    context->s2_execute_needs_read = !aarch64;
    context->s2_two_bit_xn = IDR3_XNX(setup->parameters.idr3);
}

/* What the STE puts in place of a transaction's own attributes (§13.1). */
static void set_overrides(const struct vi_setup *setup, const uint64_t *ste, struct vi_context *context)
{
    uint32_t idr1 = setup->parameters.idr1;
    uint64_t privcfg = STE_PRIVCFG(ste), instcfg = STE_INSTCFG(ste);
    bool permissions = IDR1_ATTR_PERMS_OVR(idr1);
    context->privileged = permissions && privcfg & 2 ? privcfg & 1 : VI_AS_IT_CAME;
    context->instruction = permissions && instcfg & 2 ? instcfg & 1 : VI_AS_IT_CAME;
    context->shcfg = 1; /* as it came */
    if (!IDR1_ATTR_TYPES_OVR(idr1))
        return;
    context->replace_type = STE_MTCFG(ste);
    context->memattr = (uint8_t)STE_MemAttr(ste);
    context->shcfg = (uint8_t)STE_SHCFG(ste);
}

void vi_set_ste(const struct vi_setup *setup, const uint64_t *ste, struct vi_context *context)
{
    memcpy(context->ste, ste, sizeof context->ste);
    context->bypasses_all = STE_Config(ste) == VI_STE_CONFIG_BYPASS;
    context->world = stream_world(setup, ste);
    context->vmid = vmid_ignored(setup, ste) ? 0 : (uint16_t)STE_S2VMID(ste);
    context->output_bits = setup->output_bits;
    context->input_bits = setup->input_bits;
    set_overrides(setup, ste, context);
    vi_set_mpam(setup, STE_PARTID(ste), STE_PMG(ste), context);
    if (STE_Config(ste) & 2)
        set_stage2(setup, ste, context);
}

/* The shape of one half's tables; their other fields come after. */
static struct vi_table half_shape(const struct vi_setup *setup, const uint64_t *cd, const struct half *half)
{
    if (!CD_AA64(cd))
        return (struct vi_table){
            .granule_bits = 12,
            .input_bits = (uint8_t)(32 - (half->size & 7)),
            .output_bits = 40,
            .shareability = VI_SH_OF_LEAF,
        };
    uint8_t wide = wide_of(setup, half->granule_bits, CD_DS(cd));
    return (struct vi_table){
        .granule_bits = half->granule_bits,
        .input_bits = (uint8_t)(64 - half->size),
        .output_bits = (uint8_t)s1_output_bits(setup, cd),
        .wide = wide,
        .shareability = wide == VI_WIDE_LPA2 ? half->shareability : VI_SH_OF_LEAF,
    };
}

/* One half of the address space: what CD.TTB0 or CD.TTB1 and the fields beside it say. */
static struct vi_table make_half(const struct vi_setup *setup, const struct vi_context *context, const uint64_t *cd,
                                 bool high)
{
    if (half_disabled(setup, context->ste, cd, high))
        return (struct vi_table){.enabled = false};
    uint32_t idr3 = setup->parameters.idr3;
    bool aarch64 = CD_AA64(cd);
    struct half half = half_of(cd, high);
    struct vi_table table = half_shape(setup, cd, &half);
    table.stage = 1;
    table.mair = CD_MAIR0(cd) | CD_MAIR1(cd) << 32;
    table.start_level = start_level(table.granule_bits, table.input_bits);
    set_base(&table, half.base);
    table.big_endian = CD_ENDI(cd);
    table.hierarchical = !(half.had && IDR3_HAD(idr3));
    table.access_fault = !CD_AFFD(cd);
    table.update_access = aarch64 && CD_HA(cd);
    table.update_dirty = table.update_access && CD_HD(cd);
    table.update_tables = table.update_access && CD_HAFT(cd) && updates_tables(setup);
    table.top_byte_ignored = half.tbi && aarch64;
    /* The EL2 regime without E2H has no unprivileged accesses to keep out. */
    table.no_unprivileged = context->world != VI_WORLD_EL2 && half.e0pd && IDR3_E0PD(idr3) && aarch64;
    return table;
}

void vi_set_cd(const struct vi_setup *setup, const uint64_t *cd, struct vi_context *context)
{
    bool el2 = context->world == VI_WORLD_EL2, aarch32 = !CD_AA64(cd);
    memcpy(context->cd, cd, sizeof context->cd);
    context->stage1 = true;
    for (int high = 0; high < 2; high++)
        context->half[high] = make_half(setup, context, cd, high);
    context->unprivileged = !el2;
    context->wxn = CD_WXN(cd);
    context->uwxn = !aarch32 || CD_UWXN(cd);
    context->pan = CD_PAN(cd) && !el2;
    context->epan = CD_EPAN(cd) && IDR3_EPAN(setup->parameters.idr3) && !aarch32;
    context->execute_needs_read = context->xn_for_all = context->aarch32 = aarch32;
    context->asid = el2 ? 0 : (uint16_t)CD_ASID(cd);
    context->aset = !el2 && CD_ASET(cd);
    context->t0sz = CD_T0SZ(cd) & 7;
    context->t1sz = el2 ? 0 : CD_T1SZ(cd) & 7;
    context->abort = CD_A(cd) || IDR0_TERM_MODEL(setup->parameters.idr0);
    context->record = CD_R(cd);
    context->stall = CD_S(cd);
}
