/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as software and masters of one SMMU: what it writes to memory and registers, invalidates, and requests.
 *
 * Law: whatever comes, no access leaves the windows (they are allocations of their own, for AddressSanitizer to see),
 * every request ends, answers keep their shape, and what is translated from memory and then from the caches is the
 * same. Run by libFuzzer, or by driver.c where there is none.
 */
#include <stdio.h>
#include <stdlib.h>

#include "software.h"
#include "tell.h"
#include "v3/commands.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROM_BASE UINT64_C(0x20000000)
#define ROM_SIZE UINT64_C(0x1000)
#define NEXT_SIZE UINT64_C(0x1004) /* right behind RAM */
#define HOLE_BASE UINT64_C(0x50000000)
enum { MOST_STEPS = 200, MOST_BYTES = 0x2000 };

struct machine {
    const uint8_t *input;
    size_t left;
    struct vi_core *core;
    struct vi_parameters set;
    struct vi_v3 v3;
    uint8_t *ram, *next, *rom;
    uint8_t *before; /* a copy of RAM */
    struct vi_watch watch;
    uint64_t taken; /* records */
    struct vi_check check;
};

/* Input; zeros once there is none left. */
static uint64_t take(struct machine *m, unsigned bytes)
{
    uint64_t value = 0;
    for (; bytes && m->left; bytes--, m->left--)
        value = value << 8 | *m->input++;
    return value;
}

/* As the door enters for who asks beside requests: what it does is told. */
static struct vi_reader *enter(struct machine *m, unsigned lane)
{
    struct vi_reader *reader = vi_enter(m->core, lane);
    REQUIRE(vi_begin_telling(reader, 0, VI_NO_SSID));
    return reader;
}

static void leave(struct vi_reader *reader)
{
    vi_told_all(reader); /* what only read memory has told nothing */
    vi_exit(reader);
}

static uint64_t rotated(uint64_t word, unsigned by) { return word << by | word >> (64 - by); }

/* A word as software writes it: any, few bits, one that points into RAM, or a leaf or table there. */
static uint64_t take_word(struct machine *m)
{
    uint64_t kind = take(m, 1), in_ram = RAM_BASE + (take(m, 2) << 3 & (RAM_SIZE - 1));
    switch (kind % 6) {
    case 0:
        return take(m, 8);
    case 1:
        return rotated(take(m, 2), 1 + kind / 6 % 63);
    case 2:
        return in_ram;
    case 3:
        return (in_ram & ~UINT64_C(0xFFF)) | 3;
    case 4:
        return page_descriptor(in_ram & ~UINT64_C(0xFFF)) ^ rotated(take(m, 1), 1 + kind / 6 % 63);
    default:
        return stage2_descriptor(in_ram & ~UINT64_C(0xFFF), 3) ^ rotated(take(m, 1), 1 + kind / 6 % 63);
    }
}

/* An offset in RAM where something lies that counts, or any. */
static uint64_t take_place(struct machine *m)
{
    static const uint32_t blocks[][2] = {
        {STAGE1 + 8 * (uint32_t)(IOVA >> 30 & 511), 8},
        {STAGE1 + 0x1000 + 8 * (uint32_t)(IOVA >> 21 & 511), 8},
        {STAGE1 + 0x2000, 8 * PAGE_COUNT},
        {STAGE2 + 8, 8},
        {STAGE2 + 0x1000, 16},
        {STAGE2 + 0x2000, RAM_SIZE / 0x1000 * 8},
        {STAGE1_64K, 8},
        {STAGE1_64K + 0x10000, 8},
        {0, RAM_SIZE},
    };
    const uint32_t *block = blocks[take(m, 1) % (sizeof blocks / sizeof *blocks)];
    return block[0] + take(m, 2) * 8 % block[1];
}

static uint64_t take_address(struct machine *m)
{
    uint64_t kind = take(m, 1), within = take(m, 2);
    switch (kind % 8) {
    case 0:
        return take(m, 8);
    case 1:
        return RAM_BASE + (within << 3) % (RAM_SIZE + 0x2000);
    case 2:
        return within;
    case 3:
        return rotated(within, 1 + kind / 8 % 63);
    case 4:
        return (kind & 8 ? ROM_BASE : HOLE_BASE) + within % 0x1100;
    case 5:
        return 0x200000 + within * 16; /* a block of stage 1 */
    default:
        return IOVA + within % (0x1000 * (PAGE_COUNT + 1));
    }
}

