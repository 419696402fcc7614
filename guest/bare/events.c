/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every event that an ordinary transaction can raise, each record compared word for word, and what becomes of events
 * that find no room or no memory (IHI 0070 §7.2 to §7.5).
 *
 * A fault is provoked in each of the ways that software can come to it; the transaction must abort, write nothing,
 * and leave one record.
 */
#include "smmu.h"
#include "vt.h"

#define OTHER_SID 0x41 /* the engine's, and beyond the first 64 */

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;

/* A read, or write, of a page's first bytes must abort and leave this event alone. */
#define VT_FAULTS(how, address, ...) \
	do { \
		uint32_t vt_end = vt_engine_##how(engine, address, 64); \
		VT_CHECK(vt_end == VT_ENGINE_ERROR, "the " #how " at %lx is not aborted, the engine ends with %x", \
			 (uint64_t)(address), vt_end); \
		VT_EXPECT(smmu, __VA_ARGS__); \
		VT_CHECK(vt_blank(scene.target), "a transaction that was to be aborted wrote memory"); \
	} while (0)

#define VT_WORKS(how, address) \
	do { \
		uint32_t vt_end = vt_engine_##how(engine, address, 64); \
		VT_CHECK(vt_end == VT_ENGINE_HALTED, "the " #how " at %lx fails, the engine ends with %x", \
			 (uint64_t)(address), vt_end); \
		VT_SILENT(smmu); \
	} while (0)

/* The machine's engine may be without the StreamID 0x41, or the SMMU without two-level tables. */
static bool other_sid(bool two_level)
{
	const struct vt_master_config *config = vt_master("arm,smmute", 0);
	bool found = false;

	for (unsigned int i = 0; config && i < config->sids; i++)
		found |= config->sid[i] == OTHER_SID;
	if (!found)
		vt_skip("the engine has no StreamID 0x41");
	else if (two_level && !IDR0_ST_LEVEL(smmu->idr0))
		vt_skip("the SMMU has no two-level stream tables");
	else
		return true;
	return false;
}

static void forget_configuration(void)
{
	vt_barrier();
	vt_smmu_command(smmu, CMD_CFGI_ALL, 31);
	if (!vt_smmu_sync(smmu))
		vt_fail("CMD_SYNC after CMD_CFGI_STE_RANGE does not complete");
}

/* -- configuration -- */

static void a_streamid_beyond_the_table_is_bad(void)
{
	if (!vt_scene_begin(&scene) || !other_sid(false))
		return;
	vt_smmu_stream_table(smmu, (uint64_t)smmu->strtab, 6);
	VT_WORKS(read, VT_SOURCE);
	engine->sid = OTHER_SID;
	VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_C_BAD_STREAMID, OTHER_SID), 0, 0, 0);
	engine->ssid = 5;
	VT_FAULTS(write, VT_TARGET, VT_EVENT_SSID(VT_C_BAD_STREAMID, OTHER_SID, 5), 0, 0, 0);
}

static void a_bad_streamid_is_silent_without_recinvsid(void)
{
	if (!vt_scene_begin(&scene) || !other_sid(false))
		return;
	vt_smmu_enable(smmu, false);
	vt_smmu_set(smmu, CR2, 0);
	vt_smmu_stream_table(smmu, (uint64_t)smmu->strtab, 6);
	engine->sid = OTHER_SID;
	VT_CHECK(vt_engine_read(engine, VT_SOURCE, 64) == VT_ENGINE_ERROR, "a bad StreamID is not aborted");
	VT_SILENT(smmu);
}

static void two_level_spans_bound_streamids(void)
{
	/* Spans with which the second level does not reach StreamID 0x41: none, its first alone, too long, reserved. */
	static const uint8_t spans[] = {0, 1, 8, 11, 12, 31};
	uint64_t *level1, *level2;

	if (!vt_scene_begin(&scene) || !other_sid(true))
		return;
	level1 = vt_alloc(64, 64);
	level2 = vt_alloc(64 * 64, 64 * 64);
	memcpy(level2 + 8, scene.ste, 64); /* StreamID 0x41 is the second of its part */
	level1[1] = (uint64_t)level2 | L1STD_SPAN(7);
	vt_barrier();
	vt_smmu_stream_table(smmu, (uint64_t)level1, STRTAB_TWO_LEVEL | STRTAB_SPLIT(6) | 8);
	engine->sid = OTHER_SID;
	VT_WORKS(read, VT_SOURCE);
	for (unsigned int i = 0; i < sizeof(spans); i++) {
		vt_note("Span %u", spans[i]);
		level1[1] = (uint64_t)level2 | L1STD_SPAN(spans[i]);
		forget_configuration();
		VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_C_BAD_STREAMID, OTHER_SID), 0, 0, 0);
	}
	level1[1] = (uint64_t)level2 | L1STD_SPAN(2);
	forget_configuration();
	VT_WORKS(read, VT_SOURCE);
}

