/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caches of which several entries match one lookup, because software changed a size, a scope or a span without
 * break-before-make, on an SMMU that finds that out (IHI 0070 §3.20, §3.21.1).
 *
 * Until the TLB or the configuration cache forgets, each access of what matches twice aborts and is recorded.
 */
#include "smmu.h"
#include "vt.h"

#define BLOCK (2UL << 20)
#define AT (VT_TARGET + BLOCK) /* of a block that is a table at first */

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;

static bool works(uint64_t at)
{
	uint32_t end = vt_engine_read(engine, at, 8);

	if (end != VT_ENGINE_HALTED)
		vt_fail("the read at %lx fails, the engine ends with %x", at, end);
	return end == VT_ENGINE_HALTED && vt_smmu_silent(smmu);
}

static bool conflicts(uint64_t at, uint64_t id, uint64_t word1, uint64_t word2, uint64_t word3)
{
	uint32_t end = vt_engine_read(engine, at, 8);

	if (end != VT_ENGINE_ERROR)
		vt_fail("the read at %lx is not aborted, the engine ends with %x", at, end);
	return end == VT_ENGINE_ERROR && vt_smmu_expect(smmu, id, word1, word2, word3);
}

static uint64_t tlb_conflict(void) { return VT_EVENT(VT_F_TLB_CONFLICT, engine->sid); }

/* Whether the SMMU bears it that a block and a page of it are cached at once. */
static bool bears_sizes(void)
{
	if (IDR3_BBML(smmu->idr3) < 2)
		return false;
	vt_skip("the SMMU bears a change of size");
	return true;
}

/* Have page 3 of 'space' at AT cached, and then another page of the block that takes the table's place. */
static bool merge(struct vt_space *space, uint64_t leaf, uint64_t bits)
{
	uint64_t ram = (uint64_t)scene.source & ~(BLOCK - 1);

	*vt_descriptor(space, AT + 3 * VT_PAGE, 3) = (ram + 3 * VT_PAGE) | leaf | DESC_TABLE;
	vt_barrier();
	if (!works(AT + 3 * VT_PAGE))
		return false;
	*vt_descriptor(space, AT, 2) = ram | leaf | bits;
	vt_barrier();
	return works(AT);
}

#define LEAF1 (DESC_VALID | DESC_AF | DESC_SH_INNER | DESC_NG | DESC_AP_EL0)
#define LEAF2 (DESC_VALID | DESC_AF | DESC_SH_INNER | DESC_S2_NORMAL_WB | DESC_S2AP_READ | DESC_S2AP_WRITE)

static void a_page_and_its_block_are_f_tlb_conflict(void)
{
	uint64_t at = AT + 3 * VT_PAGE + 0x28;

	if (!vt_scene_begin(&scene) || bears_sizes() || !merge(&scene.space, LEAF1, 0))
		return;
	for (unsigned int i = 0; i < 2; i++)
		if (!conflicts(at, tlb_conflict(), EVENT_RNW, at, 0))
			return;
	if (!works(AT + 4 * VT_PAGE)) /* the block alone */
		return;
	vt_smmu_command(smmu, CMD_TLBI_NH_VA | CMD_ASID(scene.space.asid), (at & ~(VT_PAGE - 1)) | CMD_LEAF);
	VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC after CMD_TLBI_NH_VA does not complete");
	works(at);
}

static void a_block_with_nt_is_borne_at_level_1(void)
{
	uint64_t at = AT + 3 * VT_PAGE;

	if (!vt_scene_begin(&scene) || bears_sizes() || !merge(&scene.space, LEAF1, DESC_NT))
		return;
	if (IDR3_BBML(smmu->idr3) == 1)
		works(at);
	else
		conflicts(at, tlb_conflict(), EVENT_RNW, at, 0);
}

static void a_conflict_of_stage_2_tells_the_ipa(void)
{
	struct vt_space stage2;
	uint64_t at = AT + 3 * VT_PAGE + 0x28;

	if (!vt_scene_begin(&scene) || bears_sizes())
		return;
	if (!(smmu->idr0 & IDR0_S2P)) {
		vt_skip("the SMMU has no stage 2");
		return;
	}
	vt_space_init(smmu, &stage2);
	vt_smmu_attach_stage2(smmu, engine->sid, NULL, &stage2, 7);
	if (merge(&stage2, LEAF2, 0))
		conflicts(at, tlb_conflict(), EVENT_RNW | EVENT_S2, at, at & ~(VT_PAGE - 1));
}

/* One page, non-global for one ASID and then global for another: whoever has the first finds both. */
static void a_page_that_became_global_is_f_tlb_conflict(void)
{
	struct vt_space other;
	uint32_t own = engine->sid;

	if (!vt_scene_begin(&scene))
		return;
	own = engine->sid;
	if (scene.master->sids < 2) {
		vt_skip("the engine has only one StreamID");
		return;
	}
	vt_space_init(smmu, &other);
	other.root = scene.space.root;
	vt_smmu_attach(smmu, scene.master->sid[1], &other);
	if (!works(VT_SOURCE))
		return;
	*vt_descriptor(&scene.space, VT_SOURCE, 3) &= ~DESC_NG;
	vt_barrier();
	engine->sid = scene.master->sid[1];
	if (!works(VT_SOURCE))
		return;
	engine->sid = own;
	if (!conflicts(VT_SOURCE, tlb_conflict(), EVENT_RNW, VT_SOURCE, 0))
		return;
	vt_scene_tlbi(&scene);
	works(VT_SOURCE);
}

/* Streams 2 and 3 are said to be alike, and are not. */
static void an_entry_within_another_ones_span_is_f_cfg_conflict(void)
{
	uint64_t *span, id;

	if (!vt_scene_begin(&scene))
		return;
	if (scene.master->sids < 2 || scene.master->sid[0] != 1 || scene.master->sid[1] != 2) {
		vt_skip("the engine's StreamIDs are not 1 and 2");
		return;
	}
	vt_smmu_bypass(smmu, 2);
	span = vt_smmu_ste(smmu, 2);
	span[1] |= STE_CONT(2); /* 0 to 3 */
	vt_smmu_cfgi_ste(smmu, 2);
	engine->sid = 2;
	if (!works((uint64_t)scene.source))
		return;
	engine->sid = 1;
	id = VT_EVENT(VT_F_CFG_CONFLICT, 1);
	if (!conflicts(VT_SOURCE, id, 0, 0, 0))
		return;
	engine->ssid = 5; /* found before anybody looks for the substream */
	if (!conflicts(VT_SOURCE, VT_EVENT_SSID(VT_F_CFG_CONFLICT, 1, 5), 0, 0, 0))
		return;
	engine->ssid = VT_NO_SSID;
	span[1] &= ~STE_CONT(15);
	vt_smmu_cfgi_ste(smmu, 2);
	works(VT_SOURCE);
}

VT_CASES(
	{"a_page_and_its_block_are_f_tlb_conflict", a_page_and_its_block_are_f_tlb_conflict},
	{"a_block_with_nt_is_borne_at_level_1", a_block_with_nt_is_borne_at_level_1},
	{"a_conflict_of_stage_2_tells_the_ipa", a_conflict_of_stage_2_tells_the_ipa},
	{"a_page_that_became_global_is_f_tlb_conflict", a_page_that_became_global_is_f_tlb_conflict},
	{"an_entry_within_another_ones_span_is_f_cfg_conflict", an_entry_within_another_ones_span_is_f_cfg_conflict},
);
