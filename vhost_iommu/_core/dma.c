/* SPDX-License-Identifier: Apache-2.0 */
/* Whole requests of DMA masters: translated and carried out page by page, up to the first fault. */
#include "tell.h"
#include "translate.h"

/* A request under way. */
struct transfer {
    struct vi_course course;
    struct vi_reader *reader;
    const struct vi_context *context; /* NULL: the SMMU is disabled, and addresses are physical */
    uint64_t iova, left;
    unsigned access;
    vi_memory_type incoming;
    struct vi_result *result;
    uint64_t fits;    /* bytes from here on of which is known that their window has them all */
    uint64_t counted; /* bytes from here on whose translations are counted already */
};

unsigned vi_overridden(const struct vi_context *context, unsigned access)
{
    if (context->privileged != VI_AS_IT_CAME)
        access = (access & ~VI_PRIVILEGED) | (context->privileged ? VI_PRIVILEGED : 0);
    if (context->instruction != VI_AS_IT_CAME)
        access = (access & ~VI_INSTRUCTION) | (context->instruction ? VI_INSTRUCTION : 0);
    return access & VI_WRITE ? access & ~VI_INSTRUCTION : access;
}

static bool ended(struct transfer *transfer, enum vi_end end)
{
    struct vi_result *result = transfer->result;
    result->end = (uint8_t)end;
    result->counted = transfer->counted ? transfer->counted : 1; /* where it ended it has looked */
    if (transfer->context)
        result->counted += vi_forget_ahead(&transfer->course);
    result->quiesced = vi_quiesced(transfer->reader->core);
    return false;
}

static bool faulted(struct transfer *transfer) { return ended(transfer, VI_FAULTED); }

/* There is no room to tell of what follows, of which nothing more is counted than was. */
static bool crowded(struct transfer *transfer)
{
    ended(transfer, VI_CROWDED);
    transfer->result->counted = transfer->counted + vi_forget_ahead(&transfer->course);
    return false;
}

/* What is done between the two is not counted. */
static void stop_counting(struct vi_reader *reader, uint64_t counts[VI_COUNTERS])
{
    for (unsigned at = 0; at < VI_COUNTERS; at++)
        counts[at] = VI_GET(*vi_counter(reader, at));
}

static void go_on_counting(struct vi_reader *reader, const uint64_t counts[VI_COUNTERS])
{
    for (unsigned at = 0; at < VI_COUNTERS; at++)
        VI_PUT(*vi_counter(reader, at), counts[at]);
}

static void begin_in(struct transfer *transfer, struct vi_reader *reader, const struct vi_context *context,
                     const struct vi_request *request, uint64_t counted, struct vi_result *result)
{
    transfer->reader = reader;
    transfer->context = context;
    transfer->iova = request->iova;
    transfer->left = request->size;
    transfer->access = request->access;
    transfer->incoming = request->incoming;
    transfer->result = result;
    transfer->fits = 0;
    transfer->counted = counted;
    result->end = VI_DONE;
    result->done = 0;
    result->token = 0;
    if (VI_UNLIKELY(!context))
        return;
    result->token = context->token;
    transfer->access = vi_overridden(context, request->access);
    vi_course_begin(&transfer->course, reader, context, transfer->access);
}

/* False: it ended before its first byte, and nothing of it is counted. */
static bool begin(struct transfer *transfer, struct vi_reader *reader, const struct vi_request *request, bool watched,
                  struct vi_result *result)
{
    const struct vi_setup *setup = reader->setup;
    const struct vi_context *context = NULL;
    bool ask;
    vi_attribute_if_followed(reader, request->sid);
    if (VI_LIKELY(setup->parameters.enabled)) {
        context = vi_context_of(reader, request->sid, request->ssid);
        ask = !context;
    } else {
        uint64_t last = request->iova + request->size - 1;
        ask = setup->parameters.aborts || last > setup->output_mask || last < request->iova;
    }
    begin_in(transfer, reader, context, request, 0, result);
    if (VI_UNLIKELY(ask)) {
        result->end = VI_ASK;
        result->counted = 0;
        return false;
    }
    if (watched) {
        vi_telling(reader, request->sid, request->ssid);
        if (!vi_may_tell(reader)) {
            if (context)
                VI_PUT(reader->counters.contexts, VI_GET(reader->counters.contexts) - 1);
            result->end = VI_ASK;
            result->counted = 0;
            return false;
        }
    }
    VI_COUNT(reader->counters.transactions);
    return true;
}

