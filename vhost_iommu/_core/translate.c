/* SPDX-License-Identifier: Apache-2.0 */
/* TLB lookups, walks, permissions and updates of both stages (§3.3, §3.4; walk.py and stages.py). */
#include "tell.h"
#include "translate.h"

/* A guest that wins every race for a descriptor gets no translation. */
#define MOST_TRIES 16

#define PAGE UINT64_C(4096) /* of the smallest granule, which is walked for quickly */
#define AF VI_S1LeafDescriptor_AF
#define DBM VI_S1LeafDescriptor_DBM
/* AP[1], AP[2], APTable[0], APTable[1], S2AP[0] and S2AP[1]. */
#define AP_USER (UINT64_C(1) << __builtin_ctzll(VI_S1LeafDescriptor_AP))
#define AP_READ_ONLY (UINT64_C(2) << __builtin_ctzll(VI_S1LeafDescriptor_AP))
#define TABLE_NO_USER (UINT64_C(1) << __builtin_ctzll(VI_TableDescriptor_APTable))
#define TABLE_READ_ONLY (UINT64_C(2) << __builtin_ctzll(VI_TableDescriptor_APTable))
#define S2_READ (UINT64_C(1) << __builtin_ctzll(VI_S2LeafDescriptor_S2AP))
#define S2_WRITE (UINT64_C(2) << __builtin_ctzll(VI_S2LeafDescriptor_S2AP))

/* Who is asked for a descriptor: NULL, and it is physical; a context, and its stage 2 translates first. */
typedef const struct vi_context *nested;

static bool failed(struct vi_fault *fault, enum vi_fault_kind kind, int level, unsigned stage)
{
    *fault = (struct vi_fault){.kind = kind, .level = (int8_t)level, .stage = (uint8_t)stage, .cause = VI_CAUSE_IN};
    return false;
}

static bool aborted(struct vi_fault *fault, int level, unsigned stage, uint64_t fetch)
{
    failed(fault, VI_WALK_EABT, level, stage);
    fault->fetch = fetch;
    return false;
}

/* ---- memory types (memory_type.py) ------------------------------------------------------------------------------- */

enum { NC = 1, WT = 2, WB = 3, OUTER = 2, INNER = 3 };

static vi_memory_type type_of(unsigned outer, unsigned inner, unsigned shareability)
{
    return (vi_memory_type)(shareability << 4 | outer << 2 | inner);
}

/* Device and non-cacheable memory are outer shareable, whatever was said (§13.1.7). */
static vi_memory_type vi_consistent(vi_memory_type memory)
{
    return (memory & 0xC) == 0 || (memory & 0xF) == 5 ? (vi_memory_type)((memory & 0xF) | OUTER << 4) : memory;
}

/* A nibble of MAIR: 0b0100 is non-cacheable, else bits [3:2] say WT transient, WB transient, WT, WB. */
static unsigned cacheability(unsigned nibble)
{
    return nibble == 4 ? NC : nibble & 4 ? WB : WT;
}

static unsigned valid_shareability(unsigned bits) { return bits == 1 ? 0 : bits; }

static vi_memory_type from_mair(unsigned byte, unsigned shareability)
{
    if (byte >> 4 == 0)
        return type_of(0, byte >> 2 & 3, OUTER);
    return vi_consistent(
        type_of(cacheability(byte >> 4), cacheability(byte & 0xF), valid_shareability(shareability)));
}

static vi_memory_type from_memattr(unsigned bits, unsigned shareability)
{
    unsigned outer = bits >> 2 & 3, inner = bits & 3;
    if (!outer)
        return type_of(0, inner, OUTER);
    return vi_consistent(type_of(outer, inner ? inner : NC, valid_shareability(shareability)));
}

static vi_memory_type combine(vi_memory_type a, vi_memory_type b)
{
    static const uint8_t strength[4] = {0, 0, 2, 1}; /* non, reserved, outer, inner */
    if (VI_LIKELY(a == b))
        return vi_consistent(a);
    unsigned sh_a = a >> 4, sh_b = b >> 4, outer_a = a >> 2 & 3, outer_b = b >> 2 & 3, inner_a = a & 3, inner_b = b & 3;
    if (!outer_a || !outer_b) {
        if (outer_a)
            return type_of(0, inner_b, OUTER);
        if (outer_b)
            return type_of(0, inner_a, OUTER);
        return type_of(0, inner_a < inner_b ? inner_a : inner_b, OUTER);
    }
    return vi_consistent(type_of(outer_a < outer_b ? outer_a : outer_b, inner_a < inner_b ? inner_a : inner_b,
                                 strength[sh_b] > strength[sh_a] ? sh_b : sh_a));
}

/* Stage 2 with STE.S2FWB. */
static vi_memory_type combine_forced(vi_memory_type first, unsigned memattr, unsigned shareability)
{
    vi_memory_type writeback = type_of(WB, WB, valid_shareability(shareability));
    switch (memattr & 7) {
    case 7:
        return combine(first, writeback);
    case 6:
        return vi_consistent(combine((vi_memory_type)((first & 0x30) | 0xF), writeback));
    case 5:
    case 4:
        return combine(first, type_of(NC, NC, OUTER));
    default:
        return combine(first, type_of(0, memattr & 3, OUTER));
    }
}

/* What a context makes of a memory type (§13.1.4). */
static vi_memory_type vi_override(vi_memory_type incoming, bool replace_type, unsigned memattr, unsigned shcfg)
{
    vi_memory_type kind = incoming;
    unsigned shareability = shcfg == 1 ? incoming >> 4 : shcfg;
    if (replace_type) /* what is reserved behaves as Device-nGnRnE (§5.2 STE.MemAttr) */
        kind = from_memattr(memattr & 3 ? memattr : 0, incoming >> 4);
    return vi_consistent((vi_memory_type)((kind & 0xF) | shareability << 4));
}

static unsigned leaf_memory(const struct vi_leaf *leaf) { return leaf->tag >> VI_LEAF_MEMORY & 0x3F; }

vi_memory_type vi_memory_of(const struct vi_context *context, const struct vi_place *place, vi_memory_type incoming)
{
    if (context->stage1 && !context->stage2)
        return (vi_memory_type)leaf_memory(&place->stage1);
    vi_memory_type first = context->stage1
                               ? (vi_memory_type)leaf_memory(&place->stage1)
                               : vi_override(incoming, context->replace_type, context->memattr, context->shcfg);
    if (!context->stage2)
        return first;
    if (context->s2_forced_writeback)
        return combine_forced(first, place->stage2.tag >> VI_LEAF_ATTRIBUTES & 0xF,
                              place->stage2.tag >> VI_LEAF_SHAREABILITY & 3);
    return combine(first, (vi_memory_type)leaf_memory(&place->stage2));
}

/* ---- leaves -------------------------------------------------------------------------------------------------------- */

static inline uint64_t leaf_output(const struct vi_leaf *leaf, uint64_t address)
{
    return (leaf->output) | (address & ((UINT64_C(1) << vi_leaf_shift(leaf)) - 1));
}
static inline uint64_t leaf_left(const struct vi_leaf *leaf, uint64_t address)
{
    uint64_t size = UINT64_C(1) << vi_leaf_shift(leaf);
    return size - (address & (size - 1));
}

