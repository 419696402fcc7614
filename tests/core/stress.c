/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that make DMA while software remaps, invalidates and unplugs memory; for ThreadSanitizer above all.
 *
 * Law: software's changes have numbers. A request that begins after change n was completed (its vi_quiesce returned)
 * and ends before change m is begun uses what one of the changes n to m - 1 mapped, and nothing else. A page that is no
 * longer mapped is nobody's: software writes to it without any lock. Meanwhile somebody looks on, for a millisecond at a
 * time: each number is told once, a request that began before a CMD_SYNC has told all before it, and what is never lost
 * is as much as was done.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "software.h"
#include "v3/doorbell.h"
#include "watch.h"

enum { READERS = 3 };

/* A command queue of four entries, and where its CMD_SYNCs' MSIs go. */
enum { QUEUE = 0x3E000, QUEUE_LOG2SIZE = 2, INDEX_MASK = 7, MSI = 0x3F000 };
enum { PROD = 0, CONS = 4 };

/* Behind RAM and a hole; one that comes and goes. */
#define PLUGGED_BASE UINT64_C(0x50000000)
#define PLUGGED_SIZE UINT64_C(0x1000)

struct test {
    struct vi_core *core;
    uint8_t *ram;
    _Atomic uint64_t begun, completed; /* changes of the mapping of the first page */
    _Atomic bool over;
    struct vi_v3 v3;
    pthread_mutex_t lock; /* the owner's of the queue's registers, and whoever's who publishes */
    struct vi_mirror registers;
    struct vi_doorbell bell;
    uint64_t rings; /* that needed no owner */
    _Atomic uint64_t requests, asked, plugged; /* what readers did; how often the window was there */
    struct vi_watch watch;
    pthread_mutex_t taking;   /* held by who takes */
    pthread_mutex_t changing; /* held by software for a change, and by who begins or ends to look on */
    _Atomic uint64_t looks, told, fills, syncs, gaps; /* how often somebody looked on, and what was told then */
};

struct reader {
    struct test *test;
    unsigned lane;
    unsigned sid;
    uint64_t iova; /* of the first page */
    pthread_t thread;
};

static uint64_t page_of_change(uint64_t change) { return change % PAGE_COUNT; }
static uint64_t own_bytes(const struct reader *self) { return 64 * (1 + (uint64_t)self->lane); }
static uint64_t page_at(uint64_t page) { return PAGES + 0x1000 * page; }

/* Whether `page` was due at some time of a request that was begun after change `first`. */
static void require_due(struct test *test, uint64_t first, uint64_t page)
{
    uint64_t last = atomic_load(&test->begun);
    if (last - first < PAGE_COUNT)
        REQUIRE((page - page_of_change(first)) % PAGE_COUNT <= last - first);
}

/* As a model that is asked for a context: it carries out what is kept for it before. */
static void ask(struct test *test, uint32_t sid)
{
    pthread_mutex_lock(&test->lock);
    test->v3.kept = 0;
    publish(test->core, sid, VI_NO_SSID);
    pthread_mutex_unlock(&test->lock);
    atomic_fetch_add_explicit(&test->asked, 1, memory_order_relaxed);
}

/* One DMA by hand: translate, write a word of this reader's own, and read which page it is. */
static void translate(struct reader *self)
{
    struct test *test = self->test;
    uint64_t first = atomic_load(&test->completed), stamp = 0;
    struct vi_reader *inside = vi_enter(test->core, self->lane);
    const struct vi_context *context;
    while (!(context = vi_context_of(inside, self->sid, VI_NO_SSID))) {
        vi_exit(inside);
        ask(test, self->sid);
        inside = vi_enter(test->core, self->lane);
    }
    struct vi_output output;
    struct vi_fault fault =
        vi_translate(inside, context, self->iova, VI_WRITE, VI_INCOMING, &output);
    REQUIRE(fault.kind == VI_NO_FAULT && output.size == 0x1000); /* the page is never left unmapped */
    REQUIRE(vi_write(inside, output.pa + own_bytes(self), &first, sizeof first));
    REQUIRE(vi_read(inside, output.pa, &stamp, sizeof stamp));
    vi_exit(inside);
    uint64_t page = (output.pa - RAM_BASE - PAGES) / 0x1000;
    REQUIRE(stamp == page);
    require_due(test, first, page);
}

