/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiled core: guest memory, TLBs, walks and whole DMA requests of one SMMU, in contexts that its model publishes.
 *
 * It answers what the Python reference answers, word for word; the reference defines what is right. Knows nothing of
 * Python, and of no programming model but in v3/. Records no events: a fault is a value that the caller makes a record of.
 * Section numbers are of IHI 0070.
 *
 * Who may call what, and when it is seen by whom
 *
 *   Readers are threads that translate or move bytes. Each request runs between vi_enter and vi_exit, which take a slot
 *   of `struct vi_core`. Between them nothing is locked. A reader sees
 *
 *     windows    one table, that of its vi_enter or a newer one (acquire load of a pointer);
 *     contexts   immutable snapshots, published by a release store and found by acquire loads; where there is none the
 *                request ends, and the model is to be asked, who publishes one;
 *     TLB        entries of relaxed 64-bit words that carry a check word; one that is torn between two writers does not
 *                check, and is a miss. Writers need no lock.
 *
 *   Writers (windows, parameters, contexts, invalidations) are called under one lock of the caller's. What they remove may be in
 *   use by readers that are inside until vi_quiesce returns: it waits for every reader that was inside when it was
 *   called, and then invalidates once more what such a reader may have put into a TLB meanwhile. vi_enter is
 *   sequentially consistent with vi_quiesce's look at the slots, so a reader is either waited for, or comes late enough to
 *   find the removal done. A CMD_SYNC completes after vi_quiesce, an unmapped window is unmapped after it.
 *
 *   Who enters while too much is retired, or tags are running out, calls vi_quiesce first, for software may never send a
 *   CMD_SYNC.
 *
 *   A reader never waits for a writer, so vi_quiesce ends once each reader's request, which is bounded, has ended.
 */
#ifndef VI_CORE_H
#define VI_CORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "watch.h"

/* ---- guest memory (memory.c) ---------------------------------------------------------------------------------- */

/* Guest physical [base, base + size) at `host`; host NULL: nothing that we reach. */
struct vi_window {
    uint64_t base, size;
    uint8_t *host;
    uint8_t allows; /* VI_MAY_READ | VI_MAY_WRITE */
    _Atomic bool *broken; /* set when the file behind it became shorter; NULL: it cannot */
};

enum { VI_MAY_READ = 1, VI_MAY_WRITE = 2 };

/* All windows, by base, not overlapping. */
struct vi_windows {
    uint32_t count;
    struct vi_window window[];
};

/* ---- what is asked and answered ------------------------------------------------------------------------------- */

enum vi_fault_kind { VI_NO_FAULT, VI_TRANSLATION, VI_ADDR_SIZE, VI_ACCESS, VI_PERMISSION, VI_WALK_EABT };
enum vi_cause { VI_CAUSE_CD, VI_CAUSE_TT, VI_CAUSE_IN }; /* as an event's CLASS */

/* Why a stage did not translate; kind 0: it did. */
struct vi_fault {
    uint8_t kind;  /* enum vi_fault_kind */
    uint8_t stage; /* 1 or 2 */
    uint8_t cause; /* enum vi_cause */
    int8_t level;
    bool table_write; /* a descriptor's update was refused, not its read */
    uint64_t ipa;     /* what stage 2 was asked for */
    uint64_t fetch;   /* physical address of the descriptor; VI_WALK_EABT alone */
};

/* What is asked of a translation. */
enum { VI_WRITE = 1, VI_PRIVILEGED = 2, VI_INSTRUCTION = 4 };

/* A memory type packed as shareability << 4 | outer << 2 | inner; outer 0: Device of kind `inner` (memory_type.py). */
typedef uint8_t vi_memory_type;

