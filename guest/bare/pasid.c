/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SubstreamIDs, which PCIe calls PASIDs: one stream with many address spaces, found through linear and two-level
 * tables of context descriptors (IHI 0070 §3.3.2, §5.3; STE.S1DSS of §5.2).
 *
 * Every space maps VT_TARGET to a page of its own, so that one address tells which space translated.
 */
#include "smmu.h"
#include "vt.h"

#define SPACES 3

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;

static struct {
	uint32_t ssid;
	struct vt_space space;
	uint8_t *page;
} each[SPACES];

/* Make the spaces of these SubstreamIDs, but no table; false: skipped. */
static bool begin(unsigned int bits, const uint32_t *ssids)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (IDR1_SSIDSIZE(smmu->idr1) < bits) {
		vt_skip("the SMMU has too few SubstreamIDs");
		return false;
	}
	for (unsigned int i = 0; i < SPACES; i++) {
		each[i].ssid = ssids[i];
		each[i].page = vt_alloc(VT_PAGE, VT_PAGE);
		vt_space_init(smmu, &each[i].space);
		vt_map(&each[i].space, VT_TARGET, (uint64_t)each[i].page, VT_PAGE, VT_READ | VT_WRITE);
	}
	return true;
}

/* A stream table entry that leads to 'table', with 2^bits SubstreamIDs. */
static void use_table(const uint64_t *table, uint64_t format, unsigned int bits, uint64_t s1dss)
{
	scene.ste[0] = STE_V | STE_CONFIG(VT_STAGE1) | format | (uint64_t)table | STE_S1CDMAX(bits);
	scene.ste[1] = (scene.ste[1] & ~STE_S1DSS) | s1dss;
	vt_scene_ste(&scene);
}

static const uint32_t few[SPACES] = {0, 3, 7};

/* A linear table of 8, used with 'few'. */
static uint64_t *linear(uint64_t s1dss)
{
	uint64_t *table = vt_alloc(8 * 64, 8 * 64);

	for (unsigned int i = 0; i < SPACES; i++)
		vt_smmu_fill_cd(smmu, table + 8 * each[i].ssid, &each[i].space);
	use_table(table, 0, 3, s1dss);
	return table;
}

static uint32_t write_as(uint32_t ssid, uint64_t at)
{
	engine->ssid = ssid;
	return vt_engine_write(engine, at, 64);
}

/* A write of each substream must arrive in its own page and nowhere else. */
static bool apart(unsigned int first)
{
	for (unsigned int i = first; i < SPACES; i++) {
		for (unsigned int j = 0; j < SPACES; j++)
			memset(each[j].page, 0, VT_PAGE);
		if (write_as(each[i].ssid, VT_TARGET) != VT_ENGINE_HALTED) {
			vt_fail("a write of SubstreamID %u is aborted", each[i].ssid);
			return false;
		}
		for (unsigned int j = 0; j < SPACES; j++)
			if (vt_blank(each[j].page) == (i == j)) {
				vt_fail("a write of SubstreamID %u %s the page of %u", each[i].ssid,
					i == j ? "does not reach" : "reaches", each[j].ssid);
				return false;
			}
	}
	return vt_smmu_silent(smmu);
}

#define VT_REFUSED(ssid, at, ...) \
	do { \
		VT_CHECK(write_as(ssid, at) == VT_ENGINE_ERROR, "a write of SubstreamID %d is not aborted", (int)(ssid)); \
		VT_EXPECT(smmu, __VA_ARGS__); \
	} while (0)

static void one_address_is_a_page_of_each_substream(void)
{
	if (!begin(3, few))
		return;
	linear(STE_S1DSS_TERMINATE);
	apart(0);
}

static void an_event_names_the_substream(void)
{
	uint64_t *table;

	if (!begin(3, few))
		return;
	table = linear(STE_S1DSS_TERMINATE);
	VT_REFUSED(7, VT_SOURCE, VT_EVENT_SSID(VT_F_TRANSLATION, engine->sid, 7), EVENT_CLASS_IN, VT_SOURCE, 0);
	VT_REFUSED(0, VT_SOURCE, VT_EVENT_SSID(VT_F_TRANSLATION, engine->sid, 0), EVENT_CLASS_IN, VT_SOURCE, 0);
	VT_REFUSED(5, VT_TARGET, VT_EVENT_SSID(VT_C_BAD_CD, engine->sid, 5), 0, 0, 0);
	table[8 * 3 + 1] = VT_NOWHERE;
	vt_smmu_cfgi_cd(smmu, engine->sid, 3);
	VT_REFUSED(3, VT_TARGET, VT_EVENT_SSID(VT_F_WALK_EABT, engine->sid, 3), EVENT_CLASS_TT, VT_TARGET,
		   VT_NOWHERE + 8 * (VT_TARGET >> 30));
	scene.ste[0] &= ~STE_V;
	vt_scene_ste(&scene);
	VT_REFUSED(3, VT_TARGET, VT_EVENT_SSID(VT_C_BAD_STE, engine->sid, 3), 0, 0, 0);
}

