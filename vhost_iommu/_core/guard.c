/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGBUS in guest memory: who has the file behind a window can cut it short, and the next access to what is gone would end
 * the process. Here it ends the window: anonymous memory takes its place, and accesses to it are external aborts.
 *
 * A signal's disposition is the process's, and so is the list of what is guarded; it is the one state that is not an
 * instance's. It has no end: whoever guards bounds what it guards. The handler uses nothing but that list, mmap, and what
 * came before it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "guard.h"

/* Never freed, for the handler may be looking at it; used again instead. */
struct guarded {
    _Atomic unsigned turn; /* odd while it changes: what is read between two looks at the same even one is of one mapping */
    _Atomic uintptr_t begin;
    _Atomic size_t size; /* 0: of none */
    _Atomic bool broken;
    struct guarded *next;      /* of all */
    struct guarded *next_free; /* of those that guard none */
};

static _Atomic(struct guarded *) all;
static struct guarded *unused; /* with `lock` held */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Whose handler ours has replaced; with `lock` held it becomes another. */
static struct sigaction replaced[2];
static _Atomic unsigned latest;
static _Atomic bool passing; /* a fault that is none of ours is being passed on */

/* Whoever faults is using its mapping, which is guarded until nobody does; so what changes meanwhile is another one. */
static bool holds(struct guarded *each, uintptr_t at, uintptr_t *begin, size_t *size)
{
    unsigned turn = atomic_load(&each->turn);
    *begin = atomic_load(&each->begin);
    *size = atomic_load(&each->size);
    return !(turn & 1) && atomic_load(&each->turn) == turn && at - *begin < *size;
}

static void handle(int number, siginfo_t *info, void *context)
{
    uintptr_t begin;
    size_t size;
    for (struct guarded *each = atomic_load(&all); each; each = each->next)
        if (holds(each, (uintptr_t)info->si_addr, &begin, &size) &&
            mmap((void *)begin, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
                 -1, 0) != MAP_FAILED) {
            atomic_store(&each->broken, true);
            return;
        }
    /* Who replaced ours may have remembered it, and pass the same fault back. */
    const struct sigaction *before = &replaced[atomic_load(&latest) & 1];
    bool handled = !atomic_exchange(&passing, true);
    if (handled && before->sa_flags & SA_SIGINFO)
        before->sa_sigaction(number, info, context);
    else if (handled && before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
        before->sa_handler(number);
    else
        signal(SIGBUS, SIG_DFL); /* the access is tried again, and ends the process */
    atomic_store(&passing, false);
}

/* Ours is the handler, even if somebody has put his own, or an old one, in its place. With `lock` held. */
static void install(void)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER}, now;
    if (sigaction(SIGBUS, NULL, &now) || (now.sa_flags & SA_SIGINFO && now.sa_sigaction == handle))
        return;
    sigemptyset(&action.sa_mask);
    unsigned next = atomic_load(&latest) + 1;
    replaced[next & 1] = now;
    atomic_store(&latest, next);
    sigaction(SIGBUS, &action, NULL);
}

static void set(struct guarded *each, uintptr_t begin, size_t size)
{
    atomic_fetch_add(&each->turn, 1);
    atomic_store(&each->begin, begin);
    atomic_store(&each->size, size);
    atomic_fetch_add(&each->turn, 1);
}

_Atomic bool *vi_guard(void *begin, size_t size)
{
    pthread_mutex_lock(&lock);
    install();
    struct guarded *found = unused;
    if (found) {
        unused = found->next_free;
    } else if ((found = calloc(1, sizeof *found))) {
        found->next = atomic_load(&all);
        atomic_store(&all, found);
    }
    if (found) {
        atomic_store(&found->broken, false);
        set(found, (uintptr_t)begin, size);
    }
    pthread_mutex_unlock(&lock);
    return found ? &found->broken : NULL;
}

void vi_unguard(_Atomic bool *broken)
{
    struct guarded *each = (struct guarded *)(void *)((char *)(void *)broken - offsetof(struct guarded, broken));
    pthread_mutex_lock(&lock);
    set(each, 0, 0);
    each->next_free = unused;
    unused = each;
    pthread_mutex_unlock(&lock);
}
