/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage 2, alone and under a stage 1: translations, which stage a fault is laid to and by which address, and
 * invalidations by VMID (IHI 0070 §3.3, §4.4, §7.3.13).
 *
 * RAM lies at intermediate addresses that no physical one equals, so what leaves out a stage goes astray. All that
 * stage 1 is made of (its context descriptor, its tables) is read through stage 2, and can be taken away there.
 */
#include "smmu.h"
#include "vt.h"

#define VMID 0x35
#define OTHER_VMID 0x36

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;
static struct vt_space stage2;

/* Stage 2 alone; VT_SOURCE and VT_TARGET are intermediate addresses. False: skipped. */
static bool alone(void)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (!(smmu->idr0 & IDR0_S2P)) {
		vt_skip("the SMMU has no stage 2");
		return false;
	}
	vt_space_init(smmu, &stage2);
	vt_map2(&stage2, VT_SOURCE, (uint64_t)scene.source, VT_PAGE, VT_READ);
	vt_map2(&stage2, VT_TARGET, (uint64_t)scene.target, VT_PAGE, VT_READ | VT_WRITE);
	vt_smmu_attach_stage2(smmu, engine->sid, NULL, &stage2, VMID);
	return true;
}

/* Both stages; false: skipped. */
static bool both(void) { return vt_scene_begin(&scene) && vt_scene_nest(&scene, &stage2, VMID); }

static uint64_t event(uint8_t id) { return VT_EVENT(id, engine->sid); }

/* A table's address as stage 1 knows it, which is also where a fault of its walk is. */
static uint64_t ipa_of(const void *at) { return (uint64_t)at + VT_IPA; }
static uint64_t page_of(uint64_t address) { return address & ~(VT_PAGE - 1); }

#define VT_FAULTS(how, address, ...) \
	do { \
		uint32_t vt_end = vt_engine_##how(engine, address, 64); \
		VT_CHECK(vt_end == VT_ENGINE_ERROR, "the " #how " at %lx is not aborted, the engine ends with %x", \
			 (uint64_t)(address), vt_end); \
		VT_EXPECT(smmu, __VA_ARGS__); \
		VT_CHECK(vt_blank(scene.target), "a transaction that was to be aborted wrote memory"); \
	} while (0)

static bool works(void)
{
	memset(scene.target, 0, VT_PAGE);
	if (vt_engine_read(engine, VT_SOURCE, VT_PAGE) != VT_ENGINE_HALTED || vt_engine_result(engine) != scene.sum)
		vt_fail("a read of a mapped page fails, or is of another one");
	else if (vt_engine_write(engine, VT_TARGET, VT_PAGE) != VT_ENGINE_HALTED || vt_blank(scene.target))
		vt_fail("a write of a mapped page fails, or goes elsewhere");
	else if (vt_smmu_silent(smmu)) {
		memset(scene.target, 0, VT_PAGE);
		return true;
	}
	return false;
}

/* -- stage 2 alone -- */

static void stage_2_alone_translates(void)
{
	if (alone())
		works();
}

static void faults_of_stage_2_say_so(void)
{
	uint64_t w1 = EVENT_S2 | EVENT_CLASS_IN, at = VT_TARGET + 0x128, *descriptor, good;

	if (!alone())
		return;
	descriptor = vt_descriptor(&stage2, VT_TARGET, 3);
	good = *descriptor;
	*descriptor = 0;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_TRANSLATION), w1, at, VT_TARGET);
	VT_FAULTS(read, at, event(VT_F_TRANSLATION), w1 | EVENT_RNW, at, VT_TARGET);
	*descriptor = good & ~DESC_AF;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_ACCESS), w1, at, VT_TARGET);
	*descriptor = good & ~DESC_S2AP_WRITE;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_PERMISSION), w1, at, VT_TARGET);
	VT_CHECK(vt_engine_read(engine, at, 64) == VT_ENGINE_HALTED, "a page that may be read cannot be");
	*descriptor = good & ~DESC_S2AP_READ;
	vt_scene_tlbi(&scene);
	VT_FAULTS(read, at, event(VT_F_PERMISSION), w1 | EVENT_RNW, at, VT_TARGET);
	*descriptor = good | DESC_S2_XN;
	vt_scene_tlbi(&scene);
	engine->attributes |= VT_INSTRUCTION | VT_PRIVILEGED;
	VT_FAULTS(read, at, event(VT_F_PERMISSION), w1 | EVENT_RNW | EVENT_IND | EVENT_PNU, at, VT_TARGET);
	engine->attributes &= ~(VT_INSTRUCTION | VT_PRIVILEGED);
	scene.ste[2] = (scene.ste[2] & ~STE_S2PS(7)) | STE_S2PS(2); /* 40 bits */
	vt_scene_ste(&scene);
	*descriptor = good | 1UL << 40;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_ADDR_SIZE), w1, at, VT_TARGET);
	*vt_descriptor(&stage2, VT_TARGET, 2) = VT_NOWHERE | DESC_TABLE | DESC_VALID;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_WALK_EABT), w1, at, VT_NOWHERE + 8 * (VT_TARGET >> 12 & 511));
}

