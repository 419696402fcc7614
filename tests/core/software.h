/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What software sets up for an SMMU in its memory, and what a model makes of it, for the C tests: streams of each kind,
 * each with the same few pages.
 *
 * Knows core.h and the layout of tables in memory; looks into the core nowhere.
 */
#ifndef SOFTWARE_H
#define SOFTWARE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "declared.h"

/* Ends the test, naming what is not so. */
#define REQUIRE(what)                                                                                                 \
    do {                                                                                                              \
        if (!(what)) {                                                                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                        \
            abort();                                                                                                  \
        }                                                                                                             \
    } while (0)

#define RAM_BASE UINT64_C(0x40000000)
#define RAM_SIZE UINT64_C(0x40000)

/* Offsets in RAM; what is not named is free. */
enum {
    STAGE1 = 0x4000,     /* levels 1, 2 and 3, a page each; 4K granule, 39 bits */
    STAGE1_64K = 0x20000, /* levels 2 and 3, which is one page; 64K granule, 42 bits */
    STAGE2 = 0x8000,     /* levels 1, 2 and 3: an identity of RAM's first 2M in pages, and a block of the next */
    PAGES = 0x10000,     /* what the streams' pages are: page n of IOVA is here at n */
};
#define PAGE_COUNT 16
#define IOVA UINT64_C(0x7000000000) /* of the first page of the streams with a 4K granule */

enum { STAGE1_STREAM, STAGE2_STREAM, NESTED_STREAM, BYPASS_STREAM, SUBSTREAMS, STREAM_64K, STREAMS };
#define ASID 5
#define VMID 3

static inline void put64(uint8_t *ram, uint64_t at, uint64_t value) { memcpy(ram + at, &value, sizeof value); }

static inline uint64_t page_descriptor(uint64_t pa) { return pa | 0xF43; /* nG, AF, SH 3, AP 1, page */ }
static inline uint64_t stage2_descriptor(uint64_t pa, unsigned type)
{
    return pa | 0x7FC | type; /* AF, SH 3, S2AP 3, write-back */
}

/* Where the descriptor of page n is: of stage 1 (4K) by IOVA, of stage 2 by IPA, which is the PA. */
static inline uint64_t stage1_at(unsigned n) { return STAGE1 + 0x2000 + 8 * (uint64_t)n; }
static inline uint64_t stage2_at(unsigned n) { return STAGE2 + 0x2000 + 8 * (uint64_t)(PAGES / 0x1000 + n); }

/* All tables into `ram`, whose every byte is zero. */
static inline void write_tables(uint8_t *ram)
{
    put64(ram, STAGE1 + 8 * (IOVA >> 30 & 511), (RAM_BASE + STAGE1 + 0x1000) | 3);
    put64(ram, STAGE1 + 0x1000 + 8 * (IOVA >> 21 & 511), (RAM_BASE + STAGE1 + 0x2000) | 3);
    put64(ram, STAGE1 + 0x1000 + 8 * 1, (page_descriptor(RAM_BASE) & ~UINT64_C(2)));
    for (unsigned n = 0; n < PAGE_COUNT; n++)
        put64(ram, stage1_at(n), page_descriptor(RAM_BASE + PAGES + 0x1000 * (uint64_t)n));

    put64(ram, STAGE1_64K, (RAM_BASE + STAGE1_64K + 0x10000) | 3);
    put64(ram, STAGE1_64K + 0x10000, page_descriptor(RAM_BASE + PAGES));

    put64(ram, STAGE2 + 8 * (RAM_BASE >> 30), (RAM_BASE + STAGE2 + 0x1000) | 3);
    put64(ram, STAGE2 + 0x1000, (RAM_BASE + STAGE2 + 0x2000) | 3);
    put64(ram, STAGE2 + 0x1000 + 8, stage2_descriptor(RAM_BASE + 0x200000, 1));
    for (uint64_t at = 0; at < RAM_SIZE; at += 0x1000)
        put64(ram, STAGE2 + 0x2000 + at / 0x1000 * 8, stage2_descriptor(RAM_BASE + at, 3));
}

/* 48 bits of physical addresses. */
static inline struct vi_parameters parameters(void)
{
    return (struct vi_parameters){.output_bits = 48, .enabled = true};
}

/* A table as a model describes it, of `input_bits`; stage 2 begins where stage 1 would. */
static inline struct vi_table table_of(unsigned stage, uint64_t base, unsigned granule_bits, unsigned input_bits)
{
    return (struct vi_table){
        .stage = (uint8_t)stage,
        .base = base,
        .mair = 0x04FF, /* write-back, Device-nGnRE */
        .granule_bits = (uint8_t)granule_bits,
        .input_bits = (uint8_t)input_bits,
        .output_bits = 48,
        .start_level = (int8_t)(3 - (int)(input_bits - 1 - granule_bits) / (int)(granule_bits - 3)),
        .first_block_level = granule_bits == 12 ? 1 : 2,
        .shareability = VI_SH_OF_LEAF,
        .enabled = true,
        .hierarchical = true,
        .access_fault = true,
    };
}

/* What a model makes of a stream, but for what vi_make_context adds; of others than the few there is one that bypasses. */
static inline struct vi_context context_of(unsigned sid)
{
    struct vi_context c = {
        .token = 1 + sid,
        .stage1 = sid == STAGE1_STREAM || sid == NESTED_STREAM || sid == SUBSTREAMS || sid == STREAM_64K,
        .stage2 = sid == STAGE2_STREAM || sid == NESTED_STREAM,
        .output_bits = 48,
        .bypass_bits = 48,
        .world = VI_WORLD_EL1,
        .unprivileged = true,
        .uwxn = true,
        .privileged = VI_AS_IT_CAME,
        .instruction = VI_AS_IT_CAME,
        .shcfg = 1, /* as it came */
    };
    if (c.stage1) {
        c.asid = ASID;
        c.half[0] = sid == STREAM_64K ? table_of(1, RAM_BASE + STAGE1_64K, 16, 42) : table_of(1, RAM_BASE + STAGE1, 12, 39);
    }
    if (c.stage2) {
        c.vmid = VMID;
        c.s2 = table_of(2, RAM_BASE + STAGE2, 12, 39);
    }
    return c;
}

/* As a model that is asked for a stream, and holds the lock of whoever invalidates. */
static inline void publish(struct vi_core *core, uint32_t sid, uint32_t ssid)
{
    struct vi_context made = context_of(sid);
    REQUIRE(vi_make_context(core, &made));
    REQUIRE(vi_publish(core, sid, ssid, &made));
    vi_drop_context(core, &made);
}

static inline void invalidate_tlbs(struct vi_core *core)
{
    vi_invalidate_tlb(core, 1);
    vi_invalidate_tlb(core, 2);
}

#endif
