/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From StreamID and SubstreamID to a translation context: stream table, STE, CD, and their caches (§3.3, §5).
 *
 * What was fetched stays cached, valid or not, until a CMD_CFGI names it or capacity evicts it; a context is an
 * immutable snapshot made of what is cached. The reference is smmu/v3/configuration.py.
 *
 * A cached context is found without a lock: sets of pointers, each read with acquire and stored with release. All else
 * is under one lock. CDs, L1CDs and contexts hang on the STE that they were found through and go with it, so that an
 * invalidation costs what it drops. Snapshots that are dropped are retired; no more than `most` of them exist, found or
 * retired. What is over this, or no more than the cause of a fault, is its reader's alone: a `private` context.
 *
 * Not modelled: as in the reference.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "translate.h"
#include "validity.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures are used as they lie in memory");

/* ---- lists ----------------------------------------------------------------------------------------------------- */

/* A ring with a head, of members of larger structures. */
struct link {
    struct link *next, *previous;
};

#define OWNER(link, type, member) ((type *)(void *)((char *)(link) - offsetof(type, member)))

static void empty_list(struct link *head) { head->next = head->previous = head; }
static bool is_empty(const struct link *head) { return head->next == head; }

static void append(struct link *head, struct link *link)
{
    link->next = head;
    link->previous = head->previous;
    head->previous->next = link;
    head->previous = link;
}

static void cut(struct link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
}

/* ---- what is cached -------------------------------------------------------------------------------------------- */

/*
 * L1STDs by index in the first level, STEs by StreamID, L1CDs and CDs by StreamID and index in their table, VMSs by
 * VMID: `sid` is the first of these, and `index` the second or 0.
 */
enum kind { L1STDS, STES, L1CDS, CDS, VMSS, KINDS };

/* One structure as it was fetched. */
struct entry {
    uint64_t words[8];
    uint32_t sid, index;
    uint8_t kind;
    struct entry *next; /* in its bucket, or of those that are free */
    struct link by_age;
    struct link of_stream;        /* L1CDs and CDs: in `found` of their STE */
    struct link found, snapshots; /* STEs: what was made of them, … */
    bool has_partids;             /* … and VMS.PARTID_MAP */
    uint64_t partids[8];
};

struct cache {
    struct entry **bucket;
    struct entry *pool, *free;
    struct link by_age; /* the oldest first */
    uint32_t count;
    unsigned hash_shift;
};

/* A context that every reader finds. */
struct snapshot {
    _Alignas(64) struct vi_context context;
    _Atomic(struct snapshot *) *way; /* where they find it */
    uint64_t age;
    struct link by_age, of_stream;
    struct snapshot *next; /* of those that were dropped together */
};

#define WAYS 8

struct set {
    _Alignas(64) _Atomic(struct snapshot *) way[WAYS];
};

/* A context of one reader, and whatever else must live until it exits. */
struct private {
    struct vi_context context;
    struct private *next;
};

/* Of one slot of readers: contexts in use in its request number `turn`, and ones to be used. */
struct privates {
    uint32_t turn;
    struct private *used, *ready;
};

struct vi_configuration {
    struct set *sets;
    unsigned hash_shift;
    uint32_t capacity; /* of each cache */

    pthread_mutex_t lock; /* guards all below, and stores to the sets */
    struct cache caches[KINDS];
    struct link by_age;                 /* snapshots that are found, the oldest first */
    uint32_t snapshots, existing, most; /* those that are found; those that exist, and how many may */
    uint64_t ages;
    struct snapshot *dropped; /* to be retired before the lock's holder returns */
    struct privates privates[VI_SLOTS];
};

static inline uint64_t hash_of(uint32_t sid, uint32_t index, unsigned shift)
{
    return (((uint64_t)sid << 32 | index) * UINT64_C(0x9E3779B97F4A7C15)) >> shift;
}

/* The shift for `hash_of` to give numbers below `count`, rounded up to a power of two that is at least 2. */
static unsigned shift_for(uint64_t count)
{
    unsigned bits = 1;
    while (UINT64_C(1) << bits < count)
        bits++;
    return 64 - bits;
}

/* ---- making and freeing the whole ------------------------------------------------------------------------------- */

static bool make_cache(struct cache *cache, uint32_t capacity)
{
    cache->hash_shift = shift_for(capacity);
    cache->bucket = calloc(UINT64_C(1) << (64 - cache->hash_shift), sizeof *cache->bucket);
    cache->pool = calloc(capacity, sizeof *cache->pool);
    empty_list(&cache->by_age);
    return cache->bucket && cache->pool;
}