/* The same as vi_place_quickly `offset` bytes further on, of what is counted already. */
static __attribute__((noinline)) bool place_again(struct transfer *transfer, uint64_t offset, struct vi_place *place,
                                                  struct vi_fault *fault)
{
    uint64_t counts[VI_COUNTERS];
    stop_counting(transfer->reader, counts);
    bool found = vi_place_quickly(transfer->reader, &transfer->course, transfer->iova + offset, place, fault);
    go_on_counting(transfer->reader, counts);
    return found;
}

/*
 * Where the next bytes go; false: the request has ended. `place` is whole where there is a context. `ahead`: whoever asks
 * does not stop before that; `watched`: somebody looks on. Both are constants.
 */
VI_HOT bool next(struct transfer *transfer, bool ahead, bool watched, struct vi_place *place)
{
    if (!transfer->left)
        return false;
    if (watched && !vi_may_tell(transfer->reader))
        return crowded(transfer);
    if (VI_UNLIKELY(!transfer->context)) {
        place->pa = transfer->iova;
        place->size = transfer->left;
        if (watched)
            vi_tell_use(transfer->reader, transfer->context, transfer->iova, place->size, place->pa, transfer->access);
        return true;
    }
    if (VI_UNLIKELY(transfer->counted)) { /* and nothing is ahead */
        struct vi_place found; /* so that `place` may be in registers */
        if (!place_again(transfer, 0, &found, &transfer->result->fault))
            return faulted(transfer);
        *place = found;
    } else {
        if (VI_UNLIKELY(!vi_next_place(transfer->reader, &transfer->course, transfer->iova, ahead ? transfer->left : 1,
                                       place, &transfer->result->fault)))
            return faulted(transfer);
    }
    if (place->size > transfer->left)
        place->size = transfer->left;
    if (watched)
        vi_tell_use(transfer->reader, transfer->context, transfer->iova, place->size, place->pa, transfer->access);
    return true;
}

VI_HOT void advance(struct transfer *transfer, uint64_t size)
{
    transfer->iova += size;
    transfer->left -= size;
    transfer->result->done += size;
    transfer->fits -= size < transfer->fits ? size : transfer->fits;
    transfer->counted -= size < transfer->counted ? size : transfer->counted;
}

/*
 * Whether all of the piece that begins with `first` (see vi_pieces) is in the window's next `here` bytes, fewer than the
 * request may want. A piece is one access: it is done whole or not at all.
 */
static __attribute__((noinline)) bool piece_fits(struct transfer *transfer, const struct vi_place *first, uint64_t here)
{
    const struct vi_context *context = transfer->context;
    if (!context)
        return false;
    vi_memory_type memory = vi_memory_of(context, first, transfer->incoming);
    uint64_t size = first->size, counted = transfer->counted < size ? size : transfer->counted;
    while (size <= here && size < transfer->left) {
        struct vi_place place;
        struct vi_fault fault;
        bool found = size < counted
                         ? place_again(transfer, size, &place, &fault)
                         : vi_next_place(transfer->reader, &transfer->course, transfer->iova + size, 1, &place, &fault);
        counted += size == counted;
        if (!found || place.pa != first->pa + size || vi_memory_of(context, &place, transfer->incoming) != memory)
            break;
        size += place.size < transfer->left - size ? place.size : transfer->left - size;
        if (counted < size)
            counted = size;
    }
    transfer->counted = counted + vi_forget_ahead(&transfer->course);
    transfer->fits = size;
    return size <= here;
}

