/* SPDX-License-Identifier: Apache-2.0 */
/* What reads of a block of registers return, and who carries out writes to it without the interpreter. */
#ifndef VI_MIRROR_H
#define VI_MIRROR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "watch.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "mirrors are little-endian"
#endif

/* Carries out a 4-byte write at `offset` of a block, without the interpreter and in the thread that received it.
 * Returns whether it has; false: the write goes the way of all others, whose law is that to store a value that is there
 * already, with what follows from it, changes nothing but what is left to do. */
typedef bool (*vi_store_fn)(void *of, uint64_t offset, uint32_t value);

/* Answers a 4-byte read that does more than return a value, likewise; false: nothing has happened, and it is the owner's. */
typedef bool (*vi_load_fn)(void *of, uint64_t offset, uint32_t *value);

/* What an aligned read of 4 or 8 bytes of a block returns, wherever it does no more than that. Written by the block's
 * owner, read by the pump of its client, both at any time: a register is stored and loaded whole, and what was stored
 * in guest memory before it is seen before it. */
struct vi_mirror {
    uint64_t *cells; /* little-endian, of `size` bytes */
    uint64_t size;   /* a multiple of 8 */
    _Atomic bool plain;     /* false: reads have effects just now, and are the owner's */
    _Atomic uint64_t reads; /* how many were answered from here */
    struct vi_watch *watch; /* who is told of those reads; NULL: nobody ever. Set before the block's first client */
    /* The seam for writes that are carried out natively; NULL: none is. Set before the block's first client. */
    vi_store_fn store;
    vi_load_fn load; /* NULL: there is no such read */
    void *store_of;  /* of both */
    /* A write of 4 bytes that the client is to carry out: `store` says that it is due, and its caller sends it. */
    uint64_t post_at;
    uint32_t post_value;
    bool posting;
};

/* Returns whether there is memory for it; all of it reads as zero, and is not plain yet. */
bool vi_mirror_make(struct vi_mirror *mirror, uint64_t size);
void vi_mirror_free(struct vi_mirror *mirror);

static inline bool vi_mirror_has(const struct vi_mirror *mirror, uint64_t offset, uint32_t size)
{
    return (size == 4 || size == 8) && !(offset & (size - 1)) && offset < mirror->size && size <= mirror->size - offset;
}

/* Store `size` (4 or 8) bytes at `offset`; returns false, having done nothing, where that is not aligned or not within. */
static inline bool vi_mirror_store(struct vi_mirror *mirror, uint64_t offset, uint32_t size, uint64_t value)
{
    if (!vi_mirror_has(mirror, offset, size))
        return false;
    if (size == 8)
        __atomic_store_n(mirror->cells + offset / 8, value, __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint32_t *)mirror->cells + offset / 4, (uint32_t)value, __ATOMIC_RELEASE);
    return true;
}

/* Returns whether a read is answered from here, its value then in *value. */
static inline bool vi_mirror_load(struct vi_mirror *mirror, uint64_t offset, uint32_t size, uint64_t *value)
{
    if (!vi_mirror_has(mirror, offset, size) || !atomic_load_explicit(&mirror->plain, memory_order_acquire))
        return false;
    if (size == 8)
        *value = __atomic_load_n(mirror->cells + offset / 8, __ATOMIC_ACQUIRE);
    else
        *value = __atomic_load_n((uint32_t *)mirror->cells + offset / 4, __ATOMIC_ACQUIRE);
    atomic_fetch_add_explicit(&mirror->reads, 1, memory_order_relaxed);
    if (mirror->watch && vi_wanted(mirror->watch, VI_ACCESSED))
        vi_tell_access(mirror->watch, offset, size, *value);
    return true;
}

#endif