/* A leaf's flags by bits of its descriptor, which are in the same order: AP[2:1] and nG; PXN and UXN, or their tables'. */
#define FLAGS_OF(d) ((d) >> 6 & (VI_USER | VI_WRITABLE | VI_NOT_GLOBAL))
#define XN_OF(d) ((d) >> 47 & (VI_PXN | VI_UXN))
#define XN_OF_TABLE(d) ((d) >> 53 & (VI_PXN | VI_UXN))
_Static_assert(FLAGS_OF(AP_USER) == VI_USER && FLAGS_OF(AP_READ_ONLY) == VI_WRITABLE &&
                   FLAGS_OF(VI_S1LeafDescriptor_nG) == VI_NOT_GLOBAL && XN_OF(VI_S1LeafDescriptor_PXN) == VI_PXN &&
                   XN_OF(VI_S1LeafDescriptor_UXN) == VI_UXN && XN_OF_TABLE(VI_TableDescriptor_PXNTable) == VI_PXN &&
                   XN_OF_TABLE(VI_TableDescriptor_UXNTable) == VI_UXN && XN_OF(VI_S2LeafDescriptor_XN) == (VI_PXN | VI_UXN),
               "as core.h numbers them");

/* Those of stage 1 that tables above permit; with `h`, the bits of theirs that count. */
static unsigned under_tables(unsigned flags, uint64_t h)
{
    if (h & TABLE_NO_USER)
        flags &= ~(unsigned)VI_USER;
    if (h & TABLE_READ_ONLY)
        flags &= ~(unsigned)VI_WRITABLE;
    return flags | (unsigned)XN_OF_TABLE(h);
}

/* The low half of a leaf's tag: what its descriptor and those above permit, and what memory it is. */
static uint32_t leaf_attributes(const struct vi_table *table, uint64_t d, uint64_t hierarchy, int level)
{
    unsigned flags, attributes, xn = (unsigned)XN_OF(d);
    unsigned shareability = VI_UNLIKELY(table->shareability != VI_SH_OF_LEAF) ? table->shareability
                                                                             : (unsigned)S1LeafDescriptor_SH(d);
    bool may_become_dirty = table->update_dirty && d & DBM;
    if (table->stage == 1) {
        uint64_t h = hierarchy & table->hierarchy;
        attributes = (unsigned)S1LeafDescriptor_AttrIndx(d);
        flags = (unsigned)FLAGS_OF(d ^ AP_READ_ONLY) | xn;
        if (VI_UNLIKELY(h))
            flags = under_tables(flags, h);
        if (VI_UNLIKELY(may_become_dirty) && !(flags & VI_WRITABLE) && !(h & TABLE_READ_ONLY))
            flags |= VI_CLEAN;
    } else {
        /* XN: 0 all execute, 1 the unprivileged, 2 nobody, 3 the privileged (Arm ARM D8.4). */
        attributes = (unsigned)S2LeafDescriptor_MemAttr(d);
        flags = (d & S2_READ ? VI_READABLE : 0) | (unsigned)(FLAGS_OF(d) & VI_WRITABLE) | (xn ^ (xn >> 1 & VI_PXN));
        if (VI_UNLIKELY(may_become_dirty) && !(flags & VI_WRITABLE))
            flags |= VI_CLEAN;
    }
    unsigned kind = table->kind[attributes];
    unsigned memory = (kind & 0x3F) | (kind & VI_SH_COUNTS & valid_shareability(shareability) << 6) >> 2;
    return flags | table->constant | attributes << VI_LEAF_ATTRIBUTES | shareability << VI_LEAF_SHAREABILITY |
           memory << VI_LEAF_MEMORY | (unsigned)(level + 1) << VI_LEAF_LEVEL;
}

/* ---- quick walks --------------------------------------------------------------------------------------------------- */

VI_HOT uint64_t page_key(uint64_t address, unsigned granule_bits)
{
    return (address & ~UINT64_C(0) << granule_bits) | granule_bits;
}

/* `below`: the table of its granule's size in which the descriptor is. */
VI_HOT void found_page(struct vi_reader *reader, const struct vi_table *table, unsigned stage, uint64_t key,
                       uint64_t descriptor, uint64_t below, uint64_t hierarchy, struct vi_leaf *leaf)
{
    leaf->base = key;
    leaf->output = descriptor & table->address;
    leaf->descriptor = descriptor;
    leaf->table = below;
    /* Most pages have what the one before had. */
    uint64_t bits = descriptor & table->telling;
    if (stage == 1)
        bits |= hierarchy & table->hierarchy;
    if (VI_UNLIKELY(reader->seen[stage - 1].bits != bits || reader->seen[stage - 1].table != table)) {
        reader->seen[stage - 1].tag = leaf_attributes(table, descriptor, hierarchy, 3);
        reader->seen[stage - 1].bits = bits;
        reader->seen[stage - 1].table = table;
    }
    leaf->tag = reader->seen[stage - 1].tag;
}

enum quick_walk { WALKED, ELSEWHERE, UNEXPECTED };

VI_HOT uint64_t word_at(const uint8_t *host)
{
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)host, memory_order_relaxed);
}

/*
 * A walk to a page of 4 KiB by descriptors that are all what one expects, of a table of `stage` that has such pages (as
 * quick_bits says) and whose addresses are physical, in the window of the descriptor before.
 */
VI_HOT enum quick_walk walk_here(struct vi_reader *reader, struct vi_lane *lane, const struct vi_table *table, unsigned stage,
                                 uint64_t address, struct vi_leaf *leaf)
{
    enum { STRIDE = 9 };
    const uint64_t mask = (UINT64_C(8) << STRIDE) - 8;
    unsigned start = table->start_times_8; /* of an index times 8, as are the others here */
    uint64_t at = (address >> start & table->start_mask) + (table->base - reader->words_at);
    if (VI_UNLIKELY(at > reader->words_span))
        return ELSEWHERE;
    uint64_t above = 0, descriptor = word_at(reader->words + at);
#pragma GCC unroll 4
    for (unsigned shift = 3 * STRIDE; shift; shift -= STRIDE) {
        if (shift >= start)
            continue; /* of the first table, or one that it has not */
        above |= descriptor;
        /* One comparison for its type, which leaves no bits below those of a page, and for where the table is. */
        at = (descriptor & (VI_TableDescriptor_NextTable | VI_TableDescriptor_TYPE)) - reader->tables_at;
        if (VI_UNLIKELY(vi_rotated(at, 64 - 12) > reader->tables_span))
            return (descriptor & table->tested) == 3 ? ELSEWHERE : UNEXPECTED;
        descriptor = word_at(reader->words + at + (address >> shift & mask));
    }
    if (VI_UNLIKELY((descriptor & table->tested_page) != (3 | AF) || above & table->too_high))
        return UNEXPECTED;
    lane->region = address >> (2 * STRIDE + 3);
    lane->like = 0;
    lane->beside = reader->words + at;
    lane->descriptors = reader->words_at + at;
    lane->above = above;
    found_page(reader, table, stage, lane->key, descriptor, reader->words_at + at, above, leaf);
    return WALKED;
}

/* The same of a plain table of any granule, in any window. False: nothing has been done, and walk_once finds out why. */
static __attribute__((noinline)) bool walk_anywhere(struct vi_reader *reader, const struct vi_table *table,
                                                    uint64_t address, struct vi_leaf *leaf)
{
    unsigned granule = table->granule_bits, stride = granule - 3, shift = table->start_shift;
    uint64_t base = table->base, index = address >> (shift - 3) & table->start_mask, above = 0, descriptor;
    for (;; shift -= stride) {
        if (VI_UNLIKELY(!vi_fetch64(reader, base + index, &descriptor)))
            return false;
        if (shift == granule)
            break;
        if (VI_UNLIKELY((descriptor & table->tested) != 3))
            return false;
        above |= descriptor;
        base = descriptor & table->address;
        index = vi_index_times_8(address, shift - stride, granule);
    }
    if (VI_UNLIKELY((descriptor & table->tested_page) != (3 | AF)))
        return false;
    found_page(reader, table, table->stage, page_key(address, granule), descriptor,
               base + index - vi_index_times_8(address, granule, granule), above, leaf);
    return true;
}