static void an_address_beyond_s2t0sz_is_f_translation(void)
{
	uint64_t at = 1UL << 40 | VT_TARGET;

	if (!alone())
		return;
	VT_FAULTS(write, at, event(VT_F_TRANSLATION), EVENT_S2 | EVENT_CLASS_IN, at, at);
	at = 1UL << 52 | VT_TARGET; /* not even an intermediate address: the bypassed stage 1 says so (§3.4) */
	VT_FAULTS(write, at, event(VT_F_ADDR_SIZE), EVENT_CLASS_IN, at, 0);
}

static void without_s2r_a_fault_is_not_recorded(void)
{
	if (!alone())
		return;
	scene.ste[2] &= ~STE_S2R;
	vt_scene_ste(&scene);
	VT_CHECK(vt_engine_read(engine, VT_TARGET + VT_PAGE, 64) == VT_ENGINE_ERROR, "the fault does not abort");
	VT_SILENT(smmu);
}

/* -- both stages -- */

static void both_stages_translate(void)
{
	if (both())
		works();
}

static void a_fault_of_stage_1_is_not_laid_to_stage_2(void)
{
	if (!both())
		return;
	VT_FAULTS(write, VT_TARGET + VT_PAGE, event(VT_F_TRANSLATION), EVENT_CLASS_IN, VT_TARGET + VT_PAGE, 0);
	*vt_descriptor(&scene.space, VT_TARGET, 3) |= DESC_AP_RO;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, VT_TARGET, event(VT_F_PERMISSION), EVENT_CLASS_IN, VT_TARGET, 0);
	scene.cd[0] &= ~CD_V;
	vt_scene_cd(&scene);
	VT_FAULTS(write, VT_TARGET, event(VT_C_BAD_CD), 0, 0, 0);
}

static void the_output_of_stage_1_is_the_input_of_stage_2(void)
{
	uint64_t at = VT_TARGET + 0x30, ipa, w1 = EVENT_S2 | EVENT_CLASS_IN, *descriptor, good;

	if (!both())
		return;
	ipa = ipa_of(scene.target);
	descriptor = vt_ram2(&stage2, ipa);
	good = *descriptor;
	vt_scene_tlbi(&scene);
	if (!works())
		return;
	*descriptor = 0;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_TRANSLATION), w1, at, ipa);
	VT_FAULTS(read, at, event(VT_F_TRANSLATION), w1 | EVENT_RNW, at, ipa);
	*descriptor = good & ~DESC_S2AP_WRITE; /* stage 1 says that it is writable */
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_PERMISSION), w1, at, ipa);
	VT_CHECK(vt_engine_read(engine, at, 64) == VT_ENGINE_HALTED, "a page that may be read cannot be");
	*descriptor = good & ~DESC_AF;
	vt_scene_tlbi(&scene);
	VT_FAULTS(read, at, event(VT_F_ACCESS), w1 | EVENT_RNW, at, ipa);
	*descriptor = good;
	vt_scene_tlbi(&scene);
	works();
}