/* A leaf as a TLB holds it (walk.py, Mapping). */
struct vi_mapping {
    uint64_t base, output, descriptor, descriptor_at;
    uint8_t shift, granule_bits;
    int8_t level;
    uint8_t attributes, shareability;
    vi_memory_type memory;
    uint8_t flags; /* VI_READABLE … */
};
/* Those of a stage 1 leaf in the order of its descriptor, so that few shifts place them. No leaf has VI_NEVER. */
enum {
    VI_USER = 1,
    VI_WRITABLE = 2,
    VI_READABLE = 4,
    VI_CLEAN = 8,
    VI_NEVER = 16,
    VI_NOT_GLOBAL = 32,
    VI_PXN = 64,
    VI_UXN = 128,
};

/* ---- translation contexts (contexts.c) -------------------------------------------------------------------- */

enum vi_wide { VI_NARROW, VI_WIDE_64K, VI_WIDE_LPA2 };

/* A translation table as its configuration describes it (walk.py, Table), and a half's own fields (HalfContext). */
struct vi_table {
    uint64_t base, mair;
    uint8_t granule_bits, input_bits, output_bits;
    int8_t start_level, first_block_level;
    uint8_t wide;         /* enum vi_wide */
    uint8_t shareability; /* of all leaves; VI_SH_OF_LEAF: each has its own */
    uint8_t stage;
    bool enabled; /* false: a disabled half */
    bool big_endian, hierarchical, access_fault, update_access, update_dirty, update_tables;
    bool top_byte_ignored, no_unprivileged; /* stage 1: TBIx, E0PDx */
    /* What follows from the above (vi_make_context). */
    bool plain;            /* most descriptors need no more than to be followed */
    uint8_t plain_bits;    /* granule_bits, if it is plain, and of stage 2 or of a stage 1 that is alone; else 0 */
    uint8_t levels;        /* descriptors on the way to a page */
    uint8_t quick_bits;    /* the same where they are pages of 4 KiB, behind more than one table */
    uint8_t start_shift;   /* of an address, for its index into the first table; and for that times 8 */
    uint8_t start_times_8;
    uint64_t start_mask;   /* of that index, times 8 */
    uint64_t within;       /* of an address, what is within its page */
    uint64_t beyond;       /* bits of an address that are the same in all that it translates (quickly): `above` */
    uint64_t above;
    uint64_t address, too_high; /* bits of a descriptor that are its address, and those that must be 0 */
    uint64_t tested, tested_page; /* … with its type, and of a page with AF */
    uint64_t hierarchy;         /* of table descriptors' bits, those that count */
    uint64_t telling;           /* of a leaf's descriptor's bits, those on which its tag depends */
    uint32_t constant;          /* of its leaves' tags, what is the same in all but their level */
    uint8_t kind[16]; /* memory type by AttrIndx or MemAttr; VI_SH_COUNTS: with the shareability that the leaf has */
};
#define VI_SH_COUNTS 0xC0
#define VI_SH_OF_LEAF 0xFF

#define VI_NO_SSID UINT32_MAX
enum { VI_WORLD_STAGE2, VI_WORLD_EL1, VI_WORLD_EL2, VI_WORLD_EL2_E2H };
enum { VI_AS_IT_CAME = 2 };

struct vi_space;

/* All that a translation needs to know of its stream (context.py): immutable once it is made. */
struct vi_context {
    uint32_t sid, ssid; /* where it is published; ssid VI_NO_SSID: none */
    uint64_t token;     /* the model's name for it */
    bool stage1, stage2; /* which stages translate */
    uint8_t output_bits; /* of physical addresses */
    uint8_t bypass_bits; /* of the addresses that a bypassed stage 1 lets pass */
    uint8_t world;
    uint16_t vmid, asid;
    uint8_t aset; /* 0 where there are no ASIDs */
    bool aarch32;
    uint8_t t0sz, t1sz; /* of AArch32 tables */
    /* Stage 1 regime (walk.py, Regime). */
    bool unprivileged, wxn, uwxn, pan, epan, execute_needs_read, xn_for_all;
    /* Stage 2. */
    bool s2_protected_walks, s2_forced_writeback, s2_execute_needs_read, s2_two_bit_xn;
    uint8_t privileged, instruction; /* what becomes of a transaction's attributes; VI_AS_IT_CAME */
    bool replace_type; /* whether the memory type is replaced, by which MemAttr, and SHCFG */
    uint8_t memattr, shcfg;
    struct vi_table half[2]; /* by VA[55], or as AArch32 selects */
    struct vi_table s2;
    /* What vi_make_context adds: where the TLBs keep its entries, … */
    struct vi_space *own, *global, *s2_space;
    /* … and what follows from the above. */
    bool quick; /* most addresses of stage 1 need no more than a look at their range */
    bool alone; /* stage 1 is the one that translates, and most of its leaves are in the space `own` */
    /* By access (VI_WRITE | …): a leaf with all of `need` and none of `forbid` permits it; for others see the rules. */
    uint8_t need[8], forbid[8], s2_need[8];
};