/* A walk to a page of the size of the lane's; the same holds. */
VI_HOT bool walk_to_page(struct vi_reader *reader, struct vi_lane *lane, const struct vi_table *table, unsigned stage,
                         uint64_t address, struct vi_leaf *leaf)
{
    if (VI_LIKELY(table->quick_bits == lane->shift)) {
        enum quick_walk how = walk_here(reader, lane, table, stage, address, leaf);
        if (VI_LIKELY(how != ELSEWHERE))
            return how == WALKED;
    }
    struct vi_leaf found; /* so that `leaf` may be in registers */
    if (table->plain_bits != lane->shift || !walk_anywhere(reader, table, address, &found))
        return false;
    *leaf = found;
    return true;
}

/* Whether a page may be put of which who looks on is to know, and is told; `leaf` has its space's tag. */
static __attribute__((noinline)) bool tell_page(struct vi_reader *reader, const struct vi_lane *lane,
                                                const struct vi_leaf *leaf)
{
    return (leaf->tag & lane->tested) == lane->need &&
           (!vi_watch_of(reader) || vi_tell_fill(reader, lane->tlb == reader->core->tlb1 ? 1 : 2, lane->space, leaf));
}

/* Put a page that was walked for after a miss of `lane`, and is of its size; false: it does not simply permit the access. */
VI_HOT bool keep_quickly(struct vi_reader *reader, struct vi_lane *lane, struct vi_leaf *leaf)
{
    uint64_t tag = lane->tag | (uint32_t)leaf->tag;
    if (VI_UNLIKELY((tag & lane->tested) != lane->fills)) {
        struct vi_leaf whole = *leaf; /* so that the one may be in registers */
        whole.tag = tag;
        if (!tell_page(reader, lane, &whole))
            return false;
    }
    leaf->tag = tag;
    vi_tlb_insert(reader->core, lane, leaf);
    return true;
}

/* What a page's descriptor has in common with those beside it, which then have its tag. */
VI_HOT uint64_t likeness(const struct vi_table *table) { return ~table->address | table->too_high; }

/* A page of 4 KiB whose table the walk of the page before found. */
VI_HOT bool fill_beside(struct vi_reader *reader, struct vi_lane *lane, const struct vi_table *table, unsigned stage,
                        uint64_t address, struct vi_leaf *leaf)
{
    uint64_t descriptor = word_at(lane->beside + vi_index_times_8(address, 12, 12)), other = descriptor ^ lane->like;
    if (VI_LIKELY(lane->like && !(other & likeness(table)) && !vi_looked(reader))) {
        leaf->base = lane->key;
        leaf->tag = lane->tag_like;
        leaf->output = other;
        leaf->descriptor = descriptor;
        leaf->table = lane->descriptors;
        vi_tlb_insert(reader->core, lane, leaf);
        return true;
    }
    if (VI_UNLIKELY((descriptor & table->tested_page) != (AF | 3)))
        return false;
    found_page(reader, table, stage, lane->key, descriptor, lane->descriptors, lane->above, leaf);
    if (VI_UNLIKELY(!keep_quickly(reader, lane, leaf)))
        return false;
    lane->like = descriptor & likeness(table);
    lane->tag_like = leaf->tag;
    return true;
}

/*
 * What a miss of `lane` comes to where each descriptor is what one expects, the access is simply permitted, and the space
 * has pages of this size. False: it is not so, and nothing has been done.
 */
VI_HOT bool fill_quickly(struct vi_reader *reader, struct vi_lane *lane, const struct vi_table *table, unsigned stage,
                         uint64_t address, struct vi_leaf *leaf)
{
    if (address >> 21 == lane->region) {
        if (VI_UNLIKELY(!fill_beside(reader, lane, table, stage, address, leaf)))
            return false;
    } else {
        if (VI_UNLIKELY(!walk_to_page(reader, lane, table, stage, address, leaf) || !keep_quickly(reader, lane, leaf)))
            return false;
    }
    VI_COUNT(reader->counters.walks);
    VI_ADD(reader->counters.descriptors, table->levels); /* as who begins each walk at the start */
    return true;
}

static bool stage2(struct vi_reader *reader, const struct vi_context *context, uint64_t ipa, unsigned access,
                   enum vi_cause cause, bool missed, struct vi_leaf *leaf, struct vi_fault *fault);

/* Where stage 2 has an address, and how much from there on; with the tag of its leaf. */
struct translated {
    uint64_t output, size, tag;
};

/* Quick with a lane of the same access; false: `fault` says why not. */
VI_HOT bool through_stage2(struct vi_reader *reader, const struct vi_context *context, struct vi_lane *lane, uint64_t ipa,
                           unsigned access, enum vi_cause cause, struct translated *to, struct vi_fault *fault)
{
    enum vi_found found = VI_THINK;
    if (VI_LIKELY(lane && !(ipa & context->s2.beyond))) {
        found = vi_lane_find(lane, ipa, &to->tag, &to->output, &to->size);
        if (found == VI_HIT) {
            VI_COUNT(reader->counters.tlb2_hits);
            return true;
        }
    }
    struct vi_leaf leaf, whole; /* so that the one may be in registers */
    if (VI_LIKELY(found == VI_MISS && fill_quickly(reader, lane, &context->s2, 2, ipa, &leaf))) {
        VI_COUNT(reader->counters.tlb2_misses);
        uint64_t within = context->s2.within, offset = ipa & within;
        *to = (struct translated){leaf.output | offset, within + 1 - offset, leaf.tag};
        return true;
    }
    if (!stage2(reader, context, ipa, access, cause, found == VI_MISS, &whole, fault))
        return false;
    if (lane)
        vi_lane_refresh(lane);
    *to = (struct translated){leaf_output(&whole, ipa), leaf_left(&whole, ipa), whole.tag};
    return true;
}

/* ---- descriptors --------------------------------------------------------------------------------------------------- */

/*
 * Where the descriptor is; false: a fault of stage 2. `lane` is for reads of stage 1's tables, where stage 2 has a say.
 * AArch32 tables may be beyond physical addresses (§7.3.12).
 */
VI_HOT bool physical(struct vi_reader *reader, nested by, struct vi_lane *lane, uint64_t at, unsigned access,
                     uint64_t *pa, struct vi_fault *fault)
{
    struct translated to;
    to.output = at;
    if (by && !through_stage2(reader, by, lane, at, access, VI_CAUSE_TT, &to, fault))
        return false;
    *pa = to.output & reader->setup->output_mask;
    return true;
}

/* An external abort of a descriptor's access: a stage 1 walk's own where stage 2 moved it. */
static bool descriptor_aborted(struct vi_fault *fault, uint64_t at, uint64_t pa, int level, unsigned stage)
{
    if (pa == at)
        return aborted(fault, level, stage, at);
    aborted(fault, level, 1, pa);
    fault->cause = VI_CAUSE_TT;
    return false;
}