/* Where the next bytes are in our memory, *size of them; NULL: the request has ended. */
VI_HOT uint8_t *next_bytes(struct transfer *transfer, unsigned may, uint64_t *size, bool watched)
{
    struct vi_place place;
    if (!next(transfer, true, watched, &place))
        return NULL;
    struct vi_reader *reader = transfer->reader;
    uint8_t *host = vi_find(reader, place.pa, 1, may);
    if (VI_UNLIKELY(!host)) {
        transfer->result->pa = place.pa;
        ended(transfer, VI_OUTSIDE);
        return NULL;
    }
    const struct vi_window *window = reader->last;
    uint64_t here = window->size - (place.pa - window->base);
    transfer->result->pa = place.pa;
    if (VI_UNLIKELY(here < transfer->left)) {
        if (!transfer->fits && !piece_fits(transfer, &place, here)) {
            ended(transfer, VI_OUTSIDE);
            return NULL;
        }
        reader->last = window; /* walks use others */
    }
    *size = place.size < here ? place.size : here; /* tables may have changed since the piece was found to fit */
    return host;
}

/* Whether the window that was accessed is still whole. */
static inline bool intact(struct transfer *transfer)
{
    return VI_LIKELY(!vi_broken(transfer->reader->last)) || ended(transfer, VI_OUTSIDE);
}

uint32_t vi_pieces(struct vi_reader *reader, const struct vi_context *context, const struct vi_request *request,
                   uint64_t counted, struct vi_piece *pieces, uint32_t room, struct vi_result *result)
{
    struct transfer transfer;
    struct vi_place place;
    uint32_t count = 0;
    bool watched = vi_looked(reader);
    begin_in(&transfer, reader, context, request, counted, result);
    while (next(&transfer, false, watched, &place)) {
        vi_memory_type memory = vi_memory_of(context, &place, request->incoming);
        struct vi_piece *last = count ? &pieces[count - 1] : NULL;
        if (last && last->pa + last->size == place.pa && last->memory == memory) {
            last->size += place.size;
        } else if (count == room) {
            break;
        } else {
            pieces[count++] = (struct vi_piece){place.pa, place.size, memory};
        }
        advance(&transfer, place.size);
    }
    if (watched)
        vi_told_all(reader);
    return count;
}

/* What was moved whole is told; of the rest the model tells. */
static void told(struct vi_reader *reader, const struct vi_request *request, const struct vi_result *result)
{
    if (result->end == VI_DONE)
        vi_tell_transaction(reader, request->iova, request->size, request->access);
    vi_told_all(reader);
}

VI_HOT void read_in(struct vi_reader *reader, const struct vi_request *request, void *to, struct vi_result *result,
                    bool watched)
{
    struct transfer transfer;
    uint64_t size;
    uint8_t *host, *at = to;
    if (begin(&transfer, reader, request, watched, result))
        while ((host = next_bytes(&transfer, VI_MAY_READ, &size, watched))) {
            memcpy(at, host, size);
            if (!intact(&transfer))
                break;
            at += size;
            advance(&transfer, size);
        }
    vi_after_read();
}

static __attribute__((noinline)) void read_watched(struct vi_reader *reader, const struct vi_request *request, void *to,
                                                   struct vi_result *result)
{
    read_in(reader, request, to, result, true);
    told(reader, request, result);
}

enum vi_end vi_dma_read(struct vi_reader *reader, const struct vi_request *request, void *to, struct vi_result *result)
{
    if (vi_looked(reader))
        read_watched(reader, request, to, result);
    else
        read_in(reader, request, to, result, false);
    return result->end;
}

