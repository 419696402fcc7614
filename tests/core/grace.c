/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grace periods one by one, each in the one order of events that needs it: what stress.c meets by chance.
 *
 * Law: whoever promises that nobody uses something any more has waited for those who were inside, and what they left in
 * a TLB after it was invalidated is gone.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "software.h"
#include "tell.h"
#include "tlb.h"
#include "v3/commands.h"

enum { READERS_LANE = 1, QUEUE = 0x3000 };

struct test {
    struct vi_core *core;
    struct vi_v3 v3;
    uint8_t *ram;
};

static void set_windows(struct test *test)
{
    struct vi_window ram = {
        .base = RAM_BASE, .size = RAM_SIZE, .host = test->ram, .allows = VI_MAY_READ | VI_MAY_WRITE};
    REQUIRE(vi_set_windows(test->core, &ram, 1));
}

static void set_parameters(struct test *test)
{
    struct vi_parameters set = parameters();
    vi_set_parameters(test->core, &set);
}

static void quiesce(struct test *test) { vi_quiesce(test->core); }

static void sync_commands(struct test *test)
{
    struct vi_command_queue queue = {.base = RAM_BASE + QUEUE, .log2size = 4, .prod = 1, .may_sync = true};
    struct vi_consumed so_far;
    put64(test->ram, QUEUE, VI_Opcode_CMD_SYNC);
    REQUIRE(vi_consume(&test->v3, &queue, 1, &so_far) == 1);
}

/* ---- who must wait ------------------------------------------------------------------------------------------------ */

struct waiter {
    struct test *test;
    void (*promise)(struct test *test);
    _Atomic bool begun, done;
};

static void *wait(void *argument)
{
    struct waiter *self = argument;
    atomic_store(&self->begun, true);
    self->promise(self->test);
    atomic_store(&self->done, true);
    return NULL;
}

static void rest(void) { nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); }

static void test_waits_for_who_is_inside(struct test *test, void (*promise)(struct test *test))
{
    struct waiter waiter = {.test = test, .promise = promise};
    pthread_t thread;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    uint64_t quiesced = vi_quiesced(test->core);
    REQUIRE(!pthread_create(&thread, NULL, wait, &waiter));
    while (!atomic_load(&waiter.begun))
        rest();
    rest();
    REQUIRE(!atomic_load(&waiter.done) && vi_quiesced(test->core) == quiesced);
    vi_exit(inside);
    REQUIRE(!pthread_join(thread, NULL));
    REQUIRE(atomic_load(&waiter.done) && vi_quiesced(test->core) > quiesced);
}

/* ---- what a late reader leaves ------------------------------------------------------------------------------------ */

static uint64_t translated(struct vi_reader *inside, unsigned sid, uint64_t address)
{
    struct vi_output output;
    const struct vi_context *context = vi_context_of(inside, sid, VI_NO_SSID);
    REQUIRE(context);
    REQUIRE(vi_translate(inside, context, address, 0, VI_INCOMING, &output).kind == VI_NO_FAULT);
    return output.pa - RAM_BASE;
}

/* The reader has read the table before software changed it, and puts what it found into the TLB after its invalidation. */
static void test_an_entry_that_comes_late_is_invalidated_again(struct test *test, unsigned sid)
{
    bool second = sid == STAGE2_STREAM;
    uint64_t address = second ? RAM_BASE + PAGES : IOVA, at = second ? stage2_at(0) : stage1_at(0);
    uint64_t old = RAM_BASE + PAGES, new = old + 0x1000;
    put64(test->ram, at, second ? stage2_descriptor(old, 3) : page_descriptor(old));
    invalidate_tlbs(test->core);
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    if (second)
        vi_invalidate_range(test->core, VI_WORLD_STAGE2, address, 0x1000, VMID, 0xFFFF, VI_ANY, 0, VI_ANY_LEVEL);
    else
        vi_invalidate_range(test->core, VI_WORLD_EL1, address, 0x1000, VI_ANY, 0xFFFF, ASID, 12, 3);
    REQUIRE(translated(inside, sid, address) == PAGES);
    put64(test->ram, at, second ? stage2_descriptor(new, 3) : page_descriptor(new));
    vi_exit(inside);
    vi_quiesce(test->core);
    inside = vi_enter(test->core, READERS_LANE);
    REQUIRE(translated(inside, sid, address) == PAGES + 0x1000);
    vi_exit(inside);
}

