/* SPDX-License-Identifier: Apache-2.0 */
#include "v3/doorbell.h"

#include "tell.h"

static bool send(const struct vi_doorbell *bell, const uint64_t *sync)
{
    uint32_t data = (uint32_t)CMD_SYNC_MSIData(sync);
    struct vi_watch *watch = vi_watching(bell->v3->core);
    uint64_t number;
    if (VI_UNLIKELY(watch) && vi_wanted(watch, VI_INTERRUPTED)) {
        struct vi_record *record = vi_tell_begin(watch, &number);
        record->word[0] = CMD_SYNC_MSIAddress(sync);
        record->word[1] = data;
        vi_tell(record, number, VI_INTERRUPTED);
    }
    struct vi_reader *reader = vi_enter(bell->v3->core, 0);
    bool written = vi_write(reader, CMD_SYNC_MSIAddress(sync) & reader->setup->output_mask, &data, sizeof data);
    vi_exit(reader);
    return written;
}

static bool ring(struct vi_doorbell *bell, uint32_t value)
{
    struct vi_command_queue *queue = &bell->queue;
    uint32_t index_mask = (UINT32_C(2) << queue->log2size) - 1;
    queue->prod = (queue->prod & ~bell->writable) | (value & bell->writable);
    vi_mirror_store(bell->mirror, bell->prod_at, 4, queue->prod);
    atomic_store(&bell->rung, true);
    for (uint32_t left = bell->burst; (queue->cons ^ queue->prod) & index_mask;) {
        struct vi_consumed so_far;
        uint32_t done = vi_consume(bell->v3, queue, left, &so_far);
        if (!done)
            return false; /* the next is for the owner, or all of `left` was consumed */
        left -= done;
        queue->cons = so_far.cons;
        VI_PUT(bell->commands, VI_GET(bell->commands) + done);
        VI_PUT(bell->syncs, VI_GET(bell->syncs) + so_far.syncs);
        /* CONS has passed a CMD_SYNC before its signal is seen (§4.7.3); see vi_before_write. */
        vi_mirror_store(bell->mirror, bell->cons_at, 4, bell->cons_rest | queue->cons);
        if (so_far.signals && !send(bell, so_far.command)) {
            bell->aborted = true;
            return false;
        }
    }
    VI_COUNT(bell->writes);
    return true;
}

/* The same where somebody looks on; without room for all of a burst nothing is done. */
static bool ring_told(struct vi_doorbell *bell, struct vi_watch *watch, uint32_t value)
{
    uint64_t number;
    if (!vi_promise(watch, VI_OF_A_BURST))
        return false;
    struct vi_record *record = vi_tell_begin(watch, &number); /* before what follows from it */
    bool wanted = vi_wanted(watch, VI_ACCESSED);
    record->flags = VI_FLAG_WRITE;
    record->size = 4;
    record->word[0] = bell->prod_at;
    record->word[1] = value;
    vi_tell(record, number, wanted ? VI_ACCESSED : VI_VOID);
    bell->told = true;
    bool done = ring(bell, value);
    if (done)
        bell->told = false;
    vi_unpromise(watch, VI_OF_A_BURST);
    return done;
}

bool vi_doorbell_store(void *doorbell, uint64_t offset, uint32_t value)
{
    struct vi_doorbell *bell = doorbell;
    if (offset != bell->prod_at || pthread_mutex_trylock(bell->lock))
        return false;
    struct vi_watch *watch = vi_watching(bell->v3->core);
    bool done = bell->armed && (VI_LIKELY(!watch) ? ring(bell, value) : ring_told(bell, watch, value));
    pthread_mutex_unlock(bell->lock);
    return done;
}
