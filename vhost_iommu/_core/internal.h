/* SPDX-License-Identifier: Apache-2.0 */
/* What the core's own files know of each other; callers include core.h alone. */
#ifndef VI_INTERNAL_H
#define VI_INTERNAL_H

#include <pthread.h>
#include <string.h>

#include "core.h"
#include "declared.h"

#define VI_LIKELY(x) __builtin_expect(!!(x), 1)
#define VI_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* On the path of every translation: inlined wherever it is called. */
#define VI_HOT static inline __attribute__((always_inline))

/* Relaxed accesses, for words whose meaning does not depend on the order in which others are seen. */
#define VI_GET(at) atomic_load_explicit(&(at), memory_order_relaxed)
#define VI_PUT(at, value) atomic_store_explicit(&(at), (value), memory_order_relaxed)

/* A number that one thread alone changes and others may look at: compilers make three instructions of what is one. */
static inline __attribute__((always_inline)) void vi_add64(_Atomic uint64_t *at, uint64_t count)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    __asm__("addq %1, %0" : "+m"(*(uint64_t *)(void *)at) : "er"(count) : "cc");
#else
    VI_PUT(*at, VI_GET(*at) + count);
#endif
}
#define VI_COUNT(at) vi_add64(&(at), 1)
#define VI_ADD(at, count) vi_add64(&(at), (count))

/* ---- the address spaces of the TLBs (tlb.c) ---------------------------------------------------------------------- */

/*
 * An address space: entries of one world, VMID and ASID (or the global ones of an ASET). `state` is its entries' tag in
 * the high half, and which sizes of entries it may have in the low one: bit n, 2^(12 + n) bytes. A new tag is an
 * invalidation of them all.
 */
struct vi_space {
    _Atomic uint64_t state;
    _Atomic uint32_t entries; /* exact while one thread inserts */
    int32_t asid;             /* VI_GLOBAL: entries of any ASID */
    uint16_t vmid;
    uint8_t world, aset;
    uint32_t contexts; /* that point here */
    struct vi_space *next, *next_of_vmid;
};
#define VI_GLOBAL (-2)

/* The space, made when it is new; counts one more context. NULL: there is no room. Callable by readers and writers. */
struct vi_space *vi_space_get(struct vi_core *core, uint8_t world, uint16_t vmid, int32_t asid, uint8_t aset);
void vi_space_put(struct vi_core *core, struct vi_space *space);

/* ---- ways through the TLBs (tlb.h, translate.h) --------------------------------------------------------------------- */

struct vi_tlb; /* tlb.h */
struct vi_entry;

/*
 * The way of one request through one TLB: what does not change from address to address. The state of the space is that of
 * the request's begin, or of its last walk: what is invalidated meanwhile may be used until its reader exits.
 */
struct vi_lane {
    struct vi_tlb *tlb;
    struct vi_space *space;
    uint64_t place; /* of the space, as leaves have it */
    /* A leaf permits the access if of its bits `tested` all of `need` are set, and no other; both have the space's tag. */
    uint64_t need, tested;
    uint64_t fills; /* as `need`, for what is put; while somebody looks on, what no leaf has, … */
    uint64_t told;  /* … by this bit */
    uint64_t state, tag; /* of the space, and the tag in the high half */
    uint32_t sizes; /* of the space, of which the smallest is 2^shift bytes (of none, one that no leaf has) */
    uint64_t shift;
    uint64_t page, within, salt; /* bits of an address that are its page of the smallest size; others; of such pages' hashes */
    uint64_t others; /* of the sizes, but the smallest */
    uint64_t key, set, hint; /* of the page that was not found, last; the set as vi_hints_at has it */
    const struct vi_entry *entry; /* that was found last */
    /* Of the page of 4 KiB that was walked for last: which addresses its table has, where that is, also in our memory (for
     * good, and whole), and what the descriptors above it say. */
    uint64_t region, descriptors, above;
    const uint8_t *beside;
    uint64_t like, tag_like; /* such a page's descriptor without its address (0: none), and the tag that its entry got */
};

/* How many pages of a request are looked up at once. */
enum { VI_MOST_AHEAD = 64 };

/* A context's way through the TLBs, for one kind of access: of stages that it has, if it is quick. */
struct vi_course {
    const struct vi_context *context; /* NULL: none */
    unsigned access;
    uint64_t mask; /* of physical addresses */
    struct vi_lane lane1, lane2, reads; /* of stage 1; of stage 2, and for reads of stage 1's tables */
    struct vi_ahead {
        const uint64_t *next, *end; /* of `pa`: those that are left */
        uint64_t size, tag; /* of each, and of the leaf of each */
        uint64_t pa[VI_MOST_AHEAD];
    } ahead; /* pages that were looked up before they were asked for */
};