/* The same as whole requests; each of the two may find another page. */
static void dma(struct reader *self)
{
    struct test *test = self->test;
    uint64_t first = atomic_load(&test->completed), stamp = 0;
    struct vi_request write = {.sid = self->sid, .ssid = VI_NO_SSID, .iova = self->iova + own_bytes(self), .size = 8,
                               .access = VI_WRITE, .incoming = VI_INCOMING};
    struct vi_request read = {.sid = self->sid, .ssid = VI_NO_SSID, .iova = self->iova, .size = 8,
                              .incoming = VI_INCOMING};
    struct vi_result result;
    for (enum vi_end end = VI_ASK;;) {
        struct vi_reader *inside = vi_enter(test->core, self->lane);
        if (vi_dma_write(inside, &write, &first, &result) == VI_DONE)
            end = vi_dma_read(inside, &read, &stamp, &result);
        vi_exit(inside);
        if (end == VI_DONE)
            break;
        REQUIRE(result.end == VI_ASK);
        ask(test, self->sid);
    }
    REQUIRE(result.done == 8);
    require_due(test, first, stamp);
}

/* Memory that may be gone: either all of it is there, or nothing. */
static void read_plugged(struct reader *self)
{
    uint8_t bytes[256];
    struct vi_reader *inside = vi_enter(self->test->core, self->lane);
    bool done = vi_read(inside, PLUGGED_BASE + 64, bytes, sizeof bytes);
    vi_exit(inside);
    if (done) {
        REQUIRE(bytes[0] == 0x5A && !memcmp(bytes, bytes + 1, sizeof bytes - 1));
        atomic_fetch_add_explicit(&self->test->plugged, 1, memory_order_relaxed);
    }
}

static void *read_all_along(void *argument)
{
    struct reader *self = argument;
    for (unsigned turn = 0; !atomic_load_explicit(&self->test->over, memory_order_relaxed); turn++) {
        /* Long turns are interrupted in the middle of a request, short ones leave software the time to change much. */
        for (unsigned times = 0; times < 1U << (turn * 7 + self->lane) % 12; times++) {
            translate(self);
            dma(self);
            read_plugged(self);
            atomic_fetch_add_explicit(&self->test->requests, 1, memory_order_relaxed);
        }
        sched_yield();
    }
    return NULL;
}

static void set_windows(struct test *test, uint8_t *plugged)
{
    struct vi_window windows[] = {
        {.base = RAM_BASE, .size = RAM_SIZE, .host = test->ram, .allows = VI_MAY_READ | VI_MAY_WRITE},
        {.base = PLUGGED_BASE, .size = PLUGGED_SIZE, .host = plugged, .allows = VI_MAY_READ},
    };
    REQUIRE(vi_set_windows(test->core, windows, plugged ? 2 : 1));
}

/* As a model that goes on with a write: it finds the queue where the doorbell left it. Holds the lock. */
static void consume_as_owner(struct test *test, uint32_t prod)
{
    struct vi_consumed so_far;
    struct vi_command_queue *queue = &test->bell.queue;
    queue->prod = prod;
    test->v3.kept = 0;
    REQUIRE(vi_consume(&test->v3, queue, 100, &so_far) == ((prod - queue->cons) & INDEX_MASK));
    queue->cons = so_far.cons;
    REQUIRE(so_far.signals && vi_mirror_store(&test->registers, CONS, 4, queue->cons));
    atomic_store((_Atomic uint32_t *)(void *)(test->ram + MSI), (uint32_t)(so_far.command[0] >> 32));
}

