/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two TLBs: sets of eight entries, read and filled without locks.
 *
 * An entry is a few 64-bit words and two check words over them, one over what a hit reads and one over all: each is read
 * and written by itself, and an entry that does not check (two writers met) is a miss. Its key is its page and the tag of its space, so all entries of a space go at
 * once when the space gets another tag; they are overwritten when room is needed.
 */
#ifndef VI_TLB_H
#define VI_TLB_H

#include "internal.h"

#define VI_WAYS 8

/* A leaf, packed. */
struct vi_leaf {
    uint64_t base;  /* | log2 of its bytes */
    uint64_t tag;   /* tag of its space << 32 | attributes, VI_LEAF_… */
    uint64_t output;
    uint64_t descriptor, descriptor_at;
    uint64_t space; /* its place in the pool of spaces */
};
#define VI_LEAF_SHIFT_MASK 0xFFF
/* In the low half of `tag`: VI_READABLE … in [6:0], and */
#define VI_LEAF_ATTRIBUTES 8   /* four bits */
#define VI_LEAF_SHAREABILITY 12 /* two */
#define VI_LEAF_MEMORY 16      /* six */
#define VI_LEAF_LEVEL 24       /* three: level + 1 */
#define VI_LEAF_GRANULE 28     /* two: 0 4K, 1 16K, 2 64K */

static inline unsigned vi_leaf_shift(const struct vi_leaf *leaf) { return leaf->base & VI_LEAF_SHIFT_MASK; }
static inline uint64_t vi_leaf_base(const struct vi_leaf *leaf) { return leaf->base & ~(uint64_t)VI_LEAF_SHIFT_MASK; }
static inline int vi_leaf_level(const struct vi_leaf *leaf) { return (int)(leaf->tag >> VI_LEAF_LEVEL & 7) - 1; }
static inline unsigned vi_leaf_granule(const struct vi_leaf *leaf) { return 12 + 2 * (leaf->tag >> VI_LEAF_GRANULE & 3); }

struct vi_entry {
    _Alignas(64) _Atomic uint64_t check; /* of base, tag and output */
    _Atomic uint64_t base, tag, output, descriptor, descriptor_at, space;
    _Atomic uint64_t check_all;
};

struct vi_set {
    /* A byte for each way, of the key's hash; 0: free. Where two writers meet, a byte may be older than its entry. */
    _Alignas(64) _Atomic uint64_t prints;
    _Atomic uint32_t victim;
    _Atomic uint32_t scanned; /* `emptied` of the TLB when all entries of this full set counted */
    struct vi_entry entry[VI_WAYS];
};

struct vi_tlb {
    uint32_t sets; /* a power of two, 2^(63 - index_shift) */
    unsigned index_shift;
    struct vi_set *set;
    _Atomic uint32_t emptied; /* how often a space got another tag, so that its entries do not count any more */
    _Atomic uint64_t evictions, invalidated;
};

#define VI_MIX_1 UINT64_C(0x9E3779B97F4A7C15)
#define VI_MIX_2 UINT64_C(0xD6E8FEB86659FD93)

/* No words of two entries have the check of a third but by accident; words that are all zero do not have 0. */
static inline uint64_t vi_check(uint64_t base, uint64_t tag, uint64_t output)
{
    return ~((base * VI_MIX_1 ^ tag) * VI_MIX_2 ^ output);
}
static inline uint64_t vi_check_all(uint64_t check, const struct vi_leaf *l)
{
    return vi_check(l->descriptor, l->descriptor_at, l->space) * VI_MIX_1 ^ check;
}

static inline uint64_t vi_hash(uint64_t page, unsigned shift, uint32_t tag)
{
    return (page ^ (uint64_t)tag << 32 ^ (uint64_t)shift << 26) * VI_MIX_1;
}
static inline struct vi_set *vi_set_of(const struct vi_tlb *tlb, uint64_t hash)
{
    return &tlb->set[hash >> 1 >> tlb->index_shift]; /* 64 - shift bits, of which there may be none */
}
static inline uint8_t vi_print(uint64_t hash)
{
    uint8_t print = (uint8_t)(hash >> 32);
    return print ? print : 1;
}