static void release_spaces(struct vi_core *core, struct vi_context *context)
{
    struct vi_space *spaces[] = {context->own, context->global, context->s2_space};
    for (int at = 0; at < 3; at++)
        if (spaces[at])
            vi_space_put(core, spaces[at]);
    context->own = context->global = context->s2_space = NULL;
}

struct vi_configuration *vi_configuration_new(struct vi_core *core, uint32_t contexts)
{
    struct vi_configuration *in = calloc(1, sizeof *in);
    if (!in)
        return NULL;
    pthread_mutex_init(&in->lock, NULL);
    empty_list(&in->by_age);
    in->capacity = contexts ? contexts : 1;
    in->most = in->capacity + in->capacity / 2 + 1; /* tlb.c has spaces for more than these */
    /* Sets are half full at most, so that capacity decides more often than a set does. */
    in->hash_shift = shift_for(UINT64_C(2) * in->capacity / WAYS);
    size_t size = sizeof(struct set) << (64 - in->hash_shift);
    in->sets = aligned_alloc(_Alignof(struct set), size);
    bool made = in->sets;
    if (made)
        memset(in->sets, 0, size);
    for (int kind = 0; kind < KINDS; kind++)
        made &= make_cache(&in->caches[kind], in->capacity);
    if (made)
        return in;
    vi_configuration_free(core, in);
    return NULL;
}

static void free_privates(struct vi_core *core, struct private *list)
{
    while (list) {
        struct private *next = list->next;
        release_spaces(core, &list->context);
        free(list);
        list = next;
    }
}

void vi_configuration_free(struct vi_core *core, struct vi_configuration *in)
{
    while (!is_empty(&in->by_age)) {
        struct snapshot *snapshot = OWNER(in->by_age.next, struct snapshot, by_age);
        cut(&snapshot->by_age);
        release_spaces(core, &snapshot->context);
        free(snapshot);
    }
    for (int slot = 0; slot < VI_SLOTS; slot++) {
        free_privates(core, in->privates[slot].used);
        free_privates(core, in->privates[slot].ready);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        free(in->caches[kind].bucket);
        free(in->caches[kind].pool);
    }
    free(in->sets);
    pthread_mutex_destroy(&in->lock);
    free(in);
    core->configuration = NULL; /* what is retired may be released after this */
}

/* ---- dropping ---------------------------------------------------------------------------------------------------- */

/* Snapshots that no reader uses any more. */
static void release_snapshots(struct vi_core *core, void *what)
{
    struct vi_configuration *in = core->configuration;
    uint32_t count = 0;
    for (struct snapshot *next, *snapshot = what; snapshot; snapshot = next, count++) {
        next = snapshot->next;
        release_spaces(core, &snapshot->context);
        free(snapshot);
    }
    if (!in)
        return;
    pthread_mutex_lock(&in->lock);
    in->existing -= count;
    pthread_mutex_unlock(&in->lock);
}

static void enter(struct vi_configuration *in) { pthread_mutex_lock(&in->lock); }

static void leave(struct vi_core *core, struct vi_configuration *in)
{
    struct snapshot *dropped = in->dropped;
    in->dropped = NULL;
    pthread_mutex_unlock(&in->lock);
    if (dropped)
        vi_retire(core, dropped, release_snapshots);
}

static void drop_snapshot(struct vi_configuration *in, struct snapshot *snapshot)
{
    atomic_store_explicit(snapshot->way, NULL, memory_order_release);
    cut(&snapshot->by_age);
    cut(&snapshot->of_stream);
    in->snapshots--;
    snapshot->next = in->dropped;
    in->dropped = snapshot;
}

static void drop_snapshots(struct vi_configuration *in, struct entry *stream)
{
    while (!is_empty(&stream->snapshots))
        drop_snapshot(in, OWNER(stream->snapshots.next, struct snapshot, of_stream));
}

static void drop_entry(struct vi_configuration *in, struct entry *entry);

/* All CDs, L1CDs and contexts of a stream. */
static void drop_found(struct vi_configuration *in, struct entry *stream)
{
    while (!is_empty(&stream->found))
        drop_entry(in, OWNER(stream->found.next, struct entry, of_stream));
    drop_snapshots(in, stream);
}