/* -- S1DSS: what becomes of a transaction without SubstreamID -- */

static void s1dss_0_terminates_what_has_no_substream(void)
{
	if (!begin(3, few))
		return;
	linear(STE_S1DSS_TERMINATE);
	VT_REFUSED(VT_NO_SSID, VT_TARGET, VT_EVENT(VT_F_STREAM_DISABLED, engine->sid), 0, 0, 0);
	apart(0);
}

static void s1dss_1_bypasses_stage_1_without_a_substream(void)
{
	if (!begin(3, few))
		return;
	linear(STE_S1DSS_BYPASS);
	VT_CHECK(write_as(VT_NO_SSID, (uint64_t)scene.target) == VT_ENGINE_HALTED, "the bypass does not reach memory");
	VT_CHECK(!vt_blank(scene.target), "the bypass writes elsewhere");
	VT_REFUSED(VT_NO_SSID, 1UL << 52, VT_EVENT(VT_F_ADDR_SIZE, engine->sid), EVENT_CLASS_IN, 1UL << 52, 0);
	apart(0);
}

static void s1dss_2_takes_substream_0_for_what_has_none(void)
{
	if (!begin(3, few))
		return;
	linear(STE_S1DSS_SUBSTREAM0);
	VT_CHECK(write_as(VT_NO_SSID, VT_TARGET) == VT_ENGINE_HALTED, "a write without SubstreamID is aborted");
	VT_CHECK(!vt_blank(each[0].page), "a write without SubstreamID is not translated by substream 0's space");
	VT_REFUSED(VT_NO_SSID, VT_SOURCE, VT_EVENT(VT_F_TRANSLATION, engine->sid), EVENT_CLASS_IN, VT_SOURCE, 0);
	VT_REFUSED(0, VT_TARGET, VT_EVENT(VT_F_STREAM_DISABLED, engine->sid), 0, 0, 0);
	apart(1);
}

static void s1dss_3_terminates_as_0_does(void)
{
	if (!begin(3, few))
		return;
	linear(3);
	VT_REFUSED(VT_NO_SSID, VT_TARGET, VT_EVENT(VT_F_STREAM_DISABLED, engine->sid), 0, 0, 0);
	apart(0);
}

/* -- SubstreamIDs that may not be -- */

/* C_BAD_SUBSTREAMID has no SSV: its SubstreamID is always meant. */
static uint64_t bad(uint32_t ssid) { return VT_EVENT(VT_C_BAD_SUBSTREAMID, engine->sid) | (uint64_t)ssid << 12; }

static void a_substream_beyond_the_table_is_bad(void)
{
	if (!begin(3, few))
		return;
	linear(STE_S1DSS_TERMINATE);
	VT_REFUSED(8, VT_TARGET, bad(8), 0, 0, 0);
	VT_REFUSED(0xfffff, VT_TARGET, bad(0xfffff), 0, 0, 0);
}

static void a_substream_where_there_are_none_is_bad(void)
{
	if (!vt_scene_begin(&scene))
		return;
	VT_REFUSED(1, VT_TARGET, bad(1), 0, 0, 0); /* S1CDMax = 0 */
	VT_REFUSED(0, VT_TARGET, bad(0), 0, 0, 0);
	vt_smmu_bypass(smmu, engine->sid);
	VT_REFUSED(2, VT_TARGET, bad(2), 0, 0, 0);
	vt_smmu_abort(smmu, engine->sid);
	VT_CHECK(write_as(2, VT_TARGET) == VT_ENGINE_ERROR, "a stream that is to be aborted is not");
	VT_SILENT(smmu);
}

static void more_substreams_than_the_smmu_has_is_c_bad_ste(void)
{
	if (!begin(1, few))
		return;
	scene.ste[0] |= STE_S1CDMAX(IDR1_SSIDSIZE(smmu->idr1) + 1);
	vt_scene_ste(&scene);
	VT_REFUSED(VT_NO_SSID, VT_TARGET, VT_EVENT(VT_C_BAD_STE, engine->sid), 0, 0, 0);
}

