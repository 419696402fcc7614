/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contexts that a model has published: found by StreamID and SubstreamID, and withdrawn.
 *
 * A reader finds one without a lock: sets of pointers, each read with acquire and stored with release. A context is a
 * snapshot that nobody changes; one that is withdrawn, or gives way to another, is retired. No more than `most` of them
 * exist, found or retired: who publishes one more waits until the retired ones are free.
 */
#include <stdlib.h>
#include <string.h>

#include "tell.h"

/* ---- lists ----------------------------------------------------------------------------------------------------- */

/* A ring with a head, of members of larger structures. */
struct link {
    struct link *next, *previous;
};

#define OWNER(link, type, member) ((type *)(void *)((char *)(link) - offsetof(type, member)))

static void empty_list(struct link *head) { head->next = head->previous = head; }

static void append(struct link *head, struct link *link)
{
    link->next = head;
    link->previous = head->previous;
    head->previous->next = link;
    head->previous = link;
}

static void cut(struct link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
}

/* ---- what is found ----------------------------------------------------------------------------------------------- */

struct snapshot {
    _Alignas(64) struct vi_context context;
    _Atomic(struct snapshot *) *way; /* where readers find it */
    uint64_t age;
    struct link by_age, of_stream;
    struct snapshot *next; /* of those that were withdrawn together */
};

#define WAYS 8

struct set {
    _Alignas(64) _Atomic(struct snapshot *) way[WAYS];
};

struct vi_contexts {
    struct set *sets;
    unsigned hash_shift;
    uint32_t capacity, most;
    _Atomic uint32_t existing; /* found or retired; whoever frees some counts down */
    /* For writers alone. */
    uint32_t found;
    uint64_t ages;
    struct link by_age; /* the oldest first */
    struct link *streams; /* those of a StreamID are in the ring that its hash gives */
    unsigned streams_shift;
};

static inline uint64_t hash_of(uint32_t sid, uint32_t ssid, unsigned shift)
{
    return (((uint64_t)sid << 32 | ssid) * UINT64_C(0x9E3779B97F4A7C15)) >> shift;
}

/* The shift for `hash_of` to give numbers below `count`, rounded up to a power of two that is at least 2. */
static unsigned shift_for(uint64_t count)
{
    unsigned bits = 1;
    while (UINT64_C(1) << bits < count)
        bits++;
    return 64 - bits;
}

static struct link *stream_of(const struct vi_contexts *in, uint32_t sid)
{
    return &in->streams[hash_of(sid, 0, in->streams_shift)];
}

struct vi_contexts *vi_contexts_new(uint32_t contexts)
{
    struct vi_contexts *in = calloc(1, sizeof *in);
    if (!in)
        return NULL;
    empty_list(&in->by_age);
    in->capacity = contexts ? contexts : 1;
    in->most = in->capacity + in->capacity / 2 + 1; /* tlb.c has spaces for more than these */
    /* Sets are half full at most, so that capacity decides more often than a set does. */
    in->hash_shift = shift_for(UINT64_C(2) * in->capacity / WAYS);
    in->streams_shift = shift_for(in->capacity);
    size_t size = sizeof(struct set) << (64 - in->hash_shift), streams = (size_t)1 << (64 - in->streams_shift);
    in->sets = aligned_alloc(_Alignof(struct set), size);
    in->streams = calloc(streams, sizeof *in->streams);
    if (in->sets)
        memset(in->sets, 0, size);
    for (size_t at = 0; at < streams && in->streams; at++)
        empty_list(&in->streams[at]);
    if (in->sets && in->streams)
        return in;
    free(in->sets);
    free(in->streams);
    free(in);
    return NULL;
}

/* ---- withdrawing ------------------------------------------------------------------------------------------------- */

/* Snapshots that no reader uses any more. */
static void release_snapshots(struct vi_core *core, void *what)
{
    uint32_t count = 0;
    for (struct snapshot *next, *snapshot = what; snapshot; snapshot = next, count++) {
        next = snapshot->next;
        vi_drop_context(core, &snapshot->context);
        free(snapshot);
    }
    atomic_fetch_sub(&core->contexts->existing, count);
}

static void withdraw(struct vi_contexts *in, struct snapshot *snapshot, struct snapshot **withdrawn)
{
    atomic_store_explicit(snapshot->way, NULL, memory_order_release);
    cut(&snapshot->by_age);
    cut(&snapshot->of_stream);
    in->found--;
    snapshot->next = *withdrawn;
    *withdrawn = snapshot;
}

static void retire(struct vi_core *core, struct snapshot *withdrawn)
{
    if (withdrawn)
        vi_retire(core, withdrawn, release_snapshots);
}

/* Those of the StreamID `sid`. */
static void withdraw_stream(struct vi_contexts *in, uint32_t sid, struct snapshot **withdrawn)
{
    struct link *ring = stream_of(in, sid);
    for (struct link *next, *link = ring->next; link != ring; link = next) {
        struct snapshot *snapshot = OWNER(link, struct snapshot, of_stream);
        next = link->next;
        if (snapshot->context.sid == sid)
            withdraw(in, snapshot, withdrawn);
    }
}

