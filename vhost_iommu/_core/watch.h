/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the core tells of what it does, while somebody looks on: records of one size, numbered in one order with those of
 * the model, in a bounded ring (docs/watching.md, vhost_iommu/watch.py).
 *
 *   numbers    a record's number is its place in the ring, taken by one addition: there is no other order.
 *   room       is promised before a burst begins, for the most that it may tell. Where there is none the burst does not
 *              begin (the caller declines, as for a lock that is taken). What may be lost is counted instead, and whoever
 *              takes tells of the gap.
 *   delivery   one thread at a time takes what has been told, from the oldest number on up to the first that is still
 *              being told. A teller never waits for it.
 *
 * Any thread tells, at any time; the ring lives as long as whoever may.
 */
#ifndef VI_WATCH_H
#define VI_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

/* The bits of Kind (watch.py), by number. */
enum vi_kind {
    VI_TOLD, /* the place of what the model tells */
    VI_ACCESSED, VI_COMMAND, VI_FETCHED, VI_FILLED, VI_USED, VI_DROPPED, VI_TRANSLATED, VI_REPORTED, VI_INTERRUPTED,
    VI_MOVED, VI_STALLED, VI_REQUEST, VI_NOTED, VI_GAP, VI_SNAPSHOT, VI_FOUND,
    VI_VOID = 31, /* a number for which there was nothing to tell */
};
#define VI_WANTS(kind) (UINT32_C(1) << (kind))
/* What readers tell. */
#define VI_OF_READERS (VI_WANTS(VI_FILLED) | VI_WANTS(VI_USED) | VI_WANTS(VI_TRANSLATED) | VI_WANTS(VI_MOVED) | VI_WANTS(VI_REQUEST) | VI_WANTS(VI_FOUND))

struct vi_record {
    _Atomic uint64_t number; /* + 1; any other: it is still being told */
    uint64_t time;           /* nanoseconds of CLOCK_MONOTONIC */
    uint32_t sid, ssid;
    uint8_t kind, flags;
    uint16_t small;
    uint32_t size;
    uint64_t word[4];
};
_Static_assert(sizeof(struct vi_record) == 64, "a record is a cache line, and watch.RECORD has this layout");

/* Of a transfer. */
enum { VI_FLAG_WRITE = 1 };

/* Kinds that may be lost, by their place in `lost`. */
enum vi_losable { VI_LOSE_ACCESSED, VI_LOSE_USED, VI_LOSE_TRANSLATED, VI_LOSE_MOVED, VI_LOSABLE };

struct vi_watch {
    _Atomic uint32_t kinds; /* that somebody wants; 0: nobody looks on */
    struct vi_record *ring;
    uint64_t size; /* of it, a power of two */
    _Alignas(64) _Atomic uint64_t next;     /* number */
    _Alignas(64) _Atomic uint64_t promised; /* records that may be told although the ring fills up */
    _Alignas(64) _Atomic uint64_t taken;    /* the oldest number that is in the ring */
    _Atomic uint64_t lost[VI_LOSABLE], lost_from; /* lost_from: UINT64_MAX while none is */
    _Atomic uint64_t synced; /* the number of the last CMD_SYNC that has completed */
    _Atomic int ready;       /* an eventfd for who takes; -1: none */
    _Atomic bool called;
};

/* False: no memory. */
bool vi_watch_make(struct vi_watch *watch, uint64_t size);
void vi_watch_free(struct vi_watch *watch);

static inline uint64_t vi_watch_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Have what there is taken soon. */
static inline void vi_watch_call(struct vi_watch *watch)
{
    int ready = atomic_load_explicit(&watch->ready, memory_order_relaxed);
    uint64_t one = 1;
    if (ready >= 0 && !atomic_exchange(&watch->called, true) && write(ready, &one, sizeof one) < 0)
        atomic_store(&watch->called, false); /* who takes looks by itself, too */
}

/* Records for which there would be room, if all that is promised were told. */
static inline uint64_t vi_watch_room(struct vi_watch *watch)
{
    uint64_t promised = atomic_load(&watch->promised), next = atomic_load(&watch->next);
    uint64_t used = next - atomic_load(&watch->taken) + promised;
    return used < watch->size ? watch->size - used : 0;
}

/*
 * Have room for `count` records, which the caller then tells, or gives back by vi_unpromise with those that it told; false:
 * there is none.
 */
static inline bool vi_promise(struct vi_watch *watch, uint64_t count)
{
    /* In this order: what is told meanwhile is counted twice rather than not at all. */
    uint64_t promised = atomic_fetch_add(&watch->promised, count) + count;
    uint64_t next = atomic_load(&watch->next), used = next - atomic_load(&watch->taken) + promised;
    if (used > watch->size / 2)
        vi_watch_call(watch);
    if (used <= watch->size)
        return true;
    atomic_fetch_sub(&watch->promised, count);
    return false;
}

static inline void vi_unpromise(struct vi_watch *watch, uint64_t count) { atomic_fetch_sub(&watch->promised, count); }

/* A number, and the record that is told by vi_tell; there is room. */
static inline struct vi_record *vi_tell_begin(struct vi_watch *watch, uint64_t *number)
{
    /* Takes part in the order of others' numbers, and so in that in which their records were taken. */
    *number = atomic_fetch_add(&watch->next, 1);
    return &watch->ring[*number & (watch->size - 1)];
}

static inline void vi_tell_at(struct vi_record *record, uint64_t number, enum vi_kind kind, uint64_t time)
{
    record->time = time;
    record->kind = (uint8_t)kind;
    atomic_store_explicit(&record->number, number + 1, memory_order_release);
}

static inline void vi_tell(struct vi_record *record, uint64_t number, enum vi_kind kind)
{
    vi_tell_at(record, number, kind, vi_watch_now());
}

static inline bool vi_wanted(struct vi_watch *watch, enum vi_kind kind)
{
    return atomic_load_explicit(&watch->kinds, memory_order_relaxed) & VI_WANTS(kind);
}

/* One that may be lost was. */
static inline void vi_lose(struct vi_watch *watch, enum vi_losable kind)
{
    uint64_t none = UINT64_MAX;
    atomic_compare_exchange_strong(&watch->lost_from, &none, atomic_load(&watch->next));
    atomic_fetch_add_explicit(&watch->lost[kind], 1, memory_order_release);
    vi_watch_call(watch);
}

/* A register access by a thread that has promised nothing; lost where there is no room. */
static inline void vi_tell_access(struct vi_watch *watch, uint64_t offset, uint32_t size, uint64_t value)
{
    if (!vi_promise(watch, 1)) {
        vi_lose(watch, VI_LOSE_ACCESSED);
        return;
    }
    uint64_t number;
    struct vi_record *record = vi_tell_begin(watch, &number);
    record->flags = 0;
    record->size = size;
    record->word[0] = offset;
    record->word[1] = value;
    vi_tell(record, number, VI_ACCESSED);
    vi_unpromise(watch, 1);
}

/* ---- for who takes: one thread at a time --------------------------------------------------------------------------- */

/* How many records from `taken` on have been told. */
uint64_t vi_watch_told(struct vi_watch *watch);
/* Copy so many to `to`, and give their places back; then tell what was lost since, if anything was. */
void vi_watch_take(struct vi_watch *watch, uint64_t count, struct vi_record *to);

#endif
