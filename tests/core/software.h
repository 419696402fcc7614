/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What software sets up for an SMMU in its memory, for the C tests: streams of each kind, each with the same few pages.
 *
 * Knows core.h and the layout of structures in memory; looks into the core nowhere.
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
    STRTAB = 0x0,        /* 16 STEs, then two levels of them from L1STRTAB on */
    L1STRTAB = 0x800,    /* 16 L1STDs of two STEs each; the first leads to STRTAB */
    CDS = 0x1000,        /* one of 64 bytes for each stream, then 16 of stream SUBSTREAMS */
    MANY_CDS = 0x1400,
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

/* Bits [msb:lsb] of a structure. */
static inline void put_field(uint64_t *words, unsigned msb, unsigned lsb, uint64_t value)
{
    uint64_t mask = UINT64_MAX >> (63 - (msb - lsb)) << lsb % 64;
    words[lsb / 64] = (words[lsb / 64] & ~mask) | (value << lsb % 64 & mask);
}

static inline uint64_t page_descriptor(uint64_t pa) { return pa | 0xF43; /* nG, AF, SH 3, AP 1, page */ }
static inline uint64_t stage2_descriptor(uint64_t pa, unsigned type)
{
    return pa | 0x7FC | type; /* AF, SH 3, S2AP 3, write-back */
}

static inline void put_cd(uint8_t *ram, uint64_t at, uint64_t table, unsigned t0sz, unsigned granule)
{
    uint64_t cd[8] = {0};
    put_field(cd, 5, 0, t0sz);
    put_field(cd, 7, 6, granule);
    cd[0] |= UINT64_C(1) << 30 | UINT64_C(1) << 31 | UINT64_C(1) << 41; /* EPD1, V, AA64 */
    cd[0] |= UINT64_C(3) << 45;                                         /* R, A */
    put_field(cd, 34, 32, VI_AddressSize_BITS_48);
    put_field(cd, 63, 48, ASID);
    cd[1] = RAM_BASE + table;
    cd[3] = 0x04FF; /* MAIR: write-back, Device-nGnRE */
    memcpy(ram + at, cd, sizeof cd);
}

static inline void put_ste(uint8_t *ram, unsigned sid, unsigned config, uint64_t cds, unsigned log2_cds)
{
    uint64_t ste[8] = {0};
    ste[0] = 1;
    put_field(ste, 3, 1, config);
    if (config & 1) {
        ste[0] |= RAM_BASE + cds;
        put_field(ste, 63, 59, log2_cds);
    }
    put_field(ste, 109, 108, 1); /* SHCFG: as it came */
    if (config & 2) {
        put_field(ste, 143, 128, VMID);
        put_field(ste, 165, 160, 64 - 39);
        put_field(ste, 167, 166, 1); /* from level 1 on */
        put_field(ste, 178, 176, VI_AddressSize_BITS_48);
        put_field(ste, 179, 179, 1);
        put_field(ste, 186, 186, 1); /* S2R */
        ste[3] |= RAM_BASE + STAGE2;
    }
    memcpy(ram + STRTAB + 64 * (uint64_t)sid, ste, sizeof ste);
}

/* Where the descriptor of page n is: of stage 1 (4K) by IOVA, of stage 2 by IPA, which is the PA. */
static inline uint64_t stage1_at(unsigned n) { return STAGE1 + 0x2000 + 8 * (uint64_t)n; }
static inline uint64_t stage2_at(unsigned n) { return STAGE2 + 0x2000 + 8 * (uint64_t)(PAGES / 0x1000 + n); }

/* All structures into `ram`, whose every byte is zero. */
static inline void write_structures(uint8_t *ram)
{
    for (unsigned leaf = 0; leaf < 8; leaf++)
        put64(ram, L1STRTAB + 8 * leaf, (RAM_BASE + STRTAB + 128 * leaf) | 2); /* Span 2: two STEs */
    put_ste(ram, STAGE1_STREAM, VI_STE_CONFIG_S1, CDS + 64 * STAGE1_STREAM, 0);
    put_ste(ram, STAGE2_STREAM, VI_STE_CONFIG_S2, 0, 0);
    put_ste(ram, NESTED_STREAM, VI_STE_CONFIG_NESTED, CDS + 64 * NESTED_STREAM, 0);
    put_ste(ram, BYPASS_STREAM, VI_STE_CONFIG_BYPASS, 0, 0);
    put_ste(ram, SUBSTREAMS, VI_STE_CONFIG_S1, MANY_CDS, 4);
    put_ste(ram, STREAM_64K, VI_STE_CONFIG_S1, CDS + 64 * STREAM_64K, 0);
    put_cd(ram, CDS + 64 * STAGE1_STREAM, STAGE1, 64 - 39, 0);
    put_cd(ram, CDS + 64 * NESTED_STREAM, STAGE1, 64 - 39, 0);
    put_cd(ram, CDS + 64 * STREAM_64K, STAGE1_64K, 64 - 42, 1);
    for (unsigned ssid = 0; ssid < 16; ssid++)
        put_cd(ram, MANY_CDS + 64 * ssid, STAGE1, 64 - 39, 0);

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

/* ID registers of an SMMU with all granules, 48 bits, both stages, 2-level tables, HTTU, 4 bits of SubstreamID. */
static inline struct vi_parameters parameters(void)
{
    return (struct vi_parameters){
        .idr0 = 0x0948709B,
        .idr1 = 0x0D4A0108,
        .idr3 = 0x1404,
        .idr5 = 0x75,
        .strtab_base = RAM_BASE + STRTAB,
        .strtab_base_cfg = 4,
        .enabled = true,
    };
}

#endif
