/* SPDX-License-Identifier: Apache-2.0 */
/* One instance: its readers, what they may still use, and guest memory. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "descriptors are read as the host's own words");

static const struct vi_window no_window; /* holds nothing: its size is 0 */

static void set_up(struct vi_setup *setup, const struct vi_parameters *parameters)
{
    setup->parameters = *parameters;
    setup->output_mask = (UINT64_C(1) << parameters->output_bits) - 1;
}

struct vi_core *vi_core_new(uint32_t tlb_entries, uint32_t contexts)
{
    struct vi_core *core = aligned_alloc(64, sizeof *core);
    if (!core)
        return NULL;
    memset(core, 0, sizeof *core);
    struct vi_windows *windows = calloc(1, sizeof *windows);
    struct vi_setup *setup = calloc(1, sizeof *setup);
    if (setup)
        set_up(setup, &(struct vi_parameters){.output_bits = 32});
    atomic_store(&core->windows, windows);
    atomic_store(&core->setup, setup);
    pthread_mutex_init(&core->quiescing, NULL);
    for (unsigned at = 0; at < VI_SLOTS; at++)
        core->slots[at].core = core;
    if (windows && setup && vi_tlbs_new(core, tlb_entries ? tlb_entries : 1, contexts))
        core->contexts = vi_contexts_new(contexts);
    if (core->contexts)
        return core;
    vi_core_free(core);
    return NULL;
}

static void free_retired(struct vi_core *core, struct vi_retired *list)
{
    while (list) {
        struct vi_retired *next = list->next;
        list->release(core, list->what);
        free(list);
        list = next;
    }
}

void vi_core_free(struct vi_core *core)
{
    if (core->contexts)
        vi_contexts_free(core);
    free_retired(core, atomic_exchange(&core->retired, NULL));
    vi_tlbs_free(core);
    free((void *)atomic_load(&core->windows));
    free((void *)atomic_load(&core->setup));
    pthread_mutex_destroy(&core->quiescing);
    free(core);
}

/* ---- readers ------------------------------------------------------------------------------------------------------ */

struct vi_reader *vi_try_enter(struct vi_core *core, unsigned hint)
{
    if (VI_UNLIKELY(VI_GET(core->crowded)))
        return NULL;
    for (unsigned at = hint % VI_SLOTS, tries = 0; tries < VI_SLOTS; at = (at + 1) % VI_SLOTS, tries++) {
        struct vi_reader *reader = &core->slots[at];
        uint32_t turn = VI_GET(reader->turn);
        if (!(turn & 1)) {
            unsigned used = VI_GET(core->slots_used);
            while (VI_UNLIKELY(used <= at) && !atomic_compare_exchange_weak(&core->slots_used, &used, at + 1))
                ;
            if (atomic_compare_exchange_strong(&reader->turn, &turn, turn + 1)) {
                reader->setup = atomic_load_explicit(&core->setup, memory_order_acquire);
                reader->windows = atomic_load_explicit(&core->windows, memory_order_acquire);
                reader->last = reader->windows->count ? reader->windows->window : &no_window;
                reader->words_at = UINT64_MAX; /* no word is there */
                reader->words_span = 0;
                reader->tables_at = VI_NO_TABLE;
                reader->seen[0].table = reader->seen[1].table = NULL;
                if (!VI_UNWATCHED && VI_UNLIKELY(reader->looked = VI_GET(core->looked)))
                    vi_enter_looked(reader);
                return reader;
            }
        }
    }
    return NULL;
}

struct vi_reader *vi_enter(struct vi_core *core, unsigned hint)
{
    struct vi_reader *reader;
    while (VI_UNLIKELY(!(reader = vi_try_enter(core, hint)))) {
        vi_make_room(core);
        sched_yield();
    }
    return reader;
}

void vi_make_room(struct vi_core *core)
{
    if (VI_UNLIKELY(VI_GET(core->crowded)) && atomic_exchange(&core->crowded, false))
        vi_quiesce(core);
}

static void stop_attributing(struct vi_reader *reader)
{
    struct vi_core *core = reader->core;
    uint32_t following = atomic_load_explicit(&core->following, memory_order_acquire);
    reader->followed = false;
    for (unsigned which = 0; which < VI_FOLLOWED; which++) {
        struct vi_stream_span *span = &core->followed[which];
        if (!(following >> which & 1) || (reader->followed_sid ^ span->value) & span->mask)
            continue;
        for (unsigned at = 0; at < VI_COUNTERS; at++)
            atomic_fetch_add_explicit(&span->counts[at], VI_GET(*vi_counter(reader, at)) - reader->before[at],
                                      memory_order_relaxed);
    }
}