/* ---- checks --------------------------------------------------------------------------------------------------------- */

struct evidence {
    unsigned calls, stale;
    struct vi_hit last;
    const uint8_t *bytes; /* where the request's go */
    bool moved;
};

static void remember(void *of, struct vi_reader *reader, const struct vi_hit *hit)
{
    struct evidence *evidence = of;
    (void)reader;
    evidence->calls++;
    evidence->stale += hit->found && hit->read && hit->entry.descriptor != hit->now;
    evidence->last = *hit;
    evidence->moved |= evidence->bytes[0] != 0;
}

static void read_8(struct test *test, uint8_t *bytes)
{
    struct vi_request request = {.sid = STAGE1_STREAM, .ssid = VI_NO_SSID, .iova = IOVA + 16, .size = 8, .incoming = VI_INCOMING};
    struct vi_result result;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    REQUIRE(vi_dma_read(inside, &request, bytes, &result) == VI_DONE);
    vi_exit(inside);
}

/* An entry that software changed without an invalidation is found at its next use, before bytes of it move. */
static void test_a_check_sees_each_page_before_its_bytes_move(struct test *test)
{
    uint64_t old = RAM_BASE + PAGES, new = old + 0x1000;
    uint8_t bytes[8] = {0};
    struct evidence evidence = {.bytes = bytes};
    struct vi_check check = {remember, &evidence};
    memset(test->ram + PAGES, 0x11, 0x1000);
    put64(test->ram, stage1_at(0), page_descriptor(old));
    invalidate_tlbs(test->core);
    vi_quiesce(test->core);
    read_8(test, bytes);
    memset(bytes, 0, sizeof bytes);
    vi_set_check(test->core, &check);
    read_8(test, bytes);
    REQUIRE(evidence.calls == 1 && !evidence.stale && !evidence.moved && bytes[0] == 0x11);
    REQUIRE(evidence.last.iova == IOVA + 16 && evidence.last.pa == old + 16 && evidence.last.entry.output == old);
    put64(test->ram, stage1_at(0), page_descriptor(new));
    memset(bytes, 0, sizeof bytes);
    read_8(test, bytes);
    REQUIRE(evidence.calls == 2 && evidence.stale == 1 && !evidence.moved);
    REQUIRE(evidence.last.now == page_descriptor(new) && evidence.last.entry.descriptor == page_descriptor(old));
    vi_set_check(test->core, NULL);
    read_8(test, bytes);
    REQUIRE(evidence.calls == 2);
    put64(test->ram, stage1_at(0), page_descriptor(old));
    memset(test->ram + PAGES, 0, 0x1000);
    invalidate_tlbs(test->core);
}

static void publish_all(struct test *test)
{
    for (unsigned sid = 0; sid < STREAMS; sid++)
        publish(test->core, sid, VI_NO_SSID);
}

/* A context that is dropped while it is used stays until its reader exits; the sanitizer sees whether it does. */
static void test_a_dropped_context_is_whole_while_it_is_used(struct test *test)
{
    struct waiter waiter = {.test = test, .promise = quiesce};
    pthread_t thread;
    struct vi_output output;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    const struct vi_context *context = vi_context_of(inside, STAGE1_STREAM, VI_NO_SSID);
    vi_withdraw_streams(test->core, 0, UINT32_MAX);
    REQUIRE(!vi_context_of(inside, STAGE1_STREAM, VI_NO_SSID) && !vi_context_of(inside, STAGE2_STREAM, VI_NO_SSID));
    REQUIRE(!pthread_create(&thread, NULL, wait, &waiter));
    rest();
    REQUIRE(vi_translate(inside, context, IOVA, 0, VI_INCOMING, &output).kind == VI_NO_FAULT);
    vi_exit(inside);
    REQUIRE(!pthread_join(thread, NULL));
    publish_all(test);
}

static bool has(struct test *test, uint32_t sid, uint32_t ssid)
{
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    bool found = vi_context_of(inside, sid, ssid);
    vi_exit(inside);
    return found;
}