static uint32_t take_sid(struct machine *m)
{
    uint64_t any = take(m, 1);
    return any < 248 ? (uint32_t)any % 8 : (uint32_t)take(m, 4);
}

static uint32_t take_ssid(struct machine *m)
{
    uint64_t any = take(m, 1);
    return any < 128 ? VI_NO_SSID : any < 248 ? (uint32_t)any % 17 : (uint32_t)take(m, 3);
}

static void check_fault(const struct vi_fault *fault)
{
    REQUIRE(fault->kind <= VI_WALK_EABT);
    if (fault->kind != VI_NO_FAULT) {
        REQUIRE(fault->stage == 1 || fault->stage == 2);
        REQUIRE(fault->cause <= VI_CAUSE_IN);
    }
}

struct asked {
    uint32_t sid, ssid;
    uint64_t address;
    unsigned access;
    bool mappings;
};

struct answered {
    bool found;
    struct vi_fault fault;
    uint64_t pa, size;
};

static void ask(struct vi_reader *reader, const struct asked *asked, struct answered *answer)
{
    *answer = (struct answered){0};
    const struct vi_context *context = vi_context_of(reader, asked->sid, asked->ssid);
    answer->found = context;
    if (!context)
        return;
    REQUIRE(context->sid == asked->sid && context->ssid == asked->ssid);
    struct vi_output output;
    answer->fault = vi_translate(reader, context, asked->address, asked->access, VI_INCOMING, &output);
    check_fault(&answer->fault);
    if (answer->fault.kind != VI_NO_FAULT)
        return;
    REQUIRE(output.size > 0);
    REQUIRE(output.pa < UINT64_C(1) << 52 || !(context->stage1 || context->stage2));
    REQUIRE(!asked->mappings || (output.has1 == context->stage1 && output.has2 == context->stage2));
    answer->pa = output.pa;
    answer->size = output.size;
}

/* A table that a model may make: its shape is one that the architecture has, all else is any. */
static void bend_table(struct machine *m, struct vi_table *t)
{
    uint64_t kind = take(m, 1), flags = take(m, 1);
    unsigned granule = kind & 64 ? 12 + 2 * (kind & 3) % 6 : t->granule_bits, most = 48, least = granule + 4;
    t->wide = kind & 4 ? granule == 16 ? VI_WIDE_64K : VI_WIDE_LPA2 : VI_NARROW;
    if (granule == 18)
        granule = 12;
    if (t->wide == VI_WIDE_64K && granule != 16)
        t->wide = VI_NARROW;
    if (t->wide != VI_NARROW)
        most = 52;
    unsigned input = kind & 8 ? least + (unsigned)take(m, 1) % (most - least + 1) : t->input_bits;
    struct vi_table made = table_of(t->stage, t->base, granule, input);
    made.wide = t->wide;
    made.output_bits = t->wide == VI_NARROW ? m->set.output_bits < 48 ? m->set.output_bits : 48 : m->set.output_bits;
    made.first_block_level = (int8_t)(made.first_block_level - (t->wide != VI_NARROW));
    if (made.stage == 2 && made.start_level < 3 && kind & 16 &&
        (int)input - (int)granule - (int)(granule - 3) * (2 - made.start_level) <= 4 + (int)granule - 3)
        made.start_level++; /* concatenated tables */
    if (kind & 128)
        made.base = take_word(m);
    unsigned within = input - (granule + (granule - 3) * (unsigned)(3 - made.start_level)) + 3;
    made.base &= ~UINT64_C(0) << (within < 6 ? 6 : within) & (UINT64_MAX >> 12);
    made.shareability = made.wide == VI_WIDE_LPA2 ? flags >> 6 & 3 : VI_SH_OF_LEAF;
    made.big_endian = flags & 1;
    made.hierarchical = !(flags & 2);
    made.access_fault = !(flags & 4);
    made.update_access = flags & 8;
    made.update_dirty = (flags & 24) == 24;
    made.update_tables = (flags & 40) == 40;
    made.mair = kind & 32 ? take(m, 8) : made.mair;
    made.top_byte_ignored = made.stage == 1 && flags & 64;
    made.no_unprivileged = made.stage == 1 && flags & 128;
    *t = made;
}