/* Invalidate all by commands, contexts and what was made by them, and wait for the CMD_SYNC's MSI. */
static void invalidate_by_queue(struct test *test, uint64_t change)
{
    uint32_t prod, signal = (uint32_t)change;
    uint64_t commands[3][2] = {
        {VI_Opcode_CMD_CFGI_STE_RANGE, 31},
        {VI_Opcode_CMD_TLBI_NSNH_ALL, 0},
        {VI_Opcode_CMD_SYNC | VI_CompletionSignal_SIG_IRQ << 12 | (uint64_t)signal << 32, RAM_BASE + MSI},
    };
    uint64_t seen;
    REQUIRE(vi_mirror_load(&test->registers, PROD, 4, &seen));
    prod = (uint32_t)seen;
    for (unsigned at = 0; at < 3; at++, prod++)
        memcpy(test->ram + QUEUE + 16 * (prod & (INDEX_MASK >> 1)), commands[at], 16);
    prod &= INDEX_MASK;
    if (vi_doorbell_store(&test->bell, PROD, prod)) {
        test->rings++;
    } else {
        pthread_mutex_lock(&test->lock);
        vi_mirror_store(&test->registers, PROD, 4, prod);
        consume_as_owner(test, prod);
        pthread_mutex_unlock(&test->lock);
    }
    while (atomic_load((_Atomic uint32_t *)(void *)(test->ram + MSI)) != signal)
        sched_yield();
    REQUIRE(vi_mirror_load(&test->registers, CONS, 4, &seen) && seen == prod);
}

/* Somebody who takes the lock now and then, to whom the registers must be whole. */
static void *own(void *argument)
{
    struct test *test = argument;
    while (!atomic_load_explicit(&test->over, memory_order_relaxed)) {
        pthread_mutex_lock(&test->lock);
        if (atomic_load(&test->bell.rung)) {
            REQUIRE(test->bell.armed);
            /* A doorbell that declined half way has left the rest to who rang it, who may not have the lock yet. */
            if (test->bell.queue.prod == test->bell.queue.cons)
                atomic_store(&test->bell.rung, false);
        }
        pthread_mutex_unlock(&test->lock);
        sched_yield();
    }
    return NULL;
}

static void make_doorbell(struct test *test)
{
    REQUIRE(!pthread_mutex_init(&test->lock, NULL) && vi_mirror_make(&test->registers, 8));
    test->registers.plain = true;
    test->bell = (struct vi_doorbell){
        .lock = &test->lock,
        .v3 = &test->v3,
        .mirror = &test->registers,
        .prod_at = PROD,
        .cons_at = CONS,
        .burst = 100,
        .armed = true,
        .writable = INDEX_MASK,
        .queue = {RAM_BASE + QUEUE, QUEUE_LOG2SIZE, 0, 0, 0xFFFF, true, VI_SIGNALS_IN_RAM},
    };
}

/* All that was told is there, in order, and once. */
static void take(struct test *test)
{
    static struct vi_record records[4096];
    pthread_mutex_lock(&test->taking);
    uint64_t from = atomic_load(&test->watch.taken), count = vi_watch_told(&test->watch);
    count = count < 4096 ? count : 4096;
    vi_watch_take(&test->watch, count, records);
    for (uint64_t at = 0; at < count; at++) {
        const struct vi_record *record = &records[at];
        REQUIRE(atomic_load(&record->number) == from + at + 1);
        switch (record->kind) {
        case VI_FILLED:
            REQUIRE(record->sid < STREAMS);
            test->fills++;
            break;
        case VI_COMMAND:
            test->syncs += (record->word[0] & 0xFF) == VI_Opcode_CMD_SYNC;
            break;
        case VI_GAP:
            test->gaps++;
            break;
        case VI_ACCESSED: case VI_USED: case VI_DROPPED: case VI_TRANSLATED: case VI_INTERRUPTED: case VI_MOVED: case VI_VOID:
            break;
        default:
            REQUIRE(!"a kind that the core does not tell");
        }
    }
    test->told += count;
    pthread_mutex_unlock(&test->taking);
}