static void drop_entry(struct vi_configuration *in, struct entry *entry)
{
    struct cache *cache = &in->caches[entry->kind];
    struct entry **at = &cache->bucket[hash_of(entry->sid, entry->index, cache->hash_shift)];
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    cut(&entry->by_age);
    if (entry->kind == STES)
        drop_found(in, entry);
    else if (entry->kind == L1CDS || entry->kind == CDS)
        cut(&entry->of_stream);
    entry->next = cache->free;
    cache->free = entry;
    cache->count--;
}

/* ---- finding and keeping ----------------------------------------------------------------------------------------- */

static struct entry *find(const struct vi_configuration *in, enum kind kind, uint32_t sid, uint32_t index)
{
    const struct cache *cache = &in->caches[kind];
    struct entry *entry = cache->bucket[hash_of(sid, index, cache->hash_shift)];
    while (entry && !(entry->sid == sid && entry->index == index))
        entry = entry->next;
    return entry;
}

static struct entry *take_entry(struct vi_configuration *in, struct cache *cache)
{
    if (cache->count == in->capacity)
        drop_entry(in, OWNER(cache->by_age.next, struct entry, by_age));
    struct entry *entry = cache->free;
    if (!entry)
        return &cache->pool[cache->count++]; /* none was ever freed, so all before it are in use */
    cache->free = entry->next;
    cache->count++;
    return entry;
}

/* Cache what was fetched, which is returned; `stream` is the STE that led to it, if one did. */
static struct entry *keep(struct vi_configuration *in, enum kind kind, uint32_t sid, uint32_t index,
                          struct entry *stream, const uint64_t words[8])
{
    struct cache *cache = &in->caches[kind];
    struct entry *entry = take_entry(in, cache);
    struct entry **bucket = &cache->bucket[hash_of(sid, index, cache->hash_shift)];
    *entry = (struct entry){.sid = sid, .index = index, .kind = kind, .next = *bucket};
    memcpy(entry->words, words, sizeof entry->words);
    *bucket = entry;
    append(&cache->by_age, &entry->by_age);
    if (stream)
        append(&stream->found, &entry->of_stream);
    empty_list(&entry->found);
    empty_list(&entry->snapshots);
    return entry;
}

static inline struct snapshot *find_snapshot(const struct vi_configuration *in, uint32_t sid, uint32_t ssid)
{
    const struct set *set = &in->sets[hash_of(sid, ssid, in->hash_shift)];
    for (unsigned way = 0; way < WAYS; way++) {
        struct snapshot *found = atomic_load_explicit(&set->way[way], memory_order_acquire);
        if (found && found->context.sid == sid && found->context.ssid == ssid)
            return found;
    }
    return NULL;
}

/* A free way for a context: of a full set the oldest one's. */
static _Atomic(struct snapshot *) *free_way(struct vi_configuration *in, uint32_t sid, uint32_t ssid)
{
    struct set *set = &in->sets[hash_of(sid, ssid, in->hash_shift)];
    struct snapshot *oldest = NULL;
    for (unsigned way = 0; way < WAYS; way++) {
        struct snapshot *there = VI_GET(set->way[way]);
        if (!there)
            return &set->way[way];
        if (!oldest || there->age < oldest->age)
            oldest = there;
    }
    _Atomic(struct snapshot *) *way = oldest->way;
    drop_snapshot(in, oldest);
    return way;
}

/* ---- one search -------------------------------------------------------------------------------------------------- */

/* A lookup under way, with the lock held. */
struct search {
    struct vi_reader *reader;
    const struct vi_setup *setup;
    struct vi_configuration *in;
    uint32_t sid, ssid;
    struct vi_lookup *found; /* refused without an event until something else is known */
};

static void refuse(struct search *s, enum EventType event)
{
    s->found->event = (uint8_t)event;
    /* The one without a SubstreamID in its record. */
    if (s->ssid == VI_NO_SSID || event == VI_EventType_F_STREAM_DISABLED)
        return;
    s->found->names_ssid = true;
    s->found->ssid = s->ssid;
}

static void refuse_ssid(struct search *s, uint32_t ssid)
{
    refuse(s, VI_EventType_C_BAD_SUBSTREAMID);
    s->found->names_ssid = true;
    s->found->ssid = ssid;
}

/* An external abort at `pa`, or beyond the OAS, whose bits are RES0 in the record (§7.3.4). */
static void refuse_fetch(struct search *s, enum EventType event, uint64_t pa)
{
    refuse(s, event);
    s->found->fetch = pa & s->setup->output_mask;
}