/* The ways whose print is this, bit 8n + 7 for way n. */
static inline uint64_t vi_ways(const struct vi_set *set, uint8_t print)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), sevens = ones * 0x7F;
    uint64_t others = VI_GET(set->prints) ^ ones * print;
    return ~(((others & sevens) + sevens) | others | sevens);
}
static inline unsigned vi_first_way(uint64_t ways) { return (unsigned)__builtin_ctzll(ways) / 8; }

static inline uint8_t vi_print_of(const struct vi_set *set, unsigned way)
{
    return (uint8_t)(VI_GET(set->prints) >> 8 * way);
}
static inline void vi_set_print(struct vi_set *set, unsigned way, uint8_t print)
{
    uint64_t others = VI_GET(set->prints) & ~(UINT64_C(0xFF) << 8 * way);
    VI_PUT(set->prints, others | (uint64_t)print << 8 * way);
}

/* A copy of `entry`; false: two writers met in it. */
static inline bool vi_copy(struct vi_entry *entry, struct vi_leaf *leaf)
{
    leaf->base = VI_GET(entry->base);
    leaf->tag = VI_GET(entry->tag);
    leaf->output = VI_GET(entry->output);
    leaf->descriptor = VI_GET(entry->descriptor);
    leaf->descriptor_at = VI_GET(entry->descriptor_at);
    leaf->space = VI_GET(entry->space);
    uint64_t check = VI_GET(entry->check);
    return check == vi_check(leaf->base, leaf->tag, leaf->output) &&
           VI_GET(entry->check_all) == vi_check_all(check, leaf);
}

/* The entry of `space`, whose state is `state`, that translates `address`. */
static inline bool vi_tlb_find(const struct vi_tlb *tlb, uint64_t state, uint64_t address, struct vi_leaf *leaf)
{
    uint32_t tag = (uint32_t)(state >> 32);
    for (uint32_t sizes = (uint32_t)state; sizes; sizes &= sizes - 1) {
        unsigned shift = 12 + (unsigned)__builtin_ctz(sizes);
        uint64_t page = address >> shift, hash = vi_hash(page, shift, tag);
        struct vi_set *set = vi_set_of(tlb, hash);
        for (uint64_t ways = vi_ways(set, vi_print(hash)); ways; ways &= ways - 1)
            if (vi_copy(&set->entry[vi_first_way(ways)], leaf) && leaf->base == (page << shift | shift) &&
                leaf->tag >> 32 == tag)
                return true;
    }
    return false;
}

/* The same in the TLB with `sets`, for those who need no more than `tag` and `output` of it, and its shift. */
static inline bool vi_tlb_look(struct vi_set *sets, unsigned index_shift, uint64_t state, uint64_t address, uint64_t *tag_of,
                               uint64_t *output_of, unsigned *shift_of)
{
    uint32_t tag = (uint32_t)(state >> 32);
    for (uint32_t sizes = (uint32_t)state; sizes; sizes &= sizes - 1) {
        unsigned shift = 12 + (unsigned)__builtin_ctz(sizes);
        uint64_t page = address >> shift, hash = vi_hash(page, shift, tag), base = page << shift | shift;
        struct vi_set *set = &sets[hash >> 1 >> index_shift];
        for (uint64_t ways = vi_ways(set, vi_print(hash)); ways; ways &= ways - 1) {
            struct vi_entry *entry = &set->entry[vi_first_way(ways)];
            uint64_t tagged = VI_GET(entry->tag), output = VI_GET(entry->output);
            if (VI_GET(entry->base) == base && tagged >> 32 == tag &&
                VI_GET(entry->check) == vi_check(base, tagged, output)) {
                *tag_of = tagged;
                *output_of = output;
                *shift_of = shift;
                return true;
            }
        }
    }
    return false;
}

/* Put `leaf` into `space`, whose state was `state` before its walk began: if that is past, nothing is put. */
void vi_tlb_put(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space, uint64_t state,
                struct vi_leaf *leaf);

/* Entries that count, to look at: `visit` gets each with its space. */
void vi_tlb_each(struct vi_core *core, struct vi_tlb *tlb,
                 void (*visit)(void *to, const struct vi_space *space, const struct vi_leaf *leaf), void *to);

#endif