static void a_stage_1_table_that_stage_2_lacks_is_class_tt(void)
{
	uint64_t at = VT_TARGET + 0x30, w1 = EVENT_S2 | EVENT_CLASS_TT;

	if (!both())
		return;
	for (unsigned int level = 1; level <= 3; level++) {
		uint64_t ipa = page_of(ipa_of(vt_descriptor(&scene.space, VT_TARGET, level)));
		uint64_t *descriptor = vt_ram2(&stage2, ipa), good = *descriptor;

		vt_note("level %u", level);
		*descriptor = 0;
		vt_scene_tlbi(&scene);
		VT_FAULTS(write, at, event(VT_F_TRANSLATION), w1, at, ipa);
		VT_FAULTS(read, at, event(VT_F_TRANSLATION), w1 | EVENT_RNW, at, ipa);
		*descriptor = good & ~DESC_AF;
		vt_scene_tlbi(&scene);
		VT_FAULTS(write, at, event(VT_F_ACCESS), w1, at, ipa);
		*descriptor = good & ~DESC_S2AP_READ; /* the access that is refused is a read, whatever was asked */
		vt_scene_tlbi(&scene);
		VT_FAULTS(write, at, event(VT_F_PERMISSION), w1 | EVENT_TTRNW, at, ipa);
		*descriptor = good & ~DESC_S2AP_WRITE; /* no walk writes here */
		vt_scene_tlbi(&scene);
		if (!works())
			return;
		*descriptor = good;
	}
}

static void a_cd_that_stage_2_lacks_is_class_cd(void)
{
	uint64_t ipa, *descriptor, good, w1 = EVENT_S2 | EVENT_CLASS_CD;

	if (!both())
		return;
	ipa = ipa_of(scene.cd);
	descriptor = vt_ram2(&stage2, ipa);
	good = *descriptor;
	*descriptor = 0;
	vt_scene_tlbi(&scene);
	vt_scene_ste(&scene);
	VT_FAULTS(write, VT_TARGET, event(VT_F_TRANSLATION), w1, VT_TARGET, ipa);
	*descriptor = good & ~DESC_S2AP_READ;
	vt_scene_tlbi(&scene);
	engine->attributes |= VT_PRIVILEGED;
	VT_FAULTS(read, VT_TARGET, event(VT_F_PERMISSION), w1 | EVENT_RNW | EVENT_PNU, VT_TARGET, ipa);
	engine->attributes &= ~VT_PRIVILEGED;
	*descriptor = good;
	vt_scene_tlbi(&scene);
	works();
}

static void aborts_are_told_by_physical_address(void)
{
	uint64_t *descriptor, good, at = VT_TARGET, index;

	if (!both())
		return;
	/* Stage 2 translates the address of a table or CD, but nothing is there. */
	index = (uint64_t)vt_descriptor(&scene.space, at, 3) & (VT_PAGE - 1);
	descriptor = vt_ram2(&stage2, ipa_of(vt_descriptor(&scene.space, at, 3)));
	good = *descriptor;
	*descriptor = (good & ~DESC_ADDRESS) | VT_NOWHERE;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_WALK_EABT), EVENT_CLASS_TT, at, VT_NOWHERE + index);
	*descriptor = good;
	descriptor = vt_ram2(&stage2, ipa_of(scene.cd));
	good = *descriptor;
	*descriptor = (good & ~DESC_ADDRESS) | VT_NOWHERE;
	vt_scene_tlbi(&scene);
	vt_scene_ste(&scene);
	VT_FAULTS(write, at, event(VT_F_CD_FETCH), 0, 0, VT_NOWHERE);
	*descriptor = good;
	vt_scene_tlbi(&scene);
	if (!works())
		return;
	/* Stage 2's own table is not there: for the transaction's address it would be CLASS IN, here a table comes first. */
	*vt_descriptor(&stage2, VT_IPA | (uint64_t)scene.space.root, 1) = VT_NOWHERE | DESC_TABLE | DESC_VALID;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_WALK_EABT), EVENT_S2 | EVENT_CLASS_TT, at,
		  VT_NOWHERE + 8 * (((uint64_t)scene.space.root + VT_IPA) >> 21 & 511));
	vt_scene_ste(&scene);
	VT_FAULTS(read, at, event(VT_F_WALK_EABT), EVENT_S2 | EVENT_CLASS_CD | EVENT_RNW, at,
		  VT_NOWHERE + 8 * (ipa_of(scene.cd) >> 21 & 511));
}

static void an_unreadable_vms_is_f_vms_fetch(void)
{
	uint16_t *partids;

	if (!both())
		return;
	if (!MPAMIDR_PARTID_MAX(vt_smmu_get(smmu, MPAMIDR))) {
		vt_skip("the SMMU has no PARTIDs");
		return;
	}
	scene.ste[1] |= STE_S1MPAM;
	scene.ste[5] = VT_NOWHERE; /* VMSPtr */
	vt_scene_ste(&scene);
	VT_FAULTS(read, VT_SOURCE, event(VT_F_VMS_FETCH), 0, 0, VT_NOWHERE);
	VT_FAULTS(write, VT_TARGET, event(VT_F_VMS_FETCH), 0, 0, VT_NOWHERE);
	partids = vt_alloc(VT_PAGE, VT_PAGE);
	partids[0] = 1;
	scene.ste[5] = (uint64_t)partids; /* by its physical address, and nothing is kept of the other */
	vt_scene_ste(&scene);
	works();
}