static void an_unreadable_stream_table_is_f_ste_fetch(void)
{
	if (!vt_scene_begin(&scene))
		return;
	vt_smmu_stream_table(smmu, VT_NOWHERE, smmu->sid_bits);
	VT_FAULTS(write, VT_TARGET, VT_EVENT(VT_F_STE_FETCH, engine->sid), 0, 0, VT_NOWHERE + 64 * engine->sid);
}

static void unreadable_levels_are_f_ste_fetch(void)
{
	uint64_t *level1;

	if (!vt_scene_begin(&scene) || !other_sid(true))
		return;
	engine->sid = OTHER_SID;
	vt_smmu_stream_table(smmu, VT_NOWHERE, STRTAB_TWO_LEVEL | STRTAB_SPLIT(6) | 8);
	VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_F_STE_FETCH, OTHER_SID), 0, 0, VT_NOWHERE + 8);
	level1 = vt_alloc(64, 64);
	level1[1] = VT_NOWHERE | L1STD_SPAN(7);
	vt_barrier();
	vt_smmu_stream_table(smmu, (uint64_t)level1, STRTAB_TWO_LEVEL | STRTAB_SPLIT(6) | 8);
	VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_F_STE_FETCH, OTHER_SID), 0, 0, VT_NOWHERE + 64);
}

static void an_illegal_stream_entry_is_c_bad_ste(void)
{
	static const struct {
		const char *what;
		uint32_t needs; /* in IDR0 */
		uint64_t word[4];
	} wrong[] = {
		{"V = 0", 0, {STE_CONFIG(VT_STAGE1), 0, 0, 0}},
		{"S1ContextPtr beyond the OAS", 0, {STE_V | STE_CONFIG(VT_STAGE1) | 1UL << 51, 0, 0, 0}},
		{"S2T0SZ 0", IDR0_S2P, {STE_V | STE_CONFIG(VT_STAGE2), 0, STE_S2AA64 | STE_S2SL0(1), 0}},
		{"S2SL0 that does not fit S2T0SZ", IDR0_S2P,
		 {STE_V | STE_CONFIG(VT_STAGE2), 0, STE_S2AA64 | STE_S2T0SZ(39) | STE_S2SL0(2) | STE_S2PS(4), 0}},
		{"S2TG reserved", IDR0_S2P,
		 {STE_V | STE_CONFIG(VT_STAGE2), 0,
		  STE_S2AA64 | STE_S2T0SZ(39) | STE_S2SL0(1) | 3UL << 46 | STE_S2PS(4), 0}},
		{"S2TTB beyond S2PS", IDR0_S2P,
		 {STE_V | STE_CONFIG(VT_STAGE2), 0, STE_S2AA64 | STE_S2T0SZ(32) | STE_S2SL0(1), 1UL << 33}},
	};

	if (!vt_scene_begin(&scene))
		return;
	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (~smmu->idr0 & wrong[i].needs)
			continue;
		if (wrong[i].word[0] & 1UL << 51 && IDR5_OAS(smmu->idr5) >= OAS_52)
			continue; /* none is beyond */
		vt_note("%s", wrong[i].what);
		memcpy(scene.ste, wrong[i].word, 32);
		vt_scene_ste(&scene);
		VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_C_BAD_STE, engine->sid), 0, 0, 0);
	}
	if (!(smmu->idr0 & IDR0_S2P)) {
		scene.ste[0] = STE_V | STE_CONFIG(VT_STAGE2);
		vt_scene_ste(&scene);
		VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_C_BAD_STE, engine->sid), 0, 0, 0);
	}
}

static void an_abort_entry_is_silent_whatever_else_it_says(void)
{
	if (!vt_scene_begin(&scene))
		return;
	scene.ste[1] = ~0UL;
	scene.ste[2] = ~0UL;
	vt_barrier();
	for (uint64_t config = 0; config < 4; config++) {
		scene.ste[0] = ~0UL & ~STE_CONFIG(7);
		scene.ste[0] |= STE_CONFIG(config);
		vt_scene_ste(&scene);
		VT_CHECK(vt_engine_write(engine, VT_TARGET, 64) == VT_ENGINE_ERROR, "STE.Config %lx does not abort", config);
		VT_SILENT(smmu);
	}
	VT_CHECK(vt_blank(scene.target), "a stream that is to be aborted wrote memory");
}

