/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that the SMMU updates: access flags and dirty state, at both stages, and what it must leave alone
 * (IHI 0070 §3.13; Arm ARM D8.5).
 *
 * Each case compares whole descriptors, after a CMD_SYNC: an update changes its one bit or two and no other.
 */
#include "smmu.h"
#include "vt.h"

#define CLEAN (DESC_DBM | DESC_AP_RO)

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;
static struct vt_space stage2;

/* A case that needs access flags (1), or dirty state too (2), at stage 1; false: skipped. */
static bool begin(unsigned int level)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (IDR0_HTTU(smmu->idr0) < level) {
		vt_skip(level == 1 ? "the SMMU sets no access flags" : "the SMMU sets no dirty state");
		return false;
	}
	scene.cd[0] |= CD_HA | (level > 1 ? CD_HD : 0);
	vt_scene_cd(&scene);
	return true;
}

/* The same with stage 2 below, whose updates are those of 'updates', and stage 1's those of 'level'. */
static bool begin_nested(unsigned int level, uint64_t updates)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (IDR0_HTTU(smmu->idr0) < 2) {
		vt_skip("the SMMU sets no dirty state");
		return false;
	}
	if (!vt_scene_nest(&scene, &stage2, 1))
		return false;
	scene.ste[2] |= updates;
	vt_scene_ste(&scene);
	scene.cd[0] |= (level ? CD_HA : 0) | (level > 1 ? CD_HD : 0);
	vt_scene_cd(&scene);
	return true;
}

/* Give the descriptor this value, and forget what was cached of it. */
static void put(uint64_t *descriptor, uint64_t value)
{
	*descriptor = value;
	vt_scene_tlbi(&scene);
}

/* Whether the descriptor is 'wanted' once CMD_SYNC completed. */
static bool is(const char *when, const uint64_t *descriptor, uint64_t wanted)
{
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC does not complete");
	if (*(const volatile uint64_t *)descriptor == wanted)
		return true;
	vt_fail("%s the descriptor is %016lx, not %016lx", when, *(const volatile uint64_t *)descriptor, wanted);
	return false;
}

#define VT_IS(when, descriptor, wanted) \
	do { \
		if (!is(when, descriptor, wanted)) \
			return; \
	} while (0)