/* `value` with its low `bits` zero; a negative number of bits is none. */
static uint64_t aligned(uint64_t value, int bits)
{
    if (bits >= 64)
        return 0;
    return bits > 0 ? value >> bits << bits : value;
}

/* Read a structure by its physical address; false: nothing is there. */
static bool read_structure(struct search *s, uint64_t pa, uint64_t words[8], uint32_t size)
{
    return !(pa >> s->setup->output_bits) && vi_read(s->reader, pa, words, size);
}

/* ---- stream table (§3.3.1) --------------------------------------------------------------------------------------- */

static unsigned split_of(const struct vi_setup *setup)
{
    unsigned split = (unsigned)STRTAB_BASE_CFG_SPLIT(setup->parameters.strtab_base_cfg);
    return split == 8 || split == 10 ? split : 6;
}

/* The L1STD of the stream; NULL: refused. */
static const struct entry *find_l1std(struct search *s, uint64_t base, unsigned split)
{
    uint32_t index = s->sid >> split;
    const struct entry *entry = find(s->in, L1STDS, index, 0);
    if (entry)
        return entry;
    uint64_t words[8] = {0}, at = base + (uint64_t)index * VI_L1STD_SIZE;
    if (read_structure(s, at, words, VI_L1STD_SIZE))
        return keep(s->in, L1STDS, index, 0, NULL, words);
    refuse_fetch(s, VI_EventType_F_STE_FETCH, at);
    return NULL;
}

/* Where the STE is in a two-level table; false: refused. */
static bool locate_in_leaf(struct search *s, uint64_t base, uint64_t *at)
{
    unsigned split = split_of(s->setup);
    int table_bits = (int)STRTAB_BASE_CFG_LOG2SIZE(s->setup->parameters.strtab_base_cfg) - (int)split + 3;
    const struct entry *l1std = find_l1std(s, aligned(base, table_bits < 6 ? 6 : table_bits), split);
    if (!l1std)
        return false;
    unsigned span = (unsigned)L1STD_Span(l1std->words[0]), most = split + 1; /* SPLIT is 10 at most, so Span 11 */
    uint32_t low = s->sid & ((UINT32_C(1) << split) - 1);
    if (span < 1 || span > most || low >> (span - 1)) {
        refuse(s, VI_EventType_C_BAD_STREAMID);
        return false;
    }
    *at = aligned(L1STD_L2Ptr(l1std->words[0]), 6 + (int)span - 1) + (uint64_t)low * VI_STE_SIZE;
    return true;
}

/* Where the STE is; false: refused. */
static bool locate_ste(struct search *s, uint64_t *at)
{
    const struct vi_parameters *parameters = &s->setup->parameters;
    uint64_t log2size = STRTAB_BASE_CFG_LOG2SIZE(parameters->strtab_base_cfg);
    uint64_t sidsize = IDR1_SIDSIZE(parameters->idr1);
    if ((uint64_t)s->sid >> (log2size < sidsize ? log2size : sidsize)) {
        refuse(s, VI_EventType_C_BAD_STREAMID);
        return false;
    }
    uint64_t base = STRTAB_BASE_ADDR(parameters->strtab_base) & s->setup->output_mask;
    if (STRTAB_BASE_CFG_FMT(parameters->strtab_base_cfg) == VI_StreamTableFormat_TWO_LEVEL)
        return locate_in_leaf(s, base, at);
    *at = aligned(base, (int)log2size + 6) + (uint64_t)s->sid * VI_STE_SIZE;
    return true;
}

/* The STE of the stream, valid or not; NULL: refused. */
static struct entry *find_ste(struct search *s)
{
    struct entry *entry = find(s->in, STES, s->sid, 0);
    uint64_t words[8], at;
    if (entry || !locate_ste(s, &at))
        return entry;
    if (read_structure(s, at, words, VI_STE_SIZE))
        return keep(s->in, STES, s->sid, 0, NULL, words);
    refuse_fetch(s, VI_EventType_F_STE_FETCH, at);
    return NULL;
}

static struct entry *find_legal_ste(struct search *s)
{
    struct entry *stream = find_ste(s);
    if (stream && vi_ste_illegal(s->setup, stream->words)) {
        refuse(s, VI_EventType_C_BAD_STE);
        return NULL;
    }
    return stream;
}

/* ---- CD tables (§3.3.2) ------------------------------------------------------------------------------------------ */

