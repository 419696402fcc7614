/* SPDX-License-Identifier: Apache-2.0 */
/* One address through the stages of its context (stages.py), for those who need no more than where it goes. */
#ifndef VI_TRANSLATE_H
#define VI_TRANSLATE_H

#include "tlb.h"

/* Where an address goes: `size` bytes from it on go along. Leaves are there where the context has the stage. */
struct vi_place {
    uint64_t pa, size;
    struct vi_leaf stage1, stage2;
};

/* A leaf for callers outside of the core. */
struct vi_leaf vi_pack(const struct vi_mapping *mapping);
void vi_unpack(const struct vi_leaf *leaf, struct vi_mapping *mapping);

/* Fill in what follows from a context's other fields, of which none is a space. */
void vi_quicken(struct vi_context *context);

/* What is asked, after the context's overrides (§13.1.2); a write is always data (dma.c). */
unsigned vi_overridden(const struct vi_context *context, unsigned access);

VI_HOT void vi_course_begin(struct vi_course *course, const struct vi_reader *reader, const struct vi_context *context,
                            unsigned access)
{
    course->context = context;
    course->access = access;
    course->mask = reader->setup->output_mask;
    course->ahead.next = course->ahead.end = course->ahead.pa;
    if (!context->quick)
        return;
    vi_lane_begin(&course->lane1, reader, reader->core->tlb1, context->own, context->need[access],
                  context->forbid[access]);
    if (!context->stage2)
        return;
    vi_lane_begin(&course->lane2, reader, reader->core->tlb2, context->s2_space, context->s2_need[access], 0);
    vi_lane_begin(&course->reads, reader, reader->core->tlb2, context->s2_space, context->s2_need[VI_PRIVILEGED], 0);
}

/*
 * What the stages' rules say; false: `fault` says why not. `access` has been through the context's overrides; `missed`: stage
 * 1's TLB does not have it. Without a course (NULL) the leaves are whole, else their tags.
 */
bool vi_place(struct vi_reader *reader, struct vi_course *course, const struct vi_context *context, uint64_t address,
              unsigned access, bool missed, struct vi_place *place, struct vi_fault *fault);

/* An address and the tag of its leaf: two words come in registers, and somebody waits for this address. */
struct vi_walked {
    uint64_t pa, tag;
};

/*
 * What vi_place does about a miss of a stage 1 that is alone, in whose space there are pages, where each descriptor is what one
 * expects and the access is simply permitted. Tag 0: it is not so, and nothing has been done or counted.
 */
struct vi_walked vi_walk_quickly(struct vi_reader *reader, struct vi_lane *lane, const struct vi_table *half,
                                 uint64_t address);

/* The same as vi_place, quick where the TLBs have all. Of the leaves the tags are there. */
VI_HOT bool vi_place_quickly(struct vi_reader *reader, struct vi_course *course, uint64_t address,
                             struct vi_place *place, struct vi_fault *fault)
{
    const struct vi_context *context = course->context;
    const struct vi_table *halves = context->half;
    uint64_t output, size, size2;
    bool missed = false;
    /* A half is tried after the other, for a guess comes earlier than bit 55. None has an address if it is not quick. */
    const struct vi_table *half = VI_LIKELY((address & halves[0].beyond) == halves[0].above) ? halves : halves + 1;
    if (VI_LIKELY(half == halves) || (address & half->beyond) == half->above) {
        enum vi_found found = vi_lane_find(&course->lane1, address, &place->stage1.tag, &output, &size);
        if (VI_LIKELY(found == VI_HIT)) {
            if (!context->stage2) {
                VI_COUNT(reader->counters.tlb_hits);
                place->pa = output & course->mask;
                place->size = size;
                return true;
            }
            if (VI_LIKELY(!(output & context->s2.beyond) &&
                          vi_lane_find(&course->lane2, output, &place->stage2.tag, &output, &size2) == VI_HIT)) {
                VI_COUNT(reader->counters.tlb_hits);
                VI_COUNT(reader->counters.tlb2_hits);
                place->pa = output & course->mask;
                place->size = size < size2 ? size : size2;
                return true;
            }
        }
        missed = found == VI_MISS && !(uint32_t)atomic_load_explicit(&context->global->state, memory_order_acquire);
        if (VI_LIKELY(missed)) {
            struct vi_walked walked = vi_walk_quickly(reader, &course->lane1, half, address);
            if (VI_LIKELY(walked.tag)) {
                place->pa = walked.pa;
                place->size = half->within + 1 - (address & half->within);
                place->stage1.tag = walked.tag;
                return true;
            }
        }
    }
    struct vi_place whole; /* so that `place` may be in registers */
    if (!vi_place(reader, course, context, address, course->access, missed, &whole, fault))
        return false;
    place->pa = whole.pa;
    place->size = whole.size;
    place->stage1.tag = whole.stage1.tag;
    place->stage2.tag = whole.stage2.tag;
    return true;
}

/*
 * Look up at most `count` pages from `address` on, the first byte of one, at once: of which the TLB has entries one behind
 * the other, from behind the entry that was found last on. Nothing is counted. Returns how many; all have *tag.
 */
unsigned vi_pages_behind(struct vi_course *course, uint64_t address, unsigned count, uint64_t *pa, uint64_t *tag);

/*
 * Look up the next pages of a request for `left` bytes more, of a context whose stage 1 is alone, and have them and count
 * them: behind the entry that was found last; or, where no page of four neighbours is in the TLB, by the table of the page
 * that was walked for last, all four at once. False: it is not as simple, and nothing has been done.
 */
bool vi_look_ahead(struct vi_reader *reader, struct vi_course *course, uint64_t address, uint64_t left);

/* Look up anew what is next; returns of how many bytes that was looked up, and counted, already. */
VI_HOT uint64_t vi_forget_ahead(struct vi_course *course)
{
    struct vi_ahead *ahead = &course->ahead;
    uint64_t pages = (uint64_t)(ahead->end - ahead->next);
    ahead->next = ahead->end;
    return pages ? pages * ahead->size : 0;
}

/* The same as vi_place_quickly, of a request for `left` bytes from `address` on that asks for all; counts translations. */
VI_HOT bool vi_next_place(struct vi_reader *reader, struct vi_course *course, uint64_t address, uint64_t left,
                          struct vi_place *place, struct vi_fault *fault)
{
    struct vi_ahead *ahead = &course->ahead;
    if (VI_LIKELY(ahead->next != ahead->end) ||
        (course->context->alone && left > course->lane1.within + 1 && !(address & course->lane1.within) &&
         vi_look_ahead(reader, course, address, left))) {
        place->pa = *ahead->next++;
        place->size = ahead->size;
        place->stage1.tag = ahead->tag;
        return true;
    }
    VI_COUNT(reader->counters.translations);
    return vi_place_quickly(reader, course, address, place, fault);
}

/* The memory type with which an access leaves (§13.4). */
vi_memory_type vi_memory_of(const struct vi_context *context, const struct vi_place *place, vi_memory_type incoming);

#endif
