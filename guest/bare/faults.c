/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What software sees of faults that stock Linux cannot meet: each case is of a machine that is wrong in one way, which
 * the comment above it names. One that is right fails, where the difference can be seen from inside.
 *
 *     vhost-iommu run smmuv3-everything-bare --elf faults --cases stalls_resumed_at_once_end_in_reverse \
 *         --fault 'stall-order of=resume'
 */
#include "smmu.h"
#include "vt.h"

#define FRAMES 6
/* extension frame, and the ATC's page */
#define ATS_RESULT 0x2c
#define ATC_PAGE 0x30000
#define ATC_FEATURES 0x04
#define ATC_HELD 0x20
enum { DENIED = 2 };

static struct vt_scene scene;
static struct vt_smmu *const smmu = &scene.smmu;
static struct vt_engine *const engine = &scene.engine;
static struct vt_engine frames[FRAMES];

/* -- stalls: frames 0, 1, 2, … read a page each that is not mapped -- */

static uint64_t page_of(unsigned int n) { return VT_TARGET + (n + 1) * VT_PAGE; }

static bool begin_stalls(unsigned int told)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (IDR0_STALL_MODEL(smmu->idr0) == 1 || smmu->idr5 >> 16 < told) {
		vt_skip("the SMMU never stalls, or tells of too few stalls at a time");
		return false;
	}
	scene.ste[1] &= ~STE_S1STALLD;
	scene.cd[0] |= CD_S;
	vt_scene_ste(&scene);
	vt_scene_cd(&scene);
	for (unsigned int i = 0; i < FRAMES; i++)
		vt_engine_init_frame(&frames[i], scene.master, i);
	return true;
}

/* The oldest event is of the read of frame 'n'. */
static bool told_of(unsigned int n, uint16_t *stag)
{
	return vt_smmu_expect_stall(smmu, VT_EVENT(VT_F_TRANSLATION, engine->sid), EVENT_CLASS_IN | EVENT_RNW, page_of(n), 0,
				    stag);
}

static bool stalls(unsigned int n, uint16_t *stag)
{
	vt_engine_start_read(&frames[n], page_of(n), VT_PAGE);
	return told_of(n, stag);
}

/* What stalls is aborted, so that a case leaves none behind. */
static void end(unsigned int count)
{
	vt_smmu_command(smmu, CMD_STALL_TERM | CMD_SID(engine->sid), 0);
	VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC after CMD_STALL_TERM does not complete");
	for (unsigned int i = 0; i < count; i++)
		VT_CHECK(vt_engine_end(&frames[i]) == VT_ENGINE_ERROR, "frame %u is not aborted", i);
	VT_SILENT(smmu);
}

/* stall-order of=resume: of three retries that fault again, the events come in reverse. */
static void stalls_resumed_at_once_end_in_reverse(void)
{
	uint16_t stag[3];

	if (!begin_stalls(3))
		return;
	for (unsigned int i = 0; i < 3; i++)
		if (!stalls(i, &stag[i]))
			return;
	for (unsigned int i = 0; i < 3; i++)
		vt_smmu_place(smmu, CMD_RESUME | CMD_SID(engine->sid) | RESUME_AC, stag[i]);
	VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC after CMD_RESUME does not complete");
	for (unsigned int i = 3; i-- > 0;)
		if (!told_of(i, &stag[i]))
			return;
	end(3);
}

/* stall-order of=terminate: each is aborted all the same. */
static void stalls_terminated_in_reverse_are_all_aborted(void)
{
	uint16_t stag;

	if (!begin_stalls(3))
		return;
	for (unsigned int i = 0; i < 3; i++)
		if (!stalls(i, &stag))
			return;
	end(3);
}

/* stall-order of=report: of two that wait for room, the newer is told of first. */
static void of_stalls_that_wait_the_newest_is_told_first(void)
{
	unsigned int most;
	uint16_t stag;

	if (!begin_stalls(1))
		return;
	most = smmu->idr5 >> 16;
	if (most + 2 > FRAMES) {
		vt_skip("the SMMU tells of more stalls than this program makes");
		return;
	}
	for (unsigned int i = 0; i < most + 2; i++) {
		vt_engine_start_read(&frames[i], page_of(i), VT_PAGE);
		VT_CHECK(VT_WAIT(vt_engine_stalled(&frames[i]), 2), "frame %u does not stall", i);
		if (i < most && !told_of(i, &stag))
			return;
	}
	vt_smmu_command(smmu, CMD_RESUME | CMD_SID(engine->sid) | RESUME_AB, stag);
	VT_CHECK(vt_smmu_sync(smmu), "CMD_SYNC after CMD_RESUME does not complete");
	if (told_of(most + 1, &stag))
		end(most + 2);
}

