/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two TLBs: sets of eight entries, read and filled without locks.
 *
 * An entry is a few 64-bit words and check words over them: each is read and written by itself, and an entry that does
 * not check (two writers met) is a miss. Its key is its page and the tag of its space, so all entries of a space go at
 * once when the space gets another tag; they are overwritten when room is needed. A set's hints say by a byte of each
 * entry's hash where to look: two writers can lose one, which makes a miss, so invalidation does not go by them.
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
#define VI_LEAF_XN_HIGH 0x80   /* stage 2: XN[1] */
#define VI_LEAF_ATTRIBUTES 8   /* four bits */
#define VI_LEAF_SHAREABILITY 12 /* two */
#define VI_LEAF_MEMORY 16      /* six */
#define VI_LEAF_LEVEL 24       /* three: level + 1 */
#define VI_LEAF_GRANULE 28     /* two: 0 4K, 1 16K, 2 64K */

static inline unsigned vi_leaf_shift(const struct vi_leaf *leaf) { return leaf->base & VI_LEAF_SHIFT_MASK; }
static inline uint64_t vi_leaf_base(const struct vi_leaf *leaf) { return leaf->base & ~(uint64_t)VI_LEAF_SHIFT_MASK; }
static inline int vi_leaf_level(const struct vi_leaf *leaf) { return (int)(leaf->tag >> VI_LEAF_LEVEL & 7) - 1; }
static inline unsigned vi_leaf_granule(const struct vi_leaf *leaf) { return 12 + 2 * (leaf->tag >> VI_LEAF_GRANULE & 3); }

/* An invalidation by address, to be done again when nobody is inside who began before it. */
struct vi_invalidation {
    int world;
    uint64_t start, size;
    int32_t vmid, asid;
    uint16_t vmid_mask;
    uint8_t granule_bits;
    int8_t level;
};
#define VI_MOST_PENDING 256
#define VI_VMID_HEADS 256

struct vi_spaces {
    pthread_mutex_t lock; /* guards all but the pool's `state` and `entries` */
    uint32_t limit, made; /* spaces that there may be, and places of the pool that were ever used */
    uint32_t heads;       /* a power of two */
    struct vi_space **head;
    struct vi_space *of_vmid[VI_VMID_HEADS];
    struct vi_space *free; /* linked by `next` */
    uint32_t next_tag;
    unsigned pending_count;
    struct vi_invalidation pending[VI_MOST_PENDING];
    struct vi_space pool[];
};

struct vi_entry {
    _Alignas(64) _Atomic uint64_t base;
    _Atomic uint64_t tag, output, check;
    _Atomic uint64_t descriptor, descriptor_at, space, cold_check; /* what few hits need */
};

_Static_assert(sizeof(struct vi_entry) == 64, "an entry is a cache line");

struct vi_tlb {
    uint32_t sets; /* a power of two */
    unsigned index_shift; /* 63 - log2 of the sets */
    _Atomic uint64_t *hints; /* of each set: a byte for each way, 0: free */
    _Atomic uint8_t *oldest; /* of each set: the way that is overwritten next */
    struct vi_entry (*set)[VI_WAYS];
    _Atomic uint64_t evictions, invalidated;
};

static inline uint64_t vi_rotated(uint64_t word, unsigned by) { return word << by | word >> (64 - by); }

static inline uint64_t vi_check(uint64_t base, uint64_t tag, uint64_t output)
{
    return ~((base ^ vi_rotated(tag, 29)) * UINT64_C(0xD6E8FEB86659FD93) ^ output);
}
static inline uint64_t vi_cold_check(const struct vi_leaf *l)
{
    return vi_check(l->descriptor ^ vi_rotated(l->base, 31), l->descriptor_at ^ l->tag,
                    l->space ^ vi_rotated(l->output, 17));
}

