/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an implementation makes of an STE and a CD: what is ILLEGAL, and what their fields come to (§3.4, §5).
 *
 * All follows from `setup`; nothing is remembered and no memory is read. `ste` and `cd` are the eight words of one.
 */
#ifndef VI_VALIDITY_H
#define VI_VALIDITY_H

#include "internal.h"

bool vi_ste_illegal(const struct vi_setup *setup, const uint64_t *ste);
bool vi_cd_illegal(const struct vi_setup *setup, const uint64_t *ste, const uint64_t *cd);

/* Whether STE.VMSPtr counts (§5.2). */
bool vi_vms_enabled(const struct vi_setup *setup, const uint64_t *ste);

/* What a legal `ste` says, in `context`, which is all zeros: all but stage 1 and where the TLBs keep its entries. */
void vi_set_ste(const struct vi_setup *setup, const uint64_t *ste, struct vi_context *context);
/* What a legal `cd` adds: stage 1, but for MPAM identifiers. */
void vi_set_cd(const struct vi_setup *setup, const uint64_t *cd, struct vi_context *context);
/* Its MPAM identifiers: one that is too large is UNKNOWN, and 0 here (chapter 17). */
void vi_set_mpam(const struct vi_setup *setup, uint64_t partid, uint64_t pmg, struct vi_context *context);

#endif