static void an_unreadable_cd_is_f_cd_fetch(void)
{
	if (!vt_scene_begin(&scene))
		return;
	scene.ste[0] = STE_V | STE_CONFIG(VT_STAGE1) | VT_NOWHERE;
	vt_scene_ste(&scene);
	VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_F_CD_FETCH, engine->sid), 0, 0, VT_NOWHERE);
	VT_FAULTS(write, VT_TARGET, VT_EVENT(VT_F_CD_FETCH, engine->sid), 0, 0, VT_NOWHERE);
}

static void an_illegal_cd_is_c_bad_cd(void)
{
	static const struct {
		const char *what;
		uint64_t clear, set; /* in word 0 */
		uint64_t ttb0;
	} wrong[] = {
		{"V = 0", CD_V, 0, 0},
		{"T0SZ below 16", CD_T0SZ_MASK, 15, 0},
		{"T0SZ above 39", CD_T0SZ_MASK, 40, 0},
		{"TG0 reserved", 0, 3UL << 6, 0},
		{"TTB0 beyond IPS", CD_IPS(7), 0, 1UL << 33},
		{"EPD0 = 0 and EPD1 = 0 with TG1 reserved", CD_EPD1, 0, 0},
	};
	uint64_t good;

	if (!vt_scene_begin(&scene))
		return;
	good = scene.cd[0];
	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (wrong[i].set == 40 && smmu->idr3 & IDR3_STT)
			continue; /* such small tables are there */
		vt_note("%s", wrong[i].what);
		scene.cd[0] = (good & ~wrong[i].clear) | wrong[i].set;
		scene.cd[1] = wrong[i].ttb0 ? wrong[i].ttb0 : (uint64_t)scene.space.root;
		vt_scene_cd(&scene);
		VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_C_BAD_CD, engine->sid), 0, 0, 0);
	}
	if (!(smmu->idr0 >> 2 & 1)) { /* IDR0.TTF: no AArch32 tables */
		scene.cd[0] = good & ~CD_AA64;
		vt_scene_cd(&scene);
		VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_C_BAD_CD, engine->sid), 0, 0, 0);
	}
	if (IDR0_STALL_MODEL(smmu->idr0) == 0) {
		scene.cd[0] = good | CD_S; /* though STE.S1STALLD is 1 */
		vt_scene_cd(&scene);
		VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_C_BAD_CD, engine->sid), 0, 0, 0);
	}
	if (!IDR0_HTTU(smmu->idr0)) {
		scene.cd[0] = good | CD_HA;
		vt_scene_cd(&scene);
		VT_FAULTS(read, VT_SOURCE, VT_EVENT(VT_C_BAD_CD, engine->sid), 0, 0, 0);
	}
	scene.cd[0] = good;
	scene.cd[1] = (uint64_t)scene.space.root;
	vt_scene_cd(&scene);
	VT_WORKS(read, VT_SOURCE);
}

/* -- walks -- */

static void an_unreadable_table_is_f_walk_eabt(void)
{
	uint64_t at = VT_TARGET + 3 * VT_PAGE;
	uint64_t id, w1 = EVENT_CLASS_TT;

	if (!vt_scene_begin(&scene))
		return;
	id = VT_EVENT(VT_F_WALK_EABT, engine->sid);
	*vt_descriptor(&scene.space, at, 2) = VT_NOWHERE | DESC_TABLE | DESC_VALID;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, id, w1, at, VT_NOWHERE + 8 * 3);
	VT_FAULTS(read, at, id, w1 | EVENT_RNW, at, VT_NOWHERE + 8 * 3);
	*vt_descriptor(&scene.space, at, 1) = VT_NOWHERE | DESC_TABLE | DESC_VALID;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, id, w1, at, VT_NOWHERE + 8 * (at >> 21 & 511));
	scene.cd[1] = VT_NOWHERE;
	vt_scene_cd(&scene);
	vt_scene_tlbi(&scene);
	at |= 5UL << 30;
	engine->attributes |= VT_PRIVILEGED;
	VT_FAULTS(write, at, id, w1 | EVENT_PNU, at, VT_NOWHERE + 8 * 5);
}

static void an_unmapped_address_is_f_translation(void)
{
	uint64_t id, w1 = EVENT_CLASS_IN;

	if (!vt_scene_begin(&scene))
		return;
	id = VT_EVENT(VT_F_TRANSLATION, engine->sid);
	for (unsigned int shift = 12; shift <= 30; shift += 9) { /* no descriptor at level 3, 2, 1 */
		uint64_t at = VT_TARGET + (7UL << shift) + 0x28;

		VT_FAULTS(write, at, id, w1, at, 0);
		VT_FAULTS(read, at, id, w1 | EVENT_RNW, at, 0);
	}
	*vt_descriptor(&scene.space, VT_TARGET, 3) = DESC_AF | DESC_VALID; /* at level 3 bit 1 must be set, too */
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, VT_TARGET, id, w1, VT_TARGET, 0);
}