/* ---- the instance ------------------------------------------------------------------------------------------------ */

/* Parameters, and what they come to; an immutable snapshot. */
struct vi_setup {
    struct vi_parameters parameters;
    uint64_t output_mask; /* of a physical address */
};

/* Where no window has tables: no descriptor has this of its address and type. */
#define VI_NO_TABLE UINT64_C(4)

struct vi_reader {
    _Alignas(64) _Atomic uint32_t turn; /* odd: somebody is inside */
    struct vi_core *core;
    const struct vi_setup *setup;
    const struct vi_windows *windows;
    /* Of the window that served a descriptor last, if it is aligned and whole for good: where words may be read. */
    uint64_t words_at, words_span; /* from words_at, up to words_span bytes further on */
    const uint8_t *words;          /* the host has that of words_at here */
    /* What a descriptor of a table of 4 KiB at words_at has of its address and type; how many such fit behind that one. */
    uint64_t tables_at, tables_span;
    /* By stage, the low half of the tag that a page got last: another one with the same bits of this table gets it, too. */
    struct {
        const struct vi_table *table;
        uint64_t bits;
        uint32_t tag;
    } seen[2];
    const struct vi_window *last; /* of `windows`, that served last; an empty one at first, never NULL */
    bool looked;                  /* somebody looks on or checks, … */
    struct vi_watch *watch;       /* … and if so: NULL: nobody looks on */
    const struct vi_check *check; /* … NULL: nobody checks */
    uint64_t room, promised;      /* records that it may still tell, of how many (tell.h) */
    uint32_t sid, ssid;           /* of whom it tells, … */
    uint64_t first_pa;            /* … and where its transaction begins; UINT64_MAX: nothing of it is found yet */
    uint64_t begun, now;          /* when it began, and the last look at the clock of records; … */
    unsigned uses;                /* … pages that were told of since */
    bool quiet;                   /* what may be lost is */
    struct vi_counters counters;
    /* Whose request is counted apart, if it is, and the counters before it. */
    bool followed;
    uint32_t followed_sid;
    uint64_t before[VI_COUNTERS];
};

/* With VI_UNWATCHED=1 nobody can look on or check: what requests cost then is what the bench compares with. */
#ifndef VI_UNWATCHED
#define VI_UNWATCHED 0
#endif

/* Whether somebody looks on or checks: the one test of a request while nobody does. */
VI_HOT bool vi_looked(const struct vi_reader *reader) { return !VI_UNWATCHED && VI_UNLIKELY(reader->looked); }

/* Where is told; NULL: nobody looks on. */
VI_HOT struct vi_watch *vi_watch_of(const struct vi_reader *reader) { return vi_looked(reader) ? reader->watch : NULL; }

/* The rest of entering, where somebody does (tell.c). */
void vi_enter_looked(struct vi_reader *reader);

/* Streams that are counted apart. */
struct vi_stream_span {
    uint32_t mask, value;
    _Atomic uint64_t counts[VI_COUNTERS];
};

/* A counter by its place in struct vi_counters. */
static inline _Atomic uint64_t *vi_counter(struct vi_reader *reader, unsigned at)
{
    return (_Atomic uint64_t *)&reader->counters + at;
}

/* What readers may still use is freed once they have exited. */
struct vi_retired {
    struct vi_retired *next;
    void (*release)(struct vi_core *core, void *what);
    void *what;
};

/* Free `what` by `release` in a later vi_quiesce, at once if there is no memory to remember it (after waiting). */
void vi_retire(struct vi_core *core, void *what, void (*release)(struct vi_core *core, void *what));

struct vi_contexts; /* contexts.c */
struct vi_contexts *vi_contexts_new(uint32_t contexts);
void vi_contexts_free(struct vi_core *core);
/* One more user of a context that is made, who drops it (tlb.c). */
void vi_hold_context(struct vi_core *core, const struct vi_context *context);

struct vi_spaces; /* tlb.c */
bool vi_tlbs_new(struct vi_core *core, uint32_t entries, uint32_t contexts);
void vi_tlbs_free(struct vi_core *core);
/* Once more what was invalidated by address while somebody was inside; `upto` is what vi_pending gave before waiting. */
unsigned vi_pending(struct vi_core *core);
void vi_invalidate_again(struct vi_core *core, unsigned upto);
/*
 * Tags of spaces are given out anew after 2^32 of them. Before that, a vi_quiesce has each space that has an old one get
 * a new one, waits until nobody is inside who goes by an old one, and has the entries forgotten that have one. Nothing is to
 * be done most of the time (false).
 */
