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
    uint64_t descriptor, table; /* it is in a table of its granule's size that begins there, or would (vi_leaf_at) */
    uint64_t space;             /* where it is in the pool of spaces, in bytes */
};
#define VI_LEAF_SHIFT_MASK 0xFFF
/* In the low half of `tag`: VI_USER … in [7:0], and */
#define VI_LEAF_ATTRIBUTES 8    /* four bits, … */
#define VI_LEAF_SHAREABILITY 14 /* … two: as far apart as in a descriptor */
#define VI_LEAF_MEMORY 16       /* six */
#define VI_LEAF_LEVEL 24       /* three: level + 1 */
#define VI_LEAF_GRANULE 28     /* two: 0 4K, 1 16K, 2 64K */

static inline unsigned vi_leaf_shift(const struct vi_leaf *leaf) { return leaf->base & VI_LEAF_SHIFT_MASK; }
static inline uint64_t vi_leaf_base(const struct vi_leaf *leaf) { return leaf->base & ~(uint64_t)VI_LEAF_SHIFT_MASK; }
static inline int vi_leaf_level(const struct vi_leaf *leaf) { return (int)(leaf->tag >> VI_LEAF_LEVEL & 7) - 1; }
static inline unsigned vi_leaf_granule(const struct vi_leaf *leaf) { return 12 + 2 * (leaf->tag >> VI_LEAF_GRANULE & 3); }

/* Where in such a table the descriptor of an address is, of a leaf of 2^shift bytes. */
static inline uint64_t vi_index_times_8(uint64_t address, unsigned shift, unsigned granule_bits)
{
    return address >> (shift - 3) & ((UINT64_C(1) << granule_bits) - 8);
}
static inline uint64_t vi_leaf_at(const struct vi_leaf *leaf)
{
    return leaf->table + vi_index_times_8(leaf->base, vi_leaf_shift(leaf), vi_leaf_granule(leaf));
}

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
/* The bit that tags of both halves (vi_replace_tags) differ by. */
#define VI_OTHER_HALF (UINT32_C(1) << 31)
#define VI_VMID_HEADS 256

struct vi_spaces {
    pthread_mutex_t lock; /* guards all but the pool's `state` and `entries` */
    uint32_t limit, made; /* spaces that there may be, and places of the pool that were ever used */
    uint32_t heads;       /* a power of two */
    struct vi_space **head;
    struct vi_space *of_vmid[VI_VMID_HEADS];
    struct vi_space *free; /* linked by `next` */
    uint32_t next_tag;
    bool worn; /* tags are given out of one half of all, and some of the other half may be in use still */
    unsigned pending_count;
    struct vi_invalidation pending[VI_MOST_PENDING];
    struct vi_space pool[];
};

static inline uint64_t vi_place_of(const struct vi_core *core, const struct vi_space *space)
{
    return (uint64_t)((const char *)space - (const char *)core->spaces->pool);
}

/* Two by two: what neighbours have alike is beside each other, and so is what differs in the same way from one to the next. */
struct vi_entry {
    _Alignas(64) _Atomic uint64_t base;
    _Atomic uint64_t cold_check; /* of what few hits need: of `rest`, which is output ^ descriptor, and `table` */
    _Atomic uint64_t tag, space, output, check, rest, table;
};

_Static_assert(sizeof(struct vi_entry) == 64, "an entry is a cache line");

/*
 * Of a set: a byte for each way, 0: free; the offset of the entry that is overwritten next; and whose all four entries of
 * a half are (vi_owner), for who overwrites all four. 0: that is not known.
 */
struct vi_hints {
    _Atomic uint64_t ways, oldest, owner[2];
};
enum { VI_HALF = VI_WAYS / 2 };

struct vi_tlb {
    uint32_t last_set; /* of a power of two of them */
    uint64_t last;     /* the same as vi_hints_at has it */
    uint32_t most_ahead; /* pages that may be walked for at once: they are not to evict each other */
    struct vi_hints *hints;
    struct vi_entry (*set)[VI_WAYS];
    _Atomic uint64_t evictions, invalidated;
};

/* The hints of a set, and its first entry; `set` is its number times the size of the former. */
VI_HOT struct vi_hints *vi_hints_at(const struct vi_tlb *tlb, uint64_t set)
{
    return (struct vi_hints *)(void *)((char *)tlb->hints + set);
}
VI_HOT struct vi_entry *vi_entries_at(const struct vi_tlb *tlb, uint64_t set)
{
    enum { TIMES = (sizeof(struct vi_entry[VI_WAYS])) / (sizeof(struct vi_hints)) };
    return (struct vi_entry *)(void *)((char *)tlb->set + set * TIMES);
}