VI_HOT bool fetch(struct vi_reader *reader, nested by, struct vi_lane *lane, const struct vi_table *table, uint64_t at,
                  int level, uint64_t *descriptor, struct vi_fault *fault)
{
    uint64_t pa;
    if (!physical(reader, by, lane, at, VI_PRIVILEGED, &pa, fault))
        return false;
    VI_COUNT(reader->counters.descriptors);
    if (VI_UNLIKELY(!vi_fetch64(reader, pa, descriptor)))
        return descriptor_aborted(fault, at, pa, level, table->stage);
    if (VI_UNLIKELY(table->big_endian))
        *descriptor = __builtin_bswap64(*descriptor);
    return true;
}

enum updated { REPLACED, LOST, FAULTED };

static enum updated update(struct vi_reader *reader, nested by, const struct vi_table *table, uint64_t at, int level,
                           uint64_t old, uint64_t replacement, struct vi_fault *fault)
{
    uint64_t pa;
    if (!physical(reader, by, NULL, at, VI_PRIVILEGED | VI_WRITE, &pa, fault))
        return FAULTED;
    VI_COUNT(reader->counters.descriptors);
    if (table->big_endian) {
        old = __builtin_bswap64(old);
        replacement = __builtin_bswap64(replacement);
    }
    int swapped = vi_swap64(reader, pa, old, replacement);
    if (swapped >= 0)
        return swapped ? REPLACED : LOST;
    descriptor_aborted(fault, at, pa, level, table->stage);
    return FAULTED;
}

/* ---- walks --------------------------------------------------------------------------------------------------------- */

static inline uint64_t output_of(const struct vi_table *table, uint64_t descriptor)
{
    uint64_t output = descriptor & VI_S1LeafDescriptor_OA & (~UINT64_C(0) << table->granule_bits);
    if (VI_UNLIKELY(table->wide != VI_NARROW)) {
        if (table->wide == VI_WIDE_64K)
            output |= S1LeafDescriptor_OA_51_48(descriptor) << 48;
        else
            output |= S1LeafDescriptor_OA_49_48(descriptor) << 48 | S1LeafDescriptor_OA_51_50(descriptor) << 50;
    }
    return output;
}

enum walked { FOUND, AGAIN, FAILED };

/* One walk; AGAIN: an update lost its race. Bounded by the levels, whatever is in memory. */
VI_HOT enum walked walk_once(struct vi_reader *reader, nested by, struct vi_lane *lane, const struct vi_table *table,
                                    uint64_t address, struct vi_leaf *leaf, struct vi_fault *fault)
{
    unsigned stride = table->granule_bits - 3u, shift = table->start_shift;
    int level = table->start_level;
    uint64_t base = table->base, mask = table->start_mask, hierarchy = 0;
    for (;; level++, shift -= stride, mask = table->within - 7) {
        uint64_t at = base + (address >> (shift - 3) & mask), descriptor;
        if (VI_UNLIKELY(!fetch(reader, by, lane, table, at, level, &descriptor, fault)))
            return FAILED;
        /* What nearly every descriptor is: what follows comes to the same for it. */
        if (VI_LIKELY(table->plain && (descriptor & table->tested) == 3)) {
            if (level < 3) {
                hierarchy |= descriptor;
                base = descriptor & table->address;
                continue;
            }
            if (VI_LIKELY(descriptor & AF)) {
                found_page(reader, table, table->stage, page_key(address, table->granule_bits), descriptor,
                           at - vi_index_times_8(address, shift, table->granule_bits), hierarchy, leaf);
                return FOUND;
            }
        }
        if (VI_UNLIKELY(!(descriptor & 1)))
            return failed(fault, VI_TRANSLATION, level, table->stage), FAILED;
        uint64_t output = output_of(table, descriptor);
        if (level < 3 && (descriptor & 2)) {
            if (VI_UNLIKELY(output >> table->output_bits))
                return failed(fault, VI_ADDR_SIZE, level, table->stage), FAILED;
            if (VI_UNLIKELY(table->update_tables && !(descriptor & VI_TableDescriptor_AF))) {
                enum updated how =
                    update(reader, by, table, at, level, descriptor, descriptor | VI_TableDescriptor_AF, fault);
                if (how != REPLACED)
                    return how == LOST ? AGAIN : FAILED;
            }
            hierarchy |= descriptor;
            base = output;
            continue;
        }
        if (VI_UNLIKELY(!!(descriptor & 2) != (level == 3) || level < table->first_block_level))
            return failed(fault, VI_TRANSLATION, level, table->stage), FAILED;
        output &= ~UINT64_C(0) << shift;
        if (VI_UNLIKELY(output >> table->output_bits))
            return failed(fault, VI_ADDR_SIZE, level, table->stage), FAILED;
        if (VI_UNLIKELY(!(descriptor & AF))) {
            if (table->update_access) {
                enum updated how = update(reader, by, table, at, level, descriptor, descriptor | AF, fault);
                if (how != REPLACED)
                    return how == LOST ? AGAIN : FAILED;
                descriptor |= AF;
            } else if (table->access_fault) {
                return failed(fault, VI_ACCESS, level, table->stage), FAILED;
            }
        }
        leaf->base = (address & ~UINT64_C(0) << shift) | shift;
        leaf->tag = leaf_attributes(table, descriptor, hierarchy, level);
        leaf->output = output;
        leaf->descriptor = descriptor;
        leaf->table = at - vi_index_times_8(address, shift, table->granule_bits);
        return FOUND;
    }
}

/* `reads` is a lane for reads of stage 1's tables, if there is one already. */
VI_HOT bool walk(struct vi_reader *reader, nested by, struct vi_lane *reads, const struct vi_table *table, uint64_t address,
                 struct vi_leaf *leaf, struct vi_fault *fault)
{
    VI_COUNT(reader->counters.walks);
    if (!by && table->plain && VI_LIKELY(walk_anywhere(reader, table, address, leaf))) {
        VI_ADD(reader->counters.descriptors, table->levels);
        return true;
    }
    struct vi_lane own, *lane = NULL;
    if (by && !by->s2_protected_walks) {
        lane = reads ? reads : &own;
        if (reads)
            vi_lane_refresh(reads);
        else
            vi_lane_begin(&own, reader, reader->core->tlb2, by->s2_space, by->s2_need[VI_PRIVILEGED], 0);
    }
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        enum walked how = walk_once(reader, by, lane, table, address, leaf, fault);
        if (VI_LIKELY(how != AGAIN))
            return how == FOUND;
    }
    return failed(fault, VI_TRANSLATION, 0, table->stage);
}

/* Make a clean leaf writable, in its descriptor too. */
static enum updated mark_dirty(struct vi_reader *reader, nested by, const struct vi_table *table, struct vi_leaf *leaf,
                               struct vi_fault *fault)
{
    uint64_t old = leaf->descriptor;
    uint64_t marked = (table->stage == 1 ? old & ~AP_READ_ONLY : old | S2_WRITE) | AF;
    enum updated how =
        update(reader, by, table, vi_leaf_at(leaf), vi_leaf_level(leaf), old, marked, fault);
    if (how == REPLACED) {
        leaf->descriptor = marked;
        leaf->tag = (leaf->tag & ~(uint64_t)VI_CLEAN) | VI_WRITABLE;
    }
    return how;
}

/* ---- permissions (Arm ARM D8.4) ------------------------------------------------------------------------------------- */

