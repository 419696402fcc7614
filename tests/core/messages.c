/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pump's C side by itself, for a compiler that watches each access to memory; says what is wrong and returns 1.
 *
 *   messages [FIRST [COUNT]]   COUNT random streams of messages, whole, mutilated and cut anywhere, of seeds from FIRST
 *
 * It plays the interpreter's part and checks that nothing is handed out that is not there. That the answers are right is
 * for tests/protocol/test_pump.py; the seam for what is carried out natively is tried here by itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "messages.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            printf("%s:%d: %s (seed %u)\n", __FILE__, __LINE__, #condition, seed); \
            exit(1); \
        } \
    } while (0)

static unsigned seed;
static uint64_t state;

static uint32_t random_below(uint32_t most) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % most;
}

struct message {
    uint16_t id, command;
    uint32_t size, flags, error;
    uint64_t offset;
    uint32_t region, count;
    uint8_t data[200];
};

enum { MOST = 1 << 15, SIZE = 0x100 };

static uint8_t sent[MOST];
static unsigned stores;

/* Takes writes below offset 0x40, of which those from 0x20 on want a posted write sent. */
static bool store(void *of, uint64_t offset, uint32_t value) {
    struct vi_mirror *mirror = of;
    if (offset >= 0x40)
        return false;
    stores++;
    mirror->posting = offset >= 0x20;
    return vi_mirror_store(mirror, offset, 4, value);
}

/* Answers reads from offset 0x80 on that the mirror does not. */
static bool load(void *of, uint64_t offset, uint32_t *value) {
    (void)of;
    *value = (uint32_t)offset;
    return offset >= 0x80;
}

static size_t make(uint8_t *at, size_t room) {
    static const uint32_t counts[] = {1, 2, 4, 4, 4, 8, 3, 0, 0xFFFFFFFF};
    struct message m = {.id = (uint16_t)random_below(0x10000)};
    static const uint16_t commands[] = {9, 9, 9, 10, 10, 10, 15, 15, 4, 2, 99};
    m.command = commands[random_below(sizeof commands / sizeof *commands)];
    m.flags = (uint32_t[]){0, 0, 0x10, 0x10, 1, 0x20}[random_below(6)];
    m.region = random_below(8) ? 0 : random_below(3);
    m.count = counts[random_below(sizeof counts / sizeof *counts)];
    m.offset = random_below(8) ? random_below(SIZE / 4) * 4 : state;
    for (size_t i = 0; i < sizeof m.data; i++)
        m.data[i] = (uint8_t)random_below(256);
    m.size = m.command == 10 ? 32 + (m.count > 16 ? 8 : m.count) : 32;
    if (m.command == 15) {
        uint64_t count = random_below(4);
        m.size = (uint32_t)(24 + 24 * count);
        memcpy(&m.offset, &count, 8);
        uint8_t *entry = (uint8_t *)&m + 24;
        for (uint64_t i = 0; i < count; i++, entry += 24) {
            uint64_t offset = random_below(SIZE / 4) * 4;
            uint32_t place[2] = {random_below(9) ? 0 : 1, random_below(3) ? 4 : random_below(10)};
            memcpy(entry, &offset, 8);
            memcpy(entry + 8, place, 8);
        }
    }
    if (!random_below(12))
        m.size = (uint32_t[]){16, 17, 31, 33, 40, 120}[random_below(6)];
    if (!random_below(60))
        m.size = (uint32_t[]){0, 15, 1 << 16, (1 << 16) + 1, 0xFFFFFFFF}[random_below(5)];
    size_t size = m.size > sizeof m ? sizeof m : m.size;
    if (size > room)
        return 0;
    memcpy(at, &m, size);
    return size;
}