/* What requests depend on beside contexts. */
struct vi_parameters {
    uint8_t output_bits; /* of physical addresses */
    bool enabled;        /* false: addresses are physical, … */
    bool aborts;         /* … and whether none is let through */
};

/* ---- the instance ---------------------------------------------------------------------------------------------- */

struct vi_core;

/* Counters of a slot; plain numbers that its reader alone changes. */
struct vi_counters {
    _Atomic uint64_t transactions, translations, walks, tlb_hits, tlb_misses, tlb2_hits, tlb2_misses, contexts;
    _Atomic uint64_t walks_more;  /* beyond the first of a translation */
    _Atomic uint64_t descriptors; /* read or updated by walks */
};
enum { VI_COUNTERS = sizeof(struct vi_counters) / sizeof(_Atomic uint64_t) };

/* NULL: no memory. The capacities are rounded up to what the caches' shapes allow. */
struct vi_core *vi_core_new(uint32_t tlb_entries, uint32_t contexts);
void vi_core_free(struct vi_core *core);

/* Who is in a request; `hint` 0 to VI_SLOTS - 1 is tried first, so a thread that keeps its own finds it free. */
#define VI_SLOTS 64
struct vi_reader;
struct vi_reader *vi_enter(struct vi_core *core, unsigned hint);
/* The same for who may not wait, neither for a slot nor for others; NULL: there is somebody to be waited for. */
struct vi_reader *vi_try_enter(struct vi_core *core, unsigned hint);
void vi_exit(struct vi_reader *reader);

/* Requests of StreamIDs that agree with `value` in the bits of `mask` are counted apart, from vi_follow (a writer; it
 * quiesces) on; at most VI_FOLLOWED at a time, else -1. */
#define VI_FOLLOWED 16
int vi_follow(struct vi_core *core, uint32_t mask, uint32_t value);
void vi_unfollow(struct vi_core *core, int followed);
/* What the reader does until it exits is of this stream. */
void vi_attribute(struct vi_reader *reader, uint32_t sid);
void vi_followed(struct vi_core *core, int followed, uint64_t counts[VI_COUNTERS]);

/* Writers. vi_quiesce may be called inside of no request of one's own. */
bool vi_set_windows(struct vi_core *core, const struct vi_window *windows, uint32_t count); /* quiesces; false: no memory */
void vi_set_parameters(struct vi_core *core, const struct vi_parameters *parameters);       /* quiesces */
void vi_quiesce(struct vi_core *core);
/*
 * How often vi_quiesce has returned. What a reader found before it left may still be told while this is what it was then:
 * nobody has been promised since that it is past. To be compared under the callers' lock.
 */
uint64_t vi_quiesced(struct vi_core *core);

/*
 * Have what the instance does told to `watch`, which outlives the core; NULL: to nobody. Requests that began before tell
 * as it was then: vi_quiesce waits for them. While there is a watch, who invalidates promises VI_OF_AN_INVALIDATION
 * records for each call, and who consumes commands VI_OF_A_BURST.
 */
