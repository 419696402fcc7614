/* SPDX-License-Identifier: Apache-2.0 */
/* What readers and writers of one instance tell (watch.h). None is called while nobody looks on. */
#ifndef VI_TELL_H
#define VI_TELL_H

#include "tlb.h"
#include "watch.h"

/*
 * Room for what a page may come to: its fills and its use, and at the end of its request VI_AT_THE_END. False: there is
 * none, and nothing more is to be begun. What all readers together hold of the ring leaves room for others, however long
 * they are inside.
 */
enum { VI_OF_A_PAGE = 24, VI_AT_THE_END = 4, VI_PROMISE = 128 };
bool vi_get_room(struct vi_reader *reader);
/* The same for so many fills more. */
bool vi_get_room_for(struct vi_reader *reader, unsigned fills);
static inline bool vi_may_tell(struct vi_reader *reader)
{
    return VI_LIKELY(reader->room >= VI_OF_A_PAGE) || vi_get_room(reader);
}

/* The request has told all: the rest of its room is others'. */
void vi_told_all(struct vi_reader *reader);

/* Look at the clock of records. */
static inline uint64_t vi_now(struct vi_reader *reader)
{
    reader->uses = 0;
    return reader->now = vi_watch_now();
}

/* Whose what is told from now on is. */
static inline void vi_telling(struct vi_reader *reader, uint32_t sid, uint32_t ssid)
{
    reader->sid = sid;
    reader->ssid = ssid;
    reader->first_pa = UINT64_MAX;
    reader->begun = vi_now(reader);
}

/* An entry that is about to be put; false: there is no room to tell, and it is not to be put. */
bool vi_tell_fill(struct vi_reader *reader, unsigned stage, const struct vi_space *space, const struct vi_leaf *leaf);
/* A page that is about to be used, for who checks and who looks on. */
void vi_tell_use(struct vi_reader *reader, const struct vi_context *context, uint64_t iova, uint64_t size, uint64_t pa, unsigned access);
/* A transaction that was translated and moved whole, of which vi_tell_use has told; the next begins now. */
void vi_tell_transaction(struct vi_reader *reader, uint64_t iova, uint64_t size, unsigned access);
/* A disk's request that was served; `begun` by the clock of records. */
void vi_tell_served(struct vi_reader *reader, uint32_t type, uint64_t sector, uint64_t size, uint64_t begun);

/* What an invalidation drops, told in two parts: before it is carried out and when it is known how much it was. */
struct vi_dropping {
    struct vi_watch *watch; /* NULL: nobody wants to know */
    struct vi_record *record;
    uint64_t number;
};
enum vi_dropped { VI_DROPPED_SPACES, VI_DROPPED_RANGE, VI_DROPPED_ALL, VI_DROPPED_CONTEXTS };
/* Callers have room for it (core.h). `named`: of what, `of`: three words of how. */
void vi_drop_begin(struct vi_core *core, struct vi_dropping *dropping);
void vi_drop_end(struct vi_dropping *dropping, enum vi_dropped how, const struct vi_invalidation *what, uint64_t entries);

#endif