static void an_event_says_what_was_asked(void)
{
	uint64_t at = VT_TARGET + VT_PAGE, id, w1 = EVENT_CLASS_IN;
	uint32_t user;

	if (!vt_scene_begin(&scene))
		return;
	id = VT_EVENT(VT_F_TRANSLATION, engine->sid);
	user = engine->attributes;
	engine->attributes = user | VT_PRIVILEGED;
	VT_FAULTS(read, at, id, w1 | EVENT_RNW | EVENT_PNU, at, 0);
	VT_FAULTS(write, at, id, w1 | EVENT_PNU, at, 0);
	engine->attributes = user | VT_INSTRUCTION;
	VT_FAULTS(read, at, id, w1 | EVENT_RNW | EVENT_IND, at, 0);
	VT_FAULTS(write, at, id, w1, at, 0); /* a write is data, whatever it says (§13.1.2) */
	engine->attributes = user | VT_INSTRUCTION | VT_PRIVILEGED;
	VT_FAULTS(read, at, id, w1 | EVENT_RNW | EVENT_IND | EVENT_PNU, at, 0);
	if (!(smmu->idr1 >> 26 & 1)) /* ATTR_PERMS_OVR */
		return;
	scene.ste[1] |= STE_PRIVCFG_UNPRIVILEGED | STE_INSTCFG_DATA;
	vt_scene_ste(&scene);
	VT_FAULTS(read, at, id, w1 | EVENT_RNW, at, 0);
	engine->attributes = user;
	scene.ste[1] |= STE_PRIVCFG_PRIVILEGED | STE_INSTCFG_INSTRUCTION;
	vt_scene_ste(&scene);
	VT_FAULTS(read, at, id, w1 | EVENT_RNW | EVENT_IND | EVENT_PNU, at, 0);
	VT_FAULTS(write, at, id, w1 | EVENT_PNU, at, 0);
}

static void an_address_outside_of_the_range_is_f_translation(void)
{
	static const uint64_t outside[] = {1UL << 39, 1UL << 54, 1UL << 55, 1UL << 63, ~0UL << 39, ~0UL << 55};
	uint64_t id;

	if (!vt_scene_begin(&scene))
		return;
	id = VT_EVENT(VT_F_TRANSLATION, engine->sid);
	for (unsigned int i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
		uint64_t at = outside[i] | VT_TARGET;

		VT_FAULTS(write, at, id, EVENT_CLASS_IN, at, 0);
	}
	scene.cd[0] |= CD_EPD0;
	vt_scene_cd(&scene);
	VT_FAULTS(write, VT_TARGET, id, EVENT_CLASS_IN, VT_TARGET, 0);
}

static void an_output_beyond_its_size_is_f_addr_size(void)
{
	uint64_t good, id, w1 = EVENT_CLASS_IN;

	if (!vt_scene_begin(&scene))
		return;
	id = VT_EVENT(VT_F_ADDR_SIZE, engine->sid);
	good = *vt_descriptor(&scene.space, VT_TARGET, 3);
	scene.cd[0] = (scene.cd[0] & ~CD_IPS(7)) | CD_IPS(2); /* 40 bits */
	vt_scene_cd(&scene);
	*vt_descriptor(&scene.space, VT_TARGET, 3) = good | 1UL << 40;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, VT_TARGET, id, w1, VT_TARGET, 0);
	scene.cd[0] &= ~CD_IPS(7); /* 32 bits */
	vt_scene_cd(&scene);
	*vt_descriptor(&scene.space, VT_TARGET, 3) = good | 1UL << 32;
	vt_scene_tlbi(&scene);
	VT_FAULTS(read, VT_TARGET, id, w1 | EVENT_RNW, VT_TARGET, 0);
	*vt_descriptor(&scene.space, VT_TARGET, 3) = good;
	*vt_descriptor(&scene.space, VT_TARGET, 2) |= 1UL << 32; /* the address of a table */
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, VT_TARGET + 8, id, w1, VT_TARGET + 8, 0);
}

static void bypass_beyond_the_oas_is_f_addr_size(void)
{
	uint64_t at = 1UL << 52;

	if (!vt_scene_begin(&scene))
		return;
	vt_smmu_bypass(smmu, engine->sid);
	VT_FAULTS(write, at, VT_EVENT(VT_F_ADDR_SIZE, engine->sid), EVENT_CLASS_IN, at, 0);
	VT_WORKS(read, (uint64_t)scene.source);
}

