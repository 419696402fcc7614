/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiled core against plain C that does the least of the same: what a figure's variants take, measured in turns.
 *
 *   core FIGURE ROUNDS           lines of "VARIANT NANOSECONDS", one for each variant and round: per operation
 *   core FIGURE count VARIANT    runs `counted` once, for callgrind to look at: prints how many operations that was
 *   core sizes                   lines of "NAME BYTES"
 *   core figures                 lines of "FIGURE VARIANT"
 *
 * A round is the least of some short times, so that who shares the processor with us is not measured. Each processor that
 * we may use has at most one thread of ours: the last one the first.
 *
 * Knows core.h, the layout of tables in memory, and of the core's own headers the sizes of what is cached.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "translate.h"

#define REQUIRE(what)                                                                                                 \
    do {                                                                                                              \
        if (!(what)) {                                                                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                        \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

#define NOINLINE __attribute__((noinline))
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- guest memory and what software puts there ------------------------------------------------------------------- */

#define RAM_BASE UINT64_C(0x40000000)
#define RAM_SIZE (UINT64_C(512) << 20) /* of which the host gives what is touched */
#define PAGE UINT64_C(0x1000)
#define ADDRESS UINT64_C(0x0000FFFFFFFFF000) /* of a descriptor */

static uint8_t *ram;
static uint64_t ram_used;

static uint64_t allocate(uint64_t size)
{
    uint64_t at = (ram_used + size - 1) / size * size;
    ram_used = at + size;
    REQUIRE(ram_used <= RAM_SIZE);
    return RAM_BASE + at;
}

static uint64_t *word_at(uint64_t pa) { return (uint64_t *)(void *)(ram + (pa - RAM_BASE)); }

/* Map a page in a table of four levels; stage 1: nG, AF, SH 3, AP 1; stage 2: AF, SH 3, S2AP 3, write-back. */
static void map(uint64_t root, uint64_t address, uint64_t pa, unsigned stage)
{
    uint64_t table = root;
    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t *descriptor = word_at(table) + (address >> shift & 511);
        if (!*descriptor)
            *descriptor = allocate(PAGE) | 3;
        table = *descriptor & ADDRESS;
    }
    word_at(table)[address >> 12 & 511] = pa | (stage == 1 ? 0xF43 : 0x7FF);
}

/* Stage 2 as identity of all of RAM that is in use. */
static void map_all(uint64_t root)
{
    uint64_t last;
    do {
        last = ram_used;
        for (uint64_t at = RAM_BASE; at < RAM_BASE + last; at += PAGE)
            map(root, at, at, 2);
    } while (last != ram_used); /* its own tables are in RAM, too */
}

/* A table of four levels, as a model describes it. */
static struct vi_table table_of(uint64_t root, uint8_t stage)
{
    return (struct vi_table){
        .stage = stage,
        .base = root,
        .mair = 0x04FF, /* write-back, Device-nGnRE */
        .granule_bits = 12,
        .input_bits = 48,
        .output_bits = 48,
        .start_level = 0,
        .first_block_level = 1,
        .shareability = VI_SH_OF_LEAF,
        .enabled = true,
        .hierarchical = true,
        .access_fault = true,
    };
}

/* ---- an SMMU, and pages that its streams have ---------------------------------------------------------------------- */

enum { LANES = 2, MOST_PAGES = 512, MOST_STREAMS = 65536 };

static struct vi_core *core;
static uint64_t stage1_root, stage2_root;
static bool nested; /* whether streams have stage 2, too */
static uint64_t iovas[MOST_PAGES], answers[MOST_PAGES];
static unsigned pages; /* of stream 0, at iovas */

static uint64_t seed = 1;
static uint64_t random_below(uint64_t count)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (seed >> 33) % count;
}

static void shuffle(uint64_t *what, unsigned count)
{
    for (unsigned at = count; at > 1; at--) {
        unsigned other = (unsigned)random_below(at);
        uint64_t swapped = what[at - 1];
        what[at - 1] = what[other];
        what[other] = swapped;
    }
}

/* As a model that is asked for a stream: all have the same pages, and each an ASID of its own. */
static void publish(uint32_t sid, uint32_t ssid)
{
    struct vi_context made = {
        .stage1 = true,
        .stage2 = nested,
        .output_bits = 48,
        .bypass_bits = 48,
        .world = VI_WORLD_EL1,
        .vmid = nested,
        .asid = (uint16_t)(1 + (ssid == VI_NO_SSID ? sid : ssid) % 0xFFFF),
        .unprivileged = true,
        .uwxn = true,
        .privileged = VI_AS_IT_CAME,
        .instruction = VI_AS_IT_CAME,
        .shcfg = 1, /* as it came */
        .half[0] = table_of(stage1_root, 1),
    };
    if (nested)
        made.s2 = table_of(stage2_root, 2);
    REQUIRE(vi_make_context(core, &made) && vi_publish(core, sid, ssid, &made));
    vi_drop_context(core, &made);
}