#define VT_WORKS(how, at) \
	do { \
		uint32_t vt_end = vt_engine_##how(engine, at, 64); \
		VT_CHECK(vt_end == VT_ENGINE_HALTED, "a " #how " ends with %x", vt_end); \
		VT_SILENT(smmu); \
	} while (0)

#define VT_FAULTS(how, at, ...) \
	do { \
		uint32_t vt_end = vt_engine_##how(engine, at, 64); \
		VT_CHECK(vt_end == VT_ENGINE_ERROR, "a " #how " ends with %x", vt_end); \
		VT_EXPECT(smmu, __VA_ARGS__); \
	} while (0)

static uint64_t event(uint8_t id) { return VT_EVENT(id, engine->sid); }

/* -- stage 1 -- */

static void an_access_sets_the_access_flag(void)
{
	uint64_t *descriptor, good;

	if (!begin(1))
		return;
	descriptor = vt_descriptor(&scene.space, VT_TARGET, 3);
	good = *descriptor | 0xfUL << 55; /* bits for software */
	put(descriptor, good & ~DESC_AF);
	VT_WORKS(read, VT_TARGET);
	VT_IS("after a read", descriptor, good);
	put(descriptor, good & ~DESC_AF);
	VT_WORKS(write, VT_TARGET);
	VT_IS("after a write", descriptor, good);
	*descriptor = good & ~DESC_AF;
	vt_barrier();
	VT_IS("without an access", descriptor, good & ~DESC_AF);
}

static void each_page_has_its_own_access_flag(void)
{
	uint8_t *pages;

	if (!begin(1))
		return;
	pages = vt_alloc(4 * VT_PAGE, VT_PAGE);
	vt_map(&scene.space, VT_TARGET, (uint64_t)pages, 4 * VT_PAGE, VT_READ | VT_WRITE);
	for (unsigned int i = 0; i < 4; i++)
		*vt_descriptor(&scene.space, VT_TARGET + i * VT_PAGE, 3) &= ~DESC_AF;
	vt_scene_tlbi(&scene);
	VT_CHECK(vt_engine_write(engine, VT_TARGET + VT_PAGE, 2 * VT_PAGE) == VT_ENGINE_HALTED, "a write is aborted");
	VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC does not complete");
	for (unsigned int i = 0; i < 4; i++)
		VT_CHECK(!(*vt_descriptor(&scene.space, VT_TARGET + i * VT_PAGE, 3) & DESC_AF) == (i == 0 || i == 3),
			 "page %u's access flag is wrong", i);
}

static void without_ha_a_clear_access_flag_faults(void)
{
	uint64_t *descriptor, clear;

	if (!begin(1))
		return;
	scene.cd[0] &= ~(CD_HA | CD_HD);
	vt_scene_cd(&scene);
	descriptor = vt_descriptor(&scene.space, VT_TARGET, 3);
	clear = *descriptor & ~DESC_AF;
	put(descriptor, clear);
	VT_FAULTS(read, VT_TARGET, event(VT_F_ACCESS), EVENT_CLASS_IN | EVENT_RNW, VT_TARGET, 0);
	VT_IS("after a fault", descriptor, clear);
}

static void a_write_makes_a_clean_page_dirty(void)
{
	uint64_t *descriptor, good;

	if (!begin(2))
		return;
	descriptor = vt_descriptor(&scene.space, VT_TARGET, 3);
	good = *descriptor | 0xfUL << 55;
	put(descriptor, good | CLEAN);
	VT_WORKS(read, VT_TARGET);
	VT_IS("after a read", descriptor, good | CLEAN);
	VT_WORKS(write, VT_TARGET); /* the page is cached as clean */
	VT_CHECK(!vt_blank(scene.target), "the write does not reach the page");
	VT_IS("after a write", descriptor, good | DESC_DBM);
	VT_WORKS(write, VT_TARGET);
	VT_IS("after another write", descriptor, good | DESC_DBM);
	put(descriptor, good | CLEAN); /* software has cleaned it */
	VT_WORKS(write, VT_TARGET);
	VT_IS("after a write to the cleaned page", descriptor, good | DESC_DBM);
	put(descriptor, (good | CLEAN) & ~DESC_AF);
	VT_WORKS(write, VT_TARGET);
	VT_IS("after a write to a page not accessed before", descriptor, good | DESC_DBM);
}

static void a_read_only_page_stays_so(void)
{
	uint64_t *descriptor, good;

	if (!begin(2))
		return;
	descriptor = vt_descriptor(&scene.space, VT_TARGET, 3);
	good = *descriptor;
	put(descriptor, good | DESC_AP_RO); /* no DBM */
	VT_FAULTS(write, VT_TARGET, event(VT_F_PERMISSION), EVENT_CLASS_IN, VT_TARGET, 0);
	VT_IS("after a write that faults", descriptor, good | DESC_AP_RO);
	VT_CHECK(vt_blank(scene.target), "a read-only page is written");
	put(descriptor, good | DESC_AP_RO);
	VT_WORKS(read, VT_TARGET);
	VT_IS("after a read", descriptor, good | DESC_AP_RO);
}

static void without_hd_dbm_means_nothing(void)
{
	uint64_t *descriptor, good;

	if (!begin(2))
		return;
	scene.cd[0] &= ~CD_HD;
	vt_scene_cd(&scene);
	descriptor = vt_descriptor(&scene.space, VT_TARGET, 3);
	good = *descriptor;
	put(descriptor, good | CLEAN);
	VT_FAULTS(write, VT_TARGET, event(VT_F_PERMISSION), EVENT_CLASS_IN, VT_TARGET, 0);
	VT_IS("after a write that faults", descriptor, good | CLEAN);
	VT_CHECK(vt_blank(scene.target), "a read-only page is written");
}

static void a_write_that_is_refused_makes_nothing_dirty(void)
{
	uint64_t *descriptor, good;

	if (!begin(2))
		return;
	descriptor = vt_descriptor(&scene.space, VT_TARGET, 3);
	good = *descriptor;
	*vt_descriptor(&scene.space, VT_TARGET, 1) |= DESC_APTABLE_RO; /* takes writing away, DBM or not */
	put(descriptor, good | CLEAN);
	VT_FAULTS(write, VT_TARGET, event(VT_F_PERMISSION), EVENT_CLASS_IN, VT_TARGET, 0);
	VT_IS("after a write that a table forbids", descriptor, good | CLEAN);
	*vt_descriptor(&scene.space, VT_TARGET, 1) &= ~DESC_APTABLE_RO;
	put(descriptor, (good | CLEAN) & ~DESC_AP_EL0); /* privileged only */
	VT_FAULTS(write, VT_TARGET, event(VT_F_PERMISSION), EVENT_CLASS_IN, VT_TARGET, 0);
	VT_IS("after an unprivileged write", descriptor, (good | CLEAN) & ~DESC_AP_EL0);
	engine->attributes |= VT_PRIVILEGED;
	VT_WORKS(write, VT_TARGET);
	VT_IS("after a privileged write", descriptor, (good | DESC_DBM) & ~DESC_AP_EL0);
}

static void a_block_is_updated_as_a_page_is(void)
{
	uint64_t at = 0x80UL << 30, *descriptor, block;

	if (!begin(2))
		return;
	descriptor = vt_descriptor(&scene.space, at, 2);
	block = ((uint64_t)scene.target & ~((2UL << 20) - 1)) | (*vt_descriptor(&scene.space, VT_TARGET, 3) & 0xffc);
	block = (block & ~DESC_TABLE) | DESC_VALID;
	at += (uint64_t)scene.target & ((2UL << 20) - 1);
	put(descriptor, (block | CLEAN) & ~DESC_AF);
	VT_WORKS(read, at);
	VT_IS("after a read", descriptor, block | CLEAN);
	VT_WORKS(write, at);
	VT_IS("after a write", descriptor, block | DESC_DBM);
	VT_CHECK(!vt_blank(scene.target), "the write does not reach the page");
}

/* -- stage 2 -- */

static void stage_2_has_flags_and_dirty_state_of_its_own(void)
{
	uint64_t *descriptor, good, clean;

	if (!begin_nested(0, STE_S2HA | STE_S2HD))
		return;
	descriptor = vt_ram2(&stage2, (uint64_t)scene.target + VT_IPA);
	good = *descriptor | DESC_DBM;
	clean = good & ~DESC_S2AP_WRITE;
	put(descriptor, clean & ~DESC_AF);
	VT_WORKS(read, VT_TARGET);
	VT_IS("after a read", descriptor, clean);
	VT_WORKS(write, VT_TARGET);
	VT_IS("after a write", descriptor, good);
	put(descriptor, clean & ~DESC_AF);
	VT_WORKS(write, VT_TARGET);
	VT_IS("after a write to a page not accessed before", descriptor, good);
	put(descriptor, clean & ~DESC_DBM);
	VT_FAULTS(write, VT_TARGET, event(VT_F_PERMISSION), EVENT_S2 | EVENT_CLASS_IN, VT_TARGET,
		  (uint64_t)scene.target + VT_IPA);
	VT_IS("after a write that faults", descriptor, clean & ~DESC_DBM);
}

static void without_s2ha_and_s2hd_stage_2_faults(void)
{
	uint64_t *descriptor, good, ipa, w1 = EVENT_S2 | EVENT_CLASS_IN;

	if (!begin_nested(2, 0)) /* stage 1 has updates, which are not stage 2's */
		return;
	ipa = (uint64_t)scene.target + VT_IPA;
	descriptor = vt_ram2(&stage2, ipa);
	good = *descriptor;
	put(descriptor, good & ~DESC_AF);
	VT_FAULTS(write, VT_TARGET, event(VT_F_ACCESS), w1, VT_TARGET, ipa);
	VT_IS("after a fault", descriptor, good & ~DESC_AF);
	put(descriptor, (good | DESC_DBM) & ~DESC_S2AP_WRITE);
	VT_FAULTS(write, VT_TARGET, event(VT_F_PERMISSION), w1, VT_TARGET, ipa);
	VT_IS("after a fault", descriptor, (good | DESC_DBM) & ~DESC_S2AP_WRITE);
}

static void a_walk_of_stage_1_is_an_access_to_stage_2(void)
{
	uint64_t *table, *cd, table_good, cd_good;

	if (!begin_nested(0, STE_S2HA))
		return;
	table = vt_ram2(&stage2, (uint64_t)vt_descriptor(&scene.space, VT_TARGET, 3) + VT_IPA);
	cd = vt_ram2(&stage2, (uint64_t)scene.cd + VT_IPA);
	table_good = *table;
	cd_good = *cd;
	*cd = cd_good & ~DESC_AF;
	put(table, table_good & ~DESC_AF);
	vt_scene_cd(&scene); /* else it need not be fetched again */
	VT_WORKS(read, VT_TARGET);
	VT_IS("of the table's page", table, table_good);
	VT_IS("of the CD's page", cd, cd_good);
}

static void an_update_of_stage_1_is_a_write_to_stage_2(void)
{
	uint64_t *first, *second, first_good, second_good, ipa;

	if (!begin_nested(2, 0))
		return;
	first = vt_descriptor(&scene.space, VT_TARGET, 3);
	first_good = *first;
	ipa = (uint64_t)first + VT_IPA;
	second = vt_ram2(&stage2, ipa);
	second_good = *second;

	vt_note("stage 2 forbids the write of an access flag, though the transaction reads");
	*first = first_good & ~DESC_AF;
	put(second, second_good & ~DESC_S2AP_WRITE);
	VT_FAULTS(read, VT_TARGET, event(VT_F_PERMISSION), EVENT_S2 | EVENT_CLASS_TT | EVENT_RNW, VT_TARGET,
		  ipa & ~(VT_PAGE - 1));
	VT_IS("after the fault", first, first_good & ~DESC_AF);
	vt_note("and the write of dirty state");
	*first = first_good | CLEAN;
	put(second, second_good & ~DESC_S2AP_WRITE);
	VT_FAULTS(write, VT_TARGET, event(VT_F_PERMISSION), EVENT_S2 | EVENT_CLASS_TT, VT_TARGET, ipa & ~(VT_PAGE - 1));
	VT_IS("after the fault", first, first_good | CLEAN);

	vt_note("the page with the descriptor becomes dirty itself");
	scene.ste[2] |= STE_S2HA | STE_S2HD;
	vt_scene_ste(&scene);
	*first = first_good & ~DESC_AF;
	put(second, (second_good | DESC_DBM) & ~(DESC_S2AP_WRITE | DESC_AF));
	VT_WORKS(read, VT_TARGET);
	VT_IS("of stage 1", first, first_good);
	VT_IS("of stage 2", second, second_good | DESC_DBM);
}

VT_CASES(
	{"an_access_sets_the_access_flag", an_access_sets_the_access_flag},
	{"each_page_has_its_own_access_flag", each_page_has_its_own_access_flag},
	{"without_ha_a_clear_access_flag_faults", without_ha_a_clear_access_flag_faults},
	{"a_write_makes_a_clean_page_dirty", a_write_makes_a_clean_page_dirty},
	{"a_read_only_page_stays_so", a_read_only_page_stays_so},
	{"without_hd_dbm_means_nothing", without_hd_dbm_means_nothing},
	{"a_write_that_is_refused_makes_nothing_dirty", a_write_that_is_refused_makes_nothing_dirty},
	{"a_block_is_updated_as_a_page_is", a_block_is_updated_as_a_page_is},
	{"stage_2_has_flags_and_dirty_state_of_its_own", stage_2_has_flags_and_dirty_state_of_its_own},
	{"without_s2ha_and_s2hd_stage_2_faults", without_s2ha_and_s2hd_stage_2_faults},
	{"a_walk_of_stage_1_is_an_access_to_stage_2", a_walk_of_stage_1_is_an_access_to_stage_2},
	{"an_update_of_stage_1_is_a_write_to_stage_2", an_update_of_stage_1_is_a_write_to_stage_2},
);
