/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Either end of a bench's socket, as fast as plain C is: what ours is compared with, and who asks.
 *
 *   peer echo FD                          one request in, one reply of a register read out, until the end
 *   peer reads FD OFFSET COUNT            COUNT register reads of BAR0; seconds each
 *   peer writes FD OFFSET VALUE COUNT N   COUNT posted writes of BAR0, N in one send, and a read; seconds for each write
 *
 * The echo looks at no more of a message than what it takes to find its end and the size of its answer.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

struct message {
    uint16_t msg_id, command;
    uint32_t size, flags, error;
    uint64_t offset;
    uint32_t region, count;
    uint32_t data;
};

enum { READ = 9, WRITE = 10, NO_REPLY = 0x10, REQUEST = 32, STORE = 36, REPLY = 36, ROOM = 1 << 16 };

static uint8_t room[ROOM];

static int echo(int fd) {
    size_t have = 0;
    for (;;) {
        ssize_t got = recv(fd, room + have, ROOM - have, 0);
        if (got <= 0)
            return 0;
        have += (size_t)got;
        size_t at = 0;
        while (have - at >= REQUEST) {
            struct message m;
            memcpy(&m, room + at, REQUEST);
            if (m.size > have - at)
                break;
            if (!(m.flags & NO_REPLY) && send(fd, room + at, REPLY, MSG_NOSIGNAL) != REPLY)
                return 1;
            at += m.size;
        }
        memmove(room, room + at, have - at);
        have -= at;
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int answer(int fd) {
    for (ssize_t got, have = 0; have < REPLY; have += got)
        if ((got = recv(fd, room, ROOM, 0)) <= 0)
            return 1;
    return 0;
}

static int reads(int fd, uint64_t offset, long count) {
    struct message m = {.msg_id = 1, .command = READ, .size = REQUEST, .offset = offset, .count = 4};
    double began = now();
    for (long i = 0; i < count; i++)
        if (send(fd, &m, REQUEST, MSG_NOSIGNAL) != REQUEST || answer(fd))
            return 1;
    printf("%.9f\n", (now() - began) / (double)count);
    return 0;
}

static int writes(int fd, uint64_t offset, uint32_t value, long count, long in_one) {
    struct message read = {.msg_id = 1, .command = READ, .size = REQUEST, .offset = offset, .count = 4};
    struct message write = {.command = WRITE, .size = STORE, .flags = NO_REPLY, .offset = offset, .count = 4, .data = value};
    uint8_t *all = malloc((size_t)in_one * STORE);
    for (long i = 0; i < in_one; i++)
        memcpy(all + i * STORE, &write, STORE);
    double began = now();
    for (long i = 0; i < count; i += in_one)
        if (send(fd, all, (size_t)(in_one * STORE), MSG_NOSIGNAL) != in_one * STORE)
            return 1;
    if (send(fd, &read, REQUEST, MSG_NOSIGNAL) != REQUEST || answer(fd))
        return 1;
    printf("%.9f\n", (now() - began) / (double)count);
    free(all);
    return 0;
}

int main(int argc, char **argv) {
    int fd = argc > 2 ? atoi(argv[2]) : -1;
    if (argc == 3 && !strcmp(argv[1], "echo"))
        return echo(fd);
    if (argc == 5 && !strcmp(argv[1], "reads"))
        return reads(fd, strtoul(argv[3], NULL, 0), atol(argv[4]));
    if (argc == 7 && !strcmp(argv[1], "writes"))
        return writes(fd, strtoul(argv[3], NULL, 0), (uint32_t)strtoul(argv[4], NULL, 0), atol(argv[5]), atol(argv[6]));
    return 2;
}