/* One of the contexts that software.h has, or one that is bent. */
static struct vi_context take_context(struct machine *m)
{
    struct vi_context c = context_of((unsigned)take(m, 1) % STREAMS);
    uint64_t kind = take(m, 1), flags = take(m, 2);
    c.output_bits = m->set.output_bits;
    if (kind < 64)
        return c;
    if (c.stage1) {
        bend_table(m, &c.half[0]);
        if (kind & 1)
            c.half[1] = c.half[0];
        c.aarch32 = (kind & 6) == 6;
        for (unsigned high = 0; c.aarch32 && high < 2; high++) {
            bool enabled = c.half[high].enabled;
            c.t0sz = flags & 7;
            c.t1sz = flags >> 3 & 7;
            c.half[high] = table_of(1, c.half[high].base & 0xFFFFFFFFC0, 12, 32u - (high ? c.t1sz : c.t0sz));
            c.half[high].output_bits = 40;
            c.half[high].enabled = enabled;
        }
        c.xn_for_all = c.execute_needs_read = c.aarch32;
        c.unprivileged = !(flags & 64);
        c.world = c.unprivileged ? VI_WORLD_EL1 : VI_WORLD_EL2;
        c.wxn = flags & 128;
        c.pan = flags & 256 && c.unprivileged;
        c.epan = flags & 512 && !c.aarch32;
        c.aset = flags >> 10 & 1;
    }
    if (c.stage2) {
        bend_table(m, &c.s2);
        c.s2_protected_walks = flags & 2048;
        c.s2_forced_writeback = flags & 4096;
        c.s2_two_bit_xn = flags & 8192;
    }
    c.privileged = kind >> 3 & 3 ? VI_AS_IT_CAME : flags & 1;
    c.instruction = kind >> 3 & 3 ? VI_AS_IT_CAME : flags >> 1 & 1;
    c.replace_type = flags & 0x4000;
    c.memattr = kind & 15;
    c.shcfg = kind >> 4 & 3;
    return c;
}

/* As a model that is asked. */
static void publish_any(struct machine *m)
{
    uint32_t sid = take_sid(m), ssid = take_ssid(m);
    struct vi_context made = take_context(m);
    REQUIRE(vi_make_context(m->core, &made));
    REQUIRE(vi_publish(m->core, sid, ssid, &made));
    vi_drop_context(m->core, &made);
}

static struct asked take_request(struct machine *m)
{
    struct asked asked = {.sid = take_sid(m), .ssid = take_ssid(m), .address = take_address(m)};
    uint64_t how = take(m, 1);
    asked.access = how & 7;
    asked.mappings = how & 8;
    return asked;
}

static void check_result(const struct vi_result *result, uint64_t size)
{
    REQUIRE(result->end <= VI_OUTSIDE && result->done <= size);
    REQUIRE(result->end != VI_DONE || result->done == size);
    REQUIRE(result->end == VI_DONE || (result->end == VI_ASK) == !result->counted);
    if (result->end == VI_FAULTED) {
        REQUIRE(result->fault.kind != VI_NO_FAULT);
        check_fault(&result->fault);
    }
}

static struct vi_request take_dma(struct machine *m)
{
    struct asked asked = take_request(m);
    uint64_t size = asked.mappings ? take(m, 2) % (MOST_BYTES + 1) : take(m, 1) % 65;
    return (struct vi_request){asked.sid, asked.ssid, asked.address, size, (uint8_t)asked.access, VI_INCOMING};
}

/* A run ends with the request, or in a transfer that begins where it may. */
static void check_run(const struct vi_request *request, uint32_t burst, const struct vi_run *run)
{
    REQUIRE((run->end == VI_RUN_DONE) == (run->done == request->size) && run->done <= request->size);
    if (run->end == VI_RUN_DONE)
        return;
    REQUIRE(!run->done || !((request->iova + run->done) & (burst - 1)));
    REQUIRE(run->size <= burst && run->result.done < run->size);
    check_result(&run->result, run->size);
}

