/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message path: receives vfio-user messages of one client, answers what needs no interpreter, hands out the rest.
 *
 * It knows messages, offsets and sizes, and no register: a read is answered from a mirror, which whoever owns the
 * registers keeps current; a write is taken apart and handed out. Whatever else comes (another command, descriptors,
 * what is malformed, cut in two, too large, outside of every block) is handed out as the bytes that it is, in order.
 * Nothing here believes a client: each size is compared with what has arrived before a byte is looked at.
 */
#ifndef VI_MESSAGES_H
#define VI_MESSAGES_H

#include <pthread.h>
#include <stddef.h>

#include "mirror.h"

/* ---- one client's socket ----------------------------------------------------------------------------------------- */

/* The sending side: whole messages from any thread, one after the other. */
struct vi_wire {
    pthread_mutex_t lock; /* guards fd; not to be waited for with the interpreter in hand */
    int fd;               /* -1: closed */
    int64_t most_ns;      /* for one message */
};

/* Send all of it, waiting at most about most_ns where the socket has a send timeout of as much. Returns 0, or the errno
 * for which the message is not or not wholly sent; then the socket is shut down, so that no later send succeeds. */
int vi_wire_send(struct vi_wire *wire, const void *data, size_t size);

/* No send uses the descriptor from here on; it stays the caller's to close. */
void vi_wire_close(struct vi_wire *wire);

/* ---- the pump ---------------------------------------------------------------------------------------------------- */

enum { VI_PUMP_ROOM = 1 << 16, VI_PUMP_OUT = 1 << 12, VI_PUMP_FDS = 16 };
/* The last of received descriptors where this process had no room for others. */
enum { VI_PUMP_LOST = -1 };

/* A block of registers in a region. */
struct vi_block {
    uint32_t region;
    uint64_t start, end;      /* within the region; multiples of 8 */
    struct vi_mirror *mirror; /* NULL: none */
};

/* What vi_pump_run returned for. */
enum vi_pump_says {
    VI_PUMP_END,    /* the client is gone, or `problem` is the errno of a failed receive */
    VI_PUMP_FLOOD,  /* more descriptors at once than were agreed; those that came are in fds */
    VI_PUMP_FEED,   /* bytes `from` up to `to` of `in`, with fds */
    VI_PUMP_READ,   /* `access` is a read: carry it out, then vi_pump_was_read */
    VI_PUMP_WRITE,  /* `access` is a write: carry it out, then vi_pump_was_written */
    VI_PUMP_UNSENT, /* a reply could not be sent, for `problem` */
};

/* An access of 1, 2, 4 or 8 bytes, aligned, and within a block. */
struct vi_access {
    uint32_t block; /* its index */
    uint32_t size;
    uint64_t offset; /* within the block */
    uint64_t value;  /* of a write */
};

struct vi_pump {
    struct vi_wire *wire;
    int fd; /* to receive from */
    const struct vi_block *blocks;
    uint32_t count; /* of blocks */

    bool may_post;        /* set by the caller: a block's posted writes may be sent; otherwise they are lost */
    bool feed_all;        /* set by the caller when all is handed out: hand out whatever comes as bytes */
    int64_t spin_ns;      /* how long to look for a message before sleeping for it; 0: not at all */
    int64_t last_wait_ns; /* how long the last message was waited for */

    uint8_t *in; /* VI_PUMP_ROOM bytes, the caller's */
    size_t at, have; /* in[at] up to in[have] is received and not handled */
    uint8_t out[VI_PUMP_OUT];
    size_t unsent; /* bytes of replies in `out` */

    /* what was returned for */
    size_t from, to;
    int fds[VI_PUMP_FDS];
    int nfds;
    int problem;
    struct vi_access access;

    /* the message that `access` is part of */
    size_t message_end;
    uint64_t entry, entries; /* of a REGION_WRITE_MULTI; entries 0: of another */
};

/* Receive and answer until there is something for the caller: an enum vi_pump_says. Not to be called with the
 * interpreter in hand. */
int vi_pump_run(struct vi_pump *pump);

/* The read that was handed out has returned `value`. */
void vi_pump_was_read(struct vi_pump *pump, uint64_t value);

/* The write that was handed out is done. Returns whether `access` is the next one, which may be carried out at once. */
bool vi_pump_was_written(struct vi_pump *pump);

#endif
