/* SPDX-License-Identifier: Apache-2.0 */
#include "tell.h"
#include "translate.h"

/* After what it is of is there. */
static void look(struct vi_core *core)
{
    atomic_store(&core->looked, atomic_load(&core->watching) || atomic_load(&core->checking));
}

void vi_set_check(struct vi_core *core, const struct vi_check *check)
{
    atomic_store(&core->checking, check);
    look(core);
    vi_quiesce(core);
}

void vi_watch_core(struct vi_core *core, struct vi_watch *watch)
{
    atomic_store(&core->watching, watch);
    look(core);
}

void vi_enter_looked(struct vi_reader *reader)
{
    reader->watch = atomic_load(&reader->core->watching);
    reader->check = atomic_load(&reader->core->checking);
    reader->looked = reader->watch || reader->check;
}

/* ---- readers ------------------------------------------------------------------------------------------------------ */

bool vi_get_room_for(struct vi_reader *reader, unsigned fills)
{
    return reader->room >= fills + VI_OF_A_PAGE || vi_get_room(reader);
}

bool vi_get_room(struct vi_reader *reader)
{
    struct vi_watch *watch = reader->watch;
    if (!watch) /* who checks alone needs none */
        return true;
    vi_unpromise(watch, reader->promised - reader->room); /* which are told, and in the ring */
    reader->promised = reader->room;
    if (!vi_promise(watch, VI_PROMISE))
        return false;
    reader->room += VI_PROMISE;
    reader->promised += VI_PROMISE;
    /* The last quarter is for what is never lost. */
    reader->quiet = vi_watch_room(watch) < watch->size / 4;
    return true;
}

bool vi_begin_telling(struct vi_reader *reader, uint32_t sid, uint32_t ssid)
{
    if (!vi_watch_of(reader))
        return true;
    vi_telling(reader, sid, ssid);
    return vi_may_tell(reader);
}

void vi_told_all(struct vi_reader *reader)
{
    if (reader->promised)
        vi_unpromise(reader->watch, reader->promised);
    reader->promised = reader->room = 0;
}

static struct vi_record *begin(struct vi_reader *reader, uint64_t *number)
{
    struct vi_record *record = vi_tell_begin(reader->watch, number);
    record->sid = reader->sid;
    record->ssid = reader->ssid;
    return record;
}

/* The same for what may be lost; NULL: it is not wanted, or was. */
static struct vi_record *begin_losable(struct vi_reader *reader, enum vi_kind kind, enum vi_losable as, uint64_t *number)
{
    if (!reader->watch || !vi_wanted(reader->watch, kind))
        return NULL;
    if (reader->quiet || !reader->room) {
        vi_lose(reader->watch, as);
        return NULL;
    }
    reader->room--;
    return begin(reader, number);
}

/* For what is never lost; false: there is none. */
static bool take_room(struct vi_reader *reader)
{
    if (reader->room > VI_AT_THE_END) {
        reader->room--;
        return true;
    }
    if (!vi_promise(reader->watch, 1))
        return false;
    reader->promised++;
    return true;
}

bool vi_tell_fill(struct vi_reader *reader, unsigned stage, const struct vi_space *space, const struct vi_leaf *leaf)
{
    struct vi_watch *watch = reader->watch;
    uint64_t number;
    if (!vi_wanted(watch, VI_FILLED))
        return true;
    if (!take_room(reader))
        return false;
    struct vi_record *record = begin(reader, &number);
    bool global = space->asid == VI_GLOBAL;
    record->flags = (uint8_t)leaf->tag;
    record->small = (uint16_t)((leaf->tag >> VI_LEAF_MEMORY & 0x3F) | (unsigned)space->world << 6 | (unsigned)space->aset << 8 |
                               (unsigned)global << 9 | (stage - 1) << 10);
    record->size = (uint32_t)space->vmid << 16 | (global ? 0 : (uint32_t)space->asid & 0xFFFF);
    record->word[0] = leaf->base;
    record->word[1] = leaf->output | (unsigned)(vi_leaf_level(leaf) + 1) | vi_leaf_granule(leaf) << 4;
    record->word[2] = leaf->descriptor;
    record->word[3] = vi_leaf_at(leaf);
    vi_tell_at(record, number, VI_FILLED, vi_now(reader));
    return true;
}

bool vi_tell_finding(struct vi_reader *reader, uint32_t rule, const struct vi_hit *hit)
{
    uint64_t number;
    if (!reader->watch || !vi_wanted(reader->watch, VI_FOUND))
        return true;
    if (!take_room(reader))
        return false;
    struct vi_record *record = begin(reader, &number);
    record->flags = hit->access & VI_WRITE ? VI_FLAG_WRITE : 0;
    record->small = (uint16_t)(hit->found | hit->read << 1);
    record->size = rule;
    record->word[0] = hit->iova;
    record->word[1] = hit->found ? hit->entry.descriptor : 0;
    record->word[2] = hit->now;
    record->word[3] = hit->synced;
    vi_tell(record, number, VI_FOUND);
    return true;
}