enum { VI_OF_AN_INVALIDATION = 4, VI_OF_A_BURST = 1024 };
void vi_watch_core(struct vi_core *core, struct vi_watch *watch);
/* Whether a reader may begin a translation by itself, of this stream: there is room, or nobody looks on. */
bool vi_begin_telling(struct vi_reader *reader, uint32_t sid, uint32_t ssid);

/* One bounds-checked access each; false: external abort. `vi_swap64` returns 1 swapped, 0 not the expected, -1 abort. */
bool vi_load64(struct vi_reader *reader, uint64_t pa, uint64_t *value);
int vi_swap64(struct vi_reader *reader, uint64_t pa, uint64_t expected, uint64_t desired);
bool vi_read(struct vi_reader *reader, uint64_t pa, void *to, uint64_t size);
bool vi_write(struct vi_reader *reader, uint64_t pa, const void *from, uint64_t size);

/* ---- contexts (contexts.c, tlb.c) --------------------------------------------------------------------------------- */

/*
 * Complete a context whose other fields are set. False: there is no room for its spaces. Its user, who may copy it, has it
 * dropped; the spaces stay meanwhile.
 */
bool vi_make_context(struct vi_core *core, struct vi_context *context);
void vi_drop_context(struct vi_core *core, const struct vi_context *context);

/* Writers. Requests of a stream find a copy of `context` until it is withdrawn, or until there are too many; false: no
 * memory. May quiesce. */
bool vi_publish(struct vi_core *core, uint32_t sid, uint32_t ssid, const struct vi_context *context);
void vi_withdraw(struct vi_core *core, uint32_t sid, uint32_t ssid);
void vi_withdraw_streams(struct vi_core *core, uint32_t first, uint32_t last);

/* What is published, valid until the reader exits; NULL: nothing is. */
const struct vi_context *vi_context_of(struct vi_reader *reader, uint32_t sid, uint32_t ssid);

/* ---- translation (translate.c) --------------------------------------------------------------------------------- */

struct vi_output {
    uint64_t pa, size; /* so many bytes go along */
    bool has1, has2;
    struct vi_mapping stage1, stage2; /* where has1, has2 */
    vi_memory_type memory;            /* with which the access leaves, of an incoming VI_INCOMING */
};
#define VI_INCOMING ((vi_memory_type)0x0F) /* write-back, non-shareable */

/* Translate one address; a fault's kind is VI_NO_FAULT where `output` is whole. */
struct vi_fault vi_translate(struct vi_reader *reader, const struct vi_context *context, uint64_t address,
                             unsigned access, vi_memory_type incoming, struct vi_output *output);
/* One read of a CD table by IPA: 1 done, 0 fault, -1 external abort at *pa. */
int vi_read_ipa(struct vi_reader *reader, const struct vi_context *context, uint64_t ipa, void *to, uint32_t size,
                uint64_t *pa, struct vi_fault *fault);

/* ---- whole requests (dma.c) -------------------------------------------------------------------------------------- */

/* `size` bytes at `iova` by a stream; `access` as the master makes it, before the context's overrides. */
struct vi_request {
    uint32_t sid, ssid; /* VI_NO_SSID: none */
    uint64_t iova, size;
    uint8_t access; /* VI_WRITE | VI_PRIVILEGED | VI_INSTRUCTION */
    vi_memory_type incoming;
};

/* How a request ended. */
enum vi_end {
    VI_DONE,       /* whole */
    VI_ASK,        /* not begun: the model is to be asked what it comes to */
    VI_CROWDED,    /* there was no room to tell of what follows; `counted` is 0 */
    VI_FAULTED,    /* `fault` at iova + done */
    VI_OUTSIDE,    /* translated, but guest memory has nothing at `pa`, or does not allow it */
};