static void an_unreadable_descriptor_is_f_cd_fetch(void)
{
	if (!begin(3, few))
		return;
	use_table((const uint64_t *)VT_NOWHERE, 0, 3, STE_S1DSS_SUBSTREAM0);
	VT_REFUSED(5, VT_TARGET, VT_EVENT_SSID(VT_F_CD_FETCH, engine->sid, 5), 0, 0, VT_NOWHERE + 5 * 64);
	VT_REFUSED(VT_NO_SSID, VT_TARGET, VT_EVENT(VT_F_CD_FETCH, engine->sid), 0, 0, VT_NOWHERE);
}

/* -- two-level tables -- */

static const uint32_t many[SPACES] = {1, 70, 255};

/* Tables of 256 descriptors in leaves of 64, but for the third leaf; false: skipped. */
static bool two_level(uint64_t **level1, uint64_t **leaves)
{
	if (!begin(8, many))
		return false;
	if (!(smmu->idr0 & IDR0_CD2L)) {
		vt_skip("the SMMU has no two-level tables of context descriptors");
		return false;
	}
	*level1 = vt_alloc(64, 64);
	for (unsigned int i = 0; i < 4; i++) {
		leaves[i] = vt_alloc(VT_PAGE, VT_PAGE);
		if (i != 2)
			(*level1)[i] = (uint64_t)leaves[i] | L1CD_V;
	}
	for (unsigned int i = 0; i < SPACES; i++)
		vt_smmu_fill_cd(smmu, leaves[each[i].ssid >> 6] + 8 * (each[i].ssid & 63), &each[i].space);
	use_table(*level1, STE_S1FMT_TWO_LEVEL_4K, 8, STE_S1DSS_TERMINATE);
	return true;
}

static void two_levels_lead_to_each_substream(void)
{
	uint64_t *level1, *leaves[4];

	if (!two_level(&level1, leaves) || !apart(0))
		return;
	VT_REFUSED(71, VT_TARGET, VT_EVENT_SSID(VT_C_BAD_CD, engine->sid, 71), 0, 0, 0);
	VT_REFUSED(256, VT_TARGET, bad(256), 0, 0, 0);
}

static void a_leaf_that_is_not_there_is_c_bad_substreamid(void)
{
	uint64_t *level1, *leaves[4];

	if (!two_level(&level1, leaves))
		return;
	VT_REFUSED(130, VT_TARGET, bad(130), 0, 0, 0);
	if (IDR5_OAS(smmu->idr5) < OAS_52) {
		level1[2] = 1UL << 51 | L1CD_V; /* beyond the OAS */
		vt_barrier();
		vt_smmu_command(smmu, CMD_CFGI_CD | CMD_SID(engine->sid) | CMD_SSID(130), 0); /* not Leaf: the L1CD, too */
		VT_CHECK(vt_smmu_sync(smmu), "CMD_CFGI_CD is not consumed");
		VT_REFUSED(130, VT_TARGET, bad(130), 0, 0, 0);
	}
	level1[2] = (uint64_t)leaves[2] | L1CD_V;
	vt_smmu_fill_cd(smmu, leaves[2] + 8 * 2, &each[0].space);
	vt_barrier();
	vt_smmu_command(smmu, CMD_CFGI_CD | CMD_SID(engine->sid) | CMD_SSID(130), 0);
	VT_CHECK(vt_smmu_sync(smmu), "CMD_CFGI_CD is not consumed");
	VT_CHECK(write_as(130, VT_TARGET) == VT_ENGINE_HALTED, "a leaf that was added is not found");
}

static void unreadable_levels_are_f_cd_fetch(void)
{
	uint64_t *level1, *leaves[4];

	if (!two_level(&level1, leaves))
		return;
	level1[2] = VT_NOWHERE | L1CD_V;
	vt_barrier();
	VT_REFUSED(130, VT_TARGET, VT_EVENT_SSID(VT_F_CD_FETCH, engine->sid, 130), 0, 0, VT_NOWHERE + 2 * 64);
	use_table((const uint64_t *)VT_NOWHERE, STE_S1FMT_TWO_LEVEL_4K, 8, STE_S1DSS_TERMINATE);
	VT_REFUSED(130, VT_TARGET, VT_EVENT_SSID(VT_F_CD_FETCH, engine->sid, 130), 0, 0, VT_NOWHERE + 2 * 8);
}

