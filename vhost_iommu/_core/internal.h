/* SPDX-License-Identifier: Apache-2.0 */
/* What the core's own files know of each other; callers include core.h alone. */
#ifndef VI_INTERNAL_H
#define VI_INTERNAL_H

#include "core.h"
#include "declared.h"

#define VI_LIKELY(x) __builtin_expect(!!(x), 1)
#define VI_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Relaxed accesses, for words whose meaning does not depend on the order in which others are seen. */
#define VI_GET(at) atomic_load_explicit(&(at), memory_order_relaxed)
#define VI_PUT(at, value) atomic_store_explicit(&(at), (value), memory_order_relaxed)

/* A number that one thread alone changes and others may look at. */
#define VI_COUNT(at) VI_PUT(at, VI_GET(at) + 1)

/* ---- the address spaces of a TLB (tlb.c) ------------------------------------------------------------------------ */

/*
 * An address space: entries of one world, VMID and ASID (or the global ones of an ASET). `state` is its entries' tag in
 * the high half, and which sizes of entries it may have in the low one. A new tag is an invalidation of them all.
 */
struct vi_space {
    _Atomic uint64_t state;
    int32_t asid; /* VI_GLOBAL: entries of any ASID */
    uint16_t vmid;
    uint8_t world, aset;
    uint32_t contexts; /* that point here; guarded by the lock of the configuration */
    struct vi_space *next_of_hash, *next_of_vmid;
};
#define VI_GLOBAL (-1)

/* The space, made when it is new; NULL: no memory. Under the lock of the configuration. Counts one more context. */
struct vi_space *vi_space_get(struct vi_core *core, uint8_t world, uint16_t vmid, int32_t asid, uint8_t aset);
void vi_space_put(struct vi_core *core, struct vi_space *space);

/* ---- the instance ------------------------------------------------------------------------------------------------ */

/* What parameters come to; an immutable snapshot. */
struct vi_setup {
    struct vi_parameters parameters;
    uint8_t output_bits, input_bits; /* OAS and IAS (§3.4) */
    uint64_t output_mask;            /* of a physical address */
};

struct vi_reader {
    _Alignas(64) _Atomic uint32_t inside; /* 0: the slot is free */
    struct vi_core *core;
    const struct vi_setup *setup;
    const struct vi_windows *windows;
    const struct vi_window *last; /* of `windows`, that served last; an empty one at first, never NULL */
    struct vi_counters counters;
};

/* What readers may still use is freed once they have exited. */
struct vi_retired {
    struct vi_retired *next;
    void (*release)(struct vi_core *core, void *what);
    void *what;
};

/* Free `what` by `release` in a later vi_quiesce, at once if there is no memory to remember it (after waiting). */
void vi_retire(struct vi_core *core, void *what, void (*release)(struct vi_core *core, void *what));

struct vi_configuration; /* configuration.c */
struct vi_configuration *vi_configuration_new(struct vi_core *core, uint32_t contexts);
void vi_configuration_free(struct vi_core *core, struct vi_configuration *configuration);

struct vi_tlb; /* tlb.c */

struct vi_core {
    struct vi_reader slots[VI_SLOTS];
    _Atomic(const struct vi_setup *) setup;
    _Atomic(const struct vi_windows *) windows;
    struct vi_tlb *tlb1, *tlb2;
    struct vi_spaces *spaces;
    struct vi_configuration *configuration;
    _Atomic(struct vi_retired *) retired;
};

/* The host address of [pa, pa + size) in one window that allows `may`; NULL: there is none. Sets `last`. */
uint8_t *vi_find_slowly(struct vi_reader *reader, uint64_t pa, uint64_t size, unsigned may);

static inline uint8_t *vi_find(struct vi_reader *reader, uint64_t pa, uint64_t size, unsigned may)
{
    const struct vi_window *w = reader->last;
    uint64_t at = pa - w->base;
    if (VI_LIKELY(at < w->size && w->size - at >= size && (w->allows & may) == may))
        return w->host + at;
    return vi_find_slowly(reader, pa, size, may);
}

static inline bool vi_broken(const struct vi_window *w) { return w->broken && VI_UNLIKELY(atomic_load(w->broken)); }

#endif
