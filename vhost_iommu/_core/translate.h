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

/* False: `fault` says why not. `access` has been through the STE's overrides. */
bool vi_place(struct vi_reader *reader, const struct vi_context *context, uint64_t address, unsigned access,
              struct vi_place *place, struct vi_fault *fault);

/* The memory type with which an access leaves (§13.4). */
vi_memory_type vi_memory_of(const struct vi_context *context, const struct vi_place *place, vi_memory_type incoming);
/* What GBPA or an STE makes of a memory type (§13.1.4). */
vi_memory_type vi_override(vi_memory_type incoming, bool replace_type, unsigned memattr, unsigned shcfg);
/* Device and non-cacheable memory are outer shareable, whatever was said (§13.1.7). */
vi_memory_type vi_consistent(vi_memory_type memory);

#endif
