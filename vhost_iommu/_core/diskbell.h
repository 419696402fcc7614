/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The notifications of a disk's driver (virtio 1.2 §4.2.2): QueueNotify, InterruptStatus and InterruptACK, carried out in
 * the thread that receives them, without the interpreter, while all that follows from them is of the core.
 *
 * The owner of the registers lends a ring, under its lock, while nobody else works on it, and takes it back before it
 * does so itself. InterruptStatus is kept here and nowhere else. What finds the lock taken is left to the owner, and so is
 * a notification that comes to what vi_serve does not do; the owner finds the ring as far as it was served.
 */
#ifndef VI_DISKBELL_H
#define VI_DISKBELL_H

#include <pthread.h>

#include "core.h"
#include "mirror.h"

struct vi_lent {
    bool lent;
    struct vi_ring ring;
};

struct vi_disk_bell {
    pthread_mutex_t *lock;
    struct vi_core *core;
    unsigned slot; /* of vi_enter */
    struct vi_mirror *mirror;
    uint64_t notify_at, status_at, ack_at; /* offsets of the registers */
    uint32_t chains;                       /* after which others may have the lock, */
    uint64_t bytes;                        /* and bytes of data */
    /* Guarded by the lock. */
    struct vi_disk disk;
    uint32_t count; /* of rings */
    struct vi_lent *rings;
    /* InterruptStatus, and those of its bits that were set after the driver last read it: an acknowledgement is posted,
     * and cannot mean what its sender has not read. */
    uint32_t status, unread;
    _Atomic uint64_t reads, writes, transactions, bytes_read, bytes_written; /* done here; for any to look at */
};

/* A vi_store_fn and a vi_load_fn, whose `of` is the bell. */
bool vi_disk_bell_store(void *bell, uint64_t offset, uint32_t value);
bool vi_disk_bell_load(void *bell, uint64_t offset, uint32_t *value);

#endif
