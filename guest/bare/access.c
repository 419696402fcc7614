/* SPDX-License-Identifier: Apache-2.0 */
/* What a register access costs the CPU that makes it: notes of nanoseconds each, for tests/bench. */
#include "vt.h"

enum { IDR0 = 0x00, CR1 = 0x28 };

static uint64_t nanoseconds(uint64_t ticks, uint64_t count) { return ticks * 1000000000 / vt_frequency() / count; }

static void register_reads(void)
{
	uint64_t base = vt_config.smmu[0].base, count = vt_argument("reads", 5000);
	uint32_t first = vt_read32(base + IDR0);

	for (int round = 0; round < 4; round++) {
		uint64_t began = vt_ticks();

		for (uint64_t i = 0; i < count; i++)
			VT_CHECK(vt_read32(base + IDR0) == first, "IDR0 changes");
		vt_note("read ns=%lu", nanoseconds(vt_ticks() - began, count));
	}
}

/* The CPU does not wait for a posted write; the read at the end waits for all. */
static void posted_writes(void)
{
	uint64_t base = vt_config.smmu[0].base, count = vt_argument("writes", 20000);

	for (int round = 0; round < 4; round++) {
		uint64_t began = vt_ticks();

		for (uint64_t i = 0; i < count; i++)
			vt_write32(base + CR1, i & 0xF);
		uint64_t issued = vt_ticks();
		uint32_t last = vt_read32(base + CR1);
		vt_note("write ns=%lu drained ns=%lu", nanoseconds(issued - began, count),
			nanoseconds(vt_ticks() - began, count));
		VT_CHECK(last == ((count - 1) & 0xF), "CR1 is %x", last);
	}
}

/* Reads of someone who does something else between them. */
static void sparse_reads(void)
{
	uint64_t base = vt_config.smmu[0].base, count = 500, spent = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t until = vt_ticks() + vt_frequency() / 5000, began;

		while (vt_ticks() < until)
			;
		began = vt_ticks();
		(void)vt_read32(base + IDR0);
		spent += vt_ticks() - began;
	}
	vt_note("sparse read ns=%lu", nanoseconds(spent, count));
}

VT_CASES(
	{"register_reads", register_reads},
	{"posted_writes", posted_writes},
	{"sparse_reads", sparse_reads},
);