static void a_clear_access_flag_is_f_access(void)
{
	if (!vt_scene_begin(&scene))
		return;
	*vt_descriptor(&scene.space, VT_TARGET, 3) &= ~DESC_AF;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, VT_TARGET + 16, VT_EVENT(VT_F_ACCESS, engine->sid), EVENT_CLASS_IN, VT_TARGET + 16, 0);
	VT_FAULTS(read, VT_TARGET, VT_EVENT(VT_F_ACCESS, engine->sid), EVENT_CLASS_IN | EVENT_RNW, VT_TARGET, 0);
	VT_CHECK(!(*vt_descriptor(&scene.space, VT_TARGET, 3) & DESC_AF), "the SMMU sets an access flag unasked");
	scene.cd[0] |= CD_AFFD;
	vt_scene_cd(&scene);
	vt_scene_tlbi(&scene);
	VT_WORKS(write, VT_TARGET);
}

static void what_is_not_permitted_is_f_permission(void)
{
	uint64_t *descriptor, good, id, w1 = EVENT_CLASS_IN;
	uint32_t user;

	if (!vt_scene_begin(&scene))
		return;
	id = VT_EVENT(VT_F_PERMISSION, engine->sid);
	user = engine->attributes;
	descriptor = vt_descriptor(&scene.space, VT_TARGET, 3);
	good = *descriptor;

	vt_note("read-only");
	*descriptor = good | DESC_AP_RO;
	vt_scene_tlbi(&scene);
	VT_WORKS(read, VT_TARGET);
	VT_FAULTS(write, VT_TARGET, id, w1, VT_TARGET, 0);
	engine->attributes = user | VT_PRIVILEGED;
	VT_FAULTS(write, VT_TARGET, id, w1 | EVENT_PNU, VT_TARGET, 0);

	vt_note("privileged only");
	*descriptor = good & ~DESC_AP_EL0;
	vt_scene_tlbi(&scene);
	VT_WORKS(read, VT_TARGET);
	engine->attributes = user;
	VT_FAULTS(read, VT_TARGET, id, w1 | EVENT_RNW, VT_TARGET, 0);
	VT_FAULTS(write, VT_TARGET, id, w1, VT_TARGET, 0);

	vt_note("execute never");
	*descriptor = good | DESC_AP_RO | DESC_UXN;
	vt_scene_tlbi(&scene);
	engine->attributes = user | VT_INSTRUCTION;
	VT_FAULTS(read, VT_TARGET, id, w1 | EVENT_RNW | EVENT_IND, VT_TARGET, 0);
	engine->attributes = user | VT_INSTRUCTION | VT_PRIVILEGED;
	VT_WORKS(read, VT_TARGET);
	*descriptor = good | DESC_AP_RO | DESC_PXN;
	vt_scene_tlbi(&scene);
	VT_FAULTS(read, VT_TARGET, id, w1 | EVENT_RNW | EVENT_IND | EVENT_PNU, VT_TARGET, 0);

	vt_note("a table above says read-only");
	engine->attributes = user;
	*descriptor = good;
	*vt_descriptor(&scene.space, VT_TARGET, 1) |= DESC_APTABLE_RO;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, VT_TARGET, id, w1, VT_TARGET, 0);
	VT_WORKS(read, VT_TARGET);
	*vt_descriptor(&scene.space, VT_TARGET, 1) &= ~DESC_APTABLE_RO;

	vt_note("WXN");
	scene.cd[0] |= CD_WXN;
	vt_scene_cd(&scene);
	vt_scene_tlbi(&scene);
	engine->attributes = user | VT_INSTRUCTION;
	VT_FAULTS(read, VT_TARGET, id, w1 | EVENT_RNW | EVENT_IND, VT_TARGET, 0);

	vt_note("PAN");
	scene.cd[0] |= CD_PAN;
	vt_scene_cd(&scene);
	engine->attributes = user | VT_PRIVILEGED;
	VT_FAULTS(read, VT_TARGET, id, w1 | EVENT_RNW | EVENT_PNU, VT_TARGET, 0);
	engine->attributes = user;
	VT_WORKS(write, VT_TARGET);
}

/* -- how faults end (CD.R, CD.A) -- */

static void without_r_a_fault_is_not_recorded(void)
{
	if (!vt_scene_begin(&scene))
		return;
	scene.cd[0] &= ~CD_R;
	vt_scene_cd(&scene);
	VT_CHECK(vt_engine_read(engine, VT_TARGET + VT_PAGE, 64) == VT_ENGINE_ERROR, "the fault does not abort");
	VT_SILENT(smmu);
}