/* What a command that invalidates configuration names is withdrawn at once, and nothing else; the model gets it, too. */
static void test_commands_withdraw_what_they_name(struct test *test)
{
    static const struct {
        uint64_t command[2];
        bool names[4]; /* of what is published below */
    } cases[] = {
        {{VI_Opcode_CMD_CFGI_STE | UINT64_C(8) << 32, 1}, {true, true, true, false}},
        {{VI_Opcode_CMD_CFGI_STE_RANGE | UINT64_C(8) << 32, 0}, {true, true, true, true}},
        {{VI_Opcode_CMD_CFGI_STE_RANGE | UINT64_C(10) << 32, 0}, {false, false, false, false}},
        {{VI_Opcode_CMD_CFGI_STE_RANGE, 31}, {true, true, true, true}},
        {{VI_Opcode_CMD_CFGI_CD | UINT64_C(8) << 32, 1}, {true, true, false, false}},
        {{VI_Opcode_CMD_CFGI_CD | UINT64_C(7) << 12 | UINT64_C(8) << 32, 1}, {false, false, true, false}},
        {{VI_Opcode_CMD_CFGI_CD_ALL | UINT64_C(8) << 32, 0}, {true, true, true, false}},
    };
    static const uint32_t ids[][2] = {{8, VI_NO_SSID}, {8, 0}, {8, 7}, {9, VI_NO_SSID}};
    struct vi_command_queue queue = {.base = RAM_BASE + QUEUE, .log2size = 4, .prod = 1};
    struct vi_consumed so_far;
    for (unsigned each = 0; each < sizeof cases / sizeof *cases; each++) {
        for (unsigned at = 0; at < 4; at++)
            publish(test->core, ids[at][0], ids[at][1]);
        memcpy(test->ram + QUEUE, cases[each].command, 16);
        test->v3.kept = 0;
        REQUIRE(vi_consume(&test->v3, &queue, 1, &so_far) == 1);
        REQUIRE(test->v3.kept == 1 && !memcmp(test->v3.keeps[0], cases[each].command, 16));
        for (unsigned at = 0; at < 4; at++)
            REQUIRE(has(test, ids[at][0], ids[at][1]) != cases[each].names[at]);
        test->v3.kept = VI_MOST_KEPT;
        REQUIRE(!vi_consume(&test->v3, &queue, 1, &so_far));
    }
    test->v3.kept = 0;
    publish_all(test);
}

/* Those that have one place in a hashed table are told apart. */
static void test_each_finds_its_own(struct test *test)
{
    unsigned there = 0;
    for (uint32_t ssid = 0; ssid < 12; ssid++)
        publish(test->core, 8 + (ssid & 1), ssid);
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    for (uint32_t ssid = 0; ssid < 24; ssid++) {
        const struct vi_context *context = vi_context_of(inside, 8 + (ssid & 1), ssid);
        REQUIRE(context ? context->ssid == ssid && context->sid == 8 + (ssid & 1) : true);
        REQUIRE(!context || ssid < 12);
        REQUIRE(!vi_context_of(inside, 9 - (ssid & 1), ssid));
        there += context != NULL;
    }
    vi_exit(inside);
    REQUIRE(there >= 8);
    for (uint32_t sid = 500; sid < 512; sid++)
        publish(test->core, sid, VI_NO_SSID);
    vi_withdraw_streams(test->core, 505, 505);
    there = 0;
    for (uint32_t sid = 500; sid < 512; sid++)
        there += has(test, sid, VI_NO_SSID);
    REQUIRE(there == 11 && !has(test, 505, VI_NO_SSID));
    publish_all(test);
}

/* The spaces of a context are there while it is, whoever else has let go of them. */
static void test_a_published_context_holds_its_spaces(struct test *test)
{
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    const struct vi_context *context = vi_context_of(inside, NESTED_STREAM, VI_NO_SSID);
    const struct vi_space *spaces[] = {context->own, context->global, context->s2_space};
    for (unsigned at = 0; at < 3; at++)
        REQUIRE(spaces[at]->contexts > 0 && spaces[at]->contexts < 100); /* nor has anybody let go too often */
    vi_exit(inside);
}