VI_HOT void write_in(struct vi_reader *reader, const struct vi_request *request, const void *from,
                     struct vi_result *result, bool watched)
{
    struct transfer transfer;
    uint64_t size;
    uint8_t *host;
    const uint8_t *at = from;
    vi_before_write();
    if (begin(&transfer, reader, request, watched, result))
        while ((host = next_bytes(&transfer, VI_MAY_WRITE, &size, watched))) {
            memcpy(host, at, size);
            if (!intact(&transfer))
                break;
            at += size;
            advance(&transfer, size);
        }
}

static __attribute__((noinline)) void write_watched(struct vi_reader *reader, const struct vi_request *request,
                                                    const void *from, struct vi_result *result)
{
    write_in(reader, request, from, result, true);
    told(reader, request, result);
}

enum vi_end vi_dma_write(struct vi_reader *reader, const struct vi_request *request, const void *from,
                         struct vi_result *result)
{
    if (vi_looked(reader))
        write_watched(reader, request, from, result);
    else
        write_in(reader, request, from, result, false);
    return result->end;
}

/* ---- runs ----------------------------------------------------------------------------------------------------------- */

/* One side of a run. */
struct side {
    struct transfer transfer; /* of the transaction under way */
    struct vi_reader *reader;
    const struct vi_request *request; /* all of it */
    struct vi_result result;
    uint64_t more; /* transactions that are not counted yet */
};

static void begin_side(struct side *side, struct vi_reader *reader, const struct vi_request *request)
{
    side->reader = reader;
    side->request = request;
    side->more = 0;
    side->transfer.context = NULL;
}

static void end_side(struct side *side)
{
    struct vi_counters *counters = &side->reader->counters;
    VI_PUT(counters->transactions, VI_GET(counters->transactions) + side->more);
    VI_PUT(counters->contexts, VI_GET(counters->contexts) + side->more);
}

/* False: it ended before its first byte. It has the context, and the ways, of the one before it. */
VI_HOT bool next_transaction(struct side *side, uint64_t done, uint64_t size, bool watched)
{
    struct transfer *transfer = &side->transfer;
    if (VI_UNLIKELY(!transfer->context)) {
        struct vi_request one = *side->request;
        one.iova += done;
        one.size = size;
        return begin(transfer, side->reader, &one, watched, &side->result);
    }
    side->more++;
    side->result.done = 0;
    transfer->iova = side->request->iova + done;
    transfer->left = size;
    transfer->fits = 0;
    return true;
}

VI_HOT bool gather_in(struct side *side, const uint8_t *host, uint64_t here, uint8_t *bytes, bool watched)
{
    for (; host; host = next_bytes(&side->transfer, VI_MAY_READ, &here, watched)) {
        memcpy(bytes + side->result.done, host, here);
        if (!intact(&side->transfer))
            return false;
        advance(&side->transfer, here);
    }
    return !side->transfer.left;
}

VI_HOT bool scatter_in(struct side *side, uint8_t *host, uint64_t here, const uint8_t *bytes, bool watched)
{
    for (; host; host = next_bytes(&side->transfer, VI_MAY_WRITE, &here, watched)) {
        memcpy(host, bytes + side->result.done, here);
        if (!intact(&side->transfer))
            return false;
        advance(&side->transfer, here);
    }
    return !side->transfer.left;
}

static __attribute__((noinline)) bool gather(struct side *side, const uint8_t *host, uint64_t here, uint8_t *bytes)
{
    return gather_in(side, host, here, bytes, false);
}

static __attribute__((noinline)) bool gather_watched(struct side *side, const uint8_t *host, uint64_t here, uint8_t *bytes)
{
    return gather_in(side, host, here, bytes, true);
}

static __attribute__((noinline)) bool scatter(struct side *side, uint8_t *host, uint64_t here, const uint8_t *bytes)
{
    return scatter_in(side, host, here, bytes, false);
}

static __attribute__((noinline)) bool scatter_watched(struct side *side, uint8_t *host, uint64_t here,
                                                      const uint8_t *bytes)
{
    return scatter_in(side, host, here, bytes, true);
}