void vi_attribute(struct vi_reader *reader, uint32_t sid)
{
    if (reader->followed) {
        if (reader->followed_sid == sid)
            return;
        stop_attributing(reader);
    }
    reader->followed = true;
    reader->followed_sid = sid;
    for (unsigned at = 0; at < VI_COUNTERS; at++)
        reader->before[at] = VI_GET(*vi_counter(reader, at));
}

int vi_follow(struct vi_core *core, uint32_t mask, uint32_t value)
{
    uint32_t following = VI_GET(core->following);
    for (int which = 0; which < VI_FOLLOWED; which++) {
        struct vi_stream_span *span = &core->followed[which];
        if (following >> which & 1)
            continue;
        span->mask = mask;
        span->value = value;
        for (unsigned at = 0; at < VI_COUNTERS; at++)
            VI_PUT(span->counts[at], 0);
        atomic_fetch_or(&core->following, UINT32_C(1) << which);
        vi_quiesce(core);
        return which;
    }
    return -1;
}

void vi_unfollow(struct vi_core *core, int followed)
{
    atomic_fetch_and(&core->following, ~(UINT32_C(1) << followed));
    vi_quiesce(core);
}

void vi_followed(struct vi_core *core, int followed, uint64_t counts[VI_COUNTERS])
{
    for (unsigned at = 0; at < VI_COUNTERS; at++)
        counts[at] = VI_GET(core->followed[followed].counts[at]);
}

void vi_exit(struct vi_reader *reader)
{
    if (VI_UNLIKELY(reader->followed))
        stop_attributing(reader);
    atomic_store_explicit(&reader->turn, VI_GET(reader->turn) + 1, memory_order_release);
}

/*
 * A look at a slot is a read-modify-write that changes nothing: a reader that enters after it has seen, with the slot, all
 * that the looking thread did before; one that entered before it is seen inside. The same holds of the slots' number.
 */
static uint32_t look(struct vi_reader *reader) { return atomic_fetch_add(&reader->turn, 0); }

uint64_t vi_turns(struct vi_core *core)
{
    unsigned used = atomic_fetch_add(&core->slots_used, 0);
    uint64_t turns = used, inside = 0;
    for (unsigned at = 0; at < used; at++) {
        uint32_t turn = look(&core->slots[at]);
        turns += turn;
        inside |= turn & 1;
    }
    return turns << 1 | inside;
}

/* For the nth time: most readers are gone by now, the next ones have lost the processor, and the last waits for a client. */
static void wait_a_moment(unsigned spins)
{
    enum { QUICK = 64, LONG = 4096 };
    static const struct timespec a_while = {.tv_nsec = 200000};
    if (spins >= LONG)
        nanosleep(&a_while, NULL);
    else if (spins >= QUICK)
        sched_yield();
}

static void wait_for_readers(struct vi_core *core)
{
    unsigned used = atomic_fetch_add(&core->slots_used, 0);
    for (unsigned at = 0; at < used; at++) {
        uint32_t turn = look(&core->slots[at]);
        if (turn & 1)
            for (unsigned spins = 0; atomic_load_explicit(&core->slots[at].turn, memory_order_acquire) == turn; spins++)
                wait_a_moment(spins);
    }
}

void vi_quiesce(struct vi_core *core)
{
    pthread_mutex_lock(&core->quiescing);
    struct vi_retired *retired = atomic_exchange(&core->retired, NULL);
    unsigned pending = vi_pending(core);
    bool worn = vi_replace_tags(core);
    wait_for_readers(core);
    if (worn)
        vi_forget_tags(core);
    if (pending) {
        vi_invalidate_again(core, pending);
        /* Who came in since may have found what is invalidated only now. */
        wait_for_readers(core);
    }
    VI_COUNT(core->quiesced); /* only now: who was inside until now may not have seen it */
    pthread_mutex_unlock(&core->quiescing);
    free_retired(core, retired);
}

uint64_t vi_quiesced(struct vi_core *core) { return VI_GET(core->quiesced); }