static inline bool permitted1(unsigned leaf, const struct vi_context *c, unsigned access)
{
    bool writable = leaf & (VI_WRITABLE | VI_CLEAN), user = leaf & VI_USER, uxn = leaf & VI_UXN;
    bool write = access & VI_WRITE;
    if (VI_UNLIKELY(access & VI_INSTRUCTION)) {
        if (!c->unprivileged)
            return !(uxn || (c->wxn && writable));
        if (access & VI_PRIVILEGED)
            return !((leaf & VI_PXN) || (c->xn_for_all && uxn) || (c->wxn && writable) ||
                     (c->uwxn && user && writable));
        return (user || !c->execute_needs_read) && !(uxn || (c->wxn && user && writable));
    }
    if (!c->unprivileged)
        return writable || !write;
    if (access & VI_PRIVILEGED)
        return !(c->pan && (user || (c->epan && !uxn))) && (writable || !write);
    return user && (writable || !write);
}

static inline bool permitted2(const struct vi_leaf *leaf, const struct vi_context *c, unsigned access)
{
    if (VI_UNLIKELY(access & VI_INSTRUCTION)) {
        if (c->s2_execute_needs_read && !(leaf->tag & VI_READABLE))
            return false;
        if (!c->s2_two_bit_xn)
            return !(leaf->tag & VI_UXN); /* XN[1] */
        return !(leaf->tag & (access & VI_PRIVILEGED ? VI_PXN : VI_UXN));
    }
    return leaf->tag & (access & VI_WRITE ? VI_WRITABLE | VI_CLEAN : VI_READABLE);
}

/* ---- stages --------------------------------------------------------------------------------------------------------- */

/* Whether stage 2 alone makes the page Device memory: MemAttr[3:2] is 0; with FWB, MemAttr[2] is 0 as well. */
static bool is_device(const struct vi_leaf *leaf, const struct vi_context *context)
{
    unsigned memattr = leaf->tag >> VI_LEAF_ATTRIBUTES & 0xF;
    return context->s2_forced_writeback ? !(memattr & 4) : !(memattr >> 2);
}

/* Put a leaf into a space whose state was `state`, in place of an entry of its page unless it is `fresh`. */
VI_HOT void keep(struct vi_reader *reader, unsigned stage, struct vi_space *space, uint64_t state, struct vi_leaf *leaf,
                bool fresh)
{
    struct vi_core *core = reader->core;
    if (VI_UNLIKELY(vi_watch_of(reader)) && !vi_tell_fill(reader, stage, space, leaf))
        return;
    (fresh ? vi_tlb_put : vi_tlb_replace)(core, stage == 1 ? core->tlb1 : core->tlb2, space, state, leaf);
}

static inline bool stage2_found(struct vi_reader *reader, const struct vi_context *c, uint64_t ipa, unsigned access,
                                enum vi_cause cause, bool missed, struct vi_leaf *leaf, struct vi_fault *fault)
{
    const struct vi_table *table = &c->s2;
    if (VI_UNLIKELY(ipa >> table->input_bits))
        return failed(fault, VI_TRANSLATION, table->start_level, 2);
    struct vi_core *core = reader->core;
    uint64_t state = atomic_load_explicit(&c->s2_space->state, memory_order_acquire);
    bool have = !missed && vi_tlb_find(core->tlb2, state, ipa, leaf);
    if (have)
        VI_COUNT(reader->counters.tlb2_hits);
    else
        VI_COUNT(reader->counters.tlb2_misses);
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        if (!have) {
            if (!walk(reader, NULL, NULL, table, ipa, leaf, fault))
                return false;
            keep(reader, 2, c->s2_space, state, leaf, !tries);
        }
        bool protected_walk = cause != VI_CAUSE_IN && c->s2_protected_walks && is_device(leaf, c);
        if (VI_UNLIKELY(protected_walk || !permitted2(leaf, c, access)))
            return failed(fault, VI_PERMISSION, vi_leaf_level(leaf), 2);
        if (VI_LIKELY(!((access & VI_WRITE) && (leaf->tag & VI_CLEAN))))
            return true;
        enum updated how = mark_dirty(reader, NULL, table, leaf, fault);
        if (how == FAULTED)
            return false;
        have = how == REPLACED;
        if (have)
            keep(reader, 2, c->s2_space, state, leaf, false);
    }
    return failed(fault, VI_PERMISSION, 0, 2);
}

static bool stage2(struct vi_reader *reader, const struct vi_context *context, uint64_t ipa, unsigned access,
                   enum vi_cause cause, bool missed, struct vi_leaf *leaf, struct vi_fault *fault)
{
    if (VI_LIKELY(stage2_found(reader, context, ipa, access, cause, missed, leaf, fault)))
        return true;
    fault->stage = 2;
    fault->cause = (uint8_t)cause;
    fault->ipa = ipa;
    fault->table_write = cause == VI_CAUSE_TT && (access & VI_WRITE);
    return false;
}

/* Which TTB translates a 32-bit VA (Arm ARM G5.7.1), enabled or not; -1: it is outside of both ranges. */
static int select32(const struct vi_context *c, uint64_t address)
{
    if (address >> 32)
        return -1;
    bool in_low = !(address >> (32 - c->t0sz));
    bool in_high = c->t1sz ? address >> (32 - c->t1sz) == (UINT64_C(1) << c->t1sz) - 1 : !in_low;
    return in_high ? 1 : in_low ? 0 : -1;
}

/* Where the walk of an address begins, and the address as its TLB entries have it; NULL: nothing translates it. */
static inline const struct vi_table *half_of(const struct vi_context *c, uint64_t *address, unsigned access)
{
    int high = VI_UNLIKELY(c->aarch32) ? select32(c, *address) : (int)(*address >> 55 & 1);
    if (VI_UNLIKELY(high < 0 || !c->half[high].enabled))
        return NULL;
    const struct vi_table *half = &c->half[high];
    if (VI_UNLIKELY(half->no_unprivileged && !(access & VI_PRIVILEGED)))
        return NULL;
    if (VI_UNLIKELY(c->aarch32))
        return half;
    if (half->top_byte_ignored)
        *address = (uint64_t)((int64_t)(*address << 8) >> 8); /* bit 55 is the sign */
    uint64_t rest = *address >> half->input_bits;
    return VI_LIKELY(rest == (high ? ~UINT64_C(0) >> half->input_bits : 0)) ? half : NULL;
}

/* `missed`: after a miss of the course's lane, in whose range the address is. */
static inline bool stage1(struct vi_reader *reader, struct vi_course *course, const struct vi_context *c, uint64_t *address,
                          unsigned access, bool missed, struct vi_leaf *leaf, struct vi_fault *fault)
{
    const struct vi_table *half = missed ? &c->half[*address >> 55 & 1] : half_of(c, address, access);
    if (VI_UNLIKELY(!half))
        return failed(fault, VI_TRANSLATION, 0, 1);
    struct vi_core *core = reader->core;
    uint64_t own = atomic_load_explicit(&c->own->state, memory_order_acquire);
    uint64_t global = atomic_load_explicit(&c->global->state, memory_order_acquire);
    bool have = !missed && (vi_tlb_find(core->tlb1, own, *address, leaf) ||
                            vi_tlb_find(core->tlb1, global, *address, leaf));
    if (have)
        VI_COUNT(reader->counters.tlb_hits);
    else
        VI_COUNT(reader->counters.tlb_misses);
    nested by = c->stage2 ? c : NULL;
    bool fresh = !have;
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        bool put = !have;
        if (!have && !(by ? walk(reader, by, course ? &course->reads : NULL, half, *address, leaf, fault)
                          : walk(reader, NULL, NULL, half, *address, leaf, fault)))
            return false;
        if (VI_LIKELY(missed && fresh && c->unprivileged && vi_leaf_shift(leaf) == course->lane1.shift) &&
            keep_quickly(reader, &course->lane1, leaf))
            return true;
        for (;;) {
            if (put) {
                bool of_asid = (leaf->tag & VI_NOT_GLOBAL) && c->unprivileged;
                keep(reader, 1, of_asid ? c->own : c->global, of_asid ? own : global, leaf, fresh);
                fresh = false;
            }
            if (VI_UNLIKELY(!permitted1((unsigned)leaf->tag, c, access)))
                return failed(fault, VI_PERMISSION, vi_leaf_level(leaf), 1);
            if (VI_LIKELY(!((access & VI_WRITE) && (leaf->tag & VI_CLEAN))))
                return true;
            enum updated how = mark_dirty(reader, by, half, leaf, fault);
            if (how == FAULTED)
                return false;
            have = put = how == REPLACED;
            if (!have)
                break;
        }
    }
    return failed(fault, VI_PERMISSION, 0, 1);
}