/* A transfer of a side was done whole. */
static void tell_transfer(const struct side *side, uint64_t done, uint64_t size)
{
    vi_tell_transaction(side->reader, side->request->iova + done, size, side->request->access);
}

/* Where the bytes of the next transfer are: in our memory if they are there in one piece, else in `bytes`; NULL: it has
 * ended. */
VI_HOT const uint8_t *read_next(struct side *side, uint64_t done, uint64_t size, uint8_t *bytes, bool watched)
{
    uint64_t here = 0;
    if (VI_UNLIKELY(!next_transaction(side, done, size, watched)))
        return NULL;
    const uint8_t *host = next_bytes(&side->transfer, VI_MAY_READ, &here, watched);
    if (VI_UNLIKELY(!host || here != size)) {
        if (!(watched ? gather_watched : gather)(side, host, here, bytes))
            return NULL;
        host = bytes;
    }
    if (watched)
        tell_transfer(side, done, size);
    return host;
}

/* Write `bytes`, whose first `here` are for `host`. */
VI_HOT bool write_next(struct side *side, uint64_t done, uint64_t size, uint8_t *host, uint64_t here,
                       const uint8_t *bytes, bool watched)
{
    if (!(watched ? scatter_watched : scatter)(side, host, here, bytes))
        return false;
    if (watched)
        tell_transfer(side, done, size);
    return true;
}

/* The transfer that begins `done` bytes further on. */
VI_HOT uint64_t transfer(const struct vi_request *request, uint32_t burst, uint64_t done)
{
    uint64_t size = burst - ((request->iova + done) & (burst - 1)), left = request->size - done;
    return size < left ? size : left;
}

static bool end_run(struct vi_run *run, enum vi_run_end end, const struct side *side, uint64_t size)
{
    run->end = (uint8_t)end;
    run->result = side->result;
    run->size = size;
    return false;
}

/*
 * The same as memmove, in parts for which libraries take no string instruction, which would wait for all that came before
 * it.
 */
VI_HOT void move(uint8_t *to, const uint8_t *from, uint64_t size)
{
    enum { PART = 2048 };
    if ((uintptr_t)to - (uintptr_t)from >= size) /* else a part would overwrite the next one's source */
        for (; size > PART; to += PART, from += PART, size -= PART)
            memmove(to, from, PART);
    memmove(to, from, size);
}

/* Pages of one side of a copy. */
struct pages {
    const struct vi_window *window; /* that has the first one, and maybe the others */
    uint64_t base, last;            /* where a page in it begins: from `base` on, up to `last` bytes further on */
    uint8_t *host;
    uint64_t pa[VI_MOST_AHEAD];
};

/* The next pages of a side, `most` at most, if the TLB has them one behind the other; returns how many. */
VI_HOT unsigned pages_of(struct pages *pages, struct side *side, uint64_t address, uint64_t most, unsigned may)
{
    uint64_t tag;
    unsigned count = vi_pages_behind(&side->transfer.course, address, most < VI_MOST_AHEAD ? (unsigned)most : VI_MOST_AHEAD,
                                     pages->pa, &tag);
    if (!count || !vi_find(side->reader, pages->pa[0], VI_MOST_BURST, may))
        return 0;
    const struct vi_window *window = pages->window = side->reader->last;
    pages->base = window->base;
    pages->last = window->size - VI_MOST_BURST;
    pages->host = window->host;
    return count;
}

static __attribute__((noinline)) void tell_pages(const struct side *source, const struct side *target,
                                                 const struct pages *from, const struct pages *to, uint64_t done,
                                                 unsigned count)
{
    struct vi_reader *reader = source->reader;
    for (unsigned at = 0; at < count; at++, done += VI_MOST_BURST) {
        vi_may_tell(reader); /* else all of it may be lost */
        vi_tell_use(reader, source->transfer.context, source->request->iova + done, VI_MOST_BURST, from->pa[at], source->request->access);
        tell_transfer(source, done, VI_MOST_BURST);
        vi_tell_use(reader, target->transfer.context, target->request->iova + done, VI_MOST_BURST, to->pa[at], target->request->access);
        tell_transfer(target, done, VI_MOST_BURST);
    }
}

