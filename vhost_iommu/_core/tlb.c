/* SPDX-License-Identifier: Apache-2.0 */
/* TLB entries, their spaces, and invalidation (§4.4). */
#include <stdlib.h>
#include <string.h>

#include "tell.h"
#include "translate.h"

static uint32_t power_of_two(uint64_t least)
{
    uint32_t found = 1;
    while (found < least)
        found <<= 1;
    return found;
}

static void tlb_free(struct vi_tlb *tlb)
{
    if (tlb) {
        free(tlb->hints);
        free(tlb->set);
    }
    free(tlb);
}

static struct vi_tlb *tlb_new(uint32_t entries)
{
    struct vi_tlb *tlb = calloc(1, sizeof *tlb);
    if (!tlb)
        return NULL;
    uint32_t sets = power_of_two((entries + VI_WAYS - 1) / VI_WAYS);
    tlb->last_set = sets - 1;
    tlb->last = tlb->last_set * sizeof(struct vi_hints);
    tlb->most_ahead = sets * VI_HALF < VI_MOST_AHEAD ? sets * VI_HALF : VI_MOST_AHEAD;
    tlb->hints = calloc(sets, sizeof *tlb->hints);
    size_t size = (sets + 1) * sizeof *tlb->set; /* one may look behind the last one */
    tlb->set = aligned_alloc(64, size);
    if (tlb->hints && tlb->set) {
        memset(tlb->set, 0, size);
        return tlb;
    }
    tlb_free(tlb);
    return NULL;
}

bool vi_tlbs_new(struct vi_core *core, uint32_t entries, uint32_t contexts)
{
    /* Twice of what entries and contexts can need, so that collecting what is not needed pays. */
    uint32_t limit = 2 * (2 * entries + 3 * contexts) + 64;
    core->tlb1 = tlb_new(entries);
    core->tlb2 = tlb_new(entries);
    core->spaces = calloc(1, sizeof *core->spaces + limit * sizeof(struct vi_space));
    if (!core->tlb1 || !core->tlb2 || !core->spaces)
        return false;
    core->spaces->limit = limit;
    core->spaces->heads = power_of_two(limit / 4);
    core->spaces->head = calloc(core->spaces->heads, sizeof *core->spaces->head);
    core->spaces->next_tag = 1;
    return core->spaces->head && !pthread_mutex_init(&core->spaces->lock, NULL);
}

void vi_tlbs_free(struct vi_core *core)
{
    tlb_free(core->tlb1);
    tlb_free(core->tlb2);
    if (core->spaces)
        free(core->spaces->head);
    free(core->spaces);
}

/* ---- entries ---------------------------------------------------------------------------------------------------- */

static uint64_t hash_of(uint64_t key, unsigned shift, uint64_t tag) { return vi_hash(key >> shift, vi_salt(shift, tag)); }

/* The space of an entry, if it counts. */
static struct vi_space *space_of(const struct vi_core *core, const struct vi_leaf *leaf)
{
    uint64_t place = leaf->space / sizeof(struct vi_space);
    if (place >= core->spaces->limit || leaf->space % sizeof(struct vi_space))
        return NULL;
    struct vi_space *space = &core->spaces->pool[place];
    uint64_t state = VI_GET(space->state);
    return state && state >> 32 == leaf->tag >> 32 ? space : NULL;
}

static void forget(struct vi_tlb *tlb, uint32_t set, unsigned way)
{
    VI_PUT(tlb->set[set][way].tag, 0);
    VI_PUT(tlb->set[set][way].check, 0); /* which it cannot be with this tag, but by chance: and no space has it */
    vi_set_hint(&tlb->hints[set], way, 0);
    VI_PUT(tlb->hints[set].owner[way / VI_HALF], 0);
}

/* The entry in this way is overwritten by one of the space whose tag is `tag`. */
void vi_tlb_evict(const struct vi_core *core, struct vi_tlb *tlb, const struct vi_entry *entry)
{
    struct vi_leaf old = {.tag = VI_GET(entry->tag), .space = VI_GET(entry->space)};
    struct vi_space *space = space_of(core, &old);
    if (!space)
        return;
    VI_PUT(space->entries, VI_GET(space->entries) - 1);
    VI_COUNT(tlb->evictions);
}