static void new_core(uint32_t tlb_entries)
{
    if (core)
        vi_core_free(core);
    struct vi_window window = {.base = RAM_BASE, .size = RAM_SIZE, .host = ram, .allows = VI_MAY_READ | VI_MAY_WRITE};
    struct vi_parameters parameters = {.output_bits = 48, .enabled = true};
    core = vi_core_new(tlb_entries, 4096); /* as many contexts as the models ask for */
    REQUIRE(core && vi_set_windows(core, &window, 1));
    vi_set_parameters(core, &parameters);
    for (uint32_t sid = 0; sid < LANES; sid++)
        publish(sid, VI_NO_SSID);
}

static void new_ram(void)
{
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(ram != MAP_FAILED);
    ram_used = PAGE; /* 0 is no address of a table */
    stage1_root = allocate(PAGE);
    stage2_root = allocate(PAGE);
}

/* Pages next to each other in IOVA space, anywhere in RAM, for stream 0. */
static void neighbours(unsigned count)
{
    uint64_t pas[MOST_PAGES];
    for (unsigned at = 0; at < count; at++)
        pas[at] = allocate(PAGE);
    shuffle(pas, count);
    for (unsigned at = 0; at < count; at++) {
        iovas[at] = UINT64_C(0xFFFF00000000) + at * PAGE;
        map(stage1_root, iovas[at], pas[at], 1);
    }
    pages = count;
}

/* Pages with no table in common but the first; their descriptors are in different lines of a cache's sets. */
static void strangers(unsigned count)
{
    for (unsigned at = 0; at < count; at++) {
        uint64_t index = (at + 1) * 8 % 512;
        iovas[at] = (uint64_t)(at + 1) << 39 | index << 30 | (index + 136) % 512 << 21 | (index + 272) % 512 << 12;
        map(stage1_root, iovas[at], allocate(PAGE), 1);
    }
    pages = count;
}

/* ---- plain C that does the least ----------------------------------------------------------------------------------- */

struct bare_entry {
    _Alignas(64) uint64_t page, tag, output, may;
};

struct bare_set {
    _Alignas(64) uint32_t print[8];
    uint32_t victim;
    struct bare_entry entry[8];
};

static struct bare_set *bare_table;
static unsigned bare_sets, bare_shift;
#define BARE_TAG 7

static void new_bare_table(unsigned entries)
{
    bare_sets = entries / 8;
    bare_shift = 64 - (unsigned)__builtin_ctz(bare_sets);
    free(bare_table);
    bare_table = aligned_alloc(64, bare_sets * sizeof *bare_table);
    REQUIRE(bare_table);
    memset(bare_table, 0, bare_sets * sizeof *bare_table);
}

static inline uint64_t bare_hash(uint64_t page) { return (page ^ (uint64_t)BARE_TAG << 32) * UINT64_C(0x9E3779B97F4A7C15); }
static inline struct bare_set *bare_set_of(uint64_t hash)
{
    return &bare_table[bare_sets == 1 ? 0 : hash >> bare_shift];
}

static inline bool bare_find(uint64_t address, unsigned may, uint64_t *pa)
{
    uint64_t page = address >> 12, hash = bare_hash(page);
    struct bare_set *set = bare_set_of(hash);
    uint32_t print = (uint32_t)(hash >> 16) | 1;
    for (unsigned way = 0; way < 8; way++)
        if (set->print[way] == print && set->entry[way].page == page && set->entry[way].tag == BARE_TAG) {
            if (!(set->entry[way].may & may))
                return false;
            *pa = set->entry[way].output | (address & 0xFFF);
            return true;
        }
    return false;
}

static inline void bare_put(uint64_t address, uint64_t pa)
{
    uint64_t page = address >> 12, hash = bare_hash(page);
    struct bare_set *set = bare_set_of(hash);
    unsigned way = set->victim++ % 8;
    set->entry[way] = (struct bare_entry){page, BARE_TAG, pa & ~UINT64_C(0xFFF), VI_MAY_READ | VI_MAY_WRITE};
    set->print[way] = (uint32_t)(hash >> 16) | 1;
}