static void quicken_table(struct vi_table *t, const struct vi_context *c, bool high)
{
    t->beyond = t->input_bits >= 64 ? 0 : ~UINT64_C(0) << t->input_bits;
    t->above = high ? t->beyond : 0;
    /* Only the start level can be longer (concatenated) or shorter than a granule; bits above it are zero. */
    t->start_shift = (uint8_t)(t->granule_bits + (t->granule_bits - 3) * (3 - t->start_level));
    t->start_mask = ~t->beyond >> t->start_shift << 3;
    t->within = (UINT64_C(1) << t->granule_bits) - 1;
    t->address = VI_S1LeafDescriptor_OA & (~UINT64_C(0) << t->granule_bits);
    t->too_high = t->output_bits >= 64 ? 0 : t->address & (~UINT64_C(0) << t->output_bits);
    t->tested = t->too_high | 3;
    t->tested_page = t->tested | AF;
    t->hierarchy = t->hierarchical ? VI_TableDescriptor_APTable | VI_TableDescriptor_UXNTable | VI_TableDescriptor_PXNTable
                                   : 0;
    t->plain = t->wide == VI_NARROW && !t->big_endian && !t->update_tables && t->start_level >= 0 &&
               t->output_bits <= c->output_bits && !(t->base >> c->output_bits);
    t->plain_bits = t->plain ? t->granule_bits : 0;
    t->levels = (uint8_t)(4 - t->start_level);
    t->quick_bits = t->plain_bits == 12 && t->levels > 1 ? t->plain_bits : 0;
    t->start_times_8 = (uint8_t)(t->start_shift - 3);
    t->telling = VI_S1LeafDescriptor_SH | VI_S2LeafDescriptor_MemAttr | VI_S2LeafDescriptor_S2AP | VI_S1LeafDescriptor_nG |
                 VI_S2LeafDescriptor_XN | DBM;
    t->constant = (t->stage == 1 ? VI_READABLE : VI_USER | VI_NOT_GLOBAL) |
                  (t->granule_bits - 12u) / 2 << VI_LEAF_GRANULE;
    for (unsigned n = 0; n < 16; n++) {
        unsigned inner = t->stage == 1 ? from_mair(t->mair >> (8 * (n & 7)) & 0xFF, 0) : from_memattr(n, 0);
        unsigned outer = t->stage == 1 ? from_mair(t->mair >> (8 * (n & 7)) & 0xFF, OUTER) : from_memattr(n, OUTER);
        t->kind[n] = (uint8_t)(inner == outer ? outer : (inner & 0xF) | VI_SH_COUNTS);
    }
}

void vi_quicken(struct vi_context *c)
{
    c->quick = c->stage1 && !c->aarch32;
    for (unsigned high = 0; high < 2; high++) {
        struct vi_table *half = &c->half[high];
        if (half->enabled)
            quicken_table(half, c, high);
        if (half->no_unprivileged || half->top_byte_ignored)
            c->quick = false;
        if (c->aarch32) {
            half->plain = false;
            half->plain_bits = half->quick_bits = 0;
        }
    }
    for (unsigned high = 0; high < 2; high++)
        if (!c->quick || !c->half[high].enabled) { /* no address has these bits so */
            c->half[high].beyond = 0;
            c->half[high].above = 1;
        }
    c->alone = c->quick && c->unprivileged && !c->stage2;
    for (unsigned high = 0; high < 2; high++)
        if (!c->alone)
            c->half[high].plain_bits = c->half[high].quick_bits = 0;
    if (c->stage2)
        quicken_table(&c->s2, c, false);
    for (unsigned access = 0; access < 8; access++) {
        bool write = access & VI_WRITE, data = !(access & VI_INSTRUCTION);
        bool unprivileged = c->unprivileged && !(access & VI_PRIVILEGED);
        c->need[access] =
            (uint8_t)(VI_NOT_GLOBAL | (write ? VI_WRITABLE : 0) | (unprivileged ? VI_USER : 0) | (data ? 0 : VI_NEVER));
        c->forbid[access] = c->unprivileged && !unprivileged && c->pan ? VI_USER | (c->epan ? VI_NEVER : 0) : 0;
        if (c->forbid[access] & VI_NEVER)
            c->need[access] |= VI_NEVER;
        c->s2_need[access] = (uint8_t)((write ? VI_WRITABLE : VI_READABLE) | (data ? 0 : VI_NEVER));
    }
}

inline __attribute__((always_inline)) struct vi_walked vi_walk_quickly(struct vi_reader *reader, struct vi_lane *lane,
                                                                       const struct vi_table *half, uint64_t address)
{
    struct vi_leaf leaf;
    if (VI_UNLIKELY(!fill_quickly(reader, lane, half, 1, address, &leaf)))
        return (struct vi_walked){.tag = 0};
    VI_COUNT(reader->counters.tlb_misses);
    return (struct vi_walked){leaf.output | (address & half->within), leaf.tag};
}

/* ---- many pages at once ---------------------------------------------------------------------------------------------- */

/* Whether the entry has these bits and is of the page for which `check` is vi_check's with output 0: of no other, then. */
VI_HOT bool is_page(const struct vi_entry *entry, uint64_t bits, uint64_t check, uint64_t *output)
{
    *output = VI_GET(entry->output);
    return VI_GET(entry->tag) == bits && VI_GET(entry->check) == (check ^ *output);
}

/* Whether a context that is quick translates all addresses between, quickly. */
static bool is_quick(const struct vi_context *context, uint64_t first, uint64_t last)
{
    const struct vi_table *half = &context->half[first >> 55 & 1];
    return VI_LIKELY((first & half->beyond) == half->above && (last & half->beyond) == half->above && first <= last);
}

unsigned vi_pages_behind(struct vi_course *course, uint64_t address, unsigned count, uint64_t *pa, uint64_t *tag)
{
    struct vi_lane *lane = &course->lane1;
    const uint64_t mask = course->mask;
    unsigned group = address >> lane->shift & 3, at = 0;
    const struct vi_entry *entry = lane->entry + (group ? 1 : 5); /* four are in a set, the next in the next */
    const uint64_t bits = VI_GET(entry->tag), size = lane->within + 1, step = size * VI_CHECK_FACTOR;
    if (VI_UNLIKELY((bits & lane->tested) != lane->need || !is_quick(course->context, address, address + (count - 1) * size)))
        return 0;
    *tag = bits;
    uint64_t check = vi_check(address | lane->shift, bits, 0), output;
    while (at < count) {
        if (VI_LIKELY(!group && count - at >= 4)) {
#pragma GCC unroll 4
            for (; group < 4; group++, check += step) {
                if (VI_UNLIKELY(!is_page(&entry[group], bits, check, &output)))
                    break;
                pa[at + group] = output & mask;
            }
            at += group;
            entry += group == 4 ? VI_WAYS : group;
            if (VI_UNLIKELY(group < 4))
                break;
            group = 0;
        } else {
            if (VI_UNLIKELY(!is_page(entry, bits, check, &output)))
                break;
            pa[at++] = output & mask;
            check += step;
            group = (group + 1) & 3;
            entry += group ? 1 : 5;
        }
    }
    if (at)
        lane->entry = entry - (group ? 1 : 5);
    return at;
}