/* log2 of the CDs in a leaf of a two-level table; 0: it is linear. */
static unsigned cd_leaf_bits(const uint64_t *ste)
{
    switch (STE_S1Fmt(ste)) {
    case VI_S1Fmt_TWO_LEVEL_4K:
        return 6;
    case VI_S1Fmt_TWO_LEVEL_64K:
        return 10;
    default:
        return 0;
    }
}

/* Read of a CD table, through stage 2 where there is one; false: refused, or a fault. */
static bool read_cd_table(struct search *s, const struct vi_context *context, uint64_t at, uint64_t words[8],
                          uint32_t size)
{
    uint64_t pa = at;
    int done = -1;
    if (context->stage2)
        done = vi_read_ipa(s->reader, context, at, words, size, &pa, &s->found->fault);
    else if (read_structure(s, at, words, size))
        done = 1;
    if (done < 0)
        refuse_fetch(s, VI_EventType_F_CD_FETCH, pa);
    else if (!done)
        s->found->status = VI_CD_FAULT;
    return done > 0;
}

/* The L1CD that leads to CD `index`; NULL: refused, or a fault. */
static const struct entry *find_l1cd(struct search *s, struct entry *stream, const struct vi_context *context,
                                     uint32_t index, unsigned cd_bits)
{
    unsigned leaf_bits = cd_leaf_bits(stream->words);
    uint32_t first = index >> leaf_bits;
    const struct entry *entry = find(s->in, L1CDS, s->sid, first);
    if (!entry) {
        uint64_t words[8] = {0};
        uint64_t table = aligned(STE_S1ContextPtr(stream->words), (int)cd_bits - (int)leaf_bits + 3);
        if (!read_cd_table(s, context, table + (uint64_t)first * VI_L1CD_SIZE, words, VI_L1CD_SIZE))
            return NULL;
        entry = keep(s->in, L1CDS, s->sid, first, stream, words);
    }
    uint64_t l1cd = entry->words[0];
    /* Beyond the input of stage 2 an address faults there (§3.4.3). */
    if (L1CD_V(l1cd) && (context->stage2 || !(L1CD_L2Ptr(l1cd) >> s->setup->output_bits)))
        return entry;
    refuse_ssid(s, index);
    return NULL;
}

/* CD `index` of the stream's 2^cd_bits, valid or not; NULL: refused, or a fault. */
static const struct entry *find_cd(struct search *s, struct entry *stream, const struct vi_context *context,
                                   uint32_t index, unsigned cd_bits)
{
    const struct entry *entry = find(s->in, CDS, s->sid, index);
    if (entry)
        return entry;
    unsigned leaf_bits = cd_leaf_bits(stream->words);
    /* Tables are aligned to their size, leaves to theirs; low bits of a pointer that say otherwise do not count. */
    uint64_t words[8], at = aligned(STE_S1ContextPtr(stream->words), (int)cd_bits + 6) + (uint64_t)index * VI_CD_SIZE;
    if (cd_bits && leaf_bits) {
        const struct entry *l1cd = find_l1cd(s, stream, context, index, cd_bits);
        if (!l1cd)
            return NULL;
        uint32_t low = index & ((UINT32_C(1) << leaf_bits) - 1);
        at = aligned(L1CD_L2Ptr(l1cd->words[0]), (int)leaf_bits + 6) + (uint64_t)low * VI_CD_SIZE;
    }
    if (!read_cd_table(s, context, at, words, VI_CD_SIZE))
        return NULL;
    return keep(s->in, CDS, s->sid, index, stream, words);
}

/* ---- MPAM (§5.6, chapter 17) ------------------------------------------------------------------------------------- */

/*
 * VMS.PARTID_MAP of the stream, which is all that is read of a VMS; NULL: refused. It is cached twice, by stream and by
 * VMID: §5.6.2 lets both be stale, so that software must name both.
 */
static const uint64_t *find_partid_map(struct search *s, struct entry *stream, uint16_t vmid)
{
    if (stream->has_partids)
        return stream->partids;
    const struct entry *vms = find(s->in, VMSS, vmid, 0);
    if (!vms) {
        uint64_t words[8], at = STE_VMSPtr(stream->words);
        if (!vi_read(s->reader, at, words, sizeof words)) {
            refuse_fetch(s, VI_EventType_F_VMS_FETCH, at);
            return NULL;
        }
        vms = keep(s->in, VMSS, vmid, 0, NULL, words);
    }
    memcpy(stream->partids, vms->words, sizeof stream->partids);
    stream->has_partids = true;
    return stream->partids;
}