/* No more contexts are there than there is room for, without a CMD_SYNC, too; the oldest gives way. */
static void test_contexts_give_way(struct test *test)
{
    for (uint32_t sid = 100; sid < 300; sid++) {
        publish(test->core, sid, VI_NO_SSID);
        REQUIRE(has(test, sid, VI_NO_SSID));
    }
    unsigned there = 0;
    for (uint32_t sid = 0; sid < 300; sid++)
        there += has(test, sid, VI_NO_SSID);
    REQUIRE(there && there <= 16 && !has(test, 100, VI_NO_SSID));
    publish_all(test);
}

/* ---- what several threads do to an entry, done by hand ------------------------------------------------------------ */

static struct vi_entry *entry_of(struct vi_tlb *tlb, uint64_t base)
{
    for (uint32_t set = 0; set <= tlb->last_set; set++)
        for (unsigned way = 0; way < VI_WAYS; way++)
            if (VI_GET(tlb->set[set][way].base) == base && VI_GET(tlb->set[set][way].tag))
                return &tlb->set[set][way];
    return NULL;
}

/* Somebody may have walked for an empty space when it is invalidated, and puts what he found there afterwards. */
static void test_a_walk_for_an_empty_space_is_in_vain_after_its_invalidation(struct test *test)
{
    struct vi_leaf leaf = {.base = IOVA | 12}, any;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    const struct vi_context *context = vi_context_of(inside, STAGE1_STREAM, VI_NO_SSID);
    struct vi_space *own = context->own;
    invalidate_tlbs(test->core);
    uint64_t before = atomic_load(&own->state);
    REQUIRE(!(uint32_t)before);
    invalidate_tlbs(test->core);
    vi_tlb_put(test->core, test->core->tlb1, own, before, &leaf);
    REQUIRE(!vi_tlb_find(test->core->tlb1, atomic_load(&own->state), IOVA, &any));
    vi_exit(inside);
}

/* Two writers met in an entry: a hit does not read the `torn` word, so the invalidation must not go by it alone. */
static void test_an_entry_that_two_wrote_is_invalidated(struct test *test, size_t torn)
{
    struct vi_output output;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    const struct vi_context *context = vi_context_of(inside, STAGE1_STREAM, VI_NO_SSID);
    REQUIRE(vi_translate(inside, context, IOVA, 0, VI_INCOMING, &output).kind == VI_NO_FAULT);
    vi_exit(inside);
    struct vi_entry *entry = entry_of(test->core->tlb1, IOVA | 12);
    REQUIRE(entry);
    atomic_fetch_xor((_Atomic uint64_t *)(void *)((char *)entry + torn), 0x1000);
    vi_invalidate_range(test->core, VI_WORLD_EL1, IOVA, 1, VI_ANY, 0xFFFF, VI_ANY, 0, VI_ANY_LEVEL);
    vi_quiesce(test->core);
    REQUIRE(!VI_GET(entry->tag));
}

/* ---- tags, of which there are no more than 2^32 ------------------------------------------------------------------- */

/* Have the next tag be the last one of its half. */
static void use_up(struct vi_core *core) { core->spaces->next_tag |= VI_OTHER_HALF - 1; }

/* Who gives out the last tag of a half waits for who may go by one of the other, or the next one who invalidates does. */
static void use_up_and_invalidate(struct test *test)
{
    use_up(test->core);
    vi_invalidate_tlb(test->core, 1);
    vi_invalidate_tlb(test->core, 1);
}

static void use_up_and_enter(struct test *test)
{
    use_up(test->core);
    vi_invalidate_tlb(test->core, 1);
    vi_exit(vi_enter(test->core, READERS_LANE + 1));
}

static bool somebody_has(struct vi_core *core, uint32_t tag)
{
    for (uint32_t at = 0; at < core->spaces->made; at++)
        if (atomic_load(&core->spaces->pool[at].state) >> 32 == tag)
            return true;
    for (uint32_t set = 0; set <= core->tlb1->last_set; set++)
        for (unsigned way = 0; way < VI_WAYS; way++)
            if (VI_GET(core->tlb1->set[set][way].tag) >> 32 == tag || VI_GET(core->tlb2->set[set][way].tag) >> 32 == tag)
                return true;
    return false;
}

