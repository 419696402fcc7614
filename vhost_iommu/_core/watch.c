/* SPDX-License-Identifier: Apache-2.0 */
#include "watch.h"

#include <stdlib.h>
#include <string.h>

bool vi_watch_make(struct vi_watch *watch, uint64_t size)
{
    memset(watch, 0, sizeof *watch);
    watch->size = size;
    watch->ring = calloc(size, sizeof *watch->ring); /* whose pages are there once they are used */
    atomic_store(&watch->lost_from, UINT64_MAX);
    atomic_store(&watch->ready, -1);
    return watch->ring;
}

void vi_watch_free(struct vi_watch *watch)
{
    free(watch->ring);
    watch->ring = NULL;
}

uint64_t vi_watch_told(struct vi_watch *watch)
{
    uint64_t from = atomic_load(&watch->taken), next = atomic_load(&watch->next), at = from;
    while (at != next && atomic_load_explicit(&watch->ring[at & (watch->size - 1)].number, memory_order_acquire) == at + 1)
        at++;
    return at - from;
}

/* The gap is what has not been told from `lost_from` on; it may come a moment late, and never twice. */
static void tell_gap(struct vi_watch *watch)
{
    uint64_t lost[VI_LOSABLE], all = 0, number, first = atomic_exchange(&watch->lost_from, UINT64_MAX);
    for (unsigned kind = 0; kind < VI_LOSABLE; kind++)
        all += lost[kind] = atomic_exchange_explicit(&watch->lost[kind], 0, memory_order_acquire);
    if (!all)
        return;
    if (!vi_promise(watch, 1)) { /* then with the next */
        for (unsigned kind = 0; kind < VI_LOSABLE; kind++)
            atomic_fetch_add(&watch->lost[kind], lost[kind]);
        atomic_store(&watch->lost_from, first);
        return;
    }
    struct vi_record *record = vi_tell_begin(watch, &number);
    record->word[0] = first < number ? first : number;
    for (unsigned kind = 0; kind < VI_LOSABLE; kind++)
        memcpy((char *)&record->word[1] + 4 * kind, &(uint32_t){lost[kind] > UINT32_MAX ? UINT32_MAX : (uint32_t)lost[kind]}, 4);
    vi_tell(record, number, VI_GAP);
    vi_unpromise(watch, 1);
}

void vi_watch_take(struct vi_watch *watch, uint64_t count, struct vi_record *to)
{
    uint64_t from = atomic_load(&watch->taken), at = from & (watch->size - 1);
    uint64_t first = watch->size - at < count ? watch->size - at : count;
    /* What was told is plain memory by now, and its teller's. */
    memcpy((void *)to, (const void *)&watch->ring[at], first * sizeof *to);
    memcpy((void *)(to + first), (const void *)watch->ring, (count - first) * sizeof *to);
    atomic_store(&watch->called, false);
    atomic_store(&watch->taken, from + count);
    tell_gap(watch);
}