/* Have room for an invalidation, as whoever carries one out. */
static void promise(struct test *test)
{
    while (!vi_promise(&test->watch, 8))
        take(test);
}

/* Software's ways of saying that the first page's translation changed. */
static void invalidate(struct test *test, uint64_t change)
{
    struct vi_core *core = test->core;
    switch (change % 7) {
    case 0:
        vi_invalidate_range(core, VI_WORLD_EL1, IOVA, 0x1000, VI_ANY, 0xFFFF, ASID, 12, 3);
        vi_invalidate_range(core, VI_WORLD_STAGE2, RAM_BASE + PAGES, 0x1000, VMID, 0xFFFF, VI_ANY, 12, 3);
        break;
    case 1:
        vi_invalidate_range(core, VI_WORLD_EL1, IOVA, 0x1000, VI_ANY, 0xFFFF, VI_ANY, 0, VI_ANY_LEVEL);
        vi_invalidate_range(core, VI_WORLD_STAGE2, RAM_BASE, RAM_SIZE, VI_ANY, 0xFFFF, VI_ANY, 0, VI_ANY_LEVEL);
        break;
    case 2:
        vi_invalidate_spaces(core, VI_WORLD_EL1, VI_ANY, 0xFFFF, ASID);
        vi_invalidate_spaces(core, VI_WORLD_STAGE2, VMID, 0xFFFF, VI_ANY);
        break;
    case 3:
        invalidate_tlbs(core);
        break;
    case 4:
        pthread_mutex_lock(&test->lock);
        vi_withdraw_streams(core, STAGE1_STREAM, NESTED_STREAM);
        pthread_mutex_unlock(&test->lock);
        invalidate_tlbs(core);
        break;
    default:
        invalidate_by_queue(test, change);
        return; /* which waits for requests that are under way */
    }
    vi_quiesce(core);
}

/* Give change n's page to the first page of all streams, and take it from change n - 1. */
static void remap(struct test *test, uint64_t change)
{
    uint64_t old = page_of_change(change - 1), new = page_of_change(change), pa = RAM_BASE + page_at(new);
    pthread_mutex_lock(&test->changing);
    promise(test);
    atomic_store(&test->begun, change);
    /* Stage 2 maps all pages but the first to themselves, so a nested stream gets to the same page by stage 1. */
    atomic_store((_Atomic uint64_t *)(void *)(test->ram + stage1_at(0)), page_descriptor(pa));
    atomic_store((_Atomic uint64_t *)(void *)(test->ram + stage2_at(0)), stage2_descriptor(pa, 3));
    invalidate(test, change);
    vi_unpromise(&test->watch, 8);
    pthread_mutex_unlock(&test->changing);
    atomic_store(&test->completed, change);
    /* Nobody is there any more: a plain write races with whoever is. */
    memset(test->ram + page_at(old) + 64, 0, 64 * READERS);
}