/* Whole requests of each kind; their buffers are no longer than they say. */
static void transaction(struct machine *m)
{
    struct vi_request request = take_dma(m), other;
    struct vi_result result;
    struct vi_run run;
    struct vi_piece pieces[3];
    uint64_t kind = take(m, 1), sum = 0, burst = UINT64_C(8) << take(m, 1) % 10;
    struct vi_context context = take_context(m);
    REQUIRE(vi_make_context(m->core, &context));
    uint8_t *bytes = malloc(request.size ? request.size : 1);
    REQUIRE(bytes);
    memset(bytes, (int)kind, request.size);
    struct vi_reader *reader = enter(m, (unsigned)kind);
    switch (kind % 8) {
    case 0:
    case 1:
        request.access &= ~VI_WRITE;
        vi_dma_read(reader, &request, bytes, &result);
        check_result(&result, request.size);
        break;
    case 2:
    case 3:
        request.access |= VI_WRITE;
        vi_dma_write(reader, &request, bytes, &result);
        check_result(&result, request.size);
        break;
    case 4:
        request.access |= VI_WRITE;
        vi_run_write(reader, &request, (uint32_t)burst, bytes, &run);
        check_run(&request, (uint32_t)burst, &run);
        break;
    case 5:
        request.access &= ~VI_WRITE;
        request.iova &= ~UINT64_C(7);
        request.size &= ~UINT64_C(7);
        vi_run_sum(reader, &request, (uint32_t)burst, &sum, &run);
        check_run(&request, (uint32_t)burst, &run);
        break;
    case 6:
        other = take_dma(m);
        request.access &= ~VI_WRITE;
        other.access |= VI_WRITE;
        other.size = request.size;
        vi_run_copy(reader, &request, &other, (uint32_t)burst, &run);
        check_run(&request, (uint32_t)burst, &run);
        break;
    default: {
        uint32_t count = vi_pieces(reader, &context, &request, 0, pieces, 3, &result);
        uint64_t all = 0;
        REQUIRE(count <= 3);
        for (uint32_t at = 0; at < count; at++)
            all += pieces[at].size;
        REQUIRE(all == result.done);
    }
    }
    leave(reader);
    vi_drop_context(m->core, &context);
    free(bytes);
}

/* A request by empty caches, and again by what they keep now; unless the first wrote into memory. */
static void cold_and_warm(struct machine *m)
{
    struct asked asked = take_request(m);
    struct answered cold, warm;
    invalidate_tlbs(m->core);
    vi_quiesce(m->core);
    memcpy(m->before, m->ram, RAM_SIZE);
    struct vi_reader *reader = enter(m, 0);
    ask(reader, &asked, &cold);
    if (!memcmp(m->before, m->ram, RAM_SIZE)) {
        asked.mappings = !asked.mappings;
        ask(reader, &asked, &warm);
        REQUIRE(cold.found == warm.found);
        REQUIRE(cold.fault.kind == warm.fault.kind && cold.fault.stage == warm.fault.stage);
        REQUIRE(cold.fault.cause == warm.fault.cause && cold.fault.ipa == warm.fault.ipa);
        REQUIRE(cold.pa == warm.pa);
    }
    leave(reader);
}

static void poke(struct machine *m)
{
    uint64_t at = take_place(m), word, kind = take(m, 1);
    memcpy(&word, m->ram + at, 8);
    if (kind < 128)
        word ^= UINT64_C(1) << kind % 64;
    else
        word = take_word(m);
    put64(m->ram, at, word);
}

static void set_parameters(struct machine *m)
{
    uint64_t kind = take(m, 1);
    m->set.enabled = kind & 7;
    m->set.aborts = kind & 8;
    vi_set_parameters(m->core, &m->set);
}

/* A queue of any commands, wherever it lies. */
static void consume(struct machine *m)
{
    struct vi_command_queue queue = {
        .base = take_word(m) & ~UINT64_C(0xFFF),
        .log2size = (uint32_t)take(m, 1) % 9,
        .prod = (uint32_t)take(m, 2),
        .cons = (uint32_t)take(m, 2),
        .vmid_mask = (uint16_t)~take(m, 1),
        .may_sync = true,
        .signals = (uint8_t)(take(m, 1) % 3),
    };
    uint32_t limit = (uint32_t)take(m, 1);
    for (unsigned at = 0; at < 8; at++) {
        uint64_t place = queue.base + 16 * at - RAM_BASE;
        if (place < RAM_SIZE - 16) {
            put64(m->ram, place, take(m, 8));
            put64(m->ram, place + 8, take(m, 8));
        }
    }
    struct vi_consumed so_far;
    uint32_t done = vi_consume(&m->v3, &queue, limit, &so_far), mask = (UINT32_C(2) << queue.log2size) - 1;
    REQUIRE(done <= limit && so_far.cons == ((queue.cons + done) & mask) && so_far.syncs <= done);
    REQUIRE(m->v3.kept <= VI_MOST_KEPT);
    if (limit & 1)
        m->v3.kept = 0;
}

