/* SPDX-License-Identifier: Apache-2.0 */
/* Windows whose file may become shorter. */
#ifndef VI_GUARD_H
#define VI_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Guard the mapping [begin, begin + size): the result becomes true when an access finds its file cut short. NULL: too many
 * are guarded. */
_Atomic bool *vi_guard(void *begin, size_t size);
/* Before it is unmapped. */
void vi_unguard(_Atomic bool *broken);

#endif