/* A space by its place and its tag, as `owner` of entries. */
VI_HOT uint64_t vi_owner(uint64_t place, uint64_t tag) { return (tag & ~(uint64_t)UINT32_MAX) | (uint32_t)place | 1; }

static inline uint64_t vi_rotated(uint64_t word, unsigned by) { return word << by % 64 | word >> -by % 64; }

/* With a tag and an output, no other base has this check. */
#define VI_CHECK_FACTOR UINT64_C(0xD6E8FEB86659FD93)
static inline uint64_t vi_check(uint64_t base, uint64_t tag, uint64_t output)
{
    return ((base + vi_rotated(tag, 29)) * VI_CHECK_FACTOR + 1) ^ output;
}
/*
 * Of the words that few hits need; `check` is vi_check's of the page with output 0, so they are of the same page. A place of
 * a space needs none: it is not the place of the space whose tag this is, or it is right.
 */
static inline uint64_t vi_cold_check(uint64_t rest, uint64_t table, uint64_t check) { return check + rest + table; }

/*
 * Of the page `page` (its address >> `shift`); `salt` is its space's and size's. Four pages that are neighbours are in one
 * set, by different hints (more would crowd it), and the next four in the next set: who goes from page to page goes from
 * way to way, and computes a hash once in 32 pages.
 */
static inline uint64_t vi_salt(unsigned shift, uint64_t tag) { return tag ^ (uint64_t)shift << 26; }
static inline uint64_t vi_hash(uint64_t page, uint64_t salt)
{
    return ((page >> 5 ^ salt) * UINT64_C(0x9E3779B97F4A7C15) + (page >> 2 << 32)) ^ page << 57;
}
static inline uint32_t vi_set_of(const struct vi_tlb *tlb, uint64_t hash)
{
    return (uint32_t)(hash >> 32) & tlb->last_set;
}
/* The same as vi_hints_at has it. */
VI_HOT uint64_t vi_set_at(const struct vi_tlb *tlb, uint64_t hash)
{
    _Static_assert(sizeof(struct vi_hints) == 1 << 5, "so many bits less are shifted away");
    return hash >> (32 - 5) & tlb->last;
}
#define VI_EACH_BYTE UINT64_C(0x0101010101010101)
static inline uint64_t vi_hint(uint64_t hash) { return hash >> 56 | 1; }

/* The bytes of `word` that are 0, as their highest bits; above the lowest, one that is 1 may be told too. */
static inline uint64_t vi_zero_bytes(uint64_t word) { return (word - VI_EACH_BYTE) & ~word & (VI_EACH_BYTE << 7); }

/* All of an entry; false: two writers met in it. */
static inline bool vi_copy(const struct vi_entry *entry, struct vi_leaf *leaf)
{
    uint64_t rest = VI_GET(entry->rest);
    leaf->base = VI_GET(entry->base);
    leaf->tag = VI_GET(entry->tag);
    leaf->output = VI_GET(entry->output);
    leaf->descriptor = leaf->output ^ rest;
    leaf->table = VI_GET(entry->table);
    leaf->space = VI_GET(entry->space);
    uint64_t check = vi_check(leaf->base, leaf->tag, 0);
    return VI_GET(entry->check) == (check ^ leaf->output) &&
           VI_GET(entry->cold_check) == vi_cold_check(rest, leaf->table, check);
}

/* All of the entry of the space whose state is `state` that translates `address`: the smallest, if several do. */
bool vi_tlb_find(const struct vi_tlb *tlb, uint64_t state, uint64_t address, struct vi_leaf *leaf);

/* The space's state as it is now: there are new entries, maybe of new sizes. */
VI_HOT void vi_lane_refresh(struct vi_lane *lane)
{
    uint64_t state = atomic_load_explicit(&lane->space->state, memory_order_acquire);
    if (VI_LIKELY(state == lane->state))
        return;
    lane->state = state;
    lane->tag = state & ~(uint64_t)UINT32_MAX;
    lane->sizes = (uint32_t)state;
    lane->others = lane->sizes & (lane->sizes - 1);
    lane->shift = 12 + (unsigned)__builtin_ctz(lane->sizes | UINT32_C(1) << 31);
    lane->page = ~UINT64_C(0) << lane->shift;
    lane->within = ~lane->page;
    lane->salt = vi_salt(lane->shift, lane->tag);
    lane->region = UINT64_MAX; /* none */
    lane->need = lane->tag | (uint32_t)lane->need;
    lane->fills = lane->need ^ (VI_UNWATCHED ? 0 : lane->told);
}

