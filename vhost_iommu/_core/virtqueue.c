/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk's reads and writes out of a virtio split ring (Virtual I/O Device 1.2 §2.7, §5.2), where all goes well.
 *
 * Answers what masters/virtio.py and virtio_blk.py answer, and leaves to them whatever is not plain: a request of another
 * type, a rule broken, an address that does not translate, a page across two windows, a disk that would have to be waited
 * for. Of such a chain nothing is done here, so that they find it as the driver left it. No field of guest memory is read
 * twice.
 */
#define _GNU_SOURCE
#include <sys/uio.h>

#include "tell.h"
#include "translate.h"

/* A chain of more has to be served without us; so has one that lies in as many pieces of memory. */
enum { MOST_SEGMENTS = 1024, MOST_PIECES = 1024 };
/* So has one of more bytes, for who has notified us waits meanwhile. */
#define MOST_BYTES (UINT64_C(4) << 20)

struct descriptor {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct used_element {
    uint32_t id, len;
};

struct segment {
    uint64_t iova, size;
};

/* One direction of a chain. */
struct buffer {
    struct segment segments[MOST_SEGMENTS];
    uint32_t count;
    uint64_t size;
};

/* A number of 16 bits in a ring. */
struct word {
    uint16_t *at;
    uint64_t iova, pa; /* pa: while somebody looks on */
};

/* One kind of access of the stream. */
struct direction {
    struct vi_course course;
    unsigned access, may;
};

struct serving {
    struct vi_reader *reader;
    const struct vi_context *context;
    struct direction read, write;
    struct vi_served *served;
};

static bool prepare(struct serving *s, struct vi_reader *reader, uint32_t sid)
{
    vi_attribute_if_followed(reader, sid);
    s->reader = reader;
    s->context = reader->setup->parameters.enabled ? vi_context_of(reader, sid, VI_NO_SSID) : NULL;
    if (!s->context)
        return false;
    s->read.access = vi_overridden(s->context, 0);
    s->read.may = VI_MAY_READ;
    s->write.access = vi_overridden(s->context, VI_WRITE);
    s->write.may = VI_MAY_WRITE;
    vi_course_begin(&s->read.course, reader, s->context, s->read.access);
    vi_course_begin(&s->write.course, reader, s->context, s->write.access);
    return true;
}

/* One transaction is begun; one that was done whole is told. */
static void count(struct serving *s, struct direction *direction, uint64_t size)
{
    VI_COUNT(s->reader->counters.transactions);
    s->served->transactions++;
    if (direction == &s->read)
        s->served->bytes_read += size;
    else
        s->served->bytes_written += size;
}

VI_HOT void done(struct serving *s, struct direction *direction, uint64_t iova, uint64_t size, bool watched)
{
    if (watched)
        vi_tell_transaction(s->reader, iova, size, direction->access);
}

VI_HOT uint8_t *reach_in(struct serving *s, struct direction *direction, uint64_t iova, uint64_t *size, bool watched)
{
    struct vi_place place;
    struct vi_fault fault;
    if (watched && !vi_may_tell(s->reader))
        return NULL;
    VI_COUNT(s->reader->counters.translations);
    if (!vi_place_quickly(s->reader, &direction->course, iova, &place, &fault))
        return NULL;
    if (place.size < *size)
        *size = place.size;
    if (watched)
        vi_tell_use(s->reader, s->context, iova, *size, place.pa, direction->access);
    return vi_find(s->reader, place.pa, *size, direction->may);
}

static __attribute__((noinline)) uint8_t *reach_unwatched(struct serving *s, struct direction *direction, uint64_t iova,
                                                          uint64_t *size)
{
    return reach_in(s, direction, iova, size, false);
}

static __attribute__((noinline)) uint8_t *reach_watched(struct serving *s, struct direction *direction, uint64_t iova,
                                                        uint64_t *size)
{
    return reach_in(s, direction, iova, size, true);
}

/*
 * Where the bytes from `iova` on are in our memory, and in *size how many of those wanted go along; NULL: nowhere, or there
 * is no room to tell of it. `watched`: whether somebody looks on; a constant, here and below.
 */
VI_HOT uint8_t *reach(struct serving *s, struct direction *direction, uint64_t iova, uint64_t *size, bool watched)
{
    return (watched ? reach_watched : reach_unwatched)(s, direction, iova, size);
}

/* As reach, all of `size` bytes or none. */
VI_HOT void *reach_all(struct serving *s, struct direction *direction, uint64_t iova, uint64_t size, bool watched)
{
    uint64_t here = size;
    uint8_t *host = iova + size < iova ? NULL : reach(s, direction, iova, &here, watched);
    if (!host || here != size)
        return NULL;
    count(s, direction, size);
    done(s, direction, iova, size, watched);
    return host;
}

/* The same for a number of 16 bits, which is accessed whole; its transactions are counted as they are made. */
VI_HOT bool reach16(struct serving *s, struct direction *direction, uint64_t iova, struct word *word, bool watched)
{
    uint64_t here = 2;
    if (watched)
        s->reader->first_pa = UINT64_MAX;
    void *host = iova + 2 < iova ? NULL : reach(s, direction, iova, &here, watched);
    *word = (struct word){host, iova, watched ? s->reader->first_pa : UINT64_MAX};
    return host && here == 2 && !((uintptr_t)host & 1);
}

/* A transaction of a number that was translated before. */
VI_HOT void access16(struct serving *s, struct direction *direction, const struct word *word, bool watched)
{
    count(s, direction, 2);
    if (watched)
        s->reader->first_pa = word->pa;
    done(s, direction, word->iova, 2, watched);
}

VI_HOT uint16_t load16(struct serving *s, const struct word *from, bool watched)
{
    access16(s, &s->read, from, watched);
    return __atomic_load_n(from->at, __ATOMIC_SEQ_CST);
}

/* Before what load16 loads after it: the driver stores and then looks at what we store, and so do we (§2.7.7.2). */
VI_HOT void store16(struct serving *s, const struct word *to, uint16_t value, bool watched)
{
    access16(s, &s->write, to, watched);
    __atomic_store_n(to->at, value, __ATOMIC_SEQ_CST);
}

VI_HOT bool fetch(struct serving *s, uint64_t iova, void *to, uint64_t size, bool watched)
{
    uint8_t *at = to, *host;
    if (iova + size < iova)
        return false;
    count(s, &s->read, size);
    uint64_t first = iova, all = size;
    for (uint64_t here; size; at += here, iova += here, size -= here) {
        here = size;
        if (!(host = reach(s, &s->read, iova, &here, watched)))
            return false;
        memcpy(at, host, here);
    }
    done(s, &s->read, first, all, watched);
    return true;
}

/* Whether a file behind guest memory has become shorter, so that what was read of it means nothing. */
static bool any_broken(const struct vi_reader *reader)
{
    for (uint32_t at = 0; at < reader->windows->count; at++)
        if (vi_broken(&reader->windows->window[at]))
            return true;
    return false;
}

static bool add(struct buffer *buffer, const struct descriptor *descriptor)
{
    if (!descriptor->len)
        return true;
    if (buffer->count == MOST_SEGMENTS)
        return false;
    buffer->segments[buffer->count++] = (struct segment){descriptor->addr, descriptor->len};
    buffer->size += descriptor->len;
    return true;
}

/* The chain from `head` on; false: it is not for here. */
VI_HOT bool collect(struct serving *s, const struct vi_ring *ring, uint16_t head, struct buffer *readable,
                    struct buffer *writable, bool watched)
{
    uint64_t table = ring->desc;
    uint32_t entries = ring->size, index = head, seen = 0;
    bool inside = false;
    readable->count = writable->count = 0;
    readable->size = writable->size = 0;
    for (;;) {
        struct descriptor d;
        uint64_t at = table + index * sizeof d;
        if (index >= entries || at < table || !fetch(s, at, &d, sizeof d, watched))
            return false;
        if (d.flags & VI_DescFlags_INDIRECT) {
            if (inside || !ring->indirect || d.flags & VI_DescFlags_NEXT)
                return false;
            if (!d.len || d.len % sizeof d || d.len > ring->size * sizeof d)
                return false;
            table = d.addr;
            entries = d.len / (uint32_t)sizeof d;
            index = 0;
            inside = true;
            continue;
        }
        if (++seen > ring->size)
            return false;
        if (!(d.flags & VI_DescFlags_WRITE) && writable->count)
            return false;
        if (!add(d.flags & VI_DescFlags_WRITE ? writable : readable, &d))
            return false;
        if (!(d.flags & VI_DescFlags_NEXT))
            return true;
        index = d.next;
    }
}

/* The memory behind a buffer, `skipped` bytes of it left out at its begin and `size` taken; 0: it is not for here. */
VI_HOT int pieces_of(struct serving *s, struct direction *direction, const struct buffer *buffer, uint64_t skipped,
                     uint64_t size, struct iovec pieces[MOST_PIECES], bool watched)
{
    int have = 0;
    for (uint32_t at = 0; size; at++) {
        uint64_t iova = buffer->segments[at].iova, left = buffer->segments[at].size;
        if (skipped >= left) {
            skipped -= left;
            continue;
        }
        iova += skipped;
        left -= skipped;
        skipped = 0;
        if (left > size)
            left = size;
        if (iova + left < iova)
            return 0;
        size -= left;
        count(s, direction, left);
        uint64_t first = iova, all = left;
        for (uint64_t here; left; iova += here, left -= here) {
            here = left;
            uint8_t *host = reach_in(s, direction, iova, &here, watched);
            if (!host)
                return 0;
            if (have && (uint8_t *)pieces[have - 1].iov_base + pieces[have - 1].iov_len == host) {
                pieces[have - 1].iov_len += here;
                continue;
            }
            if (have == MOST_PIECES)
                return 0;
            pieces[have++] = (struct iovec){host, here};
        }
        done(s, direction, first, all, watched);
    }
    return have;
}

VI_HOT bool fetch_header(struct serving *s, const struct buffer *buffer, void *to, uint64_t size, bool watched)
{
    uint8_t *at = to;
    for (uint32_t segment = 0; size; segment++) {
        uint64_t here = buffer->segments[segment].size < size ? buffer->segments[segment].size : size;
        if (!fetch(s, buffer->segments[segment].iova, at, here, watched))
            return false;
        at += here;
        size -= here;
    }
    return true;
}

/* Do the request at `head`, of which *element then tells; false: it is not for here, and nothing has been done. */
VI_HOT bool serve_one(struct serving *s, const struct vi_ring *ring, const struct vi_disk *disk, uint16_t head,
                      struct used_element *element, uint64_t *moved, bool watched)
{
    struct buffer readable, writable;
    struct iovec pieces[MOST_PIECES];
    uint64_t begun = watched ? vi_watch_now() : 0;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    if (!collect(s, ring, head, &readable, &writable, watched) || readable.size < sizeof header || !writable.size)
        return false;
    if (!fetch_header(s, &readable, &header, sizeof header, watched))
        return false;
    bool in = header.type == VI_RequestType_IN;
    if (!in && !(header.type == VI_RequestType_OUT && disk->may_write))
        return false;
    uint64_t size = in ? writable.size - 1 : readable.size - sizeof header;
    if (!size || size > MOST_BYTES || size % VI_SECTOR || header.sector > disk->sectors ||
        size / VI_SECTOR > disk->sectors - header.sector)
        return false;
    int have = in ? pieces_of(s, &s->write, &writable, 0, size, pieces, watched)
                  : pieces_of(s, &s->read, &readable, sizeof header, size, pieces, watched);
    const struct segment *last = &writable.segments[writable.count - 1];
    uint8_t *status = reach_all(s, &s->write, last->iova + last->size - 1, 1, watched);
    if (!have || !status || any_broken(s->reader))
        return false;
    off_t offset = (off_t)(header.sector * VI_SECTOR);
    ssize_t moved_now = in ? preadv2(disk->fd, pieces, have, offset, disk->read_flags)
                      : pwritev2(disk->fd, pieces, have, offset, 0);
    if (moved_now != (ssize_t)size)
        return false;
    if (watched)
        vi_tell_served(s->reader, header.type, header.sector, size, begun);
    *status = VI_RequestStatus_OK;
    *element = (struct used_element){head, in ? (uint32_t)size + 1 : 1};
    *moved += size;
    s->served->reads += in;
    s->served->writes += !in;
    return true;
}

/* Let the driver see the used entries from `published` on, and note whether it wants to be told of them. */
VI_HOT void publish(struct serving *s, const struct vi_ring *ring, uint16_t *published, const struct word *used_idx,
                    const struct word *wants, bool watched)
{
    uint16_t entries = (uint16_t)(ring->used_idx - *published);
    if (!entries)
        return;
    *published = ring->used_idx;
    store16(s, used_idx, ring->used_idx, watched);
    uint16_t said = load16(s, wants, watched);
    if (ring->event_idx ? (uint16_t)(ring->used_idx - said - 1) < entries : !(said & VI_AvailFlags_NO_INTERRUPT))
        s->served->notify = true;
}

VI_HOT int serve(struct vi_reader *reader, struct vi_ring *ring, const struct vi_disk *disk, uint32_t chains,
                 uint64_t bytes, struct vi_served *served, bool watched)
{
    struct serving s = {.served = served};
    uint16_t published = ring->used_idx;
    struct word avail_idx, used_idx, wants, avail_event = {0};
    uint64_t moved = 0;
    uint32_t mask = ring->size - 1;
    bool armed = true; /* by who served it before */
    int end = VI_NOT_SERVED;
    memset(served, 0, sizeof *served);
    if (!prepare(&s, reader, ring->sid))
        return VI_NOT_SERVED;
    if (watched)
        vi_telling(reader, ring->sid, VI_NO_SSID);
    if (!reach16(&s, &s.read, ring->avail + 2, &avail_idx, watched) || !reach16(&s, &s.write, ring->used + 2, &used_idx, watched) ||
        !reach16(&s, &s.read, ring->event_idx ? ring->avail + 4 + 2 * (uint64_t)ring->size : ring->avail, &wants, watched) ||
        (ring->event_idx &&
         !reach16(&s, &s.write, ring->used + 4 + sizeof(struct used_element) * (uint64_t)ring->size, &avail_event, watched))) {
        memset(served, 0, sizeof *served);
        return VI_NOT_SERVED;
    }
    for (;;) {
        struct used_element element, *slot;
        struct vi_served before = *served;
        uint16_t head, pending = (uint16_t)(load16(&s, &avail_idx, watched) - ring->last_avail);
        if (pending > ring->size)
            break;
        bool enough = served->reads + served->writes >= chains || moved >= bytes;
        if (!pending || enough) {
            publish(&s, ring, &published, &used_idx, &wants, watched);
            /* The driver is to notify of what comes after all that was served, and what it added before it could see that
             * is found by looking once more. */
            bool arm = ring->event_idx && !armed;
            if (arm)
                store16(&s, &avail_event, ring->last_avail, watched);
            armed = true;
            if (arm && !pending)
                continue;
            end = pending ? VI_MORE : VI_SERVED;
            break;
        }
        slot = reach_all(&s, &s.write, ring->used + 4 + sizeof *slot * (uint64_t)(ring->used_idx & mask), sizeof *slot,
                         watched);
        if (!slot || !fetch(&s, ring->avail + 4 + 2 * (uint64_t)(ring->last_avail & mask), &head, sizeof head,
                             watched) ||
            !serve_one(&s, ring, disk, head, &element, &moved, watched)) {
            *served = before;
            break;
        }
        memcpy(slot, &element, sizeof element);
        ring->last_avail++;
        ring->used_idx++;
        armed = false;
    }
    publish(&s, ring, &published, &used_idx, &wants, watched);
    return end;
}

static __attribute__((noinline)) int serve_watched(struct vi_reader *reader, struct vi_ring *ring,
                                                   const struct vi_disk *disk, uint32_t chains, uint64_t bytes,
                                                   struct vi_served *served)
{
    int end = serve(reader, ring, disk, chains, bytes, served, true);
    vi_told_all(reader);
    return end;
}

int vi_serve(struct vi_reader *reader, struct vi_ring *ring, const struct vi_disk *disk, uint32_t chains, uint64_t bytes,
             struct vi_served *served)
{
    return vi_looked(reader) ? serve_watched(reader, ring, disk, chains, bytes, served)
                             : serve(reader, ring, disk, chains, bytes, served, false);
}
