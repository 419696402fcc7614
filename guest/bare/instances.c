/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several SMMUs, a DMA engine behind each: every one is an instance for itself.
 *
 * All engines use the same input addresses and, where they can, the same StreamID and ASID, which mean nothing
 * beyond their SMMU.
 */
#include "vt.h"

#define PAGE 4096UL
#define SOURCE 0x10000000UL
#define TARGET 0x20000000UL
#define MAX 8

static struct instance {
	struct vt_smmu smmu;
	struct vt_engine engine;
	struct vt_space space;
	uint8_t *source, *target;
} all[MAX];
static unsigned int count;

/* Bring all up, each with fresh pages of its own; false: skipped. */
static bool prepare(void)
{
	static bool started;

	if (!started)
		for (const struct vt_master_config *config; count < MAX && (config = vt_master("arm,smmute", count)); count++) {
			vt_smmu_start(&all[count].smmu, &vt_config.smmu[config->smmu]);
			vt_engine_init(&all[count].engine, config);
		}
	started = true;
	if (count < 2) {
		vt_skip("the machine has fewer than two engines");
		return false;
	}
	for (unsigned int n = 0; n < count; n++) {
		struct instance *each = &all[n];

		vt_smmu_drain(&each->smmu);
		each->source = vt_alloc(PAGE, PAGE);
		each->target = vt_alloc(PAGE, PAGE);
		for (unsigned int i = 0; i < PAGE; i++)
			each->source[i] = (uint8_t)(i * 3 + n + 1);
		vt_space_init(&each->smmu, &each->space);
		vt_map(&each->space, SOURCE, (uint64_t)each->source, PAGE, VT_READ);
		vt_map(&each->space, TARGET, (uint64_t)each->target, PAGE, VT_READ | VT_WRITE);
		vt_smmu_attach(&each->smmu, each->engine.sid, &each->space);
	}
	return true;
}

static uint32_t copy(struct instance *each)
{
	return vt_engine_copy(&each->engine, TARGET, SOURCE, PAGE, VT_NO_SSID);
}

static bool arrived(const struct instance *each) { return !memcmp(each->source, each->target, PAGE); }

static bool silent(struct instance *each)
{
	struct vt_event event;

	return !vt_smmu_event(&each->smmu, &event, 0);
}

static void one_address_is_a_page_of_each(void)
{
	if (!prepare())
		return;
	for (unsigned int n = 0; n < count; n++)
		VT_CHECK(copy(&all[n]) == VT_ENGINE_HALTED, "engine %u does not complete its copy", n);
	for (unsigned int n = 0; n < count; n++) {
		VT_CHECK(arrived(&all[n]), "engine %u's copy is not in its own page", n);
		VT_CHECK(silent(&all[n]), "SMMU %u has an event", n);
	}
}

static void a_fault_is_told_to_its_own_smmu(void)
{
	struct vt_event event;

	if (!prepare())
		return;
	for (unsigned int bad = 0; bad < count; bad++) {
		vt_unmap(&all[bad].smmu, &all[bad].space, TARGET, PAGE, false);
		for (unsigned int n = 0; n < count; n++) {
			bool wanted = n > bad;

			VT_CHECK((copy(&all[n]) == VT_ENGINE_HALTED) == wanted, "engine %u %s", n,
				 wanted ? "suffers for another's fault" : "reaches an unmapped page");
			VT_CHECK(vt_smmu_event(&all[n].smmu, &event, 0) == !wanted, "SMMU %u has %s event", n,
				 wanted ? "another's" : "no");
		}
	}
}

static void an_invalidation_is_not_the_others(void)
{
	if (!prepare())
		return;
	for (unsigned int n = 0; n < count; n++)
		VT_CHECK(copy(&all[n]) == VT_ENGINE_HALTED, "engine %u does not complete its copy", n);
	/* Every table loses its page, but only the first SMMU is told. A TLB may forget, so what the others do is noted. */
	for (unsigned int n = 0; n < count; n++) {
		memset(all[n].target, 0, PAGE);
		vt_unmap(&all[n].smmu, &all[n].space, TARGET, PAGE, n > 0);
	}
	VT_CHECK(copy(&all[0]) == VT_ENGINE_ERROR, "the SMMU that was told still translates");
	for (unsigned int n = 1; n < count; n++)
		vt_note("stale smmu=%u translates=%d", n, copy(&all[n]) == VT_ENGINE_HALTED);
	for (unsigned int n = 1; n < count; n++) {
		vt_unmap(&all[n].smmu, &all[n].space, TARGET, PAGE, false);
		VT_CHECK(copy(&all[n]) == VT_ENGINE_ERROR, "SMMU %u still translates after it was told", n);
	}
}

static void the_others_run_on_when_one_is_off(void)
{
	if (!prepare())
		return;
	for (unsigned int off = 0; off < count; off++) {
		vt_smmu_enable(&all[off].smmu, false);
		for (unsigned int n = 0; n < count; n++) {
			memset(all[n].target, 0, PAGE);
			if (n == off)
				continue;
			VT_CHECK(copy(&all[n]) == VT_ENGINE_HALTED && arrived(&all[n]),
				 "engine %u fails while SMMU %u is off", n, off);
		}
		vt_smmu_enable(&all[off].smmu, true);
		VT_CHECK(copy(&all[off]) == VT_ENGINE_HALTED && arrived(&all[off]),
			 "engine %u fails after its SMMU is on again", off);
	}
}

VT_CASES(
	{"one_address_is_a_page_of_each", one_address_is_a_page_of_each},
	{"a_fault_is_told_to_its_own_smmu", a_fault_is_told_to_its_own_smmu},
	{"an_invalidation_is_not_the_others", an_invalidation_is_not_the_others},
	{"the_others_run_on_when_one_is_off", the_others_run_on_when_one_is_off},
);