static void s1dss_1_leaves_stage_2_alone(void)
{
	if (!both())
		return;
	if (!IDR1_SSIDSIZE(smmu->idr1)) {
		vt_skip("the SMMU has no SubstreamIDs");
		return;
	}
	scene.ste[0] |= STE_S1CDMAX(1);
	scene.ste[1] = (scene.ste[1] & ~STE_S1DSS) | STE_S1DSS_BYPASS;
	vt_scene_ste(&scene);
	VT_CHECK(vt_engine_write(engine, ipa_of(scene.target), 64) == VT_ENGINE_HALTED, "stage 2 does not translate");
	VT_CHECK(!vt_blank(scene.target), "stage 2 translates to elsewhere");
	memset(scene.target, 0, VT_PAGE);
	VT_FAULTS(write, VT_TARGET, event(VT_F_TRANSLATION), EVENT_S2 | EVENT_CLASS_IN, VT_TARGET, VT_TARGET);
}

/* -- VMIDs -- */

static void one_address_is_a_page_of_each_vmid(void)
{
	struct vt_space other2;
	uint8_t *page;

	if (!alone())
		return;
	if (scene.master->sids < 2) {
		vt_skip("the engine has only one StreamID");
		return;
	}
	page = vt_alloc(VT_PAGE, VT_PAGE);
	vt_space_init(smmu, &other2);
	vt_map2(&other2, VT_TARGET, (uint64_t)page, VT_PAGE, VT_READ | VT_WRITE);
	vt_smmu_attach_stage2(smmu, scene.master->sid[1], NULL, &other2, OTHER_VMID);
	if (!works())
		return;
	engine->sid = scene.master->sid[1];
	VT_CHECK(vt_engine_write(engine, VT_TARGET, 64) == VT_ENGINE_HALTED, "the other VMID's page cannot be written");
	VT_CHECK(!vt_blank(page) && vt_blank(scene.target), "a VMID uses another's translations");
}

/* Take a page from stage 2, give the commands, and see whether it is still translated. */
static bool stale(uint64_t *descriptor, uint64_t word0, uint64_t word1, uint64_t also)
{
	uint64_t good = *descriptor;
	struct vt_event ignored;
	bool translates;

	if (vt_engine_write(engine, VT_TARGET, 64) != VT_ENGINE_HALTED)
		vt_fail("a mapped page cannot be written");
	*descriptor = 0;
	vt_barrier();
	vt_smmu_command(smmu, word0, word1);
	if (also)
		vt_smmu_command(smmu, also, 0);
	if (!vt_smmu_sync(smmu))
		vt_fail("the invalidation is not consumed");
	translates = vt_engine_write(engine, VT_TARGET, 64) == VT_ENGINE_HALTED;
	if (!translates && !vt_smmu_event(smmu, &ignored, 1))
		vt_fail("the fault is not recorded");
	*descriptor = good;
	vt_scene_tlbi(&scene);
	return translates;
}