/* -- the ATC: a page is in it, and no longer in the table -- */

static uint32_t held(void) { return vt_read32(scene.master->base + ATC_PAGE + ATC_HELD); }
static bool reads(void) { return vt_engine_read(engine, VT_SOURCE, VT_PAGE) == VT_ENGINE_HALTED; }

static bool begin_atc(void)
{
	if (!vt_scene_begin(&scene))
		return false;
	if (!(smmu->idr0 & IDR0_ATS) || scene.master->size <= ATC_PAGE ||
	    !(vt_read32(scene.master->base + ATC_PAGE + ATC_FEATURES) & 1)) {
		vt_skip("the SMMU has no ATS, or the engine no ATC");
		return false;
	}
	scene.ste[1] |= STE_EATS_FULL;
	vt_scene_ste(&scene);
	engine->pctrl = VT_ATS;
	if (!reads()) {
		vt_fail("a read by way of the ATC fails");
		return false;
	}
	*vt_descriptor(&scene.space, VT_SOURCE, 3) = 0;
	vt_scene_tlbi(&scene);
	vt_smmu_command(smmu, CMD_ATC_INV | CMD_SID(engine->sid), ATC_INV_ALL);
	return true;
}

/* atc-invalidation answer=late seconds=1: CMD_SYNC waits, and the page is used until the answer. */
static void sync_waits_for_a_late_answer(void)
{
	if (!begin_atc())
		return;
	vt_smmu_command(smmu, CMD_SYNC, 0);
	VT_CHECK(held() == 1, "the invalidation is not held");
	VT_CHECK((vt_smmu_get(smmu, CMDQ_CONS) & 0xfffff) != smmu->command_prod, "CMD_SYNC does not wait");
	VT_CHECK(reads(), "the page is not used any more");
	VT_CHECK(VT_WAIT(!held(), 10) && vt_smmu_consumed(smmu), "CMD_SYNC does not complete after the answer");
	VT_CHECK(!reads(), "the page is used after CMD_SYNC");
	VT_CHECK(vt_read32(engine->extension + ATS_RESULT) == DENIED, "its translation is granted again");
	VT_SILENT(smmu);
}

/* atc-invalidation answer=held: CMD_SYNC never completes, without an error, and nothing after it is consumed. */
static void sync_never_completes_where_no_answer_comes(void)
{
	if (!begin_atc())
		return;
	VT_CHECK(!vt_smmu_sync(smmu), "CMD_SYNC completes");
	VT_CHECK(!vt_smmu_errors(smmu), "GERROR has %x", vt_smmu_errors(smmu));
	VT_CHECK(held() == 1 && reads(), "the page is not used any more");
}

/* atc-invalidation answer=time-out: CERROR_ATC_INV_SYNC, and the page is used until the next invalidation. */
static void a_time_out_stops_the_queue_until_it_is_acknowledged(void)
{
	if (!begin_atc())
		return;
	VT_CHECK(!vt_smmu_sync(smmu), "CMD_SYNC completes though the ATC does not answer");
	VT_CHECK(vt_smmu_errors(smmu) == GERROR_CMDQ_ERR, "GERROR has %x", vt_smmu_errors(smmu));
	VT_CHECK(CMDQ_CONS_ERR(vt_smmu_get(smmu, CMDQ_CONS)) == CERROR_ATC_INV_SYNC, "CMDQ_CONS is %x",
		 vt_smmu_get(smmu, CMDQ_CONS));
	VT_CHECK(reads(), "the page is not used any more");
	vt_smmu_acknowledge(smmu);
	VT_CHECK(vt_smmu_consumed(smmu), "the queue does not go on");
	VT_CHECK(reads(), "the page is not used any more");
	vt_smmu_command(smmu, CMD_ATC_INV | CMD_SID(engine->sid), ATC_INV_ALL);
	VT_CHECK(vt_smmu_sync(smmu), "the next CMD_SYNC does not complete");
	VT_CHECK(!reads(), "the page is used after an invalidation that was answered");
	VT_SILENT(smmu);
}