VI_HOT void vi_lane_begin(struct vi_lane *lane, const struct vi_reader *reader, struct vi_tlb *tlb,
                          struct vi_space *space, unsigned need, unsigned forbid)
{
    const struct vi_core *core = reader->core;
    if (!VI_UNWATCHED)
        lane->told = (uint64_t)reader->looked << 63;
    lane->tlb = tlb;
    lane->space = space;
    lane->place = vi_place_of(core, space);
    lane->need = need;
    lane->tested = ~(uint64_t)UINT32_MAX | need | forbid;
    lane->state = 0; /* no space's that is in use */
    lane->entry = tlb->set[0];
    vi_lane_refresh(lane);
}

/* The entry of the lowest way that vi_zero_bytes tells. */
VI_HOT const struct vi_entry *vi_way_of(const struct vi_entry *set, uint64_t ways)
{
    _Static_assert(sizeof *set == 64, "8 bytes for each bit");
    return (const struct vi_entry *)(const void *)((const char *)set + 8u * (unsigned)__builtin_ctzll(ways) - 56);
}

enum vi_found { VI_HIT, VI_MISS, VI_THINK };

/* The same as vi_lane_find, for entries of `sizes`. */
enum vi_found vi_lane_find_slowly(const struct vi_lane *lane, uint32_t sizes, uint64_t address, struct vi_leaf *leaf);

/* Where `address` goes by an entry that permits the access; VI_THINK: there is one, and it is not as simple. */
VI_HOT enum vi_found vi_lane_find(struct vi_lane *lane, uint64_t address, uint64_t *tag, uint64_t *output, uint64_t *size)
{
    const struct vi_tlb *tlb = lane->tlb;
    uint64_t key = (address & lane->page) | lane->shift;
    /* Most likely it is behind the one before it. */
    const struct vi_entry *entry = lane->entry + 1;
    uint64_t bits, out;
    if (VI_LIKELY(VI_GET(entry->base) == key)) {
        bits = VI_GET(entry->tag);
        out = VI_GET(entry->output);
        if (VI_LIKELY((bits & lane->tested) == lane->need && VI_GET(entry->check) == vi_check(key, bits, out))) {
            lane->entry = entry;
            *tag = bits;
            *output = out | (address & lane->within);
            *size = lane->within + 1 - (address & lane->within);
            return VI_HIT;
        }
    }
    uint64_t hash = vi_hash(address >> lane->shift, lane->salt), hint = lane->hint = vi_hint(hash);
    uint64_t set = lane->set = vi_set_at(tlb, hash);
    uint64_t ways = vi_zero_bytes(VI_GET(vi_hints_at(tlb, set)->ways) ^ hint * VI_EACH_BYTE);
    lane->key = key;
    if (VI_LIKELY(!(ways | lane->others)))
        return VI_MISS;
    uint32_t looks = (uint32_t)lane->others;
    for (; VI_UNLIKELY(ways); ways &= ways - 1) {
        entry = vi_way_of(vi_entries_at(tlb, set), ways);
        if (VI_UNLIKELY(VI_GET(entry->base) != key))
            continue;
        bits = VI_GET(entry->tag);
        out = VI_GET(entry->output);
        if (VI_LIKELY((bits & lane->tested) == lane->need && VI_GET(entry->check) == vi_check(key, bits, out))) {
            lane->entry = entry;
            *tag = bits;
            *output = out | (address & lane->within);
            *size = lane->within + 1 - (address & lane->within);
            return VI_HIT;
        }
        looks = lane->sizes;
    }
    if (VI_UNLIKELY(looks)) {
        struct vi_leaf leaf; /* so that what is asked for may be in registers */
        enum vi_found found = vi_lane_find_slowly(lane, looks, address, &leaf);
        if (found == VI_HIT) {
            uint64_t all = UINT64_C(1) << vi_leaf_shift(&leaf);
            *tag = leaf.tag;
            *output = leaf.output | (address & (all - 1));
            *size = all - (address & (all - 1));
        }
        return found;
    }
    return VI_MISS;
}

VI_HOT void vi_set_hint(struct vi_hints *hints, uint64_t way, uint64_t hint)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the lowest byte of a set's hints is the first");
    VI_PUT(((_Atomic uint8_t *)(void *)&hints->ways)[way], (uint8_t)hint);
}