static void stage_2_is_invalidated_by_vmid_and_address(void)
{
	uint64_t *descriptor;

	if (!alone())
		return;
	descriptor = vt_descriptor(&stage2, VT_TARGET, 3);
	VT_CHECK(!stale(descriptor, CMD_TLBI_S2_IPA | CMD_VMID(VMID), VT_TARGET, 0), "CMD_TLBI_S2_IPA is not obeyed");
	VT_CHECK(!stale(descriptor, CMD_TLBI_S2_IPA | CMD_VMID(VMID), VT_TARGET | CMD_LEAF, 0),
		 "CMD_TLBI_S2_IPA of a leaf is not obeyed");
	VT_CHECK(!stale(descriptor, CMD_TLBI_S12_VMALL | CMD_VMID(VMID), 0, 0), "CMD_TLBI_S12_VMALL is not obeyed");
	VT_CHECK(!stale(descriptor, CMD_TLBI_NSNH_ALL, 0, 0), "CMD_TLBI_NSNH_ALL is not obeyed");
	if (smmu->idr3 & IDR3_RIL)
		VT_CHECK(!stale(descriptor, CMD_TLBI_S2_IPA | CMD_VMID(VMID) | 3UL << 12,
				(VT_TARGET - 3 * VT_PAGE) | TLBI_TG_4K, 0),
			 "CMD_TLBI_S2_IPA of 4 pages is not obeyed");
	/* An SMMU may forget more than it is told to; the launcher knows what ours does. */
	vt_note("stale other=ipa_vmid translates=%d",
		stale(descriptor, CMD_TLBI_S2_IPA | CMD_VMID(OTHER_VMID), VT_TARGET, 0));
	vt_note("stale other=vmid translates=%d", stale(descriptor, CMD_TLBI_S12_VMALL | CMD_VMID(OTHER_VMID), 0, 0));
	vt_note("stale other=ipa translates=%d",
		stale(descriptor, CMD_TLBI_S2_IPA | CMD_VMID(VMID), VT_TARGET + VT_PAGE, 0));
	vt_note("stale other=stage1 translates=%d", stale(descriptor, CMD_TLBI_NH_ALL | CMD_VMID(VMID), 0, 0));
}

static void both_stages_are_invalidated_by_vmid(void)
{
	uint64_t *first, *second, asid;

	if (!both())
		return;
	asid = CMD_ASID(scene.space.asid);
	first = vt_descriptor(&scene.space, VT_TARGET, 3);
	second = vt_ram2(&stage2, ipa_of(scene.target));
	VT_CHECK(!stale(first, CMD_TLBI_NH_VA | CMD_VMID(VMID) | asid, VT_TARGET | CMD_LEAF, 0),
		 "CMD_TLBI_NH_VA is not obeyed");
	VT_CHECK(!stale(first, CMD_TLBI_NH_VAA | CMD_VMID(VMID), VT_TARGET, 0), "CMD_TLBI_NH_VAA is not obeyed");
	VT_CHECK(!stale(first, CMD_TLBI_NH_ASID | CMD_VMID(VMID) | asid, 0, 0), "CMD_TLBI_NH_ASID is not obeyed");
	VT_CHECK(!stale(first, CMD_TLBI_NH_ALL | CMD_VMID(VMID), 0, 0), "CMD_TLBI_NH_ALL is not obeyed");
	VT_CHECK(!stale(first, CMD_TLBI_S12_VMALL | CMD_VMID(VMID), 0, 0), "CMD_TLBI_S12_VMALL spares stage 1");
	VT_CHECK(!stale(second, CMD_TLBI_S12_VMALL | CMD_VMID(VMID), 0, 0), "CMD_TLBI_S12_VMALL spares stage 2");
	/* Stage 2's own entry by address, and whatever both stages were combined to by the second (§4.4.3). */
	VT_CHECK(!stale(second, CMD_TLBI_S2_IPA | CMD_VMID(VMID), ipa_of(scene.target), CMD_TLBI_NH_ALL | CMD_VMID(VMID)),
		 "CMD_TLBI_S2_IPA is not obeyed");
	vt_note("stale other=nested_va translates=%d",
		stale(first, CMD_TLBI_NH_VA | CMD_VMID(OTHER_VMID) | asid, VT_TARGET, 0));
	vt_note("stale other=nested_asid translates=%d", stale(first, CMD_TLBI_NH_ASID | CMD_VMID(OTHER_VMID) | asid, 0, 0));
	vt_note("stale other=nested_all translates=%d", stale(first, CMD_TLBI_NH_ALL | CMD_VMID(OTHER_VMID), 0, 0));
	vt_note("stale other=nested_vmid translates=%d", stale(second, CMD_TLBI_S12_VMALL | CMD_VMID(OTHER_VMID), 0, 0));
}

/* -- stalls -- */