struct vi_result {
    uint8_t end;   /* enum vi_end */
    uint64_t done; /* bytes, from the begin of the request */
    uint64_t pa;
    uint64_t token; /* of the context; 0: there was none */
    struct vi_fault fault;
    /* Where it is neither VI_DONE nor VI_ASK: how often vi_quiesce had returned then, and of how many bytes from iova +
     * done on (one at least) the translation is counted; of the request, too. */
    uint64_t quiesced, counted;
};

/* Consecutive physical bytes that an access reaches with one memory type. */
struct vi_piece {
    uint64_t pa, size;
    vi_memory_type memory;
};

/*
 * Translate in `context` up to the first fault, into at most `room` pieces: VI_DONE with `done` less than `size` is want of
 * room. Returns the number of pieces. Neighbours of one memory type are one piece. The request itself is counted by who
 * has the context. `counted`: 0, or what a result said of a request whose rest this is.
 */
uint32_t vi_pieces(struct vi_reader *reader, const struct vi_context *context, const struct vi_request *request,
                   uint64_t counted, struct vi_piece *pieces, uint32_t room, struct vi_result *result);

/* Bytes move page by page; what was moved before a fault stays moved. `result->end` is returned. */
enum vi_end vi_dma_read(struct vi_reader *reader, const struct vi_request *request, void *to, struct vi_result *result);
enum vi_end vi_dma_write(struct vi_reader *reader, const struct vi_request *request, const void *from,
                         struct vi_result *result);
/*
 * Runs: a request's bytes as transfers none of which crosses a multiple of `burst` bytes, a power of two up to
 * VI_MOST_BURST, of its iova; each is a transaction, or two, and is done and counted as if it were asked for by itself.
 */
enum { VI_MOST_BURST = 4096 };
enum vi_run_end {
    VI_RUN_DONE,    /* whole */
    VI_RUN_READ,    /* in the read of a transfer, which ended as `result` says; it has given so many of `bytes` */
    VI_RUN_WRITTEN, /* in its write; what was to be written is `bytes`, if it had been read */
};
struct vi_run {
    uint64_t done; /* bytes of transfers that were done whole */
    uint8_t end;   /* enum vi_run_end */
    struct vi_result result;
    uint64_t size; /* of the transfer that it ended in */
    uint8_t bytes[VI_MOST_BURST];
};

/* Read each transfer at `from` and write it at `to`, which is of the same size and stream. */
void vi_run_copy(struct vi_reader *reader, const struct vi_request *from, const struct vi_request *to, uint32_t burst,
                 struct vi_run *run);
/* Add little-endian 64-bit words to *sum, modulo 2^64; iova, size and burst are multiples of 8. */
void vi_run_sum(struct vi_reader *reader, const struct vi_request *request, uint32_t burst, uint64_t *sum,
                struct vi_run *run);
void vi_run_write(struct vi_reader *reader, const struct vi_request *request, uint32_t burst, const void *from,
                  struct vi_run *run);

/* ---- checks (tell.c) --------------------------------------------------------------------------------------------- */

/* What a request is about to use, with the evidence of who checks it; before bytes move. */
struct vi_hit {
    const struct vi_context *context;
    uint64_t iova, size, pa;
    unsigned access;
    /* The entry of stage 1 by which it was found, and its descriptor as it is now in memory, where they can be told. */
    bool found, read;
    struct vi_mapping entry;
    uint64_t now;
    uint64_t synced; /* the number of the last CMD_SYNC that has completed while somebody looked on */
};

/*
 * The place for checks that act at a hit, in the reader, who waits for nobody: `check` is called for each page of a whole
 * request, from any thread, inside of the request; it may read memory, and must not wait. Outlives the core, or its end.
 */
struct vi_check {
    void (*check)(void *of, struct vi_reader *reader, const struct vi_hit *hit);
    void *of;
};
/*
 * For a check, from within: tell that `hit` is wrong by a rule, with the evidence. It is never lost: false where there is no
 * room to tell, and then its page is not to be used.
 */