static void without_a_a_fault_reads_zero_and_ignores_writes(void)
{
	uint64_t at = VT_SOURCE, id;

	if (!vt_scene_begin(&scene))
		return;
	if (smmu->idr0 & IDR0_TERM_MODEL) {
		vt_skip("the SMMU always aborts");
		return;
	}
	id = VT_EVENT(VT_F_ACCESS, engine->sid);
	*vt_descriptor(&scene.space, VT_SOURCE, 3) &= ~DESC_AF;
	*vt_descriptor(&scene.space, VT_TARGET, 3) &= ~DESC_AF;
	scene.cd[0] &= ~CD_A;
	vt_scene_cd(&scene);
	vt_scene_tlbi(&scene);
	VT_CHECK(vt_engine_read(engine, at, 64) == VT_ENGINE_HALTED, "the read is aborted");
	VT_CHECK(!vt_engine_result(engine), "the read gives %lx, not zero", vt_engine_result(engine));
	VT_EXPECT(smmu, id, EVENT_CLASS_IN | EVENT_RNW, at, 0);
	VT_CHECK(vt_engine_write(engine, VT_TARGET, 64) == VT_ENGINE_HALTED, "the write is aborted");
	VT_CHECK(vt_blank(scene.target), "the write reaches memory");
	VT_EXPECT(smmu, id, EVENT_CLASS_IN, VT_TARGET, 0);
}

static void an_smmu_that_is_off_lets_all_pass_or_aborts(void)
{
	if (!vt_scene_begin(&scene))
		return;
	vt_smmu_enable(smmu, false);
	VT_WORKS(read, (uint64_t)scene.source);
	vt_smmu_set(smmu, GBPA, GBPA_UPDATE | GBPA_ABORT | 1U << 12);
	VT_CHECK(VT_WAIT(!(vt_smmu_get(smmu, GBPA) & GBPA_UPDATE), 1), "GBPA.Update stays set");
	VT_CHECK(vt_engine_write(engine, (uint64_t)scene.target, 64) == VT_ENGINE_ERROR, "GBPA.ABORT does not abort");
	VT_CHECK(vt_blank(scene.target), "a write that GBPA.ABORT aborts reaches memory");
	VT_SILENT(smmu);
	vt_smmu_set(smmu, GBPA, GBPA_UPDATE | 1U << 12);
	VT_CHECK(VT_WAIT(!(vt_smmu_get(smmu, GBPA) & GBPA_UPDATE), 1), "GBPA.Update stays set");
}

/* -- what the engine does only when it is asked to -- */

static void an_unsupported_transaction_is_f_uut(void)
{
	uint64_t id;
	uint32_t user;

	if (!vt_scene_begin(&scene))
		return;
	id = VT_EVENT(VT_F_UUT, engine->sid);
	user = engine->attributes;
	engine->special = VT_UNSUPPORTED;
	VT_FAULTS(write, VT_TARGET, id, 0, VT_TARGET, 0);
	if (smmu->idr1 >> 26 & 1) { /* ATTR_PERMS_OVR, which is not asked */
		scene.ste[1] |= STE_PRIVCFG_UNPRIVILEGED | STE_INSTCFG_DATA;
		vt_scene_ste(&scene);
	}
	engine->attributes = user | VT_PRIVILEGED | VT_INSTRUCTION;
	VT_FAULTS(read, VT_SOURCE + 8, id, EVENT_PNU | EVENT_IND | EVENT_RNW, VT_SOURCE + 8, 0);
	engine->attributes = user;
	engine->ssid = 5;
	VT_FAULTS(read, VT_SOURCE, VT_EVENT_SSID(VT_F_UUT, engine->sid, 5), EVENT_RNW, VT_SOURCE, 0);
	engine->ssid = VT_NO_SSID;
	vt_smmu_enable(smmu, false); /* recorded all the same (§7.3.2) */
	VT_FAULTS(write, (uint64_t)scene.target, id, 0, (uint64_t)scene.target, 0);
	vt_smmu_enable(smmu, true);
	engine->special = 0;
	VT_WORKS(read, VT_SOURCE);
}

static void a_hint_is_e_page_request(void)
{
	uint64_t id, at = VT_TARGET + 0x28;

	if (!vt_scene_begin(&scene))
		return;
	id = VT_EVENT(VT_E_PAGE_REQUEST, engine->sid);
	engine->special = VT_HINTS;
	VT_CHECK(vt_engine_write(engine, at, 64) == VT_ENGINE_HALTED, "a write that a hint precedes fails");
	VT_EXPECT(smmu, id, HINT_UW | HINT_SPAN(1), VT_TARGET, 0);
	vt_map(&scene.space, VT_SOURCE + VT_PAGE, (uint64_t)scene.source, VT_PAGE, VT_READ);
	engine->attributes |= VT_PRIVILEGED | VT_INSTRUCTION;
	VT_CHECK(vt_engine_read(engine, VT_SOURCE + VT_PAGE - 8, 16) == VT_ENGINE_HALTED, "a read that a hint precedes fails");
	VT_EXPECT(smmu, id, HINT_PR | HINT_PX | HINT_SPAN(2), VT_SOURCE, 0);
	vt_smmu_enable(smmu, false); /* there is none while translation is off */
	VT_WORKS(write, (uint64_t)scene.target);
	vt_smmu_enable(smmu, true);
}