/* Whether one of four neighbours' pages, the first of which has this key and hash, may be in the ways that are told. */
static __attribute__((noinline)) bool one_is_there(const struct vi_entry *set, uint64_t ways, uint64_t key)
{
    for (; ways; ways &= ways - 1)
        if (!((VI_GET(vi_way_of(set, ways)->base) ^ key) & ~(3 * PAGE)))
            return true;
    return false;
}

/* Four ways beside each other for such pages, as the offset of the first; -1: there are none, or a page is there already. */
VI_HOT int64_t four_ways(const struct vi_lane *lane, uint64_t set, uint64_t key, uint64_t hash)
{
    enum { HALF = sizeof(struct vi_entry[VI_HALF]) };
    struct vi_hints *hints = vi_hints_at(lane->tlb, set);
    uint64_t taken = VI_GET(hints->ways), free = ~taken & VI_EACH_BYTE;
    uint64_t ways = vi_zero_bytes((taken ^ (hash >> 56) * VI_EACH_BYTE) & VI_EACH_BYTE * 0xF8);
    if (VI_UNLIKELY(ways && one_is_there(vi_entries_at(lane->tlb, set), ways, key)))
        return -1;
    if (VI_UNLIKELY(free)) {
        bool high = (uint32_t)taken;
        if (high && taken >> 32)
            return -1;
        VI_PUT(hints->owner[high], vi_owner(lane->place, 0)); /* no entry there counts */
        return high ? HALF : 0;
    }
    uint64_t half = VI_GET(hints->oldest) & HALF;
    VI_PUT(hints->oldest, half ^ HALF);
    return (int64_t)half;
}

/* Account for four entries beside each other that are overwritten by such of the lane's space; returns how many were that. */
static __attribute__((noinline)) unsigned overwritten(const struct vi_core *core, const struct vi_lane *lane,
                                                      const struct vi_entry *entry)
{
    unsigned stayed = 0;
    for (unsigned each = 0; each < VI_HALF; each++) {
        uint64_t tag = VI_GET(entry[each].tag);
        if (tag >> 32 == lane->tag >> 32)
            stayed++;
        else if (tag)
            vi_tlb_evict(core, lane->tlb, &entry[each]);
    }
    return stayed;
}

/*
 * At most `count` pages, whose descriptors are at `from`, as vi_look_ahead says, and *stayed: in how many ways were entries
 * of the space.
 */
VI_HOT unsigned walk_beside_all(const struct vi_core *core, struct vi_lane *lane, const struct vi_table *table,
                                uint64_t address, unsigned count, const _Atomic uint64_t *from, uint64_t mask,
                                uint64_t *pa, unsigned *stayed)
{
    const struct vi_tlb *tlb = lane->tlb;
    const uint64_t tag = lane->tag_like, owner = vi_owner(lane->place, lane->tag), step = PAGE * VI_CHECK_FACTOR;
    const uint64_t like = lane->like, tested = likeness(table) | ~mask;
    uint64_t key = address | 12, sum = vi_check(key, tag, 0);
    const vi_pair alike = vi_pair_of(like, like), tests = vi_pair_of(tested, tested);
    /* The words of an entry, two by two, but for its output, and what is added to them from one to the next. */
    const vi_pair whose = vi_pair_of(tag, lane->place), rest = vi_pair_of(like, lane->descriptors);
    vi_pair page = vi_pair_of(key, vi_cold_check(like, lane->descriptors, sum)), check = vi_pair_of(0, sum);
    const vi_pair next_page = vi_pair_of(PAGE, step), next_check = vi_pair_of(0, step);
    for (unsigned done = 0; done < count; done += VI_HALF) {
        vi_pair output[VI_HALF / 2] = {vi_get_pair(from) ^ alike, vi_get_pair(from + 2) ^ alike};
        vi_pair other = (output[0] | output[1]) & tests;
        if (VI_UNLIKELY(other[0] | other[1]))
            return done;
        uint64_t hash = vi_hash(key >> 12, lane->salt);
        uint64_t set = vi_set_at(tlb, hash);
        struct vi_hints *hints = vi_hints_at(tlb, set);
        int64_t half = four_ways(lane, set, key, hash);
        if (VI_UNLIKELY(half < 0))
            return done;
        struct vi_entry *entry = (struct vi_entry *)(void *)((char *)vi_entries_at(tlb, set) + half);
        _Atomic uint64_t *was = &hints->owner[half / (int64_t)sizeof(struct vi_entry[VI_HALF])];
        if (VI_GET(*was) == owner) /* one with this place and another tag is of entries that do not count */
            *stayed += VI_HALF;
        else if (VI_UNLIKELY((uint32_t)VI_GET(*was) != (uint32_t)owner))
            *stayed += overwritten(core, lane, entry);
        memcpy(pa, output, sizeof output);
#pragma GCC unroll 4
        for (unsigned each = 0; each < VI_HALF; each++) {
            uint64_t mine = output[each / 2][each % 2];
            vi_put_pair(&entry[each].base, page);
            vi_put_pair(&entry[each].tag, whose);
            vi_put_pair(&entry[each].output, vi_pair_of(mine, mine) ^ check);
            vi_put_pair(&entry[each].rest, rest);
            page += next_page;
            check += next_check;
        }
        vi_set_four_hints(hints, (unsigned)(half / (int64_t)sizeof *entry), hash);
        VI_PUT(*was, owner);
        lane->entry = &entry[VI_HALF - 1];
        key += VI_HALF * PAGE;
        from += VI_HALF;
        pa += VI_HALF;
    }
    return count;
}

/* What walk_beside_all has put, for which there is room. */
static __attribute__((noinline)) void tell_pages(struct vi_reader *reader, const struct vi_lane *lane,
                                                 uint64_t address, const uint64_t *pa, unsigned count)
{
    for (unsigned each = 0; each < count; each++, address += PAGE) {
        struct vi_leaf leaf = {
            .base = address | lane->shift, .tag = lane->tag_like, .output = pa[each], .descriptor = pa[each] | lane->like, .table = lane->descriptors};
        vi_tell_fill(reader, 1, lane->space, &leaf);
    }
}