static void check(struct vi_reader *reader, struct vi_hit *hit)
{
    const struct vi_context *c = hit->context;
    const struct vi_window *last = reader->last;
    struct vi_leaf leaf;
    if (c && c->stage1) {
        hit->found = vi_tlb_find(reader->core->tlb1, atomic_load(&c->own->state), hit->iova, &leaf) ||
                     vi_tlb_find(reader->core->tlb1, atomic_load(&c->global->state), hit->iova, &leaf);
        if (hit->found)
            vi_unpack(&leaf, &hit->entry);
        /* Through stage 2 it is somewhere else, which a check finds out by vi_translate. */
        hit->read = hit->found && !c->stage2 && vi_load64(reader, vi_leaf_at(&leaf), &hit->now);
    }
    hit->synced = reader->watch ? atomic_load(&reader->watch->synced) : 0;
    reader->check->check(reader->check->of, reader, hit);
    reader->last = last;
}

enum { PAGES_A_LOOK = 16 };

void vi_tell_use(struct vi_reader *reader, const struct vi_context *context, uint64_t iova, uint64_t size, uint64_t pa,
                 unsigned access)
{
    uint64_t number;
    if (reader->check) {
        struct vi_hit hit = {.context = context, .iova = iova, .size = size, .pa = pa, .access = access};
        check(reader, &hit);
    }
    if (reader->first_pa == UINT64_MAX)
        reader->first_pa = pa;
    struct vi_record *record = begin_losable(reader, VI_USED, VI_LOSE_USED, &number);
    if (!record)
        return;
    record->flags = access & VI_WRITE ? VI_FLAG_WRITE : 0;
    record->word[0] = iova;
    record->word[1] = size;
    record->word[2] = pa;
    /* To look at the clock takes as long as all else of this. */
    if (++reader->uses == PAGES_A_LOOK)
        vi_now(reader);
    vi_tell_at(record, number, VI_USED, reader->now);
}

void vi_tell_transaction(struct vi_reader *reader, uint64_t iova, uint64_t size, unsigned access)
{
    static const struct {
        enum vi_kind kind;
        enum vi_losable as;
    } told[] = {{VI_TRANSLATED, VI_LOSE_TRANSLATED}, {VI_MOVED, VI_LOSE_MOVED}};
    if (!reader->watch)
        return;
    uint64_t now = vi_now(reader);
    for (unsigned at = 0; at < sizeof told / sizeof *told; at++) {
        uint64_t number;
        struct vi_record *record = begin_losable(reader, told[at].kind, told[at].as, &number);
        if (!record)
            continue;
        record->flags = access & VI_WRITE ? VI_FLAG_WRITE : 0;
        record->word[0] = iova;
        record->word[1] = size;
        record->word[2] = reader->first_pa;
        record->word[3] = reader->begun;
        vi_tell_at(record, number, told[at].kind, now);
    }
    reader->first_pa = UINT64_MAX;
    reader->begun = now;
}

void vi_tell_served(struct vi_reader *reader, uint32_t type, uint64_t sector, uint64_t size, uint64_t begun)
{
    uint64_t number;
    if (!reader->watch || !vi_wanted(reader->watch, VI_REQUEST))
        return;
    if (reader->room) {
        reader->room--;
    } else {
        if (!vi_promise(reader->watch, 1))
            return; /* its request was begun with room for it: this is not so */
        reader->promised++;
    }
    struct vi_record *record = begin(reader, &number);
    record->size = type;
    record->word[0] = sector;
    record->word[1] = size;
    record->word[2] = begun;
    vi_tell(record, number, VI_REQUEST);
    reader->begun = vi_now(reader); /* the disk's own time is none of what comes next */
}

/* ---- writers ------------------------------------------------------------------------------------------------------ */

void vi_drop_begin(struct vi_core *core, struct vi_dropping *dropping)
{
    struct vi_watch *watch = vi_watching(core);
    dropping->watch = watch && vi_wanted(watch, VI_DROPPED) ? watch : NULL;
    if (dropping->watch)
        dropping->record = vi_tell_begin(watch, &dropping->number);
}

void vi_drop_end(struct vi_dropping *dropping, enum vi_dropped how, const struct vi_invalidation *what, uint64_t entries)
{
    struct vi_record *record = dropping->record;
    if (!dropping->watch)
        return;
    record->flags = (uint8_t)how;
    record->small = what->vmid == VI_ANY ? 0 : (uint16_t)what->vmid;
    record->sid = (uint32_t)what->asid;
    record->ssid = (uint32_t)what->vmid_mask << 16 | (uint32_t)what->granule_bits << 8 | (uint8_t)what->level;
    record->size = (uint32_t)what->world | (what->vmid == VI_ANY ? 0x100u : 0);
    record->word[0] = what->start;
    record->word[1] = what->size;
    record->word[2] = entries;
    /* Contexts are withdrawn once more when the model follows. */
    vi_tell(record, dropping->number, how == VI_DROPPED_CONTEXTS && !entries ? VI_VOID : VI_DROPPED);
}