/* -- the queue -- */

/* One fault, whose address tells which it is. */
static bool fault(unsigned int number)
{
	return vt_engine_read(engine, VT_TARGET + VT_PAGE + 8 * number, 8) == VT_ENGINE_ERROR;
}

static bool recorded(unsigned int number)
{
	uint64_t at = VT_TARGET + VT_PAGE + 8 * number;
	struct vt_event event;

	if (!vt_smmu_event(smmu, &event, 1))
		vt_fail("the record of fault %u is not there", number);
	else if (event.address != at)
		vt_fail("a record says address %lx where fault %u's is %lx", event.address, number, at);
	else
		return true;
	return false;
}

static void a_full_queue_overflows(void)
{
	uint64_t *records;

	if (!vt_scene_begin(&scene))
		return;
	if (IDR1_EVENTQS(smmu->idr1) < 2) {
		vt_skip("the SMMU's event queue has too few entries");
		return;
	}
	records = vt_alloc(8 * 32, 8 * 32); /* twice the queue */
	vt_smmu_event_queue(smmu, (uint64_t)records, 2);
	for (unsigned int i = 0; i < 4; i++)
		VT_CHECK(fault(i), "fault %u does not abort", i);
	VT_CHECK(vt_smmu_get(smmu, EVENTQ_PROD) == 4, "EVENTQ_PROD of a full queue is %x", vt_smmu_get(smmu, EVENTQ_PROD));
	VT_CHECK(fault(4), "a fault that finds the queue full does not abort");
	VT_CHECK(vt_smmu_get(smmu, EVENTQ_PROD) == (OVFLG | 4), "EVENTQ_PROD after an overflow is %x",
		 vt_smmu_get(smmu, EVENTQ_PROD));
	VT_CHECK(fault(5), "a fault that finds the queue full does not abort");
	VT_CHECK(vt_smmu_get(smmu, EVENTQ_PROD) == (OVFLG | 4), "an overflow that was not acknowledged is told again");
	for (unsigned int i = 0; i < 16; i++)
		VT_CHECK(!((volatile uint64_t *)records)[16 + i], "a record lies behind the queue");
	/* Room without acknowledgement: the next record comes in, the lost ones never. */
	smmu->event_cons = 1;
	vt_smmu_set(smmu, EVENTQ_CONS, 1);
	VT_CHECK(fault(6), "fault 6 does not abort");
	VT_CHECK(vt_smmu_get(smmu, EVENTQ_PROD) == (OVFLG | 5), "EVENTQ_PROD is %x", vt_smmu_get(smmu, EVENTQ_PROD));
	if (!recorded(1) || !recorded(2) || !recorded(3) || !recorded(6))
		return;
	VT_SILENT(smmu);
	/* vt_smmu_event acknowledged; the next overflow toggles back. */
	for (unsigned int i = 0; i < 5; i++)
		VT_CHECK(fault(i), "fault %u does not abort", i);
	VT_CHECK(vt_smmu_get(smmu, EVENTQ_PROD) == 1, "EVENTQ_PROD after the second overflow is %x",
		 vt_smmu_get(smmu, EVENTQ_PROD));
	VT_CHECK(recorded(0), "the queue is out of order");
}

static void a_disabled_queue_takes_nothing(void)
{
	if (!vt_scene_begin(&scene))
		return;
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_CMDQEN);
	VT_CHECK(fault(0), "a fault does not abort while the event queue is off");
	VT_CHECK(!vt_smmu_get(smmu, EVENTQ_PROD), "EVENTQ_PROD moves to %x while the queue is off",
		 vt_smmu_get(smmu, EVENTQ_PROD));
	vt_smmu_cr0(smmu, CR0_SMMUEN | CR0_CMDQEN | CR0_EVENTQEN);
	VT_SILENT(smmu);
	VT_CHECK(fault(1) && recorded(1), "the queue does not work after it was off");
}

