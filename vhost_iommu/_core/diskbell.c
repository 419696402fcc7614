/* SPDX-License-Identifier: Apache-2.0 */
#include "diskbell.h"

#include "internal.h"

static void add(_Atomic uint64_t *sum, uint64_t more) { VI_PUT(*sum, VI_GET(*sum) + more); }

/* Serve a ring that is lent; false: its owner has to go on with it. */
static bool notified(struct vi_disk_bell *bell, struct vi_ring *ring)
{
    struct vi_served served;
    struct vi_reader *reader = vi_enter(bell->core, bell->slot);
    /* An interrupt that is a write to guest memory is the owner's. */
    bool ours = !vi_window_of(reader, bell->mirror->post_at)->size;
    int end = ours ? vi_serve(reader, ring, &bell->disk, bell->chains, bell->bytes, &served) : VI_NOT_SERVED;
    vi_exit(reader);
    if (!ours)
        return false;
    add(&bell->reads, served.reads);
    add(&bell->writes, served.writes);
    add(&bell->transactions, served.transactions);
    add(&bell->bytes_read, served.bytes_read);
    add(&bell->bytes_written, served.bytes_written);
    if (served.notify) {
        bell->status |= VI_InterruptStatus_USED_BUFFER;
        bell->unread |= VI_InterruptStatus_USED_BUFFER;
        bell->mirror->posting = true;
    }
    return end == VI_SERVED;
}

bool vi_disk_bell_store(void *of, uint64_t offset, uint32_t value)
{
    struct vi_disk_bell *bell = of;
    bool done = false;
    if ((offset != bell->notify_at && offset != bell->ack_at) || pthread_mutex_trylock(bell->lock))
        return false;
    if (offset == bell->ack_at) {
        bell->status &= ~(value & ~bell->unread);
        done = true;
    } else if (value < bell->count && bell->rings[value].lent) {
        done = notified(bell, &bell->rings[value].ring);
    }
    pthread_mutex_unlock(bell->lock);
    return done;
}

bool vi_disk_bell_load(void *of, uint64_t offset, uint32_t *value)
{
    struct vi_disk_bell *bell = of;
    if (offset != bell->status_at || pthread_mutex_trylock(bell->lock))
        return false;
    *value = bell->status;
    bell->unread = 0;
    pthread_mutex_unlock(bell->lock);
    return true;
}
