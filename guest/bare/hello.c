/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest program: proves the way in and out on a machine that may have nothing at all. */
#include "vt.h"

static void says_hello(void)
{
	vt_note("hello arguments=\"%s\" smmus=%u masters=%u", vt_config.arguments, vt_config.smmus, vt_config.masters);
}

static void memory_is_writable(void)
{
	volatile uint64_t *word = vt_alloc(8, 8);

	*word = 0x0123456789abcdefUL;
	VT_CHECK(*word == 0x0123456789abcdefUL, "memory at %lx holds %lx", (uint64_t)word, *word);
}

static void fails_when_asked(void)
{
	VT_CHECK(!vt_argument("fail", 0), "it was asked to fail");
	if (vt_argument("fault", 0))
		(void)vt_read32(0xffff00000000UL);
	while (vt_argument("hang", 0))
		;
}

VT_CASES(
	{"says_hello", says_hello},
	{"memory_is_writable", memory_is_writable},
	{"fails_when_asked", fails_when_asked},
);