bool vi_note_size(struct vi_space *space, uint64_t state, uint64_t bit)
{
    uint64_t seen = state;
    while (!atomic_compare_exchange_weak(&space->state, &seen, seen | bit))
        if (seen >> 32 != state >> 32)
            return false;
    return true;
}

void vi_tlb_put(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space, uint64_t state, struct vi_leaf *leaf)
{
    unsigned shift = vi_leaf_shift(leaf);
    uint64_t bit = UINT64_C(1) << (shift - 12), tag = state & ~(uint64_t)UINT32_MAX;
    if (VI_UNLIKELY(!(state & bit)) && !vi_note_size(space, state, bit))
        return;
    leaf->tag = tag | (uint32_t)leaf->tag;
    uint64_t hash = hash_of(leaf->base, shift, tag);
    struct vi_lane lane = {.tlb = tlb, .space = space, .place = vi_place_of(core, space), .hint = vi_hint(hash),
                           .set = vi_set_at(tlb, hash)};
    vi_tlb_insert(core, &lane, leaf);
}

void vi_tlb_replace(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space, uint64_t state,
                    struct vi_leaf *leaf)
{
    uint64_t tag = state & ~(uint64_t)UINT32_MAX, hash = hash_of(leaf->base, vi_leaf_shift(leaf), tag);
    uint32_t set = vi_set_of(tlb, hash);
    for (unsigned way = 0; way < VI_WAYS; way++)
        if (VI_GET(tlb->set[set][way].base) == leaf->base && !((VI_GET(tlb->set[set][way].tag) ^ tag) >> 32)) {
            leaf->tag = tag | (uint32_t)leaf->tag;
            vi_entry_fill(&tlb->set[set][way], leaf, vi_place_of(core, space));
            vi_set_hint(&tlb->hints[set], way, vi_hint(hash));
            return;
        }
    vi_tlb_put(core, tlb, space, state, leaf);
}

bool vi_tlb_find(const struct vi_tlb *tlb, uint64_t state, uint64_t address, struct vi_leaf *leaf)
{
    uint64_t tag = state & ~(uint64_t)UINT32_MAX;
    for (uint32_t sizes = (uint32_t)state; sizes; sizes &= sizes - 1) {
        unsigned shift = 12 + (unsigned)__builtin_ctz(sizes);
        uint64_t key = address >> shift << shift | shift, hash = hash_of(key, shift, tag);
        uint32_t set = vi_set_of(tlb, hash);
        uint64_t ways = vi_zero_bytes(VI_GET(tlb->hints[set].ways) ^ vi_hint(hash) * VI_EACH_BYTE);
        for (; ways; ways &= ways - 1)
            if (vi_copy(&tlb->set[set][__builtin_ctzll(ways) / 8], leaf) && leaf->base == key &&
                !((leaf->tag ^ tag) >> 32))
                return true;
    }
    return false;
}

enum vi_found vi_lane_find_slowly(const struct vi_lane *lane, uint32_t sizes, uint64_t address, struct vi_leaf *leaf)
{
    if (!vi_tlb_find(lane->tlb, lane->tag | sizes, address, leaf))
        return VI_MISS;
    return (leaf->tag & lane->tested) == lane->need ? VI_HIT : VI_THINK;
}

void vi_tlb_each(struct vi_core *core, struct vi_tlb *tlb,
                 void (*visit)(void *to, const struct vi_space *space, const struct vi_leaf *leaf), void *to)
{
    for (uint32_t at = 0; at <= tlb->last_set; at++)
        for (unsigned way = 0; way < VI_WAYS; way++) {
            struct vi_leaf leaf;
            struct vi_space *space;
            if (vi_copy(&tlb->set[at][way], &leaf) && (space = space_of(core, &leaf)))
                visit(to, space, &leaf);
        }
}

/* ---- spaces ----------------------------------------------------------------------------------------------------- */

static struct vi_tlb *tlb_of(struct vi_core *core, int world)
{
    return world == VI_WORLD_STAGE2 ? core->tlb2 : core->tlb1;
}