static void invalidate(struct machine *m)
{
    uint64_t kind = take(m, 1);
    bool leaf = kind & 128;
    int world = (int)(kind >> 3 & 3);
    int32_t vmid = kind & 32 ? VMID : VI_ANY, asid = kind & 64 ? ASID : VI_ANY;
    switch (kind % 8) {
    case 0:
        vi_withdraw(m->core, take_sid(m), take_ssid(m));
        break;
    case 1: {
        uint32_t first = take_sid(m), more = (uint32_t)(UINT64_C(1) << take(m, 1) % 33);
        vi_withdraw_streams(m->core, first, more < UINT32_MAX - first ? first + more : UINT32_MAX);
        break;
    }
    case 2:
    case 3:
        consume(m);
        break;
    case 4:
        vi_invalidate_spaces(m->core, world, vmid, (uint16_t)~take(m, 2), asid);
        break;
    case 5:
        invalidate_tlbs(m->core);
        break;
    default: {
        static const uint8_t granules[] = {0, 12, 14, 16};
        uint8_t granule = granules[take(m, 1) % 4];
        int8_t level = granule ? (int8_t)(take(m, 1) % 4) : VI_ANY_LEVEL;
        uint64_t start = take_address(m) & ~UINT64_C(0xFFF);
        uint64_t most = ~start, size = UINT64_C(0x1000) << take(m, 1) % 48;
        vi_invalidate_range(m->core, world, start, size < most ? size : most, vmid, 0xFFFF, asid, granule,
                            leaf ? level : VI_ANY_LEVEL);
    }
    }
    if (kind & 1)
        vi_quiesce(m->core);
}

/* Any access by PA, through a buffer that is no longer than it. */
static void access_memory(struct machine *m)
{
    uint64_t kind = take(m, 1), pa = take_address(m), value = 0;
    uint64_t size = kind & 8 ? 1 + take(m, 1) % 64 : take(m, 2) % (MOST_BYTES + 1);
    uint8_t *bytes = calloc(1, size ? size : 1);
    REQUIRE(bytes);
    struct vi_reader *reader = enter(m, (unsigned)kind);
    switch (kind % 4) {
    case 0:
        vi_read(reader, pa, bytes, size);
        break;
    case 1:
        if (vi_write(reader, pa, bytes, size) && size)
            REQUIRE(pa < ROM_BASE || pa >= ROM_BASE + ROM_SIZE);
        break;
    case 2:
        vi_load64(reader, pa & ~UINT64_C(7), &value);
        break;
    default: {
        int swapped = vi_swap64(reader, pa & ~UINT64_C(7), take(m, 1), take(m, 8));
        REQUIRE(swapped >= -1 && swapped <= 1);
    }
    }
    leave(reader);
    free(bytes);
}

/* What a model asks beside requests. */
static void look(struct machine *m)
{
    uint64_t address = take_address(m) & ~UINT64_C(63), words[8], pa = 0;
    struct vi_fault fault = {0};
    struct vi_context context = take_context(m);
    REQUIRE(vi_make_context(m->core, &context));
    struct vi_reader *reader = enter(m, 1);
    if (context.stage2) {
        int got = vi_read_ipa(reader, &context, address, words, sizeof words, &pa, &fault);
        REQUIRE(got >= -1 && got <= 1 && (got == 0) == (fault.kind != VI_NO_FAULT));
    }
    leave(reader);
    vi_drop_context(m->core, &context);
}