/* `tag` is in the high half. */
static inline uint64_t vi_hash(uint64_t page, unsigned shift, uint64_t tag)
{
    return (page ^ tag ^ (uint64_t)shift << 26) * UINT64_C(0x9E3779B97F4A7C15);
}
static inline uint32_t vi_set_of(const struct vi_tlb *tlb, uint64_t hash)
{
    return (uint32_t)(hash >> 1 >> tlb->index_shift);
}
#define VI_EACH_BYTE UINT64_C(0x0101010101010101)
static inline uint64_t vi_hint(uint64_t hash) { return (hash >> 24 & 0xFF) | 1; }

/* The bytes of `word` that are 0, as their highest bits; above the lowest, one that is 1 may be told too. */
static inline uint64_t vi_zero_bytes(uint64_t word) { return (word - VI_EACH_BYTE) & ~word & (VI_EACH_BYTE << 7); }

/* What most hits need of an entry; false: two writers met in it. */
VI_HOT bool vi_copy_hot(const struct vi_entry *entry, struct vi_leaf *leaf)
{
    leaf->base = VI_GET(entry->base);
    leaf->tag = VI_GET(entry->tag);
    leaf->output = VI_GET(entry->output);
    return VI_GET(entry->check) == vi_check(leaf->base, leaf->tag, leaf->output);
}

/* All of it. */
static inline bool vi_copy(const struct vi_entry *entry, struct vi_leaf *leaf)
{
    leaf->descriptor = VI_GET(entry->descriptor);
    leaf->descriptor_at = VI_GET(entry->descriptor_at);
    leaf->space = VI_GET(entry->space);
    return vi_copy_hot(entry, leaf) && VI_GET(entry->cold_check) == vi_cold_check(leaf);
}

/* All of the entry of the space whose state is `state` that translates `address`: the smallest, if several do. */
bool vi_tlb_find(const struct vi_tlb *tlb, uint64_t state, uint64_t address, struct vi_leaf *leaf);

/*
 * The way of one request through one TLB: what does not change from address to address. The state of the space is that of
 * the request's begin, or of its last walk: what is invalidated meanwhile may be used until its reader exits.
 */
struct vi_lane {
    const _Atomic uint64_t *hints;
    struct vi_entry (*set)[VI_WAYS];
    uint64_t tag; /* << 32 */
    uint32_t sizes;
    unsigned index_shift;
    uint64_t need, tested; /* a leaf permits the access if of its bits `tested` all of `need` are set, and no other */
};

VI_HOT void vi_lane_begin(struct vi_lane *lane, const struct vi_tlb *tlb, uint64_t state, unsigned need, unsigned forbid)
{
    *lane = (struct vi_lane){
        .hints = tlb->hints,
        .set = tlb->set,
        .tag = state & ~(uint64_t)UINT32_MAX,
        .sizes = (uint32_t)state,
        .index_shift = tlb->index_shift,
        .need = need,
        .tested = need | forbid,
    };
}

VI_HOT void vi_lane_refresh(struct vi_lane *lane, uint64_t state)
{
    lane->tag = state & ~(uint64_t)UINT32_MAX;
    lane->sizes = (uint32_t)state;
}

enum vi_found { VI_HIT, VI_MISS, VI_THINK };

/* Where `address` goes by an entry that permits the access; VI_THINK: there is one, and it is not as simple. */
VI_HOT enum vi_found vi_lane_find(const struct vi_lane *lane, uint64_t address, uint64_t *tag, uint64_t *output,
                                  uint64_t *size)
{
    for (uint32_t sizes = lane->sizes; sizes; sizes &= sizes - 1) {
        unsigned shift = 12 + (unsigned)__builtin_ctz(sizes);
        uint64_t end = UINT64_C(1) << shift, offset = address & (end - 1), key = (address - offset) | shift;
        uint64_t hash = vi_hash(address >> shift, shift, lane->tag);
        uint32_t set = (uint32_t)(hash >> 1 >> lane->index_shift);
        uint64_t ways = vi_zero_bytes(VI_GET(lane->hints[set]) ^ vi_hint(hash) * VI_EACH_BYTE);
        for (; ways; ways &= ways - 1) {
            const struct vi_entry *entry = &lane->set[set][__builtin_ctzll(ways) / 8];
            uint64_t bits = VI_GET(entry->tag), out = VI_GET(entry->output);
            /* With these bits and output, no other base than the key has this check. */
            if (VI_UNLIKELY((bits ^ lane->tag) >> 32 || VI_GET(entry->check) != vi_check(key, bits, out)))
                continue;
            if (VI_UNLIKELY((bits & lane->tested) != lane->need))
                return VI_THINK;
            *tag = bits;
            *output = out | offset;
            *size = end - offset;
            return VI_HIT;
        }
    }
    return VI_MISS;
}

