/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split-stage ATS: the engine keeps intermediate addresses, and stage 2 translates its every access (IHI 0070
 * §3.9.1, §13.6.3); and what the engine keeps for each PASID (§4.5.1).
 *
 * The engine's registers for this are ours, as in ats.c.
 */
#include "smmu.h"
#include "vt.h"

#define VMID 0x35
#define IDR0_NS1ATS (1U << 11)
#define STE_EATS_SPLIT (2UL << 28)
#define CMD_GLOBAL (1UL << 9)
/* extension frame */
#define ATS_RESULT 0x2c
#define ATS_REQUESTS 0x34
enum { GRANTED = 1, DENIED = 2, UNSUPPORTED_REQUEST = 3 };
/* the ATC's page */
#define ATC_PAGE 0x30000
#define ATC_FEATURES 0x04
#define ATC_ENTRIES 0x0c
#define SPACES 4

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;
static struct vt_space stage2;

static uint32_t own(uint32_t at) { return vt_read32(engine->extension + at); }
static uint32_t atc(uint32_t at) { return vt_read32(scene.master->base + ATC_PAGE + at); }

static bool invalidate(uint64_t which, uint64_t what)
{
	vt_smmu_command(smmu, CMD_ATC_INV | CMD_SID(engine->sid) | which, what);
	if (vt_smmu_sync(smmu))
		return true;
	vt_fail("CMD_ATC_INV is not obeyed");
	return false;
}

/* An engine with an empty ATC, whose stream has no ATS yet; false: skipped. */
static bool begin(void)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (!(smmu->idr0 & IDR0_ATS) || scene.master->size <= ATC_PAGE || !(atc(ATC_FEATURES) & 1)) {
		vt_skip("the SMMU has no ATS, or the engine no ATC");
		return false;
	}
	engine->pctrl = VT_ATS;
	return invalidate(0, ATC_INV_ALL);
}

/* Both stages with split-stage ATS; false: skipped. */
static bool split(void)
{
	if (!begin())
		return false;
	if (!(smmu->idr0 & IDR0_S2P) || smmu->idr0 & IDR0_NS1ATS) {
		vt_skip("the SMMU has no split-stage ATS");
		return false;
	}
	if (!vt_scene_nest(&scene, &stage2, VMID))
		return false;
	scene.ste[1] |= STE_EATS_SPLIT;
	vt_scene_ste(&scene);
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN | CR0_ATSCHK);
	vt_scene_ste(&scene); /* ATSCHK may be cached with it (§3.9.2) */
	return true;
}

static bool reads(uint64_t at)
{
	return vt_engine_read(engine, at, VT_PAGE) == VT_ENGINE_HALTED && vt_engine_result(engine) == scene.sum;
}

/* -- split stages -- */

static void stage_2_translates_what_the_engine_keeps(void)
{
	uint64_t ipa, *descriptor, good;

	if (!split())
		return;
	ipa = (uint64_t)scene.source + VT_IPA;
	VT_CHECK(reads(VT_SOURCE), "a read by way of the ATC fails, the request ends with %u", own(ATS_RESULT));
	VT_SILENT(smmu);
	descriptor = vt_ram2(&stage2, ipa);
	good = *descriptor;
	*descriptor = 0;
	vt_scene_tlbi(&scene);
	VT_CHECK(vt_engine_read(engine, VT_SOURCE + 64, 64) == VT_ENGINE_ERROR, "the ATC keeps what stage 2 says");
	VT_EXPECT(smmu, VT_EVENT(VT_F_TRANSLATION, engine->sid), EVENT_S2 | EVENT_CLASS_IN | EVENT_RNW, ipa + 64, ipa);
	*descriptor = good;
	vt_barrier();
	VT_CHECK(reads(VT_SOURCE), "the stream does not work afterwards");
	VT_SILENT(smmu);
}

static void stage_1_is_kept_until_the_engine_is_told(void)
{
	uint32_t asked;

	if (!split())
		return;
	VT_CHECK(reads(VT_SOURCE), "a read by way of the ATC fails");
	asked = own(ATS_REQUESTS);
	*vt_descriptor(&scene.space, VT_SOURCE, 3) = 0;
	vt_scene_tlbi(&scene);
	vt_note("split_stale translates=%d", reads(VT_SOURCE));
	if (!invalidate(0, VT_SOURCE))
		return;
	VT_CHECK(!reads(VT_SOURCE), "an unmapped page can be read");
	VT_CHECK(own(ATS_RESULT) == DENIED && own(ATS_REQUESTS) == asked + 1, "after an invalidation it is not asked for");
	VT_SILENT(smmu);
}

static void what_stage_2_denies_is_denied_by_the_request_too(void)
{
	if (!split())
		return;
	*vt_ram2(&stage2, (uint64_t)scene.source + VT_IPA) = 0;
	vt_scene_tlbi(&scene);
	VT_CHECK(!reads(VT_SOURCE), "a page that stage 2 does not map can be read");
	VT_CHECK(own(ATS_RESULT) == DENIED, "the translation request ends with %u", own(ATS_RESULT));
	VT_SILENT(smmu);
}