static unsigned walk_ahead(struct vi_reader *reader, struct vi_course *course, uint64_t address, unsigned count)
{
    struct vi_lane *lane = &course->lane1;
    const struct vi_context *context = course->context;
    uint64_t index = vi_index_times_8(address, 12, 12);
    if (address >> 12 & 3 || address >> 21 != lane->region || !lane->like || lane->others)
        return 0;
    if (count > (PAGE - index) / 8)
        count = (unsigned)(PAGE - index) / 8;
    if (count > lane->tlb->most_ahead)
        count = lane->tlb->most_ahead;
    count &= ~3u;
    const _Atomic uint64_t *from = (const _Atomic uint64_t *)(const void *)(lane->beside + index);
    if (VI_UNLIKELY(!count || !is_quick(context, address, address + (count - 1) * PAGE) ||
                    (uint32_t)atomic_load_explicit(&context->global->state, memory_order_acquire)))
        return 0;
    if (VI_UNLIKELY(vi_watch_of(reader)) && !vi_get_room_for(reader, count))
        return 0;
    unsigned stayed = 0, found = walk_beside_all(reader->core, lane, &context->half[address >> 55 & 1], address, count,
                                                 from, course->mask, course->ahead.pa, &stayed);
    if (VI_UNLIKELY(vi_watch_of(reader)))
        tell_pages(reader, lane, address, course->ahead.pa, found);
    course->ahead.tag = lane->tag_like;
    VI_ADD(lane->tlb->evictions, stayed);
    VI_PUT(lane->space->entries, VI_GET(lane->space->entries) + found - stayed);
    VI_ADD(reader->counters.walks, found);
    VI_ADD(reader->counters.descriptors, found * context->half[address >> 55 & 1].levels);
    VI_ADD(reader->counters.tlb_misses, found);
    return found;
}

bool vi_look_ahead(struct vi_reader *reader, struct vi_course *course, uint64_t address, uint64_t left)
{
    struct vi_ahead *ahead = &course->ahead;
    uint64_t pages = (left + course->lane1.within) >> course->lane1.shift;
    unsigned count = pages < VI_MOST_AHEAD ? (unsigned)pages : VI_MOST_AHEAD;
    unsigned found = vi_pages_behind(course, address, count, ahead->pa, &ahead->tag);
    if (found)
        VI_ADD(reader->counters.tlb_hits, found);
    else
        found = walk_ahead(reader, course, address, count);
    VI_ADD(reader->counters.translations, found);
    ahead->size = course->lane1.within + 1;
    ahead->next = ahead->pa;
    ahead->end = ahead->pa + found;
    return found;
}

static inline bool find_place(struct vi_reader *reader, struct vi_course *course, const struct vi_context *c,
                              uint64_t address, unsigned access, bool missed, struct vi_place *place,
                              struct vi_fault *fault)
{
    uint64_t mask = reader->setup->output_mask;
    place->stage1.tag = place->stage2.tag = 0;
    if (!c->quick)
        course = NULL;
    if (VI_LIKELY(c->stage1)) {
        if (!stage1(reader, course, c, &address, access, missed, &place->stage1, fault))
            return false;
        place->size = leaf_left(&place->stage1, address);
        address = leaf_output(&place->stage1, address);
        if (course)
            vi_lane_refresh(&course->lane1);
    } else {
        /* A bypassed stage 1 still checks the size. */
        if (address >> c->bypass_bits)
            return failed(fault, VI_ADDR_SIZE, 0, 1);
        place->size = (UINT64_C(1) << c->bypass_bits) - address;
        if (!c->stage2)
            place->size = mask + 1 - (address & mask);
    }
    if (c->stage2) {
        struct translated to;
        if (course) {
            vi_lane_refresh(&course->lane2); /* what stage 1's descriptors needed is there, too */
            if (!through_stage2(reader, c, &course->lane2, address, access, VI_CAUSE_IN, &to, fault))
                return false;
            place->stage2.tag = to.tag;
        } else {
            if (!stage2(reader, c, address, access, VI_CAUSE_IN, false, &place->stage2, fault))
                return false;
            to.output = leaf_output(&place->stage2, address);
            to.size = leaf_left(&place->stage2, address);
        }
        if (to.size < place->size)
            place->size = to.size;
        address = to.output;
    }
    place->pa = address & mask;
    return true;
}

bool vi_place(struct vi_reader *reader, struct vi_course *course, const struct vi_context *c, uint64_t address,
              unsigned access, bool missed, struct vi_place *place, struct vi_fault *fault)
{
    uint64_t before = VI_GET(reader->counters.walks);
    bool found = find_place(reader, course, c, address, access, missed, place, fault);
    uint64_t walks = VI_GET(reader->counters.walks) - before;
    if (walks > 1)
        VI_ADD(reader->counters.walks_more, walks - 1);
    return found;
}

/* ---- for callers outside of the core -------------------------------------------------------------------------------- */

struct vi_leaf vi_pack(const struct vi_mapping *mapping)
{
    return (struct vi_leaf){
        .base = mapping->base | mapping->shift,
        .tag = mapping->flags | (uint64_t)mapping->attributes << VI_LEAF_ATTRIBUTES |
               (uint64_t)mapping->shareability << VI_LEAF_SHAREABILITY |
               (uint64_t)mapping->memory << VI_LEAF_MEMORY | (uint64_t)(mapping->level + 1) << VI_LEAF_LEVEL |
               (uint64_t)(mapping->granule_bits - 12) / 2 << VI_LEAF_GRANULE,
        .output = mapping->output,
        .descriptor = mapping->descriptor,
        .table = mapping->descriptor_at - vi_index_times_8(mapping->base, mapping->shift, mapping->granule_bits),
    };
}

void vi_unpack(const struct vi_leaf *leaf, struct vi_mapping *mapping)
{
    *mapping = (struct vi_mapping){
        .base = vi_leaf_base(leaf),
        .output = leaf->output,
        .descriptor = leaf->descriptor,
        .descriptor_at = vi_leaf_at(leaf),
        .shift = (uint8_t)vi_leaf_shift(leaf),
        .granule_bits = (uint8_t)vi_leaf_granule(leaf),
        .level = (int8_t)vi_leaf_level(leaf),
        .attributes = leaf->tag >> VI_LEAF_ATTRIBUTES & 0xF,
        .shareability = leaf->tag >> VI_LEAF_SHAREABILITY & 3,
        .memory = (vi_memory_type)leaf_memory(leaf),
        .flags = (uint8_t)leaf->tag,
    };
}

struct vi_fault vi_translate(struct vi_reader *reader, const struct vi_context *context, uint64_t address,
                             unsigned access, vi_memory_type incoming, struct vi_output *output)
{
    struct vi_place place;
    struct vi_fault fault;
    bool found = vi_place(reader, NULL, context, address, access, false, &place, &fault);
    if (VI_UNLIKELY(vi_watch_of(reader)))
        vi_told_all(reader);
    if (!found)
        return fault;
    *output = (struct vi_output){
        .pa = place.pa,
        .size = place.size,
        .has1 = context->stage1,
        .has2 = context->stage2,
        .memory = vi_memory_of(context, &place, incoming),
    };
    if (context->stage1)
        vi_unpack(&place.stage1, &output->stage1);
    if (context->stage2)
        vi_unpack(&place.stage2, &output->stage2);
    return (struct vi_fault){.kind = VI_NO_FAULT};
}

int vi_read_ipa(struct vi_reader *reader, const struct vi_context *context, uint64_t ipa, void *to, uint32_t size,
                uint64_t *pa, struct vi_fault *fault)
{
    struct vi_leaf leaf;
    uint64_t before = VI_GET(reader->counters.walks);
    bool found = stage2(reader, context, ipa, VI_PRIVILEGED, VI_CAUSE_CD, false, &leaf, fault);
    VI_ADD(reader->counters.walks_more, VI_GET(reader->counters.walks) - before); /* no translation's */
    if (VI_UNLIKELY(vi_watch_of(reader)))
        vi_told_all(reader);
    if (!found)
        return 0;
    *pa = leaf_output(&leaf, ipa) & reader->setup->output_mask;
    return vi_read(reader, *pa, to, size) ? 1 : -1;
}