/* The identifiers of what stage 1 translates, where the CD has them; false: refused. */
static bool set_cd_mpam(struct search *s, struct entry *stream, const uint64_t *cd, struct vi_context *context)
{
    uint64_t partid = CD_PARTID(cd);
    if (!STE_S1MPAM(stream->words))
        return true;
    if (vi_vms_enabled(s->setup, stream->words)) {
        const uint64_t *map = find_partid_map(s, stream, context->vmid);
        if (!map)
            return false;
        /* 32 of them, four in a word; upper bits of a virtual one are RES0. */
        partid = map[partid % 32 / 4] >> (partid % 4 * 16) & 0xFFFF;
    }
    vi_set_mpam(s->setup, partid, CD_PMG(cd), context);
    return true;
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

/* The context without stage 1, in `context`; false: no memory for its spaces. */
static bool make_bare(struct search *s, const uint64_t *ste, struct vi_context *context)
{
    *context = (struct vi_context){.sid = s->sid, .ssid = s->ssid};
    vi_set_ste(s->setup, ste, context);
    if (context->stage2)
        context->s2_space = vi_space_get(s->reader->core, VI_WORLD_STAGE2, context->vmid, VI_GLOBAL, 0);
    vi_quicken(s->reader, context);
    return !context->stage2 || context->s2_space;
}

/* Add stage 1 as `cd` has it; false: refused. */
static bool add_stage1(struct search *s, struct entry *stream, const uint64_t *cd, struct vi_context *context)
{
    struct vi_core *core = s->reader->core;
    if (vi_cd_illegal(s->setup, stream->words, cd)) {
        refuse(s, VI_EventType_C_BAD_CD);
        return false;
    }
    /* The VMS comes last, once it is known which PARTID is wanted of it (§7.3.22 leaves its place open). */
    if (!set_cd_mpam(s, stream, cd, context))
        return false;
    vi_set_cd(s->setup, cd, context);
    vi_quicken(s->reader, context);
    context->own = vi_space_get(core, context->world, context->vmid, context->asid, 0);
    context->global = vi_space_get(core, context->world, context->vmid, VI_GLOBAL, context->aset);
    return context->own && context->global;
}

/* ---- publishing -------------------------------------------------------------------------------------------------- */

/* A context of this reader alone, to be made; NULL: no memory. It stays free unless `use_private` says otherwise. */
static struct private *free_private(struct search *s)
{
    struct vi_core *core = s->reader->core;
    struct privates *mine = &s->in->privates[s->reader - core->slots];
    uint32_t turn = VI_GET(s->reader->turn);
    while (mine->turn != turn && mine->used) {
        /* Whoever used these has exited. */
        struct private *old = mine->used;
        release_spaces(core, &old->context);
        mine->used = old->next;
        old->next = NULL;
        if (mine->ready)
            free(old);
        else
            mine->ready = old;
    }
    mine->turn = turn;
    if (!mine->ready)
        mine->ready = calloc(1, sizeof *mine->ready);
    return mine->ready;
}

/* Keep the one that free_private gave until the reader exits. */
static const struct vi_context *use_private(struct search *s)
{
    struct privates *mine = &s->in->privates[s->reader - s->reader->core->slots];
    struct private *private = mine->ready;
    mine->ready = private->next;
    private->next = mine->used;
    mine->used = private;
    return &private->context;
}

/* Let every reader find the context that is made in `private`, unless so many exist already that only this one may. */
static const struct vi_context *publish(struct search *s, struct entry *stream, struct private *private)
{
    struct vi_configuration *in = s->in;
    struct snapshot *snapshot = NULL;
    if (in->existing < in->most)
        snapshot = aligned_alloc(_Alignof(struct snapshot), sizeof *snapshot);
    if (!snapshot) {
        atomic_store(&s->reader->core->crowded, true); /* without CMD_SYNCs nothing else frees what is retired */
        return use_private(s);
    }
    in->existing++;
    if (in->snapshots == in->capacity)
        drop_snapshot(in, OWNER(in->by_age.next, struct snapshot, by_age));
    in->snapshots++;
    snapshot->context = private->context;
    private->context.own = private->context.global = private->context.s2_space = NULL; /* the snapshot's now */
    snapshot->age = in->ages++;
    append(&in->by_age, &snapshot->by_age);
    append(&stream->snapshots, &snapshot->of_stream);
    snapshot->way = free_way(in, s->sid, s->ssid);
    atomic_store_explicit(snapshot->way, snapshot, memory_order_release);
    return &snapshot->context;
}

/* ---- lookup ------------------------------------------------------------------------------------------------------ */

/* What comes of the stream's STE and the SubstreamID: stage 1 or not, or refused (§7.3.22 gives the order). */
enum selected { SELECTED_BARE, SELECTED_CD, SELECTED_NONE };

static enum selected select_cd(struct search *s, const uint64_t *ste, unsigned cd_bits)
{
    bool has_ssid = s->ssid != VI_NO_SSID;
    if (has_ssid && (!cd_bits || s->ssid >> cd_bits)) {
        refuse_ssid(s, s->ssid);
        return SELECTED_NONE;
    }
    if (cd_bits) {
        uint64_t s1dss = STE_S1DSS(ste);
        if (!has_ssid && s1dss == VI_S1DSS_BYPASS)
            return SELECTED_BARE;
        /* The reserved value 3 terminates, too. */
        if ((!has_ssid && s1dss != VI_S1DSS_SSID0) || (s->ssid == 0 && s1dss == VI_S1DSS_SSID0)) {
            refuse(s, VI_EventType_F_STREAM_DISABLED);
            return SELECTED_NONE;
        }
    }
    return STE_Config(ste) & 1 ? SELECTED_CD : SELECTED_BARE;
}

/* Make the context in `context`, and its `status` what came of it. */
static void make_context(struct search *s, struct entry *stream, struct vi_context *context)
{
    const uint64_t *ste = stream->words;
    bool substreams = STE_Config(ste) & 1 && IDR1_SSIDSIZE(s->setup->parameters.idr1);
    unsigned cd_bits = substreams ? (unsigned)STE_S1CDMax(ste) : 0;
    enum selected selected = select_cd(s, ste, cd_bits);
    if (selected == SELECTED_NONE || !make_bare(s, ste, context))
        return;
    if (selected == SELECTED_CD) {
        const struct entry *cd = find_cd(s, stream, context, s->ssid == VI_NO_SSID ? 0 : s->ssid, cd_bits);
        if (!cd || !add_stage1(s, stream, cd->words, context))
            return;
    }
    s->found->status = VI_FOUND;
}

static void look_up(struct search *s)
{
    struct snapshot *snapshot = find_snapshot(s->in, s->sid, s->ssid);
    if (snapshot) {
        /* Another reader was faster. */
        s->found->status = VI_FOUND;
        s->found->context = &snapshot->context;
        return;
    }
    struct entry *stream = find_legal_ste(s);
    if (!stream || STE_Config(stream->words) < VI_STE_CONFIG_BYPASS)
        return;
    struct private *private = free_private(s);
    if (!private)
        return;
    make_context(s, stream, &private->context);
    if (s->found->status == VI_FOUND)
        s->found->context = publish(s, stream, private);
    else if (s->found->status == VI_CD_FAULT)
        s->found->context = use_private(s);
    else
        release_spaces(s->reader->core, &private->context);
}

static struct search begin(struct vi_reader *reader, uint32_t sid, uint32_t ssid, struct vi_lookup *found)
{
    *found = (struct vi_lookup){.status = VI_REFUSED};
    enter(reader->core->configuration);
    return (struct search){reader, reader->setup, reader->core->configuration, sid, ssid, found};
}

static void end(struct search *s) { leave(s->reader->core, s->in); }

static __attribute__((noinline)) void miss(struct vi_reader *reader, uint32_t sid, uint32_t ssid,
                                           struct vi_lookup *found)
{
    VI_COUNT(reader->counters.context_misses);
    struct search search = begin(reader, sid, ssid, found);
    look_up(&search);
    end(&search);
}

void vi_lookup(struct vi_reader *reader, uint32_t sid, uint32_t ssid, struct vi_lookup *found)
{
    const struct snapshot *snapshot = find_snapshot(reader->core->configuration, sid, ssid);
    if (VI_UNLIKELY(!snapshot)) {
        miss(reader, sid, ssid, found);
        return;
    }
    VI_COUNT(reader->counters.context_hits);
    *found = (struct vi_lookup){.status = VI_FOUND, .context = &snapshot->context};
}

void vi_legal_ste(struct vi_reader *reader, uint32_t sid, uint32_t ssid, uint64_t ste[8], struct vi_lookup *found)
{
    struct search search = begin(reader, sid, ssid, found);
    const struct entry *stream = find_legal_ste(&search);
    if (stream) {
        memcpy(ste, stream->words, sizeof stream->words);
        found->status = VI_FOUND;
    }
    end(&search);
}

void vi_bare_context(struct vi_reader *reader, const uint64_t ste[8], struct vi_context *context)
{
    struct vi_lookup unused;
    struct search search = begin(reader, 0, VI_NO_SSID, &unused);
    /* The caller's is a copy of one that keeps the spaces. */
    struct private *private = free_private(&search);
    if (private && make_bare(&search, ste, &private->context))
        *context = *use_private(&search);
    else
        *context = (struct vi_context){.stage1 = true, .abort = true}; /* both halves are off: nothing translates */
    end(&search);
}

/* ---- invalidation (§4.3) ----------------------------------------------------------------------------------------- */

/* Drop the entries of `kind` with first <= sid <= last: one by one, or by a look at all if these are fewer. */
static void drop_range(struct vi_configuration *in, enum kind kind, uint32_t first, uint32_t last)
{
    struct cache *cache = &in->caches[kind];
    if (last - first < cache->count) {
        for (uint64_t sid = first; sid <= last; sid++) {
            struct entry *entry = find(in, kind, (uint32_t)sid, 0);
            if (entry)
                drop_entry(in, entry);
        }
        return;
    }
    for (struct link *next, *link = cache->by_age.next; link != &cache->by_age; link = next) {
        struct entry *entry = OWNER(link, struct entry, by_age);
        next = link->next;
        if (first <= entry->sid && entry->sid <= last)
            drop_entry(in, entry);
    }
}

void vi_invalidate_configuration(struct vi_core *core)
{
    struct vi_configuration *in = core->configuration;
    enter(in);
    drop_range(in, STES, 0, UINT32_MAX);
    drop_range(in, L1STDS, 0, UINT32_MAX);
    drop_range(in, VMSS, 0, UINT32_MAX);
    leave(core, in);
}

void vi_invalidate_stes(struct vi_core *core, uint32_t first, uint64_t count, bool leaf)
{
    struct vi_configuration *in = core->configuration;
    if (!count)
        return;
    uint32_t last = count - 1 > UINT32_MAX - first ? UINT32_MAX : first + (uint32_t)(count - 1);
    enter(in);
    drop_range(in, STES, first, last);
    if (!leaf) {
        unsigned split = split_of(atomic_load_explicit(&core->setup, memory_order_acquire));
        drop_range(in, L1STDS, first >> split, last >> split);
    }
    leave(core, in);
}

static void drop_if_found(struct vi_configuration *in, enum kind kind, uint32_t sid, uint32_t index)
{
    struct entry *entry = find(in, kind, sid, index);
    if (entry)
        drop_entry(in, entry);
}

static void drop_snapshot_if_found(struct vi_configuration *in, uint32_t sid, uint32_t ssid)
{
    struct snapshot *snapshot = find_snapshot(in, sid, ssid);
    if (snapshot)
        drop_snapshot(in, snapshot);
}

void vi_invalidate_cd(struct vi_core *core, uint32_t sid, uint32_t ssid, bool leaf)
{
    struct vi_configuration *in = core->configuration;
    enter(in);
    const struct entry *stream = find(in, STES, sid, 0);
    if (stream) { /* else there is nothing of it */
        unsigned leaf_bits = cd_leaf_bits(stream->words);
        drop_if_found(in, CDS, sid, ssid);
        if (!leaf && leaf_bits)
            drop_if_found(in, L1CDS, sid, ssid >> leaf_bits);
        drop_snapshot_if_found(in, sid, ssid);
        /* Without a SubstreamID the CD in use is that of index 0. */
        if (ssid == 0)
            drop_snapshot_if_found(in, sid, VI_NO_SSID);
    }
    leave(core, in);
}

void vi_invalidate_cds(struct vi_core *core, uint32_t sid)
{
    struct vi_configuration *in = core->configuration;
    enter(in);
    struct entry *stream = find(in, STES, sid, 0);
    if (stream)
        drop_found(in, stream);
    leave(core, in);
}

void vi_invalidate_partid_map(struct vi_core *core, uint16_t vmid)
{
    struct vi_configuration *in = core->configuration;
    enter(in);
    drop_if_found(in, VMSS, vmid, 0);
    leave(core, in);
}