/* Of four pages beside each other, of which the first has this hash, in ways beside each other. */
VI_HOT void vi_set_four_hints(struct vi_hints *hints, unsigned way, uint64_t hash)
{
    _Atomic uint32_t *halves = (_Atomic uint32_t *)(void *)&hints->ways;
    VI_PUT(halves[way / 4], (uint32_t)(vi_hint(hash) * VI_EACH_BYTE) ^ UINT32_C(0x06040200));
}

VI_HOT void vi_entry_fill(struct vi_entry *entry, const struct vi_leaf *leaf, uint64_t place)
{
    VI_PUT(entry->space, place);
    uint64_t check = vi_check(leaf->base, leaf->tag, 0), rest = leaf->output ^ leaf->descriptor;
    VI_PUT(entry->base, leaf->base);
    VI_PUT(entry->tag, leaf->tag);
    VI_PUT(entry->output, leaf->output);
    VI_PUT(entry->check, check ^ leaf->output);
    VI_PUT(entry->rest, rest);
    VI_PUT(entry->table, leaf->table);
    VI_PUT(entry->cold_check, vi_cold_check(rest, leaf->table, check));
}

/* Two words beside each other. */
typedef uint64_t vi_pair __attribute__((vector_size(16), may_alias));
VI_HOT vi_pair vi_pair_of(uint64_t low, uint64_t high) { return (vi_pair){low, high}; }

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define VI_PAIRS 1
#else
#define VI_PAIRS 0
#endif

/* Each word once, and whole. */
VI_HOT vi_pair vi_get_pair(const _Atomic uint64_t *from)
{
#if VI_PAIRS
    vi_pair words;
    __asm__ volatile("movq %1, %0\n\tmovhps %2, %0" : "=&x"(words) : "m"(from[0]), "m"(from[1]));
    return words;
#else
    return vi_pair_of(VI_GET(from[0]), VI_GET(from[1]));
#endif
}

/* Words of an entry, whose check words tell of whatever is torn. */
VI_HOT void vi_put_pair(_Atomic uint64_t *to, vi_pair words)
{
#if VI_PAIRS
    __asm__("movaps %1, %0" : "=m"(*(vi_pair *)(void *)to) : "x"(words));
#else
    VI_PUT(to[0], words[0]);
    VI_PUT(to[1], words[1]);
#endif
}

void vi_tlb_evict(const struct vi_core *core, struct vi_tlb *tlb, const struct vi_entry *entry);
/* Say that the space may have entries of this size; false: it has another tag by now. */
bool vi_note_size(struct vi_space *space, uint64_t state, uint64_t bit);

/* Put `leaf`, which the lane did not find, in an entry; its space and the lane know it to have pages of this size. */
VI_HOT void vi_tlb_insert(struct vi_core *core, const struct vi_lane *lane, const struct vi_leaf *leaf)
{
    struct vi_tlb *tlb = lane->tlb;
    struct vi_hints *hints = vi_hints_at(tlb, lane->set);
    uint64_t open = ~VI_GET(hints->ways) & VI_EACH_BYTE, offset; /* hints are odd */
    if (VI_UNLIKELY(open)) {
        offset = (unsigned)__builtin_ctzll(open) * 8u;
    } else { /* the oldest goes */
        offset = VI_GET(hints->oldest);
        VI_PUT(hints->oldest, (offset + sizeof(struct vi_entry)) % (VI_WAYS * sizeof(struct vi_entry)));
    }
    struct vi_entry *entry = (struct vi_entry *)(void *)((char *)vi_entries_at(tlb, lane->set) + offset);
    if (VI_LIKELY(!((VI_GET(entry->tag) ^ leaf->tag) >> 32))) {
        VI_COUNT(tlb->evictions); /* of this space, which has as many as before */
    } else {
        vi_tlb_evict(core, tlb, entry);
        VI_PUT(hints->owner[offset / sizeof(struct vi_entry[VI_HALF])], 0);
        VI_PUT(lane->space->entries, VI_GET(lane->space->entries) + 1);
    }
    vi_entry_fill(entry, leaf, lane->place);
    vi_set_hint(hints, offset / sizeof *entry, lane->hint);
}

/* Put `leaf`, which is in no entry yet, into `space`, whose state was `state` before its walk began: if that is past,
 * nothing is put. */
void vi_tlb_put(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space, uint64_t state,
                struct vi_leaf *leaf);
/* The same, in place of an entry of its page. */
void vi_tlb_replace(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space, uint64_t state,
                    struct vi_leaf *leaf);

/* Entries that count, to look at: `visit` gets each with its space. */
void vi_tlb_each(struct vi_core *core, struct vi_tlb *tlb,
                 void (*visit)(void *to, const struct vi_space *space, const struct vi_leaf *leaf), void *to);

#endif