static uint32_t head_of(const struct vi_spaces *spaces, uint8_t world, uint16_t vmid, int32_t asid, uint8_t aset)
{
    uint64_t key = (uint64_t)world << 60 | (uint64_t)aset << 56 | (uint64_t)vmid << 32 | (uint32_t)asid;
    return (uint32_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (spaces->heads - 1);
}

/*
 * A tag that nothing has. Tags are given out of one half of all numbers, then of the other; when a half begins, those of
 * the other have 2^31 tags' time to go, which whoever enters or invalidates next sees to.
 */
static uint32_t new_tag(struct vi_core *core)
{
    struct vi_spaces *spaces = core->spaces;
    uint32_t tag = spaces->next_tag++;
    if (VI_UNLIKELY(!(spaces->next_tag & (VI_OTHER_HALF - 1)))) {
        spaces->next_tag |= !spaces->next_tag; /* 0 is no tag */
        spaces->worn = true;
        atomic_store(&core->crowded, true);
    }
    return tag;
}

/* Whether a tag is of the half of which none is given out any more. */
static bool is_worn(const struct vi_spaces *spaces, uint32_t tag) { return (tag ^ spaces->next_tag) & VI_OTHER_HALF; }

bool vi_replace_tags(struct vi_core *core)
{
    struct vi_spaces *spaces = core->spaces;
    pthread_mutex_lock(&spaces->lock);
    bool worn = spaces->worn;
    for (uint32_t at = 0; worn && at < spaces->made; at++) {
        struct vi_space *space = &spaces->pool[at];
        if (!is_worn(spaces, (uint32_t)(VI_GET(space->state) >> 32)) || !VI_GET(space->state))
            continue;
        struct vi_tlb *tlb = tlb_of(core, space->world);
        VI_PUT(tlb->evictions, VI_GET(tlb->evictions) + VI_GET(space->entries));
        VI_PUT(space->entries, 0);
        atomic_store(&space->state, (uint64_t)new_tag(core) << 32);
    }
    spaces->worn = false;
    pthread_mutex_unlock(&spaces->lock);
    return worn;
}

static void forget_worn(struct vi_spaces *spaces, struct vi_tlb *tlb)
{
    for (uint32_t at = 0; at <= tlb->last_set; at++)
        for (unsigned way = 0; way < VI_WAYS; way++)
            if (is_worn(spaces, (uint32_t)(VI_GET(tlb->set[at][way].tag) >> 32)))
                forget(tlb, at, way);
}

void vi_forget_tags(struct vi_core *core)
{
    pthread_mutex_lock(&core->spaces->lock);
    forget_worn(core->spaces, core->tlb1);
    forget_worn(core->spaces, core->tlb2);
    pthread_mutex_unlock(&core->spaces->lock);
}

/* Drop all entries of a space. An empty one gets a new tag too: somebody inside may have walked for it already. */
static void empty(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space)
{
    VI_PUT(tlb->invalidated, VI_GET(tlb->invalidated) + VI_GET(space->entries));
    VI_PUT(space->entries, 0);
    atomic_store(&space->state, (uint64_t)new_tag(core) << 32);
}

static void mark_used(void *to, const struct vi_space *space, const struct vi_leaf *leaf)
{
    ((uint8_t *)to)[leaf->space / sizeof *space] = 1;
}

static void unlink_space(struct vi_spaces *spaces, struct vi_space *space)
{
    struct vi_space **at = &spaces->head[head_of(spaces, space->world, space->vmid, space->asid, space->aset)];
    while (*at != space)
        at = &(*at)->next;
    *at = space->next;
    at = &spaces->of_vmid[space->vmid % VI_VMID_HEADS];
    while (*at != space)
        at = &(*at)->next_of_vmid;
    *at = space->next_of_vmid;
}

/* Free the spaces that no context and no entry is in. */
static void collect(struct vi_core *core)
{
    struct vi_spaces *spaces = core->spaces;
    uint8_t *used = calloc(spaces->limit, 1);
    if (!used)
        return;
    vi_tlb_each(core, core->tlb1, mark_used, used);
    vi_tlb_each(core, core->tlb2, mark_used, used);
    for (uint32_t at = 0; at < spaces->made; at++) {
        struct vi_space *space = &spaces->pool[at];
        if (used[at] || space->contexts || !VI_GET(space->state))
            continue;
        unlink_space(spaces, space);
        VI_PUT(space->state, 0);
        space->next = spaces->free;
        spaces->free = space;
    }
    free(used);
}

static struct vi_space *known(struct vi_spaces *spaces, int world, int32_t vmid, int32_t asid, uint8_t aset)
{
    struct vi_space *space = spaces->head[head_of(spaces, (uint8_t)world, (uint16_t)vmid, asid, aset)];
    while (space && !(space->world == world && space->vmid == vmid && space->asid == asid && space->aset == aset))
        space = space->next;
    return space;
}

static struct vi_space *made(struct vi_core *core, uint8_t world, uint16_t vmid, int32_t asid, uint8_t aset)
{
    struct vi_spaces *spaces = core->spaces;
    if (!spaces->free && spaces->made == spaces->limit)
        collect(core);
    struct vi_space *space = spaces->free;
    if (space)
        spaces->free = space->next;
    else if (spaces->made < spaces->limit)
        space = &spaces->pool[spaces->made++];
    else
        return NULL;
    space->world = world;
    space->vmid = vmid;
    space->asid = asid;
    space->aset = aset;
    space->contexts = 0;
    VI_PUT(space->entries, 0);
    atomic_store(&space->state, (uint64_t)new_tag(core) << 32);
    struct vi_space **head = &spaces->head[head_of(spaces, world, vmid, asid, aset)];
    space->next = *head;
    *head = space;
    head = &spaces->of_vmid[vmid % VI_VMID_HEADS];
    space->next_of_vmid = *head;
    *head = space;
    return space;
}

struct vi_space *vi_space_get(struct vi_core *core, uint8_t world, uint16_t vmid, int32_t asid, uint8_t aset)
{
    pthread_mutex_lock(&core->spaces->lock);
    struct vi_space *space = known(core->spaces, world, vmid, asid, aset);
    if (!space)
        space = made(core, world, vmid, asid, aset);
    if (space)
        space->contexts++;
    pthread_mutex_unlock(&core->spaces->lock);
    return space;
}

void vi_space_put(struct vi_core *core, struct vi_space *space)
{
    if (!space)
        return;
    pthread_mutex_lock(&core->spaces->lock);
    space->contexts--;
    pthread_mutex_unlock(&core->spaces->lock);
}

/* ---- invalidation ----------------------------------------------------------------------------------------------- */

/* The spaces of a world and VMID, one after the other: begin with *at NULL. */
static struct vi_space *next_space(struct vi_spaces *spaces, struct vi_space *at, uint32_t *index, int world,
                                   int32_t vmid, uint16_t mask)
{
    if (vmid != VI_ANY && mask == 0xFFFF) {
        for (at = at ? at->next_of_vmid : spaces->of_vmid[vmid % VI_VMID_HEADS]; at; at = at->next_of_vmid)
            if (at->world == world && at->vmid == vmid)
                return at;
        return NULL;
    }
    for (; *index < spaces->made; ++*index) {
        at = &spaces->pool[*index];
        if (VI_GET(at->state) && at->world == world && (vmid == VI_ANY || !((at->vmid ^ vmid) & mask))) {
            ++*index;
            return at;
        }
    }
    return NULL;
}

void vi_ready_to_invalidate(struct vi_core *core)
{
    vi_make_room(core);
    if (core->spaces->pending_count == VI_MOST_PENDING)
        vi_quiesce(core);
}

void vi_invalidate_spaces(struct vi_core *core, int world, int32_t vmid, uint16_t vmid_mask, int32_t asid)
{
    struct vi_spaces *spaces = core->spaces;
    struct vi_tlb *tlb = tlb_of(core, world);
    struct vi_invalidation what = {world, 0, 0, vmid, asid, vmid_mask, 0, VI_ANY_LEVEL};
    struct vi_dropping dropping;
    vi_ready_to_invalidate(core);
    vi_drop_begin(core, &dropping);
    pthread_mutex_lock(&spaces->lock);
    uint64_t before = VI_GET(tlb->invalidated);
    if (asid != VI_ANY && vmid != VI_ANY && vmid_mask == 0xFFFF) {
        struct vi_space *space = known(spaces, world, vmid, asid, 0);
        if (space)
            empty(core, tlb, space);
    } else {
        uint32_t index = 0;
        for (struct vi_space *at = NULL; (at = next_space(spaces, at, &index, world, vmid, vmid_mask));)
            if (asid == VI_ANY || at->asid == asid)
                empty(core, tlb, at);
    }
    uint64_t after = VI_GET(tlb->invalidated);
    pthread_mutex_unlock(&spaces->lock);
    vi_drop_end(&dropping, VI_DROPPED_SPACES, &what, after - before);
}

/* The first and last page of 2^shift bytes that an invalidation overlaps. */
static void pages_of(const struct vi_invalidation *what, unsigned shift, uint64_t *first, uint64_t *last)
{
    uint64_t end = what->start + what->size - 1;
    *first = what->start >> shift;
    *last = (end < what->start ? UINT64_MAX : end) >> shift; /* not beyond the end of all addresses */
}

/* Drop the entry in this way, if it counts and is what is to go; of `only`, or (NULL) of any space that is named. */
static void drop(struct vi_core *core, struct vi_tlb *tlb, uint32_t set, unsigned way, const struct vi_space *only,
                 const struct vi_invalidation *what)
{
    struct vi_leaf leaf;
    struct vi_space *space;
    uint64_t first, last;
    if (!VI_GET(tlb->set[set][way].tag))
        return; /* free */
    if (!vi_copy(&tlb->set[set][way], &leaf)) {
        /* Two writers met. What a hit needs may be whole all the same, and nobody can say of which space it is. */
        forget(tlb, set, way);
        return;
    }
    if (!(space = space_of(core, &leaf)))
        return;
    if (only ? space != only
             : space->world != what->world ||
                   (what->vmid != VI_ANY && ((space->vmid ^ what->vmid) & what->vmid_mask)) ||
                   (what->asid != VI_ANY && space->asid != VI_GLOBAL && space->asid != what->asid))
        return;
    unsigned shift = vi_leaf_shift(&leaf);
    pages_of(what, shift, &first, &last);
    if (leaf.base >> shift < first || leaf.base >> shift > last ||
        (what->granule_bits && vi_leaf_granule(&leaf) != what->granule_bits) ||
        (what->level != VI_ANY_LEVEL && vi_leaf_level(&leaf) != what->level))
        return;
    if (VI_GET(space->entries))
        VI_PUT(space->entries, VI_GET(space->entries) - 1);
    forget(tlb, set, way);
    VI_COUNT(tlb->invalidated);
}

/* Whether a lookup of this page may take the entry, or who looks at its base would. */
static bool may_hit(const struct vi_entry *entry, uint64_t key)
{
    uint64_t tag = VI_GET(entry->tag), output = VI_GET(entry->output);
    return VI_GET(entry->base) == key || VI_GET(entry->check) == vi_check(key, tag, output);
}

/* Look where the pages would be, for at most *looks pages; false: looking everywhere is cheaper. */
static bool invalidate_in(struct vi_core *core, struct vi_tlb *tlb, struct vi_space *space,
                          const struct vi_invalidation *what, uint64_t *looks)
{
    uint64_t state = space ? atomic_load(&space->state) : 0, first, last;
    uint64_t tag = state & ~(uint64_t)UINT32_MAX;
    for (uint32_t sizes = (uint32_t)state; sizes; sizes &= sizes - 1) {
        unsigned shift = 12 + (unsigned)__builtin_ctz(sizes);
        pages_of(what, shift, &first, &last);
        if (last - first >= *looks)
            return false;
        *looks -= last - first + 1;
        for (uint64_t page = first; page <= last; page++) {
            uint64_t hash = hash_of(page << shift | shift, shift, tag);
            uint32_t set = vi_set_of(tlb, hash);
            for (unsigned way = 0; way < VI_WAYS; way++)
                if (may_hit(&tlb->set[set][way], page << shift | shift))
                    drop(core, tlb, set, way, space, what);
        }
    }
    return true;
}

static void invalidate_everywhere(struct vi_core *core, struct vi_tlb *tlb, const struct vi_invalidation *what)
{
    for (uint32_t at = 0; at <= tlb->last_set; at++)
        for (unsigned way = 0; way < VI_WAYS; way++)
            drop(core, tlb, at, way, NULL, what);
}

static void invalidate(struct vi_core *core, const struct vi_invalidation *what)
{
    struct vi_spaces *spaces = core->spaces;
    struct vi_tlb *tlb = tlb_of(core, what->world);
    uint64_t looks = 2 * ((uint64_t)tlb->last_set + 1);
    bool done = true;
    if (what->asid != VI_ANY && what->vmid != VI_ANY && what->vmid_mask == 0xFFFF) {
        done = invalidate_in(core, tlb, known(spaces, what->world, what->vmid, what->asid, 0), what, &looks);
        for (uint8_t aset = 0; done && aset < 2; aset++)
            done = invalidate_in(core, tlb, known(spaces, what->world, what->vmid, VI_GLOBAL, aset), what, &looks);
    } else {
        uint32_t index = 0;
        for (struct vi_space *at = NULL;
             done && (at = next_space(spaces, at, &index, what->world, what->vmid, what->vmid_mask));)
            if (what->asid == VI_ANY || at->asid == VI_GLOBAL || at->asid == what->asid)
                done = invalidate_in(core, tlb, at, what, &looks);
    }
    if (!done)
        invalidate_everywhere(core, tlb, what);
}

void vi_invalidate_range(struct vi_core *core, int world, uint64_t start, uint64_t size, int32_t vmid,
                         uint16_t vmid_mask, int32_t asid, uint8_t granule_bits, int8_t level)
{
    struct vi_spaces *spaces = core->spaces;
    struct vi_invalidation what = {world, start, size, vmid, asid, vmid_mask, granule_bits, level};
    struct vi_tlb *tlb = tlb_of(core, world);
    struct vi_dropping dropping;
    uint64_t before = vi_turns(core);
    vi_ready_to_invalidate(core);
    vi_drop_begin(core, &dropping);
    pthread_mutex_lock(&spaces->lock);
    uint64_t had = VI_GET(tlb->invalidated);
    invalidate(core, &what);
    uint64_t dropped = VI_GET(tlb->invalidated) - had;
    /*
     * Who is inside may have read a table before it was changed, or an entry before it was dropped, and put what it found
     * there after this. Nobody was inside if the turns are even and what they were.
     */
    uint64_t after = vi_turns(core);
    if (before != after || after & VI_SOMEBODY_INSIDE)
        spaces->pending[spaces->pending_count++] = what;
    pthread_mutex_unlock(&spaces->lock);
    vi_drop_end(&dropping, VI_DROPPED_RANGE, &what, dropped);
}

unsigned vi_pending(struct vi_core *core)
{
    pthread_mutex_lock(&core->spaces->lock);
    unsigned count = core->spaces->pending_count;
    pthread_mutex_unlock(&core->spaces->lock);
    return count;
}

void vi_invalidate_again(struct vi_core *core, unsigned upto)
{
    struct vi_spaces *spaces = core->spaces;
    pthread_mutex_lock(&spaces->lock);
    for (unsigned at = 0; at < upto; at++)
        invalidate(core, &spaces->pending[at]);
    spaces->pending_count -= upto;
    memmove(spaces->pending, spaces->pending + upto, spaces->pending_count * sizeof *spaces->pending);
    pthread_mutex_unlock(&spaces->lock);
}

void vi_invalidate_tlb(struct vi_core *core, int stage)
{
    struct vi_spaces *spaces = core->spaces;
    struct vi_tlb *tlb = stage == 1 ? core->tlb1 : core->tlb2;
    struct vi_invalidation what = {stage == 1 ? VI_ANY : VI_WORLD_STAGE2, 0, 0, VI_ANY, VI_ANY, 0, 0, VI_ANY_LEVEL};
    struct vi_dropping dropping;
    vi_ready_to_invalidate(core);
    vi_drop_begin(core, &dropping);
    pthread_mutex_lock(&spaces->lock);
    uint64_t before = VI_GET(tlb->invalidated);
    for (uint32_t at = 0; at < spaces->made; at++)
        if (VI_GET(spaces->pool[at].state) && tlb_of(core, spaces->pool[at].world) == tlb)
            empty(core, tlb, &spaces->pool[at]);
    uint64_t after = VI_GET(tlb->invalidated);
    pthread_mutex_unlock(&spaces->lock);
    vi_drop_end(&dropping, VI_DROPPED_ALL, &what, after - before);
}

/* ---- for callers outside of the core ------------------------------------------------------------------------------- */

void vi_hold_context(struct vi_core *core, const struct vi_context *context)
{
    struct vi_space *spaces[] = {context->own, context->global, context->s2_space};
    pthread_mutex_lock(&core->spaces->lock);
    for (unsigned at = 0; at < 3; at++)
        if (spaces[at])
            spaces[at]->contexts++;
    pthread_mutex_unlock(&core->spaces->lock);
}

bool vi_make_context(struct vi_core *core, struct vi_context *context)
{
    vi_quicken(context);
    context->own = context->global = context->s2_space = NULL;
    if (context->stage1) {
        context->own = vi_space_get(core, context->world, context->vmid, context->asid, 0);
        context->global = vi_space_get(core, context->world, context->vmid, VI_GLOBAL, context->aset);
    }
    if (context->stage2)
        context->s2_space = vi_space_get(core, VI_WORLD_STAGE2, context->vmid, VI_GLOBAL, 0);
    if ((!context->stage1 || (context->own && context->global)) && (!context->stage2 || context->s2_space))
        return true;
    vi_drop_context(core, context);
    return false;
}

void vi_drop_context(struct vi_core *core, const struct vi_context *context)
{
    vi_space_put(core, context->own);
    vi_space_put(core, context->global);
    vi_space_put(core, context->s2_space);
}

void vi_look_at_tlb(struct vi_core *core, int stage, struct vi_tlb_state *state)
{
    struct vi_tlb *tlb = stage == 1 ? core->tlb1 : core->tlb2;
    *state = (struct vi_tlb_state){VI_GET(tlb->evictions), VI_GET(tlb->invalidated), (tlb->last_set + 1) * VI_WAYS};
}

struct visitor {
    void *to;
    void (*visit)(void *to, int world, int vmid, int asid, int aset, const struct vi_mapping *mapping);
};

static void visit_entry(void *to, const struct vi_space *space, const struct vi_leaf *leaf)
{
    struct visitor *visitor = to;
    struct vi_mapping mapping;
    vi_unpack(leaf, &mapping);
    visitor->visit(visitor->to, space->world, space->vmid, space->asid == VI_GLOBAL ? VI_ANY : space->asid, space->aset,
                   &mapping);
}

void vi_visit_tlb(struct vi_core *core, int stage, void *to,
                  void (*visit)(void *to, int world, int vmid, int asid, int aset, const struct vi_mapping *mapping))
{
    struct visitor visitor = {to, visit};
    vi_tlb_each(core, stage == 1 ? core->tlb1 : core->tlb2, visit_entry, &visitor);
}

void vi_fill_tlb(struct vi_core *core, int stage, int world, int vmid, int asid, int aset,
                 const struct vi_mapping *mapping)
{
    struct vi_space *space =
        vi_space_get(core, (uint8_t)world, (uint16_t)vmid, asid == VI_ANY ? VI_GLOBAL : asid, (uint8_t)aset);
    if (!space)
        return;
    struct vi_leaf leaf = vi_pack(mapping);
    vi_tlb_replace(core, stage == 1 ? core->tlb1 : core->tlb2, space, VI_GET(space->state), &leaf);
    vi_space_put(core, space);
}

void vi_count(struct vi_core *core, uint64_t counts[VI_COUNTERS])
{
    memset(counts, 0, VI_COUNTERS * sizeof *counts);
    for (unsigned slot = 0; slot < VI_SLOTS; slot++)
        for (unsigned at = 0; at < VI_COUNTERS; at++)
            counts[at] += VI_GET(*vi_counter(&core->slots[slot], at));
}