/* A reader puts an entry with a tag that its space had when it began; the tag will be another space's one day. */
static void test_no_entry_outlives_its_tag(struct test *test)
{
    struct vi_leaf leaf = {.base = IOVA | 12};
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    const struct vi_context *context = vi_context_of(inside, STAGE1_STREAM, VI_NO_SSID);
    uint64_t before = atomic_load(&context->own->state) | 1; /* it has pages of 4 KiB */
    use_up(test->core);
    vi_invalidate_tlb(test->core, 1);
    vi_tlb_put(test->core, test->core->tlb1, context->own, before, &leaf);
    REQUIRE(somebody_has(test->core, before >> 32));
    vi_exit(inside);
    vi_quiesce(test->core);
    REQUIRE(!somebody_has(test->core, before >> 32));
}

/* Nothing is forgotten of what was invalidated, and nothing else is invalidated, while tags begin anew. */
static void test_tags_begin_anew(struct test *test)
{
    uint64_t old = RAM_BASE + PAGES;
    for (unsigned half = 0; half < 4; half++) {
        uint32_t was = test->core->spaces->next_tag & VI_OTHER_HALF;
        use_up(test->core);
        for (unsigned page = 0; page < 3; page++) {
            put64(test->ram, stage1_at(0), page_descriptor(old + 0x1000 * page));
            vi_invalidate_spaces(test->core, VI_WORLD_EL1, VI_ANY, 0xFFFF, VI_ANY);
            vi_quiesce(test->core);
            for (unsigned again = 0; again < 2; again++) {
                struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
                REQUIRE(translated(inside, STAGE1_STREAM, IOVA) == PAGES + 0x1000 * page);
                vi_exit(inside);
            }
        }
        REQUIRE((test->core->spaces->next_tag & VI_OTHER_HALF) != was);
        REQUIRE(!somebody_has(test->core, was | (VI_OTHER_HALF - 1)) && !test->core->spaces->worn);
        for (uint32_t at = 0; at < test->core->spaces->made; at++)
            REQUIRE(atomic_load(&test->core->spaces->pool[at].state) >> 32);
    }
}

/* ---- what has nothing to do with others, and nobody else looks at --------------------------------------------------- */

/* Within a page, as memmove does it, whatever parts it is done in. */
static void test_a_copy_may_overlap_itself(struct test *test, unsigned from, unsigned to, unsigned size)
{
    static uint8_t expected[4096];
    uint8_t *page = test->ram + PAGES + 0x3000;
    for (unsigned at = 0; at < sizeof expected; at++)
        page[at] = expected[at] = (uint8_t)(at * 7 + at / 256);
    memmove(expected + to, expected + from, size);
    struct vi_request read = {
        .sid = STAGE1_STREAM, .ssid = VI_NO_SSID, .iova = IOVA + 0x3000 + from, .size = size, .incoming = VI_INCOMING};
    struct vi_request write = read;
    write.iova = IOVA + 0x3000 + to;
    write.access = VI_WRITE;
    struct vi_run run;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    vi_run_copy(inside, &read, &write, VI_MOST_BURST, &run);
    vi_exit(inside);
    REQUIRE(run.end == VI_RUN_DONE && run.done == size && !memcmp(page, expected, sizeof expected));
}

/* Two pages that are alike but for what the tables above them forbid. */
static void test_a_page_is_not_taken_for_one_below_another_table(struct test *test)
{
    put64(test->ram, STAGE1 + 0x1000 + 8 * 2, (RAM_BASE + STAGE1 + 0x2000) | UINT64_C(1) << 62 | 3); /* read-only */
    struct vi_request request = {
        .sid = STAGE1_STREAM, .ssid = VI_NO_SSID, .access = VI_WRITE, .incoming = VI_INCOMING};
    uint64_t word = 0;
    struct vi_result result;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    request.size = sizeof word;
    request.iova = IOVA + 0x5000;
    REQUIRE(vi_dma_write(inside, &request, &word, &result) == VI_DONE);
    request.iova = IOVA + 2 * 0x200000 + 0x5000;
    REQUIRE(vi_dma_write(inside, &request, &word, &result) == VI_FAULTED && result.fault.kind == VI_PERMISSION);
    vi_exit(inside);
}

/* Pages of one request, whose tables are looked into page after page: the last four of a table, and those of a read-only
 * one behind it. */
