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
    uint8_t *ram, *next, *rom;
    uint8_t *before; /* a copy of RAM */
};

/* Input; zeros once there is none left. */
static uint64_t take(struct machine *m, unsigned bytes)
{
    uint64_t value = 0;
    for (; bytes && m->left; bytes--, m->left--)
        value = value << 8 | *m->input++;
    return value;
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
        {STRTAB, 64 * STREAMS},
        {L1STRTAB, 64},
        {CDS, 64 * STREAMS},
        {MANY_CDS, 128},
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
    struct vi_lookup found;
    struct vi_fault fault;
    uint64_t pa, size;
};

static void ask(struct vi_reader *reader, const struct asked *asked, struct answered *answer)
{
    *answer = (struct answered){0};
    vi_lookup(reader, asked->sid, asked->ssid, &answer->found);
    REQUIRE(answer->found.status <= VI_CD_FAULT);
    if (answer->found.status == VI_CD_FAULT) {
        REQUIRE(answer->found.fault.kind != VI_NO_FAULT);
        check_fault(&answer->found.fault);
    }
    if (answer->found.status != VI_FOUND)
        return;
    const struct vi_context *context = answer->found.context;
    REQUIRE(context && context->sid == asked->sid);
    struct vi_output output;
    answer->fault = vi_translate(reader, context, asked->address, asked->access, VI_INCOMING, asked->mappings, &output);
    check_fault(&answer->fault);
    if (answer->fault.kind != VI_NO_FAULT)
        return;
    REQUIRE(output.size > 0);
    REQUIRE(output.pa < UINT64_C(1) << 52 || !(context->stage1 || context->stage2));
    REQUIRE(!asked->mappings || (output.has1 == context->stage1 && output.has2 == context->stage2));
    answer->pa = output.pa;
    answer->size = output.size;
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
    REQUIRE(result->end == VI_DONE || result->counted);
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
    uint8_t *bytes = malloc(request.size ? request.size : 1);
    REQUIRE(bytes);
    memset(bytes, (int)kind, request.size);
    struct vi_reader *reader = vi_enter(m->core, (unsigned)kind);
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
        uint32_t count = vi_pieces(reader, &request, 0, pieces, 3, &result);
        uint64_t all = 0;
        REQUIRE(count <= 3);
        for (uint32_t at = 0; at < count; at++)
            all += pieces[at].size;
        REQUIRE(all == result.done);
    }
    }
    vi_exit(reader);
    free(bytes);
}

/* A request by empty caches, and again by what they keep now; unless the first wrote into memory. */
static void cold_and_warm(struct machine *m)
{
    struct asked asked = take_request(m);
    struct answered cold, warm;
    vi_invalidate_configuration(m->core);
    vi_invalidate_tlbs(m->core);
    vi_quiesce(m->core);
    memcpy(m->before, m->ram, RAM_SIZE);
    struct vi_reader *reader = vi_enter(m->core, 0);
    ask(reader, &asked, &cold);
    if (!memcmp(m->before, m->ram, RAM_SIZE)) {
        asked.mappings = !asked.mappings;
        ask(reader, &asked, &warm);
        REQUIRE(cold.found.status == warm.found.status);
        REQUIRE(cold.found.event == warm.found.event);
        REQUIRE(cold.fault.kind == warm.fault.kind && cold.fault.stage == warm.fault.stage);
        REQUIRE(cold.fault.cause == warm.fault.cause && cold.fault.ipa == warm.fault.ipa);
        REQUIRE(cold.pa == warm.pa);
    }
    vi_exit(reader);
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
    unsigned bit = (unsigned)take(m, 1);
    uint32_t *const words[] = {&m->set.idr0, &m->set.idr1, &m->set.idr3, &m->set.idr5,
                               &m->set.cr2,  &m->set.gbpa, &m->set.strtab_base_cfg};
    if (kind % 10 < 7)
        *words[kind % 10] ^= UINT32_C(1) << bit % 32;
    else if (kind % 10 == 7)
        m->set.strtab_base = kind & 1 ? take_word(m) : RAM_BASE + (bit & 1 ? L1STRTAB : STRTAB);
    else if (kind % 10 == 8)
        /* Two levels, split at 6, 8 or 10. */
        m->set.strtab_base_cfg = bit & 1 ? 0x10000 | (bit & 2 ? 6 : bit & 4 ? 8 : 10) << 6 | 9 : 4;
    else if (bit < 64)
        m->set.enabled = !m->set.enabled;
    else
        m->set = parameters();
    vi_set_parameters(m->core, &m->set);
}

static void invalidate(struct machine *m)
{
    uint64_t kind = take(m, 1);
    bool leaf = kind & 128;
    int world = (int)(kind >> 3 & 3);
    int32_t vmid = kind & 32 ? VMID : VI_ANY, asid = kind & 64 ? ASID : VI_ANY;
    switch (kind % 8) {
    case 0:
        vi_invalidate_configuration(m->core);
        break;
    case 1:
        vi_invalidate_stes(m->core, take_sid(m), take(m, 1) ? 1 : UINT64_C(1) << take(m, 1) % 33, leaf);
        break;
    case 2:
        vi_invalidate_cd(m->core, take_sid(m), take_ssid(m), leaf);
        break;
    case 3:
        vi_invalidate_cds(m->core, take_sid(m));
        break;
    case 4:
        vi_invalidate_spaces(m->core, world, vmid, (uint16_t)~take(m, 2), asid);
        break;
    case 5:
        vi_invalidate_tlbs(m->core);
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
    struct vi_reader *reader = vi_enter(m->core, (unsigned)kind);
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
    vi_exit(reader);
    free(bytes);
}

/* What the Python side asks beside requests. */
static void look(struct machine *m)
{
    uint32_t sid = take_sid(m), ssid = take_ssid(m);
    uint64_t address = take_address(m) & ~UINT64_C(7), ste[8] = {0}, words[8], pa = 0;
    struct vi_lookup found;
    struct vi_fault fault = {0};
    struct vi_context bare;
    struct vi_reader *reader = vi_enter(m->core, 1);
    vi_legal_ste(reader, sid, ssid, ste, &found);
    if (found.status == VI_FOUND) {
        vi_bare_context(reader, ste, &bare);
        REQUIRE(!bare.stage1);
        if (bare.stage2) {
            int got = vi_read_ipa(reader, &bare, address & ~UINT64_C(63), words, sizeof words, &pa, &fault);
            REQUIRE(got >= -1 && got <= 1 && (got == 0) == (fault.kind != VI_NO_FAULT));
        }
    }
    vi_exit(reader);
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

static void step(struct machine *m)
{
    switch (take(m, 1) % 16) {
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
    default:
        transaction(m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine m = {.input = data, .left = size, .set = parameters()};
    uint64_t capacity = take(&m, 1);
    m.core = vi_core_new(capacity & 1 ? 1 : 64, capacity & 2 ? 1 : 16);
    m.ram = calloc(1, RAM_SIZE);
    m.next = calloc(1, NEXT_SIZE);
    m.rom = calloc(1, ROM_SIZE);
    m.before = malloc(RAM_SIZE);
    REQUIRE(m.core && m.ram && m.next && m.rom && m.before);
    write_structures(m.ram);
    set_windows(&m, 0);
    vi_set_parameters(m.core, &m.set);
    for (unsigned steps = 0; m.left && steps < MOST_STEPS; steps++)
        step(&m);
    vi_core_free(m.core);
    free(m.ram);
    free(m.next);
    free(m.rom);
    free(m.before);
    return 0;
}
