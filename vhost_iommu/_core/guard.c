/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGBUS in guest memory: who has the file behind a window can cut it short, and the next access to what is gone would end
 * the process. Here it ends the window: anonymous memory takes its place, and accesses to it are external aborts.
 *
 * A signal's disposition is the process's, and so is the list of what is guarded; it is the one state that is not an
 * instance's. The handler uses nothing but that list, mmap, and what came before it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

#include "guard.h"

#define MOST_GUARDED 1024

struct guarded {
    _Atomic uintptr_t begin; /* 0: free */
    _Atomic size_t size;     /* 0: not yet, or no more */
    _Atomic bool broken;
};

static struct guarded list[MOST_GUARDED];
static struct sigaction before;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void handle(int number, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    for (unsigned n = 0; n < MOST_GUARDED; n++) {
        struct guarded *each = &list[n];
        uintptr_t begin = atomic_load(&each->begin);
        size_t size = atomic_load(&each->size);
        if (begin && at - begin < size &&
            mmap((void *)begin, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
                 -1, 0) != MAP_FAILED) {
            atomic_store(&each->broken, true);
            return;
        }
    }
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else
        sigaction(SIGBUS, &before, NULL); /* the access is tried again, and ends the process */
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
}

_Atomic bool *vi_guard(void *begin, size_t size)
{
    pthread_once(&once, install);
    for (unsigned n = 0; n < MOST_GUARDED; n++) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong(&list[n].begin, &none, (uintptr_t)begin)) {
            atomic_store(&list[n].broken, false);
            atomic_store(&list[n].size, size);
            return &list[n].broken;
        }
    }
    return NULL;
}

void vi_unguard(_Atomic bool *broken)
{
    struct guarded *each = (struct guarded *)(void *)((char *)(void *)broken - offsetof(struct guarded, broken));
    atomic_store(&each->size, 0);
    atomic_store(&each->begin, 0);
}
