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

/* Fill in what follows from the rest of a context: the last step in making one. */
void vi_quicken(struct vi_context *context);

/* What is asked, after STE.PRIVCFG and INSTCFG (§13.1.2); a write is always data (dma.c). */
unsigned vi_overridden(const struct vi_context *context, unsigned access);

/* A context's way through the TLBs, for one kind of access. */
struct vi_course {
    struct vi_lane lane1, lane2;
    uint64_t beyond[2], above[2]; /* of each half: bits of an address, and what they must be */
    bool quick, stage2;           /* not quick: every address is for vi_place */
    bool no_global;               /* a miss of lane1 is a miss of the TLB */
};

void vi_course_begin(struct vi_course *course, const struct vi_reader *reader, const struct vi_context *context,
                     unsigned access);

VI_HOT void vi_course_refresh(struct vi_course *course, const struct vi_context *context)
{
    if (!course->quick)
        return;
    vi_lane_refresh(&course->lane1, atomic_load_explicit(&context->own->state, memory_order_acquire));
    course->no_global = !(uint32_t)atomic_load_explicit(&context->global->state, memory_order_acquire);
    if (course->stage2)
        vi_lane_refresh(&course->lane2, atomic_load_explicit(&context->s2_space->state, memory_order_acquire));
}

/* False: `fault` says why not. `access` has been through the STE's overrides; `missed`: stage 1's TLB does not have it. */
bool vi_place(struct vi_reader *reader, const struct vi_context *context, uint64_t address, unsigned access, bool missed,
              struct vi_place *place, struct vi_fault *fault);

/*
 * What vi_place does about a miss of stage 1 alone where each descriptor is what one expects and the access is simply
 * permitted. False: it is not so, and nothing has been done or counted.
 */
bool vi_walk_quickly(struct vi_reader *reader, struct vi_course *course, const struct vi_context *context,
                     uint64_t address, struct vi_place *place);

/* The same, quick where the TLBs have all. Of the leaves only the tags are there then, for vi_memory_of. */
VI_HOT bool vi_place_quickly(struct vi_reader *reader, struct vi_course *course, const struct vi_context *context,
                             uint64_t address, unsigned access, struct vi_place *place, struct vi_fault *fault)
{
    uint64_t output, size, size2;
    unsigned high = address >> 55 & 1;
    bool missed = false;
    if (VI_LIKELY(course->quick && (address & course->beyond[high]) == course->above[high])) {
        enum vi_found found = vi_lane_find(&course->lane1, address, &place->stage1.tag, &output, &size);
        if (VI_LIKELY(found == VI_HIT)) {
            if (!course->stage2) {
                VI_COUNT(reader->counters.tlb_hits);
                place->pa = output & reader->setup->output_mask;
                place->size = size;
                return true;
            }
            if (VI_LIKELY(!(output & context->s2.beyond) &&
                          vi_lane_find(&course->lane2, output, &place->stage2.tag, &output, &size2) == VI_HIT)) {
                VI_COUNT(reader->counters.tlb_hits);
                VI_COUNT(reader->counters.tlb2_hits);
                place->pa = output & reader->setup->output_mask;
                place->size = size < size2 ? size : size2;
                return true;
            }
        }
        missed = found == VI_MISS && course->no_global;
        if (VI_UNLIKELY(missed && !course->stage2 && vi_walk_quickly(reader, course, context, address, place)))
            return true;
    }
    bool done = vi_place(reader, context, address, access, missed, place, fault);
    vi_course_refresh(course, context); /* there are new entries, maybe of new sizes */
    return done;
}

/* The memory type with which an access leaves (§13.4). */
vi_memory_type vi_memory_of(const struct vi_context *context, const struct vi_place *place, vi_memory_type incoming);
/* What GBPA or an STE makes of a memory type (§13.1.4). */
vi_memory_type vi_override(vi_memory_type incoming, bool replace_type, unsigned memattr, unsigned shcfg);
/* Device and non-cacheable memory are outer shareable, whatever was said (§13.1.7). */
vi_memory_type vi_consistent(vi_memory_type memory);

#endif
