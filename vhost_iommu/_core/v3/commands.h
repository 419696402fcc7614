/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMMUv3's commands that concern caches alone, and the plain CMD_SYNC, as far as the core carries them out (chapter 4).
 *
 * What invalidates configuration withdraws the core's contexts at once, and is kept for the model, who carries it out in
 * its own caches before it looks at them. Writers: all is guarded by the lock of whoever owns the queue's registers.
 */
#ifndef VI_COMMANDS_H
#define VI_COMMANDS_H

#include "core.h"

enum { VI_MOST_KEPT = 256 }; /* commands, which the model then carries out in some milliseconds */

/* What this model has of an instance. */
struct vi_v3 {
    struct vi_core *core;
    uint32_t idr0, idr3, idr5, cr2; /* as they read */
    uint32_t kept;
    uint64_t keeps[VI_MOST_KEPT][2];  /* commands that invalidate configuration, for the model */
    _Atomic uint64_t carried_out[256]; /* by opcode; for any to read */
};

/* Which CMD_SYNCs with SIG_IRQ are carried out. */
enum vi_signals {
    VI_SIGNALS_ALL,
    VI_SIGNALS_IN_RAM, /* whose signal is an MSI to guest memory */
    VI_SIGNALS_NONE,
};

struct vi_command_queue {
    uint64_t base; /* aligned to the queue's size */
    uint32_t log2size, prod, cons;
    uint16_t vmid_mask; /* by CR0.VMW */
    bool may_sync;      /* nothing that is not of the core holds up a CMD_SYNC */
    uint8_t signals;    /* enum vi_signals */
};
struct vi_consumed {
    uint32_t cons, syncs;
    bool signals; /* `command`, the last, is a CMD_SYNC whose signal is still to be sent */
    uint64_t command[2];
};
/*
 * Carry out what is at the queue's head, at most `limit` commands: those that are legal and concern caches alone, and
 * CMD_SYNC. Ends before one that is not, that cannot be read, or that there is no room to keep, and after one that signals.
 * Returns how many.
 */
uint32_t vi_consume(struct vi_v3 *v3, const struct vi_command_queue *queue, uint32_t limit, struct vi_consumed *so_far);

#endif