static void set_windows(struct machine *m, unsigned without)
{
    const struct vi_window all[] = {
        {.base = ROM_BASE, .size = ROM_SIZE, .host = m->rom, .allows = VI_MAY_READ},
        {.base = RAM_BASE, .size = RAM_SIZE, .host = m->ram, .allows = VI_MAY_READ | VI_MAY_WRITE},
        {.base = RAM_BASE + RAM_SIZE, .size = NEXT_SIZE, .host = m->next, .allows = VI_MAY_READ | VI_MAY_WRITE},
        {.base = HOLE_BASE, .size = 0x1000},
    };
    struct vi_window some[4];
    uint32_t count = 0;
    for (unsigned at = 0; at < 4; at++)
        if (!(without >> at & 1))
            some[count++] = all[at];
    REQUIRE(vi_set_windows(m->core, some, count));
}

/* ---- who looks on --------------------------------------------------------------------------------------------------- */

enum { RING = 4096 };

/* Finds each page whose descriptor has changed since. */
static void find_stale(void *of, struct vi_reader *reader, const struct vi_hit *hit)
{
    (void)of;
    if (hit->found && hit->read && hit->now != hit->entry.descriptor)
        REQUIRE(vi_tell_finding(reader, 1, hit));
}

/* All that was told has a kind that was wanted, in the order of numbers; afterwards there is room. */
static void take_records(struct machine *m)
{
    static struct vi_record records[RING];
    for (uint64_t count; (count = vi_watch_told(&m->watch));) {
        REQUIRE(count <= RING);
        vi_watch_take(&m->watch, count, records);
        for (uint64_t at = 0; at < count; at++) {
            REQUIRE(atomic_load(&records[at].number) == ++m->taken);
            REQUIRE(records[at].kind == VI_VOID || records[at].kind <= VI_FOUND);
            REQUIRE(records[at].time);
        }
    }
    REQUIRE(!atomic_load(&m->watch.promised) && atomic_load(&m->watch.taken) == atomic_load(&m->watch.next));
}

/* Somebody begins or ends to look on, or to check, between two steps. */
static void look_on(struct machine *m)
{
    uint64_t kind = take(m, 1);
    atomic_store(&m->watch.kinds, kind & 2 ? UINT32_MAX : (uint32_t)take(m, 3));
    vi_watch_core(m->core, kind & 1 ? &m->watch : NULL);
    vi_set_check(m->core, kind & 4 ? &m->check : NULL);
    vi_quiesce(m->core);
}

static void step(struct machine *m)
{
    take_records(m);
    switch (take(m, 1) % 17) {
    case 0:
        set_parameters(m);
        break;
    case 1:
    case 2:
        invalidate(m);
        break;
    case 3:
        access_memory(m);
        break;
    case 4:
        look(m);
        break;
    case 5:
        set_windows(m, take(m, 1) & 64 ? 0 : (unsigned)take(m, 1));
        break;
    case 6:
    case 7:
    case 8:
        poke(m);
        break;
    case 9:
    case 10:
        cold_and_warm(m);
        break;
    case 11:
    case 12:
        publish_any(m);
        break;
    case 16:
        look_on(m);
        break;
    default:
        transaction(m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine m = {.input = data, .left = size, .set = parameters()};
    uint64_t capacity = take(&m, 1);
    static const uint8_t sizes[] = {48, 32, 36, 40, 42, 44, 52, 48};
    m.set.output_bits = sizes[capacity >> 2 & 7];
    m.core = vi_core_new(capacity & 1 ? 1 : 64, capacity & 2 ? 1 : 16);
    m.ram = calloc(1, RAM_SIZE);
    m.next = calloc(1, NEXT_SIZE);
    m.rom = calloc(1, ROM_SIZE);
    m.before = malloc(RAM_SIZE);
    REQUIRE(m.core && m.ram && m.next && m.rom && m.before && vi_watch_make(&m.watch, RING));
    m.check.check = find_stale;
    write_tables(m.ram);
    set_windows(&m, 0);
    vi_set_parameters(m.core, &m.set);
    m.v3 = (struct vi_v3){m.core, 0x0948709B, 0x1404, 0x75, 0, 0, {{0}}, {0}};
    for (unsigned sid = 0; sid < STREAMS; sid++)
        publish(m.core, sid, VI_NO_SSID);
    for (unsigned steps = 0; m.left && steps < MOST_STEPS; steps++)
        step(&m);
    take_records(&m);
    vi_core_free(m.core);
    vi_watch_free(&m.watch);
    free(m.ram);
    free(m.next);
    free(m.rom);
    free(m.before);
    return 0;
}
