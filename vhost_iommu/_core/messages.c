/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "vfio-user messages are little-endian"
#endif

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- mirrors ----------------------------------------------------------------------------------------------------- */

bool vi_mirror_make(struct vi_mirror *mirror, uint64_t size) {
    memset(mirror, 0, sizeof *mirror);
    if (size % 8)
        return false;
    mirror->cells = calloc(size / 8 ? (size_t)(size / 8) : 1, 8);
    mirror->size = size;
    return mirror->cells != NULL;
}

void vi_mirror_free(struct vi_mirror *mirror) {
    free(mirror->cells);
    mirror->cells = NULL;
    mirror->size = 0;
}

/* ---- the sending side -------------------------------------------------------------------------------------------- */

static int send_all(struct vi_wire *wire, const uint8_t *data, size_t size) {
    int64_t deadline = 0;
    if (wire->fd < 0)
        return EBADF;
    for (;;) {
        ssize_t sent = send(wire->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        data += sent;
        size -= (size_t)sent;
        if (!size)
            return 0;
        if (!deadline)
            deadline = now_ns() + wire->most_ns;
        else if (now_ns() > deadline)
            return EAGAIN;
    }
}

int vi_wire_send(struct vi_wire *wire, const void *data, size_t size) {
    pthread_mutex_lock(&wire->lock);
    int problem = send_all(wire, data, size);
    if (problem && wire->fd >= 0)
        shutdown(wire->fd, SHUT_RDWR);
    pthread_mutex_unlock(&wire->lock);
    return problem;
}

void vi_wire_close(struct vi_wire *wire) {
    pthread_mutex_lock(&wire->lock);
    wire->fd = -1;
    pthread_mutex_unlock(&wire->lock);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

enum { REGION_READ = 9, REGION_WRITE = 10, DMA_WRITE = 12, REGION_WRITE_MULTI = 15 };
/* Of messages of ours to which no reply is wanted; connection.py gives it to no others. */
enum { NOBODYS_ID = 0xFFFF };
enum { IS_REPLY = 0x01, NO_REPLY = 0x10 };

struct header {
    uint16_t msg_id, command;
    uint32_t size, flags, error;
};

struct region_access {
    uint64_t offset;
    uint32_t region, count;
};

enum { HEADER = 16, ACCESS = 16, REQUEST = HEADER + ACCESS, COUNT = 8, ENTRY = ACCESS + 8 };
_Static_assert(sizeof(struct header) == HEADER && sizeof(struct region_access) == ACCESS, "as on the wire");

/* A message may be waited for in `in` if it fits; what is out of range or larger is the caller's. */
static bool keepable(uint32_t size) { return size >= HEADER && size <= VI_PUMP_ROOM; }

static struct header header_at(const struct vi_pump *pump, size_t at) {
    struct header header;
    memcpy(&header, pump->in + at, sizeof header);
    return header;
}

static struct region_access region_access_at(const struct vi_pump *pump, size_t at) {
    struct region_access access;
    memcpy(&access, pump->in + at, sizeof access);
    return access;
}

/* Returns whether what is asked is one access to one block, which is then in pump->access but for a write's value. */
static bool placed(struct vi_pump *pump, struct region_access asked) {
    uint32_t size = asked.count;
    if ((size != 1 && size != 2 && size != 4 && size != 8) || asked.offset & (size - 1))
        return false;
    for (uint32_t tried = 0, i = pump->access.block; tried < pump->count; tried++, i = (i + 1) % pump->count) {
        const struct vi_block *block = pump->blocks + i;
        /* Blocks start and end at multiples of 8, so that no aligned access leaves the one in which it starts. */
        if (asked.region == block->region && asked.offset >= block->start && asked.offset < block->end) {
            pump->access = (struct vi_access){.block = i, .size = size, .offset = asked.offset - block->start};
            return true;
        }
    }
    return false;
}

/* As placed, for a write whose data is at in[at] and has been received. */
static bool placed_write(struct vi_pump *pump, struct region_access asked, size_t at) {
    if (!placed(pump, asked))
        return false;
    memcpy(&pump->access.value, pump->in + at, asked.count); /* at most 8; the rest is zero */
    return true;
}

static size_t entry_at(const struct vi_pump *pump, uint64_t entry) {
    return pump->at + HEADER + COUNT + (size_t)entry * ENTRY;
}

static bool placed_entry(struct vi_pump *pump, uint64_t entry) {
    size_t at = entry_at(pump, entry);
    return placed_write(pump, region_access_at(pump, at), at + ACCESS);
}

/* Returns how many writes a REGION_WRITE_MULTI at in[at] holds if each is one access to one block, else 0. */
static uint64_t multiple(struct vi_pump *pump, uint32_t size) {
    uint64_t count;
    if (size < HEADER + COUNT)
        return 0;
    memcpy(&count, pump->in + pump->at + HEADER, COUNT);
    uint32_t rest = size - HEADER - COUNT;
    if (rest % ENTRY || count != rest / ENTRY)
        return 0;
    for (uint64_t entry = count; entry-- > 0;) /* so that the first is what is left in pump->access */
        if (!placed_entry(pump, entry))
            return 0;
    return count;
}

/* What the bytes from in[at] are. */
enum next { NEED_MORE, READ, WRITE, BYTES };

static enum next look(struct vi_pump *pump) {
    if (pump->entries) { /* some of them are done */
        placed_entry(pump, pump->entry);
        return WRITE;
    }
    size_t left = pump->have - pump->at;
    if (left < HEADER)
        return NEED_MORE;
    struct header header = header_at(pump, pump->at);
    if (!keepable(header.size)) {
        pump->message_end = pump->have; /* all that there is: the rest of a large one is yet to come */
        return BYTES;
    }
    if (left < header.size)
        return NEED_MORE;
    pump->message_end = pump->at + header.size;
    if (header.flags & ~(uint32_t)NO_REPLY)
        return BYTES;
    if (header.command == REGION_WRITE_MULTI) {
        pump->entries = multiple(pump, header.size);
        return pump->entries ? WRITE : BYTES;
    }
    if (header.size < REQUEST)
        return BYTES;
    struct region_access asked = region_access_at(pump, pump->at + HEADER);
    if (header.command == REGION_READ && header.size == REQUEST && !header.flags)
        return placed(pump, asked) ? READ : BYTES;
    if (header.command == REGION_WRITE && header.size - REQUEST == asked.count)
        return placed_write(pump, asked, pump->at + REQUEST) ? WRITE : BYTES;
    return BYTES;
}

/* Put the reply to the message at in[at] behind the others: its first `kept` bytes of payload, then `more`. There is
 * room for one: whoever comes here has seen to that. */
static void reply(struct vi_pump *pump, size_t kept, const void *more, size_t size) {
    struct header header = header_at(pump, pump->at);
    uint8_t *out = pump->out + pump->unsent;
    header.size = (uint32_t)(HEADER + kept + size);
    header.flags = IS_REPLY;
    header.error = 0;
    memcpy(out, &header, HEADER);
    memcpy(out + HEADER, pump->in + pump->at + HEADER, kept);
    if (size)
        memcpy(out + HEADER + kept, more, size);
    pump->unsent += header.size;
}

enum { LARGEST_REPLY = REQUEST + 8 };

static void handled(struct vi_pump *pump) {
    pump->at = pump->message_end;
    pump->entries = pump->entry = 0;
}

void vi_pump_was_read(struct vi_pump *pump, uint64_t value) {
    reply(pump, ACCESS, &value, pump->access.size);
    handled(pump);
}

/* Returns whether the next entry of the message is in pump->access; otherwise the message is done and replied to. */
static bool next_entry(struct vi_pump *pump) {
    if (pump->entries && ++pump->entry < pump->entries) {
        placed_entry(pump, pump->entry); /* as it was when it was looked at */
        return true;
    }
    if (!(header_at(pump, pump->at).flags & NO_REPLY))
        reply(pump, pump->entries ? COUNT : ACCESS, NULL, 0);
    handled(pump);
    return false;
}

/* Send the posted write that is due. Returns false where it should have been sent and was not. */
static bool post(struct vi_pump *pump, struct vi_mirror *mirror) {
    struct {
        struct header header;
        uint64_t address, count;
        uint32_t value, unused;
    } message = {{NOBODYS_ID, DMA_WRITE, HEADER + ACCESS + 4, NO_REPLY, 0}, mirror->post_at, 4, mirror->post_value, 0};
    mirror->posting = false;
    pump->problem = pump->may_post ? vi_wire_send(pump->wire, &message, message.header.size) : 0;
    return !pump->problem;
}

/* Returns whether the write in pump->access was carried out by its block's vi_store_fn. */
static bool stored(struct vi_pump *pump) {
    const struct vi_mirror *mirror = pump->blocks[pump->access.block].mirror;
    return mirror && mirror->store && pump->access.size == 4 &&
           mirror->store(mirror->store_of, pump->access.offset, (uint32_t)pump->access.value);
}

/* Returns whether the read in pump->access was answered by its block's mirror or vi_load_fn, its value then in *value. */
static bool loaded(struct vi_pump *pump, uint64_t *value) {
    struct vi_mirror *mirror = pump->blocks[pump->access.block].mirror;
    uint32_t word = 0;
    if (!mirror)
        return false;
    if (vi_mirror_load(mirror, pump->access.offset, pump->access.size, value))
        return true;
    if (!mirror->load || pump->access.size != 4 || !mirror->load(mirror->store_of, pump->access.offset, &word))
        return false;
    *value = word;
    return true;
}

static bool has_store(const struct vi_pump *pump) {
    const struct vi_mirror *mirror = pump->blocks[pump->access.block].mirror;
    return mirror && mirror->store;
}

/* Replies leave before anything else is done, for what is done may send, too. Returns false for VI_PUMP_UNSENT. */
static bool flush(struct vi_pump *pump) {
    if (!pump->unsent)
        return true;
    pump->problem = vi_wire_send(pump->wire, pump->out, pump->unsent);
    pump->unsent = 0;
    return !pump->problem;
}

bool vi_pump_was_written(struct vi_pump *pump) {
    bool another = next_entry(pump) || (!pump->unsent && look(pump) == WRITE);
    /* A vi_store_fn is called without the interpreter in hand, by vi_pump_run. */
    return another && !has_store(pump);
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static ssize_t receive_now(struct vi_pump *pump, int flags) {
    union {
        char bytes[CMSG_SPACE(VI_PUMP_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {pump->in + pump->have, VI_PUMP_ROOM - pump->have};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    ssize_t size;
    do
        size = recvmsg(pump->fd, &message, flags | MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        return size;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        for (size_t i = 0; i < bytes / sizeof(int) && pump->nfds < VI_PUMP_FDS; i++)
            memcpy(pump->fds + pump->nfds++, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    /* The kernel says so of a buffer that is too small, and of a table of descriptors that is full. */
    if (message.msg_flags & MSG_CTRUNC) {
        if (pump->nfds == VI_PUMP_FDS)
            pump->problem = EMSGSIZE;
        else
            pump->fds[pump->nfds++] = VI_PUMP_LOST;
    }
    return size;
}

/* Wait for the next bytes. Looks for them for a while first if the last ones came within as long, which is the sign of
 * someone who waits for each answer: to be woken costs more than such a client takes to ask again. */
static ssize_t receive(struct vi_pump *pump) {
    pump->nfds = 0;
    pump->problem = 0;
    if (!pump->spin_ns)
        return receive_now(pump, 0);
    int64_t began = now_ns();
    ssize_t size;
    if (pump->last_wait_ns <= pump->spin_ns) {
        do {
            size = receive_now(pump, MSG_DONTWAIT);
            if (size >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
                pump->last_wait_ns = now_ns() - began;
                return size;
            }
            sched_yield(); /* whoever else would run here does */
        } while (now_ns() - began < pump->spin_ns);
    }
    size = receive_now(pump, 0);
    pump->last_wait_ns = now_ns() - began;
    return size;
}

/* Hand out bytes from `at` up to `to`. */
static int feed(struct vi_pump *pump, size_t to) {
    pump->from = pump->at;
    pump->at = pump->to = to;
    return VI_PUMP_FEED;
}

int vi_pump_run(struct vi_pump *pump) {
    for (;;) {
        if (VI_PUMP_OUT - pump->unsent < LARGEST_REPLY && !flush(pump))
            return VI_PUMP_UNSENT;
        enum next next = look(pump);
        if (next == READ) {
            uint64_t value;
            if (loaded(pump, &value)) {
                vi_pump_was_read(pump, value);
                continue;
            }
        }
        if (!flush(pump))
            return VI_PUMP_UNSENT;
        if (next == READ)
            return VI_PUMP_READ;
        if (next == WRITE) {
            bool done = stored(pump);
            struct vi_mirror *mirror = pump->blocks[pump->access.block].mirror;
            if (mirror && mirror->posting && !post(pump, mirror))
                return VI_PUMP_UNSENT;
            if (!done)
                return VI_PUMP_WRITE;
            next_entry(pump);
            continue;
        }
        if (next == BYTES)
            return feed(pump, pump->message_end);
        if (pump->at) {
            memmove(pump->in, pump->in + pump->at, pump->have - pump->at);
            pump->have -= pump->at;
            pump->at = 0;
        }
        ssize_t size = receive(pump);
        if (size <= 0) {
            pump->problem = size < 0 ? errno : 0;
            return VI_PUMP_END;
        }
        pump->have += (size_t)size;
        if (pump->problem)
            return VI_PUMP_FLOOD;
        if (pump->nfds || pump->feed_all)
            return feed(pump, pump->have);
    }
}