static void converse(void) {
    int pair[2];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    struct vi_mirror mirror;
    CHECK(vi_mirror_make(&mirror, SIZE));
    mirror.plain = random_below(4) != 0;
    mirror.store = random_below(2) ? store : NULL;
    mirror.load = random_below(2) ? load : NULL;
    mirror.store_of = &mirror;
    struct vi_block blocks[2] = {{0, 0, SIZE, &mirror}, {1, 0x80, SIZE, NULL}};
    struct vi_wire wire = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = pair[0], .most_ns = 1000000};
    /* Of its own allocation, so that a byte beyond it is noticed. */
    struct vi_pump *pump = calloc(1, sizeof *pump);
    pump->in = malloc(VI_PUMP_ROOM);
    pump->wire = &wire;
    pump->fd = pair[0];
    pump->blocks = blocks;
    pump->count = 2;
    pump->may_post = random_below(2);
    pump->spin_ns = random_below(2) ? 1000 : 0;

    size_t size = 0;
    while (random_below(40)) {
        size_t more = make(sent + size, MOST - size);
        if (!more)
            break;
        size += more;
    }
    if (size && !random_below(3))
        size -= random_below((uint32_t)(size < 40 ? size : 40));

    size_t at = 0;
    bool over = false;
    fcntl(pair[0], F_SETFL, O_NONBLOCK); /* there is one thread: the end of what was sent is an error of the receive */
    while (!over) {
        if (at < size) {
            size_t cut = 1 + random_below(random_below(2) ? 50 : 3000);
            cut = cut > size - at ? size - at : cut;
            int lent[2] = {pair[1], pair[1]};
            union {
                char bytes[CMSG_SPACE(sizeof lent)];
                struct cmsghdr align;
            } control = {{0}};
            struct iovec part = {sent + at, cut};
            struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
            if (!random_below(20)) {
                message.msg_control = control.bytes;
                message.msg_controllen = sizeof control.bytes;
                struct cmsghdr *c = CMSG_FIRSTHDR(&message);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof lent);
                memcpy(CMSG_DATA(c), lent, sizeof lent);
            }
            CHECK(sendmsg(pair[1], &message, 0) == (ssize_t)cut);
            at += cut;
        } else {
            shutdown(pair[1], SHUT_WR);
        }
        for (bool more = true; more;) {
            switch (vi_pump_run(pump)) {
            case VI_PUMP_END:
                more = false;
                over = !pump->problem;
                CHECK(over || pump->problem == EAGAIN);
                break;
            case VI_PUMP_FEED:
                CHECK(pump->from < pump->to && pump->to <= pump->have && pump->at == pump->to);
                for (; pump->nfds; pump->nfds--)
                    close(pump->fds[pump->nfds - 1]);
                pump->feed_all = !random_below(10);
                break;
            case VI_PUMP_READ:
                CHECK(pump->access.block < 2 && pump->access.offset + pump->access.size <= SIZE);
                vi_pump_was_read(pump, UINT64_MAX);
                break;
            case VI_PUMP_WRITE:
                do
                    CHECK(pump->access.block < 2 && pump->access.offset + pump->access.size <= SIZE);
                while (vi_pump_was_written(pump));
                break;
            default:
                CHECK(!"it says nothing else");
            }
        }
    }
    /* What is left is the start of a message. */
    CHECK(pump->at <= pump->have && pump->have <= VI_PUMP_ROOM && !pump->unsent);
    free(pump->in);
    free(pump);
    vi_mirror_free(&mirror);
    close(pair[0]);
    close(pair[1]);
}

/* One access of 4 bytes at `offset` of the block: a posted write of `value`, or a read that is answered to `id`. */
static void write_word(int to, uint64_t offset, uint32_t value) {
    struct message write = {.id = 1, .command = 10, .size = 36, .flags = 0x10, .offset = 0x1000 + offset, .count = 4};
    memcpy(write.data, &value, 4);
    CHECK(send(to, &write, 36, 0) == 36);
}