static void test_pages_beside_each_other_have_their_own_tables(struct test *test)
{
    static uint8_t bytes[8 * 0x1000];
    uint64_t first = IOVA + 2 * 0x200000;
    put64(test->ram, STAGE1 + 0x1000 + 8 * 1, (RAM_BASE + STAGE1 + 0x2000) | 3);
    put64(test->ram, STAGE1 + 0x1000 + 8 * 2, (RAM_BASE + STAGE1 + 0x2000) | UINT64_C(1) << 62 | 3);
    for (unsigned page = 508; page < 512; page++)
        put64(test->ram, STAGE1 + 0x2000 + 8 * page, *(uint64_t *)(void *)(test->ram + STAGE1 + 0x2000 + 8));
    vi_invalidate_tlb(test->core, 1);
    struct vi_request request = {.sid = STAGE1_STREAM, .ssid = VI_NO_SSID, .incoming = VI_INCOMING};
    struct vi_result result;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    request.iova = first - 4 * 0x1000;
    request.size = sizeof bytes;
    request.access = VI_WRITE;
    REQUIRE(vi_dma_write(inside, &request, bytes, &result) == VI_FAULTED && result.fault.kind == VI_PERMISSION);
    REQUIRE(result.done == 4 * 0x1000);
    request.iova = first;
    request.size = 4 * 0x1000;
    request.access = 0;
    REQUIRE(vi_dma_read(inside, &request, bytes, &result) == VI_DONE);
    request.access = VI_WRITE;
    for (request.size = 0x1000; request.iova < first + 4 * 0x1000; request.iova += 0x1000)
        REQUIRE(vi_dma_write(inside, &request, bytes, &result) == VI_FAULTED && !result.done);
    vi_exit(inside);
}

/* However much a request tells, what it holds of the ring while it is inside is no more than it may tell next. */
static void count_promised(void *of, struct vi_reader *reader, const struct vi_hit *hit)
{
    uint64_t promised = atomic_load((_Atomic uint64_t *)of);
    (void)reader, (void)hit;
    REQUIRE(promised && promised <= VI_PROMISE + VI_OF_A_PAGE + VI_MOST_AHEAD);
}

static void test_a_long_request_holds_little_of_the_ring(struct test *test)
{
    enum { PAGES_READ = 400, RING = 4096 };
    struct vi_watch watch;
    struct vi_check check = {count_promised, &watch.promised};
    static uint8_t bytes[PAGES_READ * 0x1000];
    struct vi_request request = {.sid = STAGE1_STREAM, .ssid = VI_NO_SSID, .iova = IOVA, .size = sizeof bytes,
                                 .incoming = VI_INCOMING};
    struct vi_result result;
    for (unsigned page = 0; page < PAGES_READ; page++)
        put64(test->ram, STAGE1 + 0x2000 + 8 * page, page_descriptor(RAM_BASE + PAGES));
    vi_invalidate_tlb(test->core, 1);
    REQUIRE(vi_watch_make(&watch, RING));
    atomic_store(&watch.kinds, UINT32_MAX);
    vi_watch_core(test->core, &watch);
    vi_set_check(test->core, &check);
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    REQUIRE(vi_dma_read(inside, &request, bytes, &result) == VI_DONE);
    vi_exit(inside);
    vi_set_check(test->core, NULL);
    vi_watch_core(test->core, NULL);
    vi_quiesce(test->core);
    REQUIRE(vi_watch_told(&watch) > 2 * PAGES_READ && !atomic_load(&watch.promised));
    vi_watch_free(&watch);
}

/* Rule 7 is about any page. */
static void find_all(void *of, struct vi_reader *reader, const struct vi_hit *hit)
{
    *(unsigned *)of += vi_tell_finding(reader, 7, hit);
}