/* -- the virtual machine structure -- */

/* abort-access access=VMS: one transaction is aborted with the structure's address, and the next one reads it. */
static void an_abort_of_a_vms_fails_one_transaction(void)
{
	static struct vt_space stage2;
	uint16_t *partids;

	if (!vt_scene_begin(&scene) || !vt_scene_nest(&scene, &stage2, 1))
		return;
	if (!MPAMIDR_PARTID_MAX(vt_smmu_get(smmu, MPAMIDR))) {
		vt_skip("the SMMU has no PARTIDs");
		return;
	}
	partids = vt_alloc(VT_PAGE, VT_PAGE);
	partids[0] = 1;
	scene.ste[1] |= STE_S1MPAM;
	scene.ste[5] = (uint64_t)partids; /* VMSPtr */
	vt_scene_ste(&scene);
	VT_CHECK(!reads(), "a read is not aborted");
	VT_EXPECT(smmu, VT_EVENT(VT_F_VMS_FETCH, engine->sid), 0, 0, (uint64_t)partids);
	VT_CHECK(reads() && vt_engine_result(engine) == scene.sum, "the next read fails, or is of another page");
	VT_SILENT(smmu);
}

/* -- the wire of CMD_SYNC -- */

/* The INTID of the wire, which is listened to; 0: skipped. */
static uint32_t begin_wire(void)
{
	uint32_t intid;

	if (!vt_scene_begin(&scene))
		return 0;
	intid = vt_config.smmu[scene.master->smmu].intid[3];
	if (intid)
		vt_interrupt_listen(intid);
	else
		vt_skip("CMD_SYNC has no wire");
	return intid;
}

static bool syncs(void)
{
	vt_smmu_command(smmu, CMD_SYNC | SYNC_CS(SYNC_SIG_IRQ), 0);
	return vt_smmu_consumed(smmu);
}

/* lose-interrupt source=cmdq-sync: CMD_SYNC completes, which its wire does not say; the next one's does. */
static void a_sync_whose_wire_is_silent_completes(void)
{
	uint32_t intid = begin_wire();

	if (!intid)
		return;
	VT_CHECK(syncs(), "CMD_SYNC does not complete");
	VT_CHECK(!VT_WAIT(vt_interrupt_pending(intid), 2), "its interrupt comes");
	VT_CHECK(syncs(), "the next CMD_SYNC does not complete");
	VT_CHECK(VT_WAIT(vt_interrupt_pending(intid), 10), "the next one's interrupt does not come");
}

/* late-interrupt source=cmdq-sync seconds=2: CMD_SYNC completes, and its wire says so later. */
static void a_sync_whose_wire_is_late_is_told_later(void)
{
	uint32_t intid = begin_wire();
	uint64_t start = vt_ticks();

	if (!intid)
		return;
	VT_CHECK(syncs(), "CMD_SYNC does not complete");
	VT_CHECK(VT_WAIT(vt_interrupt_pending(intid), 20), "its interrupt does not come");
	VT_CHECK(vt_ticks() - start > vt_frequency(), "its interrupt is not late");
}

VT_CASES(
	{"stalls_resumed_at_once_end_in_reverse", stalls_resumed_at_once_end_in_reverse},
	{"stalls_terminated_in_reverse_are_all_aborted", stalls_terminated_in_reverse_are_all_aborted},
	{"of_stalls_that_wait_the_newest_is_told_first", of_stalls_that_wait_the_newest_is_told_first},
	{"sync_waits_for_a_late_answer", sync_waits_for_a_late_answer},
	{"a_time_out_stops_the_queue_until_it_is_acknowledged", a_time_out_stops_the_queue_until_it_is_acknowledged},
	{"an_abort_of_a_vms_fails_one_transaction", an_abort_of_a_vms_fails_one_transaction},
	{"a_sync_whose_wire_is_silent_completes", a_sync_whose_wire_is_silent_completes},
	{"a_sync_whose_wire_is_late_is_told_later", a_sync_whose_wire_is_late_is_told_later},
	{"sync_never_completes_where_no_answer_comes", sync_never_completes_where_no_answer_comes},
);