VI_HOT void vi_set_hint(struct vi_tlb *tlb, uint32_t set, unsigned way, uint64_t hint)
{
    VI_PUT(tlb->hints[set], (VI_GET(tlb->hints[set]) & ~(UINT64_C(0xFF) << 8 * way)) | hint << 8 * way);
}

VI_HOT void vi_tlb_fill(struct vi_tlb *tlb, uint32_t set, unsigned way, uint64_t hint, const struct vi_leaf *leaf)
{
    struct vi_entry *entry = &tlb->set[set][way];
    VI_PUT(entry->base, leaf->base);
    VI_PUT(entry->tag, leaf->tag);
    VI_PUT(entry->output, leaf->output);
    VI_PUT(entry->check, vi_check(leaf->base, leaf->tag, leaf->output));
    VI_PUT(entry->descriptor, leaf->descriptor);
    VI_PUT(entry->descriptor_at, leaf->descriptor_at);
    VI_PUT(entry->space, leaf->space);
    VI_PUT(entry->cold_check, vi_cold_check(leaf));
    vi_set_hint(tlb, set, way, hint);
}

void vi_tlb_evict(struct vi_core *core, struct vi_tlb *tlb, const struct vi_entry *entry);
/* Say that the space may have entries of this size; false: it has another tag by now. */
bool vi_note_size(struct vi_space *space, uint64_t state, uint64_t bit);

/* Put `leaf`, which is in no entry yet, into `space`, whose state was `state` before its walk began: if that is past,
 * nothing is put. */
VI_HOT void vi_tlb_add(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space, uint64_t state,
                       struct vi_leaf *leaf)
{
    unsigned shift = vi_leaf_shift(leaf);
    uint64_t bit = UINT64_C(1) << (shift - 12), tag = state & ~(uint64_t)UINT32_MAX;
    if (VI_UNLIKELY(!(state & bit)) && !vi_note_size(space, state, bit))
        return;
    leaf->tag = tag | (uint32_t)leaf->tag;
    leaf->space = (uint64_t)(space - core->spaces->pool);
    uint64_t hash = vi_hash(leaf->base >> shift, shift, tag);
    uint32_t set = vi_set_of(tlb, hash);
    uint64_t open = vi_zero_bytes(VI_GET(tlb->hints[set]));
    unsigned way;
    if (open) {
        way = (unsigned)__builtin_ctzll(open) / 8;
        VI_COUNT(space->entries);
    } else {
        /* The oldest goes. If it is of this space, that has as many as before. */
        way = VI_GET(tlb->oldest[set]) % VI_WAYS;
        VI_PUT(tlb->oldest[set], (uint8_t)(way + 1));
        if (VI_LIKELY(!((VI_GET(tlb->set[set][way].tag) ^ tag) >> 32))) {
            VI_COUNT(tlb->evictions);
        } else {
            vi_tlb_evict(core, tlb, &tlb->set[set][way]);
            VI_COUNT(space->entries);
        }
    }
    vi_tlb_fill(tlb, set, way, vi_hint(hash), leaf);
}

void vi_tlb_put(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space, uint64_t state,
                struct vi_leaf *leaf);
/* The same, in place of an entry of its page. */
void vi_tlb_replace(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space, uint64_t state,
                    struct vi_leaf *leaf);

/* Entries that count, to look at: `visit` gets each with its space. */
void vi_tlb_each(struct vi_core *core, struct vi_tlb *tlb,
                 void (*visit)(void *to, const struct vi_space *space, const struct vi_leaf *leaf), void *to);

#endif