/* Somebody who begins to look on, and ends, each millisecond; as Watch.attach (watch.py). */
static void *look_on(void *argument)
{
    struct test *test = argument;
    const struct timespec rest = {.tv_nsec = 1000000};
    while (!atomic_load_explicit(&test->over, memory_order_relaxed)) {
        for (unsigned on = 2; on--;) {
            pthread_mutex_lock(&test->changing);
            pthread_mutex_lock(&test->lock);
            atomic_store(&test->watch.kinds, on ? UINT32_MAX : 0);
            vi_watch_core(test->core, on ? &test->watch : NULL);
            vi_quiesce(test->core);
            pthread_mutex_unlock(&test->lock);
            pthread_mutex_unlock(&test->changing);
            if (on)
                nanosleep(&rest, NULL);
            /* Slowly at times, so that there is no room. */
            if (!on || test->looks % 4)
                take(test);
        }
        while (vi_watch_told(&test->watch))
            take(test);
        REQUIRE(atomic_load(&test->watch.promised) == 0 || vi_watch_room(&test->watch));
        test->looks++;
    }
    return NULL;
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

int main(int count, char **arguments)
{
    double seconds = count > 1 ? atof(arguments[1]) : 1;
    struct test test = {.core = vi_core_new(64, 16), .ram = aligned_alloc(4096, RAM_SIZE)};
    REQUIRE(test.core && test.ram);
    memset(test.ram, 0, RAM_SIZE);
    write_tables(test.ram);
    test.v3 = (struct vi_v3){.core = test.core, .idr0 = VI_IDR0_S1P | VI_IDR0_S2P | VI_IDR0_MSI};
    for (unsigned page = 0; page < PAGE_COUNT; page++)
        put64(test.ram, page_at(page), page);
    set_windows(&test, NULL);
    struct vi_parameters set = parameters();
    vi_set_parameters(test.core, &set);

    REQUIRE(vi_watch_make(&test.watch, 4096) && !pthread_mutex_init(&test.changing, NULL) &&
            !pthread_mutex_init(&test.taking, NULL));
    make_doorbell(&test);
    test.registers.watch = &test.watch;
    pthread_t owner, looker;
    REQUIRE(!pthread_create(&owner, NULL, own, &test));

    struct reader readers[READERS];
    static const unsigned sids[READERS] = {STAGE1_STREAM, STAGE2_STREAM, NESTED_STREAM};
    for (unsigned lane = 0; lane < READERS; lane++) {
        readers[lane] = (struct reader){.test = &test, .lane = lane, .sid = sids[lane], .iova = IOVA};
        if (sids[lane] == STAGE2_STREAM)
            readers[lane].iova = RAM_BASE + PAGES;
        REQUIRE(!pthread_create(&readers[lane].thread, NULL, read_all_along, &readers[lane]));
    }
    REQUIRE(!pthread_create(&looker, NULL, look_on, &test));
    uint64_t change = 0;
    for (double end = now() + seconds; now() < end;) {
        for (unsigned times = 0; times < 20; times++)
            remap(&test, ++change);
        uint8_t *plugged = malloc(PLUGGED_SIZE);
        REQUIRE(plugged);
        memset(plugged, 0x5A, PLUGGED_SIZE);
        set_windows(&test, plugged);
        for (unsigned times = 0; times < 5; times++)
            remap(&test, ++change);
        set_windows(&test, NULL);
        memset(plugged, 0, PLUGGED_SIZE);
        free(plugged);
    }
    atomic_store(&test.over, true);
    for (unsigned lane = 0; lane < READERS; lane++)
        pthread_join(readers[lane].thread, NULL);
    pthread_join(owner, NULL);
    pthread_join(looker, NULL);
    REQUIRE(atomic_load(&test.watch.promised) == 0);
    printf("stress: %llu changes, %llu by the doorbell, %llu requests, %llu contexts asked for, "
           "%llu reads of memory that came and went; looked on %llu times at %llu records, %llu fills, %llu CMD_SYNCs, %llu gaps\n",
           (unsigned long long)change, (unsigned long long)test.rings, (unsigned long long)test.requests,
           (unsigned long long)test.asked, (unsigned long long)test.plugged, (unsigned long long)test.looks,
           (unsigned long long)test.told, (unsigned long long)test.fills, (unsigned long long)test.syncs,
           (unsigned long long)test.gaps);
    REQUIRE(change && test.requests && test.asked && test.rings && test.looks && test.fills && test.syncs);
    vi_core_free(test.core);
    vi_mirror_free(&test.registers);
    vi_watch_free(&test.watch);
    free(test.ram);
    return 0;
}