static inline bool bare_walk2(uint64_t address, uint64_t *pa)
{
    uint64_t table = stage2_root;
    for (unsigned shift = 39;; shift -= 9) {
        uint64_t descriptor = word_at(table)[address >> shift & 511];
        if (!(descriptor & 1))
            return false;
        if (shift > 12 && (descriptor & 2)) {
            table = descriptor & ADDRESS;
            continue;
        }
        if ((shift == 12) != !!(descriptor & 2) || !(descriptor & 1 << 10) || !(descriptor & 1 << 6))
            return false;
        uint64_t within = (UINT64_C(1) << shift) - 1;
        *pa = (descriptor & ADDRESS & ~within) | (address & within);
        return true;
    }
}

static inline bool bare_walk(uint64_t address, bool both_stages, uint64_t *pa)
{
    uint64_t table = stage1_root;
    for (unsigned shift = 39;; shift -= 9) {
        uint64_t at = table + (address >> shift & 511) * 8;
        if (both_stages && !bare_walk2(at, &at))
            return false;
        uint64_t descriptor = *word_at(at);
        if (!(descriptor & 1))
            return false;
        if (shift > 12 && (descriptor & 2)) {
            table = descriptor & ADDRESS;
            continue;
        }
        if ((shift == 12) != !!(descriptor & 2) || !(descriptor & 1 << 10) || !(descriptor & 1 << 6))
            return false;
        uint64_t within = (UINT64_C(1) << shift) - 1;
        *pa = (descriptor & ADDRESS & ~within) | (address & within);
        return !both_stages || bare_walk2(*pa, pa);
    }
}

/* ---- what is measured ------------------------------------------------------------------------------------------------ */

/* `run` does `operations`; lane 0 is the first thread's. */
struct variant {
    const char *name;
    void (*run)(unsigned lane);
    uint64_t operations;
    bool both; /* two threads do so many each; the time is that until both have ended */
};