void vi_withdraw_streams(struct vi_core *core, uint32_t first, uint32_t last)
{
    struct vi_contexts *in = core->contexts;
    struct snapshot *withdrawn = NULL;
    struct vi_invalidation what = {VI_ANY, first, last, VI_ANY, VI_ANY, 0, 0, VI_ANY_LEVEL};
    struct vi_dropping dropping;
    uint32_t before = in->found;
    vi_drop_begin(core, &dropping);
    if (last - first < in->found) {
        for (uint64_t sid = first; sid <= last; sid++)
            withdraw_stream(in, (uint32_t)sid, &withdrawn);
    } else {
        for (struct link *next, *link = in->by_age.next; link != &in->by_age; link = next) {
            struct snapshot *snapshot = OWNER(link, struct snapshot, by_age);
            next = link->next;
            if (first <= snapshot->context.sid && snapshot->context.sid <= last)
                withdraw(in, snapshot, &withdrawn);
        }
    }
    retire(core, withdrawn);
    vi_drop_end(&dropping, VI_DROPPED_CONTEXTS, &what, before - in->found);
}

static inline struct snapshot *find(const struct vi_contexts *in, uint32_t sid, uint32_t ssid)
{
    const struct set *set = &in->sets[hash_of(sid, ssid, in->hash_shift)];
    for (unsigned way = 0; way < WAYS; way++) {
        struct snapshot *found = atomic_load_explicit(&set->way[way], memory_order_acquire);
        if (found && found->context.sid == sid && found->context.ssid == ssid)
            return found;
    }
    return NULL;
}

static void withdraw_one(struct vi_core *core, uint32_t sid, uint32_t ssid)
{
    struct snapshot *withdrawn = NULL, *found = find(core->contexts, sid, ssid);
    if (found)
        withdraw(core->contexts, found, &withdrawn);
    retire(core, withdrawn);
}

void vi_withdraw(struct vi_core *core, uint32_t sid, uint32_t ssid)
{
    struct vi_invalidation what = {VI_ANY, sid, sid, VI_ANY, (int32_t)ssid, 0, 0, VI_ANY_LEVEL};
    struct vi_dropping dropping;
    uint32_t before = core->contexts->found;
    vi_drop_begin(core, &dropping);
    withdraw_one(core, sid, ssid);
    vi_drop_end(&dropping, VI_DROPPED_CONTEXTS, &what, before - core->contexts->found);
}

void vi_contexts_free(struct vi_core *core)
{
    vi_withdraw_streams(core, 0, UINT32_MAX);
    vi_quiesce(core);
    free(core->contexts->streams);
    free(core->contexts->sets);
    free(core->contexts);
}

/* ---- publishing -------------------------------------------------------------------------------------------------- */

/* A free way for a context: of a full set the oldest one's. */
static _Atomic(struct snapshot *) *free_way(struct vi_contexts *in, uint32_t sid, uint32_t ssid,
                                            struct snapshot **withdrawn)
{
    struct set *set = &in->sets[hash_of(sid, ssid, in->hash_shift)];
    struct snapshot *oldest = NULL;
    for (unsigned way = 0; way < WAYS; way++) {
        struct snapshot *there = VI_GET(set->way[way]);
        if (!there)
            return &set->way[way];
        if (!oldest || there->age < oldest->age)
            oldest = there;
    }
    _Atomic(struct snapshot *) *way = oldest->way;
    withdraw(in, oldest, withdrawn);
    return way;
}

bool vi_publish(struct vi_core *core, uint32_t sid, uint32_t ssid, const struct vi_context *context)
{
    struct vi_contexts *in = core->contexts;
    struct snapshot *withdrawn = NULL, *snapshot;
    withdraw_one(core, sid, ssid);
    if (atomic_load(&in->existing) >= in->most)
        vi_quiesce(core); /* software that never sends a CMD_SYNC has nothing freed but by this */
    if (!(snapshot = aligned_alloc(_Alignof(struct snapshot), sizeof *snapshot)))
        return false;
    if (in->found == in->capacity)
        withdraw(in, OWNER(in->by_age.next, struct snapshot, by_age), &withdrawn);
    snapshot->context = *context;
    snapshot->context.sid = sid;
    snapshot->context.ssid = ssid;
    vi_hold_context(core, &snapshot->context);
    snapshot->age = in->ages++;
    append(&in->by_age, &snapshot->by_age);
    append(stream_of(in, sid), &snapshot->of_stream);
    snapshot->way = free_way(in, sid, ssid, &withdrawn);
    in->found++;
    atomic_fetch_add(&in->existing, 1);
    atomic_store_explicit(snapshot->way, snapshot, memory_order_release);
    retire(core, withdrawn);
    return true;
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

const struct vi_context *vi_context_of(struct vi_reader *reader, uint32_t sid, uint32_t ssid)
{
    const struct snapshot *snapshot = find(reader->core->contexts, sid, ssid);
    if (VI_UNLIKELY(!snapshot))
        return NULL;
    VI_COUNT(reader->counters.contexts);
    return &snapshot->context;
}
