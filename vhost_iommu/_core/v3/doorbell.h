/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The doorbell of an SMMUv3's command queue: writes of CMDQ_PROD, carried out in the thread that receives them, without the
 * interpreter, while all that follows from them is of the core.
 *
 * The owner of the registers arms it, under its lock, with the queue as it is, once nothing but commands moves CMDQ_PROD
 * and CMDQ_CONS, and disarms it before it changes either or what they depend on. A write that finds the lock taken, or
 * comes to what is not of the core, is left to the owner, who finds here how far it has come: `rung` says that the two
 * registers are other than the owner has them, and that it is to look before it does anything else under the lock.
 */
#ifndef VI_DOORBELL_H
#define VI_DOORBELL_H

#include <pthread.h>

#include "mirror.h"
#include "v3/commands.h"

struct vi_doorbell {
    pthread_mutex_t *lock;
    struct vi_v3 *v3;
    struct vi_mirror *mirror;  /* where CMDQ_PROD and CMDQ_CONS are read */
    uint64_t prod_at, cons_at; /* their offsets in it */
    uint32_t burst;            /* commands that are carried out before others may have the lock */
    /* Guarded by the lock. */
    bool armed;
    uint32_t writable;  /* bits of CMDQ_PROD */
    uint32_t cons_rest; /* CMDQ_CONS but for its index */
    struct vi_command_queue queue;
    bool told;    /* of the write that has been left to the owner */
    bool aborted; /* the MSI of a CMD_SYNC that was carried out has not reached guest memory */
    _Atomic bool rung;
    _Atomic uint64_t writes, commands, syncs; /* that were carried out here; for any to read */
};

/* A vi_store_fn, whose `of` is the doorbell. */
bool vi_doorbell_store(void *doorbell, uint64_t offset, uint32_t value);

#endif
