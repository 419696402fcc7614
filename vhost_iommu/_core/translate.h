/* SPDX-License-Identifier: Apache-2.0 */
/* One address through the stages of its context (translation.py), for those who need no more than where it goes. */
#ifndef VI_TRANSLATE_H
#define VI_TRANSLATE_H

#include "tlb.h"

/* Where an address goes: `size` bytes from it on go along. Leaves are there where the context has the stage. */
struct vi_place {
    uint64_t pa, size;
    struct vi_leaf stage1, stage2;
};

/* A leaf for callers outside of the core. */
void vi_unpack(const struct vi_leaf *leaf, struct vi_mapping *mapping);

/* False: `fault` says why not. `access` has been through the STE's overrides; `missed`: see VI_MISSED. */
bool vi_place(struct vi_reader *reader, const struct vi_context *context, uint64_t address, unsigned access, bool missed,
              struct vi_place *place, struct vi_fault *fault);

/*
 * What a request asks of a stage 1 alone, put so that an address which the TLB has takes few steps: it is of half n if
 * address & mask[n] is value[n], and permitted if attributes & care is want. All else takes vi_place.
 */
struct vi_quick {
    uint64_t mask[2], value[2];
    uint32_t care, want;
    const struct vi_space *own, *global;
    struct vi_set *sets; /* of the TLB */
    unsigned index_shift;
    uint64_t output_mask;
};

/* Of an access after the STE's overrides; a `quick` that no address fits where there is more to do. */
void vi_quick_of(const struct vi_reader *reader, const struct vi_context *context, unsigned access, struct vi_quick *quick);

enum vi_quickly {
    VI_QUICK,   /* `place` has all that counts of its leaf but descriptors; not counted yet */
    VI_MISSED,  /* the TLB of stage 1 does not have it: vi_place need not look again */
    VI_SLOWLY,  /* vi_place knows */
};

static inline enum vi_quickly vi_quick_place(const struct vi_quick *quick, uint64_t address, struct vi_place *place)
{
    unsigned high = address >> 55 & 1, shift;
    if (VI_UNLIKELY((address & quick->mask[high]) != quick->value[high]))
        return VI_SLOWLY;
    uint64_t tag, output;
    uint64_t own = atomic_load_explicit(&quick->own->state, memory_order_acquire);
    if (VI_UNLIKELY(!vi_tlb_look(quick->sets, quick->index_shift, own, address, &tag, &output, &shift))) {
        uint64_t global = atomic_load_explicit(&quick->global->state, memory_order_acquire);
        if (!vi_tlb_look(quick->sets, quick->index_shift, global, address, &tag, &output, &shift))
            return VI_MISSED;
    }
    if (VI_UNLIKELY((tag & quick->care) != quick->want))
        return VI_SLOWLY;
    uint64_t within = (UINT64_C(1) << shift) - 1;
    place->stage1.tag = tag;
    place->size = within + 1 - (address & within);
    place->pa = (output | (address & within)) & quick->output_mask;
    return VI_QUICK;
}

/* The memory type with which an access leaves (§13.4). */
vi_memory_type vi_memory_of(const struct vi_context *context, const struct vi_place *place, vi_memory_type incoming);
/* What GBPA or an STE makes of a memory type (§13.1.4). */
vi_memory_type vi_override(vi_memory_type incoming, bool replace_type, unsigned memattr, unsigned shcfg);
/* Device and non-cacheable memory are outer shareable, whatever was said (§13.1.7). */
vi_memory_type vi_consistent(vi_memory_type memory);

#endif
