/* SPDX-License-Identifier: Apache-2.0 */
/* Whole requests of DMA masters: translated and carried out page by page, up to the first fault. */
#include "translate.h"

/* A request under way. */
struct course {
    struct vi_course way;
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

static bool ended(struct course *course, enum vi_end end)
{
    struct vi_result *result = course->result;
    result->end = (uint8_t)end;
    result->counted = course->counted ? course->counted : 1; /* where it ended it has looked */
    result->quiesced = vi_quiesced(course->reader->core);
    return false;
}

static bool faulted(struct course *course)
{
    const struct vi_context *c = course->context;
    unsigned stage = course->result->fault.stage, responses = VI_ABORTS | VI_RECORDS;
    /* A stage that is bypassed has no say: it aborts and records. */
    if (stage == 1 && c->stage1)
        responses = (c->abort ? VI_ABORTS : 0) | (c->record ? VI_RECORDS : 0) | (c->stall ? VI_STALLS : 0);
    else if (stage == 2 && c->stage2)
        responses = VI_ABORTS | (c->s2_record ? VI_RECORDS : 0) | (c->s2_stall ? VI_STALLS : 0);
    course->result->responses = (uint8_t)responses;
    return ended(course, VI_FAULTED);
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

/* False: it ended before its first byte. `counted` bytes of it, if any, were counted by whoever asked before. */
static bool begin(struct course *course, struct vi_reader *reader, const struct vi_request *request, uint64_t counted,
                  struct vi_result *result)
{
    uint64_t counts[VI_COUNTERS];
    course->reader = reader;
    course->context = NULL;
    course->iova = request->iova;
    course->left = request->size;
    course->access = request->access;
    course->incoming = request->incoming;
    course->result = result;
    course->fits = 0;
    course->counted = counted;
    result->end = VI_DONE;
    result->done = 0;
    result->partid = 0;
    result->pmg = 0;
    result->access = request->access;
    if (VI_LIKELY(!counted))
        VI_COUNT(reader->counters.transactions);
    const struct vi_setup *setup = reader->setup;
    if (VI_UNLIKELY(!setup->parameters.enabled)) {
        uint64_t last = request->iova + request->size - 1;
        if (GBPA_ABORT(setup->parameters.gbpa) || last > setup->output_mask || last < request->iova)
            return ended(course, VI_DISABLED);
        return true;
    }
    struct vi_lookup found;
    if (VI_UNLIKELY(counted))
        stop_counting(reader, counts);
    vi_lookup(reader, request->sid, request->ssid, &found);
    if (VI_UNLIKELY(counted))
        go_on_counting(reader, counts);
    if (VI_UNLIKELY(found.status == VI_REFUSED)) {
        result->lookup = found;
        return ended(course, VI_NO_CONTEXT);
    }
    course->context = found.context;
    result->access = (uint8_t)(course->access = vi_overridden(found.context, request->access));
    if (VI_LIKELY(found.status == VI_FOUND)) {
        result->partid = found.context->partid;
        result->pmg = found.context->pmg;
        vi_course_begin(&course->way, reader, found.context, course->access);
        return true;
    }
    result->fault = found.fault;
    return faulted(course);
}

/* The same as vi_place_quickly, of what is counted already. */
static __attribute__((noinline)) bool place_again(struct course *course, struct vi_place *place)
{
    uint64_t counts[VI_COUNTERS];
    stop_counting(course->reader, counts);
    bool found = vi_place_quickly(course->reader, &course->way, course->iova, place, &course->result->fault);
    go_on_counting(course->reader, counts);
    return found;
}

/* Where the next bytes go; false: the request has ended. `place` is whole where there is a context. */
VI_HOT bool next(struct course *course, struct vi_place *place)
{
    if (!course->left)
        return false;
    if (VI_UNLIKELY(!course->context)) {
        place->pa = course->iova;
        place->size = course->left;
        return true;
    }
    if (VI_UNLIKELY(course->counted)) {
        struct vi_place found; /* so that `place` may be in registers */
        if (!place_again(course, &found))
            return faulted(course);
        *place = found;
    } else {
        VI_COUNT(course->reader->counters.translations);
        if (VI_UNLIKELY(!vi_place_quickly(course->reader, &course->way, course->iova, place,
                                          &course->result->fault)))
            return faulted(course);
    }
    if (place->size > course->left)
        place->size = course->left;
    return true;
}

VI_HOT void advance(struct course *course, uint64_t size)
{
    course->iova += size;
    course->left -= size;
    course->result->done += size;
    course->fits -= size < course->fits ? size : course->fits;
    course->counted -= size < course->counted ? size : course->counted;
}

/*
 * Whether all of the piece that begins with `first` (see vi_pieces) is in the window's next `here` bytes, fewer than the
 * request may want. A piece is one access: it is done whole or not at all.
 */
static __attribute__((noinline)) bool piece_fits(struct course *course, const struct vi_place *first, uint64_t here)
{
    const struct vi_context *context = course->context;
    if (!context)
        return false;
    vi_memory_type memory = vi_memory_of(context, first, course->incoming);
    uint64_t size = first->size;
    course->counted = size;
    while (size <= here && size < course->left) {
        struct vi_place place;
        struct vi_fault fault;
        VI_COUNT(course->reader->counters.translations);
        course->counted = size + 1;
        if (!vi_place_quickly(course->reader, &course->way, course->iova + size, &place,
                              &fault) ||
            place.pa != first->pa + size || vi_memory_of(context, &place, course->incoming) != memory)
            break;
        size += place.size < course->left - size ? place.size : course->left - size;
        course->counted = size;
    }
    course->fits = size;
    return size <= here;
}

/* Where the next bytes are in our memory, *size of them; NULL: the request has ended. */
VI_HOT uint8_t *next_bytes(struct course *course, unsigned may, uint64_t *size)
{
    struct vi_place place;
    if (!next(course, &place))
        return NULL;
    struct vi_reader *reader = course->reader;
    uint8_t *host = vi_find(reader, place.pa, 1, may);
    if (VI_UNLIKELY(!host)) {
        course->result->pa = place.pa;
        ended(course, VI_OUTSIDE);
        return NULL;
    }
    const struct vi_window *window = reader->last;
    uint64_t here = window->size - (place.pa - window->base);
    course->result->pa = place.pa;
    if (VI_UNLIKELY(here < course->left)) {
        if (!course->fits && !piece_fits(course, &place, here)) {
            ended(course, VI_OUTSIDE);
            return NULL;
        }
        reader->last = window; /* walks use others */
    }
    *size = place.size < here ? place.size : here; /* tables may have changed since the piece was found to fit */
    return host;
}

/* Whether the window that was accessed is still whole. */
static inline bool intact(struct course *course)
{
    return VI_LIKELY(!vi_broken(course->reader->last)) || ended(course, VI_OUTSIDE);
}

uint32_t vi_pieces(struct vi_reader *reader, const struct vi_request *request, uint64_t counted, struct vi_piece *pieces,
                   uint32_t room, struct vi_result *result)
{
    struct course course;
    struct vi_place place;
    uint32_t count = 0;
    if (!begin(&course, reader, request, counted, result))
        return 0;
    while (next(&course, &place)) {
        const struct vi_parameters *p = &reader->setup->parameters;
        vi_memory_type memory =
            course.context ? vi_memory_of(course.context, &place, request->incoming)
            : IDR1_ATTR_TYPES_OVR(p->idr1)
                ? vi_override(request->incoming, GBPA_MTCFG(p->gbpa), (unsigned)GBPA_MemAttr(p->gbpa),
                              (unsigned)GBPA_SHCFG(p->gbpa))
                : vi_consistent(request->incoming);
        struct vi_piece *last = count ? &pieces[count - 1] : NULL;
        if (last && last->pa + last->size == place.pa && last->memory == memory) {
            last->size += place.size;
        } else if (count == room) {
            break;
        } else {
            pieces[count++] = (struct vi_piece){place.pa, place.size, memory};
        }
        advance(&course, place.size);
    }
    return count;
}

/* Of a run, what is done ends with a whole transaction, and as many are counted as there are; `begin` has counted one. */
static void end_of_run(struct vi_reader *reader, const struct vi_request *request, struct vi_result *result)
{
    uint64_t burst = request->burst, done = result->done, count = 0;
    if (!burst)
        return;
    if (result->end != VI_DONE) {
        uint64_t part = (request->iova + done) & (burst - 1);
        result->done = done = done > part ? done - part : 0;
    }
    if (done)
        count = (request->iova + done - 1) / burst - request->iova / burst + 1;
    VI_PUT(reader->counters.transactions, VI_GET(reader->counters.transactions) + count - 1);
}

enum vi_end vi_dma_read(struct vi_reader *reader, const struct vi_request *request, void *to, struct vi_result *result)
{
    struct course course;
    uint64_t size;
    uint8_t *host, *at = to;
    if (begin(&course, reader, request, 0, result))
        while ((host = next_bytes(&course, VI_MAY_READ, &size))) {
            memcpy(at, host, size);
            if (!intact(&course))
                break;
            at += size;
            advance(&course, size);
        }
    vi_after_read();
    return result->end;
}

enum vi_end vi_dma_write(struct vi_reader *reader, const struct vi_request *request, const void *from,
                         struct vi_result *result)
{
    struct course course;
    uint64_t size;
    uint8_t *host;
    const uint8_t *at = from;
    vi_before_write();
    if (begin(&course, reader, request, 0, result))
        while ((host = next_bytes(&course, VI_MAY_WRITE, &size))) {
            memcpy(host, at, size);
            if (!intact(&course))
                break;
            at += size;
            advance(&course, size);
        }
    end_of_run(reader, request, result);
    return result->end;
}

enum vi_end vi_dma_sum(struct vi_reader *reader, const struct vi_request *request, uint64_t *sum,
                       struct vi_result *result)
{
    struct course course;
    uint64_t size, total = 0;
    uint8_t *host;
    if (begin(&course, reader, request, 0, result))
        while ((host = next_bytes(&course, VI_MAY_READ, &size))) {
            uint64_t part = 0;
            for (uint64_t at = 0; at + 8 <= size; at += 8) {
                uint64_t value;
                memcpy(&value, host + at, 8);
                part += value;
            }
            if (!intact(&course))
                break;
            if (size & 7) { /* a window ends within a word */
                ended(&course, VI_OUTSIDE);
                break;
            }
            total += part;
            advance(&course, size);
        }
    vi_after_read();
    if (result->end != VI_DONE && (request->iova + result->done) & (request->burst - 1))
        result->done = total = 0; /* the sum has a part of a burst in it: all of it will be asked for again */
    end_of_run(reader, request, result);
    *sum = total;
    return result->end;
}

/* ---- copies --------------------------------------------------------------------------------------------------------- */

/* One side of a copy: of the page that it is in, `here` bytes are left, at `host` in `window`. */
struct side {
    struct course course;
    struct vi_result result;
    uint8_t *host;
    uint64_t here;
    const struct vi_window *window;
};

/* Whether there is a byte; the request has ended if not. */
VI_HOT bool side_has(struct side *side, unsigned may)
{
    if (side->here)
        return true;
    side->host = next_bytes(&side->course, may, &side->here);
    side->window = side->course.reader->last;
    return side->host;
}

VI_HOT bool side_moved(struct side *side, uint64_t size)
{
    if (vi_broken(side->window))
        return false;
    advance(&side->course, size);
    side->host += size;
    side->here -= size;
    return true;
}

/* A burst of which either side is not in one piece. */
static __attribute__((noinline)) bool copy_in_parts(struct side *source, struct side *target, uint64_t burst)
{
    uint8_t bytes[VI_MOST_BURST];
    for (uint64_t at = 0, size; at < burst; at += size) {
        if (!side_has(source, VI_MAY_READ))
            return false;
        size = source->here < burst - at ? source->here : burst - at;
        memcpy(bytes + at, source->host, size);
        if (!side_moved(source, size))
            return false;
    }
    for (uint64_t at = 0, size; at < burst; at += size) {
        if (!side_has(target, VI_MAY_WRITE))
            return false;
        size = target->here < burst - at ? target->here : burst - at;
        memcpy(target->host, bytes + at, size);
        if (!side_moved(target, size))
            return false;
    }
    return true;
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

uint64_t vi_dma_copy(struct vi_reader *reader, const struct vi_request *from, const struct vi_request *to)
{
    struct side source = {.here = 0}, target = {.here = 0};
    uint64_t done = 0;
    vi_before_write(); /* what it reads goes no further than what it writes */
    bool readable = begin(&source.course, reader, from, 0, &source.result);
    bool writable = begin(&target.course, reader, to, 0, &target.result);
    while (readable && writable && done < from->size) {
        uint64_t burst = from->burst - ((from->iova + done) & (from->burst - 1));
        if (burst > from->size - done)
            burst = from->size - done;
        if (!side_has(&source, VI_MAY_READ) || !side_has(&target, VI_MAY_WRITE))
            break;
        if (VI_LIKELY(source.here >= burst && target.here >= burst)) {
            move(target.host, source.host, burst);
            if (!side_moved(&source, burst) || !side_moved(&target, burst))
                break;
        } else if (!copy_in_parts(&source, &target, burst)) {
            break;
        }
        done += burst;
    }
    /* Each burst is a read and a write, of which `begin` has counted one of each. */
    uint64_t bursts = done ? (from->iova + done - 1) / from->burst - from->iova / from->burst + 1 : 0;
    VI_PUT(reader->counters.transactions, VI_GET(reader->counters.transactions) + 2 * bursts - 2);
    return done;
}