/*
 * Copy as many whole pages as there are of which all is known: each is a transfer, and the same comes of them one by one.
 * Returns their bytes.
 */
static __attribute__((noinline)) uint64_t copy_pages(struct side *source, struct side *target, uint64_t done)
{
    struct pages from, to;
    uint64_t most = (source->request->size - done) / VI_MOST_BURST;
    unsigned count = pages_of(&from, source, source->request->iova + done, most, VI_MAY_READ), copied = 0;
    if (count)
        count = pages_of(&to, target, target->request->iova + done, count, VI_MAY_WRITE);
    for (; copied < count; copied++) {
        uint64_t in = from.pa[copied] - from.base, out = to.pa[copied] - to.base;
        if (VI_UNLIKELY(in > from.last || out > to.last))
            break;
        move(to.host + out, from.host + in, VI_MOST_BURST);
        if (VI_UNLIKELY(vi_broken(from.window) || vi_broken(to.window)))
            break; /* that is found out again */
    }
    struct vi_counters *counters = &source->reader->counters;
    VI_ADD(counters->translations, 2 * copied);
    VI_ADD(counters->tlb_hits, 2 * copied);
    source->more += copied;
    target->more += copied;
    if (vi_looked(source->reader))
        tell_pages(source, target, &from, &to, done, copied);
    return (uint64_t)copied * VI_MOST_BURST;
}

/* Whether all pages of a side are looked up in the same way, and are transfers. */
static bool is_of_pages(const struct side *side)
{
    const struct vi_context *context = side->transfer.context;
    return context && context->alone && side->transfer.course.lane1.within == VI_MOST_BURST - 1 &&
           !(side->request->iova % VI_MOST_BURST);
}

/* One transfer of a copy; false: the run has ended. */
VI_HOT bool copy_one(struct side *source, struct side *target, uint64_t done, uint64_t size, struct vi_run *run,
                     bool watched)
{
    uint64_t here = 0;
    const uint8_t *in = read_next(source, done, size, run->bytes, watched);
    if (VI_UNLIKELY(!in))
        return end_run(run, VI_RUN_READ, source, size);
    const struct vi_window *window = source->reader->last;
    uint8_t *out =
        next_transaction(target, done, size, watched) ? next_bytes(&target->transfer, VI_MAY_WRITE, &here, watched) : NULL;
    if (VI_LIKELY(out && here == size)) {
        move(out, in, size);
        if (watched)
            tell_transfer(target, done, size);
    } else { /* it was read before it is written, whatever is where */
        if (in != run->bytes)
            memcpy(run->bytes, in, size);
        if (!write_next(target, done, size, out, here, run->bytes, watched))
            return end_run(run, VI_RUN_WRITTEN, target, size);
    }
    if (VI_UNLIKELY(in != run->bytes && vi_broken(window))) {
        ended(&source->transfer, VI_OUTSIDE);
        return end_run(run, VI_RUN_READ, source, size);
    }
    return intact(&target->transfer) || end_run(run, VI_RUN_WRITTEN, target, size);
}

VI_HOT void copy_in(struct vi_reader *reader, const struct vi_request *from, const struct vi_request *to, uint32_t burst,
                    struct vi_run *run, bool watched)
{
    struct side source, target;
    run->end = VI_RUN_DONE;
    begin_side(&source, reader, from);
    begin_side(&target, reader, to);
    vi_before_write(); /* what it reads goes no further than what it writes */
    uint64_t done = 0;
    while (done < from->size) {
        if (burst == VI_MOST_BURST && is_of_pages(&source) && is_of_pages(&target)) {
            uint64_t size = copy_pages(&source, &target, done);
            done += size;
            if (size)
                continue;
        }
        uint64_t size = transfer(from, burst, done);
        if (VI_UNLIKELY(!copy_one(&source, &target, done, size, run, watched)))
            break;
        done += size;
    }
    run->done = done;
    end_side(&source);
    end_side(&target);
}