bool vi_tell_finding(struct vi_reader *reader, uint32_t rule, const struct vi_hit *hit);
/* Writers. NULL: nobody checks, once this returns; it quiesces. */
void vi_set_check(struct vi_core *core, const struct vi_check *check);

/* ---- TLB invalidation (tlb.c) ---------------------------------------------------------------------------------- */

enum { VI_ANY = -1 };

/*
 * Wait for readers now if the next of these would have to, as each does for itself: for who tells of more than it, so that
 * no record is under way, and keeps others from theirs, while a reader waits for a client's page.
 */
void vi_ready_to_invalidate(struct vi_core *core);
/* Whole spaces of `world`: of the VMIDs that equal `vmid` in `vmid_mask` (VI_ANY: all), of one ASID or all. */
void vi_invalidate_spaces(struct vi_core *core, int world, int32_t vmid, uint16_t vmid_mask, int32_t asid);
/* Entries that overlap [start, start + size): of one ASID and global ones, or of all; 0 and VI_ANY_LEVEL: of any
 * granule and level. */
#define VI_ANY_LEVEL 127
void vi_invalidate_range(struct vi_core *core, int world, uint64_t start, uint64_t size, int32_t vmid,
                         uint16_t vmid_mask, int32_t asid, uint8_t granule_bits, int8_t level);
void vi_invalidate_tlb(struct vi_core *core, int stage);

/* ---- a disk's virtqueue (virtqueue.c) ---------------------------------------------------------------------------- */

/* A split ring as its driver has set it up, at addresses of the stream `sid`; and the disk that it is for. */
struct vi_ring {
    uint32_t sid;
    uint64_t desc, avail, used;
    uint32_t size; /* a power of two, at most 32768 */
    bool indirect, event_idx;
    uint16_t last_avail, used_idx; /* brought up to date */
};
struct vi_disk {
    int fd;
    int read_flags;   /* of preadv2, so that no read waits for a device */
    bool may_write;   /* writes are for here, and wait for nothing either */
    uint64_t sectors; /* of VI_SECTOR bytes */
};
enum { VI_SECTOR = 512 };

enum vi_serve_end {
    VI_SERVED,     /* all that there is, and the driver notifies of the next */
    VI_MORE,       /* as many as were asked for; there may be more */
    VI_NOT_SERVED, /* what comes next is none of these requests, breaks the rules or faults: nothing of it is done */
};

struct vi_served {
    uint32_t reads, writes; /* chains */
    uint64_t transactions, bytes_read, bytes_written; /* of the master */
    bool notify; /* the driver is to be told of them */
};

/*
 * Serve the chains that are available and are reads or writes of the disk, from and to guest memory without a copy
 * between, until `chains` of them or `bytes` of data are done. Each ends after a bounded number of steps, whatever the
 * driver wrote. Used entries are visible when this returns. Returns an enum vi_serve_end.
 */
int vi_serve(struct vi_reader *reader, struct vi_ring *ring, const struct vi_disk *disk, uint32_t chains, uint64_t bytes,
             struct vi_served *served);

/* ---- to look at -------------------------------------------------------------------------------------------------- */

/* What a TLB (1 or 2: of which stage) has done and holds. */
struct vi_tlb_state {
    uint64_t evictions, invalidated;
    uint32_t capacity;
};
void vi_look_at_tlb(struct vi_core *core, int stage, struct vi_tlb_state *state);
/* `visit` gets each entry that counts; asid VI_ANY: a global one. */
void vi_visit_tlb(struct vi_core *core, int stage, void *to,
                  void (*visit)(void *to, int world, int vmid, int asid, int aset, const struct vi_mapping *mapping));
/* Give the TLB an entry that another had, in place of one of its page; without room for its space, nothing. */
void vi_fill_tlb(struct vi_core *core, int stage, int world, int vmid, int asid, int aset,
                 const struct vi_mapping *mapping);
/* The sums over all slots. */
void vi_count(struct vi_core *core, uint64_t counts[VI_COUNTERS]); /* in the order of struct vi_counters */

#endif