static void each_stage_stalls_for_itself(void)
{
	uint64_t ipa, *second, good, at = VT_TARGET + 0x40;
	uint16_t stag;

	if (!both())
		return;
	if (IDR0_STALL_MODEL(smmu->idr0)) {
		vt_skip("stages cannot choose whether to stall");
		return;
	}
	ipa = ipa_of(scene.target);
	second = vt_ram2(&stage2, ipa);
	good = *second;
	scene.ste[2] |= STE_S2S;
	vt_scene_ste(&scene);
	vt_note("stage 2 stalls, stage 1 aborts");
	VT_FAULTS(write, VT_TARGET + VT_PAGE, event(VT_F_TRANSLATION), EVENT_CLASS_IN, VT_TARGET + VT_PAGE, 0);
	*second = 0;
	vt_scene_tlbi(&scene);
	vt_engine_start_write(engine, at, 64);
	if (!vt_smmu_expect_stall(smmu, event(VT_F_TRANSLATION), EVENT_S2 | EVENT_CLASS_IN, at, ipa, &stag))
		return;
	*second = good;
	vt_barrier();
	vt_smmu_command(smmu, CMD_RESUME | CMD_SID(engine->sid) | RESUME_AC, stag);
	VT_CHECK(vt_engine_end(engine) == VT_ENGINE_HALTED && !vt_blank(scene.target), "the write does not go on");
	memset(scene.target, 0, VT_PAGE);

	vt_note("so does a fault of a stage 1 walk");
	ipa = page_of(ipa_of(vt_descriptor(&scene.space, at, 3)));
	second = vt_ram2(&stage2, ipa);
	good = *second;
	*second = 0;
	vt_scene_tlbi(&scene);
	vt_engine_start_write(engine, at, 64);
	if (!vt_smmu_expect_stall(smmu, event(VT_F_TRANSLATION), EVENT_S2 | EVENT_CLASS_TT, at, ipa, &stag))
		return;
	*second = good;
	vt_barrier();
	vt_smmu_command(smmu, CMD_RESUME | CMD_SID(engine->sid) | RESUME_AC, stag);
	VT_CHECK(vt_engine_end(engine) == VT_ENGINE_HALTED && !vt_blank(scene.target), "the write does not go on");
	memset(scene.target, 0, VT_PAGE);

	vt_note("stage 1 stalls, stage 2 aborts");
	scene.ste[2] &= ~STE_S2S;
	scene.ste[1] &= ~STE_S1STALLD;
	scene.cd[0] |= CD_S;
	vt_scene_ste(&scene);
	*second = 0;
	vt_scene_tlbi(&scene);
	VT_FAULTS(write, at, event(VT_F_TRANSLATION), EVENT_S2 | EVENT_CLASS_TT, at, ipa);
	*second = good;
	vt_scene_tlbi(&scene);
	vt_engine_start_write(engine, VT_TARGET + VT_PAGE, 64);
	if (!vt_smmu_expect_stall(smmu, event(VT_F_TRANSLATION), EVENT_CLASS_IN, VT_TARGET + VT_PAGE, 0, &stag))
		return;
	vt_smmu_command(smmu, CMD_RESUME | CMD_SID(engine->sid) | RESUME_AB, stag);
	VT_CHECK(vt_engine_end(engine) == VT_ENGINE_ERROR, "the write is not aborted");
	VT_SILENT(smmu);
}

VT_CASES(
	{"stage_2_alone_translates", stage_2_alone_translates},
	{"faults_of_stage_2_say_so", faults_of_stage_2_say_so},
	{"an_address_beyond_s2t0sz_is_f_translation", an_address_beyond_s2t0sz_is_f_translation},
	{"without_s2r_a_fault_is_not_recorded", without_s2r_a_fault_is_not_recorded},
	{"both_stages_translate", both_stages_translate},
	{"a_fault_of_stage_1_is_not_laid_to_stage_2", a_fault_of_stage_1_is_not_laid_to_stage_2},
	{"the_output_of_stage_1_is_the_input_of_stage_2", the_output_of_stage_1_is_the_input_of_stage_2},
	{"a_stage_1_table_that_stage_2_lacks_is_class_tt", a_stage_1_table_that_stage_2_lacks_is_class_tt},
	{"a_cd_that_stage_2_lacks_is_class_cd", a_cd_that_stage_2_lacks_is_class_cd},
	{"aborts_are_told_by_physical_address", aborts_are_told_by_physical_address},
	{"an_unreadable_vms_is_f_vms_fetch", an_unreadable_vms_is_f_vms_fetch},
	{"s1dss_1_leaves_stage_2_alone", s1dss_1_leaves_stage_2_alone},
	{"one_address_is_a_page_of_each_vmid", one_address_is_a_page_of_each_vmid},
	{"stage_2_is_invalidated_by_vmid_and_address", stage_2_is_invalidated_by_vmid_and_address},
	{"both_stages_are_invalidated_by_vmid", both_stages_are_invalidated_by_vmid},
	{"each_stage_stalls_for_itself", each_stage_stalls_for_itself},
);