/* A finding is told before its page's use, with the evidence; none is lost in a ring that has no room for uses. */
static void test_findings_are_told_with_their_evidence_and_none_is_lost(struct test *test)
{
    enum { RING = 1024, READS = 200 };
    struct vi_watch watch;
    unsigned told = 0, found = 0, before_its_use = 0;
    struct vi_check check = {find_all, &told};
    uint8_t bytes[8];
    put64(test->ram, stage1_at(0), page_descriptor(RAM_BASE + PAGES));
    vi_invalidate_tlb(test->core, 1);
    REQUIRE(vi_watch_make(&watch, RING));
    atomic_store(&watch.kinds, UINT32_MAX);
    atomic_store(&watch.synced, 42);
    vi_watch_core(test->core, &watch);
    vi_set_check(test->core, &check);
    struct vi_request request = {.sid = STAGE1_STREAM, .ssid = VI_NO_SSID, .iova = IOVA + 16, .size = 8, .incoming = VI_INCOMING};
    struct vi_result result;
    unsigned done = 0;
    struct vi_reader *inside = vi_enter(test->core, READERS_LANE);
    for (unsigned i = 0; i < READS; i++) /* until there is room for no request more */
        done += vi_dma_read(inside, &request, bytes, &result) == VI_DONE;
    vi_exit(inside);
    vi_set_check(test->core, NULL);
    vi_watch_core(test->core, NULL);
    vi_quiesce(test->core);
    for (uint64_t at = 0; at < vi_watch_told(&watch); at++) {
        const struct vi_record *record = &watch.ring[at];
        if (record->kind != VI_FOUND)
            continue;
        found++;
        before_its_use += watch.ring[at + 1].kind == VI_USED && watch.ring[at + 1].word[0] == IOVA + 16;
        REQUIRE(record->size == 7 && record->sid == STAGE1_STREAM && record->word[0] == IOVA + 16 && record->word[3] == 42);
        REQUIRE(record->small == 3 && record->word[1] == page_descriptor(RAM_BASE + PAGES) && record->word[2] == record->word[1]);
    }
    REQUIRE(done > 10 && told >= done && found == told);
    REQUIRE(before_its_use > 10 && before_its_use < found); /* later uses are lost */
    vi_watch_free(&watch);
    invalidate_tlbs(test->core);
}

int main(void)
{
    struct test test = {.core = vi_core_new(64, 16), .ram = aligned_alloc(4096, RAM_SIZE)};
    REQUIRE(test.core && test.ram);
    memset(test.ram, 0, RAM_SIZE);
    write_tables(test.ram);
    test.v3 = (struct vi_v3){.core = test.core, .idr0 = VI_IDR0_S1P | VI_IDR0_S2P};
    set_windows(&test);
    set_parameters(&test);
    publish_all(&test);
    test_waits_for_who_is_inside(&test, quiesce);
    test_waits_for_who_is_inside(&test, set_windows);
    test_waits_for_who_is_inside(&test, set_parameters);
    test_waits_for_who_is_inside(&test, sync_commands);
    test_an_entry_that_comes_late_is_invalidated_again(&test, STAGE1_STREAM);
    test_an_entry_that_comes_late_is_invalidated_again(&test, STAGE2_STREAM);
    test_a_dropped_context_is_whole_while_it_is_used(&test);
    test_commands_withdraw_what_they_name(&test);
    test_each_finds_its_own(&test);
    test_a_published_context_holds_its_spaces(&test);
    test_contexts_give_way(&test);
    test_a_walk_for_an_empty_space_is_in_vain_after_its_invalidation(&test);
    test_an_entry_that_two_wrote_is_invalidated(&test, offsetof(struct vi_entry, base));
    test_an_entry_that_two_wrote_is_invalidated(&test, offsetof(struct vi_entry, rest));
    test_waits_for_who_is_inside(&test, use_up_and_invalidate);
    test_waits_for_who_is_inside(&test, use_up_and_enter);
    test_no_entry_outlives_its_tag(&test);
    test_tags_begin_anew(&test);
    test_a_copy_may_overlap_itself(&test, 0, 64, 4000);
    test_a_copy_may_overlap_itself(&test, 64, 0, 4000);
    test_a_page_is_not_taken_for_one_below_another_table(&test);
    test_a_check_sees_each_page_before_its_bytes_move(&test);
    test_pages_beside_each_other_have_their_own_tables(&test);
    test_a_long_request_holds_little_of_the_ring(&test);
    test_findings_are_told_with_their_evidence_and_none_is_lost(&test);
    vi_core_free(test.core);
    free(test.ram);
    puts("grace: ok");
    return 0;
}
