/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guards (guard.h): files are cut short while other threads guard, unguard and unmap theirs, whose places in the list are
 * used again all the time.
 *
 * Law: each access to what is gone breaks its own mapping and no other, and no mapping but that is replaced.
 *
 * usage: guards ROUNDS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guard.h"

enum { THREADS = 4, PAGES = 3, KEPT = 200 };

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            exit(1); \
        } \
    } while (0)

static long page, rounds;

struct mapped {
    int file;
    unsigned char *at;
    _Atomic bool *broken;
};

static struct mapped map(unsigned char byte)
{
    struct mapped made = {.file = memfd_create("ram", MFD_CLOEXEC)};
    CHECK(made.file >= 0 && !ftruncate(made.file, PAGES * page));
    made.at = mmap(NULL, (size_t)(PAGES * page), PROT_READ | PROT_WRITE, MAP_SHARED, made.file, 0);
    CHECK(made.at != MAP_FAILED);
    memset(made.at, byte, (size_t)(PAGES * page));
    made.broken = vi_guard(made.at, (size_t)(PAGES * page));
    CHECK(made.broken && !atomic_load(made.broken));
    return made;
}

static void unmap(struct mapped *made)
{
    vi_unguard(made->broken);
    CHECK(!munmap(made->at, (size_t)(PAGES * page)) && !close(made->file));
}

static void *play(void *argument)
{
    unsigned char byte = (unsigned char)(uintptr_t)argument;
    for (long round = 0; round < rounds; round++) {
        struct mapped whole = map(byte), cut = map(byte);
        volatile unsigned char *at = cut.at + page; /* not to be left out */
        CHECK(at[0] == byte);
        CHECK(!ftruncate(cut.file, round % PAGES * page));
        if (round % PAGES < 2) { /* the second page is gone */
            CHECK(at[5] == 0 && atomic_load(cut.broken));
            at[5] = 1;
            CHECK(cut.at[0] == 0); /* the window is another's now, wholly */
        } else {
            CHECK(at[5] == byte && !atomic_load(cut.broken));
        }
        CHECK(whole.at[0] == byte && whole.at[PAGES * page - 1] == byte && !atomic_load(whole.broken));
        unmap(&cut);
        unmap(&whole);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct mapped kept[KEPT];
    pthread_t threads[THREADS];
    rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
    page = sysconf(_SC_PAGESIZE);
    for (unsigned n = 0; n < KEPT; n++)
        kept[n] = map(9);
    for (uintptr_t n = 0; n < THREADS; n++)
        CHECK(!pthread_create(&threads[n], NULL, play, (void *)(n + 1)));
    for (unsigned n = 0; n < THREADS; n++)
        CHECK(!pthread_join(threads[n], NULL));
    for (unsigned n = 0; n < KEPT; n++) {
        CHECK(kept[n].at[0] == 9 && !atomic_load(kept[n].broken));
        unmap(&kept[n]);
    }
    printf("guards: %ld rounds in %d threads\n", rounds, THREADS);
    return 0;
}
