/* SPDX-License-Identifier: Apache-2.0 */
/* What a copy of 16 MiB takes, from the command to its end: notes of microseconds, for tests/bench. */
#include "vt.h"

#define SOURCE 0x10000000UL
#define TARGET 0x20000000UL
#define SIZE (16UL << 20)

static uint64_t microseconds(uint64_t ticks) { return ticks * 1000000 / vt_frequency(); }

static void copies(void)
{
	const struct vt_master_config *config = vt_master("arm,smmute", 0);
	static struct vt_engine engine;
	static struct vt_space space;
	static struct vt_smmu smmu;
	uint8_t *source, *target;

	if (!config) {
		vt_skip("the machine has no DMA engine");
		return;
	}
	vt_smmu_start(&smmu, &vt_config.smmu[config->smmu]);
	vt_engine_init(&engine, config);
	source = vt_alloc(SIZE, 4096);
	target = vt_alloc(SIZE, 4096);
	vt_space_init(&smmu, &space);
	vt_map(&space, SOURCE, (uint64_t)source, SIZE, VT_READ);
	vt_map(&space, TARGET, (uint64_t)target, SIZE, VT_READ | VT_WRITE);
	vt_smmu_attach(&smmu, engine.sid, &space);
	for (uint64_t round = 0; round < vt_argument("rounds", 5); round++) {
		uint64_t began, ticks;
		uint32_t status;

		for (uint64_t i = 0; i < SIZE / 8; i++)
			((uint64_t *)source)[i] = i * 0x9e3779b97f4a7c15UL + round;
		began = vt_ticks();
		status = vt_engine_copy(&engine, TARGET, SOURCE, SIZE, VT_NO_SSID);
		ticks = vt_ticks() - began;
		VT_CHECK(status == VT_ENGINE_HALTED, "the copy ends with %x", status);
		VT_CHECK(!memcmp(source, target, SIZE), "the copy is not what was copied");
		vt_note("copy us=%lu", microseconds(ticks));
	}
}

VT_CASES({"copies", copies});