static void leaves_can_be_of_64k(void)
{
	uint64_t *level1, *leaf;

	if (!begin(8, many))
		return;
	if (!(smmu->idr0 & IDR0_CD2L)) {
		vt_skip("the SMMU has no two-level tables of context descriptors");
		return;
	}
	level1 = vt_alloc(64, 64);
	leaf = vt_alloc(1 << 16, 1 << 16);
	level1[0] = (uint64_t)leaf | L1CD_V;
	for (unsigned int i = 0; i < SPACES; i++)
		vt_smmu_fill_cd(smmu, leaf + 8 * each[i].ssid, &each[i].space);
	use_table(level1, STE_S1FMT_TWO_LEVEL_64K, 8, STE_S1DSS_TERMINATE);
	apart(0);
}

/* -- invalidation -- */

static void a_changed_descriptor_is_seen_after_its_invalidation(void)
{
	uint64_t *table;

	if (!begin(3, few))
		return;
	table = linear(STE_S1DSS_TERMINATE);
	if (!apart(0))
		return;
	for (unsigned int round = 0; round < 2; round++) { /* by CMD_CFGI_CD, then by CMD_CFGI_CD_ALL */
		table[8 * 3] &= ~CD_V;
		vt_barrier();
		if (round)
			vt_smmu_command(smmu, CMD_CFGI_CD_ALL | CMD_SID(engine->sid), 0);
		else
			vt_smmu_command(smmu, CMD_CFGI_CD | CMD_SID(engine->sid) | CMD_SSID(3), CMD_LEAF);
		VT_CHECK(vt_smmu_sync(smmu), "the invalidation is not consumed");
		VT_REFUSED(3, VT_TARGET, VT_EVENT_SSID(VT_C_BAD_CD, engine->sid, 3), 0, 0, 0);
		VT_CHECK(write_as(7, VT_TARGET) == VT_ENGINE_HALTED, "another substream suffers");
		vt_smmu_fill_cd(smmu, table + 8 * 3, &each[1].space);
		vt_smmu_cfgi_cd(smmu, engine->sid, 3);
		if (!apart(0))
			return;
	}
}

static void an_asid_is_invalidated_alone(void)
{
	if (!begin(3, few))
		return;
	linear(STE_S1DSS_TERMINATE);
	if (!apart(0))
		return;
	for (unsigned int i = 0; i < SPACES; i++)
		*vt_descriptor(&each[i].space, VT_TARGET, 3) = 0;
	vt_barrier();
	vt_smmu_command(smmu, CMD_TLBI_NH_VA | CMD_ASID(each[1].space.asid), VT_TARGET | CMD_LEAF);
	VT_CHECK(vt_smmu_sync(smmu), "the invalidation is not consumed");
	VT_REFUSED(3, VT_TARGET, VT_EVENT_SSID(VT_F_TRANSLATION, engine->sid, 3), EVENT_CLASS_IN, VT_TARGET, 0);
	/* That the others are still there is allowed, not promised. */
	vt_note("stale other=ssid0 translates=%d", write_as(0, VT_TARGET) == VT_ENGINE_HALTED);
	vt_note("stale other=ssid7 translates=%d", write_as(7, VT_TARGET) == VT_ENGINE_HALTED);
}

VT_CASES(
	{"one_address_is_a_page_of_each_substream", one_address_is_a_page_of_each_substream},
	{"an_event_names_the_substream", an_event_names_the_substream},
	{"s1dss_0_terminates_what_has_no_substream", s1dss_0_terminates_what_has_no_substream},
	{"s1dss_1_bypasses_stage_1_without_a_substream", s1dss_1_bypasses_stage_1_without_a_substream},
	{"s1dss_2_takes_substream_0_for_what_has_none", s1dss_2_takes_substream_0_for_what_has_none},
	{"s1dss_3_terminates_as_0_does", s1dss_3_terminates_as_0_does},
	{"a_substream_beyond_the_table_is_bad", a_substream_beyond_the_table_is_bad},
	{"a_substream_where_there_are_none_is_bad", a_substream_where_there_are_none_is_bad},
	{"more_substreams_than_the_smmu_has_is_c_bad_ste", more_substreams_than_the_smmu_has_is_c_bad_ste},
	{"an_unreadable_descriptor_is_f_cd_fetch", an_unreadable_descriptor_is_f_cd_fetch},
	{"two_levels_lead_to_each_substream", two_levels_lead_to_each_substream},
	{"a_leaf_that_is_not_there_is_c_bad_substreamid", a_leaf_that_is_not_there_is_c_bad_substreamid},
	{"unreadable_levels_are_f_cd_fetch", unreadable_levels_are_f_cd_fetch},
	{"leaves_can_be_of_64k", leaves_can_be_of_64k},
	{"a_changed_descriptor_is_seen_after_its_invalidation", a_changed_descriptor_is_seen_after_its_invalidation},
	{"an_asid_is_invalidated_alone", an_asid_is_invalidated_alone},
);
