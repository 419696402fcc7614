/* SPDX-License-Identifier: Apache-2.0 */
/* Windows whose file may become shorter. */
#ifndef VI_GUARD_H
#define VI_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Guard the mapping [begin, begin + size): the result becomes true when an access finds its file cut short. NULL: there is
 * no memory. */
_Atomic bool *vi_guard(void *begin, size_t size);
/* Before it is unmapped, when nobody uses it any more; the result stays readable, and may become another mapping's. */
void vi_unguard(_Atomic bool *broken);

#endif