VI_HOT void sum_in(struct vi_reader *reader, const struct vi_request *request, uint32_t burst, uint64_t *sum,
                   struct vi_run *run, bool watched)
{
    struct side source;
    run->end = VI_RUN_DONE;
    begin_side(&source, reader, request);
    uint64_t done = 0;
    for (uint64_t size; done < request->size; done += size) {
        size = transfer(request, burst, done);
        const uint8_t *in = read_next(&source, done, size, run->bytes, watched);
        uint64_t part = 0;
        for (uint64_t at = 0; in && at < size; at += 8) {
            uint64_t value;
            memcpy(&value, in + at, 8);
            part += value;
        }
        if (!in || (in != run->bytes && !intact(&source.transfer))) {
            end_run(run, VI_RUN_READ, &source, size);
            break;
        }
        *sum += part;
    }
    run->done = done;
    vi_after_read();
    end_side(&source);
}

VI_HOT void run_write_in(struct vi_reader *reader, const struct vi_request *request, uint32_t burst, const void *from,
                         struct vi_run *run, bool watched)
{
    struct side target;
    run->end = VI_RUN_DONE;
    begin_side(&target, reader, request);
    vi_before_write();
    uint64_t done = 0;
    for (uint64_t size, here = 0; done < request->size; done += size) {
        size = transfer(request, burst, done);
        uint8_t *out =
            next_transaction(&target, done, size, watched) ? next_bytes(&target.transfer, VI_MAY_WRITE, &here, watched) : NULL;
        if (!write_next(&target, done, size, out, here, (const uint8_t *)from + done, watched)) {
            end_run(run, VI_RUN_WRITTEN, &target, size);
            break;
        }
    }
    run->done = done;
    end_side(&target);
}

static __attribute__((noinline)) void copy_watched(struct vi_reader *reader, const struct vi_request *from,
                                                   const struct vi_request *to, uint32_t burst, struct vi_run *run)
{
    copy_in(reader, from, to, burst, run, true);
    vi_told_all(reader);
}

void vi_run_copy(struct vi_reader *reader, const struct vi_request *from, const struct vi_request *to, uint32_t burst,
                 struct vi_run *run)
{
    if (vi_looked(reader))
        copy_watched(reader, from, to, burst, run);
    else
        copy_in(reader, from, to, burst, run, false);
}

static __attribute__((noinline)) void sum_watched(struct vi_reader *reader, const struct vi_request *request,
                                                  uint32_t burst, uint64_t *sum, struct vi_run *run)
{
    sum_in(reader, request, burst, sum, run, true);
    vi_told_all(reader);
}

void vi_run_sum(struct vi_reader *reader, const struct vi_request *request, uint32_t burst, uint64_t *sum,
                struct vi_run *run)
{
    if (vi_looked(reader))
        sum_watched(reader, request, burst, sum, run);
    else
        sum_in(reader, request, burst, sum, run, false);
}

static __attribute__((noinline)) void run_write_watched(struct vi_reader *reader, const struct vi_request *request,
                                                        uint32_t burst, const void *from, struct vi_run *run)
{
    run_write_in(reader, request, burst, from, run, true);
    vi_told_all(reader);
}

void vi_run_write(struct vi_reader *reader, const struct vi_request *request, uint32_t burst, const void *from,
                  struct vi_run *run)
{
    if (vi_looked(reader))
        run_write_watched(reader, request, burst, from, run);
    else
        run_write_in(reader, request, burst, from, run, false);
}