static void without_atschk_there_is_no_split_stage_ats(void)
{
	struct vt_event event;

	if (!split())
		return;
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN);
	vt_scene_ste(&scene);
	VT_CHECK(!reads(VT_SOURCE), "intermediate addresses are given out as physical ones");
	VT_CHECK(own(ATS_RESULT) == UNSUPPORTED_REQUEST, "the translation request ends with %u", own(ATS_RESULT));
	VT_CHECK(vt_smmu_event(smmu, &event, 1) && event.id == VT_F_BAD_ATS_TREQ, "there is no F_BAD_ATS_TREQ");
}

/* -- PASIDs -- */

static struct {
	struct vt_space space;
	uint8_t *page;
	uint64_t first; /* word of it */
} each[SPACES];

/* PASIDs 1 to 3 map VT_TARGET each to a page of its own, and so does a request without one (space 0). */
static bool pasids(void)
{
	const struct vt_space *spaces[SPACES];

	if (!begin())
		return false;
	if (IDR1_SSIDSIZE(smmu->idr1) < 2) {
		vt_skip("the SMMU has too few SubstreamIDs");
		return false;
	}
	for (unsigned int i = 0; i < SPACES; i++) {
		each[i].page = vt_alloc(VT_PAGE, VT_PAGE);
		each[i].first = 0x1234567800000000UL + i;
		*(volatile uint64_t *)each[i].page = each[i].first;
		vt_space_init(smmu, &each[i].space);
		vt_map(&each[i].space, VT_TARGET, (uint64_t)each[i].page, VT_PAGE, VT_READ);
		spaces[i] = &each[i].space;
	}
	vt_smmu_attach_substreams(smmu, engine->sid, spaces, SPACES);
	scene.ste[1] = (scene.ste[1] & ~STE_S1DSS) | STE_S1DSS_SUBSTREAM0 | STE_EATS_FULL;
	vt_scene_ste(&scene);
	return true;
}

static bool reads_its_own(unsigned int n)
{
	engine->ssid = n ? n : VT_NO_SSID;
	return vt_engine_read(engine, VT_TARGET, 8) == VT_ENGINE_HALTED && vt_engine_result(engine) == each[n].first;
}

static bool all_read_their_own(void)
{
	for (unsigned int i = 0; i < SPACES; i++)
		if (!reads_its_own(i)) {
			vt_fail("space %u reads %lx, and its request ends with %u", i, vt_engine_result(engine), own(ATS_RESULT));
			return false;
		}
	return true;
}

static void each_pasid_has_translations_of_its_own(void)
{
	if (!pasids() || !all_read_their_own() || !all_read_their_own())
		return;
	VT_CHECK(atc(ATC_ENTRIES) == SPACES, "the ATC has %u entries", atc(ATC_ENTRIES));
	VT_SILENT(smmu);
}

static void an_invalidation_names_its_pasids(void)
{
	const struct {
		uint64_t which;
		unsigned int gone; /* a bit for each space whose translation must go */
		const char *name;
	} kinds[] = {
		{CMD_SSV | CMD_SSID(2), 1 << 2, "pasid"},
		{CMD_SSV | CMD_SSID(1) | CMD_GLOBAL, 1 << 1 | 1 << 2 | 1 << 3, "global"},
		{0, 0xf, "none"},
	};

	for (unsigned int k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		if (!pasids() || !all_read_their_own())
			return;
		for (unsigned int i = 0; i < SPACES; i++)
			*vt_descriptor(&each[i].space, VT_TARGET, 3) = 0;
		vt_scene_tlbi(&scene);
		if (!invalidate(kinds[k].which, VT_TARGET))
			return;
		for (unsigned int i = 0; i < SPACES; i++) {
			bool still = reads_its_own(i);

			if (kinds[k].gone & 1U << i)
				VT_CHECK(!still, "kind %s drops nothing of space %u", kinds[k].name, i);
			else
				vt_note("pasid_stale kind=%s space=%u translates=%d", kinds[k].name, i, still);
		}
		VT_SILENT(smmu);
	}
}

VT_CASES(
	{"stage_2_translates_what_the_engine_keeps", stage_2_translates_what_the_engine_keeps},
	{"stage_1_is_kept_until_the_engine_is_told", stage_1_is_kept_until_the_engine_is_told},
	{"what_stage_2_denies_is_denied_by_the_request_too", what_stage_2_denies_is_denied_by_the_request_too},
	{"without_atschk_there_is_no_split_stage_ats", without_atschk_there_is_no_split_stage_ats},
	{"each_pasid_has_translations_of_its_own", each_pasid_has_translations_of_its_own},
	{"an_invalidation_names_its_pasids", an_invalidation_names_its_pasids},
);