void vi_retire(struct vi_core *core, void *what, void (*release)(struct vi_core *core, void *what))
{
    struct vi_retired *retired = malloc(sizeof *retired);
    if (!retired)
        return; /* a leak is the lesser evil: its user may be whoever calls */
    *retired = (struct vi_retired){atomic_load(&core->retired), release, what};
    while (!atomic_compare_exchange_weak(&core->retired, &retired->next, retired))
        ;
}

static void release_memory(struct vi_core *core, void *what)
{
    (void)core;
    free(what);
}

void vi_set_parameters(struct vi_core *core, const struct vi_parameters *parameters)
{
    struct vi_setup *setup = calloc(1, sizeof *setup);
    if (!setup)
        abort(); /* software switched something on or off, and nothing else may be true */
    set_up(setup, parameters);
    vi_retire(core, (void *)atomic_exchange(&core->setup, setup), release_memory);
    vi_quiesce(core);
}

/* ---- guest memory ------------------------------------------------------------------------------------------------ */

bool vi_set_windows(struct vi_core *core, const struct vi_window *windows, uint32_t count)
{
    struct vi_windows *table = malloc(sizeof *table + count * sizeof *windows);
    if (!table)
        return false;
    table->count = count;
    if (count)
        memcpy(table->window, windows, count * sizeof *windows);
    for (uint32_t at = 0; at < count; at++)
        if (!table->window[at].host)
            table->window[at].allows = 0;
    vi_retire(core, (void *)atomic_exchange(&core->windows, table), release_memory);
    vi_quiesce(core);
    return true;
}

const struct vi_window *vi_window_of(const struct vi_reader *reader, uint64_t pa)
{
    const struct vi_windows *windows = reader->windows;
    uint32_t low = 0, high = windows->count; /* the first window beyond pa is in [low, high] */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (windows->window[middle].base <= pa)
            low = middle + 1;
        else
            high = middle;
    }
    const struct vi_window *found = low ? &windows->window[low - 1] : &no_window;
    return pa - found->base < found->size ? found : &no_window;
}

uint8_t *vi_find_slowly(struct vi_reader *reader, uint64_t pa, uint64_t size, unsigned may)
{
    const struct vi_window *w = vi_window_of(reader, pa);
    if (!w->host || w->size - (pa - w->base) < size || (w->allows & may) != may)
        return NULL;
    reader->last = w;
    return w->host + (pa - w->base);
}

bool vi_fetch64_slowly(struct vi_reader *reader, uint64_t pa, uint64_t *value)
{
    const uint8_t *host = vi_find(reader, pa, 8, VI_MAY_READ);
    if (!host)
        return false;
    const struct vi_window *w = reader->last;
    if (w->broken || (uintptr_t)w->host % 8 || w->base % 8 || pa % 8) {
        memcpy(value, host, 8);
        return !vi_broken(w);
    }
    reader->words_at = w->base;
    reader->words_span = w->size - 8;
    reader->words = w->host;
    reader->tables_at = w->size >> 12 ? w->base | VI_TableDescriptor_TYPE : VI_NO_TABLE;
    reader->tables_span = (w->size >> 12) - 1;
    *value = atomic_load_explicit((const _Atomic uint64_t *)(const void *)host, memory_order_relaxed);
    return true;
}

bool vi_load64(struct vi_reader *reader, uint64_t pa, uint64_t *value)
{
    return pa % 8 ? vi_fetch64_slowly(reader, pa, value) : vi_fetch64(reader, pa, value);
}

int vi_swap64(struct vi_reader *reader, uint64_t pa, uint64_t expected, uint64_t desired)
{
    uint8_t *host = vi_find(reader, pa, 8, VI_MAY_READ | VI_MAY_WRITE);
    if (!host || (uintptr_t)host % 8 || pa % 8)
        return -1;
    bool swapped = atomic_compare_exchange_strong((_Atomic uint64_t *)(void *)host, &expected, desired);
    return vi_broken(reader->last) ? -1 : swapped;
}

bool vi_read(struct vi_reader *reader, uint64_t pa, void *to, uint64_t size)
{
    const uint8_t *host = vi_find(reader, pa, size, VI_MAY_READ);
    if (!host)
        return false;
    memcpy(to, host, size);
    vi_after_read();
    return !vi_broken(reader->last);
}

bool vi_write(struct vi_reader *reader, uint64_t pa, const void *from, uint64_t size)
{
    uint8_t *host = vi_find(reader, pa, size, VI_MAY_WRITE);
    if (!host)
        return false;
    vi_before_write();
    memcpy(host, from, size);
    return !vi_broken(reader->last);
}