enum { TRIES = 15 };
#define CHUNK 400000 /* nanoseconds, about */

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void keep_to(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

/* The processors of our lanes: the last two that we may use; -1: there is no such. */
static int cpus[LANES] = {-1, -1};

static void find_cpus(void)
{
    cpu_set_t set;
    REQUIRE(!sched_getaffinity(0, sizeof set, &set));
    unsigned lane = 0;
    for (int cpu = CPU_SETSIZE; cpu-- > 0 && lane < LANES;)
        if (CPU_ISSET(cpu, &set))
            cpus[lane++] = cpu;
    keep_to(cpus[0]);
}

NOINLINE void counted(const struct variant *variant, uint64_t runs);
NOINLINE void counted(const struct variant *variant, uint64_t runs)
{
    for (uint64_t at = 0; at < runs; at++)
        variant->run(0);
}

/* The second lane's thread: asked by `wanted`, which is a variant, it waits for the first, and says when it ended. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const struct variant *wanted;
    uint64_t runs, ended;
    _Atomic unsigned ready;
    _Atomic bool done;
} second = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void meet(void)
{
    atomic_fetch_add(&second.ready, 1);
    while (atomic_load(&second.ready) < LANES)
        ;
}

static void *second_lane(void *unused)
{
    (void)unused;
    keep_to(cpus[1]);
    for (;;) {
        pthread_mutex_lock(&second.lock);
        while (!second.wanted)
            pthread_cond_wait(&second.changed, &second.lock);
        const struct variant *variant = second.wanted;
        second.wanted = NULL;
        pthread_mutex_unlock(&second.lock);
        meet();
        for (uint64_t at = 0; at < second.runs; at++)
            variant->run(1);
        second.ended = now();
        atomic_store(&second.done, true);
    }
    return NULL;
}

static uint64_t time_both(const struct variant *variant, uint64_t runs)
{
    static bool started;
    pthread_t thread;
    if (!started)
        REQUIRE(!pthread_create(&thread, NULL, second_lane, NULL));
    started = true;
    pthread_mutex_lock(&second.lock);
    atomic_store(&second.ready, 0);
    atomic_store(&second.done, false);
    second.runs = runs;
    second.wanted = variant;
    pthread_cond_signal(&second.changed);
    pthread_mutex_unlock(&second.lock);
    meet();
    uint64_t began = now();
    counted(variant, runs);
    uint64_t ended = now();
    while (!atomic_load(&second.done))
        sched_yield();
    return (ended > second.ended ? ended : second.ended) - began;
}

static uint64_t time_of(const struct variant *variant, uint64_t runs)
{
    if (variant->both)
        return time_both(variant, runs);
    uint64_t began = now();
    counted(variant, runs);
    return now() - began;
}

static void measure(const struct variant *variants, unsigned count, unsigned rounds)
{
    uint64_t runs[8];
    for (unsigned each = 0; each < count; each++) {
        if (variants[each].both && cpus[1] < 0)
            continue;
        uint64_t took = 0;
        for (runs[each] = 1; (took = time_of(&variants[each], runs[each])) < CHUNK / 2; runs[each] *= 2)
            ;
    }
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t least[8];
        memset(least, 0xFF, sizeof least);
        for (unsigned try = 0; try < TRIES; try++)
            for (unsigned each = 0; each < count; each++) {
                if (variants[each].both && cpus[1] < 0)
                    continue;
                uint64_t took = time_of(&variants[each], runs[each]);
                if (took < least[each])
                    least[each] = took;
            }
        for (unsigned each = 0; each < count; each++)
            if (!variants[each].both || cpus[1] >= 0)
                printf("%s %.4f\n", variants[each].name,
                       (double)least[each] / (double)runs[each] / (double)variants[each].operations /
                           (variants[each].both ? LANES : 1));
        fflush(stdout);
    }
}

/* ---- our side of a figure ---------------------------------------------------------------------------------------- */

/* The stream of lane n is n; `many` has one working set for each number of contexts. */
static uint32_t sid_of[LANES] = {0, 1}, ssid_of[LANES] = {VI_NO_SSID, VI_NO_SSID};

/* Each address is known once the one before it is translated: a chain of descriptors, and no two walks at a time. */
static uint64_t after(unsigned at, uint64_t pa) { return iovas[(at + 1 + (pa & 0xFFF)) & (pages - 1)]; }

/* A request's or a chain's addresses, as dma.c and virtqueue.c translate them; `chained`: each from the answer before. */
VI_HOT void places_of(unsigned lane, const uint64_t *from, uint64_t *to, uint32_t count, bool chained)
{
    struct vi_course course;
    struct vi_place place;
    struct vi_fault fault;
    struct vi_reader *reader = vi_enter(core, lane);
    const struct vi_context *context = vi_context_of(reader, sid_of[lane], ssid_of[lane]);
    REQUIRE(context);
    vi_course_begin(&course, reader, context, VI_WRITE);
    uint64_t address = *from;
    for (uint32_t at = 0; at < count; at++) {
        VI_COUNT(reader->counters.translations);
        if (!vi_place_quickly(reader, &course, chained ? address : from[at], &place, &fault))
            abort();
        to[at] = place.pa;
        if (chained)
            address = after(at, place.pa);
    }
    vi_exit(reader);
}

/* A request of all pages, as dma.c goes through it: `note` where each goes, or not. */
VI_HOT void request_of_all(unsigned lane, bool note)
{
    struct vi_course course;
    struct vi_place place;
    struct vi_fault fault;
    struct vi_reader *reader = vi_enter(core, lane);
    const struct vi_context *context = vi_context_of(reader, sid_of[lane], ssid_of[lane]);
    REQUIRE(context);
    vi_course_begin(&course, reader, context, VI_WRITE);
    uint64_t sum = 0, address = *iovas, at = 0;
    for (uint64_t left = pages * PAGE; left; left -= place.size, address += place.size) {
        if (!vi_next_place(reader, &course, address, left, &place, &fault))
            abort();
        sum += place.pa; /* as who moves bytes has it in a register */
        if (note)
            answers[at++] = place.pa;
    }
    vi_exit(reader);
    REQUIRE(sum); /* it is not in vain */
}
static void our_hits(unsigned lane) { request_of_all(lane, false); }
static void our_noted_request(unsigned lane) { request_of_all(lane, true); }
static void our_places(unsigned lane) { places_of(lane, iovas, answers, pages, false); }
static void our_chain(unsigned lane) { places_of(lane, iovas, answers, pages, true); }
static void forget(void) { vi_invalidate_spaces(core, VI_WORLD_EL1, VI_ANY, 0, VI_ANY); }
static void our_cold_pages(unsigned lane)
{
    forget();
    our_hits(lane);
}
static void our_noted_cold_pages(unsigned lane)
{
    forget();
    our_noted_request(lane);
}

static void bare_hits(unsigned lane)
{
    (void)lane;
    for (unsigned at = 0; at < pages; at++)
        if (!bare_find(iovas[at], VI_MAY_WRITE, &answers[at]))
            abort();
}

static void bare_walks(unsigned lane)
{
    (void)lane;
    for (unsigned at = 0; at < pages; at++)
        if (!bare_walk(iovas[at], false, &answers[at]))
            abort();
}

static void bare_nested_walks(unsigned lane)
{
    (void)lane;
    for (unsigned at = 0; at < pages; at++)
        if (!bare_walk(iovas[at], true, &answers[at]))
            abort();
}

static inline void bare_misses_of(bool both_stages)
{
    for (unsigned at = 0; at < pages; at++)
        if (!bare_find(iovas[at], VI_MAY_WRITE, &answers[at])) {
            if (!bare_walk(iovas[at], both_stages, &answers[at]))
                abort();
            bare_put(iovas[at], answers[at]);
        }
}
static void bare_misses(unsigned lane) { (void)lane, bare_misses_of(false); }
static void bare_nested_misses(unsigned lane) { (void)lane, bare_misses_of(true); }

static inline void bare_chain_of(bool both_stages)
{
    uint64_t address = iovas[0];
    for (unsigned at = 0; at < pages; at++) {
        if (!bare_walk(address, both_stages, &answers[at]))
            abort();
        address = after(at, answers[at]);
    }
}
static void bare_chain(unsigned lane) { (void)lane, bare_chain_of(false); }
static void bare_nested_chain(unsigned lane) { (void)lane, bare_chain_of(true); }

/* Requests of one address, each by itself. */
static void our_requests(unsigned lane)
{
    for (unsigned at = 0; at < pages; at++)
        places_of(lane, &iovas[at], &answers[at], 1, false);
}

/* The answers of `run` must be those of the bare walk. */
static void check(void (*run)(unsigned lane), bool both_stages)
{
    memset(answers, 0, sizeof answers);
    run(0);
    for (unsigned at = 0; at < pages; at++) {
        uint64_t pa;
        REQUIRE(bare_walk(iovas[at], both_stages, &pa) && pa == answers[at]);
    }
}

/* How often the walker walked in one `run`. */
static uint64_t walks_of(void (*run)(unsigned lane))
{
    uint64_t before[VI_COUNTERS], later[VI_COUNTERS];
    vi_count(core, before);
    run(0);
    vi_count(core, later);
    return later[2] - before[2];
}

/* ---- figures ------------------------------------------------------------------------------------------------------- */

struct figure {
    const char *name;
    void (*prepare)(void);
    const struct variant *variants;
    unsigned count;
};

enum { HITS = 256, MISSES = 64 };

static void prepare_hits(void)
{
    new_ram();
    neighbours(HITS);
    new_core(4096);
    new_bare_table(4096);
    check(our_noted_request, false);
    for (unsigned at = 0; at < pages; at++)
        bare_put(iovas[at], answers[at]);
    check(bare_hits, false);
    REQUIRE(walks_of(our_hits) == 0);
}

/* The same in order, after each of which nothing of them is in the TLB. */
static void prepare_cold(void)
{
    new_ram();
    neighbours(HITS);
    new_core(4096);
    check(our_noted_cold_pages, false);
    REQUIRE(walks_of(our_cold_pages) == HITS);
}

static void prepare_misses(void)
{
    new_ram();
    strangers(MISSES);
    new_core(8);
    new_bare_table(8);
    check(our_places, false);
    check(our_chain, false);
    check(bare_misses, false);
    REQUIRE(walks_of(our_places) == pages);
}

static void prepare_nested(void)
{
    new_ram();
    strangers(MISSES);
    nested = true;
    map_all(stage2_root);
    new_core(8);
    new_bare_table(8);
    check(our_places, true);
    check(our_chain, true);
    check(bare_nested_misses, true);
    /* The first table, and no other, may still be in the TLB of stage 2 from the address before. */
    REQUIRE(walks_of(our_places) >= pages * 5);
}

/* The same with room for stage 2 of all tables: only what is new of an address is walked for. */
static void prepare_nested_warm(void)
{
    prepare_nested();
    new_core(8);
    for (unsigned at = 0; at < pages; at++)
        iovas[at] = (iovas[0] & ~UINT64_C(0x1FFFFF)) + at * PAGE, map(stage1_root, iovas[at], allocate(PAGE), 1);
    map_all(stage2_root);
    check(our_places, true);
}

/* Copies between scattered pages: the first half of them to the second, page by page in order of IOVA. */
static void copy_pages(unsigned count)
{
    new_ram();
    neighbours(count * 2);
    new_core(4096);
    our_places(0);
    our_places(1);
    for (unsigned at = 0; at < count * 2; at++)
        memset(word_at(answers[at]), (int)at, PAGE);
}
static void prepare_copy_64k(void) { copy_pages(16); }
static void prepare_copy_1m(void) { copy_pages(256); }

static void our_copy(unsigned lane)
{
    struct vi_request from = {.sid = sid_of[lane], .ssid = VI_NO_SSID, .iova = iovas[0], .size = pages / 2 * PAGE,
                              .incoming = VI_INCOMING};
    struct vi_request to = from;
    struct vi_run run;
    to.iova = iovas[pages / 2];
    to.access = VI_WRITE;
    struct vi_reader *reader = vi_enter(core, lane);
    vi_run_copy(reader, &from, &to, VI_MOST_BURST, &run);
    vi_exit(reader);
    REQUIRE(run.end == VI_RUN_DONE);
}

static void bare_copy(unsigned lane)
{
    (void)lane;
    for (unsigned at = 0; at < pages / 2; at++)
        memcpy(word_at(answers[pages / 2 + at]), word_at(answers[at]), PAGE);
}

/* Masters' reads and a disk's, of pages that are in the TLB: of which nobody is told, one by one or all in one request. */
static void prepare_reads(void)
{
    new_ram();
    neighbours(HITS);
    new_core(4096);
    our_places(0);
    REQUIRE(walks_of(our_places) == 0);
}

static void read_at(uint64_t iova, uint64_t size)
{
    static uint8_t to[HITS * PAGE];
    struct vi_request request = {.sid = sid_of[0], .ssid = VI_NO_SSID, .iova = iova, .size = size, .incoming = VI_INCOMING};
    struct vi_result result;
    struct vi_reader *reader = vi_enter(core, 0);
    REQUIRE(vi_dma_read(reader, &request, to, &result) == VI_DONE);
    vi_exit(reader);
}

static void our_reads(unsigned lane)
{
    (void)lane;
    for (unsigned at = 0; at < pages; at++)
        read_at(iovas[at], PAGE);
}

static void our_long_read(unsigned lane)
{
    (void)lane;
    read_at(iovas[0], pages * PAGE);
}

/* Pages of which the first is a ring of one place, and the second what a request takes beside its data. */
static struct vi_ring ring;
static struct vi_disk disk = {.fd = -1, .sectors = HITS * PAGE / VI_SECTOR};
enum { RING_AVAIL = 0x100, RING_USED = 0x200, HEADER_SIZE = 16 };
enum { NEXT = VI_DescFlags_NEXT, WRITE = VI_DescFlags_WRITE };

static void *at_page(unsigned page) { return ram + (answers[page] - RAM_BASE); }

static void prepare_disk(void)
{
    struct descriptor {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    };
    prepare_reads();
    struct descriptor *desc = at_page(0);
    desc[0] = (struct descriptor){iovas[1], HEADER_SIZE, NEXT, 1}; /* type 0: a read, of sector 0 */
    desc[1] = (struct descriptor){iovas[2], PAGE, NEXT | WRITE, 2};
    desc[2] = (struct descriptor){iovas[1] + HEADER_SIZE, 1, WRITE, 0};
    ring = (struct vi_ring){.sid = sid_of[0], .desc = iovas[0], .avail = iovas[0] + RING_AVAIL,
                            .used = iovas[0] + RING_USED, .size = 4, .event_idx = true};
    disk.fd = memfd_create("disk", MFD_CLOEXEC);
    REQUIRE(disk.fd >= 0 && !ftruncate(disk.fd, HITS * PAGE));
}

/* Two pages less than all are read: the ring's are not theirs. */
static void prepare_long_disk(void)
{
    prepare_disk();
    ((uint32_t *)at_page(0))[6] = (uint32_t)((pages - 2) * PAGE); /* of the second descriptor */
}

static void our_served(unsigned lane)
{
    struct vi_served served;
    uint16_t *avail = (uint16_t *)((uint8_t *)at_page(0) + RING_AVAIL);
    __atomic_store_n(&avail[1], (uint16_t)(avail[1] + 1), __ATOMIC_SEQ_CST);
    struct vi_reader *reader = vi_enter(core, lane);
    REQUIRE(vi_serve(reader, &ring, &disk, 64, 1 << 20, &served) == VI_SERVED && served.reads == 1);
    vi_exit(reader);
}

/* Two masters: streams 0 and 1, each with pages of its own. */
static struct {
    _Alignas(256) uint64_t iovas[32];
    _Alignas(256) uint64_t answers[32];
} lane_of[LANES];

static void prepare_lanes(void)
{
    prepare_hits();
    for (unsigned lane = 0; lane < LANES; lane++)
        memcpy(lane_of[lane].iovas, iovas + lane * 32, sizeof lane_of[lane].iovas);
}

static void lane_batch(unsigned lane) { places_of(lane, lane_of[lane].iovas, lane_of[lane].answers, 32, false); }

/* 16 KiB; lane n has the nth quarter of pages, and copies its first half to its second. */
static void lane_copy(unsigned lane)
{
    struct vi_request from = {.sid = sid_of[lane], .ssid = VI_NO_SSID, .iova = UINT64_C(0xFFFF00000000) + lane * 8 * PAGE,
                              .size = 4 * PAGE, .incoming = VI_INCOMING};
    struct vi_request to = from;
    struct vi_run run;
    to.iova = from.iova + from.size;
    to.access = VI_WRITE;
    struct vi_reader *reader = vi_enter(core, lane);
    vi_run_copy(reader, &from, &to, VI_MOST_BURST, &run);
    vi_exit(reader);
    REQUIRE(run.end == VI_RUN_DONE);
}

static pthread_mutex_t one_lock = PTHREAD_MUTEX_INITIALIZER;
static void locked_batch(unsigned lane)
{
    pthread_mutex_lock(&one_lock);
    lane_batch(lane);
    pthread_mutex_unlock(&one_lock);
}
static void locked_copy(unsigned lane)
{
    pthread_mutex_lock(&one_lock);
    lane_copy(lane);
    pthread_mutex_unlock(&one_lock);
}

/* Cores that have one stream, many, one substream and many, all with the same pages and one stream at work. */
static int only = -1; /* the variant that is wanted; -1: all */
enum { CONFIGURED = 3, SUBSTREAMS_FEW = 1000, SUBSTREAMS_MANY = 1000000 };
static struct vi_core *configured[CONFIGURED];
static uint32_t configured_sid[CONFIGURED], configured_ssid[CONFIGURED];

/* A core in which all streams, or all substreams of one, were used once, and then one of them. */
static void configure(unsigned which, uint32_t tlb_entries, uint32_t all_streams, uint32_t all_substreams)
{
    core = NULL;
    if (only >= 0 && only != (int)which)
        return; /* it would take minutes under callgrind */
    new_core(tlb_entries);
    configured[which] = core;
    configured_sid[which] = all_streams / 2;
    configured_ssid[which] = all_substreams ? all_substreams / 2 : VI_NO_SSID;
    for (uint32_t sid = 0; sid < all_streams && !all_substreams; sid++)
        publish(sid, VI_NO_SSID);
    for (uint32_t ssid = 1; ssid < all_substreams; ssid++)
        publish(configured_sid[which], ssid);
    publish(configured_sid[which], configured_ssid[which]);
}

static void prepare_configured(uint32_t tlb_entries, unsigned kind)
{
    new_ram();
    if (tlb_entries == 8)
        strangers(MISSES);
    else
        neighbours(HITS);
    shuffle(iovas, pages);
    if (kind == 0) {
        configure(0, tlb_entries, 1, 0);
        configure(1, tlb_entries, 1000, 0);
        configure(2, tlb_entries, MOST_STREAMS, 0);
    } else {
        configure(0, tlb_entries, 1, 2); /* 0 is no substream where that of none is the first */
        configure(1, tlb_entries, 1, SUBSTREAMS_FEW);
        configure(2, tlb_entries, 1, SUBSTREAMS_MANY);
    }
}
static void prepare_streams_hit(void) { prepare_configured(4096, 0); }
static void prepare_streams_miss(void) { prepare_configured(8, 0); }
static void prepare_substreams_hit(void) { prepare_configured(4096, 1); }
static void prepare_substreams_miss(void) { prepare_configured(8, 1); }

static void configured_batch(unsigned which)
{
    core = configured[which];
    sid_of[0] = configured_sid[which];
    ssid_of[0] = configured_ssid[which];
    /* Requests of 16: each finds its context anew. */
    for (unsigned at = 0; at < pages; at += 16)
        places_of(0, iovas + at, answers + at, 16, false);
}
static void one_configured(unsigned lane) { (void)lane, configured_batch(0); }
static void thousand_configured(unsigned lane) { (void)lane, configured_batch(1); }
static void all_configured(unsigned lane) { (void)lane, configured_batch(2); }

#define VARIANTS(...) (const struct variant[]){__VA_ARGS__}, COUNT(((const struct variant[]){__VA_ARGS__}))

static const struct figure figures[] = {
    {"hit", prepare_hits, VARIANTS({"core", our_hits, HITS, 0}, {"bare", bare_hits, HITS, 0})},
    {"cold", prepare_cold, VARIANTS({"core", our_cold_pages, HITS, 0}, {"walk", bare_walks, HITS, 0})},
    {"miss", prepare_misses,
     VARIANTS({"core", our_places, MISSES, 0}, {"walk", bare_walks, MISSES, 0}, {"fill", bare_misses, MISSES, 0},
              {"core-chain", our_chain, MISSES, 0}, {"walk-chain", bare_chain, MISSES, 0},
              {"core-request", our_requests, MISSES, 0})},
    {"nested", prepare_nested,
     VARIANTS({"core", our_places, MISSES, 0}, {"walk", bare_nested_walks, MISSES, 0},
              {"fill", bare_nested_misses, MISSES, 0}, {"core-chain", our_chain, MISSES, 0},
              {"walk-chain", bare_nested_chain, MISSES, 0})},
    {"nested-warm", prepare_nested_warm,
     VARIANTS({"core", our_places, MISSES, 0}, {"walk", bare_nested_walks, MISSES, 0})},
    {"copy-64k", prepare_copy_64k, VARIANTS({"core", our_copy, 1 << 16, 0}, {"bare", bare_copy, 1 << 16, 0})},
    {"copy-1m", prepare_copy_1m, VARIANTS({"core", our_copy, 1 << 20, 0}, {"bare", bare_copy, 1 << 20, 0})},
    {"reads", prepare_reads, VARIANTS({"4k", our_reads, HITS, 0}, {"1m", our_long_read, 1, 0})},
    {"disk", prepare_disk, VARIANTS({"4k", our_served, 1, 0})},
    {"long-disk", prepare_long_disk, VARIANTS({"1m", our_served, 1, 0})},
    {"lanes-hit", prepare_lanes,
     VARIANTS({"one", lane_batch, 32, 0}, {"two", lane_batch, 32, 1}, {"one-locked", locked_batch, 32, 0},
              {"two-locked", locked_batch, 32, 1})},
    {"lanes-copy", prepare_lanes,
     VARIANTS({"one", lane_copy, 1 << 14, 0}, {"two", lane_copy, 1 << 14, 1}, {"one-locked", locked_copy, 1 << 14, 0},
              {"two-locked", locked_copy, 1 << 14, 1})},
#define OF_CONFIGURED(count)                                                                                          \
    VARIANTS({"1", one_configured, count, 0}, {"1000", thousand_configured, count, 0}, {"all", all_configured, count, 0})
    {"streams-hit", prepare_streams_hit, OF_CONFIGURED(HITS)},
    {"streams-miss", prepare_streams_miss, OF_CONFIGURED(MISSES)},
    {"substreams-hit", prepare_substreams_hit, OF_CONFIGURED(HITS)},
    {"substreams-miss", prepare_substreams_miss, OF_CONFIGURED(MISSES)},
};

/* ---- sizes ------------------------------------------------------------------------------------------------------------ */

static size_t in_use(void)
{
    struct mallinfo2 now = mallinfo2();
    return now.uordblks + now.hblkhd;
}

/* What the allocator gives for one more of each. */
static void print_sizes(void)
{
    enum { FEW = 1024, MANY = 4096 };
    size_t entries[2], contexts[2], used[2];
    for (unsigned each = 0; each < 2; each++) {
        size_t before = in_use();
        struct vi_core *made = vi_core_new(each ? MANY : FEW, 8);
        entries[each] = in_use() - before;
        vi_core_free(made);
        before = in_use();
        made = vi_core_new(8, each ? MANY : FEW);
        contexts[each] = in_use() - before;
        vi_core_free(made);
    }
    new_ram();
    new_core(8);
    used[0] = in_use();
    for (uint32_t sid = LANES; sid < FEW; sid++)
        publish(sid, VI_NO_SSID);
    used[1] = in_use();
    printf("context %zu\n", sizeof(struct vi_context));
    printf("context-room %zu\n", (contexts[1] - contexts[0]) / (MANY - FEW));
    printf("context-used %zu\n", (used[1] - used[0]) / (FEW - LANES));
    printf("entry %zu\n", sizeof(struct vi_entry));
    printf("entry-room %zu\n", (entries[1] - entries[0]) / (MANY - FEW) / 2);
    printf("space %zu\n", sizeof(struct vi_space));
    printf("instance %zu\n", sizeof(struct vi_core));
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "sizes")) {
        print_sizes();
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "figures")) {
        for (unsigned each = 0; each < COUNT(figures); each++)
            for (unsigned at = 0; at < figures[each].count; at++)
                printf("%s %s\n", figures[each].name, figures[each].variants[at].name);
        return 0;
    }
    find_cpus();
    for (unsigned each = 0; each < COUNT(figures) && argc >= 3; each++) {
        const struct figure *figure = &figures[each];
        if (strcmp(figure->name, argv[1]))
            continue;
        bool counting = !strcmp(argv[2], "count");
        for (unsigned at = 0; at < figure->count && counting && argc == 4; at++)
            if (!strcmp(figure->variants[at].name, argv[3]))
                only = (int)at;
        figure->prepare();
        if (!counting) {
            printf("cpus %d %d\n", cpus[0], cpus[1]);
            measure(figure->variants, figure->count, (unsigned)atoi(argv[2]));
            return 0;
        }
        if (only >= 0) {
            enum { RUNS = 20 };
            const struct variant *variant = &figure->variants[only];
            variant->run(0);
            counted(variant, RUNS);
            printf("operations %llu\n", (unsigned long long)(RUNS * variant->operations));
            return 0;
        }
    }
    fputs("usage: core FIGURE ROUNDS | FIGURE count VARIANT | figures | sizes\n", stderr);
    return 2;
}