static void read_word(int to, uint64_t offset, uint16_t id) {
    struct message read = {.id = id, .command = 9, .size = 32, .offset = 0x1000 + offset, .count = 4};
    CHECK(send(to, &read, 32, 0) == 32);
}

static void is_answered(int from, uint64_t offset, uint16_t id, uint32_t value) {
    struct message reply;
    uint32_t found;
    CHECK(recv(from, &reply, 36, MSG_WAITALL) == 36);
    memcpy(&found, reply.data, 4);
    CHECK(reply.id == id && reply.flags == 1 && reply.size == 36 && found == value && reply.offset == 0x1000 + offset);
}

/* Reads and writes through the seam and past it come back in order, with what was written; posts are between them. */
static void seam(void) {
    enum { PLAIN = 0x10, POSTS = 0x20, LOADED = 0x80, DMA_WRITE = 12, NO_REPLY = 0x10, NOBODYS_ID = 0xFFFF };
    int pair[2];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    struct vi_mirror mirror;
    CHECK(vi_mirror_make(&mirror, SIZE));
    mirror.plain = true;
    mirror.store = store;
    mirror.load = load;
    mirror.store_of = &mirror;
    mirror.post_at = 0x123456789ABCDEF0;
    mirror.post_value = 0xCAFE;
    struct vi_block block = {0, 0x1000, 0x1000 + SIZE, &mirror};
    struct vi_wire wire = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = pair[0], .most_ns = 1000000};
    struct vi_pump *pump = calloc(1, sizeof *pump);
    pump->in = malloc(VI_PUMP_ROOM);
    pump->wire = &wire;
    pump->fd = pair[0];
    pump->blocks = &block;
    pump->count = 1;
    pump->may_post = true;
    stores = 0;
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    for (uint32_t i = 0; i < 100; i++) {
        write_word(pair[1], PLAIN, i);
        read_word(pair[1], PLAIN, (uint16_t)i);
    }
    CHECK(vi_pump_run(pump) == VI_PUMP_END && pump->problem == EAGAIN);
    CHECK(stores == 100 && mirror.reads == 100);
    for (uint32_t i = 0; i < 100; i++)
        is_answered(pair[1], PLAIN, (uint16_t)i, i);

    mirror.plain = false;
    for (uint16_t round = 0; round < 2; round++) {
        read_word(pair[1], LOADED, 1);
        write_word(pair[1], POSTS, 7);
        read_word(pair[1], LOADED + 4, 2);
        CHECK(vi_pump_run(pump) == VI_PUMP_END && pump->problem == EAGAIN);
        is_answered(pair[1], LOADED, 1, LOADED);
        if (pump->may_post) {
            struct message post;
            uint64_t count;
            uint32_t value;
            CHECK(recv(pair[1], &post, 36, MSG_WAITALL) == 36);
            memcpy(&count, &post.region, 8);
            memcpy(&value, post.data, 4);
            CHECK(post.id == NOBODYS_ID && post.command == DMA_WRITE && post.size == 36 && post.flags == NO_REPLY);
            CHECK(post.offset == mirror.post_at && count == 4 && value == mirror.post_value);
        }
        is_answered(pair[1], LOADED + 4, 2, LOADED + 4);
        pump->may_post = false; /* the second time it is lost */
    }
    CHECK(mirror.reads == 100 && stores == 102);
    read_word(pair[1], PLAIN, 3);
    CHECK(vi_pump_run(pump) == VI_PUMP_READ && pump->access.offset == PLAIN);
    free(pump->in);
    free(pump);
    vi_mirror_free(&mirror);
    close(pair[0]);
    close(pair[1]);
}

int main(int argc, char **argv) {
    unsigned first = argc > 1 ? (unsigned)atoi(argv[1]) : 0, count = argc > 2 ? (unsigned)atoi(argv[2]) : 2000;
    seam();
    for (seed = first; seed < first + count; seed++) {
        state = seed * 0x9E3779B97F4A7C15u + 1;
        converse();
    }
    return 0;
}