static void an_unwritable_queue_is_eventq_abt_err(void)
{
	uint64_t *records;

	if (!vt_scene_begin(&scene))
		return;
	vt_smmu_event_queue(smmu, VT_NOWHERE, 2);
	VT_CHECK(!vt_smmu_errors(smmu), "GERROR has %x before anything went wrong", vt_smmu_errors(smmu));
	VT_CHECK(fault(0), "a fault does not abort");
	VT_CHECK(vt_smmu_errors(smmu) == GERROR_EVENTQ_ABT_ERR, "GERROR has %x", vt_smmu_errors(smmu));
	VT_CHECK(!vt_smmu_get(smmu, EVENTQ_PROD), "EVENTQ_PROD passes a record that was not written");
	VT_CHECK(fault(1), "a fault does not abort");
	VT_CHECK(vt_smmu_errors(smmu) == GERROR_EVENTQ_ABT_ERR, "GERROR has %x after another fault", vt_smmu_errors(smmu));
	records = vt_alloc(4 * 32, 4 * 32);
	vt_smmu_event_queue(smmu, (uint64_t)records, 2);
	VT_CHECK(fault(2), "a fault does not abort");
	VT_CHECK(!vt_smmu_get(smmu, EVENTQ_PROD), "the queue is written while its error is active");
	vt_smmu_acknowledge(smmu);
	VT_CHECK(fault(3) && recorded(3), "the queue does not work after the error was acknowledged");
}

static void an_event_msi_that_aborts_is_a_global_error(void)
{
	if (!vt_scene_begin(&scene))
		return;
	if (!(smmu->idr0 & IDR0_MSI)) {
		vt_skip("the SMMU has no MSIs");
		return;
	}
	vt_smmu_set64(smmu, EVENTQ_IRQ_CFG0, VT_NOWHERE);
	vt_smmu_set(smmu, IRQ_CTRL, IRQ_CTRL_EVENTQ);
	VT_CHECK(VT_WAIT(vt_smmu_get(smmu, IRQ_CTRLACK) == IRQ_CTRL_EVENTQ, 1), "IRQ_CTRL is not acknowledged");
	VT_CHECK(fault(0) && recorded(0), "the event is not recorded");
	VT_CHECK(VT_WAIT(vt_smmu_errors(smmu) == GERROR_MSI_EVENTQ_ABT_ERR, 2), "GERROR has %x", vt_smmu_errors(smmu));
	vt_smmu_acknowledge(smmu);
	VT_CHECK(!vt_smmu_errors(smmu), "the error stays active");
}

VT_CASES(
	{"a_streamid_beyond_the_table_is_bad", a_streamid_beyond_the_table_is_bad},
	{"a_bad_streamid_is_silent_without_recinvsid", a_bad_streamid_is_silent_without_recinvsid},
	{"two_level_spans_bound_streamids", two_level_spans_bound_streamids},
	{"an_unreadable_stream_table_is_f_ste_fetch", an_unreadable_stream_table_is_f_ste_fetch},
	{"unreadable_levels_are_f_ste_fetch", unreadable_levels_are_f_ste_fetch},
	{"an_illegal_stream_entry_is_c_bad_ste", an_illegal_stream_entry_is_c_bad_ste},
	{"an_abort_entry_is_silent_whatever_else_it_says", an_abort_entry_is_silent_whatever_else_it_says},
	{"an_unreadable_cd_is_f_cd_fetch", an_unreadable_cd_is_f_cd_fetch},
	{"an_illegal_cd_is_c_bad_cd", an_illegal_cd_is_c_bad_cd},
	{"an_unreadable_table_is_f_walk_eabt", an_unreadable_table_is_f_walk_eabt},
	{"an_unmapped_address_is_f_translation", an_unmapped_address_is_f_translation},
	{"an_event_says_what_was_asked", an_event_says_what_was_asked},
	{"an_address_outside_of_the_range_is_f_translation", an_address_outside_of_the_range_is_f_translation},
	{"an_output_beyond_its_size_is_f_addr_size", an_output_beyond_its_size_is_f_addr_size},
	{"bypass_beyond_the_oas_is_f_addr_size", bypass_beyond_the_oas_is_f_addr_size},
	{"a_clear_access_flag_is_f_access", a_clear_access_flag_is_f_access},
	{"what_is_not_permitted_is_f_permission", what_is_not_permitted_is_f_permission},
	{"without_r_a_fault_is_not_recorded", without_r_a_fault_is_not_recorded},
	{"without_a_a_fault_reads_zero_and_ignores_writes", without_a_a_fault_reads_zero_and_ignores_writes},
	{"an_smmu_that_is_off_lets_all_pass_or_aborts", an_smmu_that_is_off_lets_all_pass_or_aborts},
	{"an_unsupported_transaction_is_f_uut", an_unsupported_transaction_is_f_uut},
	{"a_hint_is_e_page_request", a_hint_is_e_page_request},
	{"a_full_queue_overflows", a_full_queue_overflows},
	{"a_disabled_queue_takes_nothing", a_disabled_queue_takes_nothing},
	{"an_unwritable_queue_is_eventq_abt_err", an_unwritable_queue_is_eventq_abt_err},
	{"an_event_msi_that_aborts_is_a_global_error", an_event_msi_that_aborts_is_a_global_error},
);