bool vi_replace_tags(struct vi_core *core);
void vi_forget_tags(struct vi_core *core);

/* For writers, who are inside of no request: vi_quiesce if it is time. */
void vi_make_room(struct vi_core *core);

/*
 * A number that is another one when anybody has entered or left since, with VI_SOMEBODY_INSIDE where somebody is inside.
 * Takes part in the order that vi_quiesce relies on.
 */
uint64_t vi_turns(struct vi_core *core);
#define VI_SOMEBODY_INSIDE UINT64_C(1)

struct vi_core {
    struct vi_reader slots[VI_SLOTS];
    _Atomic unsigned slots_used; /* the first so many were ever used */
    _Atomic(const struct vi_setup *) setup;
    _Atomic(const struct vi_windows *) windows;
    struct vi_tlb *tlb1, *tlb2;
    struct vi_spaces *spaces;
    struct vi_contexts *contexts;
    _Atomic(struct vi_watch *) watching; /* NULL: nobody looks on */
    _Atomic(const struct vi_check *) checking; /* likewise */
    _Atomic bool looked;                       /* whether either is there: readers look at this alone */
    _Atomic(struct vi_retired *) retired;
    _Atomic uint64_t quiesced; /* vi_quiesce has returned so often */
    _Atomic bool crowded; /* there is so much to be cleared away that whoever enters next is to wait for the others first */
    _Atomic uint32_t following; /* a bit for each of `followed` that is in use */
    struct vi_stream_span followed[VI_FOLLOWED];
    pthread_mutex_t quiescing;
};

/* Where who invalidates tells; NULL: nobody looks on. */
VI_HOT struct vi_watch *vi_watching(const struct vi_core *core) { return VI_UNWATCHED ? NULL : VI_GET(core->watching); }

VI_HOT void vi_attribute_if_followed(struct vi_reader *reader, uint32_t sid)
{
    if (VI_UNLIKELY(VI_GET(reader->core->following)))
        vi_attribute(reader, sid);
}

/*
 * The order in which others see what we do in guest memory. Software expects that of a device on a bus: a record is there
 * before the index or the MSI that tells of it, a used element before the index of its ring. Bytes are moved by memcpy,
 * whose stores no CPU need keep in order but x86's. So each write of ours begins with a release fence: no store of it is
 * seen before what we stored earlier by who then orders his own loads (dma_rmb of Linux). Each read ends with an acquire
 * fence: nothing that follows is loaded ahead of it. On x86 no instruction comes of either.
 */
static inline void vi_before_write(void) { atomic_thread_fence(memory_order_release); }
static inline void vi_after_read(void) { atomic_thread_fence(memory_order_acquire); }

/* The window that holds `pa`, else an empty one. */
const struct vi_window *vi_window_of(const struct vi_reader *reader, uint64_t pa);

/* The host address of [pa, pa + size) in one window that allows `may`; NULL: there is none. Sets `last`. */
uint8_t *vi_find_slowly(struct vi_reader *reader, uint64_t pa, uint64_t size, unsigned may);

VI_HOT uint8_t *vi_find(struct vi_reader *reader, uint64_t pa, uint64_t size, unsigned may)
{
    const struct vi_window *w = reader->last;
    uint64_t at = pa - w->base;
    if (VI_LIKELY(at < w->size && w->size - at >= size && (w->allows & may) == may))
        return w->host + at;
    return vi_find_slowly(reader, pa, size, may);
}

static inline bool vi_broken(const struct vi_window *w) { return w->broken && VI_UNLIKELY(atomic_load(w->broken)); }

/* The word at `pa`, a multiple of 8, read once; false: external abort. */
bool vi_fetch64_slowly(struct vi_reader *reader, uint64_t pa, uint64_t *value);

/* The same at base + offset, if that is in the window of the word before; quickest where the offset is known first. */
VI_HOT bool vi_fetch64_here(struct vi_reader *reader, uint64_t base, uint64_t offset, uint64_t *value)
{
    uint64_t at = base + (offset - reader->words_at);
    if (VI_UNLIKELY(at > reader->words_span))
        return false;
    *value = atomic_load_explicit((const _Atomic uint64_t *)(const void *)(reader->words + at), memory_order_relaxed);
    return true;
}

VI_HOT bool vi_fetch64(struct vi_reader *reader, uint64_t pa, uint64_t *value)
{
    return VI_LIKELY(vi_fetch64_here(reader, pa, 0, value)) || vi_fetch64_slowly(reader, pa, value);
}

#endif
